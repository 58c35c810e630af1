//! Every field against the files, read in another way: v1 in groups of this machine,
//! `corten-stats-test-PID`, v2 in a scratch directory with the files of a Linux 6.1 host, where
//! every number is another one.
#![allow(clippy::disallowed_methods, reason = "test processes are ordinary children")]

mod v2_files;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use containerd_shim_protos::protobuf::reflect::ReflectValueBox;
use containerd_shim_protos::protobuf::{MessageDyn, MessageFull};
use corten::cgroup::dir::Dir;
use corten::cgroup::{Location, Record};
use nix::sys::signal::{Signal, kill};

use super::*;

/// A message's numbers by name.
fn numbers<M: MessageFull>(message: &M) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    for field in M::descriptor().fields() {
        if field.is_repeated_or_map() {
            continue;
        }
        let value = field.get_singular_field_or_default(message as &dyn MessageDyn).to_box();
        if let ReflectValueBox::U64(value) = value {
            found.insert(field.name().to_owned(), value);
        }
    }
    found
}

/// `key value` lines.
fn lines(text: &str) -> BTreeMap<String, u64> {
    let pair = |line: &str| {
        let mut words = line.split_whitespace();
        Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
    };
    text.lines().filter_map(pair).collect()
}

/// Groups in all of v1's hierarchies, gone after the test.
struct Own {
    record: Record,
    cgroup: Cgroup,
    children: Vec<Child>,
}

const MOUNT: &str = "/sys/fs/cgroup";

impl Own {
    /// `None` where the tests can't run.
    fn new(name: &str) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() || !Path::new(MOUNT).join("memory/tasks").exists() {
            eprintln!("skipped: needs root and cgroup v1");
            return None;
        }
        let below = format!("corten-stats-test-{}-{name}", std::process::id());
        let all = ["cpu", "cpuacct", "memory", "pids", "blkio", "hugetlb", "rdma", "freezer"];
        let mounted = all.into_iter().filter(|name| Path::new(MOUNT).join(name).is_dir());
        let groups = mounted.map(|name| Location {
            controllers: name.to_owned(),
            mount: Path::new(MOUNT).join(name),
            path: PathBuf::from(&below),
            existed: false,
        });
        let groups: Vec<Location> = groups.collect();
        let record =
            Record { version: Version::Hybrid, lenient: false, taken: true, unit: None, groups };
        for group in &record.groups {
            std::fs::create_dir(group.mount.join(&group.path)).unwrap();
        }
        Some(Self { cgroup: Cgroup::open(&record), record, children: Vec::new() })
    }

    fn file(&self, name: &str) -> PathBuf {
        let controller = name.split('.').next().unwrap();
        let group = self.record.groups.iter().find(|group| group.controllers == controller);
        let group = group.unwrap();
        group.mount.join(&group.path).join(name)
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.file(name)).unwrap_or_default()
    }

    fn number(&self, name: &str) -> u64 {
        self.text(name).trim().parse().unwrap()
    }

    fn write(&self, name: &str, value: &str) {
        std::fs::write(self.file(name), value).unwrap();
    }

    /// A shell in the groups, which stops itself at the end of `script`.
    fn stopped_shell(&mut self, script: &str) -> Pid {
        let script = format!("read go; {script}; kill -STOP $$; sleep 1000");
        let mut command = Command::new("sh");
        command.args(["-c", &script]).stdin(Stdio::piped());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let pid = Pid::from_raw(child.id() as i32);
        self.cgroup.join(pid, false).unwrap();
        drop(child.stdin.take());
        self.children.push(child);
        let end = Instant::now() + Duration::from_secs(20);
        while !std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap().contains(") T ") {
            assert!(Instant::now() < end, "the shell does not stop");
            std::thread::sleep(Duration::from_millis(5));
        }
        pid
    }

    fn metrics(&self, init: Option<Pid>) -> MetricsV1 {
        let any = metrics(&self.cgroup, init).unwrap().unwrap();
        assert_eq!(any.type_url, "io.containerd.cgroups.v1.Metrics");
        MetricsV1::parse_from_bytes(&any.value).unwrap()
    }

    /// The metrics, and what the files say, read while nothing changed.
    fn together(&self, files: &[&str]) -> (MetricsV1, BTreeMap<String, String>) {
        let read = || -> BTreeMap<String, String> {
            files.iter().map(|file| ((*file).to_owned(), self.text(file))).collect()
        };
        while_still(read, || self.metrics(None), |_| true)
    }
}

/// The metrics, and what the files said before and after.
fn while_still<F: PartialEq>(
    files: impl Fn() -> F,
    metrics: impl Fn() -> MetricsV1,
    enough: impl Fn(&MetricsV1) -> bool,
) -> (MetricsV1, F) {
    for _ in 0..100 {
        let (before, metrics, after) = (files(), metrics(), files());
        if before == after && enough(&metrics) {
            return (metrics, after);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("the files never stand still");
}

impl Drop for Own {
    fn drop(&mut self) {
        for child in &mut self.children {
            kill(Pid::from_raw(child.id() as i32), Signal::SIGCONT).ok();
        }
        drop(self.cgroup.kill_all(Duration::from_secs(10)));
        for child in &mut self.children {
            drop(child.wait());
        }
        drop(self.cgroup.remove());
    }
}

#[test]
fn v1_memory_has_every_number_of_its_files() {
    let Some(mut own) = Own::new("memory") else { return };
    own.write("memory.limit_in_bytes", "67108864");
    let tmp = tempfile::tempdir().unwrap();
    let file = tmp.path().join("file").display().to_string();
    own.stopped_shell(&format!("dd if=/dev/zero of={file} bs=1M count=4; a=$(seq 100000)"));
    let (metrics, files) = own.together(&["memory.stat", "memory.usage_in_bytes"]);
    let memory = metrics.memory.get_or_default();
    let stat = lines(&files["memory.stat"]);
    let got = numbers(memory);
    assert_eq!(got.len(), 32);
    for (name, value) in &got {
        let key = name.replace("pg_pg_", "pgpg").replace("pg_maj_fault", "pgmajfault");
        let key = key.replace("pg_fault", "pgfault").replace("swap_limit", "memsw_limit");
        assert_eq!(Some(value), stat.get(&key), "{name} is {key}");
    }
    assert!(memory.rss > 0 && memory.total_pg_fault > 0 && memory.cache >= 4 << 20);
    for (entry, infix) in [
        (&memory.usage, ""),
        (&memory.swap, "memsw."),
        (&memory.kernel, "kmem."),
        (&memory.kernel_tcp, "kmem.tcp."),
    ] {
        let entry = entry.as_ref().unwrap();
        let value = |name: &str| {
            let file = own.file(&format!("memory.{infix}{name}"));
            std::fs::read_to_string(file).map_or(0, |text| text.trim().parse().unwrap())
        };
        assert_eq!(entry.limit, value("limit_in_bytes"), "{infix}");
        assert_eq!(entry.max, value("max_usage_in_bytes"), "{infix}");
        assert_eq!(entry.failcnt, value("failcnt"), "{infix}");
    }
    let usage: u64 = files["memory.usage_in_bytes"].trim().parse().unwrap();
    assert_eq!((memory.usage.usage, memory.usage.limit), (usage, 67_108_864));
    // What the CRI calls the working set.
    assert!(memory.usage.usage > memory.total_inactive_file);
    assert!(memory.usage.max >= memory.usage.usage);
    let control = lines(&own.text("memory.oom_control"));
    assert_eq!(numbers(metrics.memory_oom_control.get_or_default()), control);
}

#[test]
fn v1_processor_processes_and_pages() {
    let Some(mut own) = Own::new("cpu") else { return };
    // So little that it is used up on a busy machine, too.
    own.write("cpu.cfs_quota_us", "2000");
    own.write("pids.max", "77");
    own.stopped_shell("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done");
    let names = ["cpu.stat", "cpuacct.usage", "cpuacct.stat", "cpuacct.usage_percpu"];
    let (metrics, files) = own.together(&names);
    let (usage, throttling) = (&metrics.cpu.usage, &metrics.cpu.throttling);
    assert_eq!(usage.total, files["cpuacct.usage"].trim().parse::<u64>().unwrap());
    assert!(usage.total > 5_000_000, "nanoseconds: {}", usage.total);
    let stat = lines(&files["cpuacct.stat"]);
    assert_eq!(
        (usage.user, usage.kernel),
        (stat["user"] * 10_000_000, stat["system"] * 10_000_000)
    );
    let each: Vec<u64> =
        files["cpuacct.usage_percpu"].split_whitespace().map(|n| n.parse().unwrap()).collect();
    assert_eq!(usage.per_cpu, each);
    let stat = lines(&files["cpu.stat"]);
    assert_eq!(throttling.periods, stat["nr_periods"]);
    assert_eq!(throttling.throttled_periods, stat["nr_throttled"]);
    assert_eq!(throttling.throttled_time, stat["throttled_time"]);
    assert!(throttling.throttled_time > 0);
    assert_eq!((metrics.pids.current, metrics.pids.limit), (1, 77));
    own.write("pids.max", "max");
    assert_eq!(own.metrics(None).pids.limit, 0, "as in containerd, on v1 only");
    for pages in &metrics.hugetlb {
        let value = |name: &str| own.number(&format!("hugetlb.{}.{name}", pages.pagesize));
        assert_eq!(pages.usage, value("usage_in_bytes"));
        assert_eq!(pages.max, value("max_usage_in_bytes"));
        assert_eq!(pages.failcnt, value("failcnt"));
    }
    let sizes = std::fs::read_dir("/sys/kernel/mm/hugepages").map_or(0, Iterator::count);
    assert_eq!(metrics.hugetlb.len(), sizes);
}

#[test]
fn v1_block_devices_have_numbers_and_names() {
    let Some(mut own) = Own::new("blkio") else { return };
    let partitions = std::fs::read_to_string("/proc/partitions").unwrap();
    // Other tests come and go with loop devices.
    let mut lines =
        partitions.lines().skip(2).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let words = lines.find(|words| !words[3].starts_with("loop"));
    let Some([major, minor, _, disk]) = words.as_deref() else {
        eprintln!("skipped: no block device");
        return;
    };
    own.stopped_shell(&format!("dd if=/dev/{disk} of=/dev/null bs=4k count=5 iflag=direct"));
    let blkio = own.metrics(None).blkio;
    if blkio.io_service_bytes_recursive.is_empty() {
        eprintln!("skipped: /dev/{disk} is not counted");
        return;
    }
    // The file, word for word. (Not what dd has read: the kernel may lay the first on the parent.)
    let check = |file: &str, list: &[containerd_shim_protos::cgroups::metrics::BlkIOEntry]| {
        let ours = format!("{major}:{minor} ");
        let mut entries = list.iter().filter(|entry| entry.device == format!("/dev/{disk}"));
        for line in own.text(file).lines().filter(|line| line.starts_with(&ours)) {
            let entry = entries.next().unwrap();
            let told = format!("{}:{} {} {}", entry.major, entry.minor, entry.op, entry.value);
            assert_eq!(told, line, "{file}");
        }
        assert!(entries.next().is_none());
        assert!(list.iter().any(|entry| entry.op == "Read" && entry.value > 0), "{file}");
    };
    let scheduled = own.text("blkio.bfq.io_service_bytes_recursive").contains(" Read ");
    let who = if scheduled { "bfq" } else { "throttle" };
    let file = |name| format!("blkio.{who}.{name}_recursive");
    check(&file("io_service_bytes"), &blkio.io_service_bytes_recursive);
    check(&file("io_serviced"), &blkio.io_serviced_recursive);
}

/// What this machine's v1 lacks: the scheduler of old kernels, and rdma.
#[test]
fn v1_has_eight_lists_of_block_devices_and_rdma() {
    let tmp = tempfile::tempdir().unwrap();
    let write = |file: &str, text: &str| std::fs::write(tmp.path().join(file), text).unwrap();
    let lists = [
        "io_service_bytes",
        "io_serviced",
        "io_queued",
        "io_service_time",
        "io_wait_time",
        "io_merged",
        "time",
        "sectors",
    ];
    for (n, list) in lists.iter().enumerate() {
        let op = if n < 6 { "Read " } else { "" };
        write(&format!("blkio.{list}_recursive"), &format!("8:{n} {op}{n}7\nTotal {n}7\n"));
        write(&format!("blkio.throttle.{list}_recursive"), "8:99 Read 99\n");
    }
    write("rdma.current", "mlx5_0 hca_handle=2 hca_object=20\n");
    write("rdma.max", "mlx5_0 hca_handle=max hca_object=30\n");
    let at = Location {
        controllers: "blkio,rdma".to_owned(),
        mount: tmp.path().parent().unwrap().into(),
        path: tmp.path().file_name().unwrap().into(),
        existed: false,
    };
    let record =
        Record { version: Version::V1, lenient: false, taken: true, unit: None, groups: vec![at] };
    let any = metrics(&Cgroup::open(&record), None).unwrap().unwrap();
    let metrics = MetricsV1::parse_from_bytes(&any.value).unwrap();
    let blkio = metrics.blkio.get_or_default();
    let all = [
        &blkio.io_service_bytes_recursive,
        &blkio.io_serviced_recursive,
        &blkio.io_queued_recursive,
        &blkio.io_service_time_recursive,
        &blkio.io_wait_time_recursive,
        &blkio.io_merged_recursive,
        &blkio.io_time_recursive,
        &blkio.sectors_recursive,
    ];
    for (n, list) in all.into_iter().enumerate() {
        let [entry] = list.as_slice() else { panic!("{list:?}") };
        let op = if n < 6 { "Read" } else { "" };
        assert_eq!((entry.major, entry.minor, entry.op.as_str()), (8, n as u64, op));
        assert_eq!(entry.value, n as u64 * 10 + 7);
    }
    let rdma = |list: &[containerd_shim_protos::cgroups::metrics::RdmaEntry]| {
        list.iter().map(|e| (e.device.clone(), e.hca_handles, e.hca_objects)).collect::<Vec<_>>()
    };
    assert_eq!(rdma(&metrics.rdma.current), [("mlx5_0".to_owned(), 2, 20)]);
    assert_eq!(rdma(&metrics.rdma.limit), [("mlx5_0".to_owned(), u32::MAX, 30)]);
}

#[test]
fn a_missing_controller_is_left_out_and_no_group_is_none() {
    let Some(own) = Own::new("missing") else { return };
    let keep = |names: &[&str]| {
        let mut record = own.record.clone();
        record.groups.retain(|group| names.contains(&group.controllers.as_str()));
        Cgroup::open(&record)
    };
    let of = |cgroup: &Cgroup| {
        let any = metrics(cgroup, None).unwrap().unwrap();
        MetricsV1::parse_from_bytes(&any.value).unwrap()
    };
    let only = of(&keep(&["pids"]));
    assert!(only.pids.is_some());
    let rest = MetricsV1 { pids: only.pids.clone(), ..MetricsV1::default() };
    assert_eq!(only, rest);
    // Readers in Go look into both without asking.
    let cpu = of(&keep(&["cpuacct"])).cpu;
    assert!(cpu.usage.is_some() && cpu.throttling.is_some());
    assert_eq!(of(&keep(&["freezer"])), MetricsV1::default());

    let none = Cgroup::open(&Record::none());
    assert_eq!(metrics(&none, None).unwrap(), None);
    let (open, later) = (keep(&["memory", "cpu"]), Cgroup::open(&own.record));
    assert!(metrics(&open, None).unwrap().is_some());
    drop(own);
    assert_eq!(metrics(&open, None).unwrap(), None, "with the directories still open");
    assert_eq!(metrics(&later, None).unwrap(), None);
}

#[test]
fn a_network_of_its_own_is_told() {
    let Some(mut own) = Own::new("network") else { return };
    let script = "unshare -n sh -c 'ip link add e0 type veth peer name e1 && ip link set e0 up \
                  && ip link set e1 up; kill -STOP $$'";
    let pid = own.stopped_shell(&format!("exec {script}"));
    let read = || std::fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap();
    if !read().contains("e0:") {
        eprintln!("skipped: no veth here");
        return;
    }
    // The kernel greets the neighbours by itself for some seconds.
    let sent = |metrics: &MetricsV1| metrics.network.iter().any(|found| found.tx_packets > 0);
    let (metrics, dev) = while_still(read, || own.metrics(Some(pid)), sent);
    let mut names: Vec<&str> = metrics.network.iter().map(|found| found.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["e0", "e1"]);
    let line = dev.lines().find(|line| line.contains("e0:")).unwrap();
    let value =
        |column: usize| -> u64 { line.split_whitespace().nth(column).unwrap().parse().unwrap() };
    let e0 = metrics.network.iter().find(|found| found.name == "e0").unwrap();
    assert_eq!((e0.rx_bytes, e0.rx_packets), (value(1), value(2)));
    assert_eq!((e0.tx_bytes, e0.tx_packets), (value(9), value(10)));
}

#[test]
#[ignore = "a measurement: run it alone, --nocapture"]
fn how_long_it_takes() {
    let Some(mut own) = Own::new("time") else { return };
    let pid = own.stopped_shell("a=$(seq 1000)");
    for (what, init) in [("with a network", Some(pid)), ("without", None)] {
        let mut times: Vec<Duration> = (0..500)
            .map(|_| {
                let start = Instant::now();
                metrics(&own.cgroup, init).unwrap().unwrap();
                start.elapsed()
            })
            .collect();
        times.sort_unstable();
        println!("{what}: median {:?}, 99% {:?}, most {:?}", times[250], times[495], times[499]);
    }
}
