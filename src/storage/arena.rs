//! Memory that outlives the process, for batches between their acknowledgement and
//! their write to the device.
//!
//! One file a shard and data directory, mapped shared: what stands in it survives a kill, not
//! the kernel. Its chunks are what the logs of the shard append to, what leaves for the device,
//! and what consumers at the tail are served from; each has an entry in the file's table until
//! all of it is written. A start writes what such entries hold into the segments, before the
//! logs are opened ([`replay`]).
//!
//! A chunk that is written stays readable until its memory is wanted: the oldest of the shard goes
//! first. A chunk is not used again before the last response that was made from it has gone.

pub(super) mod layout;
mod list;
mod places;
pub(super) mod pool;
mod replay;

use std::cell::{Cell, RefCell};
use std::cmp::Ordering;
use std::collections::VecDeque;
use std::collections::binary_heap::{BinaryHeap, PeekMut};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::commit::delays;
use super::log::Log;
use crate::runtime::mapping::{Area, Mapping, PAGE_BYTES, Slots};
use crate::runtime::sync::Notify;
use crate::runtime::{clock, fs, spawn_local};
use layout::{Entry, Plan};
pub use layout::{Identity, PartitionKey};
pub use list::{ArenaListing, Listings, list_arenas};
pub use places::Places;
use pool::{Pool, Size};
#[cfg(test)]
pub(super) use replay::MANY_FILES;
pub(super) use replay::take_over_later;
pub use replay::{Home, Replayed, TakenOver, replay};

/// The folder of a data directory that holds its arenas.
pub const FOLDER: &str = "corelane-arena";
const EXTENSION: &str = "arena";

/// Time before a log's unfinished last block is written.
const UNFINISHED: Duration = Duration::from_millis(500);
/// Time between two looks for memory that readers have let go of.
const RETRY: Duration = Duration::from_millis(5);
/// Logs asked to write at once when memory is short.
const PRESSED: usize = 64;
/// Written chunks that go for a new one at the most.
const EVICTIONS: usize = 256;
/// Readers get copies while those of other responses keep this part of the arena.
const LENT_PART: usize = 4;

/// While more than this part of the arena waits to leave, the oldest of it does.
const UNSENT_PART: usize = 2;
/// So much of it together: the device is told once of writes that are submitted together.
const RELIEF_BYTES: usize = 256 << 10;
/// Logs that are due within this part of the delay write together.
const DELAY_PART: u32 = 64;
/// Open chunks take this part of the arena before they become smaller.
const OPEN_PART: usize = 4;

/// A log that is to write something, and when. In a heap the earliest comes first, of several the
/// one that was there first.
struct Due {
    at: Instant,
    number: u64,
    log: Weak<Log>,
}

impl PartialEq for Due {
    fn eq(&self, other: &Due) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Due) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Due) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

/// The arena of one shard in one data directory.
pub struct Arena {
    mapping: Arc<Mapping>,
    table: Slots,
    plan: Plan,
    _head: Slots,
    /// Of `corelane.write.behind.max.ms`, until a batch leaves.
    delay: Duration,
    /// The rest of it, from the write to the commit of the file system's journal.
    commit_delay: Duration,
    /// Bytes of all arenas of the data directory.
    reach: u64,
    pool: RefCell<Pool>,
    /// Logs with written chunks, a mention a chunk, in the order in which these were written.
    written: RefCell<VecDeque<Weak<Log>>>,
    /// Logs whose whole blocks are to be written.
    soon: RefCell<BinaryHeap<Due>>,
    /// Logs whose unfinished block is written if it is still the same.
    unfinished: RefCell<BinaryHeap<Due>>,
    /// Logs with batches that found no room here.
    waiting: RefCell<VecDeque<Weak<Log>>>,
    clock_runs: Cell<bool>,
    /// The clock sleeps until then.
    wakes_at: Cell<Option<Instant>>,
    /// Notified when something is due before that.
    due_earlier: Notify,
    /// How long the unfinished last block of a log waits before it is written.
    unfinished_delay: Cell<Duration>,
    /// Chunks with a live entry, and their bytes.
    live: Cell<usize>,
    live_bytes: Cell<usize>,
    /// Bytes in chunks that no write has taken yet, and how many of them were asked for
    /// because they are too many.
    unsent: Cell<usize>,
    leaving: Cell<usize>,
    /// Entries of the clock's queues so far.
    dues: Cell<u64>,
    made: Instant,
}

impl Arena {
    /// Makes an arena of `shard` in `folder`. Blocks.
    pub fn create(folder: &Path, shard: u16, identity: &Identity, bytes: usize) -> io::Result<NewArena> {
        let bytes = bytes / PAGE_BYTES * PAGE_BYTES;
        let too_small =
            || io::Error::new(io::ErrorKind::InvalidInput, format!("{bytes} bytes are too few for an arena"));
        let plan = Plan::of(bytes).ok_or_else(too_small)?;
        fs::create_dir_all(folder)?;
        let newest = replay::arena_files(folder)?.into_iter().map(|(number, _)| number).max();
        let number = newest.map_or(0, |newest| newest + 1);
        let path = folder.join(format!("{shard}.{number}.{EXTENSION}"));
        let mapping = Mapping::create(&path, bytes)?;
        Ok(NewArena { mapping, plan, head: layout::encode_head(identity, shard, bytes) })
    }

    /// Bytes of all arenas of the data directory.
    pub(super) fn reach(&self) -> u64 {
        self.reach
    }

    /// Removes the file where nothing in it needs to be taken over; `false`:
    /// something does. Blocks briefly.
    pub fn remove(&self) -> io::Result<bool> {
        if self.live.get() > 0 {
            return Ok(false);
        }
        fs::remove_file(self.mapping.path()).map(|()| true)
    }

    #[cfg(test)]
    pub(super) fn write_unfinished_after(&self, time: Duration) {
        self.unfinished_delay.set(time);
    }

    #[cfg(test)]
    pub(super) fn live_chunks(&self) -> usize {
        self.live.get()
    }

    pub fn path(&self) -> PathBuf {
        self.mapping.path().to_path_buf()
    }

    /// Bytes of all its chunks.
    pub(super) fn chunk_bytes(&self) -> usize {
        self.plan.pages * PAGE_BYTES
    }

    /// Bytes of chunks that hold what is not written yet.
    pub(super) fn used_bytes(&self) -> usize {
        self.live_bytes.get()
    }

    /// A response may keep a chunk of `bytes`: it and what others keep are no more than a part of
    /// the arena. Otherwise it gets a copy, or slow clients could take all memory from producers.
    pub(super) fn may_lend(&self, bytes: usize) -> bool {
        self.mapping.lent_bytes() + bytes <= self.chunk_bytes() / LENT_PART
    }

    pub(super) fn delay(&self) -> Duration {
        self.delay
    }

    /// From a write to the commit of the file system's journal.
    pub(super) fn commit_delay(&self) -> Duration {
        self.commit_delay
    }

    pub(super) fn unfinished_delay(&self) -> Duration {
        self.unfinished_delay.get()
    }

    /// `wanted`, or less where so many logs are appended to that a chunk for each
    /// would take much of the arena.
    pub(super) fn fair_size(&self, wanted: Size) -> Size {
        let (all, logs) = (self.chunk_bytes() / OPEN_PART, self.soon.borrow().len());
        let mut size = wanted;
        while size > Size::SMALLEST && size.bytes() * logs > all {
            size = size.smaller();
        }
        size
    }

    /// A chunk of about `size`, described by `entry` (whose capacity is set here); `None`: there is
    /// no memory now. While much is to be written, one that is much smaller is for those alone who
    /// have waited in vain: small chunks are small writes, which free memory slowly.
    pub(super) fn take(self: &Rc<Self>, size: Size, in_vain: bool, mut entry: Entry) -> Option<Chunk> {
        let pressed = self.live_bytes.get() > self.chunk_bytes() / 2;
        let (page, area) = self.take_area(size, in_vain || !pressed)?;
        if self.unsent.get().saturating_sub(self.leaving.get()) > self.chunk_bytes() / UNSENT_PART {
            self.write_the_oldest();
        }
        entry.capacity = area.capacity() as u32;
        self.table.write(page, &entry.encode());
        Some(Chunk { arena: self.clone(), page, area, published: Cell::new(false) })
    }

    fn take_area(&self, size: Size, any_size: bool) -> Option<(usize, Area)> {
        // Written chunks of other sizes may have to go before there is one of this size.
        for _ in 0..EVICTIONS {
            if let Some(taken) = self.try_take(size) {
                return Some(taken);
            }
            if !self.evict_one() {
                break;
            }
        }
        let mut others = Size::nearest_first(size).take(if any_size { usize::MAX } else { 1 });
        others.find_map(|other| self.try_take(other))
    }

    fn try_take(&self, size: Size) -> Option<(usize, Area)> {
        let take = |page| self.mapping.take(self.plan.chunk(page), size.bytes());
        self.pool.borrow_mut().take(size, take)
    }

    /// Takes the oldest written chunk away from its log; `false`: there is none.
    fn evict_one(&self) -> bool {
        loop {
            let Some(log) = self.written.borrow_mut().pop_front() else { return false };
            if log.upgrade().is_some_and(|log| log.drop_oldest_chunk()) {
                return true;
            }
        }
    }

    /// Bytes were appended.
    pub(super) fn note_unsent(&self, bytes: usize) {
        self.unsent.set(self.unsent.get() + bytes);
    }

    /// A write has taken appended bytes.
    pub(super) fn note_sent(&self, bytes: usize) {
        self.unsent.set(self.unsent.get().saturating_sub(bytes));
        self.leaving.set(self.leaving.get().saturating_sub(bytes));
    }

    /// Has those logs write that have waited for longest, several together.
    fn write_the_oldest(&self) {
        let mut leaving = 0;
        for _ in 0..PRESSED {
            let Some(due) = self.soon.borrow_mut().pop() else { break };
            leaving += due.log.upgrade().map_or(0, |log| log.write_whole_blocks(true)) as usize;
            if leaving >= RELIEF_BYTES {
                break;
            }
        }
        self.leaving.set(self.leaving.get() + leaving);
    }

    /// Notes that the oldest chunks of `log` are written, one more than before.
    pub(super) fn note_written(&self, log: &Rc<Log>) {
        self.written.borrow_mut().push_back(Rc::downgrade(log));
    }

    fn due(&self, at: Instant, log: &Rc<Log>) -> Due {
        let number = self.dues.replace(self.dues.get() + 1);
        Due { at, number, log: Rc::downgrade(log) }
    }

    /// Has `log` look at `at` for whole blocks to write.
    pub(super) fn write_by(self: &Rc<Self>, at: Instant, log: &Rc<Log>) {
        let step = (self.delay / DELAY_PART).as_nanos().max(1);
        let steps = at.saturating_duration_since(self.made).as_nanos().div_ceil(step);
        let at = self.made + Duration::from_nanos(u64::try_from(steps * step).unwrap_or(u64::MAX));
        self.soon.borrow_mut().push(self.due(at, log));
        self.wake_clock_by(at);
    }

    /// Has `log` look for an unfinished block to write after a while.
    pub(super) fn write_unfinished_later(self: &Rc<Self>, log: &Rc<Log>) {
        let at = clock::now() + self.unfinished_delay.get();
        self.unfinished.borrow_mut().push(self.due(at, log));
        self.wake_clock_by(at);
    }

    /// Tells `log` when there may be memory for what it could not append, and
    /// sees to it that there is.
    pub(super) fn wait_for_memory(self: &Rc<Self>, log: &Rc<Log>) {
        self.waiting.borrow_mut().push_back(Rc::downgrade(log));
        self.wake_clock_by(clock::now() + RETRY);
        let queues = [&self.soon, &self.unfinished];
        let pressed: Vec<Rc<Log>> = queues
            .into_iter()
            .flat_map(|queue| {
                queue.borrow().iter().filter_map(|due| due.log.upgrade()).take(PRESSED).collect::<Vec<_>>()
            })
            .collect();
        for log in pressed {
            log.write_everything();
        }
        log.write_everything();
    }

    /// Gives logs that wait for memory another try, in their order, until one is left without.
    pub(super) fn retry_waiting(&self) {
        loop {
            let Some(log) = self.waiting.borrow_mut().pop_front() else { return };
            if let Some(log) = log.upgrade()
                && !log.append_waiting()
            {
                self.waiting.borrow_mut().push_front(Rc::downgrade(&log));
                return;
            }
        }
    }

    /// Sees to it that the clock looks at its queues at `at`.
    fn wake_clock_by(self: &Rc<Self>, at: Instant) {
        if !self.clock_runs.replace(true) {
            spawn_local(self.clone().run_clock());
        } else if self.wakes_at.get().is_some_and(|wakes| at < wakes) {
            self.due_earlier.notify_all();
        }
    }

    /// Runs while anything is due at some time.
    async fn run_clock(self: Rc<Self>) {
        loop {
            while let Some(log) = pop_due(&self.soon) {
                log.write_whole_blocks(false);
            }
            while let Some(log) = pop_due(&self.unfinished) {
                log.write_unfinished();
            }
            self.retry_waiting();
            let first = |queue: &RefCell<BinaryHeap<Due>>| queue.borrow().peek().map(|due| due.at);
            let retry = (!self.waiting.borrow().is_empty()).then(|| clock::now() + RETRY);
            let Some(next) = [first(&self.soon), first(&self.unfinished), retry].into_iter().flatten().min() else {
                break;
            };
            self.wakes_at.set(Some(next));
            clock::until(next, self.due_earlier.notified()).await;
            self.wakes_at.set(None);
        }
        self.clock_runs.set(false);
    }
}

fn pop_due(queue: &RefCell<BinaryHeap<Due>>) -> Option<Rc<Log>> {
    let now = clock::now();
    loop {
        let mut queue = queue.borrow_mut();
        let due = queue.peek_mut().filter(|due| due.at <= now).map(PeekMut::pop)?;
        if let Some(log) = due.log.upgrade() {
            return Some(log);
        }
    }
}

/// An arena's file that no shard has yet.
pub struct NewArena {
    mapping: Arc<Mapping>,
    plan: Plan,
    head: Vec<u8>,
}

impl NewArena {
    /// Takes it into use on this shard, one of `shards`; batches wait for their write and its
    /// commit for `most` and less than a second.
    pub fn open(self, most: Duration, shards: u16) -> Option<Rc<Arena>> {
        let NewArena { mapping, plan, head } = self;
        let (first, table) = (mapping.take_slots(0, PAGE_BYTES)?, mapping.take_slots(PAGE_BYTES, plan.table_bytes())?);
        first.fill(&head);
        let (delay, commit_delay) = delays(most);
        Some(Rc::new(Arena {
            pool: RefCell::new(Pool::new(plan.pages)),
            mapping,
            table,
            plan,
            _head: first,
            delay,
            commit_delay,
            reach: plan.chunk(plan.pages) as u64 * u64::from(shards),
            written: RefCell::default(),
            soon: RefCell::default(),
            unfinished: RefCell::default(),
            waiting: RefCell::default(),
            clock_runs: Cell::new(false),
            wakes_at: Cell::new(None),
            due_earlier: Notify::new(),
            unfinished_delay: Cell::new(UNFINISHED),
            live: Cell::new(0),
            live_bytes: Cell::new(0),
            unsent: Cell::new(0),
            leaving: Cell::new(0),
            dues: Cell::new(0),
            made: clock::now(),
        }))
    }
}

/// Memory of an arena with its entry. One whose entry is live when it is dropped is never used
/// again, so that the next start finds it.
pub(super) struct Chunk {
    arena: Rc<Arena>,
    page: usize,
    area: Area,
    published: Cell<bool>,
}

impl Chunk {
    pub fn filled(&self) -> usize {
        self.area.filled()
    }

    pub fn room(&self) -> usize {
        self.area.room()
    }

    pub fn capacity(&self) -> usize {
        self.area.capacity()
    }

    /// Appends without committing.
    pub fn append(&self, bytes: &[u8]) {
        self.area.append(bytes);
    }

    /// Commits everything appended.
    pub fn publish(&self) {
        self.arena.table.publish(self.page, layout::word(self.area.filled() as u32));
        if !self.published.replace(true) {
            self.arena.live.set(self.arena.live.get() + 1);
            self.arena.live_bytes.set(self.arena.live_bytes.get() + self.area.capacity());
        }
    }

    /// Nothing of it needs to be taken over any more.
    pub fn retire(&self) {
        self.arena.table.publish(self.page, 0);
        if self.published.replace(false) {
            self.arena.live.set(self.arena.live.get() - 1);
            self.arena.live_bytes.set(self.arena.live_bytes.get() - self.area.capacity());
        }
    }

    pub fn bytes(&self, range: std::ops::Range<usize>) -> Bytes {
        self.area.bytes(range)
    }

    pub fn as_slice(&self) -> &[u8] {
        self.area.as_slice()
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        if !self.published.get() {
            self.arena.pool.borrow_mut().give_back(self.page);
        }
    }
}
