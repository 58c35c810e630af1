//! The interfaces of the container's network namespace, from /proc/PID/net/dev.
//!
//! containerd's shim leaves them out; they cost nothing to those who do not look. Loopback is left
//! out, and so is everything when the namespace is the host's: its traffic is not the container's.

use corten::cgroup::stats::NetworkInterface;
use nix::sys::stat::stat;
use nix::unistd::Pid;

/// The interfaces that `pid` sees; none when it has gone, or may not be looked at.
pub(super) fn of(pid: Option<Pid>) -> Vec<NetworkInterface> {
    let Some(pid) = pid.filter(|pid| has_its_own(*pid)) else { return Vec::new() };
    let text = std::fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default();
    text.lines().filter_map(interface).filter(|found| found.name != "lo").collect()
}

fn has_its_own(pid: Pid) -> bool {
    let namespace = |process: &str| {
        let found = stat(format!("/proc/{process}/ns/net").as_str());
        found.map(|found| (found.st_dev, found.st_ino))
    };
    match (namespace(&pid.to_string()), namespace("self")) {
        (Ok(its), Ok(ours)) => its != ours,
        _ => false,
    }
}

/// `eth0:` and 16 numbers: bytes, packets, errs, drop and 4 more received, the same sent. The two
/// lines of headings have no such number of numbers.
fn interface(line: &str) -> Option<NetworkInterface> {
    let (name, rest) = line.rsplit_once(':')?;
    let mut numbers = [0_u64; 16];
    let mut words = rest.split_ascii_whitespace();
    for number in &mut numbers {
        *number = words.next()?.parse().ok()?;
    }
    let [rx_bytes, rx_packets, rx_errors, rx_dropped, ..] = numbers;
    let [.., tx_bytes, tx_packets, tx_errors, tx_dropped, _, _, _, _] = numbers;
    let name = name.trim_start().to_owned();
    Some(NetworkInterface {
        name,
        rx_bytes,
        rx_packets,
        rx_errors,
        rx_dropped,
        tx_bytes,
        tx_packets,
        tx_errors,
        tx_dropped,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_is_a_line_with_sixteen_numbers() {
        let line = "  eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16";
        let found = interface(line).unwrap();
        assert_eq!(found.name, "eth0");
        assert_eq!(
            (found.rx_bytes, found.rx_packets, found.rx_errors, found.rx_dropped),
            (1, 2, 3, 4)
        );
        assert_eq!(
            (found.tx_bytes, found.tx_packets, found.tx_errors, found.tx_dropped),
            (9, 10, 11, 12)
        );
        assert_eq!(interface("Inter-|   Receive                |  Transmit"), None);
        assert_eq!(
            interface(" face |bytes    packets errs drop fifo frame compressed multicast"),
            None
        );
    }

    #[test]
    fn the_hosts_interfaces_are_not_a_containers() {
        assert_eq!(of(Some(Pid::this())), []);
        assert_eq!(of(None), []);
    }
}
