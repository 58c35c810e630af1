//! `start` in each dialect, and what the process that it leaves looks like.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::types::introspection::RuntimeInfo;
use corten_integration::bundle::Bundle;
use corten_integration::driver::patience;
use corten_integration::managers::{Stop, Verdict, check, contains, same};
use corten_integration::shim::bootstrap::{self, Boot, Dialect};
use corten_integration::shim::{Case, World};
use corten_integration::shim_tests;
use nix::sys::signal::Signal;
use serde_json::Value;

pub(crate) const TESTS: &[Case] = shim_tests![
    plain_answer,
    json_answer,
    protobuf_answer,
    what_containerd_2_3_says,
    the_name_of_the_socket,
    start_again_is_the_same_shim,
    starts_at_once_are_one_shim,
    a_stale_socket_is_replaced,
    a_socket_directory_of_its_own,
    a_socket_directory_that_is_too_long,
    permissions,
    the_process,
    the_log,
    version,
    info,
    mistakes_are_told,
    a_large_environment,
];

/// The answer to containerd 1.6: the address and nothing else.
fn plain_answer(world: &World) -> Verdict {
    let shim = world.shim(&world.bundle("true"))?;
    let text = String::from_utf8(shim.reply.raw.clone())?;
    check(text.trim() == shim.reply.address, format!("only the address: {text:?}"))?;
    check(text.starts_with("unix:///run/containerd/s/"), text)
}

/// The answer to 1.7 to 2.2: JSON with version, address and protocol, or the address.
fn json_answer(world: &World) -> Verdict {
    let shim = world.shim_with(&world.bundle("true"), &Boot::dialect(Dialect::Json))?;
    same("protocol", &shim.reply.protocol.as_str(), &"ttrpc")?;
    check((2..=3).contains(&shim.reply.version), format!("{:?}", shim.reply))
}

/// The answer to 2.3: protobuf, version 3.
fn protobuf_answer(world: &World) -> Verdict {
    world.reference_deviates("1.6 knows no protobuf here")?;
    let shim = world.shim_with(&world.bundle("true"), &Boot::dialect(Dialect::Proto))?;
    let (address, mut wanted) = (shim.reply.address.as_bytes(), vec![8, 3, 0x12]);
    wanted.push(u8::try_from(address.len())?);
    wanted.extend_from_slice(address);
    wanted.extend_from_slice(b"\x1a\x05ttrpc");
    same("bytes", &shim.reply.raw, &wanted)
}

/// The bytes that a containerd 2.3.4 was seen to write, and the answer that it was given.
fn what_containerd_2_3_says(world: &World) -> Verdict {
    world.reference_deviates("1.6 knows no protobuf here")?;
    let mut input = vec![0x0a, 4];
    input.extend_from_slice(b"demo\x12\x07default\x22\x052.3.4");
    input.extend_from_slice(b"\x2a\x25/run/containerd/containerd.sock.ttrpc");
    input.extend_from_slice(b"\x32\x1f/run/containerd/containerd.sock");
    input.extend_from_slice(b"\x3a\x13/usr/bin/containerd\x4a\x11/run/containerd/s");
    let bundle = Bundle::bare(world.dir.join("b/demo"), "demo".to_owned());
    bundle.write();
    let mut command = Command::new(&world.shim);
    command
        .args(["-namespace", "default", "-address", "/run/containerd/containerd.sock"])
        .args(["-publish-binary", "/usr/bin/containerd", "-id", "demo", "start"])
        .current_dir(&bundle.dir)
        .env_clear()
        .env("PATH", "/usr/bin:/bin");
    let executed = bootstrap::run(command, &input, true)?;
    same("exit code", &executed.code, &0)?;
    let raw = executed.stdout;
    check(raw.starts_with(b"\x08\x03\x12\x59unix:///run/containerd/s/"), format!("{raw:?}"))?;
    check(raw.ends_with(b"\x1a\x05ttrpc"), format!("{raw:?}"))?;
    let reply = bootstrap::Reply::parse(raw)?;
    let client = corten_integration::shim::task::TaskClient::connect_to(&reply.address)?;
    client.shutdown("demo", false)?;
    Ok(())
}

/// The socket is named by the daemon's address, the namespace and the id.
fn the_name_of_the_socket(world: &World) -> Verdict {
    let bundle = world.bundle("true");
    let shim = world.shim(&bundle)?;
    let text = format!("{}/{}/{}", world.grpc, world.namespace, bundle.id);
    let mut command = Command::new("sha256sum");
    command.env_clear().env("PATH", "/usr/bin:/bin");
    let sum = bootstrap::run(command, text.as_bytes(), false)?;
    let sum = String::from_utf8(sum.stdout)?;
    let name = shim.socket().file_name().unwrap_or_default().to_string_lossy().into_owned();
    same("name", &name.as_str(), &sum.split(' ').next().unwrap_or_default())
}

/// A second `start` of the same id answers the address of the shim that runs.
fn start_again_is_the_same_shim(world: &World) -> Verdict {
    let bundle = world.bundle("true");
    let shim = world.shim(&bundle)?;
    let again = bootstrap::start(world, &bundle.dir, &bundle.id, &Boot::default())?;
    same("address", &again.address, &shim.reply.address)?;
    same("pid", &(shim.connect()?.connect(&bundle.id)?.shim_pid as i32), &shim.pid)?;
    same("processes", &corten_integration::shim::leaks::processes().len(), &1)
}

/// Several `start`s of one pod at the same time: one shim, one address.
fn starts_at_once_are_one_shim(world: &World) -> Verdict {
    world.reference_deviates("the loser of the race fails")?;
    let bundles: Vec<_> = (0..4)
        .map(|_| {
            let mut bundle = world.bundle("true");
            bundle.set("annotations", serde_json::json!({"io.kubernetes.cri.sandbox-id": "pod"}));
            bundle.write();
            bundle
        })
        .collect();
    let environment = bootstrap::environment(world, &Boot::default());
    let starts: Vec<_> = bundles
        .iter()
        .map(|bundle| {
            let mut command = Command::new(&world.shim);
            command
                .args(["-namespace", &world.namespace, "-address", &world.grpc])
                .args(["-publish-binary", "/bin/true", "-id", &bundle.id, "start"])
                .current_dir(&bundle.dir)
                .env_clear()
                .envs(environment.clone());
            std::thread::spawn(move || {
                bootstrap::run(command, &[], true).map_err(|stop| format!("{stop:?}"))
            })
        })
        .collect();
    let mut addresses = Vec::new();
    for start in starts {
        let executed = start.join().map_err(|_| "a panic")??;
        let text = String::from_utf8_lossy(&executed.stdout).into_owned();
        same("exit code", &executed.code, &0).map_err(|_| text.clone())?;
        addresses.push(text);
    }
    addresses.dedup();
    same("addresses", &addresses.len(), &1)?;
    world.shim(&bundles[0])?;
    same("processes", &corten_integration::shim::leaks::processes().len(), &1)
}

/// The socket of a shim that was killed is no obstacle.
fn a_stale_socket_is_replaced(world: &World) -> Verdict {
    let bundle = world.bundle("exit 3");
    let dead = world.shim(&bundle)?;
    dead.signal(Signal::SIGKILL)?;
    dead.gone()?;
    check(dead.socket().exists(), "the socket is there")?;
    let mut task = world.task(bundle)?;
    check(task.shim.pid != dead.pid, "a new shim")?;
    task.create()?;
    task.start()?;
    same("status", &task.wait()?.exit_status, &3)
}

/// The directory that 2.3 names.
fn a_socket_directory_of_its_own(world: &World) -> Verdict {
    world.reference_deviates("1.6 has one place only")?;
    let sockets = world.dir.join("s").display().to_string();
    let boot = Boot { sockets: sockets.clone(), ..Boot::dialect(Dialect::Proto) };
    let shim = world.shim_with(&world.bundle("true"), &boot)?;
    check(shim.reply.address.starts_with(&format!("unix://{sockets}/")), &shim.reply.address)?;
    shim.end()?;
    same("left", &fs::read_dir(sockets)?.count(), &0)
}

/// A path that is too long for a socket is an error, not half a shim.
fn a_socket_directory_that_is_too_long(world: &World) -> Verdict {
    world.reference_deviates("1.6 has one place only")?;
    let sockets = world.dir.join("s".repeat(60)).display().to_string();
    let boot = Boot { sockets, ..Boot::dialect(Dialect::Proto) };
    let Err(Stop::Fail(words)) = world.shim_with(&world.bundle("true"), &boot) else {
        return check(false, "start should have failed");
    };
    contains("the reason", &words, "s")?;
    check(!words.contains("panicked"), words)
}

/// Only root comes near the socket.
fn permissions(world: &World) -> Verdict {
    let shim = world.shim(&world.bundle("true"))?;
    let mode = |path: &Path| fs::metadata(path).map(|data| data.permissions().mode() & 0o777);
    same("socket", &mode(&shim.socket())?, &0o600)?;
    let others = mode(shim.socket().parent().ok_or("no directory")?)? & 0o066;
    same("directory", &others, &0)
}

/// The shim is a daemon: a process group of its own, in the bundle, nothing inherited.
fn the_process(world: &World) -> Verdict {
    let bundle = world.bundle("true");
    let shim = world.shim(&bundle)?;
    let proc = Path::new("/proc").join(shim.pid.to_string());
    same("directory", &fs::read_link(proc.join("cwd"))?, &bundle.dir)?;
    let pid = nix::unistd::Pid::from_raw(shim.pid);
    same("process group", &nix::unistd::getpgid(Some(pid))?, &pid)?;
    let stat = fs::read_to_string(proc.join("stat"))?;
    same(
        "terminal",
        &stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(4)),
        &Some("0"),
    )?;
    for fd in 0..2 {
        let target = fs::read_link(proc.join(format!("fd/{fd}")))?;
        same("stream", &target.as_path(), &Path::new("/dev/null"))?;
    }
    let score = |path: &Path| -> Result<i32, Stop> {
        Ok(fs::read_to_string(path.join("oom_score_adj"))?.trim().parse()?)
    };
    let own = score(Path::new("/proc/self"))?;
    same("OOM score", &score(&proc)?, &(own + 1).min(1000))?;
    let words = String::from_utf8(fs::read(proc.join("cmdline"))?)?;
    contains("command line", &words.replace('\0', " "), &format!("-id {}", bundle.id))
}

/// What the shim has to say goes to the FIFO `log`; more of it with `-debug`.
fn the_log(world: &World) -> Verdict {
    let boot = Boot { debug: true, ..Boot::default() };
    let mut task = world.task_with(world.bundle("true"), &boot)?;
    task.create()?;
    task.start()?;
    task.wait()?;
    task.delete()?;
    task.shim.end()?;
    let log = String::from_utf8(task.shim.log.end()?)?;
    contains("log", &log, "level=")?;
    for line in log.lines().filter(|line| line.contains("level=")) {
        check(line.starts_with("time=\"") && line.contains(" msg="), line)?;
    }
    Ok(())
}

/// `-v` tells the version and does nothing else.
fn version(world: &World) -> Verdict {
    let executed =
        bootstrap::execute(world, &world.dir, "none", &["-v"], &[], &Boot::default(), false)?;
    same("exit code", &executed.code, &0)?;
    contains("version", &String::from_utf8(executed.stdout)?, "ersion")
}

/// `-info` tells the name, the version and the features, without options and quickly.
fn info(world: &World) -> Verdict {
    world.reference_deviates("1.6 has no -info")?;
    let mut command = Command::new(&world.shim);
    command.arg("-info").env_clear().env("PATH", "/usr/bin:/bin").current_dir("/");
    let executed = bootstrap::run(command, &[], false)?;
    same("exit code", &executed.code, &0)?;
    check(executed.took < patience(Duration::from_secs(2)), "quickly")?;
    let info = RuntimeInfo::parse_from_bytes(&executed.stdout)?;
    check(!info.name.is_empty() && !info.version.version.is_empty(), format!("{info:?}"))?;
    let url = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";
    same("type", &info.features.type_url.as_str(), &url)?;
    let features: Value = serde_json::from_slice(&info.features.value)?;
    check(features["linux"]["namespaces"].is_array(), "features of Linux")?;
    same("standard error", &executed.stderr, b"")
}

/// Wrong command lines: an exit code, a reason, no process.
fn mistakes_are_told(world: &World) -> Verdict {
    world.reference_deviates(
        "it starts a server without an id, and takes unknown actions for none",
    )?;
    let bundle = world.bundle("true");
    bundle.write();
    let fails = |words: &[&str], id: &str| -> Verdict {
        let boot = Boot::default();
        let executed = bootstrap::execute(world, &bundle.dir, id, words, &[], &boot, false)?;
        let words = String::from_utf8_lossy(&executed.stderr).into_owned();
        check(executed.code != 0 && executed.code < 128, format!("{}: {words}", executed.code))?;
        check(!words.trim().is_empty() && !words.contains("panicked"), words)
    };
    fails(&["restart"], &bundle.id)?;
    fails(&["start"], "")?;
    fails(&["-nonsense", "start"], &bundle.id)?;
    fails(&["start"], "../../etc")?;
    fs::remove_file(bundle.dir.join("config.json"))?;
    fails(&["start"], &bundle.id)
}

/// Anything may be in the environment.
fn a_large_environment(world: &World) -> Verdict {
    let mut environment = vec![("SCHED_CORE".to_owned(), String::new())];
    environment.extend((0..500).map(|number| (format!("WORD{number}"), "x".repeat(100))));
    let mut task =
        world.task_with(world.bundle("exit 3"), &Boot { environment, ..Boot::default() })?;
    task.create()?;
    task.start()?;
    same("status", &task.wait()?.exit_status, &3)
}
