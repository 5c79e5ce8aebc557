//! Whether a shard that has run out of work spins or sleeps: pure, time is an argument.
//!
//! A sleep costs the shard two switches of threads, and the shard that wakes it an interrupt to
//! another CPU. Clients that wait for the shard's answers before they ask for more (a few requests
//! under way) wait for that too: where the shard spins instead, they get up to twice as much done.
//! Clients with a rate of their own get nothing done by it. So a shard whose pauses are short tries
//! it out: it compares what it moves in a while without spinning and in one with it, and spins on
//! only where that is more. Where other threads want its CPU (a client on the same host), it
//! sleeps: spinning would keep them waiting.

use std::time::Duration;

use super::clock::Moment;

/// A trial that has begun goes on while pauses are not longer on average than this many halves of
/// the longest spin; it begins below two.
const TOO_LONG: u64 = 3;
/// A pause's weight in the average is one part in so many.
const SMOOTHING: u64 = 8;
/// Time for which throughput is measured, with and without spinning.
const TRIAL_NS: u64 = 20_000_000;
/// Spinning must move so many times as much.
const GAIN: f64 = 1.25;
/// A trial that has not moved so many times as much by then is in vain: half of the gain shows
/// early, and a trial costs the CPU that it takes.
const EARLY_NS: u64 = 5_000_000;
const EARLY_GAIN: f64 = 1.125;
/// Between two trials, where spinning pays.
const SETTLED: Duration = Duration::from_millis(500);
/// Each trial in vain doubles the time to the next one, up to this: it costs the CPU that it takes.
const LONGEST_SETTLED: Duration = Duration::from_secs(4);
/// After such a pause there may be other clients.
const SILENCE: Duration = Duration::from_millis(50);
/// More than this from one look for work to the next is time for which others had the
/// CPU, and were not done soon.
const TAKEN_NS: u64 = 1_000_000;
/// It is left to them for so long.
const LEFT: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(super) struct Spin {
    longest_ns: u64,
    /// Of pauses.
    average_ns: u64,
    phase: Phase,
    /// From a trial in vain to the next.
    settled: Duration,
    /// Since when there has been nothing to do.
    quiet: Option<Moment>,
    /// The last look for work, if the shard has spun since.
    looked: Option<Moment>,
    /// In all.
    spun_ns: u64,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// It sleeps, and may try spinning from then on.
    Sleeps { until: Option<Moment> },
    /// It sleeps, and measures.
    Measures(Start),
    /// It spins, and measures. `asleep`: what it moved in a nanosecond when it slept.
    Tries { start: Start, asleep: f64 },
    /// It spins, until it compares again.
    Spins { until: Moment },
}

/// Of a measurement.
#[derive(Clone, Copy, Debug)]
struct Start {
    at: Moment,
    moved: u64,
}

impl Start {
    fn age(self, now: Moment) -> u64 {
        now.ns_since(self.at)
    }

    /// Bytes moved in a nanosecond since.
    fn rate(self, now: Moment, moved: u64) -> f64 {
        moved.saturating_sub(self.moved) as f64 / self.age(now) as f64
    }
}

impl Default for Spin {
    fn default() -> Spin {
        Spin::new(Duration::ZERO)
    }
}

impl Spin {
    /// `longest`: in one pause; zero never spins.
    pub(super) fn new(longest: Duration) -> Spin {
        let longest_ns = u64::try_from(longest.as_nanos()).unwrap_or(u64::MAX);
        Spin {
            longest_ns,
            average_ns: longest_ns,
            phase: Phase::Sleeps { until: None },
            settled: SETTLED,
            quiet: None,
            looked: None,
            spun_ns: 0,
        }
    }

    pub(super) fn spun_ns(&self) -> u64 {
        self.spun_ns
    }

    /// There has been something to do since `came`.
    pub(super) fn note_work(&mut self, came: Moment) {
        let Some(since) = self.quiet.take() else { return };
        self.count(came);
        self.looked = None;
        let pause = came.ns_since(since);
        if u128::from(pause) > SILENCE.as_nanos() {
            self.settled = SETTLED;
            if matches!(self.phase, Phase::Sleeps { .. }) {
                self.phase = Phase::Sleeps { until: None };
            }
        }
        // However long it was, it is forgotten soon.
        let pause = pause.min(self.longest_ns.saturating_mul(2));
        self.average_ns = self.average_ns - self.average_ns / SMOOTHING + pause / SMOOTHING;
    }

    /// There is nothing to do: whether to spin on instead of sleeping. `moved` counts the bytes
    /// that were received and sent.
    pub(super) fn spins(&mut self, now: Moment, moved: impl FnOnce() -> u64) -> bool {
        if self.longest_ns == 0 {
            return false;
        }
        let since = *self.quiet.get_or_insert(now);
        self.count(now);
        let next = self.next_phase(now, moved);
        match (self.phase, next) {
            (Phase::Tries { .. }, Phase::Sleeps { until: Some(_) }) => {
                self.settled = (self.settled * 2).min(LONGEST_SETTLED);
            }
            (_, Phase::Spins { .. }) => self.settled = SETTLED,
            _ => {}
        }
        self.phase = next;
        let phase_spins = matches!(self.phase, Phase::Tries { .. } | Phase::Spins { .. });
        let spins = phase_spins && now.ns_since(since) < self.longest_ns;
        self.looked = spins.then_some(now);
        spins
    }

    fn next_phase(&self, now: Moment, moved: impl FnOnce() -> u64) -> Phase {
        let begun = !matches!(self.phase, Phase::Sleeps { .. });
        let too_long = self.longest_ns / 2 * if begun { TOO_LONG } else { 2 };
        let measured = |moved| Start { at: now, moved };
        match self.phase {
            Phase::Sleeps { until: Some(until) } if now < until => self.phase,
            _ if self.average_ns >= too_long => Phase::Sleeps { until: None },
            Phase::Sleeps { .. } => Phase::Measures(measured(moved())),
            Phase::Spins { until } if now < until => self.phase,
            Phase::Spins { .. } => Phase::Measures(measured(moved())),
            Phase::Measures(start) if start.age(now) < TRIAL_NS => self.phase,
            Phase::Measures(start) => {
                let moved = moved();
                Phase::Tries { start: measured(moved), asleep: start.rate(now, moved) }
            }
            Phase::Tries { start, .. } if start.age(now) < EARLY_NS => self.phase,
            Phase::Tries { start, asleep } => {
                let (ends, rate) = (start.age(now) >= TRIAL_NS, start.rate(now, moved()));
                match rate > asleep * if ends { GAIN } else { EARLY_GAIN } {
                    true if ends => Phase::Spins { until: now.after(SETTLED) },
                    true => self.phase,
                    false => Phase::Sleeps { until: Some(now.after(self.settled)) },
                }
            }
        }
    }

    /// Counts the time since the last look.
    fn count(&mut self, now: Moment) {
        let time = self.looked.map_or(0, |looked| now.ns_since(looked));
        if time > TAKEN_NS {
            self.phase = Phase::Sleeps { until: Some(now.after(LEFT)) };
        } else {
            self.spun_ns += time;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_micros(100);
    /// Time to wake a sleeping shard, us.
    const WAKE_US: u64 = 25;

    fn at(us: u64) -> Moment {
        Moment::simulated(Duration::from_micros(us))
    }

    /// A shard and a client that has one request of 1,000 bytes under way.
    struct Model {
        spin: Spin,
        now_us: u64,
        moved: u64,
        requests: u64,
        slept: u64,
        /// Between two looks.
        look_us: u64,
    }

    impl Model {
        fn new() -> Model {
            Model { spin: Spin::new(LONGEST), now_us: 0, moved: 0, requests: 0, slept: 0, look_us: 1 }
        }

        /// Serves for `ms`; the next request comes `pause_us` after the last answer, or at
        /// every multiple of `every_us`.
        fn serve(&mut self, ms: u64, pause_us: u64, every_us: Option<u64>) {
            let end = self.now_us + ms * 1000;
            while self.now_us < end {
                let due = every_us.map_or(self.now_us + pause_us, |every| (self.now_us / every + 1) * every);
                let mut sleeps = false;
                while self.now_us < due && !sleeps {
                    sleeps = !self.spin.spins(at(self.now_us), || self.moved);
                    self.now_us += if sleeps { 0 } else { self.look_us };
                }
                if sleeps {
                    self.slept += 1;
                    self.now_us = due + WAKE_US;
                }
                self.spin.note_work(at(self.now_us));
                self.moved += 1000;
                self.requests += 1;
                self.now_us += 5;
            }
        }

        fn share_slept(&mut self, ms: u64, pause_us: u64, every_us: Option<u64>) -> f64 {
            let (slept, requests) = (self.slept, self.requests);
            self.serve(ms, pause_us, every_us);
            (self.slept - slept) as f64 / (self.requests - requests) as f64
        }
    }

    #[test]
    fn clients_that_wait_for_answers_are_spun_for() {
        let mut model = Model::new();
        model.serve(60, 15, None);
        assert!(model.share_slept(450, 15, None) < 0.01, "settled");
        assert!(model.share_slept(5000, 15, None) < 0.05, "but for the trials");
        assert!(model.spin.spun_ns() > 2_000_000_000);
    }

    #[test]
    fn clients_with_a_rate_of_their_own_are_slept_for() {
        let mut model = Model::new();
        model.serve(60, 0, Some(40));
        assert_eq!(model.share_slept(400, 0, Some(40)), 1.0);
        assert!(model.share_slept(5000, 0, Some(40)) > 0.9, "but for the trials");
        let spun = model.spin.spun_ns();
        assert!(model.share_slept(60_000, 0, Some(40)) > 0.99, "which become rare");
        assert!(model.spin.spun_ns() - spun < 120_000_000, "and are given up early");
        model.serve(1, 100_000, None);
        model.serve(60, 15, None);
        assert!(model.share_slept(400, 15, None) < 0.01, "after silence it is tried soon");
    }

    #[test]
    fn long_pauses_are_not_tried() {
        let mut model = Model::new();
        assert_eq!(model.share_slept(5000, 0, Some(250)), 1.0);
        assert_eq!(model.share_slept(5000, 160, None), 1.0);
    }

    #[test]
    fn silence_is_slept_through_and_forgotten_soon() {
        let mut model = Model::new();
        model.serve(100, 15, None);
        let spun = model.spin.spun_ns();
        model.serve(60_000, 1_000_000, None);
        assert!(model.spin.spun_ns() - spun < 1_000_000, "a few pauses of the longest spin");
        model.serve(60, 15, None);
        assert!(model.share_slept(400, 15, None) < 0.01);
    }

    #[test]
    fn a_shared_cpu_is_left_to_others() {
        let mut model = Model::new();
        model.serve(60, 15, None);
        // Others run for longer than a pause whenever they may.
        model.look_us = 3000;
        model.serve(10, 15, None);
        assert_eq!(model.share_slept(40, 15, None), 1.0);
    }

    #[test]
    fn zero_never_spins() {
        let mut model = Model::new();
        model.spin = Spin::new(Duration::ZERO);
        assert_eq!(model.share_slept(1000, 15, None), 1.0);
    }
}
