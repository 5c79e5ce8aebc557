//! Answers that tell a client how long to wait.

use std::rc::Rc;

use kafka_protocol::messages::*;

use super::call::QuotaCall;
use crate::protocol::Newer;

/// An answer with a throttle time. Versions without the field leave it out.
pub trait Throttled {
    fn set_throttle_time(&mut self, ms: i32);
}

impl<T: Throttled> Throttled for Newer<T> {
    fn set_throttle_time(&mut self, ms: i32) {
        self.0.set_throttle_time(ms);
    }
}

macro_rules! throttled {
    ($($answer:ident,)*) => {
        $(impl Throttled for $answer {
            fn set_throttle_time(&mut self, ms: i32) {
                self.throttle_time_ms = ms;
            }
        })*
    };
}

throttled! {
    ApiVersionsResponse,
    ListOffsetsResponse,
    CreateTopicsResponse,
    DeleteTopicsResponse,
    CreatePartitionsResponse,
    OffsetForLeaderEpochResponse,
    DescribeConfigsResponse,
    IncrementalAlterConfigsResponse,
    AlterConfigsResponse,
    DeleteRecordsResponse,
    DescribeLogDirsResponse,
    AlterReplicaLogDirsResponse,
    DescribeProducersResponse,
    ListConfigResourcesResponse,
    ElectLeadersResponse,
    AlterPartitionReassignmentsResponse,
    UpdateFeaturesResponse,
    DescribeAclsResponse,
    CreateAclsResponse,
    DeleteAclsResponse,
    ListPartitionReassignmentsResponse,
    DescribeClientQuotasResponse,
    AlterClientQuotasResponse,
    DescribeUserScramCredentialsResponse,
    MetadataResponse,
    DescribeTopicPartitionsResponse,
    FindCoordinatorResponse,
    DescribeClusterResponse,
    InitProducerIdResponse,
    AddPartitionsToTxnResponse,
    AddOffsetsToTxnResponse,
    EndTxnResponse,
    DescribeTransactionsResponse,
    ListTransactionsResponse,
    TxnOffsetCommitResponse,
    JoinGroupResponse,
    SyncGroupResponse,
    HeartbeatResponse,
    LeaveGroupResponse,
    OffsetCommitResponse,
    OffsetFetchResponse,
    OffsetDeleteResponse,
    DescribeGroupsResponse,
    ListGroupsResponse,
    DeleteGroupsResponse,
    ConsumerGroupHeartbeatResponse,
    ConsumerGroupDescribeResponse,
}

impl Throttled for SaslHandshakeResponse {
    fn set_throttle_time(&mut self, _: i32) {}
}

/// The answer to a request that is worked off; `call`: of a client with quotas.
pub fn settled<A: Throttled>(call: Option<&Rc<QuotaCall>>, mut answer: A) -> A {
    if let Some(call) = call {
        answer.set_throttle_time(call.settle());
    }
    answer
}
