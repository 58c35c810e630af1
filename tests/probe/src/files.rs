//! Steps that try one thing with a file and tell how it went.

use std::fs;
use std::io::{Error, Read, Write};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::stat::{Mode, SFlag};
use serde_json::{Value, json};

use crate::report;

/// `{"ok": true, ...}` or `{"ok": false, "errno": "EROFS"}`.
fn outcome(path: &str, got: Result<Value, Error>) -> Value {
    match got {
        Ok(value) => json!({"ok": true, "path": path, "value": value}),
        Err(error) => {
            let name = error.raw_os_error().map(|n| format!("{:?}", Errno::from_raw(n)));
            json!({"ok": false, "path": path, "errno": name.unwrap_or_else(|| error.to_string())})
        }
    }
}

/// Runs a file step; `None` if `verb` is none.
pub fn run(verb: &str, args: &[&str]) -> Option<Value> {
    let path = *args.first()?;
    let word = args.get(1).copied().unwrap_or("");
    let got = match verb {
        "read" => fs::read(path).map(|b| json!(String::from_utf8_lossy(&b))),
        "read-some" => read_some(path, word),
        "write" => fs::OpenOptions::new()
            .write(true)
            .open(path)
            .and_then(|mut file| file.write_all(word.as_bytes()))
            .map(|()| Value::Null),
        "append" => fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .and_then(|mut file| file.write_all(word.as_bytes()))
            .map(|()| Value::Null),
        "create" => fs::write(path, word).map(|()| Value::Null),
        "open" => fs::File::open(path).map(|_| Value::Null),
        "open-rw" => fs::OpenOptions::new().read(true).write(true).open(path).map(|_| Value::Null),
        "mkdir" => fs::create_dir(path).map(|()| Value::Null),
        "rmdir" => fs::remove_dir(path).map(|()| Value::Null),
        "unlink" => fs::remove_file(path).map(|()| Value::Null),
        "ls" => fs::read_dir(path).map(|_| report::directory(path)),
        "stat" => fs::symlink_metadata(path).map(|_| report::node(Path::new(path))),
        "statfs" => statfs(path),
        "chown" => {
            let id = word.parse().ok();
            std::os::unix::fs::chown(path, id, id).map(|()| Value::Null)
        }
        "symlink" => std::os::unix::fs::symlink(path, word).map(|()| Value::Null),
        "mknod" => mknod(path, word),
        "wait-file" => {
            while fs::symlink_metadata(path).is_err() {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            Ok(Value::Null)
        }
        _ => return None,
    };
    Some(outcome(path, got))
}

fn read_some(path: &str, count: &str) -> Result<Value, Error> {
    let mut buffer = vec![0; count.parse().unwrap_or(16)];
    let got = fs::File::open(path)?.read(&mut buffer)?;
    Ok(json!(got))
}

fn statfs(path: &str) -> Result<Value, Error> {
    let got = nix::sys::statvfs::statvfs(path)?;
    Ok(json!({
        "size": got.blocks() * got.fragment_size(),
        "files": got.files(),
        "flags": got.flags().bits(),
    }))
}

/// `c:1:3`, `b:7:0` or `p`.
fn mknod(path: &str, what: &str) -> Result<Value, Error> {
    let mut parts = what.split(':');
    let kind = match parts.next() {
        Some("c") => SFlag::S_IFCHR,
        Some("b") => SFlag::S_IFBLK,
        _ => SFlag::S_IFIFO,
    };
    let mut number = || parts.next().and_then(|n| n.parse().ok()).unwrap_or(0);
    let device = nix::sys::stat::makedev(number(), number());
    nix::sys::stat::mknod(path, kind, Mode::from_bits_truncate(0o600), device)?;
    Ok(Value::Null)
}
