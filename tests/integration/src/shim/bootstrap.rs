//! How a daemon executes the shim: `start` in its dialects, `delete`, `-info`.

use std::io::{PipeReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use containerd_shim_protos::api::DeleteResponse;
use containerd_shim_protos::bootstrap_api::{BootstrapParams, BootstrapResult, Extension};
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use serde_json::Value;

use super::sandbox;
use super::task::PATIENCE;
use super::world::World;
use crate::driver::patience;
use crate::managers::{Stop, command};

/// Which daemon starts the shim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// containerd 1.6: options as an `Any`, the answer is an address.
    Plain,
    /// containerd 1.7 to 2.2: the same, and the answer may be JSON.
    Json,
    /// containerd 2.3: protobuf both ways.
    Proto,
}

/// What a daemon says to `start`.
#[derive(Debug, Clone)]
pub struct Boot {
    /// Its dialect.
    pub dialect: Dialect,
    /// The runtime's options.
    pub options: Option<Any>,
    /// Whether the daemon logs debug messages.
    pub debug: bool,
    /// The directory for sockets; only 2.3 says one.
    pub sockets: String,
    /// More of the environment.
    pub environment: Vec<(String, String)>,
    /// The limit of open files, soft and hard.
    pub files: Option<u64>,
    /// The binary, when it is not the one under test itself.
    pub program: Option<PathBuf>,
}

impl Default for Boot {
    fn default() -> Self {
        Self {
            dialect: Dialect::Plain,
            options: None,
            debug: false,
            sockets: "/run/containerd/s".to_owned(),
            environment: Vec::new(),
            files: None,
            program: None,
        }
    }
}

impl Boot {
    /// The given dialect.
    pub fn dialect(dialect: Dialect) -> Self {
        Self { dialect, ..Self::default() }
    }

    /// containerd 1.6 with these options.
    pub fn options(options: Any) -> Self {
        Self { options: Some(options), ..Self::default() }
    }

    /// The bytes on standard input.
    fn input(&self, world: &World, id: &str) -> Vec<u8> {
        let options = self.options.as_ref();
        if self.dialect != Dialect::Proto {
            let written = options.map(|any| any.write_to_bytes().expect("a message"));
            return written.unwrap_or_default();
        }
        let mut params = with!(BootstrapParams {
            instance_id: id,
            namespace: &world.namespace,
            containerd_version: "2.3.4",
            containerd_ttrpc_address: world.events.address(),
            containerd_grpc_address: &world.grpc,
            containerd_binary: "/bin/true"
        });
        params.socket_dir = Some(self.sockets.clone());
        params.extensions = options
            .map(|any| Extension { value: Some(any.clone()).into(), ..Extension::default() })
            .into_iter()
            .collect();
        params.write_to_bytes().expect("a message")
    }
}

/// What `start` answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The version of the task API.
    pub version: i32,
    /// `unix:///…`
    pub address: String,
    /// `ttrpc`
    pub protocol: String,
    /// The bytes as they came.
    pub raw: Vec<u8>,
}

impl Reply {
    /// As containerd 2.3 does it: protobuf, then JSON, then text.
    pub fn parse(raw: Vec<u8>) -> Result<Self, Stop> {
        let text = String::from_utf8_lossy(&raw).into_owned();
        if let Ok(json) = serde_json::from_str::<Value>(&text) {
            let word = |name: &str| json[name].as_str().unwrap_or_default().to_owned();
            let version = json["version"].as_i64().unwrap_or_default() as i32;
            return Ok(Self { version, address: word("address"), protocol: word("protocol"), raw });
        }
        if text.starts_with("unix://") {
            let address = text.trim().to_owned();
            return Ok(Self { version: 2, address, protocol: "ttrpc".to_owned(), raw });
        }
        let result = BootstrapResult::parse_from_bytes(&raw)
            .map_err(|error| Stop::Fail(format!("the answer of start: {error}: {text:?}")))?;
        let BootstrapResult { version, address, protocol, .. } = result;
        Ok(Self { version, address, protocol, raw })
    }
}

/// How one execution of the shim ended.
#[derive(Debug)]
pub struct Executed {
    /// The exit code, 128 + signal.
    pub code: i32,
    /// Standard output; for `start` with standard error, as the daemon reads them.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    /// How long it took until both streams ended.
    pub took: Duration,
}

/// `start` in the bundle; the exit code must be 0.
pub fn start(world: &World, bundle: &Path, id: &str, boot: &Boot) -> Result<Reply, Stop> {
    let mut words = Vec::new();
    if boot.debug {
        words.push("-debug");
    }
    words.push("start");
    let executed = execute(world, bundle, id, &words, &boot.input(world, id), boot, true)?;
    if executed.code != 0 {
        let words = String::from_utf8_lossy(&executed.stdout).into_owned();
        return Err(Stop::Fail(format!("start: exit code {}: {words}", executed.code)));
    }
    Reply::parse(executed.stdout)
}

/// The `delete` action; its answer.
pub fn delete(world: &World, bundle: &Path, id: &str) -> Result<DeleteResponse, Stop> {
    let path = bundle.to_str().expect("a UTF-8 path");
    let words = ["-bundle", path, "delete"];
    let executed = execute(world, bundle, id, &words, &[], &Boot::default(), false)?;
    if executed.code != 0 {
        let words = String::from_utf8_lossy(&executed.stderr).into_owned();
        return Err(Stop::Fail(format!("delete: exit code {}: {words}", executed.code)));
    }
    Ok(DeleteResponse::parse_from_bytes(&executed.stdout)?)
}

/// Executes the shim with these words after the usual flags.
pub fn execute(
    world: &World,
    bundle: &Path,
    id: &str,
    words: &[&str],
    input: &[u8],
    boot: &Boot,
    combined: bool,
) -> Result<Executed, Stop> {
    let mut command = Command::new(boot.program.as_ref().unwrap_or(&world.shim));
    command
        .args(["-namespace", &world.namespace, "-address", &world.grpc])
        .args(["-publish-binary", "/bin/true", "-id", id])
        .args(words)
        .current_dir(bundle)
        .env_clear()
        .envs(environment(world, boot));
    if let Some(files) = boot.files {
        limit_files(&mut command, files);
    }
    run(command, input, combined)
}

/// Runs a command until it has ended and its streams have ended too.
pub fn run(mut command: Command, input: &[u8], combined: bool) -> Result<Executed, Stop> {
    let begun = Instant::now();
    let (out, writer) = std::io::pipe()?;
    let (err, other) = std::io::pipe()?;
    let second = if combined { writer.try_clone()? } else { other.try_clone()? };
    drop(other);
    command.stdin(Stdio::piped()).stdout(writer).stderr(second);
    let mut child = command::spawn(&mut command)?;
    // The command holds the writing ends.
    drop(command);
    let mut stdin = child.stdin.take().ok_or("no standard input")?;
    // A shim that does not read is found by its answer.
    stdin.write_all(input).ok();
    drop(stdin);
    let out = collected(out, "standard output");
    let err = collected(err, "standard error");
    let Some(status) = command::wait(&mut child, PATIENCE)? else {
        return Err(Stop::Fail(format!("the shim's command did not end within {PATIENCE:?}")));
    };
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    Ok(Executed { code, stdout: out()?, stderr: err()?, took: begun.elapsed() })
}

/// The environment that the daemon gives.
pub fn environment(world: &World, boot: &Boot) -> Vec<(String, String)> {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let mut all = vec![
        pair("PATH", &sandbox().path()),
        pair("TTRPC_ADDRESS", world.events.address()),
        pair("GRPC_ADDRESS", &world.grpc),
        pair("NAMESPACE", &world.namespace),
        pair("GOMAXPROCS", "2"),
    ];
    if boot.dialect != Dialect::Plain {
        all.push(pair("MAX_SHIM_VERSION", "2"));
    }
    all.extend(boot.environment.iter().cloned());
    all
}

/// Runs the command below `sh`, which sets the limit: `prlimit` of util-linux.
fn limit_files(command: &mut Command, files: u64) {
    let mut limited = Command::new("prlimit");
    limited.arg(format!("--nofile={files}:{files}")).arg("--").arg(command.get_program());
    limited.args(command.get_args()).env_clear();
    for (name, value) in command.get_envs() {
        limited.env(name, value.unwrap_or_default());
    }
    if let Some(dir) = command.get_current_dir() {
        limited.current_dir(dir);
    }
    *command = limited;
}

/// Reads a stream to its end in a thread; the end must come soon after the command's.
fn collected(mut stream: PipeReader, name: &'static str) -> impl FnOnce() -> Result<Vec<u8>, Stop> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = stream.read_to_end(&mut bytes).map(|_| bytes);
        sender.send(read).ok();
    });
    move || {
        let read = receiver
            .recv_timeout(patience(Duration::from_secs(5)))
            .map_err(|_| Stop::Fail(format!("the command has ended, but its {name} is open")))?;
        Ok(read?)
    }
}
