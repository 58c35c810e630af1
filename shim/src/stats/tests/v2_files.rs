//! v2 in a scratch directory.

use super::*;

struct Scratch {
    tmp: tempfile::TempDir,
    files: BTreeMap<String, String>,
}

impl Scratch {
    fn new() -> Self {
        let text = include_str!("../../../testdata/cgroup-v2.txt");
        let sections = text.split("== ").skip(1).filter_map(|part| part.split_once('\n'));
        let files: BTreeMap<String, String> =
            sections.map(|(name, text)| (name.to_owned(), text.to_owned())).collect();
        let tmp = tempfile::tempdir().unwrap();
        for (name, text) in &files {
            std::fs::write(tmp.path().join(name), text).unwrap();
        }
        Self { tmp, files }
    }

    fn read(&self) -> MetricsV2 {
        v2::read_dir(&mut Reader::new(), &Dir::open(self.tmp.path()).unwrap()).unwrap()
    }

    fn without(&self, files: &[&str]) {
        for file in files {
            std::fs::remove_file(self.tmp.path().join(file)).unwrap();
        }
    }
}

#[test]
fn every_number_is_in_the_field_of_its_name() {
    let scratch = Scratch::new();
    let metrics = scratch.read();
    let mut memory = lines(&scratch.files["memory.stat"]);
    memory.extend([
        ("usage".to_owned(), 20_971_520),
        ("usage_limit".to_owned(), u64::MAX),
        ("max_usage".to_owned(), 31_457_280),
        ("swap_usage".to_owned(), 4096),
        ("swap_limit".to_owned(), 1_073_741_824),
        ("swap_max_usage".to_owned(), 8192),
    ]);
    let got = numbers(metrics.memory.get_or_default());
    assert_eq!(got.len(), 37);
    for (name, value) in got {
        // Two keys that Linux 5.9 has split.
        let old = ["workingset_refault", "workingset_activate"].contains(&name.as_str());
        assert_eq!(Some(value), if old { Some(0) } else { memory.get(&name).copied() }, "{name}");
    }
    let cpu = numbers(metrics.cpu.get_or_default());
    let mut stat = lines(&scratch.files["cpu.stat"]);
    stat.remove("core_sched.force_idle_usec");
    assert_eq!(cpu, stat);
    let events = numbers(metrics.memory_events.get_or_default());
    assert_eq!(events, lines(&scratch.files["memory.events"]));
    let pids = metrics.pids.get_or_default();
    assert_eq!((pids.current, pids.limit), (12, u64::MAX));
}

#[test]
fn what_linux_5_9_split_is_in_the_fields_that_newer_readers_have() {
    let scratch = Scratch::new();
    let stat = lines(&scratch.files["memory.stat"]);
    let metrics = scratch.read();
    let extra = metrics.memory.special_fields.unknown_fields();
    for (number, key) in [
        (39, "workingset_refault_anon"),
        (40, "workingset_refault_file"),
        (41, "workingset_activate_anon"),
        (42, "workingset_activate_file"),
    ] {
        let value = extra.get(number).map(|value| format!("{value:?}"));
        assert_eq!(value, Some(format!("Varint({})", stat[key])), "{key}");
    }
    let bytes = metrics.write_to_bytes().unwrap();
    assert_eq!(MetricsV2::parse_from_bytes(&bytes).unwrap(), metrics);
}

#[test]
fn pressure_and_devices() {
    let metrics = Scratch::new().read();
    for (psi, n) in [(&metrics.cpu.psi, 1), (&metrics.io.psi, 2), (&metrics.memory.psi, 3)] {
        let (some, full) = (psi.some.get_or_default(), psi.full.get_or_default());
        let n_f = f64::from(n);
        assert_eq!((some.avg10, some.avg60, some.avg300), (n_f + 0.25, n_f + 0.5, n_f + 0.75));
        assert_eq!((some.total, full.total), (n as u64 * 1000 + 1, n as u64 * 1000 + 2));
        assert!((full.avg300 - (n_f / 10.0 + 0.03)).abs() < 1e-9);
    }
    let io: Vec<_> = metrics.io.usage.iter().map(numbers).collect();
    assert_eq!(io.len(), 2);
    let named = |values: [u64; 6]| -> BTreeMap<String, u64> {
        let names = ["major", "minor", "rbytes", "wbytes", "rios", "wios"];
        names.map(str::to_owned).into_iter().zip(values).collect()
    };
    assert_eq!(io, [named([254, 0, 1, 2, 3, 4]), named([8, 16, 11, 12, 13, 14])]);
    let rdma = metrics.rdma.get_or_default();
    let entry = |list: &[containerd_shim_protos::cgroups_v2::metrics::RdmaEntry]| {
        list.iter().map(|e| (e.device.clone(), e.hca_handles, e.hca_objects)).collect::<Vec<_>>()
    };
    let (first, second) = ("mlx5_0".to_owned(), "mlx5_1".to_owned());
    assert_eq!(entry(&rdma.current), [(first.clone(), 2, 20), (second.clone(), 0, 0)]);
    assert_eq!(entry(&rdma.limit), [(first, 3, u32::MAX), (second, u32::MAX, u32::MAX)]);
    // This host's sizes, as the names of the files are made of them.
    for pages in &metrics.hugetlb {
        let n: u64 = if pages.pagesize == "2MB" { 1 } else { 2 };
        let max = if n == 1 { u64::MAX } else { 2_147_483_648 };
        assert_eq!((pages.current, pages.max), (n * 1_000_000 + 97_152, max));
        assert_eq!(pages.failcnt, n + 6);
    }
}

#[test]
fn what_is_missing_is_left_out() {
    let scratch = Scratch::new();
    scratch.without(&["memory.peak", "memory.swap.peak", "memory.pressure", "cpu.pressure"]);
    let metrics = scratch.read();
    assert_eq!((metrics.memory.max_usage, metrics.memory.usage), (0, 20_971_520));
    assert!(metrics.memory.psi.is_none() && metrics.cpu.psi.is_none());
    scratch.without(&["memory.stat", "memory.events", "pids.current", "rdma.current"]);
    scratch.without(&["io.stat", "io.pressure", "hugetlb.2MB.current", "hugetlb.1GB.current"]);
    let metrics = scratch.read();
    let rest = MetricsV2 { cpu: metrics.cpu.clone(), ..MetricsV2::default() };
    assert_eq!(metrics, rest);
    assert_eq!(metrics.cpu.usage_usec, 9001);
}
