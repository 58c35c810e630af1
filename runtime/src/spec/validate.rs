//! What must hold between the values of a config, where no later stage owns the subject: versions,
//! required sections, the process, hooks, annotations, and what needs a namespace to be there.
//!
//! Owned elsewhere: mounts and devices by `rootfs`, rlimits, capabilities and env by `process`,
//! seccomp, resources and cgroupsPath by their modules. Everything here runs before the first
//! resource exists, so a refused config leaves nothing behind.

use std::collections::HashMap;
use std::path::Path;

use oci_spec::runtime::{Hook, Hooks, Linux, LinuxNamespaceType, Process, Spec};

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
    let Some(process) = spec.process() else { return Err(missing("process")) };
    self::process(process, "process")?;
    if let Some(hooks) = spec.hooks() {
        self::hooks(hooks)?;
    }
    if let Some(annotations) = spec.annotations() {
        annotations_have_names(annotations)?;
    }
    names(spec)?;
    if let Some(section) = spec.linux() {
        linux(section)?;
    }
    Ok(())
}

/// Checks a process: of a config, or of `exec --process`. `path` is its JSON path.
///
/// # Errors
/// [`Error::Config`] with the JSON path of the first mistake.
pub fn process(process: &Process, path: &str) -> Result<()> {
    if process.args().as_ref().is_none_or(Vec::is_empty) {
        return Err(missing(&format!("{path}.args")));
    }
    absolute(process.cwd(), || format!("{path}.cwd"))
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

/// config.md, POSIX-platform Hooks: path must be absolute, timeout greater than zero.
fn hooks(hooks: &Hooks) -> Result<()> {
    for (kind, list) in [
        ("prestart", hooks.prestart()),
        ("createRuntime", hooks.create_runtime()),
        ("createContainer", hooks.create_container()),
        ("startContainer", hooks.start_container()),
        ("poststart", hooks.poststart()),
        ("poststop", hooks.poststop()),
    ] {
        for (index, hook) in list.iter().flatten().enumerate() {
            self::hook(hook, &format!("hooks.{kind}[{index}]"))?;
        }
    }
    Ok(())
}

fn hook(hook: &Hook, path: &str) -> Result<()> {
    absolute(hook.path(), || format!("{path}.path"))?;
    match hook.timeout() {
        Some(timeout) if timeout <= 0 => {
            Err(Error::config(format!("{path}.timeout"), format!("{timeout} is not above zero")))
        }
        _ => Ok(()),
    }
}

fn annotations_have_names(annotations: &HashMap<String, String>) -> Result<()> {
    if annotations.contains_key("") {
        return Err(Error::config("annotations", "a key is empty"));
    }
    Ok(())
}

/// sethostname in the host's uts namespace would rename the host.
fn names(spec: &Spec) -> Result<()> {
    let uts = spec.linux().as_ref().is_some_and(|linux| has(linux, LinuxNamespaceType::Uts));
    for (path, name) in [("hostname", spec.hostname()), ("domainname", spec.domainname())] {
        if !uts && name.as_ref().is_some_and(|name| !name.is_empty()) {
            return Err(needs(path, "uts"));
        }
    }
    Ok(())
}

fn linux(linux: &Linux) -> Result<()> {
    let user = has(linux, LinuxNamespaceType::User);
    for (path, mappings) in
        [("linux.uidMappings", linux.uid_mappings()), ("linux.gidMappings", linux.gid_mappings())]
    {
        if !user && mappings.as_ref().is_some_and(|mappings| !mappings.is_empty()) {
            return Err(needs(path, "user"));
        }
    }
    let offsets = linux.time_offsets().as_ref().is_some_and(|offsets| !offsets.is_empty());
    if offsets && !has(linux, LinuxNamespaceType::Time) {
        return Err(needs("linux.timeOffsets", "time"));
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
