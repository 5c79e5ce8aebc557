//! The arenas of a data directory, or of several, as they are, for people. Changes nothing. Blocks.

use std::io;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::FOLDER;
use super::layout::{Identity, PartitionKey, Slot, Unfit, decode_head};
use super::places::noted_places;
use super::replay::{arena_files, read_head, read_slots};
use crate::runtime::fs::File;

/// One arena.
#[derive(Debug)]
pub struct ArenaListing {
    pub path: PathBuf,
    /// Whose it is and its shard, or why it cannot be taken over.
    pub owner: Result<(Identity, u16), Unfit>,
    /// By partition and place.
    pub held: Vec<HeldBytes>,
    /// Damaged entries by number, and what is wrong with each.
    pub damaged: Vec<(usize, &'static str)>,
}

/// Bytes that wait to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HeldBytes {
    pub partition: PartitionKey,
    /// Base offset of the segment.
    pub segment: i64,
    /// Where they begin in the segment's file.
    pub position: u64,
    pub bytes: u64,
}

/// The arenas that belong to a directory.
#[derive(Debug, Default)]
pub struct Listings {
    pub arenas: Vec<ArenaListing>,
    /// Places that the data directory's note names and that cannot be read, and why.
    pub away: Vec<(PathBuf, String)>,
}

/// Lists the arenas of a data directory, wherever they are, or those in a directory of
/// `corelane.arena.dir`; of one in use, as it is at this moment.
pub fn list_arenas(directory: &Path) -> io::Result<Listings> {
    let mut folders = vec![directory.join(FOLDER), directory.to_path_buf()];
    // Each data directory has a folder there that is named by its id.
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.file_name().and_then(|name| Uuid::parse_str(name.to_str()?).ok()).is_some() && path.is_dir() {
            folders.push(path);
        }
    }
    let mut listings = Listings::default();
    for folder in noted_places(directory)? {
        match std::fs::read_dir(&folder) {
            Ok(_) => folders.push(folder),
            Err(error) => listings.away.push((folder, error.to_string())),
        }
    }
    folders.sort();
    folders.dedup();
    for folder in folders {
        for (_, path) in arena_files(&folder)? {
            listings.arenas.push(list(path)?);
        }
    }
    Ok(listings)
}

fn list(path: PathBuf) -> io::Result<ArenaListing> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let file = File::open(&path).map_err(named)?;
    let (head, bytes) = read_head(&file).map_err(named)?;
    let (identity, shard, plan) = match decode_head(&head, bytes) {
        Ok(decoded) => decoded,
        Err(unfit) => return Ok(ArenaListing { path, owner: Err(unfit), held: Vec::new(), damaged: Vec::new() }),
    };
    let (mut held, mut damaged) = (Vec::new(), Vec::new());
    for (index, slot) in read_slots(&file, plan).map_err(named)? {
        match slot {
            Slot::Empty => {}
            Slot::Held(entry, end) => held.push(HeldBytes {
                partition: entry.partition,
                segment: entry.segment,
                position: u64::from(entry.position) + u64::from(entry.carried),
                bytes: u64::from(end - u32::from(entry.carried)),
            }),
            Slot::Damaged(why) => damaged.push((index, why)),
        }
    }
    held.sort();
    Ok(ArenaListing { path, owner: Ok((identity, shard)), held, damaged })
}
