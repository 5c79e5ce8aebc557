//! Which data directory each partition is in, and which partitions stay offline
//! because theirs is not there.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::directory_id::DirectoryId;
use super::image::{MetadataImage, OfflinePartitions, PartitionHome, PartitionImage, TopicImage};
use super::judge::OfflineDir;
use super::look::{MovedPartition, SeenPartition};
use super::metadata_store::Stored;
use crate::config::ServerConfig;
use crate::model::PartitionId;
use crate::storage::partition_dir;

/// The data directories of this run.
#[derive(Clone, Debug, Default)]
pub struct Placement {
    /// In the order of `log.dirs`.
    pub directories: Vec<(DirectoryId, PathBuf)>,
    /// Partitions whose directory is missing or in doubt, and why.
    pub offline: OfflinePartitions,
    /// Partitions whose only directory has a sound file that names their topic, as of the start.
    pub named: HashSet<PartitionId>,
    /// Number of this run.
    pub run: u64,
}

impl Placement {
    /// Where the partition's directory is, or will be; `None`: its data directory is not there.
    pub fn dir(&self, topic: &TopicImage, index: i32) -> Option<PathBuf> {
        let home = topic.partitions.get(usize::try_from(index).ok()?)?.home?;
        let (_, root) = self.directories.iter().find(|(id, _)| *id == home.directory)?;
        Some(partition_dir(root, &topic.name, index))
    }

    /// The data directory of a new partition: the one that holds the fewest. Cordoned ones get
    /// none; where all are, the first one does, as in Kafka: the partition was assigned before.
    pub fn emptiest(&self, settings: &ServerConfig, held: impl Fn(DirectoryId) -> usize) -> Option<DirectoryId> {
        let open = self.directories.iter().filter(|(_, path)| !settings.is_cordoned(path)).map(|(id, _)| *id);
        open.min_by_key(|id| held(*id)).or_else(|| self.directories.first().map(|(id, _)| *id))
    }

    /// Gives each partition without one a home.
    pub fn settle(&self, image: &MetadataImage, settings: &ServerConfig, topic: &mut TopicImage) {
        if topic.partitions.iter().all(|partition| partition.home.is_some()) {
            return;
        }
        let mut held = Held::default();
        if self.directories.len() > 1 {
            image.topics().for_each(|topic| held.count(topic));
        }
        held.settle(self, settings, topic, |_| true);
    }
}

/// Partitions by data directory.
#[derive(Default)]
struct Held(HashMap<DirectoryId, usize>);

impl Held {
    fn count(&mut self, topic: &TopicImage) {
        for home in topic.partitions.iter().filter_map(|partition| partition.home) {
            *self.0.entry(home.directory).or_default() += 1;
        }
    }

    fn settle(
        &mut self,
        placement: &Placement,
        settings: &ServerConfig,
        topic: &mut TopicImage,
        is_here: impl Fn(&PartitionImage) -> bool,
    ) {
        let id = topic.id;
        let new = topic.partitions.iter_mut().zip(0..).filter(|(partition, index)| {
            // One that is offline may have a directory that is not there.
            let offline = placement.offline.contains_key(&PartitionId::new(id, *index));
            partition.home.is_none() && is_here(partition) && !offline
        });
        for (partition, _) in new {
            let held = |id| self.0.get(&id).copied().unwrap_or(0);
            let Some(directory) = placement.emptiest(settings, held) else { return };
            *self.0.entry(directory).or_default() += 1;
            partition.home = Some(PartitionHome { directory, since_run: placement.run });
        }
    }
}

/// Contents of one data directory that could be opened.
pub struct Opened<'a> {
    pub id: DirectoryId,
    pub path: PathBuf,
    pub partitions: &'a [SeenPartition],
    pub moved: &'a [MovedPartition],
    /// Names of copies that are not whole.
    pub future: &'a [String],
    /// The last run ended cleanly here.
    pub clean: bool,
}

/// Assignment of the partitions' directories by a start.
#[derive(Debug, Default)]
pub struct Assignment {
    pub placement: Placement,
    /// Topics whose partitions have other homes than are stored.
    pub changed: Vec<TopicImage>,
    /// Directories of deleted topics, and copies of partitions whose original is there.
    pub doomed: Vec<PathBuf>,
    /// Copies of partitions that were being moved, whose original is gone: they take its name.
    pub promoted: Vec<Promotion>,
    /// Deleted topics all of whose directories are known to be gone or doomed.
    pub forgotten: Vec<Uuid>,
    /// Directories that no topic claims: by topic name, with one of them each.
    pub unclaimed: Vec<(String, PathBuf)>,
    /// All of these whose topic's id is known.
    pub strays: Vec<Stray>,
    /// Log lines about partitions that were moved or are made anew.
    pub remarks: Vec<String>,
    /// Partitions whose only replica was here, on a broker that has lost all its directories. They
    /// are made anew.
    pub emptied: Vec<PartitionId>,
    /// Partitions stay offline because of [`OtherDirectories::gone`].
    pub waits_for_gone: bool,
}

/// Knowledge of a copy's original.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Original {
    There,
    Gone,
    /// Its data directory is not in reach.
    Unknown,
}

/// A copy that takes the name of its original.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promotion {
    pub partition: PartitionId,
    pub from: PathBuf,
    pub to: PathBuf,
}

/// Directory of a replica that no topic claims.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stray {
    pub path: PathBuf,
    pub topic: String,
    pub partition: PartitionId,
    pub directory: DirectoryId,
}

/// A directory of a partition, in which data directory it is, the topic's id by its file,
/// and whether this is sound.
type Found = (DirectoryId, PathBuf, Option<Uuid>, bool);

type Copies<'a> = HashMap<(&'a str, i32), Vec<Found>>;

/// Finds each partition's directory among those that could be opened. `settings`: those in force.
pub fn assign(stored: &Stored, opened: &[Opened], offline_dirs: &[OfflineDir], settings: &ServerConfig) -> Assignment {
    let run = stored.run + 1;
    let directories = opened.iter().map(|dir| (dir.id, dir.path.clone())).collect();
    let placement = Placement { directories, run, ..Placement::default() };
    let mut assigning = Assigning {
        stored,
        settings,
        opened,
        offline_dirs,
        copies: copies(opened),
        held: Held::default(),
        out: Assignment { placement, ..Assignment::default() },
    };
    stored.image.topics().for_each(|topic| assigning.held.count(topic));
    for topic in stored.image.topics() {
        assigning.place(topic);
    }
    assigning.sort_out_the_rest();
    assigning.out
}

fn copies<'a>(opened: &'a [Opened]) -> Copies<'a> {
    let mut copies = Copies::new();
    for dir in opened {
        for found in dir.partitions {
            let path = partition_dir(&dir.path, &found.topic, found.index);
            copies.entry((&found.topic, found.index)).or_default().push((dir.id, path, found.topic_id, found.sound));
        }
    }
    copies
}

struct Assigning<'a> {
    stored: &'a Stored,
    settings: &'a ServerConfig,
    opened: &'a [Opened<'a>],
    offline_dirs: &'a [OfflineDir],
    copies: Copies<'a>,
    held: Held,
    out: Assignment,
}

impl<'a> Assigning<'a> {
    fn place(&mut self, topic: &'a TopicImage) {
        let mut changed = topic.clone();
        for (index, _) in topic.partitions.iter().enumerate().filter(|(_, partition)| self.stored.is_here(partition)) {
            match self.home(topic, index as i32) {
                Ok(home) => changed.partitions[index].home = home,
                Err(why) => {
                    let partition = PartitionId::new(topic.id, index as i32);
                    self.out.placement.offline.insert(partition, why.into());
                }
            }
        }
        self.held.settle(&self.out.placement, self.settings, &mut changed, |partition| self.stored.is_here(partition));
        if changed.partitions != topic.partitions {
            self.out.changed.push(changed);
        }
    }

    /// Where a partition lives; `Ok(None)`: nowhere yet. The error says why it stays offline.
    fn home(&mut self, topic: &'a TopicImage, index: i32) -> Result<Option<PartitionHome>, String> {
        let recorded = topic.partitions.get(index as usize).and_then(|partition| partition.home);
        let all = self.copies.remove(&(&*topic.name, index)).unwrap_or_default();
        let (mut own, mut others) = (Vec::new(), Vec::new());
        for copy in all {
            let ours = copy.2.is_none_or(|id| id == topic.id) || recorded.is_some_and(|home| home.directory == copy.0);
            if ours { own.push(copy) } else { others.push(copy) }
        }
        others.into_iter().for_each(|copy| self.not_claimed(&topic.name, index, copy));
        if let [(.., Some(named), true)] = own.as_slice()
            && *named == topic.id
        {
            self.out.placement.named.insert(PartitionId::new(topic.id, index));
        }
        // An original that is in a directory out of reach may have gone on after the copy was made.
        let looked_at = match recorded {
            Some(home) => self.opened.iter().any(|dir| dir.id == home.directory),
            None => self.offline_dirs.is_empty(),
        };
        let original = match (own.is_empty(), looked_at) {
            (true, true) => Original::Gone,
            (true, false) => Original::Unknown,
            (false, _) => Original::There,
        };
        if let Some(home) = self.moved_home(topic, index, original) {
            return Ok(Some(home));
        }
        match (own.as_slice(), recorded) {
            ([(id, ..)], Some(home)) if *id == home.directory => Ok(Some(home)),
            ([(id, path, Some(_), _)], _) => {
                let since_run = recorded.map_or(0, |home| home.since_run);
                if let Some(home) = recorded {
                    let before = self.name_of(home.directory);
                    self.out.remarks.push(format!("{} is taken over: it was in {before} before", path.display()));
                }
                Ok(Some(PartitionHome { directory: *id, since_run }))
            }
            ([(id, ..)], None) => Ok(Some(PartitionHome { directory: *id, since_run: 0 })),
            ([_, _, ..], _) => {
                let paths: Vec<_> = own.iter().map(|(_, path, ..)| path.display().to_string()).collect();
                Err(format!(
                    "its directory is in more than one data directory ({}): move all but the right one away and start again",
                    paths.join(" and ")
                ))
            }
            (_, Some(home)) => self.not_found(topic, index, home).map(Some),
            (_, None) => match self.offline_dirs.first() {
                Some(dir) => Err(format!("its directory may be in one that is not there: {}", dir.reason)),
                None => self.nowhere(topic, index).map(|()| None),
            },
        }
    }

    /// No data directory has the partition, and nobody has noted which one had it. One of which
    /// this broker has the only replica would come back empty.
    fn nowhere(&mut self, topic: &TopicImage, index: i32) -> Result<(), String> {
        let (stored, id) = (self.stored, PartitionId::new(topic.id, index));
        let (Some(me), Some(partition)) = (stored.shared_by, topic.partitions.get(index as usize)) else {
            return Ok(());
        };
        let counts = partition.isr.contains(&me) || partition.elr.contains(&me) || partition.last_leader == Some(me);
        if partition.replicas != [me] || !counts {
            return Ok(());
        }
        let others = &stored.others;
        if others.all_fresh {
            self.out.emptied.push(id);
            return Ok(());
        }
        // It has been led by one registration only: a crash may have come before its directory.
        let may_be_new = others.gone.is_empty() && !others.list_lost && partition.leader_epoch.0 == 0;
        if may_be_new && self.opened.iter().any(|dir| !dir.clean) {
            self.out.remarks.push(format!(
                "{}-{index} is in no data directory and is made new: the last run, which did not end cleanly, was making it",
                topic.name
            ));
            return Ok(());
        }
        self.out.waits_for_gone |= !others.gone.is_empty();
        let before: Vec<_> = others.gone.iter().map(|known| known.path.display().to_string()).collect();
        let (before, again) = match before.as_slice() {
            [] => (String::new(), "restore it"),
            paths => (format!(" (before, {} was there as well)", paths.join(", ")), "mount that, name it in log.dirs"),
        };
        Err(format!(
            "its directory is in none of log.dirs{before}, and no other broker has a replica: {again} and start again, or, if its \
             records are lost for good, delete the topic, or make an empty directory TOPIC-PARTITION in one of log.dirs and start again"
        ))
    }

    /// The home of a partition by its copy, where the last run ended while it was being moved: the
    /// copy is whole, and the original may be gone already.
    fn moved_home(&mut self, topic: &TopicImage, index: i32, original: Original) -> Option<PartitionHome> {
        let opened = self.opened;
        let is_it = |moved: &&MovedPartition| {
            (&*moved.of.topic, moved.of.index, moved.of.topic_id) == (&*topic.name, index, Some(topic.id))
        };
        let mut home = None;
        for dir in opened {
            for moved in dir.moved.iter().filter(is_it) {
                let (from, to) = (dir.path.join(&moved.name), partition_dir(&dir.path, &topic.name, index));
                if original == Original::Gone && home.is_none() {
                    self.out
                        .remarks
                        .push(format!("{} has been moved here: the last run ended meanwhile", to.display()));
                    self.out.promoted.push(Promotion { partition: PartitionId::new(topic.id, index), from, to });
                    home = Some(PartitionHome { directory: dir.id, since_run: 0 });
                } else if original != Original::Unknown {
                    self.out.doomed.push(from);
                }
            }
        }
        home
    }

    /// The recorded home does not hold the partition.
    fn not_found(&mut self, topic: &TopicImage, index: i32, home: PartitionHome) -> Result<PartitionHome, String> {
        if let Some(dir) = self.opened.iter().find(|dir| dir.id == home.directory) {
            let path = partition_dir(&dir.path, &topic.name, index);
            // A crash may have come between the topic's record and its directories.
            let may_be_new = !dir.clean && home.since_run >= self.stored.run;
            if may_be_new && !self.offline_dirs.is_empty() {
                // It may have been moved there since it was made.
                return Err(format!(
                    "{} is not there, and a data directory is missing that may hold it: mount its disk and start again",
                    path.display()
                ));
            }
            if may_be_new {
                self.out.remarks.push(format!(
                    "{} is not there and is made new: the last run, which did not end cleanly, was making it",
                    path.display()
                ));
                return Ok(home);
            }
            return Err(format!(
                "{} is missing: restore it and start again, or delete the topic if its records are lost for good",
                path.display()
            ));
        }
        if let Some(dir) = self.offline_dirs.iter().find(|dir| dir.id == Some(home.directory)) {
            return Err(dir.reason.clone());
        }
        Err(format!(
            "its data directory {} is missing: mount its disk, name it in log.dirs and start again, or delete the topic if its \
             records are lost for good",
            self.name_of(home.directory)
        ))
    }

    fn name_of(&self, id: DirectoryId) -> String {
        let path = self.stored.directories.iter().find(|known| known.id == id).map(|known| known.path.display());
        path.map_or_else(|| id.to_string(), |path| format!("{id}, last at {path},"))
    }

    fn not_claimed(&mut self, topic: &str, index: i32, (directory, path, id, _): Found) {
        if id.is_some_and(|id| self.stored.deleted.iter().any(|deleted| deleted.id == id)) {
            self.out.doomed.push(path);
        } else {
            let stray = |id| Stray {
                path: path.clone(),
                topic: topic.to_owned(),
                partition: PartitionId::new(id, index),
                directory,
            };
            self.out.strays.extend(id.map(stray));
            self.out.unclaimed.push((topic.to_owned(), path));
        }
    }

    /// Copies that are not whole, or of partitions of topics that are deleted or not this
    /// broker's any more. One of a topic that is not known stays: its record may come back, and
    /// the copy may be all there is.
    fn doom_copies(&mut self) {
        let opened = self.opened;
        for dir in opened {
            self.out.doomed.extend(dir.future.iter().map(|name| dir.path.join(name)));
            for moved in dir.moved {
                let path = dir.path.join(&moved.name);
                let Some(id) = moved.of.topic_id else {
                    self.out.unclaimed.push((moved.of.topic.clone(), path));
                    continue;
                };
                match self.stored.image.topic_by_id(id) {
                    None if self.stored.deleted.iter().any(|deleted| deleted.id == id) => self.out.doomed.push(path),
                    None => self.out.unclaimed.push((moved.of.topic.clone(), path)),
                    Some(topic) => {
                        let index = usize::try_from(moved.of.index).unwrap_or(usize::MAX);
                        if !topic.partitions.get(index).is_some_and(|partition| self.stored.is_here(partition)) {
                            self.out.doomed.push(path);
                        }
                    }
                }
            }
        }
    }

    fn sort_out_the_rest(&mut self) {
        self.doom_copies();
        let mut rest: Vec<_> = std::mem::take(&mut self.copies).into_iter().collect();
        rest.sort();
        for ((topic, index), copies) in rest {
            copies.into_iter().for_each(|copy| self.not_claimed(topic, index, copy));
        }
        let mut named = HashSet::new();
        self.out.unclaimed.retain(|(topic, _)| named.insert(topic.clone()));
        for deleted in &self.stored.deleted {
            // A directory that is no longer known was replaced by a new one.
            let known = |id| self.stored.directories.iter().any(|known| known.id == id);
            let there =
                |home: PartitionHome| self.opened.iter().any(|dir| dir.id == home.directory) || !known(home.directory);
            if deleted.partitions.iter().all(|partition| partition.home.is_none_or(there)) {
                self.out.forgotten.push(deleted.id);
            }
        }
    }
}

/// A line about directories that no topic claims.
pub fn unclaimed_line(image: &MetadataImage, topic: &str, example: &Path) -> String {
    let example = example.display();
    if image.topic(topic).is_some() {
        return format!(
            "{example} is not a partition of topic {topic} as it is now: it stays as it is and is not served; move it away when \
             it is not needed"
        );
    }
    format!(
        "no topic of this broker claims {example}: the file of topic {topic} in corelane-metadata/topics is lost, or the \
         directory is somebody else's. It stays as it is, and no new topic may take the name; restore the file and start \
         again, or move the topic's directories away"
    )
}

#[cfg(test)]
#[path = "placement_tests.rs"]
mod tests;
