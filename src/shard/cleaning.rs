//! The shard's log cleaner: one log at a time, the dirtiest first.

use std::rc::Rc;
use std::time::Duration;

use super::state::Shard;
use crate::config::ServerConfig;
use crate::observe::client_line;
use crate::partition::Replica;
use crate::runtime::clock;
use crate::storage::{CleanError, Cleaner, CleanerLimits, Survey};

/// Fewer would clean a few keys a round.
const LEAST_DEDUPE_BYTES: usize = 1 << 20;

impl Shard {
    pub(super) async fn keep_clean(self: Rc<Self>) {
        if !self.config.log_cleaner_enable {
            return;
        }
        while !self.stop.is_set() {
            // No shorter than the beat of the other loops.
            self.pause(Duration::from_millis(self.settings().log_cleaner_backoff_ms.max(1))).await;
            let cleaner = Cleaner::new(limits(&self.settings(), usize::from(self.shards)));
            while !self.stop.is_set() && self.clean_dirtiest(&cleaner).await {}
        }
    }

    /// Cleans one log that is due; `false`: none was, or its cleaning failed.
    async fn clean_dirtiest(self: &Rc<Self>, cleaner: &Cleaner) -> bool {
        let now_ms = clock::wall_ms();
        let mut dirtiest: Option<(Survey, Rc<Replica>)> = None;
        for replica in self.all_replicas() {
            let Some(found) = replica.survey(now_ms).await.filter(|found| found.due) else { continue };
            if dirtiest.as_ref().is_none_or(|(most, _)| found.dirty_ratio > most.dirty_ratio) {
                dirtiest = Some((found, replica));
            }
        }
        let Some((found, replica)) = dirtiest else { return false };
        match replica.clean(found, cleaner, now_ms, &|| self.stop.is_set()).await {
            Ok(done) => {
                client_line!(
                    info, topic = %replica.topic, partition = %replica.id.index, from = found.first_dirty, to = done.end,
                    keys = done.keys, bytes_before = done.bytes_before, bytes_after = done.bytes_after, "cleaned"
                );
                done.end > found.first_dirty
            }
            // The failure was logged where it happened.
            Err(CleanError::Ended | CleanError::Io(_) | CleanError::Storage(_)) => false,
        }
    }
}

fn limits(config: &ServerConfig, shards: usize) -> CleanerLimits {
    let shards = shards.max(1);
    let rate = config.log_cleaner_io_max_bytes_per_second;
    CleanerLimits {
        dedupe_buffer_bytes: (config.log_cleaner_dedupe_buffer_size / shards).max(LEAST_DEDUPE_BYTES),
        load_factor: config.log_cleaner_io_buffer_load_factor,
        io_buffer_bytes: config.log_cleaner_io_buffer_size,
        max_bytes_per_second: (rate / shards as f64).max(1.0),
    }
}
