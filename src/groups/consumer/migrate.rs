//! A classic group of consumers becomes a consumer group when a member of the consumer protocol
//! joins it, and the last such member's leaving makes it a classic group again
//! (`group.consumer.migration.policy`). The others stay through both.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::embedded::{Named, read_assignment, read_subscription, write_assignment};
use super::group::{ConsumerGroup, metadata_hash};
use super::refusal::Refusal;
use super::timer::What;
use crate::config::GroupConfig;
use crate::groups::api::{Caller, GroupId};
use crate::groups::classic::{ClassicGroup, Member as ClassicGroupMember};
use crate::groups::coordinator::{Coordinator, Group};
use crate::groups::env::{Env, Topics};
use crate::groups::record::{
    ClassicMember, ConsumerRecord, CurrentValue, GroupValue, MemberId, MemberValue, OwnedPartitions, Partitions,
    TargetMetadataValue,
};
use crate::model::ErrorCode;
use crate::observe::client_line;

/// By topic id; topics that are gone are left out.
pub(super) fn by_id(named: &Named, topics: &dyn Topics) -> Vec<(Uuid, Vec<i32>)> {
    let known = named.iter().filter_map(|(name, partitions)| Some((topics.by_name(name)?.id, partitions.clone())));
    known.collect()
}

impl ConsumerGroup {
    /// The consumer group that a classic group becomes, and the records that make it. Each member
    /// has what it has now, at the epoch that is the generation.
    pub(super) fn of_classic(
        classic: &ClassicGroup,
        config: &GroupConfig,
        topics: &dyn Topics,
    ) -> Result<(ConsumerGroup, Vec<ConsumerRecord>), Refusal> {
        let refused = |why: &str| {
            // Operators see it too: few clients show what comes with an error.
            client_line!(info, group = &**classic.id(), why, "classic group cannot become a consumer group");
            let why = format!("The classic group {} cannot become a consumer group: {why}.", classic.id());
            Err(Refusal::new(ErrorCode::GroupIdNotFound, why))
        };
        if !config.consumer_upgrade {
            return refused("group.consumer.migration.policy does not allow it");
        }
        if !classic.has_consumers() {
            return refused("its members are not consumers");
        }
        if classic.members().len() > config.consumer_max_size {
            return refused("it has more members than group.consumer.max.size");
        }
        let mut given = BTreeSet::new();
        let mut members: Vec<(MemberId, MemberValue, Partitions)> = Vec::new();
        for (id, member) in classic.members() {
            let chosen =
                classic.protocol().map(|protocol| member.metadata(protocol)).filter(|chosen| !chosen.is_empty());
            let metadata = chosen.or_else(|| member.protocols.first().map(|(_, first)| first.clone()));
            let Some(subscription) = metadata.as_deref().and_then(read_subscription) else {
                return refused("a subscription of its members cannot be read");
            };
            let Some(assignment) = read_assignment(&member.assignment) else {
                return refused("an assignment of its members cannot be read");
            };
            if assignment.has_user_data {
                return refused("its assignor keeps data in the assignments, which would be lost");
            }
            let mut target = Partitions::new();
            for (topic, partitions) in by_id(&assignment.partitions, topics) {
                let partitions = partitions.into_iter().filter(|partition| given.insert((topic, *partition)));
                let partitions: BTreeSet<i32> = partitions.collect();
                if !partitions.is_empty() {
                    target.entry(topic).or_default().extend(partitions);
                }
            }
            let mut topics = subscription.topics;
            topics.sort_unstable();
            topics.dedup();
            let said = MemberValue {
                instance_id: member.instance_id.clone(),
                rack_id: subscription.rack_id,
                client_id: member.caller.client_id.clone(),
                client_host: member.caller.client_host.clone(),
                topics,
                regex: None,
                rebalance_timeout_ms: member.rebalance_timeout_ms,
                assignor: None,
                classic: Some(ClassicMember {
                    session_timeout_ms: member.session_timeout_ms,
                    protocols: member.protocols.clone(),
                }),
            };
            members.push((id.clone(), said, target));
        }
        Ok(ConsumerGroup::with_members(classic, members, topics))
    }

    fn with_members(
        classic: &ClassicGroup,
        members: Vec<(MemberId, MemberValue, Partitions)>,
        topics: &dyn Topics,
    ) -> (ConsumerGroup, Vec<ConsumerRecord>) {
        let id = classic.id();
        let epoch = classic.generation();
        let mut group = ConsumerGroup::new(id.clone());
        let mut records = Vec::new();
        let mut write = |group: &mut ConsumerGroup, record: ConsumerRecord| {
            group.apply(&record);
            records.push(record);
        };
        for (member, said, _) in &members {
            let (member, value) = (member.clone(), Some(said.clone()));
            write(&mut group, ConsumerRecord::Member { group: id.clone(), member, value });
        }
        let metadata_hash = metadata_hash(&group.subscribed_topics(topics));
        let value = Some(GroupValue { epoch, metadata_hash });
        write(&mut group, ConsumerRecord::Group { group: id.clone(), value });
        for (member, _, target) in &members {
            let (member, value) = (member.clone(), Some(target.clone()));
            write(&mut group, ConsumerRecord::Target { group: id.clone(), member, value });
        }
        let value = Some(TargetMetadataValue { epoch, assigned_ms: 0 });
        write(&mut group, ConsumerRecord::TargetMetadata { group: id.clone(), value });
        for (member, _, target) in members {
            let assigned: OwnedPartitions = target
                .into_iter()
                .map(|(topic, partitions)| {
                    (topic, partitions.into_iter().map(|partition| (partition, epoch)).collect())
                })
                .collect();
            let value = Some(CurrentValue { epoch, previous_epoch: epoch, assigned, ..CurrentValue::default() });
            write(&mut group, ConsumerRecord::Current { group: id.clone(), member, value });
        }
        (group, records)
    }

    /// True if the group becomes a classic one when these members are gone.
    pub(super) fn downgrades_without(&self, leaving: &[MemberId], config: &GroupConfig) -> bool {
        let mut staying = self.members.values().filter(|member| !leaving.contains(&member.id)).peekable();
        config.consumer_downgrade
            && staying.peek().is_some()
            && staying.all(|member| member.is_classic())
            && self.members.len() - leaving.len() <= config.max_size
    }

    /// The classic group that this one becomes. Each member has what it is to have.
    fn to_classic(&self, leaving: &[MemberId], topics: &dyn Topics, wall_ms: i64) -> ClassicGroup {
        let staying = || self.members.values().filter(|member| !leaving.contains(&member.id));
        let members = staying().map(|member| {
            let (said, classic) = (&member.said, member.said.classic.clone().unwrap_or_default());
            let caller = Caller { client_id: said.client_id.clone(), client_host: said.client_host.clone() };
            let (rebalance_ms, session_ms) = (said.rebalance_timeout_ms, classic.session_timeout_ms);
            let instance_id = said.instance_id.clone();
            let migrated =
                ClassicGroupMember::migrated(instance_id, caller, classic.protocols, rebalance_ms, session_ms);
            (member.id.clone(), migrated)
        });
        let mut group = ClassicGroup::migrated(self.id.clone(), self.epoch, wall_ms, members.collect());
        let protocol = group.protocol().unwrap_or_default().to_owned();
        for member in staying() {
            let metadata = group.members().get(&member.id).map(|member| member.metadata(&protocol)).unwrap_or_default();
            let target = self.target.get(&member.id).into_iter().flatten();
            let named: BTreeMap<_, _> = target
                .filter_map(|(topic, partitions)| {
                    Some((topics.by_id(*topic)?.name, partitions.iter().copied().collect::<Vec<i32>>()))
                })
                .collect();
            let named = named.iter().map(|(name, partitions)| (name.as_ref(), partitions.clone()));
            group.set_assignment(&member.id, write_assignment(&metadata, named));
        }
        group
    }
}

impl Coordinator {
    /// Puts the classic group in a consumer group's place. `leaving` are not taken along.
    pub(super) fn downgrade(&mut self, id: &GroupId, leaving: &[MemberId], rebalance: bool, env: &mut Env) {
        let Some(mut step) = self.consumer_step(id, env) else { return };
        let members: Vec<MemberId> = step.group.members.keys().cloned().collect();
        for member in &members {
            What::ALL.into_iter().for_each(|what| step.cancel(what, member));
        }
        let classic = step.group.to_classic(leaving, step.env.topics, step.env.wall_ms);
        let tombstones = step.group.tombstones();
        env.out.records.extend(tombstones);
        self.groups.remove(id);
        client_line!(info, group = &**id, "consumer group became a classic group");
        self.put_classic(Box::new(classic), rebalance, env);
    }

    /// A member of the consumer protocol joins a classic group: what that group becomes, and its
    /// records. Nothing has changed yet; see [`Self::upgrade`].
    pub(super) fn upgraded(
        &self,
        id: &GroupId,
        env: &Env,
    ) -> Result<(Box<ConsumerGroup>, Vec<ConsumerRecord>), Refusal> {
        match self.groups.get(id) {
            Some(Group::Classic(classic)) if !classic.is_empty() => {
                let (group, records) = ConsumerGroup::of_classic(classic, env.config, env.topics)?;
                Ok((Box::new(group), records))
            }
            _ => Ok((Box::new(ConsumerGroup::new(id.clone())), Vec::new())),
        }
    }

    /// Puts a consumer group in a classic one's place, if there was one. The records of the member
    /// that brought this about, from `mark` on, come after those that make the group.
    pub(super) fn upgrade(
        &mut self,
        mut group: Box<ConsumerGroup>,
        made_by: Vec<ConsumerRecord>,
        mark: usize,
        env: &mut Env,
    ) {
        let id = group.id.clone();
        let joined = env.out.records.split_off(mark.min(env.out.records.len()));
        if self.take_classic(&id, env).is_some() && !made_by.is_empty() {
            client_line!(info, group = &*id, "classic group became a consumer group");
        }
        let mut step = super::step::Step { group: &mut group, timers: &mut self.timers, env };
        step.set_classic_sessions();
        env.out.records.extend(made_by.into_iter().map(crate::groups::record::Record::Consumer));
        env.out.records.extend(joined);
        self.groups.insert(id, Group::Consumer(group));
    }
}
