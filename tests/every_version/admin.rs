//! AlterConfigs, DeleteRecords, DescribeLogDirs, DescribeTopicPartitions, DescribeProducers,
//! ListConfigResources, ElectLeaders, AlterPartitionReassignments, UpdateFeatures.

use kafka_protocol::messages::alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic};
use kafka_protocol::messages::alter_replica_log_dirs_request::{AlterReplicaLogDir, AlterReplicaLogDirTopic};
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use kafka_protocol::messages::describe_topic_partitions_request::{Cursor, TopicRequest};
use kafka_protocol::messages::elect_leaders_request::TopicPartitions;
use kafka_protocol::messages::update_features_request::FeatureUpdateKey;
use kafka_protocol::messages::{
    AlterConfigsRequest, AlterPartitionReassignmentsRequest, AlterReplicaLogDirsRequest, DeleteRecordsRequest,
    DescribeLogDirsRequest, DescribeProducersRequest, DescribeTopicPartitionsRequest, ElectLeadersRequest,
    InitProducerIdRequest, ListConfigResourcesRequest, UpdateFeaturesRequest, describe_producers_request,
};

use crate::support::world::*;
use crate::topics::{BROKER, TOPIC, check_entry, describe};

const POLICY_VIOLATION: i16 = 44;
const LOG_DIR_NOT_FOUND: i16 = 57;

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

pub fn alter_replica_log_dirs(world: &mut World, version: i16) {
    let topic = world.create(&format!("moved-{version}"), 2);
    let response = world.client.call(4, &DescribeLogDirsRequest::default().with_topics(None));
    let own = response.results[0].log_dir.to_string();
    let dir = |path: &str, name: &str, partitions: &[i32]| {
        let topic = AlterReplicaLogDirTopic::default().with_name(topic_name(name)).with_partitions(partitions.to_vec());
        AlterReplicaLogDir::default().with_path(text(path)).with_topics(vec![topic])
    };
    let nowhere = format!("{own}/nowhere");
    let dirs = vec![dir(&own, &topic.name, &[0, 9]), dir(&nowhere, &topic.name, &[1]), dir(&own, NO_SUCH_TOPIC, &[0])];
    let response = world.client.call(version, &AlterReplicaLogDirsRequest::default().with_dirs(dirs));
    let mut rows: Vec<_> = response
        .results
        .iter()
        .flat_map(|topic| topic.partitions.iter().map(|p| (&*topic.topic_name.0, p.partition_index, p.error_code)))
        .collect();
    rows.sort_unstable();
    let unknown = code::UNKNOWN_TOPIC_OR_PARTITION;
    let name = &*topic.name;
    let mut expected = [(name, 0, 0), (name, 1, LOG_DIR_NOT_FOUND), (name, 9, unknown), (NO_SUCH_TOPIC, 0, unknown)];
    expected.sort_unstable();
    assert_eq!(rows, expected);
    let response = world.client.call(version, &AlterReplicaLogDirsRequest::default());
    assert!(response.results.is_empty());
}

pub fn describe_topic_partitions(world: &mut World, version: i16) {
    let topic = world.create(&format!("paged-{version}"), 3);
    let other = world.create(&format!("paged-{version}-more"), 2);
    let names = [&*topic.name, &*other.name, NO_SUCH_TOPIC, INVALID_NAME];
    let (mut cursor, mut rows) = (None, Vec::new());
    for _ in 0..10 {
        let named = names.iter().map(|name| TopicRequest::default().with_name(topic_name(name)));
        let request = DescribeTopicPartitionsRequest::default()
            .with_topics(named.collect())
            .with_response_partition_limit(2)
            .with_cursor(cursor.clone());
        let response = world.client.call(version, &request);
        for told in response.topics {
            let name = told.name.map(|name| name.0.to_string()).unwrap_or_default();
            assert_eq!(told.topic_id.is_nil(), told.error_code != 0, "{name}");
            let partitions: Vec<_> = told.partitions.iter().map(|p| (p.partition_index, p.leader_id.0)).collect();
            rows.push((name, told.error_code, partitions));
        }
        let Some(next) = response.next_cursor else { break };
        cursor = Some(Cursor::default().with_topic_name(next.topic_name).with_partition_index(next.partition_index));
    }
    let row = |name: &str, error, indexes: &[i32]| {
        (name.to_owned(), error, indexes.iter().map(|index| (*index, 0)).collect::<Vec<_>>())
    };
    rows.sort();
    let mut expected = vec![
        row(&topic.name, 0, &[0, 1]),
        row(&topic.name, 0, &[2]),
        row(&other.name, 0, &[0]),
        row(&other.name, 0, &[1]),
        row(NO_SUCH_TOPIC, code::UNKNOWN_TOPIC_OR_PARTITION, &[]),
        row(INVALID_NAME, code::INVALID_TOPIC_EXCEPTION, &[]),
    ];
    expected.sort();
    assert_eq!(rows, expected);
}

pub fn describe_producers(world: &mut World, version: i16) {
    let topic = world.create(&format!("producers-{version}"), 2);
    let made = world.client.call(4, &InitProducerIdRequest::default().with_transactional_id(None));
    let (id, epoch) = (made.producer_id.0, made.producer_epoch);
    let records = [(world.stock_time, "a".to_owned()), (world.stock_time, "b".to_owned())];
    assert_eq!(world.produce(&topic, 1, &batch_from((id, epoch, 0), &records)), 0);
    let ask = |name: &str, indexes: &[i32]| {
        describe_producers_request::TopicRequest::default()
            .with_name(topic_name(name))
            .with_partition_indexes(indexes.to_vec())
    };
    let topics = vec![ask(&topic.name, &[0, 1, 9]), ask(NO_SUCH_TOPIC, &[0])];
    let response = world.client.call(version, &DescribeProducersRequest::default().with_topics(topics));
    let rows: Vec<_> = response
        .topics
        .iter()
        .flat_map(|t| t.partitions.iter().map(|p| (p.partition_index, p.error_code, p.active_producers.len())))
        .collect();
    let unknown = code::UNKNOWN_TOPIC_OR_PARTITION;
    let mut sorted = rows.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, [(0, 0, 0), (0, unknown, 0), (1, 0, 1), (9, unknown, 0)]);
    let producers = response.topics.iter().flat_map(|t| t.partitions.iter().flat_map(|p| &p.active_producers));
    let told: Vec<_> = producers.map(|p| (p.producer_id.0, p.producer_epoch, p.last_sequence)).collect();
    assert_eq!(told, [(id, i32::from(epoch), 1)]);
}

pub fn list_config_resources(world: &mut World, version: i16) {
    let topic = world.create(&format!("listed-{version}"), 1);
    let mut ask = |kinds: &[i8]| {
        let request = ListConfigResourcesRequest::default().with_resource_types(kinds.to_vec());
        let response = world.client.call(version, &request);
        let rows = response.config_resources.iter().map(|r| (r.resource_type, r.resource_name.to_string()));
        (response.error_code, rows.collect::<Vec<_>>())
    };
    if version == 0 {
        assert_eq!(ask(&[]), (0, vec![]), "client metrics");
        return;
    }
    let (broker, logger) = ((4, "0".to_owned()), (8, "0".to_owned()));
    assert_eq!(ask(&[4, 8]), (0, vec![broker.clone(), logger]));
    let all = ask(&[]).1;
    assert!(all.contains(&(2, topic.name.to_string())) && all.contains(&broker), "{all:?}");
    assert_eq!(ask(&[99]), (code::UNSUPPORTED_VERSION, vec![]));
}

const REQUEST_TIMED_OUT: i16 = 7;
const ELECTION_NOT_NEEDED: i16 = 84;
const NO_REASSIGNMENT_IN_PROGRESS: i16 = 85;
const INVALID_UPDATE_VERSION: i16 = 95;

pub fn elect_leaders(world: &mut World, version: i16) {
    let stock = world.stock.name.clone();
    let mut ask = |timeout_ms: i32| {
        let one = TopicPartitions::default().with_topic(topic_name(&stock)).with_partitions(vec![0, 9]);
        let request = ElectLeadersRequest::default().with_timeout_ms(timeout_ms).with_topic_partitions(Some(vec![one]));
        let response = world.client.call(version, &request);
        let codes = response.replica_election_results.iter().flat_map(|r| r.partition_result.iter());
        (response.error_code, codes.map(|p| p.error_code).collect::<Vec<_>>())
    };
    assert_eq!(ask(10_000), (0, vec![ELECTION_NOT_NEEDED, code::UNKNOWN_TOPIC_OR_PARTITION]));
    let own = if version >= 1 { REQUEST_TIMED_OUT } else { 0 };
    assert_eq!(ask(0), (own, vec![REQUEST_TIMED_OUT; 2]));
    let all = ElectLeadersRequest::default().with_topic_partitions(None);
    let response = world.client.call(version, &all);
    assert_eq!(response.error_code, 0);
    assert!(response.replica_election_results.iter().all(|r| r.partition_result.is_empty()), "none needs one");
}

pub fn alter_partition_reassignments(world: &mut World, version: i16) {
    let stock = world.stock.name.clone();
    let mut ask = |name: &str, replicas: Option<&[i32]>| {
        let replicas = replicas.map(|ids| ids.iter().map(|id| (*id).into()).collect());
        let partition = ReassignablePartition::default().with_partition_index(0).with_replicas(replicas);
        let topic = ReassignableTopic::default().with_name(topic_name(name)).with_partitions(vec![partition]);
        let request = AlterPartitionReassignmentsRequest::default().with_topics(vec![topic]);
        let response = world.client.call(version, &request);
        assert_eq!((response.error_code, response.responses.len()), (0, 1));
        response.responses[0].partitions[0].error_code
    };
    assert_eq!(ask(&stock, Some(&[0])), 0);
    for wrong in [&[9][..], &[0, 9], &[0, 0], &[], &[-1]] {
        assert_eq!(ask(&stock, Some(wrong)), code::INVALID_REPLICA_ASSIGNMENT, "{wrong:?}");
    }
    assert_eq!(ask(&stock, None), NO_REASSIGNMENT_IN_PROGRESS);
    for name in [NO_SUCH_TOPIC, INVALID_NAME] {
        assert_eq!(ask(name, Some(&[0])), code::UNKNOWN_TOPIC_OR_PARTITION);
    }
}

pub fn update_features(world: &mut World, version: i16) {
    let mut ask = |feature: &str, level: i16| {
        let update = FeatureUpdateKey::default().with_feature(text(feature)).with_max_version_level(level);
        let request = UpdateFeaturesRequest::default().with_feature_updates(vec![update]);
        let response = world.client.call(version, &request);
        assert_eq!(response.error_message.is_some(), response.error_code != 0);
        (response.error_code, response.results.len())
    };
    assert_eq!(ask("group.version", 1), (0, usize::from(version < 2)));
    assert_eq!(ask("group.version", 9), (INVALID_UPDATE_VERSION, 0));
    assert_eq!(ask("no.such.feature", 1), (INVALID_UPDATE_VERSION, 0));
}
