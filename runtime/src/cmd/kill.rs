//! `corten kill`: sends a signal to a container.

use std::ffi::OsStr;

use crate::cli::options::{self, arguments};
use crate::cli::{Globals, container_id};
use crate::error::Result;
use crate::kill;

arguments! {
    /// The arguments of `corten kill`.
    pub struct Args {
        /// Signal every process of the container; a stopped container is no error.
        all: bool = flag, short 'a';
        /// The container's id.
        id: String = operand("ID", container_id);
        /// Name, with or without SIG, in any case, or number.
        signal: i32 = operand("SIGNAL", signal), default "SIGTERM";
    }
}

/// A signal's number from its number or name: `9`, `KILL`, `sigkill`, `RTMIN+3`, `SIGRTMAX`.
fn signal(value: &OsStr) -> Result<i32, String> {
    let text = options::utf8(value)?;
    let bad = || format!("unknown signal {text:?}");
    if let Ok(number) = text.parse::<i32>() {
        return if (0..=libc::SIGRTMAX()).contains(&number) { Ok(number) } else { Err(bad()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(rest) = name.strip_prefix("RTMIN") {
        return real_time(libc::SIGRTMIN(), rest).ok_or_else(bad);
    }
    if let Some(rest) = name.strip_prefix("RTMAX") {
        return real_time(libc::SIGRTMAX(), rest).ok_or_else(bad);
    }
    let full = match name {
        "IOT" => "SIGABRT".to_owned(),
        "CLD" => "SIGCHLD".to_owned(),
        "POLL" => "SIGIO".to_owned(),
        other => format!("SIG{other}"),
    };
    full.parse::<nix::sys::signal::Signal>().map(|signal| signal as i32).map_err(|_| bad())
}

fn real_time(base: i32, offset: &str) -> Option<i32> {
    let offset = if offset.is_empty() { 0 } else { offset.parse::<i32>().ok()? };
    let number = base.checked_add(offset)?;
    (libc::SIGRTMIN()..=libc::SIGRTMAX()).contains(&number).then_some(number)
}

/// Carries out `corten kill`; the answer is the process's exit code.
///
/// Takes no lock: a kill must work while a create or an exec hangs.
pub fn run(globals: &Globals, args: &Args) -> Result<u8> {
    let state = globals.store().open(&args.id)?.read_state()?;
    kill::kill(&state, args.signal, args.all)?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::signal;

    #[test]
    fn a_signal_is_a_number_or_a_name_in_any_case() {
        for (text, number) in [
            ("9", 9),
            ("KILL", 9),
            ("SIGKILL", 9),
            ("sigkill", 9),
            ("Kill", 9),
            ("TERM", 15),
            ("IOT", 6),
            ("POLL", 29),
            ("0", 0),
            ("64", 64),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMAX", 64),
            ("SIGRTMAX-1", 63),
            ("WINCH", 28),
        ] {
            assert_eq!(signal(text.as_ref()), Ok(number), "{text}");
        }
    }

    #[test]
    fn what_is_no_signal_is_refused() {
        for text in
            ["", "SIG", "65", "-1", "FOO", "RTMIN+31", "RTMIN-1", "RTMAX+1", "RTMIN+x", "9 "]
        {
            assert!(signal(text.as_ref()).is_err(), "{text}");
        }
    }
}
