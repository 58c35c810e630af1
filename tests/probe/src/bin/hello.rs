//! The program of `bundles/hello`: prints what a container sees of itself.

use std::fs;

fn main() {
    println!("Hello from inside a container.\n");
    println!("hostname      {}", line("/proc/sys/kernel/hostname"));
    println!("pid           {}", std::process::id());
    println!("user          {}", status("Uid"));
    println!("capabilities  {}", capabilities(&status("CapEff")));
    println!("no new privs  {}", status("NoNewPrivs"));
    println!("seccomp       {}", status("Seccomp"));
    println!("\ncgroup");
    for entry in fs::read_to_string("/proc/self/cgroup").unwrap_or_default().lines() {
        println!("  {entry}");
    }
    println!("\nmounts");
    for mount in fs::read_to_string("/proc/self/mountinfo").unwrap_or_default().lines() {
        let words: Vec<&str> = mount.split(' ').collect();
        let kind = words.iter().position(|w| *w == "-").and_then(|at| words.get(at + 1));
        if let (Some(point), Some(options), Some(kind)) = (words.get(4), words.get(5), kind) {
            println!("  {point:<24} {kind:<8} {options}");
        }
    }
}

fn line(path: &str) -> String {
    fs::read_to_string(path).map_or_else(|e| format!("({e})"), |t| t.trim().to_owned())
}

fn status(key: &str) -> String {
    let all = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let found = all.lines().filter_map(|l| l.split_once(':')).find(|(k, _)| *k == key);
    found.map_or_else(
        || "?".to_owned(),
        |(_, v)| v.split_whitespace().next().unwrap_or("").to_owned(),
    )
}

/// The names behind the hexadecimal mask of /proc/self/status.
fn capabilities(mask: &str) -> String {
    const NAMES: [&str; 41] = [
        "chown",
        "dac_override",
        "dac_read_search",
        "fowner",
        "fsetid",
        "kill",
        "setgid",
        "setuid",
        "setpcap",
        "linux_immutable",
        "net_bind_service",
        "net_broadcast",
        "net_admin",
        "net_raw",
        "ipc_lock",
        "ipc_owner",
        "sys_module",
        "sys_rawio",
        "sys_chroot",
        "sys_ptrace",
        "sys_pacct",
        "sys_admin",
        "sys_boot",
        "sys_nice",
        "sys_resource",
        "sys_time",
        "sys_tty_config",
        "mknod",
        "lease",
        "audit_write",
        "audit_control",
        "setfcap",
        "mac_override",
        "mac_admin",
        "syslog",
        "wake_alarm",
        "block_suspend",
        "audit_read",
        "perfmon",
        "bpf",
        "checkpoint_restore",
    ];
    let bits = u64::from_str_radix(mask, 16).unwrap_or(0);
    let held: Vec<&str> =
        (0..).zip(NAMES).filter(|(bit, _)| bits >> bit & 1 == 1).map(|(_, name)| name).collect();
    if held.is_empty() { "none".to_owned() } else { held.join(" ") }
}
