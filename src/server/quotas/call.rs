//! One request's dealings with its client's quotas. What a client has used too much of
//! decides how long it waits: the longest of the times counts, in the answer's
//! `throttle_time_ms` and for the connection.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use super::meter::Meter;
use super::mute::{Mute, MutedBy};
use super::view::{ClientLimits, Held};
use super::window::{SampledRate, Windows};
use crate::cluster::quotas::QuotaKind;
use crate::observe::metrics::ThrottlingOf;
use crate::runtime::clock;
use crate::shard::Shard;

/// Request time is counted in so many nanoseconds.
const TIME_UNIT_NS: u128 = 100;
/// Of a second for one percent.
const TIME_UNITS_PER_PERCENT: f64 = 1e9 / TIME_UNIT_NS as f64 / 100.0;

pub struct QuotaCall {
    limits: Rc<ClientLimits>,
    windows: Windows,
    meter: Meter,
    mute: (Rc<Mute>, Rc<Shard>),
    /// When creations and deletions beyond the quota are paid for, ms; 0: nothing is owed.
    owed_until_ms: Cell<u64>,
}

impl QuotaCall {
    pub fn new(limits: Rc<ClientLimits>, windows: Windows, mute: (Rc<Mute>, Rc<Shard>)) -> QuotaCall {
        QuotaCall { limits, windows, meter: Meter::default(), mute, owed_until_ms: Cell::new(0) }
    }

    pub(super) fn meter(&self) -> &Meter {
        &self.meter
    }

    /// The request is worked off; the client's time to wait, ms.
    pub fn settle(&self) -> i32 {
        let now_ms = clock::mono_ms();
        let owed_ms = self.owed_until_ms.get().saturating_sub(now_ms);
        self.apply(&[
            (self.request_ms(now_ms), cause(QuotaKind::Request, &self.limits.request)),
            (owed_ms, cause(QuotaKind::Mutation, &self.limits.mutation)),
        ])
    }

    /// As [`settle`](Self::settle), of a Produce request of so many bytes. Without acknowledgements
    /// its time is not looked at, as in Kafka: there is no answer to tell of it.
    pub fn settle_produce(&self, bytes: usize, acknowledged: bool) -> i32 {
        let now_ms = clock::mono_ms();
        let bytes_ms = self.limits.produce.as_ref().map_or(0, |held| {
            held.used.add(now_ms, bytes as u64);
            held.used.excess_ms(now_ms, 0, held.per_second)
        });
        let request_ms = if acknowledged { self.request_ms(now_ms) } else { 0 };
        self.apply(&[
            (bytes_ms, cause(QuotaKind::Produce, &self.limits.produce)),
            (request_ms, cause(QuotaKind::Request, &self.limits.request)),
        ])
    }

    /// As [`settle`](Self::settle), of a Fetch request that would be answered with so many bytes.
    /// Where the client has to wait it gets none of them, and they do not count.
    pub fn settle_fetch(&self, bytes: usize) -> i32 {
        let now_ms = clock::mono_ms();
        let request_ms = self.request_ms(now_ms);
        // An answer larger than all that the windows give would never get through: it may
        // go when nothing else has.
        let excess = |held: &Held<SampledRate>| match held.used.is_idle(now_ms) {
            true => 0,
            false => held.used.excess_ms(now_ms, bytes as u64, held.per_second),
        };
        let bytes_ms = self.limits.fetch.as_ref().map_or(0, excess);
        if let (Some(held), 0, 0) = (&self.limits.fetch, bytes_ms, request_ms) {
            held.used.add(now_ms, bytes as u64);
        }
        self.apply(&[
            (bytes_ms, cause(QuotaKind::Fetch, &self.limits.fetch)),
            (request_ms, cause(QuotaKind::Request, &self.limits.request)),
        ])
    }

    /// The most bytes that one answer to a Fetch request may have: with more the client would
    /// have to wait in any case.
    pub fn most_fetched(&self) -> u32 {
        let most = |held: &Held<SampledRate>| held.per_second * self.windows.whole_ms() as f64 / 1000.0;
        self.limits.fetch.as_ref().map_or(u32::MAX, |held| most(held).max(1.0) as u32)
    }

    /// True if creations and deletions are limited.
    pub fn limits_mutations(&self) -> bool {
        self.limits.mutation.is_some()
    }

    /// Counts partitions to be created or deleted. `strict`: none, once the quota is exceeded
    /// (KIP-599); `false` then.
    pub fn mutate(&self, partitions: usize, strict: bool) -> bool {
        let Some(held) = &self.limits.mutation else { return true };
        let (now_ms, partitions) = (clock::mono_ms(), partitions as f64);
        let (wait_ms, taken) = match strict {
            true => match held.used.take_strictly(now_ms, partitions, held.per_second) {
                Ok(()) => (0, true),
                Err(wait_ms) => (wait_ms, false),
            },
            false => (held.used.take(now_ms, partitions, held.per_second), true),
        };
        if wait_ms > 0 {
            self.owed_until_ms.set(now_ms.saturating_add(wait_ms));
        }
        taken
    }

    /// Counts the time that the request has taken so far; how long it is too
    /// much, ms, a window at most.
    fn request_ms(&self, now_ms: u64) -> u64 {
        self.limits.request.as_ref().map_or(0, |held| {
            let units = u64::try_from(self.meter.spent().as_nanos() / TIME_UNIT_NS).unwrap_or(u64::MAX);
            held.used.add(now_ms, units);
            held.used.excess_ms(now_ms, 0, held.per_second * TIME_UNITS_PER_PERCENT).min(self.windows.length_ms)
        })
    }

    /// Has the connection wait for the longest of these times, which is that quota's.
    fn apply(&self, times: &[(u64, Option<Cause<'_>>)]) -> i32 {
        let longest = times.iter().max_by_key(|(ms, _)| *ms).filter(|(ms, _)| *ms > 0);
        let Some((ms, Some(cause))) = longest else { return 0 };
        let ms = i32::try_from(*ms).unwrap_or(i32::MAX);
        cause.throttling.note(ms as u64);
        let (mute, shard) = &self.mute;
        mute.extend(Duration::from_millis(ms as u64), || MutedBy {
            shard: shard.clone(),
            limits: self.limits.clone(),
            kind: cause.kind,
            per_second: cause.per_second,
            changes: shard.quota_flag().changes(),
        });
        ms
    }
}

impl std::fmt::Debug for QuotaCall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QuotaCall").field("meter", &self.meter).finish_non_exhaustive()
    }
}

/// A quota that a client may have used too much of.
struct Cause<'a> {
    kind: QuotaKind,
    per_second: f64,
    throttling: &'a ThrottlingOf,
}

fn cause<S>(kind: QuotaKind, held: &Option<Held<S>>) -> Option<Cause<'_>> {
    held.as_ref().map(|held| Cause { kind, per_second: held.per_second, throttling: &held.throttling })
}
