//! What libFuzzer does not watch by itself: the memory that an input costs.

use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Bytes for each byte of input. Parsed JSON is the dearest: `{}` may become a structure of some
/// hundred bytes.
const FACTOR: usize = 16;
/// Whatever the input: a compiled seccomp profile, default devices and mounts, messages of errors.
const FLOOR: usize = 1 << 20;

/// Runs a target with an eye on its memory.
pub fn bounded(target: fn(&[u8]), data: &[u8]) {
    ALLOCATOR.reset_peak_usage();
    let before = ALLOCATOR.current_usage();
    target(data);
    let used = ALLOCATOR.peak_usage().saturating_sub(before);
    let most = FLOOR + FACTOR * data.len();
    assert!(used <= most, "{used} bytes of memory for {} of input", data.len());
}

/// A program that fuzzes one function.
#[macro_export]
macro_rules! target {
    ($function:path) => {
        libfuzzer_sys::fuzz_target!(|data: &[u8]| $crate::bounded($function, data));
    };
}
