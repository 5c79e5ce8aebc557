//! One consuming connection: fetches one after the other, batches stepped over by their headers.
//! `consume` stands on it, and the receiving end of `e2e`.

use std::collections::{HashMap, VecDeque};
use std::ops::ControlFlow;
use std::rc::Rc;
use std::time::Duration;

use futures_lite::future::or;
use kafka_protocol::messages::ApiKey;

use super::context::{CLIENT_ID, Context};
use super::e2e::error_text;
use super::stats::Done;
use crate::client::core::InFlight;
use crate::client::{ClientError, Connection, error_name};
use crate::model::record_batch::{BatchError, check, check_produced, frame};
use crate::model::records::walk;
use crate::protocol::asking::{Caller, FETCH_VERSIONS, FetchLimits, Fetched, fetch_request, read_fetch_response};
use crate::runtime::clock;

/// After a refused fetch; the next may well be refused too.
const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// How long a broker may have nothing to give before an end that it told itself.
const GIVE_UP_NS: u64 = 30_000_000_000;

/// Where a consumer is.
#[derive(Clone, Debug)]
pub struct Partition {
    pub index: i32,
    /// The next offset to fetch.
    pub offset: i64,
    /// Where to end; `None`: never.
    pub end: Option<i64>,
    /// No batch has been seen yet.
    pub fresh: bool,
}

/// Handling of each batch.
pub trait Consumer {
    /// `partition.offset` is still the offset that was asked for.
    fn batch(&mut self, partition: &mut Partition, batch: &[u8], now_ns: u64);

    /// A batch that ends before the offset that was asked for.
    fn past(&mut self, _partition: &Partition) {}
}

/// Steps over batches.
pub struct Skip;

impl Consumer for Skip {
    fn batch(&mut self, _: &mut Partition, _: &[u8], _: u64) {}
}

/// Checks every batch's CRC, and that records' offsets follow each other without a gap, which holds
/// for topics that are not compacted.
pub struct Verify(pub Rc<Context>);

impl Consumer for Verify {
    fn batch(&mut self, partition: &mut Partition, batch: &[u8], _: u64) {
        for problem in problems(partition, batch) {
            self.0.error_at(&problem, partition.index, partition.offset);
        }
    }

    fn past(&mut self, partition: &Partition) {
        self.0.error_at("batches twice there or out of order", partition.index, partition.offset);
    }
}

fn problems(partition: &Partition, batch: &[u8]) -> Vec<String> {
    let header = match check(batch) {
        Ok(header) => header,
        Err(error) => return vec![error_text(&error)],
    };
    let mut found = Vec::new();
    if check_produced(header).is_err() {
        found.push("batches whose count is not that of their offsets".to_owned());
    } else {
        let (mut next, mut steady) = (header.base(), true);
        let walked = walk(batch, &mut |record| {
            steady &= record.offset == next;
            next += 1;
            ControlFlow::Continue(())
        });
        if walked.is_err() || next != header.next_offset() {
            found.push("batches whose records cannot be read".to_owned());
        } else if !steady {
            found.push("records lost or out of order within a batch".to_owned());
        }
    }
    if header.base() > partition.offset {
        found.push("gaps between offsets".to_owned());
    }
    // The first batch may begin before the offset that was asked for.
    if header.base() < partition.offset && !partition.fresh {
        found.push("batches that overlap".to_owned());
    }
    found
}

#[derive(Clone, Copy, Debug)]
pub struct Terms {
    pub limits: FetchLimits,
    /// Fetches are what the run counts.
    pub counts: bool,
    /// End when the run halts, not only when it finishes.
    pub ends_at_halt: bool,
}

pub fn fetch_caller(connection: &Connection) -> Result<Caller<'static>, ClientError> {
    let version = connection.versions().pick(ApiKey::Fetch, FETCH_VERSIONS)?;
    Ok(Caller { client_id: CLIENT_ID, version })
}

struct Positions {
    partitions: HashMap<i32, Partition>,
    /// Those not at their end. The first in a request is served first, so they take turns.
    order: VecDeque<i32>,
}

impl Positions {
    fn have_ends(&self) -> bool {
        self.partitions.values().any(|partition| partition.end.is_some())
    }
}

/// Records of one response, counted.
#[derive(Default)]
struct Taken {
    records: u64,
    bytes: u64,
    refused: bool,
}

/// Fetches until every partition is at its end or the run is over.
pub async fn run<C: Consumer>(
    connection: Connection,
    caller: Caller<'static>,
    topic: String,
    partitions: Vec<Partition>,
    mut consumer: C,
    terms: Terms,
    context: Rc<Context>,
) {
    let order = partitions.iter().filter(|p| p.end.is_none_or(|end| p.offset < end)).map(|p| p.index).collect();
    let partitions = partitions.into_iter().map(|partition| (partition.index, partition)).collect();
    let mut positions = Positions { partitions, order };
    if let Err(error) = fetch_all(connection, caller, &topic, &mut positions, &mut consumer, terms, &context).await {
        context.connection_lost(&error);
    }
}

async fn fetch_all<C: Consumer>(
    connection: Connection,
    caller: Caller<'static>,
    topic: &str,
    positions: &mut Positions,
    consumer: &mut C,
    terms: Terms,
    context: &Context,
) -> Result<(), ClientError> {
    let (mut sender, mut receiver) = connection.split();
    let mut flight = InFlight::default();
    let mut last_ns = context.now_ns();
    while !positions.order.is_empty() {
        let over = if terms.ends_at_halt { context.halt.notified() } else { context.finish.notified() };
        if context.is_finished() || (terms.ends_at_halt && context.is_halted()) {
            break;
        }
        let sent_ns = context.now_ns();
        let id = flight.begin(sent_ns);
        let places = positions.order.iter().map(|index| {
            let offset = positions.partitions.get(index).map_or(0, |partition| partition.offset);
            (*index, offset)
        });
        sender.push(fetch_request(caller, id, terms.limits, topic, places));
        let exchange = async {
            sender.flush().await?;
            receiver.next().await.map(Some)
        };
        let ending = async {
            over.await;
            Ok(None)
        };
        let Some(response) = or(exchange, ending).await? else { break };
        let now_ns = context.now_ns();
        flight.end(response)?;
        let taken = take(caller.version, response, positions, consumer, now_ns, context)?;
        if terms.counts && taken.bytes > 0 {
            let Taken { records, bytes, .. } = taken;
            context.recorder.done(Done { intended_ns: sent_ns, now_ns, requests: 1, records, bytes, raw_bytes: 0 });
        }
        if taken.bytes > 0 {
            last_ns = now_ns;
        } else if now_ns.saturating_sub(last_ns) > GIVE_UP_NS && positions.have_ends() {
            let seconds = GIVE_UP_NS / 1_000_000_000;
            context.error(format!("nothing came for {seconds} s before the end that the broker told"), 1);
            break;
        }
        if taken.refused {
            clock::sleep(ERROR_PAUSE).await;
        }
    }
    Ok(())
}

fn take<C: Consumer>(
    version: i16,
    response: &[u8],
    positions: &mut Positions,
    consumer: &mut C,
    now_ns: u64,
    context: &Context,
) -> Result<Taken, ClientError> {
    let mut taken = Taken::default();
    let error = read_fetch_response(version, response, |fetched| {
        let Some(partition) = positions.partitions.get_mut(&fetched.partition) else { return };
        if fetched.error_code == 0 {
            step(partition, fetched, consumer, now_ns, context, &mut taken);
        } else {
            taken.refused = true;
            context.error(format!("Fetch: {}", error_name(fetched.error_code)), 1);
        }
    })?;
    if error != 0 {
        taken.refused = true;
        context.error(format!("Fetch: {}", error_name(error)), 1);
    }
    let partitions = &positions.partitions;
    positions.order.retain(|index| partitions.get(index).is_some_and(|p| p.end.is_none_or(|end| p.offset < end)));
    if positions.order.len() > 1 {
        positions.order.rotate_left(1);
    }
    Ok(taken)
}

/// Over the batches of one partition; the last may be cut off.
fn step<C: Consumer>(
    partition: &mut Partition,
    fetched: Fetched<'_>,
    consumer: &mut C,
    now_ns: u64,
    context: &Context,
    taken: &mut Taken,
) {
    let mut rest = fetched.records;
    while !rest.is_empty() {
        let (header, total) = match frame(rest) {
            Ok(found) => found,
            Err(BatchError::Truncated { .. }) => break,
            Err(error) => {
                taken.refused = true;
                context.error(error_text(&error), 1);
                break;
            }
        };
        let batch = &rest[..total];
        rest = &rest[total..];
        if header.next_offset() <= partition.offset {
            consumer.past(partition);
            continue;
        }
        consumer.batch(partition, batch, now_ns);
        partition.offset = header.next_offset();
        partition.fresh = false;
        taken.records += u64::try_from(header.record_count.get()).unwrap_or(0);
        taken.bytes += total as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::batch::BatchBuilder;
    use crate::model::testing;

    fn batch(base: i64, records: usize) -> Vec<u8> {
        let mut builder = BatchBuilder::new(0, 0);
        (0..records).for_each(|_| builder.push(b"value"));
        let mut batch = builder.finish().to_vec();
        batch[..8].copy_from_slice(&base.to_be_bytes());
        batch
    }

    #[test]
    fn wrong_checksums_gaps_and_overlaps_are_seen() {
        let at = |offset, fresh| Partition { index: 0, offset, end: None, fresh };
        let good = batch(100, 5);
        assert!(problems(&at(100, false), &good).is_empty());
        assert!(problems(&at(102, true), &good).is_empty());
        assert_eq!(problems(&at(102, false), &good), ["batches that overlap"]);
        assert_eq!(problems(&at(99, true), &good), ["gaps between offsets"]);
        let mut bent = good.clone();
        bent[70] ^= 1;
        assert_eq!(problems(&at(100, false), &bent), ["batches with a wrong CRC"]);
        // Record 3 says that it is record 4, and the checksum is right.
        let mut bent = good.clone();
        let third = bent.windows(5).enumerate().filter(|(_, bytes)| bytes == b"value").nth(3).unwrap().0 - 3;
        assert_eq!(bent[third], 6);
        bent[third] = 8;
        testing::seal(&mut bent);
        assert_eq!(problems(&at(100, false), &bent), ["records lost or out of order within a batch"]);
        bent[third] = 0xff;
        testing::seal(&mut bent);
        assert_eq!(problems(&at(100, false), &bent), ["batches whose records cannot be read"]);
    }
}
