//! How far groups have read.

use std::collections::{BTreeMap, BTreeSet};

use super::groups::Group;
use super::offsets::{Place, Spot};
use super::route::ClusterClient;
use crate::client::error::{ClientError, Refusal};

/// A group and a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    pub place: Place,
    pub committed: Option<i64>,
    pub end: Option<i64>,
    /// The member that reads it.
    pub member: Option<String>,
    /// Why the end is not known.
    pub refusal: Option<Refusal>,
}

impl Standing {
    /// Records; `None`: not known.
    pub fn lag(&self) -> Option<i64> {
        self.end.zip(self.committed).map(|(end, committed)| (end - committed).max(0))
    }
}

impl ClusterClient {
    /// All partitions that the group has committed offsets of, or that a member
    /// reads, by topic and partition.
    pub async fn standings(&mut self, group: &Group) -> Result<Vec<Standing>, ClientError> {
        let committed = self.committed(&group.group).await?;
        let mut readers: BTreeMap<Place, String> = BTreeMap::new();
        for member in &group.members {
            readers.extend(member.assigned.iter().map(|place| (place.clone(), member.id.clone())));
        }
        let places: BTreeSet<Place> = committed.keys().chain(readers.keys()).cloned().collect();
        let wanted: Vec<(Place, Spot)> = places.into_iter().map(|place| (place, Spot::Latest)).collect();
        let ends = self.offsets(&wanted, false).await?;
        let standing = |(place, end): (Place, Result<i64, Refusal>)| Standing {
            committed: committed.get(&place).map(|committed| committed.offset),
            member: readers.get(&place).cloned(),
            end: end.as_ref().ok().copied(),
            refusal: end.err(),
            place,
        };
        Ok(ends.into_iter().map(standing).collect())
    }
}
