//! What is fuzzed of the shim; see `corten::fuzz`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "to panic is how a target tells")]

use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::{api, ttrpc::proto};
use protobuf::Message;

use crate::bootstrap::dialect::Request;
use crate::cli::{Args, Environment};
use crate::exits::Exit;
use crate::io::uri;
use crate::mounts::{Mount, options::Wanted, overlay, unmount};
use crate::options::{self, Options};
use crate::service::{self, create};
use crate::transport::Call;
use crate::transport::call::parse_reply;
use crate::transport::frame::{self, Decoder, HEADER, Incoming};
use crate::worker::{Said, Task};

#[path = "../../fuzz/shared.rs"]
mod shared;

use shared::{Target, json_is_stable};

/// All of this crate.
pub const TARGETS: &[Target] = &[
    ("frames", frames),
    ("calls", calls),
    ("requests", requests),
    ("worker", worker),
    ("shim_options", shim_options),
    ("bootstrap", bootstrap),
    ("uris", uris),
    ("exits", exits),
    ("rootfs_mounts", rootfs_mounts),
    ("host_mountinfo", host_mountinfo),
];

fn decode(bytes: &[u8], piece: usize) -> Vec<Incoming> {
    let mut decoder = Decoder::default();
    let mut frames = Vec::new();
    for mut piece in bytes.chunks(piece) {
        while let Some(frame) = decoder.next(&mut piece) {
            frames.push(frame);
        }
        assert!(piece.is_empty());
    }
    frames
}

/// Frames are the same however their bytes are split, and are the bytes that came.
pub fn frames(data: &[u8]) {
    let frames = decode(data, data.len().max(1));
    for piece in [1, 3, HEADER + 1] {
        assert_eq!(frames, decode(data, piece));
    }
    let mut rest = data;
    for incoming in &frames {
        let Incoming::Frame(header, payload) = incoming else { return };
        let mut bytes = frame::encode(header.stream, header.kind, |out| out.extend(payload));
        bytes[HEADER - 1] = header.flags;
        rest = rest.strip_prefix(bytes.as_slice()).unwrap();
    }
}

/// A call is what the generated code reads, and what is written is read again.
pub fn calls(data: &[u8]) {
    // The other way round is not so: it takes a pair that ends too early, and 10 MB for it.
    if let Ok(mut call) = Call::parse(7, data) {
        let theirs = proto::Request::parse_from_bytes(data);
        let theirs = theirs.unwrap();
        assert_eq!((&call.service, &call.method), (&theirs.service, &theirs.method));
        assert_eq!(call.payload, theirs.payload);
        assert_eq!(call.timeout.is_some(), theirs.timeout_nano != 0);
        for (ours, theirs) in call.metadata.iter().zip(&theirs.metadata) {
            assert_eq!((&ours.0, &ours.1), (&theirs.key, &theirs.value));
        }
        // A deadline that is past has no number of its own.
        call.timeout = call.timeout.filter(|timeout| !timeout.is_zero());
        let frame = call.encode();
        assert_eq!(Call::parse(7, &frame[HEADER..]).unwrap(), call);
        let theirs = proto::Request::parse_from_bytes(&frame[HEADER..]).unwrap();
        assert_eq!(call.payload, theirs.payload);
    }
    if let Ok(payload) = parse_reply(data) {
        let frame = crate::transport::call::encode_reply(7, &Ok(payload.clone()));
        assert_eq!(parse_reply(&frame[HEADER..]), Ok(payload));
    }
}

/// The messages of the task service: what a request becomes does not depend on the field's order
/// or on fields that we do not know, and what is accepted can be handed to a worker.
pub fn requests(data: &[u8]) {
    let Some((method, message)) = data.split_first() else { return };
    match method % 9 {
        0 => create_task(message),
        1 => same::<api::ExecProcessRequest>(message),
        2 => same::<api::KillRequest>(message),
        3 => same::<api::UpdateTaskRequest>(message),
        4 => same::<api::DeleteRequest>(message),
        5 => same::<api::ResizePtyRequest>(message),
        6 => same::<api::CloseIORequest>(message),
        7 => same::<api::CheckpointTaskRequest>(message),
        _ => same::<api::ShutdownRequest>(message),
    }
}

/// Whatever a create asks for goes to the worker as it came.
fn create_task(message: &[u8]) {
    same::<api::CreateTaskRequest>(message);
    let Ok(request) = service::parse::<api::CreateTaskRequest>(message) else { return };
    if create::check(&request).is_err() {
        return;
    }
    let event = create::event(&request);
    assert_eq!(event.rootfs.len(), request.rootfs.len());
    let mounts: Vec<Mount> = request.rootfs.iter().map(Mount::from).collect();
    let json = serde_json::to_vec(&mounts).unwrap();
    assert_eq!(serde_json::from_slice::<Vec<Mount>>(&json).unwrap(), mounts);
}

fn same<M: Message + PartialEq>(bytes: &[u8]) {
    if let Ok(message) = service::parse::<M>(bytes) {
        let written = message.write_to_bytes().unwrap();
        assert!(M::parse_from_bytes(&written).unwrap() == message);
    }
}

/// What a worker says and is asked is the same when it is written and read again.
pub fn worker(data: &[u8]) {
    if let Some(task) = json_is_stable::<Task>(data) {
        assert!(!task.name().is_empty());
    }
    json_is_stable::<Said>(data);
}

/// Options, in each envelope, are the same when they are kept in the bundle and read again.
pub fn shim_options(data: &[u8]) {
    let Some((kind, value)) = data.split_first() else { return };
    let type_url = options::TYPES[usize::from(*kind) % options::TYPES.len()].to_owned();
    let any = Any { type_url, value: value.to_vec(), ..Any::default() };
    assert!(Options::is_type_of(&any));
    keep(Options::from_any(Some(&any)));
    keep(Options::from_toml(&String::from_utf8_lossy(value)).map_err(corten::Error::Usage));
}

fn keep(options: Result<Options, corten::Error>) {
    let Ok(options) = options else { return };
    let json = serde_json::to_vec(&options).unwrap();
    assert_eq!(Options::from_json(&json).as_ref(), Ok(&options));
    assert!(options.runtime_root("ns").ends_with("ns"));
}

/// `start` answers in the dialect of the question, for the container of the command line.
pub fn bootstrap(data: &[u8]) {
    let words = ["-namespace", "n", "-id", "i", "-address", "/flag.sock", "start"];
    let args = Args::parse(words.into_iter().map(Into::into), |_| None).unwrap();
    for max_version in [None, Some(2), Some(3)] {
        let env = Environment { max_version, ..Environment::default() };
        let Ok(request) = Request::read(data, &args, &env) else { continue };
        assert_eq!((request.id.as_str(), request.namespace.as_str()), ("i", "n"));
        let answer = request.dialect.answer("unix:///run/s").unwrap();
        assert!(answer.windows(13).any(|part| part == b"unix:///run/s"));
        assert!(!request.grpc_address.is_empty());
    }
}

/// A path is absolute and without NUL; a logger's arguments come in pairs, no key twice.
pub fn uris(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match uri::Target::parse(text) {
        Ok(uri::Target::Paths) => match uri::path(text) {
            Ok(path) => assert!(path == text || path.starts_with('/')),
            Err(_) => assert!(text.to_ascii_lowercase().starts_with("fifo:")),
        },
        Ok(uri::Target::File(path)) => assert!(path.starts_with('/') && !path.contains('\0')),
        Ok(uri::Target::Binary { path, args, .. }) => {
            assert!(path.starts_with('/') && !path.contains('\0'));
            let keys: Vec<&String> = args.iter().step_by(2).collect();
            assert_eq!(args.len(), keys.len() * 2);
            let unique: std::collections::HashSet<&&String> = keys.iter().collect();
            assert_eq!(unique.len(), keys.len());
        }
        Err(error) => assert!(!error.to_string().contains('\n'), "{error}"),
    }
}

/// A record of an exit is the same when it is written and read again.
pub fn exits(data: &[u8]) {
    if let Ok(exit) = serde_json::from_slice::<Exit>(data) {
        let json = serde_json::to_vec(&exit).unwrap();
        assert_eq!(serde_json::from_slice::<Exit>(&json).unwrap(), exit);
    }
}

/// The words of a root file system's mount: options, id maps, overlay's layers. What is shortened
/// for a page names the same layers.
pub fn rootfs_mounts(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let words: Vec<String> = text.split('\n').map(str::to_owned).collect();
    if let Ok(wanted) = Wanted::parse(&words) {
        assert!(wanted.options.idmap.is_none() && !wanted.options.copy_up);
        assert!(wanted.options.data.iter().all(|word| words.contains(word)));
    }
    json_is_stable::<Mount>(data);
    assert_eq!(overlay::split(&text).join(":"), text);
    assert_eq!(overlay::words(&text).join(","), text);
    let mut data = text.clone().into_owned();
    let page = text.len() * 3 / 4;
    if let Ok(dir) = overlay::fit(&mut data, page) {
        assert!(data.len() < page);
        let layers = |data: &str| {
            let words = overlay::words(data);
            let lower = words.iter().rev().find_map(|word| word.strip_prefix("lowerdir="));
            let names = overlay::split(lower.unwrap_or_default());
            names.iter().map(|name| overlay::unescape(name)).collect::<Vec<_>>()
        };
        if let Some(dir) = dir {
            let whole = layers(&data).into_iter().map(|name| match name.as_os_str().len() {
                0 => name,
                _ => dir.join(name),
            });
            assert_eq!(whole.collect::<Vec<_>>(), layers(&text));
        }
    }
}

/// Mounts go in an order in which none stands on one that is gone, each one once.
pub fn host_mountinfo(data: &[u8]) {
    let top = std::path::Path::new("/r");
    let all = unmount::in_order(data, top, |_| true);
    assert!(all.iter().all(|point| point.starts_with(top)));
    assert!(all.len() <= data.split(|byte| *byte == b'\n').count());
    assert_eq!(all, unmount::in_order(data, top, |ids| !ids.is_empty()));
    assert!(unmount::in_order(data, top, |_| false).is_empty());
}

#[cfg(test)]
#[path = "../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use super::{TARGETS, replay};

    #[test]
    fn the_corpus_and_its_mutations_keep_the_invariants() {
        replay::all(TARGETS);
    }
}
