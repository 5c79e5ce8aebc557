//! Short measurements of the device under a directory, with the broker's own means: direct
//! I/O through a shard's ring.
//!
//! The file that is written has no name: it goes with the process, whatever ends that.

use std::cell::{Cell, RefCell};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::runtime::disk::{self, ALIGNMENT, DiskBuf, File, FrozenBuf, OpenMode};
use crate::runtime::executor::{ShardSpec, run_shards};
use crate::runtime::probe::{self, ProbeError};
use crate::runtime::process::StopFlag;
use crate::runtime::sync::{OneshotReceiver, oneshot};
use crate::runtime::{Yielder, clock, spawn_blocking, spawn_local};

pub const WRITE_SIZES: [usize; 2] = [64 << 10, 512 << 10];
pub const WRITE_DEPTHS: [usize; 3] = [1, 4, 16];

/// Each step runs so often and the best run counts: whatever else uses the
/// device can only slow one down.
const ROUNDS: u64 = 2;
/// Most bytes that one round writes, in blocks of its own.
const REGION: u64 = 32 << 20;
const KINDS: u64 = (WRITE_SIZES.len() * WRITE_DEPTHS.len()) as u64;
/// Space that the file takes; as much again must stay free.
const SPACE: u64 = REGION * ROUNDS * KINDS;
const ROUND_TIME: Duration = Duration::from_millis(150);
const READ_SIZE: usize = 256 << 10;
/// The cold cache reads so many chunks ahead.
const READ_DEPTH: usize = 4;
const SYNCS: usize = 300;
const SYNC_TIME: Duration = Duration::from_millis(1000);
const SYNC_SIZE: usize = 4096;
const IO_MEMORY: usize = 4 << 20;

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Throughput {
    /// Bytes of one write.
    pub size: usize,
    /// Writes in flight.
    pub depth: usize,
    /// Into blocks that were written before; otherwise into reserved ones, as a log's writes go.
    pub rewritten: bool,
    pub mb_per_s: f64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Measured {
    pub writes: Vec<Throughput>,
    /// Reads of 256 KiB, four in flight.
    pub read_mb_per_s: Option<f64>,
    /// A write of 4 KiB and its fdatasync, microseconds.
    pub sync_p50_us: Option<u64>,
    pub sync_p99_us: Option<u64>,
}

impl Measured {
    pub fn write(&self, size: usize, depth: usize, rewritten: bool) -> Option<f64> {
        let its = |t: &&Throughput| (t.size, t.depth, t.rewritten) == (size, depth, rewritten);
        self.writes.iter().find(its).map(|throughput| throughput.mb_per_s)
    }

    /// The most that anything reached, MB/s.
    pub fn fastest(&self) -> f64 {
        self.writes.iter().map(|throughput| throughput.mb_per_s).chain(self.read_mb_per_s).fold(0.0, f64::max)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    #[error(
        "too little space in {path}: measuring takes {} MiB for some seconds and leaves as much free, and {} MiB are free; \
         free some, or measure another directory of the same disk (--data)",
        SPACE >> 20, free >> 20, path = path.display()
    )]
    Full { path: PathBuf, free: u64 },
    #[error("{0}")]
    Refused(#[from] ProbeError),
    #[error("the device cannot be measured: {0}")]
    Io(#[from] io::Error),
    #[error("interrupted; nothing was changed")]
    Interrupted,
}

/// Where a measurement is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub done: u64,
    pub of: u64,
    pub what: String,
}

enum News {
    Step(Step),
    Done(Result<Measured, MeasureError>),
}

/// Some seconds and at most 1 GiB; blocks the calling thread. `stop` ends it early.
pub fn measure(directory: &Path, stop: &StopFlag, mut each: impl FnMut(&Step)) -> Result<Measured, MeasureError> {
    let free = probe::free_bytes(directory)?;
    if free < 2 * SPACE {
        return Err(MeasureError::Full { path: directory.to_owned(), free });
    }
    probe::check_direct_io(directory)?;
    let io_memory_bytes = probe::fitting_io_memory(1, IO_MEMORY);
    probe::check_io_uring(1, io_memory_bytes)?;
    let (sender, news) = channel();
    let (directory, stop) = (directory.to_owned(), stop.clone());
    let threads = run_shards(vec![ShardSpec { index: 0, cpu: None, io_memory_bytes }], move |_| {
        let (directory, stop, sender) = (directory.clone(), stop.clone(), sender.clone());
        async move {
            let outcome = Box::pin(run(&directory, stop, &sender)).await;
            let _ = sender.send(News::Done(outcome));
        }
    })?;
    let outcome = loop {
        match news.recv() {
            Ok(News::Step(step)) => each(&step),
            Ok(News::Done(outcome)) => break outcome,
            Err(_) => break Err(io::Error::other("the measuring thread ended without a result").into()),
        }
    };
    drop(news);
    threads.join();
    outcome
}

async fn run(directory: &Path, stop: StopFlag, news: &Sender<News>) -> Result<Measured, MeasureError> {
    disk::prime_device(directory).await?;
    let file = Rc::new(unnamed_file(directory).await?);
    file.preallocate(0, SPACE).await.map_err(|error| full_or_io(directory, error))?;
    let probes = Probes { file, stop, news: news.clone(), done: Cell::new(0) };
    let outcome = probes.all().await;
    // Operations still in flight hold the file too; the blocks go with the last of them.
    outcome.map_err(|error| match error {
        MeasureError::Io(error) => full_or_io(directory, error),
        other => other,
    })
}

fn full_or_io(directory: &Path, error: io::Error) -> MeasureError {
    if disk::is_full(&error) {
        let free = probe::free_bytes(directory).unwrap_or(0);
        return MeasureError::Full { path: directory.to_owned(), free };
    }
    error.into()
}

async fn unnamed_file(directory: &Path) -> io::Result<File> {
    let path = directory.join(format!(".corelane-tune-{}", std::process::id()));
    let file = File::open(&path, OpenMode::CreateNew).await?;
    spawn_blocking(move || std::fs::remove_file(path)).await?;
    Ok(file)
}

#[derive(Clone)]
enum Access {
    Write(FrozenBuf),
    Read(usize),
}

impl Access {
    fn len(&self) -> u64 {
        match self {
            Access::Write(buf) => buf.len() as u64,
            Access::Read(len) => *len as u64,
        }
    }
}

/// State that the tasks of one step share.
struct Lane {
    file: Rc<File>,
    access: Access,
    start: u64,
    /// Bytes from `start`; positions begin again there.
    extent: u64,
    /// The step ends with so many bytes, or at the deadline.
    most: u64,
    taken: Cell<u64>,
    deadline: Instant,
    stop: StopFlag,
    failed: RefCell<Option<io::Error>>,
}

impl Lane {
    async fn work(&self) {
        let len = self.access.len();
        let mut yielder = Yielder;
        while self.failed.borrow().is_none()
            && self.taken.get() + len <= self.most
            && clock::now() < self.deadline
            && !self.stop.is_set()
        {
            let position = self.start + self.taken.get() % self.extent;
            self.taken.set(self.taken.get() + len);
            let outcome = match &self.access {
                Access::Write(buf) => self.file.write_at(buf, position).await,
                Access::Read(len) => self.file.read_at(position, *len).await.map(drop),
            };
            if let Err(error) = outcome {
                self.failed.borrow_mut().get_or_insert(error);
            }
            yielder.pass().await;
        }
    }
}

struct Probes {
    file: Rc<File>,
    stop: StopFlag,
    news: Sender<News>,
    done: Cell<u64>,
}

impl Probes {
    async fn all(&self) -> Result<Measured, MeasureError> {
        let mut measured = Measured::default();
        // Of each region, as far as it was written.
        let mut written = Vec::new();
        for rewritten in [false, true] {
            let mut region = 0;
            for (size, depth) in WRITE_SIZES.into_iter().flat_map(|size| WRITE_DEPTHS.map(|depth| (size, depth))) {
                let buf = noise(size);
                let blocks = if rewritten { "written" } else { "reserved" };
                self.step(format!("{} KiB writes, {depth} in flight, into {blocks} blocks", size >> 10))?;
                let mut best = 0.0_f64;
                for _ in 0..ROUNDS {
                    let extent = if rewritten { written.get(region).copied().unwrap_or(0) } else { REGION };
                    let start = region as u64 * REGION;
                    let (mb_per_s, bytes) = self.run(Access::Write(buf.clone()), depth, start, extent).await?;
                    if !rewritten {
                        written.push(bytes);
                    }
                    best = best.max(mb_per_s);
                    region += 1;
                }
                measured.writes.push(Throughput { size, depth, rewritten, mb_per_s: best });
            }
        }
        self.step("4 KiB writes with fdatasync".to_owned())?;
        let mut syncs = self.syncs(written.first().copied().unwrap_or(0)).await?;
        syncs.sort_unstable();
        measured.sync_p50_us = percentile(&syncs, 50);
        measured.sync_p99_us = percentile(&syncs, 99);
        self.step("256 KiB reads".to_owned())?;
        for (region, bytes) in written.iter().enumerate().rev().take(ROUNDS as usize) {
            let extent = bytes / READ_SIZE as u64 * READ_SIZE as u64;
            if extent > 0 {
                let (mb_per_s, _) =
                    self.run(Access::Read(READ_SIZE), READ_DEPTH, region as u64 * REGION, extent).await?;
                measured.read_mb_per_s = Some(measured.read_mb_per_s.map_or(mb_per_s, |best| best.max(mb_per_s)));
            }
        }
        Ok(measured)
    }

    fn step(&self, what: String) -> Result<(), MeasureError> {
        if self.stop.is_set() {
            return Err(MeasureError::Interrupted);
        }
        let done = self.done.replace(self.done.get() + 1);
        let _ = self.news.send(News::Step(Step { done, of: 2 * KINDS + 2, what }));
        Ok(())
    }

    /// Megabytes (10^6) a second, and how many bytes.
    async fn run(&self, access: Access, depth: usize, start: u64, extent: u64) -> Result<(f64, u64), MeasureError> {
        let begun = clock::now();
        let lane = Rc::new(Lane {
            file: self.file.clone(),
            // Not even one I/O's worth was written before: then it is written once.
            extent: extent.max(access.len()),
            access,
            start,
            most: REGION,
            taken: Cell::new(0),
            deadline: begun + ROUND_TIME,
            stop: self.stop.clone(),
            failed: RefCell::new(None),
        });
        let tasks: Vec<OneshotReceiver<()>> = (0..depth)
            .map(|_| {
                let (lane, (sender, ended)) = (lane.clone(), oneshot());
                spawn_local(async move {
                    lane.work().await;
                    sender.send(());
                });
                ended
            })
            .collect();
        for ended in tasks {
            ended.recv().await;
        }
        if let Some(error) = lane.failed.borrow_mut().take() {
            return Err(error.into());
        }
        if self.stop.is_set() {
            return Err(MeasureError::Interrupted);
        }
        let seconds = clock::now().saturating_duration_since(begun).as_secs_f64().max(1e-6);
        Ok((lane.taken.get() as f64 / 1e6 / seconds, lane.taken.get()))
    }

    /// Microseconds of each, over the first `extent` bytes, which were written before.
    async fn syncs(&self, extent: u64) -> Result<Vec<u64>, MeasureError> {
        let buf = noise(SYNC_SIZE);
        // Bytes of earlier steps in the device's cache are not counted.
        self.file.fdatasync().await?;
        let deadline = clock::now() + SYNC_TIME;
        let mut took = Vec::with_capacity(SYNCS);
        let mut position = 0;
        while took.len() < SYNCS && (clock::now() < deadline || took.is_empty()) {
            if self.stop.is_set() {
                return Err(MeasureError::Interrupted);
            }
            let begun = clock::now();
            self.file.write_at(&buf, position).await?;
            self.file.fdatasync().await?;
            took.push(u64::try_from(clock::now().saturating_duration_since(begun).as_micros()).unwrap_or(u64::MAX));
            position = (position + SYNC_SIZE as u64) % extent.max(ALIGNMENT);
        }
        Ok(took)
    }
}

/// The value at or above `percent` of the sorted ones.
fn percentile(sorted: &[u64], percent: usize) -> Option<u64> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied()
}

/// A buffer that no device can compress.
fn noise(len: usize) -> FrozenBuf {
    let mut buf = DiskBuf::alloc(len);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for word in buf.as_mut_slice().chunks_exact_mut(8) {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word.copy_from_slice(&state.to_le_bytes());
    }
    buf.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::scratch;

    #[test]
    fn percentiles_are_of_the_sorted_values() {
        let values: Vec<u64> = (1..=100).collect();
        assert_eq!((percentile(&values, 50), percentile(&values, 99)), (Some(50), Some(99)));
        assert_eq!(percentile(&[7], 99), Some(7));
        assert_eq!(percentile(&[], 50), None);
    }

    #[test]
    fn a_stop_ends_the_measurement_and_leaves_nothing() {
        let dir = scratch();
        let stop = StopFlag::default();
        let mut steps = 0;
        let outcome = measure(dir.path(), &stop, |step| {
            steps += 1;
            assert!(step.done < step.of);
            if step.done == 1 {
                stop.set();
            }
        });
        assert!(matches!(outcome, Err(MeasureError::Interrupted)), "{outcome:?}");
        assert!((2..14).contains(&steps), "{steps}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "the probe left something");
    }
}
