//! `produce` and `requests`: batches made once, sent over and over.

use std::rc::Rc;

use bytes::Bytes;

use super::batch::{BatchBuilder, Noise};
use super::options::Produce;
use super::pipeline::{Request, Sent, Source, Step};
use super::schedule::Schedule;
use crate::protocol::asking::{Caller, ProduceEnvelope};
use crate::runtime::clock;

/// Different batches per connection, within a size that stays in a CPU's cache or near it.
const VARIANTS: usize = 16;
const VARIANT_BYTES: usize = 4 << 20;

const TIMEOUT_MS: i32 = 30_000;

/// Batches that all have the same length and record count.
pub struct Stock {
    batches: Vec<Bytes>,
    records: u64,
}

impl Stock {
    pub fn new(produce: &Produce, seed: u64) -> Stock {
        let limit = if produce.single { 0 } else { produce.batch_bytes };
        let count = (VARIANT_BYTES / limit.max(1)).clamp(1, VARIANTS) as u64;
        let mut records = 0;
        let mut value = vec![0; produce.record_size];
        let batches = (0..count).map(|variant| {
            let mut noise = Noise::new(seed * VARIANTS as u64 + variant + 1);
            let mut builder = BatchBuilder::new(clock::wall_ms(), limit);
            while builder.records() == 0 || builder.bytes_with(value.len()) <= limit {
                noise.fill(&mut value);
                builder.push(&value);
            }
            records = builder.records() as u64;
            builder.finish()
        });
        Stock { batches: batches.collect(), records }
    }

    pub fn batch_bytes(&self) -> usize {
        self.batches.first().map_or(0, Bytes::len)
    }
}

/// One connection's requests, to its partitions in turn.
pub struct StockSource {
    stock: Stock,
    envelopes: Vec<Rc<ProduceEnvelope>>,
    /// `None`: always one more.
    schedule: Option<Schedule>,
    until_ns: u64,
    number: u64,
}

impl StockSource {
    pub fn new(
        stock: Stock,
        caller: Caller<'_>,
        acks: i16,
        topic: &str,
        partitions: &[i32],
        schedule: Option<Schedule>,
        until_ns: u64,
    ) -> StockSource {
        let bytes = stock.batch_bytes();
        let envelope = |partition: &i32| ProduceEnvelope::new(caller, acks, TIMEOUT_MS, (topic, *partition), bytes);
        let envelopes = partitions.iter().map(|partition| Rc::new(envelope(partition))).collect();
        StockSource { stock, envelopes, schedule, until_ns, number: 0 }
    }
}

impl Source for StockSource {
    fn next(&mut self, now_ns: u64) -> Step {
        let intended_ns = self.schedule.map_or(now_ns, |schedule| schedule.due_ns(self.number));
        if intended_ns >= self.until_ns {
            return Step::End;
        }
        if intended_ns > now_ns {
            return Step::Wait(intended_ns);
        }
        let number = usize::try_from(self.number).unwrap_or(0);
        self.number += 1;
        let batch = self.stock.batches[number % self.stock.batches.len()].clone();
        let sent = Sent { intended_ns, records: self.stock.records, bytes: batch.len() as u64 };
        Step::Request(Request { envelope: self.envelopes[number % self.envelopes.len()].clone(), batch, sent })
    }
}
