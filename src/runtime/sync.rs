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

    /// Resolves at the first [`notify_all`](Self::notify_all) after this call
    /// (not after the first poll).
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

    /// True if anybody still waits.
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

/// A counted budget (bytes, slots). Strictly first come, first served: a waiter at the
/// head holds back those behind it, and what is given back is handed to it at once, so
/// that no newcomer overtakes.
pub struct Budget {
    available: Cell<usize>,
    total: usize,
    waiting: RefCell<VecDeque<(usize, OneshotSender<Permit>)>>,
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

    /// Takes `amount` (cut to the total, so that one large taker can never wait for
    /// ever). Given back on drop.
    pub async fn acquire(self: &Rc<Self>, amount: usize) -> Permit {
        let amount = amount.min(self.total);
        if let Some(permit) = self.try_acquire(amount) {
            return permit;
        }
        let (sender, receiver) = oneshot();
        self.waiting.borrow_mut().push_back((amount, sender));
        // A waiter that gives up may be the head that holds back others.
        let _regrant = RegrantOnDrop(self);
        match receiver.recv().await {
            Some(permit) => permit,
            // Senders leave the queue only with a permit, or when their receiver has gone.
            None => Permit { budget: self.clone(), amount: 0 },
        }
    }

    /// Takes `amount` at once or not at all; never before those who wait.
    pub fn try_acquire(self: &Rc<Self>, amount: usize) -> Option<Permit> {
        if self.waiting.borrow().iter().any(|(_, sender)| sender.is_wanted()) {
            return None;
        }
        self.take(amount.min(self.total))
    }

    fn take(self: &Rc<Self>, amount: usize) -> Option<Permit> {
        let left = self.available.get().checked_sub(amount)?;
        self.available.set(left);
        Some(Permit { budget: self.clone(), amount })
    }

    fn give_back(self: &Rc<Self>, amount: usize) {
        self.available.set(self.available.get() + amount);
        self.grant();
    }

    /// Hands permits to the waiters at the head for as long as they fit.
    fn grant(self: &Rc<Self>) {
        loop {
            let (sender, permit) = {
                let mut waiting = self.waiting.borrow_mut();
                let Some((wanted, sender)) = waiting.front() else { return };
                let permit = if sender.is_wanted() {
                    let Some(permit) = self.take(*wanted) else { return };
                    Some(permit)
                } else {
                    None
                };
                let Some((_, sender)) = waiting.pop_front() else { return };
                (sender, permit)
            };
            // Outside the borrow: a permit that nobody takes comes back through `give_back`.
            if let Some(permit) = permit {
                sender.send(permit);
            }
        }
    }
}

/// Looks at the queue again when a waiter ends, whichever way.
struct RegrantOnDrop<'a>(&'a Rc<Budget>);

impl Drop for RegrantOnDrop<'_> {
    fn drop(&mut self) {
        self.0.grant();
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

    /// Gives back all but `amount`.
    pub fn shrink(&mut self, amount: usize) {
        let excess = self.amount.saturating_sub(amount);
        self.amount -= excess;
        self.budget.give_back(excess);
    }

    /// Adds another share of the same budget to this one.
    pub fn absorb(&mut self, mut other: Permit) {
        assert!(Rc::ptr_eq(&self.budget, &other.budget), "shares of different budgets");
        self.amount += std::mem::take(&mut other.amount);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.budget.give_back(self.amount);
    }
}

/// An asynchronous lock for sequences of steps that wait (creating topics one
/// after the other, say).
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

    fn poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        block_on(futures_lite::future::poll_once(future))
    }

    #[test]
    fn shares_of_a_budget_are_put_together_and_given_back_as_one() {
        let budget = Budget::new(10);
        let mut first = budget.try_acquire(3).unwrap();
        first.absorb(budget.try_acquire(4).unwrap());
        assert_eq!((first.amount(), budget.available()), (7, 3));
        drop(first);
        assert_eq!(budget.available(), 10);
    }

    #[test]
    fn budget_lets_nobody_overtake_a_waiter() {
        let budget = Budget::new(10);
        let first = budget.try_acquire(8).unwrap();
        let mut large = Box::pin(budget.acquire(10));
        assert!(poll_once(&mut large).is_none());
        assert!(budget.try_acquire(1).is_none(), "a newcomer overtook");
        let mut small = Box::pin(budget.acquire(1));
        assert!(poll_once(&mut small).is_none());
        drop(first);
        assert!(poll_once(&mut small).is_none(), "the second waiter overtook the first");
        let permit = poll_once(&mut large).unwrap();
        assert_eq!((permit.amount(), budget.available()), (10, 0));
        drop(permit);
        assert_eq!(poll_once(&mut small).unwrap().amount(), 1);
        assert_eq!(budget.available(), 10);
    }

    #[test]
    fn a_waiter_that_gives_up_loses_nothing() {
        let budget = Budget::new(10);
        let first = budget.try_acquire(8).unwrap();
        // At the head, not served: those behind it go on.
        let mut large = Box::pin(budget.acquire(10));
        assert!(poll_once(&mut large).is_none());
        let mut small = Box::pin(budget.acquire(2));
        assert!(poll_once(&mut small).is_none());
        drop(large);
        let small = poll_once(&mut small).unwrap();
        // Served, but dropped before it looked: the permit comes back.
        let mut late = Box::pin(budget.acquire(10));
        assert!(poll_once(&mut late).is_none());
        drop((first, small));
        assert_eq!(budget.available(), 0);
        drop(late);
        assert_eq!(budget.available(), 10);
    }
}
