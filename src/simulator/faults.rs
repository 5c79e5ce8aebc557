//! Faults, and how they are put right.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::checker::Mark;
use super::disk::{Crash, Disk};
use super::net::{Address, Payload};
use super::place::{FIRST, OFFSETS, TOPICS, TRANSACTIONS, number_of, place_of, topic_id, topic_of};
use super::setup::{FaultKind, LoseAnswers, Target};
use super::world::World;
use crate::cluster::node::Purpose;
use crate::cluster::rules;
use crate::cluster::store::{
    Assignment, Check, Commit, Incarnation, Key, Lifetime, Phase, Record, Store, TopicRecord, Write,
};
use crate::model::{BrokerId, LeaderEpoch};
use crate::partition::FollowerFetch;

const MIN_INSYNC: &str = "min.insync.replicas";
/// A clean stop ends after this, whoever still leads, ms.
const STOP_MS: i64 = 4_000;

impl World {
    /// Makes the topics, before any broker starts.
    pub fn write_topics(&mut self) {
        let brokers = self.setup.brokers;
        let assignment = |partition: usize| Assignment {
            replicas: (0..self.setup.replication).map(|at| BrokerId(((partition + at) % brokers) as i32)).collect(),
            ..Assignment::default()
        };
        let config = BTreeMap::from([
            (MIN_INSYNC.to_owned(), self.setup.min_insync.to_string()),
            ("unclean.leader.election.enable".to_owned(), self.setup.unclean.to_string()),
        ]);
        let create = |key, record| Write::Create(key, record, Lifetime::Persistent);
        let mut writes = vec![create(Key::ControllerEpoch, Record::ControllerEpoch(0))];
        let of_topics = [OFFSETS..OFFSETS + 1, TRANSACTIONS..TRANSACTIONS + 1, FIRST..self.setup.partitions];
        for (at, partitions) in of_topics.into_iter().enumerate() {
            let name = TOPICS[at];
            let record = TopicRecord { id: topic_id(at), assignments: partitions.map(assignment).collect() };
            writes.push(create(Key::Topic(Arc::from(name)), Record::Topic(record)));
            writes.push(create(Key::TopicConfig(Arc::from(name)), Record::Config(config.clone())));
        }
        self.administer(Commit { checks: Vec::new(), writes });
    }

    /// An administrator's commit; carried out at once.
    fn administer(&mut self, commit: Commit) {
        self.observer.commit(commit);
        let id = self.observer.id();
        self.model.serve(id, self.model.revision());
        self.model.answer(id);
    }

    /// The broker that a fault hits now.
    fn hit(&self, target: Target) -> usize {
        let partition = match target {
            Target::Broker(broker) => return broker,
            Target::LeaderOf(partition) | Target::FollowerOf(partition) | Target::OutsideOf(partition) => partition,
        };
        let (topic, number) = place_of(partition);
        let key = Key::Partition(topic.clone(), number);
        let Some(Record::Partition(state)) = self.model.node(&key).map(|node| node.record) else { return 0 };
        let follows = |broker: &&BrokerId| Some(**broker) != state.leader;
        let follower = state.isr.iter().find(follows).or(state.isr.first()).copied();
        let outside = match self.model.node(&Key::Topic(topic)).map(|node| node.record) {
            Some(Record::Topic(record)) => record
                .assignments
                .get(number as usize)
                .and_then(|assignment| assignment.replicas.iter().copied().find(|broker| !state.isr.contains(broker))),
            _ => None,
        };
        let hit = match target {
            Target::LeaderOf(_) => state.leader.or(follower),
            Target::OutsideOf(_) => outside.or(follower),
            _ => follower,
        };
        hit.map_or(0, |broker| broker.0 as usize)
    }

    pub fn fault(&mut self, index: usize) {
        let (kind, now) = (self.setup.faults[index].kind.clone(), self.io.now);
        self.io.note(|| format!("fault: {kind:?}"));
        match kind {
            FaultKind::Crash { target, crash, down_ms } => self.crash(self.hit(target), crash, false, down_ms),
            FaultKind::CrashAll { crash, down_ms } => {
                for at in 0..self.brokers.len() {
                    let down_ms = self.io.rng.between(1, down_ms);
                    self.crash(at, crash, false, down_ms);
                }
            }
            FaultKind::StopAll { down_ms } => {
                for at in 0..self.brokers.len() {
                    let down_ms = self.io.rng.between(1, down_ms);
                    self.stop(at, down_ms);
                }
            }
            FaultKind::Stop { target, down_ms } => self.stop(self.hit(target), down_ms),
            FaultKind::Pause { target, ms } => {
                let at = self.hit(target);
                self.brokers[at].paused_until = now + ms;
            }
            FaultKind::Cut { from, to, ms } => {
                self.cuts.insert((self.hit(from), self.hit(to)), now + ms);
            }
            FaultKind::Isolate { target, store, ms } => self.isolate(self.hit(target), store, ms),
            FaultKind::LateEvents { target, ms } => {
                let at = self.hit(target);
                self.late_until[at] = now + ms;
            }
            FaultKind::FailDisk { target, partition } => {
                let at = self.hit(target);
                let broker = &mut self.brokers[at];
                if broker.running {
                    broker.replicas[partition].disk.failed = true;
                    broker.replicas[partition].moved(&mut self.io);
                }
            }
            FaultKind::Trim { partition, keep } => {
                for broker in self.brokers.iter_mut().filter(|broker| broker.running) {
                    broker.replicas[partition].trim(keep, &mut self.io);
                }
            }
            FaultKind::Configure { broker, acknowledge, down_ms } => {
                self.brokers[broker].configured = acknowledge;
                self.stop(broker, down_ms);
            }
            FaultKind::SlowNetwork { ms } => self.slow_until = now + ms,
            FaultKind::Deaf { target, ms } => {
                let at = self.hit(target);
                self.contacts.deaf_until.insert(at, now + ms);
            }
            FaultKind::Slander { partition } => self.slander(partition),
            FaultKind::Elect { partition } => self.elect(partition),
            FaultKind::Reassign { partition, target } => self.reassign(partition, &target),
            FaultKind::Minimum { partition, value } => self.set_minimum(partition, value),
            FaultKind::StoreCut { .. }
            | FaultKind::StoreAway { .. }
            | FaultKind::Reconnect { .. }
            | FaultKind::LoseAnswers { .. } => self.store_fault(kind),
        }
    }

    /// A follower's fetch names the epoch after the leader's.
    fn slander(&mut self, partition: usize) {
        let (at, by) = (self.hit(Target::LeaderOf(partition)), self.hit(Target::FollowerOf(partition)));
        let Some((_, epoch)) = self.brokers[at].leader_of(partition).filter(|_| by != at) else { return };
        self.io.checker.mark(Mark::Slandered);
        let fetch = FollowerFetch {
            broker: BrokerId(by as i32),
            broker_epoch: -1,
            leader_epoch: LeaderEpoch(epoch.0.saturating_add(1)),
            offset: 0,
            last_epoch: None,
        };
        let number = self.io.number();
        self.io.send(Address::Broker(by), Address::Broker(at), partition, number, Payload::Fetch(fetch));
    }

    /// Begins a clean stop.
    fn stop(&mut self, at: usize, down_ms: i64) {
        if self.brokers[at].running {
            self.brokers[at].stopping = Some((self.io.now + STOP_MS, down_ms));
        }
    }

    fn isolate(&mut self, at: usize, store: bool, ms: i64) {
        let until = self.io.now + ms;
        for other in 0..self.brokers.len() {
            self.cuts.insert((at, other), until);
            self.cuts.insert((other, at), until);
        }
        if store {
            self.store_cut_until[at] = until;
            self.unlink(at);
        }
    }

    /// A fault on the way to the metadata store.
    fn store_fault(&mut self, kind: FaultKind) {
        let now = self.io.now;
        match kind {
            FaultKind::StoreCut { target, ms } => {
                let at = self.hit(target);
                self.store_cut_until[at] = now + ms;
                self.unlink(at);
            }
            FaultKind::StoreAway { ms } => {
                for at in 0..self.brokers.len() {
                    self.store_cut_until[at] = now + ms;
                    self.unlink(at);
                }
                self.store_away_until = now + ms;
            }
            FaultKind::Reconnect { target } => self.unlink(self.hit(target)),
            FaultKind::LoseAnswers { target, lose } => {
                let at = self.hit(target);
                self.lose_answers[at] = Some(lose);
            }
            _ => {}
        }
    }

    /// True if the answer to the broker's commit is to get lost.
    pub fn loses_answer(&self, at: usize) -> bool {
        let is_isr = |purpose: &Purpose| matches!(purpose, Purpose::Isr { .. });
        let mut purposes = self.brokers[at].node.purposes();
        self.lose_answers[at].is_some_and(|lose| purposes.any(|purpose| !lose.of_isr || is_isr(purpose)))
    }

    /// The connection of a broker breaks under a commit.
    pub fn lose_answer(&mut self, at: usize) {
        let Some(lose) = self.lose_answers[at] else { return };
        let left = LoseAnswers { commits: lose.commits.saturating_sub(1), ..lose };
        self.lose_answers[at] = Some(left).filter(|left| left.commits > 0);
        let (neighbour, until) = (self.hit(lose.neighbour), self.io.now + lose.ms);
        self.io.note(|| format!("fault: broker {at} loses an answer, {lose:?}"));
        self.store_cut_until[at] = until;
        self.cuts.insert((at, neighbour), until);
        self.cuts.insert((neighbour, at), until);
        self.unlink(at);
        if let Some((crash, down_ms)) = lose.crash.filter(|_| neighbour != at) {
            self.crash(neighbour, crash, false, down_ms);
        }
    }

    pub fn crash(&mut self, at: usize, crash: Crash, clean: bool, down_ms: i64) {
        if !self.brokers[at].running {
            return;
        }
        let client = self.brokers[at].client();
        if clean {
            // The session is closed in good order.
            self.model.expire(client);
            self.sessions.remove(&client);
        } else {
            self.model.disconnect(client);
        }
        let damaged = self.brokers[at].end(crash, clean, &mut self.io);
        if crash == Crash::Wipe {
            self.io.checker.wiped(at);
        }
        for partition in damaged {
            let copies: Vec<&Disk> = self.brokers.iter().map(|broker| &broker.replicas[partition].disk).collect();
            self.io.checker.damaged(partition, at, copies.into_iter());
            self.io.touch(partition);
        }
        self.restart_at(self.io.now + down_ms, at);
    }

    pub fn restart(&mut self, at: usize, life: u32) {
        let broker = &mut self.brokers[at];
        if broker.running || broker.life != life {
            return;
        }
        broker.start(&self.model, self.io.now);
        self.contacts.woken(at, self.io.now);
        self.io.note(|| format!("broker {at}: starts, clean {}", self.brokers[at].identity.clean));
        self.begin_ticks(at);
    }

    /// A broker that stops cleanly ends once it leads nothing.
    pub fn stop_if_done(&mut self, at: usize) {
        let broker = &self.brokers[at];
        let Some((deadline, down_ms)) = broker.stopping else { return };
        if broker.node.may_stop() && broker.node.view().all_leave() {
            self.io.checker.mark(Mark::AllLeft);
        }
        let broker = &self.brokers[at];
        if broker.node.may_stop() || self.io.now >= deadline {
            self.crash(at, Crash::Kill, true, down_ms);
        }
    }

    /// The administrator has another replica lead where all that were in sync
    /// have lost their records.
    pub fn ask_for_leaders(&mut self) {
        for partition in 0..self.setup.partitions {
            let (topic_key, key, at) = keys_of(partition);
            let (Some(topic_node), Some(node)) = (self.model.node(&topic_key), self.model.node(&key)) else { continue };
            let (Record::Topic(record), Record::Partition(state)) = (topic_node.record, node.record) else { continue };
            let waits = state.leader.is_none() && state.isr.is_empty() && state.elr.is_empty();
            let Some(assignment) = record.assignments.get(at).filter(|_| waits && !state.emptied.is_empty()) else {
                continue;
            };
            let terms = rules::Terms {
                replicas: &assignment.replicas,
                min_isr: rules::effective_min(self.minimum(partition), assignment),
                controller_epoch: state.controller_epoch,
            };
            let is_active = |broker: BrokerId| {
                let incarnation = self.model.node(&Key::Incarnation(broker)).map(|node| node.record);
                matches!(incarnation, Some(Record::Incarnation(Incarnation { phase: Phase::Active, .. })))
                    && self.model.node(&Key::Broker(broker)).is_some()
            };
            // A replica that may have records is worth waiting for.
            let are_there = assignment.replicas.iter().all(|broker| is_active(*broker));
            let after =
                rules::elect_asked(&state, &terms, is_active).filter(|after| are_there && after.leader.is_some());
            if let Some(after) = after {
                self.io.note(|| format!("partition {partition}: a leader is asked for"));
                self.io.checker.mark(Mark::AskedFor);
                let writes = vec![Write::Set(key, Record::Partition(after), node.version)];
                self.administer(Commit { checks: Vec::new(), writes });
            }
        }
    }

    pub fn heal(&mut self) {
        self.io.note(|| "heal".to_owned());
        self.healed = true;
        self.cuts.clear();
        self.contacts.deaf_until.clear();
        self.slow_until = 0;
        self.store_away_until = 0;
        for at in 0..self.brokers.len() {
            self.store_cut_until[at] = 0;
            self.late_until[at] = 0;
            self.lose_answers[at] = None;
            self.brokers[at].paused_until = 0;
            if self.brokers[at].replicas.iter().any(|replica| replica.disk.failed) {
                self.crash(at, Crash::Kill, false, 100);
            }
            if !self.brokers[at].running {
                self.restart_at(self.io.now + 50, at);
            }
        }
    }

    fn elect(&mut self, partition: usize) {
        let (topic_key, key, at) = keys_of(partition);
        let (Some(topic_node), Some(node)) = (self.model.node(&topic_key), self.model.node(&key)) else { return };
        let (Record::Topic(record), Record::Partition(state)) = (topic_node.record, node.record) else { return };
        let Some(assignment) = record.assignments.get(at) else { return };
        let heirs: Vec<BrokerId> = state.isr.iter().copied().filter(|broker| Some(*broker) != state.leader).collect();
        let Some(heir) = self.io.rng.pick(&heirs).copied() else { return };
        let terms = rules::Terms {
            replicas: &assignment.replicas,
            min_isr: rules::effective_min(self.minimum(partition), assignment),
            controller_epoch: state.controller_epoch,
        };
        if let Some(Record::Incarnation(incarnation)) = self.model.node(&Key::Incarnation(heir)).map(|node| node.record)
            && incarnation.phase == Phase::Active
            && state.leader.is_some()
            && let Some(after) = rules::prefer(&state, &terms, heir)
        {
            let writes = vec![Write::Set(key, Record::Partition(after), node.version)];
            let checks = vec![Check::Exists(Key::Broker(heir))];
            self.administer(Commit { checks, writes });
        }
    }

    fn reassign(&mut self, partition: usize, target: &[usize]) {
        let target: Vec<BrokerId> = target.iter().map(|at| BrokerId(*at as i32)).collect();
        let (topic_key, key, at) = keys_of(partition);
        let (Some(topic_node), Some(node)) = (self.model.node(&topic_key), self.model.node(&key)) else { return };
        let (Record::Topic(mut record), Record::Partition(state)) = (topic_node.record, node.record) else { return };
        let Some(assignment) = record.assignments.get(at).cloned() else { return };
        let epoch = match self.model.node(&Key::ControllerEpoch).map(|node| node.record) {
            Some(Record::ControllerEpoch(epoch)) => epoch,
            _ => 0,
        };
        let old = rules::Partition {
            assignment: &assignment,
            state: &state,
            min_insync_replicas: self.minimum(partition),
            controller_epoch: epoch,
        };
        let live = self.model.nodes();
        let may_lead = |broker: BrokerId| live.contains_key(&Key::Broker(broker));
        let Ok(Some(reassigned)) = rules::begin_reassignment(old, &target, &may_lead) else { return };
        record.assignments[at] = reassigned.assignment;
        let mut writes = vec![Write::Set(topic_key, Record::Topic(record), topic_node.version)];
        if let Some(after) = reassigned.state {
            writes.push(Write::Set(key, Record::Partition(after), node.version));
        }
        self.io.checker.mark(Mark::Reassignment);
        self.administer(Commit { checks: Vec::new(), writes });
    }

    /// `min.insync.replicas` as it is configured now.
    fn minimum(&self, partition: usize) -> i32 {
        match self.model.node(&Key::TopicConfig(Arc::from(topic_of(partition)))).map(|node| node.record) {
            Some(Record::Config(entries)) => entries.get(MIN_INSYNC).and_then(|value| value.parse().ok()).unwrap_or(1),
            _ => 1,
        }
    }

    fn set_minimum(&mut self, partition: usize, value: i32) {
        let key = Key::TopicConfig(Arc::from(topic_of(partition)));
        let Some(node) = self.model.node(&key) else { return };
        let Record::Config(mut entries) = node.record else { return };
        self.io.checker.mark(Mark::MinimumChanged);
        entries.insert(MIN_INSYNC.to_owned(), value.to_string());
        self.administer(Commit {
            checks: Vec::new(),
            writes: vec![Write::Set(key, Record::Config(entries), node.version)],
        });
    }
}

/// Of a partition: keys of its topic and of its state, and its place in the topic's record.
fn keys_of(partition: usize) -> (Key, Key, usize) {
    let (topic, number) = place_of(partition);
    (Key::Topic(topic.clone()), Key::Partition(topic, number), number_of(partition) as usize)
}
