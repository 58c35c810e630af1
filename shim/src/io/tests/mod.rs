//! With real FIFOs, pipes and terminals, and a loop as small as can be.

mod fifos;
mod loggers;
mod terminals;

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::stat::{Mode, fstat};
use nix::unistd::{Pid, mkfifo};

use super::*;

const TOKEN: Token = Token(7);
/// Nothing here may take this long, on however busy a machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// The shim's loop with one process.
struct Rig {
    poller: Poller,
    io: Io,
    turns: usize,
}

impl Rig {
    fn new(shim: ShimEnd) -> Self {
        let (wires, fds) = shim.into_parts();
        assert_eq!(wires.count(), fds.len());
        let wires: Wires = serde_json::from_str(&serde_json::to_string(&wires).unwrap()).unwrap();
        let poller = Poller::new().unwrap();
        let io = Io::adopt(&wires, fds, &poller, TOKEN).unwrap();
        Self { poller, io, turns: 0 }
    }

    /// Runs the loop for that long.
    fn run(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            let deadline = self.io.deadline().map_or(end, |at| at.min(end));
            let ready = !self.poller.wait(Some(deadline)).unwrap().is_empty();
            if ready || self.io.deadline().is_some_and(|at| at <= Instant::now()) {
                self.turns += 1;
                self.io.turn();
            }
        }
    }

    /// Runs the loop until something has come true.
    fn until(&mut self, mut what: impl FnMut(&mut Io) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !what(&mut self.io) {
            assert!(Instant::now() < end, "in time; {}", self.io.describe());
            self.run(Duration::from_millis(2));
        }
    }

    /// The turns that a while takes in which nothing can be moved.
    fn idle_turns(&mut self) -> usize {
        self.run(Duration::from_millis(50));
        let before = self.turns;
        self.run(Duration::from_millis(300));
        self.turns - before
    }

    /// Deletes the process as the service does; how long that took.
    fn delete(mut self) -> (Duration, Option<Logger>) {
        let start = Instant::now();
        self.io.drain();
        while !self.io.is_drained() {
            self.run(Duration::from_millis(1));
        }
        (start.elapsed(), self.io.finish())
    }
}

/// A directory with the client's FIFOs.
struct Client {
    dir: tempfile::TempDir,
}

impl Client {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["in", "out", "err"] {
            mkfifo(&dir.path().join(name), Mode::from_bits_truncate(0o700)).unwrap();
        }
        Self { dir }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    fn reader(&self, name: &str) -> File {
        let flags = nix::libc::O_NONBLOCK;
        OpenOptions::new().read(true).custom_flags(flags).open(self.path(name)).unwrap()
    }

    fn writer(&self) -> File {
        let flags = nix::libc::O_NONBLOCK;
        OpenOptions::new().write(true).custom_flags(flags).open(self.path("in")).unwrap()
    }

    /// Opens all three for a process without a terminal.
    fn start(&self) -> (Rig, [File; 3]) {
        let [stdin, stdout, stderr] = ["in", "out", "err"].map(|name| self.path(name));
        let request =
            Request { stdin: &stdin, stdout: &stdout, stderr: &stderr, ..Request::default() };
        start(&request)
    }

    /// How many descriptors of this process are its FIFOs.
    fn open_fifos(&self) -> usize {
        let is_ours = |path: PathBuf| path.starts_with(self.dir.path());
        fds().filter(|fd| std::fs::read_link(fd).is_ok_and(is_ours)).count()
    }
}

fn fds() -> impl Iterator<Item = PathBuf> {
    std::fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().path())
}

/// How many descriptors of this process are that pipe, both ends together.
fn open_ends(inode: u64) -> usize {
    fds().filter(|fd| std::fs::metadata(fd).is_ok_and(|stat| stat.ino() == inode)).count()
}

fn inode(fd: impl AsFd) -> u64 {
    fstat(fd).unwrap().st_ino
}

fn start(request: &Request<'_>) -> (Rig, [File; 3]) {
    let Opened { process, shim } = open(request).unwrap();
    let ProcessEnd::Streams(streams) = process else { panic!("a console") };
    (Rig::new(shim), streams.map(File::from))
}

/// Reads what is there; true at the end of file.
fn gather(from: &mut File, into: &mut Vec<u8>) -> bool {
    let mut chunk = [0; 65536];
    match from.read(&mut chunk) {
        Ok(0) => true,
        Ok(count) => {
            into.extend_from_slice(&chunk[..count]);
            false
        }
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => false,
        Err(error) => panic!("{error}"),
    }
}

/// Bytes that are never the same twice in a row for long.
fn noise(count: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(count).collect()
}

fn non_blocking(file: &File) -> bool {
    let flags = fcntl(file, FcntlArg::F_GETFL).unwrap();
    OFlag::from_bits_retain(flags).contains(OFlag::O_NONBLOCK)
}

/// Fills a pipe without reading it.
fn fill(file: &mut File) -> usize {
    let flags = OFlag::from_bits_retain(fcntl(&*file, FcntlArg::F_GETFL).unwrap());
    fcntl(&*file, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).unwrap();
    let mut sum = 0;
    while let Ok(count) = file.write(&[b'x'; 4096]) {
        sum += count;
    }
    fcntl(&*file, FcntlArg::F_SETFL(flags)).unwrap();
    sum
}

#[test]
fn nothing_asked_for_is_dev_null_and_nothing_for_the_loop() {
    let (mut rig, [mut stdin, mut stdout, stderr]) = start(&Request::default());
    assert_eq!(stdin.read(&mut [0]).unwrap(), 0);
    stdout.write_all(b"x").unwrap();
    assert_eq!(stderr.metadata().unwrap().rdev(), nix::sys::stat::makedev(1, 3));
    assert_eq!(rig.idle_turns(), 0);
    rig.io.close_stdin();
    rig.io.resize(1, 1).unwrap();
    rig.io.exited();
    assert!(rig.delete().0 < Duration::from_millis(100));
}

#[test]
fn wires_and_descriptors_belong_together() {
    let client = Client::new();
    let Opened { shim, .. } =
        open(&Request { stdout: &client.path("out"), ..Request::default() }).unwrap();
    let (wires, mut fds) = shim.into_parts();
    fds.pop();
    let error = Io::adopt(&wires, fds, &Poller::new().unwrap(), TOKEN).unwrap_err();
    assert_eq!(error.to_string(), "stdio: 2 descriptors came for 3 roles");
    assert_eq!(client.open_fifos(), 0);
}
