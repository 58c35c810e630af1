//! The limits in the words of cgroup v1: which files get which values, in which order. Pure.

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources, LinuxThrottleDevice};

use super::plan::{Write, asked, wrong};
use crate::error::{Error, Result};

/// Every write that `resources` asks for.
///
/// # Errors
/// What only cgroup v2 can do, with its JSON path.
pub fn writes(resources: &LinuxResources) -> Result<Vec<Write>> {
    if resources.unified().as_ref().is_some_and(|unified| !unified.is_empty()) {
        return Err(Error::Unsupported(
            "linux.resources.unified: needs cgroup v2, this host has cgroup v1".to_owned(),
        ));
    }
    let mut out = Vec::with_capacity(16);
    if let Some(cpu) = resources.cpu() {
        cpu_writes(cpu, &mut out)?;
    }
    if let Some(memory) = resources.memory() {
        memory_writes(memory, &mut out);
    }
    if let Some(pids) = resources.pids() {
        out.push(Write::new("pids", "pids.limit", "pids.max", pids_max(pids.limit())));
    }
    if let Some(block) = resources.block_io() {
        block_writes(block, &mut out);
    }
    for (index, page) in resources.hugepage_limits().iter().flatten().enumerate() {
        let (json, size) = (format!("hugepageLimits[{index}]"), page.page_size());
        let file = format!("hugetlb.{size}.limit_in_bytes");
        out.push(Write::new("hugetlb", json.clone(), file, page.limit()));
        // Reservations are counted apart since Linux 5.7.
        let file = format!("hugetlb.{size}.rsvd.limit_in_bytes");
        out.push(Write::new("hugetlb", json, file, page.limit()).optional());
    }
    if let Some(network) = resources.network() {
        if let Some(class) = asked(network.class_id()) {
            out.push(Write::new("net_cls", "network.classID", "net_cls.classid", class));
        }
        for (index, priority) in network.priorities().iter().flatten().enumerate() {
            let value = format!("{} {}", priority.name(), priority.priority());
            let json = format!("network.priorities[{index}]");
            out.push(Write::new("net_prio", json, "net_prio.ifpriomap", value));
        }
    }
    rdma_writes(resources, &mut out);
    Ok(out)
}

fn cpu_writes(cpu: &LinuxCpu, out: &mut Vec<Write>) -> Result<()> {
    if let Some(shares) = asked(cpu.shares()) {
        // The kernel would silently take the nearest value that it can do.
        if !(2..=262_144).contains(&shares) {
            let why = if shares < 2 {
                "the minimum allowed cpu-shares is 2"
            } else {
                "the maximum allowed cpu-shares is 262144"
            };
            return Err(wrong("cpu.shares", why));
        }
        out.push(Write::new("cpu", "cpu.shares", "cpu.shares", shares));
    }
    // Each of these is checked against the others' present value.
    if let Some(period) = asked(cpu.period()) {
        out.push(Write::new("cpu", "cpu.period", "cpu.cfs_period_us", period).again());
    }
    if let Some(burst) = cpu.burst() {
        let write = Write::new("cpu", "cpu.burst", "cpu.cfs_burst_us", burst).again();
        // Since Linux 5.15; without it there is none, which is what 0 asks for.
        out.push(if burst == 0 { write.optional() } else { write });
    }
    if let Some(quota) = asked(cpu.quota()) {
        out.push(Write::new("cpu", "cpu.quota", "cpu.cfs_quota_us", quota).again());
    }
    if let Some(idle) = cpu.idle() {
        let write = Write::new("cpu", "cpu.idle", "cpu.idle", idle);
        out.push(if idle == 0 { write.optional() } else { write });
    }
    if let Some(period) = asked(cpu.realtime_period()) {
        out.push(Write::new("cpu", "cpu.realtimePeriod", "cpu.rt_period_us", period).again());
    }
    if let Some(runtime) = asked(cpu.realtime_runtime()) {
        out.push(Write::new("cpu", "cpu.realtimeRuntime", "cpu.rt_runtime_us", runtime).again());
    }
    for (json, file, list) in
        [("cpu.cpus", "cpuset.cpus", cpu.cpus()), ("cpu.mems", "cpuset.mems", cpu.mems())]
    {
        if let Some(list) = list.as_deref().filter(|list| !list.trim().is_empty()) {
            out.push(Write::new("cpuset", json, file, list));
        }
    }
    Ok(())
}

fn memory_writes(memory: &LinuxMemory, out: &mut Vec<Write>) {
    if memory.use_hierarchy() == Some(true) {
        // Always on since Linux 5.11, and only changeable before there are sub-groups.
        let file = "memory.use_hierarchy";
        out.push(Write::new("memory", "memory.useHierarchy", file, 1).optional());
    }
    // limit <= memsw must hold after each write; whichever order is wrong comes again.
    let limit = asked(memory.limit());
    if let Some(limit) = limit {
        out.push(Write::new("memory", "memory.limit", "memory.limit_in_bytes", limit).again());
    }
    let memsw = "memory.memsw.limit_in_bytes";
    match (limit, asked(memory.swap())) {
        (_, Some(swap)) => out.push(Write::new("memory", "memory.swap", memsw, swap).again()),
        // Unlimited memory below a limit of memory and swap would be no news.
        (Some(-1), None) => {
            out.push(Write::new("memory", "memory.limit", memsw, -1).again().optional());
        }
        _ => {}
    }
    if let Some(soft) = asked(memory.reservation()) {
        let file = "memory.soft_limit_in_bytes";
        out.push(Write::new("memory", "memory.reservation", file, soft));
    }
    if memory.disable_oom_killer() == Some(true) {
        let file = "memory.oom_control";
        out.push(Write::new("memory", "memory.disableOOMKiller", file, 1));
    }
    if let Some(swappiness) = memory.swappiness() {
        let file = "memory.swappiness";
        out.push(Write::new("memory", "memory.swappiness", file, swappiness));
    }
}

fn block_writes(block: &LinuxBlockIo, out: &mut Vec<Write>) {
    if let Some(weight) = asked(block.weight()) {
        let write = Write::new("blkio", "blockIO.weight", "blkio.weight", weight);
        out.push(write.or("blkio.bfq.weight", weight));
    }
    if let Some(weight) = asked(block.leaf_weight()) {
        out.push(Write::new("blkio", "blockIO.leafWeight", "blkio.leaf_weight", weight));
    }
    for (index, device) in block.weight_device().iter().flatten().enumerate() {
        let line = |weight| format!("{}:{} {weight}", device.major(), device.minor());
        if let Some(weight) = asked(device.weight()) {
            let json = format!("blockIO.weightDevice[{index}].weight");
            let write = Write::new("blkio", json, "blkio.weight_device", line(weight));
            out.push(write.or("blkio.bfq.weight_device", line(weight)));
        }
        if let Some(weight) = asked(device.leaf_weight()) {
            let json = format!("blockIO.weightDevice[{index}].leafWeight");
            out.push(Write::new("blkio", json, "blkio.leaf_weight_device", line(weight)));
        }
    }
    for (json, _, file, devices) in throttles(block) {
        for (index, device) in devices.iter().enumerate() {
            let value = format!("{}:{} {}", device.major(), device.minor(), device.rate());
            out.push(Write::new("blkio", format!("blockIO.{json}[{index}]"), file, value));
        }
    }
}

/// The four throttle lists: JSON name, v2 key, v1 file.
pub(super) fn throttles(
    block: &LinuxBlockIo,
) -> [(&'static str, &'static str, &'static str, &[LinuxThrottleDevice]); 4] {
    [
        (
            "throttleReadBpsDevice",
            "rbps",
            "blkio.throttle.read_bps_device",
            block.throttle_read_bps_device().as_deref().unwrap_or_default(),
        ),
        (
            "throttleWriteBpsDevice",
            "wbps",
            "blkio.throttle.write_bps_device",
            block.throttle_write_bps_device().as_deref().unwrap_or_default(),
        ),
        (
            "throttleReadIOPSDevice",
            "riops",
            "blkio.throttle.read_iops_device",
            block.throttle_read_iops_device().as_deref().unwrap_or_default(),
        ),
        (
            "throttleWriteIOPSDevice",
            "wiops",
            "blkio.throttle.write_iops_device",
            block.throttle_write_iops_device().as_deref().unwrap_or_default(),
        ),
    ]
}

/// Both versions have the same file.
pub(super) fn rdma_writes(resources: &LinuxResources, out: &mut Vec<Write>) {
    for (device, limits) in resources.rdma().iter().flatten() {
        let mut line = device.clone();
        for (key, value) in
            [("hca_handle", limits.hca_handles()), ("hca_object", limits.hca_objects())]
        {
            if let Some(value) = value {
                line += &format!(" {key}={value}");
            }
        }
        out.push(Write::new("rdma", format!("rdma[{device:?}]"), "rdma.max", line));
    }
}

/// Negative is unlimited. 0 is 1, as systemd has it: the first process is always there.
pub(super) fn pids_max(limit: i64) -> String {
    if limit < 0 { "max".to_owned() } else { limit.max(1).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(resources: serde_json::Value) -> Vec<String> {
        let resources: LinuxResources = serde_json::from_value(resources).unwrap();
        let line = |write: Write| format!("{}={}", write.file, write.value);
        writes(&resources).unwrap().into_iter().map(line).collect()
    }

    #[test]
    fn every_field_has_its_file() {
        let all = lines(serde_json::json!({
            "memory": {"limit": 9_000_000, "swap": 10_000_000, "reservation": 5_000_000,
                       "swappiness": 0, "disableOOMKiller": true, "useHierarchy": true},
            "cpu": {"shares": 512, "quota": -1, "period": 50000, "burst": 0, "idle": 0,
                    "realtimeRuntime": 1000, "realtimePeriod": 2000, "cpus": "0", "mems": "0"},
            "pids": {"limit": 0},
            "blockIO": {"weight": 10, "leafWeight": 20,
                        "weightDevice": [{"major": 8, "minor": 1, "weight": 30, "leafWeight": 40}],
                        "throttleReadBpsDevice": [{"major": 8, "minor": 1, "rate": 1}],
                        "throttleWriteBpsDevice": [{"major": 8, "minor": 1, "rate": 2}],
                        "throttleReadIOPSDevice": [{"major": 8, "minor": 1, "rate": 3}],
                        "throttleWriteIOPSDevice": [{"major": 8, "minor": 1, "rate": 4}]},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 0}],
            "network": {"classID": 1_048_577, "priorities": [{"name": "eth0", "priority": 5}]},
            "rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10000}},
        }));
        assert_eq!(
            all,
            [
                "cpu.shares=512",
                "cpu.cfs_period_us=50000",
                "cpu.cfs_burst_us=0",
                "cpu.cfs_quota_us=-1",
                "cpu.idle=0",
                "cpu.rt_period_us=2000",
                "cpu.rt_runtime_us=1000",
                "cpuset.cpus=0",
                "cpuset.mems=0",
                "memory.use_hierarchy=1",
                "memory.limit_in_bytes=9000000",
                "memory.memsw.limit_in_bytes=10000000",
                "memory.soft_limit_in_bytes=5000000",
                "memory.oom_control=1",
                "memory.swappiness=0",
                "pids.max=1",
                "blkio.weight=10",
                "blkio.leaf_weight=20",
                "blkio.weight_device=8:1 30",
                "blkio.leaf_weight_device=8:1 40",
                "blkio.throttle.read_bps_device=8:1 1",
                "blkio.throttle.write_bps_device=8:1 2",
                "blkio.throttle.read_iops_device=8:1 3",
                "blkio.throttle.write_iops_device=8:1 4",
                "hugetlb.2MB.limit_in_bytes=0",
                "hugetlb.2MB.rsvd.limit_in_bytes=0",
                "net_cls.classid=1048577",
                "net_prio.ifpriomap=eth0 5",
                "rdma.max=mlx5_1 hca_handle=3 hca_object=10000",
            ]
        );
    }

    #[test]
    fn unlimited_memory_is_also_unlimited_swap() {
        let json = serde_json::json!({"memory": {"limit": -1}});
        assert_eq!(lines(json), ["memory.limit_in_bytes=-1", "memory.memsw.limit_in_bytes=-1"]);
    }

    #[test]
    fn what_v1_would_silently_change_or_lacks_is_refused() {
        for (json, words) in [
            (r#"{"cpu": {"shares": 1}}"#, "the minimum allowed cpu-shares is 2"),
            (r#"{"cpu": {"shares": 262145}}"#, "the maximum allowed cpu-shares is 262144"),
            (r#"{"unified": {"memory.high": "1"}}"#, "linux.resources.unified: needs cgroup v2"),
        ] {
            let error = writes(&serde_json::from_str(json).unwrap()).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
