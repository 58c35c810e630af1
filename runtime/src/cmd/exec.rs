//! `corten exec`: runs another program in a container.

use std::path::PathBuf;

use clap::{ArgAction, Args as ClapArgs};

use crate::cli::{self, Globals};
use crate::error::{Error, Result};

/// The arguments of `corten exec`. What follows the id belongs to the command.
#[derive(Debug, ClapArgs)]
#[group(skip)]
pub struct Args {
    /// Unix socket that receives the master end of the terminal.
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,

    /// Unix socket that receives a pidfd of the new process.
    #[arg(long, value_name = "SOCKET")]
    pub pidfd_socket: Option<PathBuf>,

    /// Working directory in the container.
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<PathBuf>,

    /// Environment variable NAME=VALUE; repeatable, the last of a name wins.
    #[arg(short, long, value_name = "NAME=VALUE", action = ArgAction::Append)]
    pub env: Vec<String>,

    /// Give the process a terminal.
    #[arg(short, long)]
    pub tty: bool,

    /// User and group, as numbers.
    #[arg(short, long, value_name = "UID[:GID]", value_parser = user)]
    pub user: Option<User>,

    /// Additional group; repeatable.
    #[arg(short = 'g', long, value_name = "GID", action = ArgAction::Append, value_delimiter = ',')]
    pub additional_gids: Vec<u32>,

    /// File with the process as JSON; the command line then has no command.
    #[arg(short, long, value_name = "FILE")]
    pub process: Option<PathBuf>,

    /// Return once the process runs.
    #[arg(short, long)]
    pub detach: bool,

    /// File that receives the pid of the new process.
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,

    /// SELinux label of the process.
    #[arg(long, value_name = "LABEL")]
    pub process_label: Option<String>,

    /// AppArmor profile of the process.
    #[arg(long, value_name = "PROFILE")]
    pub apparmor: Option<String>,

    /// Set no_new_privs.
    #[arg(long)]
    pub no_new_privs: bool,

    /// Capability to add; repeatable.
    #[arg(short, long, value_name = "CAP", action = ArgAction::Append)]
    pub cap: Vec<String>,

    /// Pass this many file descriptors, from 3 on (after LISTEN_FDS), to the process.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub preserve_fds: u32,

    /// Group below the container's cgroup, `[CONTROLLER[,CONTROLLER]:]PATH`; repeatable.
    #[arg(long, value_name = "PATH", action = ArgAction::Append)]
    pub cgroup: Vec<String>,

    /// Do it in a paused container too; the process runs when it is resumed.
    #[arg(long)]
    pub ignore_paused: bool,

    /// The container's id.
    #[arg(value_name = "ID", value_parser = cli::container_id)]
    pub id: String,

    /// The command and its arguments.
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}

/// The value of `--user`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    /// User id in the container.
    pub uid: u32,
    /// Group id in the container; absent means the container's own.
    pub gid: Option<u32>,
}

fn user(text: &str) -> std::result::Result<User, String> {
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
