//! The private world a suite runs in, and its supervisor.
//!
//! Three processes run the same test binary. The outer one makes the work directory and starts
//! `unshare` for new mount, pid and network namespaces. Pid 1 of those only reaps orphans (shims
//! and conmon leave their parents) and ends with the suite, taking everything left with it. The
//! third runs the tests: `/run` is an empty tmpfs, `/etc` and `/var/lib` are overlays that can be
//! written without touching the machine, `/` is shared as on a systemd host.
//!
//! What a namespace cannot contain is named after the work directory and swept by the outer
//! process: the cgroups. If that one is killed, the kernel ends the rest (`--kill-child`), and
//! the next run sweeps what it left, known by a lock that nobody holds.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use libtest_mimic::{Arguments, Conclusion, Trial};
use nix::mount::{MsFlags, mount};
use nix::sys::wait::{WaitStatus, waitpid};

use super::command::{Run, spawn};
use super::{Stop, leaks};

/// Prefix of every work directory and cgroup of these suites.
const PREFIX: &str = "corten-managers-";
/// Tells the re-executed binary which part it plays and where.
const ROLE: &str = "CORTEN_MANAGERS_ROLE";
const PLACE: &str = "CORTEN_MANAGERS_DIR";
/// What a suite may be told beside its arguments: all variables that begin like one of these.
const SETTINGS: [&str; 4] = ["CORTEN_SOAK_", "CORTEN_FAULTS_", "CORTEN_MODEL_", "CORTEN_TEST_SLOW"];

/// containerd's own shim.
const RUNC_SHIM: &str = "containerd-shim-runc-v2";

/// The ordinary user of the sandbox, for rootless tests.
pub const USER: &str = "corten-test";
/// Its uid and gid.
pub const USER_ID: u32 = 61234;
/// The first of its 65536 subordinate ids.
pub const SUBID: u32 = 2_000_000;

/// A suite: what it needs, its tests, and what must run around them.
#[derive(Debug)]
pub struct Suite {
    /// The name of the suite and part of its work directory's name.
    pub name: &'static str,
    /// Binaries with the Debian packages that bring them.
    pub needs: &'static [(&'static str, &'static str)],
    /// Tests run at once unless the command line says otherwise.
    pub threads: usize,
    /// Starts the managers.
    pub start: fn(&Sandbox) -> Result<(), Stop>,
    /// The tests.
    pub trials: fn() -> Vec<Trial>,
    /// Stops the managers; runs whatever the tests did.
    pub stop: fn(&Sandbox) -> Result<(), Stop>,
}

/// The paths and names of one run.
#[derive(Debug, Clone)]
pub struct Sandbox {
    /// The work directory, short enough for socket names below it.
    pub dir: PathBuf,
    /// The runtime under test: a copy, reachable by an ordinary user.
    pub runtime: PathBuf,
    /// The shim under test: a copy under its own name, see [`Sandbox::shim`].
    shim: Option<PathBuf>,
    /// The directory of the work directory that comes first in `PATH`.
    shims: &'static str,
    /// The parent of every cgroup of this run, as an absolute cgroup path.
    pub cgroup: String,
}

impl Sandbox {
    fn at(dir: PathBuf) -> Result<Self, Stop> {
        let runtime = fs::read_link(dir.join("runtime"))?;
        let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let shim = fs::read_link(dir.join("shim")).ok();
        Ok(Self { dir, runtime, shim, shims: "shims", cgroup: format!("/{name}") })
    }

    /// The shim under test, for the suites that need one: `SHIM`, else the one in `bin`.
    pub fn shim(&self) -> Result<&Path, Stop> {
        let missing = "no shim under test: `make build` first, or set SHIM to its path";
        self.shim.as_deref().ok_or_else(|| Stop::Fail(missing.to_owned()))
    }

    /// The runtime type that containerd resolves to the shim under test: the last two parts of
    /// `containerd-shim-NAME-VERSION`.
    pub fn runtime_type(&self) -> Result<String, Stop> {
        let name = self.shim()?.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let parts = name.strip_prefix("containerd-shim-").and_then(|rest| rest.rsplit_once('-'));
        let (name, version) = parts.ok_or_else(|| format!("{name} is no name of a shim"))?;
        Ok(format!("io.containerd.{name}.{version}"))
    }

    /// Whether the shim under test is containerd's own, whose limits some tests must know.
    pub fn is_reference_shim(&self) -> bool {
        self.shim.as_ref().is_some_and(|shim| shim.ends_with(RUNC_SHIM))
    }

    /// The same run for a daemon that finds the shim under test by the name of runc's too: nothing
    /// else gets options of runc's form from `ctr`, and nothing else is known to Docker 20.10.
    pub fn with_shim_as_runc(&self) -> Self {
        Self { shims: "shims-runc", ..self.clone() }
    }

    /// The `PATH` of daemons: the shim under test and, called `runc`, the runtime come first.
    pub fn path(&self) -> String {
        let (dir, first) = (self.dir.display(), self.shims);
        format!(
            "{dir}/{first}:{dir}/shims:{dir}/path:{dir}/other:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
        )
    }

    /// A program of containerd: the one in `CONTAINERD_BIN`, else the installed one.
    pub fn containerd(&self, program: &str) -> PathBuf {
        let other = self.dir.join("other").join(program);
        if other.exists() { other } else { PathBuf::from(program) }
    }

    /// Whether the runtime under test is runc, whose limits some tests must know.
    pub fn is_runc(&self) -> bool {
        self.runtime.file_name().is_some_and(|name| name == "runc")
    }
}

/// Runs a suite from `main`, playing whichever of the three parts this process has.
pub fn main(suite: &Suite) -> ExitCode {
    let arguments = Arguments::from_args();
    if arguments.list {
        return libtest_mimic::run(&arguments, (suite.trials)()).exit_code();
    }
    let role = std::env::var(ROLE).unwrap_or_default();
    let place = std::env::var_os(PLACE).map(PathBuf::from).unwrap_or_default();
    let ended = match role.as_str() {
        "" => outer(suite, unshared),
        "init" => init(),
        _ => Sandbox::at(place).and_then(|sandbox| inside(suite, &sandbox, arguments)),
    };
    match ended {
        Ok(code) => code,
        Err(Stop::Fail(why) | Stop::Skip(why)) => {
            eprintln!("{}: {why}", suite.name);
            ExitCode::FAILURE
        }
    }
}

/// Runs a suite of managers that need the machine's own systemd, so in no namespaces and with
/// nothing private but the work directory: for the lab.
pub fn main_in_the_open(suite: &Suite) -> ExitCode {
    let arguments = Arguments::from_args();
    if arguments.list {
        return libtest_mimic::run(&arguments, (suite.trials)()).exit_code();
    }
    let ended = outer(suite, |dir| {
        let tests = between(suite, &Sandbox::at(dir.to_owned())?, arguments)?;
        Ok(tests.exit_code())
    });
    ended.unwrap_or_else(|(Stop::Fail(why) | Stop::Skip(why))| {
        eprintln!("{}: {why}", suite.name);
        ExitCode::FAILURE
    })
}

/// Prepares the machine's side, runs the rest with the work directory, sweeps.
fn outer(
    suite: &Suite,
    rest: impl FnOnce(&Path) -> Result<ExitCode, Stop>,
) -> Result<ExitCode, Stop> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Stop::Fail("this suite starts daemons and must run as root".into()));
    }
    demand(suite.needs)?;
    demand(&[("unshare", "util-linux"), ("setpriv", "util-linux"), ("ip", "iproute2")])?;
    demand(&[("tar", "tar"), ("/bin/busybox", "busybox-static")])?;
    sweep_stale()?;
    let dir = PathBuf::from(format!("/tmp/{PREFIX}{}-{}", suite.name, std::process::id()));
    let lock = claim(&dir)?;
    let copied = runtime_copy(&dir).and_then(|()| shim_copy(&dir));
    let ended = copied.and_then(|()| rest(&dir));
    let swept = sweep(&dir);
    drop(lock);
    swept?;
    ended
}

/// Starts this binary again as pid 1 of new namespaces and waits for it.
fn unshared(dir: &Path) -> Result<ExitCode, Stop> {
    let run = Run::new("setpriv")
        .args(["--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--net", "--fork"])
        .args(["--kill-child", "--mount-proc", "--propagation", "private", "--"])
        .arg(std::env::current_exe()?)
        .args(std::env::args_os().skip(1));
    let mut command = run.into_command();
    command.env(ROLE, "init").env(PLACE, dir).env("TERM", "xterm");
    let is_setting = |name: &str| SETTINGS.iter().any(|start| name.starts_with(start));
    command.envs(std::env::vars().filter(|(name, _)| is_setting(name)));
    let status = spawn(&mut command)?.wait()?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Pid 1: starts the suite, reaps whatever is orphaned, ends when the suite does.
fn init() -> Result<ExitCode, Stop> {
    let mut command = std::process::Command::new(std::env::current_exe()?);
    command.args(std::env::args_os().skip(1)).env(ROLE, "suite");
    let suite = spawn(&mut command)?.id();
    loop {
        match waitpid(None, None)? {
            WaitStatus::Exited(pid, code) if pid.as_raw().unsigned_abs() == suite => {
                return Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)));
            }
            WaitStatus::Signaled(pid, signal, _) if pid.as_raw().unsigned_abs() == suite => {
                return Err(Stop::Fail(format!("the suite was ended by {signal}")));
            }
            _ => {}
        }
    }
}

/// Runs the tests between the start and the stop of the managers, then looks for leaks.
fn inside(suite: &Suite, sandbox: &Sandbox, arguments: Arguments) -> Result<ExitCode, Stop> {
    furnish(&sandbox.dir)?;
    let before = leaks::Snapshot::take()?;
    let tests = between(suite, sandbox, arguments.clone())?;
    let place = sandbox.clone();
    let last = super::trial("leaks", "nothing_is_left", move || leaks::find(&before, &place));
    let everything = Arguments { filter: None, skip: Vec::new(), ..arguments };
    let left = libtest_mimic::run(&everything, vec![last]);
    let passed = !left.has_failed() && !tests.has_failed();
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs the tests between the start and the stop of the managers.
fn between(suite: &Suite, sandbox: &Sandbox, mut arguments: Arguments) -> Result<Conclusion, Stop> {
    arguments.test_threads = arguments.test_threads.or(Some(suite.threads));
    let started = (suite.start)(sandbox);
    let tests = started.map(|()| libtest_mimic::run(&arguments, (suite.trials)()));
    let stopped = (suite.stop)(sandbox);
    let tests = tests?;
    stopped?;
    Ok(tests)
}

/// Makes the directories that managers write to private, and adds the ordinary user.
fn furnish(dir: &Path) -> Result<(), Stop> {
    let scratch = dir.join("scratch");
    let flags = MsFlags::empty();
    fs::create_dir_all(&scratch)?;
    mount(Some("tmpfs"), &scratch, Some("tmpfs"), flags, Some("mode=755"))?;
    for (number, target) in ["/etc", "/var/lib"].iter().enumerate() {
        let (upper, work) =
            (scratch.join(format!("upper{number}")), scratch.join(format!("work{number}")));
        fs::create_dir(&upper)?;
        fs::create_dir(&work)?;
        let options =
            format!("lowerdir={target},upperdir={},workdir={}", upper.display(), work.display());
        mount(Some("overlay"), *target, Some("overlay"), flags, Some(options.as_str()))
            .map_err(|error| format!("overlay on {target}: {error}"))?;
    }
    mount(Some("tmpfs"), "/run", Some("tmpfs"), flags, Some("mode=755"))?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_SHARED | MsFlags::MS_REC, None::<&str>)?;
    Run::new("ip").args(["link", "set", "lo", "up"]).ok()?;
    accounts(dir)
}

/// Adds the ordinary user with its subordinate ids, and Podman's pool for `--userns=auto`.
fn accounts(dir: &Path) -> Result<(), Stop> {
    let home = dir.join("home");
    fs::create_dir_all(&home)?;
    std::os::unix::fs::chown(&home, Some(USER_ID), Some(USER_ID))?;
    let line = format!("{USER}:x:{USER_ID}:{USER_ID}::{}:/bin/sh\n", home.display());
    append("/etc/passwd", &line)?;
    append("/etc/group", &format!("{USER}:x:{USER_ID}:\n"))?;
    for file in ["/etc/subuid", "/etc/subgid"] {
        append(file, &format!("{USER}:{SUBID}:65536\ncontainers:3000000:1048576\n"))?;
    }
    // slirp4netns runs as that user; elsewhere udev opens the node to everybody.
    let tun = dir.join("tun");
    if Path::new("/dev/net/tun").exists() {
        let device = fs::metadata("/dev/net/tun")?.rdev();
        let kind = nix::sys::stat::SFlag::S_IFCHR;
        nix::sys::stat::mknod(&tun, kind, nix::sys::stat::Mode::empty(), device)?;
        fs::set_permissions(&tun, fs::Permissions::from_mode(0o666))?;
        mount(Some(&tun), "/dev/net/tun", None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    }
    Ok(())
}

fn append(file: &str, text: &str) -> Result<(), Stop> {
    let mut content = fs::read_to_string(file).unwrap_or_default();
    if !content.is_empty() && !content.ends_with('\n') {
        content.push('\n');
    }
    content.push_str(text);
    Ok(fs::write(file, content)?)
}

/// Copies the runtime under test to where every user can run it, and names it `runc` for
/// BuildKit, which looks for that name in `PATH`.
fn runtime_copy(dir: &Path) -> Result<(), Stop> {
    let wanted = under_test("RUNTIME", "corten");
    let Some(source) = find(&wanted) else {
        let wanted = wanted.display();
        return Err(Stop::Fail(format!(
            "no runtime at {wanted}: `make build` first, or set RUNTIME to a path or `runc`"
        )));
    };
    let (bin, path) = (dir.join("bin"), dir.join("path"));
    fs::create_dir(&bin)?;
    fs::create_dir(&path)?;
    let name = source.file_name().unwrap_or_default();
    let copy = bin.join(name);
    fs::copy(&source, &copy)?;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))?;
    symlink(&copy, path.join("runc"))?;
    Ok(symlink(&copy, dir.join("runtime"))?)
}

/// Copies the shim under test, if there is one, under its own name into a directory for `PATH`;
/// remembers the containerd that is not the installed one.
fn shim_copy(dir: &Path) -> Result<(), Stop> {
    let wanted = under_test("SHIM", "containerd-shim-corten-v2");
    let shims = dir.join("shims");
    fs::create_dir(&shims)?;
    if let Some(other) = std::env::var_os("CONTAINERD_BIN") {
        symlink(fs::canonicalize(other)?, dir.join("other"))?;
    }
    // Most suites need none; the others say so.
    let Some(source) = find(&wanted) else { return Ok(()) };
    let copy = shims.join(source.file_name().unwrap_or_default());
    fs::copy(&source, &copy)?;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))?;
    let named = dir.join("shims-runc");
    fs::create_dir(&named)?;
    symlink(&copy, named.join(RUNC_SHIM))?;
    Ok(symlink(&copy, dir.join("shim"))?)
}

/// The program that a variable names, else the one of that name in `bin`.
fn under_test(variable: &str, name: &str) -> PathBuf {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../bin").join(name);
    std::env::var_os(variable).map_or(built, PathBuf::from)
}

/// Finds a program by path or name.
fn find(program: &Path) -> Option<PathBuf> {
    if program.components().count() > 1 {
        return fs::canonicalize(program).ok().filter(|path| path.is_file());
    }
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
        .iter()
        .map(|dir| Path::new(dir).join(program))
        .find(|path| path.is_file())
}

/// Fails with the package names of whatever program is missing.
fn demand(needs: &[(&str, &str)]) -> Result<(), Stop> {
    let missing: Vec<String> = needs
        .iter()
        .filter(|(program, _)| find(Path::new(program)).is_none())
        .map(|(program, package)| format!("{program} (Debian package {package})"))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Stop::Fail(format!("missing programs: {}", missing.join(", "))))
}

/// Makes the work directory and holds its lock for as long as this process lives.
fn claim(dir: &Path) -> Result<File, Stop> {
    fs::create_dir(dir)?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
    let lock = File::options().create_new(true).write(true).mode(0o600).open(dir.join("lock"))?;
    lock.lock()?;
    Ok(lock)
}

/// Sweeps after runs that were killed: their lock is free.
fn sweep_stale() -> Result<(), Stop> {
    for entry in fs::read_dir("/tmp")?.flatten() {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let Ok(lock) = File::open(entry.path().join("lock")) else { continue };
        if lock.try_lock().is_ok() {
            sweep(&entry.path())?;
        }
    }
    Ok(())
}

/// Removes the cgroups and the directory of a run whose processes are gone.
fn sweep(dir: &Path) -> Result<(), Stop> {
    let name = dir.file_name().unwrap_or_default();
    for hierarchy in leaks::hierarchies()? {
        let group = hierarchy.join(name);
        // The kernel finishes dying processes after their parent has seen the exit.
        super::eventually("cgroups removed", Duration::from_secs(10), || {
            leaks::remove_groups(&group);
            Ok(!group.exists())
        })?;
    }
    fs::remove_dir_all(dir).map_err(|error| format!("remove {}: {error}", dir.display()).into())
}
