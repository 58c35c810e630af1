//! The container's groups in every version 1 hierarchy: made, limited, joined, removed.

use std::ffi::{CStr, CString};

use crate::kernel::{must, open, sys, write};

/// The files of one hierarchy, each with the values written to it in order.
type Files = &'static [(&'static CStr, &'static [&'static [u8]])];

/// The bundle's limits, by hierarchy.
const LIMITS: [(&str, Files); 4] = [
    ("memory", &[(c"memory.limit_in_bytes", &[b"268435456"])]),
    (
        "cpu",
        &[
            (c"cpu.shares", &[b"1024"]),
            (c"cpu.cfs_period_us", &[b"100000"]),
            (c"cpu.cfs_quota_us", &[b"50000"]),
        ],
    ),
    ("pids", &[(c"pids.max", &[b"100"])]),
    (
        "devices",
        &[
            (c"devices.deny", &[b"a"]),
            (
                c"devices.allow",
                &[
                    b"c *:* m",
                    b"b *:* m",
                    b"c 1:3 rwm",
                    b"c 1:8 rwm",
                    b"c 1:7 rwm",
                    b"c 5:0 rwm",
                    b"c 1:5 rwm",
                    b"c 1:9 rwm",
                    b"c 5:1 rwm",
                    b"c 136:* rwm",
                    b"c 5:2 rwm",
                ],
            ),
        ],
    ),
];

/// The common parent of the benchmark's groups, below each hierarchy's root.
const PARENT: &CStr = c"corten-bench";

/// One mounted version 1 hierarchy.
#[derive(Debug)]
pub struct Hierarchy {
    name: String,
    /// `mount point/corten-bench`
    parent: CString,
}

/// How a process gets into its groups: see `--join` in `main.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Join {
    Tasks,
    Procs,
}

/// A made group: where it is and the open file that takes members.
#[derive(Debug)]
pub struct Group {
    parent: i32,
    pub members: i32,
}

/// Every mounted version 1 hierarchy, with the common parent made in it (not timed: a host has
/// it already).
pub fn hierarchies() -> Vec<Hierarchy> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut all = Vec::new();
    for line in table.lines() {
        let Some((front, back)) = line.split_once(" - ") else { continue };
        let (Some(target), Some(options)) = (front.split(' ').nth(4), back.split(' ').nth(2))
        else {
            continue;
        };
        if !back.starts_with("cgroup ") {
            continue;
        }
        let name = options.rsplit(',').next().unwrap_or_default().to_owned();
        let Ok(parent) = CString::new(format!("{target}/{}", PARENT.to_string_lossy())) else {
            continue;
        };
        // An existing directory is as good as a new one; anything else shows at the first use.
        let _already_there = std::fs::create_dir(format!("{target}/{}", PARENT.to_string_lossy()));
        if name == "cpuset" {
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let above = std::fs::read_to_string(format!("{target}/{file}")).unwrap_or_default();
                let here = format!("{target}/{}/{file}", PARENT.to_string_lossy());
                must(i64::from(std::fs::write(here, above).is_ok()) - 1, "cpuset of the parent");
            }
        }
        all.push(Hierarchy { name, parent });
    }
    all
}

/// Makes and limits the group `name` everywhere and opens its member files.
pub fn make(all: &[Hierarchy], name: &CStr, join: Join) -> Vec<Group> {
    let members = if join == Join::Tasks { c"tasks" } else { c"cgroup.procs" };
    all.iter()
        .map(|hierarchy| {
            let parent = sys!(
                SYS_openat,
                libc::AT_FDCWD,
                hierarchy.parent.as_ptr(),
                libc::O_PATH | libc::O_CLOEXEC
            );
            let parent = parent as i32;
            sys!(SYS_mkdirat, parent, name.as_ptr(), 0o755);
            let group =
                sys!(SYS_openat, parent, name.as_ptr(), libc::O_PATH | libc::O_CLOEXEC) as i32;
            if hierarchy.name == "cpuset" {
                for file in [c"cpuset.cpus", c"cpuset.mems"] {
                    copy(parent, group, file);
                }
            }
            for (_, files) in LIMITS.iter().filter(|(name, _)| *name == hierarchy.name) {
                for (file, values) in *files {
                    let fd = open(group, file, libc::O_WRONLY).unwrap_or(-1);
                    for value in *values {
                        write(fd, value);
                    }
                    sys!(SYS_close, fd);
                }
            }
            let members = open(group, members, libc::O_WRONLY).unwrap_or(-1);
            sys!(SYS_close, group);
            Group { parent, members }
        })
        .collect()
}

/// Copies one small file from the parent group.
fn copy(parent: i32, group: i32, file: &CStr) {
    let mut text = [0u8; 256];
    let from = open(parent, file, libc::O_RDONLY).unwrap_or(-1);
    let length = sys!(SYS_read, from, text.as_mut_ptr(), text.len()) as usize;
    sys!(SYS_close, from);
    let to = open(group, file, libc::O_WRONLY).unwrap_or(-1);
    write(to, &text[..length]);
    sys!(SYS_close, to);
}

/// Moves `pid` (0: the caller) into every group.
pub fn join(groups: &[Group], pid: i64) {
    let pid = pid.to_string();
    for group in groups {
        write(group.members, pid.as_bytes());
    }
}

/// Removes the group everywhere; returns how often the kernel answered EBUSY.
pub fn remove(groups: &[Group], name: &CStr) -> u32 {
    let mut busy = 0;
    for group in groups {
        sys!(SYS_close, group.members);
        while nix::unistd::unlinkat(
            // The descriptor is ours until the line below closes it.
            borrowed(group.parent),
            name,
            nix::unistd::UnlinkatFlags::RemoveDir,
        )
        .is_err_and(|errno| {
            must(i64::from(errno == nix::errno::Errno::EBUSY) - 1, "rmdir of a cgroup") == 0
        }) {
            busy += 1;
        }
        sys!(SYS_close, group.parent);
    }
    busy
}

/// A raw descriptor as nix wants it.
fn borrowed<'fd>(fd: i32) -> std::os::fd::BorrowedFd<'fd> {
    // SAFETY: callers hand over descriptors that stay open for the call.
    unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) }
}
