//! Being written: what a process waits for.

use nix::unistd::Pid;

/// One short phrase.
pub fn what_it_waits_for(pid: Pid) -> String {
    format!("process {pid}")
}
