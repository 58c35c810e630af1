//! What goes wrong is said, and leaves nothing that stands in the way.

use corten_integration::managers::client::unique;
use corten_integration::managers::docker::{Docker, RUNTIME, Test};
use corten_integration::managers::{Verdict, check, contains, image, lacks, same};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("daemon_knows_the_runtime", daemon_knows_the_runtime),
    ("failed_start_can_be_repaired", failed_start_can_be_repaired),
    ("bad_mount", bad_mount),
    ("bad_profile", bad_profile),
    ("shim_killed", shim_killed),
    ("no_root_file_system", no_root_file_system),
];

fn daemon_knows_the_runtime(docker: &Docker) -> Verdict {
    let template = "{{.DefaultRuntime}} {{.RuncCommit.ID}} {{index .Runtimes \"under-test\"}}";
    let seen = docker.ok(&["info", "--format", template])?;
    check(seen.starts_with(RUNTIME), &seen)?;
    contains("path", &seen, &docker.sandbox.runtime.display().to_string())?;
    let log = std::fs::read_to_string(&docker.daemon().log)?;
    lacks("the daemon's log", &log, "failed to retrieve")
}

fn failed_start_can_be_repaired(docker: &Docker) -> Verdict {
    let folder = docker.folder("repair")?;
    let option = format!("{}:/tools", folder.display());
    let container = docker.created(&["-v", &option], &["/tools/busybox", "true"])?;
    for _ in 0..3 {
        let failed = docker.command(&["start", &container.name]).code(1)?;
        contains("message", &failed.stderr, "no such file or directory")?;
    }
    same("state", &container.inspect("{{.State.Status}} {{.State.ExitCode}}")?, "created 127")?;
    std::fs::copy("/bin/busybox", folder.join("busybox"))?;
    container.does("start")?;
    same("exit code", &container.wait()?, &0)
}

fn bad_mount(docker: &Docker) -> Verdict {
    // A directory on a file: the runtime must refuse, and say which.
    let folder = docker.folder("bad")?;
    let option = format!("{}:/etc/greeting", folder.display());
    let failed = docker.run(&["-v", &option], &["true"]).run()?;
    check([125, 126, 127].contains(&failed.code), format!("code {}", failed.code))?;
    contains("message", &failed.stderr, "etc/greeting")?;
    let failed = docker.run(&["--tmpfs", "/t:no-such-option"], &["true"]).run()?;
    check(failed.code != 0, "an unknown tmpfs option was taken")
}

fn bad_profile(docker: &Docker) -> Verdict {
    let file = docker.folder("bad")?.join("profile.json");
    std::fs::write(&file, r#"{"defaultAction":"SCMP_ACT_NONSENSE"}"#)?;
    let option = format!("seccomp={}", file.display());
    let failed = docker.run(&["--security-opt", &option], &["true"]).run()?;
    check([125, 126, 127].contains(&failed.code), format!("code {}", failed.code))?;
    contains("message", &failed.stderr, "SCMP_ACT_NONSENSE").or_else(|_| {
        // runc names the action differently.
        contains("message", &failed.stderr, "seccomp")
    })
}

fn shim_killed(docker: &Docker) -> Verdict {
    let container = docker.background(&[], "sleep 600")?;
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", container.pid()?))?;
    let parent = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1));
    let shim = parent.ok_or("no parent in stat")?.parse()?;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(shim), nix::sys::signal::Signal::SIGKILL)?;
    // containerd cleans up with the runtime's `delete --force`.
    container.becomes("{{.State.Running}}", "false")?;
    container.does("start")?;
    same("alive again", &container.exec(&[], "echo yes")?, "yes")
}

fn no_root_file_system(docker: &Docker) -> Verdict {
    let name = unique("empty");
    // An image without any file: the program cannot be there.
    let folder = docker.folder("empty")?;
    let archive = folder.join("empty.tar").display().to_string();
    let tar = corten_integration::managers::command::Run::new("tar");
    tar.args(["-cf", &archive, "-T", "/dev/null"]).ok()?;
    docker.ok(&["import", &archive, &name])?;
    let failed =
        docker.command(&["run", "--rm", "--network", "none", &name, "/program"]).code(127)?;
    docker.ok(&["rmi", &name])?;
    contains("message", &failed.stderr, "no such file or directory")?;
    same("others work", &docker.run(&[], &["echo", image::NAME]).ok()?, image::NAME)
}
