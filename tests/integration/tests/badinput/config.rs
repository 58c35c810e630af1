//! The file config.json: what it is, its bytes, its size.

use std::fs;

use corten_integration::suite::Case;
use corten_integration::{Bundle, Flavour, Test, tests};
use serde_json::json;

use crate::refused;

pub(crate) const TESTS: &[Case] = tests![
    config_that_is_not_json,
    config_that_is_not_utf8,
    config_that_is_not_an_object,
    config_absent,
    config_that_is_a_directory,
    config_that_is_huge,
    config_nested_very_deep,
    duplicate_keys_do_not_crash,
    huge_argument_lists,
    many_mounts,
    cut_off_configs,
];

fn with_text(t: &Test, bytes: &[u8]) -> Bundle {
    let b = t.bundle();
    b.write_raw(bytes);
    b
}

/// Syntax errors, with the line they are in.
fn config_that_is_not_json(t: &Test) {
    for text in [
        "",
        " ",
        "{",
        "}",
        "nope",
        "{\"ociVersion\": }",
        "{\"a\": 1,}",
        "{\"a\" 1}",
        "{} {}",
        "\u{feff}{}",
        "'x'",
    ] {
        refused(t, &with_text(t, text.as_bytes()));
    }
    t.skip_on_peers("words of their own");
    let out = refused(t, &with_text(t, b"{\n  \"ociVersion\": \"1.0.2\",\n  oops\n}"));
    out.says("config.json").says("line 3");
}

/// Bytes that are no text.
fn config_that_is_not_utf8(t: &Test) {
    t.skip_on_peers("replace the bytes");
    for bytes in [
        &b"\xff\xfe{}"[..],
        b"{\"ociVersion\": \"\xff\"}",
        &[0; 64],
        b"{\"hostname\": \"\xc3\x28\"}",
    ] {
        refused(t, &with_text(t, bytes)).says("config.json");
    }
}

/// JSON of another shape.
fn config_that_is_not_an_object(t: &Test) {
    for text in ["[]", "1", "\"x\"", "true", "[{}]", "null"] {
        if text == "null" && t.flavour == Flavour::Runc {
            continue; // It crashes.
        }
        refused(t, &with_text(t, text.as_bytes()));
    }
}

/// No config.json.
fn config_absent(t: &Test) {
    let b = t.bundle();
    refused(t, &b).says("config.json").says("no such file|not found");
}

/// Something else by that name.
fn config_that_is_a_directory(t: &Test) {
    let b = t.bundle();
    fs::create_dir(b.dir.join("config.json")).unwrap();
    refused(t, &b).says("is a directory");
}

/// Many megabytes: refused or taken, in reasonable time.
fn config_that_is_huge(t: &Test) {
    let mut b = t.bundle();
    b.set("annotations", json!({"big": "x".repeat(20_000_000)})).probe(&["exit", "0"]);
    b.write();
    let out = t.call(&["run", "--bundle", b.path(), &b.id]);
    if out.code != 0 {
        out.fails();
    }
    t.nothing_left(&b);
}

/// Deep nesting must not overflow the stack.
fn config_nested_very_deep(t: &Test) {
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let text = format!("{{\"x\": {}1{}}}", open.repeat(200_000), close.repeat(200_000));
        let b = with_text(t, text.as_bytes());
        let out = t.call(&["create", "--bundle", b.path(), &b.id]);
        assert_ne!(out.code, 0);
        assert!(out.code < 128, "{} crashed", out.code);
        t.nothing_left(&b);
    }
}

/// Whatever is made of a key that stands twice.
fn duplicate_keys_do_not_crash(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["exit", "0"]);
    let text = b.config.to_string().replacen(
        "{\"",
        "{\"hostname\":\"first\",\"hostname\":\"second\",\"",
        1,
    );
    b.write_raw(text.as_bytes());
    let out = t.call(&["run", "--bundle", b.path(), &b.id]);
    assert!(out.code < 2, "{out}");
    t.nothing_left(&b);
}

/// Ten megabytes of arguments or environment: E2BIG in words, not a crash or a hang.
fn huge_argument_lists(t: &Test) {
    let big: Vec<String> = (0..2000).map(|_| "x".repeat(5000)).collect();
    let mut b = t.bundle();
    b.set(
        "process.env",
        json!(big.iter().zip(0..).map(|(s, n)| format!("A{n}={s}")).collect::<Vec<_>>()),
    )
    .probe(&["exit", "0"]);
    let out = t.run(&b);
    assert!(out.code != 0 && out.code < 128, "{}", out.code);
    out.says("argument list too long");
    t.nothing_left(&b);
    let mut b = t.bundle();
    let many: Vec<String> = (0..5000).map(|n| format!("A{n}={}", "y".repeat(20))).collect();
    b.set("process.env", json!(many)).probe(&["exit", "0"]);
    t.run(&b).ok();
}

/// Hundreds of mounts.
fn many_mounts(t: &Test) {
    let mut b = t.bundle();
    for n in 0..300 {
        b.mount(&format!("/m/{n}"), "bind", "/usr/share", &["rbind", "ro", "nosuid"]);
    }
    b.probe(&["ls", "/m/299"]);
    assert_eq!(t.run(&b).ok().fact(0)["ok"], true);
}

/// A config cut off anywhere is refused, and never half-believed.
fn cut_off_configs(t: &Test) {
    let b = t.bundle();
    let text = serde_json::to_vec(&b.config).unwrap();
    for n in (0..text.len()).step_by(text.len() / 40) {
        b.write_raw(&text[..n]);
        refused(t, &b);
    }
}
