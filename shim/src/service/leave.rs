//! The shim's end when nobody has asked for it: the host goes down, or a bundle is gone.
//!
//! A shim that just left would leave its containers to nobody: no limit on their output, no exit
//! code, nothing that deletes them. So SIGTERM ends them first, and what is left of their bundles
//! is enough for `delete` to tell how. containerd asks that one as soon as it has lost us, or is back,
//! and then tells the exit and the deletion itself: from us they would come twice.

use std::path::Path;
use std::time::Duration;

use crate::server::{Alarm, Shim};

/// How often the bundles are looked at.
const BUNDLES: Duration = Duration::from_secs(5);

impl Shim {
    /// SIGTERM: every container is ended and deleted, then the shim leaves.
    pub fn end_everything(&mut self) {
        tracing::info!("asked to end: ending {} containers", self.containers.len());
        self.leave();
        let ids: Vec<String> = self.containers.keys().cloned().collect();
        for id in ids {
            self.end(&id, "the shim was told to end");
        }
    }

    /// Whether the end of a container is containerd's to tell: a shim that leaves has none, unless
    /// it is told to leave with them.
    pub(super) fn is_told_by_containerd(&self) -> bool {
        self.leaving.is_some()
    }

    /// Ends a container however far it has come.
    pub(super) fn end(&mut self, id: &str, why: &str) {
        if !self.abort(id, why) {
            // Without a create it was one that could not be taken back.
            self.take_back(id);
        }
    }

    /// Has the bundles looked at, again and again while there are containers. No inotify(7): root has
    /// 128 instances in all, and a node more shims than that.
    pub(super) fn watch_bundles(&mut self) {
        if !self.has_alarm(Alarm::Bundles) {
            self.set_alarm(Alarm::Bundles, BUNDLES);
        }
    }

    /// Deletes containers whose bundle is gone.
    pub fn look_after_bundles(&mut self) {
        if self.containers.is_empty() {
            return;
        }
        self.watch_bundles();
        let orphans: Vec<String> = self
            .containers
            .iter()
            .filter(|(_, container)| {
                is_gone(&container.bundle) && container.init.deletion.is_none()
            })
            .map(|(id, _)| id.clone())
            .collect();
        for id in orphans {
            tracing::warn!("the bundle of container {id} is gone: deleting the container");
            self.end(&id, "its bundle is gone");
        }
    }
}

/// A bundle that can't be looked at now (`EIO`, `ESTALE`, `EACCES`) may be there.
fn is_gone(bundle: &Path) -> bool {
    matches!(bundle.try_exists(), Ok(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_that_can_not_be_looked_at_is_not_gone() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!is_gone(dir.path()));
        let (gone, endless) = (dir.path().join("gone"), dir.path().join("endless"));
        assert!(is_gone(&gone));
        std::os::unix::fs::symlink(&endless, &endless).unwrap();
        assert!(!endless.exists() && !is_gone(&endless), "ELOOP");
    }
}
