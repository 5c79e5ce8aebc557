//! Damage that is not a torn tail: what is bad goes aside, what is sound stays, at a start and
//! while the log is in use.

use super::*;
use crate::storage::paths::segment_file;

fn clean(root: &Path) -> Rc<StorageContext> {
    let limits = StorageLimits {
        tail_cache_bytes: 256 << 10,
        cold_cache_bytes: 1 << 20,
        clean_dirs: vec![root.to_path_buf()],
        ..Default::default()
    };
    StorageContext::new(limits)
}

fn tiny_segments() -> Arc<TopicConfig> {
    Arc::new(TopicConfig { segment_bytes: 20_000, index_interval_bytes: 1000, ..TopicConfig::default() })
}

fn names(dir: &Path, suffix: &str) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.ends_with(suffix)).collect();
    names.sort();
    names
}

fn flip(path: &Path, place: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[place] ^= 4;
    fs::write(path, bytes).unwrap();
}

/// 70 batches of one record in some ten segments, closed cleanly.
async fn written(dir: &Path) -> Vec<(i64, Vec<u8>)> {
    let log = open(dir, tiny_segments()).await.log;
    let mut written = Vec::new();
    for i in 0..70 {
        let batch = batch(1, 2_000 + 10 * i, 1_000 + i as i64, i as u64 + 1);
        written.push((i as i64, stored(&batch, i as i64)));
        let appended = log.append(batch, 3, 0).unwrap();
        acknowledged(&log, appended.next_offset).await;
    }
    log.close(|| b"state".to_vec()).await.unwrap();
    written
}

/// The log must give everything but the records of `lost`, and take new ones behind all that were
/// there.
async fn check(log: &Rc<Log>, written: &[(i64, Vec<u8>)], lost: &[i64], what: &str) {
    assert_eq!(log.next_offset(), 70, "{what}: offsets are given again");
    let left: Vec<_> = written.iter().filter(|(offset, _)| !lost.contains(offset)).cloned().collect();
    let (read, _) = read_gaps(log, 0, 50_000).await;
    assert!(read == joined(&left), "{what}: {} of {} bytes", read.len(), joined(&left).len());
    for (offset, bytes) in &left {
        let read = log.read(*offset, log.acknowledged(), 1, true).await.unwrap().records.concat();
        assert!(read == *bytes, "{what}: the batch at {offset}");
    }
    let appended = log.append(batch(1, 100, 1, 99), 3, 0).unwrap();
    assert_eq!(appended.base_offset, 70, "{what}");
    acknowledged(log, 71).await;
}

/// The case of the report: one flip in the first segment, one in the checkpoint.
#[test]
fn a_flip_in_the_first_segment_and_one_in_the_checkpoint_cost_one_record() {
    let root = scratch();
    let base = root.path().to_path_buf();
    on_shard(move || {
        let base = base.clone();
        async move {
            let dir = base.join("t-0");
            let written = written(&dir).await;
            for (number, context) in [clean(&base), small_caches()].into_iter().enumerate() {
                let copy = base.join(format!("copy{number}-0"));
                copy_dir(&dir, &copy);
                flip(&segment_file(&copy, 0, "log"), 2 * 2100);
                flip(&copy.join("checkpoint"), 30);
                let log = open_in(context, &copy, tiny_segments()).await.log;
                check(&log, &written, &[2], "flips").await;
                let kept = names(&copy, ".rot");
                assert_eq!(kept.len(), 1, "{kept:?}");
                assert_eq!(fs::read(copy.join(&kept[0])).unwrap().len(), written[2].1.len(), "the bytes are set aside");
                // Killed: the gap is nothing new.
                let again = base.join(format!("again{number}-0"));
                copy_dir(&copy, &again);
                let log = open(&again, tiny_segments()).await.log;
                assert_eq!((log.next_offset(), names(&again, ".rot").len()), (71, 1));
            }
        }
    });
}

#[test]
fn segments_that_are_cut_zeroed_missing_or_double_cost_what_they_held() {
    let root = scratch();
    let base = root.path().to_path_buf();
    on_shard(move || {
        let base = base.clone();
        async move {
            let dir = base.join("t-0");
            let written = written(&dir).await;
            let bases: Vec<i64> = names(&dir, ".log").iter().map(|name| name[..20].parse().unwrap()).collect();
            assert!(bases.len() > 6, "{bases:?}");
            let offsets = |i: usize| (bases[i]..bases.get(i + 1).copied().unwrap_or(70)).collect::<Vec<i64>>();
            let last = bases.len() - 1;
            for (number, with_checkpoint) in [(0, true), (1, false)] {
                for case in 0..10 {
                    for clean_stop in [true, false] {
                        let copy = base.join(format!("case{case}x{number}x{clean_stop}-0"));
                        copy_dir(&dir, &copy);
                        let log_file = |i: usize| segment_file(&copy, bases[i], "log");
                        let cut = |i: usize, bytes: u64| {
                            fs::OpenOptions::new().write(true).open(log_file(i)).unwrap().set_len(bytes).unwrap();
                        };
                        let lost = match case {
                            // The middle one is cut within its third batch.
                            0 => {
                                cut(3, 2 * written[bases[3] as usize].1.len() as u64 + 200);
                                offsets(3)[2..].to_vec()
                            }
                            1 => {
                                fs::remove_file(log_file(4)).unwrap();
                                offsets(4)
                            }
                            2 => {
                                fs::remove_file(log_file(0)).unwrap();
                                offsets(0)
                            }
                            3 => {
                                cut(2, 0);
                                offsets(2)
                            }
                            4 => {
                                let bytes = fs::read(log_file(5)).unwrap();
                                fs::write(log_file(5), vec![0; bytes.len()]).unwrap();
                                offsets(5)
                            }
                            // A copy of a segment under a name between two others.
                            5 => {
                                fs::copy(log_file(1), segment_file(&copy, bases[1] + 1, "log")).unwrap();
                                Vec::new()
                            }
                            // A copy of a later one.
                            9 => {
                                fs::copy(log_file(3), segment_file(&copy, bases[1] + 1, "log")).unwrap();
                                Vec::new()
                            }
                            // An empty file between two others.
                            6 => {
                                fs::write(segment_file(&copy, bases[3] + 1, "log"), b"").unwrap();
                                Vec::new()
                            }
                            // The end of the log is gone: at a clean stop it was there.
                            7 if clean_stop || with_checkpoint => {
                                cut(last, written[bases[last] as usize].1.len() as u64 + 7);
                                offsets(last)[1..].to_vec()
                            }
                            8 if with_checkpoint => {
                                bases.iter().enumerate().for_each(|(i, _)| fs::remove_file(log_file(i)).unwrap());
                                (0..70).collect()
                            }
                            _ => continue,
                        };
                        if !with_checkpoint {
                            fs::remove_file(copy.join("checkpoint")).unwrap();
                        }
                        // Without the checkpoint nothing tells how far the log went.
                        if !with_checkpoint && (lost.contains(&69) || case == 7) {
                            continue;
                        }
                        let context = if clean_stop { clean(&base) } else { small_caches() };
                        let log = open_in(context, &copy, tiny_segments()).await.log;
                        // A read from the first offset that is left.
                        let left: Vec<_> =
                            written.iter().filter(|(offset, _)| !lost.contains(offset)).cloned().collect();
                        let what = format!("case {case}, checkpoint {with_checkpoint}, clean {clean_stop}");
                        assert_eq!(log.next_offset(), 70, "{what}");
                        let (read, _) = read_gaps(&log, log.start_offset(), 50_000).await;
                        assert!(read == joined(&left), "{what}: {} of {}", read.len(), joined(&left).len());
                        let appended = log.append(batch(1, 100, 1, 99), 3, 0).unwrap();
                        assert_eq!(appended.base_offset, 70, "{what}");
                        acknowledged(&log, 71).await;
                    }
                }
            }
        }
    });
}

/// Damage of a segment that the start takes on trust, met by a reader: later offsets stay within
/// reach.
#[test]
fn a_reader_that_meets_damage_goes_on_behind_it() {
    let root = scratch();
    let base = root.path().to_path_buf();
    on_shard(move || {
        let base = base.clone();
        async move {
            let dir = base.join("t-0");
            let written = written(&dir).await;
            // The length, the magic byte, the base offset, the offset delta of the third batch.
            for (number, into) in [9, 16, 2, 24].into_iter().enumerate() {
                let copy = base.join(format!("copy{number}-0"));
                copy_dir(&dir, &copy);
                let path = segment_file(&copy, 0, "log");
                flip(&path, written[0].1.len() + written[1].1.len() + into);
                let log = open_in(clean(&base), &copy, tiny_segments()).await.log;
                assert!(names(&copy, ".rot").is_empty(), "found at the start");
                check(&log, &written, &[2], &format!("byte {into}")).await;
                assert_eq!(names(&copy, ".rot").len(), 1);
                log.close(Vec::new).await.unwrap();
                let log = open_in(clean(&base), &copy, tiny_segments()).await;
                assert!(
                    log.scanned <= 2 * 4096,
                    "{} bytes scanned: the mended segment is in the checkpoint",
                    log.scanned
                );
                assert_eq!(read_gaps(&log.log, 0, 50_000).await.1, std::slice::from_ref(&(2..3)));
            }
        }
    });
}

/// Also in the segment that takes appends, and by time.
#[test]
fn damage_in_the_active_segment_is_taken_out_while_appends_go_on() {
    let root = scratch();
    let dir = root.path().join("t-0");
    on_shard(move || {
        let dir = dir.clone();
        async move {
            let config = Arc::new(TopicConfig { index_interval_bytes: 1000, ..TopicConfig::default() });
            // Nothing of the tail stays in memory.
            let limits = StorageLimits { tail_cache_bytes: 0, cold_cache_bytes: 1 << 20, ..Default::default() };
            let log = open_in(StorageContext::new(limits), &dir, config).await.log;
            for i in 0..40 {
                log.append(batch(1, 5_000, 1_000 + i, i as u64 + 1), 3, 0).unwrap();
            }
            acknowledged(&log, 40).await;
            log.checkpoint(Vec::new).await.unwrap();
            {
                use std::os::unix::fs::FileExt;
                let file = fs::OpenOptions::new().write(true).open(segment_file(&dir, 0, "log")).unwrap();
                file.write_all_at(&[0xff; 30], 10 * (HEADER_BYTES + 5_000) as u64).unwrap();
                file.sync_all().unwrap();
            }
            log.find_by_time(1_011, log.acknowledged()).await.unwrap();
            assert_eq!(read_gaps(&log, 0, 30_000).await.1, std::slice::from_ref(&(10..11)));
            log.append(batch(1, 100, 1, 99), 3, 0).unwrap();
            acknowledged(&log, 41).await;
            assert_eq!(
                log.read(40, log.acknowledged(), 1, true).await.unwrap().records.concat().len(),
                HEADER_BYTES + 100
            );
        }
    });
}

/// A base offset that is too high, in front of a batch that is damaged too, and gaps that nothing
/// confirms: whatever the scan and the survey think of them, every sound batch stays or is set
/// aside.
#[test]
fn two_neighbours_that_are_damaged_cost_those_two() {
    let root = scratch();
    let base = root.path().to_path_buf();
    on_shard(move || {
        let base = base.clone();
        async move {
            let dir = base.join("t-0");
            let written = written(&dir).await;
            let path = |copy: &Path| segment_file(copy, 0, "log");
            let length = |i: usize| written[i].1.len();
            for (number, (first, second)) in [(7, 18)].into_iter().enumerate() {
                for clean_stop in [true, false] {
                    let copy = base.join(format!("copy{number}x{clean_stop}-0"));
                    copy_dir(&dir, &copy);
                    fs::remove_file(copy.join("checkpoint")).unwrap();
                    flip(&path(&copy), length(0) + length(1) + first);
                    flip(&path(&copy), length(0) + length(1) + length(2) + second);
                    let context = if clean_stop { clean(&base) } else { small_caches() };
                    let log = open_in(context, &copy, tiny_segments()).await.log;
                    assert_eq!(log.next_offset(), 70);
                    let kept: usize = names(&copy, ".rot").iter().map(|n| fs::read(copy.join(n)).unwrap().len()).sum();
                    let (read, _) = read_gaps(&log, 0, 50_000).await;
                    assert_eq!(read.len() + kept, joined(&written).len(), "flips at {first} and {second}");
                    assert!(kept <= length(2) + length(3), "{kept} bytes set aside for flips at {first} and {second}");
                }
            }
        }
    });
}

/// Groups are in flight side by side: one landed, an earlier one did not. None of them was
/// acknowledged.
#[test]
fn batches_behind_a_group_that_never_landed_go_with_it() {
    let root = scratch();
    let base = root.path().to_path_buf();
    on_shard(move || {
        let base = base.clone();
        async move {
            let dir = base.join("t-0");
            let log = open(&dir, small_segments()).await.log;
            for i in 0..20 {
                log.append(batch(1, 10_000, 1, i + 1), 3, 0).unwrap();
            }
            acknowledged(&log, 20).await;
            log.close(Vec::new).await.unwrap();
            fs::remove_file(dir.join("checkpoint")).unwrap();
            let path = segment_file(&dir, 0, "log");
            let mut bytes = fs::read(&path).unwrap();
            // From the middle of the eleventh batch, whole blocks are as they were before.
            bytes[25 * 4096..28 * 4096].fill(0);
            fs::write(&path, &bytes).unwrap();
            let log = open(&dir, small_segments()).await.log;
            assert_eq!(log.next_offset(), 10);
            assert_eq!(read_all(&log, 0, 1 << 20).await.len(), 10 * (HEADER_BYTES + 10_000));
            assert!(dir.join("torn-tail").exists(), "what lay behind is kept for who wants to look");
        }
    });
}

/// A power cut may take the end of one segment and leave the next ones: that these begin
/// behind it is no gap of cleaning. Only behind a gap that no segment holds does a segment say
/// nothing of the one before.
#[test]
fn what_a_segment_has_lost_at_its_end_is_told_where_offsets_have_gaps() {
    scratched(|root| async move {
        let dir = root.join("t-0");
        let log = open(&dir, tiny_segments()).await.log;
        let mut written = Vec::new();
        for i in 0..40 {
            let gap = if i == 30 { 5_000_000_000 } else { i % 3 };
            let base = log.next_offset() + gap;
            let bytes = stored(&batch(1, 2_000, 1_000 + i, i as u64 + 1), base);
            log.append_as_is(bytes.clone().into(), 0).await.unwrap();
            written.push((base, bytes));
        }
        acknowledged(&log, log.next_offset()).await;
        log.wait_sealed().await.unwrap();
        let segments: Vec<i64> = log.segments.borrow().keys().copied().collect();
        assert!(segments.len() > 4, "{segments:?}");
        for lost in [None, Some(0), Some(1)] {
            let copy = root.join(format!("copy{lost:?}-0"));
            copy_dir(&dir, &copy);
            let mut left = written.clone();
            if let Some(number) = lost {
                let last = left.iter().rposition(|(base, _)| *base < segments[number + 1]).unwrap();
                let (_, bytes) = left.remove(last);
                let path = segment_file(&copy, segments[number], "log");
                let file = fs::OpenOptions::new().write(true).open(path).unwrap();
                file.set_len(file.metadata().unwrap().len() - bytes.len() as u64).unwrap();
            }
            let open =
                async || Log::open(small_caches(), &copy, tiny_segments(), &mut |_| {}, &mut |_| {}).await.unwrap();
            let recovered = open().await;
            assert_eq!(recovered.damaged, lost.is_some(), "{lost:?}");
            assert!(read_gaps(&recovered.log, 0, 50_000).await.0 == joined(&left), "{lost:?}");
            recovered.log.close(Vec::new).await.unwrap();
            assert!(!open().await.damaged, "{lost:?}: told twice");
        }
    });
}

fn noting() -> Rc<StorageContext> {
    StorageContext::new(StorageLimits { notes_damage: true, ..StorageLimits::default() })
}

/// A broker that is killed before it has told anybody of the damage must find it again.
#[test]
fn damage_is_noted_until_it_is_forgotten() {
    scratched(|root| async move {
        let dir = root.join("t-0");
        let written = written(&dir).await;
        fs::remove_file(segment_file(&dir, 0, "log")).unwrap();
        for notes in [false, true] {
            let context = || if notes { noting() } else { small_caches() };
            let copy = root.join(format!("copy{notes}-0"));
            copy_dir(&dir, &copy);
            let found = open_in(context(), &copy, tiny_segments()).await;
            assert!(found.damaged);
            // As `Replica` does: what is missing is told once.
            found.log.checkpoint(Vec::new).await.unwrap();
            let killed = root.join(format!("killed{notes}-0"));
            copy_dir(&copy, &killed);
            let again = open_in(context(), &killed, tiny_segments()).await;
            assert_eq!(again.damaged, notes);
            assert_eq!(names(&killed, "damaged-log").len(), usize::from(notes));
            again.log.forget_damage();
            eventually("the note goes", || names(&killed, "damaged-log").is_empty()).await;
            let last = written.last().unwrap().0;
            assert_eq!(again.log.next_offset(), last + 1);
            again.log.close(Vec::new).await.unwrap();
            assert!(!open_in(context(), &killed, tiny_segments()).await.damaged);
        }
    });
}

#[test]
fn damage_that_others_have_the_records_of_is_not_passed_over() {
    scratched(|root| async move {
        let dir = root.join("t-0");
        let written = written(&dir).await;
        flip(&segment_file(&dir, 0, "log"), written[0].1.len() + written[1].1.len() + 70);
        let log = open_in(clean(&root), &dir, tiny_segments()).await.log;
        let others = Rc::new(Cell::new(true));
        let asked = others.clone();
        log.on_damage(Box::new(move || asked.get()));
        let read = log.read(0, log.acknowledged(), 50_000, true).await;
        assert!(read.is_err() && names(&dir, ".rot").is_empty());
        others.set(false);
        check(&log, &written, &[2], "nobody else has it").await;
    });
}
