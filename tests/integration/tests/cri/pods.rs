//! Pods: one shim and one network for several containers, namespaces by option, handlers.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use corten_integration::managers::command::Run;
use corten_integration::managers::cri::pod::{Pod, text};
use corten_integration::managers::cri::{self, Cri};
use corten_integration::managers::{
    Stop, Verdict, check, contains, eventually, lacks, leaks, same,
};
use nix::unistd::Pid;
use serde_json::{Value, json};

pub(crate) const TESTS: &[(&str, crate::Test)] = &[
    ("network", network),
    ("host_port", host_port),
    ("one_shim", one_shim),
    ("shared_namespaces", shared_namespaces),
    ("pid_of_the_pod", pid_of_the_pod),
    ("pid_of_the_container", pid_of_the_container),
    ("pid_of_a_target", pid_of_a_target),
    ("pid_of_the_node", pid_of_the_node),
    ("network_of_the_node", network_of_the_node),
    ("ipc_of_the_node", ipc_of_the_node),
    ("names_and_dns", names_and_dns),
    ("sysctls", sysctls),
    ("cgroups", cgroups),
    ("stop_ends_containers", stop_ends_containers),
    ("remove_with_running", remove_with_running),
    ("lists", lists),
    ("many_containers", many_containers),
    ("other_handler_beside", other_handler_beside),
    ("options_of_the_handler", options_of_the_handler),
    ("shim_by_path", shim_by_path),
    ("unknown_handler", unknown_handler),
    ("missing_shim", missing_shim),
];

/// The parent of a process.
pub(crate) fn parent(pid: Pid) -> Result<i32, Stop> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
    Ok(after.split_whitespace().nth(1).unwrap_or_default().parse()?)
}

/// Which namespace of that kind a process is in.
pub(crate) fn namespace(pid: impl std::fmt::Display, kind: &str) -> Result<String, Stop> {
    Ok(fs::read_link(format!("/proc/{pid}/ns/{kind}"))?.display().to_string())
}

/// An option of the namespaces, for pods and containers.
fn option(kind: &str, mode: &str) -> Value {
    json!({"linux": {"security_context": {"namespace_options": {kind: mode}}}})
}

fn network(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let ip = pod.ip()?;
    check(ip.starts_with("172.30.79."), format!("address {ip:?}"))?;
    let server = pod.container("echo hello from the pod | nc -l -p 8080", json!({}))?;
    let mut answer = String::new();
    eventually("the server answers", Duration::from_secs(20), || {
        let Ok(mut connection) = TcpStream::connect((ip.as_str(), 8080)) else { return Ok(false) };
        connection.write_all(b"bye\n")?;
        connection.shutdown(std::net::Shutdown::Write)?;
        connection.read_to_string(&mut answer)?;
        Ok(true)
    })?;
    same("answer", &answer, "hello from the pod\n")?;
    same("exit code", &server.wait()?, &0)?;
    let seen = pod.sh("ip -4 -o addr; ip route", json!({}))?;
    contains("address", &seen, &format!("inet {ip}/24"))?;
    contains("loopback", &seen, "inet 127.0.0.1/8")?;
    contains("route", &seen, &format!("default via {}", cri::GATEWAY))?;
    // Another pod and its neighbour reach each other.
    let other = cri.pod(json!({}))?;
    let ping = other.container(&format!("ping -c 1 -W 10 {ip}"), json!({}))?;
    same("ping", &ping.wait()?, &0)
}

fn host_port(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({"port_mappings": [{"container_port": 80, "host_port": 18080}]}))?;
    pod.container("while :; do echo mapped | nc -l -p 80; done", json!({}))?;
    let mut answer = String::new();
    eventually("the port of the host answers", Duration::from_secs(20), || {
        let Ok(mut connection) = TcpStream::connect((cri::GATEWAY, 18080)) else {
            return Ok(false);
        };
        connection.shutdown(std::net::Shutdown::Write)?;
        connection.read_to_string(&mut answer).ok();
        Ok(!answer.is_empty())
    })?;
    same("answer", &answer, "mapped\n")
}

fn one_shim(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let shim = parent(pod.pid()?)?;
    let words = fs::read_to_string(format!("/proc/{shim}/cmdline"))?;
    contains("the parent of the pod", &words, "containerd-shim-")?;
    let containers = ["one", "two", "three"].map(|_| pod.container("sleep 600", json!({})));
    for container in containers {
        same("the parent of a container", &parent(container?.pid()?)?, &shim)?;
    }
    let other = cri.pod(json!({}))?;
    check(parent(other.pid()?)? != shim, "two pods have one shim")?;
    drop(pod);
    eventually("the shim has ended", Duration::from_secs(20), || {
        Ok(!Path::new(&format!("/proc/{shim}")).exists())
    })
}

fn shared_namespaces(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let one = pod.container("echo from one > /dev/shm/note; sleep 600", json!({}))?;
    let two = pod.container("sleep 600", json!({}))?;
    for kind in ["net", "ipc", "uts"] {
        let wanted = namespace(pod.pid()?, kind)?;
        same(kind, &namespace(one.pid()?, kind)?, &wanted)?;
        same(kind, &namespace(two.pid()?, kind)?, &wanted)?;
        check(namespace("self", kind)? != wanted, format!("{kind} is the node's"))?;
    }
    check(namespace(one.pid()?, "mnt")? != namespace(two.pid()?, "mnt")?, "one mount namespace")?;
    // Even /dev/shm is the pod's, and 127.0.0.1.
    same("note", &two.exec("until cat /dev/shm/note; do sleep 0.1; done 2>&1")?, "from one")?;
    one.exec("(echo near | nc -l -p 99) >/dev/null 2>&1 &")?;
    let near = "until nc 127.0.0.1 99 </dev/null; do sleep 0.1; done 2>/dev/null";
    same("loopback", &two.exec(near)?, "near")
}

fn pid_of_the_pod(cri: &Cri) -> Verdict {
    let pod = cri.pod(option("pid", "POD"))?;
    let one = pod.container("exec sleep 601", option("pid", "POD"))?;
    let two = pod.container("exec sleep 602", option("pid", "POD"))?;
    same("namespace", &namespace(one.pid()?, "pid")?, &namespace(pod.pid()?, "pid")?)?;
    let seen = two.exec("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")?;
    for part in ["sleep 2147483647", "sleep 601", "sleep 602"] {
        contains("processes", &seen, part)?;
    }
    // The end of one container is not the end of the pod.
    one.stop(0)?;
    same("the other", &two.state()?, "CONTAINER_RUNNING")?;
    two.exec("true").map(drop)
}

fn pid_of_the_container(cri: &Cri) -> Verdict {
    let pod = cri.pod(option("pid", "CONTAINER"))?;
    let one = pod.container("exec sleep 601", option("pid", "CONTAINER"))?;
    let two = pod.container("exec sleep 602", option("pid", "CONTAINER"))?;
    same("first process", &one.exec("tr '\\0' ' ' < /proc/1/cmdline")?, "sleep 601")?;
    lacks("processes", &two.exec("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")?, "sleep 601")
}

fn pid_of_a_target(cri: &Cri) -> Verdict {
    let pod = cri.pod(option("pid", "CONTAINER"))?;
    let target = pod.container("exec sleep 601", option("pid", "CONTAINER"))?;
    let options = json!({"namespace_options": {"pid": "TARGET", "target_id": target.id}});
    let more = json!({"linux": {"security_context": options}});
    let debugger = pod.container("exec sleep 602", more)?;
    same("namespace", &namespace(debugger.pid()?, "pid")?, &namespace(target.pid()?, "pid")?)?;
    let seen = debugger.exec("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")?;
    contains("processes", &seen, "sleep 601")?;
    // The debugger ends alone, though it is no pid 1.
    debugger.stop(0)?;
    same("target", &target.state()?, "CONTAINER_RUNNING")
}

fn pid_of_the_node(cri: &Cri) -> Verdict {
    let pod = cri.pod(option("pid", "NODE"))?;
    let container = pod.container("sleep 603 & exec sleep 604", option("pid", "NODE"))?;
    same("namespace", &namespace(container.pid()?, "pid")?, &namespace("self", "pid")?)?;
    contains("processes", &container.exec("cat /proc/[0-9]*/comm; :")?, "containerd")?;
    eventually("its child runs", Duration::from_secs(10), || {
        Ok(container.exec("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")?.contains("sleep 603"))
    })?;
    // Without a pid namespace nothing but the shim ends what the container started.
    container.stop(0)?;
    eventually("its child has ended", Duration::from_secs(10), || {
        let seen = Run::new("/bin/busybox").args(["ps", "-o", "args"]).ok()?;
        Ok(!seen.contains("sleep 603"))
    })
}

fn network_of_the_node(cri: &Cri) -> Verdict {
    // The node's host name is the pod's: the kubelet asks for none.
    let mut more = option("network", "NODE");
    more["hostname"] = json!("");
    let pod = cri.pod(more)?;
    let container = pod.container("sleep 600", option("network", "NODE"))?;
    same("namespace", &namespace(container.pid()?, "net")?, &namespace("self", "net")?)?;
    contains("links", &container.exec("ip link")?, cri::BRIDGE)?;
    same("address", &pod.ip()?, "")
}

fn ipc_of_the_node(cri: &Cri) -> Verdict {
    let pod = cri.pod(option("ipc", "NODE"))?;
    let container = pod.container("sleep 600", option("ipc", "NODE"))?;
    same("namespace", &namespace(container.pid()?, "ipc")?, &namespace("self", "ipc")?)
}

fn names_and_dns(cri: &Cri) -> Verdict {
    let dns = json!({"servers": ["10.9.8.7"], "searches": ["corten.test"]});
    let pod = cri.pod(json!({"hostname": "weathered", "dns_config": dns}))?;
    let seen = pod.sh("hostname; cat /etc/hostname /etc/resolv.conf", json!({}))?;
    contains("hostname", &seen, "weathered\nweathered\n")?;
    contains("server", &seen, "nameserver 10.9.8.7")?;
    contains("search", &seen, "search corten.test")
}

fn sysctls(cri: &Cri) -> Verdict {
    let wanted =
        json!({"net.ipv4.ip_local_port_range": "2000 2999", "kernel.shm_rmid_forced": "1"});
    let pod = cri.pod(json!({"linux": {"sysctls": wanted}}))?;
    let script = "cat /proc/sys/net/ipv4/ip_local_port_range /proc/sys/kernel/shm_rmid_forced";
    same("values", &pod.sh(script, json!({}))?, "2000\t2999\n1")
}

fn cgroups(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let container = pod.container("sleep 600", json!({}))?;
    for (pid, id) in [(pod.pid()?, &pod.id), (container.pid()?, &container.id)] {
        for line in fs::read_to_string(format!("/proc/{pid}/cgroup"))?.lines() {
            let wanted = format!(":{}/{id}", pod.cgroup());
            check(line.ends_with(&wanted), format!("{line} does not end with {wanted}"))?;
        }
    }
    container.stop(0)?;
    container.remove()?;
    for hierarchy in leaks::hierarchies()? {
        let group = hierarchy.join(pod.cgroup().trim_start_matches('/')).join(&container.id);
        check(!group.exists(), format!("{} is left", group.display()))?;
    }
    Ok(())
}

fn stop_ends_containers(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let running = pod.container("sleep 600", json!({}))?;
    let created = pod.create("sleep 600", json!({}))?;
    pod.stop()?;
    let status = running.status()?;
    same("state", &status["state"], "CONTAINER_EXITED")?;
    same("exit code", &status["exit_code"], &137)?;
    same("created", &created.state()?, "CONTAINER_EXITED").or_else(|_| {
        // containerd 1.6 leaves one that never ran as it is.
        same("created", &created.state()?, "CONTAINER_CREATED")
    })?;
    same("pod", &text(&pod.status()?["status"]["state"]), "SANDBOX_NOTREADY")?;
    same("address", &pod.ip()?, "")?;
    // Stopping and removing again are no errors.
    pod.stop()?;
    pod.remove()?;
    pod.remove()?;
    let gone = cri.refused("PodSandboxStatus", &json!({"pod_sandbox_id": pod.id}))?;
    same("status of the removed pod", &gone.status, &5)
}

fn remove_with_running(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let pids = [
        pod.pid()?,
        pod.container("trap '' TERM; while :; do sleep 1; done", json!({}))?.pid()?,
        pod.container("sleep 600", json!({}))?.pid()?,
    ];
    // A pod must be stopped first, even a killed one; a container need not.
    let container = pod.container("sleep 600", json!({}))?;
    container.remove()?;
    pod.stop()?;
    pod.remove()?;
    for pid in pids {
        check(!Path::new(&format!("/proc/{pid}")).exists(), format!("{pid} lives"))?;
    }
    let gone = cri.refused("ContainerStatus", &json!({"container_id": container.id}))?;
    same("status of a removed container", &gone.status, &5)
}

fn lists(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({"labels": {"app": "lists"}, "annotations": {"note": "kept"}}))?;
    let container = pod.container("sleep 600", json!({"labels": {"part": "one"}}))?;
    let filter = json!({"filter": {"label_selector": {"app": "lists"}}});
    let pods = cri.call("ListPodSandbox", &filter)?;
    same("pods", &pods["items"].as_array().map(Vec::len), &Some(1))?;
    same("id", &text(&pods["items"][0]["id"]), &pod.id)?;
    same("handler", &pods["items"][0]["runtime_handler"], cri::HANDLER)?;
    same("annotation", &pod.status()?["status"]["annotations"]["note"], "kept")?;
    let filter = json!({"filter": {"pod_sandbox_id": pod.id}});
    let containers = cri.call("ListContainers", &filter)?;
    same("id", &text(&containers["containers"][0]["id"]), &container.id)?;
    same("state", &containers["containers"][0]["state"], "CONTAINER_RUNNING")
}

fn many_containers(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let mut containers = Vec::new();
    for number in 0..12 {
        containers.push(pod.container(&format!("echo {number}; exit {number}"), json!({}))?);
    }
    for (number, container) in containers.iter().enumerate() {
        same("exit code", &container.wait()?, &i64::try_from(number)?)?;
        same("output", &container.output()?, &format!("{number}\n"))?;
    }
    Ok(())
}

/// Runs something in a pod of that handler.
fn works(pod: &Pod) -> Verdict {
    let container = pod.container("echo up; sleep 600", json!({}))?;
    container.says("up")?;
    same("exec", &container.exec("echo inside")?, "inside")?;
    container.stop(0)?;
    same("exit code", &container.wait()?, &137)
}

fn other_handler_beside(cri: &Cri) -> Verdict {
    let ours = cri.pod(json!({}))?;
    let other = cri.pod_by(cri::OTHER, json!({}))?;
    same("handler", &text(&other.status()?["status"]["runtime_handler"]), cri::OTHER)?;
    works(&ours)?;
    works(&other)?;
    let shim = fs::read_link(format!("/proc/{}/exe", parent(other.pid()?)?))?;
    check(shim.ends_with("containerd-shim-runc-v2"), format!("{}", shim.display()))?;
    // They reach each other.
    let ping = other.container(&format!("ping -c 1 -W 10 {}", ours.ip()?), json!({}))?;
    same("ping", &ping.wait()?, &0)
}

fn options_of_the_handler(cri: &Cri) -> Verdict {
    let pod = cri.pod_by(cri::WITH_OPTIONS, json!({}))?;
    works(&pod)?;
    let container = pod.container("sleep 600", json!({}))?;
    let state = cri.dir.join("state-of-options").join(cri::NAMESPACE);
    for id in [&pod.id, &container.id] {
        check(state.join(id).exists(), format!("no {id} in {}", state.display()))?;
    }
    drop(pod);
    same("left in the runtime's root", &fs::read_dir(state)?.count(), &0)
}

fn shim_by_path(cri: &Cri) -> Verdict {
    cri.since(2, "a handler with a path")?;
    let pod = cri.pod_by(cri::AS_RUNC, json!({}))?;
    let shim = fs::read_link(format!("/proc/{}/exe", parent(pod.pid()?)?))?;
    same("shim", &shim.file_name(), &cri.sandbox.shim()?.file_name())?;
    works(&pod)
}

fn unknown_handler(cri: &Cri) -> Verdict {
    let refusal = cri.pod_refused("nobody", json!({}))?;
    contains("message", &refusal.message, "no runtime for \"nobody\" is configured")
}

fn missing_shim(cri: &Cri) -> Verdict {
    let refusal = cri.pod_refused(cri::MISSING, json!({}))?;
    contains("message", &refusal.message, "containerd-shim-nosuchshim-v2")
}
