//! A producer of one topic, for the command line. Of each partition one batch is under way at a
//! time, so that records keep their order whatever is tried again; the batches of several
//! partitions go to their leader in one request.

mod batches;
mod deliver;
mod driver;

pub use batches::Record;
pub use driver::{Acknowledged, Producer, Settings, Tally};
