//! R25 to R27: many commands at one time. One of many creates of an id wins; what any schedule of
//! commands on one id answers could also have been answered by some order of them, one by one.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use corten_integration::driver::{Running, patience};
use corten_integration::suite::Case;
use corten_integration::{Output, Test, cgroups, tests};
use serde_json::{Value, json};

use crate::subject::Subject;
use crate::tally::{self, Count, is_whole};

pub(crate) const TESTS: &[Case] = tests![
    r25_creates_of_one_id,
    r25_creates_of_different_ids,
    r26_random_schedules,
    r26_whoever_asks_while_it_is_deleted,
    r27_updates_race_the_exit,
];

fn sleeper(t: &Test) -> Subject<'_> {
    t.skip_on_peers("have no lock, or check and make in two steps");
    let mut bundle = t.bundle();
    bundle.probe(&["sleep"]).limit("pids", json!({"limit": 50}));
    Subject::of(t, bundle)
}

fn spawn(subject: &Subject<'_>, args: &[&str]) -> Running {
    subject.t.spawn(args)
}

/// One winner, and the others touch nothing.
fn r25_creates_of_one_id(t: &Test) {
    let (subject, count) = (sleeper(t), Count::begin());
    let args = ["create", "-b", subject.bundle.path(), subject.id()];
    for round in 0..if is_whole() { 20 } else { 2 } {
        tally::point(&subject, &format!("64 creates, round {round}"), || {
            let all: Vec<_> = (0..64).map(|_| spawn(&subject, &args)).collect();
            let ends: Vec<Output> = all.into_iter().map(Running::wait).collect();
            let (won, lost): (Vec<_>, Vec<_>) = ends.into_iter().partition(|out| out.code == 0);
            lost.into_iter().for_each(|out| drop(out.fails_with(1).says("already exists")));
            assert_eq!(won.len(), 1);
            subject.call(&["start", subject.id()]).ok();
            assert_eq!(subject.processes(), 1);
            subject.end("64 creates");
            Ok(())
        });
    }
    count.end(t, "creates of one id");
}

/// Each its own: all work, none waits for the others.
fn r25_creates_of_different_ids(t: &Test) {
    let count = Count::begin();
    let many = if is_whole() { 1000 } else { 40 };
    let subjects: Vec<_> = (0..many).map(|_| sleeper(t)).collect();
    let begun = Instant::now();
    for chunk in subjects.chunks(100) {
        let all: Vec<_> = chunk
            .iter()
            .map(|subject| spawn(subject, &["create", "-b", subject.bundle.path(), subject.id()]))
            .collect();
        for (subject, create) in chunk.iter().zip(all) {
            tally::point(subject, "one of many creates", || {
                create.wait().ok();
                Ok(())
            });
        }
        // The last first: the name of one may be the beginning of another's.
        chunk.iter().rev().for_each(|subject| subject.end("many creates"));
    }
    let took = begun.elapsed();
    assert!(took < patience(Duration::from_millis(200) * many as u32), "{many} took {took:?}");
    count.end(t, "creates of different ids");
}

/// What a container can be, for the model. After its init was killed it takes a moment to stop: from
/// outside it is then either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Model {
    Absent,
    Created,
    Running,
    Paused,
    Dying,
    Stopped,
}

const COMMANDS: [&str; 10] =
    ["create", "start", "kill", "delete", "force", "state", "exec", "pause", "resume", "update"];

/// What the command may answer in this state (whether it succeeds, and the status that it tells),
/// with the state after that.
fn answers(command: &str, model: Model) -> Vec<(bool, &'static str, Model)> {
    use Model::{Absent, Created, Dying, Paused, Running, Stopped};
    if model == Dying {
        // As a container that still runs, whatever it was, or one that has stopped.
        let mut both = answers(command, Stopped);
        for alive in [Created, Running, Paused] {
            let still = |(fine, said, after)| match (command, fine) {
                // It is to die: nothing starts, pauses or resumes it any more.
                ("delete" | "force", true) => (fine, said, after),
                _ => (fine, said, Dying),
            };
            both.extend(answers(command, alive).into_iter().map(still));
            // Too late, or overtaken by its death.
            both.push((false, "", Dying));
        }
        return both;
    }
    let no = vec![(false, "", model)];
    let to = |after| vec![(true, "", after)];
    match (command, model) {
        ("create", Absent) => to(Created),
        ("start", Created) => to(Running),
        ("kill", Created | Running | Paused) => to(Dying),
        ("delete", Created | Stopped) => to(Absent),
        ("force", _) => to(Absent),
        ("state", Created) => vec![(true, "created", model)],
        ("state", Running) => vec![(true, "running", model)],
        ("state", Paused) => vec![(true, "paused", model)],
        ("state", Stopped) => vec![(true, "stopped", model)],
        ("exec", Created | Running) | ("update", Created | Running | Paused) => to(model),
        ("pause", Created | Running) => to(Paused),
        // What was paused before it was started is created again.
        ("resume", Paused) => vec![(true, "", Running), (true, "", Created)],
        _ => no,
    }
}

/// What a command answered: its name, whether it succeeded, and the status, if it was asked for.
type Answer = (&'static str, bool, String);

/// What is between two states: a create that `delete --force` finds under way fails and takes back
/// what it has made, and whoever asks meanwhile is told "creating"; a delete ends the init first, and
/// whoever asks then is told "stopped"; with `--force` it also thaws it, and overtakes a pause.
fn is_between(answer: &Answer, all: &[&'static str]) -> bool {
    let overtaken = answer.0 == "create" && !answer.1 && all.contains(&"force");
    let deletes = all.contains(&"force") || all.contains(&"delete");
    overtaken
        || (answer.2 == "creating" && all.contains(&"create"))
        || (answer.2 == "stopped" && deletes)
        || (["paused", "running", "created"].contains(&&*answer.2) && all.contains(&"force"))
}

/// In which states the container may be after these answers, in any order.
fn orders(from: &BTreeSet<Model>, left: &[Answer]) -> BTreeSet<Model> {
    if left.is_empty() {
        return from.clone();
    }
    let mut after = BTreeSet::new();
    for (index, (command, fine, said)) in left.iter().enumerate() {
        // The same answer again would only give the same again.
        if left[..index].contains(&left[index]) {
            continue;
        }
        let next: BTreeSet<Model> = from
            .iter()
            .flat_map(|model| answers(command, *model))
            .filter(|(ok, status, _)| ok == fine && (status.is_empty() || status == said))
            .map(|(.., after)| after)
            .collect();
        if !next.is_empty() {
            let rest = [&left[..index], &left[index + 1..]].concat();
            after.extend(orders(&next, &rest));
        }
    }
    after
}

/// A number after another, the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % sides as u64) as usize
    }
}

/// Commands that say they can't now, because another one takes long, are not in the model: nothing
/// here takes long.
fn r26_random_schedules(t: &Test) {
    let (subject, count) = (sleeper(t), Count::begin());
    let mut dice = Dice(0x00C0_FFEE);
    let mut states = BTreeSet::from([Model::Absent]);
    for round in 0..if is_whole() { 10_000 } else { 120 } {
        tally::point(&subject, &format!("schedule {round}"), || {
            let commands: Vec<_> =
                (0..1 + dice.roll(5)).map(|_| COMMANDS[dice.roll(COMMANDS.len())]).collect();
            let (answers, words) =
                at_once(&subject, &commands).map_err(|words| format!("{commands:?}: {words}"))?;
            let mut answers = answers;
            answers.retain(|answer| !is_between(answer, &commands));
            let mut after = orders(&states, &answers);
            // A kill needs no lock, so it may also have ended what was being created.
            if words.contains("died before it was ready") && commands.contains(&"kill") {
                answers.retain(|(command, fine, status)| {
                    (*command != "create" || *fine)
                        && (*command != "kill" || !fine)
                        && status != "stopped"
                });
                after.extend(orders(&states, &answers));
            }
            // What `--force` has ended, while it waits for the lock, anybody may delete; what it has
            // thawed for that, anybody may pause once more.
            if commands.contains(&"force") {
                answers.retain(|(command, fine, _)| *command != "delete" || !fine);
                after.extend(orders(&states, &answers));
                answers.retain(|(command, fine, _)| *command != "pause" || !fine);
                after.extend(orders(&states, &answers));
            }
            if after.is_empty() {
                let words = format!("no order gives {answers:?} from {states:?}: {words}");
                states = BTreeSet::from([Model::Absent]);
                return Err(words);
            }
            states = after;
            Ok(())
        });
    }
    subject.end("random schedules");
    count.end(t, "random schedules");
}

/// What they answered, and what they said of it.
fn at_once(
    subject: &Subject<'_>,
    commands: &[&'static str],
) -> Result<(Vec<Answer>, String), String> {
    let (id, bundle) = (subject.id(), subject.bundle.path());
    let all: Vec<_> = commands
        .iter()
        .map(|command| {
            let args: Vec<&str> = match *command {
                "create" => vec!["create", "-b", bundle, id],
                "kill" => vec!["kill", id, "KILL"],
                "force" => vec!["delete", "--force", id],
                "exec" => vec!["exec", id, "/probe", "exit", "0"],
                "update" if cgroups::has("pids") => vec!["update", "--pids-limit", "40", id],
                other => vec![other, id],
            };
            (*command, spawn(subject, &args))
        })
        .collect();
    let begun = Instant::now();
    let (mut answers, mut words) = (Vec::new(), String::new());
    // A pause that comes in the middle of an exec holds it up until the resume. So it is waited for
    // last, and a paused container is resumed for it.
    let (execs, others): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|(command, _)| *command == "exec");
    let paused = |answers: &[Answer]| answers.iter().any(|it| it.0 == "pause" && it.1);
    for (command, running) in others.into_iter().chain(execs) {
        if command == "exec" && paused(&answers) && subject.status() == "paused" {
            let resumed = subject.call(&["resume", id]);
            answers.push(("resume", resumed.code == 0, String::new()));
        }
        let out = running.wait();
        if out.stderr.contains("internal error") || ![0, 1, 137, 255].contains(&out.code) {
            return Err(out.to_string());
        }
        let state: Value = serde_json::from_str(&out.stdout).unwrap_or_default();
        let status = state["status"].as_str().unwrap_or_default().to_owned();
        words.push_str(&out.stderr);
        // Its process may be killed with the container's.
        answers.push((command, out.code == 0, status));
    }
    let took = begun.elapsed();
    if took > patience(Duration::from_secs(10)) {
        return Err(format!("{answers:?} took {took:?}: {words}"));
    }
    Ok((answers, words))
}

/// Who asks for a container while it is deleted hears of it, or that it does not exist: never of our
/// files.
fn r26_whoever_asks_while_it_is_deleted(t: &Test) {
    let (subject, count) = (sleeper(t), Count::begin());
    for round in 0..if is_whole() { 1000 } else { 40 } {
        tally::point(&subject, &format!("asked in delete {round}"), || {
            let id = subject.id();
            subject.call(&["create", "-b", subject.bundle.path(), id]).ok();
            let delete = spawn(&subject, &["delete", "--force", id]);
            let words =
                ["state", "kill", "ps", "state", "exec", "list", "state", "pause"].map(|verb| {
                    let more: &[&str] = if verb == "exec" { &["/probe", "exit", "0"] } else { &[] };
                    let it: &[&str] = if verb == "list" { &[] } else { &[id] };
                    subject.call(&[&[verb], it, more].concat()).stderr
                });
            delete.wait().ok();
            match words.iter().find(|words| words.contains("state.json")) {
                Some(words) => Err(words.clone()),
                None => Ok(()),
            }
        });
    }
    subject.end("asked in delete");
    count.end(t, "questions while it is deleted");
}

/// An update that races the container's end: it succeeds, or says why, and delete works.
fn r27_updates_race_the_exit(t: &Test) {
    t.needs_controller("pids");
    let (subject, count) = (sleeper(t), Count::begin());
    for round in 0..if is_whole() { 300 } else { 10 } {
        tally::point(&subject, &format!("update and exit {round}"), || {
            let id = subject.id();
            subject.call(&["run", "-d", "-b", subject.bundle.path(), id]).ok();
            let update = spawn(&subject, &["update", "--memory", "32M", "--pids-limit", "40", id]);
            let kill = spawn(&subject, &["kill", id, "KILL"]);
            let (update, kill) = (update.wait(), kill.wait());
            kill.ok();
            if update.code != 0 {
                update.fails_with(1);
            }
            subject.end("update and exit");
            Ok(())
        });
    }
    count.end(t, "updates that race the exit");
}
