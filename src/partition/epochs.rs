//! Which leader epoch began at which offset (KIP-101), kept in Kafka's `leader-epoch-checkpoint` file.

/// Epochs in rising order with the offset each began at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EpochHistory {
    entries: Vec<(i32, i64)>,
}

impl EpochHistory {
    /// Kafka's name for the file.
    pub const FILE: &str = "leader-epoch-checkpoint";

    /// The file's text.
    pub fn format(&self) -> String {
        let lines: String = self.entries.iter().map(|(epoch, start)| format!("{epoch} {start}\n")).collect();
        format!("0\n{}\n{lines}", self.entries.len())
    }

    /// `None`: the text is not what [`format`](Self::format) writes.
    pub fn parse(text: &str) -> Option<EpochHistory> {
        let mut lines = text.lines();
        if lines.next()? != "0" {
            return None;
        }
        let count: usize = lines.next()?.parse().ok()?;
        let mut entries: Vec<(i32, i64)> = Vec::new();
        for line in lines {
            let (epoch, start) = line.split_once(' ')?;
            let entry = (epoch.parse().ok()?, start.parse().ok()?);
            if entries.last().is_some_and(|last| last.0 >= entry.0 || last.1 > entry.1) {
                return None;
            }
            entries.push(entry);
        }
        (entries.len() == count).then_some(EpochHistory { entries })
    }

    /// Notes that `epoch` begins at `offset`; returns whether that is news.
    pub fn begin(&mut self, epoch: i32, offset: i64) -> bool {
        if self.entries.last().is_some_and(|last| last.0 >= epoch) {
            return false;
        }
        // An epoch that wrote nothing leaves no trace.
        self.entries.retain(|e| e.1 < offset);
        self.entries.push((epoch, offset));
        true
    }

    /// Forgets epochs that began after `end`: the log no longer reaches them.
    pub fn truncate(&mut self, end: i64) {
        self.entries.retain(|e| e.1 <= end);
    }

    /// The epoch that the record at `offset` was written in.
    pub fn epoch_of(&self, offset: i64) -> Option<i32> {
        let after = self.entries.partition_point(|e| e.1 <= offset);
        after.checked_sub(1).map(|i| self.entries[i].0)
    }

    /// For OffsetForLeaderEpoch: the largest epoch not above `asked` and the offset after its last record, as Kafka
    /// answers; `None`: nothing is known of such an epoch.
    pub fn end_of(&self, asked: i32, log_end: i64) -> Option<(i32, i64)> {
        let (latest, _) = *self.entries.last()?;
        // Kafka's "no epoch".
        if asked == -1 {
            return None;
        }
        if asked == latest {
            return Some((latest, log_end));
        }
        let after = self.entries.partition_point(|e| e.0 <= asked);
        let next = self.entries.get(after)?;
        match after.checked_sub(1) {
            Some(i) => Some((self.entries[i].0, next.1)),
            None => Some((asked, next.1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_epochs() {
        let mut history = EpochHistory::default();
        assert_eq!(history.end_of(0, 9), None);
        for (epoch, start) in [(2, 0), (4, 10), (5, 30)] {
            assert!(history.begin(epoch, start));
        }
        assert!(!history.begin(4, 50));
        assert_eq!(history.end_of(5, 40), Some((5, 40)));
        assert_eq!(history.end_of(4, 40), Some((4, 30)));
        assert_eq!(history.end_of(3, 40), Some((2, 10)));
        assert_eq!(history.end_of(1, 40), Some((1, 0)));
        assert_eq!(history.end_of(6, 40), None);
        assert_eq!(history.end_of(-1, 40), None);
        assert_eq!(history.epoch_of(10), Some(4));
        assert_eq!(history.epoch_of(9), Some(2));
    }

    #[test]
    fn the_file_is_kafkas() {
        let mut history = EpochHistory::default();
        history.begin(0, 0);
        history.begin(3, 120);
        assert_eq!(history.format(), "0\n2\n0 0\n3 120\n");
        assert_eq!(EpochHistory::parse(&history.format()), Some(history));
        for bad in ["", "1\n0\n", "0\n2\n0 0\n", "0\n2\n3 0\n1 5\n", "0\nx\n"] {
            assert_eq!(EpochHistory::parse(bad), None, "{bad:?}");
        }
    }
}
