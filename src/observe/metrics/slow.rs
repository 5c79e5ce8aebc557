//! The slowest requests of this minute and of the last one, with their stages.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::counters::Level;

/// Requests of a minute that are kept, for each shard.
const MOST: usize = 16;
const MINUTE_MS: i64 = 60_000;

/// Times from a request's last byte to its stages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    pub appended: Option<Duration>,
    pub acknowledged: Option<Duration>,
}

/// A request that took long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlowRequest {
    /// When its answer was sent, in ms since 1970.
    pub at_ms: i64,
    /// Of its API.
    pub key: i16,
    pub peer: Option<SocketAddr>,
    pub marks: Marks,
    pub sent: Duration,
}

impl SlowRequest {
    /// The stage that took most of the time.
    pub fn waited_for(&self) -> &'static str {
        let appended = self.marks.appended.unwrap_or_default();
        let acknowledged = self.marks.acknowledged.unwrap_or(appended);
        let parts = [
            (appended, "being appended: CPU, memory or another shard"),
            (acknowledged.saturating_sub(appended), "the acknowledgement: the disk or a follower"),
        ];
        let sending = match self.marks.acknowledged {
            Some(_) => (self.sent.saturating_sub(acknowledged), "the answers before it, or the client that takes them"),
            None => (self.sent, "its work, or the answers before it"),
        };
        let longest = parts.into_iter().chain([sending]).max_by_key(|(time, _)| *time);
        longest.map_or("", |(_, what)| what)
    }
}

#[derive(Debug, Default)]
struct Minutes {
    /// Since 1970.
    minute: i64,
    now: Vec<SlowRequest>,
    before: Vec<SlowRequest>,
}

impl Minutes {
    fn roll(&mut self, at_ms: i64) {
        let minute = at_ms.div_euclid(MINUTE_MS);
        if minute != self.minute {
            let last = std::mem::take(&mut self.now);
            self.before = if minute == self.minute + 1 { last } else { Vec::new() };
            self.minute = minute;
        }
    }
}

/// Of one shard.
#[derive(Debug, Default)]
pub struct SlowRequests {
    /// A request that took no longer is not among the slowest, ns.
    floor: Level,
    minutes: Mutex<Minutes>,
}

impl SlowRequests {
    /// Whether a request that took so many ns may be among the slowest.
    pub fn wants(&self, ns: u64) -> bool {
        ns > self.floor.get()
    }

    pub fn note(&self, request: SlowRequest) {
        let mut minutes = self.minutes.lock().unwrap_or_else(PoisonError::into_inner);
        minutes.roll(request.at_ms);
        let at = minutes.now.partition_point(|other| other.sent >= request.sent);
        minutes.now.insert(at, request);
        minutes.now.truncate(MOST);
        let floor = minutes.now.get(MOST - 1).map_or(0, |last| last.sent.as_nanos() as u64);
        self.floor.set(floor);
    }

    /// Begins a new minute where it is time.
    pub fn tick(&self, now_ms: i64) {
        let mut minutes = self.minutes.lock().unwrap_or_else(PoisonError::into_inner);
        let minute = minutes.minute;
        minutes.roll(now_ms);
        if minutes.minute != minute {
            self.floor.set(0);
        }
    }

    /// Those of this minute and the last one, the slowest of each first.
    pub fn all(&self) -> Vec<SlowRequest> {
        let minutes = self.minutes.lock().unwrap_or_else(PoisonError::into_inner);
        minutes.now.iter().chain(&minutes.before).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn took(ms: u64, at_ms: i64) -> SlowRequest {
        SlowRequest { at_ms, key: 0, peer: None, marks: Marks::default(), sent: Duration::from_millis(ms) }
    }

    fn kept(slow: &SlowRequests) -> Vec<u128> {
        slow.all().iter().map(|request| request.sent.as_millis()).collect()
    }

    #[test]
    fn the_slowest_of_two_minutes_are_kept() {
        let slow = SlowRequests::default();
        for ms in 1..=100 {
            let ms = (ms * 37) % 101;
            if slow.wants(ms * 1_000_000) {
                slow.note(took(ms, 5));
            }
        }
        assert_eq!(kept(&slow), (85..=100).rev().collect::<Vec<u128>>());
        assert!(!slow.wants(85_000_000) && slow.wants(86_000_000));
        slow.tick(59_999);
        assert!(!slow.wants(3_000_000));
        slow.tick(60_000);
        assert!(slow.wants(3_000_000), "a new minute");
        slow.note(took(3, 60_001));
        assert_eq!(kept(&slow).len(), MOST + 1);
        assert_eq!(kept(&slow)[..2], [3, 100]);
        slow.tick(180_000);
        assert_eq!(kept(&slow), [], "two minutes later");
    }

    #[test]
    fn the_longest_stage_is_named() {
        let with = |appended: Option<u64>, acknowledged: Option<u64>, sent: u64| {
            let ms = |ms: Option<u64>| ms.map(Duration::from_millis);
            let marks = Marks { appended: ms(appended), acknowledged: ms(acknowledged) };
            SlowRequest { marks, ..took(sent, 0) }.waited_for()
        };
        assert!(with(Some(90), Some(95), 100).contains("appended"));
        assert!(with(Some(5), Some(95), 100).contains("disk"));
        assert!(with(Some(5), Some(10), 100).contains("client"));
        assert!(with(None, None, 100).contains("its work"));
    }
}
