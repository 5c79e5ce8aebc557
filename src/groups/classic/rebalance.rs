//! From one generation to the next: all join, one leads, each is told.

use super::group::{ClassicGroup, InitialWait, State};
use super::member::MemberId;
use super::turn::Turn;
use crate::groups::api::SyncReply;
use crate::groups::coordinator::Timer;
use crate::model::ErrorCode;
use crate::observe::client_line;

/// Where none of the members joined again in time: when to look again at the earliest,
/// whatever their timeout is.
const LEAST_RETRY_MS: i64 = 1000;
/// How much of a client's reason is logged; Kafka's own client sends no more.
const MAX_REASON_BYTES: usize = 255;

impl ClassicGroup {
    /// Something changed that the present generation cannot go on with, or that the
    /// next one was waiting for.
    pub(super) fn rebalance_or_complete_join(&mut self, why: &str, turn: &mut Turn) {
        match self.state {
            State::PreparingRebalance => self.maybe_complete_join(turn),
            State::Empty | State::CompletingRebalance | State::Stable => self.prepare_rebalance(why, turn),
        }
    }

    /// Begins the next generation if it waited for nobody else. The first one waits its time out.
    pub(super) fn maybe_complete_join(&mut self, turn: &mut Turn) {
        if self.state == State::PreparingRebalance && self.initial.is_none() && self.have_all_joined() {
            self.complete_join(turn);
        }
    }

    /// Has the members join again. `why` may be what a client says; much of it is cut off.
    pub(in crate::groups) fn prepare_rebalance(&mut self, why: &str, turn: &mut Turn) {
        let (group, was, why) = (&*self.id, self.state.name(), &why[..why.floor_char_boundary(MAX_REASON_BYTES)]);
        client_line!(info, group, was, generation = self.generation, why, "the group rebalances");
        if self.state == State::CompletingRebalance {
            self.interrupt_syncs(ErrorCode::RebalanceInProgress, turn);
        }
        self.pending_syncs.clear();
        turn.cancel(&Timer::ClassicSync(self.id.clone()));
        let first = self.state == State::Empty;
        self.enter(State::PreparingRebalance, turn);
        if first {
            let delay_ms = i64::try_from(turn.env.config.initial_rebalance_delay_ms).unwrap_or(i64::MAX);
            let remaining_ms = (self.rebalance_timeout_ms() - delay_ms).max(0);
            self.initial = Some(InitialWait { delay_ms, remaining_ms, grew: false });
            turn.set(Timer::ClassicJoin(self.id.clone()), delay_ms);
        } else if self.have_all_joined() {
            self.complete_join(turn);
        } else {
            turn.set(Timer::ClassicJoin(self.id.clone()), self.rebalance_timeout_ms());
        }
    }

    /// The time to join is over, or the first generation has waited as long as it was to.
    pub(in crate::groups) fn join_timed_out(&mut self, turn: &mut Turn) {
        if self.state != State::PreparingRebalance {
            return;
        }
        match &mut self.initial {
            Some(initial) if initial.grew && initial.remaining_ms > 0 => {
                let delay_ms = initial.delay_ms.min(initial.remaining_ms);
                let remaining_ms = (initial.remaining_ms - initial.delay_ms).max(0);
                *initial = InitialWait { delay_ms, remaining_ms, grew: false };
                turn.set(Timer::ClassicJoin(self.id.clone()), delay_ms);
            }
            _ => self.complete_join(turn),
        }
    }

    /// Begins the next generation with those that have joined, and with static members
    /// whether they have or not.
    pub(super) fn complete_join(&mut self, turn: &mut Turn) {
        turn.cancel(&Timer::ClassicJoin(self.id.clone()));
        let missing = self.members.iter().filter(|(_, member)| member.join.is_none() && !member.is_static());
        let missing: Vec<MemberId> = missing.map(|(id, _)| id.clone()).collect();
        for id in missing {
            self.drop_member(&id, ErrorCode::UnknownMemberId, turn);
        }
        if !self.members.is_empty() && !self.elect() {
            let retry_ms = self.rebalance_timeout_ms().max(LEAST_RETRY_MS);
            return turn.set(Timer::ClassicJoin(self.id.clone()), retry_ms);
        }
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        let (group, generation, members) = (&*self.id, self.generation, self.members.len());
        client_line!(
            info,
            group,
            generation,
            members,
            "{}",
            if members == 0 { "the group is empty" } else { "a generation begins" }
        );
        self.initial = None;
        self.pending_syncs.clear();
        if self.members.is_empty() {
            self.protocol = None;
            self.enter(State::Empty, turn);
            let record = self.record();
            return turn.env.append(record);
        }
        self.protocol = self.vote();
        self.enter(State::CompletingRebalance, turn);
        let ids: Vec<MemberId> = self.members.keys().cloned().collect();
        for id in ids {
            let waiting = self.change(&id, |member| {
                member.is_new = false;
                member.join.take()
            });
            if let Some(ticket) = waiting.flatten() {
                let reply = self.joined(&id, self.is_leader(&id));
                turn.env.reply(ticket, reply);
            }
            self.renew_session(&id, turn);
            self.pending_syncs.insert(id);
        }
        turn.set(Timer::ClassicSync(self.id.clone()), self.rebalance_timeout_ms());
    }

    /// The leader stays if it has joined again; else another that has becomes
    /// it. `false`: nobody has.
    fn elect(&mut self) -> bool {
        let joined = |id: &MemberId| self.members.get(id).is_some_and(|member| member.join.is_some());
        if !self.leader.as_ref().is_some_and(joined) {
            let Some(id) = self.members.keys().find(|id| joined(id)) else { return false };
            self.leader = Some(id.clone());
        }
        true
    }

    /// Members have not asked for their assignment in time: the others go on without them.
    pub(in crate::groups) fn sync_timed_out(&mut self, turn: &mut Turn) {
        if !matches!(self.state, State::CompletingRebalance | State::Stable) || self.pending_syncs.is_empty() {
            return;
        }
        for id in std::mem::take(&mut self.pending_syncs) {
            self.drop_member(&id, ErrorCode::UnknownMemberId, turn);
        }
        self.prepare_rebalance("members did not ask for their assignment in time", turn);
    }

    /// A member has not been heard of for its session timeout, or has not come back with
    /// the id that it was given.
    pub(in crate::groups) fn session_timed_out(&mut self, id: &str, turn: &mut Turn) {
        if self.pending_joins.contains(id) {
            self.remove_pending(id);
        } else if self.members.get(id).is_some_and(|member| !member.is_alive()) {
            client_line!(info, group = &*self.id, member = id, "a member was not heard of in time");
            self.drop_member(id, ErrorCode::UnknownMemberId, turn);
            if matches!(self.state, State::Stable | State::CompletingRebalance) {
                return self.prepare_rebalance("a member's session ended", turn);
            }
        } else {
            return;
        }
        self.maybe_complete_join(turn);
    }

    pub(super) fn renew_session(&self, id: &MemberId, turn: &mut Turn) {
        if let Some(member) = self.members.get(id) {
            let session = Timer::ClassicSession(self.id.clone(), id.clone());
            turn.set(session, i64::from(member.session_timeout_ms));
        }
    }

    /// All sessions begin now.
    pub(in crate::groups) fn renew_sessions(&self, turn: &mut Turn) {
        for id in self.members.keys() {
            self.renew_session(id, turn);
        }
    }

    /// Ends all waits for assignments with `error`.
    pub(super) fn interrupt_syncs(&mut self, error: ErrorCode, turn: &mut Turn) {
        let ids: Vec<MemberId> = self.members.keys().cloned().collect();
        for id in ids {
            let waiting = self.change(&id, |member| {
                member.assignment = bytes::Bytes::new();
                member.sync.take()
            });
            if let Some(ticket) = waiting.flatten() {
                turn.env.reply(ticket, SyncReply::refused(error));
                self.renew_session(&id, turn);
            }
        }
    }
}
