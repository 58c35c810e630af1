//! The numbers of cgroup v1.

use containerd_shim_protos::cgroups::metrics::{
    BlkIOEntry, BlkIOStat, CPUStat, CPUUsage, HugetlbStat, MemoryEntry, MemoryOomControl,
    MemoryStat, Metrics, NetworkStat, PidsStat, RdmaEntry, RdmaStat, Throttle,
};
use containerd_shim_protos::protobuf::MessageField;
use corten::cgroup::Cgroup;
use corten::cgroup::dir::Dir;
use corten::cgroup::stats::read_v1::{NANOSECONDS_A_TICK, blkio, hugetlb_entry, memory_entry};
use corten::cgroup::stats::reader::{Reader, hugepage_sizes, pairs, rdma_lines, value_of};
use corten::cgroup::stats::{self, BlkioEntry, NetworkInterface};
use corten::error::Result;

/// All of them.
pub(super) fn read(cgroup: &Cgroup, reader: &mut Reader) -> Result<Metrics> {
    let mut metrics = Metrics { cpu: cpu(cgroup, reader)?, ..Metrics::default() };
    if let Some(dir) = cgroup.dir_of("memory")? {
        metrics.memory = memory(reader, dir)?;
        metrics.memory_oom_control = oom_control(reader, dir)?;
    }
    if let Some(dir) = cgroup.dir_of("pids")? {
        metrics.pids = pids(reader, dir)?;
    }
    if let Some(dir) = cgroup.dir_of("blkio")? {
        metrics.blkio = MessageField::some(named(blkio(reader, dir)?));
    }
    if let Some(dir) = cgroup.dir_of("hugetlb")? {
        metrics.hugetlb = hugetlb(reader, dir)?;
    }
    if let Some(dir) = cgroup.dir_of("rdma")? {
        metrics.rdma = rdma(reader, dir)?;
    }
    Ok(metrics)
}

/// Readers look into `usage` and `throttling` without asking whether they are there, so both are
/// if there is a processor at all.
fn cpu(cgroup: &Cgroup, reader: &mut Reader) -> Result<MessageField<CPUStat>> {
    let mut usage = CPUUsage::default();
    let mut throttling = Throttle::default();
    let (cpu, cpuacct) = (cgroup.dir_of("cpu")?, cgroup.dir_of("cpuacct")?);
    let mut found = false;
    if let Some(dir) = cpu
        && let Some(text) = reader.text(dir, "cpu.stat")?
    {
        found = true;
        throttling.periods = value_of(text, "nr_periods").unwrap_or(0);
        throttling.throttled_periods = value_of(text, "nr_throttled").unwrap_or(0);
        throttling.throttled_time = value_of(text, "throttled_time").unwrap_or(0);
    }
    if let Some(dir) = cpuacct
        && let Some(total) = reader.number(dir, "cpuacct.usage")?
    {
        found = true;
        usage.total = total;
        let text = reader.text(dir, "cpuacct.stat")?.unwrap_or_default();
        usage.user = value_of(text, "user").unwrap_or(0) * NANOSECONDS_A_TICK;
        usage.kernel = value_of(text, "system").unwrap_or(0) * NANOSECONDS_A_TICK;
        let text = reader.text(dir, "cpuacct.usage_percpu")?.unwrap_or_default();
        usage.per_cpu = text.split_ascii_whitespace().filter_map(|n| n.parse().ok()).collect();
    }
    let (usage, throttling) = (MessageField::some(usage), MessageField::some(throttling));
    let cpu = CPUStat { usage, throttling, ..CPUStat::default() };
    Ok(MessageField(found.then(|| Box::new(cpu))))
}

fn memory(reader: &mut Reader, dir: &Dir) -> Result<MessageField<MemoryStat>> {
    let Some(text) = reader.text(dir, "memory.stat")? else { return Ok(MessageField::none()) };
    let mut memory = MemoryStat::default();
    for (key, value) in pairs(text) {
        if let Some(field) = memory_field(&mut memory, key) {
            *field = value;
        }
    }
    for (infix, field) in [
        ("", &mut memory.usage),
        ("memsw.", &mut memory.swap),
        ("kmem.", &mut memory.kernel),
        ("kmem.tcp.", &mut memory.kernel_tcp),
    ] {
        let stats::MemoryEntry { limit, usage, max, failcnt } = memory_entry(reader, dir, infix)?;
        let entry = MemoryEntry { limit, usage, max, failcnt, ..MemoryEntry::default() };
        *field = MessageField::some(entry);
    }
    Ok(MessageField::some(memory))
}

fn memory_field<'m>(memory: &'m mut MemoryStat, key: &str) -> Option<&'m mut u64> {
    Some(match key {
        "cache" => &mut memory.cache,
        "rss" => &mut memory.rss,
        "rss_huge" => &mut memory.rss_huge,
        "mapped_file" => &mut memory.mapped_file,
        "dirty" => &mut memory.dirty,
        "writeback" => &mut memory.writeback,
        "pgpgin" => &mut memory.pg_pg_in,
        "pgpgout" => &mut memory.pg_pg_out,
        "pgfault" => &mut memory.pg_fault,
        "pgmajfault" => &mut memory.pg_maj_fault,
        "inactive_anon" => &mut memory.inactive_anon,
        "active_anon" => &mut memory.active_anon,
        "inactive_file" => &mut memory.inactive_file,
        "active_file" => &mut memory.active_file,
        "unevictable" => &mut memory.unevictable,
        "hierarchical_memory_limit" => &mut memory.hierarchical_memory_limit,
        "hierarchical_memsw_limit" => &mut memory.hierarchical_swap_limit,
        "total_cache" => &mut memory.total_cache,
        "total_rss" => &mut memory.total_rss,
        "total_rss_huge" => &mut memory.total_rss_huge,
        "total_mapped_file" => &mut memory.total_mapped_file,
        "total_dirty" => &mut memory.total_dirty,
        "total_writeback" => &mut memory.total_writeback,
        "total_pgpgin" => &mut memory.total_pg_pg_in,
        "total_pgpgout" => &mut memory.total_pg_pg_out,
        "total_pgfault" => &mut memory.total_pg_fault,
        "total_pgmajfault" => &mut memory.total_pg_maj_fault,
        "total_inactive_anon" => &mut memory.total_inactive_anon,
        "total_active_anon" => &mut memory.total_active_anon,
        "total_inactive_file" => &mut memory.total_inactive_file,
        "total_active_file" => &mut memory.total_active_file,
        "total_unevictable" => &mut memory.total_unevictable,
        _ => return None,
    })
}

fn oom_control(reader: &mut Reader, dir: &Dir) -> Result<MessageField<MemoryOomControl>> {
    let text = reader.text(dir, "memory.oom_control")?;
    Ok(MessageField(text.map(|text| {
        let mut control = MemoryOomControl::default();
        for (key, value) in pairs(text) {
            match key {
                "oom_kill_disable" => control.oom_kill_disable = value,
                "under_oom" => control.under_oom = value,
                "oom_kill" => control.oom_kill = value,
                _ => {}
            }
        }
        Box::new(control)
    })))
}

fn pids(reader: &mut Reader, dir: &Dir) -> Result<MessageField<PidsStat>> {
    let Some(current) = reader.number(dir, "pids.current")? else {
        return Ok(MessageField::none());
    };
    let limit = reader.number(dir, "pids.max")?.filter(|limit| *limit != u64::MAX).unwrap_or(0);
    Ok(MessageField::some(PidsStat { current, limit, ..PidsStat::default() }))
}

/// The lists, with the names of the devices, which /proc/partitions tells.
fn named(blkio: stats::Blkio) -> BlkIOStat {
    let names = if blkio == stats::Blkio::default() { Vec::new() } else { partitions() };
    let list = |entries: Vec<BlkioEntry>| -> Vec<BlkIOEntry> {
        let entry = |BlkioEntry { major, minor, op, value }| {
            let name = names.iter().find(|device| (device.0, device.1) == (major, minor));
            let device = name.map(|device| device.2.clone()).unwrap_or_default();
            BlkIOEntry { op, device, major, minor, value, ..BlkIOEntry::default() }
        };
        entries.into_iter().map(entry).collect()
    };
    BlkIOStat {
        io_service_bytes_recursive: list(blkio.io_service_bytes_recursive),
        io_serviced_recursive: list(blkio.io_serviced_recursive),
        io_queued_recursive: list(blkio.io_queued_recursive),
        io_service_time_recursive: list(blkio.io_service_time_recursive),
        io_wait_time_recursive: list(blkio.io_wait_time_recursive),
        io_merged_recursive: list(blkio.io_merged_recursive),
        io_time_recursive: list(blkio.io_time_recursive),
        sectors_recursive: list(blkio.sectors_recursive),
        ..BlkIOStat::default()
    }
}

/// Lines of ` 254        0  268435456 vda`, after a heading.
fn partitions() -> Vec<(u64, u64, String)> {
    let text = std::fs::read_to_string("/proc/partitions").unwrap_or_default();
    let device = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let (major, minor) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        Some((major, minor, format!("/dev/{}", words.nth(1)?)))
    };
    text.lines().filter_map(device).collect()
}

fn hugetlb(reader: &mut Reader, dir: &Dir) -> Result<Vec<HugetlbStat>> {
    let mut found = Vec::new();
    for pagesize in hugepage_sizes() {
        if let Some(pages) = hugetlb_entry(reader, dir, &pagesize)? {
            let stats::Hugetlb { usage, max, failcnt } = pages;
            found.push(HugetlbStat { usage, max, failcnt, pagesize, ..HugetlbStat::default() });
        }
    }
    Ok(found)
}

fn rdma(reader: &mut Reader, dir: &Dir) -> Result<MessageField<RdmaStat>> {
    let mut list = |file: &str| -> Result<Option<Vec<RdmaEntry>>> {
        let entry = |(device, hca_handles, hca_objects): (&str, _, _)| {
            let device = device.to_owned();
            RdmaEntry { device, hca_handles, hca_objects, ..RdmaEntry::default() }
        };
        Ok(reader.text(dir, file)?.map(|text| rdma_lines(text).map(entry).collect()))
    };
    let Some(current) = list("rdma.current")? else { return Ok(MessageField::none()) };
    let limit = list("rdma.max")?.unwrap_or_default();
    Ok(MessageField::some(RdmaStat { current, limit, ..RdmaStat::default() }))
}

/// In the words of v1's message.
pub(super) fn interface(from: NetworkInterface) -> NetworkStat {
    NetworkStat {
        name: from.name,
        rx_bytes: from.rx_bytes,
        rx_packets: from.rx_packets,
        rx_errors: from.rx_errors,
        rx_dropped: from.rx_dropped,
        tx_bytes: from.tx_bytes,
        tx_packets: from.tx_packets,
        tx_errors: from.tx_errors,
        tx_dropped: from.tx_dropped,
        ..NetworkStat::default()
    }
}
