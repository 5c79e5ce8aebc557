//! Time that a request takes of its shard: that of the polls of its future, without what it waits.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::call::QuotaCall;
use crate::runtime::clock;

#[derive(Debug, Default)]
pub struct Meter {
    spent: Cell<Duration>,
    /// Begin of the poll under way.
    since: Cell<Option<Instant>>,
}

impl Meter {
    /// So far, with the poll under way.
    pub fn spent(&self) -> Duration {
        let now = |since: Instant| clock::now().saturating_duration_since(since);
        self.spent.get() + self.since.get().map_or(Duration::ZERO, now)
    }

    fn begin(&self) {
        self.since.set(Some(clock::now()));
    }

    fn end(&self) {
        let spent = self.spent();
        self.since.set(None);
        self.spent.set(spent);
    }
}

/// A future whose polls are counted for a request.
pub struct Timed<T> {
    call: Rc<QuotaCall>,
    future: Pin<Box<dyn Future<Output = T>>>,
}

impl<T> Timed<T> {
    pub fn new(call: Rc<QuotaCall>, future: impl Future<Output = T> + 'static) -> Timed<T> {
        Timed { call, future: Box::pin(future) }
    }
}

impl<T> Future for Timed<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        self.call.meter().begin();
        let polled = self.future.as_mut().poll(cx);
        self.call.meter().end();
        polled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_polls_count() {
        let meter = Meter::default();
        let busy = |ms| {
            let until = clock::now() + Duration::from_millis(ms);
            while clock::now() < until {}
        };
        let mut within = Duration::ZERO;
        for _ in 0..2 {
            let begun = clock::now();
            meter.begin();
            busy(2);
            assert!(meter.spent() >= Duration::from_millis(2));
            meter.end();
            within += clock::now() - begun;
            busy(20);
        }
        let spent = meter.spent();
        assert!(spent >= Duration::from_millis(4) && spent <= within, "{spent:?} within {within:?}");
    }
}
