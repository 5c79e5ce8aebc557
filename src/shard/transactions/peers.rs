//! Connections to the other brokers of a cluster, for what coordinators and
//! leaders ask of each other.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::client::cluster_client::{Manner, open_as};
use crate::client::{ClientError, Connection};
use crate::model::BrokerId;
use crate::runtime::clock;
use crate::shard::Shard;

/// Connections to one broker that are kept open.
const MOST_IDLE: usize = 4;
const MANNER: Manner = Manner { client_id: "corelane", most_response_bytes: 8 << 20 };
/// A broker that takes longer is asked again, or another one in its place.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connections of this shard on which nothing is said at present.
#[derive(Default)]
pub struct Peers(RefCell<HashMap<BrokerId, Vec<Connection>>>);

impl Peers {
    fn take(&self, broker: BrokerId) -> Option<Connection> {
        self.0.borrow_mut().get_mut(&broker)?.pop()
    }

    fn keep(&self, broker: BrokerId, connection: Connection) {
        let mut peers = self.0.borrow_mut();
        let idle = peers.entry(broker).or_default();
        if idle.len() < MOST_IDLE {
            idle.push(connection);
        }
    }

    fn forget(&self, broker: BrokerId) {
        self.0.borrow_mut().remove(&broker);
    }
}

impl Shard {
    /// Asks another broker, over a connection of its own while it lasts. What is asked may be asked
    /// twice: a connection that was kept may have ended meanwhile.
    pub(super) async fn ask_peer<R>(
        &self,
        broker: BrokerId,
        ask: impl AsyncFn(&mut Connection) -> Result<R, ClientError>,
    ) -> Result<R, ClientError> {
        let deadline = clock::now() + PATIENCE;
        let asking = async {
            if let Some(mut kept) = self.peers.take(broker) {
                if let Ok(answer) = ask(&mut kept).await {
                    self.peers.keep(broker, kept);
                    return Ok(answer);
                }
                self.peers.forget(broker);
            }
            let mut connection = self.connect_to(broker, deadline).await?;
            let answer = ask(&mut connection).await?;
            self.peers.keep(broker, connection);
            Ok(answer)
        };
        let late = || {
            let what = format!("the answer of broker {broker}");
            Err(ClientError::NoAnswer { what, seconds: PATIENCE.as_secs() })
        };
        clock::until(deadline, asking).await.unwrap_or_else(late)
    }

    async fn connect_to(&self, broker: BrokerId, deadline: Instant) -> Result<Connection, ClientError> {
        let unknown = || ClientError::Other(format!("broker {broker} has no address"));
        let (host, port) = self.address_of(broker).ok_or_else(unknown)?;
        let (_, connection) = open_as(MANNER, &host, port, deadline).await?;
        Ok(connection)
    }
}
