//! Identities, mapped.

use super::overlays::{DEEP, check, layers, overlay};
use super::*;
use crate::mounts::{options, overlay};

const MAPS: [&str; 2] = ["uidmap=0:100000:65536", "gidmap=0:200000:1000,1000:300000:10"];

fn mapped(mut mount: Mount) -> Mount {
    mount.options.extend(MAPS.map(str::to_owned));
    mount
}

fn owner(dirs: &Dirs, name: &str) -> (u32, u32) {
    let stat = fs::metadata(dirs.path(name)).unwrap();
    (stat.uid(), stat.gid())
}

/// Runs `test` where mounts can be mapped, and checks what is said where they can't.
fn on_each_way(dirs: &Dirs, mount: &Mount, test: impl Fn(&str)) {
    for (name, way) in ways() {
        let made = mount_by(&way, std::slice::from_ref(mount), &dirs.rootfs());
        if !way.kernel.present.setattr {
            let error = made.unwrap_err().to_string();
            assert!(error.ends_with("idmapped mounts need Linux 5.12"), "{name}: {error}");
            continue;
        }
        made.unwrap_or_else(|error| panic!("{name}: {error}"));
        test(name);
        dirs.unmount();
        let all = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!all.contains("idmapped"), "{name}: {all}");
    }
}

alone! {
    fn the_lower_layers_of_an_overlay_are_mapped(dirs) {
        for (place, count) in [("snapshots", 1), ("snapshots", 4), (DEEP, 130)] {
            let wanted = overlay(dirs, &layers(dirs, place, count));
            let special = dirs.path(&format!("{place}/0/fs/special"));
            fs::write(&special, "").unwrap();
            std::os::unix::fs::chown(&special, Some(33), Some(1003)).unwrap();
            on_each_way(dirs, &mapped(wanted), |name| {
                check(dirs, count, name);
                assert_eq!(owner(dirs, "rootfs/0"), (100_000, 200_000), "{name}");
                assert_eq!(owner(dirs, "rootfs/special"), (100_033, 300_003), "{name}");
                // Copied up, it is what it was.
                fs::write(dirs.path("rootfs/special"), "changed").unwrap();
                assert_eq!(owner(dirs, "rootfs/special"), (100_033, 300_003), "{name}");
                assert_eq!(owner(dirs, "upper/fs/special"), (100_033, 300_003), "{name}");
                assert_eq!(owner(dirs, &format!("{place}/0/fs/special")), (33, 1003), "{name}");
                fs::remove_file(dirs.path("upper/fs/special")).unwrap();
            });
        }
    }
}

alone! {
    /// What the layers have in common is mapped at once; some of them can't be seen in that.
    fn layers_behind_links_and_on_other_file_systems_are_mapped(dirs) {
        let lower = layers(dirs, "snapshots", 2);
        dirs.write("snapshots/mounted/fs/hidden", "");
        for place in ["snapshots/mounted", "elsewhere"] {
            mount(Some("x"), dirs.dir(place).as_str(), Some("tmpfs"), MsFlags::empty(), None::<&str>)
                .unwrap();
            dirs.write(&format!("{place}/fs/{place}"), "");
        }
        symlink(dirs.path("elsewhere"), dirs.path("snapshots/link")).unwrap();
        let top = dirs.text("snapshots");
        let wanted = overlay(dirs, &format!("{lower}:{top}/mounted/fs:{top}/link/fs"));
        on_each_way(dirs, &mapped(wanted), |name| {
            check(dirs, 2, name);
            assert!(!dirs.path("rootfs/hidden").exists(), "{name}");
            for file in ["0", "1", "snapshots/mounted", "elsewhere"] {
                let owner = owner(dirs, &format!("rootfs/{file}"));
                assert_eq!(owner, (100_000, 200_000), "{name}: {file}");
            }
        });
    }
}

alone! {
    /// Otherwise every mount would go the longer way, and nobody would see it.
    fn layers_need_not_be_attached(dirs) {
        let release = nix::sys::utsname::uname().unwrap().release().to_str().unwrap().to_owned();
        let mut numbers = release.split(['.', '-']).map(|number| number.parse::<u32>().unwrap_or(0));
        if (numbers.next(), numbers.next()) < (Some(6), Some(15)) {
            return skip("detached mounts as overlay's layers need Linux 6.15");
        }
        let wanted = mapped(overlay(dirs, &layers(dirs, "snapshots", 3)));
        let options = options::Wanted::parse(&wanted.options).unwrap();
        let userns = options.maps.unwrap().userns().unwrap();
        let mut fs = corten::rootfs::NewFs::new("overlay", None, &options.options);
        let held = overlay::open_layers(&mut fs, Some(&userns)).unwrap();
        corten::rootfs::build(&fs, 0, None).unwrap();
        drop(held);
    }
}

alone! {
    /// Layers that have to be attached for a moment are so where nobody sees it.
    fn the_host_sees_nothing_but_the_overlay(dirs) {
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SHARED, none).unwrap();
        let points = || {
            let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
            text.lines().filter(|line| line.contains(dirs.top.to_str().unwrap())).count()
        };
        let before = points();
        let wanted = overlay(dirs, &layers(dirs, "snapshots", 3));
        on_each_way(dirs, &mapped(wanted), |name| assert_eq!(points(), before + 1, "{name}"));
        assert_eq!(points(), before);
    }
}

alone! {
    fn what_is_wrong_with_a_mapped_overlay_is_said(dirs) {
        let mut wanted = mapped(overlay(dirs, &layers(dirs, "snapshots", 2)));
        wanted.options.push("no-such-option".to_owned());
        let error = refused(dirs, &[wanted]);
        assert!(error.contains("Unknown parameter 'no-such-option'"), "{error}");
    }
}

alone! {
    fn other_file_systems_are_mapped_themselves(dirs) {
        let long = format!("uid={}0", "0".repeat(300));
        let wanted = a_mount("tmpfs", "tmpfs", &["mode=755", "uid=5", "gid=6"]);
        on_each_way(dirs, &mapped(wanted), |name| {
            assert_eq!(owner(dirs, "rootfs"), (100_005, 200_006), "{name}");
        });
        // A value that only mount(2) takes.
        on_each_way(dirs, &mapped(a_mount("tmpfs", "tmpfs", &["ro", &long])), |name| {
            assert_eq!(owner(dirs, "rootfs"), (100_000, 200_000), "{name}");
            let [[_, options, ..]] = dirs.mounted().try_into().unwrap();
            assert!(options.starts_with("ro,"), "{name}: {options}");
        });
    }
}

alone! {
    fn a_bind_is_mapped_with_what_is_below(dirs) {
        dirs.write("layer/file", "");
        dirs.dir("layer/below");
        mount(Some("x"), &dirs.path("layer/below"), Some("tmpfs"), MsFlags::empty(), None::<&str>)
            .unwrap();
        dirs.write("layer/below/file", "");
        on_each_way(dirs, &mapped(a_mount("bind", &dirs.text("layer"), &["rbind", "ro"])), |name| {
            assert_eq!(owner(dirs, "rootfs/file"), (100_000, 200_000), "{name}");
            assert_eq!(owner(dirs, "rootfs/below/file"), (100_000, 200_000), "{name}");
            assert_eq!(owner(dirs, "layer/file"), (0, 0), "{name}");
        });
    }
}

alone! {
    fn maps_that_are_none(dirs) {
        for (options, why) in [
            (&["uidmap=0:1:2"][..], "options uidmap and gidmap come together"),
            (&["gidmap=0:1:2"], "options uidmap and gidmap come together"),
            (&["uidmap=0:1", "gidmap=0:1:2"], "uidmap=0:1: \"0:1\" is no CONTAINER:HOST:SIZE"),
            (&["uidmap=0:1:2,", "gidmap=0:1:2"], "uidmap=0:1:2,: \"\" is no CONTAINER:HOST:SIZE"),
            (&["uidmap=0:1:2", "gidmap=0:-1:2"], "gidmap=0:-1:2: \"0:-1:2\" is no CONTAINER:HOST:SIZE"),
            (&["uidmap=0:1:0", "gidmap=0:1:2"], "uid_map: invalid argument"),
        ] {
            let error = refused(dirs, &[a_mount("tmpfs", "x", options)]);
            assert!(error.ends_with(why), "{error}");
        }
    }
}

alone! {
    /// What the host has set on a mount is locked in a user namespace: a bind that asks for more
    /// restrictions has to keep it (a remount that leaves it out is EPERM).
    fn in_a_user_namespace_locked_flags_are_kept(dirs) {
        let layer = dirs.dir("layer");
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOATIME;
        mount(Some("x"), layer.as_str(), Some("tmpfs"), flags, None::<&str>).unwrap();
        dirs.write("layer/file", "content");
        dirs.dir("rootfs");
        let map = |pid: Pid| {
            for file in ["uid_map", "gid_map"] {
                fs::write(format!("/proc/{pid}/{file}"), "0 0 1").unwrap();
            }
        };
        let new = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS;
        let code = in_child(new, map, || {
            for (name, way) in ways() {
                for words in [&["bind", "ro"][..], &["rbind", "ro", "dev", "noexec"]] {
                    mount_by(&way, &[a_mount("bind", &layer, words)], &dirs.rootfs())
                        .unwrap_or_else(|error| panic!("{name}: {error}"));
                    assert_eq!(dirs.read("rootfs/file"), "content");
                    let [[_, options, ..]] = dirs.mounted().try_into().unwrap();
                    assert!(options.starts_with("ro,nosuid,nodev,"), "{name}: {options}");
                    assert!(options.ends_with("noatime"), "{name}: {options}");
                    dirs.unmount();
                }
            }
        });
        assert_eq!(code, 0);
    }
}
