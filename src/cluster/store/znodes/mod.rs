//! Znodes of Apache Kafka 3.9 in ZooKeeper mode: keys as paths, records as bytes. Pure.

mod brokers;
mod format;
mod json;
mod paths;
mod records;
mod topics;

#[cfg(test)]
mod tests;

pub use format::{FORMAT_PATH, Format};
pub use json::ZnodeError;
pub use paths::{CONTAINERS, Place, SINGLE_NODES, path, place};
pub use records::{Writer, decode, encode};
pub use topics::topic_bytes;
