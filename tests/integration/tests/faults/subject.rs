//! The container that is made, disturbed and taken away again and again, and how to know that it is
//! what its config says: its own report, compared with those of undisturbed lives.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use corten_integration::driver::patience;
use corten_integration::{Bundle, Output, Test, cgroups};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::tally;
use crate::tracer::{self, HANG};

/// What a container's life looks like from where a command finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    Nothing,
    Created,
    Running,
    Paused,
    Stopped,
}

/// Every fact of a report, by its place in it.
pub(crate) type Facts = BTreeMap<String, String>;

pub(crate) struct Subject<'a> {
    pub(crate) t: &'a Test,
    pub(crate) bundle: Bundle,
    /// Where it is now, if that is known.
    life: Cell<Life>,
    /// Where its output is.
    out: RefCell<PathBuf>,
    /// What an undisturbed container reports, and an undisturbed exec.
    init: RefCell<Reference>,
    exec: RefCell<Reference>,
}

/// What is the same in each undisturbed life, and every place that a report has.
#[derive(Debug, Default)]
struct Reference {
    facts: Facts,
    places: BTreeSet<String>,
}

impl<'a> Subject<'a> {
    /// A container with something of everything.
    pub(crate) fn new(t: &'a Test) -> Self {
        t.skip_on_peers("this is about our own journal and undo");
        if !tracer::POSSIBLE {
            t.skip("calls can be disturbed on x86_64 only");
        }
        let mut bundle = t.bundle();
        describe(&mut bundle);
        Self::of(t, bundle)
    }

    /// The same in a user namespace of its own, without hooks and without a device that the host lacks.
    pub(crate) fn mapped(t: &'a Test) -> Self {
        let mut subject = Self::new(t);
        let bundle = &mut subject.bundle;
        bundle.unset("hooks").unset("linux.devices").namespace("user", None);
        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
        bundle.set("linux.uidMappings", map.clone()).set("linux.gidMappings", map);
        std::os::unix::fs::chown(bundle.rootfs(), Some(100_000), Some(100_000)).expect("chown");
        bundle.write();
        subject
    }

    /// Any other bundle whose program prints a report and sleeps.
    pub(crate) fn of(t: &'a Test, bundle: Bundle) -> Self {
        bundle.write();
        let life = Cell::new(Life::Nothing);
        let (init, exec, out) = Default::default();
        Self { t, bundle, life, out, init, exec }
    }

    pub(crate) fn id(&self) -> &str {
        &self.bundle.id
    }

    /// A command that is not disturbed, and leaves no line in the test's log.
    pub(crate) fn call(&self, args: &[&str]) -> Output {
        let mut command = self.t.command(args);
        command.stdin(std::process::Stdio::null());
        let running = self.t.launch(command);
        if args[0] == "create" {
            *self.out.borrow_mut() = running.out().to_owned();
        }
        running.wait()
    }

    /// The output of the command that made the container is here.
    pub(crate) fn made_by(&self, out: &Path) {
        *self.out.borrow_mut() = out.to_owned();
    }

    /// Lives once or twice undisturbed and learns what is the same each time.
    pub(crate) fn learn(&self) {
        for learnt in [false, true, true] {
            self.reach(Life::Running);
            for (reference, now) in [(&self.init, self.report()), (&self.exec, self.exec_report())]
            {
                let mut reference = reference.borrow_mut();
                reference.places.extend(now.keys().cloned());
                if learnt {
                    reference.facts.retain(|place, fact| now.get(place) == Some(fact));
                } else {
                    reference.facts = now;
                }
            }
            self.end("an undisturbed life");
        }
        for reference in [&self.init, &self.exec] {
            let reference = reference.borrow();
            assert!(reference.facts.len() > 200, "{reference:?}");
        }
    }

    /// Brings the container to where a command finds it.
    pub(crate) fn reach(&self, life: Life) {
        if self.life.get() == life && life != Life::Nothing && self.is_intact() {
            return;
        }
        self.end("before a point");
        if life == Life::Nothing {
            return;
        }
        let id = self.id();
        self.call(&["create", "-b", self.bundle.path(), id]).ok();
        if life != Life::Created {
            self.call(&["start", id]).ok();
            self.asleep();
        }
        match life {
            Life::Paused => drop(self.call(&["pause", id]).ok()),
            Life::Stopped => {
                self.call(&["kill", id, "KILL"]).ok();
                self.wait("stopped");
            }
            _ => {}
        }
        self.life.set(life);
    }

    /// Whether the container is still as it was brought there, with one process in it.
    fn is_intact(&self) -> bool {
        let status = match self.life.get() {
            Life::Created => "created",
            Life::Running => "running",
            Life::Paused => "paused",
            Life::Stopped => "stopped",
            Life::Nothing => return true,
        };
        let processes = usize::from(status != "stopped");
        self.status() == status && self.processes() == processes
    }

    /// What `state` says, or null.
    fn state(&self) -> Value {
        let out = self.call(&["state", self.id()]);
        serde_json::from_str(&out.stdout).unwrap_or_default()
    }

    /// The status that `state` tells, or nothing.
    pub(crate) fn status(&self) -> String {
        self.state()["status"].as_str().unwrap_or_default().to_owned()
    }

    /// The pid of its init.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.state()["pid"].as_i64().expect("state has a pid") as i32)
    }

    pub(crate) fn wait(&self, status: &str) {
        eventually(&format!("it is {status}"), || self.status() == status);
    }

    /// How many processes are in its cgroup.
    pub(crate) fn processes(&self) -> usize {
        let path = self.bundle.cgroup_dir("pids").join("cgroup.procs");
        fs::read_to_string(path).unwrap_or_default().lines().count()
    }

    /// Waits until the program has reported and sleeps.
    fn asleep(&self) {
        eventually("the program has reported", || self.reports() > 0);
    }

    /// How often the program has reported: how often it was started.
    pub(crate) fn reports(&self) -> usize {
        let text = fs::read_to_string(&*self.out.borrow()).unwrap_or_default();
        text.matches("\n").count()
    }

    /// What the container's program has found.
    fn report(&self) -> Facts {
        self.asleep();
        let text = fs::read_to_string(&*self.out.borrow()).unwrap_or_default();
        let mut facts = facts(text.lines().next().unwrap_or_default());
        facts.extend(self.limits());
        facts
    }

    fn exec_report(&self) -> Facts {
        exec_facts(&self.call(&["exec", self.id(), "/probe", "report"]).ok().stdout)
    }

    /// What the kernel says of the limits.
    pub(crate) fn limits(&self) -> Facts {
        let files: &[(&str, &str)] = match cgroups::is_v2() {
            true => &[("pids", "pids.max"), ("memory", "memory.max"), ("cpu", "cpu.weight")],
            false => &[
                ("pids", "pids.max"),
                ("memory", "memory.limit_in_bytes"),
                ("cpu", "cpu.shares"),
                ("devices", "devices.list"),
            ],
        };
        let read = |(controller, file): &(&str, &str)| {
            let path = self.bundle.cgroup_dir(controller).join(file);
            ((*file).to_owned(), fs::read_to_string(path).unwrap_or_default())
        };
        files.iter().map(read).collect()
    }

    /// The running container is what an undisturbed one is.
    pub(crate) fn is_right(&self) -> Result<(), String> {
        self.init.borrow().compare(&self.report())?;
        match self.reports() {
            1 => Ok(()),
            times => Err(format!("the program was started {times} times")),
        }
    }

    /// The output of an exec is what an undisturbed one's is.
    pub(crate) fn is_right_exec(&self, stdout: &str) -> Result<(), String> {
        self.exec.borrow().compare(&exec_facts(stdout))
    }

    /// `delete --force` works in time, and then nothing is left.
    pub(crate) fn end(&self, name: &str) {
        self.life.set(Life::Nothing);
        let start = Instant::now();
        let out = self.call(&["delete", "--force", self.id()]);
        assert!(out.code == 0, "{out}");
        let took = start.elapsed();
        assert!(took < patience(HANG), "delete --force took {took:?}");
        self.is_gone(name);
    }

    /// Nothing is left; what is, is counted and removed.
    pub(crate) fn is_gone(&self, name: &str) {
        let left = self.t.left(&self.bundle);
        if !left.is_empty() {
            self.abandon();
            tally::leak(name, &left);
        }
    }

    /// Takes away by hand what a point left, so that the next is not blamed for it.
    pub(crate) fn abandon(&self) {
        self.life.set(Life::Nothing);
        let _tried = self.call(&["delete", "--force", self.id()]);
        self.t.end_orphans();
        cgroups::remove(&cgroups::tagged(self.id()));
        let _gone_already = fs::remove_dir_all(self.t.root().join(self.id()));
    }
}

/// Something of everything that a config can ask for.
fn describe(bundle: &mut Bundle) {
    let hook = |kind: &str| {
        let script = format!("cat >/dev/null; echo {kind} >>{}/hooks", bundle.path());
        json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "timeout": 10}])
    };
    let mut hooks =
        json!({"startContainer": [{"path": "/probe", "args": ["/probe", "exit", "0"]}]});
    for kind in ["createRuntime", "createContainer", "poststart", "poststop"] {
        hooks[kind] = hook(kind);
    }
    bundle.set("hooks", hooks);
    let shared = bundle.dir.join("shared");
    fs::create_dir(&shared).expect("make a directory");
    bundle
        .probe(&["report", ";", "sleep"])
        .namespace("cgroup", None)
        .mount("/shared", "bind", shared.to_str().unwrap_or_default(), &["rbind", "ro", "nosuid"])
        .mount("/scratch", "tmpfs", "tmpfs", &["nodev", "noexec", "size=64k"])
        .set("root.readonly", json!(true))
        .set("domainname", json!("faults"))
        .set("process.oomScoreAdj", json!(100))
        .set("process.user", json!({"uid": 0, "gid": 0, "umask": 23, "additionalGids": [7, 8]}))
        .set("linux.sysctl", json!({"kernel.msgmax": "16384"}))
        .limit("pids", json!({"limit": 50}))
        .limit("memory", json!({"limit": 64 << 20}))
        .limit("cpu", json!({"shares": 512}))
        .set("linux.seccomp", filter())
        .push("linux.devices", json!({"path": "/dev/thing", "type": "c", "major": 1, "minor": 3}));
    for name in ["shared", "scratch"] {
        bundle.directory(name);
    }
    bundle.write();
}

fn filter() -> Value {
    json!({"defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mknod", "swapon"], "action": "SCMP_ACT_ERRNO"}]})
}

/// Waits until something holds, no longer than a command may take.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < patience(HANG), "waited for ever until {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Those of an exec: its pid is the next one, and it may have other arguments.
fn exec_facts(stdout: &str) -> Facts {
    let mut facts = facts(stdout.lines().next().unwrap_or_default());
    facts.retain(|place, _| {
        !["/pid", "/pgid", "/sid", "/args/"].iter().any(|it| place.starts_with(it))
    });
    facts
}

/// A report, flat, without what is different in each life.
fn facts(line: &str) -> Facts {
    let Ok(mut report) = serde_json::from_str::<Value>(line) else { return Facts::new() };
    report["time"] = Value::Null;
    // The kernel lists them as they were made, and what falls back to an older call makes them in
    // another order.
    if let Some(all) = report["mounts"].as_array_mut() {
        all.sort_by_key(|mount| mount["point"].as_str().unwrap_or_default().to_owned());
    }
    for mount in report["mounts"].as_array_mut().into_iter().flatten() {
        for key in ["id", "parent", "dev", "optional"] {
            mount[key] = Value::Null;
        }
        // A mask takes two inodes where one is refused, and an older call makes what is read-only
        // here read-only everywhere.
        let read_only = mount["options"][0] == "ro";
        if let Some(all) = mount["super"].as_array_mut() {
            all.retain(|option| {
                let option = option.as_str().unwrap_or_default();
                let immaterial = read_only && ["rw", "ro"].contains(&option);
                !immaterial && !option.starts_with("nr_inodes=")
            });
        }
    }
    for (kind, value) in report["ns"].as_object_mut().into_iter().flatten() {
        let host = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap_or_default();
        *value = json!(value.as_str() == host.to_str());
    }
    for (_, node) in report["devices"].as_object_mut().into_iter().flatten() {
        for key in ["ino", "dev"] {
            node[key] = Value::Null;
        }
    }
    if let Some(status) = report["status"].as_object_mut() {
        let stays = |key: &str| {
            ["Uid", "Gid", "Groups", "Cap", "NoNewPrivs", "Seccomp", "Sig", "Umask", "Cpus", "Mems"]
                .iter()
                .any(|word| key.starts_with(word))
        };
        status.retain(|key, _| stays(key) && key != "SigQ");
    }
    let mut flat = Facts::new();
    flatten(String::new(), &report, &mut flat);
    flat
}

fn flatten(place: String, value: &Value, into: &mut Facts) {
    match value {
        Value::Object(all) => {
            all.iter().for_each(|(key, value)| flatten(format!("{place}/{key}"), value, into));
        }
        Value::Array(all) => {
            all.iter()
                .enumerate()
                .for_each(|(key, value)| flatten(format!("{place}/{key}"), value, into));
        }
        other => drop(into.insert(place, other.to_string())),
    }
}

impl Reference {
    fn compare(&self, found: &Facts) -> Result<(), String> {
        let differ = |(place, fact): &(&String, &String)| found.get(*place) != Some(*fact);
        let missing = self.facts.iter().filter(differ);
        let other =
            missing.map(|(place, fact)| format!("{place}: {fact} became {:?}", found.get(place)));
        let new = found.iter().filter(|(place, _)| !self.places.contains(*place));
        let more = new.map(|(place, fact)| format!("{place}: {fact} is new"));
        let all: Vec<String> = other.chain(more).take(5).collect();
        if all.is_empty() { Ok(()) } else { Err(format!("success, but {}", all.join(", "))) }
    }
}
