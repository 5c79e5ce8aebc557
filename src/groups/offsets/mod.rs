//! Committed offsets of the groups of one coordinator.

mod commit;
mod delete;
mod expire;
mod fetch;
mod pending;
mod store;

pub use store::{Committed, Offsets};
