//! A copy in a memfd with seals against writing.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};

use super::fill;
use crate::error::{Doing, Result};
use crate::sys;

/// `F_SEAL_FUTURE_WRITE` (Linux 5.1) refuses every write and every writable mapping from now on, and
/// there is none yet. `F_SEAL_WRITE` does no more for us, but looks at every page for somebody who
/// holds it, and is EBUSY when memory management happens to.
const SEALS: SealFlag = SHAPE.union(SealFlag::F_SEAL_FUTURE_WRITE);
/// What Linux before 5.1 has.
const OLD_SEALS: SealFlag = SHAPE.union(SealFlag::F_SEAL_WRITE);
const SHAPE: SealFlag =
    SealFlag::F_SEAL_SEAL.union(SealFlag::F_SEAL_SHRINK).union(SealFlag::F_SEAL_GROW);

/// A sealed copy of `exe`.
///
/// # Errors
/// When there is no memory, or `vm.memfd_noexec` forbids executable memfds.
pub fn copy(exe: impl AsFd) -> Result<OwnedFd> {
    let copy = sys::fs::memfd_executable(c"corten").doing(|| "memfd_create".to_owned())?;
    fill(&copy, exe)?;
    match fcntl(&copy, FcntlArg::F_ADD_SEALS(SEALS)) {
        Err(Errno::EINVAL) => fcntl(&copy, FcntlArg::F_ADD_SEALS(OLD_SEALS)),
        other => other,
    }
    .doing(|| "seal the runtime's copy".to_owned())?;
    Ok(copy)
}

/// Whether the file is such a copy.
pub fn is_sealed(file: impl AsFd) -> bool {
    // EINVAL: not a memfd.
    fcntl(file, FcntlArg::F_GET_SEALS).is_ok_and(|seals| {
        let seals = SealFlag::from_bits_truncate(seals);
        seals.contains(SEALS) || seals.contains(OLD_SEALS)
    })
}
