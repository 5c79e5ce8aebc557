//! Markers of ended transactions on their way, as a coordinator's broker sends them.

use std::collections::BTreeMap;

use super::broker::Broker;
use super::clients::TIMEOUT_MS;
use super::net::{Address, Io, Payload};
use super::place::{TRANSACTIONS, partition_at};
use crate::model::{ErrorCode, LeaderEpoch, Marker};
use crate::transactions::{Coordinator, Deed, Written};

/// Pause before a marker that was refused is sent again, ms.
const PAUSE_MS: i64 = 60;

/// The markers of one transaction.
pub struct Ending {
    deed: Deed,
    marker: Marker,
    /// Of the coordinator.
    epoch: LeaderEpoch,
    /// Partitions whose markers are still to be written.
    left: BTreeMap<usize, Sent>,
}

/// A marker on its way: its number, and when it is sent again.
#[derive(Clone, Copy, Debug, Default)]
struct Sent {
    number: u64,
    again_at: i64,
}

impl Broker {
    /// Sends what is due, and tells the coordinator of transactions that have all their markers.
    pub fn end_transactions(&mut self, io: &mut Io) {
        let office = self.replicas[TRANSACTIONS].transactions.as_mut();
        let (epoch, deeds) = match office {
            Some(hosted) => (Some(hosted.epoch()), std::mem::take(&mut hosted.deeds)),
            None => (None, Vec::new()),
        };
        self.endings.retain(|ending| Some(ending.epoch) == epoch);
        for deed in deeds {
            self.begin_ending(deed, epoch.unwrap_or(LeaderEpoch(-1)));
        }
        let due: Vec<(usize, usize)> = self
            .endings
            .iter()
            .enumerate()
            .flat_map(|(at, ending)| {
                let due = ending.left.iter().filter(|(_, sent)| io.now >= sent.again_at);
                due.map(move |(partition, _)| (at, *partition))
            })
            .collect();
        for (at, partition) in due {
            let number = io.number();
            let leader = self.leader_of(partition);
            let ending = &mut self.endings[at];
            ending.left.insert(partition, Sent { number, again_at: io.now + TIMEOUT_MS });
            if let Some((leader, _)) = leader {
                let (from, to) = (Address::Broker(self.index), Address::Broker(leader.0 as usize));
                io.send(from, to, partition, number, Payload::WriteMarker(ending.marker));
            }
        }
        for over in self.endings.extract_if(.., |ending| ending.left.is_empty()) {
            self.replicas[TRANSACTIONS].tell::<Coordinator>(&over.deed, io);
        }
    }

    fn begin_ending(&mut self, deed: Deed, epoch: LeaderEpoch) {
        let Deed::Write(markers) = &deed else { return };
        let partitions = markers.partitions.iter().map(|(topic, number)| partition_at(topic, *number));
        let left = partitions.map(|partition| (partition, Sent::default())).collect();
        self.endings.push(Ending { marker: markers.marker(epoch.0), epoch, left, deed });
    }

    /// A leader answers.
    pub fn marker_written(&mut self, partition: usize, number: u64, result: Result<(), ErrorCode>, io: &mut Io) {
        let has_sent = |ending: &Ending| ending.left.get(&partition).is_some_and(|sent| sent.number == number);
        let Some(at) = self.endings.iter().position(has_sent) else { return };
        let code = result.err().unwrap_or(ErrorCode::None);
        match Written::of(code.code()) {
            Written::Done => {
                self.endings[at].left.remove(&partition);
            }
            Written::Again => {
                let sent = Sent { number: 0, again_at: io.now + PAUSE_MS };
                self.endings[at].left.insert(partition, sent);
            }
            Written::Over => {
                io.note(|| format!("broker {}: markers are given up: {code}", self.index));
                self.endings.remove(at);
            }
        }
        self.end_transactions(io);
    }
}
