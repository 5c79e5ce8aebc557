//! Time. Above this folder nobody calls `SystemTime::now` or `Instant::now`.

use std::num::NonZeroU64;
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

#[cfg(any(test, feature = "simulator"))]
use super::sim;
use super::turn::Sleep;

/// Milliseconds since 1970 UTC, as record timestamps count.
pub fn wall_ms() -> i64 {
    #[cfg(any(test, feature = "simulator"))]
    if let Some(ms) = sim::wall_ms() {
        return i64::try_from(ms).unwrap_or(i64::MAX);
    }
    let (seconds, ns) = read_clock(libc::CLOCK_REALTIME);
    seconds.saturating_mul(1000).saturating_add(ns / 1_000_000).max(0)
}

/// Seconds and nanoseconds of a clock that is always there.
#[inline]
fn read_clock(clock: libc::clockid_t) -> (i64, i64) {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes to `time` only.
    #[allow(unsafe_code)]
    let _ = unsafe { libc::clock_gettime(clock, &mut time) };
    (time.tv_sec, time.tv_nsec)
}

/// A monotonic point in time, for deadlines.
pub fn now() -> Instant {
    #[cfg(any(test, feature = "simulator"))]
    if let Some((begun, elapsed)) = sim::time() {
        return begun + elapsed;
    }
    Instant::now()
}

/// A point in time, to the nanosecond, for what is measured or waited for many times a second:
/// taking one and the difference of two cost a fraction of what they do with an [`Instant`]. Only
/// differences say anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(NonZeroU64);

impl Moment {
    /// Before all others.
    pub const FIRST: Moment = Moment(NonZeroU64::MIN);

    pub fn now() -> Moment {
        #[cfg(any(test, feature = "simulator"))]
        if let Some((_, elapsed)) = sim::time() {
            return Moment::simulated(elapsed);
        }
        let (seconds, ns) = read_clock(libc::CLOCK_MONOTONIC);
        Moment::at((seconds as u64).wrapping_mul(1_000_000_000).wrapping_add(ns as u64))
    }

    /// So many ns after the clock's own beginning.
    fn at(ns: u64) -> Moment {
        Moment(NonZeroU64::MIN.saturating_add(ns))
    }

    /// Time since a simulated clock's beginning.
    #[cfg(any(test, feature = "simulator"))]
    pub(super) fn elapsed(self) -> Duration {
        Duration::from_nanos(self.0.get() - 1)
    }

    /// The moment at which so much has passed on a simulated clock.
    #[cfg(any(test, feature = "simulator"))]
    pub(super) fn simulated(elapsed: Duration) -> Moment {
        Moment::at(nanoseconds(elapsed))
    }

    /// Nanoseconds since `earlier`; 0 if that is later.
    pub fn ns_since(self, earlier: Moment) -> u64 {
        self.0.get().saturating_sub(earlier.0.get())
    }

    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_nanos(self.ns_since(earlier))
    }

    /// As far in the future as can be counted at most.
    pub fn after(self, time: Duration) -> Moment {
        Moment(self.0.saturating_add(nanoseconds(time)))
    }

    /// The first moment after it that is a multiple of `grid`: deadlines that need not be exact
    /// fall together, and the shard wakes once for many.
    pub fn round_up(self, grid: Duration) -> Moment {
        let grid = nanoseconds(grid).max(1);
        Moment(self.0.saturating_add(grid - self.0.get() % grid))
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Milliseconds on the same clock, since the process first asked.
pub fn mono_ms() -> u64 {
    u64::try_from(now().saturating_duration_since(first()).as_millis()).unwrap_or(u64::MAX)
}

/// When the process first asked.
fn first() -> Instant {
    #[cfg(any(test, feature = "simulator"))]
    if let Some((begun, _)) = sim::time() {
        return begun;
    }
    static FIRST: OnceLock<Instant> = OnceLock::new();
    *FIRST.get_or_init(Instant::now)
}

/// Waits on the shard's timers. Zero waits for the shard's next turn.
pub async fn sleep(duration: Duration) {
    Sleep::until(Moment::now().after(duration.min(LONGEST))).await;
}

/// Waits until [`mono_ms`] is `at_ms`, at once if it is that already.
pub async fn sleep_until_mono(at_ms: u64) {
    let left = Duration::from_millis(at_ms).saturating_sub(now().saturating_duration_since(first()));
    if !left.is_zero() {
        sleep(left).await;
    }
}

/// Longer sleeps would be beyond what the clock can count.
const LONGEST: Duration = Duration::from_secs(1 << 32);

/// The beat of everything that only looks around now and then.
pub const TICK: Duration = Duration::from_millis(250);

/// Waits for the next tick: the same moments for every loop of the process, so that an idle
/// shard wakes once for all.
pub async fn next_tick() {
    let next = round_up(now(), TICK);
    sleep(next.saturating_duration_since(now())).await;
}

/// The first moment after `deadline` that is a multiple of `grid` since the process first asked:
/// deadlines that need not be exact fall together, and the shard wakes once for many.
pub fn round_up(deadline: Instant, grid: Duration) -> Instant {
    let first = first();
    let steps = deadline.saturating_duration_since(first).as_nanos() / grid.as_nanos().max(1);
    first + Duration::from_nanos(u64::try_from((steps + 1) * grid.as_nanos()).unwrap_or(u64::MAX))
}

/// Runs `future` until it ends or `deadline` passes; `None`: the deadline came first.
pub fn until<F: Future>(deadline: Instant, future: F) -> Until<F> {
    Until { future, alarm: Alarm::At(deadline) }
}

/// As [`until`], by a deadline that is a [`Moment`].
pub fn by<F: Future>(deadline: Moment, future: F) -> Until<F> {
    Until { future, alarm: Alarm::Set(Sleep::until(deadline)) }
}

/// See [`until`]. No `async fn`, which would have room for `future` several times: futures
/// are moved as they are made.
pub struct Until<F> {
    future: F,
    alarm: Alarm,
}

enum Alarm {
    /// To be set once the future waits.
    At(Instant),
    Set(Sleep),
}

impl<F: Future> Future for Until<F> {
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // SAFETY: `future` is never moved out of `self`; `alarm` may be.
        #[allow(unsafe_code)]
        let (future, alarm) = unsafe {
            let until = self.get_unchecked_mut();
            (Pin::new_unchecked(&mut until.future), &mut until.alarm)
        };
        if let Poll::Ready(output) = future.poll(cx) {
            return Poll::Ready(Some(output));
        }
        if let Alarm::At(deadline) = alarm {
            let left = deadline.saturating_duration_since(now()).min(LONGEST);
            *alarm = Alarm::Set(Sleep::until(Moment::now().after(left)));
        }
        match alarm {
            Alarm::Set(sleep) => Pin::new(sleep).poll(cx).map(|()| None),
            Alarm::At(_) => Poll::Pending,
        }
    }
}
