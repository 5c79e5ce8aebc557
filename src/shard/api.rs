//! The words of the requests a connection makes to the shards; no protocol
//! messages below this line.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use crate::model::records::BadRecord;
use crate::model::{BrokerId, ErrorCode, LeaderEpoch, PartitionId};
use crate::observe::metrics::Traffic;
use crate::runtime::SendRoom;
use crate::runtime::clock::Moment;

/// One partition's share of a produce request.
#[derive(Clone, Debug)]
pub struct ProducePart {
    pub partition: PartitionId,
    /// The records field as it arrived: exactly one batch, not yet checked.
    pub records: Bytes,
}

/// The outcome for one [`ProducePart`].
#[derive(Clone, Debug)]
pub struct ProduceOutcome {
    pub error: ErrorCode,
    /// A sentence for the client, when there is something to add to the code.
    pub message: Option<String>,
    /// The records that are to blame, where single ones are.
    pub bad_records: Vec<BadRecord>,
    /// -1 on errors.
    pub base_offset: i64,
    /// -1 unless message.timestamp.type=LogAppendTime.
    pub log_append_time_ms: i64,
    /// -1 on errors.
    pub log_start_offset: i64,
}

/// One partition of a fetch.
#[derive(Clone, Debug)]
pub struct FetchPart {
    pub partition: PartitionId,
    pub offset: i64,
    pub max_bytes: u32,
    /// Leader epoch that the client believes in; `None`: it does not say.
    pub current_leader_epoch: Option<LeaderEpoch>,
    pub reader: Reader,
    /// The rack of a consumer that may be sent to another replica (KIP-392).
    pub rack: Option<Arc<str>>,
}

/// The kind of a fetch's sender, by its replica id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// Reads what is committed, from the leader; one with a rack from any replica.
    Consumer,
    /// As well, and of transactions only what is decided (`isolation.level=read_committed`).
    CommittedConsumer,
    /// Kafka's tool that compares replicas: reads any of them up to its end.
    Verifier,
    Follower {
        broker: BrokerId,
        /// -1: it does not say.
        broker_epoch: i64,
        /// Of the record before the offset; `None`: its log is empty.
        last_epoch: Option<i32>,
        /// False once the fetch has been noted: it waits here since.
        arrives: bool,
    },
}

/// A whole fetch.
#[derive(Clone, Debug)]
pub struct FetchPlan {
    pub parts: Vec<FetchPart>,
    pub max_bytes: u32,
    pub min_bytes: u32,
    pub max_wait_ms: u32,
    /// When the wait begins.
    pub begun: Moment,
    /// Room of the connection that asks.
    pub room: SendRoom,
}

/// The outcome for one [`FetchPart`].
#[derive(Clone, Debug)]
pub struct FetchOutcome {
    pub error: ErrorCode,
    /// -1 on errors.
    pub high_watermark: i64,
    /// -1 on errors.
    pub last_stable_offset: i64,
    /// -1 on errors.
    pub log_start_offset: i64,
    /// To a reader of committed transactions: producer and first offset of those among the
    /// records that were aborted.
    pub aborted: Option<Vec<(i64, i64)>>,
    /// Whole batches back to back, in slices of the buffers the log holds; the first may begin
    /// before the asked offset.
    pub records: Vec<Bytes>,
    /// There is more to read right now, beyond what fitted.
    pub more: bool,
    /// Bytes of the buffers that `records` keep alive.
    pub held_bytes: usize,
    /// Size of the first batch to read, where that alone was beyond the limit; otherwise 0.
    pub needed_bytes: usize,
    /// To a follower whose log is another: an epoch that the leader knows, and its end.
    pub diverging: Option<(i32, i64)>,
    /// The replica to read from instead of this one.
    pub preferred_replica: Option<BrokerId>,
    /// Where to count what of `records` is sent; only with records.
    pub traffic: Option<Arc<Traffic>>,
}

impl FetchOutcome {
    /// Without records.
    pub fn quiet(high_watermark: i64, log_start_offset: i64) -> FetchOutcome {
        FetchOutcome {
            error: ErrorCode::None,
            high_watermark,
            last_stable_offset: high_watermark,
            log_start_offset,
            aborted: None,
            records: Vec::new(),
            more: false,
            held_bytes: 0,
            needed_bytes: 0,
            diverging: None,
            preferred_replica: None,
            traffic: None,
        }
    }

    pub fn failed(error: ErrorCode) -> FetchOutcome {
        FetchOutcome { error, last_stable_offset: -1, ..FetchOutcome::quiet(-1, -1) }
    }

    /// There is something to tell at once, besides the records.
    pub fn has_news(&self) -> bool {
        self.error != ErrorCode::None || self.more || self.diverging.is_some() || self.preferred_replica.is_some()
    }

    /// Takes the records out: they are to be read another time.
    pub fn put_off(&mut self) {
        self.more |= !self.records.is_empty();
        self.records = Vec::new();
        self.aborted = self.aborted.take().map(|_| Vec::new());
        self.held_bytes = 0;
    }

    /// Copies the records, so that they keep nothing else alive.
    pub fn detach(&mut self) {
        if self.held_bytes > self.bytes() {
            self.records = vec![Bytes::from(self.records.concat())];
            self.held_bytes = self.bytes();
        }
    }

    pub fn bytes(&self) -> usize {
        self.records.iter().map(Bytes::len).sum()
    }
}

/// Question of ListOffsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetQuery {
    /// -1
    Latest,
    /// -2
    Earliest,
    /// -3 (KIP-734): the record with the largest timestamp.
    MaxTimestamp,
    /// -4 (KIP-405): the earliest offset on the local disk.
    EarliestLocal,
    /// -5 (KIP-1005): the highest offset in tiered storage; there is none.
    LatestTiered,
    /// The first record whose timestamp is this or later, ms.
    Timestamp(i64),
}

/// The outcome of an [`OffsetQuery`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetOutcome {
    pub error: ErrorCode,
    /// -1: none (or not applicable).
    pub timestamp_ms: i64,
    /// -1: none.
    pub offset: i64,
    /// -1: unknown.
    pub leader_epoch: i32,
}

/// The outcome of OffsetForLeaderEpoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEndOutcome {
    pub error: ErrorCode,
    /// The largest epoch not above the asked one; -1: none.
    pub leader_epoch: i32,
    /// The offset after that epoch's last record; -1: none.
    pub end_offset: i64,
}

/// One data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogDirOutcome {
    pub path: PathBuf,
    /// Bytes that may still be written on its file system, and the size of that; `None`:
    /// the directory has failed.
    pub space: Option<(u64, u64)>,
    /// It gets no new partitions (KIP-1066).
    pub cordoned: bool,
    /// Partitions in it, and the bytes of their segments.
    pub partitions: Vec<(PartitionId, u64)>,
    /// Copies of partitions that are being moved here: their bytes, and the offsets that they lack.
    pub future: Vec<(PartitionId, u64, i64)>,
}

/// One topic of a DeleteTopics request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopicRef {
    Name(String),
    Id(Uuid),
}
