//! A follower's log: the leader's answers carried out on it.

use std::rc::Rc;

use bytes::Bytes;

use super::follower::{LeaderAnswer, NextFetch, Step};
use super::replica::Replica;
use super::waiters::AckWait;
use crate::model::LeaderEpoch;
use crate::observe::client_line;
use crate::storage::{ReplicateError, StorageError, TruncateError};

/// Consequence of an answer of the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Followed {
    /// The next fetch, once all is written.
    Next,
    /// As well: the log was cut, or begun anew. `committed`: below the own high watermark.
    Cut { committed: bool },
    /// The same fetch, after a pause.
    Later,
    /// The role has ended, or the log takes nothing more.
    Over,
}

impl Replica {
    /// Carries out what the leader's `answer` to a fetch of `epoch` asks for; `records`: its
    /// batches, back to back. No role begins meanwhile.
    pub async fn carry_out(
        self: &Rc<Self>,
        epoch: LeaderEpoch,
        answer: LeaderAnswer,
        records: Bytes,
        now_ms: i64,
    ) -> Followed {
        let Some(step) = self.answered(epoch, &answer) else { return Followed::Over };
        let _moving = self.begin_move();
        match step {
            Step::Append { begin, high_watermark, start } => {
                if let Some(begin) = begin
                    && let Err(error) = self.truncate_fully_and_start_at(begin).await
                {
                    return self.storage_failed("beginning the log at the leader's first batch", &error);
                }
                let bytes = records.len() as u64;
                if let Err(error) = self.append_as_is(records, now_ms).await {
                    return self.not_appended(&error);
                }
                self.starved.set(false);
                self.traffic.replicated_in_bytes.add(bytes);
                self.take_start(self.heed(epoch, high_watermark, start)).await
            }
            Step::Cut { to, committed } => self.cut(to, committed, now_ms).await,
            Step::Reset { begin } => {
                let (start, end) = (self.start_offset(), self.log.next_offset());
                tracing::warn!(
                    topic = %self.topic, partition = %self.id.index,
                    "the leader's log begins at {begin}, and has nothing of offsets {start} to {end} here: begun anew there"
                );
                let committed = begin < self.high_watermark();
                match self.truncate_fully_and_start_at(begin).await {
                    Ok(()) => Followed::Cut { committed },
                    Err(error) => self.storage_failed("beginning the log anew", &error),
                }
            }
            Step::Retry | Step::Wait => Followed::Later,
            Step::Refuse { first, end } => {
                client_line!(
                    error, topic = %self.topic, partition = %self.id.index,
                    "the leader sent records from offset {first}, before the end of the log ({end}): not taken"
                );
                Followed::Later
            }
        }
    }

    /// Empties a follower's log in which records are missing: the leader has all of them. Not while
    /// this replica is counted on.
    pub async fn mend_damage(self: &Rc<Self>) -> Followed {
        if !self.is_damaged() {
            return Followed::Next;
        }
        let (start, end) = (self.start_offset(), self.log.next_offset());
        if let Err(error) = self.truncate_fully_and_start_at(0).await {
            return self.storage_failed("emptying a damaged log", &error);
        }
        self.damaged.set(false);
        self.log.forget_damage();
        tracing::warn!(
            topic = %self.topic, partition = %self.id.index,
            "the log from offset {start} to {end} is damaged: it is fetched anew from the leader"
        );
        Followed::Next
    }

    /// The fetch that is due by the log as it is now; `None`: part of it is not acknowledged
    /// yet, or this is no follower.
    pub fn fetch_due(&self) -> Option<NextFetch> {
        self.moved();
        self.next_fetch()
    }

    /// Resolves when everything appended is acknowledged, or never will be in this role.
    pub async fn settled(&self) {
        let wait = Rc::new(AckWait::default());
        self.expect_ack(self.log.next_offset(), &wait);
        wait.settled().await;
    }

    fn not_appended(&self, error: &ReplicateError) -> Followed {
        match error {
            ReplicateError::Storage(error) => {
                self.starved.set(error.is_full());
                self.storage_failed("appending", error)
            }
            ReplicateError::NotSound { .. } | ReplicateError::DoesNotFollow { .. } => {
                client_line!(
                    error, topic = %self.topic, partition = %self.id.index,
                    "records of the leader were not taken, and are fetched again: {error}"
                );
                Followed::Later
            }
        }
    }

    async fn cut(self: &Rc<Self>, to: i64, committed: Option<i64>, now_ms: i64) -> Followed {
        let end = self.log.next_offset();
        // Said as an error otherwise, once it is done.
        if committed.is_none() {
            tracing::info!(
                topic = %self.topic, partition = %self.id.index,
                "offsets {to} to {end} were never committed and are not in the leader's log: cut off"
            );
        }
        match self.truncate_to(to, now_ms).await {
            Ok(_) => Followed::Cut { committed: committed.is_some() },
            Err(TruncateError::Storage(error)) => self.storage_failed("truncating the log", &error),
            Err(error @ TruncateError::Read(_)) => {
                client_line!(error, topic = %self.topic, partition = %self.id.index, "the log was not cut: {error}");
                Followed::Later
            }
        }
    }

    /// Has the log begin where the leader's does.
    async fn take_start(&self, begin: Option<i64>) -> Followed {
        let Some(begin) = begin else { return Followed::Next };
        match self.move_start(begin).await {
            Ok(()) => Followed::Next,
            Err(error) => self.storage_failed("moving the log's start", &error),
        }
    }

    /// A log that has ended is opened anew by the shard, or offline; both are logged there.
    /// Any other failure passes.
    fn storage_failed(&self, what: &str, error: &StorageError) -> Followed {
        if self.failure().is_some() {
            return Followed::Over;
        }
        client_line!(error, topic = %self.topic, partition = %self.id.index, "{what}: {error}; tried again");
        Followed::Later
    }
}
