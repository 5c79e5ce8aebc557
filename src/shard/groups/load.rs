//! A coordinator's life: read from its partition, kept going, ended with it.

use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::Arc;

use super::hosted::{Hosted, Stage};
use super::routing::OFFSETS_TOPIC;
use crate::cluster::MetadataImage;
use crate::model::{PartitionId, record_batch, records};
use crate::partition::Replica;
use crate::runtime::{Breather, clock, spawn_local};
use crate::shard::Shard;

impl Shard {
    /// A partition was opened: one of `__consumer_offsets` gets its coordinator, which begins to load.
    pub(in crate::shard) fn coordinate(self: &Rc<Self>, replica: &Rc<Replica>) {
        if &*replica.topic != OFFSETS_TOPIC {
            return;
        }
        let hosted = Hosted::new(replica.clone());
        self.coordinators.insert(replica.id, hosted.clone());
        let shard = self.clone();
        spawn_local(async move { shard.load(&hosted).await });
    }

    /// A partition goes.
    pub(in crate::shard) fn end_coordinator(&self, partition: PartitionId) {
        if let Some(hosted) = self.coordinators.remove(partition) {
            hosted.end();
        }
    }

    async fn load(self: &Rc<Self>, hosted: &Rc<Hosted>) {
        let (started, end) = (clock::now(), hosted.replica.high_watermark());
        match self.replay(hosted, end).await {
            Ok(0) => {}
            Ok(count) => tracing::info!(
                partition = %hosted.replica.id.index, records = count, ms = started.elapsed().as_millis() as u64,
                "loaded the groups of a partition of {OFFSETS_TOPIC}"
            ),
            Err(error) => {
                tracing::error!(
                    partition = %hosted.replica.id.index, error,
                    "the groups of a partition of {OFFSETS_TOPIC} cannot be loaded; they are not served"
                );
                return hosted.end();
            }
        }
        // What the end of the broker has cut short is not the state.
        if !self.stop.is_set() {
            self.with_world(|world| hosted.begin(world));
        }
    }

    /// Shows the coordinator every record before `end`; their number.
    async fn replay(&self, hosted: &Rc<Hosted>, end: i64) -> Result<u64, String> {
        let (mut offset, mut count, mut breather) = (hosted.replica.start_offset(), 0, Breather);
        while offset < end && hosted.stage() == Stage::Loading && !self.stop.is_set() {
            let read = hosted.replica.read(offset, self.config.offsets_load_buffer_size, true).await;
            let read = read.map_err(|code| format!("reading at offset {offset}: {code}"))?;
            let before = offset;
            let bytes = read.records.concat();
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let (header, total) = record_batch::frame(rest).map_err(|e| format!("at offset {offset}: {e}"))?;
                if !header.is_control() {
                    count += replay_batch(hosted, &rest[..total])?;
                }
                offset = header.base() + i64::from(header.last_offset_delta.get()) + 1;
                rest = &rest[total..];
                breather.pass().await;
            }
            if offset == before {
                return Err(format!("there is nothing at offset {offset}, and the partition ends at {end}"));
            }
        }
        Ok(count)
    }

    /// Starts the loop that keeps the coordinators' deadlines. They are seconds, so the common tick is near enough.
    pub(in crate::shard) async fn keep_group_deadlines(self: Rc<Self>) {
        while !self.stop.is_set() {
            clock::next_tick().await;
            for hosted in self.coordinators.all() {
                self.with_world(|world| hosted.tick(world));
            }
        }
    }

    /// This shard's image has been replaced.
    pub(in crate::shard) fn tell_coordinators(&self, before: &MetadataImage) {
        self.coordinators.topics_version.set(self.coordinators.topics_version.get() + 1);
        let coordinators = self.coordinators.all();
        if coordinators.is_empty() {
            return;
        }
        let image = self.image();
        let gone = before.topics().filter(|topic| image.topic_by_id(topic.id).is_none());
        let removed: Vec<Arc<str>> = gone.map(|topic| topic.name.clone()).collect();
        for hosted in coordinators {
            self.with_world(|world| hosted.topics_changed(&removed, world));
        }
    }
}

/// Shows the coordinator the records of one batch; their number. A record that makes no sense is passed over: the others are
/// good without it.
fn replay_batch(hosted: &Hosted, batch: &[u8]) -> Result<u64, String> {
    let mut count = 0;
    let read = records::read(batch, &mut |record| {
        count += 1;
        let bad = match record.key {
            Some(key) => hosted.replay(key, record.value).err().map(|error| error.to_string()),
            None => Some("it has no key".to_owned()),
        };
        if let Some(error) = bad {
            tracing::warn!(
                partition = %hosted.replica.id.index, offset = record.meta.offset, error,
                "passed over a record of {OFFSETS_TOPIC} that cannot be read"
            );
        }
        ControlFlow::Continue(())
    });
    read.map(|()| count).map_err(|error| error.to_string())
}
