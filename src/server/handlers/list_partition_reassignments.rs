//! ListPartitionReassignments: those that are under way (KIP-455).

use std::collections::BTreeMap;

use kafka_protocol::messages::list_partition_reassignments_request::ListPartitionReassignmentsTopics;
use kafka_protocol::messages::list_partition_reassignments_response::{
    OngoingPartitionReassignment, OngoingTopicReassignment,
};
use kafka_protocol::messages::{ApiKey, ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse};

use crate::cluster::{MetadataImage, PartitionImage, TopicImage};
use crate::model::BrokerId;
use crate::protocol::ApiSpec;
use crate::server::session::{Call, Session};

use super::shared::{broker_id, topic_name};

pub const API: ApiSpec = ApiSpec::new(ApiKey::ListPartitionReassignments, 0, 0);

pub async fn handle(
    session: &Session,
    Call { request, .. }: Call<ListPartitionReassignmentsRequest>,
) -> ListPartitionReassignmentsResponse {
    respond(&session.shard().image(), request.topics)
}

/// `asked`: `None` means all topics. Partitions without a reassignment, and those that do
/// not exist, are left out.
fn respond(
    image: &MetadataImage,
    asked: Option<Vec<ListPartitionReassignmentsTopics>>,
) -> ListPartitionReassignmentsResponse {
    let mut found: BTreeMap<&str, Vec<OngoingPartitionReassignment>> = BTreeMap::new();
    match &asked {
        None => image.topics().for_each(|topic| note(&mut found, topic, 0..topic.partitions.len())),
        Some(asked) => {
            for one in asked {
                let Some(topic) = image.topic(&one.name.0) else { continue };
                let indexes = one.partition_indexes.iter().filter_map(|index| usize::try_from(*index).ok());
                note(&mut found, topic, indexes);
            }
        }
    }
    let topics = found.into_iter().map(|(name, partitions)| {
        OngoingTopicReassignment::default().with_name(topic_name(name)).with_partitions(partitions)
    });
    ListPartitionReassignmentsResponse::default().with_error_message(None).with_topics(topics.collect())
}

fn note<'a>(
    found: &mut BTreeMap<&'a str, Vec<OngoingPartitionReassignment>>,
    topic: &'a TopicImage,
    indexes: impl IntoIterator<Item = usize>,
) {
    for index in indexes {
        let under_way = |p: &&PartitionImage| !p.adding.is_empty() || !p.removing.is_empty();
        let (Some(partition), Ok(number)) = (topic.partitions.get(index).filter(under_way), i32::try_from(index))
        else {
            continue;
        };
        let ids = |brokers: &[BrokerId]| brokers.iter().map(|id| broker_id(*id)).collect();
        let ongoing = OngoingPartitionReassignment::default()
            .with_partition_index(number)
            .with_replicas(ids(&partition.replicas))
            .with_adding_replicas(ids(&partition.adding))
            .with_removing_replicas(ids(&partition.removing));
        found.entry(&topic.name).or_default().push(ongoing);
    }
}

#[cfg(test)]
mod tests {
    use super::super::shared::testing::{image, through_the_wire};
    use super::*;

    #[test]
    fn only_what_moves_is_told() {
        let mut image = image(&[("a", 1, 2), ("b", 2, 1)]);
        let mut topic = TopicImage::clone(image.topic("a").unwrap());
        let ids = |ids: &[i32]| ids.iter().copied().map(BrokerId).collect::<Vec<_>>();
        topic.partitions[1].replicas = ids(&[8, 7]);
        topic.partitions[1].adding = ids(&[8]);
        topic.partitions[1].removing = ids(&[7]);
        image.put_topic(topic);
        let ask = |asked: Option<&[(&str, &[i32])]>| {
            let asked = asked.map(|asked| {
                let of = |(name, indexes): &(&str, &[i32])| {
                    ListPartitionReassignmentsTopics::default()
                        .with_name(topic_name(name))
                        .with_partition_indexes(indexes.to_vec())
                };
                asked.iter().map(of).collect()
            });
            let seen = through_the_wire(ApiKey::ListPartitionReassignments, 0, &respond(&image, asked));
            let rows = seen.topics.iter().flat_map(|topic| {
                topic.partitions.iter().map(|p| {
                    let ids =
                        |ids: &[kafka_protocol::messages::BrokerId]| ids.iter().map(|id| id.0).collect::<Vec<_>>();
                    let moved = (ids(&p.replicas), ids(&p.adding_replicas), ids(&p.removing_replicas));
                    (topic.name.0.to_string(), p.partition_index, moved)
                })
            });
            rows.collect::<Vec<_>>()
        };
        let moves = vec![("a".to_owned(), 1, (vec![8, 7], vec![8], vec![7]))];
        assert_eq!(ask(None), moves);
        assert_eq!(ask(Some(&[("a", &[0, 1, 2, -1]), ("none", &[0])])), moves);
        assert_eq!(ask(Some(&[("a", &[0]), ("b", &[0])])), []);
    }
}
