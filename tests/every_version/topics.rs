//! CreateTopics, CreatePartitions, DeleteTopics, DescribeConfigs, IncrementalAlterConfigs.

use std::collections::BTreeMap;

use kafka_protocol::messages::create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsTopic};
use kafka_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::DescribeConfigsResult;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::{
    CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest, DescribeConfigsRequest,
    IncrementalAlterConfigsRequest,
};
use uuid::Uuid;

use crate::support::world::*;

fn wanted(name: &str, partitions: i32, replication: i16, configs: &[(&str, Option<&str>)]) -> CreatableTopic {
    let configs = configs
        .iter()
        .map(|(name, value)| CreatableTopicConfig::default().with_name(text(name)).with_value(value.map(text)));
    CreatableTopic::default()
        .with_name(topic_name(name))
        .with_num_partitions(partitions)
        .with_replication_factor(replication)
        .with_configs(configs.collect())
}

fn assigned(name: &str, partitions: &[(i32, i32)]) -> CreatableTopic {
    let assignments = partitions.iter().map(|(index, broker)| {
        CreatableReplicaAssignment::default().with_partition_index(*index).with_broker_ids(vec![(*broker).into()])
    });
    wanted(name, -1, -1, &[]).with_assignments(assignments.collect())
}

pub fn create_topics(world: &mut World, version: i16) {
    let plain = format!("created-{version}");
    let placed = format!("placed-{version}");
    let topics = vec![
        wanted(&plain, 3, 1, &[("retention.ms", Some("123456"))]),
        assigned(&placed, &[(0, BROKER_ID), (1, BROKER_ID)]),
        wanted(&format!("default-{version}"), -1, -1, &[]),
    ];
    let request = CreateTopicsRequest::default().with_timeout_ms(5000).with_topics(topics);

    // Tried first without doing it: the same answer, and nothing is there.
    let tried = world.client.call(version, &request.clone().with_validate_only(true));
    assert_eq!(world.partitions_of(&plain), None);
    let done = world.client.call(version, &request);
    for response in [&tried, &done] {
        assert_eq!(response.topics.len(), 3);
        for (result, partitions) in response.topics.iter().zip([3, 2, 1]) {
            assert_eq!((result.error_code, &result.error_message), (0, &None), "{result:?}");
            let told = if version >= 5 { (partitions, 1) } else { (-1, -1) };
            assert_eq!((result.num_partitions, result.replication_factor), told);
            assert_eq!(result.topic_config_error_code, 0);
            assert!(version < 7 || !result.topic_id.is_nil());
            let configs = result.configs.as_deref().unwrap_or_default();
            let retention = configs.iter().find(|config| &*config.name == "retention.ms");
            let retention = retention.map(|c| (c.value.as_deref().unwrap_or_default(), c.config_source));
            let expected = if partitions == 3 { ("123456", 1) } else { ("604800000", 5) };
            assert_eq!(retention, (version >= 5).then_some(expected));
        }
    }
    assert_eq!(world.partitions_of(&plain), Some(3));
    assert_eq!(world.partitions_of(&placed), Some(2));
    create_topics_in_vain(world, version, &plain);
}

fn create_topics_in_vain(world: &mut World, version: i16, existing: &str) {
    let longest = longest();
    let topics = vec![
        (wanted(existing, 1, 1, &[]), code::TOPIC_ALREADY_EXISTS),
        (wanted(INVALID_NAME, 1, 1, &[]), code::INVALID_TOPIC_EXCEPTION),
        (wanted(&longest, 1, 1, &[]), code::INVALID_TOPIC_EXCEPTION),
        (wanted("", 1, 1, &[]), code::INVALID_TOPIC_EXCEPTION),
        (wanted("p0", 0, 1, &[]), code::INVALID_PARTITIONS),
        (wanted("r0", 1, 0, &[]), code::INVALID_REPLICATION_FACTOR),
        (wanted("r9", 1, 9, &[]), code::INVALID_REPLICATION_FACTOR),
        (wanted("c1", 1, 1, &[("no.such.option", Some("1"))]), code::INVALID_CONFIG),
        (wanted("c2", 1, 1, &[("retention.ms", Some("soon"))]), code::INVALID_CONFIG),
        (wanted("c3", 1, 1, &[("retention.ms", None)]), code::INVALID_CONFIG),
        (wanted("c4", 1, 1, &[("retention.ms", Some(&longest))]), code::INVALID_CONFIG),
        (wanted("c5", 1, 1, &[(&longest, Some("1"))]), code::INVALID_CONFIG),
        (wanted("c6", 1, 1, &[(&longest, None)]), code::INVALID_CONFIG),
        (assigned("a1", &[(0, 99)]), code::INVALID_REPLICA_ASSIGNMENT),
        (assigned("a2", &[(1, BROKER_ID)]), code::INVALID_REPLICA_ASSIGNMENT),
        (assigned("a3", &[(0, BROKER_ID)]).with_num_partitions(1), code::INVALID_REQUEST),
    ];
    let expected: BTreeMap<_, _> = topics.iter().map(|(topic, code)| (topic.name.0.to_string(), *code)).collect();
    let topics = topics.into_iter().map(|(topic, _)| topic).collect();
    let response = world.client.call(version, &CreateTopicsRequest::default().with_topics(topics));
    let found: BTreeMap<_, _> = response.topics.iter().map(|t| (t.name.0.to_string(), t.error_code)).collect();
    assert_eq!(found, expected);
    for result in &response.topics {
        let message = result.error_message.as_ref().expect("a message with the error");
        assert!(message.len() <= i16::MAX as usize, "{}: {} bytes of message", &*result.name.0, message.len());
        assert!(result.topic_id.is_nil() && result.num_partitions == -1 && result.replication_factor == -1);
    }
    let twice = wanted("twice", 1, 1, &[]);
    let request = CreateTopicsRequest::default().with_topics(vec![twice.clone(), twice]);
    let response = world.client.call(version, &request);
    let rows: Vec<_> = response.topics.iter().map(|t| (t.name.0.to_string(), t.error_code)).collect();
    assert_eq!(rows, [("twice".to_owned(), code::INVALID_REQUEST)]);
}

fn grown(name: &str, count: i32, assignments: Option<&[i32]>) -> CreatePartitionsTopic {
    let assignments = assignments.map(|brokers| {
        let one = |broker: &i32| CreatePartitionsAssignment::default().with_broker_ids(vec![(*broker).into()]);
        brokers.iter().map(one).collect()
    });
    CreatePartitionsTopic::default().with_name(topic_name(name)).with_count(count).with_assignments(assignments)
}

pub fn create_partitions(world: &mut World, version: i16) {
    let topic = world.create(&format!("grown-{version}"), 1);
    let request = |topics| CreatePartitionsRequest::default().with_timeout_ms(5000).with_topics(topics);
    let steps = [
        (grown(&topic.name, 3, None), true, 1),
        (grown(&topic.name, 3, None), false, 3),
        (grown(&topic.name, 5, Some(&[BROKER_ID, BROKER_ID])), false, 5),
    ];
    for (step, validate_only, after) in steps {
        let response = world.client.call(version, &request(vec![step]).with_validate_only(validate_only));
        let result = &response.results[0];
        assert_eq!((&*result.name.0, result.error_code, &result.error_message), (&*topic.name, 0, &None));
        assert_eq!(world.partitions_of(&topic.name), Some(after));
    }
    let batch = batch_of(&[(world.stock_time, "in a new partition".to_owned())]);
    assert_eq!(world.produce(&topic, 4, &batch), 0);

    let longest = longest();
    for (asked, expected) in [
        (grown(&topic.name, 5, None), code::INVALID_PARTITIONS),
        (grown(&topic.name, 2, None), code::INVALID_PARTITIONS),
        (grown(&topic.name, -1, None), code::INVALID_PARTITIONS),
        (grown(&topic.name, 6, Some(&[99])), code::INVALID_REPLICA_ASSIGNMENT),
        (grown(&topic.name, 6, Some(&[BROKER_ID, BROKER_ID])), code::INVALID_REPLICA_ASSIGNMENT),
        (grown(NO_SUCH_TOPIC, 6, None), code::UNKNOWN_TOPIC_OR_PARTITION),
        (grown(INVALID_NAME, 6, None), code::UNKNOWN_TOPIC_OR_PARTITION),
        (grown(&longest, 6, None), code::UNKNOWN_TOPIC_OR_PARTITION),
    ] {
        let name = asked.name.clone();
        let response = world.client.call(version, &request(vec![asked]));
        let result = &response.results[0];
        assert_eq!((response.results.len(), &result.name, result.error_code), (1, &name, expected));
        let message = result.error_message.as_ref().expect("a message with the error");
        assert!(message.len() <= i16::MAX as usize, "{} bytes of message", message.len());
    }
    let response = world.client.call(version, &request(vec![grown(&topic.name, 6, None), grown(&topic.name, 7, None)]));
    let rows: Vec<_> = response.results.iter().map(|r| r.error_code).collect();
    assert_eq!(rows, [code::INVALID_REQUEST]);
    assert_eq!(world.partitions_of(&topic.name), Some(5));
}

pub fn delete_topics(world: &mut World, version: i16) {
    let topics = [0, 1].map(|n| world.create(&format!("deleted-{version}-{n}"), 2));
    let longest = longest();
    let request = DeleteTopicsRequest::default().with_timeout_ms(5000);
    let by_name = |name: &str| DeleteTopicState::default().with_name(Some(topic_name(name)));
    let by_id = |id: Uuid| DeleteTopicState::default().with_name(None).with_topic_id(id);
    let request = if version >= 6 {
        request.with_topics(vec![
            by_name(&topics[0].name),
            by_id(topics[1].id),
            by_name(NO_SUCH_TOPIC),
            by_name(&longest),
            by_name(INVALID_NAME),
            by_id(NO_SUCH_ID),
            by_id(Uuid::nil()),
            by_name("both").with_topic_id(Uuid::from_u128(3)),
        ])
    } else {
        let names = [&*topics[0].name, &topics[1].name, NO_SUCH_TOPIC, &longest, INVALID_NAME];
        request.with_topic_names(names.map(topic_name).to_vec())
    };
    let response = world.client.call(version, &request);
    let row = |r: &DeletableTopicResult| (r.name.as_ref().map(|n| n.0.to_string()), r.topic_id.as_u128(), r.error_code);
    let mut found: Vec<_> = response.responses.iter().map(row).collect();
    found.sort();
    let some = |name: &str| Some(name.to_owned());
    let id = |topic: &Topic| if version >= 6 { topic.id.as_u128() } else { 0 };
    let unknown = code::UNKNOWN_TOPIC_OR_PARTITION;
    let mut expected = vec![
        (some(&topics[0].name), id(&topics[0]), 0),
        (some(&topics[1].name), id(&topics[1]), 0),
        (some(NO_SUCH_TOPIC), 0, unknown),
        (some(&longest), 0, unknown),
        (some(INVALID_NAME), 0, unknown),
    ];
    if version >= 6 {
        expected.push((None, NO_SUCH_ID.as_u128(), code::UNKNOWN_TOPIC_ID));
        expected.push((None, 0, code::INVALID_REQUEST));
        expected.push((some("both"), 3, code::INVALID_REQUEST));
    }
    expected.sort();
    assert_eq!(found, expected);
    for result in &response.responses {
        assert_eq!(result.error_message.is_some(), version >= 5 && result.error_code != 0, "{result:?}");
    }
    for topic in &topics {
        assert_eq!(world.partitions_of(&topic.name), None);
    }
}

pub const TOPIC: i8 = 2;
pub const BROKER: i8 = 4;

pub fn describe_configs(world: &mut World, version: i16) {
    let name = format!("described-{version}");
    let topic = wanted(&name, 1, 1, &[("segment.bytes", Some("4194304"))]);
    let response = world.client.call(7, &CreateTopicsRequest::default().with_topics(vec![topic]));
    assert_eq!(response.topics[0].error_code, 0);

    for told in [false, true] {
        let of_topic = describe(world, version, told, TOPIC, &name, None);
        assert!(of_topic.configs.len() > 10);
        check_entry(version, told, &of_topic, "segment.bytes", ("4194304", 1, 3));
        check_entry(version, told, &of_topic, "retention.ms", ("604800000", 5, 5));
        let few = describe(world, version, told, TOPIC, &name, Some(&["segment.bytes", "no.such.option"]));
        assert_eq!(few.configs.len(), 1);
        check_entry(version, told, &few, "segment.bytes", ("4194304", 1, 3));

        let of_broker = describe(world, version, told, BROKER, "0", None);
        assert!(of_broker.configs.len() > 10);
        check_entry(version, told, &of_broker, "broker.rack", ("north", 4, 2));
        let few = describe(world, version, told, BROKER, "0", Some(&["broker.rack"]));
        assert_eq!(few.configs.len(), 1);
        // What holds for all brokers at once: nothing here.
        assert_eq!(describe(world, version, told, BROKER, "", None).configs.len(), 0);
    }

    let longest = longest();
    for (kind, name, expected) in [
        (TOPIC, NO_SUCH_TOPIC, code::UNKNOWN_TOPIC_OR_PARTITION),
        (TOPIC, INVALID_NAME, code::INVALID_TOPIC_EXCEPTION),
        (TOPIC, &*longest, code::INVALID_TOPIC_EXCEPTION),
        (BROKER, "99", code::INVALID_REQUEST),
        (BROKER, "zero", code::INVALID_REQUEST),
        (BROKER, &*longest, code::INVALID_REQUEST),
        (77, "0", code::INVALID_REQUEST),
    ] {
        let result = ask_for(world, version, false, kind, name, None);
        assert_eq!((result.error_code, result.configs.len()), (expected, 0), "{kind} {name:.30}");
        let message = result.error_message.as_ref().expect("a message with the error");
        assert!(message.len() <= i16::MAX as usize, "{} bytes of message", message.len());
    }
}

fn ask_for(
    world: &mut World,
    version: i16,
    told: bool,
    kind: i8,
    name: &str,
    keys: Option<&[&str]>,
) -> DescribeConfigsResult {
    let resource = DescribeConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configuration_keys(keys.map(|keys| keys.iter().map(|key| text(key)).collect()));
    let request = DescribeConfigsRequest::default()
        .with_resources(vec![resource])
        .with_include_synonyms(told)
        .with_include_documentation(told && version >= 3);
    let mut response = world.client.call(version, &request);
    assert_eq!(response.results.len(), 1);
    let result = response.results.remove(0);
    assert_eq!((result.resource_type, &*result.resource_name), (kind, name));
    result
}

pub fn describe(
    world: &mut World,
    version: i16,
    told: bool,
    kind: i8,
    name: &str,
    keys: Option<&[&str]>,
) -> DescribeConfigsResult {
    let result = ask_for(world, version, told, kind, name, keys);
    // Kafka's is empty here rather than null.
    assert_eq!((result.error_code, result.error_message.as_deref().unwrap_or_default()), (0, ""));
    result
}

/// `(value, source, type)`; `told`: synonyms and documentation were asked for.
pub fn check_entry(version: i16, told: bool, result: &DescribeConfigsResult, name: &str, expected: (&str, i8, i8)) {
    let entry = result.configs.iter().find(|config| &*config.name == name).expect(name);
    let (value, source, kind) = expected;
    assert_eq!((entry.value.as_deref(), entry.config_source), (Some(value), source), "{name}");
    assert_eq!(entry.config_type, if version >= 3 { kind } else { 0 }, "{name}");
    assert!(!entry.is_sensitive);
    let documented = entry.documentation.as_ref().is_some_and(|text| !text.is_empty());
    assert_eq!(documented, told && version >= 3, "{name}");
    assert_eq!(!entry.synonyms.is_empty(), told, "{name}");
    if let Some(first) = entry.synonyms.first() {
        assert_eq!((first.value.as_deref(), first.source), (Some(value), source), "{name}");
    }
}

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// The outcome of one resource: error code, and whether there was a message.
fn alter(
    world: &mut World,
    version: i16,
    validate_only: bool,
    kind: i8,
    name: &str,
    changes: &[(&str, i8, Option<&str>)],
) -> i16 {
    let configs = changes.iter().map(|(option, operation, value)| {
        AlterableConfig::default().with_name(text(option)).with_config_operation(*operation).with_value(value.map(text))
    });
    let resource = AlterConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configs(configs.collect());
    let request =
        IncrementalAlterConfigsRequest::default().with_resources(vec![resource]).with_validate_only(validate_only);
    let response = world.client.call(version, &request);
    assert_eq!(response.responses.len(), 1);
    let result = &response.responses[0];
    assert_eq!((result.resource_type, &*result.resource_name), (kind, name));
    let message = result.error_message.as_deref();
    assert_eq!(message.is_some(), result.error_code != 0, "{message:?}");
    assert!(message.is_none_or(|message| message.len() <= i16::MAX as usize));
    result.error_code
}

pub fn incremental_alter_configs(world: &mut World, version: i16) {
    let topic = world.create(&format!("altered-{version}"), 2);
    let name = &*topic.name;
    let changes: &[(&str, i8, Option<&str>)] = &[
        ("retention.ms", SET, Some("123")),
        ("max.message.bytes", SET, Some("200")),
        ("cleanup.policy", APPEND, Some("delete")),
    ];
    assert_eq!(alter(world, version, true, TOPIC, name, changes), 0);
    check_entry(4, true, &describe(world, 4, true, TOPIC, name, None), "retention.ms", ("604800000", 5, 5));
    assert_eq!(alter(world, version, false, TOPIC, name, changes), 0);
    let told = describe(world, 4, true, TOPIC, name, None);
    check_entry(4, true, &told, "retention.ms", ("123", 1, 5));
    check_entry(4, true, &told, "cleanup.policy", ("delete", 1, 7));
    // In force at once, on every partition.
    let large = batch_of(&[(world.stock_time, "x".repeat(300))]);
    for partition in [0, 1] {
        assert_eq!(world.try_produce(&topic, partition, &large), (code::MESSAGE_TOO_LARGE, -1));
    }
    let back = [("max.message.bytes", DELETE, None), ("cleanup.policy", SUBTRACT, Some("compact"))];
    assert_eq!(alter(world, version, false, TOPIC, name, &back), 0);
    assert_eq!(world.produce(&topic, 1, &large), 0);
    let told = describe(world, 4, true, TOPIC, name, None);
    check_entry(4, true, &told, "max.message.bytes", ("1048588", 5, 3));

    let longest = longest();
    for (kind, name, change, expected) in [
        (TOPIC, name, ("retention.ms", SET, Some("soon")), code::INVALID_CONFIG),
        (TOPIC, name, ("retention.ms", APPEND, Some("5")), code::INVALID_CONFIG),
        (TOPIC, name, ("no.such.option", SET, Some("5")), code::INVALID_CONFIG),
        (TOPIC, name, (&*longest, SET, Some(&*longest)), code::INVALID_CONFIG),
        (TOPIC, name, ("retention.ms", SET, None), code::INVALID_REQUEST),
        (TOPIC, name, ("retention.ms", 9, Some("5")), code::INVALID_REQUEST),
        (TOPIC, NO_SUCH_TOPIC, ("retention.ms", SET, Some("5")), code::UNKNOWN_TOPIC_OR_PARTITION),
        (TOPIC, INVALID_NAME, ("retention.ms", SET, Some("5")), code::INVALID_TOPIC_EXCEPTION),
        (BROKER, "0", ("log.retention.ms", SET, Some("soon")), code::INVALID_REQUEST),
        (BROKER, "0", ("broker.rack", SET, Some("5")), code::INVALID_REQUEST),
        (77, "0", ("retention.ms", SET, Some("5")), code::INVALID_REQUEST),
    ] {
        assert_eq!(alter(world, version, false, kind, name, &[change]), expected, "{kind} {name:.30} {change:.60?}");
    }
    check_entry(4, true, &describe(world, 4, true, TOPIC, name, None), "retention.ms", ("123", 1, 5));
}
