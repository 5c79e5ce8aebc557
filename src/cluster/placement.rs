//! Which data directory each partition is in, and which partitions stay offline because theirs is not there.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::directory_id::DirectoryId;
use super::image::{MetadataImage, OfflinePartitions, PartitionHome, PartitionImage, TopicImage};
use super::judge::OfflineDir;
use super::look::SeenPartition;
use super::metadata_store::Stored;
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

    /// Gives each partition without one a home: the data directory that holds the fewest partitions.
    pub fn settle(&self, image: &MetadataImage, topic: &mut TopicImage) {
        if topic.partitions.iter().all(|partition| partition.home.is_some()) {
            return;
        }
        let mut held = Held::default();
        if self.directories.len() > 1 {
            image.topics().for_each(|topic| held.count(topic));
        }
        held.settle(self, topic, |_| true);
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

    fn settle(&mut self, placement: &Placement, topic: &mut TopicImage, is_here: impl Fn(&PartitionImage) -> bool) {
        let id = topic.id;
        let new = topic.partitions.iter_mut().zip(0..).filter(|(partition, index)| {
            // One that is offline may have a directory that is not there.
            let offline = placement.offline.contains_key(&PartitionId::new(id, *index));
            partition.home.is_none() && is_here(partition) && !offline
        });
        for (partition, _) in new {
            let ids = placement.directories.iter().map(|(id, _)| *id);
            let Some(directory) = ids.min_by_key(|id| self.0.get(id).copied().unwrap_or(0)) else { return };
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
    /// The last run ended cleanly here.
    pub clean: bool,
}

/// Assignment of the partitions' directories by a start.
#[derive(Debug, Default)]
pub struct Assignment {
    pub placement: Placement,
    /// Topics whose partitions have other homes than are stored.
    pub changed: Vec<TopicImage>,
    /// Directories of deleted topics.
    pub doomed: Vec<PathBuf>,
    /// Deleted topics all of whose directories are known to be gone or doomed.
    pub forgotten: Vec<Uuid>,
    /// Directories that no topic claims: by topic name, with one of them each.
    pub unclaimed: Vec<(String, PathBuf)>,
    /// All of these whose topic's id is known.
    pub strays: Vec<Stray>,
    /// Log lines about partitions that were moved or are made anew.
    pub remarks: Vec<String>,
}

/// Directory of a replica that no topic claims.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stray {
    pub path: PathBuf,
    pub topic: String,
    pub partition: PartitionId,
    pub directory: DirectoryId,
}

/// A directory of a partition, in which data directory it is, the topic's id by its file, and whether this is sound.
type Found = (DirectoryId, PathBuf, Option<Uuid>, bool);

type Copies<'a> = HashMap<(&'a str, i32), Vec<Found>>;

/// Finds each partition's directory among those that could be opened.
pub fn assign(stored: &Stored, opened: &[Opened], offline_dirs: &[OfflineDir]) -> Assignment {
    let run = stored.run + 1;
    let directories = opened.iter().map(|dir| (dir.id, dir.path.clone())).collect();
    let placement = Placement { directories, run, ..Placement::default() };
    let mut assigning = Assigning {
        stored,
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
        self.held.settle(&self.out.placement, &mut changed, |partition| self.stored.is_here(partition));
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
                None => Ok(None),
            },
        }
    }

    /// The recorded home does not hold the partition.
    fn not_found(&mut self, topic: &TopicImage, index: i32, home: PartitionHome) -> Result<PartitionHome, String> {
        if let Some(dir) = self.opened.iter().find(|dir| dir.id == home.directory) {
            let path = partition_dir(&dir.path, &topic.name, index);
            // A crash may have come between the topic's record and its directories.
            if !dir.clean && home.since_run >= self.stored.run {
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

    fn sort_out_the_rest(&mut self) {
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
