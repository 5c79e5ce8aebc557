//! Numbers of one shard, and of the process.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use super::clients::Clients;
use super::counters::{Count, Level};
use super::durations::{Durations, Spell};
use super::slow::SlowRequests;
use super::throttling::Throttling;
use super::topics::Topics;

/// Keys of APIs that are told apart; Kafka's go to 92.
const APIS: usize = 128;
/// Versions of an API that are told apart.
const VERSIONS: usize = 24;
/// Error codes that are told apart, from -1 on; Kafka's go to 133.
const ERRORS: usize = 160;

/// Memory and the like of which there is a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    Arena,
    TailCache,
    Cache,
    ColdCache,
    ReceiveMemory,
    ResponseMemory,
    GroupMemory,
    ProducerMemory,
}

impl Resource {
    pub const ALL: [Resource; 8] = [
        Resource::Arena,
        Resource::TailCache,
        Resource::Cache,
        Resource::ColdCache,
        Resource::ReceiveMemory,
        Resource::ResponseMemory,
        Resource::GroupMemory,
        Resource::ProducerMemory,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Resource::Arena => "arena",
            Resource::TailCache => "tail_cache",
            Resource::Cache => "cache",
            Resource::ColdCache => "cold_cache",
            Resource::ReceiveMemory => "receive",
            Resource::ResponseMemory => "response",
            Resource::GroupMemory => "groups",
            Resource::ProducerMemory => "producers",
        }
    }
}

/// Bytes in use and there in all, by [`Resource`].
#[derive(Debug, Default)]
pub struct Resources([(Level, Level); Resource::ALL.len()]);

impl Resources {
    pub fn set(&self, resource: Resource, used: usize, total: usize) {
        let (level, capacity) = &self.0[resource as usize];
        level.set(used as u64);
        capacity.set(total as u64);
    }

    pub fn get(&self, resource: Resource) -> (u64, u64) {
        let (level, capacity) = &self.0[resource as usize];
        (level.get(), capacity.get())
    }
}

/// How far a request has come. The clock runs from when the shard was given its last byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Produce: its batches have their places in the logs.
    Appended,
    /// Produce: acknowledged as `acks` asks.
    Acknowledged,
    /// The last byte of the answer was given to the kernel.
    Sent,
}

/// Stage in which a fetch spends its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchStage {
    /// From its last byte until it began to read.
    LookUp,
    /// For records to be there.
    Wait,
    /// Reading, from memory or from the disk.
    Read,
    /// Until the kernel had the answer.
    Send,
}

impl FetchStage {
    pub const ALL: [FetchStage; 4] = [FetchStage::LookUp, FetchStage::Wait, FetchStage::Read, FetchStage::Send];
}

/// Times that fetches of one kind of reader spent, by [`FetchStage`].
#[derive(Default)]
pub struct FetchStages([Durations; FetchStage::ALL.len()]);

impl FetchStages {
    pub fn of(&self, stage: FetchStage) -> &Durations {
        &self.0[stage as usize]
    }

    /// One fetch, ns by stage.
    #[inline]
    pub fn add(&self, ns: [u64; FetchStage::ALL.len()]) {
        for (stage, ns) in self.0.iter().zip(ns) {
            match ns {
                0 => stage.add_none(),
                _ => stage.add(Spell::of(ns)),
            }
        }
    }
}

/// Of one API.
pub struct ApiMetrics {
    requests: [Count; VERSIONS],
    pub request_bytes: Count,
    errors: [Count; ERRORS],
    pub sent: Durations,
}

impl Default for ApiMetrics {
    fn default() -> ApiMetrics {
        ApiMetrics {
            requests: std::array::from_fn(|_| Count::default()),
            request_bytes: Count::default(),
            errors: std::array::from_fn(|_| Count::default()),
            sent: Durations::default(),
        }
    }
}

impl ApiMetrics {
    /// A request has come in.
    pub fn note_request(&self, version: i16, bytes: usize) {
        let version = usize::try_from(version).unwrap_or_default().min(VERSIONS - 1);
        self.requests[version].add(1);
        self.request_bytes.add(bytes as u64);
    }

    /// An answer told of an error.
    pub fn note_error(&self, code: i16) {
        // Codes beyond are counted as -1, UNKNOWN_SERVER_ERROR.
        let place = usize::try_from(i32::from(code) + 1).unwrap_or_default();
        self.errors[if place < ERRORS { place } else { 0 }].add(1);
    }

    /// Requests by version.
    pub fn requests(&self) -> impl Iterator<Item = (i16, u64)> {
        (0..).zip(&self.requests).map(|(version, count)| (version, count.get())).filter(|(_, count)| *count > 0)
    }

    /// Errors by code.
    pub fn errors(&self) -> impl Iterator<Item = (i16, u64)> {
        (-1..).zip(&self.errors).map(|(code, count)| (code, count.get())).filter(|(_, count)| *count > 0)
    }
}

/// Of one shard, written on its thread. The alignment keeps what another shard
/// writes out of its cache lines.
#[repr(align(128))]
pub struct ShardMetrics {
    /// Time between two questions to the kernel: what tasks took together.
    pub turns: Durations,
    /// Operations on files that the kernel works on.
    pub io_in_flight: Level,
    pub received_bytes: Count,
    pub sent_bytes: Count,
    pub appended: Durations,
    pub acknowledged: Durations,
    pub consumer_fetches: FetchStages,
    pub follower_fetches: FetchStages,
    apis: [OnceLock<Box<ApiMetrics>>; APIS],
    pub connections: Level,
    pub accepted: Count,
    pub refused: Count,
    pub malformed: Count,
    /// Messages to other shards.
    pub messages: Count,
    /// Connections that came from another shard.
    pub moved_here: Count,
    pub resources: Resources,
    /// Reads of records that memory had, and that the disk was asked for.
    pub tail_hits: Count,
    pub tail_misses: Count,
    /// Pieces of logs that were read back from the disk before, and that had to be read.
    pub cold_hits: Count,
    pub cold_misses: Count,
    pub unsynced_bytes: Level,
    pub segments: Level,
    pub storage_failures: Count,
    pub isr_shrinks: Count,
    pub isr_expands: Count,
    /// The broker takes part in its cluster. Of the controller's shard.
    pub takes_part: Level,
    pub clients: Arc<Clients>,
    pub slow: SlowRequests,
    pub throttling: Throttling,
    /// By the id of a topic, as a number.
    pub topics: Topics<u128>,
}

impl ShardMetrics {
    pub fn new(clients: Arc<Clients>) -> Arc<ShardMetrics> {
        Arc::new(ShardMetrics {
            turns: Durations::default(),
            io_in_flight: Level::default(),
            received_bytes: Count::default(),
            sent_bytes: Count::default(),
            appended: Durations::default(),
            acknowledged: Durations::default(),
            consumer_fetches: FetchStages::default(),
            follower_fetches: FetchStages::default(),
            apis: std::array::from_fn(|_| OnceLock::new()),
            connections: Level::default(),
            accepted: Count::default(),
            refused: Count::default(),
            malformed: Count::default(),
            messages: Count::default(),
            moved_here: Count::default(),
            resources: Resources::default(),
            tail_hits: Count::default(),
            tail_misses: Count::default(),
            cold_hits: Count::default(),
            cold_misses: Count::default(),
            unsynced_bytes: Level::default(),
            segments: Level::default(),
            storage_failures: Count::default(),
            isr_shrinks: Count::default(),
            isr_expands: Count::default(),
            takes_part: Level::default(),
            clients,
            slow: SlowRequests::default(),
            throttling: Throttling::default(),
            topics: Topics::default(),
        })
    }

    /// Of the API with this key; of keys beyond all that there are, together.
    pub fn api(&self, key: i16) -> &ApiMetrics {
        let place = usize::try_from(key).unwrap_or(APIS - 1).min(APIS - 1);
        self.apis[place].get_or_init(Box::default)
    }

    /// APIs that were asked for anything.
    pub fn apis(&self) -> impl Iterator<Item = (i16, &ApiMetrics)> {
        (0..).zip(&self.apis).filter_map(|(key, api)| Some((key, &**api.get()?)))
    }
}

/// Of the process.
pub struct Metrics {
    pub shards: Vec<Arc<ShardMetrics>>,
    pub clients: Arc<Clients>,
    recovered: AtomicBool,
    stopping: AtomicBool,
    /// The broker is one of a cluster.
    in_cluster: bool,
}

impl Metrics {
    pub fn new(shards: u16, in_cluster: bool) -> Arc<Metrics> {
        let clients = Arc::<Clients>::default();
        let shards = (0..shards).map(|_| ShardMetrics::new(clients.clone())).collect();
        let (recovered, stopping) = (AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Metrics { shards, clients, recovered, stopping, in_cluster })
    }

    /// Every shard has its partitions and listens.
    pub fn note_recovered(&self) {
        self.recovered.store(true, Ordering::Relaxed);
    }

    pub fn is_recovered(&self) -> bool {
        self.recovered.load(Ordering::Relaxed)
    }

    /// The broker is on its way out.
    pub fn note_stopping(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Why clients are not to be sent here; `Ok`: they are.
    pub fn readiness(&self) -> Result<(), &'static str> {
        if self.stopping.load(Ordering::Relaxed) {
            return Err("the broker is stopping");
        }
        if !self.recovered.load(Ordering::Relaxed) {
            return Err("the broker is starting: its partitions are being recovered");
        }
        let takes_part = self.shards.first().is_some_and(|shard| shard.takes_part.get() > 0);
        if self.in_cluster && !takes_part {
            return Err("the broker takes no part in its cluster: it is not registered");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_is_ready_between_its_recovery_and_its_stop() {
        for in_cluster in [false, true] {
            let metrics = Metrics::new(2, in_cluster);
            assert!(metrics.readiness().unwrap_err().contains("starting"));
            metrics.note_recovered();
            assert_eq!(metrics.readiness().is_ok(), !in_cluster);
            metrics.shards[0].takes_part.set(1);
            assert_eq!(metrics.readiness(), Ok(()));
            metrics.note_stopping();
            assert!(metrics.readiness().unwrap_err().contains("stopping"));
        }
    }

    #[test]
    fn keys_versions_and_codes_beyond_the_tables_are_counted_somewhere() {
        let shard = ShardMetrics::new(Arc::default());
        for (key, version, code) in [(0, 13, 3), (0, 13, 3), (18, 4, -1), (i16::MAX, i16::MAX, i16::MAX), (-5, -1, -9)]
        {
            shard.api(key).note_request(version, 10);
            shard.api(key).note_error(code);
        }
        let requests: Vec<_> = shard.apis().map(|(key, api)| (key, api.requests().collect::<Vec<_>>())).collect();
        assert_eq!(requests, [(0, vec![(13, 2)]), (18, vec![(4, 1)]), (127, vec![(0, 1), (23, 1)])]);
        let errors: Vec<_> = shard.apis().map(|(_, api)| api.errors().collect::<Vec<_>>()).collect();
        assert_eq!(errors, [vec![(3, 2)], vec![(-1, 1)], vec![(-1, 2)]]);
    }
}
