//! What a container asks of cgroups, checked before anything exists.
//!
//! Pure. [`Plan::new`] refuses what no cgroup version could do, with the JSON path; what only one
//! version can do is refused by [`super::v1::writes`] or [`super::v2::writes`] once the host's
//! version is known, and still before the first directory is made. Zero means "not asked" in most
//! fields: Docker sends `blkioWeight: 0` and the like for every container, and runc reads it so.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::{Linux, LinuxResources};

use super::devices::Rules;
use super::systemd;
use crate::error::{Error, Result};

/// What the caller knows and config.json does not say.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'a> {
    /// The container's id: the name of the group when the configuration has none.
    pub id: &'a str,
    /// Go on without cgroups where there is no permission and nothing was asked (runc's rootless).
    pub rootless: bool,
    /// The runtime itself runs in a user namespace: device rules are the outer one's.
    pub in_user_namespace: bool,
    /// Let systemd make the group.
    pub systemd: bool,
    /// The configuration's annotations, some of which are for systemd.
    pub annotations: Option<&'a HashMap<String, String>>,
    /// Hooks run before the program does, with the host's rights: they may allow devices.
    pub hooks: bool,
    /// Give the group to this user (host id): a private cgroup namespace with a writable mount.
    pub owner: Option<u32>,
}

/// Where the group is, relative to what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Below the mount point of each hierarchy.
    Absolute(PathBuf),
    /// Below the runtime's own group (v1), or beside it (v2, where a group with processes can't
    /// have limited sub-groups).
    Relative(PathBuf),
}

/// Everything asked for, validated.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The group's place.
    pub place: Place,
    /// Whether the configuration names the place, so that failing to make it is an error.
    pub explicit: bool,
    /// The limits; its devices are in `devices` instead.
    pub resources: LinuxResources,
    /// The device rules; `None` when they can't be set from here.
    pub devices: Option<Rules>,
    /// See [`Options::rootless`].
    pub rootless: bool,
    /// See [`Options::owner`].
    pub owner: Option<u32>,
    /// The unit, when systemd makes the group; `place` is then below its manager's group.
    pub unit: Option<systemd::Plan>,
}

impl Plan {
    /// Checks `linux.cgroupsPath` and `linux.resources`.
    ///
    /// # Errors
    /// [`Error::Config`] with the JSON path.
    pub fn new(linux: &Linux, options: &Options<'_>) -> Result<Self> {
        let path = linux.cgroups_path().as_deref().filter(|path| !path.as_os_str().is_empty());
        let unit = options
            .systemd
            .then(|| systemd::Plan::new(path, options.id, options.annotations, options.hooks))
            .transpose()?;
        let place = match (&unit, path) {
            (Some(unit), _) => Place::Absolute(unit.path.clone()),
            (None, Some(path)) => place(path)?,
            (None, None) => Place::Relative(options.id.into()),
        };
        let nodes = linux.devices().as_deref().unwrap_or_default();
        let mut resources = linux.resources().clone().unwrap_or_default();
        let rules = resources.devices().clone().unwrap_or_default();
        resources.set_devices(None);
        check(&resources)?;
        let devices = Rules::new(&rules, nodes)?;
        Ok(Self {
            place,
            explicit: path.is_some(),
            resources,
            devices: (!options.in_user_namespace).then_some(devices),
            rootless: options.rootless,
            owner: options.owner,
            unit,
        })
    }

    /// Whether doing without this group is what the user wants in case of no permission.
    pub(super) fn lenient(&self) -> bool {
        self.rootless && !self.explicit && self.unit.is_none()
    }
}

/// A path that stays below where it starts.
pub(crate) fn place(path: &Path) -> Result<Place> {
    let refuse = |why: &str| Err(Error::config("linux.cgroupsPath", format!("{path:?} {why}")));
    let mut below = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) if bad_name(name) => {
                return refuse("has a name that no group can have");
            }
            Component::Normal(name) => below.push(name),
            Component::ParentDir => return refuse("has a \"..\""),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    if below.as_os_str().is_empty() {
        return refuse("is not a group of its own");
    }
    if below.as_os_str().len() >= 3800 {
        return refuse("is too long");
    }
    Ok(if path.is_absolute() { Place::Absolute(below) } else { Place::Relative(below) })
}

/// The kernel takes 255 bytes and no newline, which would forge lines of /proc/PID/cgroup.
fn bad_name(name: &OsStr) -> bool {
    let bytes = name.as_bytes();
    bytes.len() > 255 || bytes.iter().any(|byte| matches!(byte, b'\n' | 0))
}

/// One value for one control file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The controller that has the file.
    pub controller: Cow<'static, str>,
    /// Who asked for it, below `linux.resources.`.
    pub json: Cow<'static, str>,
    /// The file's name.
    pub file: Cow<'static, str>,
    /// What to write.
    pub value: String,
    /// Older or newer kernels may lack the file, and nothing is lost then.
    pub optional: bool,
    /// Depends on another value of the list: when refused with `EINVAL`, write it once more last.
    pub again: bool,
    /// What to write where when the file is missing.
    pub instead: Option<(&'static str, String)>,
}

impl Write {
    pub(super) fn new(
        controller: &'static str,
        json: impl Into<Cow<'static, str>>,
        file: impl Into<Cow<'static, str>>,
        value: impl ToString,
    ) -> Self {
        Self {
            controller: controller.into(),
            json: json.into(),
            file: file.into(),
            value: value.to_string(),
            optional: false,
            again: false,
            instead: None,
        }
    }

    pub(super) fn optional(mut self) -> Self {
        self.optional = true;
        self
    }

    pub(super) fn again(mut self) -> Self {
        self.again = true;
        self
    }

    pub(super) fn or(mut self, file: &'static str, value: impl ToString) -> Self {
        self.instead = Some((file, value.to_string()));
        self
    }
}

/// A number that was asked for: absent and 0 both mean it was not.
pub(super) fn asked<T: Default + PartialEq>(value: Option<T>) -> Option<T> {
    value.filter(|value| *value != T::default())
}

/// An error about `linux.resources.<json>`.
pub(super) fn wrong(json: &str, why: impl Into<String>) -> Error {
    Error::config(format!("linux.resources.{json}"), why)
}

/// What is wrong on every cgroup version.
pub(super) fn check(resources: &LinuxResources) -> Result<()> {
    if let Some(memory) = resources.memory() {
        let amounts = [
            ("memory.limit", memory.limit()),
            ("memory.swap", memory.swap()),
            ("memory.reservation", memory.reservation()),
        ];
        for (json, amount) in amounts {
            if let Some(amount) = amount.filter(|amount| *amount < -1) {
                return Err(wrong(json, format!("{amount} is neither bytes nor -1 (unlimited)")));
            }
        }
        #[allow(deprecated, reason = "they are said to be ignored")]
        if asked(memory.kernel()).is_some() || asked(memory.kernel_tcp()).is_some() {
            tracing::warn!("Kernel memory settings are ignored and will be removed");
        }
        if let Some(swappiness) = memory.swappiness().filter(|value| *value > 100) {
            return Err(wrong("memory.swappiness", format!("{swappiness} is not within 0 to 100")));
        }
    }
    if let Some(cpu) = resources.cpu() {
        for (json, list) in [("cpu.cpus", cpu.cpus()), ("cpu.mems", cpu.mems())] {
            check_list(json, list.as_deref().unwrap_or_default())?;
        }
        if let Some(idle) = cpu.idle().filter(|idle| !(0..=1).contains(idle)) {
            return Err(wrong("cpu.idle", format!("{idle} is neither 0 nor 1")));
        }
    }
    check_block_io(resources)?;
    for (index, limit) in resources.hugepage_limits().iter().flatten().enumerate() {
        let (digits, unit) = limit
            .page_size()
            .split_at(limit.page_size().find(|c: char| !c.is_ascii_digit()).unwrap_or(0));
        if digits.is_empty() || !matches!(unit, "KB" | "MB" | "GB") {
            let why = format!("{:?} is not a page size like 2MB", limit.page_size());
            return Err(wrong(&format!("hugepageLimits[{index}].pageSize"), why));
        }
        if limit.limit() < 0 {
            let why = format!("{} is not a number of bytes", limit.limit());
            return Err(wrong(&format!("hugepageLimits[{index}].limit"), why));
        }
    }
    let priorities = resources.network().as_ref().and_then(|network| network.priorities().as_ref());
    for (index, priority) in priorities.into_iter().flatten().enumerate() {
        if priority.name().is_empty() || priority.name().contains(char::is_whitespace) {
            let why = format!("{:?} is not an interface", priority.name());
            return Err(wrong(&format!("network.priorities[{index}].name"), why));
        }
    }
    for device in resources.rdma().iter().flat_map(|rdma| rdma.keys()) {
        if device.is_empty() || device.contains(char::is_whitespace) {
            return Err(wrong(&format!("rdma[{device:?}]"), "is not a device"));
        }
    }
    for key in resources.unified().iter().flat_map(|unified| unified.keys()) {
        if key.contains(|letter: char| letter == '/' || letter.is_control())
            || !key.contains('.')
            || key.starts_with('.')
        {
            let why = "is not a file name of the form CONTROLLER.PARAMETER";
            return Err(wrong(&format!("unified[{key:?}]"), why));
        }
    }
    Ok(())
}

fn check_block_io(resources: &LinuxResources) -> Result<()> {
    let Some(block) = resources.block_io() else { return Ok(()) };
    let weight = |json: &str, weight: Option<u16>| match asked(weight) {
        Some(weight) if !(10..=1000).contains(&weight) => {
            Err(wrong(json, format!("{weight} is not within 10 to 1000")))
        }
        _ => Ok(()),
    };
    weight("blockIO.weight", block.weight())?;
    weight("blockIO.leafWeight", block.leaf_weight())?;
    for (index, device) in block.weight_device().iter().flatten().enumerate() {
        weight(&format!("blockIO.weightDevice[{index}].weight"), device.weight())?;
        weight(&format!("blockIO.weightDevice[{index}].leafWeight"), device.leaf_weight())?;
    }
    Ok(())
}

/// A list of numbers and ranges. Its meaning is the kernel's to judge.
fn check_list(json: &str, list: &str) -> Result<()> {
    let number = |text: &str| text.parse::<u32>().is_ok_and(|_| !text.starts_with('+'));
    let part = |part: &str| match part.trim().split_once('-') {
        // The kernel also takes strides: 0-31:2/16.
        Some((from, to)) => number(from) && to.split([':', '/']).all(number),
        None => number(part.trim()),
    };
    if list.trim().is_empty() || list.split(',').all(part) {
        return Ok(());
    }
    Err(wrong(json, format!("{list:?} is not a list like 0-3,7")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn linux(json: serde_json::Value) -> Linux {
        serde_json::from_value(json).unwrap()
    }

    fn plan(json: serde_json::Value) -> Result<Plan> {
        Plan::new(&linux(json), &Options { id: "box", ..Options::default() })
    }

    #[test]
    fn a_path_is_taken_as_it_is_or_refused() {
        for (path, expected) in [
            (None, Some(Place::Relative("box".into()))),
            (Some(""), Some(Place::Relative("box".into()))),
            (Some("/docker/abc"), Some(Place::Absolute("docker/abc".into()))),
            (Some("//docker/./abc/"), Some(Place::Absolute("docker/abc".into()))),
            (Some("user/abc"), Some(Place::Relative("user/abc".into()))),
            (Some("/"), None),
            (Some("."), None),
            (Some("/../../x"), None),
            (Some("a/../../b"), None),
            (Some("a/.."), None),
            (Some("/a\nb"), None),
        ] {
            let json = serde_json::json!({ "cgroupsPath": path });
            assert_eq!(plan(json).map(|plan| plan.place).ok(), expected, "{path:?}");
        }
        let long = format!("/{}", "x".repeat(300));
        let error = plan(serde_json::json!({ "cgroupsPath": long })).unwrap_err();
        assert!(error.to_string().starts_with("config.json: linux.cgroupsPath: "), "{error}");
    }

    proptest::proptest! {
        #[test]
        fn a_place_is_always_below_where_it_starts(path in "[./a\n]{0,12}") {
            if let Ok(Place::Absolute(below) | Place::Relative(below)) = place(Path::new(&path)) {
                let plain = |part| matches!(part, Component::Normal(_));
                proptest::prop_assert!(below.components().all(plain));
                proptest::prop_assert!(below.components().count() > 0);
            }
        }
    }

    #[test]
    fn wrong_values_are_blamed_on_their_json_path() {
        for (resources, path) in [
            (r#"{"memory": {"limit": -2}}"#, "memory.limit"),
            (r#"{"memory": {"swap": -7}}"#, "memory.swap"),
            (r#"{"memory": {"swappiness": 101}}"#, "memory.swappiness"),
            (r#"{"cpu": {"cpus": "0-"}}"#, "cpu.cpus"),
            (r#"{"cpu": {"cpus": "0\n1"}}"#, "cpu.cpus"),
            (r#"{"cpu": {"mems": "+1"}}"#, "cpu.mems"),
            (r#"{"cpu": {"idle": 2}}"#, "cpu.idle"),
            (r#"{"blockIO": {"weight": 5}}"#, "blockIO.weight"),
            (
                r#"{"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "weight": 2000}]}}"#,
                "blockIO.weightDevice[0].weight",
            ),
            (
                r#"{"hugepageLimits": [{"pageSize": "../x", "limit": 1}]}"#,
                "hugepageLimits[0].pageSize",
            ),
            (
                r#"{"hugepageLimits": [{"pageSize": "2MB", "limit": -1}]}"#,
                "hugepageLimits[0].limit",
            ),
            (
                r#"{"network": {"priorities": [{"name": "a b", "priority": 1}]}}"#,
                "network.priorities[0].name",
            ),
            (r#"{"unified": {"../memory.max": "1"}}"#, "unified[\"../memory.max\"]"),
        ] {
            let resources: serde_json::Value = serde_json::from_str(resources).unwrap();
            let error = plan(serde_json::json!({ "resources": resources })).unwrap_err();
            let start = format!("config.json: linux.resources.{path}: ");
            assert!(error.to_string().starts_with(&start), "{error} should start with {start}");
        }
    }

    #[test]
    fn dockers_zeroes_ask_for_nothing() {
        let plan = plan(serde_json::json!({ "resources": {
            "memory": { "disableOOMKiller": false }, "cpu": { "shares": 0 },
            "blockIO": { "weight": 0 }, "network": {}, "hugepageLimits": [],
        }}));
        let resources = plan.unwrap().resources;
        assert_eq!(crate::cgroup::v1::writes(&resources).unwrap(), []);
        assert_eq!(crate::cgroup::v2::writes(&resources).unwrap(), []);
    }
}
