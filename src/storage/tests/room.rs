//! A full disk: what can wait waits, what cannot is refused, and nothing that was acknowledged goes.

use super::*;
use crate::runtime::eventually;
use crate::runtime::faults::{Fault, Op, inject};

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
                assert_eq!(log.cut_back().await.unwrap(), acknowledged_end);
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
        log.cut_back().await.unwrap();
        assert_eq!(open(&dir, small_segments()).await.log.next_offset(), end);
    });
}
