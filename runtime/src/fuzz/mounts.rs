//! Mount options.

use crate::rootfs::mounts::parameters;
use crate::rootfs::options::{Options, known};
use crate::sys::mount::attr;

/// Words that set and clear one attribute of the mount.
const PAIRS: [(&str, &str, u64); 5] = [
    ("nosuid", "suid", attr::NOSUID),
    ("nodev", "dev", attr::NODEV),
    ("noexec", "exec", attr::NOEXEC),
    ("nodiratime", "diratime", attr::NODIRATIME),
    ("nosymfollow", "symfollow", attr::NOSYMFOLLOW),
];

/// The last word of a pair counts, alone and recursively; what is no option of ours is the file
/// system's, in its order; twice the same words change nothing more.
pub fn mount_options(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let words: Vec<&str> = text.split(',').collect();
    let options = Options::parse(&words);
    let last = |one: &str, other: &str| words.iter().rfind(|word| **word == one || **word == other);
    for (set, clear, bit) in PAIRS {
        let (recursive_set, recursive_clear) = (format!("r{set}"), format!("r{clear}"));
        for (attrs, set, clear) in [
            (options.attrs, set, clear),
            (options.recursive, recursive_set.as_str(), recursive_clear.as_str()),
        ] {
            let word = last(set, clear).copied();
            assert_eq!(attrs.set & bit != 0, word == Some(set), "{words:?}");
            assert_eq!(attrs.clear & bit != 0, word == Some(clear), "{words:?}");
        }
    }
    for attrs in [options.attrs, options.recursive] {
        assert_eq!(attrs.set & attrs.clear & !attr::ATIME, 0, "{words:?}");
        // To set the access time its whole field is cleared.
        assert!(attrs.set & attr::ATIME == 0 || attrs.clear & attr::ATIME == attr::ATIME);
    }
    let ours = |word: &&&str| word.is_empty() || known().any(|name| name == **word);
    let foreign: Vec<&str> = words.iter().filter(|word| !ours(word)).copied().collect();
    assert_eq!(options.data, foreign);
    let twice = Options::parse(&[words.as_slice(), words.as_slice()].concat());
    assert_eq!((twice.attrs, twice.recursive), (options.attrs, options.recursive), "{words:?}");
    assert_eq!((twice.superblock, twice.bind), (options.superblock, options.bind), "{words:?}");
    for fstype in ["ext4", "overlay"] {
        let parameters = parameters(fstype, &options.data);
        let length: usize = parameters
            .iter()
            .map(|(name, value)| name.len() + value.as_ref().map_or(0, String::len))
            .sum();
        assert!(length <= text.len());
        assert!(parameters.iter().all(|(name, value)| !name.is_empty() || value.is_some()));
    }
}
