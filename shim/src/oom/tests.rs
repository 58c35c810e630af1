//! With real kills in a v1 group of this machine, `corten-oom-test-PID-N`, and with the v2 file
//! that is notified in the same way and needs no controller.
#![allow(clippy::disallowed_methods, reason = "test processes are ordinary children")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use corten::cgroup::{Location, Record};

use super::*;

const MEMORY: &str = "/sys/fs/cgroup/memory";
const UNIFIED: &str = "/sys/fs/cgroup/unified";
const OURS: Token = Token(9);

/// A group of one hierarchy, gone after the test.
struct Own {
    path: PathBuf,
    record: Record,
    cgroup: Cgroup,
}

impl Own {
    /// `None` where the tests can't run.
    fn new(mount: &str, controllers: &str, name: &str) -> Option<Self> {
        let version = if controllers.is_empty() { Version::V2 } else { Version::V1 };
        let below = format!("corten-oom-test-{}-{name}", std::process::id());
        let path = Path::new(mount).join(&below);
        if !nix::unistd::geteuid().is_root()
            || !Path::new(mount).join("cgroup.procs").exists()
            || std::fs::create_dir(&path).is_err()
        {
            eprintln!("skipped: needs root and {mount}");
            return None;
        }
        let at = Location {
            controllers: controllers.to_owned(),
            mount: mount.into(),
            path: below.into(),
            existed: false,
        };
        let record = Record { version, lenient: false, taken: true, unit: None, groups: vec![at] };
        let cgroup = Cgroup::open(&record);
        Some(Self { path, record, cgroup })
    }

    fn limited(name: &str) -> Option<Self> {
        let own = Self::new(MEMORY, "memory", name)?;
        own.write("memory.limit_in_bytes", "8388608");
        if own.path.join("memory.memsw.limit_in_bytes").exists() {
            own.write("memory.memsw.limit_in_bytes", "8388608");
        }
        Some(own)
    }

    fn write(&self, file: &str, value: &str) {
        std::fs::write(self.path.join(file), value).unwrap();
    }

    fn kills(&self) -> u64 {
        let text = std::fs::read_to_string(self.path.join("memory.oom_control")).unwrap();
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")).unwrap().parse().unwrap()
    }

    fn until_populated(&self) {
        let populated = |text: String| text.contains("populated 1");
        while !populated(std::fs::read_to_string(self.path.join("cgroup.events")).unwrap()) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// A group below as of a unit, and its watch. `populated` counts like `oom_kill`: above it is 1 for
    /// what is below, too.
    fn watched_below(&self, poller: &Poller) -> (PathBuf, Watch) {
        let below = self.path.join("below");
        std::fs::create_dir(&below).unwrap();
        let dir = Dir::open(&below).unwrap();
        let watch = Watch::of_file(&dir, true, "cgroup.events", "populated", poller, OURS);
        (below, watch.unwrap().unwrap())
    }

    /// A shell in the group.
    fn shell(&self, script: &str) -> Child {
        let procs = self.path.join("cgroup.procs");
        let mut command = Command::new("sh");
        command.args(["-c", &format!("echo $$ > {} && {script}", procs.display())]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        drop(self.cgroup.kill_all(Duration::from_secs(10)));
        drop(std::fs::remove_dir(&self.path));
    }
}

/// tail keeps what has no lines: it grows until it is killed, and the shell goes on.
const EAT: &str = "head -c 64M /dev/zero | tail; true";

/// What a loop would be told within `time`, and how often it would be woken.
fn listen(poller: &Poller, watch: &mut Watch, time: Duration, enough: u64) -> (u64, usize) {
    let end = Instant::now() + time;
    let (mut kills, mut turns) = (0, 0);
    while kills < enough && Instant::now() < end {
        for token in poller.wait(Some(end)).unwrap() {
            assert_eq!(token, OURS);
            kills += watch.turn().unwrap();
            turns += 1;
        }
    }
    (kills, turns)
}

#[test]
fn every_kill_is_told_once_though_the_process_that_is_watched_lives() {
    let Some(own) = Own::limited("once") else { return };
    let poller = Poller::new().unwrap();
    let mut watch = Watch::new(&own.record, &poller, OURS).unwrap().unwrap();
    assert_eq!(watch.check().unwrap(), 0);
    for round in 1..=3 {
        let mut shell = own.shell(EAT);
        let (kills, _) = listen(&poller, &mut watch, Duration::from_secs(20), 1);
        assert_eq!((kills, own.kills()), (1, round));
        assert!(shell.wait().unwrap().success());
    }
    assert_eq!(listen(&poller, &mut watch, Duration::from_millis(100), 1).0, 0);
    assert_eq!(watch.check().unwrap(), 0);
}

#[test]
fn kills_at_the_same_time_are_all_counted() {
    let Some(own) = Own::limited("many") else { return };
    let poller = Poller::new().unwrap();
    let mut watch = Watch::new(&own.record, &poller, OURS).unwrap().unwrap();
    let mut shells: Vec<Child> = (0..4).map(|_| own.shell(EAT)).collect();
    for shell in &mut shells {
        shell.wait().unwrap();
    }
    let (kills, _) = listen(&poller, &mut watch, Duration::from_secs(20), own.kills());
    assert!(kills > 0);
    assert_eq!(kills, own.kills());
}

#[test]
fn an_exit_finds_its_cause_in_the_counter() {
    let Some(own) = Own::limited("exit") else { return };
    let poller = Poller::new().unwrap();
    let mut watch = Watch::new(&own.record, &poller, OURS).unwrap().unwrap();
    let status = own.shell("exec sh -c 'a=0; while :; do a=$a$a; done'").wait().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
    assert_eq!(watch.check().unwrap(), own.kills());
    assert!(own.kills() > 0);
    // What the eventfd says afterwards is not news.
    let (kills, _) = listen(&poller, &mut watch, Duration::from_millis(100), 1);
    assert_eq!(kills, 0);
}

#[test]
fn a_removed_group_is_no_kill_and_keeps_nobody_awake() {
    let Some(own) = Own::limited("gone") else { return };
    let poller = Poller::new().unwrap();
    let mut watch = Watch::new(&own.record, &poller, OURS).unwrap().unwrap();
    drop(own);
    let (kills, turns) = listen(&poller, &mut watch, Duration::from_secs(1), 1);
    assert_eq!((kills, turns), (0, 1), "the eventfd tells of the removal, once");
    assert!(matches!(watch.counter, Counter::Gone));
    assert_eq!(watch.check().unwrap(), 0);
}

/// Whether there is a timer for another look.
fn looks_again(watch: &Watch) -> bool {
    matches!(&watch.counter, Counter::Control { notice: Some(notice), .. } if notice.again.is_some())
}

#[test]
fn the_eventfd_alone_is_no_kill_and_is_not_looked_after_forever() {
    let Some(own) = Own::limited("disabled") else { return };
    own.write("memory.oom_control", "1");
    let poller = Poller::new().unwrap();
    let mut watch = Watch::new(&own.record, &poller, OURS).unwrap().unwrap();
    let mut shell = own.shell(EAT);
    assert_eq!(poller.wait(Some(Instant::now() + Duration::from_secs(30))).unwrap(), [OURS]);
    let begun = Instant::now();
    // As many exits at this moment do not end the looking.
    for _ in 0..50 {
        assert_eq!(watch.turn().unwrap(), 0);
    }
    let mut turns = 0;
    while looks_again(&watch) {
        // The kernel may tell again; woken for nothing would be a number without end.
        turns += 1;
        assert!(turns < 100, "in {:?}", begun.elapsed());
        assert_eq!(poller.wait(Some(Instant::now() + Duration::from_secs(30))).unwrap(), [OURS]);
        assert_eq!(watch.turn().unwrap(), 0);
    }
    // A timer is never early, however busy the machine is.
    assert!(begun.elapsed() > Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(own.kills(), 0);
    drop(own);
    shell.wait().unwrap();
}

#[test]
fn without_the_controller_there_is_nothing_to_watch() {
    let poller = Poller::new().unwrap();
    assert!(Watch::new(&Record::none(), &poller, OURS).unwrap().is_none());
    let Some(own) = Own::new(UNIFIED, "", "none") else { return };
    // The unified hierarchy of a hybrid host has no memory.events.
    let watch = Watch::new(&own.record, &poller, OURS).unwrap();
    assert_eq!(watch.is_some(), own.path.join("memory.events").exists());
}

#[test]
fn a_file_of_v2_is_ready_after_a_change_and_until_it_is_read() {
    let Some(own) = Own::new(UNIFIED, "", "events") else { return };
    let poller = Poller::new().unwrap();
    let dir = own.cgroup.dir_of("").unwrap().unwrap();
    let mut watch =
        Watch::of_file(dir, false, "cgroup.events", "populated", &poller, OURS).unwrap().unwrap();
    assert_eq!(listen(&poller, &mut watch, Duration::from_millis(50), 1), (0, 0));
    let mut shell = own.shell("sleep 100");
    assert_eq!(listen(&poller, &mut watch, Duration::from_secs(10), 1), (1, 1));
    assert_eq!(listen(&poller, &mut watch, Duration::from_millis(50), 1), (0, 0));
    // Back to 0 is a change, and no increase.
    own.cgroup.kill_all(Duration::from_secs(10)).unwrap();
    shell.wait().unwrap();
    let (kills, turns) = listen(&poller, &mut watch, Duration::from_secs(1), 1);
    assert_eq!((kills, turns), (0, 1));
    drop(own);
    let (kills, turns) = listen(&poller, &mut watch, Duration::from_millis(200), 1);
    assert!(kills == 0 && turns <= 1, "{kills} {turns}");
    assert_eq!(watch.check().unwrap(), 0);
    assert!(matches!(watch.counter, Counter::Gone));
}

#[test]
fn a_kill_in_a_group_that_went_first_is_found_above_when_the_end_looks_like_it() {
    let Some(own) = Own::new(UNIFIED, "", "above") else { return };
    let poller = Poller::new().unwrap();
    let (below, mut watch) = own.watched_below(&poller);
    watch.looks_killed();
    assert_eq!(watch.turn().unwrap(), 0, "nothing was counted");
    std::fs::remove_dir(&below).unwrap();
    let mut neighbour = own.shell("sleep 100");
    own.until_populated();
    assert_eq!(watch.turn().unwrap(), 0, "it may be a neighbour's");
    watch.looks_killed();
    assert_eq!(watch.turn().unwrap(), 1);
    watch.looks_killed();
    assert_eq!(watch.turn().unwrap(), 0, "it was told");
    own.cgroup.kill_all(Duration::from_secs(10)).unwrap();
    neighbour.wait().unwrap();
}

#[test]
fn a_kill_above_that_ours_outlived_is_a_neighbours() {
    let Some(own) = Own::new(UNIFIED, "", "neighbour") else { return };
    let poller = Poller::new().unwrap();
    let (below, mut watch) = own.watched_below(&poller);
    let mut shell = own.shell("sleep 100");
    own.until_populated();
    assert_eq!(watch.turn().unwrap(), 0);
    std::fs::remove_dir(&below).unwrap();
    assert_eq!(watch.turn().unwrap(), 0);
    watch.looks_killed();
    assert_eq!(watch.turn().unwrap(), 0);
    own.cgroup.kill_all(Duration::from_secs(10)).unwrap();
    shell.wait().unwrap();
}
