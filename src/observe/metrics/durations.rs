//! Durations by size, as in an HDR histogram: each doubling has sixteen buckets, so one
//! that is read back is wrong by 1/16 at most. `hdrhistogram` itself has no counts that
//! another thread could read.
//!
//! The unit is 1/1024 ms, so that whole doublings are 1, 2, 4, ... ms.

use std::collections::BTreeMap;
use std::time::Duration;

use super::counters::Count;

/// Buckets a doubling, as a power of two.
const FINE: u32 = 4;
/// Durations from this power of two of the unit on (131 s) share the last bucket.
const LARGEST: u32 = 27;
const BUCKETS: usize = (((LARGEST - FINE) << FINE) + (1 << FINE)) as usize;
/// Seconds in a unit.
const UNIT: f64 = 1e-3 / 1024.0;
/// Upper bounds that are told of, as powers of two of the unit: 31 µs to 16 ms by doublings, to
/// 67 s by every other one.
const TOLD: [u32; 16] = [5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 16, 18, 20, 22, 24, 26];
/// Buckets a doubling of a native histogram, as a power of two: its schema.
const SCHEMA: i32 = 3;

/// Counts of one writer.
pub struct Durations {
    buckets: [Count; BUCKETS],
    sum_ns: Count,
}

/// A duration, and the bucket that it goes into.
#[derive(Clone, Copy, Debug)]
pub struct Spell {
    pub ns: u64,
    bucket: usize,
}

impl Spell {
    pub fn of(ns: u64) -> Spell {
        // Times 1024 / 1,000,000.
        Spell { ns, bucket: bucket_of(ns.wrapping_mul(16) / 15_625) }
    }
}

impl Default for Durations {
    fn default() -> Durations {
        Durations { buckets: std::array::from_fn(|_| Count::default()), sum_ns: Count::default() }
    }
}

fn bucket_of(units: u64) -> usize {
    let units = units.min((1 << LARGEST) - 1);
    if units < 1 << FINE {
        return units as usize;
    }
    let doubling = units.ilog2();
    let within = (units >> (doubling - FINE)) & ((1 << FINE) - 1);
    (((doubling - FINE + 1) << FINE) as u64 + within) as usize
}

/// The first value, in units, that is in no bucket up to this one.
fn end_of(bucket: usize) -> u64 {
    let (doubling, within) = (bucket >> FINE, (bucket & ((1 << FINE) - 1)) as u64);
    match doubling {
        0 => within + 1,
        _ => ((1 << FINE) + within + 1) << (doubling - 1),
    }
}

impl Durations {
    /// By the one thread that writes.
    pub fn record(&self, duration: Duration) {
        self.add(Spell::of(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)));
    }

    /// As [`record`](Self::record), of what was made once for several.
    pub fn add(&self, Spell { ns, bucket }: Spell) {
        if let Some(bucket) = self.buckets.get(bucket) {
            bucket.add(1);
        }
        self.sum_ns.add(ns);
    }

    /// As [`add`](Self::add), of no time at all.
    pub fn add_none(&self) {
        self.buckets[0].add(1);
    }

    /// Adds what is counted here to `spread`.
    pub fn add_to(&self, spread: &mut Spread) {
        spread.buckets.resize(BUCKETS, 0);
        for (sum, bucket) in spread.buckets.iter_mut().zip(&self.buckets) {
            *sum += bucket.get();
        }
        spread.sum_ns += self.sum_ns.get();
    }
}

/// Counts that were read, of several writers perhaps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Spread {
    buckets: Vec<u64>,
    sum_ns: u64,
}

impl Spread {
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    pub fn sum_seconds(&self) -> f64 {
        self.sum_ns as f64 / 1e9
    }

    /// Upper bounds in seconds, the last one infinite, and how many are between
    /// each and the one before.
    pub fn told(&self) -> Vec<(f64, u64)> {
        let mut told: Vec<(f64, u64)> = TOLD.iter().map(|power| (seconds(1 << power), 0)).collect();
        let mut beyond = 0;
        for (bucket, count) in self.buckets.iter().enumerate().filter(|(_, count)| **count > 0) {
            let end = end_of(bucket);
            let place = TOLD.iter().position(|power| end <= 1 << power);
            match place.and_then(|place| told.get_mut(place)) {
                Some((_, sum)) => *sum += count,
                None => beyond += count,
            }
        }
        told.push((f64::INFINITY, beyond));
        told
    }

    /// Upper bounds in microseconds of all that is not empty, within 1/16, and
    /// how many are in each.
    pub fn fine(&self) -> impl Iterator<Item = (f64, u64)> {
        let full = self.buckets.iter().enumerate().filter(|(_, count)| **count > 0);
        full.map(|(bucket, count)| (seconds(end_of(bucket)) * 1e6, *count))
    }

    /// As a native histogram of [`schema`](Self::schema): the count at zero, and the
    /// counts by exponential bucket.
    pub fn native(&self) -> (u64, BTreeMap<i32, u64>) {
        let (mut zero, mut native) = (0, BTreeMap::new());
        for (bucket, count) in self.buckets.iter().enumerate().filter(|(_, count)| **count > 0) {
            match bucket {
                0 => zero += count,
                _ => {
                    let middle = (seconds(end_of(bucket - 1)) + seconds(end_of(bucket))) / 2.0;
                    let index = (middle.log2() * f64::from(1 << SCHEMA)).ceil() as i32;
                    *native.entry(index).or_default() += count;
                }
            }
        }
        (zero, native)
    }

    pub fn schema() -> i32 {
        SCHEMA
    }

    /// Seconds up to which durations count as none.
    pub fn zero_threshold() -> f64 {
        UNIT
    }
}

fn seconds(units: u64) -> f64 {
    units as f64 * UNIT
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread_of(durations: &[Duration]) -> Spread {
        let counts = Durations::default();
        for duration in durations {
            counts.record(*duration);
        }
        let mut spread = Spread::default();
        counts.add_to(&mut spread);
        spread
    }

    #[test]
    fn buckets_follow_each_other_without_a_gap() {
        let mut begin = 0;
        for bucket in 0..BUCKETS {
            let end = end_of(bucket);
            assert_eq!((bucket_of(begin), bucket_of(end - 1)), (bucket, bucket));
            assert!(end - begin <= (begin / 16).max(1), "bucket {bucket} is wider than 1/16");
            begin = end;
        }
        assert_eq!(begin, 1 << LARGEST);
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn durations_are_told_by_bound() {
        let ms = |ms: u64| Duration::from_micros(ms * 1000);
        let spread =
            spread_of(&[Duration::from_nanos(900), Duration::from_micros(999), ms(3), ms(3), ms(1000), ms(90_000)]);
        let told: Vec<(f64, u64)> = spread.told().into_iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(told, [(0.00003125, 1), (0.001, 1), (0.004, 2), (1.024, 1), (f64::INFINITY, 1)]);
        assert_eq!(spread.count(), 6);
        assert!((spread.sum_seconds() - 91.006_999_9).abs() < 1e-6, "{}", spread.sum_seconds());
    }

    #[test]
    fn fine_bounds_are_near_the_durations() {
        let spread = spread_of(&[Duration::from_micros(100), Duration::from_micros(100), Duration::from_secs(3)]);
        let fine: Vec<(f64, u64)> = spread.fine().collect();
        assert_eq!(fine.iter().map(|(_, count)| *count).collect::<Vec<_>>(), [2, 1]);
        assert!(fine.iter().zip([100.0, 3e6]).all(|((upper, _), us)| (us..us * 1.07).contains(upper)), "{fine:?}");
    }

    #[test]
    fn a_native_histogram_has_each_duration_near_its_size() {
        for ns in [2_000u64, 70_000, 1_000_000, 1_234_567, 900_000_000, 20_000_000_000] {
            let (zero, native) = spread_of(&[Duration::from_nanos(ns)]).native();
            let (index, count) = native.into_iter().next().unwrap();
            let upper = 2f64.powf(f64::from(index) / 8.0);
            let value = ns as f64 / 1e9;
            assert_eq!((zero, count), (0, 1));
            assert!((0.80..1.30).contains(&(upper / value)), "{value} is in the bucket up to {upper}");
        }
        assert_eq!(spread_of(&[Duration::from_nanos(100)]).native(), (1, BTreeMap::new()));
    }

    #[test]
    fn counts_of_several_writers_add_up() {
        let (one, two) = (Durations::default(), Durations::default());
        one.record(Duration::from_millis(2));
        two.record(Duration::from_millis(2));
        two.record(Duration::from_millis(30));
        let mut sum = Spread::default();
        [one, two].iter().for_each(|counts| counts.add_to(&mut sum));
        assert_eq!(sum, spread_of(&[2, 2, 30].map(Duration::from_millis)));
    }
}
