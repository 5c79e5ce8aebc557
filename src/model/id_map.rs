//! Maps by ids that this broker, or its cluster, has made.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map by ids of topics and partitions. Its hash costs a few instructions where the
/// standard library's costs a hundred; that withstands keys chosen to collide, which
/// nobody outside can add here.
pub type IdMap<K, V> = HashMap<K, V, BuildHasherDefault<IdHasher>>;

/// Multiplies and rotates, eight bytes at a time.
#[derive(Clone, Copy, Debug, Default)]
pub struct IdHasher(u64);

/// An odd number whose bits look random (2^64 divided by the golden ratio).
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

impl IdHasher {
    #[inline]
    fn add(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(FACTOR);
    }
}

impl Hasher for IdHasher {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| self.add(u64::from_ne_bytes(*word)));
        rest.iter().for_each(|byte| self.add(u64::from(*byte)));
    }

    #[inline]
    fn write_i32(&mut self, value: i32) {
        self.add(u64::from(value.cast_unsigned()));
    }

    #[inline]
    fn write_usize(&mut self, value: usize) {
        self.add(value as u64);
    }

    /// The map looks at both ends of this, and a product's lower bits know of lower bits only.
    #[inline]
    fn finish(&self) -> u64 {
        self.0.rotate_left(26)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::PartitionId;
    use std::collections::HashSet;
    use std::hash::{BuildHasher, Hash};
    use uuid::Uuid;

    fn hash(key: impl Hash) -> u64 {
        BuildHasherDefault::<IdHasher>::default().hash_one(key)
    }

    /// Most keys of `keys` that share the bits that a map of 4,096 places looks at, of the lower
    /// end, and of the upper one.
    fn crowd(keys: &[PartitionId]) -> (usize, usize) {
        let (mut low, mut high) = (vec![0; 4096], vec![0; 128]);
        for key in keys {
            low[hash(key) as usize % 4096] += 1;
            high[(hash(key) >> 57) as usize] += 1;
        }
        (low.into_iter().max().unwrap(), high.into_iter().max().unwrap())
    }

    #[test]
    fn ids_are_spread() {
        let topics: Vec<PartitionId> = (0..4096).map(|_| PartitionId::new(Uuid::new_v4(), 0)).collect();
        let topic = Uuid::new_v4();
        let partitions: Vec<PartitionId> = (0..4096).map(|index| PartitionId::new(topic, index)).collect();
        // Ids that differ in one place only.
        let counted: Vec<PartitionId> = (0..4096).map(|n| PartitionId::new(Uuid::from_u128(n << 64), 0)).collect();
        for keys in [topics, partitions, counted] {
            assert_eq!(keys.iter().map(hash).collect::<HashSet<_>>().len(), 4096);
            let (low, high) = crowd(&keys);
            assert!(low <= 12 && high <= 80, "{low} {high}");
        }
    }
}
