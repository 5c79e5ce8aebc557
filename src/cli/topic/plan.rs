//! Which brokers get a topic's replicas when their number changes.

use std::collections::BTreeMap;

use crate::client::cluster_client::Partition;

/// A broker that may have replicas.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Place {
    pub broker: i32,
    pub rack: Option<String>,
}

/// The replicas of each partition whose number of replicas is not `factor`. Those that a partition
/// has stay where they are: in sync before others, the preferred leader first. New ones go to racks
/// that the partition is not in, then to the brokers with the fewest replicas of the topic.
pub(super) fn plan(
    partitions: &[Partition],
    factor: usize,
    brokers: &[Place],
) -> Result<BTreeMap<i32, Vec<i32>>, String> {
    if brokers.len() < factor {
        let (has, ids) = (brokers.len(), brokers.iter().map(|place| place.broker.to_string()).collect::<Vec<_>>());
        return Err(format!("{factor} replicas need as many brokers; there are {has} ({})", ids.join(", ")));
    }
    let mut load: BTreeMap<i32, usize> = brokers.iter().map(|place| (place.broker, 0)).collect();
    for broker in partitions.iter().flat_map(|partition| &partition.replicas) {
        *load.entry(*broker).or_default() += 1;
    }
    let rack = |broker: i32| brokers.iter().find(|place| place.broker == broker).and_then(|place| place.rack.clone());
    let mut planned = BTreeMap::new();
    for partition in partitions.iter().filter(|partition| partition.replicas.len() != factor) {
        let mut replicas = partition.replicas.clone();
        while replicas.len() > factor {
            // The last that is not in sync; else the last.
            let out = replicas.iter().rposition(|broker| !partition.isr.contains(broker));
            let broker = replicas.remove(out.unwrap_or(replicas.len() - 1));
            load.entry(broker).and_modify(|count| *count -= 1);
        }
        while replicas.len() < factor {
            let racks: Vec<String> = replicas.iter().filter_map(|broker| rack(*broker)).collect();
            let free = brokers.iter().filter(|place| !replicas.contains(&place.broker));
            let cost = |place: &&Place| {
                let beside = place.rack.as_ref().map_or(0, |own| racks.iter().filter(|rack| *rack == own).count());
                (beside, load.get(&place.broker).copied().unwrap_or(0), place.broker)
            };
            let Some(chosen) = free.min_by_key(cost) else {
                return Err(format!("no broker is left for partition {}", partition.index));
            };
            replicas.push(chosen.broker);
            *load.entry(chosen.broker).or_default() += 1;
        }
        planned.insert(partition.index, replicas);
    }
    Ok(planned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(index: i32, replicas: &[i32], isr: &[i32]) -> Partition {
        Partition {
            index,
            leader: isr[0],
            leader_epoch: 0,
            replicas: replicas.to_vec(),
            isr: isr.to_vec(),
            offline: Vec::new(),
        }
    }

    fn brokers(racks: &[(i32, &str)]) -> Vec<Place> {
        let rack = |rack: &str| (!rack.is_empty()).then(|| rack.to_owned());
        racks.iter().map(|(broker, name)| Place { broker: *broker, rack: rack(name) }).collect()
    }

    #[test]
    fn new_replicas_are_spread_and_old_ones_stay() {
        let alone = [partition(0, &[1], &[1]), partition(1, &[2], &[2]), partition(2, &[1, 3], &[1, 3])];
        let planned = plan(&alone, 2, &brokers(&[(1, ""), (2, ""), (3, "")])).unwrap();
        assert_eq!(planned, BTreeMap::from([(0, vec![1, 2]), (1, vec![2, 3])]));
        let all = plan(&alone, 3, &brokers(&[(1, ""), (2, ""), (3, "")])).unwrap();
        assert_eq!(all, BTreeMap::from([(0, vec![1, 2, 3]), (1, vec![2, 1, 3]), (2, vec![1, 3, 2])]));
    }

    #[test]
    fn other_racks_come_first() {
        let racks = brokers(&[(1, "a"), (2, "a"), (3, "b"), (4, "b")]);
        let planned = plan(&[partition(0, &[1], &[1]), partition(1, &[3], &[3])], 2, &racks).unwrap();
        assert_eq!(planned, BTreeMap::from([(0, vec![1, 4]), (1, vec![3, 2])]));
    }

    #[test]
    fn replicas_that_are_not_in_sync_go_first() {
        let places = brokers(&[(1, ""), (2, ""), (3, "")]);
        let planned = plan(&[partition(0, &[1, 2, 3], &[1, 3]), partition(1, &[2, 3, 1], &[2, 3, 1])], 2, &places);
        assert_eq!(planned, Ok(BTreeMap::from([(0, vec![1, 3]), (1, vec![2, 3])])));
        let preferred = plan(&[partition(0, &[1, 2, 3], &[2, 3])], 1, &places);
        assert_eq!(preferred, Ok(BTreeMap::from([(0, vec![2])])));
    }

    #[test]
    fn too_few_brokers_are_said() {
        let error = plan(&[partition(0, &[1], &[1])], 3, &brokers(&[(1, ""), (2, "")])).unwrap_err();
        assert_eq!(error, "3 replicas need as many brokers; there are 2 (1, 2)");
    }
}
