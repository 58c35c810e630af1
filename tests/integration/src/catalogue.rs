//! The suite `security` lists the attacks' catalogue; here is the test that the list is whole and true.

use std::fs;
use std::path::Path;

/// Chapters and how many entries each has.
const CHAPTERS: [(char, u32); 8] =
    [('P', 9), ('X', 5), ('D', 7), ('F', 6), ('C', 6), ('G', 6), ('H', 3), ('S', 6)];

#[test]
fn every_entry_has_its_row_and_every_test_exists() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(top.join("tests/security/main.rs")).unwrap();
    let rows: Vec<(&str, &str)> = page
        .lines()
        .filter_map(|line| line.strip_prefix("//! | ")?.split_once(" | "))
        .filter(|(entry, _)| *entry != "entry")
        .collect();
    let mut wanted = vec!["T-INV".to_owned(), "T-ENOSYS".to_owned()];
    for (letter, count) in CHAPTERS {
        wanted.extend((1..=count).map(|number| format!("{letter}{number}")));
    }
    let entries: Vec<&str> = rows.iter().map(|(entry, _)| *entry).collect();
    assert_eq!(entries, wanted);
    for name in page.lines().filter(|line| line.starts_with("//!")).flat_map(names) {
        let parts: Vec<&str> = name.split("::").collect();
        let (file, test) = match parts[..] {
            [suite, test] => (format!("tests/{suite}.rs"), test),
            [suite, file, test] => (format!("tests/{suite}/{file}.rs"), test),
            _ => panic!("{name}"),
        };
        let source = fs::read_to_string(top.join(&file)).unwrap_or_default();
        assert!(source.contains(&format!("fn {test}(")), "{name} is not in {file}");
    }
}

fn names(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2).filter(|words| words.contains("::"))
}
