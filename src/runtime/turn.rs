//! A shard's turn: tasks run until none can go on; then, in one system call, what they want of the
//! kernel is submitted and the shard sleeps until something has happened.
//!
//! This is a task of glommio's executor like the others, in the same queue. While it keeps itself
//! runnable, glommio goes on running tasks and does not enter its own reactor. The reactor is
//! needed for what still goes through it (helper threads: whatever holds a [`Foreign`]): while any
//! of that is under way the shard sleeps in glommio, with this ring's eventfd to wake it.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_lite::future::{or, yield_now};
use glommio::io::BufferedFile;

use super::clock::{Moment, TICK};
use super::context;
use super::doorbell::{Doorbell, eventfd};
use super::gather::Gather;
use super::ring::{self, Nap, Ring};
use super::spin::Spin;
use super::sync::Notify;
use crate::observe::metrics::{ShardMetrics, Spell};

/// How long tasks may run before the kernel is asked for news, ns.
const INTERVAL_NS: u64 = 100_000;

const TICK_NS: u64 = TICK.as_nanos() as u64;

/// A pass of glommio's reactor: it polls its rings only when it has nothing to
/// run, which a timer sees to.
const PASS: Duration = Duration::from_nanos(500);

/// State of a shard's turns.
#[derive(Default)]
pub(super) struct Turn {
    /// Polls of all tasks; a turn in which it stands still has run nothing.
    polls: Cell<u64>,
    /// Operations under way in glommio's reactor or on its helper threads.
    foreign: Cell<usize>,
    timers: RefCell<Timers>,
    doorbells: RefCell<Vec<Arc<Doorbell>>>,
    last: Cell<Option<Moment>>,
    /// The choice between spinning and sleeping when there is nothing to do.
    spin: RefCell<Spin>,
    gather: RefCell<Gather>,
    /// While glommio's reactor has its turn nothing may stay runnable.
    passing: Cell<bool>,
    passed: Notify,
    /// Set while the shard sleeps in glommio.
    parked: RefCell<Option<Waker>>,
    stopped: Cell<bool>,
}

/// Has this shard spin for so long at most before it sleeps, where that gets more done.
pub fn spin_before_sleep(longest: Duration) {
    context::with(|shard| *shard.turn.spin.borrow_mut() = Spin::new(longest));
}

/// How long this shard has spun instead of sleeping, in all.
pub fn time_spun() -> Duration {
    context::with(|shard| Duration::from_nanos(shard.turn.spin.borrow().spun_ns()))
}

/// Has this shard, once it sleeps, sleep for `longest` where that brings more, so that more is done
/// together when it wakes; `false`: the kernel does not know how (Linux 6.12 does).
pub fn gather_before_waking(longest: Duration) -> io::Result<bool> {
    let able = ring::current()?.gathers();
    if able {
        context::with(|shard| *shard.turn.gather.borrow_mut() = Gather::new(longest));
    }
    Ok(able)
}

/// When this shard was last told news by the kernel: what has arrived since is not known yet.
/// Costs no look at the clock.
pub fn last_news() -> Moment {
    context::with(|shard| shard.turn.last.get()).unwrap_or_else(Moment::now)
}

/// Counts its polls.
pub(super) struct Counted<F>(pub(super) F);

impl<F: Future> Future for Counted<F> {
    type Output = F::Output;

    // `scripts/count-instructions` finds by this function what tasks execute.
    #[inline(never)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        context::with(|shard| shard.turn.polls.set(shard.turn.polls.get().wrapping_add(1)));
        // SAFETY: a projection to the only field, which is never moved out of `self`.
        #[allow(unsafe_code)]
        let future = unsafe { self.map_unchecked_mut(|counted| &mut counted.0) };
        future.poll(cx)
    }
}

/// Held while something waits for glommio's reactor.
pub(super) struct Foreign(());

impl Foreign {
    pub(super) fn begin() -> Foreign {
        context::with(|shard| shard.turn.foreign.set(shard.turn.foreign.get() + 1));
        wake_if_parked();
        Foreign(())
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let left = context::peek(|shard| {
            shard.turn.foreign.set(shard.turn.foreign.get() - 1);
            shard.turn.foreign.get()
        });
        if left == Some(0) {
            wake_if_parked();
        }
    }
}

/// Ends a sleep in glommio: there is something for the ring to do.
pub(super) fn wake_if_parked() {
    let waker = context::peek(|shard| shard.turn.parked.take()).flatten();
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// Lets others run once [`INTERVAL_NS`] has passed since the kernel was asked for news, and lets
/// glommio pass when it is to.
pub(super) async fn yield_when_due() {
    if context::with(|shard| shard.turn.goes_on()) {
        return;
    }
    let shard = context::current();
    let turn = &shard.turn;
    if turn.stopped.get() {
        // The kernel is asked for news no more; a task that stays runnable would keep the executor
        // from its end.
        std::future::pending::<()>().await;
    }
    if turn.passing.get() {
        wake_if_parked();
        turn.passed.notified().await;
    } else {
        yield_now().await;
    }
}

/// From now on `doorbell` ends the shard's sleep.
pub(super) fn listen(doorbell: Arc<Doorbell>) -> io::Result<()> {
    let watch = ring::Watch::new(Rc::new(doorbell.descriptor()?), ring::Interest::Readable)?;
    // For as long as the shard runs: its completions are what ends the sleep.
    std::mem::forget(watch);
    context::with(|shard| shard.turn.doorbells.borrow_mut().push(doorbell));
    Ok(())
}

#[derive(Default)]
struct Timers {
    by_time: BTreeMap<(Moment, u64), Waker>,
    number: u64,
}

impl Timers {
    /// Has `waker` wait on the timer `number`, or on a new one: its number. `None`: it has fired.
    fn wait(&mut self, at: Moment, number: Option<u64>, waker: &Waker) -> Option<u64> {
        if let Some(number) = number {
            self.by_time.get_mut(&(at, number))?.clone_from(waker);
            return Some(number);
        }
        self.number += 1;
        self.by_time.insert((at, self.number), waker.clone());
        Some(self.number)
    }
}

/// Ends at its time, in a later turn at the earliest.
pub(super) struct Sleep {
    at: Moment,
    number: Option<u64>,
}

impl Sleep {
    pub(super) fn until(at: Moment) -> Sleep {
        Sleep { at, number: None }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let (at, number) = (self.at, self.number);
        let waits = context::with(|shard| shard.turn.timers.borrow_mut().wait(at, number, cx.waker()));
        match (waits, number) {
            (None, _) => return Poll::Ready(()),
            (Some(_), Some(_)) => {}
            (Some(new), None) => {
                self.number = Some(new);
                wake_if_parked();
            }
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            context::peek(|shard| shard.turn.timers.borrow_mut().by_time.remove(&(self.at, number)));
        }
    }
}

/// The ring's eventfd as glommio sees it. Made once per shard.
pub(super) struct Bridge {
    ring: Rc<Ring>,
    /// glommio's reading end.
    file: BufferedFile,
}

impl Bridge {
    /// Within the executor, after [`ring::start`].
    pub(super) fn new() -> io::Result<Bridge> {
        let ring = ring::current()?;
        // glommio's read is to wait for it.
        let eventfd = eventfd(0)?;
        ring.register_eventfd(eventfd.as_raw_fd())?;
        // SAFETY: the descriptor is open and given away here.
        #[allow(unsafe_code)]
        let file = unsafe { BufferedFile::from_raw_fd(eventfd.into_raw_fd()) };
        Ok(Bridge { ring, file })
    }

    /// Ends when the ring has completions, some time after they came.
    async fn wait(&self) {
        // Eight bytes: an eventfd's counter. Whatever comes of it, the turn
        // looks at the ring afterwards.
        let _ = self.file.read_at(0, 8).await;
    }
}

/// Starts the shard's turns, once.
pub(super) fn start(bridge: Bridge) {
    let bridge = Rc::new(bridge);
    let reading = bridge.clone();
    glommio::spawn_local(async move {
        loop {
            reading.wait().await;
            wake_if_parked();
        }
    })
    .detach();
    glommio::spawn_local(async move {
        let shard = context::current();
        shard.turn.run(&bridge.ring, &shard.metrics).await;
    })
    .detach();
}

/// Ends the shard's turns, so that its executor can end.
pub(super) fn stop() {
    context::with(|shard| shard.turn.stopped.set(true));
    wake_if_parked();
}

impl Turn {
    /// True if the task that asks need not let others run.
    fn goes_on(&self) -> bool {
        let is_new = || self.last.get().is_some_and(|last| Moment::now().ns_since(last) < INTERVAL_NS);
        !self.stopped.get() && !self.passing.get() && is_new()
    }

    async fn run(&self, ring: &Ring, metrics: &OnceCell<Arc<ShardMetrics>>) {
        let mut seen = self.polls.get();
        let mut last_pass = Moment::now();
        while !self.stopped.get() {
            yield_now().await;
            let polls = self.polls.get();
            let now = Moment::now();
            let quiet = polls == seen;
            seen = polls;
            if !quiet {
                self.spin.borrow_mut().note_work(self.last.get().unwrap_or(now));
            }
            if !quiet && self.last.get().is_some_and(|last| now.ns_since(last) < INTERVAL_NS) {
                continue;
            }
            if let (false, Some(metrics), Some(last)) = (quiet, metrics.get(), self.last.get()) {
                metrics.turns.add(Spell::of(now.ns_since(last)));
                metrics.io_in_flight.set(ring.in_flight() as u64);
            }
            let quiet = !self.fire(now) && !self.answer_doorbells() && quiet && !self.stopped.get();
            let sleepy = quiet && !self.spins(now, metrics);
            let since_pass = now.ns_since(last_pass);
            if self.foreign.get() > 0 || since_pass >= TICK_NS {
                check(ring.enter(None));
                let news = ring.reap() > 0;
                if self.foreign.get() > 0 && sleepy && !news {
                    if self.sleep_in_glommio(ring, now).await {
                        last_pass = Moment::now();
                    }
                } else if since_pass >= INTERVAL_NS {
                    self.pass().await;
                    last_pass = Moment::now();
                }
            } else {
                let wait = if sleepy { self.fall_asleep(now) } else { None };
                check(ring.enter(wait.map(|longest| Nap { longest, least_us: self.gather_us(metrics) })));
                self.wake_up();
                ring.reap();
            }
            self.last.set(Some(Moment::now()));
        }
    }

    /// True if to ask for news again instead of sleeping. Other threads that
    /// want this CPU have it first.
    fn spins(&self, now: Moment, metrics: &OnceCell<Arc<ShardMetrics>>) -> bool {
        let moved = || metrics.get().map_or(0, |metrics| metrics.received_bytes.get() + metrics.sent_bytes.get());
        let spins = self.spin.borrow_mut().spins(now, moved);
        if spins {
            std::thread::yield_now();
        }
        spins
    }

    /// How long the sleep that begins now lasts at least, µs.
    fn gather_us(&self, metrics: &OnceCell<Arc<ShardMetrics>>) -> u32 {
        let mut gather = self.gather.borrow_mut();
        if gather.is_off() {
            return 0;
        }
        gather.next_us(metrics.get().map_or(0, |metrics| metrics.received_bytes.get()))
    }

    /// Wakes those whose time has come; whether there were any.
    pub(super) fn fire(&self, now: Moment) -> bool {
        let mut fired = false;
        loop {
            let mut timers = self.timers.borrow_mut();
            let due = timers.by_time.first_entry().filter(|entry| entry.key().0 <= now).map(|entry| entry.remove());
            drop(timers);
            let Some(waker) = due else { return fired };
            fired = true;
            waker.wake();
        }
    }

    fn answer_doorbells(&self) -> bool {
        let doorbells = self.doorbells.borrow();
        let mut any = false;
        for doorbell in doorbells.iter() {
            any |= doorbell.answer();
        }
        any
    }

    /// How long the shard may sleep; `None`: not at all, the bell has just rung.
    fn fall_asleep(&self, now: Moment) -> Option<Duration> {
        let mut rung = false;
        for doorbell in self.doorbells.borrow().iter() {
            rung |= doorbell.fall_asleep();
        }
        (!rung).then(|| self.until_next_timer(now))
    }

    fn wake_up(&self) {
        for doorbell in self.doorbells.borrow().iter() {
            doorbell.wake_up();
        }
    }

    /// When somebody is to be woken next.
    #[cfg(any(test, feature = "simulator"))]
    pub(super) fn next_timer(&self) -> Option<Moment> {
        self.timers.borrow().by_time.first_key_value().map(|((at, _), _)| *at)
    }

    fn until_next_timer(&self, now: Moment) -> Duration {
        let timers = self.timers.borrow();
        let next = timers.by_time.first_key_value().map(|((at, _), _)| at.since(now));
        next.unwrap_or(TICK).min(TICK)
    }

    /// Lets glommio's reactor poll its rings once.
    async fn pass(&self) {
        self.passing.set(true);
        let mut wait = PASS;
        let mut waited = false;
        while !waited {
            let mut timer = pin!(glommio::timer::sleep(wait));
            let pass = poll_fn(|cx| {
                let outcome = timer.as_mut().poll(cx);
                waited |= outcome.is_pending();
                outcome
            });
            pass.await;
            // One that was due when it was first looked at (a slow or interrupted processor)
            // never came to the reactor.
            wait *= 2;
        }
        self.passing.set(false);
        self.passed.notify_all();
    }

    /// Sleeps until glommio has woken somebody, the ring has completions, a bell rings or a timer
    /// is due; whether it slept.
    async fn sleep_in_glommio(&self, ring: &Ring, now: Moment) -> bool {
        let mut slept = false;
        if let Some(wait) = self.fall_asleep(now)
            && !signal(ring)
        {
            self.passing.set(true);
            let mut begun = false;
            let woken = poll_fn(|cx| {
                if std::mem::replace(&mut begun, true) && self.parked.borrow().is_none() {
                    return Poll::Ready(());
                }
                *self.parked.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            });
            or(woken, glommio::timer::sleep(wait.max(PASS))).await;
            let parked = self.parked.take();
            drop(parked);
            self.passing.set(false);
            self.passed.notify_all();
            slept = true;
        }
        ring.no_signal();
        self.wake_up();
        slept
    }
}

/// Has the ring call; whether there is something to reap already.
fn signal(ring: &Ring) -> bool {
    let outcome = ring.signal();
    let waiting = matches!(outcome, Ok(true));
    check(outcome.map(drop));
    waiting
}

/// The ring itself refuses: without it the shard can do nothing, and going on would be a busy loop.
fn check(outcome: io::Result<()>) {
    if let Err(error) = outcome {
        tracing::error!("the shard's io_uring fails, the broker ends: {error}");
        std::process::abort();
    }
}
