//! `linux.memoryPolicy`: on which NUMA nodes the process gets its memory.
//!
//! Promise: the asked mode and flags, read back. A node that this host does not have is an error:
//! the kernel answers EINVAL.
//!
//! Order: in the process itself, after it joined its cpuset (the kernel checks the nodes against
//! it) and before the filter.

use oci_spec::runtime::{LinuxMemoryPolicy, MemoryPolicyFlagType, MemoryPolicyModeType};

use super::{json_path, sched};
use crate::error::{Doing, Error, Result};
use crate::sys::sched::{get_mempolicy, set_mempolicy};

/// More nodes than any kernel is built for (MAX_NUMNODES is at most 1024).
const NODES: usize = 4096;

/// A mode with its flags, and a mask of nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryPolicy {
    mode: libc::c_int,
    nodes: Vec<u64>,
}

impl MemoryPolicy {
    /// Validates the value at the JSON path `path` (`linux.memoryPolicy`). Nodes may be absent or
    /// empty, which some modes need.
    ///
    /// # Errors
    /// A config error for a broken list of nodes.
    pub fn new(policy: &LinuxMemoryPolicy, path: &str) -> Result<Self> {
        let flags = policy.flags().iter().flatten().fold(0, |all, flag| {
            all | match flag {
                MemoryPolicyFlagType::MpolFStaticNodes => libc::MPOL_F_STATIC_NODES,
                MemoryPolicyFlagType::MpolFRelativeNodes => libc::MPOL_F_RELATIVE_NODES,
                MemoryPolicyFlagType::MpolFNumaBalancing => libc::MPOL_F_NUMA_BALANCING,
            }
        });
        let mode = match policy.mode() {
            MemoryPolicyModeType::MpolDefault => libc::MPOL_DEFAULT,
            MemoryPolicyModeType::MpolPreferred => libc::MPOL_PREFERRED,
            MemoryPolicyModeType::MpolBind => libc::MPOL_BIND,
            MemoryPolicyModeType::MpolInterleave => libc::MPOL_INTERLEAVE,
            MemoryPolicyModeType::MpolLocal => libc::MPOL_LOCAL,
            MemoryPolicyModeType::MpolPreferredMany => 5,
            MemoryPolicyModeType::MpolWeightedInterleave => 6,
        };
        let mut nodes = Vec::new();
        if let Some(list) = policy.nodes().as_ref().filter(|list| !list.is_empty()) {
            let numbers = sched::numbers(list, NODES)
                .map_err(|why| Error::config(json_path(path, "nodes"), why))?;
            for node in numbers {
                nodes.resize(nodes.len().max(node / 64 + 1), 0);
                nodes[node / 64] |= 1 << (node % 64);
            }
        }
        Ok(Self { mode: mode | flags, nodes })
    }

    /// Sets it for this process and its children.
    ///
    /// # Errors
    /// `EINVAL` for a node that is not there or a mode that needs nodes; `ENOSYS` without NUMA.
    pub fn apply(&self) -> Result<()> {
        let doing = || format!("set memory policy {:#x}", self.mode);
        set_mempolicy(self.mode, &self.nodes).doing(doing)?;
        match get_mempolicy().doing(doing)? {
            now if now == self.mode => Ok(()),
            now => Err(Error::Failed(format!("{}: it is {now:#x} afterwards", doing()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;
    use serde_json::json;

    use super::*;
    use crate::sys::testing::in_child;

    fn policy(mode: &str, nodes: &str, flags: &[&str]) -> Result<MemoryPolicy> {
        let json = json!({"mode": mode, "nodes": nodes, "flags": flags});
        MemoryPolicy::new(&serde_json::from_value(json).unwrap(), "linux.memoryPolicy")
    }

    #[test]
    fn nodes_are_a_mask() {
        let plan = policy("MPOL_BIND", "0-1,64", &["MPOL_F_STATIC_NODES"]).unwrap();
        assert_eq!(plan, MemoryPolicy { mode: 2 | 1 << 15, nodes: vec![3, 1] });
        assert!(policy("MPOL_LOCAL", "", &[]).unwrap().nodes.is_empty());
        let error = policy("MPOL_BIND", "0-", &[]).unwrap_err().to_string();
        assert!(error.starts_with("config.json: linux.memoryPolicy.nodes: "), "{error}");
        assert!(policy("MPOL_BIND", "4096", &[]).is_err());
    }

    #[test]
    fn modes_reach_the_kernel() {
        in_child(|| {
            if get_mempolicy() == Err(Errno::ENOSYS) {
                return;
            }
            for (mode, nodes) in [
                ("MPOL_BIND", "0"),
                ("MPOL_INTERLEAVE", "0"),
                ("MPOL_PREFERRED", "0"),
                ("MPOL_LOCAL", ""),
                ("MPOL_DEFAULT", ""),
            ] {
                policy(mode, nodes, &[]).unwrap().apply().unwrap();
            }
            let absent = policy("MPOL_BIND", "1000", &[]).unwrap().apply().unwrap_err();
            assert_eq!(absent.errno(), Some(Errno::EINVAL));
        });
    }
}
