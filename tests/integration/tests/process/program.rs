//! The program: arguments, environment, directory, umask.

use std::fs;

use corten_integration::suite::Case;
use corten_integration::{Flavour, Test, tests};
use serde_json::{Value, json};

pub(crate) const TESTS: &[Case] = tests![
    umask_is_set,
    umask_defaults_to_0022,
    cwd_is_the_directory,
    cwd_that_is_absent_is_made,
    cwd_must_be_absolute,
    cwd_may_not_be_a_file,
    cwd_through_a_leaked_descriptor_shows_nothing_of_the_host,
    cwd_may_be_a_directory_only_the_user_can_enter,
    env_is_verbatim,
    env_home_comes_from_passwd,
    env_home_without_passwd_is_root,
    env_is_not_the_callers,
    env_without_equals_sign_is_refused,
    args_are_verbatim,
    args_must_not_be_empty,
    args_are_looked_up_in_the_containers_path,
    args_not_found_fail_create_with_the_peers_words,
    args_without_permission_fail_create,
    args_may_be_a_script,
    args_of_a_wrong_format_fail_start,
];

/// process.user.umask is the program's umask.
fn umask_is_set(t: &Test) {
    t.skip_on(Flavour::Runc, "1.1 knows the field for create, not everywhere");
    let mut b = t.bundle();
    b.set("process.user.umask", json!(0o027));
    assert_eq!(t.report(&b)["umask"], 0o027);
}

/// Without one it is 0022, whatever the caller's is.
fn umask_defaults_to_0022(t: &Test) {
    let b = t.bundle();
    b.write();
    let line = format!("umask 077; $RUNTIME --root $ROOT run -b {} {}", b.path(), b.id);
    assert_eq!(t.shell(&line).ok().fact(0)["umask"], 0o022);
}

/// The program starts in process.cwd.
fn cwd_is_the_directory(t: &Test) {
    let mut b = t.bundle();
    b.set("process.cwd", json!("/home/user"));
    assert_eq!(t.report(&b)["cwd"], "/home/user");
}

/// An absent directory is made, as all peers do.
fn cwd_that_is_absent_is_made(t: &Test) {
    let mut b = t.bundle();
    b.set("process.cwd", json!("/new/dir"));
    assert_eq!(t.report(&b)["cwd"], "/new/dir");
    assert!(b.rootfs().join("new/dir").is_dir());
}

/// A relative directory is the config's mistake.
fn cwd_must_be_absolute(t: &Test) {
    for bad in ["relative", ""] {
        let mut b = t.bundle();
        b.set("process.cwd", json!(bad));
        t.create_fails(&b).says("cwd");
    }
}

/// A file is no directory.
fn cwd_may_not_be_a_file(t: &Test) {
    let mut b = t.bundle();
    b.file("/plain", "");
    b.set("process.cwd", json!("/plain"));
    t.run_fails(&b).says("not a directory");
}

/// CVE-2024-21626: a descriptor of the caller or of the runtime is no way to the host.
fn cwd_through_a_leaked_descriptor_shows_nothing_of_the_host(t: &Test) {
    for fd in 3..16 {
        let mut b = t.bundle();
        b.set("process.cwd", json!(format!("/proc/self/fd/{fd}")))
            .probe(&["ls", ".", ";", "ls", ".."]);
        b.write();
        let line = format!("exec 3</ 7</etc; $RUNTIME --root $ROOT run -b {} {}", b.path(), b.id);
        let out = t.shell(&line);
        assert!(!out.stdout.contains("sbin") && !out.stdout.contains("shadow"), "{out}");
    }
}

/// The directory is entered as the user, so that root's missing DAC rights don't matter.
fn cwd_may_be_a_directory_only_the_user_can_enter(t: &Test) {
    use std::os::unix::fs::{PermissionsExt, chown};
    let mut b = t.bundle();
    let dir = b.directory("/home/user");
    chown(&dir, Some(1000), Some(1000)).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
    b.set("process.cwd", json!("/home/user"))
        .set("process.user", json!({"uid": 1000, "gid": 1000}));
    assert_eq!(t.report(&b)["cwd"], "/home/user");
}

pub(crate) fn env_of(seen: &Value) -> Vec<String> {
    serde_json::from_value(seen["env"].clone()).unwrap()
}

/// Variables arrive as they are, with odd values too.
fn env_is_verbatim(t: &Test) {
    let mut b = t.bundle();
    let given = ["PATH=/bin", "A=", "B=x=y", "C=two words", "D=ä\n\t\"", "lower_case=1"];
    b.set("process.env", json!(given));
    let env = env_of(&t.report(&b));
    for entry in given {
        assert!(env.iter().any(|e| e == entry), "{entry:?} in {env:?}");
    }
}

/// HOME is added from the container's /etc/passwd; one that is given stays.
fn env_home_comes_from_passwd(t: &Test) {
    let mut b = t.bundle();
    b.set("process.user", json!({"uid": 1000, "gid": 1000}));
    assert!(env_of(&t.report(&b)).contains(&"HOME=/home/user".to_owned()));
    let mut b = t.bundle();
    b.push("process.env", json!("HOME=/given"));
    assert!(env_of(&t.report(&b)).contains(&"HOME=/given".to_owned()));
}

/// Without an entry it is "/".
fn env_home_without_passwd_is_root(t: &Test) {
    let mut b = t.bundle();
    fs::remove_file(b.rootfs().join("etc/passwd")).unwrap();
    b.set("process.user", json!({"uid": 77, "gid": 77}));
    assert!(env_of(&t.report(&b)).contains(&"HOME=/".to_owned()));
}

/// Nothing of the runtime's own environment gets in.
fn env_is_not_the_callers(t: &Test) {
    let b = t.bundle();
    b.write();
    let line = format!("SECRET=1 $RUNTIME --root $ROOT run -b {} {}", b.path(), b.id);
    let env = env_of(&t.shell(&line).ok().fact(0));
    let known = ["PATH=", "TERM=", "HOME="];
    assert!(env.iter().all(|e| known.iter().any(|k| e.starts_with(k))), "{env:?}");
}

/// An entry without "=" is an error.
fn env_without_equals_sign_is_refused(t: &Test) {
    t.skip_on_peers("pass it on");
    let mut b = t.bundle();
    b.push("process.env", json!("NOVALUE"));
    t.create_fails(&b).says("process.env");
}

/// Arguments arrive as they are.
fn args_are_verbatim(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["report", "args", "a b", "", "-x", "ä", "\"q\"", "\n"]);
    let seen = t.report(&b);
    assert_eq!(
        seen["args"],
        json!(["/probe", "report", "args", "a b", "", "-x", "ä", "\"q\"", "\n"])
    );
}

/// At least one argument is needed.
fn args_must_not_be_empty(t: &Test) {
    let mut b = t.bundle();
    b.args(&[]);
    t.create_fails(&b).says("args");
    let mut b = t.bundle();
    b.unset("process.args");
    t.create_fails(&b).says("args");
    let mut b = t.bundle();
    b.args(&[""]);
    t.run_fails(&b);
}

/// A name without a slash is looked up in PATH of process.env, inside the container.
fn args_are_looked_up_in_the_containers_path(t: &Test) {
    let mut b = t.bundle();
    b.directory("/opt/x");
    fs::copy(b.rootfs().join("probe"), b.rootfs().join("opt/x/tool")).unwrap();
    b.set("process.env", json!(["PATH=/nowhere:/opt/x"])).args(&["tool", "report", "exe", "args"]);
    let seen = t.report(&b);
    assert_eq!(seen["exe"], "/opt/x/tool");
    assert_eq!(seen["args"][0], "tool");
}

/// dockerd needs the failure at create, with these words.
fn args_not_found_fail_create_with_the_peers_words(t: &Test) {
    let mut b = t.bundle();
    b.args(&["absent"]);
    t.create_fails(&b).says("exec: \"absent\": executable file not found in $PATH");
    let mut b = t.bundle();
    b.args(&["/absent"]);
    t.create_fails(&b).says("no such file or directory");
}

/// A file without execute permission and a directory are refused at create.
fn args_without_permission_fail_create(t: &Test) {
    let mut b = t.bundle();
    b.file("/plain", "x");
    b.args(&["/plain"]);
    t.create_fails(&b).says("permission denied");
    let mut b = t.bundle();
    b.args(&["/tmp"]);
    t.create_fails(&b).says("permission denied|is a directory");
}

/// A script with an interpreter works.
fn args_may_be_a_script(t: &Test) {
    use std::os::unix::fs::PermissionsExt;
    let mut b = t.busybox();
    let path = b.file("/script", "#!/bin/sh\necho '\"from a script\"'\n");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    b.args(&["/script"]);
    assert_eq!(t.report(&b), "from a script");
}

/// A file the kernel can't execute fails with its errno.
fn args_of_a_wrong_format_fail_start(t: &Test) {
    use std::os::unix::fs::PermissionsExt;
    let mut b = t.bundle();
    let path = b.file("/garbage", "\u{1}\u{2}garbage");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    b.args(&["/garbage"]);
    t.run_fails(&b).says("exec format error");
}
