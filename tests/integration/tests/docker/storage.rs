//! The root file system and what is mounted into it.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use corten_integration::managers::client::unique;
use corten_integration::managers::docker::{Docker, MAY_MOUNT, Test};
use corten_integration::managers::{Stop, Verdict, check, contains, lacks, same};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("writable_layers_are_separate", writable_layers_are_separate),
    ("read_only", read_only),
    ("read_only_with_tmpfs", read_only_with_tmpfs),
    ("tmpfs_options", tmpfs_options),
    ("tmpfs_shows_the_image", tmpfs_shows_the_image),
    ("bind", bind),
    ("bind_read_only", bind_read_only),
    ("bind_file", bind_file),
    ("bind_follows_links_inside", bind_follows_links_inside),
    ("bind_onto_missing_paths", bind_onto_missing_paths),
    ("bind_propagation", bind_propagation),
    ("bind_keeps_flags", bind_keeps_flags),
    ("mount_syntax", mount_syntax),
    ("volume", volume),
    ("volume_shared", volume_shared),
    ("volumes_from", volumes_from),
    ("generated_files", generated_files),
];

fn writable_layers_are_separate(docker: &Docker) -> Verdict {
    let first = docker.background(&[], "echo one > /etc/greeting; echo 1 > /mine; sleep 600")?;
    let second = docker.background(&[], "rm /var/data/seed; echo ready; sleep 600")?;
    first.exec(&[], "until [ -s /mine ]; do sleep 0.05; done")?;
    second.says("ready")?;
    same("first", &first.exec(&[], "cat /etc/greeting /var/data/seed")?, "one\nfrom the image")?;
    let seen = second.exec(&[], "cat /etc/greeting; ls /mine /var/data/seed 2>&1; true")?;
    contains("second", &seen, "hello from the image")?;
    contains("second has no /mine", &seen, "/mine: No such file")?;
    contains("second has no seed", &seen, "/var/data/seed: No such file")?;
    first.with("restart", &["-t", "0"])?;
    same("kept", &first.exec(&[], "cat /etc/greeting")?, "one")?;
    same("image", &docker.sh(&[], "cat /etc/greeting")?, "hello from the image")
}

fn read_only(docker: &Docker) -> Verdict {
    let script = "for p in /x /etc/x /usr/x /tmp/x; do touch $p && echo wrote $p; done; \
                  echo ok > /dev/shm/x && echo shm; sed -n 's/.* \\/ \\/ \\(..\\),.*/\\1/p' \
                  /proc/self/mountinfo";
    let seen = docker.run(&["--read-only"], &["sh", "-c", script]).run()?;
    lacks("writes", &seen.stdout, "wrote")?;
    same("errors", &seen.stderr.matches("Read-only file system").count(), &4)?;
    same("the rest", &seen.stdout, "shm\nro\n")
}

fn read_only_with_tmpfs(docker: &Docker) -> Verdict {
    let options = ["--read-only", "--tmpfs", "/tmp", "--tmpfs", "/run:size=1m"];
    let script = "echo a > /tmp/a && echo b > /run/b && cat /tmp/a /run/b";
    // /run is not in the image: its mount point is made although the root is read-only.
    same("tmpfs", &docker.sh(&options, script)?, "a\nb")
}

fn tmpfs_options(docker: &Docker) -> Verdict {
    let options = ["--tmpfs", "/t:size=2m,mode=700,uid=1000,exec"];
    let script =
        "df -k /t | tail -1 | awk '{print $2}'; stat -c '%a %u' /t; grep ' /t ' /proc/mounts";
    let seen = docker.sh(&options, script)?;
    contains("size, mode, owner", &seen, "2048\n700 1000\n")?;
    contains("defaults", &seen, "rw,nosuid,nodev,relatime")?;
    lacks("exec asked for", &seen, "noexec")?;
    let noexec = docker.sh(&["--tmpfs", "/t"], "grep ' /t ' /proc/mounts; stat -c %a /t")?;
    contains("noexec by default", &noexec, "nosuid,nodev,noexec")
}

fn tmpfs_shows_the_image(docker: &Docker) -> Verdict {
    // Docker asks for `tmpcopyup` nowhere, so the tmpfs is empty and takes the directory's mode.
    let seen = docker.sh(&["--tmpfs", "/var/data"], "ls -A /var/data; ls -d /var/data")?;
    same("empty", &seen, "/var/data")
}

fn bind(docker: &Docker) -> Verdict {
    let folder = docker.folder("bind")?;
    fs::write(folder.join("in"), "from outside")?;
    let option = format!("{}:/mnt/here", folder.display());
    let seen = docker.sh(&["-v", &option], "cat /mnt/here/in; echo from inside > /mnt/here/out")?;
    same("read", &seen, "from outside")?;
    same("written", &fs::read_to_string(folder.join("out"))?, "from inside\n")?;
    same("owner", &fs::metadata(folder.join("out"))?.uid(), &0)
}

fn bind_read_only(docker: &Docker) -> Verdict {
    let folder = docker.folder("bind")?;
    fs::write(folder.join("in"), "x")?;
    let option = format!("{}:/m:ro", folder.display());
    let seen = docker.run(&["-v", &option], &["sh", "-c", "cat /m/in; touch /m/new"]).code(1)?;
    contains("write", &seen.stderr, "Read-only file system")?;
    check(!folder.join("new").exists(), "it was written")?;
    // Remounting needs a capability that the container does not have.
    let again = docker.run(&["-v", &option], &["mount", "-o", "remount,rw,bind", "/m"]).run()?;
    check(again.code != 0, "remounted")
}

fn bind_file(docker: &Docker) -> Verdict {
    let file = docker.folder("bind")?.join("file");
    fs::write(&file, "file content")?;
    let (over, new) =
        (format!("{}:/etc/greeting", file.display()), format!("{}:/new/f", file.display()));
    let seen =
        docker.sh(&["-v", &over, "-v", &new], "cat /etc/greeting /new/f; echo more > /new/f")?;
    same("content", &seen, "file contentfile content")?;
    same("written", &fs::read_to_string(&file)?, "more\n")
}

fn bind_follows_links_inside(docker: &Docker) -> Verdict {
    let folder = docker.folder("bind")?;
    fs::write(folder.join("marker"), "bound")?;
    // The image's /climb points to ../../../../../../etc: inside, that is its own /etc.
    let option = format!("{}:/climb/sub", folder.display());
    same("climbing link", &docker.sh(&["-v", &option], "cat /etc/sub/marker")?, "bound")?;
    check(!Path::new("/etc/sub").exists(), "the link led out of the container")?;
    let option = format!("{}:/absolute/sub", folder.display());
    same("absolute link", &docker.sh(&["-v", &option], "cat /var/data/sub/marker")?, "bound")?;
    check(!Path::new("/var/data").exists(), "the link led out of the container")
}

fn bind_onto_missing_paths(docker: &Docker) -> Verdict {
    let folder = docker.folder("bind")?;
    let option = format!("{}:/a/b/c/d", folder.display());
    same("made", &docker.sh(&["-v", &option], "stat -c '%a %u' /a/b/c")?, "755 0")?;
    let missing = format!("{}/not-there:/m", folder.display());
    docker.sh(&["-v", &missing], "touch /m/x")?;
    check(folder.join("not-there/x").exists(), "Docker makes a missing source of -v")?;
    let strict = format!("type=bind,source={}/nowhere,target=/m", folder.display());
    let denied = docker.run(&["--mount", &strict], &["true"]).code(125)?;
    contains("--mount does not", &denied.stderr, "does not exist")
}

fn bind_propagation(docker: &Docker) -> Verdict {
    let folder = docker.folder("propagation")?;
    let inner = folder.join("inner");
    fs::create_dir(&inner)?;
    let (slave, private) =
        (format!("{}:/m:rslave", folder.display()), format!("{}:/m:rprivate", folder.display()));
    let wait = "echo ready; until [ -e /go ]; do sleep 0.05; done; ls /m/inner";
    let follows = docker.background(&["-v", &slave], wait)?;
    let stays = docker.background(&["-v", &private], wait)?;
    let shared = format!("{}:/m:rshared", folder.display());
    let sends = docker.background(
        &[&MAY_MOUNT[..], &["-v", &shared]].concat(),
        "mkdir /m/up && mount -t tmpfs inside /m/up && echo ready; sleep 600",
    )?;
    for container in [&follows, &stays, &sends] {
        container.says("ready")?;
    }
    let up = folder.join("up");
    let outside = fs::read_to_string("/proc/self/mountinfo")?;
    mount(Some("tmpfs"), &inner, Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
    fs::write(inner.join("late"), "")?;
    for container in [&follows, &stays] {
        container.exec(&[], "touch /go")?;
        same("exit code", &container.wait()?, &0)?;
    }
    let (seen, unseen) = (follows.logs()?.stdout, stays.logs()?.stdout);
    umount2(&inner, MntFlags::MNT_DETACH)?;
    umount2(&up, MntFlags::MNT_DETACH).ok();
    contains("rslave sees a later mount", &seen, "late")?;
    lacks("rprivate does not", &unseen, "late")?;
    contains("rshared sends one out", &outside, &format!(" {} ", up.display()))
}

fn bind_keeps_flags(docker: &Docker) -> Verdict {
    let folder = docker.folder("flags")?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("tmpfs"), &folder, Some("tmpfs"), flags, Some("mode=755"))?;
    let option = format!("{}:/m:ro", folder.display());
    let seen = docker.sh(&["-v", &option], "grep ' /m ' /proc/mounts");
    umount2(&folder, MntFlags::MNT_DETACH)?;
    // Read-only is added, what the source had is not lost.
    let seen = seen?;
    if docker.sandbox.is_runc() && seen.contains("tmpfs ro,relatime") {
        return Err(Stop::Skip("runc 1.1 drops the source's flags when it remounts".into()));
    }
    contains("flags", &seen, "ro,nosuid,nodev,noexec")
}

fn mount_syntax(docker: &Docker) -> Verdict {
    let folder = docker.folder("mount")?;
    fs::write(folder.join("f"), "bound")?;
    let bind = format!("type=bind,source={},target=/b,readonly", folder.display());
    let name = unique("volume");
    let volume = format!("type=volume,source={name},target=/v");
    let tmpfs = "type=tmpfs,target=/t,tmpfs-size=3m,tmpfs-mode=1770";
    let options = ["--mount", &bind, "--mount", &volume, "--mount", tmpfs];
    let script = "cat /b/f; touch /b/x 2>&1 | grep -o Read-only; touch /v/x && ls /v; \
                  df -k /t | tail -1 | awk '{print $2}'; stat -c %a /t";
    let seen = docker.sh(&options, script);
    docker.ok(&["volume", "rm", &name])?;
    same("mounts", &seen?, "boundRead-only\nx\n3072\n1770")
}

fn volume(docker: &Docker) -> Verdict {
    let name = unique("volume");
    let option = format!("{name}:/var/data");
    // A new volume takes the image's content at its target.
    let first = docker.sh(&["-v", &option], "cat /var/data/seed; echo kept > /var/data/new");
    let second = docker.sh(&["-v", &format!("{name}:/elsewhere")], "cat /elsewhere/new");
    let empty = docker.sh(&["-v", "/var/data", "--mount", "type=volume,target=/w"], "ls -A /w");
    docker.ok(&["volume", "rm", &name])?;
    same("copied up", &first?, "from the image")?;
    same("kept", &second?, "kept")?;
    same("anonymous", &empty?, "")
}

fn volume_shared(docker: &Docker) -> Verdict {
    let name = unique("volume");
    let option = format!("{name}:/s");
    let script =
        "until [ -e /s/question ]; do sleep 0.05; done; echo answer > /s/answer; sleep 600";
    let answers = docker.background(&["-v", &option], script)?;
    let asks = "echo > /s/question; until [ -s /s/answer ]; do sleep 0.05; done; cat /s/answer";
    let seen = docker.sh(&["-v", &option], asks);
    drop(answers);
    docker.ok(&["volume", "rm", &name])?;
    same("through the volume", &seen?, "answer")
}

fn volumes_from(docker: &Docker) -> Verdict {
    let first =
        docker.background(&["-v", "/shared"], "echo x > /shared/f; echo ready; sleep 600")?;
    first.says("ready")?;
    let option = format!("{}:ro", first.name);
    let seen =
        docker.run(&["--volumes-from", &option], &["sh", "-c", "cat /shared/f; touch /shared/g"]);
    let seen = seen.code(1)?;
    same("content", &seen.stdout, "x\n")?;
    contains("read-only", &seen.stderr, "Read-only")
}

fn generated_files(docker: &Docker) -> Verdict {
    let options = [
        "--network",
        "bridge",
        "--add-host",
        "friend:10.1.2.3",
        "--dns",
        "192.0.2.1",
        "--hostname",
        "me",
    ];
    let seen = docker.sh(&options, "cat /etc/hosts /etc/resolv.conf /etc/hostname")?;
    for wanted in ["10.1.2.3\tfriend", "nameserver 192.0.2.1", "\nme"] {
        contains("files", &seen, wanted)?;
    }
    let folder = docker.folder("mode")?;
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o750))?;
    let option = format!("{}:/m", folder.display());
    same("mode of a bind", &docker.sh(&["-v", &option], "stat -c %a /m")?, "750")
}
