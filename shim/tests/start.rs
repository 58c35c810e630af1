//! `start`, `-info` and `-v` from outside: what containerd gets on standard output and error.
//!
//! Sockets are in a directory of the test's own, which only the dialect of containerd 2.3 can name;
//! the other two differ from it in bytes that `bootstrap::dialect` tests.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::fs;
use std::os::unix::net::UnixListener;

use common::{Bundle, one_line, shim};
use containerd_shim_corten::bootstrap::socket;
use containerd_shim_protos::bootstrap_api::BootstrapResult;
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::types::introspection::RuntimeInfo;

#[test]
fn the_daemon_of_the_group_is_found() {
    let bundle = Bundle::new(r#"{"annotations":{"io.kubernetes.cri.sandbox-id":"pod"}}"#);
    let path = bundle.socket("pod");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let _daemon = UnixListener::bind(&path).unwrap();
    let out = bundle.start(&[]);
    assert!(out.status.success(), "{out:?}");
    assert!(out.stderr.is_empty(), "{out:?}");
    let answer = BootstrapResult::parse_from_bytes(&out.stdout).unwrap();
    assert_eq!((answer.version, answer.protocol.as_str()), (3, "ttrpc"));
    assert_eq!(answer.address, socket::address(&path));
    assert_eq!(fs::read_to_string(bundle.path().join("address")).unwrap(), answer.address);
    assert!(bundle.path().join("options.json").exists());
}

#[test]
fn a_daemon_that_can_not_run_is_said_so_and_leaves_no_socket() {
    let bundle = Bundle::new("{}");
    fs::create_dir(bundle.path().join("log")).unwrap();
    let out = bundle.start(&[]);
    assert_eq!(out.status.code(), Some(1), "{out:?}");
    assert!(out.stdout.is_empty(), "{out:?}");
    let line = one_line(&out.stderr);
    assert!(line.contains("start the shim: open the bundle's log: is a directory"), "{line}");
    assert!(!bundle.socket("demo").exists());
}

#[test]
fn what_can_not_be_started_is_said_in_one_line() {
    let bundle = Bundle::new("{}");
    let out = bundle.start(&["-frobnicate"]);
    assert!(one_line(&out.stderr).contains("unknown flag -frobnicate"), "{out:?}");
    fs::remove_file(bundle.path().join("config.json")).unwrap();
    let out = bundle.start(&[]);
    assert!(one_line(&out.stderr).contains("read config.json: no such file"), "{out:?}");
    let out = bundle.run(b"nonsense", &["-namespace", "n", "-id", "demo", "start"]);
    assert!(one_line(&out.stderr).contains("standard input"), "{out:?}");
    assert_eq!((out.status.code(), out.stdout.len()), (Some(1), 0), "{out:?}");
}

#[test]
fn the_daemon_needs_a_listener() {
    let bundle = Bundle::new("{}");
    let out = bundle.run(&[], &["-namespace", "n", "-id", "demo"]);
    assert!(one_line(&out.stderr).contains("descriptor 3 is no listening socket"), "{out:?}");
}

#[test]
fn info_needs_nothing() {
    // Standard input closed, as some callers leave it.
    let closed = shim().arg("-info").stdin(std::process::Stdio::null()).output().unwrap();
    let bundle = Bundle::new("{}");
    for out in [closed, bundle.run(&[], &["-info"])] {
        assert!(out.status.success() && out.stderr.is_empty(), "{out:?}");
        let info = RuntimeInfo::parse_from_bytes(&out.stdout).unwrap();
        assert_eq!(info.name, "io.containerd.corten.v2");
        assert!(info.features.type_url.ends_with("/features/Features"));
        assert!(info.annotations.is_empty());
    }
}

#[test]
fn the_version_is_printed_as_gos_shims_do() {
    for flag in ["-v", "--version"] {
        let out = shim().arg(flag).output().unwrap();
        let text = String::from_utf8(out.stdout).unwrap();
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("containerd-shim-corten-v2:"));
        assert!(lines.next().unwrap().starts_with("  Version:  "), "{text}");
        assert!(lines.next().unwrap().starts_with("  Revision: "), "{text}");
    }
}
