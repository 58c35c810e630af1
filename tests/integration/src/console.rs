//! The caller's end of `--console-socket`: receives the terminal and talks through it.

use std::fs::File;
use std::io::{IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use crate::driver::deadline;

/// A listening console socket.
#[derive(Debug)]
pub struct ConsoleSocket {
    listener: UnixListener,
    path: PathBuf,
}

/// The container's terminal, our side.
#[derive(Debug)]
pub struct Terminal {
    master: File,
    /// What the runtime called it in the message.
    pub name: String,
    seen: String,
}

impl ConsoleSocket {
    /// Listens at `path`.
    pub fn bind(path: &Path) -> Self {
        let listener = UnixListener::bind(path).expect("bind the console socket");
        listener.set_nonblocking(true).expect("non-blocking console socket");
        Self { listener, path: path.to_owned() }
    }

    /// The path to give to `--console-socket`.
    pub fn path(&self) -> &str {
        self.path.to_str().expect("a UTF-8 path")
    }

    /// Receives the one terminal that the runtime sends.
    #[track_caller]
    pub fn accept(&self) -> Terminal {
        wait_readable(self.listener.as_fd(), "a console to be sent");
        let (stream, _) = self.listener.accept().expect("accept on the console socket");
        wait_readable(stream.as_fd(), "the console's message");
        let (name, mut fds) = receive(&stream);
        assert_eq!(fds.len(), 1, "exactly one descriptor is sent");
        Terminal { master: fds.remove(0).into(), name, seen: String::new() }
    }
}

impl Terminal {
    /// Types into the terminal.
    pub fn send(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).expect("write to the terminal");
    }

    /// Reads until `words` have been printed; returns everything seen so far.
    #[track_caller]
    pub fn expect(&mut self, words: &str) -> String {
        while !self.seen.contains(words) {
            wait_readable(self.master.as_fd(), &format!("{words:?}, seen {:?}", self.seen));
            assert!(self.more(), "the terminal closed before {words:?}, seen {:?}", self.seen);
        }
        self.seen.clone()
    }

    /// Reads until the other side is gone.
    #[track_caller]
    pub fn drain(&mut self) -> String {
        loop {
            wait_readable(self.master.as_fd(), "the end of the terminal");
            if !self.more() {
                return self.seen.clone();
            }
        }
    }

    /// The master's descriptor.
    pub fn master(&self) -> &File {
        &self.master
    }

    fn more(&mut self) -> bool {
        let mut buffer = [0_u8; 4096];
        match self.master.read(&mut buffer) {
            Ok(n) if n > 0 => {
                self.seen.push_str(&String::from_utf8_lossy(&buffer[..n]));
                true
            }
            _ => false,
        }
    }
}

/// One message with the descriptors it carries.
#[track_caller]
pub fn receive(stream: &UnixStream) -> (String, Vec<OwnedFd>) {
    let mut buffer = [0_u8; 4096];
    let mut space = nix::cmsg_space!([RawFd; 4]);
    let mut slices = [IoSliceMut::new(&mut buffer)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let got = recvmsg::<()>(stream.as_raw_fd(), &mut slices, Some(&mut space), flags)
        .expect("receive a descriptor");
    let mut fds = Vec::new();
    for control in got.cmsgs().expect("control messages") {
        if let ControlMessageOwned::ScmRights(more) = control {
            fds.extend(more.into_iter().map(own));
        }
    }
    let length = got.bytes;
    (String::from_utf8_lossy(&buffer[..length]).into_owned(), fds)
}

#[allow(unsafe_code)]
fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: the kernel has just installed this descriptor for us; nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

#[track_caller]
fn wait_readable(fd: std::os::fd::BorrowedFd<'_>, what: &str) {
    let start = Instant::now();
    loop {
        let mut set = [PollFd::new(fd, PollFlags::POLLIN)];
        if poll(&mut set, PollTimeout::from(200_u16)).expect("poll") > 0 {
            return;
        }
        assert!(start.elapsed() < deadline(), "waited for ever for {what}");
    }
}
