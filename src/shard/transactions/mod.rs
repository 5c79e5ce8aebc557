//! Transaction coordinators on the shards that own their partitions of `__transaction_state`:
//! requests find them, and the markers that they decide on are written. What a transaction is
//! stands in [`crate::transactions`], how a coordinator lives in `coordinators`.

mod hosted;
mod markers;
mod peers;
mod routing;
mod verifier;

pub(super) use peers::Peers;
