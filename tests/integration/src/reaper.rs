//! The harness as the subreaper that a container manager is: it waits for the processes that the
//! runtime leaves to it (a pid namespace can't end before they are waited for) and keeps their
//! exit codes for whoever asks.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

thread_local! {
    /// Commands that have a `Child` somewhere, which must be waited for there.
    static COMMANDS: RefCell<BTreeSet<i32>> = const { RefCell::new(BTreeSet::new()) };
    static ENDED: RefCell<BTreeMap<i32, i32>> = const { RefCell::new(BTreeMap::new()) };
}

/// This child is waited for by its own handle.
pub fn own(pid: i32) {
    COMMANDS.with(|all| all.borrow_mut().insert(pid));
    ENDED.with(|ended| ended.borrow_mut().remove(&pid));
}

/// This child has been waited for.
pub fn disown(pid: i32) {
    COMMANDS.with(|all| all.borrow_mut().remove(&pid));
}

/// Waits for all dead children that aren't commands.
pub fn reap() {
    for pid in children() {
        if COMMANDS.with(|all| all.borrow().contains(&pid.as_raw())) {
            continue;
        }
        let code = match waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(_, code)) => code,
            Ok(WaitStatus::Signaled(_, signal, _)) => 128 + signal as i32,
            _ => continue,
        };
        ENDED.with(|ended| ended.borrow_mut().insert(pid.as_raw(), code));
    }
}

/// Those of all our threads (proc_pid_task(5)).
fn children() -> Vec<Pid> {
    let threads = std::fs::read_dir("/proc/self/task").expect("list our threads").flatten();
    let lists = threads.map(|thread| std::fs::read_to_string(thread.path().join("children")));
    let words: String = lists.flatten().collect();
    words.split_whitespace().filter_map(|pid| pid.parse().ok()).map(Pid::from_raw).collect()
}

/// The exit code of a process that was left to us, 128 + n after a signal; `None` while it runs.
pub fn ended(pid: i32) -> Result<Option<i32>, Errno> {
    reap();
    if let Some(code) = ENDED.with(|ended| ended.borrow_mut().remove(&pid)) {
        return Ok(Some(code));
    }
    match waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG))? {
        WaitStatus::Exited(_, code) => Ok(Some(code)),
        WaitStatus::Signaled(_, signal, _) => Ok(Some(128 + signal as i32)),
        _ => Ok(None),
    }
}
