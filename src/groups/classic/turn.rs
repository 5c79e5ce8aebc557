//! The outside of a group while it is at work: time, timers, replies.

use crate::coordinator::Timers;
use crate::groups::coordinator::Timer;
use crate::groups::env::Env;

/// The coordinator's timers, and the world.
pub(in crate::groups) struct Turn<'t, 'e> {
    pub timers: &'t mut Timers<Timer>,
    pub env: &'t mut Env<'e>,
}

impl Turn<'_, '_> {
    /// Sets a timer; a time below zero counts as none.
    pub fn set(&mut self, timer: Timer, after_ms: i64) {
        let after_ms = u64::try_from(after_ms).unwrap_or(0);
        self.timers.set(timer, self.env.mono_ms.saturating_add(after_ms));
    }

    pub fn cancel(&mut self, timer: &Timer) {
        self.timers.cancel(timer);
    }
}
