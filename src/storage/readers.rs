//! Where the consumers of a log are: who reads on from where it stopped is one of them, whatever
//! connection it comes by.

use std::cell::RefCell;
use std::time::{Duration, Instant};

/// Consumers of a log that are remembered; the one that has not come for longest goes first.
const MOST: usize = 16;
/// A consumer that has not come for so long is not expected any more.
const REMEMBERED: Duration = Duration::from_secs(120);

/// A place in a log: the base offset of a segment, and a position in it.
pub type Place = (i64, u64);

struct Reader {
    at: Place,
    seen: Instant,
    /// It has read on from where it was: no single look.
    goes_on: bool,
}

#[derive(Default)]
pub struct Readers(RefCell<Vec<Reader>>);

impl Readers {
    /// A consumer has read from one of `starts`, two names of the same place, up to `end`.
    pub fn note(&self, starts: [Place; 2], end: Place, now: Instant) {
        let mut readers = self.0.borrow_mut();
        let reader = Reader { at: end, seen: now, goes_on: false };
        if let Some(reader) = readers.iter_mut().find(|reader| starts.contains(&reader.at)) {
            (reader.at, reader.seen, reader.goes_on) = (end, now, true);
        } else if let Some(reader) = readers.iter_mut().find(|reader| reader.at == end) {
            // It reads beside another, or once more.
            reader.seen = now;
        } else if readers.len() < MOST {
            readers.push(reader);
        } else if let Some(oldest) = readers.iter_mut().min_by_key(|reader| reader.seen) {
            *oldest = reader;
        }
    }

    /// The place of the nearest consumer that has not read up to `end`.
    pub fn nearest_before(&self, end: Place, now: Instant) -> Option<Place> {
        self.forget_absent(now);
        self.0.borrow().iter().filter(|reader| reader.goes_on && reader.at < end).map(|reader| reader.at).max()
    }

    /// The place that every consumer has reached.
    pub fn last(&self, now: Instant) -> Option<Place> {
        self.forget_absent(now);
        self.0.borrow().iter().filter(|reader| reader.goes_on).map(|reader| reader.at).min()
    }

    fn forget_absent(&self, now: Instant) {
        self.0.borrow_mut().retain(|reader| now.saturating_duration_since(reader.seen) < REMEMBERED);
    }

    pub fn clear(&self) {
        self.0.borrow_mut().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::clock;

    fn read(readers: &Readers, start: Place, end: Place, now: Instant) {
        readers.note([start; 2], end, now);
    }

    #[test]
    fn consumers_are_told_apart_by_where_they_read_on() {
        let (readers, now) = (Readers::default(), clock::now());
        assert_eq!(readers.nearest_before((0, 100), now), None);
        read(&readers, (0, 0), (0, 10), now);
        assert_eq!(readers.nearest_before((0, 100), now), None, "a single look");
        read(&readers, (0, 10), (0, 20), now);
        assert_eq!(readers.nearest_before((0, 100), now), Some((0, 20)));
        assert_eq!(readers.nearest_before((0, 20), now), None, "it has read all of that");
        // Another one, further on; the first one goes on.
        read(&readers, (0, 40), (0, 50), now);
        read(&readers, (0, 50), (0, 60), now);
        assert_eq!(readers.nearest_before((0, 100), now), Some((0, 60)));
        assert_eq!((readers.nearest_before((0, 55), now), readers.last(now)), (Some((0, 20)), Some((0, 20))));
        read(&readers, (0, 20), (0, 60), now);
        assert_eq!(readers.nearest_before((0, 55), now), None);
        // Over the end of a segment.
        readers.note([(1, 0), (0, 60)], (1, 5), now);
        assert_eq!(readers.nearest_before((1, 9), now), Some((1, 5)));
    }

    #[test]
    fn who_has_not_come_for_long_is_forgotten() {
        let (readers, now) = (Readers::default(), clock::now());
        read(&readers, (0, 0), (0, 1), now);
        read(&readers, (0, 1), (0, 2), now);
        assert_eq!(readers.nearest_before((0, 9), now + REMEMBERED), None);
        let later = |seconds| now + Duration::from_secs(seconds);
        read(&readers, (0, 0), (0, 1), now);
        read(&readers, (0, 1), (0, 2), now);
        for other in 1..MOST as u64 {
            read(&readers, (9, other), (9, other + 100), later(other));
        }
        assert_eq!(readers.nearest_before((1, 0), later(20)), Some((0, 2)));
        read(&readers, (9, 90), (9, 99), later(20));
        assert_eq!(readers.nearest_before((1, 0), later(20)), None, "the longest away went");
    }
}
