//! Words of a command line.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use crate::cli::{self, units};
use crate::process::sched::numbers;
use crate::process::user::parse_exec_user;

/// An id is a file name that needs no quotes anywhere.
pub fn ids(data: &[u8]) {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_+.-".contains(byte);
    let good =
        (1..=255).contains(&data.len()) && data.iter().all(plain) && data != b"." && data != b"..";
    match cli::container_id(OsStr::from_bytes(data)) {
        Ok(id) => assert!(good && id.as_bytes() == data, "{id:?}"),
        Err(why) => assert!(!good && !why.contains('\n'), "{why}"),
    }
}

/// `--user` takes decimal digits and nothing else, and lists of numbers hold what they say.
pub fn users(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let id = |text: &str| {
        let value = text.bytes().try_fold(0_u64, |value, byte| {
            let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
            Some((value * 10 + digit).min(1 << 40))
        })?;
        u32::try_from(value).ok().filter(|id| !text.is_empty() && *id != u32::MAX)
    };
    let expected = match text.split_once(':') {
        None => id(text).map(|uid| (uid, None)),
        Some((uid, gid)) => id(uid).and_then(|uid| Some((uid, Some(id(gid)?)))),
    };
    assert_eq!(parse_exec_user(text).ok(), expected);
    if let Ok(list) = numbers(text, 1024) {
        assert!(list.len() <= 1024 && list.iter().all(|number| *number < 1024));
        assert!(list.is_sorted_by(|one, other| one < other), "{list:?}");
        let again: Vec<String> = list.iter().map(ToString::to_string).collect();
        assert_eq!(numbers(&again.join(","), 1024), Ok(list));
    }
}

/// A size is what a calculation without rounding says, to a byte in 2^50.
pub fn units(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let size = units::bytes(OsStr::from_bytes(data));
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|letter: char| !letter.is_ascii_digit());
    let Ok(size) = size else {
        // What is only digits and fits is taken.
        assert!(
            text.is_empty()
                || text.parse::<u64>().is_err()
                || text.starts_with('+')
                || text.parse::<i64>().is_err(),
            "{text}"
        );
        return;
    };
    if text == "-1" {
        return assert_eq!(size, -1);
    }
    assert!(size >= 0);
    let unit = lower[digits.len()..].trim_start();
    let shift = "bkmgtp".find(unit.get(..1).unwrap_or("b")).unwrap() * 10;
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let whole =
        whole.bytes().fold(0_u128, |all, digit| (all * 10 + u128::from(digit - b'0')).min(1 << 70));
    // Eighteen digits of the fraction are more than the largest unit can tell.
    let (mut fraction, mut scale) = (0_u128, 1_u128);
    for digit in part.bytes().take(18) {
        fraction = fraction * 10 + u128::from(digit - b'0');
        scale *= 10;
    }
    let exact = (whole << shift) + ((fraction << shift) / scale);
    let near = 1 + (exact >> 50);
    assert!(exact.abs_diff(size.try_into().unwrap()) <= near, "{text}: {size}, not {exact}");
}

/// Any command line is understood or refused in one line, the same each time.
pub fn options(data: &[u8]) {
    let words = || data.split(|byte| *byte == 0).map(|word| OsString::from_vec(word.to_vec()));
    let understood = || match cli::split(words()) {
        Ok((_, cli::Request::Verb(name, words))) => match name.as_str() {
            "create" => verb::<crate::cmd::create::Args>("create", words),
            "exec" => verb::<crate::cmd::exec::Args>("exec", words),
            "update" => verb::<crate::cmd::update::Args>("update", words),
            "kill" => verb::<crate::cmd::kill::Args>("kill", words),
            "ps" => verb::<crate::cmd::ps::Args>("ps", words),
            _ => name,
        },
        Ok((globals, _)) => format!("{globals:?}"),
        Err(error) => in_one_line(&error),
    };
    assert_eq!(understood(), understood());
}

fn verb<A: cli::options::Arguments + std::fmt::Debug>(
    name: &'static str,
    words: Vec<OsString>,
) -> String {
    cli::verb::<A>(name, words).map_or_else(|error| in_one_line(&error), |args| format!("{args:?}"))
}

fn in_one_line(error: &crate::Error) -> String {
    let words = error.to_string();
    assert!(!words.contains('\n'), "{words}");
    words
}
