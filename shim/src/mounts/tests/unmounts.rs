//! Taking apart.

use std::time::Instant;

use super::*;

fn tmpfs(path: &str) {
    mount(Some("x"), path, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
}

alone! {
    fn what_is_not_mounted_or_not_there_is_fine(dirs) {
        unmount_all(&dirs.path("none/rootfs")).unwrap();
        unmount_all(&dirs.rootfs()).unwrap();
        dirs.dir("rootfs");
        unmount_all(&dirs.rootfs()).unwrap();
    }
}

alone! {
    fn stacked_nested_and_hidden_mounts_all_go(dirs) {
        let root = dirs.dir("rootfs");
        tmpfs(&root);
        tmpfs(&dirs.dir("rootfs/a b\\c"));
        tmpfs(&dirs.dir("rootfs/a b\\c/deep"));
        tmpfs(&dirs.dir("rootfs/x"));
        tmpfs(&dirs.dir("rootfs/x/hidden"));
        tmpfs(&dirs.text("rootfs/x"));
        tmpfs(&root);
        tmpfs(&root);
        tmpfs(&dirs.dir("rootfs/x"));
        assert_eq!(dirs.mounted().len(), 9);
        dirs.unmount();
    }
}

alone! {
    /// A name that starts the same is another directory.
    fn what_is_beside_stays(dirs) {
        tmpfs(&dirs.dir("rootfs"));
        tmpfs(&dirs.dir("rootfs2"));
        unmount_all(&dirs.rootfs()).unwrap();
        let left = dirs.mounted();
        assert_eq!(left.len(), 1);
        assert_eq!(left[0][0], dirs.text("rootfs2"));
    }
}

alone! {
    fn no_link_of_the_content_is_followed(dirs) {
        tmpfs(&dirs.dir("outside"));
        tmpfs(&dirs.dir("outside/y"));
        // A mount below a directory, which is then hidden by one that has a link at its place.
        tmpfs(&dirs.dir("rootfs"));
        tmpfs(&dirs.dir("rootfs/x/y"));
        tmpfs(&dirs.dir("rootfs/z"));
        tmpfs(&dirs.text("rootfs"));
        // Absolute ones would lead elsewhere, were they followed below the directory above.
        symlink("../outside", dirs.path("rootfs/x")).unwrap();
        symlink("../outside/y", dirs.path("rootfs/z")).unwrap();
        let held = fs::File::open(dirs.rootfs()).unwrap();
        // While it is busy, the hidden ones can't be reached, only what the links lead to.
        let error = unmount_all(&dirs.rootfs()).unwrap_err();
        assert_eq!(error.errno(), Some(Errno::EBUSY), "{error}");
        drop(held);
        dirs.unmount();
        let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
        for name in ["outside", "outside/y"] {
            assert!(text.contains(&format!(" {} ", dirs.text(name))), "{name}");
        }
    }
}

alone! {
    fn a_root_that_is_a_link_is_not_followed(dirs) {
        tmpfs(&dirs.dir("outside"));
        symlink(dirs.path("outside"), dirs.rootfs()).unwrap();
        unmount_all(&dirs.rootfs()).unwrap();
        let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(text.contains(&dirs.text("outside")));
    }
}

alone! {
    fn a_way_through_links_of_the_host_is_the_hosts(dirs) {
        dirs.dir("run");
        symlink(dirs.path("run"), dirs.path("var-run")).unwrap();
        tmpfs(&dirs.dir("run/rootfs"));
        unmount_all(&dirs.path("var-run/rootfs")).unwrap();
        let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!text.contains(&dirs.text("run/rootfs")));
    }
}

alone! {
    fn what_is_busy_is_named_after_a_while(dirs) {
        tmpfs(&dirs.dir("rootfs"));
        tmpfs(&dirs.dir("rootfs/busy"));
        tmpfs(&dirs.dir("rootfs/other"));
        let held = fs::File::create(dirs.path("rootfs/busy/file")).unwrap();
        let start = Instant::now();
        let error = unmount_all(&dirs.rootfs()).unwrap_err();
        let took = start.elapsed().as_millis();
        assert!((2400..20_000).contains(&took), "{took} ms");
        let wanted = format!("unmount {:?}: device or resource busy", dirs.path("rootfs/busy"));
        assert_eq!(error.to_string(), wanted);
        assert_eq!(dirs.mounted().len(), 2, "the rest is gone");
        drop(held);
        dirs.unmount();
    }
}

alone! {
    fn what_is_busy_for_a_moment_is_waited_for(dirs) {
        tmpfs(&dirs.dir("rootfs"));
        let path = dirs.text("rootfs");
        let mut holder = holding(&path);
        unmount_all(&dirs.rootfs()).unwrap();
        holder.wait().unwrap();
        dirs.none_mounted();
    }
}

/// A process that stands in a directory for half a second.
#[allow(clippy::disallowed_methods, reason = "a process beside us, in a test")]
fn holding(path: &str) -> std::process::Child {
    let mut holder = Command::new("/bin/sh")
        .args(["-c", "cd \"$0\" && echo && exec sleep 0.5", path])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = [0];
    std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut line).unwrap();
    holder
}
