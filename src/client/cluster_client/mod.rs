//! A client of a whole cluster, for the command line: each question goes to the broker that it is for, and again where
//! that has changed. `route` finds the broker; the other files have the questions, by what they are about.

mod brokers;
mod configs;
mod groups;
mod offsets;
mod quotas;
mod route;
mod topics;

pub use brokers::{DirTopic, LogDir};
pub use configs::{Change, ConfigEntry, ConfigResource, ResourceKind, Synonym};
pub use groups::{Group, GroupKind, ListedGroup, Member};
pub use offsets::{Committed, Place, Spot};
pub use quotas::{QuotaEntity, Quotas};
pub use route::{Bootstrap, ClusterClient, To};
pub use topics::{NewTopic, Partition, Reassigned, Topic};
