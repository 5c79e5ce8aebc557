//! The newest written buffers of every log, kept for consumers at the tail. One budget per
//! shard, oldest out first.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};

use bytes::Bytes;

use super::slices::Slices;

/// The shard-wide bound: a queue of whose buffer is the oldest.
pub struct TailBudget {
    total: usize,
    used: Cell<usize>,
    order: RefCell<VecDeque<(Weak<Tail>, usize)>>,
}

impl TailBudget {
    pub fn new(total: usize) -> Rc<TailBudget> {
        Rc::new(TailBudget { total, used: Cell::new(0), order: RefCell::new(VecDeque::new()) })
    }

    /// Bytes held, and the bound.
    pub fn bytes(&self) -> (usize, usize) {
        (self.used.get(), self.total)
    }

    fn admit(&self, tail: &Rc<Tail>, bytes: usize) {
        self.used.set(self.used.get() + bytes);
        let mut order = self.order.borrow_mut();
        order.push_back((Rc::downgrade(tail), bytes));
        while self.used.get() > self.total {
            let Some((owner, bytes)) = order.pop_front() else { break };
            self.used.set(self.used.get() - bytes);
            if let Some(owner) = owner.upgrade() {
                owner.groups.borrow_mut().pop_front();
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
}

/// One log's share: groups in append order.
pub struct Tail {
    groups: RefCell<VecDeque<Group>>,
    budget: Rc<TailBudget>,
}

impl Tail {
    pub fn new(budget: Rc<TailBudget>) -> Rc<Tail> {
        Rc::new(Tail { groups: RefCell::new(VecDeque::new()), budget })
    }

    /// Keeps `buf`, whose bytes from `start` on are new and end at `end` in the segment.
    pub fn push(self: &Rc<Self>, segment: i64, start: u64, end: u64, buf_start: u64, buf: Bytes) {
        let held = buf.len();
        self.groups.borrow_mut().push_back(Group { segment, start, end, buf_start, buf });
        self.budget.admit(self, held);
    }

    /// Gives nothing back any more of what it holds.
    pub fn forget(&self) {
        for group in self.groups.borrow_mut().iter_mut() {
            // The entry stays: the budget takes entries away one by one.
            *group = Group { segment: i64::MIN, start: 0, end: 0, buf_start: 0, buf: Bytes::new() };
        }
    }

    /// Appends to `out` what is held of `[start, end)`, from the first held byte on, and
    /// returns where that begins: `end` when nothing is held. What is held always
    /// reaches up to the newest byte.
    pub fn collect(&self, segment: i64, start: u64, end: u64, out: &mut Slices) -> u64 {
        let groups = self.groups.borrow();
        let first = groups.partition_point(|g| (g.segment, g.end) <= (segment, start));
        let mut from = end;
        for group in groups.iter().skip(first) {
            if group.segment != segment || group.start >= end {
                break;
            }
            let (low, high) = (group.start.max(start), group.end.min(end));
            if from == end {
                from = low;
            }
            out.push(&group.buf, (low - group.buf_start) as usize..(high - group.buf_start) as usize);
        }
        from
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
}
