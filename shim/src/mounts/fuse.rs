//! `fuse.X` and `fuse3.X`: a file system whose server is a program.
//!
//! `mount.fuse` or `mount.fuse3` starts it, and is gone when it serves. The helper gets a deadline and a
//! process group of its own, which is killed when it fails: nothing of it is left then. What it prints
//! goes to a file that can't grow: the server may keep it open and never waits for a reader, nor is
//! killed for the lack of one.

use std::ffi::{CString, OsString};
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use corten::error::{Doing, Error, Result, errno_words};
use corten::rootfs::path::c_path;
use corten::sys::process::{CloneArgs, Cloned, cloexec_from, clone, exit_now};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl, open, readlink};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, killpg};
use nix::sys::stat::Mode;
use nix::sys::uio::pread;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{Pid, dup2_stderr, dup2_stdin, dup2_stdout, execve, ftruncate, setpgid};

use super::Mount;

/// How long the helper may take.
const DEADLINE: Duration = Duration::from_secs(30);
/// How much of its words is kept.
const QUOTED: usize = 4096;
/// Where helpers are when `PATH` does not say.
const DIRECTORIES: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A mount helper.
#[derive(Debug)]
pub(super) struct Helper<'a> {
    program: &'static str,
    /// The file system that it starts.
    fstype: &'a str,
    pub(super) deadline: Instant,
}

impl<'a> Helper<'a> {
    /// The helper for this type of file system, if it has one.
    pub(super) fn of(kind: &'a str) -> Option<Self> {
        let (program, fstype) = match kind.split_once('.')? {
            ("fuse", fstype) => ("mount.fuse", fstype),
            ("fuse3", fstype) => ("mount.fuse3", fstype),
            _ => return None,
        };
        Some(Self { program, fstype, deadline: Instant::now() + DEADLINE })
    }

    /// Runs it to its end.
    pub(super) fn run(&self, mount: &Mount, target: &OwnedFd) -> Result<()> {
        let (program, args, env) = self.command(mount, target)?;
        let words = words_file()?;
        let null = open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())
            .doing(|| "open /dev/null".to_owned())?;
        let (pid, pidfd) =
            match clone(&CloneArgs::default()).doing(|| format!("clone {}", self.program))? {
                Cloned::Child => become_helper(&program, &args, &env, &null, &words),
                Cloned::Parent(pid, pidfd) => (pid, pidfd),
            };
        // Both sides set it: whoever comes first.
        let _both_sides = setpgid(pid, pid);
        let ended = self.wait_for(&pidfd);
        if ended.is_err() {
            let _may_be_gone = killpg(pid, Signal::SIGKILL);
        }
        let status = waitid(Id::PIDFd(pidfd.as_fd()), WaitPidFlag::WEXITED)
            .doing(|| format!("wait for {}", self.program))?;
        let how = match (ended, status) {
            (Ok(()), WaitStatus::Exited(_, 0)) => return Ok(()),
            (Err(why), _) => why,
            (_, WaitStatus::Exited(_, code)) => format!("exit status {code}"),
            (_, WaitStatus::Signaled(_, signal, _)) => format!("killed by {signal}"),
            (_, other) => format!("{other:?}"),
        };
        let _may_be_gone = killpg(pid, Signal::SIGKILL);
        let program = program.to_string_lossy();
        Err(Error::Failed(format!("{program}: {how}: {}", said(&words))))
    }

    /// Until something is mounted; usually it is when the helper is gone.
    pub(super) fn wait(&self, mounted: impl Fn() -> Result<bool>) -> Result<()> {
        while !mounted()? {
            if Instant::now() >= self.deadline {
                return Err(Error::Failed(format!("{}: mounts nothing", self.program)));
            }
            sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    fn command(
        &self,
        mount: &Mount,
        target: &OwnedFd,
    ) -> Result<(CString, Vec<CString>, Vec<CString>)> {
        let name = format!("/proc/self/fd/{}", target.as_raw_fd());
        let target = readlink(name.as_str()).doing(|| format!("read link {name}"))?;
        let mut args: Vec<OsString> = vec![self.program.into(), (&mount.source).into(), target];
        for option in &mount.options {
            args.extend(["-o".into(), option.into()]);
        }
        args.extend(["-t".into(), self.fstype.into()]);
        let mut env: Vec<OsString> = std::env::vars_os()
            .filter(|(name, _)| name != "PATH")
            .map(|(name, value)| [name, value].join("=".as_ref()))
            .collect();
        let path = std::env::var_os("PATH").filter(|path| !path.is_empty());
        let path = path.unwrap_or_else(|| DIRECTORIES.into());
        let program = find(self.program, &path)?;
        // It looks up the file system's program itself.
        env.push(["PATH".into(), path].join("=".as_ref()));
        let program = c_path(&program).doing(|| "helper".to_owned())?;
        Ok((program, c_strings(args)?, c_strings(env)?))
    }

    fn wait_for(&self, pidfd: &OwnedFd) -> Result<(), String> {
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], timeout) {
                Ok(0) => return Err("timed out".to_owned()),
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(format!("poll: {}", errno_words(errno))),
            }
        }
    }
}

fn find(program: &str, path: &OsString) -> Result<PathBuf> {
    let usual = OsString::from(DIRECTORIES);
    std::env::split_paths(path)
        .chain(std::env::split_paths(&usual))
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(program))
        .find(|candidate| Path::is_file(candidate))
        .ok_or_else(|| Error::Unsupported(format!("{program} is not installed")))
}

fn c_strings(strings: Vec<OsString>) -> Result<Vec<CString>> {
    let all: Result<_, _> = strings.into_iter().map(|one| CString::new(one.into_vec())).collect();
    all.map_err(|_| Error::Failed("an argument of the mount helper holds a NUL".to_owned()))
}

/// A file of a fixed size for what the helper prints.
pub(super) fn words_file() -> Result<OwnedFd> {
    let doing = || "make a file for the mount helper's output".to_owned();
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let file = memfd_create(c"mount-helper", flags).doing(doing)?;
    ftruncate(&file, QUOTED as i64).doing(doing)?;
    let seals = SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).doing(doing)?;
    Ok(file)
}

/// One line of it.
fn said(words: &OwnedFd) -> String {
    let mut text = vec![0; QUOTED];
    let read = pread(words, &mut text, 0).unwrap_or(0);
    text.truncate(read);
    let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
    text.truncate(end);
    String::from_utf8_lossy(&text).trim_end().replace('\n', "\\n")
}

/// In the helper's process; on failure the shell's 127 with the reason on stderr.
fn become_helper(
    program: &CString,
    args: &[CString],
    env: &[CString],
    null: &OwnedFd,
    words: &OwnedFd,
) -> ! {
    let result = (|| -> Result<(), Errno> {
        setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
        dup2_stdin(null)?;
        dup2_stdout(words)?;
        dup2_stderr(words)?;
        // The server lives long: it must not hold what is the shim's. Before Linux 5.11 all of that
        // is marked anyway.
        let _all_are = cloexec_from(3);
        corten::process::signals::reset()
            .map_err(|error| error.errno().unwrap_or(Errno::EINVAL))?;
        execve(program, args, env).map(|never| match never {})
    })();
    if let Err(errno) = result {
        let _nobody_listens = writeln!(std::io::stderr(), "exec: {}", errno_words(errno));
    }
    exit_now(127)
}
