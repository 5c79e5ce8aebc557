//! Waiters of a partition: producers for their acknowledgement, consumers for more data. None of
//! them polls.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::task::{Poll, Waker};

/// One produce request's wait for all its batches on this shard.
#[derive(Default)]
pub struct AckWait {
    missing: Cell<usize>,
    waker: RefCell<Option<Waker>>,
}

impl AckWait {
    /// Nothing is waited for.
    pub fn is_settled(&self) -> bool {
        self.missing.get() == 0
    }

    /// Resolves when every batch it was registered for is acknowledged or its partition has failed.
    pub async fn settled(self: Rc<Self>) {
        poll_fn(|cx| {
            if self.missing.get() == 0 {
                return Poll::Ready(());
            }
            *self.waker.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    fn one_settled(&self) {
        self.missing.set(self.missing.get() - 1);
        if self.missing.get() == 0
            && let Some(waker) = self.waker.take()
        {
            waker.wake();
        }
    }
}

/// A fetch that waits for any of its partitions to move.
pub struct DataWaiter {
    fired: Cell<bool>,
    on_fire: RefCell<Option<Box<dyn FnOnce()>>>,
    waker: RefCell<Option<Waker>>,
}

impl DataWaiter {
    /// `on_fire` runs once, at the first [`fire`](Self::fire) (a waiter on behalf of another
    /// shard sends word there).
    pub fn new(on_fire: Option<Box<dyn FnOnce()>>) -> Rc<DataWaiter> {
        Rc::new(DataWaiter { fired: Cell::new(false), on_fire: RefCell::new(on_fire), waker: RefCell::new(None) })
    }

    pub fn fire(&self) {
        if self.fired.replace(true) {
            return;
        }
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
        if let Some(on_fire) = self.on_fire.take() {
            on_fire();
        }
    }

    /// Resolves at the first [`fire`](Self::fire), also one before this call.
    pub async fn fired(&self) {
        poll_fn(|cx| {
            if self.fired.get() {
                return Poll::Ready(());
            }
            *self.waker.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// Fetches that wait for the same thing.
#[derive(Default)]
pub struct DataWaiters {
    list: RefCell<Vec<Weak<DataWaiter>>>,
    /// Length of `list` at which the dead are cleared out.
    clear_at: Cell<usize>,
}

impl DataWaiters {
    pub fn add(&self, waiter: &Rc<DataWaiter>) {
        let mut list = self.list.borrow_mut();
        if list.len() >= self.clear_at.get() {
            list.retain(|w| w.strong_count() > 0);
            self.clear_at.set(list.len() * 2 + 16);
        }
        list.push(Rc::downgrade(waiter));
    }

    /// Fires and forgets them all.
    pub fn fire(&self) {
        if self.list.borrow().is_empty() {
            return;
        }
        for waiter in self.list.take() {
            if let Some(waiter) = waiter.upgrade() {
                waiter.fire();
            }
        }
    }
}

/// Batches that wait for an end, in its order.
#[derive(Default)]
struct Queue(RefCell<VecDeque<(i64, Rc<AckWait>)>>);

impl Queue {
    fn expect(&self, next_offset: i64, wait: &Rc<AckWait>) {
        wait.missing.set(wait.missing.get() + 1);
        let mut waits = self.0.borrow_mut();
        // In order but for duplicates of older batches, which wait for what is in flight already.
        let at = waits.partition_point(|(offset, _)| *offset <= next_offset);
        waits.insert(at, (next_offset, wait.clone()));
    }

    /// The end has reached `to`; with `over`, nothing more is to come.
    fn settle(&self, to: i64, over: bool) {
        while let Some((_, wait)) = self.next(to, over) {
            wait.one_settled();
        }
    }

    fn next(&self, to: i64, over: bool) -> Option<(i64, Rc<AckWait>)> {
        self.0.borrow_mut().pop_front_if(|(offset, _)| over || *offset <= to)
    }
}

/// One partition's queues.
#[derive(Default)]
pub struct Waiters {
    acks: Queue,
    commits: Queue,
    /// Fetches of consumers, which wait for the high watermark.
    pub data: DataWaiters,
    /// Fetches of consumers of committed transactions, which wait for the last stable offset.
    pub stable: DataWaiters,
    /// Fetches of replicas, which wait for what can be read.
    pub sent: DataWaiters,
}

impl Waiters {
    /// `wait` counts one batch more, acknowledged once the replica has
    /// everything before `next_offset`.
    pub fn expect_ack(&self, next_offset: i64, wait: &Rc<AckWait>) {
        self.acks.expect(next_offset, wait);
    }

    /// `wait` counts one batch more, committed once the high watermark reaches `next_offset`.
    pub fn expect_commit(&self, next_offset: i64, wait: &Rc<AckWait>) {
        self.commits.expect(next_offset, wait);
    }

    /// The replica acknowledges everything before `end`.
    pub fn acknowledged(&self, end: i64) {
        self.acks.settle(end, false);
    }

    /// Everything before `committed` is.
    pub fn moved(&self, committed: i64) {
        self.acks.settle(committed, false);
        self.commits.settle(committed, false);
        self.data.fire();
    }

    /// The role has ended. The log may go on to be acknowledged, and be
    /// committed by another leader.
    pub fn role_over(&self, committed: i64) {
        self.moved(committed);
        self.commits.settle(committed, true);
        self.sent.fire();
    }

    /// Nothing more is to come: the log has failed, or was cut.
    pub fn log_over(&self, committed: i64) {
        self.acks.settle(committed, true);
        self.role_over(committed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once};

    #[test]
    fn a_request_is_settled_when_all_its_batches_are() {
        let (one, two) = (Waiters::default(), Waiters::default());
        let wait = Rc::new(AckWait::default());
        one.expect_ack(10, &wait);
        two.expect_ack(5, &wait);
        one.moved(9);
        two.moved(5);
        assert!(block_on(poll_once(wait.clone().settled())).is_none());
        one.moved(10);
        assert!(block_on(poll_once(wait.settled())).is_some());
        let failing = Rc::new(AckWait::default());
        one.expect_ack(20, &failing);
        one.log_over(10);
        assert!(block_on(poll_once(failing.settled())).is_some());
    }

    #[test]
    fn data_waiters_fire_once_and_the_dead_are_cleared() {
        let waiters = Waiters::default();
        let fired = Rc::new(Cell::new(0));
        let count = fired.clone();
        let waiter = DataWaiter::new(Some(Box::new(move || count.set(count.get() + 1))));
        waiters.data.add(&waiter);
        waiters.moved(1);
        waiter.fire();
        assert_eq!(fired.get(), 1);
        for _ in 0..1000 {
            waiters.data.add(&DataWaiter::new(None));
        }
        assert!(waiters.data.list.borrow().len() < 40);
    }
}
