//! The statistics of cgroup v1.

use super::reader::{Reader, blkio_entries, hugepage_sizes, pairs, value_of};
use super::{Blkio, Hugetlb, MemoryEntry, Stats, number, numbers};
use crate::cgroup::Cgroup;
use crate::cgroup::dir::Dir;
use crate::error::Result;

/// USER_HZ, fixed in the ABI of every architecture that has containers: ticks are 10 ms.
pub const NANOSECONDS_A_TICK: u64 = 10_000_000;

type Part = fn(&mut Reader, &Dir, &mut Stats) -> Result<()>;

impl Cgroup {
    pub(super) fn read_v1(&self, stats: &mut Stats) -> Result<()> {
        let mut reader = Reader::new();
        let parts: [(&str, Part); 7] = [
            ("cpu", cpu),
            ("cpuacct", cpuacct),
            ("cpuset", cpuset),
            ("memory", memory),
            ("pids", pids),
            ("blkio", |reader, dir, stats| blkio(reader, dir).map(|blkio| stats.blkio = blkio)),
            ("hugetlb", hugetlb),
        ];
        for (controller, read) in parts {
            self.dir_of(controller)?.map_or(Ok(()), |dir| read(&mut reader, dir, stats))?;
        }
        Ok(())
    }
}

fn cpu(reader: &mut Reader, dir: &Dir, stats: &mut Stats) -> Result<()> {
    let Some(text) = reader.text(dir, "cpu.stat")? else { return Ok(()) };
    let value = |key| value_of(text, key).unwrap_or(0);
    stats.cpu.throttling.periods = value("nr_periods");
    stats.cpu.throttling.throttled_periods = value("nr_throttled");
    stats.cpu.throttling.throttled_time = value("throttled_time");
    Ok(())
}

fn cpuacct(reader: &mut Reader, dir: &Dir, stats: &mut Stats) -> Result<()> {
    let usage = &mut stats.cpu.usage;
    usage.total = number(reader, dir, "cpuacct.usage")?;
    if let Some(text) = reader.text(dir, "cpuacct.stat")? {
        usage.user = value_of(text, "user").unwrap_or(0) * NANOSECONDS_A_TICK;
        usage.kernel = value_of(text, "system").unwrap_or(0) * NANOSECONDS_A_TICK;
    }
    if let Some(text) = reader.text(dir, "cpuacct.usage_percpu")? {
        usage.percpu = text.split_whitespace().filter_map(|n| n.parse().ok()).collect();
    }
    // "cpu user system", then a line for each.
    for line in reader.text(dir, "cpuacct.usage_all")?.unwrap_or_default().lines().skip(1) {
        let mut numbers = line.split(' ').skip(1).map(|n| n.parse().unwrap_or(0));
        usage.percpu_user.push(numbers.next().unwrap_or(0));
        usage.percpu_kernel.push(numbers.next().unwrap_or(0));
    }
    Ok(())
}

fn cpuset(reader: &mut Reader, dir: &Dir, stats: &mut Stats) -> Result<()> {
    let set = &mut stats.cpuset;
    for (file, field) in [("cpuset.cpus", &mut set.cpus), ("cpuset.mems", &mut set.mems)] {
        *field = reader.text(dir, file)?.and_then(numbers).unwrap_or_default();
    }
    for (file, field) in [
        ("cpuset.cpu_exclusive", &mut set.cpu_exclusive),
        ("cpuset.mem_hardwall", &mut set.mem_hardwall),
        ("cpuset.mem_exclusive", &mut set.mem_exclusive),
        ("cpuset.memory_migrate", &mut set.memory_migrate),
        ("cpuset.memory_spread_page", &mut set.memory_spread_page),
        ("cpuset.memory_spread_slab", &mut set.memory_spread_slab),
        ("cpuset.memory_pressure", &mut set.memory_pressure),
        ("cpuset.sched_load_balance", &mut set.sched_load_balance),
    ] {
        *field = number(reader, dir, file)?;
    }
    let level = reader.number(dir, "cpuset.sched_relax_domain_level")?;
    set.sched_relax_domain_level = level.unwrap_or_default();
    Ok(())
}

fn memory(reader: &mut Reader, dir: &Dir, stats: &mut Stats) -> Result<()> {
    let memory = &mut stats.memory;
    let text = reader.text(dir, "memory.stat")?.unwrap_or_default();
    memory.raw = pairs(text).map(|(key, value)| (key.to_owned(), value)).collect();
    memory.cache = memory.raw.get("cache").copied().unwrap_or(0);
    memory.usage = memory_entry(reader, dir, "")?;
    memory.swap = memory_entry(reader, dir, "memsw.")?;
    memory.kernel = memory_entry(reader, dir, "kmem.")?;
    memory.kernel_tcp = memory_entry(reader, dir, "kmem.tcp.")?;
    Ok(())
}

/// The four files of one kind of memory: ``, `memsw.`, `kmem.` or `kmem.tcp.`.
///
/// # Errors
/// A file that is there and can't be read.
pub fn memory_entry(reader: &mut Reader, dir: &Dir, infix: &str) -> Result<MemoryEntry> {
    Ok(MemoryEntry {
        limit: number(reader, dir, &format!("memory.{infix}limit_in_bytes"))?,
        usage: number(reader, dir, &format!("memory.{infix}usage_in_bytes"))?,
        max: number(reader, dir, &format!("memory.{infix}max_usage_in_bytes"))?,
        failcnt: number(reader, dir, &format!("memory.{infix}failcnt"))?,
    })
}

fn pids(reader: &mut Reader, dir: &Dir, stats: &mut Stats) -> Result<()> {
    stats.pids.current = number(reader, dir, "pids.current")?;
    let limit = number(reader, dir, "pids.max")?;
    stats.pids.limit = if limit == u64::MAX { 0 } else { limit };
    Ok(())
}

/// Whoever schedules counts best: bfq, then (before Linux 5.0) cfq, then the throttle. One whose
/// bytes are not counted counts nothing, and its other files are not asked for.
///
/// # Errors
/// A file that is there and can't be read.
pub fn blkio(reader: &mut Reader, dir: &Dir) -> Result<Blkio> {
    for prefix in ["bfq.", "", "throttle."] {
        let mut list = |name: &str| -> Result<_> {
            let text = reader.text(dir, &format!("blkio.{prefix}{name}_recursive"))?;
            Ok(text.map(blkio_entries).unwrap_or_default())
        };
        let bytes = list("io_service_bytes")?;
        if !bytes.is_empty() {
            return Ok(Blkio {
                io_service_bytes_recursive: bytes,
                io_serviced_recursive: list("io_serviced")?,
                io_queued_recursive: list("io_queued")?,
                io_service_time_recursive: list("io_service_time")?,
                io_wait_time_recursive: list("io_wait_time")?,
                io_merged_recursive: list("io_merged")?,
                io_time_recursive: list("time")?,
                sectors_recursive: list("sectors")?,
                psi: None,
            });
        }
    }
    Ok(Blkio::default())
}

fn hugetlb(reader: &mut Reader, dir: &Dir, stats: &mut Stats) -> Result<()> {
    for size in hugepage_sizes() {
        let reserved = format!("{size}.rsvd");
        let pages = match hugetlb_entry(reader, dir, &reserved)? {
            Some(pages) => pages,
            None => hugetlb_entry(reader, dir, &size)?.unwrap_or_default(),
        };
        stats.hugetlb.insert(size, pages);
    }
    Ok(())
}

/// The files of the pages of one size (`2MB`), or of the reservations of such (`2MB.rsvd`).
///
/// # Errors
/// A file that is there and can't be read.
pub fn hugetlb_entry(reader: &mut Reader, dir: &Dir, size: &str) -> Result<Option<Hugetlb>> {
    let usage = reader.number(dir, &format!("hugetlb.{size}.usage_in_bytes"))?;
    let Some(usage) = usage else { return Ok(None) };
    let max = number(reader, dir, &format!("hugetlb.{size}.max_usage_in_bytes"))?;
    let failcnt = number(reader, dir, &format!("hugetlb.{size}.failcnt"))?;
    Ok(Some(Hugetlb { usage, max, failcnt }))
}
