//! Options of mounts: flags, recursive ones, propagation, idmapped ones.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use corten_integration::suite::Case;
use corten_integration::{Flavour, Test, tests};
use serde_json::{Value, json};

use crate::{as_user, has, mount, mount_at, source, umount, words};

pub(crate) const TESTS: &[Case] = tests![
    option_flags_of_a_tmpfs,
    option_flags_of_a_bind,
    option_clearing_words,
    option_recursive_attributes,
    option_ro_of_an_rbind_is_not_recursive,
    option_propagation,
    option_nosymfollow,
    option_last_one_wins,
    idmap_bind,
    idmap_in_a_user_namespace,
    idmap_recursive,
];

/// Every flag of the specification that a tmpfs can show.
fn option_flags_of_a_tmpfs(t: &Test) {
    let flags = [
        "ro",
        "nosuid",
        "nodev",
        "noexec",
        "noatime",
        "nodiratime",
        "relatime",
        "sync",
        "dirsync",
        "lazytime",
    ];
    let mut b = t.bundle();
    let known = |flag: &str| t.flavour == Flavour::Corten || flag != "lazytime";
    for flag in flags.iter().filter(|flag| known(flag)) {
        b.mount(&format!("/f/{flag}"), "tmpfs", "tmpfs", &[flag]);
    }
    let seen = t.report(&b);
    for flag in flags.iter().filter(|flag| known(flag)) {
        let mount = mount_at(&seen, &format!("/f/{flag}"));
        let everywhere = [words(mount, "options"), words(mount, "super")].concat();
        assert!(everywhere.contains(&(*flag).to_owned()), "{flag}: {mount}");
    }
    let mut b = t.bundle();
    b.mount("/f", "tmpfs", "tmpfs", &["strictatime"]);
    let seen = t.report(&b);
    let options = words(mount_at(&seen, "/f"), "options");
    assert!(!options.iter().any(|o| o == "relatime" || o == "noatime"), "{options:?}");
}

/// The same flags on a bind mount, whose source doesn't change.
fn option_flags_of_a_bind(t: &Test) {
    let source = source(t);
    let flags = ["ro", "nosuid", "nodev", "noexec", "noatime", "nodiratime"];
    let mut b = t.bundle();
    for flag in flags {
        b.mount(&format!("/f/{flag}"), "bind", &source, &["bind", flag]);
    }
    b.probe(&["report", "mounts", ";", "create", "/f/ro/x", "", ";", "create", "/f/nosuid/x", ""]);
    let out = t.run(&b).ok();
    for flag in flags {
        assert!(has(mount_at(&out.fact(0), &format!("/f/{flag}")), flag), "{flag}");
    }
    assert_eq!(out.fact(1)["errno"], "EROFS");
    assert_eq!(out.fact(2)["ok"], true);
    umount(t, &format!("{source}/sub"));
}

/// rw, suid, dev, exec, atime ... take a flag back; defaults, loud, silent and others do no harm.
fn option_clearing_words(t: &Test) {
    let mut b = t.bundle();
    for (flag, word) in [
        ("ro", "rw"),
        ("nosuid", "suid"),
        ("nodev", "dev"),
        ("noexec", "exec"),
        ("noatime", "atime"),
        ("nodiratime", "diratime"),
        ("sync", "async"),
    ] {
        b.mount(&format!("/c/{flag}"), "tmpfs", "tmpfs", &[flag, word]);
    }
    if t.flavour == Flavour::Corten {
        b.mount("/c/plain", "tmpfs", "tmpfs", &["defaults"]);
        let odd =
            ["norelatime", "nostrictatime", "nomand", "nolazytime", "noiversion", "loud", "silent"];
        b.mount("/c/odd", "tmpfs", "tmpfs", &odd);
    }
    let seen = t.report(&b);
    for flag in ["ro", "nosuid", "nodev", "noexec", "noatime", "nodiratime", "sync"] {
        let mount = mount_at(&seen, &format!("/c/{flag}"));
        let everywhere = [words(mount, "options"), words(mount, "super")].concat();
        assert!(!everywhere.contains(&flag.to_owned()), "{flag}: {mount}");
    }
}

/// rro, rnosuid ...: the flag holds for the submount too (mount_setattr with AT_RECURSIVE).
fn option_recursive_attributes(t: &Test) {
    t.skip_on(Flavour::Crun, "1.8 has them under conditions");
    let source = source(t);
    let flags = ["ro", "nosuid", "nodev", "noexec", "nodiratime", "noatime"];
    let mut b = t.bundle();
    for flag in flags {
        b.mount(&format!("/r/{flag}"), "bind", &source, &["rbind", &format!("r{flag}")]);
        if flag == "noatime" && t.flavour != Flavour::Corten {
            continue; // EINVAL: they don't clear the other access-time modes.
        }
        let back = if flag == "ro" { "rrw".to_owned() } else { format!("r{}", &flag[2..]) };
        b.mount(&format!("/w/{flag}"), "bind", &source, &["rbind", flag, &back]);
    }
    b.mount("/r/strictatime", "bind", &source, &["rbind", "rstrictatime"]);
    b.mount("/r/relatime", "bind", &source, &["rbind", "rrelatime"]);
    let seen = t.report(&b);
    for flag in flags {
        for place in ["", "/sub"] {
            assert!(has(mount_at(&seen, &format!("/r/{flag}{place}")), flag), "r{flag}{place}");
            if flag != "noatime" || t.flavour == Flavour::Corten {
                let mount = mount_at(&seen, &format!("/w/{flag}{place}"));
                assert!(!has(mount, flag), "not {flag}{place}: {mount}");
            }
        }
    }
    assert!(has(mount_at(&seen, "/r/relatime/sub"), "relatime"));
    let strict = words(mount_at(&seen, "/r/strictatime/sub"), "options");
    assert!(!strict.iter().any(|o| o == "relatime" || o == "noatime"), "{strict:?}");
    umount(t, &format!("{source}/sub"));
}

/// Plain ro is for the top mount only.
fn option_ro_of_an_rbind_is_not_recursive(t: &Test) {
    let source = source(t);
    let mut b = t.bundle();
    b.mount("/r", "bind", &source, &["rbind", "ro"]);
    b.probe(&["create", "/r/x", "", ";", "create", "/r/sub/x", ""]);
    let out = t.run(&b).ok();
    assert_eq!(out.fact(0)["errno"], "EROFS");
    assert_eq!(out.fact(1)["ok"], true);
    umount(t, &format!("{source}/sub"));
}

/// shared, slave, private, unbindable and the recursive ones.
fn option_propagation(t: &Test) {
    let source = source(t);
    let mut b = t.bundle();
    for word in ["shared", "rshared", "private", "rprivate", "unbindable", "runbindable"] {
        b.mount(&format!("/p/{word}"), "bind", &source, &["rbind", word]);
    }
    let seen = t.report(&b);
    let optional = |point: &str| words(mount_at(&seen, point), "optional").join(" ");
    for word in ["shared", "unbindable", "rshared", "runbindable"] {
        let kind = word.trim_start_matches('r');
        assert!(optional(&format!("/p/{word}")).contains(kind), "{word}");
        let below = optional(&format!("/p/{word}/sub")).contains(kind);
        assert_eq!(below, word.starts_with('r'), "{word}/sub");
    }
    for word in ["private", "rprivate"] {
        assert_eq!(optional(&format!("/p/{word}")), "", "{word}");
    }
    umount(t, &format!("{source}/sub"));
}

/// nosymfollow: links on the mount aren't followed.
fn option_nosymfollow(t: &Test) {
    t.skip_on_peers("older than nosymfollow");
    let source = source(t);
    symlink("file", Path::new(&source).join("link")).unwrap();
    let mut b = t.bundle();
    b.mount("/s", "bind", &source, &["bind", "nosymfollow"]);
    b.probe(&["read", "/s/link", ";", "read", "/s/file"]);
    let out = t.run(&b).ok();
    assert_eq!(out.fact(0)["errno"], "ELOOP");
    assert_eq!(out.fact(1)["ok"], true);
    umount(t, &format!("{source}/sub"));
}

/// Of opposite words the last one counts.
fn option_last_one_wins(t: &Test) {
    let mut b = t.bundle();
    b.mount("/x", "tmpfs", "tmpfs", &["rw", "ro", "rw", "exec", "noexec"]);
    let seen = t.report(&b);
    assert!(has(mount_at(&seen, "/x"), "rw") && has(mount_at(&seen, "/x"), "noexec"));
}

fn maps(host: u32) -> Value {
    json!([{"containerID": 0, "hostID": host, "size": 65536}])
}

/// A bind with its own mapping: uid 0 on disk is that id here.
fn idmap_bind(t: &Test) {
    t.skip_on_peers("older than idmapped mounts");
    let dir = t.dir.join("mapped");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("f"), "").unwrap();
    let mut b = t.bundle();
    b.push(
        "mounts",
        json!({"destination": "/m", "type": "bind", "source": dir, "options": ["bind", "idmap"],
        "uidMappings": maps(5000), "gidMappings": maps(6000)}),
    );
    b.probe(&["stat", "/m/f"]);
    let node = t.run(&b).ok().fact(0)["value"].clone();
    assert_eq!((&node["uid"], &node["gid"]), (&json!(5000), &json!(6000)));
}

/// idmap without a mapping takes the container's: root's files on disk are root's inside.
fn idmap_in_a_user_namespace(t: &Test) {
    t.skip_on_peers("older than idmapped mounts");
    let dir = t.dir.join("mapped");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("f"), "").unwrap();
    let mut b = t.bundle();
    as_user(&mut b);
    b.mount("/m", "bind", dir.to_str().unwrap(), &["bind", "idmap"]);
    b.mount("/n", "bind", dir.to_str().unwrap(), &["bind"]);
    b.probe(&["stat", "/m/f", ";", "create", "/m/new", "", ";", "stat", "/n/f"]);
    let out = t.run(&b).ok();
    assert_eq!(out.fact(0)["value"]["uid"], 0);
    assert_eq!(out.fact(1)["ok"], true);
    assert_eq!(out.fact(2)["value"]["uid"], 65534);
    use std::os::unix::fs::MetadataExt;
    assert_eq!(fs::metadata(dir.join("new")).unwrap().uid(), 0);
}

/// ridmap maps submounts too.
fn idmap_recursive(t: &Test) {
    t.skip_on_peers("older than idmapped mounts");
    let source = source(t);
    // A tmpfs can be mapped since Linux 6.3.
    let (other, sub) = (t.dir.join("other"), format!("{source}/sub"));
    fs::create_dir(&other).unwrap();
    fs::write(other.join("inner"), "inner").unwrap();
    umount(t, &sub);
    mount(t, &["--bind", other.to_str().unwrap(), &sub]);
    let mut b = t.bundle();
    b.push("mounts", json!({"destination": "/m", "type": "bind", "source": source, "options": ["rbind", "ridmap"],
        "uidMappings": maps(5000), "gidMappings": maps(5000)}));
    b.probe(&["stat", "/m/file", ";", "stat", "/m/sub/inner"]);
    let out = t.run(&b).ok();
    assert_eq!(out.fact(0)["value"]["uid"], 5000);
    assert_eq!(out.fact(1)["value"]["uid"], 5000);
    umount(t, &sub);
}
