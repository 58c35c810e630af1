//! Memory, swap and huge pages.

use corten_integration::suite::Case;
use corten_integration::{Flavour, Test, tests};
use serde_json::json;

use crate::{created, need, number, v1};

pub(crate) const TESTS: &[Case] = tests![
    memory_limit_and_reservation,
    memory_swap,
    memory_swap_below_the_limit_is_refused,
    memory_unlimited,
    memory_swappiness,
    memory_oom_killer,
    memory_limit_is_enforced,
    memory_too_small_for_the_init_says_so,
    hugetlb_limit,
];

/// memory.limit and memory.reservation.
fn memory_limit_and_reservation(t: &Test) {
    v1(t);
    let b = created(t, &[("memory", json!({"limit": 64 << 20, "reservation": 32 << 20}))]);
    assert_eq!(number(&b, "memory", "memory.limit_in_bytes"), 64 << 20);
    assert_eq!(number(&b, "memory", "memory.soft_limit_in_bytes"), 32 << 20);
}

/// memory.swap is memory and swap together.
fn memory_swap(t: &Test) {
    v1(t);
    need(t, "memory", "memory.memsw.limit_in_bytes");
    let b = created(t, &[("memory", json!({"limit": 64 << 20, "swap": 96 << 20}))]);
    assert_eq!(number(&b, "memory", "memory.memsw.limit_in_bytes"), 96 << 20);
    assert_eq!(number(&b, "memory", "memory.limit_in_bytes"), 64 << 20);
}

/// Less swap-and-memory than memory is impossible.
fn memory_swap_below_the_limit_is_refused(t: &Test) {
    need(t, "memory", "memory.memsw.limit_in_bytes");
    let mut b = t.bundle();
    b.set("linux.resources.memory", json!({"limit": 64 << 20, "swap": 32 << 20}));
    t.create_fails(&b);
}

/// -1 is unlimited.
fn memory_unlimited(t: &Test) {
    v1(t);
    let b = created(t, &[("memory", json!({"limit": -1}))]);
    assert!(number(&b, "memory", "memory.limit_in_bytes") > 1 << 60);
}

/// memory.swappiness is written where the kernel has it, or the create fails.
fn memory_swappiness(t: &Test) {
    v1(t);
    need(t, "memory", "memory.swappiness");
    let b = created(t, &[("memory", json!({"swappiness": 10}))]);
    assert_eq!(number(&b, "memory", "memory.swappiness"), 10);
    let mut b = t.bundle();
    b.set("linux.resources.memory", json!({"swappiness": 1000}));
    t.create_fails(&b).says("swappiness");
}

/// disableOOMKiller is the v1 control file.
fn memory_oom_killer(t: &Test) {
    v1(t);
    need(t, "memory", "memory.oom_control");
    let b = created(t, &[("memory", json!({"limit": 64 << 20, "disableOOMKiller": true}))]);
    assert!(b.cgroup_file("memory", "memory.oom_control").contains("oom_kill_disable 1"));
}

/// A child that takes more than the limit is killed, the container lives on.
fn memory_limit_is_enforced(t: &Test) {
    let mut b = t.bundle();
    b.set("linux.resources.memory", json!({"limit": 32 << 20, "swap": 32 << 20}));
    b.probe(&["alloc-fork", &(128 << 20).to_string(), ";", "print", "alive"]);
    let out = t.run(&b).ok();
    assert_eq!(out.fact(0)["died_of"], 9);
    assert_eq!(out.fact(1), "alive");
}

/// A limit below what the init needs is an error of create or start, not a hang.
fn memory_too_small_for_the_init_says_so(t: &Test) {
    v1(t);
    let mut b = t.bundle();
    b.set("linux.resources.memory", json!({"limit": 4096 * 10}));
    t.run_fails(&b);
}

/// Huge pages of one size.
fn hugetlb_limit(t: &Test) {
    v1(t);
    need(t, "hugetlb", "hugetlb.2MB.limit_in_bytes");
    let b = created(t, &[("hugepageLimits", json!([{"pageSize": "2MB", "limit": 4 << 20}]))]);
    assert_eq!(number(&b, "hugetlb", "hugetlb.2MB.limit_in_bytes"), 4 << 20);
    if t.flavour == Flavour::Corten {
        assert_eq!(number(&b, "hugetlb", "hugetlb.2MB.rsvd.limit_in_bytes"), 4 << 20);
    }
    let mut b = t.bundle();
    b.set("linux.resources.hugepageLimits", json!([{"pageSize": "3MB", "limit": 1}]));
    t.create_fails(&b);
}
