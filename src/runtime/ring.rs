//! The shard's own io_uring: readiness of sockets, and the log's writes and syncs.
//!
//! glommio's reactor enters the kernel about seven times per turn and polls each socket anew for
//! each read. What happens for every request goes through this ring instead: sockets are watched by
//! one multishot poll each, writes of all logs leave together, and the shard sleeps in the same
//! system call that submits them (see [`turn`](super::turn)).

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::sync::atomic::{Ordering, fence};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use io_uring::{IoUring, cqueue, opcode, squeue, types};
use slab::Slab;

use super::context;
use super::turn;

/// Submission queue entries; more wait in memory.
const ENTRIES: u32 = 512;
/// Completion queue entries. Multishot polls post without being asked, so more
/// than twice [`ENTRIES`].
const COMPLETIONS: u32 = 4096;

/// Completions that end a sleep before its time to gather is over.
const GATHERED: usize = 512;
const _: () = assert!(COMPLETIONS > 2 * ENTRIES && GATHERED < COMPLETIONS as usize);

/// How long the end of a shard waits for operations whose memory it must not free.
const END_WAIT: Duration = Duration::from_secs(5);

/// Completions of requests that nobody waits for.
const NOBODY: u64 = u64::MAX;

const POLL_IN: u32 = libc::POLLIN as u32;
const POLL_OUT: u32 = libc::POLLOUT as u32;
/// The peer has ended, or the socket has failed: reading it says which.
const POLL_ENDED: u32 = (libc::POLLERR | libc::POLLHUP | libc::POLLRDHUP) as u32;

pub(super) struct Ring {
    uring: RefCell<IoUring>,
    slots: RefCell<Slab<Slot>>,
    /// Entries that the submission queue had no room for.
    backlog: RefCell<VecDeque<squeue::Entry>>,
    /// Reused by each reap.
    reaped: RefCell<Vec<(u64, i32, bool)>>,
    /// Operations under way that own memory.
    operations: Cell<usize>,
    #[cfg(test)]
    test: Test,
}

#[cfg(test)]
#[derive(Default)]
struct Test {
    /// The kernel's word that it has work to do stays, though there is none.
    stale: Cell<bool>,
    /// System calls that did not wait.
    enters: Cell<u64>,
}

/// A wait for completions.
#[derive(Clone, Copy)]
pub(super) struct Nap {
    pub longest: Duration,
    /// It lasts so long at least, µs, unless much happens. Where the ring [gathers](Ring::gathers).
    pub least_us: u32,
}

enum Slot {
    Watch(Rc<WatchState>),
    Operation(Rc<OperationState>),
}

struct WatchState {
    /// Kept open until the kernel has let go of the poll.
    file: Rc<OwnedFd>,
    events: u32,
    ready: Cell<bool>,
    ended: Cell<bool>,
    /// The kernel refused to watch: from then on every look at the descriptor is an attempt,
    /// and waiting is an error.
    failed: Cell<Option<i32>>,
    closed: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

struct OperationState {
    result: Cell<Option<i32>>,
    waker: RefCell<Option<Waker>>,
    /// Memory that the kernel reads from or writes to.
    memory: RefCell<Option<Box<dyn Any>>>,
}

/// Makes this thread's ring.
pub(super) fn start() -> io::Result<()> {
    let ring = Rc::new(Ring {
        uring: RefCell::new(build()?),
        slots: RefCell::default(),
        backlog: RefCell::default(),
        reaped: RefCell::default(),
        operations: Cell::new(0),
        #[cfg(test)]
        test: Test::default(),
    });
    context::with(|shard| shard.ring.replace(Some(ring)));
    Ok(())
}

/// The newest ways of the kernel first: completions are then only worked on when
/// the shard asks for them.
fn build() -> io::Result<IoUring> {
    let mut newest = IoUring::builder();
    newest.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag().setup_cqsize(COMPLETIONS);
    let mut plain = IoUring::builder();
    plain.setup_cqsize(COMPLETIONS);
    newest.build(ENTRIES).or_else(|_| plain.build(ENTRIES))
}

/// Ends this thread's ring, after its tasks. Memory that the kernel still uses then is never freed.
pub(super) fn end() {
    let Some(ring) = context::with(|shard| shard.ring.take()) else { return };
    let begun = Instant::now();
    while ring.operations.get() > 0 && begun.elapsed() < END_WAIT {
        if ring.enter(Some(Nap { longest: Duration::from_millis(10), least_us: 0 })).is_err() {
            break;
        }
        ring.reap();
    }
    if ring.operations.get() > 0 {
        std::mem::forget(ring.slots.take());
    }
}

/// This thread's ring; an error elsewhere than on a shard.
pub(super) fn current() -> io::Result<Rc<Ring>> {
    let ring = context::with(|shard| shard.ring.borrow().clone());
    ring.ok_or_else(|| io::Error::other("not on a shard's thread, or the shard has ended"))
}

impl Ring {
    /// The kernel knows of sleeps that last a while at least.
    pub(super) fn gathers(&self) -> bool {
        self.uring.borrow().params().is_feature_min_timeout()
    }

    /// Operations under way that own memory.
    pub(super) fn in_flight(&self) -> usize {
        self.operations.get()
    }

    fn push(&self, entry: squeue::Entry) {
        turn::wake_if_parked();
        let mut backlog = self.backlog.borrow_mut();
        if !backlog.is_empty() || !self.try_push(&entry) {
            backlog.push_back(entry);
        }
    }

    fn try_push(&self, entry: &squeue::Entry) -> bool {
        // SAFETY: what the entry points to is owned by a slot until its completion (`Operation`),
        // or it points to nothing.
        #[allow(unsafe_code)]
        unsafe {
            self.uring.borrow_mut().submission().push(entry).is_ok()
        }
    }

    fn refill(&self) {
        let mut backlog = self.backlog.borrow_mut();
        while let Some(entry) = backlog.front() {
            if !self.try_push(entry) {
                break;
            }
            backlog.pop_front();
        }
    }

    /// Submits what waits, and then naps, if it is to. Without anything to do it costs nothing.
    pub(super) fn enter(&self, nap: Option<Nap>) -> io::Result<()> {
        loop {
            let outcome = match nap {
                Some(Nap { longest, least_us }) if self.backlog.borrow().is_empty() => {
                    let gather = least_us.min(u32::try_from(longest.as_micros()).unwrap_or(u32::MAX));
                    let time = types::Timespec::from(longest);
                    let arguments = types::SubmitArgs::new().timespec(&time).min_wait_usec(gather);
                    let wanted = if gather > 0 { GATHERED } else { 1 };
                    self.uring.borrow().submitter().submit_with_args(wanted, &arguments)
                }
                _ => {
                    if !self.has_work() {
                        return Ok(());
                    }
                    #[cfg(test)]
                    self.test.enters.set(self.test.enters.get() + 1);
                    self.uring.borrow().submit()
                }
            };
            match outcome {
                Ok(_) => {}
                Err(error) => match error.raw_os_error() {
                    // EBUSY, EAGAIN: the kernel wants completions reaped, or has no memory:
                    // the next turn tries again.
                    Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => return Ok(()),
                    _ => return Err(error),
                },
            }
            if self.backlog.borrow().is_empty() {
                return Ok(());
            }
            self.refill();
        }
    }

    /// True if a nonblocking [`enter`](Self::enter) has anything to do.
    fn has_work(&self) -> bool {
        let mut uring = self.uring.borrow_mut();
        let deferred = uring.params().is_setup_single_issuer();
        let queue = uring.submission();
        let taskrun = queue.taskrun();
        #[cfg(test)]
        let taskrun = taskrun || self.test.stale.get();
        !queue.is_empty() || queue.cq_overflow() || (deferred && taskrun)
    }

    /// Hands completions to those who wait for them; how many there were.
    pub(super) fn reap(&self) -> usize {
        let mut reaped = self.reaped.take();
        {
            let mut uring = self.uring.borrow_mut();
            let completions = uring.completion();
            reaped.extend(completions.map(|c| (c.user_data(), c.result(), cqueue::more(c.flags()))));
        }
        let count = reaped.len();
        for (key, result, more) in reaped.drain(..) {
            if key != NOBODY {
                self.complete(key as usize, result, more);
            }
        }
        *self.reaped.borrow_mut() = reaped;
        count
    }

    fn complete(&self, key: usize, result: i32, more: bool) {
        let mut slots = self.slots.borrow_mut();
        match slots.get(key) {
            Some(Slot::Watch(state)) => {
                let state = state.clone();
                if !more && (state.closed.get() || result < 0) {
                    slots.remove(key);
                }
                drop(slots);
                if !more && !state.closed.get() && result >= 0 {
                    self.push(state.poll_entry(key));
                }
                state.happened(result);
            }
            Some(Slot::Operation(state)) => {
                let state = state.clone();
                slots.remove(key);
                drop(slots);
                self.operations.set(self.operations.get() - 1);
                state.result.set(Some(result));
                let memory = state.memory.take();
                drop(memory);
                let waker = state.waker.take();
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
            None => {}
        }
    }

    /// Calls through `eventfd` about completions from [`signal`](Self::signal) to
    /// [`no_signal`](Self::no_signal).
    pub(super) fn register_eventfd(&self, eventfd: RawFd) -> io::Result<()> {
        self.uring.borrow_mut().completion().disable_eventfd();
        self.uring.borrow().submitter().register_eventfd(eventfd)
    }

    /// Turns the eventfd on; returns whether there is something to reap already.
    pub(super) fn signal(&self) -> io::Result<bool> {
        self.uring.borrow_mut().completion().enable_eventfd();
        fence(Ordering::SeqCst);
        // The kernel can leave its word that it has work to do (IORING_SQ_TASKRUN) where it has
        // done all, and a shard that took it at its word would never sleep: it is asked to do it,
        // and then only the queues count. Work that comes from here on calls.
        self.enter(None)?;
        let mut uring = self.uring.borrow_mut();
        let waiting = !uring.completion().is_empty() || !uring.submission().is_empty();
        Ok(waiting || !self.backlog.borrow().is_empty())
    }

    /// Turns the eventfd off.
    pub(super) fn no_signal(&self) {
        self.uring.borrow_mut().completion().disable_eventfd();
    }

    /// Runs one operation; the result is the kernel's (an error code below zero). `memory`
    /// is what the kernel uses: it is kept until the operation has ended, also when the
    /// future is dropped before.
    fn operate(&self, entry: squeue::Entry, memory: Box<dyn Any>) -> Rc<OperationState> {
        let state = Rc::new(OperationState {
            result: Cell::new(None),
            waker: RefCell::default(),
            memory: RefCell::new(Some(memory)),
        });
        let key = self.slots.borrow_mut().insert(Slot::Operation(state.clone()));
        self.operations.set(self.operations.get() + 1);
        self.push(entry.user_data(key as u64));
        state
    }
}

impl OperationState {
    async fn ended(&self) -> io::Result<usize> {
        let result = poll_fn(|cx| match self.result.get() {
            Some(result) => Poll::Ready(result),
            None => {
                *self.waker.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            }
        });
        let result = result.await;
        usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
    }
}

/// One operation on this thread's ring, to its end; the kernel uses what `memory` owns.
async fn run(entry: squeue::Entry, memory: Box<dyn Any>) -> io::Result<usize> {
    let state = current()?.operate(entry, memory);
    state.ended().await
}

/// Writes `len` bytes at `address`, which `memory` owns, to `file` at
/// `position`; how many were written.
///
/// # Safety
/// `address` points to `len` bytes that nobody changes and that live for as long as `memory` does.
#[allow(unsafe_code)]
pub(super) async unsafe fn write(
    file: RawFd,
    address: *const u8,
    len: u32,
    position: u64,
    memory: Box<dyn Any>,
) -> io::Result<usize> {
    let entry = opcode::Write::new(types::Fd(file), address, len).offset(position).build();
    run(entry, memory).await
}

/// Writes `slices` one behind the other to `file` at `position`; how many bytes were written.
///
/// # Safety
/// Each slice points to bytes that nobody changes and that live for as long as `memory` does.
#[allow(unsafe_code)]
pub(super) async unsafe fn write_vectored(
    file: RawFd,
    slices: Vec<libc::iovec>,
    position: u64,
    memory: Box<dyn Any>,
) -> io::Result<usize> {
    let number = slices.len() as u32;
    let entry = opcode::Writev::new(types::Fd(file), slices.as_ptr(), number).offset(position).build();
    run(entry, Box::new((slices, memory))).await
}

/// Reads up to `len` bytes at `position` of `file` to `address`, in memory that `memory`
/// owns; how many were read.
///
/// # Safety
/// `address` points to `len` bytes that live for as long as `memory` does, and that nobody looks at
/// before the read has ended.
#[allow(unsafe_code)]
pub(super) async unsafe fn read(
    file: RawFd,
    address: *mut u8,
    len: u32,
    position: u64,
    memory: Box<dyn Any>,
) -> io::Result<usize> {
    let entry = opcode::Read::new(types::Fd(file), address, len).offset(position).build();
    run(entry, memory).await
}

/// fdatasync(2); `file` is open for as long as `memory` lives.
pub(super) async fn fdatasync(file: RawFd, memory: Box<dyn Any>) -> io::Result<()> {
    let entry = opcode::Fsync::new(types::Fd(file)).flags(types::FsyncFlags::DATASYNC).build();
    run(entry, memory).await.map(drop)
}

/// Event that a watch waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interest {
    Readable,
    Writable,
}

/// A descriptor that the ring watches for readiness, from one edge to the next, until dropped.
pub(super) struct Watch {
    state: Rc<WatchState>,
    ring: Rc<Ring>,
    key: usize,
}

impl WatchState {
    fn poll_entry(&self, key: usize) -> squeue::Entry {
        let file = types::Fd(self.file.as_raw_fd());
        opcode::PollAdd::new(file, self.events).multi(true).build().user_data(key as u64)
    }

    fn happened(&self, result: i32) {
        if result < 0 {
            self.failed.set(Some(-result));
        } else if result as u32 & POLL_ENDED != 0 {
            self.ended.set(true);
        }
        self.ready.set(true);
        let waker = self.waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Watch {
    /// Ready at first: try, then wait.
    pub(super) fn new(file: Rc<OwnedFd>, interest: Interest) -> io::Result<Watch> {
        let ring = current()?;
        let events = match interest {
            Interest::Readable => POLL_IN | libc::POLLRDHUP as u32,
            Interest::Writable => POLL_OUT,
        };
        let state = Rc::new(WatchState {
            file,
            events,
            ready: Cell::new(interest == Interest::Readable),
            ended: Cell::new(false),
            failed: Cell::new(None),
            closed: Cell::new(false),
            waker: RefCell::default(),
        });
        let key = ring.slots.borrow_mut().insert(Slot::Watch(state.clone()));
        ring.push(state.poll_entry(key));
        Ok(Watch { state, ring, key })
    }

    /// Before an attempt: what happens from here on counts as news.
    pub(super) fn begin(&self) {
        self.state.ready.set(false);
    }

    /// The attempt has left something: the next one need not wait.
    pub(super) fn more(&self) {
        self.state.ready.set(true);
    }

    /// The attempt found nothing, whatever the kernel had said. An error: nothing
    /// will ever be said any more.
    pub(super) fn nothing(&self) -> io::Result<()> {
        self.state.ended.set(false);
        match self.state.failed.get() {
            Some(code) => Err(io::Error::from_raw_os_error(code)),
            None => Ok(()),
        }
    }

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.state.ready.get() || self.state.ended.get() || self.state.failed.get().is_some() {
            return Poll::Ready(());
        }
        *self.state.waker.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }

    pub(super) async fn ready(&self) {
        poll_fn(|cx| self.poll_ready(cx)).await;
    }

    /// Resolves once the peer has ended, or the socket has failed; what arrives before is
    /// left to the next attempt.
    pub(super) async fn ended(&self) {
        poll_fn(|cx| {
            if self.state.ended.get() || self.state.failed.get().is_some() {
                return Poll::Ready(());
            }
            *self.state.waker.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.state.closed.set(true);
        let waker = self.state.waker.take();
        drop(waker);
        // Its last completion frees the slot, and with it the descriptor. A poll that
        // failed has no slot any more.
        let watched = match self.ring.slots.borrow().get(self.key) {
            Some(Slot::Watch(state)) => Rc::ptr_eq(state, &self.state),
            _ => false,
        };
        if watched {
            // Not a poll's removal: the kernel refuses that (EALREADY) while an event is on its
            // way, and the poll goes on.
            self.ring.push(opcode::AsyncCancel::new(self.key as u64).build().user_data(NOBODY));
        }
    }
}

#[cfg(test)]
pub(super) fn slots() -> usize {
    current().map_or(0, |ring| ring.slots.borrow().len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::clock;
    use crate::runtime::executor::tests::on_shard;
    use crate::runtime::turn::Foreign;

    #[test]
    fn a_shard_sleeps_though_the_kernel_says_that_it_has_work() {
        on_shard(|| async {
            let ring = current().unwrap();
            ring.test.stale.set(true);
            let _foreign = Foreign::begin();
            let before = ring.test.enters.get();
            clock::sleep(Duration::from_millis(200)).await;
            let enters = ring.test.enters.get() - before;
            assert!(enters < 500, "{enters} system calls in 200 ms without anything to do");
        });
    }
}
