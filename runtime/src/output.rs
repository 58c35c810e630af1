//! Standard output: written whole, and a failure to do so is a failure of the command.

use std::io::Write;

use crate::error::{Doing, Result};

/// Writes `text` to standard output as it is.
///
/// # Errors
/// [`crate::Error::Sys`] if it cannot be written completely, a closed pipe included.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .doing(|| "write to standard output".to_owned())
}

/// Lines of cells in columns of at least twelve characters with three between, as runc aligns them.
pub fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().saturating_add(3).max(12).max(*width);
        }
    }
    let mut text = String::new();
    for row in rows {
        for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
            text.push_str(cell);
            if column + 1 < N {
                text.extend(std::iter::repeat_n(' ', width - cell.chars().count()));
            }
        }
        text.push('\n');
    }
    text
}
