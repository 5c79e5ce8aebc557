//! How other threads wake a shard.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

/// A new eventfd, not passed on to child processes.
pub(super) fn eventfd(flags: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: a plain system call; the descriptor it returns is owned here and by nobody else.
    #[allow(unsafe_code)]
    unsafe {
        let raw = libc::eventfd(0, libc::EFD_CLOEXEC | flags);
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(raw))
    }
}

/// One shard's bell. Ringing costs a system call only when the shard sleeps and
/// nobody has rung yet.
pub(super) struct Doorbell {
    eventfd: OwnedFd,
    rung: AtomicBool,
    sleeping: AtomicBool,
    /// Taken by the shard's own thread only; a mutex because the bell is shared.
    waiting: Mutex<Option<Waker>>,
}

impl Doorbell {
    pub(super) fn new() -> io::Result<Doorbell> {
        let eventfd = eventfd(libc::EFD_NONBLOCK)?;
        let waiting = Mutex::new(None);
        Ok(Doorbell { eventfd, rung: AtomicBool::new(false), sleeping: AtomicBool::new(false), waiting })
    }

    /// Another descriptor of the same bell, to be watched. Every ring is an edge: nobody reads it.
    pub(super) fn descriptor(&self) -> io::Result<OwnedFd> {
        self.eventfd.try_clone()
    }

    /// From any thread, after what the bell is about is in its place.
    pub(super) fn ring(&self) {
        if !self.rung.swap(true, Ordering::SeqCst) && self.sleeping.load(Ordering::SeqCst) {
            let one = 1u64.to_ne_bytes();
            // SAFETY: eight readable bytes, to a descriptor that is open for as long as
            // `self` lives. It fails only when the counter is full, and then the shard
            // has been rung often enough.
            #[allow(unsafe_code)]
            unsafe {
                libc::write(self.eventfd.as_raw_fd(), one.as_ptr().cast(), one.len());
            }
        }
    }

    /// Says that sleep comes next; whether somebody waits for a ring that came
    /// before that could be known.
    pub(super) fn fall_asleep(&self) -> bool {
        self.sleeping.store(true, Ordering::SeqCst);
        self.rung.load(Ordering::SeqCst) && self.waiting.lock().is_ok_and(|waiting| waiting.is_some())
    }

    pub(super) fn wake_up(&self) {
        self.sleeping.store(false, Ordering::SeqCst);
    }

    /// Wakes who waits for the bell if it has rung; whether it has.
    pub(super) fn answer(&self) -> bool {
        if !self.rung.load(Ordering::SeqCst) {
            return false;
        }
        let waiting = self.waiting.lock().map(|mut waiting| waiting.take()).unwrap_or_default();
        match waiting {
            Some(waker) => {
                waker.wake();
                true
            }
            // The shard that was woken for it has not looked yet.
            None => false,
        }
    }

    /// Waits for the next ring. The one waiter looks at everything afterwards.
    pub(super) fn poll_rung(&self, cx: &mut Context<'_>) -> Poll<()> {
        if let Ok(mut waiting) = self.waiting.lock() {
            *waiting = Some(cx.waker().clone());
        }
        if self.rung.swap(false, Ordering::SeqCst) {
            return Poll::Ready(());
        }
        Poll::Pending
    }
}
