//! CPU cost of checking a produced batch's records (`corelane.produce.validate=full`) against its
//! header and CRC alone (`header`), by codec and record size, in interleaved pairs on one thread:
//! `cargo bench --bench validate`.

// A benchmark stops where its own input is wrong.
#![allow(clippy::unwrap_used)]

use std::hint::black_box;

use bytes::Bytes;
use corelane::config::{ProduceValidation, TopicConfig};
use corelane::model::record_batch::{CRC_START, Codec, HEADER_BYTES, LENGTH_PREFIX_BYTES};
use corelane::model::records;
use corelane::partition::{Limits, Rules, validate};
use corelane::runtime::process::cpu_seconds;

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

/// CPU seconds that checking a batch takes so many times.
fn cost(batch: &Bytes, rounds: usize, validation: ProduceValidation) -> f64 {
    let config = TopicConfig { max_message_bytes: 16 << 20, ..TopicConfig::default() };
    let rules = Rules { topic: "t", partition: 0, config: &config, validation, now_ms: NOW_MS, limits: Limits::FULL };
    let began = cpu_seconds().unwrap();
    for _ in 0..rounds {
        assert!(black_box(validate(black_box(batch), &rules)).is_ok());
    }
    cpu_seconds().unwrap() - began
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// One batch: what both checks take for a gigabyte as it goes over the wire, and the full one
/// for a gigabyte of records.
fn line(codec: Codec, count: usize, size: usize) -> String {
    let (sent, plain) = (batch(codec, count, size), batch(Codec::None, count, size));
    let rounds = (BYTES / (count * size)).max(8);
    let (mut header, mut full, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..PAIRS {
        header.push(cost(&sent, rounds, ProduceValidation::Header));
        full.push(cost(&sent, rounds, ProduceValidation::Full));
        ratios.push(full[full.len() - 1] / header[header.len() - 1]);
    }
    let (header, full, ratio) = (median(&mut header), median(&mut full), median(&mut ratios));
    let per_gb = |seconds: f64, bytes: usize| seconds / (rounds * bytes) as f64 * 1e9;
    let each = (full - header) / (rounds * count) as f64 * 1e9;
    let (wire, name) = (sent.len(), format!("{codec:?}").to_lowercase());
    format!(
        "{name:<7} {size:>7} {count:>8} {wire:>9} {:>10.3} {:>10.3} {:>12.3} {each:>10.1}  {ratio:.2} ({:.2}-{:.2})",
        per_gb(header, wire),
        per_gb(full, wire),
        per_gb(full, plain.len()),
        ratios[0],
        ratios[ratios.len() - 1],
    )
}

fn main() {
    println!("CPU seconds a gigabyte: of batches as they go over the wire (header, full), and of their records (full)");
    println!(
        "{:<7} {:>7} {:>8} {:>9} {:>10} {:>10} {:>12} {:>10}  full / header",
        "codec", "record", "records", "bytes", "header/GB", "full/GB", "full/GB rec.", "ns/record"
    );
    for (size, count) in [(1000, 16), (1000, 64), (100, 160), (100, 640), (100, 10_000)] {
        for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            println!("{}", line(codec, count, size));
        }
    }
}
