//! Files: `openat2(2)`, `memfd_create(2)` with seals, `flock(2)`, `sendfile(2)`.

use std::ffi::CStr;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

use super::check;

/// How `openat2(2)` resolves a path: `RESOLVE_*`.
pub mod resolve {
    /// Absolute paths and `..` stay inside the directory.
    pub const IN_ROOT: u64 = libc::RESOLVE_IN_ROOT;
    /// Leaving the directory is an error.
    pub const BENEATH: u64 = libc::RESOLVE_BENEATH;
    /// Any symbolic link is an error.
    pub const NO_SYMLINKS: u64 = libc::RESOLVE_NO_SYMLINKS;
    /// `/proc/self/fd/N` and its kind are an error.
    pub const NO_MAGICLINKS: u64 = libc::RESOLVE_NO_MAGICLINKS;
    /// Crossing a mount is an error.
    pub const NO_XDEV: u64 = libc::RESOLVE_NO_XDEV;
}

/// `openat2(2)`: open `path` below `dir`. `O_CLOEXEC` is added.
///
/// # Errors
/// The errno of the call; `EAGAIN` (a rename raced a `..`) is the caller's to retry.
pub fn openat2(
    dir: impl AsFd,
    path: &CStr,
    flags: libc::c_int,
    mode: libc::mode_t,
    resolve: u64,
) -> Result<OwnedFd, Errno> {
    // SAFETY: open_how is plain data for which all zeroes is valid.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = (flags | libc::O_CLOEXEC) as u64;
    how.mode = u64::from(mode);
    how.resolve = resolve;
    // SAFETY: `path` is NUL-terminated and `how` lives across the call, with its true size.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_openat2,
            dir.as_fd().as_raw_fd(),
            path.as_ptr(),
            &raw const how,
            size_of::<libc::open_how>(),
        )
    };
    // SAFETY: the kernel just made this descriptor and nobody else has it.
    check(ret).map(|fd| unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// `memfd_create(2)` for a file that will be sealed and executed. `MFD_EXEC` (Linux 6.3) says so;
/// older kernels refuse the flag and need none.
///
/// # Errors
/// `ENOSYS` before Linux 3.17, `EACCES` when vm.memfd_noexec forbids executable memfds.
pub fn memfd_executable(name: &CStr) -> Result<OwnedFd, Errno> {
    let create = |flags: libc::c_uint| {
        // SAFETY: `name` is NUL-terminated.
        let ret = unsafe { libc::memfd_create(name.as_ptr(), flags) };
        // SAFETY: the kernel just made this descriptor and nobody else has it.
        check(ret.into()).map(|fd| unsafe { OwnedFd::from_raw_fd(fd as i32) })
    };
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    match create(flags | libc::MFD_EXEC) {
        Err(Errno::EINVAL) => create(flags),
        other => other,
    }
}

/// `flock(2)`: the exclusive lock of an open file, without waiting for it. It goes when the last
/// descriptor of that open file is closed.
///
/// # Errors
/// `EWOULDBLOCK` when somebody else has it.
pub fn try_lock(file: impl AsFd) -> Result<(), Errno> {
    // SAFETY: plain integers.
    let ret = unsafe { libc::flock(file.as_fd().as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) };
    check(ret.into()).map(drop)
}

/// `flock(2)`: gives the lock back, for every process that has this open file.
///
/// # Errors
/// None that an open file could give.
pub fn unlock(file: impl AsFd) -> Result<(), Errno> {
    // SAFETY: plain integers.
    check(unsafe { libc::flock(file.as_fd().as_raw_fd(), libc::LOCK_UN) }.into()).map(drop)
}

/// What `fstatfs(2)` says about a file system and the mount it was reached through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FsInfo {
    /// Which file system: `*_SUPER_MAGIC`.
    pub magic: u64,
    /// `ST_*`, the ones that nix doesn't know too.
    pub flags: u64,
}

/// `fstatfs(2)`.
///
/// # Errors
/// The errno of the call.
pub fn statfs(fd: impl AsFd) -> Result<FsInfo, Errno> {
    // SAFETY: statfs is plain data for which all zeroes is valid.
    let mut raw: libc::statfs64 = unsafe { std::mem::zeroed() };
    // SAFETY: `raw` is writable and lives across the call.
    check(unsafe { libc::fstatfs64(fd.as_fd().as_raw_fd(), &raw mut raw) }.into())?;
    Ok(FsInfo { magic: raw.f_type as u64, flags: raw.f_flags as u64 })
}

/// `statx(2)`: whether the fd is the root of a mount (Linux 5.8).
///
/// # Errors
/// The errno of the call; `ENOTSUP` where the kernel doesn't tell.
pub fn is_mount_root(fd: impl AsFd) -> Result<bool, Errno> {
    const MOUNT_ROOT: u64 = libc::STATX_ATTR_MOUNT_ROOT as u64;
    // SAFETY: statx is plain data for which all zeroes is valid.
    let mut raw: libc::statx = unsafe { std::mem::zeroed() };
    let (path, flags) = (c"".as_ptr(), libc::AT_EMPTY_PATH);
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: an empty static path; `raw` is writable and lives across the call.
    let ret = unsafe { libc::statx(fd, path, flags, libc::STATX_TYPE, &raw mut raw) };
    check(ret.into())?;
    if raw.stx_attributes_mask & MOUNT_ROOT == 0 {
        return Err(Errno::ENOTSUP);
    }
    Ok(raw.stx_attributes & MOUNT_ROOT != 0)
}

/// `fchmodat2(2)` with an empty path: the mode of what an `O_PATH` fd stands for. Before Linux 6.6
/// through the fd's name in `/proc/self/fd`, which has to be the host's.
///
/// # Errors
/// The errno of the call.
pub fn chmod(fd: impl AsFd, mode: libc::mode_t) -> Result<(), Errno> {
    let fd = fd.as_fd();
    // SAFETY: an empty static path and plain integers.
    let ret = unsafe {
        libc::syscall(libc::SYS_fchmodat2, fd.as_raw_fd(), c"".as_ptr(), mode, libc::AT_EMPTY_PATH)
    };
    match check(ret) {
        Err(Errno::ENOSYS | Errno::EPERM | Errno::EINVAL) => {
            let name = format!("/proc/self/fd/{}", fd.as_raw_fd());
            nix::sys::stat::fchmodat(
                nix::fcntl::AT_FDCWD,
                name.as_str(),
                nix::sys::stat::Mode::from_bits_truncate(mode),
                nix::sys::stat::FchmodatFlags::FollowSymlink,
            )
        }
        done => done.map(drop),
    }
}

/// `setxattr(2)` of `security.selinux` on what an `O_PATH` fd stands for, through its name in
/// `/proc/self/fd`, which has to be the host's.
///
/// # Errors
/// `ENOTSUP` without SELinux, `EINVAL` for a label that the policy doesn't know.
pub fn set_selinux_label(fd: impl AsFd, label: &CStr) -> Result<(), Errno> {
    let name = format!("/proc/self/fd/{}\0", fd.as_fd().as_raw_fd());
    let value = label.to_bytes_with_nul();
    // SAFETY: `name` and the attribute's name are NUL-terminated; `value` is readable for its length.
    check(
        unsafe {
            libc::setxattr(
                name.as_ptr().cast(),
                c"security.selinux".as_ptr(),
                value.as_ptr().cast(),
                value.len(),
                0,
            )
        }
        .into(),
    )
    .map(drop)
}
