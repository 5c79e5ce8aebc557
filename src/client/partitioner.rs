//! Which partition a record goes to, as Kafka's own producer chooses it: by the hash of its key,
//! or, without a key, to one partition until a batch is full (KIP-480).

/// Murmur2 in 32 bits with Kafka's seed.
fn murmur2(key: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;
    let mut hash = SEED ^ key.len() as u32;
    let mut words = key.chunks_exact(4);
    for word in &mut words {
        let word = word.iter().rev().fold(0, |sum, byte| sum << 8 | u32::from(*byte));
        let mixed = word.wrapping_mul(M);
        let mixed = (mixed ^ mixed >> R).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ mixed;
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        hash ^= rest.iter().rev().fold(0, |sum, byte| sum << 8 | u32::from(*byte));
        hash = hash.wrapping_mul(M);
    }
    hash = (hash ^ hash >> 13).wrapping_mul(M);
    hash ^ hash >> 15
}

/// The place of a key among `count` partitions, at least one.
pub fn of_key(key: &[u8], count: usize) -> usize {
    (murmur2(key) & 0x7fff_ffff) as usize % count.max(1)
}

/// The partition of records without a key.
pub struct Sticky {
    current: Option<usize>,
    random: u64,
}

impl Sticky {
    pub fn new(seed: u64) -> Sticky {
        Sticky { current: None, random: seed | 1 }
    }

    /// The place of the next record; `has_leader`: of each partition, of which
    /// there must be one at least.
    pub fn current(&mut self, has_leader: &[bool]) -> usize {
        match self.current {
            Some(place) if has_leader.get(place) == Some(&true) => place,
            _ => self.choose(has_leader),
        }
    }

    /// The batch is full: the next one is another partition's.
    pub fn move_on(&mut self, has_leader: &[bool]) {
        self.choose(has_leader);
    }

    /// One of those with a leader, another than before where there are several.
    fn choose(&mut self, has_leader: &[bool]) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let start = (self.random % has_leader.len().max(1) as u64) as usize;
        let turn = (0..has_leader.len()).map(|step| (start + step) % has_leader.len());
        let led = turn.filter(|place| has_leader[*place]);
        let mut others = led.clone().filter(|place| self.current != Some(*place));
        let chosen = others.next().or_else(|| led.clone().next()).unwrap_or(start);
        self.current = Some(chosen);
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values of Kafka's own test of its hash.
    #[test]
    fn hashes_are_kafkas() {
        let cases: [(&[u8], i32); 6] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            (b"abc", 479_470_107),
        ];
        for (key, hash) in cases {
            assert_eq!(murmur2(key) as i32, hash, "{}", key.escape_ascii());
        }
        assert!((1..50).all(|count| of_key(b"21", count) < count));
    }

    #[test]
    fn batches_without_keys_go_to_partitions_with_leaders_in_turn() {
        let mut sticky = Sticky::new(7);
        let first = sticky.current(&[true; 4]);
        assert_eq!(sticky.current(&[true; 4]), first);
        let mut seen = [false; 4];
        for _ in 0..100 {
            let before = sticky.current(&[true; 4]);
            sticky.move_on(&[true; 4]);
            let now = sticky.current(&[true; 4]);
            assert_ne!(before, now);
            seen[now] = true;
        }
        assert_eq!(seen, [true; 4]);
        let led = [false, false, true, false];
        assert_eq!(sticky.current(&led), 2);
        sticky.move_on(&led);
        assert_eq!(sticky.current(&led), 2);
        // Without a leader any will do until there is one.
        assert!(sticky.current(&[false; 3]) < 3);
        assert_eq!(Sticky::new(0).current(&[true]), 0);
    }
}
