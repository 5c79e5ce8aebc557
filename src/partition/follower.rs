//! Rules of a partition's follower (KIP-101, 279, 320), pure: the leader's answers and the own
//! log's ends go in; the next fetch and what to do with the log come out.
//!
//! A fetch leaves only when all that came before is acknowledged by the own log, so its
//! offset is an acknowledgement.

use super::epochs::EpochHistory;
use super::watermarks::Watermarks;
use crate::model::planted::{Planted, planted};
use crate::model::{BrokerId, ErrorCode, LeaderEpoch};

/// The partition's leader as the metadata image shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Follower {
    pub leader: BrokerId,
    pub epoch: LeaderEpoch,
}

/// A fetch from the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextFetch {
    pub leader_epoch: LeaderEpoch,
    pub offset: i64,
    /// Epoch of the record before `offset`; `None`: the log is empty.
    pub last_epoch: Option<i32>,
}

/// The leader's answer to a fetch of the epoch that is followed still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaderAnswer {
    Records {
        /// Base offset of the first batch; `None`: there is none.
        first: Option<i64>,
        high_watermark: i64,
        start: i64,
    },
    Diverging {
        epoch: i32,
        end: i64,
    },
    OutOfRange {
        start: i64,
    },
    Refused(ErrorCode),
}

/// The next step of a follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Append the records as they are, then take over the leader's high watermark and start.
    /// `begin`: the log has to begin there first, which is before where the empty log begins.
    Append { begin: Option<i64>, high_watermark: i64, start: i64 },
    /// Cut the log to `to`. `committed`: the own high watermark, where the cut goes below it; only
    /// an unclean election explains that.
    Cut { to: i64, committed: Option<i64> },
    /// Empty the log and begin at this offset.
    Reset { begin: i64 },
    /// Fetch again after a pause.
    Retry,
    /// Wait for newer metadata: the epoch is over.
    Wait,
    /// The answer cannot belong to this log: its records begin before the own end.
    Refuse { first: i64, end: i64 },
}

impl Follower {
    /// Follows from now on, with a log that ends at `end`. An epoch that this replica began as
    /// leader and wrote nothing in is forgotten: records of an older one may follow. `known`: the
    /// newest epoch that this process has led or followed in. False: the metadata is older than
    /// that, as a new session may see it. A leader of then would have the log cut to its own.
    pub fn begin(&self, known: LeaderEpoch, history: &mut EpochHistory, end: i64) -> bool {
        let is_current = self.epoch >= known;
        if is_current {
            history.truncate(end);
        }
        is_current
    }

    /// The fetch that is due; `None`: part of the log is not acknowledged yet.
    pub fn next_fetch(&self, marks: &Watermarks, history: &EpochHistory) -> Option<NextFetch> {
        let ends = marks.ends();
        let settled = ends.acknowledged == ends.appended || planted(Planted::HighWatermarkCountsSent);
        settled.then(|| NextFetch {
            leader_epoch: self.epoch,
            offset: ends.appended,
            last_epoch: if ends.appended > ends.start { history.epoch_of(ends.appended - 1) } else { None },
        })
    }

    /// The step that an answer asks for. The caller drops answers to fetches of another epoch.
    pub fn answered(&self, answer: &LeaderAnswer, marks: &Watermarks, history: &EpochHistory) -> Step {
        let ends = marks.ends();
        match *answer {
            // The leader's start is amid a batch, which comes whole.
            LeaderAnswer::Records { first: Some(first), high_watermark, start }
                if first < ends.appended && ends.start == ends.appended =>
            {
                Step::Append { begin: Some(first), high_watermark, start }
            }
            LeaderAnswer::Records { first: Some(first), .. } if first < ends.appended => {
                Step::Refuse { first, end: ends.appended }
            }
            LeaderAnswer::Records { high_watermark, start, .. } => Step::Append { begin: None, high_watermark, start },
            LeaderAnswer::Diverging { epoch, end } => {
                let to = diverged(epoch, end, ends.appended, history).max(ends.start);
                let committed = Some(marks.high_watermark()).filter(|committed| to < *committed);
                Step::Cut { to, committed }
            }
            LeaderAnswer::OutOfRange { start } => Step::Reset { begin: start },
            LeaderAnswer::Refused(ErrorCode::FencedLeaderEpoch) => Step::Wait,
            LeaderAnswer::Refused(_) => Step::Retry,
        }
    }

    /// The log's start after records were appended and the high watermark moved; `None`: it stays.
    pub fn next_start(&self, leaders: i64, marks: &Watermarks) -> Option<i64> {
        let start = leaders.min(marks.high_watermark());
        (start > marks.ends().start).then_some(start)
    }
}

/// Where to cut a log that ends at `log_end` when the leader has records of epochs up to `epoch`
/// before `end`: both logs agree up to the smaller end of the largest epoch that both know.
fn diverged(epoch: i32, end: i64, log_end: i64, history: &EpochHistory) -> i64 {
    if planted(Planted::CutByWrongEpoch) {
        return end.min(log_end);
    }
    let own = match history.latest() {
        Some(latest) if epoch >= latest => log_end,
        _ => history.end_of(epoch, log_end).map_or(log_end, |(_, own_end)| own_end),
    };
    end.min(own).min(log_end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::partition::watermarks::Ends;

    const FOLLOWER: Follower = Follower { leader: BrokerId(2), epoch: LeaderEpoch(7) };

    fn history(entries: &[(i32, i64)]) -> EpochHistory {
        let mut history = EpochHistory::default();
        for (epoch, start) in entries {
            history.begin(*epoch, *start);
        }
        history
    }

    fn marks(start: i64, end: i64, hw: i64) -> Watermarks {
        Watermarks::opened(Ends::synced(start, end), hw).unwrap()
    }

    #[test]
    fn the_next_fetch_waits_until_all_is_acknowledged() {
        let history = history(&[(3, 0), (5, 30)]);
        let mut marks = marks(0, 40, 20);
        let fetch = NextFetch { leader_epoch: LeaderEpoch(7), offset: 40, last_epoch: Some(5) };
        assert_eq!(FOLLOWER.next_fetch(&marks, &history), Some(fetch));
        let under_way = Ends { appended: 45, sent: 45, ..Ends::synced(0, 40) };
        marks.observe(under_way).unwrap();
        assert_eq!(FOLLOWER.next_fetch(&marks, &history), None);
        // Held is enough, unless the log says otherwise.
        marks.observe(Ends { held: 45, ..under_way }).unwrap();
        assert_eq!(FOLLOWER.next_fetch(&marks, &history), None);
        marks.observe(Ends { held: 45, acknowledged: 45, ..under_way }).unwrap();
        assert_eq!(FOLLOWER.next_fetch(&marks, &history), Some(NextFetch { offset: 45, ..fetch }));
    }

    /// Elected at 30 in epoch 5, it wrote nothing; the next leader has more of epoch 3.
    #[test]
    fn an_epoch_without_a_record_is_forgotten() {
        let mut history = history(&[(3, 0), (5, 30)]);
        let follower = Follower { leader: BrokerId(2), epoch: LeaderEpoch(7) };
        assert!(follower.begin(LeaderEpoch(7), &mut history, 30));
        history.begin(3, 30);
        let fetch = follower.next_fetch(&marks(0, 40, 20), &history).unwrap();
        assert_eq!((fetch.offset, fetch.last_epoch), (40, Some(3)));
        // One with a record stays.
        history.begin(5, 40);
        assert!(Follower { epoch: LeaderEpoch(8), ..follower }.begin(LeaderEpoch(7), &mut history, 41));
        assert_eq!(history.epoch_of(40), Some(5));
    }

    #[test]
    fn an_empty_log_names_no_epoch() {
        let fetch = FOLLOWER.next_fetch(&marks(50, 50, 50), &history(&[(3, 0)])).unwrap();
        assert_eq!((fetch.offset, fetch.last_epoch), (50, None));
    }

    #[test]
    fn records_behind_the_own_end_are_appended_and_others_refused() {
        let (marks, history) = (marks(0, 40, 20), history(&[(3, 0)]));
        let answer = |first| LeaderAnswer::Records { first, high_watermark: 35, start: 5 };
        let append = Step::Append { begin: None, high_watermark: 35, start: 5 };
        for first in [None, Some(40), Some(44)] {
            assert_eq!(FOLLOWER.answered(&answer(first), &marks, &history), append);
        }
        assert_eq!(FOLLOWER.answered(&answer(Some(39)), &marks, &history), Step::Refuse { first: 39, end: 40 });
    }

    #[test]
    fn an_empty_log_begins_with_the_batch_that_the_leaders_start_is_amid() {
        let (marks, history) = (marks(40, 40, 40), history(&[]));
        let answer = LeaderAnswer::Records { first: Some(30), high_watermark: 90, start: 40 };
        let begun = Step::Append { begin: Some(30), high_watermark: 90, start: 40 };
        assert_eq!(FOLLOWER.answered(&answer, &marks, &history), begun);
    }

    #[test]
    fn a_diverging_log_is_cut_where_the_common_epoch_ends_first() {
        let history = history(&[(3, 0), (5, 30), (6, 36)]);
        let cut = |epoch, end, hw| {
            let answer = LeaderAnswer::Diverging { epoch, end };
            FOLLOWER.answered(&answer, &marks(0, 40, hw), &history)
        };
        let to = |to| Step::Cut { to, committed: None };
        assert_eq!(cut(6, 38, 20), to(38));
        assert_eq!(cut(5, 50, 20), to(36), "the leader has more of epoch 5");
        assert_eq!(cut(5, 33, 20), to(33));
        assert_eq!(cut(4, 35, 20), to(30), "epoch 4 is not known here: 3 is the largest below");
        assert_eq!(cut(3, 20, 20), to(20));
        assert_eq!(cut(2, 10, 0), to(0));
        assert_eq!(cut(3, 19, 20), Step::Cut { to: 19, committed: Some(20) });
    }

    #[test]
    fn refusals_and_ranges() {
        let (marks, history) = (marks(0, 40, 20), history(&[(3, 0)]));
        let step = |answer| FOLLOWER.answered(&answer, &marks, &history);
        assert_eq!(step(LeaderAnswer::OutOfRange { start: 70 }), Step::Reset { begin: 70 });
        assert_eq!(step(LeaderAnswer::Refused(ErrorCode::FencedLeaderEpoch)), Step::Wait);
        assert_eq!(step(LeaderAnswer::Refused(ErrorCode::UnknownLeaderEpoch)), Step::Retry);
        assert_eq!(step(LeaderAnswer::Refused(ErrorCode::NotLeaderOrFollower)), Step::Retry);
    }

    #[test]
    fn the_start_follows_the_leader_up_to_the_high_watermark() {
        let marks = marks(5, 40, 20);
        assert_eq!(FOLLOWER.next_start(10, &marks), Some(10));
        assert_eq!(FOLLOWER.next_start(30, &marks), Some(20));
        assert_eq!(FOLLOWER.next_start(5, &marks), None);
    }

    /// Epochs of a log, one a record, as a row of leaders leaves them.
    fn grown(epochs: &[i32]) -> EpochHistory {
        let mut history = EpochHistory::default();
        for (offset, epoch) in epochs.iter().enumerate() {
            history.begin(*epoch, offset as i64);
        }
        history
    }

    /// Any two logs of which an epoch has one writer: after a few rounds the follower's is the
    /// beginning of the leader's, and no common record was cut.
    #[test]
    fn every_divergence_ends_at_the_last_common_record() {
        let mut state = 88_172_645_463_325_252_u64;
        let mut below = |bound: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % bound
        };
        for _ in 0..20_000 {
            let common: Vec<i32> = (0..below(8))
                .scan(0, |epoch, _| {
                    *epoch += below(3) as i32;
                    Some(*epoch)
                })
                .collect();
            // Later epochs belong to one log or to the other: even ones to the leader's.
            let last = common.last().copied().unwrap_or(0);
            let mut tail = |parity: i32| -> Vec<i32> {
                let mut epoch = last;
                let steps: Vec<i32> = (0..below(6)).map(|_| below(2) as i32).collect();
                let mut epochs = Vec::new();
                for step in steps {
                    // The first epoch of a tail is another than the common one,
                    // unless this is the leader.
                    if step == 1 || epochs.is_empty() && parity == 1 {
                        epoch += 2 - (epoch + parity) % 2;
                    }
                    epochs.push(epoch);
                }
                epochs
            };
            let leaders = [common.clone(), tail(0)].concat();
            let mut own = [common.clone(), tail(1)].concat();
            let leader_history = {
                let mut history = grown(&leaders);
                history.begin(1000, leaders.len() as i64);
                history
            };
            let leader_end = leaders.len() as i64;
            let mut rounds = 0;
            loop {
                let marks = marks(0, own.len() as i64, 0);
                let fetch = FOLLOWER.next_fetch(&marks, &grown(&own)).unwrap();
                let Some(last_epoch) = fetch.last_epoch else { break };
                match leader_history.end_of(last_epoch, leader_end) {
                    Some((epoch, end)) if epoch < last_epoch || end < fetch.offset => {
                        let answer = LeaderAnswer::Diverging { epoch, end };
                        let Step::Cut { to, .. } = FOLLOWER.answered(&answer, &marks, &grown(&own)) else {
                            panic!("not a cut");
                        };
                        assert!(to < own.len() as i64, "no progress: {own:?} {leaders:?}");
                        assert!(to >= common.len() as i64, "common records were cut: {own:?} {leaders:?}");
                        own.truncate(to as usize);
                    }
                    _ => break,
                }
                rounds += 1;
                assert!(rounds < 10);
            }
            assert_eq!(own[..], leaders[..own.len()], "{common:?}");
        }
    }
}
