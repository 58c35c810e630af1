//! Files as devices. The images lie on the disk: a device is seen by the whole host.

use std::thread::sleep;
use std::time::Duration;

use super::*;

/// A directory on the disk, beside the namespace's own tmpfs.
struct Disk(tempfile::TempDir);

impl Disk {
    fn new() -> Self {
        Self(tempfile::Builder::new().prefix("corten-mounts-disk-").tempdir_in("/var/tmp").unwrap())
    }

    fn image(&self, name: &str) -> String {
        let path = self.0.path().join(name);
        fs::File::create(&path).unwrap().set_len(8 << 20).unwrap();
        let made = Command::new("mke2fs").args(["-q", "-t", "ext4"]).arg(&path).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        path.to_str().unwrap().to_owned()
    }

    /// The attributes in sysfs of the devices that show this file.
    fn devices(&self, image: &str) -> Vec<PathBuf> {
        let shows = |dir: &PathBuf| {
            fs::read_to_string(dir.join("backing_file")).is_ok_and(|file| file.trim() == image)
        };
        let all = fs::read_dir("/sys/block").unwrap();
        all.map(|entry| entry.unwrap().path().join("loop")).filter(shows).collect()
    }

    /// Soon no device shows the file.
    fn let_go(&self, image: &str) {
        for _ in 0..500 {
            if self.devices(image).is_empty() {
                return;
            }
            sleep(Duration::from_millis(20));
        }
        panic!("{image} is still shown by {:?}", self.devices(image));
    }
}

fn value(dir: &Path, name: &str) -> String {
    fs::read_to_string(dir.join(name)).unwrap().trim().to_owned()
}

alone! {
    fn an_image_is_a_device_while_it_is_mounted(dirs) {
        let disk = Disk::new();
        let image = disk.image("ext4");
        for (name, way) in ways() {
            mount_by(&way, &[a_mount("ext4", &image, &["loop", "noatime"])], &dirs.rootfs()).unwrap();
            let [device] = disk.devices(&image).try_into().unwrap();
            assert_eq!(value(&device, "autoclear"), "1", "{name}");
            assert_eq!(value(&device, "../ro"), "0", "{name}");
            fs::write(dirs.path("rootfs/file"), name).unwrap();
            dirs.unmount();
            disk.let_go(&image);

            mount_by(&way, &[a_mount("ext4", &image, &["loop", "ro"])], &dirs.rootfs()).unwrap();
            let [device] = disk.devices(&image).try_into().unwrap();
            assert_eq!(value(&device, "../ro"), "1", "{name}");
            assert_eq!(dirs.read("rootfs/file"), name);
            assert!(fs::write(dirs.path("rootfs/file"), "").is_err(), "{name}");
            dirs.unmount();
            disk.let_go(&image);
        }
    }
}

alone! {
    fn direct_io_reaches_the_device(dirs) {
        let disk = Disk::new();
        let image = disk.image("ext4");
        let wanted = a_mount("ext4", &image, &["loop", "direct-io"]);
        mount_all(&[wanted], &dirs.rootfs()).unwrap();
        let [device] = disk.devices(&image).try_into().unwrap();
        assert_eq!(value(&device, "dio"), "1");
        dirs.unmount();
        disk.let_go(&image);
        // Without `loop` it is the file system's to understand.
        let error = refused(dirs, &[a_mount("tmpfs", "x", &["direct-io"])]);
        assert!(error.contains("Unknown parameter 'direct-io'"), "{error}");
    }
}

alone! {
    fn a_failure_leaves_no_device(dirs) {
        let disk = Disk::new();
        let image = disk.image("ext4");
        let error = refused(dirs, &[a_mount("squashfs", &image, &["loop", "ro"])]);
        assert!(error.contains("mount squashfs at "), "{error}");
        disk.let_go(&image);
        let mounts = [a_mount("ext4", &image, &["loop"]), a_mount("no-such-fs", "x", &[])];
        refused(dirs, &mounts);
        disk.let_go(&image);
        let missing = disk.0.path().join("missing").display().to_string();
        let error = refused(dirs, &[a_mount("ext4", &missing, &["loop"])]);
        assert!(error.ends_with(&format!("open {missing:?}: no such file or directory")), "{error}");
    }
}

alone! {
    fn a_squashfs_is_read_only(dirs) {
        let disk = Disk::new();
        let image = disk.0.path().join("squashfs");
        dirs.write("content/file", "squashed");
        let made = Command::new("mksquashfs").arg(dirs.path("content")).arg(&image).output();
        if !made.is_ok_and(|made| made.status.success()) {
            return skip("mksquashfs (Debian: squashfs-tools) is not installed");
        }
        let image = image.to_str().unwrap();
        mount_all(&[a_mount("squashfs", image, &["loop", "ro"])], &dirs.rootfs()).unwrap();
        assert_eq!(dirs.read("rootfs/file"), "squashed");
        dirs.unmount();
        disk.let_go(image);
    }
}

alone! {
    fn an_image_can_be_mapped(dirs) {
        let disk = Disk::new();
        let image = disk.image("ext4");
        let words = ["loop", "uidmap=0:100000:65536", "gidmap=0:100000:65536"];
        mount_all(&[a_mount("ext4", &image, &words)], &dirs.rootfs()).unwrap();
        let owner = fs::metadata(dirs.path("rootfs/lost+found")).unwrap().uid();
        assert_eq!(owner, 100_000);
        dirs.unmount();
        disk.let_go(&image);
    }
}

alone! {
    /// All of them ask for a free device at the same moment, and get the same answer.
    fn many_at_once_find_devices(dirs) {
        const MANY: usize = 6;
        let disk = Disk::new();
        let images: Vec<_> = (0..MANY).map(|n| disk.image(&n.to_string())).collect();
        let (may_go, go) = pipe().unwrap();
        let children: Vec<_> = images
            .iter()
            .enumerate()
            .map(|(n, image)| match clone(&CloneArgs::default()).unwrap() {
                Cloned::Parent(_, pidfd) => pidfd,
                Cloned::Child => {
                    let rootfs = dirs.path(&format!("rootfs{n}"));
                    let test = AssertUnwindSafe(|| {
                        nix::unistd::close(std::os::fd::AsRawFd::as_raw_fd(&go)).unwrap();
                        nix::unistd::read(&may_go, &mut [0]).unwrap();
                        mount_all(&[a_mount("ext4", image, &["loop"])], &rootfs).unwrap();
                        fs::write(rootfs.join(n.to_string()), "").unwrap();
                        unmount_all(&rootfs).unwrap();
                    });
                    exit_now(i32::from(catch_unwind(test).is_err()));
                }
            })
            .collect();
        drop(go);
        let codes: Vec<_> = children.iter().map(|child| exit_of(child).unwrap().status()).collect();
        assert_eq!(codes, [0; MANY]);
        images.iter().for_each(|image| disk.let_go(image));
    }
}
