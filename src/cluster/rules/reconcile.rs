//! The controller: what the cluster is, against what it is to be. Pure, and by levels: nothing
//! depends on how it came to be so, and whatever is lost on the way is decided again from the next
//! view.
//!
//! Each step checks the controller's epoch and the versions that it is based on; one that makes a
//! broker leader also checks that the broker is still in the incarnation that was seen active.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::plan::{Plan, RiskyElection, Step};
use super::reassign::{Partition, Reassigned, complete_reassignment, is_under_way};
use super::registration::{activation, leads_of_old};
use super::transition::{Election, Transition, initial};
use super::view::{Dirty, PartitionKey, Standing, TopicView, Versioned, View};
use crate::cluster::store::{Assignment, Check, Key, Lifetime, PartitionState, Record, Write};
use crate::model::BrokerId;
use crate::model::planted::{Planted, planted};

/// Partitions of a topic that are made or deleted in one commit.
const TOPIC_CHUNK: usize = 200;

/// States that are changed in one commit.
const STATE_CHUNK: usize = 64;

/// Settings of the controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Time that brokers which were never seen have to register, before they count as dead.
    pub grace_ms: i64,
    /// `leader.imbalance.per.broker.percentage`
    pub imbalance_percentage: i64,
    /// `leader.imbalance.check.interval.seconds`; `None`: `auto.leader.rebalance.enable` is false.
    pub imbalance_interval_ms: Option<i64>,
}

impl Default for Options {
    fn default() -> Options {
        Options { grace_ms: 3_000, imbalance_percentage: 10, imbalance_interval_ms: Some(300_000) }
    }
}

/// Time as the controller sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Brokers that were never seen count as dead.
    pub grace_is_over: bool,
    /// Preferred leaders are due.
    pub rebalance: bool,
}

/// The controller's timers.
#[derive(Clone, Copy, Debug)]
pub struct Timers {
    options: Options,
    view_since_ms: i64,
    rebalanced_ms: i64,
    was_over: bool,
}

impl Timers {
    /// `view_since_ms`: when the view was built.
    pub fn new(options: Options, view_since_ms: i64) -> Timers {
        Timers { options, view_since_ms, rebalanced_ms: view_since_ms, was_over: false }
    }

    /// The moment for the next round, and if the round has to look at everything.
    pub fn tick(&mut self, now_ms: i64) -> (Moment, bool) {
        let grace_is_over = now_ms >= self.view_since_ms.saturating_add(self.options.grace_ms);
        let rebalance = self.rebalance_at_ms().is_some_and(|at| now_ms >= at);
        if rebalance {
            self.rebalanced_ms = now_ms;
        }
        let ends = grace_is_over && !std::mem::replace(&mut self.was_over, grace_is_over);
        (Moment { grace_is_over, rebalance }, rebalance || ends)
    }

    /// The time at which a round is due even if nothing changes.
    pub fn due_ms(&self) -> Option<i64> {
        let grace = (!self.was_over).then(|| self.view_since_ms.saturating_add(self.options.grace_ms));
        grace.into_iter().chain(self.rebalance_at_ms()).min()
    }

    fn rebalance_at_ms(&self) -> Option<i64> {
        Some(self.rebalanced_ms.saturating_add(self.options.imbalance_interval_ms?))
    }
}

/// Steps towards what the cluster is to be. Empty where `me` is not the controller of this view.
///
/// The order: topics to be made or deleted, partitions by name (who leaves, who leads, finished
/// reassignments), brokers to be let in, preferred leaders. A partition has one step a round.
pub fn reconcile(view: &View, me: BrokerId, moment: Moment, options: &Options) -> Plan {
    let Some(mut round) = Round::of(view, me, moment) else { return Plan::default() };
    view.topics().keys().for_each(|name| round.deletion(name));
    view.partitions().for_each(|(name, topic, index, assignment)| round.partition(name, topic, index, assignment));
    view.damaged_partitions().for_each(|(name, topic, index)| round.damaged(name, topic, index));
    round.finish(options)
}

/// The steps of [`reconcile`] for what has changed, at the cost of that. They are all there are, if
/// nothing else was left to do before the changes and the round need not look at everything
/// ([`Timers::tick`]). The caller keeps `dirty` until the steps are carried out, and begins with
/// a full round in a new office.
pub fn reconcile_changed(view: &View, me: BrokerId, moment: Moment, options: &Options, dirty: &Dirty) -> Plan {
    let Some(mut round) = Round::of(view, me, moment) else { return Plan::default() };
    dirty.topics.iter().for_each(|name| round.deletion(name));
    for (name, index) in &dirty.partitions {
        let Some(topic) = view.topic(name) else { continue };
        if topic.is_damaged() {
            round.damaged(name, topic, *index);
        } else if let Some(assignment) = topic.assignment(*index).filter(|_| topic.is_kept()) {
            round.partition(name, topic, *index, assignment);
        }
    }
    round.finish(options)
}

/// The replicas that a state speaks of, each once.
fn named_by(state: &PartitionState) -> Vec<BrokerId> {
    let mut named = Vec::new();
    for broker in state.isr.iter().chain(&state.elr).chain(&state.emptied).copied().chain(state.last_leader) {
        if !named.contains(&broker) {
            named.push(broker);
        }
    }
    named
}

struct Round<'a> {
    view: &'a View,
    moment: Moment,
    office: Check,
    all_leave: bool,
    plan: Plan,
    /// Finished reassignments by topic; a topic's assignments are one node.
    reassigned: BTreeMap<Arc<str>, Vec<(i32, Reassigned)>>,
    /// Partitions with a step in this round.
    touched: BTreeSet<PartitionKey>,
}

impl<'a> Round<'a> {
    fn of(view: &'a View, me: BrokerId, moment: Moment) -> Option<Round<'a>> {
        let epoch =
            view.controller_epoch().filter(|_| view.controller().is_some_and(|controller| controller.value == me))?;
        Some(Round {
            view,
            moment,
            office: Check::Version(Key::ControllerEpoch, epoch.version),
            all_leave: view.all_leave(),
            plan: Plan::default(),
            reassigned: BTreeMap::new(),
            touched: BTreeSet::new(),
        })
    }

    fn finish(mut self, options: &Options) -> Plan {
        self.reassignments();
        for broker in self.view.registrations().keys() {
            if let Some(mut step) = activation(self.view, *broker) {
                step.checks.push(self.office.clone());
                self.plan.steps.push(Step::alone(step));
            }
        }
        if self.moment.rebalance {
            self.preferred_leaders(options);
        }
        self.plan
    }

    fn step(&mut self, checks: Vec<Check>, write: Write, most: usize) {
        let checks = [self.office.clone()].into_iter().chain(checks).collect();
        self.plan.steps.push(Step::one(checks, write, most));
    }

    /// A deletion that was begun is finished: the topic's children in chunks, then what is left
    /// together with the topic.
    fn deletion(&mut self, name: &Arc<str>) {
        let Some((topic, mark)) = self.view.topic(name).and_then(|topic| Some((topic, topic.deletion?))) else {
            return;
        };
        let checks = vec![self.office.clone(), Check::Version(Key::Deletion(name.clone()), mark)];
        let states = topic.states.keys().map(|index| Key::Partition(name.clone(), *index));
        let homes = topic.homes.iter().map(|index| Key::Home(name.clone(), *index));
        let damaged = topic.damaged.keys().filter(|key| key.parent().is_some()).cloned();
        let children: Vec<Write> = states.chain(homes).chain(damaged).map(|key| Write::Delete(key, None)).collect();
        if children.len() > TOPIC_CHUNK {
            for chunk in children.chunks(TOPIC_CHUNK) {
                self.plan.steps.push(Step::whole(checks.clone(), chunk.to_vec()));
            }
            return;
        }
        let there =
            |known: bool, key: Key| (known || topic.damaged.contains_key(&key)).then_some(Write::Delete(key, None));
        let record = there(topic.record.is_some(), Key::Topic(name.clone()));
        let config = there(topic.config.is_some(), Key::TopicConfig(name.clone()));
        let mark = Write::Delete(Key::Deletion(name.clone()), Some(mark));
        let writes = children.into_iter().chain(record).chain(config).chain([mark]).collect();
        self.plan.steps.push(Step::whole(checks, writes));
    }

    fn partition(&mut self, name: &Arc<str>, topic: &TopicView, index: i32, assignment: &Assignment) {
        if self.all_leave {
            return;
        }
        let key = (name.clone(), index);
        let Some(state) = topic.states.get(&index) else { return self.new_partition(key, topic, assignment) };
        if self.change(&key, topic, assignment, state) {
            return;
        }
        let view = self.view;
        let partition = Partition {
            assignment,
            state: &state.value,
            min_insync_replicas: view.min_insync_replicas(topic),
            controller_epoch: view.terms(topic, assignment).controller_epoch,
        };
        if let Some(done) = complete_reassignment(partition, &|broker| view.is_active(broker)) {
            self.touched.insert(key);
            self.reassigned.entry(name.clone()).or_default().push((index, done));
        }
    }

    /// A topic with damaged nodes is served by nobody until they are put right. Its brokers come
    /// and go meanwhile: the states that can be read follow them, among the replicas that are
    /// known, so that the one that is to lead then may.
    fn damaged(&mut self, name: &Arc<str>, topic: &TopicView, index: i32) {
        let Some(state) = topic.states.get(&index).filter(|_| !self.all_leave) else { return };
        let known = topic
            .assignment(index)
            .cloned()
            .unwrap_or_else(|| Assignment { replicas: named_by(&state.value), ..Assignment::default() });
        self.change(&(name.clone(), index), topic, &known, state);
    }

    /// Sets the state that a partition is to have, if it is another one.
    fn change(
        &mut self,
        key: &PartitionKey,
        topic: &TopicView,
        assignment: &Assignment,
        state: &Versioned<PartitionState>,
    ) -> bool {
        let (Some(after), election) = self.settle(topic, assignment, &state.value) else { return false };
        if let (Some(election), Some(leader)) = (election.filter(|election| !election.is_clean()), after.leader) {
            self.plan.risky.push(RiskyElection { partition: key.clone(), leader, election });
        }
        self.set(key.clone(), state.version, &state.value, after);
        true
    }

    fn new_partition(&mut self, key: PartitionKey, topic: &TopicView, assignment: &Assignment) {
        let Some(record) = &topic.record else { return };
        let terms = self.view.terms(topic, assignment);
        let is_active = |broker| self.view.is_active(broker);
        let Some(state) = initial(terms.replicas, is_active, terms.controller_epoch) else { return };
        let mut checks = vec![
            Check::Version(Key::Topic(key.0.clone()), record.version),
            Check::Absent(Key::Deletion(key.0.clone())),
        ];
        checks.extend(self.still_so(state.leader));
        self.touched.insert(key.clone());
        let write = Write::Create(Key::Partition(key.0, key.1), Record::Partition(state), Lifetime::Persistent);
        self.step(checks, write, TOPIC_CHUNK);
    }

    /// The state that one partition is to have: who has to go goes, and somebody who may lead
    /// leads.
    fn settle(
        &self,
        topic: &TopicView,
        assignment: &Assignment,
        state: &PartitionState,
    ) -> (Option<PartitionState>, Option<Election>) {
        let terms = self.view.terms(topic, assignment);
        let mut change = Transition::of(state, &terms);
        for broker in state.isr.iter().chain(&state.elr) {
            match self.standing(*broker) {
                Standing::Joining { trusted: false } if !planted(Planted::UntrustedStaysInIsr) => change.lose(*broker),
                Standing::Gone => change.leave(*broker),
                _ => {}
            }
        }
        let election = self.lead(&mut change, terms.replicas, topic);
        for broker in &state.isr {
            if self.standing(*broker) == Standing::Draining && change.leader() != Some(*broker) {
                change.leave(*broker);
            }
        }
        (change.finish(), election)
    }

    /// Elects where nobody leads, or somebody who may not.
    fn lead(&self, change: &mut Transition, replicas: &[BrokerId], topic: &TopicView) -> Option<Election> {
        let may_lead = |broker| self.view.is_active(broker);
        // A holder that may soon be there is worth more than an unclean election.
        let last = change.last_leader().filter(|last| !change.is_emptied(*last));
        let mut holders = change.isr().iter().chain(change.elr()).copied().chain(last);
        let comes = |broker| matches!(self.standing(broker), Standing::NeverSeen | Standing::Joining { .. });
        let unclean = self.view.unclean_election(topic) && !holders.any(comes);
        let Some(leader) = change.leader() else { return self.elect(change, unclean) };
        match self.standing(leader) {
            Standing::Active | Standing::NeverSeen => None,
            Standing::Draining => {
                // While somebody may catch up it leads on; its stop waits so long at most as it
                // says itself.
                let can_catch_up = |broker: &BrokerId| {
                    !matches!(self.standing(*broker), Standing::Draining | Standing::Gone) && *broker != leader
                };
                let heir = change.isr().iter().any(|broker| may_lead(*broker));
                if heir || !replicas.iter().any(can_catch_up) { self.elect(change, false) } else { None }
            }
            Standing::Joining { .. } if planted(Planted::ActiveBeforeEpoch) => None,
            // It was restarted, and has all that it had. It leads on, in an epoch that
            // no earlier process led in.
            Standing::Joining { trusted: true } => {
                let broker_epoch = self.view.registrations().get(&leader)?.broker_epoch;
                if leads_of_old(change.before(), leader, broker_epoch) {
                    change.renew(broker_epoch);
                }
                None
            }
            Standing::Joining { .. } | Standing::Gone => self.elect(change, unclean),
        }
    }

    /// One that is short of room leads where no other may.
    fn elect(&self, change: &mut Transition, unclean: bool) -> Option<Election> {
        let elected = change.elect(&|broker| self.view.has_room(broker), false);
        elected.or_else(|| change.elect(&|broker| self.view.is_active(broker), unclean))
    }

    fn standing(&self, broker: BrokerId) -> Standing {
        match self.view.standing(broker) {
            Standing::NeverSeen if self.moment.grace_is_over => Standing::Gone,
            standing => standing,
        }
    }

    fn set(&mut self, key: PartitionKey, version: i32, before: &PartitionState, after: PartitionState) {
        let leader = after.leader.filter(|_| before.leader_epoch != after.leader_epoch);
        let checks = self.still_so(leader).into_iter().collect();
        self.touched.insert(key.clone());
        let write = Write::Set(Key::Partition(key.0, key.1), Record::Partition(after), version);
        self.step(checks, write, STATE_CHUNK);
    }

    /// The broker is still in the incarnation that the view has.
    fn still_so(&self, broker: Option<BrokerId>) -> Option<Check> {
        let broker = broker?;
        let incarnation = self.view.incarnation(broker)?;
        Some(Check::Version(Key::Incarnation(broker), incarnation.version))
    }

    fn reassignments(&mut self) {
        for (name, mut done) in std::mem::take(&mut self.reassigned) {
            let Some((topic, record)) = self.view.topic(&name).and_then(|t| Some((t, t.record.as_ref()?))) else {
                continue;
            };
            // The next ones follow when the topic's new version is in the view.
            done.truncate(STATE_CHUNK);
            let (mut checks, mut states) = (vec![self.office.clone()], Vec::new());
            let mut after = record.value.clone();
            for (index, Reassigned { assignment, state }) in done {
                let (Some(before), Ok(at)) = (topic.states.get(&index), usize::try_from(index)) else { continue };
                let Some(place) = after.assignments.get_mut(at) else { continue };
                *place = assignment;
                let key = Key::Partition(name.clone(), index);
                match state {
                    Some(state) => {
                        let leader = state.leader.filter(|leader| before.value.leader != Some(*leader));
                        let check = self.still_so(leader).filter(|check| !checks.contains(check));
                        checks.extend(check);
                        states.push(Write::Set(key, Record::Partition(state), before.version));
                    }
                    None => checks.push(Check::Version(key, before.version)),
                }
            }
            let topic = Write::Set(Key::Topic(name.clone()), Record::Topic(after), record.version);
            self.plan.steps.push(Step::whole(checks, [topic].into_iter().chain(states).collect()));
        }
    }

    /// Moves leaderships to preferred replicas, for brokers that lead too few of the partitions
    /// that prefer them.
    fn preferred_leaders(&mut self, options: &Options) {
        // Of each broker: partitions that prefer it, and those of them that another leads.
        let mut by_broker: BTreeMap<BrokerId, (i64, Vec<PartitionKey>)> = BTreeMap::new();
        for (name, topic, index, assignment) in self.view.partitions() {
            let (Some(preferred), Some(state)) = (assignment.replicas.first(), topic.states.get(&index)) else {
                continue;
            };
            let (all, others) = by_broker.entry(*preferred).or_default();
            *all += 1;
            if state.value.leader != Some(*preferred) {
                others.push((name.clone(), index));
            }
        }
        for (broker, (all, others)) in by_broker {
            let over = others.len() as i64 * 100 > options.imbalance_percentage.saturating_mul(all);
            if over && self.view.has_room(broker) {
                others.into_iter().for_each(|key| self.prefer(key, broker));
            }
        }
    }

    fn prefer(&mut self, key: PartitionKey, broker: BrokerId) {
        let Some(topic) = self.view.topic(&key.0).filter(|_| !self.touched.contains(&key)) else { return };
        let (Some(assignment), Some(state)) = (topic.assignment(key.1), topic.states.get(&key.1)) else { return };
        // Without a leader there is nobody to have kept up with.
        if is_under_way(assignment) || state.value.leader.is_none() {
            return;
        }
        let after = super::transition::prefer(&state.value, &self.view.terms(topic, assignment), broker);
        if let Some(after) = after {
            self.set(key, state.version, &state.value, after);
        }
    }
}

#[cfg(test)]
#[path = "reconcile_tests.rs"]
mod tests;
