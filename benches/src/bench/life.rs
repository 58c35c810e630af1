//! The subjects and what a round does with each.

use std::fs::File;
use std::path::PathBuf;

use corten_bench::bundle;
use corten_bench::process::Process;

use crate::options::Options;
use crate::samples::Samples;
use crate::spawn::{Command, Cost};

/// The commands in the order of the report.
pub const COMMANDS: [&str; 8] =
    ["create", "start", "delete", "life", "run", "exec", "state", "kill"];

#[derive(Debug)]
pub enum Subject {
    Runtime(Box<Runtime>),
    Floor { life: Command, noop: Command, output: PathBuf },
}

/// A runtime with its bundles and all its command lines.
#[derive(Debug)]
pub struct Runtime {
    name: String,
    output: PathBuf,
    pid_file: PathBuf,
    /// Of the short container: `/bin/true`.
    create: Command,
    start: Command,
    delete: Command,
    run: Command,
    /// Of the long one: `sleep`.
    create_long: Command,
    start_long: Command,
    exec: Command,
    state: Command,
    kill: Command,
    delete_long: Command,
}

/// Every subject that is installed and wanted.
pub fn subjects(options: &Options) -> Result<Vec<Subject>, String> {
    let mut subjects = Vec::new();
    let programs = [
        ("corten", options.corten.clone()),
        ("crun", Some(PathBuf::from("/usr/bin/crun"))),
        ("runc", Some(PathBuf::from("/usr/sbin/runc"))),
    ];
    for (name, program) in programs {
        match program.filter(|program| options.wants(name) && program.exists()) {
            Some(program) => {
                subjects.push(Subject::Runtime(Box::new(Runtime::new(name, &program, options)?)));
            }
            None if options.wants(name) => eprintln!("bench: {name} is not there and is left out"),
            None => {}
        }
    }
    if options.wants("floor") {
        let bundle = bundle::write(&options.work, "floor", &["/bin/true"])?;
        let floor = options.floor.to_string_lossy().into_owned();
        let rootfs = bundle.join("rootfs").to_string_lossy().into_owned();
        subjects.push(Subject::Floor {
            life: Command::new(&[&floor, "life", "--rootfs", &rootfs])?,
            noop: Command::new(&[&floor, "noop"])?,
            output: options.work.join("floor.out"),
        });
    }
    Ok(subjects)
}

impl Runtime {
    fn new(name: &str, program: &std::path::Path, options: &Options) -> Result<Self, String> {
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let short = text(bundle::write(&options.work, &format!("{name}-short"), &["/bin/true"])?);
        let long =
            text(bundle::write(&options.work, &format!("{name}-long"), &["/bin/sleep", "1000"])?);
        let root = text(options.state.join(name));
        let pid_file = text(options.work.join(format!("{name}.pid")));
        let program =
            text(program.canonicalize().map_err(|error| format!("{program:?}: {error}"))?);
        let command = |arguments: &[&str]| {
            Command::new(&[&[program.as_str(), "--root", &root], arguments].concat())
        };
        Ok(Runtime {
            name: name.to_owned(),
            output: options.work.join(format!("{name}.out")),
            create: command(&[
                "create",
                "--bundle",
                &short,
                "--pid-file",
                &pid_file,
                "bench-short",
            ])?,
            start: command(&["start", "bench-short"])?,
            delete: command(&["delete", "bench-short"])?,
            run: command(&["run", "--bundle", &short, "bench-short"])?,
            create_long: command(&[
                "create",
                "--bundle",
                &long,
                "--pid-file",
                &pid_file,
                "bench-long",
            ])?,
            start_long: command(&["start", "bench-long"])?,
            exec: command(&["exec", "bench-long", "/bin/true"])?,
            state: command(&["state", "bench-long"])?,
            kill: command(&["kill", "bench-long", "KILL"])?,
            delete_long: command(&["delete", "bench-long"])?,
            pid_file: PathBuf::from(pid_file),
        })
    }

    fn round(&self, samples: &mut Samples) -> Result<(), String> {
        let output =
            File::create(&self.output).map_err(|error| format!("{:?}: {error}", self.output))?;
        let mut timed = |name: &str, command: &Command| -> Result<Cost, String> {
            let cost = command.run(&output)?;
            samples.add(&self.name, name, cost);
            Ok(cost)
        };
        let create = timed("create", &self.create)?;
        let process = Process::from_pid_file(&self.pid_file)?;
        let start = timed("start", &self.start)?;
        process.ended()?;
        let delete = timed("delete", &self.delete)?;
        timed("run", &self.run)?;

        self.create_long.run(&output)?;
        let process = Process::from_pid_file(&self.pid_file)?;
        self.start_long.run(&output)?;
        timed("exec", &self.exec)?;
        timed("state", &self.state)?;
        timed("kill", &self.kill)?;
        process.ended()?;
        self.delete_long.run(&output)?;
        let life = Cost {
            wall: create.wall + start.wall + delete.wall,
            cpu: create.cpu + start.cpu + delete.cpu,
            memory: create.memory.max(start.memory).max(delete.memory),
        };
        samples.add(&self.name, "life", life);
        Ok(())
    }
}

impl Subject {
    /// One round of everything this subject can do.
    pub fn round(&self, samples: &mut Samples) -> Result<(), String> {
        match self {
            Subject::Runtime(runtime) => runtime.round(samples).map_err(|error| {
                format!("{error}\n{}", std::fs::read_to_string(&runtime.output).unwrap_or_default())
            }),
            Subject::Floor { life, noop, output } => {
                let file = File::create(output).map_err(|error| format!("{output:?}: {error}"))?;
                samples.add("floor", "noop", noop.run(&file)?);
                samples.add("floor", "run", life.run(&file)?);
                let text = std::fs::read_to_string(output).unwrap_or_default();
                let phases: std::collections::BTreeMap<String, f64> =
                    serde_json::from_str(&text)
                        .map_err(|error| format!("floor said {text:?}: {error}"))?;
                for (name, value) in phases {
                    samples.phases.entry(name).or_default().push(value);
                }
                Ok(())
            }
        }
    }
}
