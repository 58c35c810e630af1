//! The session keyring: without one of its own, the container would see the caller's keys.
//!
//! Promise: the process has the session keyring `_ses.<id>`, which an exec joins by its name, and
//! which the container's user may search. Kernels without keyrings are fine.
//!
//! Order: first thing in the new process, in its user namespace; before SELinux labels change.

use std::ffi::CString;

use nix::errno::Errno;

use crate::error::{Doing, Error, Result};
use crate::sys::keyring;

/// `KEY_USR_SEARCH`: processes of the keyring's owner may search it.
const USER_SEARCH: u32 = 0x0008_0000;
/// `KEY_OTH_SEARCH`: with a user namespace its owner is another user than the container's.
const OTHER_SEARCH: u32 = 0x0000_0008;

/// Joins `_ses.<id>`, creating it for the container's init, and opens it for searching.
///
/// # Errors
/// `EDQUOT` when root's key quota is used up, and the like.
pub fn join(id: &str, user_namespace: bool) -> Result<()> {
    let name = CString::new(format!("_ses.{id}"))
        .map_err(|_| Error::Failed("join the session keyring: NUL in the id".to_owned()))?;
    match keyring::join_session(&name) {
        Err(Errno::ENOSYS) => return Ok(()),
        other => other.doing(|| format!("join the session keyring {name:?}"))?,
    }
    let description = keyring::describe_session().doing(|| format!("describe keyring {name:?}"))?;
    let add = if user_namespace { OTHER_SEARCH } else { USER_SEARCH };
    let now = permissions(&description)
        .ok_or_else(|| Error::Failed(format!("describe keyring {name:?}: unknown format")))?;
    if now & add != 0 {
        return Ok(());
    }
    keyring::set_session_permissions(now | add).doing(|| format!("let users search {name:?}"))
}

/// The fourth field of `keyring;uid;gid;3f130000;name`.
fn permissions(description: &[u8]) -> Option<u32> {
    let field = description.split(|byte| *byte == b';').nth(3)?;
    u32::from_str_radix(std::str::from_utf8(field).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::testing::in_child;

    #[test]
    fn permissions_are_the_fourth_field() {
        assert_eq!(permissions(b"keyring;0;0;3f130000;_ses.a;b"), Some(0x3f13_0000));
        assert_eq!(permissions(b"keyring;0;0"), None);
        assert_eq!(permissions(b"keyring;0;0;zz;x"), None);
    }

    #[test]
    fn the_keyring_is_ours_and_joined_again_by_name() {
        in_child(|| {
            join("corten-process-test", false).unwrap();
            join("corten-process-test", false).unwrap();
            let description = String::from_utf8(keyring::describe_session().unwrap()).unwrap();
            assert!(description.ends_with(";_ses.corten-process-test"), "{description}");
            assert_ne!(permissions(description.as_bytes()).unwrap() & USER_SEARCH, 0);
        });
    }
}
