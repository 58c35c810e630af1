//! What the tests of bounds of both crates measure with: one of them in a program, since the memory of
//! the whole process is counted.

use std::time::{Duration, Instant};

use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// In a debug build, on a machine that does other things too.
const TIME: Duration = Duration::from_secs(20);

/// Fails if `run` takes more than `most` times the size of `input` in memory, or too long.
pub fn measure<I: AsRef<[u8]> + ?Sized>(what: &str, input: &I, most: usize, run: impl FnOnce(&I)) {
    ALLOCATOR.reset_peak_usage();
    let (before, begun) = (ALLOCATOR.current_usage(), Instant::now());
    run(input);
    let used = ALLOCATOR.peak_usage().saturating_sub(before);
    let (size, took) = (input.as_ref().len(), begun.elapsed());
    println!("{what}: {size} bytes, {} times that in memory, {took:.1?}", used / size);
    assert!(used <= most * size, "{what}: {used} bytes of memory for {size} of input");
    assert!(took < TIME, "{what}: {took:?}");
}
