//! R16, R17 and R28: callers that leave odd things to the runtime (few descriptors, little memory,
//! signals ignored or blocked, no working directory, no /proc) and consoles that do not answer.

use std::fs;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use corten_integration::driver::patience;
use corten_integration::suite::Case;
use corten_integration::{Output, Test, tests};
use serde_json::json;

use crate::subject::Subject;
use crate::tally::{self, Count};
use crate::tracer::HANG;

pub(crate) const TESTS: &[Case] = tests![
    r16_few_descriptors,
    r16_little_address_space,
    r16_few_processes,
    r17_signals_ignored_and_blocked,
    r17_odd_umask_and_directory,
    r17_nothing_in_the_environment,
    r17_without_proc,
    r28_console_sockets,
];

fn subject(t: &Test) -> Subject<'_> {
    t.skip_on_peers("crash or leave things");
    let mut bundle = t.bundle();
    bundle.probe(&["report", "status"]);
    Subject::of(t, bundle)
}

/// The line of shell that runs the container.
fn run_line(subject: &Subject<'_>) -> String {
    format!("\"$RUNTIME\" --root \"$ROOT\" run -b {} {}", subject.bundle.path(), subject.id())
}

/// It works, or fails with a word, and nothing is left.
fn survived(subject: &Subject<'_>, name: &str, line: &str) -> Option<Output> {
    let mut result = None;
    tally::point(subject, name, || {
        let begun = Instant::now();
        let out = subject.t.shell(line);
        assert!(begun.elapsed() < patience(HANG), "{out} took {:?}", begun.elapsed());
        assert!(!out.stderr.contains("internal error"), "{out}");
        assert!(out.code == 0 || !out.stderr.trim().is_empty(), "{out} without a word");
        if out.code != 0 {
            subject.is_gone(name);
        }
        subject.end(name);
        result = Some(out);
        Ok(())
    });
    result
}

fn r16_few_descriptors(t: &Test) {
    let (subject, count) = (subject(t), Count::begin());
    for limit in 3..64 {
        let line = format!("ulimit -n {limit}; exec {}", run_line(&subject));
        let out = survived(&subject, &format!("{limit} descriptors"), &line);
        assert!(limit < 60 || out.is_none_or(|out| out.code == 0), "60 are enough");
    }
    count.end(t, "few descriptors");
}

/// In KiB. A program that has no memory to begin with ends as libc likes; it has made nothing.
fn r16_little_address_space(t: &Test) {
    let (subject, count) = (subject(t), Count::begin());
    for limit in (0..40).map(|n| n * 500 + 500) {
        let name = format!("{limit} KiB of addresses");
        tally::point(&subject, &name, || {
            let out = t.shell(&format!("ulimit -v {limit}; {} || exit 9", run_line(&subject)));
            assert!(out.code == 0 || out.code == 9, "{out}");
            subject.is_gone(&name);
            Ok(())
        });
    }
    count.end(t, "little address space");
}

fn r16_few_processes(t: &Test) {
    let (subject, count) = (subject(t), Count::begin());
    for limit in 0..4 {
        let line = format!("ulimit -u {limit}; exec {}", run_line(&subject));
        survived(&subject, &format!("{limit} processes"), &line);
    }
    count.end(t, "few processes");
}

/// The container gets none of it.
fn r17_signals_ignored_and_blocked(t: &Test) {
    let (subject, count) = (subject(t), Count::begin());
    for how in ["--ignore-signal=CHLD", "--ignore-signal", "--block-signal", "--block-signal=CHLD"]
    {
        let line = format!("exec env {how} {}", run_line(&subject));
        let out = survived(&subject, how, &line).expect("it ran").ok();
        let status = &out.fact(0)["status"];
        assert_eq!(status["SigBlk"], "0000000000000000", "{how}");
        let ignored = u64::from_str_radix(status["SigIgn"].as_str().unwrap_or("x"), 16);
        // The probe is a Rust program, which ignores SIGPIPE.
        assert_eq!(ignored.map(|set| set & !(1 << 12)), Ok(0), "{how}");
    }
    count.end(t, "signals");
}

fn r17_odd_umask_and_directory(t: &Test) {
    let (subject, count) = (subject(t), Count::begin());
    for umask in ["0777", "0000", "0177"] {
        let out = survived(&subject, umask, &format!("umask {umask}; exec {}", run_line(&subject)));
        out.expect("it ran").ok();
    }
    let gone = t.dir.join("gone");
    let line = format!(
        "mkdir {dir} && cd {dir} && rmdir {dir} && exec {}",
        run_line(&subject),
        dir = gone.display()
    );
    survived(&subject, "a working directory that is gone", &line).expect("it ran").ok();
    count.end(t, "umask and directory");
}

fn r17_nothing_in_the_environment(t: &Test) {
    let (subject, count) = (subject(t), Count::begin());
    let line = format!("exec env -i {}", run_line(&subject));
    survived(&subject, "no environment", &line).expect("it ran").ok();
    count.end(t, "environment");
}

/// Nothing can be done without it, and that is said.
fn r17_without_proc(t: &Test) {
    let (subject, count) = (subject(t), Count::begin());
    for hide in ["umount -l /proc", "mount -t tmpfs none /proc"] {
        let script = format!("mount --make-rprivate /; {hide}; exec {}", run_line(&subject));
        let line = format!("exec unshare --mount /bin/sh -c '{script}'");
        let out = survived(&subject, hide, &line).expect("it ran");
        assert!(out.code == 1 && out.stderr.contains("/proc"), "{out}");
    }
    count.end(t, "no /proc");
}

/// Sockets that are missing, of another kind, closed at once, never read, or have a long name.
fn r28_console_sockets(t: &Test) {
    let (mut subject, count) = (subject(t), Count::begin());
    subject.bundle.set("process.terminal", json!(true)).write();
    let path = |name: &str| t.dir.join(name).display().to_string();
    fs::write(path("file"), "").expect("make a file");
    nix::unistd::mkfifo(path("fifo").as_str(), nix::sys::stat::Mode::S_IRWXU).expect("make a fifo");
    drop(UnixListener::bind(path("dead")).expect("listen"));
    let silent = UnixListener::bind(path("silent")).expect("listen");
    let deep = t.dir.join("d".repeat(120));
    fs::create_dir(&deep).expect("make a directory");
    let long = deep.join("socket").display().to_string();
    let sockets = [
        path("absent"),
        path("file"),
        path("fifo"),
        path("dead"),
        long,
        t.root().display().to_string(),
    ];
    let create = |socket: &str| {
        subject.call(&[
            "create",
            "--console-socket",
            socket,
            "-b",
            subject.bundle.path(),
            subject.id(),
        ])
    };
    for socket in &sockets {
        tally::point(&subject, socket, || {
            let begun = Instant::now();
            create(socket).fails_with(1);
            assert!(begun.elapsed() < patience(Duration::from_secs(5)), "{:?}", begun.elapsed());
            subject.is_gone(socket);
            Ok(())
        });
    }
    // Who never accepts or reads gets it all the same: the kernel keeps it for him.
    tally::point(&subject, "a console that is never read", || {
        let out = create(&path("silent"));
        assert_eq!(out.code, 0, "{out}");
        subject.end("a console that is never read");
        Ok(())
    });
    drop(silent);
    count.end(t, "consoles");
}
