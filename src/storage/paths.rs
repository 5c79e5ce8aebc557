//! Names of files and directories, as Kafka writes them.

use std::path::{Path, PathBuf};

/// Kafka's file that tells whose partition a directory is.
pub const PARTITION_METADATA: &str = "partition.metadata";

/// Marks a partition directory that waits for removal.
pub const DELETED_SUFFIX: &str = "-delete";
/// Marks a partition directory that no topic claims.
pub const STRAY_SUFFIX: &str = "-stray";

/// Marks the copy of a partition that is being moved here from another data directory, as in Kafka.
pub const FUTURE_SUFFIX: &str = "-future";
/// Marks such a copy once it is whole: it is the partition where the original is gone.
pub const MOVED_SUFFIX: &str = "-moved";

/// Longest file name of the file systems in use (NAME_MAX), bytes.
pub const NAME_MAX: usize = 255;

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

/// Name under which a partition's directory is put aside: `<topic>-<partition>.<tag><suffix>`. A
/// long topic name is cut so that the whole fits into a file name, as in Kafka's
/// `UnifiedLog.logDeleteDirName`; `tag` keeps the names apart.
pub fn aside_name(dir_name: &str, tag: &str, suffix: &str) -> String {
    let (topic, partition) = match parse_partition_dir(dir_name) {
        Some((topic, _)) => dir_name.split_at(topic.len()),
        None => (dir_name, ""),
    };
    let room = NAME_MAX.saturating_sub(partition.len() + 1 + tag.len() + suffix.len());
    let kept = topic.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= room).last();
    format!("{}{partition}.{tag}{suffix}", &topic[..kept.unwrap_or(0)])
}

/// True for the name of a deleted partition's directory, ours or Kafka's:
/// `<topic>-<partition>.<32 hex digits>-delete`. Any other name that happens to end so
/// belongs to somebody else.
pub fn is_deleted_dir(name: &str) -> bool {
    // A topic's name may have been cut to nothing.
    let is_partition = |dir| parse_partition_dir(dir).is_some() || parse_partition_dir(&format!("x{dir}")).is_some();
    tagged(name, DELETED_SUFFIX).is_some_and(is_partition)
}

/// `<dir>` of a name `<dir>.<32 hex digits><suffix>`.
fn tagged<'a>(name: &'a str, suffix: &str) -> Option<&'a str> {
    let (dir, tag) = name.strip_suffix(suffix)?.rsplit_once('.')?;
    (tag.len() == 32 && tag.bytes().all(|b| b.is_ascii_hexdigit())).then_some(dir)
}

/// True for the name of a copy that is not whole.
pub fn is_future_dir(name: &str) -> bool {
    tagged(name, FUTURE_SUFFIX).is_some_and(|dir| parse_partition_dir(dir).is_some())
}

/// The topic and partition of a copy that is whole, by its directory's name.
pub fn parse_moved_dir(name: &str) -> Option<(&str, i32)> {
    tagged(name, MOVED_SUFFIX).and_then(parse_partition_dir)
}

/// Name of the copy of a partition's directory that is being moved here; `None`: the topic's name
/// is too long for it, as in Kafka.
pub fn future_name(dir_name: &str, tag: &str) -> Option<String> {
    let name = format!("{dir_name}.{tag}{FUTURE_SUFFIX}");
    (name.len() <= NAME_MAX).then_some(name)
}

/// Extensions of a segment's files, in the order in which they are put in place and removed: the
/// log decides, so it comes last.
pub const SEGMENT_FILES: [&str; 4] = ["index", "timeindex", "txnindex", "log"];

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
    fn names_put_aside_fit_into_a_file_name() {
        let tag = "0123456789abcdef0123456789abcdef";
        for length in [1, 100, 213, 214, 248, 249] {
            for partition in ["0", "99999"] {
                for suffix in [DELETED_SUFFIX, STRAY_SUFFIX] {
                    let dir = format!("{}-{partition}", "t".repeat(length));
                    let name = aside_name(&dir, tag, suffix);
                    assert!(name.len() <= NAME_MAX, "{name}");
                    assert!(name.ends_with(&format!("t-{partition}.{tag}{suffix}")), "{name}");
                    assert_eq!(parse_partition_dir(&name), None);
                    assert_eq!(is_deleted_dir(&name), suffix == DELETED_SUFFIX);
                }
            }
        }
        assert_eq!(aside_name("a-b-7", tag, DELETED_SUFFIX), format!("a-b-7.{tag}-delete"));
        assert!(aside_name(&"é".repeat(200), tag, STRAY_SUFFIX).len() <= NAME_MAX);
    }

    #[test]
    fn copies_are_told_apart() {
        let tag = "0123456789abcdef0123456789abcdef";
        let name = future_name("a-b-7", tag).unwrap();
        assert!(is_future_dir(&name) && !is_deleted_dir(&name) && parse_partition_dir(&name).is_none());
        assert!(
            !is_future_dir("a-future") && !is_future_dir("a-0.1-future") && !is_future_dir(&format!("a.{tag}-future"))
        );
        let moved = name.replace(FUTURE_SUFFIX, MOVED_SUFFIX);
        assert_eq!(parse_moved_dir(&moved), Some(("a-b", 7)));
        assert!(parse_partition_dir(&moved).is_none() && !is_future_dir(&moved) && !is_deleted_dir(&moved));
        assert_eq!(parse_moved_dir(&name), None);
        let longest = format!("{}-0", "t".repeat(255 - 2 - 33 - FUTURE_SUFFIX.len()));
        assert_eq!(future_name(&longest, tag).unwrap().len(), NAME_MAX);
        assert_eq!(future_name(&format!("t{longest}"), tag), None);
    }

    #[test]
    fn only_a_deleted_partition_is_one() {
        let tag = "0123456789abcdef0123456789abcdef";
        assert!(is_deleted_dir(&format!("a.b-delete-7.{tag}-delete")));
        for other in ["to-delete", "a-0-delete", "a-0.abc-delete", "a-x.0123456789abcdef0123456789abcdef-delete"] {
            assert!(!is_deleted_dir(other), "{other}");
        }
        assert!(!is_deleted_dir(&format!("a-0.{tag}-stray")));
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
