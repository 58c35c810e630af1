//! cgroup paths, limits, device rules.

use std::path::{Component, Path};

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use crate::cgroup::devices::{Kind, Rules};
use crate::cgroup::plan::{Options, Place, Plan, place};
use crate::cgroup::{device_program, v1, v2};
use crate::spec;

/// A group is below where it starts, its name is of one line, and it stays where it is.
pub fn cgroup_path(data: &[u8]) {
    use std::os::unix::ffi::OsStrExt;
    let text = std::ffi::OsStr::from_bytes(data);
    let Ok(found) = place(Path::new(text)) else { return };
    let (Place::Absolute(below) | Place::Relative(below)) = &found;
    assert_eq!(matches!(found, Place::Absolute(_)), data.starts_with(b"/"));
    assert!(below.components().all(|part| matches!(part, Component::Normal(_))));
    assert!(below.components().count() > 0);
    assert!(!below.as_os_str().as_bytes().iter().any(|byte| matches!(byte, 0 | b'\n')));
    assert!(below.as_os_str().len() < 4096);
    assert_eq!(place(below).ok(), Some(Place::Relative(below.clone())));
    assert_eq!(place(&Path::new("/").join(below)).ok(), Some(Place::Absolute(below.clone())));
}

/// Limits that a plan accepts become writes to files of a cgroup's directory, of one line each but
/// for what is written as it came, the same ones each time.
pub fn resources(data: &[u8]) {
    let from = Path::new("resources.json");
    let Ok(parsed) = spec::parse_resources(data, from) else { return };
    let again = spec::parse_resources(&serde_json::to_vec(&parsed).unwrap(), from).unwrap();
    assert_eq!(parsed, again);
    let mut linux = oci_spec::runtime::Linux::default();
    linux.set_cgroups_path(None).set_resources(Some(parsed));
    let Ok(plan) = Plan::new(&linux, &Options { id: "fuzzed", ..Options::default() }) else {
        return;
    };
    for writes in [v1::writes(&plan.resources), v2::writes(&plan.resources)].into_iter().flatten() {
        for write in &writes {
            assert!(!write.file.contains(['/', '\0', '\n']), "{write:?}");
            assert!(write.file.contains('.') && write.file != "..", "{write:?}");
            let unified = write.json.starts_with("unified");
            assert!(unified || !write.value.contains('\n'), "{write:?}");
        }
    }
    super::units::limits(&plan.resources);
    if let Ok(writes) = v2::writes(&plan.resources) {
        for write in writes.iter().filter(|write| write.file == "cpu.weight") {
            if !write.json.starts_with("unified") {
                assert!((1..=10_000).contains(&write.value.parse::<u32>().unwrap()), "{write:?}");
            }
        }
    }
}

/// The program of device rules answers as the rules, read one by one, do.
pub fn devices(data: &[u8]) {
    let Ok(asked) = serde_json::from_slice::<Vec<LinuxDeviceCgroup>>(data) else { return };
    let Ok(rules) = Rules::new(&asked, &[]) else { return };
    let program = device_program::compile(&rules);
    let numbers = |number: fn(&LinuxDeviceCgroup) -> Option<i64>| {
        let own = asked.iter().filter_map(number).filter_map(|n| u32::try_from(n).ok());
        let mut all: Vec<u32> = own.flat_map(|n| [n, n.wrapping_add(1)]).take(8).collect();
        all.extend([1, 3, 5]);
        all
    };
    for major in numbers(LinuxDeviceCgroup::major) {
        for minor in numbers(LinuxDeviceCgroup::minor) {
            // The kernel has 12 bits for the major number and 20 for the minor one.
            let (major, minor) = (major & 0xfff, minor & 0xf_ffff);
            for kind in [Kind::Char, Kind::Block] {
                for bit in [1, 2, 4] {
                    let ours = device_program::machine::run(&program, kind, major, minor, bit);
                    let book = by_the_book(&asked, kind, major, minor, bit);
                    assert_eq!(ours, book, "{kind:?} {major}:{minor} {bit}");
                }
            }
        }
    }
}

fn by_the_book(asked: &[LinuxDeviceCgroup], kind: Kind, major: u32, minor: u32, bit: u8) -> bool {
    let letter = match bit {
        1 => 'm',
        2 => 'r',
        _ => 'w',
    };
    let always = match (kind, major, minor) {
        _ if bit == 1 => true,
        (Kind::Char, 1, 3 | 5 | 7 | 8 | 9) | (Kind::Char, 5, 0 | 2) => true,
        (Kind::Char, 136, _) | (Kind::Char, 10, 200) => true,
        _ => false,
    };
    let is = |asked: Option<i64>, number: u32| {
        asked.is_none_or(|asked| asked == -1 || asked == i64::from(number))
    };
    let speaks = |rule: &&LinuxDeviceCgroup| {
        let typ = rule.typ().unwrap_or(LinuxDeviceType::A);
        let same = match typ {
            LinuxDeviceType::C => kind == Kind::Char,
            LinuxDeviceType::B => kind == Kind::Block,
            _ => true,
        };
        let access = rule.access().as_deref().unwrap_or_default();
        same && is(rule.major(), major) && is(rule.minor(), minor) && access.contains(letter)
    };
    always || asked.iter().rev().find(speaks).is_some_and(LinuxDeviceCgroup::allow)
}
