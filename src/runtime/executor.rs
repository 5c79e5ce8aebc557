//! Shard threads: one glommio executor pinned to one CPU each.

use std::io;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use glommio::{LocalExecutor, LocalExecutorBuilder, Placement, PoolPlacement};

use super::clock;
use super::context;
use super::ring;
#[cfg(any(test, feature = "simulator"))]
use super::sim;
use super::turn::{self, Bridge, Counted, Foreign};

/// Submission queue entries per ring.
const RING_DEPTH: usize = 256;

/// glommio's preemption timer can park an executor that has runnable tasks; this one never fires.
const PREEMPT_NEVER: Duration = Duration::from_secs(3600);

/// Helper threads of a shard for blocking steps: one slow step (a large file's removal)
/// must not hold up the next.
const BLOCKING_THREADS: usize = 4;

/// Time between two looks whether blocking steps have ended.
const STEPS_PAUSE: Duration = Duration::from_millis(1);

/// Time between two looks whether the shards have ended.
const JOIN_PAUSE: Duration = Duration::from_millis(5);

/// A task on the current shard. Dropping the handle lets it run on.
pub fn spawn_local<F>(future: F)
where
    F: Future<Output = ()> + 'static,
{
    #[cfg(any(test, feature = "simulator"))]
    if sim::is_current() {
        return sim::spawn(future);
    }
    glommio::spawn_local(Counted(future)).detach();
}

/// A task whose end can be waited for; dropping the handle ends it.
#[cfg(test)]
pub(crate) fn spawn_joined<T: 'static>(future: impl Future<Output = T> + 'static) -> glommio::Task<T> {
    glommio::spawn_local(Counted(future))
}

/// Runs a blocking step (open, rename, small synced writes) on one of the shard's helper
/// threads, off the event loop.
///
/// A few threads per shard do these one after the other. A step that was begun runs to its end,
/// also when the future is dropped, and the shard does not end before.
pub async fn spawn_blocking<F, R>(work: F) -> R
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    #[cfg(any(test, feature = "simulator"))]
    if sim::is_current() {
        return sim::later(Duration::ZERO, work).await;
    }
    let Some(step) = Step::begin() else { return std::future::pending().await };
    let work = glommio::spawn_local(Counted(async move {
        let _step = step;
        let _foreign = Foreign::begin();
        glommio::executor().spawn_blocking(work).await
    }));
    match work.detach().await {
        Some(result) => result,
        // The executor has ended, and so have its waiters.
        None => std::future::pending().await,
    }
}

/// A blocking step of this shard that has not ended.
struct Step;

impl Step {
    /// `None`: the shard is at its end.
    fn begin() -> Option<Step> {
        context::with(|shard| {
            if shard.steps_over.get() {
                return None;
            }
            shard.steps.set(shard.steps.get() + 1);
            Some(Step)
        })
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        context::peek(|shard| shard.steps.set(shard.steps.get().saturating_sub(1)));
    }
}

/// Waits for all blocking steps: glommio's helper threads panic when they have a result for an
/// executor that is gone. Tasks that run between this and the executor's end begin no others.
async fn end_of_steps() {
    while context::with(|shard| shard.steps.get()) > 0 {
        clock::sleep(STEPS_PAUSE).await;
    }
    context::with(|shard| shard.steps_over.set(true));
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
/// Returns once every executor runs; the error names the shard and what to do. When one executor
/// cannot start, no body runs at all.
pub fn run_shards<B, F>(specs: Vec<ShardSpec>, body: B) -> io::Result<ShardThreads>
where
    B: Fn(ShardSpec) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + 'static,
{
    let mut starting = Vec::with_capacity(specs.len());
    let mut failure = None;
    for spec in specs {
        let (ready_sender, ready) = mpsc::channel::<io::Result<()>>();
        let (go, gate) = mpsc::channel::<()>();
        let body = body.clone();
        let thread_spec = spec.clone();
        let spawned = std::thread::Builder::new().name(format!("shard-{}", spec.index)).spawn(move || {
            let (executor, bridge) = match make_executor(&thread_spec) {
                Ok(made) => made,
                Err(error) => {
                    let _ = ready_sender.send(Err(error));
                    return;
                }
            };
            let _ = ready_sender.send(Ok(()));
            // A closed gate means that another shard could not start.
            if gate.recv().is_ok() {
                run_body(executor, bridge, async move { body(thread_spec).await });
            } else {
                executor.run(async move { drop(bridge) });
                ring::end();
            }
        });
        match spawned {
            Ok(thread) => starting.push((spec, thread, ready, go)),
            Err(error) => {
                failure = Some(start_error(&spec, &error, "raise the limit of threads (`ulimit -u`)"));
                break;
            }
        }
    }
    for (spec, _, ready, _) in &starting {
        let outcome = ready.recv().unwrap_or_else(|_| Err(io::Error::other("the thread ended while it started")));
        if let (Err(error), None) = (outcome, &failure) {
            failure = Some(start_error(spec, &error, mend_for(spec, &error)));
        }
    }
    let mut threads = Vec::with_capacity(starting.len());
    for (_, thread, _, go) in starting {
        if failure.is_none() {
            let _ = go.send(());
        }
        drop(go);
        threads.push(thread);
    }
    match failure {
        None => Ok(ShardThreads { threads }),
        Some(error) => {
            ShardThreads { threads }.join();
            Err(error)
        }
    }
}

/// Runs `body()` on an executor of this thread's own until it ends; for a thread beside the
/// shards that asks brokers.
pub fn run_here<F>(io_memory_bytes: usize, body: impl FnOnce() -> F + 'static) -> io::Result<()>
where
    F: Future<Output = ()> + 'static,
{
    let spec = ShardSpec { index: 0, cpu: None, io_memory_bytes };
    let (executor, bridge) = make_executor(&spec)?;
    run_body(executor, bridge, async move { body().await });
    Ok(())
}

fn run_body(executor: LocalExecutor, bridge: Bridge, body: impl Future<Output = ()> + 'static) {
    executor.run(async move {
        turn::start(bridge);
        Counted(async move {
            body.await;
            end_of_steps().await;
        })
        .await;
        run_end_hooks();
        turn::stop();
    });
    ring::end();
}

fn make_executor(spec: &ShardSpec) -> io::Result<(LocalExecutor, Bridge)> {
    let placement = spec.cpu.map_or(Placement::Unbound, Placement::Fixed);
    let executor = LocalExecutorBuilder::new(placement)
        .io_memory(spec.io_memory_bytes)
        .ring_depth(RING_DEPTH)
        .preempt_timer(PREEMPT_NEVER)
        .blocking_thread_pool_placement(PoolPlacement::Unbound(BLOCKING_THREADS))
        .make()
        .map_err(io::Error::from)?;
    ring::start()?;
    let bridge = executor.run(async { Bridge::new() })?;
    Ok((executor, bridge))
}

fn start_error(spec: &ShardSpec, cause: &io::Error, mend: &str) -> io::Error {
    let cpu = spec.cpu.map_or_else(|| "any CPU".to_owned(), |cpu| format!("CPU {cpu}"));
    let text = format!(
        "shard {} ({cpu}, {} MiB of I/O memory) cannot start: {cause}; {mend}",
        spec.index,
        spec.io_memory_bytes >> 20
    );
    io::Error::new(cause.kind(), text)
}

fn mend_for(spec: &ShardSpec, cause: &io::Error) -> &'static str {
    let text = cause.to_string();
    if text.contains("MemLock") || cause.kind() == io::ErrorKind::OutOfMemory {
        "raise the limit of locked memory (`ulimit -l`, LimitMEMLOCK=infinity) or lower the I/O memory per shard"
    } else if cause.kind() == io::ErrorKind::PermissionDenied {
        "allow io_uring (sysctl kernel.io_uring_disabled=0, or the container's seccomp profile)"
    } else if spec.cpu.is_some() && (cause.kind() == io::ErrorKind::InvalidInput || text.contains("CPU")) {
        "give it a CPU that exists and that this process may use (`taskset -p`)"
    } else {
        "run fewer shards, or see what the kernel says (`dmesg`)"
    }
}

/// The running shard threads.
pub struct ShardThreads {
    threads: Vec<JoinHandle<()>>,
}

impl ShardThreads {
    /// [`join`](Self::join) for at most `limit`; `false`: some threads run on,
    /// and end with the process.
    pub fn join_within(self, limit: Duration) -> bool {
        let deadline = clock::now() + limit;
        while self.threads.iter().any(|thread| !thread.is_finished()) {
            if clock::now() >= deadline {
                return false;
            }
            std::thread::sleep(JOIN_PAUSE);
        }
        self.join();
        true
    }

    /// Waits until every shard's body has ended.
    pub fn join(self) {
        for thread in self.threads {
            let name = thread.thread().name().unwrap_or("shard").to_owned();
            if thread.join().is_err() {
                tracing::error!("{name} ended by a panic");
            }
        }
    }
}

/// Runs `hook` on this shard after its body has ended, while its executor still exists.
pub(super) fn at_shard_end(hook: impl FnOnce() + 'static) {
    context::with(|shard| shard.end_hooks.borrow_mut().push(Box::new(hook)));
}

fn run_end_hooks() {
    for hook in context::with(|shard| shard.end_hooks.take()) {
        hook();
    }
}

/// Gives others their turn in loops that can stay runnable: once 100 µs have passed since the shard
/// last asked the kernel for news, [`Yielder::pass`] lets it ask.
///
/// The time is counted per shard, not per loop: a loop that has just been woken
/// by news goes on at once.
#[derive(Clone, Copy, Debug, Default)]
pub struct Yielder;

impl Yielder {
    /// Call once per turn of the loop. Only on a shard.
    pub async fn pass(&mut self) {
        turn::yield_when_due().await;
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::runtime::clock;
    use std::cell::Cell;
    use std::rc::Rc;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn a_shard_ends_after_the_blocking_steps_that_it_began() {
        let done = Arc::new(AtomicUsize::new(0));
        let steps = done.clone();
        on_shard(move || {
            let steps = steps.clone();
            async move {
                let step = || {
                    let steps = steps.clone();
                    spawn_blocking(move || {
                        std::thread::sleep(Duration::from_millis(50));
                        steps.fetch_add(1, Ordering::SeqCst);
                    })
                };
                // One that nobody waits for any more, one of a task that goes on.
                let mut dropped = Box::pin(step());
                assert!(futures_lite::future::poll_once(&mut dropped).await.is_none());
                drop(dropped);
                spawn_local(step());
                clock::sleep(Duration::from_millis(1)).await;
            }
        });
        assert_eq!(done.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn no_blocking_step_begins_between_the_last_one_and_the_end_of_the_shard() {
        let begun = Arc::new(AtomicUsize::new(0));
        let steps = begun.clone();
        on_shard(move || {
            let steps = steps.clone();
            async move {
                let ended = Rc::new(Cell::new(false));
                let seen = ended.clone();
                spawn_local(async move {
                    while !seen.get() {
                        futures_lite::future::yield_now().await;
                    }
                    spawn_blocking(move || steps.fetch_add(1, Ordering::SeqCst)).await;
                });
                futures_lite::future::yield_now().await;
                ended.set(true);
            }
        });
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(begun.load(Ordering::SeqCst), 0, "a step ends without an executor for its result");
    }

    pub(in crate::runtime) fn specs(count: u16) -> Vec<ShardSpec> {
        (0..count).map(|index| ShardSpec { index, cpu: None, io_memory_bytes: 1 << 20 }).collect()
    }

    /// Runs one shard to its end; a failed assertion in `body` fails the test.
    pub(crate) fn on_shard<B, F>(body: B)
    where
        B: Fn() -> F + Clone + Send + 'static,
        F: Future<Output = ()> + 'static,
    {
        on_shards(1, move |_| body());
    }

    /// Bound on waits in tests: generous, so that it is never a verdict about the machine.
    pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

    /// Waits on a shard until `condition` holds.
    pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
        let begun = clock::now();
        while !condition() {
            assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
            clock::sleep(Duration::from_millis(1)).await;
        }
    }

    pub(crate) fn on_shards<B, F>(count: u16, body: B)
    where
        B: Fn(ShardSpec) -> F + Clone + Send + 'static,
        F: Future<Output = ()> + 'static,
    {
        let done = Arc::new(AtomicUsize::new(0));
        let counted = done.clone();
        let threads = run_shards(specs(count), move |spec| {
            let (body, counted) = (body.clone(), counted.clone());
            async move {
                body(spec).await;
                counted.fetch_add(1, Ordering::SeqCst);
            }
        })
        .unwrap();
        threads.join();
        assert_eq!(done.load(Ordering::SeqCst), usize::from(count), "a shard did not reach its end");
    }

    #[test]
    fn a_shard_is_named_and_pinned() {
        let cpu = crate::runtime::process::usable_cpus()[0];
        let spec = ShardSpec { index: 3, cpu: Some(cpu), io_memory_bytes: 1 << 20 };
        let (sender, receiver) = mpsc::channel();
        let threads = run_shards(vec![spec], move |_| {
            let sender = sender.clone();
            async move {
                let name = std::thread::current().name().map(str::to_owned);
                let _ = sender.send((name, crate::runtime::process::usable_cpus()));
            }
        })
        .unwrap();
        threads.join();
        assert_eq!(receiver.recv().unwrap(), (Some("shard-3".to_owned()), vec![cpu]));
    }

    #[test]
    fn one_executor_that_cannot_start_ends_all_and_is_named() {
        let mut specs = specs(2);
        specs[1].cpu = Some(100_000);
        let ran = Arc::new(AtomicUsize::new(0));
        let counted = ran.clone();
        let error = run_shards(specs, move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            std::future::ready(())
        })
        .err()
        .unwrap();
        assert!(error.to_string().contains("shard 1 (CPU 100000"), "{error}");
        assert!(error.to_string().contains("a CPU that exists"), "{error}");
        assert_eq!(ran.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn a_busy_loop_with_a_yielder_lets_the_reactor_run() {
        on_shard(|| async {
            let ticks = Rc::new(Cell::new(0u32));
            let counted = ticks.clone();
            spawn_local(async move {
                loop {
                    clock::sleep(Duration::from_millis(1)).await;
                    counted.set(counted.get() + 1);
                }
            });
            let start = clock::now();
            let mut yielder = Yielder;
            while ticks.get() < 50 {
                assert!(start.elapsed() < PATIENCE, "only {} ticks of 1 ms in {PATIENCE:?}", ticks.get());
                std::hint::black_box((0..500).sum::<u64>());
                yielder.pass().await;
            }
            println!("50 ticks of 1 ms in {:?}", start.elapsed());
        });
    }
}
