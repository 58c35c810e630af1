//! `exec`: a second process in a running container, with the container's restrictions.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use corten_integration::console::ConsoleSocket;
use corten_integration::driver::wait_until;
use corten_integration::{Bundle, Flavour, Test, suite, tests};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

fn main() -> ExitCode {
    suite(tests![
        exec_prints_and_returns_the_exit_code,
        exec_of_a_killed_program_is_128_and_the_signal,
        exec_passes_stdin,
        exec_forwards_signals,
        exec_joins_every_namespace,
        exec_joins_the_cgroup,
        exec_inherits_what_the_container_was_given,
        exec_inheritable_capabilities_stay_empty,
        exec_cap_adds_capabilities,
        exec_no_new_privs,
        exec_env_and_cwd,
        exec_last_duplicate_of_env_wins,
        exec_user_is_taken_literally,
        exec_bad_users_are_refused,
        exec_home_comes_from_passwd,
        exec_additional_gids,
        exec_process_file,
        exec_process_file_that_is_broken,
        exec_arguments_after_the_id_are_the_programs,
        exec_detached_with_pid_file,
        exec_detached_is_left_to_the_caller,
        exec_of_an_absent_program_is_255,
        exec_of_something_not_executable_is_255,
        exec_into_an_absent_directory,
        exec_in_a_created_container,
        exec_in_a_stopped_container_is_refused,
        exec_in_a_paused_container_is_refused,
        exec_ignores_paused_if_told,
        exec_in_a_sub_cgroup,
        exec_cgroup_may_not_escape,
        exec_keeps_the_seccomp_filter,
        exec_without_terminal_is_a_session_of_its_own,
        exec_terminal_in_the_foreground,
        exec_terminal_through_a_console_socket,
        exec_preserves_descriptors,
        exec_leaks_no_descriptor,
        exec_in_a_user_namespace,
        exec_is_isolated_from_edits_of_the_config,
        exec_program_may_be_in_a_read_only_container,
        exec_many_at_once,
        exec_ends_with_the_container,
    ])
}

/// A sleeping container; returns the pid of its first process.
fn container(t: &Test) -> (Bundle, i32) {
    let mut b = t.bundle();
    let pid = t.sleeper(&mut b);
    (b, pid)
}

/// Output and exit code of the program are those of the command.
fn exec_prints_and_returns_the_exit_code(t: &Test) {
    let (b, _) = container(t);
    let out = t.exec(&b.id, &[], &["print", "a", "b", ";", "eprint", "c", ";", "exit", "42"]);
    let out = out.exits(42);
    assert_eq!(out.fact(0), "a b");
    assert_eq!(out.stderr.trim(), "c");
    t.exec(&b.id, &[], &["exit", "0"]).ok();
}

/// A program that dies of a signal makes exec return 128 + n.
fn exec_of_a_killed_program_is_128_and_the_signal(t: &Test) {
    let (b, _) = container(t);
    t.exec(&b.id, &[], &["die-by", "9"]).exits(137);
    t.exec(&b.id, &[], &["die-by", "15"]).exits(143);
}

/// Standard input of the command is the program's.
fn exec_passes_stdin(t: &Test) {
    let (b, _) = container(t);
    let line = format!("echo fed | $RUNTIME --root $ROOT exec {} /probe stdin", b.id);
    assert_eq!(t.shell(&line).ok().fact(0)["stdin"], "fed\n");
}

/// The foreground command forwards signals to the program.
fn exec_forwards_signals(t: &Test) {
    let (b, _) = container(t);
    let mut exec = t.spawn(&["exec", &b.id, "/probe", "next-signal", "10", "15", ";", "exit", "9"]);
    exec.wait_for("ready");
    exec.signal(Signal::SIGUSR1);
    let out = exec.wait().exits(9);
    assert_eq!(out.fact(1)["signal"], 10);
}

/// All namespaces are the container's, those it shares with the host too.
fn exec_joins_every_namespace(t: &Test) {
    let mut b = t.bundle();
    b.namespace("cgroup", None);
    let pid = t.sleeper(&mut b);
    let seen = t.exec(&b.id, &[], &["report", "ns"]).ok().fact(0);
    for name in ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"] {
        let init = fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap();
        assert_eq!(seen["ns"][name], json!(init), "{name}");
    }
}

/// The program is in the container's cgroup of every hierarchy.
fn exec_joins_the_cgroup(t: &Test) {
    let (b, pid) = container(t);
    let init = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let seen = t.exec(&b.id, &[], &["report", "cgroup"]).ok().fact(0);
    let mut seen: Vec<String> = serde_json::from_value(seen["cgroup"].clone()).unwrap();
    let mut init: Vec<String> = init.lines().map(str::to_owned).collect();
    seen.sort();
    init.sort();
    assert_eq!(seen, init);
}

/// User, capabilities, limits, environment, directory, umask and scores are the container's.
fn exec_inherits_what_the_container_was_given(t: &Test) {
    let mut b = t.bundle();
    b.set(
        "process.user",
        json!({"uid": 1000, "gid": 1000, "additionalGids": [5, 20], "umask": 63}),
    )
    .set("process.cwd", json!("/tmp"))
    .set("process.oomScoreAdj", json!(77))
    .push("process.env", json!("MARK=1"))
    .set("process.rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]));
    t.sleeper(&mut b);
    let seen = t.exec(&b.id, &[], &["report"]).ok().fact(0);
    assert_eq!(seen["uid"], json!([1000, 1000, 1000]));
    assert_eq!(seen["gid"], json!([1000, 1000, 1000]));
    assert_eq!(seen["groups"], json!([5, 20]));
    assert_eq!(seen["cwd"], "/tmp");
    assert_eq!(seen["oom_score_adj"], 77);
    assert_eq!(seen["rlimits"]["RLIMIT_NOFILE"], json!([100, 200]));
    assert_eq!(seen["nnp"], 1);
    assert!(seen["env"].as_array().unwrap().contains(&json!("MARK=1")));
    if t.flavour == Flavour::Corten {
        assert_eq!(seen["umask"], 63, "umask of process.user");
    }
}

/// CVE-2022-29162: the inheritable set is what the config says, so empty by default.
fn exec_inheritable_capabilities_stay_empty(t: &Test) {
    let (b, _) = container(t);
    for flags in [&[][..], &["--cap", "CAP_NET_RAW"]] {
        let seen = t.exec(&b.id, flags, &["report", "caps"]).ok().fact(0);
        assert_eq!(seen["caps"]["inheritable"], 0, "{flags:?}");
        assert_eq!(seen["caps"]["ambient"], 0, "{flags:?}");
    }
}

/// `--cap` adds to bounding, effective and permitted of this one process.
fn exec_cap_adds_capabilities(t: &Test) {
    let (b, _) = container(t);
    let plain = t.exec(&b.id, &[], &["report", "caps"]).ok().fact(0)["caps"].clone();
    let more = t
        .exec(&b.id, &["--cap", "CAP_NET_RAW", "--cap", "CAP_MKNOD"], &["report", "caps"])
        .ok()
        .fact(0)["caps"]
        .clone();
    let added = 1_u64 << 13 | 1 << 27;
    for set in ["bounding", "effective", "permitted"] {
        assert_eq!(more[set].as_u64().unwrap(), plain[set].as_u64().unwrap() | added, "{set}");
    }
}

/// `--no-new-privs` sets the bit; without it the config decides.
fn exec_no_new_privs(t: &Test) {
    let mut b = t.bundle();
    b.set("process.noNewPrivileges", json!(false));
    t.sleeper(&mut b);
    assert_eq!(t.exec(&b.id, &[], &["report", "nnp"]).ok().fact(0)["nnp"], 0);
    let seen = t.exec(&b.id, &["--no-new-privs"], &["report", "nnp"]).ok().fact(0);
    assert_eq!(seen["nnp"], 1);
}

/// `--env` adds to the container's environment, `--cwd` sets the directory.
fn exec_env_and_cwd(t: &Test) {
    let (b, _) = container(t);
    let flags = ["--env", "A=1", "--env", "B=two words", "--cwd", "/home/user"];
    let seen = t.exec(&b.id, &flags, &["report", "env", "cwd"]).ok().fact(0);
    let env = seen["env"].as_array().unwrap();
    for entry in ["A=1", "B=two words", "TERM=xterm"] {
        assert!(env.contains(&json!(entry)), "{entry}: {env:?}");
    }
    assert_eq!(seen["cwd"], "/home/user");
    let seen = t.exec(&b.id, &["-e", "SHORT=1"], &["report", "env"]).ok().fact(0);
    assert!(seen["env"].as_array().unwrap().contains(&json!("SHORT=1")));
}

/// Of two values for one variable the last one counts.
fn exec_last_duplicate_of_env_wins(t: &Test) {
    let (b, _) = container(t);
    let flags = ["--env", "TERM=one", "--env", "TERM=two"];
    let seen = t.exec(&b.id, &flags, &["report", "env"]).ok().fact(0);
    let last =
        seen["env"].as_array().unwrap().iter().rfind(|e| e.as_str().unwrap().starts_with("TERM="));
    assert_eq!(last, Some(&json!("TERM=two")));
}

/// `--user` takes uid and gid as decimal numbers, exactly.
fn exec_user_is_taken_literally(t: &Test) {
    let (b, _) = container(t);
    for (user, uid, gid) in [("1", 1, 0), ("1:2", 1, 2), ("0:5", 0, 5), ("1000:1000", 1000, 1000)] {
        let seen = t.exec(&b.id, &["--user", user], &["report", "uid", "gid"]).ok().fact(0);
        assert_eq!(seen["uid"], json!([uid, uid, uid]), "{user}");
        assert_eq!(seen["gid"], json!([gid, gid, gid]), "{user}");
    }
}

/// CVE-2026-30892 and CVE-2024-40635: a user that isn't a valid number is refused, never 0.
fn exec_bad_users_are_refused(t: &Test) {
    t.skip_on_peers("take some of them for 0 or -1");
    let (b, _) = container(t);
    for user in [
        ":1",
        "0x1",
        " 1",
        "1 ",
        "-1",
        "4294967295",
        "4294967296",
        "99999999999",
        "root",
        "1:",
        "1:x",
        "1:-1",
        "1:4294967295",
    ] {
        t.exec(&b.id, &["--user", user], &["report", "uid"]).fails_with(255);
    }
}

/// HOME is the user's of the container's /etc/passwd unless it is given.
fn exec_home_comes_from_passwd(t: &Test) {
    let (b, _) = container(t);
    let home = |flags: &[&str]| {
        let seen = t.exec(&b.id, flags, &["report", "env"]).ok().fact(0);
        seen["env"]
            .as_array()
            .unwrap()
            .iter()
            .find(|e| e.as_str().unwrap().starts_with("HOME="))
            .cloned()
    };
    assert_eq!(home(&["--user", "1000:1000"]), Some(json!("HOME=/home/user")));
    assert_eq!(home(&["--user", "4242"]), Some(json!("HOME=/")));
    assert_eq!(home(&["--user", "1000", "--env", "HOME=/x"]), Some(json!("HOME=/x")));
}

/// `--additional-gids` gives supplementary groups.
fn exec_additional_gids(t: &Test) {
    t.skip_on(Flavour::Crun, "has no such flag");
    let (b, _) = container(t);
    let seen = t.exec(&b.id, &["-g", "100", "-g", "65534"], &["report", "groups"]).ok().fact(0);
    assert_eq!(seen["groups"], json!([100, 65534]));
}

/// A process of the specification, as managers write it into a file.
fn process(args: &[&str]) -> Value {
    json!({
        "user": {"uid": 1000, "gid": 100, "additionalGids": [7]},
        "args": args,
        "cwd": "/tmp",
        "env": ["ONLY=this", "PATH=/"],
        "rlimits": [{"type": "RLIMIT_NPROC", "soft": 50, "hard": 60}],
        "capabilities": {"bounding": ["CAP_KILL"], "permitted": ["CAP_KILL"], "effective": []},
        "noNewPrivileges": true,
        "oomScoreAdj": 55,
    })
}

/// `--process` replaces the whole process.
fn exec_process_file(t: &Test) {
    let (b, _) = container(t);
    let file = t.dir.join("process.json");
    fs::write(&file, process(&["/probe", "report"]).to_string()).unwrap();
    let seen = t.call(&["exec", "--process", file.to_str().unwrap(), &b.id]).ok().fact(0);
    assert_eq!(seen["uid"], json!([1000, 1000, 1000]));
    assert_eq!(seen["gid"], json!([100, 100, 100]));
    assert_eq!(seen["groups"], json!([7]));
    assert_eq!(seen["cwd"], "/tmp");
    assert_eq!(seen["rlimits"]["RLIMIT_NPROC"], json!([50, 60]));
    assert_eq!(seen["caps"]["bounding"], 1 << 5);
    if t.flavour == Flavour::Corten {
        assert_eq!(seen["oom_score_adj"], 55);
    }
    let env = seen["env"].as_array().unwrap();
    assert!(env.contains(&json!("ONLY=this")) && !env.contains(&json!("TERM=xterm")), "{env:?}");
}

/// A process file with mistakes is refused with 255 and a reason.
fn exec_process_file_that_is_broken(t: &Test) {
    t.skip_on(Flavour::Crun, "crashes or returns 1");
    let (b, _) = container(t);
    let file = t.dir.join("process.json");
    let mut no_args = process(&[]);
    no_args["args"] = json!([]);
    let mut no_cwd = process(&["/probe", "report"]);
    no_cwd["cwd"] = json!("relative");
    for text in ["", "{", "[]", &no_args.to_string(), &no_cwd.to_string()] {
        fs::write(&file, text).unwrap();
        t.call(&["exec", "--process", file.to_str().unwrap(), &b.id]).fails_with(255);
    }
    t.call(&["exec", "--process", "/absent", &b.id]).fails_with(255).says("no such file");
    t.call(&["exec", &b.id]).fails();
}

/// P4: what follows the id belongs to the program, flags too.
fn exec_arguments_after_the_id_are_the_programs(t: &Test) {
    let (b, _) = container(t);
    let out = t.call(&["exec", &b.id, "/probe", "print", "--cwd", "-t", "--", "--env"]).ok();
    assert_eq!(out.fact(0), "--cwd -t -- --env");
}

/// `--detach` returns at once and `--pid-file` names the process.
fn exec_detached_with_pid_file(t: &Test) {
    let (b, _) = container(t);
    let file = t.dir.join("pid");
    let flags = ["--detach", "--pid-file", file.to_str().unwrap()];
    t.exec(&b.id, &flags, &["sleep"]).ok();
    let text = fs::read_to_string(&file).unwrap();
    let pid: i32 = text.parse().unwrap_or_else(|_| panic!("{text:?}"));
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    assert_eq!(words, b"/probe\0sleep\0");
    let absent = t.dir.join("pid2");
    let flags = ["--detach", "--pid-file", absent.to_str().unwrap()];
    t.call(&[&["exec"], &flags[..], &[&b.id, "/absent"]].concat()).fails_with(255);
    assert!(!absent.exists(), "no pid file after a failure: conmon takes it for success");
}

/// A detached process becomes a child of the caller's subreaper, which gets its exit code.
fn exec_detached_is_left_to_the_caller(t: &Test) {
    let (b, _) = container(t);
    let file = t.dir.join("pid");
    let flags = ["--detach", "--pid-file", file.to_str().unwrap()];
    t.exec(&b.id, &flags, &["exit", "11"]).ok();
    let pid = fs::read_to_string(&file).unwrap().parse().unwrap();
    assert_eq!(t.exit_code(pid), 11);
}

/// P12: the runtime's own failure is 255, with the words that managers look for.
fn exec_of_an_absent_program_is_255(t: &Test) {
    let (b, _) = container(t);
    t.skip_on(Flavour::Crun, "returns 1");
    t.call(&["exec", &b.id, "absent"]).fails_with(255).says("executable file not found in $PATH");
    t.call(&["exec", &b.id, "/absent"]).fails_with(255).says("no such file or directory");
}

/// A program without execute permission, or a directory, is 255 too.
fn exec_of_something_not_executable_is_255(t: &Test) {
    let (b, _) = container(t);
    b.file("/tmp/plain", "not a program");
    t.skip_on(Flavour::Crun, "returns 1");
    t.call(&["exec", &b.id, "/tmp/plain"]).fails_with(255).says("permission denied");
    t.call(&["exec", &b.id, "/tmp"]).fails_with(255).says("permission denied|is a directory");
}

/// An absent directory is made or refused, never replaced by another one.
fn exec_into_an_absent_directory(t: &Test) {
    let (b, _) = container(t);
    let out = t.exec(&b.id, &["--cwd", "/absent/dir"], &["report", "cwd"]);
    match out.code {
        0 => assert_eq!(out.fact(0)["cwd"], "/absent/dir"),
        _ => drop(out.fails().says("no such file or directory")),
    }
}

/// A created container may be entered before its program runs.
fn exec_in_a_created_container(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["exit", "0"]);
    t.create(&b).ok();
    assert_eq!(t.exec(&b.id, &[], &["print", "early"]).ok().fact(0), "early");
    assert_eq!(t.status(&b.id), "created");
}

/// A stopped container can't be entered.
fn exec_in_a_stopped_container_is_refused(t: &Test) {
    let (b, _) = container(t);
    t.kill(&b.id, "KILL").ok();
    t.wait_status(&b.id, "stopped");
    let out = t.exec(&b.id, &[], &["report"]).fails().says("cannot exec in a stopped container");
    if t.flavour != Flavour::Crun {
        out.exits(255);
    }
}

/// A paused container would let the command hang: it is refused.
fn exec_in_a_paused_container_is_refused(t: &Test) {
    t.skip_on(Flavour::Crun, "other exit code");
    let (b, _) = container(t);
    t.call(&["pause", &b.id]).ok();
    t.exec(&b.id, &[], &["report"]).fails_with(255).says("cannot exec in a paused container");
    assert_eq!(t.status(&b.id), "paused");
}

/// `--ignore-paused` enters a paused container; the program runs after resume.
fn exec_ignores_paused_if_told(t: &Test) {
    t.skip_on(Flavour::Crun, "has no such flag");
    let (b, _) = container(t);
    t.call(&["pause", &b.id]).ok();
    let exec = t.spawn(&["exec", "--ignore-paused", &b.id, "/probe", "print", "thawed"]);
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert_eq!(exec.stdout(), "");
    t.call(&["resume", &b.id]).ok();
    assert_eq!(exec.wait().ok().fact(0), "thawed");
}

/// `--cgroup` puts the process into a group below the container's, for one controller or all.
fn exec_in_a_sub_cgroup(t: &Test) {
    t.skip_on(Flavour::Crun, "v2 only");
    let (b, _) = container(t);
    let sub = b.cgroup_dir("pids").join("sub");
    fs::create_dir(&sub).unwrap();
    t.exec(&b.id, &["--cgroup", "absent"], &["report"]).fails_with(255);
    if corten_integration::cgroups::is_v2() {
        // One group for all.
        let seen = t.exec(&b.id, &["--cgroup", "sub"], &["report", "cgroup"]).ok().fact(0);
        assert!(seen["cgroup"].to_string().contains(&format!("{}/sub", b.cgroup())), "{seen}");
        t.exec(&b.id, &["--cgroup", "pids:sub"], &["report"]).fails_with(255);
        return;
    }
    let seen = t.exec(&b.id, &["--cgroup", "pids:sub"], &["report", "cgroup"]).ok().fact(0);
    let lines: Vec<String> = serde_json::from_value(seen["cgroup"].clone()).unwrap();
    let of = |name: &str| lines.iter().find(|l| l.contains(&format!(":{name}:"))).unwrap().clone();
    assert!(of("pids").ends_with(&format!("{}/sub", b.cgroup())), "{lines:?}");
    assert!(of("memory").ends_with(b.cgroup()), "{lines:?}");
}

/// A sub-cgroup can't lead out of the container's.
fn exec_cgroup_may_not_escape(t: &Test) {
    t.skip_on(Flavour::Crun, "v2 only");
    let (b, _) = container(t);
    for path in ["..", "../..", "pids:../..", "a/../../.."] {
        t.exec(&b.id, &["--cgroup", path], &["report", "cgroup"]).fails_with(255);
    }
}

/// The seccomp filter holds for exec too.
fn exec_keeps_the_seccomp_filter(t: &Test) {
    let mut b = t.bundle();
    b.set(
        "linux.seccomp",
        json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}]}),
    );
    t.sleeper(&mut b);
    let out = t.exec(&b.id, &[], &["mkdir", "/new", ";", "report", "status"]).ok();
    assert_eq!(out.fact(0)["errno"], "EOPNOTSUPP");
    assert_eq!(out.fact(1)["status"]["Seccomp"], "2");
}

/// CVE-2017-5226: without a terminal the process must not keep the caller's controlling one.
fn exec_without_terminal_is_a_session_of_its_own(t: &Test) {
    let (b, _) = container(t);
    let seen = t.exec(&b.id, &[], &["report", "pid", "sid", "tty"]).ok().fact(0);
    assert_eq!(seen["sid"], seen["pid"]);
    assert_eq!(seen["tty"]["controlling"], false);
}

/// `exec --tty` in the foreground makes a terminal of its own and copies both ways.
fn exec_terminal_in_the_foreground(t: &Test) {
    let (b, _) = container(t);
    // script(1) gives the runtime a terminal, as a person's shell would.
    let line = format!(
        "{} --root {} exec --tty {} /probe report tty pid sid",
        t.runtime.display(),
        t.root().display(),
        b.id
    );
    let mut command = Command::new("script");
    command.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
    let seen = t.execute(command).ok().fact(0);
    assert_eq!(seen["tty"]["controlling"], true, "{seen}");
    assert!(seen["tty"]["0"]["name"].as_str().unwrap().starts_with("/dev/pts/"), "{seen}");
    assert_eq!(seen["sid"], seen["pid"]);
}

/// `exec --tty --detach --console-socket`: the terminal arrives at the socket and works.
fn exec_terminal_through_a_console_socket(t: &Test) {
    let (b, _) = container(t);
    let socket = ConsoleSocket::bind(&t.dir.join("console"));
    let flags = ["--tty", "--detach", "--console-socket", socket.path()];
    t.exec(&b.id, &flags, &["report", "tty", ";", "stdin"]).ok();
    let mut terminal = socket.accept();
    terminal.expect("\"controlling\":true");
    terminal.send("typed\n\u{4}");
    terminal.expect("{\"stdin\":\"typed\\n\"}");
}

/// `--preserve-fds N` hands 3 .. 3+N over.
fn exec_preserves_descriptors(t: &Test) {
    let (b, _) = container(t);
    let file = t.dir.join("handed");
    fs::write(&file, "x").unwrap();
    let line = format!(
        "exec 3<{f} 4<{f} 5<{f}; $RUNTIME --root $ROOT exec --preserve-fds 2 {} /probe report fds",
        b.id,
        f = file.display()
    );
    let seen = t.shell(&line).ok().fact(0);
    let names: Vec<&String> = seen["fds"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["0", "1", "2", "3", "4"], "{seen}");
}

/// CVE-2024-21626: nothing but the three standard streams is open in the program.
fn exec_leaks_no_descriptor(t: &Test) {
    let (b, _) = container(t);
    let line = format!(
        "exec 3</ 4</proc 9</sys/fs/cgroup; $RUNTIME --root $ROOT exec {} /probe report fds",
        b.id
    );
    let seen = t.shell(&line).ok().fact(0);
    assert_eq!(seen["fds"].as_object().unwrap().len(), 3, "{seen}");
    for fd in 3..12 {
        let cwd = format!("/proc/self/fd/{fd}");
        let out = t.exec(&b.id, &["--cwd", &cwd], &["ls", "..", ";", "report", "cwd"]);
        assert!(out.code != 0 || !out.stdout.contains("sbin"), "the host's root is visible: {out}");
    }
}

/// exec enters the user namespace as its root, or as the user asked for.
fn exec_in_a_user_namespace(t: &Test) {
    let mut b = t.bundle();
    b.namespace("user", None)
        .set("linux.uidMappings", json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]))
        .set("linux.gidMappings", json!([{"containerID": 0, "hostID": 200_000, "size": 65536}]));
    open_up(&b);
    t.sleeper(&mut b);
    let seen = t.exec(&b.id, &["--user", "5:6"], &["report"]).ok().fact(0);
    assert_eq!(seen["uid"], json!([5, 5, 5]));
    let map = seen["idmaps"]["uid"][0].as_str().unwrap();
    assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", "100000", "65536"]);
    t.exec(&b.id, &["--user", "70000"], &["report"])
        .fails()
        .says("invalid argument|unmapped user|not mapped");
}

fn open_up(b: &Bundle) {
    std::os::unix::fs::chown(b.rootfs(), Some(100_000), Some(200_000)).unwrap();
}

/// exec uses the config the container was created with, not what the bundle holds now.
fn exec_is_isolated_from_edits_of_the_config(t: &Test) {
    t.skip_on(Flavour::Runc, "reads the bundle's config.json again");
    let (mut b, _) = container(t);
    b.push("process.env", json!("EVIL=1")).set("process.cwd", json!("/tmp")).write();
    let seen = t.exec(&b.id, &[], &["report", "env", "cwd"]).ok().fact(0);
    assert!(!seen["env"].to_string().contains("EVIL"), "{seen}");
    assert_eq!(seen["cwd"], "/");
    fs::remove_file(Path::new(b.path()).join("config.json")).unwrap();
    t.exec(&b.id, &[], &["report", "pid"]).ok();
}

/// exec writes nothing into the root file system, so a read-only one is fine.
fn exec_program_may_be_in_a_read_only_container(t: &Test) {
    let mut b = t.bundle();
    b.set("root.readonly", json!(true));
    t.sleeper(&mut b);
    let out = t.exec(&b.id, &[], &["create", "/x", ""]).ok();
    assert_eq!(out.fact(0)["errno"], "EROFS");
}

/// Ten at the same time don't hinder each other.
fn exec_many_at_once(t: &Test) {
    let (b, _) = container(t);
    let all: Vec<_> =
        (0..10).map(|n| t.spawn(&["exec", &b.id, "/probe", "exit", &n.to_string()])).collect();
    for (n, running) in (0..).zip(all) {
        running.wait().exits(n);
    }
}

/// When the container is killed, so are the processes that entered it, and their exec returns.
fn exec_ends_with_the_container(t: &Test) {
    let (b, _) = container(t);
    let mut exec = t.spawn(&["exec", &b.id, "/probe", "print", "in", ";", "sleep"]);
    exec.wait_for("in");
    t.kill(&b.id, "KILL").ok();
    exec.wait().exits(137);
    wait_until("the container is stopped", || t.status(&b.id) == "stopped");
}
