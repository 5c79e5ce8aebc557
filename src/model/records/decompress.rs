//! One decompressed stream per codec, each holding a bounded part of its output at a time.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use crate::model::record_batch::Codec;

/// The most output a codec may need in memory at once: a snappy block, or zstd's window. Kafka itself has no such bound,
/// but its own producer writes snappy blocks of 32 KiB, and every other one at most a batch in one block.
pub const MAX_BLOCK_BYTES: usize = 64 << 20;

/// What the copying decoders hand out at a time.
const BUFFER_BYTES: usize = 16 << 10;

const LZ4_MAGIC: [u8; 4] = 0x184D_2204u32.to_le_bytes();
const ZSTD_MAGIC: [u8; 4] = 0xFD2F_B528u32.to_le_bytes();
const ZSTD_SINGLE_SEGMENT: u8 = 0x20;
/// The zstd window descriptor (RFC 8878, 3.1.1.1.2) of [`MAX_BLOCK_BYTES`].
const ZSTD_MAX_WINDOW: u8 = ((MAX_BLOCK_BYTES.ilog2() - 10) << 3) as u8;
const _: () = assert!(MAX_BLOCK_BYTES.is_power_of_two());

const XERIAL_MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
const XERIAL_HEADER_BYTES: usize = 16;
/// Snappy's densest element copies 64 bytes by 3.
const SNAPPY_MAX_RATIO: usize = 22;

/// The records of a batch whose payload (all that follows the header) is `payload`. The stream ends where Kafka's ends.
pub(super) fn open<'a>(codec: Codec, payload: &'a [u8]) -> io::Result<Box<dyn BufRead + 'a>> {
    Ok(match codec {
        Codec::None => Box::new(payload),
        Codec::Gzip => Box::new(BufReader::with_capacity(BUFFER_BYTES, MultiGzDecoder::new(payload))),
        Codec::Snappy => Box::new(Snappy::open(payload)?),
        Codec::Lz4 => Box::new(Lz4::open(payload)?),
        Codec::Zstd => Box::new(BufReader::with_capacity(BUFFER_BYTES, Zstd::open(payload)?)),
    })
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Snappy as Kafka's producer writes it (blocks behind the xerial header) or as one bare block (librdkafka).
struct Snappy<'a> {
    /// What is not yet decompressed.
    input: &'a [u8],
    framed: bool,
    block: Vec<u8>,
    taken: usize,
}

impl<'a> Snappy<'a> {
    fn open(payload: &'a [u8]) -> io::Result<Snappy<'a>> {
        let framed = payload.len() >= XERIAL_HEADER_BYTES && payload.starts_with(&XERIAL_MAGIC);
        if framed && i32::from_be_bytes([payload[8], payload[9], payload[10], payload[11]]) < 1 {
            return Err(invalid("the snappy stream's version is below 1"));
        }
        let input = if framed { &payload[XERIAL_HEADER_BYTES..] } else { payload };
        Ok(Snappy { input, framed, block: Vec::new(), taken: 0 })
    }

    /// The next compressed block; `None` at the end.
    fn next_block(&mut self) -> io::Result<Option<&'a [u8]>> {
        if !self.framed {
            let block = std::mem::take(&mut self.input);
            return Ok((!block.is_empty()).then_some(block));
        }
        // As in snappy-java, fewer bytes than a length are the end and no error.
        let Some((length, rest)) = self.input.split_first_chunk::<4>() else {
            self.input = &[];
            return Ok(None);
        };
        let length =
            usize::try_from(i32::from_be_bytes(*length)).map_err(|_| invalid("a snappy block's length is negative"))?;
        let (block, rest) = rest.split_at_checked(length).ok_or_else(|| invalid("a snappy block is cut off"))?;
        self.input = rest;
        Ok(Some(block))
    }

    fn decompress(&mut self, compressed: &[u8]) -> io::Result<()> {
        let length = snap::raw::decompress_len(compressed).map_err(io::Error::other)?;
        if length > MAX_BLOCK_BYTES {
            return Err(invalid("a snappy block is larger than 64 MiB"));
        }
        // Before anything is reserved: a few bytes must not claim the whole 64 MiB, again and again.
        if length > compressed.len().saturating_mul(SNAPPY_MAX_RATIO) {
            return Err(invalid("a snappy block claims more than its bytes can hold"));
        }
        self.taken = 0;
        self.block.resize(length, 0);
        let written = snap::raw::Decoder::new().decompress(compressed, &mut self.block).map_err(io::Error::other)?;
        self.block.truncate(written);
        Ok(())
    }
}

impl Read for Snappy<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        read_buffered(self, buf)
    }
}

impl BufRead for Snappy<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.taken == self.block.len() {
            match self.next_block()? {
                Some(compressed) => self.decompress(compressed)?,
                None => break,
            }
        }
        Ok(&self.block[self.taken..])
    }

    fn consume(&mut self, amount: usize) {
        self.taken = self.block.len().min(self.taken + amount);
    }
}

/// One LZ4 frame. Like Kafka, what follows its end is not looked at.
struct Lz4<'a> {
    frame: lz4_flex::frame::FrameDecoder<&'a [u8]>,
    ended: bool,
}

impl<'a> Lz4<'a> {
    fn open(payload: &'a [u8]) -> io::Result<Lz4<'a>> {
        // The decoder would take the legacy frame too, which Kafka refuses.
        if !payload.starts_with(&LZ4_MAGIC) {
            return Err(invalid("this is no LZ4 frame"));
        }
        Ok(Lz4 { frame: lz4_flex::frame::FrameDecoder::new(payload), ended: false })
    }
}

impl Read for Lz4<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        read_buffered(self, buf)
    }
}

impl BufRead for Lz4<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.ended {
            return Ok(&[]);
        }
        let filled = self.frame.fill_buf()?;
        self.ended = filled.is_empty();
        Ok(filled)
    }

    fn consume(&mut self, amount: usize) {
        self.frame.consume(amount);
    }
}

/// Zstd frames one after the other.
struct Zstd<'a> {
    frame: FrameDecoder,
    input: &'a [u8],
}

impl<'a> Zstd<'a> {
    fn open(payload: &'a [u8]) -> io::Result<Zstd<'a>> {
        let mut frame = FrameDecoder::new();
        frame.set_max_window_size(MAX_BLOCK_BYTES as u64);
        let mut zstd = Zstd { frame, input: payload };
        zstd.start_frame()?;
        Ok(zstd)
    }

    /// Reads the header of the frame that `input` begins with, or steps over one that carries no data.
    fn start_frame(&mut self) -> io::Result<()> {
        let Some((&(mut head), rest)) = self.input.split_first_chunk::<6>() else {
            return Err(invalid("a zstd frame is cut off"));
        };
        // Level 22 without a known size declares a window of 128 MiB for the smallest batch. The window only says how
        // far back the frame may point; held to less, a frame that does point further fails, and no other.
        if head.starts_with(&ZSTD_MAGIC) && head[4] & ZSTD_SINGLE_SEGMENT == 0 {
            head[5] = head[5].min(ZSTD_MAX_WINDOW);
        }
        let mut source = head.as_slice().chain(rest);
        let started = self.frame.init(&mut source);
        self.input = source.into_inner().1;
        match started {
            Ok(()) => Ok(()),
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                self.input = usize::try_from(length)
                    .ok()
                    .and_then(|length| self.input.get(length..))
                    .ok_or_else(|| invalid("a zstd frame to skip is cut off"))?;
                Ok(())
            }
            Err(error) => Err(io::Error::other(error)),
        }
    }
}

impl Read for Zstd<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.frame.can_collect() > 0 || buf.is_empty() {
                return self.frame.read(buf);
            }
            if !self.frame.is_finished() {
                self.frame
                    .decode_blocks(&mut self.input, BlockDecodingStrategy::UptoBlocks(1))
                    .map_err(io::Error::other)?;
            } else if self.input.is_empty() {
                return Ok(0);
            } else {
                self.start_frame()?;
            }
        }
    }
}

fn read_buffered(source: &mut impl BufRead, buf: &mut [u8]) -> io::Result<usize> {
    let filled = source.fill_buf()?;
    let amount = filled.len().min(buf.len());
    buf[..amount].copy_from_slice(&filled[..amount]);
    source.consume(amount);
    Ok(amount)
}
