//! What containers may use and what they have used: limits, updates, statistics.

use std::time::Duration;

use corten_integration::managers::cri::Cri;
use corten_integration::managers::cri::messages::number;
use corten_integration::managers::cri::pod::text;
use corten_integration::managers::{Stop, Verdict, check, contains, eventually, same};
use serde_json::{Value, json};

pub(crate) const TESTS: &[(&str, crate::Test)] = &[
    ("limits", limits),
    ("oom_score", oom_score),
    ("update", update),
    ("update_created", update_created),
    ("update_refused", update_refused),
    ("memory_stats", memory_stats),
    ("cpu_stats", cpu_stats),
    ("list_stats", list_stats),
    ("pod_stats", pod_stats),
    ("stats_of_the_stopped", stats_of_the_stopped),
];

/// A script that prints cgroup files of v1, or those of v2.
fn files(v1: &str, v2: &str) -> String {
    format!("cd /sys/fs/cgroup; cat {v1} 2>/dev/null || cat {v2}")
}

fn limits(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let resources = json!({
        "memory_limit_in_bytes": 64 << 20, "cpu_quota": 50000, "cpu_period": 100_000,
        "cpu_shares": 512, "cpuset_cpus": "0",
    });
    let container = pod.container("sleep 600", json!({"linux": {"resources": resources}}))?;
    let memory = files("memory/memory.limit_in_bytes", "memory.max");
    same("memory", &container.exec(&memory)?, "67108864")?;
    let quota = files("cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us", "cpu.max");
    same("quota", &container.exec(&quota)?.replace('\n', " "), "50000 100000")?;
    let shares = container.exec(&files("cpu/cpu.shares", "cpu.weight"))?;
    check(shares == "512" || shares.parse::<u32>()? < 100, shares)?;
    let status = container.exec("cat /proc/self/status")?;
    contains("cpus", &status, "Cpus_allowed_list:\t0\n")
}

fn oom_score(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let more = json!({"linux": {"resources": {"oom_score_adj": 777}}});
    let container = pod.container("sleep 600", more)?;
    let read = |pid| std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj"));
    same("score", &read(container.pid()?)?, "777\n")
}

fn update(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let resources = json!({"memory_limit_in_bytes": 64 << 20, "cpu_shares": 256});
    let container = pod.container("sleep 600", json!({"linux": {"resources": resources}}))?;
    container.update(&json!({"memory_limit_in_bytes": 128 << 20}))?;
    let memory = files("memory/memory.limit_in_bytes", "memory.max");
    same("memory", &container.exec(&memory)?, "134217728")?;
    container.update(&json!({"cpu_quota": 25000, "cpu_period": 50000, "cpu_shares": 300}))?;
    let quota = files("cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us", "cpu.max");
    same("quota", &container.exec(&quota)?.replace('\n', " "), "25000 50000")?;
    same("memory kept", &container.exec(&memory)?, "134217728")?;
    container.update(&json!({"cpuset_cpus": "0"}))?;
    contains("cpuset", &container.exec("cat /proc/self/status")?, "Cpus_allowed_list:\t0\n")
}

fn update_created(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let memory = files("memory/memory.limit_in_bytes", "memory.max");
    let container = pod.create(&memory, json!({}))?;
    container.update(&json!({"memory_limit_in_bytes": 96 << 20}))?;
    container.start()?;
    container.wait()?;
    same("memory", &container.output()?, "100663296\n")
}

fn update_refused(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let resources =
        json!({"memory_limit_in_bytes": 64 << 20, "memory_swap_limit_in_bytes": 64 << 20});
    let script =
        "head -c 30000000 /dev/zero > /tmp/fill; cp /tmp/fill /dev/shm/fill; echo full; sleep 600";
    let container = pod.container(script, json!({"linux": {"resources": resources}}))?;
    container.says("full")?;
    let request = json!({
        "container_id": container.id,
        "linux": {"memory_limit_in_bytes": 4 << 20, "memory_swap_limit_in_bytes": 4 << 20},
    });
    if cri.call("UpdateContainerResources", &request).is_ok() {
        // cgroup v2 makes room instead of refusing, and page cache can go.
        return Ok(());
    }
    let memory = files("memory/memory.limit_in_bytes", "memory.max");
    same("memory", &container.exec(&memory)?, "67108864")?;
    same("state", &container.state()?, "CONTAINER_RUNNING")
}

/// A counter in statistics, which must be there.
fn counter(stats: &Value, part: &str, name: &str) -> Result<i64, Stop> {
    number(&stats[part][name]).map_err(|_| Stop::Fail(format!("no {part}.{name} in {stats}")))
}

fn memory_stats(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let more = json!({"linux": {"resources": {"memory_limit_in_bytes": 128 << 20}}});
    let script = "head -c 20000000 /dev/zero > /dev/shm/fill; echo full; sleep 600";
    let container = pod.container(script, more)?;
    container.says("full")?;
    let mut stats = Value::Null;
    eventually("20 MB are seen", Duration::from_secs(20), || {
        stats = container.stats()?;
        Ok(counter(&stats, "memory", "working_set_bytes")? > 18_000_000)
    })
    .map_err(|_| Stop::Fail(stats.to_string()))?;
    same("id", &text(&stats["attributes"]["id"]), &container.id)?;
    let set = counter(&stats, "memory", "working_set_bytes")?;
    check(set < 60_000_000, format!("working set {set}"))?;
    check(counter(&stats, "memory", "timestamp")? > 1_700_000_000_000_000_000, &stats)?;
    if cri.major >= 2 {
        let usage = counter(&stats, "memory", "usage_bytes")?;
        check(usage >= set, format!("usage {usage}, working set {set}"))?;
        let left = counter(&stats, "memory", "available_bytes")?;
        same("available and used", &(left + set), &(128 << 20))?;
        check(counter(&stats, "memory", "page_faults")? > 0, &stats)?;
    }
    Ok(())
}

fn cpu_stats(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let container = pod.container("while :; do :; done", json!({}))?;
    let used = || counter(&container.stats()?, "cpu", "usage_core_nano_seconds");
    let first = used()?;
    std::thread::sleep(Duration::from_secs(1));
    // One busy process beside other tests: something between a twentieth and both processors.
    let spent = used()? - first;
    check((50_000_000..4_000_000_000).contains(&spent), format!("{spent} ns in a second"))
}

fn list_stats(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let containers = [1, 2].map(|_| pod.container("sleep 600", json!({})));
    let stats = cri.call("ListContainerStats", &json!({"filter": {"pod_sandbox_id": pod.id}}))?;
    let all = stats["stats"].as_array().cloned().unwrap_or_default();
    same("how many", &all.len(), &2)?;
    for container in containers {
        let container = container?;
        let own = all.iter().find(|one| one["attributes"]["id"] == container.id.as_str());
        let own = own.ok_or_else(|| format!("{} is missing", container.id))?;
        check(counter(own, "memory", "working_set_bytes")? > 0, own)?;
        check(counter(own, "cpu", "usage_core_nano_seconds")? > 0, own)?;
    }
    // Everybody's statistics in one call, while others come and go.
    cri.call("ListContainerStats", &json!({})).map(drop)
}

fn pod_stats(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let container = pod.container("sleep 600 & sleep 600", json!({}))?;
    let request = json!({"pod_sandbox_id": pod.id});
    let mut linux = Value::Null;
    eventually("both processes are seen", Duration::from_secs(10), || {
        linux = cri.call("PodSandboxStats", &request)?["stats"]["linux"].take();
        // containerd counts those of the containers, 2.x the pod's own too.
        Ok(counter(&linux, "process", "process_count")? >= 2)
    })
    .map_err(|_| Stop::Fail(linux.to_string()))?;
    check(counter(&linux, "memory", "working_set_bytes")? > 0, &linux)?;
    check(counter(&linux, "cpu", "usage_core_nano_seconds")? > 0, &linux)?;
    let interface = &linux["network"]["default_interface"];
    same("interface", &text(&interface["name"]), "eth0")?;
    check(number(&interface["rx_bytes"])? > 0, interface)?;
    same("container", &text(&linux["containers"][0]["attributes"]["id"]), &container.id)
}

fn stats_of_the_stopped(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let container = pod.container("true", json!({}))?;
    container.wait()?;
    // containerd answers what it knows without numbers, or says that nothing runs.
    let all = cri.call("ListContainerStats", &json!({"filter": {"pod_sandbox_id": pod.id}}))?;
    let all = all["stats"].as_array().cloned().unwrap_or_default();
    check(all.iter().all(|one| one["memory"]["working_set_bytes"].is_null()), format!("{all:?}"))
}
