//! No request of at most 200 bytes makes a decoder ask for much memory, whatever
//! counts and lengths it claims.
//!
//! A test binary of its own, because it replaces the allocator.

// SAFETY of the whole file: the allocator below only measures, and hands every call on
// to the system's unchanged.
#![allow(unsafe_code)]
// Helpers of tests, where a failure is a failed test.
#![allow(clippy::unwrap_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use bytes::{Bytes, BytesMut};
use corelane::protocol::{fetch, guard, produce};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable, Message, StrBytes};

/// Far less than one forged count would ask for, far more than an honest frame of this size needs.
const ALLOWED_BYTES: usize = 1 << 20;
const FRAME_BYTES: usize = 200;

struct Counting;

thread_local! {
    static ASKED: Cell<usize> = const { Cell::new(0) };
}

/// Whether to grant it. What is refused aborts the test with the number of bytes, as it would abort
/// a broker; an allocator must not panic.
fn grant(bytes: usize) -> bool {
    ASKED.with(|asked| asked.set(asked.get().saturating_add(bytes)));
    bytes <= 16 * ALLOWED_BYTES
}

// SAFETY: see the top of the file.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if grant(layout.size()) { unsafe { System.alloc(layout) } } else { std::ptr::null_mut() }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_bytes: usize) -> *mut u8 {
        if grant(new_bytes) { unsafe { System.realloc(pointer, layout, new_bytes) } } else { std::ptr::null_mut() }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One decoder of one version, and a sound body for it.
struct Case {
    name: String,
    body: Bytes,
    decode: Box<dyn Fn(Bytes) -> bool>,
}

fn encoded<T: Encodable>(request: &T, version: i16) -> Bytes {
    let mut body = BytesMut::new();
    request.encode(&mut body, version).unwrap();
    assert!(body.len() <= FRAME_BYTES, "{} bytes", body.len());
    body.freeze()
}

/// `make` is given the version, because the crate refuses to encode fields that a version lacks.
fn guarded<T: Message + Encodable + Decodable>(cases: &mut Vec<Case>, api: ApiKey, make: impl Fn(i16) -> T) {
    for version in T::VERSIONS.min..=T::VERSIONS.max {
        cases.push(Case {
            name: format!("{api:?} v{version}"),
            body: encoded(&make(version), version),
            decode: Box::new(move |mut body| guard::decode::<T>(api, version, &mut body).is_ok()),
        });
    }
}

fn text(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

fn topic(name: &'static str) -> TopicName {
    TopicName(text(name))
}

fn cluster_cases(cases: &mut Vec<Case>) {
    guarded(cases, ApiKey::ApiVersions, |version| {
        let request = ApiVersionsRequest::default();
        if version < 3 { request } else { request.with_client_software_name(text("client")) }
    });
    guarded(cases, ApiKey::Metadata, |_| {
        let one = |name| metadata_request::MetadataRequestTopic::default().with_name(Some(topic(name)));
        MetadataRequest::default().with_topics(Some(vec![one("a"), one("bb"), one("ccc")]))
    });
    guarded(cases, ApiKey::DescribeCluster, |_| DescribeClusterRequest::default());
    absent_cases(cases);
    replica_cases(cases);
    guarded(cases, ApiKey::DescribeTopicPartitions, |_| {
        let one = |name| describe_topic_partitions_request::TopicRequest::default().with_name(topic(name));
        let cursor = describe_topic_partitions_request::Cursor::default().with_topic_name(topic("a"));
        DescribeTopicPartitionsRequest::default().with_topics(vec![one("a"), one("b")]).with_cursor(Some(cursor))
    });
    guarded(cases, ApiKey::AlterReplicaLogDirs, |_| {
        let topic = alter_replica_log_dirs_request::AlterReplicaLogDirTopic::default().with_partitions(vec![1, 2, 3]);
        let dir = alter_replica_log_dirs_request::AlterReplicaLogDir::default().with_path(text("/a"));
        let dir = dir.with_topics(vec![topic.clone(), topic]);
        AlterReplicaLogDirsRequest::default().with_dirs(vec![dir.clone(), dir])
    });
    guarded(cases, ApiKey::DescribeLogDirs, |_| {
        let one = describe_log_dirs_request::DescribableLogDirTopic::default().with_partitions(vec![1, 2, 3]);
        DescribeLogDirsRequest::default().with_topics(Some(vec![one.clone(), one]))
    });
    guarded(cases, ApiKey::DescribeConfigs, |_| {
        let keys = Some(vec![text("retention.ms"), text("b")]);
        let one = describe_configs_request::DescribeConfigsResource::default().with_configuration_keys(keys);
        DescribeConfigsRequest::default().with_resources(vec![one.clone(), one])
    });
    guarded(cases, ApiKey::AlterConfigs, |_| {
        let config = alter_configs_request::AlterableConfig::default().with_value(Some(text("1")));
        let one = alter_configs_request::AlterConfigsResource::default().with_configs(vec![config]);
        AlterConfigsRequest::default().with_resources(vec![one.clone(), one])
    });
    guarded(cases, ApiKey::IncrementalAlterConfigs, |_| {
        let config = incremental_alter_configs_request::AlterableConfig::default().with_value(Some(text("1")));
        let one = incremental_alter_configs_request::AlterConfigsResource::default().with_configs(vec![config]);
        IncrementalAlterConfigsRequest::default().with_resources(vec![one.clone(), one])
    });
}

fn absent_cases(cases: &mut Vec<Case>) {
    guarded(cases, ApiKey::SaslHandshake, |_| SaslHandshakeRequest::default().with_mechanism(text("PLAIN")));
    guarded(cases, ApiKey::DescribeAcls, |_| DescribeAclsRequest::default().with_host_filter(Some(text("h"))));
    guarded(cases, ApiKey::CreateAcls, |_| {
        let one = create_acls_request::AclCreation::default().with_host(text("*"));
        CreateAclsRequest::default().with_creations(vec![one.clone(), one])
    });
    guarded(cases, ApiKey::DeleteAcls, |_| {
        let one = delete_acls_request::DeleteAclsFilter::default().with_host_filter(Some(text("*")));
        DeleteAclsRequest::default().with_filters(vec![one.clone(), one])
    });
    guarded(cases, ApiKey::ListPartitionReassignments, |_| {
        let one = list_partition_reassignments_request::ListPartitionReassignmentsTopics::default();
        let one = one.with_name(topic("a")).with_partition_indexes(vec![1, 2]);
        ListPartitionReassignmentsRequest::default().with_topics(Some(vec![one.clone(), one]))
    });
    guarded(cases, ApiKey::DescribeClientQuotas, |_| {
        let one = describe_client_quotas_request::ComponentData::default().with_entity_type(text("user"));
        DescribeClientQuotasRequest::default().with_components(vec![one.clone(), one])
    });
    guarded(cases, ApiKey::AlterClientQuotas, |_| {
        let part = alter_client_quotas_request::EntityData::default().with_entity_type(text("user"));
        let op = alter_client_quotas_request::OpData::default().with_key(text("x"));
        let one = alter_client_quotas_request::EntryData::default().with_entity(vec![part]).with_ops(vec![op]);
        AlterClientQuotasRequest::default().with_entries(vec![one.clone(), one])
    });
    guarded(cases, ApiKey::DescribeUserScramCredentials, |_| {
        let one = describe_user_scram_credentials_request::UserName::default().with_name(text("a"));
        DescribeUserScramCredentialsRequest::default().with_users(Some(vec![one.clone(), one]))
    });
}

fn replica_cases(cases: &mut Vec<Case>) {
    guarded(cases, ApiKey::DescribeProducers, |_| {
        let one = describe_producers_request::TopicRequest::default().with_partition_indexes(vec![1, 2]);
        DescribeProducersRequest::default().with_topics(vec![one.clone(), one])
    });
    guarded(cases, ApiKey::ListConfigResources, |version| {
        let request = ListConfigResourcesRequest::default();
        if version < 1 { request } else { request.with_resource_types(vec![2, 4]) }
    });
    guarded(cases, ApiKey::ElectLeaders, |_| {
        let one = elect_leaders_request::TopicPartitions::default().with_partitions(vec![1, 2]);
        ElectLeadersRequest::default().with_topic_partitions(Some(vec![one.clone(), one]))
    });
    guarded(cases, ApiKey::AlterPartitionReassignments, |_| {
        let partition = alter_partition_reassignments_request::ReassignablePartition::default();
        let partition = partition.with_replicas(Some(vec![BrokerId(1), BrokerId(2)]));
        let one = alter_partition_reassignments_request::ReassignableTopic::default();
        let one = one.with_partitions(vec![partition.clone(), partition]);
        AlterPartitionReassignmentsRequest::default().with_topics(vec![one.clone(), one])
    });
    guarded(cases, ApiKey::UpdateFeatures, |_| {
        let one = update_features_request::FeatureUpdateKey::default().with_feature(text("a"));
        UpdateFeaturesRequest::default().with_feature_updates(vec![one.clone(), one])
    });
}

fn topic_cases(cases: &mut Vec<Case>) {
    guarded(cases, ApiKey::CreateTopics, |_| {
        let assignment = create_topics_request::CreatableReplicaAssignment::default()
            .with_broker_ids(vec![BrokerId(1), BrokerId(2)]);
        let config = create_topics_request::CreatableTopicConfig::default().with_value(Some(text("1")));
        let one = create_topics_request::CreatableTopic::default()
            .with_name(topic("a"))
            .with_assignments(vec![assignment])
            .with_configs(vec![config]);
        CreateTopicsRequest::default().with_topics(vec![one.clone(), one])
    });
    guarded(cases, ApiKey::DeleteTopics, |version| {
        let state = delete_topics_request::DeleteTopicState::default().with_name(Some(topic("a")));
        if version < 6 {
            DeleteTopicsRequest::default().with_topic_names(vec![topic("a"), topic("b")])
        } else {
            DeleteTopicsRequest::default().with_topics(vec![state.clone(), state])
        }
    });
    guarded(cases, ApiKey::CreatePartitions, |_| {
        let assignment =
            create_partitions_request::CreatePartitionsAssignment::default().with_broker_ids(vec![BrokerId(1)]);
        let one = create_partitions_request::CreatePartitionsTopic::default().with_assignments(Some(vec![assignment]));
        CreatePartitionsRequest::default().with_topics(vec![one.clone(), one])
    });
    guarded(cases, ApiKey::DeleteRecords, |_| {
        let one = delete_records_request::DeleteRecordsTopic::default().with_partitions(vec![Default::default(); 2]);
        DeleteRecordsRequest::default().with_topics(vec![one.clone(), one])
    });
    guarded(cases, ApiKey::ListOffsets, |_| {
        let one = list_offsets_request::ListOffsetsTopic::default().with_partitions(vec![Default::default(); 2]);
        ListOffsetsRequest::default().with_topics(vec![one.clone(), one])
    });
    guarded(cases, ApiKey::OffsetForLeaderEpoch, |_| {
        let one = offset_for_leader_epoch_request::OffsetForLeaderTopic::default()
            .with_partitions(vec![Default::default(); 2]);
        OffsetForLeaderEpochRequest::default().with_topics(vec![one.clone(), one])
    });
    guarded(cases, ApiKey::InitProducerId, |_| InitProducerIdRequest::default());
}

fn transaction_cases(cases: &mut Vec<Case>) {
    let id = || TransactionalId(text("tx"));
    guarded(cases, ApiKey::AddPartitionsToTxn, |version| {
        let topic = add_partitions_to_txn_request::AddPartitionsToTxnTopic::default().with_name(topic("a"));
        let topics = vec![topic.with_partitions(vec![1, 2]); 2];
        let request = AddPartitionsToTxnRequest::default();
        if version < 4 {
            return request.with_v3_and_below_transactional_id(id()).with_v3_and_below_topics(topics);
        }
        let one = add_partitions_to_txn_request::AddPartitionsToTxnTransaction::default();
        request.with_transactions(vec![one.with_transactional_id(id()).with_topics(topics); 2])
    });
    guarded(cases, ApiKey::AddOffsetsToTxn, |_| AddOffsetsToTxnRequest::default().with_transactional_id(id()));
    guarded(cases, ApiKey::EndTxn, |_| EndTxnRequest::default().with_transactional_id(id()));
    guarded(cases, ApiKey::TxnOffsetCommit, |_| {
        let one = txn_offset_commit_request::TxnOffsetCommitRequestTopic::default().with_name(topic("a"));
        let one = one.with_partitions(vec![Default::default(); 2]);
        TxnOffsetCommitRequest::default().with_transactional_id(id()).with_topics(vec![one.clone(), one])
    });
    guarded(cases, ApiKey::DescribeTransactions, |_| {
        DescribeTransactionsRequest::default().with_transactional_ids(vec![id(), id()])
    });
    guarded(cases, ApiKey::ListTransactions, |_| {
        let request = ListTransactionsRequest::default().with_state_filters(vec![text("Ongoing"), text("Empty")]);
        request.with_producer_id_filters(vec![ProducerId(1), ProducerId(2)])
    });
}

fn group_cases(cases: &mut Vec<Case>) {
    guarded(cases, ApiKey::FindCoordinator, |version| {
        let request = FindCoordinatorRequest::default();
        if version < 4 {
            request.with_key(text("g"))
        } else {
            request.with_coordinator_keys(vec![text("g"), text("h")])
        }
    });
    guarded(cases, ApiKey::ListGroups, |version| {
        let request = ListGroupsRequest::default();
        if version < 4 { request } else { request.with_states_filter(vec![text("Stable"), text("Empty")]) }
    });
    guarded(cases, ApiKey::DescribeGroups, |_| {
        DescribeGroupsRequest::default().with_groups(vec![GroupId(text("a")), GroupId(text("b"))])
    });
    guarded(cases, ApiKey::OffsetCommit, |_| {
        let one =
            offset_commit_request::OffsetCommitRequestTopic::default().with_partitions(vec![Default::default(); 2]);
        OffsetCommitRequest::default().with_topics(vec![one.clone(), one])
    });
    guarded(cases, ApiKey::OffsetFetch, |version| {
        let one = offset_fetch_request::OffsetFetchRequestTopic::default().with_partition_indexes(vec![1, 2]);
        let other = offset_fetch_request::OffsetFetchRequestTopics::default().with_partition_indexes(vec![1, 2]);
        let group = offset_fetch_request::OffsetFetchRequestGroup::default().with_topics(Some(vec![other; 2]));
        match version {
            ..8 => OffsetFetchRequest::default().with_topics(Some(vec![one; 2])),
            _ => OffsetFetchRequest::default().with_groups(vec![group; 2]),
        }
    });
    guarded(cases, ApiKey::JoinGroup, |_| {
        let protocol =
            join_group_request::JoinGroupRequestProtocol::default().with_metadata(Bytes::from_static(b"metadata"));
        JoinGroupRequest::default().with_protocols(vec![protocol.clone(), protocol])
    });
    guarded(cases, ApiKey::SyncGroup, |_| {
        let assignment =
            sync_group_request::SyncGroupRequestAssignment::default().with_assignment(Bytes::from_static(b"all"));
        SyncGroupRequest::default().with_assignments(vec![assignment.clone(), assignment])
    });
    guarded(cases, ApiKey::Heartbeat, |_| HeartbeatRequest::default().with_member_id(text("m")));
    guarded(cases, ApiKey::LeaveGroup, |version| {
        let member = leave_group_request::MemberIdentity::default().with_member_id(text("m"));
        if version < 3 {
            LeaveGroupRequest::default()
        } else {
            LeaveGroupRequest::default().with_members(vec![member; 2])
        }
    });
    guarded(cases, ApiKey::DeleteGroups, |_| {
        DeleteGroupsRequest::default().with_groups_names(vec![GroupId(text("a")), GroupId(text("b"))])
    });
    guarded(cases, ApiKey::OffsetDelete, |_| {
        let one =
            offset_delete_request::OffsetDeleteRequestTopic::default().with_partitions(vec![Default::default(); 2]);
        OffsetDeleteRequest::default().with_topics(vec![one.clone(), one])
    });
    guarded(cases, ApiKey::ConsumerGroupHeartbeat, |_| {
        let owned = consumer_group_heartbeat_request::TopicPartitions::default().with_partitions(vec![1, 2]);
        ConsumerGroupHeartbeatRequest::default()
            .with_subscribed_topic_names(Some(vec![topic("a"), topic("b")]))
            .with_topic_partitions(Some(vec![owned.clone(), owned]))
    });
    guarded(cases, ApiKey::ConsumerGroupDescribe, |_| {
        ConsumerGroupDescribeRequest::default().with_group_ids(vec![GroupId(text("a")), GroupId(text("b"))])
    });
}

fn data_cases(cases: &mut Vec<Case>) {
    for version in produce::MIN_VERSION..=produce::MAX_VERSION {
        let partition =
            produce_request::PartitionProduceData::default().with_records(Some(Bytes::from_static(b"records")));
        let one = produce_request::TopicProduceData::default().with_partition_data(vec![partition; 2]);
        let request = ProduceRequest::default().with_topic_data(vec![one; 2]);
        cases.push(Case {
            name: format!("Produce v{version}"),
            body: encoded(&request, version),
            decode: Box::new(move |body| produce::decode(version, body).is_ok()),
        });
    }
    for version in fetch::MIN_VERSION..=fetch::MAX_VERSION {
        let one = fetch_request::FetchTopic::default().with_partitions(vec![Default::default(); 2]);
        let mut request = FetchRequest::default().with_topics(vec![one]);
        if version >= 7 {
            let forgotten = fetch_request::ForgottenTopic::default().with_partitions(vec![1, 2]);
            request = request.with_forgotten_topics_data(vec![forgotten]);
        }
        cases.push(Case {
            name: format!("Fetch v{version}"),
            body: encoded(&request, version),
            decode: Box::new(move |body| fetch::decode(version, body).is_ok()),
        });
    }
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    cluster_cases(&mut cases);
    topic_cases(&mut cases);
    transaction_cases(&mut cases);
    group_cases(&mut cases);
    data_cases(&mut cases);
    assert!(cases.len() > 130, "only {} versions are covered", cases.len());
    cases
}

impl Case {
    /// Decodes, and holds the decoder to the allowed memory.
    fn run(&self, body: Vec<u8>) -> bool {
        let body = Bytes::from(body);
        let before = ASKED.with(Cell::get);
        let accepted = (self.decode)(body.clone());
        let asked = ASKED.with(Cell::get) - before;
        assert!(asked <= ALLOWED_BYTES, "{}: {asked} bytes for {body:?}", self.name);
        accepted
    }
}

#[test]
fn every_request_that_is_guarded_has_a_case() {
    let cases = cases();
    let has_case = |api: &ApiKey| cases.iter().any(|case| case.name.starts_with(&format!("{api:?} v")));
    let without: Vec<ApiKey> =
        ApiKey::iter().filter(|api| guard::versions(*api).is_some()).filter(|api| !has_case(api)).collect();
    assert!(without.is_empty(), "{without:?}");
}

#[test]
fn sound_bodies_are_accepted() {
    for case in cases() {
        assert!(case.run(case.body.to_vec()), "{}", case.name);
    }
}

#[test]
fn forged_counts_at_every_position_cost_no_memory() {
    for case in cases() {
        for at in 0..case.body.len() {
            for forged in [&[0x7f, 0xff, 0xff, 0xff][..], &[0, 0x0f, 0x42, 0x40], &[0, 0, 0, 200]] {
                let mut body = case.body.to_vec();
                let end = (at + forged.len()).min(body.len());
                body[at..end].copy_from_slice(&forged[..end - at]);
                case.run(body);
            }
            for forged in
                [&[0xff, 0xff, 0xff, 0xff, 0x0f][..], &[0xff, 0xff, 0xff, 0xff, 0x07], &[0xc0, 0x84, 0x3d], &[0xff]]
            {
                let spliced = [&case.body[..at], forged, &case.body[at + 1..]].concat();
                case.run(spliced);
            }
        }
    }
}

#[test]
fn noise_costs_no_memory() {
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for case in cases() {
        for round in 0..300 {
            // Zeros, small numbers and full bytes in turn: each gets further into other shapes.
            let mask = [0x00, 0x01, 0x03, 0xff][round % 4];
            let mut body: Vec<u8> = (0..next() as usize % (FRAME_BYTES + 1)).map(|_| next() as u8 & mask).collect();
            let kept = (next() as usize % (case.body.len() + 1)).min(body.len());
            body[..kept].copy_from_slice(&case.body[..kept]);
            case.run(body);
        }
    }
}
