//! One request on its way to a leader, in a task of its own.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::ApiKey;

use crate::client::cluster_client::{Bootstrap, CLIENT_ID, open};
use crate::client::{ClientError, Connection};
use crate::protocol::asking::{Caller, PRODUCE_VERSIONS, Produced, produce_request, read_produce_response};
use crate::runtime::clock;

/// Time for an answer beyond the time that the broker was given for its work.
const SLACK: Duration = Duration::from_secs(5);

/// Batches for one broker.
pub(super) struct Parcel {
    pub broker: i32,
    pub place: Bootstrap,
    /// An open one, if there is one.
    pub connection: Option<Connection>,
    pub topic: String,
    pub acks: i16,
    /// For the broker to have it replicated.
    pub timeout: Duration,
    pub batches: Vec<(i32, Bytes)>,
}

/// The broker's answer about one batch.
pub(super) struct Answer {
    pub partition: i32,
    pub code: i16,
    /// -1: not told.
    pub base_offset: i64,
    pub message: Option<String>,
}

/// The end of a parcel.
pub(super) struct Delivered {
    pub broker: i32,
    pub partitions: Vec<i32>,
    /// To be used again.
    pub connection: Option<Connection>,
    pub outcome: Result<Vec<Answer>, ClientError>,
}

impl Parcel {
    pub async fn deliver(mut self) -> Delivered {
        let partitions = self.batches.iter().map(|(partition, _)| *partition).collect();
        match self.exchange().await {
            Ok((connection, answers)) => {
                Delivered { broker: self.broker, partitions, connection: Some(connection), outcome: Ok(answers) }
            }
            Err(error) => {
                let broker = format!("broker {} ({}:{})", self.broker, self.place.0, self.place.1);
                let error = match error {
                    ClientError::Io(error) => std::io::Error::new(error.kind(), format!("{broker}: {error}")).into(),
                    other => other,
                };
                Delivered { broker: self.broker, partitions, connection: None, outcome: Err(error) }
            }
        }
    }

    async fn exchange(&mut self) -> Result<(Connection, Vec<Answer>), ClientError> {
        let within = self.timeout + SLACK;
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => open(&self.place.0, self.place.1, clock::now() + within).await?.1,
        };
        let version = connection.versions().pick(ApiKey::Produce, PRODUCE_VERSIONS)?;
        let caller = Caller { client_id: CLIENT_ID, version };
        let timeout_ms = i32::try_from(self.timeout.as_millis()).unwrap_or(i32::MAX);
        let (acks, topic, batches) = (self.acks, self.topic.as_str(), &self.batches);
        let make = |id| produce_request(caller, id, acks, timeout_ms, topic, batches);
        if acks == 0 {
            connection.tell(make).await?;
            let sent = |(partition, _): &(i32, Bytes)| Answer {
                partition: *partition,
                code: 0,
                base_offset: -1,
                message: None,
            };
            return Ok((connection, self.batches.iter().map(sent).collect()));
        }
        let frame = connection.exchange(within, "Produce", make).await?;
        let mut answers = Vec::new();
        read_produce_response(version, frame, |produced| answers.push(answer(&produced)))?;
        Ok((connection, answers))
    }
}

fn answer(produced: &Produced<'_>) -> Answer {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let message = match (produced.message.map(text), produced.record_error) {
        (message, Some((index, Some(words)))) => {
            let record = format!("record {index} of the batch: {}", text(words));
            Some(message.map_or_else(|| record.clone(), |message| format!("{message} ({record})")))
        }
        (message, _) => message,
    };
    Answer { partition: produced.partition, code: produced.error_code, base_offset: produced.base_offset, message }
}
