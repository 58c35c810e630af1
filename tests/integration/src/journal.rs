//! Our own journal, `state.json`: edited as its writer would, with a checksum that holds.

use std::fs;
use std::path::Path;

/// What stands before the checksum; a journal of another runtime has none.
pub fn json_of(journal: &str) -> &str {
    let ours = journal.lines().count() == 2;
    if ours { journal.lines().next().unwrap_or_default() } else { journal }
}

/// With the checksum that makes it believed: FNV-1a of 64 bits, in 16 digits on a line of its own.
pub fn signed(json: &str) -> String {
    let step = |sum: u64, byte: u8| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    format!("{json}\n{:016x}\n", json.bytes().fold(0xcbf2_9ce4_8422_2325, step))
}

/// Changes a journal; that it does change is checked.
#[track_caller]
pub fn edit(path: &Path, change: impl FnOnce(&str) -> String) {
    let text = fs::read_to_string(path).expect("read a journal");
    let (before, has_sum) = (json_of(&text), json_of(&text).len() < text.len());
    let after = change(before);
    assert_ne!(before, after, "nothing of it stands in the journal");
    fs::write(path, if has_sum { signed(&after) } else { after }).expect("write a journal");
}
