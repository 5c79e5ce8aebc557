//! Where one connection's requests are worked on, and where it had better be:
//! pure, time is an argument.
//!
//! A request whose partitions are another shard's costs a call to it and back. Requests are counted
//! by owner over a window of [`WINDOW`] of them. A shard that owns half of it, and twice what the
//! connection's own shard owns, is where the connection goes. After that its own shard has half at
//! least, so going back takes other traffic, not chance. Later moves need [`AGREED`] windows one
//! after the other, and a pause that doubles from move to move.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::model::ShardId;

use super::context::TICK_MS;

/// Requests that are looked at together.
const WINDOW: u32 = 64;
/// Windows that must come to the same before a connection moves again.
const AGREED: u32 = 4;
/// Of a request with more partitions so many are looked at, others in each request. They stand side
/// by side, since owners repeat at even distances.
const LOOKED_AT: usize = 64;
/// A whole request; its partitions have equal parts of it.
const WHOLE: u32 = 1 << 12;
/// Between two moves of a connection (5 s), doubled with each,
const PAUSE_TICKS: u64 = 5000 / TICK_MS;
/// up to 64 times.
const MOST_DOUBLINGS: u32 = 6;
/// Between two attempts that came to nothing (1 s).
pub const AGAIN_TICKS: u64 = 1000 / TICK_MS;

/// One connection's requests by owner.
#[derive(Debug)]
pub struct Traffic {
    own: ShardId,
    /// Times that it has moved.
    moves: u32,
    /// The tick from which on it may move.
    rested: Cell<u64>,
    window: RefCell<Window>,
    /// Where it is to go.
    wish: Cell<Option<ShardId>>,
    /// The fetch session that its client used last.
    session: Cell<i32>,
}

#[derive(Debug, Default)]
struct Window {
    requests: u32,
    /// Few: a connection has to do with few shards, or with all of them in turn.
    by_owner: Vec<(ShardId, u32)>,
    /// Verdict of the window before this one, and how many in a row had the same.
    last: Option<ShardId>,
    agreed: u32,
}

impl Window {
    fn add(&mut self, owner: ShardId, part: u32) {
        match self.by_owner.iter_mut().find(|(known, _)| *known == owner) {
            Some((_, sum)) => *sum += part,
            None => self.by_owner.push((owner, part)),
        }
    }

    fn of(&self, owner: ShardId) -> u32 {
        self.by_owner.iter().find(|(known, _)| *known == owner).map_or(0, |(_, sum)| *sum)
    }

    /// The shard that a connection of `own` had better be on by what is
    /// counted, if that is another one.
    fn better_than(&self, own: ShardId) -> Option<ShardId> {
        let all: u32 = self.by_owner.iter().map(|(_, sum)| *sum).sum();
        let (most, sum) = *self.by_owner.iter().max_by_key(|(_, sum)| *sum)?;
        (most != own && sum >= all / 2 && sum >= 2 * self.of(own)).then_some(most)
    }
}

impl Traffic {
    /// Of a connection that is new on `own`, after so many moves.
    pub fn new(own: ShardId, moves: u32, now: u64) -> Traffic {
        let pause = match moves {
            0 => 0,
            moves => PAUSE_TICKS << (moves - 1).min(MOST_DOUBLINGS),
        };
        Traffic {
            own,
            moves,
            rested: Cell::new(now + pause),
            window: RefCell::default(),
            wish: Cell::new(None),
            session: Cell::new(0),
        }
    }

    pub fn moves(&self) -> u32 {
        self.moves
    }

    /// Counts a request for so many partitions; one for none counts nowhere.
    pub fn note(&self, partitions: usize, owner: impl Fn(usize) -> ShardId) {
        if partitions == 0 {
            return;
        }
        let window = &mut *self.window.borrow_mut();
        let looked_at = partitions.min(LOOKED_AT);
        let part = WHOLE / looked_at as u32;
        let first = window.requests as usize * LOOKED_AT % partitions;
        (first..first + looked_at).for_each(|index| window.add(owner(index % partitions), part));
        window.requests += 1;
        if window.requests < WINDOW {
            return;
        }
        let better = window.better_than(self.own);
        window.agreed = if better == window.last { window.agreed + 1 } else { 1 };
        let enough = self.moves == 0 || window.agreed >= AGREED;
        window.requests = 0;
        window.by_owner.clear();
        window.last = better;
        self.wish.set(better.filter(|_| enough));
    }

    /// The shard to go to, at this tick.
    pub fn wish(&self, now: u64) -> Option<ShardId> {
        self.wish.get().filter(|_| now >= self.rested.get())
    }

    /// It could not go: the wish rests for a while.
    pub fn put_off(&self, now: u64) {
        self.rested.set(now + AGAIN_TICKS);
    }

    pub fn note_session(&self, id: i32) {
        self.session.set(id);
    }

    pub fn session(&self) -> i32 {
        self.session.get()
    }
}

/// The traffic that a request belongs to; none where there is one shard.
#[derive(Clone, Debug, Default)]
pub struct Tally(Option<Rc<Traffic>>);

impl Tally {
    pub fn of(traffic: &Option<Rc<Traffic>>) -> Tally {
        Tally(traffic.clone())
    }

    /// As [`Traffic::note`]; nothing is evaluated without traffic.
    pub fn note<P>(&self, parts: &[P], owner: impl Fn(&P) -> ShardId) {
        if let Some(traffic) = &self.0 {
            traffic.note(parts.len(), |index| owner(&parts[index]));
        }
    }

    pub fn note_session(&self, id: i32) {
        if let Some(traffic) = &self.0 {
            traffic.note_session(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: ShardId = ShardId(1);

    fn requests(traffic: &Traffic, count: u32, owners: &[u16]) {
        (0..count).for_each(|_| traffic.note(owners.len(), |index| ShardId(owners[index])));
    }

    /// Whole windows, each with these parts of 64 by owner.
    fn windows(traffic: &Traffic, now: u64, count: usize, parts: &[(u16, u32)]) -> Option<u16> {
        assert_eq!(parts.iter().map(|(_, requests)| requests).sum::<u32>(), WINDOW);
        for _ in 0..count {
            parts.iter().for_each(|(owner, count)| requests(traffic, *count, &[*owner]));
        }
        traffic.wish(now).map(|shard| shard.0)
    }

    fn first(parts: &[(u16, u32)]) -> Option<u16> {
        windows(&Traffic::new(OWN, 0, 0), 0, 1, parts)
    }

    #[test]
    fn a_connection_goes_to_a_shard_with_half_of_it_and_twice_its_own() {
        assert_eq!(first(&[(0, 64)]), Some(0));
        assert_eq!(first(&[(1, 64)]), None, "at home");
        assert_eq!(first(&[(1, 32), (0, 32)]), None, "evenly mixed");
        assert_eq!(first(&[(1, 22), (0, 42)]), None, "not twice as much");
        assert_eq!(first(&[(1, 21), (0, 43)]), Some(0));
        assert_eq!(first(&[(1, 2), (0, 31), (2, 31)]), None, "less than half");
        assert_eq!(first(&[(0, 16), (1, 16), (2, 16), (3, 16)]), None);
        assert_eq!(first(&[(0, 8), (1, 0), (2, 40), (3, 16)]), Some(2));
    }

    #[test]
    fn nothing_is_decided_before_a_window_is_full() {
        let traffic = Traffic::new(OWN, 0, 0);
        requests(&traffic, WINDOW - 1, &[0]);
        requests(&traffic, 1000, &[]);
        assert_eq!(traffic.wish(0), None);
        requests(&traffic, 1, &[0]);
        assert_eq!(traffic.wish(0), Some(ShardId(0)));
        assert_eq!(windows(&traffic, 0, 1, &[(1, 64)]), None, "other traffic takes the wish back");
    }

    #[test]
    fn a_requests_partitions_have_equal_parts_of_it() {
        let traffic = Traffic::new(OWN, 0, 0);
        requests(&traffic, WINDOW, &[0, 0, 0, 1]);
        assert_eq!(traffic.wish(0), Some(ShardId(0)));
        let traffic = Traffic::new(OWN, 0, 0);
        requests(&traffic, WINDOW, &[0, 0, 1, 1, 2]);
        assert_eq!(traffic.wish(0), None);
        // A thousand partitions on all of four shards, in turn.
        let traffic = Traffic::new(OWN, 0, 0);
        let spread: Vec<u16> = (0..1000).map(|index| index % 4).collect();
        requests(&traffic, WINDOW, &spread);
        assert_eq!(traffic.wish(0), None);
        assert!(traffic.window.borrow().by_owner.is_empty(), "a new window");
        requests(&traffic, WINDOW, &[3; 1000]);
        assert_eq!(traffic.wish(0), Some(ShardId(3)));
    }

    #[test]
    fn later_moves_need_windows_that_agree() {
        let rested = 10 * PAUSE_TICKS;
        let traffic = Traffic::new(OWN, 1, 0);
        let few = AGREED as usize - 1;
        assert_eq!(windows(&traffic, rested, few, &[(0, 64)]), None);
        assert_eq!(windows(&traffic, rested, few, &[(2, 64)]), None, "another one");
        assert_eq!(windows(&traffic, rested, 1, &[(1, 64)]), None, "at home");
        assert_eq!(windows(&traffic, rested, few, &[(2, 64)]), None, "not one after the other");
        assert_eq!(windows(&traffic, rested, 1, &[(2, 64)]), Some(2));
    }

    #[test]
    fn between_two_moves_is_a_pause_that_doubles() {
        let pause = |moves: u32| {
            let traffic = Traffic::new(OWN, moves, 1000);
            (1000..)
                .find(|now| windows(&traffic, *now, 1 + AGREED as usize, &[(0, 64)]).is_some())
                .map(|now| now - 1000)
        };
        assert_eq!([0, 1, 2, 3].map(pause), [Some(0), Some(PAUSE_TICKS), Some(2 * PAUSE_TICKS), Some(4 * PAUSE_TICKS)]);
        assert_eq!([7, 8, u32::MAX].map(pause), [Some(64 * PAUSE_TICKS); 3]);
    }

    #[test]
    fn a_move_that_came_to_nothing_is_tried_again_a_second_later() {
        let traffic = Traffic::new(OWN, 0, 0);
        assert_eq!(windows(&traffic, 0, 1, &[(0, 64)]), Some(0));
        traffic.put_off(0);
        assert_eq!((traffic.wish(0), traffic.wish(AGAIN_TICKS - 1)), (None, None));
        assert_eq!(traffic.wish(AGAIN_TICKS), Some(ShardId(0)));
    }

    /// Random traffic with fixed parts, from every start: a connection settles, and stays.
    #[test]
    fn no_steady_traffic_keeps_a_connection_moving() {
        let mixes: [&[u32]; 9] = [
            &[50, 50],
            &[60, 40],
            &[67, 33],
            &[70, 30],
            &[90, 10],
            &[34, 33, 33],
            &[50, 25, 25],
            &[55, 40, 5],
            &[25, 25, 25, 25],
        ];
        let mut seed = 1u64;
        let mut random = move || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as u32 % 100
        };
        for mix in mixes {
            for start in 0..mix.len() as u16 {
                let mut now = 0;
                let mut traffic = Traffic::new(ShardId(start), 0, now);
                // 64 windows a second, for ten minutes.
                for window in 0..600 * 64 {
                    now = window * 4 / 64;
                    for _ in 0..WINDOW {
                        let (mut left, mut owner) = (random(), 0);
                        while left >= mix[owner as usize] {
                            left -= mix[owner as usize];
                            owner += 1;
                        }
                        traffic.note(1, |_| ShardId(owner));
                    }
                    if let Some(to) = traffic.wish(now) {
                        traffic = Traffic::new(to, traffic.moves() + 1, now);
                    }
                }
                assert!(traffic.moves() <= 2, "{mix:?} from {start}: {} moves", traffic.moves());
            }
        }
    }
}
