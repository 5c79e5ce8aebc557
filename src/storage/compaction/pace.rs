//! The rate that a shard's cleaner keeps: `log.cleaner.io.max.bytes.per.second`.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::runtime::clock;

/// The longest rest at a time, so that an end is noticed.
const REST: Duration = Duration::from_millis(100);
/// Upper bound on the time charged for one step. Beyond it a rate is a standstill anyway.
const MAX_CHARGE_SECONDS: f64 = 86_400.0;

/// Bytes charged against a rate. One for all cleanings of a shard: a row of small logs, and of
/// rounds of one log, is held to the rate as one large log is.
#[derive(Debug)]
pub struct Pace {
    bytes_per_second: f64,
    /// When everything charged so far is within the rate; `None`: nothing was charged yet.
    paid_until: Cell<Option<Instant>>,
}

impl Pace {
    pub fn new(bytes_per_second: f64) -> Pace {
        Pace { bytes_per_second, paid_until: Cell::new(None) }
    }

    /// Charges `bytes` whose transfer began at `begun`. Returns the moment from which on they are
    /// within the rate. Idle time before `begun` is not credited.
    fn charge(&self, bytes: u64, begun: Instant) -> Instant {
        let seconds = (bytes as f64 / self.bytes_per_second).min(MAX_CHARGE_SECONDS);
        let free_from = self.paid_until.get().map_or(begun, |paid| paid.max(begun));
        let paid_until = free_from + Duration::from_secs_f64(seconds);
        self.paid_until.set(Some(paid_until));
        paid_until
    }

    /// Charges `bytes`, then rests until they are within the rate; `ended` is asked meanwhile and
    /// ends the rest, but not the debt.
    pub async fn spend(&self, bytes: u64, begun: Instant, ended: &dyn Fn() -> bool) {
        let paid_until = self.charge(bytes, begun);
        while !ended() {
            let rest = paid_until.saturating_duration_since(clock::now());
            if rest.is_zero() {
                return;
            }
            clock::sleep(rest.min(REST)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_counts_however_small_the_steps() {
        let (pace, begun) = (Pace::new(1e6), clock::now());
        let mut paid_until = begun;
        for _ in 0..10_000 {
            paid_until = pace.charge(1_000, begun);
        }
        let took = (paid_until - begun).as_secs_f64();
        assert!((took - 10.0).abs() < 1e-3, "{took}");
        // The next log goes on from there.
        assert_eq!(pace.charge(2_000_000, begun + Duration::from_secs(3)), paid_until + Duration::from_secs(2));
    }

    #[test]
    fn idle_time_is_no_credit() {
        let (pace, begun) = (Pace::new(1e6), clock::now());
        let later = begun + Duration::from_secs(60);
        pace.charge(1_000_000, begun);
        assert_eq!(pace.charge(1_000_000, later), later + Duration::from_secs(1));
    }

    #[test]
    fn extreme_rates_are_charged_without_overflow() {
        let begun = clock::now();
        assert_eq!(Pace::new(f64::MAX).charge(u64::MAX, begun), begun);
        let slow = Pace::new(1e-300);
        slow.charge(u64::MAX, begun);
        assert_eq!(slow.charge(1, begun), begun + Duration::from_secs(2 * 86_400));
    }
}
