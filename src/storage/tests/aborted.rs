//! The index of aborted transactions beside a log.

use super::*;
use crate::model::{Marker, MarkerKind};
use crate::storage::AbortedTxn;
use crate::storage::aborted::read_file;

const PRODUCER: i64 = 9;

fn records_of(producer_id: i64) -> Bytes {
    let mut header = testing::header(2, 1_000);
    header.attributes.set(0x10);
    header.producer_id.set(producer_id);
    testing::batch(header, &testing::records(2, 400, || 1))
}

fn marker(producer_id: i64, kind: MarkerKind) -> Bytes {
    let marker = Marker { producer_id, producer_epoch: 0, kind, coordinator_epoch: 1, transaction_version: 0 };
    marker.batch(1_000).into()
}

/// Transactions of two producers, over several segments.
async fn write(log: &Rc<Log>) -> Vec<AbortedTxn> {
    let mut aborted = Vec::new();
    let other = log.append(records_of(PRODUCER + 1), 0, 0).unwrap().base_offset;
    for round in 0..12 {
        let first_offset = log.append(records_of(PRODUCER), 0, 0).unwrap().base_offset;
        let kind = if round % 3 == 0 { MarkerKind::Commit } else { MarkerKind::Abort };
        let last_offset = log.append(marker(PRODUCER, kind), 0, 0).unwrap().base_offset;
        if kind == MarkerKind::Abort {
            let txn = AbortedTxn { producer_id: PRODUCER, first_offset, last_offset, last_stable_offset: other };
            log.note_aborted(txn).unwrap();
            aborted.push(txn);
        }
    }
    aborted
}

#[test]
fn a_damaged_index_of_aborted_transactions_is_made_anew() {
    on_shard(|| async {
        let root = scratch();
        let dir = root.path().join("t-0");
        let config = Arc::new(TopicConfig { segment_bytes: 3_000, ..TopicConfig::default() });
        let log = open(&dir, config.clone()).await.log;
        let aborted = write(&log).await;
        let end = log.next_offset();
        assert_eq!(log.aborted_within(0, end).await.unwrap(), aborted);
        let some = aborted[3];
        assert_eq!(log.aborted_within(some.first_offset, some.first_offset + 1).await.unwrap(), [some]);
        log.close(Vec::new).await.unwrap();
        let files: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        let indexes: Vec<_> =
            files.into_iter().filter(|path| path.extension().is_some_and(|found| found == "txnindex")).collect();
        assert!(indexes.len() > 2, "{indexes:?}");
        for index in &indexes {
            let mut bytes = fs::read(index).unwrap();
            bytes[1] ^= 1;
            fs::write(index, bytes).unwrap();
        }
        let log = open(&dir, config.clone()).await.log;
        assert!(log.read(0, end, 1 << 20, true).await.is_ok(), "readers of everything are not concerned");
        assert_eq!(log.aborted_within(0, end).await.unwrap(), aborted);
        let last = indexes.iter().filter_map(|path| path.file_stem()?.to_str()?.parse::<i64>().ok()).max().unwrap();
        log.append(records_of(PRODUCER + 1), 0, 0).unwrap();
        log.close(Vec::new).await.unwrap();
        assert!(!read_file(&dir, last).unwrap().0.is_empty(), "written anew");
    });
}
