//! Cleaning from the outside: what a reader of the log sees, on a real executor and a real disk.

mod crash;
mod filtering;
mod whole;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::config::TopicConfig;
use crate::model::record_batch::{self, BatchHeader, Codec};
use crate::model::records::{self, BatchWriter};
use crate::runtime::{clock, disk};
use crate::storage::{Log, StorageContext, StorageLimits};

const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];
const LIMITS: CleanerLimits = CleanerLimits {
    dedupe_buffer_bytes: 1 << 20,
    load_factor: 0.9,
    io_buffer_bytes: 8192,
    max_bytes_per_second: f64::MAX,
};

/// A record as these tests compare it: offset, timestamp, key, value, headers.
type Record = (i64, i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<u8>);

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// Writer of a batch: id, epoch, first sequence.
type Producer = (i64, i16, i32);
const NOBODY: Producer = (-1, -1, -1);

/// A batch whose records have consecutive offsets from the first one's on.
fn batch(records: &[Record], codec: Codec, producer: Producer) -> Bytes {
    let (base, base_timestamp) = (records[0].0, records[0].1);
    let mut writer = BatchWriter::new(base, base_timestamp);
    for (offset, timestamp, key, value, headers) in records {
        writer.push(*offset, *timestamp, key.as_deref(), value.as_deref(), headers);
    }
    let mut header = *BatchHeader::peek(&records::build(&[], 0)).unwrap();
    header.attributes.set(codec as i16);
    header.last_offset_delta.set(records.len() as i32 - 1);
    header.base_timestamp.set(base_timestamp);
    header.max_timestamp.set(records.iter().map(|record| record.1).max().unwrap());
    header.producer_id.set(producer.0);
    header.producer_epoch.set(producer.1);
    header.base_sequence.set(producer.2);
    writer.finish(header).unwrap().into()
}

fn record(offset: i64, key: &str, value: Option<&str>) -> Record {
    (offset, 1_000 + offset, Some(key.into()), value.map(Into::into), vec![0])
}

/// The records of whole sound batches back to back, and the batches' headers.
fn parse(bytes: &[u8]) -> (Vec<Record>, Vec<BatchHeader>) {
    let (mut all, mut headers, mut rest) = (Vec::new(), Vec::new(), bytes);
    while !rest.is_empty() {
        let (header, total) = record_batch::frame(rest).expect("whole batches");
        record_batch::check(&rest[..total]).expect("sound batches");
        headers.push(*header);
        records::read(&rest[..total], &mut |r| {
            let owned = |field: Option<&[u8]>| field.map(<[u8]>::to_vec);
            all.push((r.meta.offset, r.meta.timestamp_ms, owned(r.key), owned(r.value), r.headers.to_vec()));
            ControlFlow::Continue(())
        })
        .expect("readable records");
        rest = &rest[total..];
    }
    (all, headers)
}

fn compacted() -> TopicConfig {
    TopicConfig {
        segment_bytes: 8 << 10,
        cleanup_compact: true,
        cleanup_delete: false,
        min_cleanable_dirty_ratio: 0.0,
        ..TopicConfig::default()
    }
}

async fn open(dir: &Path, config: TopicConfig) -> Rc<Log> {
    disk::prime_device(dir.parent().unwrap()).await.unwrap();
    let limits = StorageLimits { tail_cache_bytes: 64 << 10, cold_cache_bytes: 1 << 20, ..Default::default() };
    let context = StorageContext::new(limits);
    Log::open(context, dir, Arc::new(config), &mut |_| {}, &mut |_| {}).await.unwrap().log
}

async fn append(log: &Rc<Log>, batch: Bytes) {
    let appended = log.append(batch, 3, 0).unwrap();
    while log.acknowledged() < appended.next_offset {
        assert!(log.failure().is_none(), "{:?}", log.failure());
        clock::sleep(Duration::from_micros(200)).await;
    }
}

/// Everything from `from` on, in reads of `max_bytes`; offsets rise, and every read goes on
/// where the last one ended.
async fn read_from(log: &Rc<Log>, mut from: i64, max_bytes: usize) -> (Vec<Record>, Vec<BatchHeader>) {
    let (mut all, mut headers) = (Vec::new(), Vec::new());
    loop {
        let read = log.read(from, log.acknowledged(), max_bytes, true).await.unwrap();
        let bytes = read.records.concat();
        if bytes.is_empty() {
            assert!(!read.more, "nothing at {from}, yet more");
            assert!(from >= log.acknowledged(), "stuck at {from} of {}", log.acknowledged());
            return (all, headers);
        }
        let (records, batches) = parse(&bytes);
        for header in &batches {
            assert!(header.next_offset() > from, "a batch before {from}");
            from = header.next_offset();
        }
        all.extend(records.into_iter().filter(|r| all_before(&headers, r.0)));
        headers.extend(batches);
    }
}

fn all_before(headers: &[BatchHeader], offset: i64) -> bool {
    headers.last().is_none_or(|last| last.next_offset() <= offset)
}

/// The last value of each key; keys whose last record is a tombstone have none.
fn live(records: &[Record]) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut live = BTreeMap::new();
    for (_, _, key, value, _) in records {
        match (key, value) {
            (Some(key), Some(value)) => drop(live.insert(key.clone(), value.clone())),
            (Some(key), None) => drop(live.remove(key)),
            (None, _) => {}
        }
    }
    live
}

/// Cleans until nothing is dirty; the last round's outcome.
async fn clean_all(log: &Rc<Log>, now_ms: i64, limits: &CleanerLimits) -> CleanStats {
    let (mut last, cleaner) = (CleanStats::default(), Cleaner::new(limits.clone()));
    log.wait_sealed().await.unwrap();
    while let Some(found) = log.survey(now_ms, log.acknowledged()).await {
        log.checkpoint(Vec::new).await.unwrap();
        last = log.clean(found, LastOffsets::new(), &cleaner, now_ms, &|| false).await.unwrap();
        assert!(last.end > found.first_dirty, "no progress from {}", found.first_dirty);
    }
    last
}

/// Batches of random updates and tombstones of `keys` keys.
struct Writer {
    random: Random,
    keys: u64,
    next: i64,
    written: Vec<Record>,
}

impl Writer {
    fn new(seed: u64, keys: u64) -> Writer {
        Writer { random: Random(seed), keys, next: 0, written: Vec::new() }
    }

    fn batch(&mut self) -> Bytes {
        let count = 1 + self.random.below(12);
        let records: Vec<Record> = (0..count)
            .map(|_| {
                let key = format!("key-{}", self.random.below(self.keys));
                let tombstone = self.random.below(8) == 0;
                let value = format!("{}-{}", self.next, "v".repeat(self.random.below(200) as usize));
                self.next += 1;
                let headers = if self.next % 3 == 0 { b"\x02\x02h\x02x".to_vec() } else { vec![0] };
                (self.next - 1, 10_000 + self.next, Some(key.into()), (!tombstone).then(|| value.into()), headers)
            })
            .collect();
        let batch = batch(&records, CODECS[self.random.below(5) as usize], NOBODY);
        self.written.extend(records);
        batch
    }

    async fn write(&mut self, log: &Rc<Log>, batches: usize) {
        for _ in 0..batches {
            let batch = self.batch();
            append(log, batch).await;
        }
    }

    /// Checks that `seen` could be read from the log: records as they were written, in order, and
    /// with the last value of each key written up to `upto`.
    fn check(&self, seen: &[Record], upto: i64) {
        assert!(seen.windows(2).all(|pair| pair[0].0 < pair[1].0), "offsets rise");
        for record in seen {
            assert_eq!(*record, self.written[record.0 as usize]);
        }
        let until = |records: &[Record]| live(&records[..records.partition_point(|r| r.0 < upto)]);
        assert_eq!(until(seen), until(&self.written));
    }
}
