//! Produce: batches to their partitions. Stage one (in the reader's order) ends when the shard has
//! fixed the batches' place; stage two is the answer once `acks` is satisfied.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use kafka_protocol::messages::ApiKey;

use crate::cluster::MetadataImage;
use crate::model::ErrorCode;
use crate::model::record_batch::{BatchHeader, Codec};
use crate::observe::metrics::{Cause, ShardMetrics, Spell, Target};
use crate::protocol::produce::{
    ProducePartition, ProducePartitionResponse, ProduceRequest, ProduceTopic, decode, encode_response,
};
use crate::protocol::{ApiSpec, Malformed, Prefix, TopicKey};
use crate::runtime::clock::{self, Moment};
use crate::runtime::sync::oneshot;
use crate::runtime::{spawn_local, waits};
use crate::server::dispatch::UnreadCall;
use crate::server::pipeline::{Answer, Course, Reply};
use crate::server::session::Session;
use crate::shard::{ProduceOutcome, ProducePart, ProduceWrites, RequestTransaction, Share};

use super::shared::{find_partition, find_topic, is_internal, merge_outcomes};

/// Names v0 to v2 in ApiVersions and refuses them, see [`ApiSpec::advertised_min`].
pub const API: ApiSpec = ApiSpec::new(ApiKey::Produce, 3, 13).own_codec();

/// The most partitions of one request. Clients send to some thousands; a request of empty ones
/// costs many times its size.
const MAX_PLACES: usize = 100_000;
/// Memory of a partition's place in the answer, and up to how many of them are not charged.
const PLACE_BYTES: usize = 256;
const FEW_PLACES: usize = 64;

/// zstd came with this version; older clients could not read it back.
const ZSTD_FROM: i16 = 7;
/// TRANSACTION_ABORTABLE is known from here on.
const ABORTABLE_FROM: i16 = 11;
/// Clients of `transaction.version` 2 leave it to their produce requests to add
/// partitions to a transaction.
const ADDS_PARTITIONS_FROM: i16 = 12;
/// The client id by which Kafka lets its own tools write to its own topics.
const ADMIN_CLIENT: &str = "__admin_client";
const INTERNAL: &str = "clients do not write to internal topics";
const NO_TRANSACTIONAL_ID: &str = "records of a transaction come with a transactional id";
const TWO_PRODUCERS: &str = "records of transactions of more than one producer";

/// The response as it will be, by topic in the request's order.
type Topics = Vec<(TopicKey, Vec<ProducePartitionResponse>)>;

pub async fn handle(session: Session, call: UnreadCall) -> Result<Answer, Malformed> {
    let UnreadCall { prefix, received, body, frame_bytes, permit } = call;
    let Prefix { version, correlation_id, .. } = prefix;
    let Session { context, client, .. } = &session;
    let request = decode(version, body)?;
    let places: usize = request.topics.iter().map(|topic| topic.partitions.len()).sum();
    if places > MAX_PLACES {
        let problem = format!("a Produce request for {places} partitions; at most {MAX_PLACES} are taken in one");
        return Err(Malformed(problem));
    }
    // Requests for many partitions are answered in memory of their own, however the answer waits.
    let share = match places {
        ..=FEW_PLACES => None,
        _ => Some(context.shard.answers.share(places * PLACE_BYTES, &client.room).await),
    };
    let acks = match request.acks {
        0 => Some(Acks::None),
        1 => Some(Acks::Leader),
        -1 => Some(Acks::All),
        _ => None,
    };
    let timeout = Duration::from_millis(request.timeout_ms.max(0) as u64);
    let writes_internal = session.client_id.as_deref() == Some(ADMIN_CLIENT);
    let transaction = request.transactional_id.as_deref().map(|id| RequestTransaction {
        id: id.into(),
        adds: version >= ADDS_PARTITIONS_FROM,
        knows_abortable: version >= ABORTABLE_FROM,
    });
    let (mut topics, parts) = split_request(&context.shard.image(), version, acks.is_some(), writes_internal, request);
    // Before the next request is read.
    let settle = |acks| session.quota.as_ref().map_or(0, |call| call.settle_produce(frame_bytes, acks != Acks::None));
    let (Some(acks), false) = (acks, parts.is_empty()) else {
        // Nothing to write: the permit goes with this call.
        let acks = acks.unwrap_or(Acks::All);
        note_errors(&context.link.metrics, &topics);
        let throttle_ms = settle(acks);
        return Ok(Answer::Now(reply(acks, version, correlation_id, &topics, throttle_ms).held(share)));
    };
    client.tally.note(&parts, |part| context.shard.owner(part.partition));
    let count = parts.len();
    let first = parts.first().map(|part| part.partition);
    let writes = context.shard.produce(parts, acks == Acks::All, transaction).await;
    let appended = Moment::now();
    context.link.metrics.appended.add(Spell::of(appended.ns_since(received)));
    let throttle_ms = settle(acks);
    let first = first.map(|partition| (partition.topic.as_u128(), partition.index.0));
    client.begun.set((Course::Produce(appended), Target::new(places, first)));
    let answer = Answering { acks, version, correlation_id, throttle_ms, share };
    let writes = match writes {
        ProduceWrites::Later(_) => writes,
        ProduceWrites::AtHand(written) => match written.at_hand() {
            Ok(outcomes) => return Ok(Answer::Now(answer.reply(&context.link.metrics, &mut topics, outcomes))),
            // Followers are to have them.
            Err(written) => ProduceWrites::AtHand(written),
        },
    };
    // A task of its own: the memory is given back when the disk has the batches, whether or not
    // anybody still waits for the answer, or takes the ones before it.
    let (sender, receiver) = oneshot();
    let here_since = Rc::new(Cell::new(None));
    let since = here_since.clone();
    spawn_local(async move {
        let outcomes = async {
            let written = writes.written().await;
            drop(permit);
            since.set(Some(Moment::now()));
            written.outcomes().await
        };
        sender.send(waits::traced(outcomes).await);
    });
    let context = session.context;
    Ok(Answer::Later(Box::pin(async move {
        let settled = async {
            let (outcomes, notes) = receiver.recv().await.unwrap_or_default();
            waits::merge(notes);
            outcomes
        };
        let outcomes = match acks {
            Acks::All => match clock::by(received.after(timeout), settled).await {
                Some(outcomes) => outcomes,
                None => {
                    let (cause, since) = match here_since.get() {
                        Some(since) => (Cause::Followers, since),
                        None => (Cause::Device, appended),
                    };
                    waits::note(cause, Moment::now().ns_since(since));
                    timed_out(count)
                }
            },
            Acks::None | Acks::Leader => settled.await,
        };
        answer.reply(&context.link.metrics, &mut topics, outcomes)
    })))
}

/// Parts of the answer to a request that has written something, besides the outcomes.
struct Answering {
    acks: Acks,
    version: i16,
    correlation_id: i32,
    throttle_ms: i32,
    share: Option<Share>,
}

impl Answering {
    /// To be called when the batches are acknowledged and the connection takes the answer.
    fn reply(self, metrics: &ShardMetrics, topics: &mut Topics, outcomes: Vec<ProduceOutcome>) -> Reply {
        take_outcomes(topics, outcomes);
        note_errors(metrics, topics);
        reply(self.acks, self.version, self.correlation_id, topics, self.throttle_ms).held(self.share)
    }
}

/// When a produce request is answered (`acks`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Acks {
    /// 0: not at all.
    None,
    /// 1: written by the leader.
    Leader,
    /// -1: written by all in-sync replicas.
    All,
}

fn timed_out(count: usize) -> Vec<ProduceOutcome> {
    let outcome = ProduceOutcome {
        error: ErrorCode::RequestTimedOut,
        message: Some("the batch was not acknowledged within the request's timeout".into()),
        bad_records: Vec::new(),
        base_offset: -1,
        log_append_time_ms: -1,
        log_start_offset: -1,
    };
    vec![outcome; count]
}

/// The batches for the shard, and the response with places for the outcomes: those without an
/// error, in the same order.
fn split_request(
    image: &MetadataImage,
    version: i16,
    acks_valid: bool,
    writes_internal: bool,
    request: ProduceRequest,
) -> (Topics, Vec<ProducePart>) {
    let mut parts = Vec::with_capacity(request.topics.iter().map(|topic| topic.partitions.len()).sum());
    let mut topics = Vec::with_capacity(request.topics.len());
    let refusal =
        if !acks_valid { Some((ErrorCode::InvalidRequiredAcks, None)) } else { refused_transactions(&request) };
    for ProduceTopic { topic: key, partitions } in request.topics {
        let topic = find_topic(image, &key);
        let mut places = Vec::with_capacity(partitions.len());
        for ProducePartition { index, records } in partitions {
            let checked = match (refusal, topic) {
                (Some(refusal), _) => Err(refusal),
                (None, Err(code)) => Err((code, None)),
                (None, Ok(topic)) => find_partition(topic, index).map_err(|code| (code, None)),
            };
            let part = checked.and_then(|partition| {
                let records = records.filter(|records| !records.is_empty());
                let records = records.ok_or((ErrorCode::InvalidRecord, Some("there is no record batch")))?;
                check_version(version, &records)?;
                if topic.is_ok_and(|topic| is_internal(&topic.name)) && !writes_internal {
                    return Err((ErrorCode::InvalidTopicException, Some(INTERNAL)));
                }
                Ok(ProducePart { partition, records })
            });
            places.push(match part {
                Ok(part) => {
                    parts.push(part);
                    place(index, ErrorCode::None, None)
                }
                Err((code, message)) => place(index, code, message),
            });
        }
        // The answer may wait for long behind others; the request's records must not wait with it.
        topics.push((key.detached(), places));
    }
    (topics, parts)
}

/// Why all of a request is refused whose records belong to transactions.
fn refused_transactions(request: &ProduceRequest) -> Option<(ErrorCode, Option<&'static str>)> {
    let mut producer = None;
    for partition in request.topics.iter().flat_map(|topic| &topic.partitions) {
        let header = partition.records.as_ref().and_then(|records| BatchHeader::peek(records));
        let Some(header) = header.filter(|header| header.magic == 2 && header.is_transactional()) else { continue };
        if request.transactional_id.is_none() {
            return Some((ErrorCode::TransactionalIdAuthorizationFailed, Some(NO_TRANSACTIONAL_ID)));
        }
        let of = (header.producer_id.get(), header.producer_epoch.get());
        if *producer.get_or_insert(of) != of {
            return Some((ErrorCode::InvalidProducerIdMapping, Some(TWO_PRODUCERS)));
        }
    }
    None
}

/// Checks a batch by the request's version; the partition checks the batch itself.
fn check_version(version: i16, records: &[u8]) -> Result<(), (ErrorCode, Option<&'static str>)> {
    match BatchHeader::peek(records) {
        Some(header) if header.magic == 2 && version < ZSTD_FROM && header.codec() == Some(Codec::Zstd) => {
            Err((ErrorCode::UnsupportedCompressionType, Some("zstd needs Produce v7 or later")))
        }
        _ => Ok(()),
    }
}

fn place(index: i32, error: ErrorCode, message: Option<&str>) -> ProducePartitionResponse {
    ProducePartitionResponse {
        index,
        error,
        base_offset: -1,
        log_append_time_ms: -1,
        log_start_offset: -1,
        record_errors: Vec::new(),
        error_message: message.map(str::to_owned),
    }
}

/// Puts the outcomes into their places.
fn take_outcomes(topics: &mut Topics, outcomes: Vec<ProduceOutcome>) {
    let places = topics.iter_mut().flat_map(|(_, places)| places);
    merge_outcomes(
        places,
        |place| &mut place.error,
        outcomes,
        |place, outcome| {
            place.error = outcome.error;
            place.base_offset = outcome.base_offset;
            place.log_append_time_ms = outcome.log_append_time_ms;
            place.log_start_offset = outcome.log_start_offset;
            place.record_errors = outcome.bad_records;
            place.error_message = outcome.message;
        },
    );
}

fn note_errors(metrics: &ShardMetrics, topics: &Topics) {
    for place in topics.iter().flat_map(|(_, places)| places).filter(|place| place.error != ErrorCode::None) {
        metrics.api(ApiKey::Produce as i16).note_error(place.error.code());
    }
}

/// With acks=0 nobody listens: an error can only be told by closing the connection, as Kafka does.
fn reply(acks: Acks, version: i16, correlation_id: i32, topics: &Topics, throttle_ms: i32) -> Reply {
    if acks != Acks::None {
        return Reply::Frame(encode_response(version, correlation_id, topics, throttle_ms));
    }
    let failed = topics.iter().flat_map(|(_, places)| places).any(|place| place.error != ErrorCode::None);
    if failed { Reply::Close } else { Reply::Nothing }
}

#[cfg(test)]
mod tests {
    use super::super::shared::testing::{id_of, image};
    use super::*;
    use crate::model::record_batch::HEADER_BYTES;
    use bytes::{Buf, Bytes};
    use kafka_protocol::messages::ProduceResponse;
    use kafka_protocol::protocol::Decodable;

    fn batch(attributes: u8) -> Bytes {
        let mut bytes = vec![0; HEADER_BYTES + 10];
        bytes[16] = 2;
        bytes[22] = attributes;
        bytes.into()
    }

    fn name(text: &'static str) -> TopicKey {
        TopicKey::Name(Bytes::from_static(text.as_bytes()))
    }

    type Sent = Vec<(i32, Option<Bytes>)>;

    /// By a client like any other.
    fn split_request(
        image: &MetadataImage,
        version: i16,
        acks: bool,
        request: ProduceRequest,
    ) -> (Topics, Vec<ProducePart>) {
        super::split_request(image, version, acks, false, request)
    }

    fn request(topics: Vec<(TopicKey, Sent)>) -> ProduceRequest {
        let topics = topics.into_iter().map(|(topic, partitions)| ProduceTopic {
            topic,
            partitions: partitions.into_iter().map(|(index, records)| ProducePartition { index, records }).collect(),
        });
        ProduceRequest { transactional_id: None, acks: -1, timeout_ms: 1000, topics: topics.collect() }
    }

    fn errors(topics: &Topics) -> Vec<Vec<ErrorCode>> {
        topics.iter().map(|(_, places)| places.iter().map(|place| place.error).collect()).collect()
    }

    fn outcome(base_offset: i64) -> ProduceOutcome {
        ProduceOutcome {
            error: ErrorCode::None,
            message: None,
            bad_records: Vec::new(),
            base_offset,
            log_append_time_ms: -1,
            log_start_offset: 0,
        }
    }

    #[test]
    fn outcomes_find_their_places_among_errors() {
        let image = image(&[("a", 1, 2), ("b", 2, 1)]);
        let asked = request(vec![
            (TopicKey::Id(id_of(1)), vec![(0, Some(batch(0))), (2, Some(batch(0))), (1, Some(batch(0)))]),
            (TopicKey::Id(id_of(9)), vec![(0, Some(batch(0)))]),
            (TopicKey::Id(id_of(2)), vec![(0, None), (0, Some(batch(0))), (0, Some(Bytes::new()))]),
        ]);
        let (mut topics, parts) = split_request(&image, 13, true, asked);
        let ids: Vec<_> = parts.iter().map(|p| (p.partition.topic.as_u128(), p.partition.index.0)).collect();
        assert_eq!(ids, [(1, 0), (1, 1), (2, 0)]);
        take_outcomes(&mut topics, vec![outcome(100), outcome(200), outcome(300)]);
        use ErrorCode::{InvalidRecord, UnknownTopicId, UnknownTopicOrPartition};
        let expected = [
            vec![ErrorCode::None, UnknownTopicOrPartition, ErrorCode::None],
            vec![UnknownTopicId],
            vec![InvalidRecord, ErrorCode::None, InvalidRecord],
        ];
        assert_eq!(errors(&topics), expected);

        let Reply::Frame(mut frame) = reply(Acks::All, 13, 9, &topics, 70) else { panic!("a response") };
        frame.advance(9);
        let decoded = ProduceResponse::decode(&mut frame, 13).unwrap();
        assert!(frame.is_empty());
        let offsets: Vec<Vec<(i32, i16, i64)>> = decoded
            .responses
            .iter()
            .map(|t| t.partition_responses.iter().map(|p| (p.index, p.error_code, p.base_offset)).collect())
            .collect();
        assert_eq!(
            offsets,
            [
                vec![(0, 0, 100), (2, 3, -1), (1, 0, 200)],
                vec![(0, 100, -1)],
                vec![(0, 87, -1), (0, 0, 300), (0, 87, -1)]
            ]
        );
    }

    #[test]
    fn an_outcome_that_is_missing_is_an_error_and_never_an_acknowledgement() {
        let asked = request(vec![(name("a"), vec![(0, Some(batch(0))), (1, Some(batch(0)))])]);
        let (mut topics, _) = split_request(&image(&[("a", 1, 2)]), 9, true, asked);
        take_outcomes(&mut topics, vec![outcome(5)]);
        assert_eq!(errors(&topics), [[ErrorCode::None, ErrorCode::UnknownServerError]]);
    }

    #[test]
    fn wrong_acks_are_refused_in_every_partition() {
        let image = image(&[("a", 1, 1)]);
        let asked = || request(vec![(name("a"), vec![(0, Some(batch(0))), (5, Some(batch(0)))])]);
        let (topics, parts) = split_request(&image, 9, false, asked());
        assert_eq!((errors(&topics), parts.len()), (vec![vec![ErrorCode::InvalidRequiredAcks; 2]], 0));
    }

    #[test]
    fn transactions_have_an_id_and_one_producer_a_request() {
        let image = image(&[("a", 1, 2)]);
        let of = |producer_id: u8| {
            let mut batch = batch(0x10).to_vec();
            batch[43 + 7] = producer_id;
            Some(Bytes::from(batch))
        };
        let sent = |transactional_id: Option<&str>, second| {
            let request = request(vec![(name("a"), vec![(0, of(7)), (1, second)])]);
            let request = ProduceRequest { transactional_id: transactional_id.map(str::to_owned), ..request };
            let (topics, parts) = split_request(&image, 9, true, request);
            (errors(&topics), parts.len())
        };
        let refused = |code| (vec![vec![code; 2]], 0);
        assert_eq!(sent(None, of(7)), refused(ErrorCode::TransactionalIdAuthorizationFailed));
        assert_eq!(sent(Some("tx"), of(8)), refused(ErrorCode::InvalidProducerIdMapping));
        assert_eq!(sent(Some("tx"), of(7)), (vec![vec![ErrorCode::None; 2]], 2));
        assert_eq!(sent(Some("tx"), Some(batch(0))), (vec![vec![ErrorCode::None; 2]], 2));
    }

    #[test]
    fn only_kafkas_tools_write_to_kafkas_topics() {
        let image = image(&[("a", 1, 1), ("__consumer_offsets", 2, 1), ("__transaction_state", 3, 1)]);
        let asked = |version: i16| {
            let key = |text: &'static str, id: u128| if version >= 13 { TopicKey::Id(id_of(id)) } else { name(text) };
            let topics = [key("a", 1), key("__consumer_offsets", 2), key("__transaction_state", 3)];
            request(topics.into_iter().map(|topic| (topic, vec![(0, Some(batch(0)))])).collect())
        };
        for version in API.min..=API.max {
            let (topics, parts) = super::split_request(&image, version, true, false, asked(version));
            let invalid = vec![ErrorCode::InvalidTopicException];
            assert_eq!(errors(&topics), [vec![ErrorCode::None], invalid.clone(), invalid]);
            assert_eq!(parts.len(), 1);
            let (_, parts) = super::split_request(&image, version, true, true, asked(version));
            assert_eq!(parts.len(), 3, "v{version}");
        }
    }

    #[test]
    fn zstd_needs_version_7() {
        let image = image(&[("a", 1, 1)]);
        let asked = || request(vec![(name("a"), vec![(0, Some(batch(4)))])]);
        assert_eq!(errors(&split_request(&image, 6, true, asked()).0), [[ErrorCode::UnsupportedCompressionType]]);
        assert_eq!(split_request(&image, 7, true, asked()).1.len(), 1);
    }

    #[test]
    fn without_acks_success_is_silent_and_failure_closes() {
        let image = image(&[("a", 1, 1)]);
        let (mut good, _) = split_request(&image, 9, true, request(vec![(name("a"), vec![(0, Some(batch(0)))])]));
        take_outcomes(&mut good, vec![outcome(1)]);
        assert!(matches!(reply(Acks::None, 9, 1, &good, 0), Reply::Nothing));
        let (bad, _) = split_request(&image, 9, true, request(vec![(name("a"), vec![(3, Some(batch(0)))])]));
        assert!(matches!(reply(Acks::None, 9, 1, &bad, 0), Reply::Close));
        let (wrong_acks, _) = split_request(&image, 9, false, request(vec![(name("a"), vec![(0, Some(batch(0)))])]));
        assert!(matches!(reply(Acks::All, 9, 1, &wrong_acks, 0), Reply::Frame(_)), "acks=7 is told");
    }
}
