//! The bundle of every subject: `docker-like.json`, busybox as root file system, own groups.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// Docker's namespaces, masks, capabilities, limits and seccomp profile.
const CONFIG: &str = include_str!("../docker-like.json");

/// Writes a bundle that runs `arguments` in the cgroup `/corten-bench/NAME` to `dir`.
pub fn write(dir: &Path, name: &str, arguments: &[&str]) -> Result<PathBuf, String> {
    let mut config: Value =
        serde_json::from_str(CONFIG).map_err(|error| format!("docker-like.json: {error}"))?;
    // crun 1.8 refuses any other minor version.
    config["ociVersion"] = json!("1.0.2");
    config["process"]["args"] = json!(arguments);
    config["linux"]["cgroupsPath"] = json!(format!("/corten-bench/{name}"));
    let bundle = dir.join(name);
    let rootfs = bundle.join("rootfs");
    let made = || -> std::io::Result<()> {
        for directory in ["bin", "dev", "etc", "proc", "run", "sys", "tmp"] {
            std::fs::create_dir_all(rootfs.join(directory))?;
        }
        std::fs::copy("/bin/busybox", rootfs.join("bin/busybox"))?;
        for applet in ["sh", "true", "sleep"] {
            symlink("busybox", rootfs.join("bin").join(applet))?;
        }
        std::fs::write(bundle.join("config.json"), config.to_string())
    };
    made().map_err(|error| {
        format!("make the bundle {bundle:?} (busybox-static installed?): {error}")
    })?;
    Ok(bundle)
}
