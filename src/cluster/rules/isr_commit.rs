//! Commits by which a leader changes the ISR, and a replica gives up.

use super::view::{PartitionKey, View};
use crate::cluster::store::{Check, Commit, Key, PartitionState, Record, Write};
use crate::model::BrokerId;
use crate::model::planted::{Planted, planted};

/// The commit of a state that `me` has made from version `based_on`. `joining`: who enters the ISR,
/// each with the version of the incarnation whose fetches were counted; it takes effect only while
/// that one is active still.
///
/// It is bound to our own incarnation as well: a commit of an earlier life of this broker that is
/// late does nothing. `None`: `me` is not registered.
pub fn isr_commit(
    view: &View,
    me: BrokerId,
    partition: &PartitionKey,
    based_on: i32,
    after: PartitionState,
    joining: &[(BrokerId, i32)],
) -> Option<Commit> {
    view.registrations().get(&me)?;
    let own = view.incarnation(me)?.version;
    let mut checks = vec![Check::Exists(Key::Broker(me)), Check::Version(Key::Incarnation(me), own)];
    let bound = joining.iter().filter(|_| !planted(Planted::ExpandWithoutIncarnation));
    for (broker, version) in bound {
        checks.push(Check::Exists(Key::Broker(*broker)));
        checks.push(Check::Version(Key::Incarnation(*broker), *version));
    }
    let key = Key::Partition(partition.0.clone(), partition.1);
    Some(Commit { checks, writes: vec![Write::Set(key, Record::Partition(after), based_on)] })
}
