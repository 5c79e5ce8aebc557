//! The errors that an answer tells of, for the metrics: those that Kafka's own responses count
//! (`errorCounts`), but for NONE.

use kafka_protocol::messages::*;

use crate::protocol::Newer;

/// An answer with its errors.
pub trait Errors {
    /// Calls `note` with each code that is not NONE.
    fn each(&self, note: &mut impl FnMut(i16));
}

impl<T: Errors> Errors for Newer<T> {
    fn each(&self, note: &mut impl FnMut(i16)) {
        self.0.each(note);
    }
}

/// `list . list . field` of an answer.
macro_rules! look {
    ($value:expr, $note:ident, $field:ident) => {
        if $value.$field != 0 {
            $note($value.$field);
        }
    };
    ($value:expr, $note:ident, $list:ident $($rest:ident)+) => {
        for part in &$value.$list {
            look!(part, $note, $($rest)+);
        }
    };
}

macro_rules! errors {
    ($($answer:ident: $([$($path:ident)+])+;)*) => {
        $(impl Errors for $answer {
            fn each(&self, note: &mut impl FnMut(i16)) {
                $(look!(self, note, $($path)+);)+
            }
        })*
    };
}

errors! {
    ApiVersionsResponse: [error_code];
    ListOffsetsResponse: [topics partitions error_code];
    CreateTopicsResponse: [topics error_code];
    DeleteTopicsResponse: [responses error_code];
    CreatePartitionsResponse: [results error_code];
    OffsetForLeaderEpochResponse: [topics partitions error_code];
    DescribeConfigsResponse: [results error_code];
    IncrementalAlterConfigsResponse: [responses error_code];
    AlterConfigsResponse: [responses error_code];
    DeleteRecordsResponse: [topics partitions error_code];
    DescribeLogDirsResponse: [error_code] [results error_code];
    AlterReplicaLogDirsResponse: [results partitions error_code];
    DescribeProducersResponse: [topics partitions error_code];
    ListConfigResourcesResponse: [error_code];
    ElectLeadersResponse: [error_code] [replica_election_results partition_result error_code];
    AlterPartitionReassignmentsResponse: [error_code] [responses partitions error_code];
    UpdateFeaturesResponse: [error_code] [results error_code];
    DescribeAclsResponse: [error_code];
    CreateAclsResponse: [results error_code];
    DeleteAclsResponse: [filter_results error_code];
    ListPartitionReassignmentsResponse: [error_code];
    DescribeClientQuotasResponse: [error_code];
    AlterClientQuotasResponse: [entries error_code];
    DescribeUserScramCredentialsResponse: [error_code] [results error_code];
    SaslHandshakeResponse: [error_code];
    MetadataResponse: [error_code] [topics error_code] [topics partitions error_code];
    DescribeTopicPartitionsResponse: [topics error_code] [topics partitions error_code];
    FindCoordinatorResponse: [error_code] [coordinators error_code];
    DescribeClusterResponse: [error_code];
    InitProducerIdResponse: [error_code];
    AddPartitionsToTxnResponse: [error_code] [results_by_topic_v3_and_below results_by_partition partition_error_code]
        [results_by_transaction topic_results results_by_partition partition_error_code];
    AddOffsetsToTxnResponse: [error_code];
    EndTxnResponse: [error_code];
    DescribeTransactionsResponse: [transaction_states error_code];
    ListTransactionsResponse: [error_code];
    JoinGroupResponse: [error_code];
    SyncGroupResponse: [error_code];
    HeartbeatResponse: [error_code];
    LeaveGroupResponse: [error_code] [members error_code];
    OffsetCommitResponse: [topics partitions error_code];
    OffsetFetchResponse: [error_code] [topics partitions error_code] [groups error_code] [groups topics partitions error_code];
    TxnOffsetCommitResponse: [topics partitions error_code];
    OffsetDeleteResponse: [error_code] [topics partitions error_code];
    DescribeGroupsResponse: [groups error_code];
    ListGroupsResponse: [error_code];
    DeleteGroupsResponse: [results error_code];
    ConsumerGroupHeartbeatResponse: [error_code];
    ConsumerGroupDescribeResponse: [groups error_code];
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::messages::metadata_response::{MetadataResponsePartition, MetadataResponseTopic};

    #[test]
    fn errors_are_found_at_every_depth_and_none_is_no_error() {
        let partition = |code| MetadataResponsePartition::default().with_error_code(code);
        let topic =
            MetadataResponseTopic::default().with_error_code(0).with_partitions(vec![partition(5), partition(0)]);
        let unknown = MetadataResponseTopic::default().with_error_code(3);
        let answer = MetadataResponse::default().with_topics(vec![topic, unknown]);
        let mut seen = Vec::new();
        answer.each(&mut |code| seen.push(code));
        assert_eq!(seen, [3, 5]);
        seen.clear();
        HeartbeatResponse::default().with_error_code(27).each(&mut |code| seen.push(code));
        HeartbeatResponse::default().each(&mut |code| seen.push(code));
        assert_eq!(seen, [27]);
    }
}
