//! What the attacks share: the host's canary, the swapper, the runtimes that serve as a control.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use corten_integration::bundle::probe;
use corten_integration::driver::Running;
use corten_integration::{Bundle, Flavour, Output, Test};
use serde_json::Value;

/// A directory of the host with what attacks are after, and how it was (O-HOST).
pub struct Canary {
    pub dir: PathBuf,
    before: BTreeMap<String, String>,
    sysctls: BTreeMap<&'static str, String>,
    mounts: String,
    binary: (PathBuf, u64),
}

/// Kernel settings that attacks want to change.
const SYSCTLS: [&str; 12] = [
    "kernel/core_pattern",
    "kernel/hostname",
    "kernel/domainname",
    "kernel/modprobe",
    "kernel/sysrq",
    "kernel/panic",
    "kernel/randomize_va_space",
    "kernel/ns_last_pid",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "fs/suid_dumpable",
    "net/ipv4/ip_forward",
];

impl Canary {
    pub fn new(t: &Test) -> Self {
        let dir = t.dir.join("canary");
        fs::create_dir(&dir).unwrap();
        for name in ["a", "b", "ptmx", "null", "console"] {
            fs::write(dir.join(name), "untouched").unwrap();
        }
        fs::create_dir(dir.join("d")).unwrap();
        let binary = (t.runtime.clone(), digest(&t.runtime));
        let (before, sysctls, mounts) = (picture(&dir), settings(), mounts());
        Self { dir, before, sysctls, mounts, binary }
    }

    pub fn path(&self) -> &str {
        self.dir.to_str().unwrap()
    }

    /// Its path seen from far below.
    pub fn dots(&self) -> String {
        format!("{}{}", "../".repeat(16).trim_end_matches('/'), self.path())
    }

    /// What has changed, and nothing must.
    pub fn harm(&self) -> Vec<String> {
        let mut harm = Vec::new();
        let now = picture(&self.dir);
        for (name, was) in &self.before {
            if now.get(name) != Some(was) {
                harm.push(format!("{name}: {was} became {:?}", now.get(name)));
            }
        }
        harm.extend(now.keys().filter(|n| !self.before.contains_key(*n)).map(|n| format!("+{n}")));
        for (name, value) in settings() {
            if name != "kernel/ns_last_pid" && self.sysctls.get(name) != Some(&value) {
                harm.push(format!("sysctl {name}: {:?} became {value:?}", self.sysctls.get(name)));
            }
        }
        if mounts() != self.mounts {
            harm.push("the host's mounts changed".to_owned());
        }
        if digest(&self.binary.0) != self.binary.1 {
            harm.push("the runtime's binary changed".to_owned());
        }
        harm
    }

    #[track_caller]
    pub fn unharmed(&self) {
        let harm = self.harm();
        assert!(harm.is_empty(), "the host has changed: {harm:#?}");
    }

    /// O-IN: a container that runs must not show it.
    #[track_caller]
    pub fn unseen(&self, out: &Output) {
        assert!(!out.stdout.contains("untouched"), "the canary can be read inside: {out}");
    }
}

fn picture(dir: &Path) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(path) = todo.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let content =
            if meta.is_file() { fs::read_to_string(&path).unwrap() } else { String::new() };
        let line = format!(
            "{:o} {}:{} {} {}:{} {}.{} {content}",
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.ino(),
            meta.rdev(),
            if meta.is_file() { meta.size() } else { 0 },
            meta.mtime(),
            meta.mtime_nsec(),
        );
        all.insert(path.display().to_string(), line);
        if meta.is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().flatten().map(|entry| entry.path()));
        }
    }
    all
}

fn settings() -> BTreeMap<&'static str, String> {
    let read = |name| fs::read_to_string(format!("/proc/sys/{name}")).unwrap_or_default();
    SYSCTLS.into_iter().map(|name| (name, read(name))).collect()
}

/// The host's mounts without those of other tests that run at the same time.
fn mounts() -> String {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mine = format!("corten-test-{}", std::process::id());
    let ours = |line: &&str| line.contains(&mine);
    table.lines().filter(ours).map(|line| format!("{line}\n")).collect()
}

/// FNV-1a: enough to see a change.
fn digest(path: &Path) -> u64 {
    let bytes = fs::read(path).unwrap();
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The verdict on an attack: refused in one line with nothing left, or a container that shows
/// nothing of the host; the host is as it was in either case.
#[track_caller]
pub fn contained(t: &Test, canary: &Canary, b: &Bundle) -> Output {
    let start = Instant::now();
    let out = t.run(b);
    assert!(start.elapsed() < Duration::from_secs(10), "{out}: took {:?}", start.elapsed());
    canary.unharmed();
    canary.unseen(&out);
    if out.code != 0 {
        assert!(!out.stderr.contains("panicked"), "{out}");
    }
    t.nothing_left(b);
    out
}

/// Swaps two names until it is stopped.
pub struct Swapper<'t> {
    running: Running,
    stop: PathBuf,
    _test: &'t Test,
}

impl<'t> Swapper<'t> {
    pub fn start(t: &'t Test, a: &Path, b: &Path) -> Self {
        let stop = t.dir.join(format!("stop{}", t.next()));
        let mut command = Command::new(probe());
        command.arg("swap").args([a, b]).arg(&stop);
        Self { running: t.launch(command), stop, _test: t }
    }

    /// Ends it; how often it swapped.
    pub fn stop(self) -> u64 {
        fs::write(&self.stop, "").unwrap();
        let out = self.running.wait().ok();
        fs::remove_file(&self.stop).unwrap();
        out.fact(0)["swaps"].as_u64().unwrap()
    }
}

/// How many swaps a race takes at least: 10^5 with `make attacks`, as many as happen otherwise.
pub fn race_target() -> u64 {
    std::env::var("CORTEN_ATTACKS_SWAPS").ok().and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// Whether everything is tried (`make attacks`), or a selection.
pub fn thorough() -> bool {
    race_target() > 0
}

/// Repeats `attack` while A and B are swapped: at least `rounds` times, and until so many swaps were
/// made. Returns the outcomes: how often it was refused, and how often it ran.
pub fn race(
    t: &Test,
    (a, b): (&Path, &Path),
    rounds: u32,
    mut attack: impl FnMut() -> bool,
) -> (u32, u32) {
    let (mut refused, mut ran, mut swaps) = (0, 0, 0);
    let speed = 30_000; // Swaps a second on a machine that has time for it.
    let seconds = Duration::from_secs(race_target() / speed);
    let rounds = if thorough() { rounds * 10 } else { rounds / 2 };
    while refused + ran < rounds || swaps < race_target() {
        let swapper = Swapper::start(t, a, b);
        let start = Instant::now();
        while refused + ran < rounds || start.elapsed() < seconds {
            if attack() { ran += 1 } else { refused += 1 }
        }
        swaps += swapper.stop();
    }
    assert!(swaps > 1000, "the swapper did not run: {swaps}");
    if thorough() {
        println!("{}: {swaps} swaps, {refused} times refused, {ran} times run", a.display());
    }
    (refused, ran)
}

/// A packaged runtime that is known to fall for an attack: the positive control.
pub struct Peer {
    program: PathBuf,
    root: PathBuf,
}

impl Peer {
    /// `None`, with the reason on standard error, if it is not installed.
    pub fn find(t: &Test, name: &str) -> Option<Self> {
        let dirs = ["/usr/sbin", "/usr/bin"];
        let found = dirs.iter().map(|dir| Path::new(dir).join(name)).find(|path| path.exists());
        if found.is_none() {
            eprintln!("no control: {name} is not installed");
        }
        found.map(|program| Self { program, root: t.dir.join(format!("root-{name}")) })
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(&self.root).args(args);
        command
    }

    /// `run`, then `delete --force`.
    pub fn run(&self, t: &Test, b: &Bundle) -> Output {
        b.write();
        let out = t.execute(self.command(&["run", "--bundle", b.path(), &b.id]));
        t.execute(self.command(&["delete", "--force", &b.id]));
        out
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may not have got as far as making it.
        let _ = fs::remove_dir_all(&self.root);
    }
}

/// Runs the attack on a packaged runtime that is affected, where it must succeed, or the test shows
/// nothing. `attack` makes the scene and returns whether the attack worked.
#[track_caller]
pub fn control(t: &Test, name: &str, attack: impl FnOnce(&Peer) -> bool) {
    if t.flavour != Flavour::Corten {
        return;
    }
    if let Some(peer) = Peer::find(t, name) {
        assert!(attack(&peer), "the control failed: {name} withstood this attack");
    }
}

/// The mounts a report shows, as (point, root, type).
pub fn mounts_of(report: &Value) -> Vec<(String, String, String)> {
    let text = |mount: &Value, key: &str| mount[key].as_str().unwrap_or_default().to_owned();
    let all = report["mounts"].as_array().cloned().unwrap_or_default();
    all.iter().map(|m| (text(m, "point"), text(m, "root"), text(m, "type"))).collect()
}

/// Removes the mounts on /dev: the image's own directory is used.
pub fn without_dev(b: &mut Bundle) -> &mut Bundle {
    for point in ["/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"] {
        b.unmount(point);
    }
    b
}
