//! Who it is and what it may: ids, capabilities, no_new_privileges, keyrings.

use std::fs;

use corten_integration::suite::Case;
use corten_integration::{Flavour, Test, tests};
use serde_json::json;

pub(crate) const TESTS: &[Case] = tests![
    user_and_groups,
    user_without_groups_has_none_of_the_callers,
    user_ids_out_of_range_are_refused,
    capabilities_five_sets,
    capabilities_absent_are_none,
    capabilities_of_an_ordinary_user,
    capabilities_ambient_reach_an_ordinary_user,
    capabilities_unknown_is_a_warning,
    no_new_privileges,
    no_new_privileges_off_lets_setuid_work,
    session_keyring_is_new,
    no_new_keyring_keeps_the_callers,
];

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
