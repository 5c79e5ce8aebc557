//! The end of a shard: its logs are written, synced and closed, within
//! `corelane.shutdown.timeout.ms`.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use super::state::Shard;
use crate::model::PartitionId;
use crate::partition::Replica;
use crate::runtime::sync::{Budget, Notify};
use crate::runtime::{clock, spawn_local};

/// Replicas closed at the same time.
const CLOSING: usize = 64;
/// Time between two log lines about what is left.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Replicas on their way to be closed.
struct Closing {
    open: RefCell<HashMap<PartitionId, Rc<Replica>>>,
    /// Directories that were not closed cleanly.
    unwell: RefCell<Vec<PathBuf>>,
    /// Notified with each replica.
    progress: Notify,
}

impl Closing {
    fn closed(&self, replica: &Replica, well: bool) {
        self.open.borrow_mut().remove(&replica.id);
        if !well {
            self.unwell.borrow_mut().push(replica.log().dir());
        }
        self.progress.notify_all();
    }

    /// Partitions that are open.
    fn left(&self) -> usize {
        self.open.borrow().len()
    }

    /// Bytes of them that are not written and synced. Looks at every one.
    fn bytes_left(&self) -> u64 {
        self.open.borrow().values().map(|replica| replica.log().unsettled_bytes()).sum()
    }
}

impl Shard {
    /// Closes all replicas; returns the directories of those that were not closed cleanly, or were
    /// never opened. Past the limit the rest is left as it is, for recovery.
    pub(super) async fn close_all(self: &Rc<Self>) -> Vec<PathBuf> {
        let limit = Duration::from_millis(self.config.shutdown_timeout_ms);
        let (deadline, mut next_line) = (clock::now() + limit, clock::now() + LINE_INTERVAL);
        let _ = clock::until(deadline, self.end_removing()).await;
        let _ = clock::until(deadline, self.end_moves()).await;
        let closing = Rc::new(Closing {
            open: RefCell::new(self.all_replicas().into_iter().map(|replica| (replica.id, replica)).collect()),
            unwell: RefCell::new(self.unopened_dirs()),
            progress: Notify::new(),
        });
        spawn_local(close_each(closing.clone()));
        loop {
            let partitions = closing.left();
            if partitions == 0 {
                return closing.unwell.take();
            }
            let now = clock::now();
            if now >= deadline {
                tracing::warn!(
                    shard = self.id.0,
                    partitions,
                    bytes = closing.bytes_left(),
                    "not closed within {} ms (corelane.shutdown.timeout.ms): the next start reads what is not synced; nothing \
                     acknowledged is lost",
                    limit.as_millis()
                );
                let mut unwell = closing.unwell.take();
                for replica in closing.open.borrow().values() {
                    replica.abandon();
                    unwell.push(replica.log().dir());
                }
                return unwell;
            }
            if now >= next_line {
                next_line = now + LINE_INTERVAL;
                tracing::info!(
                    shard = self.id.0,
                    partitions,
                    bytes = closing.bytes_left(),
                    "closing the logs: so much is left to write and sync"
                );
            }
            clock::until(deadline.min(next_line), closing.progress.notified()).await;
        }
    }
}

async fn close_each(closing: Rc<Closing>) {
    let slots = Budget::new(CLOSING);
    let replicas: Vec<Rc<Replica>> = closing.open.borrow().values().cloned().collect();
    for replica in replicas {
        let (slot, closing) = (slots.acquire(1).await, closing.clone());
        spawn_local(async move {
            let outcome = replica.close().await;
            if let Err(error) = &outcome {
                tracing::warn!(topic = %replica.topic, partition = %replica.id.index, %error, "not closed in good order");
            }
            closing.closed(&replica, outcome.is_ok());
            drop(slot);
        });
    }
}
