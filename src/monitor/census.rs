//! Topics, partitions and groups: what shards answer when they are asked, and what
//! the metadata says of it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::exposition::{Series, Word};
use super::start::Sources;
use crate::cluster::{MetadataImage, PartitionImage};
use crate::model::{BrokerId, PartitionId};
use crate::observe::metrics::{Metric, metric};
use crate::shard::Survey;

/// A shard answers at its next tick; one that does not within this time is left out,
/// and all that hangs on it.
const PATIENCE: Duration = Duration::from_millis(900);

/// Label of all that have no series of their own; no topic is called so.
const OTHERS: &str = "(others)";

/// Asks every shard; `None`: not all have answered.
pub(super) async fn ask(sources: &Sources) -> Option<Vec<Survey>> {
    let answers: Vec<oneshot::Receiver<Survey>> = sources
        .desks
        .iter()
        .map(|desk| {
            let (sender, receiver) = oneshot::channel();
            desk.ask(move |survey| _ = sender.send(survey));
            receiver
        })
        .collect();
    let all = async {
        let mut surveys = Vec::with_capacity(answers.len());
        for answer in answers {
            surveys.push(answer.await.ok()?);
        }
        Some(surveys)
    };
    tokio::time::timeout(PATIENCE, all).await.ok().flatten()
}

/// Sums of a topic on this broker.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Totals {
    received_bytes: u64,
    received_records: u64,
    sent_bytes: u64,
    replicated_in_bytes: u64,
    replicated_out_bytes: u64,
    log_bytes: u64,
    partitions: u64,
    open_transactions: u64,
    /// Of the partition that has most.
    stable_lag: u64,
}

/// Names with series of their own, and one name for all the others.
struct Names {
    left: usize,
    others: Arc<str>,
}

impl Names {
    fn new(most: usize) -> Names {
        Names { left: most, others: OTHERS.into() }
    }

    /// The label for the next name.
    fn label(&mut self, name: &Arc<str>) -> Arc<str> {
        if self.left == 0 {
            return self.others.clone();
        }
        self.left -= 1;
        name.clone()
    }
}

/// Series of topics, groups and the broker's part of them.
pub(super) fn tell(sources: &Sources, surveys: &[Survey], series: &mut Vec<Series>) {
    let Some(image) = surveys.first().map(|survey| survey.image.clone()) else { return };
    let me = BrokerId(sources.broker_id);
    topics(sources, &image, me, surveys, series);
    standing(&image, me, surveys, series);
    groups(sources, &image, surveys, series);
    if sources.partitions {
        partitions(sources, &image, surveys, series);
    }
}

/// Adds up by label, in the order of names.
fn by_label<T: Default>(
    names: impl Iterator<Item = Arc<str>>,
    most: usize,
    mut add: impl FnMut(&Arc<str>, &mut T),
) -> BTreeMap<Arc<str>, T> {
    let mut labels = Names::new(most);
    let mut sums = BTreeMap::<Arc<str>, T>::new();
    for name in names {
        add(&name, sums.entry(labels.label(&name)).or_default());
    }
    sums
}

fn topics(sources: &Sources, image: &MetadataImage, me: BrokerId, surveys: &[Survey], series: &mut Vec<Series>) {
    let mut totals: HashMap<Arc<str>, Totals> = HashMap::new();
    let exists = |name: &str, id: u128| image.topic(name).is_some_and(|topic| topic.id.as_u128() == id);
    for shard in &sources.metrics.shards {
        shard.topics.each(exists, |name, traffic| {
            let sums = totals.entry(name.clone()).or_default();
            sums.received_bytes += traffic.received_bytes.get();
            sums.received_records += traffic.received_records.get();
            sums.sent_bytes += traffic.sent_bytes.get();
            sums.replicated_in_bytes += traffic.replicated_in_bytes.get();
            sums.replicated_out_bytes += traffic.replicated_out_bytes.get();
        });
    }
    for partition in surveys.iter().flat_map(|survey| &survey.partitions) {
        let Some(topic) = image.topic_by_id(partition.id.topic) else { continue };
        let sums = totals.entry(topic.name.clone()).or_default();
        sums.log_bytes += partition.bytes;
        let state = usize::try_from(partition.id.index.0).ok().and_then(|index| topic.partitions.get(index));
        if state.is_some_and(|state| leads(image, me, partition.id, state)) {
            sums.open_transactions += partition.open_transactions as u64;
            let lag = partition.high_watermark.saturating_sub(partition.last_stable_offset);
            sums.stable_lag = sums.stable_lag.max(u64::try_from(lag).unwrap_or_default());
        }
    }
    let names = image.topics().map(|topic| topic.name.clone());
    let labelled = by_label(names, sources.most_names, |name, sums: &mut Totals| {
        let own = totals.get(name).copied().unwrap_or_default();
        sums.received_bytes += own.received_bytes;
        sums.received_records += own.received_records;
        sums.sent_bytes += own.sent_bytes;
        sums.replicated_in_bytes += own.replicated_in_bytes;
        sums.replicated_out_bytes += own.replicated_out_bytes;
        sums.log_bytes += own.log_bytes;
        sums.open_transactions += own.open_transactions;
        sums.stable_lag = sums.stable_lag.max(own.stable_lag);
        sums.partitions += image.topic(name).map_or(0, |topic| topic.partitions.len() as u64);
    });
    type OfTopic = (&'static Metric, fn(&Totals) -> u64);
    let alone: [OfTopic; 7] = [
        (&metric::TOPIC_RECEIVED, |sums| sums.received_bytes),
        (&metric::TOPIC_RECORDS, |sums| sums.received_records),
        (&metric::TOPIC_SENT, |sums| sums.sent_bytes),
        (&metric::TOPIC_BYTES, |sums| sums.log_bytes),
        (&metric::TOPIC_PARTITIONS, |sums| sums.partitions),
        (&metric::TOPIC_TRANSACTIONS, |sums| sums.open_transactions),
        (&metric::TOPIC_STABLE_LAG, |sums| sums.stable_lag),
    ];
    let in_cluster: [OfTopic; 2] = [
        (&metric::TOPIC_REPLICATED_IN, |sums| sums.replicated_in_bytes),
        (&metric::TOPIC_REPLICATED_OUT, |sums| sums.replicated_out_bytes),
    ];
    for (metric, value) in alone.iter().chain(in_cluster.iter().filter(|_| image.this.is_some())) {
        let mut one = Series::of(metric);
        labelled.iter().for_each(|(label, sums)| one.whole([label.clone().into()], value(sums)));
        series.push(one);
    }
}

fn leads(image: &MetadataImage, me: BrokerId, id: PartitionId, partition: &PartitionImage) -> bool {
    partition.leader == Some(me) && !image.is_offline(id)
}

/// How the broker's partitions stand, and the cluster.
fn standing(image: &MetadataImage, me: BrokerId, surveys: &[Survey], series: &mut Vec<Series>) {
    let (mut leaders, mut under_replicated, mut under_min, mut offline) = (0, 0, 0, 0);
    for topic in image.topics() {
        for (index, partition) in (0..).zip(&topic.partitions) {
            let id = PartitionId::new(topic.id, index);
            offline += u64::from(partition.leader.is_none_or(|leader| image.is_offline_at(leader, topic, index)));
            if leads(image, me, id, partition) {
                leaders += 1;
                under_replicated += u64::from(partition.isr.len() < partition.replicas.len());
                let wanted = (topic.config.min_insync_replicas as usize).min(partition.replicas.len());
                under_min += u64::from(partition.isr.len() < wanted);
            }
        }
    }
    let replicas = surveys.iter().map(|survey| survey.partitions.len() as u64).sum();
    let values = [
        (&metric::REPLICAS, replicas),
        (&metric::LEADERS, leaders),
        (&metric::UNDER_REPLICATED, under_replicated),
        (&metric::UNDER_MIN_ISR, under_min),
        (&metric::OFFLINE, offline),
        (&metric::CONTROLLER, u64::from(image.controller == Some(me))),
        (&metric::BROKERS, image.brokers.len() as u64),
        (&metric::TOPICS, image.topics().count() as u64),
    ];
    for (metric, value) in values {
        let mut one = Series::of(metric);
        one.whole([], value);
        series.push(one);
    }
}

fn groups(sources: &Sources, image: &MetadataImage, surveys: &[Survey], series: &mut Vec<Series>) {
    let mut ends: HashMap<PartitionId, i64> = HashMap::new();
    for partition in surveys.iter().flat_map(|survey| &survey.partitions) {
        ends.insert(partition.id, partition.high_watermark);
    }
    // Of what was committed for an earlier topic of the name, or up to a place that is not there
    // any more, nothing is left.
    let lag_of = |topic: &Arc<str>, partition: i32, committed: i64| {
        let id = PartitionId::new(image.topic(topic)?.id, partition);
        u64::try_from(ends.get(&id)? - committed).ok().or(Some(0))
    };
    let mut all: Vec<_> = surveys.iter().flat_map(|survey| &survey.groups).collect();
    all.sort_unstable_by(|a, b| a.group.cmp(&b.group));
    let mut states: BTreeMap<&'static str, u64> = BTreeMap::new();
    let mut labels = Names::new(sources.most_names);
    let mut sums: BTreeMap<Arc<str>, u64> = BTreeMap::new();
    let mut lags: BTreeMap<(Arc<str>, Arc<str>), u64> = BTreeMap::new();
    let mut single = Series::of(&metric::GROUP_PARTITION_LAG);
    for group in all {
        *states.entry(group.state).or_default() += 1;
        let label = labels.label(&group.group);
        *sums.entry(label.clone()).or_default() += group.members as u64;
        for (topic, partition, committed) in &group.offsets {
            let Some(lag) = lag_of(topic, *partition, *committed) else { continue };
            *lags.entry((label.clone(), topic.clone())).or_default() += lag;
            if sources.partitions && *label != *OTHERS {
                single.whole([label.clone().into(), topic.clone().into(), (*partition).into()], lag);
            }
        }
    }
    let mut by_state = Series::of(&metric::GROUPS);
    states.into_iter().for_each(|(state, count)| by_state.whole([state.into()], count));
    let mut members = Series::of(&metric::GROUP_MEMBERS);
    sums.into_iter().for_each(|(label, count)| members.whole([label.into()], count));
    let mut by_topic = Series::of(&metric::GROUP_LAG);
    // A pair of any group and any topic is as many as clients like to make.
    let most = sources.most_names.saturating_mul(TOPICS_A_GROUP);
    for ((label, topic), lag) in lags.into_iter().take(most) {
        by_topic.whole([label.into(), topic.into()], lag);
    }
    series.extend([by_state, members, by_topic, single]);
}

/// Pairs of a group and a topic that are told of, for each name there may be.
const TOPICS_A_GROUP: usize = 10;

fn partitions(sources: &Sources, image: &MetadataImage, surveys: &[Survey], series: &mut Vec<Series>) {
    let mut labels = Names::new(sources.most_names);
    let told: HashMap<_, _> = image.topics().map(|topic| (topic.id, labels.label(&topic.name))).collect();
    let mut all: Vec<_> = surveys.iter().flat_map(|survey| &survey.partitions).collect();
    all.sort_unstable_by_key(|partition| (partition.id.topic, partition.id.index));
    let mut bytes = Series::of(&metric::PARTITION_BYTES);
    let mut start = Series::of(&metric::PARTITION_START);
    let mut high = Series::of(&metric::PARTITION_HIGH);
    for partition in all {
        let Some(label) = told.get(&partition.id.topic).filter(|label| ***label != *OTHERS) else { continue };
        let labels = || -> [Word; 2] { [label.clone().into(), partition.id.index.0.into()] };
        let offset = |offset: i64| u64::try_from(offset).unwrap_or_default();
        bytes.whole(labels(), partition.bytes);
        start.whole(labels(), offset(partition.start_offset));
        high.whole(labels(), offset(partition.high_watermark));
    }
    series.extend([bytes, start, high]);
}
