//! A daemon with `--userns-remap`: root inside is an ordinary id outside.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use corten_integration::managers::docker::{Docker, MAY_MOUNT, Test};
use corten_integration::managers::sandbox::SUBID;
use corten_integration::managers::{Verdict, contains, lacks, same};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("maps", maps),
    ("process_outside", process_outside),
    ("file_owners", file_owners),
    ("mounts", mounts),
    ("devices", devices),
    ("capabilities", capabilities),
    ("limits", limits),
    ("network", network),
    ("exec", exec),
    ("terminal", terminal),
    ("read_only", read_only),
    ("sysctl", sysctl),
    ("commit", commit),
    ("userns_host", userns_host),
    ("lifecycle", lifecycle),
];

fn maps(docker: &Docker) -> Verdict {
    let script = "cat /proc/self/uid_map /proc/self/gid_map | tr -s ' '; id -u; \
                  cat /proc/self/setgroups; readlink /proc/self/ns/user";
    let seen = docker.sh(&[], script)?;
    let line = format!(" 0 {SUBID} 65536");
    contains("maps", &seen, &format!("{line}\n{line}\n0\nallow\n"))?;
    lacks("namespace", &seen, &fs::read_link("/proc/self/ns/user")?.display().to_string())
}

fn process_outside(docker: &Docker) -> Verdict {
    let root = docker.background(&[], "sleep 600")?;
    let user = docker.background(&["--user", "alice"], "sleep 600")?;
    for (container, uid) in [(root, SUBID), (user, SUBID + 1000)] {
        let status = fs::read_to_string(format!("/proc/{}/status", container.pid()?))?;
        contains("uid outside", &status, &format!("Uid:\t{uid}\t{uid}\t{uid}\t{uid}\n"))?;
        contains("gid outside", &status, &format!("Gid:\t{uid}\t{uid}\t{uid}\t{uid}\n"))?;
    }
    Ok(())
}

fn file_owners(docker: &Docker) -> Verdict {
    let folder = docker.folder("owners")?;
    std::os::unix::fs::chown(&folder, Some(SUBID), Some(SUBID))?;
    fs::write(folder.join("foreign"), "x")?;
    let option = format!("{}:/m", folder.display());
    let script = "touch /m/root; touch /m/alice && chown alice /m/alice; stat -c %u /m/foreign; \
                  rm -f /m/foreign; chown 0 /etc/greeting && stat -c %u /etc/greeting /tmp";
    let seen = docker.sh(&["-v", &option], script)?;
    same("inside", &seen, "65534\n0\n0")?;
    same("root's", &fs::metadata(folder.join("root"))?.uid(), &SUBID)?;
    same("alice's", &fs::metadata(folder.join("alice"))?.uid(), &(SUBID + 1000))
}

fn mounts(docker: &Docker) -> Verdict {
    let options = ["--tmpfs", "/t", "--shm-size", "2m", "-v", "/volume"];
    let script =
        "touch /t/x /dev/shm/x /volume/x && mount; stat -c '%n %u' /t /dev/shm /proc/1 /dev/pts";
    let seen = docker.sh(&options, script)?;
    for wanted in [
        "proc on /proc type proc (rw,nosuid,nodev,noexec",
        "sysfs on /sys type sysfs (ro",
        "mqueue on /dev/mqueue",
        "tmpfs on /proc/acpi",
        "/dev/shm 0",
        "/proc/1 0",
    ] {
        contains("mounts", &seen, wanted)?;
    }
    let denied = docker.run(&[], &["sh", "-c", "echo 1 > /proc/sys/kernel/panic"]).code(1)?;
    contains("/proc/sys", &denied.stderr, "Read-only file system")
}

fn devices(docker: &Docker) -> Verdict {
    let script = "cd /dev; stat -c '%n %t:%T' null zero full random urandom tty; \
                  echo x > null && head -c 2 zero | wc -c; mknod /tmp/n c 1 3 2>&1";
    let seen = docker.run(&[], &["sh", "-c", script]).run()?.all();
    for wanted in
        ["null 1:3", "zero 1:5", "full 1:7", "tty 5:0", "\n2\n", "Operation not permitted"]
    {
        contains("devices", &seen, wanted)?;
    }
    if std::path::Path::new("/dev/fuse").exists() {
        let seen = docker.sh(&["--device", "/dev/fuse"], "stat -c '%t:%T' /dev/fuse")?;
        same("--device", &seen, "a:e5")?;
    }
    Ok(())
}

fn capabilities(docker: &Docker) -> Verdict {
    let seen = docker.sh(&[], "grep -E '^(CapEff|Seccomp:)' /proc/self/status")?;
    same("defaults", &seen, "CapEff:\t00000000a80425fb\nSeccomp:\t2")?;
    // Powerful inside, powerless outside.
    let script = "mount -t tmpfs x /tmp && echo mounted; hostname changed && echo named; \
                  date -s 2000-01-01 2>&1";
    let powers = [&MAY_MOUNT[..], &["--cap-add", "SYS_TIME"]].concat();
    let seen = docker.run(&powers, &["sh", "-c", script]);
    let seen = seen.run()?.all();
    for wanted in ["mounted", "named", "ermi"] {
        contains("powers", &seen, wanted)?;
    }
    Ok(())
}

fn limits(docker: &Docker) -> Verdict {
    let options = ["--memory", "64m", "--pids-limit", "33", "--ulimit", "nofile=50:60"];
    let script = "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes pids/pids.max 2>/dev/null || \
                  cat memory.max pids.max; ulimit -Sn; ulimit -Hn";
    same("limits", &docker.sh(&options, script)?, "67108864\n33\n50\n60")
}

fn network(docker: &Docker) -> Verdict {
    // The daemon wires the container's network in a hook, between create and start.
    let script = "ip -o -4 addr show eth0; ping -c 1 -W 5 172.30.78.1 | grep received; \
                  ip link set eth0 down 2>&1; ls /sys/class/net; mount | grep ' /sys '";
    let seen = docker.sh(&["--network", "bridge", "--cap-add", "NET_ADMIN"], script)?;
    for wanted in ["inet 172.30.78.", "1 packets received", "eth0\nlo\n", "sysfs on /sys"] {
        contains("network", &seen, wanted)?;
    }
    lacks("the network is the container's to change", &seen, "ermi")
}

fn exec(docker: &Docker) -> Verdict {
    let container = docker.background(&[], "sleep 600")?;
    let script = "id -u; readlink /proc/self/ns/user; cat /proc/self/uid_map | tr -s ' '";
    let seen = container.exec(&[], script)?;
    contains("map", &seen, &format!(" 0 {SUBID} 65536"))?;
    contains("one namespace", &seen, &container.exec(&[], "readlink /proc/1/ns/user")?)?;
    same("user", &container.exec(&["-u", "alice"], "id -un")?, "alice")?;
    container.exec_raw(&[], &["sh", "-c", "exit 7"]).code(7).map(drop)
}

fn terminal(docker: &Docker) -> Verdict {
    let container =
        docker.background(&["-t"], "tty; test -w $(tty) && echo writable; sleep 600")?;
    container.says("writable")?;
    let words = ["exec", "-it", "-u", "alice", &container.name, "sh", "-c", "tty; echo x > $(tty)"];
    let (code, screen) = docker.terminal(&words)?.finish()?;
    same("exit code", &code, &0)?;
    contains("screen", &screen, "/dev/pts/")
}

fn read_only(docker: &Docker) -> Verdict {
    let denied =
        docker.run(&["--read-only", "--tmpfs", "/tmp"], &["sh", "-c", "touch /tmp/a; touch /a"]);
    contains("write", &denied.code(1)?.stderr, "Read-only file system")
}

fn sysctl(docker: &Docker) -> Verdict {
    let options = ["--sysctl", "net.ipv4.ip_forward=1"];
    same("value", &docker.sh(&options, "cat /proc/sys/net/ipv4/ip_forward")?, "1")
}

fn commit(docker: &Docker) -> Verdict {
    let container = docker.background(&[], "touch /f; chown alice /f; echo ready; sleep 600")?;
    container.says("ready")?;
    docker.ok(&["commit", &container.name, "remapped"])?;
    let words = ["run", "--rm", "--network", "none", "remapped", "stat", "-c", "%u", "/f"];
    let seen = docker.ok(&words);
    docker.ok(&["rmi", "remapped"])?;
    same("owner", &seen?, "1000")
}

fn userns_host(docker: &Docker) -> Verdict {
    let seen = docker.sh(&["--userns", "host"], "cat /proc/self/uid_map | tr -s ' '")?;
    lacks("map", &seen, &SUBID.to_string())
}

fn lifecycle(docker: &Docker) -> Verdict {
    let container =
        docker.background(&[], "trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done")?;
    container.says("ready")?;
    container.does("pause")?;
    same("paused", &container.inspect("{{.State.Status}}")?, "paused")?;
    container.does("unpause")?;
    contains("top", &container.does("top")?, &SUBID.to_string())?;
    container.with("stop", &["-t", "20"])?;
    same("exit code", &container.wait()?, &5)?;
    container.does("start")?;
    container.does("kill")?;
    same("exit code", &container.wait()?, &137)
}
