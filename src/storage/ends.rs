//! The ends of a log: how far its batches have come on their way to the device, and the place of
//! an offset in its segments.

use std::rc::Rc;

use super::log::Log;
use super::reader::ReadError;
use super::segment::Segment;

/// The ends of a log by name: each is the offset after the last batch that has come so far.
/// `appended >= sent >= held >= written >= synced`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Offsets given.
    pub appended: i64,
    /// Can be read: stands in an arena, or in a group on its way to the device.
    pub sent: i64,
    /// Survives the process: stands in an arena with room for it on the disk.
    /// Without an arena as `written`.
    pub held: i64,
    /// Its direct write has completed, and all before it.
    pub written: i64,
    /// Survives a power cut.
    pub synced: i64,
}

/// A point between two batches: everything before `offset` lies before `position` of
/// `segment`, or in older segments.
#[derive(Clone)]
pub(super) struct LogPosition {
    pub offset: i64,
    pub segment: Rc<Segment>,
    pub position: u64,
}

impl LogPosition {
    /// How much of `segment` lies before the position.
    pub fn within(&self, segment: &Rc<Segment>) -> u64 {
        match segment.base_offset.cmp(&self.segment.base_offset) {
            std::cmp::Ordering::Less => segment.size.get(),
            // The position may still be in the segment whose place a cleaned one has
            // taken: then it is at its end.
            std::cmp::Ordering::Equal if segment.is_cleaned() && !Rc::ptr_eq(segment, &self.segment) => {
                segment.size.get()
            }
            std::cmp::Ordering::Equal => self.position,
            std::cmp::Ordering::Greater => 0,
        }
    }
}

/// The ends with their places, but for the appended one: that is the size of the active segment.
pub(super) struct EndPositions {
    pub sent: LogPosition,
    pub held: LogPosition,
    pub written: LogPosition,
    pub synced: LogPosition,
}

impl EndPositions {
    /// Everything before `end` is written and synced.
    pub fn all_at(end: LogPosition) -> EndPositions {
        EndPositions { sent: end.clone(), held: end.clone(), written: end.clone(), synced: end }
    }

    fn at(&self, offset: i64) -> Option<&LogPosition> {
        [&self.held, &self.sent, &self.written, &self.synced].into_iter().find(|at| at.offset == offset)
    }
}

impl Log {
    pub fn ends(&self) -> Ends {
        let positions = self.positions.borrow();
        Ends {
            appended: self.next_offset(),
            sent: positions.sent.offset,
            held: positions.held.offset,
            written: positions.written.offset,
            synced: positions.synced.offset,
        }
    }

    /// `callback` runs whenever one of the [`ends`](Self::ends) behind the appended one moves, or
    /// the log fails. It must not append.
    pub fn on_move(&self, callback: Box<dyn Fn()>) {
        *self.on_move.borrow_mut() = Some(callback);
    }

    /// Everything before `at` can be read; with `held` it survives the process as well.
    pub(super) fn note_sent(&self, at: LogPosition, held: bool) {
        {
            let mut positions = self.positions.borrow_mut();
            if held {
                positions.held = at.clone();
            }
            positions.sent = at;
        }
        self.announce();
    }

    /// Everything before `at` is written.
    pub(super) fn note_written(&self, at: LogPosition) {
        let mut positions = self.positions.borrow_mut();
        if at.offset > positions.held.offset {
            positions.held = at.clone();
        }
        positions.written = at;
    }

    /// Everything before `at` is synced.
    pub(super) fn note_synced(&self, at: LogPosition) {
        let mut positions = self.positions.borrow_mut();
        if at.offset > positions.synced.offset {
            positions.synced = at;
        }
    }

    /// Tells waiters that an end has moved, or that the log has failed.
    pub(super) fn announce(&self) {
        self.progress.notify_all();
        if let Some(callback) = self.on_move.borrow().as_ref() {
            callback();
        }
    }

    /// The place of `limit`, or of the sent end where that comes first; within a batch,
    /// the place where it begins.
    pub(super) async fn place_of(self: &Rc<Self>, limit: i64) -> Result<LogPosition, ReadError> {
        let known = {
            let positions = self.positions.borrow();
            positions.at(limit.min(positions.sent.offset)).cloned()
        };
        match known {
            Some(at) => Ok(at),
            None => self.through_exchanges(async |_| self.search_place_of(limit).await).await,
        }
    }

    pub(super) async fn search_place_of(self: &Rc<Self>, limit: i64) -> Result<LogPosition, ReadError> {
        let sent = self.positions.borrow().sent.clone();
        let Some(segment) = self.segment_at(limit - 1) else {
            let first = self.segments.borrow().values().next().cloned().unwrap_or_else(|| sent.segment.clone());
            return Ok(LogPosition { offset: limit, segment: first, position: 0 });
        };
        let size = sent.within(&segment);
        let position = match self.hints.find(limit).filter(|hint| hint.0 == segment.number && hint.1 <= size) {
            Some((_, position)) => position,
            None => self.find_offset(&segment, limit, size).await?.map_or(size, |found| found.position),
        };
        self.hints.note(limit, segment.number, position);
        Ok(LogPosition { offset: limit, segment, position })
    }
}
