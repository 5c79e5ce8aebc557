//! CreateTopics.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use kafka_protocol::messages::create_topics_request::{CreatableReplicaAssignment, CreatableTopic};
use kafka_protocol::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use kafka_protocol::messages::{ApiKey, CreateTopicsRequest, CreateTopicsResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use crate::cluster::TopicImage;
use crate::cluster::controller::{ControlError, CreateTopic, create_topic};
use crate::config::{ServerConfig, describe_topic};
use crate::model::ErrorCode;
use crate::protocol::ApiSpec;
use crate::server::session::{Call, Session};

use super::shared::{
    CLUSTER_METADATA, MAX_PARTITIONS_PER_REQUEST, control_error, error_message, no_time, over_quota, patience,
    repeated, text, throttled, too_many_partitions, topic_name,
};

pub const API: ApiSpec = ApiSpec::new(ApiKey::CreateTopics, 2, 7);

/// The created topic's settings are told from here on (KIP-525).
const CONFIGS_FROM: i16 = 5;
/// THROTTLING_QUOTA_EXCEEDED is known from here on.
const STRICT_FROM: i16 = 6;
/// Topics of one request whose settings are told, some 6 KiB each; the rest have an error in their
/// place, which is how a broker says that it does not tell them.
const CONFIGS_TOLD: usize = 5000;

/// The topics are there when the answer is. Of a broker that is alone `timeout_ms` is not looked
/// at, apart from [`no_time`].
pub async fn handle(session: &Session, Call { version, request }: Call<CreateTopicsRequest>) -> CreateTopicsResponse {
    let validate_only = request.validate_only;
    if let Some(error) = no_time(request.timeout_ms) {
        let refused = request.topics.into_iter().map(|topic| failed(topic.name, error.clone()));
        return CreateTopicsResponse::default().with_topics(refused.collect());
    }
    let (mut results, mut wanted) = split_request(request.topics);
    if partitions(&session.shard().config, &wanted) > i64::from(MAX_PARTITIONS_PER_REQUEST) {
        let refuse = |topic: CreateTopic| failed(TopicName(StrBytes::from_string(topic.name)), too_many_partitions());
        results.extend(wanted.drain(..).map(refuse));
    }
    let (image, settings) = (session.shard().image(), session.shard().settings());
    let made =
        |topic: &CreateTopic| create_topic(&image, &settings, topic, Uuid::nil()).ok().map(|t| t.partitions.len());
    let over = over_quota(session, version >= STRICT_FROM, &mut wanted, made);
    results.extend(over.into_iter().map(|topic| failed(topic_name(&topic.name), throttled())));
    if !wanted.is_empty() {
        let names: Vec<String> = wanted.iter().map(|topic| topic.name.clone()).collect();
        let outcomes = session.shard().create_topics(wanted, validate_only, patience(request.timeout_ms)).await;
        let mut outcomes = outcomes.into_iter();
        for (place, name) in names.into_iter().enumerate() {
            let outcome = outcomes.next().unwrap_or_else(|| Err(no_outcome()));
            let tells_configs = version >= CONFIGS_FROM && place < CONFIGS_TOLD;
            let mut result = result(&session.shard().settings(), tells_configs, name, outcome);
            if version >= CONFIGS_FROM && !tells_configs && result.error_code == 0 {
                result.topic_config_error_code = ErrorCode::PolicyViolation.code();
            }
            results.push(result);
        }
    }
    CreateTopicsResponse::default().with_topics(results)
}

fn no_outcome() -> ControlError {
    control_error(ErrorCode::UnknownServerError, "the broker gave no outcome for this topic")
}

/// How many partitions a request asks for.
fn partitions(config: &ServerConfig, wanted: &[CreateTopic]) -> i64 {
    let of = |topic: &CreateTopic| match topic.num_partitions {
        _ if !topic.assignments.is_empty() => topic.assignments.len() as i64,
        ..0 => i64::from(config.num_partitions),
        count => i64::from(count),
    };
    wanted.iter().map(of).sum()
}

/// The refusals that need nothing but the request, and the topics to create.
fn split_request(topics: Vec<CreatableTopic>) -> (Vec<CreatableTopicResult>, Vec<CreateTopic>) {
    let twice: HashSet<TopicName> = repeated(topics.iter().map(|topic| topic.name.clone()));
    let mut results: Vec<CreatableTopicResult> = twice
        .iter()
        .map(|name| failed(name.clone(), control_error(ErrorCode::InvalidRequest, "Duplicate topic name.")))
        .collect();
    let mut wanted = Vec::new();
    for topic in topics {
        if twice.contains(&topic.name) {
            continue;
        }
        if &*topic.name.0 == CLUSTER_METADATA {
            let message = format!("Creation of internal topic {CLUSTER_METADATA} is prohibited.");
            results.push(failed(topic.name, control_error(ErrorCode::InvalidRequest, message)));
            continue;
        }
        match assignments(&topic.assignments) {
            Ok(assignments) => wanted.push(CreateTopic {
                name: topic.name.0.to_string(),
                num_partitions: topic.num_partitions,
                replication_factor: topic.replication_factor,
                assignments,
                configs: topic
                    .configs
                    .into_iter()
                    .map(|config| (config.name.to_string(), config.value.map(|value| value.to_string())))
                    .collect(),
            }),
            Err(error) => results.push(failed(topic.name, error)),
        }
    }
    (results, wanted)
}

fn assignments(given: &[CreatableReplicaAssignment]) -> Result<BTreeMap<i32, Vec<i32>>, ControlError> {
    let mut assignments = BTreeMap::new();
    for assignment in given {
        let index = assignment.partition_index;
        let brokers = assignment.broker_ids.iter().map(|id| id.0).collect();
        if assignments.insert(index, brokers).is_some() {
            let message = format!("Found multiple manual partition assignments for partition {index}");
            return Err(control_error(ErrorCode::InvalidReplicaAssignment, message));
        }
    }
    Ok(assignments)
}

fn failed(name: TopicName, error: ControlError) -> CreatableTopicResult {
    CreatableTopicResult::default()
        .with_name(name)
        .with_error_code(error.code.code())
        .with_error_message(error_message(error.message))
        .with_num_partitions(-1)
        .with_replication_factor(-1)
}

fn result(
    config: &ServerConfig,
    tells_configs: bool,
    name: String,
    outcome: Result<Arc<TopicImage>, ControlError>,
) -> CreatableTopicResult {
    let name = TopicName(StrBytes::from_string(name));
    let topic = match outcome {
        Ok(topic) => topic,
        Err(error) => return failed(name, error),
    };
    let mut result = CreatableTopicResult::default()
        .with_name(name)
        .with_error_message(None)
        .with_topic_id(topic.id)
        .with_num_partitions(topic.partitions.len() as i32)
        .with_replication_factor(topic.partitions.first().map_or(-1, |p| p.replicas.len() as i16));
    if tells_configs {
        let configs = describe_topic(config, &topic.overrides).into_iter().map(|entry| {
            CreatableTopicConfigs::default()
                .with_name(text(entry.name))
                .with_value(entry.value.filter(|_| !entry.sensitive).map(StrBytes::from_string))
                .with_read_only(entry.read_only)
                .with_config_source(entry.source as i8)
                .with_is_sensitive(entry.sensitive)
        });
        result = result.with_configs(Some(configs.collect()));
    }
    result
}

#[cfg(test)]
mod tests {
    use super::super::shared::testing::topic;
    use super::*;
    use crate::protocol::respond::encode;
    use kafka_protocol::messages::BrokerId;

    fn asked(name: &str) -> CreatableTopic {
        CreatableTopic::default().with_name(topic_name(name)).with_num_partitions(3).with_replication_factor(1)
    }

    #[test]
    fn repeated_names_are_refused_once_and_the_rest_goes_on() {
        let (results, wanted) = split_request(vec![asked("a"), asked("b"), asked("a"), asked("a")]);
        let refused: Vec<_> = results.iter().map(|r| (r.name.0.to_string(), r.error_code)).collect();
        assert_eq!(refused, [("a".to_owned(), 42)]);
        assert_eq!(wanted.iter().map(|topic| topic.name.as_str()).collect::<Vec<_>>(), ["b"]);
    }

    #[test]
    fn partitions_are_counted_over_the_request() {
        let config = ServerConfig { num_partitions: 7, ..ServerConfig::default() };
        let topic = |num_partitions| CreateTopic { num_partitions, ..CreateTopic::default() };
        let assigned = CreateTopic { assignments: BTreeMap::from([(0, vec![7]), (1, vec![7])]), ..topic(-1) };
        assert_eq!(partitions(&config, &[topic(-1), topic(5), assigned]), 14);
        assert_eq!(partitions(&config, &[topic(i32::MAX), topic(i32::MAX)]), 2 * i64::from(i32::MAX));
    }

    #[test]
    fn the_controllers_log_is_no_topic() {
        let (results, wanted) = split_request(vec![asked(CLUSTER_METADATA), asked("__cluster_metadat")]);
        assert_eq!((results.len(), results[0].error_code, wanted.len()), (1, 42, 1));
    }

    #[test]
    fn a_partition_assigned_twice_is_refused() {
        let assignment = |index: i32| {
            CreatableReplicaAssignment::default().with_partition_index(index).with_broker_ids(vec![BrokerId(7)])
        };
        let (results, wanted) = split_request(vec![
            asked("a").with_assignments(vec![assignment(0), assignment(0)]),
            asked("b").with_assignments(vec![assignment(1), assignment(0)]),
        ]);
        assert_eq!(results[0].error_code, 39);
        assert_eq!(wanted[0].assignments, BTreeMap::from([(0, vec![7]), (1, vec![7])]));
    }

    #[test]
    fn every_version_can_say_success_and_failure() {
        let config = ServerConfig::default();
        for version in API.min..=API.max {
            let tells = version >= CONFIGS_FROM;
            let good = result(&config, tells, "a".into(), Ok(Arc::new(topic("a", 1, 3))));
            assert_eq!((good.error_code, good.num_partitions, good.replication_factor), (0, 3, 1));
            assert_eq!(good.configs.as_ref().is_some_and(|c| !c.is_empty()), tells);
            let bad = result(&config, tells, "b".into(), Err(no_outcome()));
            assert_eq!((bad.error_code, bad.num_partitions), (-1, -1));
            let response = CreateTopicsResponse::default().with_topics(vec![good, bad]);
            assert!(encode(ApiKey::CreateTopics, version, 1, &response).is_ok(), "v{version}");
        }
    }
}
