//! Where output goes and input comes from: FIFOs, files, programs, and clients that come later.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use corten_integration::managers::command::Run;
use corten_integration::managers::containerd::{Containerd, alive};
use corten_integration::managers::{Verdict, check, contains, eventually, same};

pub(crate) const TESTS: &[(&str, crate::Test)] = &[
    ("standard_input", standard_input),
    ("large_output", large_output),
    ("output_waits_for_a_reader", output_waits_for_a_reader),
    ("output_of_what_was_left_behind", output_of_what_was_left_behind),
    ("attach", attach),
    ("attach_terminal", attach_terminal),
    ("log_file", log_file),
    ("log_program", log_program),
    ("log_program_of_exec", log_program_of_exec),
    ("log_program_missing", log_program_missing),
    ("log_scheme_unknown", log_scheme_unknown),
];

/// Quotes a command line for a shell.
fn shell(run: &Run) -> String {
    let words = run.words().map(|word| format!("'{}'", word.replace('\'', "'\\''")));
    words.collect::<Vec<_>>().join(" ")
}

/// Runs `run` behind a pipe into which `feed` writes once `file` is there: `ctr` forgets the end
/// of an input that ends before the task exists.
pub(crate) fn piped(run: &Run, feed: &str, file: &Path) -> Run {
    let ready = file.display();
    let script = format!("(until [ -e {ready} ]; do sleep 0.05; done; {feed}) | {}", shell(run));
    Run::new("sh").args(["-c", &script])
}

fn standard_input(ctr: &Containerd) -> Verdict {
    let folder = ctr.folder("input")?;
    let mount = format!("type=bind,src={},dst=/out,options=rbind:rw", folder.display());
    let script = "touch /out/ready; cat; echo end; exit 5";
    let run = ctr.run(&["--mount", &mount], &["sh", "-c", script])?;
    let ended = piped(&run, "seq 100000", &folder.join("ready")).code(5)?;
    check(ended.stdout.ends_with("\n99999\n100000\nend\n"), "the end is missing")?;
    same("lines", &ended.stdout.lines().count(), &100_001)
}

fn large_output(ctr: &Containerd) -> Verdict {
    let script = "seq 200000 & seq 200000 >&2; wait";
    let ended = ctr.run(&[], &["sh", "-c", script])?.code(0)?;
    let wanted: String = (1..=200_000).map(|number| format!("{number}\n")).collect();
    check(ended.stdout == wanted, format!("{} bytes of stdout", ended.stdout.len()))?;
    check(ended.stderr == wanted, format!("{} bytes of stderr", ended.stderr.len()))
}

/// What a container writes while nobody reads fills the pipes, then blocks it; nothing is lost.
fn output_waits_for_a_reader(ctr: &Containerd) -> Verdict {
    // ctr stops reading at the exit, whatever is still to be read; and the one that started it reads
    // until it leaves.
    let script = "until [ -e /go ]; do sleep 0.05; done; \
                  seq 300000; touch /done; sleep 2; exit 3";
    let container = ctr.background(&[], script)?;
    container.exec(&[], "touch /go")?;
    std::thread::sleep(Duration::from_millis(500));
    same("not done", &container.exec(&[], "ls /done 2>/dev/null || echo no")?, "no")?;
    let seen = container.task("attach", &[]).code(3)?;
    check(seen.stdout.ends_with("\n299999\n300000\n"), "the end is missing")?;
    same("lines", &seen.stdout.lines().count(), &300_000)
}

/// A process that outlives the first one may hold its output open; the end is told all the same.
fn output_of_what_was_left_behind(ctr: &Containerd) -> Verdict {
    let options = ["--with-ns", "pid:/proc/1/ns/pid"];
    let ended = ctr.run(&options, &["sh", "-c", "sleep 66 & echo said; exit 2"])?.code(2)?;
    same("output", &ended.stdout, "said\n")
}

fn attach(ctr: &Containerd) -> Verdict {
    let container =
        ctr.background(&[], "until [ -e /go ]; do sleep 0.05; done; echo went; exit 8")?;
    let ended = std::thread::scope(|scope| {
        let client = scope.spawn(|| container.task("attach", &[]).code(8));
        std::thread::sleep(Duration::from_millis(500));
        let told = container.exec(&[], "touch /go");
        let ended = client.join().map_err(|_| "a thread panicked")?;
        told.and(ended)
    })?;
    same("output", &ended.stdout, "went\n")
}

fn attach_terminal(ctr: &Containerd) -> Verdict {
    let container = ctr.created(&["--tty"], &["sh"])?;
    let client = ctr.terminal(container.task("start", &["-d"]))?;
    same("start", &client.finish()?.0, &0)?;
    for turn in ["41", "42"] {
        let mut client = ctr.terminal(container.task("attach", &[]))?;
        client.send(&format!("echo a{turn}b\n"))?;
        client.expect(&format!("\na{turn}b"))?;
        drop(client);
        same("still running", &container.status()?, "RUNNING")?;
    }
    let mut client = ctr.terminal(container.task("attach", &[]))?;
    client.send("exit 3\n")?;
    same("exit code", &client.finish()?.0, &3)
}

fn log_file(ctr: &Containerd) -> Verdict {
    let file = ctr.folder("log")?.join("not/yet/there/log");
    let uri = format!("file://{}", file.display());
    for turn in 1..=2 {
        let container = ctr.background(&["--log-uri", &uri], "echo out; echo err >&2; exit 7")?;
        same("exit code", &container.ends()?, &7)?;
        let text = fs::read_to_string(&file)?;
        let count = |word| text.lines().filter(|&line| line == word).count();
        same("both streams, added", &(count("out"), count("err")), &(turn, turn))?;
    }
    same("mode", &(fs::metadata(&file)?.permissions().mode() & 0o777), &0o644)
}

/// A logger that writes each of its inputs into a file, and who it is. The end of a container is
/// told by SIGTERM as well; this one rather reads to the end.
fn logger(folder: &Path) -> Result<String, corten_integration::managers::Stop> {
    let program = folder.join("logger");
    let dir = folder.display();
    let script = format!(
        "#!/bin/sh\ntrap '' TERM\necho \"$CONTAINER_ID $CONTAINER_NAMESPACE $*\" > {dir}/who\n\
         echo $$ > {dir}/pid\ncat <&3 5>&- > {dir}/out &\ncat <&4 5>&- > {dir}/err &\n\
         sleep 0.3\nexec 5>&- 3<&- 4<&-\nwait\necho all > {dir}/done\n"
    );
    fs::write(&program, script)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    Ok(format!("binary://{}", program.display()))
}

fn log_program(ctr: &Containerd) -> Verdict {
    let folder = ctr.folder("log")?;
    let uri = format!("{}?one=first%20word&two", logger(&folder)?);
    let script = "seq 50000; echo err >&2; exit 6";
    let container = ctr.background(&["--log-uri", &uri], script)?;
    let who = fs::read_to_string(folder.join("who"))?;
    let wanted = format!("{} {} ", container.id, ctr.namespace);
    check(who.starts_with(&wanted), format!("{who} does not start with {wanted}"))?;
    contains("arguments", &who, "one first word")?;
    contains("arguments", &who, "two")?;
    same("exit code", &container.ends()?, &6)?;
    // The end of the streams is the logger's end.
    eventually("the logger has ended", Duration::from_secs(20), || {
        Ok(folder.join("done").exists())
    })?;
    let text = fs::read_to_string(folder.join("out"))?;
    check(text.ends_with("\n49999\n50000\n"), format!("{} bytes", text.len()))?;
    same("stderr", &fs::read_to_string(folder.join("err"))?, "err\n")?;
    let pid = nix::unistd::Pid::from_raw(fs::read_to_string(folder.join("pid"))?.trim().parse()?);
    eventually("no zombie", Duration::from_secs(10), || Ok(!alive(pid)))
}

fn log_program_of_exec(ctr: &Containerd) -> Verdict {
    let folder = ctr.folder("log")?;
    let uri = logger(&folder)?;
    let container = ctr.background(&[], "sleep 600")?;
    let options = ["--log-uri", &uri, "--exec-id", "logged"];
    let words = ["sh", "-c", "echo from exec; exit 0"];
    container.exec_raw(&options, &words).code(0)?;
    eventually("the logger has ended", Duration::from_secs(20), || {
        Ok(folder.join("done").exists())
    })?;
    same("output", &fs::read_to_string(folder.join("out"))?, "from exec\n")
}

fn log_program_missing(ctr: &Containerd) -> Verdict {
    let id = ctr.id()?;
    let image = corten_integration::managers::image::REFERENCE;
    let uri = "binary:///no/such/logger";
    let words = ["run", "-d", "--runtime", &ctr.runtime, "--log-uri", uri, image, &id, "true"];
    let failed = ctr.ctr(&words).code(1)?;
    contains("message", &failed.stderr, "/no/such/logger")?;
    contains("message", &failed.stderr, "no such file or directory")?;
    ctr.ctr(&["container", "rm", &id]).run().map(drop)
}

fn log_scheme_unknown(ctr: &Containerd) -> Verdict {
    let id = ctr.id()?;
    let image = corten_integration::managers::image::REFERENCE;
    let uri = "carrier-pigeon:///there";
    let words = ["run", "-d", "--runtime", &ctr.runtime, "--log-uri", uri, image, &id, "true"];
    let failed = ctr.ctr(&words).code(1)?;
    contains("message", &failed.stderr, "unknown STDIO scheme carrier-pigeon")?;
    ctr.ctr(&["container", "rm", &id]).run().map(drop)
}
