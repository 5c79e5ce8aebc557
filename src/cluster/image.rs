//! An immutable picture of brokers, topics and partitions. A change makes a new image; every shard
//! holds an `Arc` of the newest one that reached it.

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

use super::directory_id::DirectoryId;
use super::quotas::ClientQuotas;
use super::store::{OfflineReplicas, Phase, Revision};
use crate::config::{GroupOptions, ServerConfig, TopicConfig};
use crate::model::{BrokerId, ErrorCode, IdMap, LeaderEpoch, PartitionId};

/// One broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerImage {
    pub id: BrokerId,
    /// Advertised, each under another listener's name.
    pub endpoints: Vec<EndpointImage>,
    pub rack: Option<String>,
    /// Number of its registration: a later one of the same broker has a larger number.
    pub epoch: i64,
    pub phase: Phase,
    /// Version of the record that tells the phase.
    pub incarnation: i32,
    /// All its data directories are cordoned (KIP-1066): it gets no new replicas.
    pub cordoned: bool,
    /// Replicas that it cannot serve, as it tells.
    pub offline: Arc<OfflineReplicas>,
}

/// Where clients of one listener reach a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointImage {
    /// Upper case.
    pub listener: String,
    pub host: String,
    pub port: u16,
}

impl BrokerImage {
    /// A broker that takes part, where nobody registers.
    pub fn alone(id: BrokerId, endpoints: Vec<EndpointImage>, rack: Option<String>) -> BrokerImage {
        let offline = Arc::default();
        BrokerImage { id, endpoints, rack, epoch: 0, phase: Phase::Active, incarnation: 0, cordoned: false, offline }
    }

    /// It tells that it cannot serve its replica of this partition.
    pub fn is_offline(&self, topic: &str, index: i32) -> bool {
        self.offline.get(topic).is_some_and(|partitions| partitions.contains(&index))
    }

    /// `None`: the broker cannot be reached by that listener.
    pub fn endpoint(&self, listener: &str) -> Option<&EndpointImage> {
        self.endpoints.iter().find(|endpoint| endpoint.listener == listener)
    }
}

/// One partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionImage {
    /// Of the state: what stands below except the replicas and the home.
    pub version: i32,
    pub leader: Option<BrokerId>,
    pub leader_epoch: LeaderEpoch,
    /// Those of a reassignment under way too.
    pub replicas: Vec<BrokerId>,
    /// Replicas that a reassignment brings, and those that it takes away (KIP-455).
    pub adding: Vec<BrokerId>,
    pub removing: Vec<BrokerId>,
    pub isr: Vec<BrokerId>,
    /// Eligible leader replicas (KIP-966), and the least `min.insync.replicas`
    /// that one of them left under.
    pub elr: Vec<BrokerId>,
    pub elr_min: i32,
    /// The leader before there was none.
    pub last_leader: Option<BrokerId>,
    /// Where its records are; `None`: not settled yet.
    pub home: Option<PartitionHome>,
}

/// The data directory of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionHome {
    pub directory: DirectoryId,
    /// Number of the broker's run in which the partition was made. What a later run
    /// does not find there is lost.
    pub since_run: u64,
}

/// Partitions that no broker serves at present, and why.
pub type OfflinePartitions = BTreeMap<PartitionId, Arc<str>>;

/// One topic.
#[derive(Clone, Debug)]
pub struct TopicImage {
    pub name: Arc<str>,
    pub id: Uuid,
    /// By partition index.
    pub partitions: Vec<PartitionImage>,
    /// Options that the user set, by Kafka's names.
    pub overrides: BTreeMap<String, String>,
    /// The overrides on top of the broker's defaults.
    pub config: Arc<TopicConfig>,
}

/// The whole picture.
#[derive(Clone, Debug, Default)]
pub struct MetadataImage {
    /// Revision of the metadata store that the topics are as of; zero before
    /// the first change of a run.
    pub version: Revision,
    pub cluster_id: String,
    pub controller: Option<BrokerId>,
    /// The broker that has the image, where it is one of several.
    pub this: Option<BrokerId>,
    /// Number of the registration that this broker fetches by as a follower;
    /// `None`: it has had none.
    pub follower_epoch: Option<i64>,
    /// This broker's settings with the options that were set while brokers run;
    /// `None`: there are none.
    pub settings: Option<Arc<ServerConfig>>,
    pub quotas: Arc<ClientQuotas>,
    /// Options of single groups.
    pub groups: Arc<GroupOptions>,
    pub brokers: Vec<BrokerImage>,
    by_name: BTreeMap<Arc<str>, Arc<TopicImage>>,
    by_id: IdMap<Uuid, Arc<TopicImage>>,
    /// Not stored: each start finds out anew.
    offline: Arc<OfflinePartitions>,
    /// Names of topics whose metadata is lost or damaged, and why. Not stored either.
    withheld: Arc<BTreeMap<String, String>>,
}

impl MetadataImage {
    /// The broker that has the image takes part in its cluster, by a registration of its own; true
    /// of one without a cluster.
    pub fn takes_part(&self) -> bool {
        let Some(me) = self.this else { return true };
        let own = self.brokers.iter().find(|broker| broker.id == me && Some(broker.epoch) == self.follower_epoch);
        own.is_some_and(|own| own.phase != Phase::Joining)
    }

    /// The brokers that clients of `listener` can reach, and where.
    pub fn reachable(&self, listener: &str) -> impl Iterator<Item = (&BrokerImage, &EndpointImage)> {
        self.brokers.iter().filter_map(move |broker| Some((broker, broker.endpoint(listener)?)))
    }

    pub fn topic(&self, name: &str) -> Option<&Arc<TopicImage>> {
        self.by_name.get(name)
    }

    pub fn topic_by_id(&self, id: Uuid) -> Option<&Arc<TopicImage>> {
        self.by_id.get(&id)
    }

    /// Takes `settings` over, for all topics too. Returns the names of those whose
    /// options are others then.
    pub fn configure(&mut self, settings: Arc<ServerConfig>) -> Vec<Arc<str>> {
        let mut names = Vec::new();
        for topic in self.topics().cloned().collect::<Vec<_>>() {
            let config = settings.topic_defaults.with_known(&topic.overrides);
            if config != *topic.config {
                names.push(topic.name.clone());
                self.put_topic(TopicImage { config: config.into(), ..TopicImage::clone(&topic) });
            }
        }
        self.settings = Some(settings);
        names
    }

    /// In name order.
    pub fn topics(&self) -> impl Iterator<Item = &Arc<TopicImage>> {
        self.by_name.values()
    }

    /// Adds or replaces.
    pub fn put_topic(&mut self, topic: impl Into<Arc<TopicImage>>) {
        let topic = topic.into();
        self.by_id.insert(topic.id, topic.clone());
        self.by_name.insert(topic.name.clone(), topic);
    }

    /// Partitions that this broker cannot serve; as the leader in their [`PartitionImage`] it
    /// does not count meanwhile.
    pub fn offline(&self) -> &OfflinePartitions {
        &self.offline
    }

    pub fn is_offline(&self, partition: PartitionId) -> bool {
        self.offline.contains_key(&partition)
    }

    pub fn set_offline(&mut self, offline: OfflinePartitions) {
        self.offline = Arc::new(offline);
    }

    /// This broker's replica of the partition cannot be served, as far as is known here.
    pub fn is_offline_at(&self, broker: BrokerId, topic: &TopicImage, index: i32) -> bool {
        let here = self.this.is_none_or(|this| this == broker) && self.is_offline(PartitionId::new(topic.id, index));
        here || self.brokers.iter().any(|known| known.id == broker && known.is_offline(&topic.name, index))
    }

    /// The partitions of [`offline`](Self::offline) by name, as the other brokers are to know them.
    pub fn offline_replicas(&self) -> OfflineReplicas {
        let mut replicas = OfflineReplicas::new();
        for partition in self.offline.keys() {
            if let Some(topic) = self.topic_by_id(partition.topic) {
                replicas.entry(topic.name.clone()).or_default().insert(partition.index.0);
            }
        }
        replicas
    }

    /// Why no topic may take this name: there is one whose metadata is lost or damaged, and whose
    /// records a new topic would hide.
    pub fn withheld(&self, name: &str) -> Option<&str> {
        self.withheld.get(name).map(String::as_str)
    }

    pub fn all_withheld(&self) -> &BTreeMap<String, String> {
        &self.withheld
    }

    /// The topic, or the error that clients get: KAFKA_STORAGE_ERROR for one that is withheld,
    /// which UNKNOWN_TOPIC_OR_PARTITION would tell them does not exist.
    pub fn find_topic(&self, name: &str) -> Result<&Arc<TopicImage>, ErrorCode> {
        self.topic(name).ok_or(match self.withheld(name) {
            Some(_) => ErrorCode::KafkaStorageError,
            None => ErrorCode::UnknownTopicOrPartition,
        })
    }

    pub fn withhold(&mut self, name: &str, why: String) {
        Arc::make_mut(&mut self.withheld).entry(name.to_owned()).or_insert(why);
    }

    /// The topic is served again, or its name free.
    pub fn release(&mut self, name: &str) {
        if self.withheld.contains_key(name) {
            Arc::make_mut(&mut self.withheld).remove(name);
        }
    }

    /// Raises the leader epoch of every partition by one.
    pub fn raise_leader_epochs(&mut self) {
        let topics: Vec<TopicImage> = self.topics().map(|topic| (**topic).clone()).collect();
        for mut topic in topics {
            for partition in &mut topic.partitions {
                partition.leader_epoch.0 = partition.leader_epoch.0.saturating_add(1);
            }
            self.put_topic(topic);
        }
    }

    pub fn remove_topic(&mut self, name: &str) -> Option<Arc<TopicImage>> {
        let topic = self.by_name.remove(name)?;
        if self.by_id.get(&topic.id).is_some_and(|known| known.name == topic.name) {
            self.by_id.remove(&topic.id);
        }
        Some(topic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_takes_part_by_its_own_registration() {
        let mut image = MetadataImage::default();
        assert!(image.takes_part(), "there is no cluster");
        image.this = Some(BrokerId(1));
        let broker =
            |id: i32, epoch, phase| BrokerImage { epoch, phase, ..BrokerImage::alone(BrokerId(id), Vec::new(), None) };
        let mut takes_part = |own: Option<i64>, brokers: &[BrokerImage]| {
            (image.follower_epoch, image.brokers) = (own, brokers.to_vec());
            image.takes_part()
        };
        assert!(!takes_part(None, &[broker(1, 5, Phase::Active)]), "of an earlier life");
        assert!(!takes_part(Some(6), &[broker(1, 5, Phase::Active)]), "of an earlier life");
        assert!(!takes_part(Some(6), &[broker(1, 6, Phase::Joining), broker(2, 7, Phase::Active)]));
        assert!(!takes_part(Some(6), &[]));
        assert!(takes_part(Some(6), &[broker(1, 6, Phase::Active)]));
        assert!(takes_part(Some(6), &[broker(1, 6, Phase::Draining)]));
    }
}
