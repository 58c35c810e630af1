//! Podman and buildah with directories of their own, as root or as an ordinary user.
//!
//! There is no daemon: each command reads its configuration from two files that stand here.
//! Podman finds the runtime in its table by file name, which also decides whether it asks for
//! JSON errors, so the name is listed there as our documentation tells administrators to do.

use std::fs;
use std::ops::Deref;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;

use super::client::Client;
use super::command::Run;
use super::sandbox::{Sandbox, USER_ID};
use super::{Stop, Verdict, image};

/// What must be installed.
pub const NEEDS: &[(&str, &str)] = &[
    ("podman", "podman"),
    ("buildah", "buildah"),
    ("conmon", "conmon"),
    ("/usr/lib/podman/netavark", "netavark"),
    ("catatonit", "catatonit"),
    ("slirp4netns", "slirp4netns"),
    ("newuidmap", "uidmap"),
    ("iptables", "iptables"),
];

/// The ordinary user's runtime directory, in the sandbox's own `/run`. Podman insists on a short
/// path for what it keeps there.
pub const USER_RUN: &str = "/run/user/61234";

/// Podman as one user.
#[derive(Debug)]
pub struct Podman {
    client: Client,
    /// It runs as an ordinary user.
    rootless: bool,
}

impl Deref for Podman {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Podman {
    /// Writes the configuration and imports the image.
    pub fn start(sandbox: &Sandbox, rootless: bool, archive: &Path) -> Result<Self, Stop> {
        if rootless {
            fs::create_dir_all(USER_RUN)?;
            chown(USER_RUN, Some(USER_ID), Some(USER_ID))?;
            fs::set_permissions(USER_RUN, fs::Permissions::from_mode(0o700))?;
        }
        Self::start_as(sandbox, rootless.then_some(USER_ID), "cgroupfs", archive)
    }

    /// The same as root or as the user of that id (and group), who has its directory in
    /// `/run/user`, with cgroups made by `manager`.
    pub fn start_as(
        sandbox: &Sandbox,
        user: Option<u32>,
        manager: &str,
        archive: &Path,
    ) -> Result<Self, Stop> {
        let rootless = user.is_some();
        let dir = sandbox.dir.join(if rootless { "user" } else { "root" });
        for folder in ["home", "files"] {
            fs::create_dir_all(dir.join(folder))?;
        }
        let client = client(sandbox, user, manager, &dir)?;
        let archive = if rootless {
            let copy = dir.join("image.tar");
            fs::copy(archive, &copy)?;
            copy
        } else {
            archive.to_owned()
        };
        if let Some(id) = user {
            for place in ["", "home", "files", "image.tar"] {
                chown(dir.join(place), Some(id), Some(id))?;
            }
        }
        let podman = Self { client, rootless };
        podman.command(&["import", "--change", "CMD sh"]).arg(&archive).arg(image::NAME).ok()?;
        Ok(podman)
    }

    /// buildah on the same storage.
    pub fn buildah(&self, words: &[&str]) -> Run {
        let mut all: Vec<&str> = self.words.iter().map(String::as_str).collect();
        all.truncate(all.iter().position(|&word| word == "podman").unwrap_or_default());
        all.push("buildah");
        let run = Run::new(all[0]).args(&all[1..]).args(words);
        let environment = self.environment.iter();
        environment
            .fold(run, |run, (name, value)| run.env(name, value))
            .env("BUILDAH_ISOLATION", "oci")
            .env("BUILDAH_RUNTIME", &self.sandbox.runtime)
    }

    /// The file name of the runtime, its name in Podman's table.
    pub fn runtime(&self) -> String {
        name(&self.sandbox)
    }

    /// Whether it runs as an ordinary user.
    pub fn is_rootless(&self) -> bool {
        self.rootless
    }

    /// Removes every pod and container, and ends what Podman keeps running between commands.
    pub fn stop(&self) -> Verdict {
        self.buildah(&["rm", "--all"]).run()?;
        self.ok(&["pod", "rm", "--force", "--all", "--time", "0"])?;
        self.ok(&["rm", "--force", "--all", "--volumes", "--time", "0"])?;
        if self.rootless {
            self.ok(&["system", "migrate"])?;
        }
        Ok(())
    }
}

fn name(sandbox: &Sandbox) -> String {
    sandbox.runtime.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The client and its configuration files.
fn client(sandbox: &Sandbox, user: Option<u32>, manager: &str, dir: &Path) -> Result<Client, Stop> {
    let name = name(sandbox);
    let place = dir.display();
    let containers = format!(
        "[containers]\ndefault_ulimits = []\n\
         [network]\nnetwork_backend = \"netavark\"\nnetwork_config_dir = \"{place}/networks\"\n\
         [engine]\ncgroup_manager = \"{manager}\"\nevents_logger = \"file\"\nruntime = \"{name}\"\n\
         runtime_supports_json = [\"{name}\"]\nruntime_supports_nocgroup = [\"corten\"]\n\
         [engine.runtimes]\n{name} = [\"{}\"]\n",
        sandbox.runtime.display()
    );
    let storage = format!(
        "[storage]\ndriver = \"overlay\"\ngraphroot = \"{place}/graph\"\n\
         rootless_storage_path = \"{place}/graph\"\nrunroot = \"/run/containers/storage\"\n"
    );
    let (config, store) = (dir.join("containers.conf"), dir.join("storage.conf"));
    fs::write(&config, containers)?;
    fs::write(&store, storage)?;
    let mut words = Vec::new();
    let mut always = Vec::new();
    let mut run = "/run".to_owned();
    if let Some(id) = user {
        run = format!("/run/user/{id}");
        let id = id.to_string();
        let drop = ["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups", "--"];
        words.extend(drop.map(str::to_owned));
    } else if manager == "cgroupfs" {
        always.extend(["--cgroup-parent".to_owned(), sandbox.cgroup.clone()]);
    }
    words.push("podman".to_owned());
    let environment = vec![
        ("CONTAINERS_CONF", config.display().to_string()),
        ("CONTAINERS_STORAGE_CONF", store.display().to_string()),
        ("HOME", format!("{place}/home")),
        ("XDG_RUNTIME_DIR", run),
    ];
    let remove = &["rm", "--force", "--volumes", "--time", "0"];
    Ok(Client { sandbox: sandbox.clone(), dir: dir.to_owned(), words, environment, always, remove })
}
