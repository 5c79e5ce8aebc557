//! Written bytes of every log that are kept for consumers: the newest buffers, or copies of what
//! consumers have before them. One budget per shard, oldest out first.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};

use bytes::Bytes;

use super::slices::Slices;

/// The shard-wide bound: a queue of whose buffer is the oldest.
pub struct TailBudget {
    total: Cell<usize>,
    used: Cell<usize>,
    /// Logs with the number of a buffer of theirs, which may be gone already.
    order: RefCell<VecDeque<(Weak<Tail>, u64)>>,
    /// Buffers that are there.
    groups: Cell<usize>,
    /// Logs with a share.
    tails: Cell<usize>,
}

/// Entries of the queue that may be of buffers that are gone, beside as many as there are others.
const GONE: usize = 1024;

impl TailBudget {
    pub fn new(total: usize) -> Rc<TailBudget> {
        Rc::new(TailBudget {
            total: Cell::new(total),
            used: Cell::new(0),
            order: RefCell::new(VecDeque::new()),
            groups: Cell::new(0),
            tails: Cell::new(0),
        })
    }

    /// Bytes held, and the bound.
    pub fn bytes(&self) -> (usize, usize) {
        (self.used.get(), self.total.get())
    }

    /// Sets another bound; what is beyond it goes.
    pub fn set_total(&self, total: usize) {
        self.total.set(total);
        self.evict();
    }

    /// The part of a log that has one, or would be the next to have one.
    pub fn fair_share(&self, has_one: bool) -> usize {
        self.total.get() / (self.tails.get() + usize::from(!has_one))
    }

    /// Takes the newest buffer of `tail` in.
    fn admit(&self, tail: &Rc<Tail>, number: u64, bytes: usize) {
        self.used.set(self.used.get() + bytes);
        self.groups.set(self.groups.get() + 1);
        let mut order = self.order.borrow_mut();
        order.push_back((Rc::downgrade(tail), number));
        if order.len() > 2 * self.groups.get() + GONE {
            order.retain(|(tail, number)| tail.upgrade().is_some_and(|tail| tail.dropped.get() <= *number));
        }
        drop(order);
        self.evict();
    }

    fn let_go(&self, group: &Group) {
        self.used.set(self.used.get().saturating_sub(group.counted));
        self.groups.set(self.groups.get().saturating_sub(1));
    }

    fn evict(&self) {
        while self.used.get() > self.total.get() {
            let Some((owner, number)) = self.order.borrow_mut().pop_front() else { break };
            if let Some(owner) = owner.upgrade()
                && owner.dropped.get() == number
            {
                owner.drop_oldest();
            }
        }
    }
}

/// Bytes `[start, end)` of the segment at `segment`; `buf` begins at `buf_start <= start`.
struct Group {
    segment: i64,
    start: u64,
    end: u64,
    buf_start: u64,
    buf: Bytes,
    /// Bytes that `buf` keeps alive.
    counted: usize,
}

/// One log's share: groups in append order.
pub struct Tail {
    groups: RefCell<VecDeque<Group>>,
    /// Groups that were there before those.
    dropped: Cell<u64>,
    budget: Rc<TailBudget>,
}

impl Tail {
    pub fn new(budget: Rc<TailBudget>) -> Rc<Tail> {
        Rc::new(Tail { groups: RefCell::new(VecDeque::new()), dropped: Cell::new(0), budget })
    }

    /// Keeps `buf`, whose bytes from `start` on are new and end at `end` in the segment.
    pub fn push(self: &Rc<Self>, segment: i64, start: u64, end: u64, buf_start: u64, buf: Bytes) {
        let counted = buf.len();
        self.admit(Group { segment, start, end, buf_start, buf, counted });
    }

    /// Keeps `copy`, the front of a buffer of `counted` bytes, which is at `start` of the segment.
    pub fn push_copy(self: &Rc<Self>, segment: i64, start: u64, copy: Bytes, counted: usize) {
        let end = start + copy.len() as u64;
        self.admit(Group { segment, start, end, buf_start: start, buf: copy, counted });
    }

    /// The newest copy ends at that place.
    pub fn ends_at(&self, segment: i64, end: u64) -> bool {
        self.groups.borrow().back().is_some_and(|newest| (newest.segment, newest.end) == (segment, end))
    }

    /// More has come into the buffer of the newest copy, and follows it in the segment.
    pub fn extend_copy(&self, copy: Bytes) {
        if let Some(newest) = self.groups.borrow_mut().back_mut() {
            newest.end = newest.start + copy.len() as u64;
            newest.buf = copy;
        }
    }

    fn admit(self: &Rc<Self>, group: Group) {
        let bytes = group.counted;
        if self.is_empty() {
            self.budget.tails.set(self.budget.tails.get() + 1);
        }
        let number = self.dropped.get() + self.groups.borrow().len() as u64;
        self.groups.borrow_mut().push_back(group);
        self.budget.admit(self, number, bytes);
    }

    fn drop_oldest(&self) {
        let Some(oldest) = self.groups.borrow_mut().pop_front() else { return };
        self.dropped.set(self.dropped.get() + 1);
        self.budget.let_go(&oldest);
        if self.is_empty() {
            self.budget.tails.set(self.budget.tails.get().saturating_sub(1));
        }
    }

    /// Drops what ends at or before a place.
    pub fn drop_before(&self, place: (i64, u64)) {
        while self.groups.borrow().front().is_some_and(|group| (group.segment, group.end) <= place) {
            self.drop_oldest();
        }
    }

    pub fn is_empty(&self) -> bool {
        self.groups.borrow().is_empty()
    }

    /// Gives nothing back any more of what it holds.
    pub fn forget(&self) {
        while !self.is_empty() {
            self.drop_oldest();
        }
    }

    /// Appends to `out` what is held of `[start, end)` without a gap before `end`, and returns
    /// where that begins: `end` when nothing is held.
    pub fn collect(&self, segment: i64, start: u64, end: u64, out: &mut Slices) -> u64 {
        let groups = self.groups.borrow();
        let last = groups.partition_point(|group| (group.segment, group.start) < (segment, end));
        let (mut first, mut from) = (last, end);
        while from > start
            && let Some(group) = first.checked_sub(1).and_then(|before| groups.get(before))
            && group.segment == segment
            && group.end >= from
        {
            from = group.start.max(start);
            first -= 1;
        }
        for group in groups.range(first..last) {
            let (low, high) = (group.start.max(start), group.end.min(end));
            out.push_part(
                &group.buf,
                group.counted,
                (low - group.buf_start) as usize..(high - group.buf_start) as usize,
            );
        }
        from
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.forget();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collected(tail: &Tail, segment: i64, start: u64, end: u64) -> (u64, Vec<u8>) {
        let mut out = Slices::default();
        let from = tail.collect(segment, start, end, &mut out);
        (from, out.list.concat())
    }

    #[test]
    fn collects_across_groups_and_says_where_it_begins() {
        let tail = Tail::new(TailBudget::new(1000));
        tail.push(0, 0, 4, 0, Bytes::from_static(b"abcd...."));
        tail.push(0, 4, 10, 0, Bytes::from_static(b"abcdefghij"));
        tail.push(10, 0, 3, 0, Bytes::from_static(b"XYZ"));
        assert_eq!(collected(&tail, 0, 2, 8), (2, b"cdefgh".to_vec()));
        assert_eq!(collected(&tail, 0, 0, 10), (0, b"abcdefghij".to_vec()));
        assert_eq!(collected(&tail, 10, 1, 3), (1, b"YZ".to_vec()));
        assert_eq!(collected(&tail, 10, 3, 3), (3, vec![]));
        assert_eq!(collected(&tail, 5, 0, 3), (3, vec![]));
    }

    #[test]
    fn the_oldest_of_the_shard_goes_first() {
        let budget = TailBudget::new(20);
        let (a, b) = (Tail::new(budget.clone()), Tail::new(budget));
        a.push(0, 0, 8, 0, Bytes::from_static(b"aaaaaaaa"));
        b.push(0, 0, 8, 0, Bytes::from_static(b"bbbbbbbb"));
        a.push(0, 8, 16, 8, Bytes::from_static(b"AAAAAAAA"));
        assert_eq!(collected(&a, 0, 0, 16), (8, b"AAAAAAAA".to_vec()));
        assert_eq!(collected(&b, 0, 0, 8), (0, b"bbbbbbbb".to_vec()));
    }

    #[test]
    fn what_is_behind_a_gap_is_not_collected() {
        let tail = Tail::new(TailBudget::new(1000));
        tail.push_copy(0, 0, Bytes::from_static(b"abcd"), 4);
        tail.push_copy(0, 6, Bytes::from_static(b"gh"), 2);
        tail.push_copy(0, 8, Bytes::from_static(b"ij"), 2);
        assert_eq!(collected(&tail, 0, 0, 10), (6, b"ghij".to_vec()));
        assert_eq!(collected(&tail, 0, 0, 9), (6, b"ghi".to_vec()));
        assert_eq!(collected(&tail, 0, 0, 6), (6, vec![]));
        assert_eq!(collected(&tail, 0, 1, 3), (1, b"bc".to_vec()));
        assert_eq!(collected(&tail, 0, 0, 11), (11, vec![]), "the end itself is not held");
        tail.forget();
        assert_eq!(collected(&tail, 0, 0, 10), (10, vec![]));
        tail.push_copy(0, 10, Bytes::from_static(b"kl"), 2);
        assert_eq!(collected(&tail, 0, 9, 12), (10, b"kl".to_vec()));
    }

    #[test]
    fn a_smaller_bound_takes_effect_at_once_and_shares_are_fair() {
        let budget = TailBudget::new(40);
        let (a, b) = (Tail::new(budget.clone()), Tail::new(budget.clone()));
        assert_eq!(budget.fair_share(false), 40);
        a.push_copy(0, 0, Bytes::from_static(b"aaaaaaaa"), 8);
        b.push_copy(0, 0, Bytes::from_static(b"bbbbbbbb"), 8);
        assert_eq!((budget.fair_share(true), budget.fair_share(false)), (20, 13));
        budget.set_total(10);
        assert_eq!((a.is_empty(), b.is_empty(), budget.bytes()), (true, false, (8, 10)));
        assert_eq!(budget.fair_share(true), 10);
        drop(b);
        assert_eq!((budget.fair_share(false), budget.bytes().0), (10, 0));
        budget.set_total(0);
        assert_eq!(budget.bytes(), (0, 0));
    }

    #[test]
    fn what_is_read_goes_before_the_budget_asks_for_it() {
        let budget = TailBudget::new(30);
        let (a, b) = (Tail::new(budget.clone()), Tail::new(budget.clone()));
        for n in 0..3 {
            a.push_copy(0, n * 4, Bytes::from_static(b"aaaa"), 4);
            b.push_copy(0, n * 4, Bytes::from_static(b"bbbb"), 4);
        }
        a.drop_before((0, 9));
        assert_eq!((budget.bytes().0, collected(&a, 0, 0, 12)), (16, (8, b"aaaa".to_vec())));
        // Entries of what is gone already make no room.
        a.push_copy(0, 12, Bytes::from_static(b"0123456789ABCDEF"), 16);
        assert_eq!((budget.bytes().0, collected(&a, 0, 0, 28).0, collected(&b, 0, 0, 12).0), (28, 8, 4));
        for n in 0..10_000 {
            b.push_copy(1, n, Bytes::from_static(b"b"), 1);
            b.drop_before((1, n + 1));
        }
        assert!(budget.order.borrow().len() < 2 * GONE, "the queue is bounded");
        drop((a, b));
        assert_eq!((budget.bytes().0, budget.groups.get()), (0, 0));
    }

    #[test]
    fn a_copy_grows_with_its_buffer() {
        let budget = TailBudget::new(30);
        let tail = Tail::new(budget.clone());
        tail.push_copy(0, 4, Bytes::from_static(b"ab"), 10);
        assert!(tail.ends_at(0, 6) && !tail.ends_at(0, 7) && !tail.ends_at(1, 6));
        tail.extend_copy(Bytes::from_static(b"abcd"));
        assert!(tail.ends_at(0, 8));
        assert_eq!((budget.bytes().0, collected(&tail, 0, 0, 8)), (10, (4, b"abcd".to_vec())));
    }
}
