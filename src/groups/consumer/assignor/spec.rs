//! The question to an assignor.

use uuid::Uuid;

use super::{range, uniform};
use crate::groups::record::Partitions;

/// Everything that the assignment depends on.
#[derive(Debug, Default)]
pub(in crate::groups::consumer) struct Spec<'a> {
    /// The topics that somebody subscribes to and that exist.
    pub topics: Vec<SpecTopic>,
    /// In the order of their ids.
    pub members: Vec<SpecMember<'a>>,
}

#[derive(Clone, Copy, Debug)]
pub(in crate::groups::consumer) struct SpecTopic {
    pub id: Uuid,
    pub partitions: i32,
}

#[derive(Debug)]
pub(in crate::groups::consumer) struct SpecMember<'a> {
    pub id: &'a str,
    pub instance_id: Option<&'a str>,
    /// Indices into [`Spec::topics`], ascending, each once.
    pub topics: Vec<usize>,
    /// Target of the member until now.
    pub target: &'a Partitions,
}

/// Kafka's assignors, by the name that members and `group.consumer.assignors` use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::groups::consumer) enum Assignor {
    Uniform,
    Range,
}

impl Assignor {
    pub(in crate::groups::consumer) fn by_name(name: &str) -> Option<Assignor> {
        match name {
            "uniform" => Some(Assignor::Uniform),
            "range" => Some(Assignor::Range),
            _ => None,
        }
    }

    /// A share for each member, in the members' order. Each partition of a topic that somebody
    /// subscribes to is in exactly one share, of a member that subscribes to it.
    pub(in crate::groups::consumer) fn assign(self, spec: &Spec) -> Vec<Partitions> {
        match self {
            Assignor::Uniform => uniform::assign(spec),
            Assignor::Range => range::assign(spec),
        }
    }
}

impl Spec<'_> {
    /// True if all members subscribe to the same topics.
    pub(super) fn is_homogeneous(&self) -> bool {
        self.members.windows(2).all(|pair| pair[0].topics == pair[1].topics)
    }

    /// The place of a topic in [`topics`](Self::topics).
    pub(super) fn indices(&self) -> std::collections::HashMap<Uuid, usize> {
        self.topics.iter().enumerate().map(|(index, topic)| (topic.id, index)).collect()
    }
}
