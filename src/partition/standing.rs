//! Standing of a replica: its ends and high watermark, its role, and those who wait for it.

use std::cell::{Cell, RefCell};

use super::leader::Leader;
use super::role::{Follows, Membership, Role, Term};
use super::waiters::{DataWaiters, Waiters};
use super::watermarks::{BrokenEnds, Ends, Moved, Watermarks};
use crate::config::TopicConfig;
use crate::model::LeaderEpoch;
use crate::storage::{self, Log};

/// The part of a replica that the log's movement reaches.
pub(super) struct Standing {
    pub watermarks: Cell<Watermarks>,
    pub acknowledging: Cell<Acknowledging>,
    pub waiters: Waiters,
    pub role: RefCell<Role>,
    /// `None`: the broker has no cluster, and the role stays [`Role::Alone`].
    pub membership: Option<Membership>,
    pub term: Cell<Term>,
    /// Leader epoch of the last role since the log was opened; -1: there was none.
    pub epoch: Cell<LeaderEpoch>,
    /// Moves of the log by another replica's word that are under way.
    pub moves: Cell<usize>,
    pub moves_ended: DataWaiters,
}

impl Standing {
    pub fn new(
        watermarks: Watermarks,
        acknowledging: Acknowledging,
        membership: Option<Membership>,
        log: &Log,
    ) -> Standing {
        Standing {
            watermarks: Cell::new(watermarks),
            acknowledging: Cell::new(acknowledging),
            waiters: Waiters::default(),
            role: RefCell::new(if membership.is_some() { Role::None } else { Role::Alone }),
            membership,
            term: Cell::new(Term { log: log.number(), count: 0 }),
            epoch: Cell::new(LeaderEpoch(-1)),
            moves: Cell::new(0),
            moves_ended: DataWaiters::default(),
        }
    }

    /// An end of the log has moved, a replica's word has come, or the log has failed.
    pub fn log_moved(&self, log: &Log) {
        let mut watermarks = self.watermarks.get();
        let failure = log.failure();
        let failed = failure.is_some();
        let ends = self.acknowledging.get().ends(log, watermarks.ends().acknowledged);
        let mut over = failed;
        let moved = match &mut *self.role.borrow_mut() {
            Role::Alone => watermarks.observe_alone(ends),
            Role::None => watermarks.observe(ends),
            Role::Leader(leader) => {
                // A full disk passes: with nobody else in sync the partition is read as before.
                if failure.is_some_and(|why| !why.is_full() || leader.has_others_in_sync()) {
                    leader.log_failed();
                }
                over |= leader.is_deposed();
                self.lead(leader, &mut watermarks, ends)
            }
            Role::Follower(follows) => follow(follows, &mut watermarks, ends),
        };
        match moved {
            Ok(moved) => {
                self.watermarks.set(watermarks);
                self.wake(moved, over);
            }
            Err(_) if failed => self.waiters.moved(watermarks.high_watermark(), true),
            Err(broken) => {
                debug_assert!(false, "{}: {broken}", log.dir().display());
                let why =
                    format!("{broken}: the partition is offline until the broker is restarted; please report this");
                tracing::error!(dir = %log.dir().display(), "{why}");
                log.lose(&why);
            }
        }
    }

    fn lead(&self, leader: &Leader, watermarks: &mut Watermarks, ends: Ends) -> Result<Moved, BrokenEnds> {
        let mut moved = watermarks.observe(ends)?;
        moved.high_watermark = leader.advance(watermarks, self.now_ms())?;
        Ok(moved)
    }

    fn wake(&self, moved: Moved, over: bool) {
        let watermarks = self.watermarks.get();
        if moved.high_watermark || over {
            self.waiters.moved(watermarks.high_watermark(), over);
        }
        if moved.acknowledged {
            self.waiters.acknowledged(watermarks.ends().acknowledged);
        }
        if moved.sent || moved.high_watermark && self.followers_serve() {
            self.waiters.sent.fire();
        }
    }

    /// Consumers may read from followers, which are then told of a higher high watermark at once.
    pub fn followers_serve(&self) -> bool {
        self.membership.is_some_and(|membership| membership.followers_serve)
    }

    /// By the clock of the cluster's rules.
    pub fn now_ms(&self) -> i64 {
        self.membership.as_ref().map_or(0, |membership| (membership.clock)())
    }

    /// A new leadership begins, or one has ended.
    pub fn next_term(&self) {
        let term = self.term.get();
        self.term.set(Term { count: term.count.wrapping_add(1), ..term });
    }
}

fn follow(follows: &Follows, watermarks: &mut Watermarks, ends: Ends) -> Result<Moved, BrokenEnds> {
    let mut moved = watermarks.observe(ends)?;
    moved.high_watermark = watermarks.follow(follows.high_watermark);
    Ok(moved)
}

/// The end of the log that acknowledges, by the topic's settings.
#[derive(Clone, Copy, Debug)]
pub(super) struct Acknowledging {
    /// So many records that are not synced are acknowledged only once they are; 0: all of them.
    unsynced: u64,
}

impl Acknowledging {
    pub fn by(config: &TopicConfig) -> Acknowledging {
        Acknowledging { unsynced: if config.flush_ms == Some(0) { 0 } else { config.flush_messages } }
    }

    /// The ends of `log`. What has been acknowledged stays so.
    pub fn ends(self, log: &Log, acknowledged: i64) -> Ends {
        let storage::Ends { appended, sent, held, written, synced } = log.ends();
        let waits_for_sync = held.abs_diff(synced) >= self.unsynced;
        let acknowledged = acknowledged.max(if waits_for_sync { synced } else { held });
        Ends { start: log.start_offset(), appended, sent, held, written, synced, acknowledged }
    }
}
