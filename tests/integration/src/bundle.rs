//! Bundles made for one test: a small root file system and a config.json that is edited as JSON.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::driver::workspace;

/// A bundle and the id its container will have.
#[derive(Debug)]
pub struct Bundle {
    /// The container's id.
    pub id: String,
    /// The bundle's directory.
    pub dir: PathBuf,
    /// What will be written as config.json.
    pub config: Value,
}

impl Bundle {
    /// The default bundle: the probe reports, in the namespaces that `runc spec` asks for.
    pub fn new(dir: PathBuf, id: String) -> Self {
        let bundle = Self::bare(dir, id);
        fs::copy(probe(), bundle.rootfs().join("probe")).expect("copy the probe");
        bundle
    }

    /// The same without the probe in it.
    pub fn bare(dir: PathBuf, id: String) -> Self {
        let rootfs = dir.join("rootfs");
        for name in ["proc", "sys", "dev", "tmp", "etc", "run", "root", "home/user"] {
            fs::create_dir_all(rootfs.join(name)).expect("make the root file system");
        }
        let open = fs::Permissions::from_mode(0o1777);
        fs::set_permissions(rootfs.join("tmp"), open).expect("chmod /tmp");
        let passwd = "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n";
        fs::write(rootfs.join("etc/passwd"), passwd).expect("write /etc/passwd");
        fs::write(rootfs.join("etc/group"), "root:x:0:\nuser:x:1000:\n").expect("write /etc/group");
        let config = default_config(&format!("{}/{id}", crate::cgroups::parent()));
        Self { id, dir, config }
    }

    /// Adds busybox and a link for each of its applets.
    pub fn add_busybox(&self) {
        static APPLETS: OnceLock<Vec<String>> = OnceLock::new();
        let applets = APPLETS.get_or_init(|| {
            let out = Command::new("/bin/busybox").arg("--list").output().expect("busybox --list");
            String::from_utf8_lossy(&out.stdout).lines().map(str::to_owned).collect()
        });
        let bin = self.rootfs().join("bin");
        fs::create_dir_all(&bin).expect("make /bin");
        fs::copy("/bin/busybox", bin.join("busybox")).expect("copy busybox");
        for applet in applets.iter().filter(|name| *name != "busybox") {
            symlink("busybox", bin.join(applet)).expect("link an applet");
        }
    }

    /// The bundle's path as text.
    pub fn path(&self) -> &str {
        self.dir.to_str().expect("a UTF-8 path")
    }

    /// The root file system on the host.
    pub fn rootfs(&self) -> PathBuf {
        self.dir.join("rootfs")
    }

    /// The path of the container's cgroup below each hierarchy.
    pub fn cgroup(&self) -> &str {
        self.config["linux"]["cgroupsPath"].as_str().unwrap_or_default()
    }

    /// The container's directory in the hierarchy of `controller`.
    pub fn cgroup_dir(&self, controller: &str) -> PathBuf {
        crate::cgroups::directory(controller, self.cgroup())
            .unwrap_or_else(|| panic!("no {controller} hierarchy"))
    }

    /// A file of the container's cgroup, read by the host.
    #[track_caller]
    pub fn cgroup_file(&self, controller: &str, file: &str) -> String {
        let path = self.cgroup_dir(controller).join(file);
        let text = fs::read_to_string(&path);
        text.unwrap_or_else(|e| panic!("{}: {e}", path.display())).trim().to_owned()
    }

    /// Whether the kernel says that the container's cgroup is frozen.
    #[track_caller]
    pub fn is_frozen(&self) -> bool {
        if crate::cgroups::is_v2() {
            self.cgroup_file("freezer", "cgroup.events").lines().any(|line| line == "frozen 1")
        } else {
            self.cgroup_file("freezer", "freezer.state") == "FROZEN"
        }
    }

    /// Sets `linux.resources.CONTROLLER` where that controller is there.
    pub fn limit(&mut self, controller: &str, value: Value) -> &mut Self {
        match crate::cgroups::has(controller) {
            true => self.set(&format!("linux.resources.{controller}"), value),
            false => self,
        }
    }

    /// Sets the value at a dotted path, making objects on the way: `process.user.uid`.
    pub fn set(&mut self, path: &str, value: Value) -> &mut Self {
        let mut at = &mut self.config;
        for key in path.split('.') {
            if at.is_null() {
                *at = json!({});
            }
            at = match key.parse::<usize>() {
                Ok(index) if at.is_array() => &mut at[index],
                _ => &mut at[key],
            };
        }
        *at = value;
        self
    }

    /// Removes the member at a dotted path.
    pub fn unset(&mut self, path: &str) -> &mut Self {
        let (parent, key) = path.rsplit_once('.').unwrap_or(("", path));
        let mut at = &mut self.config;
        for key in parent.split('.').filter(|key| !key.is_empty()) {
            at = match key.parse::<usize>() {
                Ok(index) if at.is_array() => &mut at[index],
                _ => &mut at[key],
            };
        }
        if let Some(object) = at.as_object_mut() {
            object.remove(key);
        }
        self
    }

    /// Appends to the array at a dotted path, making it if it isn't there.
    pub fn push(&mut self, path: &str, value: Value) -> &mut Self {
        let pointer = format!("/{}", path.replace('.', "/"));
        match self.config.pointer_mut(&pointer).and_then(Value::as_array_mut) {
            Some(array) => array.push(value),
            None => {
                self.set(path, json!([value]));
            }
        }
        self
    }

    /// The program and its arguments.
    pub fn args(&mut self, args: &[&str]) -> &mut Self {
        self.set("process.args", json!(args))
    }

    /// The probe with steps.
    pub fn probe(&mut self, steps: &[&str]) -> &mut Self {
        let all: Vec<&str> = std::iter::once(&"/probe").chain(steps).copied().collect();
        self.args(&all)
    }

    /// A shell script; needs busybox.
    pub fn script(&mut self, script: &str) -> &mut Self {
        self.args(&["/bin/sh", "-c", script])
    }

    /// A mount after those that are there.
    pub fn mount(&mut self, point: &str, kind: &str, source: &str, options: &[&str]) -> &mut Self {
        self.push(
            "mounts",
            json!({"destination": point, "type": kind, "source": source, "options": options}),
        )
    }

    /// Removes the mount at `point`.
    pub fn unmount(&mut self, point: &str) -> &mut Self {
        if let Some(mounts) = self.config["mounts"].as_array_mut() {
            mounts.retain(|mount| mount["destination"] != point);
        }
        self
    }

    /// Replaces the mount at `point`, in its place.
    pub fn remount(&mut self, point: &str, options: &[&str]) -> &mut Self {
        if let Some(mounts) = self.config["mounts"].as_array_mut() {
            for mount in mounts.iter_mut().filter(|mount| mount["destination"] == point) {
                mount["options"] = json!(options);
            }
        }
        self
    }

    /// Asks for a namespace, a new one or (with a path) an existing one.
    pub fn namespace(&mut self, kind: &str, path: Option<&str>) -> &mut Self {
        self.no_namespace(kind);
        let value = match path {
            Some(path) => json!({"type": kind, "path": path}),
            None => json!({"type": kind}),
        };
        self.push("linux.namespaces", value)
    }

    /// Doesn't ask for a namespace.
    pub fn no_namespace(&mut self, kind: &str) -> &mut Self {
        if let Some(all) = self.config["linux"]["namespaces"].as_array_mut() {
            all.retain(|namespace| namespace["type"] != kind);
        }
        self
    }

    /// Gives exactly these capabilities to the bounding, effective and permitted sets.
    pub fn capabilities(&mut self, names: &[&str]) -> &mut Self {
        self.set(
            "process.capabilities",
            json!({"bounding": names, "effective": names, "permitted": names}),
        )
    }

    /// Adds capabilities to the bounding, effective and permitted sets.
    pub fn add_capabilities(&mut self, names: &[&str]) -> &mut Self {
        for set in ["bounding", "effective", "permitted"] {
            for name in names {
                self.push(&format!("process.capabilities.{set}"), json!(name));
            }
        }
        self
    }

    /// Writes a file into the root file system.
    pub fn file(&self, path: &str, text: &str) -> PathBuf {
        let path = self.rootfs().join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).expect("make a directory");
        fs::write(&path, text).expect("write into the root file system");
        path
    }

    /// Makes a directory in the root file system.
    pub fn directory(&self, path: &str) -> PathBuf {
        let path = self.rootfs().join(path.trim_start_matches('/'));
        fs::create_dir_all(&path).expect("make a directory");
        path
    }

    /// Writes config.json.
    pub fn write(&self) {
        let text = serde_json::to_vec_pretty(&self.config).expect("a config is JSON");
        fs::write(self.dir.join("config.json"), text).expect("write config.json");
    }

    /// Writes these bytes as config.json; they need not be JSON.
    pub fn write_raw(&self, bytes: &[u8]) {
        fs::write(self.dir.join("config.json"), bytes).expect("write config.json");
    }
}

fn default_config(cgroups_path: &str) -> Value {
    let held = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0},
            "args": ["/probe", "report"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {"bounding": held, "effective": held, "permitted": held},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true,
        },
        "root": {"path": "rootfs", "readonly": false},
        "hostname": "probe",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
             "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
             "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs",
             "options": ["nosuid", "noexec", "nodev", "ro"]},
        ],
        "linux": {
            "cgroupsPath": cgroups_path,
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": [
                {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"},
                {"type": "mount"},
            ],
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware",
                "/proc/scsi",
            ],
            "readonlyPaths": [
                "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger",
            ],
        },
    })
}

/// The static probe: `PROBE`, or built now (a moment if it is up to date).
pub fn probe() -> &'static Path {
    static PROBE: OnceLock<PathBuf> = OnceLock::new();
    PROBE.get_or_init(|| build("probe", "PROBE"))
}

/// The static hello program of `bundles/hello`.
pub fn hello() -> &'static Path {
    static HELLO: OnceLock<PathBuf> = OnceLock::new();
    HELLO.get_or_init(|| build("hello", "HELLO"))
}

fn build(name: &str, variable: &str) -> PathBuf {
    if let Some(path) = std::env::var_os(variable) {
        return path.into();
    }
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let status = Command::new("cargo")
        .args(["build", "--quiet", "--release", "-p", "corten-probe", "--target", &target])
        .current_dir(workspace())
        .status()
        .expect("run cargo");
    assert!(status.success(), "the probe doesn't build");
    let out = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| workspace().join("target"), PathBuf::from);
    out.join(target).join("release").join(name)
}
