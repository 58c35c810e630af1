//! Pods as a kubelet with `cgroupDriver: systemd` asks for them: their parent is a slice.

use std::sync::{Mutex, PoisonError};

use corten_integration::managers::cri::{Cri, SYSTEMD};
use corten_integration::managers::{Verdict, same, trial};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::{GROUP, SLICE, files, gone, group_of, lab, properties};

type Test = fn(&Cri) -> Verdict;

const TESTS: [(&str, Test); 2] =
    [("pod_and_container_are_scopes", pod_and_container_are_scopes), ("update", update)];

static CRI: Mutex<Option<Cri>> = Mutex::new(None);

pub(crate) fn trials() -> Vec<Trial> {
    let one = |(name, test): (&str, Test)| trial("cri", name, move || with(test));
    TESTS.into_iter().map(one).collect()
}

fn with(test: Test) -> Verdict {
    let lab = lab()?;
    let mut cri = CRI.lock().unwrap_or_else(PoisonError::into_inner);
    if cri.is_none() {
        *cri = Some(Cri::start(&lab.sandbox)?);
    }
    test(cri.as_ref().ok_or("just started")?)
}

pub(crate) fn stop() -> Verdict {
    let cri = CRI.lock().unwrap_or_else(PoisonError::into_inner).take();
    cri.map_or(Ok(()), |mut cri| cri.stop())
}

/// In the host's network, which needs no bridge; such a pod has the host's name, too.
fn in_slice() -> Value {
    json!({"hostname": "", "linux": {
        "cgroup_parent": GROUP,
        "security_context": {"namespace_options": {"network": 2}},
    }})
}

fn scope(id: &str) -> (String, String) {
    (format!("cri-containerd-{id}.scope"), format!("{GROUP}/cri-containerd-{id}.scope"))
}

fn pod_and_container_are_scopes(cri: &Cri) -> Verdict {
    let pod = cri.pod_by(SYSTEMD, in_slice())?;
    same("the pod's group", &group_of(pod.pid()?)?, &scope(&pod.id).1)?;
    let limits = json!({"linux": {"resources": {"memory_limit_in_bytes": 67_108_864}}});
    let container = pod.container("sleep 600", limits)?;
    let (unit, group) = scope(&container.id);
    same("the container's group", &group_of(container.pid()?)?, &group)?;
    files(&group, &[("memory.max", "67108864")])?;
    properties(&unit, &[("Slice", SLICE), ("Delegate", "yes"), ("MemoryMax", "67108864")])?;
    same("an exec", container.exec("echo here")?.trim(), "here")?;
    container.stop(0)?;
    gone(&unit, &group)?;
    container.remove()?;
    let (unit, group) = scope(&pod.id);
    pod.stop()?;
    pod.remove()?;
    gone(&unit, &group)
}

fn update(cri: &Cri) -> Verdict {
    let pod = cri.pod_by(SYSTEMD, in_slice())?;
    let container = pod.container("sleep 600", json!({}))?;
    let (unit, group) = scope(&container.id);
    let request = json!({
        "container_id": container.id,
        "linux": {"memory_limit_in_bytes": 33_554_432, "cpu_shares": 512},
    });
    cri.call("UpdateContainerResources", &request)?;
    files(&group, &[("memory.max", "33554432"), ("cpu.weight", "59")])?;
    properties(&unit, &[("MemoryMax", "33554432"), ("CPUWeight", "59")])
}
