//! Very many exits on the daemon's bad days; `make soak` is the long run.

use corten_integration::managers::{Verdict, check};
use corten_integration::shim::soak::{self, Plan};
use corten_integration::shim::{Case, World};
use corten_integration::shim_tests;

pub(crate) const TESTS: &[Case] = shim_tests![two_thousand_exits];

/// No exit is lost, out of order or told twice, whatever the daemon does and whatever pid it had.
fn two_thousand_exits(world: &World) -> Verdict {
    world.reference_deviates("it drops what it could not tell at once (H3)")?;
    let tally = soak::run(world, &Plan { exits: 2000, shims: 3, seed: std::process::id().into() })?;
    check(tally.violations() == 0, format!("{tally}"))?;
    check(tally.exits >= 2000 && tally.outages > 0 && tally.reused > 0, format!("{tally}"))
}
