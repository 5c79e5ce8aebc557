//! One decompressed stream per codec, each holding a bounded part of its output at a time.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::GzDecoder;

use super::zstd_stream::Zstd;
use crate::model::record_batch::Codec;

/// The most output a codec may need in memory at once: a snappy block, or zstd's window. Kafka
/// itself has no such bound, but its own producer writes snappy blocks of 32 KiB, and every other
/// one at most a batch in one block.
pub const MAX_BLOCK_BYTES: usize = 64 << 20;

/// Bytes that the copying decoders hand out at a time.
const BUFFER_BYTES: usize = 16 << 10;

const LZ4_MAGIC: [u8; 4] = 0x184D_2204u32.to_le_bytes();
const LZ4_INDEPENDENT: u8 = 0x20;
const LZ4_BLOCK_CHECKSUM: u8 = 0x10;
const LZ4_CONTENT_SIZE: u8 = 0x08;
const LZ4_CONTENT_CHECKSUM: u8 = 0x04;
/// Set in the length of a block that is not compressed.
const LZ4_STORED: u32 = 1 << 31;

const XERIAL_MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
const XERIAL_HEADER_BYTES: usize = 16;
/// Snappy's densest element copies 64 bytes by 3.
const SNAPPY_MAX_RATIO: usize = 22;

/// The records of a batch whose payload (all that follows the header) is `payload`. The stream
/// ends where Kafka's ends.
pub(super) fn open<'a>(codec: Codec, payload: &'a [u8]) -> io::Result<Box<dyn BufRead + 'a>> {
    Ok(match codec {
        Codec::None => Box::new(payload),
        Codec::Gzip => Box::new(BufReader::with_capacity(BUFFER_BYTES, Gzip::open(payload))),
        Codec::Snappy => Box::new(Snappy::open(payload)?),
        Codec::Lz4 => Box::new(Lz4::open(payload)?),
        Codec::Zstd => Box::new(Zstd::open(payload)?),
    })
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Snappy as Kafka's producer writes it (blocks behind the xerial header) or as one
/// bare block (librdkafka).
struct Snappy<'a> {
    /// Bytes not yet decompressed.
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
        if payload.is_empty() {
            return Err(invalid("the snappy stream is empty"));
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
        // Before anything is reserved: a few bytes must not claim the whole 64
        // MiB, again and again.
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

/// Gzip members one after the other. Like Java's reader, what follows a member and is none
/// itself is not looked at.
struct Gzip<'a> {
    /// `None`: nothing is left.
    member: Option<GzDecoder<&'a [u8]>>,
}

const GZIP_MAGIC: [u8; 3] = [0x1f, 0x8b, 8];

impl<'a> Gzip<'a> {
    fn open(payload: &'a [u8]) -> Gzip<'a> {
        Gzip { member: Some(GzDecoder::new(payload)) }
    }
}

impl Read for Gzip<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        while let Some(member) = &mut self.member {
            let read = member.read(buf)?;
            if read > 0 {
                return Ok(read);
            }
            let rest: &[u8] = member.get_ref();
            self.member = rest.starts_with(&GZIP_MAGIC).then(|| GzDecoder::new(rest));
        }
        Ok(0)
    }
}

/// Checks an LZ4 stream's frame as Kafka's reader does: only independent blocks, no reserved bits,
/// an end mark. Gives the bytes behind the end mark, which no reader of Kafka's looks at.
pub(super) fn check_lz4_frame(payload: &[u8]) -> io::Result<&[u8]> {
    let cut_off = || invalid("the LZ4 frame is cut off");
    let Some((&[m0, m1, m2, m3, flags, block], mut rest)) = payload.split_first_chunk::<6>() else {
        return Err(cut_off());
    };
    if [m0, m1, m2, m3] != LZ4_MAGIC || flags >> 6 != 1 || flags & 3 != 0 || block & 0x8f != 0 || block >> 4 < 4 {
        return Err(invalid("this is no LZ4 frame"));
    }
    if flags & LZ4_INDEPENDENT == 0 {
        return Err(invalid("the LZ4 frame's blocks depend on one another, which Kafka's clients cannot read"));
    }
    let descriptor_bytes = if flags & LZ4_CONTENT_SIZE != 0 { 9 } else { 1 };
    rest = rest.get(descriptor_bytes..).ok_or_else(cut_off)?;
    loop {
        let (head, after) = rest.split_first_chunk::<4>().ok_or_else(cut_off)?;
        let bytes = (u32::from_le_bytes(*head) & !LZ4_STORED) as usize;
        if bytes == 0 {
            let checksum_bytes = if flags & LZ4_CONTENT_CHECKSUM != 0 { 4 } else { 0 };
            return after.get(checksum_bytes..).ok_or_else(cut_off);
        }
        let checksum_bytes = if flags & LZ4_BLOCK_CHECKSUM != 0 { 4 } else { 0 };
        rest = after.get(bytes + checksum_bytes..).ok_or_else(cut_off)?;
    }
}

pub(super) fn read_buffered(source: &mut impl BufRead, buf: &mut [u8]) -> io::Result<usize> {
    let filled = source.fill_buf()?;
    let amount = filled.len().min(buf.len());
    buf[..amount].copy_from_slice(&filled[..amount]);
    source.consume(amount);
    Ok(amount)
}
