//! Damaged bytes in a segment, without a log around it.

use std::io;
use std::os::unix::fs::FileExt;

use super::*;
use crate::model::testing;

fn batch(base: i64, records: i32, payload: &[u8]) -> Vec<u8> {
    let mut header = testing::header(records, 0);
    header.base_offset.set(base);
    testing::batch(header, payload).to_vec()
}

/// Five batches of two records each from offset 100 on.
fn segment() -> (Vec<u8>, Vec<u64>) {
    let (mut bytes, mut starts) = (Vec::new(), Vec::new());
    for i in 0..5u8 {
        starts.push(bytes.len() as u64);
        bytes.extend(batch(100 + i64::from(i) * 2, 2, &vec![i + 1; 50 + 100 * usize::from(i)]));
    }
    starts.push(bytes.len() as u64);
    (bytes, starts)
}

/// A file of these bytes.
struct Memory<'a>(&'a [u8]);

impl FileExt for Memory<'_> {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let rest = self.0.get(position as usize..).unwrap_or_default();
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<usize> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
}

fn surveyed(bytes: &[u8], bounds: Bounds) -> Vec<Stretch> {
    survey(&Memory(bytes), 0, Bounds { size: bytes.len() as u64, ..bounds }).unwrap()
}

const WIDE: Bounds =
    Bounds { size: 0, from_offset: 100, end_offset: 1 << 40, end_known: false, gap_at_end: false, reserved: true };

fn sound(bytes: std::ops::Range<u64>, offsets: std::ops::Range<i64>) -> Stretch {
    Stretch { sound: true, bytes, offsets }
}

fn damaged(bytes: std::ops::Range<u64>, offsets: std::ops::Range<i64>) -> Stretch {
    Stretch { sound: false, bytes, offsets }
}

#[test]
fn a_flip_of_any_bit_takes_one_batch_and_no_more() {
    let (whole, starts) = segment();
    assert_eq!(surveyed(&whole, WIDE), [sound(0..starts[5], 100..110)]);
    for place in 0..whole.len() {
        for bit in 0..8 {
            let mut bytes = whole.clone();
            bytes[place] ^= 1 << bit;
            let hit = starts.iter().rposition(|start| *start <= place as u64).unwrap();
            let into = place as u64 - starts[hit];
            let found = surveyed(&bytes, Bounds { end_offset: 110, ..WIDE });
            // The leader epoch lies outside the CRC, and a wrong one hides no record.
            if (12..16).contains(&into) {
                assert_eq!(found, [sound(0..starts[5], 100..110)], "byte {place}");
                continue;
            }
            let missing: Vec<_> = found.iter().filter(|stretch| !stretch.sound).collect();
            assert_eq!(missing.len(), 1, "byte {place} bit {bit}: {found:?}");
            assert_eq!(missing[0].bytes, starts[hit]..starts[hit + 1], "byte {place} bit {bit}");
            let first = 100 + 2 * hit as i64;
            assert_eq!(missing[0].offsets.start, first);
            if hit < 4 {
                assert_eq!(missing[0].offsets.end, first + 2);
            }
        }
    }
}

#[test]
fn zeros_cuts_and_strangers_in_the_middle() {
    let (whole, starts) = segment();
    let mut zeroed = whole.clone();
    zeroed[starts[1] as usize + 20..starts[3] as usize + 12].fill(0);
    assert_eq!(
        surveyed(&zeroed, WIDE),
        [sound(0..starts[1], 100..102), damaged(starts[1]..starts[4], 102..108), sound(starts[4]..starts[5], 108..110)]
    );
    let cut = &whole[..starts[4] as usize + 30];
    assert_eq!(
        surveyed(cut, Bounds { reserved: false, ..WIDE }),
        [sound(0..starts[4], 100..108), damaged(starts[4]..starts[4] + 30, 108..108)],
        "the header is cut off, so nothing is known of what it counted"
    );
    let reserved = [&whole[..], &[0; 5000]].concat();
    assert_eq!(surveyed(&reserved, WIDE), [sound(0..starts[5], 100..110)]);
    let found = surveyed(&reserved, Bounds { reserved: false, ..WIDE });
    assert_eq!(found[1], damaged(starts[5]..starts[5] + 5000, 110..110));
    let found =
        surveyed(&zeroed[..starts[3] as usize], Bounds { end_offset: 110, end_known: true, reserved: false, ..WIDE });
    assert_eq!(found[1].offsets, 102..110, "what the damage has taken is told by where the segment ended");
    let inserted = [&whole[..starts[2] as usize], &[9; 77], &whole[starts[2] as usize..]].concat();
    let found = surveyed(&inserted, WIDE);
    assert_eq!(found[1], damaged(starts[2]..starts[2] + 77, 104..104));
    assert_eq!(found[2].offsets, 104..110);
}

/// Offsets that were there before, and those of the next segment, do not come again.
#[test]
fn batches_of_other_offsets_are_not_the_segments() {
    let (whole, starts) = segment();
    let twice = [&whole[..], &whole[..starts[2] as usize]].concat();
    let found = surveyed(&twice, WIDE);
    assert_eq!(found[0], sound(0..starts[5], 100..110));
    assert!(found.len() == 2 && !found[1].sound, "{found:?}");
    let found = surveyed(&whole, Bounds { from_offset: 104, ..WIDE });
    assert_eq!(found, [damaged(0..starts[2], 104..104), sound(starts[2]..starts[5], 104..110)]);
    let found = surveyed(&whole, Bounds { end_offset: 106, ..WIDE });
    assert_eq!(found[0], sound(0..starts[3], 100..106));
    assert!(!found[1].sound);
}

/// A record may hold a whole batch of another log.
#[test]
fn a_batch_within_a_record_is_not_taken_for_the_logs_own() {
    let inner = batch(5_000_000, 3, b"mirrored");
    let outer = [&[1; 40][..], &inner, &[2; 40]].concat();
    let mut bytes = batch(100, 1, &outer);
    let first = bytes.len() as u64;
    bytes.extend(batch(101, 1, &[3; 40]));
    // The length is wrong, so where the batch ends has to be searched for.
    bytes[8] ^= 0x10;
    let end = bytes.len() as u64;
    assert_eq!(surveyed(&bytes, WIDE), [damaged(0..first, 100..101), sound(first..end, 101..102)]);
}

#[test]
fn gaps_need_a_batch_that_confirms_them() {
    let bytes = [batch(100, 2, &[1; 30]), batch(150, 2, &[2; 30]), batch(152, 2, &[3; 30])].concat();
    let all = surveyed(&bytes, WIDE);
    assert_eq!(all.len(), 1, "cleaning leaves gaps: {all:?}");
    let last = [batch(100, 2, &[1; 30]), batch(150, 2, &[2; 30])].concat();
    assert_eq!(surveyed(&last, WIDE).len(), 2, "a wrong base offset looks the same");
    assert_eq!(surveyed(&last, Bounds { gap_at_end: true, ..WIDE }).len(), 1);
}

#[test]
fn verdicts() {
    let torn = Evidence {
        clean_stop: false,
        synced: false,
        sound_behind: false,
        reach: 0,
        in_flight: 2 << 20,
        never_written: false,
    };
    assert_eq!(judge(torn), Verdict::TornTail);
    assert_eq!(judge(Evidence { clean_stop: true, ..torn }), Verdict::Rot);
    assert_eq!(judge(Evidence { synced: true, ..torn }), Verdict::Rot);
    assert_eq!(
        judge(Evidence { sound_behind: true, ..torn }),
        Verdict::Rot,
        "everything was written, so it has changed since"
    );
    let missing_group = Evidence { sound_behind: true, reach: 1 << 20, never_written: true, ..torn };
    assert_eq!(judge(missing_group), Verdict::TornTail, "a later group landed, an earlier one did not");
    assert_eq!(judge(Evidence { reach: 3 << 20, ..missing_group }), Verdict::Rot, "no write in flight reaches so far");
}

#[test]
fn sectors_that_were_never_written() {
    assert!(never_written(&[0; 10], 4090));
    assert!(!never_written(&[7; 5000], 100));
    let mut torn = vec![7; 5000];
    torn[924..1436].fill(0);
    assert!(never_written(&torn, 100), "the sector at 1024");
    let mut zeros_inside = vec![7; 5000];
    zeros_inside[1000..1500].fill(0);
    assert!(!never_written(&zeros_inside, 100), "zeros of a record that fill no sector");
    assert!(never_written(&[vec![7; 412], vec![0; 100]].concat(), 100), "from the next sector on");
}

#[test]
fn batches_in_slices_are_checked_wherever_the_slices_end() {
    let (whole, starts) = segment();
    for size in [1, 7, 61, 100, 500, 5000] {
        let slices = |bytes: &[u8]| bytes.chunks(size).map(bytes::Bytes::copy_from_slice).collect::<Vec<_>>();
        assert_eq!(check_batches(&slices(&whole), 100, 110), Ok(()), "slices of {size}");
        for place in [3, 9, 16, 18, 25, 80] {
            let mut bytes = whole.clone();
            bytes[starts[2] as usize + place] ^= 1;
            let found = check_batches(&slices(&bytes), 100, 110);
            // A base offset that is too low is told where it is, one that is too high at the next
            // batch, or by the end.
            assert!(found == Err(starts[2]), "byte {place}, slices of {size}: {found:?}");
        }
        assert_eq!(check_batches(&slices(&whole[..whole.len() - 1]), 100, 110), Err(starts[4]));
        assert_eq!(check_batches(&slices(&whole), 100, 109), Err(starts[4]));
    }
    assert_eq!(check_batches(&[], 0, 0), Ok(()));
}

/// Where two neighbours are damaged, neither speaks for the other: the batch behind both tells.
#[test]
fn two_neighbours_that_are_damaged_cost_those_two() {
    let (whole, starts) = segment();
    for (first, second) in [(7usize, 18usize), (6, 80), (18, 7), (7, 24), (9, 7), (7, 9)] {
        let mut bytes = whole.clone();
        bytes[starts[1] as usize + first] ^= 4;
        bytes[starts[2] as usize + second] ^= 4;
        for gap_at_end in [false, true] {
            let found = surveyed(&bytes, Bounds { gap_at_end, ..WIDE });
            let kept: u64 = found.iter().filter(|s| s.sound).map(|s| s.bytes.end - s.bytes.start).sum();
            let lost = starts[3] - starts[1];
            assert_eq!(kept, starts[5] - lost, "{first} {second} {gap_at_end}: {found:?}");
        }
    }
}
