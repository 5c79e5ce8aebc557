//! AlterPartitionReassignments (KIP-455). The replicas of a broker that is alone stay where they
//! are, so no reassignment begins there and none can be cancelled.

use kafka_protocol::messages::alter_partition_reassignments_request::ReassignablePartition;
use kafka_protocol::messages::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use kafka_protocol::messages::{AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, ApiKey};

use crate::cluster::MetadataImage;
use crate::cluster::controller::{ControlError, check_assignment};
use crate::model::ErrorCode;
use crate::protocol::ApiSpec;
use crate::server::session::{Call, Session};
use crate::shard::Reassignment;

use super::shared::{control_error, error_message, no_time, patience};

pub const API: ApiSpec = ApiSpec::new(ApiKey::AlterPartitionReassignments, 0, 1);

pub async fn handle(
    session: &Session,
    Call { request, .. }: Call<AlterPartitionReassignmentsRequest>,
) -> AlterPartitionReassignmentsResponse {
    let shard = session.shard();
    if !shard.config.in_cluster() || no_time(request.timeout_ms).is_some() {
        return respond(&shard.image(), request);
    }
    let wanted = request.topics.iter().flat_map(|topic| {
        topic.partitions.iter().map(|partition| Reassignment {
            topic: topic.name.0.to_string(),
            partition: partition.partition_index,
            target: partition.replicas.as_ref().map(|ids| ids.iter().map(|id| id.0).collect()),
            may_change_factor: request.allow_replication_factor_change,
        })
    });
    let mut outcomes = shard.reassign_partitions(wanted.collect(), patience(request.timeout_ms)).await.into_iter();
    let responses = request.topics.into_iter().map(|topic| {
        let results = topic.partitions.iter().zip(outcomes.by_ref());
        let results = results.map(|(partition, outcome)| result(partition.partition_index, outcome)).collect();
        ReassignableTopicResponse::default().with_name(topic.name).with_partitions(results)
    });
    AlterPartitionReassignmentsResponse::default()
        .with_allow_replication_factor_change(request.allow_replication_factor_change)
        .with_error_message(None)
        .with_responses(responses.collect())
}

fn respond(image: &MetadataImage, request: AlterPartitionReassignmentsRequest) -> AlterPartitionReassignmentsResponse {
    let late = no_time(request.timeout_ms);
    let responses = request.topics.into_iter().map(|topic| {
        let results = topic.partitions.iter().map(|partition| {
            let outcome = match &late {
                Some(error) => Err(error.clone()),
                None => reassign(image, &topic.name.0, partition),
            };
            result(partition.partition_index, outcome)
        });
        let results = results.collect();
        ReassignableTopicResponse::default().with_name(topic.name).with_partitions(results)
    });
    let responses = responses.collect();
    AlterPartitionReassignmentsResponse::default()
        .with_allow_replication_factor_change(request.allow_replication_factor_change)
        .with_error_code(late.as_ref().map_or(0, |error| error.code.code()))
        .with_error_message(late.and_then(|error| error_message(error.message)))
        .with_responses(responses)
}

/// `Ok`: the replicas are where they are to be.
fn reassign(image: &MetadataImage, name: &str, wanted: &ReassignablePartition) -> Result<(), ControlError> {
    let index = wanted.partition_index;
    let unknown = |message: String| control_error(ErrorCode::UnknownTopicOrPartition, message);
    let topic = image.topic(name).ok_or_else(|| unknown(format!("Unable to find a topic named {name}.")))?;
    let partition = usize::try_from(index).ok().and_then(|at| topic.partitions.get(at));
    let partition = partition.ok_or_else(|| unknown(format!("Unable to find partition {name}:{index}.")))?;
    let Some(replicas) = &wanted.replicas else {
        return Err(control_error(ErrorCode::NoReassignmentInProgress, "No partition reassignment is in progress."));
    };
    let replicas: Vec<i32> = replicas.iter().map(|id| id.0).collect();
    check_assignment(image, &replicas, &partition.replicas)?;
    if partition.replicas.iter().map(|id| id.0).eq(replicas) {
        return Ok(());
    }
    let message = "This broker is alone: its replicas cannot be moved to another one.";
    Err(control_error(ErrorCode::InvalidReplicaAssignment, message))
}

fn result(index: i32, outcome: Result<(), ControlError>) -> ReassignablePartitionResponse {
    let result = ReassignablePartitionResponse::default().with_partition_index(index);
    match outcome {
        Ok(()) => result.with_error_message(None),
        Err(error) => result.with_error_code(error.code.code()).with_error_message(error_message(error.message)),
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::BrokerId;
    use kafka_protocol::messages::alter_partition_reassignments_request::ReassignableTopic;

    use super::super::shared::testing::{image, through_the_wire};
    use super::super::shared::topic_name;
    use super::*;

    /// The errors of the whole and of each partition; `None` cancels.
    fn ask(version: i16, timeout_ms: i32, name: &str, wanted: &[(i32, Option<&[i32]>)]) -> (i16, Vec<i16>) {
        let partitions = wanted.iter().map(|(index, replicas)| {
            let replicas = replicas.map(|ids| ids.iter().map(|id| BrokerId(*id)).collect());
            ReassignablePartition::default().with_partition_index(*index).with_replicas(replicas)
        });
        let topic = ReassignableTopic::default().with_name(topic_name(name)).with_partitions(partitions.collect());
        let request =
            AlterPartitionReassignmentsRequest::default().with_timeout_ms(timeout_ms).with_topics(vec![topic]);
        let seen = respond(&image(&[("a", 1, 2)]), request);
        let seen = through_the_wire(ApiKey::AlterPartitionReassignments, version, &seen);
        let codes = seen.responses.iter().flat_map(|topic| topic.partitions.iter().map(|p| p.error_code));
        (seen.error_code, codes.collect())
    }

    #[test]
    fn replicas_stay_where_they_are() {
        for version in API.min..=API.max {
            let wanted: &[(i32, Option<&[i32]>)] = &[
                (0, Some(&[7])),
                (1, Some(&[8])),
                (1, Some(&[7, 8])),
                (1, Some(&[])),
                (1, Some(&[7, 7])),
                (1, None),
                (2, Some(&[7])),
                (-1, None),
            ];
            assert_eq!(ask(version, 1000, "a", wanted), (0, vec![0, 39, 39, 39, 39, 85, 3, 3]));
            assert_eq!(ask(version, 1000, "no", &[(0, Some(&[7])), (0, None)]), (0, vec![3, 3]));
            assert_eq!(ask(version, 0, "a", &[(0, Some(&[7]))]), (7, vec![7]));
        }
    }
}
