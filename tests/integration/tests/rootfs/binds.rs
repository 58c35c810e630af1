//! Binds of directories and files.

use std::fs;

use corten_integration::suite::Case;
use corten_integration::{Flavour, Test, tests};

use crate::{as_user, has, mount, mount_at, source, umount};

pub(crate) const TESTS: &[Case] = tests![
    bind_of_a_directory_and_of_a_file,
    bind_does_not_carry_submounts_rbind_does,
    bind_makes_the_target,
    bind_of_an_absent_source_is_refused,
    bind_of_a_relative_source_starts_in_the_bundle,
    bind_of_a_directory_on_a_file_is_refused,
    bind_read_only_keeps_the_sources_flags,
    bind_of_a_file_with_odd_names,
];

/// Both kinds, reading and writing through.
fn bind_of_a_directory_and_of_a_file(t: &Test) {
    let dir = t.dir.join("shared");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("file"), "from the host").unwrap();
    let mut b = t.bundle();
    b.mount("/d", "bind", dir.to_str().unwrap(), &["bind"]);
    b.mount("/etc/f", "bind", dir.join("file").to_str().unwrap(), &["bind", "ro"]);
    b.probe(&["read", "/etc/f", ";", "create", "/d/new", "back", ";", "write", "/etc/f", "x"]);
    let out = t.run(&b).ok();
    assert_eq!(out.fact(0)["value"], "from the host");
    assert_eq!(out.fact(2)["errno"], "EROFS");
    assert_eq!(fs::read_to_string(dir.join("new")).unwrap(), "back");
}

/// bind is one mount, rbind a tree.
fn bind_does_not_carry_submounts_rbind_does(t: &Test) {
    let source = source(t);
    let mut b = t.bundle();
    b.mount("/b", "bind", &source, &["bind"]).mount("/r", "bind", &source, &["rbind"]);
    b.probe(&["open", "/b/sub/inner", ";", "open", "/r/sub/inner"]);
    let out = t.run(&b).ok();
    assert_eq!(out.fact(0)["errno"], "ENOENT");
    assert_eq!(out.fact(1)["ok"], true);
    umount(t, &format!("{source}/sub"));
}

/// A missing target is made, a directory or a file like the source, with its parents.
fn bind_makes_the_target(t: &Test) {
    let mut b = t.bundle();
    let file = t.dir.join("plain");
    fs::write(&file, "p").unwrap();
    b.mount("/deep/er/dir", "bind", t.dir.to_str().unwrap(), &["bind"]);
    b.mount("/deep/er/file", "bind", file.to_str().unwrap(), &["bind"]);
    b.probe(&["read", "/deep/er/file", ";", "ls", "/deep/er/dir"]);
    let out = t.run(&b).ok();
    assert_eq!(out.fact(0)["value"], "p");
    assert_eq!(out.fact(1)["ok"], true);
}

/// A source is never made.
fn bind_of_an_absent_source_is_refused(t: &Test) {
    let mut b = t.bundle();
    let absent = t.dir.join("absent");
    b.mount("/x", "bind", absent.to_str().unwrap(), &["bind"]);
    t.create_fails(&b).says("no such file or directory");
    assert!(!absent.exists());
}

/// Relative sources are the bundle's.
fn bind_of_a_relative_source_starts_in_the_bundle(t: &Test) {
    let mut b = t.bundle();
    fs::create_dir(b.dir.join("data")).unwrap();
    fs::write(b.dir.join("data/x"), "bundled").unwrap();
    b.mount("/x", "bind", "data/x", &["bind"]).probe(&["read", "/x"]);
    assert_eq!(t.run(&b).ok().fact(0)["value"], "bundled");
}

/// A directory can't cover a file.
fn bind_of_a_directory_on_a_file_is_refused(t: &Test) {
    let mut b = t.bundle();
    b.mount("/etc/passwd", "bind", t.dir.to_str().unwrap(), &["bind"]);
    t.create_fails(&b).says("not a directory");
}

/// Flags that a user namespace may not clear are kept when a bind is made read-only.
fn bind_read_only_keeps_the_sources_flags(t: &Test) {
    t.skip_on(Flavour::Runc, "1.1 fails with EPERM");
    let dir = t.dir.join("flags");
    fs::create_dir(&dir).unwrap();
    mount(
        t,
        &[
            "-t",
            "tmpfs",
            "-o",
            "nosuid,nodev,noexec,noatime,mode=0755",
            "flags",
            dir.to_str().unwrap(),
        ],
    );
    let mut b = t.bundle();
    as_user(&mut b);
    b.mount("/x", "bind", dir.to_str().unwrap(), &["bind", "ro"]);
    let seen = t.report(&b);
    for flag in ["ro", "nosuid", "nodev", "noexec", "noatime"] {
        assert!(has(mount_at(&seen, "/x"), flag), "{flag}");
    }
    umount(t, dir.to_str().unwrap());
}

/// Spaces, commas, non-ASCII and a newline are only bytes.
fn bind_of_a_file_with_odd_names(t: &Test) {
    let mut b = t.bundle();
    for name in ["two words", "com,ma=x", "ümläut", "new\nline", "back\\slash"] {
        let dir = t.dir.join(name);
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("f"), name).unwrap();
        b.mount(&format!("/o/{name}"), "bind", dir.to_str().unwrap(), &["bind"]);
    }
    b.probe(&[
        "read",
        "/o/two words/f",
        ";",
        "read",
        "/o/com,ma=x/f",
        ";",
        "read",
        "/o/new\nline/f",
    ]);
    let out = t.run(&b).ok();
    assert_eq!(out.fact(0)["value"], "two words");
    assert_eq!(out.fact(1)["value"], "com,ma=x");
    assert_eq!(out.fact(2)["value"], "new\nline");
}
