//! The shard's state, and how work finds the shard that owns a partition.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_lite::future::or;

use super::answer_memory::AnswerMemory;
use super::apply::Round;
use super::coordinators::Coordinators;
use super::dir_sync::DirSyncs;
use super::directories::Directories;
use super::fetchers::{self, Fetchers};
use super::hand_over::Door;
use super::leadership::Roles;
use super::member::Member;
use super::moving::Moves;
use super::offline::Offline;
use super::quotas::QuotaFlag;
use super::remote_tails::RemoteTail;
use super::throttle::Throttles;
use super::transactions::Peers;
use super::verify::Verifier;
use crate::cluster::MetadataImage;
use crate::cluster::keeper::Keeper;
use crate::cluster::metadata_store::LocalStore;
use crate::cluster::store::LocalEngine;
use crate::config::ServerConfig;
use crate::model::records::MAX_BLOCK_BYTES;
use crate::model::{IdMap, PartitionId, ShardId};
use crate::observe::metrics::ShardMetrics;
use crate::partition::{DataWaiter, ProducerPool, Replica, Shared};
use crate::runtime::mailbox::{Mesh, ShardStopped};
use crate::runtime::process::StopFlag;
use crate::runtime::sync::{Budget, LocalMutex, Notify};
use crate::runtime::{self, clock};
use crate::storage::{StorageContext, StorageLimits};

/// One core's state. Everything here lives on its own thread; other shards
/// reach it through the mesh.
pub struct Shard {
    pub id: ShardId,
    pub config: Arc<ServerConfig>,
    pub stop: StopFlag,
    /// How many shards there are.
    pub(super) shards: u16,
    pub(super) mesh: Rc<Mesh<Shard>>,
    pub(super) image: RefCell<Arc<MetadataImage>>,
    pub(super) quota_flag: Rc<QuotaFlag>,
    pub(super) store: LocalStore,
    pub(super) storage: Rc<StorageContext>,
    /// Bytes of checkpoints that are read at the same time while partitions are opened.
    pub(super) opening: Rc<Budget>,
    /// Idempotent producers of all partitions of this shard.
    pub(super) producers: Rc<ProducerPool>,
    /// Memory of answers to this shard's connections.
    pub answers: Rc<AnswerMemory>,
    pub(super) replicas: RefCell<IdMap<PartitionId, Rc<Replica>>>,
    pub(super) directories: Directories,
    /// Of replicas to other data directories.
    pub(super) moves: Moves,
    /// Of replication, counted with the other shards.
    pub(super) throttles: RefCell<Arc<Throttles>>,
    /// Held by a task that changes metadata; only the controller's shard uses it.
    pub(super) control: Rc<LocalMutex>,
    /// Held by a task that takes a producer id; apart from `control`, which a large
    /// deletion can hold for long.
    pub(super) producer_id_turn: Rc<LocalMutex>,
    /// A share for each batch that is checked on a helper thread, whose decoder may take 64 MiB.
    pub(super) heavy_checks: Rc<LocalMutex>,
    /// Producer ids reserved but not given out yet: next and end. Only the
    /// controller's shard uses it.
    pub(super) producer_ids: Cell<(i64, i64)>,
    /// Tails of partitions of other shards that consumers of this one follow.
    pub(super) remote_tails: RefCell<HashMap<PartitionId, Rc<RemoteTail>>>,
    /// One-shot subscriptions of other shards to the next movement of partitions of this one.
    pub(super) subscriptions: RefCell<HashMap<(ShardId, PartitionId), Rc<DataWaiter>>>,
    /// Of the partitions of `__consumer_offsets` that live here.
    pub(super) coordinators: Coordinators,
    pub(super) peers: Peers,
    pub(super) roles: Roles,
    /// Of partitions that follow leaders elsewhere.
    pub(super) fetchers: Rc<Fetchers>,
    /// `None`: transactions are not verified.
    pub(super) verifier: RefCell<Option<Verifier>>,
    pub(super) offline: Offline,
    /// Records are refused for want of room, and the controller's shard knows.
    pub(super) short_of_room: Cell<bool>,
    /// Held by a task that opens a partition anew or removes one.
    pub(super) hosting: Rc<LocalMutex>,
    pub(super) dir_syncs: DirSyncs,
    /// The metadata store's client, from the first change on. Only the controller's shard
    /// has one, under `control`.
    pub(super) keeper: RefCell<Option<Keeper<LocalEngine>>>,
    /// The update that all shards carry out at present. Only on the
    /// controller's shard, under `control`.
    pub(super) round: RefCell<Option<Rc<Round>>>,
    /// The broker's part in a cluster. Only on the controller's shard, and only where the
    /// broker is one of several.
    pub(super) member: RefCell<Option<Rc<Member>>>,
    /// True once this shard holds its partitions.
    pub(super) recovered: Cell<bool>,
    pub(super) door: Door,
    pub(super) on_recovered: Notify,
    /// An image has shown that this broker takes part in its cluster.
    let_in: Cell<bool>,
    on_let_in: Notify,
    pub(super) metrics: Arc<ShardMetrics>,
}

/// The shard that runs the controller.
pub const CONTROLLER: ShardId = ShardId(0);

/// Bytes of checkpoints that a shard reads at the same time; a larger one is read alone.
pub(super) const OPENING_BYTES: usize = 4 << 20;

/// Wait for a place in the cluster that is worth a line in the log.
const LONG_WAIT: Duration = Duration::from_secs(10);

/// This shard's share of the memory for producers.
pub(super) fn producer_share(config: &ServerConfig) -> usize {
    config.producer_state_max_bytes / usize::from(config.shards.max(1))
}

/// Receive memory below which large batches are checked one at a time: each
/// decoder may take so much.
const LITTLE_MEMORY: usize = MAX_BLOCK_BYTES;

impl Shard {
    /// A shard without partitions yet. `identity`: its id, and how many shards there are.
    pub(super) fn new(
        (id, shards): (ShardId, u16),
        config: Arc<ServerConfig>,
        stop: StopFlag,
        mesh: Rc<Mesh<Shard>>,
        image: Arc<MetadataImage>,
        store: LocalStore,
    ) -> Rc<Shard> {
        let settings = fetchers::Settings::of(&config, id);
        Rc::new_cyclic(|shard| Shard {
            verifier: RefCell::default(),
            fetchers: Fetchers::new(fetchers::host(shard.clone()), settings),
            id,
            stop,
            shards,
            mesh,
            quota_flag: QuotaFlag::of(&image),
            image: RefCell::new(image),
            store,
            storage: StorageContext::new(StorageLimits::of(&config)),
            opening: Budget::new(OPENING_BYTES),
            producers: ProducerPool::new(producer_share(&config)),
            answers: AnswerMemory::new(config.response_memory_bytes),
            replicas: RefCell::default(),
            directories: Directories::default(),
            moves: Moves::default(),
            throttles: RefCell::default(),
            control: LocalMutex::new(1),
            producer_id_turn: LocalMutex::new(1),
            heavy_checks: LocalMutex::new(if config.receive_memory_bytes < LITTLE_MEMORY { 1 } else { 2 }),
            producer_ids: Cell::new((0, 0)),
            remote_tails: RefCell::new(HashMap::new()),
            subscriptions: RefCell::new(HashMap::new()),
            coordinators: Coordinators::new(config.group_memory_bytes / usize::from(shards.max(1))),
            peers: Peers::default(),
            roles: Roles::default(),
            offline: Offline::default(),
            short_of_room: Cell::new(false),
            hosting: LocalMutex::new(1),
            dir_syncs: DirSyncs::default(),
            keeper: RefCell::new(None),
            round: RefCell::new(None),
            member: RefCell::new(None),
            recovered: Cell::new(false),
            door: Door::default(),
            on_recovered: Notify::new(),
            let_in: Cell::new(false),
            on_let_in: Notify::new(),
            metrics: runtime::metrics(),
            config,
        })
    }

    /// The newest metadata that reached this shard.
    pub fn image(&self) -> Arc<MetadataImage> {
        self.image.borrow().clone()
    }

    pub fn metrics(&self) -> &Arc<ShardMetrics> {
        &self.metrics
    }

    /// The shard that owns `partition`.
    pub fn owner(&self, partition: PartitionId) -> ShardId {
        partition.owner(self.shards)
    }

    /// State shared by this shard's replicas.
    pub(super) fn shared(&self) -> Shared {
        Shared { storage: self.storage.clone(), producers: self.producers.clone(), metrics: self.metrics.clone() }
    }

    /// This shard's replica of `partition`.
    pub(super) fn replica(&self, partition: PartitionId) -> Option<Rc<Replica>> {
        self.replicas.borrow().get(&partition).cloned()
    }

    pub(super) fn all_replicas(&self) -> Vec<Rc<Replica>> {
        self.replicas.borrow().values().cloned().collect()
    }

    /// Waits until every shard holds its partitions: before that, requests would find some of them
    /// missing. `false`: one of them never will, and the broker is on its way out.
    pub(super) async fn all_recovered(self: &Rc<Self>) -> bool {
        self.recovered.set(true);
        self.on_recovered.notify_all();
        for shard in (0..self.shards).map(ShardId) {
            let peer = self
                .on_shard(shard, |peer| async move {
                    while !peer.recovered.get() {
                        peer.on_recovered.notified().await;
                    }
                })
                .await;
            if peer.is_err() {
                return false;
            }
        }
        true
    }

    /// Notes an image that this shard shows.
    pub(super) fn let_in(&self, image: &MetadataImage) {
        if !self.let_in.get() && image.takes_part() {
            self.let_in.set(true);
            self.on_let_in.notify_all();
        }
    }

    /// Waits until this broker has taken part in its cluster for the first time; `false`: it stops
    /// first. Before that it leads nothing, and what it knows of others is not the whole yet.
    pub async fn until_let_in(&self) -> bool {
        self.let_in(&self.image());
        let (begun, mut said) = (clock::now(), self.id != CONTROLLER);
        while !self.let_in.get() {
            if self.stop.is_set() {
                return false;
            }
            or(self.on_let_in.notified(), clock::next_tick()).await;
            if !said && clock::now() >= begun + LONG_WAIT {
                said = true;
                tracing::warn!("clients are not answered yet: this broker does not take part in the cluster");
            }
        }
        true
    }

    /// Runs `work` on `target`, here directly and elsewhere through the mesh.
    pub(super) async fn on_shard<R, W, F>(self: &Rc<Self>, target: ShardId, work: W) -> Result<R, ShardStopped>
    where
        W: FnOnce(Rc<Shard>) -> F + Send + 'static,
        F: Future<Output = R> + 'static,
        R: Send + 'static,
    {
        if target == self.id {
            return Ok(work(self.clone()).await);
        }
        self.mesh.call(target, work).await?.await
    }

    /// Splits `parts` by owner, runs `work` once on each owner's shard, all at the same time, and
    /// gives the results in the order of `parts`; `None` where a shard has stopped.
    pub(super) async fn scatter<P, R, W, F>(
        self: &Rc<Self>,
        parts: Vec<P>,
        partition: impl Fn(&P) -> PartitionId,
        work: W,
    ) -> Vec<Option<R>>
    where
        P: Send + 'static,
        R: Send + 'static,
        W: Fn(Rc<Shard>, Vec<P>) -> F + Clone + Send + 'static,
        F: Future<Output = Vec<R>> + 'static,
    {
        let groups = Groups::split(parts, |p| self.owner(partition(p)));
        let mut results: Vec<Option<R>> = std::iter::repeat_with(|| None).take(groups.total).collect();
        let mut running = Vec::new();
        let mut own = None;
        for group in groups.by_owner {
            let (work, places, parts) = (work.clone(), group.places, group.parts);
            if group.owner == self.id {
                own = Some((places, parts));
                continue;
            }
            if let Ok(answer) = self.mesh.call(group.owner, move |shard| work(shard, parts)).await {
                running.push((places, answer));
            }
        }
        if let Some((places, parts)) = own {
            place(&mut results, places, work(self.clone(), parts).await);
        }
        for (places, answer) in running {
            if let Ok(answers) = answer.await {
                place(&mut results, places, answers);
            }
        }
        results
    }
}

fn place<R>(results: &mut [Option<R>], places: Vec<usize>, answers: Vec<R>) {
    for (place, answer) in places.into_iter().zip(answers) {
        if let Some(slot) = results.get_mut(place) {
            *slot = Some(answer);
        }
    }
}

/// Parts grouped by the shard that owns them, with their places in the request.
pub(super) struct Groups<P> {
    pub by_owner: Vec<Group<P>>,
    pub total: usize,
}

pub(super) struct Group<P> {
    pub owner: ShardId,
    pub places: Vec<usize>,
    pub parts: Vec<P>,
}

impl<P> Groups<P> {
    pub fn split(parts: Vec<P>, owner: impl Fn(&P) -> ShardId) -> Groups<P> {
        let total = parts.len();
        let mut by_owner: Vec<Group<P>> = Vec::new();
        for (place, part) in parts.into_iter().enumerate() {
            let owner = owner(&part);
            let at = match by_owner.iter().position(|g| g.owner == owner) {
                Some(at) => at,
                None => {
                    by_owner.push(Group { owner, places: Vec::new(), parts: Vec::new() });
                    by_owner.len() - 1
                }
            };
            by_owner[at].places.push(place);
            by_owner[at].parts.push(part);
        }
        Groups { by_owner, total }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_keep_their_order_within_an_owner() {
        let groups = Groups::split(vec![10, 21, 12, 23, 14], |p| ShardId(p % 2));
        assert_eq!(groups.total, 5);
        assert_eq!((groups.by_owner[0].owner, groups.by_owner[0].parts.clone()), (ShardId(0), vec![10, 12, 14]));
        assert_eq!(groups.by_owner[1].places, vec![1, 3]);
    }
}
