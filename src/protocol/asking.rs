//! Produce and Fetch from the other end: the requests as a client writes them, the responses as it
//! reads them, with topics by name. What comes in is not trusted; nothing is allocated for it but
//! the list of aborted transactions.

use bytes::Bytes;
use kafka_protocol::messages::ApiKey;

use super::frame::Malformed;
use super::wire::{Reader, Writer};

/// Versions this file speaks; from 13 on both name topics by id.
pub const PRODUCE_VERSIONS: (i16, i16) = (3, 12);
pub const FETCH_VERSIONS: (i16, i16) = (4, 12);

const PRODUCE_FLEXIBLE_FROM: i16 = 9;
const FETCH_FLEXIBLE_FROM: i16 = 12;
/// Where every request frame has its correlation id.
const CORRELATION_AT: usize = 8;

/// Sender of a request, and its version.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    pub client_id: &'a str,
    pub version: i16,
}

/// Bytes around one partition's records in a Produce request that carries nothing else.
#[derive(Clone, Debug)]
pub struct ProduceEnvelope {
    head: Vec<u8>,
    tail: Bytes,
}

impl ProduceEnvelope {
    /// For batches of exactly `record_bytes` in all. `version`: one of [`PRODUCE_VERSIONS`].
    pub fn new(
        caller: Caller<'_>,
        acks: i16,
        timeout_ms: i32,
        (topic, partition): (&str, i32),
        record_bytes: usize,
    ) -> ProduceEnvelope {
        let flexible = caller.version >= PRODUCE_FLEXIBLE_FROM;
        let api = (ApiKey::Produce as i16, caller.version);
        let mut writer = Writer::request(topic.len() + 40, api, 0, caller.client_id, flexible);
        writer.nullable_string(None); // transactional_id
        writer.int16(acks);
        writer.int32(timeout_ms);
        writer.count(1);
        writer.string(topic);
        writer.count(1);
        writer.int32(partition);
        writer.count(record_bytes);
        // Tagged fields of the partition, the topic and the request.
        let tail = if flexible { Bytes::from_static(&[0; 3]) } else { Bytes::new() };
        let head = writer.frame(record_bytes + tail.len()).to_vec();
        ProduceEnvelope { head, tail }
    }

    /// Bytes to send before and after the records.
    pub fn around(&self, correlation_id: i32) -> (Vec<u8>, Bytes) {
        let mut head = self.head.clone();
        head[CORRELATION_AT..CORRELATION_AT + 4].copy_from_slice(&correlation_id.to_be_bytes());
        (head, self.tail.clone())
    }
}

/// A whole Produce frame. `batches`: one of each partition.
pub fn produce_request(
    caller: Caller<'_>,
    correlation_id: i32,
    acks: i16,
    timeout_ms: i32,
    topic: &str,
    batches: &[(i32, Bytes)],
) -> Bytes {
    let flexible = caller.version >= PRODUCE_FLEXIBLE_FROM;
    let api = (ApiKey::Produce as i16, caller.version);
    let capacity = topic.len() + 40 + batches.iter().map(|(_, batch)| batch.len() + 10).sum::<usize>();
    let mut writer = Writer::request(capacity, api, correlation_id, caller.client_id, flexible);
    writer.nullable_string(None); // transactional_id
    writer.int16(acks);
    writer.int32(timeout_ms);
    writer.count(1);
    writer.string(topic);
    writer.count(batches.len());
    for (partition, batch) in batches {
        writer.int32(*partition);
        writer.bytes(batch);
        writer.no_tagged_fields();
    }
    writer.no_tagged_fields();
    writer.no_tagged_fields();
    writer.frame(0)
}

/// One partition of a Produce response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Produced<'a> {
    pub partition: i32,
    pub error_code: i16,
    pub base_offset: i64,
    /// The broker's own words (from version 8 on).
    pub message: Option<&'a [u8]>,
    /// Of the first bad record: its place in the batch, and the broker's words.
    pub record_error: Option<(i32, Option<&'a [u8]>)>,
}

/// Reads the response's frame from its correlation id on.
pub fn read_produce_response<'a>(
    version: i16,
    frame: &'a [u8],
    each: impl FnMut(Produced<'a>),
) -> Result<(), Malformed> {
    produce_response(version, frame, each).map_err(|e| e.in_response("Produce", version))
}

fn produce_response<'a>(version: i16, frame: &'a [u8], mut each: impl FnMut(Produced<'a>)) -> Result<(), Malformed> {
    let mut reader = Reader::new(frame, version >= PRODUCE_FLEXIBLE_FROM);
    reader.int32("the correlation id")?;
    reader.skip_tagged_fields()?;
    for _ in 0..reader.array(3, "the topics")? {
        reader.string("a topic name")?;
        for _ in 0..reader.array(22, "a topic's partitions")? {
            let partition = reader.int32("a partition index")?;
            let error_code = reader.int16("a partition's error")?;
            let base_offset = reader.int64("a partition's base offset")?;
            reader.int64("a partition's append time")?;
            if version >= 5 {
                reader.int64("a partition's log start offset")?;
            }
            let (mut message, mut record_error) = (None, None);
            if version >= 8 {
                for _ in 0..reader.array(5, "a partition's record errors")? {
                    let index = reader.int32("a record's index")?;
                    let words = reader.nullable_string("a record's error")?.map(|range| reader.bytes_of(range));
                    record_error = record_error.or(Some((index, words)));
                    reader.skip_tagged_fields()?;
                }
                message = reader.nullable_string("a partition's error message")?.map(|range| reader.bytes_of(range));
            }
            reader.skip_tagged_fields()?;
            each(Produced { partition, error_code, base_offset, message, record_error });
        }
        reader.skip_tagged_fields()?;
    }
    reader.int32("the throttle time")?;
    reader.skip_tagged_fields()?;
    reader.finish()
}

/// Which records a consumer sees (`isolation.level`, KIP-98).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    #[default]
    ReadUncommitted = 0,
    ReadCommitted = 1,
}

/// The limits of a Fetch request.
#[derive(Clone, Copy, Debug)]
pub struct FetchLimits {
    pub max_wait_ms: i32,
    pub min_bytes: i32,
    pub max_bytes: i32,
    pub partition_max_bytes: i32,
    pub isolation: Isolation,
}

/// A whole Fetch frame outside any session. `partitions`: index and offset.
pub fn fetch_request(
    caller: Caller<'_>,
    correlation_id: i32,
    limits: FetchLimits,
    topic: &str,
    partitions: impl ExactSizeIterator<Item = (i32, i64)>,
) -> Bytes {
    let version = caller.version;
    let flexible = version >= FETCH_FLEXIBLE_FROM;
    let api = (ApiKey::Fetch as i16, version);
    let capacity = topic.len() + 60 + partitions.len() * 33;
    let mut writer = Writer::request(capacity, api, correlation_id, caller.client_id, flexible);
    writer.int32(-1); // replica_id: a consumer
    writer.int32(limits.max_wait_ms);
    writer.int32(limits.min_bytes);
    writer.int32(limits.max_bytes);
    writer.int8(limits.isolation as i8);
    if version >= 7 {
        writer.int32(0); // session_id
        writer.int32(-1); // session_epoch: no session
    }
    writer.count(1);
    writer.string(topic);
    writer.count(partitions.len());
    for (partition, offset) in partitions {
        writer.int32(partition);
        if version >= 9 {
            writer.int32(-1); // current_leader_epoch
        }
        writer.int64(offset);
        if version >= 12 {
            writer.int32(-1); // last_fetched_epoch
        }
        if version >= 5 {
            writer.int64(-1); // log_start_offset
        }
        writer.int32(limits.partition_max_bytes);
        writer.no_tagged_fields();
    }
    writer.no_tagged_fields();
    if version >= 7 {
        writer.count(0); // forgotten_topics_data
    }
    if version >= 11 {
        writer.string(""); // rack_id
    }
    writer.no_tagged_fields();
    writer.frame(0)
}

/// One partition of a Fetch response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched<'a> {
    pub partition: i32,
    pub error_code: i16,
    pub high_watermark: i64,
    /// Transactions that were aborted, told to those who read committed records:
    /// producer id and first offset.
    pub aborted: Vec<(i64, i64)>,
    /// Batches; the last may be cut off.
    pub records: &'a [u8],
}

/// Reads the response's frame from its correlation id on; returns the error of the whole response.
pub fn read_fetch_response<'a>(version: i16, frame: &'a [u8], each: impl FnMut(Fetched<'a>)) -> Result<i16, Malformed> {
    fetch_response(version, frame, each).map_err(|e| e.in_response("Fetch", version))
}

fn fetch_response<'a>(version: i16, frame: &'a [u8], mut each: impl FnMut(Fetched<'a>)) -> Result<i16, Malformed> {
    let mut reader = Reader::new(frame, version >= FETCH_FLEXIBLE_FROM);
    reader.int32("the correlation id")?;
    reader.skip_tagged_fields()?;
    reader.int32("the throttle time")?;
    let mut error = 0;
    if version >= 7 {
        error = reader.int16("the error")?;
        reader.int32("the session id")?;
    }
    for _ in 0..reader.array(3, "the topics")? {
        reader.string("a topic name")?;
        for _ in 0..reader.array(24, "a topic's partitions")? {
            let partition = reader.int32("a partition index")?;
            let error_code = reader.int16("a partition's error")?;
            let high_watermark = reader.int64("a partition's high watermark")?;
            reader.int64("a partition's last stable offset")?;
            if version >= 5 {
                reader.int64("a partition's log start offset")?;
            }
            let mut aborted = Vec::new();
            for _ in 0..reader.nullable_array(16, "the aborted transactions")?.unwrap_or(0) {
                aborted.push((reader.int64("a producer id")?, reader.int64("a first offset")?));
                reader.skip_tagged_fields()?;
            }
            if version >= 11 {
                reader.int32("the preferred read replica")?;
            }
            let range = reader.nullable_bytes("a partition's records")?;
            reader.skip_tagged_fields()?;
            let records = range.map_or(&[][..], |range| reader.bytes_of(range));
            each(Fetched { partition, error_code, high_watermark, aborted, records });
        }
        reader.skip_tagged_fields()?;
    }
    reader.skip_tagged_fields()?;
    reader.finish()?;
    Ok(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ErrorCode;
    use crate::protocol::{TopicKey, fetch, parse_header, produce};

    const BATCH: &[u8] = b"stands for a batch";

    /// The body of a request's frame, its header checked.
    fn body(frame: Bytes, flexible: bool, version: i16, id: i32) -> Bytes {
        assert_eq!(i32::from_be_bytes(frame[..4].try_into().unwrap()) as usize, frame.len() - 4);
        let (header, start) = parse_header(&frame[4..], flexible).unwrap();
        assert_eq!((header.version, header.correlation_id, header.client_id), (version, id, Some(&b"me"[..])));
        frame.slice(4 + start..)
    }

    fn name() -> TopicKey {
        TopicKey::Name(Bytes::from_static(b"topic"))
    }

    #[test]
    fn produce_is_read_by_the_broker_and_its_answer_here_in_every_version() {
        for version in PRODUCE_VERSIONS.0..=PRODUCE_VERSIONS.1 {
            let caller = Caller { client_id: "me", version };
            let envelope = ProduceEnvelope::new(caller, -1, 5000, ("topic", 7), BATCH.len());
            let (head, tail) = envelope.around(99);
            let frame = Bytes::from([&head[..], BATCH, &tail].concat());
            let single = produce::Single { acks: -1, topic: b"topic", partition: 7 };
            assert_eq!(produce::peek_single(version, &head[4..], frame.len() - 4), Some(single));
            assert_eq!(produce::peek_single(version, &head[4..], frame.len() - 3), None);
            for cut in 4..head.len() {
                assert_eq!(produce::peek_single(version, &head[4..cut], frame.len() - 4), None);
            }
            let read = produce::decode(version, body(frame, version >= PRODUCE_FLEXIBLE_FROM, version, 99)).unwrap();
            assert_eq!((read.acks, read.timeout_ms, &read.topics[0].topic), (-1, 5000, &name()));
            let partition = &read.topics[0].partitions[0];
            assert_eq!((partition.index, partition.records.as_deref()), (7, Some(BATCH)));

            let whole = produce_request(caller, 99, -1, 5000, "topic", &[(7, Bytes::from_static(BATCH))]);
            assert_eq!(whole, [&head[..], BATCH, &tail].concat(), "v{version}");

            let answer = produce::ProducePartitionResponse {
                index: 7,
                error: ErrorCode::CorruptMessage,
                base_offset: 42,
                log_append_time_ms: -1,
                log_start_offset: 0,
                record_errors: Vec::new(),
                error_message: Some("why".into()),
            };
            let frame = produce::encode_response(version, 99, &[(name(), vec![answer])], 0);
            let mut seen = Vec::new();
            read_produce_response(version, &frame[4..], |produced| seen.push(produced)).unwrap();
            let message = (version >= 8).then_some(&b"why"[..]);
            let expected = Produced { partition: 7, error_code: 2, base_offset: 42, message, record_error: None };
            assert_eq!(seen, [expected], "v{version}");
            for cut in 4..frame.len() {
                assert!(read_produce_response(version, &frame[4..cut], |_| ()).is_err(), "v{version} cut at {cut}");
            }
        }
    }

    #[test]
    fn fetch_is_read_by_the_broker_and_its_answer_here_in_every_version() {
        let isolation = Isolation::ReadCommitted;
        let limits = FetchLimits { max_wait_ms: 1, min_bytes: 2, max_bytes: 3, partition_max_bytes: 4, isolation };
        for version in FETCH_VERSIONS.0..=FETCH_VERSIONS.1 {
            let caller = Caller { client_id: "me", version };
            let frame = fetch_request(caller, 5, limits, "topic", [(0, 10), (1, 20)].into_iter());
            let read = fetch::decode(version, body(frame, version >= FETCH_FLEXIBLE_FROM, version, 5)).unwrap();
            assert_eq!((read.max_wait_ms, read.min_bytes, read.max_bytes), (1, 2, 3));
            assert_eq!((read.session_id, read.session_epoch, read.replica_id), (0, -1, -1));
            let places: Vec<_> = read.topics[0].partitions.iter().map(|p| (p.index, p.fetch_offset)).collect();
            assert_eq!((&read.topics[0].topic, places), (&name(), vec![(0, 10), (1, 20)]));

            let answer = fetch::FetchPartitionResponse {
                index: 1,
                error: ErrorCode::None,
                high_watermark: 30,
                last_stable_offset: 30,
                log_start_offset: 0,
                aborted: None,
                records: vec![Bytes::from_static(BATCH)],
                diverging: None,
                preferred_replica: None,
            };
            let frame =
                fetch::encode_response(version, 5, 0, ErrorCode::None, 0, vec![(name(), vec![answer])]).concat();
            let mut seen = Vec::new();
            assert_eq!(read_fetch_response(version, &frame[4..], |fetched| seen.push(fetched)).unwrap(), 0);
            let (aborted, records) = (Vec::new(), BATCH);
            assert_eq!(seen, [Fetched { partition: 1, error_code: 0, high_watermark: 30, aborted, records }]);
            for cut in 4..frame.len() {
                assert!(read_fetch_response(version, &frame[4..cut], |_| ()).is_err(), "v{version} cut at {cut}");
            }
        }
    }
}
