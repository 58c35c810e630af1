use super::*;
use crate::cmd;

fn words(line: &str) -> Vec<OsString> {
    line.split_ascii_whitespace().map(OsString::from).collect()
}

fn globals(line: &str) -> (Globals, Request) {
    split(words(line).into_iter()).unwrap()
}

fn create(line: &str) -> Result<cmd::create::Args> {
    Ok(verb("create", words(line))?.unwrap())
}

fn exec(line: &str) -> cmd::exec::Args {
    verb("exec", words(line)).unwrap().unwrap()
}

fn why<T: std::fmt::Debug>(result: Result<T>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn p1_a_repeated_global_counts_with_its_last_value() {
    let line = "--root=/a --systemd-cgroup --debug --root /b --systemd-cgroup --debug=false create";
    let (globals, request) = globals(line);
    assert_eq!(globals.root.to_str(), Some("/b"));
    assert_eq!(globals.cgroup_manager, CgroupManager::Systemd);
    assert!(!globals.debug);
    assert!(matches!(request, Request::Verb(verb, rest) if verb == "create" && rest.is_empty()));
}

#[test]
fn p2_one_dash_is_as_good_as_two() {
    let (globals, _) = globals("-root /x -log=/l -log-format json state x");
    assert_eq!(globals.root.to_str(), Some("/x"));
    assert_eq!(globals.log.unwrap().to_str(), Some("/l"));
    assert_eq!(globals.log_format, LogFormat::Json);
    let run: cmd::run::Args = verb("run", words("-no-subreaper -detach -b=/y x")).unwrap().unwrap();
    assert!(run.no_subreaper && run.detach && !run.keep);
    assert_eq!(run.create.bundle.unwrap().to_str(), Some("/y"));
}

#[test]
fn p2_short_options_may_stand_in_one_word() {
    let args = exec("-td x").id;
    assert_eq!(args, "x");
}

#[test]
fn p3_a_flag_takes_go_s_booleans() {
    for (word, on) in [
        ("", true),
        ("=1", true),
        ("=T", true),
        ("=TRUE", true),
        ("=false", false),
        ("=F", false),
        ("=0", false),
    ] {
        assert_eq!(create(&format!("--no-pivot{word} x")).unwrap().no_pivot, on, "{word}");
    }
    assert!(!create("--no-pivot x --no-pivot=false").unwrap().no_pivot);
    assert!(why(create("--no-pivot=yes x")).contains("neither true nor false"));
    assert_eq!(globals("--rootless=true list").0.rootless, Rootless::True);
    assert_eq!(globals("--rootless=false list").0.rootless, Rootless::False);
}

#[test]
fn p4_options_may_follow_the_id_but_not_where_a_command_does() {
    let args = create("x --bundle /b --pid-file=/p").unwrap();
    assert_eq!((args.id.as_str(), args.bundle.unwrap().to_str()), ("x", Some("/b")));
    let kill: cmd::kill::Args = verb("kill", words("x KILL --all")).unwrap().unwrap();
    assert!(kill.all && kill.signal == 9);
    let args = exec("-t x ls -d --help --cwd /tmp");
    assert!(args.tty && !args.detach && args.cwd.is_none());
    assert_eq!(args.command, ["ls", "-d", "--help", "--cwd", "/tmp"]);
    assert_eq!(exec("x -- ls --").command, ["ls", "--"]);
    let ps: cmd::ps::Args = verb("ps", words("--format json x -ef")).unwrap().unwrap();
    assert_eq!((ps.format, ps.ps_args), (Format::Json, vec!["-ef".to_owned()]));
}

#[test]
fn p6_kill_without_a_signal_terminates() {
    let kill: cmd::kill::Args = verb("kill", words("x")).unwrap().unwrap();
    assert_eq!(kill.signal, 15);
    let kill: cmd::kill::Args = verb("kill", words("--all x sigUSR1")).unwrap().unwrap();
    assert_eq!(kill.signal, 10);
}

#[test]
fn p7_an_option_without_its_value_is_told_in_go_s_words() {
    assert_eq!(why(create("x --bundle")), "create: flag needs an argument: --bundle");
    assert_eq!(why(create("-b")), "create: flag needs an argument: --bundle");
    assert_eq!(why(split(words("--root").into_iter())), "corten: flag needs an argument: --root");
}

#[test]
fn p13_ids_are_what_every_peer_accepts() {
    for id in ["a", "A.b_c+d-e", "0", "_", "...", "a..b"] {
        assert_eq!(create(id).unwrap().id, id);
    }
    assert_eq!(create("-- -a").unwrap().id, "-a");
    let long = "x".repeat(255);
    assert_eq!(create(&long).unwrap().id, long);
    for id in [".", "..", "a/b", "/", "a:b", "a@b", "a\u{e9}", "$(x)", "a\\", &"x".repeat(256)] {
        let message = why(create(&format!("-- {id}")));
        assert!(message.starts_with("create: invalid container ID format: "), "{message}");
    }
    for id in ["", "a b", "a\nb", "a\0"] {
        verb::<cmd::create::Args>("create", vec![OsString::from(id)]).unwrap_err();
    }
}

#[test]
fn values_have_their_types() {
    assert_eq!(create("--preserve-fds 3 x").unwrap().preserve_fds, 3);
    assert!(why(create("--preserve-fds -1 x")).starts_with("create: --preserve-fds: invalid"));
    let args = exec("-e A=1 -eB=2 --env=C=3 -e=D=4 -u 5:6 -g 7 -g 8 --cap CAP_KILL x true");
    assert_eq!(args.env, ["A=1", "B=2", "C=3", "D=4"]);
    assert_eq!(args.user, Some(cmd::exec::User { uid: 5, gid: Some(6) }));
    assert_eq!((args.additional_gids, args.cap), (vec![7, 8], vec!["CAP_KILL".to_owned()]));
    let update: cmd::update::Args =
        verb("update", words("--memory 512m --memory-swap=-1 --pids-limit -1 -r - x"))
            .unwrap()
            .unwrap();
    assert_eq!((update.memory, update.memory_swap), (Some(512 << 20), Some(-1)));
    assert_eq!((update.pids_limit, update.cpu_quota), (Some(-1), None));
    assert_eq!(update.resources.unwrap().to_str(), Some("-"));
}

#[test]
fn what_is_wrong_is_said_in_one_line() {
    assert_eq!(why(create("")), "create: ID is missing");
    assert_eq!(why(create("a b")), "create: unexpected argument \"b\"");
    assert_eq!(why(create("--nope a")), "create: unknown option \"--nope\"");
    assert_eq!(why(create("-nope a")), "create: unknown option \"-nope\"");
    assert_eq!(why(create("--bundle= a")), "create: --bundle: the name is empty");
    let message = why(split(words("--log-format xml list").into_iter()));
    assert_eq!(message, "corten: --log-format: invalid log-format: xml");
    let message = why(split(words("--log-level x list").into_iter()));
    assert_eq!(message, "corten: --log-level: invalid log-level: x");
    let message = why(split(["--log-format=a\nb", "list"].map(Into::into).into_iter()));
    assert_eq!(message, r"corten: --log-format: invalid log-format: a\nb");
}

#[test]
fn root_is_absolute_and_not_the_root_directory() {
    let root = |text: &str| split(words(&format!("--root {text} list")).into_iter());
    assert_eq!(root("/run/x").unwrap().0.root.to_str(), Some("/run/x"));
    assert!(root("x").unwrap().0.root.is_absolute());
    for text in ["/", "//", "/.", "/..", "/x/..", "/x/../.."] {
        assert!(why(root(text)).contains("cannot hold the state"), "{text}");
    }
}

#[test]
fn help_is_asked_for_in_many_ways() {
    for line in ["", "--help", "-h", "-help", "help", "--debug --help", "--help create"] {
        assert!(matches!(globals(line).1, Request::Help(None)), "{line}");
    }
    let asked = |line| matches!(globals(line).1, Request::Help(Some(verb)) if verb == "run");
    assert!(asked("help run") && asked("h run"));
    for line in ["--help", "x -h", "--bundle /b -help"] {
        assert!(verb::<cmd::create::Args>("create", words(line)).unwrap().is_none(), "{line}");
    }
    for line in ["--version", "-v", "--version create", "--debug -v"] {
        assert!(matches!(globals(line).1, Request::Version), "{line}");
    }
}

#[test]
fn every_command_has_help_and_no_two_options_are_the_same() {
    for (name, about) in cmd::VERBS {
        let command = cmd::command(name).unwrap();
        let text = help::command("corten", about, &command);
        assert!(text.contains(&format!("Usage: corten {name} ")), "{text}");
        let mut names: Vec<String> = command.items().map(options::Item::long).collect();
        let mut letters: Vec<char> = command.items().filter_map(|item| item.short).collect();
        assert!(command.items().all(|item| !item.help.trim().is_empty()), "{name}");
        let (options, shorts) = (names.len(), letters.len());
        names.sort();
        names.dedup();
        letters.sort_unstable();
        letters.dedup();
        assert_eq!((names.len(), letters.len()), (options, shorts), "{name}");
    }
}

mod random {
    use std::os::unix::ffi::OsStringExt;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::*;
    use crate::cmd;

    /// Words like those of a command line, and words like nothing.
    fn word() -> impl Strategy<Value = OsString> {
        let known: Vec<&'static str> = vec![
            "--root",
            "--root=",
            "-root=x",
            "--log-format",
            "json",
            "--debug=x",
            "--",
            "-",
            "---",
            "--=",
            "-=",
            "=",
            "create",
            "help",
            "-it",
            "-e",
            "-eA=1",
            "--env=A",
            "-u",
            "1:2",
            ":",
            "--memory",
            "1.5g",
            "x",
            "KILL",
            "--format=json",
            "-h",
        ];
        prop_oneof![
            3 => proptest::sample::select(known).prop_map(OsString::from),
            1 => vec(any::<u8>(), 0..12).prop_map(OsString::from_vec),
        ]
    }

    proptest! {
        #[test]
        fn no_words_make_it_panic(words in vec(word(), 0..8)) {
            drop(split(words.clone().into_iter()));
            drop(verb::<cmd::create::Args>("create", words.clone()));
            drop(verb::<cmd::run::Args>("run", words.clone()));
            drop(verb::<cmd::exec::Args>("exec", words.clone()));
            drop(verb::<cmd::kill::Args>("kill", words.clone()));
            drop(verb::<cmd::ps::Args>("ps", words.clone()));
            drop(verb::<cmd::update::Args>("update", words));
        }
    }
}
