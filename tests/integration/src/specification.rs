//! SPECIFICATION.md names the test of each promise; here is the test that the names are true.

use std::fs;
use std::path::{Path, PathBuf};

/// What stands in backquotes and has the form `suite::test` or `suite::file::test`.
fn names(page: &str) -> impl Iterator<Item = (&str, &str)> {
    let quoted = page.split('`').skip(1).step_by(2);
    quoted.filter_map(|words| words.split_once("::"))
}

/// A suite is one file or a folder of them.
pub(crate) fn files_of(suites: &Path, suite: &str) -> Vec<PathBuf> {
    let folder = fs::read_dir(suites.join(suite)).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = folder.map(|entry| entry.path()).collect();
    files.push(suites.join(format!("{suite}.rs")));
    files
}

#[test]
fn every_test_that_the_specification_names_exists() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(top.join("../../SPECIFICATION.md")).unwrap();
    let mut count = 0;
    for (suite, test) in names(&page) {
        let suites = top.join("tests");
        let (files, test) = match test.split_once("::") {
            Some((file, test)) => (vec![suites.join(suite).join(format!("{file}.rs"))], test),
            None => (files_of(&suites, suite), test),
        };
        let sources = files.iter().filter_map(|file| fs::read_to_string(file).ok());
        let source: String = sources.collect();
        assert!(source.contains(&format!("fn {test}(")), "{suite}::{test} is not in {files:?}");
        count += 1;
    }
    assert!(count > 150, "only {count} names were found");
}
