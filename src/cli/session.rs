//! A session with ZooKeeper for a thread that may wait.

use std::time::{Duration, Instant};

use crate::cluster::store::zookeeper::{self, Bell, ConnectString, ZooKeeper};
use crate::cluster::store::{self, Commit, CommitId, Event, Mirror, Outcome, Store};
use crate::config::ServerConfig;
use crate::model::BrokerId;
use crate::runtime::clock;

/// Time between two looks for news.
const PAUSE: Duration = Duration::from_millis(2);

/// A session, and everything that ZooKeeper has of the cluster.
pub(super) struct Session {
    store: ZooKeeper,
    mirror: Mirror,
    limit: Duration,
}

impl Session {
    /// Connects, and reads everything. Before any thread is pinned.
    pub fn open(config: &ServerConfig, bell: Bell) -> Result<Session, String> {
        let settings = settings(config)?;
        let limit = settings.connection_timeout;
        let store = ZooKeeper::open(settings, bell).map_err(|error| error.to_string())?;
        let mut session = Session { store, mirror: Mirror::default(), limit };
        session.until(Mirror::is_whole)?;
        Ok(session)
    }

    pub fn mirror(&self) -> &Mirror {
        &self.mirror
    }

    pub fn into_parts(self) -> (ZooKeeper, Mirror) {
        (self.store, self.mirror)
    }

    pub fn begin(&mut self, commit: Commit) -> CommitId {
        self.store.commit(commit)
    }

    /// Takes the store's news in until `done`, for as long as a connection may take.
    pub fn until(&mut self, done: impl Fn(&Mirror) -> bool) -> Result<(), String> {
        let deadline = clock::now() + self.limit;
        while !done(&self.mirror) {
            self.take(deadline, |_| ())?;
        }
        Ok(())
    }

    /// Carries a commit out.
    pub fn commit(&mut self, commit: Commit) -> Result<Outcome, String> {
        let (id, deadline) = (self.store.commit(commit), clock::now() + self.limit);
        let mut settled = None;
        while settled.is_none() {
            self.take(deadline, |event| match event {
                Event::Settled { id: of, outcome, .. } if *of == id => settled = Some(outcome.clone()),
                _ => {}
            })?;
        }
        settled.ok_or_else(|| "the commit has no outcome".to_owned())
    }

    /// Takes news in; without any, waits for a moment.
    fn take(&mut self, deadline: Instant, mut look: impl FnMut(&Event)) -> Result<(), String> {
        let mut any = false;
        while let Some(event) = self.store.poll() {
            any = true;
            look(&event);
            self.mirror.take(&event);
            match event {
                Event::Session(store::Session::Connected) => self.store.load(),
                Event::Session(store::Session::Expired) => self.store.renew(),
                _ => {}
            }
        }
        if !any {
            if clock::now() >= deadline {
                return Err("ZooKeeper has not answered in time (zookeeper.connection.timeout.ms)".into());
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }
}

fn settings(config: &ServerConfig) -> Result<zookeeper::Settings, String> {
    let connect = ConnectString::parse(&config.zookeeper_connect).map_err(|error| error.to_string())?;
    let mut settings = zookeeper::Settings::new(connect, BrokerId(config.broker_id));
    settings.session_timeout = Duration::from_millis(config.zookeeper_session_timeout_ms);
    settings.connection_timeout = match config.given.contains_key("zookeeper.connection.timeout.ms") {
        true => Duration::from_millis(config.zookeeper_connection_timeout_ms),
        false => settings.session_timeout,
    };
    settings.max_in_flight = config.zookeeper_max_in_flight_requests;
    Ok(settings)
}
