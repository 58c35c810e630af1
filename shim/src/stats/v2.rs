//! The numbers of cgroup v2.

use containerd_shim_protos::cgroups_v2::metrics::{
    CPUStat, HugeTlbStat, IOEntry, IOStat, MemoryEvents, MemoryStat, Metrics, NetworkStat, PSIData,
    PSIStats, PidsStat, RdmaEntry, RdmaStat,
};
use containerd_shim_protos::protobuf::MessageField;
use corten::cgroup::Cgroup;
use corten::cgroup::dir::Dir;
use corten::cgroup::stats::reader::{
    IoLine, Reader, hugepage_sizes, io_lines, pairs, psi, rdma_lines, value_of,
};
use corten::cgroup::stats::{NetworkInterface, PsiData};
use corten::error::Result;

/// All of them.
pub(super) fn read(cgroup: &Cgroup, reader: &mut Reader) -> Result<Metrics> {
    cgroup.dir_of("")?.map_or_else(|| Ok(Metrics::default()), |dir| read_dir(reader, dir))
}

/// The same, of a directory.
pub(super) fn read_dir(reader: &mut Reader, dir: &Dir) -> Result<Metrics> {
    Ok(Metrics {
        pids: pids(reader, dir)?,
        cpu: cpu(reader, dir)?,
        memory: memory(reader, dir)?,
        rdma: rdma(reader, dir)?,
        io: io(reader, dir)?,
        hugetlb: hugetlb(reader, dir)?,
        memory_events: memory_events(reader, dir)?,
        ..Metrics::default()
    })
}

fn pids(reader: &mut Reader, dir: &Dir) -> Result<MessageField<PidsStat>> {
    let Some(current) = reader.number(dir, "pids.current")? else {
        return Ok(MessageField::none());
    };
    let limit = reader.number(dir, "pids.max")?.unwrap_or(0);
    Ok(MessageField::some(PidsStat { current, limit, ..PidsStat::default() }))
}

fn cpu(reader: &mut Reader, dir: &Dir) -> Result<MessageField<CPUStat>> {
    let Some(text) = reader.text(dir, "cpu.stat")? else { return Ok(MessageField::none()) };
    let mut cpu = CPUStat::default();
    for (key, value) in pairs(text) {
        match key {
            "usage_usec" => cpu.usage_usec = value,
            "user_usec" => cpu.user_usec = value,
            "system_usec" => cpu.system_usec = value,
            "nr_periods" => cpu.nr_periods = value,
            "nr_throttled" => cpu.nr_throttled = value,
            "throttled_usec" => cpu.throttled_usec = value,
            "nr_bursts" => cpu.nr_bursts = value,
            "burst_usec" => cpu.burst_usec = value,
            _ => {}
        }
    }
    cpu.psi = pressure(reader, dir, "cpu.pressure")?;
    Ok(MessageField::some(cpu))
}

fn memory(reader: &mut Reader, dir: &Dir) -> Result<MessageField<MemoryStat>> {
    let Some(text) = reader.text(dir, "memory.stat")? else { return Ok(MessageField::none()) };
    let mut memory = MemoryStat::default();
    for (key, value) in pairs(text) {
        if let Some(field) = memory_field(&mut memory, key) {
            *field = value;
        } else if let Some(number) = later_field(key).filter(|_| value > 0) {
            memory.special_fields.mut_unknown_fields().add_varint(number, value);
        }
    }
    for (file, field) in [
        ("memory.current", &mut memory.usage),
        ("memory.max", &mut memory.usage_limit),
        ("memory.peak", &mut memory.max_usage),
        ("memory.swap.current", &mut memory.swap_usage),
        ("memory.swap.max", &mut memory.swap_limit),
        ("memory.swap.peak", &mut memory.swap_max_usage),
    ] {
        *field = reader.number(dir, file)?.unwrap_or(0);
    }
    memory.psi = pressure(reader, dir, "memory.pressure")?;
    Ok(MessageField::some(memory))
}

fn memory_field<'m>(memory: &'m mut MemoryStat, key: &str) -> Option<&'m mut u64> {
    Some(match key {
        "anon" => &mut memory.anon,
        "file" => &mut memory.file,
        "kernel_stack" => &mut memory.kernel_stack,
        "slab" => &mut memory.slab,
        "sock" => &mut memory.sock,
        "shmem" => &mut memory.shmem,
        "file_mapped" => &mut memory.file_mapped,
        "file_dirty" => &mut memory.file_dirty,
        "file_writeback" => &mut memory.file_writeback,
        "anon_thp" => &mut memory.anon_thp,
        "inactive_anon" => &mut memory.inactive_anon,
        "active_anon" => &mut memory.active_anon,
        "inactive_file" => &mut memory.inactive_file,
        "active_file" => &mut memory.active_file,
        "unevictable" => &mut memory.unevictable,
        "slab_reclaimable" => &mut memory.slab_reclaimable,
        "slab_unreclaimable" => &mut memory.slab_unreclaimable,
        "pgfault" => &mut memory.pgfault,
        "pgmajfault" => &mut memory.pgmajfault,
        "workingset_refault" => &mut memory.workingset_refault,
        "workingset_activate" => &mut memory.workingset_activate,
        "workingset_nodereclaim" => &mut memory.workingset_nodereclaim,
        "pgrefill" => &mut memory.pgrefill,
        "pgscan" => &mut memory.pgscan,
        "pgsteal" => &mut memory.pgsteal,
        "pgactivate" => &mut memory.pgactivate,
        "pgdeactivate" => &mut memory.pgdeactivate,
        "pglazyfree" => &mut memory.pglazyfree,
        "pglazyfreed" => &mut memory.pglazyfreed,
        "thp_fault_alloc" => &mut memory.thp_fault_alloc,
        "thp_collapse_alloc" => &mut memory.thp_collapse_alloc,
        _ => return None,
    })
}

/// Since Linux 5.9 the two `workingset_` numbers are four, and the newest containerd/cgroups has
/// fields for them, which our generated messages do not.
fn later_field(key: &str) -> Option<u32> {
    Some(match key {
        "workingset_refault_anon" => 39,
        "workingset_refault_file" => 40,
        "workingset_activate_anon" => 41,
        "workingset_activate_file" => 42,
        _ => return None,
    })
}

fn memory_events(reader: &mut Reader, dir: &Dir) -> Result<MessageField<MemoryEvents>> {
    let text = reader.text(dir, "memory.events")?;
    Ok(MessageField(text.map(|text| {
        let mut events = MemoryEvents::default();
        for (key, value) in pairs(text) {
            match key {
                "low" => events.low = value,
                "high" => events.high = value,
                "max" => events.max = value,
                "oom" => events.oom = value,
                "oom_kill" => events.oom_kill = value,
                "oom_group_kill" => events.oom_group_kill = value,
                _ => {}
            }
        }
        Box::new(events)
    })))
}

fn io(reader: &mut Reader, dir: &Dir) -> Result<MessageField<IOStat>> {
    let entry = |IoLine { major, minor, rbytes, wbytes, rios, wios }| IOEntry {
        major,
        minor,
        rbytes,
        wbytes,
        rios,
        wios,
        ..IOEntry::default()
    };
    let text = reader.text(dir, "io.stat")?;
    let usage = text.map(|text| io_lines(text).map(entry).collect());
    let psi = pressure(reader, dir, "io.pressure")?;
    let found = usage.is_some() || psi.is_some();
    let io = IOStat { usage: usage.unwrap_or_default(), psi, ..IOStat::default() };
    Ok(MessageField(found.then(|| Box::new(io))))
}

fn hugetlb(reader: &mut Reader, dir: &Dir) -> Result<Vec<HugeTlbStat>> {
    let mut found = Vec::new();
    for pagesize in hugepage_sizes() {
        let current = reader.number(dir, &format!("hugetlb.{pagesize}.current"))?;
        let Some(current) = current else { continue };
        let max = reader.number(dir, &format!("hugetlb.{pagesize}.max"))?.unwrap_or(0);
        let events = reader.text(dir, &format!("hugetlb.{pagesize}.events"))?;
        let failcnt = events.and_then(|text| value_of(text, "max")).unwrap_or(0);
        found.push(HugeTlbStat { current, max, pagesize, failcnt, ..HugeTlbStat::default() });
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

fn pressure(reader: &mut Reader, dir: &Dir, file: &str) -> Result<MessageField<PSIStats>> {
    let data = |from: PsiData| {
        let PsiData { avg10, avg60, avg300, total } = from;
        MessageField::some(PSIData { avg10, avg60, avg300, total, ..PSIData::default() })
    };
    let psi = reader.text(dir, file)?.map(psi);
    let stats = psi.map(|psi| PSIStats {
        some: data(psi.some),
        full: data(psi.full),
        ..PSIStats::default()
    });
    Ok(stats.into())
}

/// In the words of v2's message.
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
