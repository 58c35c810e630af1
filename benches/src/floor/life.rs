//! One container's life: the parent's list and the child's list.

use std::ffi::{CStr, CString};

use crate::cgroups::{self, Group, Hierarchy, Join};
use crate::filter;
use crate::kernel::{
    ATTR_NODEV, ATTR_NOEXEC, ATTR_NOSUID, ATTR_RDONLY, ATTR_STRICTATIME, CloneArgs, attach,
    copy_of, devpts, filesystem, must, now, open, set_attributes, sys,
};

/// The phases, in the order of `life`'s answer. `total` is the parent's whole; the phases from
/// `join` to `exec` are the child's and follow one another.
pub const PHASES: [&str; 14] = [
    "total",
    "cgroup_make",
    "clone",
    "child_runs",
    "join",
    "network",
    "mounts",
    "devices",
    "masks",
    "pivot",
    "identity",
    "seccomp",
    "exec_to_exit",
    "cgroup_remove",
];

const MASKED: [&CStr; 11] = [
    c"proc/acpi",
    c"proc/asound",
    c"proc/kcore",
    c"proc/keys",
    c"proc/latency_stats",
    c"proc/timer_list",
    c"proc/timer_stats",
    c"proc/sched_debug",
    c"sys/firmware",
    c"sys/devices/virtual/powercap",
    c"proc/scsi",
];
const READ_ONLY: [&CStr; 5] =
    [c"proc/bus", c"proc/fs", c"proc/irq", c"proc/sys", c"proc/sysrq-trigger"];
const NODES: [(&CStr, u32, u32); 6] = [
    (c"null", 1, 3),
    (c"zero", 1, 5),
    (c"full", 1, 7),
    (c"tty", 5, 0),
    (c"random", 1, 8),
    (c"urandom", 1, 9),
];
const LINKS: [(&CStr, &CStr); 6] = [
    (c"/proc/self/fd", c"fd"),
    (c"/proc/self/fd/0", c"stdin"),
    (c"/proc/self/fd/1", c"stdout"),
    (c"/proc/self/fd/2", c"stderr"),
    (c"pts/ptmx", c"ptmx"),
    (c"/proc/kcore", c"core"),
];
/// The bundle's fourteen capabilities.
const CAPABILITIES: u64 = 0xa804_25fb;

/// What a life needs and what is not the kernel's cost: made before the clock starts.
#[derive(Debug)]
pub struct Ground {
    rootfs: CString,
    name: CString,
    join: Join,
    hierarchies: Vec<Hierarchy>,
    filter: Vec<libc::sock_filter>,
    /// The child's timestamps, in memory that both processes see.
    stamps: *mut f64,
}

impl Ground {
    pub fn new(rootfs: CString, name: CString, join: Join) -> Self {
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
        let stamps =
            sys!(SYS_mmap, 0usize, 4096usize, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0)
                as *mut f64;
        Ground {
            rootfs,
            name,
            join,
            hierarchies: cgroups::hierarchies(),
            filter: filter::program(),
            stamps,
        }
    }

    fn stamp(&self, index: usize) {
        // SAFETY: the shared page holds 512 stamps and fewer than 16 are used.
        unsafe { self.stamps.add(index).write_volatile(now()) }
    }

    fn stamped(&self, index: usize) -> f64 {
        // SAFETY: as above.
        unsafe { self.stamps.add(index).read_volatile() }
    }
}

/// Makes a container, runs `/bin/true` in it, removes it. Microseconds by `PHASES`.
pub fn life(ground: &Ground) -> Vec<f64> {
    let begin = now();
    let groups = cgroups::make(&ground.hierarchies, &ground.name, ground.join);
    let mut pair = [0i32; 2];
    sys!(
        SYS_socketpair,
        libc::AF_UNIX,
        libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC,
        0,
        pair.as_mut_ptr()
    );
    let made = now();

    let mut pidfd = -1i32;
    let flags = libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS;
    let arguments = CloneArgs {
        flags: (flags | libc::CLONE_PIDFD) as u64,
        pidfd: &raw mut pidfd as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    let pid = sys!(SYS_clone3, &raw const arguments, size_of::<CloneArgs>());
    if pid == 0 {
        sys!(SYS_close, pair[0]);
        child(ground, &groups, pair[1]);
    }
    let cloned = now();
    sys!(SYS_close, pair[1]);
    if ground.join == Join::Procs {
        cgroups::join(&groups, pid);
        sys!(SYS_write, pair[0], c"j".as_ptr(), 1usize);
    }
    gate(pair[0], true);

    let mut info = [0u8; 128];
    sys!(SYS_waitid, libc::P_PIDFD, pidfd, info.as_mut_ptr(), libc::WEXITED, 0usize);
    let exited = now();
    let code = i32::from_ne_bytes([info[8], info[9], info[10], info[11]]);
    let status = i32::from_ne_bytes([info[24], info[25], info[26], info[27]]);
    must(i64::from(code == libc::CLD_EXITED && status == 0) - 1, "the container's process failed");
    sys!(SYS_close, pidfd);
    sys!(SYS_close, pair[0]);
    cgroups::remove(&groups, &ground.name);
    let end = now();

    let mut phases = vec![end - begin, made - begin, cloned - made, ground.stamped(0) - cloned];
    phases.extend((1..9).map(|index| ground.stamped(index) - ground.stamped(index - 1)));
    phases.extend([exited - ground.stamped(9), end - exited]);
    phases
}

/// The two messages of a gate: the child is ready, the parent lets it go.
fn gate(socket: i32, parent: bool) {
    let mut byte = [0u8; 1];
    if parent {
        sys!(SYS_read, socket, byte.as_mut_ptr(), 1usize);
        sys!(SYS_write, socket, byte.as_ptr(), 1usize);
    } else {
        sys!(SYS_write, socket, byte.as_ptr(), 1usize);
        sys!(SYS_read, socket, byte.as_mut_ptr(), 1usize);
    }
}

/// The child's list; ends in `execve`.
fn child(ground: &Ground, groups: &[Group], socket: i32) -> ! {
    ground.stamp(0);
    if ground.join == Join::Tasks {
        cgroups::join(groups, 0);
    } else {
        let mut byte = [0u8; 1];
        sys!(SYS_read, socket, byte.as_mut_ptr(), 1usize);
    }
    ground.stamp(1);
    loopback();
    ground.stamp(2);
    let rootfs = mounts(&ground.rootfs);
    ground.stamp(3);
    devices(rootfs);
    ground.stamp(4);
    masks(rootfs);
    ground.stamp(5);
    sys!(SYS_fchdir, rootfs);
    sys!(SYS_pivot_root, c".".as_ptr(), c".".as_ptr());
    sys!(SYS_umount2, c".".as_ptr(), libc::MNT_DETACH);
    sys!(SYS_chdir, c"/".as_ptr());
    ground.stamp(6);
    identity();
    ground.stamp(7);
    let program = libc::sock_fprog {
        len: ground.filter.len() as u16,
        filter: ground.filter.as_ptr().cast_mut(),
    };
    sys!(SYS_seccomp, 1u32, 0u32, &raw const program);
    ground.stamp(8);
    gate(socket, false);
    ground.stamp(9);
    let arguments = [c"/bin/true".as_ptr(), std::ptr::null()];
    let environment = [c"PATH=/usr/sbin:/usr/bin:/sbin:/bin".as_ptr(), std::ptr::null()];
    sys!(SYS_execve, c"/bin/true".as_ptr(), arguments.as_ptr(), environment.as_ptr());
    std::process::abort()
}

/// Brings `lo` up in the new network namespace.
fn loopback() {
    let socket = sys!(SYS_socket, libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
    let mut request = [0u8; 40]; // struct ifreq
    request[..2].copy_from_slice(b"lo");
    request[16] = libc::IFF_UP as u8;
    sys!(SYS_ioctl, socket, libc::SIOCSIFFLAGS, request.as_ptr());
    sys!(SYS_close, socket);
}

/// The root file system and the bundle's seven mounts on it.
fn mounts(path: &CStr) -> i32 {
    sys!(SYS_mount, c"".as_ptr(), c"/".as_ptr(), 0usize, libc::MS_REC | libc::MS_SLAVE, 0usize);
    let rootfs = copy_of(libc::AT_FDCWD, path, true);
    sys!(SYS_move_mount, rootfs, c"".as_ptr(), libc::AT_FDCWD, path.as_ptr(), 0x4u32);
    let closed = ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC;
    let open_tmpfs = ATTR_NOSUID | ATTR_STRICTATIME;
    let size: (&CStr, &CStr) = (c"size", c"65536k");
    attach(filesystem(c"proc", &[], closed), rootfs, c"proc");
    attach(filesystem(c"tmpfs", &[(c"mode", c"755"), size], open_tmpfs), rootfs, c"dev");
    for directory in [c"dev/pts", c"dev/shm", c"dev/mqueue"] {
        sys!(SYS_mkdirat, rootfs, directory.as_ptr(), 0o755);
    }
    attach(devpts(ATTR_NOSUID | ATTR_NOEXEC), rootfs, c"dev/pts");
    attach(filesystem(c"tmpfs", &[(c"mode", c"1777"), size], closed), rootfs, c"dev/shm");
    attach(filesystem(c"mqueue", &[], closed), rootfs, c"dev/mqueue");
    attach(filesystem(c"sysfs", &[], closed | ATTR_RDONLY), rootfs, c"sys");
    attach(filesystem(c"tmpfs", &[(c"mode", c"755"), size], open_tmpfs), rootfs, c"run");
    rootfs
}

/// Nodes and links in `/dev`.
fn devices(rootfs: i32) {
    let dev = open(rootfs, c"dev", libc::O_PATH).unwrap_or(-1);
    sys!(SYS_umask, 0);
    for (name, major, minor) in NODES {
        sys!(SYS_mknodat, dev, name.as_ptr(), libc::S_IFCHR | 0o666, libc::makedev(major, minor));
    }
    for (target, name) in LINKS {
        sys!(SYS_symlinkat, target.as_ptr(), dev, name.as_ptr());
    }
    sys!(SYS_umask, 0o022);
    sys!(SYS_close, dev);
}

/// Masked and read-only paths that exist here.
fn masks(rootfs: i32) {
    let null = copy_of(rootfs, c"dev/null", false);
    let mut empty: Option<i32> = None;
    for path in MASKED {
        let Some(target) = open(rootfs, path, libc::O_PATH) else { continue };
        let cover = if is_directory(target) {
            let tmpfs = *empty
                .get_or_insert_with(|| filesystem(c"tmpfs", &[(c"nr_inodes", c"2")], ATTR_RDONLY));
            copy_of(tmpfs, c"", false)
        } else {
            copy_of(null, c"", false)
        };
        attach(cover, target, c"");
        sys!(SYS_close, target);
    }
    for path in READ_ONLY {
        let Some(target) = open(rootfs, path, libc::O_PATH) else { continue };
        let copy = copy_of(target, c"", true);
        set_attributes(copy, ATTR_RDONLY, 0, true);
        attach(copy, target, c"");
        sys!(SYS_close, target);
    }
}

fn is_directory(fd: i32) -> bool {
    // SAFETY: all zeroes is a valid `stat`, and the kernel fills it.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    sys!(SYS_newfstatat, fd, c"".as_ptr(), &raw mut stat, libc::AT_EMPTY_PATH);
    stat.st_mode & libc::S_IFMT == libc::S_IFDIR
}

/// Session, limits, ids, capabilities, no_new_privs, descriptors.
fn identity() {
    sys!(SYS_setsid);
    let limit: [u64; 2] = [1024, 1024];
    sys!(SYS_prlimit64, 0, libc::RLIMIT_NOFILE, limit.as_ptr(), 0usize);
    sys!(SYS_prctl, libc::PR_SET_NO_NEW_PRIVS, 1usize, 0usize, 0usize, 0usize);
    for capability in (0..41).filter(|bit| CAPABILITIES >> bit & 1 == 0) {
        sys!(SYS_prctl, libc::PR_CAPBSET_DROP, capability as usize, 0usize, 0usize, 0usize);
    }
    sys!(SYS_prctl, libc::PR_SET_KEEPCAPS, 1usize, 0usize, 0usize, 0usize);
    let groups = [0u32];
    sys!(SYS_setgroups, 1usize, groups.as_ptr());
    sys!(SYS_setresgid, 0, 0, 0);
    sys!(SYS_setresuid, 0, 0, 0);
    let header: [u32; 2] = [0x2008_0522, 0];
    let low = CAPABILITIES as u32;
    let data: [u32; 6] = [low, low, 0, 0, 0, 0];
    sys!(SYS_capset, header.as_ptr(), data.as_ptr());
    sys!(SYS_close_range, 3u32, u32::MAX, 4u32); // CLOSE_RANGE_CLOEXEC
}
