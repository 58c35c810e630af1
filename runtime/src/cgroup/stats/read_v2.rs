//! The statistics of cgroup v2, in v1's units.

use nix::errno::Errno;

use super::reader::{Reader, hugepage_sizes, io_lines, pairs, psi, value_of};
use super::{BlkioEntry, Hugetlb, MemoryEntry, Psi, Stats, number};
use crate::cgroup::dir::Dir;
use crate::cgroup::{Cgroup, Group};
use crate::error::{Doing, Result};

impl Cgroup {
    pub(super) fn read_v2(&self, stats: &mut Stats) -> Result<()> {
        let Some(dir) = self.v2().map(Group::find).transpose()?.flatten() else {
            return Ok(());
        };
        read(&mut Reader::new(), dir, stats)
    }
}

fn read(reader: &mut Reader, dir: &Dir, stats: &mut Stats) -> Result<()> {
    if let Some(text) = reader.text(dir, "cpu.stat")? {
        let nanoseconds = |key| value_of(text, key).unwrap_or(0) * 1000;
        stats.cpu.usage.total = nanoseconds("usage_usec");
        stats.cpu.usage.user = nanoseconds("user_usec");
        stats.cpu.usage.kernel = nanoseconds("system_usec");
        stats.cpu.throttling.periods = value_of(text, "nr_periods").unwrap_or(0);
        stats.cpu.throttling.throttled_periods = value_of(text, "nr_throttled").unwrap_or(0);
        stats.cpu.throttling.throttled_time = nanoseconds("throttled_usec");
    }
    stats.cpu.psi = pressure(reader, dir, "cpu.pressure")?;
    memory(reader, dir, stats)?;
    pids(reader, dir, stats)?;
    io(reader.text(dir, "io.stat")?.unwrap_or_default(), stats);
    stats.blkio.psi = pressure(reader, dir, "io.pressure")?;
    for size in hugepage_sizes() {
        let usage = match reader.number(dir, &format!("hugetlb.{size}.rsvd.current"))? {
            Some(reserved) => reserved,
            None => number(reader, dir, &format!("hugetlb.{size}.current"))?,
        };
        let events = reader.text(dir, &format!("hugetlb.{size}.events"))?;
        let Some(events) = events else { continue };
        let failcnt = value_of(events, "max").unwrap_or(0);
        stats.hugetlb.insert(size, Hugetlb { usage, max: 0, failcnt });
    }
    Ok(())
}

fn memory(reader: &mut Reader, dir: &Dir, stats: &mut Stats) -> Result<()> {
    let memory = &mut stats.memory;
    let text = reader.text(dir, "memory.stat")?.unwrap_or_default();
    memory.raw = pairs(text).map(|(key, value)| (key.to_owned(), value)).collect();
    memory.cache = memory.raw.get("file").copied().unwrap_or(0);
    let mut entry = |infix: &str| -> Result<MemoryEntry> {
        Ok(MemoryEntry {
            limit: number(reader, dir, &format!("memory.{infix}max"))?,
            usage: number(reader, dir, &format!("memory.{infix}current"))?,
            // Since Linux 5.19, for swap since 6.5.
            max: number(reader, dir, &format!("memory.{infix}peak"))?,
            failcnt: 0,
        })
    };
    memory.usage = entry("")?;
    // v1 counts swap together with memory; the highest of the two at once is not known.
    let swap = entry("swap.")?;
    memory.swap = MemoryEntry {
        limit: swap.limit.saturating_add(memory.usage.limit),
        usage: swap.usage.saturating_add(memory.usage.usage),
        max: 0,
        failcnt: 0,
    };
    memory.psi = pressure(reader, dir, "memory.pressure")?;
    Ok(())
}

fn pids(reader: &mut Reader, dir: &Dir, stats: &mut Stats) -> Result<()> {
    match reader.number(dir, "pids.current")? {
        Some(current) => {
            stats.pids.current = current;
            let limit = number(reader, dir, "pids.max")?;
            stats.pids.limit = if limit == u64::MAX { 0 } else { limit };
        }
        // Without the controller, those that can be listed.
        None => {
            let procs = match dir.try_read("cgroup.procs") {
                // A threaded group lists none.
                Err(Errno::ENOENT | Errno::ENODEV | Errno::EOPNOTSUPP) => String::new(),
                other => other.doing(|| format!("read {:?}", dir.path().join("cgroup.procs")))?,
            };
            stats.pids.current = procs.lines().count() as u64;
        }
    }
    Ok(())
}

/// v1's tables.
fn io(text: &str, stats: &mut Stats) {
    for line in io_lines(text) {
        let entry = |op: &str, value| {
            let (major, minor, op) = (line.major, line.minor, op.to_owned());
            BlkioEntry { major, minor, op, value }
        };
        let bytes = [entry("Read", line.rbytes), entry("Write", line.wbytes)];
        stats.blkio.io_service_bytes_recursive.extend(bytes);
        let operations = [entry("Read", line.rios), entry("Write", line.wios)];
        stats.blkio.io_serviced_recursive.extend(operations);
    }
}

/// `None` where the kernel keeps none.
fn pressure(reader: &mut Reader, dir: &Dir, file: &str) -> Result<Option<Psi>> {
    Ok(reader.text(dir, file)?.map(psi))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v2_files_are_read_in_v1_units() {
        let tmp = tempfile::tempdir().unwrap();
        for (file, text) in [
            (
                "cpu.stat",
                "usage_usec 7\nuser_usec 4\nsystem_usec 3\nnr_throttled 2\nthrottled_usec 9\n",
            ),
            ("cpu.pressure", "some avg10=1.50 avg60=0.00 avg300=0.00 total=12\n"),
            ("memory.current", "100\n"),
            ("memory.max", "1000\n"),
            ("memory.swap.current", "5\n"),
            ("memory.swap.max", "max\n"),
            ("memory.stat", "anon 60\nfile 40\n"),
            ("pids.current", "3\n"),
            ("pids.max", "max\n"),
            ("io.stat", "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n"),
        ] {
            std::fs::write(tmp.path().join(file), text).unwrap();
        }
        let mut stats = Stats::default();
        read(&mut Reader::new(), &Dir::open(tmp.path()).unwrap(), &mut stats).unwrap();
        assert_eq!((stats.cpu.usage.total, stats.cpu.usage.kernel), (7000, 3000));
        assert_eq!(stats.cpu.psi.unwrap().some.avg10, 1.5);
        assert_eq!((stats.memory.cache, stats.memory.usage.usage), (40, 100));
        assert_eq!((stats.memory.swap.usage, stats.memory.swap.limit), (105, u64::MAX));
        assert_eq!((stats.pids.current, stats.pids.limit), (3, 0));
        assert_eq!(stats.blkio.io_serviced_recursive.len(), 2);
    }
}
