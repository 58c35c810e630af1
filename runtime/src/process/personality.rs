//! `linux.personality`: which machine uname(2) claims to be.
//!
//! Promise: LINUX or LINUX32, read back. The spec defines no flags, so any flag is an error.
//!
//! Order: any time before the filter, which may not allow personality(2).

use oci_spec::runtime::{LinuxPersonality, LinuxPersonalityDomain};

use super::json_path;
use crate::error::{Doing, Error, Result};
use crate::sys::sched::personality;

/// The `PER_*` of personality(2), which libc lacks.
const PER_LINUX: u32 = 0;
const PER_LINUX32: u32 = 8;

/// An execution domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Personality(u32);

impl Personality {
    /// Validates the value at the JSON path `path` (`linux.personality`).
    ///
    /// # Errors
    /// A config error for any flag.
    pub fn new(personality: &LinuxPersonality, path: &str) -> Result<Self> {
        if let Some(flag) = personality.flags().iter().flatten().next() {
            let at = json_path(path, "flags[0]");
            return Err(Error::config(at, format!("{flag:?}: the spec defines no flags")));
        }
        let domain = match personality.domain() {
            LinuxPersonalityDomain::PerLinux => PER_LINUX,
            LinuxPersonalityDomain::PerLinux32 => PER_LINUX32,
        };
        Ok(Self(domain))
    }

    /// Sets it for this process and its children.
    ///
    /// # Errors
    /// A filter refuses it, or a read-back that differs.
    pub fn apply(self) -> Result<()> {
        let doing = || format!("set personality {:#x}", self.0);
        personality(Some(self.0)).doing(doing)?;
        match personality(None).doing(doing)? == self.0 {
            true => Ok(()),
            false => Err(Error::Failed(format!("{}: it is another one afterwards", doing()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::testing::in_child;

    fn plan(json: serde_json::Value) -> Result<Personality> {
        Personality::new(&serde_json::from_value(json).unwrap(), "linux.personality")
    }

    #[test]
    fn linux32_is_seen_by_uname() {
        in_child(|| {
            plan(serde_json::json!({"domain": "LINUX32"})).unwrap().apply().unwrap();
            let machine = nix::sys::utsname::uname().unwrap().machine().to_owned();
            assert_ne!(machine, "x86_64");
            plan(serde_json::json!({"domain": "LINUX", "flags": []})).unwrap().apply().unwrap();
        });
    }

    #[test]
    fn a_flag_is_an_error() {
        let error = plan(serde_json::json!({"domain": "LINUX", "flags": ["X"]})).unwrap_err();
        assert!(error.to_string().starts_with("config.json: linux.personality.flags[0]: "));
    }
}
