//! The arenas of a data directory as they are, for people. Changes nothing. Blocks.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::FOLDER;
use super::layout::{Identity, PartitionKey, Slot, Unfit, decode_head};
use super::replay::{arena_files, read_head, read_slots};

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

/// Lists the arenas of the data directory at `root`; of one in use, as it is at this moment.
pub fn list_arenas(root: &Path) -> io::Result<Vec<ArenaListing>> {
    std::fs::metadata(root)?;
    arena_files(&root.join(FOLDER))?.into_iter().map(|(_, path)| list(path)).collect()
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
