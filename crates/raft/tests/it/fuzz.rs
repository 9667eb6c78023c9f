//! What decodes the log and the snapshots is total: any bytes are taken or refused, nothing else.

#[path = "../../../../chaos-tests/fuzz/mutated.rs"]
mod mutated;

use mutated::Mutations;
use raft::fuzzing::{log_records, log_segment, seeds, snapshot, snapshot_blocks};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use std::{
    collections::BTreeMap,
    fs,
    panic::catch_unwind,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

type Target = fn(&[u8]) -> Result<(), String>;
const TARGETS: [(&str, Target); 4] = [
    ("log segment", log_segment),
    ("log records", log_records),
    ("snapshot", snapshot),
    ("snapshot blocks", snapshot_blocks),
];

/// `TRIREME_FUZZ_SECONDS` for each target; an ordinary run takes a moment.
fn time() -> Duration {
    #[expect(clippy::disallowed_methods, reason = "how long to test is not configuration")]
    let asked = std::env::var("TRIREME_FUZZ_SECONDS").ok();
    let seconds = asked.map(|seconds| seconds.parse().expect("TRIREME_FUZZ_SECONDS is a number"));
    seconds.map_or(Duration::from_millis(1500), Duration::from_secs)
}

/// Inputs of each way in which one was answered so far, by target.
fn found_for(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(name.replace(' ', "-"))
}

/// How an input was answered, whatever the numbers in it.
fn way(answer: &Result<(), String>) -> String {
    let text = answer.as_ref().err().map_or("taken", String::as_str);
    let words = text.split(|c: char| !c.is_ascii_alphabetic()).filter(|word| word.len() > 1);
    words.collect::<Vec<_>>().join("-").chars().take(120).collect()
}

#[test]
fn what_was_found_before_is_answered_as_before() {
    for (name, target) in TARGETS {
        let mut count = 0;
        for file in fs::read_dir(found_for(name)).unwrap() {
            let path = file.unwrap().path();
            let answer = target(&fs::read(&path).unwrap());
            assert_eq!(path.file_name().unwrap().to_str(), Some(way(&answer).as_str()), "{name}");
            count += 1;
        }
        assert!(count > 1, "{name}");
    }
}

const WORDS: [u64; 9] = [0, 1, 2, 255, 1 << 31, u32::MAX as u64, 1 << 63, u64::MAX - 1, u64::MAX];

#[test]
fn the_seeds_are_what_a_replica_writes() {
    for ((name, target), seed) in TARGETS.into_iter().zip(seeds()) {
        assert_eq!(target(&seed), Ok(()), "{name}");
    }
}

#[test]
fn any_bytes_are_taken_or_refused() {
    for ((name, target), seed) in TARGETS.into_iter().zip(seeds()) {
        #[expect(clippy::disallowed_methods, reason = "how long to test, not what happens")]
        let start = Instant::now();
        let mut inputs = vec![seed];
        let words = WORDS.map(u64::to_le_bytes);
        let words = words.each_ref().map(|word| &word[..]);
        let mutations = Mutations { words: &words, bytes: 0..0x100, head: 0, length_max: 64 << 10 };
        let (mut taken, mut refused) = (0u64, 0u64);
        let mut ways = BTreeMap::<String, Vec<u8>>::new();
        for number in 0u64.. {
            if start.elapsed() > time() {
                break;
            }
            let mut chance = StdRng::seed_from_u64(number);
            let bytes = mutations.of(&inputs, &mut chance);
            let answer = catch_unwind(|| target(&bytes));
            if let Ok(answer) = &answer {
                let shortest = ways.entry(way(answer)).or_insert_with(|| bytes.clone());
                if bytes.len() < shortest.len() {
                    shortest.clone_from(&bytes);
                }
            }
            match answer {
                Ok(Ok(())) => {
                    taken += 1;
                    // What is taken is worth mutating further.
                    if inputs.len() < 200 {
                        inputs.push(bytes);
                    } else {
                        let at = chance.random_range(1..inputs.len());
                        inputs[at] = bytes;
                    }
                }
                Ok(Err(_)) => refused += 1,
                Err(_) => panic!("{name}, input {number}: {bytes:02x?}"),
            }
        }
        eprintln!("{name}: {taken} taken, {refused} refused, {} ways", ways.len());
        if time() > Duration::from_secs(5) {
            // A long run adds what it has found, to be committed.
            fs::create_dir_all(found_for(name)).unwrap();
            for (way, bytes) in ways {
                let path = found_for(name).join(way);
                if !path.exists() {
                    fs::write(path, bytes).unwrap();
                }
            }
        }
        assert!(refused > 0, "{name}");
    }
}
