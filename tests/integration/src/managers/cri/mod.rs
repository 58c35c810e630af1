//! containerd's CRI plugin, driven through its socket as the kubelet drives it.
//!
//! Requests and replies are JSON (see [`messages`]), one connection each (see [`grpc`]). Pods have
//! a network of Debian's CNI plugins, a cgroup of their own as the kubelet makes one, and are
//! removed when the test ends, however it ends.
//!
//! One containerd knows several handlers: the shim under test plainly ([`HANDLER`]), the same with
//! a table of options ([`WITH_OPTIONS`]), the packaged shim with the packaged runc ([`OTHER`]), one
//! whose shim does not exist ([`MISSING`]) and, from containerd 2 on, the shim under test under the
//! name of runc's, which gets its options in runc's form ([`AS_RUNC`]).

pub mod grpc;
pub mod messages;
pub mod pod;
pub mod stream;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use self::messages::Schema;
use super::command::Run;
use super::daemon::Daemon;
use super::sandbox::Sandbox;
use super::{Stop, Verdict, containerd, eventually, image};

/// The shim under test.
pub const HANDLER: &str = "corten";
/// The shim under test with `Root` among its options.
pub const WITH_OPTIONS: &str = "corten-options";
/// The shim under test by path, with the type of runc's shim.
pub const AS_RUNC: &str = "corten-as-runc";
/// The packaged shim with the packaged runc.
pub const OTHER: &str = "runc";
/// The shim under test with `SystemdCgroup`.
pub const SYSTEMD: &str = "corten-systemd";
/// A shim that is not there.
pub const MISSING: &str = "missing";
/// containerd's namespace of the CRI.
pub const NAMESPACE: &str = "k8s.io";
/// The image of a pod's own container.
const PAUSE: &str = "corten.test/pause:1";
/// The bridge of the pods, its address and network.
pub const BRIDGE: &str = "corten-cri0";
/// Its address.
pub const GATEWAY: &str = "172.30.79.1";
/// Where Debian's CNI plugins are.
const CNI: &str = "/usr/lib/cni";

/// What must be installed.
pub const NEEDS: &[(&str, &str)] = &[
    ("containerd", "containerd"),
    ("ctr", "containerd"),
    ("containerd-shim-runc-v2", "containerd"),
    ("runc", "runc"),
    ("/usr/lib/cni/bridge", "containernetworking-plugins"),
    ("/usr/lib/cni/portmap", "containernetworking-plugins"),
    ("iptables", "iptables"),
];

/// A containerd with its CRI plugin.
#[derive(Debug)]
pub struct Cri {
    /// What it runs in.
    pub sandbox: Sandbox,
    /// Where it keeps everything.
    pub dir: PathBuf,
    /// The first number of its version.
    pub major: u32,
    program: PathBuf,
    socket: PathBuf,
    schema: Schema,
    daemon: Daemon,
}

/// Why containerd refused a call.
#[derive(Debug)]
pub struct Refusal {
    /// The gRPC status.
    pub status: u32,
    /// What it says.
    pub message: String,
}

impl Cri {
    /// Starts containerd, waits until it is ready for pods, and imports the images.
    pub fn start(sandbox: &Sandbox) -> Result<Self, Stop> {
        Self::start_by(sandbox, &sandbox.containerd("containerd"), "cri")
    }

    /// [`Cri::start`] of a certain containerd, with everything in a directory of that name.
    pub fn start_by(sandbox: &Sandbox, program: &Path, name: &str) -> Result<Self, Stop> {
        let dir = sandbox.dir.join(name);
        fs::create_dir_all(dir.join("cni"))?;
        fs::create_dir_all(dir.join("logs"))?;
        fs::write(dir.join("cni/10-corten.conflist"), network(&dir).to_string())?;
        let socket = dir.join("containerd.sock");
        let major = containerd::major(program)?;
        let text = config(sandbox, &dir, &socket, major)?;
        let daemon = containerd::launch(sandbox, program, &dir, &socket, &text)?;
        let (sandbox, program, schema) = (sandbox.clone(), program.to_owned(), Schema::load()?);
        let cri = Self { sandbox, dir, major, program, socket, schema, daemon };
        cri.ready()?;
        cri.import()?;
        Ok(cri)
    }

    fn import(&self) -> Verdict {
        let place = &self.sandbox.dir;
        let layer = image::archive(place)?;
        let pause: &[&str] = &["sleep", "2147483647"];
        let images = [(image::REFERENCE, ["sh"].as_slice()), (PAUSE, pause)];
        let archive = image::docker_archive_of(place, &layer, &images)?;
        self.ctr(&["images", "import"]).arg(&archive).ok()?;
        // The plugin hears of new images by events.
        eventually("the images are known", Duration::from_secs(30), || {
            let known = |name| self.call("ImageStatus", &json!({"image": {"image": name}}));
            Ok(known(image::REFERENCE)?["image"].is_object() && known(PAUSE)?["image"].is_object())
        })
    }

    fn ready(&self) -> Verdict {
        let mut seen = String::new();
        let answered = eventually("the CRI is ready", Duration::from_secs(60), || {
            let status = self.call("Status", &json!({}));
            seen = format!("{status:?}");
            let Ok(status) = status else { return Ok(false) };
            let conditions = status["status"]["conditions"].as_array().cloned();
            let is_ready = |kind: &str| {
                let mut all = conditions.iter().flatten();
                all.any(|one| one["type"] == kind && one["status"] == true)
            };
            Ok(is_ready("RuntimeReady") && is_ready("NetworkReady"))
        });
        answered.map_err(|_| Stop::Fail(format!("{seen}\n{}", self.daemon.tail())))
    }

    /// Stops or kills the daemon, does something, and starts it again.
    pub fn restart(&mut self, signal: Signal, meanwhile: impl FnOnce() -> Verdict) -> Verdict {
        self.daemon.stop(signal)?;
        let done = meanwhile();
        let text = config(&self.sandbox, &self.dir, &self.socket, self.major)?;
        let daemon =
            containerd::launch(&self.sandbox, &self.program, &self.dir, &self.socket, &text);
        self.daemon = daemon?;
        self.ready().and(done)
    }

    /// [`Cri::restart`] as another containerd.
    pub fn upgrade(&mut self, program: &Path, meanwhile: impl FnOnce() -> Verdict) -> Verdict {
        self.major = containerd::major(program)?;
        program.clone_into(&mut self.program);
        self.restart(Signal::SIGTERM, meanwhile)
    }

    /// Removes every pod that a failed test has left and stops the daemon.
    pub fn stop(&mut self) -> Verdict {
        let all = self.call("ListPodSandbox", &json!({})).unwrap_or_default();
        for pod in all["items"].as_array().into_iter().flatten() {
            let id = json!({"pod_sandbox_id": pod["id"]});
            self.call("StopPodSandbox", &id).and(self.call("RemovePodSandbox", &id)).ok();
        }
        self.daemon.stop(Signal::SIGTERM)
    }

    /// Skips the test unless containerd is at least that new.
    pub fn since(&self, major: u32, what: &str) -> Verdict {
        if self.major >= major {
            return Ok(());
        }
        let major = format!("containerd {major} or newer: set CONTAINERD_BIN to its directory");
        Err(Stop::Skip(format!("{what} needs {major}")))
    }

    /// `ctr` in the namespace of the CRI.
    pub fn ctr(&self, words: &[&str]) -> Run {
        // The one beside the daemon: they are of one version.
        let run = Run::new(self.program.with_file_name("ctr")).arg("--address").arg(&self.socket);
        run.args(["--namespace", NAMESPACE]).args(words)
    }

    /// Calls a method of the runtime service, or of the image service.
    pub fn call(&self, method: &str, request: &Value) -> Result<Value, Stop> {
        match self.ask(method, request)? {
            Ok(reply) => Ok(reply),
            Err(Refusal { status, message }) => {
                Err(Stop::Fail(format!("{method}: status {status}: {message}\nof {request}")))
            }
        }
    }

    /// Calls a method that must be refused.
    pub fn refused(&self, method: &str, request: &Value) -> Result<Refusal, Stop> {
        match self.ask(method, request)? {
            Ok(reply) => Err(Stop::Fail(format!("{method} of {request} succeeded: {reply}"))),
            Err(refusal) => Ok(refusal),
        }
    }

    fn ask(&self, method: &str, request: &Value) -> Result<Result<Value, Refusal>, Stop> {
        let service = if method.starts_with("Image") { "ImageService" } else { "RuntimeService" };
        let path = format!("/runtime.v1.{service}/{method}");
        let body = self.schema.encode(&format!("{method}Request"), request)?;
        let reply = grpc::call(&self.socket, &path, &body, Duration::from_secs(120))?;
        if reply.status == 0 {
            return Ok(Ok(self.schema.decode(&format!("{method}Response"), &reply.body)?));
        }
        Ok(Err(Refusal { status: reply.status, message: reply.message }))
    }
}

/// A bridge, addresses from a file, and ports of the host.
fn network(dir: &Path) -> Value {
    let bridge = json!({
        "type": "bridge",
        "bridge": BRIDGE,
        "isGateway": true,
        "hairpinMode": true,
        "ipam": {
            "type": "host-local",
            "dataDir": dir.join("addresses"),
            "ranges": [[{"subnet": "172.30.79.0/24", "gateway": GATEWAY}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    });
    let ports = json!({"type": "portmap", "capabilities": {"portMappings": true}});
    json!({"cniVersion": "0.4.0", "name": "corten", "plugins": [bridge, ports]})
}

/// The configuration of a containerd of that version.
fn config(sandbox: &Sandbox, dir: &Path, socket: &Path, major: u32) -> Result<String, Stop> {
    let (dir, socket) = (dir.display(), socket.display());
    let handlers = handlers(sandbox, &dir.to_string(), major)?;
    let common =
        format!("root = '{dir}/root'\nstate = '{dir}/state'\n[grpc]\naddress = '{socket}'\n");
    let debug = "[debug]\nlevel = 'debug'\n";
    let shared = "tolerate_missing_hugetlb_controller = true\nrestrict_oom_score_adj = true\n\
                  netns_mounts_under_state_dir = true\nmax_container_log_line_size = 16384\n";
    let streaming = "stream_server_address = '127.0.0.1'\nstream_server_port = '0'\n";
    if major < 2 {
        let cri = "[plugins.'io.containerd.grpc.v1.cri'";
        return Ok(format!(
            "version = 2\n{common}{debug}{cri}]\nsandbox_image = '{PAUSE}'\n{shared}{streaming}\
             {cri}.cni]\nbin_dir = '{CNI}'\nconf_dir = '{dir}/cni'\n\
             {cri}.containerd]\ndefault_runtime_name = '{HANDLER}'\n{}",
            handlers.replace("[RUNTIMES", &format!("{cri}.containerd.runtimes"))
        ));
    }
    let cri = "[plugins.'io.containerd.cri.v1.runtime'";
    Ok(format!(
        "version = 3\n{common}{debug}[plugins.'io.containerd.grpc.v1.cri']\n{streaming}\
         [plugins.'io.containerd.cri.v1.images'.pinned_images]\nsandbox = '{PAUSE}'\n\
         [plugins.'io.containerd.nri.v1.nri']\ndisable = true\n\
         {cri}]\n{shared}{cri}.cni]\nbin_dirs = ['{CNI}']\nconf_dir = '{dir}/cni'\n\
         {cri}.containerd]\ndefault_runtime_name = '{HANDLER}'\n{}",
        handlers.replace("[RUNTIMES", &format!("{cri}.containerd.runtimes"))
    ))
}

fn handlers(sandbox: &Sandbox, dir: &str, major: u32) -> Result<String, Stop> {
    let kind = sandbox.runtime_type()?;
    // containerd 1.6 hands over the name of a file; it reads options itself for runc's shim alone.
    let options = |name: &str, text: String| {
        if major >= 2 || kind == "io.containerd.runc.v2" {
            return Ok::<_, Stop>(text);
        }
        let file = format!("{dir}/{name}.toml");
        fs::write(&file, text)?;
        Ok(format!("TypeUrl = 'containerd.runc.v1.Options'\nConfigPath = '{file}'\n"))
    };
    let root = options("options", format!("Root = '{dir}/state-of-options'\n"))?;
    let systemd = options("systemd", "SystemdCgroup = true\n".to_owned())?;
    let mut text = format!(
        "[RUNTIMES.{HANDLER}]\nruntime_type = '{kind}'\n\
         [RUNTIMES.{WITH_OPTIONS}]\nruntime_type = '{kind}'\n\
         [RUNTIMES.{WITH_OPTIONS}.options]\n{root}\
         [RUNTIMES.{SYSTEMD}]\nruntime_type = '{kind}'\n\
         [RUNTIMES.{SYSTEMD}.options]\n{systemd}\
         [RUNTIMES.{OTHER}]\nruntime_type = 'io.containerd.runc.v2'\n\
         [RUNTIMES.{OTHER}.options]\nBinaryName = '/usr/sbin/runc'\n\
         [RUNTIMES.{MISSING}]\nruntime_type = 'io.containerd.nosuchshim.v2'\n"
    );
    if major >= 2 {
        let shim = sandbox.shim()?.display();
        text += &format!(
            "[RUNTIMES.{AS_RUNC}]\nruntime_type = 'io.containerd.runc.v2'\n\
             runtime_path = '{shim}'\n[RUNTIMES.{AS_RUNC}.options]\nNoNewKeyring = true\n"
        );
    }
    Ok(text)
}
