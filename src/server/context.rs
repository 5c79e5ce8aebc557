//! State that one shard's connections share. Everything here lives on the shard's own thread.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_lite::future::or;
use kafka_protocol::messages::ApiKey;
use uuid::Uuid;

use crate::config::ServerConfig;
use crate::observe::metrics::{Cause, Resource, ShardMetrics, SlowThresholds};
use crate::runtime::sync::{Budget, Permit};
use crate::runtime::{self, SendRoom, clock, waits};
use crate::shard::{AnswerMemory, SMALL_ANSWER_BYTES, Shard};

use super::crossing::{Crossing, Loads, Traveller};
use super::dispatch::waits_for_answers;
use super::fetch_session::SessionCache;
use super::quotas::{QuotaBoard, Quotas};

/// Milliseconds per tick of [`ServerContext::tick`].
pub const TICK_MS: u64 = clock::TICK.as_millis() as u64;

/// The shard as handlers see it.
pub struct ServerContext {
    pub shard: Rc<Shard>,
    pub link: Rc<Link>,
    pub sessions: Rc<RefCell<SessionCache>>,
    /// Memory for what requests other than Produce are made into while they are answered: as much
    /// as the request bytes themselves (`corelane.receive.memory.bytes`). A request that waits for
    /// it holds request bytes, never the reverse.
    working: Rc<Budget>,
    /// For requests that take little and whose answers leave at once, on top: they
    /// do not wait behind others.
    small_working: Rc<Budget>,
    /// Sizes of answers, by which those to come are estimated.
    pub answer_sizes: AnswerSizes,
    /// Memory of large fetches while they wait for data; as much again. Only ever taken without
    /// waiting.
    pub waiting_fetches: Rc<Budget>,
    /// Large requests to groups that wait behind others of their connection; as much again. Only
    /// ever taken without waiting.
    pub waiting_groups: Rc<Budget>,
    /// Topics being created for Metadata requests. Only ever taken without waiting.
    pub auto_creations: Rc<Budget>,
    pub quotas: Quotas,
}

/// The most that requests take which have memory of their own.
const SMALL_WORK_BYTES: usize = 256 << 10;

/// Topics that this shard's clients have created by asking for their metadata, at a time.
const AUTO_CREATIONS: usize = 1000;

impl ServerContext {
    /// `loads` and `board`: of all shards.
    pub fn new(shard: Rc<Shard>, loads: &Arc<Loads>, board: Arc<QuotaBoard>) -> Rc<ServerContext> {
        let config = &shard.config;
        let slots = share(config.max_incremental_fetch_session_cache_slots, config.shards) as usize;
        let session_bytes = config.fetch_session_memory_bytes / usize::from(config.shards.max(1));
        let sessions = Rc::new(RefCell::new(SessionCache::new(slots, session_bytes, shard.id)));
        let crossing = (shard.shards() > 1).then(|| crossing_of(&shard, loads, &sessions));
        let link = Link::new(config, shard.answers.clone(), waits_for_answers, crossing);
        let names = Rc::downgrade(&shard);
        let topic_name = move |id| Some(names.upgrade()?.image().topic_by_id(Uuid::from_u128(id))?.name.clone());
        let _ = link.topic_name.set(Box::new(topic_name));
        Rc::new(ServerContext {
            link,
            answer_sizes: AnswerSizes::default(),
            sessions,
            working: Budget::new(config.receive_memory_bytes),
            small_working: Budget::new(config.receive_memory_bytes / 4),
            waiting_fetches: Budget::new(config.receive_memory_bytes),
            waiting_groups: Budget::new(config.receive_memory_bytes),
            auto_creations: Budget::new(AUTO_CREATIONS),
            quotas: Quotas::new(shard.clone(), board),
            shard,
        })
    }

    /// Memory to answer a request in, of a connection with `room`; waits for it. What a client that
    /// does not read asks for may keep its memory until there is some for the answer, so the part
    /// for small requests is only for those whose answers leave at once.
    pub async fn work(&self, bytes: usize, room: &SendRoom) -> Permit {
        if let Some(permit) = self.working.try_acquire(bytes) {
            return permit;
        }
        let sizes = small_answer(bytes);
        let small = async {
            room.first_of(sizes.as_slice()).await;
            self.small_working.acquire(bytes).await
        };
        waits::waiting(Cause::Memory, or(small, self.working.acquire(bytes))).await
    }
}

fn ms(ticks: u64) -> i64 {
    (ticks * TICK_MS) as i64
}

/// The way to the other shards' listeners, by the shards' mailboxes. Fetch sessions travel along.
fn crossing_of(shard: &Rc<Shard>, loads: &Arc<Loads>, sessions: &Rc<RefCell<SessionCache>>) -> Rc<Crossing> {
    let (from, left) = (Rc::downgrade(shard), sessions.clone());
    let crossing = Crossing::new(shard.id, loads.clone(), move |ticks, to, mut traveller| {
        traveller.session = left.borrow_mut().take(traveller.session_id, ms(ticks));
        if let Some(shard) = from.upgrade() {
            shard.send_parcel(to, Box::new(traveller));
        }
    });
    let (arriving, sessions) = (crossing.clone(), sessions.clone());
    shard.take_parcels(move |parcel| {
        // Nothing else is sent.
        let Ok(mut traveller) = parcel.downcast::<Traveller>() else { return };
        if let Some(session) = traveller.session.take() {
            sessions.borrow_mut().put(traveller.session_id, session, ms(arriving.ticks.get()));
        }
        arriving.arrive(*traveller);
    });
    crossing
}

/// Room for the answer to a request that takes `bytes` to work on, which is more than the answer
/// has; `None`: it is not small. No more than that, or a connection with a small send buffer
/// (`socket.send.buffer.bytes`) would never have it.
fn small_answer(bytes: usize) -> Option<usize> {
    (bytes <= SMALL_WORK_BYTES).then_some(bytes.min(SMALL_ANSWER_BYTES))
}

/// Requests of an API that are answered with about as much, as far as the request's own size tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SizeClass {
    /// Power of two.
    bytes: u32,
    /// Asks for all there is, by naming nothing.
    all: bool,
}

impl SizeClass {
    pub fn of(key: ApiKey, version: i16, body: &[u8]) -> SizeClass {
        // The topics come first in the body: none named is a null list, of version 0 an empty one.
        let all = key == ApiKey::Metadata
            && match version {
                0 => body.starts_with(&[0; 4]),
                1..9 => body.starts_with(&[0xff; 4]),
                _ => body.starts_with(&[0]),
            };
        SizeClass { bytes: body.len().max(1).ilog2(), all }
    }
}

/// Size of recent answers by API key and size of the request: the largest, slowly forgotten.
#[derive(Default)]
pub struct AnswerSizes(RefCell<HashMap<(i16, SizeClass), usize>>);

impl AnswerSizes {
    /// Before the first answer.
    const UNKNOWN: usize = 16 << 10;

    pub fn expected(&self, api_key: i16, class: SizeClass) -> usize {
        self.0.borrow().get(&(api_key, class)).copied().unwrap_or(Self::UNKNOWN)
    }

    pub fn note(&self, api_key: i16, class: SizeClass, bytes: usize) {
        let expected = self.expected(api_key, class);
        self.0.borrow_mut().insert((api_key, class), bytes.max(expected - expected / 16));
    }
}

/// State that connections share to move bytes, whatever the requests are.
pub struct Link {
    /// Largest length a frame may declare (`socket.request.max.bytes`).
    pub max_frame_bytes: usize,
    /// Requests of one connection worked on at the same time (`corelane.connection.pipeline`).
    pub pipeline: usize,
    /// Bytes of answers gathered for a connection (`corelane.connection.response.bytes`).
    pub gather_bytes: usize,
    /// `socket.send.buffer.bytes` and `socket.receive.buffer.bytes`.
    pub buffers: (Option<usize>, Option<usize>),
    /// Memory of answers, this shard's.
    pub answers: Rc<AnswerMemory>,
    /// True of requests, by their first bytes, that are answered when all
    /// answers before have been sent.
    pub waits_for_answers: fn(&[u8]) -> bool,
    /// `connections.max.idle.ms`, in ticks.
    pub idle_ticks: u64,
    /// Request bytes held (`corelane.receive.memory.bytes`), without the three reserves,
    /// which are cut from them.
    requests: Rc<Budget>,
    /// For small requests that are wholly there: nobody in here waits for a client.
    whole_reserve: Rc<Budget>,
    /// For small requests of which a part has arrived.
    arriving_reserve: Rc<Budget>,
    /// Room in which frames finish that wait for each other. A frame in here has room for all of
    /// it, so it waits for nothing but its client, who has to be quick (see [`Connection`]). A
    /// frame larger than this reserve takes all of it: it is read alone, and is the one frame
    /// beyond `corelane.receive.memory.bytes`.
    ///
    /// [`Connection`]: super::connection::Connection
    finishing: Rc<Budget>,
    /// Buffers that busy connections wait in for a frame of which nothing has arrived; on top of
    /// `requests`, a quarter as much. Only ever taken without waiting, so idle holders keep nobody
    /// from anything but the shortcut.
    pub lookahead: Rc<Budget>,
    /// Connections that wait for request bytes.
    pub starved: Cell<u32>,
    /// Coarse time for what needs no better: ticks of [`TICK_MS`] since the listener started.
    pub tick: Rc<Cell<u64>>,
    /// Requests begun.
    pub begun_requests: Cell<u64>,
    /// Connections open here.
    pub connections: Cell<usize>,
    /// Number of the next connection.
    pub next_number: Cell<u64>,
    /// Names of the listeners, by their places.
    listeners: Vec<Rc<str>>,
    /// `None`: there is one shard.
    pub crossing: Option<Rc<Crossing>>,
    pub metrics: Arc<ShardMetrics>,
    /// A topic's name, by its id as a number.
    topic_name: OnceCell<TopicName>,
}

type TopicName = Box<dyn Fn(u128) -> Option<Arc<str>>>;

/// Requests up to this size have reserves of their own, so that they need not
/// queue behind larger ones.
pub const SMALL_REQUEST_BYTES: usize = 64 << 10;
/// Each of the three reserves is this part of the receive memory.
const RESERVE_PART: usize = 8;
/// So long a frame waits for others to give back their bytes before it looks for room to finish.
const PATIENCE: Duration = Duration::from_millis(500);

/// The share of request bytes that a frame holds.
pub struct Charge {
    pub permit: Permit,
    /// The share is for the whole frame, from the room in which stuck frames finish.
    pub finishing: bool,
}

impl Link {
    pub fn new(
        config: &ServerConfig,
        answers: Rc<AnswerMemory>,
        waits_for_answers: fn(&[u8]) -> bool,
        crossing: Option<Rc<Crossing>>,
    ) -> Rc<Link> {
        Rc::new(Link {
            gather_bytes: config.connection_response_bytes,
            buffers: (
                usize::try_from(config.socket_send_buffer_bytes).ok(),
                usize::try_from(config.socket_receive_buffer_bytes).ok(),
            ),
            answers,
            waits_for_answers,
            max_frame_bytes: config.socket_request_max_bytes as usize,
            pipeline: config.connection_pipeline,
            idle_ticks: config.connections_max_idle_ms.div_ceil(TICK_MS).max(1),
            requests: Budget::new(config.receive_memory_bytes - 3 * (config.receive_memory_bytes / RESERVE_PART)),
            whole_reserve: Budget::new(config.receive_memory_bytes / RESERVE_PART),
            arriving_reserve: Budget::new(config.receive_memory_bytes / RESERVE_PART),
            finishing: Budget::new(config.receive_memory_bytes / RESERVE_PART),
            lookahead: Budget::new(config.receive_memory_bytes / 4),
            starved: Cell::new(0),
            tick: crossing.as_ref().map(|crossing| crossing.ticks.clone()).unwrap_or_default(),
            begun_requests: Cell::new(0),
            connections: Cell::new(0),
            next_number: Cell::new(0),
            listeners: config.listeners.iter().map(|listener| listener.name.as_str().into()).collect(),
            crossing,
            metrics: runtime::metrics(),
            topic_name: OnceCell::new(),
        })
    }

    /// Takes over what options say that may be set while the broker runs.
    pub fn follow(&self, settings: &ServerConfig) {
        let thresholds = SlowThresholds::of_ms(settings.slow_request_threshold_ms, settings.slow_request_ms);
        self.metrics.slow.set_thresholds(thresholds);
    }

    pub fn topic_name(&self, id: u128) -> Option<Arc<str>> {
        self.topic_name.get()?(id)
    }

    /// The name of the listener at this place.
    pub fn listener(&self, place: usize) -> Rc<str> {
        self.listeners.get(place).cloned().unwrap_or_default()
    }

    /// Request bytes that connections hold.
    pub fn held_bytes(&self) -> usize {
        self.request_memory().map(|budget| budget.total() - budget.available()).sum()
    }

    fn request_memory(&self) -> impl Iterator<Item = &Rc<Budget>> {
        [&self.requests, &self.whole_reserve, &self.arriving_reserve, &self.finishing].into_iter()
    }

    /// Tells the metrics what they do not count themselves.
    pub fn publish(&self) {
        let total = self.request_memory().map(|budget| budget.total()).sum();
        self.metrics.resources.set(Resource::ReceiveMemory, self.held_bytes(), total);
        self.metrics.connections.set(self.connections.get() as u64);
        self.metrics.slow.tick(clock::wall_ms());
    }

    /// Counters, to the log, where there are several shards.
    pub fn report(&self, messages: u64) {
        if let Some(crossing) = &self.crossing {
            crossing.report(self.connections.get(), self.begun_requests.get(), messages);
        }
    }

    /// Milliseconds since the listener started, to the tick.
    pub fn coarse_ms(&self) -> i64 {
        ms(self.tick.get())
    }

    /// A share for a frame of `size` bytes that is wholly there.
    pub async fn charge_whole(&self, size: usize) -> Charge {
        if let Some(permit) = self.requests.try_acquire(size) {
            return Charge { permit, finishing: false };
        }
        let budget = if size <= SMALL_REQUEST_BYTES { &self.whole_reserve } else { &self.requests };
        self.wait(budget, size, size).await
    }

    /// Makes `held` a share of `bytes`, for the buffer that the arriving frame of `size`
    /// bytes grows to. A small frame is charged once, a larger one for each step; while it
    /// waits it keeps what it holds.
    ///
    /// No frame waits for ever: one that does not get on waits in line for room to finish, too, and
    /// those that have such room give it back once their records are on disk, or are closed when
    /// their bytes do not come.
    pub async fn charge_arriving(&self, size: usize, bytes: usize, held: Option<Charge>) -> Charge {
        let held_bytes = held.as_ref().map_or(0, |held| held.permit.amount());
        let more = bytes.saturating_sub(held_bytes);
        let charge = match self.requests.try_acquire(more) {
            Some(permit) if bytes <= self.requests.total() => Charge { permit, finishing: false },
            _ if size <= SMALL_REQUEST_BYTES => self.wait(&self.arriving_reserve, more, size).await,
            _ if bytes > self.requests.total() => self.wait_for(self.finish(size)).await,
            _ => self.wait(&self.requests, more, size).await,
        };
        match held {
            Some(mut held) if !charge.finishing => {
                held.permit.absorb(charge.permit);
                held
            }
            // Memory held otherwise is given back.
            _ => charge,
        }
    }

    /// Waits for `bytes` of `budget`, and after a while for room for the whole
    /// frame of `size` as well.
    async fn wait(&self, budget: &Rc<Budget>, bytes: usize, size: usize) -> Charge {
        let share = async { Charge { permit: budget.acquire(bytes).await, finishing: false } };
        let room = async {
            clock::sleep(PATIENCE).await;
            self.finish(size).await
        };
        self.wait_for(or(share, room)).await
    }

    async fn finish(&self, size: usize) -> Charge {
        Charge { permit: self.finishing.acquire(size).await, finishing: true }
    }

    /// Counts the caller as starved meanwhile.
    async fn wait_for(&self, charge: impl Future<Output = Charge>) -> Charge {
        self.starved.set(self.starved.get() + 1);
        let charge = waits::waiting(Cause::Memory, charge).await;
        self.starved.set(self.starved.get() - 1);
        charge
    }
}

/// One shard's part of a limit that is meant for the whole broker, rounded up. The kernel spreads
/// connections over the shards, so a limit close to what is in use can be met on one shard a little
/// before the sum is reached.
pub fn share(limit: u32, shards: u16) -> u32 {
    limit.div_ceil(u32::from(shards.max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once};

    #[test]
    fn small_work_asks_for_no_more_room_than_its_answer_may_take() {
        assert_eq!(small_answer(800), Some(800), "which a send buffer of 8 KiB has");
        assert_eq!(small_answer(SMALL_WORK_BYTES), Some(SMALL_ANSWER_BYTES));
        assert_eq!(small_answer(SMALL_WORK_BYTES + 1), None);
    }

    #[test]
    fn a_large_answer_is_expected_again_for_a_while() {
        let sizes = AnswerSizes::default();
        let class = SizeClass::of(ApiKey::Metadata, 12, b"\x02t");
        sizes.note(3, class, 1 << 20);
        (0..5).for_each(|_| sizes.note(3, class, 10));
        assert!(sizes.expected(3, class) > 1 << 19);
        (0..200).for_each(|_| sizes.note(3, class, 10));
        assert!(sizes.expected(3, class) < 100);
        assert_eq!(sizes.expected(4, class), AnswerSizes::UNKNOWN);
    }

    #[test]
    fn a_request_is_not_expected_to_be_answered_as_much_larger_ones_are() {
        let sizes = AnswerSizes::default();
        let offsets = |bytes: usize| SizeClass::of(ApiKey::ListOffsets, 4, &vec![0; bytes]);
        sizes.note(2, offsets(192 << 10), 2 << 20);
        assert_eq!(sizes.expected(2, offsets(200 << 10)), 2 << 20);
        assert_eq!(sizes.expected(2, offsets(60)), AnswerSizes::UNKNOWN);
        sizes.note(2, offsets(60), 100);
        assert!(sizes.expected(2, offsets(60)) < 64 << 10);
        for (version, all, named) in [
            (0, &[0, 0, 0, 0, 0][..], &[0, 0, 0, 1, 0][..]),
            (8, &[255, 255, 255, 255, 1], &[0, 0, 0, 0, 1]),
            (12, &[0, 1, 0, 0, 0], &[2, 1, 0, 0, 0]),
        ] {
            let [all, named] = [all, named].map(|body| SizeClass::of(ApiKey::Metadata, version, body));
            assert!(all != named, "version {version}");
        }
    }

    #[test]
    fn frames_finish_within_the_receive_memory_or_alone() {
        let config = ServerConfig {
            receive_memory_bytes: 8 << 20,
            socket_request_max_bytes: 100 << 20,
            ..ServerConfig::default()
        };
        let link = Link::new(&config, AnswerMemory::new(1 << 20), |_| false, None);
        let charged = |size| block_on(poll_once(link.charge_arriving(size, size, None)));
        let alone = charged(6 << 20);
        assert!(alone.as_ref().is_some_and(|charge| charge.finishing), "larger than what frames share");
        assert!(charged(6 << 20).is_none(), "one at a time, however large a request may be");
        drop(alone);
        let finishing = |size| block_on(poll_once(link.finish(size)));
        let pair = [finishing(400 << 10), finishing(400 << 10)];
        assert!(pair.iter().all(Option::is_some), "smaller ones side by side");
        assert!(finishing(400 << 10).is_none());
        let rest = charged(5 << 20);
        assert!(rest.is_some_and(|charge| !charge.finishing && link.held_bytes() <= config.receive_memory_bytes));
    }

    #[test]
    fn shares_add_up_to_the_limit_or_a_little_more() {
        assert_eq!(share(1000, 3), 334);
        assert_eq!(share(1, 8), 1);
        assert_eq!(share(7, 0), 7);
        assert_eq!(share(0, 4), 0);
    }
}
