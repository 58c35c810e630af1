//! The daemon's birth: a fork and an exec of ourselves, and the word that it is ready.
//!
//! What it inherits is set on `start` itself first (core scheduling, its cgroup, its OOM score), so
//! that a failure needs no daemon to be taken back. Everything but the listener (descriptor 3) and
//! the ready pipe is closed: containerd reads our standard streams to their end, so a daemon that
//! kept one would hang the create.
//!
//! The daemon writes to the ready pipe when its loop can answer, or why it can't. So `start` never
//! gives the address of a daemon that died at its first step, and says what it died of.

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use corten::cgroup::{self, Cgroup};
use corten::cli::LogLevel;
use corten::error::{Doing, Error, Result};
use corten::kill::wait_ended;
use corten::sys::fds::{adopt, place};
use corten::sys::process::{CloneArgs, Cloned, clone, exit_now, pidfd_send_signal};
use corten::sys::{sched, wait};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, dup2_stderr, dup2_stdin, dup2_stdout, execve, pipe2, setpgid};
use oci_spec::runtime::Linux;

use super::dialect::Request;
use crate::cli::{Environment, level_name};

/// Where the daemon finds its listener, as Go's shims do.
pub const LISTENER: i32 = 3;
/// How long it may take until it is ready; containerd waits, too.
const PATIENCE: Duration = Duration::from_secs(10);
/// What it writes when it is.
const READY: &[u8] = b"+";
/// The most of a failure's words that are read.
const WORDS_MAX: u64 = 4096;
/// The largest OOM score, `OOM_SCORE_ADJ_MAX`.
const SCORE_MAX: i32 = 1000;

/// A daemon that is ready.
#[derive(Debug)]
pub struct Daemon(OwnedFd);

impl Daemon {
    /// Nobody will ever know of it.
    pub fn kill(&self) {
        // It may be gone, which is as good.
        pidfd_send_signal(&self.0, libc::SIGKILL).unwrap_or_default();
    }
}

/// Makes the daemon for `request` behind `listener`, and waits until it is ready.
///
/// # Errors
/// Whatever keeps it from being so, in its own words.
pub fn spawn(listener: &OwnedFd, request: &Request, env: &Environment) -> Result<Daemon> {
    prepare(request, env)?;
    let doing = || "start the shim".to_owned();
    let (told, tell) = pipe2(OFlag::O_CLOEXEC).doing(doing)?;
    // 3 will be the listener, whatever it is now.
    let tell = match tell.as_raw_fd() {
        LISTENER => tell.try_clone().doing(doing)?,
        _ => tell,
    };
    let image = Image::new(request, tell.as_raw_fd())?;
    let daemon = match clone(&CloneArgs::default()).doing(doing)? {
        Cloned::Parent(_, pidfd) => Daemon(pidfd),
        Cloned::Child => {
            let error = image.become_it(listener, &tell);
            Ready(Some(tell)).no(&error);
            exit_now(1)
        }
    };
    drop(tell);
    let ready = wait_ready(told, &daemon.0);
    if ready.is_err() {
        daemon.kill();
    }
    ready.doing(doing)?;
    Ok(daemon)
}

/// What the daemon has from us by inheritance.
fn prepare(request: &Request, env: &Environment) -> Result<()> {
    if env.sched_core {
        match sched::core_sched_create() {
            // No core has threads that could be shared.
            Ok(()) | Err(Errno::ENODEV) => {}
            Err(Errno::EINVAL) => {
                let words = "SCHED_CORE is set, and this kernel has no core scheduling";
                return Err(Error::Unsupported(words.to_owned()));
            }
            Err(errno) => return Err(errno).doing(|| "enable core scheduling".to_owned()),
        }
    }
    join_cgroup(&request.options.shim_cgroup)?;
    raise_oom_score()
}

/// `ShimCgroup`: a group that exists, below the mount point of each hierarchy.
fn join_cgroup(path: &str) -> Result<()> {
    if path.is_empty() {
        return Ok(());
    }
    let mut linux = Linux::default();
    linux.set_cgroups_path(Some(Path::new("/").join(path)));
    let plan = cgroup::Plan::new(&linux, &cgroup::Options::default())?;
    let mut found = Cgroup::locate(&plan)?.record();
    found.groups.retain(|group| group.existed);
    if found.groups.is_empty() {
        return Err(Error::Usage(format!("shim cgroup {path} does not exist")));
    }
    // Somebody else's, but meant for us: without this none that existed would be taken up.
    found.taken = true;
    Cgroup::open(&found).join(Pid::this(), false).doing(|| format!("join shim cgroup {path}"))
}

/// One more than containerd's: the kernel then takes the shim first. A higher one stays.
fn raise_oom_score() -> Result<()> {
    let read = |path: &str| -> Result<i32> {
        let text = std::fs::read_to_string(path).doing(|| format!("read {path}"))?;
        text.trim().parse().map_err(|_| Error::Failed(format!("read {path}: {text:?}")))
    };
    let path = "/proc/self/oom_score_adj";
    let containerd = match read(&format!("/proc/{}/oom_score_adj", Pid::parent())) {
        // It has gone, or is outside of our pid namespace.
        Err(error) if error.errno() == Some(Errno::ENOENT) => return Ok(()),
        other => other?,
    };
    let score = containerd.saturating_add(1).min(SCORE_MAX);
    if read(path)? >= score {
        return Ok(());
    }
    std::fs::write(path, score.to_string()).doing(|| format!("write {score} to {path}"))
}

/// All that the execve needs, made before the fork.
struct Image {
    path: CString,
    args: Vec<CString>,
    env: Vec<CString>,
    null: OwnedFd,
}

impl Image {
    fn new(request: &Request, ready_fd: i32) -> Result<Self> {
        let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC;
        let null = open("/dev/null", flags, Mode::empty()).doing(|| "open /dev/null".to_owned())?;
        let path = program();
        let mut args = vec![
            path.clone().into_os_string(),
            "-namespace".into(),
            request.namespace.clone().into(),
            "-id".into(),
            request.id.clone().into(),
            "-address".into(),
            request.grpc_address.clone().into(),
        ];
        match request.level {
            LogLevel::Info => {}
            LogLevel::Debug => args.push("-debug".into()),
            level => args.extend(["-log-level".into(), level_name(level).into()]),
        }
        args.extend(["-ready-fd".into(), ready_fd.to_string().into()]);
        Ok(Self {
            path: c_string(path.into_os_string())?,
            args: args.into_iter().map(c_string).collect::<Result<_>>()?,
            env: environment(request, std::env::vars_os())
                .into_iter()
                .map(c_string)
                .collect::<Result<_>>()?,
            null,
        })
    }

    /// In the new process. Returns only if it fails.
    fn become_it(&self, listener: &OwnedFd, tell: &OwnedFd) -> Error {
        let last = || -> Result<()> {
            // Out of containerd's process group, so that a terminal's signals don't reach it.
            setpgid(Pid::from_raw(0), Pid::from_raw(0)).doing(|| "setpgid".to_owned())?;
            let doing = || "arrange descriptors".to_owned();
            place(listener, LISTENER).doing(doing)?;
            place(tell, tell.as_raw_fd()).doing(doing)?;
            dup2_stdin(&self.null).doing(doing)?;
            dup2_stdout(&self.null).doing(doing)?;
            dup2_stderr(&self.null).doing(doing)?;
            match execve(&self.path, &self.args, &self.env) {
                Err(errno) => Err(errno).doing(|| format!("execute {:?}", self.path)),
                Ok(never) => match never {},
            }
        };
        last().err().unwrap_or_else(|| Error::Failed("execute nothing".to_owned()))
    }
}

/// Our own file by its name, which `ps` then shows; one that was replaced meanwhile has none.
fn program() -> PathBuf {
    let link = Path::new("/proc/self/exe");
    std::fs::read_link(link).ok().filter(|path| path.exists()).unwrap_or_else(|| link.to_owned())
}

/// containerd's environment, without what is meant for itself (a readiness message of ours would
/// go to systemd in its name), for Go, or for `start`.
fn environment(
    request: &Request,
    inherited: impl Iterator<Item = (OsString, OsString)>,
) -> Vec<OsString> {
    let ours = [
        ("TTRPC_ADDRESS", &request.ttrpc_address),
        ("GRPC_ADDRESS", &request.grpc_address),
        ("NAMESPACE", &request.namespace),
    ];
    let dropped = |key: &OsStr| {
        let key = key.as_bytes();
        let for_others = [
            &b"NOTIFY_SOCKET"[..],
            b"LISTEN_PID",
            b"LISTEN_FDS",
            b"LISTEN_FDNAMES",
            b"GOMAXPROCS",
            b"MAX_SHIM_VERSION",
            b"SCHED_CORE",
        ];
        for_others.contains(&key)
            || key.starts_with(b"OTEL_")
            || ours.iter().any(|(name, _)| name.as_bytes() == key)
    };
    let mut env: Vec<OsString> = inherited
        .filter(|(key, _)| !dropped(key))
        .map(|(mut pair, value)| {
            pair.push("=");
            pair.push(value);
            pair
        })
        .collect();
    env.extend(ours.iter().map(|(key, value)| format!("{key}={value}").into()));
    env
}

fn c_string(word: OsString) -> Result<CString> {
    CString::new(word.into_vec()).map_err(|error| Error::Usage(format!("a NUL in {error}")))
}

/// The end of the pipe says no more than that the daemon has ended.
fn wait_ready(told: OwnedFd, daemon: &OwnedFd) -> Result<()> {
    if !wait_ended(&told, PATIENCE)? {
        return Err(Error::Failed(format!("not ready after {} s", PATIENCE.as_secs())));
    }
    let mut words = Vec::new();
    File::from(told).take(WORDS_MAX).read_to_end(&mut words).doing(|| "listen to it".to_owned())?;
    match words.as_slice() {
        READY => Ok(()),
        [] => {
            let exit = wait::exit_of(daemon).doing(|| "wait for it".to_owned())?;
            Err(Error::Failed(format!("it ended at once: {exit:?}")))
        }
        words => Err(Error::Failed(String::from_utf8_lossy(words).into_owned())),
    }
}

/// The daemon's end of the ready pipe. One that nobody waits for says nothing.
#[derive(Debug)]
pub struct Ready(Option<OwnedFd>);

impl Ready {
    /// What `-ready-fd` names.
    ///
    /// # Errors
    /// A closed descriptor.
    pub fn adopt(number: Option<i32>) -> Result<Self> {
        let adopted = number.map(adopt).transpose();
        Ok(Self(adopted.doing(|| format!("take over descriptor {number:?}"))?))
    }

    /// The loop can answer.
    ///
    /// # Errors
    /// `EPIPE`: `start` was killed, so containerd will never know of us.
    pub fn yes(&mut self) -> Result<()> {
        self.write(READY).doing(|| "tell start that the shim is ready".to_owned())
    }

    /// It never will. Says nothing after [`Ready::yes`].
    pub fn no(&mut self, error: &Error) {
        // Who does not listen any more does not need to know.
        self.write(error.to_string().as_bytes()).unwrap_or_default();
    }

    fn write(&mut self, words: &[u8]) -> std::io::Result<()> {
        self.0.take().map_or(Ok(()), |pipe| File::from(pipe).write_all(words))
    }
}

/// The listener that `start` made for us.
///
/// # Errors
/// When descriptor 3 is none: somebody started the program by hand.
pub fn inherited_listener() -> Result<OwnedFd> {
    use nix::sys::socket::{getsockopt, sockopt::AcceptConn};
    let no_listener =
        || Error::Usage(format!("descriptor {LISTENER} is no listening socket: start makes it"));
    let listener = adopt(LISTENER).map_err(|_| no_listener())?;
    match getsockopt(&listener.as_fd(), AcceptConn) {
        Ok(true) => Ok(listener),
        _ => Err(no_listener()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::dialect::Dialect;
    use crate::options::Options;

    fn request() -> Request {
        Request {
            dialect: Dialect::Plain,
            id: "demo".to_owned(),
            namespace: "n".to_owned(),
            level: LogLevel::Warning,
            grpc_address: "/g".to_owned(),
            ttrpc_address: "/t".to_owned(),
            socket_dir: None,
            options: Options::default(),
        }
    }

    #[test]
    fn the_environment_is_passed_on_but_for_what_is_not_for_us() {
        let inherited = [
            ("PATH", "/bin"),
            ("NOTIFY_SOCKET", "/run/systemd/notify"),
            ("OTEL_SERVICE_NAME", "x"),
            ("GOMAXPROCS", "2"),
            ("TTRPC_ADDRESS", "/old"),
            ("HTTP_PROXY", "a=b"),
        ];
        let env = environment(&request(), inherited.into_iter().map(|(k, v)| (k.into(), v.into())));
        let expected =
            ["PATH=/bin", "HTTP_PROXY=a=b", "TTRPC_ADDRESS=/t", "GRPC_ADDRESS=/g", "NAMESPACE=n"];
        assert_eq!(env, expected);
    }

    #[test]
    fn the_daemon_is_told_who_it_is() {
        let image = Image::new(&request(), 5).unwrap();
        let args: Vec<&str> = image.args.iter().skip(1).map(|arg| arg.to_str().unwrap()).collect();
        assert_eq!(
            args.join(" "),
            "-namespace n -id demo -address /g -log-level warning -ready-fd 5"
        );
    }

    #[test]
    fn a_word_is_said_once() {
        let (told, tell) = pipe2(OFlag::O_CLOEXEC).unwrap();
        let mut ready = Ready(Some(tell));
        ready.yes().unwrap();
        ready.no(&Error::Failed("late".to_owned()));
        let mut words = String::new();
        File::from(told).read_to_string(&mut words).unwrap();
        assert_eq!(words, "+");
        Ready(None).yes().unwrap();
    }

    #[test]
    fn a_cgroup_that_does_not_exist_is_said_so() {
        let error = join_cgroup("corten-no-such-group").unwrap_err().to_string();
        assert!(error.contains("corten-no-such-group does not exist"), "{error}");
    }
}
