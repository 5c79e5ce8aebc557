//! WriteTxnMarkers.

use bytes::BytesMut;
use kafka_protocol::messages::write_txn_markers_request::{WritableTxnMarker, WritableTxnMarkerTopic};
use kafka_protocol::messages::{ApiKey, InitProducerIdRequest, WriteTxnMarkersRequest, WriteTxnMarkersResponse};
use kafka_protocol::protocol::Encodable;

use crate::support::world::*;

const INVALID_PRODUCER_EPOCH: i16 = 47;

/// `kafka-protocol` knows the first version; the second has one byte more before the
/// tagged fields of the marker.
fn write(world: &mut World, version: i16, marker: WritableTxnMarker) -> WriteTxnMarkersResponse {
    let mut body = BytesMut::new();
    WriteTxnMarkersRequest::default().with_markers(vec![marker]).encode(&mut body, 1).unwrap();
    if version >= 2 {
        body.truncate(body.len() - 2);
        body.extend_from_slice(&[0, 0, 0]);
    }
    world.client.send_body(ApiKey::WriteTxnMarkers as i16, version, 2, &body);
    world.client.receive::<WriteTxnMarkersRequest>(version, 1)
}

pub fn write_txn_markers(world: &mut World, version: i16) {
    let topic = world.create(&format!("marked-{version}"), 2);
    let made = world.client.call(4, &InitProducerIdRequest::default().with_transactional_id(None));
    let marker = |epoch: i16| {
        let ask = |name: &str, indexes: &[i32]| {
            WritableTxnMarkerTopic::default().with_name(topic_name(name)).with_partition_indexes(indexes.to_vec())
        };
        WritableTxnMarker::default()
            .with_producer_id(made.producer_id)
            .with_producer_epoch(epoch)
            .with_transaction_result(true)
            .with_coordinator_epoch(4)
            .with_topics(vec![ask(&topic.name, &[1, 9]), ask(NO_SUCH_TOPIC, &[0])])
    };
    for (epoch, code) in [(3, 0), (2, INVALID_PRODUCER_EPOCH)] {
        let response = write(world, version, marker(epoch));
        let rows: Vec<_> = response
            .markers
            .iter()
            .flat_map(|marker| marker.topics.iter().map(|topic| (marker.producer_id, topic)))
            .flat_map(|(id, topic)| {
                topic.partitions.iter().map(move |place| (id, place.partition_index, place.error_code))
            })
            .collect();
        let id = made.producer_id;
        assert_eq!(rows, [(id, 1, code), (id, 9, 3), (id, 0, 3)]);
        assert_eq!(world.latest(&topic, 1), 1);
    }
}
