//! Rules about the source and about what it is made of, which no type checks.
//!
//! `unsafe` is only in `sys`, one block for one call, each with the reason why it is sound; there are
//! at most as many as stand here, so that many new ones are a decision. And of `deny.toml`, what `cargo metadata`
//! is enough for: licences, forbidden crates, sources. `cargo deny check` does it better, and
//! advisories and duplicates too, where the registry can be reached (`scripts/deny`).

#![allow(clippy::unwrap_used, reason = "to panic is how a test tells")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The most that both programs together may have, the tests' own not counted. Lower it when some
/// are gone; raise it with a reason.
const MOST: usize = 120;

const SYS: &str = "runtime/src/sys/";

/// `#[unsafe(no_mangle)]` of C's `main`.
const MAINS: [&str; 2] = ["runtime/src/main.rs", "shim/src/main.rs"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() && name != "tests" {
            sources(&path, found);
        } else if name.ends_with(".rs") && !matches!(name, "tests.rs" | "testing.rs") {
            found.push(path);
        }
    }
}

/// The code of a line: no comment, and strings do not say `unsafe` here.
fn says_unsafe(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    code.split(|letter: char| !letter.is_alphanumeric() && letter != '_')
        .any(|word| word == "unsafe")
}

#[test]
fn unsafe_code_is_in_sys_alone_and_each_block_says_why_it_is_sound() {
    let root = root();
    let mut files = Vec::new();
    for dir in ["runtime/src", "shim/src"] {
        sources(&root.join(dir), &mut files);
    }
    let mut count = 0;
    for file in files {
        let name = file.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&file).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        for (at, line) in lines.iter().enumerate().filter(|(_, line)| says_unsafe(line)) {
            count += 1;
            if MAINS.contains(&name.as_str()) {
                assert!(line.contains("#[unsafe(no_mangle)]"), "{name}:{}", at + 1);
                continue;
            }
            assert!(name.starts_with(SYS), "{name}:{}: unsafe code belongs in {SYS}", at + 1);
            let before = &lines[at.saturating_sub(12)..at];
            let mut comments =
                before.iter().rev().skip_while(|line| !line.trim().starts_with("//"));
            let why = comments
                .by_ref()
                .take_while(|line| line.trim().starts_with("//"))
                .any(|line| line.contains("SAFETY:") || line.contains("# Safety"));
            assert!(why, "{name}:{}: no SAFETY comment", at + 1);
        }
    }
    println!("unsafe: {count} times, at most {MOST}");
    // Less than half of it would mean that the count does not see them any more.
    assert!((MOST / 2..=MOST).contains(&count), "unsafe {count} times, but at most {MOST}");
}

fn packages() -> Vec<Value> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--locked", "--offline"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

/// The licences that deny.toml allows.
fn licences(deny: &str) -> Vec<String> {
    let start = deny.find("\nallow = [").unwrap();
    let list = &deny[start..start + deny[start..].find(']').unwrap()];
    list.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Whether one of the `OR`s, all of its `AND`s, is allowed.
fn allowed(expression: &str, allow: &[String]) -> bool {
    let expression = expression.replace('/', " OR ");
    let expression = expression.trim();
    if let Some(inner) = expression.strip_prefix('(')
        && let Some((inner, rest)) = inner.split_once(')')
    {
        let rest = rest.trim();
        return match (rest.strip_prefix("AND "), rest.strip_prefix("OR ")) {
            (Some(rest), _) => allowed(inner, allow) && allowed(rest, allow),
            (_, Some(rest)) => allowed(inner, allow) || allowed(rest, allow),
            _ => allowed(inner, allow),
        };
    }
    if let Some((one, rest)) = expression.split_once(" AND ") {
        return allowed(one, allow) && allowed(rest, allow);
    }
    expression.split(" OR ").any(|one| allow.iter().any(|known| known == one.trim()))
}

#[test]
fn what_it_is_made_of_keeps_to_deny_toml() {
    let deny = fs::read_to_string(root().join("deny.toml")).unwrap();
    let allow = licences(&deny);
    assert!(allow.iter().any(|licence| licence == "MIT"));
    let banned: Vec<&str> = deny
        .lines()
        .filter_map(|line| line.trim().strip_prefix("{ crate = \"")?.split('"').next())
        .collect();
    assert_eq!(banned, ["tokio", "openssl", "prctl"]);
    let mut seen = 0;
    for package in packages() {
        let name = package["name"].as_str().unwrap();
        let licence = package["license"].as_str().unwrap_or("none");
        assert!(allowed(licence, &allow), "{name}: licence {licence}");
        assert!(!banned.contains(&name), "{name} is forbidden by deny.toml");
        let source = package["source"].as_str();
        let registry = "registry+https://github.com/rust-lang/crates.io-index";
        assert!(source.is_none_or(|source| source == registry), "{name} is from {source:?}");
        seen += 1;
        if source.is_some() {
            continue;
        }
        for dependency in package["dependencies"].as_array().unwrap() {
            let any = dependency["req"] == "*" && dependency["path"].is_null();
            assert!(!any, "{name}: {} may have any version", dependency["name"]);
        }
    }
    assert!(seen > 50, "{seen}");
}

#[test]
fn licences_are_read() {
    let allow = ["MIT".to_owned(), "Apache-2.0".to_owned(), "Unicode-3.0".to_owned()];
    for good in ["MIT", "MIT/GPL-3.0", "GPL-2.0 OR MIT", "(MIT OR GPL-2.0) AND Unicode-3.0"] {
        assert!(allowed(good, &allow), "{good}");
    }
    for bad in ["GPL-3.0", "MIT AND GPL-3.0", "(MIT OR Apache-2.0) AND GPL-3.0", "none", ""] {
        assert!(!allowed(bad, &allow), "{bad}");
    }
}
