//! What a spec asks for is what the container sees.

use super::*;

alone! {
    fn a_docker_like_container() {
        for (present, moment) in [
            (NEW_API, Some(Moment::Before)),
            (NEW_API, None),
            (MIDDLE_API, None),
            (OLD_API, None),
        ] {
            let mut bundle = Bundle::new();
            let docker: Value = serde_json::from_str(include_str!("../../../tests/data/docker-like.json"))
                .unwrap();
            bundle.spec["mounts"] = docker["mounts"].clone();
            bundle.spec["linux"] = docker["linux"].clone();
            (bundle.present, bundle.moment) = (present, moment);
            bundle.flags = libc::CLONE_NEWIPC | libc::CLONE_NEWNET | libc::CLONE_NEWUTS;
            bundle.run(|| {
                assert_eq!(std::env::current_dir().unwrap(), Path::new("/"));
                assert!(Path::new("/bin/busybox").exists());
                assert!(Path::new("/made/for/me").is_dir());
                let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
                let shown = format!("{present:?} {moment:?}\n{text}");
                assert!(text.lines().all(|line| !line.contains("/dev/vda / ")), "{shown}");
                let (options, fstype, _) = mounted("/proc").unwrap();
                has(&options, &["nosuid", "noexec", "nodev", "relatime"]);
                assert_eq!(fstype, "proc");
                let (options, _, superblock) = mounted("/dev").unwrap();
                has(&options, &["rw", "nosuid"]);
                assert!(!options.contains("relatime"), "{shown}");
                has(&superblock, &["size=65536k", "mode=755"]);
                has(&mounted("/sys").unwrap().0, &["ro", "nosuid", "noexec", "nodev"]);
                has(&mounted("/dev/pts").unwrap().2, &["gid=5", "mode=620", "ptmxmode=666"]);
                assert_eq!(mounted("/dev/mqueue").unwrap().1, "mqueue");
                assert_eq!(fs::metadata("/dev/shm").unwrap().mode() & 0o7777, 0o1777);
                for (name, rdev) in [("null", (1, 3)), ("full", (1, 7)), ("tty", (5, 0))] {
                    let node = fs::metadata(format!("/dev/{name}")).unwrap();
                    assert!(node.file_type().is_char_device());
                    assert_eq!(node.rdev(), libc::makedev(rdev.0, rdev.1));
                    assert_eq!((node.mode() & 0o7777, node.uid(), node.gid()), (0o666, 0, 0));
                }
                assert_eq!(fs::read_link("/dev/ptmx").unwrap(), Path::new("pts/ptmx"));
                assert_eq!(fs::read_link("/dev/fd").unwrap(), Path::new("/proc/self/fd"));
                for masked in ["/proc/kcore", "/proc/keys", "/proc/timer_list"] {
                    if Path::new(masked).exists() {
                        assert_eq!(fs::read(masked).unwrap(), b"", "{masked} {shown}");
                    }
                }
                assert_eq!(fs::read_dir("/sys/firmware").unwrap().count(), 0);
                has(&mounted("/sys/firmware").unwrap().0, &["ro"]);
                has(&mounted("/proc/sys").unwrap().0, &["ro", "nosuid", "noexec", "nodev"]);
                if Path::new("/proc/sysrq-trigger").exists() {
                has(&mounted("/proc/sysrq-trigger").unwrap().0, &["ro"]);
            }
                assert_eq!(mounted("/proc/sys").unwrap().1, "proc");
                // No fd but the standard ones, the pipes of the test and the one that reads the list.
                for entry in fs::read_dir("/proc/self/fd").unwrap() {
                    let target = fs::read_link(entry.unwrap().path()).unwrap_or_default();
                    let text = target.to_string_lossy().into_owned();
                    assert!(!text.contains("rootfs"), "{text}");
                    assert!(text != "/", "{text}");
                }
            });
        }
    }
}

alone! {
    fn bind_mounts_keep_the_flags_of_their_source_and_get_what_was_asked() {
        for present in ALL_APIS {
            let mut bundle = Bundle::new();
            bundle.present = present;
            fs::create_dir(bundle.path("vol")).unwrap();
            fs::write(bundle.path("vol/f"), "x").unwrap();
            bundle
                .bind("vol", "/a", &["bind", "ro", "nosuid"])
                .bind("vol", "/b/c/d", &["rbind", "noexec", "nodev", "noatime", "rprivate"])
                .bind("vol/f", "/etc/file", &["bind", "ro"])
                .mount("/c", "tmpfs", "t", &["nosuid", "nodev"])
                .bind("vol", "/e", &["rbind", "rw", "nosymfollow", "nodiratime", "strictatime"]);
            bundle.run(|| {
                has(&mounted("/a").unwrap().0, &["ro", "nosuid"]);
                has(&mounted("/b/c/d").unwrap().0, &["rw", "noexec", "nodev", "noatime"]);
                has(&mounted("/etc/file").unwrap().0, &["ro"]);
                has(&mounted("/e").unwrap().0, &["rw", "nosymfollow", "nodiratime"]);
                assert!(!mounted("/e").unwrap().0.contains("relatime"));
                assert_eq!(fs::read_to_string("/etc/file").unwrap(), "x");
                assert!(fs::write("/a/f", "y").is_err());
                fs::write("/b/c/d/f", "y").unwrap();
            });
            assert_eq!(fs::read_to_string(bundle.path("vol/f")).unwrap(), "y");
        }
    }
}

alone! {
    fn recursive_attributes_reach_the_mounts_below() {
        let mut bundle = Bundle::new();
        bundle.mount("/sys3", "bind", "/sys", &["rbind", "ro", "rrw"]);
        bundle.mount("/v", "tmpfs", "t", &[]).mount("/v/w", "tmpfs", "t", &["rro", "rnosuid"]);
        bundle.mount("/sys2", "bind", "/sys", &["rbind", "rro", "rnoexec"]);
        bundle.run(|| {
            has(&mounted("/v/w").unwrap().0, &["ro", "nosuid"]);
            has(&mounted("/sys2/fs/cgroup").unwrap().0, &["ro", "noexec"]);
        });
        bundle.present = OLD_API;
        assert!(bundle.refused().contains("recursive mount options need Linux 5.12"));
    }
}

alone! {
    fn tmpcopyup_copies_everything_as_it_is() {
        for present in ALL_APIS {
            let mut bundle = Bundle::new();
            bundle.present = present;
            let up = bundle.path("rootfs/up");
            fs::create_dir_all(up.join("d/e")).unwrap();
            fs::write(up.join("d/f"), "contents").unwrap();
            fs::set_permissions(up.join("d/f"), fs::Permissions::from_mode(0o4755)).unwrap();
            fs::set_permissions(&up, fs::Permissions::from_mode(0o1750)).unwrap();
            symlink(bundle.path("can"), up.join("link")).unwrap();
            std::os::unix::fs::chown(up.join("d/f"), Some(7), Some(8)).unwrap();
            fs::set_permissions(up.join("d/f"), fs::Permissions::from_mode(0o4755)).unwrap();
            bundle.mount("/up", "tmpfs", "tmpfs", &["tmpcopyup", "ro"]);
            bundle.run(|| {
                assert_eq!(fs::read_to_string("/up/d/f").unwrap(), "contents");
                let file = fs::metadata("/up/d/f").unwrap();
                assert_eq!((file.mode() & 0o7777, file.uid(), file.gid()), (0o4755, 7, 8));
                assert!(fs::symlink_metadata("/up/link").unwrap().is_symlink());
                assert_eq!(fs::metadata("/up").unwrap().mode() & 0o7777, 0o1750);
                has(&mounted("/up").unwrap().0, &["ro"]);
            });
            assert_eq!(fs::read_dir(up).unwrap().count(), 2);
        }
    }
}

alone! {
    fn a_readonly_root_with_nested_mounts_and_devices() {
        for present in ALL_APIS {
            for no_pivot in [false, true] {
                let mut bundle = Bundle::new();
                (bundle.present, bundle.no_pivot) = (present, no_pivot);
                bundle.spec["root"]["readonly"] = true.into();
                bundle.spec["mounts"][1]["options"] = json!(["nosuid", "mode=755", "ro"]);
                bundle.mount("/run", "tmpfs", "tmpfs", &["ro"]).mount("/run/in", "tmpfs", "tmpfs", &[]);
                bundle.spec["linux"]["devices"] = json!([
                    {"path": "/dev/mine", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640,
                     "uid": 5, "gid": 6},
                    {"path": "/other/pipe", "type": "p"},
                ]);
                bundle.run(|| {
                    has(&mounted("/").unwrap().0, &["ro"]);
                    has(&mounted("/dev").unwrap().0, &["ro", "nosuid"]);
                    has(&mounted("/run").unwrap().0, &["ro"]);
                    has(&mounted("/run/in").unwrap().0, &["rw"]);
                    let mine = fs::metadata("/dev/mine").unwrap();
                    assert_eq!((mine.mode() & 0o7777, mine.uid(), mine.gid()), (0o640, 5, 6));
                    assert!(fs::metadata("/other/pipe").unwrap().file_type().is_fifo());
                    assert!(fs::create_dir("/x").is_err());
                });
            }
        }
    }
}

alone! {
    fn the_image_has_devices_of_its_own() {
        let mut bundle = Bundle::new();
        bundle.spec["mounts"].as_array_mut().unwrap().truncate(1);
        let dev = bundle.path("rootfs/dev");
        fs::create_dir(&dev).unwrap();
        let made = Command::new("mknod").arg(dev.join("null")).args(["c", "1", "3"]).status().unwrap();
        assert!(made.success());
        bundle.run(|| assert!(Path::new("/dev/zero").exists()));
        fs::remove_file(dev.join("null")).unwrap();
        fs::write(dev.join("null"), "not a device").unwrap();
        assert!(bundle.refused().contains("device /dev/null: another file is there already"));
    }
}

alone! {
    fn the_kernel_says_what_it_does_not_like() {
        let mut bundle = Bundle::new();
        bundle.mount("/t", "tmpfs", "tmpfs", &["nosuchoption=1"]);
        let error = bundle.refused();
        assert!(error.contains("mounts[2]: mount tmpfs on /t: option \"nosuchoption=1\": tmpfs: Unknown parameter"), "{error}");
        let mut bundle = Bundle::new();
        bundle.mount("/t", "nosuchfs", "x", &[]);
        assert!(bundle.refused().contains("nosuchfs: no such device"));
        let mut bundle = Bundle::new();
        bundle.bind("absent", "/t", &["bind"]);
        assert!(bundle.refused().contains("no such file or directory"));
    }
}

alone! {
    fn cgroups_of_either_kind() {
        for (flags, namespace) in [(libc::CLONE_NEWCGROUP, true), (0, false)] {
            for options in [&["ro", "nosuid"][..], &[][..]] {
                for present in ALL_APIS {
                    let mut bundle = Bundle::new();
                    (bundle.present, bundle.flags) = (present, flags);
                    if namespace {
                        bundle.spec["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "pid"},
                            {"type": "cgroup"}]);
                    }
                    bundle.mount("/sys", "sysfs", "sysfs", &["ro"]);
                    bundle.mount("/sys/fs/cgroup", "cgroup", "cgroup", options);
                    bundle.run(|| {
                        let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
                        let below: Vec<_> =
                            text.lines().filter(|line| line.contains(" /sys/fs/cgroup")).collect();
                        assert!(!below.is_empty());
                        for line in below {
                        assert_eq!(line_is_ro(line), options.contains(&"ro"), "{line}");
                    }
                });
                }
            }
        }
    }
}

alone! {
    fn identities_are_mapped() {
        for options in [&["bind", "idmap"][..], &["rbind", "ridmap"][..], &["bind"][..]] {
            let mut bundle = Bundle::new();
            bundle.moment = Some(Moment::Before);
            fs::create_dir(bundle.path("vol")).unwrap();
            std::os::unix::fs::chown(bundle.path("vol"), Some(3), Some(4)).unwrap();
            bundle.bind("vol", "/v", options);
            let mapping = json!([{"containerID": 0, "hostID": 1000, "size": 100}]);
            bundle.spec["mounts"][2]["uidMappings"] = mapping.clone();
            bundle.spec["mounts"][2]["gidMappings"] = mapping;
            bundle.run(|| {
                let seen = fs::metadata("/v").unwrap();
                assert_eq!((seen.uid(), seen.gid()), (1003, 1004));
            });
        }
    }
}

alone! {
    fn propagation_is_as_asked() {
        for word in
        ["shared", "rshared", "slave", "rslave", "private", "rprivate", "unbindable", "runbindable"]
    {
            for present in ALL_APIS {
                let mut bundle = Bundle::new();
                bundle.present = present;
                bundle.spec["linux"]["rootfsPropagation"] = word.into();
                bundle.bind("can", "/s", &["rbind", "rshared"]);
                bundle.spec["linux"]["readonlyPaths"] = json!(["/proc/bus", "/etc"]);
                bundle.spec["linux"]["maskedPaths"] = json!(["/bin", "/proc/keys"]);
                bundle.run(|| {
                    let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
                    let line = |point| text.lines().find(|line| line.split(' ').nth(4) == Some(point));
                    let fields = |line: &str| line.split(" - ").next().unwrap().to_owned();
                    let (root, bound) = (fields(line("/").unwrap()), fields(line("/s").unwrap()));
                    // The word is for the root, a recursive one for all that is mounted below, too.
                let all = ["rslave", "runbindable"].contains(&word);
                assert_eq!(bound.contains("shared:"), !all, "{word} {text}");
                    assert_eq!(root.contains("shared:"), word.ends_with("shared"), "{word} {text}");
                    assert_eq!(root.contains("unbindable"), word.ends_with("unbindable"), "{word} {text}");
                });
            }
        }
    }
}

fn line_is_ro(line: &str) -> bool {
    line.split(' ').nth(5).unwrap().split(',').any(|word| word == "ro")
}
