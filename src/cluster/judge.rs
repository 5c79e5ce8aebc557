//! Judgement of the data directories at a start, pure: which are this broker's, which
//! are new, which stay offline. A directory of somebody else ends the start, and nothing
//! has been written by then.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::directory_id::DirectoryId;
use super::image::MetadataImage;
use super::look::{Contents, METADATA_DIR, Seen, Used};
use super::meta_properties::MetaFile;
use super::metadata_store::Stored;

/// The directory that holds the metadata store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    /// Its place in `log.dirs`.
    Held(usize),
    /// A first start: the first directory will hold it.
    First,
    /// The directory with it is gone. Brokers share what was in it, so it is made anew at
    /// this place in `log.dirs`.
    Anew(usize),
}

/// Broker and cluster whose metadata brokers share.
pub type Sharing<'a> = (i32, &'a str);

/// A directory to be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usable {
    pub path: PathBuf,
    pub id: DirectoryId,
    pub state: State,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    Sound,
    /// Holds nothing yet.
    Fresh,
    /// This broker's, with a `meta.properties` to be written again; the text says why.
    Mend(String),
}

/// A directory that is not used until the next start, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfflineDir {
    pub path: PathBuf,
    /// `None`: not known.
    pub id: Option<DirectoryId>,
    pub reason: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// `None`: of a cluster to be made.
    pub cluster_id: Option<String>,
    pub usable: Vec<Usable>,
    pub offline: Vec<OfflineDir>,
}

pub(super) const LEFT: &str = "Nothing in it was changed.";

/// Finds the metadata store; an error where there is none although there is data, unless the
/// directories are those of the broker and cluster of `sharing`.
pub fn find_home(seen: &[Seen], sharing: Option<Sharing>) -> Result<Home, String> {
    if seen.is_empty() {
        return Err("log.dirs names no directory".into());
    }
    for (at, dir) in seen.iter().enumerate() {
        if let Some(first) = seen[..at].iter().find(|other| other.real == dir.real) {
            let (a, b) = (first.path.display(), dir.path.display());
            return Err(format!("log.dirs names one directory twice ({a} and {b}); name it once"));
        }
    }
    let used = || seen.iter().enumerate().filter_map(|(at, dir)| Some((at, dir, dir.used()?)));
    let is_shared = |used: &Used| match &used.meta {
        MetaFile::Sound(meta) => sharing == Some((meta.node_id, meta.cluster_id.as_str())),
        _ => false,
    };
    let mut homes = used().filter(|(_, _, used)| used.metadata);
    if let Some((at, home, first)) = homes.next() {
        return match homes.next() {
            None => Ok(Home::Held(at)),
            // The one that was gone is back.
            Some((_, _, other)) if is_shared(first) && is_shared(other) => Ok(Home::Held(at)),
            Some((_, other, _)) => Err(format!(
                "{} and {} both hold a {METADATA_DIR}: each belongs to a broker of its own, or one is a copy; name only one \
                 in log.dirs. Nothing in them was changed.",
                home.path.display(),
                other.path.display()
            )),
        };
    }
    if let Some((at, ..)) = used().next()
        && used().all(|(_, _, used)| is_shared(used))
    {
        return Ok(Home::Anew(at));
    }
    let unreadable = seen.iter().find_map(|dir| match &dir.contents {
        Contents::Failed(why) => Some(format!("{} cannot be read: {why}", dir.path.display())),
        _ => None,
    });
    let vacant = seen.iter().find(|dir| matches!(dir.contents, Contents::Vacant { .. }));
    if let Some((_, dir, used)) = used().next() {
        let mut message = format!("log.dirs: {} {}", dir.path.display(), used.describe());
        message.push_str(&format!(", and no directory of log.dirs holds a broker's {METADATA_DIR}"));
        if let Some(why) = unreadable {
            message.push_str(&format!(" ({why})"));
        } else if let Some(empty) = vacant {
            message.push_str(&format!(" ({} is missing or empty: is its disk mounted?)", empty.path.display()));
        }
        message.push_str("; mount it, move it here from a directory that was taken out, or name an empty directory for a new broker. ");
        return Err(message + LEFT);
    }
    match unreadable {
        Some(why) => Err(format!(
            "log.dirs: {why}, and no other directory of log.dirs holds the broker's metadata; mend the disk or let this user \
             read and write there, or change log.dirs"
        )),
        None => Ok(Home::First),
    }
}

/// Judges each directory. `random` makes ids for those that have none.
pub fn judge(
    seen: &[Seen],
    home: Home,
    stored: &Stored,
    node_id: i32,
    random: &mut dyn FnMut() -> DirectoryId,
) -> Result<Verdict, String> {
    let cluster_id = cluster_id(seen, home, stored)?;
    let present = present_ids(seen)?;
    let known = Known { stored, present: &present };
    let mut verdict = Verdict { cluster_id: cluster_id.clone(), ..Verdict::default() };
    for (at, dir) in seen.iter().enumerate() {
        match &dir.contents {
            Contents::Failed(why) => verdict.offline.push(OfflineDir {
                path: dir.path.clone(),
                id: known.at(dir),
                reason: format!("{} cannot be read: {why}", dir.path.display()),
            }),
            Contents::Vacant { exists } => match known.at(dir).filter(|id| stored.holds(*id)) {
                Some(id) => verdict.offline.push(OfflineDir {
                    path: dir.path.clone(),
                    id: Some(id),
                    reason: vanished(&dir.path, *exists, id),
                }),
                None => verdict.usable.push(Usable { path: dir.path.clone(), id: random(), state: State::Fresh }),
            },
            Contents::Used(used) => {
                let foreign = || format!("log.dirs: {} {}", dir.path.display(), used.describe());
                match &used.meta {
                    MetaFile::Sound(meta) if meta.node_id != node_id => return Err(other_node(dir, used, node_id)),
                    MetaFile::Sound(meta) if Some(&meta.cluster_id) != cluster_id.as_ref() => {
                        let ours = cluster_id.as_deref().unwrap_or("(new)");
                        let mend = "use the log.dirs it was written with, or another directory.";
                        return Err(format!("{}, and this broker is of cluster {ours}; {mend} {LEFT}", foreign()));
                    }
                    MetaFile::Sound(meta) => verdict.usable.push(match meta.directory_id {
                        Some(id) => Usable { path: dir.path.clone(), id, state: State::Sound },
                        None => {
                            let id = known.at(dir).unwrap_or_else(&mut *random);
                            let why = "it has no directory.id yet".to_owned();
                            Usable { path: dir.path.clone(), id, state: State::Mend(why) }
                        }
                    }),
                    MetaFile::Damaged(_) | MetaFile::Missing if home == Home::Held(at) || known.owns(dir, used) => {
                        let why = match &used.meta {
                            MetaFile::Damaged(what) => format!("it is damaged: {what}"),
                            _ => "it is missing".to_owned(),
                        };
                        let id = known.at(dir).or_else(|| known.by_partitions(used));
                        let id = id.unwrap_or_else(&mut *random);
                        verdict.usable.push(Usable { path: dir.path.clone(), id, state: State::Mend(why) });
                    }
                    _ => {
                        let mend = "name an empty directory, or the one this broker has written.";
                        return Err(format!("{}; {mend} {LEFT}", foreign()));
                    }
                }
            }
        }
    }
    Ok(verdict)
}

/// An error where the directory with the metadata is another broker's.
pub fn check_home(dir: &Seen, node_id: i32) -> Result<(), String> {
    match dir.used() {
        Some(used) if matches!(&used.meta, MetaFile::Sound(meta) if meta.node_id != node_id) => {
            Err(other_node(dir, used, node_id))
        }
        _ => Ok(()),
    }
}

fn other_node(dir: &Seen, used: &Used, node_id: i32) -> String {
    format!(
        "log.dirs: {} {}, and this broker is node.id {node_id}; use the log.dirs and node.id it was written with, or another \
         directory. {LEFT}",
        dir.path.display(),
        used.describe()
    )
}

fn vanished(path: &Path, exists: bool, id: DirectoryId) -> String {
    let state = if exists { "is empty" } else { "does not exist" };
    format!(
        "{} {state}, and data directory {id} with partitions of this broker was there before: mount its disk and start again. \
         If its records are lost for good, delete their topics; it is taken as a new directory afterwards",
        path.display()
    )
}

/// The cluster's id: of the store, or, where that has lost it, of the directories.
fn cluster_id(seen: &[Seen], home: Home, stored: &Stored) -> Result<Option<String>, String> {
    let at = match home {
        Home::First => return Ok(None),
        Home::Held(at) | Home::Anew(at) => at,
    };
    if let Some(why) = &stored.cluster_lost {
        let of = |dir: &Seen| match &dir.used()?.meta {
            MetaFile::Sound(meta) => Some(meta.cluster_id.clone()),
            _ => None,
        };
        let found = of(&seen[at]).or_else(|| seen.iter().find_map(of));
        return found.map(Some).ok_or_else(|| format!("{why}, and no meta.properties of log.dirs names the cluster"));
    }
    Ok(Some(stored.image.cluster_id.clone()))
}

/// Ids of the directories that are there; an error where two have the same.
fn present_ids(seen: &[Seen]) -> Result<HashMap<DirectoryId, &Path>, String> {
    let mut present: HashMap<DirectoryId, &Path> = HashMap::new();
    for dir in seen {
        let Some(Used { meta: MetaFile::Sound(meta), .. }) = dir.used() else { continue };
        let Some(id) = meta.directory_id else { continue };
        if let Some(other) = present.insert(id, &dir.path) {
            return Err(format!(
                "{} and {} have the same directory.id {id}: one is a copy of the other; name only one in log.dirs. Nothing in \
                 them was changed.",
                other.display(),
                dir.path.display()
            ));
        }
    }
    Ok(present)
}

/// Directories that the store knows.
struct Known<'a> {
    stored: &'a Stored,
    present: &'a HashMap<DirectoryId, &'a Path>,
}

impl Known<'_> {
    /// The directory that was at this place before and is nowhere else now.
    fn at(&self, dir: &Seen) -> Option<DirectoryId> {
        let there = |path: &Path| path == dir.path || path == dir.real;
        let known = self.stored.directories.iter().find(|known| there(&known.path))?;
        (!self.present.contains_key(&known.id)).then_some(known.id)
    }

    /// True where the contents prove that the directory is this broker's: topic ids are random.
    fn owns(&self, dir: &Seen, used: &Used) -> bool {
        let ours = |id| self.stored.knows_topic(id);
        let others = used.set_aside.len() + used.other.len();
        let bare = used.partitions.is_empty() && others == 0 && !used.metadata;
        used.partitions.iter().any(|p| p.topic_id.is_some_and(ours)) || bare && self.at(dir).is_some()
    }

    /// The id that most of the partitions found here are recorded under.
    fn by_partitions(&self, used: &Used) -> Option<DirectoryId> {
        let mut votes: HashMap<DirectoryId, usize> = HashMap::new();
        for found in &used.partitions {
            let id = found.topic_id.and_then(|id| recorded(&self.stored.image, id, found.index));
            if let Some(id) = id.filter(|id| !self.present.contains_key(id)) {
                *votes.entry(id).or_default() += 1;
            }
        }
        votes.into_iter().max_by_key(|(id, votes)| (*votes, *id)).map(|(id, _)| id)
    }
}

fn recorded(image: &MetadataImage, topic: uuid::Uuid, index: i32) -> Option<DirectoryId> {
    let partition = image.topic_by_id(topic)?.partitions.get(usize::try_from(index).ok()?)?;
    partition.home.map(|home| home.directory)
}

impl Seen {
    pub fn used(&self) -> Option<&Used> {
        match &self.contents {
            Contents::Used(used) => Some(used),
            _ => None,
        }
    }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
