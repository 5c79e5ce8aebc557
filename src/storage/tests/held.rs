//! Batches acknowledged from an arena: there for readers at once, on the device
//! later, and after a kill.

use uuid::Uuid;

use super::*;
use crate::runtime::faults::{Fault, Op, inject};
use crate::runtime::file_systems::FileSystems;
use crate::storage::arena::{FOLDER, MANY_FILES};
use crate::storage::paths::segment_file;

pub(super) const KEY: PartitionKey = PartitionKey { topic: Uuid::from_u128(77), partition: 0 };
const LONG: Duration = Duration::from_secs(100);

fn identity() -> Identity {
    Identity { boot: Uuid::from_u128(1), cluster: "c".into(), directory: Uuid::from_u128(2) }
}

pub(super) fn arena(root: &Path, bytes: usize, delay: Duration) -> Rc<Arena> {
    Arena::create(&root.join(FOLDER), 0, &identity(), bytes).unwrap().open(delay, 1).unwrap()
}

async fn open_held(arena: &Rc<Arena>, dir: &Path) -> Rc<Log> {
    let log = open(dir, small_segments()).await.log;
    log.write_behind(arena.clone(), KEY);
    log
}

/// Copies the log in `dir` and all arenas to below `to`, as a kill would leave them; nothing
/// moves meanwhile but writes.
fn snapshot(dir: &Path, to: &Path) -> PathBuf {
    let root = dir.parent().unwrap();
    copy_dir(&root.join(FOLDER), &to.join(FOLDER));
    let copy = to.join(dir.file_name().unwrap());
    copy_dir(dir, &copy);
    copy
}

fn home(key: PartitionKey, dir: &Path) -> Home {
    if key == KEY { Home::Here(dir.to_path_buf()) } else { Home::Away }
}

fn take_over(root: &Path) -> Replayed {
    let dir = root.join("t-0");
    replay(&root.join(FOLDER), &identity(), &|key| home(key, &dir)).unwrap()
}

fn arena_files(root: &Path) -> Vec<String> {
    let entries = fs::read_dir(root.join(FOLDER)).unwrap();
    let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Appends all at once.
async fn burst(log: &Rc<Log>, count: usize, seed: u64) -> Vec<(i64, Vec<u8>)> {
    fill_in(log, count, seed, false).await
}

#[test]
fn batches_are_acknowledged_and_read_before_they_are_written() {
    scratched(|root| async move {
        let arena = arena(&root, 4 << 20, LONG);
        let log = open_held(&arena, &root.join("t-0")).await;
        let mut written = Vec::new();
        for (n, size) in [10, 5000, 100, 3].into_iter().enumerate() {
            let batch = batch(2, size, 5, n as u64 + 1);
            let appended = log.append(batch.clone(), 3, 0).unwrap();
            assert_eq!(log.acknowledged(), appended.next_offset, "at once");
            written.push((appended.base_offset, stored(&batch, appended.base_offset)));
        }
        assert_eq!(log.ends().written, 0);
        for max_bytes in [1, 200, 1 << 20] {
            assert!(read_all(&log, 0, max_bytes).await == joined(&written), "{max_bytes}");
        }
        log.close(|| b"state".to_vec()).await.unwrap();
        assert!(arena.remove().unwrap(), "nothing is left in it");
        assert!(arena_files(&root).is_empty());
        let again = open(&root.join("t-0"), small_segments()).await;
        assert_eq!(again.sidecar.as_deref(), Some(&b"state"[..]));
        assert!(read_all(&again.log, 0, 1 << 20).await == joined(&written));
    });
}

#[test]
fn what_is_held_is_written_after_a_while_and_again_where_the_log_goes_on() {
    scratched(|root| async move {
        let arena = arena(&root, 4 << 20, Duration::from_millis(5));
        let log = open_held(&arena, &root.join("t-0")).await;
        let mut written = burst(&log, 30, 3).await;
        let end = log.next_offset();
        eventually("everything is written, the last block too", || log.ends().written == end).await;
        assert_eq!(arena.live_chunks(), 0);
        written.extend(burst(&log, 40, 4).await);
        assert!(read_all(&log, 0, 300_000).await == joined(&written));
        log.close(Vec::new).await.unwrap();
        let log = open_held(&arena, &root.join("t-0")).await;
        written.extend(burst(&log, 40, 5).await);
        assert!(read_all(&log, 0, 300_000).await == joined(&written), "from the unfinished block that was there");
        log.close(Vec::new).await.unwrap();
        let again = open(&root.join("t-0"), small_segments()).await;
        assert!(read_all(&again.log, 0, 1 << 20).await == joined(&written));
    });
}

#[test]
fn whole_blocks_do_not_wait_for_another_block_to_rest() {
    scratched(|root| async move {
        let arena = arena(&root, 4 << 20, Duration::from_millis(2));
        arena.write_unfinished_after(LONG);
        let log = open_held(&arena, &root.join("t-0")).await;
        for n in 1..4 {
            let before = log.active().written.get();
            log.append(batch(1, 20_000, 5, n), 3, 0).unwrap();
            eventually("its whole blocks are written", || log.active().written.get() > before + 12_000).await;
            // The clock has nothing to do now but to wait for the rest.
            clock::sleep(Duration::from_millis(20)).await;
        }
    });
}

#[test]
fn an_unfinished_block_is_written_although_it_never_rests() {
    scratched(|root| async move {
        let arena = arena(&root, 4 << 20, Duration::from_millis(1));
        arena.write_unfinished_after(Duration::from_millis(5));
        let log = open_held(&arena, &root.join("t-0")).await;
        let mut n = 0;
        while log.active().written.get() == 0 {
            n += 1;
            log.append(batch(1, 10, 5, n), 3, 0).unwrap();
            clock::sleep(Duration::from_millis(1)).await;
        }
        assert_ne!(log.active().written.get() % disk::ALIGNMENT, 0, "only once a block was full");
    });
}

#[test]
fn a_block_that_fills_leaves_with_the_next_ones() {
    scratched(|root| async move {
        let arena = arena(&root, 4 << 20, LONG);
        let log = open_held(&arena, &root.join("t-0")).await;
        log.append(batch(1, 5000, 5, 1), 3, 0).unwrap();
        log.write_whole_blocks(true);
        eventually("the whole block is written", || log.active().written.get() == disk::ALIGNMENT).await;
        log.append(batch(1, 5000, 5, 2), 3, 0).unwrap();
        log.write_unfinished();
        log.write_whole_blocks(true);
        eventually("the next one, too", || log.active().written.get() == 2 * disk::ALIGNMENT).await;
        assert_eq!(log.chunk_writes(), 2, "nothing has left by itself");
        log.write_unfinished();
        let end = log.next_offset();
        eventually("nothing has filled the last one", || log.ends().written == end).await;
    });
}

#[test]
fn an_unfinished_block_leaves_with_the_others_where_nothing_follows_it() {
    scratched(|root| async move {
        let arena = arena(&root, 4 << 20, Duration::from_millis(40));
        arena.write_unfinished_after(LONG);
        let log = open_held(&arena, &root.join("t-0")).await;
        for n in 1..4 {
            let appended = log.append(batch(1, 20_000, 5, n), 3, 0).unwrap();
            eventually("all of it is written", || log.ends().written == appended.next_offset).await;
            assert_eq!(log.chunk_writes(), n, "in one write");
        }
    });
}

#[test]
fn one_sync_commits_what_all_logs_of_a_directory_wrote() {
    scratched(|root| async move {
        let (arena, context) = (arena(&root, 4 << 20, Duration::from_millis(1)), small_caches());
        // Each log writes once, and the last one that does is known.
        arena.write_unfinished_after(LONG);
        let mut logs = Vec::new();
        for n in 0..2 {
            let log = open_in(context.clone(), &root.join(format!("t-{n}")), small_segments()).await.log;
            log.write_behind(arena.clone(), PartitionKey { partition: n, ..KEY });
            logs.push(log);
        }
        let commits = logs[0].disk.clone();
        for n in 1..5 {
            for log in &logs {
                log.append(batch(1, 5000, 5, n), 3, 0).unwrap();
            }
        }
        eventually("both are written", || logs.iter().all(|log| log.ends().written > 0)).await;
        eventually("a commit is made", || commits.commits.made.get() > 0).await;
        let synced = || logs.iter().filter(|log| log.ends().synced > 0).count();
        assert!(synced() as u64 <= commits.commits.made.get(), "a sync a commit");
        let Some(last) = logs.iter().find(|log| log.ends().synced == 0) else { return };
        last.append(batch(1, 5000, 5, 9), 3, 0).unwrap();
        eventually("another covers what came later", || synced() == 2).await;
    });
}

#[test]
fn an_open_chunk_is_written_once_in_a_delay() {
    scratched(|root| async move {
        let delay = Duration::from_millis(5);
        let arena = arena(&root, 4 << 20, delay);
        let log = open_held(&arena, &root.join("t-0")).await;
        let begin = clock::now();
        // Takes a chunk with room for all that follows.
        log.append(batch(1, 200_000, 5, 1), 3, 0).unwrap();
        for n in 2..12 {
            log.append(batch(1, 5000, 5, n), 3, 0).unwrap();
            clock::sleep(Duration::from_millis(3)).await;
        }
        let (writes, delays) = (log.chunk_writes(), begin.elapsed().as_nanos() / delay.as_nanos());
        assert!(u128::from(writes) <= delays + 1, "{writes} writes in {delays} delays");
    });
}

#[test]
fn a_kill_at_any_moment_loses_nothing_that_was_acknowledged() {
    scratched(|root| async move {
        let dir = root.join("t-0");
        let arena = arena(&root, 3 << 20, Duration::from_millis(3));
        let log = open_held(&arena, &dir).await;
        let (mut written, mut needed, mut bytes) = (Vec::new(), 0, 0);
        for round in 0..12u64 {
            written.extend(burst(&log, 20, 100 + round).await);
            if round % 4 == 3 {
                log.checkpoint(|| vec![round as u8]).await.unwrap();
            }
            for i in 0..20 {
                let batch = batch(1, 20_000, 5, round * 100 + i);
                let appended = log.append(batch.clone(), 3, 0).unwrap();
                written.push((appended.base_offset, stored(&batch, appended.base_offset)));
            }
            clock::sleep(Duration::from_micros(300 * round)).await;
            let (safe, unwritten) = (log.acknowledged(), log.ends().written);
            let copy = snapshot(&dir, &root.join(format!("copy{round}")));
            let copied = copy.parent().unwrap();
            let kept = copied.join("kept");
            copy_dir(&copied.join(FOLDER), &kept);
            let replayed = take_over(copied);
            bytes += replayed.bytes;
            needed += u32::from(unwritten < safe && replayed.batches > 0);
            assert!(arena_files(copied).is_empty(), "round {round}: {:?}", arena_files(copied));
            // Killed at the end of the replay, which is then made again.
            copy_dir(&kept, &copied.join(FOLDER));
            take_over(copied);
            let recovered = open(&copy, small_segments()).await;
            let end = recovered.log.next_offset();
            assert!(end >= safe, "round {round}: {end} after {safe} was acknowledged");
            let expected: Vec<_> = written.iter().filter(|(offset, _)| *offset < end).cloned().collect();
            assert!(read_all(&recovered.log, 0, 1 << 20).await == joined(&expected), "round {round}");
            acknowledged(&log, log.next_offset()).await;
        }
        assert!(needed >= 6 && bytes > 0, "the replay was needed in {needed} rounds only");
        assert!(log.segments.borrow().len() > 4);
        log.close(Vec::new).await.unwrap();
        assert!(arena.remove().unwrap());
        let again = open(&dir, small_segments()).await;
        assert!(read_all(&again.log, 0, 1 << 20).await == joined(&written));
    });
}

#[test]
fn many_logs_share_an_arena_that_is_too_small_for_all() {
    scratched(|root| async move {
        let arena = arena(&root, 2 << 20, Duration::from_millis(5));
        let mut logs = Vec::new();
        for n in 0..150 {
            let log = open(&root.join(format!("m-{n}")), small_segments()).await.log;
            log.write_behind(arena.clone(), PartitionKey { partition: n, ..KEY });
            logs.push((log, Vec::new()));
        }
        let mut random = Random(9);
        for _ in 0..4000 {
            let (log, written) = &mut logs[random.below(150) as usize];
            let size = if random.below(100) == 0 { 300_000 } else { random.below(3000) as usize };
            let batch = batch(1, size, 5, random.next());
            let appended = log.append(batch.clone(), 3, 0).unwrap();
            written.push((appended.base_offset, stored(&batch, appended.base_offset)));
            if random.below(20) == 0 {
                acknowledged(log, appended.next_offset).await;
            }
        }
        for (log, written) in &logs {
            acknowledged(log, log.next_offset()).await;
            assert!(read_all(log, 0, 100_000).await == joined(written));
        }
        for (log, _) in &logs {
            log.close(Vec::new).await.unwrap();
        }
        assert_eq!(arena.live_chunks(), 0);
    });
}

#[test]
fn a_log_writes_its_chunks_together_the_oldest_first_when_half_the_arena_waits() {
    scratched(|root| async move {
        let arena = arena(&root, 16 << 20, LONG);
        let (mut logs, mut written) = (Vec::new(), Vec::new());
        for n in 0..100 {
            let log = open(&root.join(format!("m-{n}")), Arc::new(TopicConfig::default())).await.log;
            log.write_behind(arena.clone(), PartitionKey { partition: n, ..KEY });
            for i in 0..9 {
                let batch = batch(1, 10_000, 5, i + 1);
                let appended = log.append(batch.clone(), 3, 0).unwrap();
                if n == 0 {
                    written.push((appended.base_offset, stored(&batch, appended.base_offset)));
                }
            }
            logs.push(log);
            clock::sleep(Duration::from_millis(1)).await;
            if n == 80 {
                assert!(logs.iter().all(|log| log.chunk_writes() == 0), "less than half of the arena");
                assert!(arena.live_chunks() > 160, "{} chunks", arena.live_chunks());
            }
        }
        eventually("whole blocks of the oldest are written", || logs[0].active().written.get() > 86_000).await;
        let writes: Vec<u64> = logs.iter().map(|log| log.chunk_writes()).collect();
        assert_eq!(writes[0], 1, "all of its chunks: {writes:?}");
        assert!(writes[50..].iter().all(|writes| *writes == 0), "the newest wait: {writes:?}");
        assert!(read_all(&logs[0], 0, 100_000).await == joined(&written));
    });
}

#[test]
fn chunks_that_responses_are_made_from_are_not_used_again() {
    scratched(|root| async move {
        let arena = arena(&root, 2 << 20, Duration::from_millis(2));
        let log = open_held(&arena, &root.join("t-0")).await;
        let mut written = burst(&log, 20, 1).await;
        let mut responses = Vec::new();
        for round in 0..40 {
            let from = written[written.len() - 10].0;
            let read = log.read(from, log.acknowledged(), 1 << 20, true).await.unwrap();
            responses.push((read.records.clone(), read.records.concat()));
            written.extend(burst(&log, 10, 50 + round).await);
        }
        for (slices, bytes) in responses {
            assert!(slices.concat() == bytes, "a response has changed");
        }
        assert!(read_all(&log, 0, 300_000).await == joined(&written));
    });
}

#[test]
fn responses_that_are_kept_leave_memory_to_append_to() {
    scratched(|root| async move {
        // One chunk of the largest size.
        let arena = arena(&root, 2 << 20, LONG);
        let log = open_held(&arena, &root.join("t-0")).await;
        log.append(batch(1, 500_000, 5, 1), 3, 0).unwrap();
        let kept = log.read(0, 1, 1 << 20, true).await.unwrap();
        for n in 1..5 {
            log.append(batch(1, 500_000, 5, n), 3, 0).unwrap();
            acknowledged(&log, n as i64 + 1).await;
        }
        assert_eq!(kept.records.concat(), stored(&batch(1, 500_000, 5, 1), 0));
    });
}

#[test]
fn a_damaged_arena_gives_no_wrong_byte_and_is_never_passed_over_in_silence() {
    scratched(|root| async move {
        let dir = root.join("t-0");
        let arena = arena(&root, 2 << 20, LONG);
        let log = open_held(&arena, &dir).await;
        let mut written = Vec::new();
        for n in 0..40 {
            let batch = batch(1, 100 + 211 * n, 5, n as u64 + 1);
            let appended = log.append(batch.clone(), 3, 0).unwrap();
            written.push((appended.base_offset, stored(&batch, appended.base_offset)));
        }
        assert_eq!(log.acknowledged(), log.next_offset());
        let copy = snapshot(&dir, &root.join("copy"));
        let whole = copy.parent().unwrap().to_path_buf();
        let name = arena_files(&whole).pop().unwrap();
        let good = fs::read(whole.join(FOLDER).join(&name)).unwrap();
        // Flips where something is: the head, live entries, the chunks behind them.
        let used: Vec<usize> = (0..good.len()).filter(|at| good[*at] != 0).collect();
        let mut random = Random(77);
        let (mut cut, mut unharmed) = (0, 0);
        for round in 0..250u64 {
            let trial = root.join(format!("trial{round}"));
            copy_dir(&whole.join(FOLDER), &trial.join(FOLDER));
            copy_dir(&copy, &trial.join("t-0"));
            let mut bad = good.clone();
            // The head and the table are small beside the chunks.
            let small = used.partition_point(|at| *at < 2 * 4096);
            let at = used[random.below(if round % 2 == 0 { small } else { used.len() } as u64) as usize];
            if round % 10 == 9 {
                bad.truncate(at);
            } else {
                bad[at] ^= 1 << random.below(8);
            }
            fs::write(trial.join(FOLDER).join(&name), &bad).unwrap();
            let outcome = replay(&trial.join(FOLDER), &identity(), &|key| home(key, &trial.join("t-0")));
            let recovered = open(&trial.join("t-0"), small_segments()).await;
            let end = recovered.log.next_offset();
            let expected: Vec<_> = written.iter().filter(|(offset, _)| *offset < end).cloned().collect();
            assert!(read_all(&recovered.log, 0, 1 << 20).await == joined(&expected), "round {round}, byte {at}");
            if end < log.next_offset() {
                // Kept under another name, and no reason not to start.
                assert!(outcome.is_ok() && !arena_files(&trial).is_empty(), "round {round}, byte {at}: {end}");
                cut += 1;
            } else {
                unharmed += 1;
            }
            fs::remove_dir_all(&trial).unwrap();
        }
        assert!(cut > 150, "{cut} {unharmed}");
        let other =
            replay(&whole.join(FOLDER), &Identity { cluster: "d".into(), ..identity() }, &|_| Home::Away).unwrap();
        assert_eq!((other.batches, arena_files(&whole).len()), (0, 1), "another cluster's is left as it is");
        let other =
            replay(&whole.join(FOLDER), &Identity { directory: Uuid::nil(), ..identity() }, &|_| Home::Away).unwrap();
        assert_eq!((other.batches, arena_files(&whole).len()), (0, 1), "another directory's too");
        let offline = replay(&whole.join(FOLDER), &identity(), &|_| Home::Away).unwrap();
        assert_eq!(
            (offline.batches, fs::read(whole.join(FOLDER).join(&name)).unwrap()),
            (0, good),
            "it waits for its partition"
        );
        let other = replay(&whole.join(FOLDER), &Identity { boot: Uuid::nil(), ..identity() }, &|_| panic!("not read"))
            .unwrap();
        assert_eq!((other.batches, arena_files(&whole).len()), (0, 0), "another boot's is removed");
    });
}

#[test]
fn an_entry_over_bytes_of_another_partition_gives_nothing() {
    scratched(|root| async move {
        let arena = arena(&root, 2 << 20, LONG);
        let mut logs = Vec::new();
        for n in 0..2 {
            let log = open(&root.join(format!("t-{n}")), small_segments()).await.log;
            log.write_behind(arena.clone(), PartitionKey { partition: n, ..KEY });
            log.append(batch(1, 300, 5, n as u64 + 1), 3, 0).unwrap();
            logs.push(log);
        }
        let path = root.join(FOLDER).join(arena_files(&root).pop().unwrap());
        let mut bytes = fs::read(&path).unwrap();
        // The chunks change places, as if only one of the two had come to the disk again;
        // offsets and CRCs are right.
        let held: Vec<usize> = (0..bytes.len() / 4096).filter(|page| bytes[page * 4096 + 16] == 2).collect();
        assert_eq!(held.len(), 2, "a chunk begins with a batch");
        for at in 0..4096 {
            bytes.swap(held[0] * 4096 + at, held[1] * 4096 + at);
        }
        let copy = root.join("copy");
        copy_dir(&root.join(FOLDER), &copy.join(FOLDER));
        fs::write(copy.join(FOLDER).join(path.file_name().unwrap()), bytes).unwrap();
        for n in 0..2 {
            fs::create_dir_all(copy.join(format!("t-{n}"))).unwrap();
        }
        let replayed =
            replay(&copy.join(FOLDER), &identity(), &|key| Home::Here(copy.join(format!("t-{}", key.partition))))
                .unwrap();
        assert_eq!(replayed.batches, 0);
        assert!(arena_files(&copy)[0].ends_with(".damaged"));
    });
}

#[test]
fn a_broken_disk_takes_the_log_offline_and_the_next_start_writes_what_was_acknowledged() {
    scratched(|root| async move {
        let dir = root.join("t-0");
        let arena = arena(&root, 4 << 20, Duration::from_millis(1));
        let log = open_held(&arena, &dir).await;
        let mut written = burst(&log, 20, 1).await;
        log.checkpoint(Vec::new).await.unwrap();
        inject(Op::Write, ".log", 0, Fault::Os(5));
        let batch = batch(1, 10_000, 5, 9);
        let appended = log.append(batch.clone(), 3, 0).unwrap();
        assert_eq!(log.acknowledged(), appended.next_offset);
        written.push((appended.base_offset, stored(&batch, appended.base_offset)));
        eventually("the log fails", || log.failure().is_some()).await;
        assert!(log.append(batch.clone(), 3, 0).is_err());
        assert!(read_all(&log, 0, 1 << 20).await == joined(&written), "what was acknowledged stays readable");
        assert!(!arena.remove().unwrap());
        faults::clear();
        log.abandon();
        drop(log);
        let replayed = take_over(&root);
        assert!(replayed.batches > 0 && replayed.failed.is_empty());
        let again = open(&dir, small_segments()).await;
        assert!(read_all(&again.log, 0, 1 << 20).await == joined(&written));
    });
}

#[test]
fn a_log_that_found_no_room_keeps_what_was_acknowledged_when_it_is_opened_anew() {
    scratched(|root| async move {
        let dir = root.join("t-0");
        let arena = arena(&root, 4 << 20, Duration::from_millis(1));
        let log = open_held(&arena, &dir).await;
        let mut written = burst(&log, 20, 1).await;
        inject(Op::Write, ".log", 0, Fault::Os(28));
        let batch = batch(1, 10_000, 5, 9);
        let appended = log.append(batch.clone(), 3, 0).unwrap();
        written.push((appended.base_offset, stored(&batch, appended.base_offset)));
        assert_eq!(log.acknowledged(), appended.next_offset);
        eventually("the log is full", || log.failure().is_some_and(|failure| failure.is_full())).await;
        faults::clear();
        log.cut_back(appended.next_offset).await.unwrap();
        assert_eq!(arena.live_chunks(), 0);
        let again = open_held(&arena, &dir).await;
        assert_eq!(again.next_offset(), appended.next_offset);
        written.extend(burst(&again, 20, 2).await);
        assert!(read_all(&again, 0, 1 << 20).await == joined(&written));
    });
}

#[test]
fn nothing_is_acknowledged_before_it_is_synced_where_that_is_asked_for() {
    scratched(|root| async move {
        let arena = arena(&root, 4 << 20, LONG);
        let log = open_held(&arena, &root.join("t-0")).await;
        log.set_config(Arc::new(TopicConfig { flush_messages: 1, ..(*small_segments()).clone() }));
        for n in 0..20 {
            let appended = log.append(batch(1, 3000, 5, n + 1), 3, 0).unwrap();
            assert!(log.acknowledged() < appended.next_offset);
            acknowledged(&log, appended.next_offset).await;
            assert!(log.ends().synced >= appended.next_offset);
        }
    });
}

#[test]
fn a_deleted_log_leaves_nothing_to_take_over() {
    scratched(|root| async move {
        let arena = arena(&root, 4 << 20, LONG);
        let log = open_held(&arena, &root.join("t-0")).await;
        burst(&log, 20, 1).await;
        assert!(arena.live_chunks() > 0);
        log.retire("0123456789abcdef0123456789abcdef").await.unwrap();
        assert!(arena.remove().unwrap());
    });
}

/// A log with batches that only the arena holds, as a kill would leave it: the data directory, its
/// name for them, their records.
async fn killed(root: &Path) -> (PathBuf, Vec<(i64, Vec<u8>)>) {
    let arena = arena(root, 4 << 20, LONG);
    let log = open_held(&arena, &root.join("t-0")).await;
    let written = burst(&log, 20, 3).await;
    let copy = snapshot(&root.join("t-0"), &root.join("killed"));
    (copy.parent().unwrap().to_path_buf(), written)
}

#[test]
fn records_of_a_deleted_topic_go_with_the_arena() {
    scratched(|root| async move {
        let (data, _) = killed(&root).await;
        let replayed = replay(&data.join(FOLDER), &identity(), &|_| Home::Gone).unwrap();
        assert_eq!((replayed.batches, arena_files(&data).len()), (0, 0));
    });
}

#[test]
fn an_arena_without_its_head_is_kept() {
    scratched(|root| async move {
        let (data, _) = killed(&root).await;
        let file = data.join(FOLDER).join(&arena_files(&data)[0]);
        let mut bytes = fs::read(&file).unwrap();
        bytes[..4096].fill(0);
        fs::write(&file, &bytes).unwrap();
        assert_eq!(take_over(&data).batches, 0);
        let left = arena_files(&data);
        assert!(left.len() == 1 && left[0].ends_with(".damaged"), "{left:?}");
        // One that was never used is of no use to anybody.
        fs::write(&file, vec![0; bytes.len()]).unwrap();
        take_over(&data);
        assert_eq!(arena_files(&data), left);
    });
}

#[test]
fn a_segment_that_leads_nowhere_is_not_made_anew() {
    scratched(|root| async move {
        let (data, _) = killed(&root).await;
        let segment = segment_file(&data.join("t-0"), 0, "log");
        let _ = fs::remove_file(&segment);
        std::os::unix::fs::symlink("nowhere", &segment).unwrap();
        let failed = take_over(&data).failed;
        assert!(failed[0].why.contains("could not be written"), "{}", failed[0].why);
        assert!(!data.join("t-0/nowhere").exists());
    });
}

#[test]
fn what_a_start_cannot_write_is_tried_again_when_the_log_is_opened() {
    scratched(|root| async move {
        let (data, written) = killed(&root).await;
        let (dir, away) = (data.join("t-0"), data.join("away"));
        fs::rename(&dir, &away).unwrap();
        let failed = take_over(&data).failed;
        assert_eq!(failed.len(), 1);
        let context = StorageContext::new(StorageLimits { not_taken_over: failed, ..small_caches().limits.clone() });
        let refused = context.take_over(&dir).await.unwrap_err();
        assert!(refused.to_string().contains("could not be written"), "{refused}");
        fs::rename(&away, &dir).unwrap();
        let log = open_in(context, &dir, small_segments()).await.log;
        assert!(read_all(&log, 0, 1 << 20).await == joined(&written));
        assert_eq!(arena_files(&data).len(), 0);
    });
}

/// Many files are synced together with their file system. Where that fails, each is written and
/// synced again by itself, and the arena keeps what could not be.
#[test]
fn a_sync_of_many_files_that_fails_is_made_file_by_file() {
    scratched(|root| async move {
        let logs = MANY_FILES as i32 + 6;
        let arena = arena(&root, 4 << 20, LONG);
        let mut written = Vec::new();
        for n in 0..logs {
            let log = open(&root.join(format!("t-{n}")), small_segments()).await.log;
            log.write_behind(arena.clone(), PartitionKey { partition: n, ..KEY });
            let batch = batch(1, 300, 5, n as u64 + 1);
            written.push(stored(&batch, log.append(batch.clone(), 3, 0).unwrap().base_offset));
        }
        let file = crate::runtime::fs::File::open(root.join(FOLDER).join(&arena_files(&root)[0])).unwrap();
        let together = FileSystems::default().note(&file, &root).unwrap();
        let take_over = |data: &Path| {
            replay(&data.join(FOLDER), &identity(), &|key| Home::Here(data.join(format!("t-{}", key.partition))))
                .unwrap()
        };
        for (syncfs, syncs) in [(false, None), (false, Some(".log")), (true, None), (true, Some("t-7/"))] {
            let what = format!("syncfs fails: {syncfs}, fdatasync of {syncs:?} fails");
            let data = root.join(format!("copy-{syncfs}-{}", syncs.is_some()));
            copy_dir(&root.join(FOLDER), &data.join(FOLDER));
            for n in 0..logs {
                copy_dir(&root.join(format!("t-{n}")), &data.join(format!("t-{n}")));
            }
            if syncfs {
                inject(Op::SyncFs, ".log", 0, Fault::Os(5));
            }
            if let Some(part) = syncs {
                inject(Op::Fdatasync, part, 0, Fault::Os(5));
            }
            let replayed = take_over(&data);
            faults::clear();
            let failed: Vec<i32> = replayed.failed.iter().map(|untaken| untaken.partition).collect();
            let expected = match (together, syncfs, syncs) {
                (_, _, None) | (true, false, _) => Vec::new(),
                (false, false, Some(_)) => (0..logs).collect(),
                (_, true, Some(_)) => vec![7],
            };
            assert_eq!(failed, expected, "{what}");
            assert_eq!(arena_files(&data).len(), usize::from(!failed.is_empty()), "{what}");
            take_over(&data);
            assert!(arena_files(&data).is_empty(), "{what}");
            for (n, bytes) in written.iter().enumerate() {
                let log = open(&data.join(format!("t-{n}")), small_segments()).await.log;
                assert!(read_all(&log, 0, 1 << 20).await == *bytes, "{what}, partition {n}");
            }
        }
    });
}

#[test]
fn arenas_elsewhere_are_listed_and_taken_over() {
    scratched(|root| async move {
        let (data, written) = killed(&root).await;
        let (elsewhere, name) = (root.join("elsewhere"), arena_files(&data).pop().unwrap());
        let folder = Places::find(&data, identity(), None).unwrap().make(&elsewhere).unwrap();
        fs::rename(data.join(FOLDER).join(&name), folder.join(&name)).unwrap();
        for asked in [&data, &elsewhere, &folder] {
            let listed = list_arenas(asked).unwrap();
            assert_eq!((listed.arenas.len(), listed.away.len()), (1, 0), "{}", asked.display());
            assert!(
                listed.arenas[0].held.iter().all(|held| held.partition == KEY) && !listed.arenas[0].held.is_empty()
            );
        }
        fs::rename(&elsewhere, root.join("away")).unwrap();
        let listed = list_arenas(&data).unwrap();
        assert_eq!((listed.arenas.len(), &listed.away[0].0), (0, &folder));
        fs::rename(root.join("away"), &elsewhere).unwrap();
        let (places, dir) = (Places::find(&data, identity(), None).unwrap(), data.join("t-0"));
        let take_over = |folder| replay(folder, places.identity(), &|key| home(key, &dir)).unwrap().batches;
        assert!(places.folders().iter().map(|folder| take_over(folder)).sum::<u64>() > 0);
        let log = open(&dir, small_segments()).await.log;
        assert!(read_all(&log, 0, 1 << 20).await == joined(&written));
    });
}
