//! Reading a group's files, and the forms that their contents have.
//!
//! Whoever asks for statistics asks for dozens of small files, and the shim is asked often and
//! must not wait: so one buffer serves all files, a value costs one read, and what a file holds is
//! looked at where it lies. Nothing here blocks; the kernel makes each text when it is read.

use std::str::FromStr;

use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::{BlkioEntry, Psi, PsiData};
use crate::cgroup::dir::Dir;
use crate::error::{Doing, Result};

/// Almost every file of a group fits; one that does not makes the buffer grow.
const ROOM: usize = 4096;

/// The buffer.
#[derive(Debug)]
pub struct Reader {
    bytes: Vec<u8>,
}

impl Default for Reader {
    fn default() -> Self {
        Self::new()
    }
}

impl Reader {
    /// An empty one.
    pub fn new() -> Self {
        Self { bytes: vec![0; ROOM] }
    }

    /// A file's contents; `None` when this kernel or this group has no such file, or when the group
    /// has gone.
    ///
    /// # Errors
    /// What was read, and the errno.
    pub fn text(&mut self, dir: &Dir, file: &str) -> Result<Option<&str>> {
        match self.fill(dir, file) {
            Ok(len) => {
                let text = std::str::from_utf8(&self.bytes[..len]).map_err(|_| Errno::EILSEQ);
                text.map(Some).doing(|| format!("read {:?}", dir.path().join(file)))
            }
            // Pressure files exist where none is measured, and refuse.
            Err(Errno::ENOENT | Errno::ENODEV | Errno::EOPNOTSUPP) => Ok(None),
            Err(errno) => Err(errno).doing(|| format!("read {:?}", dir.path().join(file))),
        }
    }

    /// A file with one number; "max" is the greatest one. `None` as above.
    ///
    /// # Errors
    /// What was read, and the errno.
    pub fn number<T: FromStr>(&mut self, dir: &Dir, file: &str) -> Result<Option<T>> {
        let text = self.text(dir, file)?;
        Ok(text.and_then(|text| match text.trim_end() {
            "max" => "18446744073709551615".parse().ok(),
            number => number.parse().ok(),
        }))
    }

    /// All of these files are made in one piece, so a read that leaves room has got everything;
    /// it is lists (cgroup.procs) that come page by page.
    fn fill(&mut self, dir: &Dir, file: &str) -> Result<usize, Errno> {
        let file = dir.file(file, OFlag::O_RDONLY)?;
        let mut len = 0;
        loop {
            match nix::unistd::read(&file, &mut self.bytes[len..]) {
                Ok(n) if len + n < self.bytes.len() => return Ok(len + n),
                Ok(n) => {
                    len += n;
                    self.bytes.resize(len * 4, 0);
                }
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
}

/// Lines of `key value`.
pub fn pairs(text: &str) -> impl Iterator<Item = (&str, u64)> {
    text.lines().filter_map(|line| {
        let (key, value) = line.split_once(' ')?;
        Some((key, value.trim().parse().unwrap_or(0)))
    })
}

/// The value of `key` in lines of `key value`.
pub fn value_of(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// `8:0 Read 1282048`, `8:0 6792`; a line `Total 3477504` is left out.
pub fn blkio_entries(text: &str) -> Vec<BlkioEntry> {
    let entry = |line: &str| {
        let (device, rest) = line.split_once(' ')?;
        let (major, minor) = device.split_once(':')?;
        let (op, value) = rest.split_once(' ').unwrap_or(("", rest));
        Some(BlkioEntry {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
            op: op.to_owned(),
            value: value.trim().parse().ok()?,
        })
    };
    text.lines().filter_map(entry).collect()
}

/// A line of io.stat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the kernel's names")]
pub struct IoLine {
    pub major: u64,
    pub minor: u64,
    pub rbytes: u64,
    pub wbytes: u64,
    pub rios: u64,
    pub wios: u64,
}

/// Lines of `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6`; a line
/// without these is left out.
pub fn io_lines(text: &str) -> impl Iterator<Item = IoLine> {
    text.lines().filter_map(|line| {
        let (device, rest) = line.split_once(' ')?;
        let (major, minor) = device.split_once(':')?;
        let (major, minor) = (major.parse().ok()?, minor.parse().ok()?);
        let mut io = IoLine { major, minor, ..IoLine::default() };
        let mut known = false;
        for (key, value) in rest.split(' ').filter_map(|item| item.split_once('=')) {
            let value = value.parse().unwrap_or(0);
            let field = match key {
                "rbytes" => &mut io.rbytes,
                "wbytes" => &mut io.wbytes,
                "rios" => &mut io.rios,
                "wios" => &mut io.wios,
                _ => continue,
            };
            (*field, known) = (value, true);
        }
        known.then_some(io)
    })
}

/// Lines of `mlx5_0 hca_handle=2 hca_object=max`: the device and the two numbers, where no limit is
/// the greatest one.
pub fn rdma_lines(text: &str) -> impl Iterator<Item = (&str, u32, u32)> {
    text.lines().filter_map(|line| {
        let (device, rest) = line.split_once(' ')?;
        let value = |key: &str| {
            let mut items = rest.split(' ').filter_map(|item| item.split_once('='));
            let (_, value) = items.find(|item| item.0 == key)?;
            if value == "max" { Some(u32::MAX) } else { value.parse().ok() }
        };
        Some((device, value("hca_handle").unwrap_or(0), value("hca_object").unwrap_or(0)))
    })
}

/// Lines of `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`.
pub fn psi(text: &str) -> Psi {
    let mut psi = Psi::default();
    for line in text.lines() {
        let mut parts = line.split(' ');
        let data = match parts.next() {
            Some("some") => &mut psi.some,
            Some("full") => &mut psi.full,
            _ => continue,
        };
        *data = psi_data(parts);
    }
    psi
}

fn psi_data<'a>(parts: impl Iterator<Item = &'a str>) -> PsiData {
    let mut data = PsiData::default();
    for (key, value) in parts.filter_map(|part| part.split_once('=')) {
        match key {
            "avg10" => data.avg10 = value.parse().unwrap_or(0.0),
            "avg60" => data.avg60 = value.parse().unwrap_or(0.0),
            "avg300" => data.avg300 = value.parse().unwrap_or(0.0),
            "total" => data.total = value.parse().unwrap_or(0),
            _ => {}
        }
    }
    data
}

/// The sizes in the names of the `hugetlb.SIZE.` files.
pub fn hugepage_sizes() -> Vec<String> {
    let Ok(entries) = std::fs::read_dir("/sys/kernel/mm/hugepages") else { return Vec::new() };
    let name =
        |entry: std::io::Result<std::fs::DirEntry>| entry.ok()?.file_name().into_string().ok();
    let mut names: Vec<String> = entries.filter_map(name).collect();
    names.sort_unstable();
    let size = |name: &String| {
        let kb: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
        Some(match kb {
            kb if kb >= 1 << 20 => format!("{}GB", kb >> 20),
            kb if kb >= 1 << 10 => format!("{}MB", kb >> 10),
            kb => format!("{kb}KB"),
        })
    };
    names.iter().filter_map(size).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_any_length_is_read_whole_and_the_buffer_is_used_again() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = Dir::open(tmp.path()).unwrap();
        let mut reader = Reader::new();
        for len in [ROOM - 1, ROOM, ROOM + 1, 5 * ROOM, 1, 0] {
            std::fs::write(tmp.path().join("file"), "x".repeat(len)).unwrap();
            assert_eq!(reader.text(&dir, "file").unwrap().unwrap().len(), len);
        }
        assert_eq!(reader.text(&dir, "absent").unwrap(), None);
        std::fs::write(tmp.path().join("file"), "max\n").unwrap();
        assert_eq!(reader.number::<u64>(&dir, "file").unwrap(), Some(u64::MAX));
        std::fs::write(tmp.path().join("file"), "-1\n").unwrap();
        assert_eq!(reader.number::<i64>(&dir, "file").unwrap(), Some(-1));
        assert!(reader.text(&dir, ".").unwrap_err().to_string().contains("is a directory"));
    }

    #[test]
    fn block_statistics_with_and_without_an_operation() {
        let entry = |op: &str, value| BlkioEntry { major: 8, minor: 0, op: op.to_owned(), value };
        assert_eq!(
            blkio_entries("8:0 Read 12\n8:0 Write 2\nTotal 14\n"),
            [entry("Read", 12), entry("Write", 2)]
        );
        assert_eq!(blkio_entries("8:0 6792\n"), [entry("", 6792)]);
    }

    #[test]
    fn devices_that_were_never_used_have_no_numbers() {
        let text =
            "7:0 \n8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n253:1\n9:1 cost.x=1\n";
        let all = IoLine { major: 8, minor: 0, rbytes: 1, wbytes: 2, rios: 3, wios: 4 };
        assert_eq!(io_lines(text).collect::<Vec<_>>(), [all]);
    }
}
