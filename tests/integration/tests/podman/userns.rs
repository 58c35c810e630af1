//! `podman run --userns` and its relatives, as root.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use corten_integration::managers::podman::Podman;
use corten_integration::managers::{Verdict, contains, same};

pub(crate) const TESTS: &[(&str, crate::Test)] = &[
    ("auto", auto),
    ("maps", maps),
    ("join", join),
    ("files", files),
    ("exec", exec),
    ("pod", pod),
];

const MAP: &str = "cat /proc/self/uid_map | tr -s ' '";

fn auto(podman: &Podman) -> Verdict {
    let seen = podman.sh(&["--userns", "auto:size=2048"], &format!("id -u; {MAP}"))?;
    contains("map", &seen, "0\n 0 30")?;
    contains("size", &seen, " 2048")?;
    // Two at once get different ranges.
    let (first, second) = (
        podman.background(&["--userns", "auto"], "sleep 600")?,
        podman.background(&["--userns", "auto"], "sleep 600")?,
    );
    let owner =
        |pid| -> Result<u32, std::io::Error> { Ok(fs::metadata(format!("/proc/{pid}"))?.uid()) };
    let (one, two) = (owner(first.pid()?)?, owner(second.pid()?)?);
    corten_integration::managers::check(
        one >= 3_000_000 && two >= 3_000_000 && one != two,
        format!("owners {one} and {two}"),
    )
}

fn maps(podman: &Podman) -> Verdict {
    let options = ["--uidmap", "0:500000:2000", "--gidmap", "0:600000:2000"];
    let script = "cat /proc/self/uid_map /proc/self/gid_map | tr -s ' '; stat -c %u /proc/1 /dev/pts /sys; \
                  grep ^CapEff /proc/self/status";
    let seen = podman.sh(&options, script)?;
    contains("maps", &seen, " 0 500000 2000\n 0 600000 2000\n0\n")?;
    contains("capabilities", &seen, "CapEff:\t00000000a80425fb")?;
    let container = podman.background(&options, "sleep 600")?;
    let status = fs::read_to_string(format!("/proc/{}/status", container.pid()?))?;
    contains("outside", &status, "Uid:\t500000\t500000\t500000\t500000")?;
    contains("outside", &status, "Gid:\t600000\t600000\t600000\t600000")
}

fn join(podman: &Podman) -> Verdict {
    let options = ["--uidmap", "0:500000:2000"];
    let first = podman.background(&options, "sleep 600")?;
    let option = format!("container:{}", first.name);
    let link = "readlink /proc/self/ns/user";
    same("one namespace", &podman.sh(&["--userns", &option], link)?, &first.exec(&[], link)?)
}

fn files(podman: &Podman) -> Verdict {
    let folder = podman.folder("userns")?;
    std::os::unix::fs::chown(&folder, Some(500_000), Some(500_000))?;
    let option = format!("{}:/m", folder.display());
    let options = ["--uidmap", "0:500000:2000", "-v", &option, "--tmpfs", "/t", "--read-only"];
    let script = "touch /m/f /t/f && chown alice /m/f && stat -c %u /t /etc/greeting /m/f; touch /x 2>&1; true";
    let seen = podman.sh(&options, script)?;
    contains("inside", &seen, "0\n0\n1000\n")?;
    contains("read-only", &seen, "Read-only file system")?;
    same("outside", &fs::metadata(folder.join("f"))?.uid(), &501_000)
}

fn exec(podman: &Podman) -> Verdict {
    let container = podman.background(&["--uidmap", "0:500000:3000"], "sleep 600")?;
    contains("map", &container.exec(&[], MAP)?, " 0 500000 3000")?;
    same("user", &container.exec(&["--user", "alice"], "id -u")?, "1000")?;
    let words = ["exec", "-t", &container.name, "sh", "-c", "tty; exit 4"];
    let (code, screen) = podman.terminal(&words)?.finish()?;
    contains("terminal", &screen, "/dev/pts/")?;
    same("exit code", &code, &4)
}

fn pod(podman: &Podman) -> Verdict {
    let words = [
        "pod",
        "create",
        "--name",
        "mapped",
        "--uidmap",
        "0:500000:2000",
        "--network",
        "none",
        "--cgroup-parent",
        &podman.sandbox.cgroup,
    ];
    podman.ok(&words)?;
    let seen = podman.sh(&["--pod", "mapped"], MAP);
    podman.ok(&["pod", "rm", "-f", "-t", "0", "mapped"])?;
    same("map", &seen?, " 0 500000 2000")
}
