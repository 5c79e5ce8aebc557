//! Shard threads: one glommio executor pinned to one CPU each.

use std::time::{Duration, Instant};

/// A task on the current shard. Dropping the handle lets it run on.
pub fn spawn_local<F>(future: F)
where
    F: Future<Output = ()> + 'static,
{
    glommio::spawn_local(future).detach();
}

/// Runs a blocking step (open, rename, small synced writes) on the shard's helper thread, off the event loop.
pub async fn spawn_blocking<F, R>(work: F) -> R
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    glommio::executor().spawn_blocking(work).await
}

/// How to run one shard's thread.
#[derive(Clone, Debug)]
pub struct ShardSpec {
    /// 0-based, dense; also the thread's name `shard-N`.
    pub index: u16,
    /// The CPU to pin to; `None`: leave it to the kernel.
    pub cpu: Option<usize>,
    /// Bytes registered with the ring for direct I/O buffers.
    pub io_memory_bytes: usize,
}

/// Starts one thread per spec; each runs `body(spec)` on its executor until that future ends.
/// Returns once every executor runs; the error names the shard and what to do.
pub fn run_shards<B, F>(specs: Vec<ShardSpec>, body: B) -> std::io::Result<ShardThreads>
where
    B: Fn(ShardSpec) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + 'static,
{
    let _ = (specs, body);
    todo!()
}

/// The running shard threads.
pub struct ShardThreads {
    pub(crate) _private: (),
}

impl ShardThreads {
    /// Waits until every shard's body has ended.
    pub fn join(self) {
        todo!()
    }
}

/// Gives the reactor its turn in loops that can stay runnable: once 100 µs have passed since the last pass,
/// [`Breather::pass`] waits for one (a 500 ns timer: glommio polls its rings only when it has no runnable task or parks).
pub struct Breather {
    last: Instant,
}

impl Default for Breather {
    fn default() -> Self {
        Breather { last: Instant::now() }
    }
}

impl Breather {
    const INTERVAL: Duration = Duration::from_micros(100);

    /// Call once per turn of the loop.
    pub async fn pass(&mut self) {
        if self.last.elapsed() >= Self::INTERVAL {
            glommio::timer::sleep(Duration::from_nanos(500)).await;
            self.last = Instant::now();
        }
    }
}
