//! Identity of a simulated broker: its host and its directories at a start.

use std::collections::BTreeSet;

use uuid::Uuid;

use crate::cluster::node::{Node, Settings};
use crate::cluster::rules::{Options, Start, TopicDefaults};
use crate::cluster::store::{BrokerRecord, Incarnation, Model, ModelClient};
use crate::cluster::{DirectoryId, EndpointImage};
use crate::model::BrokerId;

#[derive(Clone, Copy, Debug)]
pub struct Identity {
    pub index: usize,
    /// Boots of its host, and data directories that it has had.
    pub boot: u32,
    pub directory: u32,
    /// The last process closed its logs. Of one that was never let in this says nothing of what was
    /// lost before it: then it is true only if it was true before.
    pub clean: bool,
}

impl Identity {
    /// The part of a new process.
    pub fn node(&self, model: &Model, now: i64) -> Node<ModelClient> {
        let endpoint = EndpointImage { listener: "A".to_owned(), host: "b".to_owned(), port: 1 };
        let settings = Settings {
            me: BrokerId(self.index as i32),
            cluster_id: None,
            record: BrokerRecord::new(vec![endpoint], None),
            start: self.start(),
            // Preferred leaders are looked after often, so that it matters.
            options: Options { imbalance_interval_ms: Some(7_000), ..Options::default() },
            defaults: TopicDefaults { min_insync_replicas: 1, unclean_election: false },
        };
        Node::new(model.client(), settings, now)
    }

    /// True if a process with this identity has made the registration. One that was under way when
    /// the power or the directory went lands late, and knows nothing of that.
    pub fn has_made(&self, incarnation: &Incarnation) -> bool {
        let start = self.start();
        incarnation.boot == start.boot && incarnation.directories == start.directories
    }

    pub fn start(&self) -> Start {
        let directory = u128::from(self.directory) << 64 | (1000 + self.index as u128);
        Start {
            clean_stop: self.clean,
            boot: Uuid::from_u128(u128::from(self.boot) << 64 | self.index as u128),
            directories: BTreeSet::from([DirectoryId(Uuid::from_u128(directory))]),
        }
    }
}
