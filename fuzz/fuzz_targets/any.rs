//! All targets in one program, which costs one build instead of 25: `CORTEN_FUZZ` names the one.
#![no_main]

use std::sync::LazyLock;

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = std::env::var("CORTEN_FUZZ").unwrap_or_default();
    let all = || corten::fuzz::TARGETS.iter().chain(containerd_shim_corten::fuzz::TARGETS);
    let Some((_, target)) = all().find(|(known, _)| *known == name) else {
        let known: Vec<&str> = all().map(|(name, _)| *name).collect();
        eprintln!("CORTEN_FUZZ={name} is not one of: {}", known.join(" "));
        std::process::exit(2);
    };
    *target
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| corten_fuzz::bounded(*TARGET, data));
