//! A partition's directory, whose path may be taken away from under those who work by it.

use std::cell::Cell;
use std::io;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::runtime::sync::Notify;

/// The directory of one log. Whoever opens or writes files by path holds a [`Visit`]; retiring the log waits for the last of
/// them and admits no more, so that nothing of it lands in the directory of a topic made again under the same name.
pub struct LogDir {
    path: PathBuf,
    retired: Cell<bool>,
    next_segment: Cell<u64>,
    visits: Cell<usize>,
    left: Notify,
}

impl LogDir {
    pub fn new(path: &Path) -> Rc<LogDir> {
        Rc::new(LogDir {
            path: path.to_path_buf(),
            retired: Cell::new(false),
            next_segment: Cell::new(0),
            visits: Cell::new(0),
            left: Notify::new(),
        })
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
        let dir = LogDir::new(Path::new("t-0"));
        let visit = dir.visit().unwrap();
        assert!(block_on(poll_once(dir.retire())).is_none());
        assert!(dir.visit().is_err());
        drop(visit);
        block_on(dir.retire());
    }
}
