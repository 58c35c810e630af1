//! The worker's side: everything is opened here, where opening may take its time.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;

use corten::error::{Doing, Error, Result};
use corten::process::tty;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open as open_path};
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid, fchown, pipe2};

use super::uri::{self, Target};
use super::wires::{Bundle, Role, Wires};

/// What a process's streams are to be, in the words of the request.
#[derive(Debug, Clone, Copy, Default)]
pub struct Request<'a> {
    /// A FIFO, or empty.
    pub stdin: &'a str,
    /// A FIFO, a URI, or empty.
    pub stdout: &'a str,
    /// A FIFO, the same URI, or empty. Not looked at with a terminal.
    pub stderr: &'a str,
    /// One terminal instead of three pipes.
    pub terminal: bool,
    /// Who owns the pipes, as the host sees it: `io_uid` and `io_gid` of the options.
    pub uid: u32,
    /// See `uid`.
    pub gid: u32,
    /// The id that a logger is told: the exec's for an exec, as containerd does.
    pub id: &'a str,
    /// The namespace that a logger is told.
    pub namespace: &'a str,
}

/// What [`open`] gives.
#[derive(Debug)]
pub struct Opened {
    /// For the container's process.
    pub process: ProcessEnd,
    /// For the shim.
    pub shim: ShimEnd,
}

/// What the container's process gets.
#[derive(Debug)]
pub enum ProcessEnd {
    /// Its standard streams.
    Streams([OwnedFd; 3]),
    /// The socket to which it sends the master of its terminal.
    Console(OwnedFd),
}

/// What the shim gets.
#[derive(Debug, Default)]
pub struct ShimEnd {
    bundle: Bundle,
    console: Option<OwnedFd>,
}

impl ShimEnd {
    /// Receives the terminal's master, once the process has been made. Without a terminal, nothing.
    /// Our copy of [`ProcessEnd::Console`] has to be closed, or this may wait for ever.
    ///
    /// # Errors
    /// The process ended without sending it.
    pub fn receive_console(&mut self) -> Result<()> {
        if let Some(socket) = self.console.take() {
            self.bundle.add(Role::Console, tty::receive(socket.as_fd())?);
        }
        Ok(())
    }

    /// What travels: the words, and the descriptors beside them.
    pub fn into_parts(self) -> (Wires, Vec<OwnedFd>) {
        let (roles, fds) = self.bundle.split();
        (Wires { roles, logger: None }, fds)
    }
}

/// Opens the streams of a process. May wait as long as opening a path may.
///
/// # Errors
/// A usage error for a scheme that is not known; a path that is not there.
pub fn open(request: &Request<'_>) -> Result<Opened> {
    let output = if request.stdout.is_empty() { request.stderr } else { request.stdout };
    let target = Target::parse(output)?;
    let mut shim = ShimEnd::default();
    let process = if request.terminal {
        terminal(request, &target, &mut shim)?
    } else {
        ProcessEnd::Streams(pipes(request, &target, &mut shim)?)
    };
    Ok(Opened { process, shim })
}

fn pipes(request: &Request<'_>, _target: &Target, shim: &mut ShimEnd) -> Result<[OwnedFd; 3]> {
    let stdin = if request.stdin.is_empty() {
        null()?
    } else {
        stdin_fifo(request.stdin, &mut shim.bundle)?;
        let (theirs, ours) = pipe(request)?;
        non_blocking(&ours)?;
        shim.bundle.add(Role::StdinPipe, ours);
        theirs
    };
    let mut output = |uri: &str, [source, sink, keeper]: [Role; 3]| -> Result<OwnedFd> {
        if uri.is_empty() {
            return null();
        }
        let (read_half, write_half) = fifo(&uri::path(uri)?)?;
        let (ours, theirs) = pipe(request)?;
        non_blocking(&ours)?;
        shim.bundle.add(source, ours);
        shim.bundle.add(sink, write_half);
        shim.bundle.add(keeper, read_half);
        Ok(theirs)
    };
    let roles = [Role::StdoutPipe, Role::StdoutSink, Role::StdoutKeeper];
    let stdout = output(request.stdout, roles)?;
    let roles = [Role::StderrPipe, Role::StderrSink, Role::StderrKeeper];
    let stderr = output(request.stderr, roles)?;
    Ok([stdin, stdout, stderr])
}

fn terminal(request: &Request<'_>, _target: &Target, shim: &mut ShimEnd) -> Result<ProcessEnd> {
    if !request.stdin.is_empty() {
        stdin_fifo(request.stdin, &mut shim.bundle)?;
    }
    if !request.stdout.is_empty() {
        let (read_half, write_half) = fifo(&uri::path(request.stdout)?)?;
        shim.bundle.add(Role::StdoutSink, write_half);
        shim.bundle.add(Role::StdoutKeeper, read_half);
    }
    let (ours, theirs) = tty::pair()?;
    shim.console = Some(ours);
    Ok(ProcessEnd::Console(theirs))
}

fn stdin_fifo(uri: &str, bundle: &mut Bundle) -> Result<()> {
    let (read_half, write_half) = fifo(&uri::path(uri)?)?;
    bundle.add(Role::StdinFifo, read_half);
    bundle.add(Role::StdinKeeper, write_half);
    Ok(())
}

/// Both halves of a FIFO. Neither waits for a client: the read half never does without blocking,
/// the write half has a reader by then.
fn fifo(path: &str) -> Result<(OwnedFd, OwnedFd)> {
    let doing = || format!("open fifo {path:?}");
    let half = |flags| {
        let flags = flags | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        open_path(path, flags, Mode::empty()).doing(doing)
    };
    // Looked at first: opening a device can have effects.
    if !std::fs::metadata(path).doing(doing)?.file_type().is_fifo() {
        return Err(Error::Failed(format!("{}: it is not one", doing())));
    }
    Ok((half(OFlag::O_RDONLY)?, half(OFlag::O_WRONLY)?))
}

/// A pipe that the container's user may open again by /dev/stdout.
fn pipe(request: &Request<'_>) -> Result<(OwnedFd, OwnedFd)> {
    let (read_end, write_end) = pipe2(OFlag::O_CLOEXEC).doing(|| "pipe".to_owned())?;
    if (request.uid, request.gid) != (0, 0) {
        let (uid, gid) = (Uid::from_raw(request.uid), Gid::from_raw(request.gid));
        // Both ends are one inode.
        fchown(&read_end, Some(uid), Some(gid)).doing(|| format!("chown a pipe to {uid}:{gid}"))?;
    }
    Ok((read_end, write_end))
}

/// Only our own end: the other one has an open file description of its own.
fn non_blocking(end: &OwnedFd) -> Result<()> {
    let set = |fd: BorrowedFd<'_>| {
        let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
        fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))
    };
    set(end.as_fd()).doing(|| "make a pipe non-blocking".to_owned()).map(drop)
}

fn null() -> Result<OwnedFd> {
    let null = File::options().read(true).write(true).open("/dev/null");
    Ok(null.doing(|| "open \"/dev/null\"".to_owned())?.into())
}
