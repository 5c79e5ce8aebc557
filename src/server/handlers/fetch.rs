//! Fetch: record bytes from the buffers the log holds, with sessions (KIP-227).

use std::sync::Arc;

use kafka_protocol::messages::ApiKey;

use crate::cluster::MetadataImage;
use crate::model::{BrokerId, ErrorCode, PartitionId};
use crate::observe::metrics::{ShardMetrics, Target};
use crate::protocol::fetch::{FetchPartition, FetchPartitionResponse, FetchRequest, decode, encode_response};
use crate::protocol::{ApiSpec, Malformed, Prefix, TopicKey};
use crate::runtime::SendRoom;
use crate::runtime::clock::Moment;
use crate::server::dispatch::UnreadCall;
use crate::server::fetch_session::{NO_SESSION, Opened, SessionCache};
use crate::server::pipeline::{Answer, Course, Reply};
use crate::server::session::Session;
use crate::shard::{FetchOutcome, FetchPart, FetchPlan, Reader};

use super::shared::{find_partition, find_topic, stated_epoch};

pub const API: ApiSpec = ApiSpec::new(ApiKey::Fetch, 4, 18).own_codec();

/// Topics by id instead of by name from here on.
const TOPIC_IDS_FROM: i16 = 13;

/// Bytes that a partition takes here and below while its fetch waits, about.
const ASKED_BYTES: usize = 256;
/// A fetch that takes more waits for data only within [`ServerContext::waiting_fetches`]; beyond
/// that it is answered at once, with what is there, and keeps what it has of
/// [`ServerContext::work`] until then.
///
/// [`ServerContext::waiting_fetches`]: crate::server::context::ServerContext::waiting_fetches
/// [`ServerContext::work`]: crate::server::context::ServerContext::work
const SMALL_FETCH_BYTES: usize = 16 << 10;

/// Largest size of a partition in the response without its records.
const ANSWERED_BYTES: usize = 64;
/// Responses with more partitions are charged for those, too.
const FEW_PARTITIONS: usize = 64;

/// One partition to answer.
#[derive(Debug)]
struct Asked {
    /// Position in [`Job::keys`].
    topic: u32,
    index: i32,
    /// `None`: it is in the plan.
    error: Option<ErrorCode>,
}

/// A request split into what is read and what is answered without reading.
#[derive(Debug)]
struct Job {
    keys: Vec<TopicKey>,
    asked: Vec<Asked>,
    /// With a session: each partition's slot, in the order of `asked`.
    slots: Vec<u32>,
    opened: Opened,
    plan: FetchPlan,
    sender: Sender,
}

/// The replica that sends a request; a consumer has id -1.
#[derive(Clone, Debug)]
struct Sender {
    replica_id: i32,
    replica_epoch: i64,
    /// A consumer wants of transactions only what is decided.
    committed: bool,
    /// Rack of a consumer; `None`: it has none.
    rack: Option<Arc<str>>,
}

/// Isolation level of consumers that want of transactions only what is decided.
const READ_COMMITTED: i8 = 1;
/// Replica id of Kafka's tool that compares replicas.
const VERIFIER: i32 = -2;

impl Sender {
    fn reader(&self, last_fetched_epoch: i32) -> Reader {
        match self.replica_id {
            VERIFIER => Reader::Verifier,
            0.. => Reader::Follower {
                broker: BrokerId(self.replica_id),
                broker_epoch: self.replica_epoch,
                last_epoch: (last_fetched_epoch >= 0).then_some(last_fetched_epoch),
                arrives: true,
            },
            _ if self.committed => Reader::CommittedConsumer,
            _ => Reader::Consumer,
        }
    }
}

/// Stage one settles the session; the reading is the answer.
pub fn handle(session: Session, call: UnreadCall) -> Result<Answer, Malformed> {
    let UnreadCall { prefix: Prefix { version, correlation_id, .. }, body, frame_bytes, permit, .. } = call;
    let Session { context, client, quota, working, .. } = session;
    let request = decode(version, body)?;
    // Replicas are exempt.
    let quota = quota.filter(|_| request.replica_id < 0);
    let image = context.shard.image();
    let job = {
        let mut sessions = context.sessions.borrow_mut();
        let limit = context.shard.config.fetch_max_bytes;
        split_request(&image, &mut sessions, limit, version, request, context.link.coarse_ms())
    };
    drop(permit);
    let mut job = match job {
        Ok(job) => job,
        Err(code) => {
            context.link.metrics.api(ApiKey::Fetch as i16).note_error(code.code());
            let throttle_ms = quota.map_or(0, |call| call.settle_fetch(0));
            let slices = encode_response(version, correlation_id, throttle_ms, code, NO_SESSION, Vec::new());
            return Ok(Answer::Now(Reply::Held(slices, Vec::new())));
        }
    };
    if let Some(call) = &quota {
        job.plan.max_bytes = job.plan.max_bytes.min(call.most_fetched());
        job.plan.min_bytes = job.plan.min_bytes.min(job.plan.max_bytes);
    }
    client.tally.note(&job.plan.parts, |part| context.shard.owner(part.partition));
    if let Opened::Session { id, .. } = job.opened {
        client.tally.note_session(id);
    }
    let held = frame_bytes + job.asked.len() * ASKED_BYTES;
    let waiting = match held {
        ..=SMALL_FETCH_BYTES => None,
        _ => context.waiting_fetches.try_acquire(held).or_else(|| {
            job.plan.max_wait_ms = 0;
            working.take()
        }),
    };
    // All answers before have been sent, so reading begins at once.
    job.plan.begun = Moment::now();
    let course = Course::Fetch { begun: job.plan.begun, by_follower: job.sender.replica_id >= 0 };
    client.begun.set((course, job.target()));
    Ok(Answer::Later(Box::pin(async move {
        let _waiting = waiting;
        let parts = std::mem::take(&mut job.plan.parts);
        let plan = FetchPlan { parts, room: client.room.clone(), ..job.plan };
        // Nothing to read: nothing to wait for either, as in Kafka.
        let (outcomes, records_share) = match plan.parts.is_empty() {
            true => (Vec::new(), None),
            false => context.shard.fetch(plan).await,
        };
        let mut shares = Vec::from_iter(records_share);
        if job.asked.len() > FEW_PARTITIONS {
            shares.push(context.shard.answers.share(job.asked.len() * ANSWERED_BYTES, &client.room).await);
        }
        let bytes = outcomes.iter().map(|outcome| outcome.bytes() + ANSWERED_BYTES).sum();
        let throttle_ms = quota.map_or(0, |call| call.settle_fetch(bytes));
        if throttle_ms > 0 {
            let session_id = give_up(&mut context.sessions.borrow_mut(), job.opened);
            let slices = encode_response(version, correlation_id, throttle_ms, ErrorCode::None, session_id, Vec::new());
            return Reply::Held(slices, Vec::new());
        }
        note_errors(&context.link.metrics, &job, &outcomes);
        note_sent(job.sender.replica_id >= 0, &outcomes);
        let (error, session_id, topics) = finish(&mut context.sessions.borrow_mut(), job, outcomes);
        Reply::Held(encode_response(version, correlation_id, 0, error, session_id, topics), shares)
    })))
}

/// Ends a request whose client is told to wait instead; the session id of its answer. A session
/// that it begins is none: its client would miss the partitions in the answer.
fn give_up(sessions: &mut SessionCache, opened: Opened) -> i32 {
    match opened {
        Opened::Session { id, full: true, .. } => {
            sessions.end(id);
            NO_SESSION
        }
        Opened::Session { id, full: false, .. } => id,
        _ => NO_SESSION,
    }
}

fn note_errors(metrics: &ShardMetrics, job: &Job, outcomes: &[FetchOutcome]) {
    let refused = job.asked.iter().filter_map(|asked| asked.error);
    let failed = outcomes.iter().map(|outcome| outcome.error).filter(|error| *error != ErrorCode::None);
    refused.chain(failed).for_each(|error| metrics.api(ApiKey::Fetch as i16).note_error(error.code()));
}

fn note_sent(to_follower: bool, outcomes: &[FetchOutcome]) {
    for outcome in outcomes {
        let Some(traffic) = &outcome.traffic else { continue };
        let count = if to_follower { &traffic.replicated_out_bytes } else { &traffic.sent_bytes };
        count.add_shared(outcome.bytes() as u64);
    }
}

fn split_request(
    image: &MetadataImage,
    sessions: &mut SessionCache,
    limit: u32,
    version: i16,
    request: FetchRequest,
    now_ms: i64,
) -> Result<Job, ErrorCode> {
    // Without the system's randomness ids are merely guessable, which costs nobody
    // more than a fresh session.
    let random = || getrandom::u32().unwrap_or(now_ms as u32);
    let opened = sessions.open(&request, version >= TOPIC_IDS_FROM, now_ms, random);
    let rack = request.rack_id.as_deref().filter(|rack| !rack.is_empty() && request.replica_id < 0).map(Arc::from);
    let committed = request.isolation_level == READ_COMMITTED;
    let sender = Sender { replica_id: request.replica_id, replica_epoch: request.replica_epoch, committed, rack };
    // fetch.max.bytes is for consumers.
    let limit = if request.replica_id >= 0 { u32::MAX } else { limit };
    let max_bytes = (request.max_bytes.max(0) as u32).min(limit);
    let plan = FetchPlan {
        parts: Vec::new(),
        max_bytes,
        min_bytes: (request.min_bytes.max(0) as u32).min(max_bytes),
        max_wait_ms: request.max_wait_ms.max(0) as u32,
        // Once this is done.
        begun: Moment::FIRST,
        room: SendRoom::default(),
    };
    let mut job = Job { keys: Vec::new(), asked: Vec::new(), slots: Vec::new(), opened, plan, sender };
    match opened {
        Opened::Refused(code) => return Err(code),
        Opened::Sessionless => {
            let partitions = request.topics.iter().map(|topic| topic.partitions.len()).sum();
            job.reserve(partitions);
            for topic in request.topics {
                let number = job.keys.len() as u32;
                let found = find_topic(image, &topic.topic);
                for partition in &topic.partitions {
                    let checked = found.and_then(|topic| find_partition(topic, partition.index));
                    job.ask(number, checked, partition);
                }
                job.keys.push(topic.topic);
            }
        }
        Opened::Session { id, .. } => {
            let session = sessions.session(id).ok_or(ErrorCode::FetchSessionIdNotFound)?;
            job.reserve(session.len());
            job.slots.reserve(session.len());
            job.keys = session.topics().to_vec();
            // Neighbours mostly share their topic: look it up once for each run.
            let mut last = None;
            for (slot, remembered) in session.partitions() {
                let found = match last {
                    Some((number, found)) if number == remembered.topic => found,
                    _ => {
                        let key = job.keys.get(remembered.topic as usize).ok_or(ErrorCode::UnknownServerError)?;
                        let found = find_topic(image, key);
                        last = Some((remembered.topic, found));
                        found
                    }
                };
                let partition = &remembered.request;
                let checked = found.and_then(|topic| find_partition(topic, partition.index));
                job.ask(remembered.topic, checked, partition);
                job.slots.push(slot);
            }
        }
    }
    Ok(job)
}

impl Job {
    fn target(&self) -> Target {
        let first = self.plan.parts.first().map(|part| part.partition);
        Target::new(self.asked.len(), first.map(|partition| (partition.topic.as_u128(), partition.index.0)))
    }

    fn reserve(&mut self, partitions: usize) {
        self.asked.reserve(partitions);
        self.plan.parts.reserve(partitions);
    }

    fn ask(&mut self, topic: u32, checked: Result<PartitionId, ErrorCode>, partition: &FetchPartition) {
        let error = match checked {
            Ok(id) => {
                self.plan.parts.push(FetchPart {
                    partition: id,
                    offset: partition.fetch_offset,
                    max_bytes: partition.max_bytes.max(0) as u32,
                    current_leader_epoch: stated_epoch(partition.current_leader_epoch),
                    reader: self.sender.reader(partition.last_fetched_epoch),
                    rack: self.sender.rack.clone(),
                });
                None
            }
            Err(code) => Some(code),
        };
        self.asked.push(Asked { topic, index: partition.index, error });
    }
}

/// The response's error, session id and topics. Topics stand in the order of the partitions; one
/// that comes up again after another stands there again, as Kafka does it.
fn finish(
    sessions: &mut SessionCache,
    job: Job,
    outcomes: Vec<FetchOutcome>,
) -> (ErrorCode, i32, Vec<(TopicKey, Vec<FetchPartitionResponse>)>) {
    let mut outcomes = outcomes.into_iter();
    let mut responses: Vec<Option<FetchPartitionResponse>> = Vec::with_capacity(job.asked.len());
    for asked in &job.asked {
        let response = match asked.error {
            Some(code) => failed(asked.index, code),
            None => match outcomes.next() {
                Some(outcome) => answered(asked.index, outcome),
                None => failed(asked.index, ErrorCode::UnknownServerError),
            },
        };
        responses.push(Some(response));
    }
    let session_id = match job.opened {
        Opened::Session { id, epoch, full } => {
            if !sessions.close(id, epoch, full, &job.slots, &mut responses) {
                return (ErrorCode::InvalidFetchSessionEpoch, NO_SESSION, Vec::new());
            }
            id
        }
        _ => NO_SESSION,
    };
    let mut topics: Vec<(TopicKey, Vec<FetchPartitionResponse>)> = Vec::new();
    let mut current = None;
    for (asked, response) in job.asked.iter().zip(responses) {
        let Some(response) = response else { continue };
        if current != Some(asked.topic) {
            let Some(key) = job.keys.get(asked.topic as usize) else { continue };
            topics.push((key.clone(), Vec::new()));
            current = Some(asked.topic);
        }
        if let Some((_, partitions)) = topics.last_mut() {
            partitions.push(response);
        }
    }
    (ErrorCode::None, session_id, topics)
}

fn answered(index: i32, outcome: FetchOutcome) -> FetchPartitionResponse {
    FetchPartitionResponse {
        index,
        error: outcome.error,
        high_watermark: outcome.high_watermark,
        last_stable_offset: outcome.last_stable_offset,
        log_start_offset: outcome.log_start_offset,
        aborted: outcome.aborted,
        records: outcome.records,
        diverging: outcome.diverging,
        preferred_replica: outcome.preferred_replica.map(|broker| broker.0),
    }
}

fn failed(index: i32, error: ErrorCode) -> FetchPartitionResponse {
    FetchPartitionResponse {
        index,
        error,
        high_watermark: -1,
        last_stable_offset: -1,
        log_start_offset: -1,
        aborted: None,
        records: Vec::new(),
        diverging: None,
        preferred_replica: None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::shared::testing::{id_of, image};
    use super::*;
    use crate::model::ShardId;
    use crate::protocol::fetch::FetchTopic;
    use bytes::{Buf, Bytes};
    use kafka_protocol::messages::FetchResponse;
    use kafka_protocol::protocol::Decodable;

    fn request(session: (i32, i32), topics: &[(u128, &[i32])]) -> FetchRequest {
        let partition = |index: i32| FetchPartition {
            index,
            current_leader_epoch: 4,
            fetch_offset: 10 + i64::from(index),
            last_fetched_epoch: -1,
            log_start_offset: -1,
            max_bytes: 1000,
        };
        FetchRequest {
            max_wait_ms: 500,
            min_bytes: 1,
            max_bytes: i32::MAX,
            isolation_level: 0,
            session_id: session.0,
            session_epoch: session.1,
            topics: topics
                .iter()
                .map(|(id, list)| FetchTopic {
                    topic: TopicKey::Id(id_of(*id)),
                    partitions: list.iter().map(|index| partition(*index)).collect(),
                })
                .collect(),
            forgotten: Vec::new(),
            rack_id: None,
            replica_id: -1,
            replica_epoch: -1,
        }
    }

    fn outcome(high_watermark: i64, records: &'static [u8]) -> FetchOutcome {
        FetchOutcome {
            error: ErrorCode::None,
            high_watermark,
            last_stable_offset: high_watermark,
            log_start_offset: 0,
            aborted: None,
            records: if records.is_empty() { Vec::new() } else { vec![Bytes::from_static(records)] },
            more: false,
            held_bytes: records.len(),
            needed_bytes: 0,
            diverging: None,
            preferred_replica: None,
            traffic: None,
        }
    }

    type Row = (u128, i32, i16, Vec<u8>);

    /// The response as a client sees it: session id, and (topic, partition, error, records) in
    /// order.
    fn seen(sessions: &mut SessionCache, job: Job, outcomes: Vec<FetchOutcome>) -> (i32, Vec<Row>) {
        let (error, session, topics) = finish(sessions, job, outcomes);
        let mut frame: Bytes = encode_response(17, 1, 0, error, session, topics).concat().into();
        frame.advance(9);
        let response = FetchResponse::decode(&mut frame, 17).unwrap();
        assert!(frame.is_empty());
        let mut rows = Vec::new();
        for topic in response.responses {
            for p in topic.partitions {
                let records = p.records.unwrap_or_default().to_vec();
                rows.push((topic.topic_id.as_u128(), p.partition_index, p.error_code, records));
            }
        }
        (response.session_id, rows)
    }

    #[test]
    fn without_a_session_everything_is_answered_in_order() {
        let image = image(&[("a", 1, 2), ("b", 2, 1)]);
        let mut sessions = SessionCache::new(10, 1 << 20, ShardId(0));
        let asked = request((0, -1), &[(1, &[0, 5, 1]), (9, &[0]), (2, &[0])]);
        let job = split_request(&image, &mut sessions, 5000, 17, asked, 0).unwrap();
        let plan: Vec<_> =
            job.plan.parts.iter().map(|p| (p.partition.topic.as_u128(), p.partition.index.0, p.offset)).collect();
        assert_eq!(plan, [(1, 0, 10), (1, 1, 11), (2, 0, 10)]);
        assert_eq!((job.plan.max_bytes, job.plan.min_bytes, job.plan.max_wait_ms), (5000, 1, 500));
        let outcomes = vec![outcome(1, b"x"), outcome(2, b""), outcome(3, b"zz")];
        let (session, rows) = seen(&mut sessions, job, outcomes);
        assert_eq!(session, 0);
        let expected = [
            (1, 0, 0, b"x".to_vec()),
            (1, 5, 3, vec![]),
            (1, 1, 0, vec![]),
            (9, 0, 100, vec![]),
            (2, 0, 0, b"zz".to_vec()),
        ];
        assert_eq!(rows, expected);
    }

    #[test]
    fn a_session_answers_news_only_and_what_had_data_comes_last() {
        let image = image(&[("a", 1, 3)]);
        let mut sessions = SessionCache::new(10, 1 << 20, ShardId(0));
        let job =
            split_request(&image, &mut sessions, 5000, 17, request((0, 0), &[(1, &[0, 1, 2]), (9, &[0])]), 0).unwrap();
        let (id, rows) = seen(&mut sessions, job, vec![outcome(5, b"data"), outcome(5, b""), outcome(5, b"")]);
        assert!(id > 0);
        assert_eq!(rows.len(), 4);
        let job = split_request(&image, &mut sessions, 5000, 17, request((id, 1), &[]), 0).unwrap();
        let order: Vec<_> = job.plan.parts.iter().map(|p| p.partition.index.0).collect();
        assert_eq!(order, [1, 2, 0]);
        let (_, rows) = seen(&mut sessions, job, vec![outcome(5, b""), outcome(6, b"new"), outcome(5, b"")]);
        assert_eq!(rows, [(1, 2, 0, b"new".to_vec()), (9, 0, 100, vec![])], "the unknown topic is told every time");
        assert_eq!(
            split_request(&image, &mut sessions, 1, 17, request((id, 9), &[]), 0).err(),
            Some(ErrorCode::InvalidFetchSessionEpoch)
        );
        assert_eq!(
            split_request(&image, &mut sessions, 1, 12, request((id, 2), &[]), 0).err(),
            Some(ErrorCode::FetchSessionTopicIdError)
        );
    }

    #[test]
    fn negative_limits_count_as_zero_and_missing_outcomes_as_errors() {
        let image = image(&[("a", 1, 1)]);
        let mut sessions = SessionCache::new(10, 1 << 20, ShardId(0));
        let mut asked = request((0, -1), &[(1, &[0])]);
        (asked.max_bytes, asked.min_bytes, asked.max_wait_ms) = (-1, -1, -1);
        asked.topics[0].partitions[0].max_bytes = -1;
        let job = split_request(&image, &mut sessions, 5000, 17, asked, 0).unwrap();
        assert_eq!(
            (job.plan.max_bytes, job.plan.min_bytes, job.plan.max_wait_ms, job.plan.parts[0].max_bytes),
            (0, 0, 0, 0)
        );
        assert_eq!(seen(&mut sessions, job, Vec::new()).1, [(1, 0, -1, vec![])]);
    }
}
