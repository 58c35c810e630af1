//! `corten state`: prints the state of a container as JSON.

use crate::cli::options::arguments;
use crate::cli::{Globals, container_id};
use crate::error::{Error, Result};
use crate::output;

use super::list::Entry;

arguments! {
    /// The arguments of `corten state`.
    pub struct Args {
        /// The container's id.
        id: String = operand("ID", container_id);
    }
}

/// Carries out `corten state`; the answer is the process's exit code.
///
/// # Errors
/// [`Error::NotFound`]; or the journal cannot be read.
pub fn run(globals: &Globals, args: &Args) -> Result<u8> {
    let state = globals.store().open(&args.id)?.read_state()?;
    output::print(&text(&Entry::new(&state, "")?)?)?;
    Ok(0)
}

/// runc's form: indented by two, no newline at the end, no owner.
fn text(entry: &Entry<'_>) -> Result<String> {
    serde_json::to_string_pretty(entry).map_err(|error| Error::Failed(format!("state: {error}")))
}

#[cfg(test)]
mod tests {
    use super::super::list::tests::entry;

    #[test]
    fn state_prints_what_runc_prints() {
        assert_eq!(
            super::text(&entry("a")).unwrap(),
            "{\n  \"ociVersion\": \"1.3.0\",\n  \"id\": \"a\",\n  \"pid\": 42,\n  \
             \"status\": \"running\",\n  \"bundle\": \"/b\",\n  \"rootfs\": \"/b/rootfs\",\n  \
             \"created\": \"2023-11-14T22:13:20.5Z\",\n  \"owner\": \"\"\n}"
        );
    }
}
