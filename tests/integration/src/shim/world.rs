//! The place of one test, its shims and its containers.

use std::cell::{Cell, RefCell};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use containerd_shim_protos::api::{CreateTaskRequest, Status, WaitResponse};
use containerd_shim_protos::ttrpc::Code;
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use serde_json::Value;

use super::bootstrap::{self, Boot, Reply};
use super::events::Events;
use super::leaks::{self, Snapshot};
use super::stdio::{Fifos, Reader};
use super::task::{Answer, PATIENCE, TaskClient};
use super::{Flavour, request, sandbox};
use crate::bundle::Bundle;
use crate::managers::{Stop, Verdict, check, eventually, same};

/// SIGKILL as the task service takes it.
pub const KILL: u32 = 9;

/// One test: a namespace of containerd with its daemon.
#[derive(Debug)]
pub struct World {
    /// Which shim this is.
    pub flavour: Flavour,
    /// The shim's binary.
    pub shim: PathBuf,
    /// Everything of this test, at a short path.
    pub dir: PathBuf,
    /// The namespace, which no other test has.
    pub namespace: String,
    /// The daemon's own address, where nobody listens.
    pub grpc: String,
    /// The daemon's events service.
    pub events: Events,
    count: Cell<u32>,
    shims: RefCell<Vec<Rc<Shim>>>,
}

/// A running shim as the daemon knows it.
#[derive(Debug)]
pub struct Shim {
    /// What `start` answered.
    pub reply: Reply,
    /// The connection.
    pub client: TaskClient,
    /// The process.
    pub pid: i32,
    /// What it wrote to its log.
    pub log: Reader,
    /// The bundle it was started in.
    pub bundle: PathBuf,
    ids: RefCell<Vec<String>>,
}

/// A container and the shim it is in.
#[derive(Debug)]
pub struct Task {
    /// Its bundle.
    pub bundle: Bundle,
    /// Its id.
    pub id: String,
    /// The shim.
    pub shim: Rc<Shim>,
    /// The shim's task service.
    pub client: TaskClient,
    /// The pid that Create answered; 0 before.
    pub pid: u32,
}

impl World {
    /// Runs one test: a new world, the test, the end of its containers, the search for leaks.
    pub fn run(case: fn(&Self) -> Verdict) -> Verdict {
        let before = Snapshot::take();
        let world = Self::new()?;
        let ended = catch_unwind(AssertUnwindSafe(|| case(&world).and_then(|()| world.end())));
        let mut verdict = ended.unwrap_or_else(|panic| {
            let words = panic.downcast_ref::<String>().cloned();
            let short = panic.downcast_ref::<&str>().map(ToString::to_string);
            Err(Stop::Fail(words.or(short).unwrap_or_else(|| "a panic".to_owned())))
        });
        if let Err(Stop::Fail(words)) = &mut verdict {
            words.push_str(&world.story());
        }
        let dir = world.dir.clone();
        world.shims.borrow_mut().clear();
        drop(world);
        let left = if verdict.is_ok() { before.leaks(&dir) } else { Vec::new() };
        before.sweep(&dir);
        fs::remove_dir_all(&dir).map_err(|error| format!("remove {}: {error}", dir.display()))?;
        match (verdict, left.is_empty()) {
            (Ok(()), false) => Err(Stop::Fail(format!("left behind: {left:#?}"))),
            (verdict, _) => verdict,
        }
    }

    fn new() -> Result<Self, Stop> {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(1);
        let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let dir = PathBuf::from(format!("/run/ct/{number}"));
        fs::create_dir_all(dir.join("b"))?;
        let events = Events::listen(&dir.join("ttrpc"))?;
        let reference = sandbox().is_reference_shim();
        Ok(Self {
            flavour: if reference { Flavour::Reference } else { Flavour::Corten },
            shim: sandbox().shim()?.to_owned(),
            namespace: format!("ns{number}"),
            grpc: format!("{}/grpc", dir.display()),
            dir,
            events,
            count: Cell::new(0),
            shims: RefCell::default(),
        })
    }

    /// Skips a test that the reference is known to fail.
    pub fn reference_deviates(&self, why: &str) -> Verdict {
        match self.flavour {
            Flavour::Reference => Err(Stop::Skip(format!("reference deviates: {why}"))),
            Flavour::Corten => Ok(()),
        }
    }

    /// A number that nothing else in this test has.
    pub fn next(&self) -> u32 {
        self.count.set(self.count.get() + 1);
        self.count.get()
    }

    /// A bundle with busybox that runs a shell script.
    pub fn bundle(&self, script: &str) -> Bundle {
        let id = format!("{}c{}", self.namespace, self.next());
        let mut bundle = Bundle::bare(self.dir.join("b").join(&id), id.clone());
        bundle.add_busybox();
        bundle.set("linux.cgroupsPath", Value::from(format!("{}/{id}", sandbox().cgroup)));
        bundle.script(script);
        bundle
    }

    /// `start` of a shim for this bundle, as containerd 1.6 does it.
    pub fn shim(&self, bundle: &Bundle) -> Result<Rc<Shim>, Stop> {
        self.shim_with(bundle, &Boot::default())
    }

    /// `start` of a shim for this bundle.
    pub fn shim_with(&self, bundle: &Bundle, boot: &Boot) -> Result<Rc<Shim>, Stop> {
        bundle.write();
        let fifo = bundle.dir.join("log");
        if !fifo.exists() {
            mkfifo(&fifo, Mode::from_bits_truncate(0o700))?;
        }
        let log = Reader::open(&fifo)?;
        let reply = bootstrap::start(self, &bundle.dir, &bundle.id, boot)?;
        let client = TaskClient::connect_to(&reply.address)?;
        let pid = client.connect(&bundle.id)?.shim_pid as i32;
        // Not by the address: one that leaves may have a successor there.
        let known = self.shims.borrow().iter().find(|shim| shim.pid == pid).cloned();
        if let Some(shim) = known {
            shim.ids.borrow_mut().push(bundle.id.clone());
            return Ok(shim);
        }
        let ids = RefCell::new(vec![bundle.id.clone()]);
        let shim = Rc::new(Shim { reply, client, pid, log, bundle: bundle.dir.clone(), ids });
        self.shims.borrow_mut().push(Rc::clone(&shim));
        Ok(shim)
    }

    /// A container in its own shim, not yet created.
    pub fn task(&self, bundle: Bundle) -> Result<Task, Stop> {
        self.task_with(bundle, &Boot::default())
    }

    /// A container in its own shim, not yet created.
    pub fn task_with(&self, bundle: Bundle, boot: &Boot) -> Result<Task, Stop> {
        let shim = self.shim_with(&bundle, boot)?;
        let client = shim.client.clone();
        Ok(Task { id: bundle.id.clone(), bundle, shim, client, pid: 0 })
    }

    /// A created container without standard streams.
    pub fn created(&self, script: &str) -> Result<Task, Stop> {
        let mut task = self.task(self.bundle(script))?;
        task.create()?;
        Ok(task)
    }

    /// A running container without standard streams.
    pub fn running(&self, script: &str) -> Result<Task, Stop> {
        let task = self.created(script)?;
        task.start()?;
        Ok(task)
    }

    /// A running container whose streams are FIFOs.
    pub fn piped(&self, script: &str) -> Result<(Task, Fifos), Stop> {
        self.piped_with(self.bundle(script))
    }

    /// A running container whose streams are FIFOs.
    pub fn piped_with(&self, bundle: Bundle) -> Result<(Task, Fifos), Stop> {
        let mut task = self.task(bundle)?;
        let fifos = self.fifos(task.bundle.config["process"]["terminal"] == true)?;
        let mut query = task.request();
        fifos.create(&mut query);
        task.pid = task.client.create(&query)?;
        task.start()?;
        Ok((task, fifos))
    }

    /// New FIFOs with readers.
    pub fn fifos(&self, terminal: bool) -> Result<Fifos, Stop> {
        Fifos::new(&self.dir.join(format!("f{}", self.next())), terminal)
    }

    /// New FIFOs that nobody reads.
    pub fn unread_fifos(&self) -> Result<Fifos, Stop> {
        Fifos::unread(&self.dir.join(format!("f{}", self.next())), false)
    }

    /// Ends every container and every shim that is still there, by the book.
    fn end(&self) -> Verdict {
        self.events.recover();
        let shims = self.shims.borrow().clone();
        shims.iter().filter(|shim| shim.is_alive()).try_for_each(|shim| shim.end())
    }

    /// What is known when a test has failed.
    fn story(&self) -> String {
        let mut story = format!("\nevents: {:#?}", self.events.lines());
        for shim in self.shims.borrow().iter() {
            let (pid, state) = (shim.pid, if shim.is_alive() { "alive" } else { "gone" });
            story.push_str(&format!("\nshim {pid} is {state}, its log:\n{}", shim.log.text()));
        }
        story.push_str("\nprocesses:\n");
        story.extend(leaks::processes().into_iter().map(|(_, line)| format!("  {line}\n")));
        story
    }
}

impl Shim {
    /// Whether its process exists.
    pub fn is_alive(&self) -> bool {
        Path::new("/proc").join(self.pid.to_string()).exists()
    }

    /// The path of its socket.
    pub fn socket(&self) -> PathBuf {
        PathBuf::from(self.reply.address.strip_prefix("unix://").unwrap_or(&self.reply.address))
    }

    /// What its process has used of the processor, in seconds.
    pub fn processor_time(&self) -> Result<f64, Stop> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid))?;
        let words: Vec<_> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        let ticks = |at: usize| words.get(at).and_then(|word| word.parse::<f64>().ok());
        Ok((ticks(11).ok_or("no time")? + ticks(12).ok_or("no time")?) / 100.0)
    }

    /// Over this time its process waits, and does next to nothing else.
    pub fn rests(&self, time: Duration) -> Verdict {
        let before = self.processor_time()?;
        std::thread::sleep(time);
        let used = self.processor_time()? - before;
        let most = time.as_secs_f64() * 0.3;
        check(used < most, format!("{used} s of processor time in {time:?}"))
    }

    /// Waits for the end of its process.
    pub fn gone(&self) -> Verdict {
        eventually("the shim ends", PATIENCE, || Ok(!self.is_alive()))
    }

    /// Sends a signal to its process.
    pub fn signal(&self, signal: Signal) -> Verdict {
        Ok(kill(Pid::from_raw(self.pid), signal)?)
    }

    /// Another connection.
    pub fn connect(&self) -> Result<TaskClient, Stop> {
        TaskClient::connect_to(&self.reply.address)
    }

    /// Its open descriptors, sorted by what they are.
    pub fn descriptors(&self) -> Vec<String> {
        let entries = fs::read_dir(format!("/proc/{}/fd", self.pid)).into_iter().flatten();
        let mut all: Vec<_> = entries
            .flatten()
            .filter_map(|entry| fs::read_link(entry.path()).ok())
            .map(|target| target.display().to_string())
            .collect();
        all.sort();
        all
    }

    /// Waits until it holds no more descriptors than these.
    pub fn settles(&self, before: &[String]) -> Verdict {
        let mut now = Vec::new();
        let settled = eventually("descriptors", PATIENCE, || {
            now = self.descriptors();
            Ok(now.len() <= before.len())
        });
        settled.map_err(|_| Stop::Fail(format!("before: {before:#?}\nnow: {now:#?}")))
    }

    /// Kills and deletes every container, shuts the shim down and waits for its end.
    pub fn end(&self) -> Verdict {
        for id in self.ids.borrow().iter() {
            let Ok(state) = self.client.state(id, "") else { continue };
            let status = state.status.enum_value_or_default();
            if matches!(status, Status::PAUSED | Status::PAUSING) {
                there(self.client.resume(id))?;
            }
            if status != Status::STOPPED {
                there(self.client.kill(id, "", KILL, true))?;
                there(self.client.wait(id, "").map(drop))?;
            }
            there(self.client.delete(id, "").map(drop))?;
        }
        let id = self.ids.borrow().first().cloned().unwrap_or_default();
        self.client.shutdown(&id, false)?;
        self.gone()
    }
}

impl Task {
    /// A Create request without standard streams.
    pub fn request(&self) -> CreateTaskRequest {
        with!(CreateTaskRequest { id: &self.id, bundle: self.bundle.path() })
    }

    /// Create without standard streams.
    pub fn create(&mut self) -> Verdict {
        self.pid = self.client.create(&self.request())?;
        Ok(())
    }

    /// Start of the init.
    pub fn start(&self) -> Verdict {
        same("pid of start", &self.client.start(&self.id, "")?, &self.pid)
    }

    /// Kill of the init.
    pub fn kill(&self, signal: u32) -> Verdict {
        Ok(self.client.kill(&self.id, "", signal, false)?)
    }

    /// Wait for the init.
    pub fn wait(&self) -> Result<WaitResponse, Stop> {
        Ok(self.client.wait(&self.id, "")?)
    }

    /// SIGKILL, and waits for the end.
    pub fn killed(&self) -> Verdict {
        self.kill(KILL)?;
        same("status", &self.wait()?.exit_status, &137)
    }

    /// Delete of the init.
    pub fn delete(&self) -> Verdict {
        Ok(self.client.delete(&self.id, "").map(drop)?)
    }

    /// The status in State.
    pub fn status(&self) -> Result<Status, Stop> {
        Ok(self.client.state(&self.id, "")?.status.enum_value_or_default())
    }

    /// The status in State of an exec.
    pub fn exec_status(&self, exec: &str) -> Result<Status, Stop> {
        Ok(self.client.state(&self.id, exec)?.status.enum_value_or_default())
    }

    /// Exec of a shell script without standard streams, started; its pid.
    pub fn exec(&self, exec: &str, script: &str) -> Result<u32, Stop> {
        self.client.exec(&request::exec(&self.id, exec, &request::process(script, false)))?;
        Ok(self.client.start(&self.id, exec)?)
    }

    /// Exec of a shell script with FIFOs, started.
    pub fn exec_piped(
        &self,
        world: &World,
        exec: &str,
        script: &str,
        terminal: bool,
    ) -> Result<Fifos, Stop> {
        let fifos = world.fifos(terminal)?;
        let mut query = request::exec(&self.id, exec, &request::process(script, terminal));
        fifos.exec(&mut query);
        self.client.exec(&query)?;
        self.client.start(&self.id, exec)?;
        Ok(fifos)
    }

    /// Runs a shell script in the container to its end: exit status and standard output.
    pub fn shell(&self, world: &World, script: &str) -> Result<(u32, String), Stop> {
        let name = format!("sh{}", world.next());
        let fifos = self.exec_piped(world, &name, script, false)?;
        let status = self.client.wait(&self.id, &name)?.exit_status;
        fifos.out().end()?;
        let text = fifos.out().text();
        self.client.delete(&self.id, &name)?;
        Ok((status, text))
    }
}

/// What is no longer there needs no end: a create may have been given up a moment ago.
fn there(answer: Answer<()>) -> Verdict {
    match answer {
        Err(refusal) if refusal.code == Some(Code::NOT_FOUND) => Ok(()),
        other => Ok(other?),
    }
}

/// Calls that must all be answered at once.
pub const AT_ONCE: Duration = Duration::from_millis(100);
