//! A whole run: threads, connections, the interval log, and the sum.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use hdrhistogram::CreationError;

use super::consume::{self, Partition, Skip, Verify};
use super::context::{Context, Shared};
use super::e2e::{self, RecordCheck, RecordSource};
use super::options::{Consume, E2e, Options, Produce, Work};
use super::pipeline;
use super::produce::{Stock, StockSource};
use super::report::Report;
use super::schedule::Schedule;
use super::setup::{self, Lane, Plan};
use super::stats::{Interval, Recorder, Totals};
use crate::client::{ClientError, Connection};
use crate::protocol::asking::{FetchLimits, Isolation};
use crate::runtime::executor::{ShardSpec, run_shards};
use crate::runtime::process::{self, StopFlag};
use crate::runtime::{probe, spawn_local};

const IO_MEMORY_BYTES: usize = 1 << 20;
const SECOND: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("the load generator's threads cannot start: {0}")]
    Start(#[from] io::Error),
    #[error("the batches cannot be compressed: {0}")]
    Compress(io::Error),
    #[error("{0}")]
    Client(#[from] ClientError),
    #[error("{wanted} open files are needed and {limit} allowed: raise the limit (`ulimit -n`, LimitNOFILE)")]
    Files { wanted: u64, limit: u64 },
    #[error("histograms cannot be made: {0}")]
    Histogram(#[from] CreationError),
    #[error("{0}")]
    Thread(String),
}

/// Message of a thread.
enum News {
    Interval(u64, Interval),
    Totals(Box<Totals>),
    Failed(String),
}

/// Runs to the end, or to SIGINT or SIGTERM. `each_second` gets the second's number
/// and what happened in it.
pub fn run(options: &Options, mut each_second: impl FnMut(u64, &Interval)) -> Result<Report, RunError> {
    probe::raise_open_files()?;
    let plan = Arc::new(prepare(options)?);
    let stop = StopFlag::default();
    process::stop_in_background(&stop)?;

    let threads = usize::from(options.threads).min(plan.lanes.len());
    let senders = if matches!(options.work, Work::Consume(_)) { 0 } else { plan.lanes.len() };
    let shared = Arc::new(Shared::new(threads, senders, plan.partitions, stop.clone()));
    let (sender, news) = channel();
    let specs = (0..threads as u16).map(|index| spec(options, index)).collect();
    let (all, all_plan, all_shared) = (Arc::new(options.clone()), plan.clone(), shared.clone());
    let running = run_shards(specs, move |spec: ShardSpec| {
        let thread = Thread {
            index: usize::from(spec.index),
            threads,
            options: all.clone(),
            plan: all_plan.clone(),
            shared: all_shared.clone(),
            news: sender.clone(),
        };
        async move { Box::pin(thread.run()).await }
    })?;
    let collected = collect(news, threads, &mut each_second);
    running.join();
    let mut totals = collected?;
    let missing = shared.missing();
    if missing > 0 {
        *totals.errors.entry("records missing".to_owned()).or_default() += missing;
    }
    let interrupted = stop.is_set() && totals.errors.is_empty();
    stop.set();
    Ok(Report::new(options, &plan, totals, interrupted))
}

fn spec(options: &Options, index: u16) -> ShardSpec {
    ShardSpec { index, cpu: options.cpus.get(usize::from(index)).copied(), io_memory_bytes: IO_MEMORY_BYTES }
}

fn prepare(options: &Options) -> Result<Plan, RunError> {
    let (sender, plan) = channel();
    let all = Arc::new(options.clone());
    let running = run_shards(vec![spec(options, 0)], move |_| {
        let (options, sender) = (all.clone(), sender.clone());
        async move {
            let _ = sender.send(Box::pin(setup::prepare(&options)).await);
        }
    })?;
    let plan = plan.recv().map_err(|_| RunError::Thread("the preparing thread has ended".into()))?;
    running.join();
    Ok(plan?)
}

/// Sums up the threads' news until all have ended.
fn collect(
    news: Receiver<News>,
    threads: usize,
    each_second: &mut impl FnMut(u64, &Interval),
) -> Result<Totals, RunError> {
    let mut seconds: BTreeMap<u64, (usize, Interval)> = BTreeMap::new();
    let mut sum = Totals::new()?;
    let mut failed = None;
    // Counted: tasks that outlive their thread's end hold senders too.
    let mut running = threads;
    while running > 0 {
        let item = news.recv().map_err(|_| RunError::Thread("a thread has ended without a result".into()))?;
        running -= usize::from(!matches!(item, News::Interval(..)));
        match item {
            News::Interval(second, interval) => {
                let entry = seconds.entry(second);
                let (count, _) =
                    entry.and_modify(|(n, sum)| (*n, ()) = (*n + 1, sum.add(&interval))).or_insert((1, interval));
                if *count == threads
                    && let Some((_, interval)) = seconds.remove(&second)
                {
                    each_second(second, &interval);
                }
            }
            News::Totals(totals) => sum.add(&totals),
            News::Failed(message) => failed = failed.or(Some(message)),
        }
    }
    // The last second need not be a whole one, nor have something in every thread.
    for (second, (_, interval)) in seconds {
        each_second(second, &interval);
    }
    match failed {
        Some(message) => Err(RunError::Thread(message)),
        None => Ok(sum),
    }
}

struct Thread {
    index: usize,
    threads: usize,
    options: Arc<Options>,
    plan: Arc<Plan>,
    shared: Arc<Shared>,
    news: Sender<News>,
}

/// A connection that is open, with what it is for.
struct Opened {
    number: usize,
    lane: Lane,
    connection: Connection,
    /// `e2e` only.
    consuming: Option<Connection>,
}

impl Thread {
    async fn run(self) {
        let news = self.news.clone();
        let outcome = self.measure().await;
        let _ = match outcome {
            Ok(totals) => news.send(News::Totals(Box::new(totals))),
            Err((error, stop)) => {
                stop.set();
                news.send(News::Failed(error.to_string()))
            }
        };
    }

    async fn measure(self) -> Result<Totals, (RunError, StopFlag)> {
        let stop = self.shared.stop.clone();
        self.try_measure().await.map_err(|error| (error, stop))
    }

    async fn try_measure(self) -> Result<Totals, RunError> {
        let lanes = self.open().await?;
        let recorder = Recorder::new(is_open_loop(&self.options.work))?;
        let tasks = lanes.len() + lanes.iter().filter(|lane| lane.consuming.is_some()).count();
        let context = Context::new(self.shared.clone(), recorder, self.options.tolerate, tasks);
        let start_ns = context.start_together().await;
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let from_ns = start_ns.saturating_add(nanos(self.options.warmup));
        let until_ns = self.options.duration.map_or(u64::MAX, |duration| from_ns.saturating_add(nanos(duration)));
        context.recorder.set_window(from_ns, until_ns);
        for lane in lanes {
            self.start(lane, start_ns, until_ns, &context)?;
        }
        let told = Rc::new(Cell::new(0));
        spawn_local(log_intervals(context.clone(), start_ns, self.news.clone(), told.clone()));
        let mut cpu_at_begin = None;
        context.halt_in_time(|| cpu_at_begin = process::cpu_seconds()).await;
        let cpu = match (self.index, cpu_at_begin, process::cpu_seconds()) {
            (0, Some(begin), Some(end)) => end - begin,
            _ => 0.0,
        };
        context.finish().await;
        let rest = context.recorder.take_interval();
        if !rest.latency.is_empty() {
            let _ = self.news.send(News::Interval(told.get() + 1, rest));
        }
        Ok(context.recorder.totals(cpu))
    }

    async fn open(&self) -> Result<Vec<Opened>, RunError> {
        let mut opened = Vec::new();
        let own = self.plan.lanes.iter().enumerate().filter(|(number, _)| number % self.threads == self.index);
        for (number, lane) in own {
            let connection = Connection::open(lane.address, super::context::CLIENT_ID).await?;
            let consuming = match self.options.work {
                Work::E2e(_) => Some(Connection::open(lane.address, super::context::CLIENT_ID).await?),
                _ => None,
            };
            opened.push(Opened { number, lane: lane.clone(), connection, consuming });
        }
        Ok(opened)
    }

    fn start(&self, opened: Opened, start_ns: u64, until_ns: u64, context: &Rc<Context>) -> Result<(), RunError> {
        match &self.options.work {
            Work::Produce(produce) => self.start_produce(produce, opened, start_ns, until_ns, context),
            Work::E2e(options) => self.start_e2e(options, opened, start_ns, until_ns, context),
            Work::Consume(consume) => self.start_consume(consume, opened, context),
        }
    }

    fn start_produce(
        &self,
        produce: &Produce,
        opened: Opened,
        start_ns: u64,
        until_ns: u64,
        context: &Rc<Context>,
    ) -> Result<(), RunError> {
        let caller = pipeline::produce_caller(&opened.connection)?;
        let stock = Stock::new(produce, opened.number as u64).map_err(RunError::Compress)?;
        let schedule = produce.rate.map(|megabytes| {
            let per_second = megabytes * 1e6 / stock.mean_bytes();
            Schedule::new(start_ns, per_second, opened.number, self.plan.lanes.len())
        });
        let terms = pipeline::Terms {
            acks: produce.acks,
            in_flight: produce.in_flight,
            counts: true,
            open_loop: schedule.is_some(),
        };
        let partitions = &opened.lane.partitions;
        let source = StockSource::new(stock, caller, produce.acks, &self.options.topic, partitions, schedule, until_ns);
        let own = context.clone();
        spawn_local(async move {
            pipeline::run(opened.connection, caller.version, source, terms, own.clone()).await;
            own.task_ended();
        });
        Ok(())
    }

    fn start_e2e(
        &self,
        options: &E2e,
        opened: Opened,
        start_ns: u64,
        until_ns: u64,
        context: &Rc<Context>,
    ) -> Result<(), RunError> {
        let caller = pipeline::produce_caller(&opened.connection)?;
        let schedule = Schedule::new(start_ns, options.rate, opened.number, self.plan.lanes.len());
        let (topic, partitions) = (&self.options.topic, &opened.lane.partitions);
        let shared = self.shared.clone();
        let source = RecordSource::new(shared, caller, options, topic, partitions, schedule, until_ns);
        let terms =
            pipeline::Terms { acks: options.acks, in_flight: options.in_flight, counts: false, open_loop: true };
        if let Some(connection) = opened.consuming {
            let caller = consume::fetch_caller(&connection)?;
            let terms = consume::Terms { limits: e2e::LIMITS, counts: false, ends_at_halt: false };
            let (positions, topic) = (self.positions(&opened.lane), topic.clone());
            let check = RecordCheck::new(context.clone());
            let own = context.clone();
            spawn_local(async move {
                consume::run(connection, caller, topic, positions, check, terms, own.clone()).await;
                own.task_ended();
            });
        }
        let own = context.clone();
        spawn_local(async move {
            pipeline::run(opened.connection, caller.version, source, terms, own.clone()).await;
            own.task_ended();
        });
        Ok(())
    }

    fn start_consume(&self, options: &Consume, opened: Opened, context: &Rc<Context>) -> Result<(), RunError> {
        let caller = consume::fetch_caller(&opened.connection)?;
        let limits = FetchLimits {
            isolation: Isolation::ReadUncommitted,
            max_wait_ms: options.max_wait_ms,
            min_bytes: options.min_bytes,
            max_bytes: options.max_bytes,
            partition_max_bytes: options.partition_max_bytes,
        };
        let terms = consume::Terms { limits, counts: true, ends_at_halt: true };
        let (positions, topic) = (self.positions(&opened.lane), self.options.topic.clone());
        let (verify, own) = (options.verify, context.clone());
        spawn_local(async move {
            if verify {
                let check = Verify(own.clone());
                consume::run(opened.connection, caller, topic, positions, check, terms, own.clone()).await;
            } else {
                consume::run(opened.connection, caller, topic, positions, Skip, terms, own.clone()).await;
            }
            own.task_ended();
        });
        Ok(())
    }

    fn positions(&self, lane: &Lane) -> Vec<Partition> {
        let position = |index: &i32| {
            let offset = self.plan.begin.get(index).copied().unwrap_or(0);
            Partition { index: *index, offset, end: self.plan.end.get(index).copied(), fresh: true }
        };
        lane.partitions.iter().map(position).collect()
    }
}

pub fn is_open_loop(work: &Work) -> bool {
    match work {
        Work::Produce(produce) => produce.rate.is_some(),
        Work::E2e(_) => true,
        Work::Consume(_) => false,
    }
}

/// Ends with the thread.
async fn log_intervals(context: Rc<Context>, start_ns: u64, news: Sender<News>, told: Rc<Cell<u64>>) {
    for second in 1.. {
        let due = start_ns + second * SECOND.as_nanos() as u64;
        while context.now_ns() < due {
            context.sleep_until(due).await;
        }
        if news.send(News::Interval(second, context.recorder.take_interval())).is_err() {
            return;
        }
        told.set(second);
    }
}
