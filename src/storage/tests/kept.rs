//! Copies of what consumers that lag have before them.

use super::held::{KEY, arena};
use super::*;
use crate::runtime::memory::HostMemory;

const MIB: usize = 1 << 20;

fn with_cache(cache_bytes: usize) -> Rc<StorageContext> {
    StorageContext::new(StorageLimits { cache_bytes, cold_cache_bytes: MIB, ..Default::default() })
}

async fn open_behind(context: &Rc<StorageContext>, arena: &Rc<Arena>, dir: &Path) -> Rc<Log> {
    let log = open_in(context.clone(), dir, small_segments()).await.log;
    log.write_behind(arena.clone(), KEY);
    log
}

/// Appends about `bytes` in batches of many sizes, and lets them be written.
async fn append(log: &Rc<Log>, random: &mut Random, bytes: usize, all: &mut Vec<u8>) {
    let end = all.len() + bytes;
    while all.len() < end {
        let size = [10, 3000, 20_000, 90_000][random.below(4) as usize];
        let batch = batch(2, size, 5, random.next());
        let appended = log.append(batch.clone(), 3, 0).unwrap();
        all.extend(stored(&batch, appended.base_offset));
    }
    let end = log.next_offset();
    acknowledged(log, end).await;
    log.write_everything();
    eventually("it is written", || log.ends().written == end).await;
}

/// A consumer that reads on from where it was.
struct Consumer {
    log: Rc<Log>,
    next: i64,
    read: Vec<u8>,
}

impl Consumer {
    async fn read(&mut self, bytes: usize) {
        let (end, upto) = (self.log.acknowledged(), self.read.len() + bytes);
        while self.read.len() < upto && self.next < end {
            let found = self.log.read(self.next, end, 200_000, true).await.unwrap();
            self.next = found.end_offset().unwrap();
            found.records.iter().for_each(|slice| self.read.extend(slice));
        }
    }
}

#[test]
fn a_consumer_that_lags_costs_no_reads_of_the_device() {
    scratched(|root| async move {
        for (cache, from_device) in [(32 * MIB, false), (0, true)] {
            let (context, arena) = (with_cache(cache), arena(&root, 4 * MIB, Duration::from_millis(2)));
            let log = open_behind(&context, &arena, &root.join(format!("t-{cache}"))).await;
            let mut random = Random(cache as u64 + 11);
            let (mut all, mut consumer) = (Vec::new(), Consumer { log: log.clone(), next: 0, read: Vec::new() });
            append(&log, &mut random, MIB, &mut all).await;
            consumer.read(MIB / 2).await;
            // Behind by twice the arena, with segments of 1 MiB, for a while; then it catches up.
            append(&log, &mut random, 8 * MIB, &mut all).await;
            for _ in 0..20 {
                append(&log, &mut random, MIB / 2, &mut all).await;
                consumer.read(MIB / 2).await;
                let kept = context.kept.bytes().0;
                assert!(if from_device { kept == 0 } else { (3 * MIB..9 * MIB).contains(&kept) }, "{kept}");
            }
            consumer.read(usize::MAX / 2).await;
            assert!(consumer.read == all);
            let (hits, misses) = context.cold.reads();
            assert_eq!((hits + misses > 0, misses > 0), (from_device, from_device), "{cache}: {hits}, {misses}");
            // It is at the tail now: nothing more is copied, and what was is gone.
            for _ in 0..10 {
                append(&log, &mut random, MIB / 2, &mut all).await;
                consumer.read(usize::MAX / 2).await;
            }
            assert_eq!((consumer.read == all, context.kept.bytes().0), (true, 0));
            log.close(Vec::new).await.unwrap();
        }
    });
}

#[test]
fn nothing_is_copied_where_nobody_lags_or_for_who_is_too_far_behind() {
    scratched(|root| async move {
        let (context, arena) = (with_cache(6 * MIB), arena(&root, 4 * MIB, Duration::from_millis(2)));
        let log = open_behind(&context, &arena, &root.join("t-0")).await;
        let (mut random, mut all) = (Random(5), Vec::new());
        append(&log, &mut random, 8 * MIB, &mut all).await;
        assert_eq!(context.kept.bytes().0, 0, "nobody reads");
        let mut consumer = Consumer { log: log.clone(), next: 0, read: Vec::new() };
        consumer.read(1).await;
        append(&log, &mut random, 8 * MIB, &mut all).await;
        assert_eq!(context.kept.bytes().0, 0, "a single look");
        consumer.read(MIB).await;
        append(&log, &mut random, 8 * MIB, &mut all).await;
        assert_eq!(context.kept.bytes().0, 0, "7 MiB behind already when the first batch may be copied");
        consumer.read(19 * MIB).await;
        append(&log, &mut random, 8 * MIB, &mut all).await;
        let held = context.kept.bytes().0;
        assert!((MIB..=6 * MIB).contains(&held), "{held}");
        // Less memory is taken back at once.
        let memory = |available| HostMemory { total: 8 << 30, available, is_short: false };
        context.fit_cache(&memory((1 << 30) - MIB as u64), 1);
        assert_eq!(context.kept.bytes().1, held - MIB);
        assert!(context.kept.bytes().0 <= held - MIB);
        context.fit_cache(&memory(4 << 30), 1);
        assert_eq!(context.kept.bytes().1, 6 * MIB);
        consumer.read(usize::MAX / 2).await;
        assert!(consumer.read == all);
        log.close(Vec::new).await.unwrap();
    });
}

#[test]
fn copies_are_forgotten_where_a_log_is_cut() {
    scratched(|root| async move {
        let (context, arena) = (with_cache(32 * MIB), arena(&root, 4 * MIB, Duration::from_millis(2)));
        let log = open_behind(&context, &arena, &root.join("t-0")).await;
        let (mut random, mut all) = (Random(9), Vec::new());
        append(&log, &mut random, MIB, &mut all).await;
        let mut consumer = Consumer { log: log.clone(), next: 0, read: Vec::new() };
        consumer.read(MIB / 2).await;
        append(&log, &mut random, 12 * MIB, &mut all).await;
        assert!(context.kept.bytes().0 > 4 * MIB);
        consumer.read(MIB).await;
        let (kept, end) = (consumer.read.len(), consumer.next);
        log.truncate_to(end, async |_| Ok(Vec::new())).await.unwrap();
        all.truncate(kept);
        append(&log, &mut random, 12 * MIB, &mut all).await;
        consumer.read(usize::MAX / 2).await;
        assert!(consumer.read == all, "the bytes that came in the place of what was cut");
        log.close(Vec::new).await.unwrap();
    });
}
