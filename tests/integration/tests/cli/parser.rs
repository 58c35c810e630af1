//! The parser's rules P1 to P14.

use std::fs;
use std::process::Command;

use corten_integration::suite::Case;
use corten_integration::{Flavour, Test, tests};

pub(crate) const TESTS: &[Case] = tests![
    p1_globals_may_be_repeated,
    p2_one_dash_and_equals_sign,
    p3_flags_take_true_and_false,
    p4_options_may_follow_the_id,
    p4_exec_and_ps_keep_what_follows,
    p6_kill_without_signal_is_term,
    p7_probe_for_lsm_mount_context,
    p8_checkpoint_help_tells_the_truth,
    p9_features_is_json_and_nothing_else,
    p10_version_for_dockerd,
    p12_usage_errors,
    p14_almost_no_environment,
    p14_no_standard_streams,
];

/// P1: the last of repeated global options wins, flags may be repeated too.
fn p1_globals_may_be_repeated(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["print", "x"]).write();
    let root = t.root();
    let root = root.to_str().unwrap();
    let args = [
        "--root",
        "/absent/nowhere",
        "--debug",
        "--root",
        root,
        "--debug",
        "run",
        "--bundle",
        b.path(),
        &b.id,
    ];
    let mut command = Command::new(&t.runtime);
    command.args(args);
    t.execute(command).ok();
    assert!(!fs::exists("/absent").unwrap());
}

/// P2: `-root X`, `--root=X`, `-root=X`.
fn p2_one_dash_and_equals_sign(t: &Test) {
    t.skip_on(Flavour::Crun, "rc 64");
    let mut b = t.bundle();
    b.probe(&["print", "x"]).write();
    let root = t.root();
    let root = root.to_str().unwrap();
    for globals in [
        vec!["-root".to_owned(), root.to_owned()],
        vec![format!("--root={root}")],
        vec![format!("-root={root}")],
    ] {
        let mut command = Command::new(&t.runtime);
        command.args(&globals).args(["run", "-bundle", b.path(), &b.id]);
        t.execute(command).ok();
        let mut command = Command::new(&t.runtime);
        command.args(&globals).args([
            "run",
            &format!("--bundle={}", b.path()),
            "-no-subreaper",
            &b.id,
        ]);
        t.execute(command).ok();
    }
}

/// P3: go-runc writes `--rootless=%t`.
fn p3_flags_take_true_and_false(t: &Test) {
    t.skip_on(Flavour::Crun, "takes other forms");
    let mut b = t.bundle();
    b.probe(&["sleep"]).write();
    t.call(&[
        "--debug=false",
        "--rootless=false",
        "run",
        "--detach=true",
        "--no-pivot=false",
        "--bundle",
        b.path(),
        &b.id,
    ])
    .ok();
    assert_eq!(t.status(&b.id), "running");
    t.call(&["delete", "--force=true", &b.id]).ok();
    t.nothing_left(&b);
}

/// P4: the id may come before the options.
fn p4_options_may_follow_the_id(t: &Test) {
    t.skip_on(Flavour::Crun, "no");
    let mut b = t.bundle();
    b.probe(&["sleep"]).write();
    let file = t.dir.join("pid");
    t.call(&["create", &b.id, "--bundle", b.path(), "--pid-file", file.to_str().unwrap()]).ok();
    assert!(file.exists());
    t.call(&["delete", &b.id, "--force"]).ok();
    t.nothing_left(&b);
}

/// P4: but what follows the id of exec and ps is the program's.
fn p4_exec_and_ps_keep_what_follows(t: &Test) {
    let mut b = t.bundle();
    t.sleeper(&mut b);
    let out = t.call(&["exec", &b.id, "/probe", "print", "--user", "-d", "--help"]).ok();
    assert_eq!(out.fact(0), "--user -d --help");
    t.skip_on(Flavour::Crun, "no arguments for ps");
    assert!(t.call(&["ps", &b.id, "-o", "pid,args"]).ok().stdout.contains("/probe sleep"));
}

/// P6: buildah calls `kill ID`.
fn p6_kill_without_signal_is_term(t: &Test) {
    let mut b = t.bundle();
    let pid = t.sleeper(&mut b);
    t.call(&["kill", &b.id]).ok();
    assert_eq!(t.exit_code(pid), 143);
}

/// P7: podman and cri-o look for these words to know whether pods can be restored.
fn p7_probe_for_lsm_mount_context(t: &Test) {
    t.skip_on_peers("depends on CRIU");
    let out = t.call(&["restore", "--lsm-mount-context"]);
    assert_ne!(out.code, 0);
    // Without restore neither of the words may appear: it would be promised.
    let text = format!("{}{}", out.stdout, out.stderr);
    let promised = text.contains("flag needs an argument") || text.contains("requires an argument");
    assert_eq!(promised, t.call(&["checkpoint", "--help"]).code == 0, "{text}");
}

/// P8: `checkpoint --help` succeeds if and only if checkpoint works.
fn p8_checkpoint_help_tells_the_truth(t: &Test) {
    t.skip_on_peers("claim it without CRIU");
    let help = t.call(&["checkpoint", "--help"]).code;
    let mut b = t.bundle();
    t.sleeper(&mut b);
    let works =
        t.call(&["checkpoint", "--image-path", t.dir.join("image").to_str().unwrap(), &b.id]).code
            == 0;
    assert_eq!(help == 0, works);
}

/// P9: cri-o reads standard output and error together.
fn p9_features_is_json_and_nothing_else(t: &Test) {
    t.skip_on_peers("older than features");
    let out = t.call(&["features"]).ok();
    assert_eq!(out.stderr, "");
    assert!(out.json()["ociVersionMax"].is_string());
}

/// P10, P11: one word "version", in the first line.
fn p10_version_for_dockerd(t: &Test) {
    for flag in ["--version", "-v"] {
        let out = t.call(&[flag]).ok();
        let lines: Vec<&str> = out.stdout.lines().collect();
        assert_eq!(lines[0].split_whitespace().filter(|w| *w == "version").count(), 1, "{out}");
        if t.flavour != Flavour::Crun {
            assert!(lines[1..].iter().all(|l| !l.contains("version")), "{out}");
        }
        assert!(lines.iter().any(|l| l.starts_with("commit: ")), "{out}");
        assert!(lines.iter().any(|l| l.starts_with("spec: 1.")), "{out}");
    }
}

/// P12: usage errors are not 0; unknown commands too; exec's are 255.
fn p12_usage_errors(t: &Test) {
    for args in [
        &["no-such-command"][..],
        &["create"],
        &["create", "--no-such-flag", "x"],
        &["start"],
        &["kill"],
        &["list", "--format", "x"],
        &["state", "a", "b"],
    ] {
        if t.flavour == Flavour::Crun && args[0] == "list" {
            continue;
        }
        let out = t.call(args);
        assert_ne!(out.code, 0, "{out}");
        assert!(out.code < 128, "{out}");
    }
    t.skip_on_peers("1");
    assert_eq!(t.call(&["exec"]).code, 255);
    assert_eq!(t.call(&["exec", "--no-such-flag", "x", "y"]).code, 255);
}

/// P14: no HOME, no PATH, no USER, no TMPDIR.
fn p14_almost_no_environment(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["sleep"]).write();
    let life = format!(
        "R='env -i '$RUNTIME' --root '$ROOT; $R create -b {} {id} && $R start {id} && $R exec {id} /probe exit 0 && \
         $R state {id} >/dev/null && $R pause {id} && $R resume {id} && $R kill {id} KILL && $R delete --force {id}",
        b.path(),
        id = b.id
    );
    t.shell(&life).ok();
    t.nothing_left(&b);
}

/// Closed streams are not taken for files that are opened later.
fn p14_no_standard_streams(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["report", "fds"]).write();
    let life = format!(
        "R=$RUNTIME' --root '$ROOT; $R create -b {} {id} <&- >&- 2>&- && $R start {id} <&- >&- 2>&- && $R delete --force {id} <&- >&- 2>&-",
        b.path(),
        id = b.id
    );
    t.skip_on_peers("fail or use other files");
    t.shell(&life).ok();
    t.nothing_left(&b);
}
