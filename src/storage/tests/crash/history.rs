//! The history that is run again and again: everything that writes to a log's
//! directory, once at least.

pub mod moving;

use std::cell::RefCell;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_lite::future::zip;
use uuid::Uuid;

use super::aborts;
use super::ledger::{Ledger, State, stored};
use crate::config::TopicConfig;
use crate::config::Untaken;
use crate::model::testing;
use crate::runtime::clock;
use crate::storage::arena::{Arena, FOLDER, Home, Identity, PartitionKey, replay};
use crate::storage::{Log, LogRead, ReadError, StorageContext, StorageLimits};

pub const DIR: &str = "/data/t-0";
const ROOT: &str = "/data";
/// Another data directory.
pub const OTHER_ROOT: &str = "/other";
const EPOCH: i32 = 3;
const KEY: PartitionKey = PartitionKey { topic: Uuid::from_u128(77), partition: 0 };
/// The smallest arena there is, about.
const ARENA_BYTES: usize = (1 << 20) + (64 << 10);
const WRITE_BEHIND: Duration = Duration::from_millis(20);
pub const NOW_MS: i64 = 1_700_000_000_000;

pub type Shared = Rc<RefCell<Ledger>>;

/// The log has failed, as it may: the history ends here.
pub struct Failed(pub Option<Rc<Log>>);

/// A batch with `count` records, the first of them with a value of `payload` bytes.
pub fn batch(count: i32, payload: usize, timestamp: i64, seed: u64) -> Bytes {
    let mut random = super::super::Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let records = testing::records(count, payload, || random.next() as u8);
    testing::batch(testing::header(count, timestamp), &records)
}

fn config() -> TopicConfig {
    TopicConfig {
        segment_bytes: 12_000,
        index_interval_bytes: 1_000,
        retention_ms: None,
        file_delete_delay_ms: 0,
        ..TopicConfig::default()
    }
}

pub fn context() -> Rc<StorageContext> {
    context_without(Vec::new())
}

fn context_without(not_taken_over: Vec<Untaken>) -> Rc<StorageContext> {
    StorageContext::new(StorageLimits {
        not_taken_over,
        tail_cache_bytes: 8 << 10,
        cold_cache_bytes: 1 << 20,
        preallocate_max_bytes: 32 << 10,
        // A third of a segment, so that zeros are written into each.
        write_ahead_bytes: 4 << 10,
        write_max_bytes: 16 << 10,
        ..StorageLimits::default()
    })
}

/// Where batches are acknowledged from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledged {
    Written,
    /// From an arena, made in this boot of the machine.
    Held {
        boot: u64,
    },
}

/// A log as a start finds it.
pub struct Opened {
    pub log: Rc<Log>,
    pub damaged: bool,
    arena: Option<Rc<Arena>>,
}

impl Opened {
    /// Ends it as a clean stop does.
    pub async fn close(&self, state: &'static [u8]) -> Result<(), String> {
        self.log.close(|| state.to_vec()).await.map_err(|error| format!("closing it: {error}"))?;
        match &self.arena {
            None => Ok(()),
            Some(arena) => arena.remove().map(drop).map_err(|error| format!("removing its arena: {error}")),
        }
    }
}

/// Opens the log in `dir` as a start does. The error is a text.
pub async fn open(acknowledged: Acknowledged, dir: &Path) -> Result<Opened, String> {
    let (arena, context) = match acknowledged {
        Acknowledged::Written => (None, context()),
        Acknowledged::Held { boot } => {
            let (arena, left) = take_over(boot, dir).map_err(|error| format!("the arena: {error}"))?;
            (Some(arena), context_without(left))
        }
    };
    open_with(context, arena, dir).await
}

async fn open_with(context: Rc<StorageContext>, arena: Option<Rc<Arena>>, dir: &Path) -> Result<Opened, String> {
    let opened = Log::open(context, dir, Arc::new(config()), &mut |_| {}, &mut aborts::recover).await;
    let recovered = opened.map_err(|error| format!("the log cannot be opened: {error}"))?;
    if let Some(arena) = &arena {
        recovered.log.write_behind(arena.clone(), KEY);
    }
    Ok(Opened { log: recovered.log, damaged: recovered.damaged, arena })
}

/// Writes what is left in the arenas into the log, and makes a new one; also
/// what could not be written.
fn take_over(boot: u64, dir: &Path) -> io::Result<(Rc<Arena>, Vec<Untaken>)> {
    let identity =
        Identity { boot: Uuid::from_u128(boot.into()), cluster: "crash".to_owned(), directory: Uuid::from_u128(2) };
    let folder = Path::new(ROOT).join(FOLDER);
    let find = |key| if key == KEY { Home::Here(dir.into()) } else { Home::Gone };
    let replayed = replay(&folder, &identity, &find)?;
    let arena = Arena::create(&folder, 0, &identity, ARENA_BYTES)?.open(WRITE_BEHIND, 1);
    Ok((arena.ok_or_else(|| io::Error::other("its memory is in use"))?, replayed.failed))
}

/// The one who works with the log, and takes note of what it promises.
pub struct Driver {
    pub log: Rc<Log>,
    opened: Opened,
    ledger: Shared,
    /// Batches so far.
    count: u64,
}

impl Driver {
    pub async fn open(ledger: Shared, acknowledged: Acknowledged, dir: &Path) -> Result<Driver, Failed> {
        ledger.borrow_mut().step = "open";
        let opened = open(acknowledged, dir).await.map_err(|_| Failed(None))?;
        Ok(Driver::of(opened, ledger))
    }

    fn of(opened: Opened, ledger: Shared) -> Driver {
        let log = opened.log.clone();
        let (noted, weak) = (ledger.clone(), Rc::downgrade(&log));
        log.on_move(Box::new(move || {
            if let Some(log) = weak.upgrade() {
                noted.borrow_mut().note(&log);
            }
        }));
        // Numbers of batches go on, so that no two are alike.
        let count = log.next_offset() as u64 * 100;
        Driver { log, opened, ledger, count }
    }

    fn failed(&self) -> Failed {
        Failed(Some(self.log.clone()))
    }

    fn begin(&self, step: &'static str) {
        self.ledger.borrow_mut().step = step;
    }

    /// A step that may be refused; the history ends where the log has failed.
    fn settle<T, E>(&self, outcome: Result<T, E>) -> Result<Option<T>, Failed> {
        match outcome {
            Ok(value) => Ok(Some(value)),
            Err(_) if self.log.failure().is_some() => Err(self.failed()),
            Err(_) => Ok(None),
        }
    }

    fn next_batch(&mut self, payload: usize) -> Bytes {
        self.count += 1;
        let records = 1 + (self.count % 4) as i32;
        batch(records, payload, 5_000 + (self.count * 37 % 50) as i64, self.count)
    }

    pub fn append(&mut self, payload: usize) -> Result<(), Failed> {
        let batch = self.next_batch(payload);
        let appended = self.log.append(batch.clone(), EPOCH, NOW_MS).map_err(|_| self.failed())?;
        self.ledger.borrow_mut().now().batches.push(stored(&batch, appended.base_offset, EPOCH));
        Ok(())
    }

    /// A marker that aborts a transaction.
    fn abort(&mut self) -> Result<(), Failed> {
        self.count += 1;
        let (distance, time_ms) = (1 + (self.count % 5) as i32, 5_000 + (self.count * 37 % 50) as i64);
        let (batch, base) = aborts::append(&self.log, distance, time_ms, EPOCH).ok_or_else(|| self.failed())?;
        self.ledger.borrow_mut().now().batches.push(stored(&batch, base, EPOCH));
        Ok(())
    }

    fn append_all(&mut self, payloads: &[usize]) -> Result<(), Failed> {
        payloads.iter().try_for_each(|payload| self.append(*payload))
    }

    /// Waits until everything is written; behind an arena, half of the times.
    pub async fn written(&self) -> Result<(), Failed> {
        if self.opened.arena.is_some() && self.count.is_multiple_of(2) {
            clock::sleep(WRITE_BEHIND / 3).await;
            return self.log.failure().map_or(Ok(()), |_| Err(self.failed()));
        }
        self.log.wait_written(self.log.next_offset()).await.map_err(|_| self.failed())
    }

    async fn checkpoint(&self) -> Result<(), Failed> {
        self.begin("checkpoint");
        self.settle(self.log.checkpoint(|| b"state".to_vec()).await).map(drop)
    }

    /// Checkpoints a log that has an aborted transaction to save, and goes on to the next
    /// segment meanwhile, `later`.
    async fn checkpoint_amid(&mut self, later: Duration) -> Result<(), Failed> {
        self.abort()?;
        self.begin("checkpoint while a segment is begun");
        let log = self.log.clone();
        let appended = async {
            clock::sleep(later).await;
            self.append_all(&[7_000, 7_000])
        };
        let (stored, appended) = zip(log.checkpoint(|| b"state".to_vec()), appended).await;
        appended?;
        self.settle(stored).map(drop)
    }

    async fn append_as_is(&mut self, gap: i64, payload: usize) -> Result<(), Failed> {
        self.begin("append as it is");
        let (batch, base) = (self.next_batch(payload), self.log.next_offset() + gap);
        let put = stored(&batch, base, 7);
        // Its operations on the disk come before the append.
        if self.settle(self.log.append_as_is(put.bytes.clone().into(), NOW_MS).await)?.is_some() {
            self.ledger.borrow_mut().now().batches.push(put);
        }
        Ok(())
    }

    async fn cut(&self, to: i64) -> Result<(), Failed> {
        self.begin("cut");
        let before = self.ledger.borrow_mut().now().clone();
        let mut after = before.clone();
        after.batches.retain(|batch| batch.next <= to);
        (after.held, after.synced) = (after.end(), after.end());
        {
            let mut ledger = self.ledger.borrow_mut();
            ledger.now().cap = after.end();
            // No promise of the state after it is kept before it is there.
            ledger.states.insert(0, State { held: 0, synced: 0, ..after.clone() });
        }
        let outcome = self.log.truncate_to(to, async |_| Ok::<_, ReadError>(b"cut".to_vec())).await;
        let outcome = self.settle(outcome)?;
        self.ledger.borrow_mut().states = vec![if outcome.is_some() { after } else { before }];
        Ok(())
    }

    async fn restart_at(&self, begin: i64) -> Result<(), Failed> {
        self.begin("empty and begin anew");
        let before = self.ledger.borrow_mut().now().clone();
        {
            let mut ledger = self.ledger.borrow_mut();
            ledger.now().cap = 0;
            let mut gone = State::empty(begin);
            (gone.held, gone.synced) = (0, 0);
            ledger.states.insert(0, gone);
        }
        let outcome = self.settle(self.log.truncate_fully_and_start_at(begin, b"new".to_vec()).await)?;
        let after = if outcome.is_some() { State::empty(begin) } else { before };
        self.ledger.borrow_mut().states = vec![after];
        Ok(())
    }

    async fn trim(&self, to: i64) -> Result<(), Failed> {
        self.begin("delete records");
        let low = self.log.start_offset();
        self.ledger.borrow_mut().now().start = low..=to;
        if self.settle(self.log.trim(to, || b"trimmed".to_vec()).await)?.is_some() {
            self.ledger.borrow_mut().now().start = to..=to;
        }
        Ok(())
    }

    async fn retention(&self, bytes: u64) -> Result<(), Failed> {
        self.begin("retention");
        let low = self.log.start_offset();
        self.ledger.borrow_mut().now().start = low..=self.log.next_offset();
        self.log.set_config(Arc::new(TopicConfig { retention_bytes: Some(bytes), ..config() }));
        let upto = self.log.ends().held;
        self.settle(self.log.enforce_retention(NOW_MS, upto, || b"kept".to_vec()).await)?;
        self.log.set_config(Arc::new(config()));
        // A crash may bring segments back that had gone.
        self.ledger.borrow_mut().now().start = low..=self.log.start_offset();
        Ok(())
    }

    async fn sync(&self) -> Result<(), Failed> {
        self.begin("sync");
        self.log.sync_written().await.map_err(|_| self.failed())
    }

    /// Appends batches that are synced one by one.
    async fn append_synced(&mut self, payloads: &[usize]) -> Result<(), Failed> {
        self.begin("append, each synced");
        self.log.set_config(Arc::new(TopicConfig { flush_messages: 1, ..config() }));
        for payload in payloads {
            self.append(*payload)?;
            while self.log.ends().synced < self.log.next_offset() {
                self.log.failure().map_or(Ok(()), |_| Err(self.failed()))?;
                clock::sleep(Duration::from_micros(100)).await;
            }
        }
        self.log.set_config(Arc::new(config()));
        Ok(())
    }

    /// Where a batch in the middle of what there is begins.
    fn middle(&self) -> i64 {
        let ledger = self.ledger.borrow();
        let batches = &ledger.states[ledger.states.len() - 1].batches;
        let alive: Vec<_> = batches.iter().filter(|batch| batch.base >= self.log.start_offset()).collect();
        alive[alive.len() / 2].base
    }
}

/// The whole history. It ends early where the log fails.
pub async fn run(ledger: Shared, acknowledged: Acknowledged) -> Result<Rc<Log>, Failed> {
    let dir = Path::new(DIR);
    let mut driver = Driver::open(ledger.clone(), acknowledged, dir).await?;
    driver.begin("append");
    driver.append_all(&[100, 3000, 50])?;
    driver.abort()?;
    driver.written().await?;
    driver.append_all(&[700, 20])?;
    driver.written().await?;
    driver.sync().await?;
    driver.checkpoint().await?;
    driver.begin("append over several segments");
    for payloads in [[4000, 300, 2500], [5000, 100, 6000], [20, 4500, 10], [3000, 2000, 1000]] {
        driver.append_all(&payloads)?;
        driver.abort()?;
        driver.written().await?;
    }
    driver.append_synced(&[300, 2500, 40, 3000, 1500, 2000, 700, 4000, 50]).await?;
    driver.begin("commit");
    clock::sleep(Duration::from_millis(500)).await;
    driver.append_all(&[500, 900])?;
    driver.abort()?;
    driver.cut(driver.log.next_offset() - 4).await?;
    driver.begin("append after a cut");
    driver.append_all(&[600, 100])?;
    driver.abort()?;
    driver.written().await?;
    driver.cut(driver.middle()).await?;
    driver.begin("append after a cut");
    driver.abort()?;
    driver.append_all(&[5000, 4000, 30])?;
    driver.written().await?;
    driver.append_as_is(5, 2000).await?;
    driver.append_as_is(0, 400).await?;
    driver.append_as_is(40, 7000).await?;
    driver.written().await?;
    driver.checkpoint().await?;
    driver.trim(driver.middle() + 1).await?;
    driver.begin("append");
    driver.append_all(&[6000, 6000, 6000])?;
    driver.written().await?;
    driver.retention(20_000).await?;
    driver.begin("append and close");
    driver.append_all(&[100, 200])?;
    driver.abort()?;
    let closed = driver.opened.close(b"closed").await;
    driver.settle(closed)?;
    let mut driver = Driver::open(ledger.clone(), acknowledged, dir).await?;
    driver.begin("append");
    driver.append_all(&[3000, 10, 8000])?;
    driver.written().await?;
    driver.sync().await?;
    driver.restart_at(1_000).await?;
    driver.begin("append after a new begin");
    driver.append_all(&[100, 9000, 4000])?;
    driver.abort()?;
    driver.written().await?;
    driver.checkpoint().await?;
    for later in [100, 250, 400] {
        driver.checkpoint_amid(Duration::from_micros(later)).await?;
    }
    driver.append_all(&[50])?;
    driver.abort()?;
    Ok(driver.log)
}

/// That a log can be gone on with: records are appended, and found at the next start.
pub async fn go_on(ledger: Shared, acknowledged: Acknowledged, dir: &Path) -> Result<Rc<Log>, Failed> {
    let mut driver = Driver::open(ledger, acknowledged, dir).await?;
    driver.begin("go on");
    driver.append_all(&[100, 5000, 300, 8000, 40])?;
    driver.abort()?;
    driver.written().await?;
    driver.sync().await?;
    driver.opened.close(b"").await.map_err(|_| driver.failed())?;
    Ok(driver.log)
}

/// As much of a read as a log that has failed still gives.
pub async fn read_some(log: &Rc<Log>, from: i64, upto: i64) -> Result<LogRead, ReadError> {
    log.read(from, upto, 1 << 20, true).await
}
