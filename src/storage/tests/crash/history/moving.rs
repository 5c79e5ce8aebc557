//! The history of a log that is moved to another data directory and back while it is worked with.

use std::path::PathBuf;

use super::*;
use crate::runtime::fs;
use crate::storage::files::sync_dir;
use crate::storage::{
    DirCopy, NotExchanged, exchange, future_name, is_future_dir, parse_moved_dir, parse_partition_dir, remove_dir,
};

const ROOTS: [&str; 2] = [ROOT, OTHER_ROOT];

/// A start's way with copies: one takes the log's name where the original is gone; the others go.
/// Returns the log's directory.
pub async fn settle() -> io::Result<PathBuf> {
    let (mut here, mut moved, mut doomed) = (None, None, Vec::new());
    for root in ROOTS.map(Path::new) {
        for entry in fs::read_dir(root)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if parse_partition_dir(&name).is_some() {
                assert!(here.replace(path).is_none(), "two logs have the name");
            } else if parse_moved_dir(&name).is_some() {
                assert!(moved.replace(path).is_none(), "two copies are whole");
            } else if is_future_dir(&name) {
                doomed.push(path);
            }
        }
    }
    let dir = match (here, moved) {
        (None, Some(copy)) => {
            let dir = copy.with_file_name("t-0");
            fs::rename(&copy, &dir)?;
            fs::File::open(copy.parent().unwrap_or(&copy))?.sync_all()?;
            dir
        }
        (here, copy) => {
            doomed.extend(copy);
            here.unwrap_or_else(|| DIR.into())
        }
    };
    for copy in doomed {
        remove_dir(&copy).await?;
    }
    Ok(dir)
}

impl Driver {
    /// Copies what takes no more appends; the copy is `None` from the first error on.
    async fn copy_sealed(&self, copy: &mut Option<DirCopy>) {
        self.begin("copy");
        DirCopy::settle().await;
        for (base_offset, _) in self.log.sealed_segments() {
            if let Some(made) = copy
                && made.segment(base_offset, &async |_| true).await.is_err()
            {
                *copy = None;
            }
        }
    }

    /// Moves the log, and works with it meanwhile.
    async fn move_to(mut self, root: &str, tag: u128) -> Result<Driver, Failed> {
        let (from, tag) = (self.log.dir(), format!("{tag:032x}"));
        let future = Path::new(root).join(future_name("t-0", &tag).expect("a short name"));
        let mut copy = DirCopy::begin(from.clone(), future.clone()).await.ok();
        self.copy_sealed(&mut copy).await;
        self.begin("append beside a copy");
        self.append_all(&[5000, 4000, 300])?;
        self.abort()?;
        self.written().await?;
        self.cut(self.middle()).await?;
        self.append_all(&[3000, 7000])?;
        self.trim(self.middle() + 1).await?;
        self.checkpoint().await?;
        self.begin("seal");
        self.settle(self.log.seal_active().await)?;
        self.copy_sealed(&mut copy).await;
        self.begin("append before the exchange");
        self.append_all(&[200, 6000, 100])?;
        let Some(mut copy) = copy else {
            // As where it is called off.
            let _ = remove_dir(&future).await;
            return Ok(self);
        };
        self.begin("close to move");
        self.log.close_to_move(|| b"moved".to_vec()).await.map_err(|_| self.failed())?;
        self.begin("exchange");
        let exchanged = async {
            copy.finish(&async |_| true).await.map_err(NotExchanged::Kept)?;
            exchange(&from, &future, async |root| sync_dir(root.to_path_buf()).await).await
        };
        let dir = match exchanged.await {
            Ok((dir, original)) => {
                let _ = remove_dir(&original).await;
                dir
            }
            Err(NotExchanged::Kept(_)) => {
                let _ = remove_dir(&future).await;
                from
            }
            Err(NotExchanged::Unknown(_)) => return Err(Failed(None)),
        };
        self.begin("open the copy");
        let Driver { log, opened, ledger, .. } = self;
        let reopened = open_with(log.context.clone(), opened.arena, &dir).await.map_err(|_| Failed(None))?;
        Ok(Driver::of(reopened, ledger))
    }
}

/// The whole history. It ends early where the log fails.
pub async fn run(ledger: Shared, acknowledged: Acknowledged) -> Result<Rc<Log>, Failed> {
    let dir = settle().await.map_err(|_| Failed(None))?;
    let mut driver = Driver::open(ledger.clone(), acknowledged, &dir).await?;
    driver.begin("append");
    for payloads in [[4000, 300, 2500, 9000], [5000, 100, 6000, 20]] {
        driver.append_all(&payloads)?;
        driver.abort()?;
        driver.written().await?;
    }
    driver.checkpoint().await?;
    for (number, root) in [OTHER_ROOT, ROOT].into_iter().enumerate() {
        driver = driver.move_to(root, number as u128).await?;
        driver.begin("append after a move");
        driver.append_all(&[100, 7000, 40])?;
        driver.abort()?;
        driver.written().await?;
        driver.sync().await?;
    }
    Ok(driver.log)
}
