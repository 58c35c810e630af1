//! From `args[0]` to the program, and the final execve(2).
//!
//! Promise: `create` already fails for what `start` could not run, in the words that managers match
//! (dockerd: exit codes 126 and 127; podman alike): `executable file not found in $PATH`,
//! `permission denied`, `no such file or directory`. A directory is both, `is a directory:
//! permission denied`, because Docker 20.10 knows only the second words, execve(2)'s own EACCES.
//!
//! Order: after the identity and the cwd are the container's, because permission and relative names
//! depend on both; and after the pivot, with the container's own PATH.

use std::convert::Infallible;
use std::ffi::{CStr, CString};

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{SFlag, stat};
use nix::unistd::{AccessFlags, execve, faccessat};

use super::env::Env;
use crate::error::{Error, Result};

/// Finds the program for `name`: a name with a slash is a path, any other is looked for in the
/// `PATH` of `env`, where what can't be executed is passed over.
///
/// # Errors
/// `exec: "name": ` and why.
pub fn look_up(name: &CStr, env: &Env) -> Result<CString> {
    if name.to_bytes().contains(&b'/') {
        return match executable(name) {
            Ok(()) => Ok(name.to_owned()),
            Err(Errno::EISDIR) => {
                let words = format!("exec: {name:?}: is a directory: permission denied");
                Err(Error::Failed(words))
            }
            Err(errno) => Err(Error::sys(format!("exec: {name:?}"), errno)),
        };
    }
    for dir in env.get("PATH").unwrap_or_default().split(|byte| *byte == b':') {
        // An empty element is the current directory (POSIX).
        let dir = if dir.is_empty() { b"." } else { dir };
        let Ok(path) = CString::new([dir, b"/", name.to_bytes()].concat()) else { continue };
        if executable(&path).is_ok() {
            return Ok(path);
        }
    }
    Err(Error::Failed(format!("exec: {name:?}: executable file not found in $PATH")))
}

/// Whether execve(2) would get as far as reading the file.
fn executable(path: &CStr) -> std::result::Result<(), Errno> {
    let found = stat(path)?;
    if SFlag::from_bits_truncate(found.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFDIR {
        return Err(Errno::EISDIR);
    }
    // glibc asks faccessat2, and works it out from the mode on kernels before 5.8.
    match faccessat(AT_FDCWD, path, AccessFlags::X_OK, nix::fcntl::AtFlags::AT_EACCESS) {
        // A filter that does not know the call answers for the file. What nobody may execute is
        // refused, and of the rest execve(2) has the last word.
        Err(Errno::EPERM | Errno::ENOSYS) if found.st_mode & 0o111 != 0 => Ok(()),
        Err(Errno::EPERM | Errno::ENOSYS) => Err(Errno::EACCES),
        other => other,
    }
}

/// Becomes the program. Returns only if that fails.
pub fn execute(path: &CStr, args: &[CString], env: &Env) -> Error {
    let refused: std::result::Result<Infallible, Errno> = execve(path, args, env.as_slice());
    let Err(errno) = refused;
    Error::sys(format!("exec {}", path.to_string_lossy()), errno)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::sys::testing::in_child;

    fn env(path: &str) -> Env {
        Env::new(&[format!("PATH={path}")], "e").unwrap()
    }

    #[test]
    fn the_words_are_the_ones_that_managers_match() {
        let dir = tempfile::tempdir().unwrap();
        let text = dir.path().join("text");
        fs::write(&text, "x").unwrap();
        let text = CString::new(text.to_str().unwrap()).unwrap();
        let path = env(dir.path().to_str().unwrap());
        let words = |name: &CStr| look_up(name, &path).unwrap_err().to_string();
        assert_eq!(words(c"foo"), r#"exec: "foo": executable file not found in $PATH"#);
        assert_eq!(words(c"text"), r#"exec: "text": executable file not found in $PATH"#);
        assert_eq!(words(c"/no/x"), r#"exec: "/no/x": no such file or directory"#);
        assert_eq!(words(c"/tmp"), r#"exec: "/tmp": is a directory: permission denied"#);
        assert_eq!(words(c"/bin/sh/x"), r#"exec: "/bin/sh/x": not a directory"#);
        assert_eq!(words(&text), format!("exec: {text:?}: permission denied"));
    }

    #[test]
    fn the_first_executable_in_path_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        for (sub, mode) in [("a", 0o644), ("b", 0o755), ("c", 0o755)] {
            fs::create_dir(dir.path().join(sub)).unwrap();
            let file = dir.path().join(sub).join("tool");
            fs::write(&file, "").unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        }
        let base = dir.path().to_str().unwrap();
        let path = env(&format!("/no/such:{base}/a:{base}/b:{base}/c"));
        let found = look_up(c"tool", &path).unwrap();
        assert_eq!(found.to_str().unwrap(), format!("{base}/b/tool"));
        assert!(look_up(c"tool", &Env::default()).is_err());
    }

    #[test]
    fn a_text_without_interpreter_is_an_exec_format_error() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x");
        fs::write(&file, "\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        let path = CString::new(file.to_str().unwrap()).unwrap();
        in_child(|| {
            let error = execute(&path, std::slice::from_ref(&path), &Env::default()).to_string();
            assert!(error.ends_with(": exec format error"), "{error}");
        });
    }
}
