//! `uidmap=` and `gidmap=`: the root file system of a pod with a user namespace, whose layers belong to
//! the host's ids and must be seen with the pod's (mount_setattr(2), `MOUNT_ATTR_IDMAP`).

use std::os::fd::{AsFd, OwnedFd};

use corten::error::{Doing, Error, Result};
use corten::rootfs::make_userns;
use corten::sys::mount::{MountAttr, attr, mount_setattr};
use oci_spec::runtime::{LinuxIdMapping, LinuxIdMappingBuilder};

/// Both maps of a mount.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Maps {
    uids: Vec<LinuxIdMapping>,
    gids: Vec<LinuxIdMapping>,
}

impl Maps {
    pub(super) fn parse(uids: Option<&str>, gids: Option<&str>) -> Result<Option<Self>> {
        match (uids, gids) {
            (None, None) => Ok(None),
            (Some(uids), Some(gids)) => {
                Ok(Some(Self { uids: ranges("uidmap", uids)?, gids: ranges("gidmap", gids)? }))
            }
            _ => Err(Error::Failed("options uidmap and gidmap come together".to_owned())),
        }
    }

    /// A user namespace with these maps.
    pub(super) fn userns(&self) -> Result<OwnedFd> {
        make_userns(&self.uids, &self.gids)
    }
}

/// Maps the identities of a detached tree.
pub(super) fn apply(tree: impl AsFd, recursive: bool, userns: &OwnedFd) -> Result<()> {
    let userns = Some(userns.as_fd());
    let what = MountAttr { set: attr::IDMAP, userns, ..MountAttr::default() };
    mount_setattr(tree, recursive, &what).doing(|| "map identities".to_owned())
}

/// `container:host:size`, separated by commas.
fn ranges(name: &str, text: &str) -> Result<Vec<LinuxIdMapping>> {
    text.split(',')
        .map(|range| {
            let bad =
                || Error::Failed(format!("{name}={text}: {range:?} is no CONTAINER:HOST:SIZE"));
            let numbers: Vec<u32> =
                range.split(':').map(str::parse).collect::<Result<_, _>>().map_err(|_| bad())?;
            let &[container, host, size] = numbers.as_slice() else { return Err(bad()) };
            LinuxIdMappingBuilder::default()
                .container_id(container)
                .host_id(host)
                .size(size)
                .build()
                .map_err(|_| bad())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ranges_are_the_numbers_that_were_written(numbers in proptest::collection::vec(any::<[u32; 3]>(), 1..5)) {
            let text: Vec<String> =
                numbers.iter().map(|[inside, outside, size]| format!("{inside}:{outside}:{size}")).collect();
            let read = ranges("uidmap", &text.join(",")).unwrap();
            let again: Vec<[u32; 3]> =
                read.iter().map(|range| [range.container_id(), range.host_id(), range.size()]).collect();
            prop_assert_eq!(again, numbers);
        }

        #[test]
        fn what_is_no_range_is_refused(text in "[0-9:, -]{0,8}") {
            let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let range = |text: &str| text.split(':').count() == 3 && text.split(':').all(number);
            prop_assert_eq!(ranges("gidmap", &text).is_ok(), text.split(',').all(range));
        }
    }
}
