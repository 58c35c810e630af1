//! A person at a terminal: a client command on a pseudo terminal of our own.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};

use super::command::{Run, code, spawn, wait};
use super::{Stop, Verdict, eventually};

/// A command whose three streams are one terminal.
#[derive(Debug)]
pub struct Terminal {
    child: Child,
    keyboard: File,
    screen: Arc<Mutex<String>>,
    path: String,
    line: String,
}

impl Terminal {
    /// Starts `run` on a new terminal of that size.
    pub fn start(run: Run, rows: u16, columns: u16) -> Result<Self, Stop> {
        let line = run.line();
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pair = openpty(Some(&size), None)?;
        for end in [&pair.master, &pair.slave] {
            fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        }
        let path = nix::unistd::ttyname(&pair.slave)?.display().to_string();
        let mut command = run.into_command();
        command.env("TERM", "xterm").stdin(Stdio::from(pair.slave.try_clone()?));
        command.stdout(Stdio::from(pair.slave.try_clone()?)).stderr(Stdio::from(pair.slave));
        let child = spawn(&mut command)?;
        drop(command);
        let keyboard = File::from(pair.master);
        let screen = Arc::new(Mutex::new(String::new()));
        let (mut output, shown) = (keyboard.try_clone()?, Arc::clone(&screen));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..count]).into_owned();
                shown.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
            }
        });
        Ok(Self { child, keyboard, screen, path, line })
    }

    /// Types `text`.
    pub fn send(&mut self, text: &str) -> Verdict {
        Ok(self.keyboard.write_all(text.as_bytes())?)
    }

    /// What has been shown so far, without carriage returns.
    pub fn screen(&self) -> String {
        self.screen.lock().unwrap_or_else(PoisonError::into_inner).replace('\r', "")
    }

    /// Waits until `text` is on the screen.
    pub fn expect(&self, text: &str) -> Verdict {
        eventually(text, Duration::from_secs(30), || Ok(self.screen().contains(text)))
            .map_err(|_| Stop::Fail(format!("{}: no {text:?} on:\n{}", self.line, self.screen())))
    }

    /// Changes the size of the terminal and waits for `answer`. The client is told more than
    /// once: the first signal may come before it listens.
    pub fn resize(&self, rows: u16, columns: u16, answer: &str) -> Verdict {
        let (rows, columns) = (rows.to_string(), columns.to_string());
        Run::new("stty").args(["-F", &self.path, "rows", &rows, "cols", &columns]).ok()?;
        let told = eventually(answer, Duration::from_secs(30), || {
            kill(self.pid(), Signal::SIGWINCH)?;
            std::thread::sleep(Duration::from_millis(100));
            Ok(self.screen().contains(answer))
        });
        told.map_err(|_| Stop::Fail(format!("{}: no {answer:?} on {}", self.line, self.screen())))
    }

    /// The process of the client, for signals.
    pub fn pid(&self) -> nix::unistd::Pid {
        nix::unistd::Pid::from_raw(self.child.id().cast_signed())
    }

    /// Waits for the end of the command and answers its exit code.
    pub fn finish(mut self) -> Result<(i32, String), Stop> {
        match wait(&mut self.child, Duration::from_secs(30))? {
            Some(status) => {
                // The last output is already in the terminal's buffer.
                std::thread::sleep(Duration::from_millis(50));
                Ok((code(status), self.screen()))
            }
            None => Err(Stop::Fail(format!("{}: still running; {}", self.line, self.screen()))),
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // A test that failed half-way leaves its client behind; one that ended is reaped already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
