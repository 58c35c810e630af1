//! `config.json` to the plan, the process of exec, the journal, what create and init say.

use std::path::Path;

use oci_spec::runtime::{Process, Spec};

use crate::create::Request;
use crate::error::Error;
use crate::plan::Plan;
use crate::process;
use crate::spec::{self, validate};
use crate::state::State;
use crate::sync::Report;

use super::json_is_stable;

/// A mistake in a config is told with its place, in one line.
fn check_words(error: &Error) {
    assert!(
        matches!(error.root(), Error::Config { .. } | Error::Unsupported(_) | Error::Failed(_)),
        "{error:?}"
    );
    assert!(!error.to_string().contains('\n'), "{error}");
    if let Error::Config { path, .. } = error.root() {
        assert!(!path.is_empty(), "{error}");
    }
}

/// A config that is taken is the same when it is written and read again; so are its hooks when
/// they are read alone; planning it fails with a mistake of the config or not at all.
pub fn config(data: &[u8]) {
    let spec = match spec::parse(data) {
        Ok(spec) => spec,
        Err(error) => return check_words(&error),
    };
    assert_eq!(&spec::parse_hooks(data).unwrap(), spec.hooks());
    let again = spec::parse(&serde_json::to_vec(&spec).unwrap()).unwrap();
    assert_eq!(spec, again);
    // Maps have no order, so of two mistakes in one either is told.
    let (one, other) = (plan(&spec), plan(&again));
    assert_eq!(one.is_ok(), other.is_ok(), "{one:?} and {other:?}");
}

fn plan(spec: &Spec) -> Result<Plan, Error> {
    let request = Request { id: "fuzzed".to_owned(), cgroups: true, ..Request::default() };
    validate::spec(spec)
        .and_then(|()| Plan::new(spec, Path::new("/bundle"), &request))
        .inspect_err(check_words)
        .inspect(|plan| assert!(!plan.process.args.is_empty()))
}

/// As [`config`], for the process of `exec`.
pub fn process(data: &[u8]) {
    let from = Path::new("process.json");
    let parsed: Process = match spec::parse_process(data, from) {
        Ok(parsed) => parsed,
        Err(error) => return check_words(&error),
    };
    let again = spec::parse_process(&serde_json::to_vec(&parsed).unwrap(), from).unwrap();
    assert_eq!(parsed, again);
    match process::Plan::new(&parsed, "") {
        Ok(plan) => {
            // Nobody becomes root by an id that means "unchanged".
            let identity = plan.identity;
            assert!(identity.uid != u32::MAX && identity.gid != u32::MAX);
            assert!(!identity.groups.contains(&u32::MAX));
            assert!(!plan.args.is_empty());
        }
        Err(error) => check_words(&error),
    }
}

/// A journal that is understood is the same when it is written and read again.
pub fn state(data: &[u8]) {
    if let Some(state) = json_is_stable::<State>(data) {
        drop(crate::cgroup::Cgroup::open(
            &state.cgroup.unwrap_or_else(crate::cgroup::Record::none),
        ));
    }
}

/// What one side says the other understands, however long it is.
pub fn sync(data: &[u8]) {
    let Ok(report) = Report::read(data) else { return };
    let message = report.written();
    assert!(message.len() <= crate::sync::MAX + 1);
    let again = Report::read(&message).unwrap();
    match (&report, &again) {
        // The end of a text that is too long is lost, and a letter that is cut in two is another.
        (Report::Failed(one), Report::Failed(other)) if one.len() > crate::sync::MAX - 4 => {
            assert_eq!(one.as_bytes()[..1000], other.as_bytes()[..1000]);
        }
        (Report::Log(one), Report::Log(other)) if message.len() > crate::sync::MAX / 8 => {
            assert!(one.level() == other.level());
        }
        _ => assert_eq!(format!("{report:?}"), format!("{again:?}")),
    }
}
