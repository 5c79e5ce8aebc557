//! State that the connections of a run share: its clock, its end, its counts.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::stats::Recorder;
use crate::client::ClientError;
use crate::runtime::clock;
use crate::runtime::process::StopFlag;
use crate::runtime::sync::Notify;

/// How long answers may take that are due when the run ends.
pub const DRAIN: Duration = Duration::from_secs(10);
pub const CLIENT_ID: &str = "corelane-bench";

const LOOK_AROUND: Duration = Duration::from_millis(20);

/// Between threads.
pub struct Shared {
    /// The run's clock counts from here.
    epoch: Instant,
    /// Set when a user or an error ends the run early.
    pub stop: StopFlag,
    /// Number that tells this run's records from those of others.
    pub run: u64,
    threads: usize,
    opened: AtomicUsize,
    start_ns: AtomicU64,
    /// Lanes that may still send.
    pub sending: AtomicUsize,
    /// By partition, `e2e` only: records sent, and the sequence number that its consumer waits for.
    pub sent: Vec<AtomicU64>,
    pub received: Vec<AtomicU64>,
}

impl Shared {
    pub fn new(threads: usize, senders: usize, partitions: usize, stop: StopFlag) -> Shared {
        Shared {
            epoch: clock::now(),
            stop,
            run: (u64::from(std::process::id()) << 42) ^ clock::wall_ms().unsigned_abs(),
            threads,
            opened: AtomicUsize::new(0),
            start_ns: AtomicU64::new(0),
            sending: AtomicUsize::new(senders),
            sent: (0..partitions).map(|_| AtomicU64::new(0)).collect(),
            received: (0..partitions).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    pub fn now_ns(&self) -> u64 {
        u64::try_from(clock::now().saturating_duration_since(self.epoch).as_nanos()).unwrap_or(u64::MAX)
    }

    /// Records that were sent and have not been received.
    pub fn missing(&self) -> u64 {
        let both = self.sent.iter().zip(&self.received);
        both.map(|(sent, got)| sent.load(Ordering::Acquire).saturating_sub(got.load(Ordering::Acquire))).sum()
    }
}

/// Within one thread.
pub struct Context {
    pub shared: Arc<Shared>,
    pub recorder: Recorder,
    pub tolerate: bool,
    /// An error has been given its place.
    placed: Cell<bool>,
    /// A connection has failed: if there is no task left then, the run is over earlier
    /// than it was meant to be.
    lost: Cell<bool>,
    /// Nothing new is sent any more.
    halted: Cell<bool>,
    pub halt: Notify,
    /// Nothing more is waited for.
    finished: Cell<bool>,
    pub finish: Notify,
    /// Tasks of this thread that have not ended.
    running: Cell<usize>,
    ended: Notify,
}

impl Context {
    pub fn new(shared: Arc<Shared>, recorder: Recorder, tolerate: bool, tasks: usize) -> Rc<Context> {
        Rc::new(Context {
            shared,
            recorder,
            tolerate,
            placed: Cell::new(false),
            lost: Cell::new(false),
            halted: Cell::new(false),
            halt: Notify::new(),
            finished: Cell::new(false),
            finish: Notify::new(),
            running: Cell::new(tasks),
            ended: Notify::new(),
        })
    }

    pub fn now_ns(&self) -> u64 {
        self.shared.now_ns()
    }

    pub fn is_halted(&self) -> bool {
        self.halted.get()
    }

    pub fn is_finished(&self) -> bool {
        self.finished.get()
    }

    /// An error of the broker or of what it delivered; unless errors are tolerated the run ends.
    pub fn error(&self, what: String, count: u64) {
        self.recorder.error(what, count);
        if !self.tolerate {
            self.shared.stop.set();
        }
    }

    /// A connection has failed, and with it its task.
    pub fn connection_lost(&self, error: &ClientError) {
        self.lost.set(true);
        self.error(format!("connection: {error}"), 1);
    }

    /// [`error`](Self::error) with a place, which is told of the first such error
    /// only: all others add up.
    pub fn error_at(&self, what: &str, partition: i32, offset: i64) {
        if self.placed.replace(true) {
            self.error(what.to_owned(), 1);
        } else {
            self.error(format!("{what}: the first in partition {partition} at offset {offset}"), 1);
        }
    }

    /// A lane's task has ended.
    pub fn task_ended(&self) {
        self.running.set(self.running.get().saturating_sub(1));
        self.ended.notify_all();
    }

    /// Waits until every thread has its connections; the moment at which all
    /// begin, ns on the run's clock.
    pub async fn start_together(&self) -> u64 {
        let shared = &self.shared;
        if shared.opened.fetch_add(1, Ordering::AcqRel) + 1 == shared.threads {
            shared.start_ns.store(self.now_ns().max(1), Ordering::Release);
        }
        loop {
            let start = shared.start_ns.load(Ordering::Acquire);
            if start != 0 || shared.stop.is_set() {
                return start.max(1);
            }
            clock::sleep(Duration::from_millis(1)).await;
        }
    }

    pub async fn sleep_until(&self, due_ns: u64) {
        let wait = Duration::from_nanos(due_ns.saturating_sub(self.now_ns()));
        clock::sleep(wait.min(LOOK_AROUND * 5)).await;
    }

    /// Halts the thread's lanes when the window ends, when the run is stopped, or when they have
    /// all ended. `warm`: called once when the window begins.
    pub async fn halt_in_time(&self, warm: impl FnOnce()) {
        let mut warm = Some(warm);
        loop {
            let now = self.now_ns();
            if now >= self.recorder.begin_ns()
                && let Some(warm) = warm.take()
            {
                warm();
            }
            // Before the tasks are looked at: the error that sets the flag ends its task as well.
            if self.shared.stop.is_set() {
                self.recorder.cut_window(now);
            }
            if self.running.get() == 0 {
                if self.lost.get() {
                    self.recorder.cut_window(now);
                }
                self.recorder.all_ended();
                break;
            }
            let until = self.recorder.until_ns();
            if now >= until {
                break;
            }
            let begin = if warm.is_some() { self.recorder.begin_ns() } else { u64::MAX };
            let next = Duration::from_nanos(until.min(begin).saturating_sub(now));
            clock::sleep(next.min(LOOK_AROUND)).await;
        }
        self.halted.set(true);
        self.halt.notify_all();
    }

    /// Lets what is under way arrive, then ends what still waits.
    pub async fn finish(&self) {
        let deadline = clock::now() + DRAIN;
        while clock::now() < deadline {
            let all_sent = self.shared.sending.load(Ordering::Acquire) == 0;
            if self.running.get() == 0 || (all_sent && self.shared.missing() == 0) {
                break;
            }
            clock::sleep(LOOK_AROUND).await;
        }
        self.finished.set(true);
        self.finish.notify_all();
        // Lanes have their own deadline; they end after this one at the latest.
        while self.running.get() > 0 {
            self.ended.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::on_shard;

    /// The window that is left of an hour when the only task has ended, for an
    /// error or in the normal way.
    async fn window(by_intention: bool, tolerate: bool, lost: bool) -> Duration {
        let shared = Arc::new(Shared::new(1, 1, 1, StopFlag::default()));
        let context = Context::new(shared, Recorder::new(by_intention).unwrap(), tolerate, 1);
        context.recorder.set_window(0, HOUR.as_nanos() as u64);
        if lost {
            context.connection_lost(&ClientError::Other("the broker is gone".into()));
        }
        context.task_ended();
        context.halt_in_time(|| ()).await;
        let totals = context.recorder.totals(0.0);
        assert_eq!(totals.errors.len(), usize::from(lost));
        Duration::from_nanos(totals.window_ns)
    }

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_run_whose_connections_fail_ends_when_they_do() {
        on_shard(|| async {
            for (by_intention, tolerate) in [(true, true), (true, false), (false, true), (false, false)] {
                let took = window(by_intention, tolerate, true).await;
                assert!(took < HOUR / 2, "{by_intention} {tolerate}: {took:?}");
            }
            // A rate may leave nothing to do before the end: that is no failure, and
            // all of the window counts.
            assert_eq!(window(true, false, false).await, HOUR);
        });
    }
}
