//! The metadata store: nodes by key, changed by compare-and-set, behind engines
//! that can be swapped.

mod commit;
#[cfg(test)]
pub(super) mod conformance;
mod engine;
mod local;
mod mirror;
mod model;
mod nodes;
mod records;
pub mod znodes;
pub mod zookeeper;

pub use commit::{Check, Commit, Lifetime, Node, Outcome, Write};
pub use engine::{Changes, CommitId, Event, Revision, Session, Snapshot, Store};
pub use local::LocalEngine;
pub use mirror::Mirror;
pub use model::{ClientId, Model, ModelClient, Step};
pub use records::{
    Assignment, BrokerRecord, Incarnation, Key, OfflineReplicas, PartitionState, Phase, Record, TopicRecord,
};
