//! A compacted partition's cleaning.

use std::rc::Rc;

use super::replica::Replica;
use crate::storage::{CleanError, CleanStats, Cleaner, Survey};

impl Replica {
    /// The log's dirty part, if it should be cleaned; see
    /// [`Log::survey`](crate::storage::Log::survey).
    pub async fn survey(&self, now_ms: i64) -> Option<Survey> {
        // The fate of a transaction's records depends on how it ends.
        self.log.survey(now_ms, self.last_stable_offset()).await
    }

    /// Cleans what `found` names. `ended`: whether to leave off.
    pub async fn clean(
        self: &Rc<Self>,
        found: Survey,
        cleaner: &Cleaner,
        now_ms: i64,
        ended: &dyn Fn() -> bool,
    ) -> Result<CleanStats, CleanError> {
        // Only what recovery need not read again is cleaned.
        self.checkpoint().await?;
        let producers = self.producers.borrow().last_offsets();
        self.log.clean(found, producers, cleaner, now_ms, ended).await
    }
}
