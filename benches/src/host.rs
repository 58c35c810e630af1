//! What the benchmark changes on the host, and how it takes that back.
//!
//! crun 1.8 refuses a hybrid layout in which version 2 holds a controller. Each one listed in
//! `unified/cgroup.controllers` gets a version 1 mount of its own, as the others have; at the end
//! exactly these mounts go again. A hierarchy is only really given back when no dying group is
//! left in it, hence the patience of `restore`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::mount::{MsFlags, mount, umount};

const CGROUPS: &str = "/sys/fs/cgroup";

/// The host as a benchmark needs it.
#[derive(Debug)]
pub struct Host {
    mounted: Vec<PathBuf>,
    work: Vec<PathBuf>,
    groups: Vec<String>,
}

impl Host {
    /// Makes the work directories and mounts what crun misses. `groups` are the names that the
    /// subjects' groups begin with; their own `delete` leaves them only when it fails.
    ///
    /// # Errors
    /// Not root, a mount that is refused.
    pub fn prepare(work: &[&Path], groups: &[&str]) -> Result<Self, String> {
        if !nix::unistd::geteuid().is_root() {
            return Err("needs root: it makes containers".to_owned());
        }
        for work in work {
            std::fs::create_dir_all(work).map_err(|error| format!("make {work:?}: {error}"))?;
        }
        let mut host = Host {
            mounted: Vec::new(),
            work: work.iter().map(|path| path.to_path_buf()).collect(),
            groups: groups.iter().map(ToString::to_string).collect(),
        };
        let left = std::fs::read_to_string(format!("{CGROUPS}/unified/cgroup.controllers"))
            .unwrap_or_default();
        for controller in left.split_whitespace() {
            let target = Path::new(CGROUPS).join(controller);
            std::fs::create_dir_all(&target)
                .map_err(|error| format!("make {target:?}: {error}"))?;
            mount(Some("cgroup"), &target, Some("cgroup"), MsFlags::empty(), Some(controller))
                .map_err(|errno| format!("mount the {controller} controller for crun: {errno}"))?;
            host.mounted.push(target);
        }
        Ok(host)
    }

    /// Takes back what `prepare` did, and the groups of the benchmark.
    pub fn restore(&mut self) {
        for hierarchy in std::fs::read_dir(CGROUPS).into_iter().flatten().flatten() {
            let group = hierarchy.path().join("corten-bench");
            for child in std::fs::read_dir(&group).into_iter().flatten().flatten() {
                let name = child.file_name().to_string_lossy().into_owned();
                if child.path().is_dir() && self.groups.iter().any(|own| name.starts_with(own)) {
                    complain(remove_group(&child.path()), &child.path());
                }
            }
            // Another benchmark may run; the last one removes the parent.
            let _in_use = std::fs::remove_dir(&group);
        }
        for target in self.mounted.drain(..) {
            if !given_up(&target) {
                eprintln!("bench: {} has other groups by now and stays mounted", target.display());
                continue;
            }
            complain(umount(&target).map_err(std::io::Error::from), &target);
            complain(std::fs::remove_dir(&target), &target);
        }
        for work in &self.work {
            complain(std::fs::remove_dir_all(work), work);
        }
    }
}

/// A process that was killed just now is in its group for a moment more.
fn remove_group(group: &Path) -> std::io::Result<()> {
    let pause = || std::thread::sleep(Duration::from_millis(20));
    let busy = (0..50).map_while(|_| std::fs::remove_dir(group).err().map(|_| pause()));
    match busy.count() {
        50 => std::fs::remove_dir(group),
        _ => Ok(()),
    }
}

/// Waits until only the root group is left in the hierarchy at `target`: removed groups die in
/// the background, and an unmount before that would leave the hierarchy without a mount.
fn given_up(target: &Path) -> bool {
    let controller = target.file_name().unwrap_or_default().to_string_lossy();
    (0..40).any(|_| {
        std::thread::sleep(Duration::from_millis(100));
        let table = std::fs::read_to_string("/proc/cgroups").unwrap_or_default();
        let line = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        line.into_iter()
            .any(|fields| fields.first() == Some(&&*controller) && fields.get(2) == Some(&"1"))
    })
}

/// Clean-up goes on after a failure, but says so.
fn complain(result: std::io::Result<()>, path: &Path) {
    if let Err(error) = result {
        eprintln!("bench: clean up {}: {error}", path.display());
    }
}
