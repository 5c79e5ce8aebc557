//! Time. Above this folder nobody calls `SystemTime::now` or `Instant::now`.

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

/// Runs `future` until it ends or `deadline` passes; `None`: the deadline came first and the future was dropped.
pub async fn until<F: Future>(deadline: Instant, future: F) -> Option<F::Output> {
    futures_lite::future::or(async { Some(future.await) }, async {
        sleep(deadline.saturating_duration_since(now())).await;
        None
    })
    .await
}
