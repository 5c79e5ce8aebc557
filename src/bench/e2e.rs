//! `e2e`: every record carries the moment at which it was due, and its consumer
//! takes the time from there.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::batch::{BatchBuilder, Noise, values};
use super::consume::{Consumer, Partition};
use super::context::{Context, Shared};
use super::options::E2e;
use super::pipeline::{Request, Sent, Source, Step};
use super::schedule::Schedule;
use super::stats::Done;
use crate::model::record_batch::{BatchError, check};
use crate::protocol::asking::{Caller, FetchLimits, Isolation, ProduceEnvelope};
use crate::runtime::clock;

const TIMEOUT_MS: i32 = 30_000;

/// A record's value: which run, its number within its partition, when it was due; then noise.
pub const MIN_RECORD_BYTES: usize = 24;

pub const LIMITS: FetchLimits = FetchLimits {
    max_wait_ms: 500,
    min_bytes: 1,
    max_bytes: 50 << 20,
    partition_max_bytes: 1 << 20,
    isolation: Isolation::ReadUncommitted,
};

fn field(value: &[u8], at: usize) -> Option<u64> {
    value.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes)
}

/// One connection's records. What is due when a request can leave goes into one batch,
/// to its partitions in turn.
pub struct RecordSource {
    shared: Arc<Shared>,
    caller: Caller<'static>,
    acks: i16,
    batch_bytes: usize,
    topic: String,
    /// With the number of the next record.
    partitions: Vec<(i32, u64)>,
    turn: usize,
    schedule: Schedule,
    number: u64,
    until_ns: u64,
    value: Vec<u8>,
}

impl RecordSource {
    pub fn new(
        shared: Arc<Shared>,
        caller: Caller<'static>,
        options: &E2e,
        topic: &str,
        partitions: &[i32],
        schedule: Schedule,
        until_ns: u64,
    ) -> RecordSource {
        let mut value = vec![0; options.record_size.max(MIN_RECORD_BYTES)];
        Noise::new(shared.run).fill(&mut value);
        value[..8].copy_from_slice(&shared.run.to_be_bytes());
        RecordSource {
            shared,
            caller,
            acks: options.acks,
            batch_bytes: options.batch_bytes,
            topic: topic.to_owned(),
            partitions: partitions.iter().map(|partition| (*partition, 0)).collect(),
            turn: partitions.first().map_or(0, |first| *first as usize),
            schedule,
            number: 0,
            until_ns,
            value,
        }
    }
}

impl Source for RecordSource {
    fn next(&mut self, now_ns: u64) -> Step {
        let first_ns = self.schedule.due_ns(self.number);
        if first_ns >= self.until_ns {
            return Step::End;
        }
        if first_ns > now_ns {
            return Step::Wait(first_ns);
        }
        let turn = self.turn % self.partitions.len();
        self.turn = self.turn.wrapping_add(1);
        let (partition, next) = &mut self.partitions[turn];
        let mut builder = BatchBuilder::new(clock::wall_ms(), 0);
        let mut due_ns = first_ns;
        while due_ns <= now_ns
            && due_ns < self.until_ns
            && (builder.records() == 0 || builder.bytes_with(self.value.len()) <= self.batch_bytes)
        {
            self.value[8..16].copy_from_slice(&next.to_be_bytes());
            self.value[16..24].copy_from_slice(&due_ns.to_be_bytes());
            builder.push(&self.value);
            *next += 1;
            self.number += 1;
            due_ns = self.schedule.due_ns(self.number);
        }
        if let Some(sent) = self.shared.sent.get(*partition as usize) {
            sent.store(*next, Ordering::Release);
        }
        let records = builder.records() as u64;
        let batch = builder.finish();
        let place = (self.topic.as_str(), *partition);
        let envelope = ProduceEnvelope::new(self.caller, self.acks, TIMEOUT_MS, place, batch.len());
        let bytes = batch.len() as u64;
        let sent = Sent { intended_ns: first_ns, records, bytes, raw_bytes: bytes };
        Step::Request(Request { envelope: Rc::new(envelope), batch, sent })
    }
}

/// Takes the time of every record and looks that none is missing, twice there or out of order.
pub struct RecordCheck {
    context: Rc<Context>,
    /// By partition: the number of the next record.
    next: HashMap<i32, u64>,
}

impl RecordCheck {
    pub fn new(context: Rc<Context>) -> RecordCheck {
        RecordCheck { context, next: HashMap::new() }
    }

    /// `bytes`: what the record is to count for.
    fn record(&mut self, partition: i32, value: &[u8], bytes: u64, now_ns: u64) {
        let (Some(run), Some(number), Some(intended_ns)) = (field(value, 0), field(value, 8), field(value, 16)) else {
            return self.context.error("records that this run did not send".into(), 1);
        };
        if run != self.context.shared.run {
            return self.context.error("records that this run did not send".into(), 1);
        }
        let next = self.next.entry(partition).or_default();
        if number > *next {
            self.context.error("records missing".into(), number - *next);
        }
        if number < *next {
            return self.context.error("records out of order or twice there".into(), 1);
        }
        *next = number + 1;
        let done = Done { intended_ns, now_ns, requests: 0, records: 1, bytes, raw_bytes: 0 };
        self.context.recorder.done(done);
    }
}

impl Consumer for RecordCheck {
    fn batch(&mut self, partition: &mut Partition, batch: &[u8], now_ns: u64) {
        if let Err(error @ BatchError::BadCrc { .. }) = check(batch) {
            return self.context.error(error_text(&error), 1);
        }
        // The whole batch's, with its first record.
        let mut bytes = batch.len() as u64;
        if values(batch, |value| self.record(partition.index, value, std::mem::take(&mut bytes), now_ns)).is_none() {
            self.context.error("batches that cannot be read, compressed ones among them".into(), 1);
        }
        if let (Some(next), Some(received)) =
            (self.next.get(&partition.index), self.context.shared.received.get(partition.index as usize))
        {
            received.store(*next, Ordering::Release);
        }
    }
}

/// Without the values, which would make every error one of its own.
pub fn error_text(error: &BatchError) -> String {
    match error {
        BatchError::BadCrc { .. } => "batches with a wrong CRC".into(),
        other => format!("batches that are broken: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::stats::Recorder;
    use crate::runtime::process::StopFlag;

    fn batch(run: u64, numbers: &[u64]) -> Vec<u8> {
        let mut builder = BatchBuilder::new(0, 0);
        for number in numbers {
            let value = [run, *number, 5].map(u64::to_be_bytes).concat();
            builder.push(&value);
        }
        builder.finish().to_vec()
    }

    /// Errors of batches that arrive one after the other, and how many of `sent` records are
    /// missing at the end.
    fn errors(sent: u64, batches: impl FnOnce(u64) -> Vec<Vec<u8>>) -> (Vec<(String, u64)>, u64) {
        let shared = Arc::new(Shared::new(1, 1, 1, StopFlag::default()));
        let context = Context::new(shared.clone(), Recorder::new(true).unwrap(), true, 1);
        let mut check = RecordCheck::new(context.clone());
        let mut partition = Partition { index: 0, offset: 0, end: None, fresh: true };
        shared.sent[0].store(sent, Ordering::Release);
        for batch in batches(shared.run) {
            check.batch(&mut partition, &batch, 10);
        }
        (context.recorder.totals(0.0).errors.into_iter().collect(), shared.missing())
    }

    #[test]
    fn lost_repeated_and_foreign_records_are_errors() {
        let one = |text: &str| vec![(text.to_owned(), 1)];
        assert_eq!(errors(4, |run| vec![batch(run, &[0, 1]), batch(run, &[2, 3])]), (vec![], 0));
        let lost = errors(5, |run| vec![batch(run, &[0, 1]), batch(run, &[4])]);
        assert_eq!(lost, (vec![("records missing".to_owned(), 2)], 0));
        assert_eq!(errors(5, |run| vec![batch(run, &[0, 1])]), (vec![], 3));
        let order = one("records out of order or twice there");
        assert_eq!(errors(2, |run| vec![batch(run, &[0, 1]), batch(run, &[1])]), (order.clone(), 0));
        assert_eq!(errors(3, |run| vec![batch(run, &[0, 0, 1, 2])]), (order, 0));
        assert_eq!(errors(0, |run| vec![batch(run + 1, &[0])]), (one("records that this run did not send"), 0));
        let bent = |run| {
            let mut batch = batch(run, &[0]);
            *batch.last_mut().unwrap() ^= 1;
            vec![batch]
        };
        assert_eq!(errors(1, bent), (one("batches with a wrong CRC"), 1));
    }
}
