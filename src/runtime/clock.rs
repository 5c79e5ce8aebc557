//! Time. Above this folder nobody calls `SystemTime::now` or `Instant::now`.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

#[cfg(any(test, feature = "simulator"))]
use super::sim;
use super::turn::Sleep;

/// Milliseconds since 1970 UTC, as record timestamps count.
pub fn wall_ms() -> i64 {
    #[cfg(any(test, feature = "simulator"))]
    if let Some(ms) = sim::wall_ms() {
        return i64::try_from(ms).unwrap_or(i64::MAX);
    }
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}

/// A monotonic point in time, for deadlines.
pub fn now() -> Instant {
    #[cfg(any(test, feature = "simulator"))]
    if let Some((begun, elapsed)) = sim::time() {
        return begun + elapsed;
    }
    Instant::now()
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
    Sleep::until(now() + duration.min(LONGEST)).await;
}

/// Waits until [`mono_ms`] is `at_ms`, at once if it is that already.
pub async fn sleep_until_mono(at_ms: u64) {
    let at = first().checked_add(Duration::from_millis(at_ms)).unwrap_or(now() + LONGEST);
    if at > now() {
        Sleep::until(at.min(now() + LONGEST)).await;
    }
}

/// Longer sleeps would be beyond what the clock can count.
const LONGEST: Duration = Duration::from_secs(1 << 32);

/// The beat of everything that only looks around now and then.
pub const TICK: Duration = Duration::from_millis(250);

/// Waits for the next tick: the same moments for every loop of the process, so that an idle shard wakes once for all.
pub async fn next_tick() {
    let next = round_up(now(), TICK);
    sleep(next.saturating_duration_since(now())).await;
}

/// The first moment after `deadline` that is a multiple of `grid` since the process first asked: deadlines that need not be
/// exact fall together, and the shard wakes once for many.
pub fn round_up(deadline: Instant, grid: Duration) -> Instant {
    let first = first();
    let steps = deadline.saturating_duration_since(first).as_nanos() / grid.as_nanos().max(1);
    first + Duration::from_nanos(u64::try_from((steps + 1) * grid.as_nanos()).unwrap_or(u64::MAX))
}

/// Runs `future` until it ends or `deadline` passes; `None`: the deadline came first and the future was dropped.
pub async fn until<F: Future>(deadline: Instant, future: F) -> Option<F::Output> {
    futures_lite::future::or(async { Some(future.await) }, async {
        sleep(deadline.saturating_duration_since(now())).await;
        None
    })
    .await
}
