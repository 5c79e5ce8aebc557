//! The ends of a log: how far its batches have come on their way to the device, and the place of an offset in its segments.

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
    /// Survives the process: stands in an arena with room for it on the disk. Without an arena as `written`.
    pub held: i64,
    /// Its direct write has completed, and all before it.
    pub written: i64,
    /// Survives a power cut.
    pub synced: i64,
}

/// A point between two batches: everything before `offset` lies before `position` of `segment`, or in older segments.
#[derive(Clone)]
pub(super) struct Mark {
    pub offset: i64,
    pub segment: Rc<Segment>,
    pub position: u64,
}

impl Mark {
    /// How much of `segment` lies before the mark.
    pub fn within(&self, segment: &Rc<Segment>) -> u64 {
        match segment.base_offset.cmp(&self.segment.base_offset) {
            std::cmp::Ordering::Less => segment.size.get(),
            // The mark may still be in the segment whose place a cleaned one has taken: then it is at its end.
            std::cmp::Ordering::Equal if segment.is_cleaned() && !Rc::ptr_eq(segment, &self.segment) => {
                segment.size.get()
            }
            std::cmp::Ordering::Equal => self.position,
            std::cmp::Ordering::Greater => 0,
        }
    }
}

/// The ends with their places, but for the appended one: that is the size of the active segment.
pub(super) struct EndMarks {
    pub sent: Mark,
    pub held: Mark,
    pub written: Mark,
    pub synced: Mark,
}

impl EndMarks {
    /// Everything before `end` is written and synced.
    pub fn all_at(end: Mark) -> EndMarks {
        EndMarks { sent: end.clone(), held: end.clone(), written: end.clone(), synced: end }
    }

    fn at(&self, offset: i64) -> Option<&Mark> {
        [&self.held, &self.sent, &self.written, &self.synced].into_iter().find(|mark| mark.offset == offset)
    }
}

impl Log {
    pub fn ends(&self) -> Ends {
        let marks = self.marks.borrow();
        Ends {
            appended: self.next_offset(),
            sent: marks.sent.offset,
            held: marks.held.offset,
            written: marks.written.offset,
            synced: marks.synced.offset,
        }
    }

    /// `callback` runs whenever one of the [`ends`](Self::ends) behind the appended one moves, or the log fails. It must
    /// not append.
    pub fn on_move(&self, callback: Box<dyn Fn()>) {
        *self.on_move.borrow_mut() = Some(callback);
    }

    /// Everything before `mark` can be read; with `held` it survives the process as well.
    pub(super) fn note_sent(&self, mark: Mark, held: bool) {
        {
            let mut marks = self.marks.borrow_mut();
            if held {
                marks.held = mark.clone();
            }
            marks.sent = mark;
        }
        self.announce();
    }

    /// Everything before `mark` is written.
    pub(super) fn note_written(&self, mark: Mark) {
        let mut marks = self.marks.borrow_mut();
        if mark.offset > marks.held.offset {
            marks.held = mark.clone();
        }
        marks.written = mark;
    }

    /// Everything before `mark` is synced.
    pub(super) fn note_synced(&self, mark: Mark) {
        let mut marks = self.marks.borrow_mut();
        if mark.offset > marks.synced.offset {
            marks.synced = mark;
        }
    }

    /// Tells whoever waits that an end has moved, or that the log has failed.
    pub(super) fn announce(&self) {
        self.progress.notify_all();
        if let Some(callback) = self.on_move.borrow().as_ref() {
            callback();
        }
    }

    /// The place of `limit`, or of the sent end where that comes first; within a batch, the place where it begins.
    pub(super) async fn place_of(self: &Rc<Self>, limit: i64) -> Result<Mark, ReadError> {
        let known = {
            let marks = self.marks.borrow();
            marks.at(limit.min(marks.sent.offset)).cloned()
        };
        match known {
            Some(mark) => Ok(mark),
            None => self.through_exchanges(async |_| self.search_place_of(limit).await).await,
        }
    }

    pub(super) async fn search_place_of(self: &Rc<Self>, limit: i64) -> Result<Mark, ReadError> {
        let sent = self.marks.borrow().sent.clone();
        let Some(segment) = self.segment_at(limit - 1) else {
            let first = self.segments.borrow().values().next().cloned().unwrap_or_else(|| sent.segment.clone());
            return Ok(Mark { offset: limit, segment: first, position: 0 });
        };
        let size = sent.within(&segment);
        let position = match self.hints.find(limit).filter(|hint| hint.0 == segment.number && hint.1 <= size) {
            Some((_, position)) => position,
            None => self.find_offset(&segment, limit, size).await?.map_or(size, |found| found.position),
        };
        self.hints.note(limit, segment.number, position);
        Ok(Mark { offset: limit, segment, position })
    }
}
