//! Batches that wait for company before they leave for the device.
//!
//! A write costs about the same whether it carries one batch or five, and so do the wake-up that ends it and the `sendmsg` of
//! the acknowledgements. Where batches come close to one another, they therefore wait: all of a shard's logs together, so that
//! a thousand partitions gain as much as one. What leaves together is submitted with one system call, and while batches wait
//! and no write is under way the shard sleeps through what arrives.
//!
//! Waiting must pay. It is tried only where several batches are to be expected within one wait, judged by a stretch without
//! waits, and only on a shard that has time to spare: a busy one gathers batches anyway. Where clients wait for their
//! acknowledgements before they send more, fewer come than were expected; then the shard does without for a while, each time
//! longer.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::log::Log;
use crate::runtime::{clock, load_percent, nap_until, spawn_local};

/// Batches to be expected in one wait, at least.
const LEAST_BATCHES: u32 = 4;
/// Busier shards do not wait, percent of the time.
const MOST_LOAD: u32 = 60;
/// Batches in a stretch without waits: the first one, and at most.
const FIRST_STRETCH: u32 = 32;
const LONGEST_STRETCH: u32 = 8192;
/// A wait that gathers less than this of what was expected was in vain, percent.
const ENOUGH: u32 = 70;
/// So many in a row end the waiting.
const MOST_IN_VAIN: u32 = 2;
/// So many good ones in a row forget what was in vain before.
const GOOD_WAITS: u32 = 64;

/// One shard's waiting batches.
pub struct Linger {
    most: Duration,
    pace: Cell<Pace>,
    /// How long the next stretch without waits is, batches.
    stretch: Cell<u32>,
    held: RefCell<Vec<Rc<Log>>>,
    /// Whether the task that ends waits runs; there is one.
    watched: Cell<bool>,
}

#[derive(Clone, Copy, Debug)]
enum Pace {
    /// Nothing waits; how close batches come is measured.
    Free { since: Option<Instant>, batches: u32, stretch: u32 },
    /// Batches wait; one is to be expected every `gap`.
    Gathering { gap: Duration, wait: Option<Wait>, in_vain: u32, good: u32 },
}

#[derive(Clone, Copy, Debug)]
struct Wait {
    since: Instant,
    batches: u32,
}

impl Linger {
    /// `most`: the longest wait; zero: none.
    pub fn new(most: Duration) -> Linger {
        Linger {
            most,
            pace: Cell::new(Pace::Free { since: None, batches: 0, stretch: FIRST_STRETCH }),
            stretch: Cell::new(FIRST_STRETCH),
            held: RefCell::default(),
            watched: Cell::new(false),
        }
    }

    /// A batch has arrived; whether it waits.
    fn holds(&self, now: Instant, load_percent: u32) -> bool {
        match self.pace.get() {
            Pace::Free { since: None, stretch, .. } => {
                self.pace.set(Pace::Free { since: Some(now), batches: 0, stretch });
                false
            }
            Pace::Free { since: Some(since), batches, stretch } if batches + 1 < stretch => {
                self.pace.set(Pace::Free { since: Some(since), batches: batches + 1, stretch });
                false
            }
            Pace::Free { since: Some(since), batches, .. } => {
                let gap = now.saturating_duration_since(since) / (batches + 1);
                let pays = gap * LEAST_BATCHES <= self.most && load_percent <= MOST_LOAD;
                self.pace.set(match pays {
                    true => Pace::Gathering { gap, wait: None, in_vain: 0, good: 0 },
                    false => Pace::Free { since: Some(now), batches: 0, stretch: FIRST_STRETCH },
                });
                false
            }
            Pace::Gathering { gap, wait, in_vain, good } => {
                let begun = wait.unwrap_or(Wait { since: now, batches: 0 });
                let wait = Some(Wait { batches: begun.batches + 1, ..begun });
                self.pace.set(Pace::Gathering { gap, wait, in_vain, good });
                true
            }
        }
    }

    /// When the wait under way is to end.
    fn until(&self) -> Option<Instant> {
        match self.pace.get() {
            Pace::Gathering { wait: Some(wait), .. } => Some(wait.since + self.most),
            _ => None,
        }
    }

    /// The wait is over; what came of it decides about the next ones.
    fn end_wait(&self, now: Instant, load_percent: u32) {
        let Pace::Gathering { gap, wait: Some(wait), in_vain, good } = self.pace.get() else { return };
        let time = now.saturating_duration_since(wait.since);
        // The first one begins the wait: the others are what it was for.
        let came = wait.batches - 1;
        let enough = gap * came * 100 >= time.min(self.most * 2) * ENOUGH;
        let (in_vain, good) = if enough { (0, good + 1) } else { (in_vain + 1, 0) };
        let gap = if enough { (gap * 3 + time / came.max(1)) / 4 } else { gap };
        if good >= GOOD_WAITS {
            self.stretch.set(FIRST_STRETCH);
        }
        if in_vain >= MOST_IN_VAIN {
            let stretch = self.stretch.get();
            self.stretch.set((stretch * 2).min(LONGEST_STRETCH));
            self.pace.set(Pace::Free { since: None, batches: 0, stretch });
        } else if gap * LEAST_BATCHES > self.most || load_percent > MOST_LOAD {
            self.pace.set(Pace::Free { since: None, batches: 0, stretch: FIRST_STRETCH });
        } else {
            self.pace.set(Pace::Gathering { gap, wait: None, in_vain, good });
        }
    }

    /// Ends waits in time, until there is none.
    async fn watch(self: Rc<Self>) {
        while let Some(until) = self.until() {
            let now = clock::now();
            if now < until {
                nap_until(until);
                clock::sleep(until - now).await;
                continue;
            }
            self.end_wait(now, load_percent());
            let held = self.held.take();
            for log in held {
                log.appender.set_held(false);
                log.wake_appender();
            }
        }
        self.watched.set(false);
    }
}

impl Log {
    /// A batch has been queued: it leaves now, or waits for others.
    pub(super) fn linger_or_leave(self: &Rc<Self>) {
        let linger = &self.context.linger;
        if !linger.most.is_zero() && linger.holds(clock::now(), load_percent()) {
            if !self.appender.set_held(true) {
                linger.held.borrow_mut().push(self.clone());
            }
            if !linger.watched.replace(true) {
                spawn_local(linger.clone().watch());
            }
        }
        // Also when it waits: a full group leaves at once.
        self.wake_appender();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Duration = Duration::from_millis(1);

    fn micros(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    /// A batch every `gap`: how many batches left, and in how many groups, of `count` after some to begin with.
    fn steady(gap: Duration, load: u32, count: u32) -> f64 {
        let linger = Linger::new(MOST);
        let (mut now, mut groups) = (Instant::now(), 0);
        for batch in 0..count + 1000 {
            if linger.until().is_some_and(|until| until <= now) {
                linger.end_wait(now, load);
            }
            let waits = linger.until().is_some();
            // One that waits with others adds no group.
            let group = !linger.holds(now, load) || !waits;
            groups += u32::from(group && batch >= 1000);
            now += gap;
        }
        f64::from(count) / f64::from(groups)
    }

    #[test]
    fn close_batches_gather_and_rare_ones_or_those_of_a_busy_shard_pass() {
        let each = steady(micros(160), 30, 10_000);
        assert!((5.0..8.0).contains(&each), "{each} batches a group");
        assert_eq!(steady(micros(1000), 30, 1000), 1.0);
        assert_eq!(steady(micros(300), 30, 1000), 1.0, "too few in one wait");
        assert_eq!(steady(micros(20), 90, 1000), 1.0, "a busy shard");
    }

    /// Clients that keep `depth` batches under way, `gap` apart, and send the next ones when those are acknowledged, 150 us
    /// after they have left: the share of the time that waits have added.
    fn time_added_in_turns(depth: u32, gap: Duration) -> f64 {
        let linger = Linger::new(MOST);
        let begun = Instant::now();
        let (mut now, mut added) = (begun, Duration::ZERO);
        for _ in 0..20_000 {
            for _ in 0..depth {
                now += gap;
                linger.holds(now, 30);
            }
            if let Some(until) = linger.until() {
                let wait = until.saturating_duration_since(now);
                now += wait;
                added += wait;
                linger.end_wait(now, 30);
            }
            now += micros(150);
        }
        added.as_secs_f64() / (now - begun).as_secs_f64()
    }

    #[test]
    fn clients_that_wait_for_acknowledgements_wait_for_little_else() {
        for depth in [1, 2, 5, 20] {
            let added = time_added_in_turns(depth, micros(20));
            assert!(added < 0.03, "depth {depth}: waits added {added}");
        }
    }

    #[test]
    fn a_load_that_falls_off_ends_the_waits() {
        let linger = Linger::new(MOST);
        let mut now = Instant::now();
        for _ in 0..100 {
            if linger.until().is_some_and(|until| until <= now) {
                linger.end_wait(now, 30);
            }
            linger.holds(now, 30);
            now += micros(100);
        }
        assert!(linger.until().is_some());
        // A batch now and then: the first ones may still wait.
        let mut held = 0;
        for _ in 0..100 {
            now += micros(5000);
            if linger.until().is_some() {
                linger.end_wait(now, 30);
            }
            held += u32::from(linger.holds(now, 30));
        }
        assert!(held <= 3, "{held} lone batches waited");
    }
}
