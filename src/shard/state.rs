//! The shard's state and what connections ask of it.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use crate::cluster::controller::{ControlError, CreateTopic, GrowTopic};
use crate::cluster::{MetadataImage, TopicImage};
use crate::config::ServerConfig;
use crate::model::{LeaderEpoch, PartitionId, ShardId};
use crate::runtime::mailbox::Mesh;
use crate::runtime::process::StopFlag;

use super::api::*;

/// One core's state. Everything here lives on its own thread; other shards reach it through the mesh.
pub struct Shard {
    pub id: ShardId,
    pub config: Arc<ServerConfig>,
    pub stop: StopFlag,
    mesh: Rc<Mesh<Shard>>,
    image: RefCell<Arc<MetadataImage>>,
}

impl Shard {
    /// The newest metadata that reached this shard.
    pub fn image(&self) -> Arc<MetadataImage> {
        self.image.borrow().clone()
    }

    /// Stage one of a produce: when this returns, the order of these batches against later requests is fixed. Stage two
    /// is the returned future: the outcomes, in the order of `parts`, once `acks` is satisfied (timeout included).
    pub async fn produce(
        self: &Rc<Self>,
        acks: Acks,
        timeout_ms: u32,
        parts: Vec<ProducePart>,
    ) -> impl Future<Output = Vec<ProduceOutcome>> + 'static + use<> {
        let _ = (acks, timeout_ms, parts, &self.mesh);
        std::future::ready(Vec::new())
    }

    /// Reads, waiting up to `max_wait_ms` for `min_bytes`; outcomes in the order of `parts`. An error in any part, or a
    /// partition on its way out, ends the wait.
    pub async fn fetch(self: &Rc<Self>, plan: FetchPlan) -> Vec<FetchOutcome> {
        let _ = plan;
        todo!()
    }

    pub async fn list_offsets(
        self: &Rc<Self>,
        parts: Vec<(PartitionId, OffsetQuery, Option<LeaderEpoch>)>,
    ) -> Vec<OffsetOutcome> {
        let _ = parts;
        todo!()
    }

    /// `(partition, current leader epoch if stated, asked epoch)`
    pub async fn epoch_ends(
        self: &Rc<Self>,
        parts: Vec<(PartitionId, Option<LeaderEpoch>, LeaderEpoch)>,
    ) -> Vec<EpochEndOutcome> {
        let _ = parts;
        todo!()
    }

    /// Creates topics one by one; each is on disk and visible on every shard when its result is there.
    pub async fn create_topics(
        self: &Rc<Self>,
        topics: Vec<CreateTopic>,
        validate_only: bool,
    ) -> Vec<Result<Arc<TopicImage>, ControlError>> {
        let _ = (topics, validate_only);
        todo!()
    }

    /// Returns the deleted topic's name and id.
    pub async fn delete_topics(self: &Rc<Self>, topics: Vec<TopicRef>) -> Vec<Result<Arc<TopicImage>, ControlError>> {
        let _ = topics;
        todo!()
    }

    pub async fn create_partitions(
        self: &Rc<Self>,
        topics: Vec<GrowTopic>,
        validate_only: bool,
    ) -> Vec<Result<(), ControlError>> {
        let _ = (topics, validate_only);
        todo!()
    }

    /// A producer id no one ever got before.
    pub async fn new_producer_id(self: &Rc<Self>) -> Result<i64, ControlError> {
        todo!()
    }
}
