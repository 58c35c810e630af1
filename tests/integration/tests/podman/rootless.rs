//! Podman and buildah as an ordinary user: no privilege but subordinate ids.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};

use corten_integration::managers::client::unique;
use corten_integration::managers::podman::Podman;
use corten_integration::managers::sandbox::{SUBID, USER_ID};
use corten_integration::managers::{Verdict, check, contains, image, lacks, same};

pub(crate) const TESTS: &[(&str, crate::Test)] = &[
    ("maps", maps),
    ("process_outside", process_outside),
    ("streams_and_codes", streams_and_codes),
    ("terminal", terminal),
    ("user", user),
    ("keep_id", keep_id),
    ("own_map", own_map),
    ("volumes", volumes),
    ("mounts", mounts),
    ("devices", devices),
    ("capabilities", capabilities),
    ("privileged", privileged),
    ("network_slirp", network_slirp),
    ("network_host", network_host),
    ("exec", exec),
    ("exec_terminal", exec_terminal),
    ("lifecycle", lifecycle),
    ("failures", failures),
    ("pod", pod),
    ("commit", commit),
    ("build", build),
    ("buildah_run", buildah_run),
];

const MAP: &str = "cat /proc/self/uid_map | tr -s ' '";

fn maps(podman: &Podman) -> Verdict {
    let script =
        "cat /proc/self/uid_map /proc/self/gid_map | tr -s ' '; id -u; cat /proc/self/setgroups";
    let map = format!(" 0 {USER_ID} 1\n 1 {SUBID} 65536");
    same("maps", &podman.sh(&[], script)?, &format!("{map}\n{map}\n0\nallow"))
}

fn process_outside(podman: &Podman) -> Verdict {
    for (option, uid) in [("0", USER_ID), ("alice", SUBID + 999)] {
        let container = podman.background(&["--user", option], "sleep 600")?;
        let status = fs::read_to_string(format!("/proc/{}/status", container.pid()?))?;
        contains(option, &status, &format!("Uid:\t{uid}\t{uid}\t{uid}\t{uid}\n"))?;
    }
    Ok(())
}

fn streams_and_codes(podman: &Podman) -> Verdict {
    let ended =
        podman.run(&["-i"], &["sh", "-c", "cat; echo err >&2; exit 3"]).input("in\n").code(3)?;
    same("streams", &(ended.stdout + &ended.stderr), "in\nerr\n")
}

fn terminal(podman: &Podman) -> Verdict {
    let words = ["run", "--rm", "-it", "--network", "none", image::NAME, "sh"];
    let mut terminal = podman.terminal(&words)?;
    terminal.expect("# ")?;
    terminal.send("tty; echo $((6*7))-answer; exit 5\n")?;
    let (code, screen) = terminal.finish()?;
    contains("screen", &screen, "42-answer")?;
    same("exit code", &code, &5)
}

fn user(podman: &Podman) -> Verdict {
    let ids = "grep -E '^(Uid|Gid|Groups)' /proc/self/status | tr -s '\\t\\n ' ' '";
    let seen = podman.sh(&["--user", "alice", "--group-add", "77"], ids)?;
    contains("alice", &seen, "Uid: 1000 1000 1000 1000 Gid: 1000 1000 1000 1000 Groups:")?;
    contains("groups", &seen, "77")
}

fn keep_id(podman: &Podman) -> Verdict {
    let seen = podman
        .sh(&["--userns", "keep-id"], &format!("id -u; {MAP}; grep ^CapEff /proc/self/status"))?;
    contains("own id", &seen, &format!("{USER_ID}\n"))?;
    // The map is seen from Podman's own user namespace, whose root this user is.
    contains("map", &seen, &format!(" {USER_ID} 0 1"))?;
    contains("no capabilities", &seen, "CapEff:\t0000000000000000")
}

fn own_map(podman: &Podman) -> Verdict {
    same("--uidmap", &podman.sh(&["--uidmap", "0:100:2000"], MAP)?, " 0 100 2000")?;
    let seen = podman.sh(&["--userns", "nomap"], "id -u")?;
    same("nomap", &seen, "0")
}

fn volumes(podman: &Podman) -> Verdict {
    let folder = podman.folder("volume")?;
    chown(&folder, Some(USER_ID), Some(USER_ID))?;
    let (writable, fixed) =
        (format!("{}:/m", folder.display()), format!("{}:/r:ro", folder.display()));
    let script = "echo x > /m/root; touch /m/alice; chown alice /m/alice; touch /r/x 2>&1; true";
    let seen = podman.sh(&["-v", &writable, "-v", &fixed], script)?;
    contains("read-only", &seen, "Read-only file system")?;
    same("root's", &fs::metadata(folder.join("root"))?.uid(), &USER_ID)?;
    same("alice's", &fs::metadata(folder.join("alice"))?.uid(), &(SUBID + 999))?;
    let named = podman.sh(&["-v", "stock:/var/data"], "cat /var/data/seed");
    podman.ok(&["volume", "rm", "stock"])?;
    same("copied up", &named?, "from the image")
}

fn mounts(podman: &Podman) -> Verdict {
    let options = ["--read-only", "--tmpfs", "/t:size=1m", "--shm-size", "1m"];
    let script = "touch /t/x /dev/shm/x && touch /x 2>&1; mount; df -k /dev/shm | tail -1 | awk '{print $2}'";
    let seen = podman.sh(&options, script)?;
    for wanted in [
        "Read-only file system",
        "proc on /proc type proc",
        "sysfs on /sys type sysfs (ro",
        "mqueue on /dev/mqueue",
        "devpts on /dev/pts",
        "\n1024",
    ] {
        contains("mounts", &seen, wanted)?;
    }
    let denied = podman.run(&[], &["sh", "-c", "echo 1 > /proc/sys/kernel/panic"]).code(1)?;
    contains("/proc/sys", &denied.stderr, "Read-only file system")
}

fn devices(podman: &Podman) -> Verdict {
    let script = "cd /dev; stat -c '%n %t:%T' null zero full random urandom tty; \
                  echo x > null && head -c 2 zero | wc -c; mknod /tmp/n c 1 3 2>&1";
    let seen = podman.run(&[], &["sh", "-c", script]).run()?.all();
    for wanted in
        ["null 1:3", "zero 1:5", "full 1:7", "tty 5:0", "\n2\n", "Operation not permitted"]
    {
        contains("devices", &seen, wanted)?;
    }
    Ok(())
}

fn capabilities(podman: &Podman) -> Verdict {
    let script = "grep -E '^(CapEff|Seccomp|NoNewPrivs)' /proc/self/status | tr '\\t\\n' '  '";
    contains(
        "default",
        &podman.sh(&[], script)?,
        "CapEff: 00000000a80425fb NoNewPrivs: 0 Seccomp: 2",
    )?;
    let options = ["--cap-drop", "ALL", "--security-opt", "no-new-privileges"];
    contains("none", &podman.sh(&options, script)?, "CapEff: 0000000000000000 NoNewPrivs: 1")
}

fn privileged(podman: &Podman) -> Verdict {
    let script = "mount -t tmpfs t /tmp && echo mounted; hostname other && hostname; \
                  date -s 2000-01-01 2>&1; grep -c ' /proc/sys ' /proc/self/mountinfo; true";
    let seen = podman.sh(&["--privileged"], script)?;
    contains("mount", &seen, "mounted")?;
    contains("hostname", &seen, "other")?;
    contains("clock", &seen, "ermi")?;
    check(seen.ends_with("\n0"), format!("masked: {seen}"))
}

fn network_slirp(podman: &Podman) -> Verdict {
    let script = "ip -o -4 addr show tap0; ip route; ping -c 1 -W 5 127.0.0.1 | grep received";
    let seen = podman.sh(&["--network", "slirp4netns"], script)?;
    contains("address", &seen, "10.0.2.100")?;
    contains("route", &seen, "default via 10.0.2.2")
}

fn network_host(podman: &Podman) -> Verdict {
    // Somebody else's network: /sys cannot be mounted anew and is bound instead.
    let seen =
        podman.sh(&["--network", "host"], "readlink /proc/self/ns/net; ls -d /sys/class/net")?;
    let own = fs::read_link("/proc/self/ns/net")?.display().to_string();
    same("namespace", &seen, &format!("{own}\n/sys/class/net"))
}

fn exec(podman: &Podman) -> Verdict {
    let container = podman.background(&[], "sleep 600")?;
    let ended = container.exec_raw(&["-i"], &["sh", "-c", "cat; exit 3"]).input("in\n").code(3)?;
    same("output", &ended.stdout, "in\n")?;
    let seen = container.exec(&["--user", "alice", "--workdir", "/var/data"], "id -u; pwd")?;
    same("options", &seen, "1000\n/var/data")?;
    let script = "for n in mnt pid net ipc uts user; do \
                  [ $(readlink /proc/1/ns/$n) = $(readlink /proc/self/ns/$n) ] || echo $n; done";
    same("joined", &container.exec(&[], script)?, "")?;
    container.exec_raw(&[], &["no-such-program"]).code(127).map(drop)
}

fn exec_terminal(podman: &Podman) -> Verdict {
    let container = podman.background(&[], "sleep 600")?;
    let words = ["exec", "-it", &container.name, "sh", "-c", "tty; exit 4"];
    let (code, screen) = podman.terminal(&words)?.finish()?;
    contains("screen", &screen, "/dev/pts/")?;
    same("exit code", &code, &4)
}

fn lifecycle(podman: &Podman) -> Verdict {
    let container =
        podman.background(&[], "trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done")?;
    container.says("ready")?;
    contains("top", &container.does("top")?, "sleep")?;
    container.with("stop", &["-t", "30"])?;
    same("stopped", &container.wait()?, &5)?;
    container.does("start")?;
    same("running", &container.inspect("{{.State.Status}}")?, "running")?;
    container.does("kill")?;
    same("killed", &container.wait()?, &137)?;
    container.with("rm", &[])?;
    lacks("ps", &podman.ok(&["ps", "-aq", "--no-trunc"])?, &container.id)
}

fn failures(podman: &Podman) -> Verdict {
    podman.run(&[], &["no-such-program"]).code(127)?;
    podman.run(&[], &["/etc/greeting"]).code(126)?;
    // An id that is not in the map.
    let denied = podman.run(&["--user", "99999"], &["true"]).run()?;
    check(denied.code != 0, "an unmapped user was taken")
}

fn pod(podman: &Podman) -> Verdict {
    let name = unique("pod");
    podman.ok(&["pod", "create", "--name", &name, "--network", "none"])?;
    let test = || -> Verdict {
        let first = podman.background(&["--pod", &name], "echo note > /dev/shm/n; sleep 600")?;
        first.exec(&[], "until [ -s /dev/shm/n ]; do sleep 0.05; done")?;
        let seen = podman.sh(&["--pod", &name], "cat /dev/shm/n; readlink /proc/self/ns/net")?;
        same("shared", &seen, &format!("note\n{}", first.exec(&[], "readlink /proc/self/ns/net")?))
    };
    let seen = test();
    podman.ok(&["pod", "rm", "-f", "-t", "0", &name])?;
    seen
}

fn commit(podman: &Podman) -> Verdict {
    let container = podman.background(&[], "touch /f; chown alice /f; echo ready; sleep 600")?;
    container.says("ready")?;
    podman.ok(&["commit", "-q", &container.name, "committed"])?;
    let seen =
        podman.ok(&["run", "--rm", "--network", "none", "committed", "stat", "-c", "%u", "/f"]);
    podman.ok(&["rmi", "committed"])?;
    same("owner", &seen?, "1000")
}

fn build(podman: &Podman) -> Verdict {
    let folder = podman.folder("build")?;
    let text = "FROM localhost/bb\nRUN id -u > /ids && mkdir /d && chown alice /d\n\
                USER alice\nRUN id -u > /d/id\nCMD cat /ids /d/id\n";
    fs::write(folder.join("Dockerfile"), text)?;
    let tag = unique("built");
    let words = ["build", "--isolation=oci", "--network", "none", "-t", &tag];
    podman.command(&words).arg(&folder).ok()?;
    let seen = podman.ok(&["run", "--rm", "--network", "none", &tag]);
    podman.ok(&["rmi", "-f", &tag])?;
    same("content", &seen?, "0\n1000")
}

fn buildah_run(podman: &Podman) -> Verdict {
    // buildah's own answer to a missing privilege: OCI isolation without a cgroup of its own.
    let name =
        podman.buildah(&["from", "--pull-never", &format!("localhost/{}", image::NAME)]).ok()?;
    let runtime = podman.sandbox.runtime.display().to_string();
    let words = [
        "run",
        "--runtime",
        &runtime,
        "--isolation",
        "rootless",
        "--network",
        "none",
        "--",
        &name,
        "sh",
        "-c",
        "id -u; cat /etc/greeting; exit 7",
    ];
    let seen = podman.buildah(&words).run();
    podman.buildah(&["rm", &name]).ok()?;
    let seen = seen?;
    same("exit code", &seen.code, &7)?;
    same("output", &seen.stdout, "0\nhello from the image\n")
}
