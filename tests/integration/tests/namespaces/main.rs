//! `linux.namespaces`, `timeOffsets`, `uidMappings`, `gidMappings`, `sysctl`, hostname and domainname.

mod joined;
mod kinds;
mod sysctl;
mod time;
mod user;

use std::fs;
use std::process::ExitCode;

use corten_integration::{Bundle, suite};
use serde_json::json;

fn main() -> ExitCode {
    let groups = [kinds::TESTS, joined::TESTS, time::TESTS, user::TESTS, sysctl::TESTS];
    suite(&groups.concat())
}

pub(crate) fn host_ns(name: &str) -> String {
    let link = fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
    link.to_string_lossy().into_owned()
}

pub(crate) fn with_user(b: &mut Bundle) {
    b.namespace("user", None)
        .set("linux.uidMappings", json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]))
        .set("linux.gidMappings", json!([{"containerID": 0, "hostID": 200_000, "size": 65536}]));
    std::os::unix::fs::chown(b.rootfs(), Some(100_000), Some(200_000)).unwrap();
}
