//! Images that lead elsewhere by links and dots.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use corten_integration::suite::Case;
use corten_integration::{Flavour, Test, tests};

use crate::mount_at;

pub(crate) const TESTS: &[Case] = tests![
    symlink_destination_stays_inside,
    symlink_component_stays_inside,
    symlink_dangling_destination_works,
    symlink_loop_is_refused,
    symlink_dev_stays_inside,
    symlink_proc_is_refused,
    dots_stay_inside,
    mount_over_proc_is_refused,
    mount_over_proc_files_of_the_allowed_list,
];

/// A directory of the host that must never change.
fn canary(t: &Test) -> String {
    let dir = t.dir.join("canary");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("a"), "untouched").unwrap();
    dir.to_str().unwrap().to_owned()
}

#[track_caller]
fn unharmed(canary: &str) {
    let names: Vec<_> = fs::read_dir(canary).unwrap().flatten().map(|e| e.file_name()).collect();
    assert_eq!(names, ["a"], "the host's directory has changed");
    assert_eq!(fs::read_to_string(Path::new(canary).join("a")).unwrap(), "untouched");
}

/// CVE-2019-18837: a destination that is a link, absolute or with dots, ends inside.
fn symlink_destination_stays_inside(t: &Test) {
    let canary = canary(t);
    for target in [canary.clone(), format!("../../../../../../../..{canary}")] {
        let mut b = t.bundle();
        symlink(&target, b.rootfs().join("link")).unwrap();
        b.directory(&canary);
        b.mount("/link", "tmpfs", "tmpfs", &[]).probe(&[
            "create",
            &format!("{canary}/made"),
            "",
            ";",
            "report",
            "mounts",
        ]);
        let out = t.run(&b).ok();
        assert_eq!(mount_at(&out.fact(1), &canary)["type"], "tmpfs");
        unharmed(&canary);
    }
}

/// The same for a component on the way; what is made is made inside.
fn symlink_component_stays_inside(t: &Test) {
    let canary = canary(t);
    let mut b = t.bundle();
    symlink(&canary, b.rootfs().join("link")).unwrap();
    b.directory(&canary);
    b.mount("/link/new/dir", "tmpfs", "tmpfs", &[]);
    b.mount("/link/file", "bind", "/etc/hostname", &["bind"]);
    t.run(&b).ok();
    unharmed(&canary);
    assert!(b.rootfs().join(canary.trim_start_matches('/')).join("new/dir").is_dir());
}

/// Images have dangling links in destinations; they are completed inside.
fn symlink_dangling_destination_works(t: &Test) {
    let canary = canary(t);
    let mut b = t.bundle();
    symlink(format!("{canary}/absent"), b.rootfs().join("dangling")).unwrap();
    b.mount("/dangling", "tmpfs", "tmpfs", &[]).mount("/dangling/x", "tmpfs", "tmpfs", &[]);
    t.run(&b).ok();
    unharmed(&canary);
}

/// A loop is ELOOP, not a hang.
fn symlink_loop_is_refused(t: &Test) {
    let mut b = t.bundle();
    symlink("loop", b.rootfs().join("loop")).unwrap();
    b.mount("/loop", "tmpfs", "tmpfs", &[]);
    t.create_fails(&b).says("too many|loop");
}

/// CVE-2026-41579: /dev as a link to a host path must not make links or nodes there.
fn symlink_dev_stays_inside(t: &Test) {
    t.skip_on_peers("affected");
    let canary = canary(t);
    fs::remove_file(Path::new(&canary).join("a")).unwrap();
    fs::write(Path::new(&canary).join("a"), "untouched").unwrap();
    for with_mount in [true, false] {
        let mut b = t.bundle();
        fs::remove_dir(b.rootfs().join("dev")).unwrap();
        symlink(&canary, b.rootfs().join("dev")).unwrap();
        if !with_mount {
            for point in ["/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"] {
                b.unmount(point);
            }
        }
        t.run(&b);
        unharmed(&canary);
    }
}

/// CVE-2019-19921: proc and sysfs want an ordinary directory.
fn symlink_proc_is_refused(t: &Test) {
    t.skip_on(Flavour::Crun, "1.8 mounts it inside");
    for name in ["proc", "sys"] {
        let b = t.bundle();
        fs::remove_dir(b.rootfs().join(name)).unwrap();
        b.directory("/elsewhere");
        symlink("elsewhere", b.rootfs().join(name)).unwrap();
        t.create_fails(&b);
    }
}

/// ".." in a destination ends at the root.
fn dots_stay_inside(t: &Test) {
    let canary = canary(t);
    let mut b = t.bundle();
    b.mount(&format!("/../../../..{canary}/x"), "tmpfs", "tmpfs", &[]);
    t.run(&b).ok();
    unharmed(&canary);
}

/// What is bound over /proc could feed the runtime false files.
fn mount_over_proc_is_refused(t: &Test) {
    t.skip_on(Flavour::Crun, "uses a proc of its own instead");
    let source = t.dir.join("fake");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("f"), "").unwrap();
    let file = source.join("f");
    for (point, from) in [
        ("/proc", &source),
        ("/proc/self/attr/current", &file),
        ("/proc/1/status", &file),
        ("/proc/sys/kernel/hostname", &file),
        ("/proc/../proc", &source),
        ("//proc/.", &source),
    ] {
        let mut b = t.bundle();
        b.mount(point, "bind", from.to_str().unwrap(), &["bind"]);
        t.create_fails(&b).says("proc");
    }
    t.skip_on(Flavour::Runc, "1.1 looks at binds only");
    let mut b = t.bundle();
    b.mount("/proc/bus", "tmpfs", "tmpfs", &[]);
    t.create_fails(&b).says("proc");
}

/// lxcfs binds over a few files of /proc; those are allowed.
fn mount_over_proc_files_of_the_allowed_list(t: &Test) {
    let file = t.dir.join("fake");
    fs::write(&file, "fake\n").unwrap();
    let mut b = t.bundle();
    for name in ["cpuinfo", "meminfo", "stat", "uptime", "loadavg", "swaps", "diskstats"] {
        b.mount(&format!("/proc/{name}"), "bind", file.to_str().unwrap(), &["bind", "ro"]);
    }
    b.probe(&["read", "/proc/meminfo", ";", "read", "/proc/uptime"]);
    let out = t.run(&b).ok();
    assert_eq!(out.fact(0)["value"], "fake\n");
    assert_eq!(out.fact(1)["value"], "fake\n");
}
