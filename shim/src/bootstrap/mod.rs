//! `start`: finds or makes the daemon of a container's group and says where it listens
//! (`reference/shim.md` 3.2, 3.3).
//!
//! Promise: what is printed is the address of a socket that is listening, in the dialect of the
//! question ([`dialect`]), and nothing else is: containerd takes standard output and standard error
//! together for the answer. Of many `start`s for one group one makes the daemon ([`socket`]).
//!
//! Order: the socket, because it decides who makes the daemon; the files in the bundle, since
//! `delete` needs them if anything dies from here on; the [`daemon`]; the answer. A step that fails
//! takes back the ones before it.
//!
//! Not taken over from Go's shims: the link `s` to the socket's directory in the bundle (`address`
//! says more), the second socket for a profiler, and `shim.pid`, which only the daemons of runtimes
//! of version 1 read.

pub mod daemon;
pub mod dialect;
pub mod socket;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{IsTerminal, Read};
use std::os::fd::AsFd;
use std::path::Path;

use corten::error::{Doing, Error, Result};
use serde::Deserialize;

use crate::cli::{Args, Environment};
use dialect::Request;
use socket::Claim;

/// The file in the bundle with the address, which containerd before 2.0 restores shims from.
pub const ADDRESS: &str = "address";
/// Longer than any question (Go's shims read no more, either).
const INPUT_MAX: u64 = 10 << 20;

/// Carries out `start`. The bundle is the working directory.
///
/// # Errors
/// Whatever keeps the daemon from running; nothing is left of it then.
pub fn start(args: &Args, env: &Environment) -> Result<()> {
    let request = Request::read(&input()?, args, env)?;
    let bundle = Path::new(".");
    let group = group(bundle)?.unwrap_or_else(|| request.id.clone());
    let dir = request.socket_dir.as_deref().unwrap_or(Path::new(socket::DIR));
    let path = socket::path(dir, &request.grpc_address, &request.namespace, &group);
    let address = socket::address(&path);
    let claim = socket::claim(&path)?;
    request.options.write(bundle)?;
    write_address(bundle, &address)?;
    let answer = request.dialect.answer(&address)?;
    match claim {
        Claim::Taken => print(&answer),
        Claim::Ours(claimed) => {
            let daemon = daemon::spawn(&claimed.listener, &request, env)?;
            print(&answer).inspect_err(|_| daemon.kill())?;
            claimed.keep();
            Ok(())
        }
    }
}

/// All of standard input. Nobody writes a question into a terminal.
///
/// # Errors
/// An input that is too long.
pub fn input() -> Result<Vec<u8>> {
    let mut stdin = std::io::stdin();
    let mut bytes = Vec::new();
    if !stdin.is_terminal() {
        let read = stdin.by_ref().take(INPUT_MAX + 1).read_to_end(&mut bytes);
        read.doing(|| "read standard input".to_owned())?;
    }
    if bytes.len() as u64 > INPUT_MAX {
        return Err(Error::Usage(format!("standard input is longer than {INPUT_MAX} bytes")));
    }
    Ok(bytes)
}

/// Writes `bytes` to standard output, past the buffer of std.
///
/// # Errors
/// `EPIPE`.
pub fn print(bytes: &[u8]) -> Result<()> {
    use std::io::Write;
    let doing = || "write to standard output".to_owned();
    let stdout = std::io::stdout().as_fd().try_clone_to_owned().doing(doing)?;
    File::from(stdout).write_all(bytes).doing(doing)
}

/// The annotations that say which containers share a shim, in the order that they count.
const GROUPS: [&str; 2] = ["io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id"];

/// The group that a container's annotations name.
pub fn group_among(annotations: &BTreeMap<String, String>) -> Option<&str> {
    let mut named = GROUPS.iter().filter_map(|name| annotations.get(*name).map(String::as_str));
    named.find(|group| !group.is_empty())
}

/// The part of config.json that is looked at.
#[derive(Deserialize)]
struct Config {
    annotations: Option<BTreeMap<String, String>>,
}

/// The group that the bundle's config asks for.
fn group(bundle: &Path) -> Result<Option<String>> {
    let path = bundle.join("config.json");
    let bytes = fs::read(&path).doing(|| "read config.json".to_owned())?;
    let config: Config = serde_json::from_slice(&bytes)
        .map_err(|error| Error::Usage(format!("config.json: {error}")))?;
    let named = config.annotations.unwrap_or_default();
    Ok(group_among(&named).map(str::to_owned))
}

fn write_address(bundle: &Path, address: &str) -> Result<()> {
    let path = bundle.join(ADDRESS);
    let new = bundle.join("address.new");
    let doing = || "write the shim's address".to_owned();
    fs::write(&new, address).doing(doing)?;
    fs::rename(&new, &path).doing(doing)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group_of(config: &str) -> Result<Option<String>> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("config.json"), config).unwrap();
        group(dir.path())
    }

    #[test]
    fn the_groups_annotation_counts_before_the_pods() {
        let both = r#"{"ociVersion":"1.2.0","annotations":{"a":"b",
            "io.kubernetes.cri.sandbox-id":"pod","io.containerd.runc.v2.group":"mine"},"root":{}}"#;
        assert_eq!(group_of(both).unwrap().unwrap(), "mine");
        let pod = r#"{"annotations":{"io.kubernetes.cri.sandbox-id":"pod"}}"#;
        assert_eq!(group_of(pod).unwrap().unwrap(), "pod");
    }

    #[test]
    fn a_container_without_a_group_is_one() {
        for config in ["{}", r#"{"annotations":null}"#, r#"{"annotations":{"x":"y"}}"#] {
            assert_eq!(group_of(config).unwrap(), None, "{config}");
        }
        assert!(group_of("{").is_err());
        let error = group(Path::new("/nonexistent")).unwrap_err().to_string();
        assert!(error.contains("read config.json"), "{error}");
    }
}
