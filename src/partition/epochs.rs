//! Which leader epoch began at which offset (KIP-101), kept in Kafka's `leader-epoch-checkpoint`
//! file.
//!
//! A start that was not clean begins a new epoch at the end of the log as it was found: what was
//! lost behind it ended with the old one, so that a consumer that has read it learns where the log
//! was cut (KIP-320), although its offsets are used again. The file has no checksum, so the
//! partition's checkpoint holds a copy of it, and every batch names its epoch.

use crate::model::LeaderEpoch;
use crate::storage::LastStop;

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

    /// Notes that a batch at `offset`, the end of the log or behind it, is of `epoch`; returns
    /// whether that is news. Epochs of a log do not fall: later ones that are in the history wrote
    /// nothing, and leave no trace.
    pub fn assign(&mut self, epoch: i32, offset: i64) -> bool {
        if self.entries.last().is_some_and(|last| last.0 == epoch && last.1 <= offset) {
            return false;
        }
        let before = self.entries.len();
        self.entries.retain(|e| e.0 <= epoch && e.1 < offset);
        self.begin(epoch, offset) || self.entries.len() != before
    }

    /// The newest epoch.
    pub fn latest(&self) -> Option<i32> {
        self.entries.last().map(|last| last.0)
    }

    /// True if all that `epoch` and older ones wrote is gone from the log's beginning:
    /// nothing can be said of it.
    pub fn is_before_all(&self, epoch: i32) -> bool {
        self.entries.first().is_some_and(|first| epoch < first.0)
    }

    /// True if this is what `older` may have become: epochs that began later were added, and those
    /// that wrote nothing, or whose records were cut off, are gone.
    fn follows(&self, older: &EpochHistory) -> bool {
        let same = self.entries.iter().zip(&older.entries).take_while(|(new, old)| new == old).count();
        match (self.entries.get(same), older.entries.get(same)) {
            (_, None) => true,
            (Some(new), Some(old)) => new.0 > old.0 && new.1 <= old.1,
            (None, Some(_)) => false,
        }
    }

    /// True if the epochs that batches of the log name are in the history at their
    /// offsets, but for later ones.
    fn agrees(&self, read: &EpochHistory) -> bool {
        let is_later = |offset: i64| self.entries.last().is_none_or(|last| last.1 <= offset);
        read.entries.iter().all(|(epoch, offset)| is_later(*offset) || self.epoch_of(*offset) == Some(*epoch))
    }

    /// Takes note of what batches tell: `read`, and the base offset of the newest of them. The
    /// history need not have what a follower wrote since its last checkpoint, nor lack an epoch
    /// that wrote nothing: batches behind its start are of older ones.
    fn complete(&mut self, read: &EpochHistory, newest: i64) {
        if let Some(latest) = read.latest() {
            self.entries.retain(|(epoch, start)| *epoch <= latest || *start > newest);
        }
        for (epoch, offset) in &read.entries {
            if self.entries.last().is_none_or(|last| last.1 <= *offset) {
                self.assign(*epoch, *offset);
            }
        }
    }

    /// Forgets epochs without a record before `end`, where the log now ends. One that began at
    /// `end` goes too: the next records there may be of an older epoch, when a leader is
    /// elected that led before it.
    pub fn truncate(&mut self, end: i64) {
        self.entries.retain(|e| e.1 < end);
    }

    /// The epoch that the record at `offset` was written in.
    pub fn epoch_of(&self, offset: i64) -> Option<i32> {
        let after = self.entries.partition_point(|e| e.1 <= offset);
        after.checked_sub(1).map(|i| self.entries[i].0)
    }

    /// For OffsetForLeaderEpoch: the largest epoch not above `asked` and the offset after its last
    /// record, as Kafka answers; `None`: nothing is known of such an epoch.
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

/// A partition's epochs as a start finds them beside their file.
#[derive(Debug, Default)]
pub struct EpochEvidence {
    /// The copy in the partition's checkpoint.
    pub checkpointed: Option<EpochHistory>,
    /// From the batches that were read: all behind the recovery point, or all of the log where
    /// there is no checkpoint.
    read: EpochHistory,
    /// Base offset of the newest batch that was read.
    newest: i64,
}

/// A partition's history after a start.
#[derive(Debug, PartialEq, Eq)]
pub struct Begun {
    pub history: EpochHistory,
    /// The partition's epoch from now on; above the image's when that lags behind.
    pub epoch: LeaderEpoch,
    /// The file says something else.
    pub changed: bool,
    /// The fault of the file; `None`: it is sound.
    pub damage: Option<&'static str>,
}

impl EpochEvidence {
    /// Takes note of a batch's epoch. It lies outside the CRC; one beyond the `current` epoch is
    /// not believed.
    pub fn saw(&mut self, epoch: i32, base_offset: i64, current: i32) {
        if (0..=current).contains(&epoch) {
            self.read.begin(epoch, base_offset);
            self.newest = base_offset;
        }
    }

    /// Begins the image's epoch, or a later one, at the end of the log; `begins`: that epoch and
    /// how the last run ended, or `None` where no epoch begins with the start, as in a cluster.
    /// `file`: the text of the history's file.
    pub fn begin(self, file: Option<&str>, begins: Option<(LeaderEpoch, LastStop)>, next_offset: i64) -> Begun {
        let known = self.checkpointed.is_some() || self.read.latest().is_some();
        let parsed = file.and_then(EpochHistory::parse);
        // As of this start: an epoch without a record may be in the copy and no longer in the file.
        let completed = |mut history: EpochHistory| {
            history.complete(&self.read, self.newest);
            history.truncate(next_offset);
            history
        };
        let is_continued = |file: &EpochHistory, copy: &EpochHistory| {
            file.follows(copy) || completed(file.clone()).follows(&completed(copy.clone()))
        };
        let (sound, damage) = match (file, parsed, &self.checkpointed) {
            (None, ..) if known => (None, Some("the file is missing")),
            (None, ..) => (None, None),
            (Some(_), None, _) => (None, Some("the file is damaged")),
            (_, Some(parsed), Some(copy)) if !is_continued(&parsed, copy) => {
                (None, Some("the file is damaged: it is not what the checkpoint has a copy of"))
            }
            (_, Some(parsed), None) if !parsed.agrees(&self.read) => {
                (None, Some("the file is damaged: batches of the log name other epochs"))
            }
            (_, parsed, _) => (parsed, None),
        };
        let mut history = sound.or(self.checkpointed).unwrap_or_default();
        history.complete(&self.read, self.newest);
        // Of offsets that may be used again the epoch must be a new one. The image has been raised
        // for that, unless it was restored from an old copy.
        let epoch = match (begins, history.latest()) {
            (Some((current, LastStop::Unclean)), Some(latest)) => current.0.max(latest.saturating_add(1)),
            (Some((current, _)), latest) => current.0.max(latest.unwrap_or(0)),
            (None, latest) => latest.unwrap_or(-1),
        };
        let epoch = LeaderEpoch(epoch);
        history.truncate(next_offset);
        if begins.is_some() {
            history.begin(epoch.0, next_offset);
        }
        let changed = file != Some(history.format().as_str());
        Begun { history, epoch, changed, damage }
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

    #[test]
    fn a_batch_tells_of_an_epoch_and_of_those_that_wrote_nothing() {
        let mut history = history(&[(0, 0), (4, 80), (5, 100)]);
        assert!(!history.assign(5, 100), "its first batch");
        assert!(history.assign(4, 100), "5 began there and wrote nothing");
        assert_eq!(history.entries, [(0, 0), (4, 80)]);
        assert!(!history.assign(4, 110));
        assert!(history.assign(7, 120));
        assert!(history.assign(6, 130), "7 wrote nothing, and cleaning has left a gap");
        assert_eq!(history.entries, [(0, 0), (4, 80), (6, 130)]);
        assert!(history.assign(7, 140));
        assert_eq!(history.entries, [(0, 0), (4, 80), (6, 130), (7, 140)]);
        history.truncate(130);
        assert_eq!(history.entries, [(0, 0), (4, 80)]);
    }

    /// A follower's file is as of its last checkpoint, or has an epoch that began as it was opened.
    #[test]
    fn batches_behind_the_checkpoint_complete_the_file() {
        let after = |file: &str, read: &[_]| begun(evidence(None, read), Some(file), 6, LastStop::Running, 400).history;
        assert_eq!(
            after("0\n1\n0 0\n", &[(0, 50), (2, 100), (3, 250)]),
            history(&[(0, 0), (2, 100), (3, 250), (6, 400)])
        );
        let copy = || Some(history(&[(0, 0)]));
        let with_copy = evidence(copy(), &[(3, 250)]);
        let later = begun(with_copy, Some("0\n2\n0 0\n5 250\n"), 6, LastStop::Running, 400);
        assert_eq!((later.history, later.damage), (history(&[(0, 0), (3, 250), (6, 400)]), None));
        // Epoch 5 began at 250 and wrote nothing: the epoch before went on.
        let before = evidence(copy(), &[(0, 200), (0, 250)]);
        let before = begun(before, Some("0\n2\n0 0\n5 250\n"), 6, LastStop::Running, 400);
        assert_eq!((before.history, before.damage), (history(&[(0, 0), (6, 400)]), None));
        // One whose first batch may be the next stays, as long as the log goes on there.
        let next = begun(evidence(copy(), &[(0, 200)]), Some("0\n2\n0 0\n5 250\n"), 5, LastStop::Running, 250);
        assert_eq!(next.history, history(&[(0, 0), (5, 250)]));
    }

    fn evidence(checkpointed: Option<EpochHistory>, read: &[(i32, i64)]) -> EpochEvidence {
        let mut evidence = EpochEvidence { checkpointed, ..EpochEvidence::default() };
        for (epoch, offset) in read {
            evidence.saw(*epoch, *offset, 1_000);
        }
        evidence
    }

    fn history(entries: &[(i32, i64)]) -> EpochHistory {
        EpochHistory { entries: entries.to_vec() }
    }

    fn begun(evidence: EpochEvidence, file: Option<&str>, current: i32, last_stop: LastStop, end: i64) -> Begun {
        evidence.begin(file, Some((LeaderEpoch(current), last_stop)), end)
    }

    /// Records up to 400 in epoch 0, of which a power cut left 219: the new epoch begins there.
    #[test]
    fn a_start_after_a_cut_ends_the_old_epoch_where_the_log_ends() {
        let evidence = || EpochEvidence { checkpointed: Some(history(&[(0, 0)])), ..EpochEvidence::default() };
        let after = begun(evidence(), Some("0\n1\n0 0\n"), 1, LastStop::Unclean, 219);
        assert_eq!((after.epoch, after.changed, after.damage), (LeaderEpoch(1), true, None));
        assert_eq!(after.history.end_of(0, 300), Some((0, 219)));
        assert_eq!(after.history.end_of(1, 300), Some((1, 300)));
        // Metadata from an old copy still says 0.
        assert_eq!(begun(evidence(), Some("0\n1\n0 0\n"), 0, LastStop::Unclean, 219).epoch, LeaderEpoch(1));
        assert_eq!(begun(evidence(), Some("0\n2\n0 0\n4 9\n"), 1, LastStop::Clean, 219).epoch, LeaderEpoch(4));
        let clean = begun(evidence(), Some("0\n1\n0 0\n"), 0, LastStop::Clean, 400);
        assert_eq!((clean.epoch, clean.changed), (LeaderEpoch(0), false));
        // New, or opened again while the broker runs: nothing was cut that anybody has seen.
        assert_eq!(begun(evidence(), Some("0\n1\n0 0\n"), 0, LastStop::Running, 400).epoch, LeaderEpoch(0));
        assert_eq!(begun(EpochEvidence::default(), None, 0, LastStop::Unclean, 0).epoch, LeaderEpoch(0));
    }

    #[test]
    fn a_damaged_file_is_made_anew_from_checkpoint_and_batches() {
        let stored = || evidence(Some(history(&[(0, 0), (2, 100)])), &[(2, 250), (3, 300)]);
        let right = history(&[(0, 0), (2, 100), (3, 300)]);
        for file in [None, Some(""), Some("0\n3\n0 0\n2 180\n3 300\n"), Some("0\n2\n0 0\n3 300\n"), Some("0\n1\n0 0\n")]
        {
            let made = begun(stored(), file, 3, LastStop::Clean, 400);
            assert_eq!((&made.history, made.damage.is_some(), made.changed), (&right, true, true), "{file:?}");
        }
        let sound = begun(stored(), Some(&right.format()), 3, LastStop::Clean, 400);
        assert_eq!((sound.history, sound.damage, sound.changed), (right.clone(), None, false));
        // An epoch of the copy wrote nothing, or was cut off.
        let later = history(&[(0, 0), (4, 90)]);
        assert_eq!(begun(stored(), Some(&later.format()), 4, LastStop::Clean, 400).damage, None);
        // Without a checkpoint all batches were read.
        let only_read = || evidence(None, &[(0, 0), (2, 100)]);
        assert_eq!(begun(only_read(), Some("0\n2\n0 0\n2 100\n"), 2, LastStop::Clean, 400).damage, None);
        let flipped = begun(only_read(), Some("0\n2\n0 0\n2 140\n"), 2, LastStop::Clean, 400);
        assert_eq!((flipped.history, flipped.damage.is_some()), (history(&[(0, 0), (2, 100)]), true));
    }

    /// A replica that led epoch 1 without a record has it in the checkpoint; as it follows, the
    /// epoch leaves the file, and a clean stop that finds nothing new keeps the checkpoint.
    #[test]
    fn an_epoch_without_a_record_may_be_in_the_copy_alone() {
        let copy = || Some(history(&[(0, 0), (1, 100)]));
        let start = |read: &[_], file: &str, end| evidence(copy(), read).begin(Some(file), None, end);
        let clean = start(&[], "0\n1\n0 0\n", 100);
        assert_eq!((clean.history, clean.changed, clean.damage), (history(&[(0, 0)]), false, None));
        // The file does not know yet of epoch 2, whose leader has written since.
        let later = start(&[(2, 100), (2, 130)], "0\n1\n0 0\n", 160);
        assert_eq!((later.history, later.changed, later.damage), (history(&[(0, 0), (2, 100)]), true, None));
        // With a record of its own the epoch has to be in the file.
        let lost = start(&[], "0\n1\n0 0\n", 160);
        assert_eq!((lost.history, lost.damage.is_some()), (history(&[(0, 0), (1, 100)]), true));
    }

    #[test]
    fn an_epoch_that_a_batch_cannot_have_is_not_believed() {
        let mut evidence = EpochEvidence::default();
        for (epoch, offset) in [(0, 0), (1 << 20, 5), (-1, 6), (1, 9)] {
            evidence.saw(epoch, offset, 1);
        }
        assert_eq!(evidence.read, history(&[(0, 0), (1, 9)]));
    }
}
