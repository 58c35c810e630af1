use std::os::unix::fs::PermissionsExt;
use std::thread;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, kill};

use super::super::binary::Binary;
use super::*;

/// A directory, and a URI with a script for /bin/sh in it.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    fn script(&self, scheme: &str, script: &str) -> String {
        let dir = self.0.path().to_str().unwrap();
        let escaped: String = format!("cd {dir}; {script}")
            .bytes()
            .map(|byte| match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' => (byte as char).to_string(),
                byte => format!("%{byte:02X}"),
            })
            .collect();
        format!("{scheme}:///bin/sh?-c={escaped}")
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }
}

fn request(uri: &str) -> Request<'_> {
    Request { stdout: uri, stderr: uri, id: "box", namespace: "k8s.io", ..Request::default() }
}

fn error_of(uri: &str) -> String {
    open(&request(uri)).unwrap_err().to_string()
}

fn is_alive(pid: Pid) -> bool {
    kill(pid, None).is_ok()
}

#[test]
fn a_file_gets_both_streams_at_its_end_and_is_complete_after_the_delete() {
    let place = Place::new();
    let file = place.path("new/dir/the log");
    let uri = format!("file://{}", file.replace(' ', "%20"));
    for round in 0..2 {
        let (mut rig, [stdin, mut stdout, mut stderr]) = start(&request(&uri));
        let pid = rig.io.logger().unwrap().pid();
        // The container's, and none here.
        assert_eq!([&stdout, &stderr].map(|pipe| open_ends(inode(pipe))), [1, 1]);
        stdout.write_all(&noise(1 << 20)).unwrap();
        drop(stdout);
        stderr.write_all(b"and the other").unwrap();
        assert_eq!(rig.idle_turns(), 0);
        assert_eq!(
            std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap(),
            "corten-output\n"
        );
        assert!(std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count() <= 4);
        drop((stdin, stderr));
        let (took, logger) = rig.delete();
        assert!(logger.is_none() && took < Duration::from_millis(450), "{took:?}");
        assert!(!is_alive(pid), "reaped");
        let size = std::fs::metadata(&file).unwrap().len();
        assert_eq!(size, (round + 1) * ((1 << 20) + 13));
    }
    let mode = |path: &str| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    let umask = nix::sys::stat::Mode::from_bits_truncate(0o022).bits();
    assert_eq!((mode(&file) & !umask, mode(&place.path("new")) & !umask), (0o644, 0o755));
}

#[test]
fn a_slow_file_gets_the_rest_after_the_delete_and_one_in_use_is_left() {
    // A terminal is a file whose writers wait.
    let pty = nix::pty::openpty(None, None).unwrap();
    terminals::make_raw(&pty.slave);
    let path = nix::unistd::ttyname(&pty.slave).unwrap();
    let (rig, [stdin, mut stdout, stderr]) = start(&request(path.to_str().unwrap()));
    let mut sent = 0;
    for _ in 0..20 {
        sent += fill(&mut stdout);
        thread::sleep(Duration::from_millis(10));
    }
    let poller = rig.poller.clone();
    let (took, logger) = rig.delete();
    assert!((450..900).contains(&took.as_millis()), "{took:?}");
    // Its pipes are still open, in a process in the background.
    let (mut master, mut got) = (File::from(pty.master), Vec::new());
    while got.len() < sent {
        gather(&mut master, &mut got);
    }
    assert_eq!(poller.wait(Some(Instant::now() + PATIENCE)).unwrap(), [TOKEN]);
    assert!(logger.unwrap().turn(Instant::now()));
    drop((stdin, stdout, stderr));
}

#[test]
fn a_path_of_a_file_is_appended_to_if_it_is_there() {
    let place = Place::new();
    let (out, err) = (place.path("out"), place.path("err"));
    std::fs::write(&out, "old ").unwrap();
    let request = Request { stdout: &out, stderr: &err, ..Request::default() };
    assert!(open(&request).unwrap_err().to_string().starts_with(&format!("open {err:?}")));
    std::fs::write(&err, "").unwrap();
    let (rig, [_, mut stdout, mut stderr]) = start(&request);
    stdout.write_all(b"new").unwrap();
    stderr.write_all(b"wrong").unwrap();
    drop((stdout, stderr));
    assert!(rig.delete().1.is_none());
    assert_eq!((place.read("out").as_str(), place.read("err").as_str()), ("old new", "wrong"));
}

#[test]
fn a_full_disk_does_not_stop_the_container_and_the_file_says_what_is_missing() {
    let (rig, [stdin, mut stdout, stderr]) = start(&request("/dev/full"));
    stdout.write_all(&noise(1 << 20)).unwrap();
    drop((stdin, stdout, stderr));
    assert!(rig.delete().1.is_none());

    // Of this thread, and of the copier that it forks.
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let (none, place) = (None::<&str>, Place::new());
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    let (dir, flags) = (place.0.path(), MsFlags::empty());
    mount(Some("tmpfs"), dir, Some("tmpfs"), flags, Some("size=256k")).unwrap();
    std::fs::write(place.path("filler"), vec![0; 240 << 10]).unwrap();
    let uri = format!("file://{}", place.path("log"));
    let (rig, [stdin, mut stdout, stderr]) = start(&request(&uri));
    stdout.write_all(&[b'x'; 100_000]).unwrap();
    while place.read("log").len() < 16 << 10 {
        thread::sleep(Duration::from_millis(5));
    }
    // Time to lose the most of it.
    thread::sleep(Duration::from_millis(100));
    std::fs::remove_file(place.path("filler")).unwrap();
    stdout.write_all(b"back again").unwrap();
    drop((stdin, stdout, stderr));
    assert!(rig.delete().1.is_none());
    let text = place.read("log");
    let written = text.matches('x').count();
    let lost = 100_000 - written;
    let note = format!("x\n[corten: {lost} bytes of output were lost: No space left on device]\n");
    assert!(lost > 0 && text.contains(&note) && text.ends_with("back again"), "{written}");
    nix::mount::umount2(dir, nix::mount::MntFlags::MNT_DETACH).unwrap();
}

#[test]
fn a_binary_gets_its_streams_arguments_and_environment_and_nothing_else() {
    let place = Place::new();
    let script = "env > env; ls /proc/self/fd > fds; exec 5>&-; cat <&3 > out; cat <&4 > err";
    let (mut rig, [stdin, mut stdout, mut stderr]) =
        start(&request(&place.script("binary", script)));
    // It was ready before open returned.
    let env = place.read("env");
    let mut env: Vec<_> = env.lines().filter(|line| line.starts_with("CONTAINER")).collect();
    env.sort_unstable();
    assert_eq!(env, ["CONTAINER_ID=box", "CONTAINER_NAMESPACE=k8s.io"]);
    assert!(!place.read("env").contains("CARGO"));
    // The last one is the listing's own.
    let fds = place.read("fds");
    assert_eq!(fds.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3", "4", "5", "6"]);
    stdout.write_all(b"to out").unwrap();
    stderr.write_all(b"to err").unwrap();
    assert_eq!(rig.idle_turns(), 0);
    drop((stdin, stdout, stderr));
    let (took, logger) = rig.delete();
    assert!(logger.is_none() && took < Duration::from_millis(450), "{took:?}");
    assert_eq!((place.read("out").as_str(), place.read("err").as_str()), ("to out", "to err"));
}

#[test]
fn a_binary_that_fails_fails_the_create() {
    let place = Place::new();
    let missing = error_of("binary:///not/here");
    let words = "start logging binary \"/not/here\": execute: no such file or directory";
    assert_eq!(missing, words);
    let failed = error_of(&place.script("binary", "exit 3"));
    let words = "logging binary \"/bin/sh\" ended before the container began: exit status 3";
    assert_eq!(failed, words);
    let silent = error_of(&place.script("binary-v2", "exit 4"));
    let words = "did not call ready (it may have crashed or exited prematurely): exit status 4";
    assert!(silent.ends_with(words), "{silent}");
    let closed = error_of(&place.script("binary-v2", "echo $$ > pid; exec 5>&-; exec sleep 100"));
    assert!(closed.ends_with("prematurely)"), "{closed}");
    let pid = Pid::from_raw(place.read("pid").trim().parse().unwrap());
    assert!(!is_alive(pid), "killed and reaped");
    assert!(error_of("ftp://x").ends_with("unknown STDIO scheme ftp"));
    // What ends well before it begins is taken as it is, as containerd's own shim does.
    let (rig, _streams) = start(&request("binary:///bin/true"));
    assert!(rig.delete().1.is_none());
}

#[test]
fn a_binary_that_is_never_ready_is_given_up() {
    let (path, args) = ("/bin/sleep", ["100".to_owned()]);
    let (id, namespace, patience) = ("box", "ns", Duration::from_millis(200));
    let binary = Binary { path, args: &args, must_say_ready: false, id, namespace, patience };
    let pipe = || OwnedFd::from(std::io::pipe().unwrap().0);
    let error = binary.start([pipe(), pipe()]).unwrap_err().to_string();
    assert_eq!(error, "logging binary \"/bin/sleep\" was not ready within 200ms");
}

#[test]
fn a_binary_of_the_second_kind_says_that_it_is_ready() {
    let place = Place::new();
    let uri = place.script("binary-v2", "sleep 0.1; printf x >&5; exec 5>&-; cat <&3 > out");
    let (rig, [stdin, mut stdout, stderr]) = start(&request(&uri));
    stdout.write_all(b"said").unwrap();
    drop((stdin, stdout, stderr));
    assert!(rig.delete().1.is_none());
    assert_eq!(place.read("out"), "said");
}

#[test]
fn a_logger_that_does_not_end_is_asked_and_killed_and_nobody_waits() {
    let place = Place::new();
    let script = "trap 'echo asked > asked' TERM; exec 5>&-; while :; do sleep 0.05; done";
    let (rig, streams) = start(&request(&place.script("binary", script)));
    drop(streams);
    let poller = rig.poller.clone();
    let (took, logger) = rig.delete();
    assert!((450..900).contains(&took.as_millis()), "{took:?}");
    let mut logger = logger.unwrap();
    let left = logger.deadline().unwrap() - Instant::now();
    assert!((11..=12).contains(&left.as_secs()), "{left:?}");
    while place.read("asked").is_empty() {
        assert!(!logger.turn(Instant::now()));
        thread::sleep(Duration::from_millis(5));
    }
    assert!(!logger.turn(Instant::now() + Duration::from_secs(13)));
    assert_eq!(logger.deadline(), None);
    assert_eq!(poller.wait(Some(Instant::now() + PATIENCE)).unwrap(), [TOKEN]);
    let pid = logger.pid();
    assert!(logger.turn(Instant::now()));
    assert!(!is_alive(pid));
}

#[test]
fn a_logger_that_is_asked_ends_whatever_its_worker_blocks() {
    let place = Place::new();
    SigSet::all().thread_block().unwrap();
    let (rig, streams) = start(&request(&place.script("binary", "exec 5>&-; exec sleep 100")));
    let poller = rig.poller.clone();
    // A process in the background keeps the pipe.
    let logger = rig.delete().1;
    drop(streams);
    assert_eq!(poller.wait(Some(Instant::now() + PATIENCE)).unwrap(), [TOKEN]);
    assert!(logger.unwrap().turn(Instant::now()));
}

#[test]
fn a_logger_ends_with_the_create_that_failed() {
    let place = Place::new();
    let uri = place.script("binary", "exec 5>&-; exec sleep 100");
    let opened = open(&request(&uri)).unwrap();
    let pid = opened.shim.logger.as_ref().unwrap().pid();
    assert!(is_alive(pid));
    drop(opened);
    assert!(!is_alive(pid));
}

#[test]
fn a_terminal_may_be_logged() {
    let place = Place::new();
    let binary = place.script("binary", "exec 5>&-; cat <&4 > err; echo > done; cat <&3 > out");
    let file = format!("file://{}", place.path("out"));
    for uri in [binary, file] {
        let (mut rig, mut tty) = terminals::start_with(&request(&uri), false);
        let writer = thread::spawn(move || tty.write_all(&[b'x'; 20_000]).unwrap());
        rig.until(|_| writer.is_finished());
        rig.io.exited();
        rig.until(|io| io.stdout.is_settled());
        let (took, logger) = rig.delete();
        assert!(logger.is_none() && took < Duration::from_millis(450), "{took:?}");
        assert_eq!(place.read("out"), "x".repeat(20_000));
        std::fs::remove_file(place.path("out")).unwrap();
    }
    assert_eq!(place.read("done"), "\n", "the second stream ended at once");
}

#[test]
fn a_terminal_goes_on_without_its_logger() {
    let place = Place::new();
    let uri = place.script("binary", "exec 5>&-; head -c 10 <&3 > out");
    let (mut rig, mut tty) = terminals::start_with(&request(&uri), false);
    let writer = thread::spawn(move || {
        tty.write_all(&noise(1 << 20)).unwrap();
        tty
    });
    rig.until(|_| writer.is_finished());
    assert!(rig.idle_turns() < 2);
    assert!(rig.io.describe().contains("stdout: dropping"), "{}", rig.io.describe());
    assert!(rig.io.logger().is_none());
}

#[test]
fn input_goes_past_a_logger() {
    let (client, place) = (Client::new(), Place::new());
    let (stdin, uri) = (client.path("in"), format!("file://{}", place.path("log")));
    let (mut rig, [mut stdin, ..]) = start(&Request { stdin: &stdin, ..request(&uri) });
    client.writer().write_all(b"typed").unwrap();
    rig.io.close_stdin();
    rig.run(Duration::from_millis(50));
    let mut text = String::new();
    stdin.read_to_string(&mut text).unwrap();
    assert_eq!(text, "typed");
}
