//! The root file system's mounts, which the shim makes at Create and takes away at Delete.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use containerd_shim_protos::api::Mount;
use containerd_shim_protos::events::task::TaskCreate;
use containerd_shim_protos::ttrpc::Code;
use corten_integration::bundle::Bundle;
use corten_integration::managers::{Stop, Verdict, check, same};
use corten_integration::shim::task::refused;
use corten_integration::shim::{Case, Task, World, request};
use corten_integration::shim_tests;

pub(crate) const TESTS: &[Case] = shim_tests![
    overlay,
    bind,
    bind_read_only,
    several_in_order,
    tmpfs_with_options,
    target_below_a_link,
    unmounted_when_create_fails,
    unmounted_when_a_mount_fails,
    unknown_type,
    many_lower_layers,
    mounted_again_inside,
    mapped_to_a_user_namespace,
    an_option_of_containerd_itself,
];

/// A bundle whose rootfs is empty, and the directory with the files that were in it.
fn moved(world: &World, script: &str) -> Result<(Bundle, PathBuf), Stop> {
    let bundle = world.bundle(script);
    let image = world.dir.join("image");
    fs::rename(bundle.rootfs(), &image)?;
    fs::create_dir(bundle.rootfs())?;
    Ok((bundle, image))
}

/// Creates with these mounts and starts.
fn mounted(world: &World, bundle: Bundle, mounts: Vec<Mount>) -> Result<Task, Stop> {
    let mut task = world.task(bundle)?;
    let mut query = task.request();
    query.rootfs = mounts;
    task.pid = task.client.create(&query)?;
    task.start()?;
    Ok(task)
}

/// What is mounted below the test's directory.
fn points(world: &World) -> Result<Vec<String>, Stop> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let dir = world.dir.display().to_string();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    Ok(points.filter(|point| point.starts_with(&dir)).map(str::to_owned).collect())
}

/// Ends the container; no mount stays after Delete, and the files under it are as before.
fn unmounted(world: &World, task: &Task) -> Verdict {
    task.kill(9)?;
    task.wait()?;
    task.delete()?;
    same("mounts", &points(world)?, &Vec::<String>::new())?;
    same("files", &fs::read_dir(task.bundle.rootfs())?.count(), &0)
}

/// An overlay, as the usual snapshotter asks for; what is written goes to its upper directory.
fn overlay(world: &World) -> Verdict {
    let (bundle, image) = moved(world, "echo new > /tmp/new; exec sleep 1000")?;
    for name in ["upper", "work"] {
        fs::create_dir(world.dir.join(name))?;
    }
    let dir = world.dir.display();
    let options = [
        format!("workdir={dir}/work"),
        format!("upperdir={dir}/upper"),
        format!("lowerdir={}", image.display()),
    ];
    let options: Vec<_> = options.iter().map(String::as_str).collect();
    let task = mounted(world, bundle, vec![request::mount("overlay", "overlay", "", &options)])?;
    same("points", &points(world)?, &[task.bundle.rootfs().display().to_string()])?;
    same("in it", &task.shell(world, "cat /tmp/new")?, &(0, "new\n".to_owned()))?;
    same("upper", &fs::read_to_string(world.dir.join("upper/tmp/new"))?.as_str(), &"new\n")?;
    unmounted(world, &task)
}

/// A bind mount, as the native snapshotter asks for.
fn bind(world: &World) -> Verdict {
    let (bundle, image) = moved(world, "echo new > /tmp/new; exec sleep 1000")?;
    let source = image.display().to_string();
    let task = mounted(world, bundle, vec![request::mount("bind", &source, "", &["rbind", "rw"])])?;
    same("in it", &task.shell(world, "cat /tmp/new")?, &(0, "new\n".to_owned()))?;
    let create: TaskCreate = world.events.find(&format!("create {}", task.id))?.decode()?;
    same("source in the event", &create.rootfs[0].source, &source)?;
    unmounted(world, &task)?;
    check(image.join("tmp/new").exists(), "it was written")
}

/// A read-only bind mount is read-only.
fn bind_read_only(world: &World) -> Verdict {
    let (bundle, image) = moved(world, "exec sleep 1000")?;
    let source = image.display().to_string();
    let task = mounted(world, bundle, vec![request::mount("bind", &source, "", &["rbind", "ro"])])?;
    same(
        "write",
        &task.shell(world, "echo new 2>/dev/null > /tmp/new || echo refused")?.1.as_str(),
        &"refused\n",
    )?;
    unmounted(world, &task)
}

/// The list is mounted in its order; targets are below the root.
fn several_in_order(world: &World) -> Verdict {
    let (bundle, image) = moved(world, "exec sleep 1000")?;
    let other = world.dir.join("other");
    fs::create_dir(&other)?;
    fs::write(other.join("file"), "from the other\n")?;
    let bind = |source: &Path, target| {
        request::mount("bind", &source.display().to_string(), target, &["rbind", "rw"])
    };
    world.reference_deviates("1.6 has no targets")?;
    let task = mounted(world, bundle, vec![bind(&image, ""), bind(&other, "/home/user")])?;
    same("in it", &task.shell(world, "cat /home/user/file")?.1.as_str(), &"from the other\n")?;
    unmounted(world, &task)
}

/// A file system's own options and the flags are told apart.
fn tmpfs_with_options(world: &World) -> Verdict {
    let (bundle, image) = moved(world, "exec sleep 1000")?;
    world.reference_deviates("1.6 has no targets")?;
    let task = mounted(
        world,
        bundle,
        vec![
            request::mount("bind", &image.display().to_string(), "", &["rbind", "rw"]),
            request::mount(
                "tmpfs",
                "tmpfs",
                "/home/user",
                &["size=1m", "mode=711", "noexec", "nosuid"],
            ),
        ],
    )?;
    let (_, line) = task.shell(world, "grep ' /home/user ' /proc/mounts; stat -c %a /home/user")?;
    let wanted = ["noexec", "nosuid", "size=1024k", "711\n"];
    wanted
        .iter()
        .try_for_each(|word| corten_integration::managers::contains("mount", &line, word))?;
    unmounted(world, &task)
}

/// A link in the image does not lead a target out of the root.
fn target_below_a_link(world: &World) -> Verdict {
    world.reference_deviates("1.6 has no targets")?;
    let (bundle, image) = moved(world, "exec sleep 1000")?;
    symlink("/", image.join("climb"))?;
    let outside = Path::new("/home/user").exists();
    let task = mounted(
        world,
        bundle,
        vec![
            request::mount("bind", &image.display().to_string(), "", &["rbind", "rw"]),
            request::mount("tmpfs", "tmpfs", "/climb/../../home/user", &[]),
        ],
    )?;
    let (status, _) = task.shell(world, "grep -q ' /home/user tmpfs' /proc/mounts")?;
    same("inside", &status, &0)?;
    same("outside", &Path::new("/home/user").exists(), &outside)?;
    check(!fs::read_to_string("/proc/mounts")?.contains(" /home/user "), "mounted outside")?;
    unmounted(world, &task)
}

/// A Create that fails later leaves no mount.
fn unmounted_when_create_fails(world: &World) -> Verdict {
    let (mut bundle, image) = moved(world, "true")?;
    bundle.set("process.cwd", serde_json::json!("relative"));
    let task = world.task(bundle)?;
    let mut query = task.request();
    let source = image.display().to_string();
    query.rootfs = vec![request::mount("bind", &source, "", &["rbind", "rw"])];
    check(task.client.create(&query).is_err(), "Create fails")?;
    same("mounts", &points(world)?, &Vec::<String>::new())
}

/// When one of several fails, the others are taken away, and the answer says which.
fn unmounted_when_a_mount_fails(world: &World) -> Verdict {
    let (bundle, image) = moved(world, "true")?;
    let task = world.task(bundle)?;
    let mut query = task.request();
    let source = image.display().to_string();
    query.rootfs = vec![
        request::mount("bind", &source, "", &["rbind", "rw"]),
        request::mount("bind", "/no/such/source", "", &["rbind", "rw"]),
    ];
    let answer = task.client.create(&query);
    let words = answer.map_or_else(|refusal| refusal.message, |_| String::new());
    same("mounts", &points(world)?, &Vec::<String>::new())?;
    if world.flavour == corten_integration::shim::Flavour::Corten {
        corten_integration::managers::contains("the reason", &words, "/no/such/source")?;
    }
    refused(task.client.state(&task.id, ""), Code::NOT_FOUND, "")
}

/// A type that the kernel does not know.
fn unknown_type(world: &World) -> Verdict {
    let (bundle, _) = moved(world, "true")?;
    let task = world.task(bundle)?;
    let mut query = task.request();
    query.rootfs = vec![request::mount("nosuchfs", "none", "", &[])];
    check(task.client.create(&query).is_err(), "Create fails")?;
    same("mounts", &points(world)?, &Vec::<String>::new())
}

/// More layers than a page of options can name.
fn many_lower_layers(world: &World) -> Verdict {
    let (bundle, image) = moved(world, "exec sleep 1000")?;
    let deep = world.dir.join("a-directory-with-a-long-name-as-snapshotters-make-them/snapshots");
    let mut lower = Vec::new();
    for number in 0..60 {
        let layer = deep.join(format!("{number}/fs"));
        fs::create_dir_all(&layer)?;
        fs::write(layer.join(format!("file{number}")), "")?;
        lower.push(layer.display().to_string());
    }
    let last = deep.join("last/fs");
    fs::create_dir_all(deep.join("last"))?;
    fs::rename(image, &last)?;
    lower.push(last.display().to_string());
    let options = format!("lowerdir={}", lower.join(":"));
    check(options.len() > 4096, "more than a page")?;
    let task = mounted(world, bundle, vec![request::mount("overlay", "overlay", "", &[&options])])?;
    same("files", &task.shell(world, "ls -d /file* | wc -l")?.1.trim(), &"60")?;
    unmounted(world, &task)
}

/// What was mounted over the root later goes too.
fn mounted_again_inside(world: &World) -> Verdict {
    world.reference_deviates("1.6 does not unmount what is below")?;
    let (bundle, image) = moved(world, "exec sleep 1000")?;
    let source = image.display().to_string();
    let task = mounted(world, bundle, vec![request::mount("bind", &source, "", &["rbind", "rw"])])?;
    let target = task.bundle.rootfs().join("tmp");
    let none = None::<&str>;
    nix::mount::mount(Some("tmpfs"), &target, Some("tmpfs"), nix::mount::MsFlags::empty(), none)?;
    unmounted(world, &task)
}

/// `uidmap=` and `gidmap=`: the image's root is the root of the container's user namespace.
fn mapped_to_a_user_namespace(world: &World) -> Verdict {
    world.reference_deviates("1.6 has no mapped mounts")?;
    let (mut bundle, image) = moved(world, "exec sleep 1000")?;
    let mapping = serde_json::json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
    bundle.namespace("user", None);
    bundle.set("linux.uidMappings", mapping.clone()).set("linux.gidMappings", mapping);
    for (name, mode) in [("upper", 0o755), ("work", 0o755)] {
        use std::os::unix::fs::DirBuilderExt;
        fs::DirBuilder::new().mode(mode).create(world.dir.join(name))?;
        std::os::unix::fs::chown(world.dir.join(name), Some(100_000), Some(100_000))?;
    }
    // The container's root must be able to walk there.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&world.dir, open)?;
    let dir = world.dir.display();
    let options = [
        "uidmap=0:100000:65536".to_owned(),
        "gidmap=0:100000:65536".to_owned(),
        format!("workdir={dir}/work"),
        format!("upperdir={dir}/upper"),
        format!("lowerdir={}", image.display()),
    ];
    let options: Vec<_> = options.iter().map(String::as_str).collect();
    let task = mounted(world, bundle, vec![request::mount("overlay", "overlay", "", &options)])
        .map_err(|stop| match stop {
            // The layers of this test are on a tmpfs, which can be mapped since Linux 6.3.
            Stop::Fail(why) if why.contains("map identities: invalid argument") => Stop::Skip(why),
            other => other,
        })?;
    let seen = task.shell(world, "stat -c %u /bin/busybox; echo new >/tmp/new && id -u")?;
    same("owner and id", &seen.1.as_str(), &"0\n0\n")?;
    unmounted(world, &task)
}

/// What containerd's own mount manager should have taken out is refused, by name.
fn an_option_of_containerd_itself(world: &World) -> Verdict {
    world.reference_deviates("1.6 does not know them")?;
    let (bundle, image) = moved(world, "true")?;
    let task = world.task(bundle)?;
    let mut query = task.request();
    let source = image.display().to_string();
    let options = ["rbind", "rw", "X-containerd.mkfs.fs=ext4"];
    query.rootfs = vec![request::mount("bind", &source, "", &options)];
    let answer = task.client.create(&query);
    let words = answer.map_or_else(|refusal| refusal.message, |_| String::new());
    corten_integration::managers::contains("the reason", &words, "X-containerd.mkfs.fs")?;
    same("mounts", &points(world)?, &Vec::<String>::new())
}
