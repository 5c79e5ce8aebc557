//! Records and bytes in and out of topics, on one shard.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::counters::Count;

/// Of one topic's partitions on one shard.
#[derive(Debug, Default)]
pub struct Traffic {
    pub received_bytes: Count,
    pub received_records: Count,
    /// As a follower.
    pub replicated_in_bytes: Count,
    /// To consumers and to followers, by all shards: the shard that answers the
    /// fetch counts what it takes.
    pub sent_bytes: Count,
    pub replicated_out_bytes: Count,
}

/// Topics by name, and the id of each: one that was deleted and made again counts from zero.
#[derive(Debug, Default)]
pub struct Topics<I>(Mutex<ByName<I>>);

type ByName<I> = HashMap<Arc<str>, (I, Arc<Traffic>)>;

impl<I: Copy + PartialEq> Topics<I> {
    /// Where partitions of a topic count. Asked when a partition is opened.
    pub fn of(&self, name: &Arc<str>, id: I) -> Arc<Traffic> {
        let mut topics = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (known, traffic) = topics.entry(name.clone()).or_insert_with(|| (id, Arc::default()));
        if *known != id {
            (*known, *traffic) = (id, Arc::default());
        }
        traffic.clone()
    }

    /// Calls `look` for each topic that `exists`, and forgets the others.
    pub fn each(&self, exists: impl Fn(&str, I) -> bool, mut look: impl FnMut(&Arc<str>, &Traffic)) {
        let mut topics = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // One that a partition has open just now may not be in the image yet.
        topics.retain(|name, (id, traffic)| exists(name, *id) || Arc::strong_count(traffic) > 1);
        topics.iter().for_each(|(name, (_, traffic))| look(name, traffic));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_counts_on_through_its_partitions_and_anew_after_its_deletion() {
        let topics = Topics::default();
        let name: Arc<str> = "t".into();
        topics.of(&name, 1).received_bytes.add(5);
        topics.of(&name, 1).received_bytes.add(6);
        let seen = |exists: bool| {
            let mut seen = Vec::new();
            topics.each(|_, _| exists, |name, traffic| seen.push((name.to_string(), traffic.received_bytes.get())));
            seen
        };
        assert_eq!(seen(true), [("t".to_owned(), 11)]);
        let open = topics.of(&name, 2);
        open.received_bytes.add(1);
        assert_eq!(seen(false), [("t".to_owned(), 1)]);
        drop(open);
        assert_eq!(seen(false), []);
    }
}
