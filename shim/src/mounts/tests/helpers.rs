//! File systems that a helper starts: one of our own, a script, and a real one.

use std::thread::sleep;
use std::time::{Duration, Instant};

use super::*;

/// Puts a script in `PATH`.
fn script(dirs: &Dirs, name: &str, lines: &str) {
    dirs.write(&format!("bin/{name}"), &format!("#!/bin/sh\n{lines}\n"));
    fs::set_permissions(dirs.path(&format!("bin/{name}")), fs::Permissions::from_mode(0o755))
        .unwrap();
}

/// Whether a process with this in its arguments is there.
fn runs(words: &str) -> bool {
    fs::read_dir("/proc").unwrap().any(|entry| {
        let line = fs::read(entry.unwrap().path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(words)
    })
}

fn soon_gone(words: &str) {
    for _ in 0..500 {
        if !runs(words) {
            return;
        }
        sleep(Duration::from_millis(20));
    }
    panic!("{words} still runs");
}

alone! {
    fn the_helper_gets_everything(dirs) {
        for name in ["fuse", "fuse3"] {
            script(dirs, &format!("mount.{name}"), &format!(
                "for one; do echo \"$one\"; done > {}\nmount -t tmpfs \"$1\" \"$2\"",
                dirs.text("said")
            ));
            let options = ["ro", "lowerdir=a:b", "context=\"x,y\""];
            mount_all(&[a_mount(&format!("{name}.some.thing"), "src", &options)], &dirs.rootfs())
                .unwrap();
            let said = dirs.read("said");
            let wanted = format!(
                "src\n{}\n-o\nro\n-o\nlowerdir=a:b\n-o\ncontext=\"x,y\"\n-t\nsome.thing\n",
                dirs.text("rootfs")
            );
            assert_eq!(said, wanted);
            assert_eq!(dirs.mounted().len(), 1);
            dirs.unmount();
        }
    }
}

alone! {
    /// The server inherits what the helper prints to; it may print for ever, and is not waited for.
    fn a_server_that_stays_is_left_in_peace(dirs) {
        let mark = dirs.text("server-mark");
        script(dirs, "mount.fuse3", &format!(
            "mount -t tmpfs x \"$2\"\nsetsid sh -c 'for i in 1 2 3 4 5; do head -c 4000 /dev/zero; done; \
             echo served > {mark}; sleep 4; :' {mark} &"
        ));
        let start = Instant::now();
        mount_all(&[a_mount("fuse3.x", "x", &[])], &dirs.rootfs()).unwrap();
        assert!(start.elapsed() < Duration::from_secs(3));
        for _ in 0..500 {
            if dirs.path("server-mark").exists() {
                break;
            }
            sleep(Duration::from_millis(20));
        }
        assert_eq!(dirs.read("server-mark"), "served\n");
        assert!(runs(&mark));
        soon_gone(&mark);
        dirs.unmount();
    }
}

alone! {
    fn a_helper_that_fails_says_why_and_leaves_nothing(dirs) {
        let mark = dirs.text("left-behind");
        script(dirs, "mount.fuse3", &format!(
            "mount -t tmpfs x \"$2\"; sh -c 'sleep 100; :' {mark} & echo some words >&2; echo more; exit 3"
        ));
        let error = refused(dirs, &[a_mount("fuse3.x", "x", &[])]);
        assert!(error.starts_with("rootfs[0]: mount fuse3.x at "), "{error}");
        assert!(error.ends_with("/mount.fuse3: exit status 3: some words\\nmore"), "{error}");
        soon_gone(&mark);
    }
}

alone! {
    fn a_helper_that_hangs_is_killed(dirs) {
        let mark = dirs.text("hanging");
        script(dirs, "mount.fuse", &format!("echo hm; sh -c 'sleep 100; :' {mark}"));
        let wanted = a_mount("fuse.x", "x", &[]);
        fs::create_dir(dirs.rootfs()).unwrap();
        let target = fs::File::open(dirs.rootfs()).unwrap().into();
        let mut helper = fuse::Helper::of(&wanted.kind).unwrap();
        let start = Instant::now();
        helper.deadline = start + Duration::from_secs(2);
        let error = helper.run(&wanted, &target).unwrap_err().to_string();
        assert!(error.ends_with("/mount.fuse: timed out: hm"), "{error}");
        assert!(start.elapsed() < Duration::from_secs(20));
        soon_gone(&mark);
        // And one that lies.
        script(dirs, "mount.fuse", "exit 0");
        let error = helper.wait(|| Ok(false)).unwrap_err().to_string();
        assert_eq!(error, "mount.fuse: mounts nothing");
    }
}

#[test]
fn what_a_server_prints_does_not_grow() {
    let file = fuse::words_file().unwrap();
    assert_eq!(nix::unistd::write(&file, &[b'x'; 8192]), Ok(4096));
    assert_eq!(nix::unistd::write(&file, b"x"), Err(Errno::EPERM));
}

alone! {
    fn what_is_no_helpers_is_the_kernels(dirs) {
        for kind in ["fuse2.x", "fusex", "other.fuse.x"] {
            let error = refused(dirs, &[a_mount(kind, "x", &[])]);
            assert!(error.ends_with("no such device"), "{error}");
        }
    }
}

alone! {
    fn a_real_one(dirs) {
        let exists = |name: &str| {
            ["/usr/bin", "/usr/sbin", "/sbin"].iter().any(|dir| Path::new(dir).join(name).exists())
        };
        if !exists("mount.fuse3") || !exists("fuse-overlayfs") {
            return skip("mount.fuse3 or fuse-overlayfs is not installed");
        }
        if fs::File::open("/dev/fuse").is_err() {
            return skip("/dev/fuse can't be opened");
        }
        let wanted = overlays::overlay(dirs, &overlays::layers(dirs, "snapshots", 3));
        let wanted = Mount {
            kind: "fuse3.fuse-overlayfs".to_owned(),
            options: wanted.options.into_iter().filter(|word| word != "index=off").collect(),
            ..wanted
        };
        mount_all(&[wanted], &dirs.rootfs()).unwrap();
        overlays::check(dirs, 3, "fuse-overlayfs");
        let [[_, _, kind, _]] = dirs.mounted().try_into().unwrap();
        assert_eq!(kind, "fuse.fuse-overlayfs");
        dirs.unmount();
        // The server ends with its mount.
        soon_gone(&dirs.text("rootfs"));
    }
}
