//! Fuzzing without a fuzzer, for machines that have none: the corpus, and mutations of it that are
//! the same each time. Included by the tests of both crates.

use std::fs;
use std::path::Path;

/// Mutations of each target; `CORTEN_FUZZ_MUTATIONS` asks for more.
const MUTATIONS: usize = 1000;

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

pub fn all(targets: &[super::shared::Target]) {
    let mutations = std::env::var("CORTEN_FUZZ_MUTATIONS");
    let mutations = mutations.map_or(MUTATIONS, |n| n.parse().unwrap());
    for (name, target) in targets {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(name);
        let mut files: Vec<_> =
            fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        known(name);
        assert!(!files.is_empty(), "{name} has no corpus");
        let corpus: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).unwrap()).collect();
        for (file, input) in files.iter().zip(&corpus) {
            run(&file.display().to_string(), *target, input);
        }
        run(name, *target, b"");
        for seed in 0..mutations {
            let mut random = Random(seed as u64);
            let mut input = corpus[random.below(corpus.len())].clone();
            for _ in 0..=random.below(4) {
                mutate(&mut input, &corpus, &mut random);
            }
            run(&format!("{name}, mutation {seed}"), *target, &input);
        }
    }
}

/// A target is in the table of fuzz/README.md, and a program for cargo-fuzz.
fn known(name: &str) {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    let has = |file: &str, text: &str| fs::read_to_string(fuzz.join(file)).unwrap().contains(text);
    assert!(has("README.md", &format!("\n| `{name}` | ")), "{name} is not in fuzz/README.md");
    assert!(has("Cargo.toml", &format!("path = \"fuzz_targets/{name}.rs\"")), "{name}");
    assert!(has(&format!("fuzz_targets/{name}.rs"), &format!("::{name});")), "{name}");
}

/// A panic is told with the input that it was for.
fn run(name: &str, target: fn(&[u8]), input: &[u8]) {
    struct Tell<'a>(&'a str, &'a [u8]);
    impl Drop for Tell<'_> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("{}: \"{}\"", self.0, self.1.escape_ascii());
            }
        }
    }
    let _tell = Tell(name, input);
    target(input);
}

fn mutate(input: &mut Vec<u8>, corpus: &[Vec<u8>], random: &mut Random) {
    const BYTES: &[u8] = b"\0\x01\x7f\x80\xff\n ,:;/\\\"'{}[]=-+.*%09aA";
    let at = random.below(input.len());
    match (random.below(7), input.len()) {
        (0, 1..) => input[at] ^= 1 << random.below(8),
        (1, 1..) => input[at] = BYTES[random.below(BYTES.len())],
        (2, _) => input.insert(at, BYTES[random.below(BYTES.len())]),
        (3, 1..) => drop(input.drain(at..(at + 1 + random.below(8)).min(input.len()))),
        (4, 1..) => {
            let part = input[at..(at + 1 + random.below(32)).min(input.len())].to_vec();
            let to = random.below(input.len());
            input.splice(to..to, part);
        }
        (5, _) => {
            let other = &corpus[random.below(corpus.len())];
            let from = random.below(other.len());
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
        _ => {
            // A number becomes another one.
            let numbers =
                ["0", "-1", "4294967295", "18446744073709551615", "1e9", "9223372036854775808"];
            let number = numbers[random.below(numbers.len())];
            if let Some(digit) = input[at..].iter().position(u8::is_ascii_digit) {
                input.splice(at + digit..=at + digit, number.bytes());
            }
        }
    }
}
