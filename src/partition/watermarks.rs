//! The ends of one replica's log and its high watermark. Pure.
//!
//! ```text
//! start <= high watermark <= acknowledged <= held <= sent <= appended
//!                  synced <= acknowledged     held >= written >= synced
//! ```
//!
//! Each end only rises; [`Watermarks::cut`] and [`Watermarks::reset`] are the two exceptions. The
//! high watermark of the only replica is the acknowledged end. With followers the leader's rules
//! move it, and a follower's is what its leader says, as far as its own log reaches.

use std::fmt;

use crate::model::planted::{Planted, planted};

/// Ends of a log, each the offset after the last record that it covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// First offset that can be read.
    pub start: i64,
    /// Offsets given.
    pub appended: i64,
    /// Stands in an arena, or in a group on its way to disk: followers may read it.
    pub sent: i64,
    /// Survives the process. Without an arena the same as `written`.
    pub held: i64,
    /// Its direct write has completed.
    pub written: i64,
    /// Its `fdatasync` has completed.
    pub synced: i64,
    /// May be acknowledged: `held`, `written` or `synced`, by `corelane.acknowledge` and
    /// `flush.messages`.
    pub acknowledged: i64,
}

impl Ends {
    /// A log all of whose records are synced.
    pub fn synced(start: i64, end: i64) -> Ends {
        Ends { start, appended: end, sent: end, held: end, written: end, synced: end, acknowledged: end }
    }

    /// The order of the ends.
    fn check(&self) -> Result<(), BrokenEnds> {
        let pairs = [
            ("start <= appended", self.start, self.appended),
            ("sent <= appended", self.sent, self.appended),
            ("held <= sent", self.held, self.sent),
            ("written <= held", self.written, self.held),
            ("synced <= written", self.synced, self.written),
            ("synced <= acknowledged", self.synced, self.acknowledged),
            ("acknowledged <= held", self.acknowledged, self.held),
        ];
        pairs.into_iter().try_for_each(|(rule, low, high)| BrokenEnds::unless(low <= high, rule, low, high))
    }

    /// No end of `self` lies behind that of `before`.
    fn check_after(&self, before: &Ends) -> Result<(), BrokenEnds> {
        let pairs = [
            ("start rises", before.start, self.start),
            ("appended rises", before.appended, self.appended),
            ("sent rises", before.sent, self.sent),
            ("held rises", before.held, self.held),
            ("written rises", before.written, self.written),
            ("synced rises", before.synced, self.synced),
            ("acknowledged rises", before.acknowledged, self.acknowledged),
        ];
        pairs.into_iter().try_for_each(|(rule, low, high)| BrokenEnds::unless(low <= high, rule, low, high))
    }

    /// As they are once nothing stands at or after `end`.
    fn cut(&self, end: i64) -> Ends {
        Ends {
            start: self.start.min(end),
            appended: self.appended.min(end),
            sent: self.sent.min(end),
            held: self.held.min(end),
            written: self.written.min(end),
            synced: self.synced.min(end),
            acknowledged: self.acknowledged.min(end),
        }
    }
}

/// A rule between ends that does not hold. The partition has to be taken offline: none of
/// its offsets can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the ends of a log: {rule}, but they are {low} and {high}")]
pub struct BrokenEnds {
    pub rule: &'static str,
    /// The end that must not exceed `high`.
    pub low: i64,
    pub high: i64,
}

impl BrokenEnds {
    fn unless(holds: bool, rule: &'static str, low: i64, high: i64) -> Result<(), BrokenEnds> {
        if holds { Ok(()) } else { Err(BrokenEnds { rule, low, high }) }
    }
}

/// Ends that a move has raised; each has its own waiters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Followers have more to read.
    pub sent: bool,
    /// Producers with `acks=1` have their answer.
    pub acknowledged: bool,
    /// Consumers have more to read, producers with `acks=all` have their answer.
    pub high_watermark: bool,
}

/// The ends and the high watermark of one replica.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Watermarks {
    ends: Ends,
    high_watermark: i64,
}

impl Watermarks {
    /// Of a log that was opened. `checkpointed`: the high watermark that was last noted for it,
    /// which a crash may have left beyond the log's end.
    pub fn opened(ends: Ends, checkpointed: i64) -> Result<Watermarks, BrokenEnds> {
        ends.check()?;
        let high_watermark = checkpointed.min(ends.acknowledged).max(ends.start);
        Watermarks { ends, high_watermark }.checked()
    }

    pub fn ends(&self) -> &Ends {
        &self.ends
    }

    /// Everything before this is committed: consumers see it, `acks=all` is answered for it.
    pub fn high_watermark(&self) -> i64 {
        self.high_watermark
    }

    /// Takes over the log's ends. On an error nothing has changed.
    pub fn observe(&mut self, ends: Ends) -> Result<Moved, BrokenEnds> {
        ends.check()?;
        ends.check_after(&self.ends)?;
        // Retention stays below the high watermark; a follower's log may begin
        // anew only by `reset`.
        let next = Watermarks { ends, ..*self }.checked()?;
        let moved = Moved {
            sent: ends.sent > self.ends.sent,
            acknowledged: ends.acknowledged > self.ends.acknowledged,
            high_watermark: false,
        };
        *self = next;
        Ok(moved)
    }

    /// [`observe`](Self::observe) for the only replica of a partition: what is
    /// acknowledged is committed.
    pub fn observe_alone(&mut self, ends: Ends) -> Result<Moved, BrokenEnds> {
        let mut next = *self;
        // Retention may have reached up to the new high watermark.
        next.raise(ends.acknowledged.max(self.high_watermark));
        let mut moved = next.observe(ends)?;
        moved.high_watermark = next.high_watermark > self.high_watermark;
        *self = next;
        Ok(moved)
    }

    /// Raises the high watermark to `committed`, which every member of the ISR has acknowledged; a
    /// lower value is of the past and changes nothing. True if it moved.
    pub fn advance(&mut self, committed: i64) -> Result<bool, BrokenEnds> {
        BrokenEnds::unless(
            committed <= self.ends.acknowledged,
            "high watermark <= acknowledged",
            committed,
            self.ends.acknowledged,
        )?;
        Ok(self.raise(committed))
    }

    /// Takes over the leader's high watermark as far as the own log reaches. True if it moved.
    pub fn follow(&mut self, leaders: i64) -> bool {
        self.raise(leaders.min(self.ends.acknowledged))
    }

    /// The log was cut to `end`. Returns the high watermark that the cut took back; `None`: it
    /// reached only what was never committed.
    pub fn cut(&mut self, end: i64) -> Option<i64> {
        let before = self.high_watermark;
        self.ends = self.ends.cut(end);
        self.high_watermark = before.min(end);
        (before > end).then_some(before)
    }

    /// The log was emptied and begins at `begin`.
    pub fn reset(&mut self, begin: i64) {
        *self = Watermarks { ends: Ends::synced(begin, begin), high_watermark: begin };
    }

    fn raise(&mut self, to: i64) -> bool {
        let raised = to > self.high_watermark;
        self.high_watermark = self.high_watermark.max(to);
        raised
    }

    fn checked(self) -> Result<Watermarks, BrokenEnds> {
        let (start, hw, acknowledged) = (self.ends.start, self.high_watermark, self.ends.acknowledged);
        BrokenEnds::unless(start <= hw, "start <= high watermark", start, hw)?;
        BrokenEnds::unless(hw <= acknowledged, "high watermark <= acknowledged", hw, acknowledged)?;
        Ok(self)
    }
}

impl fmt::Debug for Watermarks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let e = &self.ends;
        write!(
            f,
            "{}..hw {}..ack {} synced {} written {} held {} sent {} appended {}",
            e.start, self.high_watermark, e.acknowledged, e.synced, e.written, e.held, e.sent, e.appended
        )
    }
}

/// Cuts of a log since it was opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cuts {
    count: u32,
    /// End of the log after the last one.
    end: i64,
}

impl Cuts {
    pub fn count(self) -> u32 {
        self.count
    }

    /// One more, to `end`; `None`: of everything.
    pub fn cut_to(&mut self, end: Option<i64>) {
        *self = Cuts { count: self.count.wrapping_add(1), end: end.unwrap_or(i64::MIN) };
    }

    /// True if a batch that was appended after `count` cuts still stands before `next_offset`. Of a
    /// batch from before the last two cuts that is not known, and it does not count as there.
    pub fn spared(self, count: u32, next_offset: i64) -> bool {
        match self.count.wrapping_sub(count) {
            0 => true,
            1 => next_offset <= self.end || planted(Planted::AcksWhatWasCut),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(start: i64, synced: i64, written: i64, held: i64, sent: i64, appended: i64) -> Ends {
        Ends { start, appended, sent, held, written, synced, acknowledged: held }
    }

    fn at(end: i64) -> Watermarks {
        Watermarks::opened(Ends::synced(0, end), end).unwrap()
    }

    #[test]
    fn a_checkpointed_high_watermark_is_kept_within_the_log() {
        let opened = |checkpointed| Watermarks::opened(Ends::synced(10, 20), checkpointed).unwrap().high_watermark();
        assert_eq!((opened(15), opened(0), opened(25)), (15, 10, 20));
    }

    #[test]
    fn the_only_replica_commits_what_it_acknowledges() {
        let mut marks = at(10);
        let moved = marks.observe_alone(ends(0, 10, 10, 12, 14, 15)).unwrap();
        assert_eq!(moved, Moved { sent: true, acknowledged: true, high_watermark: true });
        assert_eq!(marks.high_watermark(), 12);
        // flush.messages asks for a sync first.
        let synced_first = Ends { acknowledged: 12, ..ends(0, 10, 12, 14, 14, 15) };
        let moved = marks.observe_alone(synced_first).unwrap();
        assert_eq!(moved, Moved::default());
        // Retention has taken everything.
        let emptied = ends(16, 16, 16, 16, 16, 16);
        assert!(marks.observe_alone(emptied).unwrap().high_watermark);
        assert_eq!((marks.ends().start, marks.high_watermark()), (16, 16));
    }

    #[test]
    fn with_followers_the_high_watermark_moves_by_their_word_alone() {
        let mut marks = at(10);
        let moved = marks.observe(ends(0, 10, 10, 15, 15, 15)).unwrap();
        assert_eq!((moved.sent, moved.acknowledged, moved.high_watermark), (true, true, false));
        assert_eq!(marks.high_watermark(), 10);
        assert_eq!(marks.advance(12), Ok(true));
        assert_eq!(marks.advance(11), Ok(false), "a late answer");
        assert_eq!(marks.high_watermark(), 12);
        let beyond = marks.advance(16).unwrap_err();
        assert_eq!((beyond.rule, beyond.low, beyond.high), ("high watermark <= acknowledged", 16, 15));
        assert_eq!(marks.high_watermark(), 12);
    }

    #[test]
    fn a_follower_commits_no_more_than_it_has() {
        let mut marks = at(10);
        assert!(!marks.follow(30));
        marks.observe(ends(0, 10, 10, 20, 25, 25)).unwrap();
        assert!(marks.follow(18));
        assert!(marks.follow(30));
        assert_eq!(marks.high_watermark(), 20);
    }

    #[test]
    fn ends_out_of_order_or_behind_are_refused_and_change_nothing() {
        let mut marks = at(10);
        marks.observe(ends(0, 10, 12, 14, 16, 18)).unwrap();
        let before = marks;
        for (bad, rule) in [
            (ends(0, 10, 12, 14, 19, 18), "sent <= appended"),
            (ends(0, 10, 12, 17, 16, 18), "held <= sent"),
            (ends(0, 10, 15, 14, 16, 18), "written <= held"),
            (ends(0, 13, 12, 14, 16, 18), "synced <= written"),
            (Ends { acknowledged: 15, ..ends(0, 10, 12, 14, 16, 18) }, "acknowledged <= held"),
            (Ends { acknowledged: 9, ..ends(0, 10, 12, 14, 16, 18) }, "synced <= acknowledged"),
            (ends(0, 9, 12, 14, 16, 18), "synced rises"),
            (ends(0, 10, 12, 13, 16, 18), "held rises"),
            (ends(0, 10, 12, 14, 16, 17), "appended rises"),
            (ends(11, 12, 12, 14, 16, 18), "start <= high watermark"),
        ] {
            assert_eq!(marks.observe(bad).map_err(|e| e.rule), Err(rule));
            assert_eq!(marks, before, "{rule}");
        }
    }

    #[test]
    fn a_cut_says_what_it_takes_back() {
        let mut marks = at(10);
        marks.observe(ends(2, 10, 12, 14, 16, 18)).unwrap();
        assert_eq!(marks.cut(13), None);
        assert_eq!(*marks.ends(), ends(2, 10, 12, 13, 13, 13));
        assert_eq!(marks.cut(8), Some(10));
        assert_eq!(marks.high_watermark(), 8);
        assert_eq!(marks.cut(1), Some(8));
        assert_eq!((marks.ends().start, marks.high_watermark()), (1, 1));
        marks.reset(40);
        assert_eq!((*marks.ends(), marks.high_watermark()), (Ends::synced(40, 40), 40));
    }

    /// Random moves of all ends, cuts and resets: the order holds and nothing falls unasked.
    #[test]
    fn random_moves_keep_the_order() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut below = |bound: i64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % u64::try_from(bound.max(1)).unwrap()) as i64
        };
        let mut marks = at(0);
        for _ in 0..200_000 {
            let before = marks;
            match below(20) {
                0 => {
                    let end = marks.ends().start + below(marks.ends().appended - marks.ends().start + 2);
                    let taken = marks.cut(end);
                    assert_eq!(taken.is_some(), end < before.high_watermark());
                    assert!(marks.ends().appended <= end);
                }
                1 => marks.reset(before.ends().start + below(50)),
                2 => {
                    marks.follow(before.high_watermark() + below(20));
                }
                3 => {
                    let to = before.high_watermark() - 3 + below(12);
                    assert_eq!(marks.advance(to).is_ok(), to <= before.ends().acknowledged);
                }
                4 => {
                    let start = before.ends().start + below(before.high_watermark() - before.ends().start + 1);
                    marks.observe(Ends { start, ..*before.ends() }).unwrap();
                }
                _ => {
                    let e = *before.ends();
                    let appended = e.appended + below(5);
                    let sent = e.sent + below(appended - e.sent + 1);
                    let held = e.held + below(sent - e.held + 1);
                    let written = e.written + below(held - e.written + 1);
                    let synced = e.synced + below(written - e.synced + 1);
                    let least = e.acknowledged.max(synced);
                    let acknowledged = least + below(held - least + 1);
                    let moved = marks
                        .observe(Ends { start: e.start, appended, sent, held, written, synced, acknowledged })
                        .unwrap();
                    assert_eq!(moved.sent, sent > e.sent);
                    assert!(!moved.high_watermark);
                    assert_eq!(marks.high_watermark(), before.high_watermark());
                }
            }
            marks.ends().check().unwrap();
            marks.checked().unwrap();
        }
    }
}
