//! A client of a whole cluster, for the command line and the console: each question goes to the
//! broker that it is for, and again where that has changed. `route` finds the broker; the other
//! files have the questions, by what they are about.

mod brokers;
mod configs;
mod groups;
mod offsets;
mod quotas;
mod records;
mod route;
mod standings;
mod topics;

pub use brokers::{DirTopic, LogDir};
pub use configs::{Change, ConfigEntry, ConfigResource, ResourceKind, Synonym};
pub use groups::{Group, GroupKind, ListedGroup, Member};
pub use offsets::{Committed, Place, Spot};
pub use quotas::{QuotaEntity, Quotas};
pub use records::Fetched;
pub use route::{Bootstrap, ClusterClient, Manner, To, open_as};
pub(super) use route::{CLIENT_ID, is_of_network, open, will_pass};
pub use standings::Standing;
pub(super) use topics::text;
pub use topics::{NewTopic, Partition, Reassigned, Topic};
