//! Which broker a request goes to.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use kafka_protocol::messages::{ApiKey, FindCoordinatorRequest, MetadataRequest, MetadataResponse};
use kafka_protocol::protocol::{Request, StrBytes};

use crate::client::admin::Node;
use crate::client::api::Versions;
use crate::client::connection::Connection;
use crate::client::core::MAX_RESPONSE_BYTES;
use crate::client::error::{ClientError, Refusal};
use crate::model::ErrorCode;
use crate::runtime::{clock, net};

pub(in crate::client) const CLIENT_ID: &str = "corelane-cli";
/// Time between two tries.
const PAUSE: Duration = Duration::from_millis(100);
const FENCED_LEADER_EPOCH: i16 = 74;
const UNKNOWN_LEADER_EPOCH: i16 = 75;
const OFFSET_NOT_AVAILABLE: i16 = 78;

/// A broker to begin with: a host and a port.
pub type Bootstrap = (String, u16);

/// Which broker a question is for.
#[derive(Clone, Copy, Debug)]
pub enum To<'a> {
    Any,
    Controller,
    Broker(i32),
    /// The coordinator of this group.
    Coordinator(&'a str),
}

/// Asks a cluster, one question at a time. Lives on a shard.
pub struct ClusterClient {
    manner: Manner,
    bootstrap: Vec<Bootstrap>,
    timeout: Duration,
    deadline: Instant,
    /// The connection that was found first.
    found: Option<(SocketAddr, Connection)>,
    connections: BTreeMap<i32, Connection>,
    nodes: BTreeMap<i32, Node>,
    racks: BTreeMap<i32, String>,
    cluster_id: Option<String>,
    controller: i32,
    coordinators: BTreeMap<String, i32>,
    /// A broker has answered since this began.
    met: bool,
    /// The broker that the last question went to.
    asked: String,
    /// A try of the last question was sent and got no answer: it may have been carried out.
    unanswered: bool,
}

/// Identity of the client to brokers, and its bounds.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    pub client_id: &'static str,
    /// A longer response ends its connection.
    pub most_response_bytes: usize,
}

const COMMAND_LINE: Manner = Manner { client_id: CLIENT_ID, most_response_bytes: MAX_RESPONSE_BYTES };

/// Outcome of one try.
enum Try<T> {
    Answer(T),
    /// Before anything was sent.
    NotSent(ClientError),
    NotAnswered(ClientError),
}

impl ClusterClient {
    /// Everything has to be done within `timeout`; see [`restart`](Self::restart).
    pub fn new(bootstrap: Vec<Bootstrap>, timeout: Duration) -> ClusterClient {
        ClusterClient::with_manner(COMMAND_LINE, bootstrap, timeout)
    }

    /// [`new`](Self::new) with a manner other than the command line's.
    pub fn with_manner(manner: Manner, bootstrap: Vec<Bootstrap>, timeout: Duration) -> ClusterClient {
        ClusterClient {
            manner,
            bootstrap,
            timeout,
            deadline: clock::now() + timeout,
            found: None,
            connections: BTreeMap::new(),
            nodes: BTreeMap::new(),
            racks: BTreeMap::new(),
            cluster_id: None,
            controller: -1,
            coordinators: BTreeMap::new(),
            met: false,
            asked: String::new(),
            unanswered: false,
        }
    }

    /// The timeout begins anew.
    pub fn restart(&mut self) {
        self.deadline = clock::now() + self.timeout;
    }

    /// Time that a broker is given to carry a request out.
    pub(super) fn timeout_ms(&self) -> i32 {
        let left = self.deadline.saturating_duration_since(clock::now()).max(Duration::from_secs(1));
        i32::try_from(left.as_millis()).unwrap_or(i32::MAX)
    }

    /// A try of the last question got no answer.
    pub fn was_unanswered(&self) -> bool {
        self.unanswered
    }

    /// Waits before another try; `false`: there is no time for one.
    pub(super) async fn may_try_again(&self) -> bool {
        if clock::now() + PAUSE >= self.deadline {
            return false;
        }
        clock::sleep(PAUSE).await;
        true
    }

    /// The brokers as the cluster last said.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    pub fn rack(&self, node: i32) -> Option<&str> {
        self.racks.get(&node).map(String::as_str)
    }

    pub fn controller(&self) -> Option<i32> {
        (self.controller >= 0).then_some(self.controller)
    }

    pub fn cluster_id(&self) -> Option<&str> {
        self.cluster_id.as_deref()
    }

    /// True if the broker serves the API in a version that is spoken here.
    pub async fn serves(&mut self, to: To<'_>, api: ApiKey) -> Result<bool, ClientError> {
        Ok(self.versions(to).await?.serves(api))
    }

    /// How many APIs the broker serves.
    pub async fn api_count(&mut self, to: To<'_>) -> Result<usize, ClientError> {
        Ok(self.versions(to).await?.count())
    }

    async fn versions(&mut self, to: To<'_>) -> Result<Versions, ClientError> {
        loop {
            let error = match self.connect(to).await {
                Ok(connection) => return Ok(connection.versions().clone()),
                Err(error) => error,
            };
            if !self.is_worth_another(&error) || !self.may_try_again().await {
                return Err(error);
            }
            self.forget(to);
        }
    }

    /// Asks which brokers there are.
    pub async fn learn(&mut self) -> Result<(), ClientError> {
        loop {
            let Err(error) = self.learn_once().await else { return Ok(()) };
            if !self.is_worth_another(&error) || !self.may_try_again().await {
                return Err(error);
            }
        }
    }

    /// Another try may do better. A cluster of which nothing has been heard yet is
    /// more likely somewhere else.
    fn is_worth_another(&self, error: &ClientError) -> bool {
        self.met && is_of_network(error)
    }

    /// Asks once. After an error the way there is looked up anew.
    pub(in crate::client) async fn ask_once<R: Request>(
        &mut self,
        to: To<'_>,
        make: impl Fn(i16) -> R,
    ) -> Result<R::Response, ClientError> {
        match self.attempt(to, &make).await {
            Try::Answer(answer) => Ok(answer),
            Try::NotSent(error) => {
                self.forget(to);
                Err(error)
            }
            Try::NotAnswered(error) => {
                let error = self.named(error);
                self.forget(to);
                Err(error)
            }
        }
    }

    /// Asks until there is an answer that `passes` does not hold for, or until the time is over:
    /// then the last one. `make`: the request in the version that was agreed on.
    pub(in crate::client) async fn ask<R: Request>(
        &mut self,
        to: To<'_>,
        make: impl Fn(i16) -> R,
        passes: impl Fn(&R::Response) -> bool,
    ) -> Result<R::Response, ClientError> {
        self.unanswered = false;
        loop {
            let outcome = match self.attempt(to, &make).await {
                Try::Answer(answer) if !passes(&answer) => return Ok(answer),
                Try::Answer(answer) => Ok(answer),
                Try::NotSent(error) if !self.is_worth_another(&error) => return Err(error),
                Try::NotSent(error) => Err(error),
                Try::NotAnswered(error) if !is_of_network(&error) => return Err(self.named(error)),
                Try::NotAnswered(error) => {
                    self.unanswered = true;
                    Err(self.named(error))
                }
            };
            if !self.may_try_again().await {
                return outcome;
            }
            self.forget(to);
        }
    }

    /// The error with the broker that it came from.
    fn named(&self, error: ClientError) -> ClientError {
        let named = format!("broker {}: {error}", self.asked);
        match error {
            ClientError::Version { .. } => error,
            ClientError::Io(error) => ClientError::Io(io::Error::new(error.kind(), named)),
            ClientError::Ended => ClientError::Io(io::Error::new(io::ErrorKind::ConnectionAborted, named)),
            ClientError::NoAnswer { what, seconds } => {
                ClientError::NoAnswer { what: format!("{what} (broker {})", self.asked), seconds }
            }
            _ => ClientError::Other(named),
        }
    }

    async fn attempt<R: Request>(&mut self, to: To<'_>, make: &impl Fn(i16) -> R) -> Try<R::Response> {
        let api = match ApiKey::try_from(R::KEY) {
            Ok(api) => api,
            Err(()) => return Try::NotSent(ClientError::Other(format!("there is no API {}", R::KEY))),
        };
        let deadline = self.deadline;
        let seconds = self.timeout.as_secs();
        let connection = match self.connect(to).await {
            Ok(connection) => connection,
            Err(error) => return Try::NotSent(error),
        };
        let version = match connection.versions().newest(api) {
            Ok(version) => version,
            Err(error) => return Try::NotAnswered(error),
        };
        let request = make(version);
        match clock::until(deadline, connection.call(version, &request)).await {
            Some(Ok(answer)) => Try::Answer(answer),
            outcome => {
                let late = || ClientError::NoAnswer { what: format!("{api:?}"), seconds };
                let error = outcome.and_then(Result::err).unwrap_or_else(late);
                self.drop_asked();
                Try::NotAnswered(error)
            }
        }
    }

    /// The connection of the last question is of no use any more.
    fn drop_asked(&mut self) {
        self.found = self.found.take().filter(|(address, _)| address.to_string() != self.asked);
        let asked = &self.asked;
        let nodes = &self.nodes;
        self.connections.retain(|id, _| nodes.get(id).is_some_and(|node| address_of(node) != *asked));
    }

    /// Forgets the way there.
    fn forget(&mut self, to: To<'_>) {
        match to {
            To::Any => {}
            To::Controller => self.controller = -1,
            To::Broker(_) => self.nodes.clear(),
            To::Coordinator(group) => drop(self.coordinators.remove(group)),
        }
    }

    /// The group's coordinator is another by now.
    pub fn forget_coordinator(&mut self, group: &str) {
        self.forget(To::Coordinator(group));
    }

    /// A connection to the broker.
    async fn connect(&mut self, to: To<'_>) -> Result<&mut Connection, ClientError> {
        let node = match to {
            To::Any => return self.any().await,
            To::Controller => {
                if self.controller < 0 {
                    self.learn_once().await?;
                }
                self.controller().ok_or_else(|| passing("the cluster has no controller at present"))?
            }
            To::Broker(id) => id,
            To::Coordinator(group) => self.coordinator(group).await?,
        };
        if !self.nodes.contains_key(&node) {
            self.learn_once().await?;
        }
        let Some(place) = self.nodes.get(&node) else {
            let known: Vec<String> = self.nodes.keys().map(i32::to_string).collect();
            return Err(ClientError::Other(format!("there is no broker {node}; there are {}", known.join(", "))));
        };
        // A broker that is alone is asked where it was found, whatever it advertises.
        if self.nodes.len() == 1 {
            return self.any().await;
        }
        self.asked = address_of(place);
        if !self.connections.contains_key(&node) {
            let port = u16::try_from(place.port).unwrap_or(0);
            let host = place.host.clone();
            let (_, connection) = open_as(self.manner, &host, port, self.deadline).await?;
            self.connections.insert(node, connection);
        }
        self.connections.get_mut(&node).ok_or(ClientError::Ended)
    }

    /// The connection that was found first, or one to any broker that answers.
    async fn any(&mut self) -> Result<&mut Connection, ClientError> {
        if self.found.is_none() {
            self.found = Some(self.find().await?);
            self.met = true;
        }
        let (address, connection) = self.found.as_mut().ok_or(ClientError::Ended)?;
        self.asked = address.to_string();
        Ok(connection)
    }

    async fn find(&self) -> Result<(SocketAddr, Connection), ClientError> {
        let known = self.nodes.values().map(|node| (node.host.clone(), u16::try_from(node.port).unwrap_or(0)));
        let mut failures = Vec::new();
        for (host, port) in self.bootstrap.iter().cloned().chain(known) {
            match open_as(self.manner, &host, port, self.deadline).await {
                Ok(found) => return Ok(found),
                Err(error) if failures.contains(&error.to_string()) => {}
                Err(error) => failures.push(error.to_string()),
            }
        }
        Err(passing(&format!(
            "no broker answers: {}; is it running, and is --bootstrap-server its address?",
            failures.join("; ")
        )))
    }

    async fn learn_once(&mut self) -> Result<(), ClientError> {
        let deadline = self.deadline;
        let connection = self.any().await?;
        let version = connection.versions().newest(ApiKey::Metadata)?;
        let request = MetadataRequest::default().with_topics(Some(Vec::new())).with_allow_auto_topic_creation(false);
        let answer = match clock::until(deadline, connection.call(version, &request)).await {
            Some(Ok(answer)) => answer,
            outcome => {
                self.drop_asked();
                return Err(outcome.and_then(Result::err).unwrap_or(ClientError::Ended));
            }
        };
        self.note(&answer);
        Ok(())
    }

    /// Takes in what an answer says of the brokers.
    pub(super) fn note(&mut self, answer: &MetadataResponse) {
        self.nodes.clear();
        self.racks.clear();
        for broker in &answer.brokers {
            let id = broker.node_id.0;
            self.nodes.insert(id, Node { id, host: broker.host.to_string(), port: broker.port });
            self.racks.extend(broker.rack.as_ref().map(|rack| (id, rack.to_string())));
        }
        self.cluster_id = answer.cluster_id.as_ref().map(|id| id.to_string());
        self.controller = answer.controller_id.0;
    }

    /// Where the broker is to be asked, for a connection beside those of this client.
    pub async fn place(&mut self, node: i32) -> Result<Bootstrap, ClientError> {
        if !self.nodes.contains_key(&node) {
            self.learn_once().await?;
        }
        // A broker that is alone is asked where it was found, whatever it advertises.
        if self.nodes.len() == 1 {
            self.any().await?;
        }
        match (&self.found, self.nodes.get(&node)) {
            (Some((address, _)), Some(_)) if self.nodes.len() == 1 => Ok((address.ip().to_string(), address.port())),
            (_, Some(place)) => Ok((place.host.clone(), u16::try_from(place.port).unwrap_or(0))),
            (_, None) => Err(passing(&format!("broker {node} is not there at present"))),
        }
    }

    /// Another client of the same cluster, with connections of its own.
    pub fn sibling(&self) -> ClusterClient {
        let known = self.nodes.values().map(|node| (node.host.clone(), u16::try_from(node.port).unwrap_or(0)));
        let bootstrap = self.bootstrap.iter().cloned().chain(known).collect();
        ClusterClient { met: self.met, ..ClusterClient::new(bootstrap, self.timeout) }
    }

    /// For each question, or for several until [`restart`](Self::restart).
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The id of the broker that the group's offsets and members are with.
    pub async fn coordinator(&mut self, group: &str) -> Result<i32, ClientError> {
        if let Some(node) = self.coordinators.get(group) {
            return Ok(*node);
        }
        let deadline = self.deadline;
        let connection = self.any().await?;
        let version = connection.versions().newest(ApiKey::FindCoordinator)?;
        let key = StrBytes::from_string(group.to_owned());
        let request = match version {
            ..4 => FindCoordinatorRequest::default().with_key(key),
            _ => FindCoordinatorRequest::default().with_coordinator_keys(vec![key]),
        };
        let answer = match clock::until(deadline, connection.call(version, &request)).await {
            Some(Ok(answer)) => answer,
            outcome => {
                self.drop_asked();
                return Err(outcome.and_then(Result::err).unwrap_or(ClientError::Ended));
            }
        };
        let (code, message, node) = match answer.coordinators.first() {
            Some(found) => (found.error_code, found.error_message.as_deref(), found.node_id.0),
            None => (answer.error_code, answer.error_message.as_deref(), answer.node_id.0),
        };
        match Refusal::of(code, message) {
            None => {
                self.coordinators.insert(group.to_owned(), node);
                Ok(node)
            }
            Some(refusal) if will_pass(code) => Err(passing(&format!("the coordinator of group {group}: {refusal}"))),
            Some(refusal) => Err(ClientError::Other(format!("the coordinator of group {group}: {refusal}"))),
        }
    }
}

fn address_of(node: &Node) -> String {
    format!("{}:{}", node.host, node.port)
}

/// An error that another try may not meet.
fn passing(what: &str) -> ClientError {
    ClientError::Io(io::Error::new(io::ErrorKind::NotConnected, what.to_owned()))
}

pub(in crate::client) fn is_of_network(error: &ClientError) -> bool {
    matches!(error, ClientError::Io(_) | ClientError::Ended | ClientError::NoAnswer { .. })
}

/// An error code that says no more than that the cluster is changing.
pub(in crate::client) fn will_pass(code: i16) -> bool {
    [
        ErrorCode::LeaderNotAvailable.code(),
        ErrorCode::NotLeaderOrFollower.code(),
        ErrorCode::CoordinatorLoadInProgress.code(),
        ErrorCode::CoordinatorNotAvailable.code(),
        ErrorCode::NotCoordinator.code(),
        ErrorCode::NotController.code(),
        FENCED_LEADER_EPOCH,
        UNKNOWN_LEADER_EPOCH,
        OFFSET_NOT_AVAILABLE,
    ]
    .contains(&code)
}

/// A connection to one of the host's addresses.
pub(in crate::client) async fn open(
    host: &str,
    port: u16,
    deadline: Instant,
) -> Result<(SocketAddr, Connection), ClientError> {
    open_as(COMMAND_LINE, host, port, deadline).await
}

/// Connects to the first address of `host` that answers. Call on a shard.
pub async fn open_as(
    manner: Manner,
    host: &str,
    port: u16,
    deadline: Instant,
) -> Result<(SocketAddr, Connection), ClientError> {
    let mut failed = None;
    for address in net::resolve(host, port).await? {
        match clock::until(deadline, Connection::open(address, manner.client_id)).await {
            Some(Ok(mut connection)) => {
                connection.limit_responses(manner.most_response_bytes);
                return Ok((address, connection));
            }
            Some(Err(error @ ClientError::Io(_))) => failed = Some(error),
            Some(Err(error)) => failed = Some(ClientError::Other(format!("{address}: {error}"))),
            None => failed = Some(passing(&format!("{address} does not answer"))),
        }
    }
    Err(failed.unwrap_or_else(|| ClientError::Other(format!("{host} has no address"))))
}
