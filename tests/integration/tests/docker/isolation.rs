//! Namespaces: what a container shares with the machine and with other containers.

use std::fs;

use corten_integration::cgroups::is_v2;
use corten_integration::managers::docker::{Docker, Test};
use corten_integration::managers::{Verdict, check, contains, lacks, same};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("own_namespaces", own_namespaces),
    ("pid_host", pid_host),
    ("pid_container", pid_container),
    ("ipc_modes", ipc_modes),
    ("uts_host", uts_host),
    ("cgroup_namespace", cgroup_namespace),
    ("sysctl", sysctl),
    ("default_mounts", default_mounts),
    ("masked_paths", masked_paths),
    ("devices", devices),
    ("device_links", device_links),
];

const LINKS: &str = "for n in mnt pid net ipc uts user cgroup; do readlink /proc/self/ns/$n; done";

/// The name of one of this process's namespaces.
fn own(kind: &str) -> Result<String, std::io::Error> {
    Ok(fs::read_link(format!("/proc/self/ns/{kind}"))?.display().to_string())
}

fn own_namespaces(docker: &Docker) -> Verdict {
    let seen = docker.sh(&[], LINKS)?;
    for kind in ["mnt", "pid", "net", "ipc", "uts"] {
        lacks("namespaces", &seen, &own(kind)?)?;
    }
    // Docker on cgroup v1 shares the cgroup namespace, and no user namespace was asked for.
    contains("namespaces", &seen, &own("user")?)
}

fn pid_host(docker: &Docker) -> Verdict {
    let seen =
        docker.sh(&["--pid", "host"], "readlink /proc/self/ns/pid; cat /proc/*/comm; true")?;
    contains("namespace", &seen, &own("pid")?)?;
    contains("processes", &seen, "dockerd")?;
    // Killing such a container must end all of it, although its pid namespace lives on.
    let container = docker.background(&["--pid", "host"], "sleep 612 & sleep 613")?;
    let pids = || -> Result<usize, std::io::Error> {
        let words = fs::read_dir("/proc")?.flatten().map(|entry| entry.path().join("cmdline"));
        let lines = words.map(|file| fs::read(file).unwrap_or_default());
        Ok(lines.filter(|line| line == b"sleep\x00612\0" || line == b"sleep\x00613\0").count())
    };
    let wait = std::time::Duration::from_secs(10);
    corten_integration::managers::eventually("both run", wait, || Ok(pids()? == 2))?;
    container.with("rm", &["-f"])?;
    corten_integration::managers::eventually("both ended", wait, || Ok(pids()? == 0))
}

fn pid_container(docker: &Docker) -> Verdict {
    let first = docker.background(&[], "exec sleep 614")?;
    let join = format!("container:{}", first.name);
    let seen = docker.sh(&["--pid", &join], "cat /proc/1/cmdline | tr '\\0' ' '; echo $$")?;
    contains("pid 1", &seen, "sleep 614")?;
    check(!seen.ends_with(" 1"), "the second container is pid 1 itself")
}

fn ipc_modes(docker: &Docker) -> Verdict {
    let link = "readlink /proc/self/ns/ipc";
    same("host", &docker.sh(&["--ipc", "host"], link)?, &own("ipc")?)?;
    let first =
        docker.background(&["--ipc", "shareable"], "echo shared > /dev/shm/note; sleep 600")?;
    first.exec(&[], "until [ -s /dev/shm/note ]; do sleep 0.05; done")?;
    let join = format!("container:{}", first.name);
    let seen = docker.sh(&["--ipc", &join], "readlink /proc/self/ns/ipc; cat /dev/shm/note")?;
    same("joined", &seen, &(first.exec(&[], link)? + "\nshared"))?;
    let none = docker.sh(&["--ipc", "none"], "mount | grep -c /dev/shm || true")?;
    same("none: no /dev/shm", &none, "0")
}

fn uts_host(docker: &Docker) -> Verdict {
    let seen = docker.sh(&["--uts", "host"], "readlink /proc/self/ns/uts; hostname")?;
    let name = fs::read_to_string("/proc/sys/kernel/hostname")?;
    same("uts", &seen, &format!("{}\n{}", own("uts")?, name.trim_end()))
}

fn cgroup_namespace(docker: &Docker) -> Verdict {
    let there = if is_v2() { "/sys/fs/cgroup" } else { "/sys/fs/cgroup/pids" };
    let script = &format!("readlink /proc/self/ns/cgroup; cat /proc/self/cgroup; ls {there}");
    let private = docker.sh(&["--cgroupns", "private"], script)?;
    lacks("private", &private, &own("cgroup")?)?;
    lacks("private", &private, docker.sandbox.cgroup.as_str())?;
    contains("private", &private, ":/\n")?;
    let host = docker.sh(&["--cgroupns", "host"], script)?;
    contains("host", &host, &own("cgroup")?)?;
    contains("host", &host, docker.sandbox.cgroup.as_str())?;
    contains("own group", &private, "pids.max")?;
    // v1 shows the container's own group in the host's namespace, too; v2 the whole hierarchy.
    let top = docker.sandbox.cgroup.trim_start_matches('/');
    let wanted = if is_v2() { top } else { "pids.max" };
    check(host.lines().any(|line| line == wanted), format!("wanted {wanted} in {host}"))?;
    let write = docker.run(&[], &["mkdir", &format!("{there}/x")]).code(1)?;
    contains("read-only", &write.stderr, "Read-only file system")
}

fn sysctl(docker: &Docker) -> Verdict {
    let options = ["--sysctl", "net.ipv4.ip_forward=1", "--sysctl", "kernel.msgmax=16384"];
    let seen = docker.sh(&options, "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax")?;
    same("values", &seen, "1\n16384")?;
    check(fs::read_to_string("/proc/sys/kernel/msgmax")?.trim() != "16384", "it leaked out")?;
    let denied = docker.run(&["--sysctl", "kernel.panic=1"], &["true"]).code(125)?;
    contains("message", &denied.stderr, "kernel.panic")
}

fn default_mounts(docker: &Docker) -> Verdict {
    let seen = docker.sh(&[], "cat /proc/self/mountinfo")?;
    let mount = |target: &str| -> Result<String, String> {
        let found = seen.lines().rfind(|line| line.split(' ').nth(4) == Some(target));
        found.map(str::to_owned).ok_or_else(|| format!("no mount on {target} in:\n{seen}"))
    };
    for (target, wanted) in [
        ("/", " - overlay "),
        ("/proc", "rw,nosuid,nodev,noexec,relatime - proc"),
        ("/dev", "rw,nosuid - tmpfs"),
        ("/dev/pts", "rw,nosuid,noexec,relatime - devpts"),
        ("/sys", "ro,nosuid,nodev,noexec,relatime - sysfs"),
        ("/dev/mqueue", "rw,nosuid,nodev,noexec,relatime - mqueue"),
        ("/dev/shm", "rw,nosuid,nodev,noexec,relatime - tmpfs"),
        ("/sys/fs/cgroup", "ro,nosuid,nodev,noexec"),
        ("/etc/hosts", "rw"),
        ("/proc/sys", "ro,nosuid,nodev,noexec,relatime - proc"),
        ("/sys/firmware", "ro,relatime - tmpfs"),
    ] {
        let line = mount(target)?;
        if target == "/sys/fs/cgroup" {
            // v1 has a tmpfs there whose read-only flag differs between the runtimes.
            lacks(target, &line, "shared:")?;
            continue;
        }
        contains(target, &line, wanted)?;
        // Nothing that is mounted inside may reach the machine.
        lacks(target, &line, "shared:")?;
    }
    contains("/dev/pts", &mount("/dev/pts")?, "gid=5,mode=620,ptmxmode=666")?;
    lacks("mounts", &seen, "/oldroot")
}

fn masked_paths(docker: &Docker) -> Verdict {
    let script = "for f in /proc/kcore /proc/keys /proc/timer_list; do \
                  [ -e $f ] && wc -c < $f; done; ls -A /sys/firmware /proc/acpi /proc/scsi 2>/dev/null; true";
    let seen = docker.sh(&[], script)?;
    for line in seen.lines() {
        check(
            line == "0" || line.is_empty() || line.ends_with(':'),
            format!("something is visible: {seen}"),
        )?;
    }
    let denied = docker.run(&[], &["sh", "-c", "echo 1 > /proc/sys/kernel/panic"]).code(1)?;
    contains("read-only", &denied.stderr, "Read-only file system")?;
    if fs::exists("/proc/sysrq-trigger")? {
        let denied = docker.run(&[], &["sh", "-c", "echo b > /proc/sysrq-trigger"]).code(1)?;
        contains("read-only", &denied.stderr, "Read-only file system")?;
    }
    let open = docker.sh(
        &["--security-opt", "systempaths=unconfined"],
        "grep -c -E ' /(proc|sys)/.*' /proc/self/mountinfo; mount | grep -c -E ' /proc/' || true",
    )?;
    check(open.ends_with("\n0"), format!("still masked below /proc: {open}"))
}

fn devices(docker: &Docker) -> Verdict {
    let script = "cd /dev; for d in null zero full random urandom tty; do \
                  stat -c '%n %F %t:%T %a' $d; done; ls";
    let seen = docker.sh(&[], script)?;
    for (name, numbers) in
        [("null", "1:3"), ("zero", "1:5"), ("full", "1:7"), ("random", "1:8"), ("tty", "5:0")]
    {
        let line = format!("{name} character special file {numbers} 666");
        contains("node", &seen, &line)?;
    }
    for absent in ["\nmem", "\nkmsg", "\nvda", "\nsda", "\nfuse"] {
        lacks("/dev", &seen, absent)?;
    }
    let works =
        "echo x > /dev/null && head -c 4 /dev/zero | wc -c && head -c 4 /dev/urandom | wc -c";
    same("they work", &docker.sh(&["--user", "1000"], works)?, "4\n4")
}

fn device_links(docker: &Docker) -> Verdict {
    let script = "cd /dev; for l in fd stdin stdout stderr ptmx core; do readlink $l; done; true";
    let seen = docker.sh(&[], script)?;
    for wanted in ["/proc/self/fd", "/proc/self/fd/0", "/proc/self/fd/1", "pts/ptmx"] {
        contains("links", &seen, wanted)?;
    }
    Ok(())
}
