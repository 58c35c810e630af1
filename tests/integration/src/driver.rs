//! Runs the runtime under test: one state directory, one bundle directory and one name per test, a
//! deadline on every command, output in files (a container keeps its standard streams open for
//! longer than the command that made it, so a pipe would never end).

use std::cell::{Cell, RefCell};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::bundle::Bundle;
use crate::oracle::Oracle;
use crate::reaper;

/// How long a command may take. Generous: a busy machine must not fail a test.
pub fn deadline() -> Duration {
    patience(Duration::from_secs(30))
}

/// A limit, on a machine that is slower than others.
pub fn patience(limit: Duration) -> Duration {
    limit * slowness()
}

/// Whether strace(1) is installed.
pub fn has_strace() -> bool {
    let version = Command::new("strace").arg("-V").stdout(Stdio::null()).status();
    version.is_ok_and(|status| status.success())
}

/// How many times slower than others this machine is, as `CORTEN_TEST_SLOW` says (the lab's is
/// emulated).
pub fn slowness() -> u32 {
    static FACTOR: OnceLock<u32> = OnceLock::new();
    let factor = || std::env::var("CORTEN_TEST_SLOW").ok().and_then(|factor| factor.parse().ok());
    *FACTOR.get_or_init(|| factor().unwrap_or(1).max(1))
}

/// Which runtime is under test, for skips with a reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// This project's.
    Corten,
    /// Debian's runc 1.1.
    Runc,
    /// Debian's crun 1.8.
    Crun,
}

/// Ends a test that can't be judged with this runtime or on this host.
#[derive(Debug)]
pub struct Skip(pub String);

/// What a finished command did.
#[derive(Debug, Clone)]
pub struct Output {
    /// Exit code; 128 + n after a signal.
    pub code: i32,
    /// Standard output, invalid UTF-8 replaced.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    line: String,
    words_matter: bool,
}

impl Output {
    /// The command must have succeeded.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert!(self.code == 0, "{self} should have succeeded");
        self
    }

    /// The command must have failed with one clear line and without a panic.
    #[track_caller]
    pub fn fails(self) -> Self {
        assert!(self.code != 0, "{self} should have failed");
        assert!(
            !self.stderr.contains("panicked at") && self.code < 128 || self.code == 255,
            "{self} crashed"
        );
        assert!(!self.stderr.trim().is_empty(), "{self} failed without a word");
        self
    }

    /// The command must have failed with this exit code.
    #[track_caller]
    pub fn fails_with(self, code: i32) -> Self {
        let failed = self.fails();
        assert!(failed.code == code, "{failed} should have failed with {code}");
        failed
    }

    /// One of the alternatives must stand in standard error (`|` between them). crun has words of
    /// its own, which no manager of containers looks for.
    #[track_caller]
    pub fn says(self, alternatives: &str) -> Self {
        if !self.words_matter {
            return self;
        }
        let text = self.stderr.replace("\\\"", "\"").to_lowercase();
        assert!(
            alternatives.split('|').any(|words| text.contains(&words.to_lowercase())),
            "{self} should have said {alternatives:?}"
        );
        self
    }

    /// The exit code must be this one.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert!(self.code == code, "{self} should have exited with {code}");
        self
    }

    /// Standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{self}: not JSON: {e}"))
    }

    /// Every line of standard output that is JSON: what the probe's steps printed. script(1) puts
    /// `^@` before the first.
    pub fn facts(&self) -> Vec<Value> {
        let parse = |line: &str| serde_json::from_str(line.trim_start_matches("^@")).ok();
        self.stdout.lines().filter_map(parse).collect()
    }

    /// The nth fact the probe printed.
    #[track_caller]
    pub fn fact(&self, n: usize) -> Value {
        self.facts().get(n).cloned().unwrap_or_else(|| panic!("{self}: no fact number {n}"))
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let cut = |text: &str| -> String { text.trim_end().chars().take(3000).collect() };
        write!(f, "`{}` = {}", self.line, self.code)?;
        if !self.stdout.is_empty() {
            write!(f, "\n      out: {}", cut(&self.stdout))?;
        }
        if !self.stderr.is_empty() {
            write!(f, "\n      err: {}", cut(&self.stderr))?;
        }
        Ok(())
    }
}

/// A command that is still running; killed when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    out: PathBuf,
    err: PathBuf,
    line: String,
}

impl Running {
    /// The process id of the command itself.
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).expect("signal a running command");
    }

    /// The file of its standard output, which a container goes on writing to.
    pub fn out(&self) -> &Path {
        &self.out
    }

    /// What it has printed so far.
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.out).unwrap_or_default()).into_owned()
    }

    /// Waits until standard output holds `words`.
    #[track_caller]
    pub fn wait_for(&mut self, words: &str) {
        wait_until(&format!("`{}` prints {words:?}", self.line), || {
            if let Ok(Some(status)) = self.child.try_wait() {
                let err = fs::read_to_string(&self.err).unwrap_or_default();
                assert!(self.stdout().contains(words), "`{}` ended: {status}: {err}", self.line);
            }
            self.stdout().contains(words)
        });
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(mut self) -> Output {
        let start = Instant::now();
        let mut pause = Duration::from_micros(200);
        let status = loop {
            match self.child.try_wait().expect("wait for a command") {
                Some(status) => break status,
                None if start.elapsed() > deadline() => {
                    let all = crate::oracle::where_all_are();
                    self.child.kill().expect("kill a command that hangs");
                    self.child.wait().expect("wait for a killed command");
                    let err = fs::read_to_string(&self.err).unwrap_or_default();
                    panic!("`{}` did not end within {:?}: {err}\n{all}", self.line, deadline());
                }
                None => {
                    reaper::reap();
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(Duration::from_millis(5));
                }
            }
        };
        reaper::disown(self.pid());
        let read = |path| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
        Output {
            code: status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
            stdout: read(&self.out),
            stderr: read(&self.err),
            line: self.line.clone(),
            words_matter: runtime().1 != Flavour::Crun,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        reaper::disown(self.pid());
    }
}

/// Waits until a condition holds; fails after the deadline, saying what it waited for.
#[track_caller]
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    let mut pause = Duration::from_micros(500);
    while !holds() {
        assert!(start.elapsed() < deadline(), "waited for ever until {what}");
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// One test: its names, its directory, its runtime.
#[derive(Debug)]
pub struct Test {
    /// Which runtime this is.
    pub flavour: Flavour,
    /// Path of the binary.
    pub runtime: PathBuf,
    /// The directory of everything this test makes.
    pub dir: PathBuf,
    /// A word that is in every name this test makes.
    pub tag: String,
    count: Cell<u32>,
    ids: RefCell<Vec<String>>,
    log: RefCell<Vec<String>>,
    oracle: Oracle,
}

impl Default for Test {
    fn default() -> Self {
        Self::new()
    }
}

impl Test {
    /// A new test directory below /tmp and a snapshot for the oracle.
    pub fn new() -> Self {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let n = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let tag = format!("ct{}x{n}", std::process::id());
        let dir = PathBuf::from(format!("/tmp/corten-test-{}-{n}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir(&dir).expect("make the test's directory");
        fs::create_dir(dir.join("tmp")).expect("make the test's TMPDIR");
        let (runtime, flavour) = runtime();
        let oracle = Oracle::new(&tag, &dir);
        Self {
            flavour,
            runtime,
            dir,
            tag,
            count: Cell::new(0),
            ids: RefCell::default(),
            log: RefCell::default(),
            oracle,
        }
    }

    /// A number that no other name of this test has.
    pub fn next(&self) -> u32 {
        self.count.set(self.count.get() + 1);
        self.count.get()
    }

    /// The state directory given as `--root`.
    pub fn root(&self) -> PathBuf {
        self.dir.join("root")
    }

    /// Ends the test as skipped if the runtime is this one.
    pub fn skip_on(&self, flavour: Flavour, reason: &str) {
        if self.flavour == flavour {
            self.skip(&format!("{flavour:?}: {reason}"));
        }
    }

    /// Ends the test as skipped on both packaged runtimes.
    pub fn skip_on_peers(&self, reason: &str) {
        self.skip_on(Flavour::Runc, reason);
        self.skip_on(Flavour::Crun, reason);
    }

    /// Ends the test as skipped: this host can't do it.
    pub fn skip(&self, reason: &str) -> ! {
        std::panic::resume_unwind(Box::new(Skip(reason.to_owned())))
    }

    /// Ends the test as skipped where there is no strace(1).
    pub fn needs_strace(&self) {
        if !has_strace() {
            self.skip("no strace");
        }
    }

    /// Ends the test as skipped where no limits of `controller` can be set.
    pub fn needs_controller(&self, controller: &str) {
        if let Some(why) = crate::cgroups::lack_of(controller) {
            self.skip(&why);
        }
    }

    /// A bundle whose root file system holds only the probe, which prints its report.
    pub fn bundle(&self) -> Bundle {
        let n = self.next();
        let id = format!("{}-{n}", self.tag);
        self.ids.borrow_mut().push(id.clone());
        Bundle::new(self.dir.join(format!("bundle{n}")), id)
    }

    /// A bundle with a shell and the usual tools.
    pub fn busybox(&self) -> Bundle {
        let bundle = self.bundle();
        bundle.add_busybox();
        bundle
    }

    /// The command line of the runtime: `--root` and `args`.
    pub fn command<S: AsRef<OsStr>>(&self, args: &[S]) -> Command {
        let mut command = Command::new(&self.runtime);
        command.arg("--root").arg(self.root()).args(args);
        command
    }

    /// Starts any program with the test's environment and standard streams.
    #[track_caller]
    pub fn launch(&self, mut command: Command) -> Running {
        let n = self.next();
        let (out, err) = (self.dir.join(format!("out{n}")), self.dir.join(format!("err{n}")));
        let line: Vec<_> = std::iter::once(command.get_program())
            .chain(command.get_args())
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        let custom: Vec<_> = command
            .get_envs()
            .filter_map(|(k, v)| v.map(|v| (k.to_owned(), v.to_owned())))
            .collect();
        command
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("TMPDIR", self.dir.join("tmp"))
            .envs(custom)
            .stdout(File::create(&out).expect("make an output file"))
            .stderr(File::create(&err).expect("make an output file"));
        let child = command.spawn().unwrap_or_else(|e| panic!("start {line:?}: {e}"));
        reaper::own(child.id() as i32);
        Running { child, out, err, line: line.join(" ") }
    }

    /// Runs any program to its end.
    #[track_caller]
    pub fn execute(&self, mut command: Command) -> Output {
        command.stdin(Stdio::null());
        let output = self.launch(command).wait();
        let line = output.to_string();
        if self.log.borrow().last() != Some(&line) {
            self.log.borrow_mut().push(line);
        }
        output
    }

    /// Runs a line of shell as the caller of the runtime: `$RUNTIME` and `$ROOT` are set.
    #[track_caller]
    pub fn shell(&self, script: &str) -> Output {
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(script).env("RUNTIME", &self.runtime).env("ROOT", self.root());
        self.execute(command)
    }

    /// Runs the runtime to its end.
    #[track_caller]
    pub fn call<S: AsRef<OsStr>>(&self, args: &[S]) -> Output {
        self.execute(self.command(args))
    }

    /// Starts the runtime and leaves it running.
    #[track_caller]
    pub fn spawn<S: AsRef<OsStr>>(&self, args: &[S]) -> Running {
        let mut command = self.command(args);
        command.stdin(Stdio::null());
        self.launch(command)
    }

    /// `create`.
    #[track_caller]
    pub fn create(&self, bundle: &Bundle) -> Output {
        bundle.write();
        self.call(&["create", "--bundle", bundle.path(), &bundle.id])
    }

    /// `create` that must be refused, at once and without leaving anything.
    #[track_caller]
    pub fn create_fails(&self, bundle: &Bundle) -> Output {
        let output = self.create(bundle).fails();
        self.nothing_left(bundle);
        output
    }

    /// `run` in the foreground.
    #[track_caller]
    pub fn run(&self, bundle: &Bundle) -> Output {
        bundle.write();
        self.call(&["run", "--bundle", bundle.path(), &bundle.id])
    }

    /// `run` that must be refused, at once and without leaving anything.
    #[track_caller]
    pub fn run_fails(&self, bundle: &Bundle) -> Output {
        let output = self.run(bundle).fails();
        self.nothing_left(bundle);
        output
    }

    /// Runs the bundle and returns what its probe reported.
    #[track_caller]
    pub fn report(&self, bundle: &Bundle) -> Value {
        self.run(bundle).ok().fact(0)
    }

    /// `create` and `start` of a container that sleeps until it is told to end.
    #[track_caller]
    pub fn sleeper(&self, bundle: &mut Bundle) -> i32 {
        bundle.probe(&["sleep"]);
        self.create(bundle).ok();
        self.start(&bundle.id).ok();
        self.wait_asleep(&bundle.id)
    }

    /// Waits until the probe's `sleep` step is ready for signals; returns its pid.
    #[track_caller]
    pub fn wait_asleep(&self, id: &str) -> i32 {
        let pid = self.pid(id);
        wait_until("the probe is asleep", || {
            fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default() == "asleep\n"
        });
        pid
    }

    /// `start`.
    #[track_caller]
    pub fn start(&self, id: &str) -> Output {
        self.call(&["start", id])
    }

    /// `state`.
    #[track_caller]
    pub fn state(&self, id: &str) -> Output {
        self.call(&["state", id])
    }

    /// The `status` of `state`.
    #[track_caller]
    pub fn status(&self, id: &str) -> String {
        self.state(id).ok().json()["status"].as_str().unwrap_or_default().to_owned()
    }

    /// The `pid` of `state`.
    #[track_caller]
    pub fn pid(&self, id: &str) -> i32 {
        self.state(id).ok().json()["pid"].as_i64().expect("state has a pid") as i32
    }

    /// Waits until `state` says so.
    #[track_caller]
    pub fn wait_status(&self, id: &str, status: &str) {
        wait_until(&format!("{id} is {status}"), || {
            self.call(&["state", id]).json()["status"] == status
        });
    }

    /// `kill`.
    #[track_caller]
    pub fn kill(&self, id: &str, signal: &str) -> Output {
        self.call(&["kill", id, signal])
    }

    /// `delete`.
    #[track_caller]
    pub fn delete(&self, id: &str) -> Output {
        self.call(&["delete", id])
    }

    /// `delete --force`.
    #[track_caller]
    pub fn force(&self, id: &str) -> Output {
        self.call(&["delete", "--force", id])
    }

    /// `exec` of the probe's steps.
    #[track_caller]
    pub fn exec(&self, id: &str, flags: &[&str], steps: &[&str]) -> Output {
        let mut args = vec!["exec"];
        args.extend(flags);
        args.extend([id, "/probe"]);
        args.extend(steps);
        self.call(&args)
    }

    /// Waits for the end of a process that was left to us: 128 + n after a signal.
    #[track_caller]
    pub fn exit_code(&self, pid: i32) -> i32 {
        let mut code = None;
        wait_until(&format!("process {pid} ends"), || {
            code = reaper::ended(pid).unwrap_or_else(|e| {
                panic!("process {pid} was not left to its caller's subreaper: {e}")
            });
            code.is_some()
        });
        code.unwrap_or_default()
    }

    /// What there is of this container: its directory, processes, cgroups and mounts.
    pub fn left(&self, bundle: &Bundle) -> Vec<String> {
        self.oracle.traces_of(&bundle.id, &self.root())
    }

    /// Nothing of this container may exist: a refused create must clean up by itself.
    #[track_caller]
    pub fn nothing_left(&self, bundle: &Bundle) {
        let left = self.left(bundle);
        assert!(left.is_empty(), "{} left behind: {left:#?}", bundle.id);
    }

    /// Ends the processes that a test left on purpose, its hooks' children for instance.
    pub fn end_orphans(&self) {
        self.oracle.end_survivors();
    }

    /// The commands so far, for the report of a failure.
    pub fn log(&self) -> String {
        self.log.borrow().iter().map(|line| format!("    {line}\n")).collect()
    }

    /// Deletes what the test left on purpose, then lists what is still there.
    pub fn finish(self) -> Vec<String> {
        for id in self.ids.borrow().iter() {
            if self.root().join(id).exists() {
                let mut command = self.command(&["delete", "--force", id]);
                command.stdin(Stdio::null());
                let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    self.execute(command)
                }));
            }
        }
        self.oracle.leaks(&self.root())
    }

    /// An open file of the harness that a command may be given.
    pub fn open(&self, path: &Path) -> OwnedFd {
        File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).into()
    }
}

/// The runtime under test: `RUNTIME`, else this workspace's `bin/corten`.
fn runtime() -> (PathBuf, Flavour) {
    static CHOICE: OnceLock<(PathBuf, Flavour)> = OnceLock::new();
    CHOICE
        .get_or_init(|| {
            let name = std::env::var("RUNTIME").unwrap_or_default();
            let path = match name.as_str() {
                "" => workspace().join("bin/corten"),
                name if name.contains('/') => PathBuf::from(name),
                name => ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"]
                    .iter()
                    .map(|dir| Path::new(dir).join(name))
                    .find(|path| path.exists())
                    .unwrap_or_else(|| panic!("no {name} in PATH")),
            };
            let path = path.canonicalize().unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            let flavour = match path.file_name().and_then(OsStr::to_str).unwrap_or("") {
                name if name.starts_with("runc") => Flavour::Runc,
                name if name.starts_with("crun") => Flavour::Crun,
                _ => Flavour::Corten,
            };
            (path, flavour)
        })
        .clone()
}

/// The top of the repository.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace")
}
