//! The metadata store: nodes by key, changed by compare-and-set, behind engines that can be swapped.

mod commit;
mod records;

pub use commit::{Check, Commit, Lifetime, Node, Outcome, Write};
pub use records::{Assignment, BrokerRecord, Incarnation, Key, PartitionState, Phase, Record, TopicRecord};
