//! R7 to R10: what is recorded is damaged, old, another's or no longer true. `state` and `list` say
//! so or pass over it, `delete --force` ends the container all the same, and nobody else is touched.

use std::fs;
use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::process::Command;

use corten_integration::driver::wait_until;
use corten_integration::journal::{edit, json_of, signed};
use corten_integration::suite::Case;
use corten_integration::{Bundle, Output, Test, cgroups, tests};
use serde_json::{Value, json};

use crate::subject::{Life, Subject};
use crate::tally::{self, Count, sample};

pub(crate) const TESTS: &[Case] = tests![
    r7_cut_anywhere,
    r7_bits_turned,
    r7_members_changed,
    r7_directories_damaged,
    r7_of_another_user,
    r7_the_others_are_listed,
    r8_a_pid_that_is_used_again,
    r9_after_a_reboot,
    r10_groups_removed_by_others,
    r10_moved_to_another_group,
    r10_a_group_that_was_there_can_be_used_again,
];

/// A container that costs little and sleeps.
fn plain(t: &Test) -> Subject<'_> {
    let mut bundle = t.bundle();
    bundle.probe(&["report", ";", "sleep"]).namespace("cgroup", None);
    bundle.limit("pids", json!({"limit": 50}));
    t.skip_on_peers("this is about our own journal");
    Subject::of(t, bundle)
}

fn journal(subject: &Subject<'_>) -> PathBuf {
    subject.t.root().join(subject.id()).join("state.json")
}

/// No command may crash on it, whatever it says.
fn asked(subject: &Subject<'_>) -> Result<(), String> {
    let id = subject.id();
    let questions: [&[&str]; 4] = [&["state", id], &["list"], &["kill", id, "0"], &["ps", id]];
    for args in questions {
        let Output { code, stderr, .. } = subject.call(args);
        if code > 1 || stderr.contains("internal error") {
            return Err(format!("{args:?}: {code}: {stderr}"));
        }
    }
    Ok(())
}

/// The journal of a container that lives becomes another; then it is deleted.
fn damaged(subject: &Subject<'_>, name: &str, life: Life, change: impl FnOnce(Vec<u8>) -> Vec<u8>) {
    tally::point(subject, name, || {
        subject.reach(life);
        let whole = fs::read(journal(subject)).map_err(|e| e.to_string())?;
        fs::write(journal(subject), change(whole)).map_err(|e| e.to_string())?;
        let answered = asked(subject);
        subject.end(name);
        answered
    });
}

fn length(subject: &Subject<'_>) -> usize {
    subject.reach(Life::Created);
    let length = fs::read(journal(subject)).expect("read the journal").len();
    subject.end("a look at the journal");
    length
}

/// The last containers still work.
fn done(t: &Test, subject: &Subject<'_>, count: Count, what: &str) {
    subject.reach(Life::Running);
    subject.end(what);
    count.end(t, what);
}

fn r7_cut_anywhere(t: &Test) {
    let (subject, count) = (plain(t), Count::begin());
    for at in sample((0..length(&subject)).collect(), 16) {
        let life = if at % 2 == 0 { Life::Created } else { Life::Running };
        damaged(&subject, &format!("journal cut at {at}"), life, |mut whole| {
            whole.truncate(at);
            whole
        });
    }
    done(t, &subject, count, "journals cut");
}

fn r7_bits_turned(t: &Test) {
    let (subject, count) = (plain(t), Count::begin());
    for at in sample((0..length(&subject)).collect(), 16) {
        damaged(&subject, &format!("bit {} of byte {at}", at % 8), Life::Created, |mut whole| {
            if let Some(byte) = whole.get_mut(at) {
                *byte ^= 1 << (at % 8);
            }
            whole
        });
    }
    done(t, &subject, count, "bits turned");
}

/// A member becomes another type, or is gone, with a checksum that holds: another version of this
/// program, or a hand. Numbers and paths of other things are not tried: they could be true.
fn r7_members_changed(t: &Test) {
    let (subject, count) = (plain(t), Count::begin());
    subject.reach(Life::Created);
    let text = fs::read_to_string(journal(&subject)).expect("read the journal");
    let members: Value = serde_json::from_str(json_of(&text)).expect("a journal is JSON");
    let names: Vec<String> = members.as_object().expect("an object").keys().cloned().collect();
    let values =
        [None, Some(Value::Null), Some(json!(-1)), Some(json!([{}])), Some(json!({"a": 1}))];
    let all: Vec<_> =
        names.iter().flat_map(|name| values.iter().map(move |to| (name, to))).collect();
    // Without cgroups is something that a container can be.
    let all: Vec<_> = all
        .into_iter()
        .filter(|(name, to)| *name != "cgroup" || to.as_ref().is_some_and(|it| !it.is_null()))
        .collect();
    for (name, to) in sample(all, 24) {
        damaged(&subject, &format!("{name} becomes {to:?}"), Life::Created, |whole| {
            let text = String::from_utf8_lossy(&whole).into_owned();
            let mut members: Value = serde_json::from_str(json_of(&text)).unwrap_or_default();
            match (members.as_object_mut(), to) {
                (Some(all), None) => drop(all.remove(name)),
                (Some(all), Some(to)) => drop(all.insert(name.clone(), to.clone())),
                _ => {}
            }
            signed(&members.to_string()).into_bytes()
        });
    }
    done(t, &subject, count, "members changed");
}

/// No journal, no config, neither of them, a directory for a file, an empty directory.
fn r7_directories_damaged(t: &Test) {
    let count = Count::begin();
    // Without a config only the default place can be known.
    let mut bundle = t.bundle();
    bundle.probe(&["report", ";", "sleep"]).unset("linux.cgroupsPath");
    t.skip_on_peers("this is about our own directory");
    let subject = Subject::of(t, bundle);
    let damages: [(&str, &[&str], &str, &str); 6] = [
        ("no journal", &["state.json"], "", ""),
        ("no config", &["config.json"], "", ""),
        ("no gate", &["gate"], "", ""),
        ("half a journal and no config", &["state.json", "config.json"], "", "state.json"),
        ("a directory for a journal", &["state.json"], "state.json/below", ""),
        ("what is not ours", &[], "other/below", "file"),
    ];
    for (name, gone, directory, file) in damages {
        tally::point(&subject, name, || {
            subject.reach(Life::Created);
            let dir = t.root().join(subject.id());
            let damage = || {
                gone.iter().try_for_each(|file| fs::remove_file(dir.join(file)))?;
                fs::create_dir_all(dir.join(directory))?;
                if file.is_empty() { Ok(()) } else { fs::write(dir.join(file), "{") }
            };
            damage().map_err(|e: std::io::Error| e.to_string())?;
            let answered = asked(&subject);
            subject.end(name);
            answered
        });
    }
    fs::create_dir_all(t.root().join(subject.id())).expect("make an empty directory");
    subject.end("an empty directory");
    count.end(t, "directories damaged");
}

/// A journal that belongs to another user is still what it says.
fn r7_of_another_user(t: &Test) {
    let subject = plain(t);
    subject.reach(Life::Running);
    chown(journal(&subject), Some(1000), Some(1000)).expect("chown the journal");
    assert_eq!(subject.status(), "running");
    subject.end("a journal of another user");
}

/// Damage hides no other container.
fn r7_the_others_are_listed(t: &Test) {
    let (good, bad) = (plain(t), plain(t));
    good.reach(Life::Running);
    for damage in ["", "null", "{", "[1]", "\0\0\0"] {
        bad.reach(Life::Created);
        fs::write(journal(&bad), damage).expect("damage the journal");
        let out = good.call(&["list", "--format", "json"]).ok();
        let ids: Vec<Value> =
            out.json().as_array().into_iter().flatten().map(|one| one["id"].clone()).collect();
        assert_eq!(ids, [json!(good.id())], "{out}");
        bad.end(damage);
    }
    good.end("the other container");
}

/// A pid namespace with 400 pids, in which the init's pid is soon an innocent process's: neither kill
/// nor delete touches it.
fn r8_a_pid_that_is_used_again(t: &Test) {
    let subject = plain(t);
    let (id, bundle) = (subject.id(), subject.bundle.path());
    let script = format!(
        "set -e
        echo 400 >/proc/sys/kernel/pid_max
        # Pids below 300 are used only once.
        n=0; while [ $n -lt 310 ]; do n=$((n + 1)); /bin/true; done
        c() {{ $RUNTIME --root $ROOT \"$@\"; }}
        c create -b {bundle} {id}
        c state {id} | tr -dc '0-9a-z:,\"' >{bundle}/state
        pid=$(grep -o '\"pid\":[0-9]*' {bundle}/state | cut -d: -f2)
        c kill {id} KILL
        while [ -d /proc/$pid ]; do sleep 0.01; wait; done
        n=0
        while [ $n -lt 2000 ]; do
          n=$((n + 1))
          sleep 1000 & other=$!
          [ $other != $pid ] || break
          kill -9 $other; wait $other 2>/dev/null || true
        done
        [ $other = $pid ] || {{ echo not used again; exit 3; }}
        c state {id}
        c kill {id} KILL && exit 4
        c delete --force {id}
        kill -0 $other && echo innocent
        kill -9 $other"
    );
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--mount-proc", "--kill-child", "/bin/sh", "-c", &script]);
    command.env("RUNTIME", &t.runtime).env("ROOT", t.root());
    // Before Linux 6.14 the limit is the whole machine's.
    if !has_own_pid_max() {
        t.skip("pid_max is the whole machine's before Linux 6.14");
    }
    let out = t.execute(command);
    if out.code == 3 {
        t.skip("the pid was not used again");
    }
    let out = out.ok();
    assert!(out.stdout.contains("\"status\": \"stopped\""), "{out}");
    assert!(out.stdout.contains("innocent"), "{out}");
    t.nothing_left(&subject.bundle);
}

fn has_own_pid_max() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (6, 14)
}

/// The machine was booted anew and the directory is still there: its container has stopped.
fn r9_after_a_reboot(t: &Test) {
    let subject = plain(t);
    subject.reach(Life::Running);
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("read the boot's id");
    edit(&journal(&subject), |text| {
        text.replace(boot.trim(), "00000000-0000-0000-0000-000000000000")
    });
    assert_eq!(subject.status(), "stopped");
    subject.call(&["kill", subject.id(), "KILL"]).fails();
    subject.call(&["exec", subject.id(), "/probe", "exit", "0"]).fails();
    // Its groups are gone after a boot; here they aren't, and are emptied.
    subject.end("after a reboot");
}

/// Somebody removes the groups of a stopped container.
fn r10_groups_removed_by_others(t: &Test) {
    let subject = plain(t);
    subject.reach(Life::Stopped);
    cgroups::remove(&cgroups::tagged(subject.id()));
    assert_eq!(subject.status(), "stopped");
    subject.call(&["update", "--pids-limit", "9", subject.id()]).fails();
    subject.call(&["kill", subject.id(), "KILL"]).fails();
    subject.call(&["delete", subject.id()]).ok();
    t.nothing_left(&subject.bundle);
}

/// Somebody moves the container's process elsewhere: it is still ended, and exec goes where it is.
fn r10_moved_to_another_group(t: &Test) {
    let subject = plain(t);
    subject.reach(Life::Running);
    let pid = t.pid(subject.id()).to_string();
    let mut away = Vec::new();
    for hierarchy in cgroups::hierarchies() {
        let dir = hierarchy.mount.join(cgroups::parent().trim_start_matches('/')).join("away");
        // A hierarchy that nobody uses, or a cpuset without cpus.
        if fs::create_dir_all(&dir).is_ok() && fs::write(dir.join("cgroup.procs"), &pid).is_ok() {
            away.push(dir);
        } else {
            let _not_made = fs::remove_dir(&dir);
        }
    }
    assert!(!away.is_empty());
    assert_eq!(subject.status(), "running");
    subject.call(&["exec", subject.id(), "/probe", "exit", "0"]);
    subject.end("a moved container");
    assert!(!PathBuf::from(format!("/proc/{pid}")).exists() || is_zombie(&pid), "it is ended");
    wait_until("the other groups are empty", || {
        corten_integration::reaper::reap();
        away.iter().all(|dir| fs::remove_dir(dir).is_ok() || !dir.exists())
    });
}

fn is_zombie(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.is_empty() || stat.contains(") Z ")
}

/// What was once killed by cgroup.kill must take processes again.
fn r10_a_group_that_was_there_can_be_used_again(t: &Test) {
    let b = groups_that_are_there(t);
    for _ in 0..2 {
        t.call(&["run", "-d", "-b", b.path(), &b.id]).ok();
        t.exec(&b.id, &[], &["exit", "0"]).ok();
        t.force(&b.id).ok();
    }
    for hierarchy in cgroups::hierarchies() {
        let group = hierarchy.mount.join(b.cgroup().trim_start_matches('/'));
        fs::remove_dir(group).expect("remove a cgroup: it must still be there, and empty");
    }
    t.nothing_left(&b);
}

fn groups_that_are_there(t: &Test) -> Bundle {
    t.skip_on_peers("this is about our own journal");
    let mut b = t.bundle();
    b.probe(&["sleep"]).namespace("cgroup", None).write();
    for hierarchy in cgroups::hierarchies() {
        let group = hierarchy.mount.join(b.cgroup().trim_start_matches('/'));
        fs::create_dir_all(group).expect("make a cgroup");
    }
    b
}
