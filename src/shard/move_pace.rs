//! The rate that moves of replicas between data directories keep:
//! `replica.alter.log.dirs.io.max.bytes.per.second` (KIP-113), counted over all
//! shards of the broker.

use std::time::Duration;

use super::state::Shard;
use super::throttle::{Throttle, now_us};
use crate::runtime::clock;

/// The longest rest at a time, so that an end, or another rate, is noticed.
const REST: Duration = Duration::from_millis(100);

impl Shard {
    /// Bytes a second that may be copied now; `u64::MAX` or close to it: no limit.
    pub fn move_pace(&self) -> u64 {
        self.settings().replica_alter_log_dirs_io_max_bytes_per_second
    }

    /// Counts bytes that a move is about to copy, a few MiB, and rests until all moves of the
    /// broker are within the rate. `goes_on` is asked meanwhile: `false` ends the rest. A rate that
    /// is set meanwhile holds at once.
    pub async fn keep_move_pace(&self, bytes: u64, goes_on: &impl Fn() -> bool) {
        let throttles = self.throttles.borrow().clone();
        keep(&throttles.moves, bytes, &|| self.move_pace(), goes_on).await;
    }
}

async fn keep(throttle: &Throttle, bytes: u64, rate: &impl Fn() -> u64, goes_on: &impl Fn() -> bool) {
    throttle.count(usize::try_from(bytes).unwrap_or(usize::MAX), rate(), now_us());
    while let Some(until) = throttle.until(rate(), now_us()) {
        if !goes_on() {
            // They are not copied.
            throttle.forget();
            return;
        }
        let rest = Duration::from_micros(until.saturating_sub(now_us()));
        clock::sleep(rest.clamp(Duration::from_millis(1), REST)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::runtime::on_shard;

    #[test]
    fn moves_rest_until_they_are_within_the_rate() {
        on_shard(|| async {
            let (throttle, begun) = (Throttle::default(), clock::now());
            // A second's bytes are free, as for followers.
            for _ in 0..6 {
                keep(&throttle, 1_000_000, &|| 4_000_000, &|| true).await;
            }
            let took = begun.elapsed().as_secs_f64();
            assert!((0.45..2.0).contains(&took), "{took} s");
        });
    }

    #[test]
    fn an_end_and_another_rate_end_a_rest() {
        on_shard(|| async {
            let (throttle, begun) = (Throttle::default(), clock::now());
            let asked = Cell::new(0);
            let goes_on = || {
                asked.set(asked.get() + 1);
                asked.get() < 3
            };
            keep(&throttle, 50_000_000, &|| 1000, &goes_on).await;
            assert_eq!(asked.get(), 3, "it was resting");
            let rate = Cell::new(1000);
            let raised = || {
                rate.set(rate.get() + 1);
                rate.get()
            };
            keep(&throttle, 1, &raised, &|| true).await;
            assert_eq!(throttle.until(rate.get(), now_us()), None, "nothing is left of the old rate");
            keep(&throttle, 1 << 30, &|| u64::MAX, &|| true).await;
            // Called off, and the rate raised while nobody rests: nothing is owed.
            keep(&throttle, 50_000_000, &|| 1000, &|| false).await;
            keep(&throttle, 50_000_000, &|| 1000, &|| false).await;
            keep(&throttle, 1_000_000, &|| 10_000_000, &|| true).await;
            assert!(begun.elapsed() < Duration::from_secs(5));
        });
    }
}
