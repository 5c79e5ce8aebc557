//! The groups of one partition of `__consumer_offsets`: from a request to the group it is for.

mod dispatch;

pub use dispatch::{Coordinator, Group, Timer};
