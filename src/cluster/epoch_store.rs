//! The number of starts that raised the leader epochs: one small file for all partitions, so that a
//! start after a crash writes once and not once per topic.
//!
//! `leader-epochs.json` holds the number. A topic's file holds the epochs of its partitions and the
//! number as of when it was written: every start that was not clean since then has raised them by
//! one more. The number is on the device before anything is written in the epochs it stands for, so
//! no epoch ever has two histories, whatever a power cut takes of the rest.
//!
//! A start on a full disk raises them too. The file is therefore there from the first start on, and
//! without room for a new one it is written over where it stands, within its one block.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::image::MetadataImage;
use super::metadata_store::{FORMAT, LocalStore, at, check_format, encode, read, replace};
use crate::runtime::disk::is_full;

const FILE: &str = "leader-epochs.json";

#[derive(Serialize, Deserialize)]
struct EpochsRecord {
    format: u32,
    /// Starts that were not clean.
    raised: i32,
}

/// The part of a topic's file that this module needs.
#[derive(Deserialize)]
struct TopicEpochs {
    #[serde(default)]
    epochs_raised: i32,
}

impl LocalStore {
    /// Reads the number. A damaged file is told; where there is none, the topics' files tell how
    /// far it had come.
    pub fn read_epochs_raised(&mut self) -> io::Result<()> {
        let path = self.directory.join(FILE);
        let stored = match path.try_exists()? {
            false => None,
            true => match read::<EpochsRecord>(&path).and_then(|r| check_format(&path, r.format).map(|()| r.raised)) {
                Ok(raised) => Some(raised.max(0)),
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    tracing::error!(
                        "{error}. Going on without it: the files of topics and partitions tell their leader epochs"
                    );
                    None
                }
                Err(error) => return Err(error),
            },
        };
        self.epochs_raised = match stored {
            Some(raised) => raised,
            None => self.newest_topic()?,
        };
        Ok(())
    }

    /// The largest number that a topic's file holds; files that cannot be read are told elsewhere.
    fn newest_topic(&self) -> io::Result<i32> {
        let mut newest = 0;
        let entries = match fs::read_dir(self.directory.join("topics")) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(0),
            entries => entries?,
        };
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "json")
                && let Ok(topic) = read::<TopicEpochs>(&path)
            {
                newest = newest.max(topic.epochs_raised);
            }
        }
        Ok(newest)
    }

    /// Makes the file where it is missing or damaged, so that a later start needs no room to raise
    /// the number.
    pub fn keep_epochs_file(&self) -> io::Result<()> {
        let path = self.directory.join(FILE);
        if read::<EpochsRecord>(&path).is_ok_and(|record| record.raised == self.epochs_raised) {
            return Ok(());
        }
        replace(&path, "leader-epochs", &EpochsRecord { format: FORMAT, raised: self.epochs_raised })
    }

    /// Raises the leader epoch of every partition of `image`, for a start that was not clean.
    /// Durable when it returns.
    pub fn raise_leader_epochs(&mut self, image: &mut MetadataImage) -> io::Result<()> {
        let (raised, path) = (self.epochs_raised.saturating_add(1), self.directory.join(FILE));
        let record = EpochsRecord { format: FORMAT, raised };
        match replace(&path, "leader-epochs", &record) {
            Err(error) if is_full(&error) => write_over(&path, &record)?,
            replaced => replaced?,
        }
        self.epochs_raised = raised;
        image.raise_leader_epochs();
        Ok(())
    }

    /// An epoch that was stored when the number was `then`, as of now.
    pub(super) fn current_epoch(&self, stored: i32, then: i32) -> i32 {
        stored.saturating_add(self.epochs_raised.saturating_sub(then).max(0))
    }
}

/// Writes the number into the block that the file has. A sector is written whole or not at all, so
/// a power cut leaves the old number or the new one.
fn write_over(path: &Path, record: &EpochsRecord) -> io::Result<()> {
    let text = encode(record)?;
    let advice = "leader epochs cannot be raised on a full disk without it; free some space and start again";
    let over = || {
        let file = fs::OpenOptions::new().write(true).open(path)?;
        file.write_all_at(text.as_bytes(), 0)?;
        // Behind what was damaged there may be more.
        file.set_len(text.len() as u64)?;
        file.sync_all()
    };
    over().map_err(|error| at(path, &format!("cannot be written over ({advice})"), error))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use uuid::Uuid;

    use super::*;
    use crate::cluster::{PartitionImage, TopicImage};
    use crate::config::{ServerConfig, TopicConfig};
    use crate::model::{BrokerId, LeaderEpoch};
    use crate::runtime::faults;

    fn topic(name: &str, epoch: i32) -> TopicImage {
        let this = BrokerId(ServerConfig::default().broker_id);
        let partition = PartitionImage {
            leader: Some(this),
            leader_epoch: LeaderEpoch(epoch),
            replicas: vec![this],
            isr: vec![this],
            ..PartitionImage::default()
        };
        TopicImage {
            name: name.into(),
            id: Uuid::new_v4(),
            partitions: vec![partition],
            overrides: BTreeMap::new(),
            config: Arc::new(TopicConfig::default()),
        }
    }

    fn load(dir: &Path) -> (LocalStore, MetadataImage) {
        let store = LocalStore::open(dir).unwrap();
        let image = store.load(&ServerConfig::default()).unwrap().image;
        (store, image)
    }

    fn epoch(image: &MetadataImage, name: &str) -> i32 {
        image.topic(name).unwrap().partitions[0].leader_epoch.0
    }

    #[test]
    fn one_file_raises_the_epochs_of_all_topics() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = load(dir.path());
        store.put_topic(&topic("a", 0)).unwrap();
        store.put_topic(&topic("b", 7)).unwrap();
        for raised in 1..=3 {
            let (mut store, mut image) = load(dir.path());
            assert_eq!(epoch(&image, "a"), raised - 1, "a start does not raise them of itself");
            store.raise_leader_epochs(&mut image).unwrap();
            assert_eq!((epoch(&image, "a"), epoch(&image, "b")), (raised, 7 + raised));
        }
        // Topics written later hold the number as of then.
        let (store, image) = load(dir.path());
        store.put_topic(image.topic("b").unwrap()).unwrap();
        store.put_topic(&topic("c", 0)).unwrap();
        let (mut store, mut image) = load(dir.path());
        assert_eq!((epoch(&image, "a"), epoch(&image, "b"), epoch(&image, "c")), (3, 10, 0));
        store.raise_leader_epochs(&mut image).unwrap();
        let (_, image) = load(dir.path());
        assert_eq!((epoch(&image, "a"), epoch(&image, "b"), epoch(&image, "c")), (4, 11, 1));
    }

    #[test]
    fn a_damaged_number_does_not_stop_the_start() {
        let dir = tempfile::tempdir().unwrap();
        let (mut store, mut image) = load(dir.path());
        store.put_topic(&topic("a", 0)).unwrap();
        store.raise_leader_epochs(&mut image).unwrap();
        let path = dir.path().join("corelane-metadata").join(FILE);
        // A topic that was made after two such starts.
        store.raise_leader_epochs(&mut image).unwrap();
        store.put_topic(&topic("b", 0)).unwrap();
        for damage in [&b"x"[..], b"", b"{\"format\":1,\"raised\":1}\n00000000\n"] {
            fs::write(&path, damage).unwrap();
            let (_, image) = load(dir.path());
            assert_eq!((epoch(&image, "a"), epoch(&image, "b")), (2, 0));
        }
        let (mut store, mut image) = load(dir.path());
        store.raise_leader_epochs(&mut image).unwrap();
        assert_eq!(epoch(&load(dir.path()).1, "a"), 3);
    }

    /// The temporary file cannot be made, as on a full disk.
    #[test]
    fn a_start_without_room_raises_the_stored_number_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = load(dir.path());
        store.put_topic(&topic("a", 0)).unwrap();
        store.keep_epochs_file().unwrap();
        for raised in 1..=12 {
            let (mut store, mut image) = load(dir.path());
            assert_eq!(epoch(&image, "a"), raised - 1);
            let path = store.directory.join(FILE);
            let record = EpochsRecord { format: FORMAT, raised };
            faults::inject(faults::Op::Small, FILE, 0, faults::Fault::Os(28));
            store.raise_leader_epochs(&mut image).unwrap();
            faults::clear();
            assert_eq!(epoch(&image, "a"), raised);
            assert_eq!(fs::read_to_string(&path).unwrap(), encode(&record).unwrap());
        }
        assert_eq!(epoch(&load(dir.path()).1, "a"), 12, "the next start knows of all of them");
        // Without a file there is no room kept: nothing is raised in memory alone.
        fs::remove_file(dir.path().join("corelane-metadata").join(FILE)).unwrap();
        let (mut store, mut image) = load(dir.path());
        let before = epoch(&image, "a");
        faults::inject(faults::Op::Small, FILE, 0, faults::Fault::Os(28));
        let error = store.raise_leader_epochs(&mut image).unwrap_err().to_string();
        faults::clear();
        assert!(error.contains(FILE) && error.contains("free some space"), "{error}");
        assert_eq!(epoch(&image, "a"), before);
    }
}
