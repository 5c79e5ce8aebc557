//! Rot: bytes of a segment that were sound once and no longer are. They are copied aside into
//! `<segment>.log.<position>.rot`, named in the log, and taken out of the segment; what is sound
//! behind them stays and is served.
//!
//! [`survey`] tells sound stretches from damaged ones, [`judge`] tells rot from a torn tail,
//! [`aside`] moves the damaged bytes out of the segment. Blocking; runs on helper threads.

mod aside;
mod check;
mod judge;
mod survey;

#[cfg(test)]
mod tests;

pub use aside::{copy_tail, set_aside, write_mended};
pub use check::check_batches;
pub use judge::{Evidence, Verdict, judge, never_written};
pub use survey::{Bounds, MAX_BATCH_BYTES, Stretch, batch_at, survey};
