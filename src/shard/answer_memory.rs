//! Memory of answers that clients have not taken yet, on the shard of their connections.
//!
//! An answer is charged before it is encoded (records: before they are read), by the size of the buffers it keeps alive, until
//! the kernel has taken its last byte. Fetches have one half, all other answers the other, so that slow consumers and clients
//! that ask for much keep nothing from each other; a part of the latter is only for small answers. Where nothing is left the
//! request waits, and connections whose clients take nothing are closed for it (see [`AnswerMemory::shortage`]).

use std::cell::Cell;
use std::rc::Rc;
use std::time::Instant;

use crate::runtime::clock;
use crate::runtime::sync::{Budget, Notify, Permit};

/// Largest answer that the part for small ones serves.
pub const SMALL_ANSWER_BYTES: usize = 64 << 10;

const FETCHES: usize = 0;
const OTHERS: usize = 1;

/// Least memory a fetch reads with; half of it is what it reads.
const LEAST_FETCH_BYTES: usize = 128 << 10;

pub struct AnswerMemory {
    fetches: Rc<Budget>,
    others: Rc<Budget>,
    small: Rc<Budget>,
    /// Requests that wait: fetches, and others.
    waiting: [Cell<usize>; 2],
    short: Notify,
}

/// How many requests wait for memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortage {
    pub fetches: usize,
    pub others: usize,
}

/// Memory charged for one answer; given back on drop.
pub struct Share {
    permit: Permit,
    budget: Rc<Budget>,
    fetch: bool,
}

impl Share {
    /// Charged for records.
    pub fn is_fetch(&self) -> bool {
        self.fetch
    }

    pub fn bytes(&self) -> usize {
        self.permit.amount()
    }

    /// Charges `bytes` from now on; false, and unchanged, if there is no room for that.
    pub fn resize(&mut self, bytes: usize) -> bool {
        match bytes.checked_sub(self.permit.amount()) {
            None => self.permit.shrink(bytes),
            Some(0) => {}
            Some(more) if bytes > self.budget.total() || more > self.budget.available() => return false,
            Some(more) => match self.budget.try_acquire(more) {
                Some(permit) => self.permit.absorb(permit),
                None => return false,
            },
        }
        true
    }
}

impl AnswerMemory {
    /// `bytes`: all of it (`corelane.response.memory.bytes`).
    pub fn new(bytes: usize) -> Rc<AnswerMemory> {
        let quarter = bytes / 4;
        Rc::new(AnswerMemory {
            fetches: Budget::new(bytes - 2 * quarter),
            others: Budget::new(quarter),
            small: Budget::new(quarter),
            waiting: Default::default(),
            short: Notify::new(),
        })
    }

    /// Memory for an answer of `bytes` that is no Fetch; waits for it. One larger than all there is gets all.
    pub async fn share(&self, bytes: usize) -> Share {
        if let Some(permit) = self.others.try_acquire(bytes) {
            return Share { permit, budget: self.others.clone(), fetch: false };
        }
        let budget = if bytes <= SMALL_ANSWER_BYTES { &self.small } else { &self.others };
        let permit = match budget.try_acquire(bytes) {
            Some(permit) => permit,
            None => {
                let _waiting = self.wait(OTHERS);
                budget.acquire(bytes).await
            }
        };
        Share { permit, budget: budget.clone(), fetch: false }
    }

    /// Memory to read `wanted` bytes of records with, less where there is less, at least `least`; waits for that until
    /// `deadline`. Twice the bytes are charged, because slices keep the rest of their buffers alive.
    pub async fn fetch_share(&self, wanted: usize, least: usize, deadline: Instant) -> Option<Share> {
        let total = self.fetches.total();
        let least = least.saturating_mul(2).clamp(LEAST_FETCH_BYTES, LEAST_FETCH_BYTES.max(total)).min(total);
        // Half of what is left, so that fetches that come together all get something.
        let most = (self.fetches.available() / 2).max(least);
        let amount = wanted.saturating_mul(2).clamp(least, most);
        let permit = match self.fetches.try_acquire(amount) {
            Some(permit) => permit,
            None => {
                let _waiting = self.wait(FETCHES);
                clock::until(deadline, self.fetches.acquire(least)).await?
            }
        };
        Some(Share { permit, budget: self.fetches.clone(), fetch: true })
    }

    fn wait(&self, kind: usize) -> Waiting<'_> {
        let waiting = &self.waiting[kind];
        waiting.set(waiting.get() + 1);
        self.short.notify_all();
        Waiting(waiting)
    }

    fn short_of(&self) -> Shortage {
        Shortage { fetches: self.waiting[FETCHES].get(), others: self.waiting[OTHERS].get() }
    }

    /// Waits until a request waits for memory.
    pub async fn shortage(&self) -> Shortage {
        loop {
            let short = self.short_of();
            if short.fetches + short.others > 0 {
                return short;
            }
            self.short.notified().await;
        }
    }

    /// Bytes charged now.
    pub fn charged(&self) -> usize {
        [&self.fetches, &self.others, &self.small].iter().map(|budget| budget.total() - budget.available()).sum()
    }
}

struct Waiting<'a>(&'a Cell<usize>);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once};

    const MIB: usize = 1 << 20;

    #[test]
    fn small_answers_do_not_wait_for_large_ones_nor_for_fetches() {
        let memory = AnswerMemory::new(4 * MIB);
        let large = block_on(memory.share(MIB));
        assert!(block_on(poll_once(memory.share(MIB))).is_none(), "the second large one waits");
        let small: Vec<Share> =
            (0..MIB / SMALL_ANSWER_BYTES).map(|_| block_on(memory.share(SMALL_ANSWER_BYTES))).collect();
        let short = |fetches, others| Shortage { fetches, others };
        assert_eq!(memory.short_of(), short(0, 0));
        {
            let mut waiting = Box::pin(memory.share(1));
            assert!(block_on(poll_once(&mut waiting)).is_none());
            assert_eq!(block_on(memory.shortage()), short(0, 1));
        }
        assert_eq!(memory.short_of(), short(0, 0), "a request that was dropped waits no more");
        assert_eq!(memory.charged(), 2 * MIB);
        drop((large, small));
        assert_eq!(memory.charged(), 0);
        assert_eq!(block_on(memory.share(100 * MIB)).bytes(), MIB, "one beyond all there is goes alone");
    }

    #[test]
    fn shares_follow_the_size_of_what_was_made() {
        let memory = AnswerMemory::new(4 * MIB);
        let mut share = block_on(memory.share(1000));
        assert!(share.resize(10));
        assert_eq!(memory.charged(), 10);
        assert!(share.resize(MIB));
        assert!(!share.resize(MIB + 1), "more than there is");
        assert_eq!((share.bytes(), memory.charged()), (MIB, MIB));
    }

    #[test]
    fn fetches_that_come_together_share_what_is_left() {
        let memory = AnswerMemory::new(4 * MIB);
        let far = clock::now() + std::time::Duration::from_secs(3600);
        let fetch = |wanted, least| block_on(poll_once(memory.fetch_share(wanted, least, far))).flatten();
        assert_eq!(fetch(100, 0).unwrap().bytes(), LEAST_FETCH_BYTES);
        let first = fetch(50 * MIB, 0).unwrap();
        let second = fetch(50 * MIB, 0).unwrap();
        assert_eq!((first.bytes(), second.bytes()), (MIB, MIB / 2));
        let third = fetch(50 * MIB, 300 << 10).map(|share| share.bytes());
        assert_eq!(third, None, "two times 300 KiB are not left");
    }
}
