//! `file:`: the output is appended to a file, by a process of its own.
//!
//! A write to a file can take as long as a disk or a server likes, so it has no place in the loop.
//! The copier is a fork of the shim, whose pages it shares (a worker is a sealed copy of the binary,
//! 3 MB of memory that a copier would keep). It has no descriptors but the pipes and the files; it
//! allocates nothing, and ends by itself at the end of the pipes, or when it is told to (SIGTERM) and there is
//! nothing to read: ppoll(2) is the only place where the signal may come, and there what is ready
//! comes first.
//!
//! Promise: the container is not stopped by a file that can't be written (a full disk): its output
//! is lost meanwhile, and the file says how much when it can be written again.

use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use corten::error::{Doing, Result};
use corten::process::signals;
use corten::sys::process::{CloneArgs, Cloned, clone, end_with_only};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{Pid, read, setpgid, write};

/// As `ps -A` shows it.
const NAME: &std::ffi::CStr = c"corten-output";
/// Bytes moved at once, on the stack.
const CHUNK: usize = 16 << 10;

/// One stream: the read end of its pipe, and its file.
pub(super) type Stream = (OwnedFd, OwnedFd);

/// Starts the copier; its pid and pidfd.
pub(super) fn start(streams: &[Stream]) -> Result<(Pid, OwnedFd)> {
    match clone(&CloneArgs::default()).doing(|| "fork the output's copier".to_owned())? {
        Cloned::Parent(pid, pidfd) => Ok((pid, pidfd)),
        Cloned::Child => {
            let mut keep = [streams[0].0.as_fd(); 4];
            for (place, (pipe, file)) in keep.chunks_mut(2).zip(streams) {
                place[0] = pipe.as_fd();
                place[1] = file.as_fd();
            }
            end_with_only(&keep, || run(streams))
        }
    }
}

/// The copier's life. What fails here has nobody to be told to.
fn run(streams: &[Stream]) {
    let mut end = SigSet::empty();
    end.add(Signal::SIGTERM);
    // Out of the shim's process group, so that nothing that is sent there ends the output.
    let own = setpgid(Pid::from_raw(0), Pid::from_raw(0));
    let _as_it_was = (own, prctl::set_name(NAME), signals::reset(), end.thread_block());
    let mut copies = [const { None }; 2];
    for (copy, (pipe, file)) in copies.iter_mut().zip(streams) {
        *copy = Some(Copy { pipe: pipe.as_fd(), file: file.as_fd(), lost: 0, why: Errno::EIO });
    }
    loop {
        let pipes = copies.each_ref().map(|copy| copy.as_ref().map(|copy| copy.pipe));
        let Some(any) = pipes.iter().flatten().next().copied() else { return };
        // An ended one is asked for nothing, by way of one that is not.
        let mut fds = pipes.map(|pipe| match pipe {
            Some(pipe) => PollFd::new(pipe, PollFlags::POLLIN),
            None => PollFd::new(any, PollFlags::empty()),
        });
        if ppoll(&mut fds, None, Some(SigSet::empty())).is_err() {
            continue;
        }
        let ready = fds.map(|fd| fd.any().unwrap_or(false));
        for (copy, ready) in copies.iter_mut().zip(ready) {
            if ready && copy.as_mut().is_some_and(|copy| !copy.turn()) {
                *copy = None;
            }
        }
    }
}

struct Copy<'a> {
    pipe: BorrowedFd<'a>,
    file: BorrowedFd<'a>,
    /// Bytes since the file could last be written.
    lost: u64,
    why: Errno,
}

impl Copy<'_> {
    /// One chunk; false at the end of the pipe.
    fn turn(&mut self) -> bool {
        let mut chunk = [0; CHUNK];
        match read(self.pipe, &mut chunk) {
            Ok(0) => {
                let _last_chance = self.lost == 0 || self.confess();
                false
            }
            Ok(count) => {
                if self.lost == 0 || self.confess() {
                    self.append(&chunk[..count]);
                } else {
                    self.lost += count as u64;
                }
                true
            }
            Err(Errno::EINTR | Errno::EAGAIN) => true,
            Err(_) => false,
        }
    }

    /// Writes how much is missing; false if even that can't be written.
    fn confess(&mut self) -> bool {
        let mut note = [0; 160];
        let space = note.len();
        let mut rest = &mut note[..];
        let why = self.why.desc();
        if writeln!(rest, "\n[corten: {} bytes of output were lost: {why}]", self.lost).is_err() {
            return false;
        }
        let length = space - rest.len();
        let before = std::mem::take(&mut self.lost);
        self.append(&note[..length]);
        if self.lost > 0 {
            // The note itself is not output.
            self.lost = before;
            return false;
        }
        true
    }

    fn append(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match write(self.file, bytes) {
                Ok(count) if count > 0 => bytes = &bytes[count..],
                Err(Errno::EINTR) => {}
                failed => {
                    self.lost += bytes.len() as u64;
                    self.why = failed.err().unwrap_or(Errno::EIO);
                    return;
                }
            }
        }
    }
}
