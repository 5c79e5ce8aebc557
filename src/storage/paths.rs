//! Names of files and directories, as Kafka writes them.

use std::path::{Path, PathBuf};

/// Marks a partition directory that waits for removal.
pub const DELETED_SUFFIX: &str = "-delete";
/// Marks a partition directory that no topic claims.
pub const STRAY_SUFFIX: &str = "-stray";

/// `<log.dir>/<topic>-<partition>`
pub fn partition_dir(log_dir: &Path, topic: &str, partition: i32) -> PathBuf {
    log_dir.join(format!("{topic}-{partition}"))
}

/// The topic and partition a directory name stands for; `None`: not a partition's.
pub fn parse_partition_dir(name: &str) -> Option<(&str, i32)> {
    if name.ends_with(DELETED_SUFFIX) || name.ends_with(STRAY_SUFFIX) {
        return None;
    }
    let (topic, partition) = name.rsplit_once('-')?;
    if topic.is_empty() || partition.is_empty() || !partition.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some((topic, partition.parse().ok()?))
}

/// `<dir>/00000000000000000000.<extension>`
pub fn segment_file(dir: &Path, base_offset: i64, extension: &str) -> PathBuf {
    dir.join(format!("{base_offset:020}.{extension}"))
}

/// The base offset in a segment file's name, if the name ends in `.<extension>`.
pub fn parse_segment_file(name: &str, extension: &str) -> Option<i64> {
    let stem = name.strip_suffix(extension)?.strip_suffix('.')?;
    if stem.len() != 20 || !stem.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    stem.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partition_directories() {
        assert_eq!(parse_partition_dir("my-topic-12"), Some(("my-topic", 12)));
        for other in ["-3", "topic-", "topic", "topic-x", "topic-1.abc-delete", "topic-1.abc-stray", "topic--1x"] {
            assert_eq!(parse_partition_dir(other), None, "{other}");
        }
    }

    #[test]
    fn segment_files() {
        let path = segment_file(Path::new("d"), 42, "log");
        assert_eq!(path.to_str().unwrap(), "d/00000000000000000042.log");
        assert_eq!(parse_segment_file("00000000000000000042.log", "log"), Some(42));
        for other in ["42.log", "00000000000000000042.index", "0000000000000000004x.log", "log"] {
            assert_eq!(parse_segment_file(other, "log"), None, "{other}");
        }
    }
}
