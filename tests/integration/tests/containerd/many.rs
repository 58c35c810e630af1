//! Numbers: many at once, and many one after the other without anything that stays.

use std::fs;
use std::time::Duration;

use corten_integration::managers::containerd::Containerd;
use corten_integration::managers::events::Events;
use corten_integration::managers::{Stop, Verdict, check, eventually, same};

pub(crate) const TESTS: &[(&str, crate::Test)] =
    &[("at_once", at_once), ("one_after_the_other", one_after_the_other)];

/// Twenty containers start, answer and end at the same time.
fn at_once(ctr: &Containerd) -> Verdict {
    let events = Events::start(ctr)?;
    let one = |number: i32| -> Result<String, Stop> {
        let script = format!(
            "echo {number} > /number; until [ -e /seen ]; do sleep 0.1; done; sleep 1; exit {number}"
        );
        let container = ctr.background(&[], &script)?;
        let look = "until [ -s /number ]; do sleep 0.05; done; cat /number; touch /seen";
        let seen = container.exec(&[], look)?;
        same("its own number", &seen, &number.to_string())?;
        same("exit code", &container.ends()?, &number)?;
        Ok(container.id.clone())
    };
    let ids: Result<Vec<String>, Stop> = std::thread::scope(|scope| {
        let all: Vec<_> = (1..=20).map(|number| scope.spawn(move || one(number))).collect();
        all.into_iter().map(|one| one.join().map_err(|_| "a thread panicked")?).collect()
    });
    for (number, id) in (1..).zip(ids?) {
        let delete = format!("delete {number}");
        let seen = events.until(&id, &delete)?;
        let exits = seen.iter().filter(|event| **event == format!("exit {number}")).count();
        same("exits", &exits, &1)?;
        check(seen.ends_with(&[format!("exit {number}"), delete]), format!("{seen:?}"))?;
    }
    Ok(())
}

/// What of a daemon must not grow: descriptors, sockets of shims, FIFOs, mounts, shims.
fn count(ctr: &Containerd) -> Result<Vec<(&'static str, usize)>, Stop> {
    let entries = |path: String| fs::read_dir(path).map_or(0, Iterator::count);
    let own = ctr.dir.display().to_string();
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(vec![
        ("descriptors", entries(format!("/proc/{}/fd", ctr.pid()?))),
        ("mounts", mounts.lines().filter(|line| line.contains(&own)).count()),
        ("shims", ctr.shims()?.len()),
        ("leases", ctr.ok(&["leases", "ls", "-q"])?.lines().count()),
        ("snapshots", ctr.ok(&["snapshot", "ls"])?.lines().count()),
    ])
}

/// 200 lives, and everything is as it was before.
fn one_after_the_other(ctr: &Containerd) -> Verdict {
    let some = |times| -> Verdict {
        for _ in 0..times {
            ctr.run(&[], &["true"])?.ok()?;
        }
        Ok(())
    };
    some(5)?;
    let (before, mut now) = (count(ctr)?, Vec::new());
    some(200)?;
    let settled = eventually("as before", Duration::from_secs(20), || {
        now = count(ctr)?;
        Ok(now.iter().zip(&before).all(|(now, before)| now.1 <= before.1))
    });
    settled.map_err(|_| format!("before {before:?}, after {now:?}").into())
}
