use super::*;

fn any(type_url: &str, value: impl Into<Vec<u8>>) -> Any {
    Any { type_url: type_url.to_owned(), value: value.into(), ..Any::default() }
}

/// `runtimeoptions.v1.Options` by hand: a short string per field.
fn generic(type_url: &str, path: &str, body: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (tag, text) in [(0x0a, type_url), (0x12, path), (0x1a, body)] {
        if !text.is_empty() {
            bytes.push(tag);
            let length = text.len();
            if length > 127 {
                bytes.push((length & 127) as u8 | 128);
            }
            bytes.push(if length > 127 { (length >> 7) as u8 } else { length as u8 });
            bytes.extend_from_slice(text.as_bytes());
        }
    }
    bytes
}

fn all() -> Options {
    Options {
        no_pivot_root: true,
        no_new_keyring: true,
        shim_cgroup: "/shims".to_owned(),
        io_uid: 1000,
        io_gid: 1001,
        binary_name: "corten".to_owned(),
        root: "/run/elsewhere".to_owned(),
        systemd_cgroup: true,
        criu_image_path: "/i".to_owned(),
        criu_work_path: "/w".to_owned(),
        task_api_address: "ttrpc+unix:///x".to_owned(),
        task_api_version: 3,
    }
}

/// All that a CRI can have in its table, with what is not an option of runc's any more.
const TOML: &str = r#"
BinaryName = 'corten'
CriuImagePath = "/i"
CriuPath = "/usr/sbin/criu"
CriuWorkPath = "/w"
IoGid = 1001
IoUid = 1000
NoNewKeyring = true
NoPivotRoot = true
Root = '/run/elsewhere'
ShimCgroup = "/shims"
SystemdCgroup = true
TaskApiAddress = 'ttrpc+unix:///x'
TaskApiVersion = 3
Unheard = ['of']
"#;

#[test]
fn nothing_means_the_defaults() {
    assert_eq!(Options::from_any(None).unwrap(), Options::default());
    assert_eq!(Options::from_any(Some(&Any::default())).unwrap(), Options::default());
    assert_eq!(Options::from_any(Some(&any(RUNC, []))).unwrap(), Options::default());
    assert_eq!(Options::from_any(Some(&any(GENERIC[0], []))).unwrap(), Options::default());
}

#[test]
fn runc_options_as_protobuf_field_by_field() {
    let mut bytes = vec![0x08, 1, 0x10, 1, 0x1a, 6];
    bytes.extend_from_slice(b"/shims");
    bytes.extend_from_slice(&[0x20, 0xe8, 7, 0x28, 0xe9, 7, 0x32, 6]);
    bytes.extend_from_slice(b"corten");
    bytes.extend_from_slice(&[0x3a, 14]);
    bytes.extend_from_slice(b"/run/elsewhere");
    // 8 was criu_path.
    bytes.extend_from_slice(&[0x42, 1, b'c', 0x48, 1, 0x52, 2, b'/', b'i', 0x5a, 2, b'/', b'w']);
    bytes.extend_from_slice(&[0x62, 15]);
    bytes.extend_from_slice(b"ttrpc+unix:///x");
    bytes.extend_from_slice(&[0x68, 3]);
    for url in [RUNC.to_owned(), format!("type.googleapis.com/{RUNC}"), format!("/{RUNC}")] {
        assert_eq!(Options::from_any(Some(&any(&url, bytes.clone()))).unwrap(), all(), "{url}");
    }
}

/// What ctr 1.6 sends with `--uidmap` to a runtime of another name; field by field.
#[test]
fn the_options_of_linux_field_by_field() {
    let mut bytes = vec![0x08, 1, 0x10, 1, 0x32, 3];
    bytes.extend_from_slice(b"net");
    bytes.extend_from_slice(&[0x40, 1, 0x4a, 6]);
    bytes.extend_from_slice(b"/shims");
    bytes.extend_from_slice(&[0x50, 0xe8, 0x07, 0x58, 0xe9, 0x07, 0x62, 2]);
    bytes.extend_from_slice(b"/w\x6a\x02/i");
    let wanted = Options {
        binary_name: String::new(),
        root: String::new(),
        systemd_cgroup: false,
        task_api_address: String::new(),
        task_api_version: 0,
        ..all()
    };
    assert_eq!(Options::from_any(Some(&any(LINUX, bytes))).unwrap(), wanted);
    let error = Options::from_any(Some(&any(LINUX, vec![0x4a, 9]))).unwrap_err().to_string();
    assert!(error.contains(LINUX), "{error}");
}

#[test]
fn runc_options_as_json() {
    let ours = serde_json::to_vec(&all()).unwrap();
    assert_eq!(Options::from_any(Some(&any(RUNC, ours))).unwrap(), all());
    let camel = br#"{"noPivotRoot":true,"ioUid":7,"systemdCgroup":false}"#;
    let options = Options::from_any(Some(&any(RUNC, *camel))).unwrap();
    assert_eq!((options.no_pivot_root, options.io_uid), (true, 7));
}

#[test]
fn the_table_of_a_cri_as_toml() {
    for url in ["runtimeoptions.v1.Options", "type.googleapis.com/cri.runtimeoptions.v1.Options"] {
        let value = generic("x", "", TOML);
        assert_eq!(Options::from_any(Some(&any(url, value))).unwrap(), all(), "{url}");
    }
}

#[test]
fn the_table_of_a_cri_in_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("corten.toml");
    fs::write(&path, TOML).unwrap();
    let value = generic("", path.to_str().unwrap(), "");
    assert_eq!(Options::from_any(Some(&any(GENERIC[0], value))).unwrap(), all());
    let value = generic("", "/nonexistent", "");
    let error = Options::from_any(Some(&any(GENERIC[0], value))).unwrap_err().to_string();
    assert!(error.contains("read /nonexistent: no such file"), "{error}");
    let value = generic("", "/dev/zero", "");
    assert!(Options::from_any(Some(&any(GENERIC[0], value))).is_err());
}

#[test]
fn what_is_not_understood_names_the_type() {
    for (url, value) in [
        ("containerd.kata.v1.Options", vec![]),
        ("containerd.runc.v1.CheckpointOptions", vec![]),
        (RUNC, vec![0xff]),
        (RUNC, b"{".to_vec()),
        (RUNC, br#"{"io_uid":"root"}"#.to_vec()),
        (GENERIC[0], vec![0x1a, 200]),
        (GENERIC[0], generic("", "", "SystemdCgroup = maybe")),
        (GENERIC[0], generic("", "", "SystemdCgroup = 'yes'")),
    ] {
        let error = Options::from_any(Some(&any(url, value))).unwrap_err();
        assert!(matches!(error, Error::Usage(_)), "{error:?}");
        assert!(error.to_string().contains(url), "{error}");
    }
}

#[test]
fn the_bundle_keeps_them() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(Options::read(dir.path()).unwrap(), Options::default());
    all().write(dir.path()).unwrap();
    assert_eq!(Options::read(dir.path()).unwrap(), all());
    assert_eq!(fs::read_to_string(dir.path().join("runtime")).unwrap(), "corten");
    // As a Go shim writes it.
    fs::write(dir.path().join(FILE), r#"{"root":"/r","systemd_cgroup":false}"#).unwrap();
    assert_eq!(Options::read(dir.path()).unwrap().root, "/r");
    fs::write(dir.path().join(FILE), "{").unwrap();
    assert!(Options::read(dir.path()).is_err());
}

#[test]
fn the_state_is_kept_by_namespace() {
    let default = Options::default();
    assert_eq!(default.runtime_root("k8s.io"), Path::new("/run/containerd/corten/k8s.io"));
    assert_eq!(all().runtime_root("n"), Path::new("/run/elsewhere/n"));
}
