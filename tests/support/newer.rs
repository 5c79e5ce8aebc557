//! Versions that the crate `kafka-protocol` lacks, by Kafka 4.3's message definitions.

use std::any::Any;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::describe_log_dirs_response::DescribeLogDirsResult;
use kafka_protocol::messages::{DescribeLogDirsResponse, OffsetCommitRequest, OffsetFetchRequest};
use kafka_protocol::protocol::{Decodable, Message, Request};

/// The body of a request. ListOffsets 11 and DescribeLogDirs 5 have the bytes
/// of the version before.
pub fn encode<R: Request + 'static>(request: &R, version: i16) -> Result<BytesMut, String> {
    let mut body = BytesMut::new();
    let request_of_any: &dyn Any = request;
    if let (Some(commit), 10) = (request_of_any.downcast_ref::<OffsetCommitRequest>(), version) {
        offset_commit(&mut body, commit);
    } else if let (Some(fetch), 10) = (request_of_any.downcast_ref::<OffsetFetchRequest>(), version) {
        offset_fetch(&mut body, fetch);
    } else {
        request.encode(&mut body, version.min(R::VERSIONS.max)).map_err(|problem| problem.to_string())?;
    }
    Ok(body)
}

/// The response that is all of `body`, but for what is left in it.
pub fn decode<T: Decodable + Message + 'static>(body: &mut Bytes, version: i16) -> Result<T, String> {
    if version <= T::VERSIONS.max {
        return T::decode(body, version).map_err(|problem| problem.to_string());
    }
    let mut log_dirs = DescribeLogDirsResponse::default();
    let any: &mut dyn Any = &mut log_dirs;
    if !any.is::<T>() {
        return T::decode(body, T::VERSIONS.max).map_err(|problem| problem.to_string());
    }
    log_dirs.throttle_time_ms = body.get_i32();
    log_dirs.error_code = body.get_i16();
    for _ in 1..varint(body) {
        // is_cordoned takes the place of the count of tagged fields, which follows.
        log_dirs.results.push(DescribeLogDirsResult::decode(body, 4).map_err(|problem| problem.to_string())?);
        assert_eq!(body.get_u8(), 0);
    }
    assert_eq!(body.get_u8(), 0);
    let decoded: Box<dyn Any> = Box::new(log_dirs);
    decoded.downcast::<T>().map(|decoded| *decoded).map_err(|_| "another response".to_owned())
}

fn varint(body: &mut Bytes) -> usize {
    let (mut value, mut shift) = (0, 0);
    loop {
        let byte = body.get_u8();
        value |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte < 0x80 {
            return value;
        }
    }
}

/// A count, or a length, in the compact encoding; `None`: null.
fn count(body: &mut BytesMut, count: Option<usize>) {
    let mut value = count.map_or(0, |count| count + 1);
    while value >= 0x80 {
        body.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    body.put_u8(value as u8);
}

fn text(body: &mut BytesMut, text: Option<&str>) {
    count(body, text.map(str::len));
    body.put_slice(text.unwrap_or_default().as_bytes());
}

fn offset_commit(body: &mut BytesMut, request: &OffsetCommitRequest) {
    text(body, Some(&request.group_id.0));
    body.put_i32(request.generation_id_or_member_epoch);
    text(body, Some(&request.member_id));
    text(body, request.group_instance_id.as_deref());
    count(body, Some(request.topics.len()));
    for topic in &request.topics {
        body.put_slice(topic.topic_id.as_bytes());
        count(body, Some(topic.partitions.len()));
        for partition in &topic.partitions {
            body.put_i32(partition.partition_index);
            body.put_i64(partition.committed_offset);
            body.put_i32(partition.committed_leader_epoch);
            text(body, partition.committed_metadata.as_deref());
            body.put_u8(0);
        }
        body.put_u8(0);
    }
    body.put_u8(0);
}

fn offset_fetch(body: &mut BytesMut, request: &OffsetFetchRequest) {
    count(body, Some(request.groups.len()));
    for group in &request.groups {
        text(body, Some(&group.group_id.0));
        text(body, group.member_id.as_deref());
        body.put_i32(group.member_epoch);
        count(body, group.topics.as_ref().map(Vec::len));
        for topic in group.topics.iter().flatten() {
            body.put_slice(topic.topic_id.as_bytes());
            count(body, Some(topic.partition_indexes.len()));
            topic.partition_indexes.iter().for_each(|index| body.put_i32(*index));
            body.put_u8(0);
        }
        body.put_u8(0);
    }
    body.put_i8(i8::from(request.require_stable));
    body.put_u8(0);
}
