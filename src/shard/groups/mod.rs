//! Group coordinators on the shards that own their partitions of `__consumer_offsets`: requests
//! find them, and they are told of topics. What a group is stands in [`crate::groups`], how a
//! coordinator lives in `coordinators`.

mod hosted;
mod routing;

#[cfg(test)]
mod tests;
