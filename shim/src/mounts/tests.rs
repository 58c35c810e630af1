//! For real, as root, each test in a process and a mount namespace of its own.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::Command;

use corten::rootfs::compat::Kernel;
use corten::sys::mount::Present;
use corten::sys::process::{CloneArgs, Cloned, clone, exit_now};
use corten::sys::wait::exit_of;
use nix::mount::{MsFlags, mount};
use nix::sched::CloneFlags;
use nix::unistd::{Pid, pipe};

use super::*;

/// Set where a test runs for itself.
const ALONE: &str = "CORTEN_MOUNTS_TEST_ALONE";

/// Runs a test in a process without other threads, in a mount namespace of its own. A test that can't
/// run here returns why.
macro_rules! alone {
    ($(#[doc = $doc:literal])* fn $name:ident($dirs:ident) $body:block) => {
        $(#[doc = $doc])*
        #[test]
        fn $name() {
            let test = concat!(module_path!(), "::", stringify!($name));
            $crate::mounts::tests::alone(test, |$dirs| $body);
        }
    };
}

fn alone(test: &str, body: impl FnOnce(&Dirs)) {
    if let Some(top) = std::env::var_os(ALONE) {
        let code = in_child(
            CloneFlags::CLONE_NEWNS,
            |_| {},
            || {
                let none = None::<&str>;
                mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
                let dirs = Dirs::new(top.as_ref());
                let cwd = std::env::current_dir().unwrap();
                body(&dirs);
                assert_eq!(std::env::current_dir().unwrap(), cwd);
            },
        );
        return assert_eq!(code, 0);
    }
    let top = tempfile::Builder::new().prefix("corten-mounts-").tempdir().unwrap();
    let test = test.split_once("::").unwrap().1;
    let path = std::env::var("PATH").unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--test-threads=1", "--nocapture"])
        .env(ALONE, top.path())
        .env("PATH", format!("{}/bin:{path}", top.path().display()))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{errors}");
    for line in said.lines().filter(|line| line.starts_with("skipped: ")) {
        println!("{line}");
    }
}

/// Runs `body` in a child with new namespaces, after `before` ran in the parent, which is given its
/// pid; its exit code, 1 for a panic.
fn in_child(new: CloneFlags, before: impl FnOnce(Pid), body: impl FnOnce()) -> i32 {
    let (may_go, go) = pipe().unwrap();
    let flags = new.bits() as u64;
    match clone(&CloneArgs { flags, ..CloneArgs::default() }).unwrap() {
        Cloned::Parent(pid, pidfd) => {
            drop(may_go);
            before(pid);
            drop(go);
            exit_of(&pidfd).unwrap().status()
        }
        Cloned::Child => {
            drop(go);
            nix::unistd::read(&may_go, &mut [0]).unwrap();
            exit_now(i32::from(catch_unwind(AssertUnwindSafe(body)).is_err()));
        }
    }
}

/// A test that this machine can't run says why.
fn skip(why: &str) {
    println!("skipped: {why}");
}

/// A tmpfs with a root file system's directory and what is mounted on it.
struct Dirs {
    top: PathBuf,
}

impl Dirs {
    fn new(top: &Path) -> Self {
        mount(Some("dirs"), top, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        fs::set_permissions(top, fs::Permissions::from_mode(0o755)).unwrap();
        Self { top: top.to_owned() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.top.join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn rootfs(&self) -> PathBuf {
        self.path("rootfs")
    }

    fn dir(&self, name: &str) -> String {
        fs::create_dir_all(self.path(name)).unwrap();
        self.text(name)
    }

    fn write(&self, name: &str, content: &str) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), content).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// All mount points at and below the root file system, and their options and types.
    fn mounted(&self) -> Vec<[String; 4]> {
        let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let field = |line: &str, n: usize| line.split(' ').nth(n).unwrap().to_owned();
        let rootfs = self.text("rootfs");
        text.lines()
            .filter(|line| field(line, 4).starts_with(&rootfs))
            .map(|line| {
                let (head, tail) = line.split_once(" - ").unwrap();
                [field(head, 4), field(head, 5), field(tail, 0), field(tail, 2)]
            })
            .collect()
    }

    fn none_mounted(&self) {
        assert_eq!(self.mounted(), Vec::<[String; 4]>::new());
    }

    fn unmount(&self) {
        unmount_all(&self.rootfs()).unwrap();
        self.none_mounted();
    }
}

fn a_mount(kind: &str, source: &str, options: &[&str]) -> Mount {
    at(kind, source, "", options)
}

fn at(kind: &str, source: &str, target: &str, options: &[&str]) -> Mount {
    Mount {
        kind: kind.to_owned(),
        source: source.to_owned(),
        target: target.to_owned(),
        options: options.iter().map(|&option| option.to_owned()).collect(),
    }
}

/// What newer and older kernels offer, as far as they differ here.
fn ways() -> Vec<(&'static str, Way)> {
    let kernel = |detached, setattr| Kernel::with(Present { detached, setattr }).unwrap();
    let way = |detached, setattr, layer_fds, detached_layers| Way {
        kernel: kernel(detached, setattr),
        layer_fds,
        detached_layers,
    };
    let newest = Way::find(&[a_mount("overlay", "", &[])]).unwrap();
    let mut ways = vec![];
    if newest.layer_fds {
        ways.push(("Linux 6.15", way(true, true, true, true)));
        ways.push(("Linux 6.13", way(true, true, true, false)));
    } else {
        skip("overlay takes no layers as descriptors");
    }
    ways.push(("Linux 5.12", way(true, true, false, false)));
    ways.push(("Linux 5.2", way(true, false, false, false)));
    ways.push(("before", way(false, false, false, false)));
    ways
}

/// Fails and leaves nothing; the words.
fn refused(dirs: &Dirs, mounts: &[Mount]) -> String {
    let error = mount_all(mounts, &dirs.rootfs()).unwrap_err().to_string();
    dirs.none_mounted();
    error
}

mod basics;
mod helpers;
mod idmaps;
mod loopdevs;
mod overlays;
mod unmounts;
