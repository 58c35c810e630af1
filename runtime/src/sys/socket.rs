//! Unix `SOCK_SEQPACKET` sockets: message boundaries kept, descriptors passed, end of file seen.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType,
    UnixAddr, accept4, bind, connect, listen, recv, recvmsg, sendmsg, socket, socketpair,
};

/// The most descriptors that one message carries here; the kernel's limit is 253 (`SCM_MAX_FD`).
pub const MAX_FDS: usize = 250;

/// A connected pair.
///
/// # Errors
/// `EMFILE`, `ENFILE`, `ENOMEM`.
pub fn pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
}

/// Sends one message whole, with `fds` beside it (`SCM_RIGHTS`). No SIGPIPE.
///
/// # Errors
/// `EPIPE` when the peer is gone.
pub fn send(to: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let raw: Vec<i32> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
    loop {
        let sent = sendmsg::<UnixAddr>(
            to.as_fd().as_raw_fd(),
            &[IoSlice::new(bytes)],
            control,
            MsgFlags::MSG_NOSIGNAL,
            None,
        );
        match sent {
            Err(Errno::EINTR) => {}
            other => return other.map(drop),
        }
    }
}

/// Receives one message into `buffer`: its length (0 at end of file) and its descriptors.
///
/// # Errors
/// `EMSGSIZE` when the message was longer than the buffer. `EMFILE` when there was no room for all of
/// its descriptors: the bytes are there, and none of the descriptors.
pub fn receive(from: impl AsFd, buffer: &mut [u8]) -> Result<(usize, Vec<OwnedFd>), Errno> {
    let mut control = nix::cmsg_space!([i32; MAX_FDS]);
    let mut slices = [IoSliceMut::new(buffer)];
    let message = loop {
        let got = recvmsg::<UnixAddr>(
            from.as_fd().as_raw_fd(),
            &mut slices,
            Some(&mut control),
            MsgFlags::MSG_CMSG_CLOEXEC,
        );
        match got {
            Err(Errno::EINTR) => {}
            other => break other?,
        }
    };
    let mut fds = Vec::new();
    if message.flags.contains(MsgFlags::MSG_CTRUNC) {
        drop(some_of(&control));
        return Err(Errno::EMFILE);
    }
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = part {
            // SAFETY: the kernel just installed these descriptors for us alone.
            fds.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    if message.flags.contains(MsgFlags::MSG_TRUNC) {
        return Err(Errno::EMSGSIZE);
    }
    Ok((message.bytes, fds))
}

/// The descriptors in a control message that has not all of them; nix does not look into those.
fn some_of(control: &[u8]) -> Vec<OwnedFd> {
    const HEADER: usize = size_of::<libc::cmsghdr>();
    let Some((length, _)) = control.split_first_chunk() else { return Vec::new() };
    let end = usize::from_ne_bytes(*length).min(control.len());
    let raw = control.get(HEADER..end).unwrap_or_default().as_chunks().0;
    // SAFETY: SCM_RIGHTS is all that can come, so the kernel just installed these for us alone.
    raw.iter().map(|fd| unsafe { OwnedFd::from_raw_fd(i32::from_ne_bytes(*fd)) }).collect()
}

/// How long the next message is, without taking it; 0 at end of file.
///
/// # Errors
/// `EAGAIN` when there is none and the socket does not wait.
pub fn next_length(from: impl AsFd) -> Result<usize, Errno> {
    loop {
        match recv(from.as_fd().as_raw_fd(), &mut [], MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC) {
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
}

/// A path below `dir` as a socket address, however long the directory's own path is: an address
/// holds 108 bytes, `/proc/self/fd/N/name` always fits.
fn address_at(dir: BorrowedFd<'_>, name: &str) -> Result<UnixAddr, Errno> {
    UnixAddr::new(format!("/proc/self/fd/{}/{name}", dir.as_raw_fd()).as_str())
}

/// A socket that listens at `name` in `dir`.
///
/// # Errors
/// `EADDRINUSE` when the name exists.
pub fn listen_at(dir: impl AsFd, name: &str) -> Result<OwnedFd, Errno> {
    let listener = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
    bind(listener.as_raw_fd(), &address_at(dir.as_fd(), name)?)?;
    listen(&listener, Backlog::new(8)?)?;
    Ok(listener)
}

/// Connects to the socket `name` in `dir`.
///
/// # Errors
/// `ECONNREFUSED` when nobody listens any more, `ENOENT`.
pub fn connect_at(dir: impl AsFd, name: &str) -> Result<OwnedFd, Errno> {
    let stream = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
    connect(stream.as_raw_fd(), &address_at(dir.as_fd(), name)?)?;
    Ok(stream)
}

/// The next connection, waiting for it.
///
/// # Errors
/// `ECONNABORTED`, `EMFILE`.
pub fn accept(listener: impl AsFd) -> Result<OwnedFd, Errno> {
    loop {
        match accept4(listener.as_fd().as_raw_fd(), SockFlag::SOCK_CLOEXEC) {
            Err(Errno::EINTR) => {}
            // SAFETY: the kernel just made this descriptor and nobody else has it.
            other => return other.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }),
        }
    }
}
