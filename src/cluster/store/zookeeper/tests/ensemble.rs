//! The engine is what every engine of the store has to be, on one server and on
//! three of which one dies.

use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;

use super::servers::{PATIENCE, Servers, jars, open, settings, settle, shell, wait_until};
use crate::cluster::store::commit::{Commit, Lifetime, Outcome, Write};
use crate::cluster::store::conformance::{self, Bench, Die, partition_key, partition_state, whole_topic};
use crate::cluster::store::engine::{CommitId, Event, Session, Store};
use crate::cluster::store::mirror::Mirror;
use crate::cluster::store::records::{BrokerRecord, Key, Record};
use crate::cluster::store::zookeeper::{RoundTrips, ZooKeeper};
use crate::model::BrokerId;
use crate::runtime::clock;

/// Clients of one chroot.
struct Real {
    connect: String,
    trips: Vec<RoundTrips>,
    _servers: Rc<Servers>,
}

impl Bench for Real {
    type Client = ZooKeeper;

    fn client(&mut self) -> Option<ZooKeeper> {
        let client = open(&self.connect);
        self.trips.push(client.round_trips());
        Some(client)
    }

    fn settle(&mut self) {
        settle(&self.trips);
    }
}

fn passes_the_suite(servers: Servers) {
    let servers = Rc::new(servers);
    let mut case = 0;
    conformance::all(|| {
        case += 1;
        let connect = format!("{}/suite/{case}", servers.connect());
        Real { connect, trips: Vec::new(), _servers: servers.clone() }
    });
}

#[test]
fn one_server_passes_the_suite() {
    if let Some(jars) = jars() {
        passes_the_suite(Servers::start(&jars, 1, &[]));
    }
}

#[test]
fn three_servers_pass_the_suite() {
    if let Some(jars) = jars() {
        passes_the_suite(Servers::start(&jars, 3, &[]));
    }
}

/// A client that counts upwards in one partition's state.
struct Counter {
    client: ZooKeeper,
    mirror: Mirror,
    under_way: Option<CommitId>,
    done: i32,
    unknown: i32,
    connections: i32,
    highest: i32,
}

impl Counter {
    fn new(connect: &str) -> Counter {
        let client = open(connect);
        let mirror = Mirror::default();
        Counter { client, mirror, under_way: None, done: 0, unknown: 0, connections: 0, highest: 0 }
    }

    fn version(&self) -> Option<i32> {
        self.mirror.node(&partition_key("a", 0)).map(|node| node.version)
    }

    /// Takes all events.
    fn poll(&mut self) {
        while let Some(event) = self.client.poll() {
            self.mirror.take(&event);
            match event {
                Event::Session(Session::Connected) => {
                    self.connections += 1;
                    self.client.load();
                }
                Event::Session(session) => assert_eq!(session, Session::Suspended, "no session ends"),
                Event::Settled { id, outcome, .. } => {
                    assert_eq!(self.under_way.take(), Some(id), "one outcome for each");
                    match outcome {
                        Outcome::Done => self.done += 1,
                        Outcome::Unknown => self.unknown += 1,
                        Outcome::Conflict(_) => {}
                        Outcome::Failed(why) => unreachable!("{why}"),
                    }
                }
                Event::Loaded(_) | Event::Changed(_) => {
                    let version = self.version().unwrap_or_default();
                    assert!(version >= self.highest, "{version} after {}", self.highest);
                    self.highest = version;
                }
            }
        }
    }

    fn step(&mut self) {
        self.poll();
        let version = self.version().filter(|_| self.under_way.is_none() && self.mirror.is_whole());
        if let Some(version) = version {
            let write = Write::Set(partition_key("a", 0), partition_state(version + 1), version);
            self.under_way = Some(self.client.commit(Commit { checks: vec![], writes: vec![write] }));
        }
    }
}

#[test]
fn servers_that_die_one_after_the_other_lose_nothing() {
    let Some(jars) = jars() else { return };
    let mut servers = Servers::start(&jars, 3, &[]);
    let connect = format!("{}/chaos", servers.connect());
    let mut counters = [Counter::new(&connect), Counter::new(&connect)];
    let first = Commit { checks: vec![], writes: whole_topic("a", 1, 1) };
    counters[0].under_way = Some(counters[0].client.commit(first));
    let count = |counters: &mut [Counter; 2], more: i32| {
        let aim = counters.each_ref().map(|counter| counter.highest).into_iter().max().unwrap_or_default() + more;
        wait_until("commits are carried out", || {
            counters.iter_mut().for_each(Counter::step);
            counters.iter().all(|counter| counter.highest >= aim)
        });
    };
    for round in 0..6 {
        count(&mut counters, 20);
        servers.kill(round % 3);
        count(&mut counters, 20);
        servers.start_one(round % 3);
        wait_until("the server is back", || {
            counters.iter_mut().for_each(Counter::step);
            servers.serves(round % 3)
        });
    }
    count(&mut counters, 20);
    settle(&counters.each_ref().map(|counter| counter.client.round_trips()));
    counters.iter_mut().for_each(Counter::poll);
    let [a, b] = &counters;
    assert_eq!(a.mirror.nodes(), b.mirror.nodes());
    // The first commit made the node and is no change of it.
    let (done, unknown, version) = (a.done + b.done - 1, a.unknown + b.unknown, a.version().expect("it is there"));
    let range = done..=done + unknown;
    assert!(range.contains(&version), "{version} changes, {done} done, {unknown} unknown");
    assert_eq!(a.mirror.nodes()[&partition_key("a", 0)].record, partition_state(version));
    assert!(a.connections + b.connections > 2, "each kill that somebody is connected to is noticed");
    let mut anew = Counter::new(&connect);
    wait_until("everything is read", || {
        anew.poll();
        anew.mirror.is_whole()
    });
    assert_eq!(anew.mirror.nodes(), a.mirror.nodes());
    assert_eq!(a.client.missed() + b.client.missed(), 0, "changes without an event");
    eprintln!("{done} done, {unknown} unknown, {} connections", a.connections + b.connections);
}

#[test]
fn many_commits_at_once_are_carried_out_in_their_order() {
    let Some(jars) = jars() else { return };
    let servers = Servers::start(&jars, 1, &[]);
    let (mut client, mut mirror) = (open(&servers.connect()), Mirror::default());
    client.load();
    let partitions = 200;
    client.commit(Commit { checks: vec![], writes: whole_topic("a", 1, partitions) });
    let mut die = Die(3);
    let mut versions: BTreeMap<usize, i32> = BTreeMap::new();
    for _ in 0..3000 {
        let at = die.below(partitions);
        let version = versions.entry(at).or_default();
        let write = Write::Set(partition_key("a", at as i32), partition_state(*version + 1), *version);
        *version += 1;
        client.commit(Commit { checks: vec![], writes: vec![write] });
    }
    settle(&[client.round_trips()]);
    let mut settled = 0;
    while let Some(event) = client.poll() {
        mirror.take(&event);
        if let Event::Settled { id, outcome, .. } = event {
            settled += 1;
            assert_eq!((id, outcome), (CommitId(settled), Outcome::Done));
        }
    }
    assert_eq!(settled, 3001);
    for (at, version) in versions {
        assert_eq!(mirror.nodes()[&partition_key("a", at as i32)].version, version);
    }
    assert_eq!(client.missed(), 0);
}

#[test]
fn ten_thousand_partitions_are_read_at_the_start_and_as_they_come() {
    let Some(jars) = jars() else { return };
    let servers = Servers::start(&jars, 1, &[]);
    let mut clients = [Counter::new(&servers.connect()), Counter::new(&servers.connect())];
    clients.iter_mut().for_each(Counter::poll);
    let begin = clock::now();
    for topic in 0..50 {
        let writes = whole_topic(&format!("t{topic}"), topic + 1, 200);
        clients[0].client.commit(Commit { checks: vec![], writes });
    }
    settle(&clients.each_ref().map(|counter| counter.client.round_trips()));
    let made = begin.elapsed();
    let mut mirrors = clients.each_ref().map(|counter| counter.mirror.clone());
    for (counter, mirror) in clients.iter_mut().zip(&mut mirrors) {
        while let Some(event) = counter.client.poll() {
            mirror.take(&event);
        }
        assert!(mirror.is_whole());
        assert_eq!(mirror.nodes().keys().filter(|key| matches!(key, Key::Partition(..))).count(), 10_000);
    }
    let begin = clock::now();
    let mut late = Counter::new(&servers.connect());
    late.poll();
    settle(&[late.client.round_trips()]);
    late.poll();
    eprintln!("10,000 partitions: made and seen in {made:?}, read in {:?}", begin.elapsed());
    assert_eq!(late.mirror.nodes(), mirrors[1].nodes());
    assert_eq!(clients.iter().map(|counter| counter.client.missed()).sum::<u64>(), 0);
}

#[test]
fn registrations_are_seen_by_the_shell() {
    let Some(jars) = jars() else { return };
    let servers = Servers::start(&jars, 1, &[]);
    let connect = format!("{}/kafka", servers.connect());
    let mut clients: Vec<ZooKeeper> = Vec::new();
    for id in [1, 2, 3] {
        let client = ZooKeeper::open(settings(&connect, id), Box::new(|| {})).expect("a session");
        clients.push(client);
    }
    for (client, id) in clients.iter_mut().zip(1..) {
        let record = Record::Broker(BrokerRecord::new(vec![], None));
        let write = Write::Create(Key::Broker(BrokerId(id)), record, Lifetime::Ephemeral);
        client.commit(Commit { checks: vec![], writes: vec![write] });
        assert!(client.round_trips().wait(PATIENCE));
    }
    let listing = |wanted: &str| {
        let text = shell(Path::new(&jars), servers.address(0), "ls /kafka/brokers/ids\n");
        assert!(text.contains(wanted), "{text}");
    };
    listing("[1, 2, 3]");
    clients[1].close();
    assert!(clients[1].round_trips().wait(PATIENCE));
    listing("[1, 3]");
}
