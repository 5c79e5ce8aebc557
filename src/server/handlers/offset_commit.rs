//! OffsetCommit: how far a group has read.

use std::sync::Arc;

use kafka_protocol::messages::offset_commit_request::OffsetCommitRequestPartition;
use kafka_protocol::messages::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use kafka_protocol::messages::{ApiKey, OffsetCommitRequest, OffsetCommitResponse};

use crate::cluster::MetadataImage;
use crate::groups::api::{CommitPartition, CommitReply, CommitRequest, CommitTopic};
use crate::model::ErrorCode;
use crate::protocol::{ApiSpec, Newer};
use crate::server::session::{Call, Session};

use super::shared::{find_partition, group_id, instance_id, owned};

pub const API: ApiSpec = ApiSpec::new(ApiKey::OffsetCommit, 2, 10).in_line();

/// From here on topics are named by id (KIP-848).
const TOPIC_IDS_FROM: i16 = 10;

/// From here on a client of a consumer group knows what member epochs are (KIP-848).
pub(super) const MEMBER_EPOCHS_FROM: i16 = 9;
/// "As long as the broker keeps them."
const DEFAULT_RETENTION: i64 = -1;

pub async fn handle(
    session: &Session,
    Call { version, request: Newer(request) }: Call<Newer<OffsetCommitRequest>>,
) -> OffsetCommitResponse {
    let (mut topics, commit) = split_request(&session.shard().image(), version, request);
    match commit {
        Ok(commit) if commit.topics.is_empty() => {}
        Ok(commit) => merge_outcomes(&mut topics, session.ask(commit).await),
        Err(code) => merge_outcomes(&mut topics, Err(code)),
    }
    OffsetCommitResponse::default().with_topics(topics)
}

/// The request to the coordinator, and the response with places for the outcomes: those without an
/// error, in the same order. The offsets themselves are not looked at, as in Kafka.
pub(super) fn split_request(
    image: &MetadataImage,
    version: i16,
    request: OffsetCommitRequest,
) -> (Vec<OffsetCommitResponseTopic>, Result<CommitRequest, ErrorCode>) {
    let mut commits = Vec::new();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let found = match version {
            TOPIC_IDS_FROM.. => image.topic_by_id(topic.topic_id).ok_or(ErrorCode::UnknownTopicId),
            _ => image.find_topic(&topic.name.0),
        };
        let mut partitions = Vec::new();
        let places = topic.partitions.into_iter().map(|partition| {
            let checked = found.and_then(|found| find_partition(found, partition.partition_index));
            let place = OffsetCommitResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(checked.err().unwrap_or(ErrorCode::None).code());
            if checked.is_ok() {
                partitions.push(commit(partition));
            }
            place
        });
        let places = places.collect();
        let told = OffsetCommitResponseTopic::default().with_name(topic.name).with_topic_id(topic.topic_id);
        topics.push(told.with_partitions(places));
        if let (Ok(found), false) = (found, partitions.is_empty()) {
            commits.push(CommitTopic { name: Arc::clone(&found.name), id: found.id, partitions });
        }
    }
    let commit = instance_id(request.group_instance_id).map(|instance_id| CommitRequest {
        group: group_id(&request.group_id),
        generation: request.generation_id_or_member_epoch,
        member_id: request.member_id.to_string(),
        instance_id,
        retention_ms: Some(request.retention_time_ms).filter(|ms| *ms != DEFAULT_RETENTION),
        knows_member_epochs: version >= MEMBER_EPOCHS_FROM,
        producer: None,
        topics: commits,
    });
    (topics, commit)
}

fn commit(partition: OffsetCommitRequestPartition) -> CommitPartition {
    CommitPartition {
        index: partition.partition_index,
        offset: partition.committed_offset,
        leader_epoch: partition.committed_leader_epoch,
        metadata: owned(partition.committed_metadata).unwrap_or_default(),
    }
}

pub(super) fn merge_outcomes(topics: &mut [OffsetCommitResponseTopic], outcome: Result<CommitReply, ErrorCode>) {
    let (refused, reply) = match outcome {
        Ok(reply) => (None, reply),
        Err(code) => (Some(code), CommitReply { topics: Vec::new() }),
    };
    let mut outcomes = reply.topics.into_iter().flat_map(|topic| topic.partitions);
    let places = topics.iter_mut().flat_map(|topic| &mut topic.partitions).filter(|place| place.error_code == 0);
    for place in places {
        let code = match (refused, outcomes.next()) {
            (Some(code), _) => code,
            (None, Some((index, code))) if index == place.partition_index => code,
            // Never acknowledge what has no outcome.
            (None, _) => ErrorCode::UnknownServerError,
        };
        place.error_code = code.code();
    }
}

#[cfg(test)]
mod tests {
    use super::super::shared::testing::{id_of, image, through_the_wire};
    use super::super::shared::{text, topic_name, wire_group_id};
    use super::*;
    use crate::groups::api::TopicErrors;
    use kafka_protocol::messages::offset_commit_request::OffsetCommitRequestTopic;

    /// The ids of the tests' topics.
    fn id_by_name(name: &str) -> u128 {
        ["", "a", "b"].iter().position(|known| *known == name).unwrap_or(99) as u128
    }

    fn request(version: i16, topics: &[(&str, &[i32])]) -> OffsetCommitRequest {
        let partition = |index: &i32| {
            OffsetCommitRequestPartition::default()
                .with_partition_index(*index)
                .with_committed_offset(100 + i64::from(*index))
                .with_committed_leader_epoch(if version >= 6 { 4 } else { -1 })
                .with_committed_metadata((*index != 1).then(|| text("note")))
        };
        let topic = |(name, partitions): &(&str, &[i32])| {
            let topic = match version {
                10 => OffsetCommitRequestTopic::default().with_topic_id(id_of(id_by_name(name))),
                _ => OffsetCommitRequestTopic::default().with_name(topic_name(name)),
            };
            topic.with_partitions(partitions.iter().map(partition).collect())
        };
        OffsetCommitRequest::default()
            .with_group_id(wire_group_id("g"))
            .with_generation_id_or_member_epoch(3)
            .with_member_id(text("m"))
            .with_group_instance_id((version >= 7).then(|| text("i")))
            .with_topics(topics.iter().map(topic).collect())
    }

    #[test]
    fn a_request_is_understood_in_every_version() {
        let image = image(&[("a", 1, 3)]);
        for version in API.min..=API.max {
            let (_, commit) = split_request(&image, version, request(version, &[("a", &[0, 1])]));
            let commit = commit.unwrap();
            assert_eq!((&*commit.group, commit.generation, &*commit.member_id), ("g", 3, "m"));
            assert_eq!(commit.instance_id.as_deref(), (version >= 7).then_some("i"));
            assert_eq!((commit.retention_ms, commit.knows_member_epochs), (None, version >= 9));
            assert_eq!((&*commit.topics[0].name, commit.topics[0].id), ("a", id_of(1)));
            let rows: Vec<_> =
                commit.topics[0].partitions.iter().map(|p| (p.index, p.offset, p.leader_epoch, &*p.metadata)).collect();
            let epoch = if version >= 6 { 4 } else { -1 };
            assert_eq!(rows, [(0, 100, epoch, "note"), (1, 101, epoch, "")]);
        }
        let kept = request(2, &[("a", &[0])]).with_retention_time_ms(5000);
        assert_eq!(split_request(&image, 2, kept).1.unwrap().retention_ms, Some(5000));
    }

    #[test]
    fn what_does_not_exist_stays_here_and_the_rest_finds_its_places() {
        let image = image(&[("a", 1, 3), ("b", 2, 1)]);
        for version in API.min..=API.max {
            let asked = request(version, &[("a", &[9, 0, 0, -1]), ("zz", &[0]), ("b", &[0, 1]), ("a", &[2])]);
            let (mut topics, commit) = split_request(&image, version, asked);
            let sent: Vec<_> = commit
                .unwrap()
                .topics
                .iter()
                .map(|t| (t.name.to_string(), t.partitions.iter().map(|p| p.index).collect::<Vec<_>>()))
                .collect();
            assert_eq!(sent, [("a".to_owned(), vec![0, 0]), ("b".to_owned(), vec![0]), ("a".to_owned(), vec![2])]);
            let told = |name: &str, partitions: &[(i32, ErrorCode)]| TopicErrors {
                name: name.into(),
                partitions: partitions.to_vec(),
            };
            let first = told("a", &[(0, ErrorCode::OffsetMetadataTooLarge), (0, ErrorCode::None)]);
            let reply =
                vec![first, told("b", &[(0, ErrorCode::None)]), told("a", &[(2, ErrorCode::IllegalGeneration)])];
            merge_outcomes(&mut topics, Ok(CommitReply { topics: reply }));
            let response = OffsetCommitResponse::default().with_topics(topics);
            let seen = through_the_wire(API.key, version, &response);
            let rows: Vec<_> = seen
                .topics
                .iter()
                .map(|t| {
                    let places = t.partitions.iter().map(|p| (p.partition_index, p.error_code));
                    (t.name.0.to_string(), t.topic_id, places.collect::<Vec<_>>())
                })
                .collect();
            let of = |name: &str| match version {
                10 => (String::new(), id_of(id_by_name(name))),
                _ => (name.to_owned(), id_of(0)),
            };
            let unknown = if version == 10 { 100 } else { 3 };
            let expected = [
                ("a", vec![(9, 3), (0, 12), (0, 0), (-1, 3)]),
                ("zz", vec![(0, unknown)]),
                ("b", vec![(0, 0), (1, 3)]),
                ("a", vec![(2, 22)]),
            ];
            let expected = expected.map(|(name, rows)| (of(name).0, of(name).1, rows));
            assert_eq!(rows, expected);
        }
    }

    #[test]
    fn nothing_is_acknowledged_without_its_outcome() {
        let image = image(&[("a", 1, 3)]);
        let places = |outcome| {
            let (mut topics, _) = split_request(&image, 9, request(9, &[("a", &[0, 7, 1, 2])]));
            merge_outcomes(&mut topics, outcome);
            topics[0].partitions.iter().map(|p| p.error_code).collect::<Vec<_>>()
        };
        let reply = |partitions: &[i32]| {
            let partitions = partitions.iter().map(|index| (*index, ErrorCode::None)).collect();
            Ok(CommitReply { topics: vec![TopicErrors { name: "a".into(), partitions }] })
        };
        assert_eq!(places(reply(&[0, 1])), [0, 3, 0, -1]);
        assert_eq!(places(reply(&[0, 2, 1])), [0, 3, -1, -1]);
        assert_eq!(places(Err(ErrorCode::NotCoordinator)), [16, 3, 16, 16]);
    }
}
