//! Nothing is left, wherever the shim, a worker or a container's first process is killed and
//! whatever call fails (H4, H6, H11, H15): every question is answered, and after Delete, or the
//! `delete` action if the shim is dead, there is no process, mount, cgroup, socket or directory, and
//! the id can be used again.
//!
//! strace(1) is attached to the shim before an operation and follows its workers. A sample of the
//! points at which it can come in between; all of them with `CORTEN_FAULTS_STEP=1`.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use containerd_shim_protos::api::{CreateTaskRequest, Status};
use containerd_shim_protos::ttrpc::Code;
use corten_integration::bundle::Bundle;
use corten_integration::cgroups;
use corten_integration::driver::{has_strace, patience};
use corten_integration::managers::{Stop, Verdict, check, command, eventually, same};
use corten_integration::shim::bootstrap;
use corten_integration::shim::leaks::processes;
use corten_integration::shim::task::{Answer, PATIENCE};
use corten_integration::shim::{Case, Task, World, request};
use corten_integration::shim_tests;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

pub(crate) const TESTS: &[Case] = shim_tests![
    killed_anywhere_in_create,
    killed_anywhere_in_start,
    killed_anywhere_in_exec,
    killed_anywhere_in_delete,
    failing_calls,
    opens_that_fail_in_create,
    no_space_in_the_bundle,
    the_bundle_goes_away_in_every_state,
    a_worker_that_ends_late,
];

const OURS: &str = "this is about our own shim";

/// An operation that is interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Create,
    Start,
    Exec,
    Delete,
}

/// One bundle whose container is made again and again.
struct Subject<'a> {
    world: &'a World,
    bundle: Bundle,
}

impl<'a> Subject<'a> {
    fn new(world: &'a World) -> Result<Self, Stop> {
        world.reference_deviates(OURS)?;
        if !has_strace() {
            return Err(Stop::Skip("no strace".to_owned()));
        }
        let bundle = world.bundle("sleep 1000");
        let image = world.dir.join("image");
        fs::rename(bundle.rootfs(), &image)?;
        fs::create_dir(bundle.rootfs())?;
        Ok(Self { world, bundle })
    }

    /// A new task of the bundle, in the shim that lives or in a new one.
    fn task(&self) -> Result<Task, Stop> {
        let shim = self.world.shim(&self.bundle)?;
        let (id, client) = (self.bundle.id.clone(), shim.client.clone());
        let mut bundle = Bundle::bare(self.bundle.dir.clone(), id.clone());
        bundle.config = self.bundle.config.clone();
        Ok(Task { id, bundle, shim, client, pid: 0 })
    }

    fn request(&self, task: &Task) -> Result<CreateTaskRequest, Stop> {
        let mut query = task.request();
        let source = self.world.dir.join("image").display().to_string();
        query.rootfs = vec![request::mount("bind", &source, "", &["rbind", "rw"])];
        self.world.fifos(false)?.create(&mut query);
        Ok(query)
    }

    /// Brings the container to where `verb` begins.
    fn prepare(&self, task: &mut Task, verb: Verb) -> Verdict {
        if verb == Verb::Create {
            return Ok(());
        }
        task.pid = task.client.create(&self.request(task)?)?;
        if verb != Verb::Start {
            task.start()?;
        }
        if verb == Verb::Delete {
            task.killed()?;
        }
        Ok(())
    }

    /// Carries out `verb`, which must be answered, unless the shim is gone.
    fn carry_out(&self, task: &Task, verb: Verb) -> Result<Answer<()>, Stop> {
        let answer = match verb {
            Verb::Create => task.client.create(&self.request(task)?).map(drop),
            Verb::Start => task.client.start(&task.id, "").map(drop),
            Verb::Exec => {
                let process = request::process("sleep 1000", false);
                let mut query = request::exec(&task.id, "e", &process);
                self.world.fifos(false)?.exec(&mut query);
                let client = &task.client;
                client.exec(&query).and_then(|()| client.start(&task.id, "e").map(drop))
            }
            Verb::Delete => task.client.delete(&task.id, "").map(drop),
        };
        if answer.as_ref().is_err_and(|refusal| refusal.code.is_none()) {
            eventually("without an answer the shim ends", Duration::from_secs(3), || {
                Ok(!task.shim.is_alive())
            })?;
        }
        Ok(answer)
    }

    /// Takes everything away, as containerd would, and looks for what is left.
    fn clean(&self, task: &Task) -> Verdict {
        let alive = task.shim.is_alive();
        if alive {
            by_request(task)?;
        } else {
            let answer = bootstrap::delete(self.world, &self.bundle.dir, &task.id)?;
            check(answer.exited_at.seconds > 1_600_000_000, "delete says when")?;
        }
        let begun = std::time::Instant::now();
        loop {
            let left = self.left(task, alive);
            if left.is_empty() {
                return Ok(());
            }
            if begun.elapsed() > patience(Duration::from_secs(5)) {
                return Err(Stop::Fail(format!("shim alive: {alive}; left: {left:#?}")));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn left(&self, task: &Task, alive: bool) -> Vec<String> {
        let shim = if alive { task.shim.pid } else { 0 };
        let all = processes().into_iter().filter(|(pid, _)| *pid != shim);
        let mut left: Vec<_> = all.map(|(_, line)| line).collect();
        let groups = cgroups::tagged(&task.id);
        left.extend(groups.iter().map(|group| format!("cgroup {}", group.display())));
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let bundle = self.bundle.dir.join("rootfs").display().to_string();
        left.extend(table.lines().filter(|line| line.contains(&bundle)).map(str::to_owned));
        let root = Path::new("/run/containerd/corten").join(&self.world.namespace).join(&task.id);
        left.extend(root.exists().then(|| root.display().to_string()));
        if !alive && task.shim.socket().exists() {
            left.push(format!("socket {}", task.shim.socket().display()));
        }
        left
    }
}

/// Kill and Delete, whatever state it is in.
fn by_request(task: &Task) -> Verdict {
    let begun = std::time::Instant::now();
    loop {
        let refusal = match task.client.delete(&task.id, "") {
            Ok(_) => return Ok(()),
            Err(refusal) if refusal.code == Some(Code::NOT_FOUND) => return Ok(()),
            Err(refusal) => refusal,
        };
        check(refusal.code.is_some(), format!("Delete: {refusal}"))?;
        check(begun.elapsed() < patience(PATIENCE), format!("it can't be deleted: {refusal}"))?;
        task.client.kill(&task.id, "", 9, true).ok();
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// strace, attached to the shim and all that it starts.
struct Tracer(Child);

impl Tracer {
    fn attach(task: &Task, options: &[&str]) -> Result<Self, Stop> {
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qqq"]).args(options).args(["-p", &task.shim.pid.to_string()]);
        let child = command::spawn(strace.stdout(Stdio::null()).stderr(Stdio::null()))?;
        let tracer = Self(child);
        eventually("strace is attached", PATIENCE, || {
            // Without a status it has been hit already.
            let path = format!("/proc/{}/status", task.shim.pid);
            let Ok(status) = fs::read_to_string(path) else { return Ok(true) };
            Ok(status.lines().any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0")))
        })?;
        Ok(tracer)
    }

    /// Lets everyone go.
    fn detach(mut self) -> Verdict {
        self.end()
    }

    fn end(&mut self) -> Verdict {
        kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM).ok();
        let ended = command::wait(&mut self.0, PATIENCE)?;
        check(ended.is_some(), "strace ends")
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        self.end().ok();
    }
}

/// Every system call of the operation, of whichever process: its name, and which of that name it is.
fn calls(subject: &Subject<'_>, verb: Verb) -> Result<Vec<(String, u32)>, Stop> {
    let mut task = subject.task()?;
    subject.prepare(&mut task, verb)?;
    let trace = subject.world.dir.join("trace");
    let tracer = Tracer::attach(&task, &["-o", &trace.to_string_lossy()])?;
    subject.carry_out(&task, verb)?.map_err(|refusal| refusal.to_string())?;
    tracer.detach()?;
    subject.clean(&task)?;
    let mut counts: HashMap<(&str, &str), u32> = HashMap::new();
    let mut seen = BTreeSet::new();
    let text = fs::read_to_string(&trace)?;
    fs::remove_file(&trace)?;
    for line in text.lines() {
        let Some((pid, rest)) = line.split_once(' ') else { continue };
        let Some((name, _)) = rest.trim_start().split_once('(') else { continue };
        let word = name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_');
        if !word || matches!(name, "exit_group" | "exit") {
            continue;
        }
        let count = counts.entry((pid, name)).or_default();
        *count += 1;
        seen.insert((*count, name.to_owned()));
    }
    Ok(seen.into_iter().map(|(count, name)| (name, count)).collect())
}

/// A part of the points, evenly.
fn sample<T>(points: Vec<T>, count: usize) -> impl Iterator<Item = T> {
    let step = std::env::var("CORTEN_FAULTS_STEP").ok().and_then(|step| step.parse().ok());
    let step = step.unwrap_or(points.len().div_ceil(count)).max(1);
    points.into_iter().step_by(step)
}

/// Has the operation interrupted by `what` at each point of a sample.
fn interrupted(
    subject: &Subject<'_>,
    verb: Verb,
    points: Vec<(String, u32)>,
    count: usize,
    what: &str,
) -> Verdict {
    let mut hits = 0;
    for (name, number) in sample(points, count) {
        let point = format!("inject={name}:{what}:when={number}");
        let tried = once(subject, verb, &point);
        hits += u32::from(tried.map_err(|stop| match stop {
            Stop::Fail(words) => Stop::Fail(format!("{verb:?} with {point}: {words}")),
            skip => skip,
        })?);
    }
    check(hits > 0 || !what.starts_with("signal"), format!("nothing was hit in {verb:?}"))?;
    // The id is as good as new.
    let mut task = subject.task()?;
    subject.prepare(&mut task, Verb::Delete)?;
    task.delete()
}

/// Whether the operation was disturbed.
fn once(subject: &Subject<'_>, verb: Verb, point: &str) -> Result<bool, Stop> {
    let mut task = subject.task()?;
    subject.prepare(&mut task, verb)?;
    let tracer = Tracer::attach(&task, &["-o", "/dev/null", "-e", point])?;
    let answer = subject.carry_out(&task, verb)?;
    if let (Err(refusal), true) = (&answer, point.contains("error=")) {
        check(!refusal.to_string().contains("without an answer"), refusal.to_string())?;
    }
    tracer.detach()?;
    subject.clean(&task)?;
    Ok(answer.is_err())
}

fn killed(world: &World, verb: Verb, count: usize) -> Verdict {
    let subject = Subject::new(world)?;
    let points = calls(&subject, verb)?;
    check(points.len() > 30, format!("{points:?}"))?;
    interrupted(&subject, verb, points, count, "signal=KILL")
}

fn killed_anywhere_in_create(world: &World) -> Verdict {
    killed(world, Verb::Create, 14)
}

fn killed_anywhere_in_start(world: &World) -> Verdict {
    killed(world, Verb::Start, 6)
}

fn killed_anywhere_in_exec(world: &World) -> Verdict {
    killed(world, Verb::Exec, 8)
}

fn killed_anywhere_in_delete(world: &World) -> Verdict {
    killed(world, Verb::Delete, 6)
}

/// Calls that fail: an error in the answer, or another way was found.
fn failing_calls(world: &World) -> Verdict {
    let subject = Subject::new(world)?;
    let plan: [(Verb, &str, &[&str]); 6] = [
        (Verb::Create, "error=ENOMEM", &["clone3", "mount", "openat", "execve", "sendmsg"]),
        (Verb::Create, "error=ENOSPC", &["mkdirat", "mkdir", "write", "openat", "renameat"]),
        (Verb::Create, "error=EMFILE", &["socketpair", "openat", "pipe2", "fcntl", "dup"]),
        (Verb::Exec, "error=EPERM", &["clone3", "setns", "openat", "execve", "socketpair"]),
        (Verb::Start, "error=EINTR", &["connect", "recvmsg", "sendmsg", "read", "openat"]),
        (Verb::Delete, "error=ENOMEM", &["clone3", "umount2", "openat", "unlinkat", "socketpair"]),
    ];
    for verb in [Verb::Create, Verb::Exec, Verb::Start, Verb::Delete] {
        let points = calls(&subject, verb)?;
        for (_, fault, names) in plan.iter().filter(|(of, ..)| *of == verb) {
            let mut some = points.clone();
            some.retain(|(name, _)| names.contains(&name.as_str()));
            interrupted(&subject, verb, some, 4, fault)?;
        }
    }
    Ok(())
}

/// Whatever can't be opened: what was mounted and made until then is taken back.
fn opens_that_fail_in_create(world: &World) -> Verdict {
    let subject = Subject::new(world)?;
    let mut points = calls(&subject, Verb::Create)?;
    points.retain(|(name, _)| name == "openat");
    check(points.len() > 10, format!("{points:?}"))?;
    interrupted(&subject, Verb::Create, points, usize::MAX, "error=ENOSPC")
}

/// A file system of a few pages at a bundle, taken away at the end.
struct Small(PathBuf);

impl Small {
    fn new(dir: &Path, options: &str) -> Result<Self, Stop> {
        let (kind, flags) = (Some("tmpfs"), MsFlags::empty());
        mount(kind, dir, kind, flags, Some(options))?;
        Ok(Self(dir.to_owned()))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        umount2(&self.0, MntFlags::MNT_DETACH).ok();
    }
}

/// A bundle on a full file system (H15): Create fails or works, and what works can be ended, told
/// and deleted.
fn no_space_in_the_bundle(world: &World) -> Verdict {
    world.reference_deviates("runc's log is in the bundle (H15)")?;
    for pages in [5, 6, 8, 16] {
        let mut bundle = world.bundle("sleep 1000");
        let root = world.dir.join(format!("root{pages}"));
        fs::rename(bundle.rootfs(), &root)?;
        bundle.set("root.path", root.display().to_string().into());
        let small = Small::new(&bundle.dir, &format!("size={}k", pages * 4))?;
        let mut task = world.task(bundle)?;
        // Fills what is left.
        fs::write(task.bundle.dir.join("filler"), vec![0; 1 << 20]).ok();
        if task.create().is_ok() {
            task.start()?;
            task.killed()?;
            same("told", &world.events.exit(&task.id, &task.id)?.exit_status, &137)?;
            task.delete()?;
        }
        by_request(&task)?;
        task.shim.end()?;
        bootstrap::delete(world, &task.bundle.dir, &task.id)?;
        drop(small);
    }
    Ok(())
}

/// The bundle is moved away, whatever its container is doing: the container is deleted, and its id
/// can be used again.
fn the_bundle_goes_away_in_every_state(world: &World) -> Verdict {
    world.reference_deviates("it does not notice")?;
    let mut tasks = Vec::new();
    for state in ["created", "running", "paused", "stopped"] {
        let mut task = world.task(world.bundle("sleep 1000"))?;
        let fifos = world.fifos(false)?;
        let mut query = task.request();
        fifos.create(&mut query);
        task.pid = task.client.create(&query)?;
        if state != "created" {
            task.start()?;
        }
        match state {
            "paused" => task.client.pause(&task.id)?,
            "stopped" => task.killed()?,
            _ => {}
        }
        let away = world.dir.join(format!("away-{state}"));
        fs::rename(&task.bundle.dir, &away)?;
        tasks.push((state, task, fifos, away));
    }
    for (state, mut task, _fifos, away) in tasks {
        eventually(&format!("the {state} container is gone"), PATIENCE, || {
            Ok(task.client.state(&task.id, "").is_err_and(|it| it.code == Some(Code::NOT_FOUND)))
        })?;
        fs::rename(&away, &task.bundle.dir)?;
        task.create()?;
        same("status", &task.status()?, &Status::CREATED)?;
        task.delete()?;
    }
    Ok(())
}

/// A worker takes a second to end after it has answered, as it may on a machine that has too much to
/// do. It is the parent of what it has started, whose end we hear of only then: it is told all the
/// same, and before the deletion.
fn a_worker_that_ends_late(world: &World) -> Verdict {
    let subject = Subject::new(world)?;
    for verb in [Verb::Create, Verb::Exec] {
        let mut task = subject.task()?;
        let late = "inject=exit_group:delay_enter=1000000";
        let options = ["-o", "/dev/null", "-e", "trace=exit_group", "-e", late];
        subject.prepare(&mut task, verb)?;
        let tracer = Tracer::attach(&task, &options)?;
        subject.carry_out(&task, verb)?.map_err(|refusal| refusal.to_string())?;
        by_request(&task)?;
        tracer.detach()?;
        subject.clean(&task)?;
        let id = &task.id;
        let wanted = match verb {
            Verb::Create => vec![format!("create {id}")],
            _ => vec![
                format!("exec-added {id} e"),
                format!("exec-started {id} e"),
                format!("exit {id} e 137"),
            ],
        };
        let end = [format!("exit {id} {id} 137"), format!("delete {id}")];
        let wanted = [&wanted[..], &end].concat();
        eventually(&format!("the last events are {wanted:?}"), PATIENCE, || {
            Ok(world.events.lines().ends_with(&wanted))
        })?;
    }
    Ok(())
}
