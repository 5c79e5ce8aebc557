//! One core: its replicas, its mailbox, and the routing of work to the shard that owns a partition.

mod api;
mod start;
mod state;

pub use api::*;
pub use start::{ShardReady, ShardStart, run};
pub use state::Shard;
