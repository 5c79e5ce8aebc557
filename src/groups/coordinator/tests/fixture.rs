//! A coordinator with a clock, a log and topics of its own. What the coordinator promises about
//! replies and records is asserted on the way: no reply that is not owed, and no record that
//! its encoding cannot say.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use crate::config::{GroupConfig, GroupOptions};
use crate::coordinator::Ticket;
use crate::groups::api::*;
use crate::groups::coordinator::{Coordinator, Group};
use crate::groups::env::{Effects, Env, Room, TopicFacts, Topics};
use crate::groups::record::Record;
use crate::model::ErrorCode;

pub const SESSION_MS: i32 = 10_000;
pub const REBALANCE_MS: i32 = 60_000;
/// The wall clock is far from the other one, so that they cannot be mistaken for each other.
const EPOCH_MS: i64 = 1_700_000_000_000;

pub type Log = Vec<(Vec<u8>, Option<Vec<u8>>)>;

#[derive(Default)]
pub struct FakeTopics(pub BTreeMap<String, Uuid>);

impl Topics for FakeTopics {
    fn by_name(&self, name: &str) -> Option<TopicFacts> {
        self.0.get(name).map(|id| TopicFacts { name: name.into(), id: *id, partitions: 1 })
    }

    fn by_id(&self, id: Uuid) -> Option<TopicFacts> {
        self.all().into_iter().find(|topic| topic.id == id)
    }

    fn all(&self) -> Vec<TopicFacts> {
        self.0.keys().filter_map(|name| self.by_name(name)).collect()
    }

    fn version(&self) -> u64 {
        0
    }
}

pub struct World {
    pub coordinator: Coordinator,
    pub config: GroupConfig,
    pub topics: FakeTopics,
    /// Memory for all groups.
    pub limit_bytes: usize,
    pub mono_ms: u64,
    /// All that was appended, as it was written.
    pub log: Log,
    /// Records that the last call appended.
    pub records: Vec<Record>,
    /// The next call's effects are lost, as if the append had failed: the
    /// coordinator is loaded anew.
    pub next_append_fails: bool,
    /// How often it was.
    pub loads: u32,
    pub owed: BTreeSet<Ticket>,
    replies: BTreeMap<Ticket, Reply>,
    tickets: u64,
    ids: u128,
}

impl Default for World {
    fn default() -> World {
        World::with(GroupConfig::default())
    }
}

impl World {
    /// With so much memory for all groups.
    pub fn limited(limit_bytes: usize) -> World {
        World { limit_bytes, ..World::default() }
    }

    pub fn with(config: GroupConfig) -> World {
        let mut world = World {
            coordinator: Coordinator::default(),
            config,
            topics: FakeTopics::default(),
            limit_bytes: usize::MAX,
            mono_ms: 0,
            log: Vec::new(),
            records: Vec::new(),
            next_append_fails: false,
            loads: 0,
            owed: BTreeSet::new(),
            replies: BTreeMap::new(),
            tickets: 0,
            ids: 0,
        };
        world.act(|coordinator, env| coordinator.loaded(env));
        world
    }

    pub fn act(&mut self, act: impl FnOnce(&mut Coordinator, &mut Env)) {
        let ids = &mut self.ids;
        let mut new_id = || {
            *ids += 1;
            Uuid::from_u128(*ids)
        };
        let mut env = Env {
            wall_ms: EPOCH_MS + self.mono_ms as i64,
            mono_ms: self.mono_ms,
            config: &self.config,
            own: &GroupOptions::default(),
            topics: &self.topics,
            room: Room::of(self.limit_bytes, self.coordinator.bytes()),
            new_id: &mut new_id,
            out: Effects::default(),
        };
        act(&mut self.coordinator, &mut env);
        self.coordinator.assert_counted();
        let out = env.out;
        if std::mem::take(&mut self.next_append_fails) && !out.records.is_empty() {
            self.records.clear();
            return self.reload();
        }
        for record in &out.records {
            let (key, value) = record.encode();
            let decoded = Record::decode(&key, value.as_deref()).expect("a record of ours is sound");
            assert_eq!(decoded.as_ref(), Some(record), "a record is what was meant");
            self.log.push((key, value));
        }
        self.records = out.records;
        for (ticket, reply) in out.replies {
            assert!(self.owed.remove(&ticket), "{ticket:?} is not owed this: {reply:?}");
            self.replies.insert(ticket, reply);
        }
    }

    /// Asks; the reply may come later.
    pub fn ask(&mut self, request: impl Into<Request>) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.owed.insert(ticket);
        let request = request.into();
        self.act(|coordinator, env| coordinator.handle(ticket, request, env));
        ticket
    }

    /// Asks what is answered at once.
    pub fn call<C: Call>(&mut self, request: C) -> C::Reply {
        let ticket = self.ask(request);
        self.answer::<C>(ticket).expect("an answer at once")
    }

    /// The answer to an earlier question, if it has come.
    pub fn answer<C: Call>(&mut self, ticket: Ticket) -> Option<C::Reply> {
        self.replies.remove(&ticket).map(|reply| C::reply(reply).expect("a reply of the right kind"))
    }

    pub fn joined(&mut self, ticket: Ticket) -> Option<JoinReply> {
        self.answer::<JoinRequest>(ticket)
    }

    pub fn synced(&mut self, ticket: Ticket) -> Option<SyncReply> {
        self.answer::<SyncRequest>(ticket)
    }

    /// Any answer.
    pub fn take_reply(&mut self, ticket: Ticket) -> Option<Reply> {
        self.replies.remove(&ticket)
    }

    /// Lets time go by, and does what becomes due when it does.
    pub fn pass(&mut self, ms: u64) {
        let end = self.mono_ms + ms;
        while let Some(at) = self.coordinator.next_deadline().filter(|at| *at <= end) {
            self.mono_ms = self.mono_ms.max(at);
            self.act(|coordinator, env| coordinator.tick(env));
        }
        self.mono_ms = end;
    }

    /// The owner goes away with all that it owed, and another one loads what was written.
    pub fn reload(&mut self) {
        self.owed.clear();
        self.loads += 1;
        self.coordinator = replayed(&self.log);
        self.act(|coordinator, env| coordinator.loaded(env));
    }

    /// Lets time go by until all of these joins are answered.
    pub fn all_joined(&mut self, tickets: &[Ticket]) -> Vec<JoinReply> {
        while tickets.iter().any(|ticket| self.owed.contains(ticket)) {
            let next = self.coordinator.next_deadline().expect("nothing would ever answer the joins");
            self.pass(next.saturating_sub(self.mono_ms));
        }
        tickets.iter().map(|ticket| self.joined(*ticket).expect("joined")).collect()
    }

    pub fn state(&self, group: &str) -> &'static str {
        match self.coordinator.groups.get(group) {
            Some(Group::Classic(group)) => group.state().name(),
            Some(Group::Consumer(_)) => "consumer group",
            None => "none",
        }
    }

    pub fn has_member(&self, group: &str, member: &str) -> bool {
        match self.coordinator.groups.get(group) {
            Some(Group::Classic(group)) => group.members().contains_key(member),
            _ => false,
        }
    }

    /// Two or more members of one group with their assignments; the first one
    /// leads. Returns their ids.
    pub fn stable(&mut self, group: &str, requests: Vec<JoinRequest>) -> (i32, Vec<String>) {
        let tickets: Vec<Ticket> = requests.into_iter().map(|request| self.ask(request)).collect();
        let replies = self.all_joined(&tickets);
        let ids: Vec<String> = replies.iter().map(|reply| reply.member_id.clone()).collect();
        let generation = replies[0].generation;
        let leader = replies[0].leader.clone();
        let assignments = ids.iter().map(|id| (id.clone(), Bytes::from(format!("for {id}")))).collect();
        self.call(SyncRequest { assignments, ..sync(group, generation, &leader) });
        for id in ids.iter().filter(|id| **id != leader) {
            let reply = self.call(sync(group, generation, id));
            assert_eq!((reply.error, reply.assignment), (ErrorCode::None, Bytes::from(format!("for {id}"))));
        }
        assert_eq!(self.state(group), "Stable");
        (generation, ids)
    }

    pub fn heartbeat(&mut self, group: &str, generation: i32, member: &str) -> ErrorCode {
        let (member_id, group) = (member.to_owned(), group.into());
        self.call(HeartbeatRequest { group, generation, member_id, instance_id: None }).error
    }

    /// The group's offset of a partition as a client sees it; -1: none.
    pub fn offset(&mut self, group: &str, topic: &str, partition: i32) -> i64 {
        let topics = Some(vec![(topic.into(), vec![partition])]);
        let reply = self.call(FetchOffsetsRequest { group: group.into(), member: None, topics, require_stable: true });
        assert_eq!(reply.error, ErrorCode::None);
        reply.topics[0].1[0].offset
    }
}

pub fn replayed(log: &Log) -> Coordinator {
    let mut coordinator = Coordinator::default();
    for (key, value) in log {
        coordinator.replay(key, value.as_deref()).expect("what was written can be read");
    }
    coordinator
}

/// A member that joins with its id unknown and is not asked to come back with one.
pub fn join(group: &str, member_id: &str) -> JoinRequest {
    JoinRequest {
        group: group.into(),
        caller: Caller { client_id: "client".into(), client_host: "/127.0.0.1".into() },
        member_id: member_id.into(),
        instance_id: None,
        session_timeout_ms: SESSION_MS,
        rebalance_timeout_ms: REBALANCE_MS,
        protocol_type: "consumer".into(),
        protocols: vec![("range".into(), subscription(&["t"]))],
        requires_known_member: false,
        supports_skipping_assignment: true,
        reason: None,
    }
}

pub fn join_static(group: &str, member_id: &str, instance: &str) -> JoinRequest {
    JoinRequest { instance_id: Some(instance.into()), ..join(group, member_id) }
}

/// With these protocols, of which only the names matter.
pub fn offering(request: JoinRequest, protocols: &[&str]) -> JoinRequest {
    let protocols = protocols.iter().map(|name| ((*name).to_owned(), Bytes::from(format!("as {name}"))));
    JoinRequest { protocols: protocols.collect(), ..request }
}

pub fn sync(group: &str, generation: i32, member: &str) -> SyncRequest {
    SyncRequest {
        group: group.into(),
        generation,
        member_id: member.into(),
        instance_id: None,
        protocol_type: None,
        protocol: None,
        assignments: Vec::new(),
    }
}

/// The leader's sync: each member is given its own id.
pub fn assign(group: &str, generation: i32, leader: &str, members: &[&str]) -> SyncRequest {
    let assignments = members.iter().map(|id| ((*id).to_owned(), Bytes::from(format!("for {id}")))).collect();
    SyncRequest { assignments, ..sync(group, generation, leader) }
}

pub fn leave(group: &str, members: &[(&str, Option<&str>)]) -> LeaveRequest {
    let members = members.iter().map(|(member_id, instance)| LeavingMember {
        member_id: (*member_id).into(),
        instance_id: instance.map(str::to_owned),
        reason: None,
    });
    LeaveRequest { group: group.into(), members: members.collect() }
}

pub fn commit(group: &str, generation: i32, member: &str, offsets: &[(&str, i32, i64)]) -> CommitRequest {
    let topics = offsets.iter().map(|(topic, index, offset)| CommitTopic {
        name: (*topic).into(),
        id: Uuid::nil(),
        partitions: vec![CommitPartition { index: *index, offset: *offset, leader_epoch: 7, metadata: "m".into() }],
    });
    CommitRequest {
        group: group.into(),
        generation,
        member_id: member.into(),
        instance_id: None,
        retention_ms: None,
        knows_member_epochs: true,
        producer: None,
        topics: topics.collect(),
    }
}

/// The one error of all partitions.
pub fn error_of(reply: &CommitReply) -> ErrorCode {
    let errors: Vec<ErrorCode> = reply.topics.iter().flat_map(|topic| topic.partitions.iter().map(|p| p.1)).collect();
    assert!(errors.windows(2).all(|pair| pair[0] == pair[1]), "{errors:?}");
    errors[0]
}

/// Metadata of a consumer, as clients write it.
pub fn subscription(topics: &[&str]) -> Bytes {
    let mut out = vec![0, 1];
    out.extend((topics.len() as i32).to_be_bytes());
    for topic in topics {
        out.extend((topic.len() as i16).to_be_bytes());
        out.extend(topic.as_bytes());
    }
    out.extend((-1i32).to_be_bytes());
    Bytes::from(out)
}

pub fn group_id(group: &str) -> GroupId {
    Arc::from(group)
}

/// A die that falls the same way each time (splitmix64).
pub struct Die(pub u64);

impl Die {
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.roll(of.len() as u64) as usize]
    }
}
