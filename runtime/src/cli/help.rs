//! Help, made from the tables.

use std::fmt::Write;

use super::options::{Command, Item, Kind};

/// The widest left column that keeps its help on the same line.
const LEFT_MAX: usize = 30;

/// The help of the program: its commands and global options.
pub fn program(about: &str, command: &Command, verbs: &[(&str, &str)]) -> String {
    let mut text = format!("{about}\n\nUsage: {} [OPTIONS] COMMAND [ARGUMENTS]\n", command.name);
    text.push_str("\nCommands:\n");
    let rows: Vec<(String, String)> = verbs
        .iter()
        .map(|(name, about)| ((*name).to_owned(), (*about).to_owned()))
        .chain([("help [COMMAND]".to_owned(), "Print this, or the help of a command".to_owned())])
        .collect();
    push_rows(&mut text, &rows);
    push_options(&mut text, command);
    text
}

/// The help of one command of `program`.
pub fn command(program: &str, about: &str, command: &Command) -> String {
    let mut text = format!("{about}\n\nUsage: {program} {} [OPTIONS]", command.name);
    let mut rows = Vec::new();
    for item in command.operands() {
        let name = match (item.kind, item.default) {
            (Kind::Operands, _) => format!("[{}...]", item.value),
            (_, Some(_)) => format!("[{}]", item.value),
            _ => item.value.to_owned(),
        };
        text.push(' ');
        text.push_str(&name);
        rows.push((name, help(item)));
    }
    text.push('\n');
    if !rows.is_empty() {
        text.push_str("\nArguments:\n");
        push_rows(&mut text, &rows);
    }
    push_options(&mut text, command);
    text
}

fn push_options(text: &mut String, command: &Command) {
    let mut rows: Vec<(String, String)> = command
        .options()
        .filter(|item| !item.hidden)
        .map(|item| (option(item), help(item)))
        .collect();
    rows.push(("-h, --help".to_owned(), "Print help".to_owned()));
    text.push_str("\nOptions:\n");
    push_rows(text, &rows);
}

fn option(item: &Item) -> String {
    let short = item.short.map_or_else(|| "    ".to_owned(), |letter| format!("-{letter}, "));
    let space = if item.value.is_empty() { "" } else { " " };
    format!("{short}--{}{space}{}", item.long(), item.value)
}

fn help(item: &Item) -> String {
    let text = item.help.trim().trim_end_matches('.');
    match item.default {
        Some(default) if !text.contains("[default") => format!("{text} [default: {default}]"),
        _ => text.to_owned(),
    }
}

fn push_rows(text: &mut String, rows: &[(String, String)]) {
    let fitting = rows.iter().map(|(left, _)| left.len()).filter(|width| *width <= LEFT_MAX);
    let width = fitting.max().unwrap_or(0);
    for (left, right) in rows {
        let written = if left.len() > width {
            writeln!(text, "  {left}\n  {:width$}  {right}", "")
        } else {
            writeln!(text, "  {left:width$}  {right}")
        };
        // Writing to a String cannot fail.
        debug_assert!(written.is_ok());
    }
}
