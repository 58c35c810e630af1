//! What a command takes: one table per command, and the struct that its values end up in.
//!
//! [`arguments!`](crate::cli::arguments) makes both from one list, whose doc comments are the help.
//! A table is a constant, so a start pays for none of it; the whole of clap cost 50 µs of each
//! command and a sixth of the binary that `create` copies (docs/adr/0005). Completions and man
//! pages are made from the same tables by `examples/manual.rs`.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::str::FromStr;

use crate::error::{Error, Result};

/// A command, or the program itself with its global options.
#[derive(Debug, Clone, Copy)]
pub struct Command {
    /// What it is called by.
    pub name: &'static str,
    /// Its options and operands, in one list after the other.
    pub tables: &'static [&'static [Item]],
}

/// An option or an operand of a command.
#[derive(Debug, Clone, Copy)]
pub struct Item {
    /// The long name, with `_` for `-`; an operand's is not shown.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// What help calls the value; empty for a flag.
    pub value: &'static str,
    /// The one-letter name.
    pub short: Option<char>,
    /// The value when absent.
    pub default: Option<&'static str>,
    /// Not in the help: accepted for others' sake.
    pub hidden: bool,
    /// What it does.
    pub help: &'static str,
}

/// What an item is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// There or not; `=true` and `=false` are understood.
    Flag,
    /// Has a value; of several the last counts.
    Value,
    /// Has a value, and may be repeated.
    Values,
    /// Stands without a name.
    Operand,
    /// All operands from here on.
    Operands,
}

impl Command {
    /// All items.
    pub fn items(&self) -> impl Iterator<Item = &'static Item> + use<> {
        self.tables.iter().copied().flatten()
    }

    /// The options only.
    pub fn options(&self) -> impl Iterator<Item = &'static Item> + use<> {
        self.items().filter(|item| !item.is_operand())
    }

    /// The operands only.
    pub fn operands(&self) -> impl Iterator<Item = &'static Item> + use<> {
        self.items().filter(|item| item.is_operand())
    }
}

impl Item {
    /// Whether it stands without a name.
    pub fn is_operand(&self) -> bool {
        matches!(self.kind, Kind::Operand | Kind::Operands)
    }

    /// The long name as it is written on the command line.
    pub fn long(&self) -> String {
        self.name.replace('_', "-")
    }

    /// Whether `name`, as written, is this option's long name.
    pub(super) fn is_long(&self, name: &[u8]) -> bool {
        let same = |(ours, theirs): (u8, &u8)| match ours {
            b'_' => *theirs == b'-',
            ours => ours == *theirs,
        };
        self.name.len() == name.len() && self.name.bytes().zip(name).all(same)
    }
}

/// The struct with a command's values.
pub trait Arguments: Sized {
    /// The tables of the command.
    const TABLES: &'static [&'static [Item]];

    /// Takes the values out of what was given.
    ///
    /// # Errors
    /// [`Error::Usage`] for a value that cannot be, or one that is missing.
    fn take(given: &mut Given) -> Result<Self>;
}

/// What stood on a command line, before values have types.
#[derive(Debug)]
pub struct Given {
    pub(super) command: &'static str,
    /// Options with their values; a flag that is on has none.
    pub(super) options: Vec<(&'static Item, Option<OsString>)>,
    pub(super) operands: std::vec::IntoIter<OsString>,
}

/// A reader of values: why a value cannot be is told without naming the option.
pub type Parser<T> = fn(&OsStr) -> Result<T, String>;

/// What a field makes of the values of its option: none, one, or several.
pub trait Shape<T>: Sized {
    /// `None` if a value is needed and there is none.
    fn shape(values: Vec<T>) -> Option<Self>;
}

impl<T> Shape<T> for T {
    fn shape(mut values: Vec<T>) -> Option<T> {
        values.pop()
    }
}

impl<T> Shape<T> for Option<T> {
    fn shape(mut values: Vec<T>) -> Option<Option<T>> {
        Some(values.pop())
    }
}

impl<T> Shape<T> for Vec<T> {
    fn shape(values: Vec<T>) -> Option<Vec<T>> {
        Some(values)
    }
}

impl Given {
    /// Whether a flag is on.
    pub fn flag(&mut self, item: &Item) -> bool {
        self.options.iter().any(|(option, _)| option.name == item.name)
    }

    /// The values of an option.
    ///
    /// # Errors
    /// [`Error::Usage`].
    pub fn values<T, S: Shape<T>>(&mut self, item: &Item, parser: Parser<T>) -> Result<S> {
        let named = |option: &Item| option.name == item.name;
        let given = self.options.iter().filter(|(option, _)| named(option));
        let values = given.filter_map(|(_, value)| value.clone()).collect();
        self.shape(item, values, parser)
    }

    /// The next operand, or all that are left.
    ///
    /// # Errors
    /// [`Error::Usage`].
    pub fn operands<T, S: Shape<T>>(&mut self, item: &Item, parser: Parser<T>) -> Result<S> {
        let most = if item.kind == Kind::Operand { 1 } else { usize::MAX };
        let values = self.operands.by_ref().take(most).collect();
        self.shape(item, values, parser)
    }

    fn shape<T, S: Shape<T>>(
        &self,
        item: &Item,
        mut values: Vec<OsString>,
        parser: Parser<T>,
    ) -> Result<S> {
        if values.is_empty() {
            values.extend(item.default.map(OsString::from));
        }
        let usage = |why: &str| match item.kind {
            Kind::Operand | Kind::Operands => Error::Usage(format!("{}: {why}", self.command)),
            _ => Error::Usage(format!("{}: --{}: {why}", self.command, item.long())),
        };
        let parsed: Result<Vec<T>, String> = values.iter().map(|value| parser(value)).collect();
        let shaped = S::shape(parsed.map_err(|why| usage(&why))?);
        shaped.ok_or_else(|| usage(&format!("{} is missing", item.value)))
    }

    /// Makes sure that nothing is left over.
    pub(super) fn end(mut self) -> Result<()> {
        match self.operands.next() {
            None => Ok(()),
            Some(word) => {
                Err(Error::Usage(format!("{}: unexpected argument {word:?}", self.command)))
            }
        }
    }
}

/// Any path.
///
/// # Errors
/// An empty one.
pub fn path(value: &OsStr) -> Result<PathBuf, String> {
    if value.is_empty() { Err("the name is empty".to_owned()) } else { Ok(PathBuf::from(value)) }
}

/// Any text.
///
/// # Errors
/// One that is not UTF-8.
pub fn text(value: &OsStr) -> Result<String, String> {
    utf8(value).map(str::to_owned)
}

/// A whole number in the range of its type.
///
/// # Errors
/// Anything else.
pub fn number<T: FromStr<Err = std::num::ParseIntError>>(value: &OsStr) -> Result<T, String> {
    let text = utf8(value)?;
    text.parse().map_err(|error| format!("invalid number {text:?}: {error}"))
}

/// Text, to parse it further.
///
/// # Errors
/// One that is not UTF-8.
pub fn utf8(value: &OsStr) -> Result<&str, String> {
    value.to_str().ok_or_else(|| format!("{value:?} is not UTF-8"))
}

/// Makes the struct `Args` of a command, and its table, from one list:
///
/// ```ignore
/// arguments! {
///     /// The arguments of `corten create`.
///     /// What it does.
///     name: Type = flag, short 'n';
///     name: Type = values("VALUE", parser), short 'n', default "text", hidden true;
///     name: Type = operand("VALUE", parser);
/// }
/// ```
macro_rules! arguments {
    (
        $(#[doc = $about:literal])+
        pub struct $name:ident {
            $(include $inner:ident: $inner_type:ty;)?
            $(
                $(#[doc = $help:literal])+
                $field:ident: $type:ty = $kind:ident $(($value:literal, $parser:expr))?
                $(, short $short:literal)? $(, default $default:literal)? $(, hidden $hidden:literal)?;
            )*
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Debug)]
        pub struct $name {
            $(#[doc = "What the other command takes too."] pub $inner: $inner_type,)?
            $($(#[doc = $help])+ pub $field: $type,)*
        }

        impl $crate::cli::options::Arguments for $name {
            const TABLES: &'static [&'static [$crate::cli::options::Item]] = &[
                $(<$inner_type as $crate::cli::options::Arguments>::TABLES[0],)?
                &[$($crate::cli::options::Item {
                    name: stringify!($field),
                    kind: $crate::cli::options::arguments!(@kind $kind),
                    value: concat!($($value)?),
                    short: $crate::cli::options::arguments!(@option $($short)?),
                    default: $crate::cli::options::arguments!(@option $($default)?),
                    hidden: concat!("", $($hidden)?).len() == 4,
                    help: concat!($($help),+),
                },)*],
            ];

            #[allow(unused_variables, unused_mut, unused_assignments)]
            fn take(given: &mut $crate::cli::options::Given) -> $crate::error::Result<Self> {
                $(let $inner = <$inner_type as $crate::cli::options::Arguments>::take(given)?;)?
                let mut items = Self::TABLES[Self::TABLES.len() - 1].iter();
                $(let $field = match items.next() {
                    Some(item) => {
                        $crate::cli::options::arguments!(@take given item $kind $($parser)?)
                    }
                    None => return Err($crate::error::Error::Usage(String::new())),
                };)*
                Ok(Self { $($inner,)? $($field,)* })
            }
        }
    };
    (@kind flag) => { $crate::cli::options::Kind::Flag };
    (@kind value) => { $crate::cli::options::Kind::Value };
    (@kind values) => { $crate::cli::options::Kind::Values };
    (@kind operand) => { $crate::cli::options::Kind::Operand };
    (@kind operands) => { $crate::cli::options::Kind::Operands };
    (@option) => { None };
    (@option $some:literal) => { Some($some) };
    (@take $given:ident $item:ident flag) => { $given.flag($item) };
    (@take $given:ident $item:ident value $parser:expr) => { $given.values($item, $parser)? };
    (@take $given:ident $item:ident values $parser:expr) => { $given.values($item, $parser)? };
    (@take $given:ident $item:ident operand $parser:expr) => { $given.operands($item, $parser)? };
    (@take $given:ident $item:ident operands $parser:expr) => { $given.operands($item, $parser)? };
}
pub(crate) use arguments;
