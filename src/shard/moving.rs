//! Replicas on their way to another data directory (AlterReplicaLogDirs, KIP-113), at their owners.
//!
//! The replica goes on while the segments that take no more appends are copied; its active one
//! is sealed until little is left. Then the log is closed, the rest copied, and the copy
//! opened in its place: clients are told to come again meanwhile. What their names are
//! meanwhile: `storage::moving`.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use uuid::Uuid;

use super::hosting::Claim;
use super::state::{CONTROLLER, Shard};
use crate::cluster::image_diff::ImageUpdate;
use crate::cluster::keeper::Edit;
use crate::cluster::{DirectoryId, PartitionHome};
use crate::config::absolute_dir;
use crate::model::{ErrorCode, PartitionId};
use crate::partition::Replica;
use crate::runtime::disk::is_full;
use crate::runtime::sync::LocalMutex;
use crate::runtime::{spawn_blocking, spawn_local};
use crate::storage::{DirCopy, NotExchanged, exchange, future_name, remove_dir};

/// Bytes that are copied while the log is closed, unless more come meanwhile.
const LAST_BYTES: u64 = 16 << 20;

/// Moves of one shard's replicas.
pub(super) struct Moves {
    under_way: RefCell<HashMap<PartitionId, Rc<Move>>>,
    /// Replicas whose copies take their places now, and where to: that is not called off any more.
    exchanging: RefCell<HashMap<PartitionId, PathBuf>>,
    /// Held while files are copied or renamed: one move after the other.
    turn: Rc<LocalMutex>,
}

impl Default for Moves {
    fn default() -> Moves {
        Moves { under_way: RefCell::default(), exchanging: RefCell::default(), turn: LocalMutex::new(1) }
    }
}

/// One replica's move.
struct Move {
    root: PathBuf,
    /// It was called off.
    cancelled: Cell<bool>,
    /// Of the copy.
    end: Cell<i64>,
    bytes: Cell<u64>,
}

/// A copy of a replica that will take its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FutureReplica {
    pub root: PathBuf,
    pub partition: PartitionId,
    pub bytes: u64,
    /// Offsets that it lacks.
    pub lag: i64,
}

/// Where a move has led to.
enum Ended {
    Moved,
    /// It was called off; the replica is where it was.
    CalledOff,
}

impl Shard {
    /// Begins to move replicas to these data directories, or calls off their moves to others. Each
    /// outcome is there at once.
    pub async fn alter_replica_log_dirs(self: &Rc<Self>, parts: Vec<(PartitionId, PathBuf)>) -> Vec<ErrorCode> {
        let begin = |shard: Rc<Shard>, parts: Vec<(PartitionId, PathBuf)>| async move {
            parts.into_iter().map(|(id, root)| shard.begin_move(id, root).err().unwrap_or(ErrorCode::None)).collect()
        };
        let outcomes = self.scatter(parts, |part| part.0, begin).await;
        outcomes.into_iter().map(|outcome| outcome.unwrap_or(ErrorCode::ReplicaNotAvailable)).collect()
    }

    fn begin_move(self: &Rc<Self>, id: PartitionId, asked: PathBuf) -> Result<(), ErrorCode> {
        let mut known = self.config.log_dirs.iter();
        let root = known
            .find(|root| absolute_dir(root).as_os_str() == asked.as_os_str())
            .ok_or(ErrorCode::LogDirNotFound)?
            .clone();
        self.directory_in_use(&root).ok_or(ErrorCode::KafkaStorageError)?;
        let Some(replica) = self.replica(id) else {
            let offline = self.is_unopened(id) || self.placement().offline.contains_key(&id);
            return Err(if offline { ErrorCode::KafkaStorageError } else { ErrorCode::ReplicaNotAvailable });
        };
        // One that found no room is moved to where there is some.
        let failure = replica.failure().filter(|failure| !failure.is_full());
        if failure.is_some() && !self.moves.under_way.borrow().contains_key(&id) {
            return Err(ErrorCode::KafkaStorageError);
        }
        if let Some(under_way) = self.moves.under_way.borrow().get(&id).filter(|under_way| !under_way.cancelled.get()) {
            if under_way.root == root {
                return Ok(());
            }
            under_way.cancelled.set(true);
        }
        let dir = replica.log().dir();
        // One that is being exchanged is as good as there, and moves back afterwards.
        let target = self.moves.exchanging.borrow().get(&id).cloned();
        if target.as_deref().or(dir.parent()) == Some(&*root) {
            return Ok(());
        }
        let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let tag = Uuid::new_v4().simple().to_string();
        let future = root.join(future_name(&name, &tag).ok_or(ErrorCode::InvalidTopicException)?);
        let (end, bytes) = (Cell::new(replica.start_offset()), Cell::new(0));
        let begun = Rc::new(Move { root, cancelled: Cell::new(false), end, bytes });
        self.moves.under_way.borrow_mut().insert(id, begun.clone());
        let shard = self.clone();
        spawn_local(async move {
            shard.carry_move_out(id, &begun, future).await;
            let mut under_way = shard.moves.under_way.borrow_mut();
            if under_way.get(&id).is_some_and(|current| Rc::ptr_eq(current, &begun)) {
                under_way.remove(&id);
            }
        });
        Ok(())
    }

    /// The id of a data directory that has not failed.
    fn directory_in_use(&self, root: &Path) -> Option<DirectoryId> {
        let placement = self.placement();
        let (id, _) = placement.directories.iter().find(|(_, path)| path == root)?;
        (!self.has_failed(*id)).then_some(*id)
    }

    /// Replicas that are being moved.
    pub(super) fn future_replicas(&self) -> Vec<FutureReplica> {
        let under_way = self.moves.under_way.borrow();
        let told =
            under_way.iter().filter(|(_, under_way)| !under_way.cancelled.get()).filter_map(|(id, under_way)| {
                let lag = self.replica(*id)?.log().next_offset() - under_way.end.get();
                Some(FutureReplica {
                    root: under_way.root.clone(),
                    partition: *id,
                    bytes: under_way.bytes.get(),
                    lag: lag.max(0),
                })
            });
        told.collect()
    }

    /// Waits until no move touches a file any more, after the stop.
    pub(super) async fn end_moves(&self) {
        self.moves.turn.acquire(1).await;
    }

    async fn carry_move_out(self: &Rc<Self>, id: PartitionId, under_way: &Rc<Move>, future: PathBuf) {
        let _turn = self.moves.turn.acquire(1).await;
        while let Some(replica) = self.replica(id).filter(|_| !under_way.cancelled.get() && !self.stop.is_set()) {
            self.carry_out_once(&replica, under_way, &future).await;
            // Opened anew meanwhile: there was room again.
            if self.replica(id).is_none_or(|current| Rc::ptr_eq(&current, &replica)) {
                return;
            }
        }
    }

    async fn carry_out_once(self: &Rc<Self>, replica: &Rc<Replica>, under_way: &Rc<Move>, future: &Path) {
        let id = replica.id;
        let (topic, partition) = (replica.topic.clone(), id.index.0);
        let from = replica.log().dir();
        if from.parent() == Some(&*under_way.root) {
            return;
        }
        tracing::info!(%topic, partition, from = %from.display(), to = %under_way.root.display(), "the replica is being moved");
        let outcome = self.copy_and_swap(replica, under_way, future).await;
        if !matches!(outcome, Ok(Ended::Moved)) {
            let copy = future.to_path_buf();
            if spawn_blocking(move || copy.exists()).await
                && let Err(error) = remove_dir(future).await
            {
                tracing::warn!(dir = %future.display(), %error, "a copy that is not needed stays until the next start");
            }
        }
        match outcome {
            Ok(Ended::Moved) => {
                tracing::info!(%topic, partition, from = %from.display(), to = %under_way.root.display(), "the replica has been moved");
            }
            Ok(Ended::CalledOff) => {
                tracing::info!(%topic, partition, to = %under_way.root.display(), "the replica stays where it was: its move has been called off");
            }
            Err(error) => {
                tracing::error!(%topic, partition, to = %under_way.root.display(), "moving the replica has failed: {error}");
            }
        }
    }

    async fn copy_and_swap(
        self: &Rc<Self>,
        replica: &Rc<Replica>,
        under_way: &Rc<Move>,
        future: &Path,
    ) -> io::Result<Ended> {
        let (id, from) = (replica.id, replica.log().dir());
        let copying = Copying { shard: self, replica, under_way, lacks_room: RefCell::default() };
        let Some(copy) = copying.copy_ahead(&from, future).await? else {
            return Ok(Ended::CalledOff);
        };
        // A start that does not find it must not take it for one that was being made.
        if !self.note_home(id, from.parent().unwrap_or(&from)).await {
            return Err(io::Error::other("the metadata cannot be written"));
        }
        let dir = {
            let _one = self.hosting.acquire(1).await;
            if !copying.goes_on() {
                return Ok(Ended::CalledOff);
            }
            self.moves.exchanging.borrow_mut().insert(id, under_way.root.clone());
            let swapped = self.swap(replica, copy, (&from, future)).await;
            self.moves.exchanging.borrow_mut().remove(&id);
            swapped?
        };
        // Not under `hosting`: whoever changes metadata may wait for it.
        if !self.note_home(id, dir.parent().unwrap_or(&dir)).await && self.image().topic_by_id(id.topic).is_some() {
            tracing::warn!(
                topic = %replica.topic, partition = %id.index, dir = %dir.display(),
                "the metadata does not tell yet where the replica is; the next start finds it"
            );
        }
        Ok(Ended::Moved)
    }

    /// Closes the replica, makes its copy whole, and opens that in its place; returns its
    /// directory. Where this fails, the original is opened again.
    async fn swap(
        self: &Rc<Self>,
        replica: &Rc<Replica>,
        mut copy: DirCopy,
        (from, future): (&Path, &Path),
    ) -> io::Result<PathBuf> {
        let id = replica.id;
        let image = self.image();
        let topic = image.topic_by_id(id.topic).ok_or_else(|| io::Error::other("its topic is being deleted"))?;
        let end = self.close_original(replica, from).await?;
        self.end_to_reopen(replica);
        let exchanged = async {
            // An exchange that has begun is carried through, also while the broker stops.
            copy.finish(&async |_| true).await.map_err(NotExchanged::Kept)?;
            exchange(from, future, async |root| self.dir_syncs.sync(root).await).await
        };
        let (dir, outcome) = match exchanged.await {
            Ok((dir, original)) => {
                self.remove_later(original);
                (dir, Ok(()))
            }
            Err(NotExchanged::Kept(error)) => (from.to_path_buf(), Err(error)),
            Err(NotExchanged::Unknown(error)) => {
                self.lose(replica, from, format!("the next start finds it, or its copy: {error}"));
                replica.replaced();
                return Err(error);
            }
        };
        let there = {
            let dir = dir.clone();
            spawn_blocking(move || dir.is_dir()).await
        };
        let opened = match there {
            true => self.open(topic, id, &dir, Claim::Known).await,
            // Nothing is made anew in its place.
            false => Err(io::Error::other("it is not there any more")),
        };
        let lost = match (&opened, self.replica(id)) {
            (Err(error), _) => Some(format!("opening {}: {error}", dir.display())),
            (Ok(_), Some(fresh)) if fresh.log().next_offset() != end => {
                Some(format!("{} ends at {} where {end} was due", dir.display(), fresh.log().next_offset()))
            }
            _ => None,
        };
        if let Some(why) = lost {
            self.lose(replica, &dir, why);
        }
        replica.replaced();
        outcome.map(|()| dir)
    }

    /// Ends the log that is to be moved; returns the offset at which the next one of its directory
    /// must end. A log that fails now stays as one that fails at any other time, and one that finds
    /// no room is opened anew once there is some.
    async fn close_original(&self, replica: &Replica, from: &Path) -> io::Result<i64> {
        if !replica.is_full() {
            match replica.close_to_move().await {
                Ok(()) => return Ok(replica.log().next_offset()),
                Err(error) if error.is_full() => {}
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        // Without room for a checkpoint it ends as one that was killed.
        replica.cut_back().await.inspect_err(|error| {
            if !is_full(error) {
                self.lose(replica, from, format!("closing it: {error}"));
                replica.replaced();
            }
        })
    }

    /// Takes a partition offline until the next start.
    fn lose(&self, replica: &Replica, dir: &Path, why: String) {
        let id = replica.id;
        tracing::error!(topic = %replica.topic, partition = %id.index, "the partition is offline: {why}");
        self.end_coordinator(id);
        self.replicas.borrow_mut().remove(&id);
        self.set_offline(id, why);
        self.note_unopened(id, dir);
    }

    /// Notes in the metadata which data directory the replica is in; `false`:
    /// they could not be written.
    async fn note_home(self: &Rc<Self>, id: PartitionId, root: &Path) -> bool {
        let Some(directory) = self.directory_in_use(root) else { return false };
        let noted = self.on_shard(CONTROLLER, move |shard| async move { shard.take_home(id, directory).await }).await;
        matches!(noted, Ok(true))
    }

    async fn take_home(self: Rc<Self>, id: PartitionId, directory: DirectoryId) -> bool {
        let home = PartitionHome { directory, since_run: 0 };
        let _one = self.control.acquire(1).await;
        if let Some(member) = self.member() {
            member.images.borrow_mut().move_home(id, home);
        }
        let image = self.image();
        let Some(topic) = image.topic_by_id(id.topic) else { return false };
        let mut topic = (**topic).clone();
        let Some(partition) = usize::try_from(id.index.0).ok().and_then(|index| topic.partitions.get_mut(index)) else {
            return false;
        };
        partition.home = Some(home);
        let topic = std::sync::Arc::new(topic);
        let (revision, stored) = match self.member() {
            Some(_) => (image.version, true),
            None => {
                let edited = self.edit(vec![Edit::Put(topic.clone())]).await;
                let stored = edited.outcomes.iter().all(|outcome| outcome.is_ok());
                (edited.revision, stored)
            }
        };
        self.publish(ImageUpdate::new(&image, vec![topic], &[], revision)).await;
        stored
    }
}

/// The copying of one replica's files while it goes on.
struct Copying<'a> {
    shard: &'a Rc<Shard>,
    replica: &'a Rc<Replica>,
    under_way: &'a Rc<Move>,
    /// A disk that runs out of room refuses the records of all partitions that are there.
    lacks_room: RefCell<Option<io::Error>>,
}

impl Copying<'_> {
    fn goes_on(&self) -> bool {
        let Copying { shard, replica, under_way, .. } = *self;
        let wanted = !under_way.cancelled.get() && !shard.stop.is_set();
        let is_current = shard.replica(replica.id).is_some_and(|current| Rc::ptr_eq(&current, replica));
        wanted && is_current && shard.directory_in_use(&under_way.root).is_some()
    }

    async fn has_room(&self, needed: u64) -> bool {
        let root = &self.under_way.root;
        let disk = self.shard.storage.disk(root);
        let free = disk.look().await.map(|()| disk.room(self.replica.log().uses_reserve()));
        let root = root.display();
        let why = match free {
            Ok(free) if free >= needed => return true,
            Ok(free) => {
                format!("{free} bytes are free in {root} beyond corelane.disk.reserve.bytes, {needed} are needed")
            }
            Err(error) => format!("{root}: {error}"),
        };
        *self.lacks_room.borrow_mut() = Some(io::Error::new(io::ErrorKind::StorageFull, why));
        false
    }

    /// Whether the next bytes are to be copied, once it is their turn.
    async fn next(&self, bytes: usize) -> bool {
        self.shard.keep_move_pace(bytes as u64, &|| self.goes_on()).await;
        self.goes_on() && self.has_room(bytes as u64).await
    }

    /// Begins the copy, and copies until little is left for the time in which the log is closed.
    /// `None`: the move has been called off.
    async fn copy_ahead(&self, from: &Path, future: &Path) -> io::Result<Option<DirCopy>> {
        let log = self.replica.log();
        if !self.has_room(log.size_bytes().saturating_add(LAST_BYTES)).await {
            return Err(self.lacks_room.take().unwrap_or_else(|| io::ErrorKind::StorageFull.into()));
        }
        let mut copy = DirCopy::begin(from.to_path_buf(), future.to_path_buf()).await?;
        let mut sealed_up_to = None;
        loop {
            if !self.copy_sealed(&mut copy).await? {
                return Ok(None);
            }
            let sealed = log.sealed_segments();
            let last_sealed = sealed.last().map(|(base_offset, _)| *base_offset);
            let sealed_bytes: u64 = sealed.iter().map(|(_, bytes)| bytes).sum();
            let unsealed_bytes = log.size_bytes().saturating_sub(sealed_bytes);
            // Cleaning may have replaced what was copied.
            let left = copy.outdated(sealed).await.saturating_add(unsealed_bytes);
            if left <= LAST_BYTES {
                return Ok(Some(copy));
            }
            if unsealed_bytes > LAST_BYTES / 2 {
                // Copied while the log is closed, so much would keep clients waiting.
                if sealed_up_to == Some(last_sealed) {
                    return Err(io::Error::other("the active segment cannot be sealed; see the lines about it"));
                }
                sealed_up_to = Some(last_sealed);
                match log.seal_active().await {
                    Ok(()) => {}
                    // There is no room on its disk: it takes no records anyway.
                    Err(error) if error.is_full() => return Ok(Some(copy)),
                    Err(error) => return Err(io::Error::other(error)),
                }
            }
        }
    }

    /// Copies the segments that take no more appends, but for those whose copies are as they are.
    /// `false`: the move has been called off.
    async fn copy_sealed(&self, copy: &mut DirCopy) -> io::Result<bool> {
        let log = self.replica.log();
        let sealed = log.sealed_segments();
        if !sealed.is_empty() {
            DirCopy::settle().await;
        }
        let mut bytes = 0;
        for (base_offset, size) in sealed {
            if copy.segment(base_offset, &async |bytes| self.next(bytes).await).await? {
                bytes += size;
                self.under_way.bytes.set(bytes);
                let end = log.segment_begin_after(base_offset).unwrap_or(base_offset);
                self.under_way.end.set(end.max(self.under_way.end.get()));
            }
            // Otherwise it has gone meanwhile, by retention or cleaning.
            if let Some(error) = self.lacks_room.take() {
                return Err(error);
            }
            if !self.goes_on() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
