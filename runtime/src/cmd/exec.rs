//! `corten exec`: runs another program in a container.

use std::ffi::OsStr;
use std::path::PathBuf;

use crate::cli::options::{self, arguments, number, path, text};
use crate::cli::{Globals, container_id};
use crate::error::{Error, Result};

arguments! {
    /// The arguments of `corten exec`. What follows the id belongs to the command.
    pub struct Args {
        /// Unix socket that receives the master end of the terminal.
        console_socket: Option<PathBuf> = value("SOCKET", path);
        /// Unix socket that receives a pidfd of the new process.
        pidfd_socket: Option<PathBuf> = value("SOCKET", path);
        /// Working directory in the container.
        cwd: Option<PathBuf> = value("DIR", path);
        /// Environment variable NAME=VALUE; repeatable, the last of a name wins.
        env: Vec<String> = values("NAME=VALUE", text), short 'e';
        /// Give the process a terminal.
        tty: bool = flag, short 't';
        /// User and group, as numbers.
        user: Option<User> = value("UID[:GID]", user), short 'u';
        /// Additional group; repeatable.
        additional_gids: Vec<u32> = values("GID", number::<u32>), short 'g';
        /// File with the process as JSON; the command line then has no command.
        process: Option<PathBuf> = value("FILE", path), short 'p';
        /// Return once the process runs.
        detach: bool = flag, short 'd';
        /// File that receives the pid of the new process.
        pid_file: Option<PathBuf> = value("FILE", path);
        /// SELinux label of the process.
        process_label: Option<String> = value("LABEL", text);
        /// AppArmor profile of the process.
        apparmor: Option<String> = value("PROFILE", text);
        /// Set no_new_privs.
        no_new_privs: bool = flag;
        /// Capability to add; repeatable.
        cap: Vec<String> = values("CAP", text), short 'c';
        /// Pass this many file descriptors, from 3 on (after LISTEN_FDS), to the process.
        preserve_fds: u32 = value("N", number::<u32>), default "0";
        /// Group below the container's cgroup, `[CONTROLLER[,CONTROLLER]:]PATH`; repeatable.
        cgroup: Vec<String> = values("PATH", text);
        /// Do it in a paused container too; the process runs when it is resumed.
        ignore_paused: bool = flag;
        /// The container's id.
        id: String = operand("ID", container_id);
        /// The command and its arguments.
        command: Vec<String> = operands("COMMAND", text);
    }
}

/// The value of `--user`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    /// User id in the container.
    pub uid: u32,
    /// Group id in the container; absent means the container's own.
    pub gid: Option<u32>,
}

fn user(value: &OsStr) -> Result<User, String> {
    let text = options::utf8(value)?;
    let number = |part: &str| {
        part.parse::<u32>().map_err(|_| format!("{part:?} is not a number from 0 to 4294967295"))
    };
    match text.split_once(':') {
        Some((uid, gid)) => Ok(User { uid: number(uid)?, gid: Some(number(gid)?) }),
        None => Ok(User { uid: number(text)?, gid: None }),
    }
}

/// Carries out `corten exec`; the answer is the process's exit code.
pub fn run(_globals: &Globals, _args: &Args) -> Result<u8> {
    Err(Error::Unsupported("corten exec is not there yet".to_owned()))
}
