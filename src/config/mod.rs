//! Every option once: name, type, default, bounds, documentation. `options` is the table; everything else reads it.

mod defaults;
mod describe;
mod dynamic;
mod explain;
mod foreign;
mod group;
mod listener;
mod load;
mod markdown;
mod options;
pub(crate) mod properties;
mod server;
mod topic;
mod value;

pub use describe::{ConfigEntry, ConfigSource, ConfigSynonym, describe_broker, describe_default, describe_topic};
pub use dynamic::DynamicOptions;
pub use explain::{Explanation, explain, option_names};
pub use group::GroupConfig;
pub use listener::{Advertised, ListenerConfig};
pub use load::{ConfigError, Origin, Warning};
pub use markdown::{markdown, plain};
pub use options::{Alias, OPTIONS, OptionSpec};
pub use server::{Acknowledge, ProduceValidation, ReplicaSelector, ServerConfig, Untaken};
pub use topic::{CompressionType, ThrottledReplicas, TopicConfig};
pub use value::{Bounds, Kind};
