//! Damage met while the log is in use: the segment is written anew without it, and readers pass
//! over the gap.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use super::compaction::{CleanError, Swap};
use super::log::Log;
use super::reader::ReadError;
use super::rot::{self, Bounds};
use super::segment::Segment;
use crate::runtime::{clock, fs, spawn_blocking};

/// Between two looks whether a cleaning has ended.
const PAUSE: Duration = Duration::from_millis(20);

impl Log {
    /// Takes the damage out of the segment that `error` names. `true`: the segment is another one
    /// now, look again.
    pub(super) async fn mend(self: &Rc<Self>, error: &ReadError) -> bool {
        match error {
            ReadError::Damaged { base, .. } => self.mend_segment(*base).await,
            _ => false,
        }
    }

    /// A cleaning has met damage: without it, the next one gets through.
    pub(super) async fn mend_after_cleaning(self: &Rc<Self>, base: i64) {
        self.mend_segment(base).await;
    }

    async fn mend_segment(self: &Rc<Self>, base: i64) -> bool {
        let Some(met) = self.segments.borrow().get(&base).cloned() else { return true };
        let _one = self.mending.acquire(1).await;
        // Another task has met it too, and was first.
        if !self.holds(&met) {
            return true;
        }
        if self.others_have_it() {
            return false;
        }
        if Rc::ptr_eq(&met, &self.active()) {
            self.roll(&met);
        }
        if self.wait_sealed().await.is_err() || self.has_ended() {
            return false;
        }
        while self.clean.running.replace(true) {
            clock::sleep(PAUSE).await;
        }
        let mended = match self.holds(&met) {
            true => self.write_without_damage(&met).await,
            false => Ok(true),
        };
        self.clean.running.set(false);
        mended.unwrap_or_else(|error| {
            tracing::error!(
                file = %met.path("log").display(), %error,
                "taking damage out of a segment failed; it is tried again when the damage is met again"
            );
            false
        })
    }

    fn holds(&self, segment: &Rc<Segment>) -> bool {
        self.segments.borrow().get(&segment.base_offset).is_some_and(|held| Rc::ptr_eq(held, segment))
    }

    /// `false`: no damage was found.
    async fn write_without_damage(self: &Rc<Self>, segment: &Rc<Segment>) -> Result<bool, CleanError> {
        let (dir, base, size) = (self.dir(), segment.base_offset, segment.size.get());
        let end_offset = self.segment_after(base).map_or(self.next_offset(), |next| next.base_offset);
        let bounds = Bounds { size, from_offset: base, end_offset, end_known: true, gap_at_end: true, reserved: false };
        let interval = self.config.borrow().index_interval_bytes;
        let (path, into) = (segment.path("log"), dir.clone());
        let visit = self.dir.visit()?;
        let cleaned = spawn_blocking(move || {
            let stretches = rot::survey(&fs::File::open(path)?, 0, bounds)?;
            if stretches.iter().all(|stretch| stretch.sound) {
                return Ok(None);
            }
            rot::write_mended(&into, base, &stretches, interval).map(Some)
        })
        .await;
        drop(visit);
        let Some(cleaned) = cleaned.map_err(|error: io::Error| error)? else { return Ok(false) };
        self.exchange(std::slice::from_ref(segment), cleaned, Swap { dir, base, old: vec![base] }).await?;
        Ok(true)
    }
}
