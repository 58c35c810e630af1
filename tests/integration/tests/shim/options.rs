//! The runtime's options in each of their encodings.

use std::path::Path;

use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::shim::oci::Options;
use corten_integration::cgroups;
use corten_integration::managers::{Stop, Verdict, check, same};
use corten_integration::shim::bootstrap::Boot;
use corten_integration::shim::{Case, Flavour, World, request, sandbox};
use corten_integration::shim_tests;

pub(crate) const TESTS: &[Case] = shim_tests![
    none,
    root_as_protobuf,
    root_as_toml,
    root_as_a_file,
    of_an_unknown_type,
    that_are_damaged,
    toml_that_is_damaged,
    given_to_start_only,
    type_with_a_prefix,
    shim_cgroup,
    no_pivot_root,
    systemd_where_there_is_none,
];

/// Creates with these options; where the runtime keeps its state must be `root`/NAMESPACE/ID.
fn kept_in(world: &World, options: Any, root: &Path) -> Verdict {
    let mut task = world.task(world.bundle("sleep 1000"))?;
    let mut query = task.request();
    query.options = Some(options).into();
    task.pid = task.client.create(&query)?;
    task.start()?;
    let state = root.join(&world.namespace).join(&task.id);
    check(state.is_dir(), format!("{} is the state", state.display()))?;
    task.killed()?;
    task.delete()?;
    check(!state.exists(), "the state is gone after Delete")
}

fn rooted(root: &Path) -> Options {
    Options { root: root.display().to_string(), ..Options::default() }
}

/// No options at all.
fn none(world: &World) -> Verdict {
    let task = world.running("exit 3")?;
    same("status", &task.wait()?.exit_status, &3)
}

/// `containerd.runc.v1.Options`.
fn root_as_protobuf(world: &World) -> Verdict {
    let root = world.dir.join("state");
    kept_in(world, request::runc_options(&rooted(&root)), &root)
}

/// `runtimeoptions.v1.Options` with TOML, as the CRI gives it to every runtime but runc.
fn root_as_toml(world: &World) -> Verdict {
    world.reference_deviates("it panics on every other type")?;
    let root = world.dir.join("state");
    let body = format!("Root = \"{}\"\nSystemdCgroup = false\n", root.display());
    kept_in(world, request::runtime_options("containerd.runc.v1.Options", "", &body), &root)
}

/// The same with the path of a file.
fn root_as_a_file(world: &World) -> Verdict {
    world.reference_deviates("it panics on every other type")?;
    let (root, file) = (world.dir.join("state"), world.dir.join("options.toml"));
    std::fs::write(&file, format!("Root = \"{}\"\n", root.display()))?;
    kept_in(world, request::runtime_options("", &file.display().to_string(), ""), &root)
}

/// The error of a Create with these options; the shim must live on.
fn refused_options(world: &World, options: Any) -> Result<String, Stop> {
    world.reference_deviates("it panics on every other type")?;
    let mut task = world.task(world.bundle("sleep 1000"))?;
    let mut query = task.request();
    query.options = Some(options).into();
    let Err(refusal) = task.client.create(&query) else {
        return Err(Stop::Fail("Create accepted it".to_owned()));
    };
    check(refusal.code.is_some(), format!("an answer: {refusal}"))?;
    task.create()?;
    Ok(refusal.message)
}

/// Options of a type that nobody knows are an error that names the type.
fn of_an_unknown_type(world: &World) -> Verdict {
    let words = refused_options(world, request::any("some.other.v1.Options", vec![8, 1]))?;
    check(words.contains("some.other.v1.Options"), words)
}

/// Bytes that are no message.
fn that_are_damaged(world: &World) -> Verdict {
    refused_options(world, request::any(request::RUNC_OPTIONS, vec![0xff; 9])).map(drop)
}

/// TOML that is none.
fn toml_that_is_damaged(world: &World) -> Verdict {
    let options = request::runtime_options("", "", "Root = [not toml");
    refused_options(world, options).map(drop)
}

/// Options given to `start` hold for a Create that has none.
fn given_to_start_only(world: &World) -> Verdict {
    world.reference_deviates("it takes those of Create only")?;
    let root = world.dir.join("state");
    let boot = Boot::options(request::runc_options(&rooted(&root)));
    let mut task = world.task_with(world.bundle("sleep 1000"), &boot)?;
    task.create()?;
    let state = root.join(&world.namespace).join(&task.id);
    check(state.is_dir(), format!("{} is the state", state.display()))
}

/// `type.googleapis.com/…` before the type's name means the same.
fn type_with_a_prefix(world: &World) -> Verdict {
    world.reference_deviates("typeurl knows the plain name only")?;
    let root = world.dir.join("state");
    let mut options = request::runc_options(&rooted(&root));
    options.type_url.insert_str(0, "type.googleapis.com/");
    kept_in(world, options, &root)
}

/// `shim_cgroup` is where the shim itself goes.
fn shim_cgroup(world: &World) -> Verdict {
    let path = format!("{}/shim-{}", sandbox().cgroup, world.namespace);
    let options = Options { shim_cgroup: path.clone(), ..Options::default() };
    // The daemon's administrator makes it; one of v1's hierarchies is enough.
    let dir = cgroups::directory("pids", &path).ok_or("no hierarchy")?;
    std::fs::create_dir_all(&dir)?;
    let task = world
        .task_with(world.bundle("sleep 1000"), &Boot::options(request::runc_options(&options)))?;
    let groups = std::fs::read_to_string(format!("/proc/{}/cgroup", task.shim.pid))?;
    let joined = groups.lines().filter(|line| line.ends_with(&path)).count();
    task.shim.end()?;
    std::fs::remove_dir(dir)?;
    check(joined > 0, format!("the shim is in {path}: {groups}"))
}

/// `no_pivot_root` is passed on.
fn no_pivot_root(world: &World) -> Verdict {
    let mut task = world.task(world.bundle("exit 3"))?;
    let mut query = task.request();
    let options = Options { no_pivot_root: true, ..Options::default() };
    query.options = Some(request::runc_options(&options)).into();
    match task.client.create(&query) {
        Ok(pid) => task.pid = pid,
        // A refusal is honest too.
        Err(refusal) if world.flavour == Flavour::Corten => {
            return check(refusal.message.contains("pivot"), refusal.message);
        }
        Err(refusal) => return Err(refusal.into()),
    }
    task.start()?;
    same("status", &task.wait()?.exit_status, &3)
}

/// `systemd_cgroup` on a host without systemd: Create is refused with a reason, or works as it
/// would without.
fn systemd_where_there_is_none(world: &World) -> Verdict {
    if Path::new("/run/systemd/system").exists() {
        return Err(Stop::Skip("systemd is there".to_owned()));
    }
    let mut task = world.task(world.bundle("sleep 1000"))?;
    let mut query = task.request();
    let options = Options { systemd_cgroup: true, ..Options::default() };
    query.options = Some(request::runc_options(&options)).into();
    let answer = task.client.create(&query);
    let words = answer.map_or_else(|refusal| refusal.message, |_| String::new());
    check(words.contains("systemd"), format!("the reason is told: {words}"))?;
    task.create()
}
