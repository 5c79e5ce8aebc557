//! Which offset holds the newest record of each key, in bounded memory.

use std::hash::{BuildHasher, Hasher, RandomState};

/// Bytes of one entry: the key's hash and the offset.
const ENTRY_BYTES: usize = size_of::<Entry>();
const _: () = assert!(ENTRY_BYTES == 24);

/// Marks a free place; no record has this offset.
const FREE: i64 = -1;

/// Each step of growth, in entries; the table before and after it together stay within the budget.
const GROWTH: usize = 4;
const FIRST_ENTRIES: usize = 1024;

#[derive(Clone, Copy)]
struct Entry {
    hash: KeyHash,
    offset: i64,
}

/// 128 bits in place of a key: two runs of SipHash-1-3 under keys drawn anew for each map,
/// so that nobody who chooses the records' keys can aim at a collision. Two of `n` keys
/// collide with a probability of n² / 2^129: 10^-22 for 250 million. A collision would cost
/// the older of the two records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyHash(u64, u64);

/// The newest offset of every key seen. Grows with the keys up to a budget, then takes no more.
pub struct OffsetMap {
    hashers: (RandomState, RandomState),
    entries: Vec<Entry>,
    used: usize,
    /// Entries that the budget has room for.
    max_entries: usize,
    /// How full the table may get (`log.cleaner.io.buffer.load.factor`).
    load_factor: f64,
    latest: i64,
}

impl OffsetMap {
    /// `budget_bytes`: the most it may hold, also while it grows.
    pub fn new(budget_bytes: usize, load_factor: f64) -> OffsetMap {
        // While the last step of growth runs, the table before it is still there.
        let max_entries = (budget_bytes / ENTRY_BYTES / (GROWTH + 1) * GROWTH).max(2);
        OffsetMap {
            hashers: (RandomState::new(), RandomState::new()),
            entries: Vec::new(),
            used: 0,
            max_entries,
            load_factor: load_factor.clamp(0.1, 0.99),
            latest: -1,
        }
    }

    pub fn hash(&self, key: &[u8]) -> KeyHash {
        let run = |state: &RandomState| {
            let mut hasher = state.build_hasher();
            hasher.write(key);
            hasher.finish()
        };
        KeyHash(run(&self.hashers.0), run(&self.hashers.1))
    }

    /// Notes that `offset` holds a record of the key. `false`: the map is full,
    /// and nothing was noted.
    #[must_use]
    pub fn put(&mut self, hash: KeyHash, offset: i64) -> bool {
        let mut place = self.find(hash);
        if place.is_none_or(|at| self.entries[at].offset == FREE) && self.used >= self.room() {
            if !self.grow() {
                return false;
            }
            place = self.find(hash);
        }
        let Some(at) = place else { return false };
        let entry = &mut self.entries[at];
        self.used += usize::from(entry.offset == FREE);
        *entry = Entry { hash, offset: offset.max(entry.offset) };
        self.latest = self.latest.max(offset);
        true
    }

    /// Everything up to `offset` has been looked at, whether or not it held keys.
    pub fn advance(&mut self, offset: i64) {
        self.latest = self.latest.max(offset);
    }

    /// The newest offset noted for the key.
    pub fn get(&self, hash: KeyHash) -> Option<i64> {
        let at = self.find(hash)?;
        Some(self.entries[at].offset).filter(|offset| *offset != FREE)
    }

    /// The last offset that was looked at; -1: none. Of what lies behind, the map knows nothing.
    pub fn latest(&self) -> i64 {
        self.latest
    }

    /// Keys held.
    pub fn len(&self) -> usize {
        self.used
    }

    /// Entries that may be in use before the table grows; one place always stays
    /// free, where searches end.
    fn room(&self) -> usize {
        let full = (self.entries.len() as f64 * self.load_factor) as usize;
        full.clamp(1, self.entries.len().max(2) - 1).min(self.entries.len())
    }

    /// Where the key is, or would go; `None` while there is no table.
    fn find(&self, hash: KeyHash) -> Option<usize> {
        let places = self.entries.len();
        if places == 0 {
            return None;
        }
        let mut at = ((u128::from(hash.0) * places as u128) >> 64) as usize;
        loop {
            let entry = &self.entries[at];
            if entry.offset == FREE || entry.hash == hash {
                return Some(at);
            }
            at = if at + 1 == places { 0 } else { at + 1 };
        }
    }

    fn grow(&mut self) -> bool {
        // The last step leads exactly to the largest table, from one that is a fourth of it.
        let mut entries = self.max_entries;
        while entries / GROWTH > self.entries.len() && entries / GROWTH >= FIRST_ENTRIES {
            entries /= GROWTH;
        }
        if entries <= self.entries.len() {
            return false;
        }
        let free = Entry { hash: KeyHash(0, 0), offset: FREE };
        let old = std::mem::replace(&mut self.entries, vec![free; entries]);
        for entry in old.into_iter().filter(|entry| entry.offset != FREE) {
            if let Some(at) = self.find(entry.hash) {
                self.entries[at] = entry;
            }
        }
        true
    }

    #[cfg(test)]
    pub(super) fn memory_bytes(&self) -> usize {
        self.entries.capacity() * ENTRY_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn key(n: u64) -> Vec<u8> {
        format!("key-{n}").into_bytes()
    }

    #[test]
    fn the_newest_offset_of_each_key_is_kept_through_every_growth() {
        let mut map = OffsetMap::new(8 << 20, 0.9);
        let mut model = HashMap::new();
        let mut random = 1u64;
        for offset in 0..200_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let n = (random >> 40) % 50_000;
            let hash = map.hash(&key(n));
            assert!(map.put(hash, offset));
            model.insert(n, offset);
            assert!(map.memory_bytes() * 5 / 4 <= 8 << 20, "{} bytes", map.memory_bytes());
        }
        assert_eq!((map.len(), map.latest()), (model.len(), 199_999));
        for n in 0..50_000 {
            assert_eq!(map.get(map.hash(&key(n))), model.get(&n).copied(), "key {n}");
        }
        assert!(map.put(map.hash(b"old"), 5) && map.put(map.hash(b"old"), 3));
        assert_eq!(map.get(map.hash(b"old")), Some(5), "an older offset does not replace a newer one");
    }

    #[test]
    fn a_full_map_takes_known_keys_only() {
        for (budget, load_factor) in [(1, 0.9), (64, 0.5), (10_000, 0.9), (100_000, 0.99)] {
            let mut map = OffsetMap::new(budget, load_factor);
            let mut taken = 0;
            while map.put(map.hash(&key(taken)), taken as i64) {
                taken += 1;
            }
            assert!(taken >= 1, "at least one key goes in, or cleaning would never end");
            let entries = budget.max(60) / ENTRY_BYTES / 5 * 4;
            assert!(taken as usize <= entries.max(2), "{taken} of {entries}");
            assert!(
                taken as f64 >= (entries as f64 * load_factor).floor().min(entries as f64 - 1.0),
                "{taken} of {entries}"
            );
            assert_eq!(map.latest(), taken as i64 - 1, "what was refused does not count as looked at");
            assert!(map.put(map.hash(&key(0)), 1_000_000));
            assert_eq!(map.get(map.hash(&key(0))), Some(1_000_000));
            assert_eq!(map.get(map.hash(b"unknown")), None);
        }
    }

    #[test]
    fn an_empty_map_knows_nothing() {
        let mut map = OffsetMap::new(1 << 20, 0.9);
        assert_eq!((map.get(map.hash(b"a")), map.latest(), map.memory_bytes()), (None, -1, 0));
        map.advance(17);
        assert_eq!(map.latest(), 17);
    }
}
