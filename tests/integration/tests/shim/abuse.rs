//! Clients that do not keep to the protocol, too many of them, and the wrong ones (H10, H11).

use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use containerd_shim_protos::api::{ConnectRequest, StateRequest, StateResponse, Status};
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::ttrpc::Code;
use corten_integration::driver::patience;
use corten_integration::managers::{Stop, Verdict, check, eventually, same};
use corten_integration::shim::bootstrap::Boot;
use corten_integration::shim::raw::{self, Raw, frame};
use corten_integration::shim::task::{PATIENCE, V2};
use corten_integration::shim::{Case, Task, World};
use corten_integration::shim_tests;

pub(crate) const TESTS: &[Case] = shim_tests![
    unknown_service_and_method,
    many_requests_on_one_connection,
    one_byte_at_a_time,
    garbage,
    a_frame_that_is_too_large,
    the_largest_frame,
    half_a_header,
    half_a_request,
    half_closed,
    wrong_types_and_streams,
    a_payload_that_is_none,
    an_endless_id,
    five_hundred_idle_clients,
    a_client_that_never_reads,
    another_user,
    few_descriptors,
];

fn state(task: &Task) -> StateRequest {
    StateRequest { id: task.id.clone(), ..Default::default() }
}

/// The usual client is served as if nothing was.
fn unaffected(task: &Task) -> Verdict {
    check(task.shim.is_alive(), "the shim lives")?;
    same("status", &task.status()?, &Status::RUNNING)?;
    same("new client", &task.shim.connect()?.state(&task.id, "")?.pid, &task.pid)
}

/// What does not exist is Unimplemented, by name, and the connection stays.
fn unknown_service_and_method(world: &World) -> Verdict {
    let task = world.running("sleep 1000")?;
    let mut raw = Raw::connect(&task.shim.reply.address)?;
    let all = [
        ("containerd.task.v9.Task", "State"),
        (V2, "Teleport"),
        ("containerd.runtime.sandbox.v1.Sandbox", "CreateSandbox"),
        ("", ""),
    ];
    for (number, (service, method)) in all.into_iter().enumerate() {
        let stream = number as u32 * 2 + 1;
        raw.request(stream, &raw::request(service, method, &state(&task)))?;
        let status = raw.response(stream)?.status.unwrap_or_default();
        same(service, &status.code.enum_value_or_default(), &Code::UNIMPLEMENTED)?;
    }
    raw.request(99, &raw::request(V2, "State", &state(&task)))?;
    same("status", &raw.response(99)?.status.code.enum_value_or_default(), &Code::OK)?;
    unaffected(&task)
}

/// Requests need not wait for each other; each answer has its request's stream.
fn many_requests_on_one_connection(world: &World) -> Verdict {
    let task = world.running("sleep 1000")?;
    let mut raw = Raw::connect(&task.shim.reply.address)?;
    let query = raw::request(V2, "State", &state(&task));
    let mut bytes = Vec::new();
    for number in 0..200 {
        bytes.extend(frame(number * 2 + 1, raw::REQUEST, 0, &query.write_to_bytes()?));
    }
    raw.send(&bytes)?;
    let mut streams = Vec::new();
    for _ in 0..200 {
        streams.push(raw.frame()?.stream);
    }
    streams.sort_unstable();
    same("streams", &streams, &(0..200).map(|number| number * 2 + 1).collect::<Vec<_>>())
}

/// A slow client is a client.
fn one_byte_at_a_time(world: &World) -> Verdict {
    let task = world.running("sleep 1000")?;
    let mut raw = Raw::connect(&task.shim.reply.address)?;
    let query = raw::request(V2, "State", &state(&task)).write_to_bytes()?;
    for byte in frame(1, raw::REQUEST, 0, &query) {
        raw.send(&[byte])?;
        std::thread::sleep(Duration::from_millis(1));
    }
    let answer = StateResponse::parse_from_bytes(&raw.response(1)?.payload)?;
    same("pid", &answer.pid, &task.pid)?;
    unaffected(&task)
}

/// Bytes that are no frames.
fn garbage(world: &World) -> Verdict {
    world.reference_deviates("connections that broke off stay open")?;
    let task = world.running("sleep 1000")?;
    let before = task.shim.descriptors();
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    for _ in 0..50 {
        let mut raw = Raw::connect(&task.shim.reply.address)?;
        let bytes: Vec<u8> = (0..997)
            .map(|_| {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                seed as u8
            })
            .collect();
        // The shim may close while we send.
        raw.send(&bytes).ok();
    }
    unaffected(&task)?;
    task.shim.settles(&before)
}

/// 4 MiB and one byte: an error or the end of the connection, for this client only.
fn a_frame_that_is_too_large(world: &World) -> Verdict {
    let task = world.running("sleep 1000")?;
    let mut raw = Raw::connect(&task.shim.reply.address)?;
    let bytes = frame(1, raw::REQUEST, 0, &vec![0; (4 << 20) + 1]);
    let sent = raw.send(&bytes);
    match raw.response(1) {
        Ok(response) => {
            let code = response.status.code.enum_value_or_default();
            same("code", &code, &Code::RESOURCE_EXHAUSTED)?;
            sent?;
            raw.request(3, &raw::request(V2, "State", &state(&task)))?;
            same("then", &raw.response(3)?.status.code.enum_value_or_default(), &Code::OK)?;
        }
        Err(_) => check(raw.closes(PATIENCE)?, "the connection is closed")?,
    }
    unaffected(&task)
}

/// 4 MiB exactly are allowed.
fn the_largest_frame(world: &World) -> Verdict {
    let task = world.running("sleep 1000")?;
    let mut raw = Raw::connect(&task.shim.reply.address)?;
    let mut query = raw::request(V2, "State", &state(&task));
    let mut entry = containerd_shim_protos::ttrpc::proto::KeyValue::new();
    entry.key = "padding".to_owned();
    query.metadata.push(entry);
    let rest = (4 << 20) - query.write_to_bytes()?.len();
    // The lengths of the value and of the entry take four bytes each, not one.
    query.metadata[0].value = "x".repeat(rest - 8);
    let mut bytes = query.write_to_bytes()?;
    while bytes.len() < 4 << 20 {
        query.metadata[0].value.push('x');
        bytes = query.write_to_bytes()?;
    }
    same("length", &bytes.len(), &(4 << 20))?;
    raw.send(&frame(1, raw::REQUEST, 0, &bytes))?;
    same("code", &raw.response(1)?.status.code.enum_value_or_default(), &Code::OK)?;
    unaffected(&task)
}

/// A header that never ends holds nobody, and goes with its client.
fn half_a_header(world: &World) -> Verdict {
    let task = world.running("sleep 1000")?;
    let before = task.shim.descriptors();
    let mut clients = Vec::new();
    for length in 0..10 {
        let mut raw = Raw::connect(&task.shim.reply.address)?;
        raw.send(&frame(1, raw::REQUEST, 0, b"")[..length])?;
        clients.push(raw);
    }
    unaffected(&task)?;
    drop(clients);
    task.shim.settles(&before)
}

/// The same with a request; the announced length is not taken on trust.
fn half_a_request(world: &World) -> Verdict {
    world.reference_deviates("connections that broke off stay open")?;
    let task = world.running("sleep 1000")?;
    let before = task.shim.descriptors();
    let resident = resident(&task)?;
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut raw = Raw::connect(&task.shim.reply.address)?;
        raw.send(&frame(1, raw::REQUEST, 0, &vec![0; 4 << 20])[..20])?;
        clients.push(raw);
    }
    unaffected(&task)?;
    if world.flavour == corten_integration::shim::Flavour::Corten {
        let more = self::resident(&task)?.saturating_sub(resident);
        check(more < 1024, format!("{more} KiB for 20 promises"))?;
    }
    drop(clients);
    task.shim.settles(&before)
}

/// The shim's resident memory in KiB.
fn resident(task: &Task) -> Result<u64, Stop> {
    let text = std::fs::read_to_string(format!("/proc/{}/status", task.shim.pid))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// A client that has nothing more to say still gets its answer.
fn half_closed(world: &World) -> Verdict {
    world.reference_deviates("it drops the answers of a connection whose input has ended")?;
    let task = world.running("sleep 1000")?;
    let mut raw = Raw::connect(&task.shim.reply.address)?;
    raw.request(1, &raw::request(V2, "State", &state(&task)))?;
    raw.stream.shutdown(Shutdown::Write)?;
    same("code", &raw.response(1)?.status.code.enum_value_or_default(), &Code::OK)?;
    check(raw.closes(PATIENCE)?, "then it is closed")?;
    unaffected(&task)
}

/// Frames of types that a client does not send, streams that are even, zero or in use.
fn wrong_types_and_streams(world: &World) -> Verdict {
    let task = world.running("sleep 1000")?;
    let query = raw::request(V2, "State", &state(&task)).write_to_bytes()?;
    let wait = raw::request(
        V2,
        "Wait",
        &containerd_shim_protos::api::WaitRequest { id: task.id.clone(), ..Default::default() },
    )
    .write_to_bytes()?;
    for (stream, kind, flags) in
        [(1, 0, 0), (1, 2, 0), (1, 3, 0), (1, 77, 0), (0, 1, 0), (2, 1, 0), (1, 1, 0xff)]
    {
        let mut raw = Raw::connect(&task.shim.reply.address)?;
        raw.send(&frame(stream, kind, flags, &query)).ok();
        raw.stream.set_read_timeout(Some(Duration::from_millis(50)))?;
        raw.frame().ok();
    }
    let mut raw = Raw::connect(&task.shim.reply.address)?;
    raw.send(&frame(1, raw::REQUEST, 0, &wait))?;
    raw.send(&frame(1, raw::REQUEST, 0, &wait)).ok();
    unaffected(&task)
}

/// A frame that is no request, a request whose payload is no message.
fn a_payload_that_is_none(world: &World) -> Verdict {
    let task = world.running("sleep 1000")?;
    let mut raw = Raw::connect(&task.shim.reply.address)?;
    let mut query = raw::request(V2, "State", &state(&task));
    query.payload = vec![0xff; 33];
    raw.request(1, &query)?;
    let code = raw.response(1)?.status.code.enum_value_or_default();
    check(matches!(code, Code::INVALID_ARGUMENT | Code::INTERNAL), format!("{code:?}"))?;
    raw.send(&frame(3, raw::REQUEST, 0, &[0xff; 33])).ok();
    raw.stream.set_read_timeout(Some(Duration::from_millis(200)))?;
    raw.frame().ok();
    unaffected(&task)
}

/// An id as long as a frame, and ids that are paths.
fn an_endless_id(world: &World) -> Verdict {
    let task = world.running("sleep 1000")?;
    for id in
        ["x".repeat(1 << 20), "../../etc/passwd".to_owned(), "a/b".to_owned(), "\0".to_owned()]
    {
        let answer = task.client.state(&id, "");
        check(answer.is_err_and(|refusal| refusal.code == Some(Code::NOT_FOUND)), "NotFound")?;
        let answer = task.client.state(&task.id, &id);
        check(answer.is_err_and(|refusal| refusal.code == Some(Code::NOT_FOUND)), "NotFound")?;
    }
    unaffected(&task)
}

/// 500 clients that say nothing cost nothing, and leave nothing.
fn five_hundred_idle_clients(world: &World) -> Verdict {
    let task = world.running("sleep 1000")?;
    let before = task.shim.descriptors();
    let path = task.shim.socket();
    let clients: Vec<_> = (0..500).map(|_| UnixStream::connect(&path)).collect::<Result<_, _>>()?;
    let begun = Instant::now();
    unaffected(&task)?;
    check(begun.elapsed() < patience(Duration::from_secs(2)), format!("{:?}", begun.elapsed()))?;
    drop(clients);
    task.shim.settles(&before)
}

/// A client that asks and never reads is held back; the shim's memory is not its mailbox.
fn a_client_that_never_reads(world: &World) -> Verdict {
    let task = world.running("sleep 1000")?;
    let before = resident(&task)?;
    let raw = Raw::connect(&task.shim.reply.address)?;
    raw.stream.set_nonblocking(true)?;
    let query = raw::request(V2, "State", &state(&task)).write_to_bytes()?;
    let bytes: Vec<u8> =
        (0..50_000).flat_map(|number| frame(number * 2 + 1, raw::REQUEST, 0, &query)).collect();
    let (mut sent, begun) = (0, Instant::now());
    while sent < bytes.len() && begun.elapsed() < Duration::from_secs(1) {
        match std::io::Write::write(&mut &raw.stream, &bytes[sent..]) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(_) => break,
        }
    }
    unaffected(&task)?;
    if world.flavour == corten_integration::shim::Flavour::Corten {
        let more = resident(&task)?.saturating_sub(before);
        check(more < 2048, format!("{more} KiB for answers that nobody reads, {sent} sent"))?;
    }
    drop(raw);
    unaffected(&task)
}

/// A process of another user is refused even where the path lets it in.
fn another_user(world: &World) -> Verdict {
    let task = world.running("sleep 1000")?;
    let path = task.shim.socket();
    let open = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
    };
    let dir = path.parent().ok_or("no directory")?;
    let modes = [
        (dir.parent().ok_or("no parent")?, 0o755, 0o711),
        (dir, 0o755, 0o711),
        (path.as_path(), 0o777, 0o600),
    ];
    modes.iter().try_for_each(|(path, mode, _)| open(path, *mode))?;
    // The kernel remembers who connected: this thread, for the length of one call.
    nix::unistd::seteuid(nix::unistd::Uid::from_raw(65534))?;
    let stream = UnixStream::connect(&path);
    nix::unistd::seteuid(nix::unistd::Uid::from_raw(0))?;
    modes.iter().try_for_each(|(path, _, mode)| open(path, *mode))?;
    let mut raw = Raw { stream: stream? };
    raw.stream.set_read_timeout(Some(PATIENCE))?;
    let query = ConnectRequest { id: task.id.clone(), ..Default::default() };
    raw.request(1, &raw::request(V2, "Connect", &query)).ok();
    check(raw.closes(PATIENCE)?, "the connection is closed without an answer")?;
    unaffected(&task)
}

/// Not enough descriptors: what needs one fails, nothing spins, and when they are back all works.
fn few_descriptors(world: &World) -> Verdict {
    let boot = Boot { files: Some(64), ..Boot::default() };
    let mut bundle = world.bundle("sleep 1000");
    bundle.unset("process.rlimits");
    let mut task = world.task_with(bundle, &boot)?;
    task.create()?;
    task.start()?;
    let path = task.shim.socket();
    let clients: Vec<_> = (0..100).map(|_| UnixStream::connect(&path)).collect::<Result<_, _>>()?;
    task.shim.rests(Duration::from_secs(1))?;
    // The old connection works; what needs descriptors may fail with an answer.
    same("status", &task.status()?, &Status::RUNNING)?;
    if let Err(Stop::Fail(words)) = task.exec("e", "true") {
        check(!words.contains("no answer"), words)?;
        task.client.delete(&task.id, "e").ok();
    }
    drop(clients);
    eventually("it recovers", PATIENCE, || Ok(task.shell(world, "echo fine").is_ok()))
}
