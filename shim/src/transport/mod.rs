//! ttrpc, as the loop needs it: frames over a Unix socket that never blocks.
//!
//! [`frame`] is the wire's format and [`call`] what is in it, both pure; [`Channel`] reads and
//! writes frames of one socket; [`Connection`] is the server's side of one, [`Listener`] where
//! connections come from. The client's side is [`crate::events`].
//!
//! Facts about what a peer may do and what it gets for it are those of containerd's own
//! implementation (github.com/containerd/ttrpc, `server.go`), which is what the other side runs;
//! where it would crash or grow without bound, we don't, and say so.

pub mod call;
pub mod channel;
pub mod connection;
pub mod frame;
pub mod listener;

pub use call::{Call, Code, Status};
pub use channel::Channel;
pub use connection::{Closed, Connection};
pub use listener::Listener;
