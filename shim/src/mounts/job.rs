//! One mount: understood, built, attached, read back.
//!
//! What can be prepared on a detached tree is done before it is attached (identities, attributes);
//! propagation comes last, because a tree that is not to be bound can't be attached to a shared mount.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use corten::error::{Doing, Error, Result};
use corten::rootfs::compat::{missing, to_ms};
use corten::rootfs::path::{self, c_path};
use corten::rootfs::{NewFs, build};
use corten::sys::mount::{self as sys, FSCONFIG_VALUE_MAX};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::{SysconfVar, sysconf};

use super::options::Wanted;
use super::way::{self, Way, mount2};
use super::{Mount, fuse, idmap, loops, overlay, unmount};

/// One mount of the list, understood.
#[derive(Debug)]
pub(super) struct Job<'a> {
    way: &'a Way,
    mount: &'a Mount,
    wanted: Wanted,
    rootfs: &'a Path,
}

/// How a new file system is made.
enum Recipe {
    /// From a context.
    Context(NewFs),
    /// With mount(2), standing in this directory.
    Mount2(NewFs, Option<PathBuf>),
}

impl<'a> Job<'a> {
    pub(super) fn new(way: &'a Way, mount: &'a Mount, rootfs: &'a Path) -> Result<Self> {
        Ok(Self { way, mount, wanted: Wanted::parse(&mount.options)?, rootfs })
    }

    /// Makes the mount; `made` gets its id as soon as there is something to undo.
    pub(super) fn run(&self, made: &mut Vec<u64>) -> Result<()> {
        let options = &self.wanted.options;
        if let Some(helper) = fuse::Helper::of(&self.mount.kind) {
            return self.by_helper(&helper, made);
        }
        if options.remount {
            return self.remount();
        }
        let bind =
            options.bind.is_some() || matches!(self.mount.kind.as_str(), "bind" | "rbind" | "");
        let mounted = if bind { self.bind(made)? } else { self.new_fs(made)? };
        let kernel = &self.way.kernel;
        for propagation in &options.propagation {
            kernel
                .set_propagation(mounted.as_fd(), *propagation)
                .doing(|| "set propagation".to_owned())?;
        }
        self.verify(&mounted)
    }

    fn by_helper(&self, helper: &fuse::Helper<'_>, made: &mut Vec<u64>) -> Result<()> {
        let target = self.target()?;
        let before = unmount::mount_id(&target)?;
        let now = || unmount::mount_id(self.target()?);
        let ran = helper.run(self.mount, &target);
        let ran = ran.and_then(|()| helper.wait(|| Ok(now()? != before)));
        // A helper that fails may have mounted.
        let after = now();
        made.extend(after.iter().filter(|after| **after != before));
        ran.and(after.map(drop))
    }

    /// Reads back what was asked for.
    fn verify(&self, mounted: &OwnedFd) -> Result<()> {
        let wanted = self.wanted.attrs();
        if wanted == 0 {
            return Ok(());
        }
        match missing(mounted, wanted).doing(|| "read back attributes".to_owned())? {
            0 => Ok(()),
            lacks => Err(Error::Failed(format!("attributes {lacks:#x} were set and do not hold"))),
        }
    }

    /// The target, with what is mounted on it by now.
    fn target(&self) -> Result<OwnedFd> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let root = open(self.rootfs, flags, Mode::empty())
            .doing(|| "open the root file system's directory".to_owned())?;
        path::open(root, Path::new(&self.mount.target), libc::O_PATH)
            .doing(|| "open the target".to_owned())
    }

    fn attach(&self, tree: OwnedFd, made: &mut Vec<u64>) -> Result<OwnedFd> {
        // Its id is known before: what is attached and not known could not be undone.
        let id = unmount::mount_id(&tree)?;
        sys::move_mount(&tree, self.target()?).doing(|| "attach".to_owned())?;
        made.push(id);
        Ok(tree)
    }

    /// What mount(2) has put on the target.
    fn find(&self, target: &OwnedFd, made: &mut Vec<u64>) -> Result<OwnedFd> {
        let mounted = self.target()?;
        let id = unmount::mount_id(&mounted)?;
        if id == unmount::mount_id(target)? {
            return Err(Error::Failed("the target changed while it was mounted on".to_owned()));
        }
        made.push(id);
        Ok(mounted)
    }

    fn userns(&self) -> Result<Option<OwnedFd>> {
        let maps = self.wanted.maps.as_ref();
        if maps.is_some() && !(self.way.kernel.present.detached && self.way.kernel.present.setattr)
        {
            return Err(Error::Unsupported("idmapped mounts need Linux 5.12".to_owned()));
        }
        maps.map(idmap::Maps::userns).transpose()
    }

    fn bind(&self, made: &mut Vec<u64>) -> Result<OwnedFd> {
        let recursive = self.wanted.options.bind.unwrap_or(self.mount.kind == "rbind");
        let source = Path::new(&self.mount.source);
        let doing = || "open the source".to_owned();
        let userns = self.userns()?;
        if !self.way.kernel.present.detached {
            let source = path::open_host(source).doing(doing)?;
            let target = self.target()?;
            let kernel = &self.way.kernel;
            kernel.bind(source.as_fd(), target.as_fd(), recursive).doing(|| "bind".to_owned())?;
            let mounted = self.find(&target, made)?;
            self.set_bind_attrs(&mounted)?;
            return Ok(mounted);
        }
        let tree = c_path(source)
            .and_then(|path| sys::clone_tree(AT_FDCWD, &path, recursive))
            .doing(doing)?;
        if let Some(userns) = &userns {
            idmap::apply(&tree, recursive, userns)?;
        }
        if self.way.kernel.present.setattr {
            self.set_bind_attrs(&tree)?;
            return self.attach(tree, made);
        }
        // mount(2) changes only what is attached.
        let mounted = self.attach(tree, made)?;
        self.set_bind_attrs(&mounted)?;
        Ok(mounted)
    }

    fn set_bind_attrs(&self, mounted: &OwnedFd) -> Result<()> {
        let (own, all) = self.wanted.bind_attrs();
        let kernel = &self.way.kernel;
        let set = kernel.set_attrs(mounted.as_fd(), false, own);
        set.and_then(|()| kernel.set_attrs(mounted.as_fd(), true, all))
            .doing(|| "set attributes".to_owned())
    }

    fn new_fs(&self, made: &mut Vec<u64>) -> Result<OwnedFd> {
        let looped = self.wanted.looped.map(|flags| loops::attach(&self.mount.source, flags));
        // Held until it is mounted.
        let device = looped.transpose()?;
        let source = device.as_ref().map_or(self.mount.source.as_str(), |device| &device.path);
        let fs = || NewFs::new(&self.mount.kind, Some(Path::new(source)), &self.wanted.options);
        let is_overlay = self.mount.kind == "overlay";
        let Some(userns) = self.userns()? else { return self.attached(self.recipe(fs())?, made) };
        if is_overlay {
            return self.mapped_overlay(fs, &userns, made);
        }
        let tree = match self.recipe(fs())? {
            Recipe::Context(fs) => self.build(&fs)?,
            recipe => way::in_own_namespace(|| self.detached(recipe))?,
        };
        idmap::apply(&tree, false, &userns)?;
        self.attach(tree, made)
    }

    /// Overlay can't be mapped itself; its lower layers are.
    fn mapped_overlay(
        &self,
        fs: impl Fn() -> NewFs,
        userns: &OwnedFd,
        made: &mut Vec<u64>,
    ) -> Result<OwnedFd> {
        if self.way.detached_layers && !needs_mount2(&fs()) {
            let mut fs = fs();
            let _held = overlay::open_layers(&mut fs, Some(userns))?;
            match self.build(&fs) {
                // Before Linux 6.15 a layer has to be attached somewhere.
                Err(error) if error.errno() == Some(Errno::EINVAL) => {}
                built => return self.attach(built?, made),
            }
        }
        let tree = way::in_own_namespace(|| {
            overlay::cover_layers(fs(), userns)?;
            self.detached(self.recipe(fs())?)
        })?;
        self.attach(tree, made)
    }

    fn recipe(&self, mut fs: NewFs) -> Result<Recipe> {
        let is_overlay = fs.fstype == "overlay";
        if self.way.kernel.present.detached && !needs_mount2(&fs) {
            if !is_overlay {
                return Ok(Recipe::Context(fs));
            }
            if self.way.layer_fds {
                let _nothing_is_mapped = overlay::open_layers(&mut fs, None)?;
                return Ok(Recipe::Context(fs));
            }
        }
        let page = page_size();
        let cwd = if is_overlay { overlay::fit(&mut fs.data, page)? } else { None };
        if fs.data.len() >= page {
            let length = fs.data.len();
            return Err(Error::Unsupported(format!(
                "the options are {length} bytes long, but mount(2) takes less than {page}"
            )));
        }
        Ok(Recipe::Mount2(fs, cwd))
    }

    fn build(&self, fs: &NewFs) -> Result<OwnedFd> {
        build(fs, self.wanted.attrs(), None)
    }

    /// The new file system, attached on the target.
    fn attached(&self, recipe: Recipe, made: &mut Vec<u64>) -> Result<OwnedFd> {
        match recipe {
            Recipe::Context(fs) => self.attach(self.build(&fs)?, made),
            Recipe::Mount2(fs, cwd) => {
                let flags = fs.superblock | to_ms(self.wanted.attrs());
                let target = self.target()?;
                mount2(target.as_fd(), &fs.fstype, &fs.source, flags, &fs.data, cwd.as_deref())?;
                self.find(&target, made)
            }
        }
    }

    /// The new file system, not attached anywhere. In a mount namespace of our own, where it was for a
    /// moment.
    fn detached(&self, recipe: Recipe) -> Result<OwnedFd> {
        match recipe {
            Recipe::Context(fs) => self.build(&fs),
            recipe @ Recipe::Mount2(..) => {
                let mounted = self.attached(recipe, &mut Vec::new())?;
                sys::clone_tree(mounted, c"", false).doing(|| "clone".to_owned())
            }
        }
    }

    /// Changes what is mounted on the target.
    fn remount(&self) -> Result<()> {
        let options = &self.wanted.options;
        let target = self.target()?;
        if options.bind.is_some() {
            let kernel = &self.way.kernel;
            return kernel
                .set_attrs(target.as_fd(), false, options.attrs)
                .doing(|| "set attributes".to_owned());
        }
        let flags = libc::MS_REMOUNT | options.superblock | to_ms(options.attrs.set);
        let (kind, data) = (&self.mount.kind, options.data.join(","));
        mount2(target.as_fd(), kind, &self.mount.source, flags, &data, None)
    }
}

/// Whether a context can't say it. Overlay's layers may be long: they are not said as text.
fn needs_mount2(fs: &NewFs) -> bool {
    const LAYERS: [&str; 5] = ["lowerdir", "lowerdir+", "datadir+", "upperdir", "workdir"];
    let is_overlay = fs.fstype == "overlay";
    let is_long = |value: &str| value.len() > FSCONFIG_VALUE_MAX;
    fs.has_wordless_flags()
        || is_long(&fs.source)
        || fs.parameters.iter().any(|(name, value)| {
            value.as_deref().is_some_and(is_long)
                && !(is_overlay && LAYERS.contains(&name.as_str()))
        })
}

fn page_size() -> usize {
    let size = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
    size.and_then(|size| usize::try_from(size).ok()).unwrap_or(4096)
}
