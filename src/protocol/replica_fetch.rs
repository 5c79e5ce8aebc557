//! Fetch from a follower's end: the requests as a replica writes them, the answers as it
//! reads them. Topics go by id, and the answer's records are slices of its frame. What
//! comes in is not trusted.

use bytes::Bytes;
use kafka_protocol::messages::ApiKey;
use uuid::Uuid;

use super::frame::Malformed;
use super::wire::{Reader, Writer};
use crate::model::{BrokerId, ErrorCode, PartitionId};

/// The version that brokers speak among each other: topic ids (KIP-516), the
/// replica's incarnation (KIP-903).
pub const VERSION: i16 = 17;

const REPLICA_STATE_TAG: u32 = 1;
const DIVERGING_EPOCH_TAG: u32 = 0;
const CURRENT_LEADER_TAG: u32 = 1;
/// Replica id, epoch and the count of further tags.
const REPLICA_STATE_BYTES: u32 = 4 + 8 + 1;
/// The least that a partition of an answer takes: index, error, three offsets, aborted
/// transactions, preferred replica, records, tags.
const ANSWER_BYTES: usize = 4 + 2 + 3 * 8 + 1 + 4 + 1 + 1;

/// A follower's request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaFetch {
    pub replica: BrokerId,
    /// Number of the replica's registration.
    pub broker_epoch: i64,
    pub max_wait_ms: u32,
    pub min_bytes: u32,
    pub max_bytes: u32,
    /// KIP-227: 0 and 0 ask for a new session.
    pub session_id: i32,
    pub session_epoch: i32,
    /// In the order of their ids: those of one topic side by side.
    pub partitions: Vec<ReplicaPlace>,
    /// Taken out of the session. In the order of their ids.
    pub forgotten: Vec<PartitionId>,
}

/// The place in one partition from which to fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaPlace {
    pub partition: PartitionId,
    pub leader_epoch: i32,
    pub offset: i64,
    /// Epoch of the record before `offset`; `None`: there is none.
    pub last_epoch: Option<i32>,
    pub log_start: i64,
    pub max_bytes: u32,
}

/// A leader's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaAnswer {
    /// Of the whole request.
    pub error: ErrorCode,
    /// 0: there is no session.
    pub session_id: i32,
    pub partitions: Vec<PartitionAnswer>,
}

/// The part of an answer about one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionAnswer {
    pub partition: PartitionId,
    pub error: ErrorCode,
    pub high_watermark: i64,
    /// -1: not told.
    pub log_start: i64,
    /// Where the leader's log has other records (KIP-595): its largest epoch up to the one asked
    /// for, and that epoch's end.
    pub diverging: Option<(i32, i64)>,
    /// The leader and its epoch, where the answering broker knows better.
    pub current_leader: Option<(i32, i32)>,
    /// Batches, back to back.
    pub records: Bytes,
}

impl ReplicaFetch {
    /// The whole frame.
    pub fn encode(&self, correlation_id: i32, client_id: &str) -> Bytes {
        let capacity = 80 + self.partitions.len() * 52 + self.forgotten.len() * 24;
        let mut writer = Writer::request(capacity, (ApiKey::Fetch as i16, VERSION), correlation_id, client_id, true);
        writer.int32(wire_int(self.max_wait_ms));
        writer.int32(wire_int(self.min_bytes));
        writer.int32(wire_int(self.max_bytes));
        writer.int8(0); // isolation_level: read_uncommitted
        writer.int32(self.session_id);
        writer.int32(self.session_epoch);
        let topics: Vec<_> = self.partitions.chunk_by(|a, b| a.partition.topic == b.partition.topic).collect();
        writer.count(topics.len());
        for places in topics {
            write_topic(&mut writer, places, |place| place.partition.topic, write_place);
        }
        let forgotten: Vec<_> = self.forgotten.chunk_by(|a, b| a.topic == b.topic).collect();
        writer.count(forgotten.len());
        for gone in forgotten {
            write_topic(&mut writer, gone, |id| id.topic, |writer, id| writer.int32(id.index.0));
        }
        writer.string(""); // rack_id
        writer.unsigned_varint(1);
        writer.unsigned_varint(REPLICA_STATE_TAG);
        writer.unsigned_varint(REPLICA_STATE_BYTES);
        writer.int32(self.replica.0);
        writer.int64(self.broker_epoch);
        writer.no_tagged_fields();
        writer.frame(0)
    }
}

fn wire_int(value: u32) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

/// A topic's id, and each of its parts.
fn write_topic<T>(writer: &mut Writer, parts: &[T], topic: impl Fn(&T) -> Uuid, each: impl Fn(&mut Writer, &T)) {
    writer.uuid(parts.first().map(topic).unwrap_or_default());
    writer.count(parts.len());
    parts.iter().for_each(|part| each(writer, part));
    writer.no_tagged_fields();
}

fn write_place(writer: &mut Writer, place: &ReplicaPlace) {
    writer.int32(place.partition.index.0);
    writer.int32(place.leader_epoch);
    writer.int64(place.offset);
    writer.int32(place.last_epoch.unwrap_or(-1));
    writer.int64(place.log_start);
    writer.int32(wire_int(place.max_bytes));
    writer.no_tagged_fields();
}

/// Reads an answer's frame from its correlation id on.
pub fn decode_answer(frame: &Bytes) -> Result<ReplicaAnswer, Malformed> {
    read_answer(frame).map_err(|error| error.in_response("Fetch", VERSION))
}

fn read_answer(frame: &Bytes) -> Result<ReplicaAnswer, Malformed> {
    let mut reader = Reader::new(frame, true);
    reader.int32("the correlation id")?;
    reader.skip_tagged_fields()?;
    reader.int32("the throttle time")?;
    let error = error_code(reader.int16("the error")?);
    let session_id = reader.int32("the session id")?;
    let mut partitions = Vec::new();
    // Of each topic its id, a count and tags.
    for _ in 0..reader.array(18, "the topics")? {
        let topic = reader.uuid("a topic id")?;
        let count = reader.array(ANSWER_BYTES, "a topic's partitions")?;
        partitions.reserve(count);
        for _ in 0..count {
            partitions.push(read_partition(&mut reader, frame, topic)?);
        }
        reader.skip_tagged_fields()?;
    }
    reader.skip_tagged_fields()?;
    reader.finish()?;
    Ok(ReplicaAnswer { error, session_id, partitions })
}

fn read_partition(reader: &mut Reader<'_>, frame: &Bytes, topic: Uuid) -> Result<PartitionAnswer, Malformed> {
    let index = reader.int32("a partition index")?;
    let error = error_code(reader.int16("a partition's error")?);
    let high_watermark = reader.int64("a partition's high watermark")?;
    reader.int64("a partition's last stable offset")?;
    let log_start = reader.int64("a partition's log start offset")?;
    for _ in 0..reader.nullable_array(17, "the aborted transactions")?.unwrap_or(0) {
        reader.int64("a producer id")?;
        reader.int64("a first offset")?;
        reader.skip_tagged_fields()?;
    }
    reader.int32("the preferred read replica")?;
    let records = reader.nullable_bytes("a partition's records")?;
    let (mut diverging, mut current_leader) = (None, None);
    reader.tagged_fields(|tag, bytes| {
        match tag {
            DIVERGING_EPOCH_TAG => diverging = Some(read_diverging(bytes)?),
            CURRENT_LEADER_TAG => current_leader = Some(read_leader(bytes)?),
            _ => {}
        }
        Ok(())
    })?;
    Ok(PartitionAnswer {
        partition: PartitionId::new(topic, index),
        error,
        high_watermark,
        log_start,
        // -1 in both is how a leader may say that there is none.
        diverging: diverging.filter(|(epoch, end)| *epoch >= 0 && *end >= 0),
        current_leader: current_leader.filter(|(leader, _)| *leader >= 0),
        records: records.map_or(Bytes::new(), |range| frame.slice(range)),
    })
}

fn read_diverging(bytes: &[u8]) -> Result<(i32, i64), Malformed> {
    let mut reader = Reader::new(bytes, true);
    let read = (reader.int32("the diverging epoch")?, reader.int64("the diverging epoch's end")?);
    reader.skip_tagged_fields()?;
    reader.finish()?;
    Ok(read)
}

fn read_leader(bytes: &[u8]) -> Result<(i32, i32), Malformed> {
    let mut reader = Reader::new(bytes, true);
    let read = (reader.int32("the current leader")?, reader.int32("the current leader's epoch")?);
    reader.skip_tagged_fields()?;
    reader.finish()?;
    Ok(read)
}

/// Errors that a follower tells apart; any other is UNKNOWN_SERVER_ERROR.
fn error_code(code: i16) -> ErrorCode {
    use ErrorCode::*;
    const TOLD_APART: [ErrorCode; 14] = [
        None,
        OffsetOutOfRange,
        CorruptMessage,
        UnknownTopicOrPartition,
        NotLeaderOrFollower,
        KafkaStorageError,
        FetchSessionIdNotFound,
        InvalidFetchSessionEpoch,
        FencedLeaderEpoch,
        UnknownLeaderEpoch,
        OffsetNotAvailable,
        UnknownTopicId,
        InconsistentTopicId,
        FetchSessionTopicIdError,
    ];
    TOLD_APART.into_iter().find(|error| error.code() == code).unwrap_or(UnknownServerError)
}

/// The leader's end, for tests here and above.
#[cfg(test)]
#[path = "replica_fetch_leader.rs"]
pub mod leaders_end;

#[cfg(test)]
mod tests {
    use bytes::{BufMut, BytesMut};

    use super::leaders_end::{read_request, write_answer};
    use super::*;

    fn id(topic: u128, index: i32) -> PartitionId {
        PartitionId::new(Uuid::from_u128(topic), index)
    }

    #[test]
    fn a_request_is_what_kafkas_schema_says() {
        let place = |partition, offset, last_epoch| ReplicaPlace {
            partition,
            leader_epoch: 7,
            offset,
            last_epoch,
            log_start: 3,
            max_bytes: 1 << 20,
        };
        let asked = ReplicaFetch {
            replica: BrokerId(3),
            broker_epoch: 1 << 40,
            max_wait_ms: 500,
            min_bytes: 1,
            max_bytes: i32::MAX as u32,
            session_id: 11,
            session_epoch: 12,
            partitions: vec![place(id(1, 0), 40, Some(6)), place(id(1, 4), 0, None), place(id(2, 0), 9, Some(0))],
            forgotten: vec![id(1, 1), id(1, 2), id(3, 0)],
        };
        let frame = asked.encode(99, "follower");
        assert_eq!(i32::from_be_bytes(frame[..4].try_into().unwrap()) as usize, frame.len() - 4);
        assert_eq!(read_request(&frame.slice(4..)), (99, asked.clone()));
        let idle = ReplicaFetch { partitions: Vec::new(), forgotten: Vec::new(), max_bytes: u32::MAX, ..asked };
        let frame = idle.encode(0, "follower");
        assert!(frame.len() < 90, "{} bytes", frame.len());
        assert_eq!(read_request(&frame.slice(4..)), (0, ReplicaFetch { max_bytes: i32::MAX as u32, ..idle }));
    }

    fn answer() -> ReplicaAnswer {
        let quiet = |partition| PartitionAnswer {
            partition,
            error: ErrorCode::None,
            high_watermark: 30,
            log_start: 5,
            diverging: None,
            current_leader: None,
            records: Bytes::new(),
        };
        let partitions = vec![
            PartitionAnswer { records: Bytes::from_static(b"batches"), ..quiet(id(1, 0)) },
            quiet(id(1, 4)),
            PartitionAnswer { diverging: Some((3, 22)), ..quiet(id(2, 1)) },
            PartitionAnswer { error: ErrorCode::NotLeaderOrFollower, current_leader: Some((2, 9)), ..quiet(id(2, 2)) },
        ];
        ReplicaAnswer { error: ErrorCode::None, session_id: 11, partitions }
    }

    /// As the connection hands it over.
    fn frame(answer: &ReplicaAnswer) -> Bytes {
        write_answer(5, answer).slice(4..)
    }

    #[test]
    fn an_answer_is_read_as_kafkas_schema_says() {
        let frame = frame(&answer());
        let read = decode_answer(&frame).unwrap();
        assert_eq!(read, answer());
        assert!(frame.as_ptr_range().contains(&read.partitions[0].records.as_ptr()), "records are copied");
        let failed =
            ReplicaAnswer { error: ErrorCode::InvalidFetchSessionEpoch, session_id: 0, partitions: Vec::new() };
        assert_eq!(decode_answer(&self::frame(&failed)).unwrap(), failed);
        let unknown = ReplicaAnswer { error: ErrorCode::PolicyViolation, ..failed };
        assert_eq!(decode_answer(&self::frame(&unknown)).unwrap().error, ErrorCode::UnknownServerError);
    }

    #[test]
    fn what_is_cut_or_longer_is_refused() {
        let frame = frame(&answer());
        for cut in 0..frame.len() {
            assert!(decode_answer(&frame.slice(..cut)).is_err(), "cut at {cut}");
        }
        let mut longer = BytesMut::from(&frame[..]);
        longer.put_u8(0);
        assert!(decode_answer(&longer.freeze()).is_err());
    }

    #[test]
    fn damaged_answers_are_read_or_refused_without_a_panic() {
        let frame = frame(&answer());
        let mut state = 88_172_645_463_325_252_u64;
        let mut below = |bound: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % bound as u64) as usize
        };
        for _ in 0..20_000 {
            let mut damaged = BytesMut::from(&frame[..]);
            for _ in 0..1 + below(3) {
                let at = below(damaged.len());
                damaged[at] = below(256) as u8;
            }
            let _ = decode_answer(&damaged.freeze());
        }
    }
}
