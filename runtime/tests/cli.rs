//! The program's command line, from outside: what managers rely on before any container exists
//! (`reference/cli.md` 1.0, 1.1, 1.9). Needs neither root nor a container.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

const CORTEN: &str = env!("CARGO_BIN_EXE_corten");

fn corten<S: AsRef<OsStr>>(args: &[S]) -> Output {
    Command::new(CORTEN).args(args).output().unwrap()
}

fn line(args: &str) -> Output {
    corten(&args.split_ascii_whitespace().collect::<Vec<_>>())
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

fn code(args: &str) -> i32 {
    line(args).status.code().unwrap()
}

#[test]
fn p1_to_p3_what_conmon_rs_and_go_runc_write_is_understood() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().to_str().unwrap();
    let words = format!(
        "--root=/nonexistent --systemd-cgroup --root={root} --systemd-cgroup --debug=false \
         --rootless=true -log-format json list -format=json -quiet=false"
    );
    let output = line(&words);
    assert_eq!((stdout(&output), stderr(&output)), ("null\n", ""));
    let output = line("--root /nonexistent list");
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("no such file or directory"), "{output:?}");
}

#[test]
fn p5_and_p8_commands_that_are_not_there_fail() {
    for words in ["events --interval=5s x", "checkpoint --help", "checkpoint", "nonsense"] {
        let output = line(words);
        assert_eq!(output.status.code(), Some(3), "{words}");
        assert_eq!(stdout(&output), "");
        assert!(stderr(&output).contains("is not a command"), "{output:?}");
    }
}

#[test]
fn p7_restore_does_not_claim_what_it_cannot() {
    let output = line("restore --lsm-mount-context");
    assert_eq!(output.status.code(), Some(3));
    let text = [stdout(&output), stderr(&output)].concat();
    assert!(!text.contains("flag needs an argument") && !text.contains("requires an argument"));
    assert!(stderr(&line("create --bundle")).contains("flag needs an argument: --bundle"));
}

#[test]
fn p9_features_prints_json_and_nothing_on_standard_error() {
    for words in ["features", "--debug features", "--log-level debug features"] {
        let output = line(words);
        assert!(output.status.success());
        assert_eq!(stderr(&output), "");
        let tree: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(tree["ociVersionMax"].is_string());
    }
}

#[test]
fn p10_and_p11_the_version_is_what_dockerd_parses() {
    for words in ["--version", "-v", "-version", "--root /x --version"] {
        let output = line(words);
        assert!(output.status.success());
        assert_eq!(stderr(&output), "");
        let mut lines = stdout(&output).lines();
        let first: Vec<&str> = lines.next().unwrap().split(' ').collect();
        assert_eq!(first, ["corten", "version", env!("CARGO_PKG_VERSION")]);
        assert!(lines.next().unwrap().starts_with("commit: "));
        assert_eq!(lines.next(), Some("spec: 1.3.0"));
        assert!(lines.all(|line| !line.contains("version")));
    }
}

#[test]
fn p12_exit_codes_tell_usage_from_exec_from_nonsense() {
    for (words, expected) in [
        ("", 0),
        ("--help", 0),
        ("help", 0),
        ("help exec", 0),
        ("exec --help", 0),
        ("help nonsense", 1),
        ("--nonsense", 1),
        ("--root / list", 1),
        ("create", 1),
        ("create --nonsense x", 1),
        ("state", 1),
        ("state a b", 1),
        ("state a/b", 1),
        ("exec", 255),
        ("exec --nonsense x", 255),
        ("nonsense", 3),
        ("nonsense --help", 3),
    ] {
        assert_eq!(code(words), expected, "{words}");
    }
}

#[test]
fn p13_a_missing_container_does_not_exist_and_a_bad_id_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().to_str().unwrap();
    let output = corten(&["--root", root, "state", "A.b_c+d-e"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("does not exist"), "{output:?}");
    for id in ["", ".", "..", "a/b", "../x", "a\nb", "a b"] {
        let output = corten(&["--root", root, "state", id]);
        assert_eq!(output.status.code(), Some(1), "{id:?}");
        assert_eq!(stderr(&output).lines().count(), 1, "{output:?}");
        assert!(stderr(&output).contains("container"), "{output:?}");
    }
    assert_eq!(fs::read_dir(root).unwrap().count(), 0);
}

#[test]
fn p14_the_environment_may_be_empty() {
    let dir = tempfile::tempdir().unwrap();
    for words in ["--version", "features", "help"] {
        let words = words.split(' ');
        let output = Command::new(CORTEN).args(words).env_clear().output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    let root = dir.path().as_os_str();
    let mut list = Command::new(CORTEN);
    list.env_clear().env("XDG_RUNTIME_DIR", dir.path()).arg("--root").arg(root).arg("list");
    let output = list.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(stdout(&output).starts_with("ID          PID"), "{output:?}");
}

#[test]
fn a_failure_leaves_one_json_line_in_the_log_and_one_on_standard_error() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log.json");
    fs::write(&log, "{\"before\":1}\n").unwrap();
    let args = ["--log", log.to_str().unwrap(), "--log-format", "json", "state", "none"];
    let output = corten(&args);
    let message = "container does not exist: none";
    assert_eq!(stderr(&output), format!("{message}\n"));
    let text = fs::read_to_string(&log).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert_eq!(lines[1]["level"], "error");
    assert_eq!(lines[1]["msg"], message);
    let time = lines[1]["time"].as_str().unwrap();
    assert!(time.len() >= 20 && time.ends_with('Z') && &time[10..11] == "T", "{time}");
}

#[test]
fn a_usage_error_is_in_the_log_too() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log.json");
    let log_option = format!("--log={}", log.display());
    corten(&[log_option.as_str(), "--log-format=json", "create", "--nonsense", "x"]);
    let line: Value = serde_json::from_str(&fs::read_to_string(&log).unwrap()).unwrap();
    assert_eq!(line["msg"], "create: unknown option \"--nonsense\"");
}

#[test]
fn without_a_log_file_the_line_has_the_log_s_form() {
    let output = line("state none");
    let text = stderr(&output);
    assert!(text.starts_with("time=\"") && text.lines().count() == 1, "{text}");
    assert!(text.ends_with("level=error msg=\"container does not exist: none\"\n"), "{text}");
    let output = line("--log-format json state none");
    let tree: Value = serde_json::from_str(stderr(&output)).unwrap();
    assert_eq!(tree["level"], "error");
}

#[test]
fn a_log_that_cannot_be_opened_is_an_error() {
    let output = line("--log /nonexistent/log list");
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("open log file \\\"/nonexistent/log\\\""), "{output:?}");
}

#[test]
fn closed_standard_streams_are_not_confused_with_files() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let script = format!(
        "exec {CORTEN} --root {} --log {} list <&- >&- 2>&-",
        dir.path().display(),
        log.display()
    );
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(fs::read_to_string(&log).unwrap(), "");
}

#[test]
fn a_broken_pipe_is_an_error_not_a_death() {
    let script = format!("({CORTEN} features; echo code=$? >&2) | true");
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    let text = stderr(&output);
    assert!(text.contains("code=0") || text.contains("code=1"), "{text}");
}

#[test]
fn spec_writes_a_config_once() {
    let dir = tempfile::tempdir().unwrap();
    let bundle = dir.path().to_str().unwrap();
    for (args, user) in [(vec!["spec", "-b", bundle], false), (vec!["spec", "--rootless"], true)] {
        let spec = || Command::new(CORTEN).args(&args).current_dir(bundle).output().unwrap();
        let output = spec();
        assert!(output.status.success(), "{output:?}");
        let output = spec();
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains("File config.json exists. Remove it first"));
        let path = Path::new(bundle).join("config.json");
        let tree: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(tree["linux"]["uidMappings"].is_array(), user);
        fs::remove_file(path).unwrap();
    }
}

#[test]
fn warnings_of_a_command_that_succeeds_are_written() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("broken")).unwrap();
    let root = dir.path().to_str().unwrap();
    let output = corten(&["--root", root, "list", "-q"]);
    assert_eq!((output.status.code(), stdout(&output)), (Some(0), ""));
    let text = stderr(&output);
    assert!(text.contains("level=warning") && text.contains("broken"), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    let output = corten(&["--root", root, "--log-level", "error", "list", "-q"]);
    assert_eq!(stderr(&output), "");
}
