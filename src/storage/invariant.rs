//! Invariants of one partition: a broken one stops the partition, not the process.

#[cfg(test)]
use std::cell::Cell;
use std::fmt;
use std::panic::Location;

use super::log::Log;

/// True if what has to hold of the partition of a [`Log`] does. Where it does not, the log ends as
/// after a failed write: the partition goes offline, with a line that says where and what, and the
/// others are served on. The caller must do nothing that relies on it. Debug builds panic.
macro_rules! invariant {
    ($log:expr, $holds:expr, $($what:tt)+) => {
        $holds || $log.broken(::std::format_args!($($what)+))
    };
}
pub(super) use invariant;

#[cfg(test)]
thread_local! {
    static ENDURED: Cell<bool> = const { Cell::new(false) };
}

/// Has this thread see what a release does where an invariant is broken.
#[cfg(test)]
pub(crate) fn endure_broken_invariants() {
    ENDURED.set(true);
}

fn is_endured() -> bool {
    #[cfg(test)]
    return ENDURED.get();
    #[cfg(not(test))]
    false
}

impl Log {
    /// The rest of [`invariant!`]: always `false`.
    #[cold]
    #[track_caller]
    pub(crate) fn broken(&self, what: fmt::Arguments<'_>) -> bool {
        let why = format!(
            "broken invariant at {}: {what}: the partition is offline until the broker is restarted; please report this",
            Location::caller()
        );
        let dir = self.dir();
        let dir = dir.display();
        debug_assert!(is_endured(), "{dir}: {why}");
        tracing::error!(%dir, "{why}");
        self.lose(&why);
        false
    }
}
