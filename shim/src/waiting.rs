//! What a process that does not come to its end is waiting for, in one phrase: for the answer to
//! an operation whose time is over, and for the dump of the shim's state.
//!
//! The processes asked about hang, perhaps in the kernel, and the loop must not hang with them. So
//! only those files of /proc are read that the kernel makes without a lock of the process that it
//! could hold while it hangs: not cmdline (its memory map), and not syscall and stack (its
//! `exec_update_lock`, held over the closing of files by execve). `comm` and the link `exe` say
//! which program it is, `wchan` in which function of the kernel it sleeps.

use std::fmt::Write;

use corten::state::Stat;
use nix::unistd::Pid;

/// A phrase must stay one: no more processes than this are told.
const MOST: usize = 8;
/// The threads whose children are looked for.
const THREADS: usize = 64;

/// `process 7 (containerd-shim) sleeping in do_wait, for process 9 (hook.sh, /bin/dash) sleeping in
/// do_wait, for process 12 (mount.nfs) stuck in rpc_wait_bit_killable`: the process, and its
/// children, which are what it most often waits for.
pub fn what_it_waits_for(pid: Pid) -> String {
    let mut phrase = String::new();
    let mut left = MOST;
    describe(pid, &mut phrase, &mut left);
    phrase
}

fn describe(pid: Pid, phrase: &mut String, left: &mut usize) {
    if *left == 0 {
        return;
    }
    *left -= 1;
    one(pid, phrase);
    let mut before = ", for ";
    for child in children(pid) {
        if *left == 0 {
            phrase.push_str(" and others");
            return;
        }
        phrase.push_str(before);
        describe(child, phrase, left);
        before = " and ";
    }
}

fn one(pid: Pid, phrase: &mut String) {
    let Ok(stat) = Stat::of(pid) else {
        // Writing to a String can't fail.
        write!(phrase, "process {pid}, which has ended").ok();
        return;
    };
    let comm = line(pid, "comm");
    write!(phrase, "process {pid} ({}", tame(&comm)).ok();
    // A script has its own name and its interpreter's path.
    let exe = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    if exe.file_name().is_some_and(|name| name.to_string_lossy() != comm) {
        write!(phrase, ", {}", tame(&exe.to_string_lossy())).ok();
    }
    let doing = match stat.state {
        'R' => "running",
        'S' => "sleeping",
        'D' => "stuck",
        'T' => "stopped",
        't' => "stopped by its tracer",
        'I' => "idle",
        _ => "dead, but not waited for",
    };
    write!(phrase, ") {doing}").ok();
    let place = line(pid, "wchan");
    if matches!(stat.state, 'S' | 'D') && !matches!(place.as_str(), "" | "0") {
        write!(phrase, " in {place}").ok();
    }
}

/// Names are the process's own choice: on one line, and not too long.
fn tame(name: &str) -> String {
    name.escape_debug().take(120).collect()
}

/// A file of one short line.
fn line(pid: Pid, file: &str) -> String {
    let bytes = std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).trim_end().to_owned()
}

/// Needs `CONFIG_PROC_CHILDREN`, which every kernel for containers has; none without it.
fn children(pid: Pid) -> Vec<Pid> {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let mut found: Vec<i32> = Vec::new();
    for thread in threads.take(THREADS).flatten() {
        let text = std::fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        found.extend(text.split_ascii_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
    }
    found.into_iter().map(Pid::from_raw).collect()
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "test processes are ordinary children")]
mod tests {
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};

    use nix::sys::signal::{Signal, killpg};

    use super::*;

    /// A process group that is gone after the test.
    struct Own(Child);

    impl Own {
        fn new(program: &str, words: &[&str]) -> Option<Self> {
            use std::os::unix::process::CommandExt;
            let mut command = Command::new(program);
            command.args(words).process_group(0).stdin(Stdio::null()).stdout(Stdio::null());
            command.stderr(Stdio::null()).spawn().ok().map(Self)
        }

        fn pid(&self) -> Pid {
            Pid::from_raw(self.0.id() as i32)
        }

        fn becomes(&self, what: impl Fn(&str) -> bool) -> String {
            let end = Instant::now() + Duration::from_secs(10);
            loop {
                let phrase = what_it_waits_for(self.pid());
                if what(&phrase) {
                    return phrase;
                }
                assert!(Instant::now() < end, "{phrase}");
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }

    impl Drop for Own {
        fn drop(&mut self) {
            killpg(self.pid(), Signal::SIGKILL).ok();
            self.0.wait().ok();
        }
    }

    #[test]
    fn a_script_and_its_command() {
        // As if executed by its first line.
        let script = "echo hook.sh > /proc/$$/comm; sleep 1000; true";
        let own = Own::new("sh", &["-c", script]).unwrap();
        let phrase = own.becomes(|it| it.contains("do_wait") && it.contains("nanosleep"));
        let start = format!("process {} (hook.sh, /usr/bin/", own.pid());
        assert!(phrase.starts_with(&start), "{phrase}");
        assert!(phrase.contains("sh) sleeping in do_wait, for process "), "{phrase}");
        assert!(phrase.ends_with(" (sleep) sleeping in hrtimer_nanosleep"), "{phrase}");
    }

    #[test]
    fn a_name_can_not_make_lines_of_its_own() {
        assert_eq!(tame("a\nb\u{1b}[2J"), r"a\nb\u{1b}[2J");
        assert_eq!(tame(&"x".repeat(5000)).len(), 120);
    }

    #[test]
    fn one_that_is_stopped_one_that_is_dead_and_one_that_is_gone() {
        let mut own = Own::new("sleep", &["1000"]).unwrap();
        killpg(own.pid(), Signal::SIGSTOP).unwrap();
        own.becomes(|phrase| phrase.ends_with(") stopped"));
        killpg(own.pid(), Signal::SIGKILL).unwrap();
        own.becomes(|phrase| phrase.ends_with(") dead, but not waited for"));
        own.0.wait().unwrap();
        let phrase = what_it_waits_for(own.pid());
        assert_eq!(phrase, format!("process {}, which has ended", own.pid()));
    }

    /// A parent is stuck until its vfork child executes, which waits for a writer of a FIFO.
    #[test]
    fn one_that_is_stuck_in_the_kernel() {
        let tmp = tempfile::tempdir().unwrap();
        let fifo = tmp.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let script = format!(
            "import os; os.posix_spawn('/bin/true', ['true'], {{}}, file_actions=[\
             (os.POSIX_SPAWN_OPEN, 0, {:?}, os.O_RDONLY, 0)])",
            fifo.display().to_string()
        );
        let Some(own) = Own::new("python3", &["-c", &script]) else {
            eprintln!("skipped: no python3");
            return;
        };
        let phrase = own.becomes(|it| it.contains(") stuck in ") && it.contains("_partner"));
        assert!(phrase.contains(", for process "), "{phrase}");
    }

    #[test]
    fn a_crowd_is_cut_short() {
        let script = "for i in 1 2 3 4 5 6 7 8 9 10; do sleep 1000 & done; wait";
        let own = Own::new("sh", &["-c", script]).unwrap();
        let phrase = own.becomes(|phrase| phrase.ends_with(" and others"));
        assert_eq!(phrase.matches("process ").count(), MOST, "{phrase}");
    }
}
