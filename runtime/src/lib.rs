//! corten: a low-level OCI container runtime.
//!
//! `config.json` becomes a [`spec`], the spec becomes a plan in the kernel's words, the plan is
//! carried out by two scripts, `create` and `init`, that speak over one socket. ARCHITECTURE.md
//! follows a create step by step.

pub mod cgroup;
pub mod cli;
pub mod cmd;
pub mod error;
pub mod gate;
pub mod hooks;
pub mod log;
pub mod output;
pub mod process;
pub mod rootfs;
pub mod seal;
pub mod seccomp;
pub mod spec;
pub mod state;
pub mod store;
pub mod sync;
pub mod sys;
pub mod time;
pub mod undo;

pub use error::{Error, Result};
