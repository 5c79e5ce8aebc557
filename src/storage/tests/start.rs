//! A start: how much it reads, and how it checks the files beside the log.

use std::os::unix::fs::FileExt;

use super::*;
use crate::storage::paths::segment_file;

fn config() -> Arc<TopicConfig> {
    Arc::new(TopicConfig { segment_bytes: 5 << 20, index_interval_bytes: 4096, ..TopicConfig::default() })
}

/// Batches of 1 MB used to be read back to the index entry before the recovery point.
#[test]
fn a_start_after_a_clean_stop_reads_a_block() {
    let root = scratch();
    let dir = root.path().join("t-0");
    on_shard(move || {
        let dir = dir.clone();
        async move {
            let log = open(&dir, config()).await.log;
            for i in 0..14 {
                let appended = log.append(batch(1, 900_000, 1, i + 1), 3, 0).unwrap();
                acknowledged(&log, appended.next_offset).await;
            }
            log.close(|| b"state".to_vec()).await.unwrap();
            let again = open(&dir, config()).await;
            assert!(again.scanned <= disk::ALIGNMENT, "{} bytes scanned", again.scanned);
            assert_eq!((again.log.next_offset(), again.sidecar.as_deref()), (14, Some(&b"state"[..])));
            let more = again.log.append(batch(1, 500, 1, 99), 3, 0).unwrap();
            acknowledged(&again.log, more.next_offset).await;
            assert_eq!(
                read_all(&again.log, 0, 1 << 20).await.len(),
                14 * (HEADER_BYTES + 900_000) + HEADER_BYTES + 500
            );
        }
    });
}

/// Retention rolls a segment whose records are old, and a move has the last one sealed.
#[test]
fn a_log_that_was_rolled_and_not_appended_to_is_not_read() {
    scratched(|root| async move {
        for checkpointed in [false, true] {
            let dir = root.join(format!("t-{}", u8::from(checkpointed)));
            let log = open(&dir, config()).await.log;
            let mut written = Vec::new();
            for i in 0..5 {
                let batch = batch(1, 90_000, 5, i);
                written.extend(stored(&batch, i as i64));
                log.append(batch, 3, 0).unwrap();
            }
            acknowledged(&log, 5).await;
            if checkpointed {
                log.checkpoint(Vec::new).await.unwrap();
            }
            log.seal_active().await.unwrap();
            log.close(Vec::new).await.unwrap();
            for start in ["first", "second"] {
                let again = open(&dir, config()).await;
                assert!(again.scanned <= disk::ALIGNMENT, "{start}, {checkpointed}: {} bytes scanned", again.scanned);
                assert_eq!(read_all(&again.log, 0, 1 << 20).await, written);
                again.log.close(Vec::new).await.unwrap();
            }
            let again = open(&dir, config()).await;
            let more = again.log.append(batch(1, 500, 1, 99), 3, 0).unwrap();
            acknowledged(&again.log, more.next_offset).await;
            assert_eq!((more.base_offset, again.log.next_offset()), (5, 6));
        }
    });
}

/// Of ten thousand logs the broker would read two gigabytes of them.
#[test]
fn zeros_that_were_reserved_and_never_written_are_not_read() {
    scratched(|root| async move {
        let dir = root.join("t-0");
        let log = open(&dir, config()).await.log;
        let mut written = Vec::new();
        for i in 0..2 {
            let batch = batch(1, 6_000, 5, i);
            written.extend(stored(&batch, i as i64));
            log.append(batch, 3, 0).unwrap();
            acknowledged(&log, i as i64 + 1).await;
            eventually("it is written", || log.ends().written == i as i64 + 1).await;
            if i == 0 {
                log.checkpoint(Vec::new).await.unwrap();
            }
        }
        log.abandon();
        let path = segment_file(&dir, 0, "log");
        assert!(fs::metadata(&path).unwrap().len() >= 256 << 10, "nothing is reserved");
        let again = open(&dir, config()).await;
        assert!((6_000..4 * disk::ALIGNMENT).contains(&again.scanned), "{} bytes scanned", again.scanned);
        assert_eq!(read_all(&again.log, 0, 1 << 20).await, written);
        assert_eq!(fs::metadata(&path).unwrap().len(), written.len() as u64);
    });
}

/// Copies are often made so that blocks of zeros take no room.
#[test]
fn zeros_of_records_may_be_holes() {
    scratched(|root| async move {
        let dir = root.join("t-0");
        let log = open(&dir, config()).await.log;
        let zeros = testing::batch(testing::header(1, 5), &vec![0; 200_000]);
        let batches = [batch(1, 3_000, 5, 1), zeros.clone(), batch(1, 30_000, 5, 2), zeros];
        let written: Vec<u8> = (0..).zip(&batches).flat_map(|(offset, batch)| stored(batch, offset)).collect();
        for batch in batches {
            log.append(batch, 3, 0).unwrap();
        }
        acknowledged(&log, 4).await;
        log.close(Vec::new).await.unwrap();
        let path = segment_file(&dir, 0, "log");
        for reserved in [0, 300_000] {
            for checkpointed in [true, false] {
                let copy = root.join(format!("copy-{reserved}-{checkpointed}"));
                copy_dir(&dir, &copy);
                if !checkpointed {
                    fs::remove_file(Checkpoint::path(&copy)).unwrap();
                }
                let sparse = fs::File::create(segment_file(&copy, 0, "log")).unwrap();
                sparse.set_len(fs::metadata(&path).unwrap().len() + reserved).unwrap();
                for (block, bytes) in (0..).zip(fs::read(&path).unwrap().chunks(disk::ALIGNMENT as usize)) {
                    if bytes.iter().any(|byte| *byte != 0) {
                        sparse.write_all_at(bytes, block * disk::ALIGNMENT).unwrap();
                    }
                }
                let again = open(&copy, config()).await.log;
                assert_eq!(read_all(&again, 0, 1 << 20).await, written, "{reserved} {checkpointed}");
                assert!(!again.checkpoint_stale.get(), "taken for damaged");
            }
        }
    });
}

/// The checkpoint ends where the segment does, and the kill came before the segment was sealed.
#[test]
fn a_segment_that_was_not_sealed_in_time_is_sealed_by_the_start() {
    scratched(|root| async move {
        let dir = root.join("t-0");
        let settings = TopicConfig { segment_bytes: 10_000, index_interval_bytes: 1 << 20, ..TopicConfig::default() };
        let config = Arc::new(settings);
        let log = open(&dir, config.clone()).await.log;
        for timestamp in [7, 9, 8] {
            log.append(batch(1, 3_000, timestamp, 1), 3, 0).unwrap();
        }
        acknowledged(&log, 3).await;
        log.checkpoint(Vec::new).await.unwrap();
        let times = segment_file(&dir, 0, "timeindex");
        let growing = fs::read(&times).unwrap();
        log.append(batch(1, 3_000, 10, 1), 3, 0).unwrap();
        acknowledged(&log, 4).await;
        eventually("it is sealed", || fs::read(&times).unwrap() != growing).await;
        let sealed = fs::read(&times).unwrap();
        log.abandon();
        fs::write(&times, &growing).unwrap();
        let newest = fs::metadata(segment_file(&dir, 3, "log")).unwrap().len();
        let again = open(&dir, config).await;
        assert_eq!((again.log.next_offset(), again.log.segments.borrow().len()), (4, 2));
        assert!(again.scanned <= newest + disk::ALIGNMENT, "{} bytes scanned", again.scanned);
        assert_eq!(fs::read(&times).unwrap(), sealed);
    });
}

/// A broker that was killed has not told any checkpoint of its newest segment.
#[test]
fn the_newest_segment_does_not_get_lost_unnoticed() {
    scratched(|root| async move {
        let dir = root.join("t-0");
        let config = Arc::new(TopicConfig { segment_bytes: 60_000, ..TopicConfig::default() });
        let log = open(&dir, config.clone()).await.log;
        let mut copies = Vec::new();
        for i in 0..60 {
            let begins = log.active().base_offset;
            let appended = log.append(batch(1, 2_000, 5, i + 1), 3, 0).unwrap();
            acknowledged(&log, appended.next_offset).await;
            if i == 0 || log.active().base_offset != begins {
                let copy = root.join(format!("copy{i}-0"));
                copy_dir(&dir, &copy);
                copies.push((copy, log.active().base_offset));
            }
        }
        assert!(copies.len() > 2);
        for (copy, newest) in copies {
            fs::remove_file(segment_file(&copy, newest, "log")).unwrap();
            let log = open(&copy, config.clone()).await.log;
            assert!(log.checkpoint_stale.get(), "{newest}: taken for whole");
            assert_eq!(log.next_offset(), newest);
        }
    });
}

#[test]
fn a_segment_that_is_a_link_is_what_it_leads_to() {
    let root = scratch();
    let (dir, away) = (root.path().join("t-0"), root.path().join("away.log"));
    on_shard(move || {
        let (dir, away) = (dir.clone(), away.clone());
        async move {
            let log = open(&dir, Arc::new(TopicConfig::default())).await.log;
            log.append(batch(1, 5_000, 1_000, 1), 3, 0).unwrap();
            acknowledged(&log, 1).await;
            log.abandon();
            let path = segment_file(&dir, 0, "log");
            fs::rename(&path, &away).unwrap();
            std::os::unix::fs::symlink(&away, &path).unwrap();
            let log = open(&dir, Arc::new(TopicConfig::default())).await.log;
            assert_eq!(log.next_offset(), 1);
            assert!(!read_all(&log, 0, 1).await.is_empty());
            log.close(Vec::new).await.unwrap();
            fs::remove_file(&away).unwrap();
            let opened = Log::open(small_caches(), &dir, Default::default(), &mut |_| {}, &mut |_| {}).await;
            let error = opened.err().expect("a link to nothing");
            assert!(error.to_string().contains("00000000000000000000.log"), "{error}");
        }
    });
}

/// Every bit of every index file that could be wrong: lookups give what they gave.
#[test]
fn index_files_that_are_not_what_was_written_are_made_anew() {
    let root = scratch();
    let base = root.path().to_path_buf();
    on_shard(move || {
        let base = base.clone();
        async move {
            let dir = base.join("t-0");
            let config =
                Arc::new(TopicConfig { segment_bytes: 60_000, index_interval_bytes: 500, ..TopicConfig::default() });
            let log = open(&dir, config.clone()).await.log;
            for i in 0..60 {
                let appended = log.append(batch(1, 2_000, 1_000 + 10 * i, i as u64 + 1), 3, 0).unwrap();
                acknowledged(&log, appended.next_offset).await;
            }
            log.close(Vec::new).await.unwrap();
            let bases: Vec<i64> = log.segments.borrow().keys().copied().collect();
            assert!(bases.len() > 2);
            let mut random = Random(77);
            for round in 0..40 {
                let copy = base.join(format!("copy{round}-0"));
                copy_dir(&dir, &copy);
                let segment = bases[random.below(bases.len() as u64) as usize];
                let path = segment_file(&copy, segment, if round % 2 == 0 { "index" } else { "timeindex" });
                let mut bytes = fs::read(&path).unwrap();
                match round % 5 {
                    0 => fs::remove_file(&path).unwrap(),
                    1 => {
                        bytes.truncate(random.below(bytes.len() as u64) as usize);
                        fs::write(&path, bytes).unwrap();
                    }
                    _ => {
                        let place = random.below(bytes.len() as u64) as usize;
                        bytes[place] ^= 1 << random.below(8);
                        fs::write(&path, bytes).unwrap();
                    }
                }
                let log = open(&copy, config.clone()).await.log;
                for offset in 0..60 {
                    let read = log.read(offset, log.acknowledged(), 1, true).await.unwrap().records.concat();
                    assert_eq!(BatchHeader::peek(&read).unwrap().base(), offset, "round {round}");
                    log.find_max_time(log.acknowledged()).await.unwrap();
                }
                // The youngest record is 1,590: nothing is older than the limit, whatever the time
                // index says.
                let kept = Arc::new(TopicConfig { retention_ms: Some(10_000), ..(*config).clone() });
                log.set_config(kept);
                log.enforce_retention(9_000, log.acknowledged(), Vec::new).await.unwrap();
                assert_eq!(log.start_offset(), 0, "round {round}: sound records were removed");
            }
        }
    });
}

/// Ten thousand syncs, one after the other, would hold up a start by many seconds.
#[test]
fn a_start_leaves_the_sync_of_what_it_read_to_the_running_log() {
    scratched(|root| async move {
        let dir = root.join("t-0");
        let log = open(&dir, config()).await.log;
        log.append(batch(1, 3_000, 5, 1), 3, 0).unwrap();
        acknowledged(&log, 1).await;
        log.checkpoint(Vec::new).await.unwrap();
        let appended = log.append(batch(2, 3_000, 5, 2), 3, 0).unwrap();
        acknowledged(&log, appended.next_offset).await;
        eventually("it is written", || log.ends().written == 3).await;
        log.abandon();

        faults::inject(faults::Op::Fdatasync, "t-0", 0, faults::Fault::Os(5));
        let context = small_caches();
        let again = open_in(context.clone(), &dir, config()).await.log;
        let ends = again.ends();
        assert_eq!((ends.held, ends.written, ends.synced), (3, 3, 1), "synced up to the checkpoint");
        assert_eq!((again.acknowledged(), context.unsynced_bytes()), (3, again.unsynced_bytes()));
        assert_eq!(again.unsynced_bytes(), (HEADER_BYTES + 3_000) as u64);
        assert!(again.checkpoint(Vec::new).await.is_err(), "no checkpoint may say that it is synced");
        assert!(again.failure().is_some());
        faults::clear();

        let context = small_caches();
        let third = open_in(context.clone(), &dir, config()).await.log;
        third.checkpoint(Vec::new).await.unwrap();
        assert_eq!((third.ends().synced, third.unsynced_bytes(), context.unsynced_bytes()), (3, 0, 0));
        third.abandon();
        let fourth = open(&dir, config()).await;
        assert_eq!((fourth.log.ends().synced, fourth.replayed), (3, vec![]), "the checkpoint covers it");
        assert_eq!(read_all(&fourth.log, 0, 1 << 20).await.len(), 2 * (HEADER_BYTES + 3_000));
    });
}

/// Records behind the recovery point are committed in the journal as after a write, unasked.
#[test]
fn what_a_start_read_is_committed_soon() {
    scratched(|root| async move {
        let dir = root.join("t-0");
        let log = open(&dir, config()).await.log;
        let appended = log.append(batch(1, 3_000, 5, 1), 3, 0).unwrap();
        acknowledged(&log, appended.next_offset).await;
        eventually("it is written", || log.ends().written == 1).await;
        log.abandon();
        let again = open(&dir, config()).await.log;
        eventually("it is synced", || again.ends().synced == 1).await;
        assert_eq!(again.unsynced_bytes(), 0);
    });
}

/// A sync spares a start nothing, a checkpoint does.
#[test]
fn bytes_to_recover_are_those_behind_the_checkpoint() {
    const BATCH: u64 = (HEADER_BYTES + 3_000) as u64;
    scratched(|root| async move {
        let dir = root.join("t-0");
        let (context, synced) = (small_caches(), Arc::new(TopicConfig { flush_messages: 1, ..TopicConfig::default() }));
        let log = open_in(context.clone(), &dir, synced.clone()).await.log;
        let beside = open_in(context.clone(), &root.join("t-1"), config()).await.log;
        for log in [&log, &beside] {
            for timestamp in 0..2 {
                log.append(batch(1, 3_000, timestamp, 1), 3, 0).unwrap();
            }
        }
        acknowledged(&log, 2).await;
        assert_eq!((log.ends().synced, log.bytes_to_recover(), context.bytes_to_recover()), (2, 2 * BATCH, 4 * BATCH));
        log.checkpoint(Vec::new).await.unwrap();
        assert_eq!((log.bytes_to_recover(), context.bytes_to_recover()), (0, 2 * BATCH));
        beside.abandon();
        drop(beside);
        assert_eq!(context.bytes_to_recover(), 0, "the log is gone");
        log.append(batch(1, 3_000, 2, 1), 3, 0).unwrap();
        acknowledged(&log, 3).await;
        log.abandon();

        let context = small_caches();
        let again = open_in(context.clone(), &dir, synced).await.log;
        assert!(again.bytes_to_recover() >= BATCH && context.bytes_to_recover() == again.bytes_to_recover());
        again.close(Vec::new).await.unwrap();
        assert_eq!(context.bytes_to_recover(), 0, "closed");
    });
}

/// Their end could fall otherwise: acknowledged is what is synced.
#[test]
fn topics_that_acknowledge_by_the_sync_are_synced_by_the_start() {
    for settings in [
        TopicConfig { flush_messages: 1, ..TopicConfig::default() },
        TopicConfig { flush_messages: 1_000, ..TopicConfig::default() },
        TopicConfig { flush_ms: Some(0), ..TopicConfig::default() },
    ] {
        let root = scratch();
        let dir = root.path().join("t-0");
        let settings = Arc::new(settings);
        on_shard(move || {
            let (dir, settings) = (dir.clone(), settings.clone());
            async move {
                let log = open(&dir, settings.clone()).await.log;
                for timestamp in 0..3 {
                    log.append(batch(1, 3_000, timestamp, 1), 3, 0).unwrap();
                }
                acknowledged(&log, 3).await;
                eventually("it is written", || log.ends().written == 3).await;
                log.abandon();
                let again = open(&dir, settings).await.log;
                assert_eq!((again.ends().synced, again.unsynced_bytes()), (3, 0));
            }
        });
    }
}
