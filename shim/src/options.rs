//! The options of a runtime, in whatever envelope they come (`reference/shim.md` 3.1, 3.6).
//!
//! ctr, dockerd and a CRI whose runtime type is exactly `io.containerd.runc.v2` send
//! `containerd.runc.v1.Options`; a CRI with our own type sends `runtimeoptions.v1.Options`, which
//! holds the options table of its config as TOML, or the path of a file with it. Clients of
//! containerd 1.x may send our own type a third message, runc's of long ago. `options.json` in the
//! bundle keeps them for `delete`, which is started without. All of these end in [`Options`].
//!
//! Only `start`, `delete` and the workers parse; the loop passes what came on as it is.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{self, CodedInputStream, Message, rt};
use containerd_shim_protos::shim::oci;
use corten::error::{Doing, Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::transport::call::check_lengths;

/// Where the containers' state is when the options do not say; the namespace is a directory in it.
pub const ROOT: &str = "/run/containerd/corten";
/// The file in the bundle that keeps them.
const FILE: &str = "options.json";
/// The file in the bundle with the runtime's name alone, which Go's shims write too.
const RUNTIME: &str = "runtime";
/// A path in the CRI's options that names a larger file is a mistake.
const FILE_MAX: u64 = 1 << 20;

/// `containerd.runc.v1.Options`. The JSON is that of Go's shims.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Options {
    /// The root file system can't be pivoted to (it is the initramfs).
    #[serde(skip_serializing_if = "is_default")]
    pub no_pivot_root: bool,
    /// The container shares the session keyring of its creator.
    #[serde(skip_serializing_if = "is_default")]
    pub no_new_keyring: bool,
    /// The cgroup that the shim itself belongs in.
    #[serde(skip_serializing_if = "is_default")]
    pub shim_cgroup: String,
    /// The owner of the standard streams, for containers with a user namespace.
    #[serde(skip_serializing_if = "is_default")]
    pub io_uid: u32,
    /// Their group.
    #[serde(skip_serializing_if = "is_default")]
    pub io_gid: u32,
    /// The runtime binary, which we have linked in.
    #[serde(skip_serializing_if = "is_default")]
    pub binary_name: String,
    /// Where the containers' state is, without the namespace.
    #[serde(skip_serializing_if = "is_default")]
    pub root: String,
    /// systemd makes the cgroups.
    pub systemd_cgroup: bool,
    /// Where the images of a checkpoint are.
    #[serde(skip_serializing_if = "is_default")]
    pub criu_image_path: String,
    /// Where CRIU works.
    #[serde(skip_serializing_if = "is_default")]
    pub criu_work_path: String,
    /// The task service to use instead of starting a shim, for sandboxed containers.
    #[serde(skip_serializing_if = "is_default")]
    pub task_api_address: String,
    /// Its version.
    #[serde(skip_serializing_if = "is_default")]
    pub task_api_version: u32,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// The types that an `Any` of ours can have, by the name behind the last slash of its URL.
const RUNC: &str = "containerd.runc.v1.Options";
/// The client library of containerd 1.x writes its own options of a task (the owner of the streams
/// for user namespaces, `no_pivot_root`) so for every runtime that is not called runc.
const LINUX: &str = "containerd.linux.runc.CreateOptions";
/// What every other runtime gets from the CRI, and what it was called before containerd 1.5.
const GENERIC: [&str; 2] = ["runtimeoptions.v1.Options", "cri.runtimeoptions.v1.Options"];

/// All types of options.
#[cfg(any(test, fuzzing))]
pub(crate) const TYPES: [&str; 4] = [RUNC, LINUX, GENERIC[0], GENERIC[1]];

/// `runtimeoptions.v1.Options`, which the generated messages lack.
#[derive(Debug, Default)]
struct Generic {
    config_path: String,
    config_body: Vec<u8>,
}

impl Options {
    /// What came with a request: nothing means the defaults.
    ///
    /// # Errors
    /// [`Error::Usage`] that names the type, for one that is not known and for a value that is not
    /// of its type.
    pub fn from_any(any: Option<&Any>) -> Result<Self> {
        let Some(any) = any.filter(|any| !any.type_url.is_empty()) else {
            return Ok(Self::default());
        };
        let wrong = |why: String| Error::Usage(format!("runtime options {}: {why}", any.type_url));
        if type_name(any) != RUNC || !is_json(&any.value) {
            check_lengths(&any.value).map_err(|error| wrong(error.to_string()))?;
        }
        match type_name(any) {
            RUNC if is_json(&any.value) => Self::from_json(&any.value).map_err(wrong),
            RUNC => oci::Options::parse_from_bytes(&any.value)
                .map(Self::from_message)
                .map_err(|error| wrong(error.to_string())),
            LINUX => Self::from_linux(&any.value).map_err(|error| wrong(error.to_string())),
            name if GENERIC.contains(&name) => {
                let generic = Generic::parse(&any.value).map_err(wrong)?;
                Self::from_generic(&generic).map_err(wrong)
            }
            _ => Err(wrong("not a type of options that this runtime has".to_owned())),
        }
    }

    /// Whether [`Options::from_any`] knows the type.
    pub fn is_type_of(any: &Any) -> bool {
        let name = type_name(any);
        name == RUNC || name == LINUX || GENERIC.contains(&name)
    }

    fn from_message(message: oci::Options) -> Self {
        Self {
            no_pivot_root: message.no_pivot_root,
            no_new_keyring: message.no_new_keyring,
            shim_cgroup: message.shim_cgroup,
            io_uid: message.io_uid,
            io_gid: message.io_gid,
            binary_name: message.binary_name,
            root: message.root,
            systemd_cgroup: message.systemd_cgroup,
            criu_image_path: message.criu_image_path,
            criu_work_path: message.criu_work_path,
            task_api_address: message.task_api_address,
            task_api_version: message.task_api_version,
        }
    }

    /// [`LINUX`]; what it says about checkpoints only is left out.
    fn from_linux(bytes: &[u8]) -> protobuf::Result<Self> {
        let mut options = Self::default();
        let mut stream = CodedInputStream::from_bytes(bytes);
        while let Some(tag) = stream.read_raw_tag_or_eof()? {
            // The number of the field, and whether it has a length (2) or is a number (0).
            match (tag >> 3, tag & 7) {
                (1, 0) => options.no_pivot_root = stream.read_bool()?,
                (8, 0) => options.no_new_keyring = stream.read_bool()?,
                (9, 2) => options.shim_cgroup = stream.read_string()?,
                (10, 0) => options.io_uid = stream.read_uint32()?,
                (11, 0) => options.io_gid = stream.read_uint32()?,
                (12, 2) => options.criu_work_path = stream.read_string()?,
                (13, 2) => options.criu_image_path = stream.read_string()?,
                _ => rt::skip_field_for_tag(tag, &mut stream)?,
            }
        }
        Ok(options)
    }

    fn from_generic(generic: &Generic) -> Result<Self, String> {
        let toml = match (generic.config_path.as_str(), generic.config_body.as_slice()) {
            ("", body) => String::from_utf8(body.to_vec()).map_err(|error| error.to_string())?,
            (path, _) => read_config(Path::new(path)).map_err(|error| error.to_string())?,
        };
        Self::from_toml(&toml)
    }

    pub(crate) fn from_toml(toml: &str) -> Result<Self, String> {
        let table: Map<String, Value> =
            basic_toml::from_str(toml).map_err(|error| error.to_string())?;
        Self::from_table(&table)
    }

    pub(crate) fn from_json(bytes: &[u8]) -> Result<Self, String> {
        let table: Map<String, Value> =
            serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        Self::from_table(&table)
    }

    /// Go reads names without regard to case, and writes them as `SystemdCgroup`, `systemd_cgroup`
    /// and `systemdCgroup`. What is not known is for others that read the same table.
    fn from_table(table: &Map<String, Value>) -> Result<Self, String> {
        let mut options = Self::default();
        for (key, value) in table {
            let name = key.replace('_', "").to_ascii_lowercase();
            let known = match name.as_str() {
                "nopivotroot" => set(&mut options.no_pivot_root, value),
                "nonewkeyring" => set(&mut options.no_new_keyring, value),
                "shimcgroup" => set(&mut options.shim_cgroup, value),
                "iouid" => set(&mut options.io_uid, value),
                "iogid" => set(&mut options.io_gid, value),
                "binaryname" => set(&mut options.binary_name, value),
                "root" => set(&mut options.root, value),
                "systemdcgroup" => set(&mut options.systemd_cgroup, value),
                "criuimagepath" => set(&mut options.criu_image_path, value),
                "criuworkpath" => set(&mut options.criu_work_path, value),
                "taskapiaddress" => set(&mut options.task_api_address, value),
                "taskapiversion" => set(&mut options.task_api_version, value),
                // The envelope's own names, and one that runc's options had.
                "typeurl" | "configpath" | "configbody" | "criupath" => continue,
                _ => {
                    tracing::warn!("runtime option {key} is not known");
                    continue;
                }
            };
            known.map_err(|why| format!("{key}: {why}"))?;
        }
        Ok(options)
    }

    /// The state directory of the runtime for the containers of `namespace`.
    pub fn runtime_root(&self, namespace: &str) -> PathBuf {
        let root = if self.root.is_empty() { ROOT } else { self.root.as_str() };
        Path::new(root).join(namespace)
    }

    /// Keeps them in the bundle for `delete`, in the two files that Go's shims write.
    ///
    /// # Errors
    /// `ENOSPC`, `EROFS`.
    pub fn write(&self, bundle: &Path) -> Result<()> {
        let json = serde_json::to_vec(self)
            .map_err(|error| Error::Failed(format!("write {FILE}: {error}")))?;
        write(&bundle.join(FILE), &json)?;
        write(&bundle.join(RUNTIME), self.binary_name.as_bytes())
    }

    /// What [`Options::write`] or a Go shim kept in the bundle; nothing there means the defaults.
    ///
    /// # Errors
    /// When it is not understood: the state may then be elsewhere.
    pub fn read(bundle: &Path) -> Result<Self> {
        let path = bundle.join(FILE);
        let doing = || format!("read {}", path.display());
        match fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            other => Self::from_json(&other.doing(doing)?)
                .map_err(|why| Error::Failed(format!("{}: {why}", doing()))),
        }
    }
}

/// `type.googleapis.com/a.b.C` and `a.b.C` are the same type.
fn type_name(any: &Any) -> &str {
    any.type_url.rsplit('/').next().unwrap_or_default()
}

/// No message of ours can begin with this byte: it would open a group of number 15.
fn is_json(value: &[u8]) -> bool {
    value.first() == Some(&b'{')
}

fn set<T: serde::de::DeserializeOwned>(field: &mut T, value: &Value) -> Result<(), String> {
    *field = T::deserialize(value).map_err(|error| error.to_string())?;
    Ok(())
}

fn read_config(path: &Path) -> Result<String> {
    let doing = || format!("read {}", path.display());
    let size = fs::metadata(path).doing(doing)?;
    if !size.is_file() || size.len() > FILE_MAX {
        return Err(Error::Failed(format!("{}: not a file of options", doing())));
    }
    fs::read_to_string(path).doing(doing)
}

/// Whole or not at all, and for root alone.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let doing = || format!("write {}", path.display());
    let new = path.with_extension("new");
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)
        .doing(doing)?;
    file.write_all(bytes).doing(doing)?;
    fs::rename(&new, path).doing(doing)
}

impl Generic {
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let read = || -> protobuf::Result<Self> {
            let mut generic = Self::default();
            let mut stream = CodedInputStream::from_bytes(bytes);
            while let Some(tag) = stream.read_raw_tag_or_eof()? {
                match tag {
                    // Fields 2 and 3, both of which have a length. 1 is a type for others.
                    0x12 => generic.config_path = stream.read_string()?,
                    0x1a => generic.config_body = stream.read_bytes()?,
                    tag => rt::skip_field_for_tag(tag, &mut stream)?,
                }
            }
            Ok(generic)
        };
        read().map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests;
