//! The shim's end when nobody has asked for it: the host goes down, or a bundle is gone.
//!
//! A shim that just left would leave its containers to nobody: no limit on their output, no exit
//! code, nothing that deletes them. So SIGTERM ends them first, and what is left of their bundles
//! is enough for `delete` to tell how. containerd asks that one as soon as it has lost us, or is back,
//! and then tells the exit and the deletion itself: from us they would come twice.

use std::path::Path;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use crate::poll::Interest;
use crate::server::{Shim, Source};

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
    fn end(&mut self, id: &str, why: &str) {
        if !self.abort(id, why) {
            self.take_back(id);
        }
    }

    /// Has a bundle's disappearance noticed.
    pub(super) fn watch_bundle(&mut self, id: &str, bundle: &Path) {
        if self.bundles.is_none() {
            let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK);
            self.bundles = inotify.ok().and_then(|inotify| {
                self.poller.watch(inotify, Source::Bundles.token(), Interest::Read).ok()
            });
        }
        let Some(bundles) = &self.bundles else { return };
        let gone = AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF;
        if let Err(errno) = bundles.get().add_watch(bundle, gone | AddWatchFlags::IN_ONESHOT) {
            tracing::debug!("watch bundle {} of {id}: {}", bundle.display(), errno.desc());
        }
    }

    /// Something happened to a bundle: a container without one is deleted.
    pub fn look_after_bundles(&mut self) {
        while let Some(bundles) = &self.bundles
            && bundles.get().read_events().is_ok_and(|events| !events.is_empty())
        {}
        let gone = |bundle: &Path| !bundle.exists();
        let orphans: Vec<String> = self
            .containers
            .iter()
            .filter(|(_, container)| gone(&container.bundle) && container.init.deletion.is_none())
            .map(|(id, _)| id.clone())
            .collect();
        for id in orphans {
            tracing::warn!("the bundle of container {id} is gone: deleting the container");
            self.end(&id, "its bundle is gone");
        }
    }
}
