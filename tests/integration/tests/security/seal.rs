//! F1 from the strongest position there is: root on the host with a descriptor of the copy that the
//! container's first process runs from.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use corten_integration::driver::Flavour;
use corten_integration::suite::Case;
use corten_integration::{Bundle, Test, tests};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};

use crate::without::under;

pub const TESTS: &[Case] =
    tests![f1_the_copy_in_huge_pages_is_sealed, f1_the_copy_in_a_memfd_is_sealed,];

/// fsopen(2) on x86_64.
const FSOPEN: &str = "430";

fn f1_the_copy_in_huge_pages_is_sealed(t: &Test) {
    let b = waiting(t);
    t.call(&["create", "-b", b.path(), &b.id]).ok();
    if t.flavour == Flavour::Corten {
        assert!(link(t, &b).starts_with("/corten (sealed"), "{}", link(t, &b));
    }
    withstands(t, &b);
}

/// Where we may not mount, or the kernel can't.
fn f1_the_copy_in_a_memfd_is_sealed(t: &Test) {
    t.skip_on_peers("this is about our own fallback");
    let b = waiting(t);
    under(t, Errno::ENOSYS as i32, FSOPEN, &["create", "-b", b.path(), &b.id]).ok();
    assert!(link(t, &b).starts_with("/memfd:"), "{}", link(t, &b));
    withstands(t, &b);
}

fn waiting(t: &Test) -> Bundle {
    let mut b = t.bundle();
    b.probe(&["exit", "0"]).write();
    b
}

fn link(t: &Test, b: &Bundle) -> String {
    fs::read_link(format!("/proc/{}/exe", t.pid(&b.id))).unwrap().display().to_string()
}

/// Whatever is tried, while it runs and after, the copy stays what it is.
fn withstands(t: &Test, b: &Bundle) {
    let mut copy = File::open(format!("/proc/{}/exe", t.pid(&b.id))).unwrap();
    let mut before = Vec::new();
    copy.read_to_end(&mut before).unwrap();
    assert!(before.starts_with(b"\x7fELF"));

    attack(t, &copy);
    // Not busy any more (ETXTBSY).
    t.call(&["delete", "--force", &b.id]).ok();
    attack(t, &copy);

    let mut after = Vec::new();
    copy.rewind().unwrap();
    copy.read_to_end(&mut after).unwrap();
    assert!(before == after, "the copy was changed");
}

fn attack(t: &Test, copy: &File) {
    let path = format!("/proc/self/fd/{}", copy.as_raw_fd());
    // Ways to make it writable; whether the kernel refuses them or not, what counts is below.
    let _refused = copy.set_permissions(Permissions::from_mode(0o777));
    let none = None::<&Path>;
    for flags in [MsFlags::MS_REMOUNT, MsFlags::MS_REMOUNT | MsFlags::MS_BIND] {
        let _refused = mount(none, path.as_str(), none, flags, none);
    }
    let target = t.dir.join("tmp/exe");
    File::create(&target).unwrap();
    let bound = mount(Some(path.as_str()), &target, none, MsFlags::MS_BIND, none);
    assert!(bound.is_err(), "the copy has got a place");
    fs::remove_file(&target).unwrap();
    assert!(fs::hard_link(&path, &target).is_err(), "the copy has got a name");

    for truncate in [false, true] {
        let Ok(mut file) = OpenOptions::new().write(true).truncate(truncate).open(&path) else {
            continue;
        };
        let cut = file.set_len(0).is_ok();
        let wrote = file.write(b"#!").is_ok();
        assert!(!cut && !wrote, "the copy was written: cut {cut}, wrote {wrote}");
    }
}
