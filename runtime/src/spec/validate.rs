//! What must hold between the values of a config, where no later stage owns the subject: versions,
//! required sections, annotations, paths of masks, and what this version does not do.
//!
//! Owned elsewhere: host names, mappings, time offsets and network devices by `namespaces` and
//! `userns`, mounts and devices by `rootfs`, the whole process by `process`, hooks, seccomp,
//! resources and cgroupsPath by their modules. All of it is planned before the first resource
//! exists, so a refused config leaves nothing behind.

use std::collections::HashMap;
use std::path::Path;

use oci_spec::runtime::{Linux, LinuxNamespaceType, Spec};

use crate::error::{Error, Result};

/// Checks a whole config.
///
/// # Errors
/// [`Error::Config`] with the JSON path of the first mistake.
pub fn spec(spec: &Spec) -> Result<()> {
    version(spec.version())?;
    let Some(root) = spec.root() else { return Err(missing("root")) };
    if root.path().as_os_str().is_empty() {
        return Err(missing("root.path"));
    }
    if spec.process().is_none() {
        return Err(missing("process"));
    }
    if let Some(annotations) = spec.annotations() {
        annotations_have_names(annotations)?;
    }
    if let Some(section) = spec.linux() {
        linux(section)?;
    }
    Ok(())
}

/// config.md: SemVer 2.0.0; another major version may mean something else by the same words.
fn version(version: &str) -> Result<()> {
    if version.is_empty() {
        return Err(missing("ociVersion"));
    }
    let core = version.split(['-', '+']).next().unwrap_or_default();
    let mut numbers = core.split('.').map(str::parse::<u64>);
    match (numbers.next(), numbers.next(), numbers.next(), numbers.next()) {
        (Some(Ok(1)), Some(Ok(_)), Some(Ok(_)), None) => Ok(()),
        (Some(Ok(_)), Some(Ok(_)), Some(Ok(_)), None) => Err(Error::config(
            "ociVersion",
            format!("{version:?} is not supported: the major version must be 1"),
        )),
        _ => Err(Error::config("ociVersion", format!("{version:?} is not a version like 1.3.0"))),
    }
}

fn annotations_have_names(annotations: &HashMap<String, String>) -> Result<()> {
    if annotations.contains_key("") {
        return Err(Error::config("annotations", "a key is empty"));
    }
    Ok(())
}

fn linux(linux: &Linux) -> Result<()> {
    // What `features` says is not there must not be left out silently.
    if linux.intel_rdt().is_some() {
        return Err(Error::config("linux.intelRdt", "is not supported by this version of corten"));
    }
    for (name, paths) in
        [("maskedPaths", linux.masked_paths()), ("readonlyPaths", linux.readonly_paths())]
    {
        for (index, path) in paths.iter().flatten().enumerate() {
            absolute(Path::new(path), || format!("linux.{name}[{index}]"))?;
        }
        if paths.as_ref().is_some_and(|paths| !paths.is_empty())
            && !has(linux, LinuxNamespaceType::Mount)
        {
            return Err(needs(&format!("linux.{name}"), "mount"));
        }
    }
    Ok(())
}

/// Whether the container has a namespace of its own of this type, new or joined.
fn has(linux: &Linux, typ: LinuxNamespaceType) -> bool {
    linux.namespaces().iter().flatten().any(|namespace| namespace.typ() == typ)
}

fn absolute(value: &Path, path: impl Fn() -> String) -> Result<()> {
    if value.as_os_str().is_empty() {
        Err(missing(&path()))
    } else if value.is_absolute() {
        Ok(())
    } else {
        Err(Error::config(path(), format!("{value:?} is not an absolute path")))
    }
}

fn missing(path: &str) -> Error {
    Error::config(path, "is missing or empty")
}

fn needs(path: &str, namespace: &str) -> Error {
    Error::config(path, format!("needs a {namespace} namespace in linux.namespaces"))
}
