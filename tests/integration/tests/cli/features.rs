//! What the program tells of itself: `spec`, `features`, `--help`.

use std::fs;

use corten_integration::suite::Case;
use corten_integration::{Test, tests};
use serde_json::{Value, json};

pub(crate) const TESTS: &[Case] = tests![
    spec_writes_a_config_that_runs,
    spec_does_not_overwrite,
    spec_rootless_has_a_user_namespace,
    features_are_true,
    help_of_every_command,
];

/// `spec` writes a config.json that works with a shell.
fn spec_writes_a_config_that_runs(t: &Test) {
    let b = t.busybox();
    t.call(&["spec", "--bundle", b.path()]).ok();
    let path = b.dir.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert!(config["process"]["args"][0].as_str().unwrap().ends_with("sh"), "{config}");
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(["sh", "-c", "echo '\"ran\"'"]);
    config["linux"]["cgroupsPath"] = json!(b.cgroup());
    fs::write(&path, config.to_string()).unwrap();
    let out = t.call(&["run", "--bundle", b.path(), &b.id]).ok();
    assert_eq!(out.fact(0), "ran");
}

/// "File config.json exists. Remove it first".
fn spec_does_not_overwrite(t: &Test) {
    let b = t.bundle();
    b.write_raw(b"mine");
    t.call(&["spec", "--bundle", b.path()]).fails().says("exists");
    assert_eq!(fs::read(b.dir.join("config.json")).unwrap(), b"mine");
}

/// `spec --rootless` maps the caller.
fn spec_rootless_has_a_user_namespace(t: &Test) {
    let b = t.bundle();
    t.call(&["spec", "--rootless", "--bundle", b.path()]).ok();
    let config: Value =
        serde_json::from_slice(&fs::read(b.dir.join("config.json")).unwrap()).unwrap();
    let namespaces = config["linux"]["namespaces"].as_array().unwrap();
    assert!(namespaces.iter().any(|n| n["type"] == "user"), "{config}");
    assert_eq!(config["linux"]["uidMappings"][0]["size"], 1);
}

/// What features claims works here: spot checks of names that other suites use.
fn features_are_true(t: &Test) {
    t.skip_on_peers("older than features");
    let all = t.call(&["features"]).ok().json();
    let list = |path: &str| {
        all.pointer(path).and_then(Value::as_array).unwrap_or_else(|| panic!("no {path}")).clone()
    };
    for option in
        ["rro", "idmap", "ridmap", "tmpcopyup", "nosymfollow", "rbind", "lazytime", "unbindable"]
    {
        assert!(list("/mountOptions").contains(&json!(option)), "{option}");
    }
    for kind in ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"] {
        assert!(list("/linux/namespaces").contains(&json!(kind)), "{kind}");
    }
    assert_eq!(list("/hooks").len(), 6);
    for action in ["SCMP_ACT_NOTIFY", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_LOG"] {
        assert!(list("/linux/seccomp/actions").contains(&json!(action)), "{action}");
    }
    assert!(list("/linux/seccomp/archs").contains(&json!("SCMP_ARCH_X86_64")));
    assert_eq!(list("/linux/seccomp/operators").len(), 7);
    assert_eq!(all["linux"]["cgroup"]["v1"], true);
    assert_eq!(all["linux"]["cgroup"]["v2"], true);
    assert_eq!(all["linux"]["mountExtensions"]["idmap"]["enabled"], true);
    assert!(list("/linux/capabilities").len() >= 41);
    // Each mount option that is claimed is understood: none reaches the file system as data.
    let mut b = t.bundle();
    let skip = [
        "bind",
        "rbind",
        "idmap",
        "ridmap",
        "remount",
        "tmpcopyup",
        "shared",
        "rshared",
        "slave",
        "rslave",
        "private",
        "rprivate",
        "unbindable",
        "runbindable",
    ];
    for option in list("/mountOptions") {
        let option = option.as_str().unwrap().to_owned();
        if !skip.contains(&option.as_str()) {
            b.mount(&format!("/opt/{option}"), "tmpfs", "tmpfs", &[&option]);
        }
    }
    b.probe(&["print", "ok"]);
    assert_eq!(t.run(&b).ok().fact(0), "ok");
}

/// --help of the program and of each command, on standard output, 0.
fn help_of_every_command(t: &Test) {
    let commands = [
        "create", "start", "state", "kill", "delete", "run", "exec", "list", "ps", "pause",
        "resume", "spec", "update",
    ];
    let all = t.call(&["--help"]).ok().stdout;
    for command in commands {
        assert!(all.contains(command), "{command} in {all}");
        let help = t.call(&[command, "--help"]).ok();
        assert!(help.stdout.to_lowercase().contains("usage"), "{help}");
    }
}
