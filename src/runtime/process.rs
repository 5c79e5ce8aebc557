//! Signals, CPUs, memory: facts about this process.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Set once by SIGTERM or SIGINT; shards look at it every [`StopFlag::POLL`].
#[derive(Clone, Debug, Default)]
pub struct StopFlag(Arc<AtomicBool>);

impl StopFlag {
    /// How long a stop may go unnoticed.
    pub const POLL: Duration = Duration::from_millis(100);

    pub fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// The status of a process that ended at once, by a second signal.
const ENDED_BY_SIGNAL: i32 = 130;

/// Blocks the calling (main) thread until SIGTERM or SIGINT, or until `flag` is set by a shard; sets the flag.
/// A further signal ends the process at once.
pub fn wait_for_stop(flag: &StopFlag) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    while !flag.is_set() {
        let mut pending = signals.pending();
        if let Some(signal) = pending.next() {
            let name = signal_hook::low_level::signal_name(signal).unwrap_or("a signal");
            tracing::info!("stopping: {name}");
            flag.set();
            if pending.next().is_some() {
                std::process::exit(ENDED_BY_SIGNAL);
            }
        } else {
            std::thread::sleep(StopFlag::POLL);
        }
    }
    let second = move || {
        if signals.forever().next().is_some() {
            tracing::warn!("ended at once by a second signal");
            std::process::exit(ENDED_BY_SIGNAL);
        }
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(second).map(drop)
}

/// [`wait_for_stop`] on a thread of its own, which ends with the process.
pub fn stop_in_background(flag: &StopFlag) -> io::Result<()> {
    let flag = flag.clone();
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || wait_for_stop(&flag).ok()).map(drop)
}

/// CPU time that this process has used so far, user and system, in all its threads, to the nanosecond where /proc would say
/// it in ticks of 10 ms; `None` when the system does not say.
pub fn cpu_seconds() -> Option<f64> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: fills the struct it is given.
    #[allow(unsafe_code)]
    let result = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    (result == 0).then(|| time.tv_sec as f64 + time.tv_nsec as f64 / 1e9)
}

/// CPUs this process may run on, by number.
pub fn usable_cpus() -> Vec<usize> {
    core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|c| c.id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::PATIENCE;

    #[test]
    fn cpu_time_is_what_a_busy_thread_uses() {
        let (begun, before) = (std::time::Instant::now(), cpu_seconds().unwrap());
        // Other tests run in this process too, and other processes on this machine.
        let mut used = 0.0;
        while used < 0.05 {
            assert!(begun.elapsed() < PATIENCE, "{used} s");
            std::hint::black_box((0..100_000).sum::<u64>());
            used = cpu_seconds().unwrap() - before;
        }
        let cpus = std::thread::available_parallelism().unwrap().get() as f64;
        let most = (begun.elapsed().as_secs_f64() + 0.1) * cpus;
        assert!(used <= most, "{used} s of at most {most}");
    }

    #[test]
    fn a_stop_comes_from_a_shard() {
        let flag = StopFlag::default();
        let shard = flag.clone();
        let setting = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            shard.set();
        });
        wait_for_stop(&flag).unwrap();
        setting.join().unwrap();
    }
}
