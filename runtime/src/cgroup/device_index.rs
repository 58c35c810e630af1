//! Which of many device rules can speak about the same device as a new one.
//!
//! A manager writes dozens of rules, but we do not bound their number: the v1 files take any, and of
//! a v2 program the kernel says itself what is too much (Linux 6.18: between 5,000 and 20,000 rules of
//! full access, between 4,096 and 5,000 of partial). With this index a rule is compared with the few
//! that it meets instead of with all before it (20,000 rules: minutes).

use std::collections::HashMap;

use super::devices::{Device, Kind};

/// Places of rules in their list, by device.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// Rules about exactly this.
    at: HashMap<Device, Vec<usize>>,
    /// Rules about this or a part of it.
    below: HashMap<Device, Vec<usize>>,
    /// Rules by which numbers they give, of each kind.
    shapes: HashMap<(Kind, Shape), Vec<usize>>,
}

/// Whether a major and a minor number are given.
type Shape = (bool, bool);

/// The device, and what it is a part of: with `*` for each number that it gives.
fn covering(device: Device) -> impl Iterator<Item = Device> {
    let wider = [
        (true, Device { major: None, ..device }),
        (true, Device { minor: None, ..device }),
        (
            device.major.is_some() && device.minor.is_some(),
            Device { major: None, minor: None, ..device },
        ),
    ];
    let wider = wider.into_iter().filter(move |(new, wide)| *new && *wide != device);
    std::iter::once(device).chain(wider.map(|(_, wide)| wide))
}

impl Index {
    /// A rule about `device` is in this place.
    pub(super) fn insert(&mut self, device: Device, place: usize) {
        self.at.entry(device).or_default().push(place);
        for wide in covering(device) {
            self.below.entry(wide).or_default().push(place);
        }
        let shape = (device.major.is_some(), device.minor.is_some());
        self.shapes.entry((device.kind, shape)).or_default().push(place);
    }

    /// The places of all rules that can speak about a device of `device`, in order, each once. The
    /// places that are not `alive` any more are forgotten.
    pub(super) fn meeting(&mut self, device: Device, alive: impl Fn(usize) -> bool) -> Vec<usize> {
        let mut places = Vec::new();
        let mut take = |list: Option<&mut Vec<usize>>| {
            if let Some(list) = list {
                list.retain(|place| alive(*place));
                places.extend_from_slice(list);
            }
        };
        take(self.below.get_mut(&device));
        for wide in covering(device).skip(1) {
            take(self.at.get_mut(&wide));
        }
        // `1:*` and `*:3` meet in one device, and neither is a part of the other.
        if device.major.is_some() != device.minor.is_some() {
            let crossing = (device.major.is_none(), device.minor.is_none());
            take(self.shapes.get_mut(&(device.kind, crossing)));
        }
        places.sort_unstable();
        places
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn device() -> impl Strategy<Value = Device> {
        let number = || prop_oneof![Just(None), (0_u32..3).prop_map(Some)];
        let kind = prop_oneof![Just(Kind::Char), Just(Kind::Block)];
        (kind, number(), number()).prop_map(|(kind, major, minor)| Device { kind, major, minor })
    }

    proptest! {
        #[test]
        fn it_finds_what_a_search_of_all_finds(
            devices in proptest::collection::vec((device(), any::<bool>()), 0..40),
            asked in proptest::collection::vec(device(), 1..4),
        ) {
            let mut index = Index::default();
            for (place, (device, _)) in devices.iter().enumerate() {
                index.insert(*device, place);
            }
            for asked in asked {
                let searched: Vec<usize> = (0..devices.len())
                    .filter(|place| devices[*place].1 && devices[*place].0.overlaps(&asked))
                    .collect();
                prop_assert_eq!(index.meeting(asked, |place| devices[place].1), searched);
            }
        }
    }
}
