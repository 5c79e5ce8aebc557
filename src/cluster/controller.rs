//! The controller's rules, pure: an image and a request give the changed topics or Kafka's error.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::image::{MetadataImage, TopicImage};
use crate::config::ServerConfig;
use crate::model::ErrorCode;

/// Kafka's error and the sentence that goes with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct ControlError {
    pub code: ErrorCode,
    pub message: String,
}

/// One topic of a CreateTopics request.
#[derive(Clone, Debug, Default)]
pub struct CreateTopic {
    pub name: String,
    /// -1: the broker's default
    pub num_partitions: i32,
    /// -1: the broker's default
    pub replication_factor: i16,
    /// partition index -> broker ids; empty: the controller chooses
    pub assignments: BTreeMap<i32, Vec<i32>>,
    pub configs: Vec<(String, Option<String>)>,
}

/// One topic of a CreatePartitions request.
#[derive(Clone, Debug, Default)]
pub struct GrowTopic {
    pub name: String,
    /// The new total.
    pub count: i32,
    /// broker ids of each new partition; `None`: the controller chooses
    pub assignments: Option<Vec<Vec<i32>>>,
}

/// The topic as it would be created, with `id` as its identity.
pub fn create_topic(
    image: &MetadataImage,
    config: &ServerConfig,
    request: &CreateTopic,
    id: Uuid,
) -> Result<TopicImage, ControlError> {
    let _ = (image, config, request, id);
    todo!()
}

/// The topic with its new partitions.
pub fn grow_topic(image: &MetadataImage, request: &GrowTopic) -> Result<TopicImage, ControlError> {
    let _ = (image, request);
    todo!()
}

/// Kafka's rules for topic names: 1 to 249 of `[a-zA-Z0-9._-]`, not `.` or `..`; the error says which rule.
pub fn check_topic_name(name: &str) -> Result<(), ControlError> {
    let _ = name;
    todo!()
}
