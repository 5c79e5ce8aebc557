//! Counts of one thread, and their sum over threads.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use hdrhistogram::{CreationError, Histogram};

const SIGNIFICANT_DIGITS: u8 = 3;
const LONGEST_NS: u64 = 3_600_000_000_000;

/// For latencies in nanoseconds, up to an hour; longer ones count as an hour.
pub fn histogram() -> Result<Histogram<u64>, CreationError> {
    Histogram::new_with_bounds(1, LONGEST_NS, SIGNIFICANT_DIGITS)
}

/// Errors by what they say.
pub type Errors = BTreeMap<String, u64>;

/// Counts of one second.
#[derive(Clone)]
pub struct Interval {
    pub requests: u64,
    pub records: u64,
    pub bytes: u64,
    pub latency: Histogram<u64>,
}

impl Interval {
    pub fn new() -> Result<Interval, CreationError> {
        Ok(Interval { requests: 0, records: 0, bytes: 0, latency: histogram()? })
    }

    pub fn add(&mut self, other: &Interval) {
        self.requests += other.requests;
        self.records += other.records;
        self.bytes += other.bytes;
        add(&mut self.latency, &other.latency);
    }
}

fn add(to: &mut Histogram<u64>, from: &Histogram<u64>) {
    // Both have the same bounds, so nothing can be out of range.
    let _ = to.add(from);
}

/// Counts between the end of the warm-up and the end of the run.
#[derive(Clone)]
pub struct Totals {
    pub requests: u64,
    pub records: u64,
    pub bytes: u64,
    /// Before compression; 0 where that is not known.
    pub raw_bytes: u64,
    /// From the moment a thing was due (open loop) or sent (closed loop).
    pub latency: Histogram<u64>,
    /// Of acknowledgements, where `latency` is something else.
    pub acknowledged: Histogram<u64>,
    /// From when things were due to when the generator sent them: what of `latency` it had to wait
    /// itself, because the window of requests in flight was full or because it came late.
    pub send_lag: Histogram<u64>,
    /// From when things were due to when the generator's timer woke it, where it
    /// waited for nothing but that.
    pub wake_late: Histogram<u64>,
    pub errors: Errors,
    pub window_ns: u64,
    /// CPU time of this process within the window; one thread measures it.
    pub client_cpu_seconds: f64,
}

impl Totals {
    pub fn new() -> Result<Totals, CreationError> {
        Ok(Totals {
            requests: 0,
            records: 0,
            bytes: 0,
            raw_bytes: 0,
            latency: histogram()?,
            acknowledged: histogram()?,
            send_lag: histogram()?,
            wake_late: histogram()?,
            errors: Errors::new(),
            window_ns: 0,
            client_cpu_seconds: 0.0,
        })
    }

    pub fn add(&mut self, other: &Totals) {
        self.requests += other.requests;
        self.records += other.records;
        self.bytes += other.bytes;
        self.raw_bytes += other.raw_bytes;
        add(&mut self.latency, &other.latency);
        add(&mut self.acknowledged, &other.acknowledged);
        add(&mut self.send_lag, &other.send_lag);
        add(&mut self.wake_late, &other.wake_late);
        for (what, count) in &other.errors {
            *self.errors.entry(what.clone()).or_default() += count;
        }
        self.window_ns = self.window_ns.max(other.window_ns);
        self.client_cpu_seconds += other.client_cpu_seconds;
    }
}

/// Something that came to its end.
#[derive(Clone, Copy, Debug)]
pub struct Done {
    /// When it was due, or sent where nothing was due.
    pub intended_ns: u64,
    pub now_ns: u64,
    pub requests: u64,
    pub records: u64,
    pub bytes: u64,
    pub raw_bytes: u64,
}

/// One thread's counts.
pub struct Recorder {
    from_ns: Cell<u64>,
    until_ns: Cell<u64>,
    /// Count by when things were due, not by when they ended: a rate that was asked for is
    /// judged by what became of it.
    by_intention: bool,
    last_done_ns: Cell<u64>,
    interval: RefCell<Interval>,
    totals: RefCell<Totals>,
}

impl Recorder {
    pub fn new(by_intention: bool) -> Result<Recorder, CreationError> {
        Ok(Recorder {
            from_ns: Cell::new(u64::MAX),
            until_ns: Cell::new(u64::MAX),
            by_intention,
            last_done_ns: Cell::new(0),
            interval: RefCell::new(Interval::new()?),
            totals: RefCell::new(Totals::new()?),
        })
    }

    pub fn set_window(&self, from_ns: u64, until_ns: u64) {
        self.from_ns.set(from_ns);
        self.until_ns.set(until_ns);
    }

    /// Where the window ends; [`u64::MAX`] for a run without a set duration.
    pub fn until_ns(&self) -> u64 {
        self.until_ns.get()
    }

    pub fn begin_ns(&self) -> u64 {
        self.from_ns.get()
    }

    /// Ends the window earlier than it was set.
    pub fn cut_window(&self, now_ns: u64) {
        self.until_ns.set(self.until_ns.get().min(now_ns));
    }

    /// There was no more to do: the window ends with the last of it. Where a rate was asked for,
    /// the whole window counts.
    pub fn all_ended(&self) {
        if !self.by_intention {
            self.cut_window(self.last_done_ns.get().max(self.from_ns.get()));
        }
    }

    fn counts(&self, at_ns: u64) -> bool {
        self.from_ns.get() <= at_ns && at_ns < self.until_ns.get()
    }

    pub fn done(&self, done: Done) {
        let latency = done.now_ns.saturating_sub(done.intended_ns);
        self.last_done_ns.set(done.now_ns);
        let mut interval = self.interval.borrow_mut();
        interval.requests += done.requests;
        interval.records += done.records;
        interval.bytes += done.bytes;
        interval.latency.saturating_record(latency);
        let intended = self.counts(done.intended_ns);
        let mut totals = self.totals.borrow_mut();
        if if self.by_intention { intended } else { self.counts(done.now_ns) } {
            totals.requests += done.requests;
            totals.records += done.records;
            totals.bytes += done.bytes;
            totals.raw_bytes += done.raw_bytes;
        }
        if intended {
            totals.latency.saturating_record(latency);
        }
    }

    /// An answer that will not come any more: its latency is at least what was waited for it.
    pub fn unanswered(&self, intended_ns: u64, now_ns: u64) {
        if self.counts(intended_ns) {
            self.totals.borrow_mut().latency.saturating_record(now_ns.saturating_sub(intended_ns));
        }
    }

    /// A request's answer where something else is what counts.
    pub fn acknowledged(&self, intended_ns: u64, now_ns: u64) {
        if self.counts(intended_ns) {
            let mut totals = self.totals.borrow_mut();
            totals.requests += 1;
            totals.acknowledged.saturating_record(now_ns.saturating_sub(intended_ns));
        }
    }

    pub fn sent(&self, intended_ns: u64, now_ns: u64) {
        if self.counts(intended_ns) {
            self.totals.borrow_mut().send_lag.saturating_record(now_ns.saturating_sub(intended_ns));
        }
    }

    pub fn woke(&self, intended_ns: u64, now_ns: u64) {
        if self.counts(intended_ns) {
            self.totals.borrow_mut().wake_late.saturating_record(now_ns.saturating_sub(intended_ns));
        }
    }

    /// Errors count whenever they happen, in the warm-up too.
    pub fn error(&self, what: String, count: u64) {
        *self.totals.borrow_mut().errors.entry(what).or_default() += count;
    }

    pub fn take_interval(&self) -> Interval {
        let mut interval = self.interval.borrow_mut();
        let taken = interval.clone();
        (interval.requests, interval.records, interval.bytes) = (0, 0, 0);
        interval.latency.reset();
        taken
    }

    pub fn totals(&self, client_cpu_seconds: f64) -> Totals {
        let mut totals = self.totals.borrow().clone();
        totals.window_ns = self.until_ns.get().saturating_sub(self.from_ns.get());
        totals.client_cpu_seconds = client_cpu_seconds;
        totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(intended_ns: u64, now_ns: u64) -> Done {
        Done { intended_ns, now_ns, requests: 1, records: 10, bytes: 100, raw_bytes: 200 }
    }

    #[test]
    fn only_the_window_counts() {
        for by_intention in [true, false] {
            let recorder = Recorder::new(by_intention).unwrap();
            recorder.set_window(1000, 2000);
            recorder.done(done(900, 950)); // warm-up
            recorder.done(done(990, 1100)); // due in the warm-up, ended in the window
            recorder.done(done(1500, 1600));
            recorder.done(done(1999, 9999)); // due in the window, ended after it: a late one is not lost
            recorder.done(done(2000, 2100));
            let totals = recorder.totals(0.0);
            assert_eq!((totals.requests, totals.records, totals.bytes, totals.raw_bytes), (2, 20, 200, 400));
            assert_eq!((totals.latency.len(), totals.window_ns), (2, 1000));
            assert!(totals.latency.max() >= 8000);
            assert_eq!(recorder.take_interval().requests, 5);
            assert_eq!(recorder.take_interval().latency.len(), 0);
        }
    }

    #[test]
    fn threads_add_up() {
        let recorder = Recorder::new(true).unwrap();
        recorder.set_window(0, 500);
        recorder.done(done(1, 101));
        recorder.error("x".into(), 2);
        let mut sum = recorder.totals(0.5);
        sum.add(&recorder.totals(0.25));
        assert_eq!((sum.requests, sum.latency.len(), sum.errors["x"]), (2, 2, 4));
        assert_eq!((sum.window_ns, sum.client_cpu_seconds), (500, 0.75));
    }
}
