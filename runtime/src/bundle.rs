//! The bundle: a directory with a config and, usually, a root file system (runtime-spec, bundle.md).
//!
//! The runtime moves into it once, at the beginning, so that relative paths of the config
//! (`root.path`, mount sources) resolve from there, as runc does.

use std::path::{Path, PathBuf};

use nix::unistd::chdir;

use crate::error::{Doing, Result};
use crate::spec::{self, Loaded};

/// A bundle, entered.
#[derive(Debug)]
pub struct Bundle {
    /// Absolute, without symbolic links.
    pub path: PathBuf,
    /// The config in it.
    pub config: Loaded,
}

impl Bundle {
    /// Enters the bundle at `path` (the current directory if absent) and loads its config, which
    /// `config` can name another file for, relative to where the caller stood.
    ///
    /// # Errors
    /// When there is no such directory, or no valid config in it.
    pub fn enter(path: Option<&Path>, config: Option<&Path>) -> Result<Self> {
        let path = path.unwrap_or(Path::new("."));
        let absolute = path.canonicalize().doing(|| format!("open bundle {}", path.display()))?;
        let config =
            config.map(std::path::absolute).transpose().doing(|| "find config".to_owned())?;
        chdir(&absolute).doing(|| format!("enter bundle {}", absolute.display()))?;
        Ok(Self { config: spec::load(&absolute, config.as_deref())?, path: absolute })
    }

    /// Whether its program gets a terminal.
    pub fn wants_terminal(&self) -> bool {
        let process = self.config.spec.process().as_ref();
        process.is_some_and(|process| process.terminal().unwrap_or(false))
    }
}
