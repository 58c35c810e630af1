//! `process.apparmorProfile`, on a kernel that has AppArmor: `make lab`.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use corten_integration::{Bundle, Flavour, Test, suite, tests};
use serde_json::json;

fn main() -> ExitCode {
    suite(tests![
        a_profile_confines_the_program,
        a_profile_confines_with_new_privileges_allowed,
        a_profile_confines_in_a_user_namespace,
        exec_has_the_profile_of_the_container,
        exec_can_have_another_profile,
        a_profile_that_is_not_loaded_is_refused,
        unconfined_is_no_profile,
        no_profile_is_no_profile,
    ])
}

/// A loaded profile, which leaves everything open but `/secret`.
struct Profile<'a> {
    test: &'a Test,
    file: String,
    name: String,
}

impl<'a> Profile<'a> {
    fn load(test: &'a Test) -> Self {
        let enabled = fs::read("/sys/module/apparmor/parameters/enabled");
        if !enabled.is_ok_and(|on| on.starts_with(b"Y")) {
            test.skip("no AppArmor here");
        }
        let parser = ["/sbin/apparmor_parser", "/usr/sbin/apparmor_parser"];
        if !parser.iter().any(|path| Path::new(path).exists()) {
            test.skip("no apparmor_parser here");
        }
        let name = format!("{}-{}", test.tag, test.next());
        let file = test.dir.join(&name).to_str().unwrap().to_owned();
        let text = format!(
            "profile {name} flags=(attach_disconnected,mediate_deleted) {{\n  file,\n  capability,\n  \
             network,\n  mount,\n  umount,\n  signal,\n  ptrace,\n  unix,\n  deny /secret rwl,\n}}\n"
        );
        fs::write(&file, text).unwrap();
        let profile = Self { test, file, name };
        profile.parser("--replace").ok();
        profile
    }

    fn parser(&self, what: &str) -> corten_integration::Output {
        let mut command = Command::new("apparmor_parser");
        command.args([what, "--skip-cache", &self.file]);
        self.test.execute(command)
    }
}

impl Drop for Profile<'_> {
    fn drop(&mut self) {
        self.parser("--remove");
    }
}

const CURRENT: &str = "/proc/self/attr/current";
const STEPS: [&str; 9] =
    ["read", CURRENT, ";", "read", "/secret", ";", "create", "/secret", "changed"];

fn bundle(t: &Test) -> Bundle {
    let b = t.bundle();
    fs::write(b.rootfs().join("secret"), "told").unwrap();
    b
}

/// The program has the label, and what the profile forbids is forbidden.
fn confined(out: &corten_integration::Output, profile: &Profile<'_>) {
    let label = format!("{} (enforce)", profile.name);
    assert_eq!(out.fact(0)["value"].as_str().map(str::trim), Some(label.as_str()), "{out}");
    assert_eq!(out.fact(1)["errno"], "EACCES", "{out}");
    assert_eq!(out.fact(2)["errno"], "EACCES", "{out}");
}

/// The program runs under the profile, also with no_new_privs, which forbids to change it later.
fn a_profile_confines_the_program(t: &Test) {
    let profile = Profile::load(t);
    let mut b = bundle(t);
    b.set("process.apparmorProfile", json!(profile.name)).probe(&STEPS);
    confined(&t.run(&b).ok(), &profile);
}

/// Without no_new_privs.
fn a_profile_confines_with_new_privileges_allowed(t: &Test) {
    let profile = Profile::load(t);
    let mut b = bundle(t);
    b.set("process.apparmorProfile", json!(profile.name)).probe(&STEPS);
    b.set("process.noNewPrivileges", json!(false));
    confined(&t.run(&b).ok(), &profile);
}

/// The label is taken in the container's user namespace.
fn a_profile_confines_in_a_user_namespace(t: &Test) {
    let profile = Profile::load(t);
    let mut b = bundle(t);
    b.namespace("user", None)
        .set("linux.uidMappings", json!([{"containerID": 0, "hostID": 100_000, "size": 1000}]))
        .set("linux.gidMappings", json!([{"containerID": 0, "hostID": 100_000, "size": 1000}]));
    for name in ["", "secret"] {
        let path = b.rootfs().join(name);
        std::os::unix::fs::chown(path, Some(100_000), Some(100_000)).unwrap();
    }
    b.set("process.apparmorProfile", json!(profile.name)).probe(&STEPS);
    confined(&t.run(&b).ok(), &profile);
}

/// An exec without a profile of its own has the container's.
fn exec_has_the_profile_of_the_container(t: &Test) {
    let profile = Profile::load(t);
    let mut b = bundle(t);
    b.set("process.apparmorProfile", json!(profile.name));
    t.sleeper(&mut b);
    confined(&t.exec(&b.id, &[], &STEPS).ok(), &profile);
}

/// `exec --apparmor`.
fn exec_can_have_another_profile(t: &Test) {
    let (own, other) = (Profile::load(t), Profile::load(t));
    let mut b = bundle(t);
    b.set("process.apparmorProfile", json!(own.name));
    t.sleeper(&mut b);
    confined(&t.exec(&b.id, &["--apparmor", &other.name], &STEPS).ok(), &other);
    t.exec(&b.id, &["--apparmor", &format!("{}-absent", t.tag)], &STEPS).fails();
}

/// Nothing runs without the profile that was asked for.
fn a_profile_that_is_not_loaded_is_refused(t: &Test) {
    drop(Profile::load(t));
    let mut b = bundle(t);
    b.set("process.apparmorProfile", json!(format!("{}-absent", t.tag))).probe(&STEPS);
    let out = t.run_fails(&b);
    if t.flavour == Flavour::Corten {
        out.says("apparmor failed to apply profile");
    }
}

/// `unconfined` is AppArmor's word for none.
fn unconfined_is_no_profile(t: &Test) {
    drop(Profile::load(t));
    let mut b = bundle(t);
    b.set("process.apparmorProfile", json!("unconfined")).probe(&STEPS);
    let out = t.run(&b).ok();
    assert_eq!(out.fact(0)["value"].as_str().map(str::trim), Some("unconfined"), "{out}");
    assert_eq!(out.fact(1)["value"], "told", "{out}");
}

/// Without a profile the caller's holds on.
fn no_profile_is_no_profile(t: &Test) {
    drop(Profile::load(t));
    let mut b = bundle(t);
    b.probe(&STEPS);
    let out = t.run(&b).ok();
    assert_eq!(out.fact(0)["value"].as_str().map(str::trim), Some("unconfined"), "{out}");
    assert_eq!(out.fact(1)["value"], "told", "{out}");
}
