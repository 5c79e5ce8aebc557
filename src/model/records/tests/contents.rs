//! Reading records with their contents, and writing them.

use super::*;
use crate::model::records::walk::read_within;

type Whole = (i64, i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<u8>);

fn contents(batch: &[u8]) -> Result<Vec<Whole>, RecordError> {
    let mut all = Vec::new();
    read(batch, &mut |record| {
        let owned = |field: Option<&[u8]>| field.map(<[u8]>::to_vec);
        let RecordMeta { offset, timestamp_ms, .. } = record.meta;
        all.push((offset, timestamp_ms, owned(record.key), owned(record.value), record.headers.to_vec()));
        ControlFlow::Continue(())
    })?;
    Ok(all)
}

fn expected(records: &[Record]) -> Vec<Whole> {
    // "trace" with ten digits and "null" without a value, behind their count.
    let some = b"\x04\x0atrace\x140123456789\x08null\x01".to_vec();
    let field = |bytes: &Option<Bytes>| bytes.as_ref().map(|bytes| bytes.to_vec());
    records
        .iter()
        .map(|r| {
            let headers = if r.offset % 2 == 0 { some.clone() } else { vec![0] };
            (r.offset, r.timestamp, field(&r.key), field(&r.value), headers)
        })
        .collect()
}

#[test]
fn keys_values_and_headers_are_read_from_every_dialect() {
    let records = sample(40);
    let plain = batch_of(&records);
    for (name, codec, payload) in every_dialect(&plain[HEADER_BYTES..]) {
        let batch = with_payload(&plain, codec, &payload);
        assert!(contents(&batch).unwrap() == expected(&records), "{name}");
    }
}

#[test]
fn what_is_read_and_written_again_is_the_same_with_every_codec() {
    let records = sample(40);
    let plain = batch_of(&records);
    for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let base_timestamp_ms = BatchHeader::peek(&plain).unwrap().base_timestamp.get();
        let mut writer = BatchWriter::new(40, base_timestamp_ms);
        read(&plain, &mut |r| {
            writer.push(r.meta.offset, r.meta.timestamp_ms, r.key, r.value, r.headers);
            ControlFlow::Continue(())
        })
        .unwrap();
        assert_eq!((writer.count(), writer.max_timestamp_ms()), (7, 1_700_000_900_000));
        let mut header = *BatchHeader::peek(&plain).unwrap();
        header.attributes.set(codec as i16);
        let batch = writer.finish(header).unwrap();
        let written = record_batch::check(&batch).unwrap();
        assert_eq!((written.base(), written.next_offset(), written.codec()), (40, 53, Some(codec)));
        assert!(contents(&batch).unwrap() == expected(&records), "{codec:?}");
        if codec == Codec::None {
            assert_eq!(batch, plain, "byte for byte what kafka-protocol writes");
        } else {
            assert!(batch.len() < plain.len(), "{codec:?} made {} of {}", batch.len(), plain.len());
        }
    }
}

#[test]
fn the_reference_decompressors_read_what_is_compressed_here() {
    let plain = &batch_of(&sample(0))[HEADER_BYTES..];
    let compressed = |codec| {
        let mut out = Vec::new();
        crate::model::records::compress::append(codec, plain, &mut out).unwrap();
        out
    };
    assert!(zstd::decode_all(&compressed(Codec::Zstd)[..]).unwrap() == plain);
    let mut out = Vec::new();
    std::io::Read::read_to_end(&mut lz4::Decoder::new(&compressed(Codec::Lz4)[..]).unwrap(), &mut out).unwrap();
    assert!(out == plain);
    // Version 01, independent blocks, no checksums, 64 KiB a block: what Kafka's own decoder takes.
    assert_eq!(compressed(Codec::Lz4)[4..6], [0x60, 0x40]);
}

#[test]
fn a_batch_is_built_of_keys_and_values() {
    let records = vec![(b"a".to_vec(), Some(b"1".to_vec())), (Vec::new(), None), (b"b".to_vec(), Some(Vec::new()))];
    let batch = build(&records, 1_234);
    let header = record_batch::check(&batch).unwrap();
    record_batch::check_produced(header).unwrap();
    assert_eq!((header.base(), header.next_offset(), header.partition_leader_epoch.get()), (0, 3, 0));
    let producer = (header.producer_id.get(), header.producer_epoch.get(), header.base_sequence.get());
    assert_eq!((producer, header.max_timestamp.get()), ((-1, -1, -1), 1_234));
    let wanted: Vec<Whole> =
        (0..).zip(records).map(|(offset, (key, value))| (offset, 1_234, Some(key), value, vec![0])).collect();
    assert_eq!(contents(&batch).unwrap(), wanted);
    assert_eq!(record_batch::check(&build(&[], 5)).unwrap().next_offset(), 0);
}

#[test]
fn timestamps_and_offsets_far_apart_survive() {
    let mut writer = BatchWriter::new(7, i64::MAX);
    writer.push(7, -1, Some(b"k"), None, &[0]);
    writer.push(7 + i64::from(i32::MAX), 0, None, Some(b"v"), &[0]);
    let mut header = *BatchHeader::peek(&build(&[], 0)).unwrap();
    header.base_timestamp.set(i64::MAX);
    header.last_offset_delta.set(i32::MAX);
    let batch = writer.finish(header).unwrap();
    // i64::MAX + (-1 - i64::MAX) stays within 64 bits.
    let read: Vec<(i64, i64)> = contents(&batch).unwrap().iter().map(|r| (r.0, r.1)).collect();
    assert_eq!(read, [(7, -1), (7 + i64::from(i32::MAX), 0)]);
}

#[test]
fn a_record_that_claims_much_is_held_to_what_comes() {
    let mut plain = vec![0x80, 0x80, 0x80, 0x80, 0x0e, 0, 0, 0, 1, 0x80, 0x80, 0x80, 0x80, 0x08];
    plain.resize(4 << 20, 0);
    for (name, codec, payload) in every_dialect(&plain) {
        let batch = with_payload(&by_hand(&[], 1), codec, &payload);
        let result = read_within(&batch, 1 << 20, &mut |_| ControlFlow::Continue(()));
        assert!(matches!(result, Err(RecordError::TooLarge { limit: 1_048_576 })), "{name}: {result:?}");
    }
}

#[test]
fn damage_shows_the_same_records_with_and_without_contents_or_an_error() {
    for (name, batch) in small_batches() {
        for position in (0..8).chain(LENGTH_PREFIX_BYTES..batch.len()) {
            for mask in [0x01, 0x80, 0xff] {
                let mut bad = batch.clone();
                bad[position] ^= mask;
                let (mut with, mut without) = (Vec::new(), Vec::new());
                let read = read_within(&bad, 16 << 20, &mut |record| {
                    assert_eq!(record.key.map_or(-1, |key| key.len() as i32), record.meta.key_len);
                    assert_eq!(record.value.map_or(-1, |value| value.len() as i32), record.meta.value_len);
                    with.push(record.meta);
                    ControlFlow::Continue(())
                });
                let walked = walk_within(&bad, 16 << 20, &mut |record| {
                    without.push(*record);
                    ControlFlow::Continue(())
                });
                assert_eq!((read.is_ok(), with), (walked.is_ok(), without), "{name} at {position}");
            }
        }
    }
}
