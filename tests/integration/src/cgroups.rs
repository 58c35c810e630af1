//! The host's view of the containers' cgroups, v1, hybrid or v2.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// A mounted hierarchy.
#[derive(Debug, Clone)]
pub struct Hierarchy {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// Its controllers; empty for v2.
    pub controllers: Vec<String>,
    /// Whether it is the unified one.
    pub unified: bool,
}

/// All hierarchies mounted on this host.
pub fn hierarchies() -> &'static [Hierarchy] {
    static ALL: OnceLock<Vec<Hierarchy>> = OnceLock::new();
    ALL.get_or_init(|| {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        table.lines().filter_map(parse).filter(|h| h.mount.starts_with("/sys/fs/cgroup")).collect()
    })
}

fn parse(line: &str) -> Option<Hierarchy> {
    let (left, right) = line.split_once(" - ")?;
    let mut right = right.split(' ');
    let unified = match right.next()? {
        "cgroup" => false,
        "cgroup2" => true,
        _ => return None,
    };
    let controllers = match unified {
        true => Vec::new(),
        false => right.nth(1)?.split(',').filter(|o| *o != "rw").map(str::to_owned).collect(),
    };
    Some(Hierarchy { mount: left.split(' ').nth(4)?.into(), controllers, unified })
}

/// Whether controllers live on v2 here.
pub fn is_v2() -> bool {
    hierarchies().iter().any(|h| h.unified && h.mount == Path::new("/sys/fs/cgroup"))
}

/// The directory of the cgroup `path` in the hierarchy of `controller`; `None` if it isn't mounted.
pub fn directory(controller: &str, path: &str) -> Option<PathBuf> {
    let holds = |h: &&Hierarchy| {
        if is_v2() { h.unified } else { h.controllers.iter().any(|c| c == controller) }
    };
    Some(hierarchies().iter().find(holds)?.mount.join(path.trim_start_matches('/')))
}

/// Whether limits of `controller` can be set. A v2 tree beside v1 has no controllers.
pub fn has(controller: &str) -> bool {
    let Some(top) = directory(controller, &base()) else { return false };
    let handed_down = || fs::read_to_string(top.join("cgroup.controllers")).unwrap_or_default();
    !is_v2() || handed_down().split_whitespace().any(|it| it == controller)
}

/// Why a test that needs `controller` can't be done here, if it can't.
pub fn lack_of(controller: &str) -> Option<String> {
    (!has(controller)).then(|| format!("no cgroup controller {controller} here"))
}

/// The cgroup above those of all containers of this harness, in every hierarchy: at the top, or
/// below `CORTEN_TEST_CGROUP`. Under systemd that must be a delegated group, as systemd takes
/// controllers away from the groups of others; the processes of the harness are in a leaf of it.
pub fn parent() -> String {
    format!("{}/corten-test-{}", base(), std::process::id())
}

fn base() -> String {
    std::env::var("CORTEN_TEST_CGROUP").unwrap_or_default()
}

/// Removes the parent that the runtime made for us.
pub fn remove_parent() {
    for hierarchy in hierarchies() {
        let _ = fs::remove_dir(hierarchy.mount.join(parent().trim_start_matches('/')));
    }
}

/// Every cgroup whose name contains `tag`, in every hierarchy.
pub fn tagged(tag: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for hierarchy in hierarchies() {
        let depth = 4 + base().matches('/').count() as u32;
        search(&hierarchy.mount, tag, depth, &mut found);
    }
    found
}

fn search(dir: &Path, tag: &str, depth: u32, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten().filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir())) {
        if entry.file_name().to_string_lossy().contains(tag) {
            found.push(entry.path());
        } else if depth > 1 {
            search(&entry.path(), tag, depth - 1, found);
        }
    }
}

/// Removes cgroups with everything below them.
pub fn remove(paths: &[PathBuf]) {
    for path in paths {
        if let Ok(entries) = fs::read_dir(path) {
            let below: Vec<_> =
                entries.flatten().map(|e| e.path()).filter(|p| p.is_dir()).collect();
            remove(&below);
        }
        let _ = fs::write(path.join("freezer.state"), "THAWED");
        let _ = fs::write(path.join("cgroup.freeze"), "0");
        let _ = fs::remove_dir(path);
    }
}
