//! A follower's connection to the broker that leads: one fetch at a time, its records left in the
//! frame that was received.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::core::InFlight;
use super::error::ClientError;
use crate::protocol::replica_fetch;
pub use crate::protocol::replica_fetch::{PartitionAnswer, ReplicaAnswer, ReplicaFetch, ReplicaPlace};
use crate::runtime::buffers::RecvBuf;
use crate::runtime::sync::{Budget, Permit};
use crate::runtime::{clock, net};

const LENGTH_BYTES: usize = 4;
/// Of a frame behind its length.
const CORRELATION_BYTES: usize = 4;
/// Buffers to wait for an answer in. They follow the size of the last one, and are not charged.
const SMALL_BYTES: usize = 4 << 10;
const LARGE_BYTES: usize = 256 << 10;

/// Bounds of an answer.
#[derive(Clone)]
pub struct Receiving {
    /// A longer frame is none.
    pub max_frame: usize,
    /// Charged with an answer's size before more than its beginning is received. A
    /// larger answer takes all of it.
    pub memory: Rc<Budget>,
    /// Set once an answer has begun to arrive.
    pub begun: Rc<Cell<bool>>,
}

/// An answer with its share of the memory, which is held as long as the records are.
pub struct Received {
    pub answer: ReplicaAnswer,
    pub memory: Permit,
}

/// An open connection.
pub struct LeaderConnection {
    reader: net::Reader,
    writer: net::Writer,
    client_id: String,
    flight: InFlight<()>,
    /// Size of the last frame.
    last: usize,
}

impl LeaderConnection {
    /// Connects to the first address of `host` that answers. Call on a shard.
    pub async fn open(
        (host, port): (&str, u16),
        client_id: String,
        timeout: Duration,
    ) -> Result<LeaderConnection, ClientError> {
        let mut failed = None;
        for address in net::resolve(host, port).await? {
            match net::connect(address, timeout).await {
                Ok((reader, writer)) => {
                    return Ok(LeaderConnection { reader, writer, client_id, flight: InFlight::default(), last: 0 });
                }
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.map_or_else(|| ClientError::Other(format!("{host} has no address")), ClientError::Io))
    }

    /// One request and its answer, by `deadline`. After an error, or when dropped before its end,
    /// the connection is of no use any more.
    pub async fn fetch(
        &mut self,
        request: &ReplicaFetch,
        receiving: &Receiving,
        deadline: Instant,
    ) -> Result<Received, ClientError> {
        let began = clock::now();
        receiving.begun.set(false);
        let exchange = async {
            let id = self.flight.begin(());
            let mut queue = VecDeque::from([request.encode(id, &self.client_id)]);
            self.writer.send_all(&mut queue).await?;
            let (frame, memory) = self.receive(receiving).await?;
            self.flight.end(&frame)?;
            Ok(Received { answer: replica_fetch::decode_answer(&frame)?, memory })
        };
        clock::until(deadline, exchange).await.unwrap_or_else(|| {
            let seconds = deadline.saturating_duration_since(began).as_secs();
            Err(ClientError::NoAnswer { what: "a replica's fetch".into(), seconds })
        })
    }

    /// The next frame, from its correlation id on. Nothing may follow it: one request is under way.
    async fn receive(&mut self, receiving: &Receiving) -> Result<(Bytes, Permit), ClientError> {
        let mut buffer = RecvBuf::take(self.last.clamp(SMALL_BYTES, LARGE_BYTES));
        while buffer.filled().len() < LENGTH_BYTES {
            read_some(&mut self.reader, &mut buffer, usize::MAX).await?;
            receiving.begun.set(true);
        }
        let declared = buffer.filled().first_chunk().map_or(0, |bytes| i32::from_be_bytes(*bytes));
        let length = usize::try_from(declared).ok();
        let Some(length) = length.filter(|length| (CORRELATION_BYTES..=receiving.max_frame).contains(length)) else {
            return Err(ClientError::ResponseTooLarge(i64::from(declared)));
        };
        let size = LENGTH_BYTES + length;
        let memory = receiving.memory.acquire(size).await;
        if buffer.capacity() < size {
            let mut larger = RecvBuf::take(size);
            let head = buffer.filled();
            larger.unfilled()[..head.len()].copy_from_slice(head);
            larger.advance(head.len());
            buffer = larger;
        }
        while buffer.filled().len() < size {
            let left = size - buffer.filled().len();
            read_some(&mut self.reader, &mut buffer, left).await?;
        }
        if buffer.filled().len() > size {
            return Err(ClientError::Other("the broker sent more than the answer to the one request".into()));
        }
        self.last = size;
        Ok((buffer.freeze().slice(LENGTH_BYTES..), memory))
    }
}

impl Drop for LeaderConnection {
    /// The ring holds the socket for a while yet; the leader shall not wait on it meanwhile.
    fn drop(&mut self) {
        self.writer.shutdown();
    }
}

/// Reads at most `limit` bytes, and at least one.
async fn read_some(reader: &mut net::Reader, buffer: &mut RecvBuf, limit: usize) -> Result<(), ClientError> {
    let space = buffer.unfilled();
    let end = space.len().min(limit);
    match reader.read(&mut space[..end]).await? {
        0 => Err(ClientError::Ended),
        n => {
            buffer.advance(n);
            Ok(())
        }
    }
}

#[cfg(test)]
pub(crate) use crate::protocol::replica_fetch::leaders_end;

#[cfg(test)]
#[path = "leader_tests.rs"]
mod tests;
