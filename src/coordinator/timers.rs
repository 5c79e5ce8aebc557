//! Deadlines by name: one each, the earliest first.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

/// Deadlines in milliseconds of the clock that never goes back.
#[derive(Debug)]
pub struct Timers<K> {
    by_key: HashMap<K, u64>,
    in_order: BTreeSet<(u64, K)>,
}

impl<K> Default for Timers<K> {
    fn default() -> Timers<K> {
        Timers { by_key: HashMap::new(), in_order: BTreeSet::new() }
    }
}

impl<K: Clone + Eq + Hash + Ord> Timers<K> {
    /// Sets (or moves) the deadline of `key`.
    pub fn set(&mut self, key: K, at_ms: u64) {
        if let Some(before) = self.by_key.insert(key.clone(), at_ms) {
            self.in_order.remove(&(before, key.clone()));
        }
        self.in_order.insert((at_ms, key));
    }

    pub fn cancel(&mut self, key: &K) {
        if let Some(at_ms) = self.by_key.remove(key) {
            self.in_order.remove(&(at_ms, key.clone()));
        }
    }

    /// The deadline of `key`.
    pub fn get(&self, key: &K) -> Option<u64> {
        self.by_key.get(key).copied()
    }

    pub fn is_set(&self, key: &K) -> bool {
        self.by_key.contains_key(key)
    }

    /// The earliest deadline.
    pub fn next(&self) -> Option<u64> {
        self.in_order.first().map(|(at_ms, _)| *at_ms)
    }

    /// Takes the earliest one that is due.
    pub fn pop_due(&mut self, now_ms: u64) -> Option<K> {
        if self.next()? > now_ms {
            return None;
        }
        let (_, key) = self.in_order.pop_first()?;
        self.by_key.remove(&key);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_deadline_each_and_the_earliest_first() {
        let mut timers = Timers::default();
        timers.set("a", 10);
        timers.set("b", 5);
        timers.set("a", 3);
        timers.set("c", 4);
        timers.cancel(&"c");
        assert_eq!((timers.next(), timers.is_set(&"c")), (Some(3), false));
        assert_eq!((timers.pop_due(2), timers.pop_due(5), timers.pop_due(5)), (None, Some("a"), Some("b")));
        assert_eq!((timers.pop_due(99), timers.next()), (None, None));
    }
}
