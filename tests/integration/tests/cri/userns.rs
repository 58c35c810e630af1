//! Pods with a user namespace of their own, which containerd 2 can run.
//!
//! Their root is an ordinary user of the node; the image and the volumes look as ever through
//! mounts with a mapping of ids. containerd asks the shim (`-info`) whether its runtime can do that.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use corten_integration::managers::cri::pod::{Pod, text};
use corten_integration::managers::cri::{self, Cri};
use corten_integration::managers::{Stop, Verdict, check, contains, same};
use serde_json::{Value, json};

use crate::pods::namespace;

pub(crate) const TESTS: &[(&str, crate::Test)] = &[
    ("handlers_can", handlers_can),
    ("ids", ids),
    ("shim_by_path", shim_by_path),
    ("image_files", image_files),
    ("volumes", volumes),
    ("network_and_limits", network_and_limits),
    ("capabilities_inside", capabilities_inside),
    ("exec_and_terminal", exec_and_terminal),
    ("unlike_pods_do_not_mix", unlike_pods_do_not_mix),
];

/// The first id of the pods on the node, and how many they have.
const FIRST: u32 = 3_000_000;
const LENGTH: u32 = 65536;

/// What containerd has learnt about a handler from its shim.
fn features(cri: &Cri, handler: &str) -> Result<Value, Stop> {
    let status = cri.call("Status", &json!({}))?;
    let all = status["runtime_handlers"].as_array().cloned().unwrap_or_default();
    let own = all.into_iter().find(|one| one["name"] == handler);
    own.map(|mut own| own["features"].take())
        .ok_or_else(|| Stop::Fail(format!("{handler} is not in {status}")))
}

/// Skips the test where user namespaces cannot work.
fn can(cri: &Cri) -> Verdict {
    cri.since(2, "a pod with a user namespace")?;
    let can = features(cri, cri::HANDLER)?["user_namespaces"] == true;
    if !can && cri.sandbox.is_runc() {
        return Err(Stop::Skip("this runc knows no mounts with a mapping of ids".into()));
    }
    check(can, "the shim doesn't say that its runtime can map the ids of mounts")
}

/// The mappings as namespace options.
fn options() -> Value {
    let map = json!([{"host_id": FIRST, "container_id": 0, "length": LENGTH}]);
    json!({"userns_options": {"mode": "POD", "uids": map, "gids": map}})
}

/// A pod with a user namespace.
fn pod<'a>(cri: &'a Cri, handler: &str) -> Result<Pod<'a>, Stop> {
    cri.pod_by(handler, json!({"linux": {"security_context": {"namespace_options": options()}}}))
}

/// A container of such a pod.
fn inside() -> Value {
    json!({"linux": {"security_context": {"namespace_options": options()}}})
}

fn handlers_can(cri: &Cri) -> Verdict {
    can(cri)?;
    for handler in [cri::HANDLER, cri::AS_RUNC, cri::WITH_OPTIONS] {
        let features = features(cri, handler)?;
        same(handler, &features["user_namespaces"], &true)?;
        same(handler, &features["recursive_read_only_mounts"], &true)?;
    }
    Ok(())
}

fn ids(cri: &Cri) -> Verdict {
    can(cri)?;
    let pod = pod(cri, cri::HANDLER)?;
    let container = pod.container("id -u; cat /proc/self/uid_map; sleep 600", inside())?;
    container.says("65536")?;
    let words: Vec<String> = container.output()?.split_whitespace().map(str::to_owned).collect();
    same("inside", &words, &["0", "0", &FIRST.to_string(), &LENGTH.to_string()].as_slice())?;
    for pid in [pod.pid()?, container.pid()?] {
        same("on the node", &fs::metadata(format!("/proc/{pid}"))?.uid(), &FIRST)?;
        check(namespace(pid, "user")? != namespace("self", "user")?, "the node's namespace")?;
    }
    same("one namespace", &namespace(pod.pid()?, "user")?, &namespace(container.pid()?, "user")?)?;
    let user = json!({"linux": {"security_context": {"run_as_user": {"value": 1000},
        "namespace_options": options()}}});
    let container = pod.container("sleep 600", user)?;
    let uid = fs::metadata(format!("/proc/{}", container.pid()?))?.uid();
    same("a user of the image", &uid, &(FIRST + 1000))
}

fn shim_by_path(cri: &Cri) -> Verdict {
    can(cri)?;
    // With a table of options: containerd reads them back as those of runc.
    let pod = pod(cri, cri::AS_RUNC)?;
    same("inside", &pod.sh("id -u; head -c 5 /etc/greeting", inside())?, "0\nhello")
}

fn image_files(cri: &Cri) -> Verdict {
    can(cri)?;
    let pod = pod(cri, cri::HANDLER)?;
    let script = "stat -c '%u %n' /etc/passwd /home/alice; touch /made && stat -c '%u %n' /made";
    let seen = pod.sh(script, inside())?;
    same("owners", &seen, "0 /etc/passwd\n1000 /home/alice\n0 /made")
}

fn volumes(cri: &Cri) -> Verdict {
    can(cri)?;
    let folder = cri.dir.join("files/of-a-user-namespace");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("note"), "owned by root\n")?;
    let map = json!([{"host_id": FIRST, "container_id": 0, "length": LENGTH}]);
    let mut more = inside();
    more["mounts"] = json!([{
        "container_path": "/volume", "host_path": folder, "uidMappings": map, "gidMappings": map,
    }]);
    let pod = pod(cri, cri::HANDLER)?;
    let script = "stat -c %u /volume/note; cat /volume/note; echo answer > /volume/answer";
    same("inside", &pod.sh(script, more)?, "0\nowned by root")?;
    // What root writes there belongs to the node's root.
    let answer = fs::metadata(folder.join("answer"))?;
    same("on the node", &(answer.uid(), answer.gid()), &(0, 0))
}

fn network_and_limits(cri: &Cri) -> Verdict {
    can(cri)?;
    let pod = pod(cri, cri::HANDLER)?;
    let mut more = inside();
    more["linux"]["resources"] = json!({"memory_limit_in_bytes": 64 << 20});
    let script = "ip -4 -o addr show eth0; hostname; cat /sys/fs/cgroup/memory/memory.limit_in_bytes \
                  2>/dev/null || cat /sys/fs/cgroup/memory.max";
    let seen = pod.sh(script, more)?;
    contains("address", &seen, &pod.ip()?)?;
    contains("hostname", &seen, &text(&pod.config["hostname"]))?;
    contains("memory", &seen, "67108864")
}

fn capabilities_inside(cri: &Cri) -> Verdict {
    can(cri)?;
    let pod = pod(cri, cri::HANDLER)?;
    let mut more = inside();
    more["linux"]["security_context"]["capabilities"] = json!({"add_capabilities": ["SYS_ADMIN"]});
    // It may mount what a user namespace may, and nothing that is the node's.
    let script = "mkdir /mnt; mount -t tmpfs none /mnt && echo mounted; \
                  mknod /tmp/disk b 8 0 2>&1; dmesg 2>&1 | head -n 1; :";
    let seen = pod.sh(script, more)?;
    contains("tmpfs", &seen, "mounted")?;
    contains("mknod", &seen, "Operation not permitted")
}

fn exec_and_terminal(cri: &Cri) -> Verdict {
    can(cri)?;
    let pod = pod(cri, cri::HANDLER)?;
    let mut more = inside();
    more["tty"] = json!(true);
    more["stdin"] = json!(true);
    let container = pod.container("exec sh", more)?;
    same("exec", &container.exec("id -u; cat /proc/self/uid_map | wc -l")?, "0\n1")?;
    let mut stream = container.exec_stream(&["sh"], true)?;
    stream.send("tty; echo own$((1))er $(stat -c %u $(tty)); exit 5\n")?;
    stream.expect(1, "own1er 0")?;
    same("code", &stream.finish()?.0, &5)?;
    let mut stream = container.attach(true, true)?;
    stream.send("echo owner$((2)) $(stat -c %u $(tty)); exit 7\n")?;
    stream.expect(1, "owner2 0")?;
    same("exit code", &container.wait()?, &7)
}

fn unlike_pods_do_not_mix(cri: &Cri) -> Verdict {
    can(cri)?;
    let pod = pod(cri, cri::HANDLER)?;
    // A container that asks for the node's user namespace in such a pod is refused.
    let node = json!({"userns_options": {"mode": "NODE"}});
    let more = json!({"linux": {"security_context": {"namespace_options": node}}});
    contains("message", &pod.create_refused("true", more)?.message, "user namespace").or_else(
        |_| {
            let node = json!({"userns_options": {"mode": "NODE"}});
            let more = json!({"linux": {"security_context": {"namespace_options": node}}});
            contains("message", &pod.create_refused("true", more)?.message, "userns")
        },
    )
}
