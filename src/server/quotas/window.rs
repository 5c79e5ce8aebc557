//! The rate of a quantity over the last windows of time (Kafka's `Rate` over a `SampledStat`),
//! counted by all shards. Time is an argument.
//!
//! Windows begin at multiples of their length, for all clients alike, where Kafka's begin with the
//! first event; a sample is one word, so that shards add to it without a lock.

use std::sync::atomic::{AtomicU64, Ordering};

/// Number and length of the windows that a rate is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// Whole windows, and the one under way.
    pub count: usize,
    pub length_ms: u64,
}

impl Windows {
    /// Time that all whole windows take, ms.
    pub fn whole_ms(self) -> u64 {
        self.length_ms.saturating_mul(self.count.saturating_sub(1) as u64)
    }

    pub fn all_ms(self) -> u64 {
        self.length_ms.saturating_mul(self.count as u64)
    }
}

/// Bits of a sample that count; the others tell its window.
const AMOUNT_BITS: u32 = 40;
const LARGEST_AMOUNT: u64 = (1 << AMOUNT_BITS) - 1;
const WINDOWS: u64 = 1 << (u64::BITS - AMOUNT_BITS);

/// Amounts in each of the last windows.
#[derive(Debug)]
pub struct SampledRate {
    windows: Windows,
    /// By number of the window, modulo their count.
    samples: Box<[AtomicU64]>,
}

impl SampledRate {
    pub fn new(windows: Windows) -> SampledRate {
        let windows = Windows { count: windows.count.max(1), length_ms: windows.length_ms.max(1) };
        SampledRate { windows, samples: (0..windows.count).map(|_| AtomicU64::new(0)).collect() }
    }

    fn number(&self, now_ms: u64) -> u64 {
        // Never that of a sample that was not written yet.
        now_ms / self.windows.length_ms + 1
    }

    /// Counts `amount`; one sample holds 2^40 at most.
    pub fn add(&self, now_ms: u64, amount: u64) {
        let number = self.number(now_ms);
        let Some(sample) = self.samples.get((number % self.windows.count as u64) as usize) else { return };
        let added = |before: u64| {
            let so_far = if before >> AMOUNT_BITS == number % WINDOWS { before & LARGEST_AMOUNT } else { 0 };
            Some((number % WINDOWS) << AMOUNT_BITS | so_far.saturating_add(amount).min(LARGEST_AMOUNT))
        };
        let _ = sample.fetch_update(Ordering::Relaxed, Ordering::Relaxed, added);
    }

    /// Amount of the last windows, and the time in which it came, ms. The time that whole windows
    /// take at least: a client that begins has used nothing before.
    fn measure(&self, now_ms: u64) -> (u64, u64) {
        let (number, mut sum, mut oldest) = (self.number(now_ms), 0u64, 0);
        for sample in &self.samples {
            let sample = sample.load(Ordering::Relaxed);
            let age = (number % WINDOWS).wrapping_sub(sample >> AMOUNT_BITS) % WINDOWS;
            if sample != 0 && age < self.windows.count as u64 {
                sum += sample & LARGEST_AMOUNT;
                oldest = oldest.max(age);
            }
        }
        let under_way = now_ms % self.windows.length_ms;
        let elapsed = oldest * self.windows.length_ms + under_way;
        let missing = (self.windows.count as u64 - 1).saturating_sub(oldest);
        (sum, (elapsed + missing * self.windows.length_ms).max(1))
    }

    /// Time, ms, until the rate is back at `per_second` if `more` is counted as well and nothing
    /// after it; 0: it is not above.
    ///
    /// With a rate of O over a window of W, T is reached after X more where O * W / (W + X) = T.
    pub fn excess_ms(&self, now_ms: u64, more: u64, per_second: f64) -> u64 {
        let (sum, time_ms) = self.measure(now_ms);
        let rate = (sum + more) as f64 * 1000.0 / time_ms as f64;
        if rate > per_second { ((rate - per_second) / per_second * time_ms as f64).round() as u64 } else { 0 }
    }

    /// Nothing was counted in any of the last windows.
    pub fn is_idle(&self, now_ms: u64) -> bool {
        self.measure(now_ms).0 == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KAFKAS: Windows = Windows { count: 11, length_ms: 1000 };

    #[test]
    fn the_time_to_wait_is_kafkas() {
        let rate = SampledRate::new(KAFKAS);
        let now = 50_000;
        rate.add(now, 1_000_000);
        assert_eq!(rate.excess_ms(now, 0, 100_000.0), 0, "ten seconds' worth at once");
        rate.add(now, 500_000);
        assert_eq!(rate.excess_ms(now, 0, 100_000.0), 5000);
        assert_eq!(rate.excess_ms(now + 5000, 0, 100_000.0), 5000, "whole windows count from the begin");
        // With eleven seconds it is (1,500,000 / 11 - 100,000) / 100,000 * 11.
        assert_eq!(rate.excess_ms(now + 10_999, 0, 100_000.0), 4001);
        assert_eq!(rate.excess_ms(now + 11_000, 0, 100_000.0), 0, "forgotten");
        assert!(rate.is_idle(now + 11_000) && !rate.is_idle(now + 10_000));
        assert_eq!(rate.excess_ms(now + 11_000, 1_100_000, 100_000.0), 1000);
    }

    /// Bytes of a client that sends `size` whenever it may, by second.
    fn sent(per_second: f64, size: u64, seconds: u64) -> Vec<u64> {
        let rate = SampledRate::new(KAFKAS);
        let (mut now, mut by_second) = (700_123, vec![0; seconds as usize]);
        let begin = now;
        while now < begin + seconds * 1000 {
            rate.add(now, size);
            by_second[((now - begin) / 1000) as usize] += size;
            now += rate.excess_ms(now, 0, per_second).max(1);
        }
        by_second
    }

    #[test]
    fn a_rate_holds_over_time() {
        for (per_second, size) in [(10e6, 64 << 10), (1e6, 16 << 10), (1e6, 200_000), (100.0, 10)] {
            let by_second = sent(per_second, size, 120);
            let rate = |from: usize, seconds: usize| {
                by_second[from..from + seconds].iter().sum::<u64>() as f64 / seconds as f64 / per_second
            };
            assert!((0.97..1.05).contains(&rate(0, 120)), "{} times {per_second}", rate(0, 120));
            // The share of all windows may go at once, each ten to eleven seconds.
            let most = (0..110).map(|from| rate(from, 10)).fold(0.0, f64::max);
            assert!((1.0..2.3).contains(&most), "{most} times {per_second} within ten seconds");
        }
    }

    #[test]
    fn samples_are_bounded_and_windows_come_round() {
        let rate = SampledRate::new(KAFKAS);
        rate.add(0, u64::MAX);
        rate.add(0, 5);
        assert_eq!(rate.measure(0), (LARGEST_AMOUNT, 10_000));
        let late = (WINDOWS - 2) * 1000;
        let rate = SampledRate::new(KAFKAS);
        (0..4).for_each(|window| rate.add(late + window * 1000, 1));
        assert_eq!(rate.measure(late + 3000).0, 4);
        assert_eq!(SampledRate::new(Windows { count: 0, length_ms: 0 }).measure(5), (0, 1));
    }

    #[test]
    fn shards_add_side_by_side() {
        let rate = SampledRate::new(KAFKAS);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|n| rate.add(n / 10, 1)));
            }
        });
        assert_eq!(rate.measure(999).0, 40_000);
    }
}
