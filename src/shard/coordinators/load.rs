//! A coordinator's life: read from its partition, kept going, ended with it.

use std::ops::ControlFlow;
use std::rc::Rc;

use futures_lite::future::or;

use super::hosted::{Core, Hosted, Hosts};
use crate::cluster::controller::{OFFSETS_TOPIC, TRANSACTION_TOPIC};
use crate::coordinator::Stage;
use crate::model::record_batch::BatchHeader;
use crate::model::{EndMarker, MarkerKind, PartitionId, record_batch, records};
use crate::partition::Replica;
use crate::runtime::{Yielder, clock, spawn_local};
use crate::shard::Shard;
use crate::storage::ReadError;

impl Shard {
    /// A partition was opened, or its role may be another: one of a coordinators' topic that this
    /// broker leads gets its coordinator, which begins to load. That of another epoch ends.
    pub(in crate::shard) fn coordinate(self: &Rc<Self>, replica: &Rc<Replica>) {
        let shard = self.clone();
        match &*replica.topic {
            OFFSETS_TOPIC => {
                if let Some(hosted) = self.take_office(&self.coordinators.groups, replica) {
                    spawn_local(async move {
                        if shard.load(&hosted, shard.config.offsets_load_buffer_size).await {
                            shard.with_world(|world| hosted.begin(world));
                        }
                    });
                }
            }
            TRANSACTION_TOPIC => {
                if let Some(hosted) = self.take_office(&self.coordinators.transactions, replica) {
                    spawn_local(async move {
                        if shard.load(&hosted, shard.config.transaction_load_buffer_size).await {
                            hosted.begin(&shard.transaction_world());
                            shard.do_deeds(hosted).await;
                        }
                    });
                }
            }
            _ => {}
        }
    }

    /// The coordinator of a leadership that is new; it is to be loaded.
    fn take_office<C: Core>(&self, hosts: &Hosts<C>, replica: &Rc<Replica>) -> Option<Rc<Hosted<C>>> {
        if let Some(hosted) = hosts.get(replica.id) {
            if Rc::ptr_eq(&hosted.replica, replica) && hosted.is_in_office() {
                return None;
            }
            hosts.end(replica.id);
        }
        replica.led_epoch()?;
        let hosted = self.coordinators.host(replica.clone());
        hosts.insert(replica.id, hosted.clone());
        Some(hosted)
    }

    /// A partition goes.
    pub(in crate::shard) fn end_coordinator(&self, partition: PartitionId) {
        self.coordinators.groups.end(partition);
        self.coordinators.transactions.end(partition);
    }

    /// Reads what the coordinator has written; `false`: it is not to serve.
    async fn load<C: Core>(&self, hosted: &Rc<Hosted<C>>, buffer_bytes: usize) -> bool {
        let (started, end) = (clock::now(), hosted.load_end());
        match self.replay(hosted, end, buffer_bytes).await {
            Ok(0) => {}
            Ok(count) => tracing::debug!(
                topic = C::TOPIC, partition = %hosted.replica.id.index, records = count,
                ms = started.elapsed().as_millis() as u64, "loaded the {} of a partition", C::KEEPS
            ),
            Err(error) => {
                tracing::error!(
                    dir = %hosted.replica.log().dir().display(), %error,
                    "the {} of a partition cannot be loaded; they are served again after a restart that can read them", C::KEEPS
                );
                hosted.end();
                return false;
            }
        }
        // A load that the end of the broker has cut short is not the state.
        !self.stop.is_set()
    }

    /// Shows the coordinator every record before `end`; their number. What is damaged is passed
    /// over and told: the rest is good without it.
    async fn replay<C: Core>(&self, hosted: &Rc<Hosted<C>>, end: i64, buffer_bytes: usize) -> Result<u64, ReadError> {
        let log = hosted.replica.log();
        let (mut offset, mut count, mut yielder) = (log.start_offset(), 0, Yielder);
        while offset < end && hosted.stage() == Stage::Loading && !self.stop.is_set() {
            let bytes = match log.read(offset, end, buffer_bytes, true).await {
                Ok(read) => read.records.concat(),
                Err(ReadError::Damaged { path, position, .. }) => {
                    offset = pass_over(hosted, offset, end, &format!("{path} is damaged at position {position}"));
                    continue;
                }
                // Retention was quicker.
                Err(ReadError::OutOfRange { start, .. }) if start > offset => {
                    offset = start;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let (before, mut rest) = (offset, &bytes[..]);
            while let Some(batch) = first_batch(rest) {
                match sound_next(batch, offset) {
                    Ok(next) => {
                        count += replay_batch(hosted, batch, offset);
                        offset = next;
                    }
                    Err(why) => {
                        let next = match first_batch(&rest[batch.len()..]) {
                            Some(following) => begin_of(following).filter(|begin| *begin > offset),
                            None => likely_next(batch, offset),
                        };
                        offset = pass_over(hosted, offset, next.unwrap_or(i64::MAX).min(end), &why);
                        if next.is_none() {
                            break;
                        }
                    }
                }
                rest = &rest[batch.len()..];
                yielder.pass().await;
            }
            if offset == before {
                offset = pass_over(hosted, offset, end, "there is no batch");
            }
        }
        Ok(count)
    }

    /// Runs the coordinators when they are due, to the millisecond: clients rely on these
    /// deadlines. The tick is for the stop.
    pub(in crate::shard) async fn keep_coordinator_deadlines(self: Rc<Self>) {
        let deadlines = self.coordinators.deadlines.clone();
        while !self.stop.is_set() {
            let (sooner, next) = (deadlines.sooner(), deadlines.next());
            let due = async {
                match next {
                    Some(at_ms) => clock::sleep_until_mono(at_ms).await,
                    None => std::future::pending().await,
                }
            };
            or(or(sooner, due), clock::next_tick()).await;
            for partition in deadlines.take_due(clock::mono_ms()) {
                if let Some(hosted) = self.coordinators.groups.get(partition) {
                    self.with_world(|world| hosted.tick(world));
                }
                if let Some(hosted) = self.coordinators.transactions.get(partition) {
                    hosted.tick(&self.transaction_world());
                }
            }
        }
    }
}

/// The bytes of the first batch, if there is one.
fn first_batch(bytes: &[u8]) -> Option<&[u8]> {
    let (_, total) = record_batch::frame(bytes).ok()?;
    bytes.get(..total)
}

/// The offset after a batch that was read at `offset`; why it is not sound.
fn sound_next(batch: &[u8], offset: i64) -> Result<i64, String> {
    let header = record_batch::check(batch).map_err(|error| error.to_string())?;
    let next = header.next_offset();
    // The offset itself is outside the CRC.
    if next > offset { Ok(next) } else { Err(format!("a batch there ends at offset {next}")) }
}

/// Where a batch begins, if it is sound.
fn begin_of(batch: &[u8]) -> Option<i64> {
    record_batch::check(batch).ok().map(|header| header.base())
}

/// More offsets than a segment of the topic has are not left out between two batches.
const LONGEST_GAP: i64 = i32::MAX as i64;

/// The offset after a batch that is not sound, if what it says of itself can be so: most damage is
/// elsewhere. Cleaning leaves gaps, so the batch may begin behind `offset`.
fn likely_next(batch: &[u8], offset: i64) -> Option<i64> {
    let header = record_batch::frame(batch).ok()?.0;
    let gap = header.base().saturating_sub(offset);
    let likely =
        (0..=LONGEST_GAP).contains(&gap) && (0..=i32::from(u16::MAX)).contains(&header.last_offset_delta.get());
    likely.then(|| header.next_offset())
}

/// Tells of damage at `offset`, and where to go on: at `end` or, if that is
/// nearer, at the next segment.
fn pass_over<C: Core>(hosted: &Hosted<C>, offset: i64, end: i64, why: &str) -> i64 {
    let log = hosted.replica.log();
    let next = log.segment_begin_after(offset).map_or(end, |begin| begin.min(end));
    tracing::error!(
        dir = %log.dir().display(), from = offset, to = next, why,
        "{} is damaged: what its {} wrote between these offsets is lost; they go on from what was written before or after. If \
         you have a copy of the files, stop the broker and put them back", C::TOPIC, C::KEEPS
    );
    next
}

/// Shows the coordinator the records of one batch; their number. A record that makes no sense is
/// passed over: the others are good without it.
fn replay_batch<C: Core>(hosted: &Hosted<C>, batch: &[u8], offset: i64) -> u64 {
    let Some(header) = BatchHeader::peek(batch) else { return 0 };
    if header.is_control() {
        if let Some(marker) = EndMarker::of(batch) {
            hosted.replay(|core| core.replay_marker(header.producer_id.get(), marker.kind == MarkerKind::Commit));
        }
        return 0;
    }
    let producer_id = header.is_transactional().then(|| header.producer_id.get());
    let told = |offset: i64, error: &str| {
        tracing::warn!(
            dir = %hosted.replica.log().dir().display(), offset, error,
            "passed over a record of {} that cannot be read", C::TOPIC
        );
    };
    let mut count = 0;
    let read = records::read(batch, &mut |record| {
        count += 1;
        match record.key.map(|key| hosted.replay(|core| core.replay(producer_id, key, record.value))) {
            Some(Ok(())) => {}
            Some(Err(error)) => told(record.meta.offset, &error.to_string()),
            None => told(record.meta.offset, "it has no key"),
        }
        ControlFlow::Continue(())
    });
    if let Err(error) = read {
        told(offset, &error.to_string());
    }
    count
}
