//! Options of a run.

use std::time::Duration;

use crate::model::record_batch::Codec;

#[derive(Clone, Debug)]
pub struct Options {
    /// host:port
    pub bootstrap: String,
    pub topic: String,
    /// `None`: all that the topic has, or one when it has to be made.
    pub partitions: Option<i32>,
    pub connections: usize,
    pub threads: u16,
    /// One for each thread, or none.
    pub cpus: Vec<usize>,
    /// `None`: until the end that a consumer found when it started.
    pub duration: Option<Duration>,
    /// Before `duration` begins to count.
    pub warmup: Duration,
    /// Go on after errors.
    pub tolerate: bool,
    pub work: Work,
}

#[derive(Clone, Debug)]
pub enum Work {
    Produce(Produce),
    E2e(E2e),
    Consume(Consume),
}

#[derive(Clone, Debug)]
pub struct Produce {
    /// One record in each request; requests are what is counted.
    pub single: bool,
    /// Bytes of a record's value.
    pub record_size: usize,
    /// Records are added to a batch while it stays within, uncompressed.
    pub batch_bytes: usize,
    pub codec: Codec,
    /// How much of each value compresses well, percent.
    pub compressible: u8,
    pub acks: i16,
    pub in_flight: usize,
    /// Megabytes (10^6 bytes of batches) per second; `None`: as much as goes.
    pub rate: Option<f64>,
}

#[derive(Clone, Debug)]
pub struct E2e {
    /// Records per second.
    pub rate: f64,
    pub record_size: usize,
    /// Records that became due while a request could not be sent go into one batch, up to this
    /// size.
    pub batch_bytes: usize,
    pub acks: i16,
    pub in_flight: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    Earliest,
    End,
}

#[derive(Clone, Debug)]
pub struct Consume {
    pub from: From,
    pub verify: bool,
    /// How many times every partition is read, each time by other connections.
    pub fan_out: usize,
    pub min_bytes: i32,
    pub max_wait_ms: i32,
    /// Per request, and per partition within one.
    pub max_bytes: i32,
    pub partition_max_bytes: i32,
}

impl Work {
    pub fn name(&self) -> &'static str {
        match self {
            Work::Produce(Produce { single: true, .. }) => "requests",
            Work::Produce(_) => "produce",
            Work::E2e(_) => "e2e",
            Work::Consume(_) => "consume",
        }
    }
}
