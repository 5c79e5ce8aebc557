//! The broker's end of the engine: two queues to the control thread.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::control::{Command, Control};
use super::settings::{OpenError, Settings};
use crate::cluster::store::commit::{Commit, Outcome};
use crate::cluster::store::engine::{CommitId, Event, Session, Store};

/// Rung by the control thread when there is something to poll.
pub type Bell = Box<dyn Fn() + Send>;

/// A session with a ZooKeeper ensemble. Dropping it closes the session in the background.
#[derive(Debug)]
pub struct ZooKeeper {
    commands: UnboundedSender<Command>,
    events: Receiver<Event>,
    /// Outcomes of commits that the control thread cannot take any more.
    own: VecDeque<Event>,
    session: Session,
    last_commit: u64,
    missed: Arc<AtomicU64>,
}

impl ZooKeeper {
    /// Connects, and reads everything once; waits for both. Start it before any thread is pinned:
    /// its own takes over the CPUs of the caller.
    pub fn open(settings: Settings, bell: Bell) -> Result<ZooKeeper, OpenError> {
        let (commands, inbox) = unbounded_channel();
        let (outbox, events) = channel();
        let (ready, opened) = channel();
        let missed = Arc::new(AtomicU64::new(0));
        let counter = missed.clone();
        let run = move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_time().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(ready.send(Err(OpenError::Thread(error.to_string())))),
            };
            runtime.block_on(async {
                match Control::open(settings, inbox, outbox, bell, counter).await {
                    Ok(control) => {
                        drop(ready.send(Ok(())));
                        control.run().await;
                    }
                    Err(error) => drop(ready.send(Err(error))),
                }
            });
        };
        let thread = std::thread::Builder::new().name("zookeeper".to_owned()).spawn(run);
        thread.map_err(|error| OpenError::Thread(error.to_string()))?;
        let ended = || OpenError::Thread("it has ended".to_owned());
        opened.recv().map_err(|_| ended())??;
        let session = Session::Suspended;
        Ok(ZooKeeper { commands, events, own: VecDeque::new(), session, last_commit: 0, missed })
    }

    /// Changes that the audit has found and no event has told of; 0 is right.
    pub fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }

    pub fn round_trips(&self) -> RoundTrips {
        RoundTrips { commands: self.commands.clone() }
    }

    fn send(&mut self, command: Command) -> bool {
        self.commands.send(command).is_ok()
    }
}

/// Round trips to the leader of the ensemble, for threads that may wait.
#[derive(Clone, Debug)]
pub struct RoundTrips {
    commands: UnboundedSender<Command>,
}

impl RoundTrips {
    /// Waits until everything that was committed before, by whomever, is among the events to poll;
    /// commits begun before are settled. Takes as long as there is no connection, and ends when the
    /// session has. `false`: not within this time.
    pub fn wait(&self, at_most: Duration) -> bool {
        let (done, returned) = channel();
        // The other end is dropped when it is back.
        self.commands.send(Command::RoundTrip(done)).is_ok()
            && !matches!(returned.recv_timeout(at_most), Err(RecvTimeoutError::Timeout))
    }
}

impl Store for ZooKeeper {
    fn session(&self) -> Session {
        self.session
    }

    fn load(&mut self) {
        self.send(Command::Load);
    }

    fn commit(&mut self, commit: Commit) -> CommitId {
        self.last_commit += 1;
        let id = CommitId(self.last_commit);
        if !self.send(Command::Commit(id, commit)) {
            self.own.push_back(Event::Settled { id, outcome: Outcome::Unknown, revision: None });
        }
        id
    }

    fn poll(&mut self) -> Option<Event> {
        let event = self.events.try_recv().ok().or_else(|| self.own.pop_front())?;
        if let Event::Session(session) = &event {
            self.session = *session;
        }
        Some(event)
    }

    fn renew(&mut self) {
        if self.session == Session::Expired {
            self.session = Session::Suspended;
            self.send(Command::Renew);
        }
    }

    fn close(&mut self) {
        self.send(Command::Close);
    }
}
