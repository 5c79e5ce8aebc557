//! AlterConfigs, DeleteRecords, DescribeLogDirs.

use kafka_protocol::messages::alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use kafka_protocol::messages::{AlterConfigsRequest, DeleteRecordsRequest, DescribeLogDirsRequest};

use crate::support::world::*;
use crate::topics::{BROKER, TOPIC, check_entry, describe};

const POLICY_VIOLATION: i16 = 44;

/// The outcome of one resource: its error code.
fn alter(
    world: &mut World,
    version: i16,
    validate_only: bool,
    (kind, name): (i8, &str),
    options: &[(&str, Option<&str>)],
) -> i16 {
    let configs = options
        .iter()
        .map(|(option, value)| AlterableConfig::default().with_name(text(option)).with_value(value.map(text)));
    let resource = AlterConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configs(configs.collect());
    let request = AlterConfigsRequest::default().with_resources(vec![resource]).with_validate_only(validate_only);
    let response = world.client.call(version, &request);
    assert_eq!(response.responses.len(), 1);
    let result = &response.responses[0];
    assert_eq!((result.resource_type, &*result.resource_name), (kind, name));
    assert_eq!(result.error_message.is_some(), result.error_code != 0, "{:?}", result.error_message);
    result.error_code
}

pub fn alter_configs(world: &mut World, version: i16) {
    let topic = world.create(&format!("replaced-{version}"), 2);
    let name = &*topic.name;
    let both = &[("retention.ms", Some("123")), ("max.message.bytes", Some("200"))];
    assert_eq!(alter(world, version, true, (TOPIC, name), both), 0);
    check_entry(4, true, &describe(world, 4, true, TOPIC, name, None), "retention.ms", ("604800000", 5, 5));
    assert_eq!(alter(world, version, false, (TOPIC, name), both), 0);
    check_entry(4, true, &describe(world, 4, true, TOPIC, name, None), "retention.ms", ("123", 1, 5));
    let large = batch_of(&[(world.stock_time, "x".repeat(300))]);
    assert_eq!(world.try_produce(&topic, 0, &large), (code::MESSAGE_TOO_LARGE, -1));
    // What is not named goes back to the default.
    assert_eq!(alter(world, version, false, (TOPIC, name), &[("retention.ms", Some("124"))]), 0);
    assert_eq!(world.produce(&topic, 0, &large), 0);
    let told = describe(world, 4, true, TOPIC, name, None);
    check_entry(4, true, &told, "retention.ms", ("124", 1, 5));
    check_entry(4, true, &told, "max.message.bytes", ("1048588", 5, 3));
    let longest = longest();
    for (resource, option, expected) in [
        ((TOPIC, name), ("retention.ms", Some("soon")), code::INVALID_CONFIG),
        ((TOPIC, name), ("no.such.option", Some("5")), code::INVALID_CONFIG),
        ((TOPIC, name), (&*longest, Some(&*longest)), code::INVALID_CONFIG),
        ((TOPIC, name), ("retention.ms", None), code::INVALID_REQUEST),
        ((TOPIC, NO_SUCH_TOPIC), ("retention.ms", Some("5")), code::UNKNOWN_TOPIC_OR_PARTITION),
        ((TOPIC, INVALID_NAME), ("retention.ms", Some("5")), code::INVALID_TOPIC_EXCEPTION),
        ((TOPIC, ""), ("retention.ms", Some("5")), code::INVALID_REQUEST),
        ((BROKER, "0"), ("log.dirs", Some("5")), code::INVALID_REQUEST),
        ((8, "0"), ("root", Some("INFO")), code::INVALID_REQUEST),
        ((77, "0"), ("retention.ms", Some("5")), code::INVALID_REQUEST),
    ] {
        assert_eq!(alter(world, version, false, resource, &[option]), expected, "{resource:.30?} {option:.60?}");
    }
    check_entry(4, true, &describe(world, 4, true, TOPIC, name, None), "retention.ms", ("124", 1, 5));
}

/// Error and low watermark of each (partition, offset).
fn delete(world: &mut World, version: i16, topic: &str, wanted: &[(i32, i64)]) -> Vec<(i16, i64)> {
    let partition = |(index, offset): &(i32, i64)| {
        DeleteRecordsPartition::default().with_partition_index(*index).with_offset(*offset)
    };
    let named = DeleteRecordsTopic::default()
        .with_name(topic_name(topic))
        .with_partitions(wanted.iter().map(partition).collect());
    let request = DeleteRecordsRequest::default().with_topics(vec![named]).with_timeout_ms(30_000);
    let response = world.client.call(version, &request);
    assert_eq!((response.topics.len(), &*response.topics[0].name.0), (1, topic));
    response.topics[0].partitions.iter().map(|place| (place.error_code, place.low_watermark)).collect()
}

pub fn delete_records(world: &mut World, version: i16) {
    let topic = world.create(&format!("trimmed-{version}"), 2);
    let name = &*topic.name;
    let records: Vec<_> = (0..6).map(|n| (world.stock_time, n.to_string())).collect();
    assert_eq!(world.produce(&topic, 0, &batch_of(&records)), 0);
    assert_eq!(delete(world, version, name, &[(0, 2), (1, 0)]), [(0, 2), (0, 0)]);
    assert_eq!(delete(world, version, name, &[(0, 1)]), [(0, 2)], "it never goes back");
    assert_eq!(world.read(&topic, 0, 2)[0].1, "2");
    let wrong = (code::OFFSET_OUT_OF_RANGE, -1);
    let unknown = (code::UNKNOWN_TOPIC_OR_PARTITION, -1);
    assert_eq!(delete(world, version, name, &[(-1, 0), (0, 7), (1, 1), (9, 0)]), [unknown, wrong, wrong, unknown]);
    assert_eq!(delete(world, version, name, &[(0, -2)]), [wrong]);
    assert_eq!(delete(world, version, name, &[(0, -1)]), [(0, 6)]);
    for name in [NO_SUCH_TOPIC, INVALID_NAME, &longest()] {
        assert_eq!(delete(world, version, name, &[(0, 0)]), [unknown]);
    }
    assert_eq!(alter(world, 2, false, (TOPIC, name), &[("cleanup.policy", Some("compact"))]), 0);
    assert_eq!(delete(world, version, name, &[(0, -1)]), [(POLICY_VIOLATION, -1)]);
    assert_eq!(alter(world, 2, false, (TOPIC, name), &[("cleanup.policy", Some("compact,delete"))]), 0);
    assert_eq!(delete(world, version, name, &[(0, -1)]), [(0, 6)]);
}

/// Topic, partition and size.
type Row = (String, i32, i64);

fn log_dirs(world: &mut World, version: i16, topics: Option<&[(&str, &[i32])]>) -> Vec<Row> {
    let topics = topics.map(|topics| {
        let named = |(name, partitions): &(&str, &[i32])| {
            DescribableLogDirTopic::default().with_topic(topic_name(name)).with_partitions(partitions.to_vec())
        };
        topics.iter().map(named).collect()
    });
    let response = world.client.call(version, &DescribeLogDirsRequest::default().with_topics(topics));
    assert_eq!((response.error_code, response.results.len()), (0, 1));
    let dir = &response.results[0];
    assert!(dir.error_code == 0 && dir.log_dir.starts_with('/'), "{dir:?}");
    assert_eq!(dir.total_bytes > dir.usable_bytes && dir.usable_bytes > 0, version >= 4, "{dir:?}");
    let mut rows = Vec::new();
    for topic in &dir.topics {
        for partition in &topic.partitions {
            assert!(!partition.is_future_key && partition.offset_lag == 0);
            rows.push((topic.name.0.to_string(), partition.partition_index, partition.partition_size));
        }
    }
    rows
}

pub fn describe_log_dirs(world: &mut World, version: i16) {
    let topic = world.create(&format!("sized-{version}"), 2);
    let name = &*topic.name;
    let batch = batch_of(&[(world.stock_time, "x".repeat(300))]);
    assert_eq!(world.produce(&topic, 1, &batch), 0);
    let row = |index, bytes| (name.to_owned(), index, bytes);
    let bytes = batch.len() as i64;
    let told = log_dirs(world, version, Some(&[(name, &[1, 7]), (NO_SUCH_TOPIC, &[0]), (INVALID_NAME, &[0])]));
    assert_eq!(told, [row(1, bytes)]);
    assert_eq!(log_dirs(world, version, Some(&[(name, &[0, 1])])), [row(0, 0), row(1, bytes)]);
    assert_eq!(log_dirs(world, version, Some(&[])), []);
    let all = log_dirs(world, version, None);
    let stock = world.stock.name.clone();
    assert!(all.contains(&row(0, 0)) && all.contains(&row(1, bytes)) && all.iter().any(|row| row.0 == *stock));
}
