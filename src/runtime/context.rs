//! Runtime state of one shard: its ring, its turn, its memory, its faults.
//!
//! It belongs to the shard, not to the thread: a thread has one at a time, reached through a
//! pointer that is read once, and set once on a thread that runs one shard. Threads that are no
//! shard's get one of their own when they ask for it.

use std::cell::{Cell, OnceCell, RefCell};
use std::ptr;
use std::rc::Rc;
use std::sync::Arc;

use super::faults::Faults;
use super::ring::Ring;
use super::turn::Turn;
use super::{buffers, dma, pieces};
use crate::observe::metrics::ShardMetrics;

/// Runs when its shard has ended.
pub(super) type EndHook = Box<dyn FnOnce()>;

#[derive(Default)]
pub(super) struct ShardContext {
    pub turn: Turn,
    /// `None`: the shard has not begun, or has ended.
    pub ring: RefCell<Option<Rc<Ring>>>,
    pub receive: buffers::Pool,
    pub pieces: Arc<pieces::Pool>,
    /// Buffers on their way back to the shard.
    pub home: dma::Home,
    pub faults: Faults,
    /// File systems that do not offer
    /// [`File::write_zeroes_range`](super::disk::File::write_zeroes_range); few.
    pub zeroes_refused: RefCell<Vec<u64>>,
    /// Blocking steps that have not ended.
    pub steps: Cell<usize>,
    /// True once the shard's last blocking step has ended: none begins any more.
    pub steps_over: Cell<bool>,
    pub end_hooks: RefCell<Vec<EndHook>>,
    pub metrics: OnceCell<Arc<ShardMetrics>>,
    /// `None`: the shard is a real one.
    #[cfg(any(test, feature = "simulator"))]
    pub simulated: Option<super::sim::Home>,
}

thread_local! {
    /// Null, or the context that `OWNER` or an `Entered` holds. Without a destructor, so
    /// that reading it is one load.
    static CURRENT: Cell<*const ShardContext> = const { Cell::new(ptr::null()) };
    static OWNER: Owner = const { Owner(RefCell::new(None)) };
}

/// Keeps the thread's own context.
struct Owner(RefCell<Option<Rc<ShardContext>>>);

impl Drop for Owner {
    fn drop(&mut self) {
        // Values that go with the context must not reach for it.
        CURRENT.set(ptr::null());
    }
}

/// Hands out the current shard's context, or the thread's own.
pub(super) fn with<R>(use_it: impl FnOnce(&ShardContext) -> R) -> R {
    let current = CURRENT.get();
    if current.is_null() {
        return with_own(use_it);
    }
    // SAFETY: `OWNER` or an `Entered` holds it and takes the pointer back before it lets go: when
    // the thread ends, or when the simulator, which calls this from below only, leaves the shard.
    #[allow(unsafe_code)]
    use_it(unsafe { &*current })
}

/// As [`with`], but `None` where there is no context, or none any more.
pub(super) fn peek<R>(use_it: impl FnOnce(&ShardContext) -> R) -> Option<R> {
    if CURRENT.get().is_null() { None } else { Some(with(use_it)) }
}

/// The current shard's context, to be held across waits.
pub(super) fn current() -> Rc<ShardContext> {
    with(|context| {
        // SAFETY: every context is made by an `Rc`, which is held during this call.
        #[allow(unsafe_code)]
        unsafe {
            Rc::increment_strong_count(context);
            Rc::from_raw(context)
        }
    })
}

/// Has this shard count in `metrics`, once, before it counts anything.
pub fn count_in(metrics: Arc<ShardMetrics>) {
    with(|shard| {
        if shard.metrics.set(metrics).is_err() {
            debug_assert!(false, "the shard counts elsewhere already");
        }
    });
}

/// Where this shard counts; of its own where nobody reads it.
pub fn metrics() -> Arc<ShardMetrics> {
    with(|shard| shard.metrics.get_or_init(|| ShardMetrics::new(Arc::default())).clone())
}

/// Makes a shard the thread's current one until the guard goes. Guards go in
/// the reverse of their order.
#[cfg(any(test, feature = "simulator"))]
pub(super) fn enter(shard: Rc<ShardContext>) -> Entered {
    let before = CURRENT.replace(Rc::as_ptr(&shard));
    Entered { before, _shard: shard }
}

#[cfg(any(test, feature = "simulator"))]
pub(super) struct Entered {
    before: *const ShardContext,
    _shard: Rc<ShardContext>,
}

#[cfg(any(test, feature = "simulator"))]
impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.set(self.before);
    }
}

#[cold]
fn with_own<R>(use_it: impl FnOnce(&ShardContext) -> R) -> R {
    let made = OWNER.try_with(|owner| {
        let context = owner.0.borrow_mut().get_or_insert_with(Rc::default).clone();
        CURRENT.set(Rc::as_ptr(&context));
        context
    });
    // The thread is at its end: what is asked of it now is kept nowhere.
    use_it(&made.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_keeps_its_context_to_its_end() {
        std::thread::spawn(|| {
            assert_eq!(peek(|_| ()), None, "nobody has asked yet");
            with(|context| context.steps.set(7));
            assert_eq!(peek(|context| context.steps.get()), Some(7));
            // It goes with the context, which is out of reach by then.
            let hook = Last;
            with(|context| context.end_hooks.borrow_mut().push(Box::new(move || drop(hook))));
        })
        .join()
        .unwrap();
    }

    struct Last;

    impl Drop for Last {
        fn drop(&mut self) {
            assert_eq!(peek(|_| ()), None);
            assert_eq!(with(|context| context.steps.get()), 0);
        }
    }
}
