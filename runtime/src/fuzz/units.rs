//! What systemd is asked for: a unit, its slice, its properties.

use std::collections::{BTreeSet, HashMap};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use oci_spec::runtime::LinuxResources;

use crate::cgroup::systemd::{Plan, Value, properties};
use crate::error::Error;

/// A path of three parts is a scope in its slice, and that in the slices that its name begins with;
/// the lines after it are annotations, which are values or refused with their name.
pub fn slices(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut lines = text.split('\n');
    let path = lines.next().filter(|path| !path.is_empty()).map(Path::new);
    let annotations: HashMap<String, String> = lines
        .map(|line| line.split_once('=').unwrap_or((line, "")))
        .map(|(name, value)| (format!("org.systemd.property.{name}"), value.to_owned()))
        .collect();
    let plan = match Plan::new(path, "fuzzed", Some(&annotations), false) {
        Ok(plan) => plan,
        Err(error) => {
            let Error::Config { path, .. } = error.root() else { panic!("{error:?}") };
            assert!(path == "linux.cgroupsPath" || path.starts_with("annotations["), "{error}");
            return assert!(!error.to_string().contains('\n'), "{error}");
        }
    };
    assert_eq!(Plan::new(path, "fuzzed", Some(&annotations), false).unwrap(), plan);
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(byte);
    assert!(plan.unit.name.len() <= 255 && plan.unit.name.bytes().all(|byte| plain(&byte)));
    if let Some(path) = path {
        let parts: Vec<&str> = path.to_str().unwrap().split(':').collect();
        let [slice, prefix, name] = parts[..] else { panic!("{path:?}") };
        assert!(slice.is_empty() || slice == plan.slice);
        let dash = if prefix.is_empty() { "" } else { "-" };
        assert_eq!(plan.unit.name, format!("{prefix}{dash}{name}.scope"));
    }
    below_its_slices(&plan);
}

fn below_its_slices(plan: &Plan) {
    assert!(plan.path.components().all(|part| matches!(part, Component::Normal(_))));
    assert_eq!(plan.path.file_name().unwrap().as_bytes(), plan.unit.name.as_bytes());
    let slices: Vec<&str> =
        plan.path.parent().unwrap().iter().map(|name| name.to_str().unwrap()).collect();
    let stems: Vec<&str> = slices.iter().map(|name| name.strip_suffix(".slice").unwrap()).collect();
    // Each level adds one part.
    for (depth, stem) in stems.iter().enumerate() {
        assert_eq!(stem.split('-').count(), depth + 1, "{plan:?}");
        assert!(depth == 0 || stem.starts_with(&format!("{}-", stems[depth - 1])), "{plan:?}");
        assert!(stem.split('-').all(|part| !part.is_empty()), "{plan:?}");
    }
    assert_eq!(slices.last().unwrap_or(&"-.slice"), &plan.slice);
}

/// Limits become properties, each once, within what systemd takes.
pub(super) fn limits(resources: &LinuxResources) {
    let Ok(found) = properties::of(resources, 252) else { return };
    let names: BTreeSet<&String> = found.iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), found.len(), "{found:?}");
    let unified = resources.unified().as_ref().is_some_and(|unified| !unified.is_empty());
    for (name, value) in &found {
        match value {
            // 65,536 processors are the most that are understood.
            Value::Bytes(mask) => assert!(mask.len() <= 8193 && mask.last() != Some(&0)),
            Value::ULong(weight) if name == "CPUWeight" && !unified => {
                assert!(*weight <= 10_000 || *weight == u64::MAX, "{weight}");
            }
            Value::ULong(weight) if name == "IOWeight" && !unified => {
                assert!((1..=10_000).contains(weight), "{weight}");
            }
            Value::ULong(_) => {}
            other => panic!("{name}: {other:?}"),
        }
    }
}
