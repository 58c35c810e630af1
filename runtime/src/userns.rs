//! User namespaces: the id maps, and becoming root in one.
//!
//! The parent writes the maps, because only somebody outside may map more than one id. With rights
//! over the ids it writes the files itself; an ordinary user may map only his own id and asks the
//! set-user-ID programs newuidmap and newgidmap for the rest (subuid(5)). See user_namespaces(7).

use std::path::Path;

use nix::errno::Errno;
use nix::unistd::{Gid, Pid, Uid, getegid, geteuid, setresgid, setresuid};
use oci_spec::runtime::LinuxIdMapping;

use crate::error::{Doing, Error, Result};
use crate::host;

/// How many lines a map may have (Linux 4.15).
const MAX_LINES: usize = 340;
/// Where the helpers are, before `PATH`, which is empty under most managers.
const HELPER_DIRECTORIES: [&str; 4] = ["/usr/bin", "/bin", "/usr/local/bin", "/usr/sbin"];

/// The maps of a user namespace.
#[derive(Debug, Default)]
pub struct Maps {
    uid: Vec<LinuxIdMapping>,
    gid: Vec<LinuxIdMapping>,
}

impl Maps {
    /// Validates `linux.uidMappings` and `linux.gidMappings`.
    ///
    /// # Errors
    /// [`Error::Config`]: one without the other, an empty range, one beyond 2^32-2, an overlap, too
    /// many.
    pub fn new(uid: &[LinuxIdMapping], gid: &[LinuxIdMapping]) -> Result<Self> {
        check("linux.uidMappings", uid)?;
        check("linux.gidMappings", gid)?;
        match (uid.is_empty(), gid.is_empty()) {
            (true, false) => Err(Error::config("linux.uidMappings", "missing beside gidMappings")),
            (false, true) => Err(Error::config("linux.gidMappings", "missing beside uidMappings")),
            _ => Ok(Self { uid: uid.to_vec(), gid: gid.to_vec() }),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.uid.is_empty()
    }

    /// A container whose root is nobody outside could own nothing that is made for it.
    ///
    /// # Errors
    /// [`Error::Config`] unless id 0 is mapped in both.
    pub fn check_root(&self) -> Result<()> {
        for (at, map) in [("linux.uidMappings", &self.uid), ("linux.gidMappings", &self.gid)] {
            if host_id(map, 0).is_none() {
                return Err(Error::config(at, "must map container id 0"));
            }
        }
        Ok(())
    }

    /// The host's uid and gid of the container's root.
    pub fn root(&self) -> Option<(u32, u32)> {
        Some((host_id(&self.uid, 0)?, host_id(&self.gid, 0)?))
    }

    /// Writes the maps of `pid`, which lives in a new user namespace of ours.
    ///
    /// # Errors
    /// `EPERM` for ids that are not the caller's to map, the helper's words, or no helper.
    pub fn write(&self, pid: Pid) -> Result<()> {
        self.give(pid)?;
        for (file, map) in [("uid_map", &self.uid), ("gid_map", &self.gid)] {
            let path = format!("/proc/{pid}/{file}");
            let now = std::fs::read_to_string(&path).doing(|| format!("read {path}"))?;
            if !same(&now, map) {
                let wanted = lines(map);
                return Err(Error::Failed(format!("{path}: asked for {wanted:?}, got {now:?}")));
            }
        }
        Ok(())
    }

    fn give(&self, pid: Pid) -> Result<()> {
        if geteuid().is_root() {
            write(pid, "uid_map", &lines(&self.uid))?;
            return write(pid, "gid_map", &lines(&self.gid));
        }
        if is_own(&self.uid, geteuid().as_raw()) {
            write(pid, "uid_map", &lines(&self.uid))?;
        } else {
            helper("newuidmap", pid, &self.uid)?;
        }
        if is_own(&self.gid, getegid().as_raw()) {
            // Without this an ordinary user could drop a group that denies him something.
            write(pid, "setgroups", "deny")?;
            write(pid, "gid_map", &lines(&self.gid))
        } else {
            helper("newgidmap", pid, &self.gid)
        }
    }

    /// Whether this process's maps are these; for a namespace that was joined by path while the
    /// config names maps too.
    ///
    /// # Errors
    /// [`Error::Config`] when they differ.
    pub fn check_joined(&self) -> Result<()> {
        for (file, at, map) in [
            ("uid_map", "linux.uidMappings", &self.uid),
            ("gid_map", "linux.gidMappings", &self.gid),
        ] {
            if map.is_empty() {
                continue;
            }
            let path = format!("/proc/self/{file}");
            let now = std::fs::read_to_string(&path).doing(|| format!("read {path}"))?;
            if !same(&now, map) {
                return Err(Error::config(at, "differs from the joined user namespace's map"));
            }
        }
        Ok(())
    }
}

fn check(at: &str, map: &[LinuxIdMapping]) -> Result<()> {
    if map.len() > MAX_LINES {
        let why = format!("{} ranges, but the kernel takes {MAX_LINES}", map.len());
        return Err(Error::config(at, why));
    }
    let end = |start: u32, size: u32| u64::from(start) + u64::from(size);
    for (index, range) in map.iter().enumerate() {
        let fail = |key: &str, why: String| Err(Error::config(format!("{at}[{index}].{key}"), why));
        if range.size() == 0 {
            return fail("size", "must be greater than zero".to_owned());
        }
        // 2^32-1 means "no id" to the kernel.
        for (key, start) in [("containerID", range.container_id()), ("hostID", range.host_id())] {
            if end(start, range.size()) > u64::from(u32::MAX) {
                return fail(key, format!("{start} + size {} is beyond 4294967295", range.size()));
            }
        }
        let overlaps = |start: fn(&LinuxIdMapping) -> u32| {
            map.iter().take(index).any(|other| {
                u64::from(start(range)) < end(start(other), other.size())
                    && u64::from(start(other)) < end(start(range), range.size())
            })
        };
        if overlaps(LinuxIdMapping::container_id) {
            return fail("containerID", "overlaps another range".to_owned());
        }
        if overlaps(LinuxIdMapping::host_id) {
            return fail("hostID", "overlaps another range".to_owned());
        }
    }
    Ok(())
}

fn host_id(map: &[LinuxIdMapping], id: u32) -> Option<u32> {
    map.iter().find_map(|range| {
        let offset = id.checked_sub(range.container_id())?;
        (offset < range.size()).then(|| range.host_id() + offset)
    })
}

fn is_own(map: &[LinuxIdMapping], id: u32) -> bool {
    matches!(map, [one] if one.host_id() == id && one.size() == 1)
}

fn lines(map: &[LinuxIdMapping]) -> String {
    map.iter()
        .map(|range| format!("{} {} {}\n", range.container_id(), range.host_id(), range.size()))
        .collect()
}

/// Whether the content of a map file is this map; the kernel sorts long ones.
fn same(content: &str, map: &[LinuxIdMapping]) -> bool {
    let sorted = |text: &str| {
        let mut lines: Vec<Vec<String>> = text
            .lines()
            .map(|line| line.split_ascii_whitespace().map(str::to_owned).collect())
            .collect();
        lines.sort_unstable();
        lines
    };
    sorted(content) == sorted(&lines(map))
}

fn write(pid: Pid, file: &str, text: &str) -> Result<()> {
    let path = format!("/proc/{pid}/{file}");
    std::fs::write(&path, text).doing(|| format!("write {:?} to {path}", text.trim_end()))
}

/// Runs a set-user-ID helper by its absolute path, with nothing in its environment.
fn helper(name: &str, pid: Pid, map: &[LinuxIdMapping]) -> Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let program = HELPER_DIRECTORIES
        .iter()
        .map(Into::into)
        .chain(std::env::split_paths(&path))
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(name))
        .find(|candidate| Path::is_file(candidate))
        .ok_or_else(|| {
            Error::Unsupported(format!("{name} is not installed (Debian: apt install uidmap)"))
        })?;
    let output = host::program(&program)
        .env_clear()
        .arg(pid.to_string())
        .args(lines(map).split_ascii_whitespace())
        .output()
        .doing(|| format!("run {}", program.display()))?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr).trim_end().replace('\n', "\\n");
    Err(Error::Failed(format!("{}: {}: {words}", program.display(), output.status)))
}

/// Becomes the user namespace's root: what is made for the container then belongs to it.
///
/// # Errors
/// `EINVAL` when id 0 is not mapped.
pub fn become_root() -> Result<()> {
    let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
    match nix::unistd::setgroups(&[]) {
        // Denied in a namespace whose gid map an ordinary user wrote.
        Ok(()) | Err(Errno::EPERM) => {}
        Err(errno) => return Err(Error::sys("setgroups", errno)),
    }
    setresgid(gid, gid, gid).doing(|| "setresgid 0 in the user namespace".to_owned())?;
    setresuid(uid, uid, uid).doing(|| "setresuid 0 in the user namespace".to_owned())
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::LinuxIdMappingBuilder;

    use nix::unistd::pipe;

    use std::collections::{HashMap, HashSet};

    use proptest::prelude::*;

    use super::*;
    use crate::process::user::Identity;
    use crate::sys::cred;
    use crate::sys::process::{CloneArgs, Cloned, clone, exit_now};
    use crate::sys::testing::in_child;

    fn range(container: u32, host: u32, size: u32) -> LinuxIdMapping {
        LinuxIdMappingBuilder::default()
            .container_id(container)
            .host_id(host)
            .size(size)
            .build()
            .unwrap()
    }

    /// Ranges of few ids, at the beginning or at the end of all of them.
    fn ranges() -> impl Strategy<Value = Vec<LinuxIdMapping>> {
        let start = || prop_oneof![0_u32..12, (0_u32..12).prop_map(|n| u32::MAX - n)];
        let one = (start(), start(), 0_u32..5);
        let one = one.prop_map(|(container, host, size)| range(container, host, size));
        proptest::collection::vec(one, 0..5)
    }

    proptest! {
        #[test]
        fn a_map_is_taken_if_each_id_has_one_place_in_it(map in ranges()) {
            // Id by id, as the kernel has it: no id is 2^32-1, none is there twice.
            let ids = |start: fn(&LinuxIdMapping) -> u32| -> Vec<u64> {
                map.iter().flat_map(|r| (0..u64::from(r.size())).map(move |n| u64::from(start(r)) + n)).collect()
            };
            let (inside, outside) = (ids(LinuxIdMapping::container_id), ids(LinuxIdMapping::host_id));
            let good = |ids: &[u64]| {
                let unique: HashSet<&u64> = ids.iter().collect();
                unique.len() == ids.len() && ids.iter().all(|id| *id < u64::from(u32::MAX))
            };
            let whole = map.iter().all(|range| range.size() > 0);
            let taken = check("m", &map).is_ok();
            prop_assert_eq!(taken, whole && good(&inside) && good(&outside));
            prop_assume!(taken);
            let pairs: HashMap<u64, u64> = inside.into_iter().zip(outside).collect();
            for id in (0..20).chain(u32::MAX - 20..=u32::MAX) {
                let host = pairs.get(&u64::from(id)).map(|host| u32::try_from(*host).unwrap());
                prop_assert_eq!(host_id(&map, id), host, "{}", id);
            }
        }

        #[test]
        fn a_map_is_the_same_in_any_order_and_no_other(map in ranges(), other in ranges()) {
            let turned: Vec<LinuxIdMapping> = map.iter().rev().copied().collect();
            prop_assert!(same(&lines(&map).replace(' ', "   "), &turned));
            let key = |map: &[LinuxIdMapping]| {
                let mut all: Vec<_> = map.iter().map(|r| (r.container_id(), r.host_id(), r.size())).collect();
                all.sort_unstable();
                all
            };
            prop_assert_eq!(same(&lines(&map), &other), key(&map) == key(&other));
        }
    }

    #[test]
    fn ranges_that_no_kernel_takes_are_refused_with_their_place() {
        let cases = [
            (vec![range(0, 0, 0)], "linux.uidMappings[0].size"),
            (vec![range(1, 0, u32::MAX)], "linux.uidMappings[0].containerID"),
            (vec![range(0, 1, u32::MAX)], "linux.uidMappings[0].hostID"),
            (vec![range(0, 100, 10), range(9, 200, 1)], "linux.uidMappings[1].containerID"),
            (vec![range(0, 100, 10), range(10, 109, 1)], "linux.uidMappings[1].hostID"),
            (vec![range(0, 0, 1); 341], "linux.uidMappings"),
        ];
        for (map, at) in cases {
            match Maps::new(&map, &map).unwrap_err() {
                Error::Config { path, .. } => assert_eq!(path, at),
                other => panic!("{other}"),
            }
        }
        assert!(Maps::new(&[range(0, 0, u32::MAX)], &[range(0, 0, 1)]).is_ok());
        assert!(Maps::new(&[range(0, 0, 1)], &[]).is_err());
    }

    /// A process in a new user namespace with these maps, which runs `test`.
    fn in_user_namespace(maps: &Maps, test: impl FnOnce()) -> Result<()> {
        let (may_go, go) = pipe().unwrap();
        let flags = libc::CLONE_NEWUSER as u64;
        match clone(&CloneArgs { flags, cgroup: None }).unwrap() {
            Cloned::Child => {
                drop(go);
                if nix::unistd::read(&may_go, &mut [0]) != Ok(1) {
                    exit_now(2);
                }
                let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(test)).is_err();
                exit_now(i32::from(failed))
            }
            Cloned::Parent(pid, pidfd) => {
                drop(may_go);
                let written = maps.write(pid);
                if written.is_ok() {
                    nix::unistd::write(&go, b"x").unwrap();
                }
                drop(go);
                let status = crate::sys::wait::exit_of(&pidfd).unwrap().status();
                assert_eq!(status, if written.is_ok() { 0 } else { 2 });
                written
            }
        }
    }

    fn assume(uid: u32, gid: u32, groups: &[u32]) -> Result<()> {
        let json = serde_json::json!({"uid": uid, "gid": gid, "additionalGids": groups});
        let user: oci_spec::runtime::User = serde_json::from_value(json).unwrap();
        Identity::new(&user, "user")?.assume()
    }

    #[test]
    fn root_maps_anything_and_reads_it_back() {
        in_child(|| {
            let uids: Vec<_> = (0..20).rev().map(|n| range(n * 10, 100_000 + n * 10, 10)).collect();
            let maps = Maps::new(&uids, &[range(0, 200_000, 65536)]).unwrap();
            in_user_namespace(&maps, || assume(199, 7, &[1, 2]).unwrap()).unwrap();
            in_user_namespace(&maps, || {
                let error = assume(200, 7, &[]).unwrap_err().to_string();
                assert!(error.contains("is not mapped"), "{error}");
            })
            .unwrap();
        });
    }

    #[test]
    fn anybody_maps_themselves_but_without_setgroups() {
        in_child(|| {
            cred::setgroups(&[]).unwrap();
            cred::setresgid(54321).unwrap();
            cred::setresuid(12345).unwrap();
            nix::sys::prctl::set_dumpable(true).unwrap();
            let own = Maps::new(&[range(0, 12345, 1)], &[range(0, 54321, 1)]).unwrap();
            in_user_namespace(&own, || {
                assert!(assume(0, 0, &[0]).is_err(), "groups were asked for");
                assume(0, 0, &[]).unwrap();
            })
            .unwrap();
            // No line of /etc/subuid gives 12345 this range.
            let more = Maps::new(&[range(0, 100_000, 10)], &[range(0, 54321, 1)]).unwrap();
            let error = in_user_namespace(&more, || {}).unwrap_err().to_string();
            assert!(error.contains("newuidmap"), "{error}");
        });
    }

    #[test]
    fn root_is_found_in_any_range() {
        let map = [range(5, 1, 2), range(0, 1000, 3)];
        let maps = Maps::new(&map, &map).unwrap();
        assert_eq!(maps.root(), Some((1000, 1000)));
        maps.check_root().unwrap();
        let without = [range(1, 1, 2)];
        assert!(Maps::new(&without, &without).unwrap().check_root().is_err());
    }
}
