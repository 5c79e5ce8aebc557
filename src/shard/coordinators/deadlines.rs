//! When the coordinators of a shard are due next. Pure but for the word that one is due sooner.

use std::cell::RefCell;

use crate::coordinator::Timers;
use crate::model::PartitionId;
use crate::runtime::sync::Notify;

/// The next deadline of each coordinator, in milliseconds of the clock that never goes back. A
/// group's own deadlines are in its coordinator: however many groups are idle, the shard wakes for
/// the earliest only.
#[derive(Default)]
pub struct Deadlines {
    timers: RefCell<Timers<PartitionId>>,
    sooner: Notify,
}

impl Deadlines {
    /// Sets (or moves, or takes away) the deadline of a coordinator.
    pub fn set(&self, partition: PartitionId, at_ms: Option<u64>) {
        let mut timers = self.timers.borrow_mut();
        if timers.get(&partition) == at_ms {
            return;
        }
        let before = timers.next();
        match at_ms {
            Some(at_ms) => timers.set(partition, at_ms),
            None => timers.cancel(&partition),
        }
        if at_ms.is_some_and(|at_ms| before.is_none_or(|before| at_ms < before)) {
            drop(timers);
            self.sooner.notify_all();
        }
    }

    /// The earliest deadline.
    pub fn next(&self) -> Option<u64> {
        self.timers.borrow().next()
    }

    /// Resolves once a deadline is set before all others.
    pub fn sooner(&self) -> impl Future<Output = ()> + '_ {
        self.sooner.notified()
    }

    /// Takes away the coordinators that are due, and gives them back in order.
    pub fn take_due(&self, now_ms: u64) -> Vec<PartitionId> {
        let mut timers = self.timers.borrow_mut();
        std::iter::from_fn(|| timers.pop_due(now_ms)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use uuid::Uuid;

    use super::*;

    fn partition(index: i32) -> PartitionId {
        PartitionId::new(Uuid::nil(), index)
    }

    #[test]
    fn a_coordinator_is_due_at_its_millisecond_and_not_before() {
        let deadlines = Deadlines::default();
        deadlines.set(partition(1), Some(6_017));
        deadlines.set(partition(2), Some(6_018));
        assert_eq!(deadlines.next(), Some(6_017));
        assert_eq!(deadlines.take_due(6_016), []);
        assert_eq!(deadlines.take_due(6_017), [partition(1)]);
        assert_eq!((deadlines.take_due(6_017), deadlines.next()), (vec![], Some(6_018)));
        deadlines.set(partition(2), None);
        assert_eq!((deadlines.take_due(u64::MAX), deadlines.next()), (vec![], None));
    }

    /// The sleeper wakes for what it could miss, and not for each heartbeat
    /// that moves a deadline on.
    #[test]
    fn only_a_sooner_deadline_ends_the_sleep() {
        let deadlines = Deadlines::default();
        let mut cx = Context::from_waker(Waker::noop());
        let mut woken = |change: &dyn Fn()| {
            let mut sooner = pin!(deadlines.sooner());
            assert!(sooner.as_mut().poll(&mut cx).is_pending());
            change();
            sooner.poll(&mut cx) == Poll::Ready(())
        };
        assert!(woken(&|| deadlines.set(partition(1), Some(100))), "the first");
        assert!(!woken(&|| deadlines.set(partition(1), Some(100))));
        assert!(!woken(&|| deadlines.set(partition(2), Some(100))));
        assert!(!woken(&|| deadlines.set(partition(1), Some(200))));
        assert!(!woken(&|| deadlines.set(partition(1), None)));
        assert!(woken(&|| deadlines.set(partition(1), Some(99))));
    }
}
