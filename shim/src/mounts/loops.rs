//! `loop`: a file as a block device, for as long as it is mounted.
//!
//! The device lets go of the file by itself (`LO_FLAGS_AUTOCLEAR`) when nothing has it open any more:
//! we hold it until it is mounted, and after the unmount, or after a mount that failed, nobody does.

use std::os::fd::OwnedFd;
use std::thread::sleep;
use std::time::Duration;

use corten::error::{Doing, Error, Result};
use corten::sys::loopdev::{self, flag};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

/// Times that somebody else may take the device that was free a moment ago.
const RACES: u32 = 100;

/// A device that shows a file.
#[derive(Debug)]
pub(super) struct Loop {
    /// `/dev/loopN`.
    pub(super) path: String,
    _held: OwnedFd,
}

/// Finds a free device and makes it show `file`.
pub(super) fn attach(file: &str, flags: u32) -> Result<Loop> {
    let write = if flags & flag::READ_ONLY == 0 { OFlag::O_RDWR } else { OFlag::O_RDONLY };
    let open = |path: &str, write: OFlag| open(path, write | OFlag::O_CLOEXEC, Mode::empty());
    let backing = open(file, write).doing(|| format!("open {file:?}"))?;
    let control =
        open("/dev/loop-control", OFlag::O_RDWR).doing(|| "open /dev/loop-control".to_owned())?;
    for race in 0..RACES {
        let number =
            loopdev::find_free(&control).doing(|| "look for a free loop device".to_owned())?;
        let path = format!("/dev/loop{number}");
        let device = open(&path, write).doing(|| format!("open {path}"))?;
        match loopdev::configure(&device, &backing, flags, file.as_bytes()) {
            Ok(()) => return Ok(Loop { path, _held: device }),
            Err(Errno::EBUSY | Errno::EAGAIN) => {
                // Apart from the others, who look for one at the same moment.
                let apart = u64::from(std::process::id() % 7);
                sleep(Duration::from_millis(1 + apart + u64::from(race / 4)));
            }
            Err(errno) => return Err(Error::sys(format!("show {file:?} as {path}"), errno)),
        }
    }
    Err(Error::sys(format!("find a loop device for {file:?}, {RACES} times"), Errno::EBUSY))
}
