//! `update`: other limits for a container that exists.
//!
//! The limits in force are those of the container's own copy of its config, so that is where the new
//! ones are kept, once they are in force: the next update builds on them, and a reader of the copy
//! sees what is true.

use oci_spec::runtime::LinuxResources;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::spec;
use crate::start::PATIENCE;
use crate::state::Status;
use crate::store::Store;

/// Lays `resources` over the limits of container `id`. On failure the old ones are in force.
///
/// # Errors
/// [`Error::NotRunning`] for a stopped container; the limit that could not be set; no room to write
/// them down.
pub fn update(store: &Store, id: &str, resources: &LinuxResources) -> Result<()> {
    let dir = store.open(id)?;
    let _lock = dir.lock(PATIENCE)?;
    let state = dir.read_state()?;
    if matches!(state.status()?, Status::Stopped | Status::Creating) {
        return Err(Error::NotRunning);
    }
    let bytes = dir.read_config()?;
    let config = spec::parse(&bytes)?;
    let linux = config.linux().as_ref();
    let old = linux.and_then(|linux| linux.resources().clone()).unwrap_or_default();
    let cgroup = state
        .open_cgroup()
        .ok_or_else(|| Error::Unsupported(format!("container {id} has no cgroup to update")))?;
    cgroup.update(&old, resources, |merged| dir.replace_config(&with_resources(&bytes, merged)?))
}

/// The config with other resources and nothing else changed, unknown properties included.
fn with_resources(config: &[u8], resources: &LinuxResources) -> Result<Vec<u8>> {
    let failed = |error| Error::Failed(format!("keep the new resources: {error}"));
    let mut config: Value = serde_json::from_slice(config).map_err(failed)?;
    let resources = serde_json::to_value(resources).map_err(failed)?;
    if let Some(config) = config.as_object_mut() {
        let linux = config.entry("linux").or_insert_with(|| Value::Object(Default::default()));
        if let Some(linux) = linux.as_object_mut() {
            linux.insert("resources".to_owned(), resources);
        }
    }
    serde_json::to_vec(&config).map_err(failed)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_the_resources_change() {
        let config = json!({"ociVersion": "1.0.0", "x": {"y": 1},
            "linux": {"cgroupsPath": "/a", "resources": {"pids": {"limit": 3}}}});
        let resources = serde_json::from_value(json!({"pids": {"limit": 7}})).unwrap();
        let new = with_resources(config.to_string().as_bytes(), &resources).unwrap();
        let new: Value = serde_json::from_slice(&new).unwrap();
        assert_eq!(new["x"]["y"], 1);
        assert_eq!(new["linux"]["cgroupsPath"], "/a");
        assert_eq!(new["linux"]["resources"]["pids"]["limit"], 7);
    }
}
