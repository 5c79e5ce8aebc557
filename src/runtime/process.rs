//! Signals, CPUs, memory: facts about this process.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;

/// Set once by a signal; shards look at it every [`StopFlag::POLL`].
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

/// Effect of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    /// An orderly stop, as in Kafka.
    Stop,
    /// Nothing this process does. Log rotation and habit send them; by default they would end it.
    Nothing,
    /// The end at once.
    End,
}

/// How far the process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Not stopping.
    Running,
    /// Asked to stop before it was ready.
    Starting,
    Stopping,
}

/// Service managers send SIGTERM again, and SIGHUP behind it (systemd's `SendSIGHUP=`): while a
/// stop is under way that is no hurry. Somebody who presses Ctrl-C twice means it. A start may take
/// long and loses nothing when it ends at once.
fn asked(signal: i32, phase: Phase) -> Asked {
    match (signal, phase) {
        (SIGTERM | SIGHUP | SIGINT | SIGQUIT, Phase::Running) => Asked::Stop,
        (SIGINT | SIGQUIT, Phase::Stopping) | (SIGTERM | SIGINT | SIGQUIT, Phase::Starting) => Asked::End,
        _ => Asked::Nothing,
    }
}

/// Signals to watch. SIGHUP stays ignored if it was at the start (`nohup`). The others are obeyed
/// whatever the parent ignored: a shell without job control ignores SIGINT for its background jobs,
/// and `kill -INT` still means it.
fn watched() -> Vec<i32> {
    let ignored = std::fs::read_to_string("/proc/self/status").map_or(0, |status| ignored_signals(&status));
    let all = [SIGTERM, SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2];
    all.into_iter().filter(|signal| *signal != SIGHUP || ignored >> (signal - 1) & 1 == 0).collect()
}

/// The mask of `SigIgn` in `/proc/self/status`.
fn ignored_signals(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

fn obey(signal: i32, flag: &StopFlag, ready: bool) {
    let name = signal_hook::low_level::signal_name(signal).unwrap_or("a signal");
    let phase = match (flag.is_set(), ready) {
        (false, _) => Phase::Running,
        (true, false) => Phase::Starting,
        (true, true) => Phase::Stopping,
    };
    match asked(signal, phase) {
        Asked::Stop => {
            tracing::info!("stopping: {name}");
            flag.set();
        }
        Asked::Nothing if phase == Phase::Running => tracing::info!("{name}: nothing to do"),
        Asked::Nothing => tracing::info!("{name}: stopping already; SIGINT or SIGKILL ends it at once"),
        Asked::End => {
            tracing::warn!("ended at once by a second signal");
            std::process::exit(ENDED_BY_SIGNAL);
        }
    }
}

/// Signals of this process, held back until they are looked at.
pub struct SignalWatch(Signals);

impl SignalWatch {
    /// From here on no signal ends the process unasked.
    pub fn install() -> io::Result<SignalWatch> {
        Signals::new(watched()).map(SignalWatch)
    }

    /// Obeys what has come in during a start.
    pub fn obey_pending(&mut self, flag: &StopFlag) {
        self.0.pending().for_each(|signal| obey(signal, flag, false));
    }

    /// Blocks the calling (main) thread until a signal asks for a stop, or until `flag` is
    /// set by a shard; sets the flag. Signals are obeyed on a thread of its own
    /// afterwards, until the process ends.
    pub fn wait_for_stop(self, flag: &StopFlag) -> io::Result<()> {
        let mut signals = self.0;
        while !flag.is_set() {
            signals.pending().for_each(|signal| obey(signal, flag, true));
            if !flag.is_set() {
                std::thread::sleep(StopFlag::POLL);
            }
        }
        let stopping = flag.clone();
        let further = move || signals.forever().for_each(|signal| obey(signal, &stopping, true));
        std::thread::Builder::new().name("signals".to_owned()).spawn(further).map(drop)
    }
}

/// [`SignalWatch::wait_for_stop`] for a process that has nothing to start.
pub fn wait_for_stop(flag: &StopFlag) -> io::Result<()> {
    SignalWatch::install()?.wait_for_stop(flag)
}

/// [`wait_for_stop`] on a thread of its own, which ends with the process.
pub fn stop_in_background(flag: &StopFlag) -> io::Result<()> {
    let flag = flag.clone();
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || wait_for_stop(&flag).ok()).map(drop)
}

/// CPU time that this process has used so far, user and system, in all its threads, to the
/// nanosecond where /proc would say it in ticks of 10 ms; `None` when the system does not say.
pub fn cpu_seconds() -> Option<f64> {
    cpu_time(libc::CLOCK_PROCESS_CPUTIME_ID)
}

/// As [`cpu_seconds`], of the calling thread.
pub fn thread_cpu_seconds() -> Option<f64> {
    cpu_time(libc::CLOCK_THREAD_CPUTIME_ID)
}

fn cpu_time(clock: libc::clockid_t) -> Option<f64> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: fills the struct it is given.
    #[allow(unsafe_code)]
    let result = unsafe { libc::clock_gettime(clock, &mut time) };
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
    fn signals_ask_for_an_orderly_stop_and_only_a_person_for_more() {
        for signal in [SIGTERM, SIGHUP, SIGINT, SIGQUIT] {
            assert_eq!(asked(signal, Phase::Running), Asked::Stop);
        }
        let all = |phase| [SIGTERM, SIGHUP, SIGINT, SIGQUIT].map(|signal| asked(signal, phase));
        assert_eq!(all(Phase::Stopping), [Asked::Nothing, Asked::Nothing, Asked::End, Asked::End]);
        assert_eq!(all(Phase::Starting), [Asked::End, Asked::Nothing, Asked::End, Asked::End]);
        for phase in [Phase::Running, Phase::Starting, Phase::Stopping] {
            assert_eq!([SIGUSR1, SIGUSR2].map(|signal| asked(signal, phase)), [Asked::Nothing; 2]);
        }
    }

    #[test]
    fn ignored_signals_are_read_from_the_kernel() {
        let status = "Name:\tx\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\nSigCgt:\t0\n";
        assert_eq!(ignored_signals(status), 0x1001, "SIGHUP and SIGPIPE");
        assert_eq!(ignored_signals(""), 0);
        assert!(watched().contains(&SIGTERM));
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
