//! Seccomp: `linux.seccomp` becomes a BPF program and is installed.
//!
//! The promise: no call that the profile denies gets through, by whatever ABI, number or high bit
//! it arrives; a profile this module cannot honour exactly is an error before anything runs.
//!
//! Three pure stages, one file each: [`profile`] (JSON to numbers, all mistakes of the author),
//! [`rules`] (numbers of one ABI to intervals and chains; who wins when several rules apply),
//! [`codegen`] over [`assembler`] (intervals to instructions). The tests run the programs in an
//! interpreter against libseccomp's for the same profile.
//!
//! Order constraints for the callers:
//!
//! * [`compile`] and [`Filter::check`] before anything is created.
//! * [`Filter::load`] by the container's init. Without no_new_privs before `CAP_SYS_ADMIN` is
//!   dropped, with it as late as possible, for every call after it is filtered.
//! * What hands the notification fd to the parent may use `write` and nothing else: no profile
//!   can notify on it (see [`profile`]), while `sendmsg` is what many agents ask for. The parent
//!   fetches the fd with `pidfd_getfd`.
//! * [`listener::send`] by the parent, in the runtime's namespaces, before init goes on.

mod abi;
mod assembler;
mod codegen;
mod features;
mod listener;
mod load;
mod profile;
mod rules;

#[cfg(any(test, fuzzing))]
#[allow(clippy::unwrap_used, reason = "for tests")]
pub(crate) mod book;
#[cfg(test)]
mod differential;
#[cfg(any(test, fuzzing))]
#[allow(clippy::unwrap_used, reason = "for tests")]
mod generate;
#[cfg(any(test, fuzzing))]
#[allow(clippy::panic, reason = "for tests")]
mod interpreter;
#[cfg(test)]
mod tests;

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompFilterFlag, LinuxSyscall,
};
use seccompiler::BpfProgram;

pub use features::{Known, known, supported_flags};
pub use listener::{Listener, send as send_listener};

use crate::sys::seccomp::flag;
use crate::{Error, Result};

/// A compiled `linux.seccomp`, ready to be installed.
#[derive(Debug)]
pub struct Filter {
    program: BpfProgram,
    /// `SECCOMP_FILTER_FLAG_*` the profile asks for, or needs.
    flags: u32,
    /// The profile is silent about flags: `SPEC_ALLOW` is wanted where the kernel has it.
    default_flags: bool,
    /// Present exactly when an action is `SCMP_ACT_NOTIFY`.
    listener: Option<Listener>,
}

impl Filter {
    /// Who gets the notification fd; `None` when the profile does not notify.
    pub fn listener(&self) -> Option<&Listener> {
        self.listener.as_ref()
    }

    /// The program, for those who want to look at it.
    pub fn program(&self) -> &BpfProgram {
        &self.program
    }
}

/// Translates `linux.seccomp`.
///
/// # Errors
/// [`Error::Config`] with the path of what cannot be honoured.
pub fn compile(spec: &LinuxSeccomp) -> Result<Filter> {
    compile_for(spec, abi::NATIVE)
}

/// Compiles for a machine whose ABIs are `family`, its own first.
fn compile_for(spec: &LinuxSeccomp, family: &[&'static abi::Abi]) -> Result<Filter> {
    let profile = profile::profile(spec)?;
    let listener = listener::listener(spec)?;
    let notifies = spec.syscalls().as_deref().unwrap_or_default().iter();
    let notifies =
        notifies.map(LinuxSyscall::action).any(|a| a == LinuxSeccompAction::ScmpActNotify);
    let listener = match (notifies, listener) {
        (false, _) => None,
        (true, Some(listener)) => Some(listener),
        (true, None) => {
            return Err(Error::config(
                "linux.seccomp.listenerPath",
                "must be set, because SCMP_ACT_NOTIFY is used",
            ));
        }
    };
    let flags = flags(spec, notifies);
    let program = codegen::program(&profile, &abis(spec, family))?;
    Ok(Filter { program, flags, default_flags: spec.flags().is_none(), listener })
}

/// The ABIs of this machine that the profile lists, and its own in any case.
fn abis(spec: &LinuxSeccomp, family: &[&'static abi::Abi]) -> Vec<&'static abi::Abi> {
    let listed = spec.architectures().as_deref().unwrap_or_default();
    let (own, compat) = family.split_at(family.len().min(1));
    let mut abis = own.to_vec();
    abis.extend(compat.iter().filter(|abi| listed.contains(&abi.scmp)));
    for foreign in listed
        .iter()
        .filter(|&&arch| arch != Arch::ScmpArchNative && family.iter().all(|abi| abi.scmp != arch))
    {
        tracing::debug!("seccomp: no call can arrive from {foreign} on this machine");
    }
    abis
}

fn flags(spec: &LinuxSeccomp, notifies: bool) -> u32 {
    let mut flags = if notifies { flag::NEW_LISTENER } else { 0 };
    for wanted in spec.flags().as_deref().unwrap_or_default() {
        flags |= match wanted {
            LinuxSeccompFilterFlag::SeccompFilterFlagLog => flag::LOG,
            LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => flag::SPEC_ALLOW,
            // The kernel refuses TSYNC beside a listener unless failure is an errno.
            LinuxSeccompFilterFlag::SeccompFilterFlagTsync if notifies => {
                flag::TSYNC | flag::TSYNC_ESRCH
            }
            LinuxSeccompFilterFlag::SeccompFilterFlagTsync => flag::TSYNC,
            LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv if notifies => {
                flag::WAIT_KILLABLE_RECV
            }
            // There is no wait to be made killable, and the kernel refuses the flag alone.
            LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => 0,
        };
    }
    flags
}
