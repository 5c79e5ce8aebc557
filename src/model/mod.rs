//! The words every layer shares: ids, error codes, record batches. No I/O, no clock, no async.

pub mod error_code;
mod id_map;
pub mod ids;
mod marker;
pub mod planted;
mod producer;
pub mod record_batch;
pub mod records;
#[cfg(test)]
pub mod testing;
pub mod varint;
pub mod wire;

pub use error_code::ErrorCode;
pub use id_map::IdMap;
pub use ids::*;
pub use marker::{EndMarker, Marker, MarkerKind};
pub use producer::KnownProducer;
