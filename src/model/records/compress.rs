//! Records compressed as Kafka's own clients read them.

use std::io::{self, Write};

use flate2::write::GzEncoder;
use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};

use crate::model::record_batch::Codec;

/// The header of snappy-java's stream: magic, version 1, compatible with 1.
const XERIAL_HEADER: &[u8; 16] = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
/// Bytes a block of that stream holds before compression, as Kafka's producer writes them.
const XERIAL_BLOCK_BYTES: usize = 32 * 1024;

/// Appends `plain` to `out`, compressed; after an error `out` is of no use.
pub fn append(codec: Codec, plain: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    match codec {
        Codec::None => out.write_all(plain),
        Codec::Gzip => gzip(plain, out),
        Codec::Snappy => snappy(plain, out).map_err(io::Error::other),
        Codec::Lz4 => lz4(plain, out).map_err(io::Error::other),
        // The reference library: the pure-Rust one reads well, but its encoder panics on some inputs (ruzstd 0.9).
        Codec::Zstd => out.write_all(&zstd::bulk::compress(plain, zstd::DEFAULT_COMPRESSION_LEVEL)?),
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

#[cfg(test)]
mod tests {
    use std::io::Read;

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
