//! `corten features`: prints what this runtime can do, as JSON (features.md, features-linux.md).
//!
//! A list names what this build understands, whatever the kernel; only `supportedFlags` asks the
//! kernel. An absent member would mean "not known", so what is not there is said: `false`, `[]`.
//! containerd wants `rro` and `idmap` before it makes pods with user namespaces; cri-o reads
//! standard error together with the document (P9), so nothing is logged here.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::json;
use serde_json::ser::{PrettyFormatter, Serializer};

use crate::cli::Globals;
use crate::cli::options::arguments;
use crate::error::{Error, Result};
use crate::rootfs::options;
use crate::seccomp::{known, supported_flags};
use crate::{log, output};

arguments! {
    /// `corten features` has no arguments.
    pub struct Args {
    }
}

/// The document. Members in the order of features.md.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Features {
    oci_version_min: &'static str,
    oci_version_max: &'static str,
    hooks: &'static [&'static str],
    mount_options: Vec<&'static str>,
    linux: serde_json::Value,
    annotations: BTreeMap<&'static str, &'static str>,
    potentially_unsafe_config_annotations: &'static [&'static str],
}

/// Every hook is run.
const HOOKS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// Every namespace of the spec, new or joined.
const NAMESPACES: [&str; 8] = ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"];

/// The modes and flags of linux.memoryPolicy.
const MEMORY_MODES: [&str; 7] = [
    "MPOL_DEFAULT",
    "MPOL_BIND",
    "MPOL_INTERLEAVE",
    "MPOL_WEIGHTED_INTERLEAVE",
    "MPOL_PREFERRED",
    "MPOL_PREFERRED_MANY",
    "MPOL_LOCAL",
];
const MEMORY_FLAGS: [&str; 3] =
    ["MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"];

/// Carries out `corten features`; the answer is the process's exit code.
///
/// # Errors
/// [`Error::Sys`] if standard output is gone.
pub fn run(_globals: &Globals, _args: &Args) -> Result<u8> {
    let text = text()?;
    drop(log::take());
    output::print(&text)?;
    Ok(0)
}

/// The document as JSON, as it is printed.
///
/// # Errors
/// None that a correct program could see.
pub fn text() -> Result<String> {
    let mut bytes = Vec::new();
    let indented = PrettyFormatter::with_indent(b"    ");
    features()
        .serialize(&mut Serializer::with_formatter(&mut bytes, indented))
        .map_err(|error| Error::Failed(format!("features: {error}")))?;
    bytes.push(b'\n');
    String::from_utf8(bytes).map_err(|error| Error::Failed(format!("features: {error}")))
}

fn features() -> Features {
    Features {
        oci_version_min: "1.0.0",
        oci_version_max: super::version::SPEC,
        hooks: &HOOKS,
        mount_options: options::known().collect(),
        linux: linux(),
        annotations: BTreeMap::from([
            ("org.corten.version", env!("CARGO_PKG_VERSION")),
            ("org.corten.commit", super::version::COMMIT),
            ("org.corten.checkpoint.enabled", "false"),
        ]),
        potentially_unsafe_config_annotations: &["org.systemd.property."],
    }
}

fn linux() -> serde_json::Value {
    let seccomp = known();
    json!({
        "namespaces": NAMESPACES,
        "capabilities": capabilities(),
        "cgroup": {
            "v1": true,
            "v2": true,
            "systemd": true,
            "systemdUser": true,
            "rdma": true,
        },
        "seccomp": {
            "enabled": true,
            "actions": seccomp.actions,
            "operators": seccomp.operators,
            "archs": seccomp.archs,
            "knownFlags": seccomp.flags,
            "supportedFlags": supported_flags(),
        },
        "apparmor": { "enabled": true },
        "selinux": { "enabled": true },
        "memoryPolicy": { "modes": MEMORY_MODES, "flags": MEMORY_FLAGS },
        "intelRdt": { "enabled": false, "schemata": false, "monitoring": false },
        "mountExtensions": { "idmap": { "enabled": true } },
        "netDevices": { "enabled": false },
    })
}

/// The capabilities that a config may name, in the kernel's order.
fn capabilities() -> Vec<String> {
    let mut all: Vec<caps::Capability> = caps::all().into_iter().collect();
    all.sort_by_key(caps::Capability::index);
    all.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::text;

    #[test]
    fn managers_find_what_they_look_for() {
        let tree: Value = serde_json::from_str(&text().unwrap()).unwrap();
        assert!(!tree["ociVersionMin"].as_str().unwrap().is_empty());
        assert_eq!(tree["ociVersionMax"], "1.3.0");
        let options = tree["mountOptions"].as_array().unwrap();
        for wanted in ["rro", "rbind", "idmap", "ridmap", "tmpcopyup", "nosymfollow"] {
            assert!(options.iter().any(|option| option == wanted), "{wanted}");
        }
        assert_eq!(tree["linux"]["mountExtensions"]["idmap"]["enabled"], true);
        let namespaces = tree["linux"]["namespaces"].as_array().unwrap();
        assert!(namespaces.iter().any(|name| name == "user"));
    }

    #[test]
    fn a_memory_policy_may_have_each_mode_and_flag() {
        use oci_spec::runtime::{MemoryPolicyFlagType, MemoryPolicyModeType};
        for mode in super::MEMORY_MODES {
            serde_json::from_value::<MemoryPolicyModeType>(Value::from(mode)).unwrap();
        }
        for flag in super::MEMORY_FLAGS {
            serde_json::from_value::<MemoryPolicyFlagType>(Value::from(flag)).unwrap();
        }
    }

    #[test]
    fn every_capability_is_one_that_a_config_may_name() {
        let names = super::capabilities();
        assert_eq!(names.first().unwrap(), "CAP_CHOWN");
        assert!(names.len() >= 41, "{names:?}");
        for name in names {
            serde_json::from_value::<oci_spec::runtime::Capability>(Value::from(name)).unwrap();
        }
    }
}
