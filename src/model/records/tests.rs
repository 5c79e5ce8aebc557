use std::io::Write;
use std::ops::ControlFlow;

use bytes::{Bytes, BytesMut};
use flate2::write::GzEncoder;
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records::{Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType};
use zerocopy::FromBytes;

use super::walk::walk_within;
use super::*;
use crate::model::record_batch::{self, BatchHeader, Codec, HEADER_BYTES, LENGTH_PREFIX_BYTES};
use crate::model::testing;

/// A record as kafka-protocol takes it; it writes the batches that these tests read.
fn record(offset: i64, timestamp: i64, key: Option<Vec<u8>>, value: Option<Vec<u8>>) -> Record {
    let mut record = Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: 3,
        producer_id: -1,
        producer_epoch: -1,
        timestamp_type: TimestampType::Creation,
        offset,
        sequence: offset as i32,
        timestamp,
        key: key.map(Bytes::from),
        value: value.map(Bytes::from),
        headers: Default::default(),
    };
    if offset % 2 == 0 {
        record.headers.insert(StrBytes::from_static_str("trace"), Some(Bytes::from_static(b"0123456789")));
        record.headers.insert(StrBytes::from_static_str("null"), None);
    }
    record
}

fn batch_of(records: &[Record]) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    let options = RecordEncodeOptions { version: 2, compression: Compression::None };
    RecordBatchEncoder::encode(&mut bytes, records, &options).unwrap();
    bytes.to_vec()
}

/// Seven records around `base`, timestamps out of order, keys and values null, empty, and
/// larger than every buffer.
fn sample(base: i64) -> Vec<Record> {
    let noise = |length: usize, mut seed: u64| -> Vec<u8> {
        std::iter::repeat_with(|| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 60) as u8 + b'a'
        })
        .take(length)
        .collect()
    };
    vec![
        record(base, 1_700_000_000_500, Some(b"k".to_vec()), Some(b"first".to_vec())),
        record(base + 1, 1_700_000_000_100, None, Some(Vec::new())),
        record(base + 2, 1_700_000_900_000, Some(Vec::new()), None),
        record(base + 3, 1_700_000_000_700, Some(noise(300, 1)), Some(noise(400_000, 2))),
        record(base + 4, 1_700_000_900_000, None, None),
        record(base + 9, 1_700_000_000_600, Some(noise(70_000, 3)), Some(vec![b'x'; 200_000])),
        record(base + 12, 1_700_000_000_000, None, Some(noise(16_384, 4))),
    ]
}

fn metas(records: &[Record]) -> Vec<RecordMeta> {
    let length = |bytes: &Option<Bytes>| bytes.as_ref().map_or(-1, |bytes| bytes.len() as i32);
    records
        .iter()
        .map(|record| RecordMeta {
            offset: record.offset,
            timestamp_ms: record.timestamp,
            key_len: length(&record.key),
            value_len: length(&record.value),
        })
        .collect()
}

/// The batch with its payload replaced, and its length, codec and CRC set to fit.
fn with_payload(batch: &[u8], codec: Codec, payload: &[u8]) -> Vec<u8> {
    let mut bytes = [&batch[..HEADER_BYTES], payload].concat();
    let length = (bytes.len() - LENGTH_PREFIX_BYTES) as i32;
    edit(&mut bytes, |header| {
        header.batch_length.set(length);
        header.attributes.set((header.attributes.get() & !7) | codec as i16);
    });
    bytes
}

fn edit(batch: &mut [u8], change: impl FnOnce(&mut BatchHeader)) {
    change(BatchHeader::mut_from_prefix(batch).unwrap().0);
    testing::seal(batch);
}

fn gzip(level: u32, plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::new(level));
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn raw_snappy(plain: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(plain).unwrap()
}

fn xerial(block_bytes: usize, plain: &[u8]) -> Vec<u8> {
    let mut out = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01".to_vec();
    for block in plain.chunks(block_bytes) {
        let compressed = raw_snappy(block);
        out.extend((compressed.len() as i32).to_be_bytes());
        out.extend(compressed);
    }
    out
}

fn lz4(mode: lz4::BlockMode, size: lz4::BlockSize, checksums: bool, plain: &[u8]) -> Vec<u8> {
    use lz4::liblz4::{BlockChecksum, ContentChecksum};
    let mut builder = lz4::EncoderBuilder::new();
    builder.block_mode(mode).block_size(size);
    builder.checksum(if checksums { ContentChecksum::ChecksumEnabled } else { ContentChecksum::NoChecksum });
    builder.block_checksum(if checksums {
        BlockChecksum::BlockChecksumEnabled
    } else {
        BlockChecksum::NoBlockChecksum
    });
    let mut encoder = builder.build(Vec::new()).unwrap();
    encoder.write_all(plain).unwrap();
    let (out, result) = encoder.finish();
    result.unwrap();
    out
}

/// Zstd as a stream of unknown length, which is how the Java producer writes it.
fn zstd_stream(level: i32, plain: &[u8]) -> Vec<u8> {
    zstd_encode(zstd::stream::write::Encoder::new(Vec::new(), level).unwrap(), plain)
}

/// With the window of 128 MiB that level 22 declares, without the seconds it takes.
fn zstd_wide(plain: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(27).unwrap();
    let bytes = zstd_encode(encoder, plain);
    assert_eq!(bytes[5], (27 - 10) << 3, "the window descriptor");
    bytes
}

fn zstd_encode(mut encoder: zstd::stream::write::Encoder<Vec<u8>>, plain: &[u8]) -> Vec<u8> {
    for part in plain.chunks(10_000) {
        encoder.write_all(part).unwrap();
    }
    encoder.finish().unwrap()
}

/// `plain` by every codec and dialect that producers use, from the reference
/// compressors where there is one.
fn every_dialect(plain: &[u8]) -> Vec<(&'static str, Codec, Vec<u8>)> {
    let half = plain.len() / 2;
    vec![
        ("none", Codec::None, plain.to_vec()),
        ("gzip 6", Codec::Gzip, gzip(6, plain)),
        ("gzip stored", Codec::Gzip, gzip(0, plain)),
        ("gzip, two members", Codec::Gzip, [gzip(1, &plain[..half]), gzip(9, &plain[half..])].concat()),
        ("snappy, xerial", Codec::Snappy, xerial(32 << 10, plain)),
        ("snappy, xerial in tiny blocks", Codec::Snappy, xerial(7, plain)),
        ("snappy, one raw block", Codec::Snappy, raw_snappy(plain)),
        ("lz4, as Kafka", Codec::Lz4, lz4(lz4::BlockMode::Independent, lz4::BlockSize::Max64KB, false, plain)),
        ("lz4, linked", Codec::Lz4, lz4(lz4::BlockMode::Linked, lz4::BlockSize::Max64KB, true, plain)),
        ("lz4, large blocks", Codec::Lz4, lz4(lz4::BlockMode::Linked, lz4::BlockSize::Max4MB, true, plain)),
        ("zstd 3", Codec::Zstd, zstd_stream(3, plain)),
        ("zstd 19", Codec::Zstd, zstd_stream(19, plain)),
        ("zstd, the widest window", Codec::Zstd, zstd_wide(plain)),
        ("zstd of known size", Codec::Zstd, zstd::bulk::compress(plain, 1).unwrap()),
        (
            "zstd, two frames and one to skip",
            Codec::Zstd,
            [zstd_stream(1, &plain[..half]), b"\x50\x2A\x4D\x18\x03\0\0\0abc".to_vec(), zstd_stream(5, &plain[half..])]
                .concat(),
        ),
    ]
}

fn all(batch: &[u8]) -> Result<Vec<RecordMeta>, RecordError> {
    let mut seen = Vec::new();
    walk(batch, &mut |record| {
        seen.push(*record);
        ControlFlow::Continue(())
    })?;
    Ok(seen)
}

#[test]
fn every_codec_gives_the_records_that_were_written() {
    for base in [0, 41, i64::MAX - 20] {
        let records = sample(base);
        let plain = batch_of(&records);
        for (name, codec, payload) in every_dialect(&plain[HEADER_BYTES..]) {
            let batch = with_payload(&plain, codec, &payload);
            record_batch::check(&batch).unwrap();
            assert_eq!(all(&batch).unwrap(), metas(&records), "{name} at {base}");
        }
    }
}

#[test]
fn lookups_agree_with_a_search_over_the_written_records() {
    let records = sample(100);
    let expected = metas(&records);
    let plain = batch_of(&records);
    let mut wanted: Vec<i64> = records.iter().flat_map(|r| [r.timestamp - 1, r.timestamp, r.timestamp + 1]).collect();
    wanted.extend([i64::MIN, -1, 0, i64::MAX]);
    for (name, codec, payload) in every_dialect(&plain[HEADER_BYTES..]) {
        let batch = with_payload(&plain, codec, &payload);
        for &at in &wanted {
            let first = expected.iter().find(|record| record.timestamp_ms >= at).copied();
            assert_eq!(first_at_or_after(&batch, at, 0).unwrap(), first, "{name}, {at}");
            for from in 99..107 {
                let first = expected.iter().find(|record| record.timestamp_ms >= at && record.offset >= from).copied();
                assert_eq!(first_at_or_after(&batch, at, from).unwrap(), first, "{name}, {at} from {from}");
            }
        }
        assert_eq!(latest(&batch).unwrap(), Some(expected[2]), "{name}: offset 102 and 104 share the largest");
    }
}

#[test]
fn under_log_append_time_every_record_has_the_batchs_time() {
    let mut batch = batch_of(&sample(7));
    edit(&mut batch, |header| header.set_log_append_time(5_000));
    assert!(all(&batch).unwrap().iter().all(|record| record.timestamp_ms == 5_000));
    assert_eq!(first_at_or_after(&batch, 5_000, 0).unwrap().unwrap().offset, 7);
    assert_eq!(first_at_or_after(&batch, 5_001, 0).unwrap(), None);
    assert_eq!(latest(&batch).unwrap().unwrap().offset, 7);
}

#[test]
fn timestamps_may_lie_before_the_base_and_the_headers_maximum_is_not_believed() {
    let records = sample(0);
    let mut batch = batch_of(&records);
    let base = BatchHeader::peek(&batch).unwrap().base_timestamp.get();
    // A record with a delta of 0 becomes one before the base when the base moves;
    // the deltas themselves stay.
    edit(&mut batch, |header| {
        header.base_timestamp.set(-1);
        header.max_timestamp.set(i64::MAX);
    });
    let shift = 1_700_000_000_001;
    let expected: Vec<i64> = records.iter().map(|record| record.timestamp - shift).collect();
    assert_eq!(all(&batch).unwrap().iter().map(|r| r.timestamp_ms).collect::<Vec<_>>(), expected);
    assert_eq!(latest(&batch).unwrap().unwrap().offset, 2);

    let negative = by_hand(&[&[0x0e, 0, 0x0d, 0, 1, 1, 0, 0][..]].concat(), 1);
    assert_eq!(all(&negative).unwrap()[0].timestamp_ms, 1_000 - 7);

    edit(&mut batch, |header| header.base_timestamp.set(i64::MAX - 5));
    let delta = records[2].timestamp - base;
    assert_eq!(all(&batch).unwrap()[2].timestamp_ms, (i64::MAX - 5).wrapping_add(delta), "it wraps, as for clients");
}

/// An uncompressed batch at offset 0 and time 1000 whose payload is `payload`.
fn by_hand(payload: &[u8], count: i32) -> Vec<u8> {
    let mut batch = with_payload(&batch_of(&[record(0, 1_000, None, None)]), Codec::None, payload);
    edit(&mut batch, |header| {
        header.record_count.set(count);
        header.last_offset_delta.set(count - 1);
    });
    batch
}

#[test]
fn an_empty_batch_has_no_records_whatever_its_codec() {
    for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let batch = with_payload(&by_hand(&[], 0), codec, &[]);
        assert_eq!(all(&batch).unwrap(), vec![]);
        assert_eq!(latest(&batch).unwrap(), None);
        assert_eq!(first_at_or_after(&batch, 0, 0).unwrap(), None);
    }
    assert!(matches!(all(&by_hand(&[], -4)), Err(RecordError::NegativeCount(-4))));
}

#[test]
fn a_count_that_does_not_fit_the_payload_is_an_error() {
    let records = sample(0);
    let plain = batch_of(&records);
    for (name, codec, payload) in every_dialect(&plain[HEADER_BYTES..]) {
        let mut batch = with_payload(&plain, codec, &payload);
        edit(&mut batch, |header| header.record_count.set(6));
        assert!(matches!(all(&batch), Err(RecordError::Trailing { count: 6 })), "{name}");
        // A search that ends earlier is not troubled.
        assert_eq!(first_at_or_after(&batch, 0, 0).unwrap().unwrap().offset, 0, "{name}");
        edit(&mut batch, |header| header.record_count.set(8));
        assert!(matches!(all(&batch), Err(RecordError::Truncated { index: 7, count: 8 })), "{name}");
    }
}

#[test]
fn nonsense_in_a_record_is_named() {
    // length, attributes, timestamp delta, offset delta, key length, value length,
    // header count; zigzag varints.
    let good = [0x0c, 0, 0, 0, 1, 1, 0];
    assert_eq!(all(&by_hand(&good, 1)).unwrap().len(), 1);
    let cases: &[(&str, &[u8])] = &[
        ("has a negative length", &[0x01, 0, 0, 0, 1, 1, 0]),
        ("is shorter than any record", &[0x0a, 0, 0, 0, 1, 1, 0]),
        ("is longer than its length says", &[0x0c, 0, 0x80, 1, 0, 1, 1, 0]),
        ("has an offset outside its batch", &[0x0c, 0, 0, 2, 1, 1, 0]),
        ("has an offset outside its batch", &[0x0c, 0, 0, 1, 1, 1, 0]),
        ("has a field of negative length", &[0x0c, 0, 0, 0, 3, 1, 0]),
        ("has a key longer than itself", &[0x0c, 0, 0, 0, 8, 1, 0]),
        ("has a value longer than itself", &[0x0c, 0, 0, 0, 1, 8, 0]),
        ("has a varint without end", &[0x80, 0x80, 0x80, 0x80, 0x80, 0, 0]),
        ("has a varint beyond 32 bits", &[0x80, 0x80, 0x80, 0x80, 0x10, 0, 0]),
        (
            "has a varint beyond 64 bits",
            &[0x20, 0, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 2, 0, 1, 1, 0],
        ),
    ];
    for (expected, payload) in cases {
        match all(&by_hand(payload, 1)) {
            Err(RecordError::Malformed { index: 0, what }) => assert_eq!(what, *expected, "{payload:?}"),
            other => panic!("{payload:?} gave {other:?}, not «{expected}»"),
        }
    }
    for cut in 0..good.len() {
        assert!(matches!(all(&by_hand(&good[..cut], 1)), Err(RecordError::Truncated { index: 0, .. })), "{cut}");
    }
    let unknown_codec = {
        let mut batch = by_hand(&good, 1);
        edit(&mut batch, |header| header.attributes.set(5));
        batch
    };
    assert!(matches!(all(&unknown_codec), Err(RecordError::Batch(_))));
}

#[test]
fn a_snappy_block_may_not_claim_more_than_its_bytes_or_the_bound() {
    let claim = |length: u32, filler: usize| {
        let mut block = Vec::new();
        let mut rest = length;
        while rest >= 0x80 {
            block.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        block.push(rest as u8);
        block.resize(block.len() + filler, 0);
        with_payload(&by_hand(&[], 1), Codec::Snappy, &block)
    };
    let text = |batch: &[u8]| all(batch).unwrap_err().to_string();
    assert!(text(&claim(MAX_BLOCK_BYTES as u32 + 1, 4 << 20)).contains("larger than 64 MiB"));
    assert!(text(&claim(MAX_BLOCK_BYTES as u32, 1_000)).contains("more than its bytes can hold"));
    assert!(!text(&claim(MAX_BLOCK_BYTES as u32, 4 << 20)).contains("claim"));
    // The densest block there is stays within the ratio.
    let zeros = vec![0; 1 << 20];
    let error = text(&with_payload(&by_hand(&[], 1), Codec::Snappy, &raw_snappy(&zeros)));
    assert!(error.contains("shorter than any record"), "{error}");
}

#[test]
fn work_ends_at_the_limit() {
    // One record that claims a value of 2^30 bytes, compressed.
    let mut plain = vec![0x80, 0x80, 0x80, 0x80, 0x0e, 0, 0, 0, 1, 0x80, 0x80, 0x80, 0x80, 0x08];
    plain.resize(4 << 20, 0);
    for (name, codec, payload) in every_dialect(&plain) {
        let batch = with_payload(&by_hand(&[], 1), codec, &payload);
        let result = walk_within(&batch, 1 << 20, &mut |_| ControlFlow::Continue(()));
        assert!(matches!(result, Err(RecordError::TooLarge { limit: 1_048_576 })), "{name}: {result:?}");
    }
}

/// The records of `sample` are too long to damage byte by byte; these compress to
/// something of every kind of block.
fn small_batches() -> Vec<(&'static str, Vec<u8>)> {
    let records: Vec<Record> = (0..16)
        .map(|n| record(n, 1_000 + n * 37 % 11, Some(format!("key-{n}").into()), Some(vec![b'v'; n as usize * 6])))
        .collect();
    let plain = batch_of(&records);
    every_dialect(&plain[HEADER_BYTES..])
        .into_iter()
        .map(|(name, codec, payload)| (name, with_payload(&plain, codec, &payload)))
        .collect()
}

/// Whatever the bytes, a walk ends and shows no more than the batch counts, at
/// offsets within the batch.
fn survives(batch: &[u8]) {
    let mut seen = 0;
    let _ = walk_within(batch, 16 << 20, &mut |record| {
        seen += 1;
        let header = BatchHeader::peek(batch).unwrap();
        assert!((header.base()..header.next_offset()).contains(&record.offset));
        ControlFlow::Continue(())
    });
    assert!(seen <= BatchHeader::peek(batch).map_or(0, |header| header.record_count.get().max(0)));
    let _ = inspect(batch, 16 << 20, &mut |_| ());
}

#[test]
fn every_truncation_is_an_error_or_the_same_records() {
    for (name, batch) in small_batches() {
        let whole = all(&batch).unwrap();
        for cut in 0..batch.len() {
            assert!(all(&batch[..cut]).is_err(), "{name} cut at {cut}");
            // The same with a length that fits, which is what a producer could send.
            if cut >= HEADER_BYTES {
                let codec = BatchHeader::peek(&batch).unwrap().codec().unwrap();
                let shorter = with_payload(&batch, codec, &batch[HEADER_BYTES..cut]);
                if let Ok(records) = all(&shorter) {
                    assert_eq!(records, whole, "{name} cut at {cut}");
                }
            }
        }
    }
}

#[test]
fn no_damaged_byte_panics() {
    for (_, batch) in small_batches() {
        // Not the length: it only says where the batch ends.
        for position in (0..8).chain(LENGTH_PREFIX_BYTES..batch.len()) {
            for mask in [0x01, 0x10, 0x80, 0xff] {
                let mut bad = batch.clone();
                bad[position] ^= mask;
                survives(&bad);
            }
        }
    }
}

/// For a change of a codec crate: `CORELANE_FUZZ_ROUNDS=1000000 CORELANE_FUZZ_SEED=7 cargo
/// test --lib random_damage -- --ignored`.
#[test]
#[ignore = "runs for as long as it is told"]
fn random_damage_does_not_panic() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let mut seed = number("CORELANE_FUZZ_SEED").unwrap_or(1).max(1);
    let mut random = move |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % below as u64) as usize
    };
    let batches = small_batches();
    for _ in 0..number("CORELANE_FUZZ_ROUNDS").unwrap_or(20_000) {
        let mut bad = batches[random(batches.len())].1.clone();
        for _ in 0..1 + random(8) {
            let at = HEADER_BYTES + random(bad.len() - HEADER_BYTES);
            let other = HEADER_BYTES + random(bad.len() - HEADER_BYTES);
            match random(4) {
                0 => bad[at] = random(256) as u8,
                1 => bad[at] ^= 1 << random(8),
                2 => bad[at] = bad[other],
                _ => {
                    let length = (1 + random(8)).min(bad.len() - at.max(other));
                    bad.copy_within(other..other + length, at);
                }
            }
        }
        if let Err(panic) = std::panic::catch_unwind(|| survives(&bad)) {
            println!("{bad:?}");
            std::panic::resume_unwind(panic);
        }
    }
}

mod contents;
mod inspecting;
