//! How the partitions of a group's topics are shared out among its members:
//! pure functions, Kafka's two.

mod range;
mod spec;
mod uniform;

#[cfg(test)]
mod tests;

pub(super) use spec::{Assignor, Spec, SpecMember, SpecTopic};
