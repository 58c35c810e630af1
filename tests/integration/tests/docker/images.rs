//! Images made by containers: commit, build, import, export, cp, diff.

use std::fs;

use corten_integration::managers::client::unique;
use corten_integration::managers::docker::{Docker, Test};
use corten_integration::managers::{Verdict, contains, lacks, same};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("commit", commit),
    ("diff", diff),
    ("copy", copy),
    ("copy_through_links", copy_through_links),
    ("export_and_import", export_and_import),
    ("build", build),
    ("build_with_buildkit", build_with_buildkit),
    ("build_failure", build_failure),
    ("build_limits", build_limits),
    ("save_and_load", save_and_load),
];

fn commit(docker: &Docker) -> Verdict {
    let script = "echo kept > /kept; rm /etc/greeting; chmod 700 /tmp; echo ready; sleep 600";
    let container = docker.background(&[], script)?;
    container.says("ready")?;
    let tag = unique("committed");
    let change = "CMD [\"cat\", \"/kept\"]";
    docker.ok(&["commit", "--change", change, &container.name, &tag])?;
    let seen = docker.ok(&["run", "--rm", "--network", "none", &tag]);
    let more = [
        "run",
        "--rm",
        "--network",
        "none",
        &tag,
        "sh",
        "-c",
        "ls /etc/greeting 2>&1; stat -c %a /tmp; ls / | grep -c oldroot",
    ];
    let more = docker.command(&more).run();
    docker.ok(&["rmi", &tag])?;
    same("written", &seen?, "kept")?;
    let more = more?.stdout;
    contains("removed", &more, "No such file")?;
    contains("changed", &more, "\n700\n0")
}

fn diff(docker: &Docker) -> Verdict {
    let script =
        "echo x > /added; echo y > /etc/greeting; rm /var/data/seed; echo ready; sleep 600";
    let container = docker.background(&["--tmpfs", "/scratch", "-v", "/volume"], script)?;
    container.says("ready")?;
    let seen = container.does("diff")?;
    let mut lines: Vec<&str> = seen.lines().collect();
    lines.sort_unstable();
    for wanted in ["A /added", "C /etc", "C /etc/greeting", "D /var/data/seed"] {
        contains("diff", &seen, wanted)?;
    }
    // Beside those only the mount points that Docker's configuration asks for.
    lines.retain(|line| !line.starts_with("C ") && !line.contains("/volume"));
    same("added", &lines[..], &["A /added", "A /scratch", "D /var/data/seed"][..])
}

fn copy(docker: &Docker) -> Verdict {
    let folder = docker.folder("copy")?;
    let file = folder.join("file");
    fs::write(&file, "copied in")?;
    let container =
        docker.background(&["--tmpfs", "/t"], "echo inside > /made; echo ready; sleep 600")?;
    container.says("ready")?;
    let (from, to) = (file.display().to_string(), format!("{}:/home/alice/f", container.name));
    docker.ok(&["cp", &from, &to])?;
    same("in", &container.exec(&[], "cat /home/alice/f")?, "copied in")?;
    let (from, to) = (format!("{}:/made", container.name), folder.join("out"));
    docker.ok(&["cp", &from, &to.display().to_string()])?;
    same("out", &fs::read_to_string(&to)?, "inside\n")?;
    // Also from one that has stopped.
    container.with("stop", &["-t", "0"])?;
    docker.ok(&["cp", &from, &folder.join("later").display().to_string()])?;
    same("later", &fs::read_to_string(folder.join("later"))?, "inside\n")
}

fn copy_through_links(docker: &Docker) -> Verdict {
    let folder = docker.folder("copy")?;
    let file = folder.join("file");
    fs::write(&file, "x")?;
    let container = docker.background(&[], "sleep 600")?;
    let to = format!("{}:/climb/copied", container.name);
    docker.ok(&["cp", &file.display().to_string(), &to])?;
    same("inside", &container.exec(&[], "cat /etc/copied")?, "x")?;
    corten_integration::managers::check(
        !std::path::Path::new("/etc/copied").exists(),
        "the link led out of the container",
    )
}

fn export_and_import(docker: &Docker) -> Verdict {
    let folder = docker.folder("export")?;
    let archive = folder.join("export.tar").display().to_string();
    let container = docker.background(&[], "echo 1 > /exported; echo ready; sleep 600")?;
    container.says("ready")?;
    docker.ok(&["export", "-o", &archive, &container.name])?;
    let tag = unique("imported");
    docker.ok(&["import", "--change", "ENV FROM=import", &archive, &tag])?;
    let words = ["run", "--rm", "--network", "none", &tag, "sh", "-c", "cat /exported; echo $FROM"];
    let seen = docker.ok(&words);
    docker.ok(&["rmi", &tag])?;
    same("content", &seen?, "1\nimport")
}

/// What a build does here: root and user steps, a working directory, a volume, a second stage.
const DOCKERFILE: &str = "FROM bb AS first\n\
    ARG WORD=none\n\
    WORKDIR /work/deep\n\
    COPY input copied\n\
    RUN cat copied > both && echo $WORD >> both && id -u >> both && pwd >> both\n\
    USER alice\n\
    RUN id -u > /tmp/alice && ! touch /root-file 2>/dev/null\n\
    FROM bb\n\
    ENV KEEP=env\n\
    COPY --from=first /work/deep/both /both\n\
    COPY --from=first /tmp/alice /alice\n\
    RUN [\"/bin/sh\", \"-c\", \"echo exec form > /form; hostname > /host; ls /proc/self/fd | wc -l\"]\n\
    RUN test -c /dev/null && ! touch /sys/x 2>/dev/null\n\
    CMD cat /both /alice /form; echo $KEEP\n";

fn built(docker: &Docker, buildkit: &str) -> Verdict {
    let folder = docker.folder("build")?;
    fs::write(folder.join("Dockerfile"), DOCKERFILE)?;
    fs::write(folder.join("input"), "input\n")?;
    let (tag, place) = (unique("built"), folder.display().to_string());
    let words = ["build", "--no-cache", "--build-arg", "WORD=word", "-t", &tag, &place];
    docker.command(&words).env("DOCKER_BUILDKIT", buildkit).code(0)?;
    let seen = docker.ok(&["run", "--rm", "--network", "none", &tag]);
    docker.ok(&["rmi", &tag])?;
    same("content", &seen?, "input\nword\n0\n/work/deep\n1000\nexec form\nenv")
}

fn build(docker: &Docker) -> Verdict {
    built(docker, "0")
}

fn build_with_buildkit(docker: &Docker) -> Verdict {
    built(docker, "1")?;
    // No container of the build is left in the runtime's state: the leak test looks for it.
    let folder = docker.folder("build")?;
    let text = "FROM bb\nRUN --mount=type=tmpfs,target=/t --mount=type=cache,target=/c \
                touch /t/x /c/y && mount | grep -c -E ' /(t|c) ' > /count\nCMD cat /count\n";
    fs::write(folder.join("Dockerfile"), text)?;
    let (tag, place) = (unique("built"), folder.display().to_string());
    docker.command(&["build", "-t", &tag, &place]).env("DOCKER_BUILDKIT", "1").code(0)?;
    let seen = docker.ok(&["run", "--rm", "--network", "none", &tag]);
    docker.ok(&["rmi", &tag])?;
    same("mounts of a step", &seen?, "2")
}

fn build_failure(docker: &Docker) -> Verdict {
    let folder = docker.folder("build")?;
    fs::write(folder.join("Dockerfile"), "FROM bb\nRUN echo before; exit 33\nRUN echo after\n")?;
    for buildkit in ["0", "1"] {
        let run =
            docker.command(&["build", "--no-cache", "--force-rm", &folder.display().to_string()]);
        let failed = run.env("DOCKER_BUILDKIT", buildkit).run()?;
        corten_integration::managers::check(failed.code != 0, "the build went on")?;
        contains("message", &failed.all(), "33")?;
        lacks("steps", &failed.all(), "\nafter")?;
    }
    Ok(())
}

fn build_limits(docker: &Docker) -> Verdict {
    let folder = docker.folder("build")?;
    let text = "FROM bb\nRUN cat /sys/fs/cgroup/memory/memory.limit_in_bytes \
                2>/dev/null > /limit || cat /sys/fs/cgroup/memory.max > /limit\nCMD cat /limit\n";
    fs::write(folder.join("Dockerfile"), text)?;
    let (tag, place) = (unique("built"), folder.display().to_string());
    let words = ["build", "--memory", "64m", "--network", "none", "-t", &tag, &place];
    docker.command(&words).env("DOCKER_BUILDKIT", "0").code(0)?;
    let seen = docker.ok(&["run", "--rm", "--network", "none", &tag]);
    docker.ok(&["rmi", &tag])?;
    same("memory of a step", &seen?, "67108864")
}

fn save_and_load(docker: &Docker) -> Verdict {
    let folder = docker.folder("save")?;
    let archive = folder.join("image.tar").display().to_string();
    let container = docker.background(&[], "echo layer > /layer; echo ready; sleep 600")?;
    container.says("ready")?;
    let tag = unique("saved");
    docker.ok(&["commit", &container.name, &tag])?;
    docker.ok(&["save", "-o", &archive, &tag])?;
    docker.ok(&["rmi", &tag])?;
    docker.ok(&["load", "-i", &archive])?;
    let words = ["run", "--rm", "--network", "none", &tag, "cat", "/layer"];
    let seen = docker.ok(&words);
    docker.ok(&["rmi", &tag])?;
    same("layer", &seen?, "layer")
}
