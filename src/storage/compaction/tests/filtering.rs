//! Tests of the filter of one batch.

use super::*;
use crate::model::record_batch::HEADER_BYTES;
use crate::model::testing::edited;
use crate::model::{EndMarker, Marker, MarkerKind};
use crate::storage::AbortedTxn;
use crate::storage::compaction::filter::{Filter, Kept, note_keys};
use crate::storage::compaction::map::OffsetMap;
use crate::storage::compaction::txns::Txns;

const NOW: i64 = 1_000_000;
const RETENTION: i64 = 500;

fn map_of(batches: &[&[u8]]) -> OffsetMap {
    let mut map = OffsetMap::new(1 << 20, 0.9);
    for batch in batches {
        assert!(note_keys(&mut map, batch, 0, &mut Txns::default()).unwrap());
    }
    map
}

fn filter<'a>(map: &'a OffsetMap, producers: &'a LastOffsets, now_ms: i64) -> Filter<'a> {
    Filter { map, producers, now_ms, delete_retention_ms: RETENTION }
}

fn apply(map: &OffsetMap, batch: &[u8]) -> Kept {
    filter(map, &LastOffsets::new(), NOW).apply(batch, false, &mut Txns::default()).unwrap()
}

fn rewritten(kept: Kept) -> (Vec<Record>, BatchHeader) {
    let Kept::Rewritten(bytes) = kept else { panic!("{kept:?}") };
    let (records, headers) = parse(&bytes);
    assert_eq!(headers.len(), 1);
    (records, headers[0])
}

#[test]
fn the_newest_record_of_each_key_stays_with_all_that_belongs_to_it() {
    for codec in CODECS {
        let mut records = vec![record(10, "a", Some("1")), record(11, "b", Some("2")), record(12, "a", Some("3"))];
        records.push((13, 77, Some(b"c".to_vec()), Some(b"4".to_vec()), b"\x02\x02h\x02x".to_vec()));
        records.push(record(14, "b", Some("5")));
        let first = edited(&batch(&records, codec, (9, 2, 40)), |header| header.partition_leader_epoch.set(6));
        let later = batch(&[record(20, "b", Some("6"))], codec, NOBODY);
        let (stays, header) = rewritten(apply(&map_of(&[&first, &later]), &first));
        assert_eq!(stays, [records[2].clone(), records[3].clone()], "{codec:?}");
        assert_eq!((header.base(), header.next_offset(), header.codec()), (10, 15, Some(codec)));
        assert_eq!((header.producer_id.get(), header.producer_epoch.get(), header.base_sequence.get()), (9, 2, 40));
        assert_eq!((header.last_sequence(), header.partition_leader_epoch.get()), (44, 6));
        assert_eq!((header.base_timestamp.get(), header.max_timestamp.get()), (1_012, 1_012));
        assert_eq!(apply(&map_of(&[&later]), &later), Kept::Whole);
    }
}

#[test]
fn what_lies_behind_the_map_and_what_it_does_not_know_stays() {
    let batch = batch(&[record(5, "a", Some("1")), record(6, "b", None)], Codec::None, NOBODY);
    let mut map = OffsetMap::new(1 << 20, 0.9);
    assert_eq!(apply(&map, &batch), Kept::Whole, "the map has seen nothing");
    assert!(map.put(map.hash(b"other"), 5));
    assert_eq!(apply(&map, &batch), Kept::Whole, "no horizon before the tombstone itself was looked at");
    map.advance(6);
    let (stays, header) = rewritten(apply(&map, &batch));
    assert_eq!((stays.len(), header.delete_horizon_ms()), (2, Some(NOW + RETENTION)));
}

#[test]
fn a_tombstone_stays_until_its_horizon_has_passed() {
    let original = batch(&[record(0, "a", Some("1")), record(1, "b", None)], Codec::Lz4, (4, 0, 0));
    let map = map_of(&[&original]);
    let first = apply(&map, &original);
    let Kept::Rewritten(bytes) = &first else { panic!("{first:?}") };
    let bytes = bytes.clone();
    let (stays, header) = rewritten(first);
    assert_eq!(
        stays,
        [record(0, "a", Some("1")), record(1, "b", None)],
        "timestamps are kept with the horizon as their base"
    );
    assert_eq!((header.delete_horizon_ms(), header.max_timestamp.get()), (Some(NOW + RETENTION), 1_001));
    let nobody = LastOffsets::new();
    assert_eq!(
        filter(&map, &nobody, NOW + RETENTION - 1).apply(&bytes, false, &mut Txns::default()).unwrap(),
        Kept::Whole
    );
    let (stays, header) =
        rewritten(filter(&map, &nobody, NOW + RETENTION).apply(&bytes, false, &mut Txns::default()).unwrap());
    assert_eq!(stays, [record(0, "a", Some("1"))]);
    assert_eq!((header.delete_horizon_ms(), header.next_offset()), (Some(NOW + RETENTION), 2));
}

#[test]
fn records_without_a_key_go_and_equal_offsets_do_no_harm() {
    let keyless = (3, 1, None, Some(b"v".to_vec()), vec![0]);
    let mixed = batch(&[record(2, "a", Some("1")), keyless.clone()], Codec::None, NOBODY);
    assert_eq!(rewritten(apply(&map_of(&[&mixed]), &mixed)).0, [record(2, "a", Some("1"))]);
    let alone = batch(&[keyless], Codec::None, NOBODY);
    assert_eq!(apply(&map_of(&[&alone]), &alone), Kept::Nothing);
    // The empty key is a key.
    let empty_key = batch(&[(0, 1, Some(Vec::new()), None, vec![0])], Codec::None, NOBODY);
    assert_eq!(rewritten(apply(&map_of(&[&empty_key]), &empty_key)).0.len(), 1);
}

#[test]
fn an_emptied_batch_stays_for_its_producer_and_for_the_segments_end() {
    let old = batch(&[record(0, "a", Some("1")), record(1, "a", Some("2"))], Codec::Zstd, (7, 1, 5));
    let new = batch(&[record(2, "a", Some("3"))], Codec::None, NOBODY);
    let map = map_of(&[&old, &new]);
    assert_eq!(apply(&map, &old), Kept::Nothing);
    let remembered = LastOffsets::from([(7, 1)]);
    let outdated = LastOffsets::from([(7, 0), (8, 1)]);
    assert_eq!(filter(&map, &outdated, NOW).apply(&old, false, &mut Txns::default()).unwrap(), Kept::Nothing);
    for (producers, keeps_the_end) in [(&remembered, false), (&outdated, true)] {
        let kept = filter(&map, producers, NOW).apply(&old, keeps_the_end, &mut Txns::default()).unwrap();
        let Kept::Rewritten(bytes) = &kept else { panic!("{kept:?}") };
        let bytes = bytes.clone();
        let (records, header) = rewritten(kept);
        assert_eq!((records.len(), bytes.len(), header.record_count.get()), (0, HEADER_BYTES, 0));
        assert_eq!((header.base(), header.next_offset(), header.last_sequence()), (0, 2, 6));
        assert_eq!((header.codec(), header.max_timestamp.get()), (Some(Codec::None), 1_001));
        assert_eq!(
            filter(&map, producers, NOW).apply(&bytes, keeps_the_end, &mut Txns::default()).unwrap(),
            Kept::Whole,
            "and again"
        );
        assert_eq!(apply(&map, &bytes), Kept::Nothing, "until another takes its place");
    }
}

#[test]
fn control_batches_that_are_no_markers_stay_whole_and_take_no_part() {
    let plain = batch(&[record(0, "a", Some("1"))], Codec::None, (1, 0, 0));
    for bits in [0x20, 0x30] {
        let special =
            edited(&batch(&[record(1, "a", Some("2"))], Codec::None, (1, 0, 1)), |header| header.attributes.set(bits));
        let map = map_of(&[&plain, &special]);
        assert_eq!((apply(&map, &special), apply(&map, &plain)), (Kept::Whole, Kept::Whole));
        assert_eq!(map.latest(), 1);
    }
}

#[test]
fn committed_records_count_and_aborted_ones_go() {
    let plain = batch(&[record(0, "a", Some("1"))], Codec::None, (1, 0, 0));
    let special =
        edited(&batch(&[record(1, "a", Some("2"))], Codec::None, (5, 0, 0)), |header| header.attributes.set(0x10));
    let map = map_of(&[&plain, &special]);
    assert_eq!((apply(&map, &plain), apply(&map, &special)), (Kept::Nothing, Kept::Whole));
    let aborted = || {
        let txn = AbortedTxn { producer_id: 5, first_offset: 1, last_offset: 2, last_stable_offset: 3 };
        Txns::new(vec![txn])
    };
    let mut map = map_of(&[&plain]);
    assert!(note_keys(&mut map, &special, 0, &mut aborted()).unwrap());
    let kept = |keeps_the_end, producers: &LastOffsets| {
        filter(&map, producers, NOW).apply(&special, keeps_the_end, &mut aborted()).unwrap()
    };
    assert_eq!((apply(&map, &plain), kept(false, &LastOffsets::new())), (Kept::Whole, Kept::Nothing));
    for emptied in [kept(true, &LastOffsets::new()), kept(false, &LastOffsets::from([(5, 1)]))] {
        let (records, header) = rewritten(emptied);
        assert_eq!((records.len(), header.next_offset(), header.is_transactional()), (0, 2, true));
    }
}

#[test]
fn a_marker_goes_some_time_after_the_last_of_its_transaction() {
    for kind in [MarkerKind::Abort, MarkerKind::Commit] {
        let marker = Marker { producer_id: 5, producer_epoch: 0, kind, coordinator_epoch: 3, transaction_version: 0 };
        let bytes = edited(&marker.batch(1_000), |header| header.base_offset.set(2));
        let special =
            edited(&batch(&[record(1, "a", Some("2"))], Codec::None, (5, 0, 0)), |header| header.attributes.set(0x10));
        let map = map_of(&[&bytes]);
        let nobody = LastOffsets::new();
        let mut txns = Txns::default();
        assert!(!txns.is_aborted(BatchHeader::peek(&special).unwrap()));
        assert_eq!(filter(&map, &nobody, NOW).apply(&bytes, false, &mut txns).unwrap(), Kept::Whole);
        let Kept::Rewritten(dated) = apply(&map, &bytes) else { panic!("no horizon") };
        assert_eq!(BatchHeader::peek(&dated).unwrap().delete_horizon_ms(), Some(NOW + RETENTION));
        assert_eq!(EndMarker::of(&dated), Some(EndMarker { kind, coordinator_epoch: 3 }));
        assert_eq!(apply(&map, &dated), Kept::Whole);
        let later = filter(&map, &nobody, NOW + RETENTION).apply(&dated, false, &mut Txns::default()).unwrap();
        assert_eq!(later, Kept::Nothing);
        let Kept::Rewritten(emptied) =
            filter(&map, &nobody, NOW + RETENTION).apply(&dated, true, &mut Txns::default()).unwrap()
        else {
            panic!("the end of a segment stays")
        };
        assert_eq!((EndMarker::of(&emptied), apply(&map, &emptied)), (None, Kept::Nothing));
    }
}

#[test]
fn a_batch_that_cannot_be_read_stays_whole_and_outranks_nothing() {
    let first = batch(&[record(0, "a", Some("1"))], Codec::None, NOBODY);
    let mut broken = batch(&[record(1, "a", Some("2")), record(2, "b", Some("3"))], Codec::None, NOBODY).to_vec();
    // The second record's length.
    let at = broken.len() - 9;
    broken[at] = 0x7f;
    let broken = edited(&broken, |_| {});
    let mut map = OffsetMap::new(1 << 20, 0.9);
    assert!(note_keys(&mut map, &first, 0, &mut Txns::default()).unwrap());
    assert!(note_keys(&mut map, &broken, 0, &mut Txns::default()).is_err());
    map.advance(2);
    assert_eq!((apply(&map, &first), apply(&map, &broken)), (Kept::Whole, Kept::Whole));
}

#[test]
fn under_log_append_time_records_keep_the_brokers_time() {
    let records = [record(0, "a", Some("1")), record(1, "b", Some("2"))];
    let stamped = edited(&batch(&records, Codec::None, NOBODY), |header| header.set_log_append_time(5_555));
    let later = batch(&[record(2, "a", Some("3"))], Codec::None, NOBODY);
    let (stays, header) = rewritten(apply(&map_of(&[&stamped, &later]), &stamped));
    assert_eq!(stays.iter().map(|r| (r.0, r.1)).collect::<Vec<_>>(), [(1, 5_555)]);
    assert!(header.is_log_append_time() && header.max_timestamp.get() == 5_555);
}
