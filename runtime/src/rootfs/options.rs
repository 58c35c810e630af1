//! Mount options: the words of `mounts[].options` in the kernel's words.
//!
//! Promise: every option of the spec's table is here, as data; an option that is not here belongs to
//! the file system and is passed on to it. A later option overrides an earlier one that contradicts
//! it, as in mount(8).
//!
//! Three kinds of thing hide behind these words: attributes of the one mount (`nosuid`), flags of the
//! superblock (`sync`), and what corten itself does (`tmpcopyup`, `idmap`). The access time is a field
//! of three values and not a flag: to change it, the whole field is cleared (mount_setattr(2)).

use crate::sys::mount::attr;

/// `MS_*` numbers that libc types as `c_ulong`, here as the `u64` of `struct mount_attr`.
pub mod ms {
    /// Read-only.
    pub const RDONLY: u64 = libc::MS_RDONLY;
    /// Writes are synchronous.
    pub const SYNC: u64 = libc::MS_SYNCHRONOUS;
    /// Changes of directories are synchronous.
    pub const DIRSYNC: u64 = libc::MS_DIRSYNC;
    /// Mandatory locks, of which only the flag is left.
    pub const MAND: u64 = libc::MS_MANDLOCK;
    /// Times are written late.
    pub const LAZYTIME: u64 = 1 << 25;
    /// A counter of changes in each inode.
    pub const IVERSION: u64 = libc::MS_I_VERSION;
    /// Fewer words in the kernel's log.
    pub const SILENT: u64 = libc::MS_SILENT;
    /// Mount events travel both ways.
    pub const SHARED: u64 = libc::MS_SHARED;
    /// Mount events come in only.
    pub const SLAVE: u64 = libc::MS_SLAVE;
    /// No mount events.
    pub const PRIVATE: u64 = libc::MS_PRIVATE;
    /// As private, and no bind mount of it.
    pub const UNBINDABLE: u64 = libc::MS_UNBINDABLE;
}

/// Attributes to set and to clear on a mount, `MOUNT_ATTR_*`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Attrs {
    /// To set.
    pub set: u64,
    /// To clear.
    pub clear: u64,
}

impl Attrs {
    /// Nothing to do.
    pub fn is_empty(self) -> bool {
        self.set | self.clear == 0
    }

    fn add(&mut self, flag: u64) {
        self.set |= flag;
        self.clear &= !flag;
    }

    fn remove(&mut self, flag: u64) {
        self.set &= !flag;
        self.clear |= flag;
    }

    /// The access time field becomes `value`.
    fn atime(&mut self, value: u64) {
        self.set = self.set & !attr::ATIME | value;
        self.clear |= attr::ATIME;
    }

    /// The access time field becomes the default, unless it was set to something else than `value`.
    fn not_atime(&mut self, value: u64) {
        if self.clear & attr::ATIME == 0 || self.set & attr::ATIME == value {
            self.atime(attr::RELATIME);
        }
    }
}

/// How mount events travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Propagation {
    /// One of `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE`, `MS_UNBINDABLE`.
    pub kind: u64,
    /// For all mounts below, too.
    pub recursive: bool,
}

impl Propagation {
    /// The word of `linux.rootfsPropagation` or of a mount option.
    pub fn parse(word: &str) -> Option<Self> {
        match OPTIONS.iter().find(|(name, _)| *name == word) {
            Some((_, Effect::Propagate(kind, recursive))) => {
                Some(Self { kind: *kind, recursive: *recursive })
            }
            _ => None,
        }
    }
}

/// All options of one mount.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Options {
    /// A bind mount; `true` with the mounts below.
    pub bind: Option<bool>,
    /// Change the mount that is there.
    pub remount: bool,
    /// For the mount itself.
    pub attrs: Attrs,
    /// For the mount and all below it.
    pub recursive: Attrs,
    /// In the order of the options.
    pub propagation: Vec<Propagation>,
    /// Superblock flags, `MS_*`.
    pub superblock: u64,
    /// Map identities; `true` with the mounts below.
    pub idmap: Option<bool>,
    /// Fill the new tmpfs with what it covers.
    pub copy_up: bool,
    /// The file system's own, in order.
    pub data: Vec<String>,
}

/// What an option does.
#[derive(Debug, Clone, Copy)]
enum Effect {
    Nothing,
    Set(u64),
    Clear(u64),
    Atime(u64),
    NotAtime(u64),
    RecursiveSet(u64),
    RecursiveClear(u64),
    RecursiveAtime(u64),
    RecursiveNotAtime(u64),
    ReadOnly,
    ReadWrite,
    Superblock(u64),
    NotSuperblock(u64),
    Propagate(u64, bool),
    Bind(bool),
    Remount,
    Idmap(bool),
    CopyUp,
}

use Effect::{
    Atime, Bind, Clear, CopyUp, Idmap, NotAtime, NotSuperblock, Nothing, Propagate, ReadOnly,
    ReadWrite, RecursiveAtime, RecursiveClear, RecursiveNotAtime, RecursiveSet, Remount, Set,
    Superblock,
};

/// Every option that is not a file system's own: config.md, "Linux mount options".
const OPTIONS: &[(&str, Effect)] = &[
    ("async", NotSuperblock(ms::SYNC)),
    ("atime", NotAtime(attr::NOATIME)),
    ("bind", Bind(false)),
    ("defaults", Nothing),
    ("dev", Clear(attr::NODEV)),
    ("diratime", Clear(attr::NODIRATIME)),
    ("dirsync", Superblock(ms::DIRSYNC)),
    ("exec", Clear(attr::NOEXEC)),
    ("idmap", Idmap(false)),
    ("iversion", Superblock(ms::IVERSION)),
    ("lazytime", Superblock(ms::LAZYTIME)),
    ("loud", NotSuperblock(ms::SILENT)),
    ("mand", Superblock(ms::MAND)),
    ("noatime", Atime(attr::NOATIME)),
    ("nodev", Set(attr::NODEV)),
    ("nodiratime", Set(attr::NODIRATIME)),
    ("noexec", Set(attr::NOEXEC)),
    ("noiversion", NotSuperblock(ms::IVERSION)),
    ("nolazytime", NotSuperblock(ms::LAZYTIME)),
    ("nomand", NotSuperblock(ms::MAND)),
    ("norelatime", NotAtime(attr::RELATIME)),
    ("nostrictatime", NotAtime(attr::STRICTATIME)),
    ("nosuid", Set(attr::NOSUID)),
    ("nosymfollow", Set(attr::NOSYMFOLLOW)),
    ("private", Propagate(ms::PRIVATE, false)),
    ("ratime", RecursiveNotAtime(attr::NOATIME)),
    ("rbind", Bind(true)),
    ("rdev", RecursiveClear(attr::NODEV)),
    ("rdiratime", RecursiveClear(attr::NODIRATIME)),
    ("relatime", Atime(attr::RELATIME)),
    ("remount", Remount),
    ("rexec", RecursiveClear(attr::NOEXEC)),
    ("ridmap", Idmap(true)),
    ("rnoatime", RecursiveAtime(attr::NOATIME)),
    ("rnodev", RecursiveSet(attr::NODEV)),
    ("rnodiratime", RecursiveSet(attr::NODIRATIME)),
    ("rnoexec", RecursiveSet(attr::NOEXEC)),
    ("rnorelatime", RecursiveNotAtime(attr::RELATIME)),
    ("rnostrictatime", RecursiveNotAtime(attr::STRICTATIME)),
    ("rnosuid", RecursiveSet(attr::NOSUID)),
    ("rnosymfollow", RecursiveSet(attr::NOSYMFOLLOW)),
    ("ro", ReadOnly),
    ("rprivate", Propagate(ms::PRIVATE, true)),
    ("rrelatime", RecursiveAtime(attr::RELATIME)),
    ("rro", RecursiveSet(attr::RDONLY)),
    ("rrw", RecursiveClear(attr::RDONLY)),
    ("rshared", Propagate(ms::SHARED, true)),
    ("rslave", Propagate(ms::SLAVE, true)),
    ("rstrictatime", RecursiveAtime(attr::STRICTATIME)),
    ("rsuid", RecursiveClear(attr::NOSUID)),
    ("rsymfollow", RecursiveClear(attr::NOSYMFOLLOW)),
    ("runbindable", Propagate(ms::UNBINDABLE, true)),
    ("rw", ReadWrite),
    ("shared", Propagate(ms::SHARED, false)),
    ("silent", Superblock(ms::SILENT)),
    ("slave", Propagate(ms::SLAVE, false)),
    ("strictatime", Atime(attr::STRICTATIME)),
    ("suid", Clear(attr::NOSUID)),
    ("symfollow", Clear(attr::NOSYMFOLLOW)),
    ("sync", Superblock(ms::SYNC)),
    ("tmpcopyup", CopyUp),
    ("unbindable", Propagate(ms::UNBINDABLE, false)),
];

/// The names of all options that corten knows, sorted: `features` prints them.
pub fn known() -> impl Iterator<Item = &'static str> {
    OPTIONS.iter().map(|(name, _)| *name)
}

impl Options {
    /// Reads the options in order.
    pub fn parse<S: AsRef<str>>(words: &[S]) -> Self {
        let mut options = Self::default();
        for word in words.iter().map(AsRef::as_ref) {
            match OPTIONS.binary_search_by(|(name, _)| (*name).cmp(word)) {
                Ok(at) => options.apply(OPTIONS[at].1),
                Err(_) if word.is_empty() => {}
                Err(_) => options.data.push(word.to_owned()),
            }
        }
        options
    }

    fn apply(&mut self, effect: Effect) {
        match effect {
            Nothing => {}
            Set(flag) => self.attrs.add(flag),
            Clear(flag) => self.attrs.remove(flag),
            Atime(value) => self.attrs.atime(value),
            NotAtime(value) => self.attrs.not_atime(value),
            RecursiveSet(flag) => self.recursive.add(flag),
            RecursiveClear(flag) => self.recursive.remove(flag),
            RecursiveAtime(value) => self.recursive.atime(value),
            RecursiveNotAtime(value) => self.recursive.not_atime(value),
            ReadOnly => {
                self.attrs.add(attr::RDONLY);
                self.superblock |= ms::RDONLY;
            }
            ReadWrite => {
                self.attrs.remove(attr::RDONLY);
                self.superblock &= !ms::RDONLY;
            }
            Superblock(flag) => self.superblock |= flag,
            NotSuperblock(flag) => self.superblock &= !flag,
            Propagate(kind, recursive) => {
                self.propagation.push(Propagation { kind, recursive });
            }
            Bind(recursive) => self.bind = Some(self.bind.unwrap_or(false) || recursive),
            Remount => self.remount = true,
            Idmap(recursive) => self.idmap = Some(recursive),
            CopyUp => self.copy_up = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Options {
        Options::parse(&words.split(',').collect::<Vec<_>>())
    }

    #[test]
    fn the_table_is_sorted_and_without_doubles() {
        let names: Vec<_> = known().collect();
        assert!(names.windows(2).all(|pair| pair[0] < pair[1]), "{names:?}");
    }

    /// Rows M5 to M9: every word of the spec is understood and none reaches the file system.
    #[test]
    fn every_option_of_the_spec_is_known() {
        let spec = "async atime bind defaults dev diratime dirsync exec iversion lazytime loud mand \
            noatime nodev nodiratime noexec noiversion nolazytime nomand norelatime nostrictatime \
            nosuid private rbind relatime remount ro rprivate rshared rslave runbindable rw shared \
            silent slave strictatime suid sync unbindable symfollow nosymfollow rsymfollow \
            rnosymfollow rro rrw rnosuid rsuid rnodev rdev rnoexec rexec rnodiratime rdiratime \
            rrelatime rnorelatime rnoatime ratime rstrictatime rnostrictatime tmpcopyup idmap ridmap";
        for word in spec.split_whitespace() {
            assert_eq!(parse(word).data, Vec::<String>::new(), "{word}");
            if word != "defaults"
                && !["async", "loud", "noiversion", "nolazytime", "nomand"].contains(&word)
            {
                assert_ne!(parse(word), Options::default(), "{word} does nothing");
            }
        }
        assert_eq!(spec.split_whitespace().count(), OPTIONS.len());
    }

    #[test]
    fn an_attribute_is_set_or_cleared_and_the_last_word_wins() {
        for (no, yes, flag) in [
            ("nosuid", "suid", attr::NOSUID),
            ("nodev", "dev", attr::NODEV),
            ("noexec", "exec", attr::NOEXEC),
            ("nodiratime", "diratime", attr::NODIRATIME),
            ("nosymfollow", "symfollow", attr::NOSYMFOLLOW),
            ("ro", "rw", attr::RDONLY),
        ] {
            assert_eq!(parse(no).attrs, Attrs { set: flag, clear: 0 });
            assert_eq!(parse(&format!("{no},{yes}")).attrs, Attrs { set: 0, clear: flag });
            assert_eq!(parse(&format!("{yes},{no}")).attrs, Attrs { set: flag, clear: 0 });
            let (rno, ryes) = (format!("r{no}"), format!("r{yes}"));
            assert_eq!(parse(&rno).recursive, Attrs { set: flag, clear: 0 });
            assert_eq!(parse(&format!("{rno},{ryes}")).recursive, Attrs { set: 0, clear: flag });
            assert_eq!(parse(&rno).attrs, Attrs::default());
        }
    }

    #[test]
    fn the_access_time_is_a_field() {
        let field = |set| Attrs { set, clear: attr::ATIME };
        for (words, set) in [
            ("noatime", attr::NOATIME),
            ("relatime", attr::RELATIME),
            ("strictatime", attr::STRICTATIME),
            ("noatime,strictatime", attr::STRICTATIME),
            ("noatime,atime", attr::RELATIME),
            ("atime", attr::RELATIME),
            ("noatime,norelatime", attr::NOATIME),
            ("noatime,nostrictatime", attr::NOATIME),
            ("strictatime,nostrictatime", attr::RELATIME),
        ] {
            assert_eq!(parse(words).attrs, field(set), "{words}");
            let recursive: Vec<_> = words.split(',').map(|word| format!("r{word}")).collect();
            assert_eq!(parse(&recursive.join(",")).recursive, field(set), "{recursive:?}");
        }
    }

    #[test]
    fn superblock_flags() {
        for (yes, no, flag) in [
            ("sync", "async", ms::SYNC),
            ("mand", "nomand", ms::MAND),
            ("lazytime", "nolazytime", ms::LAZYTIME),
            ("iversion", "noiversion", ms::IVERSION),
            ("silent", "loud", ms::SILENT),
            ("ro", "rw", ms::RDONLY),
        ] {
            assert_eq!(parse(yes).superblock, flag);
            assert_eq!(parse(&format!("{yes},{no}")).superblock, 0);
        }
        assert_eq!(parse("dirsync").superblock, ms::DIRSYNC);
    }

    #[test]
    fn propagation_keeps_its_order() {
        for (word, kind) in [
            ("shared", ms::SHARED),
            ("slave", ms::SLAVE),
            ("private", ms::PRIVATE),
            ("unbindable", ms::UNBINDABLE),
        ] {
            assert_eq!(parse(word).propagation, [Propagation { kind, recursive: false }]);
            let recursive = format!("r{word}");
            assert_eq!(parse(&recursive).propagation, [Propagation { kind, recursive: true }]);
            assert_eq!(Propagation::parse(&recursive), Some(Propagation { kind, recursive: true }));
        }
        assert_eq!(parse("slave,shared").propagation.len(), 2);
        assert_eq!(Propagation::parse("ro"), None);
        assert_eq!(Propagation::parse(""), None);
    }

    #[test]
    fn the_rest() {
        assert_eq!(parse("bind").bind, Some(false));
        assert_eq!(parse("rbind,bind").bind, Some(true));
        assert_eq!(parse("idmap").idmap, Some(false));
        assert_eq!(parse("ridmap").idmap, Some(true));
        assert!(parse("tmpcopyup").copy_up);
        assert!(parse("remount").remount);
        assert_eq!(parse("mode=755,size=65536k,").data, ["mode=755", "size=65536k"]);
    }
}
