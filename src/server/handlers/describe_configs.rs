//! DescribeConfigs: the settings of topics, of groups and of this broker, and
//! where each comes from.

use std::collections::{HashMap, HashSet};

use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::{ApiKey, DescribeConfigsRequest, DescribeConfigsResponse};
use kafka_protocol::protocol::StrBytes;

use crate::cluster::MetadataImage;
use crate::cluster::controller::{ControlError, check_topic_name};
use crate::config::{ConfigEntry, ServerConfig, describe_broker, describe_default, describe_group, describe_topic};
use crate::model::ErrorCode;
use crate::protocol::ApiSpec;
use crate::server::session::{Call, Session};

use super::shared::{control_error, error_message, text};

pub const API: ApiSpec = ApiSpec::new(ApiKey::DescribeConfigs, 1, 4);

/// The most that one answer may take; all options of some 15,000 topics. Resources beyond it
/// are answered with an error.
const MAX_ANSWER_BYTES: usize = 96 << 20;

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const BROKER_LOGGER: i8 = 8;
const GROUP: i8 = 32;

pub async fn handle(session: &Session, Call { request, .. }: Call<DescribeConfigsRequest>) -> DescribeConfigsResponse {
    let image = session.shard().image();
    respond(&image, &session.shard().settings(), request)
}

fn respond(image: &MetadataImage, config: &ServerConfig, request: DescribeConfigsRequest) -> DescribeConfigsResponse {
    respond_within(MAX_ANSWER_BYTES, image, config, request)
}

fn respond_within(
    limit: usize,
    image: &MetadataImage,
    config: &ServerConfig,
    request: DescribeConfigsRequest,
) -> DescribeConfigsResponse {
    let (synonyms, docs) = (request.include_synonyms, request.include_documentation);
    let mut left = limit;
    let results = distinct(request.resources).into_iter().map(|resource| {
        let result = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        let described = if left == 0 { Err(too_large(limit)) } else { entries(image, config, &resource) };
        let described = described.and_then(|entries| {
            let wanted = wanted(resource.configuration_keys);
            let chosen = entries.into_iter().filter(|e| wanted.as_ref().is_none_or(|set| set.contains(e.name)));
            let configs: Vec<_> = chosen.map(|entry| describe(entry, synonyms, docs)).collect();
            left = left.saturating_sub(configs.iter().map(answer_bytes).sum());
            if left == 0 { Err(too_large(limit)) } else { Ok(configs) }
        });
        match described {
            Ok(configs) => result.with_configs(configs),
            Err(error) => result.with_error_code(error.code.code()).with_error_message(error_message(error.message)),
        }
    });
    DescribeConfigsResponse::default().with_results(results.collect())
}

/// Each resource once: a request of repeats must not buy an answer a thousand times its size.
/// Kafka answers each repeat.
fn distinct(resources: Vec<DescribeConfigsResource>) -> Vec<DescribeConfigsResource> {
    let mut places = HashMap::new();
    let mut distinct: Vec<DescribeConfigsResource> = Vec::new();
    for resource in resources {
        let next = distinct.len();
        let place = *places.entry((resource.resource_type, resource.resource_name.clone())).or_insert(next);
        let Some(known) = distinct.get_mut(place) else {
            distinct.push(resource);
            continue;
        };
        // Together they ask for the keys of both; null and the empty list are all keys.
        known.configuration_keys = match (known.configuration_keys.take(), resource.configuration_keys) {
            (Some(mut keys), Some(more)) if !keys.is_empty() && !more.is_empty() => {
                keys.extend(more);
                Some(keys)
            }
            _ => None,
        };
    }
    distinct
}

fn too_large(limit: usize) -> ControlError {
    let message =
        format!("The answer would be larger than {limit} bytes: ask for fewer resources or fewer keys in one request.");
    control_error(ErrorCode::InvalidRequest, message)
}

/// About what an entry takes in memory and on the wire.
fn answer_bytes(entry: &DescribeConfigsResourceResult) -> usize {
    let length = |text: &Option<StrBytes>| text.as_ref().map_or(0, |text| text.len());
    let synonyms = entry.synonyms.iter().map(|synonym| 96 + synonym.name.len() + length(&synonym.value));
    192 + entry.name.len() + length(&entry.value) + length(&entry.documentation) + synonyms.sum::<usize>()
}

/// `None`: all. An empty list means all as well, as Kafka takes it.
fn wanted(keys: Option<Vec<StrBytes>>) -> Option<HashSet<String>> {
    let keys = keys.filter(|keys| !keys.is_empty())?;
    Some(keys.iter().map(|key| key.to_string()).collect())
}

fn entries(
    image: &MetadataImage,
    config: &ServerConfig,
    resource: &DescribeConfigsResource,
) -> Result<Vec<ConfigEntry>, ControlError> {
    let name = &*resource.resource_name;
    match resource.resource_type {
        TOPIC => {
            check_topic_name(name)?;
            match image.topic(name) {
                Some(topic) => Ok(describe_topic(config, &topic.overrides)),
                None => Err(control_error(ErrorCode::UnknownTopicOrPartition, format!("There is no topic {name}."))),
            }
        }
        // An empty name asks for what was set for all brokers at once.
        BROKER if name.is_empty() => Ok(describe_default(config)),
        BROKER | BROKER_LOGGER if name.parse() != Ok(config.broker_id) => {
            let message = format!("Unexpected broker id, expected {}, but received {name}", config.broker_id);
            Err(control_error(ErrorCode::InvalidRequest, message))
        }
        BROKER => Ok(describe_broker(config)),
        // Log levels are one filter here (corelane.log.level), not a level by logger.
        BROKER_LOGGER => Ok(Vec::new()),
        GROUP if name.is_empty() => Err(control_error(ErrorCode::InvalidRequest, "Group name must not be empty")),
        // It has not to be there.
        GROUP => Ok(describe_group(config, &image.groups.of(name))),
        other => {
            let message =
                format!("Resource type {other} is not supported: topics (2), brokers (4) and groups (32) are.");
            Err(control_error(ErrorCode::InvalidRequest, message))
        }
    }
}

fn describe(entry: ConfigEntry, synonyms: bool, docs: bool) -> DescribeConfigsResourceResult {
    let hidden = entry.sensitive;
    let told = |value: Option<String>| value.filter(|_| !hidden).map(StrBytes::from_string);
    let result = DescribeConfigsResourceResult::default()
        .with_name(text(entry.name))
        .with_value(told(entry.value))
        .with_read_only(entry.read_only)
        .with_config_source(entry.source as i8)
        .with_is_sensitive(hidden)
        .with_config_type(entry.kind as i8)
        .with_documentation(docs.then(|| text(entry.doc)));
    if !synonyms {
        return result;
    }
    let synonyms = entry.synonyms.into_iter().map(|synonym| {
        DescribeConfigsSynonym::default()
            .with_name(StrBytes::from_string(synonym.name))
            .with_value(told(synonym.value))
            .with_source(synonym.source as i8)
    });
    result.with_synonyms(synonyms.collect())
}

#[cfg(test)]
mod tests {
    use super::super::shared::testing::{image, topic};
    use super::*;
    use crate::protocol::respond::encode;

    fn ask(resource: (i8, &str), keys: Option<&[&str]>, flags: bool) -> DescribeConfigsResult {
        let mut image = image(&[]);
        let mut topic = topic("a", 1, 1);
        topic.overrides.insert("retention.ms".into(), "1234".into());
        image.put_topic(topic);
        let config = ServerConfig { broker_id: 7, ..ServerConfig::default() };
        let resource = DescribeConfigsResource::default()
            .with_resource_type(resource.0)
            .with_resource_name(text(resource.1))
            .with_configuration_keys(keys.map(|keys| keys.iter().map(|key| text(key)).collect()));
        let request = DescribeConfigsRequest::default()
            .with_resources(vec![resource])
            .with_include_synonyms(flags)
            .with_include_documentation(flags);
        let response = respond(&image, &config, request);
        for version in API.min..=API.max {
            assert!(encode(ApiKey::DescribeConfigs, version, 1, &response).is_ok(), "v{version}");
        }
        response.results[0].clone()
    }

    #[test]
    fn a_topics_override_is_told_with_its_source_and_synonyms() {
        let result = ask((TOPIC, "a"), Some(&["retention.ms", "no.such.option"]), true);
        assert_eq!((result.error_code, result.configs.len()), (0, 1));
        let config = &result.configs[0];
        assert_eq!((config.value.as_deref(), config.config_source, config.is_sensitive), (Some("1234"), 1, false));
        assert!(config.documentation.as_ref().is_some_and(|doc| !doc.is_empty()));
        assert_eq!((&*config.synonyms[0].name, config.synonyms[0].source), ("retention.ms", 1));
        let plain = ask((TOPIC, "a"), Some(&["retention.ms"]), false);
        assert_eq!((plain.configs[0].synonyms.len(), plain.configs[0].documentation.as_ref()), (0, None));
    }

    #[test]
    fn all_options_without_a_filter() {
        for keys in [None, Some(&[][..])] {
            assert!(ask((TOPIC, "a"), keys, false).configs.len() > 10);
            assert!(ask((BROKER, "7"), keys, false).configs.len() > 10);
        }
        assert!(ask((GROUP, "any"), None, false).configs.len() > 10);
        assert!(ask((BROKER_LOGGER, "7"), None, false).configs.is_empty());
        assert!(ask((BROKER, ""), None, false).configs.is_empty());
    }

    fn asked(name: &str, keys: Option<&[&str]>) -> DescribeConfigsResource {
        DescribeConfigsResource::default()
            .with_resource_type(TOPIC)
            .with_resource_name(text(name))
            .with_configuration_keys(keys.map(|keys| keys.iter().map(|key| text(key)).collect()))
    }

    #[test]
    fn a_repeated_resource_is_answered_once_with_the_keys_of_all() {
        let some: Option<&[&str]> = Some(&["retention.ms"]);
        let other: Option<&[&str]> = Some(&["segment.bytes", "retention.ms"]);
        let counts = |keys: &[Option<&[&str]>]| -> Vec<usize> {
            let mut resources: Vec<_> = keys.iter().map(|keys| asked("a", *keys)).collect();
            resources.push(asked("b", some));
            let request = DescribeConfigsRequest::default().with_resources(resources);
            let response = respond(&image(&[("a", 1, 1), ("b", 2, 1)]), &ServerConfig::default(), request);
            response.results.iter().map(|result| result.configs.len()).collect()
        };
        let all = counts(&[None])[0];
        assert!(all > 10);
        assert_eq!(counts(&[some, other]), [2, 1]);
        assert_eq!(counts(&[some, None, other]), [all, 1]);
        assert_eq!(counts(&[Some(&[]), other, some]), [all, 1]);
    }

    #[test]
    fn an_answer_ends_at_its_limit_with_errors() {
        let image = image(&[("a", 1, 1), ("b", 2, 1), ("c", 3, 1)]);
        let keys: Option<&[&str]> = Some(&["retention.ms"]);
        let request =
            DescribeConfigsRequest::default().with_resources(["a", "b", "c"].map(|n| asked(n, keys)).to_vec());
        let response = respond_within(300, &image, &ServerConfig::default(), request);
        let rows: Vec<_> = response.results.iter().map(|r| (r.error_code, r.configs.len())).collect();
        assert_eq!(rows, [(0, 1), (42, 0), (42, 0)]);
        assert!(response.results[2].error_message.as_ref().is_some_and(|message| message.contains("300 bytes")));
    }

    #[test]
    fn unknown_resources_are_errors_of_their_entry() {
        for (resource, code) in [
            ((TOPIC, "zz"), 3),
            ((TOPIC, "a/b"), 17),
            ((BROKER, "8"), 42),
            ((BROKER, "x"), 42),
            ((GROUP, ""), 42),
            ((99, "g"), 42),
        ] {
            let result = ask(resource, None, true);
            assert_eq!((result.error_code, result.configs.len()), (code, 0), "{resource:?}");
            assert!(result.error_message.is_some());
        }
    }
}
