//! From words to options and operands.
//!
//! The rules are those that managers need (`reference/cli.md` 1.0): a repeated option's last value
//! wins, one dash is as good as two before a long name, a flag takes `=true` and `=false`, and
//! options may stand behind the operands unless these are a command with options of its own.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::options::{Command, Given, Item, Kind};
use crate::error::{Error, Result};

/// Where options end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Options {
    /// At the first operand: what follows belongs to someone else.
    First,
    /// Nowhere but at `--`.
    Anywhere,
}

/// What the words say.
#[derive(Debug)]
pub(super) struct Parsed {
    /// `-h` or `--help` was there.
    pub help: bool,
    /// All else.
    pub given: Given,
}

/// Reads the words of a command.
///
/// # Errors
/// [`Error::Usage`] for an option that the command does not have, or one without its value.
pub(super) fn parse(
    command: &Command,
    mut words: impl Iterator<Item = OsString>,
    options: Options,
) -> Result<Parsed> {
    let mut reader = Reader { command, help: false, options: Vec::new() };
    let mut operands = Vec::new();
    while let Some(word) = words.next() {
        let bytes = word.as_bytes();
        if bytes == b"--" {
            operands.extend(words);
            break;
        }
        if bytes.len() > 1 && bytes[0] == b'-' {
            reader.option(bytes, &mut words)?;
            continue;
        }
        operands.push(word);
        if options == Options::First {
            operands.extend(words);
            break;
        }
    }
    let (help, options) = (reader.help, reader.options);
    let given = Given { command: command.name, options, operands: operands.into_iter() };
    Ok(Parsed { help, given })
}

struct Reader<'a> {
    command: &'a Command,
    help: bool,
    options: Vec<(&'static Item, Option<OsString>)>,
}

impl Reader<'_> {
    fn long(&self, name: &[u8]) -> Option<&'static Item> {
        self.command.options().find(|item| item.is_long(name))
    }

    fn short(&self, letter: u8) -> Option<&'static Item> {
        self.command.options().find(|item| item.short == Some(char::from(letter)))
    }

    fn set(&mut self, item: &'static Item, value: Option<OsString>) {
        if item.kind != Kind::Values {
            self.unset(item);
        }
        self.options.push((item, value));
    }

    fn unset(&mut self, item: &Item) {
        self.options.retain(|(other, _)| other.name != item.name);
    }

    /// Takes one word that starts with a dash, and the next one if it is its value.
    fn option(&mut self, word: &[u8], words: &mut impl Iterator<Item = OsString>) -> Result<()> {
        let two_dashes = word.starts_with(b"--");
        let body = if two_dashes { &word[2..] } else { &word[1..] };
        let (name, attached) = match body.iter().position(|byte| *byte == b'=') {
            Some(at) => (&body[..at], Some(&body[at + 1..])),
            None => (body, None),
        };
        if name == b"help" || (!two_dashes && name == b"h") {
            self.help = true;
            return Ok(());
        }
        let known = match (two_dashes, name) {
            (false, [letter]) => self.short(*letter),
            _ => self.long(name),
        };
        match known {
            Some(item) => self.known(item, word, attached, words),
            None if two_dashes => Err(self.unknown(word)),
            None => self.cluster(word, words),
        }
    }

    fn known(
        &mut self,
        item: &'static Item,
        word: &[u8],
        attached: Option<&[u8]>,
        words: &mut impl Iterator<Item = OsString>,
    ) -> Result<()> {
        if item.kind != Kind::Flag {
            let value = match attached {
                Some(value) => OsStr::from_bytes(value).to_owned(),
                None => words.next().ok_or_else(|| self.needs(item))?,
            };
            self.set(item, Some(value));
            return Ok(());
        }
        match attached.map_or(Some(true), boolean) {
            Some(true) => self.set(item, None),
            Some(false) => self.unset(item),
            None => {
                let word = OsStr::from_bytes(word);
                let command = self.command.name;
                return Err(Error::Usage(format!("{command}: {word:?}: neither true nor false")));
            }
        }
        Ok(())
    }

    /// Takes several one-letter options in one word; the last may have its value attached to it or
    /// behind it.
    fn cluster(&mut self, word: &[u8], words: &mut impl Iterator<Item = OsString>) -> Result<()> {
        let letters = &word[1..];
        for (at, letter) in letters.iter().enumerate() {
            let Some(item) = self.short(*letter) else { return Err(self.unknown(word)) };
            if item.kind == Kind::Flag {
                self.set(item, None);
                continue;
            }
            let attached = &letters[at + 1..];
            let value = if attached.is_empty() {
                words.next().ok_or_else(|| self.needs(item))?
            } else {
                OsString::from_vec(attached.to_vec())
            };
            self.set(item, Some(value));
            break;
        }
        Ok(())
    }

    fn unknown(&self, word: &[u8]) -> Error {
        let word = OsStr::from_bytes(word);
        Error::Usage(format!("{}: unknown option {word:?}", self.command.name))
    }

    /// podman and cri-o match "flag needs an argument".
    fn needs(&self, item: &Item) -> Error {
        Error::Usage(format!("{}: flag needs an argument: --{}", self.command.name, item.long()))
    }
}

/// Go's words for a boolean.
pub(super) fn boolean(value: &[u8]) -> Option<bool> {
    match value {
        b"1" | b"t" | b"T" | b"true" | b"TRUE" | b"True" => Some(true),
        b"0" | b"f" | b"F" | b"false" | b"FALSE" | b"False" => Some(false),
        _ => None,
    }
}
