//! Resources: what a container may use, and that changes reach a running one.

use corten_integration::managers::docker::{Docker, Test};
use corten_integration::managers::{Stop, Verdict, check, contains, same};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("cgroup_path", cgroup_path),
    ("memory", memory),
    ("memory_exceeded", memory_exceeded),
    ("cpus", cpus),
    ("cpu_shares_and_period", cpu_shares_and_period),
    ("cpuset", cpuset),
    ("pids_limit", pids_limit),
    ("block_io", block_io),
    ("ulimit", ulimit),
    ("shm_size", shm_size),
    ("oom_score", oom_score),
    ("update", update),
    ("update_refused", update_refused),
    ("stats", stats),
];

/// A script that prints a cgroup file of v1, or the one of v2.
fn file(v1: &str, v2: &str) -> String {
    format!("cat /sys/fs/cgroup/{v1} 2>/dev/null || cat /sys/fs/cgroup/{v2}")
}

const MEMORY: (&str, &str) = ("memory/memory.limit_in_bytes", "memory.max");
const PIDS: (&str, &str) = ("pids/pids.max", "pids.max");

fn shows(docker: &Docker, options: &[&str], files: (&str, &str), wanted: &str) -> Verdict {
    same(files.0, &docker.sh(options, &file(files.0, files.1))?, wanted)
}

fn cgroup_path(docker: &Docker) -> Verdict {
    let container = docker.background(&[], "sleep 600")?;
    let groups = std::fs::read_to_string(format!("/proc/{}/cgroup", container.pid()?))?;
    let wanted = format!("{}/{}", docker.sandbox.cgroup, container.id);
    for line in groups.lines() {
        check(line.ends_with(&wanted), format!("{line} does not end with {wanted}"))?;
    }
    let below = format!("{}/nested/deeper", docker.sandbox.cgroup);
    let other = docker.background(&["--cgroup-parent", &below], "sleep 600")?;
    let groups = std::fs::read_to_string(format!("/proc/{}/cgroup", other.pid()?))?;
    contains("--cgroup-parent", &groups, &format!(":{below}/{}", other.id))?;
    drop(other);
    for hierarchy in corten_integration::managers::leaks::hierarchies()? {
        // Docker leaves the parents that the runtime made for it; they are the test's to remove.
        let nested = hierarchy.join(docker.sandbox.cgroup.trim_start_matches('/')).join("nested");
        corten_integration::managers::leaks::remove_groups(&nested);
        check(!nested.exists(), format!("{} is not empty", nested.display()))?;
    }
    Ok(())
}

fn memory(docker: &Docker) -> Verdict {
    shows(docker, &["--memory", "64m"], MEMORY, "67108864")?;
    let options = ["--memory", "64m", "--memory-reservation", "32m"];
    shows(docker, &options, ("memory/memory.soft_limit_in_bytes", "memory.low"), "33554432")?;
    let swap = docker.sh(
        &["--memory", "64m", "--memory-swap", "96m"],
        "cat /sys/fs/cgroup/memory/memory.memsw.limit_in_bytes 2>/dev/null || \
         cat /sys/fs/cgroup/memory.swap.max 2>/dev/null || echo none",
    )?;
    // Docker drops the option where its own group has no such limit. Of both together on v1, of swap
    // alone on v2.
    let wanted: &[&str] = match docker.ok(&["info", "-f", "{{.SwapLimit}}"])?.as_str() {
        "true" => &["100663296", "33554432"],
        _ => &["9223372036854771712", "max", "none"],
    };
    check(wanted.contains(&swap.as_str()), format!("swap: {swap}, not {wanted:?}"))
}

fn memory_exceeded(docker: &Docker) -> Verdict {
    let script = "x=0123456789; while :; do x=$x$x; done";
    let container = docker.background(&["--memory", "16m", "--memory-swap", "16m"], script)?;
    same("exit code", &container.wait()?, &137)?;
    container.becomes("{{.State.OOMKilled}}", "true")
}

fn cpus(docker: &Docker) -> Verdict {
    let script = "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu/cpu.cfs_period_us \
                  2>/dev/null || cat /sys/fs/cgroup/cpu.max";
    let seen = docker.sh(&["--cpus", "0.5"], script)?;
    same("quota and period", &seen.replace('\n', " "), "50000 100000")
}

fn cpu_shares_and_period(docker: &Docker) -> Verdict {
    let options = ["--cpu-shares", "512", "--cpu-period", "50000", "--cpu-quota", "20000"];
    let script = "cd /sys/fs/cgroup; cat cpu/cpu.shares cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us \
                  2>/dev/null || cat cpu.weight cpu.max";
    let seen = docker.sh(&options, script)?.replace('\n', " ");
    check(seen == "512 20000 50000" || seen.ends_with("20000 50000"), seen)
}

fn cpuset(docker: &Docker) -> Verdict {
    let allowed = "grep ^Cpus_allowed_list /proc/self/status";
    same("0", &docker.sh(&["--cpuset-cpus", "0"], allowed)?, "Cpus_allowed_list:\t0")?;
    if std::thread::available_parallelism()?.get() > 1 {
        same("1", &docker.sh(&["--cpuset-cpus", "1"], allowed)?, "Cpus_allowed_list:\t1")?;
    }
    let denied = docker.run(&["--cpuset-cpus", "4000"], &["true"]).code(125)?;
    contains("message", &denied.stderr, "Requested CPUs are not available")
}

fn pids_limit(docker: &Docker) -> Verdict {
    shows(docker, &["--pids-limit", "50"], PIDS, "50")?;
    let script = "for i in 1 2 3 4 5 6 7 8 9; do sleep 9 & done; echo all";
    let seen = docker.run(&["--pids-limit", "5"], &["sh", "-c", script]).run()?;
    check(seen.code != 0, "nine processes in a group of five")?;
    contains("message", &seen.stderr, "can't fork")?;
    shows(docker, &["--pids-limit", "-1"], PIDS, "max")
}

fn block_io(docker: &Docker) -> Verdict {
    // A whole disk: the throttle files know no partitions.
    let disk =
        std::fs::read_dir("/sys/block")?.flatten().map(|entry| entry.file_name()).find(|name| {
            std::path::Path::new("/dev").join(name).exists()
                && !name.to_string_lossy().starts_with("loop")
        });
    let Some(disk) = disk else { return Err(Stop::Skip("no disk in /dev".into())) };
    let limit = format!("/dev/{}:1mb", disk.to_string_lossy());
    let rate = format!("/dev/{}:77", disk.to_string_lossy());
    let options = ["--device-read-bps", &limit, "--device-write-iops", &rate];
    let script = "cd /sys/fs/cgroup; cat blkio/blkio.throttle.read_bps_device \
                  blkio/blkio.throttle.write_iops_device 2>/dev/null || cat io.max";
    let seen = docker.sh(&options, script)?;
    contains("bytes", &seen, "1048576")?;
    contains("operations", &seen, "77")
}

fn ulimit(docker: &Docker) -> Verdict {
    let options = ["--ulimit", "nofile=100:200", "--ulimit", "core=0", "--ulimit", "fsize=4096"];
    let script = "ulimit -Sn; ulimit -Hn; ulimit -c; grep 'Max file size' /proc/self/limits";
    let seen = docker.sh(&options, script)?;
    contains("limits", &seen, "100\n200\n0\n")?;
    contains("file size", &seen, "4096                 4096")?;
    // The limit is in force: the second block does not fit.
    let script = "head -c 8000 /dev/zero > /tmp/big; wc -c < /tmp/big";
    contains("fsize", &docker.run(&options, &["sh", "-c", script]).run()?.stdout, "4096")
}

fn shm_size(docker: &Docker) -> Verdict {
    let script = "df -k /dev/shm | tail -1 | awk '{print $2}'; stat -c %a /dev/shm";
    same("1 MiB", &docker.sh(&["--shm-size", "1m"], script)?, "1024\n1777")?;
    same("default", &docker.sh(&[], script)?, "65536\n1777")
}

fn oom_score(docker: &Docker) -> Verdict {
    let script = "cat /proc/self/oom_score_adj";
    same("raised", &docker.sh(&["--oom-score-adj", "321"], script)?, "321")
}

fn update(docker: &Docker) -> Verdict {
    let container = docker.background(&["--memory", "64m", "--pids-limit", "40"], "sleep 600")?;
    container.with("update", &["--memory", "128m", "--memory-swap", "-1"])?;
    same("memory", &container.exec(&[], &file(MEMORY.0, MEMORY.1))?, "134217728")?;
    same("pids kept", &container.exec(&[], &file(PIDS.0, PIDS.1))?, "40")?;
    container.with("update", &["--pids-limit", "99", "--cpu-shares", "300"])?;
    same("pids", &container.exec(&[], &file(PIDS.0, PIDS.1))?, "99")?;
    container.with("update", &["--cpus", "0.25"])?;
    let quota = "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null || cat /sys/fs/cgroup/cpu.max";
    contains("quota", &container.exec(&[], quota)?, "25000")?;
    container.with("update", &["--cpuset-cpus", "0"])?;
    contains("cpuset", &container.exec(&[], "cat /proc/1/status")?, "Cpus_allowed_list:\t0\n")?;
    same("memory kept", &container.exec(&[], &file(MEMORY.0, MEMORY.1))?, "134217728")
}

fn update_refused(docker: &Docker) -> Verdict {
    // The kernel refuses a limit below what is in use; the container must live on unchanged.
    let script = "head -c 30000000 /dev/zero > /dev/shm/fill; echo full; sleep 600";
    let container = docker.background(&["--memory", "64m", "--pids-limit", "40"], script)?;
    container.says("full")?;
    let words = ["update", "--memory", "8m", "--memory-swap", "8m", &container.name];
    let refused = docker.command(&words).run()?;
    if refused.code == 0 {
        // cgroup v2 and swap make room instead of refusing.
        return Ok(());
    }
    same("memory", &container.exec(&[], &file(MEMORY.0, MEMORY.1))?, "67108864")
}

fn stats(docker: &Docker) -> Verdict {
    let container = docker.background(&["--memory", "64m"], "sleep 600 & sleep 600 & wait")?;
    container
        .exec(&[], "until [ $(cat /proc/[0-9]*/comm | grep -c sleep) = 2 ]; do sleep 0.05; done")?;
    let words = ["--no-stream", "--format", "{{.PIDs}} {{.MemUsage}}"];
    let seen = container.with("stats", &words)?;
    check(seen.starts_with("3 "), format!("pids: {seen}"))?;
    contains("limit", &seen, "64MiB")
}
