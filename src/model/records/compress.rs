//! Records compressed as Kafka's own clients read them.

use std::io::{self, Write};

use flate2::write::GzEncoder;
use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

use crate::model::record_batch::Codec;

/// The header of snappy-java's stream: magic, version 1, compatible with 1.
const XERIAL_HEADER: &[u8; 16] = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
/// Bytes a block of that stream holds before compression, as Kafka's producer writes them.
const XERIAL_BLOCK_BYTES: usize = 32 * 1024;

/// Appends `plain` to `out`, compressed; after an error `out` is of no use.
pub(super) fn append(codec: Codec, plain: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    match codec {
        Codec::None => out.write_all(plain),
        Codec::Gzip => gzip(plain, out),
        Codec::Snappy => snappy(plain, out).map_err(io::Error::other),
        Codec::Lz4 => lz4(plain, out).map_err(io::Error::other),
        Codec::Zstd => out.write_all(&compress_to_vec(plain, CompressionLevel::Fastest)),
    }
}

fn gzip(plain: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let mut encoder = GzEncoder::new(out, flate2::Compression::default());
    encoder.write_all(plain)?;
    encoder.finish().map(|_| ())
}

fn snappy(plain: &[u8], out: &mut Vec<u8>) -> Result<(), snap::Error> {
    let mut encoder = snap::raw::Encoder::new();
    out.extend_from_slice(XERIAL_HEADER);
    for block in plain.chunks(XERIAL_BLOCK_BYTES) {
        let compressed = encoder.compress_vec(block)?;
        out.extend_from_slice(&(compressed.len() as i32).to_be_bytes());
        out.extend_from_slice(&compressed);
    }
    Ok(())
}

/// Kafka reads independent blocks only.
fn lz4(plain: &[u8], out: &mut Vec<u8>) -> Result<(), lz4_flex::frame::Error> {
    let info = FrameInfo::new().block_size(BlockSize::Max64KB).block_mode(BlockMode::Independent);
    let mut encoder = FrameEncoder::with_frame_info(info, out);
    encoder.write_all(plain).map_err(lz4_flex::frame::Error::IoError)?;
    encoder.finish().map(|_| ())
}
