//! Files of lines that the kernel or an image wrote.

use std::path::Path;

use crate::cgroup::locate::{mount_in, unescape};
use crate::process::env::home_in;
use crate::rootfs::pivot::point_and_type;

/// The two readers of mountinfo agree on where a mount is, and what is found is in the file.
pub fn mountinfo(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (first, rest) = text.split_once('\n').unwrap_or(("", &text));
    let (controllers, own) = first.split_once(':').unwrap_or((first, "/"));
    let found = mount_in(rest, controllers, own);
    let points: Vec<String> =
        rest.lines().filter_map(|line| Some(point_and_type(line)?.0)).collect();
    if let Some((point, root)) = &found {
        let named = |line: &str| {
            let mut fields = line.split(' ').skip(3).map(unescape);
            fields.next().as_deref().map(Path::new) == Some(root)
                && fields.next().as_deref().map(Path::new) == Some(point)
        };
        assert!(rest.lines().any(named), "{found:?}");
        // The kernel escapes these four and no others but the number sign.
        let plain = |text: &str| {
            let codes = text.match_indices('\\').map(|(at, _)| text.get(at + 1..at + 4));
            codes.into_iter().all(|code| matches!(code, Some("040" | "011" | "012" | "134")))
        };
        if plain(rest) {
            assert!(points.iter().any(|known| Path::new(known) == point), "{found:?}");
        }
    }
    // A hierarchy that is not there is not found, wherever we are.
    assert_eq!(mount_in("", controllers, own), None);
}

/// The home directory is the one that a plain reading of passwd(5) finds.
pub fn passwd(data: &[u8]) {
    let (uid, file) = data.split_at(data.len().min(4));
    let uid = uid.iter().fold(0, |uid: u32, byte| uid * 10 % 100_000 + u32::from(byte % 10));
    let found = home_in(file, uid).unwrap_or_default();
    let line = file.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end).find(|line| {
        let field =
            line.split(|byte| *byte == b':').nth(2).and_then(|id| std::str::from_utf8(id).ok());
        field.is_some_and(|id| id.parse() == Ok(uid))
    });
    let home = line.and_then(|line| line.split(|byte| *byte == b':').nth(5));
    let home = home.filter(|home| !home.is_empty() && !home.contains(&0));
    assert_eq!(found.as_deref(), home);
}
