//! Syncs of directories, shared: who asks for one while it runs shares the next one
//! with all who ask meanwhile. A thousand partitions made at once so wait for a few
//! syncs of their data directory.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::runtime::sync::Notify;
use crate::storage::files::sync_dir;

/// The directories of one shard that were synced, and those that are.
#[derive(Default)]
pub(super) struct DirSyncs(RefCell<HashMap<PathBuf, Rc<Turns>>>);

/// The syncs of one directory, numbered from 1.
#[derive(Default)]
struct Turns {
    begun: Cell<u64>,
    ended: Cell<u64>,
    running: Cell<bool>,
    /// The newest one that failed.
    failed: RefCell<Option<(u64, io::ErrorKind, String)>>,
    moved: Notify,
}

impl DirSyncs {
    /// Entries made in `dir` before the call are on the device when it returns.
    pub async fn sync(&self, dir: &Path) -> io::Result<()> {
        self.share(dir, async || sync_dir(dir.to_path_buf()).await).await
    }

    async fn share(&self, dir: &Path, sync: impl AsyncFn() -> io::Result<()>) -> io::Result<()> {
        let turns = self.0.borrow_mut().entry(dir.to_path_buf()).or_default().clone();
        // One that runs already may have begun too early.
        let wanted = turns.begun.get() + 1;
        while turns.ended.get() < wanted {
            if turns.running.get() {
                turns.moved.notified().await;
                continue;
            }
            let turn = Turn::begin(&turns);
            let outcome = sync().await;
            turn.end(outcome);
        }
        match &*turns.failed.borrow() {
            Some((number, kind, why)) if *number >= wanted => {
                Err(io::Error::new(*kind, format!("syncing {}: {why}", dir.display())))
            }
            _ => Ok(()),
        }
    }
}

/// The sync that runs; dropped before its end, it leaves the next one to others.
struct Turn<'a>(&'a Turns);

impl Turn<'_> {
    fn begin(turns: &Turns) -> Turn<'_> {
        turns.running.set(true);
        turns.begun.set(turns.begun.get() + 1);
        Turn(turns)
    }

    fn end(self, outcome: io::Result<()>) {
        let number = self.0.begun.get();
        self.0.ended.set(number);
        if let Err(error) = outcome {
            *self.0.failed.borrow_mut() = Some((number, error.kind(), error.to_string()));
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.running.set(false);
        self.0.moved.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{eventually, on_shard, spawn_local};
    use std::time::Duration;

    #[test]
    fn those_who_ask_during_a_sync_share_the_next_one() {
        on_shard(|| async {
            let (syncs, dir) = (Rc::new(DirSyncs::default()), Path::new("d"));
            let (ran, ended) = (Rc::new(Cell::new(0)), Rc::new(RefCell::new(Vec::new())));
            for asker in 0..20 {
                let (syncs, ran, ended) = (syncs.clone(), ran.clone(), ended.clone());
                spawn_local(async move {
                    let sync = async || {
                        crate::runtime::clock::sleep(Duration::from_millis(1)).await;
                        ran.set(ran.get() + 1);
                        if ran.get() == 2 { Err(io::Error::other("worn out")) } else { Ok(()) }
                    };
                    let outcome = syncs.share(dir, sync).await.map_err(|error| error.to_string());
                    ended.borrow_mut().push((asker, ran.get(), outcome));
                });
            }
            eventually("all have theirs", || ended.borrow().len() == 20).await;
            assert_eq!(ended.borrow()[0], (0, 1, Ok(())), "the first one's own");
            let failed = Err("syncing d: worn out".to_owned());
            assert!(ended.borrow()[1..].iter().all(|(_, ran, told)| (*ran, told) == (2, &failed)));
            assert_eq!(syncs.share(dir, async || Ok(())).await.map_err(|e| e.to_string()), Ok(()));
        });
    }
}
