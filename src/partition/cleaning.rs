//! A compacted partition: what may be produced to it, and its cleaning.

use std::ops::ControlFlow;
use std::rc::Rc;

use super::replica::{Rejected, Replica};
use crate::model::ErrorCode;
use crate::model::records;
use crate::storage::{CleanError, CleanStats, Cleaner, Survey};

impl Replica {
    /// Whether the log should be cleaned, and how dirty it is; see [`Log::survey`](crate::storage::Log::survey).
    pub async fn survey(&self, now_ms: i64) -> Option<Survey> {
        self.log.survey(now_ms).await
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

/// Every record of a compacted topic needs a key, as in Kafka.
pub(super) fn check_keys(batch: &[u8]) -> Result<(), Rejected> {
    let mut keyless = None;
    records::walk(batch, &mut |record| {
        if record.key_len < 0 {
            keyless = Some(record.offset);
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    })
    .map_err(|error| Rejected::new(ErrorCode::InvalidRecord, error.to_string()))?;
    match keyless {
        Some(place) => {
            let message =
                format!("Compacted topic cannot accept message without key: record {place} of the batch has none");
            Err(Rejected::new(ErrorCode::InvalidRecord, message))
        }
        None => Ok(()),
    }
}
