//! `run` and `exec` in the foreground: signals in, bytes both ways, the exit code out.
//!
//! Promise: what the caller does to the runtime happens to the container's process: every signal is
//! passed on but SIGCHLD and SIGURG (and those that a fault of our own raises); the window size
//! follows; the exit code is the process's, or 128 + signal. With a terminal the caller's own is raw
//! meanwhile, and restored whatever happens. What the process wrote before it ended is delivered.
//!
//! Order: [`Foreground::begin`] before the process starts, so that no signal is lost in between;
//! [`Foreground::finish`] after it did, with no other copy of the slave open in this process.
//!
//! One poll(2) loop, no threads; nothing blocks but poll, and a caller that does not read its
//! output only stops that output.

use std::io::{IsTerminal, stderr, stdin, stdout};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::{read, write};

use crate::error::{Doing, Error, Result};
use crate::sys;
use crate::sys::wait::{Exit, exit_of};

/// Not passed on: the runtime's own business, or a fault of its own.
const OURS: [Signal; 8] = [
    Signal::SIGCHLD,
    Signal::SIGURG,
    Signal::SIGPIPE,
    Signal::SIGSEGV,
    Signal::SIGBUS,
    Signal::SIGFPE,
    Signal::SIGILL,
    Signal::SIGTRAP,
];
/// How long the terminal may stay silent after the process ended, in ms, if somebody else still
/// holds it open.
const LINGER: u16 = 100;
/// Bytes in flight each way. At most PIPE_BUF, so that a write after POLLOUT does not block.
const CHUNK: usize = 4096;

/// The caller's side of a process in the foreground.
#[derive(Debug)]
pub struct Foreground {
    signals: SignalFd,
}

impl Foreground {
    /// Blocks the signals that will be passed on; they queue until [`Foreground::finish`].
    ///
    /// # Errors
    /// The errno of signalfd(2).
    pub fn begin() -> Result<Self> {
        let mut mask = SigSet::all();
        for signal in OURS {
            mask.remove(signal);
        }
        mask.thread_block().doing(|| "block signals".to_owned())?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let signals = SignalFd::with_flags(&mask, flags).doing(|| "signalfd".to_owned())?;
        Ok(Self { signals })
    }

    /// Serves the process until it ends, and reaps it: it must be our child.
    ///
    /// # Errors
    /// `ECHILD`, or a failure of poll(2).
    pub fn finish(self, pidfd: BorrowedFd<'_>, master: Option<OwnedFd>) -> Result<Exit> {
        let mut proxy = master.map(Proxy::new).transpose()?;
        while !self.turn(pidfd, proxy.as_mut())? {}
        if let Some(proxy) = &mut proxy {
            proxy.drain()?;
        }
        exit_of(pidfd).doing(|| "wait for the container's process".to_owned())
    }

    /// Waits for something to happen and deals with it; true when the process has ended.
    fn turn(&self, pidfd: BorrowedFd<'_>, proxy: Option<&mut Proxy>) -> Result<bool> {
        let (ended, signalled) = {
            let mut fds = vec![
                PollFd::new(pidfd, PollFlags::POLLIN),
                PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            ];
            let streams = (stdin(), stdout());
            if let Some(proxy) = &proxy {
                proxy.interest(streams.0.as_fd(), streams.1.as_fd(), &mut fds);
            }
            wait(&mut fds, PollTimeout::NONE)?;
            (is_ready(&fds[0]), is_ready(&fds[1]))
        };
        if let Some(proxy) = proxy {
            if signalled {
                self.pass_on(pidfd, Some(proxy))?;
            }
            proxy.copy()?;
        } else if signalled {
            self.pass_on(pidfd, None)?;
        }
        Ok(ended)
    }

    fn pass_on(&self, pidfd: BorrowedFd<'_>, proxy: Option<&Proxy>) -> Result<()> {
        while let Some(info) = self.signals.read_signal().doing(|| "read a signal".to_owned())? {
            let signal = info.ssi_signo as i32;
            if signal == libc::SIGWINCH {
                if let Some(proxy) = proxy {
                    proxy.resize();
                }
                continue;
            }
            match sys::process::pidfd_send_signal(pidfd, signal) {
                // It ended meanwhile: the next turn sees that.
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(errno) => return Err(Error::sys(format!("pass on signal {signal}"), errno)),
            }
        }
        Ok(())
    }
}

fn wait(fds: &mut [PollFd<'_>], timeout: PollTimeout) -> Result<bool> {
    match poll(fds, timeout) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::EINTR) => Ok(true),
        Err(errno) => Err(Error::sys("poll", errno)),
    }
}

fn is_ready(fd: &PollFd<'_>) -> bool {
    fd.any().unwrap_or(false)
}

/// Copies between the caller's standard streams and the master of the container's terminal.
#[derive(Debug)]
struct Proxy {
    master: OwnedFd,
    /// Whichever of our standard streams is a terminal, with its settings from before.
    terminal: Option<(OwnedFd, Termios)>,
    input: Pipe,
    output: Pipe,
}

/// One direction.
#[derive(Debug, Default)]
struct Pipe {
    pending: Vec<u8>,
    closed: bool,
}

impl Proxy {
    fn new(master: OwnedFd) -> Result<Self> {
        let doing = || "set up the terminal".to_owned();
        // Nobody shares this description but the container's process, which has closed its copy.
        fcntl(&master, FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK)).doing(doing)?;
        let ours = if stdin().is_terminal() {
            Some(stdin().as_fd().try_clone_to_owned())
        } else if stdout().is_terminal() {
            Some(stdout().as_fd().try_clone_to_owned())
        } else if stderr().is_terminal() {
            Some(stderr().as_fd().try_clone_to_owned())
        } else {
            None
        };
        let mut proxy =
            Self { master, terminal: None, input: Pipe::default(), output: Pipe::default() };
        if let Some(terminal) = ours {
            let terminal = terminal.doing(doing)?;
            let before = tcgetattr(&terminal).doing(doing)?;
            let mut raw = before.clone();
            cfmakeraw(&mut raw);
            tcsetattr(&terminal, SetArg::TCSANOW, &raw).doing(doing)?;
            proxy.terminal = Some((terminal, before));
            proxy.resize();
        }
        Ok(proxy)
    }

    /// Gives the container's terminal the size of ours. A terminal without a size has none to give.
    fn resize(&self) {
        if let Some((terminal, _)) = &self.terminal
            && let Ok(size) = sys::tty::size(terminal)
            && size != sys::tty::Size::default()
            && let Err(errno) = sys::tty::set_size(&self.master, size)
        {
            tracing::debug!("resize the container's terminal: {errno}");
        }
    }

    /// What poll is to wait for: each direction either for bytes or for room.
    fn interest<'fd>(
        &'fd self,
        stdin: BorrowedFd<'fd>,
        stdout: BorrowedFd<'fd>,
        fds: &mut Vec<PollFd<'fd>>,
    ) {
        let mut master = PollFlags::empty();
        if !self.input.pending.is_empty() {
            master |= PollFlags::POLLOUT;
        } else if !self.input.closed {
            fds.push(PollFd::new(stdin, PollFlags::POLLIN));
        }
        if !self.output.pending.is_empty() {
            fds.push(PollFd::new(stdout, PollFlags::POLLOUT));
        } else if !self.output.closed {
            master |= PollFlags::POLLIN;
        }
        // A hung-up master would be ready for ever.
        if !master.is_empty() && !self.output.closed {
            fds.push(PollFd::new(self.master.as_fd(), master));
        }
    }

    /// Moves what can be moved now.
    fn copy(&mut self) -> Result<()> {
        let (stdin, stdout) = (stdin(), stdout());
        if self.input.pending.is_empty() && !self.input.closed && ready(&stdin, PollFlags::POLLIN)?
        {
            self.input.fill(stdin.as_fd());
        }
        if !self.input.pending.is_empty() {
            self.input.empty(self.master.as_fd());
        }
        if self.output.pending.is_empty() && !self.output.closed {
            self.output.fill(self.master.as_fd());
        }
        if !self.output.pending.is_empty() && ready(&stdout, PollFlags::POLLOUT)? {
            self.output.empty(stdout.as_fd());
        }
        Ok(())
    }

    /// The rest of the output, after the process ended.
    fn drain(&mut self) -> Result<()> {
        let stdout = stdout();
        loop {
            if self.output.pending.is_empty() {
                if self.output.closed {
                    return Ok(());
                }
                let mut fds = [PollFd::new(self.master.as_fd(), PollFlags::POLLIN)];
                if !wait(&mut fds, LINGER.into())? {
                    return Ok(());
                }
                self.output.fill(self.master.as_fd());
            } else {
                wait(&mut [PollFd::new(stdout.as_fd(), PollFlags::POLLOUT)], PollTimeout::NONE)?;
                self.output.empty(stdout.as_fd());
            }
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some((terminal, before)) = &self.terminal
            && let Err(errno) = tcsetattr(terminal, SetArg::TCSANOW, before)
        {
            tracing::debug!("restore the terminal: {errno}");
        }
    }
}

impl Pipe {
    /// Reads once. End of file and failure (EIO: no slave is open any more) both end the direction.
    fn fill(&mut self, from: BorrowedFd<'_>) {
        let mut chunk = [0; CHUNK];
        match read(from, &mut chunk) {
            Ok(0) => self.closed = true,
            Ok(count) => self.pending.extend_from_slice(&chunk[..count]),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(_) => self.closed = true,
        }
    }

    /// Writes once. If the other side is gone the bytes are dropped, so that the writer goes on.
    fn empty(&mut self, to: BorrowedFd<'_>) {
        match write(to, &self.pending) {
            Ok(count) => drop(self.pending.drain(..count)),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(_) => self.pending.clear(),
        }
    }
}

fn ready(fd: impl AsFd, events: PollFlags) -> Result<bool> {
    wait(&mut [PollFd::new(fd.as_fd(), events)], PollTimeout::ZERO)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};
    use std::os::fd::AsRawFd;
    use std::time::Instant;

    use nix::pty::{Winsize, openpty};
    use nix::sys::signal::{kill, raise};
    use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout, getpid, pipe, setsid};

    use super::*;
    use crate::process::signals;
    use crate::sys::process::{CloneArgs, Cloned, clone, exit_now};
    use crate::sys::testing::in_child;

    /// A child that runs `program`, with the foreground begun before.
    fn child(program: impl FnOnce() -> i32) -> (Foreground, OwnedFd) {
        let foreground = Foreground::begin().unwrap();
        match clone(&CloneArgs::default()).unwrap() {
            Cloned::Child => exit_now(program()),
            Cloned::Parent(_, pidfd) => (foreground, pidfd),
        }
    }

    #[test]
    fn the_exit_code_is_the_processes() {
        in_child(|| {
            let (foreground, pidfd) = child(|| 42);
            assert_eq!(foreground.finish(pidfd.as_fd(), None).unwrap(), Exit::Code(42));
            // A real-time signal, whose number nix does not know.
            let (foreground, pidfd) = child(|| {
                signals::reset().unwrap();
                let me = sys::process::pidfd_open(getpid()).unwrap();
                sys::process::pidfd_send_signal(&me, 35).unwrap();
                0
            });
            let exit = foreground.finish(pidfd.as_fd(), None).unwrap();
            assert_eq!((exit, exit.status()), (Exit::Signal(35), 163));
        });
    }

    #[test]
    fn a_signal_from_before_is_passed_on() {
        in_child(|| {
            let (foreground, pidfd) = child(|| {
                signals::reset().unwrap();
                std::thread::sleep(std::time::Duration::from_secs(20));
                0
            });
            raise(Signal::SIGCHLD).unwrap();
            kill(getpid(), Signal::SIGHUP).unwrap();
            let exit = foreground.finish(pidfd.as_fd(), None).unwrap();
            assert_eq!(exit, Exit::Signal(libc::SIGHUP));
        });
    }

    /// Runs the proxy between a terminal of the "caller" and one of the "container".
    fn proxied(program: impl FnOnce(File) -> i32, user: impl FnOnce(File)) -> Exit {
        let size = Winsize { ws_row: 12, ws_col: 34, ws_xpixel: 0, ws_ypixel: 0 };
        let caller = openpty(&size, None).unwrap();
        let container = openpty(None, None).unwrap();
        dup2_stdin(&caller.slave).unwrap();
        dup2_stdout(&caller.slave).unwrap();
        dup2_stderr(&caller.slave).unwrap();
        let before = tcgetattr(&caller.slave).unwrap();
        let callers = [0, 1, 2, caller.slave.as_raw_fd()];
        let close_all = |fds: &[i32]| {
            for fd in fds {
                nix::unistd::close(*fd).unwrap();
            }
        };
        let (foreground, pidfd) = child(|| {
            close_all(&callers);
            close_all(&[caller.master.as_raw_fd(), container.master.as_raw_fd()]);
            program(File::from(container.slave.try_clone().unwrap()))
        });
        let typist = match clone(&CloneArgs::default()).unwrap() {
            Cloned::Child => {
                close_all(&callers);
                close_all(&[container.master.as_raw_fd(), container.slave.as_raw_fd()]);
                user(File::from(caller.master));
                exit_now(0)
            }
            Cloned::Parent(_, pidfd) => pidfd,
        };
        drop(container.slave);
        let exit = foreground.finish(pidfd.as_fd(), Some(container.master)).unwrap();
        assert_eq!(tcgetattr(&caller.slave).unwrap(), before, "restored");
        // Or the typist would read for ever.
        drop((caller.slave, caller.master));
        close_all(&[0, 1, 2]);
        assert_eq!(exit_of(typist).unwrap(), Exit::Code(0));
        exit
    }

    #[test]
    fn bytes_and_size_go_through() {
        in_child(|| {
            let exit = proxied(
                |mut tty| {
                    let mut line = [0; 3];
                    tty.read_exact(&mut line).unwrap();
                    let size = sys::tty::size(&tty).unwrap();
                    writeln!(tty, "got {line:?} on {} by {}", size.rows, size.columns).unwrap();
                    7
                },
                |mut terminal| {
                    // Typed after the proxy made the terminal raw, or it would be echoed twice.
                    std::thread::sleep(std::time::Duration::from_millis(100));
                    terminal.write_all(b"hi\r").unwrap();
                    let mut text = String::new();
                    let want = "got [104, 105, 10] on 12 by 34\r\n";
                    while !text.ends_with(want) {
                        let mut chunk = [0; 64];
                        let count = terminal.read(&mut chunk).unwrap();
                        text.push_str(std::str::from_utf8(&chunk[..count]).unwrap());
                    }
                },
            );
            assert_eq!(exit, Exit::Code(7));
        });
    }

    #[test]
    fn what_was_written_last_arrives() {
        in_child(|| {
            let exit = proxied(
                |mut tty| {
                    tty.write_all(&[b'x'; 20_000]).unwrap();
                    0
                },
                |mut terminal| {
                    let mut count = 0;
                    let mut chunk = [0; 4096];
                    // EIO once the last slave is closed.
                    while let Ok(read @ 1..) = terminal.read(&mut chunk) {
                        count += chunk[..read].iter().filter(|byte| **byte == b'x').count();
                    }
                    assert_eq!(count, 20_000);
                },
            );
            assert_eq!(exit, Exit::Code(0));
        });
    }

    #[test]
    fn a_daemon_that_keeps_the_terminal_does_not_keep_us() {
        in_child(|| {
            let (hold, held) = pipe().unwrap();
            let started = Instant::now();
            let exit = proxied(
                |tty| match clone(&CloneArgs::default()).unwrap() {
                    Cloned::Child => {
                        drop(held);
                        setsid().unwrap();
                        let _until_the_test_ends = nix::unistd::read(&hold, &mut [0]);
                        drop(tty);
                        0
                    }
                    Cloned::Parent(..) => 5,
                },
                |mut terminal| {
                    let mut chunk = [0; 64];
                    while let Ok(1..) = terminal.read(&mut chunk) {}
                },
            );
            assert_eq!(exit, Exit::Code(5));
            assert!(started.elapsed().as_secs() < 5);
        });
    }
}
