//! CreatePartitions: more partitions for topics that exist.

use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::{ApiKey, CreatePartitionsRequest, CreatePartitionsResponse, TopicName};

use crate::cluster::MetadataImage;
use crate::cluster::controller::{ControlError, GrowTopic, grow_topic};
use crate::model::ErrorCode;
use crate::protocol::ApiSpec;
use crate::server::session::{Call, Session};

use super::shared::{
    MAX_PARTITIONS_PER_REQUEST, control_error, error_message, no_time, over_quota, patience, repeated, throttled,
    too_many_partitions, topic_name,
};

pub const API: ApiSpec = ApiSpec::new(ApiKey::CreatePartitions, 0, 3);

/// THROTTLING_QUOTA_EXCEEDED is known from here on.
const STRICT_FROM: i16 = 3;

/// The partitions are there when the answer is. Of a broker that is alone `timeout_ms` is not
/// looked at, apart from [`no_time`].
pub async fn handle(
    session: &Session,
    Call { version, request }: Call<CreatePartitionsRequest>,
) -> CreatePartitionsResponse {
    if let Some(error) = no_time(request.timeout_ms) {
        let refused = request.topics.into_iter().map(|topic| result(topic.name, Err(error.clone())));
        return CreatePartitionsResponse::default().with_results(refused.collect());
    }
    let (mut results, mut wanted) = split_request(request.topics);
    if partitions(&session.shard().image(), &wanted) > i64::from(MAX_PARTITIONS_PER_REQUEST) {
        results.extend(wanted.drain(..).map(|topic| result(topic_name(&topic.name), Err(too_many_partitions()))));
    }
    let (image, settings) = (session.shard().image(), session.shard().settings());
    let added = |topic: &GrowTopic| {
        let grown = grow_topic(&image, &settings, topic).ok()?;
        Some(grown.partitions.len().saturating_sub(image.topic(&topic.name)?.partitions.len()))
    };
    let over = over_quota(session, version >= STRICT_FROM, &mut wanted, added);
    results.extend(over.into_iter().map(|topic| result(topic_name(&topic.name), Err(throttled()))));
    if !wanted.is_empty() {
        let names: Vec<String> = wanted.iter().map(|topic| topic.name.clone()).collect();
        let outcomes =
            session.shard().create_partitions(wanted, request.validate_only, patience(request.timeout_ms)).await;
        let mut outcomes = outcomes.into_iter();
        for name in names {
            let outcome = outcomes.next().unwrap_or_else(|| {
                Err(control_error(ErrorCode::UnknownServerError, "the broker gave no outcome for this topic"))
            });
            results.push(result(topic_name(&name), outcome));
        }
    }
    CreatePartitionsResponse::default().with_results(results)
}

/// How many partitions a request adds.
fn partitions(image: &MetadataImage, wanted: &[GrowTopic]) -> i64 {
    let added = |topic: &GrowTopic| {
        let existing = image.topic(&topic.name).map(|found| found.partitions.len() as i64);
        existing.map_or(0, |existing| (i64::from(topic.count) - existing).max(0))
    };
    wanted.iter().map(added).sum()
}

fn split_request(topics: Vec<CreatePartitionsTopic>) -> (Vec<CreatePartitionsTopicResult>, Vec<GrowTopic>) {
    let twice = repeated(topics.iter().map(|topic| topic.name.clone()));
    let duplicate = || Err(control_error(ErrorCode::InvalidRequest, "Duplicate topic name."));
    let results = twice.iter().map(|name| result(name.clone(), duplicate())).collect();
    let wanted = topics.into_iter().filter(|topic| !twice.contains(&topic.name)).map(|topic| GrowTopic {
        name: topic.name.0.to_string(),
        count: topic.count,
        assignments: topic.assignments.map(|list| {
            list.into_iter().map(|assignment| assignment.broker_ids.iter().map(|id| id.0).collect()).collect()
        }),
    });
    (results, wanted.collect())
}

fn result(name: TopicName, outcome: Result<(), ControlError>) -> CreatePartitionsTopicResult {
    let result = CreatePartitionsTopicResult::default().with_name(name);
    match outcome {
        Ok(()) => result.with_error_message(None),
        Err(error) => result.with_error_code(error.code.code()).with_error_message(error_message(error.message)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::shared::testing::image;
    use super::*;
    use kafka_protocol::messages::BrokerId;
    use kafka_protocol::messages::create_partitions_request::CreatePartitionsAssignment;

    #[test]
    fn repeated_names_are_refused_and_the_rest_goes_on() {
        let asked = |name: &str| CreatePartitionsTopic::default().with_name(topic_name(name)).with_count(8);
        let assigned = asked("b")
            .with_assignments(Some(vec![CreatePartitionsAssignment::default().with_broker_ids(vec![BrokerId(7)])]));
        let (results, wanted) = split_request(vec![asked("a").with_assignments(None), assigned, asked("a")]);
        assert_eq!((results.len(), results[0].error_code), (1, 42));
        assert_eq!((wanted.len(), wanted[0].name.as_str(), wanted[0].count), (1, "b", 8));
        assert_eq!(wanted[0].assignments, Some(vec![vec![7]]));
    }

    #[test]
    fn partitions_are_counted_over_the_request() {
        let image = image(&[("a", 1, 3), ("b", 2, 1)]);
        let grow = |name: &str, count| GrowTopic { name: name.into(), count, assignments: None };
        assert_eq!(partitions(&image, &[grow("a", 5), grow("b", 11), grow("zz", i32::MAX)]), 12);
        assert_eq!(partitions(&image, &[grow("a", -1)]), 0);
    }
}
