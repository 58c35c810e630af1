//! Standard output: written whole, and a failure to do so is a failure of the command.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::unistd::write;

use crate::error::{Doing, Result};

/// Writes `text` to standard output as it is, past the buffer of std, which would cut it in two.
///
/// # Errors
/// [`crate::Error::Sys`] if it cannot be written completely, a closed pipe included.
pub fn print(text: &str) -> Result<()> {
    let stdout = std::io::stdout();
    let mut left = text.as_bytes();
    while !left.is_empty() {
        match write(stdout.as_fd(), left) {
            Ok(written) => left = &left[written..],
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).doing(|| "write to standard output".to_owned()),
        }
    }
    Ok(())
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
