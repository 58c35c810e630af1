//! The image's and the neighbours' attacks (attacks.md 1.1 to 1.3), each as a test.

use super::*;

alone! {
    /// P4: nothing but a procfs on /proc, through links neither.
    fn proc_and_sys_can_not_be_redirected() {
        let bundle = Bundle::new();
        fs::remove_dir(bundle.path("rootfs/proc")).unwrap();
        fs::create_dir(bundle.path("rootfs/bad")).unwrap();
        symlink("/bad", bundle.path("rootfs/proc")).unwrap();
        assert!(bundle.refused().contains("ordinary directory"));

        let mut bundle = Bundle::new();
        symlink("/bad", bundle.path("rootfs/sys")).unwrap();
        bundle.mount("/sys", "sysfs", "sysfs", &[]);
        assert!(bundle.refused().contains("ordinary directory"));

        for (destination, fstype, source, options) in [
            ("/proc", "bind", "can", &["bind"][..]),
            ("/proc/self/attr/current", "bind", "can/a", &["bind"][..]),
            ("/proc/1/x", "bind", "can/a", &["bind"][..]),
            ("//proc/.", "tmpfs", "t", &[][..]),
            ("/proc/../etc", "tmpfs", "t", &[][..]),
            ("/proc/cpuinfo", "tmpfs", "t", &[][..]),
            ("/", "tmpfs", "t", &[][..]),
        ] {
            let mut bundle = Bundle::new();
            let source = bundle.path(source).to_str().unwrap().to_owned();
            bundle.mount(destination, fstype, &source, options);
            let error = bundle.refused();
            assert!(error.contains("mounts[2]"), "{destination}: {error}");
        }

        // A link of the image that leads into the procfs.
        let mut bundle = Bundle::new();
        symlink("/proc/self", bundle.path("rootfs/game")).unwrap();
        bundle.bind("can/a", "/game/attr/current", &["bind"]);
        assert!(bundle.refused().contains("leads into /proc"));

        let mut bundle = Bundle::new();
        bundle.bind("can/a", "/proc/meminfo", &["bind"]);
        bundle.run(|| assert_eq!(fs::read_to_string("/proc/meminfo").unwrap(), "canary"));
        let mut bundle = Bundle::new();
        bundle.spec["mounts"][0] = json!({"destination": "/proc", "source": "/proc",
            "options": ["rbind"]});
        bundle.run(|| assert!(Path::new("/proc/self").exists()));
    }
}

alone! {
    /// P5 and its variants: a /dev or a destination that is a link means what it means in the container.
    fn links_of_the_image_lead_nowhere_else() {
        for with_dev in [true, false] {
            for target in ["absolute", "relative"] {
                for present in ALL_APIS {
                    let mut bundle = Bundle::new();
                    bundle.present = present;
                    let to = match target {
                        "absolute" => bundle.path("can"),
                        _ => PathBuf::from("../../../../../../..")
                            .join(bundle.path("can").strip_prefix("/").unwrap()),
                    };
                    symlink(&to, bundle.path("rootfs/dev")).unwrap();
                    symlink(&to, bundle.path("rootfs/link")).unwrap();
                    if !with_dev {
                        bundle.spec["mounts"].as_array_mut().unwrap().truncate(1);
                    }
                    bundle.bind("can", "/link/deep/er", &["bind", "ro"]);
                    bundle.bind("can/a", "/link/f", &["bind", "ro"]);
                    bundle.spec["linux"]["maskedPaths"] = json!(["/link/f"]);
                    bundle.run(|| {
                        assert!(Path::new("/dev/null").exists());
                        assert!(Path::new("/link/deep/er/a").exists());
                        assert_eq!(fs::read("/link/f").unwrap(), b"");
                    });
                }
            }
        }
    }
}

alone! {
    /// D1 and D6: the container's /dev/null is not what masks are made of.
    fn masks_do_not_come_from_the_container() {
        for present in ALL_APIS {
            let mut bundle = Bundle::new();
            bundle.present = present;
            fs::write(bundle.path("rootfs/etc/secret"), "s").unwrap();
            fs::write(bundle.path("rootfs/etc/secret2"), "s").unwrap();
            fs::create_dir_all(bundle.path("rootfs/etc/dir/in")).unwrap();
            fs::create_dir_all(bundle.path("rootfs/etc/dir2/in")).unwrap();
            symlink("/etc/secret2", bundle.path("rootfs/etc/alias")).unwrap();
            bundle.spec["linux"]["maskedPaths"] = json!(["/etc/secret", "/etc/alias", "/etc/secret",
                "/etc/dir", "/etc/dir2", "/etc/dir", "/nothing", "/etc/secret/x"]);
            bundle
                .start(
                    |root| {
                        // Some process of the container has replaced it.
                        let null = Path::new("dev/null");
                        nix::unistd::unlinkat(root.fd(), null, nix::unistd::UnlinkatFlags::NoRemoveDir)
                            .unwrap();
                        nix::unistd::symlinkat("/etc/passwd", root.fd(), null).unwrap();
                    },
                    || {
                        for file in ["/etc/secret", "/etc/secret2"] {
                            assert_eq!(fs::read(file).unwrap(), b"");
                            assert!(fs::metadata(file).unwrap().file_type().is_char_device());
                        }
                        for dir in ["/etc/dir", "/etc/dir2"] {
                            assert_eq!(fs::read_dir(dir).unwrap().count(), 0);
                            assert!(fs::write(format!("{dir}/x"), "").is_err());
                        }
                    },
                )
                .unwrap();
        }
        let mut bundle = Bundle::new();
        symlink("loop", bundle.path("rootfs/loop")).unwrap();
        bundle.spec["linux"]["maskedPaths"] = json!(["/loop"]);
        assert!(bundle.refused().contains("mask /loop"));
    }
}

alone! {
    fn the_terminal_becomes_the_console() {
        for present in ALL_APIS {
            for console in ["nothing", "link", "file"] {
                let mut bundle = Bundle::new();
                bundle.present = present;
                // No /dev mount: the image's own.
                bundle.spec["mounts"].as_array_mut().unwrap().truncate(1);
                fs::create_dir(bundle.path("rootfs/dev")).unwrap();
                let path = bundle.path("rootfs/dev/console");
                match console {
                    "link" => symlink(bundle.path("can/a"), path).unwrap(),
                    "file" => fs::write(path, "").unwrap(),
                    _ => {}
                }
                bundle.mount("/dev/pts", "devpts", "devpts", &["newinstance", "ptmxmode=0666"]);
                bundle
                    .start(
                        |root| {
                            let flags = nix::fcntl::OFlag::O_RDWR | nix::fcntl::OFlag::O_NOCTTY;
                            let open = |name: &str| {
                                nix::fcntl::openat(root.fd(), name, flags, Mode::empty()).unwrap()
                            };
                            let ptmx = open("dev/pts/ptmx");
                            crate::sys::tty::unlock(&ptmx).unwrap();
                        let pty = open("dev/pts/0");
                            root.attach_console(pty.as_fd()).unwrap();
                        },
                        || {
                            let console = fs::metadata("/dev/console").unwrap();
                            assert!(console.file_type().is_char_device());
                            assert_eq!(libc::major(console.rdev()), 136);
                        },
                    )
                    .unwrap();
            }
        }
    }
}

alone! {
    /// Sources opened inside the child's mount namespace keep the host's flags locked: root of the
    /// container can't make a read-only mount of the host writable, nor look below what covers a
    /// directory. Directories of the host that the container's root may not enter are no obstacle.
    fn a_user_namespace_can_not_undo_the_hosts_flags() {
        use crate::sys::socket;
        use nix::mount::MsFlags;
        let mut bundle = Bundle::new();
        fs::create_dir_all(bundle.path("secret/vol")).unwrap();
        bundle.spec["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "pid"},
            {"type": "user"}]);
        bundle.bind("secret/vol", "/vol", &["rbind", "rprivate"]);
        bundle.bind("can/a", "/made/f", &["bind"]);
        bundle.mount("/sys", "sysfs", "sysfs", &["ro", "nosuid"]);
        bundle.spec["linux"]["maskedPaths"] = json!(["/etc/x", "/bin", "/made/f"]);
        for name in ["rootfs", "rootfs/etc", "rootfs/bin", "rootfs/proc"] {
            std::os::unix::fs::chown(bundle.path(name), Some(100_000), Some(100_000)).unwrap();
        }
        apart(|| {
            let none = None::<&str>;
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
            nix::mount::mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
            let flags = MsFlags::MS_RDONLY | MsFlags::MS_NODEV;
            let vol = bundle.path("secret/vol");
            nix::mount::mount(Some("t"), &vol, Some("tmpfs"), flags, none).unwrap();
            fs::set_permissions(bundle.path("secret"), fs::Permissions::from_mode(0o700)).unwrap();
            std::os::unix::fs::chown(bundle.path("secret"), Some(5), Some(5)).unwrap();
            let plan = bundle.plan().unwrap();
            let (ours, theirs) = socket::pair().unwrap();
            let (mut from, to) = pipe().map(|(r, w)| (File::from(r), File::from(w))).unwrap();
            let new = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWUSER;
            let args = CloneArgs { flags: new as u64, ..CloneArgs::default() };
            match clone(&args).unwrap() {
                Cloned::Child => finish_apart(to, || {
                    let (_, fds) = socket::receive(&theirs, &mut [0; 8]).unwrap();
                    let sources = Sources::receive(&plan, fds).unwrap();
                    crate::userns::become_root().unwrap();
                    let mut root = assemble(&plan, sources, &Cgroups::None).unwrap();
                    root.pivot().unwrap();
                    root.finish().unwrap();
                    has(&mounted("/vol").unwrap().0, &["ro", "nodev"]);
                    has(&mounted("/sys").unwrap().0, &["ro", "nosuid"]);
                    assert_eq!(fs::metadata("/dev/null").unwrap().rdev(), libc::makedev(1, 3));
                    fs::write("/dev/null", "x").unwrap();
                    assert_eq!(fs::read("/made/f").unwrap(), b"");
                    let volume = path::open_host(Path::new("/vol")).unwrap();
                    for clear in [attr::RDONLY, attr::NODEV] {
                        let what = sys::MountAttr { clear, ..sys::MountAttr::default() };
                        let refused = sys::mount_setattr(&volume, false, &what);
                        assert_eq!(refused, Err(nix::errno::Errno::EPERM));
                    }
                }),
                Cloned::Parent(pid, pidfd) => {
                    drop(to);
                    for map in ["uid_map", "gid_map"] {
                        fs::write(format!("/proc/{pid}/{map}"), "0 100000 65536").unwrap();
                    }
                    let cwd = std::env::current_dir().unwrap();
                    let sources = Sources::open_in(&plan, pidfd.as_fd()).unwrap();
                    assert_eq!(std::env::current_dir().unwrap(), cwd);
                    socket::send(&ours, b"x", &sources.fds()).unwrap();
                    let mut said = String::new();
                    from.read_to_string(&mut said).unwrap();
                    assert_eq!(waitpid(pid, None).unwrap(), WaitStatus::Exited(pid, 0), "{said}");
                }
            }
        });
        bundle.check_canary();
    }
}

alone! {
    /// P1, P2: another container swaps a directory of a shared volume for a link to the host while we
    /// mount below it. Whatever comes of it, nothing of the host is touched.
    fn a_racing_neighbour_gains_nothing() {
        use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
        for present in [NEW_API, OLD_API] {
            let mut bundle = Bundle::new();
            bundle.present = present;
            fs::create_dir_all(bundle.path("vol/x/m1")).unwrap();
            symlink(bundle.path("can"), bundle.path("vol/y")).unwrap();
            bundle.bind("vol", "/vol", &["rbind"]);
            bundle.mount("/vol/x/m1", "tmpfs", "t", &[]);
            bundle.mount("/vol/x/new/dir", "tmpfs", "t", &[]);
            bundle.bind("can/a", "/vol/x/newfile", &["bind", "ro"]);
            let (x, y) = (bundle.path("vol/x"), bundle.path("vol/y"));
            // SAFETY: the child makes system calls only, until it is killed.
            let racer = match unsafe { fork() }.unwrap() {
                ForkResult::Child => {
                    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).unwrap();
                    while renameat2(AT_FDCWD, &x, AT_FDCWD, &y, RenameFlags::RENAME_EXCHANGE).is_ok() {}
                    // SAFETY: ends the process.
                    unsafe { libc::_exit(1) }
                }
                ForkResult::Parent { child } => child,
            };
            let mut outcomes = [0, 0];
            for _ in 0..150 {
                // start() compares the canary and the host's mounts.
                match bundle.start(|_| {}, || {
                    let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
                    for line in text.lines() {
                        let point = line.split(' ').nth(4).unwrap();
                        let below = ["/proc", "/dev", "/vol"].iter().any(|top| point.starts_with(top));
                        // Inside, the link names a directory of the container's own.
                        assert!(below || point == "/" || point.contains("/can/"), "{text}");
                    }
                }) {
                    Ok(()) => outcomes[0] += 1,
                    Err(_) => outcomes[1] += 1,
                }
            }
            nix::sys::signal::kill(racer, nix::sys::signal::Signal::SIGKILL).unwrap();
            let killed = WaitStatus::Signaled(racer, nix::sys::signal::Signal::SIGKILL, false);
            assert_eq!(waitpid(racer, None).unwrap(), killed);
            assert!(outcomes[0] > 0, "{outcomes:?}");
        }
    }
}
