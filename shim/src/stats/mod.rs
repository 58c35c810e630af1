//! What a container has used: the answer to Stats, in the messages of containerd/cgroups.
//!
//! The CRI, cAdvisor and Prometheus read the numbers, so units, and what is a zero and what is
//! absent, are those of containerd's own shim: nanoseconds on v1, microseconds on v2; no limit is
//! 2^64-1, except that of v1's pids, where it is 0. A controller or a file that is missing leaves
//! its field out. On a hybrid host the controllers are v1's, so the message is too.
//!
//! It runs in the loop, so it must not wait: every file is one of the kernel's that is made when it
//! is read. `cgroup_stats` stays empty, as containerd leaves it: only netlink (taskstats) has these
//! numbers, and the kernel answers it under a lock (`genl_mutex`) that others may hold while they
//! wait for a device.

mod network;
mod v1;
mod v2;

#[cfg(test)]
mod tests;

use containerd_shim_protos::cgroups::metrics::Metrics as MetricsV1;
use containerd_shim_protos::cgroups_v2::metrics::Metrics as MetricsV2;
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use corten::cgroup::stats::reader::Reader;
use corten::cgroup::{Cgroup, Version};
use corten::error::{Error, Result};
use nix::unistd::Pid;

/// What the groups have counted, and the interfaces of `init`, a process of the container, if it
/// has a network of its own. `None` when there are no groups, or no longer: to the caller that is
/// "cgroup does not exist".
///
/// # Errors
/// A file that is there and can't be read.
pub fn metrics(cgroup: &Cgroup, init: Option<Pid>) -> Result<Option<Any>> {
    let mut reader = Reader::new();
    match cgroup.version() {
        Version::None => Ok(None),
        Version::V1 | Version::Hybrid => {
            let mut metrics = v1::read(cgroup, &mut reader)?;
            if metrics == MetricsV1::default() && !cgroup.exists()? {
                return Ok(None);
            }
            metrics.network = network::of(init).into_iter().map(v1::interface).collect();
            packed("io.containerd.cgroups.v1.Metrics", &metrics).map(Some)
        }
        Version::V2 => {
            let mut metrics = v2::read(cgroup, &mut reader)?;
            if metrics == MetricsV2::default() && !cgroup.exists()? {
                return Ok(None);
            }
            metrics.network = network::of(init).into_iter().map(v2::interface).collect();
            packed("io.containerd.cgroups.v2.Metrics", &metrics).map(Some)
        }
    }
}

/// The type's bare name, without a host: what Go's typeurl writes and looks up.
fn packed(type_url: &str, metrics: &impl Message) -> Result<Any> {
    let value = metrics.write_to_bytes();
    let value = value.map_err(|error| Error::Failed(format!("encode {type_url}: {error}")))?;
    Ok(Any { type_url: type_url.to_owned(), value, ..Any::default() })
}
