//! Capabilities, seccomp, no_new_privileges, devices, privileged containers.

use corten_integration::managers::docker::{Docker, MAY_MOUNT, Test, all_capabilities};
use corten_integration::managers::{Stop, Verdict, check, contains, lacks, same};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("capabilities_default", capabilities_default),
    ("capabilities_changed", capabilities_changed),
    ("capabilities_of_a_user", capabilities_of_a_user),
    ("capabilities_work", capabilities_work),
    ("privileged", privileged),
    ("privileged_devices", privileged_devices),
    ("seccomp_default", seccomp_default),
    ("seccomp_unconfined", seccomp_unconfined),
    ("seccomp_profile", seccomp_profile),
    ("seccomp_arguments", seccomp_arguments),
    ("no_new_privileges", no_new_privileges),
    ("device", device),
    ("device_rule", device_rule),
    ("device_denied", device_denied),
];

/// The five sets as Docker grants them by default.
const DEFAULT: &str = "00000000a80425fb";

/// `CapXxx: value` lines as `value` of the set.
fn set(status: &str, name: &str) -> Result<String, Stop> {
    let found = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
    Ok(found.ok_or_else(|| format!("no {name} in {status}"))?.to_owned())
}

const STATUS: &[&str] = &["cat", "/proc/self/status"];

fn capabilities_default(docker: &Docker) -> Verdict {
    let status = docker.run(&[], STATUS).ok()?;
    for name in ["CapPrm", "CapEff", "CapBnd"] {
        same(name, &set(&status, name)?, DEFAULT)?;
    }
    same("CapAmb", &set(&status, "CapAmb")?, "0000000000000000")?;
    // CVE-2022-29162: an inheritable set would survive execve of a marked file.
    same("CapInh", &set(&status, "CapInh")?, "0000000000000000")
}

fn capabilities_changed(docker: &Docker) -> Verdict {
    let more = docker.run(&["--cap-add", "NET_ADMIN", "--cap-add", "SYS_PTRACE"], STATUS).ok()?;
    same("added", &set(&more, "CapEff")?, "00000000a80c35fb")?;
    let less = docker.run(&["--cap-drop", "CHOWN", "--cap-drop", "NET_RAW"], STATUS).ok()?;
    same("dropped", &set(&less, "CapEff")?, "00000000a80405fa")?;
    let only = docker.run(&["--cap-drop", "ALL", "--cap-add", "KILL"], STATUS).ok()?;
    for name in ["CapPrm", "CapEff", "CapBnd"] {
        same(name, &set(&only, name)?, "0000000000000020")?;
    }
    let none = docker.run(&["--cap-drop", "ALL"], STATUS).ok()?;
    same("none", &set(&none, "CapBnd")?, "0000000000000000")
}

fn capabilities_of_a_user(docker: &Docker) -> Verdict {
    let status = docker.run(&["--user", "alice"], STATUS).ok()?;
    same("CapEff", &set(&status, "CapEff")?, "0000000000000000")?;
    same("CapPrm", &set(&status, "CapPrm")?, "0000000000000000")?;
    same("CapBnd", &set(&status, "CapBnd")?, DEFAULT)
}

fn capabilities_work(docker: &Docker) -> Verdict {
    let script = "mount -t tmpfs x /tmp 2>&1; chown 5 /tmp && echo chowned";
    let plain = docker.run(&[], &["sh", "-c", script]).run()?.all();
    contains("mount", &plain, "ermi")?;
    contains("chown", &plain, "chowned")?;
    let dropped = docker.run(&["--cap-drop", "CHOWN"], &["chown", "5", "/tmp"]).code(1)?;
    contains("chown", &dropped.stderr, "Operation not permitted")?;
    contains(
        "mounted",
        &docker.sh(&MAY_MOUNT, "mount -t tmpfs x /tmp && mount")?,
        "x on /tmp type tmpfs",
    )
}

/// A privileged container, or a skip where the packaged runc insists on capabilities that this
/// machine's root does not have.
fn powerful(docker: &Docker, script: &str) -> Result<String, Stop> {
    let ended = docker.run(&["--privileged"], &["sh", "-c", script]).run()?;
    if docker.sandbox.is_runc() && ended.stderr.contains("unable to apply caps") {
        return Err(Stop::Skip(
            "runc demands every capability, this host's root lacks some".into(),
        ));
    }
    check(ended.code == 0, ended.all())?;
    Ok(ended.stdout)
}

fn privileged(docker: &Docker) -> Verdict {
    let seen = powerful(docker, "cat /proc/self/status; cat /proc/self/mountinfo")?;
    same("capabilities", &set(&seen, "CapEff")?, &all_capabilities()?)?;
    same("seccomp", &set(&seen, "Seccomp")?, "0")?;
    let writable = |target: &str| seen.lines().any(|line| line.contains(&format!(" {target} rw,")));
    check(writable("/sys"), "/sys is not writable")?;
    for masked in [" /proc/sys ", " /proc/kcore ", " /sys/firmware "] {
        lacks("masks", &seen, masked)?;
    }
    let script = "cd /sys/fs/cgroup/pids 2>/dev/null || cd /sys/fs/cgroup; \
                  mkdir inner && rmdir inner && echo made";
    contains("cgroup is writable", &powerful(docker, script)?, "made")?;
    let script = "mount -t tmpfs t /tmp && hostname changed && hostname";
    contains("mount and sethostname", &powerful(docker, script)?, "changed")
}

fn privileged_devices(docker: &Docker) -> Verdict {
    let seen = powerful(docker, "ls /dev; mknod /tmp/m c 1 1; head -c 1 /dev/kmsg | wc -c")?;
    for node in ["kmsg", "mem"] {
        if std::path::Path::new("/dev").join(node).exists() {
            contains("/dev", &seen, node)?;
        }
    }
    contains("kmsg can be read", &seen, "\n1")
}

fn seccomp_default(docker: &Docker) -> Verdict {
    same("mode", &docker.sh(&[], "grep ^Seccomp: /proc/self/status")?, "Seccomp:\t2")?;
    // clone(CLONE_NEWUSER) and friends need CAP_SYS_ADMIN in Docker's profile.
    let denied = docker.run(&["--user", "alice"], &["unshare", "-U", "true"]).run()?;
    check(denied.code != 0, "unshare worked")?;
    contains("unshare", &denied.stderr, "Operation not permitted")?;
    // Pipes, threads, sockets, timers: ordinary programs live.
    same("ordinary", &docker.sh(&[], "echo a | sort | tr a b; sleep 0.01; date +%Z")?, "b\nUTC")
}

fn seccomp_unconfined(docker: &Docker) -> Verdict {
    let options = ["--security-opt", "seccomp=unconfined"];
    same("mode", &docker.sh(&options, "grep ^Seccomp: /proc/self/status")?, "Seccomp:\t0")?;
    docker.run(&[&options[..], &["--user", "alice"]].concat(), &["unshare", "-U", "true"]).ok()?;
    Ok(())
}

fn profile(docker: &Docker, syscalls: &str) -> Result<String, Stop> {
    let file = docker.folder("seccomp")?.join("profile.json");
    let text = format!(
        r#"{{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86"],
        "syscalls":[{syscalls}]}}"#
    );
    std::fs::write(&file, text)?;
    Ok(format!("seccomp={}", file.display()))
}

fn seccomp_profile(docker: &Docker) -> Verdict {
    let option = profile(
        docker,
        r#"{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"},
           {"names":["chmod","fchmod","fchmodat","fchmodat2"],"action":"SCMP_ACT_ERRNO","errnoRet":38},
           {"names":["sync"],"action":"SCMP_ACT_KILL_PROCESS"},
           {"names":["no_such_syscall"],"action":"SCMP_ACT_ERRNO"}"#,
    )?;
    let script = "mkdir /tmp/x; chmod 1 /tmp; sync; echo sync=$?; touch /tmp/y && echo touched";
    let seen = docker.run(&["--security-opt", &option], &["sh", "-c", script]).code(0)?.all();
    contains("EPERM by default", &seen, "Operation not permitted")?;
    contains("errnoRet", &seen, "Function not implemented")?;
    contains("killed by SIGSYS", &seen, "sync=159")?;
    contains("others", &seen, "touched")
}

fn seccomp_arguments(docker: &Docker) -> Verdict {
    // Only kill(_, SIGUSR1) is refused: 10.
    let option = profile(
        docker,
        r#"{"names":["kill"],"action":"SCMP_ACT_ERRNO","errnoRet":13,
            "args":[{"index":1,"value":10,"op":"SCMP_CMP_EQ"}]}"#,
    )?;
    let script = "sleep 100 & kill -USR1 $!; kill -USR2 $!; wait $!; echo ended=$?";
    let seen = docker.run(&["--security-opt", &option], &["sh", "-c", script]).code(0)?.all();
    contains("refused", &seen, "Permission denied")?;
    contains("USR2 went through", &seen, "ended=140")
}

fn no_new_privileges(docker: &Docker) -> Verdict {
    let status = "grep ^NoNewPrivs /proc/self/status";
    same("default", &docker.sh(&[], status)?, "NoNewPrivs:\t0")?;
    let options = ["--security-opt", "no-new-privileges"];
    same("asked for", &docker.sh(&options, status)?, "NoNewPrivs:\t1")?;
    // A setuid program: its applet `su` refuses unless it really became root.
    let script = "/bin/suid/busybox su -c true alice 2>&1 </dev/null | head -1";
    let user = ["--user", "nobody"];
    lacks("setuid works", &docker.sh(&user, script)?, "must be suid")?;
    let armed = [&options[..], &user[..]].concat();
    contains("setuid is disarmed", &docker.sh(&armed, script)?, "must be suid")
}

fn device(docker: &Docker) -> Verdict {
    let script = "stat -c '%F %t:%T %a' /dev/mine; head -c 3 /dev/mine | wc -c";
    let seen = docker.sh(&["--device", "/dev/zero:/dev/mine:r"], script)?;
    contains("node", &seen, "character special file 1:5")?;
    contains("read", &seen, "\n3")?;
    if !std::path::Path::new("/dev/fuse").exists() {
        return Ok(());
    }
    let script =
        "stat -c '%t:%T' /dev/f/deep; (: < /dev/f/deep) && echo read; (: > /dev/f/deep) 2>&1";
    let seen = docker.run(&["--device", "/dev/fuse:/dev/f/deep:r"], &["sh", "-c", script]).run()?;
    contains("numbers", &seen.stdout, "a:e5")?;
    contains("read", &seen.stdout, "read")?;
    contains("write is denied by the cgroup", &seen.all(), "Operation not permitted")
}

fn device_rule(docker: &Docker) -> Verdict {
    let script = "mknod /tmp/f c 10 229 && (: < /tmp/f) && echo opened";
    let denied = docker.run(&[], &["sh", "-c", script]).code(1)?;
    contains("without the rule", &denied.stderr, "Operation not permitted")?;
    let options = ["--device-cgroup-rule", "c 10:229 rwm"];
    same("with the rule", &docker.sh(&options, script)?, "opened")
}

fn device_denied(docker: &Docker) -> Verdict {
    // mknod is allowed for any device, opening is not.
    let script = "mknod /tmp/mem c 1 1 && echo made; head -c 1 /tmp/mem";
    let seen = docker.run(&[], &["sh", "-c", script]).code(1)?;
    contains("mknod", &seen.stdout, "made")?;
    contains("open", &seen.stderr, "Operation not permitted")?;
    for script in ["mknod /tmp/b b 8 0 && : < /tmp/b", "mknod /tmp/b b 254 0 && : < /tmp/b"] {
        let seen = docker.run(&[], &["sh", "-c", script]).run()?;
        contains("disk", &seen.stderr, "Operation not permitted")?;
    }
    Ok(())
}
