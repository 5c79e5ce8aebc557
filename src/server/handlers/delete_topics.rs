//! DeleteTopics, by name or (from v6 on) by id.

use std::sync::Arc;

use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{ApiKey, DeleteTopicsRequest, DeleteTopicsResponse, TopicName};
use uuid::Uuid;

use crate::cluster::controller::ControlError;
use crate::cluster::{MetadataImage, TopicImage};
use crate::model::ErrorCode;
use crate::protocol::ApiSpec;
use crate::server::session::{Call, Session};
use crate::shard::TopicRef;

use super::shared::{
    control_error, error_message, is_internal, no_time, over_quota, patience, repeated, throttled, topic_name,
};

pub const API: ApiSpec = ApiSpec::new(ApiKey::DeleteTopics, 1, 6);

/// Topics are named by a structure with an id from here on.
const BY_ID_FROM: i16 = 6;
/// THROTTLING_QUOTA_EXCEEDED is known from here on.
const STRICT_FROM: i16 = 5;
/// The error code of its own for a broker that deletes nothing came here.
const DISABLED_FROM: i16 = 3;

/// The topics are gone when the answer is there. Of a broker that is alone `timeout_ms` is not
/// looked at, apart from [`no_time`].
pub async fn handle(session: &Session, Call { version, request }: Call<DeleteTopicsRequest>) -> DeleteTopicsResponse {
    let (no_time, patience) = (no_time(request.timeout_ms), patience(request.timeout_ms));
    let topics = named(version, request);
    if let Some(error) = no_time {
        let refused = topics.into_iter().map(|topic| failed(topic.name, topic.topic_id, error.clone()));
        return DeleteTopicsResponse::default().with_responses(refused.collect());
    }
    let (mut results, wanted) = split_request(version, session.shard().config.delete_topic_enable, topics);
    let mut wanted = if session.shard().config.internal_topics_delete {
        wanted
    } else {
        without_internal(&session.shard().image(), wanted, &mut results)
    };
    let image = session.shard().image();
    let gone = |topic: &TopicRef| match topic {
        TopicRef::Name(name) => image.topic(name).map(|topic| topic.partitions.len()),
        TopicRef::Id(id) => image.topic_by_id(*id).map(|topic| topic.partitions.len()),
    };
    let over = over_quota(session, version >= STRICT_FROM, &mut wanted, gone);
    results.extend(over.into_iter().map(|topic| result(topic, Err(throttled()))));
    if !wanted.is_empty() {
        let outcomes = session.shard().delete_topics(wanted.clone(), patience).await;
        let mut outcomes = outcomes.into_iter();
        for topic in wanted {
            let outcome = outcomes.next().unwrap_or_else(|| {
                Err(control_error(ErrorCode::UnknownServerError, "the broker gave no outcome for this topic"))
            });
            results.push(result(topic, outcome));
        }
    }
    DeleteTopicsResponse::default().with_responses(results)
}

/// Both shapes of the request as one.
fn named(version: i16, request: DeleteTopicsRequest) -> Vec<DeleteTopicState> {
    if version >= BY_ID_FROM {
        return request.topics;
    }
    request.topic_names.into_iter().map(|name| DeleteTopicState::default().with_name(Some(name))).collect()
}

fn split_request(
    version: i16,
    enabled: bool,
    topics: Vec<DeleteTopicState>,
) -> (Vec<DeletableTopicResult>, Vec<TopicRef>) {
    if !enabled {
        let code = if version < DISABLED_FROM { ErrorCode::InvalidRequest } else { ErrorCode::TopicDeletionDisabled };
        let refuse = |topic: DeleteTopicState| {
            failed(topic.name, topic.topic_id, control_error(code, "Topic deletion is disabled (delete.topic.enable)."))
        };
        return (topics.into_iter().map(refuse).collect(), Vec::new());
    }
    let mut results = Vec::new();
    let mut wanted = Vec::new();
    let names_twice = repeated(topics.iter().filter_map(|topic| topic.name.clone()));
    let ids_twice = repeated(topics.iter().map(|topic| topic.topic_id).filter(|id| !id.is_nil()));
    let refuse = |message: &str| control_error(ErrorCode::InvalidRequest, message);
    results.extend(names_twice.iter().map(|n| failed(Some(n.clone()), Uuid::nil(), refuse("Duplicate topic name."))));
    results.extend(ids_twice.iter().map(|id| failed(None, *id, refuse("Duplicate topic id."))));
    for DeleteTopicState { name, topic_id, .. } in topics {
        match name {
            Some(name) if !topic_id.is_nil() => {
                let error = refuse("You may not specify both topic name and topic id.");
                results.push(failed(Some(name), topic_id, error));
            }
            Some(name) if names_twice.contains(&name) => {}
            Some(name) => wanted.push(TopicRef::Name(name.0.to_string())),
            None if topic_id.is_nil() => {
                results.push(failed(None, topic_id, refuse("Neither topic name nor id were specified.")));
            }
            None if ids_twice.contains(&topic_id) => {}
            None => wanted.push(TopicRef::Id(topic_id)),
        }
    }
    (results, wanted)
}

/// Kafka's own topics hold what clients cannot write to; so they are not deleted by a slip either.
fn without_internal(
    image: &MetadataImage,
    wanted: Vec<TopicRef>,
    results: &mut Vec<DeletableTopicResult>,
) -> Vec<TopicRef> {
    let name_of = |topic: &TopicRef| match topic {
        TopicRef::Name(name) => image.topic(name).map(|topic| topic.name.clone()),
        TopicRef::Id(id) => image.topic_by_id(*id).map(|topic| topic.name.clone()),
    };
    let (internal, wanted): (Vec<_>, Vec<_>) =
        wanted.into_iter().partition(|topic| name_of(topic).is_some_and(|name| is_internal(&name)));
    results.extend(internal.into_iter().map(|topic| {
        let message = "Kafka's own topics are not deleted; corelane.internal.topics.delete=true allows it.";
        result(topic, Err(control_error(ErrorCode::InvalidTopicException, message)))
    }));
    wanted
}

fn failed(name: Option<TopicName>, id: Uuid, error: ControlError) -> DeletableTopicResult {
    DeletableTopicResult::default()
        .with_name(name)
        .with_topic_id(id)
        .with_error_code(error.code.code())
        .with_error_message(error_message(error.message))
}

fn result(topic: TopicRef, outcome: Result<Arc<TopicImage>, ControlError>) -> DeletableTopicResult {
    match (outcome, topic) {
        (Ok(topic), _) => {
            DeletableTopicResult::default().with_name(Some(topic_name(&topic.name))).with_topic_id(topic.id)
        }
        (Err(error), TopicRef::Name(name)) => failed(Some(topic_name(&name)), Uuid::nil(), error),
        (Err(error), TopicRef::Id(id)) => failed(None, id, error),
    }
}

#[cfg(test)]
mod tests {
    use super::super::shared::testing::{id_of, image, topic};
    use super::*;
    use crate::protocol::respond::encode;

    #[test]
    fn kafkas_own_topics_stay_however_they_are_named() {
        let image = image(&[("a", 1, 1), ("__consumer_offsets", 2, 1), ("__transaction_state", 3, 1)]);
        let name = |name: &str| TopicRef::Name(name.into());
        let id = |id: u128| TopicRef::Id(id_of(id));
        let asked = vec![name("__consumer_offsets"), name("a"), id(2), id(1), id(3), name("__nope"), id(9)];
        let mut results = Vec::new();
        let wanted = without_internal(&image, asked, &mut results);
        assert_eq!(wanted, [name("a"), id(1), name("__nope"), id(9)]);
        let refused: Vec<_> = results.iter().map(|r| (r.error_code, r.topic_id.as_u128())).collect();
        assert_eq!(refused, [(17, 0), (17, 2), (17, 3)]);
    }

    fn asked(name: Option<&str>, id: u128) -> DeleteTopicState {
        DeleteTopicState::default().with_name(name.map(topic_name)).with_topic_id(id_of(id))
    }

    fn codes(results: &[DeletableTopicResult]) -> Vec<(Option<String>, u128, i16)> {
        let row =
            |r: &DeletableTopicResult| (r.name.as_ref().map(|n| n.0.to_string()), r.topic_id.as_u128(), r.error_code);
        results.iter().map(row).collect()
    }

    #[test]
    fn names_ids_and_mistakes_are_told_apart() {
        let (results, wanted) = split_request(
            6,
            true,
            vec![
                asked(Some("a"), 0),
                asked(None, 5),
                asked(Some("b"), 6),
                asked(None, 0),
                asked(Some("twice"), 0),
                asked(Some("twice"), 0),
                asked(None, 9),
                asked(None, 9),
            ],
        );
        assert_eq!(wanted, [TopicRef::Name("a".into()), TopicRef::Id(id_of(5))]);
        let expected = [(Some("twice".to_owned()), 0, 42), (None, 9, 42), (Some("b".to_owned()), 6, 42), (None, 0, 42)];
        assert_eq!(codes(&results), expected);
    }

    #[test]
    fn a_broker_that_deletes_nothing_says_so_in_each_version() {
        for (version, code) in [(1, 42), (2, 42), (3, 73), (6, 73)] {
            let (results, wanted) = split_request(version, false, vec![asked(Some("a"), 0)]);
            assert_eq!((codes(&results), wanted.len()), (vec![(Some("a".to_owned()), 0, code)], 0));
        }
    }

    #[test]
    fn every_version_can_say_success_and_failure() {
        for version in API.min..=API.max {
            let error = control_error(ErrorCode::UnknownTopicOrPartition, "no such topic");
            let results = vec![
                result(TopicRef::Name("a".into()), Ok(Arc::new(topic("a", 1, 1)))),
                result(TopicRef::Name("b".into()), Err(error.clone())),
            ];
            assert_eq!(codes(&results)[1], (Some("b".to_owned()), 0, 3));
            let response = DeleteTopicsResponse::default().with_responses(results);
            assert!(encode(ApiKey::DeleteTopics, version, 1, &response).is_ok(), "v{version}");
        }
        let error = control_error(ErrorCode::UnknownTopicId, "no such topic");
        let response = DeleteTopicsResponse::default().with_responses(vec![result(TopicRef::Id(id_of(3)), Err(error))]);
        assert!(encode(ApiKey::DeleteTopics, 6, 1, &response).is_ok());
    }
}
