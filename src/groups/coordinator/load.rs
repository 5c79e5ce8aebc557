//! The state that the log's records make.

use super::dispatch::{Coordinator, Group, Timer};
use crate::coordinator::wire::BadRecord;
use crate::groups::classic::{ClassicGroup, Turn};
use crate::groups::env::Env;
use crate::groups::record::Record;

impl Coordinator {
    /// One record of the log, in order, while the coordinator is being loaded. An error
    /// leaves the state as it was.
    pub fn replay(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), BadRecord> {
        self.replay_of(None, key, value)
    }

    /// As [`replay`](Self::replay); `producer_id`: of the transaction in which
    /// the record was written.
    pub fn replay_of(&mut self, producer_id: Option<i64>, key: &[u8], value: Option<&[u8]>) -> Result<(), BadRecord> {
        if let Some(record) = Record::decode(key, value)? {
            let group = record.group().clone();
            self.counted(&group, |coordinator| coordinator.take_in(producer_id, record));
        }
        Ok(())
    }

    fn take_in(&mut self, producer_id: Option<i64>, record: Record) {
        match record {
            Record::Consumer(record) => self.consumer_replay(record),
            Record::Classic { group, value: Some(value) } => {
                let restored = ClassicGroup::restore(group.clone(), value);
                self.groups.insert(group, Group::Classic(Box::new(restored)));
            }
            Record::Classic { group, value: None } => {
                // A consumer group of that name came later; the tombstone is of what it was before.
                if let Some(Group::Classic(_)) = self.groups.get(&group) {
                    self.groups.remove(&group);
                }
            }
            Record::Offset { group, topic, partition, value: Some(value) } => {
                if !self.groups.contains_key(&group) {
                    // Without any member: there is no record of the group itself.
                    let simple = ClassicGroup::new(group.clone(), -1);
                    self.groups.insert(group.clone(), Group::Classic(Box::new(simple)));
                }
                match producer_id {
                    Some(id) => self.offsets.put_pending(id, &group, &topic, partition, value),
                    None => self.offsets.put(&group, &topic, partition, value),
                }
            }
            Record::Offset { group, topic, partition, value: None } => {
                self.offsets.remove(&group, &topic, partition);
            }
        }
    }

    /// All of the log has been replayed, also if there was nothing in it:
    /// members' sessions begin now.
    pub fn loaded(&mut self, env: &mut Env) {
        let orphans: Vec<_> = self.offsets.groups().filter(|id| !self.groups.contains_key(*id)).cloned().collect();
        for id in orphans {
            let simple = ClassicGroup::new(id.clone(), -1);
            self.groups.insert(id, Group::Classic(Box::new(simple)));
        }
        let max_size = env.config.max_size;
        for group in self.groups.values_mut() {
            let Group::Classic(group) = group else { continue };
            let mut turn = Turn { timers: &mut self.timers, env };
            group.renew_sessions(&mut turn);
            if group.members().len() > max_size {
                // The limit was lowered: who joins again first stays.
                group.prepare_rebalance("group.max.size was lowered", &mut turn);
            }
        }
        self.consumer_loaded(env);
        self.count_groups();
        let first_look_ms = env.config.offsets_retention_check_interval_ms;
        self.timers.set(Timer::Expiry, env.mono_ms.saturating_add(first_look_ms));
    }
}
