//! One connection's state without its socket: which requests are under way, and where
//! responses begin and end.

use std::collections::VecDeque;
use std::ops::Range;

use super::error::ClientError;

const LENGTH_BYTES: usize = 4;
/// Every response begins with a correlation id.
const CORRELATION_BYTES: usize = 4;
/// A longer response is no response but a stream out of step.
pub const MAX_RESPONSE_BYTES: usize = 512 << 20;
const FIRST_BUFFER_BYTES: usize = 64 << 10;

/// Requests sent and not yet answered, each with what its sender wants to remember. A broker
/// answers a connection's requests in their order.
pub struct InFlight<T> {
    next_id: i32,
    waiting: VecDeque<(i32, T)>,
}

impl<T> Default for InFlight<T> {
    fn default() -> Self {
        InFlight { next_id: 0, waiting: VecDeque::new() }
    }
}

impl<T> InFlight<T> {
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The next request's correlation id, for one that gets no answer (Produce with acks=0).
    pub fn take_id(&mut self) -> i32 {
        let id = self.next_id;
        self.next_id = self.next_id.wrapping_add(1) & i32::MAX;
        id
    }

    /// The next request's correlation id; `tag` comes back with its response.
    pub fn begin(&mut self, tag: T) -> i32 {
        let id = self.take_id();
        self.waiting.push_back((id, tag));
        id
    }

    /// The tag of the request that this response (from its correlation id on) answers.
    pub fn end(&mut self, response: &[u8]) -> Result<T, ClientError> {
        let found = response.first_chunk().map_or(-1, |bytes| i32::from_be_bytes(*bytes));
        match self.waiting.pop_front() {
            Some((id, tag)) if id == found => Ok(tag),
            other => Err(ClientError::OutOfStep { found, wanted: other.map(|(id, _)| id) }),
        }
    }

    /// Gives up the requests that will not be answered any more.
    pub fn abandon(&mut self) -> impl Iterator<Item = T> + '_ {
        self.waiting.drain(..).map(|(_, tag)| tag)
    }
}

/// Cuts what arrives into responses, in one buffer that grows to the largest of
/// them and is used again.
pub struct Frames {
    buffer: Vec<u8>,
    begin: usize,
    end: usize,
    most_bytes: usize,
}

impl Default for Frames {
    fn default() -> Self {
        Frames { buffer: vec![0; FIRST_BUFFER_BYTES], begin: 0, end: 0, most_bytes: MAX_RESPONSE_BYTES }
    }
}

impl Frames {
    /// Refuses responses that are longer than this.
    pub fn limit(&mut self, most_bytes: usize) {
        self.most_bytes = most_bytes.min(MAX_RESPONSE_BYTES);
    }

    /// Where to put what arrives next; never empty. Ends the life of every frame taken so far.
    pub fn space(&mut self) -> &mut [u8] {
        if self.begin == self.end {
            (self.begin, self.end) = (0, 0);
        }
        // `take` has refused lengths that are none.
        let wanted = LENGTH_BYTES + self.announced().map_or(0, |length| usize::try_from(length).unwrap_or(0));
        if self.begin + wanted > self.buffer.len() || self.end == self.buffer.len() {
            self.buffer.copy_within(self.begin..self.end, 0);
            (self.begin, self.end) = (0, self.end - self.begin);
            let room = wanted.max(self.end + 1);
            if room > self.buffer.len() {
                self.buffer.resize(room.next_power_of_two(), 0);
            }
        }
        &mut self.buffer[self.end..]
    }

    /// Marks `n` bytes of [`space`](Self::space) as filled.
    pub fn filled(&mut self, n: usize) {
        self.end = (self.end + n).min(self.buffer.len());
    }

    /// The next whole response (from its correlation id on), if one is there.
    pub fn take(&mut self) -> Result<Option<Range<usize>>, ClientError> {
        let Some(length) = self.announced() else { return Ok(None) };
        let Some(length) = usize::try_from(length).ok().filter(|l| (CORRELATION_BYTES..=self.most_bytes).contains(l))
        else {
            return Err(ClientError::ResponseTooLarge(i64::from(length)));
        };
        let start = self.begin + LENGTH_BYTES;
        if self.end - start < length {
            return Ok(None);
        }
        self.begin = start + length;
        Ok(Some(start..self.begin))
    }

    /// The bytes of a range that [`take`](Self::take) gave.
    pub fn bytes(&self, range: Range<usize>) -> &[u8] {
        self.buffer.get(range).unwrap_or_default()
    }

    fn announced(&self) -> Option<i32> {
        self.buffer[self.begin..self.end].first_chunk().map(|bytes| i32::from_be_bytes(*bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(id: i32, len: usize) -> Vec<u8> {
        let mut bytes = (len as i32 + 4).to_be_bytes().to_vec();
        bytes.extend(id.to_be_bytes());
        bytes.extend((0..len).map(|i| (i * 7 + id as usize) as u8));
        bytes
    }

    #[test]
    fn responses_come_out_as_they_went_in_however_they_are_cut() {
        let sizes = [0, 1, 60, FIRST_BUFFER_BYTES - 8, FIRST_BUFFER_BYTES, 3 * FIRST_BUFFER_BYTES, 5, 0, 70_000];
        let stream: Vec<u8> = sizes.iter().enumerate().flat_map(|(id, len)| response(id as i32, *len)).collect();
        for step in [1, 3, 1000, 65_536, usize::MAX] {
            let (mut frames, mut found, mut at) = (Frames::default(), 0, 0);
            while at < stream.len() {
                let space = frames.space();
                assert!(!space.is_empty());
                let n = space.len().min(step).min(stream.len() - at);
                space[..n].copy_from_slice(&stream[at..at + n]);
                frames.filled(n);
                at += n;
                while let Some(range) = frames.take().unwrap() {
                    assert_eq!(frames.bytes(range), &response(found, sizes[found as usize])[4..], "step {step}");
                    found += 1;
                }
            }
            assert_eq!(found as usize, sizes.len(), "step {step}");
        }
    }

    #[test]
    fn lengths_that_are_none_are_refused() {
        for length in [-1, 0, 3, i32::MAX] {
            let mut frames = Frames::default();
            frames.space()[..4].copy_from_slice(&length.to_be_bytes());
            frames.filled(4);
            assert!(matches!(frames.take(), Err(ClientError::ResponseTooLarge(_))), "{length}");
        }
        let mut frames = Frames::default();
        frames.limit(100);
        frames.space()[..4].copy_from_slice(&100i32.to_be_bytes());
        frames.filled(4);
        assert!(matches!(frames.take(), Ok(None)));
        frames.limit(99);
        assert!(matches!(frames.take(), Err(ClientError::ResponseTooLarge(100))));
    }

    #[test]
    fn answers_are_matched_in_order_and_nothing_else_is() {
        let mut flight = InFlight::default();
        assert_eq!((flight.begin('a'), flight.take_id(), flight.begin('b')), (0, 1, 2));
        assert_eq!(flight.end(&0i32.to_be_bytes()).unwrap(), 'a');
        assert!(matches!(flight.end(&1i32.to_be_bytes()), Err(ClientError::OutOfStep { found: 1, wanted: Some(2) })));
        assert!(matches!(flight.end(&3i32.to_be_bytes()), Err(ClientError::OutOfStep { found: 3, wanted: None })));
    }
}
