//! What holds of limits whatever the numbers: both versions of cgroups say the same, in their words.

use oci_spec::runtime::LinuxResources;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::plan::Write;
use super::{v1, v2};

fn of(resources: &Value) -> LinuxResources {
    serde_json::from_value(resources.clone()).unwrap()
}

/// What is written to a file, if anything.
fn value<'a>(writes: &'a [Write], file: &str) -> Option<&'a str> {
    writes.iter().rfind(|write| write.file == file).map(|write| write.value.as_str())
}

/// An amount in v1's words in those of v2.
fn or_max(amount: Option<&str>) -> Option<&str> {
    amount.map(|amount| if amount == "-1" { "max" } else { amount })
}

/// Bytes, -1, or nothing.
fn amount() -> impl Strategy<Value = Option<i64>> {
    prop_oneof![Just(None), Just(Some(-1)), (1_i64..1 << 62).prop_map(Some), Just(Some(i64::MAX))]
}

proptest! {
    /// log10(weight) is the square function of log2(shares) through (1, 0), (10, 2) and (18, 4).
    #[test]
    fn a_weight_is_on_the_curve(shares in 2_u64..=262_144) {
        let x = (shares as f64).log2();
        let y = 2.0 * (x - 1.0) * (x - 18.0) / (9.0 * -8.0) + 4.0 * (x - 1.0) * (x - 10.0) / (17.0 * 8.0);
        let (exact, weight) = (10_f64.powf(y), v2::cpu_weight(shares) as f64);
        prop_assert!(weight >= exact - 1e-6 && weight < exact + 1.0 + 1e-6, "{shares}: {weight}, not {exact}");
    }

    /// The same limits; v1 counts memory and swap together, v2 swap alone.
    #[test]
    fn memory_is_the_same_on_both(limit in amount(), swap in amount(), reservation in amount()) {
        let resources = json!({"memory": {"limit": limit, "swap": swap, "reservation": reservation}});
        let resources = of(&resources);
        let old = v1::writes(&resources).unwrap();
        let Ok(new) = v2::writes(&resources) else {
            let less = limit.is_some_and(|limit| limit != -1 && swap.is_some_and(|swap| swap < limit));
            prop_assert!(swap != Some(-1) && (limit.is_none() || less));
            return Ok(());
        };
        prop_assert_eq!(or_max(value(&old, "memory.limit_in_bytes")), value(&new, "memory.max"));
        prop_assert_eq!(or_max(value(&old, "memory.soft_limit_in_bytes")), value(&new, "memory.low"));
        let both = or_max(value(&old, "memory.memsw.limit_in_bytes"));
        let alone = value(&new, "memory.swap.max");
        match (both.map(str::parse::<i64>), alone.map(str::parse::<i64>)) {
            (Some(Ok(both)), Some(Ok(alone))) => {
                prop_assert_eq!(both, alone + limit.filter(|limit| *limit != -1).unwrap_or(0));
            }
            _ => prop_assert_eq!(both, alone),
        }
    }

    #[test]
    fn processor_time_and_processes_are_the_same_on_both(
        quota in prop_oneof![Just(None), Just(Some(-1)), (1000_i64..i64::MAX).prop_map(Some)],
        period in proptest::option::of(1000_u64..=1_000_000),
        pids in prop_oneof![-2_i64..3, any::<i64>()],
    ) {
        let resources = of(&json!({"cpu": {"quota": quota, "period": period}, "pids": {"limit": pids}}));
        let (old, new) = (v1::writes(&resources).unwrap(), v2::writes(&resources).unwrap());
        let expected = (quota.is_some() || period.is_some()).then(|| {
            let quota = or_max(value(&old, "cpu.cfs_quota_us")).unwrap_or("max");
            format!("{quota} {}", value(&old, "cpu.cfs_period_us").unwrap_or("100000"))
        });
        prop_assert_eq!(expected.as_deref(), value(&new, "cpu.max"));
        prop_assert_eq!(value(&old, "pids.max"), value(&new, "pids.max"));
        let most = value(&new, "pids.max").unwrap();
        let expected = if pids < 0 { "max".to_owned() } else { pids.max(1).to_string() };
        prop_assert_eq!(most, expected);
    }

    #[test]
    fn throttles_are_the_same_on_both(major in 0_u32..4096, minor in 0_u32..1 << 20, rate in prop_oneof![0..2_u64, any::<u64>()]) {
        let device = json!([{"major": major, "minor": minor, "rate": rate}]);
        for (json, old, new) in [
            ("throttleReadBpsDevice", "blkio.throttle.read_bps_device", "rbps"),
            ("throttleWriteBpsDevice", "blkio.throttle.write_bps_device", "wbps"),
            ("throttleReadIOPSDevice", "blkio.throttle.read_iops_device", "riops"),
            ("throttleWriteIOPSDevice", "blkio.throttle.write_iops_device", "wiops"),
        ] {
            let resources = of(&json!({"blockIO": {json: device}}));
            let (before, after) = (v1::writes(&resources).unwrap(), v2::writes(&resources).unwrap());
            let number = format!("{major}:{minor}");
            let expected = format!("{number} {rate}");
            prop_assert_eq!(value(&before, old), Some(expected.as_str()));
            let rate = if rate == 0 { "max".to_owned() } else { rate.to_string() };
            let expected = format!("{number} {new}={rate}");
            prop_assert_eq!(value(&after, "io.max"), Some(expected.as_str()));
        }
    }
}

/// Through (10, 1) and (1000, 10000) in a straight line, rounded down: all of them.
#[test]
fn a_weight_of_block_io_is_on_the_line() {
    for weight in 10..=1000_u16 {
        let (asked, given) = (u64::from(weight - 10) * 9999, v2::io_weight(weight) - 1);
        assert!(given * 990 <= asked && asked < (given + 1) * 990, "{weight}: {given}");
        let writes = v2::writes(&of(&json!({"blockIO": {"weight": weight}}))).unwrap();
        assert_eq!(value(&writes, "io.bfq.weight"), Some(weight.to_string().as_str()));
        let instead = writes[0].instead.clone();
        assert_eq!(instead, Some(("io.weight", (given + 1).to_string())));
    }
}
