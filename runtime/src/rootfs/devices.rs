//! Devices of the plan: the default ones and `linux.devices`, in the kernel's words.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxDevice, LinuxDeviceType};

use super::path::clean;
use crate::{Error, Result};

/// A device node or a FIFO.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Relative to the root, cleaned.
    pub(super) path: PathBuf,
    /// `S_IFCHR`, `S_IFBLK` or `S_IFIFO`.
    pub(super) kind: u32,
    /// As `st_rdev` shows it.
    pub(super) rdev: u64,
    /// Permission bits.
    pub(super) mode: u32,
    /// In the container.
    pub(super) uid: u32,
    /// In the container.
    pub(super) gid: u32,
}

/// The devices that every container has (config-linux.md, "Default Devices"); `console` and `ptmx`
/// are not nodes of their own.
const DEFAULT_DEVICES: [(&str, u32, u32); 6] = [
    ("dev/null", 1, 3),
    ("dev/zero", 1, 5),
    ("dev/full", 1, 7),
    ("dev/random", 1, 8),
    ("dev/urandom", 1, 9),
    ("dev/tty", 5, 0),
];

/// The default devices, and those of `linux.devices`, which may replace them.
///
/// # Errors
/// [`Error::Config`] for a device that can't be made.
pub(super) fn all(asked: &[LinuxDevice]) -> Result<Vec<Device>> {
    let mut devices: Vec<Device> = DEFAULT_DEVICES
        .iter()
        .map(|(path, major, minor)| Device {
            path: PathBuf::from(path),
            kind: libc::S_IFCHR,
            rdev: libc::makedev(*major, *minor),
            mode: 0o666,
            uid: 0,
            gid: 0,
        })
        .collect();
    let mut places: HashMap<PathBuf, usize> =
        devices.iter().enumerate().map(|(place, device)| (device.path.clone(), place)).collect();
    for (index, device) in asked.iter().enumerate() {
        let device = Device::new(index, device)?;
        // /dev/ptmx is a link to the container's own devpts.
        if device.path == Path::new("dev/ptmx") {
            continue;
        }
        match places.get(&device.path).and_then(|place| devices.get_mut(*place)) {
            Some(known) => *known = device,
            None => {
                places.insert(device.path.clone(), devices.len());
                devices.push(device);
            }
        }
    }
    Ok(devices)
}

impl Device {
    /// Needs no privilege.
    pub(super) fn is_fifo(&self) -> bool {
        self.kind == libc::S_IFIFO
    }

    /// `c 1:3`, for messages.
    pub(super) fn shown(&self) -> String {
        let kind = match self.kind {
            libc::S_IFBLK => 'b',
            libc::S_IFIFO => return "FIFO".to_owned(),
            _ => 'c',
        };
        format!("{kind} {}:{}", libc::major(self.rdev), libc::minor(self.rdev))
    }

    fn new(index: usize, device: &LinuxDevice) -> Result<Self> {
        let json = |field: &str| format!("linux.devices[{index}].{field}");
        let path = clean(device.path());
        if path.as_os_str().is_empty() {
            return Err(Error::config(json("path"), "empty"));
        }
        let kind = match device.typ() {
            LinuxDeviceType::C | LinuxDeviceType::U => libc::S_IFCHR,
            LinuxDeviceType::B => libc::S_IFBLK,
            LinuxDeviceType::P => libc::S_IFIFO,
            LinuxDeviceType::A => {
                return Err(Error::config(json("type"), "\"a\" is not a device that can be made"));
            }
        };
        let number = |field, value: i64, most: u32| {
            u32::try_from(value).ok().filter(|value| *value <= most).ok_or_else(|| {
                Error::config(json(field), format!("{value} is not between 0 and {most}"))
            })
        };
        let rdev = if kind == libc::S_IFIFO {
            0
        } else {
            // What a parser makes of absent numbers; as a node it would be an overlay's whiteout.
            if (device.major(), device.minor()) == (0, 0) {
                return Err(Error::config(json("major"), "missing: 0:0 is no device"));
            }
            // dev_t in the kernel: 12 bits and 20 bits.
            let major = number("major", device.major(), 0xfff)?;
            libc::makedev(major, number("minor", device.minor(), 0xf_ffff)?)
        };
        Ok(Self {
            path,
            kind,
            rdev,
            mode: device.file_mode().unwrap_or(0o666) & 0o7777,
            uid: device.uid().unwrap_or(0),
            gid: device.gid().unwrap_or(0),
        })
    }
}
