//! Processes that do what can block: one for each operation, forked from the shim.
//!
//! A worker has a copy of the shim's memory and one socket to it. It says what it is doing, and at
//! last what came of it, with the descriptors that the shim needs; then it ends, and the
//! container's process, its child until then, becomes the shim's (`PR_SET_CHILD_SUBREAPER`). A
//! worker that is killed, by its deadline or by the kernel, is an error reply and nothing else: the
//! runtime's journal lets the next worker take back what it left.
//!
//! What enters a container must not be the host's binary (CVE-2019-5736), so create and exec first
//! execute a sealed copy of it; the others just go on with the shim's memory.

mod run;
mod task;

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use corten::error::{Doing, Error, Result};
use corten::process::signals;
use corten::sys::process::{CloneArgs, Cloned, clone, exit_now, pidfd_send_signal};
use corten::sys::wait::{self, Exit};
use corten::{seal, sys};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getppid, setpgid};

pub use self::run::main as main_sealed;
pub use self::task::{Born, Create, Exec, Failure, Said, Task, Verb, code_of};
use crate::poll::{Copied, Interest, Poller, Token, Watched};
use crate::transport::Code;

/// The argument that makes the binary a worker.
pub const VERB: &str = "worker";
/// What it is called then.
const BINARY: &CStr = c"containerd-shim-corten-v2";
/// What `ps` shows of a worker.
const NAME: &CStr = c"corten:worker";
/// For helpers of mounts and user namespaces.
const PATH: &CStr = c"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Where a sealed worker finds its socket and its task.
const SOCKET: i32 = 3;
const TASK: i32 = 4;
/// The longest words of a failure; a message may have more than ten times that.
const WORDS: usize = 8 << 10;

/// A running worker.
#[derive(Debug)]
pub struct Worker {
    pid: Pid,
    pidfd: Watched<OwnedFd>,
    /// None after its end of file: nothing more will be said.
    socket: Option<Watched<OwnedFd>>,
    /// When it began.
    pub since: Instant,
    /// The operation.
    verb: &'static str,
    /// What it last said it was doing.
    pub doing: String,
    /// It has not been heard of, and may still have copies of our descriptors.
    silent: Option<Copied>,
    /// Its last words, if a bug has ended it.
    pub broken: Option<String>,
}

impl Worker {
    /// Begins `task`. `token` is told of the worker's messages and of its end.
    ///
    /// # Errors
    /// `EAGAIN`, `ENOMEM`, `EMFILE`: no process or no descriptors to be had.
    pub fn begin(task: Task, poller: &Poller, token: Token) -> Result<Self> {
        let (ours, theirs) = sys::socket::pair().doing(|| "make a socket pair".to_owned())?;
        fcntl(&ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).doing(|| "fcntl".to_owned())?;
        let socket = poller.watch(ours, token, Interest::Read)?;
        let verb = task.name();
        let shim = Pid::this();
        let silent = Some(poller.copied());
        let (pid, pidfd) =
            match clone(&CloneArgs::default()).doing(|| "fork a worker".to_owned())? {
                Cloned::Child => become_worker(task, &theirs, shim),
                Cloned::Parent(pid, pidfd) => (pid, pidfd),
            };
        let mut pidfd = poller.watch(pidfd, token, Interest::Off)?;
        if let Err(error) = pidfd.want(Interest::Read) {
            // Nobody would notice what it does; as an orphan it is reaped.
            let _ended = pidfd_send_signal(&pidfd, libc::SIGKILL);
            return Err(error);
        }
        let (socket, since) = (Some(socket), Instant::now());
        let (doing, broken) = (String::new(), None);
        Ok(Self { pid, pidfd, socket, since, verb, doing, silent, broken })
    }

    /// The next thing it has said, with its descriptors; none when it has said no more so far.
    pub fn hear(&mut self) -> Option<(Said, Vec<OwnedFd>)> {
        let socket = self.socket.as_ref()?;
        let received = sys::socket::next_length(socket).and_then(|length| {
            let mut buffer = vec![0; length];
            match sys::socket::receive(socket, &mut buffer) {
                // Whoever takes the message notices what is missing.
                Err(Errno::EMFILE) => Ok((length, Vec::new(), buffer)),
                other => other.map(|(length, fds)| (length, fds, buffer)),
            }
        });
        if matches!(received, Err(Errno::EAGAIN)) {
            return None;
        }
        self.silent = None;
        match received {
            Ok((0, ..)) | Err(_) => {
                self.socket = None;
                None
            }
            Ok((length, fds, buffer)) => match serde_json::from_slice(&buffer[..length]) {
                Ok(said) => Some((said, fds)),
                Err(error) => {
                    let words = format!("a worker's message: {error}");
                    Some((Said::Failed(Failure::new(Code::Internal, words)), Vec::new()))
                }
            },
        }
    }

    /// Whether it has ended, and how. To be asked before its last words are heard.
    pub fn ended(&self) -> Option<Exit> {
        wait::ended(&self.pidfd).ok().flatten()
    }

    /// What it does: the operation, and what it last said of it.
    pub fn describe(&self) -> String {
        if self.doing.is_empty() {
            return self.verb.to_owned();
        }
        format!("{}: {}", self.verb, self.doing)
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Ends it, and the hooks and helpers that die with it.
    pub fn kill(&self) {
        // It may have ended by itself.
        let _ended = pidfd_send_signal(&self.pidfd, libc::SIGKILL);
    }
}

/// In the worker. Nothing of the shim's is dropped here: the descriptors are closed at once, and the
/// process ends without unwinding.
fn become_worker(task: Task, socket: &OwnedFd, shim: Pid) -> ! {
    if let Err(error) = detach(shim).and_then(|()| settle(&task, socket)) {
        run::fail(socket, error);
    }
    if !task.enters_container() {
        run::carry_out(task);
    }
    match (execute(), sys::fds::adopt(SOCKET)) {
        (Ok(never), _) => match never {},
        (Err(error), Ok(socket)) => run::fail(&socket, error),
        (Err(_), Err(_)) => exit_now(1),
    }
}

/// Out of the shim's process group, dying with it, with ordinary signals.
fn detach(shim: Pid) -> Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL).doing(|| "prctl PR_SET_PDEATHSIG".to_owned())?;
    if getppid() != shim {
        exit_now(1);
    }
    setpgid(Pid::from_raw(0), Pid::from_raw(0)).doing(|| "setpgid".to_owned())?;
    prctl::set_name(NAME).doing(|| "prctl PR_SET_NAME".to_owned())?;
    signals::normalize()
}

/// Closes all but the socket, and the task of a worker that will be executed: a file, because it may be
/// larger than a message.
fn settle(task: &Task, socket: &OwnedFd) -> Result<()> {
    let file = task.enters_container().then(|| write(task)).transpose()?;
    let mut keep = vec![socket.as_fd()];
    keep.extend(file.as_ref().map(AsFd::as_fd));
    sys::fds::keep_only(&keep).doing(|| "keep the socket".to_owned())?;
    // It was closed under its owner, and its copy is the sealed worker's.
    std::mem::forget(file);
    Ok(())
}

fn write(task: &Task) -> Result<File> {
    let file = memfd_create(c"task", MFdFlags::MFD_CLOEXEC).doing(|| "memfd_create".to_owned())?;
    let bytes = serde_json::to_vec(task)
        .map_err(|error| Error::Failed(format!("write the task: {error}")))?;
    let mut file = File::from(file);
    file.write_all(&bytes).and_then(|()| file.rewind()).doing(|| "write the task".to_owned())?;
    Ok(file)
}

/// Becomes the sealed copy.
fn execute() -> Result<Infallible> {
    // Without an environment: containerd's service manager is not the container's, and nothing else
    // of it is meant for the runtime.
    let verb = CString::new(VERB).unwrap_or_default();
    seal::execute(&[BINARY.to_owned(), verb], &[PATH.to_owned()])
}
