//! The protocol of KIP-848: the coordinator assigns.

/// One consumer group.
#[derive(Debug, Default)]
pub struct ConsumerGroup {}
