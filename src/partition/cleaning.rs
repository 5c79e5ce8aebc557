//! A compacted partition's cleaning.

use std::rc::Rc;

use super::replica::Replica;
use crate::storage::{CleanError, CleanStats, Cleaner, Survey};

impl Replica {
    /// Whether the log should be cleaned, and how dirty it is; see [`Log::survey`](crate::storage::Log::survey).
    pub async fn survey(&self, now_ms: i64) -> Option<Survey> {
        self.log.survey(now_ms, self.high_watermark()).await
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
