//! The controller's office: claimed where it is free, and its duty done by what has changed.

use std::collections::BTreeSet;

use super::{Acted, Node, Purpose};
use crate::cluster::rules::{self, Dirty, Options, Standing, Timers};
use crate::cluster::store::{Outcome, Revision, Store};
use crate::model::BrokerId;

/// Time until steps that were not carried out are decided anew.
const AGAIN_MS: i64 = 50;
/// Time in which others begin to stop that were told to with the first. Where
/// all stop nobody is elected.
const DRAIN_TOGETHER_MS: i64 = 300;

/// State of the controller's duty.
pub(super) struct Office {
    options: Options,
    timers: Timers,
    /// Controller epoch that this broker has, as of the last look.
    held: Option<i32>,
    /// This process has held the office.
    was_held: bool,
    /// Changes since a round found nothing to do.
    dirty: Dirty,
    touched: bool,
    /// The next round looks at everything.
    full: bool,
    /// The next round waits for the metadata to show what the last one has done.
    shown: Revision,
    again_at_ms: i64,
    /// Brokers that were on their way out at the last look.
    draining: BTreeSet<BrokerId>,
}

impl Office {
    pub fn new(options: Options, now_ms: i64) -> Office {
        Office {
            options,
            timers: Timers::new(options, now_ms),
            held: None,
            was_held: false,
            dirty: Dirty::default(),
            touched: false,
            full: false,
            shown: Revision(0),
            again_at_ms: 0,
            draining: BTreeSet::new(),
        }
    }

    pub fn note(&mut self, touched: bool, dirty: Dirty) {
        if self.held.is_some() {
            self.touched |= touched;
            self.dirty.extend(dirty);
        }
    }

    pub fn settled(&mut self, outcome: &Outcome, revision: Option<Revision>, now_ms: i64) {
        self.shown = self.shown.max(revision.unwrap_or(self.shown));
        if *outcome != Outcome::Done {
            self.again_at_ms = now_ms.saturating_add(AGAIN_MS);
        }
    }

    pub fn due_ms(&self) -> Option<i64> {
        let again = (self.touched || self.full).then_some(self.again_at_ms);
        again.into_iter().chain(self.timers.due_ms()).min()
    }

    /// Notes which office is held; `false`: none. A new one begins with a look at everything.
    fn hold(&mut self, epoch: Option<i32>, now_ms: i64) -> bool {
        if self.held != epoch {
            self.held = epoch;
            self.dirty = Dirty::default();
            (self.full, self.touched, self.again_at_ms) = (epoch.is_some(), false, 0);
            if epoch.is_some() && !std::mem::replace(&mut self.was_held, true) {
                // Others have started with this broker, and are through with it about now.
                self.timers = Timers::new(self.options, now_ms);
            }
        }
        epoch.is_some()
    }

    /// Waits a little where a broker has begun to stop.
    fn note_draining(&mut self, draining: BTreeSet<BrokerId>, now_ms: i64) {
        if !draining.is_subset(&self.draining) {
            self.again_at_ms = self.again_at_ms.max(now_ms.saturating_add(DRAIN_TOGETHER_MS));
        }
        self.draining = draining;
    }
}

impl<S: Store> Node<S> {
    /// This broker is the controller, as far as it knows.
    pub fn holds_office(&self) -> bool {
        self.view.controller().is_some_and(|controller| controller.value == self.me())
    }

    /// Becomes controller where there is none, and does what is due where it is.
    pub(super) fn control(&mut self, now_ms: i64, acted: &mut Acted) {
        let present = self.broker_epoch().is_some() && self.mirror.is_whole();
        if present
            && !self.is_waiting_for(&Purpose::Claim)
            && let Some(commit) = rules::become_controller(&self.view, self.me())
        {
            acted.claims = true;
            self.commit(commit, Purpose::Claim);
        }
        let epoch = self.view.controller_epoch().map(|epoch| epoch.value).filter(|_| self.holds_office());
        if !self.office.hold(epoch, now_ms) || !present || self.is_waiting_for(&Purpose::Control) {
            return;
        }
        let draining = self.view.registrations().keys().filter(|id| self.view.standing(**id) == Standing::Draining);
        self.office.note_draining(draining.copied().collect(), now_ms);
        if self.mirror.revision() < self.office.shown || now_ms < self.office.again_at_ms {
            return;
        }
        let (moment, everything) = self.office.timers.tick(now_ms);
        self.office.full |= everything;
        let (me, options) = (self.me(), self.office.options);
        let plan = match (self.office.full, self.office.touched) {
            (true, _) => rules::reconcile(&self.view, me, moment, &options),
            (false, true) => rules::reconcile_changed(&self.view, me, moment, &options, &self.office.dirty),
            (false, false) => return,
        };
        if plan.is_empty() {
            self.office.dirty = Dirty::default();
            (self.office.full, self.office.touched) = (false, false);
            return;
        }
        acted.risky.extend(plan.risky.iter().cloned());
        for batch in plan.batches() {
            let asked = vec![(self.ticket(), Purpose::Control)];
            let id = self.send(batch.commit, asked);
            if batch.singles.len() > 1 {
                self.singles.insert(id, batch.singles);
            }
        }
    }
}
