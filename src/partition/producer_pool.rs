//! Memory of idempotent producers, shared by all partitions of one shard. Pure.
//!
//! Clients choose producer ids freely, so the number of producers is bounded by bytes
//! (`corelane.producer.state.max.bytes`); past the bound the longest idle producer is
//! forgotten. A forgotten producer is unknown again: Kafka accepts its next batch with any
//! sequence. Those with an open transaction stay, and may take up to half of the memory: beyond
//! that no transaction begins.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use slab::Slab;

/// Batches remembered per producer: as many as a client may have in flight.
pub(super) const WINDOW: usize = 5;
/// Memory charged per producer: its entry, and its share of the partition's index.
pub(super) const ENTRY_BYTES: usize = 112;
/// Memory charged once a producer has more than one batch.
const OLDER_BYTES: usize = 80;
/// Memory charged once a producer has taken part in a transaction.
const TXN_BYTES: usize = 32;
/// Entries are allocated in chunks, which never move.
const CHUNK: usize = 1024;
const NONE: u32 = u32::MAX;

/// One remembered batch. Its sequences and offsets both span `delta`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Batch {
    pub base_offset: i64,
    pub first_sequence: i32,
    pub delta: i32,
}

impl Batch {
    pub fn next_offset(&self) -> i64 {
        self.base_offset + i64::from(self.delta) + 1
    }
}

/// The batches of one producer, oldest first. A marker with a new epoch leaves none.
#[derive(Debug)]
pub(super) struct Batches {
    /// [`NO_BATCH`]: there is none at all.
    newest: Batch,
    older: Option<Box<Older>>,
}

const NO_BATCH: Batch = Batch { base_offset: -1, first_sequence: -1, delta: -1 };

#[derive(Clone, Copy, Debug, Default)]
struct Older {
    count: usize,
    batches: [Batch; WINDOW - 1],
}

impl Batches {
    pub fn new(batch: Batch) -> Batches {
        Batches { newest: batch, older: None }
    }

    pub fn none() -> Batches {
        Batches::new(NO_BATCH)
    }

    pub fn newest(&self) -> Option<&Batch> {
        Some(&self.newest).filter(|newest| **newest != NO_BATCH)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Batch> {
        let older = self.older.iter().flat_map(|older| &older.batches[..older.count]);
        older.chain(self.newest())
    }

    pub fn len(&self) -> usize {
        usize::from(self.newest().is_some()) + self.older.as_ref().map_or(0, |older| older.count)
    }

    /// Adds the newest batch; the oldest goes where there are more than [`WINDOW`].
    pub fn push(&mut self, batch: Batch) {
        let before = std::mem::replace(&mut self.newest, batch);
        if before == NO_BATCH {
            return;
        }
        let older = self.older.get_or_insert_default();
        if older.count == older.batches.len() {
            older.batches.copy_within(1.., 0);
            older.count -= 1;
        }
        older.batches[older.count] = before;
        older.count += 1;
    }

    /// The batches that end at or before `end`; `None` if there are none.
    fn until(&self, end: i64) -> Option<Batches> {
        let mut kept: Option<Batches> = None;
        for batch in self.iter().filter(|batch| batch.next_offset() <= end) {
            match &mut kept {
                Some(batches) => batches.push(*batch),
                None => kept = Some(Batches::new(*batch)),
            }
        }
        kept
    }
}

/// One producer of one partition.
#[derive(Debug)]
pub(super) struct Producer {
    pub id: i64,
    /// Wall time of the newest batch, ms.
    pub last_ms: i64,
    pub batches: Batches,
    pub epoch: i16,
    /// `None`: it has taken part in no transaction.
    pub txn: Option<Box<Txn>>,
}

/// A producer's part in transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Txn {
    /// The first record of the open transaction; -1: none is open.
    pub first_offset: i64,
    /// The newest marker, or the end of the newest batch without a sequence; -1: there is none.
    pub last_offset: i64,
    /// Of the coordinator that had the newest marker written; -1: there is none.
    pub coordinator_epoch: i32,
}

impl Default for Txn {
    fn default() -> Txn {
        Txn { first_offset: -1, last_offset: -1, coordinator_epoch: -1 }
    }
}

impl Producer {
    /// The first record of its open transaction.
    pub fn open(&self) -> Option<i64> {
        self.txn.as_ref().map(|txn| txn.first_offset).filter(|first| *first >= 0)
    }

    fn charge(&self) -> usize {
        let older = if self.batches.older.is_some() { OLDER_BYTES } else { 0 };
        ENTRY_BYTES + older + if self.txn.is_some() { TXN_BYTES } else { 0 }
    }
}

#[derive(Debug)]
struct Entry {
    producer: Producer,
    partition: u32,
    /// Neighbours in the order of idleness; a free entry uses `next` for the list of free ones.
    previous: u32,
    next: u32,
    /// It is in that order: it has no open transaction.
    linked: bool,
}

/// Producer ids from here on are taken for made up by clients: no broker gets so far.
const FIRST_INVENTED_ID: i64 = 1 << 62;

/// A share of one shard's producer memory, by partition.
#[derive(Debug)]
pub struct ProducerPool(RefCell<Pool>);

/// One partition's producers in the pool; they go when this is dropped.
#[derive(Debug)]
pub(super) struct PoolShare {
    pool: Rc<ProducerPool>,
    partition: u32,
}

impl ProducerPool {
    /// `limit_bytes`: this shard's share of `corelane.producer.state.max.bytes`.
    pub fn new(limit_bytes: usize) -> Rc<ProducerPool> {
        Rc::new(ProducerPool(RefCell::new(Pool {
            limit_bytes,
            bytes: 0,
            chunks: Vec::new(),
            free: NONE,
            oldest: NONE,
            newest: NONE,
            unsorted: false,
            open_bytes: 0,
            forgotten: 0,
            largest_id: -1,
            partitions: Slab::new(),
        })))
    }

    pub(super) fn share(self: &Rc<Self>) -> PoolShare {
        let partition = self.0.borrow_mut().partitions.insert(HashMap::new()) as u32;
        PoolShare { pool: self.clone(), partition }
    }

    /// Memory in use, as charged.
    pub fn bytes(&self) -> usize {
        self.0.borrow().bytes
    }

    /// The largest producer id seen so far, also of producers forgotten since; -1: none.
    pub fn largest_id(&self) -> i64 {
        self.0.borrow().largest_id
    }

    /// Producers forgotten for want of room since the last call.
    pub fn take_forgotten(&self) -> u64 {
        std::mem::take(&mut self.0.borrow_mut().forgotten)
    }
}

impl PoolShare {
    pub fn len(&self) -> usize {
        self.pool.0.borrow().index(self.partition).map_or(0, HashMap::len)
    }

    /// Shows `look` the producer.
    pub fn with<R>(&self, id: i64, look: impl FnOnce(&Producer) -> R) -> Option<R> {
        let pool = self.pool.0.borrow();
        let number = *pool.index(self.partition)?.get(&id)?;
        pool.entry(number).map(|entry| look(&entry.producer))
    }

    /// Changes the producer or adds it, makes it the least idle one, and makes room.
    pub fn put(&self, id: i64, change: impl FnOnce(Option<&mut Producer>) -> Option<Producer>) {
        let mut pool = self.pool.0.borrow_mut();
        pool.put(self.partition, id, change);
        pool.make_room();
    }

    /// As [`put`](Self::put) for a producer of an earlier run: `last_ms` orders
    /// it among the others.
    pub fn restore(&self, id: i64, change: impl FnOnce(Option<&mut Producer>) -> Option<Producer>) {
        let mut pool = self.pool.0.borrow_mut();
        pool.unsorted = true;
        pool.put(self.partition, id, change);
        pool.make_room();
    }

    /// There is memory for one more producer with an open transaction.
    pub fn has_room_for_transaction(&self) -> bool {
        let pool = self.pool.0.borrow();
        pool.open_bytes + ENTRY_BYTES + OLDER_BYTES + TXN_BYTES <= pool.limit_bytes / 2
    }

    /// Keeps of each producer what `keep` gives back.
    pub fn retain(&self, mut keep: impl FnMut(&Producer) -> Keep) {
        let mut pool = self.pool.0.borrow_mut();
        let Some(index) = pool.index(self.partition) else { return };
        let numbers: Vec<u32> = index.values().copied().collect();
        for number in numbers {
            let Some(entry) = pool.entry(number) else { continue };
            let batches = match keep(&entry.producer) {
                Keep::Whole => continue,
                Keep::Until(end) => entry.producer.batches.until(end),
            };
            match batches {
                None => pool.remove(number),
                Some(batches) => pool.replace(number, batches),
            }
        }
    }

    /// Shows `look` every producer, the one with the newest batch first.
    pub fn newest_first(&self, mut look: impl FnMut(&Producer)) {
        let pool = self.pool.0.borrow();
        let mut order: Vec<(i64, u32)> = Vec::with_capacity(self.len());
        for number in pool.index(self.partition).into_iter().flat_map(HashMap::values) {
            order.extend(pool.entry(*number).map(|entry| (entry.producer.last_ms, *number)));
        }
        order.sort_unstable_by_key(|(last_ms, _)| std::cmp::Reverse(*last_ms));
        for (_, number) in order {
            pool.entry(number).into_iter().for_each(|entry| look(&entry.producer));
        }
    }
}

/// The part of a producer that is kept.
pub(super) enum Keep {
    Whole,
    /// The batches that end at or before this offset.
    Until(i64),
}

impl Drop for PoolShare {
    fn drop(&mut self) {
        self.retain(|_| Keep::Until(i64::MIN));
        self.pool.0.borrow_mut().partitions.try_remove(self.partition as usize);
    }
}

#[derive(Debug)]
struct Pool {
    limit_bytes: usize,
    bytes: usize,
    chunks: Vec<Vec<Entry>>,
    /// Head of the list of free entries.
    free: u32,
    /// Ends of the list of producers in the order of their last batch.
    oldest: u32,
    newest: u32,
    /// Restored producers stand anywhere in the list.
    unsorted: bool,
    /// Memory of producers with an open transaction.
    open_bytes: usize,
    forgotten: u64,
    largest_id: i64,
    /// Per partition: producer id to number of entry.
    partitions: Slab<HashMap<i64, u32>>,
}

impl Pool {
    fn index(&self, partition: u32) -> Option<&HashMap<i64, u32>> {
        self.partitions.get(partition as usize)
    }

    fn entry(&self, number: u32) -> Option<&Entry> {
        self.chunks.get(number as usize / CHUNK)?.get(number as usize % CHUNK)
    }

    fn entry_mut(&mut self, number: u32) -> Option<&mut Entry> {
        self.chunks.get_mut(number as usize / CHUNK)?.get_mut(number as usize % CHUNK)
    }

    fn put(&mut self, partition: u32, id: i64, change: impl FnOnce(Option<&mut Producer>) -> Option<Producer>) {
        let known = self.index(partition).and_then(|index| index.get(&id)).copied();
        match known {
            Some(number) => {
                self.unlink(number);
                let Some(entry) = self.entry_mut(number) else { return };
                let before = entry.producer.charge();
                if let Some(replacement) = change(Some(&mut entry.producer)) {
                    entry.producer = replacement;
                }
                let after = entry.producer.charge();
                self.bytes = self.bytes + after - before;
                self.link(number);
            }
            None => {
                if let Some(producer) = change(None) {
                    self.insert(partition, producer);
                }
            }
        }
    }

    fn insert(&mut self, partition: u32, producer: Producer) {
        let (id, charge) = (producer.id, producer.charge());
        if id < FIRST_INVENTED_ID {
            self.largest_id = self.largest_id.max(id);
        }
        let entry = Entry { producer, partition, previous: NONE, next: NONE, linked: false };
        let number = match self.entry(self.free).map(|entry| entry.next) {
            Some(next) => {
                let number = std::mem::replace(&mut self.free, next);
                if let Some(place) = self.entry_mut(number) {
                    *place = entry;
                }
                number
            }
            None => self.grow(entry),
        };
        if let Some(index) = self.partitions.get_mut(partition as usize) {
            index.insert(id, number);
        }
        self.bytes += charge;
        self.link(number);
    }

    fn grow(&mut self, entry: Entry) -> u32 {
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        let full = (self.chunks.len() - 1) * CHUNK;
        let within = self.chunks.last_mut().map_or(0, |chunk| {
            chunk.push(entry);
            chunk.len() - 1
        });
        (full + within) as u32
    }

    fn replace(&mut self, number: u32, batches: Batches) {
        self.unlink(number);
        if let Some(entry) = self.entry_mut(number) {
            let before = entry.producer.charge();
            entry.producer.batches = batches;
            let after = entry.producer.charge();
            self.bytes = self.bytes + after - before;
        }
        self.link(number);
    }

    fn remove(&mut self, number: u32) {
        self.unlink(number);
        let free = self.free;
        let Some(entry) = self.entry_mut(number) else { return };
        entry.next = free;
        let (id, partition) = (entry.producer.id, entry.partition);
        let charge = entry.producer.charge();
        (entry.producer.batches.older, entry.producer.txn) = (None, None);
        self.free = number;
        self.bytes -= charge;
        if let Some(index) = self.partitions.get_mut(partition as usize) {
            index.remove(&id);
            // Otherwise a flood over many partitions would leave each with a large, empty table.
            if index.len() * 4 < index.capacity() {
                index.shrink_to(index.len() * 2);
            }
        }
    }

    /// Makes it the least idle one, or counts it with those that have an open transaction.
    fn link(&mut self, number: u32) {
        let open = self.entry(number).filter(|entry| entry.producer.open().is_some());
        match open.map(|entry| entry.producer.charge()) {
            Some(bytes) => self.open_bytes += bytes,
            None => self.link_newest(number),
        }
    }

    fn link_newest(&mut self, number: u32) {
        let previous = std::mem::replace(&mut self.newest, number);
        match self.entry_mut(previous) {
            Some(entry) => entry.next = number,
            None => self.oldest = number,
        }
        if let Some(entry) = self.entry_mut(number) {
            (entry.previous, entry.next, entry.linked) = (previous, NONE, true);
        }
    }

    fn unlink(&mut self, number: u32) {
        let Some(entry) = self.entry_mut(number) else { return };
        if !std::mem::replace(&mut entry.linked, false) {
            let bytes = entry.producer.charge();
            self.open_bytes -= bytes;
            return;
        }
        let (previous, next) = (entry.previous, entry.next);
        match self.entry_mut(previous) {
            Some(entry) => entry.next = next,
            None => self.oldest = next,
        }
        match self.entry_mut(next) {
            Some(entry) => entry.previous = previous,
            None => self.newest = previous,
        }
    }

    /// Forgets the longest idle producers until the rest fit, but never the least idle one.
    fn make_room(&mut self) {
        if self.bytes <= self.limit_bytes {
            return;
        }
        let mut target = self.limit_bytes;
        if std::mem::take(&mut self.unsorted) {
            self.sort();
            // Loading restores one partition after another: an eighth at a time, so that each
            // sort pays for many.
            target -= target / 8;
        }
        while self.bytes > target && self.oldest != self.newest {
            self.remove(self.oldest);
            self.forgotten += 1;
        }
    }

    /// Puts the list in the order of last batches.
    fn sort(&mut self) {
        let mut order = Vec::new();
        let mut number = self.oldest;
        while let Some(entry) = self.entry(number) {
            order.push((entry.producer.last_ms, number));
            number = entry.next;
        }
        order.sort_by_key(|(last_ms, _)| *last_ms);
        (self.oldest, self.newest) = (NONE, NONE);
        for (_, number) in order {
            self.link_newest(number);
        }
    }
}
