//! How long a shard that sleeps lets requests gather (`corelane.gather.us`): pure.
//!
//! A longer sleep handles more requests together, as long as more come. Clients with a few requests
//! under way send no more until they are answered: then the shard sleeps for nothing, they fall
//! behind, and cannot make up for it. So after a sleep that brought as much as any did lately the
//! shard tries a shorter one, and keeps to it where that brings as much again.

use std::time::Duration;

/// As much as any: all of the most but one part in so many.
const ALMOST: u64 = 16;
/// With each sleep the most that has come is forgotten by one part in so many: clients change.
const FORGOTTEN: u64 = 64;
/// A trial is shorter by one part in so many.
const SHORTER: u32 = 8;
/// A sleep that brought less has the next one longer by one part in so many of the longest,
const LONGER: u32 = 16;
/// and so much of the longest is the shortest.
const SHORTEST: u32 = 16;
/// Sleeps between two trials: each one in vain doubles them, up to this.
const RAREST: u32 = 32;

#[derive(Debug, Default)]
pub(super) struct Gather {
    longest_us: u32,
    /// The next sleep's.
    us: u32,
    /// All bytes from clients so far.
    received: u64,
    /// Bytes between two sleeps, lately.
    most: u64,
    /// The sleep before the trial that is under way.
    tried: Option<u32>,
    /// Sleeps until the next trial.
    hold: u32,
    /// After the next one, if it is in vain.
    rarer: u32,
}

impl Gather {
    pub(super) fn new(longest: Duration) -> Gather {
        let longest_us = u32::try_from(longest.as_micros()).unwrap_or(u32::MAX);
        Gather { longest_us, us: longest_us, rarer: 1, ..Gather::default() }
    }

    /// Never gathers.
    pub(super) fn is_off(&self) -> bool {
        self.longest_us == 0
    }

    /// How long the sleep that begins now lasts at least, µs. `received`: all bytes from clients
    /// so far.
    pub(super) fn next_us(&mut self, received: u64) -> u32 {
        let came = received.saturating_sub(std::mem::replace(&mut self.received, received));
        // It was for another reason that the shard woke.
        if came > 0 {
            self.us = self.after(came);
        }
        self.us
    }

    fn after(&mut self, came: u64) -> u32 {
        self.most = came.max(self.most - self.most / FORGOTTEN);
        let full = came >= self.most - self.most / ALMOST;
        self.hold = self.hold.saturating_sub(1);
        match (self.tried.take(), full) {
            (Some(before), false) => {
                self.hold = self.rarer;
                self.rarer = (self.rarer * 2).min(RAREST);
                return before;
            }
            (Some(_), true) => self.rarer = 1,
            (None, false) => {
                let longer = self.us.saturating_add((self.longest_us / LONGER).max(1));
                return longer.min(self.longest_us);
            }
            (None, true) => {}
        }
        if self.hold > 0 {
            return self.us;
        }
        self.tried = Some(self.us);
        (self.us - self.us / SHORTER).max(self.longest_us / SHORTEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST_US: u64 = 800;
    const REQUEST: u64 = 16_384;

    /// A client that has a request for the broker each `gap_us`, from the start on, and `depth`
    /// under way at most; the broker is busy for `busy_us` with what has come. Of the last half of
    /// `turns`: mean sleep, most requests that wait to be sent, and requests a turn.
    fn paced(gap_us: u64, depth: u64, busy_us: u64, turns: u64) -> (u64, u64, f64) {
        let mut gather = Gather::new(Duration::from_micros(LONGEST_US));
        let (mut now, mut answered, mut sent, mut slept, mut answered_before, mut behind) = (0, 0, 0, 0, 0, 0);
        for turn in 0..turns {
            let us = u64::from(gather.next_us(sent * REQUEST));
            now += us;
            sent = (now / gap_us).min(answered + depth);
            now += busy_us;
            answered = sent;
            if turn < turns / 2 {
                answered_before = answered;
            } else {
                slept += us;
                behind = behind.max(now / gap_us - answered);
            }
        }
        let half = turns - turns / 2;
        (slept / half, behind, (answered - answered_before) as f64 / half as f64)
    }

    #[test]
    fn requests_that_come_at_their_own_rate_gather_for_nearly_all_of_the_time() {
        for (gap_us, depth) in [(300, 5), (90, 64), (20, 512), (7, 512)] {
            let (mean_us, behind, _) = paced(gap_us, depth, 30, 4_000);
            assert!(mean_us > LONGEST_US * 7 / 8, "{gap_us} µs apart: {mean_us} µs");
            assert!(behind <= 1 + 50 / gap_us, "{gap_us} µs apart: {behind} wait");
        }
    }

    /// 16 KiB at 100 MB/s by a client with five under way: they are sent in less time than
    /// 800 µs and the work take.
    #[test]
    fn a_client_with_few_under_way_keeps_its_rate() {
        let (mean_us, behind, requests) = paced(164, 5, 60, 4_000);
        assert!(behind <= 2 * 5, "{behind} wait");
        assert!(mean_us > LONGEST_US * 3 / 4 && requests > 4.0, "{mean_us} µs, {requests} a turn");
    }

    #[test]
    fn a_backlog_is_worked_off() {
        let mut gather = Gather::new(Duration::from_micros(LONGEST_US));
        // 5 at once, time after time: the client has more.
        let sleeps: Vec<u32> = (1..=40).map(|turn| gather.next_us(turn * 5 * REQUEST)).collect();
        assert_eq!(sleeps.last(), Some(&50), "{sleeps:?}");
        assert!(sleeps.iter().sum::<u32>() < 8_000, "{sleeps:?}");
        // It has none left.
        for turn in 1..=20 {
            gather.next_us((200 + 2 * turn) * REQUEST);
        }
        assert_eq!(gather.us, 800);
    }

    #[test]
    fn other_reasons_to_wake_change_nothing() {
        let mut gather = Gather::new(Duration::from_micros(LONGEST_US));
        for _ in 0..100 {
            assert_eq!(gather.next_us(0), 800);
        }
    }
}
