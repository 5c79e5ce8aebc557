//! Damage of a log whose records other replicas have, on a broker of a cluster.
//!
//! A file beside the log says that records are missing. It is made before damage is taken
//! out, and goes once the log is fetched anew, or leads: a start that is cut short hides
//! nothing from the next one.

use std::io;
use std::rc::Rc;

use super::dir::LogDir;
use super::files::{retry_on_fd_exhaustion, sync_dir};
use super::log::Log;
use crate::runtime::disk::{is_full, write_small};
use crate::runtime::{fs, spawn_blocking, spawn_local};

pub(super) const DAMAGED_FILE: &str = "damaged-log";

/// Makes the file; it is durable when this returns. On a full disk the log is opened without it.
pub(super) async fn mark(dir: &LogDir) -> io::Result<()> {
    let path = dir.join(DAMAGED_FILE);
    let made = retry_on_fd_exhaustion(async || {
        let file = path.clone();
        write_small(&path, move || fs::File::create(file)?.sync_all()).await?;
        sync_dir(dir.to_path_buf()).await
    });
    match made.await {
        Err(error) if is_full(&error) => {
            tracing::warn!(file = %path.display(), "no room to note that the log is damaged: {error}");
            Ok(())
        }
        made => made,
    }
}

impl Log {
    /// `ask` is asked when damage is met while the log is in use: true if other replicas have the
    /// records, and the log is to be fetched anew. Without it, or where it says no, the damage is
    /// taken out and passed over.
    pub fn on_damage(&self, ask: Box<dyn Fn() -> bool>) {
        *self.on_damage.borrow_mut() = Some(ask);
    }

    pub(super) fn others_have_it(&self) -> bool {
        self.on_damage.borrow().as_ref().is_some_and(|ask| ask())
    }

    /// The log's records are those that others go by, or nothing is left of the damaged ones.
    pub fn forget_damage(self: &Rc<Self>) {
        let (log, path) = (self.clone(), self.dir().join(DAMAGED_FILE));
        spawn_local(async move {
            let Ok(_visit) = log.dir.visit() else { return };
            match spawn_blocking(move || fs::remove_file(path)).await {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    let dir = log.dir();
                    tracing::warn!(dir = %dir.display(), "the next start takes the log for damaged: {error}");
                }
                _ => {}
            }
        });
    }
}
