//! The limits as properties of a unit: what systemd would otherwise undo on `daemon-reload`. Pure.
//!
//! They are read off the writes of cgroup v2 ([`super::super::v2::writes`]), so that fields and
//! `unified` mean the same thing here and in the files. What systemd has no property for it does
//! not touch: hugetlb, rdma, misc, the io limits of devices, the burst.

use oci_spec::runtime::LinuxResources;

use super::value::{Properties, Value};
use crate::cgroup::v2;
use crate::error::Result;

/// `max`.
const INFINITY: u64 = u64::MAX;
/// systemd keeps a quota in whole percents.
const PERCENT_USEC: u64 = 10_000;

/// The properties that `resources` ask for, as this version of systemd knows them.
pub(crate) fn of(resources: &LinuxResources, version: u32) -> Result<Properties> {
    let mut out = Properties::new();
    let mut set = |name: &str, value: Value| {
        out.retain(|(known, _)| known != name);
        out.push((name.to_owned(), value));
    };
    for write in v2::writes(resources)? {
        let amount = number(&write.value).map(Value::ULong);
        match (write.file.as_ref(), amount) {
            ("memory.max", Some(amount)) => set("MemoryMax", amount),
            ("memory.high", Some(amount)) => set("MemoryHigh", amount),
            ("memory.low", Some(amount)) => set("MemoryLow", amount),
            ("memory.min", Some(amount)) => set("MemoryMin", amount),
            ("memory.swap.max", Some(amount)) => set("MemorySwapMax", amount),
            ("pids.max", Some(amount)) => set("TasksMax", amount),
            ("cpu.weight", Some(amount)) => set("CPUWeight", amount),
            ("cpu.idle", Some(Value::ULong(1))) if version >= 252 => {
                set("CPUWeight", Value::ULong(0));
            }
            ("cpu.idle", Some(Value::ULong(0))) if version >= 252 => {
                set("CPUWeight", Value::ULong(INFINITY));
            }
            ("cpu.max", _) => {
                let (quota, period) =
                    write.value.split_once(' ').unwrap_or((&write.value, "100000"));
                let (Some(quota), Some(period)) = (number(quota), number(period)) else { continue };
                set("CPUQuotaPerSecUSec", Value::ULong(per_second(quota, period)));
                if version >= 242 {
                    set("CPUQuotaPeriodUSec", Value::ULong(period));
                }
            }
            ("cpuset.cpus", _) if version >= 244 => {
                if let Some(mask) = mask(&write.value) {
                    set("AllowedCPUs", Value::Bytes(mask));
                }
            }
            ("cpuset.mems", _) if version >= 244 => {
                if let Some(mask) = mask(&write.value) {
                    set("AllowedMemoryNodes", Value::Bytes(mask));
                }
            }
            // A device's own weight has a line of two words.
            ("io.bfq.weight", Some(_)) => {
                let weight = write.instead.as_ref().and_then(|(_, value)| number(value));
                if let Some(weight) = weight {
                    set("IOWeight", Value::ULong(weight));
                }
            }
            ("io.weight", Some(amount)) => set("IOWeight", amount),
            _ => {}
        }
    }
    Ok(out)
}

fn number(text: &str) -> Option<u64> {
    match text.trim() {
        "max" => Some(INFINITY),
        digits => digits.parse().ok(),
    }
}

/// Rounded up, so that the container never gets less than what was asked for.
fn per_second(quota: u64, period: u64) -> u64 {
    if quota == INFINITY || period == 0 {
        return INFINITY;
    }
    let exact = (u128::from(quota) * 1_000_000).div_ceil(u128::from(period));
    u64::try_from(exact).unwrap_or(INFINITY).div_ceil(PERCENT_USEC).saturating_mul(PERCENT_USEC)
}

/// A bit for each number of a list, the lowest first.
fn mask(list: &str) -> Option<Vec<u8>> {
    let numbers = crate::cgroup::stats::numbers(list)?;
    let mut mask = Vec::new();
    for number in numbers {
        let byte = number as usize / 8;
        if mask.len() <= byte {
            mask.resize(byte + 1, 0);
        }
        mask[byte] |= 1 << (number % 8);
    }
    Some(mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn properties(json: serde_json::Value) -> String {
        let resources = serde_json::from_value(json).unwrap();
        let all = of(&resources, 252).unwrap();
        all.iter().map(|(name, value)| format!("{name}={value:?}")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn limits_have_their_properties() {
        for (resources, expected) in [
            (
                serde_json::json!({"memory": {"limit": 100, "swap": 300, "reservation": 50}}),
                "MemorySwapMax=ULong(200) MemoryMax=ULong(100) MemoryLow=ULong(50)",
            ),
            (
                serde_json::json!({"memory": {"limit": -1}}),
                "MemorySwapMax=ULong(18446744073709551615) MemoryMax=ULong(18446744073709551615)",
            ),
            (
                serde_json::json!({"cpu": {"shares": 1024, "quota": 20_001, "period": 100_000}}),
                "CPUWeight=ULong(100) CPUQuotaPerSecUSec=ULong(210000) CPUQuotaPeriodUSec=ULong(100000)",
            ),
            (
                serde_json::json!({"cpu": {"quota": -1}}),
                "CPUQuotaPerSecUSec=ULong(18446744073709551615) CPUQuotaPeriodUSec=ULong(100000)",
            ),
            (
                serde_json::json!({"cpu": {"cpus": "0-1,9", "mems": "0"}}),
                "AllowedCPUs=Bytes([3, 2]) AllowedMemoryNodes=Bytes([1])",
            ),
            (
                serde_json::json!({"pids": {"limit": 7}, "blockIO": {"weight": 10}}),
                "TasksMax=ULong(7) IOWeight=ULong(1)",
            ),
            (
                serde_json::json!({"unified": {"memory.high": "5", "pids.max": "max", "cpu.max": "max"}}),
                "CPUQuotaPerSecUSec=ULong(18446744073709551615) CPUQuotaPeriodUSec=ULong(100000) \
              MemoryHigh=ULong(5) TasksMax=ULong(18446744073709551615)",
            ),
            (serde_json::json!({"cpu": {"idle": 1}}), "CPUWeight=ULong(0)"),
            (serde_json::json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 1}]}), ""),
        ] {
            assert_eq!(properties(resources.clone()), expected, "{resources}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_quota_is_never_rounded_down(
            percents in 1_u64..1 << 30,
            beyond in 0_u64..3,
            period in 1000_u64..=1_000_000,
        ) {
            // Near a whole percent, where rounding goes wrong.
            let quota = percents * PERCENT_USEC * period / 1_000_000 + beyond;
            let (rounded, period) = (u128::from(per_second(quota, period)), u128::from(period));
            let percent = u128::from(PERCENT_USEC);
            proptest::prop_assert_eq!(rounded % percent, 0);
            // In parts of a microsecond.
            let asked = u128::from(quota) * 1_000_000;
            proptest::prop_assert!(rounded * period >= asked && (rounded - percent) * period < asked);
        }
    }
}
