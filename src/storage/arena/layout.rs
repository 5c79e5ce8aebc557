//! The bytes of an arena file. Pure.
//!
//! A head of one page, then a table of 64-byte entries, one per page of the chunks behind it; a
//! chunk's entry is that of its first page. Numbers are little-endian. An entry's last word says
//! how much of the chunk holds; it is 0 where nothing needs to be taken over, and carries a check
//! of its own, as it is stored alone.

use std::fmt;
use std::mem::offset_of;

use uuid::Uuid;
use zerocopy::little_endian::{I32, I64, U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::runtime::disk::ALIGNMENT;
use crate::runtime::mapping::{PAGE_BYTES, SLOT_BODY_BYTES, SLOT_BYTES};

const MAGIC: [u8; 8] = *b"CLARENA\0";
/// Every version keeps magic, version and checksum where they are.
const VERSION: u32 = 2;
/// Longest cluster id kept, bytes; Kafka's have 22.
const CLUSTER_BYTES: usize = 64;

/// The largest chunk, bytes.
pub const CHUNK_MAX_BYTES: usize = 1 << 20;
const _: () = assert!(PAGE_BYTES.is_multiple_of(SLOT_BYTES) && CHUNK_MAX_BYTES.is_multiple_of(PAGE_BYTES));

/// The broker run that an arena belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The kernel's boot: another one has not kept the file's newest bytes in order.
    pub boot: Uuid,
    pub cluster: String,
    /// `directory.id` of the data directory.
    pub directory: Uuid,
}

/// Places of the parts in an arena of `bytes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// First byte of the chunks.
    pub chunks: usize,
    /// Pages of chunks.
    pub pages: usize,
}

impl Plan {
    /// The parts of a file of `bytes`; the rest behind the last whole page of chunks stays unused.
    pub fn of(bytes: usize) -> Option<Plan> {
        let all = bytes / PAGE_BYTES;
        let slots = PAGE_BYTES / SLOT_BYTES;
        // One page of table for each 64 of chunks.
        let table = all.checked_sub(1)?.div_ceil(slots + 1);
        let pages = all - 1 - table;
        (pages >= CHUNK_MAX_BYTES / PAGE_BYTES).then_some(Plan { chunks: (1 + table) * PAGE_BYTES, pages })
    }

    pub fn table_bytes(self) -> usize {
        self.chunks - PAGE_BYTES
    }

    /// Where entry `index` stands in the file.
    pub fn table_entry(self, index: usize) -> u64 {
        (PAGE_BYTES + index * SLOT_BYTES) as u64
    }

    /// First byte of the page that entry `index` describes.
    pub fn chunk(self, index: usize) -> usize {
        self.chunks + index * PAGE_BYTES
    }
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Head {
    magic: [u8; 8],
    version: U32,
    crc: U32,
    bytes: U64,
    boot: [u8; 16],
    directory: [u8; 16],
    shard: U16,
    cluster_bytes: U16,
    cluster: [u8; CLUSTER_BYTES],
}

/// Where the checked part of a head begins; the version before it is checked as well.
const HEAD_CRC_START: usize = 16;
const _: () = assert!(size_of::<Head>() <= PAGE_BYTES && HEAD_CRC_START == offset_of!(Head, bytes));

impl Head {
    fn checksum(&self) -> u32 {
        crc32c::crc32c_append(crc32c::crc32c(&self.as_bytes()[HEAD_CRC_START..]), self.version.as_bytes())
    }
}

/// Reasons not to take an arena over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// Not an arena, or its head is damaged.
    Damaged(&'static str),
    /// Of a version that this broker does not know.
    Version(u32),
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unfit::Damaged(why) => write!(f, "{why}"),
            Unfit::Version(version) => write!(f, "it is of version {version}, which this broker does not know"),
        }
    }
}

/// The first page of an arena of `bytes`.
pub fn encode_head(identity: &Identity, shard: u16, bytes: usize) -> Vec<u8> {
    let mut head = Head::new_zeroed();
    head.magic = MAGIC;
    head.version.set(VERSION);
    head.bytes.set(bytes as u64);
    head.boot = *identity.boot.as_bytes();
    head.directory = *identity.directory.as_bytes();
    head.shard.set(shard);
    let cluster = &identity.cluster.as_bytes()[..identity.cluster.len().min(CLUSTER_BYTES)];
    head.cluster_bytes.set(cluster.len() as u16);
    head.cluster[..cluster.len()].copy_from_slice(cluster);
    head.crc.set(head.checksum());
    head.as_bytes().to_vec()
}

/// The head of a file of `file_bytes`: whose arena it is, its shard, and where its parts are.
pub fn decode_head(page: &[u8], file_bytes: u64) -> Result<(Identity, u16, Plan), Unfit> {
    let Ok((head, _)) = Head::ref_from_prefix(page) else { return Err(Unfit::Damaged("it ends within its head")) };
    if head.magic != MAGIC {
        return Err(Unfit::Damaged("it does not begin as an arena does"));
    }
    if head.checksum() != head.crc.get() {
        return Err(Unfit::Damaged("its head is damaged"));
    }
    if head.version.get() != VERSION {
        return Err(Unfit::Version(head.version.get()));
    }
    if head.bytes.get() != file_bytes {
        return Err(Unfit::Damaged("its length is not what its head says"));
    }
    let plan = usize::try_from(file_bytes).ok().and_then(Plan::of).ok_or(Unfit::Damaged("it is too small"))?;
    let cluster = head.cluster.get(..usize::from(head.cluster_bytes.get())).unwrap_or_default();
    let identity = Identity {
        boot: Uuid::from_bytes(head.boot),
        cluster: String::from_utf8_lossy(cluster).into_owned(),
        directory: Uuid::from_bytes(head.directory),
    };
    Ok((identity, head.shard.get(), plan))
}

/// A partition as an arena names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionKey {
    pub topic: Uuid,
    pub partition: i32,
}

/// The fixed part of a chunk's entry. Positions are bytes from the start of the segment's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub partition: PartitionKey,
    /// Bytes of the chunk.
    pub capacity: u32,
    /// Base offset of the segment.
    pub segment: i64,
    /// Where the chunk's first byte belongs; aligned.
    pub position: u32,
    /// Where the batch begins that the chunk's first new byte belongs to: here,
    /// or in an earlier chunk.
    pub begins: u32,
    /// Base offset of that batch.
    pub first_offset: i64,
    /// Bytes at the chunk's front that belong to what was written before it.
    pub carried: u16,
    /// The lower half of that batch's CRC, which ties the entry to what is in the chunk: a file
    /// system that was shut down may keep an older one of the two.
    pub first_crc: u16,
    /// Offsets may be missing between its batches.
    pub gaps: bool,
}

/// In `carried`, which is less than a page: the chunk's batches may have gaps
/// between their offsets.
const GAPS: u16 = 1 << 15;
const _: () = assert!(PAGE_BYTES <= GAPS as usize && PAGE_BYTES as u64 == ALIGNMENT);

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawEntry {
    topic: [u8; 16],
    partition: I32,
    capacity: U32,
    segment: I64,
    position: U32,
    begins: U32,
    first_offset: I64,
    carried: U16,
    first_crc: U16,
    crc: U32,
}

const ENTRY_CRC_BYTES: usize = SLOT_BODY_BYTES - 4;
const _: () = assert!(size_of::<RawEntry>() == SLOT_BODY_BYTES && ENTRY_CRC_BYTES == offset_of!(RawEntry, crc));

/// Contents of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// Nothing to take over.
    Empty,
    /// A chunk of which so many bytes are held, those carried included.
    Held(Entry, u32),
    /// A slot that is not as it was written.
    Damaged(&'static str),
}

impl Entry {
    pub fn encode(&self) -> [u8; SLOT_BODY_BYTES] {
        let mut raw = RawEntry::new_zeroed();
        raw.topic = *self.partition.topic.as_bytes();
        raw.partition.set(self.partition.partition);
        raw.capacity.set(self.capacity);
        raw.segment.set(self.segment);
        raw.position.set(self.position);
        raw.begins.set(self.begins);
        raw.first_offset.set(self.first_offset);
        raw.carried.set(self.carried | if self.gaps { GAPS } else { 0 });
        raw.first_crc.set(self.first_crc);
        raw.crc.set(crc32c::crc32c(&raw.as_bytes()[..ENTRY_CRC_BYTES]));
        let mut body = [0; SLOT_BODY_BYTES];
        body.copy_from_slice(raw.as_bytes());
        body
    }

    fn is_possible(&self, held: u32, index: usize, plan: Plan) -> bool {
        let (pages, carried) = (self.capacity as usize / PAGE_BYTES, u32::from(self.carried));
        let end = u64::from(self.position) + u64::from(self.capacity);
        (self.capacity as usize).is_multiple_of(PAGE_BYTES)
            && pages > 0
            && self.capacity as usize <= CHUNK_MAX_BYTES
            && index + pages <= plan.pages
            && (self.position as usize).is_multiple_of(PAGE_BYTES)
            && u32::try_from(end).is_ok()
            && (carried as usize) < PAGE_BYTES
            && held > carried
            && held <= self.capacity
            && self.begins <= self.position + carried
            && self.segment >= 0
            && self.first_offset >= self.segment
    }
}

/// The word of an entry, of whose chunk `held` bytes hold.
pub fn word(held: u32) -> u64 {
    u64::from(held) | u64::from(crc32c::crc32c(&held.to_le_bytes())) << 32
}

/// Slot `index` of the table, from the file's bytes.
pub fn decode_slot(bytes: &[u8; SLOT_BYTES], index: usize, plan: Plan) -> Slot {
    let (body, stored) = bytes.split_at(SLOT_BODY_BYTES);
    let stored = stored.iter().rev().fold(0u64, |word, byte| word << 8 | u64::from(*byte));
    let held = stored as u32;
    if stored == 0 {
        return Slot::Empty;
    }
    if word(held) != stored {
        return Slot::Damaged("the length it holds is damaged");
    }
    let Ok(raw) = RawEntry::ref_from_bytes(body) else { return Slot::Damaged("it is too short") };
    if crc32c::crc32c(&raw.as_bytes()[..ENTRY_CRC_BYTES]) != raw.crc.get() {
        return Slot::Damaged("its checksum does not match");
    }
    let entry = Entry {
        partition: PartitionKey { topic: Uuid::from_bytes(raw.topic), partition: raw.partition.get() },
        capacity: raw.capacity.get(),
        segment: raw.segment.get(),
        position: raw.position.get(),
        begins: raw.begins.get(),
        first_offset: raw.first_offset.get(),
        carried: raw.carried.get() & !GAPS,
        first_crc: raw.first_crc.get(),
        gaps: raw.carried.get() & GAPS != 0,
    };
    if entry.is_possible(held, index, plan) {
        Slot::Held(entry, held)
    } else {
        Slot::Damaged("it names an impossible place")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity { boot: Uuid::from_u128(1), cluster: "cGF2HhVzTk-X4pVQ3yQwfw".into(), directory: Uuid::from_u128(2) }
    }

    fn entry() -> Entry {
        Entry {
            partition: PartitionKey { topic: Uuid::from_u128(3), partition: 7 },
            capacity: 8192,
            segment: 100,
            position: 4096,
            begins: 4000,
            first_offset: 120,
            carried: 10,
            first_crc: 0xabcd,
            gaps: true,
        }
    }

    #[test]
    fn the_head_is_read_as_it_is_written_and_no_flip_goes_unseen() {
        let bytes = 4 << 20;
        let page = encode_head(&identity(), 5, bytes);
        let plan = Plan::of(bytes).unwrap();
        assert_eq!(decode_head(&page, bytes as u64), Ok((identity(), 5, plan)));
        assert!(matches!(decode_head(&page, bytes as u64 + 1), Err(Unfit::Damaged(_))));
        assert!(matches!(decode_head(&page[..50], bytes as u64), Err(Unfit::Damaged(_))));
        for at in 0..page.len() {
            for bit in 0..8 {
                let mut bad = page.clone();
                bad[at] ^= 1 << bit;
                assert!(matches!(decode_head(&bad, bytes as u64), Err(Unfit::Damaged(_))), "bit {bit} of byte {at}");
            }
        }
    }

    #[test]
    fn the_parts_do_not_overlap() {
        for bytes in [2 << 20, 64 << 20, (64 << 20) + 12_345, (1 << 20) + (128 << 10)] {
            let plan = Plan::of(bytes).unwrap();
            assert!(plan.pages * SLOT_BYTES <= plan.table_bytes(), "{bytes}");
            assert!(plan.chunk(plan.pages) <= bytes && plan.chunk(plan.pages) + 2 * PAGE_BYTES > bytes, "{bytes}");
        }
        assert_eq!((Plan::of(0), Plan::of(100 << 10)), (None, None));
    }

    #[test]
    fn an_entry_is_read_as_it_is_written_and_no_flip_goes_unseen() {
        let plan = Plan::of(4 << 20).unwrap();
        let mut slot = [0; SLOT_BYTES];
        slot[..SLOT_BODY_BYTES].copy_from_slice(&entry().encode());
        assert_eq!(decode_slot(&slot, 9, plan), Slot::Empty);
        slot[SLOT_BODY_BYTES..].copy_from_slice(&word(5000).to_le_bytes());
        assert_eq!(decode_slot(&slot, 9, plan), Slot::Held(entry(), 5000));
        for at in 0..SLOT_BYTES {
            for bit in 0..8 {
                let mut bad = slot;
                bad[at] ^= 1 << bit;
                assert!(matches!(decode_slot(&bad, 9, plan), Slot::Damaged(_)), "bit {bit} of byte {at}");
            }
        }
    }

    #[test]
    fn impossible_places_are_refused() {
        let plan = Plan::of(4 << 20).unwrap();
        let good = entry();
        assert!(good.is_possible(5000, plan.pages - 2, plan));
        assert!(!good.is_possible(5000, plan.pages - 1, plan), "beyond the last page");
        for (held, bad) in [
            (10, good),
            (8193, good),
            (5000, Entry { capacity: 0, ..good }),
            (5000, Entry { capacity: 5000, ..good }),
            (5000, Entry { capacity: CHUNK_MAX_BYTES as u32 * 2, ..good }),
            (5000, Entry { position: 4097, ..good }),
            (5000, Entry { position: u32::MAX - 4095, ..good }),
            (5000, Entry { carried: 4096, ..good }),
            (5000, Entry { begins: 4107, ..good }),
            (5000, Entry { segment: -1, ..good }),
            (5000, Entry { first_offset: 99, ..good }),
        ] {
            assert!(!bad.is_possible(held, 9, plan), "{held} {bad:?}");
        }
    }
}
