//! Loop devices: the ioctls of `/dev/loop-control` and `/dev/loopN`, see loop(4).
//!
//! libc has none of these constants; they are kernel ABI and stand in `linux/loop.h`.

use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

use super::check;

const LOOP_SET_FD: libc::c_ulong = 0x4c00;
const LOOP_CLR_FD: libc::c_ulong = 0x4c01;
const LOOP_SET_STATUS64: libc::c_ulong = 0x4c04;
const LOOP_GET_STATUS64: libc::c_ulong = 0x4c05;
const LOOP_SET_DIRECT_IO: libc::c_ulong = 0x4c08;
const LOOP_CONFIGURE: libc::c_ulong = 0x4c0a;
const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4c82;

/// `LO_FLAGS_*`.
pub mod flag {
    /// The device can't be written.
    pub const READ_ONLY: u32 = 1;
    /// The device lets go of its file when nothing has it open or mounted any more.
    pub const AUTOCLEAR: u32 = 4;
    /// The file is read and written past the page cache.
    pub const DIRECT_IO: u32 = 16;
}

/// `struct loop_info64`.
#[repr(C)]
struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
struct Config {
    fd: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

const _: () = assert!(size_of::<Info>() == 232 && size_of::<Config>() == 304);

fn info(flags: u32, name: &[u8]) -> Info {
    // SAFETY: integers and arrays of integers, for which all zeroes is valid.
    let mut info: Info = unsafe { std::mem::zeroed() };
    info.flags = flags;
    // What losetup(8) shows; cut off, with a NUL.
    let shown = info.file_name.iter_mut().take(63).zip(name);
    shown.for_each(|(to, from)| *to = *from);
    info
}

/// `LOOP_CTL_GET_FREE`: the number of a device that was free a moment ago, made if there was none.
///
/// # Errors
/// The errno of the call.
pub fn find_free(control: impl AsFd) -> Result<u32, Errno> {
    // SAFETY: the request takes no argument.
    let ret = unsafe { libc::ioctl(control.as_fd().as_raw_fd(), LOOP_CTL_GET_FREE, 0) };
    check(ret.into()).and_then(|number| u32::try_from(number).map_err(|_| Errno::EINVAL))
}

/// `LOOP_CONFIGURE` (Linux 5.8): the device shows the file from now on. Before it, in the three
/// steps `LOOP_SET_FD`, `LOOP_SET_STATUS64`, `LOOP_SET_DIRECT_IO`.
///
/// # Errors
/// `EBUSY` when somebody else was faster.
pub fn configure(device: impl AsFd, file: impl AsFd, flags: u32, name: &[u8]) -> Result<(), Errno> {
    let (device, file) = (device.as_fd().as_raw_fd(), file.as_fd().as_raw_fd());
    let config =
        Config { fd: file as u32, block_size: 0, info: info(flags, name), reserved: [0; 8] };
    // SAFETY: the kernel reads one `struct loop_config`, which lives across the call.
    match check(unsafe { libc::ioctl(device, LOOP_CONFIGURE, &raw const config) }.into()) {
        Err(Errno::EINVAL | Errno::ENOTTY) => {}
        done => return done.map(drop),
    }
    // SAFETY: a plain descriptor as the argument.
    check(unsafe { libc::ioctl(device, LOOP_SET_FD, file) }.into())?;
    let finish = || -> Result<(), Errno> {
        // SAFETY: the kernel reads one `struct loop_info64`, which lives across the call.
        check(unsafe { libc::ioctl(device, LOOP_SET_STATUS64, &raw const config.info) }.into())?;
        if flags & flag::DIRECT_IO != 0 {
            // SAFETY: a plain integer as the argument.
            check(unsafe { libc::ioctl(device, LOOP_SET_DIRECT_IO, 1) }.into())?;
        }
        Ok(())
    };
    finish().inspect_err(|_| {
        // SAFETY: the request takes no argument.
        let _best_effort = unsafe { libc::ioctl(device, LOOP_CLR_FD, 0) };
    })
}

/// `LOOP_GET_STATUS64`: the device's `LO_FLAGS_*`.
///
/// # Errors
/// `ENXIO` when it shows no file.
pub fn flags(device: impl AsFd) -> Result<u32, Errno> {
    let mut info = info(0, b"");
    let device = device.as_fd().as_raw_fd();
    // SAFETY: the kernel writes one `struct loop_info64`, which lives across the call.
    check(unsafe { libc::ioctl(device, LOOP_GET_STATUS64, &raw mut info) }.into())?;
    Ok(info.flags)
}
