//! Rewrites an argument list to one form: `--name=value` and `--flag` once each, then `--`, then
//! the positionals.
//!
//! The rules are those that managers need (`reference/cli.md` 1.0): a repeated option's last value
//! wins, one dash is as good as two before a long name, a flag takes `=true` and `=false`, and
//! options may stand behind the positionals unless these are a command with options of its own.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use clap::{Arg, ArgAction, Command};

use crate::error::{Error, Result};

/// Where options end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Positionals {
    /// At the first positional: what follows belongs to someone else.
    First,
    /// Nowhere but at `--`.
    Anywhere,
}

/// An argument list in its one form.
#[derive(Debug, Default)]
pub(super) struct Normal {
    /// `-h` or `--help` was there.
    pub help: bool,
    /// Positionals, in order.
    pub rest: Vec<OsString>,
    /// Options by their place in the table; a flag that is on has no value.
    given: Vec<(usize, Option<OsString>)>,
    /// `--name` by place in the table.
    names: Vec<String>,
}

impl Normal {
    /// The list for clap.
    pub(super) fn into_words(self) -> Vec<OsString> {
        let mut words = Vec::with_capacity(self.given.len() + 1 + self.rest.len());
        for (place, value) in self.given {
            let Some(name) = self.names.get(place) else { continue };
            let mut word = OsString::from(name);
            if let Some(value) = value {
                word.push("=");
                word.push(value);
            }
            words.push(word);
        }
        words.push(OsString::from("--"));
        words.extend(self.rest);
        words
    }

    fn set(&mut self, place: usize, option: &Arg, value: Option<OsString>) {
        if !matches!(option.get_action(), ArgAction::Append) {
            self.given.retain(|(other, _)| *other != place);
        }
        self.given.push((place, value));
    }

    fn unset(&mut self, place: usize) {
        self.given.retain(|(other, _)| *other != place);
    }
}

/// The options of a Command with their places.
struct Table<'a>(Vec<&'a Arg>);

impl<'a> Table<'a> {
    fn long(&self, name: &[u8]) -> Option<(usize, &'a Arg)> {
        let found = |arg: &&Arg| arg.get_long().is_some_and(|long| long.as_bytes() == name);
        let place = self.0.iter().position(found)?;
        Some((place, self.0[place]))
    }

    fn short(&self, letter: u8) -> Option<(usize, &'a Arg)> {
        let found = |arg: &&Arg| arg.get_short() == Some(char::from(letter));
        let place = self.0.iter().position(found)?;
        Some((place, self.0[place]))
    }
}

/// Brings `args` to their one form by the options of `command`.
pub(super) fn normalise(
    command: &Command,
    mut args: impl Iterator<Item = OsString>,
    positionals: Positionals,
) -> Result<Normal> {
    let table = Table(command.get_arguments().filter(|arg| arg.get_long().is_some()).collect());
    let names = table.0.iter().map(|arg| format!("--{}", arg.get_long().unwrap_or_default()));
    let mut normal = Normal { names: names.collect(), ..Normal::default() };
    while let Some(word) = args.next() {
        let bytes = word.as_bytes();
        if bytes == b"--" {
            normal.rest.extend(args);
            break;
        }
        if bytes.len() < 2 || bytes[0] != b'-' {
            normal.rest.push(word);
            if positionals == Positionals::First {
                normal.rest.extend(args);
                break;
            }
            continue;
        }
        option(command.get_name(), &table, &mut normal, bytes, &mut args)?;
    }
    Ok(normal)
}

/// Takes one word that starts with a dash, and the next one if it is its value.
fn option(
    verb: &str,
    table: &Table<'_>,
    normal: &mut Normal,
    word: &[u8],
    args: &mut impl Iterator<Item = OsString>,
) -> Result<()> {
    let two_dashes = word.starts_with(b"--");
    let body = if two_dashes { &word[2..] } else { &word[1..] };
    let (name, attached) = match body.iter().position(|byte| *byte == b'=') {
        Some(at) => (&body[..at], Some(&body[at + 1..])),
        None => (body, None),
    };
    if name == b"help" || (!two_dashes && name == b"h") {
        normal.help = true;
        return Ok(());
    }
    let known = match (two_dashes, name) {
        (false, [letter]) => table.short(*letter).or_else(|| table.long(name)),
        _ => table.long(name),
    };
    let Some((place, arg)) = known else {
        return if two_dashes || table.short(body[0]).is_none() {
            Err(unknown(verb, word))
        } else {
            cluster(verb, table, normal, body, args)
        };
    };
    if arg.get_action().takes_values() {
        let value = match attached {
            Some(value) => OsStr::from_bytes(value).to_owned(),
            None => args.next().ok_or_else(|| needs(verb, arg))?,
        };
        normal.set(place, arg, Some(value));
    } else {
        match attached.map_or(Some(true), boolean) {
            Some(true) => normal.set(place, arg, None),
            Some(false) => normal.unset(place),
            None => {
                let word = OsStr::from_bytes(word);
                return Err(Error::Usage(format!("{verb}: {word:?}: true or false")));
            }
        }
    }
    Ok(())
}

/// Takes several short options in one word; the last may have its value attached or behind it.
fn cluster(
    verb: &str,
    table: &Table<'_>,
    normal: &mut Normal,
    letters: &[u8],
    args: &mut impl Iterator<Item = OsString>,
) -> Result<()> {
    for (at, letter) in letters.iter().enumerate() {
        let Some((place, arg)) = table.short(*letter) else {
            return Err(unknown(verb, &[b"-", letters].concat()));
        };
        if !arg.get_action().takes_values() {
            normal.set(place, arg, None);
            continue;
        }
        let attached = &letters[at + 1..];
        let value = if attached.is_empty() {
            args.next().ok_or_else(|| needs(verb, arg))?
        } else {
            OsString::from_vec(attached.to_vec())
        };
        normal.set(place, arg, Some(value));
        break;
    }
    Ok(())
}

/// Go's words for a boolean.
fn boolean(value: &[u8]) -> Option<bool> {
    match value {
        b"1" | b"t" | b"T" | b"true" | b"TRUE" | b"True" => Some(true),
        b"0" | b"f" | b"F" | b"false" | b"FALSE" | b"False" => Some(false),
        _ => None,
    }
}

fn unknown(verb: &str, word: &[u8]) -> Error {
    let word = OsStr::from_bytes(word);
    Error::Usage(format!("{verb}: unknown option {word:?}"))
}

/// podman and cri-o match "flag needs an argument".
fn needs(verb: &str, arg: &Arg) -> Error {
    let name = arg.get_long().unwrap_or_default();
    Error::Usage(format!("{verb}: flag needs an argument: --{name}"))
}
