//! From test functions to a test program: runs them one after the other (the oracle needs that),
//! turns panics into failures with the commands that led there, and skips into "ignored".

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use crate::driver::{Skip, Test};

/// A test and its name, as [`tests!`] makes them.
pub type Case = (&'static str, fn(&Test));

/// Lists test functions for [`suite`].
#[macro_export]
macro_rules! tests {
    ($($name:ident),* $(,)?) => { &[$((stringify!($name), $name as fn(&$crate::Test))),*] };
}

thread_local! {
    static LAST_PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// The `main` of a suite.
pub fn suite(cases: &[Case]) -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    if arguments.list {
        return libtest_mimic::run(&arguments, trials(cases)).exit_code();
    }
    if !nix::unistd::geteuid().is_root() {
        eprintln!("the integration suites must be run as root");
        return ExitCode::FAILURE;
    }
    crate::oracle::adopt_orphans();
    std::panic::set_hook(Box::new(|info| {
        LAST_PANIC.with(|last| *last.borrow_mut() = info.to_string());
    }));
    let conclusion = libtest_mimic::run(&arguments, trials(cases));
    crate::cgroups::remove_parent();
    conclusion.exit_code()
}

fn trials(cases: &[Case]) -> Vec<Trial> {
    cases.iter().map(|(name, run)| trial(name, *run)).collect()
}

fn trial(name: &'static str, run: fn(&Test)) -> Trial {
    Trial::ignorable_test(name, move || {
        let test = Test::new();
        let result = catch_unwind(AssertUnwindSafe(|| run(&test)));
        let log = test.log();
        let leaks = test.finish();
        let mut words = match result {
            Ok(()) if leaks.is_empty() => return Ok(Completion::Completed),
            Ok(()) => "the test passed, but something was left behind".to_owned(),
            Err(payload) => match payload.downcast::<Skip>() {
                Ok(skip) if leaks.is_empty() => {
                    return Ok(Completion::ignored_with(skip.0));
                }
                Ok(_) => "the test was skipped, but something was left behind".to_owned(),
                Err(_) => LAST_PANIC.with(|last| last.borrow().clone()),
            },
        };
        for leak in leaks {
            words.push_str(&format!("\n  leak: {leak}"));
        }
        words.push_str("\n  commands:\n");
        words.push_str(&log);
        Err(Failed::from(words))
    })
}
