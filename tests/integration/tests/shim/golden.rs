//! The protocol in bytes: what goes over the socket, written down by hand from the specification of
//! ttrpc and protobuf, so that no library of ours or of others can be wrong in the same way twice.

use std::io::Read;

use corten_integration::managers::{Stop, Verdict, check, same};
use corten_integration::shim::raw::Raw;
use corten_integration::shim::task::{V2, V3};
use corten_integration::shim::{Case, World};
use corten_integration::shim_tests;

pub(crate) const TESTS: &[Case] =
    shim_tests![connect_in_bytes, empty_answers_in_bytes, errors_in_bytes, wait_in_bytes];

/// The services that the shim under test has.
fn services(world: &World) -> &'static [&'static str] {
    match world.flavour {
        corten_integration::shim::Flavour::Corten => &[V3, V2],
        corten_integration::shim::Flavour::Reference => &[V2],
    }
}

/// Field `number` with bytes.
fn bytes(number: u8, value: &[u8]) -> Vec<u8> {
    let mut all = vec![number << 3 | 2, u8::try_from(value.len()).expect("a short value")];
    all.extend_from_slice(value);
    all
}

/// Field `number` with a number.
fn varint(number: u8, mut value: u64) -> Vec<u8> {
    let mut all = vec![number << 3];
    while value > 127 {
        all.push(value as u8 & 127 | 128);
        value >>= 7;
    }
    all.push(value as u8);
    all
}

/// Request{service=1, method=2, payload=3} in a frame: length, stream, type 1, no flags.
fn request(service: &str, method: &str, payload: &[u8], stream: u8) -> Vec<u8> {
    let mut data = bytes(1, service.as_bytes());
    data.extend(bytes(2, method.as_bytes()));
    if !payload.is_empty() {
        data.extend(bytes(3, payload));
    }
    let mut all = vec![0, 0, 0, u8::try_from(data.len()).expect("a short request")];
    all.extend_from_slice(&[0, 0, 0, stream, 1, 0]);
    all.extend(data);
    all
}

/// The next frame of an answer: its header must be a response's.
fn response(raw: &mut Raw, stream: u8) -> Result<Vec<u8>, Stop> {
    let mut header = [0; 10];
    raw.stream.read_exact(&mut header)?;
    same("header", &header[..3], &[0, 0, 0][..])?;
    same("stream, type, flags", &header[4..], &[0, 0, 0, stream, 2, 0][..])?;
    let mut data = vec![0; header[3].into()];
    raw.stream.read_exact(&mut data)?;
    Ok(data)
}

/// An empty status may be written or left out.
fn same_answer(what: &str, seen: &[u8], wanted: &[u8]) -> Verdict {
    let seen = seen.strip_prefix(&[0x0a, 0]).unwrap_or(seen);
    same(what, seen, wanted)
}

/// Connect: `{shim_pid=1, task_pid=2}`; a zero is not written.
fn connect_in_bytes(world: &World) -> Verdict {
    let task = world.running("sleep 1000")?;
    let mut raw = Raw::connect(&task.shim.reply.address)?;
    for (number, service) in services(world).iter().enumerate() {
        let stream = number as u8 * 4 + 1;
        raw.send(&request(service, "Connect", &bytes(1, task.id.as_bytes()), stream))?;
        let mut answer = varint(1, task.shim.pid.unsigned_abs().into());
        answer.extend(varint(2, task.pid.into()));
        same_answer(service, &response(&mut raw, stream)?, &bytes(2, &answer))?;
    }
    Ok(())
}

/// Kill with signal 0 is answered with an empty message: at most an empty status.
fn empty_answers_in_bytes(world: &World) -> Verdict {
    let task = world.running("sleep 1000")?;
    let mut raw = Raw::connect(&task.shim.reply.address)?;
    for (number, service) in services(world).iter().enumerate() {
        let stream = number as u8 * 2 + 1;
        let mut payload = bytes(1, task.id.as_bytes());
        payload.extend(varint(3, 18));
        raw.send(&request(service, "Kill", &payload, stream))?;
        same_answer(service, &response(&mut raw, stream)?, b"")?;
    }
    Ok(())
}

/// An error: `{status=1: {code=1: 5 (NotFound), message=2}}` and no payload.
fn errors_in_bytes(world: &World) -> Verdict {
    let task = world.running("sleep 1000")?;
    let mut raw = Raw::connect(&task.shim.reply.address)?;
    for (number, service) in services(world).iter().enumerate() {
        let stream = number as u8 * 2 + 1;
        raw.send(&request(service, "State", &bytes(1, b"nobody"), stream))?;
        let answer = response(&mut raw, stream)?;
        check(answer.len() > 6 && answer[0] == 0x0a, format!("a status: {answer:?}"))?;
        same("its length", &usize::from(answer[1]), &(answer.len() - 2))?;
        same("its code and message", &answer[2..5], &[8, 5, 0x12][..])?;
        same("the message", &usize::from(answer[5]), &(answer.len() - 6))?;
    }
    Ok(())
}

/// Wait: `{exit_status=1, exited_at=2: {seconds=1, nanos=2}}`.
fn wait_in_bytes(world: &World) -> Verdict {
    let task = world.running("exit 200")?;
    let time = task.wait()?.exited_at.unwrap_or_default();
    let mut raw = Raw::connect(&task.shim.reply.address)?;
    for (number, service) in services(world).iter().enumerate() {
        let stream = number as u8 * 2 + 1;
        raw.send(&request(service, "Wait", &bytes(1, task.id.as_bytes()), stream))?;
        let mut stamp = varint(1, time.seconds.unsigned_abs());
        stamp.extend(varint(2, time.nanos.unsigned_abs().into()));
        let mut answer = vec![8, 0xc8, 1];
        answer.extend(bytes(2, &stamp));
        same_answer(service, &response(&mut raw, stream)?, &bytes(2, &answer))?;
    }
    Ok(())
}
