//! A session with the ensemble: connecting, what has to stand there, and the watches.

use std::time::Duration;

use zookeeper_client::{
    Acls, AddWatchMode, Client, CreateMode, CreateOptions, Error, PersistentWatcher, SessionInfo, SessionState,
};

use super::settings::{OpenError, Settings};
use crate::cluster::store::znodes::{CONTAINERS, FORMAT_PATH, Format};

/// Everything that the store has is at or below one of these.
pub const WATCHED: [&str; 8] = [
    "/brokers",
    "/config",
    "/admin",
    "/corelane",
    "/controller",
    "/controller_epoch",
    "/latest_producer_id_block",
    "/cluster",
];
const PERSISTENT: CreateOptions<'static> = CreateMode::Persistent.with_acls(Acls::anyone_all());
const PAUSE: Duration = Duration::from_millis(200);

/// A session that is connected and watches.
pub struct Link {
    pub client: Client,
    pub watchers: Vec<PersistentWatcher>,
}

/// The end of a try to connect.
pub enum Failure {
    /// A server says that the session has ended.
    Expired,
    Refused(OpenError),
}

/// Connects, for as long as it takes. With `session`: that one, until a server says that it has ended. The
/// client library takes a session for expired when it was without a server for 7/5 of its timeout; whether
/// it is, only a server knows.
pub async fn connect(settings: Settings, session: Option<SessionInfo>) -> Result<Link, Failure> {
    let (resumes, mut session) = (session.is_some(), session);
    loop {
        match open(&settings, session.clone(), true).await {
            Ok(client) => match prepare(&settings, &client).await {
                Ok(link) => return Ok(link),
                Err(Some(refused)) => return Err(Failure::Refused(refused)),
                Err(None) => session = Some(client.into_session()),
            },
            Err(Error::SessionExpired) if resumes => return Err(Failure::Expired),
            Err(Error::SessionExpired) => session = None,
            Err(error) => {
                if let Some(refused) = refused(&settings, "begin at", "", &error) {
                    return Err(Failure::Refused(refused));
                }
                tracing::debug!("no connection to ZooKeeper at {}: {error}", settings.connect);
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Ends a session: its ephemeral nodes go. Tries as long as the session could last by itself.
pub async fn close(settings: Settings, session: SessionInfo) {
    let closing = async {
        loop {
            match open(&settings, Some(session.clone()), false).await {
                Ok(client) => {
                    let mut states = client.state_watcher();
                    drop(client);
                    while !states.changed().await.is_terminated() {}
                    if states.peek_state() == SessionState::Closed {
                        return;
                    }
                }
                Err(Error::SessionExpired) => return,
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    };
    drop(tokio::time::timeout(settings.session_timeout * 2, closing).await);
}

/// `detached`: the session stays when the client goes, so that another client can take it over.
async fn open(settings: &Settings, session: Option<SessionInfo>, detached: bool) -> Result<Client, Error> {
    let mut connector = Client::connector().with_session_timeout(settings.session_timeout);
    if detached {
        connector = connector.with_detached();
    }
    if let Some(session) = session {
        connector = connector.with_session(session);
    }
    connector.connect(&settings.connect.tries()).await
}

/// Makes ready what the store needs, however often the connection is lost meanwhile. `None`: the library has
/// given the session up. A client that goes before would come back for the session, and take it from the next.
async fn prepare(settings: &Settings, client: &Client) -> Result<Link, Option<OpenError>> {
    loop {
        match furnish(settings, client).await {
            Err(None) if !client.state().is_terminated() => tokio::time::sleep(PAUSE).await,
            end => return end,
        }
    }
}

/// Makes what has to stand, and watches. `None`: the connection was lost meanwhile.
async fn furnish(settings: &Settings, client: &Client) -> Result<Link, Option<OpenError>> {
    let client = rooted(settings, client).await?;
    for path in CONTAINERS {
        let there = client.check_stat(path).await.map_err(|error| refused(settings, "read", path, &error))?;
        if there.is_none() {
            create(settings, &client, path, &[]).await?;
        }
    }
    format(settings, &client).await?;
    let mut watchers = Vec::new();
    for path in WATCHED {
        let watcher = client.watch(path, AddWatchMode::PersistentRecursive).await;
        watchers.push(watcher.map_err(|error| refused(settings, "watch", path, &error))?);
    }
    Ok(Link { client, watchers })
}

/// The client below the chroot, which is made if it is missing.
async fn rooted(settings: &Settings, client: &Client) -> Result<Client, Option<OpenError>> {
    let chroot = settings.connect.chroot();
    if chroot.is_empty() {
        return Ok(client.clone());
    }
    // Making what is there would ask for the right to make it.
    if client.check_stat(chroot).await.map_err(|error| refused(settings, "read", "", &error))?.is_none() {
        let made = client.mkdir(chroot, &PERSISTENT).await;
        made.map_err(|error| refused(settings, "make", "", &error))?;
    }
    let wrong = |_| OpenError::Other { at: settings.connect.to_string(), why: "the chroot is no path".to_owned() };
    client.clone().chroot(chroot).map_err(|client| Some(wrong(client)))
}

async fn format(settings: &Settings, client: &Client) -> Result<(), Option<OpenError>> {
    loop {
        match client.get_data(FORMAT_PATH).await {
            Ok((bytes, _)) => {
                Format::decode(&bytes).map_err(|error| Some(OpenError::from(error)))?;
                return Ok(());
            }
            Err(Error::NoNode) => create(settings, client, FORMAT_PATH, &Format::CURRENT.encode()).await?,
            Err(error) => return Err(refused(settings, "read", FORMAT_PATH, &error)),
        }
    }
}

async fn create(
    settings: &Settings,
    client: &Client,
    path: &'static str,
    bytes: &[u8],
) -> Result<(), Option<OpenError>> {
    match client.create(path, bytes, &PERSISTENT).await {
        Ok(_) | Err(Error::NodeExists) => Ok(()),
        Err(error) => Err(refused(settings, "make", path, &error)),
    }
}

/// The reason why there is no use in trying again; `None`: there is.
fn refused(settings: &Settings, what: &'static str, path: &str, error: &Error) -> Option<OpenError> {
    let servers = settings.connect.servers().to_owned();
    match error {
        Error::AuthFailed => Some(OpenError::Authentication { servers }),
        Error::NoAuth => Some(OpenError::Forbidden { what, path: format!("{}{path}", settings.connect.chroot()) }),
        Error::Unimplemented => Some(OpenError::TooOld { servers }),
        Error::BadArguments(_) | Error::InvalidAcl => {
            Some(OpenError::Other { at: settings.connect.to_string(), why: error.to_string() })
        }
        _ => None,
    }
}
