//! Enforcement of client quotas (KIP-13, KIP-124, KIP-219, KIP-599, KIP-612). What clients have
//! used is counted for the whole broker in a [`QuotaBoard`] that its shards share; [`Quotas`] is
//! one shard's view of it, and [`QuotaCall`] one request's part. A client that has used too much is
//! answered at once, told how long to wait, and not read from meanwhile ([`Mute`]).
//!
//! Without quotas a request costs one look at a flag of its shard.

mod board;
mod bucket;
mod call;
mod meter;
mod mute;
mod registry;
mod throttled;
mod view;
mod window;

pub use board::QuotaBoard;
pub use call::QuotaCall;
pub use meter::Timed;
pub use mute::Mute;
pub use throttled::{Throttled, settled};
pub use view::Quotas;
