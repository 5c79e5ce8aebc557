//! Commits of admin requests on metadata that brokers share. Pure. Each is bound to the versions
//! that the request was checked against, and writes only the nodes that it changes: an ISR or an
//! epoch that has moved meanwhile is never put back.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::image::TopicImage;
use super::rules::{self, Partition, ReassignError, Reassigned, TopicView, Versioned, View};
use super::store::znodes::topic_bytes;
use super::store::{Assignment, Check, Commit, Key, Lifetime, PartitionState, Record, TopicRecord, Write};
use crate::model::BrokerId;

/// Partitions whose states are made together with their topic; those of a larger one
/// are the controller's work.
const STATES: usize = 200;

/// The view is not what the request was checked against: to be decided again
/// once the image has moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stale;

/// Why a leader is not elected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotElected {
    NotNeeded,
    PreferredNotAvailable,
    NoneEligible,
}

fn assignments(topic: &TopicImage) -> Vec<Assignment> {
    let replicas = topic.partitions.iter().map(|partition| partition.replicas.clone());
    replicas.map(|replicas| Assignment { replicas, ..Assignment::default() }).collect()
}

/// Largest znode of a topic that a request may make, bytes. ZooKeeper takes less than a mebibyte at
/// a time, and a reassignment adds to what the partitions need.
pub(super) const LARGEST_TOPIC: usize = 512 << 10;

/// A change of a topic that has too many replicas for its znode: why it is refused.
pub fn oversized(commit: &Commit) -> Option<String> {
    commit.writes.iter().find_map(|write| {
        let (Write::Create(Key::Topic(name), Record::Topic(topic), _) | Write::Set(Key::Topic(name), Record::Topic(topic), _)) =
            write
        else {
            return None;
        };
        let (bytes, partitions) = (topic_bytes(topic), topic.assignments.len());
        (bytes > LARGEST_TOPIC).then(|| {
            format!(
                "the {partitions} partitions of topic {name} with their replicas take {bytes} bytes in ZooKeeper; at most \
                 {LARGEST_TOPIC} fit. Use several topics"
            )
        })
    })
}

/// Makes a topic, with the states of its partitions where they are few.
pub fn create(view: &View, topic: &TopicImage) -> Result<Commit, Stale> {
    let name = &topic.name;
    let known = view.topic(name);
    if known.is_some_and(|known| known.record.is_some() || known.deletion.is_some()) {
        return Err(Stale);
    }
    let mut commit = Commit { checks: vec![Check::Absent(Key::Deletion(name.clone()))], writes: Vec::new() };
    let record = TopicRecord { id: topic.id, assignments: assignments(topic) };
    commit.writes.push(Write::Create(Key::Topic(name.clone()), Record::Topic(record.clone()), Lifetime::Persistent));
    commit.writes.extend(configuration(known, name, &topic.overrides));
    new_states(view, name, (0..).zip(&record.assignments), &mut commit);
    Ok(commit)
}

/// Adds partitions: those of `grown` that the topic does not have yet.
pub fn grow(view: &View, before: &TopicImage, grown: &TopicImage) -> Result<Commit, Stale> {
    let (name, record) = (&before.name, current(view, before)?);
    if record.value.assignments.len() != before.partitions.len() {
        return Err(Stale);
    }
    let mut after = record.value.clone();
    after.assignments.extend(assignments(grown).into_iter().skip(before.partitions.len()));
    let mut commit = Commit { checks: vec![Check::Absent(Key::Deletion(name.clone()))], writes: Vec::new() };
    let write = Write::Set(Key::Topic(name.clone()), Record::Topic(after.clone()), record.version);
    commit.writes.push(write);
    new_states(view, name, (0..).zip(&after.assignments).skip(before.partitions.len()), &mut commit);
    Ok(commit)
}

/// Marks a topic as one to be deleted; the controller does it. `None`: it is marked.
pub fn delete(view: &View, topic: &TopicImage) -> Result<Option<Commit>, Stale> {
    let record = current(view, topic)?;
    if view.topic(&topic.name).is_some_and(|topic| topic.deletion.is_some()) {
        return Ok(None);
    }
    let checks = vec![Check::Version(Key::Topic(topic.name.clone()), record.version)];
    let mark = Write::Create(Key::Deletion(topic.name.clone()), Record::Deletion, Lifetime::Persistent);
    Ok(Some(Commit { checks, writes: vec![mark] }))
}

/// Replaces a topic's own options. `None`: they are so.
pub fn configure(
    view: &View,
    before: &TopicImage,
    overrides: &BTreeMap<String, String>,
) -> Result<Option<Commit>, Stale> {
    current(view, before)?;
    let known = view.topic(&before.name);
    let stored = known.and_then(|topic| topic.config.as_ref()).map(|config| &config.value);
    if stored.is_some_and(|stored| *stored != before.overrides) || stored.is_none() && !before.overrides.is_empty() {
        return Err(Stale);
    }
    if *overrides == before.overrides {
        return Ok(None);
    }
    let checks = vec![Check::Exists(Key::Topic(before.name.clone()))];
    Ok(Some(Commit { checks, writes: configuration(known, &before.name, overrides).into_iter().collect() }))
}

/// Begins a reassignment to these replicas; `None` cancels the one under way.
/// `Ok(None)`: they are there.
pub fn reassign(
    view: &View,
    topic: &TopicImage,
    index: i32,
    target: Option<&[BrokerId]>,
    may_change_factor: bool,
) -> Result<Result<Option<Commit>, ReassignError>, Stale> {
    let (record, (known, state)) = (current(view, topic)?, partition(view, topic, index)?);
    let assignment = known.assignment(index).ok_or(Stale)?;
    let terms = view.terms(known, assignment);
    let given = Partition {
        assignment,
        state: &state.value,
        min_insync_replicas: view.min_insync_replicas(known),
        controller_epoch: terms.controller_epoch,
    };
    let may_lead = |broker| view.is_active(broker);
    let reassigned = match target {
        Some(target) => {
            let kept = if may_change_factor { Ok(()) } else { rules::keeps_factor(assignment, target) };
            kept.and_then(|()| rules::begin_reassignment(given, target, &may_lead))
        }
        None => rules::cancel_reassignment(given, &may_lead).map(Some),
    };
    let Reassigned { assignment, state: after } = match reassigned {
        Ok(Some(reassigned)) => reassigned,
        Ok(None) => return Ok(Ok(None)),
        Err(why) => return Ok(Err(why)),
    };
    let mut changed = record.value.clone();
    if let Some(place) = usize::try_from(index).ok().and_then(|at| changed.assignments.get_mut(at)) {
        *place = assignment;
    }
    let (name, key) = (topic.name.clone(), Key::Partition(topic.name.clone(), index));
    let mut commit = Commit::default();
    commit.writes.push(Write::Set(Key::Topic(name), Record::Topic(changed), record.version));
    match after {
        Some(after) => {
            commit.checks.extend(still_active(view, after.leader.filter(|leader| state.value.leader != Some(*leader))));
            commit.writes.push(Write::Set(key, Record::Partition(after), state.version));
        }
        None => commit.checks.push(Check::Version(key, state.version)),
    }
    Ok(Ok(Some(commit)))
}

/// Elects the preferred leader, or, where there is none, one that may lack committed records.
pub fn elect(view: &View, topic: &TopicImage, index: i32, unclean: bool) -> Result<Result<Commit, NotElected>, Stale> {
    current(view, topic)?;
    let (known, state) = partition(view, topic, index)?;
    let assignment = known.assignment(index).ok_or(Stale)?;
    let terms = view.terms(known, assignment);
    let after = if unclean {
        if state.value.leader.is_some() {
            return Ok(Err(NotElected::NotNeeded));
        }
        rules::elect_asked(&state.value, &terms, |broker| view.is_active(broker)).filter(|after| after.leader.is_some())
    } else {
        let preferred = assignment.replicas.first().copied();
        if preferred.is_some() && state.value.leader == preferred {
            return Ok(Err(NotElected::NotNeeded));
        }
        let preferred = preferred.filter(|broker| view.has_room(*broker) && state.value.isr.contains(broker));
        preferred.and_then(|broker| rules::prefer(&state.value, &terms, broker))
    };
    let Some(after) = after else {
        return Ok(Err(if unclean { NotElected::NoneEligible } else { NotElected::PreferredNotAvailable }));
    };
    let checks = still_active(view, after.leader).into_iter().collect();
    let key = Key::Partition(topic.name.clone(), index);
    Ok(Ok(Commit { checks, writes: vec![Write::Set(key, Record::Partition(after), state.version)] }))
}

/// The topic's node, which is still that of this topic.
fn current<'a>(view: &'a View, topic: &TopicImage) -> Result<&'a Versioned<TopicRecord>, Stale> {
    let record = view.topic(&topic.name).and_then(|known| known.record.as_ref());
    record.filter(|record| record.value.id == topic.id).ok_or(Stale)
}

fn partition<'a>(
    view: &'a View,
    topic: &TopicImage,
    index: i32,
) -> Result<(&'a TopicView, &'a Versioned<PartitionState>), Stale> {
    let known = view.topic(&topic.name).ok_or(Stale)?;
    Ok((known, known.states.get(&index).ok_or(Stale)?))
}

fn configuration(known: Option<&TopicView>, name: &Arc<str>, overrides: &BTreeMap<String, String>) -> Option<Write> {
    let (key, record) = (Key::TopicConfig(name.clone()), Record::Config(overrides.clone()));
    match (known.and_then(|topic| topic.config.as_ref()), overrides.is_empty()) {
        (None, true) => None,
        (None, false) => Some(Write::Create(key, record, Lifetime::Persistent)),
        (Some(config), true) => Some(Write::Delete(key, Some(config.version))),
        (Some(config), false) => Some(Write::Set(key, record, config.version)),
    }
}

/// Adds the first states of partitions that are made.
fn new_states<'a>(
    view: &View,
    name: &Arc<str>,
    partitions: impl Iterator<Item = (i32, &'a Assignment)>,
    commit: &mut Commit,
) {
    let partitions: Vec<(i32, &Assignment)> = partitions.collect();
    if partitions.len() > STATES {
        return;
    }
    for (index, assignment) in partitions {
        let epoch = view.terms(&TopicView::default(), assignment).controller_epoch;
        let Some(state) = rules::initial(&assignment.replicas, |broker| view.is_active(broker), epoch) else {
            continue;
        };
        let check = still_active(view, state.leader).filter(|check| !commit.checks.contains(check));
        commit.checks.extend(check);
        let key = Key::Partition(name.clone(), index);
        commit.writes.push(Write::Create(key, Record::Partition(state), Lifetime::Persistent));
    }
}

/// The broker is still in the incarnation that the view has.
fn still_active(view: &View, broker: Option<BrokerId>) -> Option<Check> {
    let broker = broker?;
    Some(Check::Version(Key::Incarnation(broker), view.incarnation(broker)?.version))
}

/// Takes `count` producer ids that nobody got: the first of them, and the commit.
pub fn take_producer_ids(next: Option<(i64, i32)>, count: i64) -> Option<(i64, Commit)> {
    let (first, version) = next.map_or((0, None), |(first, version)| (first, Some(version)));
    let record = Record::ProducerIds(first.checked_add(count)?);
    let write = match version {
        Some(version) => Write::Set(Key::ProducerIds, record, version),
        None => Write::Create(Key::ProducerIds, record, Lifetime::Persistent),
    };
    Some((first, Commit { checks: Vec::new(), writes: vec![write] }))
}

#[cfg(test)]
#[path = "admin_tests.rs"]
mod tests;
