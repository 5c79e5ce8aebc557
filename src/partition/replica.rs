//! One partition on this shard: the facade over its log, its producers and those who wait for it.

use std::cell::{Cell, RefCell};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use super::epochs::{EpochEvidence, EpochHistory};
use super::producer_pool::ProducerPool;
use super::producer_state::{ProducerStates, SequenceCheck};
use super::role::{Start, Term};
use super::stable;
use super::standing::{Acknowledging, Standing};
use super::transactions::Transactions;
use super::validate::CheckedBatch;
use super::verification::{Verifications, Verified};
use super::waiters::DataWaiter;
use super::watermarks::Watermarks;
use crate::config::TopicConfig;
use crate::model::record_batch::BatchHeader;
use crate::model::records::BadRecord;
use crate::model::{ErrorCode, KnownProducer, LeaderEpoch, PartitionId};
use crate::observe::client_line;
use crate::observe::metrics::{ShardMetrics, Traffic};
use crate::storage::{Log, LogRead, Looked, PartitionKey, ReadError, StorageContext, StorageError, files};

/// A batch that has its place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    pub base_offset: i64,
    /// Committed once the high watermark reaches this.
    pub next_offset: i64,
    /// -1 unless message.timestamp.type=LogAppendTime.
    pub log_append_time_ms: i64,
    /// The leadership that it was accepted in.
    pub term: Term,
    /// Cuts of the log before it was accepted.
    pub(super) cuts: u32,
}

/// A batch that was refused, and why; nothing of it was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Rejected {
    pub code: ErrorCode,
    pub message: String,
    /// The records that are to blame, where single ones are.
    pub records: Vec<BadRecord>,
}

impl Rejected {
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Rejected {
        Rejected { code, message: message.into(), records: Vec::new() }
    }
}

/// One partition. Lives on the shard that owns it.
pub struct Replica {
    pub id: PartitionId,
    pub topic: Arc<str>,
    pub(super) log: Rc<Log>,
    pub(super) leader_epoch: Cell<LeaderEpoch>,
    pub(super) epochs: RefCell<EpochHistory>,
    /// The file of epochs is not what they are; checkpoints save them first.
    pub(super) epochs_unsaved: Cell<bool>,
    pub(super) epochs_file: files::Replaced,
    pub(super) producers: RefCell<ProducerStates>,
    pub(super) verifications: RefCell<Verifications>,
    /// Records were missing, or set aside, when the log was opened.
    pub(super) damaged: Rc<Cell<bool>>,
    /// The leader's last records found no room.
    pub(super) starved: Cell<bool>,
    pub(super) standing: Rc<Standing>,
    /// Of the topic's partitions on this shard.
    pub traffic: Arc<Traffic>,
}

/// State shared by the replicas of one shard.
#[derive(Clone)]
pub struct Shared {
    pub storage: Rc<StorageContext>,
    pub producers: Rc<ProducerPool>,
    pub metrics: Arc<ShardMetrics>,
}

/// Result of opening a replica.
pub struct Opened {
    pub replica: Rc<Replica>,
    /// Bytes of the log that had to be read and checked.
    pub scanned_bytes: u64,
}

impl Replica {
    /// Opens (or makes) the partition's directory.
    pub async fn open(
        shared: Shared,
        dir: &Path,
        id: PartitionId,
        topic: Arc<str>,
        start: impl Into<Start>,
        config: Arc<TopicConfig>,
        now_ms: i64,
    ) -> io::Result<Opened> {
        let looked = Looked::find(&shared.storage, dir, Some(EpochHistory::FILE)).await?;
        Replica::open_looked(shared, dir, looked, (id, topic), start, config, now_ms).await
    }

    /// Looks at a partition's directory, as [`open_looked`](Self::open_looked) wants it. `whole`:
    /// see [`Looked::at`]. Blocks.
    pub fn look_at_dir(dir: &Path, sidecar_limit: usize, whole: bool) -> io::Result<Looked> {
        Looked::at(dir, sidecar_limit, Some(EpochHistory::FILE), whole)
    }

    /// [`open`](Self::open) of a directory that has been looked at. Nothing may
    /// have changed there since.
    pub async fn open_looked(
        shared: Shared,
        dir: &Path,
        mut looked: Looked,
        (id, topic): (PartitionId, Arc<str>),
        start: impl Into<Start>,
        config: Arc<TopicConfig>,
        now_ms: i64,
    ) -> io::Result<Opened> {
        let start = start.into();
        let newest_epoch = match start {
            Start::Alone(epoch) => epoch,
            // Metadata that is older than the log must be noticed.
            Start::Member { .. } => LeaderEpoch(i32::MAX),
        };
        let producers = RefCell::new(ProducerStates::new(&shared.producers));
        let transactions = RefCell::new(Transactions::default());
        let evidence = RefCell::new(EpochEvidence::default());
        let storage = shared.storage;
        let text = looked.take_text();
        let recovered = Log::open_looked(
            storage.clone(),
            dir,
            looked,
            config,
            &mut |sidecar| {
                let (epochs, states) = split_sidecar(sidecar);
                evidence.borrow_mut().checkpointed = epochs;
                if producers.borrow_mut().restore(states).is_err() {
                    tracing::warn!(dir = %dir.display(), "the checkpoint's producer state is unreadable: going on with what could be read");
                }
                let open = producers.borrow().open_transactions();
                transactions.borrow_mut().cut(i64::MIN, open.into_iter());
            },
            &mut |batch| {
                evidence.borrow_mut().saw(batch.partition_leader_epoch.get(), batch.base(), newest_epoch.0);
                if batch.is_idempotent() {
                    stable::recover(&mut producers.borrow_mut(), &mut transactions.borrow_mut(), batch, now_ms);
                }
            },
        )
        .await?;
        let log = recovered.log;
        if let Some(arena) = storage.arena_of(dir) {
            log.write_behind(arena, PartitionKey { topic: id.topic, partition: id.index.0 });
        }
        let text = text?;
        let begins = match start {
            Start::Alone(epoch) => Some((epoch, recovered.last_stop)),
            Start::Member { .. } => None,
        };
        let begun = evidence.take().begin(text.as_deref(), begins, log.next_offset());
        if let Some(why) = begun.damage {
            tracing::error!(file = %dir.join(EpochHistory::FILE).display(), "{why}: made anew from the checkpoint and the log");
        }
        // A sound file may lag behind: what it lacks is found again. Ten thousand of
        // them would hold up a start.
        let mut unsaved = begun.changed;
        if begun.changed && (begun.damage.is_some() || text.is_none()) {
            match files::replace(dir, EpochHistory::FILE, begun.history.format()).await {
                Err(error) if !files::is_full(&error) => return Err(error),
                outcome => unsaved = outcome.is_err(),
            }
        }
        let (epochs, leader_epoch) = (begun.history, begun.epoch);
        let acknowledging = Acknowledging::by(&log.config());
        let (membership, noted) = match start {
            // Of the only replica everything that the log has.
            Start::Alone(_) => (None, i64::MAX),
            Start::Member { membership, high_watermark } => (Some(membership), high_watermark),
        };
        let watermarks = Watermarks::opened(acknowledging.ends(&log, log.start_offset()), noted);
        let watermarks = watermarks.map_err(io::Error::other)?;
        let transactions = transactions.into_inner();
        let standing = Rc::new(Standing::new(watermarks, transactions, acknowledging, membership, &log));
        let (moved, watched) = (standing.clone(), Rc::downgrade(&log));
        log.on_move(Box::new(move || {
            if let Some(log) = watched.upgrade() {
                moved.log_moved(&log);
            }
        }));
        let damaged = Rc::new(Cell::new(recovered.damaged));
        let (hurt, of, named) = (damaged.clone(), Rc::downgrade(&standing), dir.to_path_buf());
        log.on_damage(Box::new(move || {
            let others_have_it = of.upgrade().is_some_and(|standing| standing.hand_over_damaged());
            if others_have_it && !hurt.replace(true) {
                tracing::error!(
                    dir = %named.display(),
                    "the log is damaged: leadership is given up, and the log is fetched anew from the next leader"
                );
            }
            others_have_it
        }));
        let replica = Replica {
            id,
            traffic: shared.metrics.topics.of(&topic, id.topic.as_u128()),
            topic,
            log,
            leader_epoch: Cell::new(leader_epoch),
            epochs: RefCell::new(epochs),
            epochs_unsaved: Cell::new(unsaved),
            epochs_file: files::Replaced::default(),
            damaged,
            starved: Cell::new(false),
            producers,
            verifications: RefCell::default(),
            standing,
        };
        if recovered.damaged {
            // So that what was set aside, and the gap it leaves, is behind the next start.
            // Where that fails it is told, and done later.
            let _ = replica.checkpoint().await;
        }
        Ok(Opened { replica: Rc::new(replica), scanned_bytes: recovered.scanned_bytes })
    }

    /// Everything before this is committed and may be read.
    pub fn high_watermark(&self) -> i64 {
        self.standing.watermarks.get().high_watermark()
    }

    /// Everything before this is acknowledged by this replica.
    pub fn acknowledged(&self) -> i64 {
        self.standing.watermarks.get().ends().acknowledged
    }

    pub fn start_offset(&self) -> i64 {
        self.log.start_offset()
    }

    pub fn failure(&self) -> Option<StorageError> {
        self.log.failure()
    }

    /// Why the partition has no leader; `None`: it has one. Readers that ask all the same still
    /// get what was acknowledged.
    pub fn offline_reason(&self) -> Option<Arc<str>> {
        match self.log.failure()? {
            StorageError::Failed(why) => Some(why),
            StorageError::Full(_) | StorageError::Closed => None,
        }
    }

    /// The log found no room on the disk: the partition takes no records until it is opened anew.
    /// It is read as before, and consumers at its end wait.
    pub fn is_full(&self) -> bool {
        self.log.failure().is_some_and(|failure| failure.is_full())
    }

    /// Another replica of the same partition has taken this one's place: waiters look there.
    pub fn replaced(&self) {
        self.standing.waiters.data.fire();
        self.standing.waiters.stable.fire();
    }

    /// Records are missing, and are not fetched anew yet.
    pub fn is_damaged(&self) -> bool {
        self.damaged.get()
    }

    /// A follower that takes nothing from its leader at present, for want of room.
    pub fn is_starved(&self) -> bool {
        self.starved.get() && self.followed().is_some()
    }

    pub fn log(&self) -> &Rc<Log> {
        &self.log
    }

    /// Takes over new topic settings; on a broker without a cluster the leader epoch as well.
    pub fn update(&self, config: Arc<TopicConfig>, leader_epoch: LeaderEpoch) {
        self.standing.acknowledging.set(Acknowledging::by(&config));
        self.log.set_config(config);
        if self.standing.membership.is_none() && self.leader_epoch.replace(leader_epoch) != leader_epoch {
            self.standing.waiters.data.fire();
            self.standing.waiters.stable.fire();
        }
    }

    /// Checks a batch's sequence and fixes its place; `for_all`: the whole ISR is to acknowledge
    /// it. Returns at once; [`expect_ack`](Self::expect_ack) and
    /// [`expect_commit`](Self::expect_commit) wait.
    pub fn append(
        &self,
        batch: CheckedBatch,
        verified: Verified,
        for_all: bool,
        now_ms: i64,
    ) -> Result<Accepted, Rejected> {
        self.may_append(for_all)?;
        let (term, cuts) = (self.term(), self.standing.cuts.get().count());
        let (header, log_append_time_ms) = (*batch.header(), batch.log_append_time_ms());
        if header.is_idempotent() {
            match self.producers.borrow().check(&header) {
                SequenceCheck::Next => {}
                SequenceCheck::Duplicate { base_offset, next_offset } => {
                    return Ok(Accepted { base_offset, next_offset, log_append_time_ms: -1, term, cuts });
                }
                SequenceCheck::Refused(code) => return Err(self.refused_sequence(code, &header)),
            }
            if header.is_transactional() {
                self.is_verified(&header, verified)?;
                self.may_join_transaction(&header)?;
            }
        }
        let appended = self.log.append(batch.into_bytes(), self.leader_epoch.get().0, now_ms).map_err(storage_error)?;
        self.note_received(&header);
        if header.is_idempotent() && self.producers.borrow_mut().note(&header, appended.base_offset, now_ms) {
            self.transaction_begins(&header, appended.base_offset);
        }
        let (base_offset, next_offset) = (appended.base_offset, appended.next_offset);
        Ok(Accepted { base_offset, next_offset, log_append_time_ms, term, cuts })
    }

    /// Appends a batch that the broker has made itself: sound, without a sequence, of any size. One
    /// with a producer is part of its transaction. As [`append`](Self::append).
    pub fn append_own(&self, records: Bytes, now_ms: i64) -> Result<Accepted, Rejected> {
        self.may_append(false)?;
        let header = BatchHeader::peek(&records).copied();
        let in_txn = header.filter(BatchHeader::is_idempotent);
        if let Some(header) = &in_txn {
            self.producers.borrow().check_epoch(header).map_err(|code| self.refused_sequence(code, header))?;
            self.may_join_transaction(header)?;
        }
        let appended = self.log.append(records, self.leader_epoch.get().0, now_ms).map_err(storage_error)?;
        if let Some(header) = &header {
            self.note_received(header);
        }
        if let Some(header) = &in_txn
            && self.producers.borrow_mut().note(header, appended.base_offset, now_ms)
        {
            self.transaction_begins(header, appended.base_offset);
        }
        let (base_offset, next_offset) = (appended.base_offset, appended.next_offset);
        let (term, cuts) = (self.term(), self.standing.cuts.get().count());
        Ok(Accepted { base_offset, next_offset, log_append_time_ms: -1, term, cuts })
    }

    pub(super) fn note_received(&self, header: &BatchHeader) {
        self.traffic.received_bytes.add(u64::try_from(header.total_bytes()).unwrap_or_default());
        self.traffic.received_records.add(u64::try_from(header.record_count.get()).unwrap_or_default());
    }

    pub(super) fn refused_sequence(&self, code: ErrorCode, header: &BatchHeader) -> Rejected {
        let message = format!(
            "producer {} epoch {} sequence {} in {}-{} does not follow what was written",
            header.producer_id, header.producer_epoch, header.base_sequence, self.topic, self.id.index
        );
        Rejected::new(code, message)
    }

    /// Fires `waiter` when the high watermark moves past `seen`, or the partition fails or
    /// goes, or is led elsewhere.
    pub fn expect_data(&self, seen: i64, waiter: &Rc<DataWaiter>) {
        if self.high_watermark() > seen
            || self.led_epoch().is_none()
            || self.log.failure().is_some_and(|failure| !failure.is_full())
        {
            waiter.fire();
        } else {
            self.standing.waiters.data.add(waiter);
        }
    }

    /// Whole batches from `offset` on, up to the high watermark. At the end of a partition that
    /// takes no more records, why.
    pub async fn read(&self, offset: i64, max_bytes: usize, at_least_one: bool) -> Result<LogRead, ErrorCode> {
        self.read_visible(offset, self.high_watermark(), max_bytes, at_least_one).await
    }

    /// As [`read`](Self::read), up to `limit`.
    pub(super) async fn read_visible(
        &self,
        offset: i64,
        limit: i64,
        max_bytes: usize,
        at_least_one: bool,
    ) -> Result<LogRead, ErrorCode> {
        let read = self.log.read(offset, limit, max_bytes, at_least_one).await;
        let read = read.map_err(|error| self.read_error(error))?;
        match self.log.failure() {
            Some(failure) if !failure.is_full() && read.records.is_empty() && !read.more => {
                Err(storage_error(failure).code)
            }
            _ => Ok(read),
        }
    }

    /// Outcome of a read up to `limit` without room for a single byte.
    pub fn look(&self, offset: i64, limit: i64) -> Result<LogRead, ErrorCode> {
        if offset < self.start_offset() || offset > self.log.next_offset() {
            return Err(ErrorCode::OffsetOutOfRange);
        }
        Ok(LogRead { more: offset < limit, ..LogRead::default() })
    }

    pub(super) fn read_error(&self, error: ReadError) -> ErrorCode {
        match error {
            ReadError::OutOfRange { .. } => ErrorCode::OffsetOutOfRange,
            ReadError::Io(_) | ReadError::Damaged { .. } => {
                client_line!(error, topic = %self.topic, partition = %self.id.index, "{error}");
                ErrorCode::KafkaStorageError
            }
        }
    }

    /// The epoch that the partition's records are written in.
    pub fn leader_epoch(&self) -> LeaderEpoch {
        self.leader_epoch.get()
    }

    /// State that the checkpoint keeps for the partition: a copy of the epochs'
    /// file, then the producers.
    pub(super) fn sidecar(&self) -> Vec<u8> {
        let epochs = self.epochs.borrow().format();
        let mut out = EPOCHS_MARK.to_vec();
        out.extend_from_slice(&u32::try_from(epochs.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(epochs.as_bytes());
        out.extend_from_slice(&self.producers.borrow().encode());
        out
    }

    /// Syncs, and remembers the place and the producers for the next start.
    pub async fn checkpoint(&self) -> Result<(), StorageError> {
        self.save_new_epochs().await;
        self.log.checkpoint(|| self.sidecar()).await
    }

    /// Writes the file of epochs if it is not what they are.
    pub async fn save_new_epochs(&self) {
        if self.epochs_unsaved.get() {
            self.save_epochs().await;
        }
    }

    /// Bytes that a start after a crash would have to read.
    pub fn bytes_to_recover(&self) -> u64 {
        self.log.bytes_to_recover()
    }

    /// Shows `look` each producer, the one with the newest batch first.
    pub fn each_producer(&self, look: impl FnMut(KnownProducer)) {
        self.producers.borrow().each(look);
    }

    /// Forgets producers idle for `limit_ms`.
    pub fn expire_producers(&self, now_ms: i64, limit_ms: i64) {
        self.producers.borrow_mut().expire(now_ms, limit_ms);
    }

    /// Applies the topic's retention.
    pub async fn enforce_retention(&self, now_ms: i64) -> Result<(), StorageError> {
        self.save_new_epochs().await;
        if self.log.enforce_retention(now_ms, self.high_watermark(), || self.sidecar()).await? {
            self.start_moved();
        }
        Ok(())
    }

    /// Moves the log start to `offset`, or without one to the high watermark, for good; returns the
    /// log start. An offset before it changes nothing.
    pub async fn delete_records(&self, offset: Option<i64>) -> Result<i64, ErrorCode> {
        if !self.log.config().cleanup_delete {
            return Err(ErrorCode::PolicyViolation);
        }
        self.save_new_epochs().await;
        // Not before: the log may have been cut back meanwhile.
        let end = self.high_watermark();
        let to = offset.unwrap_or(end);
        if !(0..=end).contains(&to) {
            return Err(ErrorCode::OffsetOutOfRange);
        }
        self.log.trim(to, || self.sidecar()).await.map_err(|error| storage_error(error).code)?;
        self.start_moved();
        Ok(self.start_offset())
    }

    /// Has the log begin at `begin`, as its leader's does; the high watermark is there already.
    pub(super) async fn move_start(&self, begin: i64) -> Result<(), StorageError> {
        self.save_new_epochs().await;
        self.log.trim(begin, || self.sidecar()).await?;
        self.start_moved();
        Ok(())
    }

    /// The log start has moved, and the last stable offset with it where records of an
    /// open transaction are gone.
    fn start_moved(&self) {
        self.standing.waiters.moved(self.high_watermark());
        self.standing.waiters.stable.fire();
    }

    /// The log has been cut to `end`.
    pub(super) fn was_cut(&self, end: i64) {
        let mut watermarks = self.standing.watermarks.get();
        let taken_back = watermarks.cut(end);
        self.standing.watermarks.set(watermarks);
        if let Some(high_watermark) = taken_back {
            tracing::error!(
                topic = %self.topic, partition = %self.id.index, high_watermark, end,
                "the log was cut below its high watermark: records that were committed are gone, as after an unclean election"
            );
        }
        // Nothing that waits for an acknowledgement behind the end will get it.
        self.standing.cut_to(Some(end));
        self.standing.waiters.log_over(watermarks.high_watermark());
        self.transactions_cut(end);
    }

    /// The log has been emptied and begins at `begin`.
    pub(super) fn was_begun_at(&self, begin: i64) {
        let mut watermarks = self.standing.watermarks.get();
        watermarks.reset(begin);
        self.standing.watermarks.set(watermarks);
        self.standing.cut_to(None);
        self.standing.waiters.log_over(begin);
        self.transactions_cut(begin);
    }

    /// Ends a log that found no room, cut back to what was acknowledged: producers
    /// were told that the rest is not there. Returns the offset at which the next
    /// replica of the directory must end.
    pub async fn cut_back(&self) -> io::Result<i64> {
        let end = self.acknowledged();
        self.log.cut_back(end).await.map(|()| end)
    }

    /// Waits until nothing moves the log by another replica's word any more, and
    /// saves what is only in memory.
    async fn settle_to_close(&self) {
        while let Some(moves_end) = self.moves_end() {
            moves_end.await;
        }
        self.save_new_epochs().await;
    }

    /// Closes the replica cleanly, once nothing moves its log by another replica's word any more.
    pub async fn close(&self) -> Result<(), StorageError> {
        self.settle_to_close().await;
        self.log.close(|| self.sidecar()).await
    }

    /// As [`close`](Self::close); nobody gets at the directory by path any more.
    pub async fn close_to_move(&self) -> Result<(), StorageError> {
        self.settle_to_close().await;
        self.log.close_to_move(|| self.sidecar()).await
    }

    /// Ends the replica at once, as a crash would, but for the writes under way.
    pub fn abandon(&self) {
        self.log.abandon();
    }

    /// Takes the partition out of service and puts its directory away; returns the path
    /// of what is left to remove.
    pub async fn retire(&self) -> io::Result<Option<PathBuf>> {
        self.log.retire(&self.id.topic.simple().to_string()).await
    }
}

pub(super) fn storage_error(error: StorageError) -> Rejected {
    let code = match error {
        StorageError::Failed(_) | StorageError::Full(_) => ErrorCode::KafkaStorageError,
        StorageError::Closed => ErrorCode::NotLeaderOrFollower,
    };
    Rejected::new(code, error.to_string())
}

/// Begins a sidecar with epochs; older ones begin with the number of producers.
const EPOCHS_MARK: &[u8; 4] = b"EPOC";

/// The epochs and the producers' part of a sidecar.
pub(super) fn split_sidecar(sidecar: &[u8]) -> (Option<EpochHistory>, &[u8]) {
    let parts = || {
        let (length, rest) = sidecar.strip_prefix(EPOCHS_MARK)?.split_first_chunk::<4>()?;
        rest.split_at_checked(u32::from_le_bytes(*length) as usize)
    };
    match parts() {
        Some((text, rest)) => (std::str::from_utf8(text).ok().and_then(EpochHistory::parse), rest),
        None => (None, sidecar),
    }
}
