//! Cutting one connection's byte stream into frames.
//!
//! Memory follows arrival, never the declared length: a large frame's buffer doubles as it fills.
//! Only as much as this connection has already delivered in one frame is taken at once (so that
//! steady traffic is received into place, without a second copy).

use std::fmt;

use bytes::{Buf, Bytes};

use crate::runtime::buffers::RecvBuf;

use super::context::SMALL_REQUEST_BYTES;

/// Room beyond a frame's expected end: when a read leaves some of it empty, nothing more has
/// arrived, and no further read has to find that out. What does arrive there is copied to
/// the next frame's buffer.
const SLACK_BYTES: usize = 64;

/// The frame's length field.
pub const LENGTH_BYTES: usize = 4;
/// A quiet connection holds one buffer of this size.
pub const SMALL_BYTES: usize = 4 << 10;
/// The most that is taken ahead of arrival on the strength of earlier frames.
const TRUST_BYTES: usize = 1 << 20;
/// The largest buffer to wait in for a frame of which nothing has arrived.
pub const LOOKAHEAD_BYTES: usize = 256 << 10;
const _: () = assert!(SMALL_BYTES <= LOOKAHEAD_BYTES && LOOKAHEAD_BYTES <= TRUST_BYTES);

/// A length field that no frame can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub struct BadLength {
    pub declared: i32,
    pub max: usize,
}

impl fmt::Display for BadLength {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BadLength { declared, max } = self;
        match foreign_protocol(declared.to_be_bytes()) {
            Some(found) => write!(f, "{found}; this listener speaks Kafka's protocol in plain text (PLAINTEXT)"),
            None => {
                write!(f, "the frame declares {declared} bytes; allowed are 0 to {max} (socket.request.max.bytes)")
            }
        }
    }
}

/// Methods of HTTP, as requests begin with them, and the preface of HTTP/2.
const HTTP: &[&[u8; 4]] =
    &[b"GET ", b"POST", b"PUT ", b"HEAD", b"DELE", b"OPTI", b"PATC", b"CONN", b"TRAC", b"PRI ", b"HTTP"];

/// The protocol of a client that begins with these bytes where a frame's length is due. None of
/// these is a length that a frame can have: TLS and text declare more than 256 MiB.
fn foreign_protocol(bytes: [u8; 4]) -> Option<String> {
    Some(match bytes {
        [0x14..=0x17, 3, ..] => "the client speaks TLS (security.protocol=SSL or SASL_SSL)".into(),
        [0x80..=0xff, _, 1, 0 | 2 | 3] => "the client speaks SSL 2".into(),
        [b'\r', b'\n', b'\r', b'\n'] => "a proxy sends the PROXY protocol's header (version 2)".into(),
        _ if &bytes == b"PROX" => "a proxy sends the PROXY protocol's header (version 1)".into(),
        _ if HTTP.contains(&&bytes) => "the client speaks HTTP".into(),
        _ if &bytes == b"SSH-" => "the client speaks SSH".into(),
        _ if bytes.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\r' | b'\n' | b'\t')) => {
            format!("the client sends text (\"{}\")", bytes.escape_ascii())
        }
        _ => return None,
    })
}

/// Frames out of a stream. Use: [`next_frame`](Self::next_frame) until it has none, then
/// [`space`](Self::space), read into it, [`advance`](Self::advance).
pub struct FrameReceiver {
    max_frame: usize,
    /// Arrived bytes not handed out yet, starting at a frame's start; empty
    /// while `filling` holds any.
    arrived: Bytes,
    filling: Option<RecvBuf>,
    /// Size (length field included) of the last frame, and of the largest so far.
    last_frame: usize,
    largest_frame: usize,
}

/// A stream as far as it has come, without its shard's memory.
#[derive(Debug, Default)]
pub struct Begun {
    arrived: Vec<u8>,
    last_frame: usize,
    largest_frame: usize,
}

impl FrameReceiver {
    /// `max_frame`: the largest length a frame may declare. Goes on where `begun` was taken.
    pub fn new(max_frame: usize, begun: Begun) -> FrameReceiver {
        let Begun { arrived, last_frame, largest_frame } = begun;
        FrameReceiver { max_frame, arrived: arrived.into(), filling: None, last_frame, largest_frame }
    }

    /// For another receiver to go on with; what has arrived is copied.
    pub fn begun(&self) -> Begun {
        Begun { arrived: self.head().to_vec(), last_frame: self.last_frame, largest_frame: self.largest_frame }
    }

    /// The next frame that is whole, without its length field.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, BadLength> {
        if let Some(filling) = &self.filling {
            match frame_size(filling.filled(), self.max_frame)? {
                Some(size) if filling.filled().len() >= size => {}
                _ => return Ok(None),
            }
            if let Some(filling) = self.filling.take() {
                self.arrived = filling.freeze();
            }
        }
        match frame_size(&self.arrived, self.max_frame)? {
            Some(size) if self.arrived.len() >= size => {
                self.last_frame = size;
                self.largest_frame = self.largest_frame.max(size);
                let mut frame = self.arrived.split_to(size);
                if self.arrived.is_empty() {
                    // An empty slice would keep the buffer's memory.
                    self.arrived = Bytes::new();
                }
                frame.advance(LENGTH_BYTES);
                Ok(Some(frame))
            }
            _ => Ok(None),
        }
    }

    /// The size of the frame that has begun to arrive, once its length is known.
    pub fn begun_frame(&self) -> Option<usize> {
        frame_size(self.head(), self.max_frame).ok().flatten()
    }

    /// How much of the next frame has arrived.
    pub fn arrived_bytes(&self) -> usize {
        self.head().len()
    }

    /// Memory to be granted before more can be read: the size of the frame that has begun, and how
    /// large its buffer becomes. `None`: there is space, or the smallest buffer does.
    pub fn growth(&self) -> Option<(usize, usize)> {
        let size = self.begun_frame().filter(|size| *size > SMALL_BYTES && self.is_full())?;
        let have = self.arrived_bytes();
        // Less than a first buffer has: it costs nothing to wait for the rest of that.
        if have < SMALL_BYTES && self.largest_frame <= SMALL_BYTES {
            return None;
        }
        let trusted = if size <= SMALL_REQUEST_BYTES { size } else { self.largest_frame.min(TRUST_BYTES) };
        Some((size, size.min((have * 2).max(trusted).max(SMALL_BYTES))))
    }

    fn is_full(&self) -> bool {
        self.filling.as_ref().is_none_or(|buf| buf.filled().len() >= buf.capacity())
    }

    /// Bytes that the buffer for the next, not yet begun, frame should hold, judged by the last
    /// one.
    pub fn wanted_lookahead(&self) -> usize {
        if self.last_frame > SMALL_BYTES && self.last_frame <= LOOKAHEAD_BYTES { self.last_frame } else { 0 }
    }

    /// Where to read to; never empty. `granted`: how large a buffer may be taken, of the frame that
    /// grows ([`growth`](Self::growth)), or ahead of one that has not begun.
    pub fn space(&mut self, granted: usize) -> &mut [u8] {
        let begun = self.begun_frame();
        let have = self.arrived_bytes();
        if self.is_full() {
            let capacity = match begun {
                Some(size) => size.min(granted).max(SMALL_BYTES),
                None => granted.max(SMALL_BYTES),
            };
            let to_the_end = begun.is_none_or(|size| capacity >= size);
            let capacity = if capacity > SMALL_BYTES && to_the_end { capacity + SLACK_BYTES } else { capacity };
            let mut larger = RecvBuf::take(capacity.max(have + 1));
            larger.unfilled()[..have].copy_from_slice(self.head());
            larger.advance(have);
            self.arrived = Bytes::new();
            self.filling = Some(larger);
        }
        // A large frame is read hardly beyond its end: what follows starts a
        // buffer of its own, uncopied.
        let limit = match begun {
            Some(size) if size > SMALL_BYTES => size + SLACK_BYTES - have,
            None if have < granted => granted + SLACK_BYTES - have,
            _ => usize::MAX,
        };
        match &mut self.filling {
            Some(buf) => {
                let space = buf.unfilled();
                let end = space.len().min(limit);
                &mut space[..end]
            }
            None => &mut [],
        }
    }

    /// `n` bytes were read into [`space`](Self::space).
    pub fn advance(&mut self, n: usize) {
        if let Some(buf) = &mut self.filling {
            buf.advance(n);
        }
    }

    /// The part of the next frame that has arrived, behind its length field.
    pub fn body_head(&self) -> &[u8] {
        self.head().get(LENGTH_BYTES..).unwrap_or_default()
    }

    fn head(&self) -> &[u8] {
        self.filling.as_ref().map_or(&self.arrived[..], |buf| buf.filled())
    }
}

/// The whole size of the frame at the start of `bytes`; `None`: its length field is not there yet.
fn frame_size(bytes: &[u8], max: usize) -> Result<Option<usize>, BadLength> {
    let Some(field) = bytes.first_chunk::<LENGTH_BYTES>() else {
        return Ok(None);
    };
    let declared = i32::from_be_bytes(*field);
    match usize::try_from(declared) {
        Ok(length) if length <= max => Ok(Some(length + LENGTH_BYTES)),
        _ => Err(BadLength { declared, max }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `stream` in pieces of at most `step` bytes; returns the frames and
    /// the largest buffer offered.
    fn feed(receiver: &mut FrameReceiver, stream: &[u8], step: usize) -> Result<(Vec<Bytes>, usize), BadLength> {
        let (mut frames, mut largest, mut rest) = (Vec::new(), 0, stream);
        while !rest.is_empty() {
            let space = receiver.space(receiver.growth().map_or(0, |(_, bytes)| bytes));
            assert!(!space.is_empty());
            largest = largest.max(space.len());
            let n = space.len().min(step).min(rest.len());
            space[..n].copy_from_slice(&rest[..n]);
            receiver.advance(n);
            rest = &rest[n..];
            while let Some(frame) = receiver.next_frame()? {
                frames.push(frame);
            }
        }
        Ok((frames, largest))
    }

    fn frame_of(length: usize, seed: u8) -> Vec<u8> {
        let mut bytes = (length as i32).to_be_bytes().to_vec();
        bytes.extend((0..length).map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed)));
        bytes
    }

    #[test]
    fn frames_come_out_whole_however_the_stream_is_cut() {
        let lengths = [0, 1, 5, 100, SMALL_BYTES - 4, SMALL_BYTES, 70_000, 3, 70_001, 70_000, 12, 1 << 19, 9];
        let stream: Vec<u8> = lengths.iter().enumerate().flat_map(|(i, l)| frame_of(*l, i as u8)).collect();
        for step in [1, 2, 3, 7, 1000, 4096, 65_536, usize::MAX] {
            let mut receiver = FrameReceiver::new(4 << 20, Begun::default());
            let (frames, _) = feed(&mut receiver, &stream, step).unwrap();
            assert_eq!(frames.len(), lengths.len(), "step {step}");
            for (i, frame) in frames.iter().enumerate() {
                assert_eq!(frame[..], frame_of(lengths[i], i as u8)[4..], "frame {i}, step {step}");
            }
            assert_eq!(receiver.arrived_bytes(), 0);
        }
    }

    #[test]
    fn a_declared_length_takes_no_memory_ahead_of_arrival() {
        let mut receiver = FrameReceiver::new(100 << 20, Begun::default());
        let mut start = (100i32 << 20).to_be_bytes().to_vec();
        start.extend([7; 100]);
        let (frames, largest) = feed(&mut receiver, &start, usize::MAX).unwrap();
        assert!(frames.is_empty());
        assert!(largest <= 2 * SMALL_BYTES, "{largest}");
        assert_eq!(receiver.begun_frame(), Some((100 << 20) + 4));
        assert_eq!(receiver.growth(), None, "nothing to be granted either");
        let (_, largest) = feed(&mut receiver, &vec![7; 1 << 20], usize::MAX).unwrap();
        assert!(largest <= 4 << 20, "{largest}");
    }

    #[test]
    fn lengths_out_of_bounds_are_refused_before_anything_is_read_for_them() {
        for declared in [-1, i32::MIN, 1001, i32::MAX] {
            let mut receiver = FrameReceiver::new(1000, Begun::default());
            let error = feed(&mut receiver, &declared.to_be_bytes(), 2).unwrap_err();
            assert_eq!(error, BadLength { declared, max: 1000 });
        }
    }

    #[test]
    fn clients_of_other_protocols_are_named() {
        let said = |bytes: &[u8; 4]| {
            let error = feed(&mut FrameReceiver::new(100 << 20, Begun::default()), bytes, 4).unwrap_err();
            error.to_string()
        };
        assert!(said(&[0x16, 3, 1, 1]).contains("TLS"), "369295617 bytes");
        assert!(said(&[0x15, 3, 3, 0]).contains("TLS"), "an alert");
        assert!(said(&[0x80, 0x2e, 1, 3]).contains("SSL 2"));
        for request in [b"GET ", b"POST", b"PUT ", b"HEAD", b"OPTI", b"CONN", b"PRI "] {
            assert!(said(request).contains("HTTP"));
        }
        assert!(said(b"SSH-").contains("SSH"));
        assert!(said(b"PROX").contains("PROXY") && said(b"\r\n\r\n").contains("PROXY"));
        assert!(said(b"*1\r\n").contains(r#""*1\r\n""#), "{}", said(b"*1\r\n"));
        assert!(said(&[0xff, 0xff, 0xff, 0xff]).contains("declares -1 bytes"));
        assert!(said(&[0x7f, 0, 0, 1]).contains("socket.request.max.bytes"));
    }

    #[test]
    fn a_bad_length_behind_a_good_frame_does_not_hide_the_good_one() {
        let mut receiver = FrameReceiver::new(1000, Begun::default());
        let mut stream = frame_of(10, 1);
        stream.extend((-5i32).to_be_bytes());
        let space = receiver.space(0);
        space[..stream.len()].copy_from_slice(&stream);
        receiver.advance(stream.len());
        assert!(matches!(receiver.next_frame(), Ok(Some(_))));
        assert!(receiver.next_frame().is_err());
    }

    #[test]
    fn a_stream_goes_on_in_another_receiver_wherever_it_is_cut() {
        let lengths = [3, 9000, 0, 700, 5000, 12, 70_000, 4];
        let stream: Vec<u8> = lengths.iter().enumerate().flat_map(|(i, l)| frame_of(*l, i as u8)).collect();
        let cuts = (0..20).chain((20..stream.len()).step_by(211)).chain(stream.len() - 20..=stream.len());
        for cut in cuts {
            let mut first = FrameReceiver::new(1 << 20, Begun::default());
            let (mut frames, _) = feed(&mut first, &stream[..cut], 1000).unwrap();
            let mut second = FrameReceiver::new(1 << 20, first.begun());
            assert_eq!(second.arrived_bytes(), first.arrived_bytes());
            assert_eq!(second.wanted_lookahead(), first.wanted_lookahead());
            frames.extend(feed(&mut second, &stream[cut..], 1000).unwrap().0);
            assert_eq!(frames.len(), lengths.len(), "cut at {cut}");
            for (i, frame) in frames.iter().enumerate() {
                assert_eq!(frame[..], frame_of(lengths[i], i as u8)[4..], "frame {i}, cut at {cut}");
            }
        }
    }

    #[test]
    fn lookahead_follows_the_last_frame_within_bounds() {
        let mut receiver = FrameReceiver::new(4 << 20, Begun::default());
        assert_eq!(receiver.wanted_lookahead(), 0);
        feed(&mut receiver, &frame_of(65_000, 0), usize::MAX).unwrap();
        assert_eq!(receiver.wanted_lookahead(), 65_004);
        feed(&mut receiver, &frame_of(2 << 20, 0), usize::MAX).unwrap();
        assert_eq!(receiver.wanted_lookahead(), 0);
        feed(&mut receiver, &frame_of(20, 0), usize::MAX).unwrap();
        assert_eq!(receiver.wanted_lookahead(), 0);
    }

    #[test]
    fn no_more_memory_than_granted() {
        let size = 8usize << 20;
        let mut frames = FrameReceiver::new(100 << 20, Begun::default());
        let mut stream = (size as i32 - 4).to_be_bytes().to_vec();
        stream.resize(size, 7);
        let (mut sent, mut granted) = (0, 0);
        while sent < 4 << 20 {
            assert!(frames.next_frame().unwrap().is_none());
            if let Some((_, bytes)) = frames.growth() {
                granted = bytes;
            }
            let space = frames.space(granted);
            let n = space.len().min(size - sent);
            space[..n].copy_from_slice(&stream[sent..sent + n]);
            frames.advance(n);
            sent += n;
            assert!(
                frames.arrived_bytes() <= granted.max(SMALL_BYTES),
                "granted {granted}, arrived {}",
                frames.arrived_bytes()
            );
        }
    }
}
