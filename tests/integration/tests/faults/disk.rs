//! R6 and R21: the state directory is full, has no inodes left or is read-only; the root file system
//! is a link, goes away, or lies on a mount that allows little.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use corten_integration::suite::Case;
use corten_integration::{Bundle, Test, tests};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::json;

use crate::subject::{Life, Subject};
use crate::tally::{self, Count};

pub(crate) const TESTS: &[Case] = tests![
    r6_no_space,
    r6_no_inodes,
    r6_full_while_it_lives,
    r6_read_only_while_it_lives,
    r21_root_on_a_mount_that_allows_little,
    r21_root_is_a_link_or_the_hosts,
    r21_root_is_deleted,
];

/// A file system of its own, taken away at the end.
struct Small(PathBuf);

impl Small {
    fn new(dir: &Path, options: &str) -> Self {
        fs::create_dir_all(dir).expect("make a directory");
        mount(Some("small"), dir, Some("tmpfs"), MsFlags::empty(), Some(options)).expect("mount");
        Self(dir.to_owned())
    }

    fn remount(&self, flags: MsFlags) {
        let none: Option<&str> = None;
        mount(none, &self.0, none, MsFlags::MS_REMOUNT | flags, none).expect("remount");
    }

    /// Uses what is left.
    fn fill(&self) {
        let _full = fs::write(self.0.join("filler"), vec![0; 1 << 20]);
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _gone = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

fn subject(t: &Test) -> Subject<'_> {
    t.skip_on_peers("leave things, or can't delete any more");
    let mut bundle = t.bundle();
    bundle.probe(&["report", ";", "sleep"]).limit("pids", json!({"limit": 50}));
    Subject::of(t, bundle)
}

/// The create fails with the errno and leaves nothing, or it works, and so does the rest.
fn small(t: &Test, options: &[String]) {
    let (subject, count) = (subject(t), Count::begin());
    for option in options {
        let _small = Small::new(&t.root(), option);
        tally::point(&subject, option, || {
            let out = subject.call(&["create", "-b", subject.bundle.path(), subject.id()]);
            if out.code != 0 {
                drop(out.fails_with(1).says("no space left on device"));
                subject.is_gone(option);
                return Ok(());
            }
            subject.call(&["start", subject.id()]).ok();
            subject.end(option);
            Ok(())
        });
    }
    count.end(t, "a small state directory");
}

fn r6_no_space(t: &Test) {
    small(t, &(1..10).map(|pages| format!("size={}k", pages * 4)).collect::<Vec<_>>());
}

fn r6_no_inodes(t: &Test) {
    small(t, &(1..10).map(|inodes| format!("nr_inodes={inodes}")).collect::<Vec<_>>());
}

/// It is filled when the container is there already: what needs no space works, an update that can't
/// be recorded is not in force, and delete works.
fn r6_full_while_it_lives(t: &Test) {
    t.needs_controller("pids");
    let (subject, count) = (subject(t), Count::begin());
    for life in [Life::Created, Life::Running, Life::Paused, Life::Stopped] {
        let disk = Small::new(&t.root(), "size=64k");
        let name = format!("full while {life:?}");
        tally::point(&subject, &name, || {
            subject.reach(life);
            disk.fill();
            let id = subject.id();
            if life == Life::Created {
                subject.call(&["start", id]).ok();
            }
            if matches!(life, Life::Created | Life::Running) {
                subject.call(&["exec", id, "/probe", "exit", "0"]).ok();
                let out = subject.call(&["update", "--pids-limit", "40", id]).fails_with(1);
                out.says("no space left on device");
                assert_eq!(subject.bundle.cgroup_file("pids", "pids.max"), "50");
            }
            subject.end(&name);
            Ok(())
        });
    }
    count.end(t, "a full state directory");
}

/// Then what was recorded can't be taken away: delete says so, has ended the container, and can be
/// repeated.
fn r6_read_only_while_it_lives(t: &Test) {
    let (subject, count) = (subject(t), Count::begin());
    let disk = Small::new(&t.root(), "size=64k");
    for life in [Life::Created, Life::Running, Life::Stopped] {
        let name = format!("read-only while {life:?}");
        tally::point(&subject, &name, || {
            subject.reach(life);
            disk.remount(MsFlags::MS_RDONLY);
            let id = subject.id();
            let asked = subject.status();
            let out = subject.call(&["delete", "--force", id]);
            let created = subject.call(&["create", "-b", subject.bundle.path(), "other"]);
            disk.remount(MsFlags::empty());
            assert!(!asked.is_empty(), "state works");
            out.fails_with(1).says("read-only file system");
            created.fails_with(1).says("read-only file system");
            assert_eq!(subject.status(), "stopped");
            subject.call(&["delete", id]).ok();
            subject.is_gone(&name);
            Ok(())
        });
    }
    count.end(t, "a read-only state directory");
}

/// nosuid, nodev and noexec of the file system that the root is on: the last one lets nothing run,
/// and start or create says so.
fn r21_root_on_a_mount_that_allows_little(t: &Test) {
    let flags = [
        (MsFlags::MS_NOSUID | MsFlags::MS_NODEV, true),
        (MsFlags::MS_RDONLY, true),
        (MsFlags::MS_NOEXEC, false),
    ];
    for (flags, works) in flags {
        let mut b = t.bundle();
        let disk = Small::new(&t.dir.join(format!("disk{}", t.next())), "size=16m");
        let root = disk.0.join("rootfs");
        move_root(&b, &root);
        b.set("root.path", json!(root)).probe(&["exit", "0"]);
        disk.remount(flags);
        let out = t.run(&b);
        if works {
            out.ok();
        } else {
            out.fails().says("permission denied");
        }
        disk.remount(MsFlags::empty());
        t.nothing_left(&b);
    }
}

fn move_root(b: &Bundle, to: &Path) {
    let status = std::process::Command::new("cp").arg("-a").arg(b.rootfs()).arg(to).status();
    assert!(status.is_ok_and(|status| status.success()), "copy the root file system");
}

/// A link to a root is followed, as it is the administrator's. The host's own root can be a
/// container's, and nothing of the host changes.
fn r21_root_is_a_link_or_the_hosts(t: &Test) {
    let mut b = t.bundle();
    let link = t.dir.join("link");
    symlink(b.rootfs(), &link).expect("make a link");
    b.set("root.path", json!(link)).probe(&["exit", "0"]);
    t.run(&b).ok();
    let mounts =
        || fs::read_to_string("/proc/self/mountinfo").expect("read the mounts").lines().count();
    // runc makes the host's ptmx a link.
    let dev = || {
        let entries = fs::read_dir("/dev").expect("read /dev").flatten();
        let kind = |entry: fs::DirEntry| (entry.file_name(), entry.file_type().ok());
        entries.map(kind).map(|entry| format!("{entry:?}")).collect::<BTreeSet<String>>()
    };
    t.skip_on_peers("change the host's /dev");
    let before = (mounts(), dev());
    let mut b = t.bundle();
    b.set("root", json!({"path": "/", "readonly": true})).args(&["/bin/true"]);
    b.set("mounts", json!([{"destination": "/proc", "type": "proc", "source": "proc"}]));
    b.unset("linux.maskedPaths").unset("linux.readonlyPaths");
    let out = t.run(&b);
    assert!(out.code == 0 || out.code == 1, "{out}");
    assert_eq!((mounts(), dev()), before);
    t.nothing_left(&b);
}

/// The root goes away while the container lives, and before delete.
fn r21_root_is_deleted(t: &Test) {
    let subject = subject(t);
    subject.reach(Life::Running);
    fs::remove_dir_all(&subject.bundle.dir).expect("remove the bundle");
    assert_eq!(subject.status(), "running");
    subject.end("a bundle that is gone");
}
