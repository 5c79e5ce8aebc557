//! ListOffsets and OffsetForLeaderEpoch.

use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use kafka_protocol::messages::{ListOffsetsRequest, OffsetForLeaderEpochRequest};

use crate::support::world::*;

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;

/// Error, timestamp, offset and leader epoch.
type Found = (i16, i64, i64, i32);

/// Asks for (partition, timestamp, the leader epoch the client believes in) of one topic.
fn ask(world: &mut World, version: i16, topic: &str, asked: &[(i32, i64, i32)]) -> Vec<Found> {
    let partitions = asked.iter().map(|(partition, timestamp, epoch)| {
        ListOffsetsPartition::default()
            .with_partition_index(*partition)
            .with_timestamp(*timestamp)
            .with_current_leader_epoch(*epoch)
    });
    let partitions = ListOffsetsTopic::default().with_name(topic_name(topic)).with_partitions(partitions.collect());
    let request = ListOffsetsRequest::default()
        .with_replica_id((-1).into())
        .with_isolation_level(i8::from(version >= 2))
        .with_timeout_ms(5000)
        .with_topics(vec![partitions]);
    let response = world.client.call(version, &request);
    assert_eq!((response.topics.len(), &*response.topics[0].name.0), (1, topic));
    let places = &response.topics[0].partitions;
    let indexes: Vec<i32> = places.iter().map(|place| place.partition_index).collect();
    assert_eq!(indexes, asked.iter().map(|asked| asked.0).collect::<Vec<_>>());
    places.iter().map(|place| (place.error_code, place.timestamp, place.offset, place.leader_epoch)).collect()
}

pub fn list_offsets(world: &mut World, version: i16) {
    let stock = world.stock.name.clone();
    let time = world.stock_time;
    let epoch = if version >= 4 { 0 } else { -1 };
    for (timestamp, since, found) in [
        (LATEST, 1, (0, -1, 6, epoch)),
        (EARLIEST, 1, (0, -1, 0, epoch)),
        // The largest timestamp, the earliest on local disk, the latest in tiered storage, the
        // earliest yet to get there.
        (-3, 7, (0, time + 50, 3, epoch)),
        (-4, 8, (0, -1, 0, epoch)),
        (-5, 9, (0, -1, -1, -1)),
        (-6, 11, (0, -1, -1, -1)),
        (-7, i16::MAX, (0, 0, 0, 0)),
        (i64::MIN, i16::MAX, (0, 0, 0, 0)),
        (0, 1, (0, time, 0, epoch)),
        (time + 10, 1, (0, time + 10, 1, epoch)),
        (time + 11, 1, (0, time + 20, 2, epoch)),
        (time + 21, 1, (0, time + 50, 3, epoch)),
        (time + 51, 1, (0, -1, -1, -1)),
        (i64::MAX, 1, (0, -1, -1, -1)),
    ] {
        let expected = if version >= since { found } else { (code::UNSUPPORTED_VERSION, -1, -1, -1) };
        assert_eq!(ask(world, version, &stock, &[(0, timestamp, -1)]), [expected], "timestamp {timestamp}");
    }
    // An empty partition has ends, and no record at any time.
    let ends = ask(world, version, &stock, &[(1, LATEST, -1)]);
    assert_eq!((ends[0].0, ends[0].2), (0, 0));
    assert_eq!(ask(world, version, &stock, &[(1, 0, -1)]), [(0, -1, -1, -1)]);

    let unknown = (code::UNKNOWN_TOPIC_OR_PARTITION, -1, -1, -1);
    let found = ask(world, version, &stock, &[(9, LATEST, -1), (0, LATEST, 0), (-1, EARLIEST, -1)]);
    assert_eq!(found, [unknown, (0, -1, 6, epoch), unknown]);
    for name in [NO_SUCH_TOPIC, INVALID_NAME, &longest()] {
        assert_eq!(ask(world, version, name, &[(0, LATEST, -1)]), [unknown]);
    }
    if version >= 4 {
        let refused = (code::UNKNOWN_LEADER_EPOCH, -1, -1, -1);
        assert_eq!(ask(world, version, &stock, &[(0, LATEST, 5)]), [refused]);
    }
}

pub fn offset_for_leader_epoch(world: &mut World, version: i16) {
    let longest = longest();
    let stock = world.stock.name.clone();
    // (topic, partition, the epoch the client believes in, the epoch asked for) and
    // (error, epoch, end offset)
    let rows = [
        ((&*stock, 0, 0, 0), (0, 0, 6)),
        ((&*stock, 0, -1, 0), (0, 0, 6)),
        ((&*stock, 1, 0, 0), (0, 0, 0)),
        // An epoch that is not there yet: nothing is known of it.
        ((&*stock, 0, 0, 3), (0, -1, -1)),
        ((&*stock, 0, -1, -1), (0, -1, -1)),
        ((&*stock, 0, 5, 0), (code::UNKNOWN_LEADER_EPOCH, -1, -1)),
        ((&*stock, 9, -1, 0), (code::UNKNOWN_TOPIC_OR_PARTITION, -1, -1)),
        ((NO_SUCH_TOPIC, 0, -1, 0), (code::UNKNOWN_TOPIC_OR_PARTITION, -1, -1)),
        ((INVALID_NAME, 0, -1, 0), (code::UNKNOWN_TOPIC_OR_PARTITION, -1, -1)),
        ((&*longest, 0, -1, 0), (code::UNKNOWN_TOPIC_OR_PARTITION, -1, -1)),
    ];
    for ((topic, partition, believed, asked), expected) in rows {
        let place = OffsetForLeaderPartition::default()
            .with_partition(partition)
            .with_current_leader_epoch(believed)
            .with_leader_epoch(asked);
        let named = OffsetForLeaderTopic::default().with_topic(topic_name(topic)).with_partitions(vec![place]);
        let request = OffsetForLeaderEpochRequest::default().with_replica_id((-1).into()).with_topics(vec![named]);
        let response = world.client.call(version, &request);
        assert_eq!(&*response.topics[0].topic.0, topic);
        let place = &response.topics[0].partitions[0];
        assert_eq!(place.partition, partition);
        let found = (place.error_code, place.leader_epoch, place.end_offset);
        assert_eq!(found, expected, "{partition}, believed {believed}, asked {asked}");
    }
}
