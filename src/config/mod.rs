//! Every option once: name, type, default, bounds, documentation.

mod server;
mod topic;

pub use server::ServerConfig;
pub use topic::TopicConfig;
