//! corten: a low-level OCI container runtime.
//!
//! `config.json` becomes a [`spec`], the spec becomes a plan in the kernel's words, the plan is
//! carried out by two scripts, `create` and `init`, that speak over one socket. ARCHITECTURE.md
//! follows a create step by step.

pub mod bundle;
pub mod cgroup;
pub mod cli;
pub mod cmd;
pub mod create;
pub mod delete;
pub mod error;
pub mod exec;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod gate;
pub mod hooks;
pub mod host;
pub mod init;
pub mod kill;
pub mod log;
pub mod namespaces;
pub mod notify;
pub mod output;
pub mod pause;
pub mod pidfile;
pub mod plan;
pub mod process;
pub mod program;
pub mod rootfs;
pub mod seal;
pub mod seccomp;
pub mod spawn;
pub mod spec;
pub mod start;
pub mod state;
pub mod store;
pub mod sync;
pub mod sys;
pub mod sysctl;
pub mod time;
pub mod undo;
pub mod update;
pub mod userns;

pub use error::{Error, Result};
