//! A bundle in a directory of its own, and the shim run in it.
#![allow(dead_code, reason = "each test program uses a part")]

use std::fs;
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use containerd_shim_corten::bootstrap::socket;
use containerd_shim_protos::bootstrap_api::{BootstrapParams, Extension};
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use tempfile::TempDir;

/// The namespace of all tests.
pub const NAMESPACE: &str = "corten-test";

/// The program.
pub fn shim() -> Command {
    Command::new(env!("CARGO_BIN_EXE_containerd-shim-corten-v2"))
}

/// A bundle; the container is called `demo`.
#[derive(Debug)]
pub struct Bundle(TempDir);

impl Bundle {
    /// With this config.
    pub fn new(config: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("demo")).unwrap();
        fs::write(dir.path().join("demo/config.json"), config).unwrap();
        Self(dir)
    }

    /// Where it is.
    pub fn path(&self) -> PathBuf {
        self.0.path().join("demo")
    }

    /// The directory around it, which is nobody else's.
    pub fn outside(&self) -> &Path {
        self.0.path()
    }

    /// containerd's socket, if there were one.
    pub fn grpc_address(&self) -> String {
        self.0.path().join("containerd.sock").to_str().unwrap().to_owned()
    }

    /// Where the socket of a group is.
    pub fn socket(&self, group: &str) -> PathBuf {
        socket::path(&self.socket_dir(), &self.grpc_address(), NAMESPACE, group)
    }

    fn socket_dir(&self) -> PathBuf {
        self.0.path().join("s")
    }

    /// What containerd 2.3 sends to `start`.
    pub fn params(&self) -> Vec<u8> {
        self.params_of("demo")
    }

    /// The same for another container beside it.
    pub fn params_of(&self, id: &str) -> Vec<u8> {
        let params = BootstrapParams {
            instance_id: id.to_owned(),
            namespace: NAMESPACE.to_owned(),
            containerd_grpc_address: self.grpc_address(),
            socket_dir: Some(self.socket_dir().to_str().unwrap().to_owned()),
            ..BootstrapParams::default()
        };
        params.write_to_bytes().unwrap()
    }

    /// `start` as containerd 2.3 calls it, with more flags.
    pub fn start(&self, flags: &[&str]) -> Output {
        let mut words = vec!["-namespace", NAMESPACE, "-id", "demo"];
        words.extend(flags);
        words.push("start");
        self.run(&self.params(), &words)
    }

    /// `start` with options that say which cgroup the shim belongs in.
    pub fn start_in(&self, cgroup: &str) -> Output {
        let mut value = vec![0x1a, u8::try_from(cgroup.len()).unwrap()];
        value.extend_from_slice(cgroup.as_bytes());
        let options =
            Any { type_url: "containerd.runc.v1.Options".to_owned(), value, ..Any::default() };
        let mut params = BootstrapParams::parse_from_bytes(&self.params()).unwrap();
        params.extensions.push(Extension { value: Some(options).into(), ..Extension::default() });
        let words = ["-namespace", NAMESPACE, "-id", "demo", "start"];
        self.run(&params.write_to_bytes().unwrap(), &words)
    }

    /// `start` for another container beside this one, with the same config, not yet run.
    pub fn start_beside(&self, id: &str) -> Command {
        let bundle = self.0.path().join(id);
        fs::create_dir(&bundle).unwrap();
        fs::copy(self.path().join("config.json"), bundle.join("config.json")).unwrap();
        let params = self.0.path().join(format!("{id}.params"));
        fs::write(&params, self.params_of(id)).unwrap();
        let mut command = self.command(&["-namespace", NAMESPACE, "-id", id, "start"]);
        command.current_dir(bundle).stdin(fs::File::open(params).unwrap());
        command
    }

    /// The shim with these words, in the bundle.
    pub fn run(&self, stdin: &[u8], words: &[&str]) -> Output {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(stdin).unwrap();
        file.rewind().unwrap();
        self.command(words).stdin(file).output().unwrap()
    }

    /// The same, not yet run.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = shim();
        command.current_dir(self.path()).args(words).env_remove("NAMESPACE");
        command
    }
}

/// The one line that a failure prints, which begins with the program's name.
pub fn one_line(stderr: &[u8]) -> String {
    let text = String::from_utf8(stderr.to_vec()).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.starts_with("containerd-shim-corten-v2: "), "{text}");
    text
}
