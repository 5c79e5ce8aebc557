//! Roles of a replica: alone, leader, follower, or none; and what a leader's replica does
//! with followers and the ISR.
//!
//! The rules are those of [`Leader`] and [`Follower`], pure; here they meet the log. In every role
//! the log's movement goes through [`Standing::log_moved`].

use std::rc::Rc;

use super::follower::{Follower, LeaderAnswer, NextFetch, Step};
use super::leader::{
    AckAll, Change, Decision, FetchAnswer, FollowerFetch, Leader, PartitionView, Proposal, RefusedLead,
};
use super::replica::{Accepted, Rejected, Replica, storage_error};
use super::standing::Standing;
use super::waiters::{AckWait, DataWaiter};
use crate::model::{BrokerId, ErrorCode, LeaderEpoch};
use crate::storage::LogRead;

/// A broker's membership in a cluster, as its replicas need it.
#[derive(Clone, Copy, Debug)]
pub struct Membership {
    pub me: BrokerId,
    /// `replica.lag.time.max.ms`
    pub lag_time_max_ms: i64,
    /// Followers serve consumers, so that they are told at once of a higher high watermark.
    pub followers_serve: bool,
    /// Milliseconds; never goes back.
    pub clock: fn() -> i64,
}

/// How a replica begins when it is opened.
#[derive(Clone, Copy, Debug)]
pub enum Start {
    /// On a broker without a cluster. The epoch is the one to go on in, or to go beyond after a
    /// stop that was not clean.
    Alone(LeaderEpoch),
    /// On a member of a cluster, without a role: no epoch begins here before the metadata says so.
    Member {
        membership: Membership,
        /// As last noted; 0: nothing is known.
        high_watermark: i64,
    },
}

impl From<LeaderEpoch> for Start {
    fn from(epoch: LeaderEpoch) -> Start {
        Start::Alone(epoch)
    }
}

/// One leadership: of one replica, from its begin to its end. What was accepted in it may be
/// acknowledged in it only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term {
    /// Number of the log on its shard.
    pub log: u64,
    pub count: u32,
}

/// Part of a replica in its partition.
pub(super) enum Role {
    /// The only replica that there can be: the broker has no cluster.
    Alone,
    /// No leader is known, or this broker takes no part at present.
    None,
    Leader(Box<Leader>),
    Follower(Follows),
}

/// A follower, and what its leader has told.
pub(super) struct Follows {
    pub rules: Follower,
    /// The leader's.
    pub high_watermark: i64,
    /// The leader's log start.
    pub start: i64,
}

/// A replica whose log is being moved by another replica's word: while there is
/// one, no role begins.
pub struct Moving(Rc<Standing>);

impl Drop for Moving {
    fn drop(&mut self) {
        let standing = &self.0;
        standing.moves.set(standing.moves.get().saturating_sub(1));
        if standing.moves.get() == 0 {
            standing.moves_ended.fire();
        }
    }
}

// ---- roles

impl Replica {
    /// Leads as `view` says, from now on or still. On an error the replica has no role.
    pub fn lead(&self, view: PartitionView) -> Result<(), RefusedLead> {
        let Some(membership) = self.standing.membership else { return Ok(()) };
        let (me, now_ms, end) = (membership.me, (membership.clock)(), self.log.next_offset());
        let epoch = view.leader_epoch;
        let before = self.led_epoch();
        let led = {
            let mut epochs = self.epochs.borrow_mut();
            match &mut *self.standing.role.borrow_mut() {
                Role::Leader(leader) => leader.update(view, &mut epochs, end, now_ms),
                role => Leader::take_over(me, view, membership.lag_time_max_ms, &mut epochs, end, now_ms)
                    .map(|leader| *role = Role::Leader(Box::new(leader))),
            }
        };
        if let Err(why) = led {
            self.leave();
            return Err(why);
        }
        self.begun(epoch);
        if before != Some(epoch) {
            // The file need only cover what lies before the recovery point.
            self.epochs_unsaved.set(true);
            self.standing.waiters.data.fire();
            self.standing.waiters.stable.fire();
            self.standing.waiters.sent.fire();
        }
        if before.is_none() {
            self.standing.next_term();
            // From here on others go by what is left.
            if self.damaged.replace(false) {
                self.log.forget_damage();
            }
        }
        self.moved();
        Ok(())
    }

    /// Follows `leader` in `epoch`, from now on or still; not in an epoch below the last one.
    pub fn follow(&self, leader: BrokerId, epoch: LeaderEpoch) {
        if self.standing.membership.is_none() || self.followed() == Some(Follower { leader, epoch }) {
            return;
        }
        self.leave();
        let rules = Follower { leader, epoch };
        {
            let mut epochs = self.epochs.borrow_mut();
            let before = epochs.latest();
            if !rules.begin(self.standing.epoch.get(), &mut epochs, self.log.next_offset()) {
                return;
            }
            if epochs.latest() != before {
                self.epochs_unsaved.set(true);
            }
        }
        *self.standing.role.borrow_mut() = Role::Follower(Follows { rules, high_watermark: 0, start: 0 });
        self.begun(epoch);
    }

    /// A role has begun in this epoch, or goes on in it.
    fn begun(&self, epoch: LeaderEpoch) {
        self.leader_epoch.set(epoch);
        self.standing.epoch.set(epoch);
    }

    /// Ends the role; waiters are told. A replica that is alone stays so.
    pub fn leave(&self) {
        let left = {
            let mut role = self.standing.role.borrow_mut();
            match &*role {
                Role::Alone | Role::None => return,
                Role::Leader(_) | Role::Follower(_) => std::mem::replace(&mut *role, Role::None),
            }
        };
        match left {
            Role::Leader(_) => {
                self.standing.next_term();
                self.standing.waiters.role_over(self.high_watermark());
            }
            _ => self.standing.waiters.log_over(self.high_watermark()),
        }
        self.standing.high_watermark_moved(true);
    }

    /// Tells a leader how long the metadata store has been away; see [`Leader::set_apart`].
    pub fn set_apart(&self, apart_ms: Option<i64>) {
        if let Role::Leader(leader) = &mut *self.standing.role.borrow_mut() {
            leader.set_apart(apart_ms);
        }
    }

    /// A leader gives its leadership to another replica in sync (`false`: no longer); it
    /// refuses records meanwhile.
    pub fn hand_over(&self, wanted: bool) {
        if let Role::Leader(leader) = &mut *self.standing.role.borrow_mut() {
            match (wanted, leader.wanted()) {
                (true, None) => leader.want(Some(Change::HandOver)),
                (false, Some(Change::HandOver)) => leader.want(None),
                _ => {}
            }
        }
    }

    /// The broker has no cluster.
    pub fn is_alone(&self) -> bool {
        self.standing.membership.is_none()
    }

    /// The epoch that it leads in; `None`: it does not lead, or another replica has
    /// shown that the epoch is over.
    pub fn led_epoch(&self) -> Option<LeaderEpoch> {
        match &*self.standing.role.borrow() {
            Role::Alone => Some(self.leader_epoch()),
            Role::Leader(leader) => (!leader.is_deposed()).then(|| leader.epoch()),
            Role::None | Role::Follower(_) => None,
        }
    }

    /// The leader that it follows, and in which epoch.
    pub fn followed(&self) -> Option<Follower> {
        match &*self.standing.role.borrow() {
            Role::Follower(follows) => Some(follows.rules),
            Role::Alone | Role::None | Role::Leader(_) => None,
        }
    }

    /// The current leadership, or the last one.
    pub fn term(&self) -> Term {
        self.standing.term.get()
    }

    /// Held while the log is moved by another replica's word (batches as they are, a cut):
    /// no role begins meanwhile.
    pub fn begin_move(&self) -> Moving {
        self.standing.moves.set(self.standing.moves.get() + 1);
        Moving(self.standing.clone())
    }

    /// Resolves when no move is under way; `None`: there is none.
    pub fn moves_end(&self) -> Option<impl Future<Output = ()> + use<>> {
        (self.standing.moves.get() > 0).then(|| {
            let waiter = DataWaiter::new(None);
            self.standing.moves_ended.add(&waiter);
            async move { waiter.fired().await }
        })
    }

    /// Draws the conclusions from what has become known.
    pub(super) fn moved(&self) {
        self.standing.log_moved(&self.log);
    }
}

// ---- clients of a leader

impl Replica {
    /// Refuses clients where this is not the leader, or where they believe in
    /// another epoch (KIP-320).
    pub fn check_epoch(&self, believed: Option<LeaderEpoch>) -> Result<(), ErrorCode> {
        match &*self.standing.role.borrow() {
            Role::Leader(leader) => leader.check_epoch(believed),
            role => match believed.map(|epoch| epoch.cmp(&self.leader_epoch())) {
                Some(std::cmp::Ordering::Less) => Err(ErrorCode::FencedLeaderEpoch),
                Some(std::cmp::Ordering::Greater) => Err(ErrorCode::UnknownLeaderEpoch),
                _ if matches!(role, Role::Alone) => Ok(()),
                _ => Err(ErrorCode::NotLeaderOrFollower),
            },
        }
    }

    /// As [`check_epoch`](Self::check_epoch) for a reader of what is committed. `anywhere`: a
    /// follower serves it, too (KIP-392).
    pub fn check_reader(&self, believed: Option<LeaderEpoch>, anywhere: bool) -> Result<(), ErrorCode> {
        match self.check_epoch(believed) {
            Err(ErrorCode::NotLeaderOrFollower) if anywhere && self.followed().is_some() => Ok(()),
            checked => checked,
        }
    }

    /// Other members of the ISR that have everything before `offset`, and their ends; none
    /// where this is not the leader.
    pub fn in_sync_from(&self, offset: i64) -> Vec<(BrokerId, i64)> {
        match &*self.standing.role.borrow() {
            Role::Leader(leader) => leader.in_sync_from(offset),
            Role::Alone | Role::None | Role::Follower(_) => Vec::new(),
        }
    }

    /// Refuses a batch before it is appended. `for_all`: it is to be acknowledged by the whole ISR.
    pub(super) fn may_append(&self, for_all: bool) -> Result<(), Rejected> {
        let refused = match &*self.standing.role.borrow() {
            Role::Alone => return Ok(()),
            Role::Leader(leader) if leader.is_apart() && leader.may_be_replaced(self.standing.now_ms()) => {
                let why = "neither ZooKeeper nor a replica in sync has been heard of for a session's time: another broker may \
                           lead the partition. Nothing was written";
                return Err(Rejected::new(ErrorCode::NotLeaderOrFollower, why));
            }
            Role::Leader(leader) if for_all => leader.may_append_for_all(),
            Role::Leader(leader) => leader.check_epoch(None),
            Role::None | Role::Follower(_) => Err(ErrorCode::NotLeaderOrFollower),
        };
        refused.map_err(|code| self.refused(code))
    }

    fn refused(&self, code: ErrorCode) -> Rejected {
        let why = match code {
            ErrorCode::NotEnoughReplicas => "fewer replicas are in sync than min.insync.replicas: nothing was written",
            ErrorCode::NotEnoughReplicasAfterAppend => {
                "written, but fewer replicas than min.insync.replicas were in sync by then"
            }
            ErrorCode::NotLeaderOrFollower => "this broker does not lead the partition any more",
            _ => "the partition is offline; the broker's log says why",
        };
        match self.log.failure() {
            Some(failure) if code == ErrorCode::KafkaStorageError => storage_error(failure),
            _ => Rejected::new(code, why),
        }
    }

    /// True while not everything before `next_offset` is acknowledged by this replica, but may be.
    pub fn awaits_ack(&self, next_offset: i64) -> bool {
        self.acknowledged() < next_offset && self.log.failure().is_none()
    }

    /// Lets `wait` settle once everything before `next_offset` is acknowledged by this
    /// replica, or never will be.
    pub fn expect_ack(&self, next_offset: i64, wait: &Rc<AckWait>) {
        if self.awaits_ack(next_offset) {
            self.standing.waiters.expect_ack(next_offset, wait);
        }
    }

    /// Lets `wait` settle once everything before `next_offset` is committed, or it is known that
    /// it will not be in `term`.
    pub fn expect_commit(&self, next_offset: i64, term: Term, wait: &Rc<AckWait>) {
        if self.commit_state(next_offset, term) == AckAll::Pending {
            self.standing.waiters.expect_commit(next_offset, wait);
        }
    }

    /// After the wait: the error unless the batch is acknowledged by this replica.
    pub fn ack_outcome(&self, accepted: &Accepted) -> Result<(), Rejected> {
        if !self.still_has(accepted) {
            return Err(self.refused(ErrorCode::NotLeaderOrFollower));
        }
        if self.acknowledged() >= accepted.next_offset {
            return Ok(());
        }
        Err(self.unsettled())
    }

    /// The batch was not cut off since it was accepted.
    fn still_has(&self, accepted: &Accepted) -> bool {
        accepted.term.log == self.term().log && self.standing.cuts.get().spared(accepted.cuts, accepted.next_offset)
    }

    /// State of a batch for the whole ISR. Where the leadership that accepted it has
    /// ended, it may be committed by the next leader: pending until the high watermark has
    /// passed it, or it is cut off.
    pub fn fate(&self, accepted: &Accepted) -> AckAll {
        match self.commit_state(accepted.next_offset, accepted.term) {
            AckAll::Refused(ErrorCode::NotLeaderOrFollower) if self.still_has(accepted) => {
                match self.high_watermark() >= accepted.next_offset {
                    true => AckAll::Committed,
                    false if self.log.failure().is_some() => AckAll::Refused(ErrorCode::KafkaStorageError),
                    false => AckAll::Pending,
                }
            }
            state => state,
        }
    }

    /// Lets `wait` settle once `fate` may have changed. Returns whether the leadership that
    /// accepted the batch lasts.
    pub fn expect_fate(&self, accepted: &Accepted, wait: &Rc<AckWait>) -> bool {
        self.standing.waiters.expect_commit(accepted.next_offset, wait);
        accepted.term == self.term() && self.led_epoch().is_some()
    }

    /// After the wait: the error unless the batch is committed. Of a batch whose leader
    /// has gone it is not known.
    pub fn fate_outcome(&self, accepted: &Accepted) -> Result<(), Rejected> {
        self.outcome(self.fate(accepted), || self.refused(ErrorCode::NotLeaderOrFollower))
    }

    /// After the wait: the error unless everything before `next_offset` is committed.
    pub fn commit_outcome(&self, next_offset: i64, term: Term) -> Result<(), Rejected> {
        self.outcome(self.commit_state(next_offset, term), || self.unsettled())
    }

    fn outcome(&self, state: AckAll, pending: impl FnOnce() -> Rejected) -> Result<(), Rejected> {
        match state {
            AckAll::Committed => Ok(()),
            AckAll::Refused(code) => Err(self.refused(code)),
            AckAll::Pending => Err(pending()),
        }
    }

    fn unsettled(&self) -> Rejected {
        match self.log.failure() {
            Some(failure) => storage_error(failure),
            None => Rejected::new(ErrorCode::RequestTimedOut, "the batch was not acknowledged in time"),
        }
    }

    /// State of a batch that was accepted in `term` for the whole ISR.
    pub fn commit_state(&self, next_offset: i64, term: Term) -> AckAll {
        let high_watermark = self.high_watermark();
        if term != self.term() {
            return AckAll::Refused(ErrorCode::NotLeaderOrFollower);
        }
        match &*self.standing.role.borrow() {
            Role::Leader(leader) => leader.ack_all(next_offset, high_watermark),
            Role::Alone if high_watermark >= next_offset => AckAll::Committed,
            Role::Alone if self.log.failure().is_some() => AckAll::Refused(ErrorCode::KafkaStorageError),
            Role::Alone => AckAll::Pending,
            Role::None | Role::Follower(_) => AckAll::Refused(ErrorCode::NotLeaderOrFollower),
        }
    }

    /// The end that consumers may be told (KIP-207).
    pub fn latest_offset(&self) -> Result<i64, ErrorCode> {
        let high_watermark = self.high_watermark();
        match &*self.standing.role.borrow() {
            Role::Leader(leader) => leader.latest_offset(high_watermark),
            Role::Alone | Role::None | Role::Follower(_) => Ok(high_watermark),
        }
    }
}

// ---- as a follower

impl Replica {
    /// The fetch that is due; `None`: part of the log is not acknowledged yet,
    /// or this is no follower.
    pub fn next_fetch(&self) -> Option<NextFetch> {
        match &*self.standing.role.borrow() {
            Role::Follower(follows) => follows.rules.next_fetch(&self.standing.watermarks.get(), &self.epochs.borrow()),
            Role::Alone | Role::None | Role::Leader(_) => None,
        }
    }

    /// The step that the leader's answer to a fetch of `epoch` asks for; `None`: it
    /// is not followed any more.
    pub fn answered(&self, epoch: LeaderEpoch, answer: &LeaderAnswer) -> Option<Step> {
        match &*self.standing.role.borrow() {
            Role::Follower(follows) if follows.rules.epoch == epoch => {
                Some(follows.rules.answered(answer, &self.standing.watermarks.get(), &self.epochs.borrow()))
            }
            _ => None,
        }
    }

    /// Takes over the leader's high watermark and log start, as far as the own log reaches. Returns
    /// where the own log is to begin; `None`: where it does.
    pub fn heed(&self, epoch: LeaderEpoch, high_watermark: i64, start: i64) -> Option<i64> {
        match &mut *self.standing.role.borrow_mut() {
            Role::Follower(follows) if follows.rules.epoch == epoch => {
                (follows.high_watermark, follows.start) = (high_watermark, start);
            }
            _ => return None,
        }
        self.moved();
        self.next_start()
    }

    /// Where the log is to begin by what the leader has told; `None`: where it does.
    pub fn next_start(&self) -> Option<i64> {
        match &*self.standing.role.borrow() {
            Role::Follower(follows) => follows.rules.next_start(follows.start, &self.standing.watermarks.get()),
            Role::Alone | Role::None | Role::Leader(_) => None,
        }
    }
}

// ---- followers of a leader, and the ISR

impl Replica {
    /// Judges a follower's fetch, whose offset is its acknowledgement when it `arrives`. The high
    /// watermark may have moved afterwards, and a proposal may be due.
    pub fn fetched(&self, fetch: &FollowerFetch, arrives: bool) -> FetchAnswer {
        let watermarks = self.standing.watermarks.get();
        let (ends, now_ms) = (watermarks.ends(), self.standing.now_ms());
        let answer = match &mut *self.standing.role.borrow_mut() {
            Role::Leader(leader) if arrives => leader.fetched(fetch, ends, &self.epochs.borrow(), now_ms),
            Role::Leader(leader) => leader.judge(fetch, ends, &self.epochs.borrow()),
            Role::Alone | Role::None | Role::Follower(_) => FetchAnswer::Refuse(ErrorCode::NotLeaderOrFollower),
        };
        self.moved();
        answer
    }

    /// Whole batches from `offset` on, up to `limit`, committed or not: for replicas.
    pub async fn read_up_to(&self, offset: i64, limit: i64, max_bytes: usize) -> Result<LogRead, ErrorCode> {
        self.log.read(offset, limit, max_bytes, false).await.map_err(|error| self.read_error(error))
    }

    /// Everything before this can be read.
    pub fn sent(&self) -> i64 {
        self.standing.watermarks.get().ends().sent
    }

    /// The change of the ISR that is due. It counts as in flight until [`decided`](Self::decided).
    pub fn propose(&self) -> Option<Proposal> {
        let (watermarks, now_ms) = (self.standing.watermarks.get(), self.standing.now_ms());
        match &mut *self.standing.role.borrow_mut() {
            Role::Leader(leader) => leader.propose(&watermarks, now_ms),
            Role::Alone | Role::None | Role::Follower(_) => None,
        }
    }

    /// The end of the proposal based on version `based_on` of the partition's state.
    pub fn decided(&self, based_on: i32, decision: Decision) {
        let now_ms = self.standing.now_ms();
        if let Role::Leader(leader) = &mut *self.standing.role.borrow_mut() {
            leader.decided(based_on, decision, now_ms);
        }
        self.moved();
    }

    /// Takes note that a follower is told of the high watermark. True if it had not been and
    /// consumers read from it: then it is answered at once.
    pub fn tell_high_watermark(&self, follower: BrokerId) -> bool {
        match &mut *self.standing.role.borrow_mut() {
            Role::Leader(leader) if self.standing.followers_serve() => leader.tell(follower, self.high_watermark()),
            _ => false,
        }
    }

    fn owes_high_watermark(&self, follower: BrokerId) -> bool {
        match &*self.standing.role.borrow() {
            Role::Leader(leader) if self.standing.followers_serve() => leader.owes(follower, self.high_watermark()),
            _ => false,
        }
    }

    /// Fires `waiter` when there is something to read behind `offset` for a replica, the log fails,
    /// or, for a `follower`, this one does not lead any more or has a high watermark to tell.
    pub fn expect_sent(&self, offset: i64, follower: Option<BrokerId>, waiter: &Rc<DataWaiter>) {
        let tells = follower.is_some_and(|follower| self.led_epoch().is_none() || self.owes_high_watermark(follower));
        if tells || self.sent() > offset || self.log.failure().is_some() {
            waiter.fire();
        } else {
            self.standing.waiters.sent.add(waiter);
        }
    }
}
