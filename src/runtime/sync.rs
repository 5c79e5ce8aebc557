//! Waiting within one shard: nothing here is shared between threads.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// Wakes every waiter at once. Waiters re-check their own condition: a wake-up carries no value.
#[derive(Default)]
pub struct Notify {
    generation: Cell<u64>,
    wakers: RefCell<Vec<Waker>>,
}

impl Notify {
    pub fn new() -> Notify {
        Notify::default()
    }

    pub fn notify_all(&self) {
        self.generation.set(self.generation.get().wrapping_add(1));
        for waker in self.wakers.take() {
            waker.wake();
        }
    }

    /// Resolves at the first [`notify_all`](Self::notify_all) after this call (not after the first poll).
    pub fn notified(&self) -> impl Future<Output = ()> + '_ {
        let seen = self.generation.get();
        poll_fn(move |cx| {
            if self.generation.get() != seen {
                return Poll::Ready(());
            }
            let mut wakers = self.wakers.borrow_mut();
            if !wakers.iter().any(|w| w.will_wake(cx.waker())) {
                wakers.push(cx.waker().clone());
            }
            Poll::Pending
        })
    }
}

struct Slot<T> {
    value: RefCell<Option<T>>,
    waker: RefCell<Option<Waker>>,
    sender_alive: Cell<bool>,
}

/// The giving end of [`oneshot`].
pub struct OneshotSender<T>(Rc<Slot<T>>);

/// The waiting end of [`oneshot`].
pub struct OneshotReceiver<T>(Rc<Slot<T>>);

/// One value from one task to another on the same shard.
pub fn oneshot<T>() -> (OneshotSender<T>, OneshotReceiver<T>) {
    let slot = Rc::new(Slot { value: RefCell::new(None), waker: RefCell::new(None), sender_alive: Cell::new(true) });
    (OneshotSender(slot.clone()), OneshotReceiver(slot))
}

impl<T> OneshotSender<T> {
    /// Delivers; a receiver that has gone away is no error.
    pub fn send(self, value: T) {
        *self.0.value.borrow_mut() = Some(value);
    }

    /// Whether anybody still waits.
    pub fn is_wanted(&self) -> bool {
        Rc::strong_count(&self.0) > 1
    }
}

impl<T> Drop for OneshotSender<T> {
    fn drop(&mut self) {
        self.0.sender_alive.set(false);
        if let Some(waker) = self.0.waker.take() {
            waker.wake();
        }
    }
}

impl<T> OneshotReceiver<T> {
    /// The value; `None` when the sender was dropped without one.
    pub async fn recv(self) -> Option<T> {
        poll_fn(|cx| {
            if let Some(value) = self.0.value.borrow_mut().take() {
                return Poll::Ready(Some(value));
            }
            if !self.0.sender_alive.get() {
                return Poll::Ready(None);
            }
            *self.0.waker.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }
}

/// A counted budget (bytes, slots). First come, first served; a waiter at the head holds back those behind it.
pub struct Budget {
    available: Cell<usize>,
    total: usize,
    waiting: RefCell<VecDeque<(usize, OneshotSender<()>)>>,
}

impl Budget {
    pub fn new(total: usize) -> Rc<Budget> {
        Rc::new(Budget { available: Cell::new(total), total, waiting: RefCell::new(VecDeque::new()) })
    }

    pub fn total(&self) -> usize {
        self.total
    }

    pub fn available(&self) -> usize {
        self.available.get()
    }

    /// Takes `amount` (cut to the total, so that one large taker can never wait for ever). Given back on drop.
    pub async fn acquire(self: &Rc<Self>, amount: usize) -> Permit {
        let amount = amount.min(self.total);
        loop {
            if let Some(permit) = self.try_acquire(amount) {
                return permit;
            }
            let (sender, receiver) = oneshot();
            self.waiting.borrow_mut().push_back((amount, sender));
            receiver.recv().await;
        }
    }

    /// Takes `amount` at once or not at all.
    pub fn try_acquire(self: &Rc<Self>, amount: usize) -> Option<Permit> {
        let amount = amount.min(self.total);
        let left = self.available.get().checked_sub(amount)?;
        self.available.set(left);
        Some(Permit { budget: self.clone(), amount })
    }

    fn give_back(&self, amount: usize) {
        self.available.set(self.available.get() + amount);
        let mut free = self.available.get();
        let mut waiting = self.waiting.borrow_mut();
        while let Some((wanted, sender)) = waiting.front() {
            if !sender.is_wanted() {
                waiting.pop_front();
                continue;
            }
            if *wanted > free {
                break;
            }
            free -= wanted;
            waiting.pop_front();
        }
    }
}

/// A share of a [`Budget`], given back on drop.
pub struct Permit {
    budget: Rc<Budget>,
    amount: usize,
}

impl Permit {
    pub fn amount(&self) -> usize {
        self.amount
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.budget.give_back(self.amount);
    }
}

/// An asynchronous lock for sequences of steps that wait (creating topics one after the other, say).
pub type LocalMutex = Budget;

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, zip};

    #[test]
    fn oneshot_delivers_and_reports_a_dropped_sender() {
        let (sender, receiver) = oneshot();
        sender.send(7);
        assert_eq!(block_on(receiver.recv()), Some(7));
        let (sender, receiver) = oneshot::<u8>();
        drop(sender);
        assert_eq!(block_on(receiver.recv()), None);
    }

    #[test]
    fn notified_counts_from_the_call_not_from_the_poll() {
        let notify = Notify::new();
        let waiting = notify.notified();
        notify.notify_all();
        block_on(waiting);
    }

    #[test]
    fn budget_hands_over_what_is_given_back() {
        let budget = Budget::new(10);
        let first = budget.try_acquire(8).unwrap();
        assert!(budget.try_acquire(3).is_none());
        block_on(zip(
            async {
                assert_eq!(budget.acquire(5).await.amount(), 5);
            },
            async { drop(first) },
        ));
        assert_eq!(budget.available(), 10);
        assert_eq!(block_on(budget.acquire(100)).amount(), 10);
    }
}
