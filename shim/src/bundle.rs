//! What the shim finds and leaves in a bundle, for itself and for `delete`; the records of exits are
//! [`crate::exits`]'s, the options [`crate::options`]'.

/// The file with the init's pid, which create writes.
pub const PID_FILE: &str = "init.pid";
/// Where the container's root file system is mounted.
pub const ROOTFS: &str = "rootfs";
