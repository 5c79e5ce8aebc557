//! Random histories of appends, cuts, resets, crashes and restarts, held to a log that never had
//! the rest: bytes, index answers, epochs, producers, reads. `CORELANE_CASES` sets their number.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_lite::future::poll_once;
use uuid::Uuid;

use crate::config::TopicConfig;
use crate::model::record_batch::{self, BatchHeader};
use crate::model::{EndMarker, KnownProducer, LeaderEpoch, Marker, MarkerKind, PartitionId, PartitionIndex, testing};
use crate::partition::{HighWatermarks, ProducerPool, Replica, Shared};
use crate::runtime::{clock, disk, eventually, on_shard, scratch};
use crate::storage::{ARENA_FOLDER, AbortedTxn, Arena, Home, Identity, StorageContext, StorageLimits, replay};

/// Above the epochs of all batches.
const LEADER_EPOCH: LeaderEpoch = LeaderEpoch(1_000_000);
const PRODUCERS: i64 = 4;
/// Producers from this id on write in transactions.
const TRANSACTIONAL: i64 = 2;
const NOW_MS: i64 = 5_000;
/// Cases of a default run.
const CASES: u64 = 60;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

/// A batch that the log must have.
#[derive(Clone)]
struct Kept {
    base: i64,
    next: i64,
    epoch: i32,
    /// Producer id, its epoch, first sequence; -1: it is a marker.
    producer: Option<(i64, i16, i32)>,
    bytes: Bytes,
}

impl Kept {
    /// The producer whose transaction it is part of, or ends in this way.
    fn transaction(&self) -> Option<(i64, Option<MarkerKind>)> {
        let (id, ..) = self.producer.filter(|(id, ..)| *id >= TRANSACTIONAL)?;
        Some((id, EndMarker::of(&self.bytes).map(|end| end.kind)))
    }
}

fn batch(base: i64, count: i32, payload: usize, epoch: i32, timestamp: i64, producer: Option<(i64, i16, i32)>) -> Kept {
    let mut random = Random((base as u64 + payload as u64) | 1);
    let records = testing::records(count, payload, || random.next() as u8);
    let mut header = testing::header(count, timestamp);
    header.base_offset.set(base);
    header.partition_leader_epoch.set(epoch);
    let (id, producer_epoch, sequence) = producer.unwrap_or((-1, -1, -1));
    header.producer_id.set(id);
    header.producer_epoch.set(producer_epoch);
    header.base_sequence.set(sequence);
    if id >= TRANSACTIONAL {
        header.attributes.set(0x10);
    }
    let bytes = testing::batch(header, &records);
    Kept { base, next: base + i64::from(count), epoch, producer, bytes }
}

fn marker(base: i64, epoch: i32, timestamp: i64, (id, producer_epoch): (i64, i16), kind: MarkerKind) -> Kept {
    let marker = Marker { producer_id: id, producer_epoch, kind, coordinator_epoch: epoch, transaction_version: 0 };
    let mut bytes = marker.batch(timestamp);
    bytes[..8].copy_from_slice(&base.to_be_bytes());
    bytes[12..16].copy_from_slice(&epoch.to_be_bytes());
    Kept { base, next: base + 1, epoch, producer: Some((id, producer_epoch, -1)), bytes: bytes.into() }
}

fn id() -> PartitionId {
    PartitionId { topic: Uuid::from_u128(77), index: PartitionIndex(0) }
}

fn identity() -> Identity {
    Identity { boot: Uuid::from_u128(1), cluster: "c".into(), directory: Uuid::from_u128(2) }
}

fn config(random: &mut Random) -> Arc<TopicConfig> {
    Arc::new(TopicConfig {
        segment_bytes: [6_000, 20_000, 1 << 20][random.below(3) as usize],
        index_interval_bytes: [1, 500, 4096][random.below(3) as usize],
        file_delete_delay_ms: 0,
        retention_ms: None,
        ..TopicConfig::default()
    })
}

/// A broker's run over one data directory.
struct Run {
    replica: Rc<Replica>,
    dir: PathBuf,
    _arena: Option<Rc<Arena>>,
}

async fn start(root: &Path, config: &Arc<TopicConfig>, held: bool) -> Run {
    disk::prime_device(root).await.unwrap();
    let dir = root.join("t-0");
    let home = dir.clone();
    let replayed = replay(&root.join(ARENA_FOLDER), &identity(), &|_| Home::Here(home.clone())).unwrap();
    assert!(replayed.failed.is_empty());
    let limits = StorageLimits { tail_cache_bytes: 16 << 10, cold_cache_bytes: 1 << 20, ..StorageLimits::default() };
    let storage = StorageContext::new(limits);
    let arena = held.then(|| {
        let delay = Duration::from_millis(2);
        Arena::create(&root.join(ARENA_FOLDER), 0, &identity(), 2 << 20).unwrap().open(delay, 1).unwrap()
    });
    if let Some(arena) = &arena {
        storage.add_arena(root, arena.clone());
    }
    let shared = Shared { storage, producers: ProducerPool::new(1 << 20), metrics: crate::runtime::metrics() };
    let opened = Replica::open(shared, &dir, id(), "t".into(), LEADER_EPOCH, config.clone(), NOW_MS).await.unwrap();
    Run { replica: opened.replica, dir, _arena: arena }
}

/// Every file below `root` with its length; it changes while a step is under way.
fn listing(root: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => found.extend(listing(&entry.path())),
            Ok(metadata) => found.push((entry.path(), metadata.len())),
            Err(_) => {}
        }
    }
    found.sort();
    found
}

/// Copies the data directory as a kill at this moment would leave it.
fn snapshot(root: &Path, to: &Path) {
    loop {
        let _ = fs::remove_dir_all(to);
        let before = listing(root);
        let copied = before.iter().try_for_each(|(path, _)| {
            let target = to.join(path.strip_prefix(root).unwrap());
            fs::create_dir_all(target.parent().unwrap())?;
            fs::copy(path, target).map(drop)
        });
        if copied.is_ok() && listing(root) == before {
            return;
        }
    }
}

/// The history of one case.
struct History {
    random: Random,
    config: Arc<TopicConfig>,
    held: bool,
    root: PathBuf,
    runs: u64,
    start: i64,
    kept: Vec<Kept>,
    run: Run,
    /// A kill has left a segment that was begun for records that are gone: the next ones are in it.
    rolled: bool,
}

impl History {
    fn end(&self) -> i64 {
        self.kept.last().map_or(self.start, |last| last.next)
    }

    fn place(&self, run: u64) -> PathBuf {
        let root = self.root.join(format!("run-{run}"));
        fs::create_dir_all(&root).unwrap();
        root
    }

    fn next_batch(&mut self) -> Kept {
        let gap = match self.random.below(60) {
            0 => 3_000_000_000,
            1..8 => 1 + self.random.below(30) as i64,
            _ => 0,
        };
        let (records, payload) = (1 + self.random.below(5) as i32, 1 + self.random.below(3_000) as usize);
        let epoch = self.kept.last().map_or(0, |last| last.epoch) + i32::from(self.random.one_in(6));
        let timestamp = 10_000 + self.random.below(3_000) as i64;
        let base = self.end() + gap;
        let producer = (!self.random.one_in(4)).then(|| {
            let id = self.random.below(PRODUCERS as u64) as i64;
            self.next_of(id)
        });
        if let Some((id, producer_epoch, _)) = producer.filter(|(id, ..)| *id >= TRANSACTIONAL)
            && self.random.one_in(3)
        {
            let kind = if self.random.one_in(3) { MarkerKind::Commit } else { MarkerKind::Abort };
            return marker(base, epoch, timestamp, (id, producer_epoch), kind);
        }
        batch(base, records, payload, epoch, timestamp, producer)
    }

    /// Id, epoch and sequence of the producer's next batch: of a new epoch at times.
    fn next_of(&mut self, id: i64) -> (i64, i16, i32) {
        let of = |kept: &&Kept| kept.producer.is_some_and(|producer| producer.0 == id);
        let Some((_, epoch, _)) = self.kept.iter().rfind(of).and_then(|last| last.producer) else { return (id, 0, 0) };
        if self.random.one_in(8) {
            return (id, epoch + 1, 0);
        }
        let in_epoch = |kept: &&Kept| {
            kept.producer.is_some_and(|(of, of_epoch, sequence)| (of, of_epoch) == (id, epoch) && sequence >= 0)
        };
        let last = self.kept.iter().rfind(in_epoch);
        let sequence = last.and_then(|last| Some(last.producer?.2 + (last.next - last.base) as i32));
        (id, epoch, sequence.unwrap_or(0))
    }

    /// The aborted transactions of a log of these batches by the offsets of their markers,
    /// and its last stable offset.
    fn decided(&self, high_watermark: i64) -> (Vec<AbortedTxn>, i64) {
        let (mut open, mut aborted, mut stable) = (BTreeMap::new(), Vec::new(), high_watermark);
        for kept in &self.kept {
            let Some((producer_id, end)) = kept.transaction() else { continue };
            let Some(kind) = end else {
                open.entry(producer_id).or_insert(kept.base);
                continue;
            };
            let Some(first_offset) = open.remove(&producer_id) else { continue };
            if kept.base >= high_watermark {
                stable = stable.min(first_offset);
            }
            if kind == MarkerKind::Abort {
                let last_stable_offset = open.values().copied().min().unwrap_or(kept.next);
                aborted.push(AbortedTxn { producer_id, first_offset, last_offset: kept.base, last_stable_offset });
            }
        }
        (aborted, open.values().copied().fold(stable, i64::min))
    }

    async fn check_transactions(&mut self) {
        let replica = self.run.replica.clone();
        let (aborted, stable) = self.decided(replica.high_watermark());
        assert_eq!(replica.last_stable_offset(), stable, "below {}", replica.high_watermark());
        let (from, upto) = (self.somewhere(), self.somewhere());
        for (from, upto) in [(self.start, self.end()), (from, upto)] {
            let concerns = |txn: &&AbortedTxn| txn.last_offset >= from && txn.first_offset < upto;
            let wanted: Vec<AbortedTxn> = aborted.iter().filter(concerns).copied().collect();
            assert_eq!(replica.log().aborted_within(from, upto).await.unwrap(), wanted, "in [{from}, {upto})");
        }
    }

    /// Told where a case fails.
    fn told(&self, what: &str) {
        let kept: Vec<_> = self.kept.iter().map(|kept| (kept.base, kept.next, kept.epoch)).collect();
        println!("{what}: {} {kept:?}", self.start);
    }

    async fn append(&mut self) {
        let count = 1 + self.random.below(4) as usize;
        let before = self.kept.len();
        for _ in 0..count {
            let next = self.next_batch();
            self.kept.push(next);
        }
        let records: Vec<u8> = self.kept[before..].iter().flat_map(|kept| kept.bytes.to_vec()).collect();
        let end = self.run.replica.append_as_is(records.into(), NOW_MS).await.unwrap();
        assert_eq!(end, self.end());
        self.told("appended");
    }

    /// An offset at, within or between batches.
    fn somewhere(&mut self) -> i64 {
        match self.kept.len() {
            0 => self.start,
            count => {
                let kept = &self.kept[self.random.below(count as u64) as usize];
                kept.base + self.random.below((kept.next - kept.base + 1) as u64) as i64
            }
        }
    }

    fn forget_after(&mut self, end: i64) {
        self.kept.retain(|kept| kept.next <= end);
    }

    async fn cut(&mut self) {
        let end = self.somewhere();
        let now = self.run.replica.truncate_to(end, NOW_MS).await.unwrap();
        self.forget_after(end);
        self.told(&format!("cut at {end}"));
        assert_eq!(now, self.end());
        assert!(self.run.replica.high_watermark() <= now);
    }

    async fn reset(&mut self) {
        let begin = self.end().saturating_sub(50).max(0) + self.random.below(200) as i64;
        self.run.replica.truncate_fully_and_start_at(begin).await.unwrap();
        self.kept.clear();
        self.start = begin;
        self.told("emptied");
    }

    /// Closes the log and opens it again.
    async fn restart(&mut self) {
        self.run.replica.close().await.unwrap();
        self.told("restarted");
        self.run = start(&self.place(self.runs), &self.config, self.held).await;
        assert_eq!(self.run.replica.log().ends().appended, self.end());
    }

    /// Goes on with what a kill would leave now; at least everything before `safe`
    /// and at most what there was.
    async fn crash(&mut self, safe: i64, may_be_emptied: Option<i64>) {
        let (from, to) = (self.place(self.runs), self.place(self.runs + 1));
        snapshot(&from, &to);
        self.run.replica.abandon();
        self.runs += 1;
        self.run = start(&to, &self.config, self.held).await;
        let files = segments(&self.run.dir, "log");
        self.rolled |= files.len() > 1 && files.last().is_some_and(|(_, bytes)| bytes.is_empty());
        let (begin, end) = (self.run.replica.start_offset(), self.run.replica.log().ends().appended);
        self.told(&format!("killed, it has [{begin}, {end}) and must have {safe} of"));
        if may_be_emptied == Some(begin) && end == begin {
            self.kept.clear();
            self.start = begin;
            return;
        }
        assert_eq!(begin, self.start);
        assert!(end >= safe.min(self.end()), "the log ends at {end}, everything before {safe} was acknowledged");
        self.forget_after(end);
        assert_eq!(end, self.end(), "a log ends with a batch");
    }

    fn safe(&self) -> i64 {
        self.run.replica.log().ends().held
    }

    /// A kill in the middle of a cut, or of a reset.
    async fn crash_amid(&mut self) {
        let replica = self.run.replica.clone();
        let steps = self.random.below(40);
        let pause = Duration::from_micros(self.random.below(300));
        let reset = self.random.one_in(4);
        let target = if reset { self.end() + self.random.below(20) as i64 } else { self.somewhere() };
        println!("killed while it is {} at {target}", if reset { "emptied" } else { "cut" });
        let mut truncation = Box::pin(async move {
            match reset {
                true => replica.truncate_fully_and_start_at(target).await.unwrap(),
                false => drop(replica.truncate_to(target, NOW_MS).await.unwrap()),
            }
        });
        for _ in 0..steps {
            if poll_once(&mut truncation).await.is_some() {
                break;
            }
            clock::sleep(pause).await;
        }
        match reset {
            // Emptied up to some batch, or begun anew.
            true => self.crash(self.start, Some(target)).await,
            false => {
                let least = self.kept.iter().rfind(|kept| kept.next <= target).map_or(self.start, |kept| kept.next);
                let safe = self.safe().min(least);
                self.crash(safe, None).await;
            }
        }
    }

    async fn step(&mut self) {
        match self.random.below(20) {
            0..10 => self.append().await,
            10..13 => self.cut().await,
            13 => self.restart().await,
            14 => {
                let safe = self.safe();
                self.crash(safe, None).await;
            }
            15 => self.crash_amid().await,
            16 => {
                self.run.replica.checkpoint().await.unwrap();
                println!("checkpoint");
            }
            17 if self.random.one_in(3) => self.reset().await,
            _ => self.check_reads().await,
        }
    }

    /// Reads up to some end of the log, what is not written yet too.
    async fn check_reads(&mut self) {
        let log = self.run.replica.log().clone();
        let limit = match self.random.below(3) {
            0 => log.ends().sent,
            1 => log.ends().held,
            _ => self.somewhere().min(log.ends().sent),
        };
        let wanted: Vec<u8> =
            self.kept.iter().filter(|kept| kept.next <= limit).flat_map(|kept| kept.bytes.to_vec()).collect();
        assert!(read_all(&self.run.replica, self.start, limit).await == wanted, "a read up to {limit}");
        self.check_transactions().await;
    }

    /// Holds the log to one that never had anything else.
    async fn compare(mut self) {
        let (replica, dir) = (self.run.replica.clone(), self.run.dir.clone());
        let twin = start(&self.place(999), &self.config, false).await;
        if self.start > 0 {
            twin.replica.truncate_fully_and_start_at(self.start).await.unwrap();
        }
        for kept in &self.kept {
            twin.replica.append_as_is(kept.bytes.clone(), NOW_MS).await.unwrap();
        }
        let end = self.end();
        for replica in [&replica, &twin.replica] {
            eventually("everything is held", || replica.log().ends().held == end).await;
            assert_eq!((replica.start_offset(), replica.log().ends().appended), (self.start, end));
        }
        let whole: Vec<u8> = self.kept.iter().flat_map(|kept| kept.bytes.to_vec()).collect();
        assert!(read_all(&replica, self.start, end).await == whole);
        self.same_answers(&twin).await;
        self.same_state(&twin);
        self.check_transactions().await;
        replica.close().await.unwrap();
        twin.replica.close().await.unwrap();
        for extension in ["log", "index", "timeindex", "txnindex"] {
            if !self.rolled {
                assert_eq!(summary(&dir, extension), summary(&twin.dir, extension), "{extension} files");
            }
        }
        // Once more as a start finds it.
        self.run = start(&self.place(self.runs), &self.config, self.held).await;
        let twin = start(&self.place(999), &self.config, false).await;
        self.same_answers(&twin).await;
        self.same_state(&twin);
        self.check_transactions().await;
    }

    async fn same_answers(&mut self, twin: &Run) {
        let (ours, theirs) = (self.run.replica.clone(), &twin.replica);
        let end = self.end();
        assert_eq!(ours.log().find_max_time(end).await.unwrap(), theirs.log().find_max_time(end).await.unwrap());
        for _ in 0..5 {
            let timestamp = 9_900 + self.random.below(3_200) as i64;
            let found = ours.log().find_by_time(timestamp, end).await.unwrap();
            assert_eq!(found, theirs.log().find_by_time(timestamp, end).await.unwrap(), "{timestamp}");
            let offset = self.somewhere();
            let (a, b) = (ours.log().read(offset, end, 1, true).await, theirs.log().read(offset, end, 1, true).await);
            assert_eq!(a.unwrap().records.concat(), b.unwrap().records.concat(), "a read at {offset}");
        }
    }

    fn same_state(&self, twin: &Run) {
        let (ours, theirs) = (&self.run.replica, &twin.replica);
        let epochs = |replica: &Replica| {
            let mut epochs = replica.known_epochs();
            // An epoch that has written nothing begins wherever the log was opened.
            epochs.truncate(self.end());
            epochs
        };
        assert_eq!(epochs(ours), epochs(theirs));
        let known = |replica: &Replica| {
            let mut known = Vec::new();
            replica.each_producer(|producer| known.push(KnownProducer { last_ms: 0, ..producer }));
            known.sort_unstable_by_key(|producer| producer.id);
            known
        };
        assert_eq!(known(ours), known(theirs));
        for kept in &self.kept {
            assert_eq!(ours.epoch_of(kept.base), kept.epoch, "the epoch of offset {}", kept.base);
        }
        for producer in (0..PRODUCERS).flat_map(|id| (0..4).map(move |epoch| (id, epoch))) {
            for (sequence, records) in (0..60).flat_map(|sequence| (1..6).map(move |records| (sequence, records))) {
                let (id, epoch) = producer;
                let asked = batch(0, records, 0, 0, 0, Some((id, epoch, sequence)));
                let header = BatchHeader::peek(&asked.bytes).unwrap();
                let (a, b) = (ours.check_sequence(header), theirs.check_sequence(header));
                assert_eq!(a, b, "producer {id}, epoch {epoch}, sequence {sequence}, {records} records");
            }
        }
    }
}

/// Name and contents of the segments' files, in their order.
fn segments(dir: &Path, extension: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let files = listing(dir).into_iter().map(|(path, _)| path);
    let files = files.filter(|path| path.extension().is_some_and(|found| found == extension));
    files.map(|path| (path.clone(), fs::read(&path).unwrap())).collect()
}

/// Name, length and CRC of the segments' files, but for those without a record,
/// which a kill may leave.
fn summary(dir: &Path, extension: &str) -> Vec<(String, usize, u32)> {
    let mut files = segments(dir, extension);
    files.retain(|(path, _)| fs::metadata(path.with_extension("log")).unwrap().len() > 0);
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    files.iter().map(|(path, bytes)| (name(path), bytes.len(), crc32c::crc32c(bytes))).collect()
}

async fn read_all(replica: &Rc<Replica>, from: i64, limit: i64) -> Vec<u8> {
    let (mut all, mut offset) = (Vec::new(), from);
    loop {
        let bytes = replica.log().read(offset, limit, 5_000, true).await.unwrap().records.concat();
        if bytes.is_empty() {
            return all;
        }
        let mut rest = &bytes[..];
        while let Ok((header, total)) = record_batch::frame(rest) {
            offset = header.next_offset();
            rest = &rest[total..];
        }
        all.extend_from_slice(&bytes);
    }
}

async fn run_case(seed: u64, root: PathBuf) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let (config, held) = (config(&mut random), random.one_in(2));
    let first = root.join("run-0");
    fs::create_dir_all(&first).unwrap();
    let run = start(&first, &config, held).await;
    let steps = 5 + random.below(30);
    let mut history = History { random, config, held, root, runs: 0, start: 0, kept: Vec::new(), run, rolled: false };
    for _ in 0..steps {
        history.step().await;
    }
    history.compare().await;
}

#[test]
fn a_truncated_log_is_one_that_never_had_the_rest() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let first = number("CORELANE_SEED").unwrap_or(1);
    let cases = number("CORELANE_CASES").unwrap_or(CASES);
    for seed in first..first + cases {
        let root = scratch();
        let base = root.path().to_path_buf();
        println!("seed {seed}");
        on_shard(move || run_case(seed, base.clone()));
    }
}

/// Writes a log of batches as they are, with gaps, cuts and rolls, into the directory that
/// `CORELANE_AS_IS_LOG` names, and what Kafka's tools must say of it: a line
/// `base last epoch` a batch.
#[test]
#[ignore = "for tests/integration, which has kafka-dump-log read it"]
fn a_log_for_kafkas_tools() {
    let root = PathBuf::from(std::env::var("CORELANE_AS_IS_LOG").unwrap());
    on_shard(move || {
        let root = root.clone();
        async move {
            let mut random = Random(7);
            let config =
                Arc::new(TopicConfig { segment_bytes: 20_000, index_interval_bytes: 500, ..Default::default() });
            fs::create_dir_all(root.join("run-0")).unwrap();
            let run = start(&root.join("run-0"), &config, true).await;
            let steps = 60 + random.below(10);
            let mut history =
                History { random, config, held: true, root, runs: 0, start: 0, kept: Vec::new(), run, rolled: false };
            for step in 0..steps {
                history.append().await;
                if step % 20 == 10 {
                    history.cut().await;
                }
            }
            assert!(history.kept.windows(2).any(|pair| pair[0].next < pair[1].base), "it has gaps");
            history.run.replica.close().await.unwrap();
            let line = |kept: &Kept| format!("{} {} {}\n", kept.base, kept.next - 1, kept.epoch);
            let expected: String = history.kept.iter().map(line).collect();
            fs::write(history.root.join("expected"), expected).unwrap();
        }
    });
}

#[test]
fn high_watermarks_are_stored_and_damage_counts_as_none() {
    on_shard(|| async {
        let root = scratch();
        assert_eq!(HighWatermarks::load(root.path()).await.unwrap(), HighWatermarks::default());
        let mut marks = HighWatermarks::default();
        marks.set("t", 3, 120);
        marks.store(root.path()).await.unwrap();
        assert_eq!(HighWatermarks::load(root.path()).await.unwrap(), marks);
        fs::write(root.path().join(HighWatermarks::FILE), "0\n1\n").unwrap();
        assert_eq!(HighWatermarks::load(root.path()).await.unwrap(), HighWatermarks::default());
    });
}
