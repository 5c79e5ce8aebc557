//! Members, operators, time, crashes and failed appends in any order. What must
//! hold whatever they do:
//!
//! - each ticket is answered once (the fixture sees to "at most", the end of
//!   each run to "at least");
//! - the assignments of one generation are those of one sync of one leader;
//! - a commit passes with the group's latest generation only, or by nobody into an empty group;
//! - committed offsets are exactly those that were acknowledged;
//! - what was written makes the same state again, all of it and what compaction leaves of it.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use uuid::Uuid;

use super::fixture::*;
use crate::config::GroupConfig;
use crate::coordinator::Ticket;
use crate::groups::api::*;
use crate::groups::classic::State;
use crate::groups::coordinator::{Coordinator, Group};
use crate::groups::record::Record;
use crate::model::ErrorCode;

const GROUPS: [&str; 2] = ["g", "h"];
const TOPICS: [&str; 3] = ["t", "u", "v"];
const INSTANCES: [&str; 2] = ["i", "j"];

/// A question, as far as the answer depends on it.
enum Asked {
    Join { group: usize },
    Sync { group: usize, generation: i32 },
    Other,
}

/// One group as clients have seen it.
#[derive(Default)]
struct Seen {
    /// How often the group has gone and come again: generations count from one each time.
    life: u32,
    /// The latest that anybody could know of.
    generation: i32,
    /// Ids that members were told, newest last.
    ids: Vec<String>,
    /// Members that were told of the latest generation, and the one of them that was told that it
    /// leads.
    joined: Vec<String>,
    leader: String,
    offsets: BTreeMap<(&'static str, i32), i64>,
}

struct Run {
    world: World,
    die: Die,
    asked: HashMap<Ticket, Asked>,
    seen: [Seen; 2],
    /// Which leader's sync the assignments of a generation came from.
    assigned: HashMap<(usize, u32, i32), u64>,
    syncs: u64,
    offset: i64,
    loads: u32,
    counts: BTreeMap<&'static str, u32>,
}

impl Run {
    fn new(seed: u64) -> Run {
        let config = GroupConfig {
            max_size: 4,
            offsets_retention_ms: i64::MAX,
            max_group_bytes: 6000,
            ..GroupConfig::default()
        };
        Run {
            world: World::with(config),
            die: Die(seed),
            asked: HashMap::new(),
            seen: Default::default(),
            assigned: HashMap::new(),
            syncs: 0,
            offset: 0,
            loads: 0,
            counts: BTreeMap::new(),
        }
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn ask(&mut self, request: impl Into<Request>, asked: Asked) {
        let ticket = self.world.ask(request);
        self.asked.insert(ticket, asked);
    }

    /// Mostly an id that somebody was told, lately for preference.
    fn id(&mut self, group: usize) -> String {
        let ids = &self.seen[group].ids;
        let back = self.die.roll(5) as usize;
        match self.die.roll(30) {
            0 => "stranger".into(),
            _ => ids.iter().rev().nth(back).cloned().unwrap_or_default(),
        }
    }

    /// Mostly one that was told of the latest generation.
    fn joined_id(&mut self, group: usize) -> String {
        let joined = &self.seen[group].joined;
        if joined.is_empty() || self.die.roll(10) == 0 {
            return self.id(group);
        }
        self.die.pick(joined).clone()
    }

    fn generation(&mut self, group: usize) -> i32 {
        self.seen[group].generation + [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, -1, 1][self.die.roll(14) as usize]
    }

    fn instance(&mut self) -> Option<String> {
        (self.die.roll(4) == 0).then(|| (*self.die.pick(&INSTANCES)).to_owned())
    }

    fn step(&mut self) {
        let group = self.die.roll(2) as usize;
        if self.die.roll(25) == 0 {
            self.world.next_append_fails = true;
        }
        match self.die.roll(100) {
            0..26 => self.join(group),
            26..52 => self.sync(group),
            52..60 => self.heartbeat(group),
            60..62 => self.leave(group),
            62..80 => self.commit(group),
            80..83 => self.delete_offsets(group),
            83..84 => self.delete_group(group),
            84..85 => self.remove_topic(),
            85..87 => self.reload(),
            87..99 => {
                let ms = *self.die.pick(&[1, 100, 1000, 1000, 3000, 3000]);
                self.pass(ms);
            }
            _ => {
                let ms = *self.die.pick(&[11_000, 60_000, 301_000]);
                self.pass(ms);
            }
        }
        self.settle();
    }

    /// Deadline by deadline, so that every call's effects are looked at.
    fn pass(&mut self, ms: u64) {
        let end = self.world.mono_ms + ms;
        while let Some(at) = self.world.coordinator.next_deadline().filter(|at| *at <= end) {
            let ms = at.saturating_sub(self.world.mono_ms);
            self.world.pass(ms);
            self.settle();
        }
        self.world.mono_ms = end;
    }

    fn join(&mut self, group: usize) {
        let comes_back = self.die.roll(6) == 0;
        let instance_id = if comes_back { Some((*self.die.pick(&INSTANCES)).to_owned()) } else { self.instance() };
        let id = if comes_back || self.die.roll(5) == 0 { String::new() } else { self.id(group) };
        let protocols: &[&str] = match self.die.roll(20) {
            0 => &["c"],
            1 => &["b"],
            2..6 => &["b", "a"],
            6..10 => &["a"],
            _ => &["a", "b"],
        };
        let protocols = protocols.iter().map(|name| {
            let topics = if self.die.roll(10) == 0 { &TOPICS[..1] } else { &TOPICS[1..2] };
            ((*name).to_owned(), subscription(topics))
        });
        let protocols = protocols.collect();
        let request = JoinRequest {
            protocols,
            instance_id,
            requires_known_member: self.die.roll(2) == 0,
            supports_skipping_assignment: self.die.roll(2) == 0,
            rebalance_timeout_ms: *self.die.pick(&[-1, 0, 5000, 20_000, 20_000, 20_000, 20_000]),
            session_timeout_ms: *self.die.pick(&[6000, 10_000, 60_000, 60_000, 60_000]),
            ..join(GROUPS[group], &id)
        };
        self.ask(request, Asked::Join { group });
    }

    fn sync(&mut self, group: usize) {
        let leads = self.die.roll(2) == 0;
        let member = if leads { self.seen[group].leader.clone() } else { self.joined_id(group) };
        let generation = self.generation(group);
        self.syncs += 1;
        let marked = Bytes::copy_from_slice(&self.syncs.to_be_bytes());
        let mut assignments: Vec<(String, Bytes)> = Vec::new();
        for id in &self.seen[group].ids {
            if self.die.roll(10) > 0 {
                let extra = if self.die.roll(200) == 0 { 6000 } else { 0 };
                assignments.push((id.clone(), [&marked[..], &vec![0; extra]].concat().into()));
            }
        }
        let request = SyncRequest { assignments, ..sync(GROUPS[group], generation, &member) };
        self.ask(request, Asked::Sync { group, generation });
    }

    fn heartbeat(&mut self, group: usize) {
        let (generation, member_id) = (self.generation(group), self.joined_id(group));
        let instance_id = self.instance();
        let request = HeartbeatRequest { group: GROUPS[group].into(), generation, member_id, instance_id };
        self.ask(request, Asked::Other);
    }

    fn leave(&mut self, group: usize) {
        let ids = [self.id(group), if self.die.roll(3) == 0 { String::new() } else { self.id(group) }];
        let instances = [self.instance(), self.instance()];
        let request = leave(GROUPS[group], &[(&ids[0], instances[0].as_deref()), (&ids[1], instances[1].as_deref())]);
        self.ask(request, Asked::Other);
    }

    fn commit(&mut self, group: usize) {
        let by_nobody = self.die.roll(5) == 0;
        let (generation, member) =
            if by_nobody { (-1, String::new()) } else { (self.generation(group), self.joined_id(group)) };
        self.offset += 1;
        let offset = self.offset;
        let (topic, partition) = (*self.die.pick(&TOPICS), self.die.roll(3) as i32);
        let mut request = commit(GROUPS[group], generation, &member, &[(topic, partition, offset), (topic, 9, offset)]);
        let with_id = self.die.roll(2) == 0;
        for topic in &mut request.topics {
            topic.id = if with_id { Uuid::from_u128(1) } else { Uuid::nil() };
        }
        request.retention_ms = (self.die.roll(4) == 0).then_some(i64::MAX);
        let empty = matches!(self.world.state(GROUPS[group]), "Empty" | "none");
        let ticket = self.world.ask(request);
        let Some(reply) = self.world.answer::<CommitRequest>(ticket) else {
            return assert!(!self.world.owed.contains(&ticket), "an answer at once, unless the append failed");
        };
        if error_of(&reply) == ErrorCode::None {
            self.count("commits");
            let seen = &mut self.seen[group];
            assert!(if generation < 0 { empty } else { generation == seen.generation }, "a stale commit passed");
            seen.offsets.insert((topic, partition), offset);
            seen.offsets.insert((topic, 9), offset);
        } else {
            self.count("refused commits");
        }
    }

    fn delete_offsets(&mut self, group: usize) {
        let (topic, partition) = (*self.die.pick(&TOPICS), self.die.roll(3) as i32);
        let topics = vec![(topic.into(), vec![partition])];
        let ticket = self.world.ask(DeleteOffsetsRequest { group: GROUPS[group].into(), topics });
        let Some(reply) = self.world.answer::<DeleteOffsetsRequest>(ticket) else { return };
        if reply.topics.iter().any(|topic| topic.partitions[0].1 == ErrorCode::None) {
            self.seen[group].offsets.remove(&(topic, partition));
            self.count("offset deletions");
        }
    }

    fn delete_group(&mut self, group: usize) {
        let ticket = self.world.ask(DeleteRequest { group: GROUPS[group].into() });
        let Some(reply) = self.world.answer::<DeleteRequest>(ticket) else { return };
        if reply.error == ErrorCode::None {
            self.seen[group].offsets.clear();
            self.count("group deletions");
        }
    }

    fn remove_topic(&mut self) {
        self.world.next_append_fails = false;
        let topic = *self.die.pick(&TOPICS);
        self.world.act(|coordinator, env| coordinator.topics_changed(&[topic.into()], env));
        for seen in &mut self.seen {
            seen.offsets.retain(|(of, _), _| *of != topic);
        }
    }

    fn reload(&mut self) {
        self.world.reload();
        self.count("reloads");
    }

    /// Looks at what the last call wrote and answered.
    fn settle(&mut self) {
        let loaded = std::mem::replace(&mut self.loads, self.world.loads) != self.world.loads;
        if loaded {
            // A generation that was not written is as if it had never been.
            for (group, seen) in self.seen.iter_mut().enumerate() {
                seen.generation = generation_of(&self.world.coordinator, GROUPS[group]);
            }
        }
        for record in std::mem::take(&mut self.world.records) {
            let Record::Classic { group, value } = record else { continue };
            let seen = &mut self.seen[usize::from(&*group == GROUPS[1])];
            match value {
                Some(value) => seen.generation = value.generation,
                None => (seen.life, seen.generation) = (seen.life + 1, 0),
            }
        }
        let tickets: Vec<Ticket> = self.asked.keys().copied().collect();
        for ticket in tickets {
            if let Some(reply) = self.world.take_reply(ticket) {
                let Some(asked) = self.asked.remove(&ticket) else { continue };
                self.look_at(asked, reply);
            } else if !self.world.owed.contains(&ticket) {
                assert!(loaded, "a ticket was lost");
                self.asked.remove(&ticket);
            }
        }
        self.compare();
    }

    fn look_at(&mut self, asked: Asked, reply: Reply) {
        match (asked, reply) {
            (Asked::Join { group }, Reply::Join(reply)) => {
                if !reply.member_id.is_empty() {
                    self.seen[group].ids.retain(|id| *id != reply.member_id);
                    self.seen[group].ids.push(reply.member_id.clone());
                }
                if reply.error == ErrorCode::None {
                    let seen = &mut self.seen[group];
                    if seen.generation != reply.generation {
                        seen.joined.clear();
                    }
                    seen.joined.push(reply.member_id);
                    (seen.generation, seen.leader) = (reply.generation, reply.leader);
                    self.count(if reply.skip_assignment { "skipped assignments" } else { "joins" });
                } else {
                    self.count("refused joins");
                }
            }
            (Asked::Sync { group, generation }, Reply::Sync(reply)) if reply.error == ErrorCode::None => {
                assert_eq!(generation, self.seen[group].generation);
                if let Some(mark) = reply.assignment.first_chunk::<8>() {
                    let mark = u64::from_be_bytes(*mark);
                    let first = *self.assigned.entry((group, self.seen[group].life, generation)).or_insert(mark);
                    assert_eq!(mark, first, "two sets of assignments in generation {generation}");
                    self.count("assignments");
                }
            }
            _ => {}
        }
    }

    fn compare(&mut self) {
        let live = offsets_of(&self.world.coordinator);
        for (group, seen) in self.seen.iter().enumerate() {
            let expected: BTreeMap<(String, i32), i64> = seen
                .offsets
                .iter()
                .map(|((topic, partition), offset)| (((*topic).into(), *partition), *offset))
                .collect();
            assert_eq!(live[group], expected, "offsets of {}", GROUPS[group]);
        }
        for log in [self.world.log.clone(), compacted(&self.world.log)] {
            let again = replayed(&log);
            assert_eq!(offsets_of(&again), live);
            for group in GROUPS {
                assert_same(&self.world.coordinator, &again, group);
            }
        }
    }
}

/// Of each key the last value; tombstones are gone.
fn compacted(log: &Log) -> Log {
    let last: HashMap<&[u8], usize> = log.iter().enumerate().map(|(at, (key, _))| (key.as_slice(), at)).collect();
    let kept = log.iter().enumerate().filter(|(at, (key, value))| last[key.as_slice()] == *at && value.is_some());
    kept.map(|(_, record)| record.clone()).collect()
}

fn offsets_of(coordinator: &Coordinator) -> [BTreeMap<(String, i32), i64>; 2] {
    GROUPS.map(|group| {
        let topics = coordinator.offsets.of_group(group);
        let all = topics.flat_map(|(topic, partitions)| {
            partitions.iter().map(|(index, committed)| ((topic.to_string(), *index), committed.offset))
        });
        all.collect()
    })
}

fn generation_of(coordinator: &Coordinator, group: &str) -> i32 {
    match coordinator.groups.get(group) {
        Some(Group::Classic(group)) => group.generation(),
        _ => 0,
    }
}

/// As far as it was to be written: groups that stand still are the same, others have gone on.
fn assert_same(live: &Coordinator, again: &Coordinator, group: &str) {
    let of = |coordinator: &Coordinator| match coordinator.groups.get(group) {
        Some(Group::Classic(group)) => {
            let Record::Classic { value: Some(mut value), .. } = group.record() else { panic!("a value") };
            if value.protocol_type.is_empty() {
                value.state_since_ms = 0;
            }
            // A group that never had anybody and has no offsets is not always written, nor missed.
            let nothing = value.protocol_type.is_empty() && !coordinator.offsets.has_any(group.id());
            (!nothing).then(|| (group.state(), value))
        }
        Some(Group::Consumer(_)) => panic!("a consumer group"),
        None => None,
    };
    match (of(live), of(again)) {
        (Some((State::PreparingRebalance | State::CompletingRebalance, live)), again) => {
            let generation = again.map_or(0, |(_, again)| again.generation);
            assert!(generation <= live.generation, "{generation} after {}", live.generation);
        }
        (live, again) => assert_eq!(live, again),
    }
}

#[test]
fn whatever_happens() {
    let mut counts: BTreeMap<&'static str, u32> = BTreeMap::new();
    for seed in 0..40 {
        let mut run = Run::new(seed);
        for _ in 0..250 {
            run.step();
        }
        run.world.next_append_fails = false;
        run.pass(2_000_000);
        assert!(run.world.owed.is_empty(), "never answered: {:?}", run.world.owed);
        for (what, count) in run.counts {
            *counts.entry(what).or_default() += count;
        }
    }
    // The runs are worth something only if much of this came about.
    let least = [
        ("joins", 300),
        ("refused joins", 300),
        ("skipped assignments", 3),
        ("assignments", 300),
        ("commits", 300),
        ("refused commits", 300),
        ("offset deletions", 30),
        ("group deletions", 30),
        ("reloads", 100),
    ];
    for (what, least) in least {
        assert!(counts.get(what).is_some_and(|count| *count >= least), "{what}: {counts:?}");
    }
}
