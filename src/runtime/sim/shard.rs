//! Simulated shards: tasks of all of them on one thread, in an order by seed,
//! in a time of their own.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use super::disk::{Disk, State};
use super::random::Random;
use crate::runtime::clock::{self, Moment};
use crate::runtime::context::{self, ShardContext};
use crate::runtime::sync::oneshot;

/// Wall time at which simulations begin, ms since 1970.
const BEGIN_MS: u64 = 1_700_000_000_000;

/// A file operation or a blocking step takes up to so long.
const LATENCY_US: u64 = 300;

/// No simulation needs more of its own time: it waits for what never comes.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Shards on one thread, with one clock.
pub struct Simulation(Rc<World>);

/// One shard of a process; the process is its [`Disk`]'s.
#[derive(Clone)]
pub struct Shard(Rc<ShardContext>);

/// Why a simulation did not come to the end of what it was to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// Its process was killed, or the power cut.
    Down,
    /// Nothing can happen any more, or not within a day.
    Stalled,
}

/// A simulated shard's part of its context.
pub(in crate::runtime) struct Home {
    world: Weak<World>,
    disk: Disk,
}

struct World {
    begun: Instant,
    elapsed: Cell<Duration>,
    random: RefCell<Random>,
    shards: RefCell<Vec<Rc<ShardContext>>>,
    tasks: RefCell<BTreeMap<u64, Task>>,
    next_task: Cell<u64>,
    ready: Ready,
}

type Ready = Arc<Mutex<Vec<u64>>>;

struct Task {
    shard: Rc<ShardContext>,
    future: Pin<Box<dyn Future<Output = ()>>>,
    signal: Arc<Signal>,
}

/// Marks a task as ready, once until it runs.
struct Signal {
    task: u64,
    ready: Ready,
    marked: AtomicBool,
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        if !self.marked.swap(true, Ordering::Relaxed) {
            self.ready.lock().unwrap_or_else(PoisonError::into_inner).push(self.task);
        }
    }
}

impl Simulation {
    /// `seed` decides the order of tasks and the time that operations take.
    pub fn new(seed: u64) -> Simulation {
        Simulation(Rc::new(World {
            begun: Instant::now(),
            elapsed: Cell::default(),
            random: RefCell::new(Random::new(seed)),
            shards: RefCell::default(),
            tasks: RefCell::default(),
            next_task: Cell::new(0),
            ready: Arc::default(),
        }))
    }

    /// A shard of the process that has `disk`.
    pub fn shard(&self, disk: &Disk) -> Shard {
        let home = Home { world: Rc::downgrade(&self.0), disk: disk.clone() };
        let context = Rc::new(ShardContext { simulated: Some(home), ..ShardContext::default() });
        self.0.shards.borrow_mut().push(context.clone());
        Shard(context)
    }

    /// Time since the simulation began.
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed.get()
    }

    /// Has a shard run `work` beside whatever else there is.
    pub fn spawn(&self, shard: &Shard, work: impl Future<Output = ()> + 'static) {
        self.0.spawn(shard.0.clone(), work);
    }

    /// Runs all shards until `work`, on `shard`, has ended.
    pub fn run<T: 'static>(&self, shard: &Shard, work: impl Future<Output = T> + 'static) -> Result<T, Stopped> {
        let outcome = Rc::new(RefCell::new(None));
        let result = outcome.clone();
        self.spawn(shard, async move {
            let value = work.await;
            result.replace(Some(value));
        });
        loop {
            if shard.home().is_none_or(|home| home.disk.is_down()) {
                return Err(Stopped::Down);
            }
            if let Some(value) = outcome.take() {
                return Ok(value);
            }
            if !self.0.run_one() && !self.0.pass_time() {
                return Err(Stopped::Stalled);
            }
        }
    }
}

impl Drop for Simulation {
    fn drop(&mut self) {
        // Tasks that go may spawn others, which never run.
        loop {
            let tasks = self.0.tasks.take();
            if tasks.is_empty() {
                break;
            }
            tasks.into_values().for_each(Task::end);
        }
    }
}

impl Shard {
    fn home(&self) -> Option<&Home> {
        self.0.simulated.as_ref()
    }
}

impl Task {
    /// Drops the task on its shard.
    fn end(self) {
        let _entered = context::enter(self.shard);
        drop(self.future);
    }
}

impl World {
    fn spawn(&self, shard: Rc<ShardContext>, work: impl Future<Output = ()> + 'static) {
        let task = self.next_task.replace(self.next_task.get() + 1);
        let signal = Arc::new(Signal { task, ready: self.ready.clone(), marked: AtomicBool::new(false) });
        signal.clone().wake();
        self.tasks.borrow_mut().insert(task, Task { shard, future: Box::pin(work), signal });
    }

    /// Runs one of the tasks that are ready; `false`: none is.
    fn run_one(&self) -> bool {
        let chosen = {
            let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
            if ready.is_empty() {
                return false;
            }
            let index = self.random.borrow_mut().index(ready.len());
            ready.swap_remove(index)
        };
        let task = self.tasks.borrow_mut().remove(&chosen);
        let Some(mut task) = task else { return true };
        if task.shard.simulated.as_ref().is_none_or(|home| home.disk.is_down()) {
            task.end();
            return true;
        }
        task.signal.marked.store(false, Ordering::Relaxed);
        let waker = Waker::from(task.signal.clone());
        let entered = context::enter(task.shard.clone());
        let ended = task.future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
        drop(entered);
        if ended {
            task.end();
        } else {
            self.tasks.borrow_mut().insert(chosen, task);
        }
        true
    }

    /// Lets time pass up to the next timer; `false`: there is none.
    fn pass_time(&self) -> bool {
        let shards = self.shards.borrow().clone();
        let next = shards.iter().filter_map(|shard| shard.turn.next_timer()).min();
        let Some(next) = next else { return false };
        let elapsed = next.elapsed().max(self.elapsed.get());
        self.elapsed.set(elapsed);
        for shard in shards {
            shard.turn.fire(Moment::simulated(elapsed));
        }
        elapsed < LONGEST
    }
}

fn home<T>(use_it: impl FnOnce(&Home, &Rc<World>) -> T) -> Option<T> {
    let use_it = |shard: &ShardContext| {
        let home = shard.simulated.as_ref()?;
        Some(use_it(home, &home.world.upgrade()?))
    };
    context::peek(use_it).flatten()
}

/// Uses the disk of the current shard; `None`: it is not a simulated one.
pub(super) fn with_disk<T>(use_it: impl FnOnce(&mut State) -> T) -> Option<T> {
    context::peek(|shard| shard.simulated.as_ref().map(|home| use_it(&mut home.disk.0.borrow_mut()))).flatten()
}

/// An operation of an open file, on the disk of the current shard.
pub(super) fn on_disk<T>(operation: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
    with_disk(operation).unwrap_or_else(|| Err(io::Error::other("a file of a simulated disk, without its shard")))
}

/// True if the current shard is a simulated one.
pub(in crate::runtime) fn is_current() -> bool {
    context::peek(|shard| shard.simulated.is_some()).unwrap_or(false)
}

/// Begin of the simulation, and the time since.
pub(in crate::runtime) fn time() -> Option<(Instant, Duration)> {
    home(|_, world| (world.begun, world.elapsed.get()))
}

/// Wall time, ms since 1970.
pub(in crate::runtime) fn wall_ms() -> Option<u64> {
    time().map(|(_, elapsed)| BEGIN_MS + u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX / 2))
}

/// Begins a task on the current shard.
pub(in crate::runtime) fn spawn(work: impl Future<Output = ()> + 'static) {
    let shard = context::current();
    home(|_, world| world.spawn(shard, work));
}

/// Does `work` a little later, to its end, whether anybody waits for it or not.
pub(in crate::runtime) async fn later<T: 'static>(extra: Duration, work: impl FnOnce() -> T + 'static) -> T {
    let (sender, receiver) = oneshot();
    let latency = home(|_, world| world.random.borrow_mut().below(LATENCY_US)).unwrap_or(0);
    spawn(async move {
        clock::sleep(Duration::from_micros(latency) + extra).await;
        sender.send(work());
    });
    match receiver.recv().await {
        Some(value) => value,
        // The process has ended, and so have its waiters.
        None => poll_fn(|_| Poll::Pending).await,
    }
}
