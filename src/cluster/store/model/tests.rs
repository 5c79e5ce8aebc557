use std::collections::BTreeSet;

use super::*;
use crate::cluster::store::commit::{Check, Lifetime, Write};
use crate::cluster::store::conformance::{self, Bench, Die, partition_key, partition_state, topic_key, whole_topic};
use crate::cluster::store::mirror::Mirror;
use crate::cluster::store::records::Record;
use crate::model::BrokerId;

#[derive(Default)]
struct Calm {
    model: Model,
    clients: Vec<ClientId>,
}

impl Bench for Calm {
    type Client = ModelClient;

    fn client(&mut self) -> Option<ModelClient> {
        let client = self.model.client();
        self.clients.push(client.id());
        Some(client)
    }

    fn settle(&mut self) {
        self.clients.iter().for_each(|client| self.model.connect(*client, self.model.revision()));
        self.model.settle();
    }
}

#[test]
fn the_model_passes_the_suite() {
    conformance::all(Calm::default);
}

/// A client that is connected, and the events that it gets after that.
fn connected(model: &Model) -> ModelClient {
    let mut client = model.client();
    assert!(!model.take(Step::Serve(client.id())));
    model.connect(client.id(), model.revision());
    assert_eq!(client.poll(), Some(Event::Session(Session::Connected)));
    client
}

fn events(client: &mut ModelClient) -> Vec<Event> {
    std::iter::from_fn(|| client.poll()).collect()
}

fn creation(name: &str) -> Commit {
    Commit { checks: vec![], writes: whole_topic(name, 1, 1) }
}

fn change(epoch: i32, version: i32) -> Commit {
    Commit { checks: vec![], writes: vec![Write::Set(partition_key("a", 0), partition_state(epoch), version)] }
}

fn settled(id: CommitId, outcome: Outcome, revision: Option<i64>) -> Event {
    Event::Settled { id, outcome, revision: revision.map(Revision) }
}

fn epoch(model: &Model) -> Option<Record> {
    model.node(&partition_key("a", 0)).map(|node| node.record)
}

#[test]
fn answers_and_changes_come_when_they_are_let() {
    let model = Model::new();
    let (mut a, mut b) = (connected(&model), connected(&model));
    let id = a.commit(creation("a"));
    assert_eq!(model.steps(), [Step::Serve(a.id())]);
    assert!(model.take(Step::Serve(a.id())));
    assert_eq!((events(&mut a), events(&mut b)), (vec![], vec![]), "carried out, and nobody knows");
    assert_eq!(model.steps(), [Step::Answer(a.id()), Step::Show(a.id()), Step::Show(b.id())]);
    assert!(model.take(Step::Show(b.id())));
    let Some(Event::Changed(shown)) = b.poll() else { unreachable!("b is shown the change before a has its answer") };
    assert_eq!((shown.revision, shown.nodes.len()), (Revision(1), 2));
    assert!(model.take(Step::Answer(a.id())));
    assert_eq!(events(&mut a), [settled(id, Outcome::Done, Some(1))], "an outcome before its change");
    assert!(model.take(Step::Show(a.id())) && !model.take(Step::Show(a.id())));
    assert_eq!(events(&mut a), [Event::Changed(shown)]);
}

#[test]
fn several_changes_are_shown_as_one() {
    let model = Model::new();
    let (mut a, mut b) = (connected(&model), connected(&model));
    for commit in [creation("a"), change(1, 0), change(2, 1)] {
        a.commit(commit);
        model.serve(a.id(), model.revision());
    }
    assert!(model.show(b.id(), 5));
    let all = events(&mut b);
    let [Event::Changed(changes)] = &all[..] else { unreachable!("one event: {all:?}") };
    assert_eq!(changes.revision, Revision(3));
    let state = changes.nodes.iter().find(|(key, _)| *key == partition_key("a", 0)).and_then(|(_, node)| node.clone());
    assert_eq!(state.map(|node| (node.version, node.record)), Some((2, partition_state(2))));
}

#[test]
fn a_load_may_be_behind_and_never_goes_back() {
    let model = Model::new();
    let (mut a, mut b) = (connected(&model), connected(&model));
    for commit in [creation("a"), change(1, 0), change(2, 1), change(3, 2)] {
        a.commit(commit);
        model.serve(a.id(), model.revision());
    }
    let loaded = |client: &mut ModelClient, behind: i64| {
        client.load();
        assert!(model.serve(client.id(), Revision(behind)));
        assert!(!model.take(Step::Show(client.id())), "what follows the load does not overtake it");
        model.answer(client.id());
        let last = events(client).pop();
        let Some(Event::Loaded(snapshot)) = last else { unreachable!("a load: {last:?}") };
        snapshot
    };
    let snapshot = loaded(&mut b, 2);
    assert_eq!((snapshot.revision, snapshot.nodes.len()), (Revision(2), 2));
    assert_eq!(snapshot.nodes[&partition_key("a", 0)].record, partition_state(1));
    assert!(model.show(b.id(), 1));
    assert!(matches!(&events(&mut b)[..], [Event::Changed(changes)] if changes.revision == Revision(3)));
    assert_eq!(loaded(&mut b, 0).revision, Revision(3), "not behind what it has seen");
    while model.answer(a.id()) {}
    assert_eq!(loaded(&mut a, 0).revision, Revision(4), "not behind what it has done");
}

#[test]
fn an_outcome_is_lost_with_the_connection() {
    let model = Model::new();
    let mut a = connected(&model);
    let ids = [creation("a"), change(1, 0), change(2, 1)].map(|commit| a.commit(commit));
    model.take(Step::Serve(a.id()));
    model.disconnect(a.id());
    assert_eq!(a.session(), Session::Connected, "it has not looked yet");
    let unknown = ids.map(|id| settled(id, Outcome::Unknown, None));
    assert_eq!(events(&mut a), [&[Event::Session(Session::Suspended)][..], &unknown].concat());
    assert_eq!((a.session(), epoch(&model)), (Session::Suspended, Some(partition_state(0))), "the first has happened");
    assert_eq!(model.strays(a.id()), 2);
    let never = a.commit(change(9, 0));
    assert_eq!(events(&mut a), [settled(never, Outcome::Unknown, None)]);
    assert_eq!(model.strays(a.id()), 2, "what had no connection never happens");
    // One takes effect after the client is back, the other never.
    model.connect(a.id(), model.revision());
    a.load();
    model.settle();
    assert_eq!(epoch(&model), Some(partition_state(0)));
    assert!(model.land(a.id()));
    assert_eq!(epoch(&model), Some(partition_state(1)));
    model.lose(a.id());
    assert!(!model.land(a.id()));
    model.settle();
    assert_eq!(epoch(&model), Some(partition_state(1)));
    let all = events(&mut a);
    assert!(
        matches!(&all[..], [Event::Session(Session::Connected), Event::Loaded(_), Event::Changed(_)]),
        "changes after the load are shown: {all:?}"
    );
}

#[test]
fn a_stray_conflicts_with_what_came_before_it() {
    let model = Model::new();
    let mut a = connected(&model);
    a.commit(creation("a"));
    model.settle();
    a.commit(change(1, 0));
    model.disconnect(a.id());
    model.connect(a.id(), model.revision());
    a.commit(change(2, 0));
    model.settle();
    assert!(model.land(a.id()));
    assert_eq!(epoch(&model), Some(partition_state(2)), "the versions rule out what was not known");
}

#[test]
fn changes_are_lost_over_a_reconnect() {
    let model = Model::new();
    let (mut a, mut b) = (connected(&model), connected(&model));
    let mut mirror = Mirror::default();
    b.load();
    for commit in [creation("a"), change(1, 0), change(2, 1)] {
        a.commit(commit);
        model.serve(a.id(), model.revision());
    }
    model.disconnect(b.id());
    model.connect(b.id(), Revision(2));
    assert!(model.show(b.id(), 1));
    for event in events(&mut b) {
        assert!(!matches!(&event, Event::Changed(changes) if changes.revision != Revision(3)), "{event:?}");
        mirror.take(&event);
    }
    assert!(mirror.nodes().is_empty() && !mirror.is_whole(), "a change after lost ones makes no picture");
    b.load();
    model.settle();
    events(&mut b).iter().for_each(|event| drop(mirror.take(event)));
    assert_eq!((mirror.nodes(), mirror.is_whole()), (&model.nodes(), true));
}

#[test]
fn a_session_ends_at_the_servers_and_its_client_learns_of_it_later() {
    let model = Model::new();
    let (mut a, mut b) = (connected(&model), connected(&model));
    let register = |broker| Commit {
        checks: vec![],
        writes: vec![Write::Create(Key::Controller, Record::Controller(BrokerId(broker)), Lifetime::Ephemeral)],
    };
    a.commit(register(1));
    a.commit(creation("a"));
    model.settle();
    events(&mut a);
    a.commit(change(1, 0));
    model.disconnect(a.id());
    assert_eq!(model.strays(a.id()), 1);
    assert!(model.node(&Key::Controller).is_some(), "the session lives on");
    model.expire(a.id());
    assert!(model.node(&Key::Controller).is_none());
    assert!(!model.land(a.id()), "what an ended session had under way never happens");
    assert_eq!(events(&mut a).first(), Some(&Event::Session(Session::Suspended)));
    assert_eq!(a.session(), Session::Suspended, "only a server tells the end");
    b.commit(register(2));
    model.settle();
    model.connect(a.id(), model.revision());
    assert_eq!(events(&mut a), [Event::Session(Session::Expired)]);
    model.connect(a.id(), model.revision());
    assert_eq!(events(&mut a), [], "no session before it is asked for");
    a.renew();
    model.connect(a.id(), model.revision());
    assert_eq!(events(&mut a), [Event::Session(Session::Connected)]);
    let id = a.commit(register(1));
    model.serve(a.id(), model.revision());
    model.answer(a.id());
    assert_eq!(events(&mut a), [settled(id, Outcome::Conflict(Key::Controller), Some(3 + 1))]);
    // A connected client whose session ends is cut off first.
    model.expire(b.id());
    assert_eq!(events(&mut b).pop(), Some(Event::Session(Session::Suspended)));
    model.connect(b.id(), model.revision());
    assert_eq!(events(&mut b), [Event::Session(Session::Expired)]);
}

#[test]
fn a_lost_close_leaves_the_session_to_its_timeout() {
    let model = Model::new();
    let mut a = connected(&model);
    let controller = Write::Create(Key::Controller, Record::Controller(BrokerId(1)), Lifetime::Ephemeral);
    a.commit(Commit { checks: vec![Check::Absent(Key::Controller)], writes: vec![controller] });
    model.settle();
    a.close();
    model.disconnect(a.id());
    assert!(model.node(&Key::Controller).is_some());
    model.expire(a.id());
    assert!(model.node(&Key::Controller).is_none());
    // The answer is lost, not the end.
    let mut b = connected(&model);
    b.close();
    model.take(Step::Serve(b.id()));
    model.disconnect(b.id());
    model.connect(b.id(), model.revision());
    let last = events(&mut b).pop();
    assert_eq!(last, Some(Event::Session(Session::Expired)));
}

/// A trace of everything that all clients learn, under faults at every turn.
fn storm(seed: u64) -> Vec<String> {
    let (model, mut die) = (Model::new(), Die(seed));
    let mut clients: Vec<(ModelClient, Mirror, u64)> = Vec::new();
    let (mut trace, mut unsettled) = (Vec::new(), BTreeSet::new());
    for turn in 0..600 {
        if clients.len() < 3 {
            clients.push((model.client(), Mirror::default(), 0));
        }
        let at = die.below(clients.len());
        let id = clients[at].0.id();
        let behind = Revision(die.below(model.revision().0 as usize + 1) as i64);
        match die.below(40) {
            0 => model.disconnect(id),
            1 => model.expire(id),
            2..=5 => model.connect(id, behind),
            6 => drop(model.land(id)),
            7 => model.lose(id),
            8 => clients[at].0.close(),
            9..=14 => {
                let version = die.below(3) as i32;
                let commit = if die.below(3) == 0 { creation("a") } else { change(turn, version) };
                let number = clients[at].0.commit(commit);
                unsettled.insert((id, number));
                clients[at].2 += 1;
            }
            15..=17 => drop(model.serve(id, behind)),
            18..=20 => drop(model.show(id, 1 + die.below(3))),
            _ => {
                let steps = model.steps();
                if !steps.is_empty() {
                    assert!(model.take(steps[die.below(steps.len())]));
                }
            }
        }
        let (client, mirror, _) = &mut clients[at];
        while let Some(event) = client.poll() {
            trace.push(format!("{id:?} {event:?}"));
            mirror.take(&event);
            match event {
                Event::Session(Session::Connected) => client.load(),
                Event::Session(Session::Expired) => client.renew(),
                Event::Settled { id: number, outcome, revision } => {
                    assert!(unsettled.remove(&(id, number)), "a second outcome");
                    assert_eq!(outcome == Outcome::Unknown, revision.is_none());
                }
                _ => {}
            }
            if mirror.is_whole() {
                let then = model.state.borrow().snapshot(mirror.revision().0 as usize);
                assert_eq!(*mirror.nodes(), then.nodes, "a picture that never was");
            }
        }
    }
    // Healed, everybody knows everything.
    for _ in 0..5 {
        for (client, mirror, _) in &mut clients {
            model.connect(client.id(), model.revision());
            model.settle();
            while let Some(event) = client.poll() {
                mirror.take(&event);
                match event {
                    Event::Session(Session::Connected) => client.load(),
                    Event::Session(Session::Expired) => client.renew(),
                    Event::Settled { id: number, .. } => drop(unsettled.remove(&(client.id(), number))),
                    _ => {}
                }
            }
        }
    }
    assert!(unsettled.is_empty(), "each commit has an outcome: {unsettled:?}");
    for (_, mirror, _) in &clients {
        assert_eq!((mirror.nodes(), mirror.is_whole()), (&model.nodes(), true));
        assert_eq!(mirror.revision(), model.revision());
    }
    assert!(model.nodes().contains_key(&topic_key("a")));
    trace
}

#[test]
fn whatever_happens_pictures_are_true_and_the_same_calls_give_the_same_news() {
    let mut traces = Vec::new();
    for seed in 0..200 {
        let trace = storm(seed);
        assert_eq!(trace, storm(seed));
        traces.push(trace);
    }
    traces.dedup();
    assert_eq!(traces.len(), 200);
}
