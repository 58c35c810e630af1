//! Tests that change what a thread can't change back run in a forked child.

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

thread_local! {
    static IN_CHILD: Cell<bool> = const { Cell::new(false) };
    static LAST_PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Keeps a child's panic for its parent. Set before any fork: a lock that another thread holds
/// while we fork stays locked in the child for ever, the hook's and the backtrace's included.
fn keep_panics_of_children() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |panic| {
            if IN_CHILD.get() {
                LAST_PANIC.with(|last| last.replace(panic.to_string()));
            } else {
                before(panic);
            }
        }));
    });
}

/// Runs `test` in a child process; a panic there is a panic here.
pub(crate) fn in_child(test: impl FnOnce()) {
    keep_panics_of_children();
    let (mut words, mut pen) = std::io::pipe().expect("pipe");
    // SAFETY: glibc's fork puts its own locks in order in the child, which then only runs `test`
    // and exits without unwinding into the test harness.
    match unsafe { fork() }.expect("fork") {
        ForkResult::Child => {
            IN_CHILD.set(true);
            let failed = catch_unwind(AssertUnwindSafe(test)).is_err();
            // A test that closed the pipe still fails, by its exit code.
            let _told = LAST_PANIC.with(|last| pen.write_all(last.borrow().as_bytes()));
            // SAFETY: no destructor or atexit handler of the harness may run twice.
            unsafe { libc::_exit(i32::from(failed)) }
        }
        ForkResult::Parent { child } => {
            drop(pen);
            let mut text = String::new();
            words.read_to_string(&mut text).expect("read the child's panic");
            let status = waitpid(child, None).expect("waitpid");
            assert_eq!(status, WaitStatus::Exited(child, 0), "in the forked child: {text}");
        }
    }
}
