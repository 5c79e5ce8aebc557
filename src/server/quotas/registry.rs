//! Counts of all shards together, by client: a bounded table.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

/// Something that can be forgotten.
pub trait Idle {
    /// A new one would be the same.
    fn is_idle(&self, now_ms: u64) -> bool;
}

/// Counts by key. Asked when a client is new to a shard, so rarely; the counts
/// themselves need no lock.
#[derive(Debug)]
pub struct Registry<K, V> {
    most: usize,
    /// For keys that found no place.
    others: Arc<V>,
    known: Mutex<Known<K, V>>,
}

#[derive(Debug)]
struct Known<K, V> {
    by_key: HashMap<K, Arc<V>>,
    cleaned_ms: u64,
}

/// A full table is looked through so often at most, ms.
const PAUSE_MS: u64 = 1000;

impl<K: Hash + Eq, V: Idle> Registry<K, V> {
    /// `most`: keys that are told apart; those beyond are counted together, as long as
    /// none of the others is idle.
    pub fn new(most: usize, new: impl Fn() -> V) -> Registry<K, V> {
        let known = Mutex::new(Known { by_key: HashMap::new(), cleaned_ms: 0 });
        Registry { most, others: Arc::new(new()), known }
    }

    pub fn of(&self, key: K, now_ms: u64, new: impl FnOnce() -> V) -> Arc<V> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = known.by_key.get(&key) {
            return value.clone();
        }
        if known.by_key.len() >= self.most && now_ms >= known.cleaned_ms + PAUSE_MS {
            known.cleaned_ms = now_ms;
            known.by_key.retain(|_, value| Arc::strong_count(value) > 1 || !value.is_idle(now_ms));
        }
        if known.by_key.len() >= self.most {
            return self.others.clone();
        }
        known.by_key.entry(key).or_insert_with(|| Arc::new(new())).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    impl Idle for AtomicU64 {
        fn is_idle(&self, _: u64) -> bool {
            self.load(Ordering::Relaxed) == 0
        }
    }

    #[test]
    fn clients_cannot_make_counts_without_end() {
        let registry = Registry::<u32, AtomicU64>::new(3, AtomicU64::default);
        let count = |key, now| {
            let value = registry.of(key, now, AtomicU64::default);
            value.fetch_add(1, Ordering::Relaxed) + 1
        };
        assert_eq!([count(1, 0), count(1, 0), count(2, 0), count(3, 0)], [1, 2, 1, 1]);
        assert_eq!([count(4, 0), count(5, 0)], [1, 2], "those beyond share one");
        registry.of(2, 0, AtomicU64::default).store(0, Ordering::Relaxed);
        let held = registry.of(3, 0, AtomicU64::default);
        held.store(0, Ordering::Relaxed);
        assert_eq!(count(6, 2000), 1, "one that is idle has made room");
        assert_eq!((count(1, 2000), count(3, 2000)), (3, 1));
        assert_eq!(count(7, 2000), 3);
    }
}
