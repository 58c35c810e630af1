//! Containers of an ordinary user: a user namespace, newuidmap, no rights to cgroups.
//!
//! The user is `nobody`, with subordinate ids from an /etc/subuid and /etc/subgid that only a
//! private mount namespace sees, so that the host's files stay as they are.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use corten_integration::driver::{Running, wait_until};
use corten_integration::{Bundle, Flavour, Output, Test, suite, tests};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

fn main() -> ExitCode {
    suite(tests![
        own_id_alone,
        subordinate_ids_through_newuidmap,
        subordinate_ids_that_are_not_ones_own_are_refused,
        subordinate_user_of_the_container,
        whole_life,
        exec_enters,
        exec_as_another_user,
        files_belong_to_the_user,
        default_root_is_below_xdg_runtime_dir,
        additional_groups_need_setgroups,
        limits_are_refused_not_ignored,
        no_user_namespace_is_refused,
        devices_work,
        mounts_of_a_user,
        bind_read_only_of_a_flagged_mount,
        hooks_run_as_the_user,
        terminal_in_the_foreground,
        spec_rootless_runs,
        signals_are_forwarded,
        roots_containers_are_out_of_reach,
        oom_score_cannot_be_lowered,
        nothing_is_left_after_a_failure,
        cgroup_mount_is_possible,
    ])
}

const USER: u32 = 65534;
const FIRST: u32 = 300_000;

/// The runtime where nobody can execute it, the state directory, the subordinate ids.
fn prepare(t: &Test) {
    let copy = t.dir.join("runtime");
    if copy.exists() {
        return;
    }
    fs::copy(&t.runtime, &copy).unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
    for name in ["subuid", "subgid"] {
        fs::write(t.dir.join(name), format!("nobody:{FIRST}:65536\n")).unwrap();
    }
    for dir in [t.root(), t.dir.join("xdg")] {
        fs::create_dir_all(&dir).unwrap();
        chown(&dir, Some(USER), Some(USER)).unwrap();
    }
    chown(t.dir.join("tmp"), Some(USER), Some(USER)).unwrap();
}

/// A bundle of the user, with only its own id mapped.
fn bundle(t: &Test) -> Bundle {
    prepare(t);
    let mut b = t.bundle();
    b.namespace("user", None)
        .set("linux.uidMappings", json!([{"containerID": 0, "hostID": USER, "size": 1}]))
        .set("linux.gidMappings", json!([{"containerID": 0, "hostID": USER, "size": 1}]))
        .unset("linux.resources")
        .unset("linux.cgroupsPath")
        .remount("/dev/pts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]);
    give(&b.dir);
    b
}

fn give(path: &Path) {
    let meta = fs::symlink_metadata(path).unwrap();
    std::os::unix::fs::lchown(path, Some(USER), Some(USER)).unwrap();
    if meta.is_dir() {
        fs::read_dir(path).unwrap().flatten().for_each(|entry| give(&entry.path()));
    }
}

fn with_subordinates(b: &mut Bundle) {
    for kind in ["uid", "gid"] {
        b.set(
            &format!("linux.{kind}Mappings"),
            json!([{"containerID": 0, "hostID": USER, "size": 1},
                {"containerID": 1, "hostID": FIRST, "size": 65535}]),
        );
    }
}

/// The command line that runs `script` as the user.
fn as_user(t: &Test, script: &str) -> Command {
    prepare(t);
    let dir = t.dir.display();
    let user = format!(
        "mount --bind {dir}/subuid /etc/subuid && mount --bind {dir}/subgid /etc/subgid && \
         cd / && exec setpriv --reuid={USER} --regid={USER} --clear-groups --inh-caps=-all --bounding-set=-sys_admin,-sys_resource \
         env R='{dir}/runtime --root {dir}/root' sh -c '{script}'"
    );
    // newuidmap's privileges come from its file, so the bounding set must keep setuid and setgid.
    let user = user.replace(" --bounding-set=-sys_admin,-sys_resource", "");
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", &user]);
    command.env("XDG_RUNTIME_DIR", t.dir.join("xdg")).stdin(Stdio::null());
    command
}

#[track_caller]
fn call(t: &Test, script: &str) -> Output {
    t.execute(as_user(t, script))
}

fn spawn(t: &Test, script: &str) -> Running {
    t.launch(as_user(t, script))
}

#[track_caller]
fn run(t: &Test, b: &Bundle) -> Output {
    b.write();
    call(t, &format!("$R run -b {} {}", b.path(), b.id))
}

/// One id, mapped by the runtime itself: root inside, the user outside.
fn own_id_alone(t: &Test) {
    let b = bundle(t);
    let seen = run(t, &b).ok().fact(0);
    assert_eq!(seen["uid"], json!([0, 0, 0]));
    assert_eq!(seen["idmaps"]["setgroups"], "deny");
    let map = seen["idmaps"]["uid"][0].as_str().unwrap();
    assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", "65534", "1"]);
    assert_eq!(seen["pid"], 1);
    assert_eq!(seen["uname"]["hostname"], "probe");
    t.nothing_left(&b);
}

/// Ranges of /etc/subuid and /etc/subgid, mapped by newuidmap and newgidmap.
fn subordinate_ids_through_newuidmap(t: &Test) {
    let mut b = bundle(t);
    with_subordinates(&mut b);
    let seen = run(t, &b).ok().fact(0);
    assert_eq!(seen["idmaps"]["uid"].as_array().unwrap().len(), 2, "{}", seen["idmaps"]);
    assert_eq!(seen["idmaps"]["setgroups"], "allow");
}

/// newuidmap's refusal is the create's.
fn subordinate_ids_that_are_not_ones_own_are_refused(t: &Test) {
    let mut b = bundle(t);
    with_subordinates(&mut b);
    b.set("linux.uidMappings.1.hostID", json!(500_000));
    run(t, &b).fails().says("newuidmap");
    t.nothing_left(&b);
}

/// process.user is one of the subordinates outside.
fn subordinate_user_of_the_container(t: &Test) {
    let mut b = bundle(t);
    with_subordinates(&mut b);
    // runc refuses groups in any rootless container.
    let groups = if t.flavour == Flavour::Runc { json!([]) } else { json!([5]) };
    b.set("process.user", json!({"uid": 1000, "gid": 1000, "additionalGids": groups}));
    b.probe(&["report", "uid", "groups", ";", "create", "/tmp/mine", ""]);
    let out = run(t, &b).ok();
    assert_eq!(out.fact(0)["uid"], json!([1000, 1000, 1000]));
    assert_eq!(out.fact(0)["groups"], groups);
    assert_eq!(fs::metadata(b.rootfs().join("tmp/mine")).unwrap().uid(), FIRST + 999);
}

/// create, state, start, list, ps or its error, kill, delete.
fn whole_life(t: &Test) {
    let mut b = bundle(t);
    b.probe(&["sleep"]).write();
    let id = &b.id;
    call(t, &format!("$R create -b {} {id}", b.path())).ok();
    assert_eq!(call(t, &format!("$R state {id}")).ok().json()["status"], "created");
    call(t, &format!("$R start {id}")).ok();
    let state = call(t, &format!("$R state {id}")).ok().json();
    assert_eq!(state["status"], "running");
    assert!(call(t, "$R list -q").ok().stdout.contains(id));
    let owner = call(t, "$R list --format json").ok().json()[0]["owner"].clone();
    assert_eq!(owner, "nobody");
    call(t, &format!("$R kill {id} KILL")).ok();
    wait_until("it is stopped", || {
        call(t, &format!("$R state {id}")).json()["status"] == "stopped"
    });
    call(t, &format!("$R delete {id}")).ok();
    t.nothing_left(&b);
}

fn started(t: &Test, b: &mut Bundle) {
    b.probe(&["sleep"]).write();
    call(t, &format!("$R create -b {} {id} && $R start {id}", b.path(), id = b.id)).ok();
}

/// exec joins the user namespace and all others.
fn exec_enters(t: &Test) {
    let mut b = bundle(t);
    started(t, &mut b);
    let seen = call(t, &format!("$R exec {} /probe report", b.id)).ok().fact(0);
    assert_eq!(seen["uid"], json!([0, 0, 0]));
    assert_eq!(seen["uname"]["hostname"], "probe");
    assert_ne!(seen["ns"]["user"], json!(fs::read_link("/proc/self/ns/user").unwrap()));
    call(t, &format!("$R exec {} /probe exit 7", b.id)).exits(7);
    call(t, &format!("$R delete --force {}", b.id)).ok();
    t.nothing_left(&b);
}

/// exec --user takes a mapped id, and refuses others.
fn exec_as_another_user(t: &Test) {
    let mut b = bundle(t);
    with_subordinates(&mut b);
    started(t, &mut b);
    let seen = call(t, &format!("$R exec --user 7:8 {} /probe report uid gid", b.id)).ok().fact(0);
    assert_eq!((&seen["uid"][0], &seen["gid"][0]), (&json!(7), &json!(8)));
    call(t, &format!("$R exec --user 70000 {} /probe report uid", b.id)).fails();
    call(t, &format!("$R delete --force {}", b.id)).ok();
}

/// What the container's root makes is the user's.
fn files_belong_to_the_user(t: &Test) {
    let mut b = bundle(t);
    b.probe(&["create", "/made", "x"]);
    run(t, &b).ok();
    let meta = fs::metadata(b.rootfs().join("made")).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (USER, USER));
}

/// Without --root the state is in $XDG_RUNTIME_DIR.
fn default_root_is_below_xdg_runtime_dir(t: &Test) {
    let mut b = bundle(t);
    b.probe(&["sleep"]).write();
    let runtime = t.dir.join("runtime");
    call(t, &format!("{} create -b {} {}", runtime.display(), b.path(), b.id)).ok();
    let name = match t.flavour {
        Flavour::Corten => "corten",
        Flavour::Runc => "runc",
        Flavour::Crun => "crun",
    };
    assert!(t.dir.join("xdg").join(name).join(&b.id).exists());
    call(t, &format!("{} delete --force {}", runtime.display(), b.id)).ok();
    t.nothing_left(&b);
}

/// The kernel denies setgroups where only the user's own gid is mapped: an error, not silence.
fn additional_groups_need_setgroups(t: &Test) {
    let mut b = bundle(t);
    b.set("process.user.additionalGids", json!([0]));
    let out = run(t, &b);
    if t.flavour == Flavour::Corten {
        out.fails().says("group");
    }
    t.nothing_left(&b);
}

/// A limit that can't be set is an error.
fn limits_are_refused_not_ignored(t: &Test) {
    t.skip_on(Flavour::Crun, "ignores them");
    let mut b = bundle(t);
    b.set("linux.resources", json!({"memory": {"limit": 64 << 20}}));
    run(t, &b).fails().says("cgroup|memory");
    t.nothing_left(&b);
    // The device rules that every manager writes are no reason to fail.
    b.set("linux.resources", json!({"devices": [{"allow": false, "access": "rwm"}]}));
    run(t, &b).ok();
}

/// Without a user namespace nothing can be done, and that is what is said.
fn no_user_namespace_is_refused(t: &Test) {
    let mut b = bundle(t);
    b.no_namespace("user").unset("linux.uidMappings").unset("linux.gidMappings");
    run(t, &b).fails();
    t.nothing_left(&b);
}

/// The default devices are the host's, bound.
fn devices_work(t: &Test) {
    let mut b = bundle(t);
    b.probe(&[
        "write",
        "/dev/null",
        "x",
        ";",
        "read-some",
        "/dev/urandom",
        "4",
        ";",
        "open-rw",
        "/dev/ptmx",
        ";",
        "report",
        "devices",
    ]);
    let out = run(t, &b).ok();
    for n in 0..3 {
        assert_eq!(out.fact(n)["ok"], true, "{out}");
    }
    assert_eq!(out.fact(3)["devices"]["null"]["type"], "c");
}

/// Everything a default config mounts, tmpfs, and binds of the user's files.
fn mounts_of_a_user(t: &Test) {
    let mut b = bundle(t);
    let mine = t.dir.join("mine");
    fs::create_dir(&mine).unwrap();
    fs::write(mine.join("f"), "mine").unwrap();
    give(&mine);
    b.mount("/mine", "bind", mine.to_str().unwrap(), &["rbind", "ro"]);
    b.mount("/tmp", "tmpfs", "tmpfs", &["size=64k"]);
    b.set("root.readonly", json!(true));
    b.probe(&[
        "read", "/mine/f", ";", "create", "/mine/x", "", ";", "create", "/tmp/x", "", ";",
        "create", "/x", "",
    ]);
    let out = run(t, &b).ok();
    assert_eq!(out.fact(0)["value"], "mine");
    assert_eq!(out.fact(1)["errno"], "EROFS");
    assert_eq!(out.fact(2)["ok"], true);
    assert_eq!(out.fact(3)["errno"], "EROFS");
}

/// /dev/shm is nosuid and nodev on the host: a read-only bind must keep what it can't clear.
fn bind_read_only_of_a_flagged_mount(t: &Test) {
    t.skip_on(Flavour::Runc, "1.1 fails with EPERM");
    let mut b = bundle(t);
    b.mount("/p", "bind", "/proc/sys/kernel", &["bind", "ro"]).probe(&["report", "mounts"]);
    let flags = fs::read_to_string("/proc/self/mountinfo").unwrap();
    if !flags.contains("nosuid") {
        b.mount("/s", "bind", "/dev/shm", &["bind", "ro"]);
    }
    let seen = run(t, &b).ok().fact(0);
    let mounts = seen["mounts"].as_array().unwrap();
    let mount = mounts.iter().find(|m| m["point"] == "/p").unwrap();
    assert!(mount["options"].to_string().contains("\"ro\""), "{mount}");
}

/// Hooks are the user's processes.
fn hooks_run_as_the_user(t: &Test) {
    let mut b = bundle(t);
    let out = t.dir.join("xdg/hook");
    let script = format!("id -u >{}", out.display());
    b.push(
        "hooks.createRuntime",
        json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]}),
    );
    b.probe(&["exit", "0"]);
    run(t, &b).ok();
    assert_eq!(fs::read_to_string(out).unwrap().trim(), USER.to_string());
}

/// A terminal of the container's own devpts.
fn terminal_in_the_foreground(t: &Test) {
    let mut b = bundle(t);
    b.set("process.terminal", json!(true)).probe(&["report", "tty"]).write();
    let inner = format!("$R run -b {} {}", b.path(), b.id);
    let seen =
        call(t, &format!("script --quiet --return --command \"{inner}\" /dev/null")).ok().fact(0);
    assert_eq!(seen["tty"]["controlling"], true);
}

/// The config that `spec --rootless` writes runs as it is.
fn spec_rootless_runs(t: &Test) {
    prepare(t);
    let b = t.busybox();
    give(&b.dir);
    call(t, &format!("cd {} && $R spec --rootless", b.path())).ok();
    let path = b.dir.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(["sh", "-c", "id -u; id -g"]);
    fs::write(&path, config.to_string()).unwrap();
    let out = call(t, &format!("$R run -b {} {}", b.path(), b.id)).ok();
    assert_eq!(out.stdout, "0\n0\n");
}

/// A foreground run forwards signals here too.
fn signals_are_forwarded(t: &Test) {
    let mut b = bundle(t);
    b.probe(&["print", "up", ";", "sleep"]).write();
    let pid_file = t.dir.join("xdg/pid");
    let mut running =
        spawn(t, &format!("echo $$ >{}; exec $R run -b {} {}", pid_file.display(), b.path(), b.id));
    running.wait_for("up");
    let pid: i32 = fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap();
    let state = call(t, &format!("$R state {}", b.id)).ok().json();
    let init = state["pid"].as_i64().unwrap();
    wait_until("the probe is asleep", || {
        fs::read_to_string(format!("/proc/{init}/comm")).unwrap_or_default() == "asleep\n"
    });
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    running.wait().exits(143);
}

/// The user can neither see nor end root's containers.
fn roots_containers_are_out_of_reach(t: &Test) {
    let mut b = t.bundle();
    fs::create_dir(t.root()).unwrap();
    fs::set_permissions(t.root(), fs::Permissions::from_mode(0o700)).unwrap();
    let pid = t.sleeper(&mut b);
    let copy = t.dir.join("runtime");
    fs::copy(&t.runtime, &copy).unwrap();
    for verb in ["state", "kill", "delete --force"] {
        let script = format!(
            "exec setpriv --reuid={USER} --regid={USER} --clear-groups {} --root {} {verb} {}",
            copy.display(),
            t.root().display(),
            b.id
        );
        let out = t.shell(&script);
        if verb != "delete --force" {
            out.fails().says("permission denied|does not exist");
        }
    }
    assert_eq!(t.pid(&b.id), pid);
    assert_eq!(t.status(&b.id), "running");
}

/// The kernel lets nobody lower it: runc ignores that in rootless containers, so do we.
fn oom_score_cannot_be_lowered(t: &Test) {
    let mut b = bundle(t);
    b.set("process.oomScoreAdj", json!(-500));
    let out = run(t, &b);
    if out.code == 0 {
        assert!(out.fact(0)["oom_score_adj"].as_i64().unwrap() >= 0 || t.flavour == Flavour::Crun);
    } else {
        out.fails();
    }
    b.set("process.oomScoreAdj", json!(300));
    assert_eq!(run(t, &b).ok().fact(0)["oom_score_adj"], 300);
}

/// A failing create cleans up with the user's rights alone.
fn nothing_is_left_after_a_failure(t: &Test) {
    let mut b = bundle(t);
    b.args(&["/absent"]);
    run(t, &b).fails().says("no such file or directory");
    t.nothing_left(&b);
    assert_eq!(fs::read_dir(t.root()).unwrap().count(), 0);
}

/// A cgroup mount shows what there is, read-only.
fn cgroup_mount_is_possible(t: &Test) {
    t.skip_on(Flavour::Crun, "binds the host's");
    let mut b = bundle(t);
    b.namespace("cgroup", None);
    b.mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "ro"]);
    b.probe(&["ls", "/sys/fs/cgroup", ";", "mkdir", "/sys/fs/cgroup/pids/x"]);
    let out = run(t, &b).ok();
    assert_eq!(out.fact(0)["ok"], true);
    assert_eq!(out.fact(1)["ok"], false);
}
