//! Group coordinators on the shards that own their partitions of `__consumer_offsets`: requests find them, what they write is
//! appended, what they answer waits for it, their deadlines are kept. What a group is stands in [`crate::groups`].

mod deadlines;
mod hosted;
mod load;
mod routing;

#[cfg(test)]
mod tests;

pub use crate::groups::api::*;

pub(super) use hosted::Coordinators;
pub use routing::OFFSETS_TOPIC;
