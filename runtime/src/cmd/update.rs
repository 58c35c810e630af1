//! `corten update`: changes the resource limits of a container.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use crate::cli::{self, Globals};
use crate::error::{Error, Result};

/// The arguments of `corten update`. With `--resources` all others but the id are ignored.
#[derive(Debug, ClapArgs)]
#[group(skip)]
pub struct Args {
    /// File with LinuxResources as JSON, or - for standard input.
    #[arg(short, long, value_name = "FILE")]
    pub resources: Option<PathBuf>,

    /// Block I/O weight, 10 to 1000.
    #[arg(long, value_name = "N")]
    pub blkio_weight: Option<u16>,

    /// Length of a CPU period in microseconds.
    #[arg(long, value_name = "US")]
    pub cpu_period: Option<u64>,

    /// CPU time per period in microseconds; -1 is unlimited.
    #[arg(long, value_name = "US")]
    pub cpu_quota: Option<i64>,

    /// CPU time in microseconds that may be saved up for a burst.
    #[arg(long, value_name = "US")]
    pub cpu_burst: Option<u64>,

    /// CPU shares, relative to other groups.
    #[arg(long, value_name = "N")]
    pub cpu_share: Option<u64>,

    /// Real-time CPU period in microseconds.
    #[arg(long, value_name = "US")]
    pub cpu_rt_period: Option<u64>,

    /// Real-time CPU time per period in microseconds.
    #[arg(long, value_name = "US")]
    pub cpu_rt_runtime: Option<i64>,

    /// 1 makes the container's processes SCHED_IDLE, 0 ends it.
    #[arg(long, value_name = "0|1")]
    pub cpu_idle: Option<i64>,

    /// CPUs to run on, as a list: 0-3,7.
    #[arg(long, value_name = "LIST")]
    pub cpuset_cpus: Option<String>,

    /// Memory nodes to use, as a list.
    #[arg(long, value_name = "LIST")]
    pub cpuset_mems: Option<String>,

    /// Kernel memory limit; ignored with a warning.
    #[arg(long, value_name = "BYTES", hide = true, value_parser = cli::units::bytes)]
    pub kernel_memory: Option<i64>,

    /// Kernel TCP buffer limit; ignored with a warning.
    #[arg(long, value_name = "BYTES", hide = true, value_parser = cli::units::bytes)]
    pub kernel_memory_tcp: Option<i64>,

    /// Memory limit: bytes or with a unit, 512m; -1 is unlimited.
    #[arg(long, value_name = "BYTES", value_parser = cli::units::bytes)]
    pub memory: Option<i64>,

    /// Memory soft limit.
    #[arg(long, value_name = "BYTES", value_parser = cli::units::bytes)]
    pub memory_reservation: Option<i64>,

    /// Limit of memory and swap together.
    #[arg(long, value_name = "BYTES", value_parser = cli::units::bytes)]
    pub memory_swap: Option<i64>,

    /// Most processes at a time; -1 is unlimited.
    #[arg(long, value_name = "N")]
    pub pids_limit: Option<i64>,

    /// Intel RDT L3 cache schema.
    #[arg(long, value_name = "SCHEMA")]
    pub l3_cache_schema: Option<String>,

    /// Intel RDT memory bandwidth schema.
    #[arg(long, value_name = "SCHEMA")]
    pub mem_bw_schema: Option<String>,

    /// The container's id.
    #[arg(value_name = "ID", value_parser = cli::container_id)]
    pub id: String,
}

/// Carries out `corten update`; the answer is the process's exit code.
pub fn run(_globals: &Globals, _args: &Args) -> Result<u8> {
    Err(Error::Unsupported("corten update is not there yet".to_owned()))
}
