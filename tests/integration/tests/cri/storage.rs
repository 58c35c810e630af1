//! Volumes and devices: what the kubelet mounts into containers.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::PathBuf;
use std::time::Duration;

use corten_integration::managers::client::unique;
use corten_integration::managers::cri::Cri;
use corten_integration::managers::{Stop, Verdict, check, contains, eventually, same};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};

pub(crate) const TESTS: &[(&str, crate::Test)] = &[
    ("volume", volume),
    ("readonly_volume", readonly_volume),
    ("file", file),
    ("shared_by_two", shared_by_two),
    ("missing_source", missing_source),
    ("below_a_link", below_a_link),
    ("private", private),
    ("host_to_container", host_to_container),
    ("bidirectional", bidirectional),
    ("recursive_read_only", recursive_read_only),
    ("devices", devices),
    ("device_permissions", device_permissions),
    ("device_of_nobody", device_of_nobody),
];

/// A new directory of the host.
fn folder(cri: &Cri) -> Result<PathBuf, Stop> {
    let folder = cri.dir.join("files").join(unique("volume"));
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// A container with one mount at `/volume`.
fn mounted(source: &std::path::Path, more: Value) -> Value {
    let mut one = json!({"container_path": "/volume", "host_path": source});
    for (key, value) in more.as_object().cloned().unwrap_or_default() {
        one[key] = value;
    }
    json!({"mounts": [one]})
}

fn volume(cri: &Cri) -> Verdict {
    let folder = folder(cri)?;
    fs::write(folder.join("note"), "from the host\n")?;
    let pod = cri.pod(json!({}))?;
    let script = "cat /volume/note; echo from the container > /volume/answer";
    same("seen", &pod.sh(script, mounted(&folder, json!({})))?, "from the host")?;
    same("answer", &fs::read_to_string(folder.join("answer"))?, "from the container\n")
}

fn readonly_volume(cri: &Cri) -> Verdict {
    let folder = folder(cri)?;
    let pod = cri.pod(json!({}))?;
    let more = mounted(&folder, json!({"readonly": true}));
    contains("seen", &pod.sh("touch /volume/file 2>&1; :", more)?, "Read-only file system")
}

fn file(cri: &Cri) -> Verdict {
    let note = folder(cri)?.join("note");
    fs::write(&note, "one file\n")?;
    let pod = cri.pod(json!({}))?;
    let mounts = json!({"mounts": [{"container_path": "/etc/greeting", "host_path": note}]});
    same("seen", &pod.sh("cat /etc/greeting", mounts)?, "one file")
}

fn shared_by_two(cri: &Cri) -> Verdict {
    let folder = folder(cri)?;
    let pod = cri.pod(json!({}))?;
    let writer = "sleep 0.5; echo shared > /volume/new; mv /volume/new /volume/note; sleep 600";
    pod.container(writer, mounted(&folder, json!({})))?;
    let reader = "until [ -e /volume/note ]; do sleep 0.1; done; cat /volume/note";
    same("seen", &pod.sh(reader, mounted(&folder, json!({})))?, "shared")
}

fn missing_source(cri: &Cri) -> Verdict {
    let missing = cri.dir.join("files").join(unique("missing"));
    let pod = cri.pod(json!({}))?;
    // The kubelet makes what it mounts, so containerd makes a missing source a directory.
    same("seen", &pod.sh("ls /volume | wc -l", mounted(&missing, json!({})))?, "0")?;
    check(missing.is_dir(), "the source was not made")
}

fn below_a_link(cri: &Cri) -> Verdict {
    let folder = folder(cri)?;
    fs::create_dir(folder.join("real"))?;
    fs::write(folder.join("real/note"), "behind a link\n")?;
    symlink("real", folder.join("link"))?;
    let pod = cri.pod(json!({}))?;
    // A link in the image that leads out of its root must lead into it.
    let mounts = json!({"mounts": [
        {"container_path": "/climb/volume", "host_path": folder.join("link")},
    ]});
    same("seen", &pod.sh("cat /etc/volume/note", mounts)?, "behind a link")?;
    check(!std::path::Path::new("/etc/volume").exists(), "the link led to the host")
}

/// Mounts a small tmpfs with a note on a directory of the host.
fn tmpfs(target: &std::path::Path) -> Result<Mounted, Stop> {
    fs::create_dir_all(target)?;
    mount(Some("tmpfs"), target, Some("tmpfs"), MsFlags::empty(), Some("size=1m"))?;
    fs::write(target.join("note"), "late\n")?;
    Ok(Mounted(target.to_owned()))
}

/// A mount that goes with the test.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        umount2(&self.0, MntFlags::MNT_DETACH).ok();
    }
}

fn private(cri: &Cri) -> Verdict {
    let folder = folder(cri)?;
    let pod = cri.pod(json!({}))?;
    let more = mounted(&folder, json!({"propagation": "PROPAGATION_PRIVATE"}));
    let container = pod.container("sleep 600", more)?;
    let mounted = tmpfs(&folder.join("late"))?;
    same("seen", &container.exec("ls /volume/late | wc -l")?, "0")?;
    drop(mounted);
    Ok(())
}

fn host_to_container(cri: &Cri) -> Verdict {
    let folder = folder(cri)?;
    let pod = cri.pod(json!({}))?;
    let more = mounted(&folder, json!({"propagation": "PROPAGATION_HOST_TO_CONTAINER"}));
    let container = pod.container("sleep 600", more)?;
    let mounted = tmpfs(&folder.join("late"))?;
    same("seen", &container.exec("cat /volume/late/note")?, "late")?;
    drop(mounted);
    same("gone", &container.exec("ls /volume/late | wc -l")?, "0")
}

fn bidirectional(cri: &Cri) -> Verdict {
    let folder = folder(cri)?;
    fs::create_dir(folder.join("made"))?;
    let pod = cri.pod(json!({"linux": {"security_context": {"privileged": true}}}))?;
    let mut more = mounted(&folder, json!({"propagation": "PROPAGATION_BIDIRECTIONAL"}));
    more["linux"] = json!({"security_context": {"privileged": true}});
    let script = "mount -t tmpfs none /volume/made && echo out > /volume/made/note; sleep 600";
    let container = pod.container(script, more)?;
    eventually("the host sees the mount", Duration::from_secs(20), || {
        Ok(fs::read_to_string(folder.join("made/note")).is_ok_and(|note| note == "out\n"))
    })?;
    container.remove()?;
    umount2(&folder.join("made"), MntFlags::empty())?;
    Ok(())
}

fn recursive_read_only(cri: &Cri) -> Verdict {
    cri.since(2, "a recursively read-only mount")?;
    let folder = folder(cri)?;
    let below = tmpfs(&folder.join("below"))?;
    let pod = cri.pod(json!({}))?;
    let more = mounted(&folder, json!({"readonly": true, "recursive_read_only": true}));
    let seen = pod.sh("cat /volume/below/note; touch /volume/below/file 2>&1; :", more)?;
    contains("seen", &seen, "late")?;
    contains("seen", &seen, "Read-only file system")?;
    drop(below);
    Ok(())
}

/// A container with one device.
fn device(permissions: &str) -> Value {
    json!({"devices": [
        {"container_path": "/dev/special", "host_path": "/dev/zero", "permissions": permissions},
    ]})
}

fn devices(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let script = "ls -l /dev/special; head -c 3 /dev/special | od -An -tx1; echo x > /dev/special";
    let seen = pod.sh(script, device("rwm"))?;
    contains("numbers", &seen, "1,   5")?;
    contains("read", &seen, "00 00 00")?;
    // The usual ones are there, others are not.
    let seen = pod.sh("ls /dev; cat /dev/null; head -c 1 /dev/urandom | wc -c", json!({}))?;
    for name in ["null", "zero", "full", "random", "urandom", "tty", "ptmx", "shm", "mqueue"] {
        contains("devices", &format!("\n{seen}"), &format!("\n{name}\n"))?;
    }
    check(!seen.contains("special") && !seen.contains("loop-control"), seen)
}

fn device_permissions(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    // The group of devices decides, whatever the mode of the node says. A device that every
    // container has would be allowed anyway, so this is another.
    let script = "mknod /tmp/other c 1 11 && head -c 1 /tmp/other 2>&1; :";
    let seen = pod.sh(script, json!({}))?;
    contains("a device of nobody", &seen, "Operation not permitted")?;
    let list = fs::read_to_string("/sys/fs/cgroup/devices/devices.list");
    if list.is_err() {
        return Ok(());
    }
    let container = pod.container("sleep 600", device("r"))?;
    let groups = fs::read_to_string(format!("/proc/{}/cgroup", container.pid()?))?;
    let group = groups.lines().find_map(|line| line.split_once(":devices:"));
    let group = group.ok_or("no group of devices")?.1.trim_start_matches('/');
    let list = fs::read_to_string(format!("/sys/fs/cgroup/devices/{group}/devices.list"))?;
    contains("rules", &list, "c 1:5 rwm")?;
    check(!list.contains("a *:*"), list)
}

fn device_of_nobody(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let devices = json!({"devices": [
        {"container_path": "/dev/special", "host_path": "/dev/not-there", "permissions": "rwm"},
    ]});
    let refusal = pod.create_refused("true", devices)?;
    contains("message", &refusal.message, "/dev/not-there")?;
    check(fs::metadata("/dev/zero")?.rdev() != 0, "no /dev/zero")
}
