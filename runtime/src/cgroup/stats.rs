//! What the group has used, in the JSON of `runc events --stats`.
//!
//! cAdvisor and others parse it, so names, units (v1's: nanoseconds, bytes) and what is left out
//! when zero are runc's. A file that this kernel lacks leaves its field zero; a file that can't be
//! read is an error.

pub mod read_v1;
mod read_v2;
pub mod reader;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use self::reader::Reader;
use super::dir::Dir;
use super::{Cgroup, Version};
use crate::error::Result;

/// Everything. `intel_rdt` and `network_interfaces` are others' to fill.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stats {
    /// Processor time.
    pub cpu: Cpu,
    /// Allowed processors and memory nodes (v1).
    pub cpuset: CpuSet,
    /// Memory.
    pub memory: Memory,
    /// Processes and threads.
    pub pids: Pids,
    /// Block devices.
    pub blkio: Blkio,
    /// Huge pages, by page size.
    pub hugetlb: BTreeMap<String, Hugetlb>,
    /// Intel RDT.
    pub intel_rdt: serde_json::Map<String, serde_json::Value>,
    /// The container's interfaces.
    pub network_interfaces: Option<Vec<NetworkInterface>>,
}

/// Processor time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cpu {
    /// Time used.
    #[serde(skip_serializing_if = "is_default")]
    pub usage: CpuUsage,
    /// Time refused.
    #[serde(skip_serializing_if = "is_default")]
    pub throttling: Throttling,
    /// Pressure (v2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Psi>,
}

/// Nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CpuUsage {
    /// All of it.
    #[serde(skip_serializing_if = "is_default")]
    pub total: u64,
    /// By processor (v1).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu: Vec<u64>,
    /// In the kernel, by processor (v1).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_kernel: Vec<u64>,
    /// In user mode, by processor (v1).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_user: Vec<u64>,
    /// In the kernel.
    pub kernel: u64,
    /// In user mode.
    pub user: u64,
}

/// How often the quota was used up.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Throttling {
    /// Periods with something to run.
    #[serde(skip_serializing_if = "is_default")]
    pub periods: u64,
    /// Periods in which the quota was used up.
    #[serde(skip_serializing_if = "is_default")]
    pub throttled_periods: u64,
    /// Nanoseconds.
    #[serde(skip_serializing_if = "is_default")]
    pub throttled_time: u64,
}

/// The v1 cpuset's files.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "each field is the file of its name")]
pub struct CpuSet {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cpus: Vec<u32>,
    pub cpu_exclusive: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mems: Vec<u32>,
    pub mem_hardwall: u64,
    pub mem_exclusive: u64,
    pub memory_migrate: u64,
    pub memory_spread_page: u64,
    pub memory_spread_slab: u64,
    pub memory_pressure: u64,
    pub sched_load_balance: u64,
    pub sched_relax_domain_level: i64,
}

/// Bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// Page cache.
    #[serde(skip_serializing_if = "is_default")]
    pub cache: u64,
    /// All of it.
    #[serde(skip_serializing_if = "is_default")]
    pub usage: MemoryEntry,
    /// Together with swap.
    #[serde(skip_serializing_if = "is_default")]
    pub swap: MemoryEntry,
    /// The kernel's (v1).
    #[serde(skip_serializing_if = "is_default")]
    pub kernel: MemoryEntry,
    /// TCP buffers (v1).
    #[serde(rename = "kernelTCP", skip_serializing_if = "is_default")]
    pub kernel_tcp: MemoryEntry,
    /// memory.stat as it is.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub raw: BTreeMap<String, u64>,
    /// Pressure (v2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Psi>,
}

/// Bytes, and how often the limit was hit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MemoryEntry {
    /// The limit; 2^64-1 is none.
    pub limit: u64,
    /// Now.
    #[serde(skip_serializing_if = "is_default")]
    pub usage: u64,
    /// At most so far.
    #[serde(skip_serializing_if = "is_default")]
    pub max: u64,
    /// How often the limit was hit.
    pub failcnt: u64,
}

/// Processes and threads.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pids {
    /// Now.
    #[serde(skip_serializing_if = "is_default")]
    pub current: u64,
    /// The limit; 0 is none.
    #[serde(skip_serializing_if = "is_default")]
    pub limit: u64,
}

/// Block devices.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(missing_docs, reason = "runc's names of the v1 files")]
pub struct Blkio {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_service_bytes_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_serviced_recursive: Vec<BlkioEntry>,
    #[serde(rename = "ioQueueRecursive", skip_serializing_if = "Vec::is_empty")]
    pub io_queued_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_service_time_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_wait_time_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_merged_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_time_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sectors_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Psi>,
}

/// One number of one device.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BlkioEntry {
    /// Major number.
    #[serde(skip_serializing_if = "is_default")]
    pub major: u64,
    /// Minor number.
    #[serde(skip_serializing_if = "is_default")]
    pub minor: u64,
    /// Read, Write, ...
    #[serde(skip_serializing_if = "String::is_empty")]
    pub op: String,
    /// The number.
    #[serde(skip_serializing_if = "is_default")]
    pub value: u64,
}

/// Huge pages of one size, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hugetlb {
    /// Now.
    #[serde(skip_serializing_if = "is_default")]
    pub usage: u64,
    /// At most so far (v1).
    #[serde(skip_serializing_if = "is_default")]
    pub max: u64,
    /// How often the limit was hit.
    pub failcnt: u64,
}

/// Pressure: time that some or all processes waited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Psi {
    /// At least one process waited.
    #[serde(skip_serializing_if = "is_default")]
    pub some: PsiData,
    /// All of them did.
    #[serde(skip_serializing_if = "is_default")]
    pub full: PsiData,
}

/// Percentages over the last 10, 60 and 300 seconds, and microseconds in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the kernel's names")]
pub struct PsiData {
    pub avg10: f64,
    pub avg60: f64,
    pub avg300: f64,
    pub total: u64,
}

/// An interface of the container's network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
#[allow(missing_docs, reason = "the kernel's names")]
pub struct NetworkInterface {
    pub name: String,
    pub rx_bytes: u64,
    pub rx_packets: u64,
    pub rx_errors: u64,
    pub rx_dropped: u64,
    pub tx_bytes: u64,
    pub tx_packets: u64,
    pub tx_errors: u64,
    pub tx_dropped: u64,
}

impl Cgroup {
    /// What the group has used so far.
    ///
    /// # Errors
    /// A file that is there and can't be read.
    pub fn stats(&self) -> Result<Stats> {
        let mut stats = Stats::default();
        match self.version {
            Version::None => {}
            Version::V1 | Version::Hybrid => self.read_v1(&mut stats)?,
            Version::V2 => self.read_v2(&mut stats)?,
        }
        Ok(stats)
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A file with one number; absence is 0.
fn number(reader: &mut Reader, dir: &Dir, file: &str) -> Result<u64> {
    Ok(reader.number(dir, file)?.unwrap_or(0))
}

/// The numbers of a list like `0-3,7`; `None` when it is none.
pub(super) fn numbers(list: &str) -> Option<Vec<u32>> {
    let mut ranges = Vec::new();
    for part in list.trim().split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to): (u32, u32) = (from.parse().ok()?, to.parse().ok()?);
        // No machine has more, and a container's list must not exhaust our memory.
        if to > 1 << 16 {
            return None;
        }
        ranges.push((from, to));
    }
    // What is named twice is there once, or a short text would be a long list.
    ranges.sort_unstable();
    let (mut numbers, mut next) = (Vec::new(), 0);
    for (from, to) in ranges {
        numbers.extend(from.max(next)..=to);
        next = next.max(to + 1);
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_has_runcs_names_and_leaves_out_runcs_zeroes() {
        let mut stats = Stats::default();
        stats.cpu.usage.total = 5;
        stats.memory.usage = MemoryEntry { limit: 7, usage: 1, max: 0, failcnt: 0 };
        stats
            .blkio
            .io_queued_recursive
            .push(BlkioEntry { op: "Read".into(), ..Default::default() });
        assert_eq!(
            serde_json::to_string(&stats).unwrap(),
            concat!(
                r#"{"cpu":{"usage":{"total":5,"kernel":0,"user":0}},"cpuset":{"cpu_exclusive":0,"#,
                r#""mem_hardwall":0,"mem_exclusive":0,"memory_migrate":0,"memory_spread_page":0,"#,
                r#""memory_spread_slab":0,"memory_pressure":0,"sched_load_balance":0,"#,
                r#""sched_relax_domain_level":0},"memory":{"usage":{"limit":7,"usage":1,"failcnt":0}},"#,
                r#""pids":{},"blkio":{"ioQueueRecursive":[{"op":"Read"}]},"hugetlb":{},"#,
                r#""intel_rdt":{},"network_interfaces":null}"#
            )
        );
    }

    #[test]
    fn lists_of_numbers() {
        assert_eq!(numbers("0-2,7\n"), Some(vec![0, 1, 2, 7]));
        assert_eq!(numbers("\n"), Some(vec![]));
        assert_eq!(numbers("0-4294967295"), None);
        assert_eq!(numbers("x"), None);
        // Each once, however often it is named.
        assert_eq!(numbers("3, 7,5-8,6"), Some(vec![3, 5, 6, 7, 8]));
        assert_eq!(numbers(&"0-65536,".repeat(1000)).map(|all| all.len()), Some(65_537));
    }
}
