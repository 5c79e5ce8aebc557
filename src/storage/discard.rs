//! Segments that have left the log: their files are put aside under a name that says
//! so, and removed `file.delete.delay.ms` later. A start removes what it finds of
//! them at once, as in Kafka.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::compaction::Step;
use super::context::StorageContext;
use super::log::Log;
use super::maintenance::remove_files;
use super::paths::SEGMENT_FILES;
use super::segment::Segment;
use crate::runtime::{clock, fs, spawn_blocking};

/// Files of one shard that wait for their removal, by its time.
#[derive(Default)]
pub(super) struct Discarded(RefCell<BTreeMap<Instant, Vec<PathBuf>>>);

impl Discarded {
    fn add(&self, delay: Duration, paths: Vec<PathBuf>) {
        self.0.borrow_mut().entry(clock::now() + delay).or_default().extend(paths);
    }

    /// Takes out what is due at `now`.
    fn take_due(&self, now: Instant) -> Vec<PathBuf> {
        let mut waiting = self.0.borrow_mut();
        // `split_off` keeps what is due before the key.
        let later = waiting.split_off(&(now + Duration::from_nanos(1)));
        std::mem::replace(&mut *waiting, later).into_values().flatten().collect()
    }
}

impl StorageContext {
    /// Removes the files whose time has come. What cannot be removed goes at the next start.
    pub async fn remove_discarded(&self) {
        let due = self.discarded.take_due(clock::now());
        if due.is_empty() {
            return;
        }
        spawn_blocking(move || {
            for path in due {
                match fs::remove_file(&path) {
                    // The whole directory may have gone meanwhile.
                    Err(error) if error.kind() != ErrorKind::NotFound => {
                        tracing::error!(path = %path.display(), %error, "removing a file of a segment failed; it goes at the next start");
                    }
                    _ => {}
                }
            }
        })
        .await;
    }
}

impl Log {
    fn delete_delay(&self) -> Duration {
        if self.disk.is_short() {
            return Duration::ZERO;
        }
        Duration::from_millis(self.config().file_delete_delay_ms)
    }

    /// Takes the files of a segment that has left the log out of the way. The log file goes last:
    /// an index behind the log's end says that its log is missing.
    pub(super) async fn discard(&self, segment: &Segment) -> io::Result<()> {
        let delay = self.delete_delay();
        if delay.is_zero() {
            return remove_files(segment).await;
        }
        let files = SEGMENT_FILES.map(|e| (segment.path(e), segment.path(&format!("{e}.deleted"))));
        let put_aside = spawn_blocking(move || {
            let mut aside = Vec::new();
            for (from, to) in files {
                match fs::rename(from, &to) {
                    Ok(()) => aside.push(to),
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(aside)
        });
        self.context.discarded.add(delay, put_aside.await?);
        Ok(())
    }

    /// Puts off the removal of log files that cleaning has set aside; returns
    /// what is to be done at once.
    pub(super) fn remove_later(&self, steps: Vec<Step>) -> Vec<Step> {
        let delay = self.delete_delay();
        if delay.is_zero() {
            return steps;
        }
        let (later, now) = steps.into_iter().partition::<Vec<_>, _>(
            |step| matches!(step, Step::Remove(path) if path.extension().is_some_and(|e| e == "deleted")),
        );
        let paths = later.into_iter().filter_map(|step| match step {
            Step::Remove(path) => Some(path),
            _ => None,
        });
        self.context.discarded.add(delay, paths.collect());
        now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_comes_out_once_and_the_rest_stays() {
        let (discarded, now) = (Discarded::default(), clock::now());
        for (delay, name) in [(2, "b"), (1, "a"), (3, "c")] {
            let due = now + Duration::from_secs(delay);
            discarded.0.borrow_mut().entry(due).or_default().push(name.into());
        }
        assert_eq!(discarded.take_due(now), Vec::<PathBuf>::new());
        assert_eq!(discarded.take_due(now + Duration::from_secs(2)), [PathBuf::from("a"), "b".into()]);
        assert_eq!(discarded.take_due(now + Duration::from_secs(2)), Vec::<PathBuf>::new());
        assert_eq!(discarded.take_due(now + Duration::from_secs(9)), [PathBuf::from("c")]);
    }
}
