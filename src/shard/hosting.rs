//! Which partitions this shard holds: opening, making and removing their directories.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use uuid::Uuid;

use super::partition_file::{self, Owner};
use super::state::{OPENING_BYTES, Shard};
use crate::cluster::{TopicImage, partition_metadata};
use crate::model::PartitionId;
use crate::partition::{Replica, Start};
use crate::runtime::disk::is_full;
use crate::runtime::disk::meets_faults;
use crate::runtime::sync::Budget;
use crate::runtime::{clock, faults, spawn_blocking, spawn_local};
use crate::storage::{Checkpoint, Looked, PARTITION_METADATA, STRAY_SUFFIX, aside_name, remove_dir};

/// Partitions whose logs are opened at the same time.
const OPENING: usize = 32;

/// Those, and partitions whose directories are looked at.
const UNDER_WAY: usize = 128;

/// Partitions whose directories one step of a helper thread looks at, where there are many.
const TOGETHER: usize = 16;

/// Steps that few partitions are shared out among.
const STEPS: usize = 8;

/// A checkpoint of more bytes is read when its turn comes: see [`Shard::opening`].
const SMALL_CHECKPOINT: u64 = 64 << 10;
const _: () = assert!(OPENING <= UNDER_WAY && OPENING * SMALL_CHECKPOINT as usize <= OPENING_BYTES);

/// A partition to be opened.
struct Wanted {
    topic: Arc<TopicImage>,
    id: PartitionId,
    dir: PathBuf,
}

/// The partitions a shard has taken on.
#[derive(Debug, Default)]
pub(super) struct Hosted {
    /// Bytes that recovery read.
    pub scanned_bytes: u64,
    /// New topics of which a partition could not be made, and why.
    pub failed: HashMap<Uuid, String>,
}

impl Shard {
    /// Opens every partition of `topics` that this shard owns and does not hold yet, as
    /// [`host_partitions`](Self::host_partitions) does.
    pub(super) async fn host(self: &Rc<Self>, topics: Vec<Arc<TopicImage>>, claim: Claim) -> io::Result<Hosted> {
        let ids = |topic: &Arc<TopicImage>| {
            let topic = topic.clone();
            let here = (0..).zip(&topic.partitions).filter(|(_, partition)| self.is_here(partition));
            let indexes: Vec<i32> = here.map(|(index, _)| index).collect();
            indexes.into_iter().map(move |index| (topic.clone(), PartitionId::new(topic.id, index)))
        };
        self.host_partitions(topics.iter().flat_map(ids).collect(), claim).await
    }

    /// Opens those of `partitions` that this shard owns and does not hold yet. `claim`: what a
    /// directory that names another topic means. Of known topics, a partition that cannot be opened
    /// is taken offline and the others are served; of new ones it is a failure of its topic.
    pub(super) async fn host_partitions(
        self: &Rc<Self>,
        partitions: Vec<(Arc<TopicImage>, PartitionId)>,
        claim: Claim,
    ) -> io::Result<Hosted> {
        let mut wanted = Vec::new();
        for (topic, id) in partitions {
            // New partitions must not bring back old ones that are offline.
            let waits = claim != Claim::Known && self.is_unopened(id);
            if self.owner(id) != self.id || self.replica(id).is_some() || waits {
                continue;
            }
            match self.place(&topic, id) {
                Ok(dir) => wanted.push(Wanted { topic, id, dir }),
                Err(why) if claim != Claim::New => self.set_offline(id, why),
                Err(why) => return Err(io::Error::other(format!("{}-{}: {why}", topic.name, id.index))),
            }
        }
        let (slots, opening) = (Budget::new(UNDER_WAY), Budget::new(OPENING));
        let hosted = Rc::new(RefCell::new(Hosted::default()));
        let together = wanted.len().div_ceil(STEPS).min(TOGETHER);
        let mut wanted = wanted.into_iter();
        loop {
            let step: Vec<Wanted> = wanted.by_ref().take(together).collect();
            if step.is_empty() {
                break;
            }
            let mut taken_slots = Vec::with_capacity(step.len());
            for _ in &step {
                taken_slots.push(slots.acquire(1).await);
            }
            let (shard, hosted, opening) = (self.clone(), hosted.clone(), opening.clone());
            spawn_local(async move {
                let taken = shard.take(&step, claim).await;
                for ((wanted, taken), slot) in step.into_iter().zip(taken).zip(taken_slots) {
                    let (shard, hosted) = (shard.clone(), hosted.clone());
                    let turn = opening.acquire(1).await;
                    spawn_local(async move {
                        let outcome = match taken {
                            Ok(taken) => shard.open_taken(&wanted, taken, claim).await,
                            Err(error) => Err(error),
                        };
                        shard.note_outcome(&wanted, outcome, claim, &hosted);
                        drop((turn, slot));
                    });
                }
            });
        }
        slots.acquire(UNDER_WAY).await;
        Ok(hosted.take())
    }

    fn note_outcome(&self, wanted: &Wanted, outcome: io::Result<u64>, claim: Claim, hosted: &RefCell<Hosted>) {
        let Wanted { topic, id, dir } = wanted;
        match outcome.map_err(|e| name_error(dir, e)) {
            Ok(scanned) => hosted.borrow_mut().scanned_bytes += scanned,
            Err(error) if claim != Claim::New => {
                let (topic, partition) = (&topic.name, id.index);
                tracing::error!(%topic, %partition, "the partition is offline: {error}");
                if is_full(&error) {
                    self.open_later(*id);
                }
                self.set_offline(*id, error.to_string());
                self.note_unopened(*id, dir);
            }
            Err(error) => {
                if let (false, Some(root)) = (is_full(&error), dir.parent()) {
                    self.suspect_directory(root);
                }
                hosted.borrow_mut().failed.insert(topic.id, error.to_string());
            }
        }
    }

    pub(super) async fn open(
        self: &Rc<Self>,
        topic: &Arc<TopicImage>,
        id: PartitionId,
        dir: &Path,
        claim: Claim,
    ) -> io::Result<u64> {
        let wanted = [Wanted { topic: topic.clone(), id, dir: dir.to_path_buf() }];
        let mut taken = self.take(&wanted, claim).await;
        let taken = taken.pop().unwrap_or_else(|| Err(io::Error::other("the directory was not looked at")))?;
        self.open_taken(&wanted[0], taken, claim).await
    }

    /// Takes the directories of `wanted` in one step of a helper thread, and looks at them; the
    /// outcomes in their order.
    async fn take(&self, wanted: &[Wanted], claim: Claim) -> Vec<io::Result<TakenDir>> {
        let placement = self.placement();
        let (starting, whole, limit) =
            (self.storage.is_starting(), !meets_faults(), self.storage.limits.sidecar_max_bytes);
        let dirs = wanted.iter().map(|Wanted { topic, id, dir }| {
            let named = starting && placement.named.contains(id);
            (dir.clone(), topic.id, named, self.storage.is_taken_over(dir))
        });
        let dirs: Vec<_> = dirs.collect();
        spawn_blocking(move || {
            let take = |(dir, topic, named, taken_over): (PathBuf, Uuid, bool, bool)| {
                let taken = if named { Taken::Found } else { take_directory(&dir, topic, claim)? };
                let stored = Checkpoint::size(&dir)?;
                let now = taken_over && stored <= SMALL_CHECKPOINT;
                let looked = now.then(|| Replica::look_at_dir(&dir, limit, whole)).transpose()?;
                Ok(TakenDir { taken, stored, looked })
            };
            dirs.into_iter().map(take).collect()
        })
        .await
    }

    async fn open_taken(self: &Rc<Self>, wanted: &Wanted, found: TakenDir, claim: Claim) -> io::Result<u64> {
        let (taken, dir) = (found.taken, &wanted.dir);
        let opened = self.open_replica(wanted, found).await;
        if opened.is_err() && taken == Taken::Made && claim == Claim::New {
            // It is not published yet. On a full disk it takes room, and a start would find
            // a directory of no topic.
            let _ = remove_dir(dir).await;
        }
        opened
    }

    async fn open_replica(
        self: &Rc<Self>,
        Wanted { topic, id, dir }: &Wanted,
        TakenDir { taken, stored, looked }: TakenDir,
    ) -> io::Result<u64> {
        let id = *id;
        if let (Taken::Made | Taken::Named, Some(root)) = (taken, dir.parent()) {
            self.dir_syncs.sync(root).await?;
        }
        // Held while the stored producers are read and taken over.
        let _stored = self.opening.acquire(usize::try_from(stored).unwrap_or(usize::MAX)).await;
        let epoch = topic.partitions.get(id.index.0 as usize).map(|p| p.leader_epoch).unwrap_or_default();
        let (shared, name, config) = (self.shared(), topic.name.clone(), topic.config.clone());
        let start = match self.membership() {
            Some(membership) => Start::Member { membership, high_watermark: self.noted_high_watermark(id) },
            None => Start::Alone(epoch),
        };
        let now_ms = clock::wall_ms();
        let opened = match looked {
            Some(looked) => Replica::open_looked(shared, dir, looked, (id, name), start, config, now_ms).await?,
            None => Replica::open(shared, dir, id, name, start, config, now_ms).await?,
        };
        self.coordinate(&opened.replica);
        self.replicas.borrow_mut().insert(id, opened.replica.clone());
        self.clear_offline(id);
        self.assign_role(&opened.replica);
        Ok(opened.scanned_bytes)
    }

    /// Ends and removes this shard's replicas of `partitions`: they are on other brokers now.
    pub(super) async fn drop_replicas(self: &Rc<Self>, partitions: &HashSet<PartitionId>) {
        let _one = self.hosting.acquire(1).await;
        let gone: Vec<Rc<Replica>> = {
            let mut replicas = self.replicas.borrow_mut();
            replicas.extract_if(|id, _| partitions.contains(id)).map(|(_, replica)| replica).collect()
        };
        partitions.iter().for_each(|id| self.clear_offline(*id));
        self.retire(gone, "of a replica that is elsewhere now failed; it goes at the next start").await;
    }

    /// Ends and removes those of this shard's `partitions` that were never used: their making has
    /// failed elsewhere. One with records is none of these, and stays.
    pub(super) async fn drop_unused(self: &Rc<Self>, partitions: &HashSet<PartitionId>) {
        let _one = self.hosting.acquire(1).await;
        let made: Vec<Rc<Replica>> = {
            let mut replicas = self.replicas.borrow_mut();
            let unused = replicas.extract_if(|id, replica| partitions.contains(id) && replica.log().next_offset() == 0);
            unused.map(|(_, replica)| replica).collect()
        };
        self.retire(made, "of a partition that was not to be failed; remove it when the broker is stopped").await;
    }

    /// Ends replicas that this shard holds no longer, and has their directories removed. `failed`:
    /// whose directory it is that could not be set aside, and what comes of it.
    async fn retire(self: &Rc<Self>, replicas: Vec<Rc<Replica>>, failed: &str) {
        for replica in replicas {
            self.end_coordinator(replica.id);
            self.fetchers.remove(replica.id);
            match replica.retire().await {
                Ok(put_away) => put_away.into_iter().for_each(|dir| self.remove_later(dir)),
                Err(error) => tracing::error!(
                    dir = %replica.log().dir().display(), %error,
                    "setting aside the directory {failed}"
                ),
            }
        }
    }

    /// Ends this shard's partitions of deleted topics and puts their directories away, to be
    /// removed later. Returns the topics of which some could not be put away; the next start does
    /// that, by the topic's record.
    pub(super) async fn drop_topics(self: &Rc<Self>, topics: &HashSet<Uuid>) -> HashSet<Uuid> {
        let _one = self.hosting.acquire(1).await;
        let gone: Vec<Rc<Replica>> = {
            let mut replicas = self.replicas.borrow_mut();
            replicas.extract_if(|id, _| topics.contains(&id.topic)).map(|(_, replica)| replica).collect()
        };
        let mut left = HashSet::new();
        for topic in topics {
            if !self.put_away_unopened(*topic).await {
                left.insert(*topic);
            }
        }
        for replica in gone {
            self.end_coordinator(replica.id);
            self.fetchers.remove(replica.id);
            match replica.retire().await {
                Ok(put_away) => put_away.into_iter().for_each(|dir| self.remove_later(dir)),
                Err(error) => {
                    left.insert(replica.id.topic);
                    tracing::error!(
                        dir = %replica.log().dir().display(), %error,
                        "setting a deleted partition's directory aside failed; it goes at the next start"
                    );
                }
            }
        }
        left
    }
}

/// Renames a directory that belongs to no topic to `<name>.<random>-stray`.
fn set_aside(dir: &Path) -> io::Result<()> {
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let to = dir.with_file_name(aside_name(&name, &Uuid::new_v4().simple().to_string(), STRAY_SUFFIX));
    tracing::warn!(from = %dir.display(), to = %to.display(), "no topic claims this directory: set aside, remove it when it is not needed");
    fs::rename(dir, to)
}

/// Meaning of a partition's directory that names another topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// The topic is new: the directory is left from one of the same name that was
    /// deleted. It is set aside.
    New,
    /// The topic was there before: the directory, or the file that names its topic, is damaged.
    /// Going on without the records in it would be worse than not starting.
    Known,
    /// The metadata that brokers share assigns the partition here, whether it was here before or
    /// not: a directory of another topic is set aside, and what cannot be opened is offline.
    Assigned,
}

/// Outcome of taking a directory. It is there after a crash once the directory
/// that holds it is synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taken {
    /// It was this partition's.
    Found,
    /// The file that names the topic was made.
    Named,
    /// The directory was made.
    Made,
}

/// A partition's directory that was taken.
struct TakenDir {
    taken: Taken,
    /// Bytes of the checkpoint.
    stored: u64,
    /// `None`: it is looked at when it is opened.
    looked: Option<Looked>,
}

/// Makes `dir` the directory of a partition of `topic`. One that was made and cannot be named
/// is removed again. Blocks.
fn take_directory(dir: &Path, topic: Uuid, claim: Claim) -> io::Result<Taken> {
    let path = dir.join(PARTITION_METADATA);
    match fs::read(&path) {
        Ok(found) => match (partition_file::owner(&found, topic), claim) {
            (Owner::This, _) => return Ok(Taken::Found),
            // Cut short by a power cut right after it was made.
            (Owner::Damaged, _) if found.is_empty() => {}
            (Owner::Other, Claim::Assigned) | (_, Claim::New) => set_aside(dir)?,
            // Name and records are the topic's, and no other topic is named.
            (Owner::Damaged, Claim::Known | Claim::Assigned) => tracing::error!(
                file = %path.display(), bytes = found.len(), "the file is damaged: it is made anew with the topic's id"
            ),
            (Owner::Other, Claim::Known) => return Err(names_another(topic)),
        },
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(io::Error::new(e.kind(), format!("cannot read {}: {e}", path.display()))),
    }
    let taken = match fs::create_dir(dir) {
        Ok(()) => Taken::Made,
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Taken::Named,
        Err(e) => return Err(e),
    };
    let named = faults::check_small(&path).and_then(|()| fs::write(&path, partition_metadata(topic)));
    match named {
        Ok(()) => Ok(taken),
        Err(error) => {
            let _ = fs::remove_file(&path);
            if taken == Taken::Made {
                let _ = fs::remove_dir(dir);
            }
            Err(io::Error::new(error.kind(), format!("cannot write {}: {error}", path.display())))
        }
    }
}

fn names_another(topic: Uuid) -> io::Error {
    let message = format!(
        "{PARTITION_METADATA} does not name this topic's id ({}): if the records are this topic's, remove that file; if not, move \
         the directory away",
        crate::model::encode_id(topic)
    );
    io::Error::new(io::ErrorKind::InvalidData, message)
}

fn name_error(dir: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("opening {}: {error}", dir.display()))
}

#[cfg(test)]
#[path = "hosting_tests.rs"]
mod tests;
