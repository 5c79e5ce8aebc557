//! The copy of a log that goes on.

use super::*;
use crate::storage::DirCopy;

#[test]
fn a_copy_knows_segments_that_were_replaced_meanwhile() {
    scratched(|root| async move {
        let config = Arc::new(TopicConfig { segment_bytes: 100_000, ..TopicConfig::default() });
        let (dir, future) = (root.join("t-0"), root.join("future"));
        let log = open(&dir, config).await.log;
        for i in 0..20 {
            log.append(batch(2, 20_000, 1000 + i, i as u64 + 1), 3, 0).unwrap();
        }
        acknowledged(&log, 40).await;
        log.seal_active().await.unwrap();
        let sealed = log.sealed_segments();
        let whole: u64 = sealed.iter().map(|(_, bytes)| bytes).sum();
        let mut copy = DirCopy::begin(dir.clone(), future).await.unwrap();
        assert_eq!(copy.outdated(sealed.clone()).await, whole, "nothing is copied yet");
        DirCopy::settle().await;
        for (base_offset, _) in &sealed {
            assert!(copy.segment(*base_offset, &async |_| true).await.unwrap());
        }
        assert_eq!(copy.outdated(sealed.clone()).await, 0);
        // As cleaning replaces it: another file under its name.
        let (base_offset, bytes) = sealed[1];
        let path = dir.join(format!("{base_offset:020}.log"));
        fs::write(dir.join("cleaned"), fs::read(&path).unwrap()).unwrap();
        fs::rename(dir.join("cleaned"), &path).unwrap();
        assert_eq!(copy.outdated(sealed.clone()).await, bytes);
        DirCopy::settle().await;
        assert!(copy.segment(base_offset, &async |_| true).await.unwrap());
        assert_eq!(copy.outdated(sealed.clone()).await, 0);
        // One that retention took has no bytes to copy.
        fs::remove_file(&path).unwrap();
        assert_eq!(copy.outdated(sealed).await, 0);
    });
}
