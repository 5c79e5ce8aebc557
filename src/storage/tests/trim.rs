//! Records deleted from the front of a log by request.

use super::*;

fn config(file_delete_delay_ms: u64) -> Arc<TopicConfig> {
    Arc::new(TopicConfig { segment_bytes: 100_000, file_delete_delay_ms, ..TopicConfig::default() })
}

/// 40 batches of two records, some four batches a segment.
async fn filled(dir: &Path) -> Rc<Log> {
    let log = open(dir, config(0)).await.log;
    for i in 0..40 {
        log.append(batch(2, 20_000, 1000 + i, i as u64 + 1), 3, 0).unwrap();
    }
    acknowledged(&log, 80).await;
    log
}

fn segment_files(dir: &Path) -> Vec<i64> {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut bases: Vec<i64> =
        names.filter_map(|name| name.strip_suffix(".log").map(|base| base.parse().unwrap())).collect();
    bases.sort_unstable();
    bases
}

/// Checks a log after a trim to `to`: the start, the records from there on, and no file that lies
/// wholly before it.
async fn check(log: &Rc<Log>, dir: &Path, to: i64) {
    assert_eq!((log.start_offset(), log.next_offset()), (to, 80));
    assert!(matches!(log.read(to - 1, log.acknowledged(), 10, true).await, Err(ReadError::OutOfRange { .. })));
    let (mut from, mut bytes) = (to, 0);
    if to % 2 != 0 {
        // The batch around the start comes whole.
        bytes += log.read(to, log.acknowledged(), 1, true).await.unwrap().records.concat().len();
        from += 1;
    }
    bytes += read_all(log, from, 1 << 20).await.len();
    let batches = 40 - to as usize / 2;
    assert_eq!(bytes, batches * (HEADER_BYTES + 20_000), "from {to}");
    let bases = segment_files(dir);
    assert!(bases.len() == 1 || bases[1] > to, "{bases:?} with the start at {to}");
}

#[test]
fn a_trim_to_any_offset_survives_a_crash() {
    scratched(|root| async move {
        let dir = root.join("t-0");
        let mut log = filled(&dir).await;
        log.trim(0, Vec::new).await.unwrap();
        assert_eq!(log.start_offset(), 0);
        // Amid a batch, amid a segment, at a segment's begin, and twice in the same segment.
        let second = segment_files(&dir)[1];
        for to in [1, 3, second, second + 2, 40, 42] {
            log.trim(to, Vec::new).await.unwrap();
            check(&log, &dir, to).await;
            // As a kill leaves it: without a close.
            let opened = root.join(format!("copy-{to}")).join("t-0");
            copy_dir(&dir, &opened);
            let again = open(&opened, config(0)).await.log;
            check(&again, &opened, to).await;
            assert!(fs::read_dir(&opened).unwrap().all(|e| !e.unwrap().file_name().to_string_lossy().contains("rot")));
        }
        log.close(Vec::new).await.unwrap();
        log = open(&dir, config(0)).await.log;
        check(&log, &dir, 42).await;
        let appended = log.append(batch(1, 10, 5000, 99), 3, 0).unwrap();
        assert_eq!(appended.base_offset, 80);
    });
}

#[test]
fn a_clean_start_of_a_trimmed_log_reads_a_block() {
    scratched(|root| async move {
        let dir = root.join("t-0");
        let log = filled(&dir).await;
        log.trim(segment_files(&dir)[1] + 2, Vec::new).await.unwrap();
        log.close(Vec::new).await.unwrap();
        let again = open(&dir, config(0)).await;
        assert!(again.scanned <= disk::ALIGNMENT, "{} bytes scanned", again.scanned);
    });
}

#[test]
fn a_trim_to_the_end_leaves_an_empty_log() {
    scratched(|root| async move {
        let dir = root.join("t-0");
        let log = filled(&dir).await;
        log.trim(80, Vec::new).await.unwrap();
        check(&log, &dir, 80).await;
        // The active segment lies before the start as well: it goes once it is sealed.
        for i in 0..10 {
            log.append(batch(1, 20_000, 5000, i + 1), 3, 0).unwrap();
        }
        acknowledged(&log, 90).await;
        log.checkpoint(Vec::new).await.unwrap();
        assert!(log.enforce_retention(5000, log.acknowledged(), Vec::new).await.unwrap());
        let bases = segment_files(&dir);
        assert!(bases.iter().all(|base| *base >= 78) && log.start_offset() == 80, "{bases:?}");
        log.close(Vec::new).await.unwrap();
        let again = open(&dir, config(0)).await.log;
        assert_eq!((again.start_offset(), again.next_offset()), (80, 90));
    });
}

#[test]
fn a_trimmed_log_goes_backwards_never() {
    scratched(|root| async move {
        let dir = root.join("t-0");
        let log = filled(&dir).await;
        let mut random = Random(11);
        let mut start = 0;
        for _ in 0..12 {
            let to = random.below(81) as i64;
            log.trim(to, Vec::new).await.unwrap();
            start = start.max(to);
            assert_eq!(log.start_offset(), start);
            assert_eq!(log.checkpointed.get().1, start, "and it is stored");
        }
    });
}

/// Files that wait for `file.delete.delay.ms` are no segments to a start.
#[test]
fn put_aside_segments_do_not_come_back() {
    scratched(|root| async move {
        let dir = root.join("t-0");
        let log = filled(&dir).await;
        log.set_config(config(60_000));
        log.trim(60, Vec::new).await.unwrap();
        assert!(fs::read_dir(&dir).unwrap().any(|e| e.unwrap().path().extension().is_some_and(|x| x == "deleted")));
        log.close(Vec::new).await.unwrap();
        let again = open(&dir, config(0)).await.log;
        check(&again, &dir, 60).await;
    });
}
