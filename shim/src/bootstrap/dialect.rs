//! What `start` is asked on standard input, and how it answers: three dialects, decided by facts.
//!
//! | containerd | standard input | answer |
//! |---|---|---|
//! | 2.3 | `BootstrapParams` | `BootstrapResult`, version 3 |
//! | 1.7 to 2.2 | `Any` with options, or nothing; `MAX_SHIM_VERSION` is set | JSON, no version above that |
//! | 1.6 | `Any` with options, or nothing | the bare address |
//!
//! An `Any` can be read as `BootstrapParams` too, its type URL as the instance's id: so the params
//! must repeat the `-id` and `-namespace` of the command line. All of 1.7 to 2.3 set
//! `MAX_SHIM_VERSION=2`, and 1.7 refuses a JSON answer above it ("unsupported shim version"), while
//! nothing else tells it from 2.0; so JSON says 2. Nothing is lost: we serve the task service in
//! both versions, and 2.0 to 2.2 then merely ask `start` for each container of a pod. 1.6 sets no
//! such variable and takes all that is printed for the address.

use std::path::PathBuf;

use containerd_shim_protos::bootstrap_api::{BootstrapParams, BootstrapResult};
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use corten::cli::LogLevel;
use corten::error::{Error, Result};

use crate::cli::{Args, Environment};
use crate::options::Options;
use crate::transport::call::check_lengths;

/// The task service that we announce, where the caller knows it.
const VERSION: u32 = 3;
/// The protocol that we speak.
const PROTOCOL: &str = "ttrpc";

/// How to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// `BootstrapResult`.
    Protobuf,
    /// `{"version":…,"address":"…","protocol":"ttrpc"}` with this version.
    Json(u32),
    /// The address alone.
    Plain,
}

/// What `start` is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// How to answer.
    pub dialect: Dialect,
    /// The container's id.
    pub id: String,
    /// Its namespace.
    pub namespace: String,
    /// The least that the daemon logs.
    pub level: LogLevel,
    /// containerd's GRPC socket, part of our own one's name.
    pub grpc_address: String,
    /// containerd's ttrpc socket, for events.
    pub ttrpc_address: String,
    /// Where our socket belongs, if not in the usual directory.
    pub socket_dir: Option<PathBuf>,
    /// The runtime's options.
    pub options: Options,
}

impl Request {
    /// Puts together what standard input, command line and environment say.
    ///
    /// # Errors
    /// [`Error::Usage`] for an input or options that are not understood.
    pub fn read(input: &[u8], args: &Args, env: &Environment) -> Result<Self> {
        let asked_again = |params: &BootstrapParams| {
            params.instance_id == args.id && params.namespace == args.namespace
        };
        check_lengths(input).map_err(|error| {
            Error::Usage(format!("standard input is neither BootstrapParams nor options: {error}"))
        })?;
        match BootstrapParams::parse_from_bytes(input) {
            Ok(params) if asked_again(&params) => Self::modern(params, args, env),
            _ => Self::legacy(input, args, env),
        }
    }

    fn modern(params: BootstrapParams, args: &Args, env: &Environment) -> Result<Self> {
        let extensions = || params.extensions.iter().filter_map(|one| one.value.as_ref());
        // Other extensions are not for us.
        let options = Options::from_any(extensions().find(|any| Options::is_type_of(any)))?;
        Ok(Self {
            dialect: Dialect::Protobuf,
            level: match args.level {
                LogLevel::Debug => LogLevel::Debug,
                _ => level(params.log_level.value()),
            },
            grpc_address: first([params.containerd_grpc_address, args.address.clone()]),
            ttrpc_address: first([params.containerd_ttrpc_address, env.ttrpc_address.clone()]),
            socket_dir: params.socket_dir.filter(|dir| !dir.is_empty()).map(PathBuf::from),
            id: params.instance_id,
            namespace: params.namespace,
            options,
        })
    }

    fn legacy(input: &[u8], args: &Args, env: &Environment) -> Result<Self> {
        let any = Any::parse_from_bytes(input).map_err(|error| {
            Error::Usage(format!("standard input is neither BootstrapParams nor options: {error}"))
        })?;
        Ok(Self {
            dialect: match env.max_version {
                Some(max) => Dialect::Json(max.clamp(2, VERSION)),
                None => Dialect::Plain,
            },
            id: args.id.clone(),
            namespace: args.namespace.clone(),
            level: args.level,
            grpc_address: first([args.address.clone(), env.grpc_address.clone()]),
            ttrpc_address: env.ttrpc_address.clone(),
            socket_dir: None,
            options: Options::from_any(Some(&any))?,
        })
    }
}

/// The first that says something.
fn first(values: [String; 2]) -> String {
    let [one, other] = values;
    if one.is_empty() { other } else { one }
}

/// The level nearest to a number of the open enum.
fn level(number: i32) -> LogLevel {
    match number {
        ..=-3 => LogLevel::Debug,
        -2..=1 => LogLevel::Info,
        2..=5 => LogLevel::Warning,
        6.. => LogLevel::Error,
    }
}

impl Dialect {
    /// The answer: where the daemon listens.
    ///
    /// # Errors
    /// None that a correct program could see.
    pub fn answer(self, address: &str) -> Result<Vec<u8>> {
        match self {
            Self::Plain => Ok(address.as_bytes().to_vec()),
            Self::Json(version) => {
                let answer = Json { version, address, protocol: PROTOCOL };
                serde_json::to_vec(&answer).map_err(|error| Error::Failed(error.to_string()))
            }
            Self::Protobuf => {
                let answer = BootstrapResult {
                    version: VERSION.cast_signed(),
                    address: address.to_owned(),
                    protocol: PROTOCOL.to_owned(),
                    ..BootstrapResult::default()
                };
                answer.write_to_bytes().map_err(|error| Error::Failed(error.to_string()))
            }
        }
    }
}

#[derive(serde::Serialize)]
struct Json<'a> {
    version: u32,
    address: &'a str,
    protocol: &'a str,
}

#[cfg(test)]
mod tests {
    use containerd_shim_protos::bootstrap_api::Extension;

    use super::*;

    /// What containerd 2.3.4 was seen to send, `bootstrap-2.3.txt`.
    const PARAMS: &str = "0a0464656d6f120764656661756c742205322e332e342a252f72756e2f636f6e7461696e65\
        72642f636f6e7461696e6572642e736f636b2e7474727063321f2f72756e2f636f6e7461696e6572642f636f6e74\
        61696e6572642e736f636b3a132f7573722f62696e2f636f6e7461696e6572644a112f72756e2f636f6e7461696e\
        6572642f73";
    const RESULT: &str = "08031259756e69783a2f2f2f72756e2f636f6e7461696e6572642f732f3031323334353637\
        383961626364656630313233343536373839616263646566303132333435363738396162636465663031323334\
        35363738396162636465661a057474727063";

    fn bytes(hex: &str) -> Vec<u8> {
        let digit = |byte: u8| char::from(byte).to_digit(16).unwrap() as u8;
        hex.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
    }

    fn args(id: &str, namespace: &str) -> Args {
        let words = ["-namespace", namespace, "-id", id, "-address", "/flag.sock", "start"];
        Args::parse(words.into_iter().map(Into::into), |_| None).unwrap()
    }

    fn env(max_version: Option<u32>) -> Environment {
        Environment { ttrpc_address: "/env.ttrpc".into(), max_version, ..Environment::default() }
    }

    fn options(type_url: &str) -> Any {
        // shim_cgroup = "/s"
        let value = vec![0x1a, 2, b'/', b's'];
        Any { type_url: type_url.to_owned(), value, ..Any::default() }
    }

    #[test]
    fn the_params_of_2_3() {
        let request = Request::read(&bytes(PARAMS), &args("demo", "default"), &env(Some(2)));
        let expected = Request {
            dialect: Dialect::Protobuf,
            id: "demo".to_owned(),
            namespace: "default".to_owned(),
            level: LogLevel::Info,
            grpc_address: "/run/containerd/containerd.sock".to_owned(),
            ttrpc_address: "/run/containerd/containerd.sock.ttrpc".to_owned(),
            socket_dir: Some("/run/containerd/s".into()),
            options: Options::default(),
        };
        assert_eq!(request.unwrap(), expected);
    }

    #[test]
    fn the_result_for_2_3() {
        let address = format!("unix:///run/containerd/s/{}", "0123456789abcdef".repeat(4));
        assert_eq!(Dialect::Protobuf.answer(&address).unwrap(), bytes(RESULT));
    }

    #[test]
    fn extensions_carry_options_and_what_is_for_others() {
        let mut params = BootstrapParams::parse_from_bytes(&bytes(PARAMS)).unwrap();
        for url in ["containerd.io/cri.v1.PodSandboxConfig", "containerd.runc.v1.Options"] {
            let value = Some(options(url)).into();
            params.extensions.push(Extension { value, ..Extension::default() });
        }
        params.log_level = containerd_shim_protos::protobuf::EnumOrUnknown::from_i32(-8);
        let input = params.write_to_bytes().unwrap();
        let request = Request::read(&input, &args("demo", "default"), &env(None)).unwrap();
        assert_eq!(request.options.shim_cgroup, "/s");
        assert_eq!(request.level, LogLevel::Debug);
        params.log_level = containerd_shim_protos::protobuf::EnumOrUnknown::from_i32(4);
        let input = params.write_to_bytes().unwrap();
        let request = Request::read(&input, &args("demo", "default"), &env(None)).unwrap();
        assert_eq!(request.level, LogLevel::Warning);
    }

    #[test]
    fn legacy_callers_send_options_or_nothing() {
        let input = options("containerd.runc.v1.Options").write_to_bytes().unwrap();
        // Even a container that is called as the type is.
        for (id, namespace) in [("demo", "default"), ("containerd.runc.v1.Options", "default")] {
            for (max, dialect) in [
                (None, Dialect::Plain),
                (Some(2), Dialect::Json(2)),
                (Some(3), Dialect::Json(3)),
                (Some(9), Dialect::Json(3)),
            ] {
                let request = Request::read(&input, &args(id, namespace), &env(max)).unwrap();
                assert_eq!((request.dialect, request.id.as_str()), (dialect, id));
                assert_eq!(request.options.shim_cgroup, "/s");
                assert_eq!(request.grpc_address, "/flag.sock");
                assert_eq!(request.ttrpc_address, "/env.ttrpc");
                let request = Request::read(&[], &args(id, namespace), &env(max)).unwrap();
                assert_eq!((request.dialect, request.options), (dialect, Options::default()));
            }
        }
    }

    #[test]
    fn params_for_another_container_are_not_taken_for_ours() {
        let answer = Request::read(&bytes(PARAMS), &args("other", "default"), &env(Some(2)));
        assert!(matches!(answer, Err(Error::Usage(_))), "{answer:?}");
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        for input in [&b"hello"[..], &[0xff; 20]] {
            let answer = Request::read(input, &args("a", "b"), &env(None));
            assert!(matches!(answer, Err(Error::Usage(_))), "{answer:?}");
        }
        let input = options("containerd.kata.v1.Options").write_to_bytes().unwrap();
        let error = Request::read(&input, &args("a", "b"), &env(None)).unwrap_err().to_string();
        assert!(error.contains("containerd.kata.v1.Options"), "{error}");
    }

    #[test]
    fn answers_for_legacy_callers() {
        assert_eq!(Dialect::Plain.answer("unix:///x").unwrap(), b"unix:///x");
        assert_eq!(
            Dialect::Json(2).answer("unix:///x").unwrap(),
            br#"{"version":2,"address":"unix:///x","protocol":"ttrpc"}"#
        );
    }

    #[test]
    fn levels_that_are_not_in_the_enum_become_the_nearest() {
        let levels: Vec<LogLevel> = [-8, -4, 0, 1, 4, 8, 12, 100].map(level).to_vec();
        use LogLevel::{Debug, Error, Info, Warning};
        assert_eq!(levels, [Debug, Debug, Info, Info, Warning, Error, Error, Error]);
    }
}
