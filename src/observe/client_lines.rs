//! Lines that clients can cause at will. From each place in the code a shard logs a few of them a second; the others are
//! counted, and the next line that is logged says how many they were (`held_back`).

use std::cell::Cell;

/// Lines a second from one place on one shard.
const PER_SECOND: u32 = 5;

thread_local! {
    static SECOND: Cell<u64> = const { Cell::new(0) };
}

/// Tells this shard's places the time, in seconds since whenever; to be called several times a second.
pub fn note_second(second: u64) {
    SECOND.set(second);
}

/// One place in the code that logs such lines; see [`client_line`].
#[derive(Debug)]
pub struct Place {
    second: Cell<u64>,
    said: Cell<u32>,
    held_back: Cell<u64>,
}

impl Place {
    #[allow(clippy::new_without_default, reason = "only the macro makes them")]
    pub const fn new() -> Place {
        Place { second: Cell::new(0), said: Cell::new(0), held_back: Cell::new(0) }
    }

    /// Whether to log now, and then how many lines were held back since the last one.
    pub fn may_log(&self) -> Option<u64> {
        let second = SECOND.get();
        if self.second.replace(second) != second {
            self.said.set(0);
        }
        if self.said.get() >= PER_SECOND {
            self.held_back.set(self.held_back.get() + 1);
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
            static PLACE: $crate::observe::Place = const { $crate::observe::Place::new() };
        }
        match PLACE.with($crate::observe::Place::may_log) {
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

    #[test]
    fn lines_are_limited_per_second_and_counted() {
        let place = Place::new();
        let said = |count: usize| (0..count).filter_map(|_| place.may_log()).collect::<Vec<_>>();
        note_second(7);
        assert_eq!(said(100), [0; 5]);
        note_second(8);
        assert_eq!(said(2), [95, 0]);
        note_second(9);
        assert_eq!(said(1), [0]);
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
