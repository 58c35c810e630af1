//! `process`: user, capabilities, limits, environment, directory, scheduling, terminal, streams.

use std::fs;
use std::process::ExitCode;

use corten_integration::console::ConsoleSocket;
use corten_integration::{Bundle, Flavour, Test, suite, tests};
use serde_json::{Value, json};

fn main() -> ExitCode {
    suite(tests![
        user_and_groups,
        user_without_groups_has_none_of_the_callers,
        user_ids_out_of_range_are_refused,
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
        capabilities_five_sets,
        capabilities_absent_are_none,
        capabilities_of_an_ordinary_user,
        capabilities_ambient_reach_an_ordinary_user,
        capabilities_unknown_is_a_warning,
        no_new_privileges,
        no_new_privileges_off_lets_setuid_work,
        rlimits_all_sixteen,
        rlimits_duplicate_is_refused,
        rlimits_unknown_is_refused,
        rlimits_soft_above_hard_is_refused,
        rlimits_not_given_are_the_callers,
        oom_score_adj,
        oom_score_adj_absent_leaves_the_callers,
        oom_score_adj_out_of_range_is_refused,
        scheduler_batch_with_nice,
        scheduler_idle,
        scheduler_fifo_or_a_reason,
        scheduler_unknown_is_refused,
        io_priority,
        personality_linux32,
        personality_unknown_is_refused,
        exec_cpu_affinity_final,
        session_keyring_is_new,
        no_new_keyring_keeps_the_callers,
        streams_are_the_callers,
        streams_can_be_opened_again_by_the_user,
        descriptors_are_not_leaked,
        descriptors_are_preserved_on_demand,
        listen_fds_are_passed_on,
        listen_fds_for_another_process_are_not,
        first_process_leads_a_session,
        signals_are_not_blocked_or_ignored,
        parent_death_signal_is_not_set,
        the_program_is_dumpable,
        terminal_arrives_at_the_console_socket,
        terminal_has_the_console_size,
        terminal_is_controlling_and_dev_console,
        terminal_resize_reaches_the_program,
        terminal_belongs_to_the_user,
        terminal_in_the_foreground,
        terminal_needs_a_console_socket_to_detach,
        console_socket_without_terminal_is_refused,
        console_size_without_terminal_is_ignored,
        console_socket_that_is_absent_fails,
    ])
}

fn caps(names: &[u32]) -> u64 {
    names.iter().fold(0, |mask, bit| mask | 1 << bit)
}

/// uid, gid and supplementary groups are exactly those of process.user.
fn user_and_groups(t: &Test) {
    let mut b = t.bundle();
    b.set("process.user", json!({"uid": 1234, "gid": 5678, "additionalGids": [10, 20, 1000]}));
    let seen = t.report(&b);
    assert_eq!(seen["uid"], json!([1234, 1234, 1234]));
    assert_eq!(seen["gid"], json!([5678, 5678, 5678]));
    assert_eq!(seen["groups"], json!([10, 20, 1000]));
}

/// The caller's supplementary groups don't reach the program.
fn user_without_groups_has_none_of_the_callers(t: &Test) {
    let b = t.bundle();
    b.write();
    let line = format!("setpriv --groups 44,55 $RUNTIME --root $ROOT run -b {} {}", b.path(), b.id);
    let seen = t.shell(&line).ok().fact(0);
    let groups = seen["groups"].as_array().unwrap();
    assert!(!groups.contains(&json!(44)) && !groups.contains(&json!(55)), "{groups:?}");
}

/// CVE-2024-40635: ids beyond 32 bits, negative ones and -1 are refused, never wrapped.
fn user_ids_out_of_range_are_refused(t: &Test) {
    t.skip_on_peers("take 4294967295 for 'unchanged'");
    for bad in
        [json!(4_294_967_295_u64), json!(4_294_967_296_u64), json!(-1), json!(1.5), json!("0")]
    {
        for field in ["uid", "gid"] {
            let mut b = t.bundle();
            b.set(&format!("process.user.{field}"), bad.clone());
            t.create_fails(&b).says(&format!("process.user.{field}"));
        }
    }
}

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

fn env_of(seen: &Value) -> Vec<String> {
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

/// Each of the five sets is what the config says.
fn capabilities_five_sets(t: &Test) {
    let mut b = t.bundle();
    b.set(
        "process.capabilities",
        json!({
            "bounding": ["CAP_KILL", "CAP_CHOWN", "CAP_NET_RAW", "CAP_SYS_ADMIN"],
            "permitted": ["CAP_KILL", "CAP_CHOWN", "CAP_NET_RAW"],
            "effective": ["CAP_KILL", "CAP_NET_RAW"],
            "inheritable": ["CAP_CHOWN", "CAP_NET_RAW"],
            "ambient": ["CAP_NET_RAW"],
        }),
    )
    .set("process.user", json!({"uid": 1000, "gid": 1000}));
    // exec(2) of an ordinary user keeps what is ambient, and bounding and inheritable.
    let seen = t.report(&b);
    assert_eq!(seen["caps"]["bounding"], caps(&[5, 0, 13, 21]));
    assert_eq!(seen["caps"]["inheritable"], caps(&[0, 13]));
    assert_eq!(seen["caps"]["ambient"], caps(&[13]));
    assert_eq!(seen["caps"]["permitted"], caps(&[13]));
    assert_eq!(seen["caps"]["effective"], caps(&[13]));
}

/// Without process.capabilities the program has none.
fn capabilities_absent_are_none(t: &Test) {
    t.skip_on(Flavour::Runc, "leaves the caller's");
    let mut b = t.bundle();
    b.unset("process.capabilities");
    let seen = t.report(&b);
    for set in ["effective", "permitted", "inheritable", "ambient", "bounding"] {
        assert_eq!(seen["caps"][set], 0, "{set}: {}", seen["caps"]);
    }
}

/// An ordinary user without ambient ones has no effective capability.
fn capabilities_of_an_ordinary_user(t: &Test) {
    let mut b = t.bundle();
    b.set("process.user", json!({"uid": 1000, "gid": 1000}));
    let seen = t.report(&b);
    assert_eq!(seen["caps"]["effective"], 0);
    assert_eq!(seen["caps"]["permitted"], 0);
    assert_ne!(seen["caps"]["bounding"], 0);
}

/// An ambient capability works for an ordinary user.
fn capabilities_ambient_reach_an_ordinary_user(t: &Test) {
    let mut b = t.bundle();
    let names = ["CAP_CHOWN", "CAP_FOWNER"];
    for set in ["bounding", "effective", "permitted", "inheritable", "ambient"] {
        b.set(&format!("process.capabilities.{set}"), json!(names));
    }
    b.file("/file", "");
    b.set("process.user", json!({"uid": 1000, "gid": 1000})).probe(&["chown", "/file", "1234"]);
    assert_eq!(t.run(&b).ok().fact(0)["ok"], true);
}

/// "MUST be a warning": a name this runtime or kernel doesn't know is no error.
fn capabilities_unknown_is_a_warning(t: &Test) {
    t.skip_on(Flavour::Crun, "refuses it");
    let mut b = t.bundle();
    b.capabilities(&["CAP_KILL", "CAP_OF_TOMORROW"]);
    let out = t.run(&b).ok();
    assert!(out.stderr.contains("CAP_OF_TOMORROW"), "{out} should have warned");
    assert_eq!(out.fact(0)["caps"]["effective"], caps(&[5]));
}

/// noNewPrivileges is the kernel's bit.
fn no_new_privileges(t: &Test) {
    for (asked, bit) in [(json!(true), 1), (json!(false), 0)] {
        let mut b = t.bundle();
        b.set("process.noNewPrivileges", asked);
        assert_eq!(t.report(&b)["nnp"], bit);
    }
    let mut b = t.bundle();
    b.unset("process.noNewPrivileges");
    assert_eq!(t.report(&b)["nnp"], 0);
}

/// With the bit a setuid program gains nothing, without it does.
fn no_new_privileges_off_lets_setuid_work(t: &Test) {
    use std::os::unix::fs::PermissionsExt;
    for (bit, uid) in [(true, 1000), (false, 0)] {
        let mut b = t.bundle();
        fs::copy(b.rootfs().join("probe"), b.rootfs().join("setuid")).unwrap();
        fs::set_permissions(b.rootfs().join("setuid"), fs::Permissions::from_mode(0o4755)).unwrap();
        b.set("process.user", json!({"uid": 1000, "gid": 1000}))
            .set("process.noNewPrivileges", json!(bit))
            .args(&["/setuid", "report", "uid"]);
        assert_eq!(t.report(&b)["uid"][1], uid);
    }
}

/// All sixteen resources can be limited, soft and hard.
fn rlimits_all_sixteen(t: &Test) {
    let values = [
        ("RLIMIT_AS", 1_u64 << 33),
        ("RLIMIT_CORE", 1 << 20),
        ("RLIMIT_CPU", 1000),
        ("RLIMIT_DATA", 1 << 33),
        ("RLIMIT_FSIZE", 1 << 30),
        ("RLIMIT_LOCKS", 500),
        ("RLIMIT_MEMLOCK", 65536),
        ("RLIMIT_MSGQUEUE", 4096),
        ("RLIMIT_NICE", 0),
        ("RLIMIT_NOFILE", 512),
        ("RLIMIT_NPROC", 300),
        ("RLIMIT_RSS", 1 << 30),
        ("RLIMIT_RTPRIO", 0),
        ("RLIMIT_RTTIME", 100_000),
        ("RLIMIT_SIGPENDING", 100),
        ("RLIMIT_STACK", 1 << 22),
    ];
    let mut b = t.bundle();
    let all: Vec<Value> = values
        .iter()
        .map(|(kind, hard)| json!({"type": kind, "soft": hard / 2, "hard": hard}))
        .collect();
    b.set("process.rlimits", json!(all));
    let seen = t.report(&b);
    for (kind, hard) in values {
        assert_eq!(seen["rlimits"][kind], json!([hard / 2, hard]), "{kind}");
    }
}

/// "the runtime MUST generate an error" for a resource given twice.
fn rlimits_duplicate_is_refused(t: &Test) {
    t.skip_on_peers("take the last");
    let mut b = t.bundle();
    b.push("process.rlimits", json!({"type": "RLIMIT_NOFILE", "soft": 10, "hard": 20}));
    t.create_fails(&b).says("process.rlimits");
}

/// A resource that doesn't exist is an error.
fn rlimits_unknown_is_refused(t: &Test) {
    let mut b = t.bundle();
    b.push("process.rlimits", json!({"type": "RLIMIT_NOPE", "soft": 10, "hard": 20}));
    t.create_fails(&b).says("RLIMIT_NOPE");
}

/// The kernel refuses a soft limit above the hard one; so does the runtime.
fn rlimits_soft_above_hard_is_refused(t: &Test) {
    let mut b = t.bundle();
    b.set("process.rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": 20, "hard": 10}]));
    t.create_fails(&b);
}

/// Resources that aren't named keep the caller's limits.
fn rlimits_not_given_are_the_callers(t: &Test) {
    let mut b = t.bundle();
    b.unset("process.rlimits").write();
    let line =
        format!("ulimit -n 321; ulimit -c 0; $RUNTIME --root $ROOT run -b {} {}", b.path(), b.id);
    let seen = t.shell(&line).ok().fact(0);
    assert_eq!(seen["rlimits"]["RLIMIT_NOFILE"], json!([321, 321]));
    assert_eq!(seen["rlimits"]["RLIMIT_CORE"], json!([0, 0]));
}

/// oomScoreAdj is the program's.
fn oom_score_adj(t: &Test) {
    for value in [0, 500, 1000] {
        let mut b = t.bundle();
        b.set("process.oomScoreAdj", json!(value));
        assert_eq!(t.report(&b)["oom_score_adj"], value);
    }
}

/// "If not set, the runtime SHOULD NOT modify" it.
fn oom_score_adj_absent_leaves_the_callers(t: &Test) {
    let b = t.bundle();
    b.write();
    let line = format!(
        "echo 123 >/proc/self/oom_score_adj; $RUNTIME --root $ROOT run -b {} {}",
        b.path(),
        b.id
    );
    assert_eq!(t.shell(&line).ok().fact(0)["oom_score_adj"], 123);
}

/// The kernel knows -1000 to 1000.
fn oom_score_adj_out_of_range_is_refused(t: &Test) {
    for value in [1001, -1001, 100_000] {
        let mut b = t.bundle();
        b.set("process.oomScoreAdj", json!(value));
        t.create_fails(&b);
    }
}

/// SCHED_BATCH with a nice value.
fn scheduler_batch_with_nice(t: &Test) {
    t.skip_on_peers("older than process.scheduler");
    let mut b = t.bundle();
    b.set("process.scheduler", json!({"policy": "SCHED_BATCH", "nice": 7}));
    let seen = t.report(&b);
    assert_eq!(seen["sched"]["policy"], 3);
    assert_eq!(seen["sched"]["nice"], 7);
}

/// SCHED_IDLE.
fn scheduler_idle(t: &Test) {
    t.skip_on_peers("older than process.scheduler");
    let mut b = t.bundle();
    b.set("process.scheduler", json!({"policy": "SCHED_IDLE"}));
    assert_eq!(t.report(&b)["sched"]["policy"], 5);
}

/// A real-time policy is applied with its priority and flags, or refused with the errno.
fn scheduler_fifo_or_a_reason(t: &Test) {
    t.skip_on_peers("older than process.scheduler");
    let mut b = t.bundle();
    b.set(
        "process.scheduler",
        json!({"policy": "SCHED_FIFO", "priority": 3, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}),
    );
    let out = t.run(&b);
    if out.code != 0 {
        out.fails().says("scheduler|sched");
        t.nothing_left(&b);
        return;
    }
    let seen = out.fact(0);
    assert_eq!(seen["sched"]["policy"], 1);
    assert_eq!(seen["sched"]["priority"], 3);
    assert_eq!(seen["sched"]["flags"].as_u64().unwrap() & 1, 1);
}

/// A policy or flag that doesn't exist is an error.
fn scheduler_unknown_is_refused(t: &Test) {
    t.skip_on_peers("older than process.scheduler");
    let mut b = t.bundle();
    b.set("process.scheduler", json!({"policy": "SCHED_NOPE"}));
    t.create_fails(&b).says("scheduler");
    let mut b = t.bundle();
    b.set("process.scheduler", json!({"policy": "SCHED_BATCH", "flags": ["SCHED_FLAG_NOPE"]}));
    t.create_fails(&b).says("scheduler");
}

/// ioPriority: class and level.
fn io_priority(t: &Test) {
    t.skip_on_peers("older than process.ioPriority");
    for (class, number) in [("IOPRIO_CLASS_BE", 2), ("IOPRIO_CLASS_IDLE", 3)] {
        let mut b = t.bundle();
        b.set("process.ioPriority", json!({"class": class, "priority": 6}));
        assert_eq!(t.report(&b)["ioprio"], number << 13 | 6, "{class}");
    }
    let mut b = t.bundle();
    b.set("process.ioPriority", json!({"class": "IOPRIO_CLASS_NOPE", "priority": 6}));
    t.create_fails(&b).says("ioPriority");
}

/// LINUX32 makes the machine look like a 32-bit one.
fn personality_linux32(t: &Test) {
    t.skip_on(Flavour::Runc, "1.1 is older than linux.personality");
    let mut b = t.bundle();
    b.set("linux.personality", json!({"domain": "LINUX32"}));
    let seen = t.report(&b);
    assert_eq!(seen["personality"].as_i64().unwrap() & 0xff, 8);
    assert_eq!(seen["uname"]["machine"], "i686");
    let mut b = t.bundle();
    b.set("linux.personality", json!({"domain": "LINUX"}));
    assert_eq!(t.report(&b)["personality"].as_i64().unwrap() & 0xff, 0);
}

/// Another domain is an error.
fn personality_unknown_is_refused(t: &Test) {
    t.skip_on(Flavour::Runc, "1.1 is older than linux.personality");
    let mut b = t.bundle();
    b.set("linux.personality", json!({"domain": "BSD"}));
    t.create_fails(&b).says("personality");
}

/// execCPUAffinity.final is what an exec'ed process may run on.
fn exec_cpu_affinity_final(t: &Test) {
    t.skip_on_peers("older than process.execCPUAffinity");
    let mut b = t.bundle();
    b.set("process.execCPUAffinity", json!({"initial": "0", "final": "1"}));
    t.sleeper(&mut b);
    let seen = t.exec(&b.id, &[], &["report", "sched"]).ok().fact(0);
    assert_eq!(seen["sched"]["affinity"], json!([1]));
}

/// The program's session keyring is its own, named after the container.
fn session_keyring_is_new(t: &Test) {
    let b = t.bundle();
    let seen = t.report(&b);
    let name = seen["keyring"].as_str().unwrap_or_else(|| panic!("no keyring: {seen}")).to_owned();
    if t.flavour != Flavour::Crun {
        assert!(name.ends_with(&format!("_ses.{}", b.id)), "{name}");
    }
}

/// `--no-new-keyring` leaves the caller's.
fn no_new_keyring_keeps_the_callers(t: &Test) {
    let b = t.bundle();
    b.write();
    let out = t.call(&["run", "--no-new-keyring", "--bundle", b.path(), &b.id]).ok();
    assert!(!out.fact(0)["keyring"].as_str().unwrap_or("").contains(&b.id));
}

/// Standard streams of a container are the very files that `create` was given.
fn streams_are_the_callers(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["report", "fds"]).write();
    let [input, output] = ["input", "output"].map(|name| t.dir.join(name));
    fs::write(&input, "").unwrap();
    let (i, o) = (input.display(), output.display());
    t.shell(&format!("$RUNTIME --root $ROOT create -b {} {} <{i} >{o} 2>{o}", b.path(), b.id)).ok();
    t.start(&b.id).ok();
    t.wait_status(&b.id, "stopped");
    let seen: Value = serde_json::from_str(&fs::read_to_string(output).unwrap()).unwrap();
    assert!(seen["fds"]["0"].as_str().unwrap().ends_with("/input"), "{seen}");
    assert!(seen["fds"]["2"].as_str().unwrap().ends_with("/output"), "{seen}");
}

/// conmon's pipes: /proc/self/fd/1 can be opened again by an ordinary user.
fn streams_can_be_opened_again_by_the_user(t: &Test) {
    let mut b = t.bundle();
    b.set("process.user", json!({"uid": 1000, "gid": 1000}));
    b.probe(&["write", "/proc/self/fd/1", "\"again\"\n", ";", "write", "/proc/self/fd/2", "x\n"]);
    b.write();
    let line =
        format!("($RUNTIME --root $ROOT run -b {} {} 2>&1 | cat) </dev/null", b.path(), b.id);
    let out = t.shell(&line).ok();
    assert!(out.stdout.contains("\"again\""), "{out}");
    assert!(!out.stdout.contains("EACCES"), "{out}");
}

/// The program has its three streams and nothing else, whatever the caller had open.
fn descriptors_are_not_leaked(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["report", "fds"]).write();
    let line = format!(
        "exec 3</ 4</etc/passwd 9</proc 8</sys; $RUNTIME --root $ROOT run -b {} {}",
        b.path(),
        b.id
    );
    let seen = t.shell(&line).ok().fact(0);
    let open: Vec<&String> = seen["fds"].as_object().unwrap().keys().collect();
    assert_eq!(open, ["0", "1", "2"], "{seen}");
}

/// `--preserve-fds N` keeps 3 .. 3+N, and no more.
fn descriptors_are_preserved_on_demand(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["report", "fds"]).write();
    let line = format!(
        "exec 3</etc/passwd 4</etc/group 5</etc/hosts; $RUNTIME --root $ROOT run --preserve-fds 2 -b {} {}",
        b.path(),
        b.id
    );
    let seen = t.shell(&line).ok().fact(0);
    let open: Vec<&String> = seen["fds"].as_object().unwrap().keys().collect();
    assert_eq!(open, ["0", "1", "2", "3", "4"], "{seen}");
    assert!(seen["fds"]["4"].as_str().unwrap().ends_with("group"), "{seen}");
}

/// Socket activation: LISTEN_FDS are kept and LISTEN_PID is the program's pid.
fn listen_fds_are_passed_on(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["report", "fds", "env"]).write();
    let line = format!(
        "exec 3</etc/passwd 4</etc/group; export LISTEN_FDS=2 LISTEN_FDNAMES=a:b; exec sh -c \
         'export LISTEN_PID=$$; exec $RUNTIME --root $ROOT run -b {} {}'",
        b.path(),
        b.id
    );
    let seen = t.shell(&line).ok().fact(0);
    assert_eq!(seen["fds"].as_object().unwrap().len(), 5, "{seen}");
    let env = env_of(&seen);
    assert!(env.contains(&"LISTEN_FDS=2".to_owned()), "{env:?}");
    assert!(env.contains(&"LISTEN_PID=1".to_owned()), "{env:?}");
    if t.flavour == Flavour::Corten {
        assert!(env.contains(&"LISTEN_FDNAMES=a:b".to_owned()), "{env:?}");
    }
}

/// LISTEN_FDS that are meant for another process are not ours to pass on.
fn listen_fds_for_another_process_are_not(t: &Test) {
    t.skip_on_peers("1.1 and 1.8 don't look at LISTEN_PID");
    let mut b = t.bundle();
    b.probe(&["report", "fds", "env"]).write();
    let line = format!(
        "exec 3</etc/passwd 4</etc/group; LISTEN_FDS=2 LISTEN_PID=1 $RUNTIME --root $ROOT run -b {} {}",
        b.path(),
        b.id
    );
    let seen = t.shell(&line).ok().fact(0);
    assert_eq!(seen["fds"].as_object().unwrap().len(), 3, "{seen}");
    assert!(!env_of(&seen).iter().any(|e| e.starts_with("LISTEN_")), "{seen}");
}

/// The first process is pid 1 of its namespace and leads a session.
fn first_process_leads_a_session(t: &Test) {
    let seen = t.report(&t.bundle());
    assert_eq!(seen["pid"], 1);
    assert_eq!(seen["sid"], 1);
    assert_eq!(seen["tty"]["controlling"], false);
}

/// The program starts with no signal blocked or ignored, whatever the caller did.
fn signals_are_not_blocked_or_ignored(t: &Test) {
    let b = t.bundle();
    b.write();
    let line =
        format!("trap '' INT QUIT PIPE USR1; $RUNTIME --root $ROOT run -b {} {}", b.path(), b.id);
    let seen = t.shell(&line).ok().fact(0);
    assert_eq!(seen["status"]["SigBlk"], "0000000000000000", "{}", seen["status"]);
    t.skip_on_peers("ignored signals stay ignored");
    // Rust's runtime ignores SIGPIPE in the probe itself.
    let ignored = u64::from_str_radix(seen["status"]["SigIgn"].as_str().unwrap(), 16).unwrap();
    assert_eq!(ignored & !(1 << 12), 0, "{}", seen["status"]);
}

/// The program lives on when the runtime ends: no parent death signal is left.
fn parent_death_signal_is_not_set(t: &Test) {
    let seen = t.report(&t.bundle());
    assert_eq!(seen["extra"]["pdeathsig"], Value::Null);
    assert_eq!(seen["extra"]["subreaper"], false);
}

/// After execve the program is an ordinary, dumpable process.
fn the_program_is_dumpable(t: &Test) {
    assert_eq!(t.report(&t.bundle())["dumpable"], 1);
}

fn with_terminal(t: &Test, steps: &[&str]) -> Bundle {
    let mut b = t.bundle();
    b.set("process.terminal", json!(true)).probe(steps);
    b
}

/// Creates the container with a console socket and starts it.
fn on_a_terminal(t: &Test, b: &Bundle) -> corten_integration::console::Terminal {
    b.write();
    let socket = ConsoleSocket::bind(&t.dir.join(format!("console{}", t.next())));
    t.call(&["create", "--bundle", b.path(), "--console-socket", socket.path(), &b.id]).ok();
    let terminal = socket.accept();
    t.start(&b.id).ok();
    terminal
}

/// The terminal's master is sent to the console socket, and talks to the program.
fn terminal_arrives_at_the_console_socket(t: &Test) {
    let b = with_terminal(t, &["print", "tick", ";", "stdin"]);
    let mut terminal = on_a_terminal(t, &b);
    assert!(!terminal.name.is_empty(), "the message names the terminal");
    terminal.expect("\"tick\"");
    terminal.send("typed\n\u{4}");
    terminal.expect("{\"stdin\":\"typed\\n\"}");
    t.wait_status(&b.id, "stopped");
}

/// consoleSize is the window's size from the start.
fn terminal_has_the_console_size(t: &Test) {
    let mut b = with_terminal(t, &["report", "tty"]);
    b.set("process.consoleSize", json!({"height": 33, "width": 101}));
    let text = on_a_terminal(t, &b).expect("\"controlling\"");
    t.wait_status(&b.id, "stopped");
    let seen: Value = serde_json::from_str(text.trim()).unwrap();
    assert_eq!(seen["tty"]["0"]["rows"], 33, "{seen}");
    assert_eq!(seen["tty"]["0"]["columns"], 101, "{seen}");
}

/// All three streams are the terminal, it is the controlling one, and /dev/console is the same.
fn terminal_is_controlling_and_dev_console(t: &Test) {
    let b = with_terminal(t, &["report", "tty", "devices", ";", "print", "end"]);
    let text = on_a_terminal(t, &b).expect("\"end\"");
    let seen: Value = serde_json::from_str(text.lines().next().unwrap().trim()).unwrap();
    assert_eq!(seen["tty"]["controlling"], true, "{seen}");
    for fd in ["0", "1", "2"] {
        assert!(seen["tty"][fd]["rows"].is_number(), "stream {fd}: {seen}");
    }
    assert_eq!(seen["devices"]["console"]["type"], "c");
    assert_eq!(seen["devices"]["console"]["major"], 136);
    assert_eq!(
        seen["devices"]["console"]["mode"].as_i64().unwrap() & 0o022,
        0o020 & 0o022 & seen["devices"]["console"]["mode"].as_i64().unwrap()
    );
}

/// A resize of the master reaches the program as SIGWINCH with the new size.
fn terminal_resize_reaches_the_program(t: &Test) {
    let b = with_terminal(t, &["winch"]);
    let mut terminal = on_a_terminal(t, &b);
    terminal.expect("ready");
    let mut resize = std::process::Command::new(corten_integration::bundle::probe());
    resize.args(["resize", "50", "132"]);
    resize.stdin(terminal.master().try_clone().unwrap());
    t.launch(resize).wait().ok();
    let text = terminal.expect("\"controlling\"");
    assert!(text.contains("\"rows\":50") && text.contains("\"columns\":132"), "{text}");
}

/// The terminal's slave belongs to the program's user.
fn terminal_belongs_to_the_user(t: &Test) {
    let mut b = with_terminal(
        t,
        &["stat", "/dev/pts/0", ";", "open-rw", "/dev/pts/0", ";", "print", "end"],
    );
    b.set("process.user", json!({"uid": 1000, "gid": 1000}));
    let text = on_a_terminal(t, &b).expect("\"end\"");
    assert!(text.contains("\"uid\":1000"), "{text}");
    assert!(text.lines().nth(1).unwrap().contains("\"ok\":true"), "{text}");
}

/// A foreground run makes the terminal itself and copies both ways.
fn terminal_in_the_foreground(t: &Test) {
    let b = with_terminal(t, &["report", "tty", ";", "exit", "3"]);
    b.write();
    let line = format!(
        "{} --root {} run -b {} {}",
        t.runtime.display(),
        t.root().display(),
        b.path(),
        b.id
    );
    let mut command = std::process::Command::new("script");
    command.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
    let out = t.execute(command).exits(3);
    assert_eq!(out.fact(0)["tty"]["controlling"], true);
}

/// Without a socket nobody could hold the terminal of a detached container.
fn terminal_needs_a_console_socket_to_detach(t: &Test) {
    let b = with_terminal(t, &["report"]);
    t.create_fails(&b).says(
        "cannot allocate tty if runc will detach without setting console socket|console socket",
    );
}

/// The opposite mistake.
fn console_socket_without_terminal_is_refused(t: &Test) {
    t.skip_on(Flavour::Crun, "ignores it");
    let b = t.bundle();
    b.write();
    let socket = ConsoleSocket::bind(&t.dir.join("console"));
    t.call(&["create", "--bundle", b.path(), "--console-socket", socket.path(), &b.id])
        .fails()
        .says("cannot use console socket");
    t.nothing_left(&b);
}

/// consoleSize without terminal has no meaning and does no harm.
fn console_size_without_terminal_is_ignored(t: &Test) {
    let mut b = t.bundle();
    b.set("process.consoleSize", json!({"height": 33, "width": 101}));
    assert_eq!(t.report(&b)["tty"]["0"], Value::Null);
}

/// A socket that isn't there fails the create and leaves nothing.
fn console_socket_that_is_absent_fails(t: &Test) {
    let b = with_terminal(t, &["report"]);
    b.write();
    t.call(&["create", "--bundle", b.path(), "--console-socket", "/absent/socket", &b.id])
        .fails()
        .says("no such file or directory");
    t.nothing_left(&b);
}
