//! Group commit: batches gather while a write is in flight, then leave as one aligned direct write.
//!
//! A group is a fresh buffer `[carried tail < 4096 | batches | zeros to 4096]`: the last block of
//! a segment is written again with each group that continues it, and never two such writes are in
//! flight together. When more waits than a group takes, the group is cut at an aligned position
//! (also within a batch), so that the next one shares no block with it and can be in flight
//! beside it. Each byte is copied once, into the group; its buffer never changes afterwards and
//! serves consumers at the tail.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::context::StorageLimits;
use super::ends::LogPosition;
use super::invariant::invariant;
use super::log::Log;
use super::segment::Segment;
use super::slices::Slices;
use crate::model::record_batch::BatchHeader;
use crate::runtime::disk::{ALIGNMENT, DiskBuf, FrozenBuf, MAX_IO_BYTES, align_down, align_up};
use crate::runtime::{clock, spawn_local};

/// A batch on its way to the device.
pub(super) struct Pending {
    /// Base offset, length and leader epoch as they go to disk: the batch's first 16 bytes.
    head: [u8; 16],
    batch: Bytes,
    /// Bytes that earlier groups took.
    taken: usize,
    next_offset: i64,
    pub position: u64,
    pub segment: Rc<Segment>,
}

/// A group in flight.
struct Flight {
    number: u64,
    /// Everything the group completes.
    at: LogPosition,
    segment: Rc<Segment>,
    start: u64,
    end: u64,
    /// Its bytes, from the block that `start` is in.
    bytes: Bytes,
    landed: bool,
}

/// The queue and its writer's state.
pub struct Appender {
    /// Largest group, bytes; aligned.
    group_bytes: u64,
    /// Groups in flight together.
    depth: usize,
    /// How long a batch that finds no group in flight waits for others.
    linger: Duration,
    /// Until when the front batch waits so.
    lingers_until: Cell<Option<Instant>>,
    /// True while the timer for that runs; there is one.
    linger_timer: Cell<bool>,
    /// Running mean of the newest groups' sizes.
    mean_group: Cell<u64>,
    pending: RefCell<VecDeque<Pending>>,
    pending_bytes: Cell<usize>,
    flights: RefCell<VecDeque<Flight>>,
    next_flight: Cell<u64>,
    running: Cell<bool>,
    /// Groups whose write has not returned, also of a log that has failed meanwhile.
    writing: Cell<usize>,
    /// The bytes of the newest group's last, unfinished block.
    carried: RefCell<Vec<u8>>,
    /// The end of the newest group: its segment and position.
    cursor: RefCell<Option<(i64, u64)>>,
}

impl Appender {
    pub fn new(limits: &StorageLimits) -> Appender {
        Appender {
            group_bytes: align_down(limits.write_max_bytes as u64).clamp(ALIGNMENT, MAX_IO_BYTES as u64),
            depth: limits.write_queue_depth.max(1),
            linger: limits.append_linger,
            lingers_until: Cell::new(None),
            linger_timer: Cell::new(false),
            mean_group: Cell::new(0),
            pending: RefCell::default(),
            pending_bytes: Cell::new(0),
            flights: RefCell::default(),
            next_flight: Cell::new(0),
            running: Cell::new(false),
            writing: Cell::new(0),
            carried: RefCell::default(),
            cursor: RefCell::new(None),
        }
    }

    /// A group is being sent, or its write is under way.
    pub fn is_busy(&self) -> bool {
        self.running.get() || self.writing.get() > 0
    }

    pub fn mean_group_bytes(&self) -> u64 {
        self.mean_group.get()
    }

    /// Takes a write's size into the mean.
    pub(super) fn note_group(&self, bytes: u64) {
        self.mean_group.set(match self.mean_group.get() {
            0 => bytes,
            mean => (7 * mean + bytes) / 8,
        });
    }

    #[cfg(test)]
    pub fn groups(&self) -> u64 {
        self.next_flight.get()
    }

    #[cfg(test)]
    pub fn in_flight(&self) -> usize {
        self.flights.borrow().len()
    }

    pub fn push(&self, pending: Pending) {
        let alone = self.pending.borrow().is_empty() && self.flights.borrow().is_empty();
        if alone && !self.linger.is_zero() {
            self.lingers_until.set(Some(clock::now() + self.linger));
        }
        self.pending_bytes.set(self.pending_bytes.get() + pending.left());
        self.pending.borrow_mut().push_back(pending);
    }

    /// Drops what waits (the log has failed).
    pub fn clear(&self) {
        self.pending.borrow_mut().clear();
        self.pending_bytes.set(0);
    }

    /// The bytes of the segment's unfinished last block, as recovery found them.
    pub fn resume(&self, segment: i64, end: u64, last_block: &[u8]) {
        *self.carried.borrow_mut() = last_block.to_vec();
        *self.cursor.borrow_mut() = Some((segment, end));
    }

    /// Appends to `out` the bytes of `[start, end)` of the segment that are on their way.
    pub fn collect(&self, segment: i64, start: u64, end: u64, out: &mut Slices) {
        for flight in self.flights.borrow().iter().filter(|flight| flight.segment.base_offset == segment) {
            let (low, high, front) = (flight.start.max(start), flight.end.min(end), align_down(flight.start));
            if low < high {
                out.push(&flight.bytes, (low - front) as usize..(high - front) as usize);
            }
        }
    }

    /// The place at which the log goes on, and the bytes of the unfinished block before it;
    /// nothing is appended here after.
    pub fn take_resume(&self) -> Option<(i64, u64, Vec<u8>)> {
        let (segment, end) = self.cursor.borrow_mut().take()?;
        Some((segment, end, self.carried.take()))
    }

    /// True if a group may leave now.
    fn may_leave(&self) -> bool {
        let flights = self.flights.borrow().len();
        let waiting = !self.pending.borrow().is_empty();
        let full = self.pending_bytes.get() as u64 >= self.group_bytes;
        let lingers = !full && self.lingers_until.get().is_some();
        waiting && ((flights == 0 && !lingers) || (full && flights < self.depth && !self.shares_a_block()))
    }

    /// True if the next group would write the newest group's last block again.
    fn shares_a_block(&self) -> bool {
        let pending = self.pending.borrow();
        let Some(front) = pending.front() else { return false };
        let start = front.place();
        !start.is_multiple_of(ALIGNMENT) && *self.cursor.borrow() == Some((front.segment.base_offset, start))
    }

    /// True if the bytes between the start of a block and `start`, which the group to begin there
    /// writes again, are at hand.
    fn knows_block_before(&self, segment: i64, start: u64) -> bool {
        let before = start - align_down(start);
        before == 0 || *self.cursor.borrow() == Some((segment, start)) && self.carried.borrow().len() as u64 == before
    }

    /// Where the next group begins and how long it will be: (segment, start, bytes).
    fn next_extent(&self) -> Option<(Rc<Segment>, u64, u64)> {
        let pending = self.pending.borrow();
        let front = pending.front()?;
        let start = front.place();
        let room = self.group_bytes - (start - align_down(start));
        let mut bytes = 0;
        for batch in pending.iter() {
            if !Rc::ptr_eq(&batch.segment, &front.segment) || bytes >= room {
                break;
            }
            bytes += (batch.batch.len() - batch.taken) as u64;
        }
        Some((front.segment.clone(), start, bytes.min(room)))
    }

    /// Copies `[start, start + bytes)` from the queue's front into a group.
    fn take_group(&self, segment: Rc<Segment>, start: u64, bytes: u64, last: LogPosition) -> (Flight, FrozenBuf) {
        let aligned = align_down(start);
        let end = start + bytes;
        let mut buf = DiskBuf::alloc((align_up(end) - aligned) as usize);
        let space = buf.as_mut_slice();
        let mut filled = (start - aligned) as usize;
        let mut carried = self.carried.borrow_mut();
        if filled > 0 {
            space[..filled].copy_from_slice(&carried[..filled]);
        }
        let mut at = last;
        let target = (end - aligned) as usize;
        let mut pending = self.pending.borrow_mut();
        while filled < target {
            let Some(front) = pending.front_mut() else { break };
            let n = (front.batch.len() - front.taken).min(target - filled);
            front.copy_to(&mut space[filled..filled + n]);
            filled += n;
            front.taken += n;
            if front.taken == front.batch.len() {
                at = front.log_position();
                pending.pop_front();
            }
        }
        space[target..].fill(0);
        carried.clear();
        carried.extend_from_slice(&space[(align_down(end) - aligned) as usize..target]);
        *self.cursor.borrow_mut() = Some((segment.base_offset, end));
        self.pending_bytes.set(self.pending_bytes.get() - bytes as usize);
        self.lingers_until.set(None);
        self.note_group(bytes);
        let number = self.next_flight.replace(self.next_flight.get() + 1);
        let buf = buf.freeze();
        (Flight { number, at, segment, start, end, bytes: buf.bytes(), landed: false }, buf)
    }
}

impl Pending {
    /// A batch that begins at `position` of `segment`; offset and epoch are
    /// patched in as it is copied.
    pub fn new(batch: Bytes, offsets: (i64, i64), leader_epoch: i32, position: u64, segment: Rc<Segment>) -> Pending {
        let (base_offset, next_offset) = offsets;
        let mut head = [0; 16];
        head[..8].copy_from_slice(&base_offset.to_be_bytes());
        head[8..12].copy_from_slice(&batch[8..12]);
        head[12..].copy_from_slice(&leader_epoch.to_be_bytes());
        Pending { head, batch, taken: 0, next_offset, position, segment }
    }

    /// Its CRC, as its header has it.
    pub fn crc(&self) -> u32 {
        BatchHeader::peek(&self.batch).map_or(0, |header| header.crc.get())
    }

    pub fn base_offset(&self) -> i64 {
        self.head.first_chunk().map_or(0, |base| i64::from_be_bytes(*base))
    }

    /// Its end.
    pub fn log_position(&self) -> LogPosition {
        let position = self.position + self.batch.len() as u64;
        LogPosition { offset: self.next_offset, segment: self.segment.clone(), position }
    }

    pub fn is_taken(&self) -> bool {
        self.taken == self.batch.len()
    }

    /// Bytes not yet taken.
    pub fn left(&self) -> usize {
        self.batch.len() - self.taken
    }

    /// Where the first of them belongs in the segment.
    pub fn place(&self) -> u64 {
        self.position + self.taken as u64
    }

    /// Hands up to `most` further bytes on, in order; how many.
    pub fn copy_some(&mut self, most: usize, mut copy: impl FnMut(&[u8])) -> usize {
        let count = self.left().min(most);
        let (from, to) = (self.taken, self.taken + count);
        let head_end = to.min(self.head.len()).max(from);
        copy(self.head.get(from..head_end).unwrap_or_default());
        copy(&self.batch[head_end..to]);
        self.taken = to;
        count
    }

    /// Copies the next `space.len()` bytes, with the head patched.
    fn copy_to(&self, space: &mut [u8]) {
        let (from, to) = (self.taken, self.taken + space.len());
        let head_end = to.min(self.head.len());
        let from_head = head_end.saturating_sub(from);
        if from_head > 0 {
            space[..from_head].copy_from_slice(&self.head[from..head_end]);
        }
        space[from_head..].copy_from_slice(&self.batch[from + from_head..to]);
    }
}

impl Log {
    /// Makes sure that a writer task looks at the queue.
    pub(super) fn wake_appender(self: &Rc<Self>) {
        if self.appender.may_leave() && !self.appender.running.replace(true) {
            spawn_local(self.clone().write_groups());
        } else if self.appender.lingers_until.get().is_some() && !self.appender.linger_timer.replace(true) {
            spawn_local(Log::end_linger(Rc::downgrade(self)));
        }
    }

    /// The timer of batches that wait for company. A group that leaves earlier ends their wait, and
    /// the timer finds none, or a later one.
    async fn end_linger(log: Weak<Log>) {
        loop {
            let left = {
                let Some(log) = log.upgrade() else { return };
                let until = log.appender.lingers_until.get();
                let left = until.map(|until| until.saturating_duration_since(clock::now()));
                match left {
                    Some(left) if !left.is_zero() => left,
                    _ => {
                        log.appender.lingers_until.set(None);
                        log.appender.linger_timer.set(false);
                        log.wake_appender();
                        return;
                    }
                }
            };
            clock::sleep(left).await;
        }
    }

    /// Runs while anything waits that may leave; landing writes start it again.
    async fn write_groups(self: Rc<Self>) {
        while self.failure.borrow().is_none() && self.appender.may_leave() {
            let Some((segment, start, bytes)) = self.appender.next_extent() else { break };
            if let Err(error) = self.clone().send_group(segment, start, bytes).await {
                self.fail("a write", &error);
            }
        }
        self.appender.running.set(false);
    }

    async fn send_group(self: Rc<Self>, segment: Rc<Segment>, start: u64, bytes: u64) -> io::Result<()> {
        let file = self.file_of(&segment).await?;
        self.ensure_allocated(&segment, &file, start + bytes).await?;
        // More may have gathered during the waits; the extent's start cannot have moved.
        let (segment, start, bytes) = loop {
            let Some((segment, start, bytes)) = self.appender.next_extent() else { return Ok(()) };
            if !segment.ahead.blocks(start + bytes) {
                break (segment, start, bytes);
            }
            self.progress.notified().await;
        };
        let last = match self.appender.flights.borrow().back() {
            Some(flight) => flight.at.clone(),
            None => self.positions.borrow().written.clone(),
        };
        let aligned = align_down(start);
        let knows = self.appender.knows_block_before(segment.base_offset, start);
        if !invariant!(self, knows, "the unfinished block before {start} of {} is not known", segment.base_offset) {
            return Ok(());
        }
        if align_up(start + bytes) > segment.allocated.get() {
            segment.allocated.set(align_up(start + bytes));
        }
        let (flight, buf) = self.appender.take_group(segment, start, bytes, last);
        self.sent_to(&flight.segment, &file, flight.end);
        self.tail.push(flight.segment.base_offset, start, flight.end, aligned, flight.bytes.clone());
        let (number, at) = (flight.number, flight.at.clone());
        self.appender.flights.borrow_mut().push_back(flight);
        self.note_sent(at, false);
        let log = self;
        log.appender.writing.set(log.appender.writing.get() + 1);
        spawn_local(async move {
            let written = file.write_at(&buf, aligned).await;
            log.appender.writing.set(log.appender.writing.get() - 1);
            match written {
                Ok(()) => log.landed(number),
                Err(error) => log.fail("a write", &error),
            }
            log.wake_appender();
        });
        Ok(())
    }

    /// Notes that a group has reached the device; the written point moves over every
    /// group that has, in order.
    fn landed(self: &Rc<Self>, number: u64) {
        if self.failure.borrow().is_some() {
            return;
        }
        let mut moved = None;
        {
            let mut flights = self.appender.flights.borrow_mut();
            if let Some(flight) = flights.iter_mut().find(|f| f.number == number) {
                flight.landed = true;
            }
            while flights.front().is_some_and(|f| f.landed) {
                if let Some(flight) = flights.pop_front() {
                    let before = flight.segment.written.replace(flight.end);
                    let unsynced = &self.context.unsynced_bytes;
                    unsynced.set(unsynced.get() + (flight.end - before));
                    moved = Some(flight.at);
                }
            }
        }
        if let Some(at) = moved {
            let advanced = at.offset > self.ends().written;
            self.note_written(at);
            if advanced {
                self.after_write();
            } else {
                self.progress.notify_all();
            }
        }
    }
}
