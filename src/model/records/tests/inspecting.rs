//! The walk over produced batches.

use super::*;

fn inspected(batch: &[u8]) -> Result<Vec<Inspected>, RecordError> {
    let mut seen = Vec::new();
    inspect(batch, 16 << 20, &mut |record| seen.push(*record))?;
    Ok(seen)
}

#[test]
fn every_codec_gives_the_same_facts() {
    let records = sample(0);
    let plain = batch_of(&records);
    let base = BatchHeader::peek(&plain).unwrap().base_timestamp.get();
    let expected: Vec<Inspected> = (0..)
        .zip(&records)
        .map(|(index, record)| Inspected {
            index,
            timestamp_delta: record.timestamp - base,
            offset_delta: record.offset as i32,
            has_key: record.key.is_some(),
        })
        .collect();
    for (name, codec, payload) in every_dialect(&plain[HEADER_BYTES..]) {
        let batch = with_payload(&plain, codec, &payload);
        match name {
            // Kafka's reader takes independent blocks only.
            "lz4, linked" | "lz4, large blocks" => {
                assert!(matches!(inspected(&batch), Err(RecordError::Decompress { .. })), "{name}");
            }
            _ => assert_eq!(inspected(&batch).unwrap(), expected, "{name}"),
        }
    }
}

/// A record that the decoder hands out in parts is read by other code than one that lies
/// in its buffer as a whole.
#[test]
fn a_record_in_parts_is_read_as_one_in_a_piece() {
    let (_, small) = small_batches().remove(0);
    let mut cases = vec![small[HEADER_BYTES..].to_vec()];
    for position in HEADER_BYTES..small.len() {
        for mask in [0x01, 0x02, 0x10, 0x80, 0xff] {
            let mut bad = small.clone();
            bad[position] ^= mask;
            cases.push(bad[HEADER_BYTES..].to_vec());
        }
    }
    for payload in cases {
        let whole = inspected(&with_payload(&small, Codec::None, &payload));
        for block in [1, 7, 64] {
            let parts = inspected(&with_payload(&small, Codec::Snappy, &xerial(block, &payload)));
            match (&whole, &parts) {
                (Ok(whole), Ok(parts)) => assert_eq!(whole, parts),
                (Err(_), Err(_)) => {}
                (whole, parts) => panic!("{payload:?}\nwhole: {whole:?}\nin parts: {parts:?}"),
            }
        }
    }
}

#[test]
fn nonsense_in_a_record_is_named() {
    // length, attributes, timestamp delta, offset delta, key length, value length,
    // header count; zigzag varints.
    let good = [0x0c, 0, 0, 0, 1, 1, 0];
    assert_eq!(inspected(&by_hand(&good, 1)).unwrap().len(), 1);
    let cases: &[(&str, &[u8])] = &[
        ("has a negative length", &[0x01, 0, 0, 0, 1, 1, 0]),
        ("is longer than its length says", &[0x0a, 0, 0, 0, 1, 1, 0]),
        ("is longer than its length says", &[0x0c, 0, 0, 0, 8, 1, 0]),
        ("is shorter than its length says", &[0x0e, 0, 0, 0, 1, 1, 0, 0]),
        ("has a field of negative length", &[0x0c, 0, 0, 0, 3, 1, 0]),
        ("has a negative number of headers", &[0x0c, 0, 0, 0, 1, 1, 1]),
        ("has a header without a key", &[0x10, 0, 0, 0, 1, 1, 2, 1, 1]),
        ("has a varint beyond 32 bits", &[0x14, 0, 0, 0x80, 0x80, 0x80, 0x80, 0x10, 1, 1, 0]),
        ("has a varint without end", &[0x16, 0, 0, 0x80, 0x80, 0x80, 0x80, 0x80, 0, 1, 1, 0]),
    ];
    for (expected, payload) in cases {
        match inspected(&by_hand(payload, 1)) {
            Err(RecordError::Malformed { index: 0, what }) => assert_eq!(what, *expected, "{payload:?}"),
            other => panic!("{payload:?} gave {other:?}, not «{expected}»"),
        }
    }
    for cut in 0..good.len() {
        assert!(matches!(inspected(&by_hand(&good[..cut], 1)), Err(RecordError::Truncated { index: 0, .. })), "{cut}");
    }
}
