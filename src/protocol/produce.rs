//! Produce requests and responses, versions 3 to 13. Records stay where they arrived: a partition's
//! records are a slice of the request's frame.

use bytes::Bytes;

use super::frame::{Malformed, check_version, parse_header};
use super::wire::{Reader, Writer};
use crate::model::ErrorCode;
use crate::model::records::BadRecord;

pub use super::topic_key::TopicKey;

pub const MIN_VERSION: i16 = 3;
pub const MAX_VERSION: i16 = 13;
/// Response header v1, compact encodings and tagged fields from here on.
const FLEXIBLE_FROM: i16 = 9;
/// Topics by id instead of by name from here on.
const TOPIC_IDS_FROM: i16 = 13;

/// Topics and partitions that a request may name whatever its size, and bytes
/// that each further one needs.
const FREE_ELEMENTS: usize = 128;
const BYTES_PER_ELEMENT: usize = 32;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProduceRequest {
    pub transactional_id: Option<String>,
    /// 0, 1 or -1; any other value is the handler's to refuse.
    pub acks: i16,
    pub timeout_ms: i32,
    pub topics: Vec<ProduceTopic>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProduceTopic {
    pub topic: TopicKey,
    pub partitions: Vec<ProducePartition>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducePartition {
    pub index: i32,
    /// `None`: null, which Kafka answers with an error of the partition.
    pub records: Option<Bytes>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducePartitionResponse {
    pub index: i32,
    pub error: ErrorCode,
    /// -1 with an error.
    pub base_offset: i64,
    /// -1 unless the topic uses LogAppendTime.
    pub log_append_time_ms: i64,
    pub log_start_offset: i64,
    /// From version 8 on.
    pub record_errors: Vec<BadRecord>,
    /// From version 8 on.
    pub error_message: Option<String>,
}

/// Decodes the request's body, all of it.
pub fn decode(version: i16, body: Bytes) -> Result<ProduceRequest, Malformed> {
    read(version, &body).map_err(|e| e.in_request("Produce", version))
}

fn read(version: i16, body: &Bytes) -> Result<ProduceRequest, Malformed> {
    check_version(version, MIN_VERSION, MAX_VERSION)?;
    let flexible = version >= FLEXIBLE_FROM;
    let by_id = version >= TOPIC_IDS_FROM;
    // The least that a topic and a partition take: name or id, count, tagged fields;
    // index, length, tagged fields.
    let (topic_bytes, partition_bytes) = if flexible { (if by_id { 18 } else { 3 }, 6) } else { (6, 8) };

    // A partition with a batch takes at least 61 bytes; more partitions than such a
    // request can hold have none, and would cost far more memory than the bytes that the
    // connection was charged for.
    let mut reader = Reader::with_elements(body, flexible, FREE_ELEMENTS + body.len() / BYTES_PER_ELEMENT);
    let transactional_id = reader.nullable_text("the transactional id")?.map(str::to_owned);
    let acks = reader.int16("acks")?;
    let timeout_ms = reader.int32("the timeout")?;
    let topic_count = reader.array(topic_bytes, "the topics")?;
    let mut topics = Vec::with_capacity(topic_count);
    for _ in 0..topic_count {
        let topic = TopicKey::read(&mut reader, body, by_id)?;
        let partition_count = reader.array(partition_bytes, "a topic's partitions")?;
        let mut partitions = Vec::with_capacity(partition_count);
        for _ in 0..partition_count {
            let index = reader.int32("a partition index")?;
            let records = reader.nullable_bytes("a partition's records")?.map(|range| body.slice(range));
            reader.skip_tagged_fields()?;
            partitions.push(ProducePartition { index, records });
        }
        reader.skip_tagged_fields()?;
        topics.push(ProduceTopic { topic, partitions });
    }
    reader.skip_tagged_fields()?;
    Ok(ProduceRequest { transactional_id, acks, timeout_ms, topics })
}

/// A request for one partition only, as its first bytes tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Single<'a> {
    pub acks: i16,
    pub topic: &'a [u8],
    pub partition: i32,
}

/// For those who do not read the records. `head`: the frame's first bytes, from the api key
/// on, of `frame_bytes` in all; version below 13. `None`: it is another kind of request, or
/// more of it is needed to tell.
pub fn peek_single(version: i16, head: &[u8], frame_bytes: usize) -> Option<Single<'_>> {
    if !(MIN_VERSION..TOPIC_IDS_FROM).contains(&version) {
        return None;
    }
    let flexible = version >= FLEXIBLE_FROM;
    let (_, body) = parse_header(head, flexible).ok()?;
    let mut reader = Reader::new(head.get(body..)?, flexible);
    reader.nullable_string("the transactional id").ok()?;
    let acks = reader.int16("acks").ok()?;
    reader.int32("the timeout").ok()?;
    if reader.array(1, "the topics").ok()? != 1 {
        return None;
    }
    let topic = reader.string("a topic name").ok()?;
    if reader.array(1, "a topic's partitions").ok()? != 1 {
        return None;
    }
    let partition = reader.int32("a partition index").ok()?;
    let (record_bytes, tail) = if flexible {
        (reader.unsigned_varint("the records' length").ok()?.checked_sub(1)?, 3)
    } else {
        (u32::try_from(reader.int32("the records' length").ok()?).ok()?, 0)
    };
    let told = body + reader.position() + usize::try_from(record_bytes).ok()? + tail;
    // Other tagged fields than none make it another kind of request.
    (told == frame_bytes).then(|| Single { acks, topic: reader.bytes_of(topic), partition })
}

/// The whole frame: length, response header, body.
pub fn encode_response(
    version: i16,
    correlation_id: i32,
    topics: &[(TopicKey, Vec<ProducePartitionResponse>)],
    throttle_ms: i32,
) -> Bytes {
    let by_id = version >= TOPIC_IDS_FROM;
    let capacity = topics.iter().map(|(key, partitions)| {
        let messages = partitions.iter().flat_map(|p| {
            let bad = p.record_errors.iter().map(|bad| &bad.message);
            p.error_message.iter().chain(bad).map(|text| text.len() + 8)
        });
        key.wire_bytes() + 6 + partitions.len() * 37 + messages.sum::<usize>()
    });
    let mut writer = Writer::response(10 + capacity.sum::<usize>(), correlation_id, version >= FLEXIBLE_FROM);
    writer.count(topics.len());
    for (key, partitions) in topics {
        key.write(&mut writer, by_id);
        writer.count(partitions.len());
        for partition in partitions {
            write_partition(&mut writer, version, partition);
        }
        writer.no_tagged_fields();
    }
    writer.int32(throttle_ms);
    writer.no_tagged_fields();
    writer.frame(0)
}

fn write_partition(writer: &mut Writer, version: i16, partition: &ProducePartitionResponse) {
    writer.int32(partition.index);
    writer.int16(partition.error.code());
    writer.int64(partition.base_offset);
    writer.int64(partition.log_append_time_ms);
    if version >= 5 {
        writer.int64(partition.log_start_offset);
    }
    if version >= 8 {
        writer.count(partition.record_errors.len());
        for bad in &partition.record_errors {
            writer.int32(bad.index);
            writer.nullable_string(Some(&bad.message));
            writer.no_tagged_fields();
        }
        writer.nullable_string(partition.error_message.as_deref());
    }
    writer.no_tagged_fields();
}
