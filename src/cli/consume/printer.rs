//! Records on their way to standard output.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::ops::ControlFlow;
use std::os::fd::AsFd;

use super::shape::Shape;
use crate::client::consumer::Chunk;
use crate::runtime::spawn_blocking;

/// Printed records that are in memory, about.
const BUFFER_BYTES: usize = 4 << 20;

/// State of the output: still read, or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum More {
    Yes,
    /// As many as were asked for have been printed, or nobody reads on.
    No,
}

pub(super) struct Printer {
    topic: String,
    shape: Shape,
    /// Records that may still be printed.
    left: Option<u64>,
    buffer: Vec<u8>,
    /// Records in the buffer: where each ends, and the offset after it.
    ends: Vec<(usize, i64)>,
}

/// Fate of the buffer.
enum Written {
    All,
    /// The reader is gone; it took so many bytes before.
    Part(usize),
}

impl Printer {
    pub fn new(topic: String, shape: Shape, count: Option<u64>) -> Printer {
        Printer { topic, shape, left: count, buffer: Vec::new(), ends: Vec::new() }
    }

    /// Prints what was asked for of these batches, without holding the shard up. `printed` is told
    /// after each part that has been written how far it is.
    pub async fn print(&mut self, mut chunk: Chunk, mut printed: impl FnMut(i32, i64)) -> Result<More, String> {
        let partition = chunk.partition;
        loop {
            let mut at = chunk.from;
            let mut stopped = false;
            let outcome = chunk.each(&mut |record| {
                self.shape.print(&mut self.buffer, (&self.topic, partition), record);
                at = record.0.meta.offset + 1;
                self.ends.push((self.buffer.len(), at));
                self.left = self.left.map(|left| left.saturating_sub(1));
                stopped = self.left == Some(0) || self.buffer.len() >= BUFFER_BYTES;
                if stopped { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            let written = self.write().await;
            let mut ends = std::mem::take(&mut self.ends);
            if let Written::Part(bytes) = written? {
                let taken = ends.partition_point(|(end, _)| *end <= bytes);
                if let Some((_, next)) = ends[..taken].last() {
                    printed(partition, *next);
                }
                return Ok(More::No);
            }
            ends.clear();
            self.ends = ends;
            if outcome.is_ok() && !stopped {
                at = chunk.end.map_or(chunk.next, |end| chunk.next.min(end));
            }
            printed(partition, at);
            outcome.map_err(|why| format!("{}-{partition}: {why}", self.topic))?;
            if self.left == Some(0) {
                return Ok(More::No);
            }
            if !stopped {
                return Ok(More::Yes);
            }
            chunk.from = at;
        }
    }

    async fn write(&mut self) -> Result<Written, String> {
        if self.buffer.is_empty() {
            return Ok(Written::All);
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        let write = move || {
            // Not by way of `stdout`, whose buffer would hide how much was taken.
            let stdout = io::stdout().as_fd().try_clone_to_owned().map(File::from);
            let outcome = stdout.and_then(|mut stdout| write_some(&mut stdout, &buffer));
            buffer.clear();
            (buffer, outcome)
        };
        let (buffer, outcome) = spawn_blocking(write).await;
        self.buffer = buffer;
        outcome.map_err(|error| format!("cannot write to stdout: {error}"))
    }
}

/// Writes all that is taken.
fn write_some(out: &mut impl Write, bytes: &[u8]) -> io::Result<Written> {
    let mut written = 0;
    while written < bytes.len() {
        match out.write(&bytes[written..]) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(n) => written += n,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(Written::Part(written)),
            Err(error) => return Err(error),
        }
    }
    Ok(Written::All)
}
