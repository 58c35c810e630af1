//! Mount options.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use crate::rootfs::mounts::parameters;
use crate::rootfs::options::{Options, known};
use crate::sys::mount::attr;

static KNOWN: LazyLock<HashSet<&str>> = LazyLock::new(|| known().collect());

/// Words that set and clear one attribute of the mount, or recursively.
const PAIRS: [(&str, &str, u64); 10] = [
    ("nosuid", "suid", attr::NOSUID),
    ("nodev", "dev", attr::NODEV),
    ("noexec", "exec", attr::NOEXEC),
    ("nodiratime", "diratime", attr::NODIRATIME),
    ("nosymfollow", "symfollow", attr::NOSYMFOLLOW),
    ("rnosuid", "rsuid", attr::NOSUID),
    ("rnodev", "rdev", attr::NODEV),
    ("rnoexec", "rexec", attr::NOEXEC),
    ("rnodiratime", "rdiratime", attr::NODIRATIME),
    ("rnosymfollow", "rsymfollow", attr::NOSYMFOLLOW),
];

/// The last word of a pair counts, alone and recursively; what is no option of ours is the file
/// system's, in its order; twice the same words change nothing more.
pub fn mount_options(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let words: Vec<&str> = text.split(',').collect();
    let options = Options::parse(&words);
    // Where each word was said last.
    let last: HashMap<&str, usize> =
        words.iter().enumerate().map(|(place, word)| (*word, place)).collect();
    for (number, (set, clear, bit)) in PAIRS.into_iter().enumerate() {
        let attrs = if number < PAIRS.len() / 2 { options.attrs } else { options.recursive };
        let (set, clear) = (last.get(set), last.get(clear));
        assert_eq!(attrs.set & bit != 0, set > clear, "{words:?}");
        assert_eq!(attrs.clear & bit != 0, clear > set, "{words:?}");
    }
    for attrs in [options.attrs, options.recursive] {
        assert_eq!(attrs.set & attrs.clear & !attr::ATIME, 0, "{words:?}");
        // To set the access time its whole field is cleared.
        assert!(attrs.set & attr::ATIME == 0 || attrs.clear & attr::ATIME == attr::ATIME);
    }
    let ours = |word: &&&str| word.is_empty() || KNOWN.contains(**word);
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
