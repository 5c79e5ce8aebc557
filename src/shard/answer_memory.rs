//! Memory of answers that clients have not taken yet, on the shard of their connections.
//!
//! An answer is charged before it is encoded (records: before they are read), by the size of the
//! buffers it keeps alive, until the kernel has taken its last byte. Fetches have one half, all
//! other answers a quarter, so that slow consumers and clients that ask for much keep nothing from
//! each other. The last quarter is for small answers, records included, that leave at once because
//! the connection's send queue has room for them: clients that do not read fill their queues, and
//! cannot get at it, however many they are and whatever they read before. Where nothing is left the
//! request waits, and connections whose clients take nothing are closed for it (see
//! [`AnswerMemory::shortage`]).

use std::cell::Cell;
use std::rc::Rc;

use futures_lite::future::or;

use crate::observe::metrics::Cause;
use crate::runtime::clock::{self, Moment};
use crate::runtime::sync::{Budget, Notify, Permit};
use crate::runtime::{Promise, SendRoom, waits};

/// Largest answer that the part for those that leave at once serves.
pub const SMALL_ANSWER_BYTES: usize = 64 << 10;

const FETCHES: usize = 0;
const OTHERS: usize = 1;

/// Least memory a fetch reads with; half of it is what it reads.
const LEAST_FETCH_BYTES: usize = 128 << 10;
/// Records that a fetch reads into an answer that leaves at once: the most that there is room for.
const AT_ONCE_READS: [usize; 2] = [LEAST_FETCH_BYTES / 2, LEAST_FETCH_BYTES / 8];

pub struct AnswerMemory {
    fetches: Rc<Budget>,
    others: Rc<Budget>,
    at_once: Rc<Budget>,
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
    /// Room in the connection's send queue, of an answer that leaves at once.
    at_once: Option<Promise>,
}

impl Share {
    /// Charged for records.
    pub fn is_fetch(&self) -> bool {
        self.fetch
    }

    /// Of the part for answers that leave at once.
    pub fn is_at_once(&self) -> bool {
        self.at_once.is_some()
    }

    pub fn bytes(&self) -> usize {
        self.permit.amount()
    }

    /// Charges `bytes` from now on; false, and unchanged, if there is no room for that.
    pub fn resize(&mut self, bytes: usize) -> bool {
        match bytes.checked_sub(self.permit.amount()) {
            None => {
                self.permit.shrink(bytes);
                if let Some(promise) = &mut self.at_once {
                    promise.shrink(bytes);
                }
            }
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
            at_once: Budget::new(quarter),
            waiting: Default::default(),
            short: Notify::new(),
        })
    }

    /// Bytes charged, and the bound.
    pub fn bytes(&self) -> (usize, usize) {
        let budgets = [&self.fetches, &self.others, &self.at_once];
        let total = budgets.iter().map(|budget| budget.total()).sum();
        let free: usize = budgets.iter().map(|budget| budget.available()).sum();
        (total - free, total)
    }

    /// Memory for an answer of `bytes` that is no Fetch, to a connection with `room`; waits for it.
    /// One larger than all there is gets all.
    pub async fn share(&self, bytes: usize, room: &SendRoom) -> Share {
        if let Some(permit) = self.others.try_acquire(bytes) {
            return self.charged_to(&self.others, permit, false, None);
        }
        let sizes: &[usize] = if bytes <= SMALL_ANSWER_BYTES { &[bytes] } else { &[] };
        if let Some(share) = self.try_at_once(sizes, 1, room, false) {
            return share;
        }
        let _waiting = self.wait(OTHERS);
        let any = async { self.charged_to(&self.others, self.others.acquire(bytes).await, false, None) };
        waits::waiting(Cause::Memory, or(any, self.at_once(sizes, 1, room, false))).await
    }

    /// Memory to read `wanted` bytes of records with, less where there is less, at least
    /// `least`; waits for that until `deadline`. Twice the bytes are charged, because slices
    /// keep the rest of their buffers alive.
    pub async fn fetch_share(&self, wanted: usize, least: usize, deadline: Moment, room: &SendRoom) -> Option<Share> {
        let total = self.fetches.total();
        let least_bytes = least.saturating_mul(2).clamp(LEAST_FETCH_BYTES, LEAST_FETCH_BYTES.max(total)).min(total);
        // Half of what is left, so that fetches that come together all get something.
        let most = (self.fetches.available() / 2).max(least_bytes);
        let amount = wanted.saturating_mul(2).clamp(least_bytes, most);
        if let Some(permit) = self.fetches.try_acquire(amount) {
            return Some(self.charged_to(&self.fetches, permit, true, None));
        }
        let fitting = AT_ONCE_READS.iter().filter(|read| **read >= least).count();
        let reads = &AT_ONCE_READS[..fitting];
        if let Some(share) = self.try_at_once(reads, 2, room, true) {
            return Some(share);
        }
        let _waiting = self.wait(FETCHES);
        let any = async { self.charged_to(&self.fetches, self.fetches.acquire(least_bytes).await, true, None) };
        waits::waiting(Cause::Memory, clock::by(deadline, or(any, self.at_once(reads, 2, room, true)))).await
    }

    fn charged_to(&self, budget: &Rc<Budget>, permit: Permit, fetch: bool, at_once: Option<Promise>) -> Share {
        Share { permit, budget: budget.clone(), fetch, at_once }
    }

    /// Memory of `factor` times the first of `sizes` that leaves at once, if there is both now.
    fn try_at_once(&self, sizes: &[usize], factor: usize, room: &SendRoom, fetch: bool) -> Option<Share> {
        let bytes = sizes.iter().find(|bytes| room.takes(**bytes))?;
        let permit = self.at_once.try_acquire(factor * bytes)?;
        Some(self.charged_to(&self.at_once, permit, fetch, Some(room.promise(*bytes))))
    }

    /// [`try_at_once`](Self::try_at_once), but waits for room, which comes when the client
    /// reads, and then for memory.
    async fn at_once(&self, sizes: &[usize], factor: usize, room: &SendRoom, fetch: bool) -> Share {
        let bytes = room.first_of(sizes).await;
        let promise = room.promise(bytes);
        self.charged_to(&self.at_once, self.at_once.acquire(factor * bytes).await, fetch, Some(promise))
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
        [&self.fetches, &self.others, &self.at_once].iter().map(|budget| budget.total() - budget.available()).sum()
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
    use std::time::Duration;

    const MIB: usize = 1 << 20;

    impl AnswerMemory {
        async fn share_all_fetches(&self) -> Permit {
            self.fetches.acquire(usize::MAX).await
        }
    }

    fn room(bytes: usize) -> (Rc<Cell<usize>>, SendRoom) {
        let free = Rc::new(Cell::new(bytes));
        (free.clone(), SendRoom::fixed(free))
    }

    fn full() -> SendRoom {
        room(0).1
    }

    fn far() -> Moment {
        Moment::now().after(Duration::from_secs(3600))
    }

    #[test]
    fn small_answers_that_leave_at_once_do_not_wait_for_large_ones() {
        let memory = AnswerMemory::new(4 * MIB);
        let (_, free) = room(100 * MIB);
        let large = block_on(memory.share(MIB, &free));
        assert!(block_on(poll_once(memory.share(MIB, &free))).is_none(), "the second large one waits");
        let small: Vec<Share> =
            (0..MIB / SMALL_ANSWER_BYTES).map(|_| block_on(memory.share(SMALL_ANSWER_BYTES, &free))).collect();
        assert!(!large.is_at_once() && small.iter().all(Share::is_at_once));
        let short = |fetches, others| Shortage { fetches, others };
        assert_eq!(memory.short_of(), short(0, 0));
        {
            let mut waiting = Box::pin(memory.share(1, &free));
            assert!(block_on(poll_once(&mut waiting)).is_none());
            assert_eq!(block_on(memory.shortage()), short(0, 1));
        }
        assert_eq!(memory.short_of(), short(0, 0), "a request that was dropped waits no more");
        assert_eq!(memory.charged(), 2 * MIB);
        drop((large, small));
        assert_eq!(memory.charged(), 0);
        assert_eq!(block_on(memory.share(100 * MIB, &free)).bytes(), MIB, "one beyond all there is goes alone");
    }

    /// Answers of one connection share its room, however many of its requests are under way.
    #[test]
    fn pipelined_requests_do_not_count_on_the_same_room() {
        let memory = AnswerMemory::new(4 * MIB);
        let (_, free) = room(100 << 10);
        let held = (block_on(memory.share(MIB, &full())), block_on(memory.share_all_fetches()));
        let small = |bytes| block_on(poll_once(memory.share(bytes, &free)));
        let mut first = small(60 << 10).expect("there is room");
        assert!(first.is_at_once() && small(60 << 10).is_none(), "40 KiB are left");
        let read = || block_on(poll_once(memory.fetch_share(50 * MIB, 0, far(), &free))).flatten();
        let fetch = read().expect("the smaller read fits");
        assert_eq!(fetch.bytes(), 2 * AT_ONCE_READS[1]);
        assert!(small(30 << 10).is_none() && small(20 << 10).is_some());
        assert!(first.resize(10 << 10), "it was estimated, and is smaller");
        assert!(small(60 << 10).is_some());
        drop((first, fetch));
        assert!(small(64 << 10).is_some(), "all of it has been sent");
        drop(held);
    }

    #[test]
    fn clients_that_do_not_read_get_nothing_of_what_leaves_at_once() {
        let memory = AnswerMemory::new(4 * MIB);
        let (_, free) = room(SMALL_ANSWER_BYTES);
        let held = (block_on(memory.share(MIB, &full())), block_on(memory.share_all_fetches()));
        let mut deaf: Vec<_> = (0..1000).map(|_| Box::pin(async { memory.share(1, &full()).await })).collect();
        deaf.iter_mut().for_each(|waiting| assert!(block_on(poll_once(waiting)).is_none()));
        let fetch = |least, room: SendRoom| {
            let memory = &memory;
            block_on(poll_once(async move { memory.fetch_share(50 * MIB, least, far(), &room).await })).flatten()
        };
        assert!(fetch(0, full()).is_none());
        assert_eq!(block_on(memory.share(100, &free)).bytes(), 100, "behind a thousand who do not read");
        assert_eq!(fetch(0, free.clone()).map(|share| share.bytes()), Some(LEAST_FETCH_BYTES));
        assert_eq!(fetch(0, room(20 << 10).1).map(|share| share.bytes()), Some(LEAST_FETCH_BYTES / 4));
        assert!(fetch(17 << 10, room(20 << 10).1).is_none(), "its first batch does not leave at once");
        assert!(fetch(65 << 10, free).is_none(), "nor does one of this size");
        drop(held);
    }

    #[test]
    fn a_waiting_answer_goes_once_its_client_has_read() {
        crate::runtime::on_shard(|| async {
            let memory = AnswerMemory::new(4 * MIB);
            let (free, slow) = room(0);
            let _held = (memory.share(MIB, &full()).await, memory.share_all_fetches().await);
            let mut answer = Box::pin(memory.share(100, &slow));
            let mut records = Box::pin(memory.fetch_share(MIB, 0, far(), &slow));
            assert!(poll_once(&mut answer).await.is_none() && poll_once(&mut records).await.is_none());
            free.set(MIB);
            assert!(answer.await.is_at_once());
            assert!(records.await.is_some_and(|share| share.is_at_once() && share.is_fetch()));
        });
    }

    #[test]
    fn shares_follow_the_size_of_what_was_made() {
        let memory = AnswerMemory::new(4 * MIB);
        let mut share = block_on(memory.share(1000, &full()));
        assert!(share.resize(10));
        assert_eq!(memory.charged(), 10);
        assert!(share.resize(MIB));
        assert!(!share.resize(MIB + 1), "more than there is");
        assert_eq!((share.bytes(), memory.charged()), (MIB, MIB));
    }

    #[test]
    fn fetches_that_come_together_share_what_is_left() {
        let memory = AnswerMemory::new(4 * MIB);
        let room = full();
        let fetch = |wanted, least| block_on(poll_once(memory.fetch_share(wanted, least, far(), &room))).flatten();
        assert_eq!(fetch(100, 0).unwrap().bytes(), LEAST_FETCH_BYTES);
        let first = fetch(50 * MIB, 0).unwrap();
        let second = fetch(50 * MIB, 0).unwrap();
        assert_eq!((first.bytes(), second.bytes()), (MIB, MIB / 2));
        let third = fetch(50 * MIB, 300 << 10).map(|share| share.bytes());
        assert_eq!(third, None, "two times 300 KiB are not left");
    }
}
