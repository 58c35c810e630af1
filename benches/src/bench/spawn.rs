//! One command: spawned without a shell, timed, and asked what it used.
//!
//! `posix_spawn` shares this process's memory until the exec, and the kernel counts that
//! memory into the child's peak, so this program stays small; the `noop` line of the report is
//! the resulting zero point.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs::File;
use std::os::fd::AsRawFd;

/// What one command cost.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// Spawn to end, in milliseconds.
    pub wall: f64,
    /// User and system time of the command and what it waited for, in milliseconds.
    pub cpu: f64,
    /// Peak resident memory, in KiB.
    pub memory: f64,
}

/// A program with its arguments, ready to be spawned many times.
#[derive(Debug)]
pub struct Command {
    arguments: Vec<CString>,
}

/// Milliseconds on the monotonic clock.
fn now() -> f64 {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
        .map_or(0.0, |t| t.tv_sec() as f64 * 1e3 + t.tv_nsec() as f64 / 1e6)
}

impl Command {
    pub fn new<S: AsRef<str>>(arguments: &[S]) -> Result<Self, String> {
        let arguments = arguments
            .iter()
            .map(|argument| {
                CString::new(argument.as_ref())
                    .map_err(|error| format!("{:?}: {error}", argument.as_ref()))
            })
            .collect::<Result<_, _>>()?;
        Ok(Command { arguments })
    }

    /// Runs the command to its end with `/dev/null` as input and `output` as the rest.
    pub fn run(&self, output: &File) -> Result<Cost, String> {
        let null = File::open("/dev/null").map_err(|error| format!("/dev/null: {error}"))?;
        let mut pointers: Vec<*mut libc::c_char> =
            self.arguments.iter().map(|one| one.as_ptr().cast_mut()).collect();
        pointers.push(std::ptr::null_mut());
        let path = c"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let environment = [path.as_ptr().cast_mut(), std::ptr::null_mut()];
        // SAFETY: zeroes are a valid value of both structs before their init or the kernel fills
        // them; the argument strings and arrays live through the calls, and `pid` is our child.
        let (begin, end, status, usage) = unsafe {
            let mut actions: libc::posix_spawn_file_actions_t = std::mem::zeroed();
            libc::posix_spawn_file_actions_init(&mut actions);
            for (from, to) in
                [(null.as_raw_fd(), 0), (output.as_raw_fd(), 1), (output.as_raw_fd(), 2)]
            {
                libc::posix_spawn_file_actions_adddup2(&mut actions, from, to);
            }
            let mut usage: libc::rusage = std::mem::zeroed();
            let (mut pid, mut status) = (0, 0);
            let begin = now();
            let error = libc::posix_spawnp(
                &mut pid,
                pointers[0],
                &actions,
                std::ptr::null(),
                pointers.as_ptr(),
                environment.as_ptr(),
            );
            if error == 0 && libc::wait4(pid, &mut status, 0, &mut usage) < 0 {
                status = -1;
            }
            let end = now();
            libc::posix_spawn_file_actions_destroy(&mut actions);
            if error != 0 {
                return Err(format!(
                    "{}: {}",
                    self.line(),
                    std::io::Error::from_raw_os_error(error)
                ));
            }
            (begin, end, status, usage)
        };
        if status != 0 {
            return Err(format!("{}: wait status {status:#x}", self.line()));
        }
        let milliseconds = |t: libc::timeval| t.tv_sec as f64 * 1e3 + t.tv_usec as f64 / 1e3;
        Ok(Cost {
            wall: end - begin,
            cpu: milliseconds(usage.ru_utime) + milliseconds(usage.ru_stime),
            memory: usage.ru_maxrss as f64,
        })
    }

    fn line(&self) -> String {
        self.arguments.iter().map(|one| one.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }
}
