//! Lines that repeat, as clients can cause them at will or thousands of partitions the same. From
//! each place in the code a shard logs a few of them a second; the others are counted, and the next
//! line that is logged says how many they were (`held_back`). Where no further one comes a line of
//! its own does so, some seconds later.

use std::cell::{Cell, RefCell};
use std::thread::LocalKey;

/// Lines a second from one place on one shard.
const PER_SECOND: u32 = 5;
/// A place that logs nothing more says what it held back after so many seconds.
const QUIET_SECONDS: u64 = 5;

thread_local! {
    static SECOND: Cell<u64> = const { Cell::new(0) };
    /// Places that have held lines back and not said so.
    static HOLDING: RefCell<Vec<&'static LocalKey<Place>>> = const { RefCell::new(Vec::new()) };
}

/// Tells this shard's places the time, in seconds since whenever; to be called
/// several times a second.
pub fn note_second(second: u64) {
    if SECOND.replace(second) != second {
        tell_held_back();
    }
}

fn tell_held_back() {
    let holding = HOLDING.take();
    let (quiet, others): (Vec<_>, Vec<_>) = holding.into_iter().partition(|place| place.with(Place::is_quiet));
    HOLDING.with_borrow_mut(|holding| holding.extend(others));
    for place in quiet {
        let (held_back, at) = place.with(|place| (place.held_back.take(), place.at));
        // The next line from there has said it already.
        if held_back > 0 {
            tracing::info!(held_back, at, "lines like those before were held back");
        }
    }
}

/// One place in the code that logs such lines; see [`client_line`].
#[derive(Debug)]
pub struct Place {
    /// Module and line.
    at: &'static str,
    second: Cell<u64>,
    said: Cell<u32>,
    held_back: Cell<u64>,
    /// Among those that hold lines back.
    holding: Cell<bool>,
}

impl Place {
    #[allow(clippy::new_without_default, reason = "only the macro makes them")]
    pub const fn new(at: &'static str) -> Place {
        Place { at, second: Cell::new(0), said: Cell::new(0), held_back: Cell::new(0), holding: Cell::new(false) }
    }

    /// It has been at rest for a while, and is none of those that hold back any more.
    fn is_quiet(&self) -> bool {
        let quiet = SECOND.get().saturating_sub(self.second.get()) >= QUIET_SECONDS;
        self.holding.set(!quiet);
        quiet
    }

    /// Lines held back since the last one, if one may be logged now. `this`: the place itself.
    pub fn may_log(&self, this: &'static LocalKey<Place>) -> Option<u64> {
        let second = SECOND.get();
        if self.second.replace(second) != second {
            self.said.set(0);
        }
        if self.said.get() >= PER_SECOND {
            self.held_back.set(self.held_back.get() + 1);
            if !self.holding.replace(true) {
                HOLDING.with_borrow_mut(|holding| holding.push(this));
            }
            return None;
        }
        self.said.set(self.said.get() + 1);
        Some(self.held_back.take())
    }
}

/// `client_line!(warn, field = value, "message")`: as `tracing::warn!`, within the limit.
macro_rules! client_line {
    ($level:ident, $($line:tt)+) => {{
        thread_local! {
            static PLACE: $crate::observe::Place =
                const { $crate::observe::Place::new(concat!(module_path!(), ":", line!())) };
        }
        match PLACE.with(|place| place.may_log(&PLACE)) {
            None => {}
            Some(0) => tracing::$level!($($line)+),
            Some(held_back) => tracing::$level!(held_back, $($line)+),
        }
    }};
}
pub(crate) use client_line;

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[test]
    fn lines_are_limited_per_second_and_counted() {
        thread_local! {
            static PLACE: Place = const { Place::new("here") };
        }
        let said =
            |count: usize| (0..count).filter_map(|_| PLACE.with(|place| place.may_log(&PLACE))).collect::<Vec<_>>();
        note_second(7);
        assert_eq!(said(100), [0; 5]);
        note_second(8);
        assert_eq!(said(2), [95, 0]);
        note_second(9);
        assert_eq!(said(1), [0]);
    }

    /// Lines logged while `work` runs.
    fn logged(work: impl FnOnce()) -> Vec<String> {
        #[derive(Clone, Default)]
        struct Lines(Arc<Mutex<Vec<u8>>>);
        impl std::io::Write for Lines {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.lock().unwrap().extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
        tracing::subscriber::with_default(subscriber, work);
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn what_was_held_back_is_told_though_nothing_follows() {
        let burst = || (0..20).for_each(|n| client_line!(warn, n, "again"));
        let lines = logged(|| {
            note_second(100);
            burst();
            note_second(101);
            burst();
            (102..140).for_each(note_second);
        });
        assert_eq!(lines.len(), 2 * PER_SECOND as usize + 1, "{lines:#?}");
        assert!(lines[5].contains("held_back=15"), "{lines:#?}");
        assert!(lines[10].contains("held back held_back=15 at=") && lines[10].contains("client_lines"), "{lines:#?}");
    }

    #[test]
    fn each_place_has_its_own_limit() {
        let counted = Cell::new(0);
        let count = || {
            counted.set(counted.get() + 1);
            counted.get()
        };
        note_second(1);
        for _ in 0..100 {
            // The fields are looked at only when the line is logged, so they count the lines.
            tracing::subscriber::with_default(tracing_subscriber::registry(), || {
                client_line!(warn, one = count(), "from here");
                client_line!(info, other = count(), "and from there");
            });
        }
        assert_eq!(counted.get(), 2 * PER_SECOND);
    }
}
