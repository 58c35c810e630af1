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
use crate::sys::process::{CloneArgs, Cloned, clone3};

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
            let test = concat!("rootfs::tests::", stringify!($name));
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
        let host_mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
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
            match clone3(&args).unwrap() {
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
        assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), host_mounts);
        if error.is_empty() { Ok(()) } else { Err(error) }
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

alone! {
    fn a_docker_like_container() {
        for (present, moment) in [
            (NEW_API, Some(Moment::Before)),
            (NEW_API, None),
            (MIDDLE_API, None),
            (OLD_API, None),
        ] {
            let mut bundle = Bundle::new();
            let docker: Value = serde_json::from_str(include_str!("../../tests/data/docker-like.json"))
                .unwrap();
            bundle.spec["mounts"] = docker["mounts"].clone();
            bundle.spec["linux"] = docker["linux"].clone();
            (bundle.present, bundle.moment) = (present, moment);
            bundle.flags = libc::CLONE_NEWIPC | libc::CLONE_NEWNET | libc::CLONE_NEWUTS;
            bundle.run(|| {
                assert_eq!(std::env::current_dir().unwrap(), Path::new("/"));
                assert!(Path::new("/bin/busybox").exists());
                assert!(Path::new("/made/for/me").is_dir());
                let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
                let shown = format!("{present:?} {moment:?}\n{text}");
                assert!(text.lines().all(|line| !line.contains("/dev/vda / ")), "{shown}");
                let (options, fstype, _) = mounted("/proc").unwrap();
                has(&options, &["nosuid", "noexec", "nodev", "relatime"]);
                assert_eq!(fstype, "proc");
                let (options, _, superblock) = mounted("/dev").unwrap();
                has(&options, &["rw", "nosuid"]);
                assert!(!options.contains("relatime"), "{shown}");
                has(&superblock, &["size=65536k", "mode=755"]);
                has(&mounted("/sys").unwrap().0, &["ro", "nosuid", "noexec", "nodev"]);
                has(&mounted("/dev/pts").unwrap().2, &["gid=5", "mode=620", "ptmxmode=666"]);
                assert_eq!(mounted("/dev/mqueue").unwrap().1, "mqueue");
                assert_eq!(fs::metadata("/dev/shm").unwrap().mode() & 0o7777, 0o1777);
                for (name, rdev) in [("null", (1, 3)), ("full", (1, 7)), ("tty", (5, 0))] {
                    let node = fs::metadata(format!("/dev/{name}")).unwrap();
                    assert!(node.file_type().is_char_device());
                    assert_eq!(node.rdev(), libc::makedev(rdev.0, rdev.1));
                    assert_eq!((node.mode() & 0o7777, node.uid(), node.gid()), (0o666, 0, 0));
                }
                assert_eq!(fs::read_link("/dev/ptmx").unwrap(), Path::new("pts/ptmx"));
                assert_eq!(fs::read_link("/dev/fd").unwrap(), Path::new("/proc/self/fd"));
                for masked in ["/proc/kcore", "/proc/keys", "/proc/timer_list"] {
                    if Path::new(masked).exists() {
                        assert_eq!(fs::read(masked).unwrap(), b"", "{masked} {shown}");
                    }
                }
                assert_eq!(fs::read_dir("/sys/firmware").unwrap().count(), 0);
                has(&mounted("/sys/firmware").unwrap().0, &["ro"]);
                has(&mounted("/proc/sys").unwrap().0, &["ro", "nosuid", "noexec", "nodev"]);
                if Path::new("/proc/sysrq-trigger").exists() {
                has(&mounted("/proc/sysrq-trigger").unwrap().0, &["ro"]);
            }
                assert_eq!(mounted("/proc/sys").unwrap().1, "proc");
                // No fd but the standard ones, the pipes of the test and the one that reads the list.
                for entry in fs::read_dir("/proc/self/fd").unwrap() {
                    let target = fs::read_link(entry.unwrap().path()).unwrap_or_default();
                    let text = target.to_string_lossy().into_owned();
                    assert!(!text.contains("rootfs"), "{text}");
                    assert!(text != "/", "{text}");
                }
            });
        }
    }
}

alone! {
    fn bind_mounts_keep_the_flags_of_their_source_and_get_what_was_asked() {
        for present in ALL_APIS {
            let mut bundle = Bundle::new();
            bundle.present = present;
            fs::create_dir(bundle.path("vol")).unwrap();
            fs::write(bundle.path("vol/f"), "x").unwrap();
            bundle
                .bind("vol", "/a", &["bind", "ro", "nosuid"])
                .bind("vol", "/b/c/d", &["rbind", "noexec", "nodev", "noatime", "rprivate"])
                .bind("vol/f", "/etc/file", &["bind", "ro"])
                .mount("/c", "tmpfs", "t", &["nosuid", "nodev"])
                .bind("vol", "/e", &["rbind", "rw", "nosymfollow", "nodiratime", "strictatime"]);
            bundle.run(|| {
                has(&mounted("/a").unwrap().0, &["ro", "nosuid"]);
                has(&mounted("/b/c/d").unwrap().0, &["rw", "noexec", "nodev", "noatime"]);
                has(&mounted("/etc/file").unwrap().0, &["ro"]);
                has(&mounted("/e").unwrap().0, &["rw", "nosymfollow", "nodiratime"]);
                assert!(!mounted("/e").unwrap().0.contains("relatime"));
                assert_eq!(fs::read_to_string("/etc/file").unwrap(), "x");
                assert!(fs::write("/a/f", "y").is_err());
                fs::write("/b/c/d/f", "y").unwrap();
            });
            assert_eq!(fs::read_to_string(bundle.path("vol/f")).unwrap(), "y");
        }
    }
}

alone! {
    fn recursive_attributes_reach_the_mounts_below() {
        let mut bundle = Bundle::new();
        bundle.mount("/sys3", "bind", "/sys", &["rbind", "ro", "rrw"]);
        bundle.mount("/v", "tmpfs", "t", &[]).mount("/v/w", "tmpfs", "t", &["rro", "rnosuid"]);
        bundle.mount("/sys2", "bind", "/sys", &["rbind", "rro", "rnoexec"]);
        bundle.run(|| {
            has(&mounted("/v/w").unwrap().0, &["ro", "nosuid"]);
            has(&mounted("/sys2/fs/cgroup").unwrap().0, &["ro", "noexec"]);
        });
        bundle.present = OLD_API;
        assert!(bundle.refused().contains("recursive mount options need Linux 5.12"));
    }
}

alone! {
    fn tmpcopyup_copies_everything_as_it_is() {
        for present in ALL_APIS {
            let mut bundle = Bundle::new();
            bundle.present = present;
            let up = bundle.path("rootfs/up");
            fs::create_dir_all(up.join("d/e")).unwrap();
            fs::write(up.join("d/f"), "contents").unwrap();
            fs::set_permissions(up.join("d/f"), fs::Permissions::from_mode(0o4755)).unwrap();
            fs::set_permissions(&up, fs::Permissions::from_mode(0o1750)).unwrap();
            symlink(bundle.path("can"), up.join("link")).unwrap();
            std::os::unix::fs::chown(up.join("d/f"), Some(7), Some(8)).unwrap();
            fs::set_permissions(up.join("d/f"), fs::Permissions::from_mode(0o4755)).unwrap();
            bundle.mount("/up", "tmpfs", "tmpfs", &["tmpcopyup", "ro"]);
            bundle.run(|| {
                assert_eq!(fs::read_to_string("/up/d/f").unwrap(), "contents");
                let file = fs::metadata("/up/d/f").unwrap();
                assert_eq!((file.mode() & 0o7777, file.uid(), file.gid()), (0o4755, 7, 8));
                assert!(fs::symlink_metadata("/up/link").unwrap().is_symlink());
                assert_eq!(fs::metadata("/up").unwrap().mode() & 0o7777, 0o1750);
                has(&mounted("/up").unwrap().0, &["ro"]);
            });
            assert_eq!(fs::read_dir(up).unwrap().count(), 2);
        }
    }
}

alone! {
    fn a_readonly_root_with_nested_mounts_and_devices() {
        for present in ALL_APIS {
            for no_pivot in [false, true] {
                let mut bundle = Bundle::new();
                (bundle.present, bundle.no_pivot) = (present, no_pivot);
                bundle.spec["root"]["readonly"] = true.into();
                bundle.spec["mounts"][1]["options"] = json!(["nosuid", "mode=755", "ro"]);
                bundle.mount("/run", "tmpfs", "tmpfs", &["ro"]).mount("/run/in", "tmpfs", "tmpfs", &[]);
                bundle.spec["linux"]["devices"] = json!([
                    {"path": "/dev/mine", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640,
                     "uid": 5, "gid": 6},
                    {"path": "/other/pipe", "type": "p"},
                ]);
                bundle.run(|| {
                    has(&mounted("/").unwrap().0, &["ro"]);
                    has(&mounted("/dev").unwrap().0, &["ro", "nosuid"]);
                    has(&mounted("/run").unwrap().0, &["ro"]);
                    has(&mounted("/run/in").unwrap().0, &["rw"]);
                    let mine = fs::metadata("/dev/mine").unwrap();
                    assert_eq!((mine.mode() & 0o7777, mine.uid(), mine.gid()), (0o640, 5, 6));
                    assert!(fs::metadata("/other/pipe").unwrap().file_type().is_fifo());
                    assert!(fs::create_dir("/x").is_err());
                });
            }
        }
    }
}

alone! {
    fn the_image_has_devices_of_its_own() {
        let mut bundle = Bundle::new();
        bundle.spec["mounts"].as_array_mut().unwrap().truncate(1);
        let dev = bundle.path("rootfs/dev");
        fs::create_dir(&dev).unwrap();
        let made = Command::new("mknod").arg(dev.join("null")).args(["c", "1", "3"]).status().unwrap();
        assert!(made.success());
        bundle.run(|| assert!(Path::new("/dev/zero").exists()));
        fs::remove_file(dev.join("null")).unwrap();
        fs::write(dev.join("null"), "not a device").unwrap();
        assert!(bundle.refused().contains("device /dev/null: another file is there already"));
    }
}

alone! {
    /// P4: nothing but a procfs on /proc, through links neither.
    fn proc_and_sys_can_not_be_redirected() {
        let bundle = Bundle::new();
        fs::remove_dir(bundle.path("rootfs/proc")).unwrap();
        fs::create_dir(bundle.path("rootfs/bad")).unwrap();
        symlink("/bad", bundle.path("rootfs/proc")).unwrap();
        assert!(bundle.refused().contains("ordinary directory"));

        let mut bundle = Bundle::new();
        symlink("/bad", bundle.path("rootfs/sys")).unwrap();
        bundle.mount("/sys", "sysfs", "sysfs", &[]);
        assert!(bundle.refused().contains("ordinary directory"));

        for (destination, fstype, source, options) in [
            ("/proc", "bind", "can", &["bind"][..]),
            ("/proc/self/attr/current", "bind", "can/a", &["bind"][..]),
            ("/proc/1/x", "bind", "can/a", &["bind"][..]),
            ("//proc/.", "tmpfs", "t", &[][..]),
            ("/proc/../etc", "tmpfs", "t", &[][..]),
            ("/proc/cpuinfo", "tmpfs", "t", &[][..]),
            ("/", "tmpfs", "t", &[][..]),
        ] {
            let mut bundle = Bundle::new();
            let source = bundle.path(source).to_str().unwrap().to_owned();
            bundle.mount(destination, fstype, &source, options);
            let error = bundle.refused();
            assert!(error.contains("mounts[2]"), "{destination}: {error}");
        }

        // A link of the image that leads into the procfs.
        let mut bundle = Bundle::new();
        symlink("/proc/self", bundle.path("rootfs/game")).unwrap();
        bundle.bind("can/a", "/game/attr/current", &["bind"]);
        assert!(bundle.refused().contains("leads into /proc"));

        let mut bundle = Bundle::new();
        bundle.bind("can/a", "/proc/meminfo", &["bind"]);
        bundle.run(|| assert_eq!(fs::read_to_string("/proc/meminfo").unwrap(), "canary"));
        let mut bundle = Bundle::new();
        bundle.spec["mounts"][0] = json!({"destination": "/proc", "source": "/proc",
            "options": ["rbind"]});
        bundle.run(|| assert!(Path::new("/proc/self").exists()));
    }
}

alone! {
    /// P5 and its variants: a /dev or a destination that is a link means what it means in the container.
    fn links_of_the_image_lead_nowhere_else() {
        for with_dev in [true, false] {
            for target in ["absolute", "relative"] {
                for present in ALL_APIS {
                    let mut bundle = Bundle::new();
                    bundle.present = present;
                    let to = match target {
                        "absolute" => bundle.path("can"),
                        _ => PathBuf::from("../../../../../../..")
                            .join(bundle.path("can").strip_prefix("/").unwrap()),
                    };
                    symlink(&to, bundle.path("rootfs/dev")).unwrap();
                    symlink(&to, bundle.path("rootfs/link")).unwrap();
                    if !with_dev {
                        bundle.spec["mounts"].as_array_mut().unwrap().truncate(1);
                    }
                    bundle.bind("can", "/link/deep/er", &["bind", "ro"]);
                    bundle.bind("can/a", "/link/f", &["bind", "ro"]);
                    bundle.spec["linux"]["maskedPaths"] = json!(["/link/f"]);
                    bundle.run(|| {
                        assert!(Path::new("/dev/null").exists());
                        assert!(Path::new("/link/deep/er/a").exists());
                        assert_eq!(fs::read("/link/f").unwrap(), b"");
                    });
                }
            }
        }
    }
}

alone! {
    /// D1 and D6: the container's /dev/null is not what masks are made of.
    fn masks_do_not_come_from_the_container() {
        for present in ALL_APIS {
            let mut bundle = Bundle::new();
            bundle.present = present;
            fs::write(bundle.path("rootfs/etc/secret"), "s").unwrap();
            fs::write(bundle.path("rootfs/etc/secret2"), "s").unwrap();
            fs::create_dir_all(bundle.path("rootfs/etc/dir/in")).unwrap();
            fs::create_dir_all(bundle.path("rootfs/etc/dir2/in")).unwrap();
            symlink("/etc/secret2", bundle.path("rootfs/etc/alias")).unwrap();
            bundle.spec["linux"]["maskedPaths"] = json!(["/etc/secret", "/etc/alias", "/etc/secret",
                "/etc/dir", "/etc/dir2", "/etc/dir", "/nothing", "/etc/secret/x"]);
            bundle
                .start(
                    |root| {
                        // Some process of the container has replaced it.
                        let null = Path::new("dev/null");
                        nix::unistd::unlinkat(root.fd(), null, nix::unistd::UnlinkatFlags::NoRemoveDir)
                            .unwrap();
                        nix::unistd::symlinkat("/etc/passwd", root.fd(), null).unwrap();
                    },
                    || {
                        for file in ["/etc/secret", "/etc/secret2"] {
                            assert_eq!(fs::read(file).unwrap(), b"");
                            assert!(fs::metadata(file).unwrap().file_type().is_char_device());
                        }
                        for dir in ["/etc/dir", "/etc/dir2"] {
                            assert_eq!(fs::read_dir(dir).unwrap().count(), 0);
                            assert!(fs::write(format!("{dir}/x"), "").is_err());
                        }
                    },
                )
                .unwrap();
        }
        let mut bundle = Bundle::new();
        symlink("loop", bundle.path("rootfs/loop")).unwrap();
        bundle.spec["linux"]["maskedPaths"] = json!(["/loop"]);
        assert!(bundle.refused().contains("mask /loop"));
    }
}

alone! {
    fn the_kernel_says_what_it_does_not_like() {
        let mut bundle = Bundle::new();
        bundle.mount("/t", "tmpfs", "tmpfs", &["nosuchoption=1"]);
        let error = bundle.refused();
        assert!(error.contains("mounts[2]: mount tmpfs on /t: option \"nosuchoption=1\": tmpfs: Unknown parameter"), "{error}");
        let mut bundle = Bundle::new();
        bundle.mount("/t", "nosuchfs", "x", &[]);
        assert!(bundle.refused().contains("nosuchfs: no such device"));
        let mut bundle = Bundle::new();
        bundle.bind("absent", "/t", &["bind"]);
        assert!(bundle.refused().contains("no such file or directory"));
    }
}

alone! {
    fn cgroups_of_either_kind() {
        for (flags, namespace) in [(libc::CLONE_NEWCGROUP, true), (0, false)] {
            for options in [&["ro", "nosuid"][..], &[][..]] {
                for present in ALL_APIS {
                    let mut bundle = Bundle::new();
                    (bundle.present, bundle.flags) = (present, flags);
                    if namespace {
                        bundle.spec["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "pid"},
                            {"type": "cgroup"}]);
                    }
                    bundle.mount("/sys", "sysfs", "sysfs", &["ro"]);
                    bundle.mount("/sys/fs/cgroup", "cgroup", "cgroup", options);
                    bundle.run(|| {
                        let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
                        let below: Vec<_> =
                            text.lines().filter(|line| line.contains(" /sys/fs/cgroup")).collect();
                        assert!(!below.is_empty());
                        for line in below {
                            let options = line.split(' ').nth(5).unwrap();
                            let mode = if options.contains("ro") && !options.contains("rw") { "ro" } else { "rw" };
                            assert_eq!(mode == "ro", line_is_ro(line), "{line}");
                        }
                    });
                }
            }
        }
    }
}

fn line_is_ro(line: &str) -> bool {
    line.split(' ').nth(5).unwrap().split(',').any(|word| word == "ro")
}

alone! {
    fn the_terminal_becomes_the_console() {
        for present in ALL_APIS {
            for console in ["nothing", "link", "file"] {
                let mut bundle = Bundle::new();
                bundle.present = present;
                // No /dev mount: the image's own.
                bundle.spec["mounts"].as_array_mut().unwrap().truncate(1);
                fs::create_dir(bundle.path("rootfs/dev")).unwrap();
                let path = bundle.path("rootfs/dev/console");
                match console {
                    "link" => symlink(bundle.path("can/a"), path).unwrap(),
                    "file" => fs::write(path, "").unwrap(),
                    _ => {}
                }
                bundle.mount("/dev/pts", "devpts", "devpts", &["newinstance", "ptmxmode=0666"]);
                bundle
                    .start(
                        |root| {
                            let flags = nix::fcntl::OFlag::O_RDWR | nix::fcntl::OFlag::O_NOCTTY;
                            let open = |name: &str| {
                                nix::fcntl::openat(root.fd(), name, flags, Mode::empty()).unwrap()
                            };
                            let ptmx = open("dev/pts/ptmx");
                            // SAFETY: an ioctl that writes one integer.
                            assert_eq!(
                                unsafe { libc::ioctl(std::os::fd::AsRawFd::as_raw_fd(&ptmx), libc::TIOCSPTLCK, &0) },
                                0
                            );
                            let pty = open("dev/pts/0");
                            root.attach_console(pty.as_fd()).unwrap();
                        },
                        || {
                            let console = fs::metadata("/dev/console").unwrap();
                            assert!(console.file_type().is_char_device());
                            assert_eq!(libc::major(console.rdev()), 136);
                        },
                    )
                    .unwrap();
            }
        }
    }
}

alone! {
    fn identities_are_mapped() {
        for options in [&["bind", "idmap"][..], &["rbind", "ridmap"][..], &["bind"][..]] {
            let mut bundle = Bundle::new();
            bundle.moment = Some(Moment::Before);
            fs::create_dir(bundle.path("vol")).unwrap();
            std::os::unix::fs::chown(bundle.path("vol"), Some(3), Some(4)).unwrap();
            bundle.bind("vol", "/v", options);
            let mapping = json!([{"containerID": 0, "hostID": 1000, "size": 100}]);
            bundle.spec["mounts"][2]["uidMappings"] = mapping.clone();
            bundle.spec["mounts"][2]["gidMappings"] = mapping;
            bundle.run(|| {
                let seen = fs::metadata("/v").unwrap();
                assert_eq!((seen.uid(), seen.gid()), (1003, 1004));
            });
        }
    }
}

alone! {
    fn propagation_is_as_asked() {
        for word in
        ["shared", "rshared", "slave", "rslave", "private", "rprivate", "unbindable", "runbindable"]
    {
            for present in ALL_APIS {
                let mut bundle = Bundle::new();
                bundle.present = present;
                bundle.spec["linux"]["rootfsPropagation"] = word.into();
                bundle.bind("can", "/s", &["rbind", "rshared"]);
                bundle.spec["linux"]["readonlyPaths"] = json!(["/proc/bus", "/etc"]);
                bundle.spec["linux"]["maskedPaths"] = json!(["/bin", "/proc/keys"]);
                bundle.run(|| {
                    let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
                    let line = |point| text.lines().find(|line| line.split(' ').nth(4) == Some(point));
                    let fields = |line: &str| line.split(" - ").next().unwrap().to_owned();
                    let (root, bound) = (fields(line("/").unwrap()), fields(line("/s").unwrap()));
                    // The word is for the root, a recursive one for all that is mounted below, too.
                let all = ["rslave", "runbindable"].contains(&word);
                assert_eq!(bound.contains("shared:"), !all, "{word} {text}");
                    assert_eq!(root.contains("shared:"), word.ends_with("shared"), "{word} {text}");
                    assert_eq!(root.contains("unbindable"), word.ends_with("unbindable"), "{word} {text}");
                });
            }
        }
    }
}

alone! {
    /// Sources opened inside the child's mount namespace keep the host's flags locked: root of the
    /// container can't make a read-only mount of the host writable, nor look below what covers a
    /// directory. Directories of the host that the container's root may not enter are no obstacle.
    fn a_user_namespace_can_not_undo_the_hosts_flags() {
        use crate::sys::socket;
        use nix::mount::MsFlags;
        let mut bundle = Bundle::new();
        fs::create_dir_all(bundle.path("secret/vol")).unwrap();
        bundle.spec["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "pid"},
            {"type": "user"}]);
        bundle.bind("secret/vol", "/vol", &["rbind", "rprivate"]);
        bundle.bind("can/a", "/made/f", &["bind"]);
        bundle.mount("/sys", "sysfs", "sysfs", &["ro", "nosuid"]);
        bundle.spec["linux"]["maskedPaths"] = json!(["/etc/x", "/bin", "/made/f"]);
        for name in ["rootfs", "rootfs/etc", "rootfs/bin", "rootfs/proc"] {
            std::os::unix::fs::chown(bundle.path(name), Some(100_000), Some(100_000)).unwrap();
        }
        apart(|| {
            let none = None::<&str>;
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
            nix::mount::mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
            let flags = MsFlags::MS_RDONLY | MsFlags::MS_NODEV;
            let vol = bundle.path("secret/vol");
            nix::mount::mount(Some("t"), &vol, Some("tmpfs"), flags, none).unwrap();
            fs::set_permissions(bundle.path("secret"), fs::Permissions::from_mode(0o700)).unwrap();
            std::os::unix::fs::chown(bundle.path("secret"), Some(5), Some(5)).unwrap();
            let plan = bundle.plan().unwrap();
            let (ours, theirs) = socket::pair().unwrap();
            let (mut from, to) = pipe().map(|(r, w)| (File::from(r), File::from(w))).unwrap();
            let new = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWUSER;
            let args = CloneArgs { flags: new as u64, ..CloneArgs::default() };
            match clone3(&args).unwrap() {
                Cloned::Child => finish_apart(to, || {
                    let (_, fds) = socket::receive(&theirs, &mut [0; 8]).unwrap();
                    let sources = Sources::receive(&plan, fds).unwrap();
                    crate::userns::become_root().unwrap();
                    let mut root = assemble(&plan, sources, &Cgroups::None).unwrap();
                    root.pivot().unwrap();
                    root.finish().unwrap();
                    has(&mounted("/vol").unwrap().0, &["ro", "nodev"]);
                    has(&mounted("/sys").unwrap().0, &["ro", "nosuid"]);
                    assert_eq!(fs::metadata("/dev/null").unwrap().rdev(), libc::makedev(1, 3));
                    fs::write("/dev/null", "x").unwrap();
                    assert_eq!(fs::read("/made/f").unwrap(), b"");
                    let volume = path::open_host(Path::new("/vol")).unwrap();
                    for clear in [attr::RDONLY, attr::NODEV] {
                        let what = sys::MountAttr { clear, ..sys::MountAttr::default() };
                        let refused = sys::mount_setattr(&volume, false, &what);
                        assert_eq!(refused, Err(nix::errno::Errno::EPERM));
                    }
                }),
                Cloned::Parent(pid, pidfd) => {
                    drop(to);
                    for map in ["uid_map", "gid_map"] {
                        fs::write(format!("/proc/{pid}/{map}"), "0 100000 65536").unwrap();
                    }
                    let cwd = std::env::current_dir().unwrap();
                    let sources = Sources::open_in(&plan, &pidfd).unwrap();
                    assert_eq!(std::env::current_dir().unwrap(), cwd);
                    socket::send(&ours, b"x", &sources.fds()).unwrap();
                    let mut said = String::new();
                    from.read_to_string(&mut said).unwrap();
                    assert_eq!(waitpid(pid, None).unwrap(), WaitStatus::Exited(pid, 0), "{said}");
                }
            }
        });
        bundle.check_canary();
    }
}

alone! {
    /// P1, P2: another container swaps a directory of a shared volume for a link to the host while we
    /// mount below it. Whatever comes of it, nothing of the host is touched.
    fn a_racing_neighbour_gains_nothing() {
        use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
        for present in [NEW_API, OLD_API] {
            let mut bundle = Bundle::new();
            bundle.present = present;
            fs::create_dir_all(bundle.path("vol/x/m1")).unwrap();
            symlink(bundle.path("can"), bundle.path("vol/y")).unwrap();
            bundle.bind("vol", "/vol", &["rbind"]);
            bundle.mount("/vol/x/m1", "tmpfs", "t", &[]);
            bundle.mount("/vol/x/new/dir", "tmpfs", "t", &[]);
            bundle.bind("can/a", "/vol/x/newfile", &["bind", "ro"]);
            let (x, y) = (bundle.path("vol/x"), bundle.path("vol/y"));
            // SAFETY: the child makes system calls only, until it is killed.
            let racer = match unsafe { fork() }.unwrap() {
                ForkResult::Child => {
                    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).unwrap();
                    while renameat2(AT_FDCWD, &x, AT_FDCWD, &y, RenameFlags::RENAME_EXCHANGE).is_ok() {}
                    // SAFETY: ends the process.
                    unsafe { libc::_exit(1) }
                }
                ForkResult::Parent { child } => child,
            };
            let mut outcomes = [0, 0];
            for _ in 0..150 {
                // start() compares the canary and the host's mounts.
                match bundle.start(|_| {}, || {
                    let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
                    for line in text.lines() {
                        let point = line.split(' ').nth(4).unwrap();
                        let below = ["/proc", "/dev", "/vol"].iter().any(|top| point.starts_with(top));
                        // Inside, the link names a directory of the container's own.
                        assert!(below || point == "/" || point.contains("/can/"), "{text}");
                    }
                }) {
                    Ok(()) => outcomes[0] += 1,
                    Err(_) => outcomes[1] += 1,
                }
            }
            nix::sys::signal::kill(racer, nix::sys::signal::Signal::SIGKILL).unwrap();
            let killed = WaitStatus::Signaled(racer, nix::sys::signal::Signal::SIGKILL, false);
            assert_eq!(waitpid(racer, None).unwrap(), killed);
            assert!(outcomes[0] > 0, "{outcomes:?}");
        }
    }
}
