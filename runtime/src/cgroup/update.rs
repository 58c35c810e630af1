//! Changing the limits of a container that exists: the `update` command.
//!
//! The new resources are laid over the saved ones by runc's rules, and what they touch is written.
//! Every file is read before it is changed: when one can't be, those before it get their old
//! values back, so that an update happens as a whole or not at all. Devices, huge pages, rdma and
//! network are left alone, as with runc: a GPU plugin may have changed the device rules since.

use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources, LinuxThrottleDevice, LinuxWeightDevice,
    LinuxWeightDeviceBuilder,
};

use super::plan::{Write, asked, check};
use super::{Cgroup, Version};
use crate::error::{Error, Result};

impl Cgroup {
    /// Applies `new` over the saved `old` and has `keep` save the result. On failure, also of saving,
    /// the limits are the old ones: what is in force is what is written down.
    ///
    /// # Errors
    /// The limit that could not be set, or that they can't be saved; with it, what could not be put
    /// back.
    pub fn update(
        &self,
        old: &LinuxResources,
        new: &LinuxResources,
        keep: impl FnOnce(&LinuxResources) -> Result<()>,
    ) -> Result<()> {
        let merged = merge(old, new);
        check(&merged)?;
        let before = self.writes(old).unwrap_or_default();
        // What is asked for now is written even when it was saved before: somebody else may have
        // changed it since. What follows from it (swap from memory) is written when it differs.
        let writes: Vec<Write> = self
            .writes(&merged)?
            .into_iter()
            .filter(|write| touched(new, &write.json) || !before.contains(write))
            .collect();
        if self.version == Version::V2 {
            self.check_memory(&merged)?;
        }
        let mut undo: Vec<(Write, String)> = Vec::new();
        let result = self
            .carry_out(&writes, &mut |dir, write| {
                // Files with a line for each device are not undone: their lines are no values.
                if let Ok(value) = dir.try_read(&write.file)
                    && is_value(&write.file)
                {
                    undo.push((write.clone(), value.trim_end().to_owned()));
                }
                Ok(())
            })
            .and_then(|()| match self.version {
                Version::V2 if touched(new, "cpu.cpus") || touched(new, "cpu.mems") => {
                    self.check_cpuset(&merged)
                }
                _ => Ok(()),
            })
            .and_then(|()| self.tell_systemd(&merged))
            .and_then(|()| keep(&merged).or_else(|error| self.tell_systemd(old).and(Err(error))));
        let Err(error) = result else { return self.after_systemd(&merged) };
        let restore: Vec<Write> = undo
            .into_iter()
            .rev()
            .map(|(write, value)| Write { value, again: true, ..write })
            .collect();
        match self.carry_out(&restore, &mut |_, _| Ok(())) {
            Ok(()) => Err(error),
            Err(second) => Err(Error::Failed(format!("{error}; and not put back: {second}"))),
        }
    }

    fn tell_systemd(&self, resources: &LinuxResources) -> Result<()> {
        self.unit.as_ref().map_or(Ok(()), |unit| unit.set(resources))
    }

    /// systemd, told of new limits, has written them itself: the quota in whole percents.
    fn after_systemd(&self, resources: &LinuxResources) -> Result<()> {
        if self.unit.is_none() {
            return Ok(());
        }
        let mut writes = self.writes(resources)?;
        writes.retain(|write| write.file == "cpu.max");
        self.carry_out(&writes, &mut |_, _| Ok(()))
    }
}

/// One value for the whole group, which can be written as it is read.
fn is_value(file: &str) -> bool {
    !matches!(file, "io.max" | "rdma.max" | "memory.oom_control")
        && !file.starts_with("blkio.")
        && !file.starts_with("io.")
}

/// Whether the field is given in the update itself.
fn touched(new: &LinuxResources, json: &str) -> bool {
    let cpu = |has: fn(&LinuxCpu) -> bool| new.cpu().as_ref().is_some_and(has);
    let memory = |has: fn(&LinuxMemory) -> bool| new.memory().as_ref().is_some_and(has);
    match json {
        "cpu.shares" => cpu(|c| c.shares().is_some()),
        "cpu.quota" | "cpu.period" => cpu(|c| c.quota().is_some() || c.period().is_some()),
        "cpu.burst" => cpu(|c| c.burst().is_some()),
        "cpu.idle" => cpu(|c| c.idle().is_some()),
        "cpu.realtimePeriod" => cpu(|c| c.realtime_period().is_some()),
        "cpu.realtimeRuntime" => cpu(|c| c.realtime_runtime().is_some()),
        "cpu.cpus" => cpu(|c| c.cpus().is_some()),
        "cpu.mems" => cpu(|c| c.mems().is_some()),
        "memory.limit" | "memory.swap" => memory(|m| m.limit().is_some() || m.swap().is_some()),
        "memory.reservation" => memory(|m| m.reservation().is_some()),
        "pids.limit" => new.pids().is_some(),
        other => {
            (other.starts_with("unified[") && new.unified().is_some())
                || (other.starts_with("blockIO.") && new.block_io().is_some())
        }
    }
}

/// The saved resources with the update laid over them.
fn merge(old: &LinuxResources, new: &LinuxResources) -> LinuxResources {
    let mut merged = old.clone();
    if let Some(new) = new.memory() {
        merged.set_memory(Some(merge_memory(old.memory().unwrap_or_default(), new)));
    }
    if let Some(new) = new.cpu() {
        merged.set_cpu(Some(merge_cpu(old.cpu().clone().unwrap_or_default(), new)));
    }
    if let Some(new) = new.block_io() {
        merged.set_block_io(Some(merge_block_io(old.block_io().clone().unwrap_or_default(), new)));
    }
    if new.pids().is_some() {
        merged.set_pids(*new.pids());
    }
    if new.unified().is_some() {
        merged.set_unified(new.unified().clone());
    }
    merged
}

fn merge_memory(mut memory: LinuxMemory, new: &LinuxMemory) -> LinuxMemory {
    if new.limit().is_some() {
        memory.set_limit(new.limit());
    }
    if new.swap().is_some() {
        memory.set_swap(new.swap());
    } else if new.limit() == Some(-1) {
        // A saved limit of memory and swap can't be below unlimited memory.
        memory.set_swap(None);
    }
    if new.reservation().is_some() {
        memory.set_reservation(new.reservation());
    }
    if new.check_before_update().is_some() {
        memory.set_check_before_update(new.check_before_update());
    }
    memory
}

fn merge_cpu(mut cpu: LinuxCpu, new: &LinuxCpu) -> LinuxCpu {
    // Quota and period make sense together: the one that is not given keeps its saved value.
    if asked(new.quota()).is_some() {
        cpu.set_quota(new.quota());
    }
    if asked(new.period()).is_some() {
        cpu.set_period(new.period());
    }
    if new.shares().is_some() {
        cpu.set_shares(new.shares());
    } else if new.idle().is_some() {
        // An idle group has no shares, and the kernel refuses to set them.
        cpu.set_shares(None);
    }
    if new.idle().is_some() {
        cpu.set_idle(new.idle());
    }
    if new.burst().is_some() {
        cpu.set_burst(new.burst());
    }
    if new.realtime_period().is_some() {
        cpu.set_realtime_period(new.realtime_period());
    }
    if new.realtime_runtime().is_some() {
        cpu.set_realtime_runtime(new.realtime_runtime());
    }
    for (given, set) in [
        (new.cpus(), LinuxCpu::set_cpus as fn(&mut LinuxCpu, _) -> &mut LinuxCpu),
        (new.mems(), LinuxCpu::set_mems),
    ] {
        if given.as_ref().is_some_and(|list| !list.is_empty()) {
            set(&mut cpu, given.clone());
        }
    }
    cpu
}

fn merge_block_io(mut block: LinuxBlockIo, new: &LinuxBlockIo) -> LinuxBlockIo {
    if new.weight().is_some() {
        block.set_weight(new.weight());
    }
    if new.leaf_weight().is_some() {
        block.set_leaf_weight(new.leaf_weight());
    }
    let weights = upsert(
        block.weight_device(),
        new.weight_device(),
        |device: &LinuxWeightDevice| (device.major(), device.minor()),
        |old, new| {
            let mut both =
                LinuxWeightDeviceBuilder::default().major(new.major()).minor(new.minor());
            if let Some(weight) = new.weight().or(old.weight()) {
                both = both.weight(weight);
            }
            if let Some(weight) = new.leaf_weight().or(old.leaf_weight()) {
                both = both.leaf_weight(weight);
            }
            // No field is required, so building can't fail.
            both.build().unwrap_or(*new)
        },
    );
    block.set_weight_device(weights);
    let number = |device: &LinuxThrottleDevice| (device.major(), device.minor());
    let latest = |_: &LinuxThrottleDevice, new: &LinuxThrottleDevice| *new;
    let list =
        upsert(block.throttle_read_bps_device(), new.throttle_read_bps_device(), number, latest);
    block.set_throttle_read_bps_device(list);
    let list =
        upsert(block.throttle_write_bps_device(), new.throttle_write_bps_device(), number, latest);
    block.set_throttle_write_bps_device(list);
    let list =
        upsert(block.throttle_read_iops_device(), new.throttle_read_iops_device(), number, latest);
    block.set_throttle_read_iops_device(list);
    let list = upsert(
        block.throttle_write_iops_device(),
        new.throttle_write_iops_device(),
        number,
        latest,
    );
    block.set_throttle_write_iops_device(list);
    block
}

/// Replaces the devices that are there by number, and adds those that are not.
fn upsert<T: Copy>(
    old: &Option<Vec<T>>,
    new: &Option<Vec<T>>,
    number: impl Fn(&T) -> (i64, i64),
    both: impl Fn(&T, &T) -> T,
) -> Option<Vec<T>> {
    let Some(new) = new else { return old.clone() };
    let mut list = old.clone().unwrap_or_default();
    for device in new {
        match list.iter_mut().rev().find(|old| number(old) == number(device)) {
            Some(old) => *old = both(old, device),
            None => list.push(*device),
        }
    }
    Some(list)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn merged(old: serde_json::Value, new: serde_json::Value) -> serde_json::Value {
        let [old, new] = [old, new].map(|json| serde_json::from_value(json).unwrap());
        serde_json::to_value(merge(&old, &new)).unwrap()
    }

    #[test]
    fn an_update_changes_what_it_names_and_keeps_the_rest() {
        for (old, new, expected) in [
            (
                json!({"cpu": {"quota": 1000, "period": 5000}}),
                json!({"cpu": {"quota": 2000}}),
                json!({"cpu": {"quota": 2000, "period": 5000}}),
            ),
            (
                json!({"cpu": {"quota": 1000, "period": 5000, "cpus": "0"}}),
                json!({"cpu": {"period": 9000, "quota": 0, "cpus": ""}}),
                json!({"cpu": {"quota": 1000, "period": 9000, "cpus": "0"}}),
            ),
            (
                json!({"memory": {"limit": 10, "swap": 20}}),
                json!({"memory": {"limit": -1}}),
                json!({"memory": {"limit": -1}}),
            ),
            (
                json!({"cpu": {"shares": 100}}),
                json!({"cpu": {"idle": 1}}),
                json!({"cpu": {"idle": 1}}),
            ),
            (
                json!({"pids": {"limit": 5}}),
                json!({"cpu": {}}),
                json!({"pids": {"limit": 5}, "cpu": {}}),
            ),
            (
                json!({"unified": {"memory.high": "1", "pids.max": "2"}}),
                json!({"unified": {"memory.high": "3"}}),
                json!({"unified": {"memory.high": "3"}}),
            ),
            (
                json!({"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "weight": 10, "leafWeight": 20}]}}),
                json!({"blockIO": {"weightDevice": [
                    {"major": 8, "minor": 0, "weight": 30}, {"major": 9, "minor": 0, "weight": 40}]}}),
                json!({"blockIO": {"weightDevice": [
                    {"major": 8, "minor": 0, "weight": 30, "leafWeight": 20},
                    {"major": 9, "minor": 0, "weight": 40}]}}),
            ),
            (
                json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 1}]}),
                json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 9}], "network": {"classID": 1}}),
                json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 1}]}),
            ),
        ] {
            assert_eq!(merged(old.clone(), new.clone()), expected, "{new} over {old}");
        }
    }
}
