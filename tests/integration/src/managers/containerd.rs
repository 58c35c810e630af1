//! containerd of our own and `ctr`, its plainest client.
//!
//! Everything is told by option: root, state, sockets. containerd looks for shims in `PATH`, where
//! the shim under test comes first, and the shims for `runc`, which is the runtime under test. The
//! containerd namespace is named after the work directory, so that the cgroups that `ctr` chooses,
//! `/NAMESPACE/ID`, are below the parent group of the run.
//!
//! Debian's is 1.6. `CONTAINERD_BIN` names a directory with another one, its `ctr` and its shim.
//!
//! Each [`Containerd`] knows what it was asked to run, so [`Containerd::left`] can name exactly
//! what is left of it, while others run beside it.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::client::unique;
use super::command::{Outcome, Run};
use super::cri::grpc;
use super::daemon::Daemon;
use super::sandbox::Sandbox;
use super::terminal::Terminal;
use super::{Stop, Verdict, eventually, image, leaks};

/// What must be installed.
pub const NEEDS: &[(&str, &str)] = &[("containerd", "containerd"), ("ctr", "containerd")];

/// Where shims listen, whatever containerd's own directories are.
const SOCKETS: &str = "/run/containerd/s";

/// Starts a containerd that keeps everything in `dir` and listens on `socket`; again in the same
/// directory is a restart.
pub fn serve(sandbox: &Sandbox, dir: &Path, socket: &Path) -> Result<Daemon, Stop> {
    let config = format!(
        "version = 2\nroot = '{0}/root'\nstate = '{0}/state'\noom_score = 0\n\
         disabled_plugins = ['io.containerd.grpc.v1.cri', 'io.containerd.snapshotter.v1.btrfs', \
         'io.containerd.snapshotter.v1.zfs', 'io.containerd.snapshotter.v1.devmapper', \
         'io.containerd.snapshotter.v1.aufs']\n[grpc]\naddress = '{1}'\n[debug]\nlevel = 'debug'\n",
        dir.display(),
        socket.display()
    );
    launch(sandbox, &sandbox.containerd("containerd"), dir, socket, &config)
}

/// Starts that containerd with that configuration.
pub fn launch(
    sandbox: &Sandbox,
    program: &Path,
    dir: &Path,
    socket: &Path,
    config: &str,
) -> Result<Daemon, Stop> {
    fs::create_dir_all(dir)?;
    let file = dir.join("config.toml");
    fs::write(&file, config)?;
    // A socket that nobody listens on would look like an answer.
    fs::remove_file(socket).ok();
    let run = Run::new(program).env("PATH", sandbox.path()).arg("--config").arg(&file);
    let daemon = Daemon::start(run, dir.join("log"))?;
    eventually("containerd's socket", Duration::from_secs(30), || Ok(socket.exists()))?;
    Ok(daemon)
}

/// The first number of a containerd's version.
pub fn major(program: &Path) -> Result<u32, Stop> {
    let words = Run::new(program).arg("--version").ok()?;
    let version = words.split(' ').nth(2).unwrap_or_default().trim_start_matches('v');
    let number = version.split('.').next().unwrap_or_default();
    number.parse().map_err(|_| Stop::Fail(format!("which version is {words:?}?")))
}

/// One containerd whose default runtime is the shim under test.
#[derive(Debug)]
pub struct Containerd {
    /// What it runs in.
    pub sandbox: Sandbox,
    /// The directory of everything it makes.
    pub dir: PathBuf,
    /// The containerd namespace of its containers.
    pub namespace: String,
    /// The runtime type of the shim under test.
    pub runtime: String,
    daemon: Mutex<Daemon>,
    ids: Mutex<BTreeSet<String>>,
}

impl Containerd {
    /// Starts one and imports the image.
    pub fn start(sandbox: &Sandbox, name: &str, archive: &Path) -> Result<Self, Stop> {
        let dir = sandbox.dir.join("ctr").join(name);
        let runtime = sandbox.runtime_type()?;
        let sandbox = sandbox.with_shim_as_runc();
        let daemon = Mutex::new(serve(&sandbox, &dir, &dir.join("sock"))?);
        let namespace = sandbox.cgroup.trim_start_matches('/').to_owned();
        let ids = Mutex::default();
        let containerd = Self { sandbox, dir, namespace, runtime, daemon, ids };
        containerd.ctr(&["image", "import"]).arg(archive).ok()?;
        Ok(containerd)
    }

    /// Ends the daemon only: its containers live on in their shims.
    pub fn down(&self, signal: Signal) -> Verdict {
        self.daemon.lock()?.stop(signal)
    }

    /// Starts the daemon again.
    pub fn up(&self) -> Verdict {
        *self.daemon.lock()? = serve(&self.sandbox, &self.dir, &self.socket())?;
        self.ok(&["version"]).map(drop)
    }

    /// Sends the daemon a signal.
    pub fn signal(&self, signal: Signal) -> Verdict {
        self.daemon.lock()?.signal(signal)
    }

    /// The daemon's pid.
    pub fn pid(&self) -> Result<Pid, Stop> {
        Ok(self.daemon.lock()?.pid())
    }

    /// The daemon's log, which says everything.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// How many events of a topic shims have sent, as the log says from `start` on: also those that
    /// came before anybody could listen.
    pub fn received(&self, topic: &str, start: usize) -> usize {
        let (log, topic) = (self.log(), format!(" topic={topic} "));
        let lines = log.get(start..).unwrap_or_default().lines();
        lines.filter(|line| line.contains("event forwarded") && line.contains(&topic)).count()
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("sock")
    }

    /// Removes every container, checks that nothing is left, and stops the daemon.
    pub fn finish(&self) -> Verdict {
        let mut tidy = self.tidy();
        let mut last = Vec::new();
        let gone = eventually("nothing left", Duration::from_secs(15), || {
            last = self.left()?;
            Ok(last.is_empty())
        });
        for word in ["panicked at", "panic:", "fatal error:"] {
            tidy = tidy.and(super::lacks("the log", &self.log(), word));
        }
        if gone.is_err() {
            let log = self.log();
            let lines: Vec<_> = log.lines().filter(|line| !line.contains(" plugin\\\"")).collect();
            let tail = lines[lines.len().saturating_sub(60)..].join("\n");
            let left = last.join("\n");
            tidy = tidy.and(Err(Stop::Fail(format!("left behind:\n{left}\nthe log:\n{tail}"))));
        }
        tidy.and(self.down(Signal::SIGTERM))
    }

    fn tidy(&self) -> Verdict {
        let tasks = self.ok(&["task", "ls", "-q"])?;
        for id in tasks.lines() {
            self.ctr(&["task", "rm", "--force", id]).run()?;
        }
        let containers = self.ok(&["container", "ls", "-q"])?;
        for id in containers.lines() {
            self.ctr(&["container", "rm", id]).run()?;
        }
        Ok(())
    }

    /// What is left of its containers: processes, mounts, bundles, sockets, cgroups, state.
    pub fn left(&self) -> Result<Vec<String>, Stop> {
        let mut all = self.shims()?.into_iter().map(|pid| format!("shim {pid}")).collect();
        let own = self.dir.display().to_string();
        let table = fs::read_to_string("/proc/self/mountinfo")?;
        let mounts = table.lines().filter(|line| line.contains(&own));
        extend(&mut all, "mount", mounts.map(str::to_owned));
        for place in ["root", "state"] {
            let tasks = self.dir.join(place).join("io.containerd.runtime.v2.task");
            let bundles = list(&tasks).into_iter().flat_map(|namespace| list(&namespace));
            extend(&mut all, "bundle", bundles.map(|path| path.display().to_string()));
        }
        extend(&mut all, "socket without a listener", self.dead_sockets()?);
        for id in self.ids.lock()?.iter() {
            for hierarchy in leaks::hierarchies()? {
                let group = hierarchy.join(&self.namespace).join(id);
                let there = group.exists().then(|| group.display().to_string());
                extend(&mut all, "cgroup", there);
            }
            // State, FIFOs: whatever has the name of the container.
            let words = ["/run", "-name", id, "-o", "-name", &format!("{id}-*")];
            let found = Run::new("find").args(words).run()?.stdout;
            extend(&mut all, "file", found.lines().map(str::to_owned));
        }
        Ok(all)
    }

    /// Sockets of its shims that are gone. A name is the hash of the daemon's address, the namespace
    /// and the id.
    fn dead_sockets(&self) -> Result<Vec<String>, Stop> {
        let refuses = |path: &PathBuf| {
            let refused = UnixStream::connect(path);
            refused.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
        };
        let dead: Vec<_> = list(Path::new(SOCKETS)).into_iter().filter(refuses).collect();
        let mut own = Vec::new();
        for id in self.ids.lock()?.iter().filter(|_| !dead.is_empty()) {
            let text = format!("{}/{}/{id}", self.socket().display(), self.namespace);
            let sum = Run::new("sha256sum").input(text).ok()?;
            let name = sum.split(' ').next().unwrap_or_default();
            own.extend(dead.iter().filter(|path| path.ends_with(name)));
        }
        Ok(own.into_iter().map(|path| path.display().to_string()).collect())
    }

    /// The shims of this containerd, known by the address on their command line or by the bundle
    /// that they work in.
    pub fn shims(&self) -> Result<Vec<Pid>, Stop> {
        let (socket, state) = (self.socket().display().to_string(), self.dir.join("state"));
        let mut all = Vec::new();
        for entry in fs::read_dir("/proc")?.flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse() else { continue };
            let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let words = String::from_utf8_lossy(&words).replace('\0', " ");
            let within = fs::read_link(entry.path().join("cwd"));
            let below = within.is_ok_and(|dir| dir.starts_with(&state));
            if below || (words.contains(&socket) && words.contains("shim-")) {
                all.push(Pid::from_raw(pid));
            }
        }
        Ok(all)
    }

    /// `ctr` with these words.
    pub fn ctr<S: AsRef<str>>(&self, words: &[S]) -> Run {
        self.ctr_of(&self.namespace, words)
    }

    /// `ctr` in another containerd namespace.
    pub fn ctr_of<S: AsRef<str>>(&self, namespace: &str, words: &[S]) -> Run {
        let run = Run::new(self.sandbox.containerd("ctr")).dir(&self.dir);
        // containerd 2 warns of cgroup v1 with every command.
        let run = run.env("CONTAINERD_SUPPRESS_DEPRECATION_WARNINGS", "1");
        run.arg("--address")
            .arg(self.socket())
            .args(["--namespace", namespace])
            .args(words.iter().map(AsRef::as_ref))
    }

    /// Runs `ctr`; its output, when it succeeds.
    pub fn ok<S: AsRef<str>>(&self, words: &[S]) -> Result<String, Stop> {
        self.ctr(words).ok()
    }

    /// Calls a gRPC method of the daemon, for what `ctr` has no verb.
    pub fn call(&self, method: &str, body: &[u8]) -> Result<grpc::Reply, Stop> {
        let headers = [("containerd-namespace", self.namespace.as_str())];
        grpc::call_with(&self.socket(), method, &headers, body, Duration::from_secs(30))
    }

    /// A name for a container of this containerd, so that its traces are looked for.
    pub fn id(&self) -> Result<String, Stop> {
        let id = unique("ctr");
        self.ids.lock()?.insert(id.clone());
        Ok(id)
    }

    /// Removes the FIFOs that `ctr` made for a task that it will never see again.
    pub fn forget_streams(&self, id: &str) -> Verdict {
        let name = format!("{id}-*");
        Run::new("find").args(["/run/containerd/fifo", "-name", &name, "-delete"]).run().map(drop)
    }

    /// A new directory for a test's files.
    pub fn folder(&self, name: &str) -> Result<PathBuf, Stop> {
        let folder = self.sandbox.dir.join("files").join(unique(name));
        fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// `run --rm` with `options` and a command. Without a word about it the runtime is the shim
    /// under test, the root file system the image.
    pub fn run(&self, options: &[&str], words: &[&str]) -> Result<Run, Stop> {
        Ok(self.ctr(&["run", "--rm"]).args(self.arguments(options, &self.id()?, words)))
    }

    /// `run --rm` with `options` and a shell script: what it printed.
    pub fn sh(&self, options: &[&str], script: &str) -> Result<String, Stop> {
        self.run(options, &["sh", "-c", script])?.ok()
    }

    /// Starts `run` on a terminal of 33 rows and 77 columns.
    pub fn terminal(&self, run: Run) -> Result<Terminal, Stop> {
        Terminal::start(run, 33, 77)
    }

    /// `run -d` of a shell script.
    pub fn background(&self, options: &[&str], script: &str) -> Result<Container<'_>, Stop> {
        self.container(&["run", "-d"], options, &["sh", "-c", script])
    }

    /// `container create`, without a task.
    pub fn created(&self, options: &[&str], words: &[&str]) -> Result<Container<'_>, Stop> {
        // `container create` takes what looks like an option for one wherever it stands.
        self.container(&["container", "create"], &[options, &["--"]].concat(), words)
    }

    fn container(
        &self,
        verb: &[&str],
        options: &[&str],
        words: &[&str],
    ) -> Result<Container<'_>, Stop> {
        // Owned before it exists, so that a failed start is removed too.
        let container = Container { containerd: self, id: self.id()? };
        self.ctr(verb).args(self.arguments(options, &container.id, words)).ok()?;
        Ok(container)
    }

    /// What follows `run` and `create`.
    fn arguments(&self, options: &[&str], id: &str, words: &[&str]) -> Vec<String> {
        let says = |word: &str| options.contains(&word);
        let mut all = Vec::new();
        if !says("--runtime") {
            all.extend(["--runtime", &self.runtime]);
        }
        all.extend(options);
        if !says("--rootfs") && !says("--config") {
            all.push(image::REFERENCE);
        }
        // The value of `--rootfs`, which is a switch, is the first argument.
        if says("--rootfs") {
            all.retain(|&word| word != "--rootfs");
            let root = all.pop().unwrap_or_default();
            all.extend(["--rootfs", root]);
        }
        all.push(id);
        all.extend(words);
        all.into_iter().map(str::to_owned).collect()
    }
}

fn extend(all: &mut Vec<String>, what: &str, more: impl IntoIterator<Item = String>) {
    all.extend(more.into_iter().map(|one| format!("{what} {one}")));
}

/// What is inside of `dir`, nothing when it does not exist.
fn list(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// A container that is removed when the test ends, however it ends.
#[derive(Debug)]
pub struct Container<'a> {
    containerd: &'a Containerd,
    /// Its id.
    pub id: String,
}

impl Container<'_> {
    /// `task VERB OPTIONS… ID`.
    pub fn task(&self, verb: &str, options: &[&str]) -> Run {
        self.containerd.ctr(&["task", verb]).args(options).arg(&self.id)
    }

    /// `task VERB OPTIONS… ID`: its output.
    pub fn does(&self, verb: &str, options: &[&str]) -> Result<String, Stop> {
        self.task(verb, options).ok()
    }

    /// `task exec OPTIONS… ID WORDS…`; the exec gets an id unless the options say which.
    pub fn exec_raw(&self, options: &[&str], words: &[&str]) -> Run {
        let mut all: Vec<String> = options.iter().map(|&word| word.to_owned()).collect();
        if !options.contains(&"--exec-id") {
            all.extend(["--exec-id".to_owned(), unique("exec")]);
        }
        self.containerd.ctr(&["task", "exec"]).args(all).arg(&self.id).args(words)
    }

    /// `task exec OPTIONS… ID sh -c SCRIPT`: its output.
    pub fn exec(&self, options: &[&str], script: &str) -> Result<String, Stop> {
        self.exec_raw(options, &["sh", "-c", script]).ok()
    }

    /// Its pid and status, if `task ls` has it.
    fn row(&self) -> Result<Option<(i32, String)>, Stop> {
        let table = self.containerd.ok(&["task", "ls"])?;
        for line in table.lines() {
            let mut words = line.split_whitespace();
            if words.next() == Some(&self.id) {
                let pid = words.next().unwrap_or_default().parse()?;
                return Ok(Some((pid, words.next().unwrap_or_default().to_owned())));
            }
        }
        Ok(None)
    }

    /// `RUNNING`, `STOPPED`…, or `none` without a task.
    pub fn status(&self) -> Result<String, Stop> {
        Ok(self.row()?.map_or_else(|| "none".to_owned(), |(_, status)| status))
    }

    /// Waits until [`Self::status`] answers `wanted`.
    pub fn becomes(&self, wanted: &str) -> Verdict {
        let mut seen = String::new();
        let ended = eventually(wanted, Duration::from_secs(30), || {
            seen = self.status()?;
            Ok(seen == wanted)
        });
        ended.map_err(|_| Stop::Fail(format!("{}: wanted {wanted}, saw {seen}", self.id)))
    }

    /// The pid of its first process in the sandbox.
    pub fn pid(&self) -> Result<Pid, Stop> {
        let row = self.row()?.ok_or_else(|| format!("{} has no task", self.id))?;
        Ok(Pid::from_raw(row.0))
    }

    /// Its shim: the parent of its first process.
    pub fn shim(&self) -> Result<Pid, Stop> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid()?))?;
        let parent = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1));
        Ok(Pid::from_raw(parent.ok_or("no parent in stat")?.parse()?))
    }

    /// Waits for its end and removes the task; answers the exit code.
    pub fn ends(&self) -> Result<i32, Stop> {
        self.becomes("STOPPED")?;
        exit_code(&self.task("rm", &[]).code(0)?)
    }

    /// Its bundle.
    pub fn bundle(&self) -> PathBuf {
        let tasks = self.containerd.dir.join("state/io.containerd.runtime.v2.task");
        tasks.join(&self.containerd.namespace).join(&self.id)
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        // Gone already is fine; whatever stays is found at the end.
        self.task("rm", &["--force"]).run().ok();
        self.containerd.ctr(&["container", "rm", &self.id]).run().ok();
    }
}

/// What `task rm` says about the exit of a task: only a code other than 0, and as a warning.
fn exit_code(removed: &Outcome) -> Result<i32, Stop> {
    let text = removed.all();
    match text.split_once("non-zero exit code ") {
        Some((_, rest)) => {
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            Ok(digits.parse()?)
        }
        None if text.trim().is_empty() => Ok(0),
        None => Err(Stop::Fail(format!("{}: {text}", removed.line))),
    }
}

/// Whether a process exists.
pub fn alive(pid: Pid) -> bool {
    kill(pid, None).is_ok()
}
