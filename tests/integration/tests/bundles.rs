//! The example bundles of `bundles/`, as they stand, and `make run`'s container.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use corten_integration::bundle::hello;
use corten_integration::console::ConsoleSocket;
use corten_integration::driver::workspace;
use corten_integration::{Bundle, Test, cgroups, suite, tests};

fn main() -> ExitCode {
    suite(tests![
        hello_tells_what_it_sees,
        minimal,
        terminal,
        userns,
        seccomp,
        limits,
        hooks,
        readme_names_them_all
    ])
}

/// The config of an example with a root file system for this test.
fn example(t: &Test, name: &str) -> Bundle {
    let b = if name == "hello" { t.bundle() } else { t.busybox() };
    let source = workspace().join("bundles").join(name).join("config.json");
    fs::copy(&source, b.dir.join("config.json")).unwrap_or_else(|e| panic!("{source:?}: {e}"));
    b
}

fn run(t: &Test, b: &Bundle) -> corten_integration::Output {
    t.call(&["run", "--bundle", b.path(), &b.id])
}

/// hostname, pid, mounts, cgroup and capabilities, from one static program.
fn hello_tells_what_it_sees(t: &Test) {
    let b = example(t, "hello");
    fs::copy(hello(), b.rootfs().join("hello")).unwrap();
    let text = run(t, &b).ok().stdout;
    for words in [
        "Hello",
        "hostname      corten",
        "pid           1",
        "capabilities  chown",
        "cgroup\n",
        "mounts\n",
        "/proc",
        "/dev/shm",
    ] {
        assert!(text.contains(words), "{words:?} in {text}");
    }
    t.nothing_left(&b);
}

/// The shortest config there is.
fn minimal(t: &Test) {
    t.skip_on(corten_integration::Flavour::Runc, "needs a /proc in the container");
    assert_eq!(run(t, &example(t, "minimal")).ok().stdout, "minimal\n");
}

/// A shell on a terminal of the size that the config gives.
fn terminal(t: &Test) {
    let b = example(t, "terminal");
    let socket = ConsoleSocket::bind(&t.dir.join("console"));
    t.call(&["create", "--bundle", b.path(), "--console-socket", socket.path(), &b.id]).ok();
    let mut terminal = socket.accept();
    t.start(&b.id).ok();
    terminal.send("stty size; exit 3\n");
    if t.flavour == corten_integration::Flavour::Corten {
        terminal.expect("40 120");
    }
    t.wait_status(&b.id, "stopped");
}

/// root inside, 100000 outside.
fn userns(t: &Test) {
    let b = example(t, "userns");
    std::os::unix::fs::chown(b.rootfs(), Some(100_000), Some(100_000)).unwrap();
    let text = run(t, &b).ok().stdout;
    assert!(text.starts_with("0\n") && text.contains("100000"), "{text}");
}

/// mkdir is refused, the shell lives on.
fn seccomp(t: &Test) {
    let text = run(t, &example(t, "seccomp")).ok().stdout;
    assert!(text.contains("refused") && text.contains("alive"), "{text}");
}

/// The limits are those of the config, inside and in the cgroup.
fn limits(t: &Test) {
    let b = example(t, "limits");
    t.call(&["create", "--bundle", b.path(), &b.id]).ok();
    let file = |controller: &str, name: &str| -> String {
        let dir: PathBuf = cgroups::directory(controller, "/corten-limits").unwrap();
        fs::read_to_string(dir.join(name)).unwrap().trim().to_owned()
    };
    if !cgroups::is_v2() {
        assert_eq!(file("memory", "memory.limit_in_bytes"), (64 << 20).to_string());
        assert_eq!(file("cpu", "cpu.cfs_quota_us"), "50000");
    }
    assert_eq!(file("pids", "pids.max"), "32");
    t.force(&b.id).ok();
    assert!(!Path::new("/sys/fs/cgroup/pids/corten-limits").exists());
    assert_eq!(run(t, &example(t, "limits")).ok().stdout, "256\n500\n");
}

/// startContainer prepares a file, the program prints it.
fn hooks(t: &Test) {
    assert_eq!(run(t, &example(t, "hooks")).ok().stdout, "prepared\nmain\n");
}

/// A line for each example.
fn readme_names_them_all(_: &Test) {
    let dir = workspace().join("bundles");
    let text = fs::read_to_string(dir.join("README.md")).unwrap();
    for entry in fs::read_dir(&dir).unwrap().flatten().filter(|e| e.path().is_dir()) {
        let name = entry.file_name().to_string_lossy().into_owned();
        assert!(text.contains(&format!("- `{name}`:")), "{name}");
        assert!(entry.path().join("config.json").exists(), "{name}");
    }
}
