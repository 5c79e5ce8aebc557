//! Fetch requests and responses, versions 4 to 18. A response is a list of slices: what this file
//! writes, cut where the records belong, and the records themselves, uncopied.

use bytes::Bytes;

use super::frame::{Malformed, check_version};
use super::wire::{Reader, Writer};
use crate::config::MAX_BATCH_BYTES;
use crate::model::ErrorCode;

pub use super::topic_key::TopicKey;

pub const MIN_VERSION: i16 = 4;
pub const MAX_VERSION: i16 = 18;
/// Response header v1, compact encodings and tagged fields from here on.
const FLEXIBLE_FROM: i16 = 12;
/// Topics by id instead of by name from here on.
const TOPIC_IDS_FROM: i16 = 13;
/// The replica id moved into the tagged field `replica_state` here (KIP-903).
const REPLICA_STATE_FROM: i16 = 15;
const REPLICA_STATE_TAG: u32 = 1;
const DIVERGING_EPOCH_TAG: u32 = 0;

/// Record bytes in one response; what does not fit is sent as empty, to be fetched again. Far above
/// any sensible `fetch.max.bytes`: it only keeps the frame's length within 32 bits.
const MAX_RECORD_BYTES: usize = 2_000_000_000;
const _: () = assert!(MAX_RECORD_BYTES < i32::MAX as usize && MAX_BATCH_BYTES as usize <= MAX_RECORD_BYTES);

/// An aborted transaction in a response: producer, first offset, tagged fields.
pub const ABORTED_BYTES: usize = 17;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchRequest {
    pub max_wait_ms: i32,
    pub min_bytes: i32,
    pub max_bytes: i32,
    /// 0: read_uncommitted, 1: read_committed.
    pub isolation_level: i8,
    /// 0: no session yet (KIP-227).
    pub session_id: i32,
    /// -1: no session wanted, 0: a new one.
    pub session_epoch: i32,
    pub topics: Vec<FetchTopic>,
    pub forgotten: Vec<ForgottenTopic>,
    /// `None` before v11; a consumer without a rack sends "".
    pub rack_id: Option<String>,
    /// A follower's broker id; -1: a consumer; -2: a reader of any replica, up to its end.
    pub replica_id: i32,
    /// A follower's broker epoch (KIP-903); -1: it does not say.
    pub replica_epoch: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchTopic {
    pub topic: TopicKey,
    pub partitions: Vec<FetchPartition>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchPartition {
    pub index: i32,
    /// -1: the client does not know it.
    pub current_leader_epoch: i32,
    pub fetch_offset: i64,
    /// -1: none, or a consumer that does not check for divergence.
    pub last_fetched_epoch: i32,
    /// The follower's; -1 from a consumer.
    pub log_start_offset: i64,
    pub max_bytes: i32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForgottenTopic {
    pub topic: TopicKey,
    pub partitions: Vec<i32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchPartitionResponse {
    pub index: i32,
    pub error: ErrorCode,
    pub high_watermark: i64,
    pub last_stable_offset: i64,
    pub log_start_offset: i64,
    /// To a reader of committed transactions: producer and first offset of those among the
    /// records that were aborted.
    pub aborted: Option<Vec<(i64, i64)>>,
    /// Whole batches, in order; together the partition's records.
    pub records: Vec<Bytes>,
    /// To a follower whose log is another: the largest epoch up to its last one that the leader
    /// knows, and that epoch's end (KIP-595).
    pub diverging: Option<(i32, i64)>,
    /// Broker from whose replica the consumer should read instead (KIP-392); versions
    /// below 11 do not tell it.
    pub preferred_replica: Option<i32>,
}

/// Decodes the request's body, all of it.
pub fn decode(version: i16, body: Bytes) -> Result<FetchRequest, Malformed> {
    read(version, &body).map_err(|e| e.in_request("Fetch", version))
}

fn read(version: i16, body: &Bytes) -> Result<FetchRequest, Malformed> {
    check_version(version, MIN_VERSION, MAX_VERSION)?;
    let mut reader = Reader::new(body, version >= FLEXIBLE_FROM);
    let mut replica_id = if version < REPLICA_STATE_FROM { reader.int32("the replica id")? } else { -1 };
    let mut replica_epoch = -1;
    let max_wait_ms = reader.int32("max_wait_ms")?;
    let min_bytes = reader.int32("min_bytes")?;
    let max_bytes = reader.int32("max_bytes")?;
    let isolation_level = reader.int8("the isolation level")?;
    let (session_id, session_epoch) =
        if version >= 7 { (reader.int32("the session id")?, reader.int32("the session epoch")?) } else { (0, -1) };
    let topics = read_topics(&mut reader, version, body)?;
    let forgotten = if version >= 7 { read_forgotten(&mut reader, version, body)? } else { Vec::new() };
    let rack_id = if version >= 11 { Some(reader.text("the rack id")?.to_owned()) } else { None };
    // Tag 0 is the cluster id, which brokers do not look at.
    reader.tagged_fields(|tag, bytes| {
        if tag == REPLICA_STATE_TAG && version >= REPLICA_STATE_FROM {
            (replica_id, replica_epoch) = read_replica_state(bytes)?;
        }
        Ok(())
    })?;
    Ok(FetchRequest {
        max_wait_ms,
        min_bytes,
        max_bytes,
        isolation_level,
        session_id,
        session_epoch,
        topics,
        forgotten,
        rack_id,
        replica_id,
        replica_epoch,
    })
}

fn read_topics(reader: &mut Reader<'_>, version: i16, body: &Bytes) -> Result<Vec<FetchTopic>, Malformed> {
    let count = reader.array(topic_bytes(version), "the topics")?;
    let mut topics = Vec::with_capacity(count);
    for _ in 0..count {
        let topic = TopicKey::read(reader, body, version >= TOPIC_IDS_FROM)?;
        let partition_count = reader.array(partition_bytes(version), "a topic's partitions")?;
        let mut partitions = Vec::with_capacity(partition_count);
        for _ in 0..partition_count {
            partitions.push(read_partition(reader, version)?);
        }
        reader.skip_tagged_fields()?;
        topics.push(FetchTopic { topic, partitions });
    }
    Ok(topics)
}

fn read_partition(reader: &mut Reader<'_>, version: i16) -> Result<FetchPartition, Malformed> {
    let partition = FetchPartition {
        index: reader.int32("a partition index")?,
        current_leader_epoch: if version >= 9 { reader.int32("a partition's leader epoch")? } else { -1 },
        fetch_offset: reader.int64("a partition's fetch offset")?,
        last_fetched_epoch: if version >= 12 { reader.int32("a partition's last fetched epoch")? } else { -1 },
        log_start_offset: if version >= 5 { reader.int64("a partition's log start offset")? } else { -1 },
        max_bytes: reader.int32("a partition's max_bytes")?,
    };
    // Tag 0, from v17, is the follower's log directory id (KIP-853), which only a KRaft voter has;
    // tag 1, from v18, the high watermark that it knows (KIP-1166).
    reader.skip_tagged_fields()?;
    Ok(partition)
}

fn read_forgotten(reader: &mut Reader<'_>, version: i16, body: &Bytes) -> Result<Vec<ForgottenTopic>, Malformed> {
    let count = reader.array(topic_bytes(version), "the forgotten topics")?;
    let mut forgotten = Vec::with_capacity(count);
    for _ in 0..count {
        let topic = TopicKey::read(reader, body, version >= TOPIC_IDS_FROM)?;
        let partition_count = reader.array(4, "a forgotten topic's partitions")?;
        let mut partitions = Vec::with_capacity(partition_count);
        for _ in 0..partition_count {
            partitions.push(reader.int32("a partition index")?);
        }
        reader.skip_tagged_fields()?;
        forgotten.push(ForgottenTopic { topic, partitions });
    }
    Ok(forgotten)
}

/// The replica's id and its broker epoch.
fn read_replica_state(bytes: &[u8]) -> Result<(i32, i64), Malformed> {
    let read = || {
        let mut reader = Reader::new(bytes, true);
        let replica_id = reader.int32("the replica id")?;
        let replica_epoch = reader.int64("the replica epoch")?;
        reader.skip_tagged_fields()?;
        reader.finish()?;
        Ok((replica_id, replica_epoch))
    };
    read().map_err(|e: Malformed| Malformed(format!("in the tagged field replica_state, {e}")))
}

/// The least that a topic takes: name or id, count, tagged fields.
fn topic_bytes(version: i16) -> usize {
    match version {
        TOPIC_IDS_FROM.. => 18,
        FLEXIBLE_FROM.. => 3,
        _ => 6,
    }
}

/// The least that a partition takes.
fn partition_bytes(version: i16) -> usize {
    match version {
        12.. => 33,
        9.. => 28,
        5.. => 24,
        _ => 16,
    }
}

/// The whole response as slices in the order to send them: length, header and fields in one buffer,
/// cut between the record slices, which are passed on uncopied. Before v7 there is no place for
/// `error` and `session_id`: the caller puts an error into every partition instead.
pub fn encode_response(
    version: i16,
    correlation_id: i32,
    throttle_time_ms: i32,
    error: ErrorCode,
    session_id: i32,
    topics: Vec<(TopicKey, Vec<FetchPartitionResponse>)>,
) -> Vec<Bytes> {
    let partition_count = topics.iter().map(|(_, partitions)| partitions.len()).sum::<usize>();
    let aborted = topics.iter().flat_map(|(_, partitions)| partitions).flat_map(|partition| &partition.aborted);
    let aborted_bytes = aborted.map(Vec::len).sum::<usize>() * ABORTED_BYTES;
    let capacity =
        18 + aborted_bytes + partition_count * 48 + topics.iter().map(|(key, _)| key.wire_bytes() + 6).sum::<usize>();
    let mut writer = Writer::response(capacity, correlation_id, version >= FLEXIBLE_FROM);
    writer.int32(throttle_time_ms);
    if version >= 7 {
        writer.int16(error.code());
        writer.int32(session_id);
    }
    // Where each partition's records belong in what the writer wrote.
    let mut cuts: Vec<(usize, Vec<Bytes>)> = Vec::with_capacity(partition_count);
    let mut record_bytes = 0;
    let mut slices = 1;
    writer.count(topics.len());
    for (key, partitions) in topics {
        key.write(&mut writer, version >= TOPIC_IDS_FROM);
        writer.count(partitions.len());
        for partition in partitions {
            let mut bytes = partition.records.iter().map(Bytes::len).sum::<usize>();
            if record_bytes + bytes > MAX_RECORD_BYTES {
                bytes = 0;
            }
            write_partition(&mut writer, version, &partition, bytes);
            if bytes > 0 {
                record_bytes += bytes;
                slices += partition.records.len() + 1;
                cuts.push((writer.out.len(), partition.records));
            }
            match partition.diverging.filter(|_| version >= FLEXIBLE_FROM) {
                Some(diverging) => write_diverging(&mut writer, diverging),
                None => writer.no_tagged_fields(),
            }
        }
        writer.no_tagged_fields();
    }
    writer.no_tagged_fields();
    interleave(writer.frame(record_bytes), cuts, slices)
}

/// Everything of a partition before its records.
fn write_partition(writer: &mut Writer, version: i16, partition: &FetchPartitionResponse, record_bytes: usize) {
    writer.int32(partition.index);
    writer.int16(partition.error.code());
    writer.int64(partition.high_watermark);
    writer.int64(partition.last_stable_offset);
    if version >= 5 {
        writer.int64(partition.log_start_offset);
    }
    writer.nullable_count(partition.aborted.as_ref().map(Vec::len));
    for (producer_id, first_offset) in partition.aborted.iter().flatten() {
        writer.int64(*producer_id);
        writer.int64(*first_offset);
        writer.no_tagged_fields();
    }
    if version >= 11 {
        writer.int32(partition.preferred_replica.unwrap_or(-1));
    }
    // Empty, never null: some clients take null for a broken response.
    writer.count(record_bytes);
}

/// The tagged field `diverging_epoch`, as the only one.
fn write_diverging(writer: &mut Writer, (epoch, end): (i32, i64)) {
    writer.unsigned_varint(1);
    writer.unsigned_varint(DIVERGING_EPOCH_TAG);
    writer.unsigned_varint(13);
    writer.int32(epoch);
    writer.int64(end);
    writer.no_tagged_fields();
}

fn interleave(fields: Bytes, cuts: Vec<(usize, Vec<Bytes>)>, slices: usize) -> Vec<Bytes> {
    let mut out = Vec::with_capacity(slices);
    let mut from = 0;
    for (cut, records) in cuts {
        if cut > from {
            out.push(fields.slice(from..cut));
        }
        out.extend(records.into_iter().filter(|slice| !slice.is_empty()));
        from = cut;
    }
    if from < fields.len() {
        out.push(fields.slice(from..));
    }
    out
}
