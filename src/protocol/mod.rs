//! The wire protocol: frames, which APIs and versions exist, the requests whose codecs are our own
//! (Produce, Fetch, WriteTxnMarkers), and versions that the crate below lacks ([`newer`]). No I/O.
//!
//! Every byte that a decoder here reads came from a socket, so each count and length is checked
//! against the bytes that remain before anything is allocated for it. All other requests are
//! decoded by the crate `kafka-protocol`, which allocates by declared counts: they go through
//! [`guard::decode`], never to the crate directly.

pub mod api_table;
pub mod asking;
pub mod fetch;
pub mod frame;
pub mod guard;
pub mod markers;
pub mod newer;
pub mod produce;
pub mod replica_fetch;
pub mod respond;
mod shapes;
mod topic_key;
mod wire;

pub use api_table::{ApiSpec, Mode};
pub use frame::{Malformed, Prefix, RequestHeader, parse_header, parse_prefix, parse_rest, response_body};
pub use newer::{Newer, is_cordoned, set_cordoned};
pub use topic_key::TopicKey;

#[cfg(test)]
mod tests;
