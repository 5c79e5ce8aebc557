//! The null broker's socket side: one thread, every connection a task.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::mpsc;

use bytes::Bytes;
use futures_lite::future::or;
use kafka_protocol::messages::ApiKey;

use super::answers::{Cache, Facts};
use super::behind::Behind;
use super::log::{EndlessLog, Spoil};
use crate::protocol::{Malformed, parse_prefix, produce};
use crate::runtime::clock;
use crate::runtime::executor::{ShardSpec, run_shards};
use crate::runtime::net::{Listener, Reader, Writer};
use crate::runtime::process::{self, StopFlag};
use crate::runtime::spawn_local;

const LENGTH_BYTES: usize = 4;
const PREFIX_BYTES: usize = 8;
/// Bytes read at a time: a Produce request's beginning, or many small requests.
const BUFFER_BYTES: usize = 4 << 10;
/// The same where the requests' bytes are received into memory.
const RECEIVE_BYTES: usize = 256 << 10;
/// Kafka's own default (socket.request.max.bytes).
const MAX_FRAME_BYTES: usize = 100 << 20;
/// Slices of answers that wait for more of them.
const MAX_QUEUED: usize = 16;
/// Refusals that are told; a scanner could fill a disk with more.
const TOLD: u32 = 20;

const IO_MEMORY_BYTES: usize = 1 << 20;
/// With a file to write to.
const WRITING_IO_MEMORY_BYTES: usize = 16 << 20;

#[derive(Clone, Debug)]
pub struct Null {
    pub listen: SocketAddr,
    pub cpu: Option<usize>,
    /// Of every topic.
    pub partitions: i32,
    /// Of the records that a Fetch brings.
    pub record_size: usize,
    pub batch_bytes: usize,
    pub spoil: Option<Spoil>,
    /// Takes the batches into memory, as any broker has to, instead of letting
    /// the kernel drop them.
    pub receive: bool,
    /// Writes what it received to this file, made new, in large groups behind the acknowledgement.
    pub write_behind: Option<PathBuf>,
}

/// Serves until SIGINT or SIGTERM. `ready` gets the address once connections are taken; `refused`
/// why a connection was ended.
pub fn serve(
    options: &Null,
    ready: impl FnOnce(SocketAddr),
    refused: impl Fn(&str) + Clone + Send + 'static,
) -> io::Result<()> {
    let stop = StopFlag::default();
    let io_memory_bytes = if options.write_behind.is_some() { WRITING_IO_MEMORY_BYTES } else { IO_MEMORY_BYTES };
    let spec = ShardSpec { index: 0, cpu: options.cpu, io_memory_bytes };
    let (sender, listening) = mpsc::channel();
    let (all, shard_stop) = (options.clone(), stop.clone());
    let running = run_shards(vec![spec], move |_| {
        let (options, stop, sender, refused) = (all.clone(), shard_stop.clone(), sender.clone(), refused.clone());
        async move {
            let outcome = Box::pin(accept(&options, &stop, |address| drop(sender.send(Ok(address))), refused)).await;
            if let Err(error) = outcome {
                let _ = sender.send(Err(error));
            }
            stop.set();
        }
    })?;
    ready(listening.recv().map_err(|_| io::Error::other("the serving thread has ended"))??);
    process::wait_for_stop(&stop)?;
    running.join();
    // The listener itself may have failed later.
    listening.try_recv().map_or(Ok(()), |outcome| outcome.map(drop))
}

async fn accept(
    options: &Null,
    stop: &StopFlag,
    ready: impl FnOnce(SocketAddr),
    refused: impl Fn(&str) + Clone + 'static,
) -> io::Result<()> {
    let listener = Listener::bind(options.listen)?;
    let address = listener.local_addr()?;
    let log = EndlessLog::new(options.record_size, options.batch_bytes, options.spoil);
    let behind = match &options.write_behind {
        Some(path) => Some(Behind::new(path).await?),
        None => None,
    };
    let facts = Rc::new(Facts { address, partitions: options.partitions, log });
    ready(address);
    let (told, receive) = (Rc::new(Cell::new(0)), options.receive || behind.is_some());
    let ended = async {
        while !stop.is_set() {
            clock::sleep(StopFlag::POLL).await;
        }
        Ok(())
    };
    let serving = async {
        loop {
            let (reader, writer) = listener.accept().await?;
            let (facts, told, refused, behind) = (facts.clone(), told.clone(), refused.clone(), behind.clone());
            spawn_local(async move {
                let client = Client { behind, ..Client::new(reader, writer, facts, receive) };
                let why = match client.serve().await {
                    Ok(()) | Err(Ending::Io) => return,
                    Err(Ending::Malformed(problem)) => problem.to_string(),
                    Err(Ending::Write(error)) => error.to_string(),
                };
                if told.replace(told.get() + 1) < TOLD {
                    refused(&why);
                }
            });
        }
    };
    or(ended, serving).await
}

enum Ending {
    Io,
    Write(io::Error),
    Malformed(Malformed),
}

impl From<io::Error> for Ending {
    fn from(_: io::Error) -> Ending {
        Ending::Io
    }
}

impl From<Malformed> for Ending {
    fn from(problem: Malformed) -> Ending {
        Ending::Malformed(problem)
    }
}

struct Client {
    reader: Reader,
    writer: Writer,
    facts: Rc<Facts>,
    cache: Cache,
    /// Arrived bytes lie in `begin..end`, beginning with a frame's length.
    buffer: Vec<u8>,
    begin: usize,
    end: usize,
    /// Produce answers, then everything else that follows them.
    small: Vec<u8>,
    answers: VecDeque<Bytes>,
    receive: bool,
    behind: Option<Rc<Behind>>,
}

/// State of the front of the buffer.
enum Front {
    /// Answered, and the frame goes on for so many bytes.
    Answered(usize),
    /// More is needed; the frame has so many bytes, its length's own included.
    Incomplete(usize),
}

impl Client {
    fn new(reader: Reader, writer: Writer, facts: Rc<Facts>, receive: bool) -> Client {
        let buffer = vec![0; if receive { RECEIVE_BYTES } else { BUFFER_BYTES }];
        let (cache, small, answers) = (Cache::default(), Vec::new(), VecDeque::new());
        Client { reader, writer, facts, cache, buffer, begin: 0, end: 0, small, answers, receive, behind: None }
    }

    /// Until the client ends the connection, or says what cannot be understood.
    async fn serve(mut self) -> Result<(), Ending> {
        loop {
            match self.front()? {
                Front::Answered(length) => {
                    self.pass(length).await?;
                    // Requests that a client sends ahead must not pile up here as answers.
                    if self.answers.len() > MAX_QUEUED {
                        self.flush().await?;
                    }
                }
                Front::Incomplete(length) => {
                    self.flush().await?;
                    if !self.fill(length).await? {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn front(&mut self) -> Result<Front, Ending> {
        let arrived = &self.buffer[self.begin..self.end];
        let Some((length, rest)) = arrived.split_first_chunk::<LENGTH_BYTES>() else {
            return Ok(Front::Incomplete(LENGTH_BYTES));
        };
        let declared = i32::from_be_bytes(*length);
        let length = usize::try_from(declared).ok().filter(|length| (PREFIX_BYTES..=MAX_FRAME_BYTES).contains(length));
        let Some(length) = length else {
            return Err(Malformed(format!("a frame declares {declared} bytes")).into());
        };
        if rest.len() < PREFIX_BYTES {
            return Ok(Front::Incomplete(LENGTH_BYTES + PREFIX_BYTES));
        }
        let prefix = parse_prefix(rest)?;
        if prefix.api_key == ApiKey::Produce as i16
            && let Some(single) = produce::peek_single(prefix.version, &rest[..rest.len().min(length)], length)
        {
            self.facts.acknowledge(prefix.version, prefix.correlation_id, &single, &mut self.cache, &mut self.small);
            return Ok(Front::Answered(LENGTH_BYTES + length));
        }
        if rest.len() < length {
            return Ok(Front::Incomplete(LENGTH_BYTES + length));
        }
        let frame = Bytes::copy_from_slice(&rest[..length]);
        self.settle();
        self.facts.answer(&frame, &mut self.answers)?;
        Ok(Front::Answered(LENGTH_BYTES + length))
    }

    /// Puts Produce answers in their place before what comes after them.
    fn settle(&mut self) {
        if !self.small.is_empty() {
            self.answers.push_back(Bytes::copy_from_slice(&self.small));
            self.small.clear();
        }
    }

    async fn flush(&mut self) -> Result<(), Ending> {
        self.settle();
        if !self.answers.is_empty() {
            self.writer.send_all(&mut self.answers).await?;
        }
        Ok(())
    }

    /// Steps over `length` bytes, some of which may not have arrived.
    async fn pass(&mut self, length: usize) -> Result<(), Ending> {
        let here = length.min(self.end - self.begin);
        self.keep(self.begin..self.begin + here).await?;
        self.begin += here;
        let mut left = length - here;
        while left > 0 {
            (self.begin, self.end) = (0, 0);
            if !self.receive
                && let Some(skipped) = self.reader.skip(left)?
            {
                if skipped == 0 {
                    return Err(Ending::Io);
                }
                left -= skipped;
                continue;
            }
            self.end = self.reader.read(&mut self.buffer).await?;
            if self.end == 0 {
                return Err(Ending::Io);
            }
            self.begin = left.min(self.end);
            self.keep(0..self.begin).await?;
            left -= self.begin;
        }
        Ok(())
    }

    async fn keep(&self, received: Range<usize>) -> Result<(), Ending> {
        match &self.behind {
            Some(behind) => behind.take(&self.buffer[received]).await.map_err(Ending::Write),
            None => Ok(()),
        }
    }

    /// Reads on; `false`: the client has ended. The buffer grows as a frame of `length`
    /// arrives, not on its promise.
    async fn fill(&mut self, length: usize) -> Result<bool, Ending> {
        if self.begin > 0 {
            self.buffer.copy_within(self.begin..self.end, 0);
            (self.begin, self.end) = (0, self.end - self.begin);
        }
        if self.end == self.buffer.len() {
            let room = (self.buffer.len() * 2).min(length.max(BUFFER_BYTES).next_power_of_two());
            self.buffer.resize(room.max(self.end + 1), 0);
        }
        let read = self.reader.read(&mut self.buffer[self.end..]).await?;
        self.end += read;
        Ok(read > 0)
    }
}
