//! Files of segments that retention has taken out of the log: they wait, and go.

use super::*;

fn with_ending(dir: &Path, ending: &str) -> usize {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(ending)).count()
}

#[test]
fn files_of_removed_segments_wait_for_their_delay() {
    let root = scratch();
    let base = root.path().to_path_buf();
    on_shard(move || {
        let base = base.clone();
        async move {
            for delay_ms in [0, 1, 3_600_000] {
                let dir = base.join(format!("t-{delay_ms}"));
                let config = Arc::new(TopicConfig {
                    segment_bytes: 100_000,
                    retention_bytes: Some(250_000),
                    file_delete_delay_ms: delay_ms,
                    ..TopicConfig::default()
                });
                let context = small_caches();
                let log = open_in(context.clone(), &dir, config.clone()).await.log;
                for i in 0..40 {
                    log.append(batch(1, 20_000, 1000 + i, i as u64 + 1), 3, 0).unwrap();
                }
                acknowledged(&log, 40).await;
                log.checkpoint(Vec::new).await.unwrap();
                assert!(log.enforce_retention(2000, log.acknowledged(), Vec::new).await.unwrap());
                let removed = 10 - with_ending(&dir, ".log");
                assert!(removed > 3);
                assert_eq!(with_ending(&dir, ".log.deleted"), if delay_ms == 0 { 0 } else { removed });
                clock::sleep(Duration::from_millis(2)).await;
                context.remove_discarded().await;
                assert_eq!(with_ending(&dir, ".log.deleted"), if delay_ms < 2 { 0 } else { removed });
                log.close(Vec::new).await.unwrap();
                // Leftovers of a stop go at the next start, as in Kafka.
                let again = open(&dir, config).await.log;
                assert_eq!((with_ending(&dir, ".deleted"), again.next_offset()), (0, 40));
            }
        }
    });
}
