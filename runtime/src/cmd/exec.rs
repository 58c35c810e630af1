//! `corten exec`: runs another program in a container.

use std::os::fd::AsFd;

use oci_spec::runtime::{Capabilities, LinuxCapabilities, Process, Spec};

use super::console::{Console, master};
use super::exit_code;
use std::ffi::OsStr;
use std::path::PathBuf;

use crate::cli::options::{self, arguments, number, path, text};
use crate::cli::{Globals, container_id};
use crate::error::{Error, Result};
use crate::exec::{self, Target};
use crate::process::caps;
use crate::process::foreground::Foreground;
use crate::process::user::parse_exec_user;
use crate::{seal, spec};

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
    let (uid, gid) = parse_exec_user(options::utf8(value)?).map_err(|error| error.to_string())?;
    Ok(User { uid, gid })
}

/// Carries out `corten exec`; the answer is the command's exit code, or 0 when detached.
///
/// # Errors
/// Whatever went wrong; no process of ours is left in the container then.
pub fn run(globals: &Globals, args: &Args) -> Result<u8> {
    seal::ensure()?;
    let target = Target::find(&globals.store(), &args.id, args.ignore_paused)?;
    let (process, path) = match &args.process {
        Some(file) => (spec::load_process(file)?, ""),
        None => (args.process(&target.spec)?, "process"),
    };
    let terminal = process.terminal().unwrap_or(false);
    let console = Console::new(terminal, args.detach, args.console_socket.as_deref())?;
    let foreground = if args.detach { None } else { Some(Foreground::begin()?) };
    let request = exec::Request {
        console: console.container,
        pidfd_socket: args.pidfd_socket.clone(),
        pid_file: args.pid_file.clone(),
        preserve_fds: args.preserve_fds,
        cgroup: args.cgroup.clone(),
    };
    let child = exec::exec(&target, &process, path, request).map_err(|error| {
        match (error, &args.process) {
            // What is wrong is in that file, not in the container's config.
            (Error::Config { path, why }, Some(file)) => {
                Error::Failed(format!("{}: {path}: {why}", file.display()))
            }
            (error, _) => error,
        }
    })?;
    match foreground {
        None => Ok(0),
        Some(foreground) => {
            exit_code(foreground.finish(child.pidfd.as_fd(), master(console.ours)?)?)
        }
    }
}

impl Args {
    /// The container's own process, changed by the options.
    fn process(&self, spec: &Spec) -> Result<Process> {
        let mut process = spec.process().clone().unwrap_or_default();
        if self.command.is_empty() {
            return Err(Error::Usage("exec: no command, and no --process".to_owned()));
        }
        process.set_args(Some(self.command.clone()));
        process.set_terminal(Some(self.tty));
        process.env_mut().get_or_insert_default().extend(self.env.iter().cloned());
        if let Some(cwd) = &self.cwd {
            process.set_cwd(cwd.clone());
        }
        if let Some(user) = self.user {
            let now = process.user_mut();
            now.set_uid(user.uid);
            if let Some(gid) = user.gid {
                now.set_gid(gid);
            }
        }
        if !self.additional_gids.is_empty() {
            let gids = process.user_mut().additional_gids_mut().get_or_insert_default();
            gids.extend(&self.additional_gids);
        }
        if self.no_new_privs {
            process.set_no_new_privileges(Some(true));
        }
        if let Some(profile) = &self.apparmor {
            process.set_apparmor_profile(Some(profile.clone()));
        }
        if let Some(label) = &self.process_label {
            process.set_selinux_label(Some(label.clone()));
        }
        let added = self.cap.iter().map(|name| {
            caps::parse(name)
                .ok_or_else(|| Error::Usage(format!("--cap: unknown capability {name:?}")))
        });
        let added: Capabilities = added.collect::<Result<_>>()?;
        if !added.is_empty() {
            // Not the crate's default, which has capabilities that nobody asked for.
            let mut sets = process.capabilities().clone().unwrap_or_else(no_caps);
            add_caps(&mut sets, &added);
            process.set_capabilities(Some(sets));
        }
        Ok(process)
    }
}

/// What a config without `capabilities` gives: none.
fn no_caps() -> LinuxCapabilities {
    let mut none = LinuxCapabilities::default();
    none.set_bounding(None).set_effective(None).set_permitted(None);
    none.set_inheritable(None).set_ambient(None);
    none
}

/// Bounding, effective and permitted; never inheritable (CVE-2022-29162), and ambient only where
/// the container's own set has inheritable ones to raise.
fn add_caps(caps: &mut LinuxCapabilities, added: &Capabilities) {
    let with = |set: &Option<Capabilities>| {
        Some(set.iter().flatten().chain(added).copied().collect::<Capabilities>())
    };
    let (bounding, effective, permitted) =
        (with(caps.bounding()), with(caps.effective()), with(caps.permitted()));
    caps.set_bounding(bounding).set_effective(effective).set_permitted(permitted);
    if caps.inheritable().as_ref().is_some_and(|set| !set.is_empty()) {
        let ambient = with(caps.ambient());
        caps.set_ambient(ambient);
    }
}
