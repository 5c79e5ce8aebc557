//! One fetch from a leader, in a task of its own.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::ApiKey;

use crate::client::cluster_client::{Bootstrap, CLIENT_ID, open};
use crate::client::{ClientError, Connection};
use crate::protocol::asking::{Caller, FETCH_VERSIONS, FetchLimits, fetch_request};
use crate::runtime::clock;

/// For the broker to answer, beyond the time that it may wait for records.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Questions for one broker.
pub(super) struct Ask {
    pub broker: i32,
    pub place: Bootstrap,
    /// An open one, if there is one.
    pub connection: Option<Connection>,
    pub topic: String,
    pub limits: FetchLimits,
    /// Index and offset.
    pub places: Vec<(i32, i64)>,
    /// Of the assignment that they belong to.
    pub generation: u64,
}

/// Its outcome.
pub(super) struct Told {
    pub broker: i32,
    pub places: Vec<(i32, i64)>,
    pub generation: u64,
    /// To be used again.
    pub connection: Option<Connection>,
    /// The version, and the frame from its correlation id on.
    pub outcome: Result<(i16, Bytes), ClientError>,
}

impl Ask {
    pub async fn carry_out(mut self) -> Told {
        let (connection, outcome) = match self.exchange().await {
            Ok((connection, version, frame)) => (Some(connection), Ok((version, frame))),
            Err(ClientError::Io(error)) => {
                let broker = format!("broker {} ({}:{})", self.broker, self.place.0, self.place.1);
                (None, Err(io::Error::new(error.kind(), format!("{broker}: {error}")).into()))
            }
            Err(error) => (None, Err(error)),
        };
        let Ask { broker, places, generation, .. } = self;
        Told { broker, places, generation, connection, outcome }
    }

    async fn exchange(&mut self) -> Result<(Connection, i16, Bytes), ClientError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => open(&self.place.0, self.place.1, clock::now() + ANSWER_WITHIN).await?.1,
        };
        let version = connection.versions().pick(ApiKey::Fetch, FETCH_VERSIONS)?;
        let caller = Caller { client_id: CLIENT_ID, version };
        let (topic, limits, places) = (self.topic.as_str(), self.limits, self.places.iter().copied());
        let make = |id| fetch_request(caller, id, limits, topic, places);
        let within = ANSWER_WITHIN + Duration::from_millis(u64::try_from(limits.max_wait_ms).unwrap_or(0));
        let frame = Bytes::copy_from_slice(connection.exchange(within, "Fetch", make).await?);
        Ok((connection, version, frame))
    }
}
