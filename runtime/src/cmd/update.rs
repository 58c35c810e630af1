//! `corten update`: changes the resource limits of a container.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources};

use crate::cli::options::{arguments, number, path, text};
use crate::cli::units::bytes;
use crate::cli::{Globals, container_id};
use crate::error::{Doing, Error, Result};
use crate::{spec, update};

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
///
/// # Errors
/// The limit that could not be set; the old ones are in force then.
pub fn run(globals: &Globals, args: &Args) -> Result<u8> {
    let resources = match &args.resources {
        Some(file) => spec::parse_resources(&read(file)?, file)?,
        None if args.l3_cache_schema.as_ref().or(args.mem_bw_schema.as_ref()).is_some() => {
            return Err(Error::Unsupported(
                "Intel RDT/CAT: l3 cache schema is not enabled".to_owned(),
            ));
        }
        None => args.resources(),
    };
    update::update(&globals.store(), &args.id, &resources)?;
    Ok(0)
}

fn read(file: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = if file == Path::new("-") {
        std::io::stdin().read_to_end(&mut bytes)
    } else {
        File::open(file).and_then(|mut file| file.read_to_end(&mut bytes))
    };
    read.doing(|| format!("read {}", file.display()))?;
    Ok(bytes)
}

impl Args {
    /// What the options ask for.
    fn resources(&self) -> LinuxResources {
        if self.kernel_memory.or(self.kernel_memory_tcp).is_some() {
            tracing::warn!("kernel memory limits are ignored: the kernel has none any more");
        }
        let mut memory = LinuxMemory::default();
        memory
            .set_limit(self.memory)
            .set_reservation(self.memory_reservation)
            .set_swap(self.memory_swap);
        let mut cpu = LinuxCpu::default();
        cpu.set_shares(self.cpu_share)
            .set_period(self.cpu_period)
            .set_quota(self.cpu_quota)
            .set_burst(self.cpu_burst)
            .set_realtime_period(self.cpu_rt_period)
            .set_realtime_runtime(self.cpu_rt_runtime)
            .set_idle(self.cpu_idle)
            .set_cpus(self.cpuset_cpus.clone())
            .set_mems(self.cpuset_mems.clone());
        let mut block = LinuxBlockIo::default();
        block.set_weight(self.blkio_weight);
        let mut resources = LinuxResources::default();
        resources
            .set_devices(None)
            .set_memory(Some(memory))
            .set_cpu(Some(cpu))
            .set_block_io(Some(block))
            .set_pids(self.pids_limit.map(|limit| {
                let mut pids = LinuxPids::default();
                pids.set_limit(limit);
                pids
            }));
        resources
    }
}
