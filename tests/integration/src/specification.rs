//! SPECIFICATION.md names the test of each promise; here is the test that the names are true.

use std::fs;
use std::path::Path;

/// What stands in backquotes and has the form `suite::test` or `suite::file::test`.
fn names(page: &str) -> impl Iterator<Item = (&str, &str)> {
    let quoted = page.split('`').skip(1).step_by(2);
    quoted.filter_map(|words| words.split_once("::"))
}

#[test]
fn every_test_that_the_specification_names_exists() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(top.join("../../SPECIFICATION.md")).unwrap();
    let mut count = 0;
    for (suite, test) in names(&page) {
        let (file, test) = match test.split_once("::") {
            Some((file, test)) => (top.join(format!("tests/{suite}/{file}.rs")), test),
            None => (top.join(format!("tests/{suite}.rs")), test),
        };
        let source = fs::read_to_string(&file).unwrap_or_default();
        assert!(source.contains(&format!("fn {test}(")), "{suite}::{test} is not in {file:?}");
        count += 1;
    }
    assert!(count > 150, "only {count} names were found");
}
