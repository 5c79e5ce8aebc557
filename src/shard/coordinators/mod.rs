//! Coordinators on the shards that own the partitions of their topics: they are loaded with the
//! leadership and end with it, what they write is appended, what they answer waits for it, their
//! deadlines are kept. What a group or a transaction is stands in [`crate::groups`] and
//! [`crate::transactions`]; each implements [`Core`].

mod deadlines;
mod hosted;
mod load;
mod topic;

pub use hosted::{Asked, Coordinators, Core, Hosted, Outcome, answer};
pub use topic::CoordinatorTopic;
