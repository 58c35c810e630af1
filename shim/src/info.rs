//! `-info` and `-v`: what this shim and the runtime in it can do.
//!
//! containerd asks `-info` once per runtime and keeps the answer: for `mountExtensions.idmap`
//! before it makes a container with mapped mounts, for `rro` at a CRI's start, and for the
//! annotation `containerd.io/runtime-allow-mounts`, which we leave out, because the mounts that it
//! would leave to us are better made by containerd. Standard input is empty, or holds options,
//! which are given back as they came.

use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::types::introspection::{RuntimeInfo, RuntimeVersion};
use corten::cmd::{features, version};
use corten::error::{Error, Result};

use crate::bootstrap::{input, print};
use crate::options::Options;

/// The runtime's type in containerd.
pub const NAME: &str = "io.containerd.corten.v2";
/// Go's type URL of `features.Features`, whose value is JSON.
const FEATURES: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";

/// Carries out `-info`.
///
/// # Errors
/// [`Error::Usage`] for options that are not understood.
pub fn run() -> Result<()> {
    let info = info(&input()?)?;
    let bytes = info.write_to_bytes().map_err(|error| Error::Failed(error.to_string()))?;
    print(&bytes)
}

fn info(input: &[u8]) -> Result<RuntimeInfo> {
    let options = Any::parse_from_bytes(input)
        .map_err(|error| Error::Usage(format!("standard input is no Any: {error}")))?;
    Options::from_any(Some(&options))?;
    let features = Any {
        type_url: FEATURES.to_owned(),
        value: features::text()?.into_bytes(),
        ..Any::default()
    };
    let version = RuntimeVersion {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        revision: version::COMMIT.to_owned(),
        ..RuntimeVersion::default()
    };
    Ok(RuntimeInfo {
        name: NAME.to_owned(),
        version: Some(version).into(),
        options: Some(options).filter(|any| !any.type_url.is_empty()).into(),
        features: Some(features).into(),
        ..RuntimeInfo::default()
    })
}

/// Carries out `-v`: the lines of Go's shims.
///
/// # Errors
/// `EPIPE`.
pub fn print_version() -> Result<()> {
    print(version_text().as_bytes())
}

fn version_text() -> String {
    format!(
        "containerd-shim-corten-v2:\n  Version:  {}\n  Revision: {}\n  Spec:     {}\n\n",
        env!("CARGO_PKG_VERSION"),
        version::COMMIT,
        version::SPEC
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The length-delimited fields of a message.
    fn fields(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let mut fields = Vec::new();
        while let [tag, rest @ ..] = bytes {
            assert_eq!(tag & 7, 2, "{tag}");
            let (mut length, mut shift, mut at) = (0_usize, 0, 0);
            loop {
                length |= usize::from(rest[at] & 127) << shift;
                shift += 7;
                at += 1;
                if rest[at - 1] < 128 {
                    break;
                }
            }
            fields.push((tag >> 3, rest[at..at + length].to_vec()));
            bytes = &rest[at + length..];
        }
        fields
    }

    #[test]
    fn the_fields_that_containerd_was_seen_to_get() {
        let bytes = info(&[]).unwrap().write_to_bytes().unwrap();
        let fields_of = fields(&bytes);
        let numbers: Vec<u8> = fields_of.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [1, 2, 4]);
        assert_eq!(fields_of[0].1, NAME.as_bytes());
        assert_eq!(fields(&fields_of[1].1)[0], (1, env!("CARGO_PKG_VERSION").into()));
        let any = fields(&fields_of[2].1);
        assert_eq!(any[0], (1, FEATURES.into()));
        let json: serde_json::Value = serde_json::from_slice(&any[1].1).unwrap();
        assert_eq!(json["linux"]["mountExtensions"]["idmap"]["enabled"], true);
        assert!(json["mountOptions"].as_array().unwrap().iter().any(|name| name == "rro"));
    }

    #[test]
    fn options_are_given_back_and_foreign_ones_refused() {
        let any = |url: &str| Any { type_url: url.to_owned(), ..Any::default() };
        let ours = any("containerd.runc.v1.Options");
        let info_of = info(&ours.write_to_bytes().unwrap()).unwrap();
        assert_eq!(info_of.options.as_ref(), Some(&ours));
        let foreign = any("containerd.kata.v1.Options").write_to_bytes().unwrap();
        assert!(info(&foreign).unwrap_err().to_string().contains("kata"));
    }

    #[test]
    fn the_version_begins_as_gos() {
        let text = version_text();
        assert!(text.starts_with("containerd-shim-corten-v2:\n  Version:  0."), "{text}");
        assert!(text.contains("\n  Revision: "), "{text}");
    }
}
