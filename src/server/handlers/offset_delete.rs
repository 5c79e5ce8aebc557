//! OffsetDelete: forgets how far a group has read (KIP-496).

use std::collections::HashMap;
use std::sync::Arc;

use kafka_protocol::messages::offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic};
use kafka_protocol::messages::{ApiKey, OffsetDeleteRequest, OffsetDeleteResponse};

use crate::cluster::MetadataImage;
use crate::groups::api::{DeleteOffsetsReply, DeleteOffsetsRequest};
use crate::model::ErrorCode;
use crate::protocol::ApiSpec;
use crate::server::session::{Call, Session};

use super::shared::{find_partition, named_group};

pub const API: ApiSpec = ApiSpec::new(ApiKey::OffsetDelete, 0, 0).in_line();

/// A partition as the coordinator knows it.
type Key = (Arc<str>, i32);

pub async fn handle(session: &Session, Call { request, .. }: Call<OffsetDeleteRequest>) -> OffsetDeleteResponse {
    let (topics, delete) = split_request(&session.shard().image(), request);
    let reply = match delete {
        // Also without a partition that there is: the group may have something to say.
        Ok(delete) => session.ask(delete).await,
        Err(code) => Err(code),
    };
    respond(topics, reply)
}

/// The request to the coordinator, and the response with places for the outcomes: those without an
/// error.
fn split_request(
    image: &MetadataImage,
    request: OffsetDeleteRequest,
) -> (Vec<OffsetDeleteResponseTopic>, Result<DeleteOffsetsRequest, ErrorCode>) {
    let mut wanted: Vec<(Arc<str>, Vec<i32>)> = Vec::new();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let found = image.find_topic(&topic.name.0);
        let mut partitions = Vec::new();
        let places = topic.partitions.into_iter().map(|partition| {
            let index = partition.partition_index;
            let checked = found.and_then(|found| find_partition(found, index));
            if checked.is_ok() {
                partitions.push(index);
            }
            let code = checked.err().unwrap_or(ErrorCode::None);
            OffsetDeleteResponsePartition::default().with_partition_index(index).with_error_code(code.code())
        });
        let places = places.collect();
        topics.push(OffsetDeleteResponseTopic::default().with_name(topic.name).with_partitions(places));
        if let (Ok(found), false) = (found, partitions.is_empty()) {
            wanted.push((Arc::clone(&found.name), partitions));
        }
    }
    (topics, named_group(&request.group_id).map(|group| DeleteOffsetsRequest { group, topics: wanted }))
}

/// An error of the whole group comes without topics, as in Kafka.
fn respond(
    mut topics: Vec<OffsetDeleteResponseTopic>,
    reply: Result<DeleteOffsetsReply, ErrorCode>,
) -> OffsetDeleteResponse {
    let outcomes = match reply {
        Ok(reply) if reply.error == ErrorCode::None => reply.topics,
        Ok(DeleteOffsetsReply { error, .. }) | Err(error) => {
            return OffsetDeleteResponse::default().with_error_code(error.code());
        }
    };
    let outcomes = outcomes.into_iter().flat_map(|topic| {
        let name = topic.name;
        topic.partitions.into_iter().map(move |(index, code)| ((Arc::clone(&name), index), code))
    });
    let outcomes: HashMap<Key, ErrorCode> = outcomes.collect();
    for topic in &mut topics {
        let name: Arc<str> = topic.name.0.as_str().into();
        for place in topic.partitions.iter_mut().filter(|place| place.error_code == 0) {
            let code = outcomes.get(&(Arc::clone(&name), place.partition_index));
            place.error_code = code.copied().unwrap_or(ErrorCode::UnknownServerError).code();
        }
    }
    OffsetDeleteResponse::default().with_topics(topics)
}

#[cfg(test)]
mod tests {
    use super::super::shared::testing::{image, through_the_wire};
    use super::super::shared::{topic_name, wire_group_id};
    use super::*;
    use crate::groups::api::TopicErrors;
    use kafka_protocol::messages::offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};

    fn request(topics: &[(&str, &[i32])]) -> OffsetDeleteRequest {
        let topic = |(name, partitions): &(&str, &[i32])| {
            let partition = |index: &i32| OffsetDeleteRequestPartition::default().with_partition_index(*index);
            OffsetDeleteRequestTopic::default()
                .with_name(topic_name(name))
                .with_partitions(partitions.iter().map(partition).collect())
        };
        OffsetDeleteRequest::default().with_group_id(wire_group_id("g")).with_topics(topics.iter().map(topic).collect())
    }

    #[test]
    fn what_does_not_exist_stays_here_and_the_rest_finds_its_places() {
        let (topics, delete) = split_request(&image(&[("a", 1, 2)]), request(&[("zz", &[0]), ("a", &[1, 5, 0])]));
        let delete = delete.unwrap();
        assert_eq!((&*delete.group, delete.topics), ("g", vec![("a".into(), vec![1, 0])]));
        // In an order of its own, and one is missing.
        let partitions = vec![(0, ErrorCode::GroupSubscribedToTopic)];
        let reply =
            DeleteOffsetsReply { error: ErrorCode::None, topics: vec![TopicErrors { name: "a".into(), partitions }] };
        let seen = through_the_wire(API.key, 0, &respond(topics, Ok(reply)));
        assert_eq!(seen.error_code, 0);
        assert_eq!(seen.topics[0].partitions[0].error_code, 3);
        let rows: Vec<_> = seen.topics[1].partitions.iter().map(|p| (p.partition_index, p.error_code)).collect();
        assert_eq!(rows, [(1, -1), (5, 3), (0, 86)]);
    }

    #[test]
    fn an_error_of_the_group_stands_alone() {
        let image = image(&[("a", 1, 2)]);
        let (topics, _) = split_request(&image, request(&[("a", &[0])]));
        let reply = DeleteOffsetsReply { error: ErrorCode::GroupIdNotFound, topics: Vec::new() };
        let seen = through_the_wire(API.key, 0, &respond(topics.clone(), Ok(reply)));
        assert_eq!((seen.error_code, seen.topics.len()), (69, 0));
        let seen = through_the_wire(API.key, 0, &respond(topics, Err(ErrorCode::NotCoordinator)));
        assert_eq!((seen.error_code, seen.topics.len()), (16, 0));
        let nameless = request(&[]).with_group_id(wire_group_id(""));
        assert_eq!(split_request(&image, nameless).1.err(), Some(ErrorCode::InvalidGroupId));
    }
}
