//! What a peer's bytes may cost the shim: memory in proportion to them, and time too. See
//! `runtime/tests/bounds.rs`.

#[path = "../../runtime/tests/cost/mod.rs"]
mod cost;

use containerd_shim_corten::options::Options;
use containerd_shim_corten::transport::Call;
use containerd_shim_corten::transport::frame::{Decoder, MAX_PAYLOAD, REQUEST, encode};
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use cost::measure;

#[test]
fn what_a_peer_sends_costs_in_proportion_to_its_size() {
    let call = |bytes: &[u8]| drop(Call::parse(1, bytes));
    // Empty pairs of metadata; fields that nobody knows, of one number and of many.
    measure("metadata", &b"\x2a\x00".repeat(MAX_PAYLOAD / 2)[..], 2, call);
    measure("unknown fields", &b"\x7a\x00".repeat(MAX_PAYLOAD / 2)[..], 2, call);
    let many: Vec<u8> =
        (16..2000_u32).flat_map(|n| [n as u8 & 0x78 | 0x80, (n >> 4) as u8 & 0x7f, 0]).collect();
    measure("unknown numbers", &many.repeat(100)[..], 2, call);
    let mut frame = encode(1, REQUEST, |out| out.resize(MAX_PAYLOAD, 0));
    measure("a frame", &frame[..], 3, |mut bytes| drop(Decoder::default().next(&mut bytes)));
    frame[0] = 0xff;
    frame.truncate(1 << 20);
    measure("a frame that is too long", &frame[..], 1, |mut bytes| {
        drop(Decoder::default().next(&mut bytes));
    });
    let toml: String = (0..20_000).map(|n| format!("k{n} = \"\"\n")).collect();
    measure("options in TOML", toml.as_bytes(), 64, |bytes| {
        let mut value = vec![0x1a];
        let mut length = bytes.len();
        while length > 127 {
            value.push(length as u8 | 0x80);
            length >>= 7;
        }
        value.push(length as u8);
        value.extend_from_slice(bytes);
        let type_url = "runtimeoptions.v1.Options".to_owned();
        Options::from_any(Some(&Any { type_url, value, ..Any::default() })).unwrap();
    });
    let json =
        format!("{{{}\"z\":0}}", (0..20_000).map(|n| format!("\"k{n}\":[],")).collect::<String>());
    measure("options in JSON", json.as_bytes(), 64, |bytes| {
        let type_url = "containerd.runc.v1.Options".to_owned();
        Options::from_any(Some(&Any { type_url, value: bytes.to_vec(), ..Any::default() }))
            .unwrap();
    });
}
