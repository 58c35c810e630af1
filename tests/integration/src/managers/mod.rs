//! Real container managers as test drivers: Docker, containerd, Podman and buildah from Debian.
//!
//! A suite is a list of named tests. [`sandbox`] runs it inside private mount, pid and network
//! namespaces, so daemons may program bridges, iptables and `/run` without touching the machine,
//! and nothing outlives the run: when the suite's init dies, the kernel ends every shim with it.
//! The daemons themselves see ordinary namespaces, a root mount that is shared (as systemd makes
//! it), and the machine's real cgroup hierarchies, below one parent group of our own.
//!
//! The runtime under test is a parameter (`RUNTIME`), by default `bin/corten`. A test that the
//! packaged runc cannot pass on some host answers [`Stop::Skip`] with the reason.

pub mod client;
pub mod command;
pub mod containerd;
pub mod cri;
pub mod daemon;
pub mod docker;
pub mod events;
pub mod image;
pub mod leaks;
pub mod podman;
pub mod sandbox;
pub mod terminal;

use std::fmt::Display;
use std::time::{Duration, Instant};

use libtest_mimic::{Completion, Failed, Trial};

/// Why a test did not pass.
#[derive(Debug)]
pub enum Stop {
    /// The thing cannot be tested with this runtime on this host; the text says why.
    Skip(String),
    /// The runtime or the manager misbehaved; the text says how.
    Fail(String),
}

impl<E: Display> From<E> for Stop {
    fn from(error: E) -> Self {
        Stop::Fail(error.to_string())
    }
}

/// Skips the test where no limits of `controller` can be set.
///
/// # Errors
/// [`Stop::Skip`].
pub fn needs_controller(controller: &str) -> Verdict {
    crate::cgroups::lack_of(controller).map_or(Ok(()), |why| Err(Stop::Skip(why)))
}

/// What a test answers.
pub type Verdict = Result<(), Stop>;

/// Makes a libtest trial of `test`, whose name is `group::name`.
pub fn trial(group: &str, name: &str, test: impl FnOnce() -> Verdict + Send + 'static) -> Trial {
    Trial::ignorable_test(format!("{group}::{name}"), move || match test() {
        Ok(()) => Ok(Completion::Completed),
        Err(Stop::Skip(why)) => Ok(Completion::ignored_with(why)),
        Err(Stop::Fail(why)) => Err(Failed::from(why)),
    })
}

/// Polls `condition` until it is true or `limit` has passed; the error names `what`.
pub fn eventually(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> Result<bool, Stop>,
) -> Verdict {
    let limit = crate::driver::patience(limit);
    let end = Instant::now() + limit;
    loop {
        if condition()? {
            return Ok(());
        }
        if Instant::now() > end {
            return Err(Stop::Fail(format!("not within {limit:?}: {what}")));
        }
        std::thread::sleep(Duration::from_millis(30));
    }
}

/// Fails the test unless `left == right`, naming `what` was compared.
pub fn same<T, U>(what: &str, seen: &T, wanted: &U) -> Verdict
where
    T: PartialEq<U> + std::fmt::Debug + ?Sized,
    U: std::fmt::Debug + ?Sized,
{
    if seen == wanted {
        Ok(())
    } else {
        Err(Stop::Fail(format!("{what}: wanted {wanted:?}, saw {seen:?}")))
    }
}

/// Fails the test unless `text` contains `part`, naming `what` was searched.
pub fn contains(what: &str, text: &str, part: &str) -> Verdict {
    if text.contains(part) {
        Ok(())
    } else {
        Err(Stop::Fail(format!("{what}: wanted {part:?} in:\n{text}")))
    }
}

/// Fails the test if `text` contains `part`, naming `what` was searched.
pub fn lacks(what: &str, text: &str, part: &str) -> Verdict {
    if text.contains(part) {
        Err(Stop::Fail(format!("{what}: did not want {part:?} in:\n{text}")))
    } else {
        Ok(())
    }
}

/// Fails the test unless `holds`, with `what` as the message.
pub fn check(holds: bool, what: impl Display) -> Verdict {
    if holds { Ok(()) } else { Err(Stop::Fail(what.to_string())) }
}
