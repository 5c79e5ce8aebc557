//! Settings of a ZooKeeper session, and the reasons for which it cannot be had.

use std::fmt;
use std::time::Duration;

use crate::cluster::store::znodes::ZnodeError;
use crate::model::BrokerId;

/// Servers and chroot, as `zookeeper.connect` names them: `HOST:PORT,HOST:PORT/CHROOT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectString {
    servers: String,
    /// Without a slash at its end; empty: none.
    chroot: String,
}

impl ConnectString {
    pub fn parse(text: &str) -> Result<ConnectString, OpenError> {
        let wrong = |why: &str| OpenError::Address { given: text.to_owned(), why: why.to_owned() };
        let (servers, chroot) = text.find('/').map_or((text, ""), |at| text.split_at(at));
        for server in servers.split(',').map(str::trim) {
            let (host, port) = match server.rsplit_once(':') {
                Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, port),
                _ => (server, "2181"),
            };
            if host.is_empty() {
                return Err(wrong("a server has no host"));
            }
            if !port.parse::<u16>().is_ok_and(|port| port > 0) {
                return Err(wrong(&format!("{server:?} has no port from 1 to 65535")));
            }
        }
        let chroot = if chroot == "/" { "" } else { chroot };
        let is_legal = |segment: &str| {
            !segment.is_empty() && segment != "." && segment != ".." && !segment.chars().any(char::is_control)
        };
        if !chroot.is_empty() && !chroot[1..].split('/').all(is_legal) {
            return Err(wrong(&format!("the chroot {chroot:?} has an empty or a relative part")));
        }
        if chroot.contains(',') {
            return Err(wrong("the chroot stands once, behind the last server"));
        }
        let servers: Vec<&str> = servers.split(',').map(str::trim).collect();
        Ok(ConnectString { servers: servers.join(","), chroot: chroot.to_owned() })
    }

    pub fn servers(&self) -> &str {
        &self.servers
    }

    /// The servers over and over. The client library goes through its list without a pause at
    /// first; then the pause grows along the list, and doubles with each further round, so that a
    /// short list leaves an ensemble that is back alone for longer than the session lasts.
    pub fn tries(&self) -> String {
        let servers: Vec<&str> = self.servers.split(',').collect();
        servers.iter().copied().cycle().take(TRIES.next_multiple_of(servers.len())).collect::<Vec<_>>().join(",")
    }

    pub fn chroot(&self) -> &str {
        &self.chroot
    }
}

impl fmt::Display for ConnectString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.servers, self.chroot)
    }
}

/// With so many the pauses of the first rounds are a second at most.
const TRIES: usize = 20;

#[derive(Clone, Debug)]
pub struct Settings {
    pub connect: ConnectString,
    pub broker: BrokerId,
    /// Wanted; the servers have bounds of their own for it.
    pub session_timeout: Duration,
    /// Longest wait for the first connection.
    pub connection_timeout: Duration,
    /// Commits that are sent before the first of them is answered.
    pub max_in_flight: usize,
    /// Pause of the audit between two reads of up to 200 znodes.
    pub audit_pause: Duration,
}

impl Settings {
    pub fn new(connect: ConnectString, broker: BrokerId) -> Settings {
        Settings {
            connect,
            broker,
            session_timeout: Duration::from_secs(18),
            connection_timeout: Duration::from_secs(18),
            max_in_flight: 256,
            audit_pause: Duration::from_millis(500),
        }
    }
}

/// A session that cannot be had, or not be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    #[error("zookeeper.connect={given:?}: {why}; write HOST:PORT,HOST:PORT/CHROOT")]
    Address { given: String, why: String },
    #[error(
        "no ZooKeeper server of {servers} has taken the session within {waited_ms} ms (zookeeper.connection.timeout.ms): \
         see that a majority of the ensemble runs and can be reached from here"
    )]
    Unreachable { servers: String, waited_ms: u128 },
    #[error(
        "the ZooKeeper servers {servers} ask for authentication, and this version of Corelane has none: allow \
         sessions without SASL (enforce.auth.enabled, sessionRequireClientSASLAuth)"
    )]
    Authentication { servers: String },
    #[error(
        "ZooKeeper lets this session not {what} {path}: its ACL asks for a user, and this version of Corelane \
         has none; open the ACL, or take another chroot"
    )]
    Forbidden { what: &'static str, path: String },
    #[error("the ZooKeeper servers {servers} know no persistent watches: they have to be of version 3.6 or newer")]
    TooOld { servers: String },
    #[error(transparent)]
    Znode(#[from] ZnodeError),
    #[error("the thread of the ZooKeeper session cannot be started: {0}")]
    Thread(String),
    #[error("ZooKeeper at {at}: {why}")]
    Other { at: String, why: String },
}
