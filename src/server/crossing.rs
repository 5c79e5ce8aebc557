//! Connections on their way from one shard to another: which shards take any, and what travels.
//!
//! A connection leaves between two requests, when all its answers have been handed to the kernel:
//! then it holds no memory but what little has arrived of the next request, and what it asked other
//! shards for has ended, so its requests keep their order. Its socket goes by another descriptor;
//! nothing is received by the ring itself, so no bytes are under way there.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use tracing::debug;

use crate::model::ShardId;
use crate::observe::metrics::Software;
use crate::runtime::admission::Place;
use crate::runtime::clock;
use crate::runtime::net::Loose;
use crate::runtime::{process, time_spun};

use super::fetch_session::Session;
use super::receive::Begun;

/// A shard that was busy for more than this, in thousandths of the last tick, takes no connections
/// of shards that were less so.
const BUSY: u32 = 700;
/// Connections that a shard takes between two ticks: how busy it is shows only then.
const ARRIVALS: u32 = 64;

/// How busy each shard is, for all to see.
pub struct Loads(Vec<Load>);

#[derive(Default)]
struct Load {
    /// Thousandths of a core, of the last tick.
    busy: AtomicU32,
    /// Connections that have set out for it since the last tick.
    arrivals: AtomicU32,
}

impl Loads {
    pub fn new(shards: u16) -> Arc<Loads> {
        Arc::new(Loads((0..shards).map(|_| Load::default()).collect()))
    }

    fn busy(&self, shard: ShardId) -> u32 {
        self.0.get(usize::from(shard.0)).map_or(u32::MAX, |load| load.busy.load(Ordering::Relaxed))
    }

    /// True if a connection of `from` may go to `to`: a shard that many want to be on must not
    /// end up with all the work.
    fn allows(&self, from: ShardId, to: ShardId) -> bool {
        let busy = self.busy(to);
        busy <= BUSY || busy < self.busy(from)
    }

    /// A place among those that `shard` takes for now.
    fn book(&self, shard: ShardId) -> bool {
        let load = self.0.get(usize::from(shard.0));
        load.is_some_and(|load| load.arrivals.fetch_add(1, Ordering::Relaxed) < ARRIVALS)
    }

    fn note(&self, shard: ShardId, busy: u32) {
        if let Some(load) = self.0.get(usize::from(shard.0)) {
            load.busy.store(busy, Ordering::Relaxed);
            load.arrivals.store(0, Ordering::Relaxed);
        }
    }
}

/// A connection between two shards.
pub struct Traveller {
    pub socket: Loose,
    /// Among the process' connections.
    pub place: Place,
    /// The place of its listener among all.
    pub listener: usize,
    /// Bytes of the next request that have arrived.
    pub begun: Begun,
    /// With this one.
    pub moves: u32,
    /// Its client, by the client's own word.
    pub software: Software,
    /// The fetch session that its client used last, and what is remembered of it.
    pub session_id: i32,
    pub session: Option<Session>,
}

/// Given the shard's tick.
type Send = Box<dyn Fn(u64, ShardId, Traveller)>;
type Land = Rc<dyn Fn(Traveller)>;

/// One shard's way to the others.
pub struct Crossing {
    own: ShardId,
    loads: Arc<Loads>,
    send: Send,
    /// `None`: the shard does not serve yet, or no longer.
    land: RefCell<Option<Land>>,
    /// The shard's [`Link::tick`](super::context::Link::tick).
    pub ticks: Rc<Cell<u64>>,
    /// When the shard's thread was last looked at, and the CPU time then that it had spent on work.
    looked: Cell<Option<(Instant, f64)>>,
    left: Cell<u64>,
    arrived: Cell<u64>,
}

impl Crossing {
    /// `send` takes a traveller to where [`arrive`](Self::arrive) is called with it.
    pub fn new(own: ShardId, loads: Arc<Loads>, send: impl Fn(u64, ShardId, Traveller) + 'static) -> Rc<Crossing> {
        Rc::new(Crossing {
            own,
            loads,
            send: Box::new(send),
            land: RefCell::default(),
            ticks: Rc::default(),
            looked: Cell::default(),
            left: Cell::default(),
            arrived: Cell::default(),
        })
    }

    pub fn own(&self) -> ShardId {
        self.own
    }

    /// From now on `land` takes those who arrive.
    pub fn open(&self, land: impl Fn(Traveller) + 'static) {
        *self.land.borrow_mut() = Some(Rc::new(land));
    }

    /// Ends the crossing: a connection that leaves or arrives from now on is closed.
    pub fn close(&self) {
        let land = self.land.take();
        drop(land);
    }

    /// True if a connection of this shard may go to `to` at present.
    pub fn allows(&self, to: ShardId) -> bool {
        self.land.borrow().is_some() && self.loads.allows(self.own, to)
    }

    /// As [`allows`](Self::allows), for one that goes at once.
    pub fn book(&self, to: ShardId) -> bool {
        self.allows(to) && self.loads.book(to)
    }

    pub fn leave(&self, to: ShardId, traveller: Traveller) {
        self.left.set(self.left.get() + 1);
        (self.send)(self.ticks.get(), to, traveller);
    }

    pub fn arrive(&self, traveller: Traveller) {
        let land = self.land.borrow().clone();
        if let Some(land) = land {
            self.arrived.set(self.arrived.get() + 1);
            land(traveller);
        }
    }

    /// Tells the others how busy this shard was since the last tick.
    pub fn tick(&self) {
        let now = clock::now();
        let busy = process::thread_cpu_seconds().unwrap_or_default() - time_spun().as_secs_f64();
        if let Some((then, before)) = self.looked.replace(Some((now, busy))) {
            let wall = now.saturating_duration_since(then).as_secs_f64().max(1e-3);
            self.loads.note(self.own, ((busy - before) / wall * 1000.0) as u32);
        }
    }

    /// Counters since the start, to the log. `calls`: messages to other shards.
    pub fn report(&self, connections: usize, requests: u64, calls: u64) {
        debug!(
            shard = %self.own,
            connections,
            requests,
            calls,
            moved_away = self.left.get(),
            moved_here = self.arrived.get(),
            "connections between shards"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_shard_takes_connections_of_busier_ones_only() {
        let loads = Loads::new(3);
        let [a, b, c] = [0, 1, 2].map(ShardId);
        assert!(loads.allows(a, b) && loads.allows(b, a));
        loads.note(b, BUSY);
        assert!(loads.allows(a, b), "not quite too busy");
        loads.note(b, BUSY + 1);
        assert!(!loads.allows(a, b) && loads.allows(b, a) && loads.allows(b, c));
        loads.note(a, BUSY + 2);
        assert!(loads.allows(a, b) && !loads.allows(b, a), "the busier one gives");
        loads.note(a, BUSY + 1);
        assert!(!loads.allows(a, b) && !loads.allows(b, a), "equally busy ones keep theirs");
        assert!(!loads.allows(a, ShardId(3)), "there is no such shard");
    }

    #[test]
    fn a_shard_takes_some_connections_between_two_ticks() {
        let loads = Loads::new(2);
        let booked = |count: u32| (0..count).filter(|_| loads.book(ShardId(1))).count() as u32;
        assert_eq!(booked(1000), ARRIVALS);
        assert!(loads.book(ShardId(0)), "the other one has its own");
        loads.note(ShardId(1), 0);
        assert_eq!(booked(10), 10);
    }
}
