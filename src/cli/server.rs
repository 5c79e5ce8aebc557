//! `corelane server`: from the options to running shards, and back to an orderly end.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::command::ServerArguments;
use super::membership::{Leaving, Membership, start_of};
use super::take_over::{forget_empty, take_over_arenas};
use crate::cluster::data_dirs::{self, DataDirs, HeldDir};
use crate::cluster::metadata_store::LocalStore;
use crate::cluster::{CLEAN_MARK, MetadataImage, Placement};
use crate::config::{Acknowledge, ServerConfig};
use crate::monitor;
use crate::observe;
use crate::runtime::executor::{ShardSpec, ShardThreads, run_shards};
use crate::runtime::memory::HostMemory;
use crate::runtime::probe;
use crate::runtime::process::{self, SignalWatch, StopFlag};
use crate::runtime::{clock, mailbox, net, watchdog};
use crate::server;
use crate::shard::{self, Joining, ShardReady, ShardStart, Throttles};

/// Exit code 0 after an orderly end, 1 with one line on stderr when the broker cannot start.
pub(super) fn main(arguments: ServerArguments) -> ExitCode {
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            let _ = writeln!(io::stderr(), "corelane: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: ServerArguments) -> Result<(), String> {
    let begun = clock::now();
    let (mut config, warnings) =
        ServerConfig::load(arguments.file.as_deref(), &arguments.overrides).map_err(|e| e.to_string())?;
    observe::init_logging(&config.log_level, config.log_format)?;
    tracing::info!("corelane {} starts, as process {}", env!("CARGO_PKG_VERSION"), std::process::id());
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let cpus = pick_cpus(config.shards, process::usable_cpus());
    config.shards = cpus.len() as u16;
    open_host(&mut config, cpus.len() as u16)?;
    if config.max_partitions == 0 {
        config.max_partitions = most_partitions(probe::open_files().unwrap_or(1024));
    }
    let sources = monitor::Sources::of(&config);
    if let Some(bound) = monitor::bind(&config)? {
        monitor::start(bound, sources.clone())?;
    }
    // Before anything is served: a stop is orderly from the first answer on.
    let mut signals = SignalWatch::install().map_err(|e| format!("signals cannot be watched: {e}"))?;
    let membership = if config.in_cluster() { Some(Membership::open(&config)?) } else { None };
    // The directories are locked until `held` goes, after the shards.
    let shared = membership.as_ref().map(|membership| membership.image(&config));
    let DataDirs { held, mut store, mut image, placement, strays, all } = data_dirs::open(&config, shared)?;
    if config.cache_bytes < 0 {
        let slow = held.iter().any(|dir| dir.held.device.is_hard_disk);
        config.cache_bytes = if slow { cache_of_a_hard_disk() } else { 0 };
    }
    let unclean = report_last_stop(&mut config, &held).map_err(|e| e.to_string())?;
    if unclean && membership.is_none() {
        store.raise_leader_epochs(&mut image).map_err(|e| e.to_string())?;
    }

    let mut arenas = take_over_arenas(&mut config, cpus.len() as u16, &image, &placement)?;

    let start = start_of(&config, &held, (&image, &placement), (!unclean, all));
    let config = Arc::new(config);
    // With all that the start has found out since.
    let settings = image.settings.take().map(|settings| Arc::new(config.with_dynamic(settings.dynamic.clone()).0));
    image.settings = settings;
    let membership = membership.map(|membership| membership.begin(&config, &image, start, strays));
    let (joining, leaving) = membership.unzip();
    let (image, placement) = (Arc::new(image), Arc::new(placement));
    let stop = StopFlag::default();
    let (threads, reports, closings) =
        start_shards(&config, &cpus, &store, (&image, &placement), &stop, joining, &sources)?;
    let ready = match await_ready(&reports, cpus.len(), || signals.obey_pending(&stop)) {
        Ok(ready) => ready,
        Err(message) => {
            stop.set();
            threads.join();
            return Err(message);
        }
    };
    sources.metrics.note_recovered();
    announce(&config, &cpus, &held, &image, &ready, begun);
    // Of a cluster, leaderships move away before anything ends.
    let asked = leaving.as_ref().map_or_else(|| stop.clone(), Leaving::asked);
    let waited = signals.wait_for_stop(&asked);
    sources.metrics.note_stopping();
    let refusal = leaving.as_ref().and_then(Leaving::refusal).map(str::to_owned);
    if let Some(leaving) = leaving.as_ref().filter(|_| config.controlled_shutdown_enable && refusal.is_none()) {
        leaving.drain();
    }
    stop.set();
    tracing::info!("stopping");
    let limit = Duration::from_millis(config.shutdown_timeout_ms).saturating_add(ENDING_GRACE);
    let closed = await_closed(&closings, cpus.len(), clock::now() + limit);
    let unwell = closed.concat();
    let told = closed.len() == cpus.len();
    // Where everything is closed the threads end by themselves; behind a disk
    // that hangs they do not.
    let ended = threads.join_within(if told && unwell.is_empty() { limit } else { ENDING_GRACE });
    if told && leaving.as_ref().is_none_or(|leaving| leaving.may_mark_clean()) {
        mark_clean(&held, &unwell);
    }
    arenas.iter_mut().for_each(forget_empty);
    if told && ended && unwell.is_empty() {
        tracing::info!("stopped in good order");
    } else if told {
        tracing::warn!("stopped; not every partition could be closed in good order");
    } else {
        tracing::warn!("stopped; a shard did not end in time: its disk does not answer");
    }
    waited.map_err(|e| format!("signals cannot be waited for: {e}"))?;
    refusal.map_or(Ok(()), Err)
}

/// Memory for more must be asked for.
const MOST_PARTITIONS: u32 = 100_000;

/// `corelane.max.partitions` where it is not given: connections may have half of the descriptors,
/// and older segments an eighth.
fn most_partitions(open_files: u64) -> u32 {
    u32::try_from(open_files / 8 * 3).unwrap_or(u32::MAX).clamp(1, MOST_PARTITIONS)
}

/// Besides `corelane.shutdown.timeout.ms`, the time for connections to end and
/// for threads to be left.
const ENDING_GRACE: Duration = Duration::from_secs(3);

/// Partitions that each shard could not close, of the shards that have ended by `deadline`.
fn await_closed(closings: &Receiver<Vec<PathBuf>>, shards: usize, deadline: Instant) -> Vec<Vec<PathBuf>> {
    let mut closed = Vec::with_capacity(shards);
    while closed.len() < shards {
        match closings.recv_timeout(deadline.saturating_duration_since(clock::now())) {
            Ok(unwell) => closed.push(unwell),
            // Not in time, or a shard has ended without a word.
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
        }
    }
    closed
}

/// The CPU of each shard; `None` leaves it to the kernel. `shards` 0: one for every CPU.
fn pick_cpus(shards: u16, usable: Vec<usize>) -> Vec<Option<usize>> {
    if usable.is_empty() {
        tracing::warn!("the CPUs this process may use are unknown; shards are not pinned");
        return vec![None; usize::from(shards.max(1))];
    }
    let wanted = if shards == 0 { usable.len().min(usize::from(u16::MAX)) } else { usize::from(shards) };
    if wanted > usable.len() {
        tracing::warn!(
            "corelane.shards = {shards}, but this process may use {} CPU(s): shards share them, which is good for tests and costs \
             otherwise; 0 for one shard on each CPU",
            usable.len()
        );
    }
    usable.into_iter().map(Some).cycle().take(wanted).collect()
}

/// Checks the machine's limits. Nothing is written yet.
fn open_host(config: &mut ServerConfig, shards: u16) -> Result<(), String> {
    match probe::raise_open_files() {
        Ok(limit) => leave_descriptors_for_files(config, limit),
        Err(e) => tracing::warn!("the limit of open files stays as it is: {e}"),
    }
    if !config.given.contains_key("corelane.io.memory.bytes") {
        let fitting = probe::fitting_io_memory(shards, config.io_memory_bytes);
        if fitting < config.io_memory_bytes {
            tracing::warn!(
                "corelane.io.memory.bytes lowered to {fitting}: the limit of locked memory (`ulimit -l`, LimitMEMLOCK=) has no \
                 room for {} in each of {shards} shards",
                config.io_memory_bytes
            );
            config.io_memory_bytes = fitting;
        }
    }
    probe::check_io_uring(shards, config.io_memory_bytes).map_err(|e| e.to_string())?;
    for listener in &config.listeners {
        net::check_address_free(listener.address).map_err(|e| format!("listeners: {}: {e}", listener.url()))?;
    }
    Ok(())
}

/// Part of the memory for what consumers that lag have before them, where a hard disk would have to
/// read it. Others read faster than memory that is not in use yet can be had.
const CACHE_PART: u64 = 8;

fn cache_of_a_hard_disk() -> i64 {
    match HostMemory::now() {
        Ok(memory) => i64::try_from(memory.total / CACHE_PART).unwrap_or(i64::MAX),
        Err(error) => {
            tracing::warn!("no memory for consumers that lag: {error}; set corelane.cache.bytes");
            0
        }
    }
}

/// With fewer than this the bound on connections is worth a word.
const FEW_DESCRIPTORS: u64 = 65_536;

/// Half of the descriptors are for segments: a flood of connections must not
/// take a partition offline.
fn leave_descriptors_for_files(config: &mut ServerConfig, limit: u64) {
    let half = u32::try_from(limit / 2).unwrap_or(u32::MAX).max(1);
    config.connection_room = half;
    if config.max_connections <= half {
        return;
    }
    if config.given.contains_key("max.connections") {
        tracing::warn!(
            "max.connections = {} is lowered to {half}: {limit} files may be open (`ulimit -n`, LimitNOFILE=), and half of \
             them are for segments",
            config.max_connections
        );
    } else if limit < FEW_DESCRIPTORS {
        tracing::info!(
            "at most {half} connections: {limit} files may be open (`ulimit -Hn`, LimitNOFILE=), and half of them are for \
             segments"
        );
    }
    config.max_connections = half;
}

/// Says how the last stop was, and takes its mark away; notes the directories that had it. True if
/// one had none and is not new. A mark that came back after a power cut would hide that records are
/// lost, so it is gone from the device when this returns.
fn report_last_stop(config: &mut ServerConfig, held: &[HeldDir]) -> io::Result<bool> {
    let mut unclean = false;
    for dir in held {
        let mark = dir.path.join(CLEAN_MARK);
        let shown = dir.path.display();
        let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", mark.display()));
        match fs::remove_file(&mark) {
            Ok(()) => {
                fs::File::open(&dir.path).and_then(|dir| dir.sync_all()).map_err(named)?;
                tracing::info!("{shown}: the last stop was clean");
                config.clean_dirs.extend([dir.path.clone(), dir.held.path.clone()]);
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound && dir.fresh => {
                tracing::info!("{shown}: a new data directory")
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                tracing::info!("{shown}: the last stop was not orderly; checking what was not synced");
                unclean = true;
            }
            Err(e) => return Err(named(e)),
        }
    }
    Ok(unclean)
}

/// Marks each directory all of whose partitions were closed in good order; `unwell` are the
/// partitions that were not.
fn mark_clean(held: &[HeldDir], unwell: &[PathBuf]) {
    let clean = held.iter().filter(|dir| unwell.iter().all(|partition| partition.parent() != Some(&dir.path)));
    for dir in clean {
        let mark = dir.path.join(CLEAN_MARK);
        if let Err(error) = fs::write(&mark, "{\"version\":0}\n") {
            tracing::warn!("{}: {error}; the next start checks what it would have told to be clean", mark.display());
        }
    }
}

type Reports = Receiver<Result<ShardReady, String>>;

fn start_shards(
    config: &Arc<ServerConfig>,
    cpus: &[Option<usize>],
    store: &LocalStore,
    (image, placement): (&Arc<MetadataImage>, &Arc<Placement>),
    stop: &StopFlag,
    mut joining: Option<Joining>,
    sources: &monitor::Sources,
) -> Result<(ShardThreads, Reports, Receiver<Vec<PathBuf>>), String> {
    let shards = cpus.len() as u16;
    let hearts = watchdog::start(shards).map_err(|e| format!("the watchdog cannot be started: {e}"))?;
    let seats = mailbox::mesh(shards, config.mailbox_capacity);
    let seats = seats.map_err(|e| {
        format!("the shards' mailboxes cannot be made: {e}; raise the limit of open files (`ulimit -n`)")
    })?;
    let mailboxes = seats.iter().map(|seat| Box::new(seat.waiting()) as Box<dyn Fn() -> usize + Send + Sync>).collect();
    let stalls = hearts.first().map(watchdog::Heart::counter);
    // Set once: there is one start.
    let _ = sources.late.set(monitor::Late { cluster_id: image.cluster_id.clone(), mailboxes, stalls });
    let (sender, reports) = channel();
    let (closed, closings) = channel();
    let throttles = Arc::new(Throttles::default());
    let starts: HashMap<u16, ShardStart> = (0..shards)
        .zip(seats.into_iter().zip(hearts))
        .map(|(index, (seat, heart))| {
            let (config, store, image, stop) = (config.clone(), store.clone(), image.clone(), stop.clone());
            let (ready, closed, placement) = (sender.clone(), closed.clone(), placement.clone());
            // Of the first, which is the controller's.
            let joining = joining.take();
            let metrics = sources.metrics.shards[usize::from(index)].clone();
            let desk = sources.desks[usize::from(index)].clone();
            let start = ShardStart {
                index,
                shards,
                config,
                seat,
                heart,
                store,
                image,
                placement,
                stop,
                throttles: throttles.clone(),
                joining,
                metrics,
                desk,
                ready,
                closed,
            };
            (index, start)
        })
        .collect();
    // From here on only shards hold senders: when the last one is gone without a
    // word, the wait for them ends.
    drop(sender);
    let spec =
        |(index, cpu): (u16, &Option<usize>)| ShardSpec { index, cpu: *cpu, io_memory_bytes: config.io_memory_bytes };
    let specs = (0..).zip(cpus).map(spec).collect();
    // Each thread takes what belongs to it, once, before it serves anything.
    let starts = Arc::new(Mutex::new(starts));
    let shared = (server::admission(config), server::Loads::new(shards), server::QuotaBoard::new(config));
    let threads = run_shards(specs, move |spec: ShardSpec| {
        let start = starts.lock().ok().and_then(|mut starts| starts.remove(&spec.index));
        let shared = shared.clone();
        async move {
            if let Some(start) = start {
                shard::run(start, |shard, listener| server::serve(shard, listener, shared)).await;
            }
        }
    });
    Ok((threads.map_err(|e| e.to_string())?, reports, closings))
}

/// Waits for the recovery of every shard, or the first failure.
fn await_ready(reports: &Reports, shards: usize, mut meanwhile: impl FnMut()) -> Result<Vec<ShardReady>, String> {
    let mut ready = Vec::with_capacity(shards);
    while ready.len() < shards {
        match reports.recv_timeout(StopFlag::POLL) {
            Ok(report) => ready.push(report?),
            Err(RecvTimeoutError::Timeout) => meanwhile(),
            Err(RecvTimeoutError::Disconnected) => {
                return Err("a shard ended before it was ready; its last words are above".into());
            }
        }
    }
    Ok(ready)
}

fn announce(
    config: &ServerConfig,
    cpus: &[Option<usize>],
    dirs: &[HeldDir],
    image: &MetadataImage,
    ready: &[ShardReady],
    begun: Instant,
) {
    let pinned: Vec<_> = cpus.iter().map(|cpu| cpu.map_or("any".to_owned(), |cpu| cpu.to_string())).collect();
    tracing::info!(
        "corelane {}: broker {} of cluster {}",
        env!("CARGO_PKG_VERSION"),
        config.broker_id,
        image.cluster_id
    );
    tracing::info!("{} shard(s) on CPU(s) {}", cpus.len(), pinned.join(", "));
    for dir in dirs {
        tracing::info!("data in {} on {}", dir.held.path.display(), dir.held.device.description);
    }
    tracing::info!("{}", acknowledged_survives(config));
    let partitions: usize = ready.iter().map(|shard| shard.partitions).sum();
    let scanned: u64 = ready.iter().map(|shard| shard.scanned_bytes).sum();
    tracing::info!("{} topic(s), {partitions} partition(s) recovered, {scanned} bytes scanned", image.topics().count());
    let took = clock::now().saturating_duration_since(begun).as_millis();
    for listener in &config.listeners {
        let advertised = listener.advertised_url();
        tracing::info!(
            "listening on {}, {}, {took} ms after start",
            listener.url(),
            advertised.map_or("not advertised".to_owned(), |url| format!("advertised as {url}"))
        );
    }
}

/// The promise of `corelane.acknowledge`, in a line.
fn acknowledged_survives(config: &ServerConfig) -> String {
    let lost = match config.acknowledge {
        Acknowledge::Written => "half a second".to_owned(),
        Acknowledge::Held => format!("{} ms and a second", config.write_behind_max_ms),
    };
    format!(
        "acknowledged batches survive a kill; a crash of the kernel or a power cut loses the last {lost} at most, nothing with \
         flush.messages=1"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_get_one_cpu_each_and_share_them_when_there_are_more() {
        assert_eq!(pick_cpus(0, vec![2, 5]), [Some(2), Some(5)]);
        assert_eq!(pick_cpus(1, vec![2, 5]), [Some(2)]);
        assert_eq!(pick_cpus(3, vec![2, 5]), [Some(2), Some(5), Some(2)]);
        assert_eq!(pick_cpus(0, vec![]), [None]);
        assert_eq!(pick_cpus(2, vec![]), [None, None]);
    }

    #[test]
    fn the_wait_ends_with_all_reports_the_first_failure_or_silence() {
        let (sender, reports) = channel();
        for index in 0..2 {
            sender.send(Ok(ShardReady { index, partitions: 3, scanned_bytes: 0 })).unwrap();
        }
        assert_eq!(await_ready(&reports, 2, || {}).unwrap().len(), 2);
        sender.send(Err("shard 1: no disk".into())).unwrap();
        assert_eq!(await_ready(&reports, 2, || {}).unwrap_err(), "shard 1: no disk");
        drop(sender);
        assert!(await_ready(&reports, 2, || {}).unwrap_err().contains("ended before"));
    }

    #[test]
    fn the_wait_for_the_end_has_a_limit() {
        let (sender, closings) = channel();
        sender.send(Vec::new()).unwrap();
        assert_eq!(await_closed(&closings, 2, clock::now()).len(), 1, "the other one says nothing");
        sender.send(Vec::new()).unwrap();
        sender.send(vec![PathBuf::from("t-0")]).unwrap();
        assert_eq!(await_closed(&closings, 2, clock::now()).concat(), [PathBuf::from("t-0")]);
        drop(sender);
        assert!(await_closed(&closings, 1, clock::now() + Duration::from_secs(3600)).is_empty());
    }
}
