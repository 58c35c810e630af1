//! The messages that a daemon makes: their `Any`s, mounts and options.

use containerd_shim_protos::api::{ExecProcessRequest, Mount};
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::shim::oci::Options;
use serde_json::{Value, json};

/// The type of an exec's specification.
pub const PROCESS: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";
/// The type of the resources of an update.
pub const RESOURCES: &str = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";
/// The type of runc's options.
pub const RUNC_OPTIONS: &str = "containerd.runc.v1.Options";
/// The type of every other runtime's options.
pub const RUNTIME_OPTIONS: &str = "runtimeoptions.v1.Options";

/// A message with string fields set.
macro_rules! with {
    ($kind:ident { $($field:ident $(: $value:expr)?),* }) => {{
        let mut message = $kind::new();
        $(message.$field = with!(@ $field $($value)?).to_owned();)*
        message
    }};
    (@ $field:ident) => { $field };
    (@ $field:ident $value:expr) => { $value };
}

/// An `Any` that holds JSON, as typeurl makes it of a plain Go type.
pub fn json(type_url: &str, value: &Value) -> Any {
    any(type_url, value.to_string().into_bytes())
}

/// An `Any`.
pub fn any(type_url: &str, value: Vec<u8>) -> Any {
    Any { type_url: type_url.to_owned(), value, ..Any::default() }
}

/// runc's options as a protobuf message.
pub fn runc_options(options: &Options) -> Any {
    any(RUNC_OPTIONS, options.write_to_bytes().expect("a message can be written"))
}

/// `runtimeoptions.v1.Options`: the type, the path of a file or its content.
pub fn runtime_options(kind: &str, path: &str, body: &str) -> Any {
    let mut value = Vec::new();
    for (number, text) in [(1_u8, kind), (2, path), (3, body)] {
        if !text.is_empty() {
            value.push(number << 3 | 2);
            varint(&mut value, text.len());
            value.extend_from_slice(text.as_bytes());
        }
    }
    any(RUNTIME_OPTIONS, value)
}

fn varint(bytes: &mut Vec<u8>, mut number: usize) {
    while number > 127 {
        bytes.push(number as u8 & 127 | 128);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// A mount of the root file system's list.
pub fn mount(kind: &str, source: &str, target: &str, options: &[&str]) -> Mount {
    let mut mount = with!(Mount { source, target });
    mount.type_ = kind.to_owned();
    mount.options = options.iter().map(|&option| option.to_owned()).collect();
    mount
}

/// The specification of a process that runs a shell script.
pub fn process(script: &str, terminal: bool) -> Value {
    json!({
        "terminal": terminal,
        "user": {"uid": 0, "gid": 0},
        "args": ["/bin/sh", "-c", script],
        "env": ["PATH=/bin", "TERM=xterm"],
        "cwd": "/",
    })
}

/// An Exec request without standard streams.
pub fn exec(id: &str, exec_id: &str, process: &Value) -> ExecProcessRequest {
    let mut query = with!(ExecProcessRequest { id, exec_id });
    query.terminal = process["terminal"] == true;
    query.spec = Some(json(PROCESS, process)).into();
    query
}
