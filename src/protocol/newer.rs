//! Versions of Kafka 4.3 that the crate `kafka-protocol`, made from the definitions of 4.1, does
//! not have: ListOffsets 11 (KIP-1023), OffsetCommit and OffsetFetch 10 (topics by id, KIP-848),
//! DescribeLogDirs 5 (`is_cordoned`, KIP-1066).

use std::borrow::Cow;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::describe_log_dirs_response::DescribeLogDirsResult;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use kafka_protocol::messages::{
    ApiKey, DescribeLogDirsRequest, DescribeLogDirsResponse, GroupId, ListOffsetsRequest, ListOffsetsResponse,
    OffsetCommitRequest, OffsetFetchRequest,
};
use kafka_protocol::protocol::{Encodable, Message, StrBytes};

use super::frame::Malformed;
use super::guard::RequestBody;
use super::respond::ResponseBody;
use super::wire::Reader;

/// A message of the crate, in its newest version of Kafka 4.3 too.
#[derive(Clone, Debug, PartialEq)]
pub struct Newer<T>(pub T);

/// Version 11 brings a further special timestamp; the bytes are those of version 10.
impl RequestBody for Newer<ListOffsetsRequest> {
    fn read(version: i16, body: &mut Bytes) -> Result<Self, String> {
        RequestBody::read(version.min(ListOffsetsRequest::VERSIONS.max), body).map(Newer)
    }
}

impl ResponseBody for Newer<ListOffsetsResponse> {
    fn bytes(&self, version: i16) -> Result<usize, String> {
        ResponseBody::bytes(&self.0, version.min(ListOffsetsResponse::VERSIONS.max))
    }

    fn write(&self, version: i16, out: &mut BytesMut) -> Result<(), String> {
        ResponseBody::write(&self.0, version.min(ListOffsetsResponse::VERSIONS.max), out)
    }
}

/// Version 5 differs in its response only.
impl RequestBody for Newer<DescribeLogDirsRequest> {
    fn read(version: i16, body: &mut Bytes) -> Result<Self, String> {
        RequestBody::read(version.min(DescribeLogDirsRequest::VERSIONS.max), body).map(Newer)
    }
}

const CORDONED_FROM: i16 = 5;

/// The tagged field that says in the crate's type, which has no other place for it, that a
/// directory is cordoned. It never goes over the wire.
const CORDONED_TAG: i32 = 0;

/// Notes whether the directory gets new partitions (KIP-1066). Told from version 5 on.
pub fn set_cordoned(dir: &mut DescribeLogDirsResult, cordoned: bool) {
    dir.unknown_tagged_fields.clear();
    if cordoned {
        dir.unknown_tagged_fields.insert(CORDONED_TAG, Bytes::new());
    }
}

/// As [`set_cordoned`] has noted it, or a broker has told it.
pub fn is_cordoned(dir: &DescribeLogDirsResult) -> bool {
    dir.unknown_tagged_fields.contains_key(&CORDONED_TAG)
}

fn without_tags(response: &DescribeLogDirsResponse) -> Cow<'_, DescribeLogDirsResponse> {
    if response.results.iter().all(|dir| dir.unknown_tagged_fields.is_empty()) {
        return Cow::Borrowed(response);
    }
    let mut response = response.clone();
    response.results.iter_mut().for_each(|dir| dir.unknown_tagged_fields.clear());
    Cow::Owned(response)
}

impl ResponseBody for Newer<DescribeLogDirsResponse> {
    fn bytes(&self, version: i16) -> Result<usize, String> {
        let newest = DescribeLogDirsResponse::VERSIONS.max;
        let flags = if version >= CORDONED_FROM { self.0.results.len() } else { 0 };
        ResponseBody::bytes(&*without_tags(&self.0), version.min(newest)).map(|bytes| bytes + flags)
    }

    fn write(&self, version: i16, out: &mut BytesMut) -> Result<(), String> {
        let plain = without_tags(&self.0);
        if version < CORDONED_FROM {
            return ResponseBody::write(&*plain, version, out);
        }
        out.put_i32(plain.throttle_time_ms);
        out.put_i16(plain.error_code);
        put_count(out, plain.results.len());
        for (dir, told) in plain.results.iter().zip(&self.0.results) {
            dir.encode(out, CORDONED_FROM - 1).map_err(|e| e.to_string())?;
            // The new field takes the place of the count of tagged fields, which there are none of.
            out.truncate(out.len() - 1);
            out.put_u8(u8::from(is_cordoned(told)));
            out.put_u8(0);
        }
        out.put_u8(0);
        Ok(())
    }
}

/// The version in which the crate reads this response, of which the guard has taken the measure;
/// `body` is brought there.
pub(super) fn older_response(api: ApiKey, version: i16, body: &mut Bytes) -> Result<i16, Malformed> {
    if api != ApiKey::DescribeLogDirs || version < CORDONED_FROM {
        return Ok(version);
    }
    let mut reader = Reader::new(body, true);
    let (mut out, mut copied) = (BytesMut::with_capacity(body.len()), 0);
    reader.int32("throttle_time_ms")?;
    reader.int16("error_code")?;
    for _ in 0..reader.array(1, "results")? {
        reader.int16("error_code")?;
        reader.string("log_dir")?;
        for _ in 0..reader.array(1, "topics")? {
            reader.string("name")?;
            for _ in 0..reader.array(1, "partitions")? {
                reader.skip(4 + 8 + 8 + 1, "partitions")?;
                reader.skip_tagged_fields()?;
            }
            reader.skip_tagged_fields()?;
        }
        reader.skip(8 + 8, "total_bytes and usable_bytes")?;
        out.put_slice(&body[copied..reader.position()]);
        match reader.int8("is_cordoned")? {
            0 => out.put_u8(0),
            // One tagged field, and its bytes, which are none.
            _ => out.put_slice(&[1, CORDONED_TAG as u8, 0]),
        }
        reader.skip_tagged_fields()?;
        copied = reader.position();
    }
    out.put_slice(&body[copied..]);
    *body = out.freeze();
    Ok(CORDONED_FROM - 1)
}

/// The count before the elements of a compact array.
fn put_count(out: &mut BytesMut, count: usize) {
    let mut value = count + 1;
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

const TOPIC_IDS_FROM: i16 = 10;

/// From version 10 on topics have an id and no name.
impl RequestBody for Newer<OffsetCommitRequest> {
    fn read(version: i16, body: &mut Bytes) -> Result<Self, String> {
        if version < TOPIC_IDS_FROM {
            return RequestBody::read(version, body).map(Newer);
        }
        read_all(body, offset_commit)
    }
}

impl RequestBody for Newer<OffsetFetchRequest> {
    fn read(version: i16, body: &mut Bytes) -> Result<Self, String> {
        if version < TOPIC_IDS_FROM {
            return RequestBody::read(version, body).map(Newer);
        }
        read_all(body, offset_fetch)
    }
}

/// Reads `body` in the flexible encoding, and leaves in it what follows. Texts are slices of it.
fn read_all<T>(
    body: &mut Bytes,
    read: impl FnOnce(&mut Reader<'_>, &Bytes) -> Result<T, Malformed>,
) -> Result<Newer<T>, String> {
    let whole = body.clone();
    let mut reader = Reader::new(&whole, true);
    let request = read(&mut reader, &whole).map_err(|e| e.0)?;
    body.advance(reader.position());
    Ok(Newer(request))
}

fn offset_commit(reader: &mut Reader<'_>, body: &Bytes) -> Result<OffsetCommitRequest, Malformed> {
    let request = OffsetCommitRequest::default()
        .with_group_id(GroupId(text(reader, body, "group_id")?))
        .with_generation_id_or_member_epoch(reader.int32("generation_id_or_member_epoch")?)
        .with_member_id(text(reader, body, "member_id")?)
        .with_group_instance_id(nullable_text(reader, body, "group_instance_id")?);
    let mut topics = Vec::new();
    for _ in 0..reader.array(18, "topics")? {
        let topic_id = reader.uuid("topic_id")?;
        let count = reader.array(18, "partitions")?;
        let mut partitions = Vec::with_capacity(count);
        for _ in 0..count {
            let partition = OffsetCommitRequestPartition::default()
                .with_partition_index(reader.int32("partition_index")?)
                .with_committed_offset(reader.int64("committed_offset")?)
                .with_committed_leader_epoch(reader.int32("committed_leader_epoch")?)
                .with_committed_metadata(nullable_text(reader, body, "committed_metadata")?);
            reader.skip_tagged_fields()?;
            partitions.push(partition);
        }
        reader.skip_tagged_fields()?;
        topics.push(OffsetCommitRequestTopic::default().with_topic_id(topic_id).with_partitions(partitions));
    }
    reader.skip_tagged_fields()?;
    Ok(request.with_topics(topics))
}

fn offset_fetch(reader: &mut Reader<'_>, body: &Bytes) -> Result<OffsetFetchRequest, Malformed> {
    let mut groups = Vec::new();
    for _ in 0..reader.array(8, "groups")? {
        let group = OffsetFetchRequestGroup::default()
            .with_group_id(GroupId(text(reader, body, "group_id")?))
            .with_member_id(nullable_text(reader, body, "member_id")?)
            .with_member_epoch(reader.int32("member_epoch")?);
        let topics = match reader.nullable_array(18, "topics")? {
            Some(count) => Some((0..count).map(|_| offset_fetch_topic(reader)).collect::<Result<_, _>>()?),
            None => None,
        };
        reader.skip_tagged_fields()?;
        groups.push(group.with_topics(topics));
    }
    let require_stable = reader.int8("require_stable")? != 0;
    reader.skip_tagged_fields()?;
    Ok(OffsetFetchRequest::default().with_groups(groups).with_require_stable(require_stable))
}

fn offset_fetch_topic(reader: &mut Reader<'_>) -> Result<OffsetFetchRequestTopics, Malformed> {
    let topic_id = reader.uuid("topic_id")?;
    let count = reader.array(4, "partition_indexes")?;
    let indexes = (0..count).map(|_| reader.int32("partition_indexes")).collect::<Result<_, _>>()?;
    reader.skip_tagged_fields()?;
    Ok(OffsetFetchRequestTopics::default().with_topic_id(topic_id).with_partition_indexes(indexes))
}

fn text(reader: &mut Reader<'_>, body: &Bytes, what: &str) -> Result<StrBytes, Malformed> {
    let range = reader.string(what)?;
    StrBytes::try_from(body.slice(range)).map_err(|_| reader.error(what, "is not UTF-8"))
}

fn nullable_text(reader: &mut Reader<'_>, body: &Bytes, what: &str) -> Result<Option<StrBytes>, Malformed> {
    let Some(range) = reader.nullable_string(what)? else { return Ok(None) };
    StrBytes::try_from(body.slice(range)).map(Some).map_err(|_| reader.error(what, "is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::describe_log_dirs_response::{DescribeLogDirsPartition, DescribeLogDirsTopic};
    use uuid::Uuid;

    use super::*;
    use crate::protocol::{guard, respond};

    fn compact(out: &mut BytesMut, text: Option<&str>) {
        match text {
            Some(text) => {
                put_count(out, text.len());
                out.put_slice(text.as_bytes());
            }
            None => out.put_u8(0),
        }
    }

    /// Tag 200 with two bytes, which nobody knows.
    const TAGGED: &[u8] = &[1, 0xc8, 0x01, 2, 7, 7];

    #[test]
    fn commits_of_version_10_name_topics_by_id() {
        let ids = [Uuid::from_u128(7), Uuid::nil()];
        let mut body = BytesMut::new();
        for (given, tags) in [(Some("i"), &[0][..]), (None, TAGGED)] {
            body.clear();
            compact(&mut body, Some("gruppe-ä"));
            body.put_i32(3);
            compact(&mut body, Some("m"));
            compact(&mut body, given);
            put_count(&mut body, ids.len());
            for id in ids {
                body.put_slice(id.as_bytes());
                put_count(&mut body, 2);
                for (index, metadata) in [(0, Some("note")), (9, None)] {
                    body.put_i32(index);
                    body.put_i64(100 + i64::from(index));
                    body.put_i32(4);
                    compact(&mut body, metadata);
                    body.put_slice(tags);
                }
                body.put_slice(tags);
            }
            body.put_slice(tags);
            let whole = body.clone().freeze();
            let mut trailed = [&whole[..], b"xyz"].concat().into();
            let Newer(read) =
                guard::decode::<Newer<OffsetCommitRequest>>(ApiKey::OffsetCommit, 10, &mut trailed).unwrap();
            let head = (&*read.group_id.0, read.generation_id_or_member_epoch, &*read.member_id);
            assert_eq!(head, ("gruppe-ä", 3, "m"));
            assert_eq!((read.group_instance_id.as_deref(), read.retention_time_ms), (given, -1));
            assert_eq!(read.topics.iter().map(|topic| topic.topic_id).collect::<Vec<_>>(), ids);
            for topic in &read.topics {
                let rows = topic.partitions.iter().map(|p| {
                    (p.partition_index, p.committed_offset, p.committed_leader_epoch, p.committed_metadata.as_deref())
                });
                assert_eq!(rows.collect::<Vec<_>>(), [(0, 100, 4, Some("note")), (9, 109, 4, None)]);
            }
            for cut in 0..whole.len() {
                let cut = &mut whole.slice(..cut);
                assert!(guard::decode::<Newer<OffsetCommitRequest>>(ApiKey::OffsetCommit, 10, cut).is_err());
                assert!(Newer::<OffsetCommitRequest>::read(10, cut).is_err());
            }
            let spoilt = whole.iter().map(|byte| if *byte == b'g' { 0xff } else { *byte });
            let mut spoilt = spoilt.collect::<Bytes>();
            assert!(guard::decode::<Newer<OffsetCommitRequest>>(ApiKey::OffsetCommit, 10, &mut spoilt).is_err());
        }
    }

    #[test]
    fn fetches_of_version_10_name_topics_by_id() {
        let id = Uuid::from_u128(7);
        let mut body = BytesMut::new();
        put_count(&mut body, 2);
        compact(&mut body, Some("g"));
        compact(&mut body, Some("m"));
        body.put_i32(5);
        put_count(&mut body, 1);
        body.put_slice(id.as_bytes());
        put_count(&mut body, 2);
        body.put_i32(1);
        body.put_i32(-1);
        body.put_slice(TAGGED);
        body.put_slice(&[0]);
        compact(&mut body, Some("h"));
        compact(&mut body, None);
        body.put_i32(-1);
        body.put_slice(&[0, 0]); // all topics
        body.put_i8(1);
        body.put_slice(TAGGED);
        let whole = body.freeze();
        let Newer(read) =
            guard::decode::<Newer<OffsetFetchRequest>>(ApiKey::OffsetFetch, 10, &mut whole.clone()).unwrap();
        assert!(read.require_stable);
        let [first, second] = &read.groups[..] else { panic!("{} groups", read.groups.len()) };
        assert_eq!((&*first.group_id.0, first.member_id.as_deref(), first.member_epoch), ("g", Some("m"), 5));
        let topics = first.topics.as_ref().unwrap();
        assert_eq!((topics.len(), topics[0].topic_id, &topics[0].partition_indexes[..]), (1, id, &[1, -1][..]));
        assert_eq!((&*second.group_id.0, &second.member_id, second.member_epoch), ("h", &None, -1));
        assert_eq!(second.topics, None);
        for cut in 0..whole.len() {
            let cut = &mut whole.slice(..cut);
            assert!(guard::decode::<Newer<OffsetFetchRequest>>(ApiKey::OffsetFetch, 10, cut).is_err());
            assert!(Newer::<OffsetFetchRequest>::read(10, cut).is_err());
        }
    }

    #[test]
    fn versions_of_the_crate_are_read_by_it() {
        let request = OffsetFetchRequest::default().with_group_id(GroupId(StrBytes::from_static_str("g")));
        for version in 1..8 {
            let mut body = BytesMut::new();
            request.encode(&mut body, version).unwrap();
            let read =
                guard::decode::<Newer<OffsetFetchRequest>>(ApiKey::OffsetFetch, version, &mut body.freeze()).unwrap();
            assert_eq!(read.0, request, "v{version}");
        }
    }

    #[test]
    fn cordoned_directories_are_told_from_version_5_on() {
        let partition = DescribeLogDirsPartition::default().with_partition_size(5).with_is_future_key(true);
        let topic = DescribeLogDirsTopic::default().with_partitions(vec![partition; 3]);
        let cordoned = [true, false, true];
        let dirs = cordoned.map(|cordoned| {
            let mut dir = DescribeLogDirsResult::default().with_topics(vec![topic.clone()]).with_total_bytes(9);
            set_cordoned(&mut dir, cordoned);
            dir
        });
        let sent = Newer(DescribeLogDirsResponse::default().with_results(dirs.to_vec()));
        for version in 1..=5 {
            let frame = respond::encode(ApiKey::DescribeLogDirs, version, 1, &sent).unwrap();
            assert_eq!(frame.len(), respond::size(ApiKey::DescribeLogDirs, version, &sent).unwrap());
            let head = if version >= 2 { 9 } else { 8 };
            let read = |mut body: Bytes| {
                guard::decode_response::<DescribeLogDirsResponse>(ApiKey::DescribeLogDirs, version, &mut body)
            };
            let told = read(frame.slice(head..)).unwrap();
            let seen: Vec<bool> = told.results.iter().map(is_cordoned).collect();
            assert_eq!(seen, cordoned.map(|cordoned| cordoned && version >= 5), "v{version}");
            assert!(told.results.iter().all(|dir| dir.topics[0].partitions.len() == 3));
            (head..frame.len()).for_each(|end| assert!(read(frame.slice(head..end)).is_err(), "v{version} {end}"));
        }
    }

    #[test]
    fn directories_of_version_5_say_that_they_are_not_cordoned() {
        let partition = DescribeLogDirsPartition::default().with_partition_size(5);
        let topic = DescribeLogDirsTopic::default().with_partitions(vec![partition]);
        let result = DescribeLogDirsResult::default().with_topics(vec![topic]).with_total_bytes(9).with_usable_bytes(8);
        for count in [0, 1, 2, 200] {
            let response =
                Newer(DescribeLogDirsResponse::default().with_error_code(3).with_results(vec![result.clone(); count]));
            let [four, five] =
                [4, 5].map(|version| respond::encode(ApiKey::DescribeLogDirs, version, 1, &response).unwrap());
            assert_eq!(five.len(), respond::size(ApiKey::DescribeLogDirs, 5, &response).unwrap());
            assert_eq!(five.len(), four.len() + count);
            // Length, header, throttle time, error and the count of results; then results,
            // each with one more zero.
            let start = 4 + 5 + 4 + 2 + if count < 127 { 1 } else { 2 };
            let mut expected = BytesMut::from(&four[..start]);
            expected[..4].copy_from_slice(&five[..4]);
            let each = (four.len() - 1 - start) / count.max(1);
            for at in 0..count {
                expected.put_slice(&four[start + at * each..start + (at + 1) * each]);
                expected.put_u8(0);
            }
            expected.put_u8(0);
            assert_eq!(five, expected);
        }
    }
}
