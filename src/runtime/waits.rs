//! Waits of the request in hand.
//!
//! While a request's future is polled its notes lie on the shard's thread, so that whatever makes
//! it wait, however deep below, can note the time without being handed anything. A request that
//! waits for nothing costs the moving of a pointer; the notes are made with the first wait. A call
//! to another shard brings the notes of that shard back.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use super::clock::Moment;
use crate::observe::metrics::{Cause, Waits};

/// The request that is being polled.
#[derive(Clone, Copy, PartialEq, Eq)]
enum InHand {
    /// None is.
    Nobody,
    /// It has waited for nothing yet.
    Unwaiting,
    /// Its waits are in `WAITS`.
    Noted,
}

thread_local! {
    /// Apart from the waits, so that a request without any costs two stores at each poll.
    static IN_HAND: Cell<InHand> = const { Cell::new(InHand::Nobody) };
    static WAITS: Cell<Option<Box<Waits>>> = const { Cell::new(None) };
}

/// A request's waits so far.
#[derive(Debug, Default)]
pub struct Notes(Option<Box<Waits>>);

impl Notes {
    /// `None`: it has waited for nothing.
    pub fn waits(&self) -> Option<&Waits> {
        self.0.as_deref()
    }

    /// The request is begun now: what it has waited for held it back.
    pub fn begin(&mut self) {
        if let Some(waits) = &mut self.0 {
            waits.begin();
        }
    }

    /// Polls something of the request.
    #[inline]
    pub fn within<R>(&mut self, poll: impl FnOnce() -> R) -> R {
        let outer = IN_HAND.replace(if self.0.is_some() { InHand::Noted } else { InHand::Unwaiting });
        let outer_waits = if outer == InHand::Noted { WAITS.take() } else { None };
        if self.0.is_some() {
            WAITS.set(self.0.take());
        }
        let polled = poll();
        if IN_HAND.replace(outer) == InHand::Noted {
            self.0 = WAITS.take();
        }
        if outer_waits.is_some() {
            WAITS.set(outer_waits);
        }
        polled
    }

    pub fn add(&mut self, cause: Cause, ns: u64) {
        if ns > 0 {
            self.0.get_or_insert_default().add(cause, ns);
        }
    }

    #[inline]
    pub fn add_all(&mut self, other: Notes) {
        match (&mut self.0, other.0) {
            (_, None) => {}
            (Some(waits), Some(other)) => waits.add_all(&other),
            (None, other) => self.0 = other,
        }
    }
}

/// Changes the notes of the request in hand, if there is one.
fn with(change: impl FnOnce(&mut Notes)) {
    if IN_HAND.get() != InHand::Nobody {
        let mut notes = Notes(WAITS.take());
        change(&mut notes);
        IN_HAND.set(if notes.0.is_some() { InHand::Noted } else { InHand::Unwaiting });
        WAITS.set(notes.0);
    }
}

/// The notes of the request in hand, which begin anew.
#[inline]
pub fn take() -> Notes {
    if IN_HAND.get() != InHand::Noted {
        return Notes::default();
    }
    IN_HAND.set(InHand::Unwaiting);
    Notes(WAITS.take())
}

/// Adds what was noted elsewhere, as on another shard, to the request in hand.
pub fn merge(other: Notes) {
    if other.0.is_some() {
        with(|notes| notes.add_all(other));
    }
}

#[inline]
pub fn note(cause: Cause, ns: u64) {
    if ns > 0 {
        with(|notes| notes.add(cause, ns));
    }
}

fn noted() -> u64 {
    let mut total = 0;
    with(|notes| total = notes.waits().map_or(0, Waits::total));
    total
}

/// A wait that goes on: since when, and what was noted before.
#[derive(Clone, Copy, Default)]
struct Span(Option<(Moment, u64)>);

impl Span {
    fn goes_on(&mut self) {
        if self.0.is_none() {
            self.0 = Some((Moment::now(), noted()));
        }
    }

    /// Its time, without what was noted meanwhile; 0: it has not begun. So waits that go on side by
    /// side add up to no more than the time that passes.
    fn ns(self) -> u64 {
        let Some((since, before)) = self.0 else { return 0 };
        Moment::now().ns_since(since).saturating_sub(noted().saturating_sub(before))
    }
}

/// Waits for `future`, and notes the time if it was not there at once, without
/// what was noted meanwhile.
pub fn waiting<F: Future>(cause: Cause, future: F) -> Waiting<F> {
    Waiting { future, cause, span: Span::default() }
}

/// See [`waiting`]. No `async fn`, which would have room for `future` twice: futures
/// are moved as they are made.
pub struct Waiting<F> {
    future: F,
    cause: Cause,
    span: Span,
}

impl<F: Future> Future for Waiting<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        // SAFETY: `future` is never moved out of `self`; the other fields are values.
        #[allow(unsafe_code)]
        let (future, span, cause) = unsafe {
            let waiting = self.get_unchecked_mut();
            (Pin::new_unchecked(&mut waiting.future), &mut waiting.span, waiting.cause)
        };
        let polled = future.poll(cx);
        if polled.is_pending() {
            span.goes_on();
        } else {
            note(cause, span.ns());
        }
        polled
    }
}

/// Waits for what another shard was asked for, and notes what was waited for there, as far as it
/// was waited for here, too, and the rest of the time as a wait for that shard.
pub async fn called<R, E>(answer: impl Future<Output = Result<(R, Notes), E>>) -> Result<R, E> {
    let (mut answer, mut span) = (pin!(answer), Span::default());
    poll_fn(|cx| {
        let Poll::Ready(answered) = answer.as_mut().poll(cx) else {
            span.goes_on();
            return Poll::Pending;
        };
        let ns = span.ns();
        Poll::Ready(answered.map(|(answer, notes)| {
            let Notes(mut there) = notes;
            let rest = there.as_mut().map_or(ns, |waits| waits.limit(ns));
            merge(Notes(there));
            note(Cause::OtherShard, rest);
            answer
        }))
    })
    .await
}

/// Runs a request's future, and what it waited for.
pub fn traced<F: Future>(future: F) -> Traced<F> {
    Traced { future, notes: Notes::default() }
}

/// See [`traced`]; no `async fn` for the same reason.
pub struct Traced<F> {
    future: F,
    notes: Notes,
}

impl<F: Future> Future for Traced<F> {
    type Output = (F::Output, Notes);

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // SAFETY: `future` is never moved out of `self`; `notes` is a value.
        #[allow(unsafe_code)]
        let (future, notes) = unsafe {
            let traced = self.get_unchecked_mut();
            (Pin::new_unchecked(&mut traced.future), &mut traced.notes)
        };
        notes.within(|| future.poll(cx)).map(|output| (output, std::mem::take(notes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::sync::oneshot;
    use futures_lite::future::{block_on, poll_once, zip};
    use std::time::Duration;

    fn pause(ms: u64) {
        std::thread::sleep(Duration::from_millis(ms));
    }

    fn ms(notes: &Notes, cause: Cause) -> u64 {
        notes.waits().map_or(0, |waits| waits.of(cause) / 1_000_000)
    }

    #[test]
    fn what_is_there_at_once_is_no_wait() {
        let (value, notes) = block_on(traced(waiting(Cause::Device, async { 7 })));
        assert_eq!((value, notes.waits()), (7, None));
    }

    #[test]
    fn a_wait_is_noted_without_those_within_it() {
        let ((first, outer), (second, inner)) = (oneshot::<()>(), oneshot::<()>());
        let work = traced(waiting(Cause::OtherShard, async move {
            outer.recv().await;
            waiting(Cause::Device, inner.recv()).await;
        }));
        let others = async {
            futures_lite::future::yield_now().await;
            pause(20);
            first.send(());
            futures_lite::future::yield_now().await;
            pause(40);
            second.send(());
        };
        let (((), notes), ()) = block_on(zip(work, others));
        assert!((15..39).contains(&ms(&notes, Cause::OtherShard)), "{notes:?}");
        assert!(ms(&notes, Cause::Device) >= 35, "{notes:?}");
    }

    #[test]
    fn calls_side_by_side_add_up_to_no_more_than_the_time_that_passed() {
        let there = |cause, ms: u64| {
            let mut notes = Notes::default();
            notes.add(cause, ms * 1_000_000);
            notes
        };
        let calls: Vec<_> = (0..4).map(|_| oneshot::<Result<((), Notes), ()>>()).collect();
        let (senders, receivers): (Vec<_>, Vec<_>) = calls.into_iter().unzip();
        let work = traced(async {
            for receiver in receivers {
                let answer = async { receiver.recv().await.unwrap_or(Err(())) };
                assert_eq!(called(answer).await, Ok(()));
            }
        });
        let others = async {
            futures_lite::future::yield_now().await;
            pause(40);
            for (sender, cause) in senders.into_iter().zip([Cause::Device, Cause::Sync, Cause::Device, Cause::Blocks]) {
                sender.send(Ok(((), there(cause, 30))));
            }
        };
        let ((_, notes), ()) = block_on(zip(work, others));
        assert_eq!((ms(&notes, Cause::Device), ms(&notes, Cause::Sync)), (30, 0), "{notes:?}");
        assert!((8..100).contains(&ms(&notes, Cause::OtherShard)), "{notes:?}");
    }

    #[test]
    fn notes_are_of_the_request_that_is_polled() {
        let (sender, receiver) = oneshot::<()>();
        let mut waits = Box::pin(traced(waiting(Cause::Quota, receiver.recv())));
        assert!(block_on(poll_once(waits.as_mut())).is_none());
        let ((), other) = block_on(traced(async { note(Cause::Device, 5) }));
        // Of no request.
        note(Cause::Device, 9);
        sender.send(());
        let (_, own) = block_on(waits);
        assert_eq!(other.waits().map(|waits| (waits.of(Cause::Device), waits.total())), Some((5, 5)));
        assert!(own.waits().is_some_and(|waits| waits.of(Cause::Device) == 0 && waits.of(Cause::Quota) > 0));
    }

    #[test]
    fn notes_from_elsewhere_are_added_and_taken_once() {
        let ((), notes) = block_on(traced(async {
            let ((), there) = traced(async { note(Cause::Device, 3) }).await;
            note(Cause::Quota, 1);
            merge(there);
            assert_eq!(take().waits().map(Waits::total), Some(4));
            note(Cause::Memory, 2);
        }));
        assert_eq!(notes.waits().map(Waits::total), Some(2));
    }
}
