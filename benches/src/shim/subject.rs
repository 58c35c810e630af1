//! The shims that are measured, and what containerd does with one.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use containerd_shim_protos::api::{
    ConnectRequest, ConnectResponse, CreateTaskRequest, CreateTaskResponse, DeleteRequest,
    DeleteResponse, Empty, ExecProcessRequest, KillRequest, ShutdownRequest, StartRequest,
    StartResponse, WaitRequest, WaitResponse,
};
use containerd_shim_protos::shim::oci::Options as RuncOptions;
use corten_bench::process::Process;
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use protobuf::Message;
use protobuf::well_known_types::any::Any;
use serde_json::json;

use crate::client::Client;

/// A shim with what it starts containers with.
#[derive(Debug, Clone)]
pub struct Subject {
    /// What the report calls it.
    pub name: &'static str,
    /// The shim.
    pub program: PathBuf,
    /// runc's options: the runtime's name and root.
    pub options: Any,
    /// Where containerd would listen.
    pub address: PathBuf,
}

impl Subject {
    /// A shim that keeps the state of its containers in `root` and runs them with `runtime`; one
    /// that needs no runtime ignores it.
    pub fn new(
        name: &'static str,
        program: PathBuf,
        runtime: &str,
        root: &Path,
        address: &Path,
    ) -> Result<Self, String> {
        let options = RuncOptions {
            binary_name: runtime.to_owned(),
            root: root.join(name).to_string_lossy().into_owned(),
            ..RuncOptions::default()
        };
        let value = options.write_to_bytes().map_err(|error| error.to_string())?;
        let type_url = "containerd.runc.v1.Options".to_owned();
        let options = Any { type_url, value, ..Any::default() };
        Ok(Self { name, program, options, address: address.to_owned() })
    }

    /// Executes `start` in the bundle; the address that it answers.
    pub fn start(&self, bundle: &Path, id: &str) -> Result<String, String> {
        let mut command = Command::new(&self.program);
        command
            .args(["-namespace", "corten-bench", "-publish-binary", "/bin/true", "-id", id])
            .arg("-address")
            .arg(&self.address)
            .arg("start")
            .current_dir(bundle)
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("TTRPC_ADDRESS", &self.address)
            .env("GOMAXPROCS", "2")
            .stdin(Stdio::null());
        let ended = command.output().map_err(|error| format!("{:?}: {error}", self.program))?;
        let words = String::from_utf8_lossy(&ended.stdout).trim().to_owned();
        if !ended.status.success() || !words.starts_with("unix://") {
            let stderr = String::from_utf8_lossy(&ended.stderr);
            return Err(format!("{} start: {words} {stderr}", self.name));
        }
        Ok(words)
    }

    /// Starts a shim for the bundle and connects to it.
    pub fn boot(&self, bundle: &Path, id: &str) -> Result<Shim, String> {
        let log = Log::new(bundle)?;
        let address = self.start(bundle, id)?;
        self.connect(bundle, id, &address, log)
    }

    /// Connects to a shim that was started.
    pub fn connect(
        &self,
        bundle: &Path,
        id: &str,
        address: &str,
        log: Log,
    ) -> Result<Shim, String> {
        let mut client = Client::connect(address)?;
        let query = ConnectRequest { id: id.to_owned(), ..ConnectRequest::default() };
        let answer: ConnectResponse = client.call("Connect", &query)?;
        let pid = answer.shim_pid as i32;
        let bundle = bundle.to_string_lossy().into_owned();
        Ok(Shim {
            client,
            pid,
            process: Process::from_pid(pid)?,
            id: id.to_owned(),
            address: address.to_owned(),
            bundle,
            options: self.options.clone(),
            log,
            init: None,
        })
    }
}

/// The FIFO for the shim's log, kept open and emptied.
#[derive(Debug)]
pub struct Log(File);

impl Log {
    /// Makes it in the bundle.
    pub fn new(bundle: &Path) -> Result<Self, String> {
        let path = bundle.join("log");
        let failed = |error: std::io::Error| format!("{path:?}: {error}");
        if !path.exists() {
            mkfifo(&path, Mode::S_IRWXU).map_err(|errno| failed(errno.into()))?;
        }
        let mut options = File::options();
        options.read(true).write(true).custom_flags(libc::O_NONBLOCK);
        options.open(&path).map(Self).map_err(failed)
    }

    /// What was written since the last time.
    fn take(&mut self) -> String {
        let mut bytes = Vec::new();
        // It ends with EAGAIN: nothing more for now.
        let _end = self.0.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// A running shim with, mostly, one container.
#[derive(Debug)]
pub struct Shim {
    /// The connection.
    pub client: Client,
    /// The daemon.
    pub pid: i32,
    /// The same, to wait for.
    process: Process,
    /// The container's id.
    pub id: String,
    address: String,
    bundle: String,
    options: Any,
    log: Log,
    /// The container's first process, from Create to Delete.
    init: Option<Process>,
}

/// A benchmark that has failed leaves no processes. Of a daemon that was killed the socket stays.
impl Drop for Shim {
    fn drop(&mut self) {
        self.process.kill();
        if let Some(init) = self.init.take() {
            init.kill();
        }
        if let Some(path) = self.address.strip_prefix("unix://") {
            // It is gone after Shutdown.
            let _gone = std::fs::remove_file(path);
        }
    }
}

/// The paths of an exec's streams; without any it has none.
pub type Streams<'a> = Option<(&'a str, &'a str)>;

impl Shim {
    /// Create; the init's streams go nowhere.
    pub fn create(&mut self) -> Result<(), String> {
        let query = CreateTaskRequest {
            id: self.id.clone(),
            bundle: self.bundle.clone(),
            options: Some(self.options.clone()).into(),
            ..CreateTaskRequest::default()
        };
        let answer: CreateTaskResponse = self
            .client
            .call("Create", &query)
            .map_err(|error| format!("{error}\n{}", self.log.take()))?;
        self.init = Some(Process::from_pid(answer.pid as i32)?);
        Ok(())
    }

    /// Start of the init.
    pub fn start(&mut self) -> Result<(), String> {
        let query = StartRequest { id: self.id.clone(), ..StartRequest::default() };
        self.client.call::<_, StartResponse>("Start", &query).map(drop)
    }

    /// Exec of `/bin/true` and its Start, until Wait says that it has ended.
    pub fn exec(&mut self, exec_id: &str, streams: Streams<'_>) -> Result<(), String> {
        let process = json!({
            "user": {"uid": 0, "gid": 0}, "args": ["/bin/true"], "env": ["PATH=/bin"], "cwd": "/",
        });
        let spec = Any {
            type_url: "types.containerd.io/opencontainers/runtime-spec/1/Process".to_owned(),
            value: process.to_string().into_bytes(),
            ..Any::default()
        };
        let (stdout, stderr) = streams.unwrap_or_default();
        let (id, exec_id) = (self.id.clone(), exec_id.to_owned());
        let query = ExecProcessRequest {
            id: id.clone(),
            exec_id: exec_id.clone(),
            stdout: stdout.to_owned(),
            stderr: stderr.to_owned(),
            spec: Some(spec).into(),
            ..ExecProcessRequest::default()
        };
        self.client.call::<_, Empty>("Exec", &query)?;
        let query =
            WaitRequest { id: id.clone(), exec_id: exec_id.clone(), ..WaitRequest::default() };
        let waiting = self.client.send("Wait", &query)?;
        let query = StartRequest { id, exec_id, ..StartRequest::default() };
        self.client.call::<_, StartResponse>("Start", &query)?;
        match self.client.answer::<WaitResponse>(waiting)?.exit_status {
            0 => Ok(()),
            status => Err(format!("an exec ended with {status}")),
        }
    }

    /// Kill of the init, until Wait says that it has ended.
    pub fn kill(&mut self) -> Result<(), String> {
        let waiting = self.client.send("Wait", &self.wait_request())?;
        let signal = libc::SIGKILL as u32;
        let query = KillRequest { id: self.id.clone(), signal, ..KillRequest::default() };
        self.client.call::<_, Empty>("Kill", &query)?;
        match self.client.answer::<WaitResponse>(waiting)?.exit_status {
            137 => Ok(()),
            status => Err(format!("a killed init ended with {status}")),
        }
    }

    fn wait_request(&self) -> WaitRequest {
        WaitRequest { id: self.id.clone(), ..WaitRequest::default() }
    }

    /// Delete of an exec, or of the init.
    pub fn delete(&mut self, exec_id: &str) -> Result<(), String> {
        let (id, exec_id) = (self.id.clone(), exec_id.to_owned());
        let is_init = exec_id.is_empty();
        let query = DeleteRequest { id, exec_id, ..DeleteRequest::default() };
        self.log.take();
        self.client.call::<_, DeleteResponse>("Delete", &query)?;
        if is_init {
            self.init = None;
        }
        Ok(())
    }

    /// Shutdown, until the daemon has ended.
    pub fn shutdown(&mut self) -> Result<(), String> {
        let query = ShutdownRequest { id: self.id.clone(), ..ShutdownRequest::default() };
        // The Go shim may be quicker to end than to answer.
        self.client.send("Shutdown", &query)?;
        self.process.ended()?;
        // We are the subreaper; an init that is quicker is welcome to it.
        let _reaped = nix::sys::wait::waitpid(Pid::from_raw(self.pid), None);
        Ok(())
    }

    /// Takes a container and its shim back.
    pub fn end(mut self) -> Result<(), String> {
        self.kill()?;
        self.delete("")?;
        self.shutdown()
    }
}

/// Streams for an exec whose output somebody reads.
#[derive(Debug)]
pub struct Fifos {
    paths: [PathBuf; 2],
    readers: Vec<File>,
}

impl Fifos {
    /// Makes the FIFOs and opens them for reading.
    pub fn new(dir: &Path) -> Result<Self, String> {
        let paths = ["out", "err"].map(|name| dir.join(name));
        let mut readers = Vec::new();
        for path in &paths {
            let failed = |error: std::io::Error| format!("{path:?}: {error}");
            mkfifo(path, Mode::S_IRWXU).map_err(|errno| failed(errno.into()))?;
            let mut options = File::options();
            let file = options.read(true).custom_flags(libc::O_NONBLOCK).open(path);
            readers.push(file.map_err(failed)?);
        }
        Ok(Self { paths, readers })
    }

    /// What an exec is given.
    pub fn streams(&self) -> Streams<'_> {
        Some((self.paths[0].to_str()?, self.paths[1].to_str()?))
    }

    /// Reads to the end, which comes with Delete or soon after, and removes them.
    pub fn close(self) -> Result<(), String> {
        for (mut reader, path) in self.readers.into_iter().zip(&self.paths) {
            let mut buffer = [0; 64];
            let end = Instant::now() + Duration::from_secs(5);
            loop {
                match reader.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(error) if Instant::now() > end => return Err(format!("{path:?}: {error}")),
                    Err(_) => std::thread::sleep(Duration::from_micros(200)),
                }
            }
            std::fs::remove_file(path).map_err(|error| format!("{path:?}: {error}"))?;
        }
        Ok(())
    }
}
