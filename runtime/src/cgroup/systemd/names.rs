//! `slice:prefix:name`, and where systemd puts a unit. Pure.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The parts of `linux.cgroupsPath` for the systemd driver.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Triple {
    pub(super) slice: String,
    prefix: String,
    name: String,
}

impl Triple {
    /// Without a path, `system.slice:corten:<id>`; `user.slice` under a user's manager.
    pub(super) fn parse(path: Option<&Path>, id: &str, user: bool) -> Result<Self> {
        let default = if user { "user.slice" } else { "system.slice" };
        let Some(path) = path else {
            let (slice, prefix, name) = (default.to_owned(), "corten".to_owned(), id.to_owned());
            let triple = Self { slice, prefix, name };
            return triple.check(Path::new(id));
        };
        let text = path.to_str().unwrap_or_default();
        let parts: Vec<&str> = text.split(':').collect();
        let [slice, prefix, name] = parts[..] else {
            return Err(wrong(path, "is not of the form slice:prefix:name, which systemd needs"));
        };
        let slice = if slice.is_empty() { default } else { slice };
        let triple = Self { slice: slice.into(), prefix: prefix.into(), name: name.into() };
        expand(slice).map_err(|_| wrong(path, "does not begin with the name of a slice"))?;
        triple.check(path)
    }

    fn check(self, path: &Path) -> Result<Self> {
        // systemd.unit(5): letters, digits and these, 255 bytes.
        let plain = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
        let unit = self.unit();
        if self.name.ends_with(".slice") {
            // As a unit of its own it could hold no processes.
            return Err(wrong(path, "names a slice and not a scope"));
        }
        if self.name.is_empty() || unit.len() > 255 || !unit.chars().all(plain) {
            return Err(wrong(path, &format!("makes {unit:?}, which is no name of a unit")));
        }
        Ok(self)
    }

    pub(super) fn unit(&self) -> String {
        match (self.prefix.as_str(), self.name.as_str()) {
            ("", name) => format!("{name}.scope"),
            (prefix, name) => format!("{prefix}-{name}.scope"),
        }
    }
}

/// A slice's group: `a-b.slice` is in `a.slice`; `-.slice` is the root.
pub(super) fn expand(slice: &str) -> Result<PathBuf> {
    let wrong = || Error::config("linux.cgroupsPath", format!("{slice:?} is not a slice"));
    let name = slice.strip_suffix(".slice").ok_or_else(wrong)?;
    if name == "-" {
        return Ok(PathBuf::new());
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    if slice.len() > 255 || !name.chars().all(plain) || name.split('-').any(str::is_empty) {
        return Err(wrong());
    }
    let ends = name.match_indices('-').map(|(at, _)| at).chain([name.len()]);
    Ok(ends.map(|end| format!("{}.slice", &name[..end])).collect())
}

fn wrong(path: &Path, why: &str) -> Error {
    Error::config("linux.cgroupsPath", format!("{path:?} {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_is_in_the_slices_that_its_name_begins_with() {
        for (slice, path) in [
            ("system.slice", Some("system.slice")),
            ("a-b.slice", Some("a.slice/a-b.slice")),
            ("a-b-c.slice", Some("a.slice/a-b.slice/a-b-c.slice")),
            ("-.slice", Some("")),
            ("a--b.slice", None),
            ("-a.slice", None),
            ("a-.slice", None),
            (".slice", None),
            ("a/b.slice", None),
            ("..", None),
            ("a.scope", None),
        ] {
            assert_eq!(expand(slice).ok(), path.map(PathBuf::from), "{slice}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_slice_is_below_one_slice_for_each_part(parts in proptest::collection::vec("[a-z0-9:_.@]{1,8}", 1..8)) {
            let slice = format!("{}.slice", parts.join("-"));
            let path = expand(&slice).unwrap();
            proptest::prop_assert_eq!(path.iter().count(), parts.len());
            for (depth, dir) in path.iter().enumerate() {
                let expected = format!("{}.slice", parts[..=depth].join("-"));
                proptest::prop_assert_eq!(dir, expected.as_str());
            }
        }

        #[test]
        fn a_name_that_no_unit_can_have_is_refused(name in "[ /a\n\u{0}é%:-]{1,3}", prefix in "[a/ ]{0,2}") {
            let path = format!("a.slice:{prefix}:{name}");
            let good = |text: &str| text.chars().all(|c| c == 'a' || c == '-');
            let triple = Triple::parse(Some(Path::new(&path)), "id", false);
            proptest::prop_assert_eq!(triple.is_ok(), good(&name) && good(&prefix), "{:?}", path);
        }
    }

    #[test]
    fn three_parts_make_a_unit() {
        let unit = |path: Option<&str>| {
            let triple = Triple::parse(path.map(Path::new), "box", false).ok()?;
            Some(format!("{} {}", triple.slice, triple.unit()))
        };
        for (path, expected) in [
            (None, Some("system.slice corten-box.scope")),
            (Some(":docker:abc"), Some("system.slice docker-abc.scope")),
            (Some("kube-pods.slice:cri:abc"), Some("kube-pods.slice cri-abc.scope")),
            (Some("machine.slice::abc"), Some("machine.slice abc.scope")),
            (Some("-.slice:p:n"), Some("-.slice p-n.scope")),
            (Some("/docker/abc"), None),
            (Some("a:b"), None),
            (Some("a.slice:b:"), None),
            (Some("a.slice:b:c:d"), None),
            (Some("a.slice:b:c/d"), None),
            (Some("a.slice:b:c d"), None),
            (Some("a:b:c"), None),
            (Some("a.slice:b:c.slice"), None),
            (Some("a.slice:b:\n"), None),
        ] {
            assert_eq!(unit(path).as_deref(), expected, "{path:?}");
        }
        assert_eq!(Triple::parse(None, "x", true).unwrap().slice, "user.slice");
        assert!(Triple::parse(None, &"x".repeat(255), false).is_err());
    }
}
