//! A whole log, cleaned.

use std::cell::Cell;
use std::fs;

use super::*;
use crate::runtime::{eventually, faults, on_shard, scratch, spawn_local};
use crate::storage::files;

#[test]
fn the_live_set_is_the_models_after_any_number_of_cleanings_and_restarts() {
    let root = scratch();
    let dir = root.path().join("t-0");
    on_shard(move || {
        let dir = dir.clone();
        async move {
            let mut writer = Writer::new(1, 60);
            let mut log = open(&dir, compacted()).await;
            for round in 0..6 {
                writer.write(&log, 60).await;
                let before = log.size_bytes();
                let done = clean_all(&log, 1_000, &LIMITS).await;
                assert!(done.keys > 0 && done.bytes_after < done.bytes_before, "{done:?}");
                assert!(log.size_bytes() < before);
                for max_bytes in [1, 3_000, 1 << 20] {
                    let (seen, headers) = read_from(&log, 0, max_bytes).await;
                    writer.check(&seen, i64::MAX);
                    assert!(headers.windows(2).all(|pair| pair[0].next_offset() <= pair[1].base()));
                }
                let (all, _) = read_from(&log, 0, 1 << 20).await;
                for offset in (0..writer.next).step_by(7) {
                    let next = log.read(offset, log.acknowledged(), 4_000, true).await.unwrap().records.concat();
                    let first = parse(&next).0.into_iter().find(|r| r.0 >= offset).map(|r| r.0);
                    let wanted = all.iter().find(|r| r.0 >= offset).map(|r| r.0);
                    assert!(first.is_none() || first == wanted, "{first:?} instead of {wanted:?} from {offset}");
                }
                if round % 2 == 1 {
                    log.close(Vec::new).await.unwrap();
                    if round == 3 {
                        // Without it everything is read and checked again: a cleaned
                        // segment must pass.
                        fs::remove_file(dir.join("checkpoint")).unwrap();
                    }
                    log = open(&dir, compacted()).await;
                    assert_eq!(log.next_offset(), writer.next);
                    writer.check(&read_from(&log, 0, 5_000).await.0, i64::MAX);
                }
            }
            // Of sealed segments only the newest records (and each segment's last batch) are left.
            let (seen, _) = read_from(&log, 0, 1 << 20).await;
            assert!(seen.len() < writer.written.len() / 3, "{} of {}", seen.len(), writer.written.len());
            log.close(Vec::new).await.unwrap();
        }
    });
}

#[test]
fn a_reader_from_the_start_sees_the_last_values_at_any_moment_of_a_cleaning() {
    let root = scratch();
    let dir = root.path().join("t-0");
    on_shard(move || {
        let dir = dir.clone();
        async move {
            let mut writer = Writer::new(7, 40);
            let log = open(&dir, compacted()).await;
            let (cleanings, done) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
            let ended = Rc::new(Cell::new(false));
            let (cleaner, counted, stopped, left) = (log.clone(), cleanings.clone(), done.clone(), ended.clone());
            spawn_local(async move {
                while !stopped.get() {
                    clean_all(&cleaner, 1_000, &LIMITS).await;
                    counted.set(counted.get() + 1);
                    clock::sleep(Duration::from_micros(300)).await;
                }
                left.set(true);
            });
            let mut random = Random(3);
            let mut rounds = 0;
            // On a slow machine until several cleanings were among the reads.
            while rounds < 150 || cleanings.get() <= 5 {
                rounds += 1;
                let few = 1 + random.below(6) as usize;
                writer.write(&log, few).await;
                let upto = log.acknowledged();
                let (seen, _) = read_from(&log, 0, 200 + random.below(20_000) as usize).await;
                writer.check(&seen, upto);
                let late = log.find_by_time(10_000 + upto / 2, log.acknowledged()).await.unwrap();
                assert!(late.is_some_and(|(_, timestamp)| timestamp >= 10_000 + upto / 2), "{late:?}");
            }
            done.set(true);
            eventually("the cleaner ends", || ended.get()).await;
            assert!(log.segments.borrow().values().any(|segment| segment.is_cleaned()));
            log.close(Vec::new).await.unwrap();
        }
    });
}

#[test]
fn a_map_too_small_takes_several_rounds_and_comes_to_the_same() {
    let root = scratch();
    let dir = root.path().join("t-0");
    on_shard(move || {
        let dir = dir.clone();
        async move {
            let mut writer = Writer::new(5, 300);
            let log = open(&dir, compacted()).await;
            writer.write(&log, 150).await;
            log.checkpoint(Vec::new).await.unwrap();
            // Room for about forty keys.
            let cleaner = Cleaner::new(CleanerLimits { dedupe_buffer_bytes: 1_500, ..LIMITS });
            let mut rounds = 0;
            while let Some(found) = log.survey(1_000, log.acknowledged()).await {
                let done = log.clean(found, LastOffsets::new(), &cleaner, 1_000, &|| false).await.unwrap();
                assert!(done.end > found.first_dirty && done.keys <= 48, "{done:?}");
                writer.check(&read_from(&log, 0, 1 << 20).await.0, i64::MAX);
                rounds += 1;
            }
            assert!(rounds > 10, "{rounds} rounds");
            let large = clean_all(&log, 1_000, &LIMITS).await;
            assert_eq!(large, CleanStats::default(), "nothing was left to do");
            log.close(Vec::new).await.unwrap();
        }
    });
}

#[test]
fn small_segments_become_one_and_files_of_the_old_ones_go() {
    let root = scratch();
    let dir = root.path().join("t-0");
    on_shard(move || {
        let dir = dir.clone();
        async move {
            let mut writer = Writer::new(2, 10);
            let log = open(&dir, TopicConfig { file_delete_delay_ms: 0, ..compacted() }).await;
            writer.write(&log, 200).await;
            clean_all(&log, 1_000, &LIMITS).await;
            writer.write(&log, 60).await;
            let many = log.segments.borrow().len();
            clean_all(&log, 1_000, &LIMITS).await;
            let few = log.segments.borrow().len();
            assert!(few < many, "{many} then {few}");
            let bases: Vec<i64> = log.segments.borrow().keys().copied().collect();
            for entry in fs::read_dir(&dir).unwrap() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                if let Some((base, extension)) = name.split_once('.') {
                    assert!(bases.contains(&base.parse().unwrap()), "{name} is left of {bases:?}");
                    assert!(["log", "index", "timeindex"].contains(&extension), "{name}");
                }
            }
            let noted = fs::read_to_string(dir.join("cleaner-offset-checkpoint")).unwrap();
            assert_eq!(noted, format!("0\n1\nt 0 {}\n", bases.last().unwrap()));
            log.close(Vec::new).await.unwrap();
        }
    });
}

#[test]
fn tombstones_go_when_their_time_has_passed() {
    let root = scratch();
    let dir = root.path().join("t-0");
    on_shard(move || {
        let dir = dir.clone();
        async move {
            let config = TopicConfig { delete_retention_ms: 1_000, ..compacted() };
            let log = open(&dir, config).await;
            append(&log, batch(&[record(0, "a", Some("1")), record(1, "b", Some("2"))], Codec::None, NOBODY)).await;
            append(&log, batch(&[record(2, "a", None)], Codec::None, NOBODY)).await;
            let mut next = 3;
            let mut fill = async |log: &Rc<Log>| {
                let value = "x".repeat(20_000);
                for _ in 0..2 {
                    append(log, batch(&[record(next, "filler", Some(&value))], Codec::None, NOBODY)).await;
                    next += 1;
                }
            };
            let keys = async |log: &Rc<Log>, now_ms: i64| {
                clean_all(log, now_ms, &LIMITS).await;
                let (seen, _) = read_from(log, 0, 1 << 20).await;
                seen.into_iter().filter(|r| r.2.as_deref() != Some(b"filler")).map(|r| r.0).collect::<Vec<i64>>()
            };
            fill(&log).await;
            fill(&log).await;
            assert_eq!(keys(&log, 50_000).await, [1, 2], "what the tombstone deletes goes, the tombstone stays");
            fill(&log).await;
            assert_eq!(keys(&log, 50_999).await, [1, 2]);
            fill(&log).await;
            assert_eq!(keys(&log, 51_000).await, [1]);
            log.close(Vec::new).await.unwrap();
        }
    });
}

#[test]
fn a_producers_newest_batch_is_kept_for_its_sequence() {
    let root = scratch();
    let dir = root.path().join("t-0");
    on_shard(move || {
        let dir = dir.clone();
        async move {
            let log = open(&dir, compacted()).await;
            for n in 0..6 {
                append(&log, batch(&[record(n, "a", Some("old"))], Codec::Gzip, (n % 2, 0, n as i32 / 2))).await;
            }
            let value = "x".repeat(20_000);
            for n in 6..10 {
                append(&log, batch(&[record(n, "a", Some(&value))], Codec::None, NOBODY)).await;
            }
            log.checkpoint(Vec::new).await.unwrap();
            let found = log.survey(1_000, log.acknowledged()).await.unwrap();
            let producers = LastOffsets::from([(0, 4), (1, 5)]);
            log.clean(found, producers, &Cleaner::new(LIMITS), 1_000, &|| false).await.unwrap();
            let (_, headers) = read_from(&log, 0, 1 << 20).await;
            let of_producers: Vec<_> = headers.iter().filter(|h| h.is_idempotent()).collect();
            let sequences = of_producers.iter().map(|h| (h.producer_id.get(), h.last_sequence(), h.record_count.get()));
            assert_eq!(sequences.collect::<Vec<_>>(), [(0, 2, 0), (1, 2, 0)]);
            log.close(Vec::new).await.unwrap();
        }
    });
}

#[test]
fn lags_hold_cleaning_back_and_force_it() {
    let root = scratch();
    let dir = root.path().join("t-0");
    on_shard(move || {
        let dir = dir.clone();
        async move {
            let mut writer = Writer::new(4, 20);
            let log = open(&dir, compacted()).await;
            writer.write(&log, 100).await;
            log.checkpoint(Vec::new).await.unwrap();
            let set = |config: TopicConfig| log.set_config(Arc::new(config));
            // Timestamps are from 10,001 on.
            set(TopicConfig { min_compaction_lag_ms: 5_000, ..compacted() });
            assert_eq!(log.survey(12_000, log.acknowledged()).await, None);
            assert!(log.survey(10_000_000, log.acknowledged()).await.is_some());
            set(TopicConfig { min_cleanable_dirty_ratio: 1.0, ..compacted() });
            assert!(!log.survey(12_000, log.acknowledged()).await.unwrap().due, "a ratio of 1 is never passed");
            set(TopicConfig { min_cleanable_dirty_ratio: 1.0, max_compaction_lag_ms: 100, ..compacted() });
            let before = log.segments.borrow().len();
            assert!(log.survey(10_000_000, log.acknowledged()).await.unwrap().due);
            assert_eq!(log.segments.borrow().len(), before + 1, "the active segment was rolled");
            clean_all(&log, 10_000_000, &LIMITS).await;
            let (seen, _) = read_from(&log, 0, 1 << 20).await;
            writer.check(&seen, i64::MAX);
            assert!(seen.len() <= 20, "all of it was cleaned: {} are left", seen.len());
            set(TopicConfig { cleanup_compact: false, cleanup_delete: true, ..compacted() });
            writer.write(&log, 100).await;
            assert_eq!(log.survey(10_000_000, log.acknowledged()).await, None);
            log.close(Vec::new).await.unwrap();
        }
    });
}

#[test]
fn the_rate_is_kept_and_a_cleaning_that_is_told_to_leave_off_leaves_nothing() {
    let root = scratch();
    let dir = root.path().join("t-0");
    on_shard(move || {
        let dir = dir.clone();
        async move {
            let log = open(&dir, TopicConfig { segment_bytes: 1 << 20, ..compacted() }).await;
            let value = "x".repeat(200_000);
            for n in 0..16 {
                append(&log, batch(&[record(n, &format!("key-{n}"), Some(&value))], Codec::None, NOBODY)).await;
            }
            log.checkpoint(Vec::new).await.unwrap();
            let found = log.survey(1_000, log.acknowledged()).await.unwrap();
            let cleaner = Cleaner::new(CleanerLimits { max_bytes_per_second: 10e6, ..LIMITS });
            let begun = clock::now();
            let asked = Cell::new(0);
            let ended = || asked.replace(asked.get() + 1) > 6;
            let outcome = log.clean(found, LastOffsets::new(), &cleaner, 1_000, &ended).await;
            assert!(matches!(outcome, Err(CleanError::Ended)), "{outcome:?}");
            assert!(begun.elapsed() >= Duration::from_millis(150), "{:?}", begun.elapsed());
            let names = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
            assert_eq!(names.filter(|name| name.contains(".cleaned") || name.contains(".swap")).count(), 0);
            assert_eq!(read_from(&log, 0, 1 << 20).await.0.len(), 16);
            log.close(Vec::new).await.unwrap();
        }
    });
}

#[test]
fn small_logs_are_held_to_the_rate_one_after_the_other() {
    let root = scratch();
    let base = root.path().to_path_buf();
    on_shard(move || {
        let base = base.clone();
        async move {
            let mut logs = Vec::new();
            for n in 0..4 {
                let log = open(&base.join(format!("t-{n}")), compacted()).await;
                Writer::new(n, 50).write(&log, 60).await;
                log.checkpoint(Vec::new).await.unwrap();
                logs.push(log);
            }
            let rate = 400e3;
            let cleaner = Cleaner::new(CleanerLimits { max_bytes_per_second: rate, ..LIMITS });
            let (begun, mut bytes) = (clock::now(), 0);
            for log in logs {
                let found = log.survey(1_000, log.acknowledged()).await.unwrap();
                let done = log.clean(found, LastOffsets::new(), &cleaner, 1_000, &|| false).await.unwrap();
                assert!(done.bytes_before < 1 << 20, "all of it is one step");
                // Read for the keys, read again, and written.
                bytes += 2 * done.bytes_before + done.bytes_after;
                let least = Duration::from_secs_f64(bytes as f64 / rate);
                assert!(begun.elapsed() >= least, "{bytes} bytes in {:?}", begun.elapsed());
                log.close(Vec::new).await.unwrap();
            }
        }
    });
}

#[test]
fn a_log_that_goes_while_it_is_cleaned_goes_at_once() {
    for retire in [false, true] {
        let root = scratch();
        let dir = root.path().join("t-0");
        on_shard(move || {
            let dir = dir.clone();
            async move {
                let mut writer = Writer::new(6, 50);
                let log = open(&dir, compacted()).await;
                writer.write(&log, 200).await;
                log.checkpoint(Vec::new).await.unwrap();
                let found = log.survey(1_000, log.acknowledged()).await.unwrap();
                // The first step is paid for in a day: whatever the machine, the cleaner rests
                // until it is told to leave off.
                let limits = CleanerLimits { max_bytes_per_second: 1e-3, ..LIMITS };
                let (outcome, rests) = (Rc::new(Cell::new(None)), Rc::new(Cell::new(0)));
                let (cleaned, told, asked) = (log.clone(), outcome.clone(), rests.clone());
                spawn_local(async move {
                    let ended = || asked.replace(asked.get() + 1) == i32::MAX;
                    let cleaner = Cleaner::new(limits);
                    let cleaned = cleaned.clean(found, LastOffsets::new(), &cleaner, 1_000, &ended).await;
                    told.set(Some(matches!(cleaned, Err(CleanError::Ended))));
                });
                eventually("the cleaner rests", || rests.get() > 0).await;
                assert_eq!(outcome.get(), None, "still at work");
                if retire {
                    crate::storage::remove_dir(&log.retire("gone").await.unwrap().unwrap()).await.unwrap();
                } else {
                    log.close(Vec::new).await.unwrap();
                }
                eventually("the cleaning ends", || outcome.get().is_some()).await;
                assert_eq!(outcome.get(), Some(true));
                assert_eq!(dir.exists(), !retire);
                if !retire {
                    let log = open(&dir, compacted()).await;
                    writer.check(&read_from(&log, 0, 1 << 20).await.0, i64::MAX);
                }
            }
        });
    }
}

#[test]
fn a_damaged_batch_ends_the_cleaning_and_is_set_aside_for_the_next() {
    let root = scratch();
    let dir = root.path().join("t-0");
    on_shard(move || {
        let dir = dir.clone();
        async move {
            let mut writer = Writer::new(8, 50);
            let log = open(&dir, compacted()).await;
            writer.write(&log, 100).await;
            log.close(Vec::new).await.unwrap();
            let path = dir.join("00000000000000000000.log");
            let mut bytes = fs::read(&path).unwrap();
            bytes[5_000] ^= 1;
            fs::write(&path, &bytes).unwrap();
            let log = open(&dir, compacted()).await;
            let found = log.survey(1_000, log.acknowledged()).await.unwrap();
            let outcome = log.clean(found, LastOffsets::new(), &Cleaner::new(LIMITS), 1_000, &|| false).await;
            assert!(matches!(&outcome, Err(CleanError::Io(e)) if e.to_string().contains("is damaged")), "{outcome:?}");
            assert_eq!(log.survey(2_000, log.acknowledged()).await, None, "it is left alone for a while");
            assert!(log.survey(1_000_000, log.acknowledged()).await.is_some());
            assert!(fs::read(&path).unwrap().len() < bytes.len() && log.failure().is_none());
            let kept = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
            assert_eq!(kept.filter(|name| name.ends_with(".rot")).count(), 1);
            clean_all(&log, 1_000_000, &LIMITS).await;
        }
    });
}

#[test]
fn a_cleaning_that_cannot_write_leaves_the_log_as_it_was_and_is_tried_again() {
    // Obstacles: to writing, and to the commit.
    for obstacle in ["log.cleaned", "index.swap", "log.swap"] {
        let root = scratch();
        let dir = root.path().join("t-0");
        on_shard(move || {
            let dir = dir.clone();
            async move {
                let mut writer = Writer::new(10, 30);
                let log = open(&dir, compacted()).await;
                writer.write(&log, 60).await;
                log.wait_sealed().await.unwrap();
                log.checkpoint(Vec::new).await.unwrap();
                let in_the_way = dir.join(format!("00000000000000000000.{obstacle}"));
                fs::create_dir_all(in_the_way.join("x")).unwrap();
                let before = log.size_bytes();
                let found = log.survey(1_000, log.acknowledged()).await.unwrap();
                let outcome = log.clean(found, LastOffsets::new(), &Cleaner::new(LIMITS), 1_000, &|| false).await;
                assert!(matches!(outcome, Err(CleanError::Io(_))), "{obstacle}: {outcome:?}");
                assert!(log.failure().is_none() && log.size_bytes() == before, "{obstacle}");
                writer.check(&read_from(&log, 0, 1 << 20).await.0, i64::MAX);
                writer.write(&log, 5).await;
                assert_eq!(log.survey(1_001, log.acknowledged()).await, None, "not at once");
                fs::remove_dir_all(&in_the_way).unwrap();
                clean_all(&log, 1_000_000, &LIMITS).await;
                assert!(log.size_bytes() < before, "{obstacle}");
                writer.check(&read_from(&log, 0, 1 << 20).await.0, i64::MAX);
                log.close(Vec::new).await.unwrap();
                let log = open(&dir, compacted()).await;
                writer.check(&read_from(&log, 0, 1 << 20).await.0, i64::MAX);
            }
        });
    }
}

#[test]
fn a_cleaning_that_found_no_room_goes_on_once_there_is_some() {
    let root = scratch();
    let dir = root.path().join("t-0");
    on_shard(move || {
        let dir = dir.clone();
        async move {
            let mut writer = Writer::new(11, 30);
            let log = open(&dir, compacted()).await;
            writer.write(&log, 60).await;
            log.wait_sealed().await.unwrap();
            log.checkpoint(Vec::new).await.unwrap();
            let cleaner = Cleaner::new(LIMITS);
            let full = faults::Fault::Os(28);
            faults::inject(faults::Op::Small, "cleaner-offset-checkpoint", 0, full);
            faults::inject(faults::Op::Space, "", 0, full);
            for now_ms in [1_000, 100_000] {
                let found = log.survey(now_ms, log.acknowledged()).await.unwrap();
                let outcome = log.clean(found, LastOffsets::new(), &cleaner, now_ms, &|| false).await;
                assert!(matches!(&outcome, Err(CleanError::Io(e)) if files::is_full(e)), "{outcome:?}");
                assert_eq!(log.survey(now_ms, log.acknowledged()).await, None, "there is no room yet");
                assert!(log.failure().is_none());
                writer.check(&read_from(&log, 0, 1 << 20).await.0, i64::MAX);
            }
            faults::clear();
            let found =
                log.survey(100_000, log.acknowledged()).await.expect("there is room, so it need not wait for its time");
            log.clean(found, LastOffsets::new(), &cleaner, 100_000, &|| false).await.unwrap();
            // A quota: room that this log does not get.
            writer.write(&log, 60).await;
            log.wait_sealed().await.unwrap();
            log.checkpoint(Vec::new).await.unwrap();
            faults::inject(faults::Op::Small, "cleaner-offset-checkpoint", 0, full);
            let found = log.survey(100_000, log.acknowledged()).await.unwrap();
            assert!(log.clean(found, LastOffsets::new(), &cleaner, 100_000, &|| false).await.is_err());
            assert_eq!(log.survey(100_000, log.acknowledged()).await, None, "it waits for its time");
            faults::clear();
            assert!(log.survey(200_000, log.acknowledged()).await.is_some());
        }
    });
}
