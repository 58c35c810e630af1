//! The one image of the suites: static busybox, a few users, and traps for path resolution.
//!
//! Nothing is downloaded. The archive is made once per run and imported by each manager.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use serde_json::json;

use super::Stop;
use super::command::Run;

/// The name under which managers import the image.
pub const NAME: &str = "bb";

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
    alice:x:1000:1000:Alice:/home/alice:/bin/sh\n\
    nobody:x:65534:65534:nobody:/:/bin/sh\n";
const GROUP: &str = "root:x:0:\nalice:x:1000:\nextra:x:2000:alice\nnobody:x:65534:\n";

/// Makes the archive of the root file system below `dir` and returns its path.
pub fn archive(dir: &Path) -> Result<PathBuf, Stop> {
    let root = dir.join("image");
    for folder in ["bin", "dev", "etc", "home/alice", "proc", "root", "sys", "tmp", "usr", "var"] {
        fs::create_dir_all(root.join(folder))?;
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777))?;
    std::os::unix::fs::chown(root.join("home/alice"), Some(1000), Some(1000))?;
    let busybox = root.join("bin/busybox");
    fs::copy("/bin/busybox", &busybox)?;
    for applet in Run::new("/bin/busybox").arg("--list").ok()?.lines() {
        if applet != "busybox" {
            symlink("busybox", root.join("bin").join(applet))?;
        }
    }
    // A copy with the setuid bit: what no_new_privileges must disarm.
    fs::create_dir(root.join("bin/suid"))?;
    let setuid = root.join("bin/suid/busybox");
    fs::copy("/bin/busybox", &setuid)?;
    fs::set_permissions(&setuid, fs::Permissions::from_mode(0o4755))?;
    fs::write(root.join("etc/passwd"), PASSWD)?;
    fs::write(root.join("etc/group"), GROUP)?;
    fs::write(root.join("etc/greeting"), "hello from the image\n")?;
    fs::write(root.join("bin/not-a-program"), "just text\n")?;
    fs::create_dir(root.join("var/data"))?;
    fs::write(root.join("var/data/seed"), "from the image\n")?;
    // A link that climbs out of the root: it must resolve inside the container.
    symlink("../../../../../../etc", root.join("climb"))?;
    symlink("/var/data", root.join("absolute"))?;
    let archive = dir.join("image.tar");
    Run::new("tar").args(["-C"]).arg(&root).arg("-cf").arg(&archive).arg(".").ok()?;
    fs::remove_dir_all(&root)?;
    Ok(archive)
}

/// The full name of the image in containerd, which knows no short ones.
pub const REFERENCE: &str = "docker.io/library/bb:latest";

/// Makes an archive in `docker save`'s format, for `ctr image import`, of the root file system
/// `layer` that [`archive`] made.
pub fn docker_archive(dir: &Path, layer: &Path) -> Result<PathBuf, Stop> {
    docker_archive_of(dir, layer, &[(REFERENCE, &["sh"])])
}

/// [`docker_archive`] with several images of that layer: each one's full name and command.
pub fn docker_archive_of(
    dir: &Path,
    layer: &Path,
    images: &[(&str, &[&str])],
) -> Result<PathBuf, Stop> {
    let folder = dir.join("docker-archive");
    fs::create_dir(&folder)?;
    fs::hard_link(layer, folder.join("layer.tar"))?;
    let sum = Run::new("sha256sum").arg(layer).ok()?;
    let digest = sum.split(' ').next().unwrap_or_default();
    let mut manifest = Vec::new();
    for (number, (reference, command)) in images.iter().enumerate() {
        let name = format!("config{number}.json");
        let config = json!({
            "architecture": if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" },
            "os": "linux",
            "config": {
                "Cmd": command,
                "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            },
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
        });
        fs::write(folder.join(&name), config.to_string())?;
        let tags = [reference];
        manifest.push(json!({"Config": name, "RepoTags": tags, "Layers": ["layer.tar"]}));
    }
    fs::write(folder.join("manifest.json"), json!(manifest).to_string())?;
    let archive = dir.join("docker-archive.tar");
    Run::new("tar").arg("-C").arg(&folder).arg("-cf").arg(&archive).arg(".").ok()?;
    fs::remove_dir_all(&folder)?;
    Ok(archive)
}
