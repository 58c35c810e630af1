//! When the process runs, where, and how its I/O is ordered.
//!
//! Promise: policy, nice, priority, flags, I/O class and CPUs exactly as asked, read back.
//!
//! Order: [`Scheduler::apply`] and [`IoPriority::apply`] in the process itself while it still has
//! `CAP_SYS_NICE`. [`set_affinity`] by the parent: `initial` before the cgroup is joined, `final`
//! after; without a `final`, [`reset_affinity`], so that the container gets all CPUs of its cpuset
//! and not the ones that the caller happened to be bound to.

use nix::errno::Errno;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use oci_spec::runtime::{
    ExecCPUAffinity, IOPriorityClass, LinuxIOPriority, LinuxSchedulerFlag, LinuxSchedulerPolicy,
    Scheduler as OciScheduler,
};

use super::json_path;
use crate::error::{Doing, Error, Result};
use crate::sys::sched::{self, SchedAttr};

/// `SCHED_FLAG_RESET_ON_FORK`.
const RESET_ON_FORK: u64 = 0x01;
/// `SCHED_FLAG_KEEP_POLICY` and `SCHED_FLAG_KEEP_PARAMS`: what is kept is not what was asked.
const KEEP: u64 = 0x18;

/// A CPU policy with its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scheduler(SchedAttr);

impl Scheduler {
    /// Validates the value at the JSON path `path` (`process.scheduler`).
    ///
    /// # Errors
    /// A config error for a parameter that the policy does not have.
    pub fn new(scheduler: &OciScheduler, path: &str) -> Result<Self> {
        use LinuxSchedulerPolicy::{
            SchedBatch, SchedDeadline, SchedFifo, SchedIdle, SchedIso, SchedOther, SchedRr,
        };
        let bad = |key: &str, why: String| Err(Error::config(json_path(path, key), why));
        let policy = *scheduler.policy();
        let nice = scheduler.nice().unwrap_or(0);
        if !(-20..=19).contains(&nice) {
            return bad("nice", format!("{nice} is not between -20 and 19"));
        }
        let priority = scheduler.priority().unwrap_or(0);
        let Ok(unsigned_priority) = u32::try_from(priority) else {
            return bad("priority", format!("{priority} is negative"));
        };
        if priority != 0 && !matches!(policy, SchedFifo | SchedRr) {
            return bad("priority", format!("{policy} has none; only SCHED_FIFO and SCHED_RR do"));
        }
        let [runtime, deadline, period] =
            [scheduler.runtime(), scheduler.deadline(), scheduler.period()]
                .map(|time| time.unwrap_or(0));
        if policy != SchedDeadline {
            for (key, time) in [("runtime", runtime), ("deadline", deadline), ("period", period)] {
                if time != 0 {
                    return bad(key, format!("{policy} has none; only SCHED_DEADLINE does"));
                }
            }
        }
        Ok(Self(SchedAttr {
            policy: match policy {
                SchedOther => 0,
                SchedFifo => 1,
                SchedRr => 2,
                SchedBatch => 3,
                SchedIso => 4,
                SchedIdle => 5,
                SchedDeadline => 6,
            },
            flags: scheduler.flags().iter().flatten().fold(0, |all, flag| all | flag_bit(*flag)),
            nice,
            priority: unsigned_priority,
            runtime,
            deadline,
            period,
            ..SchedAttr::default()
        }))
    }

    /// Sets it for this process.
    ///
    /// # Errors
    /// `EPERM` without `CAP_SYS_NICE`; `EINVAL` for what this kernel does not have (SCHED_ISO); a
    /// read-back that differs.
    pub fn apply(self) -> Result<()> {
        let doing = || format!("set scheduler policy {}", self.0.policy);
        sched::sched_setattr(self.0).doing(doing)?;
        let now = sched::sched_getattr().doing(doing)?;
        let same = now.policy == self.0.policy
            && now.priority == self.0.priority
            // The kernel reports nice only where the policy has it.
            && (!matches!(self.0.policy, 0 | 3) || now.nice == self.0.nice)
            && (now.runtime == self.0.runtime || self.0.policy != 6)
            && now.flags & RESET_ON_FORK == self.0.flags & RESET_ON_FORK;
        match same || self.0.flags & KEEP != 0 {
            true => Ok(()),
            false => Err(Error::Failed(format!("{}: it is {now:?} afterwards", doing()))),
        }
    }
}

fn flag_bit(flag: LinuxSchedulerFlag) -> u64 {
    match flag {
        LinuxSchedulerFlag::SchedResetOnFork => RESET_ON_FORK,
        LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
        LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
        LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
        LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
        LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
        LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
    }
}

/// An I/O class and level: class << 13 | level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoPriority(u16);

/// The class of an `ioprio` value.
const IOPRIO_CLASS_SHIFT: u32 = 13;

impl IoPriority {
    /// Validates the value at the JSON path `path` (`process.ioPriority`).
    ///
    /// # Errors
    /// A config error for a level beyond 0 to 7.
    pub fn new(priority: LinuxIOPriority, path: &str) -> Result<Self> {
        let level = match priority.priority() {
            level @ 0..=7 => level as u16,
            level => {
                let why = format!("{level} is not between 0 and 7");
                return Err(Error::config(json_path(path, "priority"), why));
            }
        };
        let class = match priority.class() {
            IOPriorityClass::IoprioClassRt => 1,
            IOPriorityClass::IoprioClassBe => 2,
            IOPriorityClass::IoprioClassIdle => 3,
        };
        Ok(Self(class << IOPRIO_CLASS_SHIFT | level))
    }

    /// Sets it for this process.
    ///
    /// # Errors
    /// `EPERM` for the real-time class; a read-back that differs.
    pub fn apply(self) -> Result<()> {
        let doing = || {
            format!("set io priority class {} level {}", self.0 >> IOPRIO_CLASS_SHIFT, self.0 & 7)
        };
        sched::ioprio_set(self.0).doing(doing)?;
        match sched::ioprio_get().doing(doing)? {
            now if now == self.0 => Ok(()),
            now => Err(Error::Failed(format!("{}: it is {now:#x} afterwards", doing()))),
        }
    }
}

/// The CPUs of an exec.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Affinity {
    /// Until it has joined the cgroup.
    pub initial: Option<CpuSet>,
    /// From then on.
    pub last: Option<CpuSet>,
}

impl Affinity {
    /// Validates the value at the JSON path `path` (`process.execCPUAffinity`).
    ///
    /// # Errors
    /// A config error for a list that is not like `0-3,7`.
    pub fn new(affinity: Option<&ExecCPUAffinity>, path: &str) -> Result<Self> {
        let Some(affinity) = affinity else { return Ok(Self::default()) };
        let set = |list: Option<&String>, key: &str| {
            list.filter(|list| !list.is_empty())
                .map(|list| cpus(list).map_err(|why| Error::config(json_path(path, key), why)))
                .transpose()
        };
        Ok(Self {
            initial: set(affinity.initial().as_ref(), "initial")?,
            last: set(affinity.cpu_affinity_final().as_ref(), "final")?,
        })
    }
}

fn cpus(list: &str) -> std::result::Result<CpuSet, String> {
    let mut set = CpuSet::new();
    for cpu in numbers(list, CpuSet::count())? {
        set.set(cpu).map_err(|_| format!("CPU {cpu} is too high"))?;
    }
    Ok(set)
}

/// The numbers of a list like `0-3,7`, all below `limit`, in order.
pub(crate) fn numbers(list: &str, limit: usize) -> std::result::Result<Vec<usize>, String> {
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let value = digits.then(|| text.parse::<usize>().ok()).flatten();
        match value {
            Some(value) if value < limit => Ok(value),
            Some(value) => Err(format!("{value} in {list:?} is over {}", limit - 1)),
            None => Err(format!("{list:?} is not a list like \"0-3,7\"")),
        }
    };
    // A set, or a short text that names the same numbers again and again would be a long list.
    let mut named = vec![false; limit];
    for range in list.split(',') {
        let (first, last) = match range.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(range)?, number(range)?),
        };
        if first > last {
            return Err(format!("{range:?} in {list:?} ends before it begins"));
        }
        named.get_mut(first..=last).unwrap_or_default().fill(true);
    }
    Ok(named
        .into_iter()
        .enumerate()
        .filter_map(|(number, named)| named.then_some(number))
        .collect())
}

/// Binds `pid` (0: this process) to these CPUs.
///
/// # Errors
/// `EINVAL` when none of them exists or is in its cpuset; a read-back with others.
pub fn set_affinity(pid: Pid, cpus: &CpuSet) -> Result<()> {
    let doing = || format!("set CPU affinity of process {pid}");
    sched_setaffinity(pid, cpus).doing(doing)?;
    let now = sched_getaffinity(pid).doing(doing)?;
    let is = |set: &CpuSet, cpu| set.is_set(cpu).unwrap_or(false);
    // The kernel takes away the ones that don't exist or are outside of the cpuset.
    match (0..CpuSet::count()).find(|cpu| is(&now, *cpu) && !is(cpus, *cpu)) {
        None => Ok(()),
        Some(cpu) => Err(Error::Failed(format!("{}: CPU {cpu} was not asked for", doing()))),
    }
}

/// Lets `pid` (0: this process) run on every CPU of its cpuset.
///
/// # Errors
/// The errno of the call; a seccomp filter of an outer container that refuses it is tolerated.
pub fn reset_affinity(pid: Pid) -> Result<()> {
    let mut all = CpuSet::new();
    for cpu in 0..CpuSet::count() {
        all.set(cpu).doing(|| "fill a CPU set".to_owned())?;
    }
    match sched_setaffinity(pid, &all) {
        Ok(()) | Err(Errno::EPERM | Errno::ENOSYS) => Ok(()),
        Err(errno) => Err(Error::sys(format!("reset CPU affinity of process {pid}"), errno)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::sys::testing::in_child;

    fn scheduler(json: Value) -> Result<Scheduler> {
        Scheduler::new(&serde_json::from_value(json).unwrap(), "process.scheduler")
    }

    #[test]
    fn parameters_must_fit_the_policy() {
        let cases = [
            (json!({"policy": "SCHED_OTHER", "nice": 20}), "nice"),
            (json!({"policy": "SCHED_OTHER", "priority": 1}), "priority"),
            (json!({"policy": "SCHED_FIFO", "priority": -1}), "priority"),
            (json!({"policy": "SCHED_RR", "runtime": 1}), "runtime"),
            (json!({"policy": "SCHED_OTHER", "deadline": 1}), "deadline"),
            (json!({"policy": "SCHED_BATCH", "period": 1}), "period"),
        ];
        for (json, at) in cases {
            let error = scheduler(json).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("config.json: process.scheduler.{at}: ")),
                "{error}"
            );
        }
    }

    #[test]
    fn every_policy_reaches_the_kernel() {
        let policies = [
            json!({"policy": "SCHED_OTHER", "nice": 5}),
            json!({"policy": "SCHED_OTHER", "nice": -5}),
            json!({"policy": "SCHED_BATCH", "nice": 7}),
            json!({"policy": "SCHED_IDLE"}),
            json!({"policy": "SCHED_FIFO", "priority": 3, "flags": ["SCHED_RESET_ON_FORK"]}),
            json!({"policy": "SCHED_RR", "priority": 99}),
            json!({"policy": "SCHED_DEADLINE", "runtime": 1_000_000, "deadline": 10_000_000, "period": 100_000_000}),
        ];
        for policy in policies {
            in_child(|| {
                if let Err(error) = scheduler(policy.clone()).unwrap().apply() {
                    // cgroup v1 with CONFIG_RT_GROUP_SCHED gives a group without runtime EPERM.
                    let real_time = policy["policy"] != "SCHED_OTHER";
                    assert!(real_time && error.errno() == Some(Errno::EPERM), "{policy}: {error}");
                }
            });
        }
        in_child(|| {
            let iso = scheduler(json!({"policy": "SCHED_ISO"})).unwrap().apply().unwrap_err();
            assert_eq!(iso.errno(), Some(Errno::EINVAL));
        });
    }

    #[test]
    fn every_io_class_reaches_the_kernel() {
        in_child(|| {
            for (class, level) in [("RT", 0), ("BE", 7), ("IDLE", 0)] {
                let json = json!({"class": format!("IOPRIO_CLASS_{class}"), "priority": level});
                IoPriority::new(serde_json::from_value(json).unwrap(), "p")
                    .unwrap()
                    .apply()
                    .unwrap();
            }
        });
        for level in [-1, 8] {
            let json = json!({"class": "IOPRIO_CLASS_BE", "priority": level});
            assert!(IoPriority::new(serde_json::from_value(json).unwrap(), "p").is_err());
        }
    }

    #[test]
    fn a_list_is_ranges_and_numbers() {
        assert_eq!(numbers("0-3,7", 8).unwrap(), [0, 1, 2, 3, 7]);
        for bad in
            ["", ",", "1,", "3-1", "-1", "1-", "8", "+1", " 1", "1-2-3", "99999999999999999999"]
        {
            assert!(numbers(bad, 8).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn affinity_is_set_and_reset() {
        in_child(|| {
            let me = Pid::from_raw(0);
            let count =
                |set: CpuSet| (0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap()).count();
            reset_affinity(me).unwrap();
            let all = count(sched_getaffinity(me).unwrap());
            set_affinity(me, &cpus("0").unwrap()).unwrap();
            assert_eq!(count(sched_getaffinity(me).unwrap()), 1);
            assert!(set_affinity(me, &cpus("1023").unwrap()).is_err());
            reset_affinity(me).unwrap();
            assert_eq!(count(sched_getaffinity(me).unwrap()), all);
        });
    }

    proptest! {
        #[test]
        fn no_list_panics(list in "[0-9,-]{0,12}") {
            if let Ok(all) = numbers(&list, 2048) {
                prop_assert!(all.iter().all(|n| *n < 2048));
            }
        }
    }
}
