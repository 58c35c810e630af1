//! The container's file system: root, mounts with all options, devices, masked and read-only paths.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, ExitCode};

use corten_integration::{Bundle, Flavour, Test, suite, tests};
use serde_json::{Value, json};

fn main() -> ExitCode {
    suite(tests![
        root_is_the_rootfs_and_nothing_else,
        root_readonly,
        root_readonly_leaves_other_mounts_writable,
        root_absent_is_refused,
        root_that_is_a_file_is_refused,
        root_may_be_a_mount_point,
        root_propagation,
        root_propagation_unknown_is_refused,
        root_propagation_slave_receives_and_private_does_not,
        no_pivot_works,
        host_sees_none_of_the_mounts,
        mounts_are_in_order,
        mounts_of_every_type,
        mount_without_options_type_or_source,
        mount_relative_destination_is_from_the_root,
        mount_at_root_is_refused,
        mount_of_unknown_type_is_refused,
        mount_unknown_option_goes_to_the_file_system,
        option_flags_of_a_tmpfs,
        option_flags_of_a_bind,
        option_clearing_words,
        option_recursive_attributes,
        option_ro_of_an_rbind_is_not_recursive,
        option_propagation,
        option_nosymfollow,
        option_last_one_wins,
        bind_of_a_directory_and_of_a_file,
        bind_does_not_carry_submounts_rbind_does,
        bind_makes_the_target,
        bind_of_an_absent_source_is_refused,
        bind_of_a_relative_source_starts_in_the_bundle,
        bind_of_a_directory_on_a_file_is_refused,
        bind_read_only_keeps_the_sources_flags,
        bind_of_a_file_with_odd_names,
        tmpfs_size_mode_and_owner,
        tmpfs_mode_is_the_directorys,
        tmpfs_copy_up,
        proc_options,
        sysfs_is_read_only,
        cgroup_mount_v1,
        cgroup_mount_v1_in_a_cgroup_namespace,
        cgroup_mount_is_read_only,
        idmap_bind,
        idmap_in_a_user_namespace,
        idmap_recursive,
        symlink_destination_stays_inside,
        symlink_component_stays_inside,
        symlink_dangling_destination_works,
        symlink_loop_is_refused,
        symlink_dev_stays_inside,
        symlink_proc_is_refused,
        dots_stay_inside,
        mount_over_proc_is_refused,
        mount_over_proc_files_of_the_allowed_list,
        masked_files_are_empty,
        masked_directories_are_empty_and_read_only,
        masked_absent_paths_are_ignored,
        masked_path_does_not_trust_the_containers_dev_null,
        readonly_paths,
        readonly_absent_paths_are_ignored,
        readonly_keeps_flags,
        devices_default_nodes_and_links,
        devices_of_the_config,
        devices_in_directories,
        devices_existing_wrong_node_is_refused,
        devices_existing_right_node_is_fine,
        devices_bad_ones_are_refused,
        dev_without_a_mount,
        dev_bound_from_the_host_is_left_alone,
        overlay_as_a_root,
    ])
}

fn mount_at<'a>(seen: &'a Value, point: &str) -> &'a Value {
    let all = seen["mounts"].as_array().unwrap();
    all.iter().rfind(|m| m["point"] == point).unwrap_or_else(|| {
        let points: Vec<_> = all.iter().map(|m| &m["point"]).collect();
        panic!("no mount at {point}: {points:?}")
    })
}

fn words(mount: &Value, key: &str) -> Vec<String> {
    serde_json::from_value(mount[key].clone()).unwrap()
}

fn has(mount: &Value, option: &str) -> bool {
    words(mount, "options").iter().any(|o| o == option)
}

/// A directory outside of the bundle with a file and a submount that has a file.
fn source(t: &Test) -> String {
    let dir = t.dir.join("source");
    fs::create_dir_all(dir.join("sub")).unwrap();
    fs::write(dir.join("file"), "content").unwrap();
    mount(t, &["-t", "tmpfs", "corten-test", dir.join("sub").to_str().unwrap()]);
    fs::write(dir.join("sub/inner"), "inner").unwrap();
    dir.to_str().unwrap().to_owned()
}

fn mount(t: &Test, args: &[&str]) {
    let mut command = Command::new("mount");
    command.args(args);
    t.execute(command).ok();
}

fn umount(t: &Test, path: &str) {
    let mut command = Command::new("umount");
    command.args(["-l", path]);
    t.execute(command).ok();
}

fn as_user(b: &mut Bundle) {
    b.namespace("user", None)
        .set("linux.uidMappings", json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]))
        .set("linux.gidMappings", json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]));
    std::os::unix::fs::chown(b.rootfs(), Some(100_000), Some(100_000)).unwrap();
}

/// "/" is the root file system, ".." ends there, and no mount of the host is to be seen.
fn root_is_the_rootfs_and_nothing_else(t: &Test) {
    let mut b = t.bundle();
    b.file("/only-here", "");
    b.probe(&["report", "mounts", ";", "ls", "/../../.."]);
    let out = t.run(&b).ok();
    let report = out.fact(0);
    let mut points: Vec<String> = report["mounts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["point"].as_str().unwrap().to_owned())
        .collect();
    points.sort();
    points.dedup();
    let known = ["/", "/proc", "/dev", "/sys"];
    assert!(
        points.iter().all(|p| known.iter().any(|k| p == k || p.starts_with(&format!("{k}/")))),
        "{points:?}"
    );
    assert!(out.fact(1)["value"]["only-here"].is_object());
    assert!(
        !out.stdout.contains(t.dir.to_str().unwrap().trim_start_matches("/tmp/"))
            || mount_at(&report, "/")["root"].as_str().is_some()
    );
}

/// root.readonly: nothing can be written.
fn root_readonly(t: &Test) {
    let mut b = t.bundle();
    b.set("root.readonly", json!(true)).probe(&[
        "create",
        "/new",
        "",
        ";",
        "append",
        "/etc/passwd",
        "x",
        ";",
        "report",
        "mounts",
    ]);
    let out = t.run(&b).ok();
    assert_eq!(out.fact(0)["errno"], "EROFS");
    assert_eq!(out.fact(1)["errno"], "EROFS");
    assert!(has(mount_at(&out.fact(2), "/"), "ro"));
}

/// Other mounts are as the config says.
fn root_readonly_leaves_other_mounts_writable(t: &Test) {
    let mut b = t.bundle();
    b.set("root.readonly", json!(true)).mount("/tmp", "tmpfs", "tmpfs", &[]);
    b.probe(&["create", "/tmp/x", "", ";", "create", "/dev/x", ""]);
    let out = t.run(&b).ok();
    assert_eq!(out.fact(0)["ok"], true);
    assert_eq!(out.fact(1)["ok"], true);
}

/// A root file system that isn't there is an error that names it.
fn root_absent_is_refused(t: &Test) {
    let mut b = t.bundle();
    b.set("root.path", json!("absent"));
    t.create_fails(&b).says("absent");
    let mut b = t.bundle();
    b.set("root.path", json!(""));
    t.create_fails(&b);
}

/// A file can't be a root.
fn root_that_is_a_file_is_refused(t: &Test) {
    let mut b = t.bundle();
    fs::write(b.dir.join("plain"), "").unwrap();
    b.set("root.path", json!("plain"));
    t.create_fails(&b).says("not a directory");
}

/// The root may be a mount itself, as overlay file systems are.
fn root_may_be_a_mount_point(t: &Test) {
    let mut b = t.bundle();
    let rootfs = b.rootfs();
    let path = rootfs.to_str().unwrap();
    mount(t, &["--bind", path, path]);
    mount(t, &["--make-shared", path]);
    b.probe(&["print", "in"]);
    assert_eq!(t.run(&b).ok().fact(0), "in");
    umount(t, path);
}

/// rootfsPropagation is what "/" has in the end.
fn root_propagation(t: &Test) {
    for (word, expected) in [
        (None, None),
        (Some("private"), None),
        (Some("rprivate"), None),
        (Some("slave"), None),
        (Some("rslave"), None),
        (Some("shared"), Some("shared:")),
        (Some("rshared"), Some("shared:")),
        (Some("unbindable"), Some("unbindable")),
        (Some("runbindable"), Some("unbindable")),
    ] {
        if t.flavour != Flavour::Corten && expected.is_some() {
            continue; // The peers bind the root after its parent became private.
        }
        let mut b = t.bundle();
        if let Some(word) = word {
            b.set("linux.rootfsPropagation", json!(word));
        }
        let seen = t.report(&b);
        let optional = words(mount_at(&seen, "/"), "optional");
        match expected {
            None => {
                assert!(
                    !optional.iter().any(|o| o.starts_with("shared")),
                    "{word:?}: {optional:?}"
                );
            }
            Some(start) => {
                assert!(optional.iter().any(|o| o.starts_with(start)), "{word:?}: {optional:?}");
            }
        }
    }
}

/// Another word is an error.
fn root_propagation_unknown_is_refused(t: &Test) {
    let mut b = t.bundle();
    b.set("linux.rootfsPropagation", json!("sideways"));
    t.create_fails(&b).says("propagation|invalid");
}

/// A mount that the host makes later arrives in a slave, not in a private root.
fn root_propagation_slave_receives_and_private_does_not(t: &Test) {
    for (word, arrives) in [("rslave", true), ("rprivate", false)] {
        let mut b = t.bundle();
        let dir = b.path().to_owned();
        mount(t, &["--bind", &dir, &dir]);
        mount(t, &["--make-shared", &dir]);
        b.set("linux.rootfsPropagation", json!(word));
        b.directory("/later");
        t.sleeper(&mut b);
        let later = b.rootfs().join("later");
        mount(t, &["-t", "tmpfs", "later", later.to_str().unwrap()]);
        fs::write(later.join("seen"), "").unwrap();
        let out = t.exec(&b.id, &[], &["open", "/later/seen"]).ok();
        assert_eq!(out.fact(0)["ok"], arrives, "{word}");
        t.force(&b.id).ok();
        umount(t, later.to_str().unwrap());
        umount(t, &dir);
    }
}

/// `--no-pivot` moves the mount and changes root, for a root on an initramfs.
fn no_pivot_works(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["report", "mounts", "cwd", ";", "ls", "/.."]).write();
    let out = t.call(&["run", "--no-pivot", "--bundle", b.path(), &b.id]).ok();
    assert!(out.fact(1)["value"]["probe"].is_object(), "{out}");
}

/// The mounts are the container's own: the host's table is the same before, during and after.
fn host_sees_none_of_the_mounts(t: &Test) {
    let mut b = t.bundle();
    b.mount("/mnt", "tmpfs", "tmpfs", &["shared"]).set("linux.rootfsPropagation", json!("rshared"));
    t.sleeper(&mut b);
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!table.contains(b.path()), "{table}");
}

/// A later mount covers an earlier one, and one below it comes after it.
fn mounts_are_in_order(t: &Test) {
    let mut b = t.bundle();
    b.mount("/a", "tmpfs", "first", &[]).mount("/a/b", "tmpfs", "second", &[]);
    b.mount("/c", "tmpfs", "third", &[]).mount("/c", "tmpfs", "fourth", &["ro"]);
    let seen = t.report(&b);
    assert_eq!(mount_at(&seen, "/a")["source"], "first");
    assert_eq!(mount_at(&seen, "/a/b")["source"], "second");
    assert_eq!(mount_at(&seen, "/c")["source"], "fourth");
    let count = seen["mounts"].as_array().unwrap().iter().filter(|m| m["point"] == "/c").count();
    assert_eq!(count, 2);
}

/// Types go to the kernel as they are.
fn mounts_of_every_type(t: &Test) {
    let mut b = t.bundle();
    b.mount("/m/ramfs", "ramfs", "ramfs", &["mode=0700"]).mount(
        "/m/tmpfs",
        "tmpfs",
        "x",
        &["nosuid"],
    );
    let seen = t.report(&b);
    for (point, kind) in [
        ("/proc", "proc"),
        ("/dev", "tmpfs"),
        ("/dev/pts", "devpts"),
        ("/dev/shm", "tmpfs"),
        ("/dev/mqueue", "mqueue"),
        ("/sys", "sysfs"),
        ("/m/ramfs", "ramfs"),
        ("/m/tmpfs", "tmpfs"),
    ] {
        assert_eq!(mount_at(&seen, point)["type"], kind, "{point}");
    }
    assert_eq!(mount_at(&seen, "/m/tmpfs")["source"], "x");
}

/// type, source and options are optional.
fn mount_without_options_type_or_source(t: &Test) {
    let mut b = t.bundle();
    b.push("mounts", json!({"destination": "/bare", "type": "tmpfs"}));
    b.push("mounts", json!({"destination": "/bound", "source": t.dir, "options": ["bind", "ro"]}));
    let seen = t.report(&b);
    assert_eq!(mount_at(&seen, "/bare")["type"], "tmpfs");
    assert!(has(mount_at(&seen, "/bound"), "ro"));
}

/// "relative to /" for what existing configs hold.
fn mount_relative_destination_is_from_the_root(t: &Test) {
    let mut b = t.bundle();
    b.mount("relative/point", "tmpfs", "tmpfs", &[]);
    assert_eq!(mount_at(&t.report(&b), "/relative/point")["type"], "tmpfs");
}

/// The root itself can't be covered.
fn mount_at_root_is_refused(t: &Test) {
    t.skip_on(Flavour::Crun, "does it");
    for point in ["/", "/.", "/tmp/.."] {
        let mut b = t.bundle();
        b.mount(point, "tmpfs", "tmpfs", &[]);
        t.create_fails(&b);
    }
}

/// The kernel's errno for a type it doesn't have.
fn mount_of_unknown_type_is_refused(t: &Test) {
    let mut b = t.bundle();
    b.mount("/x", "nosuchfs", "x", &[]);
    t.create_fails(&b).says("no such device");
}

/// A word that is no option of ours belongs to the file system, which refuses it.
fn mount_unknown_option_goes_to_the_file_system(t: &Test) {
    let mut b = t.bundle();
    b.mount("/x", "tmpfs", "x", &["size=64k", "nr_inodes=100"]);
    b.probe(&["statfs", "/x"]);
    assert_eq!(t.run(&b).ok().fact(0)["value"]["files"], 100);
    let mut b = t.bundle();
    b.mount("/x", "tmpfs", "x", &["nosuchoption"]);
    t.create_fails(&b).says("invalid argument");
}

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

/// Data options of tmpfs.
fn tmpfs_size_mode_and_owner(t: &Test) {
    let mut b = t.bundle();
    b.mount("/t", "tmpfs", "tmpfs", &["size=128k", "mode=0710", "uid=12", "gid=34"]);
    b.probe(&["statfs", "/t", ";", "stat", "/t"]);
    let out = t.run(&b).ok();
    assert_eq!(out.fact(0)["value"]["size"], 128 << 10);
    let node = &out.fact(1)["value"];
    assert_eq!(
        (&node["mode"], &node["uid"], &node["gid"]),
        (&json!(0o710), &json!(12), &json!(34))
    );
}

/// Without mode= a tmpfs takes the mode of the directory it covers.
fn tmpfs_mode_is_the_directorys(t: &Test) {
    t.skip_on(Flavour::Crun, "1.8 leaves it 1777");
    let mut b = t.bundle();
    let dir = b.directory("/covered");
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o750)).unwrap();
    b.mount("/covered", "tmpfs", "tmpfs", &[]).probe(&["stat", "/covered"]);
    assert_eq!(t.run(&b).ok().fact(0)["value"]["mode"], 0o750);
}

/// tmpcopyup: the directory's content is there, links stay links, modes and owners too.
fn tmpfs_copy_up(t: &Test) {
    let mut b = t.bundle();
    b.file("/up/file", "text");
    b.file("/up/sub/deep", "deeper");
    let secret = b.file("/up/secret", "s");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    std::os::unix::fs::chown(&secret, Some(1000), Some(1000)).unwrap();
    symlink("/etc/passwd", b.rootfs().join("up/link")).unwrap();
    b.mount("/up", "tmpfs", "tmpfs", &["tmpcopyup", "nosuid"]);
    b.probe(&[
        "ls",
        "/up",
        ";",
        "read",
        "/up/sub/deep",
        ";",
        "create",
        "/up/new",
        "",
        ";",
        "report",
        "mounts",
    ]);
    let out = t.run(&b).ok();
    let names = &out.fact(0)["value"];
    assert_eq!(names["file"]["type"], "f");
    assert_eq!(names["link"]["target"], "/etc/passwd");
    assert_eq!((&names["secret"]["mode"], &names["secret"]["uid"]), (&json!(0o600), &json!(1000)));
    assert_eq!(out.fact(1)["value"], "deeper");
    assert_eq!(mount_at(&out.fact(3), "/up")["type"], "tmpfs");
    assert!(!b.rootfs().join("up/new").exists());
}

/// procfs has options of its own.
fn proc_options(t: &Test) {
    t.skip_on(Flavour::Crun, "1.8 takes them, with other rules");
    let mut b = t.bundle();
    b.remount("/proc", &["nosuid", "noexec", "nodev", "hidepid=2"]);
    let seen = t.report(&b);
    let mount = mount_at(&seen, "/proc");
    assert!(has(mount, "nosuid") && has(mount, "noexec") && has(mount, "nodev"));
    assert!(
        words(mount, "super").iter().any(|o| o == "hidepid=invisible" || o == "hidepid=2"),
        "{mount}"
    );
}

/// What the config calls read-only is.
fn sysfs_is_read_only(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["create", "/sys/x", "", ";", "mkdir", "/sys/kernel/x", ";", "report", "mounts"]);
    let out = t.run(&b).ok();
    assert_eq!(out.fact(0)["ok"], false);
    assert_eq!(out.fact(1)["errno"], "EROFS");
    assert!(has(mount_at(&out.fact(2), "/sys"), "ro"));
}

fn with_cgroup_mount(t: &Test, options: &[&str]) -> Bundle {
    let mut b = t.bundle();
    b.mount("/sys/fs/cgroup", "cgroup", "cgroup", options);
    b
}

fn v1(t: &Test) {
    if corten_integration::cgroups::is_v2() {
        t.skip("cgroup v1 only");
    }
}

/// type cgroup on v1: one mount for each hierarchy, each showing the container's group only.
fn cgroup_mount_v1(t: &Test) {
    v1(t);
    let mut b = with_cgroup_mount(t, &["nosuid", "noexec", "nodev", "relatime", "ro"]);
    b.probe(&[
        "ls",
        "/sys/fs/cgroup",
        ";",
        "read",
        "/sys/fs/cgroup/pids/pids.max",
        ";",
        "report",
        "mounts",
    ]);
    b.set("linux.resources.pids", json!({"limit": 77}));
    let out = t.run(&b).ok();
    for name in ["cpu", "memory", "pids", "devices", "freezer"] {
        assert!(out.fact(0)["value"][name].is_object(), "{name}: {out}");
    }
    assert_eq!(out.fact(1)["value"], "77\n");
    let seen = out.fact(2);
    assert_eq!(mount_at(&seen, "/sys/fs/cgroup/pids")["type"], "cgroup");
}

/// In a cgroup namespace the mounts are new ones whose root is the container's group.
fn cgroup_mount_v1_in_a_cgroup_namespace(t: &Test) {
    v1(t);
    let mut b = with_cgroup_mount(t, &["nosuid", "noexec", "nodev", "relatime", "ro"]);
    b.namespace("cgroup", None).set("linux.resources.pids", json!({"limit": 78}));
    b.probe(&["read", "/sys/fs/cgroup/pids/pids.max", ";", "report", "mounts"]);
    let out = t.run(&b).ok();
    assert_eq!(out.fact(0)["value"], "78\n");
    assert_eq!(mount_at(&out.fact(1), "/sys/fs/cgroup/pids")["root"], "/");
}

/// CVE-2023-25809, CVE-2022-0492: ro is ro in every hierarchy; rw is rw.
fn cgroup_mount_is_read_only(t: &Test) {
    v1(t);
    let steps = [
        "mkdir",
        "/sys/fs/cgroup/pids/new",
        ";",
        "mkdir",
        "/sys/fs/cgroup/new",
        ";",
        "write",
        "/sys/fs/cgroup/pids/pids.max",
        "5",
    ];
    for cgroupns in [false, true] {
        let mut b = with_cgroup_mount(t, &["nosuid", "noexec", "nodev", "ro"]);
        if cgroupns {
            b.namespace("cgroup", None);
        }
        b.probe(&steps);
        let out = t.run(&b).ok();
        assert_eq!(out.fact(0)["errno"], "EROFS", "{out}");
        assert_eq!(out.fact(1)["ok"], false, "{out}");
        assert_eq!(out.fact(2)["errno"], "EROFS", "{out}");
        let mut b = with_cgroup_mount(t, &["nosuid", "noexec", "nodev"]);
        if cgroupns {
            b.namespace("cgroup", None);
        }
        b.probe(&["mkdir", "/sys/fs/cgroup/pids/new", ";", "rmdir", "/sys/fs/cgroup/pids/new"]);
        assert_eq!(t.run(&b).ok().fact(0)["ok"], true, "cgroupns {cgroupns}");
    }
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

/// A masked file reads as empty and swallows what is written.
fn masked_files_are_empty(t: &Test) {
    let mut b = t.bundle();
    b.file("/etc/secret", "secret");
    b.set("linux.maskedPaths", json!(["/etc/secret", "/proc/kcore", "/proc/timer_list"]));
    b.probe(&[
        "read",
        "/etc/secret",
        ";",
        "read",
        "/proc/timer_list",
        ";",
        "append",
        "/etc/secret",
        "x",
    ]);
    let out = t.run(&b).ok();
    assert_eq!(out.fact(0)["value"], "");
    assert_eq!(out.fact(1)["value"].as_str().unwrap_or(""), "");
    assert_eq!(fs::read_to_string(b.rootfs().join("etc/secret")).unwrap(), "secret");
}

/// A masked directory is empty and can't be filled.
fn masked_directories_are_empty_and_read_only(t: &Test) {
    let mut b = t.bundle();
    b.file("/hidden/file", "secret");
    b.set("linux.maskedPaths", json!(["/hidden", "/sys/firmware"]));
    b.probe(&["ls", "/hidden", ";", "create", "/hidden/x", "", ";", "ls", "/sys/firmware"]);
    let out = t.run(&b).ok();
    assert_eq!(out.fact(0)["value"], json!({}));
    assert_eq!(out.fact(1)["errno"], "EROFS");
    assert!(out.fact(2)["ok"] == false || out.fact(2)["value"] == json!({}));
}

/// What isn't there needn't be masked.
fn masked_absent_paths_are_ignored(t: &Test) {
    let mut b = t.bundle();
    b.set("linux.maskedPaths", json!(["/absent", "/proc/absent", "/absent/below"]));
    t.run(&b).ok();
    t.skip_on_peers("take ENOTDIR for a failure");
    b.set("linux.maskedPaths", json!(["/etc/passwd/below"]));
    t.run(&b).ok();
}

/// CVE-2025-31133: a /dev/null that is something else must not end up as the mask.
fn masked_path_does_not_trust_the_containers_dev_null(t: &Test) {
    t.skip_on_peers("affected");
    let mut b = t.bundle();
    for point in ["/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"] {
        b.unmount(point);
    }
    b.file("/evil", "evil");
    b.file("/etc/secret", "secret");
    symlink("/evil", b.rootfs().join("dev/null")).unwrap();
    b.set("linux.maskedPaths", json!(["/etc/secret"])).probe(&[
        "read",
        "/etc/secret",
        ";",
        "write",
        "/etc/secret",
        "x",
    ]);
    let out = t.run(&b);
    if out.code == 0 {
        assert_eq!(out.fact(0)["value"], "", "{out}");
    } else {
        out.fails();
    }
    assert_eq!(fs::read_to_string(b.rootfs().join("evil")).unwrap(), "evil");
}

/// Files and directories, with what is below them.
fn readonly_paths(t: &Test) {
    let mut b = t.bundle();
    b.file("/ro/file", "x");
    b.file("/ro/sub/file", "x");
    b.set("linux.readonlyPaths", json!(["/ro", "/etc/passwd", "/proc/sys"]));
    b.probe(&[
        "append",
        "/ro/file",
        "y",
        ";",
        "create",
        "/ro/sub/new",
        "",
        ";",
        "append",
        "/etc/passwd",
        "y",
        ";",
        "write",
        "/proc/sys/net/ipv4/ip_forward",
        "1",
        ";",
        "append",
        "/etc/group",
        "",
    ]);
    let out = t.run(&b).ok();
    for n in 0..4 {
        assert_eq!(out.fact(n)["errno"], "EROFS", "{out}");
    }
    assert_eq!(out.fact(4)["ok"], true);
}

/// What isn't there can't be written.
fn readonly_absent_paths_are_ignored(t: &Test) {
    let mut b = t.bundle();
    b.set("linux.readonlyPaths", json!(["/absent", "/proc/absent"]));
    t.run(&b).ok();
}

/// A read-only path on a nosuid mount stays nosuid.
fn readonly_keeps_flags(t: &Test) {
    t.skip_on(Flavour::Runc, "1.1 has it for user namespaces only");
    let mut b = t.bundle();
    b.remount("/proc", &["nosuid", "noexec", "nodev"]);
    let seen = t.report(&b);
    let mount = mount_at(&seen, "/proc/sys");
    for flag in ["ro", "nosuid", "noexec", "nodev"] {
        assert!(has(mount, flag), "{flag}: {mount}");
    }
}

/// "The runtime MUST supply" these, and the links that programs expect.
fn devices_default_nodes_and_links(t: &Test) {
    let seen = t.report(&t.bundle())["devices"].clone();
    for (name, major, minor) in [
        ("null", 1, 3),
        ("zero", 1, 5),
        ("full", 1, 7),
        ("random", 1, 8),
        ("urandom", 1, 9),
        ("tty", 5, 0),
    ] {
        let node = &seen[name];
        assert_eq!(
            (&node["type"], &node["major"], &node["minor"]),
            (&json!("c"), &json!(major), &json!(minor)),
            "{name}"
        );
        assert_eq!(node["mode"], 0o666, "{name}");
        assert_eq!(node["uid"], 0, "{name}");
    }
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        assert_eq!(seen[name]["target"], target);
    }
    assert!(
        seen["ptmx"]["target"] == "pts/ptmx" || seen["ptmx"]["type"] == "c",
        "{}",
        seen["ptmx"]
    );
}

/// Character, block and fifo nodes with mode, uid and gid.
fn devices_of_the_config(t: &Test) {
    let mut b = t.bundle();
    b.set("linux.devices", json!([
        {"path": "/dev/one", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 7, "gid": 8},
        {"path": "/dev/two", "type": "b", "major": 7, "minor": 0, "fileMode": 0o600, "uid": 0, "gid": 0},
        {"path": "/dev/three", "type": "p", "fileMode": 0o666, "uid": 1, "gid": 2},
        {"path": "/dev/four", "type": "u", "major": 10, "minor": 200, "fileMode": 0o666, "uid": 0, "gid": 0},
    ]));
    let seen = t.report(&b)["devices"].clone();
    let node = |name: &str| {
        let n = &seen[name];
        (
            n["type"].clone(),
            n["major"].clone(),
            n["minor"].clone(),
            n["mode"].clone(),
            n["uid"].clone(),
            n["gid"].clone(),
        )
    };
    assert_eq!(node("one"), (json!("c"), json!(10), json!(229), json!(0o640), json!(7), json!(8)));
    assert_eq!(node("two"), (json!("b"), json!(7), json!(0), json!(0o600), json!(0), json!(0)));
    assert_eq!(seen["three"]["type"], "p");
    assert_eq!((&seen["three"]["mode"], &seen["three"]["uid"]), (&json!(0o666), &json!(1)));
    assert_eq!(node("four"), (json!("c"), json!(10), json!(200), json!(0o666), json!(0), json!(0)));
}

/// Parents are made; a device may be outside of /dev.
fn devices_in_directories(t: &Test) {
    let mut b = t.bundle();
    b.set("linux.devices", json!([
        {"path": "/dev/dir/x", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666, "uid": 0, "gid": 0},
        {"path": "/opt/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666, "uid": 0, "gid": 0},
    ]));
    b.probe(&["stat", "/dev/dir/x", ";", "stat", "/opt/null"]);
    let out = t.run(&b).ok();
    assert_eq!(out.fact(0)["value"]["type"], "c");
    assert_eq!(out.fact(1)["value"]["minor"], 3);
}

/// "If a file already exists at path that does not match the requested device, MUST generate an error."
fn devices_existing_wrong_node_is_refused(t: &Test) {
    t.skip_on_peers("keep the wrong one");
    for (kind, major, minor) in [("c", 1, 5), ("p", 0, 0), ("file", 0, 0)] {
        let mut b = t.bundle();
        b.directory("/opt");
        let path = b.rootfs().join("opt/x");
        match kind {
            "file" => fs::write(&path, "").unwrap(),
            _ => {
                let kind = if kind == "c" {
                    nix::sys::stat::SFlag::S_IFCHR
                } else {
                    nix::sys::stat::SFlag::S_IFIFO
                };
                let mode = nix::sys::stat::Mode::from_bits_truncate(0o666);
                nix::sys::stat::mknod(&path, kind, mode, nix::sys::stat::makedev(major, minor))
                    .unwrap();
            }
        }
        b.set("linux.devices", json!([{"path": "/opt/x", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666, "uid": 0, "gid": 0}]));
        t.create_fails(&b).says("/opt/x");
    }
}

/// The right node may be there already.
fn devices_existing_right_node_is_fine(t: &Test) {
    let mut b = t.bundle();
    b.directory("/opt");
    let mode = nix::sys::stat::Mode::from_bits_truncate(0o666);
    let path = b.rootfs().join("opt/x");
    nix::sys::stat::mknod(
        &path,
        nix::sys::stat::SFlag::S_IFCHR,
        mode,
        nix::sys::stat::makedev(1, 3),
    )
    .unwrap();
    b.set("linux.devices", json!([{"path": "/opt/x", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666, "uid": 0, "gid": 0}]));
    t.run(&b).ok();
}

/// A type that doesn't exist, or no type.
fn devices_bad_ones_are_refused(t: &Test) {
    for device in [
        json!({"path": "/dev/x", "type": "z", "major": 1, "minor": 3}),
        json!({"path": "/dev/x", "type": "", "major": 1, "minor": 3}),
    ] {
        let mut b = t.bundle();
        b.set("linux.devices", json!([device]));
        t.create_fails(&b);
    }
}

/// Without a /dev mount the nodes are made in the root file system.
fn dev_without_a_mount(t: &Test) {
    let mut b = t.bundle();
    for point in ["/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"] {
        b.unmount(point);
    }
    let seen = t.report(&b);
    assert_eq!(seen["devices"]["null"]["type"], "c");
}

/// A /dev bound from the host keeps its content.
fn dev_bound_from_the_host_is_left_alone(t: &Test) {
    let dir = t.dir.join("dev");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("mine"), "").unwrap();
    let mode = nix::sys::stat::Mode::from_bits_truncate(0o666);
    let null = nix::sys::stat::makedev(1, 3);
    nix::sys::stat::mknod(&dir.join("null"), nix::sys::stat::SFlag::S_IFCHR, mode, null).unwrap();
    let mut b = t.bundle();
    for point in ["/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"] {
        b.unmount(point);
    }
    b.mount("/dev", "bind", dir.to_str().unwrap(), &["bind"]).probe(&["ls", "/dev"]);
    let out = t.run(&b).ok();
    assert!(out.fact(0)["value"]["mine"].is_object());
    t.skip_on(Flavour::Crun, "makes nodes there");
    let mut names: Vec<_> = fs::read_dir(&dir).unwrap().flatten().map(|e| e.file_name()).collect();
    names.sort();
    assert_eq!(names, ["mine", "null"], "the host's directory is as it was");
}

/// What containerd hands over: an overlay, written to in its upper layer.
fn overlay_as_a_root(t: &Test) {
    let mut b = t.bundle();
    let lower = b.dir.join("lower");
    fs::rename(b.rootfs(), &lower).unwrap();
    for name in ["upper", "work", "rootfs"] {
        fs::create_dir(b.dir.join(name)).unwrap();
    }
    let path = b.path().to_owned();
    let options = format!("lowerdir={path}/lower,upperdir={path}/upper,workdir={path}/work");
    mount(t, &["-t", "overlay", "overlay", "-o", &options, &format!("{path}/rootfs")]);
    b.probe(&["create", "/made", "x"]);
    let out = t.run(&b);
    umount(t, &format!("{path}/rootfs"));
    out.ok();
    assert!(b.dir.join("upper/made").exists());
    assert!(!lower.join("made").exists());
}
