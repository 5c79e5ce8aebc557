//! The cluster: the metadata image every shard reads, the store that keeps it, the controller's
//! rules.

pub mod admin;
pub mod controller;
pub mod data_dirs;
mod directory_id;
mod epoch_store;
mod group_store;
mod homes;
pub mod image;
pub mod image_diff;
mod judge;
pub mod keeper;
mod look;
mod meta_properties;
pub mod metadata_store;
pub mod node;
mod placement;
pub mod quota_requests;
mod quota_store;
pub mod quotas;
pub mod rules;
pub mod store;
mod topic_batch;
mod topic_nodes;

pub use directory_id::{DirectoryId, decode_id};
pub use image::{
    BrokerImage, EndpointImage, MetadataImage, OfflinePartitions, PartitionHome, PartitionImage, TopicImage,
};
pub use look::{CLEAN_MARK, parse_partition_metadata, partition_metadata};
pub use meta_properties::{FILE as META_FILE, MetaFile, MetaProperties};
pub use placement::{Placement, Stray};
pub use topic_nodes::nodes_of;
