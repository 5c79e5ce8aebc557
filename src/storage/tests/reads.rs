//! Tests of the limits of reads.

use super::*;

#[test]
fn what_a_read_needs_takes_in_the_batches_before_it_that_cleaning_has_emptied() {
    scratched(|root| async move {
        let log = open(&root.join("t-0"), small_segments()).await.log;
        let mut all = Vec::new();
        for (base, size) in [(0, 100), (1, 0), (2, 0), (3, 3000)] {
            let records = i32::from(size > 0);
            let mut header = testing::header(records, 5);
            header.base_offset.set(base);
            header.last_offset_delta.set(0);
            let bytes = testing::batch(header, &vec![7; size]);
            log.append_as_is(bytes.clone(), 0).await.unwrap();
            all.push(bytes);
        }
        acknowledged(&log, 4).await;
        let needed: usize = all[1..].iter().map(Bytes::len).sum();
        for max_bytes in [1, HEADER_BYTES, 2 * HEADER_BYTES + 1, needed - 1] {
            let read = log.read(1, 4, max_bytes, false).await.unwrap();
            assert_eq!((read.records.len(), read.needed_bytes), (0, needed), "{max_bytes}");
        }
        for (max_bytes, at_least_one) in [(needed, false), (1, true)] {
            let read = log.read(1, 4, max_bytes, at_least_one).await.unwrap();
            assert!(read.records.concat() == all[1..].concat(), "{max_bytes}");
        }
    });
}
