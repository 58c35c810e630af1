//! The record of an exit: a file in the bundle, written before anybody is told.
//!
//! `exit.json` is the init's, `exits/<id>.json` that of an exec. `delete`, which cleans up behind a
//! shim that died, reads the init's, so that containerd gets the true status of a container that had
//! ended before its shim did. A record is replaced whole: whoever reads it sees one or none.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use containerd_shim_protos::api::DeleteResponse;
use corten::error::{Doing, Error, Result};
use protobuf::MessageField;
use protobuf::well_known_types::timestamp::Timestamp;
use serde::{Deserialize, Serialize};

/// The record of the init, and what the records of the execs are below.
const INIT: &str = "exit.json";
const EXECS: &str = "exits";

/// What is said of a process whose end nobody saw, by containerd itself too: SIGKILL's status.
pub const KILLED: u32 = 137;

/// How a process ended, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Its pid on the host.
    pub pid: u32,
    /// Its exit code, or 128 and the signal's number.
    pub status: u32,
    /// When it was seen.
    #[serde(with = "moment")]
    pub exited_at: SystemTime,
}

impl Exit {
    /// What Delete answers, and `delete`.
    pub fn delete_response(&self) -> DeleteResponse {
        DeleteResponse {
            pid: self.pid,
            exit_status: self.status,
            exited_at: MessageField::some(timestamp(self.exited_at)),
            ..DeleteResponse::default()
        }
    }
}

/// A moment as protobuf has it.
pub fn timestamp(moment: SystemTime) -> Timestamp {
    Timestamp::from(moment)
}

/// Seconds and nanoseconds after 1970, as protobuf's `Timestamp` has them.
mod moment {
    use serde::{Deserializer, Serializer};

    use super::{Deserialize, Duration, Serialize, SystemTime, UNIX_EPOCH};

    pub(super) fn serialize<S: Serializer>(at: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        (since.as_secs(), since.subsec_nanos()).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SystemTime, D::Error> {
        let (seconds, nanos) = <(u64, u32)>::deserialize(from)?;
        let since = Duration::from_secs(seconds).checked_add(Duration::from_nanos(nanos.into()));
        since
            .and_then(|since| UNIX_EPOCH.checked_add(since))
            .ok_or_else(|| serde::de::Error::custom("no moment"))
    }
}

/// Where the record of a process is; `exec` is the exec's id, none for the init. An id is a file
/// name here: containerd takes no others.
fn path(bundle: &Path, exec: Option<&str>) -> Result<PathBuf> {
    let Some(id) = exec else { return Ok(bundle.join(INIT)) };
    corten::cli::container_id(id.as_ref()).map_err(Error::Usage)?;
    Ok(bundle.join(EXECS).join(format!("{id}.json")))
}

/// Writes the record of a process.
///
/// # Errors
/// `ENOSPC`, `EROFS`, `ENOENT` when the bundle is gone; an id that is no file name.
pub fn write(bundle: &Path, exec: Option<&str>, exit: &Exit) -> Result<()> {
    let path = path(bundle, exec)?;
    let doing = || format!("write {}", path.display());
    let json =
        serde_json::to_vec(exit).map_err(|error| Error::Failed(format!("{}: {error}", doing())))?;
    let new = path.with_extension("new");
    match fs::write(&new, &json) {
        Err(error) if exec.is_some() && error.kind() == std::io::ErrorKind::NotFound => {
            fs::create_dir(bundle.join(EXECS)).doing(doing)?;
            fs::write(&new, &json).doing(doing)?;
        }
        other => other.doing(doing)?,
    }
    fs::rename(&new, &path).doing(doing)
}

/// Reads the record of a process; none when there is none.
///
/// # Errors
/// A record that is not understood.
pub fn read(bundle: &Path, exec: Option<&str>) -> Result<Option<Exit>> {
    let path = path(bundle, exec)?;
    let doing = || format!("read {}", path.display());
    let bytes = match fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.doing(doing)?,
    };
    let exit = serde_json::from_slice(&bytes)
        .map_err(|error| Error::Failed(format!("{}: {error}", doing())))?;
    Ok(Some(exit))
}

/// Removes the record of a process: it has been claimed, or its id is used again.
///
/// # Errors
/// `EROFS`, `EACCES`; that there is none is no error.
pub fn remove(bundle: &Path, exec: Option<&str>) -> Result<()> {
    let path = path(bundle, exec)?;
    match fs::remove_file(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.doing(|| format!("remove {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(status: u32) -> Exit {
        let exited_at = UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789);
        Exit { pid: 4711, status, exited_at }
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        for exec in [None, Some("exec-1"), Some("exit")] {
            assert_eq!(read(dir.path(), exec).unwrap(), None);
            write(dir.path(), exec, &exit(1)).unwrap();
            write(dir.path(), exec, &exit(137)).unwrap();
            assert_eq!(read(dir.path(), exec).unwrap(), Some(exit(137)));
        }
        assert_eq!(
            fs::read_to_string(dir.path().join("exit.json")).unwrap(),
            r#"{"pid":4711,"status":137,"exited_at":[1700000000,123456789]}"#
        );
        for exec in [None, Some("exec-1")] {
            remove(dir.path(), exec).unwrap();
            remove(dir.path(), exec).unwrap();
            assert_eq!(read(dir.path(), exec).unwrap(), None);
        }
        assert_eq!(read(dir.path(), Some("exit")).unwrap(), Some(exit(137)));
    }

    #[test]
    fn the_answer_field_by_field() {
        let exited_at = UNIX_EPOCH + Duration::new(300, 5);
        let response = Exit { pid: 7, status: 137, exited_at }.delete_response();
        let bytes = protobuf::Message::write_to_bytes(&response).unwrap();
        assert_eq!(bytes, [0x08, 7, 0x10, 0x89, 1, 0x1a, 5, 0x08, 0xac, 2, 0x10, 5]);
    }

    #[test]
    fn ids_that_are_no_file_names_and_records_that_are_none_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        for id in ["../x", "a/b", "", ".."] {
            assert!(write(dir.path(), Some(id), &exit(0)).is_err(), "{id}");
        }
        fs::write(dir.path().join("exit.json"), "{").unwrap();
        assert!(read(dir.path(), None).is_err());
        fs::write(
            dir.path().join("exit.json"),
            r#"{"pid":1,"status":2,"exited_at":[18446744073709551615,0]}"#,
        )
        .unwrap();
        assert!(read(dir.path(), None).is_err());
        assert!(write(&dir.path().join("gone"), None, &exit(0)).is_err());
    }
}
