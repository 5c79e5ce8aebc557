//! Rules of a partition's leader (KIP-101, 207, 279, 320, 966), pure: a view of the
//! metadata, the followers' fetches and the time go in; a high watermark, answers and
//! proposals for the ISR come out.
//!
//! - *Maximal ISR*: the committed one, and every addition that is proposed or may still take
//!   effect. The high watermark counts all of it. A removal counts once the metadata shows it.
//! - One proposal is in flight. One whose outcome is unknown may take effect until the state's
//!   version has moved past the one it was based on; proposing again makes it move.

use std::collections::BTreeMap;

use super::epochs::EpochHistory;
use super::watermarks::{BrokenEnds, Ends, Watermarks};
use crate::model::planted::{Planted, planted};
use crate::model::{BrokerId, ErrorCode, LeaderEpoch};

/// A proposal that was refused is not made again before this, unless the metadata has changed.
pub const RETRY_MS: i64 = 500;

/// The partition as the metadata image shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionView {
    /// Of the partition's state.
    pub version: i32,
    pub leader_epoch: LeaderEpoch,
    pub isr: Vec<BrokerId>,
    /// 0 without an ELR.
    pub elr_min: i32,
    /// All of the assignment, this broker too.
    pub replicas: Vec<ReplicaView>,
    /// `min.insync.replicas` as it binds the partition: at most its replication factor, at least 1.
    pub min_isr: i32,
}

/// A replica's broker as the metadata image shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaView {
    pub broker: BrokerId,
    /// `None`: not registered.
    pub broker_epoch: Option<i64>,
    /// Takes part in the cluster: neither joining nor on its way out.
    pub active: bool,
    /// Version of the record that says so.
    pub incarnation: i32,
}

impl PartitionView {
    /// Members that the ISR must have before anything is committed. While an ELR stands its bound
    /// holds as well: members of the ELR lack what a smaller ISR would commit.
    fn required(&self) -> usize {
        let elr_min = if planted(Planted::ElrKeptWhenMinimumFalls) { 0 } else { self.elr_min };
        usize::try_from(self.min_isr.max(elr_min)).unwrap_or(0).max(1)
    }
}

/// A follower's fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowerFetch {
    pub broker: BrokerId,
    pub broker_epoch: i64,
    /// Epoch that the follower believes to be the leader's.
    pub leader_epoch: LeaderEpoch,
    /// Everything before is acknowledged by the follower.
    pub offset: i64,
    /// Epoch of the record before `offset`; `None`: the follower's log is empty.
    pub last_epoch: Option<i32>,
}

/// A leader's answer to a follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchAnswer {
    /// Records from the offset up to this end.
    Serve {
        up_to: i64,
    },
    /// The follower's log is not the leader's: of epochs up to `epoch` the leader
    /// has records before `end`.
    Diverging {
        epoch: i32,
        end: i64,
    },
    Refuse(ErrorCode),
}

/// A change of the partition's state that the leader wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// Version of the state that it changes, and only that.
    pub based_on: i32,
    pub change: Change,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// These join the ISR, each with the version of the incarnation that has to be current still.
    Expand(Vec<(BrokerId, i32)>),
    /// These leave it.
    Shrink(Vec<BrokerId>),
    /// Nothing but the version changes, so that what is unknown can no longer take effect.
    Confirm,
    /// This broker's log has failed: it leaves ISR and ELR, and leads no longer.
    Resign,
    /// Another member of the ISR leads, which stays as it is.
    HandOver,
    /// This broker's replica was opened anew: it leads on in a new epoch.
    Renew,
}

/// The end of a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Committed,
    /// It did not and will not take effect.
    Refused,
    Unknown,
}

/// State of a produce that waits for `acks=all`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckAll {
    Pending,
    Committed,
    Refused(ErrorCode),
}

/// A reason not to lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefusedLead {
    #[error(
        "the metadata gives leader epoch {given}, but this replica's log knows epoch {known}: \
         the metadata was restored from an older copy"
    )]
    MetadataWentBack { given: i32, known: i32 },
    #[error("the metadata names this broker as leader, but not as a member of the ISR")]
    NotInSync,
}

/// Progress of one follower since this leader's epoch began.
#[derive(Clone, Copy, Debug)]
struct Progress {
    /// Incarnation whose fetches count.
    broker_epoch: Option<i64>,
    /// `None`: it has not fetched in this epoch.
    end: Option<i64>,
    last_fetch_ms: i64,
    /// It has fetched since its membership was last proposed to change, and since it left. Without
    /// this a follower that has stopped would join again by what it had when it left.
    fresh: bool,
    /// The leader's end at the last fetch.
    last_leader_end: i64,
    caught_up_ms: i64,
    /// High watermark that it was told last.
    told: i64,
}

/// Proposals based on the current version, as the maximal ISR sees them.
#[derive(Clone, Debug)]
struct Pending {
    adds: Vec<BrokerId>,
    removes: Vec<BrokerId>,
    decision: Option<Decision>,
}

/// Leadership of one epoch by this broker.
#[derive(Clone, Debug)]
pub struct Leader {
    me: BrokerId,
    lag_time_max_ms: i64,
    view: PartitionView,
    /// First offset of the epoch.
    epoch_start: i64,
    followers: BTreeMap<BrokerId, Progress>,
    pending: Vec<Pending>,
    retry_at_ms: i64,
    /// A replica has named a higher epoch, so this one is over, unless the
    /// metadata store says otherwise.
    deposed: bool,
    /// The metadata store was asked since.
    asked: bool,
    /// The log has failed.
    failed: bool,
    /// A change of this broker's own place, once nothing else is due.
    wanted: Option<Change>,
    /// The metadata store has been away for this long, in which a session ends,
    /// ms; `None`: it has not.
    apart_ms: Option<i64>,
}

impl Leader {
    /// Takes over at the log's `end` and notes the epoch. `lag_time_max_ms`:
    /// `replica.lag.time.max.ms`.
    pub fn take_over(
        me: BrokerId,
        view: PartitionView,
        lag_time_max_ms: i64,
        history: &mut EpochHistory,
        end: i64,
        now_ms: i64,
    ) -> Result<Leader, RefusedLead> {
        begin(me, &view, history, end, -1)?;
        let mut leader = Leader {
            me,
            lag_time_max_ms,
            view,
            epoch_start: end,
            followers: BTreeMap::new(),
            pending: Vec::new(),
            retry_at_ms: now_ms,
            deposed: false,
            asked: false,
            failed: false,
            wanted: None,
            apart_ms: None,
        };
        leader.forget_ends(now_ms);
        Ok(leader)
    }

    /// Takes note of newer metadata that still names this broker as leader.
    pub fn update(
        &mut self,
        view: PartitionView,
        history: &mut EpochHistory,
        end: i64,
        now_ms: i64,
    ) -> Result<(), RefusedLead> {
        if view.version < self.view.version {
            return Ok(());
        }
        let next_epoch = view.leader_epoch > self.view.leader_epoch;
        if next_epoch {
            begin(self.me, &view, history, end, self.view.leader_epoch.0)?;
        }
        if view.version > self.view.version {
            self.pending.clear();
        }
        if view != self.view {
            self.retry_at_ms = now_ms;
        }
        for (broker, progress) in &mut self.followers {
            // It gave its place up, or was taken out.
            progress.fresh &= !self.view.isr.contains(broker) || view.isr.contains(broker);
        }
        self.view = view;
        if next_epoch {
            self.epoch_start = end;
            self.deposed = false;
            self.forget_ends(now_ms);
        } else {
            self.follow_view(now_ms);
        }
        Ok(())
    }

    pub fn epoch(&self) -> LeaderEpoch {
        self.view.leader_epoch
    }

    pub fn epoch_start(&self) -> i64 {
        self.epoch_start
    }

    /// Another replica is in the committed ISR.
    pub fn has_others_in_sync(&self) -> bool {
        self.view.isr.iter().any(|broker| *broker != self.me)
    }

    /// A replica has shown that the epoch is over: nothing is served until the metadata is newer,
    /// or until a commit shows that the replica was wrong.
    pub fn is_deposed(&self) -> bool {
        self.deposed
    }

    /// The log has failed: nothing more is committed here, and the leadership is given up.
    pub fn log_failed(&mut self) {
        self.failed = true;
    }

    /// This broker gives its place up, or its leadership (`None`: no longer). It leads on as before
    /// until that is committed, or where nobody else is in sync.
    pub fn want(&mut self, change: Option<Change>) {
        self.wanted = change;
    }

    pub fn wanted(&self) -> Option<&Change> {
        self.wanted.as_ref()
    }

    /// The metadata store has been away for `apart_ms`, in which a session ends,
    /// or (`None`) it is there.
    pub fn set_apart(&mut self, apart_ms: Option<i64>) {
        self.apart_ms = apart_ms;
    }

    /// The metadata store is away; without this nobody need ask
    /// [`may_be_replaced`](Self::may_be_replaced), nor the clock.
    pub fn is_apart(&self) -> bool {
        self.apart_ms.is_some()
    }

    /// Another replica may lead by now: the metadata store is away, and for as long nobody
    /// who is in sync has fetched.
    pub fn may_be_replaced(&self, now_ms: i64) -> bool {
        let Some(apart_ms) = self.apart_ms else { return false };
        let is_silent = |broker: &BrokerId| {
            let last_fetch_ms = self.followers.get(broker).map_or(0, |progress| progress.last_fetch_ms);
            now_ms.saturating_sub(last_fetch_ms) >= apart_ms
        };
        !planted(Planted::AppendsApart)
            && self.has_others_in_sync()
            && self.view.isr.iter().filter(|broker| **broker != self.me).all(is_silent)
    }

    // ---- followers

    /// Judges a follower's fetch and notes its progress. Afterwards the high watermark may move
    /// and a proposal may be due.
    pub fn fetched(&mut self, fetch: &FollowerFetch, ends: &Ends, history: &EpochHistory, now_ms: i64) -> FetchAnswer {
        let answer = self.judge(fetch, ends, history);
        if let FetchAnswer::Serve { .. } = answer
            && let Some(progress) = self.followers.get_mut(&fetch.broker)
            && progress.broker_epoch == Some(fetch.broker_epoch)
        {
            progress.note(fetch.offset, ends.sent, now_ms);
        }
        answer
    }

    /// The answer to a follower's fetch, which is no progress: it has waited
    /// here since it was noted.
    pub fn judge(&mut self, fetch: &FollowerFetch, ends: &Ends, history: &EpochHistory) -> FetchAnswer {
        if let Err(code) = self.admit(fetch) {
            return FetchAnswer::Refuse(code);
        }
        if let Some(last) = fetch.last_epoch {
            if history.is_before_all(last) {
                // Its records below our start cannot be told from what was committed there. Cut
                // to our start, it might join the ISR with it, and show it as the next leader.
                // So it begins at our start.
                return FetchAnswer::Refuse(ErrorCode::OffsetOutOfRange);
            }
            match history.end_of(last, ends.appended) {
                None => return FetchAnswer::Refuse(ErrorCode::UnknownLeaderEpoch),
                Some((epoch, end)) if epoch < last || end < fetch.offset => {
                    return FetchAnswer::Diverging { epoch, end };
                }
                Some(_) => {}
            }
        }
        if fetch.offset < ends.start || fetch.offset > ends.appended {
            return FetchAnswer::Refuse(ErrorCode::OffsetOutOfRange);
        }
        FetchAnswer::Serve { up_to: ends.sent }
    }

    /// Fencing by leader epoch, membership and broker epoch.
    fn admit(&mut self, fetch: &FollowerFetch) -> Result<(), ErrorCode> {
        if fetch.leader_epoch < self.epoch() {
            return Err(ErrorCode::FencedLeaderEpoch);
        }
        let Some(replica) = self.view.replicas.iter().find(|r| r.broker == fetch.broker && r.broker != self.me) else {
            return Err(ErrorCode::NotLeaderOrFollower);
        };
        if fetch.leader_epoch > self.epoch() {
            (self.deposed, self.asked) = (true, false);
            return Err(ErrorCode::UnknownLeaderEpoch);
        }
        if self.failed {
            return Err(ErrorCode::KafkaStorageError);
        }
        if self.deposed || replica.broker_epoch.is_some_and(|known| fetch.broker_epoch < known) {
            return Err(ErrorCode::NotLeaderOrFollower);
        }
        Ok(())
    }

    /// Begins the accounting anew for all replicas of the view.
    fn forget_ends(&mut self, now_ms: i64) {
        self.followers.clear();
        self.follow_view(now_ms);
    }

    /// Keeps the progress of incarnations that are the same.
    fn follow_view(&mut self, now_ms: i64) {
        let before = std::mem::take(&mut self.followers);
        for replica in self.view.replicas.iter().filter(|r| r.broker != self.me) {
            let known = before.get(&replica.broker).filter(|p| p.broker_epoch == replica.broker_epoch);
            let in_sync = self.view.isr.contains(&replica.broker);
            let progress = known.copied().unwrap_or(Progress {
                broker_epoch: replica.broker_epoch,
                end: None,
                last_fetch_ms: 0,
                fresh: false,
                last_leader_end: i64::MAX,
                // As Kafka has it, a member of the ISR is given the whole time to fetch.
                caught_up_ms: if in_sync { now_ms } else { i64::MIN },
                told: -1,
            });
            self.followers.insert(replica.broker, progress);
        }
    }

    /// A follower has not been told of this high watermark yet.
    pub fn owes(&self, broker: BrokerId, high_watermark: i64) -> bool {
        self.followers.get(&broker).is_some_and(|progress| progress.told < high_watermark)
    }

    /// Takes note that a follower is told of this high watermark. True if it had not been.
    pub fn tell(&mut self, broker: BrokerId, high_watermark: i64) -> bool {
        let Some(progress) = self.followers.get_mut(&broker) else { return false };
        std::mem::replace(&mut progress.told, high_watermark) < high_watermark
    }

    /// Other members of the ISR that have everything before `offset`, and their ends.
    pub fn in_sync_from(&self, offset: i64) -> Vec<(BrokerId, i64)> {
        let end_of = |broker: &BrokerId| Some((*broker, self.followers.get(broker)?.end?));
        self.view.isr.iter().filter_map(end_of).filter(|(_, end)| *end >= offset).collect()
    }

    // ---- high watermark

    /// Moves the high watermark to what every member of the maximal ISR has. True if it moved.
    pub fn advance(&self, marks: &mut Watermarks, now_ms: i64) -> Result<bool, BrokenEnds> {
        let committed = self.committed(marks.ends(), now_ms);
        match committed.filter(|to| *to > marks.high_watermark()) {
            Some(to) => marks.advance(to),
            None => Ok(false),
        }
    }

    /// Least end over the maximal ISR and those about to join; `None`: nothing may be committed.
    fn committed(&self, ends: &Ends, now_ms: i64) -> Option<i64> {
        if self.deposed || self.failed || (!self.enough_in_sync() && !planted(Planted::HighWatermarkBelowMinimum)) {
            return None;
        }
        let mut least = ends.acknowledged;
        for (broker, progress) in &self.followers {
            if self.in_maximal_isr(*broker) {
                least = least.min(progress.end?);
            } else if progress.fresh
                && self.may_join(*broker)
                && progress.is_caught_up(ends.sent, now_ms, self.lag_time_max_ms)
            {
                least = least.min(progress.end.unwrap_or(least));
            }
        }
        Some(least)
    }

    fn in_maximal_isr(&self, broker: BrokerId) -> bool {
        if planted(Planted::ShrinkBeforeCommit) && self.pending.iter().any(|p| p.removes.contains(&broker)) {
            return false;
        }
        self.view.isr.contains(&broker) || self.pending.iter().any(|p| p.adds.contains(&broker))
    }

    fn may_join(&self, broker: BrokerId) -> bool {
        self.view.replicas.iter().any(|r| r.broker == broker && r.active && r.broker_epoch.is_some())
    }

    fn enough_in_sync(&self) -> bool {
        self.view.isr.len() >= self.view.required()
    }

    // ---- producers and consumers

    /// Refuses an `acks=all` produce before it is appended.
    pub fn may_append_for_all(&self) -> Result<(), ErrorCode> {
        match (self.deposed, self.failed, self.enough_in_sync()) {
            (true, ..) => Err(ErrorCode::NotLeaderOrFollower),
            (_, true, _) => Err(ErrorCode::KafkaStorageError),
            (.., false) => Err(ErrorCode::NotEnoughReplicas),
            _ => Ok(()),
        }
    }

    /// State of an `acks=all` produce whose last record stands before `next_offset`. When the
    /// leadership ends, every produce that is pending still is refused with NOT_LEADER_OR_FOLLOWER.
    pub fn ack_all(&self, next_offset: i64, high_watermark: i64) -> AckAll {
        match (high_watermark >= next_offset, self.enough_in_sync()) {
            (true, true) => AckAll::Committed,
            (true, false) => AckAll::Refused(ErrorCode::NotEnoughReplicasAfterAppend),
            (false, _) if self.deposed => AckAll::Refused(ErrorCode::NotLeaderOrFollower),
            (false, _) if self.failed => AckAll::Refused(ErrorCode::KafkaStorageError),
            (false, _) => AckAll::Pending,
        }
    }

    /// Epoch check of a client's request (KIP-320); a client's word deposes nobody.
    pub fn check_epoch(&self, believed: Option<LeaderEpoch>) -> Result<(), ErrorCode> {
        match believed.map(|epoch| epoch.cmp(&self.epoch())) {
            Some(std::cmp::Ordering::Less) => Err(ErrorCode::FencedLeaderEpoch),
            Some(std::cmp::Ordering::Greater) => Err(ErrorCode::UnknownLeaderEpoch),
            _ if self.deposed => Err(ErrorCode::NotLeaderOrFollower),
            _ => Ok(()),
        }
    }

    /// The end that consumers may be told (KIP-207): a new leader learns only by
    /// and by what is committed.
    pub fn latest_offset(&self, high_watermark: i64) -> Result<i64, ErrorCode> {
        if high_watermark < self.epoch_start { Err(ErrorCode::OffsetNotAvailable) } else { Ok(high_watermark) }
    }

    // ---- the ISR

    /// The change of the ISR that is due, if one may be proposed now. It counts
    /// as in flight from here on.
    pub fn propose(&mut self, marks: &Watermarks, now_ms: i64) -> Option<Proposal> {
        let waits = |p: &Pending| matches!(p.decision, None | Some(Decision::Committed));
        if self.pending.iter().any(waits) || now_ms < self.retry_at_ms {
            return None;
        }
        let change = match (self.deposed, self.failed) {
            // It succeeds only while the metadata has this epoch.
            (true, _) => Change::Confirm,
            (false, true) => Change::Resign,
            (false, false) => self.due(marks, now_ms).or_else(|| self.leaves())?,
        };
        self.asked = self.deposed;
        let (adds, removes) = match &change {
            Change::Expand(joining) => (joining.iter().map(|(broker, _)| *broker).collect(), Vec::new()),
            Change::Shrink(leaving) => (Vec::new(), leaving.clone()),
            Change::Confirm | Change::Resign | Change::HandOver | Change::Renew => Default::default(),
        };
        for broker in adds.iter().chain(&removes) {
            self.followers.entry(*broker).and_modify(|progress| progress.fresh = false);
        }
        self.pending.push(Pending { adds, removes, decision: None });
        Some(Proposal { based_on: self.view.version, change })
    }

    fn leaves(&self) -> Option<Change> {
        self.wanted.clone().filter(|_| self.has_others_in_sync())
    }

    fn due(&self, marks: &Watermarks, now_ms: i64) -> Option<Change> {
        let ends = marks.ends();
        let lags = |broker: &&BrokerId| {
            self.followers.get(*broker).is_some_and(|p| !p.is_caught_up(ends.sent, now_ms, self.lag_time_max_ms))
        };
        let leaving: Vec<BrokerId> = self.view.isr.iter().filter(lags).copied().collect();
        if !leaving.is_empty() {
            return Some(Change::Shrink(leaving));
        }
        let least = marks.high_watermark().max(self.epoch_start);
        let joins = |replica: &&ReplicaView| {
            let progress = self.followers.get(&replica.broker).filter(|progress| progress.fresh);
            let end = progress.and_then(|progress| progress.end);
            let outside = replica.broker != self.me && !self.view.isr.contains(&replica.broker);
            outside && self.may_join(replica.broker) && end.is_some_and(|end| end >= least)
        };
        let joining: Vec<(BrokerId, i32)> =
            self.view.replicas.iter().filter(joins).map(|r| (r.broker, r.incarnation)).collect();
        if !joining.is_empty() {
            return Some(Change::Expand(joining));
        }
        (!self.pending.is_empty()).then_some(Change::Confirm)
    }

    /// The end of the proposal based on version `based_on`.
    pub fn decided(&mut self, based_on: i32, decision: Decision, now_ms: i64) {
        // The metadata had this epoch still when the replica had named a higher one.
        if decision == Decision::Committed && std::mem::take(&mut self.asked) {
            self.deposed = planted(Planted::DeposedForGood);
        }
        if based_on != self.view.version {
            // The version has moved past it, so all that it may have changed is in the view.
            return;
        }
        let Some(at) = self.pending.iter().position(|p| p.decision.is_none()) else { return };
        let refused =
            decision == Decision::Refused || decision == Decision::Unknown && planted(Planted::UnknownTakenAsRefused);
        if refused {
            self.pending.remove(at);
        } else {
            self.pending[at].decision = Some(decision);
        }
        self.retry_at_ms = now_ms.saturating_add(RETRY_MS);
        self.join_unknown();
    }

    /// Makes one of all proposals whose outcome is unknown, so that their number stays bounded.
    fn join_unknown(&mut self) {
        let is_unknown = |p: &Pending| p.decision == Some(Decision::Unknown);
        let (unknown, mut others): (Vec<Pending>, Vec<Pending>) =
            std::mem::take(&mut self.pending).into_iter().partition(is_unknown);
        let joined = unknown.into_iter().reduce(|mut all, next| {
            let news: Vec<BrokerId> = next.adds.into_iter().filter(|broker| !all.adds.contains(broker)).collect();
            all.adds.extend(news);
            let news: Vec<BrokerId> = next.removes.into_iter().filter(|b| !all.removes.contains(b)).collect();
            all.removes.extend(news);
            all
        });
        others.extend(joined);
        self.pending = others;
    }
}

/// Checks that the epoch may begin here and notes it. `led`: the epoch that
/// this broker leads already.
fn begin(
    me: BrokerId,
    view: &PartitionView,
    history: &mut EpochHistory,
    end: i64,
    led: i32,
) -> Result<(), RefusedLead> {
    let given = view.leader_epoch.0;
    if !view.isr.contains(&me) {
        return Err(RefusedLead::NotInSync);
    }
    match history.latest() {
        // An epoch has one leader and one history: one that the log knows already was begun before.
        Some(known) if known >= given && known > led && !planted(Planted::OldEpochAfterRestart) => {
            return Err(RefusedLead::MetadataWentBack { given, known });
        }
        _ => {}
    }
    history.begin(given, end);
    Ok(())
}

impl Progress {
    fn note(&mut self, end: i64, leader_end: i64, now_ms: i64) {
        if end >= leader_end {
            self.caught_up_ms = self.caught_up_ms.max(now_ms);
        } else if end >= self.last_leader_end {
            // It has reached what was there when it fetched last.
            self.caught_up_ms = self.caught_up_ms.max(self.last_fetch_ms);
        }
        self.end = Some(end);
        self.fresh = true;
        self.last_leader_end = leader_end;
        self.last_fetch_ms = now_ms;
    }

    fn is_caught_up(&self, leader_end: i64, now_ms: i64, lag_time_max_ms: i64) -> bool {
        self.end == Some(leader_end) || now_ms.saturating_sub(self.caught_up_ms) <= lag_time_max_ms
    }
}
