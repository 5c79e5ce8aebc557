//! Zeros ahead of the appends: they are there, and no record ever notices.

use super::*;
use crate::storage::segment::Segment;

fn config() -> Arc<TopicConfig> {
    Arc::new(TopicConfig { segment_bytes: 6 << 20, ..TopicConfig::default() })
}

fn context(write_ahead_bytes: u64) -> Rc<StorageContext> {
    StorageContext::new(StorageLimits { write_ahead_bytes, write_ahead_group_bytes: 256 << 10, ..Default::default() })
}

/// Appends until `bytes` more are in the log, in groups of all sizes up to about 250 KB that now
/// follow at once, now later.
async fn busy(log: &Rc<Log>, bytes: usize, random: &mut Random, into: &mut Vec<(i64, Vec<u8>)>) {
    let mut appended = 0;
    while appended < bytes {
        for _ in 0..=random.below(8) {
            let payload = if random.below(40) == 0 { random.below(250_000) } else { random.below(24_000) } as usize;
            let batch = batch(1, payload, 1, random.next());
            appended += batch.len();
            let placed = log.append(batch.clone(), 3, 0).unwrap();
            into.push((placed.base_offset, stored(&batch, placed.base_offset)));
        }
        match random.below(4) {
            0 => clock::sleep(Duration::from_micros(random.below(1500))).await,
            1 => {}
            _ => acknowledged(log, log.next_offset()).await,
        }
    }
}

fn segments(log: &Log) -> Vec<Rc<Segment>> {
    log.segments.borrow().values().cloned().collect()
}

/// The files, byte by byte; what lies behind the active segment's records is zeros.
fn compare_files(log: &Log, written: &[(i64, Vec<u8>)]) {
    let mut rest = &joined(written)[..];
    for segment in segments(log) {
        let file = fs::read(segment.path("log")).unwrap();
        let size = segment.size.get() as usize;
        let differs = (0..size.min(file.len())).find(|&at| file[at] != rest[at]);
        assert_eq!((differs, file.len() >= size), (None, true), "segment {} of {size} bytes", segment.base_offset);
        assert!(file[size..].iter().all(|b| *b == 0), "segment {}: no zeros behind {size}", segment.base_offset);
        assert!(!segment.sealed.get() || file.len() == size, "segment {} is not cut", segment.base_offset);
        rest = &rest[size..];
    }
    assert!(rest.is_empty());
}

#[test]
fn zeros_never_overwrite_data_nor_outlast_a_segment() {
    let root = scratch();
    let base = root.path().to_path_buf();
    on_shard(move || {
        let base = base.clone();
        async move {
            for (round, most) in [1 << 20, 256 << 10, 4 << 20].into_iter().enumerate() {
                let dir = base.join(format!("t-{round}"));
                let log = open_in(context(most), &dir, config()).await.log;
                let (mut written, mut random) = (Vec::new(), Random(77 + round as u64));
                busy(&log, 20 << 20, &mut random, &mut written).await;
                acknowledged(&log, log.next_offset()).await;
                let zeroed: Vec<u64> = segments(&log).iter().map(|s| s.ahead.zeroed()).collect();
                assert!(zeroed.len() > 2 && zeroed.iter().filter(|z| **z > 0).count() > 2, "no zeros: {zeroed:?}");
                compare_files(&log, &written);
                assert!(read_all(&log, 0, 1 << 20).await == joined(&written));
                log.close(Vec::new).await.unwrap();
                compare_files(&log, &written);
                let active = segments(&log).pop().unwrap();
                assert_eq!(
                    fs::metadata(active.path("log")).unwrap().len(),
                    active.size.get(),
                    "not cut by the clean stop"
                );
                let again = open_in(context(most), &dir, config()).await;
                assert!(again.scanned <= 2 * disk::MAX_IO_BYTES as u64 && again.log.next_offset() == log.next_offset());
                busy(&again.log, 5 << 20, &mut random, &mut written).await;
                acknowledged(&again.log, again.log.next_offset()).await;
                assert!(read_all(&again.log, 0, 1 << 20).await == joined(&written));
            }
        }
    });
}

/// Bursts that reach into zeros just when those are in flight.
#[test]
fn a_group_that_meets_zeros_in_flight_waits_for_them() {
    let root = scratch();
    let dir = root.path().join("t-0");
    on_shard(move || {
        let dir = dir.clone();
        async move {
            let config = Arc::new(TopicConfig { segment_bytes: 16 << 20, ..TopicConfig::default() });
            let log = open_in(context(1 << 20), &dir, config).await.log;
            let (mut written, mut random, mut met) = (Vec::new(), Random(3), 0);
            let append = |payload: u64, random: &mut Random, written: &mut Vec<(i64, Vec<u8>)>| {
                let batch = batch(1, payload as usize, 1, random.next());
                let placed = log.append(batch.clone(), 3, 0).unwrap();
                written.push((placed.base_offset, stored(&batch, placed.base_offset)));
            };
            // How many bursts it takes until some meet zeros depends on the device.
            let mut bursts = 0;
            while bursts < 60 || (met <= 5 && bursts < 2000) {
                bursts += 1;
                for _ in 0..200 {
                    if log.active().ahead.has_zeros_in_flight() {
                        break;
                    }
                    append(random.below(16_000), &mut random, &mut written);
                    for _ in 0..random.below(6) {
                        futures_lite::future::yield_now().await;
                    }
                    if random.below(3) == 0 {
                        acknowledged(&log, log.next_offset()).await;
                    }
                }
                for _ in 0..25 {
                    append(random.below(40_000), &mut random, &mut written);
                }
                let active = log.active();
                met += u32::from(active.ahead.blocks(active.size.get()));
                acknowledged(&log, log.next_offset()).await;
            }
            println!("{met} of {bursts} bursts reached into zeros in flight");
            log.wait_sealed().await.unwrap();
            compare_files(&log, &written);
            log.close(Vec::new).await.unwrap();
            compare_files(&log, &written);
        }
    });
}

/// As after kill -9: records, then zeros that were written, then zeros that were reserved.
#[test]
fn a_copy_taken_while_zeros_are_written_recovers_what_was_acknowledged() {
    let root = scratch();
    let base = root.path().to_path_buf();
    on_shard(move || {
        let base = base.clone();
        async move {
            let dir = base.join("t-0");
            let log = open_in(context(1 << 20), &dir, config()).await.log;
            let (mut written, mut random) = (Vec::new(), Random(5));
            for round in 0..8 {
                busy(&log, 1 << 20, &mut random, &mut written).await;
                let safe = log.acknowledged();
                let copy = base.join(format!("copy-{round}"));
                copy_dir(&dir, &copy);
                let recovered = open_in(context(1 << 20), &copy, config()).await;
                let end = recovered.log.next_offset();
                assert!(end >= safe, "round {round}: {end} after {safe} was acknowledged");
                let mut expected: Vec<_> = written.iter().filter(|(offset, _)| *offset < end).cloned().collect();
                let active = recovered.log.active();
                assert_eq!(active.allocated.get(), active.size.get());
                busy(&recovered.log, 2 << 20, &mut random, &mut expected).await;
                acknowledged(&recovered.log, recovered.log.next_offset()).await;
                assert!(read_all(&recovered.log, 0, 1 << 20).await == joined(&expected), "round {round}");
                compare_files(&recovered.log, &expected);
            }
            assert!(log.active().ahead.zeroed() > 0);
        }
    });
}

#[test]
fn zeros_that_fail_harm_nothing_and_are_not_tried_again_in_their_segment() {
    for fault in [faults::Fault::Os(5), faults::Fault::Short] {
        let root = scratch();
        let dir = root.path().join("t-0");
        on_shard(move || {
            let dir = dir.clone();
            async move {
                let log = open_in(context(1 << 20), &dir, config()).await.log;
                let (mut written, mut random) = (Vec::new(), Random(9));
                faults::inject(faults::Op::Ahead, "t-0", 1, fault);
                busy(&log, 3 << 20, &mut random, &mut written).await;
                acknowledged(&log, log.next_offset()).await;
                let (first, zeroed) = (log.active(), log.active().ahead.zeroed());
                assert!(first.ahead.has_failed() && zeroed < first.size.get(), "{zeroed}");
                compare_files(&log, &written);
                faults::clear();
                busy(&log, 1 << 20, &mut random, &mut written).await;
                assert_eq!(first.ahead.zeroed(), zeroed);
                busy(&log, 6 << 20, &mut random, &mut written).await;
                acknowledged(&log, log.next_offset()).await;
                assert!(log.active().ahead.zeroed() > 0, "the next segment tries again");
                compare_files(&log, &written);
                log.close(Vec::new).await.unwrap();
            }
        });
    }
}

#[test]
fn large_groups_small_segments_and_the_switch_get_no_zeros() {
    let root = scratch();
    let base = root.path().to_path_buf();
    on_shard(move || {
        let base = base.clone();
        async move {
            // (largest step, bytes of a batch, batches, whether zeros are due)
            let cases = [(0, 16 << 10, 40, false), (1 << 20, 300 << 10, 10, false), (1 << 20, 1000, 30, false)];
            for (i, (most, bytes, count, due)) in cases.into_iter().chain([(1 << 20, 16 << 10, 40, true)]).enumerate() {
                let dir = base.join(format!("t-{i}"));
                let log = open_in(context(most), &dir, Arc::new(TopicConfig::default())).await.log;
                for n in 0..count {
                    let appended = log.append(batch(1, bytes, 1, n + 1), 3, 0).unwrap();
                    acknowledged(&log, appended.next_offset).await;
                }
                log.close(Vec::new).await.unwrap();
                assert_eq!(log.active().ahead.zeroed() > 0, due, "case {i}");
            }
        }
    });
}

/// Behind an arena only batches that wait for their sync have zeros before them.
#[test]
fn batches_that_are_synced_one_by_one_get_zeros_behind_an_arena_too() {
    let root = scratch();
    let base = root.path().to_path_buf();
    on_shard(move || {
        let base = base.clone();
        async move {
            for (flush_messages, due) in [(1, true), (u64::MAX, false)] {
                let config =
                    || Arc::new(TopicConfig { segment_bytes: 6 << 20, flush_messages, ..TopicConfig::default() });
                let (root, arenas) = (base.join(format!("{flush_messages}")), Duration::from_millis(5));
                fs::create_dir(&root).unwrap();
                let (arena, dir) = (held::arena(&root, 4 << 20, arenas), root.join("t-0"));
                let (mut written, mut random) = (Vec::new(), Random(78));
                for round in 1..3 {
                    let log = open_in(context(1 << 20), &dir, config()).await.log;
                    log.write_behind(arena.clone(), held::KEY);
                    busy(&log, 20 << 20, &mut random, &mut written).await;
                    acknowledged(&log, log.next_offset()).await;
                    let zeroed = segments(&log).iter().filter(|segment| segment.ahead.zeroed() > 0).count();
                    assert_eq!(zeroed > 2, due, "round {round}: zeros ahead of {zeroed} segments");
                    assert!(read_all(&log, 0, 1 << 20).await == joined(&written));
                    // As kill -9 leaves it.
                    let copy = root.join(format!("copy-{round}"));
                    copy_dir(&dir, &copy);
                    let recovered = open_in(context(1 << 20), &copy, config()).await.log;
                    if due {
                        assert!(read_all(&recovered, 0, 1 << 20).await == joined(&written), "round {round}");
                    }
                    log.close(Vec::new).await.unwrap();
                    compare_files(&log, &written);
                }
            }
        }
    });
}
