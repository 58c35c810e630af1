//! Which calls a rule means: arguments, operators, names, architectures.

use std::process::Command;

use corten_integration::bundle::probe;
use corten_integration::suite::Case;
use corten_integration::{Flavour, Test, tests};
use serde_json::{Value, json};

use crate::{LSEEK, MKDIR, SETHOSTNAME, filtered, lseek, rule};

pub(crate) const TESTS: &[Case] = tests![
    operators_on_64_bits,
    several_arguments_must_all_match,
    one_argument_twice_is_an_alternative,
    several_rules_for_one_call,
    several_names_in_one_rule,
    unknown_names_are_ignored,
    unknown_words_are_refused,
    default_action_is_needed,
    errno_ret_of_another_action_is_refused,
    i386_calls_are_filtered_too,
    i386_calls_without_the_architecture_do_not_pass,
    x32_is_no_way_around,
];

fn compare(op: &str, value: u64, two: u64) -> Value {
    json!({"names": ["lseek"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95,
        "args": [{"index": 1, "value": value, "valueTwo": two, "op": op}]})
}

/// Every operator, with values whose halves differ.
fn operators_on_64_bits(t: &Test) {
    let big = 0x1_0000_0005_u64;
    let around = [0, 5, 0xffff_ffff, big - 1, big, big + 1, 0x2_0000_0000, u64::MAX];
    type Holds = fn(u64, u64) -> bool;
    let operators: [(&str, Holds); 6] = [
        ("SCMP_CMP_EQ", |a, b| a == b),
        ("SCMP_CMP_NE", |a, b| a != b),
        ("SCMP_CMP_LT", |a, b| a < b),
        ("SCMP_CMP_LE", |a, b| a <= b),
        ("SCMP_CMP_GT", |a, b| a > b),
        ("SCMP_CMP_GE", |a, b| a >= b),
    ];
    let steps: Vec<String> = around
        .iter()
        .flat_map(|a| ["syscall", LSEEK, "999", &a.to_string(), "0", ";"].map(str::to_owned))
        .collect();
    let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
    for (op, holds) in operators {
        let mut b = filtered(t, "SCMP_ACT_ALLOW", &[compare(op, big, 0)]);
        b.probe(&steps);
        let out = t.run(&b).ok();
        for (n, argument) in around.iter().enumerate() {
            let expected = if holds(*argument, big) { "EOPNOTSUPP" } else { "EBADF" };
            assert_eq!(out.fact(n)["errno"], expected, "{argument:#x} {op} {big:#x}");
        }
    }
    // MASKED_EQ: argument & value == valueTwo
    let mask = 0xff00_0000_00f0_u64;
    for (argument, hit) in [
        (0x1200_0000_0030_u64, true),
        (0x1200_0000_003f, true),
        (0x1200_0000_0040, false),
        (0x30, false),
    ] {
        let got = lseek(t, &[compare("SCMP_CMP_MASKED_EQ", mask, 0x1200_0000_0030)], argument);
        assert_eq!(got, if hit { "EOPNOTSUPP" } else { "EBADF" }, "{argument:#x}");
    }
}

/// Conditions on different arguments are joined by "and".
fn several_arguments_must_all_match(t: &Test) {
    let both = json!({"names": ["lseek"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95, "args": [
        {"index": 1, "value": 7, "op": "SCMP_CMP_EQ"}, {"index": 2, "value": 1, "op": "SCMP_CMP_EQ"}]});
    let mut b = filtered(t, "SCMP_ACT_ALLOW", &[both]);
    b.probe(&[
        "syscall", LSEEK, "999", "7", "1", ";", "syscall", LSEEK, "999", "7", "0", ";", "syscall",
        LSEEK, "999", "6", "1",
    ]);
    let out = t.run(&b).ok();
    assert_eq!(out.fact(0)["errno"], "EOPNOTSUPP");
    assert_eq!(out.fact(1)["errno"], "EBADF");
    assert_eq!(out.fact(2)["errno"], "EBADF");
}

/// Conditions on the same argument become separate rules, joined by "or", as runc does.
fn one_argument_twice_is_an_alternative(t: &Test) {
    let either = json!({"names": ["lseek"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95, "args": [
        {"index": 1, "value": 7, "op": "SCMP_CMP_EQ"}, {"index": 1, "value": 9, "op": "SCMP_CMP_EQ"}]});
    for (argument, name) in [(7, "EOPNOTSUPP"), (9, "EOPNOTSUPP"), (8, "EBADF")] {
        assert_eq!(lseek(t, std::slice::from_ref(&either), argument), name, "{argument}");
    }
}

/// Each rule of a call counts.
fn several_rules_for_one_call(t: &Test) {
    let one = |value: u64, errno: u32| {
        json!({"names": ["lseek"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno,
            "args": [{"index": 1, "value": value, "op": "SCMP_CMP_EQ"}]})
    };
    let rules = [one(7, 95), one(9, 13), one(11, 38)];
    for (argument, name) in [(7, "EOPNOTSUPP"), (9, "EACCES"), (11, "ENOSYS"), (8, "EBADF")] {
        assert_eq!(lseek(t, &rules, argument), name, "{argument}");
    }
}

/// One rule may name many calls.
fn several_names_in_one_rule(t: &Test) {
    let mut b = filtered(
        t,
        "SCMP_ACT_ALLOW",
        &[rule(&["mkdir", "sethostname", "lseek"], "SCMP_ACT_ERRNO")],
    );
    b.probe(&[
        "syscall",
        MKDIR,
        "str:/x",
        "0",
        ";",
        "syscall",
        SETHOSTNAME,
        "str:x",
        "1",
        ";",
        "syscall",
        LSEEK,
        "999",
        "0",
        "0",
    ]);
    for fact in t.run(&b).ok().facts() {
        assert_eq!(fact["errno"], "EPERM");
    }
}

/// A name of tomorrow or of another architecture is no mistake.
fn unknown_names_are_ignored(t: &Test) {
    assert_eq!(
        lseek(t, &[rule(&["call_of_tomorrow", "lseek", "_newselect"], "SCMP_ACT_ERRNO")], 0),
        "EPERM"
    );
}

/// Unknown actions, operators, architectures and flags are errors.
fn unknown_words_are_refused(t: &Test) {
    let b = filtered(t, "SCMP_ACT_ALLOW", &[rule(&["lseek"], "SCMP_ACT_NOPE")]);
    t.create_fails(&b).says("SCMP_ACT_NOPE");
    t.create_fails(&filtered(t, "SCMP_ACT_NOPE", &[])).says("SCMP_ACT_NOPE");
    t.create_fails(&filtered(t, "SCMP_ACT_ALLOW", &[compare("SCMP_CMP_NOPE", 1, 0)]))
        .says("SCMP_CMP_NOPE");
    let mut b = filtered(t, "SCMP_ACT_ALLOW", &[]);
    b.set("linux.seccomp.architectures", json!(["SCMP_ARCH_NOPE"]));
    t.create_fails(&b).says("SCMP_ARCH_NOPE");
    t.skip_on_peers("know no flags, or don't look at them");
    let mut b = filtered(t, "SCMP_ACT_ALLOW", &[rule(&["lseek"], "SCMP_ACT_ERRNO")]);
    b.set("linux.seccomp.flags", json!(["SECCOMP_FILTER_FLAG_NOPE"]));
    t.create_fails(&b).says("SECCOMP_FILTER_FLAG_NOPE");
}

/// "defaultAction (REQUIRED)".
fn default_action_is_needed(t: &Test) {
    let mut b = filtered(t, "SCMP_ACT_ALLOW", &[rule(&["lseek"], "SCMP_ACT_ERRNO")]);
    b.unset("linux.seccomp.defaultAction");
    t.create_fails(&b);
}

/// "If the action doesn't support returning an errno ... MUST generate an error."
fn errno_ret_of_another_action_is_refused(t: &Test) {
    t.skip_on(Flavour::Runc, "ignores it");
    let mut r = rule(&["lseek"], "SCMP_ACT_KILL");
    r["errnoRet"] = json!(5);
    t.create_fails(&filtered(t, "SCMP_ACT_ALLOW", &[r])).says("errnoRet");
}

const I386_MKDIR: &str = "39";
const I386_GETPID: &str = "20";

fn has_i386(t: &Test) {
    let mut command = Command::new(probe());
    command.args(["int80-fork", I386_GETPID]);
    let out = t.execute(command);
    if out.facts().first().is_none_or(|fact| fact["ok"] != true) {
        t.skip("this kernel has no i386 entry");
    }
}

/// A rule holds for the i386 numbers if the architecture is listed.
fn i386_calls_are_filtered_too(t: &Test) {
    has_i386(t);
    let mut b = filtered(t, "SCMP_ACT_ALLOW", &[rule(&["mkdir"], "SCMP_ACT_ERRNO")]);
    b.set(
        "linux.seccomp.architectures",
        json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]),
    );
    b.probe(&["int80-fork", I386_MKDIR, "0", "0", ";", "int80-fork", I386_GETPID]);
    let out = t.run(&b).ok();
    assert_eq!(out.fact(0)["errno"], "EPERM");
    assert_eq!(out.fact(1)["ok"], true);
}

/// An architecture that isn't listed is no way around the filter.
fn i386_calls_without_the_architecture_do_not_pass(t: &Test) {
    has_i386(t);
    let mut b = filtered(t, "SCMP_ACT_ALLOW", &[rule(&["mkdir"], "SCMP_ACT_ERRNO")]);
    b.probe(&["int80-fork", I386_GETPID]);
    assert_eq!(t.run(&b).ok().fact(0)["died_of"], 31);
}

/// mkdir with the x32 bit isn't mkdir for a careless filter.
fn x32_is_no_way_around(t: &Test) {
    let mut b = filtered(t, "SCMP_ACT_ALLOW", &[rule(&["mkdir"], "SCMP_ACT_ERRNO")]);
    b.probe(&["syscall-fork", &(0x4000_0000_u32 | 83).to_string(), "str:/x", "0"]);
    t.run(&b).ok();
    assert!(!b.rootfs().join("x").exists());
}
