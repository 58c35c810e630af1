//! The leak oracle: whatever a runtime makes must be gone when the test is over.
//!
//! Other people's work runs on the same machine, so the oracle looks only at what is certainly
//! ours: descendants of the harness (which is a subreaper, so an orphan comes to it), and whatever
//! carries the test's tag or directory in its name - processes in our cgroups, cgroup directories
//! in every hierarchy, mounts, names in /run, /tmp and /dev/shm. The state directory and the
//! runtime's TMPDIR must be empty, the harness must hold the descriptors it held before, and the
//! host's own names must be what they were. Leaks are reported, then removed, so
//! that one failure doesn't become twenty.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cgroups;
use crate::reaper::reap;

/// What was there before the test, and by which names its things are known.
#[derive(Debug)]
pub struct Oracle {
    tag: String,
    dir: PathBuf,
    descriptors: BTreeSet<String>,
    host: BTreeMap<&'static str, String>,
}

/// Makes the harness the parent of all orphans among its descendants.
pub fn adopt_orphans() {
    nix::sys::prctl::set_child_subreaper(true).expect("become a subreaper");
}

impl Oracle {
    /// Takes the snapshot.
    pub fn new(tag: &str, dir: &Path) -> Self {
        Self {
            tag: tag.to_owned(),
            dir: dir.to_owned(),
            descriptors: descriptors(),
            host: host_facts(),
        }
    }

    /// What is known of one container: its state, its processes, cgroups and mounts.
    pub fn traces_of(&self, id: &str, root: &Path) -> Vec<String> {
        let mut left = Vec::new();
        if root.join(id).exists() {
            left.push(format!("state directory {}", root.join(id).display()));
        }
        left.extend(settled(|| {
            reap();
            processes().iter().filter(|p| p.cgroup.contains(id)).map(Process::line).collect()
        }));
        left.extend(cgroups::tagged(id).iter().map(|path| format!("cgroup {}", path.display())));
        left.extend(mounts(|line| line.contains(id)));
        left
    }

    /// Lists everything that is left, removes it, and removes the test's directory.
    pub fn leaks(&self, root: &Path) -> Vec<String> {
        let mut leaks = settled(|| self.survivors().iter().map(Process::line).collect());
        self.end_survivors();
        for entry in names(root) {
            leaks.push(format!("state {entry}"));
        }
        for entry in names(&self.dir.join("tmp")) {
            leaks.push(format!("file in TMPDIR: {entry}"));
        }
        let left = cgroups::tagged(&self.tag);
        leaks.extend(left.iter().map(|path| format!("cgroup {}", path.display())));
        cgroups::remove(&left);
        let directory = self.dir.to_string_lossy().into_owned();
        let mine = |line: &str| line.contains(&directory) || line.contains(&self.tag);
        leaks.extend(mounts(mine));
        self.unmount(&directory);
        for place in ["/run", "/tmp", "/dev/shm"] {
            self.find_names(Path::new(place), 3, &mut leaks);
        }
        let now = descriptors();
        leaks.extend(now.difference(&self.descriptors).map(|fd| format!("harness fd {fd}")));
        for (name, value) in host_facts() {
            if self.host.get(name) != Some(&value) {
                leaks.push(format!("host {name} changed: {:?} to {value:?}", self.host.get(name)));
            }
        }
        if let Err(e) = fs::remove_dir_all(&self.dir) {
            leaks.push(format!("{}: {e}", self.dir.display()));
        }
        leaks
    }

    /// Kills what is left of our processes.
    pub fn end_survivors(&self) {
        for process in self.survivors() {
            let _ = kill(Pid::from_raw(process.pid), Signal::SIGKILL);
        }
        settled(|| self.survivors().iter().map(Process::line).collect());
    }

    /// Our descendants and whoever sits in our cgroups.
    fn survivors(&self) -> Vec<Process> {
        reap();
        let all = processes();
        let family = descendants(&all);
        let me = std::process::id() as i32;
        let ours =
            |p: &Process| p.pid != me && (family.contains(&p.pid) || p.cgroup.contains(&self.tag));
        all.into_iter().filter(ours).collect()
    }

    fn unmount(&self, directory: &str) {
        for _ in 0..64 {
            let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
            let mut points = table.lines().filter_map(|line| line.split(' ').nth(4));
            let Some(point) = points.rfind(|p| p.starts_with(directory)) else {
                return;
            };
            let _ = nix::mount::umount2(point, nix::mount::MntFlags::MNT_DETACH);
        }
    }

    fn find_names(&self, place: &Path, depth: u32, leaks: &mut Vec<String>) {
        let Ok(entries) = fs::read_dir(place) else { return };
        for entry in entries.flatten() {
            let path = entry.path();
            if path == self.dir {
                continue;
            }
            if entry.file_name().to_string_lossy().contains(&self.tag) {
                leaks.push(format!("name {}", path.display()));
                let _ = fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path));
            } else if depth > 1 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.find_names(&path, depth - 1, leaks);
            }
        }
    }
}

#[derive(Debug)]
struct Process {
    pid: i32,
    parent: i32,
    name: String,
    cgroup: String,
}

impl Process {
    fn line(&self) -> String {
        let words = fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).replace('\0', " ");
        format!("process {} (parent {}) {} {words}", self.pid, self.parent, self.name)
    }
}

/// What each of our descendants does now, for a command that hangs.
pub fn where_all_are() -> String {
    let all = processes();
    let family = descendants(&all);
    let tell = |process: &Process| {
        let read = |name| fs::read_to_string(format!("/proc/{}/{name}", process.pid));
        let read = |name| read(name).unwrap_or_default();
        let state = read("status").lines().nth(2).unwrap_or_default().to_owned();
        format!(
            "{}\n{state}\n{}{}{}",
            process.line(),
            read("syscall"),
            read("stack"),
            process.cgroup
        )
    };
    all.iter().filter(|it| family.contains(&it.pid)).map(tell).collect::<Vec<_>>().join("\n")
}

/// The harness and those below it.
fn descendants(all: &[Process]) -> BTreeSet<i32> {
    let mut family = BTreeSet::from([std::process::id() as i32]);
    loop {
        let before = family.len();
        let more: Vec<_> =
            all.iter().filter(|p| family.contains(&p.parent)).map(|p| p.pid).collect();
        family.extend(more);
        if family.len() == before {
            return family;
        }
    }
}

fn processes() -> Vec<Process> {
    let Ok(dir) = fs::read_dir("/proc") else { return Vec::new() };
    dir.flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            let (name, rest) = stat.split_once('(')?.1.rsplit_once(") ")?;
            let parent = rest.split(' ').nth(1)?.parse().ok()?;
            let cgroup = fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
            Some(Process { pid, parent, name: name.to_owned(), cgroup })
        })
        .collect()
}

/// Asks again until nothing is left or half a second has passed: an exit is not instantaneous.
fn settled(find: impl Fn() -> Vec<String>) -> Vec<String> {
    let end = Instant::now() + crate::driver::patience(Duration::from_millis(500));
    loop {
        let found = find();
        if found.is_empty() || Instant::now() > end {
            return found;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn mounts(mine: impl Fn(&str) -> bool) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table.lines().filter(|line| mine(line)).map(|line| format!("mount {line}")).collect()
}

fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    entries.flatten().map(|entry| entry.path().display().to_string()).collect()
}

fn descriptors() -> BTreeSet<String> {
    let Ok(dir) = fs::read_dir("/proc/self/fd") else { return BTreeSet::new() };
    dir.flatten()
        .filter_map(|entry| {
            let target = fs::read_link(entry.path()).ok()?;
            let line = format!("{} -> {}", entry.file_name().to_string_lossy(), target.display());
            (!line.ends_with("/fd")).then_some(line)
        })
        .collect()
}

fn host_facts() -> BTreeMap<&'static str, String> {
    BTreeMap::from([
        ("hostname", fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default()),
        ("domainname", fs::read_to_string("/proc/sys/kernel/domainname").unwrap_or_default()),
    ])
}
