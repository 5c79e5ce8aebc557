//! Records that consumers have before them, kept beyond the arena: a consumer that lags costs no
//! reads of the device (`corelane.cache.bytes`).
//!
//! A written chunk of the arena serves consumers until its memory is wanted. One that a consumer
//! of the log has not read by then is copied, where that consumer is likely to come to it before
//! the copy has to go; it goes when all of them have read it, or are not expected any more. Where
//! nobody reads, or everybody reads at the tail, nothing is copied. A log has its copies in pieces
//! of its own, which count as a whole.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::behind::Behind;
use super::log::Log;
use super::readers::Place;
use super::slices::Slices;
use super::tail_cache::{Tail, TailBudget};
use crate::runtime::clock;
use crate::runtime::memory::HostMemory;
use crate::runtime::pieces::{Copied, Copies, PIECE_BYTES, give_back};

/// Memory of the host that is left alone, bytes; of a small one a quarter.
const LEFT_ALONE: u64 = 1 << 30;
const LEFT_PART: u64 = 4;

/// One shard's copies.
pub struct Kept {
    budget: Rc<TailBudget>,
    /// The share of `corelane.cache.bytes`.
    most: usize,
    /// Nothing was held at the last look.
    was_empty: Cell<bool>,
    /// There is memory to give back to the kernel.
    gives_back: Cell<bool>,
}

impl Kept {
    pub fn new(most: usize) -> Kept {
        Kept { budget: TailBudget::new(most), most, was_empty: Cell::new(true), gives_back: Cell::new(false) }
    }

    /// Bytes held, and the bound.
    pub fn bytes(&self) -> (usize, usize) {
        self.budget.bytes()
    }

    /// Consumers that lag are to find copies here.
    pub fn is_wanted(&self) -> bool {
        self.most > 0
    }

    /// It has nothing, nothing to give back either, and may have all of its share.
    pub fn is_at_rest(&self) -> bool {
        self.bytes() == (0, self.most) && !self.gives_back.get()
    }

    /// A log's part, empty.
    pub fn of_log(&self) -> KeptOfLog {
        KeptOfLog { tail: Tail::new(self.budget.clone()), copies: RefCell::default() }
    }

    /// Makes the bound fit to the memory that there is; this is one of `shards`.
    pub fn fit(&self, memory: &HostMemory, shards: u16) {
        let (used, before) = self.bytes();
        let total = bound(used, self.most, memory, shards);
        if total != before {
            self.budget.set_total(total);
        }
        let is_empty = self.bytes().0 == 0;
        let stays_empty = self.was_empty.replace(is_empty) && is_empty;
        if total < before || stays_empty || self.gives_back.get() {
            self.gives_back.set(give_back());
        }
    }
}

/// One log's copies.
pub struct KeptOfLog {
    tail: Rc<Tail>,
    copies: RefCell<Copies>,
}

impl KeptOfLog {
    pub fn is_empty(&self) -> bool {
        self.tail.is_empty()
    }

    /// See [`Tail::collect`].
    pub fn collect(&self, segment: i64, start: u64, end: u64, out: &mut Slices) -> u64 {
        self.tail.collect(segment, start, end, out)
    }

    pub fn drop_before(&self, place: Place) {
        self.tail.drop_before(place);
    }

    pub fn forget(&self) {
        self.tail.forget();
    }

    fn copy(&self, (segment, start): Place, bytes: &[u8]) {
        let (mut copies, mut rest, mut position) = (self.copies.borrow_mut(), bytes, start);
        while !rest.is_empty() {
            if !self.tail.ends_at(segment, position) {
                copies.close();
            }
            // Without memory it is read from the device.
            let Ok(Copied { bytes, added, is_new }) = copies.copy_some(rest) else { return };
            if is_new {
                self.tail.push_copy(segment, position, bytes, PIECE_BYTES);
            } else {
                self.tail.extend_copy(bytes);
            }
            rest = &rest[added..];
            position += added as u64;
        }
    }
}

fn bound(used: usize, most: usize, memory: &HostMemory, shards: u16) -> usize {
    let left_alone = LEFT_ALONE.min(memory.total / LEFT_PART);
    let shards = u64::from(shards.max(1));
    let (more, less) = match memory.available.checked_sub(left_alone) {
        Some(more) => (more / shards, 0),
        None => (0, (left_alone - memory.available).div_ceil(shards)),
    };
    let fits = (used as u64 + more).saturating_sub(less);
    let fits = if memory.is_short { fits.min(used as u64 / 2) } else { fits };
    most.min(usize::try_from(fits).unwrap_or(usize::MAX))
}

impl Log {
    /// Keeps a written chunk whose memory is wanted for a consumer that has it before it.
    pub(super) fn keep_for_readers(&self, kept: &KeptOfLog, start: Place, bytes: &[u8]) {
        let end = (start.0, start.1 + bytes.len() as u64);
        let share = self.context.kept.budget.fair_share(!kept.is_empty()) as u64;
        let reader = self.readers.nearest_before(end, clock::now());
        if reader.is_some_and(|reader| self.bytes_between(reader, end, share) <= share) {
            kept.copy(start, bytes);
        }
    }

    /// Drops copies that no consumer is expected to read.
    pub fn drop_unwanted_copies(&self) {
        let Some(kept) = self.behind.get().map(Behind::kept).filter(|kept| !kept.is_empty()) else { return };
        match self.readers.last(clock::now()) {
            // There is nothing to read before the first segment.
            Some(place) => kept.drop_before(place.max((self.first_segment(), 0))),
            None => kept.forget(),
        }
    }

    fn first_segment(&self) -> i64 {
        self.segments.borrow().first_key_value().map_or(0, |(base, _)| *base)
    }

    /// Bytes from one place to another, or more than `enough`.
    fn bytes_between(&self, from: Place, to: Place, enough: u64) -> u64 {
        let segments = self.segments.borrow();
        let mut bytes = 0;
        for segment in segments.range(from.0..to.0).map(|(_, segment)| segment) {
            bytes +=
                segment.size.get() - if segment.base_offset == from.0 { from.1.min(segment.size.get()) } else { 0 };
            if bytes > enough {
                return bytes;
            }
        }
        bytes + to.1.saturating_sub(if from.0 == to.0 { from.1 } else { 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_follows_the_memory_that_there_is() {
        const GIB: u64 = 1 << 30;
        let memory = |available| HostMemory { total: 32 * GIB, available, is_short: false };
        let (used, most) = (GIB as usize, 4 * GIB as usize);
        assert_eq!(bound(used, most, &memory(20 * GIB), 2), most);
        assert_eq!(bound(used, most, &memory(3 * GIB), 2), 2 * used);
        assert_eq!(bound(used, most, &memory(GIB), 2), used);
        assert_eq!(bound(used, most, &memory(GIB / 2), 2), used * 3 / 4);
        assert_eq!(bound(0, most, &memory(0), 2), 0);
        assert_eq!(bound(used, most, &HostMemory { is_short: true, ..memory(20 * GIB) }, 2), used / 2);
        // Of a small host a quarter is left alone.
        assert_eq!(bound(0, most, &HostMemory { total: 2 * GIB, available: GIB, is_short: false }, 1) as u64, GIB / 2);
    }
}
