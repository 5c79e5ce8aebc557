//! Signals, CPUs, memory: facts about this process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Set once by SIGTERM or SIGINT; shards look at it every [`StopFlag::POLL`].
#[derive(Clone, Debug, Default)]
pub struct StopFlag(Arc<AtomicBool>);

impl StopFlag {
    pub fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Blocks the calling (main) thread until SIGTERM or SIGINT, or until `flag` is set by a shard; sets the flag.
/// A second signal ends the process at once.
pub fn wait_for_stop(flag: &StopFlag) -> std::io::Result<()> {
    let _ = flag;
    todo!()
}

/// CPUs this process may run on, by number.
pub fn usable_cpus() -> Vec<usize> {
    core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|c| c.id).collect()
}
