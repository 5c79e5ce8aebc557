//! The protocol of KIP-848: the coordinator assigns.

mod entry;

pub use entry::ConsumerTimer;

/// One consumer group.
#[derive(Debug, Default)]
pub struct ConsumerGroup {}
