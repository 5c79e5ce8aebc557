//! WriteTxnMarkers requests and responses, versions 1 and 2: `kafka-protocol` knows the first only.

use bytes::Bytes;
use kafka_protocol::messages::ApiKey;

use super::frame::{Malformed, check_version};
use super::topic_key::TopicKey;
use super::wire::{Reader, Writer};
use crate::model::{ErrorCode, Marker, MarkerKind};

const API_KEY: i16 = ApiKey::WriteTxnMarkers as i16;
pub const MIN_VERSION: i16 = 1;
pub const MAX_VERSION: i16 = 2;
/// The version of transactions is told from here on (KIP-1228).
const TRANSACTION_VERSION_FROM: i16 = 2;

/// Markers, topics and partitions that a request may name whatever its size, and bytes
/// that each further one needs.
const FREE_ELEMENTS: usize = 128;
const BYTES_PER_ELEMENT: usize = 4;

/// One transaction's end, and where it is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WritableMarker {
    pub marker: Marker,
    pub topics: Vec<(TopicKey, Vec<i32>)>,
}

/// The outcomes of one marker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarkerResult {
    pub producer_id: i64,
    pub topics: Vec<(TopicKey, Vec<(i32, ErrorCode)>)>,
}

/// A whole request of one marker: the frame.
pub fn encode_request(
    version: i16,
    correlation_id: i32,
    client_id: &str,
    marker: &Marker,
    topics: &[(&str, Vec<i32>)],
) -> Bytes {
    let capacity = topics.iter().map(|(name, partitions)| name.len() + 8 + partitions.len() * 4).sum::<usize>() + 32;
    let mut writer = Writer::request(capacity, (API_KEY, version), correlation_id, client_id, true);
    writer.count(1);
    writer.int64(marker.producer_id);
    writer.int16(marker.producer_epoch);
    writer.int8(i8::from(marker.kind == MarkerKind::Commit));
    writer.count(topics.len());
    for (name, partitions) in topics {
        writer.string(name);
        writer.count(partitions.len());
        partitions.iter().for_each(|partition| writer.int32(*partition));
        writer.no_tagged_fields();
    }
    writer.int32(marker.coordinator_epoch);
    if version >= TRANSACTION_VERSION_FROM {
        writer.int8(marker.transaction_version);
    }
    writer.no_tagged_fields();
    writer.no_tagged_fields();
    writer.frame(0)
}

/// Decodes the request's body, all of it.
pub fn decode(version: i16, body: Bytes) -> Result<Vec<WritableMarker>, Malformed> {
    read(version, &body).map_err(|error| error.in_request("WriteTxnMarkers", version))
}

fn read(version: i16, body: &Bytes) -> Result<Vec<WritableMarker>, Malformed> {
    check_version(version, MIN_VERSION, MAX_VERSION)?;
    let mut reader = Reader::with_elements(body, true, FREE_ELEMENTS + body.len() / BYTES_PER_ELEMENT);
    let count = reader.array(17, "the markers")?;
    let mut markers = Vec::with_capacity(count);
    for _ in 0..count {
        markers.push(read_marker(&mut reader, version, body)?);
    }
    reader.skip_tagged_fields()?;
    reader.finish()?;
    Ok(markers)
}

fn read_marker(reader: &mut Reader<'_>, version: i16, body: &Bytes) -> Result<WritableMarker, Malformed> {
    let producer_id = reader.int64("a producer id")?;
    let producer_epoch = reader.int16("a producer epoch")?;
    let kind = if reader.int8("a transaction's result")? != 0 { MarkerKind::Commit } else { MarkerKind::Abort };
    let topic_count = reader.array(3, "a marker's topics")?;
    let mut topics = Vec::with_capacity(topic_count);
    for _ in 0..topic_count {
        let topic = TopicKey::read(reader, body, false)?.detached();
        let partition_count = reader.array(4, "a topic's partitions")?;
        let mut partitions = Vec::with_capacity(partition_count);
        for _ in 0..partition_count {
            partitions.push(reader.int32("a partition index")?);
        }
        reader.skip_tagged_fields()?;
        topics.push((topic, partitions));
    }
    let coordinator_epoch = reader.int32("a coordinator epoch")?;
    let has_version = version >= TRANSACTION_VERSION_FROM;
    let transaction_version = if has_version { reader.int8("a transaction's version")? } else { 0 };
    reader.skip_tagged_fields()?;
    let marker = Marker { producer_id, producer_epoch, kind, coordinator_epoch, transaction_version };
    Ok(WritableMarker { marker, topics })
}

/// Reads a response's frame from its correlation id on: `each` is shown topic,
/// partition and error code.
pub fn read_response<'a>(version: i16, frame: &'a [u8], each: impl FnMut(&'a str, i32, i16)) -> Result<(), Malformed> {
    response(frame, each).map_err(|error| error.in_response("WriteTxnMarkers", version))
}

fn response<'a>(frame: &'a [u8], mut each: impl FnMut(&'a str, i32, i16)) -> Result<(), Malformed> {
    let mut reader = Reader::new(frame, true);
    reader.int32("the correlation id")?;
    reader.skip_tagged_fields()?;
    for _ in 0..reader.array(10, "the markers")? {
        reader.int64("a producer id")?;
        for _ in 0..reader.array(3, "a marker's topics")? {
            let name = reader.text("a topic name")?;
            for _ in 0..reader.array(7, "a topic's partitions")? {
                let (index, code) = (reader.int32("a partition index")?, reader.int16("a partition's error")?);
                reader.skip_tagged_fields()?;
                each(name, index, code);
            }
            reader.skip_tagged_fields()?;
        }
        reader.skip_tagged_fields()?;
    }
    reader.skip_tagged_fields()?;
    reader.finish()
}

/// The whole frame: length, response header, body.
pub fn encode_response(correlation_id: i32, results: &[MarkerResult]) -> Bytes {
    let topics = results.iter().flat_map(|result| &result.topics);
    let capacity = topics.map(|(key, partitions)| key.wire_bytes() + 6 + partitions.len() * 7).sum::<usize>();
    let mut writer = Writer::response(capacity + results.len() * 14, correlation_id, true);
    writer.count(results.len());
    for result in results {
        writer.int64(result.producer_id);
        writer.count(result.topics.len());
        for (key, partitions) in &result.topics {
            key.write(&mut writer, false);
            writer.count(partitions.len());
            for (index, error) in partitions {
                writer.int32(*index);
                writer.int16(error.code());
                writer.no_tagged_fields();
            }
            writer.no_tagged_fields();
        }
        writer.no_tagged_fields();
    }
    writer.no_tagged_fields();
    writer.frame(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::{Buf, BytesMut};
    use kafka_protocol::messages::write_txn_markers_request::{WritableTxnMarker, WritableTxnMarkerTopic};
    use kafka_protocol::messages::{TopicName, WriteTxnMarkersRequest, WriteTxnMarkersResponse};
    use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};

    fn name() -> TopicKey {
        TopicKey::Name(Bytes::from_static(b"t"))
    }

    #[test]
    fn requests_are_read_as_kafka_writes_them() {
        let topic = WritableTxnMarkerTopic::default()
            .with_name(TopicName(StrBytes::from_static_str("t")))
            .with_partition_indexes(vec![2, 0]);
        let marker = WritableTxnMarker::default()
            .with_producer_id(77.into())
            .with_producer_epoch(3)
            .with_transaction_result(true)
            .with_topics(vec![topic])
            .with_coordinator_epoch(9);
        let mut body = BytesMut::new();
        WriteTxnMarkersRequest::default().with_markers(vec![marker]).encode(&mut body, 1).unwrap();
        let first = body.freeze();
        let expected = Marker {
            producer_id: 77,
            producer_epoch: 3,
            kind: MarkerKind::Commit,
            coordinator_epoch: 9,
            transaction_version: 0,
        };
        let read = decode(1, first.clone()).unwrap();
        assert_eq!(read, [WritableMarker { marker: expected, topics: vec![(name(), vec![2, 0])] }]);
        // The second version has one byte more before the tagged fields of the
        // marker and of the request.
        let second = [&first[..first.len() - 2], &[2, 0, 0]].concat();
        let marker = Marker { transaction_version: 2, ..expected };
        assert_eq!(decode(2, second.into()).unwrap()[0].marker, marker);
        for cut in 0..first.len() {
            assert!(decode(1, first.slice(..cut)).is_err(), "cut at {cut}");
        }
        assert!(decode(3, first).is_err());
    }

    #[test]
    fn what_is_asked_and_answered_between_brokers() {
        for (version, transaction_version) in [(1, 0), (2, 2)] {
            let marker = Marker {
                producer_id: 77,
                producer_epoch: 3,
                kind: MarkerKind::Commit,
                coordinator_epoch: 9,
                transaction_version: 2,
            };
            let frame = encode_request(version, 5, "c", &marker, &[("t", vec![2, 0])]);
            let head = [0, 27, 0, version as u8, 0, 0, 0, 5, 0, 1, b'c', 0];
            assert_eq!((frame[4..].starts_with(&head), frame[3] as usize), (true, frame.len() - 4));
            let read = decode(version, frame.slice(4 + head.len()..)).unwrap();
            let marker = Marker { transaction_version, ..marker };
            assert_eq!(read, [WritableMarker { marker, topics: vec![(name(), vec![2, 0])] }]);
            let topics = vec![(name(), vec![(2, ErrorCode::None), (0, ErrorCode::InvalidProducerEpoch)])];
            let answer = encode_response(5, &[MarkerResult { producer_id: 77, topics }]);
            let mut seen = Vec::new();
            read_response(version, &answer[4..], |topic, index, code| seen.push((topic, index, code))).unwrap();
            assert_eq!(seen, [("t", 2, 0), ("t", 0, 47)]);
            for cut in 4..answer.len() {
                assert!(read_response(version, &answer[4..cut], |_, _, _| {}).is_err(), "cut at {cut}");
            }
        }
    }

    #[test]
    fn responses_are_what_kafka_reads() {
        let topics = vec![(name(), vec![(2, ErrorCode::None), (0, ErrorCode::InvalidProducerEpoch)])];
        let mut frame = encode_response(5, &[MarkerResult { producer_id: 77, topics }]);
        assert_eq!((frame.get_i32() as usize, frame.get_i32(), frame.get_u8()), (frame.len() + 5, 5, 0));
        let read = WriteTxnMarkersResponse::decode(&mut frame, 1).unwrap();
        assert_eq!((read.markers[0].producer_id.0, frame.len()), (77, 0));
        let partitions = &read.markers[0].topics[0].partitions;
        let seen: Vec<_> = partitions.iter().map(|place| (place.partition_index, place.error_code)).collect();
        assert_eq!(seen, [(2, 0), (0, 47)]);
    }
}
