//! The command line and the environment that containerd starts us with (`reference/shim.md` 3.2).
//!
//! containerd writes what Go's `flag` package reads: `-id x`, `--id=x`, `-debug`, `-debug=false`,
//! then one word that says what to do. All that containerd 1.6 to 2.3 pass is taken; an unknown
//! flag is an error in one line, because containerd shows what `start` prints as one message.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use corten::cli::LogLevel;
use corten::error::{Error, Result};

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// No word: be the daemon.
    Serve,
    /// `start`: make or find the daemon and say where it listens.
    Start,
    /// `delete`: clean up behind a daemon that died.
    Delete,
    /// `-info`: say what the runtime can do.
    Info,
    /// `-v`: say what this program is.
    Version,
    /// `-h`.
    Help,
}

/// The flags, as given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Args {
    /// What to do.
    pub action: Action,
    /// `-namespace`, or else `NAMESPACE`.
    pub namespace: String,
    /// `-id`: the container's id.
    pub id: String,
    /// `-address`: containerd's GRPC socket.
    pub address: String,
    /// `-bundle`: given to `delete`; else the bundle is the working directory.
    pub bundle: Option<PathBuf>,
    /// `-socket`: listen here instead of on descriptor 3.
    pub socket: Option<PathBuf>,
    /// `-debug` and `-log-level`: the least that is logged.
    pub level: LogLevel,
    /// `-ready-fd`, between `start` and its daemon.
    pub ready_fd: Option<i32>,
}

/// What `-h` prints.
pub const USAGE: &str = "\
Usage: containerd-shim-corten-v2 [flags] [start|delete]

Started by containerd for runtimes of the type io.containerd.corten.v2.

  -namespace NAME       namespace of the container in containerd
  -id ID                id of the container
  -address PATH         containerd's GRPC socket
  -bundle PATH          the bundle, if it is not the working directory (delete)
  -socket PATH          listen there instead of on descriptor 3
  -debug                log more
  -log-level LEVEL      error, warning, info or debug
  -publish-binary PATH  accepted and not used: events go to TTRPC_ADDRESS
  -debug-socket PATH    accepted and not used
  -info                 print what the runtime can do, as protobuf
  -v, -version          print the version
";

impl Args {
    /// Parses the words behind the program's name; `env` looks up the environment.
    ///
    /// # Errors
    /// [`Error::Usage`] with one line that names the flag.
    pub fn parse(
        words: impl Iterator<Item = OsString>,
        env: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self> {
        let mut args = Self {
            action: Action::Serve,
            namespace: String::new(),
            id: String::new(),
            address: String::new(),
            bundle: None,
            socket: None,
            level: LogLevel::Info,
            ready_fd: None,
        };
        let mut debug = false;
        let mut asked = None;
        let mut words = words.map(text);
        while let Some(word) = words.next().transpose()? {
            let Some(flag) = Flag::of(&word) else {
                args.action = action(&word)?;
                break;
            };
            let mut value = || match flag.value {
                Some(value) => Ok(value.to_owned()),
                None => words.next().unwrap_or_else(|| Err(flag.needs_value())),
            };
            match flag.name {
                "namespace" => args.namespace = value()?,
                "id" => args.id = value()?,
                "address" => args.address = value()?,
                "bundle" => args.bundle = path(value()?),
                "socket" => args.socket = path(value()?),
                "publish-binary" | "debug-socket" => drop(value()?),
                "log-level" => args.level = level(&value()?)?,
                "ready-fd" => args.ready_fd = Some(number(&flag, &value()?)?),
                "debug" => debug = flag.switch()?,
                "info" => asked = flag.switch()?.then_some(Action::Info),
                "v" | "version" => asked = flag.switch()?.then_some(Action::Version),
                "h" | "help" => asked = flag.switch()?.then_some(Action::Help),
                // Go's flag package ends the flags here.
                "" => {}
                other => return Err(Error::Usage(format!("unknown flag -{other}; see -h"))),
            }
        }
        if debug {
            args.level = LogLevel::Debug;
        }
        args.action = asked.unwrap_or(args.action);
        if args.namespace.is_empty()
            && let Some(namespace) = env("NAMESPACE")
        {
            args.namespace = text(namespace)?;
        }
        args.check()?;
        Ok(args)
    }

    /// What supervises or cleans up must know which container it is for: both end up in paths.
    fn check(&self) -> Result<()> {
        if !matches!(self.action, Action::Serve | Action::Start | Action::Delete) {
            return Ok(());
        }
        for (flag, value) in [("namespace", &self.namespace), ("id", &self.id)] {
            corten::cli::container_id(OsStr::new(value))
                .map_err(|_| Error::Usage(format!("-{flag} {value:?} is not a name")))?;
        }
        Ok(())
    }
}

/// One word that begins with a dash.
struct Flag<'a> {
    name: &'a str,
    value: Option<&'a str>,
}

impl<'a> Flag<'a> {
    /// None for the word that says what to do, as which Go takes a single dash too.
    fn of(word: &'a str) -> Option<Self> {
        let rest = word.strip_prefix('-').filter(|rest| !rest.is_empty())?;
        let rest = rest.strip_prefix('-').unwrap_or(rest);
        Some(match rest.split_once('=') {
            Some((name, value)) => Self { name, value: Some(value) },
            None => Self { name: rest, value: None },
        })
    }

    /// Go's switches take a value only with `=`.
    fn switch(&self) -> Result<bool> {
        match self.value {
            None | Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
            Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
            Some(other) => Err(Error::Usage(format!("-{}={other} is not a boolean", self.name))),
        }
    }

    fn needs_value(&self) -> Error {
        Error::Usage(format!("flag -{} needs a value", self.name))
    }
}

fn action(word: &str) -> Result<Action> {
    match word {
        "start" => Ok(Action::Start),
        "delete" => Ok(Action::Delete),
        other => Err(Error::Usage(format!("unknown action {other:?}; see -h"))),
    }
}

fn text(word: OsString) -> Result<String> {
    word.into_string().map_err(|word| Error::Usage(format!("{word:?} is not UTF-8")))
}

/// Go's default of a path is the empty one.
fn path(value: String) -> Option<PathBuf> {
    (!value.is_empty()).then(|| value.into())
}

fn number(flag: &Flag<'_>, value: &str) -> Result<i32> {
    let bad = |_| Error::Usage(format!("-{} {value:?} is not a number", flag.name));
    value.parse().map_err(bad)
}

/// A level's name on the command line.
pub fn level_name(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Error => "error",
        LogLevel::Warning => "warning",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
    }
}

fn level(value: &str) -> Result<LogLevel> {
    [LogLevel::Error, LogLevel::Warning, LogLevel::Info, LogLevel::Debug]
        .into_iter()
        .find(|level| level_name(*level) == value)
        .ok_or_else(|| Error::Usage(format!("-log-level {value:?} is not a level")))
}

/// What containerd says in the environment. `GOMAXPROCS` and `OTEL_*` are for programs in Go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    /// `TTRPC_ADDRESS`: containerd's ttrpc socket, where events go.
    pub ttrpc_address: String,
    /// `GRPC_ADDRESS` (1.7 and later), for when `-address` is missing.
    pub grpc_address: String,
    /// `MAX_SHIM_VERSION` (1.7 and later): the newest version of the task service that is known.
    pub max_version: Option<u32>,
    /// `SCHED_CORE`: whether to share cores with nobody.
    pub sched_core: bool,
}

impl Environment {
    /// Picks them by `env`.
    pub fn read(env: impl Fn(&str) -> Option<OsString>) -> Self {
        let text = |name: &str| env(name).and_then(|value| value.into_string().ok());
        Self {
            ttrpc_address: text("TTRPC_ADDRESS").unwrap_or_default(),
            grpc_address: text("GRPC_ADDRESS").unwrap_or_default(),
            max_version: text("MAX_SHIM_VERSION").and_then(|value| value.trim().parse().ok()),
            sched_core: text("SCHED_CORE").is_some_and(|value| !value.is_empty()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args> {
        Args::parse(line.split(' ').filter(|word| !word.is_empty()).map(OsString::from), |_| None)
    }

    #[test]
    fn what_containerd_passes_to_start_and_delete() {
        let args = parse(
            "-namespace k8s.io -address /run/containerd/containerd.sock -publish-binary \
             /usr/bin/containerd -id demo -debug start",
        )
        .unwrap();
        assert_eq!((args.action, args.level), (Action::Start, LogLevel::Debug));
        assert_eq!((args.namespace.as_str(), args.id.as_str()), ("k8s.io", "demo"));
        assert_eq!(args.address, "/run/containerd/containerd.sock");
        let args = parse("-namespace n -id x -bundle /b delete").unwrap();
        assert_eq!((args.action, args.bundle), (Action::Delete, Some("/b".into())));
        assert_eq!(parse("-namespace n -id x").unwrap().action, Action::Serve);
    }

    #[test]
    fn flags_in_each_of_gos_forms() {
        for line in ["-id=a -namespace=n start", "--id a --namespace n start"] {
            assert_eq!(parse(line).unwrap().id, "a");
        }
        assert_eq!(parse("-namespace n -id a -debug=false start").unwrap().level, LogLevel::Info);
        assert_eq!(parse("-namespace n -id a -log-level error").unwrap().level, LogLevel::Error);
        let equals = parse("-namespace n -id a -address unix:///x=y").unwrap();
        assert_eq!(equals.address, "unix:///x=y");
        // An empty value is a value.
        let words = ["-namespace", "n", "-id", "a", "-address", "", "start"].map(OsString::from);
        assert_eq!(Args::parse(words.into_iter(), |_| None).unwrap().action, Action::Start);
    }

    #[test]
    fn info_and_version_need_nothing_else() {
        assert_eq!(parse("-info").unwrap().action, Action::Info);
        assert_eq!(parse("-v").unwrap().action, Action::Version);
        assert_eq!(parse("--version").unwrap().action, Action::Version);
        assert_eq!(parse("-namespace n -info").unwrap().action, Action::Info);
    }

    #[test]
    fn the_namespace_may_come_from_the_environment() {
        let args = Args::parse(["-id", "a", "start"].map(OsString::from).into_iter(), |name| {
            (name == "NAMESPACE").then(|| "from-env".into())
        });
        assert_eq!(args.unwrap().namespace, "from-env");
    }

    #[test]
    fn what_is_wrong_is_said_in_one_line() {
        for (line, words) in [
            ("-namespace n -id a -frobnicate start", "unknown flag -frobnicate"),
            ("-namespace n -id a stop", "unknown action \"stop\""),
            ("-namespace n -id", "flag -id needs a value"),
            ("-namespace n start", "-id \"\" is not a name"),
            ("-id a start", "-namespace \"\" is not a name"),
            ("-namespace n -id ../../x start", "-id \"../../x\" is not a name"),
            ("-namespace a/b -id x start", "-namespace \"a/b\" is not a name"),
            ("-debug=maybe", "-debug=maybe is not a boolean"),
        ] {
            let message = parse(line).unwrap_err().to_string();
            assert!(message.contains(words), "{line}: {message}");
            assert!(!message.contains('\n'));
        }
    }

    #[test]
    fn the_environment() {
        let pairs = [("TTRPC_ADDRESS", "/t"), ("MAX_SHIM_VERSION", "2"), ("SCHED_CORE", "1")];
        let env = Environment::read(|name| {
            pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into())
        });
        assert_eq!(
            (env.ttrpc_address.as_str(), env.max_version, env.sched_core),
            ("/t", Some(2), true)
        );
        assert_eq!(Environment::read(|_| None), Environment::default());
    }
}
