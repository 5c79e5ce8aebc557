//! CPU cost of checking a produced batch's records (`corelane.produce.validate=full`) against its header and CRC alone
//! (`header`), in interleaved pairs on one thread: `cargo bench --bench validate`.

// A benchmark stops where its own input is wrong.
#![allow(clippy::unwrap_used)]

use std::hint::black_box;
use std::time::Instant;

use bytes::Bytes;
use corelane::config::{ProduceValidation, TopicConfig};
use corelane::model::record_batch::{CRC_START, Codec, HEADER_BYTES, LENGTH_PREFIX_BYTES};
use corelane::model::records;
use corelane::partition::{Limits, Rules, validate};

const NOW_MS: i64 = 1_800_000_000_000;
const PAIRS: usize = 15;
/// Bytes of records checked by one measurement of a pair.
const BYTES: usize = 16 << 20;

/// A batch of `count` records of about `size` bytes, half of each noise.
fn batch(codec: Codec, count: usize, size: usize) -> Bytes {
    let mut state = 7u64;
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    let mut value = || (0..size).map(|at| if at % 2 == 0 { b'x' } else { noise() }).collect::<Vec<u8>>();
    let all: Vec<_> = (0..count).map(|n| (format!("key-{n:06}").into_bytes(), Some(value()))).collect();
    let plain = records::build(&all, NOW_MS);
    let mut batch = plain[..HEADER_BYTES].to_vec();
    records::compress(codec, &plain[HEADER_BYTES..], &mut batch).unwrap();
    let length = (batch.len() - LENGTH_PREFIX_BYTES) as i32;
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    batch[21..23].copy_from_slice(&(codec as i16).to_be_bytes());
    let crc = crc32c::crc32c(&batch[CRC_START..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch.into()
}

/// Microseconds a batch.
fn cost(batch: &Bytes, rounds: usize, validation: ProduceValidation) -> f64 {
    let config = TopicConfig { max_message_bytes: 16 << 20, ..TopicConfig::default() };
    let rules = Rules { topic: "t", partition: 0, config: &config, validation, now_ms: NOW_MS, limits: Limits::FULL };
    let began = Instant::now();
    for _ in 0..rounds {
        assert!(black_box(validate(black_box(batch), &rules)).is_ok());
    }
    began.elapsed().as_secs_f64() * 1e6 / rounds as f64
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    println!(
        "{:<14} {:>8} {:>8} {:>10} {:>10} {:>10}  full / header",
        "batch", "records", "bytes", "header us", "full us", "ns/record"
    );
    for (count, size) in [(16, 1000), (64, 1000), (160, 100), (10_000, 100)] {
        for codec in [Codec::None, Codec::Lz4, Codec::Zstd, Codec::Snappy, Codec::Gzip] {
            let sent = batch(codec, count, size);
            let rounds = (BYTES / (count * size)).max(8);
            let (mut header, mut full, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
            for _ in 0..PAIRS {
                header.push(cost(&sent, rounds, ProduceValidation::Header));
                full.push(cost(&sent, rounds, ProduceValidation::Full));
                ratios.push(full[full.len() - 1] / header[header.len() - 1]);
            }
            let (header, full, ratio) = (median(&mut header), median(&mut full), median(&mut ratios));
            let each = (full - header) * 1000.0 / count as f64;
            let (least, most) = (ratios[0], ratios[ratios.len() - 1]);
            let name = format!("{codec:?}");
            println!(
                "{name:<14} {count:>8} {:>8} {header:>10.2} {full:>10.2} {each:>10.1}  {ratio:.2} ({least:.2}-{most:.2})",
                sent.len()
            );
        }
    }
}
