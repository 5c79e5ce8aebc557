//! Log cleaning (`cleanup.policy=compact`): of every key the newest record stays, at its offset;
//! tombstones go after a time.
//!
//! A cleaning reads the dirty part of the log (what was sealed since the last one) and notes
//! the newest offset of each key ([`map`]). Then it writes all sealed segments anew without
//! the records that the map knows newer ones of ([`filter`]), small neighbours into one
//! ([`plan`]), and exchanges them ([`swap`]: the states a crash may leave). Reading and
//! writing happen on helper threads in small steps ([`work`]); the shard drives them and
//! exchanges the segments in memory ([`clean`]).
//!
//! A cleaned segment ends with the batch that the last old one ended with, without records if need
//! be: so every segment ends where the next begins, and recovery can tell a missing segment.
//!
//! Records of aborted transactions go; their entry in the index of aborted transactions goes with
//! the cleaning that finds none of them any more, and the marker later, after `delete.retention.ms`
//! ([`txns`]). Only what lies before the last stable offset is cleaned.

mod clean;
mod files;
mod filter;
mod map;
mod pace;
mod plan;
mod swap;
mod txns;
mod work;

#[cfg(test)]
mod tests;

pub use clean::{CleanError, CleanState, CleanStats, Cleaner, CleanerLimits, parse_checkpoint};
pub(in crate::storage) use files::{Cleaned, Output, named};
pub use filter::LastOffsets;
pub use plan::Survey;
pub use swap::{Step, recover};
pub(in crate::storage) use swap::{Swap, run as run_steps};
