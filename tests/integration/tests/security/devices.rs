//! Chapter 1.3: /dev, the console, masks, and flags that must not get lost.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use corten_integration::console::ConsoleSocket;
use corten_integration::suite::Case;
use corten_integration::{Bundle, Flavour, Test, tests};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::mkfifo;
use serde_json::json;

use crate::scene::{Canary, contained, control, race, without_dev};

pub const TESTS: &[Case] = tests![
    d1_masks_hide,
    d1_many_masks,
    d1_masks_while_dev_is_swapped,
    d2_d3_console,
    d2_exec_with_a_fifo_for_ptmx,
    d4_false_dev_null,
    d5_owners_of_the_streams,
    d6_masks_fail_closed,
];

/// What an image may put in place of a device.
fn put(path: &Path, kind: &str, canary: &str) {
    let _absent = fs::remove_file(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    match kind {
        "link" => symlink(format!("{canary}/a"), path).unwrap(),
        "dots" => {
            symlink(format!("{}{canary}/a", "../".repeat(12).trim_end_matches('/')), path).unwrap();
        }
        "procfd" => symlink("/proc/self/fd/3", path).unwrap(),
        "fifo" => mkfifo(path, Mode::S_IRWXU).unwrap(),
        "file" => fs::write(path, "evil").unwrap(),
        "zero" => {
            mknod(path, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(1, 5)).unwrap();
        }
        "dir" => fs::create_dir(path).unwrap(),
        _ => {}
    }
}

const KINDS: [&str; 8] = ["link", "dots", "procfd", "fifo", "file", "zero", "dir", "nothing"];

/// D1, CVE-2025-31133 (and CVE-2025-62161): whatever the image calls /dev/null, a mask hides.
fn d1_masks_hide(t: &Test) {
    let canary = Canary::new(t);
    for kind in KINDS {
        let mut b = t.bundle();
        without_dev(&mut b);
        put(&b.rootfs().join("dev/null"), kind, canary.path());
        b.file("/etc/secret", "secret");
        b.file("/hidden/secret", "secret");
        symlink("/etc/secret", b.rootfs().join("alias")).unwrap();
        b.set(
            "linux.maskedPaths",
            json!(["/etc/secret", "/hidden", "/alias", "/etc/secret", "/none"]),
        );
        b.probe(&[
            "read",
            "/etc/secret",
            ";",
            "ls",
            "/hidden",
            ";",
            "write",
            "/etc/secret",
            "x",
            ";",
            "read",
            "/alias",
        ]);
        let out = contained(t, &canary, &b);
        assert!(!out.stdout.contains("\"value\":\"secret"), "{kind}: {out}");
        if out.code == 0 {
            assert_eq!(out.fact(0)["value"], "", "{kind}: {out}");
        }
        assert_eq!(fs::read_to_string(b.rootfs().join("etc/secret")).unwrap(), "secret");
    }
}

/// D1 with many masks: none is forgotten, and no limit of mounts is near.
fn d1_many_masks(t: &Test) {
    let mut b = t.bundle();
    let mut all = Vec::new();
    let mut steps = Vec::new();
    for n in 0..500 {
        b.file(&format!("/m/f{n}"), "secret");
        all.push(format!("/m/f{n}"));
        all.push(format!("/absent/f{n}"));
    }
    b.set("linux.maskedPaths", json!(all));
    let names: Vec<String> = (0..500).step_by(83).map(|n| format!("/m/f{n}")).collect();
    for name in &names {
        steps.extend(["read", name.as_str(), ";"]);
    }
    b.probe(&steps);
    let out = t.run(&b).ok();
    assert!(!out.stdout.contains("secret"), "{out}");
}

/// D1 as a race: /dev is a directory that a neighbour swaps.
fn d1_masks_while_dev_is_swapped(t: &Test) {
    let canary = Canary::new(t);
    let volume = t.dir.join("volume");
    fs::create_dir_all(volume.join("x")).unwrap();
    symlink(canary.path(), volume.join("y")).unwrap();
    let mut b = t.bundle();
    without_dev(&mut b);
    fs::remove_dir(b.rootfs().join("dev")).unwrap();
    symlink("vol/x", b.rootfs().join("dev")).unwrap();
    b.file("/etc/secret", "secret");
    b.mount("/vol", "bind", volume.to_str().unwrap(), &["rbind"]);
    b.set("linux.maskedPaths", json!(["/etc/secret"])).probe(&["read", "/etc/secret"]);
    race(t, (&volume.join("x"), &volume.join("y")), 30, || {
        let out = contained(t, &canary, &b);
        assert!(!out.stdout.contains("\"value\":\"secret"), "{out}");
        out.code == 0
    });
}

/// D2, CVE-2025-52565, and D3, CVE-2026-88264: the console is our pty, and nothing else is touched,
/// whatever the image calls console, ptmx, pts; with and without mounts on /dev, writable or not.
fn d2_d3_console(t: &Test) {
    let canary = Canary::new(t);
    for name in ["dev/console", "dev/ptmx", "dev/pts/0", "dev/pts/ptmx", "dev/tty"] {
        for kind in KINDS {
            for readonly in [false, true] {
                let thin = name != "dev/console" || kind == "zero" || kind == "dots";
                if !crate::scene::thorough()
                    && thin
                    && (readonly || kind == "file" || kind == "zero")
                {
                    continue;
                }
                let mut b = t.bundle();
                without_dev(&mut b);
                if !name.starts_with("dev/pts") {
                    b.directory("/dev/pts");
                    b.mount("/dev/pts", "devpts", "devpts", &["newinstance", "ptmxmode=0666"]);
                }
                put(&b.rootfs().join(name), kind, canary.path());
                b.set("process.terminal", json!(true)).set("root.readonly", json!(readonly));
                b.probe(&["report", "tty"]);
                terminal(t, &b, &format!("{name} as {kind}"));
                canary.unharmed();
                t.nothing_left(&b);
            }
        }
    }
    // crun 1.8 binds the terminal where the image's link points.
    control(t, "crun", |peer| {
        let mut b = t.bundle();
        without_dev(&mut b);
        b.directory("/dev/pts");
        b.mount("/dev/pts", "devpts", "devpts", &["newinstance", "ptmxmode=0666"]);
        b.file("/prize", "prize");
        symlink("/prize", b.rootfs().join("dev/console")).unwrap();
        b.set("process.terminal", json!(true)).probe(&["report", "mounts"]).write();
        let socket = ConsoleSocket::bind(&t.dir.join("control.sock"));
        let args = ["create", "--console-socket", socket.path(), "--bundle", b.path(), &b.id];
        t.execute(peer.command(&args)).ok();
        let mut terminal = socket.accept();
        t.execute(peer.command(&["start", &b.id])).ok();
        let seen = terminal.drain();
        t.execute(peer.command(&["delete", "--force", &b.id]));
        seen.contains("\"point\":\"/prize\"")
    });
}

/// Creates with a terminal: refused, or a real one. Bounded either way.
fn terminal(t: &Test, b: &Bundle, what: &str) {
    b.write();
    let socket = ConsoleSocket::bind(&t.dir.join(format!("c{}.sock", t.next())));
    let start = Instant::now();
    let args = ["create", "--console-socket", socket.path(), "--bundle", b.path(), &b.id];
    let out = t.call(&args);
    assert!(start.elapsed() < Duration::from_secs(8), "{what}: took {:?}", start.elapsed());
    if out.code != 0 {
        return;
    }
    let mut terminal = socket.accept();
    let meta = fs::read_link(format!("/proc/{}/fd/0", t.pid(&b.id))).unwrap();
    assert!(meta.to_string_lossy().contains("pts/"), "{what}: {meta:?}");
    t.start(&b.id).ok();
    let seen = terminal.drain();
    assert!(seen.contains("\"controlling\":true"), "{what}: {seen}");
    t.force(&b.id).ok();
}

/// D2 for exec: a container that turned its ptmx into a fifo doesn't hold up `exec -t`.
fn d2_exec_with_a_fifo_for_ptmx(t: &Test) {
    let mut b = t.bundle();
    b.unmount("/dev/pts").unmount("/dev").unmount("/dev/shm").unmount("/dev/mqueue");
    b.directory("/dev/pts");
    t.sleeper(&mut b);
    mkfifo(&b.rootfs().join("dev/pts/ptmx"), Mode::S_IRWXU).unwrap();
    let _absent = fs::remove_file(b.rootfs().join("dev/ptmx"));
    mkfifo(&b.rootfs().join("dev/ptmx"), Mode::S_IRWXU).unwrap();
    let start = Instant::now();
    t.exec(&b.id, &["--tty"], &["report", "tty"]).fails();
    assert!(start.elapsed() < Duration::from_secs(5), "held up for {:?}", start.elapsed());
}

/// D4, CVE-2026-88265: standard streams that are /dev/null are replaced by a null or not at all, and
/// nothing but them changes its owner.
fn d4_false_dev_null(t: &Test) {
    let canary = Canary::new(t);
    for kind in KINDS {
        for readonly in [false, true] {
            let mut b = t.bundle();
            without_dev(&mut b);
            put(&b.rootfs().join("dev/null"), kind, canary.path());
            b.file("/prize", "prize");
            b.set("process.user", json!({"uid": 1000, "gid": 1000}));
            b.set("root.readonly", json!(readonly)).probe(&[
                "stat",
                "/prize",
                ";",
                "stat",
                "/proc/self/fd/0",
                ";",
                "report",
                "fds",
            ]);
            let out = contained(t, &canary, &b);
            if out.code == 0 {
                assert_eq!(out.fact(0)["value"]["uid"], 0, "{kind}: {out}");
                let target = &out.fact(2)["fds"]["0"];
                assert_eq!(*target, "/dev/null", "{kind}: {out}");
            }
        }
    }
    control(t, "crun", |peer| {
        let mut b = t.bundle();
        without_dev(&mut b);
        b.file("/prize", "prize");
        // Two regular files both have the device number 0.
        symlink("/prize", b.rootfs().join("dev/null")).unwrap();
        b.set("process.user", json!({"uid": 1000, "gid": 1000})).probe(&["exit", "0"]).write();
        let mut command = peer.command(&["run", "--bundle", b.path(), &b.id]);
        let input = t.dir.join("input");
        fs::write(&input, "").unwrap();
        command.stdin(fs::File::open(&input).unwrap());
        t.launch(command).wait();
        t.execute(peer.command(&["delete", "--force", &b.id]));
        let uid = fs::metadata(b.rootfs().join("prize")).unwrap().uid();
        // A link to a device that is none leaves it alone: then the file itself must have been hit.
        uid == 1000 || fs::metadata(&input).unwrap().uid() == 1000
    });
}

/// D5: standard streams of every kind, for another user: the host's files keep owner and mode.
fn d5_owners_of_the_streams(t: &Test) {
    let kept = |path: &Path| {
        let meta = fs::metadata(path).unwrap();
        (meta.mode(), meta.uid(), meta.gid())
    };
    let null = Path::new("/dev/null");
    let before = kept(null);
    let mut b = t.bundle();
    b.set("process.user", json!({"uid": 1000, "gid": 1000})).probe(&["report", "uid"]).write();
    let file = t.dir.join("stdin-file");
    fs::write(&file, "x").unwrap();
    let socket = std::os::unix::net::UnixStream::pair().unwrap();
    let streams: Vec<Stdio> = vec![
        Stdio::null(),
        Stdio::from(fs::File::open(&file).unwrap()),
        Stdio::from(std::os::fd::OwnedFd::from(socket.0)),
        Stdio::piped(),
        Stdio::from(fs::File::open("/dev/zero").unwrap()),
    ];
    for stream in streams {
        let mut command: Command = t.command(&["run", "--bundle", b.path(), &b.id]);
        command.stdin(stream);
        t.launch(command).wait().ok();
        t.nothing_left(&b);
    }
    assert_eq!(kept(null), before);
    assert_eq!(kept(Path::new("/dev/zero")).1, 0);
}

/// D6: a mask that can't be put on is an error, not "nothing to mask"; what is not there is fine.
fn d6_masks_fail_closed(t: &Test) {
    t.skip_on(Flavour::Crun, "1.8 goes on");
    t.skip_on(Flavour::Runc, "1.1 takes ENOTDIR for a failure");
    let long = format!("/{}", "n".repeat(300));
    for (path, fine) in
        [("/loop/x", false), (long.as_str(), false), ("/etc/passwd/x", true), ("/none/x", true)]
    {
        let mut b = t.bundle();
        symlink("loop", b.rootfs().join("loop")).unwrap();
        b.set("linux.maskedPaths", json!([path])).probe(&["exit", "0"]);
        assert_eq!(t.run(&b).code == 0, fine, "{path}");
        t.nothing_left(&b);
    }
    // A directory that root of the container may not look into.
    let mut b = t.bundle();
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    b.namespace("user", None)
        .set("linux.uidMappings", map.clone())
        .set("linux.gidMappings", map)
        .set("linux.maskedPaths", json!(["/locked/secret"]));
    b.file("/locked/secret", "secret");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o0);
    fs::set_permissions(b.rootfs().join("locked"), mode).unwrap();
    b.probe(&["read", "/locked/secret"]);
    let out = t.run(&b);
    assert!(!out.stdout.contains("\"value\":\"secret"), "{out}");
}
