//! The high watermarks of one data directory's partitions, in Kafka's
//! `replication-offset-checkpoint`. Pure but for its file.
//!
//! A replica that starts believes no more than it says: what lies behind it may have to be cut. So
//! an old one, or none at all, costs time, never records, and the file is replaced without a sync.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use crate::storage::files;

/// High watermarks by topic and partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HighWatermarks(BTreeMap<(String, i32), i64>);

impl HighWatermarks {
    /// Kafka's name for the file.
    pub const FILE: &str = "replication-offset-checkpoint";

    pub fn set(&mut self, topic: &str, partition: i32, high_watermark: i64) {
        self.0.insert((topic.to_owned(), partition), high_watermark);
    }

    /// 0: none is known.
    pub fn of(&self, topic: &str, partition: i32) -> i64 {
        self.0.get(&(topic.to_owned(), partition)).copied().unwrap_or(0)
    }

    /// The file's text.
    pub fn format(&self) -> String {
        let line = |((topic, partition), offset): (&(String, i32), &i64)| format!("{topic} {partition} {offset}\n");
        let lines: String = self.0.iter().map(line).collect();
        format!("0\n{}\n{lines}", self.0.len())
    }

    /// `None`: the text is not what [`format`](Self::format) writes.
    pub fn parse(text: &str) -> Option<HighWatermarks> {
        let mut lines = text.lines();
        let (version, count) = (lines.next()?, lines.next()?.parse::<usize>().ok()?);
        let mut found = HighWatermarks::default();
        for line in lines {
            let mut fields = line.rsplitn(3, ' ');
            let (offset, partition, topic) = (fields.next()?, fields.next()?, fields.next()?);
            let offset = offset.parse().ok().filter(|offset: &i64| *offset >= 0)?;
            found.set(topic, partition.parse().ok()?, offset);
        }
        (version == "0" && found.0.len() == count && text.ends_with('\n')).then_some(found)
    }

    /// Those that the data directory `root` remembers; none where there is no file, or it is
    /// damaged, which is logged.
    pub async fn load(root: &Path) -> io::Result<HighWatermarks> {
        let Some(text) = files::read(root, Self::FILE).await? else { return Ok(HighWatermarks::default()) };
        Ok(HighWatermarks::parse(&text).unwrap_or_else(|| {
            tracing::warn!(
                file = %root.join(Self::FILE).display(),
                "the file is damaged: replicas learn their high watermarks from their leaders"
            );
            HighWatermarks::default()
        }))
    }

    /// Replaces the file in the data directory `root`.
    pub async fn store(&self, root: &Path) -> io::Result<()> {
        files::replace(root, Self::FILE, self.format()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> HighWatermarks {
        let mut marks = HighWatermarks::default();
        marks.set("orders", 10, 7);
        marks.set("orders", 2, 0);
        marks.set("a-b.c_d", 0, i64::MAX);
        marks
    }

    #[test]
    fn the_file_is_kafkas() {
        let text = "0\n3\na-b.c_d 0 9223372036854775807\norders 2 0\norders 10 7\n";
        assert_eq!(sample().format(), text);
        assert_eq!(HighWatermarks::parse(text), Some(sample()));
        assert_eq!(HighWatermarks::parse("0\n0\n"), Some(HighWatermarks::default()));
        assert_eq!((sample().of("orders", 10), sample().of("orders", 11)), (7, 0));
    }

    #[test]
    fn every_cut_and_what_is_not_kafkas_is_refused() {
        let text = sample().format();
        for end in 0..text.len() {
            assert_eq!(HighWatermarks::parse(&text[..end]), None, "{:?}", &text[..end]);
        }
        for bad in ["1\n0\n", "0\n1\nt 0 -1\n", "0\n1\nt x 1\n", "0\n2\nt 0 1\nt 0 2\n", "0\n1\n0 1\n", "0\n1\n"] {
            assert_eq!(HighWatermarks::parse(bad), None, "{bad:?}");
        }
    }
}
