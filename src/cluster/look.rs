//! Data directories as they are found at a start. Reads only: nothing is made, locked or changed
//! before it is known whose directory it is.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::directory_id::decode_id;
use super::meta_properties::{self, MetaFile};
use crate::model::encode_id;
use crate::runtime::side_by_side;
use crate::storage::{
    PARTITION_METADATA, STRAY_SUFFIX, files, is_deleted_dir, is_future_dir, parse_moved_dir, parse_partition_dir,
};

/// Folder of the metadata store, in one of the data directories.
pub const METADATA_DIR: &str = "corelane-metadata";
/// Kafka's mark of a clean stop.
pub const CLEAN_MARK: &str = ".kafka_cleanshutdown";

/// One directory of `log.dirs`.
#[derive(Clone, Debug)]
pub struct Seen {
    /// As configured.
    pub path: PathBuf,
    /// Without symbolic links, as far as there is something.
    pub real: PathBuf,
    pub contents: Contents,
}

#[derive(Clone, Debug)]
pub enum Contents {
    /// Not there, or nothing in it but what may lie in a new directory.
    Vacant {
        exists: bool,
    },
    /// Cannot be looked at, and why.
    Failed(String),
    Used(Used),
}

/// A directory that holds something.
#[derive(Clone, Debug)]
pub struct Used {
    pub meta: MetaFile,
    /// The metadata store is here.
    pub metadata: bool,
    pub partitions: Vec<SeenPartition>,
    /// Whole copies of partitions that were being moved here from another data directory.
    pub moved: Vec<MovedPartition>,
    /// Names of such copies that are not whole.
    pub future: Vec<String>,
    /// Directories of partitions that a deletion has put aside.
    pub deleted: usize,
    /// Names of directories that no topic claimed, and that a start has set aside.
    pub set_aside: Vec<String>,
    /// A few names of what else there is.
    pub other: Vec<String>,
}

/// A partition's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenPartition {
    pub topic: String,
    pub index: i32,
    /// Of `partition.metadata`; `None`: it is missing or damaged.
    pub topic_id: Option<Uuid>,
    /// The file is, byte for byte, that of this id.
    pub sound: bool,
}

/// A whole copy of a partition's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MovedPartition {
    /// Of its directory.
    pub name: String,
    pub of: SeenPartition,
}

/// Names that say nothing about whose directory it is: of file systems, and of starts and
/// stops that left nothing else.
const NEUTRAL: [&str; 4] = ["lost+found", ".lock", "meta.properties.tmp", CLEAN_MARK];
/// Temporary files of this broker.
const NEUTRAL_PREFIXES: [&str; 2] = [".probe-", ".prime-"];
/// Threads that read the files of partitions.
const LOOKING: usize = 4;
/// Names kept for messages.
const OTHER_NAMES: usize = 4;

/// Looks at every directory of `log.dirs`.
pub fn look(paths: &[PathBuf]) -> Vec<Seen> {
    let see = |path: &PathBuf| {
        let contents = contents(path, paths).unwrap_or_else(|e| Contents::Failed(e.to_string()));
        Seen { path: path.clone(), real: real(path), contents }
    };
    paths.iter().map(see).collect()
}

/// Symbolic links that are followed, as the kernel has it.
const LINKS: usize = 40;

/// The path without symbolic links. What is not there has none, but the folders that it would be
/// in may, and it may be a link that leads nowhere: a directory that is away has to have the
/// name by which it was known.
fn real(path: &Path) -> PathBuf {
    let mut path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    for _ in 0..LINKS {
        let found = path.ancestors().find_map(|above| Some((above.to_path_buf(), fs::canonicalize(above).ok()?)));
        let Some((above, there)) = found else { break };
        let Ok(rest) = path.strip_prefix(&above) else { break };
        let mut rest = rest.components();
        let Some(missing) = rest.next() else { return there };
        let below = rest.as_path();
        match fs::read_link(there.join(missing)) {
            Ok(target) if below.as_os_str().is_empty() => path = there.join(target),
            Ok(target) => path = there.join(target).join(below),
            Err(_) if below.as_os_str().is_empty() => return there.join(missing),
            Err(_) => return there.join(missing).join(below),
        }
    }
    path
}

fn contents(path: &Path, all: &[PathBuf]) -> io::Result<Contents> {
    let entries = match fs::read_dir(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Contents::Vacant { exists: false }),
        entries => entries?,
    };
    let meta = MetaFile::look(path)?;
    let mut used = Used {
        meta,
        metadata: false,
        partitions: Vec::new(),
        moved: Vec::new(),
        future: Vec::new(),
        deleted: 0,
        set_aside: Vec::new(),
        other: Vec::new(),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let neutral = NEUTRAL.contains(&name.as_str())
            || NEUTRAL_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
            || name == meta_properties::FILE
            || all.iter().any(|other| other != path && other.starts_with(entry.path()));
        if neutral {
            continue;
        }
        let is_dir = entry.file_type()?.is_dir();
        if name == METADATA_DIR && is_dir {
            used.metadata = holds_metadata(&entry.path())?;
        } else if let (true, Some((topic, index))) = (is_dir, parse_partition_dir(&name)) {
            found.push((topic.to_owned(), index, entry.path()));
        } else if let (true, Some((topic, index))) = (is_dir, parse_moved_dir(&name)) {
            let (topic_id, sound) = topic_id(&entry.path());
            let of = SeenPartition { topic: topic.to_owned(), index, topic_id, sound };
            used.moved.push(MovedPartition { name, of });
        } else if is_dir && is_future_dir(&name) {
            used.future.push(name);
        } else if is_dir && is_deleted_dir(&name) {
            used.deleted += 1;
        } else if is_dir && name.ends_with(STRAY_SUFFIX) {
            used.set_aside.push(name);
        } else if used.other.len() < OTHER_NAMES {
            used.other.push(name);
        }
    }
    let topic_ids = side_by_side(&found, LOOKING, |(_, _, dir)| topic_id(dir));
    let partitions = found.into_iter().zip(topic_ids);
    let seen = |((topic, index, _), (topic_id, sound))| SeenPartition { topic, index, topic_id, sound };
    used.partitions = partitions.map(seen).collect();
    let vacant = used.meta == MetaFile::Missing
        && !used.metadata
        && used.partitions.is_empty()
        && used.moved.is_empty()
        && used.future.is_empty()
        && used.deleted == 0
        && used.set_aside.is_empty()
        && used.other.is_empty();
    Ok(if vacant { Contents::Vacant { exists: true } } else { Contents::Used(used) })
}

/// False for what a first start that ended early leaves: folders, and temporary files.
fn holds_metadata(dir: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            if fs::read_dir(entry.path())?.next().is_some() {
                return Ok(true);
            }
        } else if entry.path().extension().is_some_and(|extension| extension == "json") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The topic id of a partition's directory, `None`: it cannot be told; and whether the file is as
/// it is written for this id.
fn topic_id(dir: &Path) -> (Option<Uuid>, bool) {
    let text = files::read_small(&dir.join(PARTITION_METADATA)).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let Some(text) = text else { return (None, false) };
    let id = parse_partition_metadata(&text);
    (id, id.is_some_and(|id| text == partition_metadata(id)))
}

/// The file that ties a partition's directory to its topic.
pub fn partition_metadata(topic: Uuid) -> String {
    format!("version: 0\ntopic_id: {}\n", encode_id(topic))
}

pub fn parse_partition_metadata(text: &str) -> Option<Uuid> {
    let mut lines = text.lines();
    if lines.next()?.trim() != "version: 0" {
        return None;
    }
    decode_id(lines.next()?.strip_prefix("topic_id:")?.trim())
}

impl Used {
    /// Whose directory it seems to be, for a message.
    pub fn describe(&self) -> String {
        let kafka = |name: &str| self.partitions.iter().any(|p| p.topic == name);
        if kafka("__cluster_metadata") || self.other.iter().any(|name| name == "bootstrap.checkpoint") {
            return "is the data directory of an Apache Kafka node (KRaft)".into();
        }
        match &self.meta {
            MetaFile::ZooKeeper => {
                return "is the data directory of an Apache Kafka broker in ZooKeeper mode (meta.properties of version 0)"
                    .into();
            }
            MetaFile::Sound(meta) => {
                return format!("belongs to node.id {} of cluster {} (meta.properties)", meta.node_id, meta.cluster_id);
            }
            MetaFile::Damaged(what) => return format!("has a damaged meta.properties ({what})"),
            MetaFile::Missing => {}
        }
        if let Some(partition) = self.partitions.first() {
            return format!(
                "has no meta.properties and holds {} partition(s) that no topic of this broker claims ({}-{}, ...)",
                self.partitions.len(),
                partition.topic,
                partition.index
            );
        }
        let names: Vec<&str> = self.other.iter().chain(&self.set_aside).take(OTHER_NAMES).map(String::as_str).collect();
        format!("is not empty and not a data directory of this broker ({}, ...)", names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(root: &Path) -> Contents {
        look(&[root.to_path_buf()]).remove(0).contents
    }

    #[test]
    fn what_may_lie_in_a_new_directory() {
        let root = tempfile::tempdir().unwrap();
        assert!(matches!(seen(&root.path().join("none")), Contents::Vacant { exists: false }));
        for name in ["lost+found", "corelane-metadata/topics", "inner/data"] {
            fs::create_dir_all(root.path().join(name)).unwrap();
        }
        for name in [".lock", ".kafka_cleanshutdown", ".prime-1-2", "corelane-metadata/cluster.tmp"] {
            fs::write(root.path().join(name), "").unwrap();
        }
        let paths = [root.path().to_path_buf(), root.path().join("inner/data")];
        assert!(look(&paths).iter().all(|seen| matches!(seen.contents, Contents::Vacant { exists: true })));
        assert!(matches!(seen(root.path()), Contents::Used(used) if used.other == ["inner"]));
    }

    #[test]
    fn a_directory_that_is_away_has_the_name_by_which_it_was_known() {
        let root = tempfile::tempdir().unwrap();
        let place = root.path().canonicalize().unwrap();
        fs::create_dir_all(place.join("disk/data")).unwrap();
        std::os::unix::fs::symlink(place.join("disk"), place.join("link")).unwrap();
        let configured = place.join("link/data");
        let known = look(std::slice::from_ref(&configured)).remove(0).real;
        assert_eq!(known, place.join("disk/data"));
        std::os::unix::fs::symlink("disk/data", place.join("direct")).unwrap();
        std::os::unix::fs::symlink("circle", place.join("circle")).unwrap();
        fs::remove_dir(&known).unwrap();
        let paths = [configured, place.join("direct"), place.join("link/a/b"), place.join("circle/a")];
        let seen: Vec<PathBuf> = look(&paths).into_iter().map(|seen| seen.real).collect();
        assert_eq!(seen[..3], [known.clone(), known, place.join("disk/a/b")]);
        assert!(seen[3].starts_with(&place), "a circle ends: {:?}", seen[3]);
    }

    #[test]
    fn partitions_and_their_topics() {
        let root = tempfile::tempdir().unwrap();
        let id = Uuid::from_u128(77);
        for (name, text) in [
            ("a-b-3", partition_metadata(id)),
            ("b-0", partition_metadata(id).replace('\n', " \n")),
            ("c-0", "version: 0\ntopic".into()),
        ] {
            fs::create_dir(root.path().join(name)).unwrap();
            fs::write(root.path().join(name).join(PARTITION_METADATA), text).unwrap();
        }
        let Contents::Used(mut used) = seen(root.path()) else { panic!("not empty") };
        used.partitions.sort_by(|a, b| a.topic.cmp(&b.topic));
        let found: Vec<_> = used.partitions.iter().map(|p| (p.topic.as_str(), p.index, p.topic_id, p.sound)).collect();
        assert_eq!(found, [("a-b", 3, Some(id), true), ("b", 0, Some(id), false), ("c", 0, None, false)]);
        assert!(used.describe().contains("no topic of this broker claims"));
    }

    #[test]
    fn directories_of_kafka_are_known_as_such() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("meta.properties"), "version=0\nbroker.id=1\ncluster.id=x\n").unwrap();
        assert!(matches!(seen(root.path()), Contents::Used(used) if used.describe().contains("ZooKeeper")));
        fs::create_dir(root.path().join("__cluster_metadata-0")).unwrap();
        assert!(matches!(seen(root.path()), Contents::Used(used) if used.describe().contains("KRaft")));
    }
}
