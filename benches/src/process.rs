//! A process of somebody else, whose end we want to see.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use nix::poll::{PollFd, PollFlags, poll};

/// A process, followed by descriptor.
#[derive(Debug)]
pub struct Process {
    pidfd: OwnedFd,
}

impl Process {
    /// The process whose number is in `file`.
    ///
    /// # Errors
    /// No such process, or no number.
    pub fn from_pid_file(file: &Path) -> Result<Self, String> {
        let text =
            std::fs::read_to_string(file).map_err(|error| format!("read {file:?}: {error}"))?;
        let pid: i32 =
            text.trim().parse().map_err(|error| format!("{file:?} holds {text:?}: {error}"))?;
        Self::from_pid(pid)
    }

    /// The process with this number.
    ///
    /// # Errors
    /// No such process.
    pub fn from_pid(pid: i32) -> Result<Self, String> {
        // SAFETY: no pointers; a descriptor that comes back is new and ours.
        let pidfd = unsafe {
            let fd = libc::syscall(libc::SYS_pidfd_open, pid, 0);
            if fd < 0 {
                return Err(format!("pidfd_open {pid}: {}", std::io::Error::last_os_error()));
            }
            OwnedFd::from_raw_fd(fd as i32)
        };
        Ok(Process { pidfd })
    }

    /// Ends it, if it has not ended.
    pub fn kill(&self) {
        // SAFETY: the descriptor lives, and no information goes with the signal.
        let _ended = unsafe {
            let (fd, nothing) = (self.pidfd.as_raw_fd(), std::ptr::null::<libc::siginfo_t>());
            libc::syscall(libc::SYS_pidfd_send_signal, fd, libc::SIGKILL, nothing, 0)
        };
    }

    /// Waits up to ten seconds for its end.
    ///
    /// # Errors
    /// It has not ended.
    pub fn ended(&self) -> Result<(), String> {
        let mut wanted = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
        match poll(&mut wanted, 10_000u16) {
            Ok(1) => Ok(()),
            Ok(_) => Err("a process did not end in 10 s".to_owned()),
            Err(errno) => Err(format!("poll a pidfd: {errno}")),
        }
    }
}
