//! How many points were tried and what came of them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use corten_integration::Test;

use crate::subject::Subject;

static TRIED: AtomicUsize = AtomicUsize::new(0);
static LEAKS: AtomicUsize = AtomicUsize::new(0);
/// Whether a [`Count`] will fail its test with what is noted.
static COUNTED: AtomicBool = AtomicBool::new(false);
static FAILURES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// The words of a failure without the place in the test's source.
fn words(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().cloned();
    text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "a panic".to_owned())
}

/// Tries one point: `trial` panics or returns what is wrong, and afterwards nothing may be left.
pub(crate) fn point(subject: &Subject<'_>, name: &str, trial: impl FnOnce() -> Result<(), String>) {
    if std::env::var("CORTEN_FAULTS_ONLY").is_ok_and(|words| !name.contains(&words)) {
        return;
    }
    TRIED.fetch_add(1, Ordering::Relaxed);
    let result = catch_unwind(AssertUnwindSafe(trial)).unwrap_or_else(|e| Err(words(&*e)));
    if let Err(why) = result {
        fail(format!("{name}: {why}"));
        subject.abandon();
    }
}

/// A point at which something was left behind. In a test without points that is its failure.
#[track_caller]
pub(crate) fn leak(name: &str, left: &[String]) {
    LEAKS.fetch_add(1, Ordering::Relaxed);
    let line = format!("{name}: left behind: {}", left.join("; "));
    assert!(COUNTED.load(Ordering::Relaxed), "{line}");
    fail(line);
}

fn fail(line: String) {
    if is_whole() {
        eprintln!("faults: {line}");
    }
    FAILURES.lock().expect("nobody panics with it").push(line);
}

/// Points of one test; whatever failed since then fails it.
#[derive(Debug)]
pub(crate) struct Count {
    tried: usize,
    failed: usize,
    begun: Instant,
}

impl Count {
    pub(crate) fn begin() -> Self {
        let failed = FAILURES.lock().expect("nobody panics with it").len();
        COUNTED.store(true, Ordering::Relaxed);
        Self { tried: TRIED.load(Ordering::Relaxed), failed, begun: Instant::now() }
    }

    /// Ends the test.
    #[track_caller]
    pub(crate) fn end(self, t: &Test, what: &str) {
        let tried = TRIED.load(Ordering::Relaxed) - self.tried;
        if is_whole() {
            let seconds = self.begun.elapsed().as_secs();
            eprintln!("faults: {what}: {tried} points in {seconds} s ({})", t.tag);
        }
        assert!(tried > 0, "{what}: no point was tried");
        let failures = FAILURES.lock().expect("nobody panics with it").split_off(self.failed);
        let count = failures.len();
        FAILED.fetch_add(count, Ordering::Relaxed);
        let shown: Vec<_> = failures.into_iter().take(40).collect();
        assert!(shown.is_empty(), "{what}: {count} of {tried} failed:\n{}", shown.join("\n"));
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        COUNTED.store(false, Ordering::Relaxed);
    }
}

static FAILED: AtomicUsize = AtomicUsize::new(0);

/// The line that `make faults` ends with.
pub(crate) fn print() {
    let tried = TRIED.load(Ordering::Relaxed);
    if tried > 0 {
        let failed = FAILED.load(Ordering::Relaxed) + FAILURES.lock().map_or(0, |it| it.len());
        let leaks = LEAKS.load(Ordering::Relaxed);
        println!("{tried} points tried, {failed} failures, {leaks} leaks");
    }
}

/// Whether every point is wanted.
pub(crate) fn is_whole() -> bool {
    step() == Some(1)
}

fn step() -> Option<usize> {
    std::env::var("CORTEN_FAULTS_STEP").ok().and_then(|step| step.parse().ok())
}

/// A part of the points, evenly: `count` of them, or every nth with `CORTEN_FAULTS_STEP=n`.
pub(crate) fn sample<T>(points: Vec<T>, count: usize) -> impl Iterator<Item = T> {
    let step = step().unwrap_or(points.len().div_ceil(count.max(1))).max(1);
    points.into_iter().step_by(step)
}
