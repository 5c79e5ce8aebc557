//! The conformance suite: each engine's tests run [`all`].
//!
//! The commits are such that an engine for one broker can carry them out: a topic is made whole,
//! and each commit changes what lasts of one topic at most.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use uuid::Uuid;

use super::commit::{Check, Commit, Lifetime, Node, Outcome, Write};
use super::engine::{CommitId, Event, Revision, Session, Store};
use super::mirror::Mirror;
use super::records::{Assignment, Incarnation, Key, PartitionState, Phase, Record, TopicRecord};
use crate::model::{BrokerId, LeaderEpoch};

/// An engine under test.
pub trait Bench {
    type Client: Store;

    /// A client that gets a session of its own; `None`: the engine has no more clients.
    fn client(&mut self) -> Option<Self::Client>;

    /// Connects all clients and has everything arrive that is under way.
    fn settle(&mut self);
}

/// A name and what is tried under it.
type Case<B> = (&'static str, fn(&mut B));

pub fn all<B: Bench>(mut make: impl FnMut() -> B) {
    let cases: [Case<B>; 11] = [
        ("a session begins with its connection", a_session_begins_with_its_connection),
        ("nodes count their versions", nodes_count_their_versions),
        ("a conflict names its node and writes nothing", a_conflict_names_its_node_and_writes_nothing),
        ("writes build upon one another", writes_build_upon_one_another),
        ("parents and children hold each other", parents_and_children_hold_each_other),
        ("records are of their kind", records_are_of_their_kind),
        ("a commit of checks changes nothing", a_commit_of_checks_changes_nothing),
        ("each commit has one outcome", each_commit_has_one_outcome),
        ("ephemeral nodes go with their session", ephemeral_nodes_go_with_their_session),
        ("changes lead from one load to the next", changes_lead_from_one_load_to_the_next),
        ("all clients see the same", all_clients_see_the_same),
    ];
    for (name, case) in cases {
        eprintln!("conformance: {name}");
        case(&mut make());
    }
}

/// A client, its copy of the store, and the outcomes that it has learned.
struct Subject<C> {
    client: C,
    mirror: Mirror,
    outcomes: Vec<(CommitId, Outcome, Option<Revision>)>,
}

impl<C: Store> Subject<C> {
    /// Connected, and loaded.
    fn new<B: Bench<Client = C>>(bench: &mut B) -> Subject<C> {
        Subject::another(bench).expect("an engine has one client at least")
    }

    fn another<B: Bench<Client = C>>(bench: &mut B) -> Option<Subject<C>> {
        let client = bench.client()?;
        let mut subject = Subject { client, mirror: Mirror::default(), outcomes: Vec::new() };
        subject.settle(bench);
        Some(subject)
    }

    /// Takes all events, and loads after each connection.
    fn settle<B: Bench<Client = C>>(&mut self, bench: &mut B) {
        loop {
            bench.settle();
            let Some(event) = self.client.poll() else { return };
            self.mirror.take(&event);
            match event {
                Event::Session(session) => {
                    assert_eq!(self.client.session(), session);
                    if session == Session::Connected {
                        self.client.load();
                    }
                }
                Event::Settled { id, outcome, revision } => self.outcomes.push((id, outcome, revision)),
                Event::Loaded(_) | Event::Changed(_) => {}
            }
        }
    }

    /// The outcome of one commit, which everything shows.
    fn commit<B: Bench<Client = C>>(&mut self, bench: &mut B, checks: Vec<Check>, writes: Vec<Write>) -> Outcome {
        let id = self.client.commit(Commit { checks, writes });
        self.settle(bench);
        let (settled, outcome, revision) = self.outcomes.pop().expect("each commit has an outcome");
        assert_eq!(settled, id);
        assert!(self.mirror.is_whole());
        if matches!(outcome, Outcome::Done | Outcome::Conflict(_)) {
            assert!(revision.is_some_and(|revision| revision <= self.mirror.revision()), "{outcome:?} at {revision:?}");
        }
        outcome
    }

    fn done<B: Bench<Client = C>>(&mut self, bench: &mut B, writes: Vec<Write>) {
        assert_eq!(self.commit(bench, vec![], writes.clone()), Outcome::Done, "{writes:?}");
    }

    fn refused<B: Bench<Client = C>>(&mut self, bench: &mut B, checks: Vec<Check>, writes: Vec<Write>, at: Key) {
        let before = (self.mirror.nodes().clone(), self.mirror.revision());
        assert_eq!(self.commit(bench, checks, writes), Outcome::Conflict(at));
        assert_eq!((self.mirror.nodes().clone(), self.mirror.revision()), before);
    }

    fn node(&self, key: &Key) -> Node {
        self.mirror.node(key).unwrap_or_else(|| unreachable!("{key:?} is not there")).clone()
    }
}

pub fn topic_key(name: &str) -> Key {
    Key::Topic(name.into())
}

pub fn partition_key(name: &str, index: i32) -> Key {
    Key::Partition(name.into(), index)
}

pub fn topic_record(id: u128, partitions: usize) -> Record {
    let assignment = Assignment { replicas: vec![BrokerId(1)], ..Assignment::default() };
    Record::Topic(TopicRecord { id: Uuid::from_u128(id), assignments: vec![assignment; partitions] })
}

pub fn partition_state(epoch: i32) -> Record {
    Record::Partition(PartitionState {
        leader: Some(BrokerId(1)),
        leader_epoch: LeaderEpoch(epoch),
        controller_epoch: 0,
        isr: vec![BrokerId(1)],
        elr: vec![],
        elr_min: 0,
        last_leader: None,
        emptied: Vec::new(),
        leader_broker_epoch: None,
    })
}

/// The writes that make a topic.
pub fn whole_topic(name: &str, id: u128, partitions: usize) -> Vec<Write> {
    let topic = Write::Create(topic_key(name), topic_record(id, partitions), Lifetime::Persistent);
    let state = |index| Write::Create(partition_key(name, index), partition_state(0), Lifetime::Persistent);
    std::iter::once(topic).chain((0..partitions as i32).map(state)).collect()
}

/// The writes that remove a topic.
pub fn no_topic(name: &str, partitions: usize) -> Vec<Write> {
    let gone = (0..partitions as i32).map(|index| Write::Delete(partition_key(name, index), None));
    gone.chain([Write::Delete(topic_key(name), None)]).collect()
}

fn incarnation(broker: i32, phase: Phase) -> (Key, Record) {
    let record = Incarnation { phase, trusted: true, boot: Uuid::from_u128(7), directories: BTreeSet::new() };
    (Key::Incarnation(BrokerId(broker)), Record::Incarnation(record))
}

fn config(retention: u64) -> Record {
    Record::Config(BTreeMap::from([("retention.ms".to_owned(), retention.to_string())]))
}

fn a_session_begins_with_its_connection<B: Bench>(bench: &mut B) {
    let mut client = bench.client().expect("an engine has one client at least");
    bench.settle();
    assert_eq!(client.poll(), Some(Event::Session(Session::Connected)));
    assert_eq!(client.session(), Session::Connected);
    client.load();
    bench.settle();
    assert!(matches!(client.poll(), Some(Event::Loaded(_))));
    assert_eq!(client.poll(), None);
}

fn nodes_count_their_versions<B: Bench>(bench: &mut B) {
    let mut subject = Subject::new(bench);
    let (key, state) = (partition_key("a", 0), topic_key("a"));
    subject.done(bench, whole_topic("a", 1, 2));
    let made = subject.node(&key);
    assert_eq!((made.version, &made.record), (0, &partition_state(0)));
    assert_eq!(made.created, subject.node(&state).created, "one commit, one revision");
    for version in 0..3 {
        subject.done(bench, vec![Write::Set(key.clone(), partition_state(version + 1), version)]);
        let node = subject.node(&key);
        assert_eq!((node.version, node.created), (version + 1, made.created));
        assert_eq!(node.record, partition_state(version + 1));
    }
    assert_eq!(subject.node(&partition_key("a", 1)).version, 0);
    subject.done(bench, no_topic("a", 2));
    assert!(subject.mirror.node(&key).is_none() && subject.mirror.node(&state).is_none());
    subject.done(bench, whole_topic("a", 2, 1));
    let anew = subject.node(&key);
    assert_eq!(anew.version, 0);
    assert!(anew.created > made.created, "another node of the same name");
}

fn a_conflict_names_its_node_and_writes_nothing<B: Bench>(bench: &mut B) {
    let mut subject = Subject::new(bench);
    subject.done(bench, whole_topic("a", 1, 1));
    let (topic, state, (other, record)) = (topic_key("a"), partition_key("a", 0), incarnation(1, Phase::Joining));
    let fine = || Write::Create(other.clone(), record.clone(), Lifetime::Persistent);
    let absent = topic_key("b");
    let checks = [
        (Check::Exists(absent.clone()), &absent),
        (Check::Absent(topic.clone()), &topic),
        (Check::Version(state.clone(), 1), &state),
        (Check::Version(absent.clone(), 0), &absent),
    ];
    for (check, at) in checks {
        subject.refused(bench, vec![Check::Exists(topic.clone()), check], vec![fine()], at.clone());
    }
    let writes = [
        (Write::Create(topic.clone(), topic_record(2, 1), Lifetime::Persistent), &topic),
        (Write::Set(state.clone(), partition_state(9), 1), &state),
        (Write::Set(absent.clone(), topic_record(2, 1), 0), &absent),
        (Write::Delete(state.clone(), Some(1)), &state),
        (Write::Delete(absent.clone(), None), &absent),
    ];
    for (write, at) in writes {
        subject.refused(bench, vec![], vec![fine(), write.clone()], at.clone());
        subject.refused(bench, vec![], vec![write, fine()], at.clone());
    }
    subject.done(bench, vec![fine()]);
}

fn writes_build_upon_one_another<B: Bench>(bench: &mut B) {
    let mut subject = Subject::new(bench);
    let (key, joining) = incarnation(1, Phase::Joining);
    let (_, active) = incarnation(1, Phase::Active);
    let create = |record: &Record| Write::Create(key.clone(), record.clone(), Lifetime::Persistent);
    subject.done(bench, vec![create(&joining), Write::Set(key.clone(), active.clone(), 0)]);
    let first = subject.node(&key);
    assert_eq!((first.version, &first.record), (1, &active));
    // A registration in place of an older one.
    subject.done(bench, vec![Write::Delete(key.clone(), None), create(&joining)]);
    let second = subject.node(&key);
    assert_eq!((second.version, &second.record), (0, &joining));
    assert!(second.created > first.created);
    // Checks see what was before all writes.
    subject.refused(bench, vec![Check::Absent(key.clone())], vec![Write::Delete(key.clone(), None)], key.clone());
    subject.refused(bench, vec![], vec![Write::Set(key.clone(), active.clone(), 0), create(&joining)], key.clone());
    subject.refused(bench, vec![], vec![Write::Set(key.clone(), active, 0); 2], key.clone());
    let (other, record) = incarnation(2, Phase::Joining);
    let made = Write::Create(other.clone(), record, Lifetime::Persistent);
    subject.done(bench, vec![made, Write::Delete(other.clone(), Some(0))]);
    assert!(subject.mirror.node(&other).is_none());
}

fn parents_and_children_hold_each_other<B: Bench>(bench: &mut B) {
    let mut subject = Subject::new(bench);
    let (topic, state) = (topic_key("a"), partition_key("a", 0));
    let orphan = Write::Create(state.clone(), partition_state(0), Lifetime::Persistent);
    subject.refused(bench, vec![], vec![orphan], topic.clone());
    subject.done(bench, whole_topic("a", 1, 2));
    subject.refused(bench, vec![], vec![Write::Delete(topic.clone(), None)], topic.clone());
    let half = vec![Write::Delete(state, None), Write::Delete(topic.clone(), None)];
    subject.refused(bench, vec![], half, topic);
    subject.done(bench, no_topic("a", 2));
}

fn records_are_of_their_kind<B: Bench>(bench: &mut B) {
    let mut subject = Subject::new(bench);
    let (key, record) = incarnation(1, Phase::Joining);
    subject.done(bench, vec![Write::Create(key.clone(), record, Lifetime::Persistent)]);
    let before = subject.mirror.nodes().clone();
    let wrong = [
        Write::Set(key, partition_state(0), 0),
        Write::Create(Key::ControllerEpoch, Record::Deletion, Lifetime::Persistent),
    ];
    for write in wrong {
        let outcome = subject.commit(bench, vec![], vec![write]);
        assert!(matches!(outcome, Outcome::Failed(_)), "{outcome:?}");
    }
    assert_eq!(*subject.mirror.nodes(), before);
}

fn a_commit_of_checks_changes_nothing<B: Bench>(bench: &mut B) {
    let mut subject = Subject::new(bench);
    subject.done(bench, whole_topic("a", 1, 1));
    let revision = subject.mirror.revision();
    let checks = vec![Check::Version(topic_key("a"), 0), Check::Absent(topic_key("b"))];
    assert_eq!(subject.commit(bench, checks, vec![]), Outcome::Done);
    assert_eq!(subject.commit(bench, vec![], vec![]), Outcome::Done);
    assert_eq!(subject.mirror.revision(), revision);
}

fn each_commit_has_one_outcome<B: Bench>(bench: &mut B) {
    let mut subject = Subject::new(bench);
    let begin = |subject: &mut Subject<B::Client>, writes| subject.client.commit(Commit { checks: vec![], writes });
    let ids = [
        begin(&mut subject, whole_topic("a", 1, 1)),
        begin(&mut subject, whole_topic("b", 2, 3)),
        begin(&mut subject, whole_topic("a", 3, 1)),
        begin(&mut subject, vec![Write::Set(partition_key("b", 2), partition_state(1), 0)]),
        begin(&mut subject, no_topic("a", 1)),
        begin(&mut subject, whole_topic("a", 4, 2)),
    ];
    assert!(ids.is_sorted() && ids[0] == CommitId(1), "{ids:?}");
    subject.settle(bench);
    let settled: Vec<_> = subject.outcomes.iter().map(|(id, outcome, _)| (*id, outcome.clone())).collect();
    let conflict = Outcome::Conflict(topic_key("a"));
    let wanted = [Outcome::Done, Outcome::Done, conflict, Outcome::Done, Outcome::Done, Outcome::Done];
    assert_eq!(settled, ids.into_iter().zip(wanted).collect::<Vec<_>>());
    assert!(subject.outcomes.is_sorted_by_key(|(_, _, revision)| *revision), "in the order in which they began");
    assert_eq!(subject.node(&topic_key("a")).record, topic_record(4, 2));
    assert_eq!(subject.node(&partition_key("b", 2)).record, partition_state(1));
}

fn ephemeral_nodes_go_with_their_session<B: Bench>(bench: &mut B) {
    let mut subject = Subject::new(bench);
    let (key, record) = (Key::Controller, Record::Controller(BrokerId(1)));
    let (lasting, incarnation) = incarnation(1, Phase::Active);
    let create = Write::Create(key.clone(), record.clone(), Lifetime::Ephemeral);
    subject.done(bench, vec![create.clone(), Write::Create(lasting.clone(), incarnation, Lifetime::Persistent)]);
    // A change does not make it last.
    subject.done(bench, vec![Write::Set(key.clone(), record, 0)]);
    let mut other = Subject::another(bench);
    if let Some(other) = &mut other {
        assert!(other.mirror.node(&key).is_some());
        other.refused(bench, vec![], vec![create.clone()], key.clone());
    }
    let last = subject.client.commit(Commit { checks: vec![], writes: whole_topic("a", 1, 1) });
    subject.client.close();
    subject.settle(bench);
    assert_eq!(subject.client.session(), Session::Expired);
    let (id, outcome, _) = subject.outcomes.pop().expect("what was begun before is carried out");
    assert_eq!((id, outcome), (last, Outcome::Done));
    let refused = subject.client.commit(Commit::default());
    subject.settle(bench);
    let (id, outcome, _) = subject.outcomes.pop().expect("an outcome without a connection");
    assert_eq!((id, outcome), (refused, Outcome::Unknown));
    if let Some(other) = &mut other {
        other.settle(bench);
        assert!(other.mirror.node(&key).is_none() && other.mirror.node(&lasting).is_some());
        other.done(bench, vec![create]);
    }
    subject.client.renew();
    subject.settle(bench);
    assert_eq!(subject.client.session(), Session::Connected);
    assert_eq!(subject.mirror.node(&key).is_some(), other.is_some(), "only that of the other session");
    assert!(subject.mirror.node(&lasting).is_some() && subject.mirror.node(&topic_key("a")).is_some());
}

/// A die that falls the same way each time (splitmix64).
pub struct Die(pub u64);

impl Die {
    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end.max(1) as u64) as usize
    }
}

/// The rules once more, in the plainest way: versions and records by key.
#[derive(Clone, Default)]
struct Reference(BTreeMap<Key, (Record, i32)>);

impl Reference {
    fn commit(&mut self, commit: &Commit) -> Outcome {
        let mut after = self.clone();
        for check in &commit.checks {
            let (key, holds) = match check {
                Check::Exists(key) => (key, self.0.contains_key(key)),
                Check::Absent(key) => (key, !self.0.contains_key(key)),
                Check::Version(key, version) => (key, self.0.get(key).is_some_and(|node| node.1 == *version)),
            };
            if !holds {
                return Outcome::Conflict(key.clone());
            }
        }
        for write in &commit.writes {
            if let Err(key) = after.write(write) {
                return Outcome::Conflict(key);
            }
        }
        *self = after;
        Outcome::Done
    }

    fn write(&mut self, write: &Write) -> Result<(), Key> {
        let is_child = |key: &Key, of: &Key| matches!((key, of), (Key::Partition(a, _), Key::Topic(b)) if a == b);
        match write {
            Write::Create(key, record, _) => {
                if self.0.contains_key(key) {
                    return Err(key.clone());
                }
                if let Key::Partition(name, _) = key
                    && !self.0.contains_key(&Key::Topic(name.clone()))
                {
                    return Err(Key::Topic(name.clone()));
                }
                self.0.insert(key.clone(), (record.clone(), 0));
            }
            Write::Set(key, record, version) => match self.0.get_mut(key).filter(|node| node.1 == *version) {
                Some(node) => *node = (record.clone(), version + 1),
                None => return Err(key.clone()),
            },
            Write::Delete(key, version) => {
                let found = self.0.get(key).is_some_and(|node| version.is_none_or(|version| node.1 == version));
                if !found || self.0.keys().any(|other| is_child(other, key)) {
                    return Err(key.clone());
                }
                self.0.remove(key);
            }
        }
        Ok(())
    }
}

/// Some commit on one of few topics and on broker records.
fn random_commit(die: &mut Die) -> Commit {
    let name: Arc<str> = ["a", "b", "c"][die.below(3)].into();
    let (partitions, version) = (1 + die.below(2), die.below(3) as i32);
    let partition = partition_key(&name, die.below(2) as i32);
    let (broker, record) = incarnation(die.below(2) as i32, [Phase::Joining, Phase::Active][die.below(2)]);
    let mut writes = match die.below(6) {
        0 | 1 => whole_topic(&name, die.0.into(), partitions),
        2 => no_topic(&name, partitions),
        _ => vec![Write::Set(partition.clone(), partition_state(die.below(100) as i32), version)],
    };
    match die.below(5) {
        0 => writes.push(Write::Create(broker.clone(), record, Lifetime::Persistent)),
        1 => writes.insert(0, Write::Set(broker.clone(), record, version)),
        2 => writes.push(Write::Delete(broker.clone(), Some(version))),
        _ => {}
    }
    let checks = match die.below(4) {
        0 => vec![Check::Exists(broker)],
        1 => vec![Check::Absent(broker), Check::Version(topic_key(&name), version)],
        2 => vec![Check::Version(partition, version)],
        _ => vec![],
    };
    Commit { checks, writes }
}

fn changes_lead_from_one_load_to_the_next<B: Bench>(bench: &mut B) {
    let (mut subject, mut die) = (Subject::new(bench), Die(1));
    let begin: Vec<_> =
        subject.mirror.nodes().iter().map(|(k, n)| (k.clone(), (n.record.clone(), n.version))).collect();
    let mut reference = Reference(begin.into_iter().collect());
    let mut done = 0;
    for _ in 0..400 {
        let batch: Vec<Commit> = (0..1 + die.below(4)).map(|_| random_commit(&mut die)).collect();
        let ids: Vec<CommitId> = batch.iter().map(|commit| subject.client.commit(commit.clone())).collect();
        subject.settle(bench);
        let settled: Vec<_> = subject.outcomes.drain(..).map(|(id, outcome, _)| (id, outcome)).collect();
        let wanted: Vec<_> = batch.iter().map(|commit| reference.commit(commit)).collect();
        done += wanted.iter().filter(|outcome| **outcome == Outcome::Done).count();
        assert_eq!(settled, ids.into_iter().zip(wanted).collect::<Vec<_>>(), "{batch:?}");
        let known = subject.mirror.nodes().iter().map(|(k, n)| (k.clone(), (n.record.clone(), n.version)));
        assert_eq!(known.collect::<BTreeMap<_, _>>(), reference.0);
        if die.below(10) == 0 {
            let before = (subject.mirror.nodes().clone(), subject.mirror.revision());
            subject.client.load();
            subject.settle(bench);
            assert_eq!((subject.mirror.nodes().clone(), subject.mirror.revision()), before);
        }
    }
    assert!(done > 50, "{done} commits were more than refused");
}

fn all_clients_see_the_same<B: Bench>(bench: &mut B) {
    let mut first = Subject::new(bench);
    let Some(mut second) = Subject::another(bench) else { return };
    let mut die = Die(2);
    for _ in 0..200 {
        let commit = random_commit(&mut die);
        let by = if die.below(2) == 0 { &mut first } else { &mut second };
        by.client.commit(commit);
        if die.below(3) == 0 {
            first.settle(bench);
            second.settle(bench);
            assert_eq!(first.mirror.nodes(), second.mirror.nodes());
            assert_eq!(first.mirror.revision(), second.mirror.revision());
        }
    }
    first.done(bench, vec![Write::Create(Key::DefaultConfig, config(1), Lifetime::Persistent)]);
    second.settle(bench);
    assert_eq!(second.node(&Key::DefaultConfig).record, config(1));
}
