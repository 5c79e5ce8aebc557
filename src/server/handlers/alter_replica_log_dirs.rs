//! AlterReplicaLogDirs: replicas of this broker, to other data directories of it (KIP-113).

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use kafka_protocol::messages::alter_replica_log_dirs_response::{
    AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult,
};
use kafka_protocol::messages::{AlterReplicaLogDirsRequest, AlterReplicaLogDirsResponse, ApiKey, TopicName};

use super::shared::{find_partition, merge_outcomes};
use crate::cluster::MetadataImage;
use crate::config::absolute_dir;
use crate::model::{ErrorCode, PartitionId};
use crate::protocol::ApiSpec;
use crate::server::session::{Call, Session};

pub const API: ApiSpec = ApiSpec::new(ApiKey::AlterReplicaLogDirs, 1, 2);

/// Answers once the moves have begun; DescribeLogDirs tells how far they are.
pub async fn handle(
    session: &Session,
    Call { request, .. }: Call<AlterReplicaLogDirsRequest>,
) -> AlterReplicaLogDirsResponse {
    let (config, settings) = (&session.shard().config, session.shard().settings());
    let known = |dir: &PathBuf| (absolute_dir(dir), settings.is_cordoned(dir));
    let dirs: Vec<Dir> = config.log_dirs.iter().map(known).collect();
    let (mut results, parts) = split_request(&session.shard().image(), &dirs, request);
    if !parts.is_empty() {
        take_outcomes(&mut results, session.shard().alter_replica_log_dirs(parts).await);
    }
    AlterReplicaLogDirsResponse::default().with_results(results)
}

type Part = (PartitionId, PathBuf);
/// A data directory, and if it is cordoned.
type Dir = (PathBuf, bool);

/// The moves for the shards, and the response with places for the outcomes: those without an error,
/// in the same order. Of a replica that is named twice the last directory counts, as in Kafka.
fn split_request(
    image: &MetadataImage,
    dirs: &[Dir],
    request: AlterReplicaLogDirsRequest,
) -> (Vec<AlterReplicaLogDirTopicResult>, Vec<Part>) {
    let mut last: HashMap<(TopicName, i32), String> = HashMap::new();
    let mut topics: Vec<(TopicName, Vec<i32>)> = Vec::new();
    let mut places: HashMap<TopicName, usize> = HashMap::new();
    for dir in request.dirs {
        for topic in dir.topics {
            let place = *places.entry(topic.name.clone()).or_insert_with(|| {
                topics.push((topic.name.clone(), Vec::new()));
                topics.len() - 1
            });
            for index in topic.partitions {
                let before = last.insert((topic.name.clone(), index), dir.path.to_string());
                if let (None, Some((_, indexes))) = (before, topics.get_mut(place)) {
                    indexes.push(index);
                }
            }
        }
    }
    let mut parts = Vec::new();
    let results = topics.into_iter().map(|(name, indexes)| {
        let partitions = indexes.into_iter().map(|index| {
            let path = last.remove(&(name.clone(), index)).unwrap_or_default();
            let code = match part(image, dirs, (&name, index), Path::new(&path)) {
                Ok(part) => {
                    parts.push(part);
                    ErrorCode::None
                }
                Err(code) => code,
            };
            AlterReplicaLogDirPartitionResult::default().with_partition_index(index).with_error_code(code.code())
        });
        let partitions = partitions.collect();
        AlterReplicaLogDirTopicResult::default().with_topic_name(name).with_partitions(partitions)
    });
    (results.collect(), parts)
}

fn part(image: &MetadataImage, dirs: &[Dir], (name, index): (&TopicName, i32), path: &Path) -> Result<Part, ErrorCode> {
    // Kafka holds what is asked for, as it is, against absolute names without a slash at the end.
    let found = dirs.iter().find(|(dir, _)| dir.as_os_str() == path.as_os_str());
    let (_, cordoned) = found.ok_or(ErrorCode::LogDirNotFound)?;
    if *cordoned {
        // Also of a replica that is there already.
        return Err(ErrorCode::InvalidReplicaAssignment);
    }
    let topic = image.topic(&name.0).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    Ok((find_partition(topic, index)?, path.to_path_buf()))
}

fn take_outcomes(results: &mut [AlterReplicaLogDirTopicResult], outcomes: Vec<ErrorCode>) {
    let places = results.iter_mut().flat_map(|topic| &mut topic.partitions);
    merge_outcomes(places, |place| &mut place.error_code, outcomes, |place, code| place.error_code = code.code());
}

#[cfg(test)]
mod tests {
    use super::super::shared::testing::{id_of, image, through_the_wire};
    use super::super::shared::{text, topic_name};
    use super::*;
    use kafka_protocol::messages::alter_replica_log_dirs_request::{AlterReplicaLogDir, AlterReplicaLogDirTopic};

    #[test]
    fn each_replica_has_one_outcome() {
        let image = image(&[("a", 1, 3), ("b", 2, 1)]);
        let dir = |path: &str, topics: &[(&str, &[i32])]| {
            let topic = |(name, partitions): &(&str, &[i32])| {
                AlterReplicaLogDirTopic::default().with_name(topic_name(name)).with_partitions(partitions.to_vec())
            };
            AlterReplicaLogDir::default().with_path(text(path)).with_topics(topics.iter().map(topic).collect())
        };
        let dirs = [("/x", false), ("/y", false), ("/cordoned", true)].map(|(dir, cordoned)| (dir.into(), cordoned));
        let request = AlterReplicaLogDirsRequest::default().with_dirs(vec![
            dir("/x", &[("a", &[0, 1, 9]), ("zz", &[0])]),
            dir("/y", &[("b", &[0]), ("a", &[1])]),
            dir("/nowhere", &[("a", &[2]), ("zz", &[1])]),
            dir("/cordoned", &[("b", &[1])]),
        ]);
        let (mut results, parts) = split_request(&image, &dirs, request);
        let part = |id: u128, index, path: &str| (PartitionId::new(id_of(id), index), PathBuf::from(path));
        assert_eq!(parts, [part(1, 0, "/x"), part(1, 1, "/y"), part(2, 0, "/y")]);
        take_outcomes(&mut results, vec![ErrorCode::None, ErrorCode::KafkaStorageError]);
        let response = AlterReplicaLogDirsResponse::default().with_results(results);
        for version in API.min..=API.max {
            let seen = through_the_wire(API.key, version, &response);
            let rows: Vec<_> = seen
                .results
                .iter()
                .map(|topic| {
                    let rows = topic.partitions.iter().map(|p| (p.partition_index, p.error_code));
                    (topic.topic_name.0.to_string(), rows.collect::<Vec<_>>())
                })
                .collect();
            // The last one has no outcome: never a success.
            let expected = [
                ("a", vec![(0, 0), (1, 56), (9, 3), (2, 57)]),
                ("zz", vec![(0, 3), (1, 57)]),
                ("b", vec![(0, -1), (1, 39)]),
            ];
            assert_eq!(rows, expected.map(|(name, rows)| (name.to_owned(), rows)));
        }
    }
}
