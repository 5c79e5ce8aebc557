//! Rules of one coordinator's tenure, pure: the log's ends and the leadership go in; what may be
//! served, and which replies may leave, comes out.
//!
//! A coordinator belongs to a partition of its topic and one leader epoch of it. It
//! loads the whole log as the epoch found it: what is not committed yet may still become so, and
//! nothing but the epoch's end takes it back. A reply rests on everything given to append before,
//! the log that was loaded included, so it leaves once the high watermark is past all that: neither
//! an acknowledged commit nor an offset that was shown is lost with the leader. The first sign of
//! another epoch ends the tenure, and every reply still held is owed NOT_COORDINATOR: the next
//! leader may know nothing of what it says.

use std::collections::VecDeque;

use crate::model::planted::{Planted, planted};
use crate::model::{ErrorCode, LeaderEpoch};

/// Stands for a request whose reply is still owed. The caller chooses it and never uses it twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// Readiness of a coordinator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Its partition is being read.
    Loading,
    Serving,
    /// Its partition takes no more records, is led in another epoch, or is gone: its state may not
    /// be on disk.
    Ended,
}

/// Stage of one coordinator, and the replies that it holds. `R`: a reply, with the way to
/// the task that waits for it.
#[derive(Debug)]
pub struct Tenure<R> {
    epoch: LeaderEpoch,
    stage: Stage,
    load_end: i64,
    /// Everything given to append ends here, and everything loaded.
    appended: i64,
    /// In the order of the offsets that they wait for.
    held: VecDeque<(i64, R)>,
}

impl<R> Tenure<R> {
    /// Begins with the leadership of `epoch`, at the log's end (not at its high watermark).
    pub fn begin(epoch: LeaderEpoch, log_end: i64) -> Tenure<R> {
        Tenure { epoch, stage: Stage::Loading, load_end: log_end, appended: log_end, held: VecDeque::new() }
    }

    pub fn epoch(&self) -> LeaderEpoch {
        self.epoch
    }

    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// Every record before this is to be replayed.
    pub fn load_end(&self) -> i64 {
        self.load_end
    }

    /// False ends it. `led`: the epoch that this broker leads the partition in and is not known to
    /// be deposed from.
    pub fn belongs_to(&self, led: Option<LeaderEpoch>) -> bool {
        led == Some(self.epoch)
    }

    /// Refuses a request that it cannot take.
    pub fn admit(&self) -> Result<(), ErrorCode> {
        match self.stage {
            Stage::Loading => Err(ErrorCode::CoordinatorLoadInProgress),
            Stage::Serving => Ok(()),
            Stage::Ended => Err(ErrorCode::NotCoordinator),
        }
    }

    /// Everything has been replayed. False if it has ended meanwhile, or serves already.
    pub fn serve(&mut self) -> bool {
        let loads = self.stage == Stage::Loading;
        if loads {
            self.stage = Stage::Serving;
        }
        loads
    }

    /// Records of its own end at `next_offset`.
    pub fn appended(&mut self, next_offset: i64) {
        debug_assert!(next_offset >= self.appended, "appended up to {} before {next_offset}", self.appended);
        self.appended = next_offset.max(self.appended);
    }

    /// Keeps a reply until everything before it is committed; [`release`](Self::release) gives it
    /// back then.
    pub fn hold(&mut self, reply: R) {
        self.held.push_back((self.appended, reply));
    }

    /// The next reply that may leave.
    pub fn release(&mut self, high_watermark: i64) -> Option<R> {
        let early = planted(Planted::CoordinatorAnswersEarly);
        self.held.pop_front_if(|(offset, _)| *offset <= high_watermark || early).map(|(_, reply)| reply)
    }

    /// Offset that the high watermark has to reach before the next reply leaves; `None`: none is
    /// held.
    pub fn waits_for(&self) -> Option<i64> {
        self.held.front().map(|(offset, _)| *offset)
    }

    /// Ends it for good. The replies that were held are to be told NOT_COORDINATOR instead.
    pub fn end(&mut self) -> impl Iterator<Item = R> + use<R> {
        self.stage = Stage::Ended;
        std::mem::take(&mut self.held).into_iter().map(|(_, reply)| reply)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: LeaderEpoch = LeaderEpoch(5);

    #[test]
    fn loads_serves_and_ends() {
        let mut tenure = Tenure::<u32>::begin(EPOCH, 40);
        assert_eq!((tenure.load_end(), tenure.epoch()), (40, EPOCH));
        assert_eq!(tenure.admit(), Err(ErrorCode::CoordinatorLoadInProgress));
        assert!(tenure.serve() && !tenure.serve());
        assert_eq!(tenure.admit(), Ok(()));
        tenure.hold(1);
        assert_eq!(tenure.end().collect::<Vec<_>>(), [1]);
        assert_eq!(tenure.admit(), Err(ErrorCode::NotCoordinator));
        assert_eq!(tenure.release(i64::MAX), None, "who was told NOT_COORDINATOR is not answered again");
    }

    #[test]
    fn one_that_ended_while_it_loaded_never_serves() {
        let mut tenure = Tenure::<u32>::begin(EPOCH, 40);
        assert_eq!(tenure.end().count(), 0);
        assert!(!tenure.serve());
        assert_eq!(tenure.stage(), Stage::Ended);
    }

    #[test]
    fn any_other_epoch_and_none_end_it() {
        let tenure = Tenure::<u32>::begin(EPOCH, 0);
        assert!(tenure.belongs_to(Some(EPOCH)));
        assert!(!tenure.belongs_to(Some(LeaderEpoch(6))) && !tenure.belongs_to(Some(LeaderEpoch(4))));
        assert!(!tenure.belongs_to(None));
    }

    /// State loaded above the high watermark may be taken back, so it is not shown before it is
    /// committed.
    #[test]
    fn a_reply_waits_for_what_was_loaded_and_for_what_was_appended() {
        let mut tenure = Tenure::begin(EPOCH, 40);
        assert!(tenure.serve());
        tenure.hold("read");
        assert_eq!((tenure.waits_for(), tenure.release(39)), (Some(40), None));
        tenure.appended(43);
        tenure.hold("write");
        tenure.hold("read after the write");
        assert_eq!((tenure.release(42), tenure.release(42), tenure.waits_for()), (Some("read"), None, Some(43)));
        assert_eq!(tenure.release(43), Some("write"));
        assert_eq!(tenure.release(43), Some("read after the write"));
        assert_eq!((tenure.release(43), tenure.waits_for()), (None, None));
    }

    /// Any row of appends, replies and moves of the high watermark: replies leave in order, each as
    /// soon as and no sooner than everything before it is committed.
    #[test]
    fn replies_leave_in_order_and_exactly_when_they_may() {
        let mut state = 88_172_645_463_325_252_u64;
        let mut below = |bound: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % bound) as i64
        };
        for _ in 0..2_000 {
            let (mut end, mut high_watermark) = (below(50), 0);
            let mut tenure = Tenure::begin(EPOCH, end);
            assert!(tenure.serve());
            // Every reply with the end that it was made at, and how many have left.
            let (mut made, mut left) = (Vec::new(), 0);
            for _ in 0..below(40) {
                match below(3) {
                    0 => {
                        end += 1 + below(3);
                        tenure.appended(end);
                    }
                    1 => {
                        tenure.hold(made.len());
                        made.push(end);
                    }
                    _ => high_watermark += below(6).min(end - high_watermark),
                }
                while let Some(reply) = tenure.release(high_watermark) {
                    assert_eq!(reply, left);
                    assert!(made[reply] <= high_watermark, "reply {reply} of {made:?} at {high_watermark}");
                    left += 1;
                }
                assert!(made[left..].iter().all(|at| *at > high_watermark), "{left} of {made:?} at {high_watermark}");
                assert_eq!(tenure.waits_for(), made.get(left).copied());
            }
            assert_eq!(tenure.end().collect::<Vec<_>>(), (left..made.len()).collect::<Vec<_>>());
        }
    }
}
