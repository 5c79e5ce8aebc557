//! A consumer of one topic's partitions, for the command line.

mod chunk;
mod driver;
mod fetch;

pub use chunk::{Chunk, RecordOf};
pub use driver::{Consumer, Position, Settings};

pub use crate::protocol::asking::Isolation;
