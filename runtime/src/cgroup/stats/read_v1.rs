//! The statistics of cgroup v1.

use super::{
    BlkioEntry, Hugetlb, MemoryEntry, Stats, hugepage_sizes, number, numbers, text, value_of,
};
use crate::cgroup::dir::Dir;
use crate::cgroup::{Cgroup, Group};
use crate::error::Result;

/// USER_HZ, fixed in the ABI of every architecture that has containers: ticks are 10 ms.
const NANOSECONDS_A_TICK: u64 = 10_000_000;

impl Cgroup {
    pub(super) fn read_v1(&self, stats: &mut Stats) -> Result<()> {
        let dir =
            |controller| self.v1(controller).map(Group::find).transpose().map(Option::flatten);
        dir("cpu")?.map_or(Ok(()), |dir| cpu(dir, stats))?;
        dir("cpuacct")?.map_or(Ok(()), |dir| cpuacct(dir, stats))?;
        dir("cpuset")?.map_or(Ok(()), |dir| cpuset(dir, stats))?;
        dir("memory")?.map_or(Ok(()), |dir| memory(dir, stats))?;
        dir("pids")?.map_or(Ok(()), |dir| pids(dir, stats))?;
        dir("blkio")?.map_or(Ok(()), |dir| blkio(dir, stats))?;
        dir("hugetlb")?.map_or(Ok(()), |dir| hugetlb(dir, stats))
    }
}

fn cpu(dir: &Dir, stats: &mut Stats) -> Result<()> {
    let Some(text) = text(dir, "cpu.stat")? else { return Ok(()) };
    let value = |key| value_of(&text, key).unwrap_or(0);
    stats.cpu.throttling.periods = value("nr_periods");
    stats.cpu.throttling.throttled_periods = value("nr_throttled");
    stats.cpu.throttling.throttled_time = value("throttled_time");
    Ok(())
}

fn cpuacct(dir: &Dir, stats: &mut Stats) -> Result<()> {
    let usage = &mut stats.cpu.usage;
    usage.total = number(dir, "cpuacct.usage")?;
    if let Some(text) = text(dir, "cpuacct.stat")? {
        usage.user = value_of(&text, "user").unwrap_or(0) * NANOSECONDS_A_TICK;
        usage.kernel = value_of(&text, "system").unwrap_or(0) * NANOSECONDS_A_TICK;
    }
    if let Some(text) = text(dir, "cpuacct.usage_percpu")? {
        usage.percpu = text.split_whitespace().filter_map(|n| n.parse().ok()).collect();
    }
    // "cpu user system", then a line for each.
    for line in text(dir, "cpuacct.usage_all")?.unwrap_or_default().lines().skip(1) {
        let mut numbers = line.split(' ').skip(1).map(|n| n.parse().unwrap_or(0));
        usage.percpu_user.push(numbers.next().unwrap_or(0));
        usage.percpu_kernel.push(numbers.next().unwrap_or(0));
    }
    Ok(())
}

fn cpuset(dir: &Dir, stats: &mut Stats) -> Result<()> {
    let set = &mut stats.cpuset;
    let list =
        |file| text(dir, file).map(|text| text.and_then(|t| numbers(&t)).unwrap_or_default());
    set.cpus = list("cpuset.cpus")?;
    set.mems = list("cpuset.mems")?;
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
        *field = number(dir, file)?;
    }
    set.sched_relax_domain_level = number(dir, "cpuset.sched_relax_domain_level")?;
    Ok(())
}

fn memory(dir: &Dir, stats: &mut Stats) -> Result<()> {
    let memory = &mut stats.memory;
    for line in text(dir, "memory.stat")?.unwrap_or_default().lines() {
        if let Some((key, value)) = line.split_once(' ') {
            memory.raw.insert(key.to_owned(), value.trim().parse().unwrap_or(0));
        }
    }
    memory.cache = memory.raw.get("cache").copied().unwrap_or(0);
    let entry = |infix: &str| -> Result<MemoryEntry> {
        Ok(MemoryEntry {
            limit: number(dir, &format!("memory.{infix}limit_in_bytes"))?,
            usage: number(dir, &format!("memory.{infix}usage_in_bytes"))?,
            max: number(dir, &format!("memory.{infix}max_usage_in_bytes"))?,
            failcnt: number(dir, &format!("memory.{infix}failcnt"))?,
        })
    };
    memory.usage = entry("")?;
    memory.swap = entry("memsw.")?;
    memory.kernel = entry("kmem.")?;
    memory.kernel_tcp = entry("kmem.tcp.")?;
    Ok(())
}

fn pids(dir: &Dir, stats: &mut Stats) -> Result<()> {
    stats.pids.current = number(dir, "pids.current")?;
    let limit = number(dir, "pids.max")?;
    stats.pids.limit = if limit == u64::MAX { 0 } else { limit };
    Ok(())
}

fn blkio(dir: &Dir, stats: &mut Stats) -> Result<()> {
    let blkio = &mut stats.blkio;
    // Whoever schedules counts best: bfq, then (before Linux 5.0) cfq, then the throttle.
    for prefix in ["bfq.", "", "throttle."] {
        for (name, field) in [
            ("io_service_bytes", &mut blkio.io_service_bytes_recursive),
            ("io_serviced", &mut blkio.io_serviced_recursive),
            ("io_queued", &mut blkio.io_queued_recursive),
            ("io_service_time", &mut blkio.io_service_time_recursive),
            ("io_wait_time", &mut blkio.io_wait_time_recursive),
            ("io_merged", &mut blkio.io_merged_recursive),
            ("time", &mut blkio.io_time_recursive),
            ("sectors", &mut blkio.sectors_recursive),
        ] {
            let file = format!("blkio.{prefix}{name}_recursive");
            *field = text(dir, &file)?.map(|text| blkio_entries(&text)).unwrap_or_default();
        }
        if !blkio.io_service_bytes_recursive.is_empty() {
            break;
        }
    }
    Ok(())
}

/// `8:0 Read 1282048`, `8:0 6792`; a line `Total 3477504` is left out.
fn blkio_entries(text: &str) -> Vec<BlkioEntry> {
    let entry = |line: &str| {
        let (device, rest) = line.split_once(' ')?;
        let (major, minor) = device.split_once(':')?;
        let (op, value) = rest.split_once(' ').unwrap_or(("", rest));
        Some(BlkioEntry {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
            op: op.to_owned(),
            value: value.trim().parse().ok()?,
        })
    };
    text.lines().filter_map(entry).collect()
}

fn hugetlb(dir: &Dir, stats: &mut Stats) -> Result<()> {
    for size in hugepage_sizes() {
        let mut prefix = format!("hugetlb.{size}.rsvd");
        if text(dir, &format!("{prefix}.usage_in_bytes"))?.is_none() {
            prefix = format!("hugetlb.{size}");
        }
        let pages = Hugetlb {
            usage: number(dir, &format!("{prefix}.usage_in_bytes"))?,
            max: number(dir, &format!("{prefix}.max_usage_in_bytes"))?,
            failcnt: number(dir, &format!("{prefix}.failcnt"))?,
        };
        stats.hugetlb.insert(size, pages);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_statistics_with_and_without_an_operation() {
        let entry = |op: &str, value| BlkioEntry { major: 8, minor: 0, op: op.to_owned(), value };
        assert_eq!(
            blkio_entries("8:0 Read 12\n8:0 Write 2\nTotal 14\n"),
            [entry("Read", 12), entry("Write", 2)]
        );
        assert_eq!(blkio_entries("8:0 6792\n"), [entry("", 6792)]);
    }
}
