//! Making the container's process: one clone in the common case.
//!
//! New namespaces come with the clone. Joining a pid namespace, and making a time namespace, take
//! effect only for children, so the caller joins first, clones, and goes back. Joining a user
//! namespace can't be taken back, and from within a new one others can't be joined, so only then
//! does a middle process do the joining and the clone; it clones with `CLONE_PARENT`, so the caller
//! waits for the container's process as its own child in either case, and hands over its pid and
//! pidfd. The same goes for a caller that could not come back, because it has power only over a
//! user namespace below the one that its pid namespace belongs to (rootless Podman).

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::error::{Doing, Error, Result};
use crate::namespaces::{Joins, enter_those_of};
use crate::sys::process::{CloneArgs, Cloned, clone, exit_now, pidfd_send_signal, setns};
use crate::sys::socket;

/// What a process does before it clones another; the fd must stay open.
pub type Before<'fd> = dyn Fn(BorrowedFd<'_>) -> Result<()> + 'fd;

/// What the process is born into.
#[derive(Default)]
#[allow(missing_debug_implementations)] // It holds a closure.
pub struct Birth<'fd> {
    /// New namespaces: `CLONE_NEW*`, without cgroup and time.
    pub new: u64,
    /// Namespaces that a middle process must enter, [`Joins::need_middle`].
    pub joins: Option<&'fd Joins>,
    /// A user namespace to make the process in, by the pidfd of a process in it.
    pub user: Option<BorrowedFd<'fd>>,
    /// A pid namespace to make the process in, by namespace fd or pidfd.
    pub pid: Option<BorrowedFd<'fd>>,
    /// A new time namespace: the host's /proc, and the lines for its `self/timens_offsets`.
    pub time: Option<(BorrowedFd<'fd>, &'fd str)>,
    /// What a middle process does before it clones, in place of joining; it needs to keep the fd open.
    pub before: Option<&'fd Before<'fd>>,
    /// Whose end makes the process pointless: a pidfd that a middle process is not waited for any longer
    /// than, as it may be frozen where it was born.
    pub watch: Option<BorrowedFd<'fd>>,
    /// A cgroup v2 directory to be born in; the middle process is, which may have no right to it any
    /// more when it clones.
    pub cgroup: Option<BorrowedFd<'fd>>,
}

/// A process of ours.
#[derive(Debug)]
pub struct Child {
    /// In the caller's pid namespace.
    pub pid: Pid,
    /// Its handle.
    pub pidfd: OwnedFd,
}

/// Makes the process. Returns in the caller with the child and in the child with nothing.
///
/// # Errors
/// When a namespace can't be joined or made.
pub fn spawn(birth: &Birth<'_>) -> Result<Option<Child>> {
    if birth.user.is_some() || birth.joins.is_some() || birth.before.is_some() {
        return through_middle(birth);
    }
    let back = Back::before(birth)?;
    if back.is_barred()? { through_middle(birth) } else { directly(birth, &back) }
}

fn directly(birth: &Birth<'_>, back: &Back) -> Result<Option<Child>> {
    let born = make(birth, birth.cgroup, 0);
    match born {
        Ok(Cloned::Child) => Ok(None),
        Ok(Cloned::Parent(pid, pidfd)) => {
            back.go()?;
            Ok(Some(Child { pid, pidfd }))
        }
        Err(error) => {
            back.go()?;
            Err(error)
        }
    }
}

/// Joins what only children get, then clones.
fn make(birth: &Birth<'_>, cgroup: Option<BorrowedFd<'_>>, flags: u64) -> Result<Cloned> {
    if let Some(pid) = birth.pid {
        enter_those_of(pid, libc::CLONE_NEWPID)?;
    }
    if let Some((proc, offsets)) = birth.time {
        unshare(CloneFlags::from_bits_retain(libc::CLONE_NEWTIME))
            .doing(|| "make a time namespace".to_owned())?;
        if !offsets.is_empty() {
            let doing = || format!("write {offsets:?} to /proc/self/timens_offsets");
            let file = openat(
                proc,
                "self/timens_offsets",
                OFlag::O_WRONLY | OFlag::O_CLOEXEC,
                Mode::empty(),
            );
            File::from(file.doing(doing)?).write_all(offsets.as_bytes()).doing(doing)?;
        }
    }
    let args = CloneArgs { flags: birth.new | flags, cgroup };
    clone(&args).doing(|| "clone the container's process".to_owned())
}

/// The caller's own namespaces, to go back to.
struct Back {
    pid: Option<File>,
    time: Option<File>,
}

impl Back {
    fn before(birth: &Birth<'_>) -> Result<Self> {
        let open = |path: &str| File::open(path).doing(|| format!("open {path}"));
        Ok(Self {
            pid: birth.pid.map(|_| open("/proc/self/ns/pid")).transpose()?,
            time: birth.time.map(|_| open("/proc/self/ns/time")).transpose()?,
        })
    }

    /// Whether it can't be gone back to: joining a namespace needs power over it even from inside.
    fn is_barred(&self) -> Result<bool> {
        match self.go() {
            Err(Error::Sys { errno: Errno::EPERM, .. }) => Ok(true),
            other => other.map(|()| false),
        }
    }

    fn go(&self) -> Result<()> {
        if let Some(pid) = &self.pid {
            setns(pid, libc::CLONE_NEWPID)
                .doing(|| "go back to the own pid namespace".to_owned())?;
        }
        if let Some(time) = &self.time {
            setns(time, libc::CLONE_NEWTIME)
                .doing(|| "go back to the own time namespace".to_owned())?;
        }
        Ok(())
    }
}

/// How long a process that nobody talks to may take to end.
const STRAYS: Duration = Duration::from_secs(1);

/// The middle process's exit status when it has reported an error.
const MIDDLE_FAILED: i32 = 1;

/// Joins what can't be left again.
fn enter(birth: &Birth<'_>) -> Result<()> {
    match (birth.joins, birth.user) {
        (Some(joins), _) => joins.enter_as_middle(),
        (None, Some(user)) => enter_those_of(user, libc::CLONE_NEWUSER),
        (None, None) => Ok(()),
    }
}

fn through_middle(birth: &Birth<'_>) -> Result<Option<Child>> {
    let (ours, theirs) = socket::pair().doing(|| "make a socket pair".to_owned())?;
    // Born where its child is to be: to move there later costs the kernel a grace period, 10 ms.
    let args = CloneArgs { cgroup: birth.cgroup, ..CloneArgs::default() };
    let middle = match clone(&args).doing(|| "clone a process".to_owned())? {
        Cloned::Parent(pid, pidfd) => Child { pid, pidfd },
        Cloned::Child => {
            drop(ours);
            let before = birth.before.map_or(Ok(()), |before| before(theirs.as_fd()));
            let made = before
                .and_then(|()| enter(birth))
                .and_then(|()| make(birth, None, libc::CLONE_PARENT as u64));
            return match made {
                Ok(Cloned::Child) => Ok(None),
                Ok(Cloned::Parent(pid, pidfd)) => {
                    let sent = socket::send(&theirs, &pid.as_raw().to_ne_bytes(), &[pidfd.as_fd()]);
                    exit_now(if sent.is_ok() { 0 } else { MIDDLE_FAILED })
                }
                Err(error) => {
                    // Longer than any pid, so that the two can't be confused.
                    let words = format!("error: {error}");
                    let _parent_sees_the_end_of_file = socket::send(&theirs, words.as_bytes(), &[]);
                    exit_now(MIDDLE_FAILED)
                }
            };
        }
    };
    drop(theirs);
    let mut buffer = [0; 4096];
    let received =
        hear(&ours, birth.watch, &middle).and_then(|()| socket::receive(&ours, &mut buffer));
    waitpid(middle.pid, None).doing(|| "wait for the middle process".to_owned())?;
    let (length, mut fds) = received.doing(|| "listen to the middle process".to_owned())?;
    let message = buffer.get(..length).unwrap_or_default();
    match (<[u8; 4]>::try_from(message), fds.pop()) {
        (Ok(pid), Some(pidfd)) => {
            Ok(Some(Child { pid: Pid::from_raw(i32::from_ne_bytes(pid)), pidfd }))
        }
        _ if message.is_empty() => {
            let words = "the process that was to enter the container's namespaces was killed";
            Err(Error::Failed(words.to_owned()))
        }
        _ => {
            let words = String::from_utf8_lossy(message);
            Err(Error::Failed(words.trim_start_matches("error: ").to_owned()))
        }
    }
}

/// Waits for the middle process's message or its end, and ends it when the one behind `watch` ends first.
fn hear(ours: &OwnedFd, watch: Option<BorrowedFd<'_>>, middle: &Child) -> Result<(), Errno> {
    let Some(watch) = watch else { return Ok(()) };
    let mut fds =
        [PollFd::new(ours.as_fd(), PollFlags::POLLIN), PollFd::new(watch, PollFlags::POLLIN)];
    loop {
        match poll(&mut fds, PollTimeout::NONE) {
            Err(Errno::EINTR) => {}
            Ok(_) if fds[0].any() == Some(false) => {
                return pidfd_send_signal(&middle.pidfd, libc::SIGKILL);
            }
            other => return other.map(drop),
        }
    }
}

/// Waits for what a spawn that failed may have left. A middle process that was killed may have made its
/// child and not told of it, which is ours to wait for all the same: unreaped it would hold up the end of
/// the pid namespace that it is in. It ends by itself, as its end of our conversation is closed.
pub fn reap_strays() {
    let end = Instant::now() + STRAYS;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) if Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return tracing::debug!("wait for what was left: {}", errno.desc()),
        }
    }
}
