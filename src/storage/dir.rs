//! A partition's directory, whose path may be taken away from under those who work by it.

use std::cell::Cell;
use std::io;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::runtime::sync::Notify;

/// The directory of one log. A task that opens or writes files by path holds a [`Visit`]; retiring
/// the log waits for the last of them and admits no more, so that nothing of it lands in the
/// directory of a topic made again under the same name.
pub struct LogDir {
    path: PathBuf,
    retired: Cell<bool>,
    next_segment: Cell<u64>,
    visits: Cell<usize>,
    left: Notify,
    /// Segments of all logs of the shard.
    segments: Rc<Cell<usize>>,
}

/// One segment in the count of the shard's.
pub struct CountedSegment(Rc<Cell<usize>>);

impl Drop for CountedSegment {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl LogDir {
    /// `segments`: where the shard counts its segments.
    pub fn new(path: &Path, segments: Rc<Cell<usize>>) -> Rc<LogDir> {
        Rc::new(LogDir {
            path: path.to_path_buf(),
            retired: Cell::new(false),
            next_segment: Cell::new(0),
            visits: Cell::new(0),
            left: Notify::new(),
            segments,
        })
    }

    pub fn count_segment(&self) -> CountedSegment {
        self.segments.set(self.segments.get() + 1);
        CountedSegment(self.segments.clone())
    }

    /// A number that no other segment of the log has had since it was opened.
    pub fn take_segment_number(&self) -> u64 {
        self.next_segment.replace(self.next_segment.get() + 1)
    }

    /// An error once the log is retired.
    pub fn visit(&self) -> io::Result<Visit<'_>> {
        if self.retired.get() {
            let message = format!("{}: the partition is deleted, or being opened anew", self.path.display());
            return Err(io::Error::new(io::ErrorKind::NotFound, message));
        }
        self.visits.set(self.visits.get() + 1);
        Ok(Visit(self))
    }

    /// Ends all visits: admits no more and waits for those under way.
    pub async fn retire(&self) {
        self.retired.set(true);
        while self.visits.get() > 0 {
            self.left.notified().await;
        }
    }
}

impl Deref for LogDir {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

/// Work by path under way.
pub struct Visit<'a>(&'a LogDir);

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        self.0.visits.set(self.0.visits.get() - 1);
        self.0.left.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once};

    #[test]
    fn retiring_waits_for_visits_and_admits_no_more() {
        let dir = LogDir::new(Path::new("t-0"), Rc::default());
        let visit = dir.visit().unwrap();
        assert!(block_on(poll_once(dir.retire())).is_none());
        assert!(dir.visit().is_err());
        drop(visit);
        block_on(dir.retire());
    }
}
