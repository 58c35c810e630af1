//! `podman run`: one container, its options, its exit code.

use std::fs;

use corten_integration::managers::podman::Podman;
use corten_integration::managers::{
    Stop, Verdict, check, contains, eventually, image, lacks, same,
};

pub(crate) const TESTS: &[(&str, crate::Test)] = &[
    ("streams_and_codes", streams_and_codes),
    ("exit_125_126_127", exit_125_126_127),
    ("standard_input", standard_input),
    ("terminal", terminal),
    ("user_and_groups", user_and_groups),
    ("environment", environment),
    ("workdir_and_hostname", workdir_and_hostname),
    ("init", init),
    ("network_none", network_none),
    ("network_host", network_host),
    ("network_bridge", network_bridge),
    ("network_named", network_named),
    ("published_port", published_port),
    ("read_only", read_only),
    ("tmpfs", tmpfs),
    ("volumes", volumes),
    ("devices", devices),
    ("capabilities", capabilities),
    ("privileged", privileged),
    ("seccomp", seccomp),
    ("no_new_privileges", no_new_privileges),
    ("masks", masks),
    ("memory", memory),
    ("cpus", cpus),
    ("pids_limit", pids_limit),
    ("ulimit", ulimit),
    ("shm_and_sysctl", shm_and_sysctl),
    ("host_namespaces", host_namespaces),
    ("cgroup_namespace", cgroup_namespace),
    ("no_cgroup", no_cgroup),
    ("umask_and_oom_score", umask_and_oom_score),
    ("preserved_descriptors", preserved_descriptors),
    ("pid_file", pid_file),
    ("timeout", timeout),
    ("secret", secret),
    ("version_in_info", version_in_info),
];

fn streams_and_codes(podman: &Podman) -> Verdict {
    let ended = podman.run(&[], &["sh", "-c", "echo out; echo err >&2; exit 3"]).code(3)?;
    same("stdout", &ended.stdout, "out\n")?;
    same("stderr", &ended.stderr, "err\n")?;
    podman.run(&[], &["sh", "-c", "exit 255"]).code(255)?;
    let container = podman.background(&[], "sleep 600")?;
    container.does("kill")?;
    same("killed", &container.wait()?, &137)
}

fn exit_125_126_127(podman: &Podman) -> Verdict {
    podman.run(&["--no-such-option"], &["true"]).code(125)?;
    let missing = podman.run(&[], &["no-such-program"]).code(127)?;
    contains("message", &missing.stderr, "executable file")?;
    podman.run(&[], &["/no/such/program"]).code(127)?;
    let denied = podman.run(&[], &["/etc/greeting"]).code(126)?;
    contains("message", &denied.stderr.to_lowercase(), "permission denied")?;
    // One JSON error line in the runtime's log is what makes Podman name the runtime first.
    contains("from the log", &missing.stderr, &format!("{}: ", podman.runtime()))
}

fn standard_input(podman: &Podman) -> Verdict {
    let text = "some text\n".repeat(10000);
    let ended = podman.run(&["-i"], &["cat"]).input(text.clone()).code(0)?;
    check(ended.stdout == text, format!("{} bytes came back", ended.stdout.len()))
}

fn terminal(podman: &Podman) -> Verdict {
    let words = ["run", "--rm", "-it", "--network", "none", image::NAME, "sh"];
    let mut terminal = podman.terminal(&words)?;
    terminal.expect("# ")?;
    terminal
        .send("tty; until [ \"$(stty size)\" = '33 77' ]; do sleep 0.05; done; echo si''zed\n")?;
    terminal.expect("/dev/")?;
    terminal.expect("sized")?;
    terminal.send("sleep 500; echo code=$?\n")?;
    std::thread::sleep(std::time::Duration::from_millis(300));
    terminal.send("\x03")?;
    terminal.send("echo alive $((2+3))\nexit 6\n")?;
    let (code, screen) = terminal.finish()?;
    contains("screen", &screen, "alive 5")?;
    same("exit code", &code, &6)
}

fn user_and_groups(podman: &Podman) -> Verdict {
    let ids = "grep -E '^(Uid|Gid|Groups)' /proc/self/status | tr -s '\\t\\n ' ' '; echo $HOME";
    let alice = podman.sh(&["--user", "alice", "--group-add", "77"], ids)?;
    contains("alice", &alice, "Uid: 1000 1000 1000 1000 Gid: 1000 1000 1000 1000")?;
    for wanted in ["2000", "77", "/home/alice"] {
        contains("alice", &alice, wanted)?;
    }
    contains("numbers", &podman.sh(&["--user", "5:6"], ids)?, "Uid: 5 5 5 5 Gid: 6 6 6 6")
}

fn environment(podman: &Podman) -> Verdict {
    let options = ["-e", "A=one two", "-e", "B=", "--hostname", "h"];
    let seen = podman.run(&options, &["env"]).ok()?;
    let mut seen: Vec<&str> = seen.lines().collect();
    seen.sort_unstable();
    let wanted = [
        "A=one two",
        "B=",
        "HOME=/root",
        "HOSTNAME=h",
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "TERM=xterm",
        "container=podman",
    ];
    // conmon's private variables (_OCI_SYNCPIPE and friends) must not come along.
    same("environment", &seen[..], &wanted[..])
}

fn workdir_and_hostname(podman: &Podman) -> Verdict {
    let options = ["--workdir", "/var/data", "--hostname", "steel"];
    let seen = podman.sh(&options, "pwd; hostname; cat /etc/hostname")?;
    same("names", &seen, "/var/data\nsteel\nsteel")
}

fn init(podman: &Podman) -> Verdict {
    let container = podman.background(&["--init"], "(sleep 0.1 &); exec sleep 600")?;
    contains("pid 1", &container.exec(&[], "cat /proc/1/cmdline")?, "init")?;
    eventually("no zombie", std::time::Duration::from_secs(10), || {
        Ok(!container.exec(&[], "cat /proc/[0-9]*/status")?.contains("Z (zombie)"))
    })
}

fn network_none(podman: &Podman) -> Verdict {
    let seen = podman.sh(&["--network", "none"], "ip -o link; ip -o addr")?;
    contains("loopback is up", &seen, "LOOPBACK,UP,LOWER_UP")?;
    lacks("others", &seen, "eth0")
}

fn network_host(podman: &Podman) -> Verdict {
    let seen = podman.sh(&["--network", "host"], "readlink /proc/self/ns/net")?;
    same("namespace", &seen, &fs::read_link("/proc/self/ns/net")?.display().to_string())
}

fn network_bridge(podman: &Podman) -> Verdict {
    let script = "ip -o -4 addr show eth0; gate=$(ip route | awk '/default/{print $3}'); \
                  ping -c 1 -W 5 $gate | grep received";
    let seen = podman.sh(&["--network", "bridge"], script)?;
    contains("address", &seen, "inet 10.88.")?;
    contains("gateway answers", &seen, "1 packets received")
}

fn network_named(podman: &Podman) -> Verdict {
    podman.ok(&["network", "create", "--subnet", "10.98.0.0/24", "named"])?;
    let test = || -> Verdict {
        let fixed = ["--network", "named:ip=10.98.0.77"];
        let server = podman.background(&fixed, "while :; do nc -l -p 80 -e echo served; done")?;
        let script = "for i in $(seq 100); do nc -w 1 10.98.0.77 80 && break; sleep 0.1; done";
        contains("answer", &podman.sh(&["--network", "named"], script)?, "served")?;
        let join = format!("--network=container:{}", server.name);
        let seen = podman.sh(&[&join], "ip -o -4 addr; nc -w 1 127.0.0.1 80")?;
        contains("joined", &seen, "10.98.0.77")?;
        contains("joined", &seen, "served")
    };
    let seen = test();
    podman.ok(&["network", "rm", "--force", "--time", "0", "named"])?;
    seen
}

fn published_port(podman: &Podman) -> Verdict {
    let script = "while :; do nc -l -p 80 -e echo published; done";
    let _server = podman.background(&["--network", "bridge", "-p", "127.0.0.1:8099:80"], script)?;
    eventually("an answer on the port", std::time::Duration::from_secs(20), || {
        let nc = corten_integration::managers::command::Run::new("/bin/busybox");
        Ok(nc.args(["nc", "-w", "2", "127.0.0.1", "8099"]).run()?.stdout.contains("published"))
    })
}

fn read_only(podman: &Podman) -> Verdict {
    let script = "touch /x; touch /tmp/y && touch /run/z && echo tmp";
    let seen = podman.run(&["--read-only"], &["sh", "-c", script]).run()?;
    contains("root", &seen.stderr, "Read-only file system")?;
    contains("tmpfs", &seen.stdout, "tmp")
}

fn tmpfs(podman: &Podman) -> Verdict {
    // Podman asks for `tmpcopyup`: the tmpfs starts with what the image has there.
    let script = "cat /var/data/seed; grep ' /var/data ' /proc/mounts; df -k /var/data | tail -1";
    let seen = podman.sh(&["--tmpfs", "/var/data:size=2m"], script)?;
    contains("copied up", &seen, "from the image")?;
    contains("options", &seen, "tmpfs rw,nosuid,nodev")?;
    contains("size", &seen, "2048")?;
    let empty = podman.sh(&["--tmpfs", "/var/data:notmpcopyup"], "ls -A /var/data")?;
    same("notmpcopyup", &empty, "")
}

fn volumes(podman: &Podman) -> Verdict {
    let folder = podman.folder("volume")?;
    fs::write(folder.join("in"), "outside")?;
    let (writable, fixed) =
        (format!("{}:/m", folder.display()), format!("{}:/r:ro", folder.display()));
    let script = "cat /m/in; echo inside > /m/out; touch /r/x 2>&1";
    let seen = podman.run(&["-v", &writable, "-v", &fixed], &["sh", "-c", script]).run()?;
    contains("content", &seen.stdout, "outside")?;
    contains("read-only", &seen.stdout, "Read-only file system")?;
    same("written", &fs::read_to_string(folder.join("out"))?, "inside\n")?;
    let named = podman.sh(&["-v", "stock:/var/data"], "cat /var/data/seed; echo x > /var/data/new");
    let again = podman.sh(&["-v", "stock:/v"], "cat /v/new");
    podman.ok(&["volume", "rm", "stock"])?;
    same("copied up", &named?, "from the image")?;
    same("kept", &again?, "x")?;
    // An overlay volume: writes stay in the container.
    let over = format!("{}:/o:O", folder.display());
    same("overlay", &podman.sh(&["-v", &over], "echo y > /o/in; cat /o/in")?, "y")?;
    same("untouched", &fs::read_to_string(folder.join("in"))?, "outside")
}

fn devices(podman: &Podman) -> Verdict {
    let script = "mknod /tmp/mem c 1 1; head -c 1 /tmp/mem; ls /dev";
    let seen = podman.run(&["--cap-add", "MKNOD"], &["sh", "-c", script]).run()?;
    contains("/dev/mem", &seen.stderr, "Operation not permitted")?;
    lacks("/dev", &seen.stdout, "kmsg")?;
    if fs::exists("/dev/fuse")? {
        let script = "stat -c '%t:%T' /dev/f; (: < /dev/f) && echo read; (: > /dev/f) 2>&1";
        let seen = podman.run(&["--device", "/dev/fuse:/dev/f:r"], &["sh", "-c", script]).run()?;
        contains("numbers", &seen.stdout, "a:e5\nread")?;
        contains("write", &seen.all(), "Operation not permitted")?;
    }
    Ok(())
}

fn capabilities(podman: &Podman) -> Verdict {
    let script = "grep -E '^Cap(Eff|Bnd|Inh|Amb)' /proc/self/status | tr '\\t\\n' '  '";
    let seen = podman.sh(&[], script)?;
    let wanted = "CapInh: 0000000000000000 CapEff: 00000000a80425fb CapBnd: 00000000a80425fb";
    contains("default", &seen, wanted)?;
    let only = ["--cap-drop", "ALL", "--cap-add", "KILL"];
    contains(
        "only",
        &podman.sh(&only, script)?,
        "CapEff: 0000000000000020 CapBnd: 0000000000000020",
    )?;
    // A user that is asked to have a capability gets it as an ambient one.
    let user = ["--user", "1000", "--cap-add", "NET_RAW"];
    contains("ambient", &podman.sh(&user, script)?, "CapAmb: 0000000000002000")
}

fn privileged(podman: &Podman) -> Verdict {
    let script = "grep -E '^(CapEff|Seccomp:)' /proc/self/status; mount -t tmpfs t /tmp && echo mounted; \
                  grep -c ' /proc/sys ' /proc/self/mountinfo; head -c 1 /dev/kmsg | wc -c";
    let seen = podman.run(&["--privileged"], &["sh", "-c", script]).run()?.stdout;
    let own = fs::read_to_string("/proc/self/status")?;
    let effective = own.lines().find(|line| line.starts_with("CapEff")).unwrap_or_default();
    contains("capabilities", &seen, &format!("{effective}\nSeccomp:\t0\nmounted\n0\n1"))
}

fn seccomp(podman: &Podman) -> Verdict {
    same("default", &podman.sh(&[], "grep ^Seccomp: /proc/self/status")?, "Seccomp:\t2")?;
    let open = ["--security-opt", "seccomp=unconfined"];
    same("unconfined", &podman.sh(&open, "grep ^Seccomp: /proc/self/status")?, "Seccomp:\t0")?;
    let file = podman.folder("seccomp")?.join("profile.json");
    let text = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":
        [{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":38}]}"#;
    fs::write(&file, text)?;
    let option = format!("seccomp={}", file.display());
    let denied = podman.run(&["--security-opt", &option], &["mkdir", "/tmp/x"]).code(1)?;
    contains("errno", &denied.stderr, "Function not implemented")
}

fn no_new_privileges(podman: &Podman) -> Verdict {
    let script = "/bin/suid/busybox su -c true alice 2>&1 </dev/null | head -1";
    let user = ["--user", "nobody"];
    lacks("setuid works", &podman.sh(&user, script)?, "must be suid")?;
    let armed = ["--user", "nobody", "--security-opt", "no-new-privileges"];
    contains("setuid is disarmed", &podman.sh(&armed, script)?, "must be suid")
}

fn masks(podman: &Podman) -> Verdict {
    let script = "cat /proc/kcore | wc -c; ls -A /sys/firmware | wc -l; \
                  (echo 1 > /proc/sys/kernel/panic) 2>&1; true";
    let seen = podman.run(&[], &["sh", "-c", script]).run()?.all();
    contains("masked", &seen, "0\n0\n")?;
    contains("read-only", &seen, "Read-only file system")?;
    let open = ["--security-opt", "unmask=ALL"];
    same("unmasked", &podman.sh(&open, "grep -c ' /proc/' /proc/self/mountinfo; true")?, "0")?;
    let more = ["--security-opt", "mask=/etc/greeting"];
    same("masked too", &podman.sh(&more, "cat /etc/greeting")?, "")
}

/// A script that prints a cgroup file of v1, or the one of v2.
fn file(v1: &str, v2: &str) -> String {
    format!("cat /sys/fs/cgroup/{v1} 2>/dev/null || cat /sys/fs/cgroup/{v2}")
}

fn memory(podman: &Podman) -> Verdict {
    let limit = file("memory/memory.limit_in_bytes", "memory.max");
    same("limit", &podman.sh(&["--memory", "64m"], &limit)?, "67108864")?;
    let options = ["--memory", "16m", "--memory-swap", "16m"];
    let container = podman.background(&options, "x=0123456789; while :; do x=$x$x; done")?;
    same("exit code", &container.wait()?, &137)
}

fn cpus(podman: &Podman) -> Verdict {
    let options = ["--cpus", "0.5", "--cpuset-cpus", "0"];
    let script = "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null || cat /sys/fs/cgroup/cpu.max; \
                  grep ^Cpus_allowed_list /proc/self/status";
    let seen = podman.sh(&options, script)?;
    contains("quota", &seen, "50000")?;
    contains("cpuset", &seen, "Cpus_allowed_list:\t0")
}

fn pids_limit(podman: &Podman) -> Verdict {
    let limit = file("pids/pids.max", "pids.max");
    same("limit", &podman.sh(&["--pids-limit", "44"], &limit)?, "44")?;
    same("default", &podman.sh(&[], &limit)?, "2048")
}

fn ulimit(podman: &Podman) -> Verdict {
    // Podman adds a process limit of its own, which this root may not be allowed to raise.
    let options = ["--ulimit", "nofile=100:200", "--ulimit", "nproc=300:400", "--ulimit", "core=0"];
    let seen = podman.sh(&options, "ulimit -Sn; ulimit -Hn; ulimit -Su; ulimit -Hu; ulimit -c")?;
    same("limits", &seen, "100\n200\n300\n400\n0")
}

fn shm_and_sysctl(podman: &Podman) -> Verdict {
    let options = ["--shm-size", "1m", "--sysctl", "net.ipv4.ip_forward=1"];
    let script = "df -k /dev/shm | tail -1 | awk '{print $2}'; cat /proc/sys/net/ipv4/ip_forward";
    same("values", &podman.sh(&options, script)?, "1024\n1")
}

fn host_namespaces(podman: &Podman) -> Verdict {
    for kind in ["pid", "ipc", "uts"] {
        let own = fs::read_link(format!("/proc/self/ns/{kind}"))?.display().to_string();
        let script = format!("readlink /proc/self/ns/{kind}");
        lacks("private", &podman.sh(&[], &script)?, &own)?;
        same(kind, &podman.sh(&[&format!("--{kind}"), "host"], &script)?, &own)?;
    }
    Ok(())
}

fn cgroup_namespace(podman: &Podman) -> Verdict {
    let script = "cat /proc/self/cgroup; cat /sys/fs/cgroup/pids/pids.max 2>/dev/null || \
                  cat /sys/fs/cgroup/pids.max";
    let private = podman.sh(&["--cgroupns", "private"], script)?;
    lacks("private", &private, "libpod")?;
    contains("limit", &private, "2048")?;
    let host = podman.sh(&["--cgroupns", "host"], "cat /proc/self/cgroup")?;
    contains("host", &host, &format!(":{}/libpod-", podman.sandbox.cgroup))
}

fn no_cgroup(podman: &Podman) -> Verdict {
    if podman.sandbox.is_runc() {
        return Err(Stop::Skip("runc has no --cgroup-manager disabled".into()));
    }
    let script = "grep :pids: /proc/self/cgroup || cat /proc/self/cgroup";
    let words = ["run", "--rm", "--network", "none", "--cgroups", "disabled", "--cgroupns", "host"];
    let seen = podman.command(&words).args([image::NAME, "sh", "-c", script]).ok()?;
    let own = fs::read_to_string("/proc/self/cgroup")?;
    contains("our own group", &own, &seen)
}

fn umask_and_oom_score(podman: &Podman) -> Verdict {
    let options = ["--umask", "0077", "--oom-score-adj", "321"];
    same("values", &podman.sh(&options, "umask; cat /proc/self/oom_score_adj")?, "0077\n321")
}

fn preserved_descriptors(podman: &Podman) -> Verdict {
    let seen = podman.run(&[], &["ls", "/proc/self/fd"]).ok()?;
    same("without", &seen, "0\n1\n2\n3")?;
    let file = podman.folder("descriptors")?.join("file");
    fs::write(&file, "through the descriptor")?;
    let run = podman.run(&["--preserve-fds", "1"], &["sh", "-c", "cat <&3"]);
    let script = format!("exec {} 3< {}", quoted(&run.line()), file.display());
    let mut shell = corten_integration::managers::command::Run::new("sh").args(["-c", &script]);
    for (name, value) in &podman.environment {
        shell = shell.env(name, value);
    }
    same("with", &shell.ok()?, "through the descriptor")
}

/// The words of a command line that ends in `sh -c SCRIPT`, with the script quoted.
fn quoted(line: &str) -> String {
    line.replace("cat <&3", "'cat <&3'")
}

fn pid_file(podman: &Podman) -> Verdict {
    let file = podman.folder("pid")?.join("pid");
    let name = file.display().to_string();
    let container = podman.background(&["--pidfile", &name], "sleep 600")?;
    same("pid", &fs::read_to_string(&file)?, &container.pid()?.to_string())
}

fn timeout(podman: &Podman) -> Verdict {
    let ended = podman.run(&["--timeout", "1"], &["sleep", "600"]).run()?;
    check(ended.code != 0, "a container outlived its --timeout")
}

fn secret(podman: &Podman) -> Verdict {
    let file = podman.folder("secret")?.join("file");
    fs::write(&file, "hush")?;
    podman.ok(&["secret", "create", "whisper", &file.display().to_string()])?;
    let seen = podman
        .sh(&["--secret", "whisper"], "cat /run/secrets/whisper; stat -c %a /run/secrets/whisper");
    podman.ok(&["secret", "rm", "whisper"])?;
    same("secret", &seen?, "hush444")
}

fn version_in_info(podman: &Podman) -> Verdict {
    let template =
        "{{.Host.OCIRuntime.Name}} {{.Host.OCIRuntime.Path}} {{.Host.OCIRuntime.Version}}";
    let seen = podman.ok(&["info", "--format", template])?;
    contains("name", &seen, &podman.runtime())?;
    contains("path", &seen, &podman.sandbox.runtime.display().to_string())?;
    if seen.contains("version ") { Ok(()) } else { Err(Stop::Fail(format!("no version: {seen}"))) }
}
