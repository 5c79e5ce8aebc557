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

/// Connects, for as long as it takes. With `session`: that one, until a server says that it has
/// ended. The client library takes a session for expired when it was without a server for 7/5 of
/// its timeout; whether it is, only a server knows.
pub async fn connect(settings: Settings, session: Option<SessionInfo>) -> Result<Link, Failure> {
    let (resumes, mut session) = (session.is_some(), session);
    loop {
        match open(&settings, session.clone(), true).await {
            Ok(client) => match prepare(&settings, &client).await {
                Ok(link) => {
                    if !resumes {
                        warn_if_shorter(settings.session_timeout, link.client.session_timeout());
                    }
                    return Ok(link);
                }
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

/// The ensemble bounds what it grants (`maxSessionTimeout`, 20 ticks without it).
fn warn_if_shorter(asked: Duration, granted: Duration) {
    if let Some(line) = shorter_session(asked, granted) {
        tracing::warn!("{line}");
    }
}

fn shorter_session(asked: Duration, granted: Duration) -> Option<String> {
    (granted < asked).then(|| {
        format!(
            "ZooKeeper grants a session of {} ms, not the {} ms of zookeeper.session.timeout.ms: a broker that is away for that long counts as \
             dead. Its maxSessionTimeout (20 times tickTime where it is not set) is the limit",
            granted.as_millis(),
            asked.as_millis()
        )
    })
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

/// Makes ready what the store needs, however often the connection is lost meanwhile. `None`: the
/// library has given the session up. A client that goes before would come back for the session,
/// and take it from the next.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_that_is_shorter_than_asked_for_is_told() {
        let line = |asked, granted| shorter_session(Duration::from_millis(asked), Duration::from_millis(granted));
        assert_eq!((line(18_000, 18_000), line(3_000, 4_000)), (None, None));
        assert!(line(60_000, 40_000).is_some_and(|line| line.contains("40000 ms, not the 60000 ms")));
    }
}
