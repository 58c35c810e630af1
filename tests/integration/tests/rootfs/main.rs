//! The container's file system: root, mounts with all options, devices, masked and read-only paths.

mod binds;
mod devices;
mod hostile;
mod masks;
mod mounts;
mod options;
mod root;

use std::fs;
use std::process::{Command, ExitCode};

use corten_integration::{Bundle, Test, suite};
use serde_json::{Value, json};

fn main() -> ExitCode {
    let groups = [
        root::TESTS,
        mounts::TESTS,
        options::TESTS,
        binds::TESTS,
        hostile::TESTS,
        masks::TESTS,
        devices::TESTS,
    ];
    suite(&groups.concat())
}

pub(crate) fn mount_at<'a>(seen: &'a Value, point: &str) -> &'a Value {
    let all = seen["mounts"].as_array().unwrap();
    all.iter().rfind(|m| m["point"] == point).unwrap_or_else(|| {
        let points: Vec<_> = all.iter().map(|m| &m["point"]).collect();
        panic!("no mount at {point}: {points:?}")
    })
}

pub(crate) fn words(mount: &Value, key: &str) -> Vec<String> {
    serde_json::from_value(mount[key].clone()).unwrap()
}

pub(crate) fn has(mount: &Value, option: &str) -> bool {
    words(mount, "options").iter().any(|o| o == option)
}

/// A directory outside of the bundle with a file and a submount that has a file.
pub(crate) fn source(t: &Test) -> String {
    let dir = t.dir.join("source");
    fs::create_dir_all(dir.join("sub")).unwrap();
    fs::write(dir.join("file"), "content").unwrap();
    mount(t, &["-t", "tmpfs", "corten-test", dir.join("sub").to_str().unwrap()]);
    fs::write(dir.join("sub/inner"), "inner").unwrap();
    dir.to_str().unwrap().to_owned()
}

pub(crate) fn mount(t: &Test, args: &[&str]) {
    let mut command = Command::new("mount");
    command.args(args);
    t.execute(command).ok();
}

pub(crate) fn umount(t: &Test, path: &str) {
    let mut command = Command::new("umount");
    command.args(["-l", path]);
    t.execute(command).ok();
}

pub(crate) fn as_user(b: &mut Bundle) {
    b.namespace("user", None)
        .set("linux.uidMappings", json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]))
        .set("linux.gidMappings", json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]));
    std::os::unix::fs::chown(b.rootfs(), Some(100_000), Some(100_000)).unwrap();
}
