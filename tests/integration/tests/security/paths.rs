//! Chapter 1.1: names that lead out of the root, standing or swapped in at the worst moment.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use corten_integration::bundle::probe;
use corten_integration::suite::Case;
use corten_integration::{Bundle, Output, Test, tests};
use serde_json::json;

use crate::scene::{Canary, Peer, contained, control, mounts_of, race, thorough, without_dev};

pub const TESTS: &[Case] = tests![
    p1_mount_target_swapped,
    p1_mount_target_swapped_for_the_root,
    p1_swapped_at_every_step,
    p2_made_through_a_swapped_link,
    p3_standing_links,
    p5_dev_is_a_link,
    p5_cgroup_subsystems_are_links,
    p7_copy_up_of_odd_things,
    p7_copy_up_while_swapped,
    p9_bind_source_swapped,
];

/// A volume with a directory `x` and a link `y` to `target`, to be swapped; its path.
fn volume(t: &Test, target: &Path) -> PathBuf {
    let volume = t.dir.join(format!("volume{}", t.next()));
    fs::create_dir_all(volume.join("x/m1")).unwrap();
    symlink(target, volume.join("y")).unwrap();
    volume
}

/// A container with the volume that mounts below the name that is being swapped.
fn racing(b: &mut Bundle, volume: &Path) {
    b.mount("/vol", "bind", volume.to_str().unwrap(), &["rbind"]);
    b.probe(&["report", "mounts", ";", "read", "/vol/x/a", ";", "read", "/vol/x/m1/a"]);
}

/// No mount outside of what the config and the image name, and none that shows the canary.
#[track_caller]
fn inside_only(canary: &Canary, out: &Output) {
    if out.code != 0 {
        return;
    }
    let word = canary.dir.file_name().unwrap().to_str().unwrap().to_owned();
    for (point, root, _) in mounts_of(&out.fact(0)) {
        assert!(!root.contains(&format!("/{word}")), "{point} shows {root}: {out}");
    }
}

/// P1, CVE-2021-30465: the destination of a mount is swapped for a link to the host between check
/// and use, and a later mount lands where the first one went.
fn p1_mount_target_swapped(t: &Test) {
    let canary = Canary::new(t);
    let volume = volume(t, &canary.dir);
    let mut b = t.bundle();
    racing(&mut b, &volume);
    b.mount("/vol/x/m1", "tmpfs", "tmpfs", &[]);
    b.mount("/vol/x/m1/m2", "bind", volume.to_str().unwrap(), &["bind"]);
    let (refused, ran) = race(t, (&volume.join("x"), &volume.join("y")), 40, || {
        let out = contained(t, &canary, &b);
        inside_only(&canary, &out);
        out.code == 0
    });
    assert!(ran > 0, "{refused} refused, none ran");
}

/// P1 with the link to `/`: below it lies what the container has there, never the host's.
fn p1_mount_target_swapped_for_the_root(t: &Test) {
    let canary = Canary::new(t);
    let volume = volume(t, Path::new("/"));
    let mut b = t.bundle();
    racing(&mut b, &volume);
    b.mount(&format!("/vol/x{}", canary.path()), "tmpfs", "tmpfs", &[]);
    race(t, (&volume.join("x"), &volume.join("y")), 30, || {
        let out = contained(t, &canary, &b);
        inside_only(&canary, &out);
        out.code == 0
    });
}

/// P1 and P2 without luck: the runtime stands still before each call in turn that looks something up
/// for a mount, and there the swap happens.
fn p1_swapped_at_every_step(t: &Test) {
    t.skip_on_peers("this is about our own calls");
    let canary = Canary::new(t);
    for name in ["openat2", "mkdirat", "mknodat", "move_mount", "openat"] {
        for when in (1..=12_u32).step_by(if thorough() { 1 } else { 5 }) {
            let volume = volume(t, &canary.dir);
            let mut b = t.bundle();
            racing(&mut b, &volume);
            b.mount("/vol/x/m1", "tmpfs", "tmpfs", &[]);
            b.mount("/vol/x/new/dir", "tmpfs", "tmpfs", &[]);
            b.mount("/vol/x/newfile", "bind", "/etc/hostname", &["bind"]);
            b.write();
            if !gated(t, &b, &volume, name, when) {
                break;
            }
            canary.unharmed();
            t.nothing_left(&b);
            let _ = fs::remove_dir_all(&volume);
        }
    }
}

/// Runs with a delay before the nth such call whose trace names the volume, and swaps there. Whether
/// there was such a call.
fn gated(t: &Test, b: &Bundle, volume: &Path, name: &str, when: u32) -> bool {
    let command = t.command(&["run", "--bundle", b.path(), &b.id]);
    // Counted from the container's first mounts on: the init is the process that calls these.
    let skip = match name {
        "openat2" => 12,
        "openat" => 40,
        "move_mount" => 6,
        _ => 0,
    };
    let inject = format!("inject={name}:delay_enter=25000:when={}", when + skip);
    let trace = t.dir.join(format!("gate{}", t.next()));
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-e", &format!("trace={name}"), "-e", &inject, "-o"]).arg(&trace);
    strace.arg(command.get_program()).args(command.get_args());
    let running = t.launch(strace);
    let pause = std::time::Duration::from_millis(1);
    let (a, z) = (volume.join("x"), volume.join("y"));
    let mut ended = false;
    let mut swap = Command::new(probe());
    let stop = t.dir.join(format!("stop{}", t.next()));
    swap.arg("swap").args([&a, &z]).arg(&stop);
    // The gate is open for 25 ms: the swapper turns the names over many times in it, and before.
    let swapper = t.launch(swap);
    let out = running.wait();
    fs::write(&stop, "").unwrap();
    swapper.wait().ok();
    std::thread::sleep(pause);
    let calls = fs::read_to_string(&trace).unwrap_or_default().matches(&format!("{name}(")).count();
    ended |= calls < (when + skip) as usize;
    let _ = fs::remove_file(&trace);
    assert!(!out.stderr.contains("panicked"), "{out}");
    !ended
}

/// P2, CVE-2024-45310: what is made for a destination is made where a swapped link points.
fn p2_made_through_a_swapped_link(t: &Test) {
    let canary = Canary::new(t);
    let volume = volume(t, &canary.dir);
    let count = std::cell::Cell::new(0);
    let (x, y) = (volume.join("x"), volume.join("y"));
    race(t, (&x, &y), 40, || {
        count.set(count.get() + 1);
        let mut b = t.bundle();
        racing(&mut b, &volume);
        let n = count.get();
        b.mount(&format!("/vol/x/new{n}/dir"), "tmpfs", "tmpfs", &[]);
        b.mount(&format!("/vol/x/file{n}"), "bind", "/etc/hostname", &["bind"]);
        let out = contained(t, &canary, &b);
        inside_only(&canary, &out);
        fs::remove_dir_all(&b.dir).unwrap();
        out.code == 0
    });
    // Not a control of every run: runc 1.1.5 has the window, but a race is won when it is won.
    if thorough() {
        control(t, "runc", |peer| p2_on(t, peer));
    }
}

/// Whether runc makes something in a canary of its own within 300 tries.
fn p2_on(t: &Test, peer: &Peer) -> bool {
    let prize = t.dir.join("prize");
    fs::create_dir(&prize).unwrap();
    let volume = volume(t, &prize);
    let swapper = crate::scene::Swapper::start(t, &volume.join("x"), &volume.join("y"));
    let mut won = false;
    for n in 0..300 {
        let mut b = t.bundle();
        racing(&mut b, &volume);
        b.mount(&format!("/vol/x/new{n}/dir"), "tmpfs", "tmpfs", &[]);
        b.mount(&format!("/vol/x/file{n}"), "bind", "/etc/hostname", &["bind"]);
        peer.run(t, &b);
        fs::remove_dir_all(&b.dir).unwrap();
        won = fs::read_dir(&prize).unwrap().next().is_some();
        if won {
            break;
        }
    }
    swapper.stop();
    won
}

/// P3, CVE-2019-18837: standing links, with dots, forty deep and deeper, as a directory and on the
/// way.
fn p3_standing_links(t: &Test) {
    let canary = Canary::new(t);
    for target in [canary.path().to_owned(), canary.dots()] {
        for depth in [0, 38, 45] {
            let mut b = t.bundle();
            symlink(&target, b.rootfs().join("link0")).unwrap();
            for n in 1..=depth {
                symlink(format!("link{}", n - 1), b.rootfs().join(format!("link{n}"))).unwrap();
            }
            b.mount(&format!("/link{depth}/f"), "bind", "/etc/hostname", &["bind"]);
            b.mount(&format!("/link{depth}/d"), "tmpfs", "tmpfs", &[]);
            let out = contained(t, &canary, &b);
            assert_eq!(out.code == 0, depth < 40, "{out}");
            if out.code == 0 {
                assert!(b.rootfs().join(canary.path().trim_start_matches('/')).join("f").exists());
            }
        }
    }
}

/// Where the image's /dev leads, and what of it.
const DEVS: [&str; 6] = ["dev", "dev/pts", "dev/shm", "dev/mqueue", "dev/ptmx", "dev/console"];

/// P5, CVE-2026-41579: /dev and everything below it as a link to the host, absolute and relative, with
/// the config's mounts and without, with a read-only root.
fn p5_dev_is_a_link(t: &Test) {
    let canary = Canary::new(t);
    for name in DEVS {
        for target in [canary.path().to_owned(), canary.dots()] {
            for (with_mounts, readonly) in [(true, false), (false, false), (false, true)] {
                if !thorough()
                    && name != "dev"
                    && (with_mounts || readonly || target.starts_with('.'))
                {
                    continue;
                }
                let mut b = t.bundle();
                dev_link(&mut b, name, &target);
                if !with_mounts {
                    without_dev(&mut b);
                }
                b.set("root.readonly", json!(readonly)).probe(&["report", "uid"]);
                contained(t, &canary, &b);
            }
        }
    }
    for peer in ["runc", "crun"] {
        control(t, peer, |peer| {
            let prize = t.dir.join(format!("prize{}", t.next()));
            fs::create_dir(&prize).unwrap();
            let mut b = t.bundle();
            dev_link(&mut b, "dev", prize.to_str().unwrap());
            without_dev(&mut b).probe(&["report", "uid"]);
            peer.run(t, &b);
            fs::read_dir(&prize).unwrap().next().is_some()
        });
    }
}

fn dev_link(b: &mut Bundle, name: &str, target: &str) {
    let path = b.rootfs().join(name);
    if path.is_dir() {
        fs::remove_dir(&path).unwrap();
    }
    symlink(target, path).unwrap();
}

/// P5, cd1c87d05: links among the subsystems of a v1 cgroup mount.
fn p5_cgroup_subsystems_are_links(t: &Test) {
    let canary = Canary::new(t);
    for name in ["cpu", "memory", "systemd", "cpu,cpuacct", "unified"] {
        let mut b = t.bundle();
        b.directory("/sys/fs/cgroup");
        symlink(canary.path(), b.rootfs().join("sys/fs/cgroup").join(name)).unwrap();
        b.unmount("/sys").set("linux.maskedPaths", json!([]));
        b.mount("/sys/fs/cgroup", "cgroup", "cgroup", &["ro", "nosuid", "noexec", "nodev"]);
        b.probe(&["report", "mounts"]);
        let out = contained(t, &canary, &b);
        inside_only(&canary, &out);
    }
}

/// P7: copy-up copies links as links, devices and setuid files as they are, and leaves nothing.
fn p7_copy_up_of_odd_things(t: &Test) {
    let canary = Canary::new(t);
    let mut b = t.bundle();
    let dir = b.directory("/odd");
    symlink(canary.path(), dir.join("link")).unwrap();
    symlink(canary.dots(), dir.join("dots")).unwrap();
    fs::write(dir.join("suid"), "x").unwrap();
    fs::set_permissions(dir.join("suid"), fs::Permissions::from_mode(0o4755)).unwrap();
    nix::unistd::mkfifo(&dir.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    for n in 0..300 {
        fs::write(dir.join(format!("n{n}")), "x").unwrap();
    }
    b.mount("/odd", "tmpfs", "tmpfs", &["tmpcopyup"]);
    b.probe(&[
        "stat",
        "/odd/link",
        ";",
        "stat",
        "/odd/suid",
        ";",
        "ls",
        "/odd/link",
        ";",
        "stat",
        "/odd/n299",
    ]);
    let out = contained(t, &canary, &b).ok();
    assert_eq!(out.fact(0)["value"]["type"], "l");
    assert_eq!(out.fact(1)["value"]["mode"].as_u64().unwrap() & 0o7777, 0o4755);
    assert_eq!(out.fact(2)["ok"], false, "{out}");
    assert_eq!(out.fact(3)["ok"], true, "{out}");
}

/// P7 while a neighbour swaps a directory below for a link to the host.
fn p7_copy_up_while_swapped(t: &Test) {
    let canary = Canary::new(t);
    let volume = volume(t, &canary.dir);
    let mut b = t.bundle();
    racing(&mut b, &volume);
    b.mount("/vol/x", "tmpfs", "tmpfs", &["tmpcopyup"]);
    race(t, (&volume.join("x"), &volume.join("y")), 30, || contained(t, &canary, &b).code == 0);
}

/// P9: a bind source is the administrator's path and is followed; who shares it with an attacker
/// names the link. What is promised: the source is opened once, and what is mounted is what was opened.
fn p9_bind_source_swapped(t: &Test) {
    let canary = Canary::new(t);
    let volume = volume(t, &t.dir.join("other"));
    fs::create_dir(t.dir.join("other")).unwrap();
    fs::write(t.dir.join("other/name"), "other").unwrap();
    fs::write(volume.join("x/name"), "own").unwrap();
    let mut b = t.bundle();
    b.mount("/data", "bind", volume.join("x").to_str().unwrap(), &["bind", "ro"]);
    b.probe(&["read", "/data/name", ";", "create", "/data/new", "", ";", "read", "/data/name"]);
    race(t, (&volume.join("x"), &volume.join("y")), 20, || {
        let out = contained(t, &canary, &b);
        if out.code == 0 {
            assert_eq!(out.fact(1)["errno"], "EROFS", "{out}");
            assert_eq!(out.fact(0)["value"], out.fact(2)["value"], "{out}");
        }
        out.code == 0
    });
}
