//! Chapter 1.5: ids and capabilities that become more than was asked for, and isolation that the host
//! doesn't have.

use corten_integration::suite::Case;
use corten_integration::{Bundle, Flavour, Test, tests};
use serde_json::{Value, json};

pub const TESTS: &[Case] = tests![
    c1_exactly_the_five_sets,
    c3_ids_out_of_range,
    c4_what_the_host_lacks_is_an_error,
    c6_unmapped_ids_of_exec,
];

/// Number, and mask, of capabilities.
const CAPS: [(&str, u32); 6] = [
    ("CAP_CHOWN", 0),
    ("CAP_DAC_OVERRIDE", 1),
    ("CAP_KILL", 5),
    ("CAP_NET_BIND_SERVICE", 10),
    ("CAP_SYS_PTRACE", 19),
    ("CAP_AUDIT_WRITE", 29),
];

fn mask(names: &[&str]) -> u64 {
    let bit = |name: &&str| CAPS.iter().find(|(n, _)| n == name).map_or(0, |(_, bit)| 1 << bit);
    names.iter().map(bit).sum()
}

/// C1: for different combinations of the five sets, run and exec, root and a user: exactly those.
/// Inheritable and ambient are empty unless asked for.
fn c1_exactly_the_five_sets(t: &Test) {
    let all = ["CAP_CHOWN", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
    let sets: [[&[&str]; 5]; 5] = [
        [&all, &all, &all, &[], &[]],
        [&all, &["CAP_KILL"], &all, &[], &[]],
        [&all, &["CAP_KILL"], &["CAP_KILL"], &["CAP_KILL"], &[]],
        [&all, &all, &all, &all, &["CAP_CHOWN"]],
        [&[], &[], &[], &[], &[]],
    ];
    for [bounding, effective, permitted, inheritable, ambient] in sets {
        let mut b = t.bundle();
        b.set(
            "process.capabilities",
            json!({"bounding": bounding, "effective": effective,
            "permitted": permitted, "inheritable": inheritable, "ambient": ambient}),
        );
        b.set("process.noNewPrivileges", json!(false));
        b.probe(&["report", "caps"]);
        let caps = t.report(&b)["caps"].clone();
        assert_eq!(caps["bounding"], mask(bounding), "{caps}");
        assert_eq!(caps["inheritable"], mask(inheritable), "{caps}");
        assert_eq!(caps["ambient"], mask(ambient), "{caps}");
    }
    let mut b = t.bundle();
    t.sleeper(&mut b);
    for (flags, asked) in [
        (&[][..], 0),
        (&["--cap", "CAP_SYS_PTRACE"][..], 1 << 19),
        (&["--cap", "CAP_SYS_PTRACE", "--user", "1000"][..], 1 << 19),
    ] {
        let out = t.exec(&b.id, flags, &["report", "caps"]);
        if t.flavour != Flavour::Corten && out.code != 0 {
            continue;
        }
        let caps = out.ok().fact(0)["caps"].clone();
        assert_eq!(caps["inheritable"], 0, "{flags:?}: {caps}");
        assert_eq!(caps["bounding"].as_u64().unwrap() & asked, asked, "{flags:?}: {caps}");
    }
}

/// C3, CVE-2024-40635: numbers that some width or sign makes 0 or "unchanged".
fn c3_ids_out_of_range(t: &Test) {
    t.skip_on_peers("take some of them");
    let asked = |b: &mut Bundle, uid: &Value| {
        b.set("process.user", json!({"uid": uid, "gid": uid})).probe(&["report", "uid", "gid"]);
    };
    for id in [0x7fff_ffff_u64, 0x8000_0000, 0xffff_fffe] {
        let mut b = t.bundle();
        asked(&mut b, &json!(id));
        let seen = t.report(&b);
        assert_eq!(seen["uid"], json!([id, id, id]));
        assert_eq!(seen["gid"], json!([id, id, id]));
    }
    for id in [
        json!(0xffff_ffff_u64),
        json!(0x1_0000_0000_u64),
        json!(-1),
        json!(1.5),
        json!("0"),
        json!(1e10),
        json!(u64::MAX),
    ] {
        let mut b = t.bundle();
        asked(&mut b, &id);
        t.create_fails(&b);
        let mut b = t.bundle();
        b.set("process.user", json!({"uid": 1, "gid": 1, "additionalGids": [id]}));
        t.create_fails(&b);
    }
    for (container, host, size) in [
        (0_u64, 0xffff_ffff_u64, 1_u64),
        (0xffff_ffff_u64, 0, 1),
        (0, 1, 0x1_0000_0000),
        (0, 0xffff_fff0, 0x20),
        (0, 100_000, 0),
    ] {
        let mut b = t.bundle();
        let map = json!([{"containerID": container, "hostID": host, "size": size}]);
        b.namespace("user", None)
            .set("linux.uidMappings", map.clone())
            .set("linux.gidMappings", map);
        t.create_fails(&b);
    }
}

/// C4: isolation that this host can't give is an error.
fn c4_what_the_host_lacks_is_an_error(t: &Test) {
    t.skip_on_peers("ignore some of them");
    let has = |path: &str| std::path::Path::new(path).exists();
    let filter = |key: &str, value: Value| {
        let mut profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []});
        profile[key] = value;
        ("linux.seccomp", profile)
    };
    let mut wishes = vec![
        filter("flags", json!(["SECCOMP_FILTER_FLAG_MAGIC"])),
        filter("architectures", json!(["SCMP_ARCH_ABACUS"])),
        filter("defaultAction", json!("SCMP_ACT_PERHAPS")),
    ];
    if !has("/sys/kernel/security/apparmor") {
        wishes.push(("process.apparmorProfile", json!("some-profile")));
    }
    if !has("/sys/fs/selinux/enforce") {
        wishes.push(("process.selinuxLabel", json!("system_u:system_r:container_t:s0")));
        wishes.push(("linux.mountLabel", json!("system_u:object_r:container_file_t:s0")));
    }
    if !has("/sys/fs/resctrl/schemata") {
        wishes.push(("linux.intelRdt", json!({"closID": "x"})));
    }
    wishes.push(("linux.resources.unified", json!({"memory.no_such_file": "1"})));
    for (path, wish) in wishes {
        let mut b = t.bundle();
        b.set(path, wish.clone());
        let out = t.create(&b);
        assert!(out.code != 0, "{path}: {wish} was taken: {out}");
        t.nothing_left(&b);
    }
}

/// C6: ids that an exec can't have in the container's user namespace: an error, and no process.
fn c6_unmapped_ids_of_exec(t: &Test) {
    let mut b = t.bundle();
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 10}]);
    b.namespace("user", None).set("linux.uidMappings", map.clone()).set("linux.gidMappings", map);
    t.sleeper(&mut b);
    for user in ["10", "0:10", "4294967294"] {
        let out = t.exec(&b.id, &["--user", user], &["report", "uid"]);
        assert!(out.code != 0 && out.facts().is_empty(), "{out}");
    }
    assert_eq!(
        t.exec(&b.id, &["--user", "9:9"], &["report", "uid"]).ok().fact(0)["uid"],
        json!([9, 9, 9])
    );
}
