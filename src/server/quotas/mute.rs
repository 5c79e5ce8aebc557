//! A connection that is not read from for a while, since its client has used too much (KIP-219).

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::runtime::clock;
use crate::shard::QuotaFlag;

/// A muted connection looks so often whether quotas have changed, or it is to end.
const LOOK: Duration = Duration::from_millis(100);

#[derive(Debug, Default)]
pub struct Mute {
    until: Cell<Option<Instant>>,
    /// The quotas that it was muted for.
    by: RefCell<Option<(Rc<QuotaFlag>, u64)>>,
}

impl Mute {
    /// For this time from now; a longer one stays.
    pub fn extend(&self, time: Duration, by: &Rc<QuotaFlag>) {
        let until = clock::now().checked_add(time);
        if until > self.until.get() {
            self.until.set(until);
            *self.by.borrow_mut() = Some((by.clone(), by.changes()));
        }
    }

    pub fn is_set(&self) -> bool {
        self.until.get().is_some()
    }

    /// Waits until the time has passed, quotas are others, or `ends`.
    pub async fn over(&self, ends: impl Fn() -> bool) {
        while let Some(until) = self.until.get() {
            let changed = self.by.borrow().as_ref().is_none_or(|(flag, changes)| flag.changes() != *changes);
            let left = until.saturating_duration_since(clock::now());
            if left.is_zero() || changed || ends() {
                self.until.set(None);
                self.by.take();
                return;
            }
            clock::sleep(left.min(LOOK)).await;
        }
    }
}
