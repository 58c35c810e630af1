//! containerd of our own and `ctr`, its plainest client.
//!
//! Everything is told by option: root, state, sockets. containerd looks for shims in `PATH`, where
//! the shim under test comes first, and the shims for `runc`, which is the runtime under test. The
//! containerd namespace is named after the work directory, so that the cgroups that `ctr` chooses,
//! `/NAMESPACE/ID`, are below the parent group of the run.
//!
//! Debian's is 1.6. `CONTAINERD_BIN` names a directory with another one, its `ctr` and its shim.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::command::Run;
use super::daemon::Daemon;
use super::sandbox::Sandbox;
use super::{Stop, eventually};

/// What must be installed.
pub const NEEDS: &[(&str, &str)] = &[("containerd", "containerd"), ("ctr", "containerd")];

/// Starts a containerd that keeps everything in `dir` and listens on `socket`; again in the same
/// directory is a restart.
pub fn serve(sandbox: &Sandbox, dir: &Path, socket: &Path) -> Result<Daemon, Stop> {
    let config = format!(
        "version = 2\nroot = '{0}/root'\nstate = '{0}/state'\noom_score = 0\n\
         disabled_plugins = ['io.containerd.grpc.v1.cri', 'io.containerd.snapshotter.v1.btrfs', \
         'io.containerd.snapshotter.v1.zfs', 'io.containerd.snapshotter.v1.devmapper', \
         'io.containerd.snapshotter.v1.aufs']\n[grpc]\naddress = '{1}'\n[debug]\nlevel = 'debug'\n",
        dir.display(),
        socket.display()
    );
    launch(sandbox, dir, socket, &config)
}

/// Starts a containerd with that configuration.
pub fn launch(sandbox: &Sandbox, dir: &Path, socket: &Path, config: &str) -> Result<Daemon, Stop> {
    fs::create_dir_all(dir)?;
    let file = dir.join("config.toml");
    fs::write(&file, config)?;
    // A socket that nobody listens on would look like an answer.
    fs::remove_file(socket).ok();
    let run = Run::new(sandbox.containerd("containerd"))
        .env("PATH", sandbox.path())
        .arg("--config")
        .arg(&file);
    let daemon = Daemon::start(run, dir.join("log"))?;
    eventually("containerd's socket", Duration::from_secs(30), || Ok(socket.exists()))?;
    Ok(daemon)
}

/// The first number of containerd's version.
pub fn major(sandbox: &Sandbox) -> Result<u32, Stop> {
    let words = Run::new(sandbox.containerd("containerd")).arg("--version").ok()?;
    let version = words.split(' ').nth(2).unwrap_or_default().trim_start_matches('v');
    let number = version.split('.').next().unwrap_or_default();
    number.parse().map_err(|_| Stop::Fail(format!("which version is {words:?}?")))
}
