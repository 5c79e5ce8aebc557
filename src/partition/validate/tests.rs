use super::*;
use crate::model::records::{compress, read};
use crate::model::testing;
use crate::model::varint::put_signed;

const NOW: i64 = 1_800_000_000_000;
const DAY: i64 = 86_400_000;
const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

/// A record with value `v` and without headers.
fn record(offset_delta: i64, timestamp_delta: i64, key: Option<&[u8]>) -> Vec<u8> {
    let mut body = vec![0];
    put_signed(&mut body, timestamp_delta);
    put_signed(&mut body, offset_delta);
    put_signed(&mut body, key.map_or(-1, |key| key.len() as i64));
    body.extend_from_slice(key.unwrap_or_default());
    body.extend_from_slice(&[2, b'v', 0]);
    with_length(&body)
}

fn with_length(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_signed(&mut out, body.len() as i64);
    out.extend_from_slice(body);
    out
}

/// Records with a key, at these distances from the base timestamp.
fn keyed(timestamp_deltas: &[i64]) -> Vec<u8> {
    (0..).zip(timestamp_deltas).flat_map(|(n, delta)| record(n, *delta, Some(b"key"))).collect()
}

fn edit(batch: &Bytes, change: impl FnOnce(&mut BatchHeader)) -> Bytes {
    testing::edited(batch, change).into()
}

/// A batch at [`NOW`] that counts `count` records around `payload`, whatever that is.
fn sealed(codec: Codec, payload: &[u8], count: i32) -> Bytes {
    let mut header = testing::header(count, NOW);
    header.attributes.set(codec as i16);
    header.producer_epoch.set(-1);
    header.base_sequence.set(-1);
    testing::batch(header, payload)
}

fn batch(codec: Codec, records: &[u8], count: i32) -> Bytes {
    let mut payload = Vec::new();
    compress(codec, records, &mut payload).unwrap();
    sealed(codec, &payload, count)
}

fn check_by(records: &Bytes, config: &TopicConfig, validation: ProduceValidation) -> Result<CheckedBatch, Rejected> {
    let rules = Rules { topic: "t", partition: 3, config, validation, now_ms: NOW, limits: Limits::FULL };
    validate(records, &rules).map_err(Refusal::rejected)
}

fn check(records: &Bytes, config: &TopicConfig) -> Result<CheckedBatch, Rejected> {
    check_by(records, config, ProduceValidation::Full)
}

fn code(records: &Bytes) -> ErrorCode {
    check(records, &TopicConfig::default()).map_or_else(|rejected| rejected.code, |_| ErrorCode::None)
}

fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 7u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 57) as u8
    };
    (0..bytes).map(|_| next()).collect()
}

#[test]
fn a_sound_batch_passes_as_it_is() {
    for codec in CODECS {
        let sent = batch(codec, &keyed(&[-5, 0, -1]), 3);
        let checked = check(&sent, &TopicConfig::default()).unwrap();
        assert_eq!(checked.log_append_time_ms(), -1);
        let kept = checked.into_bytes();
        assert_eq!(kept.as_ptr(), sent.as_ptr(), "{codec:?}: no copy");
        assert_eq!(kept, sent);
    }
}

/// The answers of Apache Kafka 4.3.1.
#[test]
fn a_body_that_is_not_what_the_header_says_is_refused() {
    use ErrorCode::{InvalidRecord, UnknownServerError};
    for codec in CODECS {
        let records = keyed(&[0, 0, 0]);
        assert_eq!(code(&batch(codec, &records, 4)), InvalidRecord, "{codec:?}: fewer records than counted");
        assert_eq!(code(&batch(codec, &records, 2)), InvalidRecord, "{codec:?}: more records than counted");
        assert_eq!(code(&batch(codec, &noise(100), 3)), InvalidRecord, "{codec:?}: noise, compressed");
        let trailing = [&records[..], &[0]].concat();
        assert_eq!(code(&batch(codec, &trailing, 3)), InvalidRecord, "{codec:?}: a byte more");
        assert_eq!(code(&batch(codec, &[], 1)), InvalidRecord, "{codec:?}: a stream of nothing");
        let raw = code(&sealed(codec, &noise(100), 3));
        let empty = code(&sealed(codec, &[], 1));
        match codec {
            Codec::None => assert_eq!((raw, empty), (InvalidRecord, InvalidRecord)),
            Codec::Zstd => assert_eq!((raw, empty), (UnknownServerError, InvalidRecord)),
            _ => assert_eq!((raw, empty), (UnknownServerError, UnknownServerError), "{codec:?}"),
        }
    }
}

#[test]
fn a_stream_that_is_cut_off_or_damaged_is_refused() {
    let records: Vec<u8> = (0..50).flat_map(|n| record(n, 0, Some(&noise(40)[n as usize % 20..]))).collect();
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let mut payload = Vec::new();
        compress(codec, &records, &mut payload).unwrap();
        for cut in 1..payload.len().min(200) {
            let got = code(&sealed(codec, &payload[..payload.len() - cut], 50));
            assert_eq!(got, ErrorCode::UnknownServerError, "{codec:?} without its last {cut} bytes");
        }
    }
}

#[test]
fn lz4_blocks_that_depend_on_one_another_are_refused_and_bytes_after_the_frame_are_not() {
    use std::io::Write;
    let records: Vec<u8> = (0..2000).flat_map(|n| record(n, 0, Some(&[b'k'; 64]))).collect();
    let encoded = |mode| {
        let mut encoder =
            lz4::EncoderBuilder::new().block_mode(mode).block_size(lz4::BlockSize::Max64KB).build(Vec::new());
        let encoder = encoder.as_mut().unwrap();
        encoder.write_all(&records).unwrap();
        std::mem::replace(encoder, lz4::EncoderBuilder::new().build(Vec::new()).unwrap()).finish().0
    };
    let independent = encoded(lz4::BlockMode::Independent);
    assert_eq!(code(&sealed(Codec::Lz4, &independent, 2000)), ErrorCode::None);
    assert_eq!(code(&sealed(Codec::Lz4, &[&independent[..], b"more"].concat(), 2000)), ErrorCode::None);
    assert_eq!(code(&sealed(Codec::Lz4, &encoded(lz4::BlockMode::Linked), 2000)), ErrorCode::UnknownServerError);
    for (at, bits) in [(4, 0x01), (4, 0x02), (4, 0x80), (5, 0x01), (5, 0x80)] {
        let mut bad = independent.clone();
        bad[at] ^= bits;
        assert_eq!(code(&sealed(Codec::Lz4, &bad, 2000)), ErrorCode::UnknownServerError, "{bits:#x} at {at}");
    }
}

#[test]
fn the_header_gets_the_largest_timestamp_of_the_records() {
    for codec in CODECS {
        for claimed in [-1, 0, NOW - 1, NOW + 10 * DAY, i64::MAX, i64::MIN] {
            let sent = edit(&batch(codec, &keyed(&[3, 9, -4]), 3), |header| header.max_timestamp.set(claimed));
            let checked = check(&sent, &TopicConfig::default()).unwrap();
            assert_eq!(checked.header().max_timestamp.get(), NOW + 9, "{codec:?}");
            let kept = checked.into_bytes();
            let header = record_batch::check(&kept).unwrap();
            assert_eq!((header.max_timestamp.get(), header.base_timestamp.get()), (NOW + 9, NOW));
            assert_eq!(kept[HEADER_BYTES..], sent[HEADER_BYTES..]);
        }
        let none = edit(&batch(codec, &keyed(&[0, 0]), 2), |header| header.base_timestamp.set(-1));
        let checked = check(&none, &TopicConfig::default()).unwrap();
        assert_eq!(checked.header().max_timestamp.get(), -1, "{codec:?}: records without a timestamp");
    }
}

#[test]
fn each_record_outside_the_bounds_is_named() {
    let config = TopicConfig { timestamp_before_max_ms: 3_600_000, ..TopicConfig::default() };
    for codec in CODECS {
        let sent = batch(codec, &keyed(&[0, -DAY, 0, 10 * DAY, -3_600_000, -3_600_001]), 6);
        let rejected = check(&sent, &config).unwrap_err();
        assert_eq!(rejected.code, ErrorCode::InvalidTimestamp);
        let named: Vec<i32> = rejected.records.iter().map(|bad| bad.index).collect();
        assert_eq!(named, [1, 3, 5], "{codec:?}");
        assert!(rejected.records[0].message.contains(&(NOW - DAY).to_string()), "{:?}", rejected.records[0]);
        assert!(rejected.message.starts_with("3 of the batch's 6 records"), "{}", rejected.message);
    }
    let wrapped = batch(Codec::None, &keyed(&[i64::MAX]), 1);
    assert_eq!(code(&wrapped), ErrorCode::InvalidTimestamp, "a sum beyond 64 bits");
    let without = edit(&batch(Codec::None, &keyed(&[0]), 1), |header| header.base_timestamp.set(-1));
    assert!(check(&without, &config).is_ok(), "no timestamp is within all bounds");
}

#[test]
fn a_compacted_topic_names_the_records_without_a_key() {
    let config = TopicConfig { cleanup_compact: true, ..TopicConfig::default() };
    let records: Vec<u8> = (0..100).flat_map(|n| record(n, 0, (n % 10 != 4).then_some(b"key".as_slice()))).collect();
    for codec in CODECS {
        for validation in [ProduceValidation::Full, ProduceValidation::Header] {
            let rejected = check_by(&batch(codec, &records, 100), &config, validation).unwrap_err();
            assert_eq!(rejected.code, ErrorCode::InvalidRecord);
            let named: Vec<i32> = rejected.records.iter().map(|bad| bad.index).collect();
            assert_eq!(named, (0..10).map(|n| n * 10 + 4).collect::<Vec<_>>());
            assert!(rejected.records[0].message.ends_with("in topic partition t-3"), "{:?}", rejected.records[0]);
        }
        assert!(check(&batch(codec, &keyed(&[0; 5]), 5), &config).is_ok());
        assert!(check(&batch(codec, &records, 100), &TopicConfig::default()).is_ok());
    }
    // A record with two flaws is named once, and a bad timestamp decides the code.
    let both = [record(0, 0, None), record(1, 10 * DAY, Some(b"k")), record(2, 10 * DAY, None)].concat();
    let rejected = check(&batch(Codec::None, &both, 3), &config).unwrap_err();
    assert_eq!((rejected.code, rejected.records.len()), (ErrorCode::InvalidTimestamp, 3));
}

#[test]
fn bad_records_are_all_counted_and_the_first_thousand_named() {
    let config = TopicConfig { cleanup_compact: true, ..TopicConfig::default() };
    let records: Vec<u8> = (0..5000).flat_map(|n| record(n, 0, None)).collect();
    let rejected = check(&batch(Codec::Zstd, &records, 5000), &config).unwrap_err();
    assert_eq!(rejected.records.len(), MAX_BAD_RECORDS);
    assert!(rejected.message.starts_with("5000 of the batch's 5000 records"), "{}", rejected.message);
}

#[test]
fn a_client_may_set_the_bit_of_log_append_time_where_the_timestamps_are_right() {
    let (create, append) = (TopicConfig::default(), TopicConfig { log_append_time: true, ..TopicConfig::default() });
    let marked = |max: i64, deltas: &[i64]| {
        edit(&batch(Codec::None, &keyed(deltas), deltas.len() as i32), |header| header.set_timestamps(true, max))
    };
    let checked = check(&marked(NOW, &[-3, 0, -1]), &create).unwrap();
    assert!(!checked.header().is_log_append_time());
    assert_eq!(checked.header().max_timestamp.get(), NOW);
    assert!(record_batch::check(&checked.into_bytes()).is_ok());
    for (sent, config) in [
        (marked(-1, &[0, 0]), &create),
        (marked(NOW + 10 * DAY, &[0, 0]), &create),
        (marked(NOW, &[0, 10 * DAY]), &create),
        (marked(NOW, &[0, 0]), &append),
    ] {
        assert_eq!(check(&sent, config).unwrap_err().code, ErrorCode::InvalidTimestamp);
    }
}

#[test]
fn under_log_append_time_the_batch_gets_the_brokers_time_whatever_its_records_say() {
    let config = TopicConfig { log_append_time: true, timestamp_before_max_ms: 0, ..TopicConfig::default() };
    for codec in CODECS {
        let checked = check(&batch(codec, &keyed(&[-DAY, 10 * DAY]), 2), &config).unwrap();
        assert_eq!(checked.log_append_time_ms(), NOW);
        let kept = checked.into_bytes();
        let header = record_batch::check(&kept).unwrap();
        assert!(header.is_log_append_time());
        assert_eq!((header.max_timestamp.get(), header.base_timestamp.get()), (NOW, NOW));
    }
}

#[test]
fn a_producer_sets_no_delete_horizon() {
    let sent = edit(&batch(Codec::None, &keyed(&[0]), 1), |header| header.set_delete_horizon(Some(NOW)));
    let checked = check(&sent, &TopicConfig::default()).unwrap();
    assert_eq!(checked.header().delete_horizon_ms(), None);
    assert!(record_batch::check(&checked.into_bytes()).is_ok());
}

#[test]
fn offsets_count_from_0_in_header_and_records() {
    for codec in CODECS {
        let good = batch(codec, &keyed(&[0, 0, 0]), 3);
        let based = edit(&good, |header| header.base_offset.set(5));
        assert_eq!(code(&based), ErrorCode::InvalidRecord, "a base offset");
        for deltas in [[1, 2, 3], [0, 0, 0], [0, 2, 1], [0, -1, -2]] {
            let records: Vec<u8> = deltas.iter().flat_map(|delta| record(*delta, 0, Some(b"k"))).collect();
            let sent = batch(codec, &records, 3);
            if codec != Codec::None {
                assert_eq!(code(&sent), ErrorCode::UnknownServerError, "{codec:?} {deltas:?}");
                continue;
            }
            // Kafka takes them; here they are put right, also on the way into another codec.
            for compression in [CompressionType::Producer, CompressionType::Lz4] {
                let config = TopicConfig { compression, ..TopicConfig::default() };
                let kept = check(&sent, &config).unwrap().into_bytes();
                record_batch::check(&kept).unwrap();
                let mut offsets = Vec::new();
                read(&kept, &mut |record| {
                    offsets.push(record.meta.offset);
                    assert_eq!((record.key, record.value), (Some(&b"k"[..]), Some(&b"v"[..])));
                    ControlFlow::Continue(())
                })
                .unwrap();
                assert_eq!(offsets, [0, 1, 2], "{deltas:?}");
            }
        }
        let counts = edit(&good, |header| header.last_offset_delta.set(7));
        assert_eq!(code(&counts), ErrorCode::InvalidRecord);
    }
}

#[test]
fn by_the_header_alone_nothing_else_is_looked_at() {
    let config = TopicConfig::default();
    let noise = sealed(Codec::Zstd, &noise(100), 3);
    let kept = check_by(&noise, &config, ProduceValidation::Header).unwrap().into_bytes();
    assert_eq!(kept, noise);
    let future = edit(&noise, |header| header.max_timestamp.set(NOW + DAY));
    let rejected = check_by(&future, &config, ProduceValidation::Header).unwrap_err();
    assert_eq!(rejected.code, ErrorCode::InvalidTimestamp);
    let marked = edit(&noise, |header| header.set_timestamps(true, NOW));
    let checked = check_by(&marked, &config, ProduceValidation::Header).unwrap();
    assert!(!checked.header().is_log_append_time());
}

#[test]
fn what_decompresses_to_more_than_the_walk_takes_is_told_apart() {
    let sent = batch(Codec::Zstd, &vec![0; 1 << 20], 1);
    let config = TopicConfig::default();
    let rules = Rules {
        topic: "t",
        partition: 0,
        config: &config,
        validation: ProduceValidation::Full,
        now_ms: NOW,
        limits: Limits { output_bytes: 1000, recompressed_bytes: 1000 },
    };
    // The first bytes are no record, which is found out before the limit.
    assert!(matches!(validate(&sent, &rules), Err(Refusal::Rejected(_))));
    let mut body = vec![0, 0, 0, 1];
    put_signed(&mut body, 1 << 20);
    body.resize(body.len() + (1 << 20), b'v');
    body.push(0);
    let large = batch(Codec::Zstd, &with_length(&body), 1);
    assert_eq!(validate(&large, &rules).unwrap_err(), Refusal::TooMuchWork);
    assert!(check(&large, &config).is_ok());
}

/// Values of the records, whatever the codec.
fn values(batch: &[u8]) -> Vec<(i64, Vec<u8>, Vec<u8>)> {
    let mut seen = Vec::new();
    read(batch, &mut |record| {
        seen.push((record.meta.timestamp_ms, record.key.unwrap_or_default().to_vec(), record.headers.to_vec()));
        ControlFlow::Continue(())
    })
    .unwrap();
    seen
}

#[test]
fn a_batch_is_stored_in_its_topics_codec() {
    let types = [
        (CompressionType::Uncompressed, Codec::None),
        (CompressionType::Gzip, Codec::Gzip),
        (CompressionType::Snappy, Codec::Snappy),
        (CompressionType::Lz4, Codec::Lz4),
        (CompressionType::Zstd, Codec::Zstd),
    ];
    for (compression, target) in types {
        for log_append_time in [false, true] {
            let config = TopicConfig { compression, log_append_time, ..TopicConfig::default() };
            for from in CODECS {
                for validation in [ProduceValidation::Full, ProduceValidation::Header] {
                    let sent = batch(from, &keyed(&[0, 7, -3]), 3);
                    let sent = edit(&sent, |header| {
                        header.max_timestamp.set(NOW + 7);
                        header.producer_id.set(77);
                        header.producer_epoch.set(1);
                        header.base_sequence.set(5);
                    });
                    let checked = check_by(&sent, &config, validation).unwrap();
                    let (told, kept) = (*checked.header(), checked.into_bytes());
                    let header = record_batch::check(&kept).unwrap();
                    assert_eq!(header.as_bytes(), told.as_bytes());
                    assert_eq!((header.codec(), header.record_count.get()), (Some(target), 3), "{from:?}");
                    assert_eq!((header.producer_id.get(), header.base_sequence.get()), (77, 5));
                    assert_eq!(header.is_log_append_time(), log_append_time);
                    assert_eq!(header.max_timestamp.get(), if log_append_time { NOW } else { NOW + 7 });
                    if !log_append_time {
                        assert_eq!(values(&kept), values(&sent), "{from:?} to {target:?}");
                        assert_eq!(kept.as_ptr() == sent.as_ptr(), from == target, "one in that codec stays");
                    }
                }
            }
        }
    }
}

#[test]
fn a_batch_that_gets_too_large_in_its_topics_codec_is_refused() {
    let records: Vec<u8> = (0..1000).flat_map(|n| record(n, 0, Some(&[b'k'; 100]))).collect();
    let sent = batch(Codec::Zstd, &records, 1000);
    let config = TopicConfig {
        compression: CompressionType::Uncompressed,
        max_message_bytes: (HEADER_BYTES + records.len()) as u32,
        ..TopicConfig::default()
    };
    assert!(check(&sent, &config).is_ok());
    let short = TopicConfig { max_message_bytes: config.max_message_bytes - 1, ..config.clone() };
    assert_eq!(check(&sent, &short).unwrap_err().code, ErrorCode::MessageTooLarge);
    // A shard's own thread does not compress as much.
    let rules = Rules {
        topic: "t",
        partition: 0,
        config: &config,
        validation: ProduceValidation::Full,
        now_ms: NOW,
        limits: Limits::INLINE,
    };
    assert_eq!(validate(&sent, &rules).unwrap_err(), Refusal::TooMuchWork);
    // Unsound records are refused first.
    let noise = sealed(Codec::Gzip, &noise(100), 3);
    for validation in [ProduceValidation::Full, ProduceValidation::Header] {
        assert_eq!(check_by(&noise, &config, validation).unwrap_err().code, ErrorCode::UnknownServerError);
    }
}

#[test]
fn levels_reach_the_codec() {
    let records: Vec<u8> =
        (0..3000).flat_map(|n| record(n, 0, Some(format!("key {} of {}", n % 97, n * n % 89).as_bytes()))).collect();
    let sent = batch(Codec::None, &records, 3000);
    let bytes = |config: TopicConfig| check(&sent, &config).unwrap().into_bytes().len();
    let default = TopicConfig::default;
    let gzip =
        |level| bytes(TopicConfig { compression: CompressionType::Gzip, compression_gzip_level: level, ..default() });
    let lz4 =
        |level| bytes(TopicConfig { compression: CompressionType::Lz4, compression_lz4_level: level, ..default() });
    let zstd =
        |level| bytes(TopicConfig { compression: CompressionType::Zstd, compression_zstd_level: level, ..default() });
    assert!(gzip(9) < gzip(1) && gzip(-1) == gzip(6), "{} {} {}", gzip(9), gzip(1), gzip(-1));
    assert!(lz4(17) < lz4(9) && lz4(17) == lz4(12), "{} {}", lz4(17), lz4(9));
    assert!(zstd(19) < zstd(-100), "{} {}", zstd(19), zstd(-100));
}
