//! Data directories of this broker's replicas. They are not in the metadata that brokers share: a
//! start finds them by looking, and new ones are placed where there are fewest.

use std::collections::BTreeMap;

use super::directory_id::DirectoryId;
use super::image::{MetadataImage, PartitionHome, TopicImage};
use super::placement::Placement;
use crate::config::ServerConfig;
use crate::model::{BrokerId, PartitionId};

#[derive(Clone, Debug, Default)]
pub struct Homes {
    by_partition: BTreeMap<PartitionId, PartitionHome>,
    held: BTreeMap<DirectoryId, usize>,
}

impl Homes {
    /// The homes that the image of a start names.
    pub fn of(image: &MetadataImage) -> Homes {
        let mut homes = Homes::default();
        for topic in image.topics() {
            for (partition, index) in topic.partitions.iter().zip(0..) {
                if let Some(home) = partition.home {
                    homes.insert(PartitionId::new(topic.id, index), home);
                }
            }
        }
        homes
    }

    pub fn get(&self, partition: PartitionId) -> Option<PartitionHome> {
        self.by_partition.get(&partition).copied()
    }

    pub fn insert(&mut self, partition: PartitionId, home: PartitionHome) {
        if self.by_partition.insert(partition, home).is_none() {
            *self.held.entry(home.directory).or_default() += 1;
        }
    }

    /// The replica is in another directory now.
    pub fn change(&mut self, partition: PartitionId, home: PartitionHome) {
        self.remove(partition);
        self.insert(partition, home);
    }

    fn remove(&mut self, partition: PartitionId) {
        if let Some(home) = self.by_partition.remove(&partition)
            && let Some(held) = self.held.get_mut(&home.directory)
        {
            *held -= 1;
        }
    }

    /// Gives the topic's replicas of broker `me` their homes, and forgets those of replicas that
    /// `before` had and that are no more.
    pub fn settle(
        &mut self,
        me: BrokerId,
        placement: &Placement,
        settings: &ServerConfig,
        before: Option<&TopicImage>,
        topic: Option<&mut TopicImage>,
    ) {
        let after = topic.as_deref();
        for (partition, index) in before.into_iter().flat_map(|before| before.partitions.iter().zip(0i32..)) {
            let Some(before) = before.filter(|_| partition.replicas.contains(&me)) else { continue };
            let after = after.filter(|after| after.id == before.id);
            let now = after.and_then(|after| after.partitions.get(usize::try_from(index).ok()?));
            if !now.is_some_and(|now| now.replicas.contains(&me)) {
                self.remove(PartitionId::new(before.id, index));
            }
        }
        let Some(topic) = topic else { return };
        let id = topic.id;
        for (partition, index) in topic.partitions.iter_mut().zip(0..) {
            let key = PartitionId::new(id, index);
            // One that is offline may have a directory that is not there.
            if partition.replicas.contains(&me) && !placement.offline.contains_key(&key) {
                partition.home = self.get(key).or_else(|| self.place(key, placement, settings));
            }
        }
    }

    fn place(
        &mut self,
        partition: PartitionId,
        placement: &Placement,
        settings: &ServerConfig,
    ) -> Option<PartitionHome> {
        let directory = placement.emptiest(settings, |id| self.held.get(&id).copied().unwrap_or(0))?;
        let home = PartitionHome { directory, since_run: placement.run };
        self.insert(partition, home);
        Some(home)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;

    use uuid::Uuid;

    use super::*;
    use crate::cluster::image::PartitionImage;

    const ME: BrokerId = BrokerId(1);

    fn topic(id: u128, replicas: &[&[i32]]) -> TopicImage {
        let partition = |ids: &&[i32]| PartitionImage {
            replicas: ids.iter().copied().map(BrokerId).collect(),
            ..PartitionImage::default()
        };
        TopicImage {
            name: "t".into(),
            id: Uuid::from_u128(id),
            partitions: replicas.iter().map(partition).collect(),
            overrides: BTreeMap::new(),
            config: Arc::default(),
        }
    }

    #[test]
    fn own_replicas_are_spread_and_forgotten() {
        let dirs = [200u128, 300].map(|id| (DirectoryId(Uuid::from_u128(id)), PathBuf::from(id.to_string())));
        let placement = Placement { directories: dirs.to_vec(), run: 4, ..Placement::default() };
        let (settings, mut homes) = (ServerConfig::default(), Homes::default());
        let mut all = topic(1, &[&[1], &[2, 1], &[2], &[1, 2], &[1]]);
        homes.settle(ME, &placement, &settings, None, Some(&mut all));
        let place = |topic: &TopicImage| {
            topic.partitions.iter().map(|p| p.home.map(|home| home.directory.0.as_u128())).collect::<Vec<_>>()
        };
        assert_eq!(place(&all), [Some(200), Some(300), None, Some(200), Some(300)]);
        let mut less = topic(1, &[&[2], &[2, 1], &[2], &[2], &[1]]);
        homes.settle(ME, &placement, &settings, Some(&all), Some(&mut less));
        assert_eq!(place(&less), [None, Some(300), None, None, Some(300)], "those that stay keep their place");
        let mut more = topic(1, &[&[1], &[2, 1], &[2], &[2], &[1]]);
        homes.settle(ME, &placement, &settings, Some(&less), Some(&mut more));
        assert_eq!(place(&more)[0], Some(200), "where there are fewest");
        let mut anew = topic(2, &[&[1], &[1]]);
        homes.settle(ME, &placement, &settings, Some(&more), Some(&mut anew));
        assert_eq!(place(&anew), [Some(200), Some(300)]);
        let moved = PartitionHome { directory: DirectoryId(Uuid::from_u128(300)), since_run: 0 };
        homes.change(PartitionId::new(anew.id, 0), moved);
        let held = |id| homes.held[&DirectoryId(Uuid::from_u128(id))];
        assert_eq!((homes.get(PartitionId::new(anew.id, 0)), held(200), held(300)), (Some(moved), 0, 2));
        let cordoned = ServerConfig { cordoned_log_dirs: vec!["200".to_owned()], ..ServerConfig::default() };
        let mut kept_off = topic(3, &[&[1], &[1]]);
        homes.settle(ME, &placement, &cordoned, None, Some(&mut kept_off));
        assert_eq!(place(&kept_off), [Some(300), Some(300)]);
        homes.settle(ME, &placement, &cordoned, Some(&kept_off), None);
        homes.settle(ME, &placement, &settings, Some(&anew), None);
        assert!(homes.by_partition.is_empty() && homes.held.values().all(|held| *held == 0));
    }
}
