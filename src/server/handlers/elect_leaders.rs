//! ElectLeaders (KIP-460). Of a broker that is alone a partition's only replica leads
//! it, or its log is offline.

use kafka_protocol::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use kafka_protocol::messages::{ApiKey, ElectLeadersRequest, ElectLeadersResponse};

use crate::cluster::controller::ControlError;
use crate::cluster::{MetadataImage, TopicImage};
use crate::model::{ErrorCode, PartitionId};
use crate::protocol::ApiSpec;
use crate::server::session::{Call, Session};
use crate::shard::LeaderElection;

use super::shared::{control_error, error_message, no_time, patience, topic_name};

pub const API: ApiSpec = ApiSpec::new(ApiKey::ElectLeaders, 0, 2);

/// The response has an error of its own from here on.
const OWN_ERROR_FROM: i16 = 1;

/// The kinds of election (KIP-460).
#[derive(Clone, Copy)]
enum Election {
    Preferred,
    Unclean,
}

pub async fn handle(session: &Session, Call { version, request }: Call<ElectLeadersRequest>) -> ElectLeadersResponse {
    let (shard, image) = (session.shard(), session.shard().image());
    let unclean = request.election_type == 1;
    let is_known = matches!(request.election_type, 0 | 1) && no_time(request.timeout_ms).is_none();
    if !shard.config.in_cluster() || !is_known {
        return respond(&image, version, request);
    }
    let all = request.topic_partitions.is_none();
    let asked: Vec<(String, Vec<i32>)> = match request.topic_partitions {
        Some(topics) => topics.into_iter().map(|topic| (topic.topic.0.to_string(), topic.partitions)).collect(),
        None => {
            image.topics().map(|topic| (topic.name.to_string(), (0..).take(topic.partitions.len()).collect())).collect()
        }
    };
    let wanted = asked.iter().flat_map(|(topic, partitions)| {
        partitions.iter().map(|partition| LeaderElection { topic: topic.clone(), partition: *partition, unclean })
    });
    let mut outcomes = shard.elect_leaders(wanted.collect(), patience(request.timeout_ms)).await.into_iter();
    let results = asked.iter().map(|(topic, partitions)| {
        let of = partitions.iter().copied().zip(outcomes.by_ref());
        let told = of.filter_map(|(index, outcome)| match outcome {
            // As in Kafka, those that need none are told only to who asks for them.
            Err(error) if all && error.code == ErrorCode::ElectionNotNeeded => None,
            Err(error) => Some(result(index, error)),
            Ok(()) => Some(PartitionResult::default().with_partition_id(index).with_error_message(None)),
        });
        let told = told.collect();
        ReplicaElectionResult::default().with_topic(topic_name(topic)).with_partition_result(told)
    });
    ElectLeadersResponse::default().with_replica_election_results(results.collect())
}

fn respond(image: &MetadataImage, version: i16, request: ElectLeadersRequest) -> ElectLeadersResponse {
    let election = match (no_time(request.timeout_ms), request.election_type) {
        (Some(error), _) => Err(error),
        (None, 0) => Ok(Election::Preferred),
        (None, 1) => Ok(Election::Unclean),
        (None, other) => Err(control_error(ErrorCode::InvalidRequest, format!("Unknown election type {other}"))),
    };
    let results = match request.topic_partitions {
        None => image.topics().map(|topic| all_of(image, topic, &election)).collect(),
        Some(topics) => {
            let told = topics.into_iter().map(|asked| {
                let elect = |index| elect_named(image, &asked.topic.0, index, &election);
                let results = asked.partitions.iter().map(|index| result(*index, elect(*index))).collect();
                ReplicaElectionResult::default().with_topic(asked.topic.clone()).with_partition_result(results)
            });
            told.collect()
        }
    };
    let own = election.err().filter(|_| version >= OWN_ERROR_FROM).map_or(0, |error| error.code.code());
    ElectLeadersResponse::default().with_error_code(own).with_replica_election_results(results)
}

/// All partitions but those that need no election, as in Kafka.
fn all_of(
    image: &MetadataImage,
    topic: &TopicImage,
    election: &Result<Election, ControlError>,
) -> ReplicaElectionResult {
    let indexes = 0..i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
    let elected = indexes.map(|index| (index, elect(image, topic, index, election)));
    let needed = elected.filter(|(_, error)| error.code != ErrorCode::ElectionNotNeeded);
    ReplicaElectionResult::default()
        .with_topic(topic_name(&topic.name))
        .with_partition_result(needed.map(|(index, error)| result(index, error)).collect())
}

fn elect_named(
    image: &MetadataImage,
    name: &str,
    index: i32,
    election: &Result<Election, ControlError>,
) -> ControlError {
    match (election, image.topic(name)) {
        (Err(error), _) => error.clone(),
        (Ok(_), Some(topic)) => elect(image, topic, index, election),
        (Ok(_), None) => control_error(ErrorCode::UnknownTopicOrPartition, format!("No such topic as {name}")),
    }
}

/// The reason why no other replica is elected; there is always one, as nothing but the
/// partition's broker can lead it.
fn elect(
    image: &MetadataImage,
    topic: &TopicImage,
    index: i32,
    election: &Result<Election, ControlError>,
) -> ControlError {
    let election = match election {
        Ok(election) => *election,
        Err(error) => return error.clone(),
    };
    let Some(partition) = usize::try_from(index).ok().and_then(|at| topic.partitions.get(at)) else {
        let message = format!("No such partition as {}-{index}", topic.name);
        return control_error(ErrorCode::UnknownTopicOrPartition, message);
    };
    let leader = partition.leader.filter(|_| !image.is_offline(PartitionId::new(topic.id, index)));
    match (election, leader) {
        (Election::Preferred, leader) if leader.is_none() || leader != partition.replicas.first().copied() => {
            let message = "The preferred leader was not available.";
            control_error(ErrorCode::PreferredLeaderNotAvailable, message)
        }
        (Election::Unclean, None) => {
            let message = "Eligible topic partition leaders are not available.";
            control_error(ErrorCode::EligibleLeadersNotAvailable, message)
        }
        _ => control_error(ErrorCode::ElectionNotNeeded, "Leader election not needed for topic partition."),
    }
}

fn result(index: i32, error: ControlError) -> PartitionResult {
    PartitionResult::default()
        .with_partition_id(index)
        .with_error_code(error.code.code())
        .with_error_message(error_message(error.message))
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::elect_leaders_request::TopicPartitions;

    use super::super::shared::testing::{id_of, image, through_the_wire};
    use super::*;

    type Row = (String, i32, i16);

    /// The error of the whole, and of each partition; partition 1 of `a` is offline.
    fn ask(version: i16, kind: i8, timeout_ms: i32, named: Option<&[(&str, &[i32])]>) -> (i16, Vec<Row>) {
        let mut image = image(&[("a", 1, 2), ("b", 2, 1)]);
        image.set_offline([(PartitionId::new(id_of(1), 1), "gone".into())].into());
        let topics = named.map(|named| {
            let asked = |(name, indexes): &(&str, &[i32])| {
                TopicPartitions::default().with_topic(topic_name(name)).with_partitions(indexes.to_vec())
            };
            named.iter().map(asked).collect()
        });
        let request = ElectLeadersRequest::default()
            .with_election_type(kind)
            .with_timeout_ms(timeout_ms)
            .with_topic_partitions(topics);
        let seen = through_the_wire(ApiKey::ElectLeaders, version, &respond(&image, version, request));
        let rows = seen.replica_election_results.iter().flat_map(|topic| {
            topic.partition_result.iter().map(|p| (topic.topic.0.to_string(), p.partition_id, p.error_code))
        });
        (seen.error_code, rows.collect())
    }

    fn row(name: &str, index: i32, error: i16) -> Row {
        (name.to_owned(), index, error)
    }

    #[test]
    fn the_only_replica_leads_or_none_does() {
        let named: &[(&str, &[i32])] = &[("a", &[0, 1, 2, -1]), ("no", &[0])];
        for version in API.min..=API.max {
            let unknown = [row("a", 2, 3), row("a", -1, 3), row("no", 0, 3)];
            let expected = [&[row("a", 0, 84), row("a", 1, 80)][..], &unknown].concat();
            assert_eq!(ask(version, 0, 1000, Some(named)), (0, expected));
            assert_eq!(ask(version, 0, 1000, None), (0, vec![row("a", 1, 80)]), "all that need one");
            assert_eq!(ask(version, 0, 1000, Some(&[])), (0, vec![]));
            if version >= 1 {
                let expected = [&[row("a", 0, 84), row("a", 1, 83)][..], &unknown].concat();
                assert_eq!(ask(version, 1, 1000, Some(named)), (0, expected));
            }
        }
    }

    #[test]
    fn questions_that_make_no_sense_are_refused_as_a_whole() {
        let named: &[(&str, &[i32])] = &[("a", &[0])];
        assert_eq!(ask(2, 5, 1000, Some(named)), (42, vec![row("a", 0, 42)]));
        assert_eq!(ask(2, 0, 0, Some(named)), (7, vec![row("a", 0, 7)]));
        assert_eq!(ask(0, 0, 0, Some(named)), (0, vec![row("a", 0, 7)]));
    }
}
