//! The whole of it for real, as root: a bundle in a temporary directory, a child in new namespaces, and
//! a look around from inside. Each test runs this program again for itself alone, because a fork of the
//! test runner, which has threads, may inherit a lock that nobody will release.
#![allow(unsafe_code)]

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::Command;

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork, pipe};
use oci_spec::runtime::Spec;
use serde_json::{Value, json};

use super::*;
use crate::sys::mount::Present;
use crate::sys::process::{CloneArgs, Cloned, clone};

const NEW_API: Present = Present { detached: true, setattr: true };
const OLD_API: Present = Present { detached: false, setattr: false };
const MIDDLE_API: Present = Present { detached: true, setattr: false };
const ALL_APIS: [Present; 3] = [NEW_API, MIDDLE_API, OLD_API];

/// Runs a test in a process without other threads.
macro_rules! alone {
    ($(#[doc = $doc:literal])* fn $name:ident() $body:block) => {
        $(#[doc = $doc])*
        #[test]
        fn $name() {
            if std::env::var_os(ALONE).is_some() {
                return $body;
            }
            let test = concat!(module_path!(), "::", stringify!($name));
            let test = test.split_once("::").unwrap().1;
            let output = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", test, "--test-threads=1", "--nocapture"])
                .env(ALONE, "1")
                .output()
                .unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
    };
}

/// Set where a test runs for itself.
const ALONE: &str = "CORTEN_ROOTFS_TEST_ALONE";

/// Runs `work` in a process of its own; a panic there is a panic here.
fn apart(work: impl FnOnce()) {
    let (mut from, to) = pipe().map(|(r, w)| (File::from(r), File::from(w))).unwrap();
    // SAFETY: glibc's fork leaves malloc usable in the child, and the child only exits.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            drop(from);
            finish_apart(to, work);
        }
        ForkResult::Parent { child } => {
            drop(to);
            let mut said = String::new();
            from.read_to_string(&mut said).unwrap();
            let status = waitpid(child, None).unwrap();
            assert_eq!(status, WaitStatus::Exited(child, 0), "{said}");
        }
    }
}

fn finish_apart(mut to: File, work: impl FnOnce()) -> ! {
    std::panic::set_hook(Box::new(|_| {}));
    let code = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(()) => 0,
        Err(payload) => {
            let text = payload.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
            to.write_all(text.unwrap_or("panic").as_bytes()).unwrap();
            1
        }
    };
    drop(to);
    // SAFETY: ends the process without running what belongs to the test runner.
    unsafe { libc::_exit(code) }
}

/// A bundle: a busybox root file system, a canary directory beside it, and a spec.
struct Bundle {
    dir: tempfile::TempDir,
    spec: Value,
    present: Present,
    /// Namespaces besides the mount and pid namespace.
    flags: libc::c_int,
    moment: Option<Moment>,
    no_pivot: bool,
}

impl Bundle {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("corten-rootfs-").tempdir().unwrap();
        for name in ["rootfs/bin", "rootfs/proc", "rootfs/etc", "can"] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::copy("/bin/busybox", dir.path().join("rootfs/bin/busybox")).unwrap();
        fs::write(dir.path().join("can/a"), "canary").unwrap();
        let spec = json!({
            "ociVersion": "1.3.0",
            "root": {"path": "rootfs"},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc",
                 "options": ["nosuid", "noexec", "nodev"]},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                 "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            ],
            "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}]},
        });
        Self { dir, spec, present: NEW_API, flags: 0, moment: None, no_pivot: false }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn mount(
        &mut self,
        destination: &str,
        fstype: &str,
        source: &str,
        options: &[&str],
    ) -> &mut Self {
        let mount = json!({"destination": destination, "type": fstype, "source": source,
            "options": options});
        self.spec["mounts"].as_array_mut().unwrap().push(mount);
        self
    }

    fn bind(&mut self, source: &str, destination: &str, options: &[&str]) -> &mut Self {
        let source = self.path(source).to_str().unwrap().to_owned();
        self.mount(destination, "bind", &source, options)
    }

    fn plan(&self) -> Result<Plan> {
        let spec: Spec = serde_json::from_value(self.spec.clone()).unwrap();
        let context = Context { bundle: self.dir.path(), rootless: false, no_pivot: self.no_pivot };
        Plan::new(&spec, &context)
    }

    /// Nothing in the canary directory was made, removed or changed.
    fn check_canary(&self) {
        let names: Vec<_> = fs::read_dir(self.path("can"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        assert_eq!(names, ["a"]);
        assert_eq!(fs::read_to_string(self.path("can/a")).unwrap(), "canary");
    }

    /// `look` runs in the container, between the steps; an error is the container's.
    fn start(
        &self,
        before: impl FnOnce(&Root<'_>),
        look: impl FnOnce(),
    ) -> std::result::Result<(), String> {
        let host_mounts = self.host_mounts();
        let (mut errors, report) = pipe().map(|(r, w)| (File::from(r), File::from(w))).unwrap();
        apart(|| {
            let plan = match self.plan() {
                Ok(plan) => plan,
                Err(error) => return (&report).write_all(error.to_string().as_bytes()).unwrap(),
            };
            // Never on the host's own propagation.
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
            let none = None::<&str>;
            let private = nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE;
            nix::mount::mount(none, "/", none, private, none).unwrap();
            let sources = match self.moment {
                Some(moment) => Sources::open(&plan, moment),
                None => Ok(Sources::none()),
            };
            let sources = match sources {
                Ok(sources) => sources,
                Err(error) => return (&report).write_all(error.to_string().as_bytes()).unwrap(),
            };
            let cgroups = Cgroups::of_self().unwrap();
            let flags = (libc::CLONE_NEWNS | libc::CLONE_NEWPID | self.flags) as u64;
            let (mut from, to) = pipe().map(|(r, w)| (File::from(r), File::from(w))).unwrap();
            let args = CloneArgs { flags, ..CloneArgs::default() };
            match clone(&args).unwrap() {
                Cloned::Child => finish_apart(to, || {
                    let build = || -> Result<()> {
                        let kernel = Kernel::with(self.present).unwrap();
                        let mut root = assemble_with(kernel, &plan, sources, &cgroups)?;
                        before(&root);
                        root.pivot()?;
                        root.make_cwd(Path::new("/made/for/me"))?;
                        root.finish()
                    };
                    match build() {
                        Ok(()) => look(),
                        Err(error) => (&report).write_all(error.to_string().as_bytes()).unwrap(),
                    }
                }),
                Cloned::Parent(pid, _) => {
                    drop(to);
                    let mut said = String::new();
                    from.read_to_string(&mut said).unwrap();
                    assert_eq!(waitpid(pid, None).unwrap(), WaitStatus::Exited(pid, 0), "{said}");
                }
            }
        });
        drop(report);
        let mut error = String::new();
        errors.read_to_string(&mut error).unwrap();
        self.check_canary();
        assert_eq!(self.host_mounts(), host_mounts);
        if error.is_empty() { Ok(()) } else { Err(error) }
    }

    /// The host's mounts that have to do with this bundle; others come and go beside us.
    fn host_mounts(&self) -> Vec<String> {
        let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let ours = self.path("").display().to_string();
        text.lines().filter(|line| line.contains(&ours)).map(str::to_owned).collect()
    }

    fn run(&self, look: impl FnOnce()) {
        self.start(|_| {}, look).unwrap();
    }

    fn refused(&self) -> String {
        self.start(|_| {}, || {}).unwrap_err()
    }
}

/// The last line of mountinfo for a mount point: options, file system type, superblock options.
fn mounted(point: &str) -> Option<(String, String, String)> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = text.lines().rev().find(|line| line.split(' ').nth(4) == Some(point))?;
    let (head, tail) = line.split_once(" - ").unwrap();
    let tail: Vec<_> = tail.split(' ').collect();
    Some((head.split(' ').nth(5).unwrap().into(), tail[0].into(), tail[2].into()))
}

fn has(options: &str, wanted: &[&str]) {
    let all: Vec<_> = options.split(',').collect();
    for word in wanted {
        assert!(all.contains(word), "{word} in {options}");
    }
}

mod attacks;
mod mounts;
