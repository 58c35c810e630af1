//! The environment of a container's process.
//!
//! Promise: the entries of `process.env` verbatim and in order; of a name that comes twice only
//! the last value is kept, at the place of the first (libc's `getenv` finds the first, so keeping
//! both would hide the override that managers append). `HOME` is added from the *container's*
//! /etc/passwd when it is missing or empty.
//!
//! Order: [`Env::add_home`] after the root has been pivoted, before the identity is given up (the
//! file may be unreadable to the container's user).
//!
//! Threat: the passwd file is the image's. It may be a fifo, a device, a symbolic link out of the
//! root, or endless: it is opened below the root fd without magic links, must be a regular file,
//! and only its first [`PASSWD_LIMIT`] bytes count.

use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::{cstring, json_path, open_in_root};
use crate::error::{Doing, Error, Result};

/// How much of /etc/passwd is looked at, in bytes.
const PASSWD_LIMIT: u64 = 4 << 20;

/// Ordered, without duplicates, every entry with a `=`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Env(Vec<CString>);

impl Env {
    /// Validates `env`, the value at the JSON path `path` (`process.env`).
    ///
    /// # Errors
    /// A config error for an entry without `=`, with an empty name, or with a NUL.
    pub fn new(env: &[String], path: &str) -> Result<Self> {
        let mut entries: Vec<CString> = Vec::with_capacity(env.len() + 4);
        let mut places: HashMap<&str, usize> = HashMap::with_capacity(env.len());
        for (index, entry) in env.iter().enumerate() {
            let at = || json_path(path, &format!("[{index}]"));
            let name = match entry.split_once('=') {
                Some((name, _)) if !name.is_empty() => name,
                _ => return Err(Error::config(at(), format!("{entry:?} is not NAME=value"))),
            };
            let value = cstring(entry.as_bytes(), at)?;
            match places.get(name) {
                Some(place) => entries[*place] = value,
                None => {
                    places.insert(name, entries.len());
                    entries.push(value);
                }
            }
        }
        Ok(Self(entries))
    }

    /// The value of `name`.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.place(name).and_then(|place| self.0[place].to_bytes().get(name.len() + 1..))
    }

    /// Sets `name`, replacing its value if it is there.
    ///
    /// # Errors
    /// When the value has a NUL.
    pub fn set(&mut self, name: &str, value: &[u8]) -> Result<()> {
        let entry = [name.as_bytes(), b"=", value].concat();
        let entry = CString::new(entry)
            .map_err(|_| Error::Failed(format!("environment variable {name}: NUL in the value")))?;
        match self.place(name) {
            Some(place) => self.0[place] = entry,
            None => self.0.push(entry),
        }
        Ok(())
    }

    /// Fills a missing or empty `HOME` for `uid`, from the /etc/passwd below `root`; `/` where that
    /// does not say.
    ///
    /// # Errors
    /// Never because of the file: an image without a usable one is ordinary. A machine that has no
    /// descriptor or memory left to read it is not: another HOME than the image's would go unnoticed.
    pub fn add_home(&mut self, root: BorrowedFd<'_>, uid: u32) -> Result<()> {
        if self.get("HOME").is_some_and(|home| !home.is_empty()) {
            return Ok(());
        }
        let home = home_of(root, uid).doing(|| "read the container's /etc/passwd".to_owned())?;
        self.set("HOME", home.as_deref().unwrap_or(b"/"))
    }

    /// The entries for `execve(2)`.
    pub fn as_slice(&self) -> &[CString] {
        &self.0
    }

    /// The entries for the hooks that inherit them.
    pub fn iter(&self) -> impl Iterator<Item = &CStr> {
        self.0.iter().map(CString::as_c_str)
    }

    fn place(&self, name: &str) -> Option<usize> {
        self.0.iter().position(|entry| {
            entry
                .to_bytes()
                .strip_prefix(name.as_bytes())
                .is_some_and(|rest| rest.starts_with(b"="))
        })
    }
}

/// The home directory of `uid` in the container, if it says.
fn home_of(root: BorrowedFd<'_>, uid: u32) -> Result<Option<Vec<u8>>, Errno> {
    // NONBLOCK: a fifo of this name must not stop us.
    let fd = match open_in_root(root, c"etc/passwd", OFlag::O_RDONLY | OFlag::O_NONBLOCK) {
        Err(errno) if is_the_images(errno) => return Ok(None),
        other => other?,
    };
    let raw = |error: std::io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
    let file = File::from(fd);
    if !file.metadata().map_err(raw)?.is_file() {
        return Ok(None);
    }
    home_in(BufReader::new(file.take(PASSWD_LIMIT)), uid).map_err(raw)
}

/// Whether the file is to blame that it can't be opened: there is none, it is a link to nowhere or
/// to what is not ours to see, or nothing that can be read.
fn is_the_images(errno: Errno) -> bool {
    use Errno::{EACCES, ELOOP, ENODEV, ENOENT, ENOTDIR, ENXIO, EXDEV};
    matches!(errno, ENOENT | ENOTDIR | ELOOP | EXDEV | EACCES | ENXIO | ENODEV)
}

/// The sixth field of the first line whose third is `uid`.
pub(crate) fn home_in(mut passwd: impl BufRead, uid: u32) -> std::io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    loop {
        line.clear();
        if passwd.read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        let mut fields = line.trim_ascii_end().split(|byte| *byte == b':');
        let found = fields.nth(2).and_then(|field| OsStr::from_bytes(field).to_str()?.parse().ok());
        if found == Some(uid) {
            let home = fields.nth(2).filter(|home| !home.is_empty() && !home.contains(&0));
            return Ok(home.map(<[u8]>::to_vec));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use proptest::prelude::*;

    use super::*;

    fn env(entries: &[&str]) -> Result<Env> {
        let entries: Vec<String> = entries.iter().map(ToString::to_string).collect();
        Env::new(&entries, "process.env")
    }

    fn strings(env: &Env) -> Vec<&str> {
        env.iter().map(|entry| entry.to_str().unwrap()).collect()
    }

    #[test]
    fn the_last_duplicate_wins_and_the_order_stays() {
        let env = env(&["A=1", "B=2", "A=3", "AB=4", "C=", "B=x=y"]).unwrap();
        assert_eq!(strings(&env), ["A=3", "B=x=y", "AB=4", "C="]);
        assert_eq!(env.get("A"), Some(&b"3"[..]));
        assert_eq!(env.get("C"), Some(&b""[..]));
        assert_eq!(env.get("D"), None);
    }

    #[test]
    fn a_broken_entry_is_named_by_its_json_path() {
        for (entries, at) in [
            (&["A=1", "B"][..], "[1]"),
            (&["=x"][..], "[0]"),
            (&["A=\0"][..], "[0]"),
            (&[""], "[0]"),
        ] {
            let error = env(entries).unwrap_err().to_string();
            assert!(error.starts_with(&format!("config.json: process.env{at}: ")), "{error}");
        }
    }

    #[test]
    fn home_comes_from_the_first_matching_line() {
        let passwd = b"root:x:0:0:root:/root:/bin/sh\n#c\nu:x:1000:1:u:/home/u:\nv:x:1000:1::/v:\nw:x:7:7\ne:x:8:8:::/bin/sh";
        assert_eq!(home_in(&passwd[..], 0).unwrap(), Some(b"/root".to_vec()));
        assert_eq!(home_in(&passwd[..], 1000).unwrap(), Some(b"/home/u".to_vec()));
        assert_eq!(home_in(&passwd[..], 7).unwrap(), None);
        assert_eq!(home_in(&passwd[..], 8).unwrap(), None);
        assert_eq!(home_in(&passwd[..], 9).unwrap(), None);
    }

    #[test]
    fn home_is_filled_only_when_missing_or_empty() {
        let root = tempfile::tempdir().unwrap();
        let dir = File::open(root.path()).unwrap();
        let mut set = env(&["HOME=/x"]).unwrap();
        set.add_home(dir.as_fd(), 0).unwrap();
        assert_eq!(strings(&set), ["HOME=/x"]);
        let mut missing = env(&["A=1"]).unwrap();
        missing.add_home(dir.as_fd(), 0).unwrap();
        assert_eq!(strings(&missing), ["A=1", "HOME=/"]);
        std::fs::create_dir(root.path().join("etc")).unwrap();
        std::fs::write(root.path().join("etc/passwd"), "a:x:5:5::/a:/bin/sh\n").unwrap();
        let mut empty = env(&["HOME=", "A=1"]).unwrap();
        empty.add_home(dir.as_fd(), 5).unwrap();
        assert_eq!(strings(&empty), ["HOME=/a", "A=1"]);
    }

    #[test]
    fn a_passwd_that_is_a_fifo_or_leaves_the_root_is_not_read() {
        let root = tempfile::tempdir().unwrap();
        let dir = File::open(root.path()).unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        let passwd = root.path().join("etc/passwd");
        nix::unistd::mkfifo(&passwd, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(home_of(dir.as_fd(), 0), Ok(None));
        std::fs::remove_file(&passwd).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &passwd).unwrap();
        assert_eq!(home_of(dir.as_fd(), 0), Ok(None), "a link to itself inside the root");
    }

    proptest! {
        #[test]
        fn names_are_unique_and_values_are_the_last(entries in prop::collection::vec("[A-C]{1,2}=[a-z]{0,2}", 0..20)) {
            let env = Env::new(&entries, "e").unwrap();
            let mut last = HashMap::new();
            for entry in &entries {
                let (name, value) = entry.split_once('=').unwrap();
                last.insert(name, value);
            }
            prop_assert_eq!(env.as_slice().len(), last.len());
            for (name, value) in last {
                prop_assert_eq!(env.get(name), Some(value.as_bytes()));
            }
        }
    }
}
