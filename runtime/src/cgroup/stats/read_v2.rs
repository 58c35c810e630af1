//! The statistics of cgroup v2, in v1's units.

use super::{
    BlkioEntry, Hugetlb, MemoryEntry, Psi, PsiData, Stats, hugepage_sizes, number, text, value_of,
};
use crate::cgroup::dir::Dir;
use crate::cgroup::{Cgroup, Group};
use crate::error::Result;

impl Cgroup {
    pub(super) fn read_v2(&self, stats: &mut Stats) -> Result<()> {
        let Some(dir) = self.v2().map(Group::find).transpose()?.flatten() else {
            return Ok(());
        };
        read(dir, stats)
    }
}

fn read(dir: &Dir, stats: &mut Stats) -> Result<()> {
    if let Some(text) = text(dir, "cpu.stat")? {
        let nanoseconds = |key| value_of(&text, key).unwrap_or(0) * 1000;
        stats.cpu.usage.total = nanoseconds("usage_usec");
        stats.cpu.usage.user = nanoseconds("user_usec");
        stats.cpu.usage.kernel = nanoseconds("system_usec");
        stats.cpu.throttling.periods = value_of(&text, "nr_periods").unwrap_or(0);
        stats.cpu.throttling.throttled_periods = value_of(&text, "nr_throttled").unwrap_or(0);
        stats.cpu.throttling.throttled_time = nanoseconds("throttled_usec");
    }
    stats.cpu.psi = psi(dir, "cpu.pressure")?;
    memory(dir, stats)?;
    pids(dir, stats)?;
    io(&text(dir, "io.stat")?.unwrap_or_default(), stats);
    stats.blkio.psi = psi(dir, "io.pressure")?;
    for size in hugepage_sizes() {
        let mut usage = format!("hugetlb.{size}.rsvd.current");
        if text(dir, &usage)?.is_none() {
            usage = format!("hugetlb.{size}.current");
        }
        let events = text(dir, &format!("hugetlb.{size}.events"))?;
        let Some(events) = events else { continue };
        let failcnt = value_of(&events, "max").unwrap_or(0);
        stats.hugetlb.insert(size, Hugetlb { usage: number(dir, &usage)?, max: 0, failcnt });
    }
    Ok(())
}

fn memory(dir: &Dir, stats: &mut Stats) -> Result<()> {
    let memory = &mut stats.memory;
    for line in text(dir, "memory.stat")?.unwrap_or_default().lines() {
        if let Some((key, value)) = line.split_once(' ') {
            memory.raw.insert(key.to_owned(), value.trim().parse().unwrap_or(0));
        }
    }
    memory.cache = memory.raw.get("file").copied().unwrap_or(0);
    let entry = |infix: &str| -> Result<MemoryEntry> {
        Ok(MemoryEntry {
            limit: number(dir, &format!("memory.{infix}max"))?,
            usage: number(dir, &format!("memory.{infix}current"))?,
            // Since Linux 5.19, for swap since 6.5.
            max: number(dir, &format!("memory.{infix}peak"))?,
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
    memory.psi = psi(dir, "memory.pressure")?;
    Ok(())
}

fn pids(dir: &Dir, stats: &mut Stats) -> Result<()> {
    match text(dir, "pids.current")? {
        Some(current) => {
            stats.pids.current = current.trim_end().parse().unwrap_or(0);
            let limit = number(dir, "pids.max")?;
            stats.pids.limit = if limit == u64::MAX { 0 } else { limit };
        }
        // Without the controller, those that can be listed.
        None => {
            let procs = text(dir, "cgroup.procs")?.unwrap_or_default();
            stats.pids.current = procs.lines().count() as u64;
        }
    }
    Ok(())
}

/// `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6`
fn io(text: &str, stats: &mut Stats) {
    for line in text.lines() {
        let Some((device, rest)) = line.split_once(' ') else { continue };
        let Some((major, minor)) = device.split_once(':') else { continue };
        let (Ok(major), Ok(minor)) = (major.parse(), minor.parse()) else { continue };
        for (key, value) in rest.split(' ').filter_map(|item| item.split_once('=')) {
            let (op, table) = match key {
                "rbytes" => ("Read", &mut stats.blkio.io_service_bytes_recursive),
                "wbytes" => ("Write", &mut stats.blkio.io_service_bytes_recursive),
                "rios" => ("Read", &mut stats.blkio.io_serviced_recursive),
                "wios" => ("Write", &mut stats.blkio.io_serviced_recursive),
                _ => continue,
            };
            let value = value.parse().unwrap_or(0);
            table.push(BlkioEntry { major, minor, op: op.to_owned(), value });
        }
    }
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`; `None` where the kernel keeps none.
fn psi(dir: &Dir, file: &str) -> Result<Option<Psi>> {
    let Some(text) = text(dir, file)? else { return Ok(None) };
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
    Ok(Some(psi))
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

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
        read(&Dir::open(Path::new(tmp.path())).unwrap(), &mut stats).unwrap();
        assert_eq!((stats.cpu.usage.total, stats.cpu.usage.kernel), (7000, 3000));
        assert_eq!(stats.cpu.psi.unwrap().some.avg10, 1.5);
        assert_eq!((stats.memory.cache, stats.memory.usage.usage), (40, 100));
        assert_eq!((stats.memory.swap.usage, stats.memory.swap.limit), (105, u64::MAX));
        assert_eq!((stats.pids.current, stats.pids.limit), (3, 0));
        assert_eq!(stats.blkio.io_serviced_recursive.len(), 2);
    }
}
