//! What the cluster consists of: the metadata image every shard reads, the store that keeps it, the controller's rules.

pub mod controller;
pub mod image;
pub mod metadata_store;

pub use image::{BrokerImage, EndpointImage, MetadataImage, OfflinePartitions, PartitionImage, TopicImage};
pub use metadata_store::encode_id;
