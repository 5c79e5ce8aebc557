//! The step that all requests of a consumer group take: change it by records, look at the topics,
//! compute the target, move a member on.

use super::group::{ConsumerGroup, metadata_hash};
use super::member::{Member, MemberState};
use super::reconcile::Towards;
use super::refusal::Refusal;
use super::regex::Pattern;
use super::timer::{ConsumerTimer, What};
use crate::coordinator::Timers;
use crate::groups::api::GroupId;
use crate::groups::coordinator::Timer;
use crate::groups::env::Env;
use crate::groups::record::{
    ConsumerRecord, GroupValue, MemberId, MemberValue, Partitions, Record, TargetMetadataValue,
};
use crate::observe::client_line;

/// While topics come and go, all regular expressions of a group are resolved at most this
/// often (Kafka's interval).
const REGEX_REFRESH_MS: u64 = 10_000;

/// One request's work on a group. What is refused is refused before the first record.
pub(super) struct Step<'a, 'e> {
    pub group: &'a mut ConsumerGroup,
    pub timers: &'a mut Timers<Timer>,
    pub env: &'a mut Env<'e>,
}

impl Step<'_, '_> {
    pub(super) fn group_id(&self) -> GroupId {
        self.group.id.clone()
    }

    /// Writes a record and does what it says.
    pub(super) fn emit(&mut self, record: ConsumerRecord) {
        self.group.apply(&record);
        self.env.append(Record::Consumer(record));
    }

    pub(super) fn emit_member(&mut self, member: &MemberId, said: MemberValue) {
        self.emit(ConsumerRecord::Member { group: self.group_id(), member: member.clone(), value: Some(said) });
    }

    fn emit_regex(&mut self, regex: String, value: Option<crate::groups::record::RegexValue>) {
        self.emit(ConsumerRecord::Regex { group: self.group_id(), regex, value });
    }

    /// Takes back the records of a member, in the order that Kafka's loader insists on.
    pub(super) fn remove_member(&mut self, member: &MemberId) {
        let (group, id) = (self.group_id(), member.clone());
        self.emit(ConsumerRecord::Current { group: group.clone(), member: id.clone(), value: None });
        self.emit(ConsumerRecord::Target { group: group.clone(), member: id.clone(), value: None });
        self.emit(ConsumerRecord::Member { group, member: id, value: None });
        What::ALL.into_iter().for_each(|what| self.cancel(what, member));
    }

    /// Regular expressions that nobody subscribes by any more go. Whether there were any.
    pub(super) fn drop_unused_regexes(&mut self) -> bool {
        let unused = self.group.regexes.keys().filter(|regex| self.group.members_by_regex(regex) == 0);
        let unused: Vec<String> = unused.cloned().collect();
        let any = !unused.is_empty();
        unused.into_iter().for_each(|regex| self.emit_regex(regex, None));
        any
    }

    /// Resolves what is not resolved yet and, when topics came or went, everything again. Whether
    /// the outcome is another one.
    pub(super) fn resolve_regexes(&mut self) -> bool {
        let (now, version) = (self.env.mono_ms, self.env.topics.version());
        let rested = self.group.regexes_refreshed_ms.is_none_or(|last| now >= last.saturating_add(REGEX_REFRESH_MS));
        // Resolved names in the log may be of other topics, whatever their version says: versions
        // are this process's own.
        let refresh = rested && self.group.regexes_seen != Some(version);
        let unresolved = |regex: &String| !self.group.regexes.contains_key(regex);
        let due = self.group.subscribed_regexes().filter(|regex| refresh || unresolved(regex));
        let due: Vec<String> = due.cloned().collect();
        if refresh {
            let anew = due.iter().any(|regex| self.group.regexes.contains_key(regex));
            self.group.regexes_refreshed_ms = anew.then_some(now).or(self.group.regexes_refreshed_ms);
            self.group.regexes_seen = Some(version);
        }
        let mut changed = false;
        for regex in due {
            // It was compiled when it was subscribed to; one of another broker's making that is not
            // understood matches nothing.
            let Ok(pattern) = Pattern::compile(&regex) else { continue };
            let resolved = pattern.resolve(self.env.topics, self.env.wall_ms);
            changed |= self.group.regexes.get(&regex).is_none_or(|known| known.topics != resolved.topics);
            self.emit_regex(regex, Some(resolved));
        }
        changed
    }

    /// Moves the group's epoch on when `bump` or when its topics are not what they were.
    pub(super) fn look_at_topics(&mut self, bump: bool) {
        let version = self.env.topics.version();
        if !bump && self.group.seen_topics == Some(version) {
            return;
        }
        let hash = metadata_hash(&self.group.subscribed_topics(self.env.topics));
        self.group.seen_topics = Some(version);
        if bump || hash != self.group.metadata_hash {
            self.bump_epoch(hash);
        }
        if self.group.has_partition_metadata {
            self.emit(ConsumerRecord::PartitionMetadata { group: self.group_id(), present: false });
        }
    }

    fn bump_epoch(&mut self, metadata_hash: i64) {
        let epoch = self.group.epoch.saturating_add(1);
        client_line!(
            info,
            group = &*self.group.id,
            epoch,
            members = self.group.members.len(),
            "the group has a new epoch"
        );
        self.emit(ConsumerRecord::Group { group: self.group_id(), value: Some(GroupValue { epoch, metadata_hash }) });
    }

    /// Members leave or are put out. The others hear of it by their next heartbeats.
    pub(super) fn fence(&mut self, members: &[MemberId]) {
        members.iter().for_each(|member| self.remove_member(member));
        self.drop_unused_regexes();
        let hash = metadata_hash(&self.group.subscribed_topics(self.env.topics));
        self.bump_epoch(hash);
    }

    /// Computes who is to have what when the group's epoch has moved on.
    pub(super) fn update_target(&mut self) {
        if self.group.target_epoch >= self.group.epoch {
            return;
        }
        let group = self.group_id();
        for (member, share) in self.group.compute_target(self.env.config, self.env.topics) {
            self.emit(ConsumerRecord::Target { group: group.clone(), member, value: Some(share) });
        }
        let value = TargetMetadataValue { epoch: self.group.epoch, assigned_ms: self.env.wall_ms.max(0) };
        self.emit(ConsumerRecord::TargetMetadata { group, value: Some(value) });
    }

    /// Moves a member towards its target as far as can be now. Whether its
    /// assignment is another one.
    pub(super) fn reconcile(
        &mut self,
        id: &MemberId,
        subscription_changed: bool,
        owned: Option<&[(uuid::Uuid, Vec<i32>)]>,
    ) -> bool {
        const NOTHING: &Partitions = &Partitions::new();
        let Some(member) = self.group.members.get(id) else { return false };
        if !subscription_changed && member.is_reconciled_to(self.group.target_epoch) {
            return false;
        }
        let (group, topics) = (&*self.group, self.env.topics);
        let towards = Towards {
            epoch: group.target_epoch,
            target: group.target.get(id).unwrap_or(NOTHING),
            subscription_changed,
            owned,
            is_subscribed: &|topic| {
                topics.by_id(topic).is_some_and(|topic| group.member_is_subscribed(&member.said, &topic.name))
            },
            is_held: &|topic, partition| group.is_held(topic, partition),
        };
        let next = towards.step(&member.current);
        if next == member.current {
            return false;
        }
        let reassigned = next.assigned != member.current.assigned;
        let (classic, timeout_ms) = (member.is_classic(), member.said.rebalance_timeout_ms);
        let revokes = MemberState::of(next.state) == MemberState::UnrevokedPartitions;
        self.emit(ConsumerRecord::Current { group: self.group_id(), member: id.clone(), value: Some(next) });
        // Members that use the classic protocol are held to time by their joining and syncing.
        if revokes && !classic {
            self.set_timer(What::Rebalance, id, timeout_ms);
        } else if !classic {
            self.cancel(What::Rebalance, id);
        }
        reassigned
    }

    pub(super) fn set_timer(&mut self, what: What, member: &MemberId, after_ms: i32) {
        let at = self.env.mono_ms.saturating_add(u64::try_from(after_ms).unwrap_or(0));
        let timer = ConsumerTimer { group: self.group_id(), member: member.clone(), what };
        self.timers.set(Timer::Consumer(timer), at);
    }

    pub(super) fn cancel(&mut self, what: What, member: &MemberId) {
        let timer = ConsumerTimer { group: self.group_id(), member: member.clone(), what };
        self.timers.cancel(&Timer::Consumer(timer));
    }

    pub(super) fn is_timer_set(&self, what: What, member: &MemberId) -> bool {
        let timer = ConsumerTimer { group: self.group_id(), member: member.clone(), what };
        self.timers.is_set(&Timer::Consumer(timer))
    }

    /// The sessions of members that use the classic protocol: they came with the group.
    pub(super) fn set_classic_sessions(&mut self) {
        let classic =
            self.group.members.values().filter_map(|member| Some((member.id.clone(), member.said.classic.as_ref()?)));
        let due: Vec<(MemberId, i32)> = classic.map(|(id, classic)| (id, classic.session_timeout_ms)).collect();
        due.into_iter().for_each(|(member, session_ms)| self.set_timer(What::Session, &member, session_ms));
    }

    /// All timers of the group's members, after loading.
    pub(super) fn set_timers(&mut self) {
        let newer_ms = self.env.own.session_timeout_ms(&self.group.id, self.env.config);
        let members = self.group.members.values();
        let due: Vec<(MemberId, i32, Option<i32>)> = members
            .map(|member| {
                let own = member.said.classic.as_ref().map(|classic| classic.session_timeout_ms);
                let session_ms = own.unwrap_or(newer_ms);
                let revokes = member.state() == MemberState::UnrevokedPartitions && !member.is_classic();
                (member.id.clone(), session_ms, revokes.then_some(member.said.rebalance_timeout_ms))
            })
            .collect();
        for (member, session_ms, rebalance_ms) in due {
            self.set_timer(What::Session, &member, session_ms);
            if let Some(rebalance_ms) = rebalance_ms {
                self.set_timer(What::Rebalance, &member, rebalance_ms);
            }
        }
    }

    /// The member under its id, to be shown in a reply.
    pub(super) fn member(&self, id: &str) -> Result<&Member, Refusal> {
        self.group.member(id)
    }
}
