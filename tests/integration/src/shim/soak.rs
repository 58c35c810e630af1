//! Very many exits while the daemon is stopped, restarted, killed and silent, at random.
//!
//! Each shim gets a thread that lets containers live and die in it, with execs, and notes what must
//! be told of them. Meanwhile the events service has its bad days, clients go and come back, and
//! pids are made to be used again. At the end everything that was told is held against the notes
//! ([`super::notes`]): each exit once, none lost, in order. Only after a lost connection may the
//! same event come again.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use containerd_shim_protos::api::CreateTaskRequest;

use super::daemon::{Daemon, Mood};
use super::notes::{Life, Outage, Tally, audit};
use super::request;
use super::sandbox;
use super::task::{Pending, TaskClient};
use super::world::{KILL, World};
use crate::bundle::Bundle;
use crate::managers::{Stop, Verdict, same};

/// What to do.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// At least so many exits.
    pub exits: usize,
    /// In so many shims.
    pub shims: usize,
    /// What chance begins with.
    pub seed: u64,
}

/// The thousand last events come within this.
const DRAIN: Duration = Duration::from_secs(60);

/// xorshift: chance that can be repeated.
#[derive(Debug)]
struct Chance(u64);

impl Chance {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// From 0 to `below` - 1.
    fn up_to(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % below
    }

    fn pause(&mut self, shortest: u64, longest: u64) {
        std::thread::sleep(Duration::from_millis(shortest + self.up_to(longest - shortest)));
    }
}

/// Does it all; what came of it.
pub fn run(world: &World, plan: &Plan) -> Result<Tally, Stop> {
    world.events.stop()?;
    let mut daemon = Daemon::new(Path::new(world.events.address()))?;
    let tally = with_daemon(world, plan, &mut daemon);
    daemon.stop()?;
    world.events.start()?;
    tally
}

fn with_daemon(world: &World, plan: &Plan, daemon: &mut Daemon) -> Result<Tally, Stop> {
    let mut owners = Vec::new();
    for number in 0..plan.shims {
        let bundle = world.bundle("true");
        let shim = world.shim(&bundle)?;
        let (client, address) = (shim.client.clone(), shim.reply.address.clone());
        let chance = Chance::new(plan.seed * 1000 + number as u64 + 1);
        owners.push(Owner { number, client, address, bundle, chance, lives: Vec::new() });
    }
    let quota = plan.exits.div_ceil(plan.shims);
    let (over, mut chance) = (AtomicBool::new(false), Chance::new(plan.seed));
    let (ended, outages) = std::thread::scope(|scope| {
        scope.spawn(|| use_pids_again(&over));
        let threads: Vec<_> =
            owners.into_iter().map(|owner| scope.spawn(move || owner.spend(quota))).collect();
        let mut outages = Ok(Vec::new());
        while threads.iter().any(|thread| !thread.is_finished()) {
            chance.pause(5, 120);
            if let Ok(known) = &mut outages
                && let Err(error) = bad_day(daemon, &mut chance, known)
            {
                outages = Err(error);
            }
        }
        over.store(true, Ordering::Release);
        let ended: Vec<_> = threads.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        (ended, outages)
    });
    let mut lives = Vec::new();
    for thread in ended {
        lives.extend(thread.map_err(|_| "a thread panicked")??);
    }
    let outages = outages?;
    daemon.set(Mood::Answers);
    drain(daemon, &lives);
    Ok(audit(&lives, &daemon.all(), &outages))
}

/// The daemon goes and comes back, or is silent, or dies in the middle of a request.
fn bad_day(daemon: &mut Daemon, chance: &mut Chance, outages: &mut Vec<Outage>) -> Verdict {
    let from = Instant::now();
    match chance.up_to(10) {
        kind @ 0..5 => {
            if kind == 0 {
                // Under SIGSTOP first.
                daemon.set(Mood::Stalls);
                chance.pause(5, 100);
            }
            daemon.stop()?;
            chance.pause(1, 400);
            daemon.start()?;
        }
        kind @ 5..8 => {
            let times = 1 + chance.up_to(3) as u32;
            daemon.set(if kind == 5 { Mood::Drops(times) } else { Mood::Cuts(times) });
            chance.pause(1, 50);
        }
        _ => {
            daemon.set(Mood::Stalls);
            chance.pause(1, 300);
            daemon.set(Mood::Answers);
            return Ok(());
        }
    }
    outages.push(Outage { from, to: Instant::now() });
    Ok(())
}

/// Makes the kernel hand out the same few pids over and over.
fn use_pids_again(over: &AtomicBool) {
    while !over.load(Ordering::Acquire) {
        // Where that is refused pids are reused more seldom, which the tally shows.
        std::fs::write("/proc/sys/kernel/ns_last_pid", "1000").ok();
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until as many exits were told as there must be; which ones is for the audit.
fn drain(daemon: &Daemon, lives: &[Life]) {
    let wanted: usize = lives.iter().map(Life::told).sum();
    let begun = Instant::now();
    let told = || {
        let (exits, deletes) = (daemon.count("/tasks/exit"), daemon.count("/tasks/delete"));
        exits >= wanted && deletes >= lives.len()
    };
    while !told() && begun.elapsed() < DRAIN {
        std::thread::sleep(Duration::from_millis(20));
    }
    // Something that comes once more would come soon.
    std::thread::sleep(Duration::from_millis(200));
}

/// Lets containers live and die in one shim.
struct Owner {
    number: usize,
    client: TaskClient,
    address: String,
    bundle: Bundle,
    chance: Chance,
    lives: Vec<Life>,
}

/// What a process is to do, and how it will end.
fn fate(chance: &mut Chance) -> (String, u32) {
    match chance.up_to(8) {
        0 => ("kill -9 $$".to_owned(), 137),
        1 => ("kill -15 $$; sleep 10".to_owned(), 143),
        _ => {
            let status = chance.up_to(256) as u32;
            (format!("exit {status}"), status)
        }
    }
}

impl Owner {
    /// One life after the other until `quota` exits have been.
    fn spend(mut self, quota: usize) -> Result<Vec<Life>, Stop> {
        while self.lives.iter().map(Life::told).sum::<usize>() < quota {
            let life = self.live()?;
            self.lives.push(life);
        }
        Ok(self.lives)
    }

    fn live(&mut self) -> Result<Life, Stop> {
        let id = format!("s{}l{}", self.number, self.lives.len());
        let brief = self.chance.up_to(4) == 0;
        let status = self.chance.up_to(256) as u32;
        let killed = !brief && self.chance.up_to(2) == 0;
        let script = if brief {
            format!("exit {status}")
        } else {
            format!("trap 'exit {status}' TERM; sleep 1000 & wait")
        };
        self.bundle.set("linux.cgroupsPath", format!("{}/{id}", sandbox().cgroup).into());
        self.bundle.script(&script).write();
        let query = with!(CreateTaskRequest { id: &id, bundle: self.bundle.path() });
        self.client.create(&query)?;
        self.client.start(&id, "")?;
        let mut life = Life::new(self.number, &id, if killed { 137 } else { status });
        if !brief {
            self.execs(&mut life)?;
            let last = self.last_words(&mut life)?;
            let signal = if killed { KILL } else { self.when_trapped(&id)? };
            self.client.kill(&id, "", signal, false)?;
            for (exec, starting) in last {
                life.exec(&exec, starting.answer().is_ok().then_some(137), false);
            }
        }
        same(&format!("Wait for {id}"), &self.client.wait(&id, "")?.exit_status, &life.status)?;
        let deleted = self.client.delete(&id, "")?;
        same(&format!("Delete of {id}"), &deleted.exit_status, &life.status)?;
        Ok(life)
    }

    /// Bursts of execs, each to its end.
    fn execs(&mut self, life: &mut Life) -> Result<(), Stop> {
        for _ in 0..self.chance.up_to(12) {
            if self.chance.up_to(8) == 0 {
                self.client = TaskClient::connect_to(&self.address)?;
            }
            let mut burst = Vec::new();
            for _ in 0..=self.chance.up_to(4) {
                let exec = life.next_exec();
                let (script, status) = fate(&mut self.chance);
                let starting = self.start_exec(&life.id, &exec, &script)?;
                let waiting = self.client.waiting(&life.id, &exec);
                life.exec(&exec, Some(status), true);
                burst.push((exec, status, starting, waiting));
            }
            for (exec, status, starting, waiting) in burst {
                starting.answer()?;
                same(&format!("Wait for {exec}"), &waiting.answer()?.exit_status, &status)?;
                // The rest goes with the container.
                if self.chance.up_to(4) > 0 {
                    self.client.delete(&life.id, &exec)?;
                }
            }
        }
        Ok(())
    }

    /// Execs that live when the init is ended; some are just being started.
    fn last_words(
        &mut self,
        life: &mut Life,
    ) -> Result<Vec<(String, Pending<containerd_shim_protos::api::StartResponse>)>, Stop> {
        let mut last = Vec::new();
        for _ in 0..self.chance.up_to(3) {
            let exec = life.next_exec();
            let starting = self.start_exec(&life.id, &exec, "sleep 1000")?;
            if self.chance.up_to(2) == 0 {
                starting.answer()?;
                life.exec(&exec, Some(137), true);
            } else {
                last.push((exec, starting));
            }
        }
        Ok(last)
    }

    fn start_exec(
        &self,
        id: &str,
        exec: &str,
        script: &str,
    ) -> Result<Pending<containerd_shim_protos::api::StartResponse>, Stop> {
        self.client.exec(&request::exec(id, exec, &request::process(script, false)))?;
        Ok(self.client.starting(id, exec))
    }

    /// SIGTERM, once the init's shell has its trap: a pid namespace's first process ignores it
    /// before.
    fn when_trapped(&self, id: &str) -> Result<u32, Stop> {
        let pid = self.client.state(id, "")?.pid;
        let path = format!("/proc/{pid}/status");
        let trapped = |status: String| {
            let line = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
            let mask = line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
            mask.is_some_and(|mask| mask & 1 << 14 != 0)
        };
        crate::managers::eventually("the trap", super::task::PATIENCE, || {
            Ok(std::fs::read_to_string(Path::new(&path)).is_ok_and(trapped))
        })?;
        Ok(15)
    }
}
