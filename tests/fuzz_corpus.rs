//! Every fuzz target over its seeds and its corpus (`tests/fuzz/corpus/<target>/`): what the fuzzer
//! once found stays mended.

// Helpers of tests, where a failure is a failed test.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "fuzz/bodies.rs"]
mod bodies;

use std::fs;
use std::path::{Path, PathBuf};

use bodies::TARGETS;

/// Corpora are kept small: each target's in files of at most this many bytes together.
const MAX_CORPUS_BYTES: u64 = 256 << 10;

fn corpus(target: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
    let mut files: Vec<_> = fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn seeds_and_corpus_are_taken_without_a_panic() {
    for target in TARGETS {
        let seeds = (target.seeds)();
        assert!(!seeds.is_empty(), "{} has no seeds", target.name);
        for seed in &seeds {
            (target.body)(seed);
        }
        for file in corpus(target.name) {
            println!("{}", file.display());
            (target.body)(&fs::read(&file).unwrap());
        }
    }
}

/// A fuzzer without coverage, of a fixed length: seeds with a few bytes flipped, cut, doubled
/// or exchanged for telling ones. `CORELANE_FUZZ_ROUNDS` makes it longer,
/// `CORELANE_FUZZ_SEED` different.
#[test]
fn mutated_seeds_are_taken_without_a_panic() {
    let number = |name, default| std::env::var(name).ok().map_or(default, |text| text.parse::<u64>().unwrap());
    let mut dice = Dice(number("CORELANE_FUZZ_SEED", 1));
    for target in TARGETS {
        let seeds = (target.seeds)();
        for round in 0..number("CORELANE_FUZZ_ROUNDS", 2000) {
            let mut bytes = seeds[dice.below(seeds.len())].clone();
            (0..=dice.below(4)).for_each(|_| dice.mutate(&mut bytes));
            // A panic's message does not have the input.
            let outcome = std::panic::catch_unwind(|| (target.body)(&bytes));
            assert!(outcome.is_ok(), "{} round {round}: {bytes:?}", target.name);
        }
    }
}

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        let at = self.below(bytes.len());
        match self.below(6) {
            0 => bytes.truncate(at),
            1 => {
                let piece = bytes[at..(at + self.below(64)).min(bytes.len())].to_vec();
                bytes.splice(at..at, piece);
            }
            2 => bytes.splice(at..at, [0; 4]).for_each(drop),
            3 | 4 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
            _ => {
                let telling: [&[u8]; 7] =
                    [&[0xFF; 4], &[0x7F, 0xFF, 0xFF, 0xFF], &[0x80, 0, 0, 0], &[0x7F], &[0xFF; 8], &[0; 8], &[0x80; 9]];
                let piece = telling[self.below(telling.len())];
                let end = (at + piece.len()).min(bytes.len());
                bytes.splice(at..end, piece.iter().copied());
            }
        }
    }
}

#[test]
fn a_corpus_is_small() {
    for target in TARGETS {
        let bytes: u64 = corpus(target.name).iter().map(|file| fs::metadata(file).unwrap().len()).sum();
        assert!(bytes <= MAX_CORPUS_BYTES, "{}: {bytes} bytes of corpus", target.name);
    }
}

/// Writes the seeds where `scripts/fuzz` asks for them (`CORELANE_FUZZ_SEEDS`); without
/// that there is nothing to do.
#[test]
fn seeds_are_written_where_asked() {
    let Some(root) = std::env::var_os("CORELANE_FUZZ_SEEDS").map(PathBuf::from) else { return };
    for target in TARGETS {
        let folder = root.join(target.name);
        fs::create_dir_all(&folder).unwrap();
        for (i, seed) in (target.seeds)().iter().enumerate() {
            fs::write(folder.join(format!("seed-{i:03}")), seed).unwrap();
        }
    }
}

/// Each target has a binary for the fuzzer, and each binary a target.
#[test]
fn targets_and_binaries_agree() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/targets");
    let mut files: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    files.sort();
    let mut names: Vec<_> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    names.sort();
    assert_eq!(files, names);
}
