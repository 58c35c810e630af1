//! Hooks: six kinds, run in the spec's order, with the container's state on stdin.
//!
//! A hook gets exactly its own environment (an `LD_PRELOAD` of the image must not reach a hook of
//! the host, CVE-2025-23266), the state as a file it can read to its end, and pipes for its output,
//! which becomes part of the error. What ends a hook is its own exit or its timeout, never the end
//! of its output: a child that it left behind may keep the pipe open. At the timeout its whole
//! process group is killed; a hook whose runtime is killed dies with it. See runtime-spec, config.md, POSIX-platform Hooks.

use std::ffi::CString;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{
    Pid, Whence, dup2_stderr, dup2_stdin, dup2_stdout, execve, lseek, pipe2, setpgid,
};
use oci_spec::runtime;

use crate::error::{Doing, Error, Result};
use crate::log;
use crate::sys::process::{CloneArgs, Cloned, clone};

/// How much of each output stream an error quotes, in bytes.
const QUOTED: usize = 4096;

/// When a hook runs, in the order of the spec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Deprecated; as [`Kind::CreateRuntime`] and before it.
    Prestart,
    /// During create, after the mounts and before pivot_root, in the runtime's namespaces.
    CreateRuntime,
    /// The same moment, in the container's namespaces.
    CreateContainer,
    /// During start, before the user's program, in the container.
    StartContainer,
    /// After the user's program was started, in the runtime's namespaces.
    Poststart,
    /// After the container was deleted, in the runtime's namespaces.
    Poststop,
}

impl Kind {
    /// The property's name in `hooks`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prestart => "prestart",
            Self::CreateRuntime => "createRuntime",
            Self::CreateContainer => "createContainer",
            Self::StartContainer => "startContainer",
            Self::Poststart => "poststart",
            Self::Poststop => "poststop",
        }
    }
}

/// One hook, ready for execve.
#[derive(Debug)]
struct Hook {
    path: CString,
    args: Vec<CString>,
    env: Vec<CString>,
    timeout: Option<Duration>,
}

impl Hook {
    /// A hook may take long: whoever watches this process wants to know.
    fn announce(&self, kind: Kind, index: usize) {
        tracing::debug!(
            target: log::PROGRESS,
            "{} hook #{index} ({})",
            kind.name(),
            self.path.to_string_lossy()
        );
    }
}

/// All hooks of a container.
#[derive(Debug, Default)]
pub struct Hooks {
    prestart: Vec<Hook>,
    create_runtime: Vec<Hook>,
    create_container: Vec<Hook>,
    start_container: Vec<Hook>,
    poststart: Vec<Hook>,
    poststop: Vec<Hook>,
}

impl Hooks {
    /// Translates `hooks`.
    ///
    /// # Errors
    /// [`Error::Config`]: a path that is not absolute, a timeout that is not positive, a NUL byte.
    pub fn new(spec: Option<&runtime::Hooks>) -> Result<Self> {
        let Some(spec) = spec else { return Ok(Self::default()) };
        let prestart = spec.prestart();
        Ok(Self {
            prestart: translate(prestart.as_deref(), Kind::Prestart)?,
            create_runtime: translate(spec.create_runtime().as_deref(), Kind::CreateRuntime)?,
            create_container: translate(spec.create_container().as_deref(), Kind::CreateContainer)?,
            start_container: translate(spec.start_container().as_deref(), Kind::StartContainer)?,
            poststart: translate(spec.poststart().as_deref(), Kind::Poststart)?,
            poststop: translate(spec.poststop().as_deref(), Kind::Poststop)?,
        })
    }

    fn of(&self, kind: Kind) -> &[Hook] {
        match kind {
            Kind::Prestart => &self.prestart,
            Kind::CreateRuntime => &self.create_runtime,
            Kind::CreateContainer => &self.create_container,
            Kind::StartContainer => &self.start_container,
            Kind::Poststart => &self.poststart,
            Kind::Poststop => &self.poststop,
        }
    }

    /// Whether there is any hook of these kinds.
    pub fn any(&self, kinds: &[Kind]) -> bool {
        kinds.iter().any(|kind| !self.of(*kind).is_empty())
    }

    /// Whether a hook may allow the container more devices than the configuration does, before its
    /// program runs: any may but Docker's own, which is in each of its containers and hands over the
    /// network namespace.
    pub fn may_allow_devices(&self) -> bool {
        let is_dockers =
            |hook: &Hook| hook.args.first().is_some_and(|name| &**name == c"libnetwork-setkey");
        !self.prestart.iter().chain(&self.create_runtime).all(is_dockers)
    }

    /// Runs the hooks of one kind in order, each with `state` on stdin, and stops at the first
    /// that fails. When `watch` (the container's init) ends, so does the hook.
    ///
    /// # Errors
    /// Which hook failed, how, and what it printed.
    pub fn run(&self, kind: Kind, state: &[u8], watch: Option<&OwnedFd>) -> Result<()> {
        for (index, hook) in self.of(kind).iter().enumerate() {
            hook.announce(kind, index);
            run_one(hook, state, watch)
                .doing(|| format!("error running {} hook #{index}", kind.name()))?;
        }
        Ok(())
    }

    /// Runs the hooks of one kind in order; one that fails is a warning, and the rest still run
    /// (runtime.md, lifecycle 12).
    pub fn run_all(&self, kind: Kind, state: &[u8]) {
        for (index, hook) in self.of(kind).iter().enumerate() {
            hook.announce(kind, index);
            if let Err(error) = run_one(hook, state, None) {
                tracing::warn!("error running {} hook #{index}: {error}", kind.name());
            }
        }
    }
}

fn translate(hooks: Option<&[runtime::Hook]>, kind: Kind) -> Result<Vec<Hook>> {
    hooks
        .unwrap_or_default()
        .iter()
        .enumerate()
        .map(|(index, hook)| {
            let at = format!("hooks.{}[{index}]", kind.name());
            if !hook.path().is_absolute() {
                return Err(Error::config(
                    format!("{at}.path"),
                    format!("must be an absolute path, found {:?}", hook.path()),
                ));
            }
            let timeout = match hook.timeout() {
                None => None,
                Some(seconds @ 1..) => Some(Duration::from_secs(seconds.unsigned_abs())),
                Some(other) => {
                    return Err(Error::config(
                        format!("{at}.timeout"),
                        format!("must be greater than zero, found {other}"),
                    ));
                }
            };
            let path = c_string(&hook.path().to_string_lossy(), || format!("{at}.path"))?;
            let args = c_strings(hook.args().as_deref(), &format!("{at}.args"))?;
            let args = if args.is_empty() { vec![path.clone()] } else { args };
            let env = c_strings(hook.env().as_deref(), &format!("{at}.env"))?;
            Ok(Hook { path, args, env, timeout })
        })
        .collect()
}

fn c_strings(strings: Option<&[String]>, at: &str) -> Result<Vec<CString>> {
    let strings = strings.unwrap_or_default().iter().enumerate();
    strings.map(|(index, text)| c_string(text, || format!("{at}[{index}]"))).collect()
}

fn c_string(text: &str, at: impl FnOnce() -> String) -> Result<CString> {
    CString::new(text).map_err(|_| Error::config(at(), "must not contain a NUL byte"))
}

fn run_one(hook: &Hook, state: &[u8], watch: Option<&OwnedFd>) -> Result<()> {
    let stdin = state_file(state)?;
    let (stdout, stdout_in) = pipe2(OFlag::O_CLOEXEC).doing(|| "pipe".to_owned())?;
    let (stderr, stderr_in) = pipe2(OFlag::O_CLOEXEC).doing(|| "pipe".to_owned())?;
    let (pid, pidfd) = match clone(&CloneArgs::default()).doing(|| "clone a hook".to_owned())? {
        Cloned::Child => become_hook(hook, &stdin, &stdout_in, &stderr_in),
        Cloned::Parent(pid, pidfd) => (pid, pidfd),
    };
    // Both sides set it: whoever comes first.
    let _both_sides = setpgid(pid, pid);
    drop((stdout_in, stderr_in));
    let mut outputs = [Output::new(stdout)?, Output::new(stderr)?];
    let ended = wait(hook, &pidfd, watch, &mut outputs);
    if ended.is_err() {
        let _may_be_gone = killpg(pid, Signal::SIGKILL);
    }
    let status = waitid(Id::PIDFd(pidfd.as_fd()), WaitPidFlag::WEXITED)
        .doing(|| "wait for a hook".to_owned())?;
    outputs.iter_mut().for_each(Output::drain);
    let [stdout, stderr] = &outputs;
    let quoted = || format!("stdout: {}, stderr: {}", stdout.text(), stderr.text());
    match (ended, status) {
        (Err(why), _) => Err(Error::Failed(format!("{why}, {}", quoted()))),
        (Ok(()), WaitStatus::Exited(_, 0)) => Ok(()),
        (Ok(()), WaitStatus::Exited(_, code)) => {
            Err(Error::Failed(format!("exit status {code}, {}", quoted())))
        }
        (Ok(()), WaitStatus::Signaled(_, signal, _)) => {
            Err(Error::Failed(format!("signal: {signal}, {}", quoted())))
        }
        (Ok(()), other) => Err(Error::Failed(format!("{other:?}, {}", quoted()))),
    }
}

/// The state as a file with an end, so that writing it never waits for the hook to read.
fn state_file(state: &[u8]) -> Result<OwnedFd> {
    let doing = || "write a hook's state".to_owned();
    let file = nix::sys::memfd::memfd_create(c"state", nix::sys::memfd::MFdFlags::MFD_CLOEXEC)
        .doing(doing)?;
    let mut file = std::fs::File::from(file);
    file.write_all(state).doing(doing)?;
    lseek(&file, 0, Whence::SeekSet).doing(doing)?;
    Ok(file.into())
}

/// In the hook's process; on failure the shell's 127 with the reason on stderr.
fn become_hook(hook: &Hook, stdin: &OwnedFd, stdout: &OwnedFd, stderr: &OwnedFd) -> ! {
    let result = (|| -> Result<(), Errno> {
        setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
        // Nobody would end it, read its output or know its result.
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        dup2_stdin(stdin)?;
        dup2_stdout(stdout)?;
        dup2_stderr(stderr)?;
        crate::process::signals::reset().map_err(|error| error.errno().unwrap_or(Errno::EINVAL))?;
        execve(&hook.path, &hook.args, &hook.env).map(|never| match never {})
    })();
    if let Err(errno) = result {
        let words = crate::error::errno_words(errno);
        let _nobody_listens =
            writeln!(std::io::stderr(), "exec {}: {words}", hook.path.to_string_lossy());
    }
    crate::sys::process::exit_now(127)
}

/// Waits for the hook's own end, moving its output meanwhile.
fn wait(
    hook: &Hook,
    pidfd: &OwnedFd,
    watch: Option<&OwnedFd>,
    outputs: &mut [Output; 2],
) -> Result<(), String> {
    let deadline = hook.timeout.map(|timeout| Instant::now() + timeout);
    loop {
        let timeout = match deadline.map(|at| at.saturating_duration_since(Instant::now())) {
            None => PollTimeout::NONE,
            Some(Duration::ZERO) => {
                let seconds = hook.timeout.unwrap_or_default().as_secs();
                return Err(format!("timed out after {seconds} s"));
            }
            Some(left) => {
                PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
            }
        };
        let mut fds = vec![PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        fds.extend(watch.map(|init| PollFd::new(init.as_fd(), PollFlags::POLLIN)));
        let pipes = fds.len();
        fds.extend(
            outputs
                .iter()
                .filter_map(|output| output.pipe.as_ref())
                .map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)),
        );
        match poll(&mut fds, timeout) {
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(format!("poll: {}", crate::error::errno_words(errno))),
            Ok(_) => {}
        }
        let ready = |index: usize| fds.get(index).and_then(PollFd::any).unwrap_or(false);
        if ready(0) {
            return Ok(());
        }
        if watch.is_some() && ready(1) {
            return Err("the container's init ended while the hook ran".to_owned());
        }
        if (pipes..fds.len()).any(ready) {
            outputs.iter_mut().for_each(Output::drain);
        }
    }
}

/// One output stream: its head is kept, the rest is read and dropped so that the hook never waits.
struct Output {
    pipe: Option<OwnedFd>,
    head: Vec<u8>,
}

impl Output {
    fn new(pipe: OwnedFd) -> Result<Self> {
        fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).doing(|| "fcntl".to_owned())?;
        Ok(Self { pipe: Some(pipe), head: Vec::new() })
    }

    /// Reads what is there now, within bounds: a child that the hook left behind may write forever.
    fn drain(&mut self) {
        let mut buffer = [0; 4096];
        for _ in 0..64 {
            let Some(pipe) = &self.pipe else { return };
            match nix::unistd::read(pipe, &mut buffer) {
                Ok(0) => self.pipe = None,
                Ok(read) => {
                    let room = QUOTED.saturating_sub(self.head.len()).min(read);
                    self.head.extend(buffer.iter().take(room));
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return,
                Err(_) => self.pipe = None,
            }
        }
    }

    /// One line of it.
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.head).trim_end().replace('\n', "\\n")
    }
}
