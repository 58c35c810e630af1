//! Overlay, with few layers and with many.

use super::*;

/// Layers `0`, `1`, ... each with a file of its name, and a file `same` that says which is on top.
pub(super) fn layers(dirs: &Dirs, below: &str, count: usize) -> String {
    let names = (0..count).map(|n| {
        dirs.write(&format!("{below}/{n}/fs/{n}"), "");
        dirs.write(&format!("{below}/{n}/fs/same"), &n.to_string());
        dirs.text(&format!("{below}/{n}/fs"))
    });
    names.collect::<Vec<_>>().join(":")
}

pub(super) fn overlay(dirs: &Dirs, lower: &str) -> Mount {
    let (upper, work) = (dirs.dir("upper/fs"), dirs.dir("upper/work"));
    let options = [
        format!("lowerdir={lower}"),
        format!("upperdir={upper}"),
        format!("workdir={work}"),
        "index=off".to_owned(),
    ];
    a_mount("overlay", "overlay", &options.each_ref().map(String::as_str))
}

pub(super) fn check(dirs: &Dirs, count: usize, name: &str) {
    assert_eq!(dirs.read("rootfs/same"), "0", "{name}");
    for n in 0..count {
        assert!(dirs.path(&format!("rootfs/{n}")).exists(), "{name}: layer {n} of {count}");
    }
    fs::write(dirs.path("rootfs/new"), "new").unwrap();
    assert_eq!(dirs.read("upper/fs/new"), "new", "{name}");
    fs::remove_file(dirs.path("rootfs/new")).unwrap();
}

alone! {
    fn layers_are_put_together_in_their_order(dirs) {
        for count in [1, 5] {
            let mut wanted = overlay(dirs, &layers(dirs, "snapshots", count));
            wanted.options.push("volatile".to_owned());
            for (name, way) in ways() {
                mount_by(&way, std::slice::from_ref(&wanted), &dirs.rootfs()).unwrap();
                check(dirs, count, name);
                let [[_, _, kind, sb]] = dirs.mounted().try_into().unwrap();
                assert_eq!(kind, "overlay");
                assert!(sb.contains("volatile"), "{name}: {sb}");
                assert!(sb.contains(&format!(",upperdir={},", dirs.text("upper/fs"))), "{name}: {sb}");
                dirs.unmount();
                fs::remove_dir_all(dirs.path("upper/work")).unwrap();
                dirs.dir("upper/work");
            }
        }
    }
}

alone! {
    fn without_an_upper_layer_it_is_read_only(dirs) {
        let lower = format!("lowerdir={}", layers(dirs, "snapshots", 3));
        for (name, way) in ways() {
            mount_by(&way, &[a_mount("overlay", "overlay", &["ro", &lower])], &dirs.rootfs()).unwrap();
            assert_eq!(dirs.read("rootfs/same"), "0", "{name}");
            assert!(fs::write(dirs.path("rootfs/new"), "").is_err());
            dirs.unmount();
        }
    }
}

/// A place like containerd's, a bit deeper: 130 layers are 20 KB.
pub(super) const DEEP: &str = "var/lib/containerd/with/a/long/name/that/goes/on/and/on/io.containerd.snapshotter.v1.overlayfs/snapshots";

alone! {
    fn layers_that_do_not_fit_a_page_are_mounted_all_the_same(dirs) {
        for count in [130, 500] {
            let wanted = overlay(dirs, &layers(dirs, DEEP, count));
            assert!(wanted.options[0].len() > 3 * 4096);
            for (name, way) in ways() {
                mount_by(&way, std::slice::from_ref(&wanted), &dirs.rootfs()).unwrap();
                check(dirs, count, name);
                dirs.unmount();
            }
        }
    }
}

alone! {
    fn layers_that_fit_no_page_at_all_are_an_error_where_they_have_to(dirs) {
        // Two places: nothing in common but the top.
        let (a, b) = (layers(dirs, DEEP, 30), layers(dirs, &format!("b{DEEP}"), 30));
        let wanted = overlay(dirs, &format!("{a}:{b}"));
        for (name, way) in ways() {
            let made = mount_by(&way, std::slice::from_ref(&wanted), &dirs.rootfs());
            if way.layer_fds {
                made.unwrap();
                dirs.unmount();
                continue;
            }
            let error = made.unwrap_err().to_string();
            assert!(error.contains("mount(2) takes less than 4096"), "{name}: {error}");
            assert!(error.contains("... ("), "not the whole list: {error}");
            assert!(error.len() < 2000, "{}", error.len());
            dirs.none_mounted();
        }
    }
}

alone! {
    fn names_with_colons_commas_and_backslashes(dirs) {
        dirs.write("lower/a:b,c\\d/one", "1");
        dirs.write("lower/e/two", "2");
        let top = dirs.text("lower");
        let lower = format!("lowerdir={top}/a\\:b\\,c\\\\d:{top}/e");
        for (name, way) in ways() {
            mount_by(&way, &[a_mount("overlay", "overlay", &[&lower])], &dirs.rootfs())
                .unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(dirs.read("rootfs/one") + &dirs.read("rootfs/two"), "12", "{name}");
            dirs.unmount();
        }
    }
}

alone! {
    fn a_missing_layer_is_named(dirs) {
        let good = layers(dirs, "snapshots", 2);
        let bad = dirs.text("snapshots/9/fs");
        for (name, way) in ways() {
            let wanted = [overlay(dirs, &format!("{good}:{bad}"))];
            let error = mount_by(&way, &wanted, &dirs.rootfs()).unwrap_err();
            assert_eq!(error.errno(), Some(Errno::ENOENT), "{name}");
            if way.layer_fds {
                let words = format!("open layer {bad:?}: no such file or directory");
                assert!(error.to_string().ends_with(&words), "{error}");
            }
            dirs.none_mounted();
        }
    }
}

alone! {
    fn the_kernels_words_are_in_the_error(dirs) {
        let mut wanted = overlay(dirs, &layers(dirs, "snapshots", 2));
        wanted.options.push("no-such-option".to_owned());
        let error = refused(dirs, &[wanted]);
        assert!(error.contains("rootfs[0]: mount overlay at "), "{error}");
        assert!(error.contains("overlay: Unknown parameter 'no-such-option'"), "{error}");
    }
}

alone! {
    /// As it is in the kernel: the snapshotter's own options come before the administrator's.
    fn of_two_that_contradict_the_last_counts(dirs) {
        let layers = layers(dirs, "snapshots", 3);
        let (first, last) = layers.rsplit_once(':').unwrap();
        let mut wanted = overlay(dirs, first);
        wanted.options.push(format!("upperdir={}", dirs.dir("upper/other")));
        wanted.options.push(format!("lowerdir={last}"));
        for (name, way) in ways() {
            mount_by(&way, std::slice::from_ref(&wanted), &dirs.rootfs()).unwrap();
            assert_eq!(dirs.read("rootfs/same"), "2", "{name}");
            fs::write(dirs.path("rootfs/new"), "").unwrap();
            assert!(dirs.path("upper/other/new").exists(), "{name}");
            dirs.unmount();
        }
    }
}

alone! {
    fn layers_of_data_are_told_from_others(dirs) {
        layers(dirs, "snapshots", 3);
        let top = dirs.text("snapshots");
        let lower = format!("lowerdir={top}/0/fs::{top}/1/fs::{top}/2/fs");
        for (name, way) in ways() {
            mount_by(&way, &[a_mount("overlay", "overlay", &["metacopy=on", &lower])], &dirs.rootfs())
                .unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(dirs.path("rootfs/0").exists(), "{name}");
            assert!(!dirs.path("rootfs/1").exists(), "{name}");
            dirs.unmount();
        }
    }
}
