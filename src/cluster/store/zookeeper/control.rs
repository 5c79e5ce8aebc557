//! The control thread: one session, its requests and its watches, and the copy of
//! the tree that they keep.

use std::collections::{BTreeSet, VecDeque};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::task::{Context, Poll};

use tokio::sync::mpsc::UnboundedReceiver;
use zookeeper_client::{Error, EventType, SessionInfo, SessionState};

use super::client::Bell;
use super::connect::{self, Failure, Link};
use super::pipeline::{Answer, Found, Pipeline};
use super::plan::plan;
use super::settings::{OpenError, Settings};
use super::tree::{Read, Tree, What};
use crate::cluster::store::commit::{Commit, Outcome};
use crate::cluster::store::engine::{CommitId, Event, Revision, Session};
use crate::cluster::store::znodes::Writer;
use crate::runtime::clock;

/// Reads in one request, and requests of reads under way.
const READS: usize = 200;
const READERS: usize = 8;

#[derive(Debug)]
pub enum Command {
    Load,
    Commit(CommitId, Commit),
    Renew,
    Close,
    RoundTrip(Sender<()>),
}

type Connecting = Pin<Box<dyn Future<Output = Result<Link, Failure>>>>;
type Closing = Pin<Box<dyn Future<Output = ()>>>;

enum State {
    Linked(Link),
    Connecting(Connecting),
    Closing(Closing),
    /// Until the client asks for a new session.
    Expired,
}

enum Input {
    /// Events have marked znodes.
    Marked,
    State(SessionState),
    Answer(Answer),
    Command(Option<Command>),
    Connected(Result<Link, Failure>),
    Closed,
    Audit,
}

type Pause = Pin<Box<tokio::time::Sleep>>;

pub struct Control {
    settings: Settings,
    inbox: UnboundedReceiver<Command>,
    outbox: Sender<Event>,
    bell: Bell,
    missed: Arc<AtomicU64>,
    state: State,
    /// The session that is kept.
    session: Option<SessionInfo>,
    told: Session,
    /// The client is to close the session once what it has begun is done.
    closes: bool,
    pipeline: Pipeline,
    tree: Tree,
    /// Everything is being read.
    loading: bool,
    /// Everything was read, and events have told what came after.
    whole: bool,
    /// Loads that the client waits for.
    loads: usize,
    /// The client was given everything since the session was connected.
    loaded: bool,
    /// Revision that the client was told of last.
    published: Revision,
    reads: VecDeque<Read>,
    /// Requests of reads under way, and the znodes that they and `reads` are about.
    readers: usize,
    reading: BTreeSet<String>,
    commits: VecDeque<(CommitId, Commit)>,
    /// Sent, and not answered.
    in_flight: VecDeque<CommitId>,
    /// Answered; told with what they have changed.
    settled: Vec<(CommitId, Outcome)>,
    /// Round trips to begin once all commits are answered, under way, and back.
    trips: Vec<Sender<()>>,
    travelling: VecDeque<Vec<Sender<()>>>,
    returned: Vec<Sender<()>>,
    audit: Pause,
    auditing: bool,
    cursor: String,
}

impl Control {
    /// Connects and reads everything.
    pub async fn open(
        settings: Settings,
        inbox: UnboundedReceiver<Command>,
        outbox: Sender<Event>,
        bell: Bell,
        missed: Arc<AtomicU64>,
    ) -> Result<Control, OpenError> {
        let state = State::Connecting(Box::pin(connect::connect(settings.clone(), None)));
        let audit = Box::pin(tokio::time::sleep(settings.audit_pause));
        let timeout = settings.connection_timeout;
        let unreachable =
            OpenError::Unreachable { servers: settings.connect.servers().to_owned(), waited_ms: timeout.as_millis() };
        let mut control = Control {
            settings,
            inbox,
            outbox,
            bell,
            missed,
            state,
            session: None,
            told: Session::Suspended,
            closes: false,
            pipeline: Pipeline::default(),
            tree: Tree::default(),
            loading: false,
            whole: false,
            loads: 0,
            loaded: false,
            published: Revision(0),
            reads: VecDeque::new(),
            readers: 0,
            reading: BTreeSet::new(),
            commits: VecDeque::new(),
            in_flight: VecDeque::new(),
            settled: Vec::new(),
            trips: Vec::new(),
            travelling: VecDeque::new(),
            returned: Vec::new(),
            audit,
            auditing: false,
            cursor: String::new(),
        };
        match tokio::time::timeout(timeout, control.first()).await {
            Ok(opened) => opened.map(|()| control),
            Err(_) => Err(unreachable),
        }
    }

    /// Runs until everything was read once.
    async fn first(&mut self) -> Result<(), OpenError> {
        while !self.whole {
            match poll_fn(|context| self.poll(context)).await {
                Input::Connected(Err(Failure::Refused(error))) => return Err(error),
                Input::Answer(Answer::Read { reads, found: Ok(found), .. })
                    if found.iter().any(|found| matches!(found, Found::Refused(Error::NoAuth))) =>
                {
                    let of = |(read, found): (Read, Found)| matches!(found, Found::Refused(_)).then_some(read.path);
                    let path = reads.into_iter().zip(found).find_map(of).unwrap_or_default();
                    let path = format!("{}{path}", self.settings.connect.chroot());
                    return Err(OpenError::Forbidden { what: "read", path });
                }
                input => self.take(input),
            }
        }
        self.tree.damage().map_or(Ok(()), |error| Err(error.clone().into()))
    }

    pub async fn run(mut self) {
        loop {
            match poll_fn(|context| self.poll(context)).await {
                Input::Command(None) => break,
                input => self.take(input),
            }
        }
        self.state = State::Expired;
        if let Some(session) = self.session.take() {
            connect::close(self.settings, session).await;
        }
    }

    /// The next input. Events come before the answers that show what they tell of.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Input> {
        match &mut self.state {
            State::Linked(link) => {
                if let Poll::Ready(input) = poll_events(link, &mut self.tree, context) {
                    return Poll::Ready(input);
                }
                if let Poll::Ready(answer) = self.pipeline.poll(context) {
                    return Poll::Ready(Input::Answer(answer));
                }
            }
            State::Connecting(connecting) => {
                if let Poll::Ready(link) = connecting.as_mut().poll(context) {
                    return Poll::Ready(Input::Connected(link));
                }
            }
            State::Closing(closing) => {
                if closing.as_mut().poll(context).is_ready() {
                    return Poll::Ready(Input::Closed);
                }
            }
            State::Expired => {}
        }
        if let Poll::Ready(command) = self.inbox.poll_recv(context) {
            return Poll::Ready(Input::Command(command));
        }
        self.audit.as_mut().poll(context).map(|()| Input::Audit)
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Marked => {}
            Input::State(state) => self.take_state(state),
            Input::Answer(answer) => self.take_answer(answer),
            Input::Command(Some(command)) => self.take_command(command),
            Input::Command(None) => {}
            Input::Connected(Ok(link)) => {
                self.session = Some(link.client.session().clone());
                self.state = State::Linked(link);
                self.connected();
            }
            Input::Connected(Err(Failure::Expired)) => self.expired(),
            Input::Connected(Err(Failure::Refused(error))) => {
                tracing::error!("{error}; trying again");
                self.reconnect(std::time::Duration::from_secs(5));
            }
            Input::Closed => self.expired(),
            Input::Audit => self.begin_audit(),
        }
        self.advance();
    }

    fn take_state(&mut self, state: SessionState) {
        match state {
            SessionState::SyncConnected | SessionState::ConnectedReadOnly => {
                if let State::Linked(link) = &self.state {
                    self.pipeline.watch(&link.client);
                }
                self.connected();
            }
            SessionState::Disconnected => self.suspended(),
            SessionState::Expired | SessionState::Closed | SessionState::AuthFailed => {
                self.suspended();
                self.reconnect(std::time::Duration::ZERO);
            }
        }
    }

    /// Another client takes the session over.
    fn reconnect(&mut self, pause: std::time::Duration) {
        let (settings, session) = (self.settings.clone(), self.session.clone());
        self.state = State::Connecting(Box::pin(async move {
            tokio::time::sleep(pause).await;
            connect::connect(settings, session).await
        }));
    }

    fn connected(&mut self) {
        if self.told != Session::Connected {
            self.tell_session(Session::Connected);
            self.read_everything();
        }
    }

    /// Nothing is known any more of what is under way.
    fn suspended(&mut self) {
        if self.told == Session::Connected {
            self.tell_session(Session::Suspended);
        }
        self.pipeline.clear();
        let travelling = std::mem::take(&mut self.travelling).into_iter().flatten();
        self.trips.extend(travelling.chain(std::mem::take(&mut self.returned)));
        self.reads.clear();
        self.reading.clear();
        (self.readers, self.loads) = (0, 0);
        (self.loading, self.whole, self.auditing, self.loaded) = (false, false, false, false);
        for (id, outcome) in std::mem::take(&mut self.settled) {
            self.tell(Event::Settled { id, outcome, revision: None });
        }
        let in_flight = std::mem::take(&mut self.in_flight);
        let waiting = std::mem::take(&mut self.commits).into_iter().map(|(id, _)| id);
        for id in in_flight.into_iter().chain(waiting) {
            self.tell(Event::Settled { id, outcome: Outcome::Unknown, revision: None });
        }
    }

    fn expired(&mut self) {
        self.suspended();
        self.session = None;
        self.closes = false;
        self.state = State::Expired;
        self.tell_session(Session::Expired);
        self.trips.clear();
    }

    fn take_command(&mut self, command: Command) {
        let is_connected = self.told == Session::Connected && matches!(self.state, State::Linked(_));
        match command {
            Command::Load if is_connected => self.load(),
            Command::Commit(id, commit) if is_connected && !self.closes => self.commits.push_back((id, commit)),
            Command::Commit(id, _) => self.tell(Event::Settled { id, outcome: Outcome::Unknown, revision: None }),
            Command::Renew if matches!(self.state, State::Expired) => {
                self.told = Session::Suspended;
                self.reconnect(std::time::Duration::ZERO);
            }
            Command::Close => self.closes = self.session.is_some(),
            Command::RoundTrip(done) if !matches!(self.state, State::Expired) => self.trips.push(done),
            Command::Load | Command::Renew | Command::RoundTrip(_) => {}
        }
    }

    /// The first load after a connection takes what is read then anyway.
    fn load(&mut self) {
        let is_first = self.loads == 0 && !self.loaded;
        self.loads += 1;
        if !is_first && !self.loading {
            self.read_everything();
        }
    }

    fn take_answer(&mut self, answer: Answer) {
        match answer {
            Answer::Synced(Ok(())) => {}
            Answer::RoundTrip(Ok(())) => self.returned.extend(self.travelling.pop_front().unwrap_or_default()),
            Answer::Watching(place, Ok(watcher)) => {
                // The last one's events were taken before this answer.
                if let State::Linked(link) = &mut self.state
                    && let Some(before) = link.watchers.get_mut(place)
                {
                    *before = watcher;
                }
            }
            Answer::Watching(_, Err(error)) | Answer::RoundTrip(Err(error)) => self.broken(&error),
            Answer::Synced(Err(error)) | Answer::Read { found: Err(error), .. } => self.broken(&error),
            Answer::Read { audit: true, reads, found: Ok(found) } => self.end_audit(&reads, &found),
            Answer::Read { audit: false, reads, found: Ok(found) } => {
                self.readers -= 1;
                reads.into_iter().zip(found).for_each(|(read, found)| self.take_found(read, found));
            }
            Answer::Commit(id, outcome) => {
                self.in_flight.pop_front();
                self.settled.push((id, outcome));
            }
        }
    }

    fn take_found(&mut self, read: Read, found: Found) {
        self.reading.remove(&read.path);
        let damage = match (read.what, found) {
            (What::Data, Found::Znode(znode)) => self.tree.take(&read.path, Some(znode)),
            (What::Data, Found::Nothing) => self.tree.take(&read.path, None),
            (What::Children, Found::Children(children)) => {
                self.read(Tree::below(&read.path, &children));
                None
            }
            (What::Children, Found::Nothing) => None,
            (_, Found::Refused(error)) => {
                tracing::error!("ZooKeeper does not let {} be read: {error}", read.path);
                self.broken(&error);
                None
            }
            (What::Data, Found::Children(_)) | (What::Children, Found::Znode(_)) => {
                self.broken(&Error::UnexpectedError(format!("the answer to another read than that of {}", read.path)));
                None
            }
        };
        if let Some(error) = damage {
            let until = match self.tree.is_withheld(&read.path) {
                true => "the topic is withheld until then, and its records stay where they are; others are served",
                false => "what it said before stands until then",
            };
            tracing::error!("{error}; {until}");
        }
    }

    /// The connection cannot be gone on with, and the client library does not say so.
    fn broken(&mut self, error: &Error) {
        if self.told == Session::Connected {
            tracing::warn!("connecting to ZooKeeper anew: {error}");
            self.suspended();
            self.reconnect(std::time::Duration::from_secs(1));
        }
    }

    fn read_everything(&mut self) {
        let State::Linked(link) = &self.state else { return };
        // Another server may be behind the one before.
        self.pipeline.sync(&link.client);
        self.reads.clear();
        let reads = self.tree.begin_reading();
        self.read(reads);
        (self.loading, self.whole) = (true, false);
    }

    fn read(&mut self, reads: Vec<Read>) {
        self.reading.extend(reads.iter().map(|read| read.path.clone()));
        self.reads.extend(reads);
    }

    /// Sends what can be sent, and tells what is known.
    fn advance(&mut self) {
        if self.told != Session::Connected || !matches!(self.state, State::Linked(_)) {
            return;
        }
        self.send_commits();
        self.send_reads();
        if self.readers == 0 && self.reads.is_empty() {
            // Nothing is left to be read of this round, and no event has come since.
            self.whole = true;
            self.tell_news();
        }
        let is_idle = self.commits.is_empty() && self.in_flight.is_empty() && self.settled.is_empty();
        if !is_idle {
            return;
        }
        if !self.closes {
            self.begin_round_trip();
        } else if let Some(session) = self.session.clone() {
            self.state = State::Closing(Box::pin(connect::close(self.settings.clone(), session)));
        }
    }

    fn send_commits(&mut self) {
        let State::Linked(link) = &self.state else { return };
        let writer = Writer { broker: self.settings.broker, now_ms: clock::wall_ms() };
        while self.in_flight.len() < self.settings.max_in_flight.max(1) {
            let Some((id, commit)) = self.commits.pop_front() else { return };
            let settled = self.whole && self.reading.is_empty() && !self.tree.is_dirty();
            match plan(&commit, &self.tree, settled, writer) {
                Ok(plan) => self.pipeline.commit(&link.client, id, plan),
                Err(outcome) => self.pipeline.settled(id, outcome),
            }
            self.in_flight.push_back(id);
        }
    }

    fn send_reads(&mut self) {
        if self.readers == 0 && self.reads.is_empty() {
            if std::mem::take(&mut self.loading) {
                self.tree.end_reading();
            }
            let dirty = self.tree.take_dirty();
            self.read(dirty);
        }
        let State::Linked(link) = &self.state else { return };
        while self.readers < READERS && !self.reads.is_empty() {
            let count = self.reads.len().min(READS);
            self.pipeline.read(&link.client, self.reads.drain(..count).collect(), false);
            self.readers += 1;
        }
    }

    fn begin_round_trip(&mut self) {
        let State::Linked(link) = &self.state else { return };
        if !self.trips.is_empty() {
            self.pipeline.round_trip(&link.client);
            self.travelling.push_back(std::mem::take(&mut self.trips));
        }
    }

    fn tell_news(&mut self) {
        if self.loads > 0 {
            self.tell_everything();
        } else if self.loaded
            && let Some(changes) = self.tree.changes()
        {
            if changes.revision > self.published {
                self.published = changes.revision;
                self.tell(Event::Changed(changes));
            } else {
                // A change that no event has told of.
                self.loads = 1;
                self.tell_everything();
            }
        }
        for (id, outcome) in std::mem::take(&mut self.settled) {
            let shows = !matches!(outcome, Outcome::Unknown | Outcome::Failed(_));
            let revision = shows.then_some(self.published);
            self.tell(Event::Settled { id, outcome, revision });
        }
        // A task that waits for one finds it out by its end of the channel.
        self.returned.clear();
    }

    fn tell_everything(&mut self) {
        let snapshot = self.tree.snapshot();
        self.published = snapshot.revision;
        self.loaded = true;
        for _ in 0..std::mem::take(&mut self.loads) {
            self.tell(Event::Loaded(snapshot.clone()));
        }
    }

    fn begin_audit(&mut self) {
        self.audit = Box::pin(tokio::time::sleep(self.settings.audit_pause));
        let State::Linked(link) = &self.state else { return };
        if self.auditing || !self.whole || !self.loaded {
            return;
        }
        let reads = self.tree.audit(&self.cursor, READS / 2);
        self.cursor = reads.last().map_or(String::new(), |read| read.path.clone());
        if !reads.is_empty() {
            self.auditing = true;
            self.pipeline.read(&link.client, reads, true);
        }
    }

    fn end_audit(&mut self, reads: &[Read], found: &[Found]) {
        self.auditing = false;
        if self.loading {
            return;
        }
        let missed = reads.iter().zip(found).flat_map(|(read, found)| match found {
            Found::Znode(znode) => self.tree.missed(read, Some(znode), &[]),
            Found::Children(children) => self.tree.missed(read, None, children),
            Found::Nothing => self.tree.missed(read, None, &[]),
            Found::Refused(_) => Vec::new(),
        });
        let missed: BTreeSet<String> = missed.filter(|path| !self.reading.contains(path)).collect();
        if missed.is_empty() {
            return;
        }
        tracing::error!("ZooKeeper has not told of {} changes, such as that of {:?}", missed.len(), missed.first());
        self.missed.fetch_add(missed.len() as u64, Ordering::Relaxed);
        self.loads = self.loads.max(1);
        self.read_everything();
    }

    fn tell_session(&mut self, session: Session) {
        self.told = session;
        self.tell(Event::Session(session));
    }

    fn tell(&self, event: Event) {
        // The last events of a store that is dropped interest nobody.
        drop(self.outbox.send(event));
        (self.bell)();
    }
}

/// Marks what events are about. Each watcher has the session's events among its
/// own; those of one suffice.
fn poll_events(link: &mut Link, tree: &mut Tree, context: &mut Context<'_>) -> Poll<Input> {
    let mut marked = false;
    for (index, watcher) in link.watchers.iter_mut().enumerate() {
        while let Poll::Ready(event) = pin!(watcher.changed()).poll(context) {
            match event.event_type {
                // A watcher must not be asked for more than the last event.
                EventType::Session if index == 0 || event.session_state.is_terminated() => {
                    return Poll::Ready(Input::State(event.session_state));
                }
                EventType::Session => {}
                kind => {
                    tree.note(&event.path, kind == EventType::NodeDeleted);
                    marked = true;
                }
            }
        }
    }
    if marked { Poll::Ready(Input::Marked) } else { Poll::Pending }
}
