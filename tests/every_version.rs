//! Every API that ApiVersions names, in every version that it names, against the broker as a
//! process: a request that succeeds and one that fails, each answered in the shape of its version
//! to the last byte, with Kafka's error codes, on one connection that outlives it all.
//!
//! An API without a case below fails and says so. A new version of one is asked for by itself, but
//! only what its case looks at is looked at.

// Helpers of tests, where a failure is a failed test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

#[path = "every_version/about.rs"]
mod about;
#[path = "every_version/absent.rs"]
mod absent;
#[path = "every_version/admin.rs"]
mod admin;
#[path = "every_version/committed.rs"]
mod committed;
#[path = "every_version/data.rs"]
mod data;
#[path = "every_version/groups.rs"]
mod groups;
#[path = "every_version/in_line.rs"]
mod in_line;
#[path = "every_version/markers.rs"]
mod markers;
#[path = "every_version/offsets.rs"]
mod offsets;
#[path = "every_version/quotas.rs"]
mod quotas;
#[path = "every_version/topics.rs"]
mod topics;
#[path = "every_version/transactions.rs"]
mod transactions;

use std::panic::{AssertUnwindSafe, catch_unwind};

use kafka_protocol::messages::{ApiKey, ApiVersionsRequest};

use support::broker::Broker;
use support::client::name_of;
use support::world::World;

/// One version of one API.
type Case = fn(&mut World, i16);

const CASES: &[(ApiKey, Case)] = &[
    (ApiKey::Produce, data::produce),
    (ApiKey::Fetch, data::fetch),
    (ApiKey::ListOffsets, offsets::list_offsets),
    (ApiKey::Metadata, about::metadata),
    (ApiKey::ApiVersions, about::api_versions),
    (ApiKey::CreateTopics, topics::create_topics),
    (ApiKey::DeleteTopics, topics::delete_topics),
    (ApiKey::InitProducerId, about::init_producer_id),
    (ApiKey::OffsetForLeaderEpoch, offsets::offset_for_leader_epoch),
    (ApiKey::FindCoordinator, about::find_coordinator),
    (ApiKey::DescribeConfigs, topics::describe_configs),
    (ApiKey::IncrementalAlterConfigs, topics::incremental_alter_configs),
    (ApiKey::AlterConfigs, admin::alter_configs),
    (ApiKey::DeleteRecords, admin::delete_records),
    (ApiKey::DescribeLogDirs, admin::describe_log_dirs),
    (ApiKey::AlterReplicaLogDirs, admin::alter_replica_log_dirs),
    (ApiKey::DescribeTopicPartitions, admin::describe_topic_partitions),
    (ApiKey::DescribeProducers, admin::describe_producers),
    (ApiKey::WriteTxnMarkers, markers::write_txn_markers),
    (ApiKey::AddPartitionsToTxn, transactions::add_partitions_to_txn),
    (ApiKey::AddOffsetsToTxn, transactions::add_offsets_to_txn),
    (ApiKey::EndTxn, transactions::end_txn),
    (ApiKey::TxnOffsetCommit, transactions::txn_offset_commit),
    (ApiKey::DescribeTransactions, transactions::describe_transactions),
    (ApiKey::ListTransactions, transactions::list_transactions),
    (ApiKey::ListConfigResources, admin::list_config_resources),
    (ApiKey::ElectLeaders, admin::elect_leaders),
    (ApiKey::AlterPartitionReassignments, admin::alter_partition_reassignments),
    (ApiKey::UpdateFeatures, admin::update_features),
    (ApiKey::CreatePartitions, topics::create_partitions),
    (ApiKey::DescribeCluster, about::describe_cluster),
    (ApiKey::SaslHandshake, absent::sasl_handshake),
    (ApiKey::DescribeAcls, absent::describe_acls),
    (ApiKey::CreateAcls, absent::create_acls),
    (ApiKey::DeleteAcls, absent::delete_acls),
    (ApiKey::ListPartitionReassignments, absent::list_partition_reassignments),
    (ApiKey::DescribeClientQuotas, quotas::describe_client_quotas),
    (ApiKey::AlterClientQuotas, quotas::alter_client_quotas),
    (ApiKey::DescribeUserScramCredentials, absent::describe_user_scram_credentials),
    (ApiKey::JoinGroup, groups::join_group),
    (ApiKey::SyncGroup, groups::sync_group),
    (ApiKey::Heartbeat, groups::heartbeat),
    (ApiKey::LeaveGroup, groups::leave_group),
    (ApiKey::DescribeGroups, groups::describe_groups),
    (ApiKey::ListGroups, groups::list_groups),
    (ApiKey::DeleteGroups, groups::delete_groups),
    (ApiKey::ConsumerGroupHeartbeat, groups::consumer_group_heartbeat),
    (ApiKey::ConsumerGroupDescribe, groups::consumer_group_describe),
    (ApiKey::OffsetCommit, committed::offset_commit),
    (ApiKey::OffsetFetch, committed::offset_fetch),
    (ApiKey::OffsetDelete, committed::offset_delete),
];

#[test]
fn requests_to_groups_wait_in_line_and_keep_nobody_else_waiting() {
    in_line::run();
}

#[test]
fn every_version_of_every_api_answers_as_kafka_does() {
    let mut broker = Broker::start();
    let mut world = World::new(broker.port);
    groups::find_coordinator(&mut world);
    let served = world.client.call(0, &ApiVersionsRequest::default()).api_keys;
    let mut problems = Vec::new();
    for (key, _) in CASES {
        if served.iter().all(|range| range.api_key != *key as i16) {
            problems.push(format!("{key:?} is not served any more"));
        }
    }
    let mut tried = 0;
    for range in &served {
        let Some((_, case)) = CASES.iter().find(|(key, _)| *key as i16 == range.api_key) else {
            problems.push(format!("{} is served, and no case here tries it", name_of(range.api_key)));
            continue;
        };
        for version in range.min_version..=range.max_version {
            tried += 1;
            // All that is wrong in one run; after a problem the connection may
            // be out of step or gone.
            if catch_unwind(AssertUnwindSafe(|| case(&mut world, version))).is_err() {
                problems.push(format!("{} v{version}: see above", name_of(range.api_key)));
                world.client.reconnect();
            }
        }
    }
    println!("{tried} versions of {} APIs", served.len());
    if !broker.runs() {
        problems.push("the broker has ended".to_owned());
    }
    let log = broker.log();
    for sign in ["cannot be encoded", "panicked"] {
        problems.extend(log.lines().filter(|line| line.contains(sign)).map(str::to_owned));
    }
    assert!(problems.is_empty(), "\n{}\n\nThe broker said:\n{log}", problems.join("\n"));
    assert!(tried > CASES.len(), "only {tried} versions");
}
