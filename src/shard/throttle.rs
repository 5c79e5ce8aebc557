//! Throttles of replication (KIP-73): how many bytes a second replicas that are not in sync may be
//! sent by this broker, and may fetch. What a topic's `leader.replication.throttled.replicas` and
//! `follower.replication.throttled.replicas` name counts; held back is only who is not in sync.

use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::state::Shard;
use crate::model::{BrokerId, PartitionId};
use crate::partition::Replica;
use crate::runtime::clock;

/// After a quiet time so much of a second's bytes may go at once.
const CREDIT_US: u64 = 1_000_000;

/// Bytes a second, counted over all shards. Bytes that were counted at another rate count no more:
/// one fetch at a low rate would hold everybody back for days.
#[derive(Debug, Default)]
pub struct Throttle {
    /// When all bytes so far have had their time, µs.
    paid_us: AtomicU64,
    /// The rate at which they were counted.
    rate: AtomicU64,
}

impl Throttle {
    /// Counts bytes that have gone at `now`.
    pub(super) fn count(&self, bytes: usize, rate: u64, now_us: u64) {
        self.go_on_at(rate);
        let cost = u64::try_from(bytes as u128 * 1_000_000 / u128::from(rate.max(1))).unwrap_or(u64::MAX);
        let paid = |paid: u64| paid.max(now_us.saturating_sub(CREDIT_US)).saturating_add(cost);
        let _ = self.paid_us.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |before| Some(paid(before)));
    }

    /// Nothing may go before then, µs; `None`: it may now.
    pub(super) fn until(&self, rate: u64, now_us: u64) -> Option<u64> {
        self.go_on_at(rate);
        Some(self.paid_us.load(Ordering::Relaxed)).filter(|paid| *paid > now_us)
    }

    /// Bytes so far count no more.
    pub(super) fn forget(&self) {
        self.paid_us.store(0, Ordering::Relaxed);
    }

    fn go_on_at(&self, rate: u64) {
        if self.rate.swap(rate, Ordering::Relaxed) != rate {
            self.forget();
        }
    }
}

/// The throttles of a broker.
#[derive(Debug, Default)]
pub struct Throttles {
    leader: Throttle,
    follower: Throttle,
    /// Of moves between data directories.
    pub(super) moves: Throttle,
}

pub(super) fn now_us() -> u64 {
    clock::mono_ms().saturating_mul(1000)
}

/// Milliseconds in which `until`, µs, has come.
fn ms(until: u64) -> u64 {
    until.div_ceil(1000)
}

impl Shard {
    /// Records that were read for a follower.
    pub(super) fn count_sent(&self, replica: &Replica, bytes: usize) {
        if bytes > 0 && replica.log().config().leader_throttled.contains(replica.id.index.0, self.broker().0) {
            let rate = self.settings().leader_replication_throttled_rate;
            self.throttles.borrow().leader.count(bytes, rate, now_us());
        }
    }

    /// Records are not sent to `follower` before then, ms; `None`: they are.
    pub(super) fn send_later(&self, replica: &Replica, follower: BrokerId) -> Option<u64> {
        let held = replica.log().config().leader_throttled.contains(replica.id.index.0, self.broker().0)
            && !self.is_in_sync(replica.id, follower);
        if !held {
            return None;
        }
        let rate = self.settings().leader_replication_throttled_rate;
        self.throttles.borrow().leader.until(rate, now_us()).map(ms)
    }

    /// Records that came from the leader.
    pub(super) fn count_fetched(&self, replica: &Replica, bytes: usize) {
        if bytes > 0 && replica.log().config().follower_throttled.contains(replica.id.index.0, self.broker().0) {
            let rate = self.settings().follower_replication_throttled_rate;
            self.throttles.borrow().follower.count(bytes, rate, now_us());
        }
    }

    /// The replica is not fetched before then, ms; `None`: it is.
    pub(super) fn fetch_later(&self, replica: &Replica) -> Option<u64> {
        let held = replica.log().config().follower_throttled.contains(replica.id.index.0, self.broker().0)
            && !self.is_in_sync(replica.id, self.broker());
        if !held {
            return None;
        }
        let rate = self.settings().follower_replication_throttled_rate;
        self.throttles.borrow().follower.until(rate, now_us()).map(ms)
    }

    fn is_in_sync(&self, partition: PartitionId, broker: BrokerId) -> bool {
        let image = self.image();
        let topic = image.topic_by_id(partition.topic);
        let index = usize::try_from(partition.index.0).ok();
        let state = topic.zip(index).and_then(|(topic, index)| topic.partitions.get(index));
        state.is_some_and(|state| state.isr.contains(&broker))
    }
}

/// Fires `waiter`, if it still waits, when `at`, ms, has come.
pub(super) fn fire_at(at: u64, waiter: &Rc<crate::partition::DataWaiter>) {
    let waiter = Rc::downgrade(waiter);
    crate::runtime::spawn_local(async move {
        clock::sleep_until_mono(at).await;
        if let Some(waiter) = waiter.upgrade() {
            waiter.fire();
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that go within `seconds` when 100,000 are tried each 10 ms.
    fn carried(rate: u64, seconds: u64) -> usize {
        let throttle = Throttle::default();
        let start = 50_000_000;
        let mut carried = 0;
        for now in (start..start + seconds * 1_000_000).step_by(10_000) {
            if throttle.until(rate, now).is_none() {
                throttle.count(100_000, rate, now);
                carried += 100_000;
            }
        }
        carried
    }

    #[test]
    fn a_rate_holds_over_time() {
        for rate in [1_000_000, 5_000_000] {
            let (carried, wanted) = (carried(rate, 20), rate as usize * 21);
            assert!(carried.abs_diff(wanted) < wanted / 50, "{carried} of {wanted}");
        }
        assert_eq!(carried(u64::MAX, 1), 10_000_000, "nothing holds back without a rate");
        assert_eq!(carried(0, 20), 100_000, "with 0 it is the first answer only");
    }

    #[test]
    fn nobody_saves_up_more_than_a_second() {
        let throttle = Throttle::default();
        let mut now = 100_000_000;
        throttle.count(1, 1000, now);
        now += 60_000_000;
        throttle.count(1000, 1000, now);
        assert_eq!(throttle.until(1000, now), None);
        throttle.count(500, 1000, now);
        assert_eq!(throttle.until(1000, now), Some(now + 500_000));
        assert_eq!(throttle.until(2000, now), None, "nothing is left of the old rate");
    }
}
