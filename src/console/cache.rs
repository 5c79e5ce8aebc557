//! Facts that one question leaves for the next ones: the parts of a refreshed page ask for the same
//! at the same time.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::client::cluster_client::Topic;
use crate::client::{ClientError, ClusterClient};
use crate::runtime::clock;

const TOPICS_FOR: Duration = Duration::from_secs(1);
const SIZES_FOR: Duration = Duration::from_secs(5);

/// Bytes of logs, by topic, then by broker and partition.
pub(super) type Sizes = HashMap<String, HashMap<(i32, i32), i64>>;

#[derive(Default)]
pub(super) struct Cache {
    topics: RefCell<Option<(Instant, Rc<Vec<Topic>>)>>,
    sizes: RefCell<Option<(Instant, Rc<Sizes>)>>,
}

fn fresh<T>(kept: &RefCell<Option<(Instant, Rc<T>)>>, time: Duration) -> Option<Rc<T>> {
    let kept = kept.borrow();
    kept.as_ref().filter(|(at, _)| clock::now().saturating_duration_since(*at) < time).map(|(_, value)| value.clone())
}

impl Cache {
    pub fn clear(&self) {
        self.topics.take();
        self.sizes.take();
    }

    /// All topics, by name.
    pub async fn topics(&self, client: &mut ClusterClient) -> Result<Rc<Vec<Topic>>, ClientError> {
        if let Some(topics) = fresh(&self.topics, TOPICS_FOR) {
            return Ok(topics);
        }
        let topics = Rc::new(client.topics(None).await?);
        *self.topics.borrow_mut() = Some((clock::now(), topics.clone()));
        Ok(topics)
    }

    /// Of all brokers that tell them.
    pub async fn sizes(&self, client: &mut ClusterClient) -> Result<Rc<Sizes>, ClientError> {
        if let Some(sizes) = fresh(&self.sizes, SIZES_FOR) {
            return Ok(sizes);
        }
        client.learn().await?;
        let brokers: Vec<i32> = client.nodes().map(|node| node.id).collect();
        let mut sizes = Sizes::new();
        for broker in brokers {
            let Ok(dirs) = client.log_dirs(broker).await else { continue };
            for log in dirs.into_iter().flat_map(|dir| dir.partitions).filter(|log| !log.future) {
                sizes.entry(log.topic).or_default().insert((broker, log.partition), log.bytes);
            }
        }
        let sizes = Rc::new(sizes);
        *self.sizes.borrow_mut() = Some((clock::now(), sizes.clone()));
        Ok(sizes)
    }
}
