//! Facts and rules of `corelane tune`: facts about the host ([`Host`], read from /proc and /sys),
//! short measurements of the data directory's device ([`measure`]), rules that turn facts into
//! findings ([`findings`]), and the profile of options that fits ([`Profile`]). Nothing here
//! changes the system but [`Mend::apply`].

mod block;
mod class;
mod findings;
mod host;
mod measure;
mod mend;
mod mounts;
mod profile;
mod report;
mod shipped;
mod text;

#[cfg(test)]
mod tests;

pub use block::{Disk, Irq};
pub use class::{Class, Fit, fit};
pub use findings::{Finding, findings};
pub use host::{Congestion, Host, MemoryUse};
pub use measure::{MeasureError, Measured, Step, Throughput, WRITE_DEPTHS, WRITE_SIZES, measure};
pub use mend::Mend;
pub use mounts::Mount;
pub use profile::{Profile, Setting};
pub use report::{Report, json};
