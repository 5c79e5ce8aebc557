//! A crash after each step of an exchange.

use std::fs;
use std::path::PathBuf;

use super::*;
use crate::runtime::{on_shard, scratch, spawn_blocking};
use crate::storage::Checkpoint;
use crate::storage::compaction::files::{MAX_SEGMENT_BYTES, Output};
use crate::storage::compaction::map::OffsetMap;
use crate::storage::compaction::plan::{Bounds, Facts};
use crate::storage::compaction::swap::{Step, Swap};
use crate::storage::compaction::txns::Txns;
use crate::storage::compaction::work::{Input, Mapping, Rewriting};
use crate::storage::paths::{parse_segment_file, segment_file};

/// As `from` is now, with a checkpoint that names the copy's directory.
fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
    if let Ok(Some(checkpoint)) = Checkpoint::load(from, usize::MAX) {
        checkpoint.store(to).unwrap();
    }
}

fn logs(dir: &Path) -> Vec<i64> {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut bases: Vec<i64> = names.filter_map(|name| parse_segment_file(&name, "log")).collect();
    bases.sort_unstable();
    bases
}

/// Writes the cleaned form of the segments at `bases`, as the cleaner does before the exchange.
fn write_cleaned(dir: &Path, bases: &[i64], all: &[i64]) {
    let input = |base: &i64| {
        let path: PathBuf = segment_file(dir, *base, "log");
        let size = fs::metadata(&path).unwrap().len();
        let next = logs(dir).into_iter().find(|log| log > base).unwrap();
        let facts = Facts { base: *base, next, bytes: size, index_bytes: 0, newest_ms: -1, first_ms: None };
        Input { path, facts }
    };
    let mut mapping =
        Mapping::new(OffsetMap::new(1 << 20, 0.9), all.iter().map(input).collect(), 0, Txns::default(), 4096);
    while !mapping.step(10_000).unwrap().done {}
    let output = Output::create(dir, bases[0], 4096, 4096, MAX_SEGMENT_BYTES).unwrap();
    let known = (Arc::new(mapping.map), Arc::new(LastOffsets::new()));
    let bounds = Bounds { segment_bytes: 1 << 30, index_bytes: 1 << 30 };
    let mut rewriting =
        Rewriting::new(bases.iter().map(input).collect(), output, bounds, known, (1_000, 1_000), Txns::default(), 4096);
    while !rewriting.step(10_000).unwrap().done {}
    let rewritten = rewriting.finish().unwrap();
    assert_eq!((rewritten.segments, rewritten.changed), (bases.len(), true));
}

/// Opens the log as after a crash, checks it, cleans it again, and checks it once more.
async fn check(dir: &Path, writer: &Writer, exchanged: Option<usize>, what: &str) {
    let log = open(dir, compacted()).await;
    assert_eq!(log.next_offset(), writer.next, "{what}");
    writer.check(&read_from(&log, 0, 5_000).await.0, i64::MAX);
    if let Some(count) = exchanged {
        assert_eq!(log.segments.borrow().len(), count, "{what}");
    }
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let left: Vec<String> =
        names.filter(|n| [".cleaned", ".swap", ".deleted"].iter().any(|s| n.ends_with(s))).collect();
    assert!(left.is_empty(), "{what}: {left:?}");
    clean_all(&log, 1_000, &LIMITS).await;
    writer.check(&read_from(&log, 0, 5_000).await.0, i64::MAX);
    log.close(Vec::new).await.unwrap();
}

#[test]
fn after_a_crash_at_any_step_of_an_exchange_nothing_is_lost_or_doubled() {
    let root = scratch();
    let base = root.path().to_path_buf();
    on_shard(move || {
        let base = base.clone();
        async move {
            let original = base.join("t-0");
            let mut writer = Writer::new(13, 40);
            let log = open(&original, compacted()).await;
            writer.write(&log, 150).await;
            log.close(Vec::new).await.unwrap();
            let bases = logs(&original);
            assert!(bases.len() >= 5, "{bases:?}");
            let sealed = &bases[..bases.len() - 1];
            // From the first segment on, and from within the log.
            for (round, group) in [&sealed[..3], &sealed[1..4], &sealed[..1]].into_iter().enumerate() {
                let cleaned = base.join(format!("cleaned{round}-0"));
                copy_dir(&original, &cleaned);
                write_cleaned(&cleaned, group, sealed);
                let swap = |dir: &Path| Swap { dir: dir.to_path_buf(), base: group[0], old: group.to_vec() };
                let count = |steps: Vec<Step>| steps.len();
                let (commit, replace) = (count(swap(&cleaned).commit()), count(swap(&cleaned).replace()));
                let total = commit + replace + count(swap(&cleaned).remove());
                for ran in 0..=total {
                    let dir = base.join(format!("crash{round}x{ran}-0"));
                    copy_dir(&cleaned, &dir);
                    let swap = swap(&dir);
                    let steps: Vec<Step> =
                        swap.commit().into_iter().chain(swap.replace()).chain(swap.remove()).take(ran).collect();
                    for step in &steps {
                        step.run(&dir).unwrap();
                    }
                    // The log's rename is the commit: the one before the directory's sync.
                    let decided = ran >= commit - 1;
                    let left = if decided { bases.len() + 1 - group.len() } else { bases.len() };
                    let what = format!("round {round}, {ran} of {total} steps");
                    let recovered = base.join(format!("again{round}x{ran}-0"));
                    copy_dir(&dir, &recovered);
                    check(&dir, &writer, Some(left), &what).await;
                    // And a crash within the recovery itself, which ends the same way.
                    for _ in 0..2 {
                        let dir = recovered.clone();
                        spawn_blocking(move || recover(&dir)).await.unwrap();
                    }
                    check(&recovered, &writer, Some(left), &what).await;
                    // Without a checkpoint every segment is read and held to where the next begins.
                    fs::remove_file(recovered.join("checkpoint")).unwrap();
                    check(&recovered, &writer, None, &what).await;
                }
            }
        }
    });
}

/// A flip anywhere in the cleaned segment, at every step at which it is not yet in its
/// place: the old ones stay.
#[test]
fn a_damaged_cleaned_segment_does_not_take_the_place_of_sound_ones() {
    let root = scratch();
    let base = root.path().to_path_buf();
    on_shard(move || {
        let base = base.clone();
        async move {
            let original = base.join("t-0");
            let mut writer = Writer::new(13, 40);
            let log = open(&original, compacted()).await;
            writer.write(&log, 150).await;
            log.close(Vec::new).await.unwrap();
            let bases = logs(&original);
            let (sealed, group) = (&bases[..bases.len() - 1], &bases[1..4]);
            let cleaned = base.join("cleaned-0");
            copy_dir(&original, &cleaned);
            write_cleaned(&cleaned, group, sealed);
            let swap = |dir: &Path| Swap { dir: dir.to_path_buf(), base: group[0], old: group.to_vec() };
            let (commit, replace) = (swap(&cleaned).commit().len(), swap(&cleaned).replace().len());
            // The last of the replacing steps puts the log into its place.
            for ran in commit - 1..commit + replace {
                let dir = base.join(format!("crash{ran}-0"));
                copy_dir(&cleaned, &dir);
                let swap = swap(&dir);
                let steps: Vec<Step> = swap.commit().into_iter().chain(swap.replace()).take(ran).collect();
                for step in &steps {
                    step.run(&dir).unwrap();
                }
                let path = segment_file(&dir, group[0], "log.swap");
                let mut bytes = fs::read(&path).unwrap();
                let place = ran * 997 % bytes.len();
                bytes[place] ^= 1;
                fs::write(&path, bytes).unwrap();
                check(&dir, &writer, None, &format!("{ran} steps, byte {place} flipped")).await;
            }
        }
    });
}

#[test]
fn a_damaged_cleaned_segment_without_old_ones_is_taken_for_what_is_sound_of_it() {
    let root = scratch();
    let dir = root.path().to_path_buf();
    fs::write(dir.join("00000000000000000005.log.swap"), b"no batch at all").unwrap();
    recover(&dir).unwrap();
    assert_eq!(logs(&dir), [5], "its damage is found, and set aside, when the segment is read");
    fs::remove_file(dir.join("00000000000000000005.log")).unwrap();
    // Files of an exchange that never was committed go without a word.
    for name in ["log.cleaned", "index.cleaned", "index.swap", "timeindex.swap"] {
        fs::write(dir.join(format!("00000000000000000005.{name}")), b"x").unwrap();
    }
    recover(&dir).unwrap();
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
}
