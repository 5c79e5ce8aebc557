//! Records compressed as Kafka's own clients read them.

use std::io::{self, BufRead, Read, Write};

use flate2::write::GzEncoder;
use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};

use super::decompress;
use super::walk::RecordError;
use crate::model::record_batch::{self, BatchError, Codec, HEADER_BYTES};

/// The header of snappy-java's stream: magic, version 1, compatible with 1.
const XERIAL_HEADER: &[u8; 16] = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
/// Bytes a block of that stream holds before compression, as Kafka's producer writes them.
const XERIAL_BLOCK_BYTES: usize = 32 * 1024;
/// The best level of the LZ4 library; Kafka's own knows levels up to 17.
const LZ4_MAX_LEVEL: u32 = 12;
/// The widest zstd window for records beyond it, so that high levels take no gigabyte for a batch.
const ZSTD_MAX_WINDOW_LOG: u32 = 23;

/// A codec and how hard it works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    pub codec: Codec,
    /// `None`: the codec's default. Snappy has no levels.
    pub level: Option<i32>,
}

/// Why a batch was not compressed anew.
#[derive(Debug, thiserror::Error)]
pub enum RecompressError {
    #[error(transparent)]
    Records(#[from] RecordError),
    #[error("the batch is larger than {limit} bytes once it is compressed as {codec:?}")]
    TooLarge { codec: Codec, limit: usize },
    #[error("the batch cannot be compressed as {codec:?}: {source}")]
    Compress { codec: Codec, source: io::Error },
}

/// The records of a batch that was inspected, in another codec, behind [`HEADER_BYTES`] of room.
/// `plain_bytes`: what they decompress to. Nothing is held but the result, of at most `limit`
/// bytes, and what the two codecs need.
pub fn recompress(batch: &[u8], target: Target, plain_bytes: u64, limit: usize) -> Result<Vec<u8>, RecompressError> {
    let (header, total) = record_batch::frame(batch).map_err(RecordError::from)?;
    let bad_codec = || RecordError::from(BatchError::BadCodec(header.attributes.get()));
    let from = header.codec().ok_or_else(bad_codec)?;
    let codec = target.codec;
    let mut plain = decompress::open(from, &batch[HEADER_BYTES..total])
        .map_err(|source| RecordError::Decompress { codec: from, source })?;
    let mut out = Capped { bytes: vec![0; HEADER_BYTES], limit, exceeded: false };
    match compress_stream(target, &mut plain, plain_bytes, &mut out) {
        Ok(()) => Ok(out.bytes),
        Err(_) if out.exceeded => Err(RecompressError::TooLarge { codec, limit }),
        Err(source) => Err(RecompressError::Compress { codec, source }),
    }
}

/// A buffer that takes no more than `limit` bytes.
struct Capped {
    bytes: Vec<u8>,
    limit: usize,
    exceeded: bool,
}

impl Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.limit.saturating_sub(self.bytes.len()) {
            self.exceeded = true;
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Appends `plain` to `out`, compressed; after an error `out` is of no use.
pub fn append(codec: Codec, mut plain: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let bytes = plain.len() as u64;
    compress_stream(Target { codec, level: None }, &mut plain, bytes, out)
}

/// Appends all of `plain`, which is `plain_bytes`, to `out`.
fn compress_stream(target: Target, plain: &mut dyn BufRead, plain_bytes: u64, out: &mut dyn Write) -> io::Result<()> {
    match (target.codec, target.level) {
        (Codec::None, _) => copy(plain, out),
        (Codec::Gzip, level) => gzip(plain, level, out),
        (Codec::Snappy, _) => snappy(plain, out),
        (Codec::Lz4, None) => lz4_fast(plain, out),
        (Codec::Lz4, Some(level)) => lz4_high(plain, level, out),
        // The reference library: the encoder of the pure-Rust one panics on
        // some inputs (ruzstd 0.9).
        (Codec::Zstd, level) => zstd_frame(plain, plain_bytes, level, out),
    }
}

fn copy(plain: &mut dyn BufRead, out: &mut dyn Write) -> io::Result<()> {
    loop {
        let filled = plain.fill_buf()?;
        if filled.is_empty() {
            return Ok(());
        }
        out.write_all(filled)?;
        let taken = filled.len();
        plain.consume(taken);
    }
}

fn gzip(plain: &mut dyn BufRead, level: Option<i32>, out: &mut dyn Write) -> io::Result<()> {
    let level = level.and_then(|level| u32::try_from(level).ok()).map(|level| flate2::Compression::new(level.min(9)));
    let mut encoder = GzEncoder::new(out, level.unwrap_or_default());
    copy(plain, &mut encoder)?;
    encoder.finish().map(|_| ())
}

fn snappy(plain: &mut dyn BufRead, out: &mut dyn Write) -> io::Result<()> {
    let mut encoder = snap::raw::Encoder::new();
    let mut block = Vec::with_capacity(XERIAL_BLOCK_BYTES);
    out.write_all(XERIAL_HEADER)?;
    loop {
        block.clear();
        plain.take(XERIAL_BLOCK_BYTES as u64).read_to_end(&mut block)?;
        if block.is_empty() {
            return Ok(());
        }
        let compressed = encoder.compress_vec(&block).map_err(io::Error::other)?;
        out.write_all(&(compressed.len() as i32).to_be_bytes())?;
        out.write_all(&compressed)?;
    }
}

/// Kafka reads independent blocks only.
fn lz4_fast(plain: &mut dyn BufRead, out: &mut dyn Write) -> io::Result<()> {
    let info = FrameInfo::new().block_size(BlockSize::Max64KB).block_mode(BlockMode::Independent);
    let mut encoder = FrameEncoder::with_frame_info(info, out);
    copy(plain, &mut encoder)?;
    encoder.finish().map(|_| ()).map_err(io::Error::other)
}

fn lz4_high(plain: &mut dyn BufRead, level: i32, out: &mut dyn Write) -> io::Result<()> {
    let mut encoder = lz4::EncoderBuilder::new()
        .level(u32::try_from(level).unwrap_or(1).clamp(1, LZ4_MAX_LEVEL))
        .block_size(lz4::BlockSize::Max64KB)
        .block_mode(lz4::BlockMode::Independent)
        .checksum(lz4::liblz4::ContentChecksum::NoChecksum)
        .build(out)?;
    copy(plain, &mut encoder)?;
    encoder.finish().1
}

fn zstd_frame(plain: &mut dyn BufRead, plain_bytes: u64, level: Option<i32>, out: &mut dyn Write) -> io::Result<()> {
    let mut encoder = zstd::stream::write::Encoder::new(out, level.unwrap_or(zstd::DEFAULT_COMPRESSION_LEVEL))?;
    // Its memory then goes with the batch, and readers know how much is to come.
    encoder.set_pledged_src_size(Some(plain_bytes))?;
    if plain_bytes >> ZSTD_MAX_WINDOW_LOG > 0 {
        encoder.window_log(ZSTD_MAX_WINDOW_LOG)?;
    }
    copy(plain, &mut encoder)?;
    encoder.finish().map(|_| ())
}

#[cfg(test)]
mod tests {
    use zerocopy::{FromZeros, IntoBytes};

    use super::*;

    /// By the reference implementations where there are some.
    fn decompress(codec: Codec, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        match codec {
            Codec::None => out.extend_from_slice(bytes),
            Codec::Gzip => drop(flate2::read::GzDecoder::new(bytes).read_to_end(&mut out).unwrap()),
            Codec::Snappy => {
                let mut rest = bytes.strip_prefix(XERIAL_HEADER).unwrap();
                while let Some((length, after)) = rest.split_first_chunk::<4>() {
                    let (block, after) = after.split_at(i32::from_be_bytes(*length) as usize);
                    out.extend(snap::raw::Decoder::new().decompress_vec(block).unwrap());
                    rest = after;
                }
            }
            Codec::Lz4 => drop(lz4::Decoder::new(bytes).unwrap().read_to_end(&mut out).unwrap()),
            Codec::Zstd => out = zstd::decode_all(bytes).unwrap(),
        }
        out
    }

    #[test]
    fn what_goes_in_comes_out_and_half_of_it_shrinks() {
        for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            for len in [1, 100, 5000, XERIAL_BLOCK_BYTES + 1, 1 << 20] {
                // Half of each kilobyte is noise.
                let mut random = 1u64;
                let mut noise = || {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (random >> 56) as u8
                };
                let records: Vec<u8> = (0..len).map(|at| if at % 1000 < 500 { noise() } else { b'x' }).collect();
                let mut compressed = Vec::new();
                append(codec, &records, &mut compressed).unwrap();
                assert!(decompress(codec, &compressed) == records, "{codec:?} {len}");
                let share = compressed.len() as f64 / len as f64;
                let wanted = if codec == Codec::None { 1.0..=1.0 } else { 0.49..=0.75 };
                assert!(len < 5000 || wanted.contains(&share), "{codec:?} {len}: {share}");
            }
        }
    }

    /// By every level that Kafka allows, from every codec to every other; and
    /// no further than the limit.
    #[test]
    fn batches_are_compressed_anew() {
        let plain: Vec<u8> = (0..200_000u32).flat_map(|n| (n / 7 % 251).to_le_bytes()).collect();
        let levels = |codec| match codec {
            Codec::None | Codec::Snappy => vec![None],
            Codec::Gzip => vec![None, Some(-1), Some(1), Some(9)],
            Codec::Lz4 => vec![None, Some(1), Some(3), Some(12), Some(17)],
            Codec::Zstd => vec![None, Some(-131_072), Some(-5), Some(1), Some(3), Some(12)],
        };
        for from in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            let mut header = crate::model::record_batch::BatchHeader::new_zeroed();
            header.magic = 2;
            header.set_codec(from);
            let mut batch = vec![0; HEADER_BYTES];
            append(from, &plain, &mut batch).unwrap();
            header.batch_length.set((batch.len() - record_batch::LENGTH_PREFIX_BYTES) as i32);
            batch[..HEADER_BYTES].copy_from_slice(header.as_bytes());
            for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
                for level in levels(codec) {
                    let target = Target { codec, level };
                    let anew = recompress(&batch, target, plain.len() as u64, 1 << 20).unwrap();
                    assert!(decompress(codec, &anew[HEADER_BYTES..]) == plain, "{from:?} to {target:?}");
                    let exact = recompress(&batch, target, plain.len() as u64, anew.len()).unwrap();
                    assert_eq!(exact.len(), anew.len());
                    let short = recompress(&batch, target, plain.len() as u64, anew.len() - 1);
                    assert!(matches!(short, Err(RecompressError::TooLarge { .. })), "{target:?}: {short:?}");
                }
            }
        }
    }

    /// Values that are all alike, periodic, or nearly so: encoders have their corner cases there.
    #[test]
    fn monotonous_values_are_taken() {
        let periodic: Vec<u8> = br#"{"id":1,"name":"n"},"#.iter().copied().cycle().take(400_000).collect();
        let mut few = vec![b'a'; 5000];
        few.extend((0..=255u8).chain(vec![b'a'; 2000]));
        for plain in [periodic, vec![0; 300_000], few, vec![1]] {
            for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
                let mut compressed = Vec::new();
                append(codec, &plain, &mut compressed).unwrap();
                assert!(decompress(codec, &compressed) == plain, "{codec:?}");
            }
        }
    }
}
