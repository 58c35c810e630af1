//! `corten spec`: writes a config.json to start from.
//!
//! It runs a shell on a terminal in the bundle's `rootfs`, with few privileges. The ordinary user's
//! variant maps that user to root, keeps the host's network, and asks for nothing that only root
//! may do.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use nix::unistd::{getegid, geteuid};

use crate::cli::Globals;
use crate::cli::options::{arguments, path};
use crate::error::{Doing, Error, Result};

arguments! {
    /// The arguments of `corten spec`.
    pub struct Args {
        /// Directory to write config.json to [default: the current directory].
        bundle: Option<PathBuf> = value("DIR", path), short 'b';
        /// Write one for an ordinary user's container.
        rootless: bool = flag;
    }
}

/// The config for root.
const CONFIG: &str = include_str!("default-config.json");

/// What an ordinary user's config has instead: the text of [`CONFIG`] and its replacement.
const ROOTLESS: [(&str, &str); 5] = [
    // The group 5 is not mapped.
    (",\n\t\t\t\t\"gid=5\"", ""),
    // A new sysfs needs a network namespace of one's own.
    (
        "\t\t\t\"type\": \"sysfs\",\n\t\t\t\"source\": \"sysfs\",\n\t\t\t\"options\": [\n",
        "\t\t\t\"type\": \"none\",\n\t\t\t\"source\": \"/sys\",\n\t\t\t\"options\": [\n\t\t\t\t\"rbind\",\n",
    ),
    (
        "\t\t\"resources\": {\n\t\t\t\"devices\": [\n\t\t\t\t{\n\t\t\t\t\t\"allow\": false,\n\t\t\t\t\t\"access\": \"rwm\"\n\t\t\t\t}\n\t\t\t]\n\t\t},\n",
        "\t\t\"uidMappings\": [\n\t\t\t{\n\t\t\t\t\"containerID\": 0,\n\t\t\t\t\"hostID\": UID,\n\t\t\t\t\"size\": 1\n\t\t\t}\n\t\t],\n\t\t\"gidMappings\": [\n\t\t\t{\n\t\t\t\t\"containerID\": 0,\n\t\t\t\t\"hostID\": GID,\n\t\t\t\t\"size\": 1\n\t\t\t}\n\t\t],\n",
    ),
    ("\t\t\t{\n\t\t\t\t\"type\": \"network\"\n\t\t\t},\n", ""),
    (
        "\t\t\t{\n\t\t\t\t\"type\": \"cgroup\"\n\t\t\t}\n",
        "\t\t\t{\n\t\t\t\t\"type\": \"cgroup\"\n\t\t\t},\n\t\t\t{\n\t\t\t\t\"type\": \"user\"\n\t\t\t}\n",
    ),
];

/// Carries out `corten spec`; the answer is the process's exit code.
///
/// # Errors
/// There is a config.json already, or the directory cannot be written to.
pub fn run(_globals: &Globals, args: &Args) -> Result<u8> {
    let path = args.bundle.clone().unwrap_or_default().join("config.json");
    let text = if args.rootless {
        rootless(geteuid().as_raw(), getegid().as_raw())
    } else {
        CONFIG.to_owned()
    };
    let file = File::options().write(true).create_new(true).open(&path);
    let mut file = match file {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(Error::Failed("File config.json exists. Remove it first".to_owned()));
        }
        other => other.doing(|| format!("create {}", path.display()))?,
    };
    file.write_all(text.as_bytes()).doing(|| format!("write {}", path.display()))?;
    Ok(0)
}

fn rootless(uid: u32, gid: u32) -> String {
    let mut text = CONFIG.to_owned();
    for (from, to) in ROOTLESS {
        text = text.replacen(from, to, 1);
    }
    text.replacen("UID", &uid.to_string(), 1).replacen("GID", &gid.to_string(), 1)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::spec;

    #[test]
    fn both_configs_are_valid() {
        for text in [CONFIG.to_owned(), rootless(1000, 1001)] {
            spec::validate::spec(&spec::parse(text.as_bytes()).unwrap()).unwrap();
        }
    }

    #[test]
    fn the_rootless_config_differs_in_what_only_root_may_do() {
        assert!(ROOTLESS.iter().all(|(from, _)| CONFIG.contains(from)));
        let tree: Value = serde_json::from_str(&rootless(1000, 1001)).unwrap();
        assert_eq!(tree["linux"]["uidMappings"][0]["hostID"], 1000);
        assert_eq!(tree["linux"]["gidMappings"][0]["hostID"], 1001);
        assert_eq!(tree["mounts"][5]["source"], "/sys");
        assert!(tree["linux"]["resources"].is_null());
        let types: Vec<&str> = tree["linux"]["namespaces"]
            .as_array()
            .unwrap()
            .iter()
            .map(|namespace| namespace["type"].as_str().unwrap())
            .collect();
        assert_eq!(types, ["pid", "ipc", "uts", "mount", "cgroup", "user"]);
    }
}
