//! A bell for one task of a shard, rung by other threads.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;

use super::doorbell::Doorbell;
use super::turn;

/// Rings that come before the task has looked are one.
#[derive(Clone)]
pub struct Bell(Arc<Doorbell>);

impl Bell {
    pub fn new() -> io::Result<Bell> {
        Doorbell::new().map(|bell| Bell(Arc::new(bell)))
    }

    /// From any thread, after what the bell is about is in its place.
    pub fn ring(&self) {
        self.0.ring();
    }

    /// Once, on the shard of the task: from now on the bell ends the shard's sleep.
    pub fn hang(&self) -> io::Result<()> {
        turn::listen(self.0.clone())
    }

    /// Waits for the next ring. One task waits at a time, and looks at everything afterwards.
    pub async fn rung(&self) {
        poll_fn(|cx| self.0.poll_rung(cx)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::runtime::{clock, on_shard};

    #[test]
    fn a_ring_from_another_thread_wakes_the_task() {
        let bell = Bell::new().unwrap();
        let (ringer, heard) = (bell.clone(), Arc::new(AtomicBool::new(false)));
        let until = heard.clone();
        // Rings that come before anybody listens are one.
        let rings = std::thread::spawn(move || {
            while !until.load(Ordering::Acquire) {
                std::thread::sleep(Duration::from_millis(20));
                ringer.ring();
            }
        });
        on_shard(move || ring_and_wait(bell.clone()));
        heard.store(true, Ordering::Release);
        rings.join().unwrap();
    }

    async fn ring_and_wait(bell: Bell) {
        bell.hang().unwrap();
        bell.rung().await;
        bell.ring();
        bell.rung().await;
        let silence = clock::until(clock::now() + Duration::from_secs(60), bell.rung()).await;
        assert_eq!(silence, Some(()));
    }
}
