//! `produce` and `requests`: batches made once, sent over and over.

use std::io;
use std::rc::Rc;

use bytes::Bytes;

use super::batch::{BatchBuilder, Filler};
use super::options::Produce;
use super::pipeline::{Request, Sent, Source, Step};
use super::schedule::Schedule;
use crate::protocol::asking::{Caller, ProduceEnvelope};
use crate::runtime::clock;

/// Different batches per connection, within a size that stays in a CPU's cache or near it.
const VARIANTS: usize = 16;
const VARIANT_BYTES: usize = 4 << 20;

const TIMEOUT_MS: i32 = 30_000;

/// Batches that all have the same record count, and without compression the same length.
pub struct Stock {
    batches: Vec<Bytes>,
    records: u64,
    /// Of each before compression.
    raw_bytes: u64,
}

impl Stock {
    pub fn new(produce: &Produce, seed: u64) -> io::Result<Stock> {
        let limit = if produce.single { 0 } else { produce.batch_bytes };
        let count = (VARIANT_BYTES / limit.max(1)).clamp(1, VARIANTS) as u64;
        let (mut records, mut raw_bytes) = (0, 0);
        let mut value = vec![0; produce.record_size];
        let batches = (0..count).map(|variant| {
            let mut filler = Filler::new(seed * VARIANTS as u64 + variant + 1, produce.compressible);
            let mut builder = BatchBuilder::new(clock::wall_ms(), limit);
            while builder.records() == 0 || builder.bytes_with(value.len()) <= limit {
                filler.fill(&mut value);
                builder.push(&value);
            }
            (records, raw_bytes) = (builder.records() as u64, builder.bytes() as u64);
            builder.finish_compressed(produce.codec)
        });
        let batches = batches.collect::<io::Result<_>>()?;
        Ok(Stock { batches, records, raw_bytes })
    }

    pub fn mean_bytes(&self) -> f64 {
        self.batches.iter().map(Bytes::len).sum::<usize>() as f64 / self.batches.len() as f64
    }
}

/// One connection's requests, to its partitions in turn.
pub struct StockSource {
    stock: Stock,
    /// By partition, and within one by length of batch.
    envelopes: Vec<Vec<Rc<ProduceEnvelope>>>,
    /// Which of a partition's envelopes a batch has.
    envelope_of: Vec<usize>,
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
        let mut lengths: Vec<usize> = stock.batches.iter().map(Bytes::len).collect();
        lengths.sort_unstable();
        lengths.dedup();
        let place = |batch: &Bytes| lengths.binary_search(&batch.len()).unwrap_or(0);
        let envelope_of = stock.batches.iter().map(place).collect();
        let envelope = |partition: &i32| {
            let new = |bytes: &usize| ProduceEnvelope::new(caller, acks, TIMEOUT_MS, (topic, *partition), *bytes);
            lengths.iter().map(|bytes| Rc::new(new(bytes))).collect()
        };
        let envelopes = partitions.iter().map(envelope).collect();
        StockSource { stock, envelopes, envelope_of, schedule, until_ns, number: 0 }
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
        let variant = number % self.stock.batches.len();
        let batch = self.stock.batches[variant].clone();
        let envelope = &self.envelopes[number % self.envelopes.len()][self.envelope_of[variant]];
        let Stock { records, raw_bytes, .. } = self.stock;
        let sent = Sent { intended_ns, records, bytes: batch.len() as u64, raw_bytes };
        Step::Request(Request { envelope: envelope.clone(), batch, sent })
    }
}
