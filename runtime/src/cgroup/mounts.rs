//! What a mount of type `cgroup` inside the container shows.

use std::path::PathBuf;

use super::Cgroup;

/// One hierarchy, as the container sees it below its `/sys/fs/cgroup`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Directory below the mount: `cpu,cpuacct`, `systemd`; empty for v2, which is the mount.
    pub name: String,
    /// Symbolic links to it: `cpu` and `cpuacct`, when it has more than one controller.
    pub links: Vec<String>,
    /// The container's own group on the host: the source of a bind mount without a cgroup
    /// namespace, and the place where the v1 mount finds it.
    pub source: PathBuf,
    /// Mount data of a new mount of this hierarchy in the container's cgroup namespace:
    /// `cpu,cpuacct`, `none,name=systemd`; empty for v2.
    pub options: String,
    /// File system type `cgroup2`, not `cgroup`.
    pub v2: bool,
}

impl Cgroup {
    /// The hierarchies to show. On a hybrid host these are the v1 ones, as with runc.
    pub fn mounts_for_container(&self) -> Vec<Hierarchy> {
        let only_v2 = self.version == super::Version::V2;
        let shown = self.groups.iter().filter(|group| only_v2 || !group.is_v2());
        shown
            .map(|group| {
                let controllers = &group.at.controllers;
                let (name, options) = match controllers.strip_prefix("name=") {
                    Some(name) => (name.to_owned(), format!("none,{controllers}")),
                    None => (controllers.clone(), controllers.clone()),
                };
                let links = match controllers.contains(',') {
                    true => controllers.split(',').map(str::to_owned).collect(),
                    false => Vec::new(),
                };
                Hierarchy { name, links, source: group.path.clone(), options, v2: group.is_v2() }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::cgroup::{Cgroup, Location, Record, Version};

    #[test]
    fn joint_controllers_have_links_and_named_hierarchies_their_name() {
        let group = |controllers: &str, dir: &str| Location {
            controllers: controllers.to_owned(),
            mount: format!("/sys/fs/cgroup/{dir}").into(),
            path: "docker/x".into(),
            existed: false,
        };
        let groups = vec![
            group("cpu,cpuacct", "cpu,cpuacct"),
            group("name=systemd", "systemd"),
            group("", "unified"),
        ];
        let record = Record { version: Version::Hybrid, lenient: false, taken: true, groups };
        let shown = Cgroup::open(&record).mounts_for_container();
        let brief: Vec<_> = shown.iter().map(|h| (&*h.name, &*h.options, h.links.len())).collect();
        assert_eq!(brief, [("cpu,cpuacct", "cpu,cpuacct", 2), ("systemd", "none,name=systemd", 0)]);
        assert_eq!(shown[1].source.to_str(), Some("/sys/fs/cgroup/systemd/docker/x"));
    }
}
