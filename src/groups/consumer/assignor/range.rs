//! `range`: of each topic a contiguous piece for each subscriber, in the same order for all topics.
//! Topics with the same number of partitions and the same subscribers are therefore cut alike: one
//! member has the same partitions of each (co-partitioning).

use super::Spec;
use crate::groups::record::Partitions;

pub(super) fn assign(spec: &Spec) -> Vec<Partitions> {
    let mut order: Vec<usize> = (0..spec.members.len()).collect();
    // Static members come first, by instance id: a restart under a new member
    // id changes nothing then.
    order.sort_by_key(|index| {
        let member = &spec.members[*index];
        (member.instance_id.is_none(), member.instance_id.unwrap_or(member.id))
    });
    let mut subscribers = vec![0i32; spec.topics.len()];
    for topic in spec.members.iter().flat_map(|member| &member.topics) {
        subscribers[*topic] += 1;
    }
    let mut shares = vec![Partitions::new(); spec.members.len()];
    let mut given = vec![(0i32, 0i32); spec.topics.len()];
    for member in order {
        for index in &spec.members[member].topics {
            let topic = spec.topics[*index];
            let (ref mut next, ref mut served) = given[*index];
            let quota =
                topic.partitions / subscribers[*index] + i32::from(*served < topic.partitions % subscribers[*index]);
            if quota > 0 {
                shares[member].insert(topic.id, (*next..*next + quota).collect());
            }
            *next += quota;
            *served += 1;
        }
    }
    shares
}
