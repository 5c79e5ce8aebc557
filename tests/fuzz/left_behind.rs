//! Work that a crash has ended on its way, as a start finds it: exchanges of cleaned segments,
//! where cleaning was, and arenas.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Seek, SeekFrom};

use corelane::cluster::decode_id;
use corelane::model::record_batch;
use corelane::model::records;
use corelane::storage::{
    Bounds, Home, Identity, PartitionKey, list_arenas, parse_cleaner_checkpoint, recover_swaps, replay, survey,
};

use super::{batch_at, crc32c, in_memory, put_right};

// ---- swap files: what a start finds of an exchange of cleaned segments. One byte picks the
// cleaned segment's base, one what else is there; the rest is `<base>.log.swap`.

const SWAP_BASES: [i64; 4] = [0, 3, 6, 5];

pub fn swap_files(data: &[u8]) {
    let [which, there, swap @ ..] = data else { return };
    let base = SWAP_BASES[usize::from(*which) % SWAP_BASES.len()];
    let dir = in_memory();
    let file = |base: i64, extension: &str| dir.path().join(format!("{base:020}.{extension}"));
    let mut old = BTreeMap::new();
    for (bit, at) in [0, 3, 6].into_iter().enumerate() {
        let state = there >> (2 * bit) & 3;
        // Put away is what a committed exchange has begun to replace.
        let extension = match state {
            0 => continue,
            1 if at > base => "log.deleted",
            _ => "log",
        };
        std::fs::write(file(at, extension), batch_at(at)).unwrap();
        old.insert(at, extension);
    }
    std::fs::write(file(base, "log.swap"), swap).unwrap();
    if there & 64 != 0 {
        std::fs::write(file(base, "index.swap"), [0; 8]).unwrap();
    }
    recover_swaps(dir.path()).unwrap();
    let left: Vec<String> =
        std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(left.iter().all(|name| !name.ends_with(".swap") && !name.ends_with(".cleaned")), "{left:?}");
    let had_base = old.get(&base) == Some(&"log");
    if had_base && swap == batch_at(base) {
        // Old and new cannot be told apart.
        return;
    }
    let replaced = std::fs::read(file(base, "log")).ok().as_deref() == Some(swap);
    // Where the cleaned segment ends, if all of it is sound.
    let end = swap_end(&file(base, "log"), swap.len(), base).filter(|_| replaced);
    for (at, extension) in &old {
        let stays = std::fs::read(file(*at, "log")).ok() == Some(batch_at(*at));
        match end {
            // In its place, or one of those that it was made of.
            _ if replaced && *at == base => {}
            Some(end) if replaced && (base..end).contains(at) => {}
            _ if *extension == "log" => assert!(stays, "{at} is gone; {left:?}"),
            // Not replaced after all.
            _ if !replaced && had_base => assert!(stays, "{at} was not put back; {left:?}"),
            _ => {}
        }
    }
    if had_base && replaced {
        assert!(end.is_some_and(|end| old.get(&end) == Some(&"log")), "a segment gave way to damage: {end:?} {left:?}");
    }
    recover_swaps(dir.path()).unwrap();
}

fn swap_end(path: &std::path::Path, size: usize, base: i64) -> Option<i64> {
    let size = size as u64;
    let bounds =
        Bounds { size, from_offset: base, end_offset: i64::MAX, end_known: false, gap_at_end: true, reserved: false };
    let stretches = survey(&std::fs::File::open(path).ok()?, 0, bounds).unwrap();
    let read = stretches.last().map_or(0, |stretch| stretch.bytes.end);
    let sound = read == size && stretches.iter().all(|stretch| stretch.sound);
    sound.then(|| stretches.last().map_or(base, |stretch| stretch.offsets.end))
}

pub fn swap_file_seeds() -> Vec<Vec<u8>> {
    let (one, two) = (batch_at(0), [batch_at(0), batch_at(3)].concat());
    let mut seeds = Vec::new();
    for there in [0b10_10_10, 0b10_01_10, 0b10_00_00, 0b100_1010, 0b10_01_00] {
        for swap in [&one, &two] {
            seeds.push([&[0, there], &swap[..]].concat());
        }
        seeds.push([&[1, there], &batch_at(3)[..]].concat());
    }
    seeds
}

// ---- cleaner checkpoint: `cleaner-offset-checkpoint` of a partition's directory

pub fn cleaner_checkpoint(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Some(offset) = parse_cleaner_checkpoint(&text, "t", 0) {
        assert!(offset >= 0);
        assert_eq!(parse_cleaner_checkpoint(&text, "t", 1), None, "another partition's");
        assert_eq!(parse_cleaner_checkpoint(&format!("0\n1\nt 0 {offset}\n"), "t", 0), Some(offset));
    }
}

pub fn cleaner_checkpoint_seeds() -> Vec<Vec<u8>> {
    ["0\n1\nt 0 120\n", "0\n1\nt 0 9223372036854775807\n", "0\n0\n", "0\n2\nt 0 1\nt 1 2\n"]
        .map(|text| text.as_bytes().to_vec())
        .into()
}

// ---- arena: batches that a killed broker had acknowledged from memory. One byte of flags, one
// with the number of slots, the slots, then the bytes of each slot's chunk behind their length
// (u16); what follows in a chunk is zeros.

const ARENA_PAGE: usize = 4096;
/// The smallest: a head, two pages of table, 64 of chunks.
const ARENA_BYTES: usize = 67 * ARENA_PAGE;
const SLOT: usize = 64;

pub fn arena(data: &[u8]) {
    let [flags, count, rest @ ..] = data else { return };
    let dir = in_memory();
    let [boot, directory] = ["AAAAAAAAAAAAAAAAAAAAAQ", "AAAAAAAAAAAAAAAAAAAAAg"].map(|id| decode_id(id).unwrap());
    let identity = Identity { boot, cluster: "abc".into(), directory };
    let mut file = vec![0; ARENA_BYTES];
    file[..132].copy_from_slice(&arena_head());
    let (slots, mut chunks) = rest.split_at((usize::from(*count % 16) * SLOT).min(rest.len() / SLOT * SLOT));
    for (index, slot) in slots.chunks_exact(SLOT).enumerate() {
        let mut slot = slot.to_vec();
        // Checksums put right, so that the fuzzer gets behind them.
        if flags & 1 == 0 {
            let crc = crc32c(&slot[..52]);
            slot[52..56].copy_from_slice(&crc.to_le_bytes());
            let crc = crc32c(&slot[56..60]);
            slot[60..].copy_from_slice(&crc.to_le_bytes());
        }
        file[ARENA_PAGE + index * SLOT..][..SLOT].copy_from_slice(&slot);
        let Some((length, more)) = chunks.split_first_chunk::<2>() else { continue };
        let bytes = &more[..usize::from(u16::from_le_bytes(*length)).min(more.len()).min(ARENA_PAGE)];
        file[(3 + index) * ARENA_PAGE..][..bytes.len()].copy_from_slice(bytes);
        chunks = &more[bytes.len()..];
    }
    // The head, or the length, damaged.
    if flags & 2 != 0 {
        let at = usize::from(*count) % 132;
        file[at] ^= flags | 1;
    }
    if flags & 4 != 0 {
        file.truncate(usize::from(*count) * 1024);
    }
    let folder = dir.path().join("corelane-arena");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("0.0.arena"), &file).unwrap();
    let held = list_arenas(dir.path()).unwrap().arenas;
    let place = |key: PartitionKey| dir.path().join(format!("{}-{}", key.topic.simple(), key.partition));
    let find = |key: PartitionKey| {
        let path = place(key);
        std::fs::create_dir_all(&path).unwrap();
        Home::Here(path)
    };
    let replayed = replay(&folder, &identity, &find);
    let (mut batches, mut bytes, mut seen) = (0, 0, BTreeSet::new());
    for run in held.iter().flat_map(|listing| &listing.held) {
        let path = place(run.partition).join(format!("{:020}.log", run.segment));
        if !seen.insert(path.clone()) {
            continue;
        }
        let Ok(mut segment) = std::fs::File::open(&path) else { continue };
        // A hole of some GB may lie before.
        let mut written = Vec::new();
        segment.seek(SeekFrom::Start(run.position)).and_then(|_| segment.read_to_end(&mut written)).unwrap();
        let mut rest = &written[..];
        bytes += rest.len() as u64;
        while !rest.is_empty() {
            let (_, total) = record_batch::frame(rest).unwrap_or_else(|e| panic!("{e} was taken over"));
            record_batch::check(&rest[..total]).unwrap_or_else(|e| panic!("{e} was taken over"));
            (rest, batches) = (&rest[total..], batches + 1);
        }
    }
    if let Ok(replayed) = replayed {
        assert_eq!((replayed.batches, replayed.bytes), (batches, bytes), "what is told of is what was written");
        assert!(replay(&folder, &identity, &find).is_ok_and(|again| again.bytes == 0), "once");
    }
}

fn id_of(number: u8) -> [u8; 16] {
    u128::from(number).to_be_bytes()
}

fn arena_head() -> Vec<u8> {
    let mut head = b"CLARENA\0".to_vec();
    head.extend_from_slice(&2_u32.to_le_bytes());
    head.extend_from_slice(&[0; 4]);
    head.extend_from_slice(&(ARENA_BYTES as u64).to_le_bytes());
    head.extend_from_slice(&id_of(1));
    head.extend_from_slice(&id_of(2));
    head.extend_from_slice(&[0, 0, 3, 0]);
    head.extend_from_slice(b"abc");
    head.resize(132, 0);
    let crc = crc32c(&[&head[16..], &head[8..12]].concat());
    head[12..16].copy_from_slice(&crc.to_le_bytes());
    head
}

/// A slot of one page at `position` of the segment at 0, of which `held` bytes hold; (place,
/// offset, CRC) of the first batch.
fn slot_of(partition: u8, position: u32, held: u32, (begins, offset, crc): (u32, i64, u32)) -> Vec<u8> {
    let mut slot = id_of(9).to_vec();
    slot.extend_from_slice(&i32::from(partition).to_le_bytes());
    slot.extend_from_slice(&(ARENA_PAGE as u32).to_le_bytes());
    slot.extend_from_slice(&0_i64.to_le_bytes());
    slot.extend_from_slice(&position.to_le_bytes());
    slot.extend_from_slice(&begins.to_le_bytes());
    slot.extend_from_slice(&offset.to_le_bytes());
    slot.extend_from_slice(&[0; 2]);
    slot.extend_from_slice(&(crc as u16).to_le_bytes());
    let crc = crc32c(&slot);
    slot.extend_from_slice(&crc.to_le_bytes());
    slot.extend_from_slice(&held.to_le_bytes());
    slot.extend_from_slice(&crc32c(&held.to_le_bytes()).to_le_bytes());
    slot
}

pub fn arena_seeds() -> Vec<Vec<u8>> {
    let crc = |batch: &[u8]| u32::from_be_bytes(batch[17..21].try_into().unwrap());
    let input = |flags: u8, slots: &[Vec<u8>], chunks: &[&[u8]]| {
        let mut bytes = vec![flags, slots.len() as u8];
        slots.iter().for_each(|slot| bytes.extend_from_slice(slot));
        for chunk in chunks {
            bytes.extend_from_slice(&(chunk.len() as u16).to_le_bytes());
            bytes.extend_from_slice(chunk);
        }
        bytes
    };
    let two = [batch_at(0), batch_at(3)].concat();
    let held = two.len() as u32;
    let one = slot_of(0, 0, held, (0, 0, crc(&two)));
    let other = slot_of(1, 0, held / 2, (0, 0, crc(&two)));
    // A batch that ends with zeros goes on from one chunk in the next, which
    // begins with a sound one.
    let plain = records::build(&[(Vec::new(), Some(vec![0; 5000]))], 1_700_000_000_000);
    let long = put_right(&plain);
    let begun: Vec<u8> = long[..90].to_vec();
    let rest = long.len() as u32 - ARENA_PAGE as u32;
    let first = slot_of(2, 0, ARENA_PAGE as u32, (0, 0, crc(&long)));
    let second = slot_of(2, ARENA_PAGE as u32, rest, (0, 0, crc(&long)));
    vec![
        input(0, std::slice::from_ref(&one), &[&two]),
        input(1, &[one.clone(), other.clone()], &[&two, &two]),
        input(0, &[first, second, other], &[&begun, &[], &two]),
        input(2, std::slice::from_ref(&one), &[&two]),
        input(4, &[one], &[&two]),
    ]
}
