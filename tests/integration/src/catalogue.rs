//! The suites `security` and `faults` list their catalogues; here is the test that the lists are whole
//! and true.

use std::fs;
use std::path::Path;

use crate::specification::files_of;

/// Chapters and how many entries each has.
type Chapters = [(&'static str, u32)];

#[test]
fn every_attack_has_its_row_and_every_test_exists() {
    let chapters = [("P", 9), ("X", 5), ("D", 7), ("F", 6), ("C", 6), ("G", 6), ("H", 3), ("S", 6)];
    check("security", &["T-INV", "T-ENOSYS"], &chapters);
}

#[test]
fn every_fault_has_its_row_and_every_test_exists() {
    check("faults", &[], &[("R", 30), ("H", 18)]);
}

fn check(suite: &str, first: &[&str], chapters: &Chapters) {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(top.join(format!("tests/{suite}/main.rs"))).unwrap();
    let rows: Vec<(&str, &str)> = page
        .lines()
        .filter_map(|line| line.strip_prefix("//! | ")?.split_once(" | "))
        .filter(|(entry, _)| *entry != "entry")
        .collect();
    let mut wanted: Vec<String> = first.iter().map(ToString::to_string).collect();
    for (letter, count) in chapters {
        wanted.extend((1..=*count).map(|number| format!("{letter}{number}")));
    }
    let entries: Vec<&str> = rows.iter().map(|(entry, _)| *entry).collect();
    assert_eq!(entries, wanted);
    for name in page.lines().filter(|line| line.starts_with("//!")).flat_map(names) {
        let suites = top.join("tests");
        let parts: Vec<&str> = name.split("::").collect();
        let (files, test) = match parts[..] {
            [suite, test] => (files_of(&suites, suite), test),
            [suite, file, test] => (vec![suites.join(suite).join(format!("{file}.rs"))], test),
            _ => panic!("{name}"),
        };
        let sources = files.iter().filter_map(|file| fs::read_to_string(file).ok());
        let source: String = sources.collect();
        assert!(source.contains(&format!("fn {test}(")), "{name} is not in {files:?}");
    }
}

fn names(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2).filter(|words| words.contains("::"))
}
