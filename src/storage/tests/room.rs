//! A full disk: what can wait waits, what cannot is refused, and nothing that
//! was acknowledged goes.

use super::*;
use crate::runtime::eventually;
use crate::runtime::faults::{Fault, Op, inject};
use crate::storage::paths::segment_file;

const FULL: Fault = Fault::Os(28);
const QUOTA: Fault = Fault::Os(122);
const BROKEN: Fault = Fault::Os(5);

fn recovery_point(dir: &Path) -> Option<i64> {
    Checkpoint::load(dir, usize::MAX).unwrap().map(|checkpoint| checkpoint.recovery_point)
}

/// Runs `test` with a log of small segments over a directory of its own.
fn with_log<F: Future<Output = ()> + 'static>(test: fn(PathBuf, Rc<Log>) -> F) {
    let root = scratch();
    let dir = root.path().join("t-0");
    on_shard(move || {
        let dir = dir.clone();
        async move {
            let log = open(&dir, small_segments()).await.log;
            test(dir, log).await;
            faults::clear();
        }
    });
}

#[test]
fn a_checkpoint_without_room_waits_and_the_log_goes_on() {
    with_log(|dir, log| async move {
        let mut written = fill(&log, 20, 1).await;
        log.checkpoint(|| b"old".to_vec()).await.unwrap();
        let kept = recovery_point(&dir);
        for (part, fault) in [("/checkpoint", FULL), (".index", FULL), ("/checkpoint", QUOTA)] {
            inject(Op::Small, part, 0, fault);
            written.extend(fill(&log, 20, 2).await);
            let refused = log.checkpoint(|| b"new".to_vec()).await;
            assert!(matches!(refused, Err(StorageError::Full(_))), "{part}: {refused:?}");
            assert!(log.failure().is_none(), "{part}: {:?}", log.failure());
            assert_eq!(recovery_point(&dir), kept, "{part}");
            faults::clear();
        }
        // A crash now only has more to read.
        let copy = dir.with_file_name("copy-0");
        copy_dir(&dir, &copy);
        let again = open(&copy, small_segments()).await;
        assert_eq!((again.log.next_offset(), again.sidecar.as_deref()), (log.next_offset(), Some(&b"old"[..])));
        assert_eq!(read_all(&again.log, 0, 1 << 20).await, joined(&written));
        log.checkpoint(|| b"new".to_vec()).await.unwrap();
        assert_eq!(recovery_point(&dir), Some(log.next_offset()));
    });
}

#[test]
fn a_checkpoint_on_a_broken_disk_takes_the_log_offline() {
    with_log(|_, log| async move {
        fill(&log, 5, 1).await;
        inject(Op::Small, "/checkpoint", 0, BROKEN);
        assert!(matches!(log.checkpoint(Vec::new).await, Err(StorageError::Failed(_))));
        assert!(matches!(log.failure(), Some(StorageError::Failed(_))));
    });
}

#[test]
fn a_segment_that_cannot_be_sealed_for_want_of_room_is_sealed_later() {
    for op in [Op::Small, Op::Truncate] {
        let root = scratch();
        let dir = root.path().join("t-0");
        on_shard(move || {
            let dir = dir.clone();
            async move {
                let log = open(&dir, small_segments()).await.log;
                inject(op, if op == Op::Small { ".index" } else { ".log" }, 0, FULL);
                let written = fill(&log, 200, 3).await;
                assert!(log.segments.borrow().len() > 2);
                // Neither the checkpoint nor the close waits for ever.
                assert!(matches!(log.checkpoint(Vec::new).await, Err(StorageError::Full(_))));
                assert!(log.failure().is_none(), "{:?}", log.failure());
                assert_eq!(recovery_point(&dir), None);
                assert_eq!(read_all(&log, 0, 1 << 20).await, joined(&written));
                faults::clear();
                log.checkpoint(Vec::new).await.unwrap();
                let active = log.active();
                assert!(log.segments.borrow().values().all(|s| Rc::ptr_eq(s, &active) || s.sealed.get()));
                log.close(Vec::new).await.unwrap();
                let again = open(&dir, small_segments()).await;
                assert!(again.scanned < 64 << 10, "{} bytes read after a clean close", again.scanned);
                assert_eq!(read_all(&again.log, 0, 1 << 20).await, joined(&written));
            }
        });
    }
}

#[test]
fn a_start_on_a_full_disk_opens_the_log_and_seals_later() {
    with_log(|dir, log| async move {
        let written = fill(&log, 200, 4).await;
        let copy = dir.with_file_name("copy-0");
        copy_dir(&dir, &copy);
        inject(Op::Small, "copy-0", 0, FULL);
        let again = open(&copy, small_segments()).await.log;
        assert_eq!(read_all(&again, 0, 1 << 20).await, joined(&written));
        assert!(matches!(again.checkpoint(Vec::new).await, Err(StorageError::Full(_))));
        faults::clear();
        again.checkpoint(Vec::new).await.unwrap();
        assert_eq!(recovery_point(&copy), Some(again.next_offset()));
    });
}

#[test]
fn a_log_that_found_no_room_is_cut_back_to_what_was_acknowledged() {
    // The write itself, the file of a new segment, and the sync that the acknowledgement waits for.
    for (op, part, flush_messages) in
        [(Op::Write, ".log", u64::MAX), (Op::Open, ".log", u64::MAX), (Op::Fdatasync, ".log", 1)]
    {
        let root = scratch();
        let dir = root.path().join("t-0");
        on_shard(move || {
            let dir = dir.clone();
            async move {
                let config = Arc::new(TopicConfig { segment_bytes: 1 << 20, flush_messages, ..Default::default() });
                let log = open(&dir, config.clone()).await.log;
                let mut written = fill(&log, 30, 5).await;
                let end = log.next_offset();
                log.checkpoint(|| b"state".to_vec()).await.unwrap();
                inject(op, part, 0, FULL);
                // More than the segment holds: it rolls, and a new file is made.
                for _ in 0..8 {
                    let _ = log.append(batch(3, 300_000, 9, 7), 3, 0);
                }
                eventually("the log is full", || log.failure().is_some()).await;
                assert!(log.failure().is_some_and(|failure| failure.is_full()), "{op:?}: {:?}", log.failure());
                let acknowledged_end = log.acknowledged();
                assert!(op == Op::Open || acknowledged_end == end, "{op:?}: {acknowledged_end}, not {end}");
                faults::clear();
                log.cut_back(acknowledged_end).await.unwrap();
                let again = open(&dir, config).await.log;
                assert_eq!((again.next_offset(), again.acknowledged()), (acknowledged_end, acknowledged_end), "{op:?}");
                let mut offset = end;
                while offset < acknowledged_end {
                    written.push((offset, stored(&batch(3, 300_000, 9, 7), offset)));
                    offset += 3;
                }
                assert_eq!(read_all(&again, 0, 1 << 20).await, joined(&written), "{op:?}");
                written.extend(fill(&again, 30, 6).await);
                assert_eq!(read_all(&again, 0, 1 << 20).await, joined(&written), "{op:?}");
            }
        });
    }
}

#[test]
fn an_empty_log_that_found_no_room_keeps_its_place() {
    with_log(|dir, log| async move {
        fill(&log, 10, 8).await;
        // Everything goes, also the file that names the next offset.
        let end = log.next_offset();
        log.checkpoint(Vec::new).await.unwrap();
        log.roll(&log.active());
        log.wait_sealed().await.unwrap();
        let first = log.segments.borrow().values().next().cloned().unwrap();
        log.start_offset.set(end);
        log.segments.borrow_mut().remove(&first.base_offset);
        maintenance::remove_files(&first).await.unwrap();
        fs::remove_file(dir.join("checkpoint")).unwrap();
        inject(Op::Write, ".log", 0, FULL);
        log.append(batch(1, 100, 1, 1), 3, 0).unwrap();
        eventually("the log is full", || log.failure().is_some()).await;
        faults::clear();
        log.cut_back(log.acknowledged()).await.unwrap();
        assert_eq!(open(&dir, small_segments()).await.log.next_offset(), end);
    });
}

/// A log of several small sealed segments.
async fn several_segments(dir: &Path, retention_bytes: u64) -> (Rc<Log>, Vec<(i64, Vec<u8>)>) {
    let config = TopicConfig { segment_bytes: 100_000, retention_bytes: Some(retention_bytes), ..Default::default() };
    let log = open(dir, Arc::new(config)).await.log;
    let mut written = Vec::new();
    for seed in 0..10 {
        let batch = batch(2, 60_000, 1_000_000, seed);
        let appended = log.append(batch.clone(), 3, 0).unwrap();
        written.push((appended.base_offset, stored(&batch, appended.base_offset)));
    }
    acknowledged(&log, 20).await;
    log.wait_sealed().await.unwrap();
    (log, written)
}

#[test]
fn retention_makes_room_where_there_is_none_for_a_checkpoint() {
    // With the checkpoint refused for ever, once, and on a log that itself found no room.
    for (times, full) in [(u64::MAX, false), (1, false), (u64::MAX, true)] {
        let root = scratch();
        let dir = root.path().join("t-0");
        on_shard(move || {
            let dir = dir.clone();
            async move {
                let (log, written) = several_segments(&dir, 200_000).await;
                faults::inject_times(Op::Small, "/checkpoint", 0, times, FULL);
                if full {
                    inject(Op::Write, ".log", 0, FULL);
                    let _ = log.append(batch(1, 100, 1, 1), 3, 0);
                    eventually("the log is full", || log.failure().is_some()).await;
                }
                assert!(log.enforce_retention(0, log.acknowledged(), Vec::new).await.unwrap());
                let start = log.start_offset();
                let is_live = |name: &str| name.ends_with(".log");
                let names = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name());
                let live = names.filter(|name| name.to_str().is_some_and(is_live)).count();
                assert!(start > 0 && live < 10, "{start}, {live} segments");
                assert_eq!(recovery_point(&dir), (times == 1).then_some(20), "the room of the first segment is enough");
                faults::clear();
                // A crash now: the start and the end are those of the files.
                let copy = dir.with_file_name("copy-0");
                copy_dir(&dir, &copy);
                let again = open(&copy, small_segments()).await.log;
                assert_eq!(again.start_offset(), start);
                let left: Vec<_> = written.into_iter().filter(|(offset, _)| *offset >= start).collect();
                let read = read_all(&again, start, 1 << 20).await;
                assert!(read.starts_with(&joined(&left)), "{} bytes, not {}", read.len(), joined(&left).len());
            }
        });
    }
}

#[test]
fn retention_of_a_log_that_found_no_room_is_noted() {
    // The last checkpoint lies amid what is removed, or behind it.
    for point in [4, 16] {
        let root = scratch();
        let dir = root.path().join("t-0");
        on_shard(move || {
            let dir = dir.clone();
            async move {
                let (log, written) = several_segments(&dir, 200_000).await;
                log.checkpoint(|| b"old".to_vec()).await.unwrap();
                // One that was stored earlier.
                let mut older = Checkpoint::load(&dir, usize::MAX).unwrap().unwrap();
                older.segments.as_mut().unwrap().retain(|segment| segment.base < point);
                older.recovery_point = point;
                older.store(&dir).unwrap();
                inject(Op::Write, ".log", 0, FULL);
                let _ = log.append(batch(1, 100, 1, 1), 3, 0);
                eventually("the log is full", || log.failure().is_some()).await;
                // The first file that goes makes room enough.
                faults::inject_times(Op::Small, "/checkpoint", 0, 1, FULL);
                assert!(log.enforce_retention(0, 20, || b"new".to_vec()).await.unwrap());
                faults::clear();
                let start = log.start_offset();
                assert_eq!(start, 12);
                let copy = dir.with_file_name("copy-0");
                copy_dir(&dir, &copy);
                let noted = Checkpoint::load(&dir, usize::MAX).unwrap().unwrap();
                assert_eq!((noted.log_start, noted.recovery_point), (start, point.max(start)));
                assert_eq!(noted.sidecar, b"old");
                let again = open(&copy, small_segments()).await;
                assert_eq!((again.damaged, again.log.start_offset()), (false, start));
                let left: Vec<_> = written.into_iter().filter(|(offset, _)| *offset >= start).collect();
                assert!(read_all(&again.log, start, 1 << 20).await.starts_with(&joined(&left)));
            }
        });
    }
}

#[test]
fn retention_of_everything_keeps_the_place_without_a_checkpoint() {
    with_log(|dir, log| async move {
        fill(&log, 10, 9).await;
        let end = log.next_offset();
        log.set_config(Arc::new(TopicConfig { retention_ms: Some(1), segment_bytes: 1 << 20, ..Default::default() }));
        inject(Op::Small, "", 0, FULL);
        assert!(log.enforce_retention(i64::MAX / 2, log.acknowledged(), Vec::new).await.unwrap());
        assert_eq!(log.start_offset(), end);
        faults::clear();
        let copy = dir.with_file_name("copy-0");
        copy_dir(&dir, &copy);
        assert_eq!(open(&copy, small_segments()).await.log.next_offset(), end);
    });
}

#[test]
fn below_the_reserve_only_the_brokers_own_topics_go_on() {
    let root = scratch();
    let base = root.path().to_path_buf();
    on_shard(move || {
        let base = base.clone();
        async move {
            let limits = StorageLimits { disk_reserve_bytes: 1 << 20, ..Default::default() };
            let context = StorageContext::new(limits);
            let config = Arc::new(TopicConfig::default());
            let log = open_in(context.clone(), &base.join("t-0"), config.clone()).await.log;
            let own = open_in(context.clone(), &base.join("__consumer_offsets-0"), config).await.log;
            fill(&log, 3, 1).await;
            inject(Op::Space, "", 0, FULL);
            log.disk().look().await.unwrap();
            let refused = log.append(batch(1, 100, 1, 1), 3, 0).unwrap_err();
            assert!(refused.is_full() && refused.to_string().contains("corelane.disk.reserve.bytes"), "{refused}");
            assert!(log.failure().is_none(), "nothing has failed");
            fill(&own, 30, 2).await;
            assert_eq!(context.low_disks().len(), 1);
            faults::clear();
            for disk in context.low_disks() {
                disk.look().await.unwrap();
            }
            fill(&log, 3, 3).await;
        }
    });
}

#[test]
fn a_write_goes_without_reserved_blocks() {
    with_log(|_, log| async move {
        inject(Op::Preallocate, ".log", 0, FULL);
        let written = fill(&log, 100, 4).await;
        log.checkpoint(Vec::new).await.unwrap();
        assert_eq!(read_all(&log, 0, 1 << 20).await, joined(&written));
    });
}

/// Records are read although their index is gone, and nothing can be written or
/// something else is in its place.
#[test]
fn readers_need_no_room_for_an_index() {
    with_log(|dir, log| async move {
        let written = fill(&log, 200, 1).await;
        log.wait_sealed().await.unwrap();
        log.checkpoint(Vec::new).await.unwrap();
        log.close(Vec::new).await.unwrap();
        let index = segment_file(&dir, 0, "index");
        for as_directory in [false, true] {
            fs::remove_file(&index).unwrap();
            match as_directory {
                true => fs::create_dir_all(index.join("inner")).unwrap(),
                false => inject(Op::Small, ".index", 0, FULL),
            }
            let again = open(&dir, small_segments()).await.log;
            assert_eq!(read_all(&again, 0, 1 << 20).await, joined(&written));
            assert_eq!(
                again.read(written[1].0, again.acknowledged(), 1000, true).await.unwrap().records.concat()[..8],
                written[1].0.to_be_bytes()
            );
            assert!(again.failure().is_none());
            faults::clear();
            again.close(Vec::new).await.unwrap();
            if !as_directory {
                fs::write(&index, "").unwrap();
            }
        }
    });
}
