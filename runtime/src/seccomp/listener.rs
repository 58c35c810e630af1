//! Handing the notification fd to the agent (config-linux.md, `listenerPath` and "The Container
//! Process State").
//!
//! One connection, one message: the JSON and the fd travel in the same `sendmsg`, and closing the
//! connection ends the message. An agent that does not take it within [`PATIENCE`] is an error, as
//! the container would otherwise wait for ever with it.

use std::io::IoSlice;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect,
    send as send_more, sendmsg, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::unistd::Pid;
use oci_spec::runtime::{LinuxSeccomp, SECCOMP_FD_NAME};
use serde::Serialize;

use crate::error::Doing;
use crate::{Error, Result};

/// The spec that the state complies with.
const OCI_VERSION: &str = "1.3.0";
/// How long connecting, and each part of sending, may take, in seconds.
const PATIENCE: i64 = 10;

/// The seccomp agent's socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// A listening stream socket, in the runtime's mount namespace.
    pub path: PathBuf,
    /// Passed to the agent as it is.
    pub metadata: Option<String>,
}

/// `ContainerProcessState` of the spec.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ProcessState<'a, S> {
    oci_version: &'static str,
    fds: [&'static str; 1],
    pid: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a str>,
    state: &'a S,
}

/// The listener of a profile; empty strings are unset ones, as managers written in Go mean them.
pub(super) fn listener(spec: &LinuxSeccomp) -> Result<Option<Listener>> {
    let metadata = spec.listener_metadata().clone().filter(|metadata| !metadata.is_empty());
    let path = spec.listener_path().clone().filter(|path| !path.as_os_str().is_empty());
    match (path, metadata) {
        (Some(path), metadata) => Ok(Some(Listener { path, metadata })),
        (None, None) => Ok(None),
        (None, Some(_)) => Err(Error::config(
            "linux.seccomp.listenerMetadata",
            "must not be set, because listenerPath is not",
        )),
    }
}

/// Gives `notify` to the agent, with `pid` as the runtime sees it and `state`, which is the
/// container's state of the spec: `creating` for the init, `running` for an exec. Called by the
/// parent, in the runtime's namespaces.
///
/// # Errors
/// [`Error::Sys`] when the agent cannot be reached or does not take the message in ten seconds.
pub fn send(
    listener: &Listener,
    notify: BorrowedFd<'_>,
    pid: Pid,
    state: &impl Serialize,
) -> Result<()> {
    let doing = |what: &str| format!("{what} seccomp listener {:?}", listener.path);
    let message = ProcessState {
        oci_version: OCI_VERSION,
        fds: [SECCOMP_FD_NAME],
        pid: pid.as_raw(),
        metadata: listener.metadata.as_deref(),
        state,
    };
    let json = serde_json::to_vec(&message)
        .map_err(|error| Error::Failed(format!("{}: {error}", doing("write the state for"))))?;
    let agent = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)
        .doing(|| "make a socket".to_owned())?;
    setsockopt(&agent, sockopt::SendTimeout, &TimeVal::seconds(PATIENCE))
        .doing(|| doing("limit the time to reach"))?;
    let address = UnixAddr::new(&listener.path).doing(|| doing("address"))?;
    retry(|| connect(agent.as_raw_fd(), &address)).doing(|| doing("connect to"))?;
    let rights = [notify.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&rights)];
    let parts = [IoSlice::new(&json)];
    let flags = MsgFlags::MSG_NOSIGNAL;
    let mut sent = retry(|| sendmsg::<()>(agent.as_raw_fd(), &parts, &rights, flags, None))
        .doing(|| doing("send to"))?;
    // More than the socket's buffer, to a slow agent.
    while sent < json.len() {
        sent += retry(|| send_more(agent.as_raw_fd(), &json[sent..], flags))
            .doing(|| doing("send to"))?;
    }
    Ok(())
}

/// A signal is no reason to lose the agent; a timeout is, and it is called by its name.
fn retry<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return Err(Errno::ETIMEDOUT),
            result => return result,
        }
    }
}
