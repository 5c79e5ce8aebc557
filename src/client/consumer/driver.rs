//! The consumer: positions, fetches from the leaders, what came.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::chunk::Chunk;
use super::fetch::{Ask, Told};
use crate::client::cluster_client::{ClusterClient, Place, Spot, Topic, is_of_network, will_pass};
use crate::client::core::MAX_RESPONSE_BYTES;
use crate::client::inbox::Inbox;
use crate::client::{ClientError, Connection, Refusal};
use crate::config::MAX_BATCH_BYTES;
use crate::model::ErrorCode;
use crate::model::record_batch::{BatchError, frame};
use crate::protocol::asking::{FetchLimits, Fetched, Isolation, read_fetch_response};
use crate::runtime::{clock, spawn_local};

/// A broker waits so long for a record.
const MAX_WAIT_MS: i32 = 500;
/// Of an answer, and of a partition in it; a larger batch comes alone.
const MAX_BYTES: i32 = 16 << 20;
const PARTITION_MAX_BYTES: i32 = 2 << 20;
const _: () = assert!(PARTITION_MAX_BYTES <= MAX_BYTES);
const _: () = assert!(MAX_BYTES as usize + MAX_BATCH_BYTES as usize <= MAX_RESPONSE_BYTES);
/// Time between two tries.
const PAUSE: Duration = Duration::from_millis(100);
/// Partitions that are added meanwhile are seen after this.
const REFRESH: Duration = Duration::from_secs(15);
const IDLE: Duration = Duration::from_secs(1);
/// A topic that is not there for so long has been deleted.
const GONE: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
pub struct Settings {
    pub topic: String,
    pub isolation: Isolation,
    /// A partition that gives nothing but errors for so long ends it.
    pub timeout: Duration,
    /// Partitions that are added to the topic meanwhile are read too, from their beginning.
    pub grows: bool,
}

/// Where a consumer is in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The next offset to fetch.
    pub next: i64,
    /// Records before this offset are not shown.
    pub from: i64,
    /// Where to end; `None`: never.
    pub end: Option<i64>,
}

struct Partition {
    at: Position,
    /// -1: not known.
    leader: i32,
    under_way: bool,
    retry_at: Option<Instant>,
    /// It has given nothing but this since then.
    failing: Option<(Instant, String)>,
    /// Its offset is not there.
    out_of_range: bool,
}

impl Partition {
    fn new(at: Position) -> Partition {
        Partition { at, leader: -1, under_way: false, retry_at: None, failing: None, out_of_range: false }
    }

    fn is_done(&self) -> bool {
        self.at.end.is_some_and(|end| self.at.next >= end)
    }

    fn failed(&mut self, why: String) {
        let since = self.failing.take().map_or_else(clock::now, |(since, _)| since);
        self.failing = Some((since, why));
        self.retry_at = Some(clock::now() + PAUSE);
    }
}

#[derive(Default)]
struct Lane {
    connection: Option<Connection>,
    busy: bool,
}

/// Lives on a shard. [`turn`](Self::turn) asks the leaders, [`take`](Self::take) gives what has
/// come, [`changed`](Self::changed) waits.
pub struct Consumer {
    client: ClusterClient,
    settings: Settings,
    partitions: BTreeMap<i32, Partition>,
    /// The first in a request is served first, so they take turns.
    first: usize,
    lanes: BTreeMap<i32, Lane>,
    inbox: Rc<Inbox<Told>>,
    /// Counts assignments; what was asked for an older one is thrown away.
    generation: u64,
    chunks: VecDeque<Chunk>,
    refreshed: Option<Instant>,
    stale: bool,
    gone_since: Option<Instant>,
    /// Partitions of the topic, as last told.
    count: usize,
    notes: Vec<String>,
}

impl Consumer {
    pub fn new(client: ClusterClient, settings: Settings) -> Consumer {
        Consumer {
            client,
            settings,
            partitions: BTreeMap::new(),
            first: 0,
            lanes: BTreeMap::new(),
            inbox: Inbox::new(),
            generation: 0,
            chunks: VecDeque::new(),
            refreshed: None,
            stale: true,
            gone_since: None,
            count: 0,
            notes: Vec::new(),
        }
    }

    /// Reads these partitions from now on, and no others.
    pub fn assign(&mut self, positions: &BTreeMap<i32, Position>) {
        self.generation += 1;
        self.chunks.clear();
        self.partitions = positions.iter().map(|(index, at)| (*index, Partition::new(*at))).collect();
        self.stale = true;
    }

    /// Every partition is at its end, and everything was taken.
    pub fn is_done(&self) -> bool {
        self.chunks.is_empty() && self.partitions.values().all(Partition::is_done)
    }

    /// Partitions of the topic, as last told; 0: not told yet.
    pub fn partition_count(&self) -> usize {
        self.count
    }

    /// The next batches of some partition.
    pub fn take(&mut self) -> Option<Chunk> {
        self.chunks.pop_front()
    }

    /// News for people, one line each.
    pub fn notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }

    /// Takes in what has come and asks for more. The error: no more can be done.
    pub async fn turn(&mut self) -> Result<(), String> {
        for told in self.inbox.take() {
            self.take_in(told)?;
        }
        let now = clock::now();
        if self.stale || self.refreshed.is_none_or(|at| now.saturating_duration_since(at) > REFRESH) {
            self.refresh().await?;
        }
        if self.partitions.values().any(|partition| partition.out_of_range) {
            self.find_again().await?;
        }
        self.expire()?;
        self.ask().await;
        Ok(())
    }

    /// Until there is something to do for [`turn`](Self::turn), or something to take.
    /// May be dropped in mid-wait.
    pub async fn changed(&self) {
        if !self.chunks.is_empty() {
            return;
        }
        let now = clock::now();
        let waiting = self.partitions.values().filter(|partition| !partition.under_way && !partition.is_done());
        let next = waiting.map(|partition| partition.retry_at.filter(|at| *at > now).unwrap_or(now + PAUSE)).min();
        self.inbox.filled(next.map_or(IDLE, |next| next.saturating_duration_since(now))).await;
    }

    fn expire(&self) -> Result<(), String> {
        let (now, timeout, topic) = (clock::now(), self.settings.timeout, &self.settings.topic);
        if self.gone_since.is_some_and(|since| now.saturating_duration_since(since) > GONE) {
            return Err(format!("there is no topic {topic} any more"));
        }
        for (index, partition) in &self.partitions {
            if let Some((since, why)) = &partition.failing
                && now.saturating_duration_since(*since) > timeout
            {
                return Err(format!("{topic}-{index} cannot be read for {} s: {why}", timeout.as_secs()));
            }
        }
        Ok(())
    }

    async fn refresh(&mut self) -> Result<(), String> {
        self.client.restart();
        let name = [self.settings.topic.clone()];
        let topics = self.client.topics(Some(&name)).await.map_err(|e| e.to_string())?;
        self.refreshed = Some(clock::now());
        self.stale = false;
        let Some(topic) = topics.into_iter().next() else { return Ok(()) };
        match &topic.refusal {
            None => self.learn(&topic),
            Some(_) if topic.is_unknown() => {
                self.gone_since.get_or_insert_with(clock::now);
                for partition in self.partitions.values_mut() {
                    partition.leader = -1;
                }
            }
            Some(refusal) => return Err(format!("topic {}: {refusal}", topic.name)),
        }
        Ok(())
    }

    fn learn(&mut self, topic: &Topic) {
        self.gone_since = None;
        self.count = topic.partitions.len();
        for told in &topic.partitions {
            if self.settings.grows && !self.partitions.contains_key(&told.index) {
                let begin = Position { next: 0, from: 0, end: None };
                self.partitions.insert(told.index, Partition::new(begin));
            }
            if let Some(partition) = self.partitions.get_mut(&told.index) {
                partition.leader = told.leader;
            }
        }
    }

    /// Offsets that are not there any more, or not yet again.
    async fn find_again(&mut self) -> Result<(), String> {
        let lost: Vec<i32> =
            self.partitions.iter().filter(|(_, partition)| partition.out_of_range).map(|(index, _)| *index).collect();
        let place = |index: &i32| -> Place { (self.settings.topic.clone(), *index) };
        let ask = |spot: Spot| lost.iter().map(move |index| (place(index), spot)).collect::<Vec<_>>();
        let (earliest, latest) = (ask(Spot::Earliest), ask(Spot::Latest));
        self.client.restart();
        let begins = self.client.offsets(&earliest, true).await.map_err(|e| e.to_string())?;
        let ends = self.client.offsets(&latest, true).await.map_err(|e| e.to_string())?;
        let ends: BTreeMap<Place, Result<i64, Refusal>> = ends.into_iter().collect();
        for (place, begin) in begins {
            let Some(partition) = self.partitions.get_mut(&place.1) else { continue };
            match (&begin, ends.get(&place)) {
                (Ok(begin), Some(Ok(end))) => {
                    let (topic, index) = &place;
                    let was = partition.at.next;
                    let now = was.clamp(*begin, *end);
                    if was < *begin {
                        let gone = format!("offsets {was} to {} have been deleted", begin - 1);
                        self.notes.push(format!("{topic}-{index}: {gone}; going on at {begin}"));
                    } else if was > *end {
                        let short = format!("offset {was} is behind the end, which is {end}");
                        self.notes.push(format!("{topic}-{index}: {short} (the log was cut); going on there"));
                    }
                    (partition.at.next, partition.at.from) = (now, now);
                    partition.out_of_range = false;
                }
                (Err(refusal), _) | (_, Some(Err(refusal))) => partition.failed(refusal.to_string()),
                (_, None) => partition.failed("its leader does not tell its end".to_owned()),
            }
        }
        Ok(())
    }

    /// Asks each idle leader for what follows.
    async fn ask(&mut self) {
        // Records that have come are printed first; one answer a broker may come meanwhile.
        let now = clock::now();
        let mut ready: BTreeMap<i32, Vec<(i32, i64)>> = BTreeMap::new();
        let count = self.partitions.len();
        for (index, partition) in &mut self.partitions {
            let waits = partition.retry_at.is_some_and(|at| at > now);
            if partition.under_way || partition.is_done() || partition.out_of_range || waits {
                continue;
            }
            if partition.leader < 0 {
                partition.failed("it has no leader".to_owned());
                self.stale = true;
            } else if self.lanes.get(&partition.leader).is_none_or(|lane| !lane.busy) {
                ready.entry(partition.leader).or_default().push((*index, partition.at.next));
            }
        }
        self.first = (self.first + 1) % count.max(1);
        for (broker, mut places) in ready {
            let turn = self.first % places.len();
            places.rotate_left(turn);
            self.client.restart();
            let place = match self.client.place(broker).await {
                Ok(place) => place,
                Err(error) => {
                    self.put_off(&places, &error.to_string());
                    continue;
                }
            };
            let lane = self.lanes.entry(broker).or_default();
            lane.busy = true;
            let connection = lane.connection.take();
            for (index, _) in &places {
                if let Some(partition) = self.partitions.get_mut(index) {
                    partition.under_way = true;
                }
            }
            let limits = FetchLimits {
                max_wait_ms: MAX_WAIT_MS,
                min_bytes: 1,
                max_bytes: MAX_BYTES,
                partition_max_bytes: PARTITION_MAX_BYTES,
                isolation: self.settings.isolation,
            };
            let (topic, generation) = (self.settings.topic.clone(), self.generation);
            let ask = Ask { broker, place, connection, topic, limits, places, generation };
            let inbox = self.inbox.clone();
            spawn_local(async move { inbox.put(ask.carry_out().await) });
        }
    }

    fn put_off(&mut self, places: &[(i32, i64)], why: &str) {
        self.stale = true;
        for (index, _) in places {
            if let Some(partition) = self.partitions.get_mut(index) {
                partition.failed(why.to_owned());
            }
        }
    }

    fn take_in(&mut self, told: Told) -> Result<(), String> {
        let lane = self.lanes.entry(told.broker).or_default();
        (lane.busy, lane.connection) = (false, told.connection);
        if told.generation != self.generation {
            return Ok(());
        }
        for (index, _) in &told.places {
            if let Some(partition) = self.partitions.get_mut(index) {
                partition.under_way = false;
            }
        }
        let (version, frame) = match told.outcome {
            Ok(answer) => answer,
            Err(error) if is_of_network(&error) => {
                self.put_off(&told.places, &error.to_string());
                return Ok(());
            }
            Err(error) => return Err(error.to_string()),
        };
        let mut all = Vec::new();
        let code = read_fetch_response(version, &frame, |fetched| all.push(fetched))
            .map_err(|e| ClientError::from(e).to_string())?;
        if let Some(refusal) = Refusal::of(code, None) {
            self.put_off(&told.places, &refusal.to_string());
            return Ok(());
        }
        for fetched in all {
            self.fetched(fetched, &frame)?;
        }
        Ok(())
    }

    fn fetched(&mut self, fetched: Fetched<'_>, answer: &Bytes) -> Result<(), String> {
        let topic = &self.settings.topic;
        let Some(partition) = self.partitions.get_mut(&fetched.partition) else { return Ok(()) };
        let code = fetched.error_code;
        if let Some(refusal) = Refusal::of(code, None) {
            if code == ErrorCode::OffsetOutOfRange.code() {
                partition.out_of_range = true;
            } else if may_be_tried_again(code) {
                partition.failed(refusal.to_string());
                self.stale = true;
            } else {
                return Err(format!("{topic}-{}: {refusal}", fetched.partition));
            }
            return Ok(());
        }
        (partition.failing, partition.retry_at) = (None, None);
        // Whole batches; the last may be cut off.
        let (mut length, mut next) = (0, partition.at.next);
        loop {
            match frame(&fetched.records[length..]) {
                Ok((header, total)) => {
                    length += total;
                    next = next.max(header.next_offset());
                }
                Err(BatchError::Truncated { .. }) => break,
                Err(error) => {
                    return Err(format!("{topic}-{} at offset {next}: {error}", fetched.partition));
                }
            }
        }
        if length == 0 {
            return Ok(());
        }
        let at = partition.at;
        partition.at.next = next;
        let records = answer.slice_ref(&fetched.records[..length]);
        let from = at.from.max(at.next);
        let Fetched { partition, aborted, .. } = fetched;
        self.chunks.push_back(Chunk { partition, from, end: at.end, next, records, aborted });
        Ok(())
    }
}

/// Errors that pass by themselves.
fn may_be_tried_again(code: i16) -> bool {
    const REPLICA_NOT_AVAILABLE: i16 = 9;
    const UNKNOWN_TOPIC_ID: i16 = 100;
    const INCONSISTENT_TOPIC_ID: i16 = 103;
    let passing = [ErrorCode::UnknownTopicOrPartition, ErrorCode::RequestTimedOut, ErrorCode::KafkaStorageError];
    will_pass(code)
        || passing.iter().any(|passing| passing.code() == code)
        || [REPLICA_NOT_AVAILABLE, UNKNOWN_TOPIC_ID, INCONSISTENT_TOPIC_ID].contains(&code)
}
