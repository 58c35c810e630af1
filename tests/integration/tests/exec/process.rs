//! The process as flags or a file describe it: user, capabilities, environment, directory.

use std::fs;

use corten_integration::suite::Case;
use corten_integration::{Flavour, Test, tests};
use serde_json::{Value, json};

use crate::container;

pub(crate) const TESTS: &[Case] = tests![
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
    exec_into_an_absent_directory,
];

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

/// An absent directory is made or refused, never replaced by another one.
fn exec_into_an_absent_directory(t: &Test) {
    let (b, _) = container(t);
    let out = t.exec(&b.id, &["--cwd", "/absent/dir"], &["report", "cwd"]);
    match out.code {
        0 => assert_eq!(out.fact(0)["cwd"], "/absent/dir"),
        _ => drop(out.fails().says("no such file or directory")),
    }
}
