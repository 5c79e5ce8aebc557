//! Connections that break, sessions that end, and ensembles that cannot be used.

use std::thread;
use std::time::Duration;

use super::servers::{Held, PATIENCE, Proxy, Servers, jars, open, settings, shell, wait_until};
use crate::cluster::store::commit::{Commit, Lifetime, Outcome, Write};
use crate::cluster::store::conformance::{partition_key, partition_state, whole_topic};
use crate::cluster::store::engine::{Event, Session, Store};
use crate::cluster::store::mirror::Mirror;
use crate::cluster::store::records::{Key, Record};
use crate::cluster::store::zookeeper::{OpenError, Settings, ZooKeeper};
use crate::model::BrokerId;

struct Client {
    store: ZooKeeper,
    mirror: Mirror,
    sessions: Vec<Session>,
    outcomes: Vec<Outcome>,
}

impl Client {
    fn new(store: ZooKeeper) -> Client {
        Client { store, mirror: Mirror::default(), sessions: Vec::new(), outcomes: Vec::new() }
    }

    /// Takes all events, and loads after each connection.
    fn poll(&mut self) {
        while let Some(event) = self.store.poll() {
            self.mirror.take(&event);
            match event {
                Event::Session(session) => {
                    self.sessions.push(session);
                    if session == Session::Connected {
                        self.store.load();
                    }
                }
                Event::Settled { outcome, .. } => self.outcomes.push(outcome),
                Event::Loaded(_) | Event::Changed(_) => {}
            }
        }
    }

    fn wait(&mut self, what: &str, mut is_so: impl FnMut(&Client) -> bool) {
        wait_until(what, || {
            self.poll();
            is_so(self)
        });
    }

    fn wait_for_session(&mut self, session: Session) {
        self.wait(&format!("{session:?}"), |client| client.store.session() == session);
    }

    fn commit(&mut self, writes: Vec<Write>) {
        self.store.commit(Commit { checks: vec![], writes });
    }

    /// The outcome of one commit.
    fn outcome(&mut self, writes: Vec<Write>) -> Outcome {
        let before = self.outcomes.len();
        self.commit(writes);
        self.wait("an outcome", |client| client.outcomes.len() > before);
        self.outcomes.remove(before)
    }

    fn epoch(&self) -> Option<Record> {
        self.mirror.node(&partition_key("a", 0)).map(|node| node.record.clone())
    }

    fn controller(&self) -> Option<Record> {
        self.mirror.node(&Key::Controller).map(|node| node.record.clone())
    }
}

fn set(epoch: i32, version: i32) -> Vec<Write> {
    vec![Write::Set(partition_key("a", 0), partition_state(epoch), version)]
}

fn controller() -> Vec<Write> {
    vec![Write::Create(Key::Controller, Record::Controller(BrokerId(1)), Lifetime::Ephemeral)]
}

/// A client behind a proxy, and one that is not. The topic `a` is there.
fn pair(servers: &Servers, session_timeout: Duration) -> (Proxy, Client, Client) {
    let proxy = Proxy::to(servers.address(0));
    let store = ZooKeeper::open(Settings { session_timeout, ..settings(&proxy.connect(), 1) }, Box::new(|| {}));
    let (mut cut, mut direct) = (Client::new(store.expect("a session")), Client::new(open(&servers.connect())));
    for client in [&mut cut, &mut direct] {
        client.wait("everything", |client| client.mirror.is_whole());
    }
    assert_eq!(direct.outcome(whole_topic("a", 1, 1)), Outcome::Done);
    cut.wait("the topic", |client| client.epoch().is_some());
    (proxy, cut, direct)
}

#[test]
fn changes_behind_a_cut_are_read_before_anything_else_is_told() {
    let Some(jars) = jars() else { return };
    let servers = Servers::start(&jars, 1, &[]);
    let (proxy, mut cut, mut direct) = pair(&servers, Duration::from_secs(10));
    for round in 0..5 {
        proxy.cut();
        cut.wait_for_session(Session::Suspended);
        assert!(!cut.mirror.is_whole());
        assert_eq!(direct.outcome(set(2 * round + 1, 2 * round)), Outcome::Done);
        cut.poll();
        assert_eq!(cut.epoch(), Some(partition_state(2 * round)), "as it was");
        let refused = cut.outcome(set(99, 2 * round));
        assert_eq!(refused, Outcome::Unknown, "at once, without a connection");
        proxy.mend();
        cut.wait("everything again", |client| client.mirror.is_whole());
        assert_eq!(cut.epoch(), Some(partition_state(2 * round + 1)));
        // The watches are there again.
        assert_eq!(direct.outcome(set(2 * round + 2, 2 * round + 1)), Outcome::Done);
        cut.wait("a change", |client| client.epoch() == Some(partition_state(2 * round + 2)));
    }
    assert!(!cut.sessions.contains(&Session::Expired));
    assert_eq!(cut.store.missed() + direct.store.missed(), 0, "changes without an event");
}

#[test]
fn a_commit_under_a_cut_is_unknown_whether_it_was_carried_out_or_not() {
    let Some(jars) = jars() else { return };
    let servers = Servers::start(&jars, 1, &[]);
    let (proxy, mut cut, mut direct) = pair(&servers, Duration::from_secs(10));
    // Its answer is lost.
    proxy.hold(Held::Answers);
    cut.commit(set(1, 0));
    direct.wait("the change", |client| client.epoch() == Some(partition_state(1)));
    cut.poll();
    proxy.cut();
    cut.wait("an outcome", |client| !client.outcomes.is_empty());
    assert_eq!(cut.outcomes, [Outcome::Unknown]);
    proxy.mend();
    cut.wait("everything again", |client| client.mirror.is_whole());
    assert_eq!(cut.epoch(), Some(partition_state(1)));
    // The request is lost.
    let kept = proxy.kept();
    proxy.hold(Held::Requests);
    cut.commit(set(2, 1));
    wait_until("the request is on its way", || proxy.kept() > kept);
    proxy.cut();
    cut.wait("an outcome", |client| client.outcomes.len() > 1);
    assert_eq!(cut.outcomes[1], Outcome::Unknown);
    proxy.mend();
    cut.wait("everything again", |client| client.mirror.is_whole());
    let node = cut.mirror.node(&partition_key("a", 0)).expect("it is there");
    assert_eq!(node.version, if node.record == partition_state(2) { 2 } else { 1 });
    let next = cut.mirror.node(&partition_key("a", 0)).map_or(0, |node| node.version);
    assert_eq!(cut.outcome(set(7, next)), Outcome::Done);
    direct.wait("the change", |client| client.epoch() == Some(partition_state(7)));
}

#[test]
fn a_session_ends_when_a_server_says_so() {
    let Some(jars) = jars() else { return };
    let servers = Servers::start(&jars, 1, &[]);
    let timeout = Duration::from_secs(5);
    let (proxy, mut cut, mut direct) = pair(&servers, timeout);
    assert_eq!(cut.outcome(controller()), Outcome::Done);
    direct.wait("the ephemeral node", |client| client.controller().is_some());
    proxy.cut();
    direct.wait("the end of the session", |client| client.controller().is_none());
    // The client library has given the session up by then.
    thread::sleep(timeout * 2);
    cut.poll();
    assert_eq!(cut.sessions, [Session::Connected, Session::Suspended], "no server has said anything");
    assert_eq!(cut.controller(), Some(Record::Controller(BrokerId(1))));
    proxy.mend();
    cut.wait_for_session(Session::Expired);
    assert_eq!(cut.outcome(set(1, 0)), Outcome::Unknown);
    cut.store.renew();
    cut.wait("everything", |client| client.mirror.is_whole());
    assert_eq!(cut.controller(), None);
    assert_eq!(cut.outcome(controller()), Outcome::Done);
    assert_eq!(cut.sessions[2..], [Session::Expired, Session::Connected]);
}

/// Sessions begin anew with a server that comes up, so one may outlast what the client
/// library takes for its end.
#[test]
fn a_session_that_outlives_the_librarys_patience_goes_on() {
    let Some(jars) = jars() else { return };
    let mut servers = Servers::start(&jars, 1, &[]);
    let timeout = Duration::from_secs(8);
    let (_proxy, mut client, _) = pair(&servers, timeout);
    assert_eq!(client.outcome(controller()), Outcome::Done);
    servers.kill(0);
    client.wait_for_session(Session::Suspended);
    thread::sleep(timeout * 8 / 5);
    client.poll();
    assert_eq!(client.sessions, [Session::Connected, Session::Suspended]);
    servers.start_one(0);
    client.wait("everything again", |client| client.mirror.is_whole());
    assert_eq!(client.sessions, [Session::Connected, Session::Suspended, Session::Connected]);
    assert_eq!(client.controller(), Some(Record::Controller(BrokerId(1))));
    assert_eq!(client.outcome(set(1, 0)), Outcome::Done);
}

#[test]
fn ensembles_that_cannot_be_used_are_refused_by_name() {
    let Some(jars) = jars() else { return };
    let refused = |settings: Settings| ZooKeeper::open(settings, Box::new(|| {})).err();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").to_string();
    let brief = Settings { connection_timeout: Duration::from_millis(700), ..settings(&nobody, 1) };
    let error = refused(brief).expect("nobody is there");
    assert_eq!(error, OpenError::Unreachable { servers: nobody.clone(), waited_ms: 700 });
    let text = error.to_string();
    assert!(text.contains(&nobody) && text.contains("zookeeper.connection.timeout.ms"), "{text}");

    let servers = Servers::start(&jars, 1, &[]);
    let connect = servers.connect();
    drop(open(&format!("{connect}/newer")));
    drop(open(&format!("{connect}/damaged")));
    drop(open(&format!("{connect}/closed")));
    let commands = "set /newer/corelane/format {\"version\":9,\"oldest_reader\":9}\n\
                    create /damaged/controller_epoch x\n\
                    create /closed/brokers/topics/a x digest:a:b:r\n";
    shell(std::path::Path::new(&jars), servers.address(0), commands);
    let newer = refused(settings(&format!("{connect}/newer"), 1)).expect("it is newer").to_string();
    assert!(newer.contains("/corelane/format is of version 9"), "{newer}");
    let damaged = refused(settings(&format!("{connect}/damaged"), 1)).expect("it is damaged").to_string();
    assert!(damaged.contains("/controller_epoch is damaged"), "{damaged}");
    let closed = refused(settings(&format!("{connect}/closed"), 1)).expect("it is not to be read");
    let forbidden = OpenError::Forbidden { what: "read", path: "/closed/brokers/topics/a".to_owned() };
    assert_eq!(closed, forbidden);
}

#[test]
fn servers_that_ask_for_authentication_are_refused_by_name() {
    let Some(jars) = jars() else { return };
    let options = ["-Dzookeeper.enforce.auth.enabled=true", "-Dzookeeper.enforce.auth.schemes=digest"];
    let servers = Servers::start(&jars, 1, &options);
    let error = ZooKeeper::open(settings(&servers.connect(), 1), Box::new(|| {})).err();
    assert_eq!(error, Some(OpenError::Authentication { servers: servers.connect() }));
}

#[test]
fn a_store_that_is_dropped_closes_its_session() {
    let Some(jars) = jars() else { return };
    let servers = Servers::start(&jars, 1, &[]);
    // Its session would outlast the test.
    let (_proxy, mut client, mut other) = pair(&servers, 4 * PATIENCE);
    assert_eq!(client.outcome(controller()), Outcome::Done);
    other.wait("the ephemeral node", |other| other.controller().is_some());
    drop(client);
    other.wait("its end", |other| other.controller().is_none());
}
