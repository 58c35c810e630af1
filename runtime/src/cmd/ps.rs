//! `corten ps`: lists the processes of a container.

use crate::cli::options::{arguments, text};
use crate::cli::{Format, Globals, container_id, format};
use crate::error::{Doing, Error, Result};
use crate::{host, output};

arguments! {
    /// The arguments of `corten ps`. What follows the id belongs to ps(1).
    pub struct Args {
        /// table or json.
        format: Format = value("FORMAT", format), short 'f', default "table";
        /// The container's id.
        id: String = operand("ID", container_id);
        /// Options of ps(1) [default: -ef].
        ps_args: Vec<String> = operands("PS-ARGUMENTS", text);
    }
}

/// Carries out `corten ps`; the answer is the process's exit code.
///
/// # Errors
/// No such container, or no ps(1) for the table.
pub fn run(globals: &Globals, args: &Args) -> Result<u8> {
    let state = globals.store().open(&args.id)?.read_state()?;
    let pids: Vec<i32> = match state.open_cgroup() {
        Some(cgroup) => cgroup.pids()?.into_iter().map(nix::unistd::Pid::as_raw).collect(),
        None => state.live_init()?.map(|init| init.pid).into_iter().collect(),
    };
    match args.format {
        Format::Json => {
            let text = serde_json::to_string(&pids)
                .map_err(|error| Error::Failed(format!("ps: {error}")))?;
            output::print(&format!("{text}\n"))?;
        }
        Format::Table => output::print(&table(&ps(&args.ps_args)?, &pids)?)?,
    }
    Ok(0)
}

/// What ps(1) of the host prints.
fn ps(args: &[String]) -> Result<String> {
    let mut command = host::program("ps");
    if args.is_empty() {
        command.arg("-ef");
    } else {
        command.args(args);
    }
    let output = command.output().doing(|| "run ps (Debian: apt install procps)".to_owned())?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        return Err(Error::Failed(format!("run ps: {}: {}", output.status, words.trim_end())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The header, and the lines of the container's processes.
fn table(listing: &str, pids: &[i32]) -> Result<String> {
    let mut lines = listing.lines();
    let header = lines.next().unwrap_or_default();
    let column = header
        .split_ascii_whitespace()
        .position(|name| name == "PID")
        .ok_or_else(|| Error::Usage("ps: the arguments leave no PID column".to_owned()))?;
    let ours = lines.filter(|line| {
        let pid = line.split_ascii_whitespace().nth(column).and_then(|pid| pid.parse().ok());
        pid.is_some_and(|pid: i32| pids.contains(&pid))
    });
    Ok(std::iter::once(header).chain(ours).map(|line| format!("{line}\n")).collect())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_table_is_the_header_and_the_containers_lines() {
        let listing = "UID PID PPID CMD\nroot 1 0 init 7\nroot 7 1 sh\nroot 17 1 x\n";
        assert_eq!(super::table(listing, &[7]).unwrap(), "UID PID PPID CMD\nroot 7 1 sh\n");
        assert!(super::table("UID CMD\n", &[7]).is_err());
    }
}
