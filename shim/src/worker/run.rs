//! The worker's side: each operation from top to bottom.
//!
//! What create has made before it fails is taken back here, in reverse; a worker that is killed
//! leaves that to the next one, which the shim starts with [`Verb::Delete`].

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use corten::bundle::Bundle;
use corten::error::{Doing, Error, Result};
use corten::exec::Target;
use corten::start::start_by_id;
use corten::store::Store;
use corten::sys::process::exit_now;
use corten::undo::Undo;
use corten::{create, delete, exec, kill, pause, spec, sys, update};
use nix::sys::prctl;
use protobuf::well_known_types::any::Any;

use super::task::{Born, Create, Exec, Failure, Said, Task, Verb};
use super::{NAME, SOCKET, TASK, WORDS};
use crate::bundle::{PID_FILE, ROOTFS};
use crate::container::Stdio;
use crate::io::{self, ProcessEnd, ShimEnd, Wires};
use crate::options::Options;
use crate::{exits, log, mounts};

/// A sealed worker's whole life, begun by [`super::Worker::begin`].
pub fn main() -> ! {
    // The name is the memfd's.
    let named = prctl::set_name(NAME).doing(|| "prctl PR_SET_NAME".to_owned());
    match named.and_then(|()| take_task()) {
        Ok(task) => carry_out(task),
        Err(error) => {
            log::failure(&error);
            exit_now(1)
        }
    }
}

fn take_task() -> Result<Task> {
    let file = sys::fds::adopt(TASK).doing(|| "take the task".to_owned())?;
    serde_json::from_reader(std::io::BufReader::new(File::from(file)))
        .map_err(|error| Error::Failed(format!("read the task: {error}")))
}

/// Does what is asked and says what came of it.
pub fn carry_out(task: Task) -> ! {
    let Ok(socket) = sys::fds::adopt(SOCKET) else { exit_now(1) };
    let voice = Voice(Arc::new(socket));
    let progress = Voice(Arc::clone(&voice.0));
    log::tell_progress(move |what| progress.doing(what));
    tell_bugs(Arc::clone(&voice.0));
    let is_exec = matches!(task.verb, Verb::Exec(_));
    match log::keep(task.level).and_then(|()| voice.perform(task)) {
        // Its last word was the process: one that the loop need not wake up for.
        Ok(()) if is_exec => exit_now(0),
        Ok(()) => {
            voice.say(&Said::Done, &[]);
            exit_now(0)
        }
        Err(error) => fail(&voice.0, error),
    }
}

/// A bug is the shim's to know: the standard streams may be the container's by now. Nothing is taken
/// back here.
fn tell_bugs(socket: Arc<OwnedFd>) {
    std::panic::set_hook(Box::new(move |info| {
        say(&socket, &Said::Broken(log::bug(info)), &[]);
        exit_now(1)
    }));
}

/// Says why it could not be done.
pub fn fail(socket: &OwnedFd, error: Error) -> ! {
    let mut failure = Failure::from(error);
    let end = failure.message.floor_char_boundary(WORDS);
    failure.message.truncate(end);
    say(socket, &Said::Failed(failure), &[]);
    exit_now(1)
}

fn say(socket: &OwnedFd, said: &Said, fds: &[BorrowedFd<'_>]) {
    for line in log::take() {
        send(socket, &Said::Log(vec![line]), &[]);
    }
    send(socket, said, fds);
}

fn send(socket: &OwnedFd, said: &Said, fds: &[BorrowedFd<'_>]) {
    // Without a shim nobody is left to be told; its end is ours as well.
    if let Ok(bytes) = serde_json::to_vec(said) {
        let _shim_may_be_gone = sys::socket::send(socket, &bytes, fds);
    }
}

/// The worker's end of the socket.
struct Voice(Arc<OwnedFd>);

impl Voice {
    fn say(&self, said: &Said, fds: &[BorrowedFd<'_>]) {
        say(&self.0, said, fds);
    }

    fn doing(&self, what: impl Into<String>) {
        self.say(&Said::Doing(what.into()), &[]);
    }

    fn perform(&self, task: Task) -> Result<()> {
        let Task { id, namespace, root, verb, .. } = task;
        let store = Store::new(&root, false);
        match verb {
            Verb::Create(request) => self.create(&id, &namespace, &request),
            Verb::Start => start_by_id(&store, &id),
            Verb::Exec(request) => self.exec(&store, &id, &namespace, &request),
            Verb::Kill { signal, all } => kill::kill(&store.open(&id)?.read_state()?, signal, all),
            Verb::Pause => pause::pause(&store, &id),
            Verb::Resume => pause::resume(&store, &id),
            Verb::Update(resources) => {
                let what = Path::new("resources");
                update::update(&store, &id, &spec::parse_resources(resources.as_bytes(), what)?)
            }
            Verb::Delete { rootfs } => {
                self.doing("delete the container");
                delete::delete(&store, &id, true)?;
                self.doing(format!("unmount {}", rootfs.display()));
                mounts::unmount_all(&rootfs)
            }
        }
    }

    fn create(&self, id: &str, namespace: &str, request: &Create) -> Result<()> {
        let bundle = request.bundle.as_path();
        let options = options(request)?;
        let root = options.runtime_root(namespace);
        self.say(&Said::Root(root.clone()), &[]);
        let store = Store::new(&root, false);
        let mut undo = Undo::new();
        // A request that fails leaves the options of the shim's start to the next one.
        let before = Options::read(bundle).unwrap_or_default();
        undo.push("options", move || before.write(bundle));
        options.write(bundle)?;
        // Of an earlier container in the same bundle.
        exits::remove(bundle, None)?;

        self.doing("mount the root file system");
        let rootfs = bundle.join(ROOTFS);
        mounts::mount_all(&request.mounts, &rootfs)?;
        if !request.mounts.is_empty() {
            undo.push("root file system", move || mounts::unmount_all(&rootfs));
        }
        self.doing("open the standard streams");
        let streams = Streams { stdio: &request.stdio, id, namespace, options: &options };
        let mut opened = streams.open()?;

        self.doing("create the container");
        let wanted = create::Request {
            id: id.to_owned(),
            console: opened.console.take(),
            no_pivot: options.no_pivot_root,
            no_new_keyring: options.no_new_keyring,
            pid_file: Some(bundle.join(PID_FILE)),
            cgroups: true,
            systemd: options.systemd_cgroup,
            ..create::Request::default()
        };
        let created = create::create(&store, Bundle::enter(Some(bundle), None)?, wanted)?;
        undo.push("container", || delete::delete(&store, id, true));
        let born = Born {
            pid: created.init.pid.as_raw(),
            wires: Wires::default(),
            cgroup: created.state.cgroup,
            own_pid_namespace: created.state.own_pid_namespace,
        };
        drop(created.lock);
        self.born(opened, born, created.init.pidfd.as_fd())?;
        undo.disarm();
        Ok(())
    }

    fn exec(&self, store: &Store, id: &str, namespace: &str, request: &Exec) -> Result<()> {
        let process = spec::parse_process(request.process.as_bytes(), Path::new("process"))?;
        let target = Target::find(store, id, false)?;
        let options = Options::read(&target.state.bundle)?;
        if request.stdio.is_any() {
            self.doing("open the standard streams");
        }
        let id = request.exec_id.as_str();
        let streams = Streams { stdio: &request.stdio, id, namespace, options: &options };
        let mut opened = streams.open()?;
        self.doing("run the process");
        let wanted = exec::Request { console: opened.console.take(), ..Default::default() };
        let child = exec::exec(&target, &process, "", wanted)?;
        let born = Born {
            pid: child.pid.as_raw(),
            wires: Wires::default(),
            cgroup: None,
            own_pid_namespace: false,
        };
        self.born(opened, born, child.pidfd.as_fd()).inspect_err(|_| {
            // It runs, but nobody will ever hear of it.
            let _ended = sys::process::pidfd_send_signal(&child.pidfd, libc::SIGKILL);
        })
    }

    /// Hands the new process to the shim.
    fn born(&self, opened: OpenedStreams, mut born: Born, pidfd: BorrowedFd<'_>) -> Result<()> {
        let mut ours = opened.shim;
        ours.receive_console()?;
        let (wires, fds) = ours.into_parts();
        born.wires = wires;
        let mut all = vec![pidfd];
        all.extend(fds.iter().map(AsFd::as_fd));
        self.say(&Said::Born(born), &all);
        Ok(())
    }
}

/// The options that came with the request, or else those of the shim's start.
fn options(request: &Create) -> Result<Options> {
    let (type_url, value) = request.options.clone();
    if type_url.is_empty() {
        return Options::read(&request.bundle);
    }
    Options::from_any(Some(&Any { type_url, value, ..Default::default() }))
}

/// What a process's streams are to be.
struct Streams<'a> {
    stdio: &'a Stdio,
    id: &'a str,
    namespace: &'a str,
    options: &'a Options,
}

/// Opened streams; those of the container's process are this process's own by now.
struct OpenedStreams {
    /// The socket for the terminal, taken out when the process is made: it must not be left open here.
    console: Option<OwnedFd>,
    shim: ShimEnd,
}

impl Streams<'_> {
    fn open(&self) -> Result<OpenedStreams> {
        let opened = io::open(&io::Request {
            stdin: &self.stdio.stdin,
            stdout: &self.stdio.stdout,
            stderr: &self.stdio.stderr,
            terminal: self.stdio.terminal,
            uid: self.options.io_uid,
            gid: self.options.io_gid,
            id: self.id,
            namespace: self.namespace,
        })?;
        let console = match opened.process {
            ProcessEnd::Console(socket) => Some(socket),
            ProcessEnd::Streams(streams) => {
                let [stdin, stdout, stderr] = &streams;
                sys::fds::become_stdio([stdin.as_fd(), stdout.as_fd(), stderr.as_fd()])
                    .doing(|| "dup2".to_owned())?;
                None
            }
        };
        Ok(OpenedStreams { console, shim: opened.shim })
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use corten::sys::process::{CloneArgs, Cloned, clone};

    use super::*;

    /// In a process without other threads, since it forks one that goes on in Rust.
    #[test]
    fn a_bug_is_told_to_the_shim_and_not_to_the_container() {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "worker::run::tests::bug", "--ignored", "--nocapture"])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
        assert!(!String::from_utf8_lossy(&output.stderr).contains("broken on purpose"));
    }

    #[test]
    #[ignore = "run by the test above"]
    fn bug() {
        let (ours, theirs) = sys::socket::pair().unwrap();
        if let Cloned::Child = clone(&CloneArgs::default()).unwrap() {
            tell_bugs(Arc::new(theirs));
            panic!("broken on purpose");
        }
        drop(theirs);
        let mut message = vec![0; sys::socket::next_length(&ours).unwrap()];
        sys::socket::receive(&ours, &mut message).unwrap();
        let Said::Broken(words) = serde_json::from_slice(&message).unwrap() else { panic!() };
        assert!(words.starts_with("internal error at "), "{words}");
        assert!(words.ends_with(": broken on purpose"), "{words}");
    }
}
