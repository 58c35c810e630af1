//! Pods: containers that share namespaces and a cgroup.

use std::fs;

use corten_integration::managers::client::unique;
use corten_integration::managers::podman::Podman;
use corten_integration::managers::{Stop, Verdict, contains, image, lacks, same};

pub(crate) const TESTS: &[(&str, crate::Test)] = &[
    ("shared_namespaces", shared_namespaces),
    ("shared_pid", shared_pid),
    ("no_infra", no_infra),
    ("stop_and_start", stop_and_start),
    ("pause", pause),
    ("init_container", init_container),
    ("hostname_and_volume", hostname_and_volume),
    ("kube_play", kube_play),
];

/// A pod that is removed when the test ends.
struct Pod<'a> {
    podman: &'a Podman,
    name: String,
}

impl Drop for Pod<'_> {
    fn drop(&mut self) {
        // What stays is found by the leak test.
        self.podman.command(&["pod", "rm", "-f", "-t", "0", &self.name]).run().ok();
    }
}

impl<'a> Pod<'a> {
    fn new(podman: &'a Podman, options: &[&str]) -> Result<Self, Stop> {
        let pod = Self { podman, name: unique("pod") };
        let run = podman.command(&["pod", "create", "--name", &pod.name]);
        let network = options.iter().any(|option| option.starts_with("--net"));
        let network: &[&str] = if network { &[] } else { &["--network", "none"] };
        let run = run.args(["--cgroup-parent", &podman.sandbox.cgroup]);
        run.args(network).args(options).ok()?;
        Ok(pod)
    }

    /// Runs a shell script in a new container of the pod to its end.
    fn sh(&self, script: &str) -> Result<String, Stop> {
        self.podman.sh(&["--pod", &self.name], script)
    }

    fn state(&self) -> Result<String, Stop> {
        self.podman.ok(&["pod", "inspect", "--format", "{{.State}}", &self.name])
    }
}

fn shared_namespaces(podman: &Podman) -> Verdict {
    let pod = Pod::new(podman, &["--network", "bridge"])?;
    let script = "echo note > /dev/shm/note; while :; do nc -l -p 80 -e echo answer; done";
    let server = podman.background(&["--pod", &pod.name], script)?;
    let links = "for n in net ipc uts; do readlink /proc/self/ns/$n; done";
    let more = format!(
        "{links}; cat /dev/shm/note; \
                        for i in $(seq 50); do nc -w 1 127.0.0.1 80 && break; sleep 0.1; done"
    );
    let seen = pod.sh(&more)?;
    same("shared", &seen, &(server.exec(&[], links)? + "\nnote\nanswer"))?;
    let own = "readlink /proc/self/ns/pid";
    lacks("own pid namespace", &server.exec(&[], own)?, &pod.sh(own)?)
}

fn shared_pid(podman: &Podman) -> Verdict {
    let pod = Pod::new(podman, &["--share", "pid,net,ipc,uts"])?;
    let _first = podman.background(&["--pod", &pod.name], "exec sleep 4321")?;
    let seen = pod.sh("cat /proc/[0-9]*/cmdline | tr '\\0' ' '; echo; cat /proc/1/comm")?;
    contains("the other's process", &seen, "sleep 4321")?;
    contains("pid 1 is the pod's", &seen, "catatonit")
}

fn no_infra(podman: &Podman) -> Verdict {
    let pod = Pod { podman, name: unique("pod") };
    let words = [
        "pod",
        "create",
        "--infra=false",
        "--name",
        &pod.name,
        "--cgroup-parent",
        &podman.sandbox.cgroup,
    ];
    podman.ok(&words)?;
    same("runs", &podman.sh(&["--pod", &pod.name, "--network", "none"], "echo $((1+1))")?, "2")
}

fn stop_and_start(podman: &Podman) -> Verdict {
    let pod = Pod::new(podman, &[])?;
    let container =
        podman.background(&["--pod", &pod.name], "echo run >> /count; exec sleep 600")?;
    container.exec(&[], "until [ -s /count ]; do sleep 0.05; done")?;
    podman.ok(&["pod", "stop", "-t", "0", &pod.name])?;
    same("stopped", &pod.state()?, "Exited")?;
    podman.ok(&["pod", "start", &pod.name])?;
    container.exec(&[], "until [ $(wc -l < /count) = 2 ]; do sleep 0.05; done")?;
    podman.ok(&["pod", "kill", &pod.name])?;
    same("killed", &container.wait()?, &137)
}

fn pause(podman: &Podman) -> Verdict {
    let pod = Pod::new(podman, &[])?;
    let container = podman.background(&["--pod", &pod.name], "sleep 600")?;
    podman.ok(&["pod", "pause", &pod.name])?;
    same("paused", &container.inspect("{{.State.Status}}")?, "paused")?;
    podman.ok(&["pod", "unpause", &pod.name])?;
    same("running", &container.exec(&[], "echo yes")?, "yes")
}

fn init_container(podman: &Podman) -> Verdict {
    let pod = Pod::new(podman, &[])?;
    let words = [
        "create",
        "--pod",
        &pod.name,
        "--init-ctr",
        "always",
        image::NAME,
        "sh",
        "-c",
        "echo prepared > /dev/shm/first",
    ];
    podman.ok(&words)?;
    let words =
        ["create", "--pod", &pod.name, image::NAME, "sh", "-c", "cat /dev/shm/first; sleep 600"];
    let main = podman.ok(&words)?;
    podman.ok(&["pod", "start", &pod.name])?;
    corten_integration::managers::eventually("output", std::time::Duration::from_secs(20), || {
        Ok(podman.ok(&["logs", &main])? == "prepared")
    })
}

fn hostname_and_volume(podman: &Podman) -> Verdict {
    let folder = podman.folder("pod")?;
    let option = format!("{}:/shared", folder.display());
    let pod = Pod::new(podman, &["--hostname", "podhost", "--volume", &option])?;
    same("name", &pod.sh("hostname; echo x > /shared/f")?, "podhost")?;
    same("volume", &fs::read_to_string(folder.join("f"))?, "x\n")
}

fn kube_play(podman: &Podman) -> Verdict {
    let name = unique("kube");
    let text = format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\nspec:\n  restartPolicy: Never\n  \
         containers:\n  - name: main\n    image: localhost/{}\n    imagePullPolicy: Never\n    \
         command: [/bin/sh, -c, 'id -u; pwd; cat /sys/fs/cgroup/memory/memory.limit_in_bytes; sleep 600']\n    \
         workingDir: /var/data\n    securityContext:\n      runAsUser: 1000\n    resources:\n      \
         limits:\n        memory: 64Mi\n",
        image::NAME
    );
    let file = podman.folder("kube")?.join("pod.yaml").display().to_string();
    fs::write(&file, text)?;
    let pod = Pod { podman, name };
    podman.ok(&["kube", "play", "--network", "none", &file])?;
    let main = format!("{}-main", pod.name);
    corten_integration::managers::eventually("output", std::time::Duration::from_secs(20), || {
        let seen = podman.ok(&["logs", &main])?;
        Ok(seen.starts_with("1000\n/var/data") && seen.matches('\n').count() >= 1)
    })?;
    podman.ok(&["kube", "down", &file]).map(drop)
}
