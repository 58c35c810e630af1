//! What a test may not leave. All namespaces here are the suite's own, so whatever is new is ours.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use super::sandbox;
use crate::cgroups;
use crate::driver::patience;

/// What was there before the test.
#[derive(Debug)]
pub struct Snapshot {
    mounts: BTreeSet<(u32, String)>,
    names: BTreeSet<PathBuf>,
}

impl Snapshot {
    /// Looks around.
    pub fn take() -> Self {
        Self { mounts: mounts(), names: names(Path::new("/run"), Path::new("")) }
    }

    /// Everything that is left; dying things get some time.
    pub fn leaks(&self, dir: &Path) -> Vec<String> {
        let begun = Instant::now();
        loop {
            let left = self.left(dir);
            if left.is_empty() || begun.elapsed() > patience(Duration::from_secs(3)) {
                return left;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn left(&self, dir: &Path) -> Vec<String> {
        let mut left: Vec<_> = processes().into_iter().map(|(_, line)| line).collect();
        left.extend(mounts().difference(&self.mounts).map(|(_, point)| format!("mount {point}")));
        left.extend(groups().iter().map(|group| format!("cgroup {}", group.display())));
        let now = names(Path::new("/run"), dir);
        left.extend(now.difference(&self.names).map(|name| format!("name {}", name.display())));
        left.extend(specials(dir).iter().map(|name| format!("in the bundle: {}", name.display())));
        left
    }

    /// Ends and removes everything that is left, so that the next test starts clean.
    pub fn sweep(&self, dir: &Path) {
        for round in 0..50 {
            for group in groups() {
                fs::write(group.join("freezer.state"), "THAWED").ok();
                fs::write(group.join("cgroup.freeze"), "0").ok();
            }
            let alive = processes();
            for (pid, _) in &alive {
                let pid = Pid::from_raw(*pid);
                kill(pid, Signal::SIGKILL).ok();
                // A test that failed may have left one that it traced.
                waitpid(pid, Some(WaitPidFlag::WNOHANG)).ok();
            }
            if alive.is_empty() && round > 0 {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let new: Vec<_> = mounts().difference(&self.mounts).cloned().collect();
        for (_, point) in new.iter().rev() {
            nix::mount::umount2(point.as_str(), nix::mount::MntFlags::MNT_DETACH).ok();
        }
        cgroups::remove(&groups());
        for name in names(Path::new("/run"), dir).difference(&self.names) {
            fs::remove_file(name).or_else(|_| fs::remove_dir_all(name)).ok();
        }
    }
}

/// Every process of the pid namespace but its init and this one.
pub fn processes() -> Vec<(i32, String)> {
    let own = std::process::id() as i32;
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let mut all = Vec::new();
    for entry in entries.flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        if pid == 1 || pid == own {
            continue;
        }
        let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).replace('\0', " ");
        let stat: String = stat.chars().take(40).collect();
        all.push((pid, format!("process {stat} {words}")));
    }
    all
}

/// The cgroups below the parent of this run.
fn groups() -> Vec<PathBuf> {
    let parent = sandbox().cgroup.trim_start_matches('/');
    let below = |hierarchy: &cgroups::Hierarchy| {
        let entries = fs::read_dir(hierarchy.mount.join(parent)).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect::<Vec<_>>()
    };
    cgroups::hierarchies().iter().flat_map(below).collect()
}

/// Every mount of this process: its number and point.
fn mounts() -> BTreeSet<(u32, String)> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mount = |line: &str| {
        let words: Vec<_> = line.split(' ').collect();
        Some((words.first()?.parse().ok()?, (*words.get(4)?).to_owned()))
    };
    table.lines().filter_map(mount).collect()
}

/// Every name below `top` but the test's own directory. Directories that are made once and hold
/// the things of many containers are no leak.
fn names(top: &Path, own: &Path) -> BTreeSet<PathBuf> {
    let mut all = BTreeSet::new();
    for entry in fs::read_dir(top).into_iter().flatten().flatten() {
        let path = entry.path();
        let directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if path == own {
            continue;
        }
        if directory {
            all.extend(names(&path, own));
        }
        let depth = path.strip_prefix("/run").map_or(0, |rest| rest.components().count());
        if !directory || depth > 3 {
            all.insert(path);
        }
    }
    all
}

/// Sockets and FIFOs in the bundles, which only the daemon may put there.
fn specials(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for bundle in fs::read_dir(dir.join("b")).into_iter().flatten().flatten() {
        for entry in fs::read_dir(bundle.path()).into_iter().flatten().flatten() {
            let special = entry.file_type().is_ok_and(|kind| kind.is_fifo() || kind.is_socket());
            if special && entry.file_name() != "log" {
                all.push(entry.path());
            }
        }
    }
    all
}
