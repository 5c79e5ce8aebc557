//! Records of the metadata store, one type for each kind of node, and the keys that name them.
//!
//! The kinds are those of Kafka 3.9 in ZooKeeper mode; the engine that speaks to ZooKeeper maps
//! keys to paths and records to Kafka's JSON.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

use uuid::Uuid;

use crate::cluster::directory_id::DirectoryId;
use crate::cluster::image::{EndpointImage, PartitionHome};
use crate::cluster::quotas::QuotaEntity;
use crate::model::{BrokerId, LeaderEpoch};

/// Name of a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    ClusterId,
    /// The first producer id not yet given away.
    ProducerIds,
    /// The broker that acts as controller. Ephemeral.
    Controller,
    ControllerEpoch,
    /// Registration of a live broker. Ephemeral; its [`Node::created`] is the broker epoch.
    Broker(BrokerId),
    /// State of a broker's incarnation; outlives its session.
    Incarnation(BrokerId),
    Topic(Arc<str>),
    /// Child of its topic.
    Partition(Arc<str>, i32),
    /// Data directory of this broker's replica, child of its topic. Kept by this broker for itself:
    /// only the engine over its own files has such nodes.
    Home(Arc<str>, i32),
    TopicConfig(Arc<str>),
    BrokerConfig(BrokerId),
    /// Cluster-wide default of the dynamic broker configs.
    DefaultConfig,
    /// Mark of a topic whose deletion was begun.
    Deletion(Arc<str>),
    /// Options of whom client quotas are set for: the quotas, and what else stands there.
    Quota(QuotaEntity),
    /// Options of a group, which has not to be there.
    Group(Arc<str>),
}

impl Key {
    /// The topic that the node is a part of.
    pub fn topic(&self) -> Option<&Arc<str>> {
        match self {
            Key::Topic(name) | Key::Partition(name, _) | Key::Home(name, _) | Key::TopicConfig(name) => Some(name),
            _ => None,
        }
    }

    /// The node without which this one cannot be made, and which cannot go before it.
    pub fn parent(&self) -> Option<Key> {
        match self {
            Key::Partition(topic, _) | Key::Home(topic, _) => Some(Key::Topic(topic.clone())),
            _ => None,
        }
    }

    /// Keys of all nodes whose parent this can be.
    pub fn children(&self) -> Option<[RangeInclusive<Key>; 2]> {
        let Key::Topic(topic) = self else { return None };
        let partition = |index| Key::Partition(topic.clone(), index);
        let home = |index| Key::Home(topic.clone(), index);
        Some([partition(i32::MIN)..=partition(i32::MAX), home(i32::MIN)..=home(i32::MAX)])
    }
}

/// Content of a node, of the kind that its key says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    ClusterId(String),
    ProducerIds(i64),
    Controller(BrokerId),
    ControllerEpoch(i32),
    Broker(BrokerRecord),
    Incarnation(Incarnation),
    Topic(TopicRecord),
    Partition(PartitionState),
    Home(PartitionHome),
    /// Of a topic, a broker, the cluster-wide default, an entity with quotas, or a group.
    Config(BTreeMap<String, String>),
    Deletion,
    /// A node whose contents cannot be read, and why. Only nodes of topics are so: without any
    /// other the store is not read at all.
    Damaged(String),
}

impl Record {
    /// This is of the kind that `key` names.
    pub fn fits(&self, key: &Key) -> bool {
        match self {
            Record::ClusterId(_) => matches!(key, Key::ClusterId),
            Record::ProducerIds(_) => matches!(key, Key::ProducerIds),
            Record::Controller(_) => matches!(key, Key::Controller),
            Record::ControllerEpoch(_) => matches!(key, Key::ControllerEpoch),
            Record::Broker(_) => matches!(key, Key::Broker(_)),
            Record::Incarnation(_) => matches!(key, Key::Incarnation(_)),
            Record::Topic(_) => matches!(key, Key::Topic(_)),
            Record::Partition(_) => matches!(key, Key::Partition(..)),
            Record::Home(_) => matches!(key, Key::Home(..)),
            Record::Config(_) => matches!(
                key,
                Key::TopicConfig(_) | Key::BrokerConfig(_) | Key::DefaultConfig | Key::Quota(_) | Key::Group(_)
            ),
            Record::Deletion => matches!(key, Key::Deletion(_)),
            Record::Damaged(_) => key.topic().is_some(),
        }
    }
}

/// Registration of a live broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerRecord {
    pub endpoints: Vec<EndpointImage>,
    pub rack: Option<String>,
    /// It refuses records in some data directory for want of room: others lead if they can.
    pub short_of_room: bool,
    /// All its data directories are cordoned (KIP-1066): it gets no new replicas.
    pub cordoned: bool,
    /// Replicas that it cannot serve.
    pub offline: Arc<OfflineReplicas>,
}

impl BrokerRecord {
    /// Of a broker about which there is nothing else to tell.
    pub fn new(endpoints: Vec<EndpointImage>, rack: Option<String>) -> BrokerRecord {
        BrokerRecord { endpoints, rack, short_of_room: false, cordoned: false, offline: Arc::default() }
    }
}

/// Partitions of which a broker cannot serve its replica: it could not be opened, or its log
/// failed. By topic.
pub type OfflineReplicas = BTreeMap<Arc<str>, BTreeSet<i32>>;

/// One life of a broker, from its registration to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incarnation {
    pub phase: Phase,
    /// Its logs are what they were when it last took part: a clean stop, or the same boot of its
    /// host.
    pub trusted: bool,
    /// Boot of the host that it was started in.
    pub boot: Uuid,
    pub directories: BTreeSet<DirectoryId>,
}

/// How far a broker takes part in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Registered; leads and follows nothing before the controller has made it active.
    Joining,
    Active,
    /// On its way to a controlled stop: is given no leadership, and leaves each ISR.
    Draining,
}

/// Identity of a topic and where its replicas are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicRecord {
    pub id: Uuid,
    /// By partition index.
    pub assignments: Vec<Assignment>,
}

/// Brokers of one partition. The first of `replicas` is the preferred leader.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assignment {
    pub replicas: Vec<BrokerId>,
    /// Replicas of a reassignment under way (KIP-455) that are to be, and are
    /// in `replicas` already.
    pub adding: Vec<BrokerId>,
    /// Replicas of a reassignment under way that are to go, and are in `replicas` still.
    pub removing: Vec<BrokerId>,
}

/// Leadership and replica sets of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionState {
    pub leader: Option<BrokerId>,
    pub leader_epoch: LeaderEpoch,
    /// Epoch of the controller that wrote the state last, or that was in office
    /// when the leader did.
    pub controller_epoch: i32,
    /// In the order of Kafka's list; no broker twice.
    pub isr: Vec<BrokerId>,
    /// Eligible leader replicas (KIP-966).
    pub elr: Vec<BrokerId>,
    /// The least `min.insync.replicas` that members of the ELR left under; 0 without an ELR.
    pub elr_min: i32,
    /// The leader before the partition had none.
    pub last_leader: Option<BrokerId>,
    /// Replicas that have lost all records, and have not caught up since.
    pub emptied: Vec<BrokerId>,
    /// Registration of the leader (its broker epoch) that led on after a restart: the
    /// leader epoch is newer than it.
    pub leader_broker_epoch: Option<i64>,
}
