//! Overlay's layers: as descriptors, where a list of any length will do, or relative to the directory
//! that they have in common, where all options have to fit a page.
//!
//! In `lowerdir` a colon separates layers, two of them the ones that hold only data, and a backslash
//! takes the meaning from the next letter (overlayfs.rst).

use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use corten::error::{Doing, Error, Result};
use corten::rootfs::NewFs;
use corten::rootfs::path::{c_path, open_host, open_plain};
use corten::sys::mount as sys;
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{fstat, stat};

use super::{idmap, way};

/// Where the names of layers stand, as options and as what one of them is to `fsconfig(2)`.
const LOWER: &CStr = c"lowerdir+";
const DATA: &CStr = c"datadir+";

/// A directory that overlay puts together with others.
#[derive(Debug, PartialEq, Eq)]
struct Layer {
    key: &'static CStr,
    path: PathBuf,
    /// Below the writable one: identities are mapped here.
    lower: bool,
}

/// Takes the layers out of the parameters. The last of two `lowerdir` counts, as in the kernel.
fn take_layers(fs: &mut NewFs) -> Vec<Layer> {
    let mut layers: Vec<Layer> = Vec::new();
    fs.parameters.retain(|(name, value)| {
        let Some(value) = value else { return true };
        let single = |key, lower| Layer { key, path: unescape(value), lower };
        let new = match name.as_str() {
            "lowerdir" => {
                layers.retain(|layer| !layer.lower);
                lower_layers(value)
            }
            "lowerdir+" => vec![single(LOWER, true)],
            "datadir+" => vec![single(DATA, true)],
            "upperdir" => vec![single(c"upperdir", false)],
            "workdir" => vec![single(c"workdir", false)],
            _ => return true,
        };
        layers.extend(new);
        false
    });
    layers
}

fn lower_layers(value: &str) -> Vec<Layer> {
    let mut key = LOWER;
    let mut layers = Vec::new();
    for name in split(value) {
        if name.is_empty() {
            key = DATA;
        } else {
            layers.push(Layer { key, path: unescape(name), lower: true });
        }
    }
    layers
}

/// At the colons that have no backslash before them.
pub(crate) fn split(value: &str) -> Vec<&str> {
    let mut escaped = false;
    value
        .split(|letter| {
            let here = letter == ':' && !escaped;
            escaped = letter == '\\' && !escaped;
            here
        })
        .collect()
}

pub(crate) fn unescape(name: &str) -> PathBuf {
    let mut letters = name.chars();
    let mut plain = String::new();
    while let Some(letter) = letters.next() {
        plain.push(if letter == '\\' { letters.next().unwrap_or('\\') } else { letter });
    }
    plain.into()
}

/// Opens the layers; those below the writable one with mapped identities, if there is a map. The tree
/// that is returned has to be held until the file system is made.
pub(super) fn open_layers(fs: &mut NewFs, userns: Option<&OwnedFd>) -> Result<Option<OwnedFd>> {
    let layers = take_layers(fs);
    let mapped = userns.map(|userns| MappedLayers::new(&layers, userns));
    for Layer { key, path, lower } in &layers {
        let doing = || format!("open layer {path:?}");
        let fd = match &mapped {
            Some(mapped) if *lower => mapped.open(path).doing(doing)?,
            _ => way::open_dir(path).doing(doing)?,
        };
        fs.files.push((key, fd));
    }
    Ok(mapped.and_then(|mapped| mapped.common).map(|(_, tree)| tree))
}

/// Lower layers with mapped identities, in detached trees. Where possible they are all in one, for each
/// costs a wait in the kernel when it goes.
struct MappedLayers<'a> {
    userns: &'a OwnedFd,
    /// The directory that the layers have in common, and a tree of it.
    common: Option<(&'a Path, OwnedFd)>,
}

impl<'a> MappedLayers<'a> {
    fn new(layers: &'a [Layer], userns: &'a OwnedFd) -> Self {
        let lower = layers.iter().filter(|layer| layer.lower);
        let common = common_dir(lower.map(|layer| layer.path.as_path()));
        // What lies there may be of a kind that can't be mapped, and the layers of another.
        let common = common.and_then(|dir| Some((dir, mapped(dir, userns).ok()?)));
        Self { userns, common }
    }

    fn open(&self, path: &Path) -> Result<OwnedFd> {
        match self.common.as_ref().and_then(|(dir, tree)| through(tree, dir, path)) {
            Some(found) => Ok(found),
            None => mapped(path, self.userns),
        }
    }
}

/// The layer as it is seen through a tree of a directory above it, if that is the same: not behind a
/// link, nor in what is mounted there.
fn through(tree: &OwnedFd, dir: &Path, path: &Path) -> Option<OwnedFd> {
    let name = path.strip_prefix(dir).ok()?;
    let found = open_plain(tree, name, libc::O_RDONLY | libc::O_DIRECTORY).ok()?;
    let (seen, real) = (fstat(&found).ok()?, stat(path).ok()?);
    ((seen.st_dev, seen.st_ino) == (real.st_dev, real.st_ino)).then_some(found)
}

/// Puts mapped trees of the lower layers over themselves, for kernels that want layers to be attached.
/// In a mount namespace of our own only.
pub(super) fn cover_layers(mut fs: NewFs, userns: &OwnedFd) -> Result<()> {
    for Layer { path, .. } in take_layers(&mut fs).into_iter().filter(|layer| layer.lower) {
        let cover = || -> Result<()> {
            let tree = mapped(&path, userns)?;
            let place = open_host(&path).doing(|| "open".to_owned())?;
            sys::move_mount(tree, place).doing(|| "cover".to_owned())
        };
        cover().doing(|| format!("layer {path:?}"))?;
    }
    Ok(())
}

fn mapped(path: &Path, userns: &OwnedFd) -> Result<OwnedFd> {
    let tree = c_path(path)
        .and_then(|path| sys::clone_tree(AT_FDCWD, &path, false))
        .doing(|| "clone".to_owned())?;
    idmap::apply(&tree, false, userns)?;
    Ok(tree)
}

/// Overlay's options in one page: the lower layers' names become relative to the directory that is
/// returned, if they do not fit otherwise.
pub(crate) fn fit(data: &mut String, page: usize) -> Result<Option<PathBuf>> {
    if data.len() < page {
        return Ok(None);
    }
    let all = data.len();
    let too_long = |length: usize| {
        let why = format!(
            "the options are {length} bytes long ({all} with whole paths), but mount(2) takes less than {page}, and layers as descriptors need Linux 6.13"
        );
        Error::Unsupported(why)
    };
    let mut words: Vec<String> = self::words(data);
    let lower = words.iter().rposition(|word| word.starts_with("lowerdir="));
    let lower = lower.and_then(|at| words.get_mut(at)).ok_or_else(|| too_long(all))?;
    let Some((common, names)) = lower.strip_prefix("lowerdir=").and_then(relative) else {
        return Err(too_long(all));
    };
    *lower = format!("lowerdir={names}");
    *data = words.join(",");
    if self::words(data) != words {
        // The name that went had a quote, and without it the commas mean something else.
        return Err(too_long(all));
    }
    if data.len() < page { Ok(Some(common)) } else { Err(too_long(data.len())) }
}

/// At the commas that have no backslash before them and are not in quotes.
pub(crate) fn words(data: &str) -> Vec<String> {
    let (mut escaped, mut quoted) = (false, false);
    data.split(|letter| {
        let here = letter == ',' && !escaped && !quoted;
        quoted ^= letter == '"';
        escaped = letter == '\\' && !escaped;
        here
    })
    .map(str::to_owned)
    .collect()
}

/// The names from the longest directory that all are below, and that.
fn relative(lower: &str) -> Option<(PathBuf, String)> {
    let names = split(lower);
    let layers = names.iter().filter(|name| !name.is_empty());
    let common = common_dir(layers.map(Path::new))?;
    let short =
        |name: &&str| Path::new(name).strip_prefix(common).ok()?.to_str().map(str::to_owned);
    // An empty name stays one: it is not a layer.
    let short: Vec<_> = names.iter().map(|name| short(name).unwrap_or_default()).collect();
    // A backslash before a slash would be parted from it.
    let dir = unescape(common.to_str()?);
    let same = |(name, short): (&&str, &String)| {
        name.is_empty() || dir.join(unescape(short)) == unescape(name)
    };
    names.iter().zip(&short).all(same).then(|| (dir, short.join(":")))
}

/// The longest directory that all of these are below, unless that is all of the host.
fn common_dir<'a>(paths: impl Iterator<Item = &'a Path> + Clone) -> Option<&'a Path> {
    let dirs = paths.map(|path| path.parent().unwrap_or(Path::new("")));
    let first = dirs.clone().next()?;
    let common = first.ancestors().find(|above| dirs.clone().all(|dir| dir.starts_with(above)))?;
    (common.is_absolute() && common != Path::new("/")).then_some(common)
}
