//! Room ahead of the appends: blocks reserved for the active segment's file, and zeros written
//! into the nearest of them.
//!
//! The first write into a reserved block is dear: the kernel hands it to a worker, and the file
//! system converts the extent in its journal. Large writes spread that over many bytes. Where
//! groups are small, or a sync follows each, which then commits the journal, zeros are therefore
//! written ahead, in large writes off the append path, so that groups fall into blocks that were
//! written before.
//!
//! Zeros never share a block with a group: they begin behind everything that was sent, and a group
//! that would reach into zeros in flight waits for them. It does not wait for zeros to begin: where
//! they fall behind, it goes into reserved blocks.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;

use super::invariant::invariant;
use super::log::Log;
use super::segment::Segment;
use crate::runtime::disk::{ALIGNMENT, DiskBuf, File, FrozenBuf, MAX_IO_BYTES, align_up};
use crate::runtime::spawn_local;

/// First reservation of a segment, bytes; it doubles with the segment.
const FIRST_RESERVE_BYTES: u64 = 256 * 1024;
/// Reserved at least for so many writes like the one that needs blocks: files that grow
/// side by side take turns on the disk, and each turn is an extent, which splits a write
/// and adds to the journal.
const RESERVED_WRITES: u64 = 8;
/// First step of zeros, and the smallest write of them; a segment that holds less gets none. Where
/// the largest step is smaller (simulated crashes), that one.
const FIRST_ZEROS_BYTES: u64 = 64 * 1024;
/// Largest write of zeros: as much as a group may have to wait for.
const MOST_ZEROS_BYTES: u64 = 1024 * 1024;
/// Where groups have caught up with the zeros, the next ones are begun so far ahead that
/// groups need not wait for them.
const HEAD_START_BYTES: u64 = 64 * 1024;
/// Writes that are synced one by one get zeros ahead of them while they are smaller on average.
const SYNCED_GROUP_BYTES: u64 = 256 * 1024;
const _: () = assert!(FIRST_ZEROS_BYTES <= MOST_ZEROS_BYTES && MOST_ZEROS_BYTES <= MAX_IO_BYTES as u64);
const _: () = assert!(FIRST_RESERVE_BYTES.is_multiple_of(ALIGNMENT) && HEAD_START_BYTES.is_multiple_of(ALIGNMENT));

/// One segment's zeros. Positions are aligned.
#[derive(Default)]
pub struct Ahead {
    /// End of everything that groups were sent to.
    sent: Cell<u64>,
    /// End of the zeros that have landed.
    zeroed: Cell<u64>,
    /// Zeros in flight; empty: none.
    in_flight: Cell<(u64, u64)>,
    /// The newest step.
    step: Cell<u64>,
    /// A task writes zeros. Sealing waits for it.
    running: Cell<bool>,
    /// Zeros could not be written: no more of them in this segment.
    failed: Cell<bool>,
}

impl Ahead {
    pub fn is_running(&self) -> bool {
        self.running.get()
    }

    #[cfg(test)]
    pub fn zeroed(&self) -> u64 {
        self.zeroed.get()
    }

    #[cfg(test)]
    pub fn has_zeros_in_flight(&self) -> bool {
        self.blocks(u64::MAX / 2)
    }

    #[cfg(test)]
    pub fn has_failed(&self) -> bool {
        self.failed.get()
    }

    /// Goes on with the steps that the segment before had come to.
    pub fn continue_from(&self, before: &Ahead) {
        self.step.set(before.step.get());
    }

    /// Notes that a group is sent to `[.., end)`.
    fn note_sent(&self, end: u64) {
        debug_assert!(!self.blocks(end), "a group up to {end} meets zeros in flight at {:?}", self.in_flight.get());
        self.sent.set(self.sent.get().max(align_up(end)));
    }

    /// True if a group that ends at `end` would reach into zeros in flight.
    pub fn blocks(&self, end: u64) -> bool {
        let (from, to) = self.in_flight.get();
        from < to && align_up(end) > from
    }

    /// Where the next zeros may begin; to be called once there is a step.
    fn begin(&self) -> u64 {
        let head_start = HEAD_START_BYTES.min(self.step.get());
        if self.zeroed.get() > self.sent.get() { self.zeroed.get() } else { self.sent.get() + head_start }
    }

    /// How far zeros should reach now, in steps of at most `most`; `None`: far enough already, or
    /// not worth it.
    fn target(&self, most: u64) -> Option<u64> {
        let sent = self.sent.get();
        let (reached, first) = (sent.max(self.step.get()), least_zeros(most));
        if most == 0 || self.failed.get() || reached < first {
            return None;
        }
        let doubling = 1 << reached.ilog2();
        let step = most.min(doubling).max(first);
        self.step.set(step);
        (self.zeroed.get().saturating_sub(sent) < step / 2).then(|| self.begin() + step)
    }
}

/// The smallest write of zeros where the largest step is `most`.
fn least_zeros(most: u64) -> u64 {
    FIRST_ZEROS_BYTES.min(most).max(ALIGNMENT)
}

/// Zeros to write from, one buffer per power of two, made on first use and never changed.
#[derive(Default)]
pub struct Zeros {
    buffers: RefCell<Vec<FrozenBuf>>,
}

impl Zeros {
    /// The largest that is not longer than `bytes`; `None`: it would be shorter than `least`.
    fn at_most(&self, bytes: u64, least: u64) -> Option<FrozenBuf> {
        if bytes < least {
            return None;
        }
        let len = 1usize << bytes.min(MOST_ZEROS_BYTES).ilog2();
        let mut buffers = self.buffers.borrow_mut();
        if let Some(buffer) = buffers.iter().find(|buffer| buffer.len() == len) {
            return Some(buffer.clone());
        }
        let mut buffer = DiskBuf::alloc(len);
        buffer.as_mut_slice().fill(0);
        let buffer = buffer.freeze();
        buffers.push(buffer.clone());
        Some(buffer)
    }
}

impl Log {
    /// Notes that a group is sent to `[.., end)` of the segment, and has zeros written ahead
    /// of it where that is due.
    pub(super) fn sent_to(self: &Rc<Self>, segment: &Rc<Segment>, file: &Rc<File>, end: u64) {
        segment.ahead.note_sent(end);
        if segment.ahead.running.get() || !self.wants_zeros() {
            return;
        }
        let most = self.context.limits.write_ahead_bytes;
        let Some(target) = segment.ahead.target(most) else { return };
        if segment.ahead.begin() + least_zeros(most) > target.min(segment.allocated.get()) {
            return;
        }
        // Marked before the task starts: sealing waits for it.
        segment.ahead.running.set(true);
        let (log, segment, file) = (self.clone(), segment.clone(), file.clone());
        spawn_local(async move {
            if let Err(error) = log.write_zeros(&segment, &file, target).await {
                tracing::debug!(path = %segment.path("log").display(), %error, "no more zeros ahead of this segment");
                segment.ahead.failed.set(true);
            }
            segment.ahead.in_flight.set((0, 0));
            segment.ahead.running.set(false);
            log.progress.notify_all();
        });
    }

    /// Writes are small, or a sync follows each, which would commit the journal for every block
    /// that is converted.
    fn wants_zeros(&self) -> bool {
        let small = match (self.syncs_each_batch(), self.behind.get()) {
            (true, _) => SYNCED_GROUP_BYTES,
            (false, None) => self.context.limits.write_ahead_group_bytes,
            (false, Some(_)) => 0,
        };
        self.appender.mean_group_bytes() < small
    }

    /// Writes zeros up to about `target`, within what is reserved.
    async fn write_zeros(&self, segment: &Rc<Segment>, file: &File, target: u64) -> io::Result<()> {
        let ahead = &segment.ahead;
        while self.failure.borrow().is_none() && !self.closing.get() && Rc::ptr_eq(segment, &self.active()) {
            let from = ahead.begin();
            let room = target.min(segment.allocated.get()).saturating_sub(from);
            let least = least_zeros(self.context.limits.write_ahead_bytes);
            let Some(buffer) = self.context.zeros.at_most(room, least) else { break };
            let len = buffer.len() as u64;
            let sent = ahead.sent.get();
            if !invariant!(self, from >= sent, "zeros at {from} over records, which reach to {sent}") {
                break;
            }
            ahead.in_flight.set((from, from + len));
            if !file.write_zeroes_range(from, len).await? {
                file.write_ahead(&buffer, from).await?;
            }
            ahead.in_flight.set((0, 0));
            ahead.zeroed.set(from + len);
            self.progress.notify_all();
        }
        Ok(())
    }

    /// Reserves blocks so that `[0, end)` lies within the file, and some ahead in the background.
    /// Extending writes are several times slower than writes into reserved blocks.
    pub(super) async fn ensure_allocated(
        self: &Rc<Self>,
        segment: &Rc<Segment>,
        file: &Rc<File>,
        end: u64,
    ) -> io::Result<()> {
        let limit = align_up(self.config.borrow().segment_bytes.max(end));
        let missing = end.saturating_sub(segment.allocated.get());
        let first = FIRST_RESERVE_BYTES.max(2 * segment.ahead.step.get()).max(RESERVED_WRITES * missing);
        let most = self.context.limits.preallocate_max_bytes;
        let step = segment.allocated.get().max(first).min(most);
        let _counting = (end > segment.allocated.get()).then(|| self.delays.blocks.count());
        while segment.allocating.get() && end > segment.allocated.get() {
            self.progress.notified().await;
            if self.failure.borrow().is_some() {
                return Ok(());
            }
        }
        let allocated = segment.allocated.get();
        let target = (align_up(end) + step).min(limit).max(align_up(end));
        if end > allocated {
            self.reserve(segment, file, align_up(end), target).await?;
        } else if end + step / 2 > allocated && target > allocated && !segment.allocating.get() {
            // Marked before the task starts: sealing waits for it.
            segment.allocating.set(true);
            let (log, segment, file) = (self.clone(), segment.clone(), file.clone());
            // Nothing is needed yet, so there is nothing to fail.
            spawn_local(async move { drop(log.reserve(&segment, &file, allocated, target).await) });
        }
        Ok(())
    }

    /// Extends the file to `end`, and towards `target` as far as the room on the disk allows. The
    /// error: there is no room for `end`. Failing to reserve is no harm: the write that needs the
    /// space then fails and says why.
    async fn reserve(&self, segment: &Segment, file: &File, end: u64, target: u64) -> io::Result<()> {
        segment.allocating.set(true);
        let reserved = self.reserve_blocks(segment, file, end, target).await;
        segment.allocating.set(false);
        self.progress.notify_all();
        reserved
    }

    async fn reserve_blocks(&self, segment: &Segment, file: &File, end: u64, target: u64) -> io::Result<()> {
        let allocated = segment.allocated.get();
        let target = self.within_room(allocated, end, target).await?;
        if target <= allocated {
            return Ok(());
        }
        match file.preallocate(allocated, target - allocated).await {
            Ok(()) => segment.allocated.set(target.max(segment.allocated.get())),
            Err(error) => {
                tracing::debug!(dir = %self.dir.display(), %error, "no blocks reserved ahead");
                // A file system that fills up meanwhile keeps what it gave:
                // sealing must cut that off.
                if let Ok(size) = file.size().await {
                    segment.allocated.set(size.max(segment.allocated.get()));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_double_with_the_segment_and_begin_behind_what_was_sent() {
        let (ahead, most) = (Ahead::default(), 1 << 20);
        ahead.note_sent(60_000);
        assert_eq!((ahead.target(most), ahead.target(0)), (None, None), "too small yet");
        for (sent, step) in [(100_000, 64 << 10), (300_000, 256 << 10), (50_000_000, most)] {
            ahead.note_sent(sent);
            assert_eq!(ahead.target(0), None);
            let target = ahead.target(most);
            assert_eq!((ahead.begin(), target), (align_up(sent) + HEAD_START_BYTES, Some(ahead.begin() + step)));
        }
        ahead.zeroed.set(51 << 20);
        assert_eq!(ahead.target(most), None, "enough room");
        ahead.note_sent((51 << 20) - (400 << 10));
        assert_eq!((ahead.begin(), ahead.target(most)), (51 << 20, Some(52 << 20)), "zeros go on where they ended");
        let next = Ahead::default();
        next.continue_from(&ahead);
        next.note_sent(10);
        assert_eq!(
            next.target(most),
            Some(4096 + HEAD_START_BYTES + most),
            "a rolled segment goes on with large steps"
        );
        next.failed.set(true);
        assert_eq!(next.target(most), None);
    }

    #[test]
    fn zeros_in_flight_hold_back_only_groups_that_reach_into_them() {
        let ahead = Ahead::default();
        assert!(!ahead.blocks(u64::MAX / 2));
        ahead.in_flight.set((65_536, 131_072));
        assert!(!ahead.blocks(65_536) && !ahead.blocks(61_441));
        assert!(ahead.blocks(65_537) && ahead.blocks(200_000));
    }
}
