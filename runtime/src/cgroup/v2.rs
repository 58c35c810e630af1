//! The limits in the words of cgroup v2: which files get which values, in which order. Pure.
//!
//! The spec's units are v1's. Shares become a weight, a block weight becomes an io weight, and
//! swap, which v1 counts together with memory, is what is left of it.

use std::borrow::Cow;

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources};

use super::plan::{Write, asked, wrong};
use super::v1::{pids_max, rdma_writes, throttles};
use crate::error::{Error, Result};

/// Every write that `resources` asks for.
///
/// # Errors
/// What only cgroup v1 can do, or a swap limit that makes no sense, with its JSON path.
pub fn writes(resources: &LinuxResources) -> Result<Vec<Write>> {
    let mut out = Vec::with_capacity(16);
    if let Some(pids) = resources.pids() {
        out.push(Write::new("pids", "pids.limit", "pids.max", pids_max(pids.limit())));
    }
    if let Some(memory) = resources.memory() {
        memory_writes(memory, &mut out)?;
    }
    if let Some(block) = resources.block_io() {
        block_writes(block, &mut out)?;
    }
    if let Some(cpu) = resources.cpu() {
        cpu_writes(cpu, &mut out)?;
    }
    for (index, page) in resources.hugepage_limits().iter().flatten().enumerate() {
        let (json, size) = (format!("hugepageLimits[{index}]"), page.page_size());
        let file = format!("hugetlb.{size}.max");
        out.push(Write::new("hugetlb", json.clone(), file, page.limit()));
        // Reservations are counted apart since Linux 5.7.
        let file = format!("hugetlb.{size}.rsvd.max");
        out.push(Write::new("hugetlb", json, file, page.limit()).optional());
    }
    if let Some(network) = resources.network() {
        if asked(network.class_id()).is_some() {
            return Err(only_v1("network.classID"));
        }
        if network.priorities().as_ref().is_some_and(|list| !list.is_empty()) {
            return Err(only_v1("network.priorities"));
        }
    }
    rdma_writes(resources, &mut out);
    unified_writes(resources, &mut out);
    Ok(out)
}

fn only_v1(json: &str) -> Error {
    Error::Unsupported(format!("linux.resources.{json}: needs cgroup v1, this host has cgroup v2"))
}

fn memory_writes(memory: &LinuxMemory, out: &mut Vec<Write>) -> Result<()> {
    for (json, asked) in [
        ("memory.swappiness", memory.swappiness().is_some()),
        ("memory.disableOOMKiller", memory.disable_oom_killer() == Some(true)),
        ("memory.useHierarchy", memory.use_hierarchy() == Some(false)),
    ] {
        // As runc does: Kubernetes and Docker send them whatever the host has.
        if asked {
            tracing::warn!("linux.resources.{json} has no meaning on cgroup v2: ignored");
        }
    }
    let limit = asked(memory.limit());
    if let Some(swap) = swap_max(limit, asked(memory.swap()))? {
        let write = Write::new("memory", "memory.swap", "memory.swap.max", &swap);
        // Without swap accounting nothing is swapped on the group's account.
        out.push(if swap == "max" || swap == "0" { write.optional() } else { write });
    }
    if let Some(limit) = limit {
        out.push(Write::new("memory", "memory.limit", "memory.max", or_max(limit)));
    }
    if let Some(reservation) = asked(memory.reservation()) {
        let value = or_max(reservation);
        out.push(Write::new("memory", "memory.reservation", "memory.low", value));
    }
    Ok(())
}

fn or_max(amount: i64) -> String {
    if amount < 0 { "max".to_owned() } else { amount.to_string() }
}

/// The spec's swap is memory and swap together.
fn swap_max(limit: Option<i64>, swap: Option<i64>) -> Result<Option<String>> {
    match (limit, swap) {
        // Unlimited memory with limited swap would be no news.
        (Some(-1), None) | (_, Some(-1)) => Ok(Some("max".to_owned())),
        (_, None) => Ok(None),
        (None, Some(_)) => {
            Err(wrong("memory.swap", "unable to set swap limit without memory limit"))
        }
        (Some(-1), Some(swap)) => Ok(Some(swap.to_string())),
        (Some(limit), Some(swap)) if swap < limit => {
            Err(wrong("memory.swap", "memory+swap limit should be >= memory limit"))
        }
        (Some(limit), Some(swap)) => Ok(Some((swap - limit).to_string())),
    }
}

fn block_writes(block: &LinuxBlockIo, out: &mut Vec<Write>) -> Result<()> {
    if asked(block.leaf_weight()).is_some() {
        return Err(only_v1("blockIO.leafWeight"));
    }
    if let Some(weight) = asked(block.weight()) {
        let write = Write::new("io", "blockIO.weight", "io.bfq.weight", weight);
        out.push(write.or("io.weight", io_weight(weight)));
    }
    for (index, device) in block.weight_device().iter().flatten().enumerate() {
        if asked(device.leaf_weight()).is_some() {
            return Err(only_v1(&format!("blockIO.weightDevice[{index}].leafWeight")));
        }
        if let Some(weight) = asked(device.weight()) {
            let number = format!("{}:{}", device.major(), device.minor());
            let json = format!("blockIO.weightDevice[{index}].weight");
            let write = Write::new("io", json, "io.bfq.weight", format!("{number} {weight}"));
            out.push(write.or("io.weight", format!("{number} {}", io_weight(weight))));
        }
    }
    for (json, key, _, devices) in throttles(block) {
        for (index, device) in devices.iter().enumerate() {
            // 0 takes a throttle away on v1.
            let rate = match device.rate() {
                0 => Cow::Borrowed("max"),
                rate => rate.to_string().into(),
            };
            let value = format!("{}:{} {key}={rate}", device.major(), device.minor());
            out.push(Write::new("io", format!("blockIO.{json}[{index}]"), "io.max", value));
        }
    }
    Ok(())
}

fn cpu_writes(cpu: &LinuxCpu, out: &mut Vec<Write>) -> Result<()> {
    if asked(cpu.realtime_period()).is_some() {
        return Err(only_v1("cpu.realtimePeriod"));
    }
    if asked(cpu.realtime_runtime()).is_some() {
        return Err(only_v1("cpu.realtimeRuntime"));
    }
    if let Some(idle) = cpu.idle() {
        let write = Write::new("cpu", "cpu.idle", "cpu.idle", idle);
        out.push(if idle == 0 { write.optional() } else { write });
    }
    // An idle group has no weight, and the kernel refuses to give it one.
    if let Some(shares) = asked(cpu.shares()).filter(|_| cpu.idle() != Some(1)) {
        out.push(Write::new("cpu", "cpu.shares", "cpu.weight", cpu_weight(shares)));
    }
    if let Some(burst) = cpu.burst() {
        let write = Write::new("cpu", "cpu.burst", "cpu.max.burst", burst).again();
        out.push(if burst == 0 { write.optional() } else { write });
    }
    let (quota, period) = (asked(cpu.quota()), asked(cpu.period()));
    if quota.is_some() || period.is_some() {
        let quota = quota.filter(|quota| *quota > 0).map_or("max".to_owned(), |q| q.to_string());
        let value = format!("{quota} {}", period.unwrap_or(100_000));
        let json = if cpu.quota().is_some() { "cpu.quota" } else { "cpu.period" };
        out.push(Write::new("cpu", json, "cpu.max", value).again());
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

/// In name order, so that a failure is always the same one. Each line of a value is a write.
fn unified_writes(resources: &LinuxResources, out: &mut Vec<Write>) {
    let mut keys: Vec<_> = resources.unified().iter().flatten().collect();
    keys.sort();
    for (key, value) in keys {
        let json = format!("unified[{key:?}]");
        let controller = key.split('.').next().unwrap_or_default().to_owned();
        // "" resets some files (cpuset.cpus), so one empty line is a write as well.
        for line in value.strip_suffix('\n').unwrap_or(value).split('\n') {
            let mut write = Write::new("", json.clone(), key.clone(), line);
            write.controller = controller.clone().into();
            out.push(write);
        }
    }
}

/// The curve through 2 → 1, 1024 → 100 and 262144 → 10000 that runc, crun and systemd agreed on.
pub fn cpu_weight(shares: u64) -> u64 {
    if shares <= 2 {
        return 1;
    }
    if shares >= 262_144 {
        return 10_000;
    }
    let log = (shares as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    10_f64.powf(exponent).ceil() as u64
}

/// 10 to 1000 become 1 to 10000, linearly.
pub fn io_weight(weight: u16) -> u64 {
    1 + u64::from(weight.saturating_sub(10)) * 9999 / 990
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(resources: serde_json::Value) -> Vec<String> {
        let resources: LinuxResources = serde_json::from_value(resources).unwrap();
        let line = |write: Write| format!("{}={}", write.file, write.value);
        writes(&resources).unwrap().into_iter().map(line).collect()
    }

    #[test]
    fn the_weights_meet_their_fixed_points() {
        for (shares, weight) in [(2, 1), (1024, 100), (262_144, 10_000), (1, 1), (u64::MAX, 10_000)]
        {
            assert_eq!(cpu_weight(shares), weight, "{shares}");
        }
        assert_eq!((io_weight(10), io_weight(1000)), (1, 10_000));
    }

    proptest! {
        #[test]
        fn weights_grow_with_what_was_asked_and_stay_in_range(a in 2_u64..262_145, b in 2_u64..262_145) {
            prop_assert!((1..=10_000).contains(&cpu_weight(a)));
            prop_assert!(a > b || cpu_weight(a) <= cpu_weight(b));
        }

        #[test]
        fn swap_is_what_memory_leaves_of_it(limit in 1_i64..1 << 50, more in 0_i64..1 << 50) {
            let swap = swap_max(Some(limit), Some(limit + more)).unwrap();
            prop_assert_eq!(swap, Some(more.to_string()));
        }
    }

    #[test]
    fn every_field_has_its_file() {
        let all = lines(serde_json::json!({
            "memory": {"limit": 9_000_000, "swap": 10_000_000, "reservation": 5_000_000},
            "cpu": {"shares": 1024, "quota": 20000, "burst": 10, "idle": 0,
                    "cpus": "0", "mems": "0"},
            "pids": {"limit": -1},
            "blockIO": {"weight": 10,
                        "weightDevice": [{"major": 8, "minor": 1, "weight": 30}],
                        "throttleReadBpsDevice": [{"major": 8, "minor": 1, "rate": 1}],
                        "throttleWriteIOPSDevice": [{"major": 8, "minor": 1, "rate": 0}]},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 4_194_304}],
            "rdma": {"mlx5_1": {"hcaHandles": 3}},
            "unified": {"memory.high": "100", "io.max": "8:0 rbps=1\n8:16 rbps=2\n"},
        }));
        assert_eq!(
            all,
            [
                "pids.max=max",
                "memory.swap.max=1000000",
                "memory.max=9000000",
                "memory.low=5000000",
                "io.bfq.weight=10",
                "io.bfq.weight=8:1 30",
                "io.max=8:1 rbps=1",
                "io.max=8:1 wiops=max",
                "cpu.idle=0",
                "cpu.weight=100",
                "cpu.max.burst=10",
                "cpu.max=20000 100000",
                "cpuset.cpus=0",
                "cpuset.mems=0",
                "hugetlb.2MB.max=4194304",
                "hugetlb.2MB.rsvd.max=4194304",
                "rdma.max=mlx5_1 hca_handle=3",
                "io.max=8:0 rbps=1",
                "io.max=8:16 rbps=2",
                "memory.high=100",
            ]
        );
    }

    #[test]
    fn swap_in_all_its_combinations() {
        for (limit, swap, expected) in [
            (None, None, Ok(None)),
            (Some(-1), None, Ok(Some("max"))),
            (Some(100), Some(-1), Ok(Some("max"))),
            (Some(100), Some(100), Ok(Some("0"))),
            (Some(100), Some(150), Ok(Some("50"))),
            (Some(-1), Some(150), Ok(Some("150"))),
            (Some(100), None, Ok(None)),
            (None, Some(150), Err("unable to set swap limit without memory limit")),
            (Some(100), Some(50), Err("memory+swap limit should be >= memory limit")),
        ] {
            match (swap_max(limit, swap), expected) {
                (Ok(got), Ok(expected)) => assert_eq!(got.as_deref(), expected),
                (Err(error), Err(words)) => assert!(error.to_string().ends_with(words), "{error}"),
                (got, _) => panic!("{limit:?} {swap:?}: {got:?}"),
            }
        }
    }

    #[test]
    fn what_v2_lacks_is_refused() {
        for (json, path) in [
            (r#"{"cpu": {"realtimePeriod": 1000}}"#, "cpu.realtimePeriod"),
            (r#"{"cpu": {"realtimeRuntime": 1000}}"#, "cpu.realtimeRuntime"),
            (r#"{"network": {"classID": 7}}"#, "network.classID"),
            (
                r#"{"network": {"priorities": [{"name": "lo", "priority": 1}]}}"#,
                "network.priorities",
            ),
            (r#"{"blockIO": {"leafWeight": 100}}"#, "blockIO.leafWeight"),
        ] {
            let error = writes(&serde_json::from_str(json).unwrap()).unwrap_err().to_string();
            assert_eq!(error, only_v1(path).to_string());
        }
    }
}
