//! Every fuzz target over its seeds and its corpus (`tests/fuzz/corpus/<target>/`): what the fuzzer once found stays mended.

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

#[test]
fn a_corpus_is_small() {
    for target in TARGETS {
        let bytes: u64 = corpus(target.name).iter().map(|file| fs::metadata(file).unwrap().len()).sum();
        assert!(bytes <= MAX_CORPUS_BYTES, "{}: {bytes} bytes of corpus", target.name);
    }
}

/// Writes the seeds where `scripts/fuzz` asks for them (`CORELANE_FUZZ_SEEDS`); without that there is nothing to do.
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
