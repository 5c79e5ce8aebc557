//! A connection that is not read from for a while, since its client has used too much (KIP-219).

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::view::{ClientLimits, rate};
use crate::cluster::quotas::QuotaKind;
use crate::observe::metrics::Cause;
use crate::runtime::{clock, waits};
use crate::shard::Shard;

/// A muted connection looks so often whether its quota has changed, or it is to end.
const LOOK: Duration = Duration::from_millis(100);

/// The quota that a connection is muted for.
pub struct MutedBy {
    pub shard: Rc<Shard>,
    pub limits: Rc<ClientLimits>,
    pub kind: QuotaKind,
    pub per_second: f64,
    /// Changes of quotas that it has been held against.
    pub changes: u64,
}

#[derive(Default)]
pub struct Mute {
    until: Cell<Option<Instant>>,
    by: RefCell<Option<MutedBy>>,
}

impl Mute {
    /// For this time from now; a longer one stays.
    pub fn extend(&self, time: Duration, by: impl FnOnce() -> MutedBy) {
        let until = clock::now().checked_add(time);
        if until > self.until.get() {
            self.until.set(until);
            *self.by.borrow_mut() = Some(by());
        }
    }

    pub fn is_set(&self) -> bool {
        self.until.get().is_some()
    }

    /// Waits until the time has passed, the quota is another one, or `ends`.
    pub async fn over(&self, ends: impl Fn() -> bool) {
        while let Some(until) = self.until.get() {
            let left = until.saturating_duration_since(clock::now());
            if left.is_zero() || !self.holds() || ends() {
                self.until.set(None);
                self.by.take();
                return;
            }
            waits::waiting(Cause::Quota, clock::sleep(left.min(LOOK))).await;
        }
    }

    fn holds(&self) -> bool {
        let mut by = self.by.borrow_mut();
        let Some(by) = by.as_mut() else { return false };
        let changes = by.shard.quota_flag().changes();
        // Those of other clients change nothing here.
        let holds = by.changes == changes || rate(&by.shard, by.kind, &by.limits) == Some(by.per_second);
        by.changes = changes;
        holds
    }
}

impl std::fmt::Debug for Mute {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mute").field("until", &self.until).finish_non_exhaustive()
    }
}
