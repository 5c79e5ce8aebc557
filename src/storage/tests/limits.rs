//! Tests of the options about writes and syncs.

use super::*;

async fn open_with(dir: &Path, config: TopicConfig, limits: StorageLimits) -> Rc<Log> {
    open_in(StorageContext::new(limits), dir, Arc::new(config)).await.log
}

fn append(log: &Rc<Log>, bytes: usize) -> i64 {
    log.append(batch(1, bytes, 1, 7), 3, 0).unwrap().next_offset
}

#[test]
fn the_linger_gathers_batches_and_ends_when_a_group_is_full() {
    let root = scratch();
    let base = root.path().to_path_buf();
    on_shard(move || {
        let base = base.clone();
        async move {
            let named = async |name: &str, append_linger: Duration| {
                let limits = StorageLimits { append_linger, ..Default::default() };
                open_with(&base.join(name), TopicConfig::default(), limits).await
            };
            // Without one, what can leave does.
            let log = named("none-0", Duration::ZERO).await;
            for n in 0..5 {
                acknowledged(&log, append(&log, 100)).await;
                assert_eq!(log.appender.groups(), n + 1);
            }
            log.close(Vec::new).await.unwrap();
            // Longer than any test: what leaves did not wait for its end.
            let log = named("long-0", Duration::from_secs(3600)).await;
            for _ in 0..5 {
                append(&log, 100);
                clock::sleep(Duration::from_millis(5)).await;
            }
            assert_eq!((log.appender.groups(), log.acknowledged()), (0, 0));
            acknowledged(&log, append(&log, 600_000)).await;
            append(&log, 100);
            clock::sleep(Duration::from_millis(5)).await;
            assert_eq!(log.acknowledged(), 6, "the next one waits for company of its own");
            // A batch waits for the whole of its linger, also while the timer of one that
            // left earlier still runs.
            let linger = Duration::from_millis(250);
            let log = named("short-0", linger).await;
            for full in [false, true] {
                if full {
                    append(&log, 100);
                    acknowledged(&log, append(&log, 600_000)).await;
                }
                let (began, last) = (clock::now(), append(&log, 100));
                acknowledged(&log, last).await;
                assert!(began.elapsed() >= linger, "the batch waited only {:?}", began.elapsed());
            }
            log.close(Vec::new).await.unwrap();
        }
    });
}

#[test]
fn depth_and_size_bound_what_is_in_flight() {
    let root = scratch();
    let base = root.path().to_path_buf();
    on_shard(move || {
        let base = base.clone();
        async move {
            for (i, (depth, most)) in [(1, 512 << 10), (4, 512 << 10), (4, 64 << 10)].into_iter().enumerate() {
                let limits = StorageLimits { write_queue_depth: depth, write_max_bytes: most, ..Default::default() };
                let log = open_with(&base.join(format!("t-{i}")), TopicConfig::default(), limits).await;
                acknowledged(&log, append(&log, 10)).await;
                // The first writes take long enough for as many as may to be in flight together.
                faults::inject_times(faults::Op::Write, "t-", 0, 8, faults::Fault::Slow(200));
                let before = log.appender.groups();
                for _ in 0..400 {
                    append(&log, 20_000);
                }
                let mut deepest = 0;
                while log.acknowledged() < log.next_offset() {
                    deepest = log.appender.in_flight().max(deepest);
                    clock::sleep(Duration::from_millis(1)).await;
                }
                faults::clear();
                let (groups, least) = (log.appender.groups() - before, 400 * 20_000 / most as u64);
                assert!(groups >= least && groups <= least + 5 + least / 8, "{groups} groups of {most} bytes");
                assert_eq!(deepest, depth);
                assert_eq!(read_all(&log, 1, 1 << 20).await.len(), 400 * (20_000 + HEADER_BYTES));
            }
        }
    });
}

#[test]
fn a_put_off_sync_covers_more() {
    let root = scratch();
    let base = root.path().to_path_buf();
    on_shard(move || {
        let base = base.clone();
        async move {
            for delay_ms in [0, 250] {
                let limits = StorageLimits { flush_delay: Duration::from_millis(delay_ms), ..Default::default() };
                let config = TopicConfig { flush_messages: 1, ..TopicConfig::default() };
                let log = open_with(&base.join(format!("t-{delay_ms}")), config, limits).await;
                // One sync passes, the second fails.
                faults::inject(faults::Op::Fdatasync, "t-", 1, faults::Fault::Os(5));
                let began = clock::now();
                for n in 1..=4 {
                    let _ = log.append(batch(1, 100, 1, 7), 3, 0);
                    if delay_ms > 0 {
                        // Each is written when the next one comes, and none of them is synced.
                        log.wait_written(n).await.unwrap();
                        continue;
                    }
                    eventually("the sync ends", || log.failure().is_some() || log.acknowledged() == n).await;
                }
                if delay_ms == 0 {
                    assert!(log.failure().is_some(), "four syncs were expected");
                } else {
                    acknowledged(&log, 4).await;
                    assert!(began.elapsed() >= Duration::from_millis(delay_ms));
                }
                faults::clear();
                let last = log.append(batch(1, 100, 1, 7), 3, 0);
                if let (Ok(appended), true) = (last, delay_ms > 0) {
                    acknowledged(&log, appended.next_offset).await;
                }
            }
        }
    });
}

/// A topic with the smallest index, or a client that chooses its timestamps, has
/// each batch begin a segment.
#[test]
fn segments_roll_by_size_only_once_there_are_too_many() {
    let root = scratch();
    let base = root.path().to_path_buf();
    on_shard(move || {
        let base = base.clone();
        async move {
            let context = StorageContext::new(StorageLimits { max_segments: 10, ..Default::default() });
            let config = TopicConfig { segment_index_bytes: 4, segment_bytes: 1 << 20, ..TopicConfig::default() };
            let mut logs = Vec::new();
            for n in 0..3 {
                let log = open_in(context.clone(), &base.join(format!("t-{n}")), Arc::new(config.clone())).await.log;
                for _ in 0..20 {
                    append(&log, 10);
                }
                acknowledged(&log, log.next_offset()).await;
                logs.push(log);
            }
            let count = |log: &Rc<Log>| log.segments.borrow().len();
            assert_eq!(logs.iter().map(count).collect::<Vec<_>>(), [10, 1, 1]);
            append(&logs[1], 1 << 20);
            assert_eq!(count(&logs[1]), 2, "a full segment still ends");
            acknowledged(&logs[1], logs[1].next_offset()).await;
            for log in logs {
                log.close(Vec::new).await.unwrap();
            }
        }
    });
}
