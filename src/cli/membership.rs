//! A broker's way into its cluster, before its shards run.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::session::Session;
use crate::cluster::data_dirs::HeldDir;
use crate::cluster::metadata_store::new_cluster_id;
use crate::cluster::node::{Images, Node, Settings, first_image};
use crate::cluster::rules::{Found, Options, Start, TopicDefaults, View};
use crate::cluster::store::zookeeper::ZooKeeper;
use crate::cluster::store::{BrokerRecord, Commit, Key, Lifetime, Mirror, Record, Write};
use crate::cluster::{EndpointImage, MetadataImage, PartitionHome, PartitionImage, Placement, Stray};
use crate::config::{Advertised, ListenerConfig, ServerConfig};
use crate::model::BrokerId;
use crate::runtime::bell::Bell;
use crate::runtime::process::StopFlag;
use crate::runtime::{clock, probe};
use crate::shard::{Joining, Leave};

/// Time for leaderships to move away, at a stop.
const LEAVING: Duration = Duration::from_secs(30);

/// A session with ZooKeeper, and what the cluster's metadata was when it began.
pub(super) struct Membership {
    store: ZooKeeper,
    mirror: Mirror,
    view: View,
    defaults: TopicDefaults,
    cluster_id: String,
    bell: Bell,
    begun: Instant,
}

/// The main thread's end of a membership.
pub(super) struct Leaving {
    leave: Leave,
    bell: Bell,
    left: Receiver<()>,
}

impl Membership {
    /// Connects, and reads everything. Before any thread is pinned. Blocks.
    pub fn open(config: &ServerConfig) -> Result<Membership, String> {
        let bell = Bell::new().map_err(|e| format!("a bell for ZooKeeper's news cannot be made: {e}"))?;
        let (ringer, begun) = (bell.clone(), clock::now());
        let mut session = Session::open(config, Box::new(move || ringer.ring()))?;
        let cluster_id = cluster_id(&mut session)?;
        let (store, mirror) = session.into_parts();
        let topics = &config.topic_defaults;
        let defaults = TopicDefaults {
            min_insync_replicas: i32::try_from(topics.min_insync_replicas).unwrap_or(i32::MAX),
            unclean_election: topics.unclean_leader_election,
        };
        let view = View::of(mirror.nodes(), defaults);
        Ok(Membership { store, mirror, view, defaults, cluster_id, bell, begun })
    }

    /// The cluster's metadata, without where this broker has its replicas.
    pub fn image(&self, config: &ServerConfig) -> MetadataImage {
        let me = BrokerId(config.broker_id);
        first_image(&self.mirror, &self.view, me, &self.cluster_id, config)
    }

    /// State with which the controller's shard goes on. `image`: with the homes
    /// of this broker's replicas.
    pub fn begin(
        self,
        config: &Arc<ServerConfig>,
        image: &MetadataImage,
        (start, found): (Start, Found),
        strays: Vec<Stray>,
    ) -> (Joining, Leaving) {
        let me = BrokerId(config.broker_id);
        let interval = config.leader_imbalance_check_interval_seconds.saturating_mul(1000);
        let options = Options {
            imbalance_percentage: config.leader_imbalance_per_broker_percentage,
            imbalance_interval_ms: config.auto_leader_rebalance_enable.then_some(interval),
            ..Options::default()
        };
        let endpoint = |listener: &ListenerConfig| {
            let Advertised { host, port } = listener.advertised.clone()?;
            Some(EndpointImage { listener: listener.name.clone(), host, port })
        };
        let endpoints = config.listeners.iter().filter_map(endpoint).collect();
        let record = BrokerRecord::new(endpoints, config.broker_rack.clone());
        let cluster_id = Some(self.cluster_id);
        let settings = Settings { me, cluster_id, record, start, options, defaults: self.defaults };
        let node = Node::with(self.store, self.mirror, settings, 0);
        let (leave, (tell, left)) = (Leave::default(), sync_channel(1));
        let home = |stray: &Stray| (stray.partition, PartitionHome { directory: stray.directory, since_run: 0 });
        let unclaimed: Vec<_> = strays.iter().map(home).collect();
        let images = Images::new(me, config.clone(), image, &unclaimed);
        let leaving = Leaving { leave: leave.clone(), bell: self.bell.clone(), left };
        (Joining { node, images, bell: self.bell, begun: self.begun, strays, found, leave, left: tell }, leaving)
    }
}

impl Leaving {
    /// Has the broker's leaderships move to others, and waits for it.
    pub fn drain(&self) {
        self.leave.begin(&self.bell);
        if self.left.recv_timeout(LEAVING).is_err() {
            tracing::warn!("leaderships have not moved to other brokers within {} s", LEAVING.as_secs());
        }
    }

    pub fn may_mark_clean(&self) -> bool {
        self.leave.may_mark_clean()
    }

    /// Set when the cluster does not let this broker in.
    pub fn asked(&self) -> StopFlag {
        self.leave.asked().clone()
    }

    pub fn refusal(&self) -> Option<&str> {
        self.leave.refusal()
    }
}

/// The cluster's id, made by the first broker.
fn cluster_id(session: &mut Session) -> Result<String, String> {
    let known = |mirror: &Mirror| match mirror.node(&Key::ClusterId).map(|node| &node.record) {
        Some(Record::ClusterId(id)) => Some(id.clone()),
        _ => None,
    };
    if known(session.mirror()).is_none() {
        let write = Write::Create(Key::ClusterId, Record::ClusterId(new_cluster_id()), Lifetime::Persistent);
        // Of several that make it at once one succeeds, and all read it.
        session.begin(Commit { checks: Vec::new(), writes: vec![write] });
        session.until(|mirror| known(mirror).is_some())?;
    }
    known(session.mirror()).ok_or_else(|| "ZooKeeper does not tell the cluster's id".to_owned())
}

/// This start as the cluster is to know it. `clean`: every directory that is not new has the mark
/// of a clean stop. `all`: every one is in use.
pub(super) fn start_of(
    config: &ServerConfig,
    held: &[HeldDir],
    (image, placement): (&MetadataImage, &Placement),
    (clean, all): (bool, bool),
) -> (Start, Found) {
    let me = BrokerId(config.broker_id);
    let own = || image.topics().filter(|topic| topic.partitions.iter().any(|p| p.replicas.contains(&me)));
    let directories: BTreeSet<_> = held.iter().map(|dir| dir.id).collect();
    // Counted on, and not found: its directory is lost, if it ever was there.
    let is_missing = |partition: &PartitionImage| {
        let is_new = partition.home.is_some_and(|home| home.since_run == placement.run);
        let last = partition.last_leader == Some(me);
        is_new && (last || partition.isr.contains(&me) || partition.elr.contains(&me))
    };
    let missing = own().flat_map(|topic| &topic.partitions).filter(|partition| is_missing(partition)).count();
    let found = Found { misses: missing > 0, partial: !all, ..Found::default() };
    if missing > 0 {
        tracing::warn!(
            "{missing} partition(s) that this broker counts as in sync have no directory here: it catches up first"
        );
        // Like no boot before.
        return (Start { clean_stop: false, boot: Uuid::new_v4(), directories }, found);
    }
    // Without the host's word on its boot, this one is like no other.
    let boot = probe::boot_id().unwrap_or_else(|_| Uuid::new_v4());
    (Start { clean_stop: clean && all, boot, directories }, found)
}
