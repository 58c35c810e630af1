//! What went wrong, said once: what we were doing, the object, the errno.
//!
//! Managers match the words (`executable file not found`, `permission denied`, `already exists`,
//! `container not running`), so errno texts are libc's in lower case, as Go prints them.
//! Code of ours matches on the variant, never on the text. An error is either returned or logged,
//! never both: `main` prints it, once.

use nix::errno::Errno;

/// The result of everything that can fail for a reason the caller must see.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure, with who is to blame told by the variant.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused. `doing` names the action and its object: `open "/x"`.
    #[error("{doing}: {}", errno_words(*.errno))]
    Sys {
        /// The action and its object.
        doing: String,
        /// Why the kernel refused.
        errno: Errno,
    },
    /// The bundle's author is to blame: `path` is the JSON path, `process.cwd`, `mounts[3].options[0]`.
    #[error("config.json: {path}: {why}")]
    Config {
        /// JSON path of the offending value, without a leading `$`.
        path: String,
        /// What is wrong with it, with the value.
        why: String,
    },
    /// The caller's command line is to blame.
    #[error("{0}")]
    Usage(String),
    /// The id is taken. dockerd and containerd match "already exists".
    #[error("container with given ID already exists: {0}")]
    Exists(String),
    /// No such container. Managers match "does not exist".
    #[error("container does not exist: {0}")]
    NotFound(String),
    /// The container's status does not allow this command.
    #[error("{0}")]
    Status(String),
    /// The same, because nothing of it runs. cri-o matches these words.
    #[error("container not running")]
    NotRunning,
    /// This host, kernel or build can't do what was asked.
    #[error("{0}")]
    Unsupported(String),
    /// Anything else that went wrong with its words complete: a hook that failed, a read-back that
    /// differs, a message of the container's own init.
    #[error("{0}")]
    Failed(String),
    /// An outer action that failed because of an inner one.
    #[error("{doing}: {source}")]
    Context {
        /// The outer action and its object.
        doing: String,
        /// The inner failure.
        source: Box<Error>,
    },
}

impl Error {
    /// The config's author is to blame for the value at `path`.
    pub fn config(path: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Config { path: path.into(), why: why.into() }
    }

    /// The kernel refused `doing`.
    pub fn sys(doing: impl Into<String>, errno: Errno) -> Self {
        Self::Sys { doing: doing.into(), errno }
    }

    /// The failure at the root of all contexts.
    pub fn root(&self) -> &Self {
        match self {
            Self::Context { source, .. } => source.root(),
            other => other,
        }
    }

    /// The errno at the root, if the kernel is what refused.
    pub fn errno(&self) -> Option<Errno> {
        match self.root() {
            Self::Sys { errno, .. } => Some(*errno),
            _ => None,
        }
    }
}

/// libc's text of an errno in lower case: `no such file or directory`.
pub fn errno_words(errno: Errno) -> String {
    match errno {
        Errno::UnknownErrno => "unknown errno".to_owned(),
        known => known.desc().to_lowercase(),
    }
}

/// Says what was being done when a result turned out to be a failure.
pub trait Doing<T> {
    /// Adds the action and its object: `.doing(|| format!("open {path:?}"))`.
    fn doing(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Doing<T> for std::result::Result<T, Errno> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|errno| Error::Sys { doing: what(), errno })
    }
}

impl<T> Doing<T> for std::io::Result<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| match error.raw_os_error() {
            Some(raw) => Error::Sys { doing: what(), errno: Errno::from_raw(raw) },
            None => Error::Failed(format!("{}: {error}", what())),
        })
    }
}

impl<T> Doing<T> for Result<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Context { doing: what(), source: Box::new(source) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_errno_is_said_in_lower_case_after_what_we_did() {
        let error = Err::<(), _>(Errno::ENOENT).doing(|| "open \"/x\"".to_owned()).unwrap_err();
        assert_eq!(error.to_string(), "open \"/x\": no such file or directory");
        assert_eq!(error.errno(), Some(Errno::ENOENT));
    }

    #[test]
    fn context_nests_and_keeps_the_errno() {
        let error = Err::<(), _>(Errno::EPERM)
            .doing(|| "mount proc".to_owned())
            .doing(|| "mounts[0]".to_owned())
            .unwrap_err();
        assert_eq!(error.to_string(), "mounts[0]: mount proc: operation not permitted");
        assert_eq!(error.errno(), Some(Errno::EPERM));
    }
}
