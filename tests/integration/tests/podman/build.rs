//! `podman build` and buildah with `--isolation oci`: every RUN is a container.

use std::fs;

use corten_integration::managers::client::unique;
use corten_integration::managers::podman::Podman;
use corten_integration::managers::{Verdict, check, contains, image, lacks, same};

pub(crate) const TESTS: &[(&str, crate::Test)] = &[
    ("podman_build", podman_build),
    ("podman_build_fails", podman_build_fails),
    ("podman_build_mounts", podman_build_mounts),
    ("buildah_run", buildah_run),
    ("buildah_run_options", buildah_run_options),
    ("buildah_commit", buildah_commit),
    ("buildah_build", buildah_build),
];

/// What every build here does: steps as root and as a user, a second stage.
const DOCKERFILE: &str = "FROM localhost/bb AS first\n\
    ARG WORD=none\n\
    WORKDIR /work/deep\n\
    COPY input copied\n\
    RUN cat copied > both && echo $WORD >> both && id -u >> both && pwd >> both\n\
    USER alice\n\
    RUN id -u > /tmp/alice && ! touch /root-file 2>/dev/null\n\
    FROM localhost/bb\n\
    COPY --from=first /work/deep/both /both\n\
    COPY --from=first /tmp/alice /alice\n\
    RUN [\"/bin/sh\", \"-c\", \"grep ^Seccomp: /proc/self/status > /seccomp\"]\n\
    CMD cat /both /alice /seccomp\n";

const BUILT: &str = "input\nword\n0\n/work/deep\n1000\nSeccomp:\t2";

/// The options that make a build use the runtime under test and leave the machine alone.
fn options(podman: &Podman) -> Vec<String> {
    let runtime = podman.sandbox.runtime.display().to_string();
    let mut all = vec!["--runtime".to_owned(), runtime, "--isolation=oci".to_owned()];
    all.extend(["--network", "none", "--pull-never"].map(str::to_owned));
    all.extend(group(podman));
    all
}

/// buildah's `--cgroup-parent` is the group of the step itself, so each build has its own.
fn group(podman: &Podman) -> [String; 2] {
    ["--cgroup-parent".to_owned(), format!("{}/{}", podman.sandbox.cgroup, unique("build"))]
}

fn podman_build(podman: &Podman) -> Verdict {
    let folder = podman.folder("build")?;
    fs::write(folder.join("Dockerfile"), DOCKERFILE)?;
    fs::write(folder.join("input"), "input\n")?;
    let tag = unique("built");
    let run = podman.command(&["build", "--no-cache", "--build-arg", "WORD=word", "-t", &tag]);
    // `podman build` takes the runtime from the global option.
    let run = run.args(options(podman).iter().skip(2).filter(|word| *word != "--pull-never"));
    run.arg(&folder).ok()?;
    let seen = podman.ok(&["run", "--rm", "--network", "none", &tag]);
    podman.ok(&["rmi", "-f", &tag])?;
    same("content", &seen?, BUILT)
}

fn podman_build_fails(podman: &Podman) -> Verdict {
    let folder = podman.folder("build")?;
    fs::write(
        folder.join("Dockerfile"),
        "FROM localhost/bb\nRUN echo before; exit 33\nRUN echo after\n",
    )?;
    let run = podman.command(&["build", "--no-cache", "--network", "none"]).args(group(podman));
    let failed = run.arg(&folder).run()?;
    check(failed.code != 0, "the build went on")?;
    contains("message", &failed.all(), "33")?;
    lacks("steps", &failed.all(), "\nafter")
}

fn podman_build_mounts(podman: &Podman) -> Verdict {
    let folder = podman.folder("build")?;
    let text = "FROM localhost/bb\n\
        RUN --mount=type=cache,target=/c --mount=type=tmpfs,target=/t --mount=type=secret,id=s \
        touch /c/x /t/x && cat /run/secrets/s > /seen && mount | grep -c -E ' /(c|t) ' >> /seen\n\
        RUN ls -d /t/x /c/x 2>&1 | grep -c 'No such' >> /seen\nCMD cat /seen\n";
    fs::write(folder.join("Dockerfile"), text)?;
    fs::write(folder.join("secret"), "hush\n")?;
    let secret = format!("id=s,src={}", folder.join("secret").display());
    let tag = unique("built");
    let run = podman.command(&["build", "--network", "none", "--secret", &secret, "-t", &tag]);
    run.args(group(podman)).arg(&folder).ok()?;
    let seen = podman.ok(&["run", "--rm", "--network", "none", &tag]);
    podman.ok(&["rmi", "-f", &tag])?;
    same("content", &seen?, "hush\n2\n2")
}

/// A buildah working container that is removed when the test ends.
struct Working<'a> {
    podman: &'a Podman,
    name: String,
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        // What stays is found by the leak test.
        self.podman.buildah(&["rm", &self.name]).run().ok();
    }
}

impl<'a> Working<'a> {
    fn new(podman: &'a Podman) -> Result<Self, corten_integration::managers::Stop> {
        let run = podman.buildah(&["from", "--pull-never"]).args(group(podman));
        let name = run.arg(format!("localhost/{}", image::NAME)).ok()?;
        Ok(Self { podman, name })
    }

    fn run(&self, options: &[&str], script: &str) -> corten_integration::managers::command::Run {
        let runtime = self.podman.sandbox.runtime.display().to_string();
        let run = self.podman.buildah(&["run", "--runtime", &runtime, "--isolation", "oci"]);
        let run = run.args(["--network", "none"]).args(options);
        run.args(["--", &self.name, "sh", "-c", script])
    }
}

fn buildah_run(podman: &Podman) -> Verdict {
    let working = Working::new(podman)?;
    let ended = working.run(&[], "echo out; echo err >&2; echo made > /made").code(0)?;
    same("streams", &(ended.stdout + &ended.stderr), "out\nerr\n")?;
    same("kept", &working.run(&[], "cat /made").ok()?, "made")?;
    let failed = working.run(&[], "exit 7").run()?;
    same("exit code", &failed.code, &7)?;
    let missing = working.run(&[], "exec no-such").run()?;
    same("missing", &missing.code, &127)
}

fn buildah_run_options(podman: &Podman) -> Verdict {
    let working = Working::new(podman)?;
    let folder = podman.folder("buildah")?;
    fs::write(folder.join("f"), "bound")?;
    let volume = format!("{}:/m:ro", folder.display());
    let options = [
        "--user",
        "alice",
        "--env",
        "A=1",
        "--workingdir",
        "/var/data",
        "--hostname",
        "h",
        "--volume",
        &volume,
    ];
    let seen = working.run(&options, "id -un; echo $A; pwd; hostname; cat /m/f").ok()?;
    same("options", &seen, "alice\n1\n/var/data\nh\nbound")?;
    let caps =
        working.run(&["--cap-add", "CAP_NET_ADMIN"], "grep ^CapEff /proc/self/status").ok()?;
    contains("capabilities", &caps, "CapEff:\t00000000a80435fb")?;
    let text = "x\n".repeat(1000);
    let ended = working.run(&[], "cat").input(text.clone()).code(0)?;
    check(ended.stdout == text, format!("{} bytes came back", ended.stdout.len()))
}

fn buildah_commit(podman: &Podman) -> Verdict {
    let working = Working::new(podman)?;
    working.run(&[], "echo x > /committed").ok()?;
    podman.buildah(&["config", "--cmd", "cat /committed", &working.name]).ok()?;
    let tag = unique("built");
    podman.buildah(&["commit", "-q", &working.name, &tag]).ok()?;
    let seen = podman.ok(&["run", "--rm", "--network", "none", &tag]);
    podman.ok(&["rmi", "-f", &tag])?;
    same("content", &seen?, "x")
}

fn buildah_build(podman: &Podman) -> Verdict {
    let folder = podman.folder("build")?;
    fs::write(folder.join("Dockerfile"), DOCKERFILE)?;
    fs::write(folder.join("input"), "input\n")?;
    let tag = unique("built");
    let run = podman.buildah(&["build", "--no-cache", "--build-arg", "WORD=word", "-t", &tag]);
    run.args(options(podman)).arg(&folder).ok()?;
    let seen = podman.ok(&["run", "--rm", "--network", "none", &tag]);
    podman.ok(&["rmi", "-f", &tag])?;
    same("content", &seen?, BUILT)
}
