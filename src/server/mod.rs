//! Sockets to handlers. A connection is two tasks on one shard: the reader cuts frames out of the
//! stream and hands each to [`dispatch`] in order, the writer sends the answers in that same order.
//! Reading order: [`listener`], [`connection`], [`receive`] and [`pipeline`] (its two halves),
//! [`dispatch`], [`session`] (the contract of handlers), then one file per API in [`handlers`];
//! [`in_line`] is where requests to groups wait. Where there are several shards, [`traffic`] says
//! which of them a connection had better be on, and [`crossing`] is the way there. [`quotas`] holds
//! clients to what they may use. [`reference`] prints the APIs and their differences from Kafka.
//!
//! Invariants: answers leave in request order; a peer's declared lengths and counts allocate
//! nothing before the bytes are there; every queue here is bounded by an option; bad input ends its
//! own connection and nothing else.

mod connection;
mod context;
mod crossing;
mod dispatch;
mod errors;
mod fetch_session;
mod handlers;
mod in_line;
mod listener;
mod peer;
mod pipeline;
mod principal;
mod quotas;
mod receive;
pub mod reference;
mod session;
mod slow;
mod traffic;

pub use crossing::Loads;
pub use listener::{admission, serve};
pub use quotas::QuotaBoard;
