//! Standing of a replica: its ends and high watermark, its role, and those who wait for it.

use std::cell::{Cell, RefCell};

use super::leader::{Change, Leader};
use super::role::{Follows, Membership, Role, Term};
use super::transactions::{self, Transactions};
use super::waiters::{DataWaiters, Waiters};
use super::watermarks::{BrokenEnds, Cuts, Ends, Moved, Watermarks};
use crate::config::TopicConfig;
use crate::model::LeaderEpoch;
use crate::storage::{self, Log};

/// The part of a replica that the log's movement reaches.
pub(super) struct Standing {
    pub watermarks: Cell<Watermarks>,
    pub transactions: RefCell<Transactions>,
    /// Of the transactions; [`transactions::NONE`] as a rule.
    first_unstable: Cell<i64>,
    /// The last stable offset when it was last looked at.
    last_stable: Cell<i64>,
    pub acknowledging: Cell<Acknowledging>,
    pub waiters: Waiters,
    pub role: RefCell<Role>,
    /// `None`: the broker has no cluster, and the role stays [`Role::Alone`].
    pub membership: Option<Membership>,
    pub term: Cell<Term>,
    /// Leader epoch of the last role since the log was opened; -1: there was none.
    pub epoch: Cell<LeaderEpoch>,
    pub cuts: Cell<Cuts>,
    /// Moves of the log by another replica's word that are under way.
    pub moves: Cell<usize>,
    pub moves_ended: DataWaiters,
}

impl Standing {
    pub fn new(
        watermarks: Watermarks,
        transactions: Transactions,
        acknowledging: Acknowledging,
        membership: Option<Membership>,
        log: &Log,
    ) -> Standing {
        let standing = Standing {
            watermarks: Cell::new(watermarks),
            transactions: RefCell::new(transactions),
            first_unstable: Cell::new(transactions::NONE),
            last_stable: Cell::new(0),
            acknowledging: Cell::new(acknowledging),
            waiters: Waiters::default(),
            role: RefCell::new(if membership.is_some() { Role::None } else { Role::Alone }),
            membership,
            term: Cell::new(Term { log: log.number(), count: 0 }),
            epoch: Cell::new(LeaderEpoch(-1)),
            cuts: Cell::default(),
            moves: Cell::new(0),
            moves_ended: DataWaiters::default(),
        };
        standing.transactions_moved();
        standing
    }

    /// Everything before this is committed, and decided: readers of committed records see it.
    /// `start`: where the log begins.
    pub fn last_stable_offset(&self, start: i64) -> i64 {
        transactions::last_stable_offset(self.watermarks.get().high_watermark(), self.first_unstable.get(), start)
    }

    /// A transaction has begun or ended, or the high watermark has moved.
    pub fn transactions_moved(&self) {
        let mut transactions = self.transactions.borrow_mut();
        transactions.committed(self.watermarks.get().high_watermark());
        self.first_unstable.set(transactions.first_unstable());
        drop(transactions);
        self.stable_moved(false);
    }

    fn stable_moved(&self, over: bool) {
        let last_stable = self.last_stable_offset(self.watermarks.get().ends().start);
        if self.last_stable.replace(last_stable) != last_stable || over {
            self.waiters.stable.fire();
        }
    }

    /// An end of the log has moved, a replica's word has come, or the log has failed.
    pub fn log_moved(&self, log: &Log) {
        let mut watermarks = self.watermarks.get();
        let failure = log.failure();
        let failed = failure.is_some();
        let ends = self.acknowledging.get().ends(log, watermarks.ends().acknowledged);
        let mut deposed = false;
        let moved = match &mut *self.role.borrow_mut() {
            Role::Alone => watermarks.observe_alone(ends),
            Role::None => watermarks.observe(ends),
            Role::Leader(leader) => {
                // A full disk passes: with nobody else in sync the partition is read as before.
                if failure.is_some_and(|why| !why.is_full() || leader.has_others_in_sync()) {
                    leader.log_failed();
                }
                deposed = leader.is_deposed();
                self.lead(leader, &mut watermarks, ends)
            }
            Role::Follower(follows) => follow(follows, &mut watermarks, ends),
        };
        match moved {
            Ok(moved) => {
                self.watermarks.set(watermarks);
                self.wake(moved, deposed, failed);
            }
            Err(_) if failed => {
                self.waiters.log_over(watermarks.high_watermark());
                self.waiters.stable.fire();
            }
            Err(broken) => {
                log.broken(format_args!("{broken}"));
            }
        }
    }

    /// Gives leadership up, and the place in the ISR, because the log is damaged; `false`:
    /// nobody else has its records.
    pub fn hand_over_damaged(&self) -> bool {
        match &mut *self.role.borrow_mut() {
            Role::Leader(leader) if leader.has_others_in_sync() => {
                leader.want(Some(Change::Resign));
                true
            }
            _ => false,
        }
    }

    fn lead(&self, leader: &Leader, watermarks: &mut Watermarks, ends: Ends) -> Result<Moved, BrokenEnds> {
        let mut moved = watermarks.observe(ends)?;
        moved.high_watermark = leader.advance(watermarks, self.now_ms())?;
        Ok(moved)
    }

    fn wake(&self, moved: Moved, deposed: bool, failed: bool) {
        let watermarks = self.watermarks.get();
        let high_watermark = watermarks.high_watermark();
        match (failed, deposed, moved.high_watermark) {
            (true, ..) => self.waiters.log_over(high_watermark),
            (_, true, _) => self.waiters.role_over(high_watermark),
            (.., true) => self.waiters.moved(high_watermark),
            (.., false) => {}
        }
        if failed || deposed || moved.high_watermark {
            self.high_watermark_moved(failed || deposed);
        }
        if moved.acknowledged {
            self.waiters.acknowledged(watermarks.ends().acknowledged);
        }
        if moved.sent || moved.high_watermark && self.followers_serve() {
            self.waiters.sent.fire();
        }
    }

    /// Tells those who wait for what is decided. `over`: nothing more is to come.
    pub fn high_watermark_moved(&self, over: bool) {
        if self.first_unstable.get() != transactions::NONE {
            self.transactions_moved();
        }
        self.stable_moved(over);
    }

    /// Consumers may read from followers, which are then told of a higher high watermark at once.
    pub fn followers_serve(&self) -> bool {
        self.membership.is_some_and(|membership| membership.followers_serve)
    }

    /// By the clock of the cluster's rules.
    pub fn now_ms(&self) -> i64 {
        self.membership.as_ref().map_or(0, |membership| (membership.clock)())
    }

    pub fn cut_to(&self, end: Option<i64>) {
        let mut cuts = self.cuts.get();
        cuts.cut_to(end);
        self.cuts.set(cuts);
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
