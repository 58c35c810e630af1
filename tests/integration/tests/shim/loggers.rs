//! `binary://` and `binary-v2://`: a program that takes the output.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use corten_integration::driver::patience;
use corten_integration::managers::{Stop, Verdict, check, contains, eventually, same};
use corten_integration::shim::leaks::processes;
use corten_integration::shim::task::PATIENCE;
use corten_integration::shim::{Case, Task, World};
use corten_integration::shim_tests;

pub(crate) const TESTS: &[Case] = shim_tests![
    a_logger_gets_both_streams,
    words_and_environment,
    a_logger_that_fails,
    a_logger_that_does_not_exist,
    a_logger_that_is_never_ready,
    a_logger_that_dies,
    a_logger_ends_with_its_container,
    a_logger_that_outlives_the_streams,
    a_logger_on_a_terminal,
    version_two,
    version_two_says_a_byte,
];

/// Writes an executable script into the test's directory; its path.
fn script(world: &World, text: &str) -> Result<String, Stop> {
    let path = world.dir.join("logger");
    fs::write(&path, format!("#!/bin/busybox sh\ncd {}\n{text}", world.dir.display()))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path.display().to_string())
}

/// A container, not started, whose output goes to `uri`.
fn logged(world: &World, uri: &str, container: &str) -> Result<Task, Stop> {
    let mut task = world.task(world.bundle(container))?;
    let mut query = task.request();
    query.stdout = uri.to_owned();
    query.stderr = uri.to_owned();
    task.pid = task.client.create(&query)?;
    Ok(task)
}

const COPY: &str = "cat <&3 >out 5>&- & cat <&4 >err 5>&- & exec 5>&-; wait";

/// Descriptors 3 and 4 are the streams; closing 5 says ready.
fn a_logger_gets_both_streams(world: &World) -> Verdict {
    let uri = format!("binary://{}", script(world, COPY)?);
    let task = logged(world, &uri, "echo out; echo err >&2")?;
    task.start()?;
    same("status", &task.wait()?.exit_status, &0)?;
    task.delete()?;
    let read = |name: &str| fs::read_to_string(world.dir.join(name));
    same("stdout", &read("out")?.as_str(), &"out\n")?;
    same("stderr", &read("err")?.as_str(), &"err\n")
}

/// The query's pairs are the arguments, in order; the environment names the container.
fn words_and_environment(world: &World) -> Verdict {
    let text = format!("echo \"$@\" >words; env >env; {COPY}");
    let uri = format!("binary://{}?alpha=1&beta=two%20words&gamma", script(world, &text)?);
    let task = logged(world, &uri, "true")?;
    task.start()?;
    task.wait()?;
    task.delete()?;
    let words = fs::read_to_string(world.dir.join("words"))?;
    let pairs = ["alpha 1", "beta two words", "gamma"];
    if world.flavour == corten_integration::shim::Flavour::Corten {
        same("words", &words.trim(), &pairs.join(" ").as_str())?;
    }
    // The reference takes them from a map.
    pairs.iter().try_for_each(|pair| contains("words", &words, pair))?;
    let env = fs::read_to_string(world.dir.join("env"))?;
    contains("environment", &env, &format!("CONTAINER_ID={}\n", task.id))?;
    contains("environment", &env, &format!("CONTAINER_NAMESPACE={}\n", world.namespace))
}

/// A logger that ends before it is ready: Create says so, and nothing is left.
fn a_logger_that_fails(world: &World) -> Verdict {
    world.reference_deviates("the end of the pipe is taken for ready")?;
    let uri = format!("binary://{}", script(world, "exit 3")?);
    let answer = logged(world, &uri, "true").and_then(|task| task.start());
    check(answer.is_err(), "a logger that fails is an error")
}

/// A logger that does not exist: Create says so.
fn a_logger_that_does_not_exist(world: &World) -> Verdict {
    let answer = logged(world, "binary:///no/such/logger", "true");
    let Err(Stop::Fail(words)) = answer else { return check(false, "Create is refused") };
    contains("the reason", &words, "/no/such/logger")
}

/// A logger that is never ready does not hold the shim: others are answered, and Create fails in
/// the end.
fn a_logger_that_is_never_ready(world: &World) -> Verdict {
    world.reference_deviates("Create holds the lock that Connect wants")?;
    let uri = format!("binary://{}", script(world, "exec sleep 1000")?);
    let task = world.task(world.bundle("true"))?;
    let mut query = task.request();
    query.stdout = uri;
    let creating = task.client.creating(&query);
    std::thread::sleep(Duration::from_millis(100));
    let begun = Instant::now();
    task.client.connect(&task.id)?;
    check(begun.elapsed() < patience(Duration::from_millis(200)), "Connect is answered meanwhile")?;
    let answer = creating.within(patience(Duration::from_secs(40)));
    check(answer.is_err_and(|refusal| refusal.code.is_some()), "Create is refused in the end")
}

/// A logger that dies: the container goes on.
fn a_logger_that_dies(world: &World) -> Verdict {
    let uri = format!("binary://{}", script(world, "exec 5>&-; sleep 0.2; exit 1")?);
    let task = logged(world, &uri, "sleep 0.5; exit 4")?;
    task.start()?;
    same("status", &task.wait()?.exit_status, &4)?;
    task.delete()
}

/// With the container's end the logger gets the end of both streams, and the time to write.
fn a_logger_ends_with_its_container(world: &World) -> Verdict {
    let text = "trap '' TERM; exec 5>&-; cat <&3 >out; cat <&4 >err; sleep 0.3; echo done >done";
    let uri = format!("binary://{}", script(world, text)?);
    let task = logged(world, &uri, "echo last")?;
    task.start()?;
    task.wait()?;
    task.delete()?;
    eventually("the logger ends", PATIENCE, || Ok(world.dir.join("done").exists()))?;
    same("stdout", &fs::read_to_string(world.dir.join("out"))?.as_str(), &"last\n")
}

/// A logger that was told to end and does so while the container is still being deleted: the shim
/// takes note once.
fn a_logger_that_outlives_the_streams(world: &World) -> Verdict {
    world.reference_deviates("this is about our own loop")?;
    let text = "trap 'exit 0' TERM; exec 5>&-; while :; do sleep 0.3; done";
    let uri = format!("binary://{}", script(world, text)?);
    let hook = world.dir.join("hook");
    fs::write(&hook, "#!/bin/busybox sh\ntimeout 4 sleep 1234; exit 0\n")?;
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755))?;
    let mut bundle = world.bundle("exit 3");
    bundle.set("hooks", serde_json::json!({"poststop": [{"path": hook}]}));
    let mut task = world.task(bundle)?;
    let mut query = task.request();
    query.stdout.clone_from(&uri);
    query.stderr = uri;
    task.pid = task.client.create(&query)?;
    task.start()?;
    task.wait()?;
    let deleting = task.client.deleting(&task.id, "");
    let there = |what: &str| processes().iter().any(|(_, line)| line.contains(what));
    eventually("the hook runs", PATIENCE, || Ok(there("sleep 1234")))?;
    eventually("the logger ends", PATIENCE, || Ok(!there("(logger)")))?;
    task.shim.rests(Duration::from_secs(1))?;
    deleting.is_pending()?;
    same("status", &deleting.answer()?.exit_status, &3)
}

/// The output of a terminal goes to a logger too.
fn a_logger_on_a_terminal(world: &World) -> Verdict {
    let uri = format!("binary://{}", script(world, COPY)?);
    let mut bundle = world.bundle("tty; echo out");
    bundle.set("process.terminal", serde_json::json!(true));
    let mut task = world.task(bundle)?;
    let mut query = task.request();
    query.terminal = true;
    query.stdout = uri;
    task.pid = task.client.create(&query)?;
    task.start()?;
    same("status", &task.wait()?.exit_status, &0)?;
    task.delete()?;
    let out = world.dir.join("out");
    eventually("the output", PATIENCE, || Ok(fs::read_to_string(&out)?.ends_with("out\r\n")))?;
    contains("the output", &fs::read_to_string(&out)?, "/dev/pts/0\r\n")
}

/// `binary-v2` is ready with one byte.
fn version_two(world: &World) -> Verdict {
    world.reference_deviates("1.6 does not know binary-v2")?;
    let text = "printf 1 >&5; cat <&3 >out & cat <&4 >err & wait";
    let uri = format!("binary-v2://{}", script(world, text)?);
    let task = logged(world, &uri, "echo out; echo err >&2")?;
    task.start()?;
    task.wait()?;
    task.delete()?;
    same("stdout", &fs::read_to_string(world.dir.join("out"))?.as_str(), &"out\n")
}

/// `binary-v2` that closes the descriptor without the byte has failed.
fn version_two_says_a_byte(world: &World) -> Verdict {
    world.reference_deviates("1.6 does not know binary-v2")?;
    let uri = format!("binary-v2://{}", script(world, COPY)?);
    let answer = logged(world, &uri, "true").and_then(|task| task.start());
    check(answer.is_err(), "no byte is an error")
}
