//! Topics stored and removed many at a time: a request for a thousand topics waits for a few
//! syncs of the device and not for two of each topic. A crash in between leaves each topic as
//! it was or as it was to be.

use std::borrow::Borrow;
use std::io;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::image::TopicImage;
use super::metadata_store::{LocalStore, at, sync_directory};

/// Files written and synced at the same time. The file system makes one commit of
/// syncs that wait together.
const SYNCING: usize = 16;

impl LocalStore {
    /// One outcome per topic; each that went well is durable. No two of `topics` may
    /// have the same id or name.
    pub fn put_topics<T: Borrow<TopicImage> + Sync>(&self, topics: &[T]) -> Vec<io::Result<()>> {
        let staged = in_parallel(topics, |topic| self.stage_topic(topic.borrow()));
        let placed = staged.into_iter().map(|staged| staged.and_then(|staged| staged.place())).collect();
        self.settled(placed)
    }

    /// Stores topics that have more partitions, as [`put_topics`](Self::put_topics) does, and keeps
    /// the files as they were until [`settle_grown`](Self::settle_grown): taking them back then
    /// needs no room on the disk.
    pub fn grow_topics<T: Borrow<TopicImage> + Sync>(&self, topics: &[T]) -> Vec<io::Result<()>> {
        for topic in topics.iter().map(Borrow::borrow) {
            let before = self.before_file(topic.id);
            let kept = remove_if_there(&before)
                .and_then(|()| std::fs::hard_link(self.topics().join(format!("{}.json", topic.name)), &before));
            // Without it the file is written anew where it has to be taken back.
            if let Err(error) = kept {
                tracing::debug!(topic = %topic.name, %error, "the topic's file is not kept while the topic grows");
            }
        }
        self.put_topics(topics)
    }

    /// Ends the growing of topics: `taken_back` are as they were before, and are stored so again;
    /// the others stay as they are. One outcome for each that is taken back.
    pub fn settle_grown<T: Borrow<TopicImage> + Sync>(&self, grown: &[T], taken_back: &[T]) -> Vec<io::Result<()>> {
        let restored = taken_back.iter().map(Borrow::borrow).map(|topic| {
            let (before, path) = (self.before_file(topic.id), self.topics().join(format!("{}.json", topic.name)));
            match std::fs::rename(&before, &path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.put_topic(topic),
                renamed => renamed.map_err(|error| at(&path, "cannot be taken back", error)),
            }
        });
        let restored = self.settled(restored.collect());
        for topic in grown.iter().chain(taken_back).map(Borrow::borrow) {
            // The next start removes the rest.
            let _ = remove_if_there(&self.before_file(topic.id));
        }
        restored
    }

    fn before_file(&self, id: Uuid) -> PathBuf {
        self.topics().join(format!("{id}.before.tmp"))
    }

    /// Turns topics into deleted ones, as [`remove_topic`](Self::remove_topic) does. One outcome
    /// per topic; each that went well is durable.
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

fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
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
    use crate::runtime::faults;

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

    /// As on a disk that is full by the time.
    #[test]
    fn growth_is_taken_back_without_room() {
        let directory = tempfile::tempdir().unwrap();
        let store = LocalStore::open(directory.path()).unwrap();
        let image = store.load(&ServerConfig::default()).unwrap().image;
        let topic = |name: &str, num_partitions: i32| {
            let request =
                CreateTopic { name: name.into(), num_partitions, replication_factor: 1, ..Default::default() };
            create_topic(&image, &ServerConfig::default(), &request, Uuid::from_u128(name.len() as u128)).unwrap()
        };
        let (before, after) = ([topic("a", 1), topic("bb", 2)], [topic("a", 5), topic("bb", 6)]);
        let partitions = || {
            let image = LocalStore::open(directory.path()).unwrap().load(&ServerConfig::default()).unwrap().image;
            image.topics().map(|topic| topic.partitions.len()).collect::<Vec<_>>()
        };
        assert!(store.put_topics(&before).iter().all(Result::is_ok));
        assert!(store.grow_topics(&after).iter().all(Result::is_ok));
        faults::inject(faults::Op::Small, "", 0, faults::Fault::Os(28));
        assert!(store.settle_grown(&after[1..], &before[..1]).iter().all(Result::is_ok));
        faults::clear();
        assert_eq!(partitions(), [1, 6]);
        let left = std::fs::read_dir(store.topics()).unwrap().count();
        assert_eq!(left, 2, "nothing of it stays");
        // A crash in between leaves topics whole.
        assert!(store.grow_topics(&after).iter().all(Result::is_ok));
        assert_eq!(partitions(), [5, 6]);
        assert_eq!(std::fs::read_dir(store.topics()).unwrap().count(), 2);
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
