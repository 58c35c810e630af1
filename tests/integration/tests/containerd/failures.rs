//! What goes wrong is said once and clearly, and leaves nothing that stands in the way.

use std::fs;

use corten_integration::managers::containerd::Containerd;
use corten_integration::managers::{Verdict, check, contains, lacks, same};

pub(crate) const TESTS: &[(&str, crate::Test)] = &[
    ("missing_shim", missing_shim),
    ("missing_program", missing_program),
    ("missing_root", missing_root),
    ("bad_workdir", bad_workdir),
    ("bad_mount", bad_mount),
    ("bad_namespace", bad_namespace),
    ("bad_profile", bad_profile),
    ("bad_limit", bad_limit),
    ("bad_specification", bad_specification),
    ("repaired_and_started", repaired_and_started),
];

/// `run --rm` that must fail with one error line that holds `part`, and leave nothing.
fn fails(ctr: &Containerd, options: &[&str], words: &[&str], parts: &[&str]) -> Verdict {
    let failed = ctr.run(options, words)?.code(1)?;
    same("output", &failed.stdout, "")?;
    let lines: Vec<_> = failed.stderr.lines().collect();
    check(lines.len() == 1, format!("{} lines: {}", lines.len(), failed.stderr))?;
    for part in parts {
        contains("message", &failed.stderr, part)?;
        if !ctr.sandbox.is_runc() {
            // What is said is said once.
            same(part, &failed.stderr.matches(part).count(), &1)?;
        }
    }
    let id = failed.line.split(' ').find(|word| word.starts_with("ctr") && word.len() > 3);
    let id = id.unwrap_or_default();
    lacks("containers", &ctr.ok(&["container", "ls", "-q"])?, id)?;
    lacks("tasks", &ctr.ok(&["task", "ls", "-q"])?, id)?;
    lacks("snapshots", &ctr.ok(&["snapshot", "ls"])?, id)
}

fn missing_shim(ctr: &Containerd) -> Verdict {
    let parts = ["binary not installed", "containerd-shim-nope-v7"];
    fails(ctr, &["--runtime", "io.containerd.nope.v7"], &["true"], &parts)
}

fn missing_program(ctr: &Containerd) -> Verdict {
    fails(ctr, &[], &["no-such-program"], &["executable file not found in $PATH"])?;
    fails(ctr, &[], &["/no/such"], &["no such file or directory"])?;
    fails(ctr, &[], &["/etc/greeting"], &["permission denied"])?;
    fails(ctr, &["--tty"], &["true"], &[])
        .map_or_else(|_| Ok(()), |()| check(false, "a terminal without a terminal"))
}

fn missing_root(ctr: &Containerd) -> Verdict {
    fails(ctr, &["--rootfs", "/no/such/root"], &["true"], &["/no/such/root"])
}

fn bad_workdir(ctr: &Containerd) -> Verdict {
    // A directory that is not there is made; one that cannot be is an error.
    same("made", &ctr.sh(&["--cwd", "/new/one"], "pwd")?, "/new/one")?;
    fails(ctr, &["--cwd", "/etc/greeting/x"], &["true"], &["etc/greeting"])
}

fn bad_mount(ctr: &Containerd) -> Verdict {
    let missing = "type=bind,src=/no/such/source,dst=/there,options=rbind";
    fails(ctr, &["--mount", missing], &["true"], &["/no/such/source"])?;
    let folder = ctr.folder("bad")?;
    let wrong = format!("type=bind,src={},dst=/etc/greeting,options=rbind", folder.display());
    fails(ctr, &["--mount", &wrong], &["true"], &["not a directory"])?;
    let odd = "type=no-such-fs,src=none,dst=/there,options=rw";
    fails(ctr, &["--mount", odd], &["true"], &["no such device"])
}

fn bad_namespace(ctr: &Containerd) -> Verdict {
    fails(ctr, &["--with-ns", "network:/no/such/ns"], &["true"], &["/no/such/ns"])
}

fn bad_profile(ctr: &Containerd) -> Verdict {
    let file = ctr.folder("bad")?.join("profile.json");
    fs::write(&file, r#"{"defaultAction":"SCMP_ACT_NONSENSE"}"#)?;
    let file = file.display().to_string();
    let options = ["--seccomp", "--seccomp-profile", &file];
    let part = if ctr.sandbox.is_reference_shim() { "seccomp" } else { "SCMP_ACT_NONSENSE" };
    let failed = ctr.run(&options, &["true"])?.code(1)?;
    contains("message", &failed.stderr, part)
}

fn bad_limit(ctr: &Containerd) -> Verdict {
    // Less than a process needs.
    let failed = ctr.run(&["--memory-limit", "4096"], &["true"])?.code(1)?;
    contains("message", &failed.stderr, "memory")
}

fn bad_specification(ctr: &Containerd) -> Verdict {
    let file = ctr.folder("bad")?.join("config.json");
    let id = ctr.id()?;
    for (text, part) in [
        (r#"{"ociVersion":"1.0.2","process":{"args":["true"],"cwd":"/"}}"#, "root"),
        (
            r#"{"ociVersion":"1.0.2","root":{"path":"/"},"process":{"args":["true"],"cwd":"x"}}"#,
            "cwd",
        ),
    ] {
        fs::write(&file, text)?;
        let config = file.display().to_string();
        let words = ["run", "--rm", "--runtime", &ctr.runtime, "--config", &config, &id];
        let failed = ctr.ctr(&words).code(1)?;
        contains("message", &failed.stderr.to_lowercase(), part)?;
        lacks("containers", &ctr.ok(&["container", "ls", "-q"])?, &id)?;
    }
    Ok(())
}

fn repaired_and_started(ctr: &Containerd) -> Verdict {
    let folder = ctr.folder("repair")?;
    let mount = format!("type=bind,src={},dst=/tools,options=rbind", folder.display());
    let container = ctr.created(&["--mount", &mount], &["/tools/busybox", "true"])?;
    for _ in 0..3 {
        let failed = container.task("start", &["-d"]).code(1)?;
        contains("message", &failed.stderr, "no such file or directory")?;
        same("no task", &container.status()?, "none")?;
    }
    fs::copy("/bin/busybox", folder.join("busybox"))?;
    container.does("start", &["-d"])?;
    same("exit code", &container.ends()?, &0)
}
