//! The options of a root file system mount, in the kernel's words.
//!
//! The flags are the runtime's own table (`corten::rootfs::options`), which knows every name that
//! containerd's has. Here stands what only containerd says: `loop` and `direct-io`, `uidmap=` and
//! `gidmap=`, and the options that its mount manager should have taken away.

use corten::error::{Error, Result};
use corten::rootfs::options::{Attrs, Options};
use corten::sys::loopdev::flag;
use corten::sys::mount::attr;

use super::idmap::Maps;

/// What the mount manager understands and nobody else.
const INTERNAL: &str = "X-containerd.";

/// The options of one mount.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    /// Flags, attributes, propagation, and what the file system understands.
    pub(crate) options: Options,
    /// The source is a file, to be shown as a device: its `LO_FLAGS_*`.
    pub(super) looped: Option<u32>,
    /// Identities are mapped.
    pub(super) maps: Option<Maps>,
}

impl Wanted {
    pub(crate) fn parse(words: &[String]) -> Result<Self> {
        let (mut looped, mut direct) = (false, false);
        let (mut uids, mut gids) = (None, None);
        let mut rest = Vec::new();
        let has_loop = words.iter().any(|word| word == "loop");
        for word in words {
            if word.starts_with(INTERNAL) {
                return Err(Error::Failed(format!(
                    "option {word:?} is for containerd's mount manager, which has not taken it"
                )));
            }
            match word.split_once('=') {
                _ if word == "loop" => looped = true,
                _ if word == "direct-io" && has_loop => direct = true,
                Some(("uidmap", map)) => uids = Some(map),
                Some(("gidmap", map)) => gids = Some(map),
                _ => rest.push(word.as_str()),
            }
        }
        let options = Options::parse(&rest);
        if options.copy_up || options.idmap.is_some() {
            let why = "options tmpcopyup, idmap and ridmap are not for a root file system";
            return Err(Error::Failed(why.to_owned()));
        }
        let looped = looped.then(|| {
            let read_only = options.attrs.set & attr::RDONLY != 0;
            flag::AUTOCLEAR
                | if read_only { flag::READ_ONLY } else { 0 }
                | if direct { flag::DIRECT_IO } else { 0 }
        });
        Ok(Self { options, looped, maps: Maps::parse(uids, gids)? })
    }

    /// The attributes that the mount itself ends up with: the recursive ones come second.
    pub(super) fn attrs(&self) -> u64 {
        let (own, all) = (self.options.attrs, self.options.recursive);
        own.set & !all.clear | all.set
    }

    /// What a bind mount changes: it may have less than its source and never more, so that `rw` or
    /// `suid` do not undo what the host has set, or try to where a user namespace has locked it.
    pub(super) fn bind_attrs(&self) -> (Attrs, Attrs) {
        let less = |attrs: Attrs| Attrs { set: attrs.set, clear: attrs.clear & attr::ATIME };
        (less(self.options.attrs), less(self.options.recursive))
    }
}
