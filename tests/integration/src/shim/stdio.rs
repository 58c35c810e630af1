//! The daemon's ends of the FIFOs: readers that read, stop reading or leave, and a writer.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use containerd_shim_protos::api::{CreateTaskRequest, ExecProcessRequest};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc::{EAGAIN, ENXIO, O_NONBLOCK};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::task::PATIENCE;
use crate::managers::{Stop, Verdict, eventually};

#[derive(Debug, Default)]
struct Seen {
    bytes: Mutex<Vec<u8>>,
    ended: AtomicBool,
    leave: AtomicBool,
}

/// The reading end of a FIFO with a thread that reads all the time.
#[derive(Debug)]
pub struct Reader {
    seen: Arc<Seen>,
    thread: Option<JoinHandle<()>>,
    path: PathBuf,
}

impl Reader {
    /// Opens an existing FIFO without waiting for a writer and reads.
    pub fn open(path: &Path) -> Result<Self, Stop> {
        Ok(Self::of(open(path)?, path))
    }

    /// Reads what was opened before, and not read until now.
    pub fn of(file: File, path: &Path) -> Self {
        let seen = Arc::new(Seen::default());
        let shared = Arc::clone(&seen);
        let thread = Some(std::thread::spawn(move || read(file, &shared)));
        Self { seen, thread, path: path.to_owned() }
    }

    /// What was read so far.
    pub fn bytes(&self) -> Vec<u8> {
        self.seen.bytes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What was read so far, as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }

    /// Waits until this text has come.
    pub fn expect(&self, words: &str) -> Verdict {
        let came = eventually(words, PATIENCE, || Ok(self.text().contains(words)));
        came.map_err(|_| {
            Stop::Fail(format!("no {words:?} from {}: {:?}", self.path.display(), self.text()))
        })
    }

    /// Waits for the end of file; everything that came.
    pub fn end(&self) -> Result<Vec<u8>, Stop> {
        let what = format!("end of {}", self.path.display());
        eventually(&what, PATIENCE, || Ok(self.seen.ended.load(Ordering::Acquire)))?;
        Ok(self.bytes())
    }

    /// Closes the reading end.
    pub fn close(self) {
        self.stop();
    }

    /// Closes the reading end of a reader that is still asked for what it has read.
    pub fn stop(&self) {
        self.seen.leave.store(true, Ordering::Release);
        // The thread looks every 20 ms.
        eventually("the reader leaves", PATIENCE, || {
            Ok(self.thread.as_ref().is_none_or(JoinHandle::is_finished))
        })
        .ok();
    }

    fn leave(&mut self) {
        self.seen.leave.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Opens a FIFO for reading at once.
pub fn open(path: &Path) -> Result<File, Stop> {
    Ok(File::options().read(true).custom_flags(O_NONBLOCK).open(path)?)
}

fn read(mut file: File, seen: &Seen) {
    let mut buffer = vec![0; 65536];
    while !seen.leave.load(Ordering::Acquire) {
        // Without a writer yet a read would say end of file; poll does not.
        let mut set = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
        if poll(&mut set, PollTimeout::from(20_u8)).unwrap_or(0) == 0 {
            continue;
        }
        match file.read(&mut buffer) {
            Ok(0) => {
                seen.ended.store(true, Ordering::Release);
                return;
            }
            Ok(count) => {
                let mut bytes = seen.bytes.lock().unwrap_or_else(PoisonError::into_inner);
                bytes.extend_from_slice(&buffer[..count]);
            }
            Err(error) if error.raw_os_error() == Some(EAGAIN) => {}
            Err(_) => return,
        }
    }
}

/// The FIFOs of one process.
#[derive(Debug)]
pub struct Fifos {
    /// Their directory.
    pub dir: PathBuf,
    /// The container's standard output.
    pub out: Option<Reader>,
    /// The container's standard error; none with a terminal.
    pub err: Option<Reader>,
    terminal: bool,
}

impl Fifos {
    /// Makes the FIFOs in a new directory and opens the readers, as containerd's client does.
    pub fn new(dir: &Path, terminal: bool) -> Result<Self, Stop> {
        let mut fifos = Self::unread(dir, terminal)?;
        fifos.out = Some(Reader::open(&dir.join("out"))?);
        fifos.err = if terminal { None } else { Some(Reader::open(&dir.join("err"))?) };
        Ok(fifos)
    }

    /// Makes the FIFOs; nobody reads.
    pub fn unread(dir: &Path, terminal: bool) -> Result<Self, Stop> {
        fs::create_dir_all(dir)?;
        let names: &[&str] = if terminal { &["in", "out"] } else { &["in", "out", "err"] };
        for name in names {
            mkfifo(&dir.join(name), Mode::from_bits_truncate(0o700))?;
        }
        Ok(Self { dir: dir.to_owned(), out: None, err: None, terminal })
    }

    /// The path of `in`, `out` or `err`.
    pub fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    /// Puts the paths into a Create request.
    pub fn create(&self, query: &mut CreateTaskRequest) {
        query.terminal = self.terminal;
        query.stdin = self.path("in");
        query.stdout = self.path("out");
        query.stderr = if self.terminal { String::new() } else { self.path("err") };
    }

    /// Puts the paths into an Exec request.
    pub fn exec(&self, query: &mut ExecProcessRequest) {
        query.terminal = self.terminal;
        query.stdin = self.path("in");
        query.stdout = self.path("out");
        query.stderr = if self.terminal { String::new() } else { self.path("err") };
    }

    /// Opens the writing end of standard input; the shim must have opened the other.
    pub fn stdin(&self) -> Result<File, Stop> {
        let path = self.dir.join("in");
        let mut open = None;
        eventually("the shim opens standard input", PATIENCE, || {
            match File::options().write(true).custom_flags(O_NONBLOCK).open(&path) {
                Ok(file) => open = Some(file),
                Err(error) if error.raw_os_error() == Some(ENXIO) => {}
                Err(error) => return Err(error.into()),
            }
            Ok(open.is_some())
        })?;
        let file = open.ok_or("no file")?;
        fcntl(&file, FcntlArg::F_SETFL(OFlag::empty()))?;
        Ok(file)
    }

    /// Writes to standard input and keeps it open for as long as the result lives.
    pub fn write(&self, bytes: &[u8]) -> Result<File, Stop> {
        let mut stdin = self.stdin()?;
        stdin.write_all(bytes)?;
        Ok(stdin)
    }

    /// The reader of standard output.
    pub fn out(&self) -> &Reader {
        self.out.as_ref().expect("standard output is read")
    }

    /// The reader of standard error.
    pub fn err(&self) -> &Reader {
        self.err.as_ref().expect("standard error is read")
    }
}

/// A pause in which something must not happen.
pub fn moment() {
    std::thread::sleep(Duration::from_millis(150));
}
