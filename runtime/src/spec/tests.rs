use serde_json::json;

use super::*;

const DOCKER: &str = include_str!("../../tests/data/docker-like.json");

fn config() -> Value {
    serde_json::from_str(DOCKER).unwrap()
}

/// Parses and validates the Docker-like config after a change.
fn with(change: impl FnOnce(&mut Value)) -> Result<Spec> {
    let mut tree = config();
    change(&mut tree);
    let spec = parse(tree.to_string().as_bytes())?;
    validate::spec(&spec)?;
    Ok(spec)
}

fn refused(change: impl FnOnce(&mut Value)) -> String {
    with(change).unwrap_err().to_string()
}

#[test]
fn docker_s_config_takes_the_fast_path() {
    assert!(serde_json::from_str::<Spec>(DOCKER).is_ok());
    with(|_| {}).unwrap();
}

#[test]
fn a_wrong_type_is_told_by_its_path() {
    assert_eq!(
        refused(|tree| tree["process"]["args"] = json!(["a", 3])),
        "config.json: process.args[1]: invalid type: integer `3`, expected a string"
    );
    assert_eq!(
        refused(|tree| tree["linux"]["seccomp"]["syscalls"][0]["action"] = json!("X")),
        "config.json: linux.seccomp.syscalls[0].action: unknown variant `X`, expected one of \
         `SCMP_ACT_KILL`, `SCMP_ACT_KILL_THREAD`, `SCMP_ACT_KILL_PROCESS`, `SCMP_ACT_TRAP`, \
         `SCMP_ACT_ERRNO`, `SCMP_ACT_NOTIFY`, `SCMP_ACT_TRACE`, `SCMP_ACT_LOG`, `SCMP_ACT_ALLOW`"
    );
    let in_one_line =
        refused(|tree| tree["linux"]["seccomp"]["defaultAction"] = json!("X\n\u{7f}é"));
    assert!(in_one_line.contains(r"unknown variant `X\n\u{7f}é`, expected"), "{in_one_line}");
    let out_of_range = refused(|tree| tree["process"]["user"]["uid"] = json!(4_294_967_296_u64));
    assert!(out_of_range.starts_with("config.json: process.user.uid: "), "{out_of_range}");
    assert!(refused(|tree| *tree = json!([])).starts_with("config.json: "));
    assert!(refused(|tree| *tree = json!(3)).starts_with("config.json: config: "));
}

#[test]
fn broken_text_is_told_by_line_and_column() {
    let message = |text: &[u8]| parse(text).unwrap_err().to_string();
    assert_eq!(message(b""), "config.json: line 1 column 0: EOF while parsing a value");
    assert_eq!(message(b"{\n \"a\" 1}"), "config.json: line 2 column 6: expected `:`");
    assert!(message(b"{\"hostname\": \"\xff\"}").contains("invalid unicode code point"));
    assert!(message(b"{} {}").contains("trailing characters"));
    let bomb = [b"{\"process\":".as_slice(), &[b'['; 100_000]].concat();
    assert!(message(&bomb).starts_with("config.json: "));
    let bomb = [b"{\"annotations\":{\"a\":".as_slice(), &[b'['; 100_000]].concat();
    assert!(message(&bomb).starts_with("config.json: "));
}

#[test]
fn what_go_forgives_is_forgiven() {
    for (pointer, value) in [
        ("/hostname", Value::Null),
        ("/root/readonly", Value::Null),
        ("/process/user/uid", Value::Null),
        ("/process/rlimits", Value::Null),
        ("/mounts/0/options", Value::Null),
        ("/linux/resources/memory", Value::Null),
        ("/linux/resources/devices/0", json!({"allow": false, "type": "", "access": "rwm"})),
        ("/process/user", Value::Null),
        ("/linux/namespaces/0", json!({"type": "pid", "path": null, "newKey": [1]})),
    ] {
        with(|tree| *tree.pointer_mut(pointer).unwrap_or(&mut Value::Null) = value)
            .unwrap_or_else(|error| panic!("{pointer}: {error}"));
    }
    let spec = with(|tree| {
        tree["process"].as_object_mut().unwrap().remove("user");
        tree["vm"] = json!({"hypervisor": 3});
        tree["windows"] = json!([]);
        tree["future"] = json!({"a": [{}]});
    });
    assert_eq!(spec.unwrap().process().as_ref().unwrap().user().uid(), 0);
}

#[test]
fn a_key_given_twice_counts_with_its_last_value() {
    let text = DOCKER.replacen("\"ociVersion\"", "\"ociVersion\": \"9.0.0\", \"ociVersion\"", 1);
    assert!(text.len() > DOCKER.len());
    validate::spec(&parse(text.as_bytes()).unwrap()).unwrap();
}

#[test]
fn unknown_capabilities_are_dropped_and_known_ones_kept() {
    let spec = with(|tree| {
        tree["process"]["capabilities"] =
            json!({"bounding": ["CAP_KILL", "CAP_NEW", "chown"], "ambient": ["CAP_NEW"]});
    })
    .unwrap();
    let sets = spec.process().as_ref().unwrap().capabilities().as_ref().unwrap().clone();
    assert_eq!(sets.bounding().as_ref().unwrap().len(), 2);
    assert!(sets.ambient().as_ref().unwrap().is_empty());
    assert!(sets.effective().is_none());
    let wrong = refused(|tree| tree["process"]["capabilities"] = json!({"bounding": [3]}));
    assert!(wrong.starts_with("config.json: process.capabilities.bounding[0]: "), "{wrong}");
}

#[test]
fn the_spec_s_scheduler_flags_are_understood() {
    use oci_spec::runtime::LinuxSchedulerFlag::{SchedFlagDLOverrun, SchedResetOnFork};
    let spec = with(|tree| {
        tree["process"]["scheduler"] = json!({
            "policy": "SCHED_DEADLINE",
            "flags": ["SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_DL_OVERRUN"],
        });
    })
    .unwrap();
    let scheduler = spec.process().as_ref().unwrap().scheduler().as_ref().unwrap().clone();
    assert_eq!(scheduler.flags().as_ref().unwrap(), &[SchedResetOnFork, SchedFlagDLOverrun]);
}

#[test]
fn an_absent_pids_limit_is_none_and_zero_is_zero() {
    let limit = |pids: Value| {
        let spec = with(|tree| tree["linux"]["resources"]["pids"] = pids).unwrap();
        let resources = spec.linux().as_ref().unwrap().resources().as_ref().unwrap().clone();
        resources.pids().map(|pids| pids.limit())
    };
    assert_eq!(limit(json!({})), None);
    assert_eq!(limit(json!({"limit": null})), None);
    assert_eq!(limit(json!({"limit": 0})), Some(0));
    assert_eq!(limit(json!({"limit": -1})), Some(-1));
    let resources = parse_resources(b"{\"pids\":{}}", Path::new("-")).unwrap();
    assert!(resources.pids().is_none());
}

#[test]
fn nul_in_a_string_is_refused_with_its_path() {
    assert_eq!(
        refused(|tree| tree["process"]["args"][0] = json!("/bin/true\0x")),
        "config.json: process.args[0]: a string contains a NUL character"
    );
    with(|tree| tree["process"]["args"] = json!(["\\u0000"])).unwrap();
}

#[test]
fn required_values_are_required() {
    for (pointer, value, message) in [
        ("/ociVersion", json!(""), "ociVersion: is missing or empty"),
        ("/ociVersion", json!("2.0.0"), "ociVersion: \"2.0.0\" is not supported"),
        ("/ociVersion", json!("1.0"), "ociVersion: \"1.0\" is not a version"),
        ("/ociVersion", json!("v1.0.0"), "ociVersion: \"v1.0.0\" is not a version"),
        ("/root", Value::Null, "root: is missing or empty"),
        ("/root/path", json!(""), "root.path: is missing or empty"),
        ("/process", Value::Null, "process: is missing or empty"),
        ("/process/cwd", Value::Null, "process: missing field `cwd`"),
        ("/linux/intelRdt", json!({"closID": "x"}), "linux.intelRdt: is not supported"),
        ("/linux/maskedPaths/1", json!("proc"), "linux.maskedPaths[1]: \"proc\" is not"),
    ] {
        let text = refused(|tree| {
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            let parent = tree.pointer_mut(parent).unwrap();
            match key.parse::<usize>() {
                Ok(index) => parent[index] = value,
                Err(_) => parent[key] = value,
            }
        });
        assert!(text.starts_with(&format!("config.json: {message}")), "{pointer}: {text}");
    }
    with(|tree| tree["ociVersion"] = json!("1.0.2-dev")).unwrap();
    with(|tree| tree["ociVersion"] = json!("1.99.0+x")).unwrap();
}

#[test]
fn annotations_have_names() {
    let text = refused(|tree| tree["annotations"] = json!({"": "x"}));
    assert_eq!(text, "config.json: annotations: a key is empty");
}

#[test]
fn files_are_named_in_errors() {
    let dir = tempfile::tempdir().unwrap();
    let error = load(dir.path(), None).unwrap_err();
    let path = dir.path().join("config.json");
    assert_eq!(error.to_string(), format!("open {}: no such file or directory", path.display()));
    let file = dir.path().join("process");
    std::fs::write(&file, "{\"cwd\":\"/\",\"args\":[1]}").unwrap();
    let message = load_process(&file).unwrap_err().to_string();
    assert!(
        message.starts_with(&format!("{}: args[0]: invalid type", file.display())),
        "{message}"
    );
}

#[test]
fn a_config_of_64_mebibytes_is_read_in_linear_time() {
    let mut tree = config();
    tree["future"] = json!(vec!["0123456789abcdef"; 1000]);
    let text = tree.to_string();
    let filler = " ".repeat((64 << 20) - text.len());
    let start = std::time::Instant::now();
    parse(format!("{filler}{text}").as_bytes()).unwrap();
    assert!(start.elapsed().as_secs() < 10);
}

mod random {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            drop(super::parse(&bytes));
        }

        #[test]
        fn no_cut_or_changed_config_makes_it_panic(
            at in 0..super::DOCKER.len(),
            byte in any::<u8>(),
            cut in any::<bool>(),
        ) {
            let mut bytes = super::DOCKER.as_bytes().to_vec();
            if cut { bytes.truncate(at) } else { bytes[at] = byte }
            if let Ok(spec) = super::parse(&bytes) {
                drop(super::validate::spec(&spec));
            }
        }
    }
}

#[test]
fn hooks_alone_are_the_hooks_of_the_whole() {
    let hooks = json!({"poststop": [{"path": "/bin/true", "timeout": null}]});
    let mut tree = config();
    tree["hooks"] = hooks;
    let bytes = tree.to_string().into_bytes();
    let alone = parse_hooks(&bytes).unwrap();
    assert_eq!(&alone, parse(&bytes).unwrap().hooks());
    assert!(alone.is_some());
    assert_eq!(parse_hooks(b"{}").unwrap(), None);
    // What the types refuse and the spec forgives: the whole is read, its hooks are found.
    tree["process"]["user"] = json!(null);
    tree["hooks"]["poststop"][0]["env"] = json!(null);
    let bytes = tree.to_string().into_bytes();
    assert_eq!(&parse_hooks(&bytes).unwrap(), parse(&bytes).unwrap().hooks());
}
