//! `floor`: what the kernel itself costs for the life of a Docker-like container.
//!
//! - `floor life --rootfs DIR [--name NAME] [--join tasks|procs] [--repeat N] [--pause MS]`
//!   makes a container and ends it: groups and limits in every version 1 hierarchy, five
//!   namespaces, the bundle's mounts, devices, masks, pivot, capabilities, a seccomp program,
//!   a gate, `/bin/true`, and the removal of it all. It reads no configuration, keeps no state
//!   and checks nothing, so no runtime can do less. Prints one JSON line with the
//!   microseconds of each phase (medians over the repeats).
//! - `floor noop` ends at once: the price of starting any static program.
//!
//! `--join tasks` lets the new process write `0` into each `tasks` file: the kernel then skips
//! the lock that a move of another process takes (its first taker waits for an RCU grace
//! period, 5 to 10 ms). `--join procs` has the parent write the pid to `cgroup.procs`, as
//! runtimes commonly do.
#![allow(unsafe_code)]

mod cgroups;
mod filter;
mod kernel;
mod life;

use std::ffi::CString;
use std::process::ExitCode;

use cgroups::Join;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("noop") => return ExitCode::SUCCESS,
        Some("life") => {}
        _ => {
            eprintln!(
                "usage: floor noop | floor life --rootfs DIR [--name NAME] [--join tasks|procs] [--repeat N] [--pause MS]"
            );
            return ExitCode::from(2);
        }
    }
    let option = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1).cloned()
    };
    let number = |name: &str, default: u64| {
        option(name).and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let (Ok(rootfs), Ok(name)) = (
        CString::new(option("--rootfs").unwrap_or_else(|| "rootfs".to_owned())),
        CString::new(option("--name").unwrap_or_else(|| "floor".to_owned())),
    ) else {
        return ExitCode::from(2);
    };
    let join = if option("--join").as_deref() == Some("procs") { Join::Procs } else { Join::Tasks };
    let repeat = number("--repeat", 1).max(1) as usize;
    let pause = std::time::Duration::from_millis(number("--pause", 0));

    let ground = life::Ground::new(rootfs, name, join);
    let mut samples: Vec<Vec<f64>> = vec![Vec::with_capacity(repeat); life::PHASES.len()];
    for _ in 0..repeat {
        for (all, one) in samples.iter_mut().zip(life::life(&ground)) {
            all.push(one);
        }
        std::thread::sleep(pause);
    }
    let fields: Vec<String> = life::PHASES
        .iter()
        .zip(&mut samples)
        .map(|(name, all)| {
            all.sort_by(f64::total_cmp);
            format!("\"{name}\":{:.0}", all[all.len() / 2])
        })
        .collect();
    println!("{{{}}}", fields.join(","));
    ExitCode::SUCCESS
}
