//! `binary:` and `binary-v2:`: the output goes to a program of the client's choice.
//!
//! Its descriptors are 3, the container's standard output; 4, its standard error; 5, where it says
//! that it is ready; and /dev/null three times. Its environment is `CONTAINER_ID` and
//! `CONTAINER_NAMESPACE`, nothing else.
//!
//! Ready means: it closed 5 (`binary:`), or wrote a byte there (`binary-v2:`). One that has failed by
//! then, or says nothing for 10 s, is an error of the create. The write ends of its pipes are only
//! in the container: it sees their end when the container's processes are gone.

use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use corten::error::{Doing, Error, Result};
use corten::sys::process::cloexec_from;
use corten::sys::wait::Exit;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::SigSet;
use nix::sys::stat::Mode;
use nix::unistd::{pipe2, read};

use super::child::{Child, readable_within};

/// How long a logger may take to be ready.
pub(super) const READY: Duration = Duration::from_secs(10);
/// Between the end of its descriptors and the end of a process.
const DYING: Duration = Duration::from_millis(5);
/// The same for one that has said the wrong thing, to tell why.
const DYING_WRONG: Duration = Duration::from_millis(100);
/// The first descriptor after the standard streams.
const FIRST: i32 = 3;

/// A program, as its URI names it.
#[derive(Debug)]
pub(super) struct Binary<'a> {
    pub(super) path: &'a str,
    pub(super) args: &'a [String],
    pub(super) must_say_ready: bool,
    pub(super) id: &'a str,
    pub(super) namespace: &'a str,
    /// How long it may take to be ready.
    pub(super) patience: Duration,
}

impl Binary<'_> {
    /// Starts it on the read ends of both streams and waits until it is ready.
    pub(super) fn start(&self, streams: [OwnedFd; 2]) -> Result<Child> {
        let (ready, says_ready) = pipe2(OFlag::O_CLOEXEC).doing(|| "pipe".to_owned())?;
        let [stdout, stderr] = streams;
        let doing = || format!("start logging binary {:?}", self.path);
        let mut child = self.spawn([stdout, stderr, says_ready]).doing(doing)?;
        self.wait_ready(&ready, &mut child)?;
        Ok(child)
    }

    fn spawn(&self, fds: [OwnedFd; 3]) -> Result<Child> {
        // Whatever the worker itself was started with is not the logger's.
        match cloexec_from(FIRST as u32) {
            Ok(()) | Err(Errno::ENOSYS | Errno::EINVAL | Errno::EPERM) => {}
            Err(errno) => return Err(Error::sys("close_range", errno)),
        }
        let text = |text: String| {
            CString::new(text).map_err(|_| Error::Usage("a NUL in an argument".to_owned()))
        };
        let mut args = vec![text(self.path.to_owned())?];
        for arg in self.args {
            args.push(text(arg.clone())?);
        }
        let env = [
            text(format!("CONTAINER_ID={}", self.id))?,
            text(format!("CONTAINER_NAMESPACE={}", self.namespace))?,
        ];
        let (actions, attributes) = arrange(&fds).doing(|| "posix_spawn".to_owned())?;
        // The child of a vfork: it shares our memory until it executes, and a failure comes back.
        let pid = posix_spawn(Path::new(self.path), &actions, &attributes, &args, &env);
        Child::of_pid(pid.doing(|| "execute".to_owned())?)
    }

    fn wait_ready(&self, ready: &OwnedFd, child: &mut Child) -> Result<()> {
        let failed = |why: String| Error::Failed(format!("logging binary {:?} {why}", self.path));
        if !readable_within(ready, self.patience)? {
            return Err(failed(format!("was not ready within {:?}", self.patience)));
        }
        let said = read(ready, &mut [0]).doing(|| "read from the logging binary".to_owned())?;
        if said > 0 {
            return Ok(());
        }
        if self.must_say_ready {
            let end = child.exit_within(DYING_WRONG).map_or(String::new(), words);
            let why = "did not call ready (it may have crashed or exited prematurely)";
            return Err(failed(format!("{why}{end}")));
        }
        match child.exit_within(DYING) {
            // Having nothing to do is not a failure, in containerd's own shim neither.
            None | Some(Exit::Code(0)) => Ok(()),
            Some(exit) => Err(failed(format!("ended before the container began{}", words(exit)))),
        }
    }
}

fn words(exit: Exit) -> String {
    match exit {
        Exit::Code(code) => format!(": exit status {code}"),
        Exit::Signal(signal) => format!(": signal {signal}"),
    }
}

/// The descriptors and signals of a fresh process.
fn arrange(fds: &[OwnedFd; 3]) -> Result<(PosixSpawnFileActions, PosixSpawnAttr), Errno> {
    let mut actions = PosixSpawnFileActions::init()?;
    actions.add_open(0, "/dev/null", OFlag::O_RDWR, Mode::empty())?;
    actions.add_dup2(0, 1)?;
    actions.add_dup2(0, 2)?;
    let raw = fds.each_ref().map(AsRawFd::as_raw_fd);
    // By way of numbers that are nobody's, since 3 to 5 may be some of these.
    let free = raw.iter().max().map_or(FIRST, |most| most + 1).max(FIRST + 3);
    for (from, to) in raw.into_iter().zip(free..) {
        actions.add_dup2(from, to)?;
    }
    for (from, to) in (free..free + 3).zip(FIRST..) {
        actions.add_dup2(from, to)?;
        actions.add_close(from)?;
    }
    let mut attributes = PosixSpawnAttr::init()?;
    attributes.set_flags(
        PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF | PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK,
    )?;
    attributes.set_sigdefault(&SigSet::all())?;
    attributes.set_sigmask(&SigSet::empty())?;
    Ok((actions, attributes))
}
