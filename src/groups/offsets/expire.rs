//! Offsets that are too old, and groups that nothing is left of (`offsets.retention.minutes`).

use std::collections::HashSet;
use std::sync::Arc;

use super::Committed;
use super::delete::{MOST_RECORDS_AT_ONCE, STEP_PAUSE_MS};
use crate::groups::api::GroupId;
use crate::groups::classic::{ClassicGroup, State};
use crate::groups::coordinator::{Coordinator, Group, Timer};
use crate::groups::env::Env;

/// How many groups it may look at.
const MOST_GROUPS_AT_ONCE: usize = 1000;

/// Time between two rounds of expiry while room is short.
const HURRY_MS: u64 = 1000;

/// From when on an offset's age counts.
enum Age {
    /// It does not age now.
    Never,
    SinceCommit,
    /// The group is empty since then.
    Since(i64),
}

impl Coordinator {
    /// Goes over the groups in steps, all once every `offsets.retention.check.interval.ms`.
    pub(in crate::groups) fn expire(&mut self, env: &mut Env) {
        if self.to_expire.is_empty() {
            self.to_expire = self.groups.keys().cloned().collect();
        }
        let enough = env.out.records.len() + MOST_RECORDS_AT_ONCE;
        for _ in 0..MOST_GROUPS_AT_ONCE {
            let Some(group) = self.to_expire.pop() else { break };
            if !self.counted(&group, |coordinator| coordinator.expire_group(&group, enough, env)) {
                self.to_expire.push(group);
                break;
            }
        }
        let pause_ms = match self.to_expire.is_empty() {
            true => env.config.offsets_retention_check_interval_ms.max(1),
            false => STEP_PAUSE_MS,
        };
        if self.to_expire.is_empty() {
            self.offsets.forget_names();
        }
        self.timers.set(Timer::Expiry, env.mono_ms.saturating_add(pause_ms));
    }

    /// Groups have little room left: those that nothing is left of go soon.
    pub(in crate::groups) fn hurry_expiry(&mut self, env: &mut Env) {
        let soon_ms = env.mono_ms.saturating_add(HURRY_MS);
        if self.timers.get(&Timer::Expiry).is_some_and(|at_ms| at_ms > soon_ms) {
            self.timers.set(Timer::Expiry, soon_ms);
        }
    }

    /// `false`: there is more to do than fits.
    fn expire_group(&mut self, id: &GroupId, enough: usize, env: &mut Env) -> bool {
        for (topic, partition) in self.expired(id, env) {
            if env.out.records.len() >= enough {
                return false;
            }
            self.drop_offset(id, &topic, partition, env);
        }
        if self.offsets.has_any(id) {
            return true;
        }
        let forsaken = match self.groups.get(id) {
            Some(Group::Classic(group)) => group.is_forsaken(),
            Some(Group::Consumer(group)) => group.is_empty(),
            None => false,
        };
        if forsaken {
            self.remove_empty(id, env);
        }
        true
    }

    fn expired(&self, id: &GroupId, env: &Env) -> Vec<(Arc<str>, i32)> {
        let Some(group) = self.groups.get(id) else { return Vec::new() };
        let is_old = |committed: &Committed| match (committed.expire_ms, group.age()) {
            (_, Age::Never) => false,
            (Some(expire_ms), _) => env.wall_ms >= expire_ms,
            (None, Age::SinceCommit) => is_over(committed.commit_ms, env),
            (None, Age::Since(since_ms)) => is_over(since_ms, env),
        };
        let old = self.offsets.of_group(id).flat_map(|(topic, partitions)| {
            let old = partitions.iter().filter(|(_, committed)| is_old(committed));
            // One that a transaction is about to replace does not go meanwhile.
            let old = old.filter(|(index, _)| !self.offsets.is_pending(id, topic, *index));
            old.map(|(index, _)| (topic.clone(), *index))
        });
        let mut old: Vec<(Arc<str>, i32)> = old.collect();
        if !old.is_empty() {
            let topics = old.iter().map(|(topic, _)| topic.clone()).collect();
            let unread = group.unsubscribed(topics);
            old.retain(|(topic, _)| unread.contains(topic));
        }
        old
    }
}

fn is_over(since_ms: i64, env: &Env) -> bool {
    env.wall_ms.saturating_sub(since_ms) >= env.config.offsets_retention_ms
}

impl Group {
    fn age(&self) -> Age {
        match self {
            // Kafka's rule for groups of this kind: what is not subscribed to
            // ages from its commit on.
            Group::Consumer(_) => Age::SinceCommit,
            Group::Classic(group) => age(group),
        }
    }

    /// Those of the topics that nobody in the group reads.
    pub(super) fn unsubscribed(&self, mut topics: HashSet<Arc<str>>) -> HashSet<Arc<str>> {
        match self {
            Group::Consumer(group) => topics.retain(|topic| !group.is_subscribed_to(topic)),
            Group::Classic(group) => {
                let known = group.each_subscription(|topic| {
                    topics.remove(topic);
                });
                if !known {
                    topics.clear();
                }
            }
        }
        topics
    }
}

fn age(group: &ClassicGroup) -> Age {
    match (group.protocol_type(), group.state()) {
        // Only offsets, never a member.
        (None, _) => Age::SinceCommit,
        (Some(_), State::Empty) => group.since_ms().map_or(Age::SinceCommit, Age::Since),
        (Some(_), State::Stable) if group.has_consumers() => Age::SinceCommit,
        (Some(_), _) => Age::Never,
    }
}
