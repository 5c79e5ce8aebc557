//! The target assignment: the group as an assignor sees it.

use std::collections::HashMap;

use super::assignor::{Assignor, Spec, SpecMember, SpecTopic};
use super::group::ConsumerGroup;
use crate::config::GroupConfig;
use crate::groups::env::Topics;
use crate::groups::record::{MemberId, Partitions};

impl ConsumerGroup {
    /// The assignor that most members ask for, the first of those that the broker
    /// has where they do not say.
    pub(super) fn assignor_name<'a>(&'a self, config: &'a GroupConfig) -> &'a str {
        let mut votes: HashMap<&str, usize> = HashMap::new();
        for name in self.members.values().filter_map(|member| member.said.assignor.as_deref()) {
            *votes.entry(name).or_default() += 1;
        }
        let votes_for = |name: &str| votes.get(name).copied().unwrap_or(0);
        let known = config.consumer_assignors.iter().rev().map(String::as_str);
        known.max_by_key(|name| votes_for(name)).unwrap_or("uniform")
    }

    /// The new target of each member, where it is another than before.
    pub(super) fn compute_target(&self, config: &GroupConfig, topics: &dyn Topics) -> Vec<(MemberId, Partitions)> {
        let assignor = Assignor::by_name(self.assignor_name(config)).unwrap_or(Assignor::Uniform);
        let shares = assignor.assign(&self.spec(topics));
        let shares = self.members.keys().zip(shares);
        shares
            .filter(|(member, share)| self.target.get(*member) != Some(share))
            .map(|(member, share)| (member.clone(), share))
            .collect()
    }

    fn spec(&self, topics: &dyn Topics) -> Spec<'_> {
        const NOTHING: &Partitions = &Partitions::new();
        let existing = self.subscribed_topics(topics);
        let index: HashMap<&str, usize> =
            existing.iter().enumerate().map(|(index, topic)| (topic.name.as_ref(), index)).collect();
        let members = self.members.values().map(|member| {
            let by_regex = member.said.regex().and_then(|regex| self.regexes.get(regex));
            let names = member.said.topics.iter().chain(by_regex.into_iter().flat_map(|regex| &regex.topics));
            let mut topics: Vec<usize> = names.filter_map(|name| index.get(name.as_str()).copied()).collect();
            topics.sort_unstable();
            topics.dedup();
            SpecMember {
                id: &member.id,
                instance_id: member.said.instance_id.as_deref(),
                topics,
                target: self.target.get(&member.id).unwrap_or(NOTHING),
            }
        });
        Spec {
            members: members.collect(),
            topics: existing.iter().map(|topic| SpecTopic { id: topic.id, partitions: topic.partitions }).collect(),
        }
    }
}
