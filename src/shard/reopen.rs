//! Partitions that found no room on the disk: each is opened anew, through recovery,
//! once there is room again.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::hosting::Claim;
use super::state::Shard;
use crate::model::PartitionId;
use crate::partition::Replica;
use crate::runtime::{clock, disk};

/// Longest wait before the next try of a partition that soon finds no room again: a quota, which
/// free space knows nothing of.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Partitions that take records for so long have found room.
const SETTLED: Duration = Duration::from_secs(60);
/// Time between two log lines about partitions that wait for room.
const REMINDER: Duration = Duration::from_secs(60);
/// Partitions named in a log line.
const NAMED: usize = 8;

/// The tries of one partition.
#[derive(Clone, Copy)]
struct Tries {
    wait: Duration,
    /// When the next one is due; when the partition was opened anew, if it was.
    at: Instant,
    opened: bool,
}

impl Tries {
    /// The first is due at once.
    fn first(now: Instant) -> Tries {
        Tries { wait: Duration::ZERO, at: now, opened: false }
    }

    /// A partition is found full at `now`; `before`: what is known of it.
    fn of_full(before: Option<Tries>, now: Instant) -> Tries {
        match before {
            Some(tries) if !tries.opened => tries,
            Some(tries) if now < tries.at + SETTLED => tries.again(now),
            _ => Tries::first(now),
        }
    }

    /// The try at `now` was in vain.
    fn again(self, now: Instant) -> Tries {
        let wait = (self.wait * 2).clamp(clock::TICK, LONGEST_WAIT);
        Tries { wait, at: now + wait, opened: false }
    }
}

impl Shard {
    /// Watches for partitions that found no room and opens them anew when there is some.
    pub(super) async fn keep_reopening(self: Rc<Self>) {
        let mut tries: HashMap<PartitionId, Tries> = HashMap::new();
        let mut opening = Tries::first(clock::now());
        let (mut failures_seen, mut remind_at) = (0, clock::now() + REMINDER);
        while !self.stop.is_set() {
            clock::next_tick().await;
            for disk in self.storage.low_disks() {
                // A disk that does not answer stays as it was.
                let _ = disk.look().await;
            }
            opening = self.open_what_found_no_room(opening).await;
            let failures = self.storage.failures();
            if failures == std::mem::replace(&mut failures_seen, failures) && tries.values().all(|t| t.opened) {
                continue;
            }
            let now = clock::now();
            let full: Vec<Rc<Replica>> = self.all_replicas().into_iter().filter(|replica| replica.is_full()).collect();
            let known = std::mem::take(&mut tries);
            tries = full.iter().map(|r| (r.id, Tries::of_full(known.get(&r.id).copied(), now))).collect();
            // Those that were opened lately are remembered for their next time.
            let lately = known.into_iter().filter(|(_, t)| t.opened && now < t.at + SETTLED);
            for (id, t) in lately {
                tries.entry(id).or_insert(t);
            }
            let waiting = full.len();
            let due = full.into_iter().filter(|r| tries.get(&r.id).is_some_and(|t| now >= t.at)).collect();
            let opened = self.reopen_where_there_is_room(due, &mut tries).await;
            if waiting > opened && clock::now() >= remind_at {
                remind_at = clock::now() + REMINDER;
                tracing::warn!("{} partition(s) take no records: there is no room on their disk", waiting - opened);
            }
        }
    }

    /// Returns how many take records again.
    async fn reopen_where_there_is_room(
        self: &Rc<Self>,
        due: Vec<Rc<Replica>>,
        tries: &mut HashMap<PartitionId, Tries>,
    ) -> usize {
        let roots: BTreeSet<PathBuf> =
            due.iter().filter_map(|r| r.log().dir().parent().map(Path::to_path_buf)).collect();
        let mut opened = 0;
        for root in roots {
            let disk = self.storage.disk(&root);
            if disk.look().await.is_err() {
                continue;
            }
            let mut back = Vec::new();
            let here = due.iter().filter(|r| r.log().dir().parent() == Some(&*root));
            for replica in here.filter(|r| disk.has_room(r.log().uses_reserve())) {
                if self.stop.is_set() {
                    return opened;
                }
                let outcome = self.reopen(replica).await;
                if outcome {
                    back.push(format!("{}-{}", replica.topic, replica.id.index));
                }
                if let Some(t) = tries.get_mut(&replica.id) {
                    *t = if outcome { Tries { at: clock::now(), opened: true, ..*t } } else { t.again(clock::now()) };
                }
            }
            opened += back.len();
            if !back.is_empty() {
                let named = back[..back.len().min(NAMED)].join(", ");
                let more = if back.len() > NAMED { format!(" and {} more", back.len() - NAMED) } else { String::new() };
                tracing::info!("there is room again in {}: {named}{more} take(s) records again", root.display());
            }
        }
        opened
    }

    /// Opens the partitions whose opening itself found no room, if that is due: there may be room
    /// on other disks than theirs. Returns when it is due again.
    async fn open_what_found_no_room(self: &Rc<Self>, tries: Tries) -> Tries {
        let waiting = self.take_no_room();
        let put_back = |waiting: BTreeSet<_>| waiting.into_iter().for_each(|partition| self.open_later(partition));
        let now = clock::now();
        if waiting.is_empty() {
            return Tries::first(now);
        }
        if now < tries.at {
            put_back(waiting);
            return tries;
        }
        let mut any_room = false;
        for root in &self.config.log_dirs {
            let disk = self.storage.disk(root);
            any_room |= disk.look().await.is_ok() && disk.has_room(true);
        }
        if !any_room {
            put_back(waiting);
            return tries;
        }
        let _one = self.hosting.acquire(1).await;
        let image = self.image();
        let topics: BTreeSet<_> = waiting.iter().map(|partition| partition.topic).collect();
        let topics = topics.into_iter().filter_map(|topic| image.topic_by_id(topic).cloned()).collect();
        if let Err(error) = self.host(topics, Claim::Known).await {
            tracing::error!(%error, "opening partitions that found no room failed");
        }
        tries.again(clock::now())
    }

    /// Closes a replica that found no room and opens its directory anew; `false`: it is full
    /// as before, or offline now.
    pub(super) async fn reopen(self: &Rc<Self>, full: &Rc<Replica>) -> bool {
        let _one = self.hosting.acquire(1).await;
        let current = || self.replica(full.id).is_some_and(|replica| Rc::ptr_eq(&replica, full));
        let image = self.image();
        let Some(topic) = image.topic_by_id(full.id.topic).filter(|_| current()) else { return false };
        let dir = full.log().dir();
        let reopened = async {
            let end = full.cut_back().await?;
            self.end_to_reopen(full);
            self.open(topic, full.id, &dir, Claim::Known).await?;
            Ok::<i64, std::io::Error>(end)
        };
        let outcome = reopened.await;
        let why = match (outcome, self.replica(full.id)) {
            (Ok(end), Some(fresh)) if fresh.acknowledged() == end => {
                full.replaced();
                return true;
            }
            (Ok(end), Some(fresh)) => format!(
                "{}: acknowledged up to {end}, but the files end at {}: restore them from a copy, or start the broker again to \
                 go on without the rest",
                dir.display(),
                fresh.acknowledged()
            ),
            (Err(error), _) if disk::is_full(&error) => return false,
            (Err(error), _) => format!("opening {} anew: {error}", dir.display()),
            (Ok(_), None) => return false,
        };
        tracing::error!(topic = %full.topic, partition = %full.id.index, "the partition is offline: {why}");
        self.end_coordinator(full.id);
        self.replicas.borrow_mut().remove(&full.id);
        self.set_offline(full.id, why);
        self.note_unopened(full.id, &dir);
        full.replaced();
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_that_keeps_finding_no_room_is_tried_less_often() {
        let now = clock::now();
        let first = Tries::of_full(None, now);
        assert_eq!(first.at, now, "the first try is at once");
        let opened = Tries { opened: true, ..first };
        let mut tries = Tries::of_full(Some(opened), now);
        assert_eq!((tries.wait, tries.opened), (clock::TICK, false), "full again soon after");
        assert_eq!(Tries::of_full(Some(tries), now + SETTLED).at, tries.at, "a try that is due stays so");
        for _ in 0..20 {
            tries = tries.again(now);
        }
        assert_eq!(tries.wait, LONGEST_WAIT);
        let later = Tries::of_full(Some(Tries { opened: true, ..tries }), tries.at + SETTLED);
        assert_eq!(later.wait, Duration::ZERO, "it took records for a while");
    }
}
