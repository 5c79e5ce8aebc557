//! Partitions that are fetched from one leader: which of them go into the next request, and where
//! the parts of an answer go. Pure: the time is an argument, ms.
//!
//! One request is under way at a time. In a session (KIP-227) it names only the partitions whose
//! place has changed, so with nothing new it is empty, whatever their number; the leader answers it
//! when there is something.

use std::collections::{BTreeMap, BTreeSet};

use crate::client::leader::{PartitionAnswer, ReplicaAnswer, ReplicaFetch, ReplicaPlace};
use crate::model::{BrokerId, ErrorCode, LeaderEpoch, PartitionId};

/// While others are being written, a request waits for so long.
pub const PATIENCE_MS: u64 = 50;
/// First pause of a partition that its leader refuses; it doubles.
const FIRST_PAUSE_MS: u64 = 20;
/// Pauses end together.
const GRID_MS: u64 = 10;

/// Settings of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub max_wait_ms: u32,
    pub min_bytes: u32,
    pub max_bytes: u32,
    /// Of one partition.
    pub partition_max_bytes: u32,
    /// Longest pause of a partition.
    pub backoff_ms: u64,
}

/// The state of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// Goes into the next request.
    Due(ReplicaPlace),
    /// Batches that came are being written, or the log is not ready yet: the
    /// number of the [`Work`].
    Busy(u64),
    /// Left out until then.
    Paused(u64),
    /// Left out until it is assigned again.
    Stopped,
}

/// One time that a partition is busy. Work begun for an earlier one changes nothing any more: two
/// answers of a leader must not be carried out at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    pub partition: PartitionId,
    pub epoch: LeaderEpoch,
    number: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    epoch: LeaderEpoch,
    turn: Turn,
    /// Pauses since the last good answer.
    pauses: u32,
}

/// The session as the leader has it.
#[derive(Debug, Default)]
struct Session {
    /// 0: there is none.
    id: i32,
    /// Of the next request.
    epoch: i32,
    places: BTreeMap<PartitionId, ReplicaPlace>,
}

/// Outcome of an answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    /// Each part is for a partition that waits for it, and is now busy.
    Parts(Vec<(PartitionAnswer, Work)>),
    /// The leader has forgotten the session: the next request begins another.
    SessionLost(ErrorCode),
}

/// An answer that is none to what was asked. The connection is of no use any more.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    #[error("the leader answered with an error for the whole request: {0}")]
    Refused(ErrorCode),
    #[error("the leader answered in session {found} where {wanted} is under way")]
    OtherSession { found: i32, wanted: i32 },
    #[error("the leader answered for {0:?}, which was not asked for, or twice")]
    NotAsked(PartitionId),
}

/// The partitions of one leader.
#[derive(Debug)]
pub struct FetchPlan {
    limits: Limits,
    partitions: BTreeMap<PartitionId, Entry>,
    /// Those that may not be as the session has them.
    changed: BTreeSet<PartitionId>,
    paused: BTreeSet<(u64, PartitionId)>,
    due: usize,
    busy: usize,
    session: Session,
    /// When the request under way was made.
    under_way: Option<u64>,
    answered_at: u64,
    /// Number of the newest [`Work`].
    last_work: u64,
}

impl FetchPlan {
    pub fn new(limits: Limits) -> FetchPlan {
        FetchPlan {
            limits,
            partitions: BTreeMap::new(),
            changed: BTreeSet::new(),
            paused: BTreeSet::new(),
            due: 0,
            busy: 0,
            session: Session::default(),
            under_way: None,
            answered_at: 0,
            last_work: 0,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.partitions.is_empty()
    }

    /// The epoch in which a partition is followed; `None`: it is not.
    pub fn epoch(&self, id: PartitionId) -> Option<LeaderEpoch> {
        self.partitions.get(&id).map(|entry| entry.epoch)
    }

    /// Follows `id` in `epoch` from now on, or anew. It is busy until [`ready`](Self::ready).
    pub fn assign(&mut self, id: PartitionId, epoch: LeaderEpoch) -> Work {
        self.remove(id);
        self.partitions.insert(id, Entry { epoch, turn: Turn::Stopped, pauses: 0 });
        self.begin(id, epoch)
    }

    fn begin(&mut self, id: PartitionId, epoch: LeaderEpoch) -> Work {
        self.last_work += 1;
        self.turn(id, Turn::Busy(self.last_work));
        Work { partition: id, epoch, number: self.last_work }
    }

    /// True while the partition is busy with this.
    pub fn is_current(&self, work: Work) -> bool {
        self.partitions.get(&work.partition).is_some_and(|entry| entry.turn == Turn::Busy(work.number))
    }

    /// Follows `id` no more.
    pub fn remove(&mut self, id: PartitionId) {
        self.turn(id, Turn::Stopped);
        self.partitions.remove(&id);
    }

    /// A busy partition is written: it goes on from `place`. One that has changed
    /// meanwhile is left as it is.
    pub fn ready(&mut self, work: Work, place: ReplicaPlace) {
        if self.is_current(work) {
            self.turn(work.partition, Turn::Due(ReplicaPlace { max_bytes: self.limits.partition_max_bytes, ..place }));
        }
    }

    /// A busy partition got an answer that was of use.
    pub fn served(&mut self, work: Work) {
        if let Some(entry) = self.busy_entry(work) {
            entry.pauses = 0;
        }
    }

    /// A busy partition is left out for a while, the longer the more often.
    /// Returns its pauses in a row.
    pub fn pause(&mut self, work: Work, now: u64) -> u32 {
        let longest = self.limits.backoff_ms;
        let Some(entry) = self.busy_entry(work) else { return 0 };
        let length = FIRST_PAUSE_MS.checked_shl(entry.pauses.min(20)).unwrap_or(longest).min(longest);
        entry.pauses = entry.pauses.saturating_add(1);
        let pauses = entry.pauses;
        self.turn(work.partition, Turn::Paused((now + length).next_multiple_of(GRID_MS)));
        pauses
    }

    /// A busy partition is left out until it is assigned again.
    pub fn stop(&mut self, work: Work) {
        if self.is_current(work) {
            self.turn(work.partition, Turn::Stopped);
        }
    }

    fn busy_entry(&mut self, work: Work) -> Option<&mut Entry> {
        self.partitions.get_mut(&work.partition).filter(|entry| entry.turn == Turn::Busy(work.number))
    }

    fn turn(&mut self, id: PartitionId, next: Turn) {
        let Some(entry) = self.partitions.get_mut(&id) else { return };
        match std::mem::replace(&mut entry.turn, next) {
            Turn::Due(_) => self.due -= 1,
            Turn::Busy(_) => self.busy -= 1,
            Turn::Paused(until) => drop(self.paused.remove(&(until, id))),
            Turn::Stopped => {}
        }
        match next {
            Turn::Due(_) => self.due += 1,
            Turn::Busy(_) => self.busy += 1,
            Turn::Paused(until) => drop(self.paused.insert((until, id))),
            Turn::Stopped => {}
        }
        self.changed.insert(id);
    }

    /// The partitions whose pause is over; they are busy until [`ready`](Self::ready).
    pub fn rested(&mut self, now: u64) -> Vec<Work> {
        let mut rested = Vec::new();
        while let Some((until, id)) = self.paused.first().copied()
            && until <= now
        {
            self.paused.remove(&(until, id));
            if let Some(epoch) = self.epoch(id) {
                rested.push(self.begin(id, epoch));
            }
        }
        rested
    }

    /// When there may be something to do that nothing else tells.
    pub fn wake_at(&self) -> Option<u64> {
        let rest = self.paused.first().map(|(until, _)| *until);
        let patience = (self.under_way.is_none() && self.due > 0 && self.busy > 0).then(|| self.patience());
        rest.into_iter().chain(patience).min()
    }

    fn patience(&self) -> u64 {
        self.answered_at.saturating_add(PATIENCE_MS)
    }

    /// A partition that can be fetched is not in the request under way, which
    /// was made at this time.
    pub fn is_overtaken(&self) -> Option<u64> {
        let made = self.under_way?;
        let news = |id: &PartitionId| match self.partitions.get(id).map(|entry| entry.turn) {
            Some(Turn::Due(_)) => !self.session.places.contains_key(id),
            _ => false,
        };
        self.changed.iter().any(news).then_some(made)
    }

    /// None is under way, and there is something to ask for.
    pub fn wants_request(&self, now: u64) -> bool {
        let waits = self.busy > 0 && now < self.patience();
        self.under_way.is_none() && self.due > 0 && !waits
    }

    /// The request to send now, of `replica` in its incarnation.
    pub fn next_request(&mut self, (replica, broker_epoch): (BrokerId, i64), now: u64) -> Option<ReplicaFetch> {
        if !self.wants_request(now) {
            return None;
        }
        let (partitions, forgotten) = match self.session.id {
            0 => (self.begin_session(), Vec::new()),
            _ => self.differences(),
        };
        self.changed.clear();
        self.under_way = Some(now);
        Some(ReplicaFetch {
            replica,
            broker_epoch,
            max_wait_ms: self.longest_wait(now),
            min_bytes: self.limits.min_bytes,
            max_bytes: self.limits.max_bytes,
            session_id: self.session.id,
            session_epoch: self.session.epoch,
            partitions,
            forgotten,
        })
    }

    /// A partition that is left out now must not wait for the others.
    fn longest_wait(&self, now: u64) -> u32 {
        let rest = self.paused.first().map(|(until, _)| until.saturating_sub(now).max(1));
        let writes = (self.busy > 0).then_some(PATIENCE_MS);
        let limit = rest.into_iter().chain(writes).min().and_then(|ms| u32::try_from(ms).ok());
        limit.map_or(self.limits.max_wait_ms, |limit| limit.min(self.limits.max_wait_ms))
    }

    fn begin_session(&mut self) -> Vec<ReplicaPlace> {
        let due = self.partitions.values().filter_map(|entry| match entry.turn {
            Turn::Due(place) => Some(place),
            _ => None,
        });
        let places: Vec<ReplicaPlace> = due.collect();
        let known = places.iter().map(|place| (place.partition, *place)).collect();
        self.session = Session { id: 0, epoch: 0, places: known };
        places
    }

    /// Changes that the session has to learn: new places, and partitions that are left out.
    fn differences(&mut self) -> (Vec<ReplicaPlace>, Vec<PartitionId>) {
        let (mut places, mut forgotten) = (Vec::new(), Vec::new());
        for id in &self.changed {
            match self.partitions.get(id).map(|entry| entry.turn) {
                Some(Turn::Due(place)) => {
                    if self.session.places.insert(*id, place) != Some(place) {
                        places.push(place);
                    }
                }
                _ => forgotten.extend(self.session.places.remove(id).map(|_| *id)),
            }
        }
        (places, forgotten)
    }

    /// The connection has ended: the next request begins a new session.
    pub fn disconnected(&mut self) {
        self.under_way = None;
        self.session = Session::default();
    }

    /// Takes the answer to the request under way.
    pub fn answered(&mut self, answer: ReplicaAnswer, now: u64) -> Result<Taken, Mismatch> {
        use ErrorCode::{FetchSessionIdNotFound, FetchSessionTopicIdError, InvalidFetchSessionEpoch};
        self.under_way = None;
        self.answered_at = now;
        match answer.error {
            ErrorCode::None => {}
            error @ (FetchSessionIdNotFound | InvalidFetchSessionEpoch | FetchSessionTopicIdError) => {
                self.session = Session::default();
                return Ok(Taken::SessionLost(error));
            }
            error => return Err(Mismatch::Refused(error)),
        }
        self.next_in_session(answer.session_id)?;
        let mut told = BTreeSet::new();
        // All of them first: of an answer that is none, no part is taken.
        for id in answer.partitions.iter().map(|part| part.partition) {
            if !self.session.places.contains_key(&id) || !told.insert(id) {
                return Err(Mismatch::NotAsked(id));
            }
        }
        let mut parts = Vec::with_capacity(answer.partitions.len());
        for part in answer.partitions {
            let id = part.partition;
            let Some(asked) = self.session.places.get(&id).copied() else { continue };
            // It may be followed in another epoch now, or not at all.
            let waits = self.partitions.get(&id).filter(|entry| entry.turn == Turn::Due(asked));
            if let Some(epoch) = waits.map(|entry| entry.epoch) {
                let work = self.begin(id, epoch);
                parts.push((part, work));
            }
        }
        if self.session.id == 0 {
            self.session = Session::default();
        }
        Ok(Taken::Parts(parts))
    }

    fn next_in_session(&mut self, answered: i32) -> Result<(), Mismatch> {
        let session = &mut self.session;
        match (session.id, answered) {
            // A new one; 0: the leader keeps none.
            (0, id) => session.id = id,
            (_, 0) => session.id = 0,
            (wanted, found) if wanted != found => return Err(Mismatch::OtherSession { found, wanted }),
            _ => {}
        }
        session.epoch = if session.epoch == i32::MAX { 1 } else { session.epoch + 1 };
        Ok(())
    }
}

#[cfg(test)]
impl FetchPlan {
    /// The partition's present work in `epoch`; otherwise one that was never begun.
    pub fn work(&self, id: PartitionId, epoch: LeaderEpoch) -> Work {
        let number = match self.partitions.get(&id).filter(|entry| entry.epoch == epoch).map(|entry| entry.turn) {
            Some(Turn::Busy(number)) => number,
            _ => 0,
        };
        Work { partition: id, epoch, number }
    }

    pub fn is_due(&self, id: PartitionId) -> bool {
        self.partitions.get(&id).is_some_and(|entry| matches!(entry.turn, Turn::Due(_)))
    }
}
