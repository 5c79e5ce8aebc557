//! Options of topics and brokers.

use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::{
    DescribeConfigsRequest, DescribeConfigsResponse, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
};

use super::route::{ClusterClient, To, will_pass};
use super::topics::{silent, text};
use crate::client::error::{ClientError, Refusal};

/// Owner of options, by Kafka's numbers (`ConfigResource.Type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
pub enum ResourceKind {
    Topic = 2,
    Broker = 4,
    Group = 32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigResource {
    pub kind: ResourceKind,
    /// Empty for all brokers.
    pub name: String,
}

/// One of the places that a value may come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synonym {
    pub name: String,
    pub value: Option<String>,
    pub source: i8,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigEntry {
    pub name: String,
    /// `None`: not set, or not shown.
    pub value: Option<String>,
    /// By Kafka's numbers (`ConfigSource`).
    pub source: i8,
    pub read_only: bool,
    pub sensitive: bool,
    /// From the one in force to the default.
    pub synonyms: Vec<Synonym>,
}

/// A change of one option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Set(String, String),
    Unset(String),
}

impl ConfigResource {
    pub fn topic(name: &str) -> ConfigResource {
        ConfigResource { kind: ResourceKind::Topic, name: name.to_owned() }
    }

    /// A broker's own options are asked of that broker.
    fn to(&self) -> To<'static> {
        match (self.kind, self.name.parse()) {
            (ResourceKind::Broker, Ok(id)) => To::Broker(id),
            _ => To::Any,
        }
    }
}

impl ClusterClient {
    /// The options of each resource, in name order. All of one kind, of which
    /// brokers are asked one by one.
    pub async fn configs(
        &mut self,
        resources: &[ConfigResource],
    ) -> Result<Vec<(ConfigResource, Result<Vec<ConfigEntry>, Refusal>)>, ClientError> {
        let mut found = Vec::new();
        let (single, together): (Vec<_>, Vec<_>) =
            resources.iter().partition(|resource| resource.kind == ResourceKind::Broker);
        for part in single.chunks(1).chain(together.chunks(500)) {
            let Some(to) = part.first().map(|resource| resource.to()) else { continue };
            let make = |_| {
                let asked = |resource: &&ConfigResource| {
                    let asked = DescribeConfigsResource::default().with_resource_type(resource.kind as i8);
                    asked.with_resource_name(text(&resource.name)).with_configuration_keys(None)
                };
                let request = DescribeConfigsRequest::default().with_resources(part.iter().map(asked).collect());
                request.with_include_synonyms(true)
            };
            let answer = match to {
                To::Broker(_) => self.ask_once(to, make).await?,
                _ => self.ask(to, make, |_: &DescribeConfigsResponse| false).await?,
            };
            for resource in part {
                let told = answer
                    .results
                    .iter()
                    .find(|told| told.resource_type == resource.kind as i8 && *told.resource_name == *resource.name);
                let told = told.ok_or_else(|| silent("DescribeConfigs", &resource.name))?;
                let outcome = Refusal::check(told.error_code, told.error_message.as_deref()).map(|()| {
                    let mut entries: Vec<ConfigEntry> = told.configs.iter().map(entry).collect();
                    entries.sort_by(|a, b| a.name.cmp(&b.name));
                    entries
                });
                found.push(((*resource).clone(), outcome));
            }
        }
        Ok(found)
    }

    /// Carries all changes out, or none.
    pub async fn alter_configs(
        &mut self,
        resource: &ConfigResource,
        changes: &[Change],
        validate_only: bool,
    ) -> Result<Result<(), Refusal>, ClientError> {
        let to = if resource.kind == ResourceKind::Broker { resource.to() } else { To::Controller };
        let make = |_| {
            let configs = changes.iter().map(|change| match change {
                Change::Set(name, value) => {
                    AlterableConfig::default().with_name(text(name)).with_value(Some(text(value)))
                }
                Change::Unset(name) => {
                    AlterableConfig::default().with_name(text(name)).with_config_operation(1).with_value(None)
                }
            });
            let altered = AlterConfigsResource::default().with_resource_type(resource.kind as i8);
            let altered = altered.with_resource_name(text(&resource.name)).with_configs(configs.collect());
            IncrementalAlterConfigsRequest::default().with_resources(vec![altered]).with_validate_only(validate_only)
        };
        let passes = |answer: &IncrementalAlterConfigsResponse| {
            answer.responses.iter().all(|resource| will_pass(resource.error_code))
        };
        let answer = self.ask(to, make, passes).await?;
        let told = answer.responses.first().ok_or_else(|| silent("IncrementalAlterConfigs", &resource.name))?;
        Ok(Refusal::check(told.error_code, told.error_message.as_deref()))
    }
}

fn entry(told: &kafka_protocol::messages::describe_configs_response::DescribeConfigsResourceResult) -> ConfigEntry {
    ConfigEntry {
        name: told.name.to_string(),
        value: told.value.as_ref().map(|value| value.to_string()),
        source: told.config_source,
        read_only: told.read_only,
        sensitive: told.is_sensitive,
        synonyms: told
            .synonyms
            .iter()
            .map(|synonym| Synonym {
                name: synonym.name.to_string(),
                value: synonym.value.as_ref().map(|value| value.to_string()),
                source: synonym.source,
            })
            .collect(),
    }
}
