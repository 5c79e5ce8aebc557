//! Two looks compared: rates, and the order of each list.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::look::Look;
use super::scrape::{Shard, Traffic};
use crate::client::cluster_client::Topic;

/// The newer look, with rates since the older one.
pub(super) struct Picture<'a> {
    before: &'a Look,
    now: &'a Look,
}

pub(super) struct ShardRow {
    pub broker: i32,
    pub shard: u16,
    /// Part of the time.
    pub busy: f64,
    pub received: f64,
    pub sent: f64,
    pub now: Shard,
}

/// Rates are by second; `None`: not known.
pub(super) struct TopicRow<'a> {
    pub topic: &'a Topic,
    pub records_in: Option<f64>,
    pub bytes_in: Option<f64>,
    pub bytes_out: Option<f64>,
}

pub(super) struct GroupRow<'a> {
    pub group: &'a str,
    pub state: &'a str,
    pub topic: &'a str,
    pub lag: i64,
    pub worst: i64,
    pub unknown: usize,
    /// How fast the lag rises, records a second; `None`: the group was not there before.
    pub rise: Option<f64>,
}

pub(super) struct ClientRow {
    pub software: String,
    pub version: String,
    pub connections: f64,
}

/// A list's order: the largest first, names where that does not decide.
fn by_size<T, N: Ord>(rows: &mut [T], size: impl Fn(&T) -> f64, name: impl Fn(&T) -> N) {
    rows.sort_by(|one, other| size(other).total_cmp(&size(one)).then_with(|| name(one).cmp(&name(other))));
}

impl<'a> Picture<'a> {
    pub fn new(before: &'a Look, now: &'a Look) -> Picture<'a> {
        Picture { before, now }
    }

    pub fn seconds(&self) -> f64 {
        self.now.at.saturating_duration_since(self.before.at).as_secs_f64().max(1e-3)
    }

    /// Growth of a total meanwhile, by second. One that falls began anew with its broker.
    fn rate(&self, before: f64, now: f64) -> f64 {
        (if now >= before { now - before } else { now }) / self.seconds()
    }

    pub fn shards(&self) -> Vec<ShardRow> {
        let mut rows = Vec::new();
        for broker in &self.now.brokers {
            let before = self.before.brokers.iter().find(|before| before.id == broker.id);
            let before = before.and_then(|broker| broker.scrape.as_ref()).map(|(_, scrape)| scrape);
            let Some((_, scrape)) = &broker.scrape else { continue };
            for (shard, now) in &scrape.shards {
                let before = before.and_then(|scrape| scrape.shards.get(shard)).unwrap_or(now);
                rows.push(ShardRow {
                    broker: broker.id,
                    shard: *shard,
                    busy: self.rate(before.busy_seconds, now.busy_seconds).min(1.0),
                    received: self.rate(before.received_bytes, now.received_bytes),
                    sent: self.rate(before.sent_bytes, now.sent_bytes),
                    now: now.clone(),
                });
            }
        }
        rows
    }

    /// Traffic of each topic at the brokers that tell, by second; `None`: not all tell.
    fn traffic(&self) -> Option<BTreeMap<&'a str, Traffic>> {
        let mut traffic: BTreeMap<&str, Traffic> = BTreeMap::new();
        for broker in &self.now.brokers {
            let (_, now) = broker.scrape.as_ref()?;
            let before = self.before.brokers.iter().find(|before| before.id == broker.id)?;
            let (_, before) = before.scrape.as_ref()?;
            for (topic, now) in &now.topics {
                let before = before.topics.get(topic).copied().unwrap_or_default();
                let sum = traffic.entry(topic).or_default();
                sum.records_in += self.rate(before.records_in, now.records_in);
                sum.bytes_in += self.rate(before.bytes_in, now.bytes_in);
                sum.bytes_out += self.rate(before.bytes_out, now.bytes_out);
            }
        }
        Some(traffic)
    }

    pub fn topics(&self) -> Vec<TopicRow<'a>> {
        let traffic = self.traffic();
        let by_ends = |name: &str| {
            let (before, now) = ((*self.before.ends.get(name)?)?, (*self.now.ends.get(name)?)?);
            Some(self.rate(before as f64, now as f64))
        };
        let row = |topic: &'a Topic| {
            // A topic that nobody has used has no traffic.
            let own = traffic.as_ref().map(|all| all.get(topic.name.as_str()).copied().unwrap_or_default());
            TopicRow {
                topic,
                records_in: own.map_or_else(|| by_ends(&topic.name), |own| Some(own.records_in)),
                bytes_in: own.map(|own| own.bytes_in),
                bytes_out: own.map(|own| own.bytes_out),
            }
        };
        let mut rows: Vec<TopicRow> = self.now.topics.iter().map(row).collect();
        let size = |row: &TopicRow| match (row.bytes_in, row.bytes_out) {
            (Some(bytes_in), Some(bytes_out)) => bytes_in + bytes_out,
            _ => row.records_in.unwrap_or_default(),
        };
        by_size(&mut rows, size, |row| row.topic.name.clone());
        rows
    }

    pub fn groups(&self) -> Vec<GroupRow<'a>> {
        let before: BTreeMap<(&str, &str), i64> =
            self.before.groups.iter().map(|sum| ((sum.group.as_str(), sum.topic.as_str()), sum.lag)).collect();
        let rows = self.now.groups.iter().map(|sum| GroupRow {
            group: &sum.group,
            state: &sum.state,
            topic: &sum.topic,
            lag: sum.lag,
            worst: sum.worst,
            unknown: sum.unknown,
            rise: before
                .get(&(sum.group.as_str(), sum.topic.as_str()))
                .map(|before| (sum.lag - before) as f64 / self.seconds()),
        });
        let mut rows: Vec<GroupRow> = rows.collect();
        by_size(&mut rows, |row| row.lag as f64, |row| (row.group.to_owned(), row.topic.to_owned()));
        rows
    }

    pub fn clients(&self) -> Vec<ClientRow> {
        let mut sums: BTreeMap<&(String, String), f64> = BTreeMap::new();
        for (_, scrape) in self.now.brokers.iter().filter_map(|broker| broker.scrape.as_ref()) {
            for (kind, connections) in scrape.clients.iter().filter(|(_, connections)| **connections > 0.0) {
                *sums.entry(kind).or_default() += connections;
            }
        }
        let row = |((software, version), connections): (&(String, String), f64)| ClientRow {
            software: software.clone(),
            version: version.clone(),
            connections,
        };
        let mut rows: Vec<ClientRow> = sums.into_iter().map(row).collect();
        by_size(&mut rows, |row| row.connections, |row| (row.software.clone(), row.version.clone()));
        rows
    }

    pub fn slow(&self) -> &'a [Value] {
        &self.now.slow
    }

    pub fn now(&self) -> &'a Look {
        self.now
    }

    /// All of it as the command's JSON has it, so many of each list.
    pub fn item(&self, most: usize) -> Value {
        let brokers = self.now.brokers.iter().map(|broker| {
            let metrics = broker.scrape.as_ref().map(|(address, _)| address);
            json!({ "broker": broker.id, "address": broker.address, "controller": broker.is_controller, "metrics": metrics })
        });
        let shards = self.shards().into_iter().map(|row| {
            json!({
                "broker": row.broker, "shard": row.shard, "busy": share(row.busy), "connections": row.now.connections as u64,
                "received_bytes_per_second": rounded(row.received), "sent_bytes_per_second": rounded(row.sent),
                "io_in_flight": row.now.io_in_flight as u64, "waiting_messages": row.now.waiting_messages as u64,
            })
        });
        let topics = self.topics().into_iter().map(|row| {
            json!({
                "topic": row.topic.name, "internal": row.topic.internal, "partitions": row.topic.partitions.len(),
                "under_replicated_partitions": under_replicated(row.topic), "unavailable_partitions": unavailable(row.topic),
                "records_in_per_second": row.records_in.map(rounded), "bytes_in_per_second": row.bytes_in.map(rounded),
                "bytes_out_per_second": row.bytes_out.map(rounded),
            })
        });
        let groups = self.groups().into_iter().map(|row| {
            json!({
                "group": row.group, "state": row.state, "topic": row.topic, "lag": row.lag, "max_partition_lag": row.worst,
                "unknown_partitions": row.unknown, "lag_rise_per_second": row.rise.map(rounded),
            })
        });
        let clients = self.clients().into_iter().map(
            |row| json!({ "software": row.software, "version": row.version, "connections": row.connections as u64 }),
        );
        json!({
            "timestamp_ms": self.now.at_ms,
            "seconds": rounded(self.seconds()),
            "cluster_id": self.now.cluster_id,
            "brokers": brokers.collect::<Vec<_>>(),
            "shards": shards.take(most).collect::<Vec<_>>(),
            "topics": topics.take(most).collect::<Vec<_>>(),
            "groups": groups.take(most).collect::<Vec<_>>(),
            "clients": clients.take(most).collect::<Vec<_>>(),
            "slow_requests": self.slow().iter().take(most).collect::<Vec<_>>(),
            "notes": self.now.notes,
        })
    }
}

fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

/// To the millionth: a shard with a hundred small requests a second is busy for 0.0004 of it.
fn share(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

pub(super) fn under_replicated(topic: &Topic) -> usize {
    topic.partitions.iter().filter(|partition| partition.isr.len() < partition.replicas.len()).count()
}

pub(super) fn unavailable(topic: &Topic) -> usize {
    topic.partitions.iter().filter(|partition| partition.leader < 0).count()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::cli::group::Sum;
    use crate::cli::top::look::Broker;
    use crate::cli::top::scrape::Scrape;
    use crate::client::cluster_client::Partition;
    use crate::runtime::clock;
    use std::time::Duration;
    use uuid::Uuid;

    fn topic(name: &str) -> Topic {
        let partition =
            Partition { index: 0, leader: 1, leader_epoch: 0, replicas: vec![1, 2], isr: vec![1], offline: vec![] };
        Topic { name: name.into(), id: Uuid::nil(), internal: false, partitions: vec![partition], refusal: None }
    }

    /// A cluster of one broker that has been going for `seconds`.
    pub fn look(seconds: f64, has_metrics: bool) -> Look {
        let mut scrape = Scrape { broker: Some(1), ..Scrape::default() };
        let shard =
            Shard { busy_seconds: seconds / 4.0, connections: 3.0, sent_bytes: 1e6 * seconds, ..Shard::default() };
        scrape.shards.insert(0, shard);
        let traffic =
            |rate: f64| Traffic { records_in: rate * seconds, bytes_in: 100.0 * rate * seconds, bytes_out: 0.0 };
        scrape.topics = BTreeMap::from([("busy".to_owned(), traffic(50.0)), ("calm".to_owned(), traffic(1.0))]);
        scrape.clients.insert(("librdkafka".into(), "2".into()), 3.0);
        let sum = |group: &str, lag: f64| Sum {
            group: group.into(),
            state: "Stable".into(),
            topic: "busy".into(),
            partitions: 1,
            lag: lag as i64,
            worst: lag as i64,
            unknown: 0,
        };
        Look {
            at: clock::now() + Duration::from_secs_f64(seconds),
            at_ms: 1_764_000_000_000,
            cluster_id: Some("abc".into()),
            brokers: vec![Broker {
                id: 1,
                address: "h:9092".into(),
                is_controller: true,
                scrape: has_metrics.then(|| ("h:9644".to_owned(), scrape)),
            }],
            topics: vec![topic("calm"), topic("busy"), topic("unused")],
            ends: BTreeMap::from([("busy".into(), Some((50.0 * seconds) as i64)), ("calm".into(), None)]),
            groups: vec![sum("a", 5.0), sum("b", 10.0 * seconds)],
            slow: vec![json!({ "slow_ms": 7.5, "broker": 1, "api": "Fetch", "in_words": "7.5 ms for the disk" })],
            notes: Vec::new(),
        }
    }

    fn near(value: f64, expected: f64) -> bool {
        (value - expected).abs() < expected.abs() * 0.01 + 1e-3
    }

    #[test]
    fn a_shard_that_has_little_to_do_is_not_idle() {
        let (before, mut now) = (look(0.0, true), look(1.0, true));
        now.brokers[0].scrape.as_mut().unwrap().1.shards.get_mut(&0).unwrap().busy_seconds = 0.0004;
        let busy = Picture::new(&before, &now).item(1)["shards"][0]["busy"].as_f64().unwrap();
        assert!((0.0003..0.0005).contains(&busy), "{busy}");
    }

    #[test]
    fn rates_are_of_the_time_between_two_looks() {
        let (before, now) = (look(10.0, true), look(12.0, true));
        let picture = Picture::new(&before, &now);
        assert!(near(picture.seconds(), 2.0));
        let shards = picture.shards();
        assert!(near(shards[0].busy, 0.25) && near(shards[0].sent, 1e6), "{} {}", shards[0].busy, shards[0].sent);
        let topics = picture.topics();
        let names: Vec<&str> = topics.iter().map(|row| row.topic.name.as_str()).collect();
        assert_eq!(names, ["busy", "calm", "unused"]);
        assert!(near(topics[0].records_in.unwrap(), 50.0) && near(topics[0].bytes_in.unwrap(), 5000.0));
        assert_eq!((topics[2].bytes_in, topics[2].records_in), (Some(0.0), Some(0.0)));
        let groups = picture.groups();
        assert_eq!((groups[0].group, groups[0].lag), ("b", 120));
        assert!(near(groups[0].rise.unwrap(), 10.0) && groups[1].rise == Some(0.0));
        let item = picture.item(1);
        assert_eq!(item["topics"].as_array().unwrap().len(), 1);
        assert_eq!(item["slow_requests"][0]["slow_ms"], 7.5);
        assert_eq!(item["clients"][0]["connections"], 3);
    }

    #[test]
    fn a_broker_that_began_anew_has_what_came_since() {
        let (before, now) = (look(10.0, true), look(12.0, true));
        let picture = Picture::new(&before, &now);
        assert!(near(picture.rate(100.0, 8.0), 4.0));
    }

    #[test]
    fn without_metrics_records_are_told_by_offsets() {
        let (before, now) = (look(10.0, false), look(12.0, false));
        let picture = Picture::new(&before, &now);
        let topics = picture.topics();
        assert_eq!(topics[0].topic.name, "busy");
        assert!(near(topics[0].records_in.unwrap(), 50.0));
        assert_eq!((topics[0].bytes_in, topics[1].records_in), (None, None));
        assert!(picture.shards().is_empty() && picture.clients().is_empty());
    }
}
