//! Writes man pages and shell completions: `cargo run --example manual -- DIRECTORY`.
//!
//! clap describes the command line here, from the runtime's own tables, for clap_mangen and
//! clap_complete; the runtime itself does without it (docs/adr/0005).

use std::error::Error;
use std::fs::{self, File};
use std::path::Path;

use clap::{Arg, ArgAction, Command};
use clap_complete::Shell;
use corten::cli::PROGRAM;
use corten::cli::options::{self, Item, Kind};
use corten::cmd::{ABOUT, VERBS, command};

fn main() -> Result<(), Box<dyn Error>> {
    let directory = std::env::args_os().nth(1).ok_or("usage: manual DIRECTORY")?;
    let directory = Path::new(&directory);
    fs::create_dir_all(directory)?;
    let mut program = tree();
    program.build();
    clap_mangen::generate_to(program.clone(), directory)?;
    for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
        let mut file = File::create(directory.join(format!("corten.{shell}")))?;
        clap_complete::generate(shell, &mut program.clone(), PROGRAM.name, &mut file);
    }
    Ok(())
}

fn tree() -> Command {
    let verbs = VERBS.iter().filter_map(|(name, about)| {
        let table = command(name)?;
        Some(with_items(Command::new(*name).about(*about), &table))
    });
    let program = Command::new(PROGRAM.name)
        .about(ABOUT)
        .subcommand_value_name("COMMAND")
        .disable_help_subcommand(true);
    with_items(program.disable_version_flag(true), &PROGRAM).subcommands(verbs)
}

fn with_items(clap: Command, table: &options::Command) -> Command {
    clap.args(table.items().map(arg))
}

fn arg(item: &'static Item) -> Arg {
    let arg = Arg::new(item.name).help(item.help.trim()).hide(item.hidden);
    let arg = match item.default {
        Some(default) => arg.default_value(default),
        None => arg,
    };
    let arg = if item.is_operand() { arg } else { arg.long(item.long()).short(item.short) };
    match item.kind {
        Kind::Flag => arg.action(ArgAction::SetTrue),
        Kind::Value => arg.value_name(item.value),
        Kind::Values => arg.value_name(item.value).action(ArgAction::Append),
        Kind::Operand => arg.value_name(item.value).required(item.default.is_none()),
        Kind::Operands => arg.value_name(item.value).num_args(0..).trailing_var_arg(true),
    }
}
