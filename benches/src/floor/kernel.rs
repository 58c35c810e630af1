//! The system calls of a container's life, one function each, with nothing around them.
//!
//! This file and the life in `life.rs` are a measuring rod, not a product: they use raw
//! descriptors and abort on the first failure, because every check that a runtime makes
//! beyond the call itself is what the benchmark wants to see as a difference.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::io::Error;

/// The kernel's `struct clone_args` (size 88).
#[repr(C)]
#[derive(Debug, Default)]
pub struct CloneArgs {
    pub flags: u64,
    pub pidfd: u64,
    pub child_tid: u64,
    pub parent_tid: u64,
    pub exit_signal: u64,
    pub stack: u64,
    pub stack_size: u64,
    pub tls: u64,
    pub set_tid: u64,
    pub set_tid_size: u64,
    pub cgroup: u64,
}

/// `result`, or the end of the program with the call's name and errno.
pub fn must(result: i64, what: &str) -> i64 {
    if result < 0 {
        eprintln!("floor: {what}: {}", Error::last_os_error());
        // SAFETY: ends the process without running anything of ours.
        unsafe { libc::_exit(1) }
    }
    result
}

/// A raw system call whose failure ends the program.
macro_rules! sys {
    ($name:ident $(, $arg:expr)* $(,)?) => {
        $crate::kernel::must(
            // SAFETY: every pointer handed over is a live `CStr`, slice or repr(C) struct of
            // the caller for the whole call; the kernel checks the rest.
            unsafe { libc::syscall(libc::$name $(, $arg)*) },
            stringify!($name),
        )
    };
}
pub(crate) use sys;

/// Microseconds on the monotonic clock.
pub fn now() -> f64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `t` is ours to write.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut t) };
    t.tv_sec as f64 * 1e6 + t.tv_nsec as f64 / 1e3
}

pub const MOVE_EMPTY: u32 = 0x4;
pub const MOVE_TO_EMPTY: u32 = 0x40;
pub const ATTR_RDONLY: u64 = 0x1;
pub const ATTR_NOSUID: u64 = 0x2;
pub const ATTR_NODEV: u64 = 0x4;
pub const ATTR_NOEXEC: u64 = 0x8;
pub const ATTR_STRICTATIME: u64 = 0x20;

/// `fsopen` + `fsconfig`s + `fsmount`: a detached new file system.
pub fn filesystem(kind: &CStr, options: &[(&CStr, &CStr)], attributes: u64) -> i32 {
    let context = sys!(SYS_fsopen, kind.as_ptr(), 1u32) as i32;
    for (key, value) in options {
        sys!(SYS_fsconfig, context, 1u32, key.as_ptr(), value.as_ptr(), 0);
    }
    sys!(SYS_fsconfig, context, 6u32, 0usize, 0usize, 0);
    let mount = sys!(SYS_fsmount, context, 1u32, attributes) as i32;
    sys!(SYS_close, context);
    mount
}

/// A flag of an fsconfig without value, e.g. devpts `newinstance`.
pub fn devpts(attributes: u64) -> i32 {
    let context = sys!(SYS_fsopen, c"devpts".as_ptr(), 1u32) as i32;
    sys!(SYS_fsconfig, context, 0u32, c"newinstance".as_ptr(), 0usize, 0);
    for (key, value) in [(c"ptmxmode", c"0666"), (c"mode", c"0620"), (c"gid", c"5")] {
        sys!(SYS_fsconfig, context, 1u32, key.as_ptr(), value.as_ptr(), 0);
    }
    sys!(SYS_fsconfig, context, 6u32, 0usize, 0usize, 0);
    let mount = sys!(SYS_fsmount, context, 1u32, attributes) as i32;
    sys!(SYS_close, context);
    mount
}

/// A detached copy of the mount at `path`.
pub fn copy_of(dir: i32, path: &CStr, recursive: bool) -> i32 {
    let recursive = if recursive { libc::AT_RECURSIVE as u32 } else { 0 };
    let empty = if path.is_empty() { libc::AT_EMPTY_PATH as u32 } else { 0 };
    sys!(SYS_open_tree, dir, path.as_ptr(), 1u32 | libc::O_CLOEXEC as u32 | empty | recursive)
        as i32
}

/// Attaches the detached `mount` at `path` below `dir`.
pub fn attach(mount: i32, dir: i32, path: &CStr) {
    let to_empty = if path.is_empty() { MOVE_TO_EMPTY } else { 0 };
    sys!(SYS_move_mount, mount, c"".as_ptr(), dir, path.as_ptr(), MOVE_EMPTY | to_empty);
    sys!(SYS_close, mount);
}

/// `mount_setattr` on the mount that `fd` is the root of.
pub fn set_attributes(fd: i32, set: u64, propagation: u64, recursive: bool) {
    let attributes: [u64; 4] = [set, 0, propagation, 0];
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    sys!(SYS_mount_setattr, fd, c"".as_ptr(), flags, attributes.as_ptr(), 32usize);
}

/// Opens `path` below `dir` with `flags`, `O_CLOEXEC` added; None when it does not exist.
pub fn open(dir: i32, path: &CStr, flags: i32) -> Option<i32> {
    // SAFETY: `path` lives through the call.
    let fd = unsafe { libc::openat(dir, path.as_ptr(), flags | libc::O_CLOEXEC) };
    if fd < 0 && Error::last_os_error().raw_os_error() == Some(libc::ENOENT) {
        return None;
    }
    Some(must(i64::from(fd), "openat") as i32)
}

/// One `write` of `text`.
pub fn write(fd: i32, text: &[u8]) {
    sys!(SYS_write, fd, text.as_ptr(), text.len());
}
