//! What `ctr run` can say about a container, seen from inside.

use std::fs;

use corten_integration::managers::containerd::Containerd;
use corten_integration::managers::{Stop, Verdict, check, contains, lacks, leaks, same};
use serde_json::{Value, json};

pub(crate) const TESTS: &[(&str, crate::Test)] = &[
    ("workdir_and_environment", workdir_and_environment),
    ("capabilities", capabilities),
    ("new_privileges", new_privileges),
    ("seccomp", seccomp),
    ("seccomp_profile", seccomp_profile),
    ("privileged", privileged),
    ("namespaces", namespaces),
    ("join_namespace", join_namespace),
    ("user_namespace", user_namespace),
    ("cgroup_path", cgroup_path),
    ("memory_limit", memory_limit),
    ("cpu_limits", cpu_limits),
    ("device", device),
    ("mounts", mounts),
    ("read_only", read_only),
    ("propagation", propagation),
    ("masked_and_readonly_paths", masked_and_readonly_paths),
    ("own_specification", own_specification),
    ("options_of_runc", options_of_runc),
    ("default_options_of_runc", default_options_of_runc),
];

fn workdir_and_environment(ctr: &Containerd) -> Verdict {
    let file = ctr.folder("env")?.join("env");
    fs::write(&file, "C=from a file\n")?;
    let file = file.display().to_string();
    let options =
        ["--cwd", "/var/data", "--env", "A=1", "--env", "B=two words", "--env-file", &file];
    let seen = ctr.sh(&options, "pwd; echo $A $B $C; cat seed")?;
    same("output", seen.as_str(), "/var/data\n1 two words from a file\nfrom the image")
}

/// The value of a line of `/proc/self/status`.
fn status(ctr: &Containerd, options: &[&str], key: &str) -> Result<String, Stop> {
    let seen = ctr.sh(options, &format!("grep ^{key}: /proc/self/status"))?;
    Ok(seen.split('\t').nth(1).unwrap_or_default().to_owned())
}

fn capabilities(ctr: &Containerd) -> Verdict {
    let set = |options: &[&str]| -> Result<u64, Stop> {
        Ok(u64::from_str_radix(&status(ctr, options, "CapEff")?, 16)?)
    };
    same("default", &set(&[])?, &0xa804_25fb)?;
    same("--cap-add", &set(&["--cap-add", "CAP_SYS_PTRACE"])?, &(0xa804_25fb | 1 << 19))?;
    same("--cap-drop", &set(&["--cap-drop", "CAP_CHOWN"])?, &0xa804_25fa)
}

fn new_privileges(ctr: &Containerd) -> Verdict {
    same("default", &status(ctr, &[], "NoNewPrivs")?, "1")?;
    same("--allow-new-privs", &status(ctr, &["--allow-new-privs"], "NoNewPrivs")?, "0")
}

fn seccomp(ctr: &Containerd) -> Verdict {
    same("without", &status(ctr, &[], "Seccomp")?, "0")?;
    same("--seccomp", &status(ctr, &["--seccomp"], "Seccomp")?, "2")?;
    let failed = ctr.run(&["--seccomp"], &["unshare", "-U", "true"])?.run()?;
    check(failed.code != 0, "unshare went through the default profile")
}

fn seccomp_profile(ctr: &Containerd) -> Verdict {
    let file = ctr.folder("profile")?.join("profile.json");
    let rule = json!({"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 31});
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]});
    fs::write(&file, profile.to_string())?;
    let file = file.display().to_string();
    let options = ["--seccomp", "--seccomp-profile", &file];
    let failed = ctr.run(&options, &["mkdir", "/x"])?.code(1)?;
    // EMLINK, as the profile says.
    contains("message", &failed.stderr, "Too many links")
}

fn privileged(ctr: &Containerd) -> Verdict {
    let script =
        "grep ^CapEff /proc/self/status; cat /proc/self/mounts; hostname changed; hostname";
    let seen = ctr.run(&["--privileged"], &["sh", "-c", script])?.run()?;
    if ctr.sandbox.is_runc() && seen.stderr.contains("unable to apply caps") {
        let why = "runc demands every capability, this host's root lacks some";
        return Err(Stop::Skip(why.into()));
    }
    same("exit code", &seen.code, &0)?;
    contains("hostname", &seen.stdout, "\nchanged")?;
    contains("/sys is writable", &seen.stdout, " /sys sysfs rw")
}

fn namespaces(ctr: &Containerd) -> Verdict {
    let script = "for n in mnt pid net ipc uts; do readlink /proc/self/ns/$n; done";
    let inner = ctr.sh(&[], script)?;
    let own = |name: &str| fs::read_link(format!("/proc/self/ns/{name}"));
    for name in ["mnt", "pid", "net", "ipc", "uts"] {
        lacks("namespaces of its own", &inner, &own(name)?.display().to_string())?;
    }
    let host = ctr.sh(&["--net-host"], script)?;
    contains("--net-host", &host, &own("net")?.display().to_string())?;
    lacks("--net-host", &host, &own("pid")?.display().to_string())
}

fn join_namespace(ctr: &Containerd) -> Verdict {
    let first = ctr.background(&[], "sleep 600")?;
    let pid = first.pid()?;
    for (name, kind) in [("net", "network"), ("ipc", "ipc"), ("uts", "uts"), ("pid", "pid")] {
        let option = format!("{kind}:/proc/{pid}/ns/{name}");
        let seen = ctr.sh(&["--with-ns", &option], &format!("readlink /proc/self/ns/{name}"))?;
        let wanted = fs::read_link(format!("/proc/{pid}/ns/{name}"))?;
        same(name, &seen, &wanted.display().to_string())?;
    }
    same("the first lives", &first.status()?, "RUNNING")
}

fn user_namespace(ctr: &Containerd) -> Verdict {
    let options = ["--uidmap", "0:100000:65536", "--gidmap", "0:100000:65536"];
    let seen = ctr.sh(&options, "cat /proc/self/uid_map; id -u; touch /new; stat -c %u /new")?;
    let words: Vec<_> = seen.split_whitespace().collect();
    same("map, id, owner", &words[..], &["0", "100000", "65536", "0", "0"][..])
}

fn cgroup_path(ctr: &Containerd) -> Verdict {
    let container = ctr.background(&[], "sleep 600")?;
    let groups = fs::read_to_string(format!("/proc/{}/cgroup", container.pid()?))?;
    contains("default", &groups, &format!(":/{}/{}\n", ctr.namespace, container.id))?;
    let own = format!("{}/chosen/by-hand", ctr.sandbox.cgroup);
    let container = ctr.background(&["--cgroup", &own], "sleep 600")?;
    let groups = fs::read_to_string(format!("/proc/{}/cgroup", container.pid()?))?;
    contains("--cgroup", &groups, &format!(":{own}\n"))?;
    drop(container);
    for hierarchy in leaks::hierarchies()? {
        let chosen = hierarchy.join(&ctr.namespace).join("chosen");
        check(!chosen.join("by-hand").exists(), format!("{} is left", chosen.display()))?;
        // The parents that the runtime made for it are the test's to remove.
        leaks::remove_groups(&chosen);
    }
    Ok(())
}

fn memory_limit(ctr: &Containerd) -> Verdict {
    let container = ctr.background(&["--memory-limit", "67108864"], "sleep 600")?;
    same(
        "limit",
        &group_file(&container.pid()?, "memory.limit_in_bytes", "memory.max")?,
        "67108864",
    )
}

/// A file of the container's cgroup, of v1 or of v2.
pub(crate) fn group_file(pid: &nix::unistd::Pid, v1: &str, v2: &str) -> Result<String, Stop> {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    for line in groups.lines() {
        let path = line.splitn(3, ':').nth(2).unwrap_or_default().trim_start_matches('/');
        for hierarchy in leaks::hierarchies()? {
            for file in [v1, v2] {
                if let Ok(text) = fs::read_to_string(hierarchy.join(path).join(file)) {
                    return Ok(text.trim_end().to_owned());
                }
            }
        }
    }
    Err(Stop::Fail(format!("no {v1} and no {v2} for process {pid}")))
}

fn cpu_limits(ctr: &Containerd) -> Verdict {
    for (options, quota, period) in [
        (&["--cpus", "0.5"][..], "50000", "100000"),
        (&["--cpu-quota", "30000", "--cpu-period", "60000"], "30000", "60000"),
    ] {
        let container = ctr.background(options, "sleep 600")?;
        let pid = container.pid()?;
        contains("quota", &group_file(&pid, "cpu.cfs_quota_us", "cpu.max")?, quota)?;
        contains("period", &group_file(&pid, "cpu.cfs_period_us", "cpu.max")?, period)?;
    }
    let container = ctr.background(&["--cpu-shares", "512"], "sleep 600")?;
    let shares = group_file(&container.pid()?, "cpu.shares", "cpu.weight")?;
    check(["512", "20", "59"].contains(&shares.as_str()), shares)
}

fn device(ctr: &Containerd) -> Verdict {
    let script = "test -c /dev/kmsg && echo there; echo > /dev/null && echo null";
    same("without", &ctr.sh(&[], &format!("{script}; true"))?, "null")?;
    same("--device", &ctr.sh(&["--device", "/dev/kmsg"], script)?, "there\nnull")
}

fn mounts(ctr: &Containerd) -> Verdict {
    let folder = ctr.folder("mount")?;
    fs::write(folder.join("file"), "from the host\n")?;
    let bind = |how: &str| {
        format!("type=bind,src={},dst=/host/deep,options=rbind:{how}", folder.display())
    };
    let script = "cat /host/deep/file; echo new > /host/deep/new && echo written";
    same("rw", &ctr.sh(&["--mount", &bind("rw")], script)?, "from the host\nwritten")?;
    fs::remove_file(folder.join("new"))?;
    let failed = ctr.run(&["--mount", &bind("ro")], &["sh", "-c", script])?.code(1)?;
    contains("ro", &failed.stderr, "Read-only file system")?;
    check(!folder.join("new").exists(), "written through a read-only mount")?;
    let memory = "type=tmpfs,src=tmpfs,dst=/memory,options=size=1m:mode=700";
    let seen = ctr.sh(&["--mount", memory], "grep ' /memory ' /proc/self/mounts")?;
    contains("tmpfs", &seen, "size=1024k,mode=700")?;
    // A link in the image that climbs out of the root stays inside.
    let climbing = format!("type=bind,src={},dst=/climb/inside,options=rbind", folder.display());
    let seen = ctr.sh(&["--mount", &climbing], "cat /etc/inside/file")?;
    same("through a link", &seen, "from the host")
}

fn read_only(ctr: &Containerd) -> Verdict {
    let script = "echo x > /x || echo refused; echo x > /dev/shm/x && echo shm";
    let seen = ctr.sh(&["--read-only"], script)?;
    same("output", &seen, "refused\nshm")
}

fn propagation(ctr: &Containerd) -> Verdict {
    let shown = "grep ' / / \\| / .* / ' /proc/self/mountinfo | head -1";
    lacks("default", &ctr.sh(&[], shown)?, "shared:")?;
    let seen = ctr.sh(&["--rootfs-propagation", "rshared"], shown)?;
    if ctr.sandbox.is_runc() && !seen.contains("shared:") {
        return Err(Stop::Skip("runc 1.1 changes the root that pivot_root leaves".into()));
    }
    contains("shared", &seen, "shared:")
}

fn masked_and_readonly_paths(ctr: &Containerd) -> Verdict {
    let script = "cat /proc/kcore | wc -c; ls /sys/firmware | wc -l; \
                  echo 1 > /proc/sys/kernel/sysrq || echo refused";
    let seen = ctr.sh(&[], script)?;
    same("output", &seen, "0\n0\nrefused")
}

/// `--config`: a specification that `ctr` does not touch, on a directory.
fn own_specification(ctr: &Containerd) -> Verdict {
    let folder = ctr.folder("spec")?;
    let root = folder.join("root");
    for path in ["bin", "proc", "dev"] {
        fs::create_dir_all(root.join(path))?;
    }
    fs::copy("/bin/busybox", root.join("bin/busybox"))?;
    let id = ctr.id()?;
    let script = "B=/bin/busybox; $B id; ulimit -Sn; ulimit -Hn; $B hostname; $B cat /mark || exit 1; \
                  $B touch /x || echo refused; umask; exit 9";
    let kinds = ["pid", "ipc", "uts", "mount"];
    let kinds: Vec<Value> = kinds.iter().map(|kind| json!({"type": kind})).collect();
    let spec = json!({
        "ociVersion": "1.0.2",
        "hostname": "chosen",
        "root": {"path": root, "readonly": true},
        "process": {
            "args": ["/bin/busybox", "sh", "-c", script],
            "cwd": "/",
            "env": ["PATH=/bin"],
            "user": {"uid": 1234, "gid": 2345, "additionalGids": [3456], "umask": 63},
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 111, "hard": 222}],
            "noNewPrivileges": true,
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/mark", "type": "bind", "source": folder.join("mark"),
             "options": ["rbind", "ro"]},
        ],
        "linux": {
            "cgroupsPath": format!("{}/{id}", ctr.sandbox.cgroup),
            "namespaces": kinds,
        },
    });
    fs::write(root.join("mark"), "")?;
    fs::write(folder.join("mark"), "marked\n")?;
    let file = folder.join("config.json");
    fs::write(&file, spec.to_string())?;
    let file = file.display().to_string();
    let words = ["run", "--rm", "--runtime", &ctr.runtime, "--config", &file, &id];
    let ended = ctr.ctr(&words).code(9)?;
    let wanted = "uid=1234 gid=2345 groups=3456\n111\n222\nchosen\nmarked\nrefused\n0077\n";
    same("output", &ended.stdout, wanted)
}

/// Options in runc's own message, which `ctr` sends to the shim of that name only.
fn options_of_runc(ctr: &Containerd) -> Verdict {
    let root = ctr.folder("state")?;
    let path = root.display().to_string();
    let runc = ctr.sandbox.runtime.display().to_string();
    let options =
        ["--runtime", "io.containerd.runc.v2", "--runc-root", &path, "--runc-binary", &runc];
    let container = ctr.background(&options, "echo up > /up; sleep 600")?;
    container.exec(&[], "until [ -s /up ]; do sleep 0.05; done")?;
    let state = root.join(&ctr.namespace).join(&container.id);
    check(state.exists(), format!("no {}", state.display()))?;
    // What the shim made is an ordinary container of the runtime.
    let listed = corten_integration::managers::command::Run::new(&ctr.sandbox.runtime)
        .arg("--root")
        .arg(root.join(&ctr.namespace))
        .args(["state", &container.id])
        .ok()?;
    contains("state", &listed, "\"running\"")?;
    container.does("kill", &["-s", "KILL"])?;
    same("exit code", &container.ends()?, &137)?;
    check(!state.exists(), format!("{} is left", state.display()))
}

fn default_options_of_runc(ctr: &Containerd) -> Verdict {
    let options = ["--runtime", "io.containerd.runc.v2", "--no-pivot"];
    same("--no-pivot", &ctr.sh(&options, "echo turned")?, "turned")?;
    same("none", &ctr.sh(&["--runtime", "io.containerd.runc.v2"], "echo plain")?, "plain")
}
