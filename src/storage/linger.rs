//! Batches that wait for company before they leave for the device.
//!
//! A write costs about the same whether it carries one batch or five, and so do the wake-up that ends it and the `sendmsg` of
//! the acknowledgements. Where batches arrive close to one another, they therefore wait: all of a shard's logs together, so
//! that a thousand quiet partitions gain as much as a busy one. What leaves together is submitted with one system call.
//!
//! Waiting must pay. It ends at once when the next batch is not to be expected in time, judged by the mean gap between the
//! last ones. Where clients wait for their acknowledgements before they send more, only so many come: the number is
//! remembered, and no wait goes on beyond it, but for a try now and then, each time later. Where nobody comes at all, the same
//! goes for the waits themselves.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_lite::future::or;

use super::log::Log;
use crate::runtime::sync::Notify;
use crate::runtime::{clock, spawn_local};

/// Batches closer than this meet in the same turn of the shard anyway.
const LEAST_GAP: Duration = Duration::from_micros(30);
/// Longer gaps count as this: after a rest the mean is soon true again.
const MOST_GAP: Duration = Duration::from_millis(10);
/// A next batch that is late by this many gaps is not waited for.
const OVERDUE_GAPS: u32 = 3;
/// How much passes after a first try in vain until the next one, and at most.
const FIRST_REST: u32 = 32;
const MOST_REST: u32 = 8192;

/// One shard's waiting batches.
pub struct Linger {
    most: Duration,
    mean_gap: Cell<Duration>,
    last: Cell<Option<Instant>>,
    wait: Cell<Option<Wait>>,
    /// Batches that pass unheld before the next wait.
    waiting: Tries,
    /// How many batches come in one wait, once one has ended without another; waits that end there before one goes beyond.
    crowd: Cell<u32>,
    beyond: Tries,
    held: RefCell<Vec<Rc<Log>>>,
    released: Notify,
    timer: Cell<bool>,
}

/// Tries that become rarer while they are in vain.
struct Tries {
    rest: Cell<u32>,
    next_rest: Cell<u32>,
}

impl Tries {
    fn new() -> Tries {
        Tries { rest: Cell::new(0), next_rest: Cell::new(FIRST_REST) }
    }

    /// Whether it is time for one.
    fn is_due(&self) -> bool {
        let left = self.rest.get();
        self.rest.set(left.saturating_sub(1));
        left == 0
    }

    fn succeeded(&self) {
        self.next_rest.set(FIRST_REST);
    }

    fn failed(&self) {
        self.rest.set(self.next_rest.get());
        self.next_rest.set((self.next_rest.get() * 2).min(MOST_REST));
    }
}

/// A wait under way.
#[derive(Clone, Copy, Debug)]
struct Wait {
    until: Instant,
    overdue: Instant,
    batches: u32,
}

/// What becomes of a batch that has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Go,
    Hold,
}

impl Linger {
    /// `most`: the longest wait; zero: none.
    pub fn new(most: Duration) -> Linger {
        Linger {
            most,
            mean_gap: Cell::new(MOST_GAP),
            last: Cell::new(None),
            wait: Cell::new(None),
            waiting: Tries::new(),
            crowd: Cell::new(u32::MAX),
            beyond: Tries::new(),
            held: RefCell::default(),
            released: Notify::new(),
            timer: Cell::new(false),
        }
    }

    /// A batch has arrived.
    fn judge(&self, now: Instant) -> Verdict {
        let gap = self.last.replace(Some(now)).map_or(MOST_GAP, |last| now.saturating_duration_since(last));
        let mean = (self.mean_gap.get() * 7 + gap.min(MOST_GAP)) / 8;
        self.mean_gap.set(mean);
        let wait = match self.wait.get() {
            Some(wait) => wait,
            None if !self.may_pay(mean) || !self.waiting.is_due() => return Verdict::Go,
            None => Wait { until: now + self.most, overdue: now, batches: 0 },
        };
        let batches = wait.batches + 1;
        let crowded = batches >= self.crowd.get() && !(batches == self.crowd.get() && self.beyond.is_due());
        if crowded || !self.may_pay(mean) || now + mean > wait.until {
            return Verdict::Go;
        }
        let overdue = (now + mean * OVERDUE_GAPS).min(wait.until);
        self.wait.set(Some(Wait { overdue, batches, ..wait }));
        Verdict::Hold
    }

    fn may_pay(&self, mean: Duration) -> bool {
        (LEAST_GAP..=self.most).contains(&mean)
    }

    /// The wait has ended with so many batches; what it was worth decides about the next ones.
    fn end_wait(&self, batches: u32, overdue: bool) {
        if self.wait.take().is_none() {
            return;
        }
        if batches == 1 {
            self.waiting.failed();
            return;
        }
        self.waiting.succeeded();
        if batches > self.crowd.get() {
            self.beyond.succeeded();
            self.crowd.set(u32::MAX);
        } else if overdue {
            self.beyond.failed();
            self.crowd.set(batches);
        }
    }

    fn release(&self, batches: u32, overdue: bool) {
        self.end_wait(batches, overdue);
        let held = self.held.take();
        for log in held {
            log.appender.set_held(false);
            log.wake_appender();
        }
        self.released.notify_all();
    }

    /// Releases what is held when nobody is expected any more.
    async fn watch(self: Rc<Self>) {
        while let Some(wait) = self.wait.get() {
            let now = clock::now();
            if now >= wait.overdue {
                self.release(wait.batches, true);
                break;
            }
            let released = self.released.notified();
            or(clock::sleep(wait.overdue - now), released).await;
        }
        self.timer.set(false);
    }
}

impl Log {
    /// A batch has been queued: it leaves now, or waits for others.
    pub(super) fn linger_or_leave(self: &Rc<Self>) {
        let linger = &self.context.linger;
        if linger.most.is_zero() {
            return self.wake_appender();
        }
        match linger.judge(clock::now()) {
            Verdict::Go => {
                let batches = linger.wait.get().map_or(0, |wait| wait.batches + 1);
                linger.release(batches, false);
                self.wake_appender();
            }
            Verdict::Hold => {
                if !self.appender.set_held(true) {
                    linger.held.borrow_mut().push(self.clone());
                }
                // A full group does not wait.
                self.wake_appender();
                if !linger.timer.replace(true) {
                    spawn_local(linger.clone().watch());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Duration = Duration::from_micros(500);

    /// Batches every `gap` for `count` times; how many were held, and in how many waits.
    fn steady(linger: &Linger, mut now: Instant, gap: Duration, count: u32) -> (u32, u32, Instant) {
        let (mut held, mut waits) = (0, 0);
        for _ in 0..count {
            let waiting = linger.wait.get();
            if let Some(wait) = waiting.filter(|wait| wait.overdue <= now) {
                linger.end_wait(wait.batches, true);
            }
            let waiting = linger.wait.get();
            match linger.judge(now) {
                Verdict::Hold => {
                    held += 1;
                    waits += u32::from(waiting.is_none());
                }
                Verdict::Go => linger.end_wait(waiting.map_or(0, |wait| wait.batches + 1), false),
            }
            now += gap;
        }
        (held, waits, now)
    }

    #[test]
    fn close_batches_gather_and_rare_or_dense_ones_pass() {
        let micros = Duration::from_micros;
        for (gap, expected) in [(micros(160), 3..=4), (micros(1000), 0..=0), (micros(5), 0..=0)] {
            let linger = Linger::new(MOST);
            let (_, _, now) = steady(&linger, Instant::now(), gap, 200);
            let (held, waits, _) = steady(&linger, now, gap, 1000);
            let each = (held + waits).checked_div(waits).unwrap_or(0);
            assert!(expected.contains(&each), "every {gap:?}: {held} held in {waits} waits");
            assert!(waits == 0 || waits >= 240, "every {gap:?}: {waits} waits");
        }
    }

    /// A client that keeps `depth` batches under way, `gap` apart, and sends the next ones when those are acknowledged, 100 us
    /// after they have left: how many waits ended without another batch, and how many batches went in each group, at the end.
    fn in_turns(depth: u32, gap: Duration) -> (u32, f64) {
        let linger = Linger::new(MOST);
        let (mut now, mut overdue, mut groups) = (Instant::now(), 0, 0);
        for _ in 0..10_000 {
            let mut group = 0;
            for _ in 0..depth {
                now += gap;
                group += 1;
                let waiting = linger.wait.get();
                if linger.judge(now) == Verdict::Go {
                    linger.end_wait(waiting.map_or(0, |wait| wait.batches + 1), false);
                    groups += 1;
                    group = 0;
                }
            }
            if let Some(wait) = linger.wait.get() {
                now = wait.overdue;
                linger.end_wait(wait.batches, true);
                overdue += 1;
            }
            groups += u32::from(group > 0);
            now += Duration::from_micros(100);
        }
        (overdue, f64::from(depth * 10_000) / f64::from(groups))
    }

    #[test]
    fn clients_that_wait_for_acknowledgements_wait_for_nothing_else() {
        for depth in [1, 2, 3, 5] {
            let (overdue, each) = in_turns(depth, Duration::from_micros(40));
            assert!((1..=100).contains(&overdue), "depth {depth}: {overdue} waits in vain of 10,000 turns");
            assert!(depth < 3 || each > 1.5, "depth {depth}: {each} batches a group");
        }
    }
}
