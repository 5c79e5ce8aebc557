//! Markers of ended transactions on their way to the partitions.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use crate::client::Connection;
use crate::client::transactions::write_markers;
use crate::model::{BrokerId, ErrorCode, Marker, PartitionId};
use crate::runtime::sync::oneshot;
use crate::runtime::{clock, spawn_local};
use crate::shard::coordinators::Hosted;
use crate::shard::{MarkerPart, Shard};
use crate::transactions::api::TopicPartition;
use crate::transactions::{Coordinator, Deed, Markers, Written};

/// Pauses between attempts to write markers that were refused: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// A partition that the metadata here does not have may be newer than they are.
/// So long it is waited for.
const GONE_AFTER: Duration = Duration::from_secs(5);

impl Shard {
    /// Does what a coordinator wants done outside, as long as it is in office.
    pub(in crate::shard) async fn do_deeds(self: Rc<Self>, hosted: Rc<Hosted<Coordinator>>) {
        while let Some(deed) = hosted.next_deed().await {
            let (shard, hosted) = (self.clone(), hosted.clone());
            match deed {
                Deed::Write(markers) => spawn_local(async move { shard.end_everywhere(&hosted, markers).await }),
                Deed::TimeOut(id) => spawn_local(async move {
                    match shard.new_producer_id().await {
                        Ok(fresh_id) => {
                            hosted.tell(&shard.transaction_world(), |core, env| core.time_out(&id, Some(fresh_id), env))
                        }
                        Err(error) => tracing::warn!(
                            transactional_id = &*id, %error,
                            "a transaction that took too long is aborted later: no producer id could be had"
                        ),
                    }
                }),
            }
        }
    }

    /// Writes the markers to all partitions, however long it takes, and tells the coordinator.
    async fn end_everywhere(self: &Rc<Self>, hosted: &Rc<Hosted<Coordinator>>, markers: Markers) {
        let marker = markers.marker(hosted.epoch());
        let (mut left, mut pause) = (markers.partitions, FIRST_PAUSE);
        let gone_from = clock::now() + if self.config.in_cluster() { GONE_AFTER } else { Duration::ZERO };
        loop {
            let may_be_new = clock::now() < gone_from;
            left = match self.write_once(marker, left, may_be_new).await {
                Ok(left) => left,
                Err(code) => {
                    tracing::warn!(
                        transactional_id = &*markers.id, %code, "the markers of a transaction were refused for good"
                    );
                    return;
                }
            };
            if left.is_empty() || hosted.admit().is_err() || self.stop.is_set() {
                break;
            }
            clock::sleep(pause).await;
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
        if left.is_empty() {
            let world = self.transaction_world();
            hosted.tell(&world, |core, env| core.complete(&markers.id, markers.producer, env));
        }
    }

    /// Writes the markers once, here and at other brokers; the partitions that have
    /// yet to get theirs. Those that are no more need none; `may_be_new`: what is not
    /// known is not taken for gone.
    async fn write_once(
        self: &Rc<Self>,
        marker: Marker,
        partitions: BTreeSet<TopicPartition>,
        may_be_new: bool,
    ) -> Result<BTreeSet<TopicPartition>, ErrorCode> {
        let image = self.image();
        let (mut here, mut parts) = (Vec::new(), Vec::new());
        let mut elsewhere: BTreeMap<BrokerId, BTreeSet<TopicPartition>> = BTreeMap::new();
        let mut left = BTreeSet::new();
        for partition in partitions {
            let known = image.topic(&partition.0).and_then(|topic| {
                let known = topic.partitions.get(usize::try_from(partition.1).ok()?)?;
                Some((topic, known.leader))
            });
            let Some((topic, leader)) = known else {
                if may_be_new {
                    left.insert(partition);
                }
                continue;
            };
            match leader {
                Some(leader) if leader != self.broker() => {
                    elsewhere.entry(leader).or_default().insert(partition);
                }
                Some(_) => {
                    parts.push(MarkerPart { partition: PartitionId::new(topic.id, partition.1), marker });
                    here.push(partition);
                }
                None => {
                    left.insert(partition);
                }
            }
        }
        let mut running = Vec::new();
        for (broker, partitions) in elsewhere {
            // Partitions without an answer are asked for again.
            left.extend(partitions.iter().cloned());
            let (shard, (sender, receiver)) = (self.clone(), oneshot());
            spawn_local(async move {
                let ask = async |peer: &mut Connection| write_markers(peer, &marker, partitions.iter()).await;
                sender.send(shard.ask_peer(broker, ask).await);
            });
            running.push((broker, receiver));
        }
        let written = self.write_markers(parts).await;
        let mut outcomes: Vec<(TopicPartition, i16)> =
            here.into_iter().zip(written.into_iter().map(ErrorCode::code)).collect();
        for (broker, receiver) in running {
            match receiver.recv().await {
                Some(Ok(answered)) => outcomes.extend(answered),
                Some(Err(error)) => tracing::debug!(%broker, %error, "markers of a transaction are sent again"),
                None => {}
            }
        }
        for (partition, code) in outcomes {
            match Written::of(code) {
                Written::Done => left.remove(&partition),
                Written::Again => left.insert(partition),
                Written::Over => return Err(ErrorCode::TransactionCoordinatorFenced),
            };
        }
        Ok(left)
    }
}
