//! Fetch sessions (KIP-227): what a consumer fetches is remembered, so that its requests name only
//! what changed and its responses only what has news. Pure: time and randomness are arguments.
//!
//! Sessions belong to a shard, and their ids say on which they began: a client that comes back on
//! another shard is told FETCH_SESSION_ID_NOT_FOUND and starts anew with a full fetch, as after a
//! broker's restart. A connection that moves to another shard takes its session along.

use std::collections::HashMap;

use bytes::Bytes;

use crate::config::MAX_SHARDS;
use crate::model::{ErrorCode, ShardId};
use crate::protocol::TopicKey;
use crate::protocol::fetch::{FetchPartition, FetchPartitionResponse, FetchRequest};

/// A request that starts a session (or, with a session's id, replaces it).
const INITIAL_EPOCH: i32 = 0;
/// A request outside any session (or, with a session's id, its end).
const FINAL_EPOCH: i32 = -1;
/// "No session" as an id.
pub const NO_SESSION: i32 = 0;
/// A session unused for so long gives way to any new one; one that is older than this, to a larger
/// one (Kafka's `min.incremental.fetch.session.eviction.ms`).
const EVICTION_MS: i64 = 120_000;
/// Memory charged per session, per partition of it, and per topic besides the name.
const SESSION_BYTES: usize = 512;
const PARTITION_BYTES: usize = 160;
const TOPIC_BYTES: usize = 128;
/// A session's topics are not forgotten one by one: it ends once it has seen so many, and
/// four times its partitions.
const KEPT_TOPICS: usize = 1024;
/// The low bits of a session id name its shard.
const SHARD_BITS: u32 = 10;
const _: () = assert!(MAX_SHARDS <= 1 << SHARD_BITS);

/// How a request is to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// With this error and nothing else.
    Refused(ErrorCode),
    /// By what it names, in full.
    Sessionless,
    /// By what its session names; `epoch` is what the session must still have then.
    Session { id: i32, epoch: i32, full: bool },
}

/// One partition as the session remembers it.
#[derive(Clone, Debug)]
pub struct Remembered {
    /// Position in [`Session::topics`].
    pub topic: u32,
    pub request: FetchPartition,
    /// As last sent; -1: never, or there was an error.
    high_watermark: i64,
    log_start_offset: i64,
}

/// One client's session.
#[derive(Debug, Default)]
pub struct Session {
    epoch: i32,
    by_id: bool,
    created_ms: i64,
    used_ms: i64,
    topics: Vec<TopicKey>,
    topic_numbers: HashMap<TopicKey, u32>,
    /// Memory charged for `topics`.
    topic_bytes: usize,
    /// `None`: free, listed in `free`.
    slots: Vec<Option<Remembered>>,
    free: Vec<u32>,
    lookup: HashMap<(u32, i32), u32>,
    /// Slots in the order to fetch: partitions that had data go to the end, so that a full
    /// response starves nobody.
    order: Vec<u32>,
}

impl Session {
    fn new(by_id: bool, now_ms: i64) -> Session {
        Session { epoch: 1, by_id, created_ms: now_ms, used_ms: now_ms, ..Session::default() }
    }

    /// By number, see [`Remembered::topic`].
    pub fn topics(&self) -> &[TopicKey] {
        &self.topics
    }

    /// Slot and content, in the order to fetch.
    pub fn partitions(&self) -> impl Iterator<Item = (u32, &Remembered)> {
        self.order.iter().filter_map(|slot| Some((*slot, self.slots.get(*slot as usize)?.as_ref()?)))
    }

    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Memory charged. Slots that are free were taken once.
    fn bytes(&self) -> usize {
        SESSION_BYTES + self.slots.len() * PARTITION_BYTES + self.topic_bytes
    }

    fn update(&mut self, request: &FetchRequest) {
        for topic in &request.topics {
            if topic.partitions.is_empty() {
                continue;
            }
            let number = self.topic_number(&topic.topic);
            for partition in &topic.partitions {
                self.put(number, partition);
            }
        }
        let mut removed = false;
        for topic in &request.forgotten {
            let Some(number) = self.topic_numbers.get(&topic.topic) else { continue };
            for partition in &topic.partitions {
                if let Some(slot) = self.lookup.remove(&(*number, *partition)) {
                    self.slots[slot as usize] = None;
                    self.free.push(slot);
                    removed = true;
                }
            }
        }
        if removed {
            let slots = &self.slots;
            self.order.retain(|slot| slots[*slot as usize].is_some());
            // A slot may be taken again, and then comes back at the end.
        }
    }

    fn topic_number(&mut self, key: &TopicKey) -> u32 {
        if let Some(number) = self.topic_numbers.get(key) {
            return *number;
        }
        // A name is a slice of its request, which must not live as long as the session.
        let key = match key {
            TopicKey::Name(name) => TopicKey::Name(Bytes::copy_from_slice(name)),
            TopicKey::Id(id) => TopicKey::Id(*id),
        };
        self.topic_bytes += TOPIC_BYTES
            + match &key {
                TopicKey::Name(name) => name.len(),
                TopicKey::Id(_) => 0,
            };
        let number = self.topics.len() as u32;
        self.topics.push(key.clone());
        self.topic_numbers.insert(key, number);
        number
    }

    fn put(&mut self, topic: u32, request: &FetchPartition) {
        if let Some(slot) = self.lookup.get(&(topic, request.index)) {
            if let Some(known) = &mut self.slots[*slot as usize] {
                known.request = request.clone();
            }
            return;
        }
        let new = Remembered { topic, request: request.clone(), high_watermark: -1, log_start_offset: -1 };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = Some(new);
                slot
            }
            None => {
                self.slots.push(Some(new));
                (self.slots.len() - 1) as u32
            }
        };
        self.lookup.insert((topic, request.index), slot);
        self.order.push(slot);
    }

    /// True if the client has to be told, and remembers what it is told.
    fn has_news(&mut self, slot: u32, response: &FetchPartitionResponse) -> bool {
        let Some(Some(known)) = self.slots.get_mut(slot as usize) else {
            return true;
        };
        let mut news =
            !response.records.is_empty() || response.diverging.is_some() || response.preferred_replica.is_some();
        if known.high_watermark != response.high_watermark {
            known.high_watermark = response.high_watermark;
            news = true;
        }
        if known.log_start_offset != response.log_start_offset {
            known.log_start_offset = response.log_start_offset;
            news = true;
        }
        if response.error != ErrorCode::None {
            // Errors are told every time; and once it is gone, that is news as well.
            known.high_watermark = -1;
            news = true;
        }
        news
    }
}

/// A shard's sessions.
#[derive(Debug)]
pub struct SessionCache {
    capacity: usize,
    /// Memory for all sessions; past it new clients fetch without one.
    limit_bytes: usize,
    shard: ShardId,
    sessions: HashMap<i32, Session>,
    bytes: usize,
}

impl SessionCache {
    /// `capacity`, `limit_bytes`: this shard's shares of
    /// `max.incremental.fetch.session.cache.slots` and `corelane.fetch.session.memory.bytes`.
    pub fn new(capacity: usize, limit_bytes: usize, shard: ShardId) -> SessionCache {
        SessionCache { capacity, limit_bytes, shard, sessions: HashMap::new(), bytes: 0 }
    }

    pub fn session(&self, id: i32) -> Option<&Session> {
        self.sessions.get(&id)
    }

    /// Finds, starts, updates or ends the session that `request` speaks of. `by_id`: it names
    /// topics by id. `random`: where to look for a new session's id.
    pub fn open(&mut self, request: &FetchRequest, by_id: bool, now_ms: i64, random: impl FnOnce() -> u32) -> Opened {
        if matches!(request.session_epoch, INITIAL_EPOCH | FINAL_EPOCH) {
            // A full fetch ends the session it names.
            self.remove(request.session_id);
            if request.session_epoch == FINAL_EPOCH {
                return Opened::Sessionless;
            }
            return self.start(request, by_id, now_ms, random);
        }
        let Some(session) = self.sessions.get_mut(&request.session_id) else {
            return Opened::Refused(ErrorCode::FetchSessionIdNotFound);
        };
        if session.epoch != request.session_epoch {
            return Opened::Refused(ErrorCode::InvalidFetchSessionEpoch);
        }
        if session.by_id != by_id {
            return Opened::Refused(ErrorCode::FetchSessionTopicIdError);
        }
        let before = session.bytes();
        session.update(request);
        let (after, bytes) = (session.len(), session.bytes());
        session.used_ms = now_ms;
        session.epoch = next_epoch(session.epoch);
        let epoch = session.epoch;
        self.bytes = self.bytes + bytes - before;
        let too_much = self.bytes > self.limit_bytes || session.topics.len() > KEPT_TOPICS.max(4 * after);
        if after == 0 || too_much {
            self.remove(request.session_id);
            // Nothing left to remember; or too much: the client is to start anew.
            return if after == 0 { Opened::Sessionless } else { Opened::Refused(ErrorCode::FetchSessionIdNotFound) };
        }
        Opened::Session { id: request.session_id, epoch, full: false }
    }

    fn start(&mut self, request: &FetchRequest, by_id: bool, now_ms: i64, random: impl FnOnce() -> u32) -> Opened {
        let size = request.topics.iter().map(|topic| topic.partitions.len()).sum::<usize>();
        if size == 0 || self.capacity == 0 {
            return Opened::Sessionless;
        }
        let mut session = Session::new(by_id, now_ms);
        session.update(request);
        if session.len() == 0 || !self.make_room(size, session.bytes(), now_ms) {
            return Opened::Sessionless;
        }
        let id = self.fresh_id(random());
        self.bytes += session.bytes();
        self.sessions.insert(id, session);
        Opened::Session { id, epoch: 1, full: true }
    }

    /// The answers of a session's request, in `slots`' order, cut to what the client has to be
    /// told. `false`: the session has moved on meanwhile (the client gave up on this request), and
    /// INVALID_FETCH_SESSION_EPOCH is the answer.
    pub fn close(
        &mut self,
        id: i32,
        epoch: i32,
        full: bool,
        slots: &[u32],
        responses: &mut [Option<FetchPartitionResponse>],
    ) -> bool {
        let Some(session) = self.sessions.get_mut(&id) else {
            // Evicted meanwhile: the answer is right all the same; the next
            // request will be refused.
            return true;
        };
        if session.epoch != epoch {
            return false;
        }
        let mut told = false;
        for (slot, place) in slots.iter().zip(responses.iter_mut()) {
            let Some(response) = place else { continue };
            told |= !response.records.is_empty();
            if !session.has_news(*slot, response) && !full {
                *place = None;
            }
        }
        if told && session.order.len() > 1 {
            let fed = |place: &Option<FetchPartitionResponse>| place.as_ref().is_some_and(|r| !r.records.is_empty());
            let pairs = || slots.iter().zip(responses.iter());
            let quiet = pairs().filter(|(_, place)| !fed(place)).map(|(slot, _)| *slot);
            session.order = quiet.chain(pairs().filter(|(_, place)| fed(place)).map(|(slot, _)| *slot)).collect();
        }
        true
    }

    /// Takes a session out, for another shard's cache to go on with.
    pub fn take(&mut self, id: i32, now_ms: i64) -> Option<Session> {
        let mut session = self.sessions.remove(&id)?;
        self.bytes -= session.bytes();
        // Shards count their time from moments of their own.
        session.created_ms -= now_ms;
        Some(session)
    }

    /// Goes on with a session that [`take`](Self::take) gave. Where there is no room for it, or its
    /// id is given to another by now, its client is told to start anew.
    pub fn put(&mut self, id: i32, mut session: Session, now_ms: i64) {
        session.created_ms += now_ms;
        session.used_ms = now_ms;
        if !self.sessions.contains_key(&id) && self.make_room(session.len(), session.bytes(), now_ms) {
            self.bytes += session.bytes();
            self.sessions.insert(id, session);
        }
    }

    pub fn end(&mut self, id: i32) {
        self.remove(id);
    }

    fn remove(&mut self, id: i32) {
        if let Some(session) = self.sessions.remove(&id) {
            self.bytes -= session.bytes();
        }
    }

    /// True if a session of `size` partitions and `bytes` may be added; ends
    /// others for it if need be.
    fn make_room(&mut self, size: usize, bytes: usize, now_ms: i64) -> bool {
        if bytes > self.limit_bytes {
            return false;
        }
        while self.sessions.len() >= self.capacity || self.bytes + bytes > self.limit_bytes {
            if !self.end_another(size, now_ms) {
                return false;
            }
        }
        true
    }

    /// Ends a session for one of `size` partitions, if there is one that must give way.
    fn end_another(&mut self, size: usize, now_ms: i64) -> bool {
        // Looked for by going through all: this happens when a client connects,
        // and the cache is small.
        let Some((stalest, used_ms)) = self.sessions.iter().map(|(id, s)| (*id, s.used_ms)).min_by_key(|s| s.1) else {
            return false;
        };
        if now_ms - used_ms > EVICTION_MS {
            self.remove(stalest);
            return true;
        }
        let old = self.sessions.iter().filter(|(_, session)| now_ms - session.created_ms > EVICTION_MS);
        match old.map(|(id, session)| (session.len(), *id)).min() {
            Some((smallest, id)) if smallest < size => {
                self.remove(id);
                true
            }
            _ => false,
        }
    }

    /// A free id at or after `random`; there are far more ids than sessions.
    fn fresh_id(&self, random: u32) -> i32 {
        let shard = u32::from(self.shard.0) & ((1 << SHARD_BITS) - 1);
        let mut number = random;
        loop {
            let id = ((number << SHARD_BITS | shard) & i32::MAX as u32) as i32;
            if id != NO_SESSION && !self.sessions.contains_key(&id) {
                return id;
            }
            number = number.wrapping_add(1);
        }
    }
}

/// Epochs count from 1 and never reach the values that mean something else.
fn next_epoch(epoch: i32) -> i32 {
    if epoch == i32::MAX { 1 } else { epoch + 1 }
}

#[cfg(test)]
#[path = "fetch_session_tests.rs"]
mod tests;
