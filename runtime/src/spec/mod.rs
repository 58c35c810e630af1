//! `config.json`: read, understood, validated. What comes out has no mistake that a later stage
//! could only find half-way.
//!
//! A config is parsed straight into its types; that is the fast path, and what managers write takes
//! it. When the types refuse it, the text is parsed again as a tree, [`lenient`] forgives what the
//! spec or Go's parser forgives, and what is still wrong is told by its JSON path. A key given
//! twice counts with its last value, unknown keys are ignored.
//!
//! The file is written by whoever wrote the bundle: its size is bounded, its depth too (serde_json
//! stops at 128), and strings with NUL, which would end early in the kernel, are refused.

mod lenient;
mod place;
pub mod validate;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use oci_spec::runtime::{Hooks, LinuxResources, Process, Spec};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{Doing, Error, Result};
use lenient::Kind;

/// The most bytes of a config that are read.
const SIZE_MAX: u64 = 256 << 20;

/// The most bytes of a config that is parsed as a tree, which may take 30 times its size.
const TREE_MAX: usize = 32 << 20;

/// A config that was read, and the bytes it was read from.
#[derive(Debug)]
pub struct Loaded {
    /// The config, valid on its own.
    pub spec: Spec,
    /// The file as it was: the container's own copy is made from it.
    pub bytes: Vec<u8>,
}

/// Reads and validates the config of a bundle: `config.json` there, or the file `config`.
///
/// # Errors
/// [`Error::Sys`] when the file cannot be read, [`Error::Config`] for what is in it.
pub fn load(bundle: &Path, config: Option<&Path>) -> Result<Loaded> {
    let path = config.map_or_else(|| bundle.join("config.json"), Path::to_path_buf);
    let bytes = read(&path)?;
    let spec = parse_with(&bytes, warn)?;
    validate::spec(&spec)?;
    Ok(Loaded { spec, bytes })
}

/// Parses a config that [`load`] has seen before, so it is neither validated nor warned of again.
///
/// # Errors
/// [`Error::Config`] with the JSON path of the mistake, or its line and column.
pub fn parse(bytes: &[u8]) -> Result<Spec> {
    parse_with(bytes, |_| ())
}

/// The hooks in a config that [`load`] has seen before. `start` and `delete` need no more of it,
/// and the code that understands the rest then stays out of memory.
///
/// # Errors
/// As [`parse`].
pub fn parse_hooks(bytes: &[u8]) -> Result<Option<Hooks>> {
    #[derive(Deserialize)]
    struct Config {
        hooks: Option<Hooks>,
    }
    match serde_json::from_slice::<Config>(bytes) {
        Ok(config) => Ok(config.hooks),
        // Something to forgive, or to tell with its path.
        Err(_) => Ok(parse(bytes)?.hooks().clone()),
    }
}

fn parse_with(bytes: &[u8], lost: Lost) -> Result<Spec> {
    let mut spec: Spec = understand(bytes, Kind::Spec, lost).map_err(Mistake::in_config)?;
    let resources = spec.linux_mut().as_mut().and_then(|linux| linux.resources_mut().as_mut());
    if let Some(resources) = resources {
        forget_absent_pids_limit(resources, bytes, "/linux/resources/pids/limit");
    }
    Ok(spec)
}

/// Reads the process of `exec --process`; `process` validates it.
///
/// # Errors
/// [`Error::Sys`] when the file cannot be read; otherwise the mistake, with the file's name.
pub fn load_process(file: &Path) -> Result<Process> {
    parse_process(&read(file)?, file)
}

/// Parses a process; `from` names the file in errors.
///
/// # Errors
/// The mistake with its JSON path.
pub fn parse_process(bytes: &[u8], from: &Path) -> Result<Process> {
    understand(bytes, Kind::Process, warn).map_err(|mistake| mistake.in_file(from))
}

/// Parses the resources of `update --resources`; `from` names the file in errors.
///
/// # Errors
/// The mistake with its JSON path.
pub fn parse_resources(bytes: &[u8], from: &Path) -> Result<LinuxResources> {
    let mut resources: LinuxResources =
        understand(bytes, Kind::Resources, warn).map_err(|mistake| mistake.in_file(from))?;
    forget_absent_pids_limit(&mut resources, bytes, "/pids/limit");
    Ok(resources)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let file = File::open(path).doing(|| format!("open {}", path.display()))?;
    let size = file.metadata().doing(|| format!("stat {}", path.display()))?.len();
    // One byte more than the file has, so that the read that finds the end needs no growth.
    let mut bytes = Vec::with_capacity(usize::try_from(size.min(SIZE_MAX)).unwrap_or(0) + 1);
    file.take(SIZE_MAX + 1).read_to_end(&mut bytes).doing(|| format!("read {}", path.display()))?;
    if bytes.len() as u64 > SIZE_MAX {
        return Err(Error::Failed(format!("read {}: more than 256 MiB", path.display())));
    }
    Ok(bytes)
}

/// What is wrong with a file, and where in it.
#[derive(Debug)]
struct Mistake {
    path: String,
    why: String,
}

impl Mistake {
    /// In one line, whatever the file has there.
    fn new(path: &str, why: &str) -> Self {
        let plain = |letter: char| match letter.is_control() {
            true => letter.escape_default().to_string(),
            false => letter.to_string(),
        };
        Self { path: path.chars().map(plain).collect(), why: why.chars().map(plain).collect() }
    }

    fn in_config(self) -> Error {
        Error::config(self.path, self.why)
    }

    fn in_file(self, file: &Path) -> Error {
        Error::Failed(format!("{}: {}: {}", file.display(), self.path, self.why))
    }
}

/// What to do with the words about a value that was left out.
type Lost = fn(&str);

fn warn(words: &str) {
    tracing::warn!("{words}");
}

/// Bytes to types: at once, or else by way of a tree.
fn understand<T: DeserializeOwned>(bytes: &[u8], kind: Kind, lost: Lost) -> Result<T, Mistake> {
    match serde_json::from_slice::<T>(bytes) {
        Ok(_) if holds_nul(bytes) => by_tree(bytes, kind, lost),
        Ok(value) => Ok(value),
        Err(error) if bytes.len() > TREE_MAX => Err(misspelt(&error)),
        // A number where an enum belongs is a syntax error to serde_json: the tree tells.
        Err(_) => by_tree(bytes, kind, lost),
    }
}

fn by_tree<T: DeserializeOwned>(bytes: &[u8], kind: Kind, lost: Lost) -> Result<T, Mistake> {
    let mut tree: Value = serde_json::from_slice(bytes).map_err(|error| misspelt(&error))?;
    lenient::forgive(&mut tree, kind, lost);
    let named =
        |path: &str, why: &str| Mistake::new(if path.is_empty() { kind.name() } else { path }, why);
    if let Some(path) = path_of_nul(&tree) {
        return Err(named(&path, "a string contains a NUL character"));
    }
    // As text again, so that only one deserializer is compiled for each type.
    let text = serde_json::to_vec(&tree).map_err(|error| misspelt(&error))?;
    serde_json::from_slice(&text).map_err(|error| {
        let why = misspelt(&error).why;
        // The text is one line, and a column is the number of bytes before it.
        let path = place::path_at(&text, error.column(), why.starts_with("missing field"));
        named(&path, &why)
    })
}

/// serde_json puts the place behind what is wrong; we put it before.
fn misspelt(error: &serde_json::Error) -> Mistake {
    let (line, column) = (error.line(), error.column());
    let text = error.to_string();
    let place = format!(" at line {line} column {column}");
    let why = text.strip_suffix(&place).unwrap_or(&text);
    Mistake::new(&format!("line {line} column {column}"), why)
}

/// Whether NUL may be in a string: it can be written only as this escape.
fn holds_nul(bytes: &[u8]) -> bool {
    // memchr's own search would ask the processor what it can do, first: 70 µs in a virtual
    // machine, where that traps. Most configs have no backslash at all.
    bytes.contains(&b'\\') && bytes.windows(6).any(|six| six == b"\\u0000")
}

/// The JSON path of the first string or key that contains NUL.
fn path_of_nul(tree: &Value) -> Option<String> {
    let mut left = vec![(String::new(), tree)];
    while let Some((path, value)) = left.pop() {
        match value {
            Value::String(text) if text.contains('\0') => return Some(path),
            Value::Array(values) => left.extend(
                values.iter().enumerate().map(|(index, value)| (format!("{path}[{index}]"), value)),
            ),
            Value::Object(members) => {
                for (key, value) in members {
                    if key.contains('\0') {
                        return Some(path);
                    }
                    let dot = if path.is_empty() { "" } else { "." };
                    left.push((format!("{path}{dot}{key}"), value));
                }
            }
            _ => {}
        }
    }
    None
}

/// oci-spec reads an absent `pids.limit` as 0, but 0 is a limit (runtime-spec main: a pointer since
/// then), and absent is none.
fn forget_absent_pids_limit(resources: &mut LinuxResources, bytes: &[u8], pointer: &str) {
    if resources.pids().as_ref().is_none_or(|pids| pids.limit() != 0) {
        return;
    }
    let tree: Value = serde_json::from_slice(bytes).unwrap_or_default();
    if tree.pointer(pointer).is_none_or(Value::is_null) {
        resources.set_pids(None);
    }
}

#[cfg(test)]
mod tests;
