//! CRI messages as JSON, the form in which `crictl` takes them, by the schema in `cri.proto`.

use std::path::Path;

use protobuf::reflect::{FileDescriptor, MessageDescriptor};
use protobuf_json_mapping::PrintOptions;
use serde_json::Value;

use crate::managers::Stop;

/// The messages that the suite knows.
#[derive(Debug)]
pub struct Schema(FileDescriptor);

impl Schema {
    /// Reads the schema.
    pub fn load() -> Result<Self, Stop> {
        let dir = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src/managers/cri"));
        let mut parser = protobuf_parse::Parser::new();
        parser.pure().include(dir).input(dir.join("cri.proto"));
        let file = parser.file_descriptor_set()?.file.pop().ok_or("cri.proto is empty")?;
        Ok(Self(FileDescriptor::new_dynamic(file, &[])?))
    }

    fn message(&self, name: &str) -> Result<MessageDescriptor, Stop> {
        let found = self.0.message_by_package_relative_name(name);
        found.ok_or_else(|| Stop::Fail(format!("cri.proto has no message {name}")))
    }

    /// Encodes `fields`; a field that the message doesn't have is an error.
    pub fn encode(&self, message: &str, fields: &Value) -> Result<Vec<u8>, Stop> {
        let descriptor = self.message(message)?;
        let made = protobuf_json_mapping::parse_dyn_from_str(&descriptor, &fields.to_string())
            .map_err(|error| format!("{message} from {fields}: {error}"))?;
        Ok(made.write_to_bytes_dyn()?)
    }

    /// Decodes a message, with its defaults and the names of the schema.
    pub fn decode(&self, message: &str, bytes: &[u8]) -> Result<Value, Stop> {
        let seen = self.message(message)?.parse_from_bytes(bytes)?;
        let options = PrintOptions {
            proto_field_name: true,
            always_output_default_values: true,
            ..PrintOptions::default()
        };
        let text = protobuf_json_mapping::print_to_string_with_options(&*seen, &options)?;
        Ok(serde_json::from_str(&text)?)
    }
}

/// A number of a decoded message: JSON has 64-bit ones as text, wrapped ones as objects.
pub fn number(value: &Value) -> Result<i64, Stop> {
    let value = value.get("value").unwrap_or(value);
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    text.parse().map_err(|_| Stop::Fail(format!("not a number: {value}")))
}
