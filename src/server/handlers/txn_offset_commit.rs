//! TxnOffsetCommit: offsets of a group that count when the transaction is
//! committed (KIP-98, KIP-447).

use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_commit_response::OffsetCommitResponseTopic;
use kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use kafka_protocol::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use kafka_protocol::messages::{ApiKey, OffsetCommitRequest, TxnOffsetCommitRequest, TxnOffsetCommitResponse};

use super::offset_commit::{MEMBER_EPOCHS_FROM, merge_outcomes, split_request};
use super::shared::transactional_id;
use crate::groups::api::{CommitReply, CommitRequest};
use crate::model::ErrorCode;
use crate::protocol::ApiSpec;
use crate::server::session::{Call, Session};
use crate::shard::RequestTransaction;

pub const API: ApiSpec = ApiSpec::new(ApiKey::TxnOffsetCommit, 0, 5).in_line();

/// From here on the partition of the offsets is added to the transaction by the way (KIP-890).
const ADDS_FROM: i16 = 5;
/// TRANSACTION_ABORTABLE is known from here on.
const ABORTABLE_FROM: i16 = 4;
/// COORDINATOR_LOAD_IN_PROGRESS crashed clients of earlier versions (KAFKA-7296).
const LOADING_FROM: i16 = 2;

pub async fn handle(
    session: &Session,
    Call { version, request }: Call<TxnOffsetCommitRequest>,
) -> TxnOffsetCommitResponse {
    let producer = (request.producer_id.0, request.producer_epoch);
    let id = transactional_id(&request.transactional_id);
    // A commit like any other, but for the transaction.
    let (mut topics, commit) = split_request(&session.shard().image(), MEMBER_EPOCHS_FROM, plain(request));
    let commit = id.and_then(|id| commit.map(|commit| (id, commit)));
    match commit {
        Ok((_, commit)) if commit.topics.is_empty() => {}
        Ok((id, commit)) => {
            let transaction =
                RequestTransaction { id, adds: version >= ADDS_FROM, knows_abortable: version >= ABORTABLE_FROM };
            let commit = CommitRequest { producer: Some(producer), ..commit };
            merge_outcomes(&mut topics, ask(session, transaction, commit).await);
        }
        Err(code) => merge_outcomes(&mut topics, Err(code)),
    }
    respond(version, topics)
}

async fn ask(
    session: &Session,
    transaction: RequestTransaction,
    commit: CommitRequest,
) -> Result<CommitReply, ErrorCode> {
    if commit.group.is_empty() {
        session.check()?;
        return Err(ErrorCode::InvalidGroupId);
    }
    let adds = transaction.adds;
    session.commit_in_transaction(commit, transaction).await.map_err(|code| match code {
        // Older clients do not take it for a reason to send again.
        ErrorCode::ConcurrentTransactions if !adds => ErrorCode::CoordinatorNotAvailable,
        code => code,
    })
}

fn plain(request: TxnOffsetCommitRequest) -> OffsetCommitRequest {
    let partition = |partition: TxnOffsetCommitRequestPartition| {
        OffsetCommitRequestPartition::default()
            .with_partition_index(partition.partition_index)
            .with_committed_offset(partition.committed_offset)
            .with_committed_leader_epoch(partition.committed_leader_epoch)
            .with_committed_metadata(partition.committed_metadata)
    };
    let topic = |topic: TxnOffsetCommitRequestTopic| {
        let partitions = topic.partitions.into_iter().map(partition).collect();
        OffsetCommitRequestTopic::default().with_name(topic.name).with_partitions(partitions)
    };
    OffsetCommitRequest::default()
        .with_group_id(request.group_id)
        .with_generation_id_or_member_epoch(request.generation_id)
        .with_member_id(request.member_id)
        .with_group_instance_id(request.group_instance_id)
        .with_topics(request.topics.into_iter().map(topic).collect())
}

fn respond(version: i16, topics: Vec<OffsetCommitResponseTopic>) -> TxnOffsetCommitResponse {
    let known = |code: i16| match code == ErrorCode::CoordinatorLoadInProgress.code() && version < LOADING_FROM {
        true => ErrorCode::CoordinatorNotAvailable.code(),
        false => code,
    };
    let topics = topics.into_iter().map(|topic| {
        let partitions = topic.partitions.into_iter().map(|partition| {
            TxnOffsetCommitResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(known(partition.error_code))
        });
        TxnOffsetCommitResponseTopic::default().with_name(topic.name).with_partitions(partitions.collect())
    });
    TxnOffsetCommitResponse::default().with_topics(topics.collect())
}

#[cfg(test)]
mod tests {
    use super::super::shared::testing::{image, through_the_wire};
    use super::super::shared::{text, topic_name, wire_group_id};
    use super::*;

    #[test]
    fn it_is_a_commit_like_any_other() {
        let image = image(&[("a", 1, 3)]);
        let partition = |index: i32| {
            TxnOffsetCommitRequestPartition::default()
                .with_partition_index(index)
                .with_committed_offset(7)
                .with_committed_leader_epoch(4)
                .with_committed_metadata(Some(text("note")))
        };
        let topic = TxnOffsetCommitRequestTopic::default()
            .with_name(topic_name("a"))
            .with_partitions(vec![partition(1), partition(9)]);
        let request = TxnOffsetCommitRequest::default()
            .with_group_id(wire_group_id("g"))
            .with_generation_id(3)
            .with_member_id(text("m"))
            .with_topics(vec![topic]);
        let (topics, commit) = split_request(&image, MEMBER_EPOCHS_FROM, plain(request));
        let commit = commit.unwrap();
        assert_eq!((&*commit.group, commit.generation, &*commit.member_id), ("g", 3, "m"));
        assert_eq!((commit.retention_ms, commit.topics.len()), (None, 1));
        let asked = &commit.topics[0].partitions[0];
        assert_eq!((asked.index, asked.offset, asked.leader_epoch, &*asked.metadata), (1, 7, 4, "note"));
        for version in API.min..=API.max {
            let mut topics = topics.clone();
            merge_outcomes(&mut topics, Err(ErrorCode::CoordinatorLoadInProgress));
            let seen = through_the_wire(API.key, version, &respond(version, topics));
            let codes: Vec<i16> = seen.topics[0].partitions.iter().map(|partition| partition.error_code).collect();
            assert_eq!(codes, [if version >= 2 { 14 } else { 15 }, 3], "v{version}");
        }
    }
}
