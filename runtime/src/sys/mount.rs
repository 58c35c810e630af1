//! Mounts: the new mount API, `fsopen(2)`, `open_tree(2)`, `mount_setattr(2)`, `move_mount(2)`.
//!
//! The old calls, `mount(2)`, `umount2(2)` and `pivot_root(2)`, come from nix. libc lacks most of
//! these constants on glibc; they are kernel ABI and stand in `linux/mount.h`.

use std::ffi::CStr;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

use super::check;

/// Attributes of one mount, `MOUNT_ATTR_*`.
pub mod attr {
    /// Read-only.
    pub const RDONLY: u64 = 0x1;
    /// Set-user-id bits and file capabilities mean nothing.
    pub const NOSUID: u64 = 0x2;
    /// Device nodes can't be opened.
    pub const NODEV: u64 = 0x4;
    /// Programs can't be executed.
    pub const NOEXEC: u64 = 0x8;
    /// The field that holds one of the three ways to update access times.
    pub const ATIME: u64 = 0x70;
    /// Access times relative to modification: the kernel's default, and 0.
    pub const RELATIME: u64 = 0x0;
    /// No access times.
    pub const NOATIME: u64 = 0x10;
    /// Access times always.
    pub const STRICTATIME: u64 = 0x20;
    /// No access times of directories.
    pub const NODIRATIME: u64 = 0x80;
    /// Identities are mapped through a user namespace.
    pub const IDMAP: u64 = 0x0010_0000;
    /// Symbolic links are not followed.
    pub const NOSYMFOLLOW: u64 = 0x0020_0000;
}

const FSOPEN_CLOEXEC: u32 = 1;
const FSMOUNT_CLOEXEC: u32 = 1;
const FSPICK_CLOEXEC: u32 = 1;
const FSPICK_EMPTY_PATH: u32 = 8;
const OPEN_TREE_CLONE: u32 = 1;
const MOVE_MOUNT_F_EMPTY_PATH: u32 = 0x4;
const MOVE_MOUNT_T_EMPTY_PATH: u32 = 0x40;
const FSCONFIG_SET_FLAG: u32 = 0;
const FSCONFIG_SET_STRING: u32 = 1;
const FSCONFIG_SET_FD: u32 = 5;
const FSCONFIG_CMD_CREATE: u32 = 6;
const FSCONFIG_CMD_RECONFIGURE: u32 = 7;

/// The longest value, without its NUL, that `fsconfig(2)` takes as a string.
pub const FSCONFIG_VALUE_MAX: usize = 255;

/// A new descriptor that the kernel returned.
fn owned(ret: libc::c_long) -> Result<OwnedFd, Errno> {
    // SAFETY: every caller passes the result of a call that makes a descriptor; nobody else has it.
    check(ret).map(|fd| unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// `fsopen(2)`: a configuration context for a file system of this type.
///
/// # Errors
/// `ENODEV` for an unknown type, `EPERM` without `CAP_SYS_ADMIN`, `ENOSYS` before Linux 5.2.
pub fn fsopen(fstype: &CStr) -> Result<OwnedFd, Errno> {
    // SAFETY: `fstype` is NUL-terminated and lives across the call.
    owned(unsafe { libc::syscall(libc::SYS_fsopen, fstype.as_ptr(), FSOPEN_CLOEXEC) })
}

/// `fspick(2)`: a context to reconfigure the superblock of the mount whose root `mount` is.
///
/// # Errors
/// `EINVAL` when `mount` is no mount's root.
pub fn fspick(mount: impl AsFd) -> Result<OwnedFd, Errno> {
    // SAFETY: an empty static path and plain integers.
    owned(unsafe {
        libc::syscall(
            libc::SYS_fspick,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            FSPICK_CLOEXEC | FSPICK_EMPTY_PATH,
        )
    })
}

/// The one shape of `fsconfig(2)` that all the wrappers below have.
fn fsconfig(
    fs: BorrowedFd<'_>,
    cmd: u32,
    key: Option<&CStr>,
    value: Option<&CStr>,
    aux: libc::c_int,
) -> Result<(), Errno> {
    // SAFETY: `key` and `value` are null or NUL-terminated and live across the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            fs.as_raw_fd(),
            cmd,
            key.map_or(std::ptr::null(), CStr::as_ptr),
            value.map_or(std::ptr::null(), CStr::as_ptr),
            aux,
        )
    })
    .map(drop)
}

/// `FSCONFIG_SET_FLAG`: a parameter without a value.
///
/// # Errors
/// `EINVAL` for an unknown parameter; the context's log says more ([`log`]).
pub fn fsconfig_flag(fs: impl AsFd, key: &CStr) -> Result<(), Errno> {
    fsconfig(fs.as_fd(), FSCONFIG_SET_FLAG, Some(key), None, 0)
}

/// `FSCONFIG_SET_STRING`: `key=value`, the value at most [`FSCONFIG_VALUE_MAX`] bytes.
///
/// # Errors
/// `EINVAL` for an unknown parameter or value; the context's log says more ([`log`]).
pub fn fsconfig_string(fs: impl AsFd, key: &CStr, value: &CStr) -> Result<(), Errno> {
    fsconfig(fs.as_fd(), FSCONFIG_SET_STRING, Some(key), Some(value), 0)
}

/// `FSCONFIG_SET_FD`: `key` is what the descriptor stands for; overlay's layers (Linux 6.13).
///
/// # Errors
/// `EINVAL` for an unknown parameter or one that takes no descriptor; the context's log says more
/// ([`log`]).
pub fn fsconfig_fd(fs: impl AsFd, key: &CStr, value: impl AsFd) -> Result<(), Errno> {
    let value = value.as_fd().as_raw_fd();
    fsconfig(fs.as_fd(), FSCONFIG_SET_FD, Some(key), None, value)
}

/// `FSCONFIG_CMD_CREATE`: make or find the superblock.
///
/// # Errors
/// The file system's own.
pub fn fsconfig_create(fs: impl AsFd) -> Result<(), Errno> {
    fsconfig(fs.as_fd(), FSCONFIG_CMD_CREATE, None, None, 0)
}

/// `FSCONFIG_CMD_RECONFIGURE`: apply the parameters to a superblock that [`fspick`] picked.
///
/// # Errors
/// The file system's own.
pub fn fsconfig_reconfigure(fs: impl AsFd) -> Result<(), Errno> {
    fsconfig(fs.as_fd(), FSCONFIG_CMD_RECONFIGURE, None, None, 0)
}

/// What the kernel wrote into the context's log, one line, empty if nothing.
pub fn log(fs: impl AsFd) -> String {
    let mut said = String::new();
    let mut line = [0u8; 1024];
    // The log is a queue of at most eight messages; ENODATA ends it.
    for _ in 0..8 {
        let Ok(len) = nix::unistd::read(fs.as_fd(), &mut line) else { break };
        let text = String::from_utf8_lossy(line.get(..len).unwrap_or_default());
        let text = text.trim_end();
        // "e error", "w warning", "i information"
        let text = text.strip_prefix(['e', 'w', 'i']).unwrap_or(text).trim_start();
        if !said.is_empty() {
            said.push_str("; ");
        }
        said.push_str(text);
    }
    said
}

/// `fsmount(2)`: a detached mount of the context's superblock with these `MOUNT_ATTR_*`.
///
/// # Errors
/// `EPERM` when the mount would reveal more than the user namespace may see.
pub fn fsmount(fs: impl AsFd, attrs: u64) -> Result<OwnedFd, Errno> {
    let attrs = u32::try_from(attrs).map_err(|_| Errno::EINVAL)?;
    // SAFETY: plain integers.
    owned(unsafe {
        libc::syscall(libc::SYS_fsmount, fs.as_fd().as_raw_fd(), FSMOUNT_CLOEXEC, attrs)
    })
}

/// `open_tree(2)` with `OPEN_TREE_CLONE`: a detached copy of the mount that `path` below `dir` lies
/// on, from there down; with `recursive`, of the mounts below it too. An empty path is `dir` itself.
///
/// # Errors
/// `EINVAL` for an unbindable mount, for one outside the caller's mount namespace, or for one with
/// locked mounts below it when not `recursive`.
pub fn clone_tree(dir: impl AsFd, path: &CStr, recursive: bool) -> Result<OwnedFd, Errno> {
    let flags = OPEN_TREE_CLONE
        | libc::O_CLOEXEC as u32
        | libc::AT_EMPTY_PATH as u32
        | if recursive { libc::AT_RECURSIVE as u32 } else { 0 };
    // SAFETY: `path` is NUL-terminated and lives across the call.
    owned(unsafe {
        libc::syscall(libc::SYS_open_tree, dir.as_fd().as_raw_fd(), path.as_ptr(), flags)
    })
}

/// `move_mount(2)` from fd to fd: attach the tree `from` on `to`. Afterwards `from` is the attached
/// mount's root.
///
/// # Errors
/// `ENOTDIR` for a directory on a file or the reverse; `EINVAL`.
pub fn move_mount(from: impl AsFd, to: impl AsFd) -> Result<(), Errno> {
    // SAFETY: empty static paths and plain integers.
    check(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            from.as_fd().as_raw_fd(),
            c"".as_ptr(),
            to.as_fd().as_raw_fd(),
            c"".as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH,
        )
    })
    .map(drop)
}

/// What [`mount_setattr`] changes.
#[derive(Debug, Default, Clone, Copy)]
pub struct MountAttr<'fd> {
    /// `MOUNT_ATTR_*` to set.
    pub set: u64,
    /// `MOUNT_ATTR_*` to clear first.
    pub clear: u64,
    /// `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE`, `MS_UNBINDABLE` or 0 for as it is.
    pub propagation: u64,
    /// The user namespace whose mapping `attr::IDMAP` means.
    pub userns: Option<BorrowedFd<'fd>>,
}

/// `struct mount_attr`.
#[repr(C)]
struct RawMountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// `mount_setattr(2)` on the mount whose root `mount` is, and with `recursive` on all below it, all
/// or nothing.
///
/// # Errors
/// `EPERM` when an attribute is locked or the file system can't be mapped, `ENOSYS` before 5.12.
pub fn mount_setattr(mount: impl AsFd, recursive: bool, what: &MountAttr<'_>) -> Result<(), Errno> {
    let raw = RawMountAttr {
        attr_set: what.set,
        attr_clr: what.clear,
        propagation: what.propagation,
        userns_fd: what.userns.map_or(0, |fd| fd.as_raw_fd() as u64),
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: an empty static path; `raw` lives across the call, with its true size.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const raw,
            size_of::<RawMountAttr>(),
        )
    })
    .map(drop)
}

/// Which parts of the new mount API answer in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Present {
    /// `fsopen`, `fsconfig`, `fsmount`, `open_tree`, `move_mount` (Linux 5.2).
    pub detached: bool,
    /// `mount_setattr` (Linux 5.12).
    pub setattr: bool,
}

/// Asks each call with arguments that change nothing. A seccomp sandbox around us answers `ENOSYS`,
/// `EPERM` or `EINVAL` for all arguments, the kernel itself `EBADF` or `EFAULT`.
pub fn present() -> Present {
    let answers = |ret: libc::c_long| {
        !matches!(check(ret), Err(Errno::ENOSYS | Errno::EPERM | Errno::EINVAL))
    };
    let null = std::ptr::null::<libc::c_char>();
    let empty = c"".as_ptr();
    let nop = RawMountAttr { attr_set: 0, attr_clr: 0, propagation: 0, userns_fd: 0 };
    // SAFETY: bad descriptors and a null name, which the kernel refuses; the attribute change is
    // empty, and `nop` lives across the call.
    unsafe {
        Present {
            detached: answers(libc::syscall(libc::SYS_fsopen, null, 0))
                // A command that there is not: before it looks at the descriptor, `EOPNOTSUPP`.
                && answers(libc::syscall(libc::SYS_fsconfig, 0, u32::MAX, null, null, 0))
                && answers(libc::syscall(libc::SYS_fsmount, -1, 0, 0))
                && answers(libc::syscall(libc::SYS_open_tree, -1, empty, libc::AT_EMPTY_PATH))
                && answers(libc::syscall(
                    libc::SYS_move_mount,
                    -1,
                    empty,
                    -1,
                    empty,
                    MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH,
                )),
            setattr: answers(libc::syscall(
                libc::SYS_mount_setattr,
                -1,
                empty,
                libc::AT_EMPTY_PATH,
                &raw const nop,
                size_of::<RawMountAttr>(),
            )),
        }
    }
}
