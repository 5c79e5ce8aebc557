//! The driver of one connection: sockets from [`runtime`](crate::runtime), everything else
//! from [`core`](super::core).

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::{ApiKey, ApiVersionsRequest};
use kafka_protocol::protocol::Request;

use super::api::{self, Versions};
use super::core::{Frames, InFlight};
use super::error::ClientError;
use crate::runtime::{clock, net};

const CONNECT_WITHIN: Duration = Duration::from_secs(10);
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// The sending half.
pub struct Sender {
    writer: net::Writer,
    queue: VecDeque<Bytes>,
}

impl Sender {
    /// Adds to what [`flush`](Self::flush) sends.
    pub fn push(&mut self, bytes: Bytes) {
        self.queue.push_back(bytes);
    }

    /// Hands everything to the kernel.
    pub async fn flush(&mut self) -> Result<(), ClientError> {
        Ok(self.writer.send_all(&mut self.queue).await?)
    }

    /// Ends both directions; a pending [`Receiver::next`] ends too.
    pub fn shutdown(&self) {
        self.writer.shutdown();
    }
}

/// The receiving half.
pub struct Receiver {
    reader: net::Reader,
    frames: Frames,
}

impl Receiver {
    /// The next response, from its correlation id on. After a drop in mid-wait
    /// nothing more may be read.
    pub async fn next(&mut self) -> Result<&[u8], ClientError> {
        loop {
            if let Some(range) = self.frames.take()? {
                return Ok(self.frames.bytes(range));
            }
            match self.reader.read(self.frames.space()).await? {
                0 => return Err(ClientError::Ended),
                n => self.frames.filled(n),
            }
        }
    }
}

/// A connection on which nothing is said any more.
pub struct Idle {
    reader: net::Reader,
    _writer: net::Writer,
}

impl Idle {
    /// The other end has not ended it. What it sends is thrown away.
    pub fn is_open(&mut self) -> bool {
        !matches!(self.reader.skip(usize::MAX >> 1), Ok(Some(0)) | Err(_))
    }
}

/// A connection that asks one thing at a time, until it is [split](Self::split).
pub struct Connection {
    sender: Sender,
    receiver: Receiver,
    client_id: &'static str,
    flight: InFlight<()>,
    versions: Versions,
}

impl Connection {
    /// Connects and asks what the broker serves. Call on a shard.
    pub async fn open(address: SocketAddr, client_id: &'static str) -> Result<Connection, ClientError> {
        let (reader, writer) = net::connect(address, CONNECT_WITHIN).await?;
        let mut connection = Connection {
            sender: Sender { writer, queue: VecDeque::new() },
            receiver: Receiver { reader, frames: Frames::default() },
            client_id,
            flight: InFlight::default(),
            versions: Versions::default(),
        };
        let answer = connection.call(0, &ApiVersionsRequest::default()).await?;
        if answer.error_code != 0 {
            return Err(ClientError::Broker { what: "ApiVersions".into(), code: answer.error_code });
        }
        connection.versions = Versions::new(&answer);
        Ok(connection)
    }

    /// Refuses responses that are longer than this.
    pub fn limit_responses(&mut self, most_bytes: usize) {
        self.receiver.frames.limit(most_bytes);
    }

    pub fn versions(&self) -> &Versions {
        &self.versions
    }

    /// One request and its response; after an error the connection is of no use any more.
    pub async fn call<R: Request>(&mut self, version: i16, request: &R) -> Result<R::Response, ClientError> {
        let id = self.flight.begin(());
        self.sender.push(api::encode(version, id, self.client_id, request)?);
        let (sender, receiver, flight) = (&mut self.sender, &mut self.receiver, &mut self.flight);
        let exchange = async {
            sender.flush().await?;
            let frame = receiver.next().await?;
            flight.end(frame)?;
            api::decode::<R>(version, frame)
        };
        match clock::until(clock::now() + ANSWER_WITHIN, exchange).await {
            Some(answer) => answer,
            None => Err(ClientError::NoAnswer {
                what: ApiKey::try_from(R::KEY).map_or_else(|()| format!("API {}", R::KEY), |key| format!("{key:?}")),
                seconds: ANSWER_WITHIN.as_secs(),
            }),
        }
    }

    /// One frame, made for its correlation id, and its answer (from its correlation id on); after
    /// an error, or when dropped before its end, the connection is of no use any more.
    pub async fn exchange(
        &mut self,
        within: Duration,
        what: &str,
        make: impl FnOnce(i32) -> Bytes,
    ) -> Result<&[u8], ClientError> {
        let id = self.flight.begin(());
        self.sender.push(make(id));
        let (sender, receiver, flight) = (&mut self.sender, &mut self.receiver, &mut self.flight);
        let exchange = async {
            sender.flush().await?;
            let frame = receiver.next().await?;
            flight.end(frame)?;
            Ok(frame)
        };
        let late = || Err(ClientError::NoAnswer { what: what.to_owned(), seconds: within.as_secs() });
        clock::until(clock::now() + within, exchange).await.unwrap_or_else(late)
    }

    /// One frame that gets no answer (Produce with acks=0).
    pub async fn tell(&mut self, make: impl FnOnce(i32) -> Bytes) -> Result<(), ClientError> {
        let id = self.flight.take_id();
        self.sender.push(make(id));
        self.sender.flush().await
    }

    /// Only keeps it open, in the memory of a socket. Nothing is under way.
    pub fn hold(self) -> Idle {
        Idle { reader: self.receiver.reader, _writer: self.sender.writer }
    }

    /// The halves, for requests that do not wait for each other. Nothing is under way.
    pub fn split(self) -> (Sender, Receiver) {
        (self.sender, self.receiver)
    }
}
