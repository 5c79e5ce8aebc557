//! Many members at once that behave like the Java client, over random joins, leaves, crashes,
//! changes of topics and restarts of the coordinator; after every step what must always hold is
//! checked, at the end what must come about.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::embedded::{Subscription, read_assignment, write_subscription};
use super::fakes::{World, beat, join};
use super::group::ConsumerGroup;
use crate::groups::api::{
    Caller, ConsumerHeartbeatReply, ConsumerHeartbeatRequest, HeartbeatRequest, JoinRequest, SyncRequest,
};
use crate::groups::coordinator::{Coordinator, Group};
use crate::groups::env::Topics;
use crate::model::ErrorCode;

type Places = BTreeSet<(Uuid, i32)>;

struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % end.max(1)
    }

    fn one_in(&mut self, chances: usize) -> bool {
        self.below(chances) == 0
    }
}

/// A client: what it consumes, and what it was told to have.
#[derive(Clone, Debug, Default)]
struct Client {
    name: String,
    instance: Option<String>,
    topics: Vec<&'static str>,
    regex: Option<&'static str>,
    epoch: i32,
    has: Places,
    target: Places,
    /// The coordinator does not know yet what it has.
    unsaid: bool,
    /// Says everything with its next heartbeat, because the last one was not answered.
    full: bool,
    /// It no longer runs; until the coordinator has put it out, nobody may have what it had.
    crashed: bool,
    /// It uses the classic protocol, with cooperative rebalancing. Its epoch is the generation.
    classic: bool,
}

impl Client {
    fn request(&self) -> ConsumerHeartbeatRequest {
        let mut owned: BTreeMap<Uuid, Vec<i32>> = BTreeMap::new();
        self.has.iter().for_each(|(topic, partition)| owned.entry(*topic).or_default().push(*partition));
        let owned: Vec<_> = owned.into_iter().collect();
        let mut request = match self.epoch == 0 || self.full {
            true => ConsumerHeartbeatRequest {
                member_epoch: self.epoch,
                owned: Some(owned),
                subscribed_regex: self.regex.map(str::to_owned),
                ..join(&self.name, &self.topics)
            },
            false if self.unsaid => ConsumerHeartbeatRequest { owned: Some(owned), ..beat(&self.name, self.epoch) },
            false => beat(&self.name, self.epoch),
        };
        request.instance_id.clone_from(&self.instance);
        request
    }

    /// Takes up a reply: what must go goes at once, what comes is taken when
    /// nothing has to go any more.
    fn take(&mut self, reply: &ConsumerHeartbeatReply) {
        match reply.error {
            ErrorCode::None => {}
            ErrorCode::UnknownMemberId | ErrorCode::FencedMemberEpoch => {
                (self.epoch, self.full, self.unsaid) = (0, false, false);
                self.has.clear();
                self.target.clear();
                return;
            }
            error => panic!("{} was told {error:?}: {:?}", self.name, reply.message),
        }
        (self.epoch, self.full, self.unsaid) = (reply.member_epoch, false, false);
        if let Some(assignment) = &reply.assignment {
            let partitions =
                assignment.iter().flat_map(|(topic, all)| all.iter().map(|partition| (*topic, *partition)));
            self.target = partitions.collect();
        }
        if self.has != self.target {
            self.unsaid = true;
            self.has.clone_from(&self.target);
        }
    }
}

/// As a client of the classic protocol knows partitions: by name.
type NamedPartitions = Vec<(String, Vec<i32>)>;

impl Client {
    fn join(&self, owned: NamedPartitions) -> JoinRequest {
        let topics = self.topics.iter().map(|topic| (*topic).to_owned()).collect();
        let metadata = write_subscription(3, &Subscription { topics, owned, rack_id: None });
        JoinRequest {
            group: "g".into(),
            caller: Caller::default(),
            member_id: if self.epoch < 0 { String::new() } else { self.name.clone() },
            instance_id: self.instance.clone(),
            session_timeout_ms: 20_000,
            rebalance_timeout_ms: 60_000,
            protocol_type: "consumer".into(),
            protocols: vec![("cooperative-sticky".into(), metadata)],
            requires_known_member: false,
            supports_skipping_assignment: true,
            reason: None,
        }
    }

    /// It is not, or no longer, in the group.
    fn lose_all(&mut self) {
        self.epoch = -1;
        self.has.clear();
        self.target.clear();
    }
}

struct Simulation {
    world: World,
    random: Random,
    clients: Vec<Client>,
    made: usize,
    /// Some clients use the classic protocol.
    with_classic: bool,
}

const TOPICS: [&str; 4] = ["a1", "a2", "b1", "b2"];

impl Simulation {
    fn new(seed: u64, with_classic: bool) -> Simulation {
        let mut world = World::of(&[("a1", 4), ("b1", 3)]);
        world.config.consumer_session_timeout_ms = 20_000;
        // The classic protocol's own groups are not for these clients, which leave
        // assigning to the coordinator.
        world.config.consumer_downgrade = false;
        Simulation { world, random: Random(seed | 1), clients: Vec::new(), made: 0, with_classic }
    }

    fn group<'a>(&self, coordinator: &'a Coordinator) -> Option<&'a ConsumerGroup> {
        match coordinator.groups.get("g")? {
            Group::Consumer(group) => Some(group),
            Group::Classic(_) => None,
        }
    }

    fn add(&mut self) {
        self.made += 1;
        let mut client = Client { name: format!("m{}", self.made), ..Client::default() };
        match self.random.below(6) {
            0 => client.regex = Some("a.*"),
            1 => client.topics = vec!["a1"],
            2 => client.topics = vec!["b1", "a2"],
            _ => client.topics = TOPICS.to_vec(),
        }
        if self.with_classic && client.regex.is_none() && self.random.one_in(2) {
            (client.classic, client.epoch) = (true, -1);
        }
        let instance = format!("i{}", self.random.below(3));
        if self.random.one_in(4) && !self.clients.iter().any(|client| client.instance.as_ref() == Some(&instance)) {
            client.instance = Some(instance);
        }
        self.clients.push(client);
    }

    /// A client of the classic protocol does what is its turn.
    fn classic_turn(&mut self, index: usize) {
        let in_consumer_group = self.group(&self.world.coordinator).is_some_and(|group| !group.is_empty());
        if !in_consumer_group {
            return;
        }
        let client = self.clients[index].clone();
        if client.epoch >= 0 && !client.unsaid {
            let (generation, member_id) = (client.epoch, client.name.clone());
            let instance_id = client.instance.clone();
            match self.world.ask(HeartbeatRequest { group: "g".into(), generation, member_id, instance_id }).error {
                ErrorCode::None => return,
                ErrorCode::RebalanceInProgress => {}
                ErrorCode::UnknownMemberId | ErrorCode::IllegalGeneration => return self.clients[index].lose_all(),
                error => panic!("{error:?}"),
            }
        }
        let mut owned: BTreeMap<String, Vec<i32>> = BTreeMap::new();
        for (topic, partition) in &client.has {
            if let Some(topic) = self.world.topics.by_id(*topic) {
                owned.entry(topic.name.as_ref().to_owned()).or_default().push(*partition);
            }
        }
        let joined = self.world.ask(client.join(owned.into_iter().collect()));
        assert_eq!(joined.error, ErrorCode::None);
        let client = &mut self.clients[index];
        (client.name, client.epoch) = (joined.member_id, joined.generation);
        let request = SyncRequest {
            group: "g".into(),
            generation: client.epoch,
            member_id: client.name.clone(),
            instance_id: client.instance.clone(),
            protocol_type: Some("consumer".into()),
            protocol: Some("cooperative-sticky".into()),
            assignments: Vec::new(),
        };
        let synced = self.world.ask(request);
        let client = &mut self.clients[index];
        client.unsaid = synced.error == ErrorCode::RebalanceInProgress;
        if client.unsaid {
            return;
        }
        assert_eq!(synced.error, ErrorCode::None);
        client.target.clear();
        for (topic, partitions) in read_assignment(&synced.assignment).unwrap().partitions {
            let id = self.world.topics.id(&topic);
            client.target.extend(partitions.into_iter().map(|partition| (id, partition)));
        }
        // It joins again at once when it had to let go of something.
        client.unsaid = !client.has.is_subset(&client.target);
        client.has.clone_from(&client.target);
    }

    /// A heartbeat of a client; a reply may get lost.
    fn beat(&mut self, index: usize, may_lose: bool) {
        if self.clients[index].classic {
            self.classic_turn(index);
            return self.check();
        }
        let request = self.clients[index].request();
        let reply = self.world.heartbeat(request);
        if reply.error == ErrorCode::UnreleasedInstanceId {
            return;
        }
        if may_lose && self.random.one_in(12) {
            self.clients[index].full = true;
        } else {
            self.clients[index].take(&reply);
        }
        self.check();
    }

    fn step(&mut self) {
        match self.random.below(40) {
            0 | 1 if self.clients.len() < 7 => self.add(),
            2 if !self.clients.is_empty() => self.leave(),
            3 if !self.clients.is_empty() => {
                let index = self.random.below(self.clients.len());
                self.clients[index].crashed = true;
            }
            4 => {
                let topic = TOPICS[self.random.below(4)];
                match self.world.topics.by_name(topic) {
                    Some(_) if self.random.one_in(4) => self.world.topics.remove(topic),
                    Some(facts) if facts.partitions < 12 => self.world.topics.set(topic, facts.partitions + 1),
                    Some(_) => {}
                    None => self.world.topics.set(topic, 1 + self.random.below(5) as i32),
                }
            }
            5 => {
                self.world.restart();
            }
            6 => {
                let ms = self.random.below(8000) as u64;
                self.pass(ms);
            }
            7 if !self.clients.is_empty() => {
                let index = self.random.below(self.clients.len());
                let client = &mut self.clients[index];
                client.topics = vec![TOPICS[self.random.below(4)]];
                // An expression is taken back by an empty one.
                client.regex = client.regex.map(|_| "");
                // It would say the new subscription only; saying everything says that too.
                client.full = client.epoch > 0 && !client.classic;
                client.unsaid |= client.classic;
            }
            _ if self.clients.is_empty() => self.add(),
            _ => {
                let index = self.random.below(self.clients.len());
                if !self.clients[index].crashed {
                    self.beat(index, true);
                }
                let ms = self.random.below(300) as u64;
                self.pass(ms);
            }
        }
        self.check();
    }

    fn leave(&mut self) {
        let index = self.random.below(self.clients.len());
        let client = self.clients.remove(index);
        if client.crashed || client.epoch <= 0 || client.classic {
            self.clients.push(client);
            return;
        }
        let back = client.instance.is_some() && self.random.one_in(2);
        let mut request = beat(&client.name, if back { -2 } else { -1 });
        request.instance_id.clone_from(&client.instance);
        let reply = self.world.heartbeat(request);
        // It may have been put out already.
        assert!(matches!(reply.error, ErrorCode::None | ErrorCode::UnknownMemberId), "{reply:?}");
        if back {
            self.made += 1;
            let (topics, regex) = (client.topics, client.regex);
            let name = format!("m{}", self.made);
            self.clients.push(Client { name, instance: client.instance, topics, regex, ..Client::default() });
        }
    }

    /// Time passes; clients that were put out for silence notice it by their own clocks, as the
    /// Java client does by its poll timeout: a session that ended is over on both sides.
    fn pass(&mut self, ms: u64) {
        self.world.pass(ms);
        let known: BTreeSet<String> = match self.group(&self.world.coordinator) {
            Some(group) => group.members.keys().map(|id| id.as_ref().to_owned()).collect(),
            None => BTreeSet::new(),
        };
        for client in self.clients.iter_mut().filter(|client| client.epoch > 0 && !known.contains(&client.name)) {
            client.has.clear();
            if client.classic {
                client.lose_all();
            }
        }
        self.clients.retain(|client| !client.crashed || known.contains(&client.name));
    }

    fn check(&mut self) {
        let mut seen = Places::new();
        for client in &self.clients {
            for place in &client.has {
                assert!(seen.insert(*place), "{place:?} is consumed by two");
            }
        }
        let Some(group) = self.group(&self.world.coordinator) else { return };
        let mut held = Places::new();
        for member in group.members.values() {
            member.held().for_each(|place| assert!(held.insert(place), "{place:?} was given to two"));
        }
        // Reading the whole log again takes its time.
        if !self.random.one_in(10) {
            return;
        }
        let live = group.as_logged();
        let again = self.world.reloaded();
        let replayed = self.group(&again).unwrap().as_logged();
        assert_eq!(replayed, live, "what was replayed is not what is");
    }

    /// Left alone, everybody comes to have what is theirs, within a few heartbeats.
    fn settle(&mut self) {
        for _ in 0..16 {
            for index in 0..self.clients.len() {
                if self.clients.get(index).is_some_and(|client| !client.crashed) {
                    self.beat(index, false);
                }
            }
            self.pass(3000);
        }
        let Some(group) = self.group(&self.world.coordinator) else { panic!("no consumer group") };
        assert_eq!(group.state_name(), if self.clients.is_empty() { "Empty" } else { "Stable" });
        let subscribed = |client: &Client, topic: &str| {
            client.topics.contains(&topic) || client.regex == Some("a.*") && topic.starts_with('a')
        };
        let mut loads = BTreeMap::new();
        for client in &self.clients {
            assert_eq!(client.has, client.target, "{client:?}");
            assert!(client.has.iter().all(|(topic, _)| {
                self.world.topics.by_id(*topic).is_some_and(|topic| subscribed(client, &topic.name))
            }));
            loads.insert(client.name.clone(), client.has.len());
        }
        for topic in self.world.topics.all() {
            for partition in 0..topic.partitions {
                let owner = self.clients.iter().find(|client| client.has.contains(&(topic.id, partition)));
                let mut wanting = self.clients.iter().filter(|client| subscribed(client, &topic.name));
                assert_eq!(owner.is_some(), wanting.clone().next().is_some(), "{}-{partition}", topic.name);
                if let Some(owner) = owner {
                    assert!(wanting.all(|other| loads[&owner.name] <= loads[&other.name] + 1), "{loads:?}");
                }
            }
        }
    }
}

fn run(seed: u64, with_classic: bool) {
    let mut simulation = Simulation::new(seed * 0x9e37_79b9, with_classic);
    for _ in 0..160 {
        simulation.step();
    }
    if !simulation.clients.iter().any(|client| !client.classic && !client.crashed) {
        simulation.clients.push(Client { name: "last".into(), topics: TOPICS.to_vec(), ..Client::default() });
    }
    simulation.settle();
    // Nothing more is written once all is well.
    let written = simulation.world.log.len();
    for index in 0..simulation.clients.len() {
        simulation.beat(index, false);
    }
    assert_eq!(simulation.world.log.len(), written);
}

#[test]
fn members_come_and_go() {
    (1..50).for_each(|seed| run(seed, false));
}

#[test]
fn members_of_both_protocols_come_and_go() {
    (1..50).for_each(|seed| run(seed, true));
}
