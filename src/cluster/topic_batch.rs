//! Topics stored and removed many at a time: a request for a thousand topics waits for a few syncs of the device and not
//! for two of each topic. A crash in between leaves each topic as it was or as it was to be.

use std::borrow::Borrow;
use std::io;

use uuid::Uuid;

use super::image::TopicImage;
use super::metadata_store::{LocalStore, sync_directory};

/// Files written and synced at the same time. The file system makes one commit of syncs that wait together.
const SYNCING: usize = 16;

impl LocalStore {
    /// One outcome per topic; each that went well is durable. No two of `topics` may have the same id or name.
    pub fn put_topics<T: Borrow<TopicImage> + Sync>(&self, topics: &[T]) -> Vec<io::Result<()>> {
        let staged = in_parallel(topics, |topic| self.stage_topic(topic.borrow()));
        let placed = staged.into_iter().map(|staged| staged.and_then(|staged| staged.place())).collect();
        self.settled(placed)
    }

    /// Turns topics into deleted ones, as [`remove_topic`](Self::remove_topic) does. One outcome per topic; each that went
    /// well is durable.
    pub fn remove_topics<N: AsRef<str>>(&self, topics: &[(N, Uuid)]) -> Vec<io::Result<()>> {
        self.settled(topics.iter().map(|(name, id)| self.mark_deleted(name.as_ref(), *id)).collect())
    }

    /// Syncs the directory of topics once for all changes in it.
    fn settled(&self, mut outcomes: Vec<io::Result<()>>) -> Vec<io::Result<()>> {
        if outcomes.iter().all(Result::is_err) {
            return outcomes;
        }
        if let Err(error) = sync_directory(&self.topics()) {
            for outcome in outcomes.iter_mut().filter(|outcome| outcome.is_ok()) {
                *outcome = Err(io::Error::new(error.kind(), error.to_string()));
            }
        }
        outcomes
    }
}

/// Runs `work` on every item, on up to [`SYNCING`] threads; results in the order of `items`.
fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> io::Result<R> + Sync) -> Vec<io::Result<R>> {
    let share = items.len().div_ceil(SYNCING).max(1);
    let run = |items: &[T]| items.iter().map(&work).collect::<Vec<_>>();
    if items.len() <= 1 {
        return run(items);
    }
    std::thread::scope(|scope| {
        let threads: Vec<_> = items
            .chunks(share)
            .map(|items| {
                let name = "metadata".to_owned();
                (items, std::thread::Builder::new().name(name).spawn_scoped(scope, || run(items)))
            })
            .collect();
        let mut results = Vec::with_capacity(items.len());
        for (items, thread) in threads {
            results.extend(match thread {
                Ok(thread) => thread.join().unwrap_or_else(|_| items.iter().map(|_| Err(panicked())).collect()),
                // No more threads: this one does it.
                Err(_) => run(items),
            });
        }
        results
    })
}

fn panicked() -> io::Error {
    io::Error::other("a thread that wrote metadata has panicked")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::controller::{CreateTopic, create_topic};
    use crate::config::ServerConfig;

    #[test]
    fn each_topic_of_a_batch_has_an_outcome_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let store = LocalStore::open(directory.path()).unwrap();
        let image = store.load(&ServerConfig::default()).unwrap().image;
        let topic = |n: usize| {
            let request =
                CreateTopic { name: format!("t{n}"), num_partitions: 2, replication_factor: 1, ..Default::default() };
            create_topic(&image, &ServerConfig::default(), &request, Uuid::new_v4()).unwrap()
        };
        let mut topics: Vec<TopicImage> = (0..40).map(topic).collect();
        // The place of one is taken, and the name of another is none.
        std::fs::create_dir_all(store.topics().join("t7.json/x")).unwrap();
        topics[20].name = "../t20".into();
        let failed = |outcomes: Vec<io::Result<()>>| {
            let failed = outcomes.iter().enumerate().filter(|(_, outcome)| outcome.is_err());
            failed.map(|(n, _)| n).collect::<Vec<_>>()
        };
        assert_eq!(failed(store.put_topics(&topics)), [7, 20]);
        std::fs::remove_dir_all(store.topics().join("t7.json")).unwrap();
        let names = |store: &LocalStore| {
            let image = store.load(&ServerConfig::default()).unwrap().image;
            image.topics().map(|topic| topic.name.to_string()).collect::<Vec<_>>()
        };
        let store = LocalStore::open(directory.path()).unwrap();
        assert_eq!(names(&store).len(), 38);
        assert_eq!(
            failed(store.remove_topics(&["t1", "t2", "../t20", "absent"].map(|name| (name, Uuid::new_v4())))),
            [2]
        );
        assert_eq!(names(&store).len(), 36);
    }

    #[test]
    fn results_come_in_order_whatever_the_number() {
        for count in [0, 1, 2, 15, 16, 17, 100] {
            let items: Vec<i32> = (0..count).collect();
            let results =
                in_parallel(&items, |n| if n % 7 == 3 { Err(io::Error::other(n.to_string())) } else { Ok(*n) });
            let told: Vec<i32> =
                results.into_iter().map(|r| r.unwrap_or_else(|e| e.to_string().parse().unwrap())).collect();
            assert_eq!(told, items);
        }
    }
}
