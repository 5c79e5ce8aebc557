//! The store in memory, with the faults of a network in between: any number of
//! clients on one state.
//!
//! Nothing happens by itself. The caller takes one [`Step`] after the other, and breaks and makes
//! connections and ends sessions between them; time, chance and order are the caller's, and the
//! same calls give the same results. The servers behind it are those of ZooKeeper:
//! - Commits are carried out one at a time, in one order for everybody.
//! - Requests of one client are carried out in their order, and answered in it.
//! - A client learns of changes in their order. It may be behind by any number of them, and learn
//!   of several at once. Changes that it has not learned of when its connection is lost it never
//!   learns of, except by a load.
//! - A load shows at least what the client has seen before, and what its own commits made.
//! - A request on its way when the connection is lost may be carried out later, also
//!   after the client is connected again, in order with the others on that way; never
//!   after the end of its session.
//! - A session ends only when the caller says so, and its client learns of it
//!   when it is connected next.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use super::commit::{Commit, Node, Outcome};
use super::engine::{Changes, CommitId, Event, Revision, Session, Snapshot, Store};
use super::nodes::{Changed, Nodes, Refused, SessionId};
use super::records::Key;

/// Number of a client among those of a [`Model`], from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub usize);

/// The next thing that can happen without a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// The client's oldest request is carried out.
    Serve(ClientId),
    /// The oldest answer reaches the client.
    Answer(ClientId),
    /// The next change reaches the client.
    Show(ClientId),
    /// The client's oldest stray commit is carried out.
    Land(ClientId),
}

/// The servers of the store.
#[derive(Clone, Debug, Default)]
pub struct Model {
    state: Rc<RefCell<State>>,
}

/// One client's end of a [`Model`].
#[derive(Debug)]
pub struct ModelClient {
    id: ClientId,
    state: Rc<RefCell<State>>,
}

#[derive(Debug)]
enum Request {
    Load,
    Commit(CommitId, Commit),
    Close,
}

#[derive(Debug, Default)]
struct State {
    nodes: Nodes,
    /// All changes, one a revision from 1.
    log: Vec<Changes>,
    sessions: u64,
    clients: Vec<Client>,
}

#[derive(Debug)]
struct Client {
    /// Session at the servers; `None`: not begun, or ended there.
    session: Option<SessionId>,
    connected: bool,
    /// The session has ended, and the client is to learn it with its next connection.
    ended: bool,
    /// As of the last event polled.
    told: Session,
    /// Changes of the log that the client knows, or has lost.
    shown: usize,
    /// Changes of the log that the next load must have.
    floor: usize,
    requests: VecDeque<Request>,
    answers: VecDeque<Event>,
    /// Commits on their way when a connection was lost, and the session of each.
    strays: VecDeque<(SessionId, Commit)>,
    events: VecDeque<Event>,
    last_commit: u64,
}

impl Model {
    pub fn new() -> Model {
        Model::default()
    }

    /// A new client, as of a process that starts. It is suspended until it is
    /// [connected](Model::connect).
    pub fn client(&self) -> ModelClient {
        let mut state = self.state.borrow_mut();
        let id = ClientId(state.clients.len());
        state.clients.push(Client {
            session: None,
            connected: false,
            ended: false,
            told: Session::Suspended,
            shown: 0,
            floor: 0,
            requests: VecDeque::new(),
            answers: VecDeque::new(),
            strays: VecDeque::new(),
            events: VecDeque::new(),
            last_commit: 0,
        });
        ModelClient { id, state: self.state.clone() }
    }

    /// Revision of the newest change.
    pub fn revision(&self) -> Revision {
        self.state.borrow().revision()
    }

    /// All nodes, as of the newest change.
    pub fn nodes(&self) -> BTreeMap<Key, Node> {
        self.state.borrow().nodes.all().clone()
    }

    pub fn node(&self, key: &Key) -> Option<Node> {
        self.state.borrow().nodes.all().get(key).cloned()
    }

    /// All changes so far, one a revision.
    pub fn history(&self) -> Vec<Changes> {
        self.state.borrow().log.clone()
    }

    /// The steps that can be taken now, in a fixed order.
    pub fn steps(&self) -> Vec<Step> {
        let state = self.state.borrow();
        let mut steps = Vec::new();
        for (index, client) in state.clients.iter().enumerate() {
            let id = ClientId(index);
            let is_possible = [
                (Step::Serve(id), client.connected && client.session.is_some() && !client.requests.is_empty()),
                (Step::Answer(id), client.connected && !client.answers.is_empty()),
                (Step::Show(id), client.can_be_shown(state.log.len())),
                (Step::Land(id), !client.strays.is_empty()),
            ];
            steps.extend(is_possible.into_iter().filter(|(_, possible)| *possible).map(|(step, _)| step));
        }
        steps
    }

    /// Takes a step; `false`: it cannot be taken now.
    pub fn take(&self, step: Step) -> bool {
        match step {
            Step::Serve(client) => self.serve(client, self.revision()),
            Step::Answer(client) => self.answer(client),
            Step::Show(client) => self.show(client, 1),
            Step::Land(client) => self.land(client),
        }
    }

    /// Takes steps until there are none. Strays are left where they are.
    pub fn settle(&self) {
        let next = || self.steps().into_iter().find(|step| !matches!(step, Step::Land(_)));
        while let Some(step) = next() {
            if !self.take(step) {
                return;
            }
        }
    }

    /// Carries out the client's oldest request; the answer is then on its way. `behind`: a load is
    /// answered by a server that has come as far as this, or as far as the client has seen.
    pub fn serve(&self, client: ClientId, behind: Revision) -> bool {
        self.state.borrow_mut().serve(client, behind).is_some()
    }

    /// The oldest answer reaches the client.
    pub fn answer(&self, client: ClientId) -> bool {
        self.state.borrow_mut().connected(client).and_then(Client::take_answer).is_some()
    }

    /// Up to `count` changes reach the client, as one event.
    pub fn show(&self, client: ClientId, count: usize) -> bool {
        self.state.borrow_mut().show(client, count).is_some()
    }

    /// Breaks the client's connection, and has the client see it: it is suspended, learns no
    /// outcome of what it has under way, and loses all changes that it has not been shown.
    pub fn disconnect(&self, client: ClientId) {
        if let Some(client) = self.state.borrow_mut().connected(client) {
            client.disconnect();
        }
    }

    /// Connects the client to a server that has come as far as `at`, or as far as the client has
    /// seen. A session that has ended meanwhile is expired instead; a client without one gets one.
    pub fn connect(&self, client: ClientId, at: Revision) {
        self.state.borrow_mut().connect(client, at);
    }

    /// Ends the client's session, as the servers do when they have not heard of it for its timeout:
    /// its ephemeral nodes go. A connection that it has is lost.
    pub fn expire(&self, client: ClientId) {
        self.disconnect(client);
        self.state.borrow_mut().end_session(client);
    }

    /// Commits of the client that may still take effect.
    pub fn strays(&self, client: ClientId) -> usize {
        self.state.borrow().clients.get(client.0).map_or(0, |client| client.strays.len())
    }

    /// Carries out the client's oldest stray. Nobody is told of its outcome.
    pub fn land(&self, client: ClientId) -> bool {
        self.state.borrow_mut().land(client).is_some()
    }

    /// The client's strays never take effect.
    pub fn lose(&self, client: ClientId) {
        if let Some(client) = self.state.borrow_mut().clients.get_mut(client.0) {
            client.strays.clear();
        }
    }
}

impl State {
    fn revision(&self) -> Revision {
        Revision(self.log.len() as i64)
    }

    fn connected(&mut self, id: ClientId) -> Option<&mut Client> {
        self.clients.get_mut(id.0).filter(|client| client.connected)
    }

    /// Number of changes up to `revision`.
    fn place(&self, revision: Revision) -> usize {
        usize::try_from(revision.0).map_or(0, |place| place.min(self.log.len()))
    }

    /// Everything as of so many changes.
    fn snapshot(&self, place: usize) -> Snapshot {
        let revision = Revision(place as i64);
        if place == self.log.len() {
            return Snapshot { revision, nodes: self.nodes.all().clone() };
        }
        Snapshot { revision, nodes: merged(&self.log[..place]).filter_map(|(key, node)| Some((key, node?))).collect() }
    }

    fn serve(&mut self, id: ClientId, behind: Revision) -> Option<()> {
        let (behind, client) = (self.place(behind), self.connected(id)?);
        let session = client.session?;
        let request = client.requests.pop_front()?;
        match request {
            Request::Load => {
                let at = behind.max(client.shown).max(client.floor);
                client.shown = at;
                let snapshot = self.snapshot(at);
                self.connected(id)?.answers.push_back(Event::Loaded(snapshot));
            }
            Request::Commit(number, commit) => {
                let outcome = self.carry_out(&commit, session);
                let (revision, floor) = (Some(self.revision()), self.log.len());
                let client = self.connected(id)?;
                client.floor = floor;
                client.answers.push_back(Event::Settled { id: number, outcome, revision });
            }
            Request::Close => {
                self.end_session(id);
                self.connected(id)?.answers.push_back(Event::Session(Session::Expired));
            }
        }
        Some(())
    }

    fn carry_out(&mut self, commit: &Commit, session: SessionId) -> Outcome {
        match self.nodes.plan(commit, Revision(self.revision().0 + 1), session) {
            Ok(changed) => {
                self.note(changed);
                Outcome::Done
            }
            Err(Refused::Conflict(key)) => Outcome::Conflict(key),
            Err(Refused::Kind(key)) => Outcome::Failed(format!("{key:?} holds records of another kind")),
        }
    }

    fn note(&mut self, changed: Vec<Changed>) {
        if changed.is_empty() {
            return;
        }
        self.nodes.apply(&changed);
        let nodes = changed.into_iter().map(|(key, node)| (key, node.map(|(node, _)| node))).collect();
        self.log.push(Changes { revision: Revision(self.revision().0 + 1), nodes });
    }

    fn show(&mut self, id: ClientId, count: usize) -> Option<()> {
        let log = std::mem::take(&mut self.log);
        let shown = self.connected(id).and_then(|client| client.take_changes(&log, count));
        self.log = log;
        shown
    }

    fn connect(&mut self, id: ClientId, at: Revision) {
        let (place, newest, session) = (self.place(at), self.log.len(), SessionId(self.sessions + 1));
        let Some(client) = self.clients.get_mut(id.0).filter(|client| !client.connected) else { return };
        if std::mem::take(&mut client.ended) {
            client.events.push_back(Event::Session(Session::Expired));
            return;
        }
        if client.told == Session::Expired || client.expires() {
            // It has not asked for a new session.
            return;
        }
        if client.session.is_none() {
            client.session = Some(session);
            self.sessions += 1;
        }
        client.connected = true;
        client.shown = place.max(client.shown).max(client.floor).min(newest);
        client.events.push_back(Event::Session(Session::Connected));
    }

    /// The session's nodes go, and what it has under way never takes effect.
    fn end_session(&mut self, id: ClientId) {
        let Some(client) = self.clients.get_mut(id.0) else { return };
        let Some(session) = client.session.take() else { return };
        client.ended = true;
        client.strays.retain(|(of, _)| *of != session);
        let changed = self.nodes.plan_end(session);
        self.note(changed);
    }

    fn land(&mut self, id: ClientId) -> Option<()> {
        let (session, commit) = self.clients.get_mut(id.0)?.strays.pop_front()?;
        self.carry_out(&commit, session);
        Some(())
    }
}

impl Client {
    fn can_be_shown(&self, changes: usize) -> bool {
        // Later changes must not overtake a load.
        let loading = self.answers.iter().any(|answer| matches!(answer, Event::Loaded(_)));
        self.connected && !loading && self.shown < changes
    }

    fn take_changes(&mut self, log: &[Changes], count: usize) -> Option<()> {
        if count == 0 || !self.can_be_shown(log.len()) {
            return None;
        }
        let end = self.shown.saturating_add(count).min(log.len());
        let (revision, nodes) = (Revision(end as i64), merged(&log[self.shown..end]).collect());
        self.shown = end;
        self.events.push_back(Event::Changed(Changes { revision, nodes }));
        Some(())
    }

    fn take_answer(&mut self) -> Option<()> {
        let answer = self.answers.pop_front()?;
        if answer == Event::Session(Session::Expired) {
            // The session was closed, and with it the connection.
            self.ended = false;
            self.end_connection();
        }
        self.events.push_back(answer);
        Some(())
    }

    fn disconnect(&mut self) {
        self.events.push_back(Event::Session(Session::Suspended));
        self.end_connection();
    }

    fn end_connection(&mut self) {
        self.connected = false;
        let answered = std::mem::take(&mut self.answers);
        let mut unknown: Vec<CommitId> = Vec::new();
        unknown.extend(answered.iter().filter_map(|answer| match answer {
            Event::Settled { id, .. } => Some(*id),
            _ => None,
        }));
        for request in std::mem::take(&mut self.requests) {
            if let Request::Commit(id, commit) = request {
                unknown.push(id);
                self.strays.extend(self.session.map(|session| (session, commit)));
            }
        }
        self.events.extend(unknown.into_iter().map(unknown_outcome));
    }

    /// The client has yet to poll that its session has expired.
    fn expires(&self) -> bool {
        self.events.contains(&Event::Session(Session::Expired))
    }
}

fn unknown_outcome(id: CommitId) -> Event {
    Event::Settled { id, outcome: Outcome::Unknown, revision: None }
}

/// The last state of each node that changes.
fn merged(changes: &[Changes]) -> impl Iterator<Item = (Key, Option<Node>)> + use<> {
    let all = changes.iter().flat_map(|changes| &changes.nodes);
    all.map(|(key, node)| (key.clone(), node.clone())).collect::<BTreeMap<_, _>>().into_iter()
}

impl ModelClient {
    pub fn id(&self) -> ClientId {
        self.id
    }

    fn with<R: Default>(&self, work: impl FnOnce(&mut Client) -> R) -> R {
        self.state.borrow_mut().clients.get_mut(self.id.0).map_or_else(R::default, work)
    }
}

impl Store for ModelClient {
    fn session(&self) -> Session {
        self.state.borrow().clients.get(self.id.0).map_or(Session::Suspended, |client| client.told)
    }

    fn load(&mut self) {
        self.with(|client| {
            if client.connected {
                client.requests.push_back(Request::Load);
            }
        });
    }

    fn commit(&mut self, commit: Commit) -> CommitId {
        let mut state = self.state.borrow_mut();
        let Some(client) = state.clients.get_mut(self.id.0) else { return CommitId(0) };
        client.last_commit += 1;
        let id = CommitId(client.last_commit);
        match client.connected {
            true => client.requests.push_back(Request::Commit(id, commit)),
            false => client.events.push_back(unknown_outcome(id)),
        }
        id
    }

    fn poll(&mut self) -> Option<Event> {
        self.with(|client| {
            let event = client.events.pop_front()?;
            if let Event::Session(session) = &event {
                client.told = *session;
            }
            Some(event)
        })
    }

    fn renew(&mut self) {
        self.with(|client| {
            if client.told == Session::Expired {
                client.told = Session::Suspended;
            }
        });
    }

    fn close(&mut self) {
        self.with(|client| {
            if client.connected {
                client.requests.push_back(Request::Close);
            }
        });
    }
}

#[cfg(test)]
mod tests;
