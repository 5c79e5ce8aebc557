//! The producer: records in, requests out, acknowledgements counted.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};

use kafka_protocol::messages::{ApiKey, ApiVersionsRequest, InitProducerIdRequest, ProducerId};

use super::batches::{Filling, Record, Sealed};
use super::deliver::{Answer, Delivered, Parcel};
use crate::client::cluster_client::{ClusterClient, To};
use crate::client::cluster_client::{Topic, is_of_network, will_pass};
use crate::client::inbox::Inbox;
use crate::client::partitioner::{Sticky, of_key};
use crate::client::{Connection, Refusal};
use crate::model::ErrorCode;
use crate::model::record_batch::{Codec, sequence_plus};
use crate::runtime::{clock, spawn_local};

/// Records that wait for their acknowledgement, at most.
const BUFFER_BYTES: usize = 32 << 20;
/// A batch that waits for another of its partition grows up to this.
const LARGE_BATCH_BYTES: usize = 512 << 10;
/// Batches in one request, at least one.
const REQUEST_BYTES: usize = 4 << 20;
const _: () = assert!(LARGE_BATCH_BYTES <= REQUEST_BYTES && REQUEST_BYTES <= BUFFER_BYTES);
/// Time between two tries.
const PAUSE: Duration = Duration::from_millis(100);
/// Partitions that are added meanwhile are seen after this.
const REFRESH: Duration = Duration::from_secs(30);
/// For the broker to have a batch replicated.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const IDLE: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
pub struct Settings {
    pub topic: String,
    pub acks: i16,
    pub codec: Codec,
    /// A batch is sent once it has so many bytes before compression.
    pub batch_bytes: usize,
    /// A smaller batch is sent after this.
    pub linger: Duration,
    /// For a batch to be acknowledged, once it is its partition's next.
    pub timeout: Duration,
}

/// Records of a partition that were acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acknowledged {
    pub records: u64,
    /// Of the first and the last of them; `None`: not told (acks=0).
    pub offsets: Option<(i64, i64)>,
}

#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub acknowledged: BTreeMap<i32, Acknowledged>,
    /// Records that were not, by partition and reason.
    pub failed: BTreeMap<(i32, String), u64>,
}

#[derive(Default)]
struct Partition {
    /// -1: none.
    leader: i32,
    filling: Option<Filling>,
    /// In order; the first may be under way.
    sealed: VecDeque<Sealed>,
    under_way: bool,
    retry_at: Option<Instant>,
    producer: Option<(i64, i16)>,
    next_sequence: i32,
}

/// A connection to a leader; `None` while a task has it or it has to be opened.
#[derive(Default)]
struct Lane {
    connection: Option<Connection>,
    busy: bool,
}

/// Lives on a shard. [`turn`](Self::turn) does what is to be done, then
/// [`changed`](Self::changed) waits.
pub struct Producer {
    client: ClusterClient,
    settings: Settings,
    idempotent: bool,
    producer: Option<(i64, i16)>,
    partitions: Vec<Partition>,
    has_leader: Vec<bool>,
    lanes: BTreeMap<i32, Lane>,
    inbox: Rc<Inbox<Delivered>>,
    sticky: Sticky,
    buffered: usize,
    /// The most bytes of a batch of several records.
    largest: usize,
    refreshed: Instant,
    /// Leaders are not where they were.
    stale: bool,
    gave_up: bool,
    tally: Tally,
}

impl Producer {
    /// `topic`: as the cluster told it.
    pub fn new(client: ClusterClient, settings: Settings, topic: &Topic) -> Producer {
        let mut producer = Producer {
            client,
            idempotent: settings.acks == -1,
            settings,
            producer: None,
            partitions: Vec::new(),
            has_leader: Vec::new(),
            lanes: BTreeMap::new(),
            inbox: Inbox::new(),
            sticky: Sticky::new(clock::wall_ms().unsigned_abs()),
            buffered: 0,
            largest: LARGE_BATCH_BYTES,
            refreshed: clock::now(),
            stale: false,
            gave_up: false,
            tally: Tally::default(),
        };
        producer.learn(topic);
        producer
    }

    fn learn(&mut self, topic: &Topic) {
        for told in &topic.partitions {
            let Ok(place) = usize::try_from(told.index) else { continue };
            if place >= self.partitions.len() && place < topic.partitions.len() {
                self.partitions.resize_with(place + 1, || Partition { leader: -1, ..Partition::default() });
            }
            if let Some(partition) = self.partitions.get_mut(place) {
                partition.leader = told.leader;
            }
        }
        self.has_leader = self.partitions.iter().map(|partition| partition.leader >= 0).collect();
    }

    pub fn has_room(&self) -> bool {
        self.buffered < BUFFER_BYTES
    }

    /// Everything was acknowledged, or has failed.
    pub fn is_idle(&self) -> bool {
        self.partitions.iter().all(|partition| partition.filling.is_none() && partition.sealed.is_empty())
    }

    /// Some records were not acknowledged in time: it would be no better with others.
    pub fn gave_up(&self) -> bool {
        self.gave_up
    }

    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Takes a record. The error: why not.
    pub fn push(&mut self, record: &Record) -> Result<(), String> {
        let count = self.partitions.len();
        let place = match (record.partition, &record.key) {
            (Some(index), _) => match usize::try_from(index) {
                Ok(place) if place < count => place,
                _ => return Err(format!("topic {} has no partition {index}; it has {count}", self.settings.topic)),
            },
            (None, Some(key)) => of_key(key, count),
            (None, None) => self.sticky.current(&self.has_leader),
        };
        let bytes = record.bytes();
        let limit = self.limit(place);
        if self.partitions[place].filling.as_ref().is_some_and(|filling| filling.bytes() + bytes > limit) {
            self.seal(place)?;
        }
        let timestamp_ms = record.timestamp_ms.unwrap_or_else(clock::wall_ms);
        let new = || Filling::new(timestamp_ms, clock::now());
        let filling = self.partitions[place].filling.get_or_insert_with(new);
        let before = filling.bytes();
        filling.push(record, timestamp_ms);
        self.buffered += filling.bytes() - before;
        if filling.bytes() >= limit {
            self.seal(place)?;
        }
        Ok(())
    }

    /// The bytes at which the partition's batch is full.
    fn limit(&self, place: usize) -> usize {
        let waits = self.partitions[place].under_way || !self.partitions[place].sealed.is_empty();
        if waits { self.largest } else { self.settings.batch_bytes.min(self.largest) }
    }

    fn seal(&mut self, place: usize) -> Result<(), String> {
        let Some(filling) = self.partitions[place].filling.take() else { return Ok(()) };
        // Bytes that `push` has counted: the records without the batch's header.
        let counted = filling.bytes() - Filling::new(0, filling.since).bytes();
        self.buffered = self.buffered.saturating_sub(counted);
        let sealed = filling.seal(self.settings.codec).map_err(|e| format!("a batch cannot be compressed: {e}"))?;
        self.buffered += sealed.bytes.len();
        self.partitions[place].sealed.push_back(sealed);
        if self.sticky.current(&self.has_leader) == place {
            self.sticky.move_on(&self.has_leader);
        }
        Ok(())
    }

    /// Takes in what has come and sends what is due. `flush`: nothing is waited for to fill a
    /// batch. The error: no more can be done at all.
    pub async fn turn(&mut self, flush: bool) -> Result<(), String> {
        for delivered in self.inbox.take() {
            self.take_in(delivered)?;
        }
        let now = clock::now();
        for place in 0..self.partitions.len() {
            let partition = &self.partitions[place];
            let free = !partition.under_way && partition.sealed.is_empty();
            let due = |filling: &Filling| {
                flush || filling.since + self.settings.linger <= now || filling.bytes() >= self.settings.batch_bytes
            };
            if free && partition.filling.as_ref().is_some_and(due) {
                self.seal(place)?;
            }
        }
        self.expire(now)?;
        let busy = !self.is_idle();
        if busy && (self.stale || now.saturating_duration_since(self.refreshed) > REFRESH) {
            self.refresh().await?;
        }
        self.send().await
    }

    /// Until there is something to do for [`turn`](Self::turn). May be dropped in mid-wait.
    pub async fn changed(&self) {
        let now = clock::now();
        let due = |partition: &Partition| {
            let free = !partition.under_way && partition.sealed.is_empty();
            let full = partition.filling.as_ref().filter(|_| free).map(|filling| filling.since + self.settings.linger);
            let again = (!partition.sealed.is_empty() && !partition.under_way).then(|| {
                // Else its leader's connection is busy, and the answer wakes this.
                partition.retry_at.filter(|at| *at > now).unwrap_or(now + PAUSE)
            });
            full.into_iter().chain(again).min()
        };
        let next = self.partitions.iter().filter_map(due).min();
        let wait = next.map_or(IDLE, |next| next.saturating_duration_since(now));
        self.inbox.filled(wait).await;
    }

    /// With acks=0: until the brokers have read everything. Call when it is idle.
    pub async fn settle(&mut self) -> Vec<String> {
        let mut failed = Vec::new();
        if self.settings.acks == 0 {
            for (broker, lane) in &mut self.lanes {
                let Some(connection) = &mut lane.connection else { continue };
                if let Err(error) = connection.call(0, &ApiVersionsRequest::default()).await {
                    failed.push(format!("broker {broker} may not have taken the last records (acks=0): {error}"));
                }
            }
        }
        failed
    }

    /// Gives up what has waited for too long.
    fn expire(&mut self, now: Instant) -> Result<(), String> {
        let timeout = self.settings.timeout;
        for place in 0..self.partitions.len() {
            let partition = &mut self.partitions[place];
            let Some(first) = partition.sealed.front_mut() else { continue };
            if *first.deadline.get_or_insert(now + timeout) > now || partition.under_way {
                continue;
            }
            let last = if first.last.is_empty() { "the partition has no leader" } else { first.last.as_str() };
            let reason = format!("not acknowledged within {} s: {last}", timeout.as_secs());
            if first.unanswered {
                (partition.producer, partition.next_sequence, self.producer) = (None, 0, None);
            }
            self.seal(place)?;
            while let Some(batch) = self.partitions[place].sealed.pop_front() {
                self.fail(place, &batch, reason.clone());
            }
            self.gave_up = true;
        }
        Ok(())
    }

    fn fail(&mut self, place: usize, batch: &Sealed, reason: String) {
        self.buffered = self.buffered.saturating_sub(batch.bytes.len());
        let records = u64::try_from(batch.records).unwrap_or(0);
        *self.tally.failed.entry((place as i32, reason)).or_default() += records;
    }

    /// All that waits has failed.
    fn fail_all(&mut self, reason: &str) -> Result<(), String> {
        for place in 0..self.partitions.len() {
            self.seal(place)?;
            // A batch under way may still be acknowledged.
            let keep = usize::from(self.partitions[place].under_way);
            while self.partitions[place].sealed.len() > keep {
                if let Some(batch) = self.partitions[place].sealed.pop_back() {
                    self.fail(place, &batch, reason.to_owned());
                }
            }
        }
        self.gave_up = true;
        Ok(())
    }

    async fn refresh(&mut self) -> Result<(), String> {
        self.client.restart();
        self.stale = false;
        let name = [self.settings.topic.clone()];
        let topics = match self.client.topics(Some(&name)).await {
            Ok(topics) => topics,
            Err(error) => return self.fail_all(&error.to_string()),
        };
        self.refreshed = clock::now();
        match topics.first() {
            Some(topic) if topic.refusal.is_none() => self.learn(topic),
            // It may only be on its way to this broker.
            Some(topic) if topic.is_unknown() => {
                let words = Refusal { code: ErrorCode::UnknownTopicOrPartition.code(), message: None }.to_string();
                self.partitions.iter_mut().for_each(|partition| {
                    partition.leader = -1;
                    partition.sealed.iter_mut().for_each(|batch| batch.last = words.clone());
                });
            }
            Some(Topic { refusal: Some(refusal), name, .. }) => {
                let reason = format!("topic {name}: {refusal}");
                return self.fail_all(&reason);
            }
            _ => self.stale = true,
        }
        Ok(())
    }

    /// Sends each idle leader what there is for it.
    async fn send(&mut self) -> Result<(), String> {
        let now = clock::now();
        let mut ready: BTreeMap<i32, Vec<usize>> = BTreeMap::new();
        for (place, partition) in self.partitions.iter_mut().enumerate() {
            let waits = partition.retry_at.is_some_and(|at| at > now);
            if partition.under_way || partition.sealed.is_empty() || waits {
                continue;
            }
            if partition.leader < 0 {
                partition.retry_at = Some(now + PAUSE);
                self.stale = true;
            } else if self.lanes.get(&partition.leader).is_none_or(|lane| !lane.busy) {
                ready.entry(partition.leader).or_default().push(place);
            }
        }
        if ready.is_empty() {
            return Ok(());
        }
        let wants_id = |place: &usize| self.partitions[*place].producer.is_none();
        if self.idempotent && self.producer.is_none() && ready.values().flatten().any(wants_id) {
            self.identify().await?;
        }
        for (broker, places) in ready {
            self.client.restart();
            let place = match self.client.place(broker).await {
                Ok(place) => place,
                Err(error) => {
                    self.put_off(&places, &error.to_string());
                    continue;
                }
            };
            let mut batches = Vec::new();
            let mut bytes = 0;
            for place in places {
                let (id, partition) = (self.producer, &mut self.partitions[place]);
                let Some(first) = partition.sealed.front_mut() else { continue };
                if bytes > 0 && bytes + first.bytes.len() > REQUEST_BYTES {
                    break;
                }
                if self.idempotent && !first.sequenced {
                    partition.producer = partition.producer.or(id);
                    if let Some(producer) = partition.producer {
                        first.sequence(producer, partition.next_sequence);
                    }
                }
                bytes += first.bytes.len();
                batches.push((place as i32, first.bytes.clone()));
                partition.under_way = true;
            }
            let lane = self.lanes.entry(broker).or_default();
            lane.busy = true;
            let Settings { topic, acks, timeout, .. } = &self.settings;
            let (connection, timeout) = (lane.connection.take(), REQUEST_TIMEOUT.min(*timeout));
            let parcel = Parcel { broker, place, connection, topic: topic.clone(), acks: *acks, timeout, batches };
            let inbox = self.inbox.clone();
            spawn_local(async move { inbox.put(parcel.deliver().await) });
        }
        Ok(())
    }

    /// These partitions' batches are tried again in a while, at the leaders that there are then.
    fn put_off(&mut self, places: &[usize], why: &str) {
        self.stale = true;
        let again = Some(clock::now() + PAUSE);
        for place in places {
            self.partitions[*place].retry_at = again;
            if let Some(first) = self.partitions[*place].sealed.front_mut() {
                first.last = why.to_owned();
            }
        }
    }

    /// Asks for a producer id. A cluster that gives none has records without.
    async fn identify(&mut self) -> Result<(), String> {
        self.client.restart();
        let make = |_| {
            let request = InitProducerIdRequest::default().with_transactional_id(None);
            request.with_transaction_timeout_ms(60_000).with_producer_id(ProducerId(-1)).with_producer_epoch(-1)
        };
        let served = self.client.serves(To::Any, ApiKey::InitProducerId).await;
        let answer = match served {
            Ok(false) => {
                self.idempotent = false;
                return Ok(());
            }
            Ok(true) => self.client.ask(To::Any, make, |answer| will_pass(answer.error_code)).await,
            Err(error) => Err(error),
        };
        match answer {
            Ok(answer) if answer.error_code == 0 => {
                self.producer = Some((answer.producer_id.0, answer.producer_epoch));
                Ok(())
            }
            Ok(_) => {
                self.idempotent = false;
                Ok(())
            }
            Err(error) => self.fail_all(&format!("no producer id: {error}")),
        }
    }

    fn take_in(&mut self, delivered: Delivered) -> Result<(), String> {
        let Delivered { broker, partitions, connection, outcome } = delivered;
        let lane = self.lanes.entry(broker).or_default();
        (lane.busy, lane.connection) = (false, connection);
        let places: Vec<usize> = partitions.iter().filter_map(|index| usize::try_from(*index).ok()).collect();
        for place in &places {
            self.partitions[*place].under_way = false;
        }
        let mut open = places;
        let silent = match outcome {
            Ok(answers) => {
                for answer in answers {
                    let place = open.iter().position(|place| *place as i64 == i64::from(answer.partition));
                    if let Some(position) = place {
                        let place = open.swap_remove(position);
                        self.answered(place, answer)?;
                    }
                }
                "the broker's answer says nothing of it".to_owned()
            }
            Err(error) if is_of_network(&error) => error.to_string(),
            Err(error) => return Err(error.to_string()),
        };
        for place in &open {
            if let Some(first) = self.partitions[*place].sealed.front_mut() {
                first.unanswered = true;
            }
        }
        if !open.is_empty() {
            self.put_off(&open, &silent);
        }
        Ok(())
    }

    fn answered(&mut self, place: usize, answer: Answer) -> Result<(), String> {
        let refusal = Refusal { code: answer.code, message: answer.message };
        let is = |code: ErrorCode| answer.code == code.code();
        let written = answer.code == 0 || is(ErrorCode::DuplicateSequenceNumber);
        if !written && may_be_tried_again(answer.code) {
            self.put_off(&[place], &refusal.to_string());
            return Ok(());
        }
        let Some(batch) = self.partitions[place].sealed.pop_front() else { return Ok(()) };
        if written {
            self.acknowledge(place, &batch, answer.base_offset);
        } else if (is(ErrorCode::MessageTooLarge) || is(ErrorCode::RecordListTooLarge)) && batch.records > 1 {
            self.halve(place, batch)?;
        } else if is_of_sequence(answer.code) && self.idempotent {
            // The broker has forgotten this producer: another one begins anew, unless the
            // batch may be there already.
            (self.partitions[place].producer, self.partitions[place].next_sequence) = (None, 0);
            self.producer = None;
            if batch.unanswered {
                self.fail(place, &batch, format!("they may have been written: {refusal}"));
            } else {
                self.partitions[place].sealed.push_front(Sealed { sequenced: false, ..batch });
            }
        } else {
            self.fail(place, &batch, refusal.to_string());
        }
        Ok(())
    }

    fn acknowledge(&mut self, place: usize, batch: &Sealed, base_offset: i64) {
        self.buffered = self.buffered.saturating_sub(batch.bytes.len());
        let partition = &mut self.partitions[place];
        partition.retry_at = None;
        if batch.sequenced {
            partition.next_sequence = sequence_plus(partition.next_sequence, batch.records);
        }
        let new = Acknowledged { records: 0, offsets: None };
        let sum = self.tally.acknowledged.entry(place as i32).or_insert(new);
        sum.records += u64::try_from(batch.records).unwrap_or(0);
        if base_offset >= 0 {
            let last = base_offset + i64::from(batch.records) - 1;
            sum.offsets = Some(sum.offsets.map_or((base_offset, last), |(first, _)| (first, last)));
        }
    }

    /// Puts two batches in the place of one that was too large, and makes no larger ones.
    fn halve(&mut self, place: usize, batch: Sealed) -> Result<(), String> {
        self.largest = self.largest.min((batch.bytes.len() / 2).max(1024));
        self.buffered = self.buffered.saturating_sub(batch.bytes.len());
        let halves = batch.halves(self.settings.codec).map_err(|e| format!("a batch cannot be split: {e}"))?;
        for half in halves.into_iter().rev() {
            self.buffered += half.bytes.len();
            self.partitions[place].sealed.push_front(half);
        }
        Ok(())
    }
}

/// Errors that pass by themselves, of batches that were not written.
fn may_be_tried_again(code: i16) -> bool {
    const UNKNOWN_TOPIC_ID: i16 = 100;
    const INCONSISTENT_TOPIC_ID: i16 = 103;
    let passing = [
        ErrorCode::CorruptMessage,
        ErrorCode::UnknownTopicOrPartition,
        ErrorCode::RequestTimedOut,
        ErrorCode::NotEnoughReplicas,
        ErrorCode::NotEnoughReplicasAfterAppend,
        ErrorCode::KafkaStorageError,
    ];
    will_pass(code)
        || passing.iter().any(|passing| passing.code() == code)
        || [UNKNOWN_TOPIC_ID, INCONSISTENT_TOPIC_ID].contains(&code)
}

fn is_of_sequence(code: i16) -> bool {
    let codes = [ErrorCode::OutOfOrderSequenceNumber, ErrorCode::UnknownProducerId, ErrorCode::InvalidProducerEpoch];
    codes.iter().any(|of| of.code() == code)
}
