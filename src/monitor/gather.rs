//! The metrics' values, from what was counted.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::ApiKey;

use super::census;
use super::exposition::{Scrape, Series, Word};
use super::process::{self, ProcessFacts};
use super::start::Sources;
use crate::observe::metrics::{Durations, FetchStage, Metric, Resource, ShardMetrics, Spread, Stage, metric};
use crate::runtime::probe;
use crate::runtime::process::thread_cpu_seconds;
use crate::shard::Survey;

/// The broker's name for itself.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Values of all metrics. On the monitor's thread.
pub(super) fn gather(sources: &Sources, started: Option<f64>, surveys: Option<&[Survey]>) -> Scrape {
    let mut series = Vec::new();
    broker(sources, &mut series);
    requests(&sources.metrics.shards, &mut series);
    shards(sources, &mut series);
    clients(sources, &mut series);
    throttling(&sources.metrics.shards, &mut series);
    isr(&sources.metrics.shards, &mut series);
    if let Some(surveys) = surveys {
        census::tell(sources, surveys, &mut series);
    }
    log_dirs(&sources.log_dirs, &mut series);
    process_facts(process::look(started), &mut series);
    Scrape(series)
}

fn broker(sources: &Sources, series: &mut Vec<Series>) {
    let mut build = Series::of(&metric::BUILD);
    build.whole([VERSION.into()], 1);
    let mut ready = Series::of(&metric::READY);
    ready.whole([], u64::from(sources.metrics.readiness().is_ok()));
    series.extend([build, ready]);
    if let Some(late) = sources.late.get() {
        let mut broker = Series::of(&metric::BROKER);
        broker.whole([sources.broker_id.into(), late.cluster_id.clone().into()], 1);
        series.push(broker);
    }
}

/// Of all shards together.
fn requests(shards: &[Arc<ShardMetrics>], series: &mut Vec<Series>) {
    let mut requests = Series::of(&metric::REQUESTS);
    let mut bytes = Series::of(&metric::REQUEST_BYTES);
    let mut errors = Series::of(&metric::REQUEST_ERRORS);
    let mut stages = Series::of(&metric::REQUEST_STAGES);
    let mut keys: Vec<i16> = shards.iter().flat_map(|shard| shard.apis().map(|(key, _)| key)).collect();
    keys.sort_unstable();
    keys.dedup();
    for key in keys {
        let api = || -> Word { api_name(key).into() };
        let all = || shards.iter().filter_map(move |shard| shard.apis().find(|(own, _)| *own == key));
        for (version, count) in summed(all().flat_map(|(_, api)| api.requests())) {
            requests.whole([api(), version.into()], count);
        }
        bytes.whole([api()], all().map(|(_, api)| api.request_bytes.get()).sum());
        for (code, count) in summed(all().flat_map(|(_, api)| api.errors())) {
            errors.whole([api(), error_name(code).into()], count);
        }
        let mut told = |stage: Stage, spread: Spread| {
            if spread.count() > 0 {
                stages.spread([api(), stage_name(stage).into()], spread);
            }
        };
        if key == ApiKey::Produce as i16 {
            told(Stage::Appended, spread_of(shards.iter().map(|shard| &shard.appended)));
            told(Stage::Acknowledged, spread_of(shards.iter().map(|shard| &shard.acknowledged)));
        }
        told(Stage::Sent, spread_of(all().map(|(_, api)| &api.sent)));
    }
    series.extend([requests, bytes, errors, stages, fetches(shards)]);
}

fn fetches(shards: &[Arc<ShardMetrics>]) -> Series {
    let mut fetches = Series::of(&metric::FETCH_STAGES);
    for stage in FetchStage::ALL {
        for (reader, spread) in [
            ("consumer", spread_of(shards.iter().map(|shard| shard.consumer_fetches.of(stage)))),
            ("follower", spread_of(shards.iter().map(|shard| shard.follower_fetches.of(stage)))),
        ] {
            if spread.count() > 0 {
                fetches.spread([reader.into(), fetch_stage_name(stage).into()], spread);
            }
        }
    }
    fetches
}

pub(super) fn spread_of<'a>(counts: impl Iterator<Item = &'a Durations>) -> Spread {
    let mut spread = Spread::default();
    counts.for_each(|counts| counts.add_to(&mut spread));
    spread
}

fn summed(counts: impl Iterator<Item = (i16, u64)>) -> std::collections::BTreeMap<i16, u64> {
    let mut sums = std::collections::BTreeMap::new();
    counts.for_each(|(key, count)| *sums.entry(key).or_default() += count);
    sums
}

pub(super) fn stage_name(stage: Stage) -> &'static str {
    match stage {
        Stage::Appended => "appended",
        Stage::Acknowledged => "acknowledged",
        Stage::Sent => "sent",
    }
}

fn fetch_stage_name(stage: FetchStage) -> &'static str {
    match stage {
        FetchStage::LookUp => "look_up",
        FetchStage::Wait => "wait",
        FetchStage::Read => "read",
        FetchStage::Send => "send",
    }
}

/// As Kafka calls it; others have their number.
pub(super) fn api_name(key: i16) -> String {
    ApiKey::try_from(key).map_or_else(|()| format!("api {key}"), |api| format!("{api:?}"))
}

/// As Kafka calls it: UNKNOWN_TOPIC_OR_PARTITION.
fn error_name(code: i16) -> String {
    let Some(error) = ResponseError::try_from_code(code) else { return "NONE".to_owned() };
    if let ResponseError::Unknown(code) = error {
        return format!("error {code}");
    }
    let mut name = String::new();
    for letter in format!("{error:?}").chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

type OfShard = (&'static Metric, fn(&ShardMetrics) -> u64);

/// One value each for every shard.
const BY_SHARD: &[OfShard] = &[
    (&metric::CONNECTIONS, |shard| shard.connections.get()),
    (&metric::CONNECTIONS_ACCEPTED, |shard| shard.accepted.get()),
    (&metric::CONNECTIONS_REFUSED, |shard| shard.refused.get()),
    (&metric::CONNECTIONS_MALFORMED, |shard| shard.malformed.get()),
    (&metric::CONNECTIONS_MOVED, |shard| shard.moved_here.get()),
    (&metric::RECEIVED_BYTES, |shard| shard.received_bytes.get()),
    (&metric::SENT_BYTES, |shard| shard.sent_bytes.get()),
    (&metric::SHARD_IO, |shard| shard.io_in_flight.get()),
    (&metric::SHARD_MESSAGES, |shard| shard.messages.get()),
    (&metric::UNSYNCED, |shard| shard.unsynced_bytes.get()),
    (&metric::SEGMENTS, |shard| shard.segments.get()),
    (&metric::STORAGE_FAILURES, |shard| shard.storage_failures.get()),
];

fn shards(sources: &Sources, series: &mut Vec<Series>) {
    let all = || (0u16..).zip(&sources.metrics.shards);
    for (metric, value) in BY_SHARD {
        let mut one = Series::of(metric);
        all().for_each(|(index, shard)| one.whole([index.into()], value(shard)));
        series.push(one);
    }
    let mut turns = Series::of(&metric::SHARD_TURNS);
    let mut used = Series::of(&metric::MEMORY_USED);
    let mut capacity = Series::of(&metric::MEMORY_CAPACITY);
    let mut reads = Series::of(&metric::CACHE_READS);
    for (index, shard) in all() {
        turns.spread([index.into()], spread_of(std::iter::once(&shard.turns)));
        for resource in Resource::ALL {
            let (bytes, total) = shard.resources.get(resource);
            used.whole([index.into(), resource.name().into()], bytes);
            capacity.whole([index.into(), resource.name().into()], total);
        }
        for (cache, outcome, count) in [
            ("tail", "hit", &shard.tail_hits),
            ("tail", "miss", &shard.tail_misses),
            ("cold", "hit", &shard.cold_hits),
            ("cold", "miss", &shard.cold_misses),
        ] {
            reads.whole([index.into(), cache.into(), outcome.into()], count.get());
        }
    }
    series.extend([turns, used, capacity, reads]);
    let Some(late) = sources.late.get() else { return };
    let mut mailboxes = Series::of(&metric::SHARD_MAILBOX);
    (0u16..).zip(&late.mailboxes).for_each(|(index, waiting)| mailboxes.whole([index.into()], waiting() as u64));
    let mut stalls = Series::of(&metric::SHARD_STALLS);
    if let Some(counter) = &late.stalls {
        all().for_each(|(index, _)| stalls.whole([index.into()], counter.of(index)));
    }
    series.extend([mailboxes, stalls]);
}

/// Of all shards together.
fn throttling(shards: &[Arc<ShardMetrics>], series: &mut Vec<Series>) {
    let mut sums: BTreeMap<(&'static str, Arc<str>), (u64, u64)> = BTreeMap::new();
    for shard in shards {
        shard.throttling.each(|quota, entity, of| {
            let (times, ms) = sums.entry((quota, entity.clone())).or_default();
            (*times, *ms) = (*times + of.times.get(), *ms + of.ms.get());
        });
    }
    let (mut throttles, mut time) = (Series::of(&metric::THROTTLES), Series::of(&metric::THROTTLE_TIME));
    for ((quota, entity), (times, ms)) in sums {
        throttles.whole([quota.into(), entity.clone().into()], times);
        time.real([quota.into(), entity.into()], ms as f64 / 1000.0);
    }
    series.extend([throttles, time]);
}

fn isr(shards: &[Arc<ShardMetrics>], series: &mut Vec<Series>) {
    let mut shrinks = Series::of(&metric::ISR_SHRINKS);
    shrinks.whole([], shards.iter().map(|shard| shard.isr_shrinks.get()).sum());
    let mut expands = Series::of(&metric::ISR_EXPANDS);
    expands.whole([], shards.iter().map(|shard| shard.isr_expands.get()).sum());
    series.extend([shrinks, expands]);
}

/// A directory that does not answer is left out.
fn log_dirs(dirs: &[PathBuf], series: &mut Vec<Series>) {
    let (mut free, mut size) = (Series::of(&metric::DIR_FREE), Series::of(&metric::DIR_SIZE));
    for dir in dirs {
        let Ok((left, all)) = probe::space(dir) else { continue };
        let label = || -> Word { dir.display().to_string().into() };
        free.whole([label()], left);
        size.whole([label()], all);
    }
    series.extend([free, size]);
}

fn clients(sources: &Sources, series: &mut Vec<Series>) {
    let mut clients = Series::of(&metric::CLIENT_CONNECTIONS);
    for (software, version, open) in sources.metrics.clients.open() {
        clients.whole([software.into(), version.into()], open);
    }
    series.push(clients);
}

fn process_facts(facts: ProcessFacts, series: &mut Vec<Series>) {
    let whole = [
        (&metric::RESIDENT, facts.resident_bytes),
        (&metric::VIRTUAL, facts.virtual_bytes),
        (&metric::THREADS, facts.threads),
        (&metric::OPEN_FDS, facts.open_fds),
        (&metric::MAX_FDS, facts.max_fds),
    ];
    for (metric, value) in whole {
        let mut one = Series::of(metric);
        value.into_iter().for_each(|value| one.whole([], value));
        series.push(one);
    }
    let real = [
        (&metric::START_TIME, facts.started),
        (&metric::CPU, facts.cpu_seconds),
        (&metric::MONITOR_CPU, thread_cpu_seconds()),
    ];
    for (metric, value) in real {
        let mut one = Series::of(metric);
        value.into_iter().for_each(|value| one.real([], value));
        series.push(one);
    }
}

#[cfg(test)]
mod tests {
    use super::super::exposition::{Format, write};
    use super::super::start::Late;
    use super::*;
    use crate::cluster::{MetadataImage, TopicImage};
    use crate::config::{ServerConfig, TopicConfig};
    use crate::groups::SurveyedGroup;
    use crate::model::{BrokerId, PartitionId};
    use crate::observe::metrics::ALL;
    use crate::shard::SurveyedPartition;
    use std::time::Duration;
    use uuid::Uuid;

    fn sources() -> Arc<Sources> {
        let config = ServerConfig {
            shards: 2,
            broker_id: 7,
            metrics_partitions: true,
            metrics_max_names: 2,
            log_dirs: vec!["/tmp".into()],
            ..ServerConfig::default()
        };
        let sources = Sources::of(&config);
        let mailboxes: Vec<Box<dyn Fn() -> usize + Send + Sync>> = vec![Box::new(|| 0), Box::new(|| 3)];
        let stalls = crate::runtime::watchdog::start(2).unwrap().first().map(|heart| heart.counter());
        let _ = sources.late.set(Late { cluster_id: "c".into(), mailboxes, stalls });
        sources
    }

    fn text_with(sources: &Sources, surveys: Option<&[Survey]>) -> String {
        String::from_utf8(write(gather(sources, Some(1.0), surveys), Format::Text).unwrap()).unwrap()
    }

    fn text(sources: &Sources) -> String {
        text_with(sources, None)
    }

    fn check(text: &str, lines: &[&str]) {
        for line in lines {
            assert!(text.lines().any(|own| own == *line), "{line} is not in\n{text}");
        }
    }

    /// Topics `a` (2 partitions, one under-replicated, one without a leader), `b` and `c`
    /// (one each) of two brokers.
    fn image() -> Arc<MetadataImage> {
        let (me, other) = (BrokerId(7), BrokerId(8));
        let mut image = MetadataImage::default();
        (image.controller, image.this) = (Some(me), Some(me));
        let partition = |leader, isr: &[BrokerId]| crate::cluster::PartitionImage {
            leader,
            replicas: vec![me, other],
            isr: isr.to_vec(),
            ..crate::cluster::PartitionImage::default()
        };
        let config = Arc::new(TopicConfig { min_insync_replicas: 2, ..TopicConfig::default() });
        for (id, name, partitions) in [
            (1, "a", vec![partition(Some(me), &[me]), partition(None, &[])]),
            (2, "b", vec![partition(Some(me), &[me, other])]),
            (3, "c", vec![partition(Some(other), &[other])]),
        ] {
            let (id, config) = (Uuid::from_u128(id), config.clone());
            image.put_topic(TopicImage { name: name.into(), id, partitions, overrides: Default::default(), config });
        }
        Arc::new(image)
    }

    fn surveys() -> Vec<Survey> {
        let partition = |topic, index, bytes, high_watermark| SurveyedPartition {
            id: PartitionId::new(Uuid::from_u128(topic), index),
            bytes,
            start_offset: 1,
            high_watermark,
            // The last tenth is of transactions that have not ended, a record each.
            last_stable_offset: high_watermark - high_watermark / 10,
            open_transactions: (high_watermark / 10) as usize,
        };
        let group = |group: &str, members, offsets: &[(&str, i32, i64)]| SurveyedGroup {
            group: group.into(),
            state: "Stable",
            members,
            offsets: offsets.iter().map(|(topic, partition, offset)| ((*topic).into(), *partition, *offset)).collect(),
        };
        let groups = vec![
            group("g", 2, &[("a", 0, 10), ("a", 1, 70), ("b", 0, 5), ("gone", 0, 3), ("c", 9, 1)]),
            group("h", 1, &[]),
            group("i", 3, &[("b", 0, 1)]),
        ];
        vec![
            Survey { image: image(), partitions: vec![partition(1, 0, 100, 30), partition(2, 0, 7, 5)], groups },
            Survey {
                image: image(),
                partitions: vec![partition(1, 1, 50, 60), partition(3, 0, 9, 8)],
                groups: Vec::new(),
            },
        ]
    }

    #[test]
    fn topics_and_groups_are_told_of_by_name_and_the_rest_together() {
        let sources = sources();
        let topic = |shard: usize, name: &str, id| sources.metrics.shards[shard].topics.of(&name.into(), id);
        topic(0, "a", 1).received_bytes.add(5);
        topic(1, "a", 1).received_bytes.add(6);
        topic(1, "c", 3).received_records.add(4);
        topic(1, "c", 99).received_records.add(1000);
        topic(0, "gone", 4).received_bytes.add(9);
        let text = text_with(&sources, Some(&surveys()));
        check(
            &text,
            &[
                "corelane_topic_received_bytes_total{topic=\"a\"} 11",
                "corelane_topic_received_bytes_total{topic=\"b\"} 0",
                // An earlier topic of the name counts no more.
                "corelane_topic_received_records_total{topic=\"(others)\"} 0",
                "corelane_topic_log_bytes{topic=\"a\"} 150",
                "corelane_topic_log_bytes{topic=\"(others)\"} 9",
                "corelane_topic_partitions{topic=\"a\"} 2",
                // Of partitions that are led here.
                "corelane_topic_open_transactions{topic=\"a\"} 3",
                "corelane_topic_last_stable_lag_records{topic=\"a\"} 3",
                "corelane_topic_last_stable_lag_records{topic=\"(others)\"} 0",
                "corelane_partition_replicas 4",
                "corelane_partition_leaders 2",
                "corelane_under_replicated_partitions 1",
                "corelane_under_min_isr_partitions 1",
                "corelane_offline_partitions 1",
                "corelane_active_controller 1",
                "corelane_groups{state=\"Stable\"} 3",
                "corelane_group_members{group=\"g\"} 2",
                "corelane_group_members{group=\"(others)\"} 3",
                "corelane_group_lag_records{group=\"g\",topic=\"a\"} 20",
                "corelane_group_lag_records{group=\"g\",topic=\"b\"} 0",
                "corelane_group_lag_records{group=\"(others)\",topic=\"b\"} 4",
                "corelane_group_partition_lag_records{group=\"g\",topic=\"a\",partition=\"0\"} 20",
                "corelane_partition_high_watermark{topic=\"a\",partition=\"1\"} 60",
                "corelane_partition_log_bytes{topic=\"b\",partition=\"0\"} 7",
            ],
        );
        assert!(!text.contains("gone") && !text.contains("topic=\"c\""), "{text}");
    }

    #[test]
    fn requests_of_all_shards_add_up() {
        let sources = sources();
        for shard in &sources.metrics.shards {
            shard.api(0).note_request(13, 100);
            shard.api(0).note_error(3);
            shard.appended.record(Duration::from_millis(1));
            shard.acknowledged.record(Duration::from_millis(2));
            shard.api(0).sent.record(Duration::from_millis(3));
            shard.connections.set(5);
            shard.consumer_fetches.of(FetchStage::Wait).record(Duration::from_millis(500));
        }
        let text = text(&sources);
        let lines = [
            "corelane_requests_total{api=\"Produce\",version=\"13\"} 2",
            "corelane_request_bytes_total{api=\"Produce\"} 200",
            "corelane_request_errors_total{api=\"Produce\",error=\"UNKNOWN_TOPIC_OR_PARTITION\"} 2",
            "corelane_request_stage_seconds_count{api=\"Produce\",stage=\"acknowledged\"} 2",
            "corelane_fetch_stage_seconds_count{reader=\"consumer\",stage=\"wait\"} 2",
            "corelane_connections{shard=\"1\"} 5",
            "corelane_shard_mailbox_messages{shard=\"1\"} 3",
            "corelane_broker_info{broker=\"7\",cluster=\"c\"} 1",
            "corelane_ready 0",
        ];
        check(&text, &lines);
    }

    #[test]
    fn every_metric_of_the_table_is_told_where_there_is_anything_to_tell() {
        let sources = sources();
        sources.metrics.shards[0].api(3).note_request(12, 10);
        sources.metrics.shards[0].api(3).note_error(5);
        sources.metrics.shards[0].api(3).sent.record(Duration::from_millis(1));
        sources.metrics.shards[0].follower_fetches.of(FetchStage::Read).record(Duration::from_millis(1));
        let _software = sources.metrics.clients.count("a", "b");
        sources.metrics.shards[1].throttling.of("request_percentage", "user=u").note(1500);
        let text = text_with(&sources, Some(&surveys()));
        let untold: Vec<_> = ALL.iter().filter(|metric| !text.contains(&format!("# TYPE {} ", metric.name))).collect();
        assert!(untold.is_empty(), "{untold:?}");
    }

    #[test]
    fn names_are_kafkas() {
        assert_eq!((api_name(1), api_name(125)), ("Fetch".to_owned(), "api 125".to_owned()));
        assert_eq!(error_name(6), "NOT_LEADER_OR_FOLLOWER");
        assert_eq!(error_name(-1), "UNKNOWN_SERVER_ERROR");
    }
}
