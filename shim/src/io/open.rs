//! The worker's side: everything is opened here, where opening may take its time.
//!
//! The logger is started last, when nothing else of this can fail. It has to see the end of its
//! pipes when the container's processes are gone, so nobody else keeps a write end.

use std::fs::{DirBuilder, File, OpenOptions};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

use corten::error::{Doing, Error, Result};
use corten::process::tty;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open as open_path};
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid, fchown, pipe2};

use super::binary::{Binary, READY};
use super::child::Child;
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

/// What the shim gets. Dropped, it takes its logger along.
#[derive(Debug, Default)]
pub struct ShimEnd {
    bundle: Bundle,
    console: Option<OwnedFd>,
    pub(super) logger: Option<Child>,
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

    /// What travels: the words, and the descriptors beside them. From here on the logger lives.
    pub fn into_parts(mut self) -> (Wires, Vec<OwnedFd>) {
        let mut logger = None;
        if let Some((pid, pidfd)) = self.logger.and_then(Child::release) {
            logger = Some(pid.as_raw());
            self.bundle.add(Role::Logger, pidfd);
        }
        let (roles, fds) = self.bundle.split();
        (Wires { roles, logger }, fds)
    }
}

/// Opens the streams of a process. May wait as long as opening a path may, and 10 s for a logger.
///
/// # Errors
/// A usage error for a scheme that is not known; a path that is not there; a logger that fails.
pub fn open(request: &Request<'_>) -> Result<Opened> {
    let output = if request.stdout.is_empty() { request.stderr } else { request.stdout };
    let target = Target::parse(output)?;
    let outlets = outlets(request, &target)?;
    let mut shim = ShimEnd::default();
    let stdin = stdin(request, &mut shim.bundle)?;
    let mut logged = Vec::new();
    let process = if request.terminal {
        let [outlet, _] = outlets;
        terminal_output(request, outlet, &mut shim.bundle, &mut logged)?;
        let (ours, theirs) = tty::pair()?;
        shim.console = Some(ours);
        ProcessEnd::Console(theirs)
    } else {
        let [stdout, stderr] = outlets;
        let stdout = output_pipe(request, stdout, &STDOUT, &mut shim.bundle, &mut logged)?;
        let stderr = output_pipe(request, stderr, &STDERR, &mut shim.bundle, &mut logged)?;
        ProcessEnd::Streams([stdin, stdout, stderr])
    };
    shim.logger = start_logger(request, &target, logged)?;
    Ok(Opened { process, shim })
}

/// Where one stream of the output goes.
enum Outlet {
    Null,
    Fifo {
        read_half: OwnedFd,
        write_half: OwnedFd,
    },
    /// A file, and a copier that the shim forks.
    File(OwnedFd),
    /// The client's program.
    Program,
}

/// What the descriptors of one output are for.
struct Output {
    source: Role,
    sink: Role,
    keeper: Role,
    copied: Role,
    file: Role,
}

const STDOUT: Output = Output {
    source: Role::StdoutPipe,
    sink: Role::StdoutSink,
    keeper: Role::StdoutKeeper,
    copied: Role::StdoutCopied,
    file: Role::StdoutFile,
};
const STDERR: Output = Output {
    source: Role::StderrPipe,
    sink: Role::StderrSink,
    keeper: Role::StderrKeeper,
    copied: Role::StderrCopied,
    file: Role::StderrFile,
};

fn outlets(request: &Request<'_>, target: &Target) -> Result<[Outlet; 2]> {
    let stderr = if request.terminal { "" } else { request.stderr };
    Ok(match target {
        Target::Paths => [outlet(request.stdout)?, outlet(stderr)?],
        Target::Binary { .. } => [Outlet::Program, Outlet::Program],
        Target::File(path) => {
            let file = log_file(path)?;
            let second = file.try_clone().doing(|| "dup of the log file".to_owned())?;
            [Outlet::File(file), Outlet::File(second)]
        }
    })
}

fn outlet(uri: &str) -> Result<Outlet> {
    if uri.is_empty() {
        return Ok(Outlet::Null);
    }
    let path = uri::path(uri)?;
    if is_fifo(&path)? {
        let (read_half, write_half) = fifo(&path)?;
        return Ok(Outlet::Fifo { read_half, write_half });
    }
    // A terminal must not become the worker's own.
    let mut options = OpenOptions::new();
    options.append(true).custom_flags(libc::O_NOCTTY);
    let file = options.open(&path).doing(|| format!("open {path:?}"))?;
    Ok(Outlet::File(file.into()))
}

fn log_file(path: &str) -> Result<OwnedFd> {
    let doing = || format!("open log file {path:?}");
    if let Some(parent) = Path::new(path).parent() {
        DirBuilder::new().recursive(true).mode(0o755).create(parent).doing(doing)?;
    }
    let file = OpenOptions::new().append(true).create(true).mode(0o644).open(path).doing(doing)?;
    Ok(file.into())
}

/// The process's standard input; with a terminal, /dev/null that nobody gets.
fn stdin(request: &Request<'_>, bundle: &mut Bundle) -> Result<OwnedFd> {
    if request.stdin.is_empty() {
        return null();
    }
    let (read_half, write_half) = fifo(&uri::path(request.stdin)?)?;
    bundle.add(Role::StdinFifo, read_half);
    bundle.add(Role::StdinKeeper, write_half);
    if request.terminal {
        return null();
    }
    let (theirs, ours) = pipe(request)?;
    non_blocking(&ours)?;
    bundle.add(Role::StdinPipe, ours);
    Ok(theirs)
}

/// The write end for the process. `logged` gets the read end for the client's program.
fn output_pipe(
    request: &Request<'_>,
    outlet: Outlet,
    roles: &Output,
    bundle: &mut Bundle,
    logged: &mut Vec<OwnedFd>,
) -> Result<OwnedFd> {
    if matches!(outlet, Outlet::Null) {
        return null();
    }
    let (ours, theirs) = pipe(request)?;
    match outlet {
        Outlet::Null => {}
        Outlet::Program => logged.push(ours),
        Outlet::File(file) => {
            bundle.add(roles.copied, ours);
            bundle.add(roles.file, file);
        }
        Outlet::Fifo { read_half, write_half } => {
            non_blocking(&ours)?;
            bundle.add(roles.source, ours);
            bundle.add(roles.sink, write_half);
            bundle.add(roles.keeper, read_half);
        }
    }
    Ok(theirs)
}

/// Where the loop copies the terminal to.
fn terminal_output(
    request: &Request<'_>,
    outlet: Outlet,
    bundle: &mut Bundle,
    logged: &mut Vec<OwnedFd>,
) -> Result<()> {
    let file = match outlet {
        Outlet::Null => return Ok(()),
        Outlet::Fifo { read_half, write_half } => {
            bundle.add(STDOUT.sink, write_half);
            bundle.add(STDOUT.keeper, read_half);
            return Ok(());
        }
        Outlet::File(file) => Some(file),
        Outlet::Program => None,
    };
    let (theirs, ours) = pipe(request)?;
    non_blocking(&ours)?;
    bundle.add(STDOUT.sink, ours);
    match file {
        Some(file) => {
            bundle.add(STDOUT.copied, theirs);
            bundle.add(STDOUT.file, file);
        }
        None => logged.push(theirs),
    }
    Ok(())
}

fn start_logger(
    request: &Request<'_>,
    target: &Target,
    logged: Vec<OwnedFd>,
) -> Result<Option<Child>> {
    let Target::Binary { path, args, must_say_ready } = target else { return Ok(None) };
    let mut pipes = logged.into_iter();
    // A terminal is one stream: the program sees the end of the other one at once.
    let mut next = || pipes.next().map_or_else(|| pipe(request).map(|(end, _)| end), Ok);
    let streams = [next()?, next()?];
    let (must_say_ready, id, namespace) = (*must_say_ready, request.id, request.namespace);
    let binary = Binary { path, args, must_say_ready, id, namespace, patience: READY };
    binary.start(streams).map(Some)
}

/// Both halves of a FIFO. Neither waits for a client: the read half never does without blocking,
/// the write half has a reader by then.
fn fifo(path: &str) -> Result<(OwnedFd, OwnedFd)> {
    let doing = || format!("open fifo {path:?}");
    let half = |flags| {
        let flags = flags | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        open_path(path, flags, Mode::empty()).doing(doing)
    };
    if !is_fifo(path)? {
        return Err(Error::Failed(format!("{}: it is not one", doing())));
    }
    Ok((half(OFlag::O_RDONLY)?, half(OFlag::O_WRONLY)?))
}

/// Looked at first: opening a device can have effects.
fn is_fifo(path: &str) -> Result<bool> {
    let stat = std::fs::metadata(path).doing(|| format!("open {path:?}"))?;
    Ok(stat.file_type().is_fifo())
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
    let doing = || "make a pipe non-blocking".to_owned();
    let flags = OFlag::from_bits_retain(fcntl(end, FcntlArg::F_GETFL).doing(doing)?);
    fcntl(end, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).doing(doing).map(drop)
}

fn null() -> Result<OwnedFd> {
    let null = File::options().read(true).write(true).open("/dev/null");
    Ok(null.doing(|| "open \"/dev/null\"".to_owned())?.into())
}
