//! `corten list`: lists containers.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Serialize;

use crate::cli::options::arguments;
use crate::cli::{Format, Globals, RootFrom, format};
use crate::error::{Doing, Error, Result};
use crate::output;
use crate::state::{State, Status};

arguments! {
    /// The arguments of `corten list`.
    pub struct Args {
        /// table or json.
        format: Format = value("FORMAT", format), short 'f', default "table";
        /// Print only ids.
        quiet: bool = flag, short 'q';
    }
}

/// A container as `state` and `list` print it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry<'a> {
    /// The spec version of the container's config.
    pub oci_version: &'a str,
    /// The container's id.
    pub id: &'a str,
    /// The first process, 0 without one.
    pub pid: i32,
    /// What is true now.
    pub status: Status,
    /// The bundle's absolute path.
    pub bundle: &'a Path,
    /// The root file system's absolute path.
    pub rootfs: &'a Path,
    /// RFC 3339 with nanoseconds.
    pub created: &'a str,
    /// Of the config.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: &'a BTreeMap<String, String>,
    /// The user who created it: a name, or `#uid`.
    pub owner: &'a str,
}

impl<'a> Entry<'a> {
    /// The container of this journal, as it is now.
    ///
    /// # Errors
    /// When its status can't be known.
    pub fn new(state: &'a State, owner: &'a str) -> Result<Self> {
        let status = state.status()?;
        // Any other status means that the recorded process lives, or that there is none yet.
        let init = state.init.filter(|_| status != Status::Stopped);
        Ok(Self {
            oci_version: &state.oci_version,
            id: &state.id,
            pid: init.map_or(0, |init| init.pid),
            status,
            bundle: &state.bundle,
            rootfs: &state.rootfs,
            created: &state.created,
            annotations: &state.annotations,
            owner,
        })
    }
}

/// Carries out `corten list`; the answer is the process's exit code.
///
/// # Errors
/// The state directory cannot be read, or was named by `--root` and is not there. A container that
/// cannot be read is a warning.
pub fn run(globals: &Globals, args: &Args) -> Result<u8> {
    if globals.root_from == RootFrom::Option {
        fs::metadata(&globals.root).doing(|| format!("open {}", globals.root.display()))?;
    }
    let store = globals.store();
    let mut states = Vec::new();
    for id in store.ids()? {
        match store.open(&id).and_then(|dir| dir.read_state()) {
            Ok(state) => states.push(state),
            // Deleted since the directory was read.
            Err(Error::NotFound(_)) => {}
            Err(error) => tracing::warn!("load container {id}: {error}"),
        }
    }
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let owners: Vec<String> = states.iter().map(|state| owner(state.owner, &passwd)).collect();
    let mut entries = Vec::with_capacity(states.len());
    for (state, owner) in states.iter().zip(&owners) {
        match Entry::new(state, owner) {
            Ok(entry) => entries.push(entry),
            Err(error) => tracing::warn!("load container {}: {error}", state.id),
        }
    }
    output::print(&match (args.quiet, args.format) {
        (true, _) => quiet(&entries),
        (false, Format::Table) => table(&entries),
        (false, Format::Json) => json(&entries)?,
    })?;
    Ok(0)
}

/// The name of a user; NSS is not for static programs, so only `/etc/passwd` is asked.
fn owner(uid: u32, passwd: &str) -> String {
    let wanted = uid.to_string();
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == wanted).then_some(name)
    });
    name.map_or_else(|| format!("#{uid}"), str::to_owned)
}

fn quiet(entries: &[Entry<'_>]) -> String {
    entries.iter().flat_map(|entry| [entry.id, "\n"]).collect()
}

/// One line; `null` for none, as Go prints an empty list.
fn json(entries: &[Entry<'_>]) -> Result<String> {
    if entries.is_empty() {
        return Ok("null\n".to_owned());
    }
    let text =
        serde_json::to_string(entries).map_err(|error| Error::Failed(format!("list: {error}")))?;
    Ok(format!("{text}\n"))
}

fn table(entries: &[Entry<'_>]) -> String {
    let mut rows = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned)];
    rows.extend(entries.iter().map(|entry| {
        [
            entry.id.to_owned(),
            entry.pid.to_string(),
            entry.status.to_string(),
            entry.bundle.display().to_string(),
            entry.created.to_owned(),
            entry.owner.to_owned(),
        ]
    }));
    output::columns(&rows)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    static NONE: BTreeMap<String, String> = BTreeMap::new();

    pub(in super::super) fn entry(id: &str) -> Entry<'_> {
        Entry {
            oci_version: "1.3.0",
            id,
            pid: 42,
            status: Status::Running,
            bundle: Path::new("/b"),
            rootfs: Path::new("/b/rootfs"),
            created: "2023-11-14T22:13:20.5Z",
            annotations: &NONE,
            owner: "",
        }
    }

    #[test]
    fn a_table_is_runc_s() {
        let entries = [entry("a"), entry("a-long-container-id")];
        assert_eq!(
            table(&entries),
            "ID                    PID         STATUS      BUNDLE      CREATED                  OWNER\n\
             a                     42          running     /b          2023-11-14T22:13:20.5Z   \n\
             a-long-container-id   42          running     /b          2023-11-14T22:13:20.5Z   \n"
        );
        assert_eq!(
            table(&[]),
            "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n"
        );
        assert_eq!(quiet(&entries), "a\na-long-container-id\n");
    }

    #[test]
    fn json_is_one_line_and_null_when_empty() {
        assert_eq!(json(&[]).unwrap(), "null\n");
        let annotations = BTreeMap::from([("k".to_owned(), "v".to_owned())]);
        let entries = [Entry { owner: "root", annotations: &annotations, ..entry("a") }];
        assert_eq!(
            json(&entries).unwrap(),
            "[{\"ociVersion\":\"1.3.0\",\"id\":\"a\",\"pid\":42,\"status\":\"running\",\
             \"bundle\":\"/b\",\"rootfs\":\"/b/rootfs\",\"created\":\"2023-11-14T22:13:20.5Z\",\
             \"annotations\":{\"k\":\"v\"},\"owner\":\"root\"}]\n"
        );
    }

    #[test]
    fn an_owner_has_a_name_or_a_number() {
        let passwd = "root:x:0:0::/:/bin/sh\nbroken\nann:x:1000:1000::/:/bin/sh\n";
        assert_eq!(owner(0, passwd), "root");
        assert_eq!(owner(1000, passwd), "ann");
        assert_eq!(owner(100, passwd), "#100");
    }
}
