//! Every option once: name, type, default, bounds, documentation. `options` is the table;
//! everything else reads it.

mod cordoned;
mod defaults;
mod describe;
mod dynamic;
mod explain;
mod foreign;
mod group;
mod group_options;
mod listener;
mod load;
mod markdown;
mod options;
pub(crate) mod properties;
mod server;
mod topic;
mod transaction;
mod value;

pub use cordoned::absolute_dir;
pub use describe::{ConfigEntry, ConfigSource, ConfigSynonym, describe_broker, describe_default, describe_topic};
pub use dynamic::DynamicOptions;
pub use explain::{Explanation, explain, option_names};
pub use group::GroupConfig;
pub use group_options::{GroupOptions, Options as OptionsOfGroup, check as check_group, describe_group};
pub use listener::{Advertised, ListenerConfig};
pub use load::{ConfigError, Origin, Warning};
pub use markdown::{markdown, plain};
pub use options::{Alias, MAX_BATCH_BYTES, OPTIONS, OptionSpec};
pub use server::{Acknowledge, MAX_SHARDS, ProduceValidation, ReplicaSelector, ServerConfig, Untaken};
pub use topic::{CompressionType, ThrottledReplicas, TopicConfig};
pub use transaction::TransactionConfig;
pub use value::{Bounds, Kind};
