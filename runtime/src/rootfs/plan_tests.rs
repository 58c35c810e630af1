//! Tests of the plan: pure, without root.

use std::path::Path;

use oci_spec::runtime::Spec;
use serde_json::{Value, json};

use super::super::mounts::{Mapping, PROC_ALLOWED, parameters};
use super::*;
use crate::sys::mount::attr;

fn spec(mounts: &Value, linux: &Value) -> Spec {
    let spec = json!({"ociVersion": "1.3.0", "root": {"path": "rootfs"}, "mounts": mounts,
        "linux": linux});
    serde_json::from_value(spec).unwrap()
}

fn context() -> Context<'static> {
    Context { bundle: Path::new("/bundle"), rootless: false, no_pivot: false }
}

fn plan(mounts: &Value, linux: &Value) -> crate::Result<Plan> {
    Plan::new(&spec(mounts, linux), &context())
}

fn one(mount: Value) -> crate::Result<Mount> {
    plan(&json!([mount]), &json!({})).map(|mut plan| plan.mounts.remove(0))
}

#[test]
fn paths_are_relative_to_the_bundle_and_the_root() {
    let mounts = json!([{"destination": "relative/./x", "source": "vol", "options": ["bind"]}]);
    let plan = plan(&mounts, &json!({"maskedPaths": ["/a/../b"]})).unwrap();
    assert_eq!(plan.root_path(), Path::new("/bundle/rootfs"));
    assert_eq!(plan.mounts[0].destination, Path::new("relative/x"));
    let Kind::Bind(bind) = &plan.mounts[0].kind else { panic!("{:?}", plan.mounts) };
    assert_eq!(bind.source, Path::new("/bundle/vol"));
    assert_eq!(plan.masked, [Path::new("b")]);
}

#[test]
fn mistakes_have_a_json_path() {
    let mapping = json!([{"containerID": 0, "hostID": 1, "size": 1}]);
    for (mount, words) in [
        (json!({"destination": "/"}), "mounts[0].destination"),
        (json!({"destination": "/a/.."}), "mounts[0].destination"),
        (json!({"destination": "/a"}), "mounts[0].type"),
        (json!({"destination": "/a", "type": "bind"}), "mounts[0].source"),
        (json!({"destination": "/proc", "type": "tmpfs"}), "inside /proc"),
        (json!({"destination": "/proc", "type": "cgroup"}), "inside /proc"),
        (json!({"destination": "proc/self/x", "type": "bind", "source": "/x"}), "inside /proc"),
        (json!({"destination": "/proc/../etc", "type": "tmpfs"}), "leaves /proc"),
        (json!({"destination": "/a", "type": "tmpfs", "options": ["idmap"]}), "only bind"),
        (json!({"destination": "/a", "source": "/a", "options": ["bind", "idmap"]}), "idmap needs"),
        (
            json!({"destination": "/a", "source": "/a", "options": ["bind"],
                "uidMappings": mapping}),
            "go together",
        ),
    ] {
        let error = one(mount.clone()).unwrap_err().to_string();
        assert!(error.contains("mounts[0]") && error.contains(words), "{mount}: {error}");
    }
    for (linux, words) in [
        (json!({"rootfsPropagation": "sideways"}), "linux.rootfsPropagation"),
        (json!({"devices": [{"path": "/dev/x", "type": "a"}]}), "linux.devices[0].type"),
        (json!({"devices": [{"path": "/", "type": "c"}]}), "linux.devices[0].path"),
        (json!({"devices": [{"path": "/dev/x", "type": "c"}]}), "linux.devices[0].major"),
        (
            json!({"devices": [{"path": "/dev/x", "type": "c", "major": -1}]}),
            "linux.devices[0].major",
        ),
        (
            json!({"devices": [{"path": "/dev/x", "type": "b", "major": 1, "minor": 1 << 20}]}),
            "linux.devices[0].minor",
        ),
    ] {
        let error = plan(&json!([]), &linux).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    let private = spec(&json!([]), &json!({"rootfsPropagation": "private"}));
    let no_pivot = Context { no_pivot: true, ..context() };
    assert!(Plan::new(&private, &no_pivot).is_err());
    let none: Spec = serde_json::from_value(json!({"ociVersion": "1.0.0"})).unwrap();
    assert!(Plan::new(&none, &context()).unwrap_err().to_string().contains("root: missing"));
}

#[test]
fn what_may_be_mounted_below_proc() {
    for name in PROC_ALLOWED {
        let mount = json!({"destination": format!("/{name}"), "source": "/x", "options": ["bind"]});
        assert!(one(mount).is_ok(), "{name}");
    }
    let proc = one(json!({"destination": "/proc", "source": "/proc", "options": ["rbind"]}));
    let Kind::Bind(bind) = proc.unwrap().kind else { panic!() };
    assert!(bind.must_be_proc);
    assert!(one(json!({"destination": "/a/proc", "type": "proc"})).is_ok());
    assert!(one(json!({"destination": "/process", "type": "tmpfs"})).is_ok());
}

#[test]
fn words_of_the_file_system_are_taken_apart() {
    let words = |fstype: &str, words: &[&str]| {
        let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
        parameters(fstype, &words)
            .into_iter()
            .map(|(name, value)| {
                value.map_or_else(|| name.clone(), |value| format!("{name}|{value}"))
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(words("tmpfs", &["mode=755,size=1k", "huge"]), ["mode|755", "size|1k", "huge"]);
    assert_eq!(words("tmpfs", &["context=\"a:b:c1,c2\",x"]), ["context|a:b:c1,c2", "x"]);
    assert_eq!(words("overlay", &["lowerdir=/a\\,b:/c,x"]), ["lowerdir|/a,b:/c", "x"]);
    assert_eq!(words("overlay", &["lowerdir=/a\\\\,x"]), ["lowerdir|/a\\\\", "x"]);
    assert_eq!(words("tmpfs", &["a=", ",", "b=c=d"]), ["a|", "b|c=d"]);
}

#[test]
fn what_fsconfig_can_not_say_goes_to_mount2() {
    let fs = |options: Value| {
        let mount = json!({"destination": "/a", "type": "overlay", "options": options});
        let Kind::New(fs) = one(mount).unwrap().kind else { panic!() };
        fs
    };
    assert!(!fs(json!(["ro", "sync", "lowerdir=/a"])).needs_mount2());
    assert!(fs(json!(["iversion"])).needs_mount2());
    assert!(fs(json!([format!("lowerdir=/{}", "x".repeat(255))])).needs_mount2());
}

#[test]
fn labels_go_where_the_kernel_does_not_label_itself() {
    let mounts = json!([{"destination": "/a", "type": "tmpfs", "options": ["size=1k"]},
        {"destination": "/proc", "type": "proc"}, {"destination": "/s", "type": "sysfs"}]);
    let plan = plan(&mounts, &json!({"mountLabel": "u:r:t:s0:c1,c2"})).unwrap();
    let data: Vec<_> = plan
        .mounts
        .iter()
        .map(|mount| match &mount.kind {
            Kind::New(fs) => fs.data.as_str(),
            _ => "?",
        })
        .collect();
    assert_eq!(data, ["size=1k,context=\"u:r:t:s0:c1,c2\"", "", ""]);
}

#[test]
fn read_only_waits_where_files_are_still_to_be_made() {
    for (mount, late) in [
        (json!({"destination": "/dev", "type": "devtmpfs", "options": ["ro"]}), true),
        (json!({"destination": "/dev", "source": "/dev", "options": ["rbind", "ro"]}), true),
        (json!({"destination": "/run", "type": "tmpfs", "options": ["ro"]}), true),
        (json!({"destination": "/run", "type": "tmpfs", "options": ["rro"]}), true),
        (json!({"destination": "/run", "type": "tmpfs", "options": ["ro", "rw"]}), false),
        (json!({"destination": "/sys", "type": "sysfs", "options": ["ro"]}), false),
    ] {
        let planned = one(mount.clone()).unwrap();
        assert_eq!(planned.readonly_late, late, "{mount}");
        assert_eq!(planned.attrs.set & attr::RDONLY == 0, mount["destination"] != "/sys");
    }
}

#[test]
fn devices() {
    let linux = json!({"devices": [
        {"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600, "uid": 1},
        {"path": "/dev/ptmx", "type": "c", "major": 5, "minor": 2},
        {"path": "/dev/sub/blk", "type": "b", "major": 8, "minor": 300},
        {"path": "/run/pipe", "type": "p"},
    ]});
    let plan = plan(&json!([]), &linux).unwrap();
    let shown: Vec<_> = plan
        .devices
        .iter()
        .map(|d| format!("{} {} {:o} {}", d.path.display(), d.shown(), d.mode, d.uid))
        .collect();
    assert_eq!(
        shown,
        [
            "dev/null c 1:3 600 1",
            "dev/zero c 1:5 666 0",
            "dev/full c 1:7 666 0",
            "dev/random c 1:8 666 0",
            "dev/urandom c 1:9 666 0",
            "dev/tty c 5:0 666 0",
            "dev/sub/blk b 8:300 666 0",
            "run/pipe FIFO 666 0",
        ]
    );
}

#[test]
fn a_bound_dev_is_left_alone() {
    let mounts = json!([{"destination": "/dev", "source": "/dev", "options": ["rbind"]}]);
    assert!(!plan(&mounts, &json!({})).unwrap().fill_dev);
    assert!(plan(&json!([]), &json!({})).unwrap().fill_dev);
}

#[test]
fn mappings_come_from_the_mount_or_the_container() {
    let ids = |host| json!([{"containerID": 0, "hostID": host, "size": 10}]);
    let linux = json!({"namespaces": [{"type": "user"}], "uidMappings": ids(5),
        "gidMappings": ids(6)});
    let mount = json!([{"destination": "/a", "source": "/a", "options": ["rbind", "ridmap"]}]);
    let plan1 = plan(&mount, &linux).unwrap();
    let Kind::Bind(bind) = &plan1.mounts[0].kind else { panic!() };
    let idmap = bind.idmap.as_ref().unwrap();
    assert!(idmap.recursive);
    let Mapping::Ids(uids, gids) = &idmap.through else { panic!() };
    assert_eq!((uids[0].host_id(), gids[0].host_id()), (5, 6));
    assert!(plan1.bind_devices);
    let linux = json!({"namespaces": [{"type": "user", "path": "/ns"}]});
    let plan2 = plan(&mount, &linux).unwrap();
    let Kind::Bind(bind) = &plan2.mounts[0].kind else { panic!() };
    assert_eq!(bind.idmap.as_ref().unwrap().through, Mapping::Path("/ns".into()));
}

proptest::proptest! {
    /// Whatever the words are, planning ends without a panic.
    #[test]
    fn any_words(destination in ".{0,20}", fstype in "[a-z]{0,6}", options in proptest::collection::vec("[a-z=,\"\\\\]{0,12}", 0..5)) {
        let mount = json!({"destination": destination, "type": fstype, "source": "/s", "options": options});
        drop(one(mount));
    }
}
