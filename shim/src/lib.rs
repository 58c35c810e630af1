//! `containerd-shim-corten-v2`: the process that supervises a pod's containers for containerd.
//!
//! One thread and one loop ([`server`]). What can block runs in a forked [`worker`], which drives
//! the runtime's library; what the loop itself does, it does on descriptors that never block. So
//! the answers to State, Pids, Stats, Wait, Kill and Connect do not depend on anything that hangs.
//! `docs/shim.md` follows an exit from the kernel to containerd.

pub mod bootstrap;
pub mod bundle;
pub mod cleanup;
pub mod cli;
pub mod container;
pub mod events;
pub mod exits;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod info;
pub mod io;
pub mod log;
pub mod mounts;
pub mod oom;
pub mod options;
pub mod poll;
pub mod server;
pub mod service;
pub mod stats;
pub mod transport;
pub mod waiting;
pub mod worker;
