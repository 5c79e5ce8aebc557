//! Time. Above this folder nobody calls `SystemTime::now` or `Instant::now`.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970 UTC, as record timestamps count.
pub fn wall_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}

/// A monotonic point in time, for deadlines.
pub fn now() -> Instant {
    Instant::now()
}

/// Waits on the shard's timer wheel. Zero waits for at least one reactor pass.
pub async fn sleep(duration: Duration) {
    glommio::timer::sleep(duration.max(Duration::from_nanos(500))).await;
}

/// The beat of everything that only looks around now and then.
pub const TICK: Duration = Duration::from_millis(250);

/// Waits for the next tick: the same moments for every loop of the process, so that an idle shard wakes once for all.
pub async fn next_tick() {
    static FIRST: OnceLock<Instant> = OnceLock::new();
    let first = *FIRST.get_or_init(Instant::now);
    let ticks = first.elapsed().as_nanos() / TICK.as_nanos();
    let next = first + TICK * u32::try_from(ticks + 1).unwrap_or(u32::MAX);
    sleep(next.saturating_duration_since(now())).await;
}

/// Runs `future` until it ends or `deadline` passes; `None`: the deadline came first and the future was dropped.
pub async fn until<F: Future>(deadline: Instant, future: F) -> Option<F::Output> {
    futures_lite::future::or(async { Some(future.await) }, async {
        sleep(deadline.saturating_duration_since(now())).await;
        None
    })
    .await
}
