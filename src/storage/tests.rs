//! The log as a whole, on a real executor and a real disk: what was acknowledged is there,
//! whatever happens in between.

use std::cell::{Cell, RefCell};
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::config::TopicConfig;
use crate::model::record_batch::{self, BatchHeader, HEADER_BYTES};
use crate::model::testing;
use crate::runtime::{clock, disk, eventually, faults, on_shard, scratch};

fn batch(records: i32, payload: usize, timestamp: i64, seed: u64) -> Bytes {
    let mut random = Random(seed | 1);
    let bytes: Vec<u8> = (0..payload).map(|_| random.next() as u8).collect();
    testing::batch(testing::header(records, timestamp), &bytes)
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 16
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// A batch as it must come back: with its offset and epoch in place.
fn stored(batch: &Bytes, offset: i64) -> Vec<u8> {
    let mut bytes = batch.to_vec();
    bytes[..8].copy_from_slice(&offset.to_be_bytes());
    bytes[12..16].copy_from_slice(&3i32.to_be_bytes());
    bytes
}

fn small_segments() -> Arc<TopicConfig> {
    Arc::new(TopicConfig { segment_bytes: 1 << 20, ..TopicConfig::default() })
}

fn small_caches() -> Rc<StorageContext> {
    StorageContext::new(StorageLimits { tail_cache_bytes: 256 << 10, cold_cache_bytes: 1 << 20, ..Default::default() })
}

/// Runs `test` with a scratch directory.
fn scratched<F: Future<Output = ()> + 'static>(test: fn(PathBuf) -> F) {
    let root = scratch();
    let base = root.path().to_path_buf();
    on_shard(move || {
        let base = base.clone();
        async move {
            test(base).await;
            faults::clear();
        }
    });
}

struct Opened {
    log: Rc<Log>,
    sidecar: Option<Vec<u8>>,
    replayed: Vec<i64>,
    scanned: u64,
    damaged: bool,
}

async fn open(dir: &Path, config: Arc<TopicConfig>) -> Opened {
    open_in(small_caches(), dir, config).await
}

async fn open_in(context: Rc<StorageContext>, dir: &Path, config: Arc<TopicConfig>) -> Opened {
    disk::prime_device(dir.parent().unwrap()).await.unwrap();
    let (sidecar, replayed) = (Cell::new(None), RefCell::new(Vec::new()));
    let recovered = Log::open(context, dir, config, &mut |bytes| sidecar.set(Some(bytes.to_vec())), &mut |header| {
        replayed.borrow_mut().push(header.base())
    })
    .await
    .unwrap();
    let (scanned, damaged) = (recovered.scanned_bytes, recovered.damaged);
    Opened { log: recovered.log, sidecar: sidecar.take(), replayed: replayed.take(), scanned, damaged }
}

impl Log {
    /// The high watermark of a partition with one replica.
    pub(super) fn acknowledged(&self) -> i64 {
        let ends = self.ends();
        if self.flush_is_due(ends.held) { ends.synced } else { ends.held }
    }
}

async fn acknowledged(log: &Rc<Log>, offset: i64) {
    eventually(&format!("offset {offset} is acknowledged"), || {
        assert!(log.failure().is_none(), "{:?}", log.failure());
        log.acknowledged() >= offset
    })
    .await;
}

/// Reads everything from `from` on, in reads of `max_bytes`.
async fn read_all(log: &Rc<Log>, from: i64, max_bytes: usize) -> Vec<u8> {
    let (all, gaps) = read_gaps(log, from, max_bytes).await;
    assert!(gaps.is_empty(), "no gap, no overlap: {gaps:?}");
    all
}

/// As [`read_all`], of a log that may lack offsets: those it lacks.
async fn read_gaps(log: &Rc<Log>, mut from: i64, max_bytes: usize) -> (Vec<u8>, Vec<std::ops::Range<i64>>) {
    let (mut all, mut gaps) = (Vec::new(), Vec::new());
    loop {
        let read = log.read(from, log.acknowledged(), max_bytes, true).await.unwrap();
        let bytes = read.records.concat();
        if bytes.is_empty() {
            if from < log.acknowledged() {
                gaps.push(from..log.acknowledged());
            }
            return (all, gaps);
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (header, total) = record_batch::frame(rest).expect("whole batches");
            assert!(header.base() >= from, "an overlap at {from}");
            if header.base() > from {
                gaps.push(from..header.base());
            }
            from = header.next_offset();
            rest = &rest[total..];
        }
        all.extend_from_slice(&bytes);
    }
}

/// Appends `count` batches of mixed sizes in bursts; returns what each must read back as.
async fn fill(log: &Rc<Log>, count: usize, seed: u64) -> Vec<(i64, Vec<u8>)> {
    fill_in(log, count, seed, true).await
}

/// As [`fill`]; without `bursts` nothing is waited for but, at the end, the acknowledgements.
async fn fill_in(log: &Rc<Log>, count: usize, seed: u64, bursts: bool) -> Vec<(i64, Vec<u8>)> {
    let mut random = Random(seed);
    let mut written = Vec::new();
    for i in 0..count {
        let payload = match random.below(10) {
            0 => 100_000 + random.below(300_000) as usize,
            1..4 => random.below(20_000) as usize,
            _ => random.below(300) as usize,
        };
        let records = 1 + random.below(5) as i32;
        let batch = batch(records, payload, 1_000_000 + i as i64, random.next());
        let appended = log.append(batch.clone(), 3, 0).unwrap();
        written.push((appended.base_offset, stored(&batch, appended.base_offset)));
        if bursts && random.below(4) == 0 {
            acknowledged(log, appended.next_offset).await;
        }
    }
    acknowledged(log, log.next_offset()).await;
    written
}

fn joined(written: &[(i64, Vec<u8>)]) -> Vec<u8> {
    written.iter().flat_map(|(_, bytes)| bytes.clone()).collect()
}

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

mod aborted;
mod ahead;
mod crash;
mod discard;
mod held;
mod kept;
mod limits;
mod moving;
mod reads;
mod room;
mod rot;
mod start;
mod trim;
mod truncate;

#[test]
fn what_is_written_reads_back_from_tail_and_disk_before_and_after_a_restart() {
    let root = scratch();
    let dir = root.path().join("t-0");
    on_shard(move || {
        let dir = dir.clone();
        async move {
            let first = open(&dir, small_segments()).await;
            let mut written = fill(&first.log, 150, 11).await;
            assert!(first.log.segments.borrow().len() > 3);
            for max_bytes in [1, 5000, 1 << 20] {
                assert!(read_all(&first.log, 0, max_bytes).await == joined(&written), "max_bytes {max_bytes}");
            }
            first.log.close(|| b"state".to_vec()).await.unwrap();
            let second = open(&dir, small_segments()).await;
            assert_eq!(second.sidecar.as_deref(), Some(&b"state"[..]));
            assert!(second.replayed.is_empty());
            assert!(second.scanned <= 2 * disk::MAX_IO_BYTES as u64, "{} bytes scanned", second.scanned);
            assert!(read_all(&second.log, 0, 300_000).await == joined(&written));
            written.extend(fill(&second.log, 50, 12).await);
            assert!(read_all(&second.log, 0, 300_000).await == joined(&written));
            for (offset, bytes) in &written {
                let read = second.log.read(*offset, second.log.acknowledged(), 1, true).await.unwrap().records.concat();
                assert!(read == *bytes, "batch at {offset}");
            }
            second.log.close(Vec::new).await.unwrap();
        }
    });
}

#[test]
fn a_copy_taken_at_any_moment_holds_what_was_acknowledged() {
    let root = scratch();
    let base = root.path().to_path_buf();
    on_shard(move || {
        let base = base.clone();
        async move {
            let dir = base.join("t-0");
            let log = open(&dir, small_segments()).await.log;
            let mut written = Vec::new();
            for round in 0..6u64 {
                written.extend(fill(&log, 25, 100 + round).await);
                if round % 2 == 1 {
                    log.checkpoint(|| vec![round as u8]).await.unwrap();
                }
                // More on the way while the copy is taken.
                for i in 0..20 {
                    let batch = batch(1, 20_000, 5, round * 100 + i);
                    let appended = log.append(batch.clone(), 3, 0).unwrap();
                    written.push((appended.base_offset, stored(&batch, appended.base_offset)));
                }
                clock::sleep(Duration::from_micros(300 * round)).await;
                let safe = log.acknowledged();
                let copy = base.join(format!("copy{round}-0"));
                copy_dir(&dir, &copy);
                let recovered = open(&copy, small_segments()).await;
                let end = recovered.log.next_offset();
                assert!(end >= safe, "round {round}: {end} after {safe} was acknowledged");
                let expected: Vec<_> = written.iter().filter(|(offset, _)| *offset < end).cloned().collect();
                assert!(read_all(&recovered.log, 0, 1 << 20).await == joined(&expected), "round {round}");
                acknowledged(&log, log.next_offset()).await;
            }
        }
    });
}

#[test]
fn a_torn_tail_is_cut_off_wherever_it_begins_and_a_flip_is_set_aside() {
    let root = scratch();
    let base = root.path().to_path_buf();
    on_shard(move || {
        let base = base.clone();
        async move {
            let dir = base.join("t-0");
            let log = open(&dir, small_segments()).await.log;
            let sizes = [10, 3000, 5000, 200, 9000];
            let mut ends = vec![0];
            for (i, size) in sizes.iter().enumerate() {
                log.append(batch(1, *size, 1, i as u64 + 1), 3, 0).unwrap();
                ends.push(ends[i] + (HEADER_BYTES + size) as u64);
            }
            log.close(Vec::new).await.unwrap();
            fs::remove_file(dir.join("checkpoint")).unwrap();
            let whole = fs::read(dir.join("00000000000000000000.log")).unwrap();
            assert_eq!(whole.len() as u64, ends[5]);
            let mut random = Random(5);
            for round in 0..60u64 {
                let copy = base.join(format!("c-{round}"));
                copy_dir(&dir, &copy);
                let cut = random.below(whole.len() as u64) as usize;
                let mut torn = whole.clone();
                match round % 3 {
                    0 => torn.truncate(cut),
                    1 => torn[cut..].fill(0),
                    _ => torn[cut] ^= 0x41,
                }
                fs::write(copy.join("00000000000000000000.log"), &torn).unwrap();
                let recovered = open(&copy, small_segments()).await;
                let log = recovered.log;
                let mut sound = ends.iter().filter(|end| **end <= cut as u64).count() as i64 - 1;
                // A flipped bit in what the broker itself patches in lies outside the CRC.
                let into = cut as u64 - ends[sound as usize];
                if round % 3 == 2 && (12..16).contains(&into) {
                    sound = 5;
                }
                let whole_before = sound;
                // Sound batches behind a flip show that it was no write cut short.
                let flipped = round % 3 == 2 && sound < 4;
                if flipped {
                    sound = 5;
                }
                // Zeros may have been zeros before.
                if torn == whole {
                    sound = 5;
                }
                assert_eq!(log.next_offset(), sound, "round {round}, cut at {cut}");
                let after = log.append(batch(1, 50, 1, 99), 3, 0).unwrap();
                acknowledged(&log, after.next_offset).await;
                let length = read_gaps(&log, 0, 1 << 20).await.0.len() as u64;
                let lost = if flipped { ends[whole_before as usize + 1] - ends[whole_before as usize] } else { 0 };
                assert_eq!(length, ends[sound as usize] - lost + (HEADER_BYTES + 50) as u64, "round {round}, {cut}");
            }
        }
    });
}

#[test]
fn retention_by_size_and_by_time_moves_the_start() {
    let root = scratch();
    let dir = root.path().join("t-0");
    on_shard(move || {
        let dir = dir.clone();
        async move {
            let config = |bytes, ms| {
                Arc::new(TopicConfig {
                    segment_bytes: 100_000,
                    retention_bytes: bytes,
                    retention_ms: ms,
                    ..TopicConfig::default()
                })
            };
            let log = open(&dir, config(Some(250_000), None)).await.log;
            for i in 0..40 {
                log.append(batch(1, 20_000, 1000 + i, i as u64 + 1), 3, 0).unwrap();
            }
            acknowledged(&log, 40).await;
            log.checkpoint(Vec::new).await.unwrap();
            assert!(log.enforce_retention(2000, log.acknowledged(), Vec::new).await.unwrap());
            let start = log.start_offset();
            assert!(log.size_bytes() >= 250_000 && log.size_bytes() < 350_000 + 21_000, "{}", log.size_bytes());
            assert!(matches!(
                log.read(start - 1, log.acknowledged(), 10, true).await,
                Err(ReadError::OutOfRange { .. })
            ));
            assert!(!read_all(&log, start, 1 << 20).await.is_empty());
            let logs = || {
                fs::read_dir(&dir)
                    .unwrap()
                    .filter(|e| e.as_ref().unwrap().path().extension().is_some_and(|x| x == "log"))
                    .count()
            };
            assert_eq!(logs(), log.segments.borrow().len());
            log.set_config(config(None, Some(500)));
            log.checkpoint(Vec::new).await.unwrap();
            assert!(
                log.enforce_retention(1_000_000, log.acknowledged(), Vec::new).await.unwrap()
                    || log.start_offset() == 40
            );
            log.checkpoint(Vec::new).await.unwrap();
            log.enforce_retention(1_000_000, log.acknowledged(), Vec::new).await.unwrap();
            assert_eq!(log.start_offset(), 40, "every record is too old, also those of the active segment");
            let appended = log.append(batch(1, 10, 1_000_000, 1), 3, 0).unwrap();
            assert_eq!(appended.base_offset, 40, "offsets are never used again");
            acknowledged(&log, 41).await;
            log.close(Vec::new).await.unwrap();
            let again = open(&dir, config(None, Some(500))).await.log;
            assert_eq!((again.start_offset(), again.next_offset()), (40, 41));
        }
    });
}

#[test]
fn nothing_is_acknowledged_after_a_failed_write_or_sync() {
    for (op, flush_messages) in [(faults::Op::Write, u64::MAX), (faults::Op::Fdatasync, 1)] {
        let root = scratch();
        let dir: PathBuf = root.path().join("t-0");
        on_shard(move || {
            let dir = dir.clone();
            async move {
                let config = Arc::new(TopicConfig { flush_messages, ..TopicConfig::default() });
                let log = open(&dir, config.clone()).await.log;
                let first = log.append(batch(1, 5000, 1, 1), 3, 0).unwrap().next_offset;
                acknowledged(&log, first).await;
                let safe = Rc::new(Cell::new(first));
                let (watched, seen) = (Rc::downgrade(&log), safe.clone());
                log.on_move(Box::new(move || {
                    let log = watched.upgrade().unwrap();
                    if log.failure().is_none() {
                        seen.set(log.acknowledged());
                    }
                }));
                faults::inject(op, "t-0", 2, faults::Fault::Os(5));
                for i in 0..50 {
                    if log.append(batch(1, 5000, 1, i + 2), 3, 0).is_err() {
                        break;
                    }
                    let settled = || log.failure().is_some() || log.acknowledged() == log.next_offset();
                    eventually("it is acknowledged, or the log fails", settled).await;
                }
                let safe = safe.get();
                let failure = log.failure().expect("the log is offline").to_string();
                assert!(failure.contains("offline"), "{failure}");
                assert_eq!(log.acknowledged(), safe);
                assert!(log.append(batch(1, 10, 1, 9), 3, 0).is_err());
                faults::clear();
                let again = open(&dir, config).await.log;
                assert!(again.next_offset() >= safe);
            }
        });
    }
}

#[test]
fn flush_messages_acknowledges_only_what_is_synced() {
    let root = scratch();
    let dir = root.path().join("t-0");
    on_shard(move || {
        let dir = dir.clone();
        async move {
            let config = Arc::new(TopicConfig { flush_messages: 1, segment_bytes: 200_000, ..TopicConfig::default() });
            let log = open(&dir, config).await.log;
            let watched = Rc::downgrade(&log);
            log.on_move(Box::new(move || {
                let log = watched.upgrade().unwrap();
                assert!(log.acknowledged() <= log.ends().synced);
            }));
            for i in 0..60 {
                let appended = log.append(batch(1, 30_000, 1, i + 1), 3, 0).unwrap();
                if i % 7 == 0 {
                    acknowledged(&log, appended.next_offset).await;
                }
            }
            acknowledged(&log, 60).await;
            assert_eq!(log.context.unsynced_bytes(), 0);
        }
    });
}

/// Killed after a roll but before the rolled segment was cut to its length: the next one
/// holds acknowledged records.
#[test]
fn a_rolled_segment_that_was_not_yet_cut_loses_nothing() {
    let root = scratch();
    let dir = root.path().join("t-0");
    on_shard(move || {
        let dir = dir.clone();
        async move {
            let log = open(&dir, small_segments()).await.log;
            for i in 0..120 {
                log.append(batch(1, 20_000, 1, i + 1), 3, 0).unwrap();
            }
            acknowledged(&log, 120).await;
            log.checkpoint(Vec::new).await.unwrap();
            let copy = dir.with_file_name("copy-0");
            copy_dir(&dir, &copy);
            fs::remove_file(copy.join("checkpoint")).unwrap();
            let first = fs::OpenOptions::new().write(true).open(copy.join("00000000000000000000.log")).unwrap();
            let length = first.metadata().unwrap().len();
            first.set_len(length.next_multiple_of(4096) + 65536).unwrap();
            let recovered = open(&copy, small_segments()).await.log;
            assert_eq!(recovered.next_offset(), 120, "acknowledged records are gone");
        }
    });
}

/// Two syncs at once (a checkpoint beside flush.messages): the first fails, the second must not
/// try again and acknowledge.
#[test]
fn nothing_is_acknowledged_by_a_second_sync_after_a_failed_one() {
    let root = scratch();
    let dir = root.path().join("t-0");
    on_shard(move || {
        let dir = dir.clone();
        async move {
            let log = open(&dir, Arc::new(TopicConfig::default())).await.log;
            log.append(batch(1, 5000, 1, 1), 3, 0).unwrap();
            acknowledged(&log, 1).await;
            // Opening the file again makes the first sync wait before it fails.
            log.active().forget_file();
            let syncing = log.clone();
            let mut first = Box::pin(async move { syncing.sync_written().await });
            assert!(futures_lite::future::poll_once(&mut first).await.is_none());
            log.set_config(Arc::new(TopicConfig { flush_messages: 1, ..TopicConfig::default() }));
            log.append(batch(1, 5000, 1, 2), 3, 0).unwrap();
            log.wait_written(2).await.unwrap();
            assert_eq!(log.ends().synced, 0);
            faults::inject(faults::Op::Fdatasync, "t-0", 0, faults::Fault::Os(5));
            // As the kernel does it: the error is reported once.
            log.on_move(Box::new(faults::clear));
            let (checkpointing, outcome) = (log.clone(), Rc::new(RefCell::new(None)));
            let told = outcome.clone();
            crate::runtime::spawn_local(async move {
                *told.borrow_mut() = Some(checkpointing.checkpoint(Vec::new).await);
            });
            // The checkpoint comes to wait for the first sync.
            for _ in 0..100 {
                futures_lite::future::yield_now().await;
            }
            assert!(first.await.is_err());
            eventually("the checkpoint ends", || outcome.borrow().is_some()).await;
            assert!(log.failure().is_some() && matches!(*outcome.borrow(), Some(Err(_))));
            let checkpoint = Checkpoint::load(&dir, 1 << 20).unwrap();
            let found = (log.ends().synced, checkpoint.map(|c| c.recovery_point));
            assert_eq!(found, (0, None), "synced end and recovery point moved after a failed fdatasync");
        }
    });
}

/// A sync that ends in an error after the log has failed already must still
/// wake those who wait for it.
#[test]
fn a_failed_sync_wakes_the_next_also_when_the_log_has_failed_before() {
    let root = scratch();
    let dir = root.path().join("t-0");
    on_shard(move || {
        let dir = dir.clone();
        async move {
            let log = open(&dir, Arc::new(TopicConfig::default())).await.log;
            log.append(batch(1, 5000, 1, 1), 3, 0).unwrap();
            acknowledged(&log, 1).await;
            let (one, two) = (log.clone(), log.clone());
            faults::inject(faults::Op::Fdatasync, "t-0", 0, faults::Fault::Os(5));
            let done = Rc::new(Cell::new(false));
            let told = done.clone();
            // Opening the file again makes the first sync wait before it fails.
            log.active().forget_file();
            let mut first = Box::pin(async move { one.sync_written().await });
            assert!(futures_lite::future::poll_once(&mut first).await.is_none());
            // The second waits for it, as a checkpoint does while it holds the lock
            // that remove and close want.
            log.fail("a write", &std::io::Error::other("gone"));
            crate::runtime::spawn_local(async move {
                let _ = two.sync_written().await;
                told.set(true);
            });
            for _ in 0..100 {
                futures_lite::future::yield_now().await;
            }
            assert!(first.await.is_err());
            eventually("the second ends", || done.get()).await;
            faults::clear();
        }
    });
}

/// A read over several chunks that are all held must not go to the disk again.
#[test]
fn a_cold_read_over_several_held_chunks_reads_nothing_again() {
    let root = scratch();
    let dir = root.path().join("t-0");
    on_shard(move || {
        let dir = dir.clone();
        async move {
            let config = Arc::new(TopicConfig::default());
            let log = open(&dir, config.clone()).await.log;
            for i in 0..40 {
                log.append(batch(1, 20_000, 1, i + 1), 3, 0).unwrap();
            }
            log.close(Vec::new).await.unwrap();
            let log = open(&dir, config).await.log;
            let first = log.read(0, log.acknowledged(), 600_000, true).await.unwrap().records.concat();
            assert!(first.len() > 512 << 10);
            faults::inject(faults::Op::Read, "t-0", 0, faults::Fault::Os(5));
            let second = log.read(0, log.acknowledged(), 600_000, true).await;
            faults::clear();
            assert!(second.expect("from memory").records.concat() == first);
        }
    });
}

/// Other shards still send while this one closes its logs.
#[test]
fn appends_during_close_are_refused_or_kept() {
    let root = scratch();
    let base = root.path().to_path_buf();
    on_shard(move || {
        let base = base.clone();
        async move {
            for round in 0..60u64 {
                let dir = base.join(format!("t-{round}"));
                let config = Arc::new(TopicConfig::default());
                let log = open(&dir, config.clone()).await.log;
                log.append(batch(1, 100 + round as usize * 37, 1, 1), 3, 0).unwrap();
                acknowledged(&log, 1).await;
                let (writing, done) = (log.clone(), Rc::new(Cell::new(false)));
                let ended = done.clone();
                crate::runtime::spawn_local(async move {
                    for i in 0..60 {
                        if writing.append(batch(1, 5000, 1, i + 2), 3, 0).is_err() {
                            break;
                        }
                        clock::sleep(Duration::from_micros(500)).await;
                    }
                    ended.set(true);
                });
                // The helper thread has the files of other partitions to do.
                crate::runtime::spawn_local(crate::runtime::spawn_blocking(|| {
                    std::thread::sleep(Duration::from_millis(20));
                }));
                clock::sleep(Duration::from_millis(1)).await;
                let _ = log.close(Vec::new).await;
                eventually("the writer ends", || done.get()).await;
                clock::sleep(Duration::from_millis(5)).await;
                let safe = log.acknowledged();
                let again = open(&dir, config).await.log;
                assert!(again.next_offset() >= safe, "round {round}: {} of {safe}", again.next_offset());
                for offset in 0..safe {
                    let read = again.read(offset, again.acknowledged(), 1, true).await;
                    assert!(
                        read.is_ok(),
                        "round {round}: acknowledged offset {offset} of {safe}: {}",
                        read.unwrap_err()
                    );
                }
            }
        }
    });
}

#[test]
fn a_removed_log_leaves_no_unsynced_bytes_behind() {
    let root = scratch();
    let dir = root.path().join("t-0");
    on_shard(move || {
        let dir = dir.clone();
        async move {
            let log = open(&dir, Arc::new(TopicConfig::default())).await.log;
            log.append(batch(1, 50_000, 1, 1), 3, 0).unwrap();
            acknowledged(&log, 1).await;
            remove_dir(&log.retire("x").await.unwrap().unwrap()).await.unwrap();
            assert_eq!(log.context.unsynced_bytes(), 0);
        }
    });
}

const TAG: &str = "0123456789abcdef0123456789abcdef";

#[test]
fn a_partition_that_comes_back_and_goes_again_is_put_away_again() {
    scratched(|base| async move {
        let (dir, next) = (base.join("t-0"), base.join("t-0.0123456789abcdef0123456789abcdf0-delete"));
        fs::create_dir_all(base.join(format!("t-0.{TAG}-delete/taken"))).unwrap();
        let log = open(&dir, Arc::new(TopicConfig::default())).await.log;
        assert_eq!(log.retire(TAG).await.unwrap(), Some(next.clone()));
        assert!(!dir.exists() && next.exists());
    });
}

#[test]
fn a_directory_that_cannot_be_renamed_is_removed_at_once() {
    scratched(|base| async move {
        let dir = base.join("t-0");
        let number = u128::from_str_radix(TAG, 16).unwrap();
        for taken in 0..200 {
            fs::create_dir_all(base.join(format!("t-0.{:032x}-delete/taken", number + taken))).unwrap();
        }
        let log = open(&dir, Arc::new(TopicConfig::default())).await.log;
        assert_eq!(log.retire(TAG).await.unwrap(), None);
        assert!(!dir.exists());
    });
}

/// A kill amid a removal leaves a log that is whole up to a shorter end, of a
/// partition that is known.
#[test]
fn a_removal_that_ends_early_leaves_no_hole() {
    scratched(|base| async move {
        let dir = base.join("t-0");
        let log = open(&dir, small_segments()).await.log;
        for n in 0..5 {
            log.append(batch(1, 700_000, 1, n + 1), 3, 0).unwrap();
        }
        acknowledged(&log, 5).await;
        log.close(Vec::new).await.unwrap();
        fs::write(dir.join("partition.metadata"), "x").unwrap();
        let mut names: Vec<PathBuf> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort_by_cached_key(|path| maintenance::removal_order(path));
        assert!(names.len() > 10 && names.last().is_some_and(|last| last.ends_with("partition.metadata")));
        for removed in 1..names.len() {
            let left = base.join(format!("left-{removed}"));
            fs::create_dir(&left).unwrap();
            for name in &names[removed..] {
                fs::copy(name, left.join(name.file_name().unwrap())).unwrap();
            }
            let opened = open(&left, small_segments()).await;
            assert!(!opened.damaged, "{removed} files removed, {:?} the last", names[removed - 1]);
            let log = opened.log;
            assert_eq!(log.start_offset(), 0);
            let end = log.next_offset();
            for offset in 0..end {
                log.read(offset, end, 1, true).await.unwrap();
            }
            log.close(Vec::new).await.unwrap();
        }
    });
}

/// Producers may send timestamp -1 (none); such segments must go some time, and
/// those behind them, too.
#[test]
fn retention_by_time_passes_segments_without_timestamps() {
    let root = scratch();
    let dir = root.path().join("t-0");
    on_shard(move || {
        let dir = dir.clone();
        async move {
            let config =
                Arc::new(TopicConfig { segment_bytes: 100_000, retention_ms: Some(500), ..TopicConfig::default() });
            let log = open(&dir, config).await.log;
            for i in 0..40 {
                let timestamp = if i < 5 { -1 } else { 1000 };
                log.append(batch(1, 20_000, timestamp, i + 1), 3, 0).unwrap();
            }
            acknowledged(&log, 40).await;
            let far = clock::wall_ms() + 1_000_000_000;
            log.enforce_retention(far, log.acknowledged(), Vec::new).await.unwrap();
            assert!(log.start_offset() > 0, "one segment without timestamps holds back all others");
        }
    });
}

/// Synced records that are missing: their offsets are not given again, and what is written
/// afterwards is checked at the next start as usual.
#[test]
fn offsets_of_synced_records_that_are_missing_are_not_given_again() {
    let root = scratch();
    let dir = root.path().join("t-0");
    on_shard(move || {
        let dir = dir.clone();
        async move {
            let config = Arc::new(TopicConfig { segment_bytes: 300_000, ..TopicConfig::default() });
            let log = open(&dir, config.clone()).await.log;
            for i in 0..10 {
                log.append(batch(1, 20_000, 1, i + 1), 3, 0).unwrap();
            }
            acknowledged(&log, 10).await;
            log.close(Vec::new).await.unwrap();
            // The file system lost the second half, the checkpoint says 10.
            let path = dir.join("00000000000000000000.log");
            let bytes = fs::read(&path).unwrap();
            fs::write(&path, &bytes[..100_000]).unwrap();
            let log = open(&dir, config.clone()).await.log;
            assert_eq!((log.next_offset(), log.acknowledged()), (10, 10));
            for i in 0..2 {
                log.append(batch(1, 180_000, 1, 50 + i), 3, 0).unwrap();
            }
            acknowledged(&log, 12).await;
            assert_eq!(read_gaps(&log, 0, 1 << 20).await.1, std::slice::from_ref(&(4..10)));
            let copy = dir.with_file_name("copy-0");
            log.wait_sealed().await.unwrap();
            copy_dir(&dir, &copy);
            let again = open(&copy, config).await;
            assert!(again.scanned >= 360_000, "only {} bytes checked of what was never in a checkpoint", again.scanned);
            assert_eq!(read_gaps(&again.log, 0, 1 << 20).await.1, std::slice::from_ref(&(4..10)));
        }
    });
}
