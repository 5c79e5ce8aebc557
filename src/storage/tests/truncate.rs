//! Truncation with a disk that fails, reads of what is on its way, and what may be appended as it
//! is. Random histories are in `shard/replica_log_tests.rs`.

use super::*;
use crate::runtime::faults::{Fault, Op, inject, inject_times};

/// Runs `test` on a fresh log.
fn with_log<F: Future<Output = ()> + 'static>(test: fn(Rc<Log>) -> F) {
    let root = scratch();
    let dir = root.path().join("t-0");
    on_shard(move || {
        let dir = dir.clone();
        async move { test(open(&dir, small_segments()).await.log).await }
    });
}

async fn cut(log: &Rc<Log>, end: i64) -> Result<i64, TruncateError> {
    log.truncate_to(end, async |_| Ok(b"state".to_vec())).await
}

/// The batches of `written` that end at or before `end`.
fn before(written: &[(i64, Vec<u8>)], end: i64) -> Vec<(i64, Vec<u8>)> {
    let next = |bytes: &[u8]| BatchHeader::peek(bytes).unwrap().next_offset();
    written.iter().filter(|(_, bytes)| next(bytes) <= end).cloned().collect()
}

/// Each file operation of a cut fails once: the log goes on as it was, or what a start finds ends
/// with a batch between the cut and the old end. Cut once more, it is as it should be.
#[test]
fn a_cut_that_fails_leaves_a_whole_log() {
    let operations = [
        (Op::Small, "checkpoint"),
        (Op::Small, "index"),
        (Op::Open, ".log"),
        (Op::Truncate, ".log"),
        (Op::Fdatasync, ".log"),
        (Op::Read, ".log"),
    ];
    for (op, part) in operations {
        for (pass, errno) in [(0, 5), (1, 5), (0, 28)] {
            let root = scratch();
            let dir = root.path().join("t-0");
            on_shard(move || {
                let dir = dir.clone();
                async move {
                    let config = Arc::new(TopicConfig { segment_bytes: 100_000, ..TopicConfig::default() });
                    let log = open(&dir, config.clone()).await.log;
                    let written = fill(&log, 60, 5).await;
                    acknowledged(&log, log.next_offset()).await;
                    log.checkpoint(|| b"old".to_vec()).await.unwrap();
                    let (old_end, end) = (log.next_offset(), written[25].0 + 1);
                    inject_times(op, part, pass, 1, Fault::Os(errno));
                    let outcome = cut(&log, end).await;
                    faults::clear();
                    let kept = before(&written, end);
                    let log = match (&outcome, log.failure()) {
                        (Ok(_), _) => log,
                        (Err(_), None) => {
                            assert_eq!(log.next_offset(), old_end, "{op:?} {part} {pass} {errno}");
                            assert!(
                                read_all(&log, 0, 1 << 20).await == joined(&written),
                                "{op:?} {part} {pass} {errno}"
                            );
                            log
                        }
                        (Err(_), Some(_)) => {
                            log.abandon();
                            let again = open(&dir, config.clone()).await.log;
                            let found = again.next_offset();
                            let whole = before(&written, found);
                            assert!(whole.len() >= kept.len(), "{op:?} {part} {pass} {errno}: up to {found} only");
                            assert!(
                                read_all(&again, 0, 1 << 20).await == joined(&whole),
                                "{op:?} {part} {pass} {errno}"
                            );
                            again
                        }
                    };
                    let now = cut(&log, end).await.unwrap();
                    assert_eq!(now, kept.last().map_or(0, |(base, bytes)| base + records(bytes)));
                    assert!(read_all(&log, 0, 1 << 20).await == joined(&kept), "{op:?} {part} {pass} {errno}");
                    let mut kept = kept;
                    kept.extend(fill(&log, 20, 6).await);
                    assert!(read_all(&log, 0, 1 << 20).await == joined(&kept), "{op:?} {part} {pass} {errno}");
                    log.close(Vec::new).await.unwrap();
                    let again = open(&dir, config).await.log;
                    assert!(read_all(&again, 0, 1 << 20).await == joined(&kept), "{op:?} {part} {pass} {errno}");
                }
            });
        }
    }
}

fn records(batch: &[u8]) -> i64 {
    i64::from(BatchHeader::peek(batch).unwrap().last_offset_delta.get()) + 1
}

#[test]
fn what_is_on_its_way_to_the_disk_is_read_whatever_the_tail_keeps() {
    scratched(|root| async move {
        let limits = StorageLimits { tail_cache_bytes: 0, cold_cache_bytes: 1 << 20, ..Default::default() };
        let log = open_in(StorageContext::new(limits), &root.join("t-0"), small_segments()).await.log;
        let mut written = fill(&log, 10, 3).await;
        acknowledged(&log, log.next_offset()).await;
        inject(Op::Write, ".log", 0, Fault::Slow(2_000));
        for seed in 0..4 {
            let batch = batch(2, 5_000, 9, seed);
            let appended = log.append(batch.clone(), 3, 0).unwrap();
            written.push((appended.base_offset, stored(&batch, appended.base_offset)));
        }
        eventually("a group is on its way", || log.ends().sent > log.ends().written).await;
        let ends = log.ends();
        let wanted = before(&written, ends.sent);
        let read = log.read(0, ends.sent, 1 << 20, true).await.unwrap().records.concat();
        assert!(read == joined(&wanted), "up to {} of {ends:?}", ends.sent);
        faults::clear();
        acknowledged(&log, log.next_offset()).await;
    });
}

/// A read ends exactly at its bound, or at the last batch before it.
#[test]
fn a_read_ends_at_its_bound() {
    with_log(|log| async move {
        let mut written = Vec::new();
        for seed in 0..60 {
            let batch = batch(1 + seed as i32 % 5, 300, 9, seed);
            let base = log.append(batch.clone(), 3, 0).unwrap().base_offset;
            written.push((base, stored(&batch, base)));
        }
        acknowledged(&log, log.next_offset()).await;
        for limit in 0..=log.next_offset() {
            let read = log.read(0, limit, 1 << 20, true).await.unwrap();
            assert!(read.records.concat() == joined(&before(&written, limit)), "up to {limit}");
            assert!(!read.more, "up to {limit}");
        }
    });
}

#[test]
fn only_a_sound_batch_that_follows_is_appended_as_it_is() {
    with_log(|log| async move {
        let sound = stored(&batch(3, 100, 9, 1), 10);
        let appended = log.append_as_is(sound.clone().into(), 0).await.unwrap();
        assert_eq!((appended.base_offset, appended.next_offset), (10, 13));
        let again = log.append_as_is(sound.clone().into(), 0).await.unwrap_err();
        assert!(matches!(again, ReplicateError::DoesNotFollow { base: 10, next: 13, end: 13, .. }), "{again}");
        let mut flipped = stored(&batch(1, 100, 9, 1), 13);
        flipped[80] ^= 1;
        assert!(matches!(log.append_as_is(flipped.into(), 0).await, Err(ReplicateError::NotSound { .. })));
        let two = [stored(&batch(1, 10, 9, 1), 13), stored(&batch(1, 10, 9, 1), 14)].concat();
        assert!(matches!(log.append_as_is(two.into(), 0).await, Err(ReplicateError::DoesNotFollow { .. })));
        let end = stored(&batch(2, 10, 9, 1), i64::MAX - 1);
        assert!(matches!(log.append_as_is(end.into(), 0).await, Err(ReplicateError::DoesNotFollow { .. })));
        acknowledged(&log, 13).await;
        assert_eq!(log.next_offset(), 13);
        assert!(read_all(&log, 10, 1 << 20).await == sound);
    });
}

#[test]
fn nothing_is_appended_while_a_log_is_truncated() {
    with_log(|log| async move {
        fill(&log, 10, 3).await;
        let cut = log.truncate_to(4, async |_| {
            assert!(matches!(log.append(batch(1, 10, 1, 1), 3, 0), Err(StorageError::Closed)));
            Ok(Vec::new())
        });
        assert!(cut.await.unwrap() <= 4);
        log.append(batch(1, 10, 1, 1), 3, 0).unwrap();
        log.truncate_fully_and_start_at(1_000, Vec::new()).await.unwrap();
        assert_eq!((log.start_offset(), log.append(batch(1, 10, 1, 1), 3, 0).unwrap().base_offset), (1_000, 1_000));
    });
}
