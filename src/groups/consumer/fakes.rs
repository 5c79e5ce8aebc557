//! Topics and a clock for tests.

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

use crate::config::{GroupConfig, GroupOptions};
use crate::coordinator::Ticket;
use crate::groups::api::{Call, Caller, ConsumerHeartbeatReply, ConsumerHeartbeatRequest, Reply, Request};
use crate::groups::coordinator::Coordinator;
use crate::groups::env::{Effects, Env, Room, TopicFacts, Topics};
use crate::groups::record::Record;

#[derive(Clone, Debug, Default)]
pub(in crate::groups) struct FakeTopics {
    topics: BTreeMap<Arc<str>, TopicFacts>,
    version: u64,
}

impl FakeTopics {
    pub(in crate::groups) fn of(topics: &[(&str, i32)]) -> FakeTopics {
        let mut fake = FakeTopics::default();
        topics.iter().for_each(|(name, partitions)| fake.set(name, *partitions));
        fake
    }

    /// Makes a topic, or grows it.
    pub(in crate::groups) fn set(&mut self, name: &str, partitions: i32) {
        self.version += 1;
        let id = Uuid::from_u64_pair(1, self.version);
        let fresh = TopicFacts { name: name.into(), id, partitions };
        self.topics.entry(name.into()).or_insert(fresh).partitions = partitions;
    }

    pub(in crate::groups) fn remove(&mut self, name: &str) {
        self.version += 1;
        self.topics.remove(name);
    }

    pub(in crate::groups) fn id(&self, name: &str) -> Uuid {
        self.topics[name].id
    }
}

impl Topics for FakeTopics {
    fn by_name(&self, name: &str) -> Option<TopicFacts> {
        self.topics.get(name).cloned()
    }

    fn by_id(&self, id: Uuid) -> Option<TopicFacts> {
        self.topics.values().find(|topic| topic.id == id).cloned()
    }

    fn all(&self) -> Vec<TopicFacts> {
        self.topics.values().cloned().collect()
    }

    fn version(&self) -> u64 {
        self.version
    }
}

/// A coordinator with its world. Every record is encoded, and decoded again into `log`.
pub(in crate::groups) struct World {
    pub coordinator: Coordinator,
    pub topics: FakeTopics,
    pub config: GroupConfig,
    pub own: GroupOptions,
    pub now_ms: u64,
    pub log: Vec<Record>,
    pub replies: BTreeMap<Ticket, Vec<Reply>>,
    next: u64,
}

impl World {
    pub(in crate::groups) fn of(topics: &[(&str, i32)]) -> World {
        World {
            coordinator: Coordinator::default(),
            topics: FakeTopics::of(topics),
            config: GroupConfig::default(),
            own: GroupOptions::default(),
            now_ms: 1000,
            log: Vec::new(),
            replies: BTreeMap::new(),
            next: 0,
        }
    }

    /// Calls the coordinator and takes in what comes of it.
    pub(in crate::groups) fn call<T>(&mut self, call: impl FnOnce(&mut Coordinator, &mut Env) -> T) -> T {
        let mut ids = self.next << 32;
        let mut new_id = || {
            ids += 1;
            Uuid::from_u64_pair(2, ids)
        };
        self.next += 1;
        let mut env = Env {
            wall_ms: self.now_ms as i64 + 1_000_000,
            mono_ms: self.now_ms,
            config: &self.config,
            own: &self.own,
            topics: &self.topics,
            room: Room::UNLIMITED,
            new_id: &mut new_id,
            out: Effects::default(),
        };
        let result = call(&mut self.coordinator, &mut env);
        self.coordinator.assert_counted();
        let out = env.out;
        for record in out.records {
            let (key, value) = record.encode();
            let read = Record::decode(&key, value.as_deref()).unwrap().unwrap();
            assert_eq!(read, record);
            self.log.push(read);
        }
        for (ticket, reply) in out.replies {
            self.replies.entry(ticket).or_default().push(reply);
        }
        result
    }

    pub(in crate::groups) fn ticket(&mut self) -> Ticket {
        self.next += 1;
        Ticket(self.next)
    }

    /// The one reply to a ticket, which must be there.
    pub(in crate::groups) fn reply(&mut self, ticket: Ticket) -> Reply {
        let mut replies = self.replies.remove(&ticket).unwrap_or_default();
        assert_eq!(replies.len(), 1, "replies to {ticket:?}: {replies:?}");
        replies.remove(0)
    }

    /// A request that is answered at once.
    pub(in crate::groups) fn ask<C: Call>(&mut self, request: C) -> C::Reply {
        let ticket = self.send(request);
        C::reply(self.reply(ticket)).unwrap()
    }

    /// A request that may have to wait.
    pub(in crate::groups) fn send(&mut self, request: impl Into<Request>) -> Ticket {
        let ticket = self.ticket();
        self.call(|coordinator, env| coordinator.handle(ticket, request.into(), env));
        ticket
    }

    pub(in crate::groups) fn heartbeat(&mut self, request: ConsumerHeartbeatRequest) -> ConsumerHeartbeatReply {
        self.ask(request)
    }

    /// Another broker takes over.
    pub(in crate::groups) fn restart(&mut self) {
        self.coordinator = self.reloaded();
        self.call(|coordinator, env| coordinator.loaded(env));
    }

    /// Time goes by; what is due is done.
    pub(in crate::groups) fn pass(&mut self, ms: u64) {
        let end = self.now_ms + ms;
        while let Some(due) = self.coordinator.next_deadline().filter(|due| *due <= end) {
            self.now_ms = self.now_ms.max(due);
            self.call(|coordinator, env| coordinator.tick(env));
        }
        self.now_ms = end;
    }

    /// A coordinator that has read `log`.
    pub(in crate::groups) fn reloaded(&mut self) -> Coordinator {
        let mut coordinator = Coordinator::default();
        for record in &self.log {
            let (key, value) = record.encode();
            coordinator.replay(&key, value.as_deref()).unwrap();
        }
        coordinator
    }
}

/// A heartbeat that says nothing but who it is from.
pub(in crate::groups) fn beat(member: &str, epoch: i32) -> ConsumerHeartbeatRequest {
    ConsumerHeartbeatRequest {
        group: "g".into(),
        caller: Caller { client_id: "client".into(), client_host: "/127.0.0.1".into() },
        member_id: member.into(),
        member_epoch: epoch,
        instance_id: None,
        rack_id: None,
        rebalance_timeout_ms: -1,
        subscribed_topics: None,
        subscribed_regex: None,
        assignor: None,
        owned: None,
    }
}

/// A first heartbeat.
pub(in crate::groups) fn join(member: &str, topics: &[&str]) -> ConsumerHeartbeatRequest {
    ConsumerHeartbeatRequest {
        rebalance_timeout_ms: 60_000,
        subscribed_topics: Some(topics.iter().map(|topic| (*topic).to_owned()).collect()),
        owned: Some(Vec::new()),
        ..beat(member, 0)
    }
}
