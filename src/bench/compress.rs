//! Compressing a batch's records as Kafka's producers do.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

use crate::model::record_batch::Codec;

/// The framing of snappy-java's stream, which Kafka's producer uses: a header, then blocks behind their lengths.
const XERIAL_HEADER: [u8; 16] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1];
const XERIAL_BLOCK_BYTES: usize = 32 << 10;

/// `records`: what follows a batch's header.
pub fn compress(codec: Codec, records: &[u8]) -> io::Result<Vec<u8>> {
    match codec {
        Codec::None => Ok(records.to_vec()),
        Codec::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(records)?;
            encoder.finish()
        }
        Codec::Snappy => snappy(records),
        Codec::Lz4 => {
            // Kafka's reader takes independent blocks only.
            let frame = FrameInfo::new().block_mode(BlockMode::Independent).block_size(BlockSize::Max64KB);
            let mut encoder = FrameEncoder::with_frame_info(frame, Vec::new());
            encoder.write_all(records)?;
            Ok(encoder.finish()?)
        }
        Codec::Zstd => Ok(compress_to_vec(records, CompressionLevel::Fastest)),
    }
}

fn snappy(records: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = XERIAL_HEADER.to_vec();
    let mut encoder = snap::raw::Encoder::new();
    for block in records.chunks(XERIAL_BLOCK_BYTES) {
        let compressed = encoder.compress_vec(block)?;
        let length = i32::try_from(compressed.len()).map_err(io::Error::other)?;
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&compressed);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::bench::batch::Filler;

    /// By the reference implementations where there are some.
    fn decompress(codec: Codec, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        match codec {
            Codec::None => out.extend_from_slice(bytes),
            Codec::Gzip => drop(flate2::read::GzDecoder::new(bytes).read_to_end(&mut out).unwrap()),
            Codec::Snappy => {
                let mut rest = bytes.strip_prefix(&XERIAL_HEADER).unwrap();
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
                let mut records = vec![0; len];
                let mut filler = Filler::new(3, 50);
                records.chunks_mut(1000).for_each(|value| filler.fill(value));
                let compressed = compress(codec, &records).unwrap();
                assert!(decompress(codec, &compressed) == records, "{codec:?} {len}");
                let share = compressed.len() as f64 / len as f64;
                let wanted = if codec == Codec::None { 1.0..=1.0 } else { 0.49..=0.75 };
                assert!(len < 5000 || wanted.contains(&share), "{codec:?} {len}: {share}");
            }
        }
    }
}
