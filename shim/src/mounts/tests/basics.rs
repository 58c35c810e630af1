//! File systems, binds, options, targets, rollback.

use nix::sys::stat::{Mode, umask};

use super::*;

alone! {
    fn no_mounts_mean_that_nothing_is_done(dirs) {
        mount_all(&[], &dirs.rootfs()).unwrap();
        assert!(!dirs.rootfs().exists());
    }
}

alone! {
    fn the_directory_is_made_and_only_root_may_list_it(dirs) {
        let mounts = [a_mount("tmpfs", "tmpfs", &["size=64k", "nosuid", "noatime"])];
        umask(Mode::from_bits_truncate(0o077));
        for (name, way) in ways() {
            mount_by(&way, &mounts, &dirs.rootfs()).unwrap();
            let [[_, options, kind, sb]] = dirs.mounted().try_into().unwrap();
            assert_eq!((options.as_str(), kind.as_str()), ("rw,nosuid,noatime", "tmpfs"), "{name}");
            assert!(sb.contains("size=64k"), "{sb}");
            dirs.unmount();
            assert_eq!(fs::metadata(dirs.rootfs()).unwrap().mode() & 0o7777, 0o711);
        }
    }
}

alone! {
    fn a_bind_has_what_was_asked_for(dirs) {
        dirs.write("layer/file", "content");
        for (name, way) in ways() {
            for (options, shown) in [
                (&["rbind", "rw"][..], "rw,relatime"),
                (&["rbind", "ro"], "ro,relatime"),
                (&["bind", "ro", "nosuid", "nodev", "noexec"], "ro,nosuid,nodev,noexec,relatime"),
                (&["bind", "nosuid", "suid"], "rw,relatime"),
            ] {
                mount_by(&way, &[a_mount("bind", &dirs.text("layer"), options)], &dirs.rootfs())
                    .unwrap();
                assert_eq!(dirs.read("rootfs/file"), "content");
                let [[_, options, ..]] = dirs.mounted().try_into().unwrap();
                assert_eq!(options, shown, "{name}");
                let writable = fs::write(dirs.path("rootfs/new"), "").is_ok();
                assert_eq!(writable, shown.starts_with("rw"), "{name}");
                dirs.unmount();
            }
        }
    }
}

alone! {
    /// `rw`, `suid`, `dev` and `exec` are no reason to undo what the host has set on the source.
    fn a_bind_never_has_more_than_its_source(dirs) {
        let layer = dirs.dir("layer");
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_RDONLY;
        mount(Some("x"), layer.as_str(), Some("tmpfs"), flags, None::<&str>).unwrap();
        let flags = flags | MsFlags::MS_BIND | MsFlags::MS_REMOUNT;
        mount(None::<&str>, layer.as_str(), None::<&str>, flags, None::<&str>).unwrap();
        for (name, way) in ways() {
            let wanted = [a_mount("bind", &layer, &["rbind", "rw", "suid", "dev", "noexec"])];
            mount_by(&way, &wanted, &dirs.rootfs()).unwrap();
            let [[_, options, ..]] = dirs.mounted().try_into().unwrap();
            assert_eq!(options, "ro,nosuid,nodev,noexec,relatime", "{name}");
            dirs.unmount();
        }
    }
}

alone! {
    fn recursive_attributes_are_for_new_file_systems_too(dirs) {
        dirs.dir("layer");
        for (name, way) in ways() {
            for (kind, source) in [("tmpfs", "x".to_owned()), ("bind", dirs.text("layer"))] {
                let wanted = [a_mount(kind, &source, &["suid", "rro", "rnosuid", "rnoatime"])];
                let made = mount_by(&way, &wanted, &dirs.rootfs());
                if kind == "bind" && !way.kernel.present.setattr {
                    // Needs mount_setattr(2), and less would be a lie.
                    assert_eq!(made.unwrap_err().errno(), Some(Errno::ENOSYS), "{name}");
                    dirs.none_mounted();
                    continue;
                }
                made.unwrap();
                let [[_, options, ..]] = dirs.mounted().try_into().unwrap();
                assert_eq!(options, "ro,nosuid,noatime", "{name} {kind}");
                dirs.unmount();
            }
        }
    }
}

alone! {
    fn a_recursive_bind_has_the_mounts_below(dirs) {
        dirs.dir("layer/below");
        mount(Some("x"), &dirs.path("layer/below"), Some("tmpfs"), MsFlags::empty(), None::<&str>)
            .unwrap();
        dirs.write("layer/below/file", "deep");
        for (name, way) in ways() {
            let bind = |word| [a_mount("bind", &dirs.text("layer"), &[word])];
            mount_by(&way, &bind("rbind"), &dirs.rootfs()).unwrap();
            assert_eq!(dirs.read("rootfs/below/file"), "deep", "{name}");
            dirs.unmount();
            mount_by(&way, &bind("bind"), &dirs.rootfs()).unwrap();
            assert!(!dirs.path("rootfs/below/file").exists(), "{name}");
            dirs.unmount();
        }
    }
}

alone! {
    fn targets_are_in_order_and_inside(dirs) {
        dirs.dir("outside");
        dirs.dir("a/etc");
        dirs.write("b/file", "b");
        let outside = dirs.text("outside");
        for link in ["../../../../outside", &outside, "/proc/self/cwd/outside"] {
            fs::remove_file(dirs.path("a/link")).unwrap_or_default();
            symlink(link, dirs.path("a/link")).unwrap();
            for (name, way) in ways() {
                let mounts = [
                    a_mount("bind", &dirs.text("a"), &["rbind"]),
                    at("bind", &dirs.text("b"), "/etc", &["rbind", "ro"]),
                    at("bind", &dirs.text("b"), "/link", &["rbind", "ro"]),
                ];
                mount_by(&way, &mounts[..2], &dirs.rootfs()).unwrap();
                assert_eq!(dirs.read("rootfs/etc/file"), "b", "{name}");
                dirs.unmount();
                let error = mount_by(&way, &mounts, &dirs.rootfs()).unwrap_err().to_string();
                assert!(error.starts_with("rootfs[2]: mount bind at "), "{error}");
                assert!(error.contains("open the target"), "{error}");
                dirs.none_mounted();
                assert!(!dirs.path("outside/file").exists());
            }
        }
        // Inside the root file system the same link leads somewhere else.
        dirs.dir("a/outside");
        fs::remove_file(dirs.path("a/link")).unwrap();
        symlink("../../../../outside", dirs.path("a/link")).unwrap();
        let mounts = [
            a_mount("bind", &dirs.text("a"), &["rbind"]),
            at("bind", &dirs.text("b"), "link", &["rbind"]),
        ];
        mount_all(&mounts, &dirs.rootfs()).unwrap();
        assert_eq!(dirs.read("rootfs/outside/file"), "b");
        assert!(!dirs.path("outside/file").exists());
        dirs.unmount();
    }
}

alone! {
    fn the_directory_is_no_link(dirs) {
        dirs.dir("elsewhere");
        symlink(dirs.path("elsewhere"), dirs.rootfs()).unwrap();
        let error = refused(dirs, &[a_mount("tmpfs", "x", &[])]);
        assert!(error.ends_with("not a directory"), "{error}");
    }
}

alone! {
    fn a_failure_unmounts_what_was_mounted_and_nothing_else(dirs) {
        let root = dirs.dir("rootfs/before");
        mount(Some("old"), root.as_str(), Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        dirs.dir("a/below");
        mount(Some("x"), &dirs.path("a/below"), Some("tmpfs"), MsFlags::empty(), None::<&str>)
            .unwrap();
        dirs.dir("a/below/deep");
        for (name, way) in ways() {
            let mounts = [
                a_mount("bind", &dirs.text("a"), &["rbind"]),
                at("tmpfs", "x", "below/deep", &[]),
                a_mount("tmpfs", "on top", &["mode=711"]),
                a_mount("no-such-fs", "x", &["ro"]),
            ];
            let error = mount_by(&way, &mounts, &dirs.rootfs()).unwrap_err();
            assert_eq!(error.errno(), Some(Errno::ENODEV), "{name}");
            let wanted = format!(
                "rootfs[3]: mount no-such-fs at {} (source x, options ro): ",
                dirs.text("rootfs")
            );
            assert!(error.to_string().starts_with(&wanted), "{error}");
            assert!(error.to_string().ends_with(": no such device"), "{error}");
            let [[point, ..]] = dirs.mounted().try_into().unwrap();
            assert_eq!(point, root, "{name}");
        }
        dirs.unmount();
    }
}

alone! {
    fn what_the_mount_manager_left_is_an_error(dirs) {
        let error = refused(dirs, &[a_mount("tmpfs", "x", &["ro", "X-containerd.mkdir.path=/x"])]);
        assert!(error.contains("X-containerd.mkdir.path=/x"), "{error}");
        assert!(error.contains("mount manager"), "{error}");
    }
}

alone! {
    /// The kernel's own words, where it has any.
    fn an_unknown_option_is_the_file_systems_to_refuse(dirs) {
        let error = refused(dirs, &[a_mount("tmpfs", "x", &["nosuid", "context=\"a,b:c\""])]);
        assert!(error.contains("context"), "{error}");
        assert!(error.contains("tmpfs: Unknown parameter 'context'"), "{error}");
        assert!(error.ends_with(": invalid argument"), "{error}");
    }
}

alone! {
    /// What fsconfig(2) does not take, mount(2) does.
    fn long_values_and_flags_without_a_word(dirs) {
        let long = "s".repeat(300);
        let size = format!("size={}k", "0".repeat(300) + "64");
        for (source, options) in [(long.as_str(), &["ro"][..]), ("x", &["ro", &size]), ("x", &["ro", "silent"])] {
            for (name, way) in ways() {
                mount_by(&way, &[a_mount("tmpfs", source, options)], &dirs.rootfs()).unwrap();
                let [[_, shown, ..]] = dirs.mounted().try_into().unwrap();
                assert_eq!(shown, "ro,relatime", "{name}");
                dirs.unmount();
            }
        }
        let size = format!("size={}k", "0".repeat(4096) + "64");
        let error = refused(dirs, &[a_mount("tmpfs", "x", &[&size])]);
        assert!(error.ends_with("the options are 4104 bytes long, but mount(2) takes less than 4096"), "{error}");
    }
}

alone! {
    fn propagation_is_set_afterwards(dirs) {
        for (name, way) in ways() {
            for (word, wanted) in [("shared", "shared:"), ("private", "-"), ("unbindable", "unbindable")] {
                let mounts = [a_mount("tmpfs", "x", &["ro", word])];
                mount_by(&way, &mounts, &dirs.rootfs()).unwrap();
                let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
                let rootfs = dirs.text("rootfs");
                let line = text.lines().find(|line| line.split(' ').nth(4) == Some(&rootfs)).unwrap();
                assert!(line.split(' ').nth(6).unwrap().starts_with(wanted), "{name}: {line}");
                assert!(line.contains(" ro,"), "{name}: {line}");
                dirs.unmount();
            }
        }
    }
}

alone! {
    fn a_remount_changes_what_is_there(dirs) {
        for (name, way) in ways() {
            let mounts = [
                a_mount("tmpfs", "x", &["size=64k"]),
                a_mount("tmpfs", "x", &["remount", "ro", "nosuid", "size=128k"]),
            ];
            mount_by(&way, &mounts, &dirs.rootfs()).unwrap();
            let [[_, options, _, sb]] = dirs.mounted().try_into().unwrap();
            assert_eq!(options, "ro,nosuid,relatime", "{name}");
            assert!(sb.contains("size=128k"), "{name}: {sb}");
            dirs.unmount();
        }
    }
}
