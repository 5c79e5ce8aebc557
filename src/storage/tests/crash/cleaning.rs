//! Cleaning with a fault at every file operation. Of every key the newest record stays, nothing
//! that a newer one has taken the place of comes back, and what was not cleaned is as it was.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use super::aborts;
use super::history::{DIR, Failed, NOW_MS, context};
use crate::config::TopicConfig;
use crate::model::record_batch::{self, BatchHeader};
use crate::model::records::{self, BatchWriter};
use crate::runtime::sim::Fault;
use crate::storage::{CleanError, Cleaner, CleanerLimits, LastOffsets, Log, ReadError};

const KEYS: u64 = 7;
/// Stands for the keys of aborted records, and of markers.
const ABORTED: u64 = u64::MAX - 1;
const MARKER: u64 = u64::MAX;

pub type Shared = Rc<RefCell<Book>>;

/// A record: key, and value or none.
type Written = (u64, Option<Vec<u8>>);

/// One thing that a log may be: records by offset, the first of each batch
/// marked by the batches' ends.
#[derive(Clone, Default)]
struct State {
    records: Vec<Written>,
    ends: Vec<i64>,
}

impl State {
    fn end(&self) -> i64 {
        self.records.len() as i64
    }

    fn cut(&mut self, to: i64) {
        self.ends.retain(|end| *end <= to);
        self.records.truncate(self.ends.last().copied().unwrap_or(0) as usize);
    }

    /// The newest value of each key before `upto`; none where that is a tombstone.
    fn newest(&self, upto: i64) -> BTreeMap<u64, &[u8]> {
        newest(self.records.iter().take(upto.max(0) as usize).map(|(key, value)| (*key, value.as_deref())))
    }
}

fn newest<'a>(records: impl Iterator<Item = (u64, Option<&'a [u8]>)>) -> BTreeMap<u64, &'a [u8]> {
    let mut newest = BTreeMap::new();
    for (key, value) in records.filter(|(key, _)| *key < ABORTED) {
        match value {
            Some(value) => newest.insert(key, value),
            None => newest.remove(&key),
        };
    }
    newest
}

/// The records that were appended, and how safe they are.
pub struct Book {
    /// States that the log may be in after a crash now; the last one if nothing goes wrong.
    states: Vec<State>,
    written: i64,
    synced: i64,
    /// Nothing from here on is promised: it is being cut away.
    cap: i64,
    /// The step under way.
    pub step: &'static str,
    /// Segments that cleaning has put into the place of others.
    pub cleaned: u64,
}

impl Book {
    pub fn new() -> Book {
        Book { states: vec![State::default()], written: 0, synced: 0, cap: i64::MAX, step: "", cleaned: 0 }
    }

    fn now(&mut self) -> &mut State {
        self.states.last_mut().expect("never empty")
    }

    /// A batch of one record.
    fn put(&mut self, base: i64, record: Written) {
        self.now().records.push(record);
        self.now().ends.push(base + 1);
    }
}

fn config() -> TopicConfig {
    TopicConfig {
        segment_bytes: 6_000,
        index_interval_bytes: 1_000,
        retention_ms: None,
        file_delete_delay_ms: 0,
        cleanup_compact: true,
        cleanup_delete: false,
        min_cleanable_dirty_ratio: 0.0,
        // Tombstones go with the second cleaning.
        delete_retention_ms: 0,
        ..TopicConfig::default()
    }
}

/// Opens the log; whether damage was met. The error is a text.
pub async fn open() -> Result<(Rc<Log>, bool), String> {
    let opened = Log::open(context(), Path::new(DIR), Arc::new(config()), &mut |_| {}, &mut aborts::recover).await;
    let recovered = opened.map_err(|error| format!("the log cannot be opened: {error}"))?;
    Ok((recovered.log, recovered.damaged))
}

struct Driver {
    log: Rc<Log>,
    book: Shared,
    random: super::super::Random,
    cleaner: Cleaner,
    now_ms: i64,
}

impl Driver {
    async fn open(book: Shared) -> Result<Driver, Failed> {
        book.borrow_mut().step = "open";
        let (log, _) = open().await.map_err(|_| Failed(None))?;
        let (noted, weak) = (book.clone(), Rc::downgrade(&log));
        log.on_move(Box::new(move || {
            if let Some(log) = weak.upgrade() {
                let (ends, mut book) = (log.ends(), noted.borrow_mut());
                book.written = book.written.max(ends.written);
                book.synced = book.synced.max(ends.synced);
            }
        }));
        let random = super::super::Random(log.next_offset() as u64 * 2 + 77);
        let cleaner = Cleaner::new(CleanerLimits {
            dedupe_buffer_bytes: 1 << 16,
            load_factor: 0.9,
            io_buffer_bytes: 4096,
            max_bytes_per_second: f64::MAX,
        });
        Ok(Driver { log, book, random, cleaner, now_ms: NOW_MS })
    }

    fn failed(&self) -> Failed {
        Failed(Some(self.log.clone()))
    }

    fn begin(&self, step: &'static str) {
        self.book.borrow_mut().step = step;
    }

    fn batch(&mut self) -> (Bytes, Vec<Written>) {
        let base = self.log.next_offset();
        let count = 1 + self.random.below(4);
        let mut writer = BatchWriter::new(base, NOW_MS);
        let mut written = Vec::new();
        for offset in base..base + count as i64 {
            let key = self.random.below(KEYS);
            let size = 1 + self.random.below(600) as usize;
            let value = (self.random.below(6) > 0).then(|| format!("{offset:*>size$}").into_bytes());
            writer.push(offset, NOW_MS + offset, Some(&key.to_be_bytes()), value.as_deref(), &[0]);
            written.push((key, value));
        }
        let mut header = *BatchHeader::peek(&records::build(&[], 0)).expect("a whole header");
        header.last_offset_delta.set(count as i32 - 1);
        header.base_timestamp.set(NOW_MS);
        header.max_timestamp.set(NOW_MS + base + count as i64 - 1);
        (writer.finish(header).expect("no codec, no error").into(), written)
    }

    fn append(&mut self, batches: usize) -> Result<(), Failed> {
        for _ in 0..batches {
            let (batch, written) = self.batch();
            let appended = self.log.append(batch, 3, NOW_MS).map_err(|_| self.failed())?;
            let mut book = self.book.borrow_mut();
            book.now().records.extend(written);
            book.now().ends.push(appended.next_offset);
            drop(book);
            if appended.base_offset % 3 == 0 {
                self.abort()?;
            }
        }
        Ok(())
    }

    /// A transaction of one record, which is aborted.
    fn abort(&mut self) -> Result<(), Failed> {
        let value = aborts::value_at(self.log.next_offset());
        let appended = self.log.append(aborts::record(&ABORTED.to_be_bytes(), &value), 3, NOW_MS);
        let base = appended.map_err(|_| self.failed())?.base_offset;
        self.book.borrow_mut().put(base, (ABORTED, Some(value)));
        let (batch, base) = aborts::append(&self.log, 1, NOW_MS, 3).ok_or_else(|| self.failed())?;
        self.book.borrow_mut().put(base, (MARKER, Some(aborts::value(&batch))));
        Ok(())
    }

    async fn written(&self) -> Result<(), Failed> {
        self.log.wait_written(self.log.next_offset()).await.map_err(|_| self.failed())
    }

    /// A step that may be refused; the history ends where the log has failed.
    fn settle<T, E>(&self, outcome: Result<T, E>) -> Result<Option<T>, Failed> {
        match outcome {
            Ok(value) => Ok(Some(value)),
            Err(_) if self.log.failure().is_some() => Err(self.failed()),
            Err(_) => Ok(None),
        }
    }

    /// Cleans all that is dirty; a cleaning that fails is tried again at the next one.
    async fn clean(&mut self) -> Result<(), Failed> {
        self.begin("checkpoint");
        self.settle(self.log.checkpoint(Vec::new).await)?;
        self.begin("clean");
        // Beyond the rest after a failure.
        self.now_ms += 3_600_000;
        let found = self.log.survey(self.now_ms, self.log.ends().written).await;
        let Some(found) = found else { return self.log.failure().map_or(Ok(()), |_| Err(self.failed())) };
        let segments = || self.log.segments.borrow().values().filter(|segment| segment.is_cleaned()).count() as u64;
        let cleaned = self.log.clean(found, LastOffsets::new(), &self.cleaner, self.now_ms, &|| false).await;
        self.book.borrow_mut().cleaned += segments();
        match cleaned {
            Err(CleanError::Ended) => Ok(()),
            outcome => self.settle(outcome).map(drop),
        }
    }

    async fn cut(&self, to: i64) -> Result<(), Failed> {
        self.begin("cut");
        let before = self.book.borrow_mut().now().clone();
        let mut after = before.clone();
        after.cut(to);
        {
            let mut book = self.book.borrow_mut();
            book.states.insert(0, after.clone());
            book.cap = after.end();
        }
        let outcome = self.log.truncate_to(to, async |_| Ok::<_, ReadError>(Vec::new())).await;
        let done = self.settle(outcome)?.is_some();
        let mut book = self.book.borrow_mut();
        if done {
            (book.written, book.synced) = (after.end(), after.end());
        }
        book.states = vec![if done { after } else { before }];
        book.cap = i64::MAX;
        Ok(())
    }
}

/// The whole history. It ends early where the log fails.
pub async fn run(book: Shared) -> Result<(), Failed> {
    let mut driver = Driver::open(book.clone()).await?;
    for batches in [20, 14] {
        driver.begin("append");
        driver.append(batches)?;
        driver.written().await?;
        driver.clean().await?;
    }
    // Cleaned records are committed, and never cut.
    let end = driver.log.next_offset();
    driver.append(4)?;
    driver.cut(end + (driver.log.next_offset() - end) / 2).await?;
    driver.begin("append after a cut");
    driver.append(16)?;
    driver.written().await?;
    driver.clean().await?;
    driver.begin("append and close");
    driver.append(2)?;
    let closed = driver.log.close(Vec::new).await;
    driver.settle(closed)?;
    let mut driver = Driver::open(book).await?;
    driver.now_ms += 100 * 3_600_000;
    driver.begin("append");
    driver.append(15)?;
    driver.written().await?;
    driver.clean().await?;
    driver.clean().await?;
    driver.append(3)
}

/// The log as its readers see it.
struct Seen {
    end: i64,
    records: Vec<(i64, Written)>,
}

impl Seen {
    fn has(&self, key: u64, at: i64) -> bool {
        self.records.iter().any(|(offset, (found, _))| (*offset, *found) == (at, key))
    }

    /// Readers are told of every aborted record that is there, and of no
    /// transaction whose marker is not.
    async fn judge_aborted(&self, log: &Rc<Log>) -> Result<(), String> {
        let found = log.aborted_within(log.start_offset(), self.end).await;
        let found = found.map_err(|error| format!("aborted transactions: {error}"))?;
        if let Some(txn) = found.iter().find(|txn| !self.has(MARKER, txn.last_offset)) {
            return Err(format!("{txn:?} has no marker"));
        }
        let known = |offset: i64| found.iter().any(|txn| txn.first_offset == offset);
        let aborted = self.records.iter().filter(|(offset, (key, _))| *key == ABORTED && self.has(MARKER, offset + 1));
        match aborted.map(|(offset, _)| *offset).find(|offset| !known(*offset)) {
            Some(offset) => Err(format!("the record at {offset} was aborted, and nobody is told")),
            None => Ok(()),
        }
    }
}

/// `damaged`: the end of the log may have been set aside, and its offsets are not given again.
async fn look(log: &Rc<Log>, damaged: bool) -> Result<Seen, String> {
    let (end, mut from, mut seen) = (log.next_offset(), log.start_offset(), Vec::new());
    while from < end {
        let read = log.read(from, end, 3_000, true).await.map_err(|error| format!("read at {from}: {error}"))?;
        let bytes = read.records.concat();
        let mut rest = &bytes[..];
        match (rest.is_empty(), damaged) {
            (true, true) => break,
            (true, false) => return Err(format!("nothing at {from} of {end}")),
            (false, _) => {}
        }
        while !rest.is_empty() {
            let (header, total) = record_batch::frame(rest).map_err(|error| format!("no whole batch: {error}"))?;
            record_batch::check(&rest[..total]).map_err(|error| format!("batch {}: {error}", header.base()))?;
            if header.next_offset() <= from {
                return Err(format!("a read at {from} gives batch {}", header.base()));
            }
            let walked = records::read(&rest[..total], &mut |record| {
                let key = record.key.and_then(|key| key.try_into().ok()).map_or(MARKER, u64::from_be_bytes);
                seen.push((record.meta.offset, (key, record.value.map(<[u8]>::to_vec))));
                ControlFlow::Continue(())
            });
            walked.map_err(|error| format!("batch {}: {error}", header.base()))?;
            from = header.next_offset();
            rest = &rest[total..];
        }
    }
    Ok(Seen { end, records: seen })
}

impl State {
    fn judge(&self, seen: &Seen, promised: i64, damaged: bool) -> Result<(), String> {
        if seen.end < promised {
            return Err(format!("it ends at {}, {promised} was promised", seen.end));
        }
        if seen.end != 0 && !self.ends.contains(&seen.end) {
            return Err(format!("it ends at {}, where no batch does", seen.end));
        }
        if seen.records.windows(2).any(|pair| pair[0].0 >= pair[1].0) {
            return Err("its offsets do not rise".to_owned());
        }
        if let Some((offset, _)) =
            seen.records.iter().find(|(offset, record)| self.records.get(*offset as usize) != Some(record))
        {
            return Err(format!("the record at {offset} is another one"));
        }
        // Behind what is promised records may be missing, which is told.
        let upto = if damaged { promised } else { seen.end };
        let records = seen.records.iter().filter(|(offset, _)| *offset < upto);
        let found = newest(records.map(|(_, (key, value))| (*key, value.as_deref())));
        let expected = self.newest(upto);
        if found != expected {
            let bad = (0..KEYS).filter(|key| found.get(key) != expected.get(key)).collect::<Vec<_>>();
            return Err(format!("up to {upto}, keys {bad:?} have other values, or none"));
        }
        Ok(())
    }
}

fn judge_seen(book: &Book, seen: &Seen, fault: Fault, damaged: bool) -> Result<State, String> {
    let promised = if fault == Fault::Kill { book.written } else { book.synced }.min(book.cap);
    let mut complaints = Vec::new();
    for state in &book.states {
        match state.judge(seen, promised, damaged && fault == Fault::PowerCut) {
            Ok(()) => return Ok(state.clone()),
            Err(complaint) => complaints.push(complaint),
        }
    }
    Err(complaints.join("; or "))
}

/// Opens what is left, judges it, and goes on with it: appends, cleans, and opens it once
/// more. Whether damage was met.
pub async fn judge(book: Shared, fault: Fault) -> Result<bool, String> {
    let (log, damaged) = open().await?;
    let seen = look(&log, damaged).await?;
    let mut found = judge_seen(&book.borrow(), &seen, fault, damaged)?;
    seen.judge_aborted(&log).await?;
    if damaged && fault == Fault::Kill {
        return Err("damage after a kill".to_owned());
    }
    log.close(Vec::new).await.map_err(|error| format!("closing it: {error}"))?;
    found.cut(seen.end);
    if damaged {
        // A record that is missing is missing for good.
        let there: BTreeMap<i64, &Written> = seen.records.iter().map(|(offset, record)| (*offset, record)).collect();
        let promised = book.borrow().synced.min(book.borrow().cap);
        for offset in promised..found.end() {
            if !there.contains_key(&offset) {
                found.records[offset as usize] = (u64::MAX, None);
            }
        }
    }
    {
        let mut book = book.borrow_mut();
        (book.written, book.synced, book.cap, book.states) = (seen.end, seen.end, i64::MAX, vec![found]);
    }
    let go_on = async {
        let mut driver = Driver::open(book.clone()).await?;
        driver.now_ms += 200 * 3_600_000;
        driver.begin("go on");
        driver.append(12)?;
        driver.written().await?;
        driver.clean().await?;
        driver.log.close(Vec::new).await.map_err(|_| driver.failed())
    };
    if go_on.await.is_err() {
        return Err("it cannot be gone on with".to_owned());
    }
    let (log, again) = open().await?;
    let seen = look(&log, again).await?;
    seen.judge_aborted(&log).await?;
    judge_seen(&book.borrow(), &seen, Fault::Kill, again).map_err(|error| format!("after it went on: {error}"))?;
    if seen.end != book.borrow_mut().now().end() {
        return Err("after it went on it has another end".to_owned());
    }
    if again { Err("damage after a clean stop".to_owned()) } else { Ok(damaged) }
}
