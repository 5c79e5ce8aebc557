//! The single records inside a batch, for those who need them: the check of what is produced,
//! ListOffsets by timestamp, compaction, the records that the broker itself writes and reads.
//!
//! A batch that reaches this module has passed its CRC, which only says that it arrived as its
//! producer sent it. The producer may be hostile, so every walk is bounded in memory
//! ([`MAX_BLOCK_BYTES`]) and in work ([`MAX_OUTPUT_BYTES`]), and no input panics.

mod build;
mod compress;
mod decompress;
mod headers;
mod inspect;
mod walk;
mod zstd_stream;

#[cfg(test)]
mod tests;

pub use build::{BatchWriter, build, build_in_transaction};
pub use compress::{RecompressError, Target, append as compress, recompress};
pub use decompress::MAX_BLOCK_BYTES;
pub use headers::{Header, headers, put_headers};
pub use inspect::{BadRecord, Inspected, inspect, renumbered};
pub use walk::{MAX_OUTPUT_BYTES, RecordError, RecordMeta, RecordView, first_at_or_after, latest, read, walk};
