//! What an input may cost: memory in proportion to its size, and time too. Inputs are some hundred
//! kilobytes of what is dearest; with anything quadratic they would take minutes.
//!
//! One test: the memory of the whole process is counted.

mod cost;

use std::path::Path;

use corten::create::Request;
use corten::plan::Plan;
use corten::rootfs::options::Options;
use corten::{cgroup, process, spec};
use cost::measure;

/// Elements of each list.
const MANY: usize = 20_000;

fn list(element: impl Fn(usize) -> String) -> String {
    let elements: Vec<String> = (0..MANY).map(element).collect();
    format!("[{}]", elements.join(","))
}

fn config(process: &str, linux: &str, rest: &str) -> String {
    format!(
        r#"{{"ociVersion":"1.2.0","root":{{"path":"r"}},"process":{{"cwd":"/","args":["a"],"user":{{"uid":0,"gid":0}}{process}}},"linux":{{"namespaces":[{{"type":"mount"}}]{linux}}}{rest}}}"#
    )
}

/// Parses and plans, however that ends.
fn plan(text: &str) {
    let request = Request { id: "c".to_owned(), cgroups: true, ..Request::default() };
    if let Ok(spec) = spec::parse(text.as_bytes()) {
        let _may_be_refused =
            spec::validate::spec(&spec).and_then(|()| Plan::new(&spec, Path::new("/b"), &request));
    }
}

#[test]
fn what_is_parsed_and_planned_costs_in_proportion_to_its_size() {
    for (what, most, text) in configs() {
        measure(what, text.as_str(), most, plan);
    }
    let words: Vec<&str> = ["nosuid", "a", "noatime", ""].into_iter().cycle().take(MANY).collect();
    measure("mount options", &*words.join(","), 32, |text| {
        let words: Vec<&str> = text.split(',').collect();
        drop(Options::parse(&words));
    });
    let resources = format!(
        r#"{{"unified":{{{}"z.z":"1"}}}}"#,
        (0..MANY).map(|n| format!(r#""a.b{n}":"","#)).collect::<String>()
    );
    measure("resources", resources.as_str(), 64, |text| {
        let parsed = spec::parse_resources(text.as_bytes(), Path::new("r")).unwrap();
        cgroup::v2::writes(&parsed).unwrap();
    });
    let process = format!(
        r#"{{"cwd":"/","args":["a"],"user":{{"uid":0,"gid":0}},"execCPUAffinity":{{"initial":"{}0"}}}}"#,
        "0-1023,".repeat(MANY)
    );
    measure("processors", process.as_str(), 16, |text| {
        let parsed = spec::parse_process(text.as_bytes(), Path::new("p"));
        drop(parsed.map(|parsed| process::Plan::new(&parsed, "")));
    });
}

fn configs() -> Vec<(&'static str, usize, String)> {
    let mounts = list(|n| format!(r#"{{"destination":"/{n}","type":"tmpfs"}}"#));
    let hook = list(|_| r#"{"path":"/h"}"#.to_owned());
    let rule = list(|n| format!(r#"{{"allow":true,"major":{n},"access":"r"}}"#));
    let one = list(|n| {
        let (allow, access) = (n % 2 == 0, if n % 3 == 0 { "rw" } else { "r" });
        let (major, minor) = (n / 2 % 100, n / 200);
        format!(
            r#"{{"allow":{allow},"type":"c","major":{major},"minor":{minor},"access":"{access}"}}"#
        )
    });
    let device = list(|n| format!(r#"{{"path":"/dev/{n}","type":"c","major":1,"minor":1}}"#));
    let call = list(|n| {
        format!(
            r#"{{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{{"index":0,"value":{n},"op":"SCMP_CMP_EQ"}}]}}"#
        )
    });
    let names = list(|n| format!("\"no{n}\""));
    let map = list(|n| format!(r#"{{"containerID":{n},"hostID":{n},"size":1}}"#));
    let annotations: String = (0..MANY).map(|n| format!(r#","k{n}":"""#)).collect();
    vec![
        ("mounts", 64, config("", "", &format!(r#","mounts":{mounts}"#))),
        ("hooks", 64, config("", "", &format!(r#","hooks":{{"poststop":{hook}}}"#))),
        ("device rules", 32, config("", &format!(r#","resources":{{"devices":{rule}}}"#), "")),
        ("rules of one", 32, config("", &format!(r#","resources":{{"devices":{one}}}"#), "")),
        ("devices", 32, config("", &format!(r#","devices":{device}"#), "")),
        (
            "seccomp rules",
            32,
            config(
                "",
                &format!(r#","seccomp":{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":{call}}}"#),
                "",
            ),
        ),
        (
            "seccomp names",
            32,
            config(
                "",
                &format!(
                    r#","seccomp":{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{{"names":{names},"action":"SCMP_ACT_ALLOW"}}]}}"#
                ),
                "",
            ),
        ),
        ("capabilities", 64, config(&format!(r#","capabilities":{{"bounding":{names}}}"#), "", "")),
        (
            "environment",
            64,
            config(&format!(r#","env":{}"#, list(|n| format!("\"a{n}=\""))), "", ""),
        ),
        (
            "rlimits",
            32,
            config(
                &format!(
                    r#","rlimits":{}"#,
                    list(|_| r#"{"type":"RLIMIT_CORE","soft":1,"hard":1}"#.to_owned())
                ),
                "",
                "",
            ),
        ),
        (
            "masked paths",
            64,
            config("", &format!(r#","maskedPaths":{}"#, list(|n| format!("\"/{n}\""))), ""),
        ),
        ("id maps", 64, config("", &format!(r#","uidMappings":{map},"gidMappings":{map}"#), "")),
        ("annotations", 64, config("", "", &format!(r#","annotations":{{"k":""{annotations}}}"#))),
        ("empty lists", 64, config("", "", &format!(r#","x":{}"#, list(|_| "[]".to_owned())))),
        // By the tree: something has to be forgiven.
        (
            "a tree",
            64,
            config("", "", &format!(r#","mounts":null,"x":{}"#, list(|_| "0".to_owned()))),
        ),
        ("nuls", 64, config("", "", &format!(r#","x":{}"#, list(|_| "\"\\u0000\"".to_owned())))),
    ]
}
