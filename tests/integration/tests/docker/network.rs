//! Networks: none, host, bridge, another container's, published ports.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use corten_integration::managers::client::unique;
use corten_integration::managers::docker::{Docker, Test};
use corten_integration::managers::{Verdict, check, contains, eventually, lacks, same};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("none", none),
    ("host", host),
    ("bridge", bridge),
    ("container", container),
    ("between_containers", between_containers),
    ("own_network", own_network),
    ("published_port", published_port),
    ("low_port", low_port),
];

fn none(docker: &Docker) -> Verdict {
    let seen = docker.sh(&["--network", "none"], "ip -o link; ip -o addr; ip route")?;
    same("interfaces", &seen.matches("\\    link/").count(), &1)?;
    contains("loopback is up", &seen, "LOOPBACK,UP,LOWER_UP")?;
    contains("its address", &seen, "127.0.0.1/8")?;
    lacks("others", &seen, "eth0")?;
    let ping = docker.sh(&["--network", "none"], "ping -c 1 -W 5 127.0.0.1 | grep received")?;
    contains("ping", &ping, "1 packets received")
}

fn host(docker: &Docker) -> Verdict {
    let seen =
        docker.sh(&["--network", "host"], "readlink /proc/self/ns/net; ip -o link; hostname")?;
    let own = std::fs::read_link("/proc/self/ns/net")?.display().to_string();
    contains("namespace", &seen, &own)?;
    contains("the daemon's bridge", &seen, crate::BRIDGE)?;
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname")?;
    check(seen.ends_with(name.trim_end()), format!("host name: {seen}"))?;
    // A read-only /sys that still shows this network.
    let sys = docker.sh(&["--network", "host"], "mount | grep ' /sys '; ls -d /sys/class/net")?;
    contains("/sys", &sys, "/sys/class/net")
}

fn bridge(docker: &Docker) -> Verdict {
    let script = "ip -o -4 addr show eth0; ip route; cat /proc/sys/net/ipv4/conf/eth0/forwarding; \
                  ping -c 1 -W 5 172.30.77.1 | grep received";
    let seen = docker.sh(&["--network", "bridge"], script)?;
    contains("address", &seen, "inet 172.30.77.")?;
    contains("route", &seen, "default via 172.30.77.1 dev eth0")?;
    contains("gateway answers", &seen, "1 packets received")?;
    let fixed = ["--network", "bridge", "--mac-address", "02:42:ac:11:00:99"];
    contains("mac", &docker.sh(&fixed, "cat /sys/class/net/eth0/address")?, "02:42:ac:11:00:99")
}

fn container(docker: &Docker) -> Verdict {
    let link = "readlink /proc/self/ns/net";
    let first =
        docker.background(&["--network", "bridge"], "nc -l -p 77 -e echo hello; sleep 600")?;
    let join = format!("container:{}", first.name);
    let script = "readlink /proc/self/ns/net; until nc -w 1 127.0.0.1 77; do sleep 0.1; done";
    let seen = docker.sh(&["--network", &join], script)?;
    same("one namespace", &seen, &(first.exec(&[], link)? + "\nhello"))
}

fn between_containers(docker: &Docker) -> Verdict {
    let server = docker
        .background(&["--network", "bridge"], "while :; do nc -l -p 80 -e echo served; done")?;
    let address = server.inspect("{{.NetworkSettings.IPAddress}}")?;
    let script = format!("for i in $(seq 100); do nc -w 1 {address} 80 && break; sleep 0.1; done");
    contains("answer", &docker.sh(&["--network", "bridge"], &script)?, "served")
}

fn own_network(docker: &Docker) -> Verdict {
    let name = unique("net");
    docker.ok(&["network", "create", "--subnet", "10.99.0.0/24", &name])?;
    let check = || -> Verdict {
        let alias = ["--network", &name, "--network-alias", "server", "--ip", "10.99.0.77"];
        let server = docker.background(&alias, "while :; do nc -l -p 80 -e echo named; done")?;
        // Docker's resolver at 127.0.0.11 works by iptables inside the container's network.
        let script = "ip -o -4 addr show eth0; \
                      for i in $(seq 100); do nc -w 1 server 80 && break; sleep 0.1; done";
        let seen = docker.sh(&["--network", &name], script)?;
        contains("subnet", &seen, "10.99.0.")?;
        contains("answer by name", &seen, "named")?;
        docker.ok(&["network", "disconnect", &name, &server.name])?;
        lacks("disconnected", &server.exec(&[], "ip -o link")?, "eth")?;
        docker.ok(&["network", "connect", &name, &server.name])?;
        contains("connected again", &server.exec(&[], "ip -o -4 addr")?, "10.99.0.")
    };
    let seen = check();
    docker.ok(&["network", "rm", &name])?;
    seen
}

fn published_port(docker: &Docker) -> Verdict {
    let script = "while :; do nc -l -p 80 -e echo published; done";
    let server = docker.background(&["--network", "bridge", "-p", "127.0.0.1::80"], script)?;
    let address = server.with("port", &[])?;
    let address = address.rsplit(' ').next().unwrap_or_default().to_owned();
    eventually("an answer on the port", Duration::from_secs(20), || {
        let Ok(mut stream) = TcpStream::connect(&address) else { return Ok(false) };
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"\n").ok();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok();
        Ok(answer.contains("published"))
    })
}

fn low_port(docker: &Docker) -> Verdict {
    // Docker sets net.ipv4.ip_unprivileged_port_start=0, so an ordinary user may take port 80.
    let options = ["--network", "bridge", "--user", "alice"];
    let script = "cat /proc/sys/net/ipv4/ip_unprivileged_port_start; \
                  (echo hi | nc -l -p 80 & sleep 0.3; nc -w 2 127.0.0.1 80)";
    same("port 80", &docker.sh(&options, script)?, "0\nhi")
}
