//! What a finished suite may not leave: processes, mounts, interfaces, cgroups, runtime state.
//!
//! The sandbox makes this exact rather than a guess: its pid, mount and network namespaces and
//! its parent cgroup hold nothing that is not ours, so whatever is new after the managers have
//! stopped was forgotten by one of them, or by the runtime.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::command::Run;
use super::sandbox::Sandbox;
use super::{Stop, Verdict, eventually};

/// Groups that managers make once and keep.
const PARENTS: &[&str] = &["buildkit", "conmon"];

/// Whether a manager keeps that mount itself: dockerd's handle of the host's network namespace,
/// Podman's directory of network namespaces.
fn is_kept(target: &str) -> bool {
    target.ends_with("/exec/netns/default") || target == "/run/netns"
}

/// Whether Podman forgets that group: a pod's, in the hierarchies that it does not know.
fn is_pods(group: &Path) -> bool {
    let unknown = ["systemd", "unified"].iter().any(|name| {
        group.parent().and_then(Path::parent).is_some_and(|hierarchy| hierarchy.ends_with(name))
    });
    let podman = group.to_string_lossy().contains("-podman-");
    // The groups of its containers are called libpod-ID, the runtime's to remove.
    let id = group.file_name().is_some_and(|name| name.len() == 64);
    podman && unknown && id && children(group).next().is_none()
}

/// What was there before the managers started.
#[derive(Debug)]
pub struct Snapshot {
    mounts: BTreeSet<String>,
}

impl Snapshot {
    /// Reads the mount table of the sandbox.
    pub fn take() -> Result<Self, Stop> {
        Ok(Self { mounts: mounts()? })
    }
}

/// Fails with a list of everything that is left; dying things get some seconds.
pub fn find(before: &Snapshot, sandbox: &Sandbox) -> Verdict {
    let mut last = Vec::new();
    let found = eventually("everything gone", Duration::from_secs(10), || {
        last = left(before, sandbox)?;
        Ok(last.is_empty())
    });
    found.map_err(|_| Stop::Fail(format!("left behind:\n{}", last.join("\n"))))
}

fn left(before: &Snapshot, sandbox: &Sandbox) -> Result<Vec<String>, Stop> {
    let mut all = processes()?;
    let mounts = mounts()?;
    let new = mounts.difference(&before.mounts).filter(|target| !is_kept(target));
    all.extend(new.map(|target| format!("mount {target}")));
    for line in Run::new("ip").args(["-o", "link"]).ok()?.lines() {
        if line.contains(": veth") {
            all.push(format!("interface {line}"));
        }
    }
    for hierarchy in hierarchies()? {
        let parent = hierarchy.join(sandbox.cgroup.trim_start_matches('/'));
        let groups = children(&parent).flat_map(|group| {
            // BuildKit and Podman leave the parent of their groups, but nothing in it.
            let parent = PARENTS.iter().any(|&name| group.ends_with(name)) || is_pods(&group);
            if parent { children(&group).collect() } else { vec![group] }
        });
        all.extend(groups.map(|group| format!("cgroup {}", group.display())));
    }
    for root in state_roots(&sandbox.dir) {
        all.extend(children(&root).map(|state| format!("state {}", state.display())));
    }
    Ok(all)
}

/// Every process of the pid namespace but its init and this one.
fn processes() -> Result<Vec<String>, Stop> {
    let own = std::process::id();
    let mut all = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        if pid == 1 || pid == own {
            continue;
        }
        let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).replace('\0', " ");
        all.push(format!("process {pid} {words}"));
    }
    Ok(all)
}

/// Every mount point of this process.
fn mounts() -> Result<BTreeSet<String>, Stop> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(table.lines().filter_map(|line| line.split(' ').nth(4)).map(str::to_owned).collect())
}

/// Where the managers tell the runtime to keep its state.
fn state_roots(dir: &Path) -> Vec<PathBuf> {
    let mut roots: Vec<PathBuf> = ["/run", super::podman::USER_RUN]
        .iter()
        .flat_map(|run| [Path::new(run).join("corten"), Path::new(run).join("runc")])
        .collect();
    for daemon in children(&dir.join("docker")) {
        for runtime in children(&daemon.join("exec")) {
            let name = runtime.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with("runtime-") {
                roots.extend(children(&runtime));
            }
        }
    }
    roots.extend(children(&dir.join("state")));
    roots
}

/// The directories directly inside `dir`, none when it does not exist.
fn children(dir: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir() && !path.is_symlink())
}

/// The mount points of all cgroup hierarchies, v1 and v2.
pub fn hierarchies() -> Result<Vec<PathBuf>, Stop> {
    let table = fs::read_to_string("/proc/self/mounts")?;
    let mounts = table.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let target = words.next()?;
        words.next().filter(|kind| kind.starts_with("cgroup")).map(|_| PathBuf::from(target))
    });
    Ok(mounts.collect())
}

/// Removes a tree of cgroups, leaves first; what is still busy stays.
pub fn remove_groups(group: &Path) {
    // A killed process in a frozen group does not end.
    fs::write(group.join("freezer.state"), "THAWED").ok();
    for child in children(group) {
        remove_groups(&child);
    }
    fs::remove_dir(group).ok();
}
