//! How the filter is loaded: no_new_privs, users, flags, none and a large one.

use corten_integration::suite::Case;
use corten_integration::{Bundle, Flavour, Test, tests};
use serde_json::{Value, json};

use crate::{LSEEK, MKDIR, filtered, rule};

pub(crate) const TESTS: &[Case] = tests![
    filter_without_no_new_privs,
    filter_with_no_new_privs,
    filter_of_an_ordinary_user,
    flags_are_accepted,
    there_is_one_filter,
    empty_means_default_for_all,
    large_profile,
];

fn mode(t: &Test, b: &mut Bundle) -> Value {
    b.probe(&["report", "status", "nnp", "caps"]);
    t.run(b).ok().fact(0)
}

/// Without no_new_privs the filter needs CAP_SYS_ADMIN, so it is loaded before they are dropped.
fn filter_without_no_new_privs(t: &Test) {
    let mut b = filtered(t, "SCMP_ACT_ALLOW", &[rule(&["mkdir"], "SCMP_ACT_ERRNO")]);
    b.set("process.noNewPrivileges", json!(false));
    let seen = mode(t, &mut b);
    assert_eq!(seen["status"]["Seccomp"], "2");
    assert_eq!(seen["nnp"], 0);
    assert_eq!(seen["caps"]["effective"].as_u64().unwrap() & 1 << 21, 0);
}

/// With it the filter comes last: the runtime's own calls need not be allowed.
fn filter_with_no_new_privs(t: &Test) {
    let forbidden = ["setuid", "setgid", "setgroups", "capset", "prctl", "mount", "chdir"];
    let mut b = filtered(t, "SCMP_ACT_ALLOW", &[rule(&forbidden[..3], "SCMP_ACT_KILL_PROCESS")]);
    b.set("process.user", json!({"uid": 1000, "gid": 1000, "additionalGids": [5]}));
    b.probe(&["report", "status", "uid"]);
    let seen = t.run(&b).ok().fact(0);
    assert_eq!(seen["status"]["Seccomp"], "2");
    assert_eq!(seen["uid"], json!([1000, 1000, 1000]));
}

/// For an ordinary user too, with and without no_new_privs.
fn filter_of_an_ordinary_user(t: &Test) {
    for nnp in [true, false] {
        let mut b = filtered(t, "SCMP_ACT_ALLOW", &[rule(&["mkdir"], "SCMP_ACT_ERRNO")]);
        b.set("process.noNewPrivileges", json!(nnp))
            .set("process.user", json!({"uid": 1000, "gid": 1000}));
        assert_eq!(mode(t, &mut b)["status"]["Seccomp"], "2", "{nnp}");
    }
}

/// The flags of the specification.
fn flags_are_accepted(t: &Test) {
    t.skip_on(Flavour::Runc, "1.1 knows no flags");
    for flags in [
        json!([]),
        json!(["SECCOMP_FILTER_FLAG_LOG"]),
        json!(["SECCOMP_FILTER_FLAG_SPEC_ALLOW"]),
        json!(["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG"]),
    ] {
        let mut b = filtered(t, "SCMP_ACT_ALLOW", &[rule(&["mkdir"], "SCMP_ACT_ERRNO")]);
        b.set("linux.seccomp.flags", flags.clone());
        assert_eq!(mode(t, &mut b)["status"]["Seccomp"], "2", "{flags}");
    }
}

/// One filter is loaded, not two.
fn there_is_one_filter(t: &Test) {
    let mut b = filtered(t, "SCMP_ACT_ALLOW", &[rule(&["mkdir"], "SCMP_ACT_ERRNO")]);
    assert_eq!(mode(t, &mut b)["status"]["Seccomp_filters"], "1");
    let mut none = t.bundle();
    assert_eq!(mode(t, &mut none)["status"]["Seccomp"], "0");
}

/// No rules and ALLOW: the program runs.
fn empty_means_default_for_all(t: &Test) {
    let mut b = filtered(t, "SCMP_ACT_ALLOW", &[]);
    b.probe(&["syscall", MKDIR, "str:/x", "0"]);
    assert_eq!(t.run(&b).ok().fact(0)["ok"], true);
}

/// Hundreds of rules with arguments, three architectures.
fn large_profile(t: &Test) {
    let mut rules: Vec<Value> = (0..400_u64)
        .map(|n| {
            json!({"names": ["lseek"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95,
            "args": [{"index": 1, "value": n * 2 + 1000, "op": "SCMP_CMP_EQ"}]})
        })
        .collect();
    rules.push(rule(
        &["mkdir", "mkdirat", "rmdir", "mount", "umount2", "ptrace", "reboot"],
        "SCMP_ACT_ERRNO",
    ));
    let mut b = filtered(t, "SCMP_ACT_ALLOW", &rules);
    b.set(
        "linux.seccomp.architectures",
        json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]),
    );
    b.probe(&[
        "syscall", LSEEK, "999", "1798", "0", ";", "syscall", LSEEK, "999", "1799", "0", ";",
        "syscall", MKDIR, "str:/x", "0",
    ]);
    let out = t.run(&b).ok();
    assert_eq!(out.fact(0)["errno"], "EOPNOTSUPP");
    assert_eq!(out.fact(1)["errno"], "EBADF");
    assert_eq!(out.fact(2)["errno"], "EPERM");
}
