//! The commands, where each begins, and what must be true after it: when it succeeded, when it said
//! that it failed, and when it was killed.

use std::fs;

use serde_json::Value;

use crate::subject::{Life, Subject};
use crate::tracer::{self, Act, Point, Traced};

/// A command that is disturbed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Create,
    RunDetached,
    Start,
    Exec,
    ExecDetached,
    Kill,
    Pause,
    Resume,
    Update,
    Delete,
    /// A delete of a container that runs.
    Refused,
    Force,
    State,
    List,
    Ps,
}

/// The limit that `update` sets; before it is 50.
const NEW_LIMIT: &str = "40";

impl Verb {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::RunDetached => "run --detach",
            Self::Start => "start",
            Self::Exec => "exec",
            Self::ExecDetached => "exec --detach",
            Self::Kill => "kill",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Refused => "delete of a running container",
            Self::Force => "delete --force",
            Self::State => "state",
            Self::List => "list",
            Self::Ps => "ps",
        }
    }

    pub(crate) fn begins(self) -> Life {
        match self {
            Self::Create | Self::RunDetached => Life::Nothing,
            Self::Start => Life::Created,
            Self::Delete => Life::Stopped,
            Self::Resume => Life::Paused,
            _ => Life::Running,
        }
    }

    /// Whether the next command can't find the container where this one did.
    pub(crate) fn changes(self) -> bool {
        !matches!(self, Self::Exec | Self::Refused | Self::State | Self::List | Self::Ps)
    }

    fn args<'s>(self, subject: &'s Subject<'_>) -> Vec<&'s str> {
        let (id, bundle) = (subject.id(), subject.bundle.path());
        match self {
            Self::Create => vec!["create", "-b", bundle, id],
            Self::RunDetached => vec!["run", "-d", "-b", bundle, id],
            Self::Start => vec!["start", id],
            Self::Exec => vec!["exec", id, "/probe", "report"],
            Self::ExecDetached => vec!["exec", "-d", id, "/probe", "report", ";", "sleep"],
            Self::Kill => vec!["kill", id, "KILL"],
            Self::Pause => vec!["pause", id],
            Self::Resume => vec!["resume", id],
            Self::Update => vec!["update", "--pids-limit", NEW_LIMIT, "--memory", "32M", id],
            Self::Delete | Self::Refused => vec!["delete", id],
            Self::Force => vec!["delete", "--force", id],
            Self::State => vec!["state", id],
            Self::List => vec!["list", "--format", "json"],
            Self::Ps => vec!["ps", "--format", "json", id],
        }
    }

    /// Every point of an undisturbed command, process by process.
    pub(crate) fn points(self, subject: &Subject<'_>) -> Vec<Point> {
        subject.reach(self.begins());
        let traced = self.disturbed(subject, None);
        assert_eq!(traced.output.code != 0, self == Self::Refused, "{}", traced.output);
        subject.end(self.name());
        let mut points: Vec<Point> = Vec::new();
        for (process, calls) in traced.calls.iter().enumerate() {
            for (at, name) in calls.iter().enumerate() {
                let nth = calls[..at].iter().filter(|before| *before == name).count();
                points.push(Point { process, name: *name, nth });
            }
        }
        points
    }

    /// Carries it out, disturbed, on the container as it is.
    pub(crate) fn disturbed(self, subject: &Subject<'_>, fault: Option<(Point, Act)>) -> Traced {
        // What it starts goes on in the init.
        let init = (self == Self::Start).then(|| subject.pid());
        let traced = tracer::run(subject.t, &self.args(subject), init, fault);
        if matches!(self, Self::Create | Self::RunDetached) {
            subject.made_by(&traced.out);
        }
        traced
    }

    /// It said that it succeeded: then it has.
    pub(crate) fn has_succeeded(
        self,
        subject: &Subject<'_>,
        traced: &Traced,
    ) -> Result<(), String> {
        let init = traced.point.is_some_and(|point| point.process > 0);
        match self {
            Self::Create => {
                let created = subject.status() == "created";
                let out = subject.call(&["start", subject.id()]);
                match out.code {
                    0 if created => subject.is_right(),
                    // Told to go on, the init has found that it can't, too late for the create to
                    // hear of it.
                    1 if init => {
                        subject.wait("stopped");
                        Ok(())
                    }
                    _ => Err(format!("created: {created}, then {out}")),
                }
            }
            Self::RunDetached | Self::Start => {
                status(subject, "running")?;
                subject.is_right()
            }
            Self::Exec => subject.is_right_exec(&traced.output.stdout),
            Self::ExecDetached => {
                crate::subject::eventually("the exec has reported", || {
                    fs::read_to_string(&traced.out).is_ok_and(|text| text.ends_with('\n'))
                });
                subject.is_right_exec(&fs::read_to_string(&traced.out).unwrap_or_default())?;
                same("processes", &subject.processes(), &2)
            }
            Self::Kill => {
                subject.wait("stopped");
                Ok(())
            }
            Self::Pause => frozen(subject, true),
            Self::Resume => frozen(subject, false),
            Self::Update => limit(subject, NEW_LIMIT),
            Self::Delete | Self::Force => {
                subject.is_gone(self.name());
                Ok(())
            }
            Self::Refused => Err("it was deleted".to_owned()),
            Self::State => same("status", &json(traced)["status"], &Value::from("running")),
            // One whose journal can't be read is a warning: the others are listed all the same.
            Self::List if traced.output.stderr.contains(subject.id()) => Ok(()),
            Self::List => same("id", &json(traced)[0]["id"], &Value::from(subject.id())),
            Self::Ps => same("pids", &json(traced).as_array().map_or(0, Vec::len), &1),
        }
    }

    /// It said that it failed: then it has changed nothing, or what it has changed can be told.
    pub(crate) fn has_failed(self, subject: &Subject<'_>, name: &str) -> Result<(), String> {
        match self {
            Self::Create | Self::RunDetached => {
                subject.is_gone(name);
                Ok(())
            }
            Self::Start => started_once(subject),
            Self::Exec | Self::ExecDetached => {
                status(subject, "running")?;
                crate::subject::eventually("the exec's process is gone", || {
                    corten_integration::reaper::reap();
                    subject.processes() == 1
                });
                Ok(())
            }
            Self::Pause => frozen(subject, false),
            Self::Update => limit(subject, "50"),
            Self::Resume => settled(subject),
            Self::Kill | Self::Delete | Self::Force => Ok(()),
            Self::Refused | Self::State | Self::List | Self::Ps => status(subject, "running"),
        }
    }

    /// It was killed: whatever it has done can be told and goes on from there.
    pub(crate) fn was_killed(self, subject: &Subject<'_>) -> Result<(), String> {
        match self {
            Self::Start => started_once(subject),
            Self::Exec
            | Self::ExecDetached
            | Self::Refused
            | Self::State
            | Self::List
            | Self::Ps => status(subject, "running"),
            Self::Pause | Self::Resume | Self::Update | Self::Kill => settled(subject),
            _ => Ok(()),
        }
    }
}

/// Still created, and then it can be started; or let in already, and then it runs, or has ended.
/// Whichever it is, it is started once.
fn started_once(subject: &Subject<'_>) -> Result<(), String> {
    if subject.status() == "created" {
        let again = subject.call(&["start", subject.id()]);
        let late = again.stderr.contains("already running") || again.stderr.contains("has stopped");
        if again.code != 0 && !late {
            return Err(format!("again: {again}"));
        }
    }
    crate::subject::eventually("it is not created any more", || subject.status() != "created");
    match subject.status().as_str() {
        "running" => subject.is_right(),
        "stopped" => Ok(()),
        other => Err(format!("it is {other:?} afterwards")),
    }
}

fn json(traced: &Traced) -> Value {
    serde_json::from_str(&traced.output.stdout).unwrap_or_default()
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: &T, wanted: &T) -> Result<(), String> {
    if found == wanted { Ok(()) } else { Err(format!("{what}: {found:?} is not {wanted:?}")) }
}

fn status(subject: &Subject<'_>, wanted: &str) -> Result<(), String> {
    same("status", &subject.status().as_str(), &wanted)
}

/// The group is frozen or not, and `state` says so.
fn frozen(subject: &Subject<'_>, wanted: bool) -> Result<(), String> {
    same("frozen", &subject.bundle.is_frozen(), &wanted)?;
    status(subject, if wanted { "paused" } else { "running" })
}

/// Frozen only if `state` says so. It may be on its way to its end.
fn settled(subject: &Subject<'_>) -> Result<(), String> {
    let now = subject.status();
    let frozen = now != "stopped" && subject.bundle.is_frozen();
    if frozen == (now == "paused") || subject.status() == "stopped" {
        return Ok(());
    }
    Err(format!("frozen: {frozen}, but it is {now:?}"))
}

/// The limit in force is the one that the container's record says.
fn limit(subject: &Subject<'_>, wanted: &str) -> Result<(), String> {
    same("pids.max", &subject.bundle.cgroup_file("pids", "pids.max").as_str(), &wanted)?;
    let record = subject.t.root().join(subject.id()).join("config.json");
    let record: Value =
        serde_json::from_slice(&fs::read(record).unwrap_or_default()).unwrap_or_default();
    same("its record", &record["linux"]["resources"]["pids"]["limit"].to_string().as_str(), &wanted)
}
