//! Taking the root file system apart.
//!
//! Order: a mount goes after everything that is mounted on it, as mountinfo's tree says; of two that
//! stand on the same one, that with the shorter path first, for it may hide the other. A mount that
//! could not be reached is tried again in the next pass, when what hid it is gone.
//!
//! Threat: the content of the root file system. The directory above it is held open, and the way from
//! there is walked without following any link; only the last step is a name, which umount2(2) does not
//! follow either. So what is unmounted is always at or below the root file system.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use corten::error::{Doing, Error, Result};
use corten::rootfs::path::{open_host, open_plain};
use nix::errno::Errno;
use nix::fcntl::readlink;
use nix::mount::{MntFlags, umount2};
use nix::unistd::fchdir;

use super::way::keep_cwd;

/// How often nothing may move, and how long we wait each time.
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(50);
/// Passes that move something: each takes what the one before had uncovered.
const PASSES: u32 = 1000;

/// Unmounts everything at `rootfs` and below it, what is stacked there and what is hidden too. What is
/// not mounted, or not there, is fine.
///
/// # Errors
/// The mount that stays, and why; `EBUSY` after 2.5 s.
pub fn unmount_all(rootfs: &Path) -> Result<()> {
    unmount(rootfs, |_| true, TRIES)
}

/// Unmounts the mounts with these ids, and what stands on them.
pub(super) fn undo(rootfs: &Path, made: &[u64]) -> Result<()> {
    if made.is_empty() {
        return Ok(());
    }
    unmount(rootfs, |line| line.iter().any(|id| made.contains(id)), TRIES)
}

/// The id of the mount that an fd was reached through.
pub(super) fn mount_id(fd: impl AsFd) -> Result<u64> {
    let path = format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd());
    let text = std::fs::read_to_string(&path).doing(|| format!("read {path}"))?;
    let id = text.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok());
    id.ok_or_else(|| Error::Failed(format!("{path} has no mnt_id")))
}

/// `ours` is given a mount's id and those of what it stands on, as far as they are below `rootfs`.
fn unmount(rootfs: &Path, ours: impl Fn(&[u64]) -> bool, tries: u32) -> Result<()> {
    let name = rootfs.file_name().unwrap_or_default();
    let above = match rootfs.parent() {
        Some(above) if !above.as_os_str().is_empty() => above,
        _ => Path::new("."),
    };
    let above = match open_host(above) {
        Err(Errno::ENOENT) => return Ok(()),
        opened => opened.doing(|| format!("open {above:?}"))?,
    };
    let way = format!("/proc/self/fd/{}", above.as_raw_fd());
    let whole = readlink(way.as_str()).doing(|| format!("read link {way}"))?;
    let whole = Path::new(&whole);
    let mut left = tries;
    for _ in 0..PASSES {
        let mounts = below(&whole.join(name), &ours)?;
        if mounts.is_empty() {
            return Ok(());
        }
        let mut stuck = None;
        let mut moved = false;
        for mount in &mounts {
            let path = mount.strip_prefix(whole).unwrap_or(mount);
            match unmount_one(&above, path)? {
                Ok(()) => moved = true,
                // The first is the deepest: what others stand on.
                Err(errno) => stuck = stuck.or(Some((mount, errno))),
            }
        }
        match stuck {
            Some((mount, errno)) if !moved => {
                left = left.saturating_sub(1);
                if left == 0 {
                    return Err(Error::sys(format!("unmount {mount:?}"), errno));
                }
                sleep(PAUSE);
            }
            _ => {}
        }
    }
    Err(Error::Failed(format!("unmount {rootfs:?}: new mounts appear all the time")))
}

fn unmount_one(above: &OwnedFd, path: &Path) -> Result<Result<(), Errno>> {
    let name = path.file_name().unwrap_or_default();
    let dir = path.parent().unwrap_or(Path::new(""));
    keep_cwd(|| {
        let there = open_plain(above, dir, libc::O_PATH | libc::O_DIRECTORY).and_then(fchdir);
        Ok(there.and_then(|()| umount2(name, MntFlags::UMOUNT_NOFOLLOW)))
    })
}

/// A line of mountinfo.
struct Line {
    id: u64,
    parent: u64,
    point: PathBuf,
}

/// The mount points at and below `top` in the order in which they can be unmounted.
fn below(top: &Path, ours: impl Fn(&[u64]) -> bool) -> Result<Vec<PathBuf>> {
    let path = "/proc/self/mountinfo";
    let text = std::fs::read(path).doing(|| format!("read {path}"))?;
    Ok(in_order(&text, top, ours))
}

/// The same, of a text like mountinfo.
pub(crate) fn in_order(text: &[u8], top: &Path, ours: impl Fn(&[u64]) -> bool) -> Vec<PathBuf> {
    let lines: Vec<Line> = text
        .split(|byte| *byte == b'\n')
        .filter_map(parse)
        .filter(|line| line.point.starts_with(top))
        .collect();
    let by_id: HashMap<u64, &Line> = lines.iter().rev().map(|line| (line.id, line)).collect();
    let mut found: Vec<(usize, &Line)> = lines
        .iter()
        .map(|line| (ancestry(line, &by_id), line))
        .filter(|(ids, _)| ours(ids))
        .map(|(ids, line)| (ids.len(), line))
        .collect();
    found.sort_by_key(|(depth, line)| (Reverse(*depth), line.point.as_os_str().len()));
    found.into_iter().map(|(_, line)| line.point.clone()).collect()
}

/// The ids of a mount and of those that it stands on.
fn ancestry(line: &Line, by_id: &HashMap<u64, &Line>) -> Vec<u64> {
    let mut ids = vec![line.id];
    let mut here = line;
    while let Some(parent) = by_id.get(&here.parent) {
        // The first of all mounts stands on itself; no kernel makes longer circles.
        if parent.id == here.id || ids.len() > by_id.len() {
            break;
        }
        ids.push(parent.id);
        here = parent;
    }
    ids
}

fn parse(line: &[u8]) -> Option<Line> {
    let mut fields = line.split(|byte| *byte == b' ');
    let number = |field: &[u8]| std::str::from_utf8(field).ok()?.parse().ok();
    let (id, parent) = (number(fields.next()?)?, number(fields.next()?)?);
    Some(Line { id, parent, point: unescape(fields.nth(2)?).into() })
}

/// `\040` and its kind.
fn unescape(field: &[u8]) -> OsString {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((byte, after)) = rest.split_first() {
        let code = after.get(..3).filter(|_| *byte == b'\\');
        let code =
            code.and_then(|code| u8::from_str_radix(OsStr::from_bytes(code).to_str()?, 8).ok());
        match code {
            Some(code) => {
                plain.push(code);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                plain.push(*byte);
                rest = after;
            }
        }
    }
    OsString::from_vec(plain)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    /// With a search of all lines for each parent it would be minutes.
    #[test]
    fn mounts_on_mounts_are_put_in_order_in_no_time() {
        let text: String =
            (2..1500).map(|id| format!("{id} {} 0:1 / /r rw - t t rw\n", id - 1)).collect();
        let begun = Instant::now();
        let deepest = |ids: &[u64]| ids.len() == 1498;
        assert_eq!(in_order(text.as_bytes(), Path::new("/r"), deepest), [Path::new("/r")]);
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    }

    #[test]
    fn a_circle_of_mounts_has_an_end() {
        let text = b"1 2 0:1 / /r rw\n2 1 0:1 / /r/a rw\n3 3 0:1 / /r/b rw\n";
        assert_eq!(in_order(text, Path::new("/r"), |_| true).len(), 3);
    }
}
