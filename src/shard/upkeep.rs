//! Periodic work of a shard beside its requests: retention, checkpoints, word
//! of offline partitions.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::state::{CONTROLLER, Shard, producer_share};
use super::survey::SurveyDesk;
use crate::observe::metrics::Resource;
use crate::runtime::memory::HostMemory;
use crate::runtime::{clock, spawn_local};

/// Time between two looks at the memory of the host.
const CACHE_LOOK: Duration = Duration::from_secs(1);
/// Where the cache has nothing, one look in so many is enough.
const CACHE_LOOKS_AT_REST: u32 = 8;
/// Time between two lines about forgotten producers, at least.
const TELL_INTERVAL: Duration = Duration::from_secs(60);

/// A log with less than this part of `corelane.checkpoint.bytes` has no checkpoint for the shard's
/// bytes: a checkpoint costs about a millisecond of a processor, and would save a start little.
const LOGS_OF_A_LIMIT: u64 = 64;
/// From a checkpoint that failed, for which there was no room say, to the next one for bytes.
const CHECKPOINT_RETRY: Duration = Duration::from_secs(5);
/// Spread over so many logs, so many times that may be left to recover.
const SPREAD_LIMITS: u64 = 16;

impl Shard {
    /// Starts the shard's own loops; they end with the stop flag.
    pub(super) fn start_upkeep(self: &Rc<Self>, desk: Arc<SurveyDesk>) {
        spawn_local(self.clone().keep_told(desk));
        if self.storage.limits.cache_bytes > 0 {
            spawn_local(self.clone().keep_cache_fitting());
        }
        spawn_local(self.clone().keep_retention());
        spawn_local(self.clone().keep_checkpoints());
        spawn_local(self.clone().keep_producers());
        spawn_local(self.clone().keep_clean());
        spawn_local(self.clone().keep_removing());
        spawn_local(self.clone().keep_coordinator_deadlines());
        spawn_local(self.clone().keep_offline_published());
        spawn_local(self.clone().keep_reopening());
        spawn_local(self.clone().save_epochs());
        if self.config.in_cluster() {
            spawn_local(self.clone().keep_resigning());
            spawn_local(self.clone().keep_isr());
            if self.id == CONTROLLER {
                spawn_local(self.clone().keep_high_watermarks());
            }
        }
    }

    /// Tells the metrics, several times a second, of what is not counted where it happens.
    async fn keep_told(self: Rc<Self>, desk: Arc<SurveyDesk>) {
        while !self.stop.is_set() {
            self.tell_metrics();
            self.answer_desk(&desk).await;
            clock::next_tick().await;
        }
    }

    fn tell_metrics(&self) {
        let metrics = &self.metrics;
        self.storage.publish(metrics);
        let (used, total) = self.answers.bytes();
        metrics.resources.set(Resource::ResponseMemory, used, total);
        let (used, total) = self.coordinators.memory.bytes();
        metrics.resources.set(Resource::GroupMemory, used, total);
        metrics.resources.set(Resource::ProducerMemory, self.producers.bytes(), producer_share(&self.config));
        metrics.messages.set(self.messages());
    }

    /// Sees to it, every second, that copies for consumers that lag take no memory that others
    /// need.
    async fn keep_cache_fitting(self: Rc<Self>) {
        for look in 0u32.. {
            if self.stop.is_set() {
                return;
            }
            if look > 0 {
                self.pause(CACHE_LOOK).await;
            }
            if look.is_multiple_of(CACHE_LOOKS_AT_REST) && self.storage.holds_copies() {
                // Consumers may have gone.
                for replica in self.all_replicas() {
                    replica.log().drop_unwanted_copies();
                }
            }
            if self.storage.cache_is_at_rest() && !look.is_multiple_of(CACHE_LOOKS_AT_REST) {
                continue;
            }
            match HostMemory::now() {
                Ok(memory) => self.storage.fit_cache(&memory, self.config.shards),
                Err(error) => {
                    tracing::warn!(shard = %self.id.0, %error, "corelane.cache.bytes is taken in any case");
                    return;
                }
            }
        }
    }

    /// Writes the files of the epochs that this start began. Until then they are in the batches and
    /// checkpoints, or wrote nothing.
    async fn save_epochs(self: Rc<Self>) {
        for replica in self.all_replicas() {
            if self.stop.is_set() {
                return;
            }
            replica.save_new_epochs().await;
        }
    }

    async fn keep_retention(self: Rc<Self>) {
        let interval = Duration::from_millis(self.config.log_retention_check_interval_ms.max(1));
        loop {
            self.pause(interval).await;
            if self.stop.is_set() {
                return;
            }
            for replica in self.all_replicas() {
                // A failure has been logged where it happened and shows in every later append.
                let _ = replica.enforce_retention(clock::wall_ms()).await;
            }
        }
    }

    /// Forgets idle producers, and says now and then that the bound on their memory forgot others.
    async fn keep_producers(self: Rc<Self>) {
        let interval = Duration::from_millis(self.config.producer_id_expiration_check_interval_ms.max(1));
        let mut due = clock::now() + interval;
        while !self.stop.is_set() {
            self.pause(interval.min(TELL_INTERVAL)).await;
            if clock::now() >= due {
                due = clock::now() + interval;
                for replica in self.all_replicas() {
                    replica.expire_producers(clock::wall_ms(), self.config.producer_id_expiration_ms);
                }
            }
            let forgotten = self.producers.take_forgotten();
            if forgotten > 0 {
                tracing::warn!(
                    shard = %self.id.0, producers = forgotten, bytes = self.producers.bytes(),
                    "forgot the longest idle producers: corelane.producer.state.max.bytes is used up; a repetition of \
                     their last batches would not be noticed. If so many producers are active, raise it"
                );
            }
        }
    }

    /// Bounds what recovery would have to read after a crash: by bytes, and by age for logs that
    /// are written slowly. What this start had to read counts too, or a broker that is killed again
    /// and again would read more each time.
    async fn keep_checkpoints(self: Rc<Self>) {
        let interval = Duration::from_millis(self.config.log_flush_offset_checkpoint_interval_ms.max(1));
        let mut due = clock::now() + interval;
        let mut again = clock::now();
        while !self.stop.is_set() {
            clock::next_tick().await;
            let by_age = clock::now() >= due;
            if by_age {
                due = clock::now() + interval;
            }
            let (to_recover, limit) = (self.storage.bytes_to_recover(), self.config.checkpoint_bytes);
            if by_age || (to_recover >= limit && clock::now() >= again) {
                let all = by_age || to_recover >= limit.saturating_mul(SPREAD_LIMITS);
                let least = if all { 0 } else { limit / LOGS_OF_A_LIMIT };
                for replica in self.all_replicas() {
                    if replica.bytes_to_recover() < least {
                        continue;
                    }
                    if replica.checkpoint().await.is_err() {
                        again = clock::now() + CHECKPOINT_RETRY;
                    }
                    if self.stop.is_set() {
                        return;
                    }
                }
            }
        }
    }

    /// Sleeps tick by tick, so that a stop is noticed.
    pub(super) async fn pause(&self, duration: Duration) {
        let until = clock::now() + duration;
        while !self.stop.is_set() && clock::now() < until {
            clock::next_tick().await;
        }
    }
}
