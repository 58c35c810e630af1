//! The security contexts of Kubernetes, as a process in the container sees them.

use std::fs;

use corten_integration::managers::cri::Cri;
use corten_integration::managers::{Verdict, check, contains, same};
use serde_json::{Value, json};

pub(crate) const TESTS: &[(&str, crate::Test)] = &[
    ("seccomp_default", seccomp_default),
    ("seccomp_unconfined", seccomp_unconfined),
    ("seccomp_localhost", seccomp_localhost),
    ("seccomp_missing_profile", seccomp_missing_profile),
    ("capabilities_default", capabilities_default),
    ("capabilities_dropped", capabilities_dropped),
    ("capabilities_added", capabilities_added),
    ("capabilities_all", capabilities_all),
    ("readonly_rootfs", readonly_rootfs),
    ("user_and_group", user_and_group),
    ("user_by_name", user_by_name),
    ("supplemental_groups", supplemental_groups),
    ("no_new_privileges", no_new_privileges),
    ("privileged", privileged),
    ("masked_and_readonly_paths", masked_and_readonly_paths),
    ("unmasked", unmasked),
    ("user_of_the_pod", user_of_the_pod),
];

/// A container with that security context.
fn context(security: Value) -> Value {
    json!({"linux": {"security_context": security}})
}

/// The line of a process' status that begins with that word.
const STATUS: &str = "cat /proc/self/status";

fn seccomp_default(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let more = context(json!({"seccomp": {"profile_type": "RuntimeDefault"}}));
    let seen = pod.sh(&format!("{STATUS}; unshare -U true 2>&1; echo $?"), more)?;
    contains("status", &seen, "Seccomp:\t2")?;
    contains("a new user namespace", &seen, "unshare")?;
    check(!seen.ends_with("\n0"), seen)
}

fn seccomp_unconfined(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let more = context(json!({"seccomp": {"profile_type": "Unconfined"}}));
    contains("status", &pod.sh(STATUS, more)?, "Seccomp:\t0")
}

fn seccomp_localhost(cri: &Cri) -> Verdict {
    let profile = cri.dir.join("no-mkdir.json");
    let rules =
        json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}]);
    let filter = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules});
    fs::write(&profile, filter.to_string())?;
    let pod = cri.pod(json!({}))?;
    let seccomp = json!({"profile_type": "Localhost", "localhost_ref": profile});
    let more = context(json!({"seccomp": seccomp}));
    let container = pod.container("mkdir /tmp/new; sleep 600", more)?;
    container.says("Operation not supported")?;
    // A command in it is held by the same filter.
    let ran = container.exec_sync(&["mkdir", "/tmp/other"], 10)?;
    contains("exec", &ran.stderr, "Operation not supported")
}

fn seccomp_missing_profile(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let seccomp = json!({"profile_type": "Localhost", "localhost_ref": "/nowhere/profile.json"});
    let more = context(json!({"seccomp": seccomp}));
    contains("message", &pod.create_refused("true", more)?.message, "/nowhere/profile.json")
}

fn capabilities_default(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let seen = pod.sh(STATUS, context(json!({})))?;
    contains("bounding", &seen, "CapBnd:\t00000000a80425fb")?;
    contains("effective", &seen, "CapEff:\t00000000a80425fb")
}

fn capabilities_dropped(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let drop = json!({"capabilities": {"drop_capabilities": ["CHOWN", "NET_RAW"]}});
    contains("two", &pod.sh(STATUS, context(drop))?, "CapBnd:\t00000000a80405fa")?;
    let drop = json!({"capabilities": {"drop_capabilities": ["ALL"]}});
    let script = "chown 1 /tmp 2>&1; cat /proc/self/status";
    let seen = pod.sh(script, context(drop))?;
    contains("all", &seen, "CapBnd:\t0000000000000000")?;
    contains("all", &seen, "Operation not permitted")
}

fn capabilities_added(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let security = json!({"capabilities": {
        "drop_capabilities": ["ALL"], "add_capabilities": ["NET_BIND_SERVICE", "SYS_TIME"],
    }});
    // 10 and 25.
    let container = pod.container("cat /proc/self/status; sleep 600", context(security))?;
    container.says("CapBnd:\t0000000002000400")?;
    contains("exec", &container.exec(STATUS)?, "CapEff:\t0000000002000400")
}

fn capabilities_all(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let security = json!({"capabilities": {"add_capabilities": ["ALL"]}});
    let own = fs::read_to_string("/proc/self/status")?;
    let own = own.lines().find(|line| line.starts_with("CapBnd")).unwrap_or_default();
    contains("bounding", &pod.sh(STATUS, context(security))?, own)
}

fn readonly_rootfs(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let script = "touch /file 2>&1; touch /etc/file 2>&1; touch /dev/shm/file && echo shm";
    let seen = pod.sh(script, context(json!({"readonly_rootfs": true})))?;
    same("refusals", &seen.matches("Read-only file system").count(), &2)?;
    contains("shared memory", &seen, "shm")?;
    same("otherwise", &pod.sh("touch /file && echo made", json!({}))?, "made")
}

fn user_and_group(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let script = "id -u; id -g; cat /proc/self/status; touch /etc/file 2>&1; :";
    let security = json!({"run_as_user": {"value": 1000}, "run_as_group": {"value": 3000}});
    let seen = pod.sh(script, context(security))?;
    check(seen.starts_with("1000\n3000\n"), &seen)?;
    contains("effective", &seen, "CapEff:\t0000000000000000")?;
    contains("a file of root", &seen, "Permission denied")?;
    // A number that the image doesn't know is as good.
    let security = json!({"run_as_user": {"value": 54321}});
    same("unknown", &pod.sh("id -u; id -g", context(security))?, "54321\n0")
}

fn user_by_name(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let security = json!({"run_as_username": "alice"});
    let seen = pod.sh("id -un; id -g; id -G; cd; pwd", context(security))?;
    check(seen.starts_with("alice\n1000\n"), &seen)?;
    contains("her other group", &seen, "2000")?;
    let refusal = pod.create_refused("true", context(json!({"run_as_username": "nobody-such"})))?;
    contains("message", &refusal.message, "nobody-such")
        .or_else(|_| contains("message", &refusal.message, "no users found"))
}

fn supplemental_groups(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let security = json!({"run_as_user": {"value": 1000}, "supplemental_groups": [4001, 4002]});
    let seen = pod.sh("id -G", context(security))?;
    for group in ["4001", "4002"] {
        contains("groups", &seen, group)?;
    }
    Ok(())
}

fn no_new_privileges(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let script = "cat /proc/self/status; /bin/suid/busybox id -u";
    let user = json!({"value": 1000});
    let seen = pod.sh(script, context(json!({"run_as_user": user, "no_new_privs": true})))?;
    contains("status", &seen, "NoNewPrivs:\t1")?;
    contains("the setuid program", &seen, "\n1000")?;
    let seen = pod.sh(script, context(json!({"run_as_user": user})))?;
    contains("otherwise", &seen, "NoNewPrivs:\t0")
}

fn privileged(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({"linux": {"security_context": {"privileged": true}}}))?;
    let script = "cat /proc/self/status; ls /dev; mount -t tmpfs none /mnt 2>&1 || \
                  (mkdir /mnt; mount -t tmpfs none /mnt && echo mounted); \
                  echo 0 > /proc/sys/kernel/panic && echo written";
    let old = fs::read_to_string("/proc/sys/kernel/panic")?;
    let script = script.replace("echo 0 ", &format!("echo {} ", old.trim()));
    let seen = pod.sh(&script, context(json!({"privileged": true})))?;
    let own = fs::read_to_string("/proc/self/status")?;
    let own = own.lines().find(|line| line.starts_with("CapBnd")).unwrap_or_default();
    contains("bounding", &seen, own)?;
    contains("seccomp", &seen, "Seccomp:\t0")?;
    contains("devices", &seen, "loop-control")?;
    contains("mount", &seen, "mounted")?;
    contains("sysctl", &seen, "written")
}

fn masked_and_readonly_paths(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let security = json!({
        "masked_paths": ["/etc/greeting", "/var/data", "/not/there"],
        "readonly_paths": ["/etc"],
    });
    let script = "cat /etc/greeting | wc -c; ls /var/data | wc -l; touch /etc/file 2>&1; touch /ok";
    let seen = pod.sh(script, context(security))?;
    check(seen.starts_with("0\n0\n"), &seen)?;
    contains("read-only", &seen, "Read-only file system")
}

fn unmasked(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    // Without a word the paths are as they are; the kubelet sends the usual ones.
    let script = "head -c 3 /proc/meminfo";
    let masked = context(json!({"masked_paths": ["/proc/meminfo"]}));
    same("masked", &pod.sh(script, masked)?, "")?;
    same("not masked", &pod.sh(script, context(json!({"masked_paths": []})))?, "Mem")
}

fn user_of_the_pod(cri: &Cri) -> Verdict {
    let security = json!({"run_as_user": {"value": 65534}, "readonly_rootfs": true});
    let pod = cri.pod(json!({"linux": {"security_context": security}}))?;
    let status = fs::read_to_string(format!("/proc/{}/status", pod.pid()?))?;
    contains("its own container", &status, "Uid:\t65534\t65534\t65534\t65534")?;
    same("others", &pod.sh("id -u", json!({}))?, "0")
}
