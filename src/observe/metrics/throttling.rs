//! Times that clients were told to wait for their quotas, on one shard.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::counters::Count;

/// Entities that are told apart.
const MOST: usize = 100;
const OTHER: &str = "other";

/// Of one quota of an entity.
#[derive(Debug, Default)]
pub struct ThrottlingOf {
    pub times: Count,
    pub ms: Count,
}

impl ThrottlingOf {
    /// A client is to wait for so long.
    pub fn note(&self, ms: u64) {
        self.times.add(1);
        self.ms.add(ms);
    }
}

type ByQuota = BTreeMap<(&'static str, Arc<str>), Arc<ThrottlingOf>>;

/// By Kafka's quota key, and the entity that the quota was set for.
#[derive(Debug, Default)]
pub struct Throttling(Mutex<ByQuota>);

impl Throttling {
    /// Asked when a client is new to the shard.
    pub fn of(&self, quota: &'static str, entity: &str) -> Arc<ThrottlingOf> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (quota, Arc::from(entity));
        if known.len() >= MOST && !known.contains_key(&key) {
            known.retain(|_, of| Arc::strong_count(of) > 1);
        }
        let key = if known.len() < MOST || known.contains_key(&key) { key } else { (quota, Arc::from(OTHER)) };
        known.entry(key).or_default().clone()
    }

    pub fn each(&self, mut look: impl FnMut(&'static str, &Arc<str>, &ThrottlingOf)) {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().for_each(|((quota, entity), of)| look(quota, entity, of));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entities_are_told_apart_up_to_a_number() {
        let throttling = Throttling::default();
        throttling.of("a", "user=u").note(5);
        throttling.of("a", "user=u").note(6);
        let held: Vec<_> = (0..2 * MOST).map(|n| throttling.of("b", &n.to_string())).collect();
        held.iter().for_each(|of| of.note(1));
        let mut seen = Vec::new();
        throttling.each(|quota, entity, of| seen.push((quota, entity.to_string(), of.times.get(), of.ms.get())));
        assert!(seen.len() <= MOST + 1, "{}", seen.len());
        assert_eq!(seen.iter().filter(|(quota, ..)| *quota == "b").map(|(.., ms)| ms).sum::<u64>(), 2 * MOST as u64);
        assert!(seen.iter().any(|(_, entity, ..)| entity == OTHER));
    }
}
