//! Configuration and faults of one run, all drawn from its seed.

use super::disk::{Acknowledge, Crash};
use super::place::FIRST;
use super::rng::Rng;

/// Session timeout of the metadata store, ms.
pub const SESSION_MS: i64 = 2_000;
/// `replica.lag.time.max.ms`.
pub const LAG_MS: i64 = 1_500;
/// Faults begin once the cluster is up.
const FAULTS_FROM_MS: i64 = 4_000;

/// Something that goes wrong, or is asked of the cluster, at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub at_ms: i64,
    pub kind: FaultKind,
}

/// The broker that a fault hits; all but the first are looked up when it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Broker(usize),
    LeaderOf(usize),
    /// A member of the ISR that does not lead.
    FollowerOf(usize),
    /// A replica that is not in the ISR; a follower, if all are.
    OutsideOf(usize),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FaultKind {
    Crash {
        target: Target,
        crash: Crash,
        down_ms: i64,
    },
    /// Every broker, one shortly after the other.
    CrashAll {
        crash: Crash,
        down_ms: i64,
    },
    /// A clean stop of every broker, all begun at once.
    StopAll {
        down_ms: i64,
    },
    /// A clean stop.
    Stop {
        target: Target,
        down_ms: i64,
    },
    Pause {
        target: Target,
        ms: i64,
    },
    /// Nothing from one broker reaches the other.
    Cut {
        from: Target,
        to: Target,
        ms: i64,
    },
    /// One broker reaches no other and is reached by none; nor does it reach the metadata store,
    /// where that is cut off as well.
    Isolate {
        target: Target,
        store: bool,
        ms: i64,
    },
    /// One broker does not reach the metadata store.
    StoreCut {
        target: Target,
        ms: i64,
    },
    /// Nobody does.
    StoreAway {
        ms: i64,
    },
    /// Changes of the store reach the broker late.
    LateEvents {
        target: Target,
        ms: i64,
    },
    /// The connection breaks and is made again: events are lost, commits under way are unknown.
    Reconnect {
        target: Target,
    },
    /// The connection to the store breaks under each of the next commits, for so long, and with it
    /// that to a neighbour.
    LoseAnswers {
        target: Target,
        lose: LoseAnswers,
    },
    FailDisk {
        target: Target,
        partition: usize,
    },
    /// Leadership moves to another member of the ISR.
    Elect {
        partition: usize,
    },
    Reassign {
        partition: usize,
        target: Vec<usize>,
    },
    Minimum {
        /// Of the topic that this belongs to.
        partition: usize,
        value: i32,
    },
    /// Records below the high watermark are deleted, but for so many batches.
    Trim {
        partition: usize,
        keep: usize,
    },
    /// Settings of flushing change: a clean stop, and a start that acknowledges at another end.
    Configure {
        broker: usize,
        acknowledge: Acknowledge,
        down_ms: i64,
    },
    /// Messages take long.
    SlowNetwork {
        ms: i64,
    },
    /// The process lives, and connections of others to it are refused, as by a firewall.
    Deaf {
        target: Target,
        ms: i64,
    },
    /// A replica names an epoch to the leader that there is not.
    Slander {
        partition: usize,
    },
}

/// Commits whose answers get lost, and what breaks with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoseAnswers {
    pub commits: u32,
    /// Only those of a leader that change the ISR.
    pub of_isr: bool,
    /// The broker reaches neither the store nor the neighbour for so long.
    pub ms: i64,
    pub neighbour: Target,
    /// The neighbour crashes, and is down for so long.
    pub crash: Option<(Crash, i64)>,
}

/// One run.
#[derive(Clone, Debug)]
pub struct Setup {
    pub seed: u64,
    pub brokers: usize,
    /// Of all topics together.
    pub partitions: usize,
    pub replication: usize,
    pub min_insync: i32,
    pub acknowledge: Acknowledge,
    pub unclean: bool,
    pub producers: usize,
    pub consumers: usize,
    /// Transactional ids.
    pub transactors: usize,
    pub faults: Vec<Fault>,
    /// Everything is healed from here on.
    pub heal_at_ms: i64,
}

impl Setup {
    pub fn of(seed: u64) -> Setup {
        let mut rng = Rng::new(seed);
        let brokers = rng.between(3, 5) as usize;
        let partitions = FIRST + rng.between(1, 4) as usize;
        let replication = if rng.chance(75) { 3 } else { rng.between(1, 3) as usize };
        let min_insync =
            if rng.chance(70) { 2.min(replication as i32) } else { rng.between(1, replication as i64) as i32 };
        let acknowledge = acknowledge(&mut rng);
        let heal_at_ms = FAULTS_FROM_MS + rng.between(4_000, 14_000);
        let mut setup = Setup {
            seed,
            brokers,
            partitions,
            replication,
            min_insync,
            acknowledge,
            unclean: rng.chance(12),
            producers: rng.between(2, 4) as usize,
            consumers: rng.between(1, 2) as usize,
            transactors: rng.between(0, 2) as usize,
            faults: Vec::new(),
            heal_at_ms,
        };
        let count = rng.between(2, 14);
        // A few kinds a seed, so that they meet each other.
        let kinds: Vec<u64> = (0..rng.between(2, 5)).map(|_| kind(&mut rng)).collect();
        for _ in 0..count {
            let kind = rng.pick(&kinds).copied().unwrap_or(0);
            let at_ms = rng.between(FAULTS_FROM_MS, heal_at_ms - 500);
            setup.faults.push(Fault { at_ms, kind: setup.fault(kind, &mut rng) });
            if kind == LOSES_ANSWERS && rng.chance(60) {
                // Some broker has to come back into an ISR.
                let target = Target::FollowerOf(rng.below(setup.partitions as u64) as usize);
                let kind = FaultKind::Crash { target, crash: Crash::Wipe, down_ms: rng.between(20, 300) };
                setup.faults.push(Fault { at_ms: at_ms + rng.between(1, 50), kind });
            }
            if rng.chance(20) {
                // Another one close behind.
                let kind = rng.pick(&kinds).copied().unwrap_or(0);
                let at_ms = at_ms + rng.between(3, 120);
                setup.faults.push(Fault { at_ms, kind: setup.fault(kind, &mut rng) });
            }
        }
        setup.faults.sort_by_key(|fault| fault.at_ms);
        setup
    }

    fn target(&self, rng: &mut Rng) -> Target {
        let partition = rng.below(self.partitions as u64) as usize;
        match rng.below(10) {
            0..4 => Target::LeaderOf(partition),
            4..7 => Target::FollowerOf(partition),
            _ => Target::Broker(rng.below(self.brokers as u64) as usize),
        }
    }

    fn fault(&self, kind: u64, rng: &mut Rng) -> FaultKind {
        let (target, other) = (self.target(rng), self.target(rng));
        let partition = rng.below(self.partitions as u64) as usize;
        // Around the session timeout.
        let ms = if rng.chance(50) { rng.between(50, SESSION_MS) } else { rng.between(SESSION_MS, 3 * SESSION_MS) };
        let down_ms = if rng.chance(40) { rng.between(20, 400) } else { ms };
        match kind {
            0 => FaultKind::Crash { target, crash: Crash::Kill, down_ms },
            1 => FaultKind::Crash { target, crash: Crash::Power, down_ms },
            2 => FaultKind::Crash { target, crash: Crash::Wipe, down_ms },
            3 => FaultKind::Stop { target, down_ms },
            4 => FaultKind::Pause { target, ms },
            5 => FaultKind::Cut { from: target, to: other, ms },
            6 => FaultKind::StoreCut { target, ms },
            7 => FaultKind::StoreAway { ms },
            8 => FaultKind::LateEvents { target, ms },
            9 => FaultKind::Reconnect { target },
            LOSES_ANSWERS => {
                let crash = if rng.chance(50) { Crash::Wipe } else { Crash::Power };
                let lose = LoseAnswers {
                    commits: rng.between(1, 3) as u32,
                    of_isr: rng.chance(70),
                    ms,
                    neighbour: if rng.chance(50) { Target::OutsideOf(partition) } else { other },
                    crash: rng.chance(50).then(|| (crash, rng.between(20, 300))),
                };
                FaultKind::LoseAnswers { target: Target::LeaderOf(partition), lose }
            }
            11 => FaultKind::FailDisk { target, partition },
            12 => FaultKind::Reassign { partition, target: self.replicas(rng) },
            13 => FaultKind::Minimum { partition, value: rng.between(1, 3) as i32 },
            14 => FaultKind::Trim { partition: partition.max(FIRST), keep: rng.below(8) as usize },
            15 => FaultKind::Elect { partition },
            16 => FaultKind::SlowNetwork { ms },
            17 => FaultKind::Isolate { target, store: rng.chance(40), ms },
            19 => FaultKind::Deaf { target, ms },
            20 => FaultKind::Slander { partition },
            CONFIGURES => {
                let broker = rng.below(self.brokers as u64) as usize;
                FaultKind::Configure { broker, acknowledge: acknowledge(rng), down_ms }
            }
            _ => {
                let crash = if rng.chance(60) { Crash::Kill } else { Crash::Power };
                match rng.chance(40) {
                    true => FaultKind::StopAll { down_ms },
                    false => FaultKind::CrashAll { crash, down_ms },
                }
            }
        }
    }

    /// Brokers for a reassignment.
    fn replicas(&self, rng: &mut Rng) -> Vec<usize> {
        let mut target: Vec<usize> = (0..self.brokers).collect();
        for at in 0..target.len() {
            let with = at + rng.below((target.len() - at) as u64) as usize;
            target.swap(at, with);
        }
        let size = if rng.chance(60) { self.replication } else { rng.between(1, 3) as usize };
        target.truncate(size);
        target
    }
}

/// Kinds of faults that [`Setup::fault`] knows.
const KINDS: u64 = 22;
const LOSES_ANSWERS: u64 = 10;
const CONFIGURES: u64 = 18;
/// Lost answers take most to become a violation: they come as often as so many other kinds more.
const MORE: u64 = 6;

fn kind(rng: &mut Rng) -> u64 {
    let drawn = rng.below(KINDS + MORE);
    if drawn < KINDS { drawn } else { LOSES_ANSWERS }
}

fn acknowledge(rng: &mut Rng) -> Acknowledge {
    match rng.below(10) {
        0..6 => Acknowledge::Held,
        6..9 => Acknowledge::Written,
        _ => Acknowledge::Synced,
    }
}
