//! Metadata, ApiVersions, DescribeCluster, FindCoordinator, InitProducerId.

use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::MetadataResponseTopic;
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, DescribeClusterRequest, FindCoordinatorRequest, InitProducerIdRequest, MetadataRequest,
    MetadataResponse, TransactionalId,
};
use uuid::Uuid;

use crate::support::world::*;
use crate::transactions::initialized;

const INVALID_TRANSACTION_TIMEOUT: i16 = 50;

pub fn metadata(world: &mut World, version: i16) {
    let stock = (world.stock.name.clone(), world.stock.id);
    // All topics: null, and before there was null, none.
    let all = ask(world, version, if version == 0 { Some(vec![]) } else { None }, false);
    let found = all.topics.iter().find(|topic| topic.name.as_ref().is_some_and(|name| *name.0 == *stock.0));
    check_stock(world, version, found.expect("stock is among all topics"));
    if version >= 1 {
        assert_eq!(ask(world, version, Some(vec![]), false).topics.len(), 0, "no topics asked for");
    }
    let named = ask(world, version, Some(vec![by_name(&stock.0)]), false);
    assert_eq!(named.topics.len(), 1);
    check_stock(world, version, &named.topics[0]);
    metadata_of_the_unknown(world, version);
    metadata_by_id(world, version);
}

fn by_name(name: &str) -> MetadataRequestTopic {
    MetadataRequestTopic::default().with_name(Some(topic_name(name)))
}

fn by_id(id: Uuid) -> MetadataRequestTopic {
    MetadataRequestTopic::default().with_name(None).with_topic_id(id)
}

/// Asks, and checks what stands in every answer.
fn ask(
    world: &mut World,
    version: i16,
    topics: Option<Vec<MetadataRequestTopic>>,
    may_create: bool,
) -> MetadataResponse {
    let request = MetadataRequest::default()
        .with_topics(topics)
        .with_allow_auto_topic_creation(may_create || version < 4)
        .with_include_cluster_authorized_operations((8..=10).contains(&version))
        .with_include_topic_authorized_operations(version >= 8);
    let response = world.client.call(version, &request);
    assert_eq!((response.throttle_time_ms, response.error_code, response.brokers.len()), (0, 0, 1));
    let broker = &response.brokers[0];
    assert_eq!((broker.node_id.0, &*broker.host, broker.port), (BROKER_ID, "127.0.0.1", i32::from(world.port)));
    assert_eq!(broker.rack.as_deref(), (version >= 1).then_some("north"));
    assert_eq!(response.controller_id.0, if version >= 1 { BROKER_ID } else { -1 });
    let refused = response.topics.iter().any(|topic| topic.error_code == code::INVALID_REQUEST);
    let of_cluster = if (8..=10).contains(&version) && !refused { 8096 } else { i32::MIN };
    assert_eq!(response.cluster_authorized_operations, of_cluster);
    assert_eq!(response.cluster_id.as_ref().is_some_and(|id| !id.is_empty()), version >= 2);
    response
}

fn check_stock(world: &World, version: i16, topic: &MetadataResponseTopic) {
    assert_eq!(topic.topic_authorized_operations, if version >= 8 { 3576 } else { i32::MIN });
    assert_eq!((topic.error_code, topic.is_internal, topic.partitions.len()), (0, false, 2));
    assert_eq!(topic.name.as_ref().map(|name| &*name.0), Some(&*world.stock.name));
    assert_eq!(topic.topic_id, if version >= 10 { world.stock.id } else { Uuid::nil() });
    for (index, partition) in (0..).zip(&topic.partitions) {
        assert_eq!((partition.error_code, partition.partition_index), (0, index));
        assert_eq!((partition.leader_id.0, partition.leader_epoch), (BROKER_ID, if version >= 7 { 0 } else { -1 }));
        assert_eq!(partition.replica_nodes, [BROKER_ID]);
        assert_eq!(partition.isr_nodes, [BROKER_ID]);
        assert!(partition.offline_replicas.is_empty());
    }
}

fn metadata_of_the_unknown(world: &mut World, version: i16) {
    let new = format!("auto-{version}");
    let longest = longest();
    let invalid = code::INVALID_TOPIC_EXCEPTION;
    if version >= 4 {
        // The client may say that nothing is to be created.
        let response = ask(world, version, Some(vec![by_name(&new)]), false);
        let topic = &response.topics[0];
        assert_eq!((topic.error_code, topic.partitions.len()), (code::UNKNOWN_TOPIC_OR_PARTITION, 0));
        assert_eq!(topic.name.as_ref().map(|name| &*name.0), Some(&*new));
        assert_eq!(world.partitions_of(&new), None);
    }
    let asked = [&*new, INVALID_NAME, &longest, ""];
    let response = ask(world, version, Some(asked.map(by_name).to_vec()), true);
    let name = |topic: &MetadataResponseTopic| topic.name.as_ref().unwrap().0.to_string();
    let mut rows: Vec<_> = response.topics.iter().map(|t| (name(t), t.error_code, t.partitions.len())).collect();
    rows.sort();
    let mut expected = vec![
        (new.clone(), 0, 1),
        (INVALID_NAME.into(), invalid, 0),
        (longest, invalid, 0),
        (String::new(), invalid, 0),
    ];
    expected.sort();
    assert_eq!(rows, expected);
    assert_eq!(world.partitions_of(&new), Some(1));
}

fn metadata_by_id(world: &mut World, version: i16) {
    let id = world.stock.id;
    match version {
        ..10 => {}
        // The field is there, and may not be used yet.
        10 | 11 => {
            for (name, told) in [(Some(topic_name("stock")), "stock"), (None, "")] {
                let response = ask(world, version, Some(vec![by_id(id).with_name(name)]), false);
                let topic = &response.topics[0];
                assert_eq!((topic.error_code, topic.topic_id), (code::INVALID_REQUEST, id));
                // A response cannot do without a name yet.
                assert_eq!(topic.name.as_ref().map(|name| &*name.0), Some(told));
            }
        }
        12.. => {
            let response = ask(world, version, Some(vec![by_id(id), by_id(NO_SUCH_ID)]), true);
            assert_eq!(response.topics.len(), 2);
            let (known, unknown) = match &response.topics[..] {
                [first, second] if first.topic_id == id => (first, second),
                topics => (&topics[1], &topics[0]),
            };
            check_stock(world, version, known);
            assert_eq!((unknown.error_code, unknown.topic_id), (code::UNKNOWN_TOPIC_ID, NO_SUCH_ID));
            assert_eq!(unknown.name, None);
        }
    }
}

pub fn api_versions(world: &mut World, version: i16) {
    let named = |name: &str, release: &str| {
        ApiVersionsRequest::default().with_client_software_name(text(name)).with_client_software_version(text(release))
    };
    let response = world.client.call(version, &named("every-version", "1.0"));
    assert_eq!((response.error_code, response.throttle_time_ms), (0, 0));
    let found = |key: ApiKey| {
        let range = response.api_keys.iter().find(|range| range.api_key == key as i16);
        range.map(|range| (range.min_version, range.max_version))
    };
    assert_eq!((found(ApiKey::ApiVersions), found(ApiKey::Produce)), (Some((0, 4)), Some((0, 13))));
    assert!(response.api_keys.is_sorted_by_key(|range| range.api_key));

    let unsound = world.client.call(version, &named("-every version-", ""));
    assert_eq!(unsound.error_code, if version >= 3 { code::INVALID_REQUEST } else { 0 });

    // A version of the future is answered in the shape of the past, with what there is (KIP-511).
    world.client.send_body(ApiKey::ApiVersions as i16, 100, 2, &[0xff, 0xff, 0xff]);
    let refused = world.client.receive::<ApiVersionsRequest>(100, 0);
    assert_eq!(refused.error_code, code::UNSUPPORTED_VERSION);
    assert_eq!(refused.api_keys, response.api_keys);
}

pub fn describe_cluster(world: &mut World, version: i16) {
    let request = DescribeClusterRequest::default()
        .with_include_cluster_authorized_operations(true)
        .with_include_fenced_brokers(version >= 2);
    let response = world.client.call(version, &request);
    assert_eq!((response.error_code, &response.error_message), (0, &None));
    assert_eq!((response.endpoint_type, response.controller_id.0), (1, BROKER_ID));
    assert!(!response.cluster_id.is_empty());
    assert_eq!((response.brokers.len(), response.cluster_authorized_operations), (1, 8096));
    let broker = &response.brokers[0];
    assert_eq!((broker.broker_id.0, &*broker.host, broker.port), (BROKER_ID, "127.0.0.1", i32::from(world.port)));
    assert_eq!((broker.rack.as_deref(), broker.is_fenced), (Some("north"), false));

    if version >= 1 {
        for (endpoint, expected) in [(2, code::MISMATCHED_ENDPOINT_TYPE), (9, code::UNSUPPORTED_ENDPOINT_TYPE)] {
            let response = world.client.call(version, &DescribeClusterRequest::default().with_endpoint_type(endpoint));
            assert_eq!((response.error_code, response.brokers.len()), (expected, 0));
            assert!(response.error_message.is_some());
        }
    }
}

pub fn find_coordinator(world: &mut World, version: i16) {
    // Groups and, since v1, transactional ids; then a type that there is not.
    let known: &[i8] = if version >= 1 { &[0, 1] } else { &[0] };
    let place = (BROKER_ID, "127.0.0.1".to_owned(), i32::from(world.port));
    for kind in known {
        assert_eq!(coordinators(world, version, *kind), [(0, place.clone()), (0, place.clone())], "type {kind}");
    }
    if version >= 1 {
        let nowhere = (-1, String::new(), -1);
        let refused = (code::INVALID_REQUEST, nowhere);
        assert_eq!(coordinators(world, version, 9), [refused.clone(), refused]);
    }
}

/// The error and the coordinator of two keys, one of them as long as can be: in
/// one request from v4 on.
fn coordinators(world: &mut World, version: i16, kind: i8) -> Vec<(i16, (i32, String, i32))> {
    let keys = [text("a"), text(&longest())];
    let request = FindCoordinatorRequest::default().with_key_type(kind);
    if version >= 4 {
        let response = world.client.call(version, &request.with_coordinator_keys(keys.to_vec()));
        assert_eq!(response.coordinators.iter().map(|c| c.key.clone()).collect::<Vec<_>>(), keys);
        let row = response.coordinators.iter().map(|c| {
            assert!(c.error_code == 0 || c.error_message.is_some(), "{c:?}");
            (c.error_code, (c.node_id.0, c.host.to_string(), c.port))
        });
        return row.collect();
    }
    let one = |key: &kafka_protocol::protocol::StrBytes| {
        let response = world.client.call(version, &request.clone().with_key(key.clone()));
        assert!(response.error_code == 0 || version < 1 || response.error_message.is_some(), "{response:?}");
        (response.error_code, (response.node_id.0, response.host.to_string(), response.port))
    };
    keys.iter().map(one).collect()
}

pub fn init_producer_id(world: &mut World, version: i16) {
    let request = || InitProducerIdRequest::default().with_transactional_id(None).with_transaction_timeout_ms(i32::MAX);
    let mut last = -1;
    for _ in 0..2 {
        let response = world.client.call(version, &request());
        assert_eq!((response.error_code, response.producer_epoch), (0, 0));
        assert!(response.producer_id.0 > last, "{} after {last}", response.producer_id.0);
        last = response.producer_id.0;
    }
    if version >= 3 {
        let with_own = request().with_producer_id(last.into()).with_producer_epoch(3);
        let response = world.client.call(version, &with_own);
        assert_eq!((response.error_code, response.producer_epoch), (0, 0));
        assert!(response.producer_id.0 > last);
        // An id without its epoch, or an epoch without its id, says nothing.
        for half in [request().with_producer_id(last.into()), request().with_producer_epoch(3)] {
            refused(world, version, &half, code::INVALID_REQUEST);
        }
    }
    let transactional = |id: &str| request().with_transactional_id(Some(TransactionalId(text(id))));
    refused(world, version, &transactional(""), code::INVALID_REQUEST);
    // For longer than `transaction.max.timeout.ms`.
    refused(world, version, &transactional("t"), INVALID_TRANSACTION_TIMEOUT);
    for id in [&*format!("init-{version}"), &longest()] {
        let (error, (first, epoch)) = initialized(world, version, id);
        assert_eq!((error, epoch >= 0), (0, true));
        assert_eq!(initialized(world, version, id), (0, (first, epoch + 1)));
    }
}

fn refused(world: &mut World, version: i16, request: &InitProducerIdRequest, expected: i16) {
    let response = world.client.call(version, request);
    assert_eq!((response.error_code, response.producer_id.0, response.producer_epoch), (expected, -1, -1));
}
