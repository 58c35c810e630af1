//! Chapter 1.4: descriptors that leak, the runtime's own binary, processes seen while they enter.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use corten_integration::bundle::probe;
use corten_integration::suite::Case;
use corten_integration::{Test, tests};
use serde_json::{Value, json};

use crate::scene::{Canary, contained, thorough};

pub const TESTS: &[Case] = tests![
    f1_the_runtimes_binary,
    f2_leaked_descriptors,
    f2_programs_of_the_host,
    f2_exec_into_a_link,
    f2_what_the_waiting_init_holds,
    f3_who_enters_can_not_be_opened,
    f3_who_enters_has_nothing_of_the_host,
    f4_mounts_churn_on_the_host,
];

/// F1, CVE-2019-5736: the container's program is whatever enters it, by every way to say so; nothing
/// of it can be written, also later, when the runtime has ended.
fn f1_the_runtimes_binary(t: &Test) {
    t.skip_on_peers("1.1.5 and 1.8.1 have their fixes; what is held is compared with ours");
    let canary = Canary::new(t);
    for args in [&["/proc/self/exe", "--version"][..], &["/script"][..], &["/sh", "-c", "true"][..]]
    {
        let mut b = t.bundle();
        b.file("/script", "#!/proc/self/exe\n");
        fs::set_permissions(
            b.rootfs().join("script"),
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )
        .unwrap();
        symlink("/proc/self/exe", b.rootfs().join("sh")).unwrap();
        b.args(args);
        contained(t, &canary, &b);
        b.probe(&["exit", "0"]);
    }
    let mut b = t.bundle();
    b.add_capabilities(&["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH"]);
    b.mount("/stop", "bind", t.dir.join("tmp").to_str().unwrap(), &["bind"]);
    t.sleeper(&mut b);
    let spy = t.spawn(&["exec", &b.id, "/probe", "keep-exe", "/stop/now"]);
    for _ in 0..if thorough() { 1000 } else { 40 } {
        t.call(&["exec", &b.id, "/proc/self/exe", "--version"]);
    }
    fs::write(t.dir.join("tmp/now"), "").unwrap();
    let out = spy.wait().ok();
    fs::remove_file(t.dir.join("tmp/now")).unwrap();
    let fact = out.fact(0);
    assert_eq!(fact["written"], json!([]), "{out}");
    // What it held are sealed copies, if it caught any.
    for target in fact["targets"].as_array().unwrap() {
        let target = target.as_str().unwrap();
        assert!(target.is_empty() || is_copy(target) || target == "/probe", "{out}");
    }
    canary.unharmed();
}

/// Whether a link in /proc leads to a sealed copy of the runtime.
fn is_copy(target: &str) -> bool {
    target.starts_with("/memfd:") || target.starts_with("/corten (sealed")
}

/// F2, CVE-2024-21626: no number of a leaked descriptor leads out, as a cwd, as a program, by a link
/// that a running container makes of its directory.
fn f2_leaked_descriptors(t: &Test) {
    let canary = Canary::new(t);
    let step = if thorough() { 1 } else { 4 };
    for fd in (3..64).step_by(step) {
        for path in [format!("/proc/self/fd/{fd}"), format!("/proc/thread-self/fd/{fd}/../..")] {
            let mut b = t.bundle();
            b.set("process.cwd", json!(path))
                .probe(&["read", "a", ";", "read", "canary/a", ";", "ls", "."]);
            b.write();
            let line = format!(
                "exec 3<{0} 7<{0} 8<{0}/d 9<{0}/a; $RUNTIME --root $ROOT run -b {1} {2}",
                canary.path(),
                b.path(),
                b.id
            );
            let out = t.shell(&line);
            canary.unseen(&out);
        }
        let mut b = t.bundle();
        b.args(&[&format!("/proc/self/fd/{fd}"), "report"]);
        contained(t, &canary, &b);
    }
    canary.unharmed();
}

/// F2, as an image's entry point would do it: a program of the host, by a descriptor of the runtime's.
/// CLOEXEC is no help, execve(2) looks the path up first. For create, for exec, after a start.
fn f2_programs_of_the_host(t: &Test) {
    let canary = Canary::new(t);
    let host = probe().canonicalize().unwrap();
    let up = "../".repeat(20);
    let mut sleeper = t.bundle();
    t.sleeper(&mut sleeper);
    for fd in 0..24 {
        for base in ["self", "thread-self", "1"] {
            let program = format!("/proc/{base}/fd/{fd}/{up}{}", host.display());
            let mut b = t.bundle();
            b.args(&[&program, "print", "escaped"])
                .push("process.env", json!(format!("PATH=/proc/self/fd/{fd}/{up}/bin")));
            let out = contained(t, &canary, &b);
            assert!(!out.stdout.contains("escaped"), "{out}");
            let out = t.call(&["exec", &sleeper.id, &program, "print", "escaped"]);
            assert!(!out.stdout.contains("escaped"), "{out}");
            if !thorough() {
                break;
            }
        }
    }
}

/// F2 for exec: the directory becomes a link to a descriptor between create and exec.
fn f2_exec_into_a_link(t: &Test) {
    let canary = Canary::new(t);
    let mut b = t.bundle();
    t.sleeper(&mut b);
    for fd in 0..24 {
        for target in
            [format!("/proc/self/fd/{fd}"), "/proc/1/cwd".to_owned(), "/proc/self/cwd".to_owned()]
        {
            let link = b.rootfs().join("work");
            let _absent = fs::remove_file(&link);
            symlink(&target, &link).unwrap();
            let line = format!(
                "cd {0} && exec 3<{0} 9<{0}/d; $RUNTIME --root $ROOT exec --cwd /work {1} /probe read a ';' report cwd",
                canary.path(),
                b.id
            );
            let out = t.shell(&line);
            canary.unseen(&out);
            if !thorough() && fd > 12 {
                break;
            }
        }
    }
    canary.unharmed();
}

/// F2: what the waiting init holds, one by one; and after the program started, nothing.
fn f2_what_the_waiting_init_holds(t: &Test) {
    t.skip_on_peers("this is about our own descriptors");
    let mut b = t.bundle();
    b.probe(&["report", "fds"]).write();
    let line =
        format!("exec 5</ 6</etc 9</usr; $RUNTIME --root $ROOT create -b {} {}", b.path(), b.id);
    t.shell(&line).ok();
    let pid = t.pid(&b.id);
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten() {
        let number: i32 = entry.file_name().to_str().unwrap().parse().unwrap();
        let target = fs::read_link(entry.path()).unwrap().display().to_string();
        let ours =
            ["socket:[", "anon_inode:", "pipe:["].iter().any(|kind| target.starts_with(kind));
        let fine = number < 3 || ours || target == "/" || is_copy(&target);
        assert!(fine, "the waiting init holds {number} -> {target}");
        // `/` is the container's root, not the host's.
        if target == "/" {
            let its = std::os::unix::fs::MetadataExt::ino(&fs::metadata(entry.path()).unwrap());
            let host = std::os::unix::fs::MetadataExt::ino(&fs::metadata("/").unwrap());
            assert_ne!(its, host, "the waiting init holds the host's root");
        }
    }
}

/// What a process inside, with these capabilities beside the usual ones, gets of those who enter.
fn spied(t: &Test, canary: &Canary, caps: &[&str]) -> Value {
    let mut b = t.bundle();
    b.add_capabilities(caps);
    b.mount("/stop", "bind", t.dir.join("tmp").to_str().unwrap(), &["bind"]);
    t.sleeper(&mut b);
    let prize = format!("{}/a", canary.path());
    let spy = t.spawn(&["exec", &b.id, "/probe", "spy", "/stop/now", &prize]);
    for _ in 0..if thorough() { 5000 } else { 60 } {
        t.call(&["exec", &b.id, "/probe", "exit", "0"]).ok();
    }
    fs::write(t.dir.join("tmp/now"), "").unwrap();
    let fact = spy.wait().ok().fact(0);
    fs::remove_file(t.dir.join("tmp/now")).unwrap();
    assert!(fact["seen"].as_u64().unwrap() > 0, "the spy saw nobody enter: {fact}");
    t.force(&b.id).ok();
    canary.unharmed();
    fact
}

/// F3, CVE-2016-9962: root inside tries everything on whoever enters, and nothing works on a process
/// that is not yet the container's program.
fn f3_who_enters_can_not_be_opened(t: &Test) {
    let canary = Canary::new(t);
    let fact = spied(t, &canary, &["CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH"]);
    assert_eq!(fact["reached"], json!([]), "{fact}");
    assert_eq!(fact["won"], json!([]), "{fact}");
}

/// F3 with CAP_SYS_PTRACE, against which no dumpable flag helps (without a user namespace): who can
/// be seen from inside has nothing of the host any more, no root, no working directory, no descriptor.
fn f3_who_enters_has_nothing_of_the_host(t: &Test) {
    let canary = Canary::new(t);
    let fact = spied(t, &canary, &["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH"]);
    assert_eq!(fact["won"], json!([]), "{fact}");
}

/// F4: mounts come and go on the host while containers are made; none stays, none is missing.
fn f4_mounts_churn_on_the_host(t: &Test) {
    let place = t.dir.join("churn");
    fs::create_dir(&place).unwrap();
    let stop = t.dir.join("churn-stop");
    let script = format!(
        "while [ ! -e {1} ]; do for n in 1 2 3 4 5 6 7 8; do mkdir -p {0}/$n; mount -t tmpfs churn {0}/$n; done; \
         for n in 1 2 3 4 5 6 7 8; do umount {0}/$n; done; done",
        place.display(),
        stop.display()
    );
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &script]);
    let churn = t.launch(command);
    let mut b = t.bundle();
    b.probe(&["report", "mounts"]);
    for _ in 0..if thorough() { 500 } else { 40 } {
        let out = t.run(&b).ok();
        let seen = crate::scene::mounts_of(&out.fact(0));
        assert!(!seen.iter().any(|(point, ..)| point.contains("churn")), "{seen:?}");
    }
    fs::write(&stop, "").unwrap();
    churn.wait().ok();
    t.nothing_left(&b);
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!table.contains(place.to_str().unwrap()), "{table}");
}
