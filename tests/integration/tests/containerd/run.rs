//! `ctr run`: images, directories, snapshotters, terminals, codes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use corten_integration::managers::containerd::{Containerd, alive};
use corten_integration::managers::{Stop, Verdict, check, contains, eventually, lacks, same};

pub(crate) const TESTS: &[(&str, crate::Test)] = &[
    ("streams_and_code", streams_and_code),
    ("is_removed", is_removed),
    ("detached", detached),
    ("runtime_by_path", runtime_by_path),
    ("first_process", first_process),
    ("root_directory", root_directory),
    ("snapshotters", snapshotters),
    ("changes_stay_apart", changes_stay_apart),
    ("pid_file", pid_file),
    ("null_io", null_io),
    ("terminal", terminal),
    ("terminal_resize", terminal_resize),
    ("terminal_shell", terminal_shell),
    ("signals_are_forwarded", signals_are_forwarded),
];

fn streams_and_code(ctr: &Containerd) -> Verdict {
    for code in [0, 1, 42, 255] {
        let script = format!("echo out; echo err >&2; exit {code}");
        let ended = ctr.run(&[], &["sh", "-c", &script])?.code(code)?;
        same("stdout", &ended.stdout, "out\n")?;
        same("stderr", &ended.stderr, "err\n")?;
    }
    Ok(())
}

fn is_removed(ctr: &Containerd) -> Verdict {
    let id = ctr.id()?;
    let image = corten_integration::managers::image::REFERENCE;
    let words = ["run", "--rm", "--runtime", &ctr.runtime, image, &id, "true"];
    ctr.ok(&words)?;
    lacks("containers", &ctr.ok(&["container", "ls", "-q"])?, &id)?;
    lacks("snapshots", &ctr.ok(&["snapshot", "ls"])?, &id)?;
    // The name is free at once.
    ctr.ok(&words).map(drop)
}

fn detached(ctr: &Containerd) -> Verdict {
    let container = ctr.background(&[], "sleep 600")?;
    same("status", &container.status()?, "RUNNING")?;
    let pid = container.pid()?;
    let words = format!("/proc/{pid}/cmdline");
    eventually("the shell has become the sleep", Duration::from_secs(10), || {
        Ok(std::fs::read(&words)? == b"sleep\x00600\0")
    })?;
    let shim = container.shim()?;
    check(ctr.shims()?.contains(&shim), format!("{shim} is none of our shims"))?;
    container.does("kill", &["-s", "KILL"])?;
    same("exit code", &container.ends()?, &137)?;
    eventually("its shim has ended", Duration::from_secs(10), || Ok(!alive(shim)))
}

fn runtime_by_path(ctr: &Containerd) -> Verdict {
    let shim = ctr.sandbox.shim()?.display().to_string();
    same("output", &ctr.sh(&["--runtime", &shim], "echo by path")?, "by path")
}

fn first_process(ctr: &Containerd) -> Verdict {
    let seen = ctr.sh(&[], "echo $$; cat /proc/1/cgroup; hostname; ls /proc/self/fd")?;
    check(seen.starts_with("1\n"), &seen)?;
    // Its streams, and the directory that `ls` reads.
    check(seen.ends_with("\n0\n1\n2\n3"), &seen)
}

fn root_directory(ctr: &Containerd) -> Verdict {
    let root = ctr.folder("root")?;
    for folder in ["bin", "proc", "sys", "dev"] {
        std::fs::create_dir(root.join(folder))?;
    }
    std::fs::copy("/bin/busybox", root.join("bin/busybox"))?;
    let path = root.display().to_string();
    let words = ["/bin/busybox", "sh", "-c", "echo kept > /note; /bin/busybox ls /"];
    let seen = ctr.run(&["--rootfs", &path], &words)?.ok()?;
    contains("listing", &seen, "note")?;
    same("on the host", &std::fs::read_to_string(root.join("note"))?, "kept\n")
}

fn snapshotters(ctr: &Containerd) -> Verdict {
    for (snapshotter, kind) in [("overlayfs", " / overlay "), ("native", " / ")] {
        let options = ["--snapshotter", snapshotter];
        let seen = ctr.sh(&options, "cat /proc/self/mounts; echo new > /etc/new; cat /etc/new")?;
        contains(snapshotter, &seen, kind)?;
        check(seen.ends_with("\nnew"), &seen)?;
        let options = ["--snapshotter", snapshotter, "--read-only"];
        let failed = ctr.run(&options, &["sh", "-c", "echo x > /etc/new"])?.code(1)?;
        contains(snapshotter, &failed.stderr, "Read-only file system")?;
    }
    Ok(())
}

fn changes_stay_apart(ctr: &Containerd) -> Verdict {
    let first = ctr.background(&[], "echo mine > /mine; sleep 600")?;
    first.exec(&[], "until [ -s /mine ]; do sleep 0.05; done")?;
    same("another one", &ctr.sh(&[], "ls /mine 2>/dev/null || echo none")?, "none")
}

fn pid_file(ctr: &Containerd) -> Verdict {
    let file = ctr.folder("pid")?.join("pid");
    let container = ctr.background(&["--pid-file", &file.display().to_string()], "sleep 600")?;
    same("pid", &std::fs::read_to_string(file)?, &container.pid()?.to_string())
}

fn null_io(ctr: &Containerd) -> Verdict {
    let ended = ctr.run(&["--null-io"], &["sh", "-c", "cat; echo lost; exit 3"])?.code(3)?;
    same("output", &ended.all(), "")?;
    let container = ctr.background(&["--null-io"], "sleep 600")?;
    let files = PathBuf::from(format!("/proc/{}/fd", container.pid()?));
    for number in ["0", "1", "2"] {
        same(number, &std::fs::read_link(files.join(number))?, Path::new("/dev/null"))?;
    }
    Ok(())
}

fn terminal(ctr: &Containerd) -> Verdict {
    let script = "tty; test -t 0 && test -t 2 && echo terminals; \
                  until [ \"$(stty size)\" = '33 77' ]; do sleep 0.05; done; echo sized; exit 4";
    let (code, screen) = ctr.terminal(ctr.run(&["--tty"], &["sh", "-c", script])?)?.finish()?;
    for part in ["/dev/", "terminals", "\nsized"] {
        contains("screen", &screen, part)?;
    }
    same("exit code", &code, &4)
}

fn terminal_resize(ctr: &Containerd) -> Verdict {
    let script = "trap 'stty size' WINCH; echo ready; for i in $(seq 400); do sleep 0.05; done";
    let mut terminal = ctr.terminal(ctr.run(&["-t"], &["sh", "-c", script])?)?;
    terminal.expect("ready")?;
    terminal.resize(20, 111, "20 111")?;
    terminal.send("\x03")?;
    terminal.finish().map(drop)
}

fn terminal_shell(ctr: &Containerd) -> Verdict {
    let mut terminal = ctr.terminal(ctr.run(&["-t"], &["sh"])?)?;
    terminal.expect("# ")?;
    terminal.send("sleep 500; echo code=$?\n")?;
    std::thread::sleep(Duration::from_millis(300));
    terminal.send("\x03")?;
    terminal.send("echo alive $((2+3))\n")?;
    terminal.expect("alive 5")?;
    // Everything that was written comes, in order, before the end; but ctr stops reading at the exit.
    let lines = "i=0; while [ $i -lt 2000 ]; do i=$((i+1)); echo line $i; done; sleep 3; exit 6\n";
    terminal.send(lines)?;
    let (code, screen) = terminal.finish()?;
    contains("screen", &screen, "\nline 1999\nline 2000\n")?;
    same("exit code", &code, &6)
}

fn signals_are_forwarded(ctr: &Containerd) -> Verdict {
    let folder = ctr.folder("signal")?;
    let mount = format!("type=bind,src={},dst=/out,options=rbind:rw", folder.display());
    let script = "trap 'touch /out/heard' CONT; trap 'echo got; exit 9' TERM; \
                  while :; do sleep 0.05; done";
    let run = ctr.run(&["--mount", &mount], &["sh", "-c", script])?;
    let mut command = run.into_command();
    command.stdin(std::process::Stdio::null()).stdout(std::fs::File::create(folder.join("text"))?);
    let mut child = corten_integration::managers::command::spawn(&mut command)?;
    let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
    // ctr forwards signals once its Start has returned; before, SIGTERM would be its own end.
    let ready = eventually("ctr forwards signals", Duration::from_secs(30), || {
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCONT)?;
        Ok(folder.join("heard").exists())
    });
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?;
    let limit = Duration::from_secs(30);
    let status = corten_integration::managers::command::wait(&mut child, limit)?;
    ready?;
    let status = status.ok_or_else(|| Stop::Fail("ctr did not end".to_owned()))?;
    same("output", &std::fs::read_to_string(folder.join("text"))?, "got\n")?;
    same("exit code", &status.code(), &Some(9))
}
