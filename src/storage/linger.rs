//! Batches that wait for company before they leave for the device.
//!
//! A write costs about the same whether it carries one batch or five, and so do the wake-up that ends it and the `sendmsg` of
//! the acknowledgements. Where batches arrive close to one another, they therefore wait: all of a shard's logs together, so
//! that a thousand quiet partitions gain as much as a busy one. What leaves together is submitted with one system call.
//!
//! Waiting must pay. It ends at once when the next batch is not to be expected in time, judged by the mean gap between the
//! last ones; where clients wait for their acknowledgements before they send more, nobody comes, and after a wait in vain the
//! shard does not try again for a while, each time longer.

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
/// Batches that pass unheld after the first wait in vain, and at most.
const FIRST_REST: u32 = 64;
const MOST_REST: u32 = 8192;

/// One shard's waiting batches.
pub struct Linger {
    most: Duration,
    mean_gap: Cell<Duration>,
    last: Cell<Option<Instant>>,
    wait: Cell<Option<Wait>>,
    /// Batches that pass unheld before the next wait, and how many after the next one in vain.
    rest: Cell<u32>,
    next_rest: Cell<u32>,
    held: RefCell<Vec<Rc<Log>>>,
    released: Notify,
    timer: Cell<bool>,
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
            rest: Cell::new(0),
            next_rest: Cell::new(FIRST_REST),
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
        if let Some(rest) = self.rest.get().checked_sub(1) {
            self.rest.set(rest);
            return Verdict::Go;
        }
        let wait = self.wait.get().unwrap_or(Wait { until: now + self.most, overdue: now, batches: 0 });
        let worth_it = mean >= LEAST_GAP && now + mean <= wait.until;
        if !worth_it {
            return Verdict::Go;
        }
        let overdue = (now + mean * OVERDUE_GAPS).min(wait.until);
        self.wait.set(Some(Wait { overdue, batches: wait.batches + 1, ..wait }));
        Verdict::Hold
    }

    /// The wait ends; what it was worth decides about the next ones.
    fn end_wait(&self, gathered: u32) {
        if self.wait.take().is_none() {
            return;
        }
        if gathered > 1 {
            self.next_rest.set(FIRST_REST);
        } else {
            self.rest.set(self.next_rest.get());
            self.next_rest.set((self.next_rest.get() * 2).min(MOST_REST));
        }
    }

    fn release(&self, gathered: u32) {
        self.end_wait(gathered);
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
                self.release(wait.batches);
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
                let gathered = linger.wait.get().map_or(0, |wait| wait.batches + 1);
                linger.release(gathered);
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
            if let Some(wait) = linger.wait.get().filter(|wait| wait.overdue <= now) {
                linger.end_wait(wait.batches);
            }
            let waiting = linger.wait.get();
            match linger.judge(now) {
                Verdict::Hold => {
                    held += 1;
                    waits += u32::from(waiting.is_none());
                }
                Verdict::Go => linger.end_wait(waiting.map_or(0, |wait| wait.batches + 1)),
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

    #[test]
    fn waits_in_vain_become_rare() {
        let linger = Linger::new(MOST);
        let mut now = Instant::now();
        let mut waits = 0;
        // A client that sends one batch 100 us after the last was acknowledged.
        for _ in 0..20_000 {
            match linger.judge(now) {
                Verdict::Go => now += Duration::from_micros(100),
                Verdict::Hold => {
                    waits += 1;
                    now = linger.wait.get().unwrap().overdue + Duration::from_micros(100);
                    linger.end_wait(1);
                }
            }
        }
        assert!((1..=20).contains(&waits), "{waits} waits in vain");
    }
}
