//! `corten --version`: what dockerd, podman and people read.

use crate::error::Result;
use crate::output;

/// The runtime-spec that this runtime implements.
pub const SPEC: &str = "1.3.0";

/// The commit this was built from, if the build says so.
pub const COMMIT: &str = match option_env!("CORTEN_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

/// Prints the version.
///
/// # Errors
/// [`crate::Error::Sys`] if standard output is gone.
pub fn run() -> Result<u8> {
    output::print(&text())?;
    Ok(0)
}

/// dockerd reads every line and takes the last that contains the word `version`, so only the
/// first may (P10); it also reads `commit:` and `spec:`.
fn text() -> String {
    format!("corten version {}\ncommit: {COMMIT}\nspec: {SPEC}\n", env!("CARGO_PKG_VERSION"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_the_first_line_says_version_and_says_it_once() {
        let text = super::text();
        let mut lines = text.lines();
        let first = lines.next().unwrap();
        assert_eq!(first.split(' ').filter(|word| *word == "version").count(), 1, "{first}");
        assert!(first.starts_with("corten version 0."), "{first}");
        assert!(lines.clone().all(|line| !line.contains("version")), "{text}");
        assert!(lines.any(|line| line.starts_with("commit: ")), "{text}");
    }
}
