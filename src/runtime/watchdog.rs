//! Notices a shard that makes no progress: each shard beats every 250 ms, a
//! thread checks every second.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::executor::at_shard_end;
use super::{clock, disk};

const CHECK: Duration = Duration::from_secs(1);

/// Without a beat for this long, a shard is stalled.
const STALL_MS: u64 = 1000;

/// A shard that does not beat: not yet, or no longer.
const SILENT: u64 = u64::MAX;

struct Pulses {
    start: Instant,
    /// By shard: milliseconds from `start` to the last beat, or [`SILENT`].
    last_beat_ms: Vec<AtomicU64>,
    /// By shard.
    stalls: Vec<AtomicU64>,
}

impl Pulses {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(SILENT - 1)
    }
}

/// Starts the thread; one heart per shard. It ends when no heart and no counter is left.
pub fn start(shards: u16) -> io::Result<Vec<Heart>> {
    let last_beat_ms = (0..shards).map(|_| AtomicU64::new(SILENT)).collect();
    let stalls = (0..shards).map(|_| AtomicU64::new(0)).collect();
    let pulses = Arc::new(Pulses { start: Instant::now(), last_beat_ms, stalls });
    let watched = Arc::downgrade(&pulses);
    std::thread::Builder::new().name("watchdog".to_owned()).spawn(move || {
        let mut stalled = vec![false; usize::from(shards)];
        while let Some(pulses) = watched.upgrade() {
            check(&pulses, pulses.now_ms(), &mut stalled);
            drop(pulses);
            std::thread::sleep(CHECK);
        }
    })?;
    Ok((0..shards).map(|shard| Heart { shard, pulses: pulses.clone() }).collect())
}

/// One look at every shard. `stalled`: those that have been reported.
fn check(pulses: &Pulses, now_ms: u64, stalled: &mut [bool]) {
    for (((shard, last), stalls), stalled) in pulses.last_beat_ms.iter().enumerate().zip(&pulses.stalls).zip(stalled) {
        let last = last.load(Ordering::Relaxed);
        let silent_ms = if last == SILENT { 0 } else { now_ms.saturating_sub(last) };
        if silent_ms >= STALL_MS && !*stalled {
            *stalled = true;
            stalls.fetch_add(1, Ordering::Relaxed);
            tracing::error!("shard {shard} has made no progress for {silent_ms} ms");
        } else if silent_ms < STALL_MS && *stalled {
            *stalled = false;
            tracing::warn!("shard {shard} makes progress again");
        }
    }
}

/// Beats for one shard; give it to the shard's thread.
pub struct Heart {
    shard: u16,
    pulses: Arc<Pulses>,
}

/// Reads the numbers of stalls; for metrics.
#[derive(Clone)]
pub struct StallCounter(Arc<Pulses>);

impl StallCounter {
    /// Of all shards, since the start.
    pub fn stalls(&self) -> u64 {
        self.0.stalls.iter().map(|stalls| stalls.load(Ordering::Relaxed)).sum()
    }

    pub fn of(&self, shard: u16) -> u64 {
        self.0.stalls.get(usize::from(shard)).map_or(0, |stalls| stalls.load(Ordering::Relaxed))
    }
}

impl Heart {
    /// Stalls of all shards since the start.
    pub fn stalls(&self) -> u64 {
        self.counter().stalls()
    }

    pub fn counter(&self) -> StallCounter {
        StallCounter(self.pulses.clone())
    }

    fn set(&self, ms: u64) {
        if let Some(last) = self.pulses.last_beat_ms.get(usize::from(self.shard)) {
            last.store(ms, Ordering::Relaxed);
        }
    }

    /// Runs for as long as the shard does. Also brings home, within one beat, the buffers
    /// that other shards gave back.
    pub async fn beat(self) {
        // The shard's end is not a stall; a task that sleeps then is not
        // dropped, and may run once more.
        let at_end = Heart { shard: self.shard, pulses: self.pulses.clone() };
        let ended = Rc::new(Cell::new(false));
        let ending = ended.clone();
        at_shard_end(move || {
            ending.set(true);
            drop(at_end);
        });
        while !ended.get() {
            self.set(self.pulses.now_ms());
            disk::drain_returns();
            clock::next_tick().await;
        }
    }
}

impl Drop for Heart {
    fn drop(&mut self) {
        self.set(SILENT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::executor::tests::{PATIENCE, on_shard};
    use std::sync::Mutex;

    #[test]
    fn a_stall_is_counted_once_and_a_beat_ends_it() {
        let last_beat_ms = [5_000, 5_900, SILENT].map(AtomicU64::new).into();
        let stalls = [0, 0, 0].map(AtomicU64::new).into();
        let pulses = Arc::new(Pulses { start: Instant::now(), last_beat_ms, stalls });
        let counter = StallCounter(pulses.clone());
        let mut stalled = [false; 3];
        let mut stalls_at = |now_ms| {
            check(&pulses, now_ms, &mut stalled);
            counter.stalls()
        };
        assert_eq!(stalls_at(5_999), 0, "a shard that beats is no stall, and neither is one that is silent");
        assert_eq!([stalls_at(6_000), stalls_at(6_500)], [1, 1]);
        pulses.last_beat_ms[0].store(6_600, Ordering::Relaxed);
        assert_eq!([stalls_at(6_800), stalls_at(7_600)], [1, 3], "the first one again, and the second");
        pulses.last_beat_ms[1].store(SILENT, Ordering::Relaxed);
        assert_eq!(stalls_at(1_000_000), 3, "an ended shard is no stall");
        assert_eq!([0, 1, 2, 3].map(|shard| counter.of(shard)), [2, 1, 0, 0]);
    }

    #[test]
    fn a_blocked_shard_is_noticed_and_its_end_is_no_stall() {
        let hearts = start(1).unwrap();
        let counter = hearts[0].counter();
        let hearts = Arc::new(Mutex::new(hearts));
        let on_its_shard = counter.clone();
        on_shard(move || {
            let (hearts, counter) = (hearts.clone(), on_its_shard.clone());
            async move {
                let heart = hearts.lock().unwrap().pop().unwrap();
                crate::runtime::spawn_local(heart.beat());
                clock::sleep(Duration::from_millis(1)).await;
                let (begun, before) = (clock::now(), counter.stalls());
                while counter.stalls() == before {
                    assert!(begun.elapsed() < PATIENCE, "not noticed");
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
        });
        let pulses = counter.0;
        assert_eq!(pulses.last_beat_ms[0].load(Ordering::Relaxed), SILENT);
    }
}
