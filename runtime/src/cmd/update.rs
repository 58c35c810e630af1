//! `corten update`: changes the resource limits of a container.

use std::path::PathBuf;

use crate::cli::options::{arguments, number, path, text};
use crate::cli::units::bytes;
use crate::cli::{Globals, container_id};
use crate::error::{Error, Result};

arguments! {
    /// The arguments of `corten update`. With `--resources` all others but the id are ignored.
    pub struct Args {
        /// File with LinuxResources as JSON, or - for standard input.
        resources: Option<PathBuf> = value("FILE", path), short 'r';
        /// Block I/O weight, 10 to 1000.
        blkio_weight: Option<u16> = value("N", number::<u16>);
        /// Length of a CPU period in microseconds.
        cpu_period: Option<u64> = value("US", number::<u64>);
        /// CPU time per period in microseconds; -1 is unlimited.
        cpu_quota: Option<i64> = value("US", number::<i64>);
        /// CPU time in microseconds that may be saved up for a burst.
        cpu_burst: Option<u64> = value("US", number::<u64>);
        /// CPU shares, relative to other groups.
        cpu_share: Option<u64> = value("N", number::<u64>);
        /// Real-time CPU period in microseconds.
        cpu_rt_period: Option<u64> = value("US", number::<u64>);
        /// Real-time CPU time per period in microseconds.
        cpu_rt_runtime: Option<i64> = value("US", number::<i64>);
        /// 1 makes the container's processes SCHED_IDLE, 0 ends it.
        cpu_idle: Option<i64> = value("0|1", number::<i64>);
        /// CPUs to run on, as a list: 0-3,7.
        cpuset_cpus: Option<String> = value("LIST", text);
        /// Memory nodes to use, as a list.
        cpuset_mems: Option<String> = value("LIST", text);
        /// Kernel memory limit; ignored with a warning.
        kernel_memory: Option<i64> = value("BYTES", bytes), hidden true;
        /// Kernel TCP buffer limit; ignored with a warning.
        kernel_memory_tcp: Option<i64> = value("BYTES", bytes), hidden true;
        /// Memory limit: bytes or with a unit, 512m; -1 is unlimited.
        memory: Option<i64> = value("BYTES", bytes);
        /// Memory soft limit.
        memory_reservation: Option<i64> = value("BYTES", bytes);
        /// Limit of memory and swap together.
        memory_swap: Option<i64> = value("BYTES", bytes);
        /// Most processes at a time; -1 is unlimited.
        pids_limit: Option<i64> = value("N", number::<i64>);
        /// Intel RDT L3 cache schema.
        l3_cache_schema: Option<String> = value("SCHEMA", text);
        /// Intel RDT memory bandwidth schema.
        mem_bw_schema: Option<String> = value("SCHEMA", text);
        /// The container's id.
        id: String = operand("ID", container_id);
    }
}

/// Carries out `corten update`; the answer is the process's exit code.
pub fn run(_globals: &Globals, _args: &Args) -> Result<u8> {
    Err(Error::Unsupported("corten update is not there yet".to_owned()))
}
